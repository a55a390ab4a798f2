/* SPDX-License-Identifier: MIT */
/* host/optim/optim_apart.c - AdamW of one of several replicas that make some steps by themselves.
 *
 *   begin    start = p, u = 0
 *   step     m and p as AdamW has them, of the replica's own gradients, v held      u = u + (lr / bias1) m
 *   give     grad = factor u                     ═══ put together by others ═══►     grad: what m is on all of them
 *   take     m = grad;  p = keep start - rate m / (sqrt(v) + eps)
 *
 * where rate is the sum of the steps' lr / bias1. u lies as the moments do. Source: Lu et al., "Maximizing communication
 * efficiency for large-scale training via 0/1 Adam", ICLR 2023, algorithm 1; decay of weights is not in it.  */
#include "host/optim/optim_private.h"

#include <stdlib.h>

typedef struct apart_unit {
    dev_buffer *start, *gathered;
    kernel_slot lr, factor, rate, keep;
} apart_unit;

struct optim_apart {
    optim *o;
    apart_unit *unit;                   /* [o->units]                                       */
    dev_list *begin, *gather, *give, *take;
};

static gt_status append(optim_apart *a, int i)
{
    const optim *o = a->o;
    const optim_unit *u = &o->unit[i];
    apart_unit *k = &a->unit[i];
    const uint64_t bytes = 4 * (uint64_t)u->count;
    gt_status st = dev_buffer_create(&k->start, o->device, bytes, "where replicas set out");
    if (!st)
        st = dev_buffer_create_zero(&k->gathered, o->device, bytes, "moments of steps apart");
    if (!st)
        st = dev_list_copy(a->begin, k->start, 0, u->master, 0, bytes);
    if (!st)
        st = dev_list_fill(a->begin, k->gathered, 0, 0, bytes);
    if (!st)
        st = kernel_adamw_gather(a->gather, o->kernels, u->count, u->slot[0], k->gathered, o->state, &k->lr);
    if (!st)
        st = kernel_adamw_give(a->give, o->kernels, u->count, k->gathered, u->grad, &k->factor);
    return st ? st
              : kernel_adamw_take(a->take, o->kernels, u->count, u->master, k->start, u->grad, u->slot[0], u->slot[1],
                                  u->copy, o->state, (float)o->config.eps, &k->rate, &k->keep);
}

gt_status optim_apart_create(optim_apart **out, optim *o)
{
    *out = NULL;
    if (o->config.rule != &optim_adamw)
        return gt_fail(GT_UNSUPPORTED, "moments of steps apart are those of --optimizer adamw alone");
    optim_apart *a = calloc(1, sizeof *a);
    apart_unit *unit = calloc((size_t)o->units + 1, sizeof *unit);
    if (!a || !unit) {
        free(a);
        free(unit);
        return gt_fail(GT_NO_MEMORY, "no memory for moments of steps apart");
    }
    a->o = o;
    a->unit = unit;
    dev_list **const lists[] = { &a->begin, &a->gather, &a->give, &a->take };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < sizeof lists / sizeof *lists; i++) {
        st = dev_list_create(lists[i], o->device);
        if (!st)
            dev_list_label(*lists[i], "optimizer");
    }
    for (int i = 0; !st && i < o->units; i++)
        st = append(a, i);
    if (st)
        optim_apart_release(a);
    else
        *out = a;
    return st;
}

void optim_apart_release(optim_apart *a)
{
    if (!a)
        return;
    dev_list_release(a->begin);
    dev_list_release(a->gather);
    dev_list_release(a->give);
    dev_list_release(a->take);
    for (int i = 0; i < a->o->units; i++) {
        dev_buffer_release(a->unit[i].start);
        dev_buffer_release(a->unit[i].gathered);
    }
    free(a->unit);
    free(a);
}

static gt_status set(dev_list *l, kernel_slot at, double x)
{
    return dev_list_set(l, at.launch, at.arg, dev_arg_f32((float)x));
}

gt_status optim_apart_begin(optim_apart *a)
{
    return dev_run(a->begin, 0, -1);
}

gt_status optim_apart_gather(optim_apart *a, double lr)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->o->units; i++)
        st = set(a->gather, a->unit[i].lr, lr);
    return st ? st : dev_run(a->gather, 0, -1);
}

gt_status optim_apart_give(optim_apart *a, const double *factor)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->o->units; i++)
        st = set(a->give, a->unit[i].factor, factor[a->o->unit[i].segment]);
    return st ? st : dev_run(a->give, 0, -1);
}

gt_status optim_apart_take(optim_apart *a, double rate, double keep)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->o->units; i++) {
        st = set(a->take, a->unit[i].rate, rate);
        if (!st)
            st = set(a->take, a->unit[i].keep, a->o->unit[i].decay > 0.0f ? keep : 1.0);
    }
    return st ? st : dev_run(a->take, 0, -1);
}
