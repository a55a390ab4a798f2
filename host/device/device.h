/* SPDX-License-Identifier: MIT */
/* host/device/device.h - OpenCL devices of every platform behind one small interface.
 *
 *   dev_find / dev_open      which devices there are, and one of them to work with
 *   dev_buffer               device memory, and views into it
 *   dev_program              kernels built from text, kept on disk between runs
 *   dev_list                 a flat list of launches, made once, run every step
 *
 * Only this room and host/gemm's CLBlast file know OpenCL; others see what stands here.
 *
 * Ids      gpu:0 cpu:0 acc:0   the n-th device of that kind, counted over all platforms
 *          1:0                 platform 1, device 0 of it
 *          cpu:0/2             two equal sub-devices (only where a list is expected)
 *          cpu:0.1             one of those two;  cpu:0.1/4  one of four
 *          ...@0.25            any of these, slowed to a quarter of its speed
 *          ...@0.25+20s        so from 20 seconds after it was opened
 * Errors   GT_NOT_FOUND no such device · GT_NO_MEMORY it does not fit · GT_BUILD a kernel
 *          does not compile (the sentence holds the log) · GT_DEVICE an OpenCL call failed · GT_LOST the
 *          driver gave the device up
 * Order    work on one device is done in the order it was asked for, or as if it were: transfers that
 *          are started may run beside kernels that do not touch their bytes (transfer.c);
 *          nothing but dev_wait, dev_read and dev_event_wait waits for it. dev_mark tells of kernels, and
 *          not of such transfers, which have events of their own.
 * Tracing  while gt_trace_on() (host/base/trace.h) launches and copies of the device become spans,
 *          at the latest when dev_wait or dev_close returns.
 * Threads  one device, one thread at a time. Two devices never share state.
 * Units    bytes and nanoseconds.                                                       */
#ifndef GT_DEVICE_DEVICE_H
#define GT_DEVICE_DEVICE_H

#include "host/base/status.h"
#include "host/tensor/dtype.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dev_device dev_device;
typedef struct dev_buffer dev_buffer;
typedef struct dev_program dev_program;
typedef struct dev_list dev_list;
typedef struct dev_event dev_event;

/* ---- what there is ------------------------------------------------------------------ */

typedef enum dev_kind { DEV_CPU, DEV_GPU, DEV_ACCELERATOR } dev_kind;

/* Matrix units reachable from OpenCL C, found by extension or by building a probe. */
typedef enum dev_matrix {
    DEV_MATRIX_NONE = 0,
    DEV_MATRIX_INTEL = 1,       /* cl_intel_subgroup_matrix_multiply_accumulate */
    DEV_MATRIX_AMD = 2,       /* MFMA or WMMA builtins compile                */
    DEV_MATRIX_NV = 4        /* inline PTX mma.sync compiles                 */
} dev_matrix;

/* How kernels are to be written for a device; cl/common.clh explains the two bodies. */
typedef enum dev_style {
    DEV_STYLE_CPU,              /* one work-item a row or tile, wide vectors, no barriers */
    DEV_STYLE_GPU               /* work-group tiles, local memory                         */
} dev_style;

typedef struct dev_info {
    char id[32];                /* "gpu:0"; of an opened one the whole spec, "cpu:0.1@0.25" */
    char path[32];              /* "platform:index"                             */
    char name[128], vendor[64], platform[128];
    char version[96];           /* "OpenCL 3.0 ..." of the device               */
    char c_version[64];         /* "OpenCL C 1.2 ..."                           */
    char driver[96];
    dev_kind kind;
    dev_style style;
    int compute_units, clock_mhz;
    int opencl_major, opencl_minor;     /* of the device's OpenCL C             */
    uint64_t global_bytes, max_alloc_bytes, local_bytes, cache_bytes;
    int local_is_real;          /* 0: local memory is ordinary memory           */
    size_t max_group;           /* work-items a work-group                      */
    int float_width;            /* native vector width in floats, >= 1          */
    int wave;                   /* preferred work-group multiple                */
    size_t align;               /* bytes a view's offset must be a multiple of  */
    int fp16, fp64, subgroups, native_kernels, unified, out_of_order, svm;
    int xmx_lanes;              /* work-items that multiply together by Intel's matrix unit: 8, 16; 0: none */
    int matrix;                 /* dev_matrix bits told by extensions; see dev_matrix_units */
    int own_cache;              /* its driver keeps compiled programs itself    */
    int host_clock;             /* of an opened one: its events' stamps are wrong, so all times
                                 * are the host's                               */
    int sub_devices_max;
    int part, parts;            /* of an opened one: which of so many equal ones; parts 0: the whole device */
} dev_info;

/* All devices of all platforms, in the platforms' order. *out is freed with free(). No
 * device at all is GT_NOT_FOUND with a sentence that points to `geartrain doctor`. */
gt_status dev_find(dev_info **out, int *count);

/* What this process did not leave to a driver because it would have failed, in words: PoCL's cache
 * folder. "" if nothing; after dev_find(). */
const char *dev_driver_trouble(void);

/* Splits "cpu:0/2@0.5,gpu:0" into single-device specs: an array of strings to free with
 * dev_specs_free(). NULL or "" or "auto" means the best device of this machine: the first
 * GPU if there is one, else the first of any kind; none that dev_usable() refuses. */
gt_status dev_specs(char ***out, int *count, const char *list);
void dev_specs_free(char **specs, int count);

/* ---- one device ----------------------------------------------------------------------- */

/* What is relied on is proved before anything is computed: see dev_prove(). The outcome is kept in
 * the cache folder under the device's fingerprint; where it is not known yet, the first
 * dev_program_build() finds it out, since that takes a compilation, and a program wants to say
 * first what it is about to do. A device that computes wrongly is refused by either call:
 * GT_UNSUPPORTED, in a sentence that says what it got wrong. One with wrong time stamps is warned
 * of, once, and timed by the host's clock. */
gt_status dev_open(dev_device **out, const char *spec);
void dev_close(dev_device *d);                 /* takes NULL; waits for its work */
const dev_info *dev_info_of(const dev_device *d);
/* All dev_matrix bits, those that only a trial can find included: builds and runs a tiny
 * matrix product at the first call (not on CPUs). */
int dev_matrix_units(dev_device *d);
/* 1: no slowing, for measuring what the device itself can do; 0: as before that. They nest. */
void dev_full_speed(dev_device *d, int on);
double dev_slowdown(const dev_device *d);        /* now: 1.0, or what stands behind '@' */
uint64_t dev_memory_used(const dev_device *d);     /* bytes in live buffers          */
gt_status dev_wait(dev_device *d);                  /* until all work is done         */
uint64_t dev_fingerprint(const dev_device *d);     /* hash of name, driver, versions, units */

/* ---- what is relied on ---------------------------------------------------------------- */

typedef enum dev_verdict {
    DEV_HOLDS,
    DEV_WRONG,                  /* the device is refused                        */
    DEV_NO_CLOCK                /* it is timed by the host's clock              */
} dev_verdict;

typedef struct dev_proof {
    const char *name;           /* "long loop"                                  */
    const char *checks;         /* "a loop of 200,003 turns"                    */
    dev_verdict verdict;
    char found[512];            /* "a loop of 200003 turns ended after 65535"; "" if it holds */
} dev_proof;

/* Opens a device without asking it anything, to look at it. */
gt_status dev_open_unproven(dev_device **out, const char *spec);
/* Asks everything anew, and tells the answers one by one. A failure is one to ask at all. */
gt_status dev_prove(dev_device *d, void (*each)(void *context, const dev_proof *proof), void *context);
/* GT_OK, or the sentence with which dev_open() refuses it, found out now if it is not known. */
gt_status dev_usable(const dev_info *i);

/* ---- memory --------------------------------------------------------------------------- */

/* `what` names it in errors ("gradients"). Contents are undefined. */
gt_status dev_buffer_create(dev_buffer **out, dev_device *d, uint64_t bytes, const char *what);
/* The same, all zero for whatever is queued afterwards: without a touch where memory comes from the system
 * as zeros, else the device fills it. */
gt_status dev_buffer_create_zero(dev_buffer **out, dev_device *d, uint64_t bytes, const char *what);
/* A buffer in memory of the caller, page-aligned and until the buffer is released: only where
 * dev_info.native_kernels, whose devices compute in host memory. */
gt_status dev_buffer_create_in(dev_buffer **out, dev_device *d, void *host, uint64_t bytes, const char *what);
/* The same in memory that somebody else lends, which is not counted as the device's. */
gt_status dev_buffer_create_lent(dev_buffer **out, dev_device *d, void *host, uint64_t bytes, const char *what);
/* Where the device computes in host memory: its address, so that nothing need be copied. What an event
 * says is done stands there, and what is put there is seen by work queued afterwards. Else NULL. */
void *dev_buffer_host(const dev_buffer *b);
/* A part of a buffer, [offset, offset + bytes), as a buffer; offset a multiple of
 * dev_info.align. The root must outlive it. A view of a view is a view of the root. */
gt_status dev_buffer_view(dev_buffer **out, dev_buffer *root, uint64_t offset, uint64_t bytes);
/* A buffer that stands for others, as large as `first` and one at a time, beginning with `first`: lists that were made
 * with it or with views of it, and copies, go to the one that it stands for when they are queued. Those must
 * outlive it. Views of it are released before it. */
gt_status dev_window_create(dev_buffer **out, dev_buffer *first);
gt_status dev_window_set(dev_buffer *window, dev_buffer *of);
void dev_buffer_release(dev_buffer *b);        /* takes NULL */
uint64_t dev_buffer_bytes(const dev_buffer *b);

/* Large ones are copied by all cores where the device computes in host memory. */
gt_status dev_write(dev_device *d, dev_buffer *b, uint64_t offset, const void *from, uint64_t bytes);
gt_status dev_read(dev_device *d, dev_buffer *b, uint64_t offset, void *to, uint64_t bytes);
/* As dev_write/dev_read, but returns at once; the host memory must stay until the event.
 * *event is freed by dev_event_wait; pass NULL if dev_wait will follow anyway. */
gt_status dev_write_start(dev_device *d, dev_buffer *b, uint64_t offset, const void *from, uint64_t bytes,
                          dev_event **event);
gt_status dev_read_start(dev_device *d, dev_buffer *b, uint64_t offset, void *to, uint64_t bytes, dev_event **event);
/* An event of all that is queued so far. */
gt_status dev_mark(dev_device *d, dev_event **event);
gt_status dev_event_wait(dev_event *event);         /* takes NULL; frees it in any case */
/* Bytes that are worth a copy of their own where what is copied goes on to other ranks, or comes from them, meanwhile:
 * 1 MiB, or $GEARTRAIN_TRANSFER_PIECE; 0: nothing is, all is copied before any of it goes on. */
uint64_t dev_transfer_piece(const dev_device *d);

/* ---- programs -------------------------------------------------------------------------- */

/* Builds the concatenation of `sources` (texts; see cl/kernels.h) with `options` (-D...).
 * The style, vector width and storage macros of the device are added by this call; see
 * cl/common.clh. Built programs are kept in the cache folder under a hash of device,
 * driver, options and text; GEARTRAIN_PROGRAM_CACHE=on|off overrides. `name` is for errors. */
gt_status dev_program_build(dev_program **out, dev_device *d, const char *name, const char *const *sources, int count,
                            const char *options);
void dev_program_release(dev_program *p);      /* takes NULL */
dev_device *dev_program_device(dev_program *p);

/* A kernel file and the ways in which it is built. Each room with kernels has a table of these; its
 * launchers build from it, and tests go through it with the compilers of devices that are not here. */
enum {
    DEV_FOR_ALL = 1,            /* tests show it to every chip, in fp32 or else in both other types;
                                   the rest to each vendor's first                     */
    DEV_CPU_ONLY = 2,           /* on CPUs only                                        */
    DEV_16BIT_ONLY = 4,         /* for 16-bit storage only                             */
    DEV_NOT_INTEL = 8           /* not on Intel's GPUs                                 */
};
typedef struct dev_variant {
    const char *options;
    unsigned flags;
} dev_variant;
typedef struct dev_family {
    const char *file;           /* of cl/                                              */
    int stored;                 /* 1: built once for each storage type, with -DSTORE   */
    const char *intel;          /* more options on Intel's GPUs; NULL: none            */
    const dev_variant *variants;    /* a { 0 } behind the last                         */
} dev_family;
/* One without options of its own, as tests show it to every chip, or to each vendor's first. */
extern const dev_variant dev_plain_for_all[], dev_plain[];
/* options: of one variant; storage is not looked at unless the family is `stored`. */
gt_status dev_family_build(dev_program **out, dev_device *d, const dev_family *f, dtype storage, const char *options);
/* -DSTORE=... of a storage type. */
const char *dev_store_option(dtype storage);
/* The families of this room, 0, 1, ...; NULL after the last. */
const dev_family *dev_family_at(int i);

/* ---- launch lists ----------------------------------------------------------------------- */

typedef struct dev_arg {
    enum { DEV_ARG_BUFFER, DEV_ARG_VALUE, DEV_ARG_LOCAL } type;
    dev_buffer *buffer;         /* BUFFER; NULL passes a null pointer          */
    size_t size;                /* VALUE: of value; LOCAL: bytes               */
    union {
        int32_t i32;
        uint32_t u32;
        float f32;
        uint64_t u64;
        unsigned char bytes[16];
    } value;
} dev_arg;

static inline dev_arg dev_arg_buffer(dev_buffer *b)
{
    return (dev_arg){ .type = DEV_ARG_BUFFER, .buffer = b };
}
static inline dev_arg dev_arg_i32(int32_t x)
{
    return (dev_arg){ .type = DEV_ARG_VALUE, .size = 4, .value = { .i32 = x } };
}
static inline dev_arg dev_arg_u32(uint32_t x)
{
    return (dev_arg){ .type = DEV_ARG_VALUE, .size = 4, .value = { .u32 = x } };
}
static inline dev_arg dev_arg_f32(float x)
{
    return (dev_arg){ .type = DEV_ARG_VALUE, .size = 4, .value = { .f32 = x } };
}
static inline dev_arg dev_arg_u64(uint64_t x)
{
    return (dev_arg){ .type = DEV_ARG_VALUE, .size = 8, .value = { .u64 = x } };
}
static inline dev_arg dev_arg_local(size_t bytes)
{
    return (dev_arg){ .type = DEV_ARG_LOCAL, .size = bytes };
}

/* Work-items in all, and a work-group; global is rounded up to a multiple of local here,
 * so kernels guard their edges. */
typedef struct dev_grid {
    int rank;
    size_t global[3], local[3];
} dev_grid;

static inline dev_grid dev_grid_1d(size_t global, size_t local)
{
    return (dev_grid){ 1, { global, 1, 1 }, { local, 1, 1 } };
}
static inline dev_grid dev_grid_2d(size_t g0, size_t g1, size_t l0, size_t l1)
{
    return (dev_grid){ 2, { g0, g1, 1 }, { l0, l1, 1 } };
}

gt_status dev_list_create(dev_list **out, dev_device *d);
void dev_list_release(dev_list *l);            /* takes NULL */
int dev_list_count(const dev_list *l);

/* The label is copied onto every launch appended after it: "h.3.attn forward". */
void dev_list_label(dev_list *l, const char *label);
const char *dev_list_label_of(const dev_list *l, int index);
const char *dev_list_name_of(const dev_list *l, int index);     /* kernel or function name */

/* Append one launch. A grid with a zero dimension appends a launch that does nothing. */
gt_status dev_list_kernel(dev_list *l, dev_program *p, const char *kernel, dev_grid grid, const dev_arg *args,
                          int count);
/* Calls run(payload, pointers) on the device's host thread with `buffers` as pointers;
 * only where dev_info.native_kernels. The payload is copied. */
typedef void (*dev_native)(const void *payload, void *const *pointers);
gt_status dev_list_native(dev_list *l, const char *name, dev_native run, const void *payload, size_t payload_bytes,
                          dev_buffer *const *buffers, int count);
/* Calls enqueue(context, queue, event) while the list is run, for libraries that enqueue
 * by themselves; queue is a cl_command_queue and event a cl_event * or NULL. The list
 * frees context with release (may be NULL). */
typedef gt_status (*dev_enqueue)(void *context, void *queue, void *event);
gt_status dev_list_call(dev_list *l, const char *name, dev_enqueue enqueue, void *context,
                        void (*release)(void *context));
/* bytes must be a multiple of 4; offsets too. */
gt_status dev_list_fill(dev_list *l, dev_buffer *b, uint64_t offset, uint32_t pattern, uint64_t bytes);
gt_status dev_list_copy(dev_list *l, dev_buffer *to, uint64_t to_offset, dev_buffer *from, uint64_t from_offset,
                        uint64_t bytes);

/* Changes one value argument of launch `index` for all later runs; of a native call, what lies `arg` bytes into
 * its payload. */
gt_status dev_list_set(dev_list *l, int index, int arg, dev_arg value);

/* Enqueues launches [from, to); to < 0 means all. Returns as soon as they are queued, and the device
 * is at most some tenths of a second behind. */
gt_status dev_run(dev_list *l, int from, int to);
/* The same, but GT_INTERRUPTED, with some of them queued, once gt_stop_asked() (host/base/activity.h). */
gt_status dev_run_stoppable(dev_list *l, int from, int to);

/* Runs launches [from, to) once (to < 0: all the rest), waiting for each, and adds each launch's
 * device time in seconds to seconds[index] (an entry for each of the list). */
gt_status dev_run_timed(dev_list *l, int from, int to, double *seconds);

/* Device seconds spent in kernels since the device was opened; only counted after
 * dev_busy_count(d, 1), which makes every launch carry an event. */
void dev_busy_count(dev_device *d, int on);
double dev_busy_seconds(dev_device *d);             /* waits for the work in flight */

/* ---- for rooms that may include CL/cl.h ------------------------------------------------ */
void *dev_cl_device(dev_device *d);
void *dev_cl_context(dev_device *d);
void *dev_cl_queue(dev_device *d);
/* The cl_mem of the whole allocation a buffer lies in, and its offset there in bytes. */
void *dev_cl_root(dev_buffer *b, uint64_t *offset);
void *dev_cl_mem(dev_buffer *b);

#endif
