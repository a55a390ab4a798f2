/* SPDX-License-Identifier: MIT */
/* host/sync/async_server.c - the servers of --sync async: what they keep, in which order they update, and how.
 *
 *   buckets   |      bucket 1         |      bucket 0            |
 *   keys      | server 0  | server 1  | server 0   |  server 1   |     a key is a bucket's share of one server
 *
 * Weights are net/ps's; state is here, of the parts that are this server's (owned).
 */
#include "host/base/log.h"
#include "host/base/random.h"
#include "host/sync/async_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEAN_SQUARE_KEEPS 0.95f         /* of the adaptive lambda's, a push */
#define MEAN_SQUARE_FLOOR 1e-7f

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for what a parameter server keeps on the host");
}

/* ---- the order of updates, drawn -------------------------------------------------------------- */

/* Those who may push next: none is ahead by more than it may be, and all stop at the next meeting. */
static void draw_window(async *a, gt_random *r, int workers, uint64_t *done, uint64_t pushes)
{
    const uint64_t ahead = (uint64_t)a->run->settings.number[ASYNC_STALENESS];
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
    const uint64_t seed = (uint64_t)run->settings.number[ASYNC_SIMULATE], last = run->o.steps;
    uint64_t all = 0, from = run->step;
    if (!seed)
        return GT_OK;
    for (uint64_t s = from + 1; s <= last; s++)
        all += (uint64_t)async_pushes_after(run, s);
    uint64_t *done = calloc((size_t)workers, sizeof *done);
    a->order = calloc((size_t)(all * (uint64_t)workers) + 1, sizeof *a->order);
    gt_status st = done && a->order ? GT_OK : no_memory();
    while (!st && from < last) {
        gt_random r;
        uint64_t to = from, pushes = 0;
        do
            pushes += (uint64_t)async_pushes_after(run, ++to);
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

/* Of a push: its rate, NaN: it moves nothing; and its size beside a step's batch. */
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
    const owned *o = k->own;
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
    optim_part *mine = NULL;
    int count = 0;
    gt_status st = sync_ps.parts(&a->run->settings, o->holders, o->params, &mine, &count);
    a->owned = st ? NULL : calloc((size_t)count + 1, sizeof *a->owned);
    if (!st && !a->owned)
        st = no_memory();
    for (int i = 0; !st && i < count; i++) {
        owned *w = &a->owned[a->owned_count++];
        *w = (owned){ .segment = mine[i].segment, .first = mine[i].first, .count = mine[i].count };
        w->decay = params_segment_at(o->params, w->segment)->decay ? (float)a->config->weight_decay : 0.0f;
        for (int k = 0; k < 4; k++)
            if (keeps >> k & 1 && !(w->slot[k] = calloc((size_t)w->count, sizeof(float))))
                st = no_memory();
        if (a->adaptive && !(w->mean_square = calloc((size_t)w->count, sizeof(float))))
            st = no_memory();
    }
    free(mine);
    return st;
}

/* What is kept here of elements [first, first + count): one part has all that is. NULL: none. */
static const owned *owned_of(const async *a, int segment, int64_t first, int64_t count)
{
    for (int i = 0; i < a->owned_count; i++) {
        const owned *w = &a->owned[i];
        if (w->segment == segment && first < w->first + w->count && w->first < first + count)
            return w;
    }
    return NULL;
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
        const owned *own = owned_of(a, segment_of(a, b), first, (int64_t)b->counts[r]);
        h->owner[h->count] = r;
        h->keys[h->count++] = (piece){ .of = b, .own = own, .first = first, .at = h->elements, .count = b->counts[r] };
        first += (int64_t)b->counts[r];
        h->elements += b->counts[r];
    }
    return GT_OK;
}

int async_serves(const async *a, int rank)
{
    return sync_mode_serves_only(a->run->o.mode, &a->run->settings, rank);
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
                      .leads = sync_holders_first_within(holders, b->group_number)
                               && !async_serves(a, net_comm_rank(a->run->o.comm)) };
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

gt_status async_make(async *a)
{
    a->shelves = calloc((size_t)a->buckets->count + 1, sizeof *a->shelves);
    gt_status st = a->shelves ? make_owned(a) : no_memory();
    for (int i = 0; !st && i < a->buckets->count; i++)
        st = add_shelf(a, &a->buckets->buckets[i]);
    for (int i = 0; !st && i < a->count; i++)
        st = make_arenas(a, &a->shelves[i]);
    return st;
}

void async_release(async *a)
{
    for (int i = 0; i < a->count; i++) {
        shelf *h = &a->shelves[i];
        for (int k = 0; k < h->count; k++) {
            const gt_status pushed = net_ps_wait(h->keys[k].push, NULL), pulled = net_ps_wait(h->keys[k].pull, NULL);
            if (pushed || pulled)
                gt_message_clear();
        }
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
    for (int i = 0; i < a->owned_count; i++) {
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
            const owned *w = owned_of(a, segment, first + begin, end - begin);
            float *at = w->slot[k] + (first + begin - w->first);
            st = keep ? optim_slot_write(o->optim, p, k, at) : optim_slot_read(o->optim, p, k, at);
        }
    return st;
}

gt_status async_scalars(const sync_run *run, float scalars[OPTIM_STATE_FLOATS])
{
    dev_event *event = NULL;
    gt_status st = optim_state_read(run->o.optim, scalars, &event);
    return st ? st : dev_event_wait(event);
}

gt_status async_keep(async *a)
{
    const sync_run *run = a->run;
    float scalars[OPTIM_STATE_FLOATS];
    gt_status st = move_state(a, 1);
    if (!st)
        st = async_scalars(run, scalars);
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
static gt_status find_workers(const async *a, shelf *h, int **out)
{
    const int ranks = net_group_size(h->net);
    int32_t *leads = calloc((size_t)ranks + 1, sizeof *leads);
    *out = calloc((size_t)ranks + 1, sizeof **out);
    gt_status st = leads && *out ? GT_OK : no_memory();
    if (!st) {
        leads[net_group_rank(h->net)] = h->leads;
        st = net_all_gather(h->net, leads, (uint64_t)ranks, NULL, NET_I32, NULL);
    }
    h->workers = h->watched = 0;
    for (int r = 0; !st && r < ranks; r++) {
        h->watched |= async_serves(a, net_group_member(h->net, r));
        if (leads[r])
            (*out)[h->workers++] = r;
    }
    h->first = **out;
    free(leads);
    return st;
}

static gt_status open_shelf(async *a, shelf *h)
{
    const sync_settings *s = &a->run->settings;
    int *workers = NULL;
    uint64_t *lengths = calloc((size_t)h->count + 1, sizeof *lengths);
    const float **initial = calloc((size_t)h->count + 1, sizeof *initial);
    uint32_t *priority = calloc((size_t)h->count + 1, sizeof *priority);
    gt_status st = lengths && initial && priority ? find_workers(a, h, &workers) : no_memory();
    if (!st)
        st = read_weights(a, h);
    if (!st && !a->order)
        st = draw_order(a, h->workers);
    for (int k = 0; !st && k < h->count; k++) {
        lengths[k] = h->keys[k].count;
        initial[k] = h->value + h->keys[k].at;
        priority[k] = 2 * h->keys[k].of->gather_priority;
    }
    if (!st)
        st = net_ps_open(&h->ps, h->net,
                         &(net_ps_options){
                             .workers = workers,
                             .worker_count = h->workers,
                             .owner = h->owner,
                             .priority = priority,
                             .staleness = (int64_t)s->number[ASYNC_STALENESS] - 1,
                             .keep_pulled = a->lambda > 0.0f,
                             .turn = a->order ? turn : NULL,
                             .apply = apply,
                             .context = h },
                         lengths, (uint32_t)h->count, initial);
    free(lengths);
    free(initial);
    free(workers);
    free(priority);
    return st;
}

gt_status async_begin(async *a)
{
    const sync_run *run = a->run;
    float scalars[OPTIM_STATE_FLOATS] = { 0 };
    gt_status st = move_state(a, 0);
    if (!st)
        st = async_scalars(run, scalars);
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
    const int64_t count = shape_count(&params_info(p, i)->shape);
    const owned *o = segment < 0 ? NULL : owned_of(a, segment, first, count);
    if (!o)
        return NULL;
    const int64_t from = o->first - first, to = from + o->count;
    *begin = from > 0 ? from : 0;
    *end = to < count ? to : count;
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

int async_saved(async *a, checkpoint_state *states)
{
    if (!a->adaptive)
        return 0;
    states[0] = (checkpoint_state){
        .owner = "compensation",
        .what = "mean squares of gradients",
        .optional = 1,
        .context = a,
        .count = mean_squares,
        .entry = mean_square_entry,
        .read = mean_square_read,
        .write = mean_square_write
    };
    return 1;
}
