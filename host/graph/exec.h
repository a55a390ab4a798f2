/* SPDX-License-Identifier: MIT */
/* host/graph/exec.h - a graph placed in memory and turned into launch lists.
 *
 *   memory of a rank    parameters · gradients · optimizer state · activations + scratch
 *                                                                  \__ one arena, packed ___/
 *
 * The layout walks the nodes in the order they will run, gives every activation and scratch
 * area a lifetime, and packs them so that no two that live at once overlap. After
 * exec_create nothing is allocated any more.
 *
 *   exec_arena *a;  exec *train, *eval;          several graphs may share one arena,
 *   exec_arena_create(&a, d);                    as long as they do not run interleaved
 *   exec_create(&train, g, &(exec_options){ ... .arena = a });
 *   dev_write(d, exec_input(train, "tokens"), ...);
 *   exec_add(train, 0);                          first micro-batch: overwrite gradients
 *   exec_run(train, EXEC_FORWARD); exec_run(train, EXEC_BACKWARD);
 *
 * A pipeline keeps several micro-batches in flight: one exec of the same graph for each, with an
 * arena of its own for what lives from one program to another, and a common one (`passing`)
 * for what dies within the program that made it.                                        */
#ifndef GT_GRAPH_EXEC_H
#define GT_GRAPH_EXEC_H

#include "host/gemm/gemm.h"
#include "host/graph/graph.h"
#include "host/kernel/kernel.h"
#include "host/graph/params.h"

typedef struct exec_arena exec_arena;
typedef struct exec exec;

gt_status exec_arena_create(exec_arena **out, dev_device *d);
void exec_arena_release(exec_arena *a);        /* takes NULL; after its execs */
uint64_t exec_arena_bytes(const exec_arena *a);

/* An input of the graph that already has a buffer. */
typedef struct exec_binding {
    const char *name;
    dev_buffer *buffer;
} exec_binding;

/* Buffers for what travels between stages (graph_ends), in place of own ones and of a place in the arena; NULL: none. */
typedef struct exec_ends {
    dev_buffer *x, *dx, *y, *dy;
} exec_ends;

/* Where ranks of a tensor group hand rows to each other, the host acts: a list is queued up to there,
 * and the rest behind what it did. In two steps, so that launches which need not wait (weight
 * gradients, mostly) run beside it:
 *
 *   queue   ... makes `from` | READ | others ...          | WRITE | uses `to` ...
 *   host                      START   queues others  FINISH: waits for READ, exchanges, queues WRITE
 *
 * One exchange is under way at a time. The ranks of a group make the same in the same order. */
typedef enum exec_exchange_step { EXEC_EXCHANGE_START, EXEC_EXCHANGE_FINISH } exec_exchange_step;

typedef struct exec_exchange {
    graph_exchange kind; /* GATHER: `from` is own rows, `to` all ranks' one after another;
                                   SCATTER_SUM: `from` is all rows, `to` own rows of the sum   */
    const char *name; /* of the node, for sentences                                  */
    dev_buffer *from, *to; /* they do not overlap                                         */
    dtype type;
    int64_t width; /* elements of a row                                           */
    int ranks, rank;
    const int64_t *rows; /* [ranks]                                                     */
    int alone; /* nothing is queued between the two steps: the device waits too */
} exec_exchange;

/* START queues reading `from`, which launches queued later may overwrite. */
typedef gt_status (*exec_exchanger)(void *context, const exec_exchange *x, exec_exchange_step step);

typedef struct exec_options {
    dev_device *device;
    kernel_set *kernels;
    gemm_context *gemm;
    params *params;
    exec_arena *arena;
    exec_arena *passing; /* for values of one program only; NULL: `arena` too */
    const exec_binding *bindings; /* ends with { NULL, NULL }; may be NULL */
    exec_ends ends;
    exec_exchanger exchange; /* of a graph that is split over ranks (graph_split)   */
    void *exchange_context;
    int together; /* 1: other ranks go on with this one's results, so a program that is told to
                       stop still runs to its end, without computing: see exec_stopped() */
    int split; /* 1: input-gradient and weight-gradient programs may run apart; costs
                       memory, since weight gradients' inputs must live until then */
} exec_options;

typedef enum exec_program { EXEC_FORWARD, EXEC_BACKWARD, EXEC_INPUT_GRAD, EXEC_WEIGHT_GRAD } exec_program;

/* `g` must outlive the exec. The arena grows as needed, so all execs that share one must
 * be created before the first of them runs. */
gt_status exec_create(exec **out, const graph *g, const exec_options *options);
/* Takes its place in the arena; call once after all execs of the arena were created. */
gt_status exec_ready(exec *e);
/* Makes all launches again, where products have found a faster way to be multiplied (gemm_tuner), with the same values
 * in the same places. Nothing of the exec may be queued. *renewed 0: a product wants more scratch memory than there is,
 * and all is as before. */
gt_status exec_renew(exec *e, int *renewed);
void exec_release(exec *e); /* takes NULL */

/* The buffer of an input, state or activation; NULL if there is no such name. Activations
 * hold what they held last; good for tests and for finding a bad layer. */
dev_buffer *exec_buffer(exec *e, const char *name);
/* The same by number (graph_ends). A stage's y stays until another program of its arenas runs, and
 * so does dx. NULL for -1. */
dev_buffer *exec_value(exec *e, int value);

/* Gradients and the loss sum: 0 overwrites, 1 adds, from the next run on. */
gt_status exec_add(exec *e, int add);
/* For one program alone; a head's gradients are made in EXEC_FORWARD. */
gt_status exec_add_program(exec *e, exec_program program, int add);
/* Queues a program; EXEC_BACKWARD is input and weight gradients interleaved (not with
 * `split`). Returns when it is queued; of a graph that is split over ranks, when its last exchange
 * is made and the rest is queued. GT_INTERRUPTED once gt_stop_asked() (host/base/activity.h), with
 * part of it queued; with `together` GT_OK and exec_stopped(). */
gt_status exec_run(exec *e, exec_program program);
/* 1 if a program since the last gt_stop_withdraw() was left unfinished: the values and gradients it
 * should have made are void. Exchanges were made all the same, so that no rank waits. */
int exec_stopped(const exec *e);
/* From now on programs compute to their end, whoever asks for a stop; 0: no longer. */
void exec_finish(exec *e, int always);
/* The gradient of parameter i (of the params) is complete after so many launches of the program
 * that runs last (EXEC_WEIGHT_GRAD, or EXEC_BACKWARD without `split`); 0: before it begins. -1: this
 * graph has no such parameter. */
int exec_gradient_done(const exec *e, int i);
/* Queues launches [from, to) of that program; to -1: all the rest. */
gt_status exec_run_last(exec *e, int from, int to);
/* Parameter i (of the params) is not read before this launch of EXEC_FORWARD; -1: by none of them. */
int exec_parameter_read(const exec *e, int i);
/* Queues launches [from, to) of EXEC_FORWARD, the first of them from 0 on; to -1: all the rest. */
gt_status exec_run_forward(exec *e, int from, int to);

/* ---- memory ---------------------------------------------------------------------------- */
typedef struct exec_memory {
    uint64_t activations; /* peak of packed activations and scratch: the arena part */
    uint64_t unpacked; /* what they would take without sharing                   */
    uint64_t inputs, states;
} exec_memory;
exec_memory exec_memory_of(const exec *e);

/* Runs nodes alone and prints a table: node, program, shape, engine, time, FLOP/s, bytes; then
 * totals a kind of operation and the memory layout. Of nodes that are alike not all are run. Inputs
 * should be filled. GT_INTERRUPTED once gt_stop_asked(). */
gt_status exec_explain(exec *e, FILE *out, double peak_flops);
/* Device seconds of one forward + backward, and of its GEMMs alone; waits for every launch. Makes no
 * exchanges, so one rank of a group can measure itself; explaining does not either. */
gt_status exec_time(exec *e, double *all, double *gemms);

/* Runs forward (and backward, if built) node by node and finds the first whose output is
 * not finite; name (size bytes) becomes "" if all are. All ranks of a tensor group call it. */
gt_status exec_find_bad(exec *e, char *name, size_t size);

#endif
