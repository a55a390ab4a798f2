/* SPDX-License-Identifier: MIT */
/* host/sync/signs_apart.c - 0/1 Adam's local steps: replicas update apart, then signs put their momenta together.
 *
 *   all ranks   AdamW, or signs of the momentum ... as allreduce.c has it
 *   replica 0   x ──► m, x of its own gradients, u += lr m ──► ... ──► u ──┐
 *   replica 1   x ──► m, x of its own gradients, u += lr m ──► ... ──► u ──┴─ signs ─► m = mean u / sum lr
 *                                                                                  x = x - mean u / (sqrt(v) + eps)
 *
 * Algorithm 1 of Lu et al., "Maximizing communication efficiency for large-scale training via 0/1 Adam", ICLR 2023.
 * Which steps are rounds is the compressor's to say (compress_round()); v is held in them. lr is that of the step over
 * the bias correction of m, and of x decay has its share, as in AdamW. What is encoded is u / sum lr, a mean momentum,
 * so what is held back of it is as in steps of all together; when rounds get longer or lr falls it counts less or more,
 * so that it is the same way of x. That is the paper's error of u. Replicas count by the targets that they had.
 *
 * Within a replica gradients are summed in every step. Ranks of one replica that hold the same parameter have the same
 * u, and each gives an equal share of it.
 *
 * After a round all ranks have the same x, m and v, and u is nothing: there they meet, and there the run validates,
 * saves and stops, so a checkpoint holds nothing but what is held back, of each rank. The run's last round ends with
 * it. */
#include "host/sync/blocks.h"
#include "host/sync/buckets.h"

#include <math.h>
#include <stdlib.h>

typedef struct signs {
    sync_run within, whole;             /* gradients of the replica; of all ranks, and moments */
    optim_apart *apart;
    double own, all;                    /* what targets weighed in this round               */
    double *rate;                       /* learning rates of its steps in which any counted */
    int steps, missed;                  /* how many, and in which of them none of this replica's did */
    double *factor;                     /* [segment] of what was gathered                   */
} signs;

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

static void release(sync_run *s)
{
    signs *l = s->state;
    if (!l)
        return;
    sync_buckets_release(&l->within);
    sync_buckets_release(&l->whole);
    optim_apart_release(l->apart);
    free(l->rate);
    free(l->factor);
    free(l);
}

static gt_status create(sync_run *s)
{
    signs *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of steps apart");
    s->state = l;
    l->within.o = l->whole.o = s->o;
    l->within.o.compress = (compress_spec){ 0 };
    l->rate = calloc((size_t)s->o.compress.local + 1, sizeof *l->rate);
    l->factor = calloc((size_t)params_segments(s->o.params) + 1, sizeof *l->factor);
    if (!l->rate || !l->factor)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of steps apart");
    gt_status st = sync_buckets_create(&l->within, SYNC_SUM_WITHIN);
    if (!st)
        st = sync_buckets_create(&l->whole, SYNC_SUM_ALL);
    s->summed = l->whole.summed;
    s->encoded = l->whole.encoded;
    return st ? st : optim_apart_create(&l->apart, s->o.optim);
}

/* ---- rounds, by steps 1, 2, ... ----------------------------------------------------------------- */

static uint64_t round_of(const sync_run *s, uint64_t step, uint64_t *first)
{
    return compress_round(&s->o.compress, step - 1, first);
}

static int apart(const sync_run *s, uint64_t step)
{
    uint64_t first;
    return round_of(s, step, &first) > 1;
}

static int meets(const sync_run *s, uint64_t step)
{
    uint64_t first;
    const uint64_t length = step ? round_of(s, step, &first) : 1;
    return length == 1 || step == first + length;
}

/* The sums of a step's gradients. */
static sync_run *sums_of(const sync_run *s)
{
    signs *l = s->state;
    sync_run *sums = apart(s, s->step) ? &l->within : &l->whole;
    sums->step = s->step;
    return sums;
}

static int stops(const sync_run *s, int chunk, int to[SYNC_STOPS])
{
    return sync_buckets_stops(&((const signs *)s->state)->whole, chunk, to);
}

static gt_status ready(sync_run *s, int chunk, int done, int last)
{
    return sync_buckets_ready(sums_of(s), chunk, done, last);
}

static int when(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended)
{
    return sync_buckets_when(s->step ? sums_of(s) : &((const signs *)s->state)->whole, chunk, began, ended);
}

static int saved(sync_run *s, checkpoint_state *states)
{
    return sync_buckets_saved(&((signs *)s->state)->whole, states);
}

static void explain(const sync_run *s, gt_text *out)
{
    sync_buckets_explain(&((const signs *)s->state)->whole, out);
}

/* ---- a round ----------------------------------------------------------------------------------- */

/* A step's learning rate over the bias correction of first moments that have had so many updates. */
static double rate_of(const sync_run *s, double lr, double updates)
{
    return lr / -expm1(fmax(updates, 1.0) * log(optim_beta1(s->o.optim)));
}

/* By how much what was held back in the round or step before counts more in one of this rate; updates: of first moments
 * before it. */
static double kept_of(const sync_run *s, uint64_t first, double updates, double rate)
{
    const optim_config *c = optim_config_of(s->o.optim);
    uint64_t from = first;
    double before = 0.0;
    if (!first)
        return 1.0;
    compress_round(&s->o.compress, first - 1, &from);
    for (uint64_t t = from; t < first; t++)
        before += rate_of(s, optim_lr(c, t), updates - (double)(first - 1 - t));
    return before / rate;
}

/* Updates of first moments, the steps counted that were other replicas' alone; all ranks have the same then. */
static gt_status read_updates(sync_run *s, double *updates)
{
    const signs *l = s->state;
    float steps;
    dev_buffer *state = optim_state(s->o.optim);
    gt_status st = dev_read(s->o.device, state, 4 * OPTIM_STEP, &steps, sizeof steps);
    steps += (float)l->missed;
    if (!st && l->missed)
        st = dev_write(s->o.device, state, 4 * OPTIM_STEP, &steps, sizeof steps);
    *updates = (double)steps;
    return st;
}

static void weigh_segments(sync_run *s, double rate)
{
    const signs *l = s->state;
    const double share = l->own / l->all;
    for (int i = 0; i < params_segments(s->o.params); i++) {
        const int group = params_segment_at(s->o.params, i)->group;
        net_group *all = sync_holders_net(s->o.holders, group), *replica = sync_holders_net_within(s->o.holders, group);
        l->factor[i] = (all ? share / (replica ? net_group_size(replica) : 1) : 1.0) / rate;
    }
}

static gt_status put_together(sync_run *s, uint64_t first)
{
    signs *l = s->state;
    const double decay = optim_config_of(s->o.optim)->weight_decay;
    double updates, rate = 0.0, keep = 1.0;
    gt_status st = read_updates(s, &updates);
    for (int i = 0; i < l->steps; i++) {
        rate += rate_of(s, l->rate[i], updates - (l->steps - 1 - i));
        keep *= 1.0 - l->rate[i] * decay;
    }
    if (st || rate <= 0.0) /* nothing has moved */
        return st;
    weigh_segments(s, rate);
    l->whole.step = s->step;
    st = optim_apart_give(l->apart, l->factor);
    if (!st)
        st = sync_buckets_put_together(&l->whole, kept_of(s, first, updates - l->steps, rate));
    return st ? st : optim_apart_take(l->apart, rate, keep);
}

/* Where replicas set out. What the step before left is kept first: this round's updates would make unknown whether that
 * was taken. */
static gt_status set_out(sync_run *s)
{
    signs *l = s->state;
    gt_status st = sync_buckets_keep_left(&l->whole);
    for (int i = 0; i < params_segments(s->o.params); i++)
        optim_form_set(s->o.optim, i, ADAMW_HELD);
    l->own = l->all = 0.0;
    l->steps = l->missed = 0;
    return st ? st : optim_apart_begin(l->apart);
}

static gt_status update_apart(sync_run *s, double lr)
{
    signs *l = s->state;
    uint64_t sent, first;
    round_of(s, s->step, &first);
    const int together = sync_meets(s, s->step);
    gt_status st = s->step == first + 1 ? set_out(s) : GT_OK;
    if (!st)
        st = sync_buckets_finish(&l->within, &sent);
    if (!st)
        st = sync_buckets_clear(&l->whole);
    if (st)
        return st;
    l->own += s->own_weight;
    l->all += s->all_weight;
    if (s->all_weight > 0.0) {
        l->missed += s->own_weight <= 0.0;
        l->rate[l->steps++] = lr;
    }
    sent += together ? sync_buckets_given_bytes(&l->whole) : 0;
    st = sync_update_apart(s, lr, sent);
    if (!st)
        st = optim_apart_gather(l->apart, lr);
    return st || !together ? st : put_together(s, first);
}

static gt_status update(sync_run *s, double lr)
{
    signs *l = s->state;
    uint64_t sent;
    if (apart(s, s->step))
        return update_apart(s, lr);
    gt_status st = sync_buckets_finish(&l->whole, &sent);
    if (!st)
        st = sync_update_counted(s, lr, sent, sync_holders_in_first_replica(s->o.holders));
    l->whole.updates = s->updates;
    return st;
}

const sync_mode sync_signs_apart = {
    .name = "allreduce",
    .help = "sums of gradients, and of signs of momentum after steps apart",
    .compresses = 1,
    .holds_all = 1,
    .parts = parts,
    .create = create,
    .release = release,
    .stops = stops,
    .ready = ready,
    .update = update,
    .meets = meets,
    .apart = apart,
    .when = when,
    .saved = saved,
    .explain = explain
};
