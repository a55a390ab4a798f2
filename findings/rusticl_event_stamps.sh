#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/rusticl_event_stamps.sh - Mesa's rusticl on llvmpipe stamps every event 0, 1, 2, 3 ns.
#
# One would guess: on a queue with CL_QUEUE_PROFILING_ENABLE, CL_PROFILING_COMMAND_END less START is
# how long a command took; a driver that cannot tell returns CL_PROFILING_INFO_NOT_AVAILABLE.
# Seen with Mesa 22.3.6 (Debian 12): CL_SUCCESS, and QUEUED 0, SUBMIT 1, START 2, END 3 for each
# command, however long it took. Benchmarks by events print speeds of millions of GB/s.
#
# Installs mesa-opencl-icd and libllvmspirvlib15 with apt-get download into a temporary folder;
# libclc-15 (its files are read from /usr/lib/clc), libllvm15 and ocl-icd-opencl-dev must be
# installed. Exit 0 if it is as described, 1 if not, 77 if it cannot be tried.
set -u
version=22.3.6
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download mesa-opencl-icd libllvmspirvlib15 > log 2>&1 || { cat log; exit 77; }
for deb in *.deb; do dpkg -x "$deb" root || exit 77; done
[ -e /usr/lib/clc/spirv64-mesa3d-.spv ] || { echo "libclc-15 is not installed"; exit 77; }

cat > stamps.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <time.h>

static const char *text =
    "__kernel void work(uint n, __global uint *x)\n"
    "{   uint y = x[get_global_id(0)];\n"
    "    for (uint k = 0; k < n; k++) y = y * 1664525u + 1013904223u;\n"
    "    x[get_global_id(0)] = y; }\n";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
    static const cl_uint turns[] = { 10, 1000, 60000 };
    static const cl_profiling_info infos[] = { CL_PROFILING_COMMAND_QUEUED, CL_PROFILING_COMMAND_SUBMIT,
                                               CL_PROFILING_COMMAND_START, CL_PROFILING_COMMAND_END };
    const size_t items = 4096;
    cl_platform_id platform;
    cl_device_id device;
    cl_int err;
    char name[128] = "", driver[64] = "";
    int as_described = 1;
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, NULL);
    clGetDeviceInfo(device, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
    printf("%s, driver %s\n  turns   host's ns    queued  submit   start     end\n", name, driver);
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
    cl_command_queue queue = clCreateCommandQueue(context, device, CL_QUEUE_PROFILING_ENABLE, &err);
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &err);
    if (clBuildProgram(program, 1, &device, "", NULL, NULL))
        return 77;
    cl_kernel kernel = clCreateKernel(program, "work", &err);
    cl_mem x = clCreateBuffer(context, CL_MEM_READ_WRITE, 4 * items, NULL, &err);
    for (int i = -1; i < 3; i++) {                  /* the first one compiles */
        cl_event event;
        cl_ulong stamp[4] = { 0 };
        clSetKernelArg(kernel, 0, 4, &turns[i < 0 ? 0 : i]);
        clSetKernelArg(kernel, 1, sizeof x, &x);
        const double start = now();
        if (clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, NULL, 0, NULL, &event)
            || clWaitForEvents(1, &event))
            return 1;
        const double took = now() - start;
        for (int k = 0; k < 4; k++)
            if (clGetEventProfilingInfo(event, infos[k], sizeof stamp[k], &stamp[k], NULL) != CL_SUCCESS)
                as_described = 0;
        if (i >= 0)
            printf("%7u %11.0f  %8llu%8llu%8llu%8llu\n", turns[i], took, (unsigned long long)stamp[0],
                   (unsigned long long)stamp[1], (unsigned long long)stamp[2], (unsigned long long)stamp[3]);
        for (int k = 0; k < 4; k++)
            as_described &= stamp[k] == (cl_ulong)k;
        clReleaseEvent(event);
    }
    return !as_described;
}
C
cc -o stamps stamps.c -lOpenCL 2> log || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
library=$work/root/usr/lib/$(uname -m)-linux-gnu
mkdir icd && echo "$library/libRusticlOpenCL.so.1" > icd/rusticl.icd
echo "mesa-opencl-icd $(dpkg-deb -f mesa-opencl-icd_*.deb Version), described from $version"
LD_LIBRARY_PATH=$library OCL_ICD_VENDORS=$work/icd RUSTICL_ENABLE=llvmpipe timeout 120 ./stamps
status=$?
case $status in
0)  echo "as described: 0, 1, 2, 3 with CL_SUCCESS" ;;
77) echo "cannot be tried here" ;;
*)  echo "NOT as described" ; status=1 ;;
esac
exit $status
