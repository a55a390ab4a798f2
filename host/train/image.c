/* SPDX-License-Identifier: MIT */
/* host/train/image.c - taking an image of a rank's memory, and going on from one.
 *
 *   head      steps done, position in the data, the last two steps' numbers
 *   numbers   each parameter, then each entry of the optimizer's state, fp32, one after the other
 *
 * All ranks hold the same tensors in the same order, or the hash in the head differs. */
#include "host/train/image.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/train/train_private.h"
#include "net/collective/collective.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 24 };               /* floats that travel at once */

/* Of a step whose update is in the image. */
typedef struct image_step {
    uint64_t there, step, begin, ns;
    float state[OPTIM_STATE_FLOATS];
    double lr, weights;
    data_total all;
} image_step;

typedef struct image_head {
    uint64_t has, step, samples, tokens, skips, count, hash;
    checkpoint_best best;               /* before the validation after the newest step */
    image_step last[DEPTH];             /* the newest first                            */
} image_head;

struct train_image {
    image_head head;
    float *numbers;
};

uint64_t train_image_step(const train_image *i)
{
    return i->head.step;
}

void train_image_release(train_image *i)
{
    if (!i)
        return;
    free(i->numbers);
    free(i);
}

/* Numbers of all that an image holds; *hash of their names and sizes. */
static uint64_t count_all(train *t, const checkpoint_state *state, uint64_t *hash)
{
    uint64_t sum = 0;
    checkpoint_entry e;
    *hash = 0;
    for (int i = 0; i < params_count(t->params); i++) {
        const graph_param_info *info = params_info(t->params, i);
        sum += (uint64_t)shape_count(&info->shape);
        *hash = *hash * 31 + gt_hash(info->name, strlen(info->name)) + sum;
    }
    for (int i = 0; i < state->count(state->context); i++) {
        state->entry(state->context, i, &e);
        sum += (uint64_t)(e.end - e.begin);
        *hash = *hash * 31 + gt_hash(e.name, strlen(e.name)) + sum;
    }
    return sum;
}

/* Why this rank has not all of it; NULL: it has. */
static const char *missing(train *t, checkpoint_state states[CHECKPOINT_STATES])
{
    if (t->plan.replica[t->place.replica].stages > 1)
        return "a rank has one stage of the model";
    if (t->plan.tensor > 1)
        return "a rank has a part of each layer";
    if (!sync_mode_holds_all(t->mode))
        return "the mode of --sync keeps state in several places";
    if (params_frozen_bytes(t->params))
        return "a part of the model is frozen";
    if (train_states(t, states) != 1)
        return "each rank holds back a part of its gradient (--compress)";
    return NULL;
}

static gt_status read_all(train *t, const checkpoint_state *state, float *to)
{
    gt_status st = GT_OK;
    checkpoint_entry e;
    for (int i = 0; !st && i < params_count(t->params); i++) {
        st = params_read(t->params, i, to);
        to += shape_count(&params_info(t->params, i)->shape);
    }
    for (int i = 0; !st && i < state->count(state->context); i++) {
        state->entry(state->context, i, &e);
        st = state->read(state->context, i, to);
        to += e.end - e.begin;
    }
    return st;
}

static gt_status write_all(train *t, const checkpoint_state *state, const float *from)
{
    gt_status st = GT_OK;
    checkpoint_entry e;
    for (int i = 0; !st && i < params_count(t->params); i++) {
        st = params_write(t->params, i, from);
        from += shape_count(&params_info(t->params, i)->shape);
    }
    for (int i = 0; !st && i < state->count(state->context); i++) {
        state->entry(state->context, i, &e);
        st = state->write(state->context, i, from);
        from += e.end - e.begin;
    }
    return st;
}

/* ---- taking ------------------------------------------------------------------------------------ */

/* The k-th newest step, if this object queued it. */
static gt_status take_step(train *t, image_step *to, uint64_t k)
{
    if (t->queued <= k)
        return GT_OK;
    flight *f = &t->flights[(t->queued - 1 - k) % FLIGHTS];
    if (f->of != t || f->step + 1 + k != t->queued)
        return GT_OK;
    const uint64_t ticket = f->ticket;
    f->ticket = 0;
    gt_status st = dev_completion_wait(t->completion, ticket);
    *to = (image_step){ .there = 1,
                        .step = f->step,
                        .begin = f->begin,
                        .ns = f->end_ns > f->start_ns ? f->end_ns - f->start_ns : 1,
                        .lr = f->lr,
                        .weights = f->weights,
                        .all = f->all };
    memcpy(to->state, f->state, sizeof to->state);
    return st;
}

static uint64_t tokens_of(const image_step *s)
{
    return s->there ? (uint64_t)(s->all.tokens + 0.5) : 0;
}

/* Tokens and fp16's skipped steps as they were before the newest step was recorded. */
static void take_position(const train *t, image_head *h)
{
    h->step = t->queued;
    h->samples = t->samples;
    h->tokens = t->tokens;
    h->skips = t->skips;
    h->best = t->best_before;
    if (t->done == t->queued) {
        h->tokens -= tokens_of(&h->last[0]);
        h->skips -= h->skips > 0;
    } else if (t->done + 1 < t->queued) {
        h->tokens += tokens_of(&h->last[1]);
    }
}

gt_status train_image_take(train_image **out, train *t)
{
    checkpoint_state states[CHECKPOINT_STATES];
    const char *why = missing(t, states);
    *out = NULL;
    if (why)
        return gt_fail(GT_UNSUPPORTED, "memory does not hold all of the run: %s", why);
    if (t->updated != t->queued)
        return gt_fail(GT_UNSUPPORTED, "memory does not hold all of the run: step %llu was left half-way",
                       (unsigned long long)t->queued + 1);
    train_image *i = calloc(1, sizeof *i);
    if (!i)
        return gt_fail(GT_NO_MEMORY, "no memory to keep the run in");
    gt_status st = dev_wait(t->device);
    for (uint64_t k = 0; !st && k < DEPTH; k++)
        st = take_step(t, &i->head.last[k], k);
    if (!st && !i->head.last[0].there)
        st = gt_fail(GT_NOT_FOUND, "no step was done since the run was begun or read from a checkpoint");
    if (!st) {
        take_position(t, &i->head);
        i->head.has = 1;
        i->head.count = count_all(t, &states[0], &i->head.hash);
        i->numbers = malloc((size_t)i->head.count * sizeof *i->numbers);
        st = i->numbers ? read_all(t, &states[0], i->numbers)
                        : gt_fail(GT_NO_MEMORY, "no memory for %llu numbers of parameters and optimizer",
                                  (unsigned long long)i->head.count);
    }
    if (st)
        train_image_release(i);
    else
        *out = i;
    return st;
}

/* ---- going on ------------------------------------------------------------------------------------ */

/* Whose is the newest: *from -1, nobody has one. */
static gt_status find_newest(train *t, const train_image *own, image_head *newest, int *from)
{
    const image_head none = { 0 };
    const image_head *mine = own ? &own->head : &none;
    net_blobs all;
    *newest = *mine;
    *from = mine->has ? 0 : -1;
    if (!t->o.comm)
        return GT_OK;
    gt_status st = net_job_exchange(net_comm_job(t->o.comm), "what ranks have in memory", mine, sizeof *mine, &all);
    *from = -1;
    for (int r = 0; !st && r < all.count; r++) {
        image_head theirs = { 0 };
        if (all.size[r] == sizeof theirs)
            memcpy(&theirs, all.data[r], sizeof theirs);
        if (theirs.has && (*from < 0 || theirs.step > newest->step)) {
            *newest = theirs;
            *from = r;
        }
    }
    if (!st)
        net_blobs_release(&all);
    return st;
}

static gt_status spread(train *t, float *numbers, uint64_t count, int from)
{
    gt_status st = GT_OK;
    for (uint64_t at = 0; !st && t->o.comm && at < count; at += CHUNK)
        st = net_broadcast(net_group_world(t->o.comm), numbers + at, count - at < CHUNK ? count - at : CHUNK, NET_F32,
                           from, NULL);
    return st;
}

/* The last steps as if they were queued and not yet recorded. One that had a validation or a checkpoint behind it
 * was recorded before the next began. */
static void put_steps(train *t, const image_head *h)
{
    t->queued = t->updated = h->step;
    t->done = h->step - 1;
    t->samples = h->samples;
    t->tokens = h->tokens;
    t->skips = h->skips;
    t->best = t->best_before = h->best;
    if (h->last[1].there && !train_looks_at(t, h->step - 1)) {
        t->done--;
        t->tokens -= tokens_of(&h->last[1]);
    }
    const uint64_t now = gt_now_ns();
    uint64_t end = now;
    for (int k = 0; k < DEPTH; k++) {
        const image_step *s = &h->last[k];
        if (!s->there)
            continue;
        t->flights[s->step % FLIGHTS] = (flight){
            .step = s->step,
            .begin = s->begin,
            .of = t,
            .start_ns = end - s->ns,
            .end_ns = end,
            .lr = s->lr,
            .weights = s->weights,
            .all = s->all
        };
        memcpy(t->flights[s->step % FLIGHTS].state, s->state, sizeof s->state);
        end -= s->ns;
        if (s->step == t->done)
            t->last_end_ns = end;
    }
}

gt_status train_image_give(train *t, const train_image *own, int *given)
{
    checkpoint_state states[CHECKPOINT_STATES];
    image_head h;
    int from;
    uint64_t hash;
    *given = 0;
    gt_status st = find_newest(t, own, &h, &from);
    if (st || from < 0)
        return st;
    const char *why = missing(t, states);
    if (why)
        return gt_fail(GT_UNSUPPORTED, "cannot go on from memory: %s", why);
    if (count_all(t, &states[0], &hash) != h.count || hash != h.hash)
        return gt_fail(GT_MISMATCH, "cannot go on from memory: rank %d holds another model or optimizer", from);
    const int mine = t->rank == from;
    float *numbers = mine ? own->numbers : malloc((size_t)h.count * sizeof *numbers);
    if (!numbers)
        return gt_fail(GT_NO_MEMORY, "no memory for %llu numbers of parameters and optimizer",
                       (unsigned long long)h.count);
    st = spread(t, numbers, h.count, from);
    if (!st)
        st = write_all(t, &states[0], numbers);
    if (!st)
        put_steps(t, &h);
    if (!mine)
        free(numbers);
    *given = !st;
    return st;
}
