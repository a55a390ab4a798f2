/* SPDX-License-Identifier: MIT */
/* host/compress/bf16.c - half the bytes: gradients rounded to bf16, which keeps fp32's range.
 *
 * The network adds in fp32 and rounds once a hop. What rounding took from this rank's gradient is added to
 * the next one, so that small parts are late and not lost.                                 */
#include "host/compress/compressor.h"

#include <math.h>

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return kernel_store(l, k, r->count, r->grad, to);
}

static gt_status encode_held(dev_list *l, kernel_set *k, const compress_range *r, const kernel_holding *h,
                             dev_buffer *to)
{
    return kernel_compress_store(l, k, r->count, INFINITY, h->frame, h->kept, r->grad, to, h->next);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    (void)round;
    (void)count;
    return kernel_load(l, k, r->count, from[0], to);
}

const compressor compress_bf16 = {
    .name = "bf16",
    .help = "half the bytes; what rounding takes waits for the next step",
    .type = DTYPE_BF16,
    .rounds = 1,
    .all = 1,
    .keeps_error = 1,
    .encode = encode,
    .encode_held = encode_held,
    .decode = decode
};
