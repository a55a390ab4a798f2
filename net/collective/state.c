/* SPDX-License-Identifier: MIT */
/* net/collective/state.c - turns, and the thread for what runs in the background.
 *
 *   start ──► first ─► ... ─► last ──► thread, or who waits before it has woken: enter, run, leave
 *   blocking call: enters when nothing is queued and nobody is in; runs where it was called
 *
 * So operations of a group happen one at a time and in the order of the calls, which is what
 * lets ranks match them by counting. The thread is made by the first start().             */
#include "net/collective/state.h"

#include "host/base/clock.h"

#include <stdlib.h>
#include <string.h>

static void release(void *data)
{
    net_state *s = data;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->threaded)
        pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    net_links_release(&s->links);
    net_layers_release(&s->layers);
    free(s->begin);
    free(s);
}

gt_status net_state_of(net_group *g, net_state **out)
{
    static pthread_mutex_t first_use = PTHREAD_MUTEX_INITIALIZER;
    gt_status st = GT_OK;
    net_state *s = net_group_attached(g);
    if (s) {
        *out = s;
        return GT_OK;
    }
    pthread_mutex_lock(&first_use);
    s = net_group_attached(g);
    if (!s) {
        s = calloc(1, sizeof *s);
        uint64_t *begin = malloc(((size_t)net_group_size(g) + 1) * sizeof *begin);
        if (s && begin) {
            s->group = g;
            s->begin = begin;
            pthread_mutex_init(&s->lock, NULL);
            pthread_cond_init(&s->changed, NULL);
            net_group_attach(g, s, release);
        } else {
            free(s);
            free(begin);
            s = NULL;
            st = gt_fail(GT_NO_MEMORY, "cannot begin a collective: no memory for what is kept of the group");
        }
    }
    pthread_mutex_unlock(&first_use);
    *out = s;
    return st;
}

void net_state_enter(net_state *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->busy || s->first)
        pthread_cond_wait(&s->changed, &s->lock);
    s->busy = 1;
    pthread_mutex_unlock(&s->lock);
}

void net_state_leave(net_state *s)
{
    pthread_mutex_lock(&s->lock);
    s->busy = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---- in the background ------------------------------------------------------------------ */

/* Carries out the first of what was started, which nobody has begun. Lock held on entry and exit. */
static void run_first(net_state *s)
{
    net_collective *c = s->first;
    s->busy = 1;
    pthread_mutex_unlock(&s->lock);

    c->began = gt_now_ns();
    const gt_status st = net_call_run(s, &c->call);
    c->ended = gt_now_ns();
    char *sentence = st ? strdup(gt_message()) : NULL;

    pthread_mutex_lock(&s->lock);
    s->first = c->next;                         /* only now: blocking calls wait for it */
    if (!s->first)
        s->last = NULL;
    c->result = st;
    c->sentence = sentence;
    c->done = 1;
    s->busy = 0;
    pthread_cond_broadcast(&s->changed);
}

static void *serve(void *data)
{
    net_state *s = data;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && (s->busy || !s->first))
            pthread_cond_wait(&s->changed, &s->lock);
        if (!s->first || s->busy)
            break;
        run_first(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void collective_free(net_collective *c)
{
    if (c) {
        free((void *)(uintptr_t)c->call.counts);
        free((void *)(uintptr_t)c->call.weights);
        free(c->sentence);
        free(c);
    }
}

/* A copy of n elements of `size` bytes; NULL stays NULL. */
static int duplicate(const void *data, size_t n, size_t size, void **out)
{
    *out = NULL;
    if (!data)
        return 1;
    *out = malloc(n * size);
    if (*out)
        memcpy(*out, data, n * size);
    return *out != NULL;
}

gt_status net_call_start(net_group *g, const net_call *call, net_collective **out)
{
    net_state *s;
    void *counts = NULL, *weights = NULL;
    const size_t size = (size_t)net_group_size(g);
    gt_status st = net_state_of(g, &s);
    *out = NULL;
    if (st)
        return st;
    net_collective *c = calloc(1, sizeof *c);
    if (c) {
        c->call = *call;
        c->state = s;
    }
    const int copied = c && duplicate(call->counts, size, sizeof *call->counts, &counts)
                       && duplicate(call->weights, size, sizeof *call->weights, &weights);
    if (c) {
        c->call.counts = counts;
        c->call.weights = weights;
    }
    if (!copied) {
        collective_free(c);
        return gt_fail(GT_NO_MEMORY, "cannot start a collective: no memory for its arguments");
    }

    pthread_mutex_lock(&s->lock);
    if (!s->threaded) {
        const int err = pthread_create(&s->thread, NULL, serve, s);
        if (err)
            st = gt_fail(GT_NO_MEMORY, "cannot start a group's thread: %s", strerror(err));
        else
            s->threaded = 1;
    }
    if (!st) {
        if (s->last)
            s->last->next = c;
        else
            s->first = c;
        s->last = c;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    if (st) {
        collective_free(c);
        return st;
    }
    *out = c;
    return GT_OK;
}

gt_status net_collective_wait(net_collective *c)
{
    uint64_t began, ended;
    return net_collective_wait_when(c, &began, &ended);
}

gt_status net_collective_wait_when(net_collective *c, uint64_t *began, uint64_t *ended)
{
    if (!c)
        return GT_OK;
    net_state *s = c->state;
    pthread_mutex_lock(&s->lock);
    while (!c->done)
        if (s->busy)
            pthread_cond_wait(&s->changed, &s->lock);
        else
            run_first(s);           /* the thread has not woken yet */
    pthread_mutex_unlock(&s->lock);
    gt_status st = c->result;
    *began = c->began;
    *ended = c->ended;
    if (st)
        gt_fail(st, "%s", c->sentence ? c->sentence : "cannot finish a collective");
    collective_free(c);
    return st;
}

int net_collective_test(const net_collective *c)
{
    pthread_mutex_lock(&c->state->lock);
    const int done = c->done;
    pthread_mutex_unlock(&c->state->lock);
    return done;
}
