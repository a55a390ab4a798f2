/* SPDX-License-Identifier: MIT */
/* host/base/trace.h - what this process did when, for the picture that ui.perfetto.dev draws.
 *
 *   rank 0 gpu:0   steps    |step 7                                    |step 8 ...
 *                            |forward|backward|forward|backward|  |update|
 *                  compute  |h.0.attn|h.0.mlp|   |h.1.attn|...
 *                  copy              |read|
 *                  wire                  |send y|
 *                  arrived             |dy|                    an arrow leads here from the send
 *                  host     |wait................|
 *                  device memory, bytes sent: curves
 *
 * Spans go into a ring of fixed size; when it is full the oldest make room and are counted.
 * Off, which is how it starts, a span costs one branch:
 *
 *   const uint64_t begin = gt_trace_begin();
 *   ...
 *   gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "gradients", begin);
 *
 * A span says which step, micro-batch and chunk it is of: those of its thread (gt_trace_of), for a
 * launch those when it was queued.
 *
 * Source of the file's form: "Trace Event Format", Google, 2016 (complete events "X", flows "s" and
 * "f", counters "C", metadata "M").
 * Threads  any. Start and stop while no other thread records.
 * Units    nanoseconds of gt_trace_now(), which is gt_now_ns().                          */
#ifndef GT_BASE_TRACE_H
#define GT_BASE_TRACE_H

#include "host/base/status.h"

#include <stdatomic.h>
#include <stdint.h>

typedef enum gt_trace_category {
    GT_TRACE_KERNEL,
    GT_TRACE_COPY,
    GT_TRACE_WIRE,
    GT_TRACE_WAIT,
    GT_TRACE_HOST,
    GT_TRACE_STEP,
    GT_TRACE_CATEGORIES
} gt_trace_category;

/* What the picture has rows for. Spans of one track that overlap get rows of their own, unless one
 * lies within the other. */
typedef enum gt_trace_track {
    GT_TRACK_COMPUTE,
    GT_TRACK_COPY,
    GT_TRACK_WIRE,
    GT_TRACK_HOST,
    GT_TRACK_STEPS,
    GT_TRACK_ARRIVED,
    GT_TRACKS
} gt_trace_track;

enum { GT_SPAN_NAME = 46, GT_SPAN_DETAIL = 46, GT_TRACE_ROOM = 1 << 18 };    /* bytes; spans, 34 MiB */

typedef enum gt_span_kind { GT_SPAN, GT_SPAN_SENDS, GT_SPAN_RECEIVES, GT_SPAN_COUNTS } gt_span_kind;

typedef struct gt_span {
    uint64_t begin, end;
    uint64_t bytes;                     /* 0: not said; of a counter: its value               */
    uint64_t flow;                      /* of a message, the same at both ends                */
    int32_t step, micro_batch, chunk;   /* from 1; from 0; from 0: plus 1, 0 is none          */
    uint8_t category, track, kind;
    char name[GT_SPAN_NAME];            /* cut where it is longer */
    char detail[GT_SPAN_DETAIL];        /* parameters, say; or ""                             */
} gt_span;

/* What this thread works on from now on; 0 for what it is none of, else counted from 1. Spans of threads
 * that were told nothing take the step that any was told last. */
void gt_trace_of(int32_t step, int32_t micro_batch, int32_t chunk);
/* Fills in step, micro-batch and chunk as they are now. */
void gt_trace_stamp(gt_span *s);
/* Records a whole span as it is. */
void gt_trace_put(const gt_span *s);
/* Something that is counted, from now on; name: a literal. */
void gt_trace_counter(const char *name, uint64_t value);

/* Room for so many spans; GT_TRACE_ROOM is a good number. Stop forgets them. */
gt_status gt_trace_start(size_t spans);
void gt_trace_stop(void);

extern atomic_int gt_trace_recording;
static inline int gt_trace_on(void)
{
    return atomic_load_explicit(&gt_trace_recording, memory_order_relaxed);
}

uint64_t gt_trace_now(void);
/* For tests: this thread's gt_trace_now() runs so much ahead, as another host's would. */
void gt_trace_shift(int64_t nanoseconds);

void gt_trace_span(gt_trace_category category, gt_trace_track track, const char *name, uint64_t begin, uint64_t end);
static inline uint64_t gt_trace_begin(void)
{
    return gt_trace_on() ? gt_trace_now() : 0;
}
/* Records nothing if tracing was off at the beginning. */
static inline void gt_trace_end(gt_trace_category category, gt_trace_track track, const char *name, uint64_t begin)
{
    if (begin)
        gt_trace_span(category, track, name, begin, gt_trace_now());
}

/* One process's spans, by their beginning; of those that begin together the longer first. */
typedef struct gt_trace {
    int rank;
    char device[48];
    gt_span *span;
    size_t count;
    uint64_t lost;                      /* older ones, for which there was no room */
} gt_trace;

/* What was recorded so far; it stays recorded. Release it. */
gt_status gt_trace_take(gt_trace *out);
void gt_trace_release(gt_trace *t);        /* takes NULL; leaves it empty */
/* Writes the traces of `count` processes, whose clocks agree, as one file; it begins at 0 us. Spans
 * are to be in order, as taken. */
gt_status gt_trace_write(const char *path, const gt_trace *traces, int count);

#endif
