/* SPDX-License-Identifier: MIT */
/* host/sync/sync.c - the table of modes, a run of one of them, and what all ranks add up. */
#include "host/compress/compressor.h"
#include "host/sync/mode.h"

#include "host/base/clock.h"
#include "host/base/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first is the usual one. */
static const sync_mode *const sync_modes[] = {
    &sync_allreduce, &sync_sharded, &sync_ps, &sync_async, &sync_local, NULL
};

const sync_mode *sync_mode_at(int i)
{
    return sync_modes[i];
}

const sync_mode *sync_mode_find(const char *name)
{
    for (int i = 0; sync_modes[i]; i++)
        if (!strcmp(sync_modes[i]->name, name))
            return sync_modes[i];
    return NULL;
}

const char *sync_mode_name(const sync_mode *m)
{
    return m->name;
}

const char *sync_mode_help(const sync_mode *m)
{
    return m->help;
}

int sync_mode_shares_state(const sync_mode *m)
{
    return m->shares_state;
}

double sync_mode_state_share(const sync_mode *m, const sync_settings *settings, int holders)
{
    sync_settings usual;
    if (!m->state_share)
        return m->shares_state ? 1.0 / holders : 1.0;
    if (!settings)
        sync_settings_usual(m, &usual);
    return m->state_share(settings ? settings : &usual, holders);
}

int sync_mode_serves_only(const sync_mode *m, const sync_settings *settings, int rank)
{
    return settings && m->serves_only && m->serves_only(settings, rank);
}

int sync_mode_trains_apart(const sync_mode *m)
{
    return m->trains_apart;
}

int sync_mode_holds_all(const sync_mode *m)
{
    return m->holds_all;
}

int sync_mode_shares_equally(const sync_mode *m, const sync_settings *settings)
{
    sync_settings usual;
    sync_settings_usual(m, &usual);
    return m->shares_equally ? m->shares_equally(settings ? settings : &usual) : 0;
}

int sync_mode_compresses(const sync_mode *m)
{
    return m->compresses;
}

const sync_mode *sync_mode_alone(void)
{
    return &sync_alone;
}

void sync_mode_names(char *out)
{
    size_t used = 0;
    for (int i = 0; sync_modes[i]; i++)
        used += (size_t)snprintf(out + used, SYNC_NAMES - used, "%s%s", i ? "|" : "", sync_modes[i]->name);
}

const sync_mode *sync_mode_with(const sync_mode *m, const compress_spec *c, int replicas)
{
    return m->holds_all && replicas > 1 && compress_goes_apart(c) ? &sync_signs_apart : m;
}

gt_status sync_mode_allows(const sync_mode *m, const sync_settings *settings, const optim_config *c, dtype storage,
                           const compress_spec *spec)
{
    const compressor *form = spec ? spec->how : NULL;
    if (!m->compresses && form && compressor_changes(form))
        return gt_fail(GT_UNSUPPORTED, "--sync %s sends what it sends as it is; leave out --compress %s", m->name,
                       compressor_name(form));
    if (!m->holds_all && form && form->moments)
        return gt_fail(GT_UNSUPPORTED,
                       "--compress %s needs all of the momentum on every rank, and --sync %s leaves a part of it to "
                       "each; use --sync allreduce",
                       compressor_name(form), m->name);
    if (form && compress_goes_apart(spec) && storage == DTYPE_F16)
        return gt_fail(
            GT_UNSUPPORTED,
            "local=%g of --compress %s has replicas make steps apart, and with --precision fp16 each would skip "
            "and scale its own; use bf16 or fp32",
            spec->local, compressor_name(form));
    return m->allows ? m->allows(settings, c, storage) : GT_OK;
}

gt_status sync_mode_prepare(const sync_mode *m, const sync_settings *settings, sync_holders *h)
{
    return m->prepare ? m->prepare(settings, h) : GT_OK;
}

gt_status sync_mode_parts(const sync_mode *m, const sync_settings *settings, const sync_holders *h, const params *p,
                          optim_part **list, int *count)
{
    *count = 0;
    *list = malloc(sizeof **list);      /* an empty list is one, too: optim_create() takes none for all there is */
    return *list ? m->parts(settings, h, p, list, count) : gt_fail(GT_NO_MEMORY, "no memory for what a rank updates");
}

/* ---- a run ----------------------------------------------------------------------------------- */

gt_status sync_create(sync_run **out, const sync_options *o)
{
    *out = NULL;
    sync_run *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of how ranks stay together");
    s->o = *o;
    sync_settings_usual(o->mode, &s->settings);
    if (o->settings)
        s->settings = *o->settings;
    s->o.settings = &s->settings;
    if (o->comm)
        s->each = calloc((size_t)net_comm_size(o->comm), sizeof *s->each);
    gt_status st = o->comm && !s->each
                       ? gt_fail(GT_NO_MEMORY, "no memory for the totals of %d ranks", net_comm_size(o->comm))
                       : GT_OK;
    if (!st && o->comm)
        st = sync_mode_allows(o->mode, &s->settings, optim_config_of(o->optim), kernel_set_storage(o->kernels),
                              &o->compress);
    if (!st && o->mode->create)
        st = o->mode->create(s);
    if (st) {
        sync_release(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

void sync_release(sync_run *s)
{
    if (!s)
        return;
    if (s->o.mode->release)
        s->o.mode->release(s);
    free(s->each);
    free(s);
}

int sync_is_together(const sync_run *s)
{
    return s->each != NULL;
}

gt_status sync_begin(sync_run *s)
{
    return s->o.mode->begin ? s->o.mode->begin(s) : GT_OK;
}

void sync_step(sync_run *s, uint64_t step, double own_weight, double all_weight)
{
    s->step = step;
    s->own_weight = own_weight;
    s->all_weight = all_weight;
}

int sync_meets(const sync_run *s, uint64_t step)
{
    return !s->o.mode->meets || step == s->o.steps || s->o.mode->meets(s, step);
}

int sync_is_apart(const sync_run *s, uint64_t step)
{
    return s->o.mode->apart ? s->o.mode->apart(s, step) : 0;
}

int sync_takes_part(const sync_run *s, uint64_t step, int replica)
{
    return s->o.mode->takes_part ? s->o.mode->takes_part(s, step, replica) : 1;
}

gt_status sync_pass(sync_run *s, uint64_t *sent)
{
    *sent = 0;
    return s->o.mode->pass ? s->o.mode->pass(s, sent) : GT_OK;
}

gt_status sync_keep(sync_run *s)
{
    return s->o.mode->keep ? s->o.mode->keep(s) : GT_OK;
}

int sync_stops(const sync_run *s, int chunk, int stops[SYNC_STOPS])
{
    return s->o.mode->stops ? s->o.mode->stops(s, chunk, stops) : 0;
}

int sync_wants(const sync_run *s, int chunk, int stops[SYNC_WANTS])
{
    return s->o.mode->wants ? s->o.mode->wants(s, chunk, stops) : 0;
}

gt_status sync_wanted(sync_run *s, int chunk, int until)
{
    return s->o.mode->wanted ? s->o.mode->wanted(s, chunk, until) : GT_OK;
}

gt_status sync_settle(sync_run *s)
{
    return s->o.mode->settle ? s->o.mode->settle(s) : GT_OK;
}

gt_status sync_ready(sync_run *s, int chunk, int done, int last)
{
    return s->o.mode->ready ? s->o.mode->ready(s, chunk, done, last) : GT_OK;
}

gt_status sync_update(sync_run *s, double lr)
{
    return s->o.mode->update(s, lr);
}

int sync_when(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended)
{
    *began = *ended = 0;
    return s->o.mode->when ? s->o.mode->when(s, chunk, began, ended) : 0;
}

int sync_saved(sync_run *s, checkpoint_state *states)
{
    return s->o.mode->saved ? s->o.mode->saved(s, states) : 0;
}

void sync_explain(const sync_run *s, gt_text *out)
{
    if (s->o.mode->explain)
        s->o.mode->explain(s, out);
}

/* ---- totals ---------------------------------------------------------------------------------- */

uint64_t sync_updates(const sync_run *s)
{
    return s->updates;
}

void sync_compressed(const sync_run *s, double *encoded, double *summed)
{
    *encoded = s->encoded;
    *summed = s->summed;
}

uint64_t sync_update_began(const sync_run *s)
{
    return s->update_ns;
}

const sync_totals *sync_totals_of(const sync_run *s)
{
    return &s->totals;
}

const sync_totals *sync_totals_each(const sync_run *s)
{
    return s->each;
}

gt_status sync_totals_sum(net_group *g, sync_totals *t, sync_totals *each)
{
    const int ranks = net_group_size(g);
    sync_totals *all = malloc((size_t)ranks * sizeof *all), sum = { 0 };
    if (!all)
        return gt_fail(GT_NO_MEMORY, "no memory for the totals of %d ranks", ranks);
    const uint64_t traced = gt_trace_begin();
    all[net_group_rank(g)] = *t;
    gt_status st = net_all_gather(g, all, (uint64_t)ranks * sizeof *all / 4, NULL, NET_I32, NULL);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "loss and norm of all ranks", traced);
    for (int r = 0; !st && r < ranks; r++) {    /* in the order of ranks: the same bits everywhere */
        sum.loss += all[r].loss;
        sum.squares += all[r].squares;
        sum.stop += all[r].stop;
        sum.stopped += all[r].stopped;
        sum.busy += all[r].busy;
        sum.seconds += all[r].seconds;
        sum.waits += all[r].waits;
        sum.sent += all[r].sent;
        sum.copied += all[r].copied;
        for (int i = 0; i < 2; i++) {
            sum.most[i] = fmax(sum.most[i], all[r].most[i]);
            sum.error[i] += all[r].error[i];
            sum.size[i] += all[r].size[i];
        }
        sum.held += all[r].held;
        sum.spared += all[r].spared;
    }
    if (!st && each)
        memcpy(each, all, (size_t)ranks * sizeof *all);
    *t = sum;
    free(all);
    return st;
}

gt_status sync_update_summed(sync_run *s, double lr, uint64_t sent)
{
    return sync_update_counted(s, lr, sent, 1);
}

gt_status sync_update_counted(sync_run *s, double lr, uint64_t sent, int counts)
{
    sync_totals sum = { 0 };
    gt_status st = optim_partial(s->o.optim, &sum.squares, &sum.loss);
    sum.squares = counts ? sum.squares : 0.0;
    sum.held = (double)s->held;
    sum.spared = (double)s->spared;
    if (!st)
        st = s->o.tell(s->o.context, sent, &sum);
    if (!st)
        st = sync_totals_sum(net_group_world(s->o.comm), &sum, s->each);
    s->totals = st ? (sync_totals){ 0 } : sum;
    if (!st && sum.stopped > 0.0)               /* the same on all ranks: nobody updates */
        st = gt_fail(GT_INTERRUPTED, "stopped within a step");
    s->update_ns = gt_now_ns();
    if (!st)
        st = optim_step_with(s->o.optim, lr, sum.squares, sum.loss);
    s->updates += !st;
    return st;
}

gt_status sync_update_apart(sync_run *s, double lr, uint64_t sent)
{
    sync_totals sum = { 0 };
    net_group *replica = sync_holders_replica(s->o.holders);
    gt_status st = optim_partial(s->o.optim, &sum.squares, &sum.loss);
    if (!st)
        st = s->o.tell(s->o.context, sent, &sum);
    if (!st && replica)
        st = sync_totals_sum(replica, &sum, NULL);
    s->totals = st ? (sync_totals){ 0 } : sum;
    s->update_ns = gt_now_ns();
    return st ? st : optim_step_with(s->o.optim, lr, sum.squares, sum.loss);
}

double sync_replica_seconds(const sync_run *s)
{
    net_group *replica = sync_holders_replica(s->o.holders);
    return s->totals.seconds / (replica ? net_group_size(replica) : 1);
}
