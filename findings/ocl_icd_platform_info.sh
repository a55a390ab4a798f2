#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/ocl_icd_platform_info.sh - ocl-icd leaves out a driver whose platform tells of itself by its dispatch table alone.
#
# One would guess: a driver gives the loader its platforms (clIcdGetPlatformIDsKHR, by clGetExtensionFunctionAddress), and
# a platform begins with a pointer to its table of functions, clGetPlatformInfo among them; cl_khr_icd asks for no
# more, so the loader calls that one to learn what the platform is.
# Seen with ocl-icd 2.3.1 (Debian 12): it looks for a function named clGetPlatformInfo in the library, or by
# clGetExtensionFunctionAddress, and without either drops the driver in silence. With one more
# answer of clGetExtensionFunctionAddress the same driver is there.
#
# Installs ocl-icd-libopencl1 with apt-get download into a temporary folder; a C compiler and opencl-c-headers must be
# installed. Exit 0 if it is as described, 1 if not, 77 if it cannot be tried.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download ocl-icd-libopencl1=2.3.1-1 > log 2>&1 || { cat log; exit 77; }
dpkg -x ./*.deb root || exit 77
loader=$(find root -name 'libOpenCL.so.1' | head -n 1)
[ -n "$loader" ] || exit 77

cat > driver.c <<'C'
/* A driver of one platform without devices. ANSWERS 2: it is asked for clGetPlatformInfo by name as well. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>
#include <string.h>

static cl_int info(cl_platform_id p, cl_platform_info what, size_t room, void *to, size_t *size)
{
    const char *text = what == CL_PLATFORM_NAME ? "Plain" : what == CL_PLATFORM_VERSION ? "OpenCL 1.2 plain"
        : what == CL_PLATFORM_PROFILE ? "FULL_PROFILE" : what == CL_PLATFORM_VENDOR ? "nobody"
        : what == CL_PLATFORM_EXTENSIONS ? "cl_khr_icd" : what == CL_PLATFORM_ICD_SUFFIX_KHR ? "PLAIN" : NULL;
    (void)p;
    if (!text)
        return CL_INVALID_VALUE;
    if (to && room <= strlen(text))
        return CL_INVALID_VALUE;
    if (to)
        strcpy(to, text);
    if (size)
        *size = strlen(text) + 1;
    return CL_SUCCESS;
}

static cl_int devices(cl_platform_id p, cl_device_type t, cl_uint room, cl_device_id *to, cl_uint *count)
{
    (void)p; (void)t; (void)room; (void)to;
    if (count)
        *count = 0;
    return CL_DEVICE_NOT_FOUND;
}

static cl_icd_dispatch table = { .clGetPlatformInfo = info, .clGetDeviceIDs = devices };
struct _cl_platform_id { cl_icd_dispatch *dispatch; };
static struct _cl_platform_id one = { &table };

static cl_int ids(cl_uint room, cl_platform_id *to, cl_uint *count)
{
    if (to && room)
        *to = &one;
    if (count)
        *count = 1;
    return CL_SUCCESS;
}

void *clGetExtensionFunctionAddress(const char *name)
{
    if (!strcmp(name, "clIcdGetPlatformIDsKHR"))
        return (void *)ids;
    return ANSWERS == 2 && !strcmp(name, "clGetPlatformInfo") ? (void *)info : NULL;
}
C
cat > count.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
int main(void)
{
    cl_uint count = 0;
    clGetPlatformIDs(0, NULL, &count);
    printf("%u\n", (unsigned)count);
    return 0;
}
C
cc -o count count.c "$loader" 2> log || { cat log; exit 77; }
for answers in 1 2; do
    cc -shared -fPIC -fvisibility=default -DANSWERS=$answers -o driver$answers.so driver.c 2> log || { cat log; exit 77; }
    mkdir vendors$answers && echo "$PWD/driver$answers.so" > vendors$answers/plain.icd
    OCL_ICD_VENDORS="$PWD/vendors$answers" LD_LIBRARY_PATH="$(dirname "$loader")" ./count > platforms$answers
done
echo "ocl-icd 2.3.1, a driver with clGetPlatformInfo in its dispatch table: $(cat platforms1) platforms"
echo "the same, which is told to ask for that function by name as well:     $(cat platforms2) platforms"
[ "$(cat platforms1)" = 0 ] && [ "$(cat platforms2)" = 1 ]
