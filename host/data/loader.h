/* SPDX-License-Identifier: MIT */
/* host/data/loader.h - which tokens are the samples of a batch.
 *
 * A pure function of (seed, position, i) and the split, so every rank computes its own samples,
 * a resumed job goes on where it stopped, and the plan changes nothing. B samples of T tokens
 * a batch; a sample is T + 1 neighbouring tokens, input x the first T and target y the last.
 *
 * The position is a number of samples, not of steps: a run that goes on with another B neither
 * repeats nor leaves out any. The batch at position p holds samples p .. p + B - 1, and the next
 * one follows at loader_begin(p) + B. With one B from the start, batch s is at loader_step(s).
 *
 * LOADER_SHUFFLED    an epoch cuts the split into windows that begin T apart (the last token
 *                    of one is the first of the next, so each token is a target once) and
 *                    visits them in a random order. Each epoch begins at another offset
 *                    below T, so windows differ from epoch to epoch. Sample n is window
 *                    n mod W of epoch n / W. Fewer than two windows of tokens a split are
 *                    left out of an epoch at its ends.
 * LOADER_SEQUENTIAL  sample n is tokens [r*T, r*T + T] with r = n mod R, R the rows of T
 *                    tokens that the split has. At its end it begins again, as llm.c's loader
 *                    does: a batch that does not fit whole is not begun, so its position is
 *                    the next multiple of R.
 *
 * Evaluation walks the split once, without overlap, whatever the order.
 *
 * How sequences are cut is the split's `reading` (tokens.h). Where a sequence is a document, windows above are documents:
 * one that is longer than T is cut, one that is shorter is padded. Where tokens see their own document only, sequences
 * are the same as always, and where a document ends within one is told.
 *
 * A mixture takes its sequences from its parts: of every `slots` samples, which are in the ratio of the weights
 * as far as 10,000 allow it, each part has its share in an order that is drawn anew, and of these samples its own are
 * counted through, so that each part runs through its epochs by itself. Which part sample n is of and which
 * sample of that part is computed from n alone. Evaluation takes as many rows of each as that ratio and the part that has
 * the fewest allow.
 *
 * Threads    a loader never changes; reading may run anywhere.                          */
#ifndef GT_DATA_LOADER_H
#define GT_DATA_LOADER_H

#include "host/data/tokens.h"

typedef enum loader_order { LOADER_SHUFFLED, LOADER_SEQUENTIAL } loader_order;

/* A target that is no token, behind the end of an evaluation. */
#define LOADER_IGNORE (-1)

enum { LOADER_SOURCES = 32 };           /* of a mixture, at most */

typedef struct loader_source {
    const token_split *split;
    uint64_t windows;                   /* an epoch of it                          */
    uint64_t rows;                      /* of T tokens or, where these are sequences, documents */
    uint32_t first_slot, slots;         /* of each loader.slots samples            */
} loader_source;

typedef struct loader {
    const token_split *split;
    loader_order order;
    uint64_t batch, tokens, seed;       /* B, T */
    uint64_t windows;                   /* an epoch: windows, or sequential batches */
    uint64_t rows;                      /* that evaluation walks over               */
    int sources;                        /* 1, unless the split is a mixture         */
    uint32_t slots;
    loader_source source[LOADER_SOURCES];
} loader;

/* The split must outlive the loader; there is nothing to release. GT_MISMATCH if the split
 * is too short: T + 1 tokens, or B*T + 1 for LOADER_SEQUENTIAL. `name` is for the sentence. */
gt_status loader_open(loader *out, const token_split *split, const char *name, loader_order order, uint64_t batch,
                      uint64_t tokens, uint64_t seed);

/* Samples [first, first + count) of the batch at a position, count rows of T: x and y hold
 * count*T ids, and either may be NULL. first + count <= B. Fails as token_split_read() does. */
gt_status loader_read(const loader *l, uint64_t position, uint64_t first, uint64_t count, int32_t *x, int32_t *y);

/* What a batch may ask of its sequences; NULL: not wanted. T values a sequence, or one. */
typedef struct loader_fields {
    int32_t *tokens;                    /* (count, T); 0 behind the end of a document        */
    int32_t *targets;                   /* (count, T) each the token behind it; LOADER_IGNORE where it weighs 0 */
    float *weights;                     /* (count, T) of the targets, 0 or 1                 */
    int32_t *starts;                    /* (count, T) the first position that may be seen    */
    int32_t *types;                     /* (count, T) 1 in the second text of a pair         */
    int32_t *lengths;                   /* (count) positions that hold tokens                */
    int32_t *labels; /* (count) of the document; LOADER_IGNORE if rows are not documents with labels */
} loader_fields;

/* As loader_read(), whatever is wanted. A labelled document that is cut keeps its last token, which a tokenizer's
 * template put there. */
gt_status loader_fill(const loader *l, uint64_t position, uint64_t first, uint64_t count, const loader_fields *f);
/* The same of evaluation rows, of which those from `real` on are padding: nothing in them counts. */
gt_status loader_fill_rows(const loader *l, uint64_t first, uint64_t count, uint64_t real, const loader_fields *f);

/* Do targets weigh otherwise than 1 each (not where there is no split yet)? Then the sum of their weights in samples [first, first + count) of the
 * batch at a position, or in evaluation rows. */
int loader_weighs(const loader *l);
gt_status loader_weigh(const loader *l, uint64_t position, uint64_t first, uint64_t count, double *sum);
gt_status loader_weigh_rows(const loader *l, uint64_t first, uint64_t count, double *sum);

/* What loader_weighs() would say of a loader of this split. */
int token_split_weighs(const token_split *s);

/* What of the first `samples` samples came from a part of a mixture (0: of the split alone): samples, and passes
 * over the part. */
void loader_taken(const loader *l, uint64_t samples, int source, uint64_t *of_it, double *epochs);

/* The sample that a batch asked for at `position` begins with: `position`, or the next pass. */
uint64_t loader_begin(const loader *l, uint64_t position);
/* Where batch `step` begins if all before it held `batch` samples (0: B). */
uint64_t loader_step(const loader *l, uint64_t step, uint64_t batch);
/* Where to go on in this loader after `samples` samples of `tokens` tokens in the same split and
 * order: at the same share of the same pass. Another T cuts other windows, so what of that pass
 * was seen and what was not is exact for LOADER_SEQUENTIAL only. */
uint64_t loader_convert(const loader *l, uint64_t samples, uint64_t tokens);

/* Steps in one pass over the split, the last perhaps reaching into the next. */
uint64_t loader_epoch_steps(const loader *l);

/* Evaluation: row k is tokens [k*T, k*T + T]. The rows a split has; a tail shorter than
 * T + 1 tokens is left out. */
uint64_t loader_eval_rows(const loader *l);

/* Rows [first, first + count). Rows past the last have x = 0 and y = LOADER_IGNORE, so that
 * a batch of fixed shape can hold the rest; *filled is how many rows are real; x or y may be NULL. */
gt_status loader_eval(const loader *l, uint64_t first, uint64_t count, int32_t *x, int32_t *y, uint64_t *filled);

#endif
