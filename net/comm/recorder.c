/* SPDX-License-Identifier: MIT */
/* net/comm/recorder.c - the flight recorder: the last operations, and what is late.
 *
 * A ring of the last 256 operations of the communicator, for the question after an accident:
 * who was where. It has a lock of its own, so that the job's thread can ask at any time for
 * the heartbeat, also when the communicator's lock is busy.                               */
#include "net/comm/comm_private.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "host/base/trace.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* When an operation begins or ends, in gt_now_ns()'s count. To the tick of the kernel, some ms, unless it is
 * traced: reading the clock twice would be a tenth of what a small operation takes. */
static uint64_t about_now(void)
{
    struct timespec t;
    if (gt_trace_on() || clock_gettime(CLOCK_MONOTONIC_COARSE, &t))
        return gt_now_ns();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void recorder_open(recorder *r)
{
    pthread_mutex_init(&r->lock, NULL);
    r->waiting_for = -1;
}

void recorder_close(recorder *r)
{
    pthread_mutex_destroy(&r->lock);
}

uint64_t recorder_begin(recorder *r, const record *what)
{
    pthread_mutex_lock(&r->lock);
    const uint64_t number = r->started++;
    record *slot = &r->ring[number % RECORDS];
    *slot = *what;
    slot->begun = about_now();
    slot->ended = 0;
    pthread_mutex_unlock(&r->lock);
    return number;
}

void recorder_phase(recorder *r, uint64_t number, const char *phase, int step)
{
    pthread_mutex_lock(&r->lock);
    record *slot = &r->ring[number % RECORDS];
    slot->phase = phase;
    slot->step = step;
    pthread_mutex_unlock(&r->lock);
}

static void trace_operation(const record *o)
{
    char name[96];
    if (o->what.count)
        snprintf(name, sizeof name, "%s %llu %s", o->name, (unsigned long long)o->what.count,
                 o->what.unit ? o->what.unit : "elements");
    else
        snprintf(name, sizeof name, "%s", o->name);
    gt_trace_span(GT_TRACE_WIRE, GT_TRACK_WIRE, name, o->begun, o->ended);
}

void recorder_end(recorder *r, uint64_t number, gt_status st)
{
    pthread_mutex_lock(&r->lock);
    record *slot = &r->ring[number % RECORDS];
    const uint64_t now = about_now();
    slot->ended = now > slot->begun ? now : slot->begun;
    slot->status = st;
    r->finished++;
    const int traced = gt_trace_on();
    const record ended = traced ? *slot : (record){ 0 };
    pthread_mutex_unlock(&r->lock);
    if (traced)
        trace_operation(&ended);
}

void recorder_waits(recorder *r, int peer, const char *what, size_t size)
{
    pthread_mutex_lock(&r->lock);
    r->waiting_since = what ? about_now() : 0;
    r->waiting_for = what ? peer : -1;
    r->waiting = what;
    r->waiting_size = size;
    pthread_mutex_unlock(&r->lock);
}

void net_comm_busy(net_comm *c, const char *what)
{
    recorder *r = &c->recorder;
    pthread_mutex_lock(&r->lock);
    r->busy = what;
    pthread_mutex_unlock(&r->lock);
}

static const record *oldest(const recorder *r)
{
    const uint64_t first = r->started > RECORDS ? r->started - RECORDS : 0;
    for (uint64_t i = first; r->finished < r->started && i < r->started; i++)
        if (!r->ring[i % RECORDS].ended)
            return &r->ring[i % RECORDS];
    return NULL;
}

static void say(const record *o, char *out, size_t size)
{
    snprintf(out, size, "%s #%llu of %llu %s%s%s%s", o->name, (unsigned long long)o->sequence,
             (unsigned long long)o->what.count, o->what.unit ? o->what.unit : "elements", o->phase ? ", " : "",
             o->phase ? o->phase : "", "");
    const size_t used = strlen(out);
    if (o->phase && used < size)
        snprintf(out + used, size - used, " step %d", o->step);
}

void recorder_waiting(const recorder *r, char *out, size_t size)
{
    snprintf(out, size, "%s %zu bytes", r->waiting, r->waiting_size);
}

/* Only waits that sleep are told of; a rank that computes is not late for anything. */
void recorder_activity(void *context, net_activity *out)
{
    recorder *r = &((net_comm *)context)->recorder;
    *out = (net_activity){ .waits_for = -1 };
    pthread_mutex_lock(&r->lock);
    out->started = r->started;
    out->finished = r->finished;
    const record *o = oldest(r);
    if (r->busy) {
        snprintf(out->text, sizeof out->text, "%s", r->busy);
    } else if (r->waiting_since) {
        out->since = o ? o->begun : r->waiting_since;
        out->waits_for = r->waiting_for;
        if (o)
            say(o, out->text, sizeof out->text);
        else
            recorder_waiting(r, out->text, sizeof out->text);
    }
    pthread_mutex_unlock(&r->lock);
}
