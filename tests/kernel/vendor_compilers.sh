# SPDX-License-Identifier: MIT
# tests/kernel/vendor_compilers.sh - the vendors' compilers, for vendors.sh and vendors_table.sh; sourced, not run.
#
#   prepare_VENDOR                              fails where its compiler is not here
#   compile_VENDOR CHIP SOURCE OUT OPTIONS...   machine code or assembly at OUT or what is called after it; fails, and
#                                               says why, if registers spill or a matrix kernel has no such instruction
#
# $work is a folder for what they need.

# What is to hold instructions of the matrix unit, where a chip has one.
matrix_kernels='matrix_probe|gemm_matrix|attention_matrix_[a-z]*'

. tests/kernel/amd_compiler.sh

prepare_amd()
{
    amd_bitcode "$work/bitcode"
}

compile_amd()       # chip source output options
{
    local chip=$1 source=$2 out=$3 matrix
    shift 3
    clang-19 -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target amdgcn-amd-amdhsa \
        -mcpu="$chip" --rocm-device-lib-path="$work/bitcode" -O3 -S "$@" "$source" -o "$out" || return 1
    if grep -E '\.vgpr_spill_count: +[1-9]|ScratchSize: [1-9]' "$out"; then
        echo "registers spill to memory"
        return 1
    fi
    case $chip in
    gfx90a | gfx942) matrix=v_mfma ;;
    gfx11* | gfx12*) matrix=v_wmma ;;
    *) return 0 ;;
    esac
    if grep -qE "^($matrix_kernels):" "$out" && ! grep -q $matrix "$out"; then
        echo "no $matrix instruction comes of it"
        return 1
    fi
}

# $GT_VENDORS (default below the cache folder) keeps what was unpacked.
prepare_intel()
{
    root=${GT_VENDORS:-${XDG_CACHE_HOME:-$HOME/.cache}/geartrain/vendors}/intel
    mkdir -p "$root" || return 1
    (flock 9 && unpack_intel) 9> "$root.lock" || return 1       # vendors_matrix.sh may want it at the same time
    export root
    LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu "$root/usr/bin/ocloc" --help > /dev/null 2>&1
}

unpack_intel()
{
    [ ! -x "$root/usr/bin/ocloc" ] || return 0
    command -v dpkg > /dev/null || return 1
    mkdir -p "$work/packages"
    (cd "$work/packages" && apt-get download intel-opencl-icd libigc1 libigdfcl1 \
        libopencl-clang14 libllvmspirvlib14 libigdgmm12) > "$work/download.log" 2>&1 || return 1
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$root" || return 1
    done
}

compile_intel()
{
    local chip=$1 source=$2 out=$3 log
    shift 3
    mkdir -p "$out"
    log=$(LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu "$root/usr/bin/ocloc" compile -file "$source" \
        -device "$chip" -options "-cl-std=CL1.2 $*" -output k -out_dir "$out" 2>&1)
    if [ $? != 0 ] || ! ls "$out" | grep -q bin || grep -qE 'spilled|[Bb]uild failed|error:' <<< "$log"; then
        grep -vE '^$|Build succeeded' <<< "$log"
        return 1
    fi
}

# $XMX_OCLOC is a command: Debian 12's ocloc does not know the functions. Words in it are its arguments.
prepare_xmx()
{
    [ -n "${XMX_OCLOC:-}" ] || return 1
    export XMX_OCLOC
    $XMX_OCLOC --help > /dev/null 2>&1
}

compile_xmx()
{
    local chip=$1 source=$2 out=$3 log lanes=16 assembly
    shift 3
    [ "$chip" = dg2 ] && lanes=8
    mkdir -p "$out"
    log=$(IGC_ShaderDumpEnable=1 IGC_DumpToCustomDir=$out/dump $XMX_OCLOC compile -file "$source" -device "$chip" \
        -options "-cl-std=CL1.2 -DXMX_LANES=$lanes $*" -output k -out_dir "$out" 2>&1)
    if [ $? != 0 ] || ! ls "$out" | grep -q bin || grep -qE 'spilled|[Bb]uild failed|error:' <<< "$log"; then
        grep -vE '^$|Build succeeded' <<< "$log"
        return 1
    fi
    for assembly in "$out"/dump/*.asm; do
        if grep -qE "^//\.kernel ($matrix_kernels)\$" "$assembly" && ! grep -q ' dpas' "$assembly"; then
            echo "no dpas comes of it"
            return 1
        fi
    done
}

# A tool of CUDA's, by its name.
cuda_tool()
{
    local folder
    command -v "$1" && return
    for folder in /usr/local/cuda/bin $(python3 -c 'import glob, site
print(*[f for s in site.getsitepackages() for f in glob.glob(s + "/nvidia/*/bin")])' 2> /dev/null); do
        [ -x "$folder/$1" ] && echo "$folder/$1" && return
    done
}

prepare_nvidia()
{
    command -v clang-19 > /dev/null && [ -f /usr/lib/clc/nvptx64--nvidiacl.bc ] || return 1
    ptxas=${PTXAS:-$(cuda_tool ptxas)} nvdisasm=${NVDISASM:-$(cuda_tool nvdisasm)}
    export ptxas nvdisasm
    [ -n "$ptxas" ] || echo "vendors: there is no ptxas; NVIDIA's kernels are compiled to PTX alone"
}

compile_nvidia()
{
    local chip=$1 source=$2 out=$3 log
    shift 3
    clang-19 -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target nvptx64-nvidia-nvcl \
        -Xclang -target-cpu -Xclang "${chip/120/90}" -Xclang -mlink-builtin-bitcode \
        -Xclang /usr/lib/clc/nvptx64--nvidiacl.bc -Wno-linker-warnings -D__NV_CL_C_VERSION=120 -fgnu-keywords \
        -O3 -S "$@" "$source" -o "$out" || return 1
    if grep -qE "entry ($matrix_kernels)\(" "$out" && ! grep -q 'mma\.sync' "$out"; then
        echo "no mma.sync comes of it"
        return 1
    fi
    grep -q '\.entry' "$out" || return 1
    [ -n "$ptxas" ] || return 0
    log=$("$ptxas" -arch "$chip" -v "$out" -o "$out.cubin" 2>&1) || { echo "$log"; return 1; }
    echo "$log" > "$out.log"
    if grep -qE '[1-9][0-9]* bytes spill' <<< "$log"; then
        grep -B1 -A1 -E '[1-9][0-9]* bytes spill' <<< "$log"
        return 1
    fi
    if [ -n "$nvdisasm" ] && grep -qE "entry ($matrix_kernels)\(" "$out" \
        && ! "$nvdisasm" "$out.cubin" | grep -q HMMA; then
        echo "no HMMA comes of it"
        return 1
    fi
}

prepare_spirv()
{
    command -v clang-15 > /dev/null && command -v llvm-spirv-15 > /dev/null \
        && command -v spirv-val > /dev/null
}

compile_spirv()
{
    local source=$2 out=$3
    shift 3
    clang-15 -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target spir64 -O2 \
        -Xclang -disable-llvm-passes -emit-llvm -c "$@" "$source" -o "$out.bc" \
        && llvm-spirv-15 --spirv-max-version=1.2 "$out.bc" -o "$out.spv" && spirv-val "$out.spv"
}
