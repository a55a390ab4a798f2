#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/run.sh - the test command: installs what is missing, builds, runs every test.
#
#   sh tests/run.sh            everything, some twenty minutes on two cores
#   sh tests/run.sh fast       the fast CUnit programs alone
#   sh tests/run.sh sanitized  the build with sanitizers alone
#   sh tests/run.sh threads    the network's programs under ThreadSanitizer alone
#   sh tests/run.sh NAME...    these alone: test_gemm, fuzz_tokens, vendors, ...
#
# Works from any folder, on a bare Debian 12 as root; without root if the packages named
# below are there already. Its last line is `N passed, N failed, N skipped`, and it exits 0
# only if nothing failed. What it counts: the cases of CUnit programs, the cases of shell
# tests, and one for each fuzz target.
#
# Nothing is listed here by hand. A CUnit program or fuzz target runs because CMake built it
# (build/tests/programs.txt). A shell test is an executable tests/ROOM/NAME.sh; ROOM `bench`
# is left out, for it measures and has no verdict. A shell test starts in the top folder, with
# $BUILD, an empty $TMPDIR and $GEARTRAIN (the program); it closes with `N passed, N failed`
# and exits 0, 1, or 77 if it cannot run here. As many tests run at a time as there are cores. One
# that cannot share the machine, because it judges by time or takes all of something, says so: a
# script by a line `# Runs alone: WHY` in its head, a program by ALONE in its test_program().
#
# Three builds, all with warnings as errors: gcc with Release flags, clang with AddressSanitizer
# and UndefinedBehaviorSanitizer, and clang with ThreadSanitizer. Every fast program and every
# fuzz target runs in the first two, kernel tests at tiny sizes in the second, for a sanitizer
# sees nothing of a kernel; known leaks of OpenCL drivers are in tests/leaks.txt. The third is
# for the fast programs of net/, whose ranks are threads.
#
#   $BUILD      folder to build in                                     [build-test]
#   $LIMIT      seconds a program may take before it counts as failed         [1200]
#   $ROUNDS     mutations a fuzz target tries                                [50000]
#   $JOBS       tests that run at a time                            [number of cores]
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
cd "$root" || exit 1
: "${BUILD:=$root/build-test}" "${LIMIT:=1200}" "${ROUNDS:=50000}"
case $BUILD in /*) ;; *) BUILD=$root/$BUILD ;; esac
GEARTRAIN=$BUILD/geartrain
export BUILD GEARTRAIN
logs=$BUILD/logs
passed=0 failed=0 skipped=0 broken=

mkdir -p "$logs" || exit 1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-run-XXXXXX") || exit 1
trap 'stop_all; rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

# Ends what still runs, if this is ended early.
stop_all()
{
    pids=$(cat "$scratch"/running-* 2> /dev/null)
    [ -z "$pids" ] || kill $pids 2> /dev/null
    wait
}

# What failed once more, where the end of a long output is all that is read.
show_broken()
{
    [ -n "$broken" ] || return
    for name in $broken; do
        printf '\n---- %s:\n' "$name"
        grep -v '^$' "$logs/$name.log" 2>&1 | tail -n 25
    done
    printf '\nfailed:%s\n' "$broken"
}

close()
{
    finish
    show_broken
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ]
    exit
}

# fail NAME LOG: counts one failure and shows the end of its output.
fail()
{
    failed=$((failed + 1))
    broken="$broken $1"
    printf '%s\n' "---- $1 failed; the end of $2:"
    tail -n 60 "$2"
    printf '%s\n' "----"
}

# ---- packages ------------------------------------------------------------------------------

needed="cmake ninja-build gcc clang libclang-rt-dev libc6-dev pkg-config ocl-icd-opencl-dev
        opencl-headers pocl-opencl-icd libclblast-dev libopenblas-dev libdnnl-dev libcunit1-dev
        libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev libxxhash-dev libsodium-dev
        libibverbs-dev"
# What shell tests make use of; a test skips what it does not find.
helpful="clang-15 clang-19 clang-format-19 clang-tidy-19 rocm-device-libs libclc-15 llvm-spirv-15
         spirv-tools oclgrind python3 python3-pip python3-venv slurmctld slurmd slurm-client munge openmpi-bin
         libopenmpi-dev libpmix-dev openssh-server openssh-client iproute2 qemu-system-x86
         busybox-static kmod cpio rdma-core ibverbs-providers ibverbs-utils perftest
         git groff-base zsh dpkg-dev"

missing()
{
    command -v dpkg-query > /dev/null || return
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed \
            || printf '%s ' "$package"
    done
}

updated=
install()
{
    [ "$(id -u)" -eq 0 ] || return 1
    [ -n "$updated" ] || apt-get update > "$logs/apt.log" 2>&1
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
        >> "$logs/apt.log" 2>&1
}

install_packages()
{
    absent=$(missing $needed)
    if [ -n "$absent" ]; then
        [ "$(id -u)" -ne 0 ] || echo "installing $absent"
        if ! install $absent; then
            echo "cannot install: $absent" > "$logs/packages.log"
            [ "$(id -u)" -eq 0 ] && tail -n 20 "$logs/apt.log" >> "$logs/packages.log" \
                || echo "run this as root, or have these packages installed" >> "$logs/packages.log"
            fail packages "$logs/packages.log"
            close
        fi
    fi
    [ "$1" = all ] || return 0
    for package in $(missing $helpful); do
        install "$package" || echo "without $package, which is not to be had: its tests are skipped"
    done
}

# ---- building --------------------------------------------------------------------------------

# run_build NAME FOLDER COMPILER OPTIONS...: configures a new folder, and builds what changed: all, or
# what $targets names, with $with (-j 1) if that is set.
targets= with= launcher=
! command -v ccache > /dev/null || launcher=-DCMAKE_C_COMPILER_LAUNCHER=ccache
run_build()
{
    label=build-$1 log=$logs/build-$1.log folder=$2 compiler=$3
    shift 3
    echo "building with $compiler in ${folder#"$root"/}"
    if [ ! -f "$folder/CMakeCache.txt" ]; then
        cmake -S . -B "$folder" -G Ninja -DCMAKE_C_COMPILER="$compiler" -DGT_WERROR=ON $launcher "$@" \
            > "$log" 2>&1 || { fail "$label" "$log"; return 1; }
    fi
    cmake --build "$folder" $with ${targets:+--target $targets} > "$log" 2>&1 \
        || { fail "$label" "$log"; return 1; }
}

# ---- running ---------------------------------------------------------------------------------

# Tests run $JOBS at a time, each in a folder of its own below $scratch; a test that measures, or needs
# all of the machine, waits until the others are done and has it alone. Whoever ends first, what they
# print comes in the order they were started in.
#
# The pool is a pipe with as many lines in it as tests may run: a test takes one and puts it back,
# one that runs alone takes all.
: "${JOBS:=$(nproc 2> /dev/null || echo 1)}"
mkdir "$scratch/results" && mkfifo "$scratch/places" && exec 3<> "$scratch/places" || exit 1
yes free | head -n "$JOBS" >&3
started=0 shown=0 before=

take_places()
{
    for place in $(seq "$1"); do
        read -r place <&3
    done
}

# start alone|beside HOW LABEL ...: runs it by run_HOW in the background, after what $before says.
start()
{
    places=1
    [ "$1" != alone ] || places=$JOBS
    shift
    take_places "$places"
    show
    started=$((started + 1)) number=$started result=$scratch/results/$started
    (
        passed=0 failed=0 skipped=0 broken= how=$1
        shift
        $before
        "run_$how" "$@" > "$result.text" 2>&1
        echo "$passed $failed $skipped $broken" > "$result.new"
        mv "$result.new" "$result"
        rm -rf "$scratch/tmp-$number"
        yes free | head -n "$places" >&3
        [ "$failed" -eq 0 ]
    ) &
}

# Shows and counts what has ended, up to the first that has not.
show()
{
    while [ "$shown" -lt "$started" ] && [ -f "$scratch/results/$((shown + 1))" ]; do
        shown=$((shown + 1))
        cat "$scratch/results/$shown.text"
        read -r good bad skips names_of_bad < "$scratch/results/$shown"
        passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skips))
        [ -z "$names_of_bad" ] || broken="$broken $names_of_bad"
        rm -f "$scratch/results/$shown" "$scratch/results/$shown.text"
    done
}

# Waits for all that was started.
finish()
{
    take_places "$JOBS"
    show
    yes free | head -n "$JOBS" >&3
}

# run LABEL COMMAND...: output to $log, its status to $status, seconds to $seconds. What a shell runs
# in the background ignores SIGINT and SIGQUIT, which tests send.
run()
{
    label=$1 log=$logs/$1.log temporary=$scratch/tmp-$number
    shift
    mkdir "$temporary"
    begun=$(date +%s)
    TMPDIR=$temporary env --default-signal=INT,QUIT timeout -k 10 "$LIMIT" "$@" \
        > "$log" 2>&1 < /dev/null 3>&- &
    echo $! > "$scratch/running-$number"
    wait $!
    status=$?
    rm -f "$scratch/running-$number"
    seconds=$(($(date +%s) - begun))
    [ $status -ne 124 ] && [ $status -ne 137 ] || echo "stopped after $seconds s" >> "$log"
}

# A CUnit program: its own summary counts. Whatever a case skipped did not pass. At its end LeakSanitizer stops
# all of its threads; where it says that it could not, which was seen once, nothing was looked at, and the program
# runs once more.
run_cunit()
{
    run "$@"
    if grep -q 'LeakSanitizer has encountered a fatal error' "$log"; then
        echo "$label: once more, for LeakSanitizer could not stop it to look for leaks:"
        grep '^==' "$log" | tail -n 20 | sed 's/^/  /'
        mv "$log" "${log%.log}-before.log"
        rm -rf "$temporary"
        run "$@"
    fi
    set -- $(awk '/^ *Test: /          { said = 0 }
                  /skipped: / && !said { said = 1; skips++ }
                  $1 == "tests"        { ok = $4; bad = $5; whole = 1 }
                  END                  { print whole + 0, ok - skips, bad + 0, skips + 0 }' "$log")
    printf '\n%s (%d s)\n' "$label" "$seconds"
    sed -n '/^Run Summary/,$p' "$log" | grep -E '^Run Summary|^ +(suites|tests|asserts) '
    grep 'skipped: ' "$log" | sed 's/^ *Test: /  /'
    if [ "$1" -eq 0 ]; then
        fail "$label" "$log"
        return
    fi
    passed=$((passed + $2)) skipped=$((skipped + $4))
    if [ "$3" -gt 0 ]; then
        fail "$label" "$log"
        failed=$((failed + $3 - 1))
    elif [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        fail "$label" "$log"            # all cases held, yet it died, or leaked
    fi
}

# A shell test: its closing line counts, or its exit status where it prints none.
run_shell()
{
    run "$@"
    set -- $(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed.*/\1 \2/p' "$log" | tail -n 1)
    printf '\n%s (%d s)\n' "$label" "$seconds"
    grep -vE '^ok |^[0-9]+ passed, [0-9]+ failed' "$log" | head -n 20 | sed 's/^/  /'
    grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | sed 's/^/  /'
    if [ "$status" -eq 77 ]; then
        skipped=$((skipped + 1))
        return
    fi
    passed=$((passed + ${1:-0}))
    if [ "${2:-0}" -gt 0 ]; then
        fail "$label" "$log"
        failed=$((failed + $2 - 1))
    elif [ "$status" -ne 0 ]; then
        fail "$label" "$log"
    elif [ $# -eq 0 ]; then
        passed=$((passed + 1))
    fi
}

run_fuzz()
{
    label=$1 program=$2
    run "$label" "$program" -n "$ROUNDS"
    printf '\n%s (%d s): %d rounds\n' "$label" "$seconds" "$ROUNDS"
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
    else
        fail "$label" "$log"
        cp "$temporary"/*.input "$logs/" 2> /dev/null && echo "the input is in $logs"
    fi
}

# programs FOLDER TIER: the programs that CMake listed, each behind `alone` or `beside`.
programs()
{
    [ ! -f "$1/tests/programs.txt" ] || sed -n "s/^$2 //p" "$1/tests/programs.txt"
}

shell_tests()
{
    for script in tests/*/*.sh; do
        case $script in tests/bench/*) continue ;; esac
        [ ! -x "$script" ] || echo "$script"
    done
}

# wanted NAME: is it among the names asked for, if any were?
wanted()
{
    [ -z "$names" ] && return 0
    for name in $names; do
        [ "$name" != "$1" ] || return 0
    done
    return 1
}

run_tier()      # FOLDER TIER SUFFIX
{
    kind=cunit
    [ "$2" != fuzz ] || kind=fuzz
    programs "$1" "$2" > "$scratch/programs"
    while read -r concurrency program; do
        name=${program##*/}
        wanted "$name" && [ -x "$program" ] || continue
        found=yes
        start "$concurrency" $kind "$name$3" "$program"
    done < "$scratch/programs"
}

# run_scripts alone|beside: the shell tests that run so.
run_scripts()
{
    for script in $(shell_tests); do
        name=${script##*/} name=${name%.sh} concurrency=beside
        wanted "$name" || continue
        found=yes
        ! grep -q '^# Runs alone: ' "$script" || concurrency=alone
        [ "$concurrency" != "$1" ] || start "$1" shell "$name" "$root/$script"
    done
}

# ---- all of it -------------------------------------------------------------------------------

names=$* found=

# The two builds with sanitizers: each is made beside the tests that run before its own do.
build_sanitized()
{
    start beside build sanitized "$BUILD/sanitized" clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DGT_SANITIZE=address,undefined
    sanitized_build=$!
}

build_threads()
{
    targets=
    for part in net/*/ net/verbs/; do
        part=tests/$(basename "$part")
        [ ! -f "$part/CMakeLists.txt" ] || targets="$targets $part/all"
    done
    start beside build threads "$BUILD/threads" clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGT_SANITIZE=thread
    threads_build=$! targets=
}

# use_sigaltstack=0: a driver's compiler (LLVM in PoCL) gives the thread it runs in an alternate
# signal stack of its own, and the sanitizer, which takes it for the one it mapped, then cannot
# unmap it when the thread ends, and aborts.
set_sanitized()
{
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:use_sigaltstack=0
    LSAN_OPTIONS=suppressions=$root/tests/leaks.txt:print_suppressions=0
    UBSAN_OPTIONS=print_stacktrace=1
    GT_TEST_TINY=1
    export ASAN_OPTIONS LSAN_OPTIONS UBSAN_OPTIONS GT_TEST_TINY
}

set_threads()
{
    GT_TEST_TINY=1 TSAN_OPTIONS=second_deadlock_stack=1
    export GT_TEST_TINY TSAN_OPTIONS
}

run_sanitized()
{
    wait "$sanitized_build" || return
    before=set_sanitized
    run_tier "$BUILD/sanitized" fast '-sanitized'
    run_tier "$BUILD/sanitized" fuzz '-sanitized'
    before=
}

run_threads()
{
    wait "$threads_build" || return
    before=set_threads
    run_tier "$BUILD/threads" fast '-threads'
    before=
}

case $names in
''|fast|sanitized|threads) tiers=${names:-all} names= ;;
*)                 tiers=some ;;
esac
if [ "$tiers" = all ]; then
    install_packages all
else
    install_packages needed
fi
if [ "$tiers" != sanitized ] && [ "$tiers" != threads ]; then
    run_build gcc "$BUILD" gcc -DCMAKE_BUILD_TYPE=Release || close
fi
case $tiers in
all)
    with='-j 1'
    build_sanitized
    run_tier "$BUILD" fast ''
    build_threads
    run_scripts beside
    run_tier "$BUILD" fuzz ''
    run_tier "$BUILD" slow ''
    run_sanitized
    run_threads
    run_scripts alone ;;
fast)
    run_tier "$BUILD" fast '' ;;
some)
    run_tier "$BUILD" fast ''
    run_scripts beside
    run_tier "$BUILD" fuzz ''
    run_tier "$BUILD" slow ''
    run_scripts alone ;;
sanitized)
    build_sanitized
    run_sanitized ;;
threads)
    build_threads
    run_threads ;;
esac
if [ "$tiers" = some ] && [ -z "$found" ]; then
    echo "no test is called $names" > "$logs/names.log"
    fail names "$logs/names.log"
fi
close
