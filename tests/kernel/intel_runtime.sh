# SPDX-License-Identifier: MIT
# tests/kernel/intel_runtime.sh - Intel's OpenCL runtime for CPUs, for the tests that need a second
# implementation; sourced, not run.
#
#   intel_runtime || skip "$why"        then $intel is its folder, $intel/lib its libraries
#
# It comes from the Python package index (pip download; 270 MB, once) and is unpacked below the cache
# folder ($GT_VENDORS overrides): nothing is installed, and the machine's own platforms stay as they are.
# Its license allows use, not copying it into this repository. Tests that ask at the same time wait for
# one of them to fetch it. Its compiler takes five minutes for all of our kernels, so what it made is kept
# in $intel/programs; the key of each program holds its text, its options and the driver's version.
intel=${GT_VENDORS:-${XDG_CACHE_HOME:-$HOME/.cache}/geartrain/vendors}/intel-cpu

# The libraries of the wheels, flat in one folder, which appears only when it is whole.
intel_unpack()
{
    fetched=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-runtime-XXXXXX") || return 1
    if ! python3 -m pip --version > /dev/null 2>&1; then
        why="there is no pip to download Intel's runtime"
    elif ! python3 -m pip download --quiet --no-deps -d "$fetched/wheels" intel-opencl-rt intel-cmplr-lib-rt \
        tbb tcmlib umf > "$fetched/pip.log" 2>&1; then
        why="Intel's runtime cannot be downloaded"
    else
        for wheel in "$fetched"/wheels/*.whl; do
            python3 -m zipfile -e "$wheel" "$fetched/unpacked" || why="'${wheel##*/}' cannot be unpacked"
        done
        mkdir "$fetched/lib"
        cp -r "$fetched"/unpacked/*.data/data/lib/* "$fetched/lib/"
        rm -f "$fetched"/lib/libOpenCL.so*              # the machine's own loader finds it
        rm -rf "$intel/lib"
        mv "$fetched/lib" "$intel/lib"
    fi
    rm -rf "$fetched"
}

intel_runtime()
{
    why=
    if [ "$(uname -m)" != x86_64 ]; then
        why="Intel's runtime exists for x86-64 only"
        return 1
    fi
    mkdir -p "$intel/programs"
    exec 4> "$intel/lock"
    flock 4
    [ -e "$intel/lib/libintelocl.so" ] || intel_unpack
    exec 4>&-
    [ -z "$why" ] && [ -e "$intel/lib/libintelocl.so" ]
}
