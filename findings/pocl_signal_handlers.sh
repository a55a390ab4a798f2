#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/pocl_signal_handlers.sh - a program that asks for PoCL's devices ignores SIGXFSZ no longer.
#
# One would guess: a library that is asked for its devices leaves the signals of the process as they
# are. A program that ignores SIGXFSZ, so that a write beyond `ulimit -f` is only an error, goes on
# ignoring it.
# Seen with PoCL 3.1 (Debian 12, LLVM 15): from clGetDeviceIDs on, 15 signals that end a process have a
# handler of LLVM's, those that were ignored or handled too. When one of them comes, in any thread,
# it removes the files that LLVM is just writing, so that a compilation in another thread fails, and
# puts all signals back to what it once found. Only a signal that is blocked in every thread is safe
# from it.
#
# Installs pocl-opencl-icd, libpocl2 and libpocl2-common with apt-get download into a temporary folder
# (its built-in functions are read from /usr/share/pocl); libpocl2's other dependencies and
# ocl-icd-opencl-dev must be installed. Exit 0 if it is as described, 1 if not, 77 if it cannot be tried.
set -u
version=3.1-3+deb12u1
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download pocl-opencl-icd libpocl2 libpocl2-common > log 2>&1 || { cat log; exit 77; }
for deb in *.deb; do dpkg -x "$deb" root || exit 77; done
[ -d /usr/share/pocl ] || { echo "libpocl2-common is not installed"; exit 77; }

cat > signals.c <<'C'
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { SIGNALS = 32 };

static void ours(int number)
{
    (void)number;
}

static void look(void (*handler[SIGNALS])(int))
{
    for (int i = 1; i < SIGNALS; i++) {
        struct sigaction now;
        handler[i] = sigaction(i, NULL, &now) ? SIG_ERR : now.sa_handler;
    }
}

int main(void)
{
    void (*before[SIGNALS])(int), (*after[SIGNALS])(int);
    cl_platform_id platform;
    cl_device_id device;
    char name[128] = "", driver[64] = "";
    int changed = 0;
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGUSR2, ours);
    look(before);
    if (clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 77;
    clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof name, name, NULL);
    clGetDeviceInfo(device, CL_DRIVER_VERSION, sizeof driver, driver, NULL);
    printf("%s, driver %s\n", name, driver);
    look(after);
    for (int i = 1; i < SIGNALS; i++)
        if (before[i] != after[i]) {
            changed++;
            printf("  SIG%-5s %-10s -> a handler\n", sigabbrev_np(i),
                   before[i] == SIG_IGN   ? "ignored"
                   : before[i] == SIG_DFL ? "default"
                                          : "our own");
        }
    printf("%d signals changed by clGetDeviceIDs\n", changed);
    return before[SIGXFSZ] != SIG_IGN || before[SIGUSR2] != ours || after[SIGXFSZ] == SIG_IGN || after[SIGUSR2] == ours;
}
C
cc -D_GNU_SOURCE -o signals signals.c -lOpenCL 2> log \
    || { cat log; echo "ocl-icd-opencl-dev is not installed"; exit 77; }
library=$(find "$work/root" -name 'libpocl.so.2.*' | head -n 1)
mkdir icd cache && echo "$library" > icd/pocl.icd
echo "libpocl2 $(dpkg-deb -f libpocl2_*.deb Version), described from $version"
OCL_ICD_VENDORS=$work/icd POCL_CACHE_DIR=$work/cache timeout 300 ./signals
status=$?
case $status in
0)  echo "as described: SIGXFSZ was ignored, and SIGUSR2 had a handler of the program's" ;;
77) echo "cannot be tried here" ;;
*)  echo "NOT as described" ; status=1 ;;
esac
exit $status
