/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage_private.h - what the files of a stage share.
 *
 *   stage.c         graphs, and the loop over instructions
 *   stage_place.c   on the device: copies of the graphs, and the wires to other stages          */
#ifndef GT_PIPELINE_STAGE_PRIVATE_H
#define GT_PIPELINE_STAGE_PRIVATE_H

#include "host/base/trace.h"
#include "host/pipeline/stage.h"

/* Where the messages of a micro-batch lie (wire_receive, wire_begin); -1: nowhere. */
typedef struct stage_places {
    int x, dx, y, dy;
} stage_places;

typedef struct chunk {
    graph *graph;
    graph_ends ends;
    int copies;
    exec **copy;
    exec_arena **arena;                 /* one a copy                                       */
    int *of;                            /* of each micro-batch: its copy, -1: none          */
    unsigned char *taken;               /* of each copy                                     */
    wire *in_y, *out_y, *in_dy, *out_dy;
    exec_ends *window;                  /* one a copy, where messages have places            */
    stage_places *places;               /* of each micro-batch                              */
    int *stops, stop_count;
    int *wants, want_count;
    int forwards, inputs, weights;      /* programs run in this step                        */
} chunk;

/* When a program was queued, and (from the completion thread) when it was done. */
typedef struct stamp {
    stage *of;
    int index;
    uint64_t queued;
} stamp;

/* Within a program the host waited for others: from when the device had done what was queued before it. */
typedef struct pause {
    uint64_t program;                   /* when that was queued                              */
    uint64_t done, over;                /* done: from the completion thread                  */
} pause;

/* The same for the trace, where the host may be a step ahead: a ring of them. */
typedef struct traced {
    stage *of;
    uint64_t queued;
    gt_span span;
} traced;
enum { STEPS_AHEAD = 3 };

struct stage {
    const run_plan *plan;
    net_comm *comm;
    run_place place;
    int virtual_stages, chunks, train, split, seq, micro_batches;
    int32_t step;                       /* of the run, for the trace                        */
    pipe_schedule schedule;
    const pipe_instruction *list;
    int count;
    chunk *chunk;
    dev_device *device;
    dev_completion *completion;
    wire_kind between;                  /* of what travels                                  */
    dtype storage;
    kernel_set *narrow[WIRE_KINDS];     /* that make it; NULL: no link has it                */
    pipe_event *events;
    stamp *stamps;
    pause *pauses;                      /* of a step                                         */
    int pause_count, pause_room;
    int at;                             /* the instruction that is queued now                */
    traced *traced;                     /* [STEPS_AHEAD * count], NULL: no trace so far      */
    uint64_t traced_count;
    uint64_t traced_end;                /* on the completion thread: the newest program's     */
    uint64_t start, last_end, waited, sent_before, copied_before;
    stage_report report;
};

gt_status stage_no_memory(void);
const run_replica *stage_replica(const stage *s);
int stage_virtual(const stage *s, int c);               /* the virtual stage of a chunk */

#endif
