/* SPDX-License-Identifier: MIT */
/* host/compress/fp16.c - half the bytes: gradients rounded to fp16, eleven bits of them.
 *
 * fp16 ends at 65504, so that a rank says no more than its share of that: then the sum, which the network adds
 * in fp32 and rounds once a hop, cannot overflow either. What is cut off, and what rounding took, is
 * added to the next gradient.                                                              */
#include "host/compress/compressor.h"

static float most_of(const compress_range *r)
{
    return 65504.0f / (float)r->ranks;
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return kernel_compress_cut(l, k, r->count, most_of(r), r->grad, to);
}

static gt_status encode_held(dev_list *l, kernel_set *k, const compress_range *r, const kernel_holding *h,
                             dev_buffer *to)
{
    return kernel_compress_store(l, k, r->count, most_of(r), h->frame, h->kept, r->grad, to, h->next);
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
    .encode_held = encode_held,
    .decode = decode
};
