#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/oclgrind_offset_copy.sh - Oclgrind takes what was copied at an offset for values that nobody wrote.
#
# One would guess: clEnqueueCopyBuffer() of values that were written makes written values, wherever in their
# buffers they are, and whether the place is given as an offset or as a sub-buffer.
# Seen with Oclgrind 21.10 (Debian 12) under --uninitialized: silent after a copy from the begin of one buffer to
# that of another; after the same copy 1024 bytes further in, a kernel that reads the copied values is reported with
# "Uninitialized value", between sub-buffers of that place too. The results are right. Such a report is no sign
# of a value that was forgotten; values that a kernel copies are followed.
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

cat > copy.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <string.h>

enum { VALUES = 16, AT = 1024, BYTES = 4 * VALUES };

static const char *text =
    "__kernel void twice(__global const float *in, int at, __global float *out)\n"
    "{   const int i = (int)get_global_id(0);\n"
    "    out[i] = 2.0f * in[at + i]; }\n";

/* copy WAY: whole, offset or part. Exit 0 if the results are right, 77 if a call failed. */
int main(int count, char **word)
{
    const char *way = count > 1 ? word[1] : "whole";
    const int part = !strcmp(way, "part"), offset = !strcmp(way, "offset");
    const size_t at = offset ? AT : 0, items = VALUES;
    const int first = (int)(at / 4);
    const cl_buffer_region region = { AT, BYTES };
    float in[VALUES], out[VALUES];
    cl_platform_id platform;
    cl_device_id device;
    cl_int err;
    for (int i = 0; i < VALUES; i++)
        in[i] = (float)(1 + i);
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &err);
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &err);
    if (err || clBuildProgram(program, 1, &device, "", NULL, NULL))
        return 77;
    cl_kernel kernel = clCreateKernel(program, "twice", &err);
    cl_mem from = clCreateBuffer(context, CL_MEM_READ_WRITE, 4096, NULL, &err);
    cl_mem to = clCreateBuffer(context, CL_MEM_READ_WRITE, 4096, NULL, &err);
    cl_mem result = clCreateBuffer(context, CL_MEM_READ_WRITE, BYTES, NULL, &err);
    if (part) {
        from = clCreateSubBuffer(from, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &err);
        to = clCreateSubBuffer(to, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &err);
    }
    if (clEnqueueWriteBuffer(queue, from, CL_TRUE, at, BYTES, in, 0, NULL, NULL)
        || clEnqueueCopyBuffer(queue, from, to, at, at, BYTES, 0, NULL, NULL)
        || clSetKernelArg(kernel, 0, sizeof to, &to) || clSetKernelArg(kernel, 1, sizeof first, &first)
        || clSetKernelArg(kernel, 2, sizeof result, &result)
        || clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, NULL, 0, NULL, NULL)
        || clEnqueueReadBuffer(queue, result, CL_TRUE, 0, BYTES, out, 0, NULL, NULL))
        return 77;
    for (int i = 0; i < VALUES; i++)
        if (out[i] != 2.0f * in[i])
            return 1;
    return 0;
}
C
cc -o copy copy.c -lOpenCL 2> log || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
echo "oclgrind $(dpkg-deb -f oclgrind_*.deb Version), described from $version"

reports()       # WAY: how often it names an uninitialized value; or why it cannot be told
{
    LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu timeout 120 root/usr/bin/oclgrind --uninitialized \
        ./copy "$1" > "log.$1" 2>&1
    status=$?
    [ $status = 0 ] || { echo "exit $status"; return; }
    grep -c '^Uninitialized value' "log.$1"
}

whole=$(reports whole) offset=$(reports offset) part=$(reports part)
echo "16 values written, copied, and read by a kernel, which computes what it should; reports of uninitialized values:"
echo "  copied from begin to begin         $whole"
echo "  from 1024 bytes in to 1024 in      $offset"
echo "  between sub-buffers of that place  $part"
if [ "$whole" = 0 ] && [ "$offset" = 16 ] && [ "$part" -gt 0 ] 2> /dev/null; then
    echo "as described"
    exit 0
fi
case "$whole$offset$part" in
*"exit 77"*) echo "cannot be tried here"; exit 77 ;;
esac
echo "NOT as described"
exit 1
