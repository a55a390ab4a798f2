/* SPDX-License-Identifier: MIT */
/* host/device/completion.c - a queue of continuations, and the thread that runs them. */
#include "host/device/completion.h"

#include "host/base/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct continuation {
    dev_event *event;
    dev_continuation run;
    void *context;
} continuation;

struct dev_completion {
    pthread_t thread;
    int running, closing;
    pthread_mutex_t lock;
    pthread_cond_t queued, finished;  /* something was handed over; something was done        */
    continuation *continuations;    /* ring                                                 */
    size_t room;
    uint64_t put, done;             /* so many, ever                                        */
    gt_status status;
    char sentence[1024];
};

static void note_failure(dev_completion *c, gt_status st)
{
    if (c->status)
        return;
    c->status = st;
    snprintf(c->sentence, sizeof c->sentence, "%s", gt_message());
}

static void *run_continuations(void *context)
{
    dev_completion *c = context;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->done == c->put && !c->closing)
            pthread_cond_wait(&c->queued, &c->lock);
        if (c->done == c->put)
            break;
        const continuation e = c->continuations[c->done % c->room];
        const int failed = c->status != GT_OK;
        pthread_mutex_unlock(&c->lock);
        gt_status st = dev_event_wait(e.event);
        if (!st && !failed && e.run)
            st = e.run(e.context, gt_now_ns());
        pthread_mutex_lock(&c->lock);
        if (st)
            note_failure(c, st);
        c->done++;
        pthread_cond_broadcast(&c->finished);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

gt_status dev_completion_create(dev_completion **out)
{
    *out = NULL;
    dev_completion *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "cannot start the completion thread: no memory for its state");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->queued, NULL);
    pthread_cond_init(&c->finished, NULL);
    c->room = 64;
    c->continuations = calloc(c->room, sizeof *c->continuations);
    const int failed = c->continuations ? pthread_create(&c->thread, NULL, run_continuations, c) : 0;
    c->running = c->continuations && !failed;
    if (!c->running) {
        dev_completion_release(c);
        return gt_fail(GT_NO_MEMORY, "cannot start the completion thread: %s",
                       failed ? strerror(failed) : "no memory for its queue");
    }
    *out = c;
    return GT_OK;
}

void dev_completion_release(dev_completion *c)
{
    if (!c)
        return;
    if (c->running) {
        pthread_mutex_lock(&c->lock);
        c->closing = 1;
        pthread_cond_broadcast(&c->queued);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    pthread_cond_destroy(&c->queued);
    pthread_cond_destroy(&c->finished);
    pthread_mutex_destroy(&c->lock);
    free(c->continuations);
    free(c);
}

/* Twice the room; lock held. 0: out of memory. */
static int grow(dev_completion *c)
{
    continuation *more = calloc(2 * c->room, sizeof *more);
    if (!more)
        return 0;
    for (uint64_t i = c->done; i < c->put; i++)
        more[i % (2 * c->room)] = c->continuations[i % c->room];
    free(c->continuations);
    c->continuations = more;
    c->room *= 2;
    return 1;
}

gt_status dev_completion_put(dev_completion *c, dev_event *event, dev_continuation run, void *context, uint64_t *ticket)
{
    pthread_mutex_lock(&c->lock);
    gt_status st = c->status;
    const int full = !st && c->put - c->done == c->room && !grow(c);
    if (!st && !full) {
        c->continuations[c->put % c->room] = (continuation){ event, run, context };
        c->put++;
        if (ticket)
            *ticket = c->put;
        pthread_cond_signal(&c->queued);
    }
    pthread_mutex_unlock(&c->lock);
    if (!st && !full)
        return GT_OK;
    if (dev_event_wait(event))
        gt_message_clear();
    return st ? gt_fail(st, "%s", c->sentence)
              : gt_fail(GT_NO_MEMORY, "cannot hand a continuation over: no memory for a longer queue");
}

gt_status dev_completion_wait(dev_completion *c, uint64_t ticket)
{
    pthread_mutex_lock(&c->lock);
    while (c->done < ticket)
        pthread_cond_wait(&c->finished, &c->lock);
    const gt_status st = c->status;
    pthread_mutex_unlock(&c->lock);
    return st ? gt_fail(st, "%s", c->sentence) : GT_OK;     /* written once, before the status */
}

gt_status dev_completion_drain(dev_completion *c)
{
    pthread_mutex_lock(&c->lock);
    const uint64_t all = c->put;
    pthread_mutex_unlock(&c->lock);
    return dev_completion_wait(c, all);
}
