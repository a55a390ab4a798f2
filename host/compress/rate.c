/* SPDX-License-Identifier: MIT */
/* host/compress/rate.c - times of the lists of launches that a step would run, without a network.
 *
 * Two encodings are there where each rank's is decoded, so that what one more takes is half of both. The values are
 * random and spread over some powers of two, as gradients are: what top-k takes depends on them. */
#include "host/compress/rate.h"

#include "host/base/clock.h"
#include "host/base/random.h"
#include "host/compress/coding.h"

#include <math.h>
#include <stdlib.h>

enum { COLUMNS = 1024, RUNS = 5, ENCODINGS = 2 };

typedef struct trial {
    dev_device *device;
    kernel_set *kernels;
    dev_buffer *grad, *random;
    compress_coding *coding;
    graph_param_info info;              /* of the values, as a tensor                          */
} trial;

static gt_status fill(const trial *t, int64_t values)
{
    static const uint32_t random[4] = { 0x72617465u, 0x6d656173u, 1 };
    float *x = malloc((size_t)values * sizeof *x);
    if (!x)
        return gt_fail(GT_NO_MEMORY, "cannot measure compression: no memory for %lld values", (long long)values);
    uint32_t four[4] = { 0 };
    for (int64_t i = 0; i < values; i++) {
        if (i % 4 == 0)
            gt_philox(four, 1, (uint64_t)i, 0);
        const uint32_t word = four[i % 4];
        x[i] = ldexpf((float)(int32_t)word, -31 - (int)(word >> 3 & 7));
    }
    gt_status st = dev_write(t->device, t->grad, 0, x, 4 * (uint64_t)values);
    free(x);
    return st ? st : dev_write(t->device, t->random, 0, random, sizeof random);
}

/* A tensor of `values` values, or a range of them. */
static gt_status prepare(trial *t, const compress_spec *s, int64_t values)
{
    const shape matrix = { .rank = 2, .dim = { values / COLUMNS, COLUMNS } };
    t->info = (graph_param_info){ .name = "measured", .shape = matrix, .full = matrix };
    compress_range range = { .count = values, .info = s->how->tensors ? &t->info : NULL };
    compress_coding_options o = {
        .spec = *s,
        .device = t->device,
        .kernels = t->kernels,
        .range = &range,
        .ranges = 1,
        .count = values,
        .ranks = s->how->gathers ? ENCODINGS : 1,
        .random = t->random
    };
    if (!compress_takes(s, &t->info))
        return gt_fail(GT_MISUSE, "cannot measure '%s' with %lld values: it leaves them as they are", s->how->name,
                       (long long)values);
    gt_status st = dev_buffer_view(&range.grad, t->grad, 0, 4 * (uint64_t)values);
    if (!st)
        st = dev_buffer_view(&o.grad, t->grad, 0, 4 * (uint64_t)values);
    if (st) {
        dev_buffer_release(range.grad);
        return st;
    }
    st = compress_coding_create(&t->coding, &o);
    if (!st)
        compress_coding_level(t->coding, compress_levels(s) - 1);
    return st;
}

/* Seconds of one round. */
static gt_status time_one(const trial *t, gt_status (*run)(compress_coding *c, int round), int round, double *seconds)
{
    const uint64_t start = gt_now_ns();
    gt_status st = run(t->coding, round);
    if (!st)
        st = dev_wait(t->device);
    *seconds = (double)(gt_now_ns() - start) * 1e-9;
    return st;
}

static gt_status commit(compress_coding *c, int round)
{
    (void)round;
    return compress_coding_commit(c);
}

/* A step as it would be; the first one only warms up. */
static gt_status time_rounds(const trial *t, int rounds, double *encode, double *decode)
{
    gt_status st = GT_OK;
    *encode = *decode = INFINITY;
    for (int i = 0; !st && i <= RUNS; i++) {
        double coded = 0.0, read = 0.0, one;
        st = time_one(t, commit, 0, &one);
        coded += one;
        for (int r = 0; !st && r < rounds; r++) {
            st = time_one(t, compress_coding_encode, r, &one);
            coded += one;
            if (!st)
                st = time_one(t, compress_coding_decode, r, &one);
            read += one;
        }
        if (i > 0) {
            *encode = fmin(*encode, coded);
            *decode = fmin(*decode, read);
        }
    }
    return st;
}

gt_status compress_rate_measure(compress_rate *out, dev_device *d, const compress_spec *s, int64_t values)
{
    trial t = { .device = d };
    double encode = 0.0, decode = 0.0;
    *out = (compress_rate){ .bytes = 4.0, .scatters = 1, .rounds = 1 };
    if (!compress_changes(s))
        return GT_OK;
    if (values < COMPRESS_CHUNK || values % COMPRESS_CHUNK)
        return gt_fail(GT_MISUSE, "compression is measured with multiples of %d values, not %lld", COMPRESS_CHUNK,
                       (long long)values);
    gt_status st = kernel_set_create(&t.kernels, d, s->how->type);
    if (!st)
        st = dev_buffer_create(&t.grad, d, 4 * (uint64_t)values, "values to measure compression with");
    if (!st)
        st = dev_buffer_create(&t.random, d, 4 * sizeof(uint32_t), "random words of compression");
    if (!st)
        st = fill(&t, values);
    if (!st)
        st = prepare(&t, s, values);
    if (!st)
        st = time_rounds(&t, s->how->rounds, &encode, &decode);
    if (!st) {
        out->encode = encode / (double)values;
        out->decode = decode / (double)(values * (s->how->gathers ? ENCODINGS : 1));
        out->bytes = 0.0;
        out->gathers = s->how->gathers;
        out->scatters = !s->how->elements && !s->how->tensors && !s->how->gathers && s->how->rounds == 1;
        out->rounds = s->how->rounds;
        for (int r = 0; r < s->how->rounds; r++)
            out->bytes += (double)compress_coding_payload(t.coding, r).own_bytes / (double)values;
    }
    compress_coding_release(t.coding);
    dev_buffer_release(t.random);
    dev_buffer_release(t.grad);
    kernel_set_release(t.kernels);
    return st;
}

double compress_rate_seconds(const compress_rate *r, double n, int ranks)
{
    return n * (r->encode + r->decode * (r->gathers ? ranks : 1));
}
