/* SPDX-License-Identifier: MIT */
/* host/train/train_private.h - what the files of the step loop share.
 *
 *   train.c        making everything: plan, stage, parameters, optimizer, run folder
 *   train_run.c    a step, and the loop over steps
 *   train_tune.c   products tuned between steps
 *   train_apart.c  rows of steps that replicas took apart from each other               */
#ifndef GT_TRAIN_PRIVATE_H
#define GT_TRAIN_PRIVATE_H

#include "host/data/batch.h"
#include "host/graph/derived.h"
#include "host/sync/sync.h"
#include "host/exchange/tensor_exchange.h"
#include "host/train/evaluate.h"
#include "host/train/image.h"
#include "host/train/train.h"

#include <signal.h>

enum {
    DEPTH = 2,                          /* steps in flight */
    FLIGHTS = DEPTH + 1                 /* and the one before them: its row may be all that a lost rank left undone */
};

/* One micro-batch's inputs on the host. */
typedef struct slot {
    void *field[DATA_FIELDS];
    int32_t *(*derived)[GRAPH_DERIVED_OUTPUTS];     /* [train.derived_count] */
    uint32_t random[4];
} slot;

/* Inputs of a chunk's graph that are computed from a field. */
typedef struct chunk_derived {
    int chunk;
    graph_derived d;
} chunk_derived;

/* A step that has been queued and not yet waited for. */
typedef struct flight {
    uint64_t step;                      /* its index: 0, 1, ... */
    uint64_t begin;                     /* its first sample */
    int takes_part;                     /* this replica */
    uint64_t rows, first, own;          /* its sequences; this replica's first of them, and how many */
    float state[OPTIM_STATE_FLOATS];
    uint64_t ticket;                    /* of its continuation; 0 once it has landed */
    uint64_t end_ns;                    /* when the device was done with it, from the completion thread */
    struct train *of;
    uint64_t start_ns;                  /* when the host began to queue it */
    uint64_t update_ns;                 /* of several ranks: when its update was queued */
    double seconds;                     /* of several ranks: until its gradients were summed */
    double lr;
    double weights;                     /* of the targets that count in its update */
    data_total all;                     /* of all replicas together */
    int apart;                          /* the update was this replica's alone */
    sync_totals mine;                   /* what this rank told of it */
    train_balance balance;
} flight;

struct train {
    dev_device *device;
    train_options o;
    train_model model;
    train_data data;
    run_plan plan;
    run_place place;
    int rank, ranks;
    kernel_set *kernels;
    gemm_context *gemm, *update_gemm;   /* update_gemm: of several ranks, the optimizer's */
    stage *stage;
    params *params;
    optim *optim;
    dev_list *clear;                    /* of a rank that only serves: its gradients before a step */
    exec_arena *arena;                  /* what passes within a program */
    dev_completion *completion;
    net_group *tensor_group;            /* the ranks that split this stage's layers; NULL: one */
    tensor_exchange *exchange;
    struct tensor_sum *sum;             /* what the optimizer adds up over them */
    tensor_exchange_spent exchanged;    /* up to the newest step */
    sync_holders *holders;          /* of several ranks; NULL: alone */
    sync_choice *choice;            /* of compressors; NULL: one for all */
    stage_choice *stage_choice;     /* of what stages send; NULL: one form for all */
    const sync_mode *mode;
    sync_run *sync;
    unsigned char *mine, *mine_state;   /* [parameter] this rank writes it, or its state */
    struct train_tuning *tuning;        /* of products beside the run; NULL: none is */
    evaluate *evaluate;                 /* NULL without a validation split */
    loader loader;
    data_batch batch;                   /* what a step reads */
    chunk_derived *derived;
    int derived_count;
    uint64_t micros, micro_batch;       /* this replica's; micros 0: it only serves */
    uint64_t landed_ns;                 /* on the completion thread: when the newest step was done */
    double peak, gemm_rate;             /* FLOPs a second of all ranks' devices; 0: not known */
    uint64_t running, running_at;       /* the step whose inputs are being queued; its first sample */
    uint64_t running_first, running_rows;       /* this replica's first sequence of it; all its sequences */
    int begun;                          /* others may count on this rank from here on */
    int stopping;                       /* agreed by all ranks */
    int stopping_for_good;              /* and not only for others to join */
    struct held *held;                  /* of steps apart, since ranks met */
    int held_count, held_room;
    int from_memory;                    /* it began with an image */
    int half;                           /* an update was queued, and not all weights of others came */
    struct train_image *kept;           /* elastic, of steps apart: where ranks met last; or NULL */
    double *busy;                       /* [rank] in the newest recorded step, of several ranks queued */
    flight *updating;                   /* of the step that stage_run() queues; NULL: no update */
    slot *slots;                        /* DEPTH * micros */
    int32_t *scratch;                   /* for computing what is derived */
    flight flights[FLIGHTS];
    uint64_t done, queued;              /* steps recorded; steps queued */
    uint64_t updated;                   /* steps whose update was queued: `queued`, but where one failed half-way */
    uint64_t samples;                   /* the position in the data behind what is queued */
    uint64_t tokens;                    /* trained on, of the steps recorded */
    uint64_t data_hash;                 /* of the training split; with a run folder only */
    uint64_t last_saved;                /* step of the newest checkpoint, UINT64_MAX: none */
    uint64_t last_end_ns;
    double last_seconds;                /* of the newest recorded step; 0: none yet */
    uint64_t skips;                     /* in a row */
    train_balance balance;              /* of the newest recorded step */
    evaluate_result pending;            /* to put on the next recorded row; loss NaN: none */
    checkpoint_best best, best_before;  /* before: as the newest step was queued */
    metrics *metrics;
    int lock;                           /* the run's folder, held open and locked; -1: none */
    volatile sig_atomic_t stop;
};

typedef struct train_tuning train_tuning;
/* Before the first step; takes a train without. */
gt_status train_tune_create(train *t);
void train_tune_release(train *t);
/* Whether a trial may follow the newest step that is queued. */
int train_tune_is_due(const train *t);
/* One trial. No step may be under way. */
gt_status train_tune_try(train *t);

/* What so many tokens that count, and computed ones with padding, in a step of so long come to. */
void train_rate(const train *t, metrics_row *row, double tokens, double computed, double seconds);
/* The end of a step's record. */
gt_status train_put_row(train *t, const train_hooks *hooks, const metrics_row *row);
/* Keeps a row of a step apart until ranks meet; and where they do, all ranks: puts what was kept. */
gt_status train_hold(train *t, const flight *f, const metrics_row *row);
gt_status train_tell_held(train *t, const train_hooks *hooks);

/* Has something that falls on every so-manieth step to be done after this one? Where ranks have not met then,
 * they do it when they meet next. */
int train_falls_on(const train *t, uint64_t every, uint64_t step);
/* Whether a step is evaluated, saved or sampled. */
int train_looks_at(const train *t, uint64_t step);
/* How much this rank wants to stop: at least 1 for good, less for others to join, 0: not at all. */
double train_wants_stop(const train *t);
/* What all ranks together want of that. */
void train_note_stop(train *t, double stop);
/* For sync_options.due. */
int train_due(void *context, uint64_t step);

/* For sync_options.mark. */
gt_status train_mark_rows(void *context, const char *source, unsigned char *mark, int64_t rows);

/* For sync_options.tell. */
/* What rounding between stages came to, from sums over ranks; and onto a row. */
void train_note_rounding(train_balance *b, const sync_totals *sum);
void train_row_rounding(metrics_row *row, const train_balance *b);
gt_status train_tell(void *context, uint64_t sent, sync_totals *mine);

/* Removes the weights that samples were written with, whatever a killed run left of them. */
gt_status train_remove_weights(const train *t);

/* Fills parameters and optimizer from the newest image of any rank; *given 0: nobody has one. All ranks; own may be
 * NULL. The caller refreshes 16-bit copies. */
gt_status train_image_give(train *t, const train_image *own, int *given);
/* All ranks, before a step is queued: keeps an image if they have just met, and the step is one apart. */
gt_status train_image_keep(train *t);

/* Everything beside parameters that a checkpoint of this run holds; how many owners. */
int train_states(train *t, checkpoint_state states[CHECKPOINT_STATES]);

#endif
