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
#include "tests/kernel/emulated/driver.h"

#include <stdlib.h>

static const chip chips[] = {
    { "gfx90a", 104, 1700 }, { "gfx942", 304, 2100 }, { "gfx1100", 48, 2500 }, { "gfx1201", 32, 2900 }
};

static struct _cl_platform_id platform = { &emu_dispatch };
static struct _cl_device_id devices[MAX_DEVICES];
static cl_uint device_count;

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
                devices[device_count++] = (struct _cl_device_id){ &emu_dispatch, &chips[i] };
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
    case CL_PLATFORM_PROFILE: return emu_give_text("FULL_PROFILE", room, out, needed);
    case CL_PLATFORM_VERSION: return emu_give_text("OpenCL 2.0 emulated", room, out, needed);
    case CL_PLATFORM_NAME: return emu_give_text("Geartrain's emulated GPUs", room, out, needed);
    case CL_PLATFORM_VENDOR: return emu_give_text("Geartrain", room, out, needed);
    case CL_PLATFORM_EXTENSIONS: return emu_give_text("cl_khr_icd", room, out, needed);
    case CL_PLATFORM_ICD_SUFFIX_KHR: return emu_give_text("GTE", room, out, needed);
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
    case CL_DEVICE_NAME: return emu_give_text(d->chip->name, room, out, needed);
    case CL_DEVICE_VENDOR: return emu_give_text("Advanced Micro Devices, Inc. (emulated)", room, out, needed);
    case CL_DEVICE_VERSION: return emu_give_text("OpenCL 2.0 emulated", room, out, needed);
    case CL_DEVICE_OPENCL_C_VERSION: return emu_give_text("OpenCL C 2.0", room, out, needed);
    case CL_DRIVER_VERSION: return emu_give_text("1", room, out, needed);
    case CL_DEVICE_PROFILE: return emu_give_text("FULL_PROFILE", room, out, needed);
    case CL_DEVICE_EXTENSIONS: return emu_give_text("cl_khr_fp16 cl_khr_fp64 cl_khr_subgroups", room, out, needed);
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
        return emu_give(&p, sizeof p, room, out, needed);
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
        return emu_give(most, sizeof most, room, out, needed);
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
    return kind == SMALL   ? emu_give(&small, sizeof small, room, out, needed)
           : kind == LARGE ? emu_give(&value, sizeof value, room, out, needed)
                           : emu_give(&size, sizeof size, room, out, needed);
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

/* ---- what the loader takes -------------------------------------------------------------------- */

cl_icd_dispatch emu_dispatch = {
    .clGetPlatformIDs = get_platforms,
    .clGetPlatformInfo = platform_info,
    .clGetDeviceIDs = get_devices,
    .clGetDeviceInfo = device_info,
    .clCreateSubDevices = no_sub_devices,
    .clRetainDevice = keep_device,
    .clReleaseDevice = keep_device,
    .clCreateContext = emu_create_context,
    .clRetainContext = emu_retain_context,
    .clReleaseContext = emu_drop_context,
    .clCreateCommandQueue = emu_create_queue,
    .clReleaseCommandQueue = emu_drop_queue,
    .clFlush = emu_nothing_waits,
    .clFinish = emu_nothing_waits,
    .clCreateBuffer = emu_create_buffer,
    .clCreateSubBuffer = emu_create_sub_buffer,
    .clRetainMemObject = emu_retain_buffer,
    .clReleaseMemObject = emu_drop_buffer,
    .clEnqueueReadBuffer = emu_read_buffer,
    .clEnqueueWriteBuffer = emu_write_buffer,
    .clEnqueueCopyBuffer = emu_copy_buffer,
    .clEnqueueFillBuffer = emu_fill_buffer,
    .clEnqueueMarkerWithWaitList = emu_enqueue_marker,
    .clEnqueueBarrierWithWaitList = emu_enqueue_marker,
    .clWaitForEvents = emu_wait_for_events,
    .clGetEventInfo = emu_event_info,
    .clGetEventProfilingInfo = emu_event_times,
    .clRetainEvent = emu_retain_event,
    .clReleaseEvent = emu_drop_event,
    .clCreateProgramWithSource = emu_program_of_source,
    .clCreateProgramWithBinary = emu_program_of_binary,
    .clRetainProgram = emu_retain_program,
    .clReleaseProgram = emu_drop_program,
    .clBuildProgram = emu_build_program,
    .clGetProgramInfo = emu_program_info,
    .clGetProgramBuildInfo = emu_program_build_info,
    .clCreateKernel = emu_create_kernel,
    .clReleaseKernel = emu_drop_kernel,
    .clSetKernelArg = emu_set_kernel_arg,
    .clEnqueueNDRangeKernel = emu_launch_kernel,
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
