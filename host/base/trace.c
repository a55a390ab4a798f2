/* host/base/trace.c - the ring of spans, and the file.
 *
 *   ring   [ 5 6 7 | 1 2 3 4 ]     written at the bar; 8 takes the place of 1
 *
 * A mutex guards it: a step has some hundred spans, and a lock that nobody contends for costs
 * less than the two clock readings that a span is made of.                               */
#include "host/base/trace.h"

#include "host/base/clock.h"
#include "host/base/file.h"

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

static const char *const categories[] = { "kernel", "copy", "wire", "wait", "host" };
static const char *const tracks[] = { "compute", "copy", "wire", "host" };

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

void gt_trace_span(gt_trace_category category, gt_trace_track track, const char *name,
                   uint64_t begin, uint64_t end)
{
    gt_span s = { begin, end < begin ? begin : end, (uint8_t)category, (uint8_t)track, "" };
    snprintf(s.name, sizeof s.name, "%s", name);
    pthread_mutex_lock(&ring.lock);
    if (ring.room) {
        ring.span[ring.next] = s;
        ring.next = (ring.next + 1) % ring.room;
        ring.total++;
    }
    pthread_mutex_unlock(&ring.lock);
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
        st = gt_fail(GT_NO_MEMORY, "cannot take %zu spans of a trace: out of memory", count);
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

typedef struct row { uint64_t end[DEEP]; int depth; } row;
typedef struct rows { row row[GT_TRACKS][ROWS]; int used[GT_TRACKS]; } rows;

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
    return gt_writer_printf(w, "{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":"
                            "{\"name\":\"rank %d %s\"}},\n{\"ph\":\"M\",\"pid\":%d,\"name\":"
                            "\"process_sort_index\",\"args\":{\"sort_index\":%d}}", t->rank,
                            t->rank, escape(device, sizeof device, t->device), t->rank, t->rank);
}

static gt_status write_row_name(gt_writer *w, int rank, int track, int i)
{
    char number[16] = "";
    if (i)
        snprintf(number, sizeof number, " %d", i + 1);
    return gt_writer_printf(w, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\","
                            "\"args\":{\"name\":\"%s%s\"}},\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,"
                            "\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}", rank,
                            track * ROWS + i, tracks[track], number, rank, track * ROWS + i,
                            track * ROWS + i);
}

/* Microseconds with the nanoseconds behind the point: a double would lose them after some days. */
static gt_status write_span(gt_writer *w, const gt_trace *t, const gt_span *s, int at_row,
                            uint64_t zero)
{
    char name[2 * GT_SPAN_NAME];
    const uint64_t at = s->begin - zero, lasts = s->end - s->begin;
    return gt_writer_printf(w, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"cat\":\"%s\",\"name\":\"%s\","
                            "\"ts\":%llu.%03u,\"dur\":%llu.%03u}", t->rank, at_row,
                            categories[s->category], escape(name, sizeof name, s->name),
                            (unsigned long long)(at / 1000), (unsigned)(at % 1000),
                            (unsigned long long)(lasts / 1000), (unsigned)(lasts % 1000));
}

static gt_status write_trace(gt_writer *w, const gt_trace *t, uint64_t zero)
{
    rows *all = calloc(1, sizeof *all);
    if (!all)
        return gt_fail(GT_NO_MEMORY, "cannot write a trace: out of memory");
    gt_status st = write_process(w, t);
    for (size_t i = 0; !st && i < t->count; i++)
        st = write_span(w, t, &t->span[i], row_of(all, &t->span[i]), zero);
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
    gt_status st = gt_writer_open(&w, path);
    if (st)
        return st;
    st = gt_writer_printf(w, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"spans lost\":\"%llu\"},"
                          "\"traceEvents\":[\n", (unsigned long long)lost);
    for (int i = 0; !st && i < count; i++) {
        if (i)
            st = gt_writer_printf(w, ",\n");
        if (!st)
            st = write_trace(w, &traces[i], zero);
    }
    if (!st)
        st = gt_writer_printf(w, "\n]}\n");
    if (st)
        gt_writer_abandon(w);
    else
        st = gt_writer_commit(w);
    return st;
}
