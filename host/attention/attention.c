/* SPDX-License-Identifier: MIT */
/* host/attention/attention.c - the ways, the choice between them, and their launches. */
#include "host/attention/attention_matrix.h"
#include "host/attention/attention_packed.h"
#include "host/attention/attention_private.h"
#include "host/attention/attention_tiles.h"

#include "host/base/activity.h"
#include "host/base/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- ways -------------------------------------------------------------------------------------- */

/* Engines with tiles, in order of preference. */
static const char *const engines[] = { "packed", "onednn", "native" };
enum { ENGINES = sizeof engines / sizeof *engines };
/* The engine whose unit attention_matrix.h uses. */
static const char matrix[] = "matrix";

/* In the storage type if the engine multiplies that, else widened. */
static gt_status tiles_of(gemm_tiles **out, const attention_how *how, const char *engine)
{
    const dtype storage = kernel_set_storage(how->kernels);
    gt_status st = gemm_tiles_of(out, how->gemm, engine, storage);
    if (!st && !*out && storage != DTYPE_F32)
        st = gemm_tiles_of(out, how->gemm, engine, DTYPE_F32);
    return st;
}

/* A thread owns a head of queries, or of keys for the gradient: are there enough of them to share out evenly? */
static int has_heads(const attention_how *how, int gradient)
{
    const int units = dev_info_of(kernel_set_device(how->kernels))->compute_units;
    const int threads = units > 0 ? units : 1, heads = how->s->B * (gradient ? how->s->KV : how->s->H);
    const int turns = (heads + threads - 1) / threads;
    return 10 * heads >= 7 * turns * threads;
}

static int may_tile(const attention_how *how, int gradient)
{
    const dev_info *info = dev_info_of(kernel_set_device(how->kernels));
    return info->kind == DEV_CPU && info->native_kernels && how->s->T >= ATTENTION_SHORTEST
           && !(how->drop && how->drop->p > 0.0f) && has_heads(how, gradient);
}

gt_status attention_ways(attention_way out[ATTENTION_WAYS], int *count, const attention_how *how, int gradient)
{
    const char *forced = gemm_forced_name(how->gemm);
    gt_status st = GT_OK;
    out[0] = (attention_way){ 0 };
    *count = 1;
    if ((!forced || !strcmp(forced, matrix)) && attention_matrix_can(how))
        out[forced ? 0 : (*count)++] = (attention_way){ .matrix = 1 };
    for (int i = 0; !st && may_tile(how, gradient) && i < ENGINES; i++) {
        gemm_tiles *tiles = NULL;
        if (!forced || !strcmp(forced, engines[i]))
            st = tiles_of(&tiles, how, engines[i]);
        if (tiles && (attention_packed_is(tiles) || how->s->T >= ATTENTION_LEAST))
            out[forced ? 0 : (*count)++] = (attention_way){ .tiles = tiles };
    }
    return st;
}

const char *attention_way_name(const attention_way *w)
{
    return w->matrix ? matrix : w->tiles ? gemm_tiles_engine(w->tiles) : "kernel";
}

/* ---- launches ---------------------------------------------------------------------------------- */

uint64_t attention_way_scratch(const attention_way *w, const attention_how *how, int gradient)
{
    if (w->tiles && attention_packed_is(w->tiles))
        return attention_packed_scratch(w->tiles, how->s, gradient);
    if (w->tiles)
        return attention_tiles_scratch(w->tiles, how->s, kernel_set_storage(how->kernels), gradient);
    return gradient ? kernel_attention_scratch(how->kernels, how->s) : 0;
}

static attention_task task_of(const attention_way *w, const attention_how *how, const kernel_attention_in *in,
                              const kernel_attention_in *d)
{
    const kernel_attention_shape *s = how->s;
    attention_task t = {
        .tiles = w->tiles,
        .B = s->B,
        .T = s->T,
        .H = s->H,
        .KV = s->KV,
        .D = s->D,
        .causal = s->causal,
        .window = s->window,
        .mask = s->lengths  ? ATTENTION_LENGTHS
                : s->starts ? ATTENTION_STARTS
                            : ATTENTION_ALL,
        .scale = s->scale,
        .storage = kernel_set_storage(how->kernels),
    };
    const kernel_heads *const from[] = { &in->q, &in->k, &in->v }, *const to[] = { &d->q, &d->k, &d->v };
    for (int i = 0; i < 3; i++) {
        t.in[i] = (attention_place){ from[i]->first, from[i]->stride };
        t.d[i] = (attention_place){ to[i]->first, to[i]->stride };
    }
    return t;
}

static dev_buffer *mask_of(const kernel_attention_shape *s, dev_buffer *none)
{
    return s->lengths ? s->lengths : s->starts ? s->starts : none;
}

gt_status attention_way_forward(const attention_way *w, dev_list *l, const attention_how *how,
                                const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *scratch)
{
    if (w->matrix)
        return attention_matrix_forward(l, how, in, out, lse);
    if (!w->tiles)
        return kernel_attention(l, how->kernels, how->s, how->drop, in, out, lse);
    const attention_task t = task_of(w, how, in, in);
    dev_buffer *const buffers[] = { in->q.buffer, in->k.buffer, in->v.buffer, out, lse, mask_of(how->s, lse), scratch };
    gt_status st = kernel_attention_check(how->kernels, how->s, in);
    if (st)
        return st;
    if (attention_packed_is(w->tiles))
        return dev_list_native(l, "attention_packed", attention_packed_forward, &t, sizeof t, buffers, 7);
    return dev_list_native(l, "attention_tiles", attention_tiles_forward, &t, sizeof t, buffers, 7);
}

gt_status attention_way_grad(const attention_way *w, dev_list *l, const attention_how *how,
                             const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *dout,
                             const kernel_attention_in *d, dev_buffer *scratch)
{
    if (w->matrix)
        return attention_matrix_grad(l, how, in, out, lse, dout, d, scratch);
    if (!w->tiles)
        return kernel_attention_grad(l, how->kernels, how->s, how->drop, in, out, lse, dout, d, scratch);
    const attention_task t = task_of(w, how, in, d);
    dev_buffer *const buffers[] = { in->q.buffer, in->k.buffer,         in->v.buffer, out,
                                    lse,          mask_of(how->s, lse), scratch,      dout,
                                    d->q.buffer,  d->k.buffer,          d->v.buffer };
    gt_status st = kernel_attention_check(how->kernels, how->s, in);
    if (!st)
        st = kernel_attention_check(how->kernels, how->s, d);
    if (st)
        return st;
    if (attention_packed_is(w->tiles))
        return dev_list_native(l, "attention_packed_grad", attention_packed_grad, &t, sizeof t, buffers, 11);
    return dev_list_native(l, "attention_tiles_grad", attention_tiles_grad, &t, sizeof t, buffers, 11);
}

/* ---- the choice -------------------------------------------------------------------------------- */

/* What is measured in place of a shape: one head a thread of a CPU, one for four units of a GPU, which share it out
 * by rows; and no more than MOST tokens. */
static kernel_attention_shape stand_in(const attention_how *how)
{
    enum { MOST = 1024 };
    const kernel_attention_shape *s = how->s;
    const dev_info *info = dev_info_of(kernel_set_device(how->kernels));
    const int units = info->compute_units > 0 ? info->compute_units : 1, G = s->H / s->KV < 2 ? 1 : 2;
    const int heads = info->kind == DEV_GPU ? (units + 3) / 4 : units;
    return (kernel_attention_shape){
        .B = 1,
        .T = s->T < MOST ? s->T : MOST,
        .H = heads * G,
        .KV = heads,
        .D = s->D,
        .causal = s->causal,
        .scale = 1.0f / sqrtf((float)s->D)
    };
}

static gemm_other kind_of(const attention_how *how, const kernel_attention_shape *s, int gradient)
{
    return (gemm_other){ .what = gradient ? 'g' : 'f',
                         .kind = s->causal ? 'c' : '-',
                         .type = kernel_set_storage(how->kernels),
                         .size = { s->T, s->H / s->KV, s->D, s->KV } };
}

/* A way that is wrong is left out; a compiler may refuse the matrix unit in this kernel though it takes it in others. */
static int is_left_out(const attention_way *w, gt_status st)
{
    return st == GT_NUMERIC || (st == GT_DEVICE && w->matrix);
}

/* Ways take turns, and the best run of each counts; the kernel is left for one that is 5 % faster. */
static gt_status measure(const attention_how *how, const attention_way *ways, int count, int gradient, int *winner,
                         double *seconds)
{
    enum { ROUNDS = 2, RUNS = 3 };
    attention_trial *t = NULL;
    double best[ATTENTION_WAYS], runs[RUNS];
    gt_status st = attention_trial_create(&t, how);
    for (int i = 0; i < count; i++)
        best[i] = INFINITY;
    for (int round = 0; !st && round < ROUNDS; round++)
        for (int i = 0; !st && i < count; i++) {
            int n = 0;
            if (round && isinf(best[i]))
                continue;
            st = gt_stop_check();
            if (!st && !round)
                st = attention_trial_check(t, &ways[i], gradient);
            if (!st)
                st = attention_trial_time(t, &ways[i], gradient, RUNS, runs, &n);
            if (i && is_left_out(&ways[i], st)) {
                gt_log(GT_LOG_WARN, "attention", "'%s' attends without engine '%s', which %s: %.*s",
                       dev_info_of(kernel_set_device(how->kernels))->id, attention_way_name(&ways[i]),
                       st == GT_NUMERIC ? "computes wrongly" : "cannot be built", (int)strcspn(gt_message(), "\n"),
                       gt_message());
                gt_message_clear();
                st = GT_OK;
            }
            for (int r = 0; r < n; r++)
                best[i] = fmin(best[i], runs[r]);
        }
    attention_trial_release(t);
    *winner = 0;
    for (int i = 0; i < count; i++) {
        if (best[i] < 0.95 * best[*winner])
            *winner = i;
        gt_log(GT_LOG_DEBUG, "attention", "%s of %d tokens, %d heads of %d: %s takes %.3f ms",
               gradient ? "gradient" : "forward", how->s->T, how->s->H, how->s->D, attention_way_name(&ways[i]),
               best[i] * 1e3);
    }
    *seconds = best[*winner];
    return st;
}

static gt_status measured(const attention_how *how, const attention_way *ways, int count, int gradient, int *winner)
{
    const kernel_attention_shape s = stand_in(how);
    const attention_how trial = { how->gemm, how->kernels, &s, NULL };
    const gemm_other kind = kind_of(how, &s, gradient);
    const char *known = gemm_other_known(how->gemm, &kind);
    *winner = 0;
    if (known) {
        for (int i = 1; i < count; i++)
            if (!strcmp(attention_way_name(&ways[i]), known))
                *winner = i;
        return GT_OK;
    }
    dev_device *d = kernel_set_device(how->kernels);
    double seconds = 0.0;
    gt_activity a;
    gt_activity_begin(&a, "measuring attention", NULL, 0);
    dev_full_speed(d, 1);
    gt_status st = measure(&trial, ways, count, gradient, winner, &seconds);
    dev_full_speed(d, 0);
    gt_activity_end(&a);
    if (st)
        return st;
    return gemm_other_keep(how->gemm, &kind, *winner ? attention_way_name(&ways[*winner]) : "tiled", seconds);
}

/* A head of less takes no longer than its launch, and measuring would show only noise: the loops, which begin the
 * fastest, where they are, and else the kernel. */
static int is_small(const kernel_attention_shape *s)
{
    return (double)s->T * s->T * s->D < 1e6;
}

static gt_status choose(attention_way *out, const attention_how *how, int gradient)
{
    attention_way ways[ATTENTION_WAYS];
    int count, winner = 0;
    gt_status st = attention_ways(ways, &count, how, gradient);
    if (is_small(how->s))
        for (int i = 1; i < count; i++)
            winner = ways[i].tiles && attention_packed_is(ways[i].tiles) ? i : winner;
    else if (!st && count > 1)
        st = measured(how, ways, count, gradient, &winner);
    *out = ways[winner];
    return st;
}

gt_status attention_scratch(const attention_how *how, int gradient, uint64_t *bytes)
{
    attention_way w;
    gt_status st = choose(&w, how, gradient);
    if (!st)
        *bytes = attention_way_scratch(&w, how, gradient);
    return st;
}

gt_status attention_engine(const attention_how *how, int gradient, const char **name)
{
    attention_way w;
    gt_status st = choose(&w, how, gradient);
    if (!st)
        *name = attention_way_name(&w);
    return st;
}

gt_status attention_forward(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                            dev_buffer *lse, dev_buffer *scratch)
{
    attention_way w;
    gt_status st = choose(&w, how, 0);
    return st ? st : attention_way_forward(&w, l, how, in, out, lse, scratch);
}

gt_status attention_grad(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                         dev_buffer *lse, dev_buffer *dout, const kernel_attention_in *d, dev_buffer *scratch)
{
    attention_way w;
    gt_status st = choose(&w, how, 1);
    return st ? st : attention_way_grad(&w, l, how, in, out, lse, dout, d, scratch);
}
