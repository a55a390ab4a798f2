/* SPDX-License-Identifier: MIT */
/* host/optim/optim.c - one launch list an update.
 *
 *   loss sum -> state | norm of each segment -> partial sums | prepare | update of each
 *   segment | state -> gradient scale
 *
 * Moments lie as the parameters do (params.h), one buffer a segment, so the update of a
 * segment is one launch over plain arrays, gaps included: zeros stay zeros.
 *
 * Of several ranks each updates its part of a segment, mostly all of it, and counts some of them; the
 * list ends before "prepare" there, and what the host then adds up over the ranks takes the
 * place of the partial sums.                                                             */
#include "host/optim/optim.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct optim {
    dev_device *device;
    params *params;
    optim_config config;
    int moments, segments;
    optim_part *part;                   /* of each segment: what is updated here */
    int shared;                         /* one of several ranks */
    dev_buffer *(*own)[3];              /* of each part: master, gradient, copy (views) */
    dev_buffer *(*moment)[2];           /* of each part */
    dev_buffer **partial;               /* of each part: sums of squares of blocks */
    dev_buffer *squares, *state, *grad_scale, *loss_sum;
    kernel_set *kernels;
    dev_list *norms, *update;           /* `norms` is empty unless shared */
    kernel_slot *lr_at;                 /* of each segment's update */
    float *sums;                        /* shared: partial sums, read here; then the total */
    float total_loss;
    int64_t blocks;                     /* of the segments counted */
};

/* The part's weights, gradients and 16-bit copies. */
static gt_status view_part(optim *o, int i, const kernel_set *k)
{
    const params_segment *s = params_segment_at(o->params, i);
    dev_buffer *const all[3] = { s->master, s->grad, s->copy };
    gt_status st = GT_OK;
    for (int b = 0; !st && b < 3; b++) {
        const uint64_t item = b < 2 ? 4 : dtype_size(kernel_set_storage(k));
        if (all[b])
            st = dev_buffer_view(&o->own[i][b], all[b], item * (uint64_t)o->part[i].first,
                                 item * (uint64_t)o->part[i].count);
    }
    return st;
}

static gt_status make_buffers(optim *o, kernel_set *k)
{
    gt_status st = GT_OK;
    int64_t blocks = 0;
    for (int i = 0; !st && i < o->segments; i++) {
        const int64_t count = o->part[i].count;
        if (!count)
            continue;
        blocks += kernel_norm_blocks(k, count);
        st = view_part(o, i, k);
        if (!st)
            st = dev_buffer_create(&o->partial[i], o->device,
                                   4 * (uint64_t)kernel_norm_blocks(k, count), "partial norms");
        for (int m = 0; !st && m < o->moments; m++)
            st = dev_buffer_create(&o->moment[i][m], o->device, 4 * (uint64_t)count,
                                   "the optimizer's moments");
    }
    if (!st)
        st = dev_buffer_create(&o->squares, o->device, 4 * (uint64_t)(blocks + 1), "partial norms");
    if (!st)
        st = dev_buffer_create(&o->state, o->device, 4 * OPTIM_STATE_FLOATS, "optimizer state");
    if (!st)
        st = dev_buffer_create(&o->grad_scale, o->device, 4, "the gradient scale");
    if (!st)
        st = dev_buffer_create(&o->loss_sum, o->device, 4, "the loss sum");
    return st;
}

static gt_status clear_buffers(optim *o)
{
    dev_list *l;
    gt_status st = dev_list_create(&l, o->device);
    for (int i = 0; !st && i < o->segments; i++)
        for (int m = 0; !st && m < o->moments; m++)
            st = o->moment[i][m] ? dev_list_fill(l, o->moment[i][m], 0, 0, 4 * (uint64_t)o->part[i].count)
                                 : GT_OK;
    if (!st)                            /* a stage without the head never writes it */
        st = dev_list_fill(l, o->loss_sum, 0, 0, 4);
    if (!st)
        st = dev_run(l, 0, -1);
    dev_list_release(l);
    return st;
}

/* The partial sums of all segments are gathered by small copies: a view into one array
 * would need an alignment that the counts do not have. */
static gt_status append_norms(optim *o, dev_list *l)
{
    gt_status st = GT_OK;
    o->blocks = 0;
    dev_list_label(l, "gradient norm");
    for (int i = 0; !st && i < o->segments; i++) {
        const int64_t count = o->part[i].count, blocks = kernel_norm_blocks(o->kernels, count);
        if (!o->part[i].counted || !count)
            continue;
        st = kernel_norm_partial(l, o->kernels, count, o->own[i][1], o->partial[i]);
        if (!st)
            st = dev_list_copy(l, o->squares, 4 * (uint64_t)o->blocks, o->partial[i], 0,
                               4 * (uint64_t)blocks);
        o->blocks += blocks;
    }
    return st;
}

static gt_status append_updates(optim *o, dev_list *l, int64_t blocks)
{
    const optim_config *c = &o->config;
    const int dynamic = kernel_set_storage(o->kernels) == DTYPE_F16;
    dev_list_label(l, "optimizer");
    gt_status st = kernel_optim_prepare(l, o->kernels, blocks, o->squares, o->state, (float)c->clip,
                                        c->beta1, c->beta2, dynamic, c->scale_growth);
    for (int i = 0; !st && i < o->segments; i++) {
        const int64_t count = o->part[i].count;
        dev_buffer *const *own = o->own[i];
        const float decay = params_segment_at(o->params, i)->decay ? (float)c->weight_decay : 0.0f;
        if (!count)
            continue;
        if (c->kind == OPTIM_ADAMW)
            st = kernel_adamw(l, o->kernels, count, own[0], own[1], o->moment[i][0], o->moment[i][1],
                              own[2], o->state, (float)c->lr, c->beta1, c->beta2, (float)c->eps,
                              decay, &o->lr_at[i]);
        else
            st = kernel_sgd(l, o->kernels, count, own[0], own[1], o->moment[i][0], own[2], o->state,
                            (float)c->lr, (float)c->momentum, decay, &o->lr_at[i]);
    }
    if (!st)
        st = dev_list_copy(l, o->grad_scale, 0, o->state, 4 * OPTIM_GRAD_SCALE, 4);
    return st;
}

static gt_status build_lists(optim *o)
{
    gt_status st = dev_list_create(&o->norms, o->device);
    if (!st)
        st = dev_list_create(&o->update, o->device);
    if (!st && !o->shared)
        st = dev_list_copy(o->update, o->state, 4 * OPTIM_LOSS_SUM, o->loss_sum, 0, 4);
    if (!st)
        st = append_norms(o, o->shared ? o->norms : o->update);
    if (!st)
        st = append_updates(o, o->update, o->shared ? 1 : o->blocks);
    o->sums = malloc(((size_t)o->blocks + 1) * sizeof *o->sums);
    return st || o->sums ? st : gt_fail(GT_NO_MEMORY, "cannot make an optimizer: out of memory");
}

gt_status optim_partial(optim *o, double *squares, double *loss)
{
    float sum = 0.0f;
    gt_status st = dev_run(o->norms, 0, -1);
    if (!st && o->blocks)
        st = dev_read(o->device, o->squares, 0, o->sums, 4 * (uint64_t)o->blocks);
    if (!st)
        st = dev_read(o->device, o->loss_sum, 0, &sum, 4);
    *squares = 0.0;
    for (int64_t i = 0; !st && i < o->blocks; i++)
        *squares += (double)o->sums[i];
    *loss = (double)sum;
    return st;
}

static gt_status run_update(optim *o, double lr)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < o->segments; i++)
        if (o->part[i].count)
            st = dev_list_set(o->update, o->lr_at[i].launch, o->lr_at[i].arg,
                              dev_arg_f32((float)lr));
    return st ? st : dev_run(o->update, 0, -1);
}

gt_status optim_step_with(optim *o, double lr, double squares, double loss)
{
    /* Nothing else writes here until the next optim_partial(), which waits for the device. */
    o->sums[0] = (float)squares;
    o->total_loss = (float)loss;
    gt_status st = dev_write_start(o->device, o->squares, 0, &o->sums[0], 4, NULL);
    if (!st)
        st = dev_write_start(o->device, o->state, 4 * OPTIM_LOSS_SUM, &o->total_loss, 4, NULL);
    return st ? st : run_update(o, lr);
}

gt_status optim_create(optim **out, dev_device *d, kernel_set *k, params *p,
                       const optim_config *c, double tokens, const optim_part *parts)
{
    *out = NULL;
    gt_status st = optim_config_check(c);
    if (st)
        return st;
    optim *o = calloc(1, sizeof *o);
    if (!o)
        return gt_fail(GT_NO_MEMORY, "cannot make an optimizer: out of memory");
    o->device = d;
    o->kernels = k;
    o->params = p;
    o->config = *c;
    o->segments = params_segments(p);
    o->moments = c->kind == OPTIM_ADAMW ? 2 : c->momentum > 0.0 ? 1 : 0;
    o->moment = calloc((size_t)o->segments + 1, sizeof *o->moment);
    o->lr_at = calloc((size_t)o->segments + 1, sizeof *o->lr_at);
    o->partial = calloc((size_t)o->segments + 1, sizeof *o->partial);
    o->own = calloc((size_t)o->segments + 1, sizeof *o->own);
    o->part = calloc((size_t)o->segments + 1, sizeof *o->part);
    o->shared = parts != NULL;
    for (int i = 0; o->part && i < o->segments; i++)
        o->part[i] = parts ? parts[i] : (optim_part){ 0, params_segment_at(p, i)->count, 1 };
    if (!o->moment || !o->lr_at || !o->partial || !o->own || !o->part)
        st = gt_fail(GT_NO_MEMORY, "cannot make an optimizer: out of memory");
    if (!st)
        st = make_buffers(o, k);
    if (!st)
        st = clear_buffers(o);
    if (!st)
        st = build_lists(o);
    if (!st) {
        float state[OPTIM_STATE_FLOATS] = { 0 };
        const double scale = kernel_set_storage(k) == DTYPE_F16 ? c->loss_scale : 1.0;
        state[OPTIM_LOSS_SCALE] = (float)scale;
        state[OPTIM_GRAD_SCALE] = (float)(scale / tokens);
        state[OPTIM_CLIP] = 1.0f;
        st = optim_state_write(o, state);
    }
    if (st) {
        optim_release(o);
        return st;
    }
    *out = o;
    return GT_OK;
}

void optim_release(optim *o)
{
    if (!o)
        return;
    dev_list_release(o->norms);
    dev_list_release(o->update);
    free(o->sums);
    for (int i = 0; o->moment && i < o->segments; i++)
        for (int m = 0; m < 2; m++)
            dev_buffer_release(o->moment[i][m]);
    for (int i = 0; o->own && i < o->segments; i++)
        for (int b = 0; b < 3; b++)
            dev_buffer_release(o->own[i][b]);
    for (int i = 0; o->partial && i < o->segments; i++)
        dev_buffer_release(o->partial[i]);
    free(o->own);
    free(o->part);
    dev_buffer_release(o->squares);
    dev_buffer_release(o->state);
    dev_buffer_release(o->grad_scale);
    dev_buffer_release(o->loss_sum);
    free(o->partial);
    free(o->moment);
    free(o->lr_at);
    free(o);
}

dev_buffer *optim_grad_scale(optim *o)
{
    return o->grad_scale;
}

dev_buffer *optim_loss_sum(optim *o)
{
    return o->loss_sum;
}

gt_status optim_step(optim *o, double lr)
{
    return run_update(o, lr);
}

gt_status optim_state_read(optim *o, float *to, dev_event **event)
{
    return dev_read_start(o->device, o->state, 0, to, 4 * OPTIM_STATE_FLOATS, event);
}

gt_status optim_state_write(optim *o, const float *from)
{
    gt_status st = dev_write(o->device, o->state, 0, from, 4 * OPTIM_STATE_FLOATS);
    return st ? st : dev_write(o->device, o->grad_scale, 0, &from[OPTIM_GRAD_SCALE], 4);
}

int optim_slots(const optim *o)
{
    return o->moments;
}

/* Where slot `which` of parameter i lies. */
static dev_buffer *slot_place(optim *o, int i, int which, uint64_t *offset, uint64_t *bytes)
{
    int segment;
    int64_t first, begin, end;
    params_place(o->params, i, &segment, &first);
    optim_slot_range(o, i, which, &begin, &end);
    *offset = 4 * (uint64_t)(first + begin - o->part[segment].first);
    *bytes = 4 * (uint64_t)(end - begin);
    assert(0 <= which && which < 2);
    return o->moment[segment][which];
}

gt_status optim_slot_read(optim *o, int i, int which, float *to)
{
    uint64_t offset, bytes;
    dev_buffer *b = slot_place(o, i, which, &offset, &bytes);
    return b ? dev_read(o->device, b, offset, to, bytes)
             : gt_fail(GT_NOT_FOUND, "this optimizer keeps no moment %d", which);
}

gt_status optim_slot_write(optim *o, int i, int which, const float *from)
{
    uint64_t offset, bytes;
    dev_buffer *b = slot_place(o, i, which, &offset, &bytes);
    return b ? dev_write(o->device, b, offset, from, bytes)
             : gt_fail(GT_NOT_FOUND, "this optimizer keeps no moment %d", which);
}

void optim_slot_range(const optim *o, int i, int which, int64_t *begin, int64_t *end)
{
    const int64_t count = shape_count(&params_info(o->params, i)->shape);
    int segment;
    int64_t first;
    (void)which;
    params_place(o->params, i, &segment, &first);
    const int64_t from = o->part[segment].first - first, to = from + o->part[segment].count;
    *begin = from < 0 ? 0 : from < count ? from : count;
    *end = to < *begin ? *begin : to < count ? to : count;
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

static const char *const slot_names[2] = { "first", "second" };

/* Slot by slot all parameters, then the scalars. */
static int saved_count(void *context)
{
    const optim *o = context;
    return o->moments * params_count(o->params) + 1;
}

static void saved_entry(void *context, int i, checkpoint_entry *e)
{
    const optim *o = context;
    const int count = params_count(o->params), which = count ? i / count : 0;
    *e = (checkpoint_entry){ .param = -1 };
    if (i == o->moments * count) {
        snprintf(e->name, sizeof e->name, "scalars");
        e->full = shape_of(1, (int64_t)OPTIM_STATE_FLOATS);
        e->end = OPTIM_STATE_FLOATS;
        e->any_value = 1;               /* norm and loss of a step that fp16 skipped: no fault */
        return;
    }
    const graph_param_info *info = params_info(o->params, i % count);
    snprintf(e->name, sizeof e->name, "%s.%s", slot_names[which], info->name);
    e->param = i % count;
    e->full = info->full;
    e->slice = info->slice;
    optim_slot_range(o, i % count, which, &e->begin, &e->end);
}

static gt_status saved_read(void *context, int i, float *to)
{
    optim *o = context;
    const int count = params_count(o->params);
    dev_event *event = NULL;
    if (i < o->moments * count)
        return optim_slot_read(o, i % count, i / count, to);
    gt_status st = optim_state_read(o, to, &event);
    return st ? st : dev_event_wait(event);
}

static gt_status saved_write(void *context, int i, const float *from)
{
    static const int used[] = { OPTIM_STEP, OPTIM_GRAD_SCALE, OPTIM_LOSS_SCALE, OPTIM_GOOD_STEPS };
    optim *o = context;
    const int count = params_count(o->params);
    if (i < o->moments * count)
        return optim_slot_write(o, i % count, i / count, from);
    for (size_t k = 0; k < sizeof used / sizeof *used; k++)
        if (!isfinite(from[used[k]]))
            return gt_fail(GT_NUMERIC, "the optimizer's scalar %d is not finite", used[k]);
    return optim_state_write(o, from);
}

static int holds_slot(const char *const *names, int count, const char *slot)
{
    const size_t n = strlen(slot);
    for (int i = 0; i < count; i++)
        if (!strncmp(names[i], slot, n) && names[i][n] == '.')
            return 1;
    return 0;
}

/* AdamW's first moment would pass for SGD's momentum, which it is not. An optimizer that keeps none
 * needs none of what there is. */
static gt_status saved_check(void *context, const char *const *names, int count)
{
    const optim *o = context;
    for (int m = 0; m < o->moments; m++)
        if (!holds_slot(names, count, slot_names[m]))
            return gt_fail(GT_MISMATCH, "it holds no %s moments, which this optimizer keeps; go on with "
                           "the --optimizer and --momentum it was trained with", slot_names[m]);
    for (int m = o->moments; o->moments && m < 2; m++)
        if (holds_slot(names, count, slot_names[m]))
            return gt_fail(GT_MISMATCH, "it holds %s moments, which this optimizer does not keep; go "
                           "on with the --optimizer and --momentum it was trained with", slot_names[m]);
    return GT_OK;
}

checkpoint_state optim_saved(optim *o)
{
    return (checkpoint_state){ .owner = "optimizer", .what = "optimizer's state", .context = o,
                               .count = saved_count, .entry = saved_entry, .read = saved_read,
                               .write = saved_write, .check = saved_check };
}
