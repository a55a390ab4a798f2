/* SPDX-License-Identifier: MIT */
/* host/device/window.c - buffers that stand for others, one at a time.
 *
 *   window ─► slot 0                      views of it are sub-buffers of the slot, and change with it:
 *   view   ─► part of slot 0              each keeps one for every slot that was met
 *
 * A launch list holds arguments, and arguments name memory: launch.c sets those of windows anew when
 * it queues a launch and the window has moved on.                                           */
#include "host/device/device_private.h"

#include <assert.h>
#include <stdlib.h>

typedef struct window_part {
    cl_mem of;                      /* the memory that the window stands for   */
    cl_mem mem;                     /* the view's part of it                   */
} window_part;

gt_status dev_window_create(dev_buffer **out, dev_buffer *first)
{
    dev_buffer *w = calloc(1, sizeof *w);
    *out = w;
    if (!w)
        return gt_fail(GT_NO_MEMORY, "cannot make a window on device memory: no memory for its handle");
    assert(!first->window);
    w->device = first->device;
    w->root = first->root;
    w->mem = first->mem;
    w->offset = first->offset;
    w->bytes = first->bytes;
    w->window = w;
    return GT_OK;
}

static gt_status keep_part(dev_buffer *view, cl_mem of, cl_mem mem)
{
    window_part *more = realloc(view->parts, ((size_t)view->part_count + 1) * sizeof *more);
    if (!more)
        return gt_fail(GT_NO_MEMORY, "cannot move a window on device memory: no memory for its views");
    view->parts = more;
    view->parts[view->part_count++] = (window_part){ of, mem };
    return GT_OK;
}

gt_status dev_window_view(dev_buffer *view, dev_buffer *from, uint64_t offset)
{
    dev_buffer *w = from->window;
    const gt_status st = keep_part(view, w->mem, view->mem);
    if (st)
        return st;
    view->window = w;
    view->within = from->within + offset;
    view->next = w->views;
    w->views = view;
    return GT_OK;
}

/* The view's part of `of`, made at the first time. */
static gt_status part_of(dev_buffer *view, dev_buffer *of, cl_mem *out)
{
    for (int i = 0; i < view->part_count; i++)
        if (view->parts[i].of == of->mem) {
            *out = view->parts[i].mem;
            return GT_OK;
        }
    const cl_buffer_region region = { of->offset + view->within, view->bytes };
    cl_int err;
    *out = clCreateSubBuffer(of->root->mem, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &err);
    if (err != CL_SUCCESS)
        return gt_fail(GT_DEVICE, "cannot move a window on device memory of '%s': %s", of->device->info.id,
                       cl_error_name(err));
    const gt_status st = keep_part(view, of->mem, *out);
    if (st)
        clReleaseMemObject(*out);
    return st;
}

gt_status dev_window_set(dev_buffer *w, dev_buffer *of)
{
    gt_status st = GT_OK;
    assert(w->window == w && !of->window && of->bytes >= w->bytes && of->device == w->device);
    if (w->mem == of->mem)
        return GT_OK;
    for (dev_buffer *v = w->views; !st && v; v = v->next) {
        st = part_of(v, of, &v->mem);
        v->root = of->root;
        v->offset = of->offset + v->within;
    }
    w->root = of->root;
    w->mem = of->mem;
    w->offset = of->offset;
    return st;
}

void dev_window_release(dev_buffer *b)
{
    assert(b->window != b || !b->views);
    for (dev_buffer **at = &b->window->views; *at; at = &(*at)->next)
        if (*at == b) {
            *at = b->next;
            break;
        }
    for (int i = 0; i < b->part_count; i++)
        clReleaseMemObject(b->parts[i].mem);
    free(b->parts);
}
