/* SPDX-License-Identifier: MIT */
/* host/train/image.c - taking an image of a rank's memory.
 *
 *   head      steps done, position in the data, the last two steps' numbers
 *   pieces    what of which tensor: parameters, then the state of each owner (checkpoint_state.h)
 *   numbers   fp32, one piece after the other
 *
 * Pieces are those of checkpoint files: of a whole tensor a slice, and of that a range. So what ranks put together
 * from their images (image_give.c) may be cut for another plan, and one piece may lie with several ranks. */
#include "host/base/clock.h"
#include "host/train/image_private.h"

#include <stdlib.h>
#include <string.h>

uint64_t train_image_step(const train_image *i)
{
    return i->head.step;
}

void train_image_release(train_image *i)
{
    if (!i)
        return;
    free(i->pieces);
    free(i->numbers);
    free(i);
}

/* ---- pieces ------------------------------------------------------------------------------------- */

/* What this rank has of parameter i. Where weights of the others did not come any more, that is the part that
 * it updates itself. */
static checkpoint_piece piece_of(const train *t, int i)
{
    const graph_param_info *info = params_info(t->params, i);
    checkpoint_piece p = {
        .full = info->full, .slice = info->slice, .end = shape_count(&info->shape), .type = DTYPE_F32
    };
    if (t->half && !info->frozen)
        optim_range(t->optim, i, &p.begin, &p.end);
    return p;
}

static void put_piece(image_piece *to, const char *owner, const char *name, int each_rank, const checkpoint_piece *p,
                      uint64_t at)
{
    memset(to, 0, sizeof *to);
    memcpy(to->owner, owner, strlen(owner));
    memcpy(to->name, name, strlen(name));
    to->each_rank = each_rank;
    to->piece.full.rank = p->full.rank;
    memcpy(to->piece.full.dim, p->full.dim, (size_t)p->full.rank * sizeof *p->full.dim);
    if (p->slice.parts)
        to->piece.slice = p->slice;
    to->piece.begin = p->begin;
    to->piece.end = p->end;
    to->piece.type = DTYPE_F32;
    to->at = at;
}

/* All that this rank has, frozen tensors aside; without `to` only counted. */
static gt_status list_pieces(train *t, image_piece *to, uint64_t *pieces, uint64_t *numbers)
{
    checkpoint_state states[CHECKPOINT_STATES];
    const int owners = train_states(t, states);
    *pieces = *numbers = 0;
    for (int i = 0; i < params_count(t->params); i++) {
        const checkpoint_piece p = piece_of(t, i);
        if (params_info(t->params, i)->frozen || p.begin >= p.end)
            continue;
        if (to)
            put_piece(&to[*pieces], CHECKPOINT_PARAMS, params_info(t->params, i)->name, 0, &p, *numbers);
        ++*pieces;
        *numbers += (uint64_t)(p.end - p.begin);
    }
    for (int k = 0; k < owners; k++)
        for (int i = 0; i < states[k].count(states[k].context); i++) {
            checkpoint_entry e;
            states[k].entry(states[k].context, i, &e);
            const checkpoint_piece p = checkpoint_entry_piece(&e);
            if (p.begin >= p.end)
                continue;
            if (to)
                put_piece(&to[*pieces], states[k].owner, e.name, states[k].each_rank, &p, *numbers);
            ++*pieces;
            *numbers += (uint64_t)(p.end - p.begin);
        }
    return GT_OK;
}

/* In the order of list_pieces(). */
static gt_status read_all(train *t, float *to)
{
    checkpoint_state states[CHECKPOINT_STATES];
    const int owners = train_states(t, states);
    int64_t most = 1;
    gt_status st = GT_OK;
    for (int i = 0; i < params_count(t->params); i++)
        most = shape_count(&params_info(t->params, i)->shape) > most
                   ? shape_count(&params_info(t->params, i)->shape)
                   : most;
    float *room = t->half ? malloc((size_t)most * sizeof *room) : NULL;
    if (t->half && !room)
        return gt_fail(GT_NO_MEMORY, "no memory for a tensor of %lld numbers", (long long)most);
    for (int i = 0; !st && i < params_count(t->params); i++) {
        const checkpoint_piece p = piece_of(t, i);
        if (params_info(t->params, i)->frozen || p.begin >= p.end)
            continue;
        st = params_read(t->params, i, room ? room : to);
        if (!st && room)
            memcpy(to, room + p.begin, (size_t)(p.end - p.begin) * sizeof *to);
        to += p.end - p.begin;
    }
    free(room);
    for (int k = 0; k < owners; k++)
        for (int i = 0; !st && i < states[k].count(states[k].context); i++) {
            checkpoint_entry e;
            states[k].entry(states[k].context, i, &e);
            if (e.begin >= e.end)
                continue;
            st = states[k].read(states[k].context, i, to);
            to += e.end - e.begin;
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

uint64_t image_tokens(const image_step *s)
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
    h->best = h->last[0].there ? t->best_before : t->best;
    if (!h->last[0].there)
        return;
    if (t->done == t->queued) {
        h->tokens -= image_tokens(&h->last[0]);
        h->skips -= h->skips > 0;
    } else if (t->done + 1 < t->queued) {
        h->tokens += image_tokens(&h->last[1]);
    }
}

/* An update was queued, and then not all weights came: the step counts, with what this rank has of it. */
static gt_status finish_half(train *t)
{
    flight *f = &t->flights[t->queued % FLIGHTS];
    dev_event *event = NULL;
    gt_status st = optim_state_read(t->optim, f->state, &event);
    if (!st)
        st = dev_event_wait(event);
    f->end_ns = gt_now_ns();
    f->ticket = 0;
    t->queued = t->updated = f->step + 1;
    t->samples = f->begin + f->rows;
    return st;
}

static gt_status take(train_image **out, train *t, int steps)
{
    train_image *i = calloc(1, sizeof *i);
    if (!i)
        return gt_fail(GT_NO_MEMORY, "no memory to keep the run in");
    gt_status st = dev_wait(t->device);
    if (!st && t->half)
        st = finish_half(t);
    for (uint64_t k = 0; !st && steps && k < DEPTH; k++)
        st = take_step(t, &i->head.last[k], k);
    if (!st) {
        take_position(t, &i->head);
        i->head.has = 1;
        i->head.ranks = (uint64_t)t->ranks;
        st = list_pieces(t, NULL, &i->head.pieces, &i->head.numbers);
    }
    if (!st) {
        i->pieces = malloc((size_t)(i->head.pieces + 1) * sizeof *i->pieces);
        i->numbers = malloc((size_t)(i->head.numbers + 1) * sizeof *i->numbers);
        if (!i->pieces || !i->numbers)
            st = gt_fail(GT_NO_MEMORY, "no memory for %llu numbers of parameters and optimizer",
                         (unsigned long long)i->head.numbers);
    }
    if (!st)
        st = list_pieces(t, i->pieces, &i->head.pieces, &i->head.numbers);
    if (!st)
        st = read_all(t, i->numbers);
    if (st)
        train_image_release(i);
    else
        *out = i;
    return st;
}

gt_status train_image_take(train_image **out, train *t)
{
    const int apart = sync_is_apart(t->sync, t->queued + 1);
    *out = NULL;
    if (apart && !train_is_paused(t)) {     /* what ranks did since is not the same on any two */
        *out = t->kept;
        t->kept = NULL;
        return *out ? GT_OK : gt_fail(GT_NOT_FOUND, "ranks have not met since the run was begun");
    }
    if (t->updated != t->queued && !t->half)
        return gt_fail(GT_UNSUPPORTED, "memory does not hold all of the run: step %llu was left half-way",
                       (unsigned long long)t->queued + 1);
    gt_status st = apart ? sync_keep(t->sync) : GT_OK;
    return st ? st : take(out, t, !apart);
}

/* Servers go on with updates as soon as any rank does, so none does before all have an image. */
gt_status train_image_keep(train *t)
{
    train_image *now = NULL;
    const uint64_t step = t->queued;
    if (!t->o.elastic || !t->o.comm || !sync_is_apart(t->sync, step + 1) || t->done != step
        || (t->kept && (train_image_step(t->kept) == step || !sync_meets(t->sync, step))))
        return GT_OK;
    gt_status st = sync_keep(t->sync);
    if (!st)
        st = take(&now, t, 0);
    if (!st)
        st = net_job_barrier(net_comm_job(t->o.comm), "what ranks keep in memory");
    if (st) {
        train_image_release(now);
        return st;
    }
    train_image_release(t->kept);
    t->kept = now;
    return GT_OK;
}
