/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_embed.c - launches of cl/embed.cl, the sorting of tokens, and their cases: tokens
 * to rows, and back.
 *
 *     token table  V rows   |..begin [ held: count rows ] ....|    as one rank of several holds it
 *     x            R tokens below V = R / 3 + 2, so that they repeat
 *
 * A row of the token gradient that no token names must come out exactly as it was.        */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

gt_status kernel_embed(dev_list *l, kernel_set *k, int B, int T, int C, kernel_rows held, const kernel_embedding *in,
                       dev_buffer *y)
{
    gt_status st = kernel_fits("tokens", (int64_t)B * T);
    if (st)
        return st;
    dev_arg args[] = {
        dev_arg_i32(1),
        dev_arg_i32(B * T),
        dev_arg_i32(T),
        dev_arg_i32(C),
        dev_arg_i32(held.V),
        dev_arg_i32(held.begin),
        dev_arg_i32(held.count),
        dev_arg_buffer(in->x),
        dev_arg_buffer(in->token),
        dev_arg_buffer(in->position),
        dev_arg_i32(in->offset),
        dev_arg_buffer(in->first),
        dev_arg_i32(in->types),
        dev_arg_buffer(in->kind),
        dev_arg_buffer(in->type),
        dev_arg_buffer(y),
    };
    return kernel_launch_rows(l, k, &kernel_embed_family, "embed", B * T, C, args, KERNEL_ARGS(args));
}

gt_status kernel_embed_token_grad(dev_list *l, kernel_set *k, int R, int C, kernel_rows held, dev_buffer *x,
                                  dev_buffer *order, dev_buffer *starts, dev_buffer *dy, dev_buffer *dtoken)
{
    assert(R >= 0 && C > 0);
    dev_arg args[] = {
        dev_arg_i32(C),        dev_arg_i32(held.begin), dev_arg_i32(held.count), dev_arg_buffer(x),
        dev_arg_buffer(order), dev_arg_buffer(starts),  dev_arg_buffer(dy),      dev_arg_buffer(dtoken),
    };
    const size_t owners = (size_t)R < 8 * k->items ? (size_t)R : 8 * k->items;
    return kernel_launch_groups(l, k, &kernel_embed_family, "embed_token_grad", owners, args, KERNEL_ARGS(args));
}

/* Counting sort, stable: within a group rows keep their order. Tokens outside [0, V) take
 * part in no group. */
void kernel_embed_sort(const int32_t *x, int R, int V, int32_t *order, int32_t *starts, int32_t *scratch)
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

gt_status kernel_embed_position_grad(dev_list *l, kernel_set *k, int B, int T, int C, int offset, dev_buffer *dy,
                                     dev_buffer *dposition, int add, kernel_slot *add_at)
{
    assert(B > 0 && T >= 0 && C > 0 && offset >= 0);
    dev_arg args[] = {
        dev_arg_i32(1),
        dev_arg_i32(B),
        dev_arg_i32(T),
        dev_arg_i32(C),
        dev_arg_i32(offset),
        dev_arg_buffer(dy),
        dev_arg_buffer(dposition),
        dev_arg_i32(add),
    };
    const int64_t cost = (int64_t)B * C;
    gt_status st = kernel_launch_rows(l, k, &kernel_embed_family, "embed_position_grad", T,
                                      cost > INT32_MAX ? INT32_MAX : (int)cost, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 7);
    return st;
}

gt_status kernel_embed_type_grad(dev_list *l, kernel_set *k, int R, int C, int types, dev_buffer *row_type,
                                 dev_buffer *dy, dev_buffer *dtypes, int add, kernel_slot *add_at)
{
    assert(R >= 0 && C > 0 && types > 0);
    dev_arg args[] = {
        dev_arg_i32(R),     dev_arg_i32(C),         dev_arg_i32(types), dev_arg_buffer(row_type),
        dev_arg_buffer(dy), dev_arg_buffer(dtypes), dev_arg_i32(add),
    };
    const size_t columns = 4 * k->group;        /* of a group, at least */
    gt_status st = kernel_launch_groups(l, k, &kernel_embed_family, "embed_type_grad",
                                        ((size_t)C + columns - 1) / columns, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 6);
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* R rows become B sequences of T tokens with B = 3 where R allows. */
static void split_rows(const trial *t, int *B, int *T)
{
    *B = t->R % 3 == 0 ? 3 : 1;
    *T = t->R / *B;
}

static int vocabulary(const trial *t)
{
    return t->R / 3 + 2;                /* so that tokens repeat */
}

/* Some rows from the middle of the table, as one rank of several holds them. */
static kernel_rows some_rows(int V)
{
    return (kernel_rows){ V / 4, V - V / 4 - V / 3, V };
}

enum { TYPES = 3 };

/* at: the position that comes in `first`; offset: the rows of the position table that go before. */
static void embed_with(trial *t, int with_position, int at, int offset, int with_types)
{
    int B, T;
    split_rows(t, &B, &T);
    const int V = vocabulary(t);
    operand *x = give_below(t, "x", t->R, V), *token = give(t, "token", STORED, (int64_t)V * t->C, 1.0);
    operand *position = with_position ? give(t, "position", STORED, (int64_t)(T + at + offset) * t->C, 1.0) : NULL;
    operand *first = at ? give_below(t, "first", 1, 1) : NULL;
    operand *row_type = with_types ? give_below(t, "kind", t->R, TYPES) : NULL;
    operand *type = with_types ? give(t, "type", STORED, (int64_t)TYPES * t->C, 1.0) : NULL;
    operand *y = take(t, "y", STORED, elements(t));
    if (t->status)
        return;
    if (first)
        first->whole[0] = at;
    const kernel_embedding in = {
        .x = x->buffer,
        .token = token->buffer,
        .position = position ? position->buffer : NULL,
        .first = first ? first->buffer : NULL,
        .kind = row_type ? row_type->buffer : NULL,
        .type = type ? type->buffer : NULL,
        .offset = offset,
        .types = TYPES
    };
    append(t, kernel_embed(t->list, t->k, B, T, t->C, (kernel_rows){ 0, V, V }, &in, y->buffer));
    reference_embed(B, T, t->C, x->whole, token->value, position ? position->value : NULL, at + offset, y->want);
    for (int64_t i = 0; i < elements(t); i++) {
        const double before = fabs(y->want[i]);
        if (type)
            y->want[i] += type->value[(int64_t)row_type->whole[i / t->C] * t->C + i % t->C];
        y->slack[i] = (float)(U * (fabs(y->want[i]) + (type ? before : 0.0)));
    }
}

static void embed_case(trial *t)
{
    embed_with(t, 1, 0, 0, 0);
}
static void embed_bare_case(trial *t)
{
    embed_with(t, 0, 0, 0, 0);
}
static void embed_at_case(trial *t)
{
    embed_with(t, 1, 5, 0, 0);
}

static void embed_types_case(trial *t)
{
    embed_with(t, 1, 0, 2, 1);
}

static void embed_part_case(trial *t)
{
    const kernel_rows held = some_rows(vocabulary(t));
    operand *x = give_below(t, "x", t->R, held.V);
    operand *token = give(t, "token", STORED, (int64_t)held.count * t->C, 1.0);
    operand *y = take(t, "y", STORED, elements(t));
    append(t, kernel_embed(t->list, t->k, 1, t->R, t->C, held,
                           &(kernel_embedding){ .x = x->buffer, .token = token->buffer }, y->buffer));
    for (int64_t i = 0; !t->status && i < elements(t); i++) {
        const int row = x->whole[i / t->C] - held.begin;
        expect(y, i, 0 <= row && row < held.count ? token->value[row * t->C + i % t->C] : 0.0, 0.0);
    }
}

static void embed_token_grad_with(trial *t, int some)
{
    const int V = vocabulary(t);
    const kernel_rows held = some ? some_rows(V) : (kernel_rows){ 0, V, V };
    operand *x = give_below(t, "x", t->R, V);
    operand *order = give_below(t, "order", t->R, 1);
    operand *starts = give_below(t, "starts", (int64_t)t->R + 2, 1);
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dtoken = give(t, "dtoken", FLOAT, (int64_t)held.count * t->C, 1.0);
    const int64_t all = (int64_t)V * t->C, before = (int64_t)held.begin * t->C;
    int32_t *counts = calloc((size_t)V + 1, sizeof *counts);
    double *size = calloc((size_t)all, sizeof *size), *want = calloc((size_t)all, sizeof *want);
    if (!t->status && (!counts || !size || !want))
        t->status = gt_fail(GT_NO_MEMORY, "no memory for the counts of %d tokens", V);
    if (!t->status) {
        kernel_embed_sort(x->whole, t->R, V, order->whole, starts->whole, counts);
        append(t, kernel_embed_token_grad(t->list, t->k, t->R, t->C, held, x->buffer, order->buffer, starts->buffer,
                                          dy->buffer, dtoken->buffer));
        t->flops = (double)elements(t);
        dtoken->checked = 1;
        reference_embed_token_grad(t->R, t->C, x->whole, dy->value, want);
        for (int64_t i = 0; i < elements(t); i++)
            size[(int64_t)x->whole[i / t->C] * t->C + i % t->C] += fabs(dy->value[i]);
        for (int64_t i = 0; i < dtoken->n; i++) {
            const double s = size[before + i];
            dtoken->want[i] += want[before + i];
            dtoken->slack[i] = s == 0.0 ? 0.0f : (float)(U * ROUNDINGS(t->R) * (s + fabs(dtoken->value[i])));
        }
    }
    free(counts);
    free(size);
    free(want);
}

static void embed_token_grad_case(trial *t)
{
    embed_token_grad_with(t, 0);
}
static void embed_token_grad_part_case(trial *t)
{
    embed_token_grad_with(t, 1);
}

static void embed_position_grad_with(trial *t, int add, int offset)
{
    int B, T;
    split_rows(t, &B, &T);
    const int64_t before = (int64_t)offset * t->C;      /* elements that stay as they are */
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dposition = give(t, "dposition", FLOAT, before + (int64_t)T * t->C, 1.0);
    if (t->status)
        return;
    kernel_slot slot;
    append(t,
           kernel_embed_position_grad(t->list, t->k, B, T, t->C, offset, dy->buffer, dposition->buffer, !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = (double)elements(t);
    dposition->checked = 1;
    reference_embed_position_grad(B, T, t->C, dy->value, dposition->want + before, add);
    for (int64_t i = 0; i < (int64_t)T * t->C; i++) {
        double size = fabs(dposition->value[before + i]);
        for (int b = 0; b < B; b++)
            size += fabs(dy->value[(int64_t)b * T * t->C + i]);
        dposition->slack[before + i] = (float)(U * ROUNDINGS(B) * size);
    }
}

static void embed_position_grad_case(trial *t)
{
    embed_position_grad_with(t, 0, 0);
}
static void embed_position_more_case(trial *t)
{
    embed_position_grad_with(t, 1, 2);
}

static void embed_type_grad_with(trial *t, int add)
{
    operand *row_type = give_below(t, "kind", t->R, TYPES), *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dtypes = give(t, "dtypes", FLOAT, (int64_t)TYPES * t->C, 1.0);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_embed_type_grad(t->list, t->k, t->R, t->C, TYPES, row_type->buffer, dy->buffer, dtypes->buffer,
                                     !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = (double)elements(t);
    dtypes->checked = 1;
    for (int64_t i = 0; i < dtypes->n; i++) {
        dtypes->want[i] = add ? dtypes->value[i] : 0.0;
        dtypes->slack[i] = (float)fabs(dtypes->value[i]);
    }
    for (int64_t i = 0; i < elements(t); i++) {
        const int64_t to = (int64_t)row_type->whole[i / t->C] * t->C + i % t->C;
        dtypes->want[to] += dy->value[i];
        dtypes->slack[to] += (float)fabs(dy->value[i]);
    }
    for (int64_t i = 0; i < dtypes->n; i++)
        dtypes->slack[i] *= (float)(U * ROUNDINGS(t->R));
}

static void embed_type_grad_case(trial *t)
{
    embed_type_grad_with(t, 0);
}
static void embed_type_more_case(trial *t)
{
    embed_type_grad_with(t, 1);
}

static const kernel_case cases[] = {
    { "embed", embed_case, 8192, 768 },
    { "embed without positions", embed_bare_case, 0, 0 },
    { "embed from a position on", embed_at_case, 0, 0 },
    { "embed with types, from an offset on", embed_types_case, 0, 0 },
    { "embed from some rows", embed_part_case, 0, 0 },
    { "embed token gradient", embed_token_grad_case, 8192, 768 },
    { "embed token gradient of some rows", embed_token_grad_part_case, 0, 0 },
    { "embed position gradient", embed_position_grad_case, 8190, 768 },
    { "embed position gradient, added", embed_position_more_case, 0, 0 },
    { "embed type gradient", embed_type_grad_case, 8192, 768 },
    { "embed type gradient, added", embed_type_more_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_embed_family = {
    .program = { .file = "embed.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
