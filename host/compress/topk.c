/* SPDX-License-Identifier: MIT */
/* host/compress/topk.c - the largest values alone, with where they were: Deep Gradient Compression.
 *
 *   chunk of 4096 values ─► its k largest magnitudes: value fp32, index 16 bits; k = FRACTION x 4096
 *
 * Chunks make room and work known ahead, and keep any tensor from being silent for long. What is not sent is
 * added to the next gradient. momentum=M collects velocities before that, v = M v + g, and clears them where
 * something was sent (momentum correction and factor masking): then the optimizer must have no momentum of
 * its own. clip=X first cuts each replica's gradient to the norm X / sqrt(replicas), so that one wild batch is not
 * added to what is kept (local gradient clipping); its norm is known when the backward pass is over, so that nothing is
 * sent beside that. sample=S finds each chunk's threshold in a share S of its values, others in each step; what reaches
 * it is cut to the k largest, or is fewer (hierarchical sampling). ramp=N begins with a quarter of all values and sends a quarter of that every N steps, until
 * FRACTION is reached. Source: Lin et al., "Deep Gradient Compression", ICLR 2018.        */
#include "host/compress/compressor.h"

#include <math.h>

static const compress_number fraction = {
    "FRACTION", "share of the values that is sent", NAN, 1.0 / COMPRESS_CHUNK, 1.0,
    0,          offsetof(compress_spec, parameter)
};
static const compress_number numbers[] = {
    { "momentum", "of velocities that are collected before anything is chosen", 0.0, 0.0, 0.9999, 0,
      offsetof(compress_spec, momentum) },
    { "clip", "norm of a replica's gradient times the root of replicas; 0: any", 0.0, 0.0, 1e30, 0,
      offsetof(compress_spec, clip) },
    { "sample", "share of the values that is looked at to find the largest; 0: all", 0.0, 0.0, 0.1, 0,
      offsetof(compress_spec, sample) },
    { "ramp", "steps for each of 25 %, 6.3 %, 1.6 %, ... on the way to FRACTION", 0.0, 0.0, 1e9, 1,
      offsetof(compress_spec, ramp) },
    { 0 }
};

static double share_of(const compress_spec *s, int level)
{
    const double ramp = pow(0.25, level + 1);
    return level + 1 < compress_levels(s) ? ramp : s->parameter;
}

static int levels(const compress_spec *s)
{
    int n = 1;
    while (s->ramp > 0.0 && pow(0.25, n) > s->parameter)
        n++;
    return n;
}

/* Of a chunk; of what is shorter than one, of that. */
static int keep_of(const compress_range *r)
{
    const int64_t chunk = r->count < COMPRESS_CHUNK ? r->count : COMPRESS_CHUNK;
    const int keep = (int)lrint(share_of(r->spec, r->level) * (double)chunk);
    return keep ? keep : 1;
}

static int64_t elements(const compress_range *r, int round)
{
    (void)round;
    return kernel_topk_words(r->count, keep_of(r));
}

static gt_status encode_held(dev_list *l, kernel_set *k, const compress_range *r, const kernel_holding *h,
                             dev_buffer *to)
{
    if (r->spec->sample > 0.0) {
        const double stride = fmin(rint(1.0 / r->spec->sample), COMPRESS_CHUNK);
        return kernel_topk_encode_sampled(l, k, r->count, keep_of(r), (int)stride, r->random, h, r->grad, to);
    }
    return kernel_topk_encode(l, k, r->count, keep_of(r), h, r->grad, to);
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
    for (int i = 0; !st && i < count; i++)
        st = kernel_topk_decode(l, k, r->count, keep_of(r), i > 0, from[i], to);
    return st;
}

const compressor compress_topk = {
    .name = "topk",
    .help = "the largest values alone, others when they have grown",
    .type = DTYPE_F32,
    .rounds = 1,
    .gathers = 1,
    .keeps_error = 1,
    .parameter = &fraction,
    .numbers = numbers,
    .levels = levels,
    .elements = elements,
    .encode = encode,
    .encode_held = encode_held,
    .decode = decode
};
