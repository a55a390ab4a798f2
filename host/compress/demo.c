/* SPDX-License-Identifier: MIT */
/* host/compress/demo.c - the fast components of a momentum that each rank keeps for itself: DeMo.
 *
 *   m = DECAY m + gradient                       this rank's; it never travels whole
 *   q = the K largest cosine coefficients of each block of 64 x 64 of m, back as values        m = m - q
 *   what all ranks get: the sum of q             gradients are weighted by tokens, so it is their average
 *
 * A coefficient travels as a value and 16 bits of where it was. The momentum is what error feedback keeps, decayed, so
 * it is in checkpoints and goes to other plans as a sum. The update of DeMo is the sign of that average:
 * --optimizer lion --beta1 0; the algorithm's rate and weight decay are that rule's. A tensor of more dims is a matrix of its
 * first one; vectors and small tensors travel as they are: all of them is sent. Source: Peng et al., "DeMo:
 * Decoupled Momentum Optimization", arXiv 2411.19870, algorithm 1. Its code takes the average of a coefficient over those
 * that sent it; this is that of the algorithm, over all. */
#include "host/compress/compressor.h"

enum { BLOCK = DCT_SIDE * DCT_SIDE };
_Static_assert((int)BLOCK == (int)COMPRESS_CHUNK, "a block is a chunk of kernel_topk_encode()");

static const compress_number coefficients = {
    "K", "of 4096 cosine coefficients of a block that are sent", 32.0, 1.0, BLOCK, 1, offsetof(compress_spec, parameter)
};
static const compress_number numbers[] = {
    { "decay", "of the momentum from step to step", 0.999, 1e-6, 1.0, 0, offsetof(compress_spec, decay) }, { 0 }
};

typedef struct extent {
    int n, m;
} extent;

static extent extent_of(const compress_range *r)
{
    const int64_t n = r->info->shape.dim[0];
    return (extent){ (int)n, (int)(r->count / n) };
}

static int worth(const compress_spec *s, const graph_param_info *info)
{
    const int64_t n = info->shape.dim[0], count = shape_count(&info->shape);
    (void)s;
    return info->shape.rank >= 2 && count > 0 && n <= INT32_MAX && count / n <= INT32_MAX;
}

static int64_t scratch(const compress_range *r)
{
    const extent e = extent_of(r);
    return kernel_dct_count(e.n, e.m);
}

static int64_t elements(const compress_range *r, int round)
{
    (void)round;
    return kernel_topk_words(scratch(r), (int)r->spec->parameter);
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    const extent e = extent_of(r);
    (void)round;
    gt_status st = kernel_dct_forward(l, k, e.n, e.m, r->grad, r->scratch);
    return st ? st : kernel_topk_encode(l, k, scratch(r), (int)r->spec->parameter, NULL, r->scratch, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    const extent e = extent_of(r);
    gt_status st = GT_OK;
    (void)round;
    for (int i = 0; !st && i < count; i++)
        st = kernel_topk_decode(l, k, scratch(r), (int)r->spec->parameter, i > 0, from[i], r->scratch);
    return st ? st : kernel_dct_inverse(l, k, e.n, e.m, r->scratch, to);
}

const compressor compress_demo = {
    .name = "demo",
    .help = "fast components of a momentum of each rank's own (DeMo)",
    .type = DTYPE_F32,
    .tensors = 1,
    .rounds = 1,
    .gathers = 1,
    .keeps_error = 1,
    .parameter = &coefficients,
    .numbers = numbers,
    .worth = worth,
    .elements = elements,
    .scratch = scratch,
    .encode = encode,
    .decode = decode
};
