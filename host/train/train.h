/* SPDX-License-Identifier: MIT */
/* host/train/train.h - the step loop: batches in, updates out, a run directory behind it.
 *
 *   train *t;
 *   train_create(&t, device, &model, &data, &options);         all ranks of options.comm
 *   train_run(t, &hooks);            until options.steps, an error, or train_stop()
 *   train_release(t);
 *
 * Alone, the host runs one step ahead where steps are short: while the device works on step s, step
 * s - 1's loss is read and recorded, and nothing in a step waits for the device. Of several ranks each runs its
 * stage of the plan (pipeline/stage.h); gradients, the loss and the norm are summed over ranks
 * before the update. Rank 0 keeps the record, all ranks write checkpoints.
 * Errors   GT_NUMERIC: a loss or gradient was not finite; the sentence names the step, the
 *          first bad operation and the last good checkpoint. GT_INTERRUPTED after
 *          train_stop(); a checkpoint was written.                                       */
#ifndef GT_TRAIN_TRAIN_H
#define GT_TRAIN_TRAIN_H

#include "host/data/batch.h"
#include "host/device/device.h"
#include "host/graph/exec.h"
#include "host/optim/optim.h"
#include "host/pipeline/stage_choice.h"
#include "host/sync/compress_choice.h"
#include "host/sync/sync.h"
#include "host/train/checkpoint.h"
#include "host/train/evaluate.h"
#include "host/train/image.h"
#include "host/train/metrics.h"

/* What training needs to know of a model; models/ fills it in. */
typedef struct train_model {
    const char *name;               /* for titles; may be NULL                               */
    const void *config;
    int units;                      /* that a plan can cut between; 0: the model is one piece */
    stage_builder build;            /* part NULL: the whole model                            */
    data_batch_maker batch;         /* what it is fed with; NULL: tokens, and the next ones  */
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
    double tune;                    /* share of the time for tuning products between steps, 0: none is tuned */
    int tune_variants;              /* ways in which a product is tried, 0: as many as are worth it */
    const char *run;                /* run directory, NULL: none (benchmarks, tests)      */
    int resume;                     /* go on from the newest checkpoint in `run`          */
    uint64_t first_save;            /* step after which that run was to write its first
                                       checkpoint: behind it, one must be there; 0: not known */
    int new_data;                   /* which may have been trained on other data; else GT_MISMATCH */
    /* 0: never; all of the split; at the end. eval_batches are batches of `batch` sequences. */
    uint64_t eval_every, eval_batches, save_every;
    int keep;                       /* newest checkpoints kept, 0: all                    */
    int keep_best;                  /* and the one with the lowest validation loss, written as it is found */
    /* Over after so many validations in a row whose loss is not lower by more than `improvement` than the
     * last one's that was; 0: never. */
    uint64_t patience;
    double improvement;
    uint64_t sample_every;          /* steps between calls of train_hooks.sample; 0: never */
    const unsigned char *val_bytes; /* of text, that each of so many ids spells, for bits per byte; NULL: not known */
    uint32_t val_ids;
    double peak_flops;              /* of this rank's device, for mfu; 0: unknown         */
    net_comm *comm;                 /* NULL: the only rank                                */
    compress_spec compress;         /* of gradients between ranks                         */
    sync_candidates candidates;     /* or one of these for each link; count 0: `compress` for all. The plan's
                                       links are taken if there are any; compress.after counts for all */
    stage_forms between;            /* of what pipeline stages send; count 0: as it is. Any other needs stages, and a
                                       precision that wire_kind_shortens(); of several the plan's stage_links are taken
                                       if there are any                                     */
    int whole_tables;               /* 1: gradients of tables go between ranks whole, never as the rows of a step */
    /* Ranks may be put together anew (image.h): what this process kept of the job before, not owned, NULL: nothing. */
    int elastic;
    const train_image *image;
    int (*pause)(void); /* asked once a step: 1: end it there for others to join; NULL: never */
    const run_plan *plan; /* who does what, copied; NULL: one rank and micro_batch  */
    const char *data_name, *val_name; /* of the data, for sentences; may be NULL         */
} train_options;

typedef struct train_data {
    const token_split *train, *val; /* val NULL: no evaluation */
} train_data;

/* GT_MISUSE if the numbers among the options cannot be trained with; train_create() asks as well. */
gt_status train_options_check(const train_options *o);

gt_status train_create(train **out, dev_device *d, const train_model *m, const train_data *data,
                       const train_options *o);
void train_release(train *t); /* takes NULL */
/* What failed on this rank alone ends the job, before anything is released: receives that are posted, sums that
 * have begun and servers that others push to would wait for ranks which wait for this one. train_create() and
 * train_run() do so; for what fails between them, and afterwards. Returns st. Takes t NULL. */
gt_status train_end_together(train *t, gt_status st);

typedef struct train_hooks {
    void *context;
    /* After every step, in order; never NULL inside: leave the member NULL if not wanted. */
    void (*step)(void *context, const metrics_row *row);
    /* Long things: "evaluating", "saving"; done is 0 at the start and 1 at the end. */
    void (*phase)(void *context, const char *what, int done);
    /* Writes texts with the weights after so many steps. folder: a checkpoint of them, as
     * checkpoint_load() takes it; NULL: this rank has all of them, in train_params(). On rank 0 alone. */
    gt_status (*sample)(void *context, uint64_t step, const char *folder);
} train_hooks;

gt_status train_run(train *t, const train_hooks *hooks);
/* Asks a running train_run to end after the current step; safe in a signal handler. A signal
 * (host/base/stop.h) does not wait for that: the step under way is given up. */
void train_stop(train *t);

/* Before train_run(), on all ranks: does no step, and ends as after train_stop(), with a checkpoint. */
void train_keep(train *t);
/* 1: train_run() gave GT_INTERRUPTED because of options.pause alone, after the same step on all
 * ranks. They write no checkpoint then: train_image_take() is what goes on. */
int train_is_paused(const train *t);

/* Sends the inputs of this rank's first micro-batch of a step to train_exec(), for exec_explain(). */
gt_status train_load(train *t, uint64_t step);

/* One step without loop, record or checkpoint: batch `step` from the data's start, forward, backward
 * and (if `update`) the optimizer; waits, and gives the loss. For tests and benchmarks. */
gt_status train_once(train *t, uint64_t step, int update, double *loss, double *grad_norm);
/* Over the validation split, or its first eval_batches * batch sequences. */
gt_status train_evaluate(train *t, evaluate_result *out);
/* Keeps a text of a sample with the run's record. */
gt_status train_record_sample(train *t, const char *prompt, const char *text, size_t size);
/* What validations have come to so far, and whether patience is over. */
const checkpoint_best *train_best(const train *t);
/* Lines for people on what goes between ranks (sync_explain). */
void train_explain_sync(const train *t, gt_text *out);
int train_is_over_early(const train *t);
/* How many sequences of how many of the split that takes; 0 without one. The same for every plan. */
uint64_t train_evaluated_rows(const train *t, uint64_t *all);

/* What tuning between steps has come to; zeros without options.tune. */
typedef struct train_tuned {
    int products, faster; /* so many were tuned, and so many of them are multiplied faster now */
    int trials, over; /* over: none is left to be tuned */
    double usual_s, tuned_s; /* what they take a micro-batch, measured by themselves: before, and now */
    double seconds; /* that it took */
} train_tuned;
train_tuned train_tuned_of(const train *t);

/* How the ranks of the newest recorded step shared its time; zeros when alone. */
typedef struct train_balance {
    double idle; /* share of all ranks' time without computation        */
    int slowest; /* the rank that computed longest                      */
    double slowest_busy, mean_busy; /* seconds                                             */
    uint64_t sent; /* bytes of activations and gradients, of all ranks    */
    uint64_t copied; /* see metrics.h                                       */
    double rounding[2], rounding_most[2]; /* see metrics.h                                 */
    uint64_t held, spared; /* tensors held back (compress_threshold), and bytes not sent for it */
} train_balance;
/* 1: it began with an image, and not with a checkpoint or new parameters. */
int train_is_from_memory(const train *t);
const train_balance *train_balance_of(const train *t);
/* Seconds that a rank computed in the newest queued step; 0 when alone. */
double train_busy_of(const train *t, int rank);
const run_plan *train_plan(const train *t); /* with what was chosen for each link           */
const sync_choice *train_choice(const train *t); /* of compressors; NULL: there was none  */
const stage_choice *train_stage_choice(const train *t); /* of what stages send; NULL: there was none */
/* sync_compressed(). */
void train_compressed(const train *t, double *encoded, double *summed);
stage *train_stage(train *t);

uint64_t train_steps_done(const train *t);
uint64_t train_steps_queued(const train *t); /* those too whose row is not recorded yet */
uint64_t train_tokens_done(const train *t); /* as data_total counts them */
uint64_t train_samples_done(const train *t); /* the position in the data, host/data/loader.h */
const loader *train_loader(const train *t);
params *train_params(train *t);
optim *train_optim(train *t);
exec *train_exec(train *t); /* of the first chunk, first micro-batch */

/* What the run takes on the device, for printing before it starts. */
typedef struct train_memory {
    uint64_t parameters, copies, gradients, state, activations, inputs; /* state: the optimizer's */
    uint64_t total;
    uint64_t host; /* beside it, of the host, for staying together: traffic.h */
} train_memory;
train_memory train_memory_of(const train *t);

#endif
