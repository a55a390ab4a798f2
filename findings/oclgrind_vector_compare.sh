#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/oclgrind_vector_compare.sh - Oclgrind counts a true lane of a vector comparison as 255.
#
# One would guess: the simulator that is run to find a kernel's faults computes what the kernel says. In OpenCL C
# a comparison of vectors is -1 in the lanes where it holds (6.3.d of the language's text), so what is subtracted
# from a counter adds 1 for each.
# Seen with Oclgrind 21.10 (Debian 12): with the compiler's usual optimization each such lane adds 255; right with
# -cl-opt-disable. There is no message, and all calls return CL_SUCCESS. A kernel that is wrong only there may be
# right; the sign of a difference, (least - 1 - x) >> 31, counts right in both.
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

cat > count.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>

enum { VALUES = 64, ITEMS = 4, EACH = VALUES / ITEMS, LEAST = 20 };

static const char *text =
    "__kernel void at_least(__global const int *in, __global int *out, int least)\n"
    "{   const int at = (int)get_global_id(0) * 16;\n"
    "    int4 many = (int4)(0);\n"
    "    for (int i = 0; i < 16; i += 4)\n"
    "        many -= vload4(0, in + at + i) >= (int4)(least);\n"
    "    out[get_global_id(0)] = many.x + many.y + many.z + many.w; }\n";

/* How many items count wrongly with these options, and in *as_255 how many of those by 255 a value; -1: a call failed. */
static int wrong(cl_context context, cl_device_id device, cl_command_queue queue, const char *options, int *as_255)
{
    int in[VALUES], out[ITEMS], count = 0;
    const int least = LEAST;
    const size_t items = ITEMS;
    cl_int err;
    for (int i = 0; i < VALUES; i++)
        in[i] = i * 37 % VALUES;
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &err);
    if (err || clBuildProgram(program, 1, &device, options, NULL, NULL))
        return -1;
    cl_kernel kernel = clCreateKernel(program, "at_least", &err);
    cl_mem from = clCreateBuffer(context, CL_MEM_COPY_HOST_PTR, sizeof in, in, &err);
    cl_mem to = clCreateBuffer(context, CL_MEM_READ_WRITE, sizeof out, NULL, &err);
    if (clSetKernelArg(kernel, 0, sizeof from, &from) || clSetKernelArg(kernel, 1, sizeof to, &to)
        || clSetKernelArg(kernel, 2, sizeof least, &least)
        || clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, NULL, 0, NULL, NULL)
        || clEnqueueReadBuffer(queue, to, CL_TRUE, 0, sizeof out, out, 0, NULL, NULL))
        return -1;
    printf("options \"%s\"\n", options);
    *as_255 = 0;
    for (int g = 0; g < ITEMS; g++) {
        int want = 0;
        for (int i = 0; i < EACH; i++)
            want += in[g * EACH + i] >= least;
        printf("  item %d: %d values are at least %d; counted %d\n", g, want, least, out[g]);
        count += out[g] != want;
        *as_255 += out[g] != want && out[g] == 255 * want;
    }
    return count;
}

int main(void)
{
    cl_platform_id platform;
    cl_device_id device;
    cl_int err;
    char name[128] = "", driver[64] = "";
    int as_255 = 0, none = 0;
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, NULL);
    clGetDeviceInfo(device, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
    printf("%s, driver %s\n", name, driver);
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &err);
    const int usual = wrong(context, device, queue, "", &as_255);
    const int plain = wrong(context, device, queue, "-cl-opt-disable", &none);
    return usual == ITEMS && as_255 == ITEMS && plain == 0 ? 0 : 1;
}
C
cc -o count count.c -lOpenCL 2> log || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
echo "oclgrind $(dpkg-deb -f oclgrind_*.deb Version), described from $version"
LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu timeout 120 root/usr/bin/oclgrind ./count
status=$?
case $status in
0)  echo "as described: 255 a lane with the usual options, 1 without optimization" ;;
77) echo "cannot be tried here" ;;
*)  echo "NOT as described"; status=1 ;;
esac
exit $status
