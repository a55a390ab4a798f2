/* SPDX-License-Identifier: MIT */
/* host/base/random.h - counter-based random numbers, the same on every device.
 *
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
 * a pure function of (key, counter), so the i-th number of a stream needs no state, any
 * rank can compute it, and cl/random.clh gives the same bits.                           */
#ifndef GT_BASE_RANDOM_H
#define GT_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Four independent 32-bit numbers for (key, counter). */
void gt_philox(uint32_t out[4], uint64_t key, uint64_t counter_low, uint64_t counter_high);

/* A stream: numbers 0, 1, 2, ... of (seed, stream). Copy it to fork; no clean-up. */
typedef struct gt_random {
    uint64_t seed, stream, next;    /* next: index of the next block of four */
    uint32_t block[4];
    int left;                       /* unused numbers in block */
} gt_random;

void gt_random_init(gt_random *r, uint64_t seed, uint64_t stream);
uint32_t gt_random_u32(gt_random *r);
uint64_t gt_random_below(gt_random *r, uint64_t n);     /* uniform in [0, n), n > 0, unbiased */
float gt_random_unit(gt_random *r);                  /* uniform in [0, 1)                 */
void gt_random_normal(gt_random *r, float *out, size_t n, float mean, float deviation);
/* The numbers from the n-th on come next, counted from the stream's beginning: so parts of an array
 * can be filled apart. A normal number takes one; they come in pairs, so begin at an even one. */
void gt_random_seek(gt_random *r, uint64_t n);

/* A permutation of [0, n) evaluated at one point in O(1) memory: element `i` of the
 * shuffle named by (seed, round). A Feistel network with cycle walking, so a loader can
 * shuffle more samples than would fit in memory and resume anywhere.                    */
uint64_t gt_random_permute(uint64_t seed, uint64_t round, uint64_t n, uint64_t i);

#endif
