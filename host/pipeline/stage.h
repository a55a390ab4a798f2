/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage.h - runs one rank's part of a plan: the instructions of its schedule.
 *
 *   wire      ══ activation 3 ══►  inbox                        outbox  ══ activation 2 ══►
 *   device       write x │ forward 3 │ read y │ backward-input 1 │ read dx │ ...
 *   completion                                   └► send y                 └► send dx
 *
 * A device that computes in host memory neither writes nor reads: x, y and their gradients are windows on the slots
 * of the wires (host/exchange/stage_wire.h), moved from micro-batch to micro-batch.
 *
 * One interpreter for every schedule: it queues programs as the array says, waits on the host only
 * where an instruction receives, and leaves sending to the completion thread, so that wires and
 * devices work at once. A stage without neighbours (data parallelism, one device) is the same
 * with nothing to send; its backward runs as one program, since nobody waits for the first
 * half of it.
 *
 *   stage_build()   graphs of its chunks        -> who holds which parameter, params, optimizer
 *   stage_place()   memory and launch lists     -> stage_ready()
 *   stage_run()     a step as its schedule says: the caller sums at PIPE_REDUCE and updates at
 *                   PIPE_UPDATE
 *
 * With tensor groups, rank k of a stage talks to rank k of the next: both hold the same rows.
 * Activations and gradients travel in storage type, or in a form of fewer bits (stage_wire.h). All calls of all ranks
 * of a replica go together.     */
#ifndef PIPELINE_STAGE_H
#define PIPELINE_STAGE_H

#include "host/device/completion.h"
#include "host/exchange/stage_wire.h"
#include "host/graph/exec.h"
#include "host/pipeline/run_plan.h"
#include "host/pipeline/simulate.h"
#include "net/comm/comm.h"

typedef struct stage stage;

typedef gt_status (*stage_builder)(graph *g, const void *config, const graph_part *part, int train, int recompute);

typedef struct stage_model {
    const void *config;
    stage_builder build;
    dtype storage;
    int seq;
    wire_kind between; /* of what travels: as it is, or wire_kind_shortens(between, storage); the plan's */
    /*   stage_links come first                             */
} stage_model;

/* plan and comm must outlive the stage. comm NULL: the only rank. train 0: forward only, without
 * dropout, one micro-batch in flight (validation). */
gt_status stage_build(stage **out, const run_plan *plan, int rank, net_comm *comm, const stage_model *m, int train);
void stage_release(stage *s); /* takes NULL */

int stage_chunks(const stage *s);
const graph *stage_graph(const stage *s, int chunk);
int stage_is_first(const stage *s); /* holds the embedding */
int stage_is_last(const stage *s); /* holds the head      */

typedef struct stage_place_options {
    exec_options exec; /* device, kernels, gemm, params, bindings, exchange       */
    exec_arena *passing; /* shared with others that never run at the same time      */
    dev_completion *completion; /* may be NULL without neighbours                          */
} stage_place_options;
/* As exec_create() and exec_ready(): all that share `passing` are placed before one is ready. */
gt_status stage_place(stage *s, const stage_place_options *o);
gt_status stage_ready(stage *s);
/* exec_renew() of all that is placed: nothing may be queued. *renewed: how many of them were. */
gt_status stage_renew(stage *s, int *renewed);
/* Calls visit for each direction of each edge of this rank's: how many messages of a step go to a rank (outward) or come
 * from it, of so many values of stage_storage(). */
void stage_edges(const stage *s, void (*visit)(void *context, int peer, int outward, int messages, int64_t values),
                 void *context);
dtype stage_storage(const stage *s);
exec *stage_exec(stage *s, int chunk); /* the first of its copies             */
/* Bytes of activations of all micro-batches in flight, without `passing`. */
uint64_t stage_bytes(const stage *s);

/* What a run asks its caller for. */
typedef struct stage_calls {
    void *context;
    /* Queues the inputs of a micro-batch (counted from 0 within the replica) into e. */
    gt_status (*inputs)(void *context, exec *e, int chunk, int micro_batch);
    /* Launches [0, done) of the chunk's last backward-weight are queued: gradients with
     * exec_gradient_done() <= done are complete. Called for each of `stops`, and where the schedule
     * says PIPE_REDUCE with `last`: all of the chunk's are. NULL: not wanted. */
    gt_status (*gradients)(void *context, int chunk, int done, int last);
    /* Before a step's first launches of the chunk's forward that read what stage_wants() said: those below `until` are
     * queued next. NULL: not wanted. */
    gt_status (*wanted)(void *context, int chunk, int until);
    /* Where the schedule says PIPE_UPDATE: everything before is queued. NULL: not wanted. */
    gt_status (*update)(void *context);
    int32_t step; /* for traces: counted from 1; 0: not told               */
    int finishes; /* 1: a wish to stop does not void this step             */
} stage_calls;

/* Where the last backward-weight of a chunk pauses to call `gradients`: rising; copied. */
gt_status stage_stops(stage *s, int chunk, const int *stops, int count);
/* Where a step's first forward of a chunk pauses to call `wanted`: rising; copied. */
gt_status stage_wants(stage *s, int chunk, const int *stops, int count);

/* Queues a step, the caller's update included. Returns when everything is queued. Once the user asks to
 * stop (host/base/activity.h): GT_INTERRUPTED; with other ranks it goes through to the end, without
 * computing, since they wait for what it sends, and stage_stopped() says that the step is void. */
gt_status stage_run(stage *s, const stage_calls *calls);
int stage_stopped(const stage *s);
/* Forward of `count` micro-batches; for stages built with train 0. */
gt_status stage_forward(stage *s, const stage_calls *calls, int count);
/* Waits until everything is sent and every time is known. */
gt_status stage_settle(stage *s);

/* Of the last settled run, seconds from its begin: one entry an instruction of this rank. Of a receive
 * how long the host waited; of a reduce and the update what stage_note() said. Sends have none. */
const pipe_schedule *stage_schedule(const stage *s);
const pipe_event *stage_events(const stage *s);
/* For who traces what comes after the programs of a step, on the completion thread: when the newest
 * program ended, and that something else lasted until `now`. */
uint64_t stage_traced_until(stage *s, uint64_t now);
uint64_t stage_began(const stage *s); /* gt_now_ns() of its begin           */
/* When what the caller queued was under way: PIPE_REDUCE of a chunk, or PIPE_UPDATE; gt_now_ns().
 * Kept until the next run. */
void stage_note(stage *s, pipe_kind kind, int chunk, uint64_t begin, uint64_t end);
typedef struct stage_report {
    double seconds, busy, waited; /* of the run; of programs; of the host, for others      */
    uint64_t sent; /* bytes of activations and gradients                    */
    uint64_t copied; /* those received for which host memory was copied (wire_copied) */
    kernel_rounding rounding[2]; /* what their form did to those sent: activations, gradients; zeros: nothing */
} stage_report;
stage_report stage_last(const stage *s);

#endif
