/* SPDX-License-Identifier: MIT */
/* host/compress/randomk.c - some values alone, drawn anew every step.
 *
 *   N values side by side, N = 1 / FRACTION ─► one of them, the same one on all ranks
 *
 * So no index travels, and the network adds the values up as it adds all of them. What is not sent is added
 * to the next gradient. Source: Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, here with one
 * draw for each N values, which never draws one twice.                                     */
#include "host/compress/compressor.h"

#include <math.h>

static const compress_number fraction = {
    "FRACTION",
    "share of the values that is sent: one of every 1 / FRACTION",
    NAN,
    1e-6,
    1.0,
    0,
    offsetof(compress_spec, parameter)
};

static uint32_t group_of(const compress_range *r)
{
    return (uint32_t)lrint(1.0 / r->spec->parameter);
}

static int64_t elements(const compress_range *r, int round)
{
    (void)round;
    return kernel_randomk_words(r->count, group_of(r));
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return kernel_randomk_encode(l, k, r->count, group_of(r), r->stream, r->random, r->grad, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    (void)round;
    (void)count;
    return kernel_randomk_decode(l, k, r->count, group_of(r), r->stream, r->random, from[0], to);
}

const compressor compress_randomk = {
    .name = "randomk",
    .help = "a part of the values, others the next time",
    .type = DTYPE_F32,
    .rounds = 1,
    .keeps_error = 1,
    .parameter = &fraction,
    .elements = elements,
    .encode = encode,
    .decode = decode
};
