/* SPDX-License-Identifier: MIT */
/* tests/device/faulty_layer.c - an OpenCL runtime that answers wrongly without an error, for tests.
 *
 * A layer between the loader and the driver (OPENCL_LAYERS, libOpenCL(7)). $GT_FAULT names what
 * goes wrong, separated by commas; without it everything passes through:
 *   loops    a loop that counts k up to n ends after 65,535 turns
 *   stamps   every event was queued at 0, submitted at 1, began at 2 and ended at 3 ns
 *   late     an event lasted ten times as long as it did
 *   fills    filling a buffer does nothing
 *   tiles    the tiled GEMM engine forgets all but the first 7 rows of a panel of B      */
#include <CL/cl.h>
#include <CL/cl_layer.h>

#include <stdlib.h>
#include <string.h>

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
    ours.clCreateProgramWithSource = create_program;
    ours.clGetEventProfilingInfo = profiling;
    ours.clEnqueueFillBuffer = fill;
    *entries_out = sizeof ours / sizeof ours.clGetPlatformIDs;
    *out = &ours;
    return CL_SUCCESS;
}
