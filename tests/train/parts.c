/* SPDX-License-Identifier: MIT */
/* tests/train/parts.c - see parts.h. */
#include "tests/train/parts.h"

#include "host/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 3, MOST = 31 * 10 };        /* elements of the largest tensor */

int parts_ranks(const parts_plan *p)
{
    return p->replicas * p->stages * p->tensor;
}

/* Rank k's entries of `full`: 1, 2, 3 ... parts of 1 + 2 + ... + tensor. */
static tensor_slice share(int dim, int stacks, int64_t full, int k, int tensor)
{
    const int64_t all = tensor * (tensor + 1) / 2;
    const int64_t begin = full * (k * (k + 1) / 2) / all;
    const int64_t end = full * ((k + 1) * (k + 2) / 2) / all;
    return tensor == 1 ? (tensor_slice){ 0 } : (tensor_slice){ dim, stacks, full, begin, end - begin };
}

static void declare(parts *p, const char *name, shape full, tensor_slice slice, int mine)
{
    p->mine[graph_param_count(p->graph)] = (unsigned char)mine;
    graph_param_sliced(p->graph, name, full, &slice, GRAPH_INIT_ZERO, 0.0f);
}

static void declare_layer(parts *p, int layer, int k, int tensor, int first)
{
    char name[32];
    snprintf(name, sizeof name, "h.%d.qkv", layer);
    declare(p, name, shape_of(2, (int64_t)24, (int64_t)10), share(0, 3, 8, k, tensor), first);
    snprintf(name, sizeof name, "h.%d.proj", layer);
    declare(p, name, shape_of(2, (int64_t)10, (int64_t)12), share(1, 1, 12, k, tensor), first);
    snprintf(name, sizeof name, "h.%d.norm", layer);
    declare(p, name, shape_of(1, (int64_t)10), (tensor_slice){ 0 }, first && k == 0);
}

/* Replica r's part of every segment: the same number of steps, but for the last. */
static gt_status make_optimizer(parts *p, const parts_plan *plan, int replica)
{
    const optim_config c = optim_defaults();
    const int64_t step = params_step(p->params);
    optim_part part[PARTS_MAX];
    for (int i = 0; i < params_segments(p->params) && i < PARTS_MAX; i++) {
        const int64_t steps = params_segment_at(p->params, i)->count / step;
        const int64_t from = steps * replica / plan->replicas;
        part[i] = (optim_part){ i, from * step, (steps * (replica + 1) / plan->replicas - from) * step, 1 };
    }
    for (int i = 0; i < PARTS_MAX; i++)
        p->mine_moments[i] = plan->sharded || p->mine[i];
    return optim_create(&p->optim, p->device, p->kernels, NULL, p->params, &c, 1.0,
                        plan->sharded ? &(optim_ranks){ .parts = part, .part_count = params_segments(p->params) }
                                      : NULL);
}

gt_status parts_open(parts *p, const parts_plan *plan, int rank)
{
    const int k = rank % plan->tensor, stage = rank / plan->tensor % plan->stages;
    const int replica = rank / (plan->stages * plan->tensor), first = replica == 0;
    memset(p, 0, sizeof *p);
    gt_status st = dev_open(&p->device, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = graph_create(&p->graph, DTYPE_F32, 1, 1);
    if (st)
        return st;
    if (stage == 0 || stage == plan->stages - 1)
        declare(p, "wte", shape_of(2, (int64_t)31, (int64_t)10), share(0, 1, 31, k, plan->tensor), first && stage == 0);
    for (int layer = 0; layer < LAYERS; layer++)
        if (layer * plan->stages / LAYERS == stage)
            declare_layer(p, layer, k, plan->tensor, first);
    if (stage == plan->stages - 1)
        declare(p, "ln_f", shape_of(1, (int64_t)10), (tensor_slice){ 0 }, first && k == 0);
    st = graph_failed(p->graph);
    if (!st)
        st = params_create(&p->params, p->device, p->graph, 1);
    if (!st)
        st = kernel_set_create(&p->kernels, p->device, DTYPE_F32);
    return st ? st : make_optimizer(p, plan, replica);
}

void parts_close(parts *p)
{
    optim_release(p->optim);
    params_release(p->params);
    kernel_set_release(p->kernels);
    graph_release(p->graph);
    dev_close(p->device);
    memset(p, 0, sizeof *p);
}

/* Where element i of what is held lies in the whole: row by row, column by column. */
static int64_t full_index(const graph_param_info *info, int64_t i)
{
    const tensor_slice *s = &info->slice;
    const int64_t columns = info->shape.rank == 2 ? info->shape.dim[1] : 1;
    int64_t row = i / columns, column = i % columns;
    int64_t *cut = s->dim == 0 ? &row : &column;
    if (s->parts)
        *cut = *cut / s->count * s->full + s->begin + *cut % s->count;
    return row * (info->full.rank == 2 ? info->full.dim[1] : 1) + column;
}

/* which: 0 the parameter, 1 and 2 its moments. */
static void expect(const graph_param_info *info, int which, unsigned seed, float *out)
{
    const uint64_t name = gt_hash(info->name, strlen(info->name)) + 977u * (unsigned)which + 31 * seed;
    for (int64_t i = 0; i < shape_count(&info->shape); i++) {
        const uint64_t x = ((uint64_t)full_index(info, i) + name) * 0x9e3779b97f4a7c15u;
        out[i] = (float)(x >> 44) / 1024.0f;
    }
}

/* [*begin, *end) of what is held: all of a parameter, of a moment what this rank keeps. */
static void range_of(const parts *p, int i, int which, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = shape_count(&params_info(p->params, i)->shape);
    if (which)
        optim_slot_range(p->optim, i, which - 1, begin, end);
}

static void expect_scalars(unsigned seed, float *out)
{
    for (int i = 0; i < OPTIM_STATE_FLOATS; i++)
        out[i] = (float)(seed + 1) * (float)(i + 1);
}

gt_status parts_fill(parts *p, unsigned seed)
{
    float x[MOST];
    int64_t begin, end;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p->params); i++)
        for (int which = 0; !st && which < 3; which++) {
            expect(params_info(p->params, i), which, seed, x);
            range_of(p, i, which, &begin, &end);
            if (begin < end)
                st = which ? optim_slot_write(p->optim, i, which - 1, x + begin) : params_write(p->params, i, x);
        }
    expect_scalars(seed, x);
    return st ? st : optim_state_write(p->optim, x);
}

static gt_status check_scalars(parts *p, unsigned seed)
{
    float x[OPTIM_STATE_FLOATS], y[OPTIM_STATE_FLOATS];
    dev_event *event = NULL;
    expect_scalars(seed, x);
    x[OPTIM_GRAD_SCALE] = x[OPTIM_LOSS_SCALE];  /* over the one token of this optimizer's steps */
    gt_status st = optim_state_read(p->optim, y, &event);
    if (!st)
        st = dev_event_wait(event);
    if (!st && memcmp(x, y, sizeof x))
        st = gt_fail(GT_MISMATCH, "the scalars are not what was saved");
    return st;
}

gt_status parts_check(parts *p, unsigned seed)
{
    float x[MOST], y[MOST];
    int64_t begin, end;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p->params); i++)
        for (int which = 0; !st && which < 3; which++) {
            const graph_param_info *info = params_info(p->params, i);
            expect(info, which, seed, x);
            range_of(p, i, which, &begin, &end);
            if (begin < end)
                st = which ? optim_slot_read(p->optim, i, which - 1, y) : params_read(p->params, i, y);
            if (!st && begin < end && memcmp(x + begin, y, 4 * (size_t)(end - begin)))
                st = gt_fail(GT_MISMATCH, "tensor '%s', %d: not what was saved", info->name, which);
        }
    return st ? st : check_scalars(p, seed);
}
