/* host/parallel/tensor_exchange.c - see tensor_exchange.h.
 *
 * One arena is enough: the queue is in order, so what is read for one exchange comes behind what was
 * written for the one before.
 *
 * Always the direct algorithm: groups are small, every rank's part goes straight to where it is
 * needed in one step, and a sum does not depend on which links were measured to be fast.    */
#include "host/parallel/tensor_exchange.h"

#include "host/base/clock.h"

#include <stdlib.h>

struct tensor_exchange {
    net_group *group;
    dev_device *device;
    unsigned char *arena;
    uint64_t room;                      /* bytes of it                        */
    uint64_t *counts;                   /* [ranks] elements                   */
    dev_event *writing;                 /* from the arena, of the last exchange */
    tensor_exchange_spent spent;
};

gt_status tensor_exchange_create(tensor_exchange **out, net_group *g, dev_device *d)
{
    *out = NULL;
    tensor_exchange *x = calloc(1, sizeof *x);
    uint64_t *counts = calloc((size_t)net_group_size(g), sizeof *counts);
    if (!x || !counts) {
        free(x);
        free(counts);
        return gt_fail(GT_NO_MEMORY, "cannot exchange rows: out of memory");
    }
    x->group = g;
    x->device = d;
    x->counts = counts;
    *out = x;
    return GT_OK;
}

static gt_status settle(tensor_exchange *x)
{
    dev_event *event = x->writing;
    x->writing = NULL;
    return dev_event_wait(event);
}

void tensor_exchange_release(tensor_exchange *x)
{
    if (!x)
        return;
    settle(x);
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
    if (x->arena)
        net_comm_memory_free(net_group_comm(x->group), x->arena);
    x->arena = NULL;
    x->room = 0;
    gt_status st = net_comm_memory(net_group_comm(x->group), (size_t)bytes, &memory);
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

gt_status tensor_exchange_make(void *context, const exec_exchange *e)
{
    static const net_collective_options direct = { .algorithm = "direct" };
    tensor_exchange *x = context;
    const uint64_t item = dtype_size(e->type);
    uint64_t all = 0, first = 0;        /* elements of all rows; before own rows */
    if (e->ranks != net_group_size(x->group) || e->rank != net_group_rank(x->group))
        return gt_fail(GT_MISUSE, "cannot exchange the rows of '%s': it is split for rank %d of %d, "
                       "this is rank %d of %d", e->name, e->rank, e->ranks, net_group_rank(x->group),
                       net_group_size(x->group));
    for (int k = 0; k < e->ranks; k++) {
        x->counts[k] = (uint64_t)(e->rows[k] * e->width);
        first += k < e->rank ? x->counts[k] : 0;
        all += x->counts[k];
    }
    gt_status st = settle(x);
    if (!st)
        st = make_room(x, all * item);
    if (st)
        return st;
    unsigned char *own = x->arena + first * item;
    const uint64_t own_bytes = x->counts[e->rank] * item;
    const int gather = e->kind == GRAPH_GATHER;
    st = gather ? dev_read(x->device, e->from, 0, own, own_bytes)
                : dev_read(x->device, e->from, 0, x->arena, all * item);
    const uint64_t start = gt_now_ns();
    if (!st)
        st = gather ? net_all_gather(x->group, x->arena, all, x->counts, type_of(e->type), &direct)
                    : net_reduce_scatter(x->group, x->arena, all, x->counts, type_of(e->type), &direct);
    x->spent.ns += gt_now_ns() - start;
    x->spent.bytes += all * item;
    x->spent.exchanges++;
    if (st)
        return st;
    return gather ? dev_write_start(x->device, e->to, 0, x->arena, all * item, &x->writing)
                  : dev_write_start(x->device, e->to, 0, own, own_bytes, &x->writing);
}

tensor_exchange_spent tensor_exchange_spent_of(const tensor_exchange *x)
{
    return x->spent;
}
