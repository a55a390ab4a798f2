/* host/device/device_private.h - what the files of this room share. */
#ifndef GT_DEVICE_PRIVATE_H
#define GT_DEVICE_PRIVATE_H

#include "host/device/device.h"

#include <CL/cl.h>

#define NV_COMPUTE_CAPABILITY_MAJOR 0x4000      /* cl_nv_device_attribute_query */

struct dev_device {
    dev_info info;
    cl_device_id id;
    int probed;                     /* matrix units were looked for            */
    int sub_device;                 /* id is a sub-device and must be released */
    cl_context context;
    cl_command_queue queue;         /* in order, with profiling                */
    double speed;                   /* 1.0, or what stood behind '@'           */
    uint64_t used;                  /* bytes in live buffers                   */
    int counting;                   /* launches carry events for busy seconds  */
    struct pending { cl_event event; } *pending;
    int pending_count, pending_room;
    double busy;                    /* seconds, of events already collected    */
    uint64_t owed_ns;               /* slowed devices: sleep not yet taken     */
};

struct dev_buffer {
    dev_device *device;
    dev_buffer *root;               /* itself, if it is an allocation          */
    cl_mem mem;
    uint64_t offset, bytes;         /* offset within root                      */
    void *host;                     /* of a root: its memory, where native kernels run */
    uint64_t host_bytes;            /* mapped for it                           */
};

struct dev_program {
    dev_device *device;
    cl_program program;
    char name[48];
};

/* "CL_OUT_OF_RESOURCES" and its kin. */
const char *cl_error_name(cl_int error);

/* One device of one platform, as found. */
typedef struct found {
    dev_info info;
    cl_device_id id;
} found;
gt_status dev_discover(found **out, int *count);
/* Reads what a device says of itself into *info (all but id and path). */
void dev_describe(dev_info *info, cl_device_id id, cl_platform_id platform);

/* Records an event of one launch for busy seconds or slowing down; takes it over. */
gt_status dev_event_note(dev_device *d, cl_event event);
/* Waits for the noted events and adds their device time; returns what was added. */
gt_status dev_events_collect(dev_device *d, double *seconds);
double dev_event_seconds(cl_event event);

#endif
