/* SPDX-License-Identifier: MIT */
/* host/optim/optim_state.c - the state slots of a parameter, and how checkpoints see them.
 *
 *   first.h.0.mlp.c_fc.weight    elements as in the parameter, of a rank's part of it
 *   rows.h.0.mlp.c_fc.weight     one value a row
 *   scalars                      fp32[16], kernel.h                                      */
#include "host/optim/optim_private.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int optim_slots(const optim *o)
{
    return o->config.rule->slot_count;
}

uint64_t optim_slot_bytes(const optim *o)
{
    uint64_t sum = 0;
    for (int i = 0; i < o->units; i++)
        for (int k = 0; k < OPTIM_SLOTS; k++)
            sum += o->unit[i].slot[k] ? dev_buffer_bytes(o->unit[i].slot[k]) : 0;
    return sum;
}

/* The unit that updates some of parameter i here; NULL: none does. */
static const optim_unit *unit_of(const optim *o, int i)
{
    const int64_t count = shape_count(&params_info(o->params, i)->shape);
    int segment;
    int64_t first;
    params_place(o->params, i, &segment, &first);
    for (int k = 0; k < o->units; k++) {
        const optim_unit *u = &o->unit[k];
        if (u->segment == segment && u->first < first + count && first < u->first + u->count)
            return u;
    }
    return NULL;
}

/* Does the rule keep that slot of the parameter, on whatever rank? */
static int keeps(const optim *o, int i, int which)
{
    const graph_param_info *info = params_info(o->params, i);
    const optim_rule *r = o->config.rule;
    return !info->frozen && optim_rule_keeps(&o->config, r->whole && r->whole(info) ? info : NULL) >> which & 1;
}

void optim_range(const optim *o, int i, int64_t *begin, int64_t *end)
{
    const optim_unit *u = unit_of(o, i);
    const int64_t count = shape_count(&params_info(o->params, i)->shape);
    int segment;
    int64_t first;
    *begin = *end = 0;
    if (!u)
        return;
    params_place(o->params, i, &segment, &first);
    const int64_t from = u->first - first, to = from + u->count;
    *begin = from > 0 ? from : 0;
    *end = to < count ? to : count;
}

void optim_slot_range(const optim *o, int i, int which, int64_t *begin, int64_t *end)
{
    const optim_unit *u = unit_of(o, i);
    *begin = *end = 0;
    if (!u || !keeps(o, i, which))
        return;
    if (u->param == i)
        *end = optim_slot_count(o->config.rule->slots[which].extent, u->count, u->rows, u->columns);
    else
        optim_range(o, i, begin, end);
}

/* Where slot `which` of parameter i lies. */
static gt_status slot_place(optim *o, int i, int which, dev_buffer **b, uint64_t *offset, uint64_t *bytes)
{
    const optim_unit *u = unit_of(o, i);
    int segment;
    int64_t first, begin, end;
    assert(0 <= which && which < OPTIM_SLOTS);
    if (!u || which >= optim_slots(o) || !keeps(o, i, which))
        return gt_fail(GT_NOT_FOUND, "optimizer %s keeps no state %d of '%s' here", o->config.rule->name, which,
                       params_info(o->params, i)->name);
    params_place(o->params, i, &segment, &first);
    optim_slot_range(o, i, which, &begin, &end);
    *b = u->slot[which];
    *offset = u->param == i ? 0 : 4 * (uint64_t)(first + begin - u->first);
    *bytes = 4 * (uint64_t)(end - begin);
    return GT_OK;
}

gt_status optim_slot_read(optim *o, int i, int which, float *to)
{
    dev_buffer *b;
    uint64_t offset, bytes;
    gt_status st = slot_place(o, i, which, &b, &offset, &bytes);
    return st ? st : dev_read(o->device, b, offset, to, bytes);
}

gt_status optim_slot_write(optim *o, int i, int which, const float *from)
{
    dev_buffer *b;
    uint64_t offset, bytes;
    gt_status st = slot_place(o, i, which, &b, &offset, &bytes);
    return st ? st : dev_write(o->device, b, offset, from, bytes);
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

/* Entry i is a slot of a parameter, in this order: slot by slot all parameters of which it is kept, then
 * the scalars (*param -1). */
static void entry_at(const optim *o, int i, int *param, int *which)
{
    for (*which = 0; *which < optim_slots(o); (*which)++)
        for (*param = 0; *param < params_count(o->params); (*param)++)
            if (keeps(o, *param, *which) && i-- == 0)
                return;
    *param = -1;
}

static int saved_count(void *context)
{
    const optim *o = context;
    int count = 1;
    for (int k = 0; k < optim_slots(o); k++)
        for (int i = 0; i < params_count(o->params); i++)
            count += keeps(o, i, k);
    return count;
}

static void saved_entry(void *context, int i, checkpoint_entry *e)
{
    const optim *o = context;
    int param, which;
    entry_at(o, i, &param, &which);
    *e = (checkpoint_entry){ .param = param };
    if (param < 0) {
        snprintf(e->name, sizeof e->name, "scalars");
        e->full = shape_of(1, (int64_t)OPTIM_STATE_FLOATS);
        e->end = OPTIM_STATE_FLOATS;
        e->any_value = 1;               /* norm and loss of a step that fp16 skipped: no fault */
        return;
    }
    const graph_param_info *info = params_info(o->params, param);
    const optim_slot *s = &o->config.rule->slots[which];
    snprintf(e->name, sizeof e->name, "%s.%s", s->name, info->name);
    e->full = info->full;
    e->slice = info->slice;
    if (s->extent != OPTIM_AS_PARAM) {
        const int64_t n = shape_count(&info->full), columns = info->full.dim[info->full.rank - 1];
        const int cut = info->slice.parts
                        && (info->slice.dim == info->full.rank - 1) == (s->extent == OPTIM_PER_COLUMN);
        e->full = shape_of(1, optim_slot_count(s->extent, n, n / columns, columns));
        e->slice = cut ? info->slice : (tensor_slice){ 0 };
        e->slice.dim = 0;
        e->leaves = !cut && info->slice.parts && info->slice.begin > 0;
    }
    optim_slot_range(o, param, which, &e->begin, &e->end);
}

static gt_status saved_read(void *context, int i, float *to)
{
    optim *o = context;
    int param, which;
    dev_event *event = NULL;
    entry_at(o, i, &param, &which);
    if (param >= 0)
        return optim_slot_read(o, param, which, to);
    gt_status st = optim_state_read(o, to, &event);
    return st ? st : dev_event_wait(event);
}

static gt_status saved_write(void *context, int i, const float *from)
{
    static const int used[] = { OPTIM_STEP, OPTIM_LOSS_SCALE, OPTIM_GOOD_STEPS };
    float state[OPTIM_STATE_FLOATS];
    optim *o = context;
    int param, which;
    entry_at(o, i, &param, &which);
    if (param >= 0)
        return optim_slot_write(o, param, which, from);
    for (size_t k = 0; k < sizeof used / sizeof *used; k++)
        if (!isfinite(from[used[k]]))
            return gt_fail(GT_NUMERIC, "the optimizer's scalar %d is not finite", used[k]);
    memcpy(state, from, sizeof state);          /* a step may have more tokens now than it had then */
    if (state[OPTIM_VARIANCES] == 0.0f)         /* from before that was counted: none was held */
        state[OPTIM_VARIANCES] = state[OPTIM_STEP];
    state[OPTIM_GRAD_SCALE] = (float)((double)from[OPTIM_LOSS_SCALE] / o->tokens);
    return optim_state_write(o, state);
}

static int holds_slot(const char *const *names, int count, const char *slot)
{
    const size_t n = strlen(slot);
    for (int i = 0; i < count; i++)
        if (!strncmp(names[i], slot, n) && names[i][n] == '.')
            return 1;
    return 0;
}

/* Of any parameter that is here, or of any at all. */
static int keeps_any(const optim *o, int which)
{
    for (int i = 0; i < params_count(o->params); i++)
        if (keeps(o, i, which))
            return 1;
    return 0;
}

/* Is it a slot of the rule with these settings? Whether parameters that are here have it does not matter:
 * those of other stages may. */
static int knows(const optim *o, const char *slot)
{
    const graph_param_info matrix = {
        .full = shape_of(2, (int64_t)2, (int64_t)2), .shape = shape_of(2, (int64_t)2, (int64_t)2), .decay = 1
    };
    const graph_param_info vector = { .full = shape_of(1, (int64_t)2), .shape = shape_of(1, (int64_t)2) };
    const optim_rule *r = o->config.rule;
    const unsigned kept = optim_rule_keeps(&o->config, NULL)
                          | (r->whole ? optim_rule_keeps(&o->config, &matrix) | optim_rule_keeps(&o->config, &vector)
                                      : 0);
    for (int k = 0; k < r->slot_count; k++)
        if (!strcmp(r->slots[k].name, slot))
            return kept >> k & 1;
    return 0;
}

/* One rule's state would pass for another's, which it is not: AdamW's first moment for SGD's momentum. A
 * rule that keeps nothing needs none of what there is. */
static gt_status saved_check(void *context, const char *const *names, int count)
{
    const optim *o = context;
    static const char advice[] = "go on with the --optimizer and --momentum it was trained with";
    int some = 0;
    for (int k = 0; k < optim_slots(o); k++) {
        some |= keeps_any(o, k);
        if (keeps_any(o, k) && !holds_slot(names, count, o->config.rule->slots[k].name))
            return gt_fail(GT_MISMATCH, "it holds no %s, which this optimizer keeps; %s", o->config.rule->slots[k].what,
                           advice);
    }
    for (int r = 0; some && optim_rules[r]; r++)
        for (int k = 0; k < optim_rules[r]->slot_count; k++) {
            const optim_slot *s = &optim_rules[r]->slots[k];
            if (!knows(o, s->name) && holds_slot(names, count, s->name))
                return gt_fail(GT_MISMATCH, "it holds %s, which this optimizer does not keep; %s", s->what, advice);
        }
    return GT_OK;
}

checkpoint_state optim_saved(optim *o)
{
    return (checkpoint_state){
        .owner = "optimizer",
        .what = "optimizer's state",
        .context = o,
        .count = saved_count,
        .entry = saved_entry,
        .read = saved_read,
        .write = saved_write,
        .check = saved_check
    };
}
