/* SPDX-License-Identifier: MIT */
/* host/compress/threshold.c - tensors that have changed little are held back whole, and go when they have: --send-threshold.
 *
 *   accumulated = gradient + what was held back       ranks x |accumulated| > X |weights| on any rank: sent as it is
 *                                                     else, on all ranks: held back, and the sum of this step is 0
 *
 * Gaia's significance, the size of what has been accumulated relative to the values it changes, of tensors in place of
 * single values, and decided before sending, so that all ranks do the same (Hsieh et al., "Gaia", NSDI 2017, section
 * 3.2; that whole rounds of communication are skipped where little has changed: Chen et al., "LAG", NeurIPS 2018). The
 * number of ranks stands for the sum that nobody knows yet. X does not fall with the steps. Error feedback is that of
 * all compressors; buckets_threshold.c decides. */
#include "host/compress/compressor.h"

#include <math.h>

static const compress_number threshold = { "X", "share of the weights' norm",      NAN, 0.0, 1e30,
                                           0,   offsetof(compress_spec, parameter) };

/* Nothing is encoded: what is sent goes from where it lies. */
static int64_t elements(const compress_range *r, int round)
{
    (void)r;
    (void)round;
    return 1;
}

static gt_status encode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)l;
    (void)k;
    (void)r;
    (void)round;
    (void)to;
    return GT_OK;
}

/* What a tensor says that is held back. */
static gt_status decode(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                        int count, dev_buffer *to)
{
    (void)k;
    (void)round;
    (void)from;
    (void)count;
    return dev_list_fill(l, to, 0, 0, 4 * (uint64_t)r->count);
}

static const compressor sync_compress_held = {
    .name = "threshold",
    .help = "tensors that have changed little wait until they have",
    .type = DTYPE_F32,
    .rounds = 1,
    .tensors = 1,
    .whole = 1,
    .keeps_error = 1,
    .parameter = &threshold,
    .elements = elements,
    .encode = encode,
    .decode = decode
};

gt_status compress_threshold(compress_spec *c, double x)
{
    if (!(x >= 0.0) || isinf(x))
        return gt_fail(GT_MISUSE, "option --send-threshold: %g is no number from 0 up", x);
    if (x > 0.0 && compress_changes(c))
        return gt_fail(
            GT_MISUSE,
            "--send-threshold sends tensors as they are or not at all; leave out --compress %s, or the threshold",
            c->how->name);
    if (x > 0.0)
        *c = (compress_spec){ .how = &sync_compress_held, .parameter = x, .least = 1024.0 };
    return GT_OK;
}
