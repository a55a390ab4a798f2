/* SPDX-License-Identifier: MIT */
/* host/attention/attention_walk.h - what both ways in host memory walk over: heads, and what their queries see.
 *
 * Keys that a query sees are one stretch; neither of its ends ever falls from a query to the next. */
#ifndef GT_ATTENTION_ATTENTION_WALK_H
#define GT_ATTENTION_ATTENTION_WALK_H

#include "host/attention/attention_tiles.h"
#include "host/base/half.h"

GT_INLINE int least(int a, int b)
{
    return a < b ? a : b;
}

GT_INLINE int most(int a, int b)
{
    return a > b ? a : b;
}

GT_INLINE int up(int x, int step)
{
    return (x + step - 1) / step * step;
}

/* ---- sight ------------------------------------------------------------------------------------- */

/* What the queries of one sequence see. */
typedef struct sight {
    int T, keys, causal, window;
    const int32_t *starts;          /* NULL: 0 */
} sight;

GT_INLINE sight sight_of(const attention_task *t, const int32_t *mask, int b)
{
    sight s = { .T = t->T, .keys = t->T, .causal = t->causal, .window = t->window };
    if (t->mask == ATTENTION_LENGTHS)
        s.keys = most(0, least(mask[b], t->T));
    else if (t->mask == ATTENTION_STARTS)
        s.starts = mask + (size_t)b * (size_t)t->T;
    return s;
}

/* Query i sees keys [first_key(), end_key()). */
GT_INLINE int first_key(const sight *s, int i)
{
    const int reach = s->window ? most(i - s->window + 1, 0) : 0;
    return s->starts ? most(reach, s->starts[i]) : reach;
}

GT_INLINE int end_key(const sight *s, int i)
{
    return s->causal ? least(s->keys, i + 1) : s->keys;
}

/* end[key]: the first query that is too late to see it. */
GT_INLINE void find_ends(const sight *s, int *end)
{
    for (int key = 0, i = 0; key < s->T; key++) {
        while (i < s->T && first_key(s, i) <= key)
            i++;
        end[key] = i;
    }
}

/* ---- memory ------------------------------------------------------------------------------------ */

enum { SCRATCH_ALIGN = 64 };

/* Takes aligned memory off the front; with *at NULL only counts. */
typedef struct room {
    char *at;
    uint64_t bytes;
} room;

GT_INLINE void *take(room *r, size_t count, size_t size)
{
    void *p = r->at ? r->at + r->bytes : NULL;
    r->bytes += (count * size + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    return p;
}

/* A thread's part, of `each` bytes. */
GT_INLINE room room_of(void *scratch, uint64_t each, int thread)
{
    char *base = scratch;
    return (room){ base + (SCRATCH_ALIGN - (uintptr_t)base % SCRATCH_ALIGN) % SCRATCH_ALIGN + (uint64_t)thread * each,
                   0 };
}

GT_INLINE char *element(const void *base, int64_t i, size_t size)
{
    return (char *)(uintptr_t)base + i * (int64_t)size;
}

/* Rows of D, `ld` elements apart. */
typedef struct rows {
    const void *at;
    int ld;
} rows;

/* Rows of head h of sequence b in one of the values, as they are stored. */
GT_INLINE rows stored_rows(const attention_task *t, const void *values, const attention_place *p, int b, int h)
{
    const int64_t first = p->first + (int64_t)b * t->T * p->stride + (int64_t)h * t->D;
    return (rows){ element(values, first, dtype_size(t->storage)), p->stride };
}

/* The same of out and dout. */
GT_INLINE rows stored_out(const attention_task *t, const void *values, int b, int h)
{
    const attention_place p = { 0, t->H * t->D };
    return stored_rows(t, values, &p, b, h);
}

#endif
