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
 * Threads    a loader never changes; reading may run anywhere.                          */
#ifndef GT_DATA_LOADER_H
#define GT_DATA_LOADER_H

#include "host/data/tokens.h"

typedef enum loader_order { LOADER_SHUFFLED, LOADER_SEQUENTIAL } loader_order;

/* A target that is no token, behind the end of an evaluation. */
#define LOADER_IGNORE (-1)

typedef struct loader {
    const token_split *split;
    loader_order order;
    uint64_t batch, tokens, seed;       /* B, T */
    uint64_t windows;                   /* an epoch: windows, or sequential batches */
    uint64_t rows;                      /* of T tokens, from the first token on     */
} loader;

/* The split must outlive the loader; there is nothing to release. GT_MISMATCH if the split
 * is too short: T + 1 tokens, or B*T + 1 for LOADER_SEQUENTIAL. `name` is for the sentence. */
gt_status loader_open(loader *out, const token_split *split, const char *name, loader_order order, uint64_t batch,
                      uint64_t tokens, uint64_t seed);

/* Samples [first, first + count) of the batch at a position, count rows of T: x and y hold
 * count*T ids, and either may be NULL. first + count <= B. Fails as token_split_read() does. */
gt_status loader_read(const loader *l, uint64_t position, uint64_t first, uint64_t count, int32_t *x, int32_t *y);

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
