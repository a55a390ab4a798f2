/* SPDX-License-Identifier: MIT */
/* host/device/timing.c - what the device was busy with, and when, by OpenCL's events.
 *
 *   host clock    --------|t0 enqueue t1|-------------------  gt_trace_now()
 *   device clock            queued |   start ====== end       CL_PROFILING_COMMAND_*
 *
 * A device counts from an origin of its own. The driver stamps `queued` while the host is inside
 * the call that enqueues, so it lies between t0 and t1: of a few tries the shortest such call
 * tells how far the clocks are apart, to half its length (Cristian, "Probabilistic clock
 * synchronization", 1989).
 *
 * Where the stamps are wrong (dev_info.host_clock) what is to be timed is enqueued into an empty
 * queue and waited for, and the host's clock counts: slower, and with the launch in it.  */
#include "host/device/device_private.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 16, REAP = 256 };        /* REAP: events noted before a look at what is over */

static int stamps_of(cl_event event, cl_ulong *start, cl_ulong *end)
{
    return clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof *start, start, NULL) == CL_SUCCESS
           && clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof *end, end, NULL) == CL_SUCCESS
           && *end >= *start;
}

double dev_stamp_seconds(cl_event event)
{
    cl_ulong start, end;
    return stamps_of(event, &start, &end) ? (double)(end - start) * 1e-9 : 0.0;
}

double dev_event_seconds(const dev_device *d, cl_event event, uint64_t asked)
{
    return d->info.host_clock ? (double)(gt_trace_now() - asked) * 1e-9 : dev_stamp_seconds(event);
}

uint64_t dev_event_asked(dev_device *d)
{
    if (d->info.host_clock)
        clFinish(d->queue);             /* its failure is the next call's as well */
    return gt_trace_now();
}

/* Leaves when p was on the device, by the trace's clock; 0 if nobody knows. */
static int when(const dev_device *d, const struct pending *p, uint64_t *begin, uint64_t *end)
{
    cl_ulong start, stop;
    *begin = p->begin;
    *end = p->end;
    if (d->info.host_clock)
        return 1;
    if (!stamps_of(p->event, &start, &stop))
        return 0;
    *begin = start + d->clock_ahead;
    *end = stop + d->clock_ahead;
    return 1;
}

static void put_span(gt_span *s, uint64_t begin, uint64_t end)
{
    s->begin = begin;
    s->end = end;
    gt_trace_put(s);
}

static void settle(dev_device *d, struct pending *p, double *seconds)
{
    uint64_t begin, end;
    if (when(d, p, &begin, &end)) {
        if (p->counts)
            *seconds += (double)(end - begin) * 1e-9;
        if (p->traced)
            put_span(&p->span, begin, end);
    }
    clReleaseEvent(p->event);
}

void dev_events_reap(dev_device *d)
{
    int over = 0;
    for (; over < d->pending_count; over++) {
        cl_int state;
        if (clGetEventInfo(d->pending[over].event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL)
                != CL_SUCCESS
            || state != CL_COMPLETE)
            break;                      /* still to come, or failed: dev_events_collect tells */
        settle(d, &d->pending[over], &d->busy);
    }
    d->pending_count -= over;
    if (over)
        memmove(d->pending, d->pending + over, (size_t)d->pending_count * sizeof *d->pending);
}

gt_status dev_event_note(dev_device *d, cl_event event, uint64_t asked, int counts, const gt_span *span)
{
    if (d->info.host_clock)
        clWaitForEvents(1, &event);     /* a failure shows when it is collected */
    const uint64_t now = gt_trace_now();
    if (span && d->pending_count >= REAP && d->speed >= 1.0)
        dev_events_reap(d);
    if (d->pending_count == d->pending_room) {
        int room = d->pending_room ? 2 * d->pending_room : 256;
        struct pending *more = realloc(d->pending, (size_t)room * sizeof *more);
        if (!more) {
            clReleaseEvent(event);
            return gt_fail(GT_NO_MEMORY, "cannot time device '%s': no memory for %d events", d->info.id, room);
        }
        d->pending = more;
        d->pending_room = room;
    }
    struct pending *p = &d->pending[d->pending_count++];
    *p = (struct pending){ .event = event, .counts = counts, .traced = span != NULL, .begin = asked, .end = now };
    if (span)
        p->span = *span;
    return GT_OK;
}

gt_status dev_events_collect(dev_device *d, double *seconds)
{
    double sum = 0.0;
    cl_int err = CL_SUCCESS;
    if (d->pending_count)
        err = clWaitForEvents(1, &d->pending[d->pending_count - 1].event);
    for (int i = 0; i < d->pending_count; i++)
        settle(d, &d->pending[i], &sum);
    d->pending_count = 0;
    d->busy += sum;
    if (seconds)
        *seconds = sum;
    if (err != CL_SUCCESS)
        return dev_failed(d, err, "work on device '%s' failed", d->info.id);
    return GT_OK;
}

/* One try: how long the call took, or UINT64_MAX if the driver gives no time. */
static uint64_t try_match(dev_device *d, cl_mem memory, uint64_t *ahead)
{
    const cl_uint zero = 0;
    cl_event event = NULL;
    cl_ulong queued = 0;
    const uint64_t before = gt_trace_now();
    cl_int err = clEnqueueFillBuffer(d->queue, memory, &zero, sizeof zero, 0, sizeof zero, 0, NULL, &event);
    const uint64_t after = gt_trace_now();
    if (err == CL_SUCCESS)
        err = clWaitForEvents(1, &event);
    if (err == CL_SUCCESS)
        err = clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_QUEUED, sizeof queued, &queued, NULL);
    if (event)
        clReleaseEvent(event);
    *ahead = before + (after - before) / 2 - queued;
    return err == CL_SUCCESS && queued ? after - before : UINT64_MAX;
}

gt_status dev_clock_match(dev_device *d)
{
    uint64_t shortest = UINT64_MAX, ahead;
    cl_int err;
    if (d->clock_known || d->info.host_clock)
        return GT_OK;
    cl_mem memory = clCreateBuffer(d->context, CL_MEM_READ_WRITE, sizeof(cl_uint), NULL, &err);
    for (int i = 0; err == CL_SUCCESS && i < TRIES; i++) {
        const uint64_t took = try_match(d, memory, &ahead);
        if (took < shortest) {
            shortest = took;
            d->clock_ahead = ahead;
        }
    }
    if (err == CL_SUCCESS)
        clReleaseMemObject(memory);
    if (shortest == UINT64_MAX)
        return gt_fail(GT_DEVICE, "cannot trace device '%s': it does not say when its work was queued", d->info.id);
    d->clock_known = 1;
    return GT_OK;
}
