/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/driver.h - what the files of the driver with emulated GPUs share.
 *
 *   driver.c            platform, devices, and the table that the loader takes
 *   driver_context.c    one process of the emulator a context, and how to talk with it
 *   driver_memory.c     buffers, events, copies
 *   driver_program.c    programs, kernels, launches                                     */
#ifndef TESTS_KERNEL_EMULATED_DRIVER_H
#define TESTS_KERNEL_EMULATED_DRIVER_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#define GLOBAL_BYTES ((cl_ulong)8 << 30)
#define PAGE ((size_t)4096)

enum { MAX_ARGS = 64, MAX_VALUE = 128, MAX_DEVICES = 16, SOCKET = 3, MEMORY = 4 };

struct _cl_platform_id {
    cl_icd_dispatch *dispatch;
};

typedef struct chip {
    const char *name;
    cl_uint units, clock_mhz;
} chip;

struct _cl_device_id {
    cl_icd_dispatch *dispatch;
    const chip *chip;
};

/* A live piece of the memory; the list is sorted by where it begins. */
typedef struct block {
    size_t at, size;
    struct block *next;
} block;

struct _cl_context {
    cl_icd_dispatch *dispatch;
    int references;
    cl_device_id device;
    pthread_mutex_t lock;       /* of all below, and of the talk with the emulator */
    pid_t emulator;
    FILE *to, *from;
    char *memory;
    block *blocks;
};

struct _cl_command_queue {
    cl_icd_dispatch *dispatch;
    int references;
    cl_context context;
};

struct _cl_mem {
    cl_icd_dispatch *dispatch;
    int references;
    cl_context context;
    cl_mem parent;
    size_t at, size;
};

struct _cl_program {
    cl_icd_dispatch *dispatch;
    int references;
    cl_context context;
    char *source, *log;
    unsigned char *binary;
    size_t binary_size;
    int number;                 /* by which the emulator knows it; -1: not built */
};

typedef struct argument {
    char kind;                  /* b buffer, l local memory, v value */
    int given;
    size_t size;
    unsigned char value[MAX_VALUE];
    cl_mem buffer;
} argument;

struct _cl_kernel {
    cl_icd_dispatch *dispatch;
    int references;
    cl_program program;
    char name[64];
    int count;
    size_t most_items, group[3];        /* group: zeros, or what the kernel was compiled for */
    argument args[MAX_ARGS];
};

struct _cl_event {
    cl_icd_dispatch *dispatch;
    int references;
    cl_int status;
    cl_ulong queued, started, ended;
};

extern cl_icd_dispatch emu_dispatch;

/* ---- help ----------------------------------------------------------------------------------- */

static inline cl_ulong emu_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (cl_ulong)t.tv_sec * 1000000000u + (cl_ulong)t.tv_nsec;
}

/* What every query ends with. */
static inline cl_int emu_give(const void *value, size_t size, size_t room, void *out, size_t *needed)
{
    if (needed)
        *needed = size;
    if (out && room < size)
        return CL_INVALID_VALUE;
    if (out)
        memcpy(out, value, size);
    return CL_SUCCESS;
}

static inline cl_int emu_give_text(const char *text, size_t room, void *out, size_t *needed)
{
    return emu_give(text, strlen(text) + 1, room, out, needed);
}

static inline void emu_set_error(cl_int *out, cl_int error)
{
    if (out)
        *out = error;
}

static inline int emu_more(int *references)
{
    return __atomic_add_fetch(references, 1, __ATOMIC_RELAXED);
}

static inline int emu_is_last(int *references)
{
    return __atomic_sub_fetch(references, 1, __ATOMIC_ACQ_REL) == 0;
}

/* ---- driver_context.c ------------------------------------------------------------------------- */

void emu_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Sends a line and what follows it, and reads a line back; lock held. Of "failed N" the N bytes behind
 * it go to *why, the caller's. 0: failed. */
int emu_ask(cl_context c, const char *line, const void *more_bytes, size_t size, char *answer, size_t room, char **why);

cl_context CL_API_CALL emu_create_context(
    const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
    void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error);
cl_command_queue CL_API_CALL emu_create_queue(cl_context c, cl_device_id d, cl_command_queue_properties properties,
                                              cl_int *error);
cl_int CL_API_CALL emu_drop_context(cl_context c);
cl_int CL_API_CALL emu_drop_queue(cl_command_queue q);
cl_int CL_API_CALL emu_nothing_waits(cl_command_queue q);
cl_int CL_API_CALL emu_retain_context(cl_context c);

/* ---- driver_memory.c ------------------------------------------------------------------------- */

/* An event of what is over, if one is asked for. */
cl_int emu_note(cl_event *out, cl_ulong queued, cl_ulong started);

cl_int CL_API_CALL emu_copy_buffer(cl_command_queue q, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                                   size_t size, cl_uint count, const cl_event *waits, cl_event *event);
cl_mem CL_API_CALL emu_create_buffer(cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *error);
cl_mem CL_API_CALL emu_create_sub_buffer(cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *info,
                                         cl_int *error);
cl_int CL_API_CALL emu_drop_buffer(cl_mem m);
cl_int CL_API_CALL emu_drop_event(cl_event e);
cl_int CL_API_CALL emu_enqueue_marker(cl_command_queue q, cl_uint count, const cl_event *waits, cl_event *event);
cl_int CL_API_CALL emu_event_info(cl_event e, cl_event_info what, size_t room, void *out, size_t *needed);
cl_int CL_API_CALL emu_event_times(cl_event e, cl_profiling_info what, size_t room, void *out, size_t *needed);
cl_int CL_API_CALL emu_fill_buffer(cl_command_queue q, cl_mem m, const void *pattern, size_t width, size_t offset,
                                   size_t size, cl_uint count, const cl_event *waits, cl_event *event);
cl_int CL_API_CALL emu_read_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size, void *to,
                                   cl_uint count, const cl_event *waits, cl_event *event);
cl_int CL_API_CALL emu_retain_buffer(cl_mem m);
cl_int CL_API_CALL emu_retain_event(cl_event e);
cl_int CL_API_CALL emu_wait_for_events(cl_uint count, const cl_event *events);
cl_int CL_API_CALL emu_write_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size,
                                    const void *from, cl_uint count, const cl_event *waits, cl_event *event);

/* ---- driver_program.c ------------------------------------------------------------------------ */

cl_int CL_API_CALL emu_build_program(cl_program p, cl_uint count, const cl_device_id *ids, const char *options,
                                     void(CL_CALLBACK *notify)(cl_program, void *), void *user);
cl_kernel CL_API_CALL emu_create_kernel(cl_program p, const char *name, cl_int *error);
cl_int CL_API_CALL emu_drop_kernel(cl_kernel k);
cl_int CL_API_CALL emu_drop_program(cl_program p);
cl_int CL_API_CALL emu_launch_kernel(cl_command_queue q, cl_kernel k, cl_uint rank, const size_t *offset,
                                     const size_t *global, const size_t *local, cl_uint count, const cl_event *waits,
                                     cl_event *event);
cl_int CL_API_CALL emu_program_build_info(cl_program p, cl_device_id d, cl_program_build_info what, size_t room,
                                          void *out, size_t *needed);
cl_int CL_API_CALL emu_program_info(cl_program p, cl_program_info what, size_t room, void *out, size_t *needed);
cl_program CL_API_CALL emu_program_of_binary(cl_context c, cl_uint count, const cl_device_id *ids, const size_t *sizes,
                                             const unsigned char **binaries, cl_int *status, cl_int *error);
cl_program CL_API_CALL emu_program_of_source(cl_context c, cl_uint count, const char **texts, const size_t *lengths,
                                             cl_int *error);
cl_int CL_API_CALL emu_retain_program(cl_program p);
cl_int CL_API_CALL emu_set_kernel_arg(cl_kernel k, cl_uint index, size_t size, const void *value);

#endif
