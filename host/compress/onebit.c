/* SPDX-License-Identifier: MIT */
/* host/compress/onebit.c - AdamW's momentum as signs: 1-bit Adam and 0/1 Adam.
 *
 *   rank i    m_i = beta1 m / ranks + (1 - beta1) g_i + held back ─► signs, and mean |m_i| of each 4096 values
 *   owner     of a part: what the ranks say, added up, + held back there ─► signs, and mean magnitudes
 *   all       m = what the owners say; v stays;  p = p - lr (m / (sqrt(v) + eps) + decay p)
 *
 * Shares g_i add up to the gradient of the whole batch however unequal they are, and so do the m_i to the momentum.
 * Each rank owns a part as large as the others' (coding.h), so the server of the papers is all of them. Between two
 * ranks that saves nothing: there, and with server=0, every rank gets what every other one says, and m is the sum of
 * that. m is the optimizer's own, so nothing more is kept of it, and it needs to be whole on every rank. Bias
 * corrections go on: of m with the steps, of v with the updates that it has had.
 *
 *   onebit    the steps before --compress-after are AdamW's, with gradients as they are; then v is held for good.
 *             Source: Tang et al., "1-bit Adam", ICML 2021.
 *   zeroone   v is held but in steps 0, 1, ... of which the j-th and the next are 2^(j / INTERVALS) apart: those are
 *             AdamW's, with gradients as they are. Source: Lu et al., "Maximizing communication efficiency for
 *             large-scale training via 0/1 Adam", ICLR 2023.                              */
#include "host/compress/compressor.h"

static const compress_number intervals = {
    "INTERVALS",
    "updates of variances at each distance of 1, 2, 4, ... steps",
    16.0,
    1.0,
    1e6,
    1,
    offsetof(compress_spec, parameter)
};
#define SERVER \
    { "server", \
      "1: sums of 3 and more ranks come back as signs; 0: all get all", \
      1.0, \
      0.0, \
      1.0, \
      1, \
      offsetof(compress_spec, server) }
static const compress_number onebit_numbers[] = { SERVER, { 0 } };
static const compress_number numbers[] = {
    { "freeze", "steps after which variances stay; 0: they never do for good", 0.0, 0.0, 1e15, 1,
      offsetof(compress_spec, freeze) },
    { "local", "steps that replicas make apart, from freeze on; 1: none", 1.0, 1.0, 1e6, 1,
      offsetof(compress_spec, local) },
    { "double", "of them 1, 2, 4, ... for so many steps each; 0: all at once", 0.0, 0.0, 1e15, 1,
      offsetof(compress_spec, doubles) },
    SERVER,
    { 0 }
};

static int64_t elements(const compress_range *r, int round)
{
    (void)round;
    return kernel_sign_words(r->count);
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)round;
    return kernel_sign_encode(l, k, r->count, r->grad, to);
}

static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    gt_status st = GT_OK;
    (void)round;
    for (int i = 0; !st && i < count; i++)
        st = kernel_sign_decode(l, k, r->count, i > 0, from[i], to);
    return st;
}

/* Updates of variances are INTERVALS with each distance 1, 2, 4, ... */
static int renews(const compress_spec *s, uint64_t step)
{
    uint64_t begin = 0, apart = 1;
    const uint64_t each = (uint64_t)s->parameter;
    if (s->freeze > 0.0 && (double)step >= s->freeze)
        return 0;
    while (step - begin >= each * apart) {
        begin += each * apart;
        apart *= 2;
    }
    return (step - begin) % apart == 0;
}

/* From freeze on rounds are 1, 2, 4, ... steps long, of each length as many as make up `double` steps; or at once as
 * long as they become. */
static uint64_t round_of(const compress_spec *s, uint64_t step, uint64_t *first)
{
    const uint64_t most = (uint64_t)s->local, each = (uint64_t)s->doubles;
    uint64_t begin = (uint64_t)s->freeze, length = each ? 1 : most;
    *first = step;
    if (step < begin)
        return 1;
    while (length < most) {
        const uint64_t end = begin + (each + length - 1) / length * length;
        if (step < end)
            break;
        begin = end;
        length = 2 * length < most ? 2 * length : most;
    }
    *first = begin + (step - begin) / length * length;
    return length;
}

const compressor compress_onebit = {
    .name = "onebit",
    .help = "signs of AdamW's momentum (1-bit Adam)",
    .type = DTYPE_F32,
    .rounds = 1,
    .gathers = 1,
    .tensors = 1,
    .all = 1,
    .keeps_error = 1,
    .moments = 1,
    .warms_up = 1,
    .serves = 1,
    .numbers = onebit_numbers,
    .elements = elements,
    .encode = encode,
    .decode = decode
};

const compressor compress_zeroone = {
    .name = "zeroone",
    .help = "signs of AdamW's momentum, variances now and then (0/1 Adam)",
    .type = DTYPE_F32,
    .rounds = 1,
    .gathers = 1,
    .tensors = 1,
    .all = 1,
    .keeps_error = 1,
    .moments = 1,
    .serves = 1,
    .parameter = &intervals,
    .numbers = numbers,
    .plain = renews,
    .round = round_of,
    .elements = elements,
    .encode = encode,
    .decode = decode
};
