/* SPDX-License-Identifier: MIT */
/* host/train/feed.c - see feed.h. */
#include "host/train/feed.h"

#include "host/graph/derived.h"

#include <assert.h>
#include <string.h>

/* What comes from elsewhere: another stage, the optimizer, the step's number, or another input. */
static int comes_otherwise(const graph *g, int value)
{
    static const char *const own[] = { "grad_scale", "loss_sum", "hit_sum", "random" };
    const graph_ends ends = graph_ends_of(g);
    const char *name = graph_value_at(g, value)->name;
    int is = value == ends.x || value == ends.dy;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        is |= !strcmp(own[i], name);
    for (int i = 0; i < graph_derived_count(g); i++)
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++)
            is |= !strcmp(graph_derived_at(g, i).name[k], name);
    return is;
}

static const data_field *field_of(const data_batch *b, const char *name)
{
    for (int f = 0; f < b->fields; f++)
        if (!strcmp(b->field[f].name, name))
            return &b->field[f];
    return NULL;
}

static gt_status check_input(const data_batch *b, const graph *g, int value)
{
    const graph_value *v = graph_value_at(g, value);
    const data_field *f = field_of(b, v->name);
    if (!f)
        return gt_fail(GT_MISMATCH, "the model reads '%s', which its batches do not have", v->name);
    if (f->type != v->type || (int64_t)f->count * graph_batch(g) != shape_count(&v->shape))
        return gt_fail(GT_MISMATCH, "the model reads '%s' as %lld %s, and its batches have %llu %s", v->name,
                       (long long)shape_count(&v->shape), dtype_name(v->type),
                       (unsigned long long)f->count * (unsigned long long)graph_batch(g), dtype_name(f->type));
    return GT_OK;
}

static gt_status check_graph(const data_batch *b, const graph *g, int has_head)
{
    int weighs = 0;
    gt_status st = GT_OK;
    for (int v = 0; !st && v < graph_value_count(g); v++) {
        if (graph_value_at(g, v)->role != GRAPH_INPUT || comes_otherwise(g, v))
            continue;
        weighs |= b->weights && !strcmp(b->weights, graph_value_at(g, v)->name);
        st = check_input(b, g, v);
    }
    if (!st && b->weights && has_head && !weighs)
        st = gt_fail(GT_MISMATCH, "batches weigh their targets by '%s', which the model does not read", b->weights);
    return st;
}

gt_status feed_create(data_batch *out, data_batch_maker make, const void *config, const loader *l, const char *split,
                      const stage *s)
{
    const int last = stage_chunks(s) - 1;
    gt_status st = GT_OK;
    data_batch_make(out, make, config, l, split);
    assert(!out->total == !out->total_rows && (!out->weights || out->total));
    out->vocab = graph_vocabulary(stage_graph(s, 0));
    for (int c = 0; !st && c <= last; c++)
        st = check_graph(out, stage_graph(s, c), stage_is_last(s) && c == last);
    return st;
}
