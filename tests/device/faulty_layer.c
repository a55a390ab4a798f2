/* SPDX-License-Identifier: MIT */
/* tests/device/faulty_layer.c - an OpenCL runtime that answers wrongly without an error, is slow or gives up, for tests.
 *
 * A layer between the loader and the driver (OPENCL_LAYERS, libOpenCL(7)). $GT_FAULT names what
 * goes wrong, separated by commas; without it everything passes through:
 *   loops    a loop that counts k up to n ends after 65,535 turns
 *   stamps   every event was queued at 0, submitted at 1, began at 2 and ended at 3 ns
 *   late     an event lasted ten times as long as it did
 *   fills    filling a buffer does nothing
 *   tiles    the tiled GEMM engine forgets all but the first 7 rows of a panel of B
 *   slow     a copy that nobody waits for at once begins 20 ms late
 *   drip     such a read begins 5 ms after the one before it
 *   turns    such a read begins when as many such writes have been started as reads before it
 *   apart    no native kernels run, as on a device with memory of its own; apart0, apart1: on that rank's alone
 * and, in rank $GT_FAULT_RANK if that is set, at the $GT_FAULT_AT-th launch of a kernel [1] or after it:
 *   lost     the device is gone: what is queued fails, from then on and for ever
 *   fault    a kernel runs into a fault: the launch is taken, what waits for anything is told
 *   memory   the driver finds no memory for the launch
 * or at the $GT_FAULT_AT-th read that nobody waits for at once:
 *   torn     the device is gone when that has been queued
 *   killed   the process is                                                                */
#include <CL/cl.h>
#include <CL/cl_layer.h>

#include <stdatomic.h>
#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const cl_icd_dispatch *below;
static cl_icd_dispatch ours;

static int fault(const char *name)
{
    const char *all = getenv("GT_FAULT");
    return all && strstr(all, name) != NULL;
}

/* `text` with every `from` made `to`, to be freed. */
static char *replaced(const char *text, const char *from, const char *to)
{
    size_t count = 0;
    for (const char *p = text; (p = strstr(p, from)); p += strlen(from))
        count++;
    char *out = calloc(1, strlen(text) + count * strlen(to) + 1);
    for (const char *p; out && (p = strstr(text, from)); text = p + strlen(from)) {
        strncat(out, text, (size_t)(p - text));
        strcat(out, to);
    }
    return out ? strcat(out, text) : NULL;
}

static CL_API_ENTRY cl_program CL_API_CALL create_program(cl_context context, cl_uint count, const char **texts,
                                                          const size_t *lengths, cl_int *err)
{
    const int loops = fault("loops");
    if (count != 1 || lengths || (!loops && !fault("tiles")))
        return below->clCreateProgramWithSource(context, count, texts, lengths, err);
    char *text = loops ? replaced(texts[0], "k < n; k++", "k < n && k < 65535u; k++")
                       : replaced(texts[0], "kk < depth; kk++", "kk < depth && kk < 7; kk++");
    const char *one = text ? text : texts[0];
    cl_program program = below->clCreateProgramWithSource(context, 1, &one, NULL, err);
    free(text);
    return program;
}

static CL_API_ENTRY cl_int CL_API_CALL profiling(cl_event event, cl_profiling_info what, size_t size, void *value,
                                                 size_t *size_out)
{
    const cl_int err = below->clGetEventProfilingInfo(event, what, size, value, size_out);
    if (err != CL_SUCCESS || !value || size < sizeof(cl_ulong))
        return err;
    if (fault("stamps"))
        *(cl_ulong *)value = what - CL_PROFILING_COMMAND_QUEUED;
    if (fault("late") && what == CL_PROFILING_COMMAND_END) {
        cl_ulong start = 0;
        below->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL);
        *(cl_ulong *)value = start + 10 * (*(cl_ulong *)value - start);
    }
    return err;
}

static CL_API_ENTRY cl_int CL_API_CALL fill(cl_command_queue queue, cl_mem memory, const void *pattern,
                                            size_t pattern_size, size_t offset, size_t size, cl_uint count,
                                            const cl_event *events, cl_event *event)
{
    return fault("fills")
               ? below->clEnqueueMarkerWithWaitList(queue, count, events, event)
               : below->clEnqueueFillBuffer(queue, memory, pattern, pattern_size, offset, size, count, events, event);
}

/* ---- a device that gives up ------------------------------------------------------------------------- */

static atomic_long launches, reads, writes; /* reads and writes: those that nobody waits for at once */

static int reached(const char *name, atomic_long *count)
{
    const char *at = getenv("GT_FAULT_AT"), *whose = getenv("GT_FAULT_RANK"), *mine = getenv("GEARTRAIN_RANK");
    if (whose && (!mine || strcmp(whose, mine)))
        return 0;
    return fault(name) && atomic_load(count) >= (at ? atol(at) : 1);
}

static int given_up(const char *name)
{
    return reached(name, &launches);
}

static cl_int told(void)
{
    return given_up("lost") || reached("torn", &reads) ? CL_DEVICE_NOT_AVAILABLE
           : given_up("fault")                         ? CL_OUT_OF_RESOURCES
                                                       : CL_SUCCESS;
}

static CL_API_ENTRY cl_int CL_API_CALL launch(cl_command_queue queue, cl_kernel kernel, cl_uint rank,
                                              const size_t *offset, const size_t *global, const size_t *local,
                                              cl_uint count, const cl_event *events, cl_event *event)
{
    atomic_fetch_add(&launches, 1);
    if (given_up("lost"))
        return CL_DEVICE_NOT_AVAILABLE;
    if (given_up("memory"))
        return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    return below->clEnqueueNDRangeKernel(queue, kernel, rank, offset, global, local, count, events, event);
}

static CL_API_ENTRY cl_int CL_API_CALL finish(cl_command_queue queue)
{
    const cl_int err = below->clFinish(queue);
    return told() ? told() : err;
}

static CL_API_ENTRY cl_int CL_API_CALL wait_for(cl_uint count, const cl_event *events)
{
    const cl_int err = below->clWaitForEvents(count, events);
    return told() ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : err;
}

/* ---- a device with memory of its own ------------------------------------------------------------------ */

static int is_apart(void)
{
    const char *all = getenv("GT_FAULT"), *at = all ? strstr(all, "apart") : NULL, *mine = getenv("GEARTRAIN_RANK");
    return at && (!isdigit((unsigned char)at[5]) || (mine && at[5] == mine[0]));
}

static CL_API_ENTRY cl_int CL_API_CALL device_info(cl_device_id device, cl_device_info what, size_t size, void *value,
                                                   size_t *size_out)
{
    const cl_int err = below->clGetDeviceInfo(device, what, size, value, size_out);
    if (err == CL_SUCCESS && value && what == CL_DEVICE_EXECUTION_CAPABILITIES && is_apart())
        *(cl_device_exec_capabilities *)value &= ~(cl_device_exec_capabilities)CL_EXEC_NATIVE_KERNEL;
    return err;
}

/* ---- copies that begin late --------------------------------------------------------------------------- */

typedef struct opening {
    cl_event event;
    long writes, late; /* opens after so many microseconds, and not before so many writes */
} opening;

static atomic_int hopeless;
static atomic_long last_drop; /* us, by the clock of drops */

/* Microseconds until the next drop falls: 5 ms after the one before it. */
static long until_drop(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const long now = t.tv_sec * 1000000 + t.tv_nsec / 1000;
    long before = atomic_load(&last_drop), at;
    do
        at = (before > now ? before : now) + 5000;
    while (!atomic_compare_exchange_weak(&last_drop, &before, at));
    return at - now;
}

/* Where too few writes come for a minute, a test has failed, and is to end. */
static void *let_go(void *context)
{
    const opening *g = context;
    usleep((useconds_t)g->late);
    for (int i = 0; i < 60000 && atomic_load(&writes) < g->writes && !atomic_load(&hopeless); i++)
        usleep(1000);
    if (atomic_load(&writes) < g->writes)
        atomic_store(&hopeless, 1);
    below->clSetUserEventStatus(g->event, CL_COMPLETE);
    below->clReleaseEvent(g->event);
    free(context);
    return NULL;
}

/* An event that is over when the gate opens; NULL if it cannot be made. */
static cl_event gate_of(cl_command_queue queue, long at, long late)
{
    cl_context context;
    cl_int err;
    pthread_t thread;
    opening *g = malloc(sizeof *g);
    below->clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, &context, NULL);
    cl_event event = below->clCreateUserEvent(context, &err);
    if (err != CL_SUCCESS || !g) {
        free(g);
        return NULL;
    }
    *g = (opening){ event, at, late };
    below->clRetainEvent(event);
    if (pthread_create(&thread, NULL, let_go, g)) {
        below->clSetUserEventStatus(event, CL_COMPLETE);
        below->clReleaseEvent(event);
        free(g);
    } else {
        pthread_detach(thread);
    }
    return event;
}

/* Waits for the events, and for the gate. */
static cl_int hold_back(cl_command_queue queue, long at, long late, cl_uint count, const cl_event *events)
{
    cl_event all[8], gate = gate_of(queue, at, late);
    if (!gate || count >= 8)
        return CL_OUT_OF_HOST_MEMORY;
    if (count)
        memcpy(all, events, count * sizeof *all);
    all[count] = gate;
    const cl_int err = below->clEnqueueBarrierWithWaitList(queue, count + 1, all, NULL);
    below->clReleaseEvent(gate);
    return err;
}

static CL_API_ENTRY cl_int CL_API_CALL read_buffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                                   size_t offset, size_t size, void *to, cl_uint count,
                                                   const cl_event *events, cl_event *event)
{
    if (told())
        return told();
    const long before = blocking ? 0 : atomic_fetch_add(&reads, 1);
    if (!blocking && reached("killed", &reads))
        kill(getpid(), SIGKILL);
    cl_int err = CL_SUCCESS;
    if (!blocking && fault("turns") && before)
        err = hold_back(queue, before, 0, count, events);
    else if (!blocking && fault("drip"))
        err = hold_back(queue, 0, until_drop(), count, events);
    else if (!blocking && fault("slow"))
        err = hold_back(queue, 0, 20000, count, events);
    return err ? err : below->clEnqueueReadBuffer(queue, memory, blocking, offset, size, to, count, events, event);
}

static CL_API_ENTRY cl_int CL_API_CALL write_buffer(cl_command_queue queue, cl_mem memory, cl_bool blocking,
                                                    size_t offset, size_t size, const void *from, cl_uint count,
                                                    const cl_event *events, cl_event *event)
{
    if (told())
        return told();
    if (!blocking)
        atomic_fetch_add(&writes, 1);
    const cl_int err = fault("slow") && !blocking ? hold_back(queue, 0, 20000, count, events) : CL_SUCCESS;
    return err ? err : below->clEnqueueWriteBuffer(queue, memory, blocking, offset, size, from, count, events, event);
}

CL_API_ENTRY cl_int CL_API_CALL clGetLayerInfo(cl_layer_info what, size_t size, void *value, size_t *size_out)
{
    const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
    if (what != CL_LAYER_API_VERSION || (value && size < sizeof version))
        return CL_INVALID_VALUE;
    if (value)
        memcpy(value, &version, sizeof version);
    if (size_out)
        *size_out = sizeof version;
    return CL_SUCCESS;
}

CL_API_ENTRY cl_int CL_API_CALL clInitLayer(cl_uint entries, const cl_icd_dispatch *target, cl_uint *entries_out,
                                            const cl_icd_dispatch **out)
{
    if (!target || !entries_out || !out || entries < sizeof ours / sizeof ours.clGetPlatformIDs)
        return CL_INVALID_VALUE;
    below = target;
    ours = *target;
    ours.clGetDeviceInfo = device_info;
    ours.clCreateProgramWithSource = create_program;
    ours.clGetEventProfilingInfo = profiling;
    ours.clEnqueueFillBuffer = fill;
    ours.clEnqueueNDRangeKernel = launch;
    ours.clFinish = finish;
    ours.clWaitForEvents = wait_for;
    ours.clEnqueueReadBuffer = read_buffer;
    ours.clEnqueueWriteBuffer = write_buffer;
    *entries_out = sizeof ours / sizeof ours.clGetPlatformIDs;
    *out = &ours;
    return CL_SUCCESS;
}
