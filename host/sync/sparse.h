/* SPDX-License-Identifier: MIT */
/* host/sync/sparse.h - the few largest values of a tensor, in two bits each, and what is left for later.
 *
 *   e       what has not been sent: e = decay e + (x0 - x_r), then less what is sent
 *   chunk   SPARSE_CHUNK values that lie side by side, the last one shorter; of c values the
 *           ceil(keep c) largest by size are sent
 *   code    two levels (fp32), then an entry of 14 bits a value: 12 of its place, a sign, a level
 *
 * A level is the mean size of the smaller or of the larger half of what the chunk sends. 1 value in 64 takes
 * 120 bytes of a chunk's 16384. Source: Sarfi et al., "Communication Efficient LLM Pre-training with
 * SparseLoCo", arXiv 2508.15706: chunk-wise top-k, 2 bits, error feedback in place of outer momentum; which two
 * levels is this file's. Plain functions over host memory.                                    */
#ifndef GT_SYNC_SPARSE_H
#define GT_SYNC_SPARSE_H

#include <stdint.h>

enum { SPARSE_CHUNK = 4096 };

/* Of the encoding of n values; keep: above 0, at most 1. */
uint64_t sparse_bytes(int64_t n, double keep);
/* Takes what it sends out of error. */
void sparse_encode(unsigned char *code, float *error, int64_t n, double keep);
/* to += share * what was encoded. */
void sparse_add(float *to, const unsigned char *code, int64_t n, double keep, double share);

#endif
