/* SPDX-License-Identifier: MIT */
/* host/graph/packing.c - greedy-by-size packing of lifetimes.
 *
 *   offset                                     time goes right; an area is a rectangle that
 *     |  [ logits ]      [ scratch ]           must not touch another. Large ones are placed
 *     |  [ h.0.fc     ][ h.1.fc   ]            first, each as low as it can lie.
 *     +----------------------------> time
 */
#include "host/graph/packing.h"

#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b)
{
    const packing_area *x = *(const packing_area *const *)a, *y = *(const packing_area *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x < y ? -1 : x > y;              /* the same order on every run */
}

static int by_offset(const void *a, const void *b)
{
    const packing_area *x = *(const packing_area *const *)a, *y = *(const packing_area *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The lowest free offset for `a` among the placed areas of a chunk. */
static uint64_t lowest(const packing_area *a, const packing_area *const *placed, int count, int chunk,
                       const packing_area **neighbours)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        if (placed[i]->chunk == chunk && placed[i]->from <= a->to && a->from <= placed[i]->to)
            neighbours[n++] = placed[i];
    qsort(neighbours, (size_t)n, sizeof *neighbours, by_offset);
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        if (at + a->bytes <= neighbours[i]->offset)
            break;
        uint64_t end = neighbours[i]->offset + neighbours[i]->bytes;
        if (end > at)
            at = end;
    }
    return at;
}

gt_status packing_make(packing_area *areas, int count, uint64_t align, uint64_t most, packing *out)
{
    gt_status st = GT_OK;
    memset(out, 0, sizeof *out);
    const size_t room = (size_t)(count ? count : 1);
    const packing_area **order = malloc(room * sizeof *order);
    const packing_area **neighbours = malloc(room * sizeof *neighbours);
    if (!order || !neighbours) {
        st = gt_fail(GT_NO_MEMORY, "cannot lay memory out: no memory for %zu areas", room);
        goto out;
    }
    most = most / align * align;
    for (int i = 0; i < count; i++) {
        areas[i].bytes = (areas[i].bytes + align - 1) / align * align;
        order[i] = &areas[i];
    }
    qsort(order, (size_t)count, sizeof *order, by_size);
    for (int i = 0; i < count; i++) {
        packing_area *a = (packing_area *)(uintptr_t)order[i];
        if (a->bytes > most) {
            st = gt_fail(GT_NO_MEMORY,
                         "cannot lay memory out: one activation takes %llu bytes, the "
                         "device allows %llu in one piece; try a smaller micro-batch or sequence",
                         (unsigned long long)a->bytes, (unsigned long long)most);
            goto out;
        }
        for (a->chunk = 0;; a->chunk++) {
            if (a->chunk == (int)(sizeof out->chunk_bytes / sizeof *out->chunk_bytes)) {
                st = gt_fail(GT_NO_MEMORY,
                             "cannot lay memory out: activations need more than %d "
                             "allocations",
                             a->chunk);
                goto out;
            }
            a->offset = lowest(a, order, i, a->chunk, neighbours);
            if (a->offset + a->bytes <= most)
                break;
        }
        if (a->chunk >= out->chunks)
            out->chunks = a->chunk + 1;
        if (a->offset + a->bytes > out->chunk_bytes[a->chunk])
            out->chunk_bytes[a->chunk] = a->offset + a->bytes;
    }
out:
    free(order);
    free(neighbours);
    return st;
}
