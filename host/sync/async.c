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
 * Servers update on the host (optim_host_update), for their devices are busy with steps of their own. Each part has
 * one server, who keeps its state there; before a checkpoint it goes where `ps` has it (keep()). Where ranks meet,
 * all have pushed, all pushes are applied, and all pull the same. Which updates a pull sees between meetings is a matter of time,
 * unless --simulate-delay draws the order of updates from a seed: then the same run has the same bits. */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/random.h"
#include "host/sync/buckets_private.h"
#include "host/sync/servers.h"
#include "net/ps/ps.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVERS, STALENESS, COMPENSATION, PUSH_EVERY, PULL_EVERY, LR_SCALE, BARRIER_EVERY, SIMULATE };

static const sync_setting settings[] = {
    [SERVERS] = SYNC_SERVERS_ROW,
    [STALENESS] = { .name = "staleness",
                    .value = "N",
                    .help = "pushes a replica may be ahead of the slowest; 0: as ps",
                    .kind = SYNC_COUNT,
                    .usual = 4,
                    .most = 1e6 },
    [COMPENSATION] = { .name = "delay-compensation",
                       .value = "L",
                       .help = "DC-ASGD's lambda, as 2 or 2,adaptive; 0: none",
                       .kind = SYNC_TEXT,
                       .word = "0" },
    [PUSH_EVERY] = { .name = "push-every",
                     .value = "N",
                     .help = "steps whose mean gradient is one push",
                     .kind = SYNC_COUNT,
                     .usual = 1,
                     .least = 1,
                     .most = 1e6 },
    [PULL_EVERY] = { .name = "pull-every",
                     .value = "N",
                     .help = "steps between pulls of the newest weights",
                     .kind = SYNC_COUNT,
                     .usual = 1,
                     .least = 1,
                     .most = 1e6 },
    [LR_SCALE] = { .name = "lr-scale",
                   .value = "none|staleness|batch",
                   .help = "what divides a push's rate",
                   .kind = SYNC_CHOICE,
                   .word = "none" },
    [BARRIER_EVERY] = { .name = "barrier-every",
                        .value = "N",
                        .help = "steps between meetings, 0: where they must be",
                        .kind = SYNC_COUNT,
                        .usual = 32,
                        .most = 1e6 },
    [SIMULATE] = { .name = "simulate-delay",
                   .value = "SEED",
                   .help = "order of updates drawn from this seed, 0: as they come",
                   .kind = SYNC_COUNT,
                   .most = 9007199254740992.0 },
};

#define MEAN_SQUARE_KEEPS 0.95f         /* of the adaptive lambda's, a push */
#define MEAN_SQUARE_FLOOR 1e-7f

/* What one server keeps of the part of a segment that is its own. */
typedef struct owned {
    int64_t first, count;
    float decay;
    float *slot[4], *mean_square;       /* NULL: not kept                                   */
} owned;

/* A bucket's share of one server: a key of net/ps. */
typedef struct piece {
    const bucket *of;
    int segment;
    int64_t first;                      /* element of the segment                           */
    uint64_t at, count;                 /* in the arenas of its group                       */
    net_ps_request *push, *pull;
} piece;

/* The parameters that the same ranks hold, and their server. */
typedef struct shelf {
    struct async *of;
    net_group *net, *within;
    int number, leads;                  /* leads: pushes for its replica                    */
    net_ps *ps;
    piece *keys;
    int count, *owner;
    uint64_t elements;
    float *sum, *value;                 /* of pushes; as pulled                             */
    int workers;
    float *scratch;                     /* of the server's thread                           */
    uint64_t updates, behind, most_behind;      /* of its first part, for the log           */
} shelf;

typedef struct async {
    sync_run *run;
    buckets *buckets;
    shelf *shelves;
    int count;
    owned *owned;                       /* [segment]                                        */
    uint16_t *order;                    /* [updates] whose push each is; NULL: as they come */
    uint64_t ordered;
    uint64_t base;                      /* updates before this run                          */
    uint64_t pushes;                    /* of each replica in this run                      */
    int held;                           /* steps in shelf.sum                               */
    double held_weight;                 /* of their targets                                 */
    float lambda;
    int adaptive, by_staleness, by_batch;
    const optim_config *config;
} async;

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for what a parameter server keeps on the host");
}

/* ---- settings -------------------------------------------------------------------------------- */

static int is_lockstep(const sync_settings *s)
{
    return s->number[STALENESS] == 0.0;
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
    if (read_compensation(s->word[COMPENSATION], &lambda, &adaptive))
        return gt_fail(GT_MISUSE,
                       "option --delay-compensation: '%s' is neither a number from 0 up nor one with ',adaptive'",
                       s->word[COMPENSATION]);
    if (is_lockstep(s) && (s->number[PUSH_EVERY] > 1.0 || s->number[PULL_EVERY] > 1.0))
        return gt_fail(GT_MISUSE, "--push-every and --pull-every want replicas that go on without each other; "
                                  "leave out --staleness 0");
    return sync_servers_check(s->word[SERVERS], ranks);
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
    return sync_servers_share(s->word[SERVERS], holders);
}

static gt_status prepare(const sync_settings *s, sync_holders *h)
{
    return sync_servers_settle(h, s->word[SERVERS]);
}

static optim_part part(const sync_settings *s, const sync_holders *h, const params *p, int segment)
{
    return sync_ps.part(s, h, p, segment);
}

/* ---- when ------------------------------------------------------------------------------------ */

static int meets(const sync_run *run, uint64_t step)
{
    const uint64_t every = (uint64_t)run->settings.number[BARRIER_EVERY];
    return is_lockstep(&run->settings) || (every && step % every == 0)
           || (run->o.due && run->o.due(run->o.context, step));
}

static int apart(const sync_run *run, uint64_t step)
{
    (void)step;
    return !is_lockstep(&run->settings);
}

static int pushes_after(const sync_run *run, uint64_t step)
{
    return step % (uint64_t)run->settings.number[PUSH_EVERY] == 0 || sync_meets(run, step);
}

static int pulls_after(const sync_run *run, uint64_t step)
{
    return step % (uint64_t)run->settings.number[PULL_EVERY] == 0 || sync_meets(run, step);
}

/* ---- the order of updates, drawn -------------------------------------------------------------- */

/* Those who may push next: none is ahead by more than it may be, and all stop at the next meeting. */
static void draw_window(async *a, gt_random *r, int workers, uint64_t *done, uint64_t pushes)
{
    const uint64_t ahead = (uint64_t)a->run->settings.number[STALENESS];
    memset(done, 0, (size_t)workers * sizeof *done);
    for (uint64_t left = pushes * (uint64_t)workers; left; left--) {
        uint64_t slowest = UINT64_MAX, may = 0;
        int w = 0;
        for (int i = 0; i < workers; i++)
            slowest = done[i] < slowest ? done[i] : slowest;
        for (int i = 0; i < workers; i++)
            may += done[i] < pushes && done[i] - slowest < ahead;
        uint64_t pick = gt_random_below(r, may);
        while (!(done[w] < pushes && done[w] - slowest < ahead && pick-- == 0))
            w++;
        done[w]++;
        a->order[a->ordered++] = (uint16_t)w;
    }
}

/* From one meeting to the next, each with numbers of its own: so a run that goes on draws what it would have. */
static gt_status draw_order(async *a, int workers)
{
    const sync_run *run = a->run;
    const uint64_t seed = (uint64_t)run->settings.number[SIMULATE], last = run->o.steps;
    uint64_t all = 0, from = run->step;
    if (!seed)
        return GT_OK;
    for (uint64_t s = from + 1; s <= last; s++)
        all += (uint64_t)pushes_after(run, s);
    uint64_t *done = calloc((size_t)workers, sizeof *done);
    a->order = calloc((size_t)(all * (uint64_t)workers) + 1, sizeof *a->order);
    gt_status st = done && a->order ? GT_OK : no_memory();
    while (!st && from < last) {
        gt_random r;
        uint64_t to = from, pushes = 0;
        do
            pushes += (uint64_t)pushes_after(run, ++to);
        while (!sync_meets(run, to));
        gt_random_init(&r, seed, from);
        draw_window(a, &r, workers, done, pushes);
        from = to;
    }
    free(done);
    return st;
}

static int turn(void *context, uint64_t version)
{
    const async *a = ((shelf *)context)->of;
    return version < a->ordered ? a->order[version] : -1;
}

/* ---- the server ------------------------------------------------------------------------------ */

/* What a push says of itself: its rate, NaN: it moves nothing; and its size beside a step's batch. */
static uint64_t tag_of(float rate, float size)
{
    uint32_t a, b;
    memcpy(&a, &rate, 4);
    memcpy(&b, &size, 4);
    return (uint64_t)b << 32 | a;
}

static void read_tag(uint64_t tag, float *rate, float *size)
{
    const uint32_t a = (uint32_t)tag, b = (uint32_t)(tag >> 32);
    memcpy(rate, &a, 4);
    memcpy(size, &b, 4);
}

/* out = g + lambda g g (w - pulled) */
static void compensate(const async *a, const net_ps_update *u, float *mean_square, float *out)
{
    const float lambda = a->lambda;
    const float *restrict g = u->gradient, *restrict w = u->value, *restrict b = u->pulled;
    for (uint64_t i = 0; !mean_square && i < u->count; i++)
        out[i] = g[i] + lambda * g[i] * g[i] * (w[i] - b[i]);
    for (uint64_t i = 0; mean_square && i < u->count; i++) {
        mean_square[i] = MEAN_SQUARE_KEEPS * mean_square[i] + (1.0f - MEAN_SQUARE_KEEPS) * g[i] * g[i];
        out[i] = g[i] + lambda / sqrtf(mean_square[i] + MEAN_SQUARE_FLOOR) * g[i] * g[i] * (w[i] - b[i]);
    }
}

/* On the server's thread. */
static void apply(void *context, const net_ps_update *u)
{
    shelf *h = context;
    async *a = h->of;
    const piece *k = &h->keys[u->key];
    const owned *o = &a->owned[k->segment];
    const int64_t at = k->first + (int64_t)u->offset - o->first;
    float rate, size;
    read_tag(u->tag, &rate, &size);
    if (!u->offset && (!h->updates || u->version >= h->updates)) {
        h->updates++;
        h->behind += u->behind;
        h->most_behind = u->behind > h->most_behind ? u->behind : h->most_behind;
    }
    if (isnan(rate))
        return;
    optim_host x = { .count = (int64_t)u->count,
                     .value = u->value,
                     .gradient = u->gradient,
                     .lr = (double)rate,
                     .step = a->base + u->version + 1,
                     .decay = o->decay };
    for (int i = 0; i < 4; i++)
        x.slot[i] = o->slot[i] ? o->slot[i] + at : NULL;
    if (a->lambda > 0.0f) {
        compensate(a, u, o->mean_square ? o->mean_square + at : NULL, h->scratch);
        x.gradient = h->scratch;
    }
    if (a->by_staleness && u->behind > 1)
        x.lr /= (double)u->behind;
    if (a->by_batch)
        x.lr *= (double)size;
    optim_host_update(a->config, &x);
}

/* ---- making it ------------------------------------------------------------------------------- */

static gt_status make_owned(async *a)
{
    const sync_options *o = &a->run->o;
    const unsigned keeps = optim_host_keeps(a->config);
    const int segments = params_segments(o->params);
    a->owned = calloc((size_t)segments + 1, sizeof *a->owned);
    if (!a->owned)
        return no_memory();
    for (int i = 0; i < segments; i++) {
        owned *w = &a->owned[i];
        const params_segment *s = params_segment_at(o->params, i);
        const optim_part mine = part(&a->run->settings, o->holders, o->params, i);
        w->first = mine.first;
        w->count = mine.count;
        w->decay = s->decay ? (float)a->config->weight_decay : 0.0f;
        for (int k = 0; k < 4; k++)
            if (keeps >> k & 1 && !(w->slot[k] = calloc((size_t)w->count + 1, sizeof(float))))
                return no_memory();
        if (a->adaptive && !(w->mean_square = calloc((size_t)w->count + 1, sizeof(float))))
            return no_memory();
    }
    return GT_OK;
}

static int segment_of(const async *a, const bucket *b)
{
    int i = 0;
    while (params_segment_at(a->run->o.params, i)->grad != b->grad)
        i++;
    return i;
}

/* The keys of a bucket: one for each server that has some of it. */
static gt_status add_keys(async *a, shelf *h, const bucket *b)
{
    const int ranks = net_group_size(h->net);
    piece *keys = realloc(h->keys, (size_t)(h->count + ranks) * sizeof *keys);
    if (keys)
        h->keys = keys;
    int *owner = realloc(h->owner, (size_t)(h->count + ranks) * sizeof *owner);
    if (owner)
        h->owner = owner;
    if (!keys || !owner)
        return no_memory();
    int64_t first = (int64_t)b->offset / 4;
    for (int r = 0; r < ranks; r++) {
        if (!b->counts[r])
            continue;
        h->owner[h->count] = r;
        h->keys[h->count++] = (piece){
            .of = b, .segment = segment_of(a, b), .first = first, .at = h->elements, .count = b->counts[r]
        };
        first += (int64_t)b->counts[r];
        h->elements += b->counts[r];
    }
    return GT_OK;
}

static gt_status add_shelf(async *a, const bucket *b)
{
    shelf *h = NULL;
    for (int i = 0; i < a->count; i++)
        h = a->shelves[i].number == b->group_number ? &a->shelves[i] : h;
    if (!h) {
        const sync_holders *holders = a->run->o.holders;
        h = &a->shelves[a->count++];
        *h = (shelf){ .of = a,
                      .net = b->group,
                      .within = sync_holders_net_within(holders, b->group_number),
                      .number = b->group_number,
                      .leads = sync_holders_first_within(holders, b->group_number) };
    }
    return add_keys(a, h, b);
}

static gt_status make_arenas(async *a, shelf *h)
{
    void *sum = NULL, *value = NULL;
    uint64_t largest = 0;
    gt_status st = net_comm_memory(a->run->o.comm, (h->elements + 1) * sizeof(float), &sum);
    if (!st)
        st = net_comm_memory(a->run->o.comm, (h->elements + 1) * sizeof(float), &value);
    h->sum = sum;
    h->value = value;
    for (int k = 0; k < h->count; k++)
        largest = h->keys[k].count > largest ? h->keys[k].count : largest;
    h->scratch = malloc((largest + 1) * sizeof *h->scratch);
    if (!st && !h->scratch)
        st = no_memory();
    if (!st)
        memset(h->sum, 0, h->elements * sizeof(float));
    return st;
}

static void release_async(async *a)
{
    for (int i = 0; i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (int k = 0; k < h->count; k++)
            if (net_ps_wait(h->keys[k].push, NULL))
                gt_message_clear();
        if (net_ps_close(h->ps))
            gt_message_clear();
        if (h->updates)
            gt_log(GT_LOG_INFO, "sync", "%llu updates here, on average %.2f others behind, at most %llu",
                   (unsigned long long)h->updates, (double)h->behind / (double)h->updates,
                   (unsigned long long)h->most_behind);
        if (h->sum)
            net_comm_memory_free(a->run->o.comm, h->sum);
        if (h->value)
            net_comm_memory_free(a->run->o.comm, h->value);
        free(h->scratch);
        free(h->keys);
        free(h->owner);
    }
    for (int i = 0; a->owned && i < params_segments(a->run->o.params); i++) {
        for (int k = 0; k < 4; k++)
            free(a->owned[i].slot[k]);
        free(a->owned[i].mean_square);
    }
    free(a->owned);
    free(a->shelves);
    free(a->order);
    a->run->state = a->buckets;
    sync_buckets_release(a->run);
    free(a);
}

static gt_status create(sync_run *run)
{
    if (is_lockstep(&run->settings))
        return sync_ps.create(run);
    async *a = calloc(1, sizeof *a);
    if (!a)
        return no_memory();
    a->run = run;
    a->config = optim_config_of(run->o.optim);
    read_compensation(run->settings.word[COMPENSATION], &a->lambda, &a->adaptive);
    a->adaptive &= a->lambda > 0.0f;
    a->by_staleness = !strcmp(run->settings.word[LR_SCALE], "staleness");
    a->by_batch = !strcmp(run->settings.word[LR_SCALE], "batch");
    gt_status st = sync_buckets_create(run, SYNC_SUM_PART);
    if (st) {
        free(a);
        return st;
    }
    a->buckets = run->state;
    a->shelves = calloc((size_t)a->buckets->count + 1, sizeof *a->shelves);
    st = a->shelves ? make_owned(a) : no_memory();
    for (int i = 0; !st && i < a->buckets->count; i++)
        st = add_shelf(a, &a->buckets->buckets[i]);
    for (int i = 0; !st && i < a->count; i++)
        st = make_arenas(a, &a->shelves[i]);
    if (st)
        release_async(a);
    run->state = st ? NULL : a;
    return st;
}

static void release(sync_run *run)
{
    if (is_lockstep(&run->settings))
        sync_ps.release(run);
    else if (run->state)
        release_async(run->state);
}

/* ---- state, on the host here and in the optimizer for checkpoints ------------------------------ */

/* Between the optimizer's slots and the server's, of all parameters of which this rank keeps some. */
static gt_status move_state(async *a, int keep)
{
    const sync_options *o = &a->run->o;
    gt_status st = GT_OK;
    for (int p = 0; !st && p < params_count(o->params); p++)
        for (int k = 0; !st && k < optim_slots(o->optim); k++) {
            int segment;
            int64_t first, begin, end;
            optim_slot_range(o->optim, p, k, &begin, &end);
            params_place(o->params, p, &segment, &first);
            if (begin >= end)
                continue;
            float *at = a->owned[segment].slot[k] + (first + begin - a->owned[segment].first);
            st = keep ? optim_slot_write(o->optim, p, k, at) : optim_slot_read(o->optim, p, k, at);
        }
    return st;
}

static gt_status read_scalars(const sync_run *run, float *scalars)
{
    dev_event *event = NULL;
    gt_status st = optim_state_read(run->o.optim, scalars, &event);
    return st ? st : dev_event_wait(event);
}

static gt_status keep(sync_run *run)
{
    if (is_lockstep(&run->settings))
        return GT_OK;
    async *a = run->state;
    float scalars[OPTIM_STATE_FLOATS];
    gt_status st = move_state(a, 1);
    if (!st)
        st = read_scalars(run, scalars);
    scalars[OPTIM_STEP] = (float)(a->base + a->pushes * (uint64_t)(a->count ? a->shelves[0].workers : 0));
    return st ? st : optim_state_write(run->o.optim, scalars);
}

/* A bucket's weights from the device, into the arena of its group. */
static gt_status read_weights(async *a, shelf *h)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < h->count; k++) {
        const piece *key = &h->keys[k];
        st = dev_read(a->run->o.device, key->of->master, 4 * (uint64_t)key->first, h->value + key->at, 4 * key->count);
    }
    return st;
}

/* Who pushes: the first of each replica; the same list on all ranks of the group. */
static gt_status find_workers(shelf *h, int **out)
{
    const int ranks = net_group_size(h->net);
    int32_t *leads = calloc((size_t)ranks + 1, sizeof *leads);
    *out = calloc((size_t)ranks + 1, sizeof **out);
    gt_status st = leads && *out ? GT_OK : no_memory();
    if (!st) {
        leads[net_group_rank(h->net)] = h->leads;
        st = net_all_gather(h->net, leads, (uint64_t)ranks, NULL, NET_I32, NULL);
    }
    h->workers = 0;
    for (int r = 0; !st && r < ranks; r++)
        if (leads[r])
            (*out)[h->workers++] = r;
    free(leads);
    return st;
}

static gt_status open_shelf(async *a, shelf *h)
{
    const sync_settings *s = &a->run->settings;
    int *workers = NULL;
    uint64_t *lengths = calloc((size_t)h->count + 1, sizeof *lengths);
    const float **initial = calloc((size_t)h->count + 1, sizeof *initial);
    gt_status st = lengths && initial ? find_workers(h, &workers) : no_memory();
    if (!st)
        st = read_weights(a, h);
    if (!st && !a->order)
        st = draw_order(a, h->workers);
    for (int k = 0; !st && k < h->count; k++) {
        lengths[k] = h->keys[k].count;
        initial[k] = h->value + h->keys[k].at;
    }
    if (!st)
        st = net_ps_open(&h->ps, h->net,
                         &(net_ps_options){ .workers = workers,
                                            .worker_count = h->workers,
                                            .owner = h->owner,
                                            .staleness = (int64_t)s->number[STALENESS] - 1,
                                            .keep_pulled = a->lambda > 0.0f,
                                            .turn = a->order ? turn : NULL,
                                            .apply = apply,
                                            .context = h },
                         lengths, (uint32_t)h->count, initial);
    free(lengths);
    free(initial);
    free(workers);
    return st;
}

static gt_status begin(sync_run *run)
{
    if (is_lockstep(&run->settings))
        return GT_OK;
    async *a = run->state;
    float scalars[OPTIM_STATE_FLOATS] = { 0 };
    gt_status st = move_state(a, 0);
    if (!st)
        st = read_scalars(run, scalars);
    a->base = (uint64_t)scalars[OPTIM_STEP];
    for (int i = 0; !st && i < a->count; i++)
        st = open_shelf(a, &a->shelves[i]);
    return st;
}

/* ---- the adaptive lambda's mean squares, in checkpoints ----------------------------------------- */

static int mean_squares(void *context)
{
    return params_count(((async *)context)->run->o.params);
}

/* The elements of parameter i that this rank serves. */
static float *mean_square_of(const async *a, int i, int64_t *begin, int64_t *end)
{
    const params *p = a->run->o.params;
    int segment;
    int64_t first;
    params_place(p, i, &segment, &first);
    *begin = *end = 0;
    if (segment < 0)
        return NULL;
    const owned *o = &a->owned[segment];
    const int64_t count = shape_count(&params_info(p, i)->shape), from = o->first - first, to = from + o->count;
    *begin = from > 0 ? from : 0;
    *end = to < count ? to : count;
    *end = *end > *begin ? *end : *begin;
    return o->mean_square + (first + *begin - o->first);
}

static void mean_square_entry(void *context, int i, checkpoint_entry *out)
{
    const async *a = context;
    const graph_param_info *info = params_info(a->run->o.params, i);
    *out = (checkpoint_entry){ .param = i, .full = info->full, .slice = info->slice };
    snprintf(out->name, sizeof out->name, "mean_square.%.110s", info->name);
    mean_square_of(a, i, &out->begin, &out->end);
}

static gt_status mean_square_read(void *context, int i, float *to)
{
    int64_t begin, end;
    const float *at = mean_square_of(context, i, &begin, &end);
    if (end > begin)
        memcpy(to, at, (size_t)(end - begin) * sizeof *to);
    return GT_OK;
}

static gt_status mean_square_write(void *context, int i, const float *from)
{
    int64_t begin, end;
    float *at = mean_square_of(context, i, &begin, &end);
    if (end > begin)
        memcpy(at, from, (size_t)(end - begin) * sizeof *at);
    return GT_OK;
}

static int saved(sync_run *run, checkpoint_state *states)
{
    if (is_lockstep(&run->settings) || !((async *)run->state)->adaptive)
        return 0;
    states[0] = (checkpoint_state){
        .owner = "compensation",
        .what = "mean squares of gradients",
        .optional = 1,
        .context = run->state,
        .count = mean_squares,
        .entry = mean_square_entry,
        .read = mean_square_read,
        .write = mean_square_write
    };
    return 1;
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
        sent += pushes_after(run, run->step) ? 4 * b->count : 0;
    }
    gt_status st = run->o.tell(run->o.context, sent, &sum);
    if (!st && replica)
        st = sync_totals_sum(replica, &sum, NULL);
    run->totals = st ? (sync_totals){ 0 } : sum;
    if (!st)
        st = optim_judge_with(run->o.optim, sum.squares, sum.loss);
    if (!st)
        st = read_scalars(run, scalars);
    *factor = scalars[OPTIM_SKIP] != 0.0f ? NAN : scalars[OPTIM_CLIP];
    return st;
}

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

static gt_status push(async *a, double lr, int empty)
{
    const sync_run *run = a->run;
    const double size = run->all_weight > 0.0 ? a->held_weight / run->all_weight : 1.0;
    const uint64_t tag = tag_of(empty ? NAN : (float)lr, (float)size);
    const float mean = 1.0f / (float)a->held;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (uint64_t j = 0; h->leads && a->held > 1 && j < h->elements; j++)
            h->sum[j] *= mean;
        for (int k = 0; !st && h->leads && k < h->count; k++)
            st = net_ps_push_start(h->ps, (uint32_t)k, h->sum + h->keys[k].at, tag, &h->keys[k].push);
    }
    a->pushes++;
    a->held = 0;
    a->held_weight = 0.0;
    return st;
}

/* Weights of a group to the device, from the arena. */
static gt_status write_weights(async *a, const shelf *h)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < h->count; k++) {
        const piece *key = &h->keys[k];
        char *here = dev_buffer_host(key->of->master);
        if (here)
            memcpy(here + 4 * key->first, h->value + key->at, 4 * key->count);
        else
            st = dev_write_start(a->run->o.device, key->of->master, 4 * (uint64_t)key->first, h->value + key->at,
                                 4 * key->count, NULL);
    }
    return st;
}

/* least: updates that must be in it. */
static gt_status pull(async *a, int all)
{
    const uint64_t traced = gt_trace_begin();
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->count; i++) {
        shelf *h = &a->shelves[i];
        const uint64_t least = all ? a->pushes * (uint64_t)h->workers : 0;
        for (int k = 0; !st && h->leads && k < h->count; k++)
            st = net_ps_pull_start(h->ps, (uint32_t)k, least, h->value + h->keys[k].at, &h->keys[k].pull);
    }
    for (int i = 0; i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (int k = 0; k < h->count; k++) {
            const gt_status one = net_ps_wait(h->keys[k].pull, NULL);
            h->keys[k].pull = NULL;
            st = st ? st : one;
        }
        if (!st && h->within)
            st = net_broadcast(h->within, h->value, h->elements, NET_F32, 0, NULL);
        if (!st)
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
    gt_status st = collect(a, &loss);
    if (!st)
        st = judge(a, loss, &factor);
    if (!st)
        st = hold(a, factor);
    if (!st) {
        a->held++;
        a->held_weight += isnan(factor) ? 0.0 : run->own_weight;
    }
    if (!st && pushes_after(run, run->step))
        st = push(a, lr, a->held_weight <= 0.0);
    if (!st && pulls_after(run, run->step))
        st = pull(a, all);
    run->update_ns = gt_now_ns();
    return st;
}

const sync_mode sync_async = {
    .name = "async",
    .help = "gradients to the servers as they come",
    .shares_state = 1,
    .settings = settings,
    .setting_count = sizeof settings / sizeof *settings,
    .check = check,
    .state_share = state_share,
    .allows = allows,
    .prepare = prepare,
    .part = part,
    .create = create,
    .release = release,
    .begin = begin,
    .keep = keep,
    .stops = stops,
    .ready = ready,
    .update = update,
    .meets = meets,
    .apart = apart,
    .when = when,
    .saved = saved
};
