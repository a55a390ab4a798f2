/* SPDX-License-Identifier: MIT */
/* host/pipeline/pipe_schedule.c - the orders that are known in closed form: GPipe, 1F1B, interleaved
 * 1F1B, ZB-H1.
 *
 *   GPipe   F0 F1 F2 F3 B0 W0 B1 W1 ...          keeps every micro-batch
 *   1F1B    F0 F1 F2 | F3 B0 W0 | F4 B1 W1 ...   keeps as many as there are ranks behind
 *   ZB-H1   F0 F1 F2 | F3 B0 | F4 B1 | F5 B2 W0 | ... puts W off by the rank's place
 *
 * A rank's order follows from its place alone. The gradient for the stage before leaves as soon
 * as backward-input is done, in every schedule, so that none has the weights' time in its
 * critical path: with equal stages GPipe and 1F1B idle (p-1)(f+b), ZB-H1 (p-1)(f+b-w).
 * Schedules for unequal stages are searched for: schedule_list.c.                          */
#include "host/pipeline/schedule_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pipe_kind_name(pipe_kind k)
{
    static const char *const names[PIPE_KINDS] = {
        "receive activation", "forward", "send activation", "receive gradient", "backward input", "send gradient",
        "backward weight",    "reduce",  "update"
    };
    return k < PIPE_KINDS ? names[k] : "unknown";
}

/* ---- writing a rank's list ------------------------------------------------------------- */

void schedule_put(const writer *w, pipe_kind kind, int chunk, int micro_batch)
{
    pipe_schedule *s = w->s;
    s->list[w->rank][s->count[w->rank]++] = (pipe_instruction){ (unsigned char)kind, (unsigned char)chunk,
                                                                (unsigned short)micro_batch };
}

static int is_first(int rank, int chunk)
{
    return rank == 0 && chunk == 0;
}

static int is_last(const pipe_schedule *s, int rank, int chunk)
{
    return rank == s->ranks - 1 && chunk == s->chunks - 1;
}

void schedule_forward(const writer *w, int chunk, int m)
{
    if (!is_first(w->rank, chunk))
        schedule_put(w, PIPE_RECEIVE_ACTIVATION, chunk, m);
    schedule_put(w, PIPE_FORWARD, chunk, m);
    if (!is_last(w->s, w->rank, chunk))
        schedule_put(w, PIPE_SEND_ACTIVATION, chunk, m);
}

void schedule_backward_input(const writer *w, int chunk, int m)
{
    if (!is_last(w->s, w->rank, chunk))
        schedule_put(w, PIPE_RECEIVE_GRADIENT, chunk, m);
    schedule_put(w, PIPE_BACKWARD_INPUT, chunk, m);
    if (!is_first(w->rank, chunk))
        schedule_put(w, PIPE_SEND_GRADIENT, chunk, m);
}

/* The gradients of a chunk are complete with the last of its backward-weights. */
void schedule_backward_weight(const writer *w, int chunk, int m, int *left)
{
    schedule_put(w, PIPE_BACKWARD_WEIGHT, chunk, m);
    if (--left[chunk] == 0)
        schedule_put(w, PIPE_REDUCE, chunk, 0);
}

static void backward(const writer *w, int chunk, int m, int *left)
{
    schedule_backward_input(w, chunk, m);
    schedule_backward_weight(w, chunk, m, left);
}

/* ---- closed forms ---------------------------------------------------------------------- */

static void gpipe(const writer *w, int *left)
{
    for (int m = 0; m < w->s->micro_batches; m++)
        schedule_forward(w, 0, m);
    for (int m = 0; m < w->s->micro_batches; m++)
        backward(w, 0, m, left);
}

static void one_forward_one_backward(const writer *w, int *left)
{
    const int all = w->s->micro_batches, ahead = w->s->ranks - 1 - w->rank;
    const int warm = ahead < all ? ahead : all;
    for (int m = 0; m < warm; m++)
        schedule_forward(w, 0, m);
    for (int m = warm; m < all; m++) {
        schedule_forward(w, 0, m);
        backward(w, 0, m - warm, left);
    }
    for (int m = all - warm; m < all; m++)
        backward(w, 0, m, left);
}

/* Unit k of an interleaved order: micro-batches go through a chunk in groups of `ranks`. */
static int unit_chunk(const pipe_schedule *s, int k, int backwards)
{
    const int chunk = k / s->ranks % s->chunks;
    return backwards ? s->chunks - 1 - chunk : chunk;
}

static int unit_micro_batch(const pipe_schedule *s, int k)
{
    return k / (s->ranks * s->chunks) * s->ranks + k % s->ranks;
}

static void interleaved(const writer *w, int *left)
{
    const pipe_schedule *s = w->s;
    const int all = s->micro_batches * s->chunks;
    const int ahead = (s->ranks - 1 - w->rank) * 2 + (s->chunks - 1) * s->ranks;
    const int warm = ahead < all ? ahead : all;
    for (int k = 0; k < warm; k++)
        schedule_forward(w, unit_chunk(s, k, 0), unit_micro_batch(s, k));
    for (int k = warm; k < all; k++) {
        schedule_forward(w, unit_chunk(s, k, 0), unit_micro_batch(s, k));
        backward(w, unit_chunk(s, k - warm, 1), unit_micro_batch(s, k - warm), left);
    }
    for (int k = all - warm; k < all; k++)
        backward(w, unit_chunk(s, k, 1), unit_micro_batch(s, k), left);
}

/* 1F1B whose backward-weights are put off by as many micro-batches as the rank's place: the
 * last ranks fill with them the time in which the first ones end. Keeps at most `ranks`
 * micro-batches on any rank, as the first rank of 1F1B does. */
static void zero_bubble_h1(const writer *w, int *left)
{
    const int all = w->s->micro_batches, ahead = w->s->ranks - 1 - w->rank, off = w->rank;
    const int warm = ahead < all ? ahead : all;
    for (int m = 0; m < warm; m++)
        schedule_forward(w, 0, m);
    for (int m = 0; m < all; m++) {
        if (m + warm < all)
            schedule_forward(w, 0, m + warm);
        schedule_backward_input(w, 0, m);
        if (m >= off)
            schedule_backward_weight(w, 0, m - off, left);
    }
    for (int m = all > off ? all - off : 0; m < all; m++)
        schedule_backward_weight(w, 0, m, left);
}

/* ---- the table --------------------------------------------------------------------------- */

/* write: the list of one rank, in closed form; left[chunk] counts its backward-weights down. */
typedef struct row {
    pipe_schedule_kind kind;
    void (*write)(const writer *w, int *left);
} row;

/* The simplest first: of two that are as fast a planner takes that. */
static const row rows[] = { { { .name = "1f1b" }, one_forward_one_backward },
                            { { .name = "gpipe", .dominated = 1 }, gpipe },
                            { { .name = "zb-h1" }, zero_bubble_h1 },
                            { { .name = "list", .searched = 1 }, NULL },
                            { { .name = "interleaved", .interleaves = 1 }, interleaved } };
enum { ROWS = sizeof rows / sizeof *rows };

static const row *row_of(const char *name)
{
    for (int i = 0; i < ROWS; i++)
        if (!strcmp(rows[i].kind.name, name))
            return &rows[i];
    return NULL;
}

const pipe_schedule_kind *pipe_schedule_at(int i)
{
    return i < ROWS ? &rows[i].kind : NULL;
}

const pipe_schedule_kind *pipe_schedule_find(const char *name)
{
    const row *r = row_of(name);
    return r ? &r->kind : NULL;
}

void pipe_schedule_names(char *out)
{
    size_t used = 0;
    for (int i = 0; i < ROWS; i++)
        used += (size_t)snprintf(out + used, PIPE_NAMES - used, "%s%s", i ? "|" : "", rows[i].kind.name);
}

/* ---- making one ------------------------------------------------------------------------ */

gt_status schedule_check_shape(const char *name, int ranks, int chunks, int micro_batches, const pipe_cost *costs)
{
    const pipe_schedule_kind *kind = pipe_schedule_find(name);
    char names[PIPE_NAMES];
    if (!kind) {
        pipe_schedule_names(names);
        return gt_fail(GT_MISUSE, "there is no schedule '%s'; there are %s", name, names);
    }
    if (ranks < 1 || micro_batches < (ranks > 1) || micro_batches > PIPE_MOST_MICRO_BATCHES || chunks < 1
        || chunks > PIPE_MOST_CHUNKS)
        return gt_fail(GT_MISUSE, "a schedule of %d stages, %d chunks and %d micro-batches cannot be", ranks, chunks,
                       micro_batches);
    if (kind->interleaves != (chunks > 1))
        return gt_fail(GT_MISUSE, "schedule %s needs %s", name,
                       kind->interleaves ? "two chunks of the model a rank, or more" : "one chunk of the model a rank");
    if (kind->interleaves && micro_batches % ranks)
        return gt_fail(GT_MISUSE, "schedule %s needs micro-batches in multiples of the %d stages, not %d", name, ranks,
                       micro_batches);
    if (kind->searched && !costs)
        return gt_fail(GT_MISUSE, "schedule %s needs measured times", name);
    return GT_OK;
}

gt_status schedule_allocate(pipe_schedule *s)
{
    /* Three computations and at most four transfers a unit; reduce and update. */
    const size_t most = (size_t)s->micro_batches * (size_t)s->chunks * 7 + (size_t)s->chunks + 1;
    s->count = calloc((size_t)s->ranks, sizeof *s->count);
    s->list = calloc((size_t)s->ranks, sizeof *s->list);
    if (!s->count || !s->list)
        return gt_fail(GT_NO_MEMORY, "no memory for a schedule of %d ranks", s->ranks);
    for (int r = 0; r < s->ranks; r++) {
        s->list[r] = malloc(most * sizeof **s->list);
        if (!s->list[r])
            return gt_fail(GT_NO_MEMORY, "no memory for a schedule of %d ranks", s->ranks);
    }
    return GT_OK;
}

/* Of no micro-batches: what others computed is summed and updated. */
static gt_status serving(pipe_schedule *s)
{
    const writer w = { s, 0 };
    for (int c = 0; c < s->chunks; c++)
        schedule_put(&w, PIPE_REDUCE, c, 0);
    schedule_put(&w, PIPE_UPDATE, 0, 0);
    return GT_OK;
}

static gt_status closed_form(pipe_schedule *s, const row *how)
{
    int left[PIPE_MOST_CHUNKS + 1];
    for (int r = 0; r < s->ranks; r++) {
        const writer w = { s, r };
        for (int c = 0; c < s->chunks; c++)
            left[c] = s->micro_batches;
        how->write(&w, left);
        schedule_put(&w, PIPE_UPDATE, 0, 0);
    }
    return GT_OK;
}

gt_status pipe_schedule_make(pipe_schedule *out, const char *name, int ranks, int chunks, int micro_batches,
                             const pipe_cost *costs, const double *memory)
{
    *out = (pipe_schedule){ .ranks = ranks, .chunks = chunks, .micro_batches = micro_batches };
    gt_status st = schedule_check_shape(name, ranks, chunks, micro_batches, costs);
    if (st)
        return st;
    snprintf(out->name, sizeof out->name, "%s", name);
    st = schedule_allocate(out);
    if (!st)
        st = !micro_batches                ? serving(out)
             : row_of(name)->kind.searched ? schedule_search(out, costs, memory)
                                           : closed_form(out, row_of(name));
    if (st)
        pipe_schedule_release(out);
    return st;
}

void pipe_schedule_release(pipe_schedule *s)
{
    for (int r = 0; s->list && r < s->ranks; r++)
        free(s->list[r]);
    free(s->list);
    free(s->count);
    *s = (pipe_schedule){ 0 };
}
