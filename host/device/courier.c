/* SPDX-License-Identifier: MIT */
/* host/device/courier.c - a queue and a thread. */
#include "host/device/courier.h"

#include "host/base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct errand { dev_event *event; dev_act act; void *context; } errand;

struct dev_courier {
    pthread_t thread;
    int running, closing;
    pthread_mutex_t lock;
    pthread_cond_t come, gone;      /* something was handed over; something was done        */
    errand *errands;                /* ring                                                 */
    size_t room;
    uint64_t put, done;             /* so many, ever                                        */
    gt_status status;
    char sentence[1024];
};

static void note_failure(dev_courier *c, gt_status st)
{
    if (c->status)
        return;
    c->status = st;
    snprintf(c->sentence, sizeof c->sentence, "%s", gt_message());
}

static void *carry(void *context)
{
    dev_courier *c = context;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->done == c->put && !c->closing)
            pthread_cond_wait(&c->come, &c->lock);
        if (c->done == c->put)
            break;
        const errand e = c->errands[c->done % c->room];
        const int failed = c->status != GT_OK;
        pthread_mutex_unlock(&c->lock);
        gt_status st = dev_event_wait(e.event);
        if (!st && !failed && e.act)
            st = e.act(e.context, gt_now_ns());
        pthread_mutex_lock(&c->lock);
        if (st)
            note_failure(c, st);
        c->done++;
        pthread_cond_broadcast(&c->gone);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

gt_status dev_courier_create(dev_courier **out)
{
    *out = NULL;
    dev_courier *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "cannot start a courier: no memory for its state");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->come, NULL);
    pthread_cond_init(&c->gone, NULL);
    c->room = 64;
    c->errands = calloc(c->room, sizeof *c->errands);
    const int failed = c->errands ? pthread_create(&c->thread, NULL, carry, c) : 0;
    c->running = c->errands && !failed;
    if (!c->running) {
        dev_courier_release(c);
        return gt_fail(GT_NO_MEMORY, "cannot start a courier: %s",
                       failed ? strerror(failed) : "no memory for its queue");
    }
    *out = c;
    return GT_OK;
}

void dev_courier_release(dev_courier *c)
{
    if (!c)
        return;
    if (c->running) {
        pthread_mutex_lock(&c->lock);
        c->closing = 1;
        pthread_cond_broadcast(&c->come);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    pthread_cond_destroy(&c->come);
    pthread_cond_destroy(&c->gone);
    pthread_mutex_destroy(&c->lock);
    free(c->errands);
    free(c);
}

/* Twice the room; lock held. 0: out of memory. */
static int grow(dev_courier *c)
{
    errand *more = calloc(2 * c->room, sizeof *more);
    if (!more)
        return 0;
    for (uint64_t i = c->done; i < c->put; i++)
        more[i % (2 * c->room)] = c->errands[i % c->room];
    free(c->errands);
    c->errands = more;
    c->room *= 2;
    return 1;
}

gt_status dev_courier_put(dev_courier *c, dev_event *event, dev_act act, void *context,
                          uint64_t *ticket)
{
    pthread_mutex_lock(&c->lock);
    gt_status st = c->status;
    const int full = !st && c->put - c->done == c->room && !grow(c);
    if (!st && !full) {
        c->errands[c->put % c->room] = (errand){ event, act, context };
        c->put++;
        if (ticket)
            *ticket = c->put;
        pthread_cond_signal(&c->come);
    }
    pthread_mutex_unlock(&c->lock);
    if (!st && !full)
        return GT_OK;
    if (dev_event_wait(event))
        gt_message_clear();
    return st ? gt_fail(st, "%s", c->sentence)
              : gt_fail(GT_NO_MEMORY, "cannot hand over to the courier: no memory for a longer queue");
}

gt_status dev_courier_wait(dev_courier *c, uint64_t ticket)
{
    pthread_mutex_lock(&c->lock);
    while (c->done < ticket)
        pthread_cond_wait(&c->gone, &c->lock);
    const gt_status st = c->status;
    pthread_mutex_unlock(&c->lock);
    return st ? gt_fail(st, "%s", c->sentence) : GT_OK;     /* written once, before the status */
}

gt_status dev_courier_drain(dev_courier *c)
{
    pthread_mutex_lock(&c->lock);
    const uint64_t all = c->put;
    pthread_mutex_unlock(&c->lock);
    return dev_courier_wait(c, all);
}
