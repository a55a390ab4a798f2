/* SPDX-License-Identifier: MIT */
/* cl/optim.cl - norm of gradients, the optimizer's scalars, AdamW, SGD and Lion.
 *
 * AdamW (Loshchilov and Hutter 2019), in the order PyTorch computes it:
 *   g = grad * CLIP;  p = p - lr decay p;  m = m + (1 - beta1)(g - m)
 *   v = beta2 v + (1 - beta2) g g;  p = p - (lr / BIAS1) m / (sqrt(v) / sqrt(BIAS2) + eps)
 *   or, where ranks put together the new m and not g (host/compress/onebit.c): m = grad * CLIP, and v stays; a
 *   value whose v is 0, of which nobody has found one, stays where it is
 *   or, where replicas make steps apart (host/optim/optim_apart.c), u: fp32, n elements, start: where p was:
 *   gather: u = u + (lr / BIAS1) m     give: g = factor u     take: p = keep start - rate (sqrt(v) ... as above) of m = g
 * SGD:
 *   g = grad * CLIP + decay p;  m = momentum m + g;  p = p - lr m
 * Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023):
 *   g = grad * CLIP;  p = p - lr (sign(beta1 m + (1 - beta1) g) + decay p);  m = beta2 m + (1 - beta2) g
 *
 * p, g, m, v: fp32, n elements. copy: storage type or null, receives the new p.
 * partial: fp32, one sum of squares for each SQUARES elements of g.
 * state: fp32, the scalars named below; it never visits the host within a step, so every
 * update reads there whether it is to be left out (SKIP, HALTED). held: v stays in this step; BIAS2 is of the
 * VARIANCES steps in which it did not.
 *
 * Flat kernels own `block` elements a work-item. norm_partial: a work-item (CPU) or group
 * (GPU) owns a block of SQUARES. prepare: one work-item or group does it all.
 * The numbers of the scalars are those of host/kernel/kernel.h, SQUARES that of
 * host/kernel/kernel_optim.c. Nothing but the macros of cl/common.clh is set by the host.  */
#include "common.clh"
#include "random.clh"

#define SQUARES 16384

#define STEP 0
#define GRAD_SCALE 1
#define LOSS_SCALE 2
#define GOOD_STEPS 3
#define GRAD_NORM 4
#define CLIP 5
#define SKIP 6
#define SKIPPED 7
#define BIAS1 8
#define BIAS2 9
#define HALTED 10
#define LOSS_SUM 11
#define VARIANCES 12

#define MOMENTS 1               /* form: g is the new m, and v stays; 0: neither; else: v stays */

#define LEAST_SCALE 0x1p-16f    /* a loss scale this small means the overflow is the model's */

#ifdef STYLE_CPU

KERNEL void norm_partial(ulong n, __global const float *g, __global float *partial)
{
    const ulong begin = get_global_id(0) * (ulong)SQUARES, end = min(n, begin + SQUARES);
    floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    ulong i = begin;
    for (; i + 4 * VW <= end; i += 4 * VW)
        for (int j = 0; j < 4; j++) {
            const floatV x = loadV_f32(g, i + j * VW);
            sum[j] += x * x;
        }
    for (; i < end; i += VW) {
        const floatV x = load_some_f32(g, i, (int)min((ulong)VW, end - i));
        sum[0] += x * x;
    }
    partial[get_global_id(0)] = sumV((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

#else

KERNEL void norm_partial(ulong n, __global const float *g, __global float *partial)
{
    __local float tmp[WG];
    const ulong begin = get_group_id(0) * (ulong)SQUARES, end = min(n, begin + SQUARES);
    float sum = 0.0f;
    for (ulong i = begin + 4 * get_local_id(0); i < end; i += TILE) {
        const float4 x = load_some_f32(g, i, (int)min((ulong)4, end - i));
        sum += sumV(x * x);
    }
    sum = group_sum(sum, tmp);
    if (get_local_id(0) == 0)
        partial[get_group_id(0)] = sum;
}

#endif

/* 1 - beta^step = -expm1(step * ln beta): the difference itself would keep few digits while
 * beta^step is near 1. */
static float bias_correction(float log_beta, float step)
{
    return -expm1(step * log_beta);
}

/* `squares` is the sum of squares of the scaled gradients, which `weigh` makes those of the weighted mean:
 * tokens / weights, or 0 where no target counts and nothing is to move. */
static void prepare(float squares, __global float *state, float weigh, int held, float clip,
                    float log_beta1, float log_beta2, int dynamic, int growth)
{
    const float scale = state[LOSS_SCALE], norm = sqrt(squares) / scale * weigh;
    const int finite = isfinite(squares) && isfinite(state[LOSS_SUM]);
    float next = scale;

    state[GRAD_NORM] = norm;
    state[SKIP] = finite && weigh > 0.0f ? 0.0f : 1.0f;
    if (finite && weigh > 0.0f) {
        const float step = state[STEP] + 1.0f;
        state[STEP] = step;
        state[CLIP] = (clip > 0.0f ? fmin(1.0f, clip / (norm + 1e-6f)) : 1.0f) / scale * weigh;
        state[BIAS1] = bias_correction(log_beta1, step);
        state[VARIANCES] += held ? 0.0f : 1.0f;
        state[BIAS2] = bias_correction(log_beta2, state[VARIANCES]);
        state[GOOD_STEPS] += 1.0f;
        if (dynamic && state[GOOD_STEPS] >= growth)
            next = scale * 2.0f;
    } else if (!finite) {
        state[SKIPPED] += 1.0f;
        if (dynamic && scale > LEAST_SCALE)
            next = scale * 0.5f;
        else
            state[HALTED] = 1.0f;
    }
    if (!finite || next != scale)
        state[GOOD_STEPS] = 0.0f;
    state[LOSS_SCALE] = next;
    state[GRAD_SCALE] *= next / scale;          /* a power of two: exact */
}

#ifdef STYLE_CPU

KERNEL void optim_prepare(ulong count, __global const float *partial, __global float *state,
                          float weigh, int held, float clip, float log_beta1, float log_beta2, int dynamic,
                          int growth)
{
    floatV sum = 0.0f;
    for (ulong i = 0; i < count; i += VW)
        sum += load_some_f32(partial, i, (int)min((ulong)VW, count - i));
    prepare(sumV(sum), state, weigh, held, clip, log_beta1, log_beta2, dynamic, growth);
}

#else

KERNEL void optim_prepare(ulong count, __global const float *partial, __global float *state,
                          float weigh, int held, float clip, float log_beta1, float log_beta2, int dynamic,
                          int growth)
{
    __local float tmp[WG];
    float sum = 0.0f;
    for (ulong i = get_local_id(0); i < count; i += WG)
        sum += partial[i];
    sum = group_sum(sum, tmp);
    if (get_local_id(0) == 0)
        prepare(sum, state, weigh, held, clip, log_beta1, log_beta2, dynamic, growth);
}

#endif

/* rest1 and rest2 are 1 - beta1 and 1 - beta2, rounded once by the host: taken from the
 * float beta2 = 0.999 the difference would be off by one part in 80000. */
KERNEL void adamw(ulong n, uint block, __global float *p, __global const float *g,
                  __global float *m, __global float *v, __global store_t *copy,
                  __global const float *state, float lr, int form, float beta2, float rest1, float rest2,
                  float eps, float decay)
{
    if (state[SKIP] != 0.0f || state[HALTED] != 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float clip = state[CLIP], keep = 1.0f - lr * decay;
    const float step = lr / state[BIAS1], root2 = sqrt(state[BIAS2]);

    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV grad = load_some_f32(g, i, count) * clip;
        floatV first = load_some_f32(m, i, count), second = load_some_f32(v, i, count);
        floatV weight = load_some_f32(p, i, count) * keep;
        if (form == MOMENTS)
            first = grad;
        else
            first += rest1 * (grad - first);
        if (form == 0) {
            second = second * beta2 + rest2 * (grad * grad);
            store_some_f32(v, i, second, count);
        }
        floatV move = first / (sqrt(second) / root2 + eps);
        if (form != 0)
            move = select(move, (floatV)0.0f, second == 0.0f);
        weight -= step * move;
        store_some_f32(m, i, first, count);
        store_some_f32(p, i, weight, count);
        if (copy)
            store_some(copy, i, weight, count);
    }
}

KERNEL void adamw_gather(ulong n, uint block, __global const float *m, __global float *u,
                         __global const float *state, float lr)
{
    if (state[SKIP] != 0.0f || state[HALTED] != 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float step = lr / state[BIAS1];
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(u, i, load_some_f32(u, i, count) + step * load_some_f32(m, i, count), count);
    }
}

KERNEL void adamw_give(ulong n, uint block, __global const float *u, __global float *g, float factor)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(g, i, factor * load_some_f32(u, i, count), count);
    }
}

KERNEL void adamw_take(ulong n, uint block, __global float *p, __global const float *start,
                       __global const float *g, __global float *m, __global const float *v,
                       __global store_t *copy, __global const float *state, float rate, float keep, float eps)
{
    if (state[HALTED] != 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float root2 = sqrt(state[BIAS2]);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV first = load_some_f32(g, i, count), second = load_some_f32(v, i, count);
        const floatV move = select(first / (sqrt(second) / root2 + eps), (floatV)0.0f, second == 0.0f);
        const floatV weight = load_some_f32(start, i, count) * keep - rate * move;
        store_some_f32(m, i, first, count);
        store_some_f32(p, i, weight, count);
        if (copy)
            store_some(copy, i, weight, count);
    }
}

KERNEL void sgd(ulong n, uint block, __global float *p, __global const float *g,
                __global float *m, __global store_t *copy, __global const float *state, float lr,
                float momentum, float decay)
{
    if (state[SKIP] != 0.0f || state[HALTED] != 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float clip = state[CLIP];

    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        floatV weight = load_some_f32(p, i, count);
        floatV move = load_some_f32(g, i, count) * clip + decay * weight;
        if (m) {
            move += momentum * load_some_f32(m, i, count);
            store_some_f32(m, i, move, count);
        }
        weight -= lr * move;
        store_some_f32(p, i, weight, count);
        if (copy)
            store_some(copy, i, weight, count);
    }
}

/* rest1 and rest2 as in adamw. sign(0) is 0. */
KERNEL void lion(ulong n, uint block, __global float *p, __global const float *g, __global float *m,
                 __global store_t *copy, __global const float *state, float lr, float rest1,
                 float rest2, float decay)
{
    if (state[SKIP] != 0.0f || state[HALTED] != 0.0f)
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float clip = state[CLIP], keep = 1.0f - lr * decay;

    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV grad = load_some_f32(g, i, count) * clip;
        floatV moment = load_some_f32(m, i, count);
        const floatV weight = load_some_f32(p, i, count) * keep
                              - lr * sign(moment + rest1 * (grad - moment));
        moment += rest2 * (grad - moment);
        store_some_f32(m, i, moment, count);
        store_some_f32(p, i, weight, count);
        if (copy)
            store_some(copy, i, weight, count);
    }
}
