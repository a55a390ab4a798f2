/* SPDX-License-Identifier: MIT */
/* host/base/trace.c - the ring of spans, and the file.
 *
 *   ring   [ 5 6 7 | 1 2 3 4 ]     written at the bar; 8 takes the place of 1
 *
 * A mutex guards it: a step has some hundred spans, and a lock that nobody contends for costs
 * less than the two clock readings that a span is made of.                               */
#include "host/base/trace.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

atomic_int gt_trace_recording;

static struct {
    pthread_mutex_t lock;
    gt_span *span;
    size_t room, next;
    uint64_t total;
} ring = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local int64_t shift;
static _Thread_local struct {
    int32_t step, micro_batch, chunk;
} now_at;
static _Atomic int32_t newest_step;

static const char *const categories[] = { "kernel", "copy", "wire", "wait", "host", "step" };
static const char *const tracks[] = { "compute", "copy", "wire", "host", "steps", "arrived" };
/* Which stands above which. */
static const int shown_at[GT_TRACKS] = { [GT_TRACK_STEPS] = 0, [GT_TRACK_COMPUTE] = 1, [GT_TRACK_COPY] = 2,
                                         [GT_TRACK_WIRE] = 3,  [GT_TRACK_ARRIVED] = 4, [GT_TRACK_HOST] = 5 };

gt_status gt_trace_start(size_t spans)
{
    gt_trace_stop();
    gt_span *room = calloc(spans ? spans : 1, sizeof *room);
    if (!room)
        return gt_fail(GT_NO_MEMORY, "cannot trace: no memory for %zu spans", spans);
    pthread_mutex_lock(&ring.lock);
    ring.span = room;
    ring.room = spans ? spans : 1;
    ring.next = 0;
    ring.total = 0;
    atomic_store(&newest_step, 0);
    pthread_mutex_unlock(&ring.lock);
    atomic_store(&gt_trace_recording, 1);
    return GT_OK;
}

void gt_trace_stop(void)
{
    atomic_store(&gt_trace_recording, 0);
    pthread_mutex_lock(&ring.lock);
    free(ring.span);
    ring.span = NULL;
    ring.room = 0;
    pthread_mutex_unlock(&ring.lock);
}

uint64_t gt_trace_now(void)
{
    return gt_now_ns() + (uint64_t)shift;
}

void gt_trace_shift(int64_t nanoseconds)
{
    shift = nanoseconds;
}

void gt_trace_of(int32_t step, int32_t micro_batch, int32_t chunk)
{
    now_at.step = step;
    now_at.micro_batch = micro_batch;
    now_at.chunk = chunk;
    if (step)
        atomic_store_explicit(&newest_step, step, memory_order_relaxed);
}

void gt_trace_stamp(gt_span *s)
{
    s->step = now_at.step ? now_at.step : atomic_load_explicit(&newest_step, memory_order_relaxed);
    s->micro_batch = now_at.micro_batch;
    s->chunk = now_at.chunk;
}

void gt_trace_put(const gt_span *s)
{
    pthread_mutex_lock(&ring.lock);
    if (ring.room) {
        gt_span *at = &ring.span[ring.next];
        *at = *s;
        at->end = s->end < s->begin ? s->begin : s->end;
        ring.next = (ring.next + 1) % ring.room;
        ring.total++;
    }
    pthread_mutex_unlock(&ring.lock);
}

void gt_trace_span(gt_trace_category category, gt_trace_track track, const char *name, uint64_t begin, uint64_t end)
{
    gt_span s = { .begin = begin, .end = end, .category = (uint8_t)category, .track = (uint8_t)track };
    gt_trace_stamp(&s);
    snprintf(s.name, sizeof s.name, "%s", name);
    gt_trace_put(&s);
}

void gt_trace_counter(const char *name, uint64_t value)
{
    const uint64_t now = gt_trace_now();
    gt_span s = { .begin = now,
                  .end = now,
                  .bytes = value,
                  .category = GT_TRACE_HOST,
                  .track = GT_TRACK_HOST,
                  .kind = GT_SPAN_COUNTS };
    snprintf(s.name, sizeof s.name, "%s", name);
    gt_trace_put(&s);
}

static int in_order(const void *a, const void *b)
{
    const gt_span *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end > y->end ? -1 : x->end < y->end;
}

gt_status gt_trace_take(gt_trace *out)
{
    gt_status st = GT_OK;
    *out = (gt_trace){ 0 };
    pthread_mutex_lock(&ring.lock);
    const size_t count = ring.total < ring.room ? (size_t)ring.total : ring.room;
    out->span = malloc((count + 1) * sizeof *out->span);
    if (!out->span) {
        st = gt_fail(GT_NO_MEMORY, "cannot take a trace: no memory for %zu spans", count);
    } else if (count) {
        memcpy(out->span, ring.span, count * sizeof *out->span);
        out->count = count;
        out->lost = ring.total - count;
    }
    pthread_mutex_unlock(&ring.lock);
    if (!st && count)
        qsort(out->span, count, sizeof *out->span, in_order);
    return st;
}

void gt_trace_release(gt_trace *t)
{
    if (!t)
        return;
    free(t->span);
    *t = (gt_trace){ 0 };
}

/* ---- the file ------------------------------------------------------------------------------- */

/* Into `out`, as a JSON string's inside; what is not plain ASCII becomes a question mark. */
static const char *escape(char *out, size_t size, const char *text)
{
    size_t used = 0;
    for (; *text && used + 3 < size; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            out[used++] = '\\';
        out[used++] = c < 0x20 || c > 0x7e ? '?' : (char)c;
    }
    out[used] = '\0';
    return out;
}

/* A viewer draws a row's spans above each other where they nest, and loses those that only
 * overlap, as transfers under way at once do. So a track is as many rows as it takes. */
enum { ROWS = 32, DEEP = 16 };

typedef struct row {
    uint64_t end[DEEP];
    int depth;
} row;
typedef struct rows {
    row row[GT_TRACKS][ROWS];
    int used[GT_TRACKS];
} rows;

/* 1 if the span may stand in that row; then it does. */
static int enter(row *r, const gt_span *s)
{
    while (r->depth && r->end[r->depth - 1] <= s->begin)
        r->depth--;
    if (r->depth == DEEP || (r->depth && r->end[r->depth - 1] < s->end))
        return 0;
    r->end[r->depth++] = s->end;
    return 1;
}

/* The row of a span, the last one if there are too many; numbers are those of the file. */
static int row_of(rows *all, const gt_span *s)
{
    int i = 0;
    while (i < ROWS - 1 && !enter(&all->row[s->track][i], s))
        i++;
    if (all->used[s->track] <= i)
        all->used[s->track] = i + 1;
    return s->track * ROWS + i;
}

static gt_status write_process(gt_writer *w, const gt_trace *t)
{
    char device[2 * sizeof t->device];
    return gt_writer_printf(w,
                            "{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":"
                            "{\"name\":\"rank %d %s\"}},\n{\"ph\":\"M\",\"pid\":%d,\"name\":"
                            "\"process_sort_index\",\"args\":{\"sort_index\":%d}}",
                            t->rank, t->rank, escape(device, sizeof device, t->device), t->rank, t->rank);
}

static gt_status write_row_name(gt_writer *w, int rank, int track, int i)
{
    char number[16] = "";
    if (i)
        snprintf(number, sizeof number, " %d", i + 1);
    return gt_writer_printf(w,
                            ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\","
                            "\"args\":{\"name\":\"%s%s\"}},\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,"
                            "\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}",
                            rank, track * ROWS + i, tracks[track], number, rank, track * ROWS + i,
                            shown_at[track] * ROWS + i);
}

/* ---- arrows --------------------------------------------------------------------------------- */

/* One end of a message. An arrow is drawn where both are known, and it does not lead back in time, as
 * clocks that are not quite alike could have it. */
typedef struct arrow {
    uint64_t flow, at;
    int receives;
} arrow;
typedef struct arrows {
    arrow *end;
    size_t count;
} arrows;

static int by_flow(const void *a, const void *b)
{
    const arrow *x = a, *y = b;
    return x->flow != y->flow ? (x->flow < y->flow ? -1 : 1) : x->receives - y->receives;
}

/* All ends, of which only those that have their other end remain. */
static gt_status find_arrows(arrows *out, const gt_trace *traces, int count)
{
    size_t room = 1, n = 0, kept = 0;
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < traces[i].count; k++)
            room += traces[i].span[k].flow != 0;
    out->count = 0;
    out->end = calloc(room, sizeof *out->end);
    if (!out->end)
        return gt_fail(GT_NO_MEMORY, "cannot write a trace: no memory for %zu arrows", room);
    for (int i = 0; i < count; i++)
        for (size_t k = 0; k < traces[i].count; k++) {
            const gt_span *s = &traces[i].span[k];
            if (s->flow)
                out->end[n++] = (arrow){ s->flow, s->begin, s->kind == GT_SPAN_RECEIVES };
        }
    qsort(out->end, n, sizeof *out->end, by_flow);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && out->end[next].flow == out->end[i].flow; next++)
            ;
        if (next == i + 2 && !out->end[i].receives && out->end[i + 1].receives
            && out->end[i].at <= out->end[i + 1].at) {
            out->end[kept++] = out->end[i];
            out->end[kept++] = out->end[i + 1];
        }
    }
    out->count = kept;
    return GT_OK;
}

static int has_arrow(const arrows *a, const gt_span *s)
{
    const arrow key = { s->flow, s->begin, s->kind == GT_SPAN_RECEIVES };
    return s->flow && a->count && bsearch(&key, a->end, a->count, sizeof key, by_flow) != NULL;
}

/* ---- events ---------------------------------------------------------------------------------- */

/* "ts" and the like: microseconds with the nanoseconds behind the point: a double would lose them after
 * some days. */
static void put_us(gt_text *t, const char *key, uint64_t ns)
{
    gt_text_printf(t, ",\"%s\":%llu.%03u", key, (unsigned long long)(ns / 1000), (unsigned)(ns % 1000));
}

static void put_args(gt_text *t, const gt_span *s)
{
    char text[2 * GT_SPAN_DETAIL];
    const char *comma = "";
    gt_text_printf(t, ",\"args\":{");
    if (s->step) {
        gt_text_printf(t, "\"step\":%d", s->step);
        comma = ",";
    }
    if (s->micro_batch) {
        gt_text_printf(t, "%s\"micro-batch\":%d", comma, s->micro_batch - 1);
        comma = ",";
    }
    if (s->chunk) {
        gt_text_printf(t, "%s\"chunk\":%d", comma, s->chunk - 1);
        comma = ",";
    }
    if (s->bytes) {
        gt_text_printf(t, "%s\"bytes\":%llu", comma, (unsigned long long)s->bytes);
        comma = ",";
    }
    if (s->detail[0])
        gt_text_printf(t, "%s\"parameters\":\"%s\"", comma, escape(text, sizeof text, s->detail));
    gt_text_printf(t, "}");
}

static gt_status write_span(gt_writer *w, const gt_trace *t, const gt_span *s, int at_row, uint64_t zero,
                            const arrows *a)
{
    gt_text e = { 0 };
    char name[2 * GT_SPAN_NAME];
    const uint64_t at = s->begin - zero;
    escape(name, sizeof name, s->name);
    if (s->kind == GT_SPAN_COUNTS) {
        gt_text_printf(&e, ",\n{\"ph\":\"C\",\"pid\":%d,\"name\":\"%s\"", t->rank, name);
        put_us(&e, "ts", at);
        gt_text_printf(&e, ",\"args\":{\"bytes\":%llu}}", (unsigned long long)s->bytes);
    } else {
        gt_text_printf(&e, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"cat\":\"%s\",\"name\":\"%s\"", t->rank, at_row,
                       categories[s->category], name);
        put_us(&e, "ts", at);
        put_us(&e, "dur", s->end - s->begin);
        put_args(&e, s);
        gt_text_printf(&e, "}");
    }
    if (s->kind != GT_SPAN_COUNTS && has_arrow(a, s)) {     /* at its slice's begin, so it is bound to it */
        const int receives = s->kind == GT_SPAN_RECEIVES;
        gt_text_printf(&e,
                       ",\n{\"ph\":\"%s\",\"pid\":%d,\"tid\":%d,\"cat\":\"message\",\"name\":\"message\","
                       "\"id\":\"0x%llx\"",
                       receives ? "f" : "s", t->rank, at_row, (unsigned long long)s->flow);
        put_us(&e, "ts", at);
        gt_text_printf(&e, "%s}", receives ? ",\"bp\":\"e\"" : "");
    }
    gt_status st = e.failed ? gt_fail(GT_NO_MEMORY, "cannot write a trace: no memory for a span as text")
                            : gt_writer_put(w, e.data, e.size);
    gt_text_release(&e);
    return st;
}

static gt_status write_trace(gt_writer *w, const gt_trace *t, uint64_t zero, const arrows *a)
{
    rows *all = calloc(1, sizeof *all);
    if (!all)
        return gt_fail(GT_NO_MEMORY, "cannot write a trace: no memory for the rows of rank %d", t->rank);
    gt_status st = write_process(w, t);
    for (size_t i = 0; !st && i < t->count; i++)
        st = write_span(w, t, &t->span[i], t->span[i].kind == GT_SPAN_COUNTS ? 0 : row_of(all, &t->span[i]), zero, a);
    for (int track = 0; track < GT_TRACKS; track++)
        for (int i = 0; !st && i < all->used[track]; i++)
            st = write_row_name(w, t->rank, track, i);
    free(all);
    return st;
}

gt_status gt_trace_write(const char *path, const gt_trace *traces, int count)
{
    gt_writer *w;
    uint64_t zero = UINT64_MAX, lost = 0;
    for (int i = 0; i < count; i++) {
        lost += traces[i].lost;
        for (size_t k = 0; k < traces[i].count; k++)
            zero = traces[i].span[k].begin < zero ? traces[i].span[k].begin : zero;
    }
    arrows a;
    gt_status st = find_arrows(&a, traces, count);
    if (!st)
        st = gt_writer_open(&w, path);
    if (st) {
        free(a.end);
        return st;
    }
    st = gt_writer_printf(w,
                          "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"program\":\"geartrain\",\"ranks\":\"%d\","
                          "\"spans lost\":\"%llu\"},\"traceEvents\":[\n",
                          count, (unsigned long long)lost);
    for (int i = 0; !st && i < count; i++) {
        if (i)
            st = gt_writer_printf(w, ",\n");
        if (!st)
            st = write_trace(w, &traces[i], zero, &a);
    }
    if (!st)
        st = gt_writer_printf(w, "\n]}\n");
    if (st)
        gt_writer_abandon(w);
    else
        st = gt_writer_commit(w);
    free(a.end);
    return st;
}
