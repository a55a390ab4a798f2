#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/oclgrind_switch.sh - Oclgrind takes the wrong case of a switch whose value was masked.
#
# One would guess: the simulator that is run to find a kernel's faults computes what the kernel says;
# `switch (i & 3u)` goes to one of four cases for any i.
# Seen with Oclgrind 21.10 (Debian 12): with the compiler's usual optimization work-items 4, 5, 6, 8, ...
# take the last case, as if the switch were on i; right with -cl-opt-disable. There is no message,
# and all calls return CL_SUCCESS. A kernel that fails only there may be right.
#
# Installs oclgrind and liboclgrind-21.10 with apt-get download into a temporary folder; what they
# depend on (libclang-cpp14 and its LLVM) and ocl-icd-opencl-dev must be installed. Exit 0 if it is as
# described, 1 if not, 77 if it cannot be tried.
set -u
version=21.10
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download oclgrind liboclgrind-$version > log 2>&1 || { cat log; exit 77; }
for deb in *.deb; do dpkg -x "$deb" root || exit 77; done

cat > switch.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <math.h>
#include <stdio.h>

enum { ITEMS = 32 };

static const char *text =
    "__kernel void pick(__global const float *in, __global float *out)\n"
    "{   const uint i = (uint)get_global_id(0);\n"
    "    const float x = in[i];\n"
    "    switch (i & 3u) {\n"
    "    case 0:  out[i] = exp(x); break;\n"
    "    case 1:  out[i] = log(x); break;\n"
    "    case 2:  out[i] = sqrt(x); break;\n"
    "    default: out[i] = x * x; break;\n"
    "    } }\n";

static double wanted(int i, double x)
{
    return i % 4 == 0 ? exp(x) : i % 4 == 1 ? log(x) : i % 4 == 2 ? sqrt(x) : x * x;
}

/* How many items are wrong with these options; -1: a call failed. */
static int wrong(cl_context context, cl_device_id device, cl_command_queue queue, const char *options)
{
    float in[ITEMS], out[ITEMS];
    const size_t items = ITEMS;
    int count = 0;
    cl_int err;
    for (int i = 0; i < ITEMS; i++)
        in[i] = 1.5f + 0.125f * (float)i;
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &err);
    if (err || clBuildProgram(program, 1, &device, options, NULL, NULL))
        return -1;
    cl_kernel kernel = clCreateKernel(program, "pick", &err);
    cl_mem from = clCreateBuffer(context, CL_MEM_COPY_HOST_PTR, sizeof in, in, &err);
    cl_mem to = clCreateBuffer(context, CL_MEM_READ_WRITE, sizeof out, NULL, &err);
    if (clSetKernelArg(kernel, 0, sizeof from, &from) || clSetKernelArg(kernel, 1, sizeof to, &to)
        || clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, NULL, 0, NULL, NULL)
        || clEnqueueReadBuffer(queue, to, CL_TRUE, 0, sizeof out, out, 0, NULL, NULL))
        return -1;
    printf("options \"%s\"\n", options);
    for (int i = 0; i < ITEMS; i++) {
        const double want = wanted(i, (double)in[i]);
        if (fabs((double)out[i] - want) <= 1e-4 * (1.0 + fabs(want)))
            continue;
        if (count++ < 3)
            printf("  item %d, case %d of %g: %g, not %g; the last case gives %g\n", i, i % 4,
                   (double)in[i], (double)out[i], want, (double)in[i] * (double)in[i]);
    }
    printf("  %d of %d items are wrong\n", count, ITEMS);
    return count;
}

int main(void)
{
    cl_platform_id platform;
    cl_device_id device;
    cl_int err;
    char name[128] = "", driver[64] = "";
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, NULL);
    clGetDeviceInfo(device, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
    printf("%s, driver %s\n", name, driver);
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &err);
    const int usual = wrong(context, device, queue, "");
    const int plain = wrong(context, device, queue, "-cl-opt-disable");
    if (usual < 0 || plain < 0)
        return 1;
    return usual > 0 && plain == 0 ? 0 : 1;
}
C
cc -o switch switch.c -lOpenCL -lm 2> log || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
echo "oclgrind $(dpkg-deb -f oclgrind_*.deb Version), described from $version"
LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu timeout 120 root/usr/bin/oclgrind ./switch
status=$?
case $status in
0)  echo "as described: wrong cases with the usual options, right without optimization" ;;
77) echo "cannot be tried here" ;;
*)  echo "NOT as described"; status=1 ;;
esac
exit $status
