/* SPDX-License-Identifier: MIT */
/* tests/kernel/emulated/driver.c - an OpenCL driver for tests, whose GPUs are emulated.
 *
 *   program -> OpenCL's loader -> this library -> emulator.py -> clang, and the code of a GPU run by hand
 *
 * The loader finds it by OCL_ICD_VENDORS, as any driver. Discovery, limits, build options, programs
 * kept as binaries and what comes of a wrong launch are as on a GPU of the kind; a kernel is machine
 * code that clang made for it. emulated.sh sets all of this up.
 *
 *   GT_EMULATED_CHIPS    the devices, in this order: gfx1100,gfx942
 *   GT_EMULATED_PYTHON   the interpreter [python3]
 *   GT_EMULATED_SERVER   emulator.py
 *
 * One process of the emulator serves one context, from its creation on. A buffer is a piece of memory
 * that both have mapped, full of NaN when it is new. Every command is over when its call returns.     */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GLOBAL_BYTES ((cl_ulong)8 << 30)
#define PAGE ((size_t)4096)

enum { MAX_ARGS = 64, MAX_VALUE = 128, MAX_DEVICES = 16, SOCKET = 3, MEMORY = 4 };

extern char **environ;

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

static const chip chips[] = {
    { "gfx90a", 104, 1700 }, { "gfx942", 304, 2100 }, { "gfx1100", 48, 2500 }, { "gfx1201", 32, 2900 }
};

static cl_icd_dispatch dispatch;
static struct _cl_platform_id platform = { &dispatch };
static struct _cl_device_id devices[MAX_DEVICES];
static cl_uint device_count;

/* ---- help ----------------------------------------------------------------------------------- */

static cl_ulong now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (cl_ulong)t.tv_sec * 1000000000u + (cl_ulong)t.tv_nsec;
}

/* What every query ends with. */
static cl_int give(const void *value, size_t size, size_t room, void *out, size_t *needed)
{
    if (needed)
        *needed = size;
    if (out && room < size)
        return CL_INVALID_VALUE;
    if (out)
        memcpy(out, value, size);
    return CL_SUCCESS;
}

static cl_int give_text(const char *text, size_t room, void *out, size_t *needed)
{
    return give(text, strlen(text) + 1, room, out, needed);
}

static void set_error(cl_int *out, cl_int error)
{
    if (out)
        *out = error;
}

static int more(int *references)
{
    return __atomic_add_fetch(references, 1, __ATOMIC_RELAXED);
}

static int is_last(int *references)
{
    return __atomic_sub_fetch(references, 1, __ATOMIC_ACQ_REL) == 0;
}

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("emulated driver: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- platform and devices ------------------------------------------------------------------- */

static void find_devices(void)
{
    char list[256];
    const char *wanted = getenv("GT_EMULATED_CHIPS");
    snprintf(list, sizeof list, "%s", wanted ? wanted : "");
    char *rest = list;
    for (char *name; (name = strsep(&rest, ",")) && device_count < MAX_DEVICES;)
        for (size_t i = 0; i < sizeof chips / sizeof *chips; i++)
            if (!strcmp(name, chips[i].name))
                devices[device_count++] = (struct _cl_device_id){ &dispatch, &chips[i] };
}

static cl_int CL_API_CALL get_platforms(cl_uint room, cl_platform_id *out, cl_uint *count)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_devices);
    if (count)
        *count = 1;
    if (out && room)
        out[0] = &platform;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL platform_info(cl_platform_id p, cl_platform_info what, size_t room, void *out, size_t *needed)
{
    (void)p;
    switch (what) {
    case CL_PLATFORM_PROFILE: return give_text("FULL_PROFILE", room, out, needed);
    case CL_PLATFORM_VERSION: return give_text("OpenCL 2.0 emulated", room, out, needed);
    case CL_PLATFORM_NAME: return give_text("Geartrain's emulated GPUs", room, out, needed);
    case CL_PLATFORM_VENDOR: return give_text("Geartrain", room, out, needed);
    case CL_PLATFORM_EXTENSIONS: return give_text("cl_khr_icd", room, out, needed);
    case CL_PLATFORM_ICD_SUFFIX_KHR: return give_text("GTE", room, out, needed);
    default: return CL_INVALID_VALUE;
    }
}

static cl_int CL_API_CALL get_devices(cl_platform_id p, cl_device_type type, cl_uint room, cl_device_id *out,
                                      cl_uint *count)
{
    (void)p;
    if (!(type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_DEFAULT)) || !device_count)
        return CL_DEVICE_NOT_FOUND;
    if (count)
        *count = device_count;
    for (cl_uint i = 0; out && i < room && i < device_count; i++)
        out[i] = &devices[i];
    return CL_SUCCESS;
}

static cl_int device_text(cl_device_id d, cl_device_info what, size_t room, void *out, size_t *needed)
{
    switch (what) {
    case CL_DEVICE_NAME: return give_text(d->chip->name, room, out, needed);
    case CL_DEVICE_VENDOR: return give_text("Advanced Micro Devices, Inc. (emulated)", room, out, needed);
    case CL_DEVICE_VERSION: return give_text("OpenCL 2.0 emulated", room, out, needed);
    case CL_DEVICE_OPENCL_C_VERSION: return give_text("OpenCL C 2.0", room, out, needed);
    case CL_DRIVER_VERSION: return give_text("1", room, out, needed);
    case CL_DEVICE_PROFILE: return give_text("FULL_PROFILE", room, out, needed);
    case CL_DEVICE_EXTENSIONS: return give_text("cl_khr_fp16 cl_khr_fp64 cl_khr_subgroups", room, out, needed);
    default: return CL_INVALID_VALUE;
    }
}

static cl_int CL_API_CALL device_info(cl_device_id d, cl_device_info what, size_t room, void *out, size_t *needed)
{
    enum { SMALL, LARGE, SIZE } kind = SMALL;
    cl_ulong value = 0;
    switch (what) {
    case CL_DEVICE_TYPE: kind = LARGE, value = CL_DEVICE_TYPE_GPU; break;
    case CL_DEVICE_PLATFORM: {
        cl_platform_id p = &platform;
        return give(&p, sizeof p, room, out, needed);
    }
    case CL_DEVICE_AVAILABLE:
    case CL_DEVICE_COMPILER_AVAILABLE: value = CL_TRUE; break;
    case CL_DEVICE_MAX_COMPUTE_UNITS: value = d->chip->units; break;
    case CL_DEVICE_MAX_CLOCK_FREQUENCY: value = d->chip->clock_mhz; break;
    case CL_DEVICE_GLOBAL_MEM_SIZE: kind = LARGE, value = GLOBAL_BYTES; break;
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE: kind = LARGE, value = GLOBAL_BYTES / 2; break;
    case CL_DEVICE_GLOBAL_MEM_CACHE_SIZE: kind = LARGE, value = 4u << 20; break;
    case CL_DEVICE_LOCAL_MEM_SIZE: kind = LARGE, value = 65536; break;
    case CL_DEVICE_LOCAL_MEM_TYPE: value = CL_LOCAL; break;
    case CL_DEVICE_MAX_WORK_GROUP_SIZE: kind = SIZE, value = 256; break;
    case CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS: value = 3; break;
    case CL_DEVICE_MAX_WORK_ITEM_SIZES: {
        const size_t most[3] = { 1024, 1024, 1024 };
        return give(most, sizeof most, room, out, needed);
    }
    case CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT: value = 1; break;
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN: value = 1024; break;
    case CL_DEVICE_ADDRESS_BITS: value = 64; break;
    case CL_DEVICE_HOST_UNIFIED_MEMORY: value = CL_FALSE; break;
    case CL_DEVICE_PARTITION_MAX_SUB_DEVICES: value = 0; break;
    case CL_DEVICE_EXECUTION_CAPABILITIES: kind = LARGE, value = CL_EXEC_KERNEL; break;
    case CL_DEVICE_QUEUE_PROPERTIES: kind = LARGE, value = CL_QUEUE_PROFILING_ENABLE; break;
    default: return device_text(d, what, room, out, needed);
    }
    const cl_uint small = (cl_uint)value;
    const size_t size = (size_t)value;
    return kind == SMALL   ? give(&small, sizeof small, room, out, needed)
           : kind == LARGE ? give(&value, sizeof value, room, out, needed)
                           : give(&size, sizeof size, room, out, needed);
}

static cl_int CL_API_CALL no_sub_devices(cl_device_id d, const cl_device_partition_property *how, cl_uint room,
                                         cl_device_id *out, cl_uint *count)
{
    (void)d, (void)how, (void)room, (void)out, (void)count;
    return CL_DEVICE_PARTITION_FAILED;
}

static cl_int CL_API_CALL keep_device(cl_device_id d)
{
    (void)d;
    return CL_SUCCESS;
}

/* ---- the emulator --------------------------------------------------------------------------- */

/* Where this library is: the emulator calls into it as well. */
static const char *own_path(void)
{
    Dl_info info;
    return dladdr((void *)&chips, &info) ? info.dli_fname : "";
}

static int start_emulator(cl_context c)
{
    const char *python = getenv("GT_EMULATED_PYTHON"), *server = getenv("GT_EMULATED_SERVER");
    int pair[2] = { -1, -1 };
    const int memory = memfd_create("emulated-gpu", MFD_CLOEXEC);
    if (!python)
        python = "python3";
    if (!server) {
        complain("GT_EMULATED_SERVER does not say where emulator.py is");
        return 0;
    }
    if (memory < 0 || ftruncate(memory, (off_t)GLOBAL_BYTES)
        || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        complain("no memory or socket for the emulator");
        return 0;
    }
    c->memory = mmap(NULL, GLOBAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    char *arguments[] = { (char *)(size_t)python, (char *)(size_t)server, (char *)(size_t)c->device->chip->name,
                          (char *)(size_t)own_path(), NULL };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    /* Out of the way first: either may have the other's number. */
    posix_spawn_file_actions_adddup2(&actions, pair[1], 100);
    posix_spawn_file_actions_adddup2(&actions, memory, 101);
    posix_spawn_file_actions_adddup2(&actions, 100, SOCKET);
    posix_spawn_file_actions_adddup2(&actions, 101, MEMORY);
    posix_spawn_file_actions_addclose(&actions, 100);
    posix_spawn_file_actions_addclose(&actions, 101);
    const int failed = posix_spawnp(&c->emulator, python, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    close(memory);
    c->from = fdopen(pair[0], "r");
    c->to = fdopen(fcntl(pair[0], F_DUPFD_CLOEXEC, 0), "w");
    if (failed || !c->from || !c->to || c->memory == MAP_FAILED) {
        complain("cannot start '%s': %s", python, strerror(failed));
        return 0;
    }
    char line[64];
    return fgets(line, sizeof line, c->from) && !strcmp(line, "ready\n");
}

static void stop_emulator(cl_context c)
{
    if (c->to)
        fclose(c->to);
    if (c->from)
        fclose(c->from);
    if (c->emulator > 0)
        waitpid(c->emulator, NULL, 0);
    if (c->memory && c->memory != MAP_FAILED)
        munmap(c->memory, GLOBAL_BYTES);
}

/* Sends a line and what follows it, and reads a line back; lock held. Of "failed N" the N bytes behind
 * it go to *why, the caller's. 0: failed. */
static int ask(cl_context c, const char *line, const void *more_bytes, size_t size, char *answer, size_t room,
               char **why)
{
    size_t length = 0;
    *why = NULL;
    fputs(line, c->to);
    if (size)
        fwrite(more_bytes, 1, size, c->to);
    if (fflush(c->to) || !fgets(answer, (int)room, c->from)) {
        *why = strdup("the emulator has ended");
        return 0;
    }
    if (sscanf(answer, "failed %zu", &length) != 1)
        return !strncmp(answer, "ok", 2);
    *why = calloc(1, length + 1);
    if (*why && fread(*why, 1, length, c->from) != length)
        (*why)[0] = '\0';
    return 0;
}

static void release_context(cl_context c)
{
    stop_emulator(c);
    while (c->blocks) {
        block *b = c->blocks;
        c->blocks = b->next;
        free(b);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static cl_context CL_API_CALL
create_context(const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
               void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error)
{
    (void)properties, (void)notify, (void)user;
    cl_context c = count == 1 ? calloc(1, sizeof *c) : NULL;
    set_error(error, CL_SUCCESS);
    if (!c) {
        set_error(error, count == 1 ? CL_OUT_OF_HOST_MEMORY : CL_INVALID_VALUE);
        return NULL;
    }
    c->dispatch = &dispatch;
    c->references = 1;
    c->device = ids[0];
    pthread_mutex_init(&c->lock, NULL);
    if (start_emulator(c))
        return c;
    release_context(c);
    set_error(error, CL_DEVICE_NOT_AVAILABLE);
    return NULL;
}

static cl_int CL_API_CALL retain_context(cl_context c)
{
    more(&c->references);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL drop_context(cl_context c)
{
    if (is_last(&c->references))
        release_context(c);
    return CL_SUCCESS;
}

static cl_command_queue CL_API_CALL create_queue(cl_context c, cl_device_id d, cl_command_queue_properties properties,
                                                 cl_int *error)
{
    (void)d;
    set_error(error, CL_SUCCESS);
    if (properties & ~(cl_command_queue_properties)CL_QUEUE_PROFILING_ENABLE) {
        set_error(error, CL_INVALID_QUEUE_PROPERTIES);
        return NULL;
    }
    cl_command_queue q = calloc(1, sizeof *q);
    if (!q) {
        set_error(error, CL_OUT_OF_HOST_MEMORY);
        return NULL;
    }
    *q = (struct _cl_command_queue){ .dispatch = &dispatch, .references = 1, .context = c };
    more(&c->references);
    return q;
}

static cl_int CL_API_CALL drop_queue(cl_command_queue q)
{
    if (is_last(&q->references)) {
        drop_context(q->context);
        free(q);
    }
    return CL_SUCCESS;
}

static cl_int CL_API_CALL nothing_waits(cl_command_queue q)
{
    (void)q;
    return CL_SUCCESS;
}

/* ---- memory --------------------------------------------------------------------------------- */

/* The first gap that holds so many bytes, and a page that belongs to nobody behind them. */
static block *take(cl_context c, size_t size)
{
    const size_t whole = (size + 2 * PAGE - 1) / PAGE * PAGE;
    block **link = &c->blocks;
    size_t at = PAGE;                           /* the first page is nobody's either: 0 is no address */
    for (; *link && (*link)->at - at < whole; link = &(*link)->next)
        at = (*link)->at + (*link)->size;
    block *b = whole > GLOBAL_BYTES - at ? NULL : calloc(1, sizeof *b);
    if (b) {
        *b = (block){ at, whole, *link };
        *link = b;
        memset(c->memory + at, 0xff, size);
    }
    return b;
}

static cl_mem CL_API_CALL create_buffer(cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *error)
{
    const cl_int wrong = !size || size > GLOBAL_BYTES / 2      ? CL_INVALID_BUFFER_SIZE
                         : flags & CL_MEM_USE_HOST_PTR || host ? CL_INVALID_HOST_PTR
                                                               : CL_SUCCESS;
    cl_mem m = wrong ? NULL : calloc(1, sizeof *m);
    set_error(error, wrong ? wrong : CL_SUCCESS);
    if (wrong)
        return NULL;
    pthread_mutex_lock(&c->lock);
    block *b = m ? take(c, size) : NULL;
    pthread_mutex_unlock(&c->lock);
    if (!b) {
        set_error(error, CL_MEM_OBJECT_ALLOCATION_FAILURE);
        free(m);
        return NULL;
    }
    *m = (struct _cl_mem){ .dispatch = &dispatch, .references = 1, .context = c, .at = b->at, .size = size };
    more(&c->references);
    return m;
}

static cl_int CL_API_CALL retain_buffer(cl_mem m)
{
    more(&m->references);
    return CL_SUCCESS;
}

static cl_mem CL_API_CALL create_sub_buffer(cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *info,
                                            cl_int *error)
{
    (void)flags;
    const cl_buffer_region *r = info;
    const cl_int wrong = m->parent || type != CL_BUFFER_CREATE_TYPE_REGION || !r->size || r->origin > m->size
                                 || r->size > m->size - r->origin
                             ? CL_INVALID_VALUE
                         : r->origin % 128 ? CL_MISALIGNED_SUB_BUFFER_OFFSET
                                           : CL_SUCCESS;
    cl_mem s = wrong ? NULL : calloc(1, sizeof *s);
    set_error(error, wrong ? wrong : s ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (!s)
        return NULL;
    *s = (struct _cl_mem){ &dispatch, 1, m->context, m, m->at + r->origin, r->size };
    retain_buffer(m);
    return s;
}

static cl_int CL_API_CALL drop_buffer(cl_mem m)
{
    if (!is_last(&m->references))
        return CL_SUCCESS;
    if (m->parent) {
        drop_buffer(m->parent);
        free(m);
        return CL_SUCCESS;
    }
    cl_context c = m->context;
    pthread_mutex_lock(&c->lock);
    block **link = &c->blocks;
    while ((*link)->at != m->at)
        link = &(*link)->next;
    block *b = *link;
    *link = b->next;
    madvise(c->memory + b->at, b->size, MADV_REMOVE);
    pthread_mutex_unlock(&c->lock);
    free(b);
    free(m);
    return drop_context(c);
}

/* ---- events --------------------------------------------------------------------------------- */

static cl_int note(cl_event *out, cl_ulong queued, cl_ulong started)
{
    if (!out)
        return CL_SUCCESS;
    cl_event e = calloc(1, sizeof *e);
    if (!e)
        return CL_OUT_OF_HOST_MEMORY;
    *e = (struct _cl_event){ &dispatch, 1, CL_COMPLETE, queued, started, now_ns() };
    *out = e;
    return CL_SUCCESS;
}

static cl_int CL_API_CALL wait_for_events(cl_uint count, const cl_event *events)
{
    (void)events;
    return count ? CL_SUCCESS : CL_INVALID_VALUE;
}

static cl_int CL_API_CALL event_info(cl_event e, cl_event_info what, size_t room, void *out, size_t *needed)
{
    return what == CL_EVENT_COMMAND_EXECUTION_STATUS
               ? give(&e->status, sizeof e->status, room, out, needed)
               : CL_INVALID_VALUE;
}

static cl_int CL_API_CALL event_times(cl_event e, cl_profiling_info what, size_t room, void *out, size_t *needed)
{
    switch (what) {
    case CL_PROFILING_COMMAND_QUEUED:
    case CL_PROFILING_COMMAND_SUBMIT: return give(&e->queued, sizeof e->queued, room, out, needed);
    case CL_PROFILING_COMMAND_START: return give(&e->started, sizeof e->started, room, out, needed);
    case CL_PROFILING_COMMAND_END: return give(&e->ended, sizeof e->ended, room, out, needed);
    default: return CL_INVALID_VALUE;
    }
}

static cl_int CL_API_CALL retain_event(cl_event e)
{
    more(&e->references);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL drop_event(cl_event e)
{
    if (is_last(&e->references))
        free(e);
    return CL_SUCCESS;
}

/* ---- commands on memory --------------------------------------------------------------------- */

static int inside(cl_mem m, size_t offset, size_t size)
{
    return offset <= m->size && size <= m->size - offset;
}

static cl_int CL_API_CALL read_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size,
                                      void *to, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)blocking, (void)count, (void)waits;
    const cl_ulong start = now_ns();
    if (!inside(m, offset, size) || !to)
        return CL_INVALID_VALUE;
    memcpy(to, q->context->memory + m->at + offset, size);
    return note(event, start, start);
}

static cl_int CL_API_CALL write_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t offset, size_t size,
                                       const void *from, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)blocking, (void)count, (void)waits;
    const cl_ulong start = now_ns();
    if (!inside(m, offset, size) || !from)
        return CL_INVALID_VALUE;
    memcpy(q->context->memory + m->at + offset, from, size);
    return note(event, start, start);
}

static cl_int CL_API_CALL copy_buffer(cl_command_queue q, cl_mem from, cl_mem to, size_t from_offset, size_t to_offset,
                                      size_t size, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)count, (void)waits;
    const cl_ulong start = now_ns();
    if (!inside(from, from_offset, size) || !inside(to, to_offset, size))
        return CL_INVALID_VALUE;
    memmove(q->context->memory + to->at + to_offset, q->context->memory + from->at + from_offset, size);
    return note(event, start, start);
}

static cl_int CL_API_CALL fill_buffer(cl_command_queue q, cl_mem m, const void *pattern, size_t width, size_t offset,
                                      size_t size, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)count, (void)waits;
    const cl_ulong start = now_ns();
    if (!inside(m, offset, size) || !width || size % width || offset % width)
        return CL_INVALID_VALUE;
    for (size_t i = 0; i < size; i += width)
        memcpy(q->context->memory + m->at + offset + i, pattern, width);
    return note(event, start, start);
}

static cl_int CL_API_CALL enqueue_marker(cl_command_queue q, cl_uint count, const cl_event *waits, cl_event *event)
{
    (void)q, (void)count, (void)waits;
    const cl_ulong start = now_ns();
    return note(event, start, start);
}

/* ---- programs ------------------------------------------------------------------------------- */

static cl_program new_program(cl_context c, cl_int *error)
{
    cl_program p = calloc(1, sizeof *p);
    set_error(error, p ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (p) {
        *p = (struct _cl_program){ .dispatch = &dispatch, .references = 1, .context = c, .number = -1 };
        more(&c->references);
    }
    return p;
}

static cl_program CL_API_CALL program_of_source(cl_context c, cl_uint count, const char **texts, const size_t *lengths,
                                                cl_int *error)
{
    size_t size = 0;
    cl_program p = new_program(c, error);
    FILE *f = p ? open_memstream(&p->source, &size) : NULL;
    for (cl_uint i = 0; f && i < count; i++)
        fwrite(texts[i], 1, lengths && lengths[i] ? lengths[i] : strlen(texts[i]), f);
    if (f)
        fclose(f);
    return p;
}

static cl_program CL_API_CALL program_of_binary(cl_context c, cl_uint count, const cl_device_id *ids,
                                                const size_t *sizes, const unsigned char **binaries, cl_int *status,
                                                cl_int *error)
{
    (void)ids;
    cl_program p = count == 1 ? new_program(c, error) : NULL;
    if (p && (p->binary = malloc(sizes[0] ? sizes[0] : 1))) {
        memcpy(p->binary, binaries[0], sizes[0]);
        p->binary_size = sizes[0];
    }
    set_error(status, p ? CL_SUCCESS : CL_INVALID_BINARY);
    return p;
}

static cl_int CL_API_CALL retain_program(cl_program p)
{
    more(&p->references);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL drop_program(cl_program p)
{
    if (!is_last(&p->references))
        return CL_SUCCESS;
    cl_context c = p->context;
    free(p->source);
    free(p->log);
    free(p->binary);
    free(p);
    return drop_context(c);
}

/* Source is compiled, a binary taken as it is; either way the emulator has the program then. */
static cl_int CL_API_CALL build_program(cl_program p, cl_uint count, const cl_device_id *ids, const char *options,
                                        void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    (void)count, (void)ids, (void)notify, (void)user;
    cl_context c = p->context;
    char line[128], answer[128], *all = NULL;
    size_t size = 0;
    free(p->log);
    p->log = NULL;
    pthread_mutex_lock(&c->lock);
    int good;
    if (p->source) {
        FILE *f = open_memstream(&all, &size);
        if (f) {
            fprintf(f, "%s%s", options ? options : "", p->source);
            fclose(f);
        }
        snprintf(line, sizeof line, "build %zu %zu\n", options ? strlen(options) : (size_t)0, strlen(p->source));
        good = f && ask(c, line, all, size, answer, sizeof answer, &p->log)
               && sscanf(answer, "ok %d %zu", &p->number, &p->binary_size) == 2;
        free(p->binary);
        p->binary = good ? malloc(p->binary_size) : NULL;
        good = p->binary && fread(p->binary, 1, p->binary_size, c->from) == p->binary_size;
        free(all);
    } else {
        snprintf(line, sizeof line, "load %zu\n", p->binary_size);
        good = ask(c, line, p->binary, p->binary_size, answer, sizeof answer, &p->log)
               && sscanf(answer, "ok %d", &p->number) == 1;
    }
    pthread_mutex_unlock(&c->lock);
    return good ? CL_SUCCESS : CL_BUILD_PROGRAM_FAILURE;
}

static cl_int CL_API_CALL program_info(cl_program p, cl_program_info what, size_t room, void *out, size_t *needed)
{
    switch (what) {
    case CL_PROGRAM_BINARY_SIZES: return give(&p->binary_size, sizeof p->binary_size, room, out, needed);
    case CL_PROGRAM_BINARIES:
        if (out && *(unsigned char **)out)
            memcpy(*(unsigned char **)out, p->binary, p->binary_size);
        return CL_SUCCESS;
    default: return CL_INVALID_VALUE;
    }
}

static cl_int CL_API_CALL program_build_info(cl_program p, cl_device_id d, cl_program_build_info what, size_t room,
                                             void *out, size_t *needed)
{
    (void)d;
    return what == CL_PROGRAM_BUILD_LOG ? give_text(p->log ? p->log : "", room, out, needed) : CL_INVALID_VALUE;
}

/* ---- kernels -------------------------------------------------------------------------------- */

/* "ok MOST-ITEMS X Y Z COUNT" and for each argument "b", "l" or "vSIZE". */
static int read_kernel(cl_kernel k, char *answer)
{
    int from = 0;
    if (sscanf(answer, "ok %zu %zu %zu %zu %d%n", &k->most_items, &k->group[0], &k->group[1], &k->group[2], &k->count,
               &from)
            != 5
        || k->count > MAX_ARGS)
        return 0;
    char *rest = answer + from;
    for (int i = 0; i < k->count; i++) {
        int used = 0;
        if (sscanf(rest, " %c%n", &k->args[i].kind, &used) != 1)
            return 0;
        rest += used;
        if (k->args[i].kind == 'v')
            k->args[i].size = strtoul(rest, &rest, 10);
    }
    return 1;
}

static cl_kernel CL_API_CALL create_kernel(cl_program p, const char *name, cl_int *error)
{
    char line[128], answer[1024], *why;
    cl_kernel k = calloc(1, sizeof *k);
    set_error(error, k ? CL_SUCCESS : CL_OUT_OF_HOST_MEMORY);
    if (!k)
        return NULL;
    k->dispatch = &dispatch;
    k->references = 1;
    k->program = p;
    snprintf(k->name, sizeof k->name, "%s", name);
    snprintf(line, sizeof line, "kernel %d %s\n", p->number, k->name);
    pthread_mutex_lock(&p->context->lock);
    const int good = p->number >= 0 && ask(p->context, line, NULL, 0, answer, sizeof answer, &why)
                     && read_kernel(k, answer);
    pthread_mutex_unlock(&p->context->lock);
    if (good) {
        retain_program(p);
        return k;
    }
    set_error(error, p->number < 0 ? CL_INVALID_PROGRAM_EXECUTABLE : CL_INVALID_KERNEL_NAME);
    free(k);
    return NULL;
}

static cl_int CL_API_CALL drop_kernel(cl_kernel k)
{
    if (is_last(&k->references)) {
        drop_program(k->program);
        free(k);
    }
    return CL_SUCCESS;
}

static cl_int CL_API_CALL set_kernel_arg(cl_kernel k, cl_uint index, size_t size, const void *value)
{
    if (index >= (cl_uint)k->count)
        return CL_INVALID_ARG_INDEX;
    argument *a = &k->args[index];
    if (a->kind == 'l') {
        if (value || !size)
            return value ? CL_INVALID_ARG_VALUE : CL_INVALID_ARG_SIZE;
        a->size = size;
    } else if (a->kind == 'b') {
        if (size != sizeof a->buffer)
            return CL_INVALID_ARG_SIZE;
        a->buffer = value ? *(const cl_mem *)value : NULL;
    } else {
        if (size != a->size || size > MAX_VALUE)
            return CL_INVALID_ARG_SIZE;
        if (!value)
            return CL_INVALID_ARG_VALUE;
        memcpy(a->value, value, size);
    }
    a->given = 1;
    return CL_SUCCESS;
}

/* What a driver refuses before it runs anything. */
static cl_int check_launch(cl_kernel k, cl_uint rank, const size_t *offset, const size_t *global, const size_t *local)
{
    size_t items = 1;
    if (rank < 1 || rank > 3)
        return CL_INVALID_WORK_DIMENSION;
    if (offset || !local)
        return CL_INVALID_OPERATION;
    for (cl_uint i = 0; i < rank; i++) {
        if (!global[i])
            return CL_INVALID_GLOBAL_WORK_SIZE;
        if (!local[i] || global[i] % local[i] || (k->group[0] && local[i] != k->group[i]))
            return CL_INVALID_WORK_GROUP_SIZE;
        items *= local[i];
    }
    if (items > k->most_items)
        return CL_INVALID_WORK_GROUP_SIZE;
    for (int i = 0; i < k->count; i++)
        if (!k->args[i].given)
            return CL_INVALID_KERNEL_ARGS;
    return CL_SUCCESS;
}

static void write_argument(FILE *f, const argument *a)
{
    if (a->kind == 'l')
        fprintf(f, " l%zu", a->size);
    else if (a->kind == 'b' && a->buffer)
        fprintf(f, " b%zu", a->buffer->at);
    else if (a->kind == 'b')
        fputs(" n", f);
    else {
        fputs(" v", f);
        for (size_t i = 0; i < a->size; i++)
            fprintf(f, "%02x", a->value[i]);
    }
}

static cl_int CL_API_CALL launch_kernel(cl_command_queue q, cl_kernel k, cl_uint rank, const size_t *offset,
                                        const size_t *global, const size_t *local, cl_uint count, const cl_event *waits,
                                        cl_event *event)
{
    (void)count, (void)waits;
    cl_context c = q->context;
    const cl_ulong queued = now_ns();
    char *line = NULL, answer[256], *why = NULL;
    size_t size;
    const cl_int wrong = check_launch(k, rank, offset, global, local);
    FILE *f = wrong ? NULL : open_memstream(&line, &size);
    if (!f)
        return wrong ? wrong : CL_OUT_OF_HOST_MEMORY;
    fprintf(f, "launch %d %s", k->program->number, k->name);
    for (cl_uint i = 0; i < 3; i++)
        fprintf(f, " %zu", i < rank ? global[i] / local[i] : 1);
    for (cl_uint i = 0; i < 3; i++)
        fprintf(f, " %zu", i < rank ? local[i] : 1);
    for (int i = 0; i < k->count; i++)
        write_argument(f, &k->args[i]);
    fputc('\n', f);
    fclose(f);
    pthread_mutex_lock(&c->lock);
    const cl_ulong started = now_ns();
    const int good = ask(c, line, NULL, 0, answer, sizeof answer, &why);
    pthread_mutex_unlock(&c->lock);
    if (!good)
        complain("kernel %s on %s: %s", k->name, c->device->chip->name, why ? why : "no answer");
    free(why);
    free(line);
    return good ? note(event, queued, started) : CL_OUT_OF_RESOURCES;
}

/* ---- what the loader takes -------------------------------------------------------------------- */

static cl_icd_dispatch dispatch = {
    .clGetPlatformIDs = get_platforms,
    .clGetPlatformInfo = platform_info,
    .clGetDeviceIDs = get_devices,
    .clGetDeviceInfo = device_info,
    .clCreateSubDevices = no_sub_devices,
    .clRetainDevice = keep_device,
    .clReleaseDevice = keep_device,
    .clCreateContext = create_context,
    .clRetainContext = retain_context,
    .clReleaseContext = drop_context,
    .clCreateCommandQueue = create_queue,
    .clReleaseCommandQueue = drop_queue,
    .clFlush = nothing_waits,
    .clFinish = nothing_waits,
    .clCreateBuffer = create_buffer,
    .clCreateSubBuffer = create_sub_buffer,
    .clRetainMemObject = retain_buffer,
    .clReleaseMemObject = drop_buffer,
    .clEnqueueReadBuffer = read_buffer,
    .clEnqueueWriteBuffer = write_buffer,
    .clEnqueueCopyBuffer = copy_buffer,
    .clEnqueueFillBuffer = fill_buffer,
    .clEnqueueMarkerWithWaitList = enqueue_marker,
    .clWaitForEvents = wait_for_events,
    .clGetEventInfo = event_info,
    .clGetEventProfilingInfo = event_times,
    .clRetainEvent = retain_event,
    .clReleaseEvent = drop_event,
    .clCreateProgramWithSource = program_of_source,
    .clCreateProgramWithBinary = program_of_binary,
    .clRetainProgram = retain_program,
    .clReleaseProgram = drop_program,
    .clBuildProgram = build_program,
    .clGetProgramInfo = program_info,
    .clGetProgramBuildInfo = program_build_info,
    .clCreateKernel = create_kernel,
    .clReleaseKernel = drop_kernel,
    .clSetKernelArg = set_kernel_arg,
    .clEnqueueNDRangeKernel = launch_kernel,
};

cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *out, cl_uint *count);
cl_int CL_API_CALL clIcdGetPlatformIDsKHR(cl_uint room, cl_platform_id *out, cl_uint *count)
{
    return get_platforms(room, out, count);
}

/* The loader asks for these two by name before it has the table. */
CL_API_ENTRY void *CL_API_CALL clGetExtensionFunctionAddress(const char *name)
{
    union {
        cl_int(CL_API_CALL *ids)(cl_uint, cl_platform_id *, cl_uint *);
        cl_int(CL_API_CALL *info)(cl_platform_id, cl_platform_info, size_t, void *, size_t *);
        void *pointer;
    } u = { NULL };
    if (!strcmp(name, "clIcdGetPlatformIDsKHR"))
        u.ids = clIcdGetPlatformIDsKHR;
    else if (!strcmp(name, "clGetPlatformInfo"))
        u.info = platform_info;
    return u.pointer;
}
