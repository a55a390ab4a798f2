# SPDX-License-Identifier: MIT
# tests/kernel/emulated_device.sh - emulated GPUs of AMD as devices, for scripts; sourced, not run, in the top folder.
#
#   emulated_device FOLDER     builds the driver and makes it the only one; FOLDER, there already, takes its files. Fails,
#                              with $why, where something is not installed
#   emulated_chips CHIPS       the devices from here on; what is compiled, translated and found out is kept for them
#   emulated_faults CHIP       asks the emulator for its known faults, which emulated_chips has repaired from then on;
#                              fails if a repair does not help
#   emulated_unmeasured        notes a speed for the devices chosen, which nobody wants to know
#
# $TINYGRAD is a checkout of tinygrad, $BUILD the build folder, $GT_PYTHON the interpreter [python3].

emulated_device()
{
    emulated=$1
    why="TINYGRAD names no checkout of tinygrad, whose emulator this needs"
    [ -n "${TINYGRAD:-}" ] || return 1
    why="there is no test/mockgpu/amd/emu.py in '$TINYGRAD'"
    [ -f "$TINYGRAD/test/mockgpu/amd/emu.py" ] || return 1
    why="lld-19 is not installed"
    command -v ld.lld-19 > /dev/null || return 1
    why="clang-19 or rocm-device-libs is not installed"
    . tests/kernel/amd_compiler.sh
    amd_bitcode "$emulated/bitcode" || return 1
    why="its driver is not to be built"
    cmake --build "$BUILD" --target emulated_driver > "$emulated/build.log" 2>&1 || { cat "$emulated/build.log"; return 1; }
    emulated_driver=$(cd "$BUILD" && pwd)/tests/kernel/libemulated_driver.so
    mkdir "$emulated/vendors" "$emulated/kept"
    echo "$emulated_driver" > "$emulated/vendors/emulated.icd"
    export OCL_ICD_VENDORS=$emulated/vendors GT_EMULATED_BITCODE=$emulated/bitcode GT_EMULATED_KEPT=$emulated/kept
    export GT_EMULATED_SERVER=$PWD/tests/kernel/emulated/emulator.py GT_EMULATED_PYTHON=${GT_PYTHON:-python3}
    export PYTHONDONTWRITEBYTECODE=1
    export GT_EMULATED_CHIPS GT_EMULATED_REPAIRS GEARTRAIN_CACHE
}

emulated_chips()
{
    GT_EMULATED_CHIPS=$1 GEARTRAIN_CACHE=$emulated/cache-$1
    GT_EMULATED_REPAIRS=$(cat "$emulated"/faults-* 2> /dev/null | sort -u | tr '\n' ' ')
}

emulated_faults()
{
    GT_EMULATED_REPAIRS='' "$GT_EMULATED_PYTHON" "$GT_EMULATED_SERVER" --check "$1" "$emulated_driver" > "$emulated/faults-$1"
}

# To measure it takes half an hour.
emulated_unmeasured()
{
    local proof
    "$BUILD/geartrain" devices > "$emulated/devices" 2>&1
    mkdir -p "$GEARTRAIN_CACHE/peak"
    for proof in "$GEARTRAIN_CACHE"/proof/*.txt; do
        echo "1e12 1e11" > "$GEARTRAIN_CACHE/peak/${proof##*/}"
    done
}
