#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/rusticl_loop_limit.sh - Mesa's rusticl on llvmpipe ends long loops early and reports success.
#
# One would guess: `for (uint k = 0; k < n; k++) turns++;` leaves n, for any n, or the driver fails.
# Seen with Mesa 22.3.6 (Debian 12): a work-item has 65,535 turns of loops to spend, all its loops
# together, and after them every loop condition counts as false. The kernel completes, all calls
# return CL_SUCCESS, and there is no message. Sums of long rows come out too small.
#
# Installs mesa-opencl-icd and libllvmspirvlib15 with apt-get download into a temporary folder;
# libclc-15 (its files are read from /usr/lib/clc), libllvm15 and ocl-icd-opencl-dev must be
# installed. Exit 0 if it is as described, 1 if not,
# 77 if it cannot be tried.
set -u
version=22.3.6
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download mesa-opencl-icd libllvmspirvlib15 > log 2>&1 || { cat log; exit 77; }
for deb in *.deb; do dpkg -x "$deb" root || exit 77; done
[ -e /usr/lib/clc/spirv64-mesa3d-.spv ] || { echo "libclc-15 is not installed"; exit 77; }

cat > loops.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>

static const char *text =
    "__kernel void count(uint outer, uint inner, __global uint *turns)\n"
    "{   uint n = 0;\n"
    "    for (uint j = 0; j < outer; j++)\n"
    "        for (uint k = 0; k < inner; k++)\n"
    "            n++;\n"
    "    turns[0] = n; }\n";

int main(void)
{
    static const cl_uint cases[][2] = { { 1, 1000 }, { 1, 65000 }, { 1, 70000 }, { 1, 1000000 },
                                        { 100, 100 }, { 100, 650 }, { 100, 1000 }, { 70000, 1 } };
    cl_platform_id platform;
    cl_device_id device;
    cl_int err;
    char name[128] = "", driver[64] = "";
    int wrong = 0, right = 0;
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, NULL);
    clGetDeviceInfo(device, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
    printf("%s, driver %s\n  outer    inner     turns   asked for\n", name, driver);
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &err);
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &err);
    if (clBuildProgram(program, 1, &device, "", NULL, NULL))
        return 77;
    cl_kernel kernel = clCreateKernel(program, "count", &err);
    cl_mem turns = clCreateBuffer(context, CL_MEM_READ_WRITE, 4, NULL, &err);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t one = 1;
        const cl_uint asked = cases[i][0] * cases[i][1];
        cl_uint got = 0;
        if (clSetKernelArg(kernel, 0, 4, &cases[i][0]) || clSetKernelArg(kernel, 1, 4, &cases[i][1])
            || clSetKernelArg(kernel, 2, sizeof turns, &turns)
            || clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &one, &one, 0, NULL, NULL)
            || clEnqueueReadBuffer(queue, turns, CL_TRUE, 0, 4, &got, 0, NULL, NULL) || clFinish(queue)) {
            printf("a call failed\n");
            return 1;
        }
        printf("%7u  %7u  %8u    %8u%s\n", cases[i][0], cases[i][1], got, asked,
               got == asked ? "" : "    wrong, with CL_SUCCESS");
        if (got == asked)
            right += asked < 65535;
        else
            wrong += asked > 65535;
    }
    return right == 4 && wrong == 4 ? 0 : 1;
}
C
cc -o loops loops.c -lOpenCL 2> log || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
library=$work/root/usr/lib/$(uname -m)-linux-gnu
mkdir icd && echo "$library/libRusticlOpenCL.so.1" > icd/rusticl.icd
echo "mesa-opencl-icd $(dpkg-deb -f mesa-opencl-icd_*.deb Version), described from $version"
LD_LIBRARY_PATH=$library OCL_ICD_VENDORS=$work/icd RUSTICL_ENABLE=llvmpipe timeout 120 ./loops
status=$?
case $status in
0)  echo "as described: right below 65,535 turns in all, wrong above" ;;
77) echo "cannot be tried here" ;;
*)  echo "NOT as described" ; status=1 ;;
esac
exit $status
