/* SPDX-License-Identifier: MIT */
/* host/sync/local_state.c - what checkpoints hold of local training.
 *
 *   outer      start.NAME momentum.NAME     the same on all replicas: cut anew for any plan
 *   errors     error.NAME                   what --outer sparse has not sent yet: their sum is what matters
 *   rounds     R-replicas-of-H-steps        the steps of the round that follows, where they were measured
 *   replicas   own.NAME, targets            each rank's own, where replicas are never all at the same place
 *
 * Checkpoints are written where ranks meet. Without fragments and overlap all replicas are at their start
 * there, so starts are the parameters themselves. Under another plan all go on from the parameters of the lowest
 * rank that holds them; starts and momentum keep their meaning.                              */
#include "host/sync/local_rounds.h"

#include <stdio.h>
#include <string.h>

enum { TARGETS = 6 };                   /* floats of a fragment: own and all, each in three pieces */

/* The i-th parameter that is trained; how many there are if i < 0. */
static int trained(const local *l, int i)
{
    int count = 0;
    for (int p = 0; p < params_count(l->o.params); p++)
        if (l->place[p].part && count++ == i)
            return p;
    return count;
}

static void entry_of(const local *l, const char *kind, int p, checkpoint_entry *out)
{
    const graph_param_info *info = params_info(l->o.params, p);
    *out = (checkpoint_entry){ .param = p, .full = info->full, .slice = info->slice, .end = shape_count(&info->shape) };
    snprintf(out->name, sizeof out->name, "%s.%.110s", kind, info->name);
}

/* ---- the outer step's ---------------------------------------------------------------------------- */

static int kinds(const local *l)
{
    return (l->rule->starts && local_streams(l)) + l->rule->moves;
}

static int outer_count(void *context)
{
    const local *l = context;
    return kinds(l) * trained(l, -1);
}

/* Entry i: all momentums, where the rule keeps any, then all starts. */
static int is_momentum(const local *l, int i)
{
    return l->rule->moves && i < trained(l, -1);
}

/* *p: its parameter. */
static float *outer_at(const local *l, int i, int *p)
{
    const int each = trained(l, -1);
    *p = trained(l, i % each);
    const local_place *at = &l->place[*p];
    return (is_momentum(l, i) ? at->part->momentum : at->part->start) + at->at;
}

static void outer_entry(void *context, int i, checkpoint_entry *out)
{
    const local *l = context;
    const int each = trained(l, -1);
    entry_of(l, is_momentum(l, i) ? "momentum" : "start", trained(l, i % each), out);
}

static uint64_t bytes_of(const local *l, int p)
{
    return 4 * (uint64_t)shape_count(&params_info(l->o.params, p)->shape);
}

static gt_status outer_read(void *context, int i, float *to)
{
    int p;
    const float *from = outer_at(context, i, &p);
    memcpy(to, from, (size_t)bytes_of(context, p));
    return GT_OK;
}

static gt_status outer_write(void *context, int i, const float *from)
{
    int p;
    local *l = context;
    float *to = outer_at(l, i, &p);
    memcpy(to, from, (size_t)bytes_of(l, p));
    l->loaded = local_streams(l);
    return GT_OK;
}

static gt_status check_names(void *context, const char *const *names, int count)
{
    checkpoint_entry e;
    const int all = outer_count(context);
    for (int i = 0; i < all; i++) {
        int found = 0;
        outer_entry(context, i, &e);
        for (int k = 0; !found && k < count; k++)
            found = !strcmp(names[k], e.name);
        if (!found)
            return gt_fail(GT_MISMATCH,
                           "its outer steps were of another kind and left no '%s'; go on with its --outer, --fragments "
                           "and --overlap, or start from its weights with --from",
                           e.name);
    }
    return GT_OK;
}

/* ---- each replica's ------------------------------------------------------------------------------ */

static int own_count(void *context)
{
    return trained(context, -1) + 1;
}

static void own_entry(void *context, int i, checkpoint_entry *out)
{
    const local *l = context;
    const int each = trained(l, -1);
    const int64_t n = TARGETS * l->fragments;
    if (i < each) {
        entry_of(l, "own", trained(l, i), out);
        return;
    }
    *out = (checkpoint_entry){ .name = "targets", .param = -1, .full = shape_of(1, n), .end = n };
}

/* A double in three floats, none of which it loses a bit to. */
static void split(double x, float *to)
{
    for (int i = 0; i < 3; i++) {
        to[i] = (float)x;
        x -= (double)to[i];
    }
}

static gt_status own_read(void *context, int i, float *to)
{
    const local *l = context;
    const int each = trained(l, -1);
    if (i < each)
        return params_read(l->o.params, trained(l, i), to);
    for (int f = 0; f < l->fragments; f++) {
        split(l->own[f], to + TARGETS * f);
        split(l->all[f], to + TARGETS * f + 3);
    }
    return GT_OK;
}

static gt_status own_write(void *context, int i, const float *from)
{
    local *l = context;
    const int each = trained(l, -1);
    if (i < each)
        return params_write(l->o.params, trained(l, i), from);
    for (int f = 0; f < l->fragments; f++, from += TARGETS) {
        l->own[f] = (double)from[0] + (double)from[1] + (double)from[2];
        l->all[f] = (double)from[3] + (double)from[4] + (double)from[5];
    }
    return GT_OK;
}

/* ---- what was not sent ----------------------------------------------------------------------------- */

static int error_count(void *context)
{
    return trained(context, -1);
}

static void error_entry(void *context, int i, checkpoint_entry *out)
{
    entry_of(context, "error", trained(context, i), out);
}

/* Those who do not give have none, and are told of none but zeros. */
static gt_status error_read(void *context, int i, float *to)
{
    const local *l = context;
    const int p = trained(l, i);
    const local_place *at = &l->place[p];
    if (at->part->error)
        memcpy(to, at->part->error + at->at, (size_t)bytes_of(l, p));
    else
        memset(to, 0, (size_t)bytes_of(l, p));
    return GT_OK;
}

static gt_status error_write(void *context, int i, const float *from)
{
    const local *l = context;
    const int p = trained(l, i);
    const local_place *at = &l->place[p];
    if (at->part->error)
        memcpy(at->part->error + at->at, from, (size_t)bytes_of(l, p));
    return GT_OK;
}

/* ---- steps of replicas ----------------------------------------------------------------------------- */

static int rounds_count(void *context)
{
    (void)context;
    return 1;
}

/* Those of other replicas or longer rounds say nothing: they are measured anew. */
static void rounds_entry(void *context, int i, checkpoint_entry *out)
{
    const local *l = context;
    const int n = l->o.replicas;
    (void)i;
    *out = (checkpoint_entry){ .param = -1, .full = shape_of(1, n), .end = n, .optional = 1 };
    snprintf(out->name, sizeof out->name, "%d-replicas-of-%llu-steps", n, (unsigned long long)l->every);
}

static gt_status rounds_read(void *context, int i, float *to)
{
    const local *l = context;
    (void)i;
    for (int r = 0; r < l->o.replicas; r++)
        to[r] = (float)l->uneven.steps[r];
    return GT_OK;
}

static gt_status rounds_write(void *context, int i, const float *from)
{
    local *l = context;
    (void)i;
    for (int r = 0; r < l->o.replicas; r++) {
        if (!(from[r] >= 1.0f && from[r] <= (float)l->every))
            return gt_fail(GT_FORMAT, "a checkpoint has replica %d make %g of %llu steps", r, (double)from[r],
                           (unsigned long long)l->every);
        l->uneven.steps[r] = (int)from[r];
    }
    return GT_OK;
}

int local_saved(sync_run *s, checkpoint_state *states)
{
    local *l = s->state;
    int n = 0;
    if (kinds(l))
        states[n++] = (checkpoint_state){
            .owner = "outer",
            .what = "state of outer steps",
            .optional = 1,
            .context = l,
            .count = outer_count,
            .entry = outer_entry,
            .read = outer_read,
            .write = outer_write,
            .check = check_names
        };
    if (l->rule->sparse)
        states[n++] = (checkpoint_state){
            .owner = "errors",
            .what = "what outer steps have not sent yet",
            .each_rank = 1,
            .optional = 1,
            .context = l,
            .count = error_count,
            .entry = error_entry,
            .read = error_read,
            .write = error_write
        };
    if (l->uneven.measures)
        states[n++] = (checkpoint_state){
            .owner = "rounds",
            .what = "steps of each replica",
            .optional = 1,
            .context = l,
            .count = rounds_count,
            .entry = rounds_entry,
            .read = rounds_read,
            .write = rounds_write
        };
    if (local_streams(l))
        states[n++] = (checkpoint_state){
            .owner = "replicas",
            .what = "parameters of each replica",
            .each_rank = CHECKPOINT_OWN,
            .optional = 1,
            .context = l,
            .count = own_count,
            .entry = own_entry,
            .read = own_read,
            .write = own_write
        };
    return n;
}
