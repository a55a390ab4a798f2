/* SPDX-License-Identifier: MIT */
/* host/base/activity.c - a list of activities a thread, of which one thread's is shown.
 *
 * Activities live on their callers' stacks; the lock guards the shown list against the thread that
 * describes it, so that none is read while it goes.                                       */
#include "host/base/activity.h"

#include "host/base/clock.h"
#include "host/base/stop.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gt_activity *shown;                  /* innermost of the main thread */
static pthread_t owner;
static int owned;                           /* owner is known */
static void (*after)(void);
static _Thread_local gt_activity *innermost;

static int is_shown(void)
{
    if (!owned) {
        owner = pthread_self();
        owned = 1;
    }
    return pthread_equal(owner, pthread_self());
}

void gt_activity_begin(gt_activity *a, const char *what, const char *units, uint64_t total)
{
    *a = (gt_activity){ .what = what, .units = units, .total = total, .since_ns = gt_now_ns(), .around = innermost };
    innermost = a;
    pthread_mutex_lock(&lock);
    if (is_shown())
        shown = a;
    pthread_mutex_unlock(&lock);
}

void gt_activity_set(gt_activity *a, uint64_t done)
{
    pthread_mutex_lock(&lock);
    a->done = done;
    pthread_mutex_unlock(&lock);
}

gt_status gt_activity_at(gt_activity *a, uint64_t done)
{
    gt_activity_set(a, done);
    return gt_stop_check();
}

void gt_activity_end(gt_activity *a)
{
    void (*hook)(void) = NULL;
    innermost = a->around;
    pthread_mutex_lock(&lock);
    if (is_shown()) {
        shown = a->around;
        hook = shown ? NULL : after;
    }
    pthread_mutex_unlock(&lock);
    if (hook)
        hook();
}

void gt_activity_after(void (*hook)(void))
{
    pthread_mutex_lock(&lock);
    after = hook;
    pthread_mutex_unlock(&lock);
}

/* From the outermost in; returns how much of `out` is used. */
static size_t describe(const gt_activity *a, char *out, size_t size, uint64_t *since_ns)
{
    size_t used = 0;
    int n;
    if (a->around) {
        used = describe(a->around, out, size, since_ns);
        if (used + 2 >= size)
            return used;
        n = snprintf(out + used, size - used, ": ");
        used += (size_t)n;
    } else {
        *since_ns = a->since_ns;
    }
    if (a->total)
        n = snprintf(out + used, size - used, "%s %llu/%llu%s%s", a->what, (unsigned long long)a->done,
                     (unsigned long long)a->total, a->units ? " " : "", a->units ? a->units : "");
    else if (a->done)
        n = snprintf(out + used, size - used, "%s %llu%s%s", a->what, (unsigned long long)a->done, a->units ? " " : "",
                     a->units ? a->units : "");
    else
        n = snprintf(out + used, size - used, "%s", a->what);
    used += n < 0 ? 0 : (size_t)n;
    return used < size ? used : size - 1;
}

int gt_activity_describe(char *out, size_t size, uint64_t *since_ns)
{
    int busy = 0;
    out[0] = '\0';
    pthread_mutex_lock(&lock);
    if (shown) {
        describe(shown, out, size, since_ns);
        busy = 1;
    }
    pthread_mutex_unlock(&lock);
    return busy;
}

gt_status gt_stop_check(void)
{
    return gt_stop_asked() ? gt_fail(GT_INTERRUPTED, "stopped") : GT_OK;
}
