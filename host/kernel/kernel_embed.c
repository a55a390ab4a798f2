/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_embed.c - launches of cl/embed.cl, and the sorting of tokens. */
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <string.h>

gt_status kernel_embed(dev_list *l, kernel_set *k, int B, int T, int C, kernel_rows held,
                       dev_buffer *x, dev_buffer *token, dev_buffer *position, dev_buffer *first,
                       dev_buffer *y)
{
    gt_status st = kernel_fits("tokens", (int64_t)B * T);
    if (st)
        return st;
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(B * T), dev_arg_i32(T), dev_arg_i32(C),
        dev_arg_i32(held.V), dev_arg_i32(held.begin), dev_arg_i32(held.count), dev_arg_buffer(x),
        dev_arg_buffer(token), dev_arg_buffer(position), dev_arg_buffer(first), dev_arg_buffer(y),
    };
    return kernel_launch_rows(l, k, KERNEL_EMBED, "embed", B * T, C, args, KERNEL_ARGS(args));
}

gt_status kernel_embed_token_grad(dev_list *l, kernel_set *k, int R, int C, kernel_rows held,
                                  dev_buffer *x, dev_buffer *order, dev_buffer *starts,
                                  dev_buffer *dy, dev_buffer *dtoken)
{
    assert(R >= 0 && C > 0);
    dev_arg args[] = {
        dev_arg_i32(C), dev_arg_i32(held.begin), dev_arg_i32(held.count), dev_arg_buffer(x),
        dev_arg_buffer(order), dev_arg_buffer(starts), dev_arg_buffer(dy), dev_arg_buffer(dtoken),
    };
    const size_t owners = (size_t)R < 8 * k->items ? (size_t)R : 8 * k->items;
    return kernel_launch_groups(l, k, KERNEL_EMBED, "embed_token_grad", owners, args,
                                KERNEL_ARGS(args));
}

/* Counting sort, stable: within a group rows keep their order. Tokens outside [0, V) take
 * part in no group. */
void kernel_embed_sort(const int32_t *x, int R, int V, int32_t *order, int32_t *starts,
                       int32_t *scratch)
{
    int groups = 0, at = 0;
    memset(scratch, 0, ((size_t)V + 1) * sizeof *scratch);
    for (int r = 0; r < R; r++)
        if (0 <= x[r] && x[r] < V)
            scratch[x[r]]++;
    for (int v = 0; v < V; v++) {
        const int count = scratch[v];
        scratch[v] = at;
        if (count)
            starts[1 + groups++] = at;
        at += count;
    }
    starts[0] = groups;
    starts[1 + groups] = at;
    for (int r = 0; r < R; r++)
        if (0 <= x[r] && x[r] < V)
            order[scratch[x[r]]++] = r;
}

gt_status kernel_embed_position_grad(dev_list *l, kernel_set *k, int B, int T, int C,
                                     dev_buffer *dy, dev_buffer *dposition, int add,
                                     kernel_slot *add_at)
{
    assert(B > 0 && T >= 0 && C > 0);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(B), dev_arg_i32(T), dev_arg_i32(C), dev_arg_buffer(dy),
        dev_arg_buffer(dposition), dev_arg_i32(add),
    };
    const int64_t cost = (int64_t)B * C;
    gt_status st = kernel_launch_rows(l, k, KERNEL_EMBED, "embed_position_grad", T,
                                      cost > INT32_MAX ? INT32_MAX : (int)cost, args,
                                      KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 6);
    return st;
}
