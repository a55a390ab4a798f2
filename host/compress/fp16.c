/* SPDX-License-Identifier: MIT */
/* host/compress/fp16.c - half the bytes: gradients rounded to fp16, eleven bits of them.
 *
 * fp16 ends at 65504, so that a rank says no more than its share of that: then the sum, which the network adds
 * in fp32 and rounds once a hop, cannot overflow either. What is cut off, and what rounding took, is
 * added to the next gradient.                                                              */
#include "host/compress/compressor.h"

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return kernel_compress_cut(l, k, r->count, 65504.0f / (float)r->ranks, r->grad, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    (void)round;
    (void)count;
    return kernel_load(l, k, r->count, from[0], to);
}

const compressor compress_fp16 = {
    .name = "fp16",
    .help = "half the bytes; what does not fit waits for the next step",
    .type = DTYPE_F16,
    .rounds = 1,
    .all = 1,
    .keeps_error = 1,
    .encode = encode,
    .decode = decode
};
