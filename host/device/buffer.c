/* SPDX-License-Identifier: MIT */
/* host/device/buffer.c - device memory: whole allocations, and views into them.
 *
 *   root   |======= one clCreateBuffer =======|
 *   view        |== sub-buffer ==|               offset a multiple of info.align
 *
 * A view is an OpenCL sub-buffer, so kernels take plain pointers and never offsets.
 *
 * On devices that run native kernels (CPUs), a root lies in memory mapped here and given to
 * OpenCL with CL_MEM_USE_HOST_PTR. Native kernels then take its address as it is: PoCL's own
 * patching of addresses sorts the list of buffers and drops repeated ones, so the addresses
 * arrive in another order than asked for. Large roots ask for huge pages.               */
#include "host/device/device_private.h"

#include "host/base/log.h"
#include "host/base/text.h"
#include "host/base/workers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((uint64_t)2 << 20)

/* Memory for a root that native kernels will see; NULL if there is none. */
static void *map_host(uint64_t bytes, uint64_t *mapped)
{
    *mapped = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes < HUGE_PAGE)
        *mapped = (bytes + 4095) / 4096 * 4096;
    void *p = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_PAGE)
        madvise(p, *mapped, MADV_HUGEPAGE);     /* only advice: failure changes nothing */
    return p;
}

static gt_status check_size(const dev_device *d, uint64_t bytes, const char *what)
{
    char need[32], limit[32];
    gt_format_bytes(need, sizeof need, bytes);
    if (bytes > d->info.max_alloc_bytes)
        return gt_fail(GT_NO_MEMORY,
                       "cannot hold %s on device '%s': %s in one piece, the device "
                       "allows %s",
                       what, d->info.id, need, gt_format_bytes(limit, sizeof limit, d->info.max_alloc_bytes));
    if (d->used + bytes > d->info.global_bytes)
        return gt_fail(GT_NO_MEMORY,
                       "cannot hold %s on device '%s': %s more than the %s it has; "
                       "try a smaller model, micro-batch or sequence, or --recompute",
                       what, d->info.id, need, gt_format_bytes(limit, sizeof limit, d->info.global_bytes));
    return GT_OK;
}

/* host: memory that the device is to compute in; NULL: the driver's. */
static gt_status make_root(dev_buffer *b, dev_device *d, uint64_t bytes, void *host, const char *what)
{
    char need[32];
    cl_int err = CL_MEM_OBJECT_ALLOCATION_FAILURE;
    const cl_mem_flags flags = CL_MEM_READ_WRITE | (host ? CL_MEM_USE_HOST_PTR : 0);
    if (host || !d->info.native_kernels)
        b->mem = clCreateBuffer(d->context, flags, bytes, host, &err);
    if (err != CL_SUCCESS)
        return gt_fail(err == CL_MEM_OBJECT_ALLOCATION_FAILURE || err == CL_OUT_OF_RESOURCES
                               || err == CL_OUT_OF_HOST_MEMORY
                           ? GT_NO_MEMORY
                           : GT_DEVICE,
                       "cannot hold %s (%s) on device '%s': %s", what, gt_format_bytes(need, sizeof need, bytes),
                       d->info.id, cl_error_name(err));
    b->device = d;
    b->root = b;
    b->bytes = bytes;
    b->host = host;
    d->used += b->lent ? 0 : bytes;
    return GT_OK;
}

gt_status dev_buffer_create(dev_buffer **out, dev_device *d, uint64_t bytes, const char *what)
{
    *out = NULL;
    if (!bytes)
        bytes = 4;                              /* OpenCL has no empty buffers */
    gt_status st = check_size(d, bytes, what);
    if (st)
        return st;
    dev_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of %s", what);
    void *host = d->info.native_kernels ? map_host(bytes, &b->mapped_bytes) : NULL;
    st = make_root(b, d, bytes, host, what);
    if (st) {
        if (host)
            munmap(host, b->mapped_bytes);
        free(b);
        return st;
    }
    *out = b;
    return GT_OK;
}

gt_status dev_buffer_create_zero(dev_buffer **out, dev_device *d, uint64_t bytes, const char *what)
{
    dev_list *l = NULL;
    gt_status st = dev_buffer_create(out, d, (bytes + 3) / 4 * 4, what);
    if (st || (*out)->host)             /* map_host() gave it: fresh pages are zero */
        return st;
    st = dev_list_create(&l, d);
    if (!st)
        st = dev_list_fill(l, *out, 0, 0, dev_buffer_bytes(*out));
    if (!st)
        st = dev_run(l, 0, -1);
    dev_list_release(l);
    if (st) {
        dev_buffer_release(*out);
        *out = NULL;
    }
    return st;
}

static gt_status create_in(dev_buffer **out, dev_device *d, void *host, uint64_t bytes, int lent, const char *what)
{
    *out = NULL;
    assert(d->info.native_kernels && host && bytes);
    gt_status st = lent ? GT_OK : check_size(d, bytes, what);
    if (st)
        return st;
    dev_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of %s", what);
    b->lent = lent;
    st = make_root(b, d, bytes, host, what);
    if (st) {
        free(b);
        return st;
    }
    *out = b;
    return GT_OK;
}

gt_status dev_buffer_create_in(dev_buffer **out, dev_device *d, void *host, uint64_t bytes, const char *what)
{
    return create_in(out, d, host, bytes, 0, what);
}

gt_status dev_buffer_create_lent(dev_buffer **out, dev_device *d, void *host, uint64_t bytes, const char *what)
{
    return create_in(out, d, host, bytes, 1, what);
}

gt_status dev_buffer_view(dev_buffer **out, dev_buffer *from, uint64_t offset, uint64_t bytes)
{
    dev_device *d = from->device;
    *out = NULL;
    assert(offset % d->info.align == 0 && offset + bytes <= from->bytes);
    dev_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return gt_fail(GT_NO_MEMORY, "cannot make a view of device memory: no memory for its handle");
    cl_buffer_region region = { from->offset + offset, bytes };
    cl_int err;
    b->mem = clCreateSubBuffer(from->root->mem, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &err);
    if (err != CL_SUCCESS) {
        free(b);
        return gt_fail(GT_DEVICE, "cannot make a view of device memory on '%s': %s", d->info.id, cl_error_name(err));
    }
    b->device = d;
    b->root = from->root;
    b->offset = region.origin;
    b->bytes = bytes;
    const gt_status st = from->window ? dev_window_view(b, from, offset) : GT_OK;
    if (st)
        dev_buffer_release(b);
    else
        *out = b;
    return st;
}

void dev_buffer_release(dev_buffer *b)
{
    if (!b)
        return;
    if (b->root == b && b->device->flying_count)
        dev_transfers_forget(b->device, b);
    if (b->window)
        dev_window_release(b);
    else
        clReleaseMemObject(b->mem);
    /* Nothing may still use the memory. Of a lost device nobody can tell: what it has begun may go on, so its memory
     * is left to the end of the process. */
    if (b->host && !b->device->lost)
        clFinish(b->device->queue);
    if (b->mapped_bytes && !b->device->lost)
        munmap(b->host, b->mapped_bytes);
    if (b->root == b && !b->lent)
        b->device->used -= b->bytes;
    free(b);
}

uint64_t dev_buffer_bytes(const dev_buffer *b)
{
    return b->bytes;
}

void *dev_buffer_host(const dev_buffer *b)
{
    return b->root->host ? (char *)b->root->host + b->offset : NULL;
}

void *dev_cl_root(dev_buffer *b, uint64_t *offset)
{
    *offset = b->offset;
    return b->root->mem;
}

void *dev_cl_mem(dev_buffer *b)
{
    return b->mem;
}

struct dev_event {
    cl_event event;
    dev_device *device;
};

static gt_status move(dev_device *d, dev_buffer *b, uint64_t offset, void *host, uint64_t bytes, int write, int wait,
                      dev_event **out)
{
    cl_event event = NULL;
    dev_event *e = NULL;
    const int traced = gt_trace_on() && bytes;
    assert(offset + bytes <= b->bytes);
    gt_status st = traced ? dev_clock_match(d) : GT_OK;
    if (st)
        return st;
    if (out) {
        *out = NULL;
        e = malloc(sizeof *e);
        if (!e)
            return gt_fail(GT_NO_MEMORY, "cannot copy to or from device '%s': no memory for an event", d->info.id);
    }
    cl_event *ask = e || traced ? &event : NULL;
    const uint64_t asked = traced ? dev_event_asked(d) : 0;
    cl_int err = CL_SUCCESS;
    const dev_use use = { b->root, b->offset + offset, b->offset + offset + bytes };
    const int beside = e && !wait && bytes && d->transfers && !d->info.host_clock;
    if (!beside && d->flying_count)
        err = dev_transfers_before(d, &use, 1);
    if (beside)
        err = dev_transfer_start(d, b, offset, host, bytes, write, &event);
    else if (bytes && err == CL_SUCCESS)
        err = write
                  ? clEnqueueWriteBuffer(d->queue, b->mem, wait ? CL_TRUE : CL_FALSE, offset, bytes, host, 0, NULL, ask)
                  : clEnqueueReadBuffer(d->queue, b->mem, wait ? CL_TRUE : CL_FALSE, offset, bytes, host, 0, NULL, ask);
    if (err == CL_SUCCESS && traced && e)
        err = clRetainEvent(event);
    if (err != CL_SUCCESS) {
        free(e);
        return dev_failed(d, err, "cannot copy %s device '%s'", write ? "to" : "from", d->info.id);
    }
    if (e) {
        e->event = event;
        e->device = d;
        *out = e;
        if (!beside)
            clFlush(d->queue);
    }
    if (!traced)
        return GT_OK;
    gt_span span = { .category = GT_TRACE_COPY, .track = GT_TRACK_COPY, .bytes = bytes };
    gt_trace_stamp(&span);
    snprintf(span.name, sizeof span.name, "%s %llu bytes", write ? "write" : "read", (unsigned long long)bytes);
    return dev_event_note(d, event, asked, 0, &span);
}

/* ---- large copies within host memory ------------------------------------------------------------ */

enum { SHARE = 1 << 20, SHARES_LEAST = 4 };

typedef struct sharing {
    char *to;
    const char *from;
    uint64_t bytes;
} sharing;

static void copy_share(void *context, size_t i)
{
    const sharing *s = context;
    const uint64_t first = (uint64_t)i * SHARE, left = s->bytes - first;
    memcpy(s->to + first, s->from + first, left < SHARE ? left : SHARE);
}

/* A driver copies with one thread, which is as slow as the page faults on both sides. */
static int is_shared_out(const dev_buffer *b, uint64_t bytes)
{
    return b->root->host && bytes >= (uint64_t)SHARE * SHARES_LEAST && !gt_trace_on();
}

static gt_status share_out(dev_device *d, void *to, const void *from, uint64_t bytes)
{
    sharing s = { to, from, bytes };
    gt_status st = dev_wait(d);
    if (!st)
        gt_workers_run((size_t)((bytes + SHARE - 1) / SHARE), copy_share, &s);
    return st;
}

gt_status dev_write(dev_device *d, dev_buffer *b, uint64_t offset, const void *from, uint64_t bytes)
{
    assert(offset + bytes <= b->bytes);
    if (is_shared_out(b, bytes))
        return share_out(d, (char *)dev_buffer_host(b) + offset, from, bytes);
    return move(d, b, offset, (void *)(uintptr_t)from, bytes, 1, 1, NULL);
}

gt_status dev_read(dev_device *d, dev_buffer *b, uint64_t offset, void *to, uint64_t bytes)
{
    assert(offset + bytes <= b->bytes);
    if (is_shared_out(b, bytes))
        return share_out(d, to, (const char *)dev_buffer_host(b) + offset, bytes);
    return move(d, b, offset, to, bytes, 0, 1, NULL);
}

gt_status dev_write_start(dev_device *d, dev_buffer *b, uint64_t offset, const void *from, uint64_t bytes,
                          dev_event **event)
{
    return move(d, b, offset, (void *)(uintptr_t)from, bytes, 1, 0, event);
}

gt_status dev_read_start(dev_device *d, dev_buffer *b, uint64_t offset, void *to, uint64_t bytes, dev_event **event)
{
    return move(d, b, offset, to, bytes, 0, 0, event);
}

gt_status dev_mark(dev_device *d, dev_event **event)
{
    dev_event *e = malloc(sizeof *e);
    *event = NULL;
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot mark the queue of device '%s': no memory for an event", d->info.id);
    const cl_int err = clEnqueueMarkerWithWaitList(d->queue, 0, NULL, &e->event);
    if (err != CL_SUCCESS) {
        free(e);
        return dev_failed(d, err, "cannot mark the queue of device '%s'", d->info.id);
    }
    e->device = d;
    clFlush(d->queue);
    *event = e;
    return GT_OK;
}

gt_status dev_event_wait(dev_event *e)
{
    if (!e)
        return GT_OK;
    gt_status st = GT_OK;
    if (e->event) {
        cl_int err = clWaitForEvents(1, &e->event);
        cl_int status = CL_COMPLETE;
        clGetEventInfo(e->event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL);
        if (err != CL_SUCCESS || status < 0)
            st = dev_failed(e->device, status < 0 ? status : err, "a copy on device '%s' failed", e->device->info.id);
        clReleaseEvent(e->event);
    }
    free(e);
    return st;
}
