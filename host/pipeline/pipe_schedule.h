/* SPDX-License-Identifier: MIT */
/* host/pipeline/pipe_schedule.h - the order of work in a pipeline, as data.
 *
 *   rank 0  F0 F1 F2 F3 .. .. B0 W0 B1 W1 ...           time ──►
 *   rank 1     F0 F1 ..  B0 ...
 *
 * A schedule is one array of instructions for each rank. The simulator (simulate.h) and the
 * runtime read the same array, and pipe_schedule_check() proves it before either does.
 *
 * Backward comes in two parts: backward-input makes the gradient that the stage before waits
 * for, backward-weight the gradients of the parameters, which nobody waits for until the
 * update, so it can fill idle time (Qi et al., "Zero bubble pipeline parallelism", ICLR 2024).
 *
 * A rank may hold several chunks of the model (interleaved 1F1B, Narayanan et al., SC 2021):
 * chunk c of rank s is virtual stage c * ranks + s.
 *
 * Without micro-batches one rank only sums and updates.
 *
 * Units: micro-batches and chunks are counted from 0; times are seconds.                */
#ifndef PIPELINE_SCHEDULE_H
#define PIPELINE_SCHEDULE_H

#include "host/base/status.h"

typedef enum pipe_kind {
    PIPE_RECEIVE_ACTIVATION,    /* wait for it; receives are posted long before            */
    PIPE_FORWARD,
    PIPE_SEND_ACTIVATION,       /* begins the transfer, does not wait                      */
    PIPE_RECEIVE_GRADIENT,
    PIPE_BACKWARD_INPUT,
    PIPE_SEND_GRADIENT,
    PIPE_BACKWARD_WEIGHT,
    PIPE_REDUCE,                /* the gradients of a chunk are complete: begin to sum them */
    PIPE_UPDATE,                /* once, last: the optimizer                                */
    PIPE_KINDS
} pipe_kind;
const char *pipe_kind_name(pipe_kind k);

typedef struct pipe_instruction {
    unsigned char kind;         /* pipe_kind                                               */
    unsigned char chunk;
    unsigned short micro_batch; /* 0 for REDUCE and UPDATE                                 */
} pipe_instruction;

typedef struct pipe_schedule {
    int ranks, chunks, micro_batches;
    int *count;                 /* instructions of each rank                               */
    pipe_instruction **list;
    char name[24];
} pipe_schedule;

/* What a virtual stage takes for one micro-batch. */
typedef struct pipe_cost {
    double forward, backward_input, backward_weight;    /* seconds                         */
    double send;                /* seconds of the wire to the next virtual stage, one way  */
    double activation;          /* bytes kept from forward to backward-weight              */
    double reduce;              /* seconds to sum its gradients over replicas, beside compute */
    double update;              /* seconds of the optimizer                                */
} pipe_cost;

enum { PIPE_MOST_CHUNKS = 255, PIPE_MOST_MICRO_BATCHES = 65535 };

/* name: of the table. costs has one entry a virtual stage (list: needed;
 * the others: not used, may be NULL); memory[rank] bounds the kept activations in bytes (list;
 * NULL: as 1F1B would keep). interleaved needs chunks >= 2, all others 1; micro-batches of
 * interleaved are a multiple of the ranks. GT_MISUSE says which rule is broken. */
gt_status pipe_schedule_make(pipe_schedule *out, const char *name, int ranks, int chunks, int micro_batches,
                             const pipe_cost *costs, const double *memory);
void pipe_schedule_release(pipe_schedule *s);

/* What planners, options and checks must know of a schedule. A new one is a row in pipe_schedule.c. */
typedef struct pipe_schedule_kind {
    const char *name;
    int interleaves;                /* a rank has several chunks of the model                        */
    int searched;                   /* its order follows from measured times                         */
    int dominated;                  /* another is as fast and keeps less: planned only if asked for  */
} pipe_schedule_kind;
const pipe_schedule_kind *pipe_schedule_at(int i);                  /* the simplest first; NULL behind the last */
const pipe_schedule_kind *pipe_schedule_find(const char *name);     /* NULL: there is none  */
/* "gpipe|1f1b|..."; `out` has room for PIPE_NAMES. */
enum { PIPE_NAMES = 128 };
void pipe_schedule_names(char *out);

/* Proves that every virtual stage does each micro-batch's forward, backward-input and
 * backward-weight once, in an order that respects every dependency, that sends and receives
 * pair up in the same order on both ends, and that no rank waits forever. *kept, if given, is
 * one number a rank: the most micro-batches (of one chunk) whose activations it keeps at once. */
gt_status pipe_schedule_check(const pipe_schedule *s, int *kept);

#endif
