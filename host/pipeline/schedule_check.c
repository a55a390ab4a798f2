/* SPDX-License-Identifier: MIT */
/* host/pipeline/schedule_check.c - the proof of a schedule.
 *
 * All ranks are run together, without time: each goes on until a receive finds its channel
 * empty. A channel is one direction of one boundary between virtual stages, and holds what
 * was sent and not yet received, in order. The proof fails with the first instruction that
 * does not fit, and a round in which nobody moves is a deadlock.                          */
#include "host/pipeline/pipe_schedule.h"

#include <stdlib.h>
#include <string.h>

enum {
    FORWARDED = 1,
    INPUT_DONE = 2,
    WEIGHT_DONE = 4,
    HAS_ACTIVATION = 8,
    HAS_GRADIENT = 16,
    ACTIVATION_SENT = 32,
    GRADIENT_SENT = 64
};

typedef struct channel {
    unsigned short *queue;
    int sent, received;
} channel;

typedef struct proof {
    const pipe_schedule *s;
    unsigned char *state;           /* [virtual stage * micro_batches + m]                     */
    channel *activations, *gradients;   /* [virtual stage]: what arrives at it                 */
    int *next;                      /* [rank]                                                  */
    int *done_weights, *reduced;    /* [virtual stage]                                         */
    int *updated, *keeps, *kept;    /* [rank]                                                  */
} proof;

static int virtual_stage(const pipe_schedule *s, int rank, int chunk)
{
    return chunk * s->ranks + rank;
}

static gt_status broken(const proof *p, int rank, const char *why)
{
    const pipe_instruction i = p->s->list[rank][p->next[rank]];
    return gt_fail(GT_MISMATCH,
                   "schedule %s, rank %d, instruction %d (%s of micro-batch %d, chunk %d): "
                   "%s",
                   p->s->name, rank, p->next[rank], pipe_kind_name(i.kind), i.micro_batch, i.chunk, why);
}

/* Takes from a channel. 0: it is empty, wait. */
static int receive(channel *c, int expected, int *right)
{
    if (c->received == c->sent)
        return 0;
    *right = c->queue[c->received++] == expected;
    return 1;
}

static void keep(proof *p, int rank, int change)
{
    p->keeps[rank] += change;
    if (p->kept && p->keeps[rank] > p->kept[rank])
        p->kept[rank] = p->keeps[rank];
}

static const char *compute(proof *p, int rank, int v, const pipe_instruction *i, unsigned char *state)
{
    const int last = p->s->ranks * p->s->chunks - 1;
    switch (i->kind) {
    case PIPE_FORWARD:
        if (*state & FORWARDED)
            return "it was done before";
        if (v > 0 && !(*state & HAS_ACTIVATION))
            return "its activation has not been received";
        *state |= FORWARDED;
        keep(p, rank, 1);
        return NULL;
    case PIPE_BACKWARD_INPUT:
        if (!(*state & FORWARDED) || (*state & INPUT_DONE))
            return "the forward is missing, or it was done before";
        if (v < last && !(*state & HAS_GRADIENT))
            return "its gradient has not been received";
        *state |= INPUT_DONE;
        return NULL;
    default:
        if (!(*state & INPUT_DONE) || (*state & WEIGHT_DONE))
            return "backward-input is missing, or it was done before";
        *state |= WEIGHT_DONE;
        p->done_weights[v]++;
        keep(p, rank, -1);
        return NULL;
    }
}

static const char *transmit(proof *p, int v, const pipe_instruction *i, unsigned char *state)
{
    const int last = p->s->ranks * p->s->chunks - 1, forwards = i->kind == PIPE_SEND_ACTIVATION;
    const int needs = forwards ? FORWARDED : INPUT_DONE, mark = forwards ? ACTIVATION_SENT : GRADIENT_SENT;
    if (forwards ? v == last : v == 0)
        return "there is nobody to send to";
    if (!(*state & needs) || (*state & mark))
        return "it has not been computed, or was sent before";
    channel *c = forwards ? &p->activations[v + 1] : &p->gradients[v - 1];
    *state |= (unsigned char)mark;
    c->queue[c->sent++] = i->micro_batch;
    return NULL;
}

/* One instruction. *moved: 0 if it must wait. */
static gt_status step(proof *p, int rank, int *moved)
{
    const pipe_schedule *s = p->s;
    const pipe_instruction *i = &s->list[rank][p->next[rank]];
    const int v = virtual_stage(s, rank, i->chunk);
    const int whole = i->kind == PIPE_REDUCE || i->kind == PIPE_UPDATE;
    int right = 1;
    const char *why = NULL;
    *moved = 1;
    if (p->updated[rank])
        return broken(p, rank, "it comes after the update");
    if (i->chunk >= s->chunks || i->micro_batch >= (whole ? 1 : s->micro_batches))
        return broken(p, rank, "there is no such chunk or micro-batch");
    unsigned char *state = &p->state[(size_t)v * (size_t)s->micro_batches + i->micro_batch];
    switch (i->kind) {
    case PIPE_RECEIVE_ACTIVATION:
    case PIPE_RECEIVE_GRADIENT:
        *moved = receive(i->kind == PIPE_RECEIVE_ACTIVATION ? &p->activations[v] : &p->gradients[v], i->micro_batch,
                         &right);
        why = right ? NULL : "another micro-batch was sent at this place";
        if (*moved)
            *state |= i->kind == PIPE_RECEIVE_ACTIVATION ? HAS_ACTIVATION : HAS_GRADIENT;
        break;
    case PIPE_SEND_ACTIVATION:
    case PIPE_SEND_GRADIENT: why = transmit(p, v, i, state); break;
    case PIPE_FORWARD:
    case PIPE_BACKWARD_INPUT:
    case PIPE_BACKWARD_WEIGHT: why = compute(p, rank, v, i, state); break;
    case PIPE_REDUCE:
        why = p->done_weights[v] < s->micro_batches || p->reduced[v]++
                  ? "its gradients are not complete, or it was done before"
                  : NULL;
        break;
    case PIPE_UPDATE: p->updated[rank] = 1; break;
    default: why = "there is no such instruction";
    }
    if (why)
        return broken(p, rank, why);
    p->next[rank] += *moved;
    return GT_OK;
}

static gt_status run(proof *p)
{
    const pipe_schedule *s = p->s;
    int left = 1, stuck = -1;
    for (int any = 1; left && any;) {
        left = any = 0;
        for (int r = 0; r < s->ranks; r++) {
            int moved = 1;
            while (moved && p->next[r] < s->count[r]) {
                gt_status st = step(p, r, &moved);
                if (st)
                    return st;
                any |= moved;
            }
            if (p->next[r] < s->count[r]) {
                left = 1;
                stuck = r;
            }
        }
    }
    return left ? broken(p, stuck, "it waits forever; nobody sends that") : GT_OK;
}

static gt_status complete(const proof *p)
{
    const pipe_schedule *s = p->s;
    const int stages = s->ranks * s->chunks;
    for (int v = 0; v < stages; v++)
        if (p->done_weights[v] < s->micro_batches || !p->reduced[v])
            return gt_fail(GT_MISMATCH, "schedule %s: chunk %d of rank %d is not complete", s->name, v / s->ranks,
                           v % s->ranks);
    for (int v = 0; v < stages; v++)
        if (p->activations[v].sent != (v ? s->micro_batches : 0)
            || p->gradients[v].sent != (v < stages - 1 ? s->micro_batches : 0)
            || p->activations[v].received != p->activations[v].sent || p->gradients[v].received != p->gradients[v].sent)
            return gt_fail(GT_MISMATCH,
                           "schedule %s: sends and receives of chunk %d of rank %d do "
                           "not pair up",
                           s->name, v / s->ranks, v % s->ranks);
    for (int r = 0; r < s->ranks; r++)
        if (!p->updated[r])
            return gt_fail(GT_MISMATCH, "schedule %s: rank %d has no update", s->name, r);
    return GT_OK;
}

static int allocate(proof *p)
{
    const pipe_schedule *s = p->s;
    const size_t stages = (size_t)s->ranks * (size_t)s->chunks, all = (size_t)s->micro_batches;
    p->state = calloc(stages * all, 1);
    p->activations = calloc(stages, sizeof *p->activations);
    p->gradients = calloc(stages, sizeof *p->gradients);
    p->next = calloc((size_t)s->ranks, sizeof *p->next);
    p->done_weights = calloc(stages, sizeof *p->done_weights);
    p->reduced = calloc(stages, sizeof *p->reduced);
    p->updated = calloc((size_t)s->ranks, sizeof *p->updated);
    p->keeps = calloc((size_t)s->ranks, sizeof *p->keeps);
    if (!p->state || !p->activations || !p->gradients || !p->next || !p->done_weights || !p->reduced || !p->updated
        || !p->keeps)
        return 0;
    for (size_t v = 0; v < stages; v++) {
        p->activations[v].queue = malloc(all * sizeof(unsigned short));
        p->gradients[v].queue = malloc(all * sizeof(unsigned short));
        if (!p->activations[v].queue || !p->gradients[v].queue)
            return 0;
    }
    return 1;
}

static void release(proof *p)
{
    const size_t stages = (size_t)p->s->ranks * (size_t)p->s->chunks;
    for (size_t v = 0; v < stages; v++) {
        if (p->activations)
            free(p->activations[v].queue);
        if (p->gradients)
            free(p->gradients[v].queue);
    }
    free(p->state);
    free(p->activations);
    free(p->gradients);
    free(p->next);
    free(p->done_weights);
    free(p->reduced);
    free(p->updated);
    free(p->keeps);
}

gt_status pipe_schedule_check(const pipe_schedule *s, int *kept)
{
    proof p = { .s = s, .kept = kept };
    if (kept)
        memset(kept, 0, (size_t)s->ranks * sizeof *kept);
    gt_status st = allocate(&p) ? run(&p)
                                : gt_fail(GT_NO_MEMORY, "no memory to check a schedule of %d ranks", s->ranks);
    if (!st)
        st = complete(&p);
    release(&p);
    return st;
}
