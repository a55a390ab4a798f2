/* SPDX-License-Identifier: MIT */
/* tests/graph/test_packing.c - packing: nothing that lives at once overlaps, on many instances. */
#include "tests/check.h"

#include "host/base/random.h"
#include "host/graph/packing.h"

#include <stdlib.h>

enum { MOST_AREAS = 120, TIMES = 64 };

static int overlap(const packing_area *a, const packing_area *b)
{
    return a->chunk == b->chunk && a->from <= b->to && b->from <= a->to && a->offset < b->offset + b->bytes
           && b->offset < a->offset + a->bytes;
}

static void nothing_alive_overlaps(void)
{
    static const uint64_t aligns[] = { 1, 64, 128, 4096 };
    double waste = 0.0;
    gt_random r;
    gt_random_init(&r, 1, 2);
    for (int round = 0; round < 400; round++) {
        packing_area a[MOST_AREAS];
        packing result;
        const int count = (int)gt_random_below(&r, MOST_AREAS + 1);
        const uint64_t align = aligns[round % 4], most = round % 3 ? UINT64_MAX / 2 : 200000;
        uint64_t bound = 0, total = 0;
        for (int i = 0; i < count; i++) {
            const int x = (int)gt_random_below(&r, TIMES), y = (int)gt_random_below(&r, TIMES);
            a[i] = (packing_area){
                .bytes = gt_random_below(&r, 5) ? gt_random_below(&r, 20000) : gt_random_below(&r, 10),
                .from = x < y ? x : y,
                .to = x < y ? y : x,
                .chunk = -1
            };
        }
        if (!CHECK_OK(packing_make(a, count, align, most, &result)))
            continue;
        for (int i = 0; i < count; i++) {
            CHECK(a[i].chunk >= 0 && a[i].chunk < result.chunks);
            CHECK(a[i].offset % align == 0);
            CHECK(a[i].offset + a[i].bytes <= result.chunk_bytes[a[i].chunk]);
            for (int k = 0; k < i; k++)
                CHECKF(!overlap(&a[i], &a[k]), "round %d: areas %d and %d", round, i, k);
        }
        for (int t = 0; t < TIMES; t++) {
            uint64_t alive = 0;
            for (int i = 0; i < count; i++)
                alive += a[i].from <= t && t <= a[i].to ? a[i].bytes : 0;
            bound = alive > bound ? alive : bound;
        }
        for (int i = 0; i < result.chunks; i++) {
            CHECK(result.chunk_bytes[i] <= most);
            total += result.chunk_bytes[i];
        }
        CHECKF(total >= bound, "round %d: %llu bytes, at least %llu are alive at once", round,
               (unsigned long long)total, (unsigned long long)bound);
        if (bound && result.chunks == 1)
            waste += ((double)total / (double)bound - 1.0) / 400.0;
    }
    CHECKF(waste < 0.15, "on average %.1f %% above the lower bound", 100.0 * waste);
}

static void a_chain_needs_two_areas(void)
{
    packing_area a[50];
    packing r;
    for (int i = 0; i < 50; i++)            /* each lives while the next is made */
        a[i] = (packing_area){ .bytes = 1024, .from = i, .to = i + 1 };
    CHECK_OK(packing_make(a, 50, 64, 1u << 20, &r));
    CHECK(r.chunks == 1 && r.chunk_bytes[0] == 2048);
}

static void what_cannot_fit_is_said(void)
{
    packing_area one = { .bytes = 5000, .from = 0, .to = 1 }, many[200];
    packing r;
    CHECK_FAILS(packing_make(&one, 1, 64, 4096, &r), GT_NO_MEMORY, "smaller micro-batch");
    for (int i = 0; i < 200; i++)
        many[i] = (packing_area){ .bytes = 4096, .from = 0, .to = 1 };
    CHECK_FAILS(packing_make(many, 200, 64, 4096, &r), GT_NO_MEMORY, "64 allocations");
    CHECK_OK(packing_make(NULL, 0, 64, 4096, &r));
    CHECK(r.chunks == 0);
}

const check_case check_cases[] = {
    CASE(nothing_alive_overlaps), CASE(a_chain_needs_two_areas), CASE(what_cannot_fit_is_said), { 0 }
};
