/* SPDX-License-Identifier: MIT */
/* host/sync/async.c - a parameter server without steps in common: a replica sends its gradient when it has one.
 *
 *   replica 0   step 1 ═► push, pull | step 2 ═► push, pull | step 3 ...
 *   replica 1   step 1 ........ ═► push, pull | step 2 ........ ═► push, pull
 *   server      version 1 | 2 | 3 ...        every push is an update of its own, of the newest weights
 *
 * A replica is at most `staleness` of its own pushes ahead of the slowest (Ho et al., "More effective distributed
 * ML via a stale synchronous parallel parameter server", NIPS 2013); with 0 all push once and then
 * all pull, which is `ps`, and done by it. A gradient is the mean over the replica's own targets, clipped by its
 * own norm. Between its pull and its push others have changed the weights; what that does to a gradient may be made up
 * for (Zheng et al., "Asynchronous SGD with delay compensation", ICML 2017):
 *
 *   g + lambda g g (w - w_pulled)          adaptive: lambda / sqrt(mean square of g + 1e-7), element by element
 *
 * and --lr-scale staleness divides the rate by how many updates came between (Zhang et al., "Staleness-aware
 * async-SGD", IJCAI 2016), batch by how much smaller a push is than the step's batch.
 *
 * Buckets are pushed and pulled in the order in which the next forward reads them, each pull right behind its push, so
 * that gradients go out while weights come in. What a replica of one rank pulls comes beside its next forward, layer by
 * layer (buckets_gather.c): a launch waits for its own weights. Where ranks meet, and in replicas of several ranks, all
 * of it is waited for.
 *
 * Servers update on the host (optim_host_update), for their devices are busy with steps of their own. Each part has
 * one server, who keeps its state there; before a checkpoint it goes where `ps` has it (keep()). Where ranks meet,
 * all have pushed, all pushes are applied, and all pull the same. Which updates a pull sees between meetings is a
 * matter of time, unless --simulate-delay draws the order of updates from a seed: then the same run has the same
 * bits. */
#include "host/base/clock.h"
#include "host/sync/async_private.h"
#include "host/sync/servers.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const sync_setting settings[] = {
    [ASYNC_SERVERS] = SYNC_SERVERS_ROW,
    [ASYNC_STALENESS] = { .name = "staleness",
                          .value = "N",
                          .help = "pushes a replica may be ahead of the slowest; 0: as ps",
                          .kind = SYNC_COUNT,
                          .usual = 4,
                          .most = 1e6 },
    [ASYNC_COMPENSATION] = { .name = "delay-compensation",
                             .value = "L",
                             .help = "DC-ASGD's lambda, as 2 or 2,adaptive; 0: none",
                             .kind = SYNC_TEXT,
                             .word = "0" },
    [ASYNC_PUSH_EVERY] = { .name = "push-every",
                           .value = "N",
                           .help = "steps whose mean gradient is one push",
                           .kind = SYNC_COUNT,
                           .usual = 1,
                           .least = 1,
                           .most = 1e6 },
    [ASYNC_PULL_EVERY] = { .name = "pull-every",
                           .value = "N",
                           .help = "steps between pulls of the newest weights",
                           .kind = SYNC_COUNT,
                           .usual = 1,
                           .least = 1,
                           .most = 1e6 },
    [ASYNC_LR_SCALE] = { .name = "lr-scale",
                         .value = "none|staleness|batch",
                         .help = "what divides a push's rate",
                         .kind = SYNC_CHOICE,
                         .word = "none" },
    [ASYNC_BARRIER_EVERY] = { .name = "barrier-every",
                              .value = "N",
                              .help = "steps between meetings, 0: where they must be",
                              .kind = SYNC_COUNT,
                              .usual = 32,
                              .most = 1e6 },
    [ASYNC_SIMULATE] = { .name = "simulate-delay",
                         .value = "SEED",
                         .help = "order of updates drawn from this seed, 0: as they come",
                         .kind = SYNC_COUNT,
                         .most = 9007199254740992.0 },
    [ASYNC_SERVERS_TRAIN] = SYNC_SERVERS_TRAIN_ROW,
};

/* ---- settings -------------------------------------------------------------------------------- */

static int is_lockstep(const sync_settings *s)
{
    return s->number[ASYNC_STALENESS] == 0.0;
}

/* 1: it is none. */
static int read_compensation(const char *word, float *lambda, int *adaptive)
{
    char *end;
    const double x = strtod(word, &end);
    *lambda = (float)x;
    *adaptive = !strcmp(end, ",adaptive");
    return end == word || (*end && !*adaptive) || !(x >= 0.0 && x <= 1e6);
}

static gt_status check(const sync_settings *s, int ranks)
{
    float lambda;
    int adaptive;
    if (read_compensation(s->word[ASYNC_COMPENSATION], &lambda, &adaptive))
        return gt_fail(GT_MISUSE,
                       "option --delay-compensation: '%s' is neither a number from 0 up nor one with ',adaptive'",
                       s->word[ASYNC_COMPENSATION]);
    if (is_lockstep(s) && (s->number[ASYNC_PUSH_EVERY] > 1.0 || s->number[ASYNC_PULL_EVERY] > 1.0))
        return gt_fail(GT_MISUSE, "--push-every and --pull-every want replicas that go on without each other; "
                                  "leave out --staleness 0");
    return sync_servers_check(s->word[ASYNC_SERVERS], s->word[ASYNC_SERVERS_TRAIN], ranks);
}

static int serves_only(const sync_settings *s, int rank)
{
    return sync_servers_only(s->word[ASYNC_SERVERS], s->word[ASYNC_SERVERS_TRAIN], rank);
}

static const char *idle(const sync_settings *s, int i)
{
    const int late = i == ASYNC_COMPENSATION || i == ASYNC_LR_SCALE || i == ASYNC_BARRIER_EVERY || i == ASYNC_SIMULATE;
    return late && is_lockstep(s) ? "--staleness 0" : NULL;
}

/* What a rank holds by itself has no group, and so no server. */
static gt_status check_replicas(const sync_settings *s, int replicas)
{
    if (replicas > 1 || is_lockstep(s))
        return GT_OK;
    return gt_fail(GT_MISUSE, "--sync async is for several replicas, and there is one, with nobody to go on without; "
                              "take --sync allreduce or ps, or more --replicas");
}

static gt_status allows(const sync_settings *s, const optim_config *c, dtype storage)
{
    if (!is_lockstep(s) && !optim_rule_on_host(c->rule))
        return gt_fail(GT_UNSUPPORTED,
                       "--sync async updates element by element, which --optimizer %s does not; take another rule, "
                       "or --staleness 0",
                       optim_rule_name(c->rule));
    if (!is_lockstep(s) && storage == DTYPE_F16)
        return gt_fail(GT_UNSUPPORTED, "--sync async has no loss scale that all replicas share, which --precision fp16 "
                                       "needs; take bf16, or --staleness 0");
    return GT_OK;
}

static double state_share(const sync_settings *s, int holders)
{
    return sync_servers_share(s->word[ASYNC_SERVERS], s->word[ASYNC_SERVERS_TRAIN], holders);
}

/* ---- for plans -------------------------------------------------------------------------------- */

/* Pushes out and pulls in of a worker with share s, which as a server has the others' the other way round. */
static double busiest_way(double share, double pushes, double pulls, int n)
{
    const double out = (1.0 - share) * pushes + (n - 1) * share * pulls;
    const double in = (n - 1) * share * pushes + (1.0 - share) * pulls;
    return fmax(out, in);
}

static sync_load load(const sync_settings *s, const sync_volume *v, int holders)
{
    if (is_lockstep(s)) {
        sync_settings served;
        sync_settings_usual(&sync_ps, &served);
        memcpy(served.word[0], s->word[ASYNC_SERVERS], SYNC_WORD);
        memcpy(served.word[1], s->word[ASYNC_SERVERS_TRAIN], SYNC_WORD);
        return sync_mode_load(&sync_ps, &served, NULL, v, holders);
    }
    const double most = state_share(s, holders), least = fmax(0.0, 1.0 - (holders - 1) * most);
    const double pushes = 1.0 / s->number[ASYNC_PUSH_EVERY], pulls = 1.0 / s->number[ASYNC_PULL_EVERY];
    const double bytes = 4.0 * (v->plain + v->values), other = (holders - 1.0) / holders;
    return (sync_load){
        .busiest = bytes * fmax(busiest_way(most, pushes, pulls, holders), busiest_way(least, pushes, pulls, holders)),
        .sends = bytes * other * (pushes + pulls),
        .trips = 2.0 * pulls,
        .decodes = 1.0
    };
}

/* Arenas of pushes and pulls; of what a rank serves the weights, the optimizer's state there, a push of each replica,
 * and the weights that each pulled where delays are made up for. */
static double host_bytes(const sync_settings *s, double slots, int holders, int staged)
{
    float lambda;
    int adaptive;
    if (is_lockstep(s))
        return staged ? 4.0 : 0.0;
    read_compensation(s->word[ASYNC_COMPENSATION], &lambda, &adaptive);
    const double share = state_share(s, holders), each = lambda > 0.0f ? 8.0 : 4.0;
    return 8.0 + share * (4.0 + slots + (lambda > 0.0f && adaptive ? 4.0 : 0.0) + each * holders)
           + (staged ? 4.0 : 0.0);
}

static gt_status host_seconds(const sync_settings *s, const optim_config *c, int holders, double *seconds)
{
    return is_lockstep(s) ? GT_OK : sync_async_host_seconds(s, c, holders, seconds);
}

static const char *changes(const sync_settings *s)
{
    return is_lockstep(s) ? NULL : "asynchronous";
}

static gt_status prepare(const sync_settings *s, sync_holders *h)
{
    return sync_servers_settle(h, s->word[ASYNC_SERVERS]);
}

static gt_status parts(const sync_settings *s, const sync_holders *h, const params *p, optim_part **list, int *count)
{
    return sync_ps.parts(s, h, p, list, count);
}

/* ---- when ------------------------------------------------------------------------------------ */

static int meets(const sync_run *run, uint64_t step)
{
    const uint64_t every = (uint64_t)run->settings.number[ASYNC_BARRIER_EVERY];
    return is_lockstep(&run->settings) || (every && step % every == 0)
           || (run->o.due && run->o.due(run->o.context, step));
}

static int apart(const sync_run *run, uint64_t step)
{
    (void)step;
    return !is_lockstep(&run->settings);
}

int async_pushes_after(const sync_run *run, uint64_t step)
{
    return step % (uint64_t)run->settings.number[ASYNC_PUSH_EVERY] == 0 || sync_meets(run, step);
}

static int pulls_after(const sync_run *run, uint64_t step)
{
    return step % (uint64_t)run->settings.number[ASYNC_PULL_EVERY] == 0 || sync_meets(run, step);
}

/* ---- making it ------------------------------------------------------------------------------- */

static gt_status create(sync_run *run)
{
    if (is_lockstep(&run->settings))
        return sync_ps.create(run);
    net_group *replica = sync_holders_replica(run->o.holders);
    gt_status st = check_replicas(&run->settings,
                                  replica && net_group_size(replica) == net_comm_size(run->o.comm) ? 1 : 2);
    if (st)
        return st;
    async *a = calloc(1, sizeof *a);
    if (!a)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of a parameter server");
    a->run = run;
    a->config = optim_config_of(run->o.optim);
    read_compensation(run->settings.word[ASYNC_COMPENSATION], &a->lambda, &a->adaptive);
    a->adaptive &= a->lambda > 0.0f;
    a->by_staleness = !strcmp(run->settings.word[ASYNC_LR_SCALE], "staleness");
    a->by_batch = !strcmp(run->settings.word[ASYNC_LR_SCALE], "batch");
    run->o.touched = NULL;              /* what is pushed is always a whole bucket */
    st = sync_buckets_create(run, SYNC_SUM_PART);
    if (st) {
        free(a);
        return st;
    }
    a->buckets = run->state;
    st = async_make(a);
    if (st)
        async_release(a);
    run->state = st ? NULL : a;
    return st;
}

static void release(sync_run *run)
{
    if (is_lockstep(&run->settings))
        sync_ps.release(run);
    else if (run->state)
        async_release(run->state);
}

/* ---- a step ---------------------------------------------------------------------------------- */

static int stops(const sync_run *run, int chunk, int out[SYNC_STOPS])
{
    return is_lockstep(&run->settings) ? sync_ps.stops(run, chunk, out) : 0;
}

static gt_status ready(sync_run *run, int chunk, int done, int last)
{
    return is_lockstep(&run->settings) ? sync_ps.ready(run, chunk, done, last) : GT_OK;
}

static void explain(const sync_run *run, gt_text *out)
{
    if (is_lockstep(&run->settings))
        sync_ps.explain(run, out);
}

static int when(const sync_run *run, int chunk, uint64_t *began, uint64_t *ended)
{
    return is_lockstep(&run->settings) ? sync_ps.when(run, chunk, began, ended) : 0;
}

/* A bucket's gradients on the host. */
static float *gradients_of(const bucket *b)
{
    char *here = dev_buffer_host(b->grad);
    return here ? (float *)(void *)(here + b->offset) : b->memory;
}

/* Brings the gradients to the host, and adds up those that several ranks of the replica have. */
static gt_status collect(async *a, double *loss)
{
    double unused;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->buckets->count; i++) {
        const bucket *b = &a->buckets->buckets[i];
        if (!dev_buffer_host(b->grad))
            st = dev_read_start(a->run->o.device, b->grad, b->offset, b->memory, 4 * b->count, NULL);
    }
    if (!st)                            /* waits for all that is queued */
        st = optim_partial(a->run->o.optim, &unused, loss);
    for (int i = 0; !st && i < a->count; i++)
        for (int k = 0; !st && a->shelves[i].within && k < a->buckets->count; k++) {
            const bucket *b = &a->buckets->buckets[k];
            if (b->group_number == a->shelves[i].number)
                st = net_all_reduce(a->shelves[i].within, gradients_of(b), b->count, NET_F32, NULL);
        }
    return st;
}

static double squares_of(const float *x, uint64_t count)
{
    double sum[8] = { 0 };
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int k = 0; k < 8; k++)
            sum[k] += (double)x[i + (uint64_t)k] * (double)x[i + (uint64_t)k];
    for (; i < count; i++)
        sum[0] += (double)x[i] * (double)x[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* Loss and norm of the replica, and by what its gradients are to be multiplied; NaN: the step is to be left out. */
static gt_status judge(async *a, double loss, float *factor)
{
    sync_run *run = a->run;
    net_group *replica = sync_holders_replica(run->o.holders);
    sync_totals sum = { .loss = loss };
    float scalars[OPTIM_STATE_FLOATS];
    uint64_t sent = 0;
    for (int i = 0; i < a->buckets->count; i++) {
        const bucket *b = &a->buckets->buckets[i];
        if (!sync_holders_first_within(run->o.holders, b->group_number))
            continue;
        sum.squares += squares_of(gradients_of(b), b->count);
        sent += async_pushes_after(run, run->step) ? 4 * b->count : 0;
    }
    gt_status st = run->o.tell(run->o.context, sent, &sum);
    if (!st && replica)
        st = sync_totals_sum(replica, &sum, NULL);
    run->totals = st ? (sync_totals){ 0 } : sum;
    if (!st)
        st = optim_judge_with(run->o.optim, sum.squares, sum.loss);
    if (!st)
        st = async_scalars(run, scalars);
    *factor = scalars[OPTIM_SKIP] != 0.0f ? NAN : scalars[OPTIM_CLIP];
    return st;
}

/* What a replica does after a step. */
typedef struct exchange {
    int pushes, pulls;
    int all;                            /* every push so far must be in what is pulled, as where ranks meet */
    uint64_t tag;
} exchange;

static gt_status wait_pushes(shelf *h)
{
    gt_status st = GT_OK;
    for (int k = 0; k < h->count; k++) {
        const gt_status one = net_ps_wait(h->keys[k].push, NULL);
        h->keys[k].push = NULL;
        st = st ? st : one;
    }
    return st;
}

/* Adds a step's gradients to what the next push takes. */
static gt_status hold(async *a, float factor)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->count; i++) {
        shelf *h = &a->shelves[i];
        if (!h->leads)
            continue;
        st = wait_pushes(h);            /* it is what they send */
        for (int k = 0; !st && k < h->count; k++) {
            const piece *key = &h->keys[k];
            const float *restrict g = gradients_of(key->of) + (key->first - (int64_t)key->of->offset / 4);
            float *restrict sum = h->sum + key->at;
            if (isnan(factor) && !a->held)
                memset(sum, 0, key->count * sizeof *sum);
            else if (!a->held)
                for (uint64_t j = 0; j < key->count; j++)
                    sum[j] = factor * g[j];
            else if (!isnan(factor))
                for (uint64_t j = 0; j < key->count; j++)
                    sum[j] += factor * g[j];
        }
    }
    return st;
}

/* What a push says of itself: its rate, NaN: it moves nothing; and its size beside a step's batch. */
static uint64_t tag_of(float rate, float size)
{
    uint32_t a, b;
    memcpy(&a, &rate, 4);
    memcpy(&b, &size, 4);
    return (uint64_t)b << 32 | a;
}

/* What all pushes of the step say of themselves; what they take becomes the mean of the steps it is of. */
static uint64_t close_push(async *a, double lr)
{
    const sync_run *run = a->run;
    const double size = run->all_weight > 0.0 ? a->held_weight / run->all_weight : 1.0;
    const uint64_t tag = tag_of(a->held_weight > 0.0 ? (float)lr : NAN, (float)size);
    const float mean = 1.0f / (float)a->held;
    for (int i = 0; i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (uint64_t j = 0; h->leads && a->held > 1 && j < h->elements; j++)
            h->sum[j] *= mean;
    }
    a->pushes++;
    a->held = 0;
    a->held_weight = 0.0;
    return tag;
}

/* A piece's weights to the device, from the arena. */
static gt_status write_piece(const async *a, const shelf *h, const piece *key)
{
    char *here = dev_buffer_host(key->of->master);
    const uint64_t bytes = 4 * key->count;
    if (!here)
        return dev_write_start(a->run->o.device, key->of->master, 4 * (uint64_t)key->first, h->value + key->at, bytes,
                               NULL);
    memcpy(here + 4 * key->first, h->value + key->at, bytes);
    return GT_OK;
}

static gt_status write_weights(const async *a, const shelf *h)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < h->count; k++)
        st = write_piece(a, h, &h->keys[k]);
    return st;
}

static gt_status wait_pull(piece *key)
{
    net_ps_request *pull = key->pull;
    key->pull = NULL;
    return net_ps_wait(pull, NULL);
}

static gt_status start_key(shelf *h, int k, const exchange *x, uint64_t least)
{
    piece *key = &h->keys[k];
    gt_status st = x->pushes ? net_ps_push_start(h->ps, (uint32_t)k, h->sum + key->at, x->tag, &key->push) : GT_OK;
    return st || !x->pulls ? st : net_ps_pull_start(h->ps, (uint32_t)k, least, h->value + key->at, &key->pull);
}

/* In the order in which the next forward reads what comes back: of each bucket the push and then the pull, which a
 * server answers when it has applied the push. So the first weights come while later gradients still go out, instead
 * of waiting behind them. */
static gt_status start(async *a, const exchange *x)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->buckets->gather_count; i++) {
        const bucket *b = &a->buckets->buckets[a->buckets->order[i]];
        for (int g = 0; !st && g < a->count; g++) {
            shelf *h = &a->shelves[g];
            const uint64_t least = x->all ? a->pushes * (uint64_t)h->workers : 0;
            for (int k = 0; !st && h->leads && k < h->count; k++)
                if (h->keys[k].of == b)
                    st = start_key(h, k, x, least);
        }
    }
    return st;
}

/* What is pulled by one rank for itself may come beside its next forward. */
static int comes_beside(const async *a, int all)
{
    int beside = !all && !async_serves(a, net_comm_rank(a->run->o.comm));
    for (int i = 0; i < a->count; i++)
        beside &= a->shelves[i].leads && !a->shelves[i].within;
    return beside;
}

/* The weights of a bucket are there and in place, if they were on their way. */
static gt_status take_bucket(async *a, const bucket *b)
{
    gt_status st = GT_OK;
    int some = 0;
    for (int g = 0; !st && g < a->count; g++) {
        shelf *h = &a->shelves[g];
        for (int k = 0; !st && k < h->count; k++) {
            if (h->keys[k].of != b || !h->keys[k].pull)
                continue;
            some = 1;
            st = wait_pull(&h->keys[k]);
            if (!st)
                st = write_piece(a, h, &h->keys[k]);
        }
    }
    return st || !some || !b->renew ? st : dev_run(b->renew, 0, -1);
}

/* chunk -1: all there are. */
static gt_status take_until(async *a, int chunk, int until)
{
    const buckets *s = a->buckets;
    const uint64_t traced = gt_trace_begin();
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->gather_count; i++) {
        const int at = chunk < 0 ? 0 : s->read[s->order[i] * s->o.chunks + chunk];
        if (at >= 0 && at < until)
            st = take_bucket(a, &s->buckets[s->order[i]]);
    }
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "newest weights", traced);
    return st;
}

/* What is pulled is there and in place, or will be when the next forward asks for it. */
static gt_status take_pulls(async *a, int all)
{
    const int serves = async_serves(a, net_comm_rank(a->run->o.comm));
    gt_status st = GT_OK;
    if (comes_beside(a, all))
        return GT_OK;
    const uint64_t traced = gt_trace_begin();
    for (int i = 0; i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (int k = 0; k < h->count; k++) {
            const gt_status one = wait_pull(&h->keys[k]);
            st = st ? st : one;
        }
        if (!st && h->within)
            st = net_broadcast(h->within, h->value, h->elements, NET_F32, 0, NULL);
        if (!st && all && h->watched)
            st = net_broadcast(h->net, h->value, h->elements, NET_F32, h->first, NULL);
        if (!st && (all || !serves))
            st = write_weights(a, h);
    }
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "newest weights", traced);
    return st || kernel_set_storage(a->run->o.kernels) == DTYPE_F32
               ? st
               : params_refresh(a->run->o.params, a->run->o.kernels);
}

static gt_status update(sync_run *run, double lr)
{
    if (is_lockstep(&run->settings))
        return sync_ps.update(run, lr);
    async *a = run->state;
    const int all = sync_meets(run, run->step);
    double loss;
    float factor;
    gt_status st = take_until(a, -1, INT_MAX);      /* what no forward reads */
    if (!st)
        st = collect(a, &loss);
    if (!st)
        st = judge(a, loss, &factor);
    if (!st)
        st = hold(a, factor);
    if (!st) {
        a->held++;
        a->held_weight += isnan(factor) ? 0.0 : run->own_weight;
    }
    exchange x = { .pushes = async_pushes_after(run, run->step), .pulls = pulls_after(run, run->step), .all = all };
    if (!st && x.pushes)
        x.tag = close_push(a, lr);
    if (!st)
        st = start(a, &x);
    if (!st && x.pulls)
        st = take_pulls(a, all);
    run->update_ns = gt_now_ns();
    return st;
}

static int wants(const sync_run *run, int chunk, int out[SYNC_WANTS])
{
    if (is_lockstep(&run->settings))
        return sync_ps.wants(run, chunk, out);
    const async *a = run->state;
    const sync_run of_buckets = { .state = a->buckets };
    return sync_buckets_wants(&of_buckets, chunk, out);
}

static gt_status wanted(sync_run *run, int chunk, int until)
{
    return is_lockstep(&run->settings) ? sync_ps.wanted(run, chunk, until) : take_until(run->state, chunk, until);
}

static gt_status settle(sync_run *run)
{
    return is_lockstep(&run->settings) ? sync_ps.settle(run) : take_until(run->state, -1, INT_MAX);
}

/* ---- members that are the server's --------------------------------------------------------------- */

static gt_status begin(sync_run *run)
{
    return is_lockstep(&run->settings) ? GT_OK : async_begin(run->state);
}

static gt_status keep(sync_run *run)
{
    return is_lockstep(&run->settings) ? GT_OK : async_keep(run->state);
}

static int saved(sync_run *run, checkpoint_state *states)
{
    return is_lockstep(&run->settings) ? sync_ps.saved(run, states) : async_saved(run->state, states);
}

const sync_mode sync_async = {
    .name = "async",
    .help = "gradients to the servers as they come",
    .shares_state = 1,
    .settings = settings,
    .setting_count = sizeof settings / sizeof *settings,
    .check = check,
    .state_share = state_share,
    .serves_only = serves_only,
    .load = load,
    .host_bytes = host_bytes,
    .host_seconds = host_seconds,
    .changes = changes,
    .idle = idle,
    .check_replicas = check_replicas,
    .allows = allows,
    .prepare = prepare,
    .parts = parts,
    .create = create,
    .release = release,
    .begin = begin,
    .keep = keep,
    .stops = stops,
    .wants = wants,
    .wanted = wanted,
    .settle = settle,
    .explain = explain,
    .ready = ready,
    .update = update,
    .meets = meets,
    .apart = apart,
    .when = when,
    .saved = saved
};
