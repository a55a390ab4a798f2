/* host/optim/optim.c - one launch list an update.
 *
 *   loss sum -> state | norm of each segment -> partial sums | prepare | update of each
 *   segment | state -> gradient scale
 *
 * Moments lie as the parameters do (params.h), one buffer a segment, so the update of a
 * segment is one launch over plain arrays, gaps included: zeros stay zeros.
 *
 * Of several ranks each counts some segments; the list ends before "prepare" there, and what the
 * host then adds up over the ranks takes the place of the partial sums.                  */
#include "host/optim/optim.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct optim {
    dev_device *device;
    params *params;
    optim_config config;
    int moments, segments;
    dev_buffer *(*moment)[2];           /* of each segment */
    dev_buffer **partial;               /* of each segment: sums of squares of blocks */
    dev_buffer *squares, *state, *grad_scale, *loss_sum;
    kernel_set *kernels;
    dev_list *norms, *update;           /* `norms` is empty unless shared */
    kernel_slot *lr_at;                 /* of each segment's update */
    float *sums;                        /* shared: partial sums, read here; then the total */
    float total_loss;
    int64_t blocks;                     /* of the segments counted */
};

static gt_status make_buffers(optim *o, kernel_set *k)
{
    gt_status st = GT_OK;
    int64_t blocks = 0;
    for (int i = 0; !st && i < o->segments; i++) {
        const params_segment *s = params_segment_at(o->params, i);
        blocks += kernel_norm_blocks(k, s->count);
        st = dev_buffer_create(&o->partial[i], o->device,
                               4 * (uint64_t)kernel_norm_blocks(k, s->count), "partial norms");
        for (int m = 0; !st && m < o->moments; m++)
            st = dev_buffer_create(&o->moment[i][m], o->device, 4 * (uint64_t)s->count,
                                   "the optimizer's moments");
    }
    if (!st)
        st = dev_buffer_create(&o->squares, o->device, 4 * (uint64_t)blocks, "partial norms");
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
            st = dev_list_fill(l, o->moment[i][m], 0, 0,
                               4 * (uint64_t)params_segment_at(o->params, i)->count);
    if (!st)                            /* a stage without the head never writes it */
        st = dev_list_fill(l, o->loss_sum, 0, 0, 4);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_wait(o->device);
    dev_list_release(l);
    return st;
}

/* The partial sums of all segments are gathered by small copies: a view into one array
 * would need an alignment that the counts do not have. */
static gt_status append_norms(optim *o, dev_list *l, const unsigned char *counted)
{
    gt_status st = GT_OK;
    o->blocks = 0;
    dev_list_label(l, "gradient norm");
    for (int i = 0; !st && i < o->segments; i++) {
        const params_segment *s = params_segment_at(o->params, i);
        const int64_t blocks = kernel_norm_blocks(o->kernels, s->count);
        if (counted && !counted[i])
            continue;
        st = kernel_norm_partial(l, o->kernels, s->count, s->grad, o->partial[i]);
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
        const params_segment *s = params_segment_at(o->params, i);
        const float decay = s->decay ? (float)c->weight_decay : 0.0f;
        if (c->kind == OPTIM_ADAMW)
            st = kernel_adamw(l, o->kernels, s->count, s->master, s->grad, o->moment[i][0],
                              o->moment[i][1], s->copy, o->state, (float)c->lr, c->beta1,
                              c->beta2, (float)c->eps, decay, &o->lr_at[i]);
        else
            st = kernel_sgd(l, o->kernels, s->count, s->master, s->grad, o->moment[i][0], s->copy,
                            o->state, (float)c->lr, (float)c->momentum, decay, &o->lr_at[i]);
    }
    if (!st)
        st = dev_list_copy(l, o->grad_scale, 0, o->state, 4 * OPTIM_GRAD_SCALE, 4);
    return st;
}

static gt_status build_lists(optim *o, const unsigned char *counted)
{
    dev_list_release(o->norms);
    dev_list_release(o->update);
    o->norms = o->update = NULL;
    gt_status st = dev_list_create(&o->norms, o->device);
    if (!st)
        st = dev_list_create(&o->update, o->device);
    if (!st && !counted)
        st = dev_list_copy(o->update, o->state, 4 * OPTIM_LOSS_SUM, o->loss_sum, 0, 4);
    if (!st)
        st = append_norms(o, counted ? o->norms : o->update, counted);
    return st ? st : append_updates(o, o->update, counted ? 1 : o->blocks);
}

gt_status optim_share(optim *o, const unsigned char *counted)
{
    gt_status st = build_lists(o, counted);
    free(o->sums);
    o->sums = malloc(((size_t)o->blocks + 1) * sizeof *o->sums);
    return st || o->sums ? st : gt_fail(GT_NO_MEMORY, "cannot share an optimizer: out of memory");
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
        st = dev_list_set(o->update, o->lr_at[i].launch, o->lr_at[i].arg, dev_arg_f32((float)lr));
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
                       const optim_config *c, double tokens)
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
    if (!o->moment || !o->lr_at || !o->partial)
        st = gt_fail(GT_NO_MEMORY, "cannot make an optimizer: out of memory");
    if (!st)
        st = make_buffers(o, k);
    if (!st)
        st = clear_buffers(o);
    if (!st)
        st = build_lists(o, NULL);
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
    for (int i = 0; o->partial && i < o->segments; i++)
        dev_buffer_release(o->partial[i]);
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

int optim_moments(const optim *o)
{
    return o->moments;
}

/* Where moment `which` of parameter i lies. */
static dev_buffer *moment_place(optim *o, int i, int which, uint64_t *offset, uint64_t *bytes)
{
    int segment;
    int64_t first;
    params_place(o->params, i, &segment, &first);
    *offset = 4 * (uint64_t)first;
    *bytes = 4 * (uint64_t)shape_count(&params_info(o->params, i)->shape);
    assert(0 <= which && which < 2);
    return o->moment[segment][which];
}

gt_status optim_moment_read(optim *o, int i, int which, float *to)
{
    uint64_t offset, bytes;
    dev_buffer *b = moment_place(o, i, which, &offset, &bytes);
    return b ? dev_read(o->device, b, offset, to, bytes)
             : gt_fail(GT_NOT_FOUND, "this optimizer keeps no moment %d", which);
}

gt_status optim_moment_write(optim *o, int i, int which, const float *from)
{
    uint64_t offset, bytes;
    dev_buffer *b = moment_place(o, i, which, &offset, &bytes);
    return b ? dev_write(o->device, b, offset, from, bytes)
             : gt_fail(GT_NOT_FOUND, "this optimizer keeps no moment %d", which);
}

void optim_moment_range(const optim *o, int i, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = shape_count(&params_info(o->params, i)->shape);
}

gt_status optim_moment_write_full(optim *o, int i, int which, const float *full)
{
    const graph_param_info *info = params_info(o->params, i);
    int64_t begin, end;
    optim_moment_range(o, i, &begin, &end);
    float *held = malloc(4 * (size_t)shape_count(&info->shape) + 1);
    if (!held)
        return gt_fail(GT_NO_MEMORY, "cannot write the moments of '%s': out of memory", info->name);
    tensor_slice_take(held, full, &info->full, &info->slice);
    gt_status st = begin < end ? optim_moment_write(o, i, which, held + begin) : GT_OK;
    free(held);
    return st;
}
