/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_sample.h - a product of random matrices, and how far off a result is; private to this room.
 *
 * All of C computed again on the host, in double, would take longer than most measurements: some elements are. */
#ifndef GT_GEMM_SAMPLE_H
#define GT_GEMM_SAMPLE_H

#include "host/gemm/gemm.h"

typedef struct gemm_sample {
    gemm_desc g;                    /* plain, dense, one product */
    void *a, *b, *c;                /* on the host; c: what gemm_sample_read() got */
    uint64_t c_bytes;               /* of c, a multiple of 4 */
    gemm_buffers on;
} gemm_sample;

/* g is complete. On failure *out holds what was made so far: release it whatever happened. GT_UNSUPPORTED unless
 * it is plain, dense and one product. */
gt_status gemm_sample_make(gemm_sample *out, dev_device *d, const gemm_desc *g);
void gemm_sample_release(gemm_sample *s);
gt_status gemm_sample_read(gemm_sample *s, dev_device *d);
/* Of what was read: the largest error of sampled elements, in units of the sum of |a * b|; INFINITY for a NaN. */
double gemm_sample_error(const gemm_sample *s);
/* What storing the result may cost, and what adding K products in fp32 may. */
double gemm_sample_allowed(const gemm_sample *s);

#endif
