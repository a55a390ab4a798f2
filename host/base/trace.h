/* host/base/trace.h - what this process did when, for the picture that ui.perfetto.dev draws.
 *
 *   rank 0 gpu:0   compute  |h.0.attn|h.0.mlp|   |h.1.attn|...
 *                  copy              |read|
 *                  wire                  |send y|
 *                  host     |wait................|
 *
 * Spans go into a ring of fixed size; when it is full the oldest make room and are counted.
 * Off, which is how it starts, a span costs one branch:
 *
 *   const uint64_t begin = gt_trace_begin();
 *   ...
 *   gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "gradients", begin);
 *
 * Source of the file's form: "Trace Event Format", Google, 2016 (complete events, "X").
 * Threads  any. Start and stop while no other thread records.
 * Units    nanoseconds of gt_trace_now(), which is gt_now_ns().                          */
#ifndef GT_BASE_TRACE_H
#define GT_BASE_TRACE_H

#include "host/base/status.h"

#include <stdatomic.h>
#include <stdint.h>

typedef enum gt_trace_category {
    GT_TRACE_KERNEL, GT_TRACE_COPY, GT_TRACE_WIRE, GT_TRACE_WAIT, GT_TRACE_HOST, GT_TRACE_CATEGORIES
} gt_trace_category;

/* What the picture has rows for. Spans of one track that overlap get rows of their own, unless one
 * lies within the other. */
typedef enum gt_trace_track {
    GT_TRACK_COMPUTE, GT_TRACK_COPY, GT_TRACK_WIRE, GT_TRACK_HOST, GT_TRACKS
} gt_trace_track;

enum { GT_SPAN_NAME = 46, GT_TRACE_ROOM = 1 << 18 };     /* bytes; spans, 16 MiB */

typedef struct gt_span {
    uint64_t begin, end;
    uint8_t category, track;
    char name[GT_SPAN_NAME];            /* cut where it is longer */
} gt_span;

/* Room for so many spans; GT_TRACE_ROOM is a good number. Stop forgets them. */
gt_status gt_trace_start(size_t spans);
void      gt_trace_stop(void);

extern atomic_int gt_trace_recording;
static inline int gt_trace_on(void)
{ return atomic_load_explicit(&gt_trace_recording, memory_order_relaxed); }

uint64_t gt_trace_now(void);
/* For tests: this thread's gt_trace_now() runs so much ahead, as another host's would. */
void     gt_trace_shift(int64_t nanoseconds);

void gt_trace_span(gt_trace_category category, gt_trace_track track, const char *name,
                   uint64_t begin, uint64_t end);
static inline uint64_t gt_trace_begin(void)
{ return gt_trace_on() ? gt_trace_now() : 0; }
/* Records nothing if tracing was off at the beginning. */
static inline void gt_trace_end(gt_trace_category category, gt_trace_track track, const char *name,
                                uint64_t begin)
{ if (begin) gt_trace_span(category, track, name, begin, gt_trace_now()); }

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
void      gt_trace_release(gt_trace *t);        /* takes NULL; leaves it empty */
/* Writes the traces of `count` processes, whose clocks agree, as one file; it begins at 0 us. Spans
 * are to be in order, as taken. */
gt_status gt_trace_write(const char *path, const gt_trace *traces, int count);

#endif
