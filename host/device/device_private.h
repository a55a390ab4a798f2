/* SPDX-License-Identifier: MIT */
/* host/device/device_private.h - what the files of this room share. */
#ifndef GT_DEVICE_PRIVATE_H
#define GT_DEVICE_PRIVATE_H

#include "host/base/trace.h"
#include "host/device/device.h"

#include <CL/cl.h>
#include <stdatomic.h>

#define NV_COMPUTE_CAPABILITY_MAJOR 0x4000      /* cl_nv_device_attribute_query */

struct dev_device {
    dev_info info;
    cl_device_id id;
    int unproven;                   /* the first program asks for the verdict  */
    int probed;                     /* matrix units were looked for            */
    cl_context context;
    cl_command_queue queue;         /* in order, with profiling                */
    cl_command_queue transfers;     /* beside it; NULL: there is none          */
    uint64_t piece;                 /* dev_transfer_piece()                     */
    struct flying *flying;          /* transfers that launches may have to wait for (transfer.c) */
    int flying_count, flying_room;
    /* The completion thread finds copies that failed, and tells how much memory is in use. */
    atomic_int lost;                /* the driver gave it up: nothing more is asked of it  */
    _Atomic uint64_t used;          /* bytes in live buffers                   */
    double speed;                   /* 1.0, or what stood behind '@'           */
    uint64_t slow_from;             /* it counts from here on, gt_now_ns()     */
    int full_speed;                 /* above 0: it does not count now          */
    int counting;                   /* launches carry events for busy seconds  */
    struct pending *pending;        /* events noted, in the queue's order      */
    int pending_count, pending_room;
    double busy;                    /* seconds, of events already collected    */
    uint64_t owed_ns;               /* slowed devices: sleep not yet taken     */
    cl_event ahead[2];              /* ends of the stretches that may still run (launch.c) */
    int stretch, since_stretch;     /* launches of a stretch; since the last one ended     */
    uint64_t stretch_ns;            /* when the host last waited for one                   */
    int clock_known;
    uint64_t clock_ahead;           /* gt_trace_now() less the device's clock, modulo 2^64 */
};

struct dev_buffer {
    dev_device *device;
    dev_buffer *root;               /* itself, if it is an allocation          */
    cl_mem mem;
    uint64_t offset, bytes;         /* offset within root                      */
    void *host;                     /* of a root: its memory, where native kernels run */
    uint64_t mapped_bytes;          /* of it, ours to unmap; 0: given                          */
    int lent;                       /* not in device->used                     */
    /* window.c */
    dev_buffer *window;             /* itself, or the window it is a view of; NULL: neither    */
    dev_buffer *views;              /* of a window: the first                  */
    dev_buffer *next;               /* the window's next view                  */
    uint64_t within;                /* offset of a view in its window          */
    struct window_part *parts;      /* of such a view: mem for each that the window has stood for */
    int part_count;
};

/* window.c */
/* A view that was just made, of a window or of a view of one. */
gt_status dev_window_view(dev_buffer *view, dev_buffer *from, uint64_t offset);
void dev_window_release(dev_buffer *b);     /* what these fields hold */

struct dev_program {
    dev_device *device;
    cl_program program;
    char name[48];
};

/* "CL_OUT_OF_RESOURCES" and the like. */
const char *cl_error_name(cl_int error);

/* failure.c: "DOING: CL_OUT_OF_RESOURCES; ..." as GT_NO_MEMORY, GT_LOST or GT_DEVICE, DOING by a format. */
gt_status dev_failed(dev_device *d, cl_int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* transfer.c; bytes [begin, end) of a root. */
typedef struct dev_use {
    const dev_buffer *root;
    uint64_t begin, end;
} dev_use;
gt_status dev_transfers_open(dev_device *d);
void dev_transfers_close(dev_device *d);
/* What is queued next waits for the transfers of these bytes; count below 0: for all. */
cl_int dev_transfers_before(dev_device *d, const dev_use *uses, int count);
/* On the queue of transfers, which there must be; *event is the caller's. */
cl_int dev_transfer_start(dev_device *d, const dev_buffer *b, uint64_t offset, void *host, uint64_t bytes, int write,
                          cl_event *event);
/* Of a root that goes, or (NULL) of all, which are over. */
void dev_transfers_forget(dev_device *d, const dev_buffer *root);

/* One device of one platform, as found. */
typedef struct found {
    dev_info info;
    cl_device_id id;
} found;
gt_status dev_discover(found **out, int *count);
/* Reads what a device says of itself into *info (all but id and path). */
void dev_describe(dev_info *info, cl_device_id id, cl_platform_id platform);

/* An event that something is to be learnt from when it is over: its seconds, if it counts, for
 * dev_busy_seconds() or slowing down; when it was, for a trace, with the name, category and
 * track of `span` (NULL: not traced). Takes the event over. Those that are over already may go
 * first, so that a trace does not gather them without end. */
struct pending {
    cl_event event;
    int counts, traced;
    uint64_t begin, end;
    gt_span span;
};
gt_status dev_event_note(dev_device *d, cl_event event, uint64_t asked, int counts, const gt_span *span);
/* To be asked right before something is enqueued that is to be timed. On a device that is timed by
 * the host's clock it waits until the queue is empty, and `asked` is when the work begins. */
uint64_t dev_event_asked(dev_device *d);
/* Waits for the noted events and adds their device time; returns what was added. */
gt_status dev_events_collect(dev_device *d, double *seconds);
/* The same of those that are over by now; cannot fail. */
void dev_events_reap(dev_device *d);
/* Finds out, once, how far the host's clock is ahead of the device's. */
gt_status dev_clock_match(dev_device *d);
/* How long what was asked for at `asked` took; it is over by now. */
double dev_event_seconds(const dev_device *d, cl_event event, uint64_t asked);
/* By its stamps, whatever they are worth. */
double dev_stamp_seconds(cl_event event);

/* VW and WG of cl/common.clh. A GPU row kernel's group is a power of two of at most 256 (AMD's
 * default limit), a CPU's is 1; a CPU body's vector is the native one, 4 to 16 floats. */
int dev_vector_width(const dev_info *i);
size_t dev_group_size(const dev_info *i);

/* The rows of matrix units and of proofs (dev_family_at). */
extern const dev_family dev_probe_family;
const dev_family *dev_prove_family(void);

/* dev_program_build() without a look at the verdict; keep: from and to the cache folder. */
gt_status dev_program_make(dev_program **out, dev_device *d, const char *name, const char *const *sources, int count,
                           const char *options, int keep);

uint64_t dev_fingerprint_of(const dev_info *i);
/* Changes with every change of what dev_prove() asks. */
uint64_t dev_prove_version(void);
/* Runs a list's only launch and waits for it: seconds by the host's clock, and by the stamps. */
gt_status dev_run_both_clocks(dev_list *l, double *host, double *device);
/* The verdict on an open device, known or found now: GT_OK, with info.host_clock set where its
 * stamps are wrong, or GT_UNSUPPORTED with the sentence that refuses it. */
gt_status dev_judge(dev_device *d);
/* 1 if it is known, so that dev_judge() asks nothing. */
int dev_judged(const dev_info *i);

#endif
