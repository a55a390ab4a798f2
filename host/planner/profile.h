/* SPDX-License-Identifier: MIT */
/* host/planner/profile.h - what one device takes for each kind of unit, measured.
 *
 *   seconds                                   a unit is the embedding, one layer, or the head;
 *     |              .·´ in proportion        each is built alone, placed, and run forward,
 *     |          .·o´                         backward-input and backward-weight apart, with
 *     |      o·´    between: a line           micro-batches of up to four sizes
 *     |  o·´
 *     +--1---2-----4-----(8)--- sequences
 *
 * Sizes: one sequence, and a half and a quarter of the largest worth thinking of, and that. A
 * kernel's time is close to a line in its rows, bent where it begins to fill the device, so what
 * lies between is read off lines. Measuring goes upwards and ends with the first size that
 * took long (profile_long seconds): a device that is full so long is full; beyond the last
 * size times are in proportion.
 *
 * What a device does alone says little of what it does beside others on the same memory, so all
 * ranks of a job measure at the same time. The head's "forward" makes its gradients as well
 * (the fused loss does); costs are what is measured, not what the names suggest.
 *
 * Units: seconds and bytes of one micro-batch.                                           */
#ifndef GT_PLANNER_PROFILE_H
#define GT_PLANNER_PROFILE_H

#include "host/data/batch.h"
#include "host/device/device.h"
#include "host/graph/graph.h"
#include "host/optim/optim.h"

enum { PROFILE_SIZES = 4 };
typedef enum profile_kind { PROFILE_EMBEDDING, PROFILE_LAYER, PROFILE_HEAD, PROFILE_KINDS } profile_kind;
/* Of unit u of `units`. */
profile_kind profile_kind_of(int u, int units);

typedef struct profile_cost {
    double forward, backward_input, backward_weight;
    double kept, kept_recompute;    /* from forward to backward-weight, its input included     */
    double passing;                 /* while one program runs                                  */
} profile_cost;

/* Exchanges of rows between ranks that split a unit, in one program: how many, and the bytes of one sequence. */
typedef struct profile_exchange {
    double count, bytes;
} profile_exchange;

/* Flat, to be handed to other ranks as it is. */
typedef struct profile {
    int sizes, size[PROFILE_SIZES];             /* measured, rising                            */
    profile_cost unit[PROFILE_KINDS][PROFILE_SIZES];
    double parameters[PROFILE_KINDS];           /* of a unit, those that are trained           */
    double frozen[PROFILE_KINDS];               /* bytes of the others                         */
    /* Not measured but counted, for two ranks: without and with recomputation, by graph_phase. */
    profile_exchange exchanges[PROFILE_KINDS][2][3];
    double tied, tied_frozen;                   /* of these are in both the first and the last */
    double update[PROFILE_KINDS];               /* by the optimizer's rule, a parameter of a unit */
    double output;                              /* bytes of one sequence to the next unit      */
    double trip;                                /* to the device and back, for nothing: what passes
                                                   through the host waits so long at each end  */
} profile;

/* For micro-batches of n sequences. recompute: a layer's forward runs again in backward-input, and
 * less is kept. */
profile_cost profile_at(const profile *p, profile_kind kind, int n, int recompute);

/* The sizes worth measuring for micro-batches of up to `largest` sequences of T tokens; returns how
 * many. Larger ones than some thousand tokens are not: they only take memory. */
int profile_ladder(int size[PROFILE_SIZES], int largest, int T);

typedef struct profile_model {
    gt_status (*build)(graph *g, const void *config, const graph_part *part, int train, int recompute);
    const void *config;
    int units, seq;                             /* units: 3 at least                           */
    dtype storage;
    data_batch_maker batch;                     /* what it is fed with; NULL: tokens, and the next ones */
    optim_config optim;                         /* what updates it; rule NULL: the usual one   */
} profile_model;

/* The unit that stands for its kind: of layers, of which freezing by name may make some cheaper than others, the
 * first of those that train the most, so that no plan takes less than its layers do. */
gt_status profile_unit(int *unit, const profile_model *m, profile_kind kind);

/* A barrier of all who measure at once: *seconds becomes the largest of all. */
typedef gt_status (*profile_barrier)(void *context, double *seconds);

/* Measures sizes [0, count) as far as they are worth it, or fit. barrier NULL: nobody else. GT_NO_MEMORY
 * when not even the first size fits. */
extern const double profile_long;
gt_status profile_measure(profile *out, dev_device *d, const profile_model *m, const int *size, int count,
                          profile_barrier barrier, void *context);

/* The cache folder "profile", a file a device, model, sizes and `concurrent` (who measures beside it:
 * any text). A file that is not whole counts as none: *found 0. */
gt_status profile_load(profile *out, int *found, dev_device *d, const profile_model *m, const int *size, int count,
                       const char *concurrent);
gt_status profile_keep(const profile *p, dev_device *d, const profile_model *m, const int *size, int count,
                       const char *concurrent);

#endif
