/* host/data/loader.h - which tokens are sample i of step s.
 *
 * A pure function of (seed, s, i) and the split, so every rank computes its own samples, a
 * resumed job goes on where it stopped, and the plan changes nothing. B samples of T tokens
 * a step; a sample is T + 1 neighbouring tokens, input x the first T and target y the last.
 *
 * LOADER_SHUFFLED    an epoch cuts the split into windows that begin T apart (the last token
 *                    of one is the first of the next, so each token is a target once) and
 *                    visits them in a random order. Each epoch begins at another offset
 *                    below T, so windows differ from epoch to epoch. Samples are numbered
 *                    through all steps: sample s*B + i is window (s*B + i) mod W of epoch
 *                    (s*B + i) / W. Fewer than two windows of tokens a split are left out
 *                    of an epoch at its ends.
 * LOADER_SEQUENTIAL  batch s is tokens [s*B*T, s*B*T + B*T], sample i its i-th T tokens.
 *                    At the end of the split it begins again, as llm.c's loader does: a
 *                    batch that does not fit whole is not begun.
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
} loader;

/* The split must outlive the loader; there is nothing to release. GT_MISMATCH if the split
 * is too short: T + 1 tokens, or B*T + 1 for LOADER_SEQUENTIAL. `name` is for the sentence. */
gt_status loader_open(loader *out, const token_split *split, const char *name,
                      loader_order order, uint64_t batch, uint64_t tokens, uint64_t seed);

/* Samples [first, first + count) of a step, count rows of T: x and y hold count*T ids.
 * first + count <= B. Fails as token_split_read() does. */
gt_status loader_read(const loader *l, uint64_t step, uint64_t first, uint64_t count,
                      int32_t *x, int32_t *y);

/* Steps in one pass over the split, the last perhaps reaching into the next. */
uint64_t loader_epoch_steps(const loader *l);

/* Evaluation: row k is tokens [k*T, k*T + T]. The rows a split has; a tail shorter than
 * T + 1 tokens is left out. */
uint64_t loader_eval_rows(const loader *l);

/* Rows [first, first + count). Rows past the last have x = 0 and y = LOADER_IGNORE, so that
 * a batch of fixed shape can hold the rest; *filled is how many rows are real. */
gt_status loader_eval(const loader *l, uint64_t first, uint64_t count, int32_t *x, int32_t *y,
                      uint64_t *filled);

#endif
