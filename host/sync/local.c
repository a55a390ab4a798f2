/* SPDX-License-Identifier: MIT */
/* host/sync/local.c - replicas train by themselves and put together what they have learned.
 *
 *   replica 0   x0 ──► H steps of its own batches ──► x_0 ──┐
 *   replica 1   x0 ──► H steps of its own batches ──► x_1 ──┴─► outer step (outer.h) ──► x ──► H steps ...
 *
 * Within a replica all is as in allreduce.c: its ranks sum the gradients of what they share, and its norm clips.
 * Between replicas nothing travels but parameters, once in H steps. A replica's optimizer keeps its state.
 *
 *   --local-after S   the first S steps sum gradients (post-local SGD, Lin et al., ICLR 2020)
 *   --fragments P     the layers go one fragment at a time, H / P steps apart; layer i is in fragment i mod P, what
 *                     is in no layer in the last (Streaming DiLoCo, Douillard et al., arXiv 2501.18512)
 *   --overlap T       a sum begins T steps before it is due and travels beside them: counted in steps, never in
 *                     time, so a run repeats to the bit
 *   --mix A           of a fragment that arrives so, a replica keeps the share A of its own parameters
 *
 *   --local-uneven  replicas make steps of equal batches, and of the H steps of a round each makes as many as its speed
 *                   allows, spread evenly over it; the fastest makes all. A step has the rate of its place in the run
 *                   whoever takes part, and its batch is that of those who do, so no sample is left out or comes twice
 *
 * Sums that are due after H, 2H, ... are over there, so ranks meet with nothing under way. After the run's last
 * step each fragment has an outer step and nothing is kept, so that all replicas end as one model. */
#include "host/sync/local_rounds.h"

#include "host/base/trace.h"
#include "host/sync/blocks.h"

#include <stdlib.h>
#include <string.h>

static const sync_setting settings[LOCAL_SETTINGS] = {
    [LOCAL_STEPS] = { "local-steps", "H", "steps apart; checkpoints, validation, stops follow them", SYNC_COUNT, 30, 1,
                      1e9, NULL },
    [LOCAL_AFTER] = { "local-after", "STEPS", "first so many steps with sums of gradients", SYNC_COUNT, 0, 0, 1e15,
                      NULL },
    [LOCAL_OUTER] = { "outer", "average|sgd|nesterov|sparse", "the outer step", SYNC_CHOICE, 0, 0, 0, "average" },
    [LOCAL_LR] = { "outer-lr", "X", "learning rate of --outer sgd, nesterov and sparse", SYNC_NUMBER, 0.7, 0, 1e3,
                   NULL },
    [LOCAL_MOMENTUM] = { "outer-momentum", "X", "momentum of --outer sgd and nesterov", SYNC_NUMBER, 0.9, 0, 0.999999,
                         NULL },
    [LOCAL_FRAGMENTS] = { "fragments", "P", "parts of the layers, each with its own outer steps", SYNC_COUNT, 1, 1, 1e4,
                          NULL },
    [LOCAL_OVERLAP] = { "overlap", "T", "steps beside which an outer step's sum travels", SYNC_COUNT, 0, 0, 1e6, NULL },
    [LOCAL_MIX] = { "mix", "X", "share kept of a replica's own overlapped fragment", SYNC_NUMBER, 0.5, 0, 1, NULL },
    [LOCAL_KEEP] = { "sparse-keep", "X", "share of values that --outer sparse sends", SYNC_NUMBER, 1.0 / 64, 1e-6, 1,
                     NULL },
    [LOCAL_DECAY] = { "error-decay", "X", "what stays of unsent values a round, --outer sparse", SYNC_NUMBER, 0.95, 0,
                      1, NULL },
    [LOCAL_UNEVEN] = { "local-uneven", "off|auto|H0:H1:..", "each replica's steps of a round, auto: by speed",
                       SYNC_TEXT, 0, 0, 0, "off" },
};

/* Steps after the begin of a round at which fragment p is due. */
static uint64_t due_at(uint64_t every, uint64_t fragments, uint64_t p)
{
    return (p + 1) * every / fragments;
}

static gt_status check(const sync_settings *s, int ranks)
{
    const uint64_t every = (uint64_t)s->number[LOCAL_STEPS], fragments = (uint64_t)s->number[LOCAL_FRAGMENTS];
    const uint64_t overlap = (uint64_t)s->number[LOCAL_OVERLAP];
    if (ranks == 1)
        return gt_fail(GT_MISUSE, "--sync local is for several replicas, and there is one rank; leave it out");
    if (fragments > every)
        return gt_fail(GT_MISUSE, "--fragments %llu are more than one a step of --local-steps %llu",
                       (unsigned long long)fragments, (unsigned long long)every);
    if (overlap && overlap >= every / fragments)
        return gt_fail(GT_MISUSE,
                       "--overlap %llu must be below the %llu steps between outer steps (--local-steps / --fragments)",
                       (unsigned long long)overlap, (unsigned long long)(every / fragments));
    return local_uneven_check(s->word[LOCAL_UNEVEN], every, 0);
}

static gt_status check_replicas(const sync_settings *s, int replicas)
{
    return local_uneven_check(s->word[LOCAL_UNEVEN], (uint64_t)s->number[LOCAL_STEPS], replicas);
}

/* What takes fewer steps need not take fewer samples a step as well. */
static int shares_equally(const sync_settings *s)
{
    return !local_uneven_is_off(s->word[LOCAL_UNEVEN]);
}

/* A fragment without a layer would have outer steps of nothing. */
static gt_status check_layers(const sync_settings *s, int layers)
{
    const uint64_t fragments = (uint64_t)s->number[LOCAL_FRAGMENTS];
    return fragments <= 1 || fragments <= (uint64_t)layers
               ? GT_OK
               : gt_fail(GT_MISUSE,
                         "--fragments %llu are more than the model's %d layers, which they divide up; take "
                         "%d at most",
                         (unsigned long long)fragments, layers, layers);
}

static const char *idle(const sync_settings *s, int i)
{
    const char *outer = s->word[LOCAL_OUTER];
    const int average = !strcmp(outer, "average"), sparse = !strcmp(outer, "sparse");
    if (i == LOCAL_MIX && s->number[LOCAL_OVERLAP] == 0.0)
        return "--overlap 0";
    if ((i == LOCAL_LR || i == LOCAL_MOMENTUM) && average)
        return "--outer average";
    if (i == LOCAL_MOMENTUM && sparse)
        return "--outer sparse";
    if ((i == LOCAL_KEEP || i == LOCAL_DECAY) && !sparse)
        return average ? "--outer average" : !strcmp(outer, "sgd") ? "--outer sgd" : "--outer nesterov";
    return NULL;
}

/* ---- for plans -------------------------------------------------------------------------------- */

static sync_pace pace(const sync_settings *s)
{
    return (sync_pace){ s->number[LOCAL_STEPS], s->number[LOCAL_FRAGMENTS], s->number[LOCAL_OVERLAP] };
}

static sync_load load(const sync_settings *s, const sync_volume *v, int holders)
{
    const double values = v->plain + v->values, n = holders;
    if (outer_rule_find(s->word[LOCAL_OUTER])->sparse) {
        const double code = (double)sparse_bytes((int64_t)values, s->number[LOCAL_KEEP]);
        return (sync_load){ (n - 1) * code, (n - 1) * code, n - 1, 1.0, 1.0 };
    }
    const double ring = 2.0 * (n - 1) / n * 4.0 * values;
    return (sync_load){ ring, ring, 2.0 * (n - 1), 1.0, 1.0 };
}

/* What local_parts.c keeps; and the buckets of the first steps, where they are staged. */
static double host_bytes(const sync_settings *s, double slots, int holders, int staged)
{
    const outer_rule *rule = outer_rule_find(s->word[LOCAL_OUTER]);
    const double fragment = 1.0 / s->number[LOCAL_FRAGMENTS], keeps = 4.0 * (rule->starts + rule->moves + rule->sparse);
    const double code = (double)sparse_bytes(1 << 20, s->number[LOCAL_KEEP]) / (1 << 20);
    const int mixes = s->number[LOCAL_OVERLAP] > 0.0 && s->number[LOCAL_MIX] > 0.0;
    (void)slots;
    return keeps + fragment * (4.0 + 4.0 * mixes + (rule->sparse ? holders * code : 0.0))
           + (staged && s->number[LOCAL_AFTER] > 0.0 ? 4.0 : 0.0);
}

static const char *changes(const sync_settings *s)
{
    (void)s;
    return "local";
}

static gt_status parts(const sync_settings *set, const sync_holders *h, const params *p, optim_part **list, int *count)
{
    gt_status st = GT_OK;
    (void)set;
    for (int i = 0; !st && i < params_segments(p); i++) {
        const params_segment *s = params_segment_at(p, i);
        st = sync_part_add(list, count, (optim_part){ i, 0, s->count, sync_holders_first_within(h, s->group) });
    }
    return st;
}

int local_streams(const local *l)
{
    return l->fragments > 1 || l->overlap;
}

static void release(sync_run *s)
{
    local *l = s->state;
    if (!l)
        return;
    sync_buckets_release(&l->within);
    sync_buckets_release(&l->whole);
    local_parts_release(l);
    local_uneven_release(l);
    free(l);
}

static gt_status create(sync_run *s)
{
    const double *x = s->settings.number;
    local *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of local steps");
    s->state = l;
    l->o = l->within.o = l->whole.o = s->o;
    l->every = (uint64_t)x[LOCAL_STEPS];
    l->after = (uint64_t)x[LOCAL_AFTER];
    l->overlap = (uint64_t)x[LOCAL_OVERLAP];
    l->fragments = (int)x[LOCAL_FRAGMENTS];
    l->lr = x[LOCAL_LR];
    l->keep = x[LOCAL_KEEP];
    l->decay = x[LOCAL_DECAY];
    l->momentum = x[LOCAL_MOMENTUM];
    l->mix = l->overlap ? x[LOCAL_MIX] : 0.0;
    l->rule = outer_rule_find(s->settings.word[LOCAL_OUTER]);
    gt_status st = sync_buckets_create(&l->within, SYNC_SUM_WITHIN);
    if (!st && l->after)
        st = sync_buckets_create(&l->whole, SYNC_SUM_ALL);
    if (!st)
        st = local_uneven_create(l, s->settings.word[LOCAL_UNEVEN]);
    return st ? st : local_parts_create(l);
}

static gt_status begin(sync_run *s)
{
    local *l = s->state;
    return l->rule->starts && !l->loaded ? local_parts_start(l) : GT_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int apart(const sync_run *s, uint64_t step)
{
    return step > (uint64_t)s->settings.number[LOCAL_AFTER];
}

static int meets(const sync_run *s, uint64_t step)
{
    const uint64_t after = (uint64_t)s->settings.number[LOCAL_AFTER], every = (uint64_t)s->settings.number[LOCAL_STEPS];
    return step <= after || (step - after) % every == 0;
}

/* The gradients' sums of a step. */
static sync_run *sums_of(const sync_run *s)
{
    local *l = s->state;
    return apart(s, s->step) ? &l->within : &l->whole;
}

static int stops(const sync_run *s, int chunk, int to[SYNC_STOPS])
{
    const local *l = s->state;
    return sync_buckets_stops(l->after ? &l->whole : &l->within, chunk, to);
}

static gt_status ready(sync_run *s, int chunk, int done, int last)
{
    return sync_buckets_ready(sums_of(s), chunk, done, last);
}

static int when(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended)
{
    return sync_buckets_when(sums_of(s), chunk, began, ended);
}

/* Does the sum of a fragment begin after a step? */
static int begins(const local *l, int fragment, uint64_t step)
{
    const uint64_t due = due_at(l->every, (uint64_t)l->fragments, (uint64_t)fragment);
    if (step == l->o.steps)
        return !l->began[fragment];
    return (step - l->after + l->overlap) % l->every == due % l->every;
}

static int arrives(const local *l, int fragment, uint64_t step)
{
    return l->began[fragment] && (step == l->began[fragment] + l->overlap || step == l->o.steps);
}

/* When the step's update is queued. What is under way comes first: it is where the next would be put. */
static gt_status outer_steps(local *l, uint64_t step)
{
    const uint64_t traced = gt_trace_begin();
    const double keep = step == l->o.steps ? 0.0 : l->mix;
    gt_status st = GT_OK;
    int moved = 0;
    for (int f = 0; f < l->fragments; f++)
        l->fresh[f] = (unsigned char)begins(l, f, step);
    for (int fresh = 0; fresh < 2; fresh++)
        for (int f = 0; !st && f < l->fragments; f++) {
            if (l->fresh[f] != fresh)
                continue;
            if (fresh)
                st = local_fragment_begin(l, f, step);
            if (st || !arrives(l, f, step))
                continue;
            st = local_fragment_finish(l, f, keep);
            moved = 1;
        }
    if (!st && moved && kernel_set_storage(l->o.kernels) != DTYPE_F32)
        st = params_refresh(l->o.params, l->o.kernels);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "outer step", traced);
    return st;
}

/* What the targets of a step weigh goes to the next outer step of each fragment. *sent: grows by its bytes. */
static gt_status count_targets(sync_run *s, uint64_t *sent)
{
    local *l = s->state;
    for (int f = 0; f < l->fragments; f++) {
        l->own[f] += s->own_weight;
        l->all[f] += s->all_weight;
        *sent += begins(l, f, s->step) ? local_fragment_bytes(l, f) : 0;
    }
    return l->rule->starts && l->after && s->step == l->after + 1 ? local_parts_start(l) : GT_OK;
}

/* All replicas take part in the last step of a round. */
static gt_status end_step(local *l, uint64_t step)
{
    gt_status st = GT_OK;
    if (l->uneven.measures && (step - l->after) % l->every == 0 && step < l->o.steps)
        st = local_uneven_agree(l, step);
    return st ? st : outer_steps(l, step);
}

static int takes_part(const sync_run *s, uint64_t step, int replica)
{
    const local *l = s->state;
    return !apart(s, step) || local_uneven_has(l, replica, (step - l->after - 1) % l->every + 1);
}

static gt_status pass(sync_run *s, uint64_t *sent)
{
    gt_status st = count_targets(s, sent);
    return st ? st : end_step(s->state, s->step);
}

static gt_status update(sync_run *s, double lr)
{
    local *l = s->state;
    uint64_t sent;
    gt_status st = sync_buckets_finish(sums_of(s), &sent);
    if (st || !apart(s, s->step))
        return st ? st : sync_update_counted(s, lr, sent, sync_holders_in_first_replica(l->o.holders));
    st = count_targets(s, &sent);
    if (!st)
        st = sync_update_apart(s, lr, sent);
    if (!st)
        local_uneven_note(l, sync_replica_seconds(s));
    return st ? st : end_step(l, s->step);
}

const sync_mode sync_local = {
    .name = "local",
    .help = "replicas apart, parameters put together every so many steps",
    .trains_apart = 1,
    .settings = settings,
    .setting_count = LOCAL_SETTINGS,
    .shares_equally = shares_equally,
    .load = load,
    .pace = pace,
    .host_bytes = host_bytes,
    .host_seconds = sync_local_host_seconds,
    .changes = changes,
    .check = check,
    .check_replicas = check_replicas,
    .check_layers = check_layers,
    .idle = idle,
    .parts = parts,
    .create = create,
    .release = release,
    .begin = begin,
    .stops = stops,
    .ready = ready,
    .update = update,
    .takes_part = takes_part,
    .pass = pass,
    .meets = meets,
    .apart = apart,
    .when = when,
    .saved = local_saved
};
