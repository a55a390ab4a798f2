/* SPDX-License-Identifier: MIT */
/* host/optim/optim.c - one launch list an update.
 *
 *   loss sum -> state | norm of each part -> partial sums | prepare | update of each
 *   unit | state -> gradient scale
 *
 * State lies as the parameters do (params.h), one buffer a unit and slot, so the update of a range is one
 * launch over plain arrays, gaps included: zeros stay zeros.
 *
 * Of several ranks each updates its parts of segments, mostly all of them, and counts some of them; the
 * list ends before "prepare" there, and what the host then adds up over the ranks takes the
 * place of the partial sums. Where ranks have slices of a tensor that the rule needs whole, the update pauses
 * at stops, at which the host adds up sums (rule.h).                                     */
#include "host/optim/optim_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static gt_status no_memory(const char *what)
{
    return gt_fail(GT_NO_MEMORY, "cannot make an optimizer: no memory for %s", what);
}

/* ---- units ----------------------------------------------------------------------------------- */

int64_t optim_slot_count(optim_extent extent, int64_t elements, int64_t rows, int64_t columns)
{
    return extent == OPTIM_AS_PARAM ? elements : extent == OPTIM_PER_ROW ? rows : columns;
}

static gt_status add_unit(optim *o, const optim_unit *u)
{
    optim_unit *more = realloc(o->unit, (size_t)(o->units + 1) * sizeof *more);
    if (!more)
        return no_memory("its units");
    o->unit = more;
    more[o->units++] = *u;
    return GT_OK;
}

/* Elements [first, end) of a segment that no tensor has to itself, as far as they are this rank's. */
static gt_status add_range(optim *o, int segment, int64_t first, int64_t end)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < o->parts; i++) {
        const optim_part *p = &o->part[i];
        const int64_t from = first > p->first ? first : p->first;
        const int64_t to = end < p->first + p->count ? end : p->first + p->count;
        const optim_unit u = { .count = to - from, .param = -1, .segment = segment, .first = from };
        if (p->segment == segment && to > from)
            st = add_unit(o, &u);
    }
    return st;
}

/* The part that has some of the elements [first, first + count); NULL: none has. */
static const optim_part *part_with(const optim *o, int segment, int64_t first, int64_t count)
{
    for (int i = 0; i < o->parts; i++) {
        const optim_part *p = &o->part[i];
        if (p->segment == segment && first < p->first + p->count && p->first < first + count)
            return p;
    }
    return NULL;
}

static gt_status add_tensor(optim *o, int i, int segment, int64_t first)
{
    const graph_param_info *info = params_info(o->params, i);
    const int64_t count = shape_count(&info->shape),
                  columns = info->shape.rank ? info->shape.dim[info->shape.rank - 1] : 1;
    const int64_t all = shape_count(&info->full),
                  all_columns = info->full.rank ? info->full.dim[info->full.rank - 1] : 1;
    const optim_unit u = {
        .count = count,
        .rows = (int)(info->shape.rank > 1 ? count / columns : 1),
        .columns = (int)columns,
        .all_columns = (int)all_columns,
        .all_rows = (int)(info->full.rank > 1 ? all / all_columns : 1),
        .cut = info->slice.parts > 0,
        .param = i,
        .segment = segment,
        .first = first
    };
    const optim_part *p = part_with(o, segment, first, count);
    if (!p)
        return GT_OK;
    if ((u.cut && !o->ranks.sum) || first < p->first || first + count > p->first + p->count)
        return gt_fail(GT_UNSUPPORTED,
                       "optimizer %s needs '%s' whole, and this rank has a part of it; use "
                       "--tensor 1, or another --optimizer",
                       o->config.rule->name, info->name);
    return add_unit(o, &u);
}

/* Cuts a segment at the tensors that the rule wants whole. */
static gt_status cut_segment(optim *o, int segment)
{
    const int64_t step = params_step(o->params);
    int64_t from = 0, first;
    int at;
    gt_status st = GT_OK;
    for (int i = 0; !st && o->config.rule->whole && i < params_count(o->params); i++) {
        const graph_param_info *info = params_info(o->params, i);
        params_place(o->params, i, &at, &first);    /* rising within a segment */
        if (at != segment || !o->config.rule->whole(info))
            continue;
        st = add_range(o, segment, from, first);
        if (!st)
            st = add_tensor(o, i, segment, first);
        from = (first + shape_count(&info->shape) + step - 1) / step * step;    /* gaps are left out */
    }
    return st ? st : add_range(o, segment, from, params_segment_at(o->params, segment)->count);
}

static gt_status view(dev_buffer **out, dev_buffer *of, uint64_t item, int64_t first, int64_t count)
{
    return of ? dev_buffer_view(out, of, item * (uint64_t)first, item * (uint64_t)count) : GT_OK;
}

/* Views of what is updated, and its state. */
static gt_status fill_unit(optim *o, optim_unit *u)
{
    const params_segment *s = params_segment_at(o->params, u->segment);
    const optim_rule *rule = o->config.rule;
    const graph_param_info *info = u->param < 0 ? NULL : params_info(o->params, u->param);
    const unsigned kept = optim_rule_keeps(&o->config, info);
    u->decay = s->decay ? (float)o->config.weight_decay : 0.0f;
    gt_status st = view(&u->master, s->master, 4, u->first, u->count);
    if (!st)
        st = view(&u->grad, s->grad, 4, u->first, u->count);
    if (!st)
        st = view(&u->copy, s->copy, dtype_size(kernel_set_storage(o->kernels)), u->first, u->count);
    for (int k = 0; !st && k < rule->slot_count; k++) {
        const int64_t n = optim_slot_count(rule->slots[k].extent, u->count, u->rows, u->columns);
        if (kept >> k & 1)
            st = dev_buffer_create_zero(&u->slot[k], o->device, 4 * (uint64_t)n, "the optimizer's state");
    }
    return st;
}

static gt_status make_units(optim *o)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < o->segments; i++)
        st = cut_segment(o, i);
    for (int i = 0; !st && i < o->units; i++)
        st = fill_unit(o, &o->unit[i]);
    return st;
}

/* ---- slices of tensors ----------------------------------------------------------------------- */

kernel_slice optim_slice_of(const optim_update *u, const optim_unit *unit)
{
    const graph_param_info *info = params_info(u->of->params, unit->param);
    const tensor_slice *s = &info->slice;
    const int last = info->full.rank - 1;
    int64_t inner = 1;
    kernel_slice at = {
        { unit->all_rows, 0, unit->all_rows }, { unit->all_columns, 0, unit->all_columns }, unit->all_columns
    };
    for (int i = s->dim + 1; i < last; i++)
        inner *= info->full.dim[i];
    const kernel_axis axis = { (int)(s->full * inner), (int)(s->begin * inner), (int)(s->count * inner) };
    *(s->dim == last ? &at.column : &at.row) = axis;
    return at;
}

static const char *name_of(const optim *o, int unit)
{
    return params_info(o->params, o->unit[unit].param)->name;
}

/* By name: segments may follow each other in another order on another rank. */
static gt_status find_cuts(optim *o)
{
    o->cut = calloc((size_t)o->units + 1, sizeof *o->cut);
    for (int i = 0; o->cut && i < o->units; i++) {
        int at = o->cuts;
        if (!o->unit[i].cut)
            continue;
        for (; at && strcmp(name_of(o, o->cut[at - 1]), name_of(o, i)) > 0; at--)
            o->cut[at] = o->cut[at - 1];
        o->cut[at] = i;
        o->cuts++;
    }
    return o->cut ? GT_OK : no_memory("its slices");
}

static int64_t sums_of(const optim *o, int i, int pass)
{
    const optim_rule *r = o->config.rule;
    const int64_t step = params_step(o->params), n = r->sums ? r->sums(&o->unit[o->cut[i]], pass) : 0;
    return (n + step - 1) / step * step;
}

static int64_t all_sums(const optim *o, int pass)
{
    int64_t all = 0;
    for (int i = 0; i < o->cuts; i++)
        all += sums_of(o, i, pass);
    return all;
}

static gt_status make_sums(optim *o)
{
    const optim_rule *r = o->config.rule;
    gt_status st = GT_OK;
    assert(r->passes <= OPTIM_PASSES);
    for (int pass = 0; !st && pass < r->passes; pass++) {
        const int64_t all = all_sums(o, pass);
        int64_t at = 0;
        if (all)
            st = dev_buffer_create_zero(&o->pass[pass], o->device, 4 * (uint64_t)all, "sums over ranks");
        for (int i = 0; !st && all && i < o->cuts; i++) {
            const int64_t n = sums_of(o, i, pass);
            if (n)
                st = view(&o->unit[o->cut[i]].sums[pass], o->pass[pass], 4, at, n);
            at += n;
        }
    }
    for (int i = 0; !st && r->own && i < o->cuts; i++) {
        optim_unit *u = &o->unit[o->cut[i]];
        if (r->own(u))
            st = dev_buffer_create_zero(&u->own, o->device, 4 * (uint64_t)r->own(u), "the optimizer's scratch memory");
    }
    return st;
}

gt_status optim_adds(optim_update *u, dev_buffer *x, int64_t count)
{
    optim *o = u->of;
    if (o->stops == o->stop_room) {
        const int room = o->stop_room ? 2 * o->stop_room : 16;
        optim_stop *more = realloc(o->stop, (size_t)room * sizeof *more);
        if (!more)
            return no_memory("its sums over ranks");
        o->stop = more;
        o->stop_room = room;
    }
    o->stop[o->stops++] = (optim_stop){ dev_list_count(u->list), x, count };
    return GT_OK;
}

static gt_status append_slices(optim *o)
{
    const optim_rule *r = o->config.rule;
    gt_status st = GT_OK;
    for (int pass = 0; !st && o->cuts && pass < r->passes; pass++) {
        for (int i = 0; !st && i < o->cuts; i++)
            st = r->append_slice(&o->with, &o->unit[o->cut[i]], pass);
        if (!st && o->pass[pass])
            st = optim_adds(&o->with, o->pass[pass], all_sums(o, pass));
    }
    return st;
}

/* ---- buffers --------------------------------------------------------------------------------- */

/* Zero: a skipped step computes with what is there. */
static gt_status make_scratch(optim *o)
{
    uint64_t bytes[OPTIM_SCRATCH] = { 0 };
    gt_status st = GT_OK;
    for (int i = 0; !st && o->config.rule->scratch && i < o->units; i++)
        st = o->config.rule->scratch(&o->with, &o->unit[i], bytes);
    for (int i = 0; !st && i < OPTIM_SCRATCH; i++)
        if (bytes[i])
            st = dev_buffer_create_zero(&o->with.scratch[i], o->device, bytes[i], "the optimizer's scratch memory");
    return st;
}

static gt_status make_buffers(optim *o)
{
    gt_status st = GT_OK;
    int64_t blocks = 0;
    for (int i = 0; !st && i < o->parts; i++) {
        const optim_part *p = &o->part[i];
        const int64_t sums = kernel_norm_blocks(o->kernels, p->count);
        blocks += sums;
        st = view(&o->grad[i], params_segment_at(o->params, p->segment)->grad, 4, p->first, p->count);
        if (!st)
            st = dev_buffer_create(&o->partial[i], o->device, 4 * (uint64_t)sums, "partial norms");
    }
    if (!st)
        st = dev_buffer_create(&o->squares, o->device, 4 * (uint64_t)(blocks + 1), "partial norms");
    if (!st)
        st = dev_buffer_create(&o->state, o->device, 4 * OPTIM_STATE_FLOATS, "optimizer state");
    if (!st)
        st = dev_buffer_create(&o->grad_scale, o->device, 4, "the gradient scale");
    if (!st)                            /* a stage without the head never writes it */
        st = dev_buffer_create_zero(&o->loss_sum, o->device, 4, "the loss sum");
    return st;
}

/* ---- launches -------------------------------------------------------------------------------- */

/* The partial sums of all parts are gathered by small copies: a view into one array
 * would need an alignment that the counts do not have. */
static gt_status append_norms(optim *o, dev_list *l)
{
    gt_status st = GT_OK;
    o->blocks = 0;
    dev_list_label(l, "gradient norm");
    for (int i = 0; !st && i < o->parts; i++) {
        const int64_t count = o->part[i].count, blocks = kernel_norm_blocks(o->kernels, count);
        if (!o->part[i].counted)
            continue;
        st = kernel_norm_partial(l, o->kernels, count, o->grad[i], o->partial[i]);
        if (!st)
            st = dev_list_copy(l, o->squares, 4 * (uint64_t)o->blocks, o->partial[i], 0, 4 * (uint64_t)blocks);
        o->blocks += blocks;
    }
    return st;
}

gt_status optim_takes_lr(optim_update *u, kernel_slot at, double scale)
{
    optim *o = u->of;
    if (o->rates == o->rate_room) {
        const int room = o->rate_room ? 2 * o->rate_room : 16;
        optim_rate *more = realloc(o->rate, (size_t)room * sizeof *more);
        if (!more)
            return no_memory("its learning rates");
        o->rate = more;
        o->rate_room = room;
    }
    o->rate[o->rates++] = (optim_rate){ at, scale };
    return GT_OK;
}

gt_status optim_takes_form(optim_update *u, const optim_unit *unit, kernel_slot at)
{
    optim *o = u->of;
    if (o->form_count == o->form_room) {
        const int room = o->form_room ? 2 * o->form_room : 16;
        optim_form *more = realloc(o->forms, (size_t)room * sizeof *more);
        if (!more)
            return no_memory("its first moments");
        o->forms = more;
        o->form_room = room;
    }
    o->forms[o->form_count++] = (optim_form){ at, unit->segment };
    return GT_OK;
}

static gt_status append_updates(optim *o, dev_list *l, int64_t blocks)
{
    const optim_config *c = &o->config;
    const int dynamic = kernel_set_storage(o->kernels) == DTYPE_F16;
    dev_list_label(l, "optimizer");
    gt_status st = kernel_optim_prepare(l, o->kernels, blocks, o->squares, o->state, (float)c->clip, c->beta1, c->beta2,
                                        dynamic, c->scale_growth, &o->weigh, &o->held);
    o->with.list = l;
    for (int i = 0; !st && i < o->units; i++)
        if (!o->unit[i].cut)
            st = c->rule->append(&o->with, &o->unit[i]);
    if (!st)
        st = append_slices(o);
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
    return st || o->sums ? st : no_memory("partial norms");
}

/* ---- making it ------------------------------------------------------------------------------- */

static gt_status make_parts(optim *o, const optim_ranks *ranks)
{
    const optim_part *parts = ranks ? ranks->parts : NULL;
    o->segments = params_segments(o->params);
    const int most = parts ? ranks->part_count : o->segments;
    o->partial = calloc((size_t)most + 1, sizeof *o->partial);
    o->grad = calloc((size_t)most + 1, sizeof *o->grad);
    o->part = calloc((size_t)most + 1, sizeof *o->part);
    o->form = calloc((size_t)o->segments + 1, sizeof *o->form);
    o->shared = ranks != NULL;
    if (ranks)
        o->ranks = (optim_ranks){ .sum = ranks->sum, .context = ranks->context };
    for (int i = 0; o->part && i < most; i++) {
        const optim_part all = { i, 0, parts ? 0 : params_segment_at(o->params, i)->count, 1 };
        o->part[o->parts] = parts ? parts[i] : all;
        o->parts += o->part[o->parts].count > 0;
    }
    return o->partial && o->grad && o->part && o->form ? GT_OK : no_memory("its parts");
}

static gt_status begin_state(optim *o)
{
    float state[OPTIM_STATE_FLOATS] = { 0 };
    const double scale = kernel_set_storage(o->kernels) == DTYPE_F16 ? o->config.loss_scale : 1.0;
    state[OPTIM_LOSS_SCALE] = (float)scale;
    state[OPTIM_GRAD_SCALE] = (float)(scale / o->tokens);
    state[OPTIM_CLIP] = 1.0f;
    return optim_state_write(o, state);
}

gt_status optim_create(optim **out, dev_device *d, kernel_set *k, gemm_context *g, params *p, const optim_config *c,
                       double tokens, const optim_ranks *ranks)
{
    *out = NULL;
    gt_status st = optim_config_check(c);
    if (st)
        return st;
    assert(g || !c->rule->products);
    optim *o = calloc(1, sizeof *o);
    if (!o)
        return no_memory("itself");
    o->device = d;
    o->kernels = k;
    o->params = p;
    o->config = *c;
    o->tokens = o->weights = tokens;
    st = make_parts(o, ranks);
    if (!st)
        st = make_units(o);
    if (!st)
        st = find_cuts(o);
    if (!st)
        st = make_sums(o);
    if (!st)
        st = make_buffers(o);
    o->with = (optim_update){ .kernels = k, .gemm = g, .config = &o->config, .state = o->state, .of = o };
    if (!st)
        st = make_scratch(o);
    if (!st)
        st = build_lists(o);
    if (!st)
        st = begin_state(o);
    if (st) {
        optim_release(o);
        return st;
    }
    *out = o;
    return GT_OK;
}

static void release_unit(optim_unit *u)
{
    dev_buffer_release(u->master);
    dev_buffer_release(u->grad);
    dev_buffer_release(u->copy);
    for (int k = 0; k < OPTIM_SLOTS; k++)
        dev_buffer_release(u->slot[k]);
    for (int i = 0; i < OPTIM_PASSES; i++)
        dev_buffer_release(u->sums[i]);
    dev_buffer_release(u->own);
}

void optim_release(optim *o)
{
    if (!o)
        return;
    dev_list_release(o->norms);
    dev_list_release(o->update);
    for (int i = 0; i < o->units; i++)
        release_unit(&o->unit[i]);
    for (int i = 0; o->grad && i < o->parts; i++)
        dev_buffer_release(o->grad[i]);
    for (int i = 0; o->partial && i < o->parts; i++)
        dev_buffer_release(o->partial[i]);
    for (int i = 0; i < OPTIM_SCRATCH; i++)
        dev_buffer_release(o->with.scratch[i]);
    for (int i = 0; i < OPTIM_PASSES; i++)
        dev_buffer_release(o->pass[i]);
    dev_buffer_release(o->squares);
    dev_buffer_release(o->state);
    dev_buffer_release(o->grad_scale);
    dev_buffer_release(o->loss_sum);
    free(o->sums);
    free(o->unit);
    free(o->rate);
    free(o->forms);
    free(o->form);
    free(o->cut);
    free(o->stop);
    free(o->part);
    free(o->grad);
    free(o->partial);
    free(o);
}

/* ---- a step ---------------------------------------------------------------------------------- */

gt_status optim_partial(optim *o, double *squares, double *loss)
{
    float sum = 0.0f;
    gt_status st = dev_run(o->norms, 0, -1);
    if (!st && o->blocks)               /* the queue is in order: the read behind it waits for this one, too */
        st = dev_read_start(o->device, o->squares, 0, o->sums, 4 * (uint64_t)o->blocks, NULL);
    if (!st)
        st = dev_read(o->device, o->loss_sum, 0, &sum, 4);
    *squares = 0.0;
    for (int64_t i = 0; !st && i < o->blocks; i++)
        *squares += (double)o->sums[i];
    *loss = (double)sum;
    return st;
}

void optim_weigh(optim *o, double weights)
{
    o->weights = weights;
}

double optim_weighs(const optim *o)
{
    return o->weights > 0.0 ? o->tokens / o->weights : 0.0;
}

double optim_beta1(const optim *o)
{
    return o->config.beta1;
}

dev_buffer *optim_moments(const optim *o, int segment)
{
    for (int i = 0; o->config.rule->moments && i < o->units; i++)
        if (o->unit[i].segment == segment)
            return o->unit[i].count == params_segment_at(o->params, segment)->count ? o->unit[i].slot[0] : NULL;
    return NULL;
}

void optim_form_set(optim *o, int segment, adamw_form form)
{
    assert(form == ADAMW_GRADIENTS || o->config.rule->moments);
    o->form[segment] = (unsigned char)form;
}

static gt_status set_weigh(optim *o)
{
    int held = 0;
    for (int i = 0; i < o->segments; i++)
        held |= o->form[i] != ADAMW_GRADIENTS;
    gt_status st = dev_list_set(o->update, o->weigh.launch, o->weigh.arg, dev_arg_f32((float)optim_weighs(o)));
    return st ? st : dev_list_set(o->update, o->held.launch, o->held.arg, dev_arg_i32(held));
}

static gt_status run_update(optim *o, double lr)
{
    gt_status st = set_weigh(o);
    for (int i = 0; !st && i < o->rates; i++)
        st = dev_list_set(o->update, o->rate[i].at.launch, o->rate[i].at.arg,
                          dev_arg_f32((float)(lr * o->rate[i].scale)));
    for (int i = 0; !st && i < o->form_count; i++)
        st = dev_list_set(o->update, o->forms[i].at.launch, o->forms[i].at.arg,
                          dev_arg_i32(o->form[o->forms[i].segment]));
    int from = 0;
    for (int i = 0; !st && i < o->stops; i++) {
        const optim_stop *s = &o->stop[i];
        if (s->at > from)
            st = dev_run(o->update, from, s->at);
        if (!st)
            st = o->ranks.sum(o->ranks.context, s->x, s->count);
        from = s->at;
    }
    return st ? st : dev_run(o->update, from, -1);
}

static gt_status take_totals(optim *o, double squares, double loss)
{
    /* Nothing else writes here until the next optim_partial(), which waits for the device. */
    o->sums[0] = (float)squares;
    o->total_loss = (float)loss;
    gt_status st = dev_write_start(o->device, o->squares, 0, &o->sums[0], 4, NULL);
    return st ? st : dev_write_start(o->device, o->state, 4 * OPTIM_LOSS_SUM, &o->total_loss, 4, NULL);
}

gt_status optim_step_with(optim *o, double lr, double squares, double loss)
{
    gt_status st = take_totals(o, squares, loss);
    return st ? st : run_update(o, lr);
}

gt_status optim_judge_with(optim *o, double squares, double loss)
{
    gt_status st = take_totals(o, squares, loss);
    if (!st)
        st = set_weigh(o);
    return st ? st : dev_run(o->update, 0, o->weigh.launch + 1);
}

const optim_config *optim_config_of(const optim *o)
{
    return &o->config;
}

dev_buffer *optim_grad_scale(optim *o)
{
    return o->grad_scale;
}

dev_buffer *optim_loss_sum(optim *o)
{
    return o->loss_sum;
}

dev_buffer *optim_state(optim *o)
{
    return o->state;
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
