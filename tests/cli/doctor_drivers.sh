#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/doctor_drivers.sh - what the doctor says of drivers that do not load: the loader's reason
# and the package that helps, for .icd files and libraries made here.
. "$(dirname "$0")/cli_checks.sh"
unset RUSTICL_ENABLE OPENCL_VENDOR_PATH

# says NAME VENDORS PATTERN FIX: a line BAD, and the one with its fix below it.
says()
{
    OCL_ICD_VENDORS=$2 timeout 240 "$geartrain" doctor > stdout 2> stderr
    status=$?
    if [ $status -ne 1 ]; then
        fail "$1" "exit status $status, not 1"
    elif ! grep -A1 -E -- "^BAD .*$3" stdout | grep -Eq -- "fix: .*$4"; then
        fail "$1" "no line says '$3' and below '$4'"
        sed 's/^/    /' stdout | head -n 6
    else
        pass "$1"
    fi
}

mkdir -p vendors prefix/etc/OpenCL/vendors prefix/lib
echo /not/there/libintelocl.so > vendors/intel.icd
says "a folder that is not there" "$work/vendors" \
    "vendors/intel.icd names /not/there/libintelocl.so, which does not load: .*No such file" \
    "there is no folder /not/there: .*intel-opencl-rt"
check "no driver loads, so none is said to" sh -c '! grep -q "drivers load" stdout'
echo libpocl.so.99 > vendors/intel.icd
says "one .icd file" "$work/vendors/intel.icd" "libpocl.so.99, which does not load" "install pocl-opencl-icd"
cp vendors/intel.icd prefix/etc/OpenCL/vendors/
echo /not/there/libintelocl.so > prefix/etc/OpenCL/vendors/intel.icd
: > prefix/lib/libintelocl.so
says "a Python package's library is found beside" "$work/prefix/etc/OpenCL/vendors" "does not load" \
    "the library is .*/prefix/lib/libintelocl.so: set OCL_ICD_VENDORS to that"
says "a list" "$work/a.so:$work/b.so" "OCL_ICD_VENDORS is .*a.so:.*b.so', but the loader takes no list" \
    "one .icd file for each driver into a folder"
says "a library by name" "$work/prefix/lib/libintelocl.so" "OCL_ICD_VENDORS names .*file too short" "install intel-opencl-rt"
says "an .icd file that is not there" "$work/none.icd" "cannot open '.*none.icd'" "name a file that is there"
mkdir empty
says "a folder without a driver" "$work/empty" "there is no .icd file in .*/empty" "pocl-opencl-icd"

if command -v cc > /dev/null; then
    : > nothing.c
    cc -shared -fPIC -o libimf.so nothing.c
    cc -shared -fPIC -Wl,--no-as-needed -o libdriver.so nothing.c -L. -limf && rm libimf.so
    says "a library that lacks another" "$work/libdriver.so" "libdriver.so, which does not load: libimf.so: cannot open" \
        "install intel-cmplr-lib-rt .*which has libimf.so; or, if it is there, add its folder to LD_LIBRARY_PATH"
    cc -shared -fPIC -o libRusticlOpenCL.so.1 nothing.c
    echo "$work/libRusticlOpenCL.so.1" > vendors/intel.icd
    says "a library of another kind" "$work/vendors" "which loads but is no OpenCL driver" "name the driver's library"
    : > vendors/intel.icd
    says "an empty .icd file" "$work/vendors" "intel.icd is empty: it names no library" "or remove the file"
    echo 'void *clGetExtensionFunctionAddress(const char *name) { (void)name; return 0; }' > driver.c
    cc -shared -fPIC -o libRusticlOpenCL.so.1 driver.c
    echo "$work/libRusticlOpenCL.so.1" > vendors/intel.icd
    says "rusticl without its variable" "$work/vendors" "RUSTICL_ENABLE names, and that is not set: there is no device" \
        "set RUSTICL_ENABLE to .*llvmpipe"
    RUSTICL_ENABLE=llvmpipe
    export RUSTICL_ENABLE
    says "a driver that shows no device" "$work/vendors" "drivers load, but none shows a device" "hardware"
    POCL_DEVICES=another
    export POCL_DEVICES
    says "a variable that hides what there is" "$work/vendors" "POCL_DEVICES is 'another': drivers load, but none" "unset it"
    unset POCL_DEVICES
else
    echo "no C compiler: libraries that load and fail are not tried"
fi
close_checks
