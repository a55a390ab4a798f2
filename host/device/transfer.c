/* SPDX-License-Identifier: MIT */
/* host/device/transfer.c - transfers beside kernels: a queue of their own, and who waits for whom.
 *
 *   kernels     | forward 1 ■ forward 2          | forward 3, which writes h anew |
 *   transfers               └> | read h of 1     | ─┘ waits
 *
 * A transfer that is started and waited for later waits for the kernels that were queued before it (■, a marker)
 * and for nothing that comes after; a launch waits for the transfers of the bytes that it takes as arguments, and
 * for no others. So callers may think of one queue, in order, as there is where this one is not made: on CPUs,
 * whose kernels and copies share the cores, and where $GEARTRAIN_TRANSFER_QUEUE is off. What launches only read
 * they wait for as well: nobody tells which arguments are written.                       */
#include "host/device/device_private.h"

#include "host/base/log.h"
#include "host/base/text.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20 };       /* 40 us of a fast bus, 20 of a fast network */

uint64_t dev_transfer_piece(const dev_device *d)
{
    return d->piece;
}

struct flying {
    const dev_buffer *root;
    uint64_t begin, end;            /* in the root                                             */
    cl_event event;
};

gt_status dev_transfers_open(dev_device *d)
{
    const char *wish = getenv("GEARTRAIN_TRANSFER_QUEUE"), *piece = getenv("GEARTRAIN_TRANSFER_PIECE");
    int on = d->info.kind != DEV_CPU;
    d->piece = PIECE;
    if (piece && *piece && gt_parse_bytes(&d->piece, piece))
        return gt_fail(GT_MISUSE, "GEARTRAIN_TRANSFER_PIECE is '%s', not bytes such as 1MiB, or 0", piece);
    if (wish && *wish && strcmp(wish, "on") && strcmp(wish, "off"))
        return gt_fail(GT_MISUSE, "GEARTRAIN_TRANSFER_QUEUE is '%s', not on or off", wish);
    if (wish && *wish)
        on = !strcmp(wish, "on");
    if (!on)
        return GT_OK;
    cl_int err;
    d->transfers = clCreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &err);
    if (err != CL_SUCCESS) {
        d->transfers = NULL;
        gt_log(GT_LOG_INFO, "device", "device '%s' has no second queue (%s): transfers wait for kernels", d->info.id,
               cl_error_name(err));
    }
    return GT_OK;
}

static void forget(dev_device *d, int i)
{
    clReleaseEvent(d->flying[i].event);
    d->flying[i] = d->flying[--d->flying_count];
}

void dev_transfers_forget(dev_device *d, const dev_buffer *root)
{
    for (int i = d->flying_count - 1; i >= 0; i--)
        if (!root || d->flying[i].root == root)
            forget(d, i);
}

/* Whoever waits for a transfer that failed is told; here it is over. */
static int is_over(cl_event event)
{
    cl_int status = CL_COMPLETE;
    clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL);
    return status <= CL_COMPLETE;
}

static int touches(const struct flying *f, const dev_use *uses, int count)
{
    int hit = count < 0;
    for (int i = 0; !hit && i < count; i++)
        hit = f->root == uses[i].root && f->begin < uses[i].end && uses[i].begin < f->end;
    return hit;
}

cl_int dev_transfers_before(dev_device *d, const dev_use *uses, int count)
{
    cl_event waits[16];
    enum { ROOM = sizeof waits / sizeof *waits };
    cl_uint n = 0;
    cl_int err = CL_SUCCESS;
    for (int i = d->flying_count - 1; err == CL_SUCCESS && i >= 0; i--) {
        if (is_over(d->flying[i].event)) {
            forget(d, i);
            continue;
        }
        if (touches(&d->flying[i], uses, count))
            waits[n++] = d->flying[i].event;
        if (n == ROOM) {
            err = clEnqueueBarrierWithWaitList(d->queue, n, waits, NULL);
            n = 0;
        }
    }
    return n && err == CL_SUCCESS ? clEnqueueBarrierWithWaitList(d->queue, n, waits, NULL) : err;
}

static int make_room(dev_device *d)
{
    if (d->flying_count < d->flying_room)
        return 1;
    const int room = d->flying_room ? 2 * d->flying_room : 32;
    struct flying *more = realloc(d->flying, (size_t)room * sizeof *more);
    if (!more)
        return 0;
    d->flying = more;
    d->flying_room = room;
    return 1;
}

cl_int dev_transfer_start(dev_device *d, const dev_buffer *b, uint64_t offset, void *host, uint64_t bytes, int write,
                          cl_event *event)
{
    cl_event mark;
    if (!make_room(d))
        return CL_OUT_OF_HOST_MEMORY;
    cl_int err = clEnqueueMarkerWithWaitList(d->queue, 0, NULL, &mark);
    if (err != CL_SUCCESS)
        return err;
    err = write ? clEnqueueWriteBuffer(d->transfers, b->mem, CL_FALSE, offset, bytes, host, 1, &mark, event)
                : clEnqueueReadBuffer(d->transfers, b->mem, CL_FALSE, offset, bytes, host, 1, &mark, event);
    clReleaseEvent(mark);
    if (err != CL_SUCCESS)
        return err;
    clRetainEvent(*event);
    const uint64_t begin = b->offset + offset;
    d->flying[d->flying_count++] = (struct flying){ b->root, begin, begin + bytes, *event };
    clFlush(d->queue);                  /* the marker must come, or the other queue waits for ever */
    clFlush(d->transfers);
    return CL_SUCCESS;
}

void dev_transfers_close(dev_device *d)
{
    dev_transfers_forget(d, NULL);
    free(d->flying);
    if (d->transfers)
        clReleaseCommandQueue(d->transfers);
}
