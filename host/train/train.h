/* host/train/train.h - the step loop: batches in, updates out, a run directory behind it.
 *
 *   train *t;
 *   train_create(&t, device, &model, &data, &options);
 *   train_run(t, &hooks);            until options.steps, an error, or train_stop()
 *   train_release(t);
 *
 * The host runs one step ahead: while the device works on step s, step s - 1's loss is
 * read and recorded. Nothing in a step waits for the device.
 * Errors   GT_NUMERIC: a loss or gradient was not finite; the sentence names the step, the
 *          first bad operation and the last good checkpoint. GT_INTERRUPTED after
 *          train_stop(); a checkpoint was written.                                       */
#ifndef GT_TRAIN_TRAIN_H
#define GT_TRAIN_TRAIN_H

#include "host/data/loader.h"
#include "host/device/device.h"
#include "host/graph/exec.h"
#include "host/optim/optim.h"
#include "host/train/checkpoint.h"
#include "host/train/metrics.h"

/* What training needs to know of a model; models/ fills it in. */
typedef struct train_model {
    const void *config;
    gt_status (*build)(graph *g, const void *config, int train, int recompute);
    /* Fills parameters from elsewhere (an imported folder), or NULL: random ones. */
    gt_status (*fill)(const void *config, params *p, void *context);
    void *fill_context;
    double flops_per_token;
} train_model;

typedef struct train train;

typedef struct train_options {
    uint64_t steps, batch, micro_batch, seq, seed;  /* batch: sequences a step; micro 0: batch */
    loader_order order;
    optim_config optim;
    dtype precision;
    int recompute;
    const char *gemm;               /* engine by name, NULL: choose by measurement        */
    const char *run;                /* run directory, NULL: none (benchmarks, tests)      */
    int resume;                     /* go on from the newest checkpoint in `run`          */
    uint64_t eval_every, eval_batches, save_every;  /* 0: never; all of the split; at the end */
    int keep;                       /* checkpoints kept, 0: all                           */
    double peak_flops;              /* of the device, for mfu; 0: unknown                 */
    /* One replica of several; all zero: the only one. Every replica holds the whole model and
     * takes micro-batches [share_first, share_first + share) of each step (train_set_share).
     * Rank 0 alone writes the run; others read it to resume. */
    int rank;
    /* Called after a step's gradients are queued: sums them, and the loss, over all replicas.
     * *stop: in, this replica is asked to stop; out, some replica is. */
    gt_status (*sum)(void *context, train *t, int *stop);
    void *sum_context;
} train_options;

typedef struct train_data {
    const token_split *train, *val; /* val NULL: no evaluation */
} train_data;

gt_status train_create(train **out, dev_device *d, const train_model *m, const train_data *data,
                       const train_options *o);
void      train_release(train *t);                  /* takes NULL */

typedef struct train_hooks {
    void *context;
    /* After every step, in order; never NULL inside: leave the member NULL if not wanted. */
    void (*step)(void *context, const metrics_row *row);
    /* Long things: "evaluating", "saving"; done is 0 at the start and 1 at the end. */
    void (*phase)(void *context, const char *what, int done);
} train_hooks;

gt_status train_run(train *t, const train_hooks *hooks);
/* Asks a running train_run to end after the current step; safe in a signal handler. */
void train_stop(train *t);

/* One step without loop, record or checkpoint: batch `step` of the data, forward, backward
 * and (if `update`) the optimizer; waits, and gives the loss. For tests and benchmarks. */
gt_status train_once(train *t, uint64_t step, int update, double *loss, double *grad_norm);
/* Mean loss over the validation split (or its first eval_batches batches). */
gt_status train_evaluate(train *t, double *loss, uint64_t *tokens);

/* Which micro-batches of a step are this replica's; before the first step. */
gt_status train_set_share(train *t, uint64_t first, uint64_t count);
uint64_t  train_micro_batches(const train *t);      /* of a whole step, all replicas */
/* Seconds of forward and backward of one micro-batch, without an update: the second of two. */
gt_status train_time_micro_batch(train *t, double *seconds);

uint64_t  train_steps_done(const train *t);
params   *train_params(train *t);
optim    *train_optim(train *t);
exec     *train_exec(train *t);

/* What the run takes on the device, for printing before it starts. */
typedef struct train_memory {
    uint64_t parameters, copies, gradients, moments, activations, inputs;
    uint64_t total;
} train_memory;
train_memory train_memory_of(const train *t);

#endif
