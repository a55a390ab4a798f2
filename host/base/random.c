/* SPDX-License-Identifier: MIT */
/* host/base/random.c - Philox4x32-10, and streams and permutations made from it; normal numbers are in
 * random_normal.c. */
#include "host/base/random.h"

#include <assert.h>
#include <string.h>

void gt_philox(uint32_t out[4], uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void gt_random_init(gt_random *r, uint64_t seed, uint64_t stream)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    r->stream = stream;
}

uint32_t gt_random_u32(gt_random *r)
{
    if (!r->left) {
        gt_philox(r->block, r->seed, r->next++, r->stream);
        r->left = 4;
    }
    return r->block[4 - r->left--];
}

uint64_t gt_random_below(gt_random *r, uint64_t n)
{
    assert(n > 0);
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;   /* reject the uneven tail */
    uint64_t x;
    do {
        x = gt_random_u32(r);
        x = x << 32 | gt_random_u32(r);
    } while (x >= limit);
    return x % n;
}

float gt_random_unit(gt_random *r)
{
    return (float)(gt_random_u32(r) >> 8) * 0x1p-24f;
}

void gt_random_seek(gt_random *r, uint64_t n)
{
    r->next = n / 4;
    r->left = 0;
    for (uint64_t i = 0; i < n % 4; i++)
        gt_random_u32(r);
}

uint64_t gt_random_permute(uint64_t seed, uint64_t round, uint64_t n, uint64_t i)
{
    assert(i < n);
    int half = 1;                                         /* bits in half a block */
    while (half < 32 && (1ull << 2 * half) < n)
        half++;
    const uint64_t mask = (1ull << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t step = 0; step < 6; step++) {
            uint32_t f[4];
            gt_philox(f, seed, right | step << 56, round);
            uint64_t next = (left ^ f[0]) & mask;
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);                                     /* walk the cycle back into [0, n) */
    return i;
}
