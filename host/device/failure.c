/* SPDX-License-Identifier: MIT */
/* host/device/failure.c - what a driver's error number means for a person, and for what may still be asked of it.
 *
 *   no memory      CL_MEM_OBJECT_ALLOCATION_FAILURE ..       drivers allocate late: also at a launch or a copy
 *   lost           CL_DEVICE_NOT_AVAILABLE, queue or context invalid, an event that failed
 *   either         CL_OUT_OF_RESOURCES: drivers say it of a kernel that faulted, of a reset, and of memory
 *
 * A lost device is asked nothing more, not even to finish: some drivers never return from that. */
#include "host/device/device_private.h"

#include "host/base/text.h"

#include <stdarg.h>
#include <stdio.h>

static int is_memory(cl_int err)
{
    return err == CL_MEM_OBJECT_ALLOCATION_FAILURE || err == CL_OUT_OF_HOST_MEMORY;
}

/* Of a call that was right: so these do not speak of it. Below -1000 lie vendors' own numbers, which they use for
 * faults of kernels and hardware. */
static int is_loss(cl_int err)
{
    return err == CL_DEVICE_NOT_AVAILABLE || err == CL_OUT_OF_RESOURCES || err == CL_INVALID_COMMAND_QUEUE
           || err == CL_INVALID_CONTEXT || err == CL_INVALID_DEVICE
           || err == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST || err <= -1000;
}

gt_status dev_failed(dev_device *d, cl_int err, const char *format, ...)
{
    char doing[192], used[32], has[32];
    va_list args;
    va_start(args, format);
    vsnprintf(doing, sizeof doing, format, args);
    va_end(args);
    if (is_memory(err))
        return gt_fail(GT_NO_MEMORY,
                       "%s: %s; its memory is used up (%s of %s are in use here): try a smaller micro-batch or "
                       "sequence, --recompute, or end what else uses the device",
                       doing, cl_error_name(err), gt_format_bytes(used, sizeof used, d->used),
                       gt_format_bytes(has, sizeof has, d->info.global_bytes));
    if (!is_loss(err))
        return gt_fail(GT_DEVICE, "%s: %s", doing, cl_error_name(err));
    d->lost = 1;
    return gt_fail(GT_LOST,
                   "%s: %s; the driver has given up the device '%s' (a reset, a fault, or no memory: the kernel's log "
                   "says which), and nothing more runs there in this process",
                   doing, cl_error_name(err), d->info.id);
}
