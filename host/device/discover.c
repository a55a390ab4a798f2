/* SPDX-License-Identifier: MIT */
/* host/device/discover.c - every device of every OpenCL platform, and what it can do.
 *
 *   platform 0  AMD      gpu -> gpu:0 (0:0)
 *   platform 1  NVIDIA   gpu -> gpu:1 (1:0)
 *   platform 2  PoCL     cpu -> cpu:0 (2:0)
 *
 * Capabilities are asked for, one by one, never derived from a vendor's name: an old
 * driver may lack what its vendor is known for, and a new vendor may have it. The one
 * thing without a query, whether a driver caches programs itself, is told by extensions
 * and query tokens that only such drivers know.                                         */
#include "host/device/device_private.h"

#include "host/base/file.h"
#include "host/base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { SUB_GROUP_SIZES_INTEL = 0x4108 };        /* of cl_intel_required_subgroup_size */

static void ask_text(cl_device_id id, cl_device_info what, char *out, size_t size)
{
    char text[4096] = "";
    clGetDeviceInfo(id, what, sizeof text - 1, text, NULL);
    const char *start = text + strspn(text, " ");
    snprintf(out, size, "%s", start);
    for (size_t n = strlen(out); n && out[n - 1] == ' ';)
        out[--n] = '\0';
}

static uint64_t ask_u64(cl_device_id id, cl_device_info what)
{
    cl_ulong value = 0;
    clGetDeviceInfo(id, what, sizeof value, &value, NULL);
    return value;
}

static uint32_t ask_u32(cl_device_id id, cl_device_info what)
{
    cl_uint value = 0;
    clGetDeviceInfo(id, what, sizeof value, &value, NULL);
    return value;
}

/* A word among the space-separated extensions. */
static int has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
            return 1;
    return 0;
}

/* XMX multiplies by the smallest sub-groups a device has: of 8 work-items, or of 16. 0: neither. */
static int smallest_sub_group(cl_device_id id)
{
    size_t sizes[16], bytes = 0, smallest = 0;
    if (clGetDeviceInfo(id, SUB_GROUP_SIZES_INTEL, sizeof sizes, sizes, &bytes) != CL_SUCCESS)
        return 0;
    for (size_t i = 0; i < bytes / sizeof *sizes; i++)
        if (!smallest || sizes[i] < smallest)
            smallest = sizes[i];
    return smallest == 8 || smallest == 16 ? (int)smallest : 0;
}

void dev_describe(dev_info *info, cl_device_id id, cl_platform_id platform)
{
    char extensions[16384] = "";
    cl_device_type type = 0;
    size_t group = 0;

    clGetDeviceInfo(id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    info->kind = type & CL_DEVICE_TYPE_GPU ? DEV_GPU : type & CL_DEVICE_TYPE_CPU ? DEV_CPU : DEV_ACCELERATOR;
    info->style = info->kind == DEV_CPU ? DEV_STYLE_CPU : DEV_STYLE_GPU;
    ask_text(id, CL_DEVICE_NAME, info->name, sizeof info->name);
    ask_text(id, CL_DEVICE_VENDOR, info->vendor, sizeof info->vendor);
    ask_text(id, CL_DEVICE_VERSION, info->version, sizeof info->version);
    ask_text(id, CL_DEVICE_OPENCL_C_VERSION, info->c_version, sizeof info->c_version);
    ask_text(id, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
    clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof info->platform, info->platform, NULL);
    if (sscanf(info->version, "OpenCL %d.%d", &info->opencl_major, &info->opencl_minor) != 2)
        info->opencl_major = 1, info->opencl_minor = 0;

    info->compute_units = (int)ask_u32(id, CL_DEVICE_MAX_COMPUTE_UNITS);
    info->clock_mhz = (int)ask_u32(id, CL_DEVICE_MAX_CLOCK_FREQUENCY);
    info->global_bytes = ask_u64(id, CL_DEVICE_GLOBAL_MEM_SIZE);
    info->max_alloc_bytes = ask_u64(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    info->local_bytes = ask_u64(id, CL_DEVICE_LOCAL_MEM_SIZE);
    info->cache_bytes = ask_u64(id, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE);
    info->local_is_real = ask_u32(id, CL_DEVICE_LOCAL_MEM_TYPE) == CL_LOCAL;
    clGetDeviceInfo(id, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof group, &group, NULL);
    info->max_group = group ? group : 1;
    info->float_width = (int)ask_u32(id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    if (info->float_width < 1)
        info->float_width = 1;
    info->align = ask_u32(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8;
    if (info->align < 128)
        info->align = 128;                      /* a cache line or two, for every device */
    info->unified = (int)ask_u32(id, CL_DEVICE_HOST_UNIFIED_MEMORY);
    info->sub_devices_max = (int)ask_u32(id, CL_DEVICE_PARTITION_MAX_SUB_DEVICES);

    cl_device_exec_capabilities run = 0;
    clGetDeviceInfo(id, CL_DEVICE_EXECUTION_CAPABILITIES, sizeof run, &run, NULL);
    info->native_kernels = (run & CL_EXEC_NATIVE_KERNEL) != 0;
    cl_command_queue_properties queue = 0;
    clGetDeviceInfo(id, CL_DEVICE_QUEUE_PROPERTIES, sizeof queue, &queue, NULL);
    info->out_of_order = (queue & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
    info->svm = (int)ask_u64(id, 0x1053 /* CL_DEVICE_SVM_CAPABILITIES, OpenCL 2.0 */);

    clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, sizeof extensions - 1, extensions, NULL);
    info->fp16 = has_word(extensions, "cl_khr_fp16");
    info->fp64 = has_word(extensions, "cl_khr_fp64");
    info->subgroups = has_word(extensions, "cl_khr_subgroups") || has_word(extensions, "cl_intel_subgroups")
                      || ask_u32(id, 0x105C /* CL_DEVICE_MAX_NUM_SUB_GROUPS */) > 0;
    if (has_word(extensions, "cl_intel_subgroup_matrix_multiply_accumulate"))
        info->xmx_lanes = smallest_sub_group(id);
    if (info->xmx_lanes)
        info->matrix |= DEV_MATRIX_INTEL;
    cl_uint major = 0;
    int nv = clGetDeviceInfo(id, NV_COMPUTE_CAPABILITY_MAJOR, sizeof major, &major, NULL) == CL_SUCCESS && major > 0;
    char all[16384] = "";
    clGetPlatformInfo(platform, CL_PLATFORM_EXTENSIONS, sizeof all - 1, all, NULL);
    info->own_cache = nv || has_word(all, "cl_pocl_content_size") || has_word(extensions, "cl_pocl_content_size");
}

static char pocl_trouble[512];

/* PoCL shows no device at all where it cannot make its cache folder, and does not say why. Its own
 * rule for where that is, before any driver is loaded. */
static void settle_pocl_cache(void)
{
    const char *own = getenv("POCL_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME"), *ours = getenv("GEARTRAIN_CACHE");
    char wanted[4096], *folder;
    if (own && *own)
        snprintf(wanted, sizeof wanted, "%s", own);
    else if (xdg && *xdg)
        snprintf(wanted, sizeof wanted, "%s/pocl/kcache", xdg);
    else if (home && *home)
        snprintf(wanted, sizeof wanted, "%s/.cache/pocl/kcache", home);
    else
        snprintf(wanted, sizeof wanted, "/tmp/pocl/kcache");
    const int named = (own && *own) || (ours && *ours);     /* setenv() may move what getenv() gave */
    if (gt_folder_writable(wanted))
        return;
    snprintf(pocl_trouble, sizeof pocl_trouble, "PoCL cannot write its cache folder '%.400s'", wanted);
    if (gt_cache_folder(&folder, "pocl")) {
        gt_message_clear();                     /* the driver fails as it does */
        return;
    }
    setenv("POCL_CACHE_DIR", folder, 1);
    /* A home that cannot be written was warned of already, unless our caches are not there. */
    gt_log(named ? GT_LOG_WARN : GT_LOG_INFO, "device",
           "%s; it gets '%s': "
           "name a folder in POCL_CACHE_DIR",
           pocl_trouble, folder);
    free(folder);
}

const char *dev_driver_trouble(void)
{
    return pocl_trouble;
}

/* The loader passes over drivers that it could not open, for whatever reason. */
static gt_status no_platform(void)
{
    enum { FEW_FILES = 64 };            /* a driver and its compiler open some dozens */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FEW_FILES)
        return gt_fail(GT_NOT_FOUND,
                       "cannot find any OpenCL platform; this shell allows %llu open files, "
                       "too few to load a driver: raise it with `ulimit -n`",
                       (unsigned long long)files.rlim_cur);
    return gt_fail(GT_NOT_FOUND, "cannot find any OpenCL platform; install a driver "
                                 "(pocl-opencl-icd runs on every CPU) or ask `geartrain doctor`");
}

static gt_status discover(found **out, int *count)
{
    cl_platform_id platforms[64];
    cl_uint n = 0;
    int total = 0, of_kind[3] = { 0, 0, 0 };

    *out = NULL;
    *count = 0;
    cl_int err = clGetPlatformIDs(64, platforms, &n);
    if (err != CL_SUCCESS || n == 0)
        return no_platform();
    for (cl_uint p = 0; p < n && p < 64; p++) {
        cl_device_id ids[64];
        cl_uint devices = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 64, ids, &devices) != CL_SUCCESS)
            continue;
        if (devices > 64)
            devices = 64;
        found *more = realloc(*out, (size_t)(total + (int)devices) * sizeof **out);
        if (!more) {
            free(*out);
            *out = NULL;
            return gt_fail(GT_NO_MEMORY, "cannot list OpenCL devices: no memory for %u more", devices);
        }
        *out = more;
        for (cl_uint i = 0; i < devices; i++) {
            static const char *const kinds[] = { "cpu", "gpu", "acc" };
            found *f = &more[total++];
            memset(f, 0, sizeof *f);
            f->id = ids[i];
            dev_describe(&f->info, ids[i], platforms[p]);
            snprintf(f->info.path, sizeof f->info.path, "%u:%u", p, i);
            snprintf(f->info.id, sizeof f->info.id, "%s:%d", kinds[f->info.kind], of_kind[f->info.kind]++);
        }
    }
    if (!total) {
        free(*out);
        *out = NULL;
        return gt_fail(GT_NOT_FOUND,
                       "cannot find any OpenCL device: %u platform%s, none with a "
                       "usable device; `geartrain doctor` says why",
                       n, n == 1 ? "" : "s");
    }
    *count = total;
    return GT_OK;
}

/* One thread at a time: drivers set themselves up in the first of these calls, and PoCL 3.1 finds
 * no device, or crashes, where two threads come first together. */
gt_status dev_discover(found **out, int *count)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int settled;
    pthread_mutex_lock(&lock);
    if (!settled++)
        settle_pocl_cache();
    gt_status st = discover(out, count);
    pthread_mutex_unlock(&lock);
    return st;
}

gt_status dev_find(dev_info **out, int *count)
{
    found *all;
    *out = NULL;
    gt_status st = dev_discover(&all, count);
    if (st)
        return st;
    *out = malloc((size_t)*count * sizeof **out);
    if (!*out)
        st = gt_fail(GT_NO_MEMORY, "cannot list OpenCL devices: no memory for %d descriptions", *count);
    for (int i = 0; !st && i < *count; i++)
        (*out)[i] = all[i].info;
    free(all);
    return st;
}

const char *cl_error_name(cl_int error)
{
    static const struct {
        cl_int code;
        const char *name;
    } names[] = {
        { CL_DEVICE_NOT_FOUND, "CL_DEVICE_NOT_FOUND" },
        { CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE" },
        { CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE" },
        { CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE" },
        { CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES" },
        { CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY" },
        { CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE" },
        { CL_MISALIGNED_SUB_BUFFER_OFFSET, "CL_MISALIGNED_SUB_BUFFER_OFFSET" },
        { CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST" },
        { CL_DEVICE_PARTITION_FAILED, "CL_DEVICE_PARTITION_FAILED" },
        { CL_INVALID_VALUE, "CL_INVALID_VALUE" },
        { CL_INVALID_DEVICE, "CL_INVALID_DEVICE" },
        { CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT" },
        { CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE" },
        { CL_INVALID_MEM_OBJECT, "CL_INVALID_MEM_OBJECT" },
        { CL_INVALID_BINARY, "CL_INVALID_BINARY" },
        { CL_INVALID_BUILD_OPTIONS, "CL_INVALID_BUILD_OPTIONS" },
        { CL_INVALID_PROGRAM_EXECUTABLE, "CL_INVALID_PROGRAM_EXECUTABLE" },
        { CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME" },
        { CL_INVALID_KERNEL, "CL_INVALID_KERNEL" },
        { CL_INVALID_ARG_INDEX, "CL_INVALID_ARG_INDEX" },
        { CL_INVALID_ARG_VALUE, "CL_INVALID_ARG_VALUE" },
        { CL_INVALID_ARG_SIZE, "CL_INVALID_ARG_SIZE" },
        { CL_INVALID_KERNEL_ARGS, "CL_INVALID_KERNEL_ARGS" },
        { CL_INVALID_WORK_DIMENSION, "CL_INVALID_WORK_DIMENSION" },
        { CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE" },
        { CL_INVALID_WORK_ITEM_SIZE, "CL_INVALID_WORK_ITEM_SIZE" },
        { CL_INVALID_EVENT, "CL_INVALID_EVENT" },
        { CL_INVALID_OPERATION, "CL_INVALID_OPERATION" },
        { CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE" },
        { CL_INVALID_GLOBAL_WORK_SIZE, "CL_INVALID_GLOBAL_WORK_SIZE" },
        { CL_INVALID_DEVICE_PARTITION_COUNT, "CL_INVALID_DEVICE_PARTITION_COUNT" },
    };
    static _Thread_local char unknown[32];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == error)
            return names[i].name;
    snprintf(unknown, sizeof unknown, "OpenCL error %d", error);
    return unknown;
}
