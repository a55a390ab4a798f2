/* host/train/evaluate.h - the mean loss of a model over a split, nothing trained. */
#ifndef GT_TRAIN_EVALUATE_H
#define GT_TRAIN_EVALUATE_H

#include "host/data/loader.h"
#include "host/graph/exec.h"

typedef struct evaluate evaluate;

typedef struct evaluate_options {
    exec_options place;             /* device, kernels, gemm, params, arena; no bindings */
    const token_split *split;
    uint64_t batch, seq;
    uint64_t batches;               /* stop after so many; 0: the whole split            */
} evaluate_options;

/* Builds the loss graph with `build` (see train_model). exec_ready is left to
 * evaluate_ready, since an arena may be shared with a training graph. */
gt_status evaluate_create(evaluate **out, gt_status (*build)(graph *g, const void *config,
                          int train, int recompute), const void *config, dtype storage,
                          const evaluate_options *o);
gt_status evaluate_ready(evaluate *e);
void      evaluate_release(evaluate *e);            /* takes NULL */

/* Mean loss a token, in nats, and how many tokens that was (may be NULL). Waits. */
gt_status evaluate_run(evaluate *e, double *loss, uint64_t *tokens);

#endif
