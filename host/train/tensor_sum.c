/* SPDX-License-Identifier: MIT */
/* host/train/tensor_sum.c - see tensor_sum.h.
 *
 *   device  x ──read──►  arena  ◄── all-reduce ──►  arena  ──write──► x
 *
 * The queue is in order, so the next read comes behind this write, and one arena is enough. */
#include "host/train/tensor_sum.h"

#include <stdlib.h>

struct tensor_sum {
    net_group *group;
    dev_device *device;
    float *arena;
    int64_t room;                       /* fp32 of it */
};

gt_status tensor_sum_create(tensor_sum **out, net_group *g, dev_device *d)
{
    tensor_sum *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot add up over tensor ranks: no memory for its settings");
    s->group = g;
    s->device = d;
    return GT_OK;
}

/* Gives the arena back, of which the device may still read. */
static gt_status drop_arena(tensor_sum *s)
{
    gt_status st = s->arena ? dev_wait(s->device) : GT_OK;
    if (s->arena)
        net_comm_memory_free(net_group_comm(s->group), s->arena);
    s->arena = NULL;
    s->room = 0;
    return st;
}

void tensor_sum_release(tensor_sum *s)
{
    if (s && drop_arena(s))
        gt_message_clear();
    free(s);
}

static gt_status make_room(tensor_sum *s, int64_t count)
{
    void *memory = NULL;
    if (count <= s->room)
        return GT_OK;
    gt_status st = drop_arena(s);
    if (!st)
        st = net_comm_memory(net_group_comm(s->group), 4 * (size_t)count, &memory);
    if (!st) {
        s->arena = memory;
        s->room = count;
    }
    return st;
}

/* The order of a sum must not depend on which links were measured to be fast. */
gt_status tensor_sum_make(void *context, dev_buffer *x, int64_t count)
{
    static const net_collective_options direct = { .algorithm = "direct" };
    tensor_sum *s = context;
    gt_status st = make_room(s, count);
    if (!st)
        st = dev_read(s->device, x, 0, s->arena, 4 * (size_t)count);
    if (!st)
        st = net_all_reduce(s->group, s->arena, (uint64_t)count, NET_F32, &direct);
    return st ? st : dev_write_start(s->device, x, 0, s->arena, 4 * (size_t)count, NULL);
}
