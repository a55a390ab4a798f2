/* SPDX-License-Identifier: MIT */
/* host/exchange/tensor_exchange.c - see tensor_exchange.h.
 *
 * One arena is enough: the queue is in order, so what is read for one exchange comes behind what was
 * written for the one before.
 *
 * Always the direct algorithm: groups are small, every rank's part goes straight to where it is
 * needed in one step, and a sum does not depend on which links were measured to be fast.    */
#include "host/exchange/tensor_exchange.h"

#include "host/base/clock.h"

#include <assert.h>
#include <stdlib.h>

/* One exchange, as the device saw it. */
typedef struct pause {
    uint64_t began, over;               /* from having read own rows to having the others'   */
    uint64_t done; /* when the device had done what was queued before, from the completion thread */
    uint64_t ticket; /* of that; 0: it was done before `began`             */
    int open; /* not counted so far                                 */
} pause;

/* The completion thread is never so many exchanges behind that one has to be waited for. */
enum { PAUSES = 64 };

struct tensor_exchange {
    net_group *group;
    dev_device *device;
    dev_completion *completion;
    pause pauses[PAUSES];
    unsigned char *arena;
    uint64_t room; /* bytes of it                        */
    uint64_t *counts; /* [ranks] elements                   */
    dev_event *reading; /* into the arena, of the exchange under way */
    dev_event *writing; /* from the arena, of the last exchange      */
    tensor_exchange_spent spent;
};

gt_status tensor_exchange_create(tensor_exchange **out, net_group *g, dev_device *d, dev_completion *c)
{
    *out = NULL;
    tensor_exchange *x = calloc(1, sizeof *x);
    uint64_t *counts = calloc((size_t)net_group_size(g), sizeof *counts);
    if (!x || !counts) {
        free(x);
        free(counts);
        return gt_fail(GT_NO_MEMORY, "cannot exchange rows: no memory for the counts of %d ranks", net_group_size(g));
    }
    x->group = g;
    x->device = d;
    x->completion = c;
    x->counts = counts;
    *out = x;
    return GT_OK;
}

static gt_status settle(dev_event **e)
{
    dev_event *event = *e;
    *e = NULL;
    return dev_event_wait(event);
}

static gt_status note_done(void *context, uint64_t now)
{
    ((pause *)context)->done = now;
    return GT_OK;
}

static gt_status count_pause(tensor_exchange *x, pause *p)
{
    if (!p->open)
        return GT_OK;
    p->open = 0;
    const gt_status st = p->ticket ? dev_completion_wait(x->completion, p->ticket) : GT_OK;
    const uint64_t from = p->done > p->began ? p->done : p->began;
    x->spent.idle += !st && p->over > from ? p->over - from : 0;
    return st;
}

/* A place for the exchange that is finished now; launches that were queued beside it may take longer than it does. */
static gt_status open_pause(tensor_exchange *x, const exec_exchange *e, pause **out)
{
    dev_event *done;
    pause *p = &x->pauses[x->spent.exchanges % PAUSES];
    gt_status st = count_pause(x, p);
    *p = (pause){ .open = x->completion != NULL };
    *out = p;
    if (st || e->alone || !x->completion)
        return st;
    st = dev_mark(x->device, &done);
    return st ? st : dev_completion_put(x->completion, done, note_done, p, &p->ticket);
}

void tensor_exchange_release(tensor_exchange *x)
{
    if (!x)
        return;
    settle(&x->reading);
    settle(&x->writing);
    for (int i = 0; i < PAUSES; i++)
        if (count_pause(x, &x->pauses[i]))
            gt_message_clear();
    if (x->arena)
        net_comm_memory_free(net_group_comm(x->group), x->arena);
    free(x->counts);
    free(x);
}

static gt_status make_room(tensor_exchange *x, uint64_t bytes)
{
    void *memory = NULL;
    if (bytes <= x->room)
        return GT_OK;
    gt_status st = settle(&x->writing);
    if (st)
        return st;
    if (x->arena)
        net_comm_memory_free(net_group_comm(x->group), x->arena);
    x->arena = NULL;
    x->room = 0;
    st = net_comm_memory(net_group_comm(x->group), (size_t)bytes, &memory);
    if (!st) {
        x->arena = memory;
        x->room = bytes;
    }
    return st;
}

static net_type type_of(dtype t)
{
    return t == DTYPE_BF16 ? NET_BF16 : t == DTYPE_F16 ? NET_F16 : NET_F32;
}

/* Where things lie in the arena. */
typedef struct layout {
    uint64_t elements, bytes, own_at, own_bytes;
} layout;

static layout layout_of(tensor_exchange *x, const exec_exchange *e)
{
    const uint64_t item = dtype_size(e->type);
    layout a = { 0 };
    for (int k = 0; k < e->ranks; k++) {
        x->counts[k] = (uint64_t)(e->rows[k] * e->width);
        a.own_at += k < e->rank ? x->counts[k] * item : 0;
        a.elements += x->counts[k];
    }
    a.own_bytes = x->counts[e->rank] * item;
    a.bytes = a.elements * item;
    return a;
}

static gt_status start(tensor_exchange *x, const exec_exchange *e, const layout *a)
{
    assert(!x->reading);
    gt_status st = make_room(x, a->bytes);
    if (st)
        return st;
    return e->kind == GRAPH_GATHER
               ? dev_read_start(x->device, e->from, 0, x->arena + a->own_at, a->own_bytes, &x->reading)
               : dev_read_start(x->device, e->from, 0, x->arena, a->bytes, &x->reading);
}

static gt_status finish(tensor_exchange *x, const exec_exchange *e, const layout *a)
{
    static const net_collective_options direct = { .algorithm = "direct" };
    const net_type type = type_of(e->type);
    const int gather = e->kind == GRAPH_GATHER;
    pause *p;
    gt_status st = open_pause(x, e, &p);
    if (!st)
        st = settle(&x->reading);
    if (!st)
        st = settle(&x->writing); /* long done: it was queued before the reading */
    p->began = gt_now_ns();
    if (!st)
        st = gather ? net_all_gather(x->group, x->arena, a->elements, x->counts, type, &direct)
                    : net_reduce_scatter(x->group, x->arena, a->elements, x->counts, type, &direct);
    p->over = gt_now_ns();
    x->spent.ns += p->over - p->began;
    x->spent.bytes += a->bytes;
    x->spent.copied += dev_info_of(x->device)->native_kernels ? a->bytes + a->own_bytes : 0;
    x->spent.exchanges++;
    if (st)
        return st;
    return gather ? dev_write_start(x->device, e->to, 0, x->arena, a->bytes, &x->writing)
                  : dev_write_start(x->device, e->to, 0, x->arena + a->own_at, a->own_bytes, &x->writing);
}

gt_status tensor_exchange_make(void *context, const exec_exchange *e, exec_exchange_step step)
{
    tensor_exchange *x = context;
    if (e->ranks != net_group_size(x->group) || e->rank != net_group_rank(x->group))
        return gt_fail(GT_MISUSE,
                       "cannot exchange the rows of '%s': it is split for rank %d of %d, "
                       "this is rank %d of %d",
                       e->name, e->rank, e->ranks, net_group_rank(x->group), net_group_size(x->group));
    const layout a = layout_of(x, e);
    return step == EXEC_EXCHANGE_START ? start(x, e, &a) : finish(x, e, &a);
}

gt_status tensor_exchange_spent_of(tensor_exchange *x, tensor_exchange_spent *out)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < PAUSES; i++)
        st = count_pause(x, &x->pauses[i]);
    *out = x->spent;
    return st;
}
