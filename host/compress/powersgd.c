/* SPDX-License-Identifier: MIT */
/* host/compress/powersgd.c - a matrix as the product of two thin ones, both of them summed.
 *
 *   round 0   p = M q, q orthonormal ══ summed ══► made orthonormal
 *   round 1   q = M' p               ══ summed ══► the gradient is p q', and q is where the next step begins
 *
 * One power iteration a step, on the sum over ranks, since both products are linear in M; it goes on from the
 * q before (warm start). What the product leaves out of a rank's matrix is added to its next
 * gradient. A tensor of more dims is a matrix of its first one; one that it would not make `rate` times
 * smaller travels as it is. Source: Vogels et al., "PowerSGD", NeurIPS 2019; both factors are made orthonormal,
 * as PyTorch's hook does it.                                                               */
#include "host/compress/compressor.h"

#include <math.h>

static const compress_number rank = { "RANK", "columns of each of the thin matrices", NAN, 1.0, 256.0,
                                      1,      offsetof(compress_spec, parameter) };
static const compress_number numbers[] = { { "rate", "times that a tensor must become smaller, or it travels as it is",
                                             2.0, 0.0, 1e6, 0, offsetof(compress_spec, rate) },
                                           { 0 } };

typedef struct extent {
    int n, m, rank;
} extent;

static extent extent_of(const compress_spec *s, const graph_param_info *info)
{
    const int64_t n = info->shape.dim[0], m = n ? shape_count(&info->shape) / n : 0;
    const int64_t least = n < m ? n : m, wanted = (int64_t)s->parameter;
    return (extent){ (int)n, (int)m, (int)(wanted < least ? wanted : least) };
}

static int worth(const compress_spec *s, const graph_param_info *info)
{
    const int64_t n = info->shape.dim[0], count = shape_count(&info->shape);
    if (count <= 0 || n > INT32_MAX || count / n > INT32_MAX)
        return 0;
    const extent e = extent_of(s, info);
    return ((double)e.n + e.m) * e.rank * s->rate < (double)count;
}

static int64_t elements(const compress_range *r, int round)
{
    const extent e = extent_of(r->spec, r->info);
    return (int64_t)e.rank * (round ? e.m : e.n);
}

static int64_t state(const compress_range *r)
{
    return elements(r, 1);
}

static int64_t scratch(const compress_range *r)
{
    const extent e = extent_of(r->spec, r->info);
    return kernel_lowrank_work(e.n, e.m, e.rank);
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    const extent e = extent_of(r->spec, r->info);
    if (round)
        return kernel_lowrank_right(l, k, e.n, e.m, e.rank, r->grad, r->scratch, to);
    gt_status st = dev_list_copy(l, r->next, 0, r->state, 0, 4 * (uint64_t)state(r));
    if (!st)                    /* zeros at first: drawn */
        st = kernel_lowrank_orthogonal(l, k, e.m, e.rank, 1, r->next);
    return st ? st : kernel_lowrank_left(l, k, e.n, e.m, e.rank, r->grad, r->next, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    const extent e = extent_of(r->spec, r->info);
    (void)count;
    gt_status st = dev_list_copy(l, round ? r->next : r->scratch, 0, from[0], 0, 4 * (uint64_t)elements(r, round));
    if (st)
        return st;
    return round ? kernel_lowrank_product(l, k, e.n, e.m, e.rank, r->scratch, from[0], to)
                 : kernel_lowrank_orthogonal(l, k, e.n, e.rank, 0, r->scratch);
}

const compressor compress_powersgd = {
    .name = "powersgd",
    .help = "matrices as products of thin ones",
    .type = DTYPE_F32,
    .rounds = 2,
    .tensors = 1,
    .keeps_error = 1,
    .parameter = &rank,
    .numbers = numbers,
    .worth = worth,
    .elements = elements,
    .state = state,
    .scratch = scratch,
    .encode = encode,
    .decode = decode
};
