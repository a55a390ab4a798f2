/* SPDX-License-Identifier: MIT */
/* host/attention/attention_trial.c - runs each way on the same random numbers, for the choice and for the bench. */
#include "host/attention/attention_private.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/random.h"
#include "host/base/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QKV, OUT, LSE, DOUT, DQKV, BUFFERS };

struct attention_trial {
    attention_how how;
    kernel_attention_shape s;
    size_t count[BUFFERS];
    dev_buffer *at[BUFFERS];
    float *want[2];                 /* what came out of the first way: out, dqkv; NULL: not yet */
};

static dtype type_of(const attention_trial *t, int which)
{
    return which == LSE ? DTYPE_F32 : kernel_set_storage(t->how.kernels);
}

static size_t bytes_of(const attention_trial *t, int which)
{
    return (t->count[which] * dtype_size(type_of(t, which)) + 3) & ~(size_t)3;
}

/* q, k and v side by side, or their gradients. */
static kernel_attention_in columns(const attention_trial *t, int which)
{
    const int H = t->s.H * t->s.D, KV = t->s.KV * t->s.D, row = H + 2 * KV;
    dev_buffer *b = t->at[which];
    return (kernel_attention_in){ { b, 0, row }, { b, H, row }, { b, (int64_t)H + KV, row } };
}

/* Numbers around 0, drawn once and repeated: drawing takes longer than what is measured. */
static gt_status fill(attention_trial *t, int which, uint64_t stream)
{
    enum { PERIOD = 65521 };
    const dtype type = type_of(t, which);
    const size_t size = dtype_size(type);
    char *host = calloc(1, bytes_of(t, which));
    if (!host)
        return gt_fail(GT_NO_MEMORY, "cannot try attention: no memory for %zu bytes of random numbers",
                       bytes_of(t, which));
    gt_random r;
    gt_random_init(&r, 7, stream);
    for (size_t i = 0; i < t->count[which]; i++)
        if (i < PERIOD)
            dtype_store(type, host, i, 3.0f * gt_random_unit(&r) - 1.5f);
        else
            memcpy(host + i * size, host + (i - PERIOD) * size, size);
    gt_status st = dev_write(kernel_set_device(t->how.kernels), t->at[which], 0, host, bytes_of(t, which));
    free(host);
    return st;
}

gt_status attention_trial_create(attention_trial **out, const attention_how *how)
{
    *out = NULL;
    attention_trial *t = calloc(1, sizeof *t);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory to try attention");
    t->s = *how->s;
    t->how = *how;
    t->how.s = &t->s;
    const size_t tokens = (size_t)t->s.B * (size_t)t->s.T, D = (size_t)t->s.D;
    t->count[OUT] = t->count[DOUT] = tokens * (size_t)t->s.H * D;
    t->count[QKV] = t->count[DQKV] = tokens * (size_t)(t->s.H + 2 * t->s.KV) * D;
    t->count[LSE] = tokens * (size_t)t->s.H;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < BUFFERS; i++)
        st = dev_buffer_create(&t->at[i], kernel_set_device(how->kernels), bytes_of(t, i), "trying attention");
    if (!st)
        st = fill(t, QKV, 1);
    if (!st)
        st = fill(t, DOUT, 2);
    if (st)
        attention_trial_release(t);
    else
        *out = t;
    return st;
}

void attention_trial_release(attention_trial *t)
{
    if (!t)
        return;
    for (int i = 0; i < BUFFERS; i++)
        dev_buffer_release(t->at[i]);
    free(t->want[0]);
    free(t->want[1]);
    free(t);
}

/* The launches of one way, and its scratch. */
typedef struct launches {
    dev_list *list;
    dev_buffer *scratch;
} launches;

static void launches_release(launches *x)
{
    dev_list_release(x->list);
    dev_buffer_release(x->scratch);
}

static gt_status launches_make(launches *x, const attention_trial *t, const attention_way *w, int gradient)
{
    dev_device *d = kernel_set_device(t->how.kernels);
    const uint64_t scratch = attention_way_scratch(w, &t->how, gradient);
    const kernel_attention_in in = columns(t, QKV), to = columns(t, DQKV);
    *x = (launches){ NULL, NULL };
    gt_status st = dev_list_create(&x->list, d);
    if (!st)
        st = dev_buffer_create(&x->scratch, d, scratch < ATTENTION_LEAST ? ATTENTION_LEAST : scratch,
                               "trying attention");
    if (!st && gradient)
        st = attention_way_grad(w, x->list, &t->how, &in, t->at[OUT], t->at[LSE], t->at[DOUT], &to, x->scratch);
    else if (!st)
        st = attention_way_forward(w, x->list, &t->how, &in, t->at[OUT], t->at[LSE], x->scratch);
    return st;
}

static gt_status run_once(const attention_trial *t, const attention_way *w, int gradient)
{
    launches x;
    gt_status st = launches_make(&x, t, w, gradient);
    if (!st)
        st = dev_run(x.list, 0, -1);
    if (!st)
        st = dev_wait(kernel_set_device(t->how.kernels));
    launches_release(&x);
    return st;
}

/* The root of the mean square of the differences, as a part of that of the values. */
static double difference(const float *a, const float *b, size_t n)
{
    double off = 0.0, all = 0.0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return all > 0.0 ? sqrt(off / all) : off > 0.0 || isnan(off) ? INFINITY : 0.0;
}

static gt_status read_back(const attention_trial *t, int which, float **out)
{
    const size_t n = t->count[which];
    void *raw = malloc(bytes_of(t, which));
    *out = malloc(n * sizeof **out);
    gt_status st = raw && *out ? dev_read(kernel_set_device(t->how.kernels), t->at[which], 0, raw, bytes_of(t, which))
                               : gt_fail(GT_NO_MEMORY, "cannot check attention: no memory for %zu numbers", n);
    for (size_t i = 0; !st && i < n; i++)
        (*out)[i] = dtype_load(type_of(t, which), raw, i);
    free(raw);
    return st;
}

gt_status attention_trial_check(attention_trial *t, const attention_way *w, int gradient)
{
    const int which = gradient ? DQKV : OUT;
    const dtype storage = type_of(t, which);
    const double allowed = storage == DTYPE_F32 ? 2e-5 : storage == DTYPE_BF16 ? 1e-2 : 2e-3;
    float *got = NULL;
    gt_status st = GT_OK;
    if (gradient && !t->want[0])                /* it reads what forward has left */
        st = run_once(t, w, 0);
    if (!st)
        st = run_once(t, w, gradient);
    if (!st)
        st = read_back(t, which, &got);
    if (!st && !t->want[gradient]) {
        t->want[gradient] = got;
        return GT_OK;
    }
    if (!st) {
        const double off = difference(got, t->want[gradient], t->count[which]);
        if (!(off <= allowed))
            st = gt_fail(GT_NUMERIC,
                         "the %s differs from the first way's by %.3g of its size; at most %.3g is rounding",
                         gradient ? "gradient" : "result", off, allowed);
    }
    free(got);
    return st;
}

gt_status attention_trial_time(attention_trial *t, const attention_way *w, int gradient, int runs, double *seconds,
                               int *count)
{
    dev_device *d = kernel_set_device(t->how.kernels);
    double spent = 0.0;
    launches x;
    *count = 0;
    gt_status st = launches_make(&x, t, w, gradient);
    if (!st)
        st = dev_run(x.list, 0, -1);
    if (!st)
        st = dev_wait(d);
    while (!st && *count < runs && (*count < 1 || spent < 1.0) && !gt_stop_asked()) {
        const uint64_t start = gt_now_ns();
        st = dev_run(x.list, 0, -1);
        if (!st)
            st = dev_wait(d);
        seconds[*count] = (double)(gt_now_ns() - start) * 1e-9;
        spent += seconds[(*count)++];
    }
    launches_release(&x);
    return st;
}

/* ---- the bench --------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gt_status bench_way(attention_trial *t, const attention_way *w, int gradient, int runs, double *seconds,
                           attention_result *out)
{
    int n = 0;
    gt_status st = attention_trial_check(t, w, gradient);
    if (!st)
        st = attention_trial_time(t, w, gradient, runs, seconds, &n);
    if (st || !n)
        return st ? st : gt_stop_check();
    qsort(seconds, (size_t)n, sizeof *seconds, by_time);
    *out = (attention_result){ .engine = attention_way_name(w),
                               .gradient = gradient,
                               .min_s = seconds[0],
                               .median_s = seconds[n / 2],
                               .p99_s = seconds[n * 99 / 100],
                               .flops = kernel_attention_flops(&t->s, gradient) / seconds[n / 2] };
    return GT_OK;
}

gt_status attention_bench(gemm_context *c, kernel_set *k, const kernel_attention_shape *s, int runs,
                          void (*each)(void *context, const attention_result *r), void *context)
{
    const attention_how how = { c, k, s, NULL };
    double *seconds = malloc((size_t)(runs > 1 ? runs : 1) * sizeof *seconds);
    attention_trial *t = NULL;
    gt_status st = seconds ? attention_trial_create(&t, &how)
                           : gt_fail(GT_NO_MEMORY, "no memory for the times of attention");
    for (int gradient = 0; !st && gradient < 2; gradient++) {
        attention_way ways[ATTENTION_WAYS];
        int count;
        st = attention_ways(ways, &count, &how, gradient);
        for (int i = 0; !st && i < count; i++) {
            attention_result r = { 0 };
            st = bench_way(t, &ways[i], gradient, runs, seconds, &r);
            if (!st)
                each(context, &r);
        }
    }
    attention_trial_release(t);
    free(seconds);
    return st;
}
