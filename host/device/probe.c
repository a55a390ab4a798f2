/* SPDX-License-Identifier: MIT */
/* host/device/probe.c - matrix units, found by using them.
 *
 * AMD's and NVIDIA's OpenCL name no extension for their matrix units, and an extension of Intel's
 * may promise what a compiler does not do, so a tiny product is built and run (cl/matrix_probe.cl).
 * A driver that cannot build it has none for us, and that is an answer, not a failure.   */
#include "host/device/device_private.h"

#include "host/base/log.h"

enum { LANES = 64 };

const dev_family dev_probe_family = { .file = "matrix_probe.cl", .variants = dev_plain_for_all };

static gt_status run_probe(dev_device *d, float result[LANES])
{
    dev_program *p = NULL;
    dev_buffer *b = NULL;
    dev_list *l = NULL;
    gt_status st = dev_family_build(&p, d, &dev_probe_family, DTYPE_F32, "");
    if (!st)
        st = dev_buffer_create(&b, d, sizeof(float) * LANES, "the matrix probe");
    if (!st)
        st = dev_list_create(&l, d);
    const dev_arg arg = dev_arg_buffer(b);
    if (!st)
        st = dev_list_kernel(l, p, "matrix_probe", dev_grid_1d(LANES, LANES), &arg, 1);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(d, b, 0, result, sizeof(float) * LANES);
    dev_list_release(l);
    dev_buffer_release(b);
    dev_program_release(p);
    return st;
}

int dev_matrix_units(dev_device *d)
{
    float result[LANES] = { 0 };
    cl_uint major = 0;
    if (d->probed || d->info.kind == DEV_CPU)
        return d->info.matrix;
    d->probed = 1;
    d->info.matrix = DEV_MATRIX_NONE;
    if (run_probe(d, result)) {
        gt_log(GT_LOG_INFO, "device", "%s: no matrix units: %s", d->info.id, gt_message());
        gt_message_clear();
        return d->info.matrix;
    }
    for (int i = 0; i < LANES; i++)
        if (result[i] != 16.0f)
            return d->info.matrix;
    /* Only NVIDIA's driver knows this query, so it tells whose units they are. */
    const int nv = clGetDeviceInfo(d->id, NV_COMPUTE_CAPABILITY_MAJOR, sizeof major, &major, NULL) == CL_SUCCESS;
    d->info.matrix = d->info.xmx_lanes ? DEV_MATRIX_INTEL : nv ? DEV_MATRIX_NV : DEV_MATRIX_AMD;
    return d->info.matrix;
}
