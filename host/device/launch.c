/* SPDX-License-Identifier: MIT */
/* host/device/launch.c - flat lists of launches: made once, run every step.
 *
 *   list   [ kernel | native | call | fill | copy | kernel | ... ]
 *
 * Every kernel launch owns a cl_kernel with its arguments already set, so that running the
 * list is one enqueue a launch: 2-3 us on PoCL, no allocation. A list runs without events unless
 * something is being measured or traced, or the device is slowed down.
 *
 * What is queued cannot be taken back. So that a step of minutes can be stopped within a second, the
 * host is never more than two stretches of work ahead of the device: so many launches that they
 * take about a tenth of a second, hundreds of them for a small model. The first run of a launch is
 * a stretch of its own, since a driver may compile the kernel then.                       */
#include "host/device/device_private.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/stop.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NATIVE_BUFFERS 12
#define MAX_PAYLOAD 256
#define SLOW_STRETCH_NS 2000000u        /* how much work a slowed device does between naps */
#define NAP_NS 100000000u      /* the longest nap: a wish to stop must be noticed */
#define STRETCH_LEAST_NS 50000000u      /* a stretch that took less becomes longer, */
#define STRETCH_MOST_NS 150000000u      /* one that took more shorter               */
#define STRETCH_LAUNCHES 65536

/* What the driver copies when a native kernel is queued. */
typedef struct native_call {
    dev_native run;
    void *pointers[MAX_NATIVE_BUFFERS];     /* buffer.c says why they are known here */
    unsigned char payload[MAX_PAYLOAD] __attribute__((aligned(16)));
} native_call;

typedef struct launch {
    enum { KERNEL, NATIVE, CALL, FILL, COPY, NOTHING } type;
    char name[48];
    int label;
    int ran;                            /* at least once */
    cl_kernel kernel;
    cl_uint rank;
    size_t global[3], local[3];
    int has_local;
    native_call *native;
    dev_enqueue enqueue;
    void *context;
    void (*release)(void *);
    struct moving *moving;              /* arguments that are windows                */
    int moving_count;
    dev_use *uses;                      /* bytes it takes, where transfers run beside launches */
    int use_count;                      /* -1: not known, it may be any              */
    cl_mem to, from;
    uint64_t to_offset, from_offset, bytes;
    uint32_t pattern;
} launch;

/* An argument that is a window or a view of one, and what it stood for when it was set last. */
typedef struct moving {
    int arg;                            /* of a kernel or native call; of a copy or fill 0: to, 1: from */
    dev_buffer *buffer;
    cl_mem set;
} moving;

struct dev_list {
    dev_device *device;
    launch *launches;
    int count, room;
    char **labels;
    int label_count, label_room;
};

gt_status dev_list_create(dev_list **out, dev_device *d)
{
    *out = NULL;
    dev_list *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "no memory for an empty launch list");
    l->device = d;
    *out = l;
    return GT_OK;
}

void dev_list_release(dev_list *l)
{
    if (!l)
        return;
    for (int i = 0; i < l->count; i++) {
        launch *x = &l->launches[i];
        if (x->kernel)
            clReleaseKernel(x->kernel);
        if (x->release)
            x->release(x->context);
        free(x->native);
        free(x->moving);
        free(x->uses);
    }
    for (int i = 0; i < l->label_count; i++)
        free(l->labels[i]);
    free(l->labels);
    free(l->launches);
    free(l);
}

int dev_list_count(const dev_list *l)
{
    return l->count;
}

void dev_list_label(dev_list *l, const char *label)
{
    if (l->label_count == l->label_room) {
        int room = l->label_room ? 2 * l->label_room : 32;
        char **more = realloc(l->labels, (size_t)room * sizeof *more);
        if (!more)
            return;                             /* labels are for people; do without */
        l->labels = more;
        l->label_room = room;
    }
    char *copy = strdup(label);
    if (copy)
        l->labels[l->label_count++] = copy;
}

const char *dev_list_label_of(const dev_list *l, int index)
{
    assert(0 <= index && index < l->count);
    int label = l->launches[index].label;
    return label < 0 ? "" : l->labels[label];
}

const char *dev_list_name_of(const dev_list *l, int index)
{
    assert(0 <= index && index < l->count);
    return l->launches[index].name;
}

/* A zeroed launch at the end of the list, not counted until the caller has filled it. */
static gt_status next_launch(dev_list *l, launch **out, const char *name)
{
    if (l->count == l->room) {
        int room = l->room ? 2 * l->room : 64;
        launch *more = realloc(l->launches, (size_t)room * sizeof *more);
        if (!more)
            return gt_fail(GT_NO_MEMORY, "no memory for a list of %d launches", room);
        l->launches = more;
        l->room = room;
    }
    launch *x = &l->launches[l->count];
    memset(x, 0, sizeof *x);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->label = l->label_count - 1;
    *out = x;
    return GT_OK;
}

static gt_status note_use(launch *x, const dev_buffer *b)
{
    if (!b || !b->device->transfers || x->use_count < 0)
        return GT_OK;
    dev_use *more = realloc(x->uses, ((size_t)x->use_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "no memory for the arguments of '%s'", x->name);
    x->uses = more;
    x->uses[x->use_count++] = (dev_use){ b->root, b->offset, b->offset + b->bytes };
    return GT_OK;
}

/* What stands behind an argument: the bytes, and whether they may move. */
static gt_status note_buffer(launch *x, int arg, dev_buffer *b)
{
    const gt_status st = note_use(x, b);
    if (st || !b || !b->window)
        return st;
    moving *more = realloc(x->moving, ((size_t)x->moving_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "no memory for the arguments of '%s'", x->name);
    x->moving = more;
    x->moving[x->moving_count++] = (moving){ arg, b, b->mem };
    return GT_OK;
}

/* Of a launch that could not be appended. */
static void drop_launch(launch *x)
{
    if (x->kernel)
        clReleaseKernel(x->kernel);
    free(x->native);
    free(x->moving);
    free(x->uses);
}

static void *address_of(const dev_buffer *b)
{
    return (char *)b->root->host + b->offset;
}

static cl_int set_arg(cl_kernel kernel, cl_uint index, const dev_arg *a)
{
    switch (a->type) {
    case DEV_ARG_BUFFER: {
        cl_mem mem = a->buffer ? a->buffer->mem : NULL;
        return clSetKernelArg(kernel, index, sizeof mem, &mem);
    }
    case DEV_ARG_VALUE: return clSetKernelArg(kernel, index, a->size, a->value.bytes);
    case DEV_ARG_LOCAL: return clSetKernelArg(kernel, index, a->size, NULL);
    }
    return CL_INVALID_VALUE;
}

gt_status dev_list_kernel(dev_list *l, dev_program *p, const char *kernel, dev_grid grid, const dev_arg *args,
                          int count)
{
    launch *x = NULL;
    cl_int err;
    assert(p->device == l->device && 1 <= grid.rank && grid.rank <= 3);
    gt_status st = next_launch(l, &x, kernel);
    if (st)
        return st;
    x->type = KERNEL;
    x->rank = (cl_uint)grid.rank;
    for (int i = 0; i < grid.rank; i++) {
        size_t local = grid.local[i] ? grid.local[i] : 1;
        x->local[i] = local;
        x->global[i] = (grid.global[i] + local - 1) / local * local;
        if (!x->global[i])
            x->type = NOTHING;
    }
    x->kernel = clCreateKernel(p->program, kernel, &err);
    if (err != CL_SUCCESS) {
        x->kernel = NULL;
        return gt_fail(GT_DEVICE, "cannot make kernel '%s' of '%s' on device '%s': %s", kernel, p->name,
                       l->device->info.id, cl_error_name(err));
    }
    for (int i = 0; i < count; i++) {
        err = set_arg(x->kernel, (cl_uint)i, &args[i]);
        if (err != CL_SUCCESS)
            st = gt_fail(GT_DEVICE, "cannot set argument %d of kernel '%s': %s", i, kernel, cl_error_name(err));
        else if (args[i].type == DEV_ARG_BUFFER)
            st = note_buffer(x, i, args[i].buffer);
        if (st) {
            drop_launch(x);
            return st;
        }
    }
    l->count++;
    return GT_OK;
}

static void run_native(void *argument)
{
    const native_call *n = argument;
    n->run(n->payload, n->pointers);
}

gt_status dev_list_native(dev_list *l, const char *name, dev_native run, const void *payload, size_t payload_bytes,
                          dev_buffer *const *buffers, int count)
{
    launch *x = NULL;
    assert(count <= MAX_NATIVE_BUFFERS && payload_bytes <= MAX_PAYLOAD);
    if (!l->device->info.native_kernels)
        return gt_fail(GT_UNSUPPORTED, "device '%s' runs no native kernels ('%s')", l->device->info.id, name);
    gt_status st = next_launch(l, &x, name);
    if (st)
        return st;
    x->type = NATIVE;
    x->native = calloc(1, sizeof *x->native);
    if (!x->native)
        return gt_fail(GT_NO_MEMORY, "no memory for the launch of '%s'", name);
    x->native->run = run;
    if (payload_bytes)
        memcpy(x->native->payload, payload, payload_bytes);
    for (int i = 0; !st && i < count; i++) {
        x->native->pointers[i] = address_of(buffers[i]);
        st = note_buffer(x, i, buffers[i]);
    }
    if (st)
        drop_launch(x);
    l->count += !st;
    return st;
}

gt_status dev_list_call(dev_list *l, const char *name, dev_enqueue enqueue, void *context,
                        void (*release)(void *context))
{
    launch *x = NULL;
    gt_status st = next_launch(l, &x, name);
    if (st)
        return st;
    x->type = CALL;
    x->use_count = -1;
    x->enqueue = enqueue;
    x->context = context;
    x->release = release;
    l->count++;
    return GT_OK;
}

gt_status dev_list_fill(dev_list *l, dev_buffer *b, uint64_t offset, uint32_t pattern, uint64_t bytes)
{
    launch *x = NULL;
    assert(offset % 4 == 0 && bytes % 4 == 0 && offset + bytes <= b->bytes);
    gt_status st = next_launch(l, &x, "fill");
    if (st)
        return st;
    x->type = bytes ? FILL : NOTHING;
    x->to = b->mem;
    x->to_offset = offset;
    x->pattern = pattern;
    x->bytes = bytes;
    st = note_buffer(x, 0, b);
    l->count += !st;
    return st;
}

gt_status dev_list_copy(dev_list *l, dev_buffer *to, uint64_t to_offset, dev_buffer *from, uint64_t from_offset,
                        uint64_t bytes)
{
    launch *x = NULL;
    assert(to_offset + bytes <= to->bytes && from_offset + bytes <= from->bytes);
    gt_status st = next_launch(l, &x, "copy");
    if (st)
        return st;
    x->type = bytes ? COPY : NOTHING;
    x->to = to->mem;
    x->to_offset = to_offset;
    x->from = from->mem;
    x->from_offset = from_offset;
    x->bytes = bytes;
    st = note_buffer(x, 0, to);
    if (!st)
        st = note_buffer(x, 1, from);
    if (st)
        drop_launch(x);
    l->count += !st;
    return st;
}

gt_status dev_list_set(dev_list *l, int index, int arg, dev_arg value)
{
    assert(0 <= index && index < l->count);
    launch *x = &l->launches[index];
    if (x->type == NATIVE) {                /* the driver has copied the payload of what is queued */
        assert(value.type == DEV_ARG_VALUE && arg >= 0 && (size_t)arg + value.size <= MAX_PAYLOAD);
        memcpy(x->native->payload + arg, value.value.bytes, value.size);
        return GT_OK;
    }
    assert(x->kernel);
    if (value.type == DEV_ARG_BUFFER)
        x->use_count = -1;
    cl_int err = set_arg(x->kernel, (cl_uint)arg, &value);
    if (err != CL_SUCCESS)
        return gt_fail(GT_DEVICE, "cannot set argument %d of kernel '%s': %s", arg, x->name, cl_error_name(err));
    return GT_OK;
}

/* Arguments whose window has moved on since they were set. */
static cl_int follow_windows(launch *x)
{
    cl_int err = CL_SUCCESS;
    for (int i = 0; err == CL_SUCCESS && i < x->moving_count; i++) {
        moving *m = &x->moving[i];
        if (m->set == m->buffer->mem)
            continue;
        if (x->type == KERNEL)
            err = clSetKernelArg(x->kernel, (cl_uint)m->arg, sizeof m->buffer->mem, &m->buffer->mem);
        else if (x->type == NATIVE)
            x->native->pointers[m->arg] = address_of(m->buffer);
        else if (m->arg)
            x->from = m->buffer->mem;
        else
            x->to = m->buffer->mem;
        m->set = m->buffer->mem;
    }
    return err;
}

static gt_status enqueue(dev_list *l, launch *x, cl_event *event)
{
    cl_command_queue queue = l->device->queue;
    cl_int err = x->moving_count ? follow_windows(x) : CL_SUCCESS;
    if (err != CL_SUCCESS)
        return gt_fail(GT_DEVICE, "cannot set the arguments of '%s' on device '%s': %s", x->name, l->device->info.id,
                       cl_error_name(err));
    if (l->device->flying_count) {
        err = dev_transfers_before(l->device, x->uses, x->use_count);
        if (err != CL_SUCCESS)
            return dev_failed(l->device, err, "cannot order '%s' on device '%s' behind a transfer", x->name,
                              l->device->info.id);
    }
    switch (x->type) {
    case NOTHING: return GT_OK;
    case KERNEL:
        err = clEnqueueNDRangeKernel(queue, x->kernel, x->rank, NULL, x->global, x->local, 0, NULL, event);
        break;
    case NATIVE:
        err = clEnqueueNativeKernel(queue, run_native, x->native, sizeof *x->native, 0, NULL, NULL, 0, NULL, event);
        break;
    case CALL: return x->enqueue(x->context, queue, event);
    case FILL:
        err = clEnqueueFillBuffer(queue, x->to, &x->pattern, sizeof x->pattern, x->to_offset, x->bytes, 0, NULL, event);
        break;
    case COPY:
        err = clEnqueueCopyBuffer(queue, x->from, x->to, x->from_offset, x->to_offset, x->bytes, 0, NULL, event);
        break;
    }
    if (err != CL_SUCCESS)
        return dev_failed(l->device, err, "cannot launch '%s' on device '%s'", x->name, l->device->info.id);
    return GT_OK;
}

/* A slowed device: wait for what was queued, then sleep in proportion to its kernel time.
 * Sleeps are taken in stretches, since one of a few microseconds would take fifty. */
static gt_status slow_down(dev_device *d)
{
    double seconds;
    gt_status st = dev_events_collect(d, &seconds);
    if (st)
        return st;
    d->owed_ns += (uint64_t)(seconds * (1.0 / d->speed - 1.0) * 1e9);
    while (d->owed_ns >= SLOW_STRETCH_NS && !gt_stop_asked()) {
        uint64_t start = gt_now_ns();
        gt_sleep_ns(d->owed_ns < NAP_NS ? d->owed_ns : NAP_NS);
        uint64_t slept = gt_now_ns() - start;
        d->owed_ns = slept < d->owed_ns ? d->owed_ns - slept : 0;
    }
    return GT_OK;
}

/* What a launch is called in a trace: "h.3.attn forward: attention_forward". */
static gt_span span_of(const dev_list *l, int i)
{
    const launch *x = &l->launches[i];
    const int copies = x->type == FILL || x->type == COPY;
    const char *label = dev_list_label_of(l, i);
    gt_span s = { .category = copies ? GT_TRACE_COPY : GT_TRACE_KERNEL, .track = GT_TRACK_COMPUTE };
    gt_trace_stamp(&s);
    char whole[128];
    snprintf(whole, sizeof whole, "%.64s%s%s", label, *label ? ": " : "", x->name);
    snprintf(s.name, sizeof s.name, "%.45s", whole);
    return s;
}

static gt_status note(dev_list *l, int i, cl_event event, uint64_t asked, int counts, int traced)
{
    if (!traced)
        return dev_event_note(l->device, event, asked, counts, NULL);
    const gt_span span = span_of(l, i);
    return dev_event_note(l->device, event, asked, counts, &span);
}

/* Ends a stretch with this launch's event, which it takes over, and waits for the last but one. */
static gt_status end_stretch(dev_device *d, cl_event event, int adapt)
{
    enum { AHEAD = sizeof d->ahead / sizeof *d->ahead };
    cl_event oldest = d->ahead[0];
    cl_int err = CL_SUCCESS;
    for (int i = 0; i + 1 < AHEAD; i++)
        d->ahead[i] = d->ahead[i + 1];
    d->ahead[AHEAD - 1] = event;
    d->since_stretch = 0;
    clFlush(d->queue);
    if (oldest) {
        err = clWaitForEvents(1, &oldest);
        clReleaseEvent(oldest);
    }
    const uint64_t now = gt_now_ns(), took = now - d->stretch_ns;
    d->stretch_ns = now;
    if (adapt && took < STRETCH_LEAST_NS && d->stretch < STRETCH_LAUNCHES)
        d->stretch *= 2;
    else if (adapt && took > STRETCH_MOST_NS && d->stretch > 1)
        d->stretch /= 2;
    if (err != CL_SUCCESS)
        return dev_failed(d, err, "work on device '%s' failed", d->info.id);
    return GT_OK;
}

static gt_status run_one(dev_list *l, int i, int last, int slow, int traced)
{
    dev_device *d = l->device;
    launch *x = &l->launches[i];
    const int counts = d->counting || slow;
    const int compiles = !x->ran && x->type != FILL && x->type != COPY;
    const int ends = compiles || ++d->since_stretch >= d->stretch;
    const uint64_t asked = counts || traced ? dev_event_asked(d) : 0;
    cl_event event = NULL;
    gt_status st = enqueue(l, x, counts || traced || ends ? &event : NULL);
    if (!st && event && ends) {
        if (counts || traced)
            clRetainEvent(event);
        st = end_stretch(d, event, !compiles);
    }
    x->ran = 1;
    if (!st && event && (counts || traced))
        st = note(l, i, event, asked, counts, traced);
    if (!st && slow && (d->pending_count >= 8 || last))
        st = slow_down(d);
    else if (!st && d->counting && d->pending_count >= 4096)
        st = dev_events_collect(d, NULL);
    return st;
}

static gt_status run(dev_list *l, int from, int to, gt_activity *a)
{
    dev_device *d = l->device;
    if (to < 0)
        to = l->count;
    assert(0 <= from && from <= to && to <= l->count);
    const int slow = dev_slowdown(d) < 1.0, traced = gt_trace_on();
    gt_status st = traced ? dev_clock_match(d) : GT_OK;
    for (int i = from; !st && i < to; i++) {
        if (a && (d->since_stretch == 0 || i == from))
            gt_activity_set(a, (uint64_t)i);
        if (a)
            st = gt_stop_check();
        if (!st)
            st = run_one(l, i, i + 1 == to, slow, traced);
    }
    clFlush(d->queue);
    return st;
}

gt_status dev_run(dev_list *l, int from, int to)
{
    return run(l, from, to, NULL);
}

gt_status dev_run_stoppable(dev_list *l, int from, int to)
{
    gt_activity a;
    gt_activity_begin(&a, "kernels", NULL, (uint64_t)l->count);
    gt_status st = run(l, from, to, &a);
    gt_activity_end(&a);
    return st;
}

/* Enqueues launch i and waits until it is over; *event is NULL if it does nothing. */
static gt_status run_alone(dev_list *l, int i, cl_event *event)
{
    *event = NULL;
    gt_status st = enqueue(l, &l->launches[i], event);
    if (st || !*event)
        return st;
    cl_int err = clWaitForEvents(1, event);
    if (err == CL_SUCCESS)
        return GT_OK;
    clReleaseEvent(*event);
    return dev_failed(l->device, err, "launch '%s' on device '%s' failed", l->launches[i].name, l->device->info.id);
}

gt_status dev_run_timed(dev_list *l, int from, int to, double *seconds)
{
    gt_status st = GT_OK;
    if (to < 0)
        to = l->count;
    gt_activity a;
    gt_activity_begin(&a, "timing kernels", NULL, (uint64_t)l->count);
    for (int i = from; !st && i < to; i++) {
        cl_event event = NULL;
        const uint64_t asked = dev_event_asked(l->device);
        st = gt_activity_at(&a, (uint64_t)i);
        if (!st)
            st = run_alone(l, i, &event);
        if (!st && event) {
            seconds[i] += dev_event_seconds(l->device, event, asked);
            clReleaseEvent(event);
        }
    }
    gt_activity_end(&a);
    return st;
}

gt_status dev_run_both_clocks(dev_list *l, double *host, double *device)
{
    cl_event event;
    assert(l->count == 1);
    clFinish(l->device->queue);
    const uint64_t start = gt_now_ns();
    gt_status st = run_alone(l, 0, &event);
    *host = (double)(gt_now_ns() - start) * 1e-9;
    *device = 0.0;
    if (!st && event) {
        *device = dev_stamp_seconds(event);
        clReleaseEvent(event);
    }
    return st;
}

void dev_busy_count(dev_device *d, int on)
{
    d->counting = on;
}

double dev_busy_seconds(dev_device *d)
{
    if (dev_wait(d))
        gt_message_clear();
    return d->busy;
}
