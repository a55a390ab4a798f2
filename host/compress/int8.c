/* SPDX-License-Identifier: MIT */
/* host/compress/int8.c - a quarter of the bytes: integers of 8 bits, and a scale for each 128 of them.
 *
 * Rounding is stochastic, by a counter of (rank, step, place), so that its mean is the value, to 1/512 of an integer's
 * step, and a run repeats bit by bit; what it took is added to the next gradient. Every rank's integers go to every rank, which adds
 * them up in fp32: nothing is rounded twice. That is less than fp32's ring up to 7 ranks, and at 2 a
 * quarter of it.                                                                           */
#include "host/compress/compressor.h"

static int64_t elements(const compress_range *r, int round)
{
    (void)round;
    return kernel_int8_words(r->count);
}

static gt_status encode_held(dev_list *l, kernel_set *k, const compress_range *r, const kernel_holding *h,
                             dev_buffer *to)
{
    return kernel_int8_encode(l, k, r->count, r->own_stream, r->random, h, r->grad, to);
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return encode_held(l, k, r, NULL, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    gt_status st = GT_OK;
    (void)round;
    for (int i = 0; !st && i < count; i += 2)
        st = kernel_int8_decode(l, k, r->count, i > 0, from[i], i + 1 < count ? from[i + 1] : NULL, to);
    return st;
}

const compressor compress_int8 = {
    .name = "int8",
    .help = "a quarter of the bytes between two ranks",
    .type = DTYPE_F32,
    .rounds = 1,
    .gathers = 1,
    .keeps_error = 1,
    .elements = elements,
    .encode = encode,
    .encode_held = encode_held,
    .decode = decode
};
