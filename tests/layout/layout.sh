#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/layout.sh - the shape of the tree: which room may include which, and the rest
# of what a reader relies on without looking.
#
#   layout.sh [ROOT]         [this tree]
#
# One line a rule, then what breaks it. layout_catches.sh plants a breach of each.
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-layout-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
: > "$work/verdicts"

# room, folder, and the rooms below it that it may include and link.
cat > "$work/rooms" <<'END'
base    host/base
cl      cl
tensor  host/tensor  base
net_job        net/job         base
net_transport  net/transport   base net_job
net_comm       net/comm        base net_job net_transport
net_collective net/collective  base net_job net_transport net_comm
net_ps         net/ps          base net_job net_transport net_comm
tokenizer host/tokenizer base
data    host/data    base tensor tokenizer
device  host/device  base tensor cl
kernel  host/kernel  base tensor cl device
gemm    host/gemm    base tensor cl device
attention host/attention base tensor device gemm kernel
graph   host/graph   base tensor device gemm kernel attention
optim   host/optim   base tensor device gemm kernel graph
trace   host/trace   base net_job net_transport net_comm
exchange host/exchange base tensor device kernel graph net_job net_transport net_comm net_collective
compress host/compress base tensor device kernel graph optim net_job net_transport net_comm net_collective
sync    host/sync    base tensor device kernel graph optim compress net_job net_transport net_comm net_collective net_ps
pipeline host/pipeline base tensor device gemm kernel graph exchange compress sync net_job net_transport net_comm net_collective
planner host/planner base tensor tokenizer data device gemm kernel graph optim exchange pipeline compress sync net_job net_transport net_comm net_collective
train   host/train   base tensor device gemm kernel graph optim tokenizer data exchange pipeline compress sync net_job net_transport net_comm net_collective
models  models       base tensor tokenizer data device gemm kernel graph
cli     host/cli     base tensor cl net_job net_transport net_comm net_collective net_ps tokenizer data device gemm kernel attention graph exchange pipeline planner compress sync trace optim train models
END

# rule TEXT: passes if standard input, the list of breaches, is empty.
rule()
{
    cat > "$work/breaches"
    if [ -s "$work/breaches" ]; then
        echo "FAILED $1"
        sed 's/^/    /' "$work/breaches"
        echo failed >> "$work/verdicts"
    else
        echo "ok $1"
        echo passed >> "$work/verdicts"
    fi
}

# Every file of the tree but dot-files, builds and what Python leaves.
files()
{
    find . \( -name '.?*' -o -path './build*' -o -name __pycache__ -o -name compile_commands.json \) \
        -prune -o -type f -print | sed 's,^\./,,' | sort
}
files > "$work/files"

sources()       # of a room's folder
{
    grep "^$1/[^/]*\.[ch]\$" "$work/files"
}

# ---- rooms ---------------------------------------------------------------------------------

# includes FILE: the paths it includes with quotes.
includes()
{
    sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$1"
}

awk '{ print $2 }' "$work/rooms" > "$work/folders"
sed -n 's,^\(host/[^/]*\|cl\|net/[^/]*\|models\)/[^/]*\.[ch]$,\1,p' "$work/files" | sort -u \
    | grep -vxFf "$work/folders" | sed 's/$/ is a room without a row in this test/' \
    | rule "every room has its row here"

while read -r room folder allowed; do
    for file in $(sources "$folder"); do
        for header in $(includes "$file"); do
            other=$(awk -v f="${header%/*}" '$2 == f { print $1 }' "$work/rooms")
            if [ ! -f "$header" ]; then
                echo "$file includes \"$header\", which is no path from the top folder"
            elif [ -z "$other" ]; then
                echo "$file includes \"$header\", which belongs to no room"
            elif [ "$other" = "$room" ]; then
                :
            else
                case " $allowed " in
                *" $other "*) ;;
                *) echo "$file includes \"$header\": $room stands below $other" ;;
                esac
                case $header in
                *_private.h) echo "$file includes \"$header\", which is private to $other" ;;
                esac
            fi
        done
    done
done < "$work/rooms" | rule "rooms include only rooms below them"

# The rooms that a CMakeLists.txt names behind USES, in a variable `uses`, or as its libraries.
linked()
{
    sed 's/#.*//; s/[()]/ & /g' "$1" | tr -s ' ' '\n' \
        | awk -v rooms="$(awk '{ printf "%s ", $1 }' "$work/rooms")" '
            BEGIN { n = split(rooms, list, " "); for (i = 1; i <= n; i++) known[list[i]] = 1 }
            $1 == "USES" || $1 == "uses" || $1 == "PRIVATE" || $1 == "PUBLIC" { on = 1 }
            $1 == ")" { on = 0 }
            on && ($1 in known) { print $1 }' | sort -u
}

while read -r room folder allowed; do
    [ -f "$folder/CMakeLists.txt" ] || continue
    linked "$folder/CMakeLists.txt" > "$work/linked"
    for other in $(cat "$work/linked"); do
        case " $allowed " in
        *" $other "*) ;;
        *) echo "$folder/CMakeLists.txt: $room links $other, which stands above it" ;;
        esac
    done
    for file in $(sources "$folder"); do
        includes "$file"
    done | sed 's,/[^/]*$,,' | sort -u | while read -r other; do
        other=$(awk -v f="$other" '$2 == f { print $1 }' "$work/rooms")
        [ -z "$other" ] || [ "$other" = "$room" ] || grep -qx "$other" "$work/linked" \
            || echo "$folder/CMakeLists.txt: $room includes $other, but does not name it"
    done
done < "$work/rooms" | rule "CMake's USES name the rooms that are included"

code=$(grep '^\(host\|cl\|net\|models\|tests\)/.*\.[ch]$' "$work/files")
grep -nE '^ *# *include *<(CL/|clblast)' $code \
    | grep -vE '^(host/device/|host/gemm/gemm_clblast\.c:|tests/device/faulty_layer\.c:|tests/kernel/emulated/driver\.h:)' \
    | rule "OpenCL's headers are seen by host/device, the CLBlast engine and the tests' own runtimes alone"
grep -nE '^ *# *include *<oneapi/' $code | grep -v '^host/gemm/onednn_api\.h:' \
    | rule "oneDNN's header is seen by the engine that uses it alone"
grep -nE '^ *# *include *<(infiniband|rdma)/' $code | grep -v '^net/' \
    | rule "InfiniBand's headers are seen by net alone"

# ---- files ---------------------------------------------------------------------------------

grep -v 'CMakeLists\.txt$' "$work/files" | sed 's,.*/,,' | sort | uniq -d \
    | while read -r name; do
        echo "$name:" $(grep -E "(^|/)$(printf %s "$name" | sed 's/\./\\./g')\$" "$work/files")
    done | rule "file names are unique across the tree"

for entry in *; do
    case $entry in
    CMakeLists.txt|CMakePresets.json|README.md|CONTRIBUTING.md|CHANGELOG.md|LICENSE|cl|host|net|models|tests|findings) ;;
    build*|compile_commands.json) ;;
    *) echo "$entry" ;;
    esac
done | rule "nothing else lies in the top folder"

# Spelled in halves, or this file would be the first breach.
grep -nwE "TO""DO|FIX""ME|XX""X|HA""CK" $(cat "$work/files") /dev/null \
    | rule "nothing is left for later in a comment"

for file in $(grep -E '\.([ch]|cl|clh|sh|py|cmake)$|(^|/)CMakeLists\.txt$' "$work/files"); do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' || echo "$file"
done | rule "every source file names its licence in its first lines"

grep -nE '"[^"]*out of memory' $(grep '^\(host\|net\|models\)/.*\.c$' "$work/files") | grep -v ':[0-9]*: \*' \
    | rule "a failure for want of memory names what there was no memory for"

# Libraries report; only the program prints and exits. The log is the one that writes.
for file in $(grep '^\(host\|net\|models\)/.*\.[ch]$' "$work/files" \
              | grep -vE '^host/(cli/|base/log\.c$)'); do
    gcc -fpreprocessed -dD -E -P "$file" 2> /dev/null | sed 's/"\([^"\\]\|\\.\)*"/""/g' \
        | grep -E '(^|[^_[:alnum:]])((exit|_exit|_Exit|abort|printf|vprintf|puts|putchar|perror) *\(|stdout|stderr)' \
        | sed "s,^ *,$file: ,"
done | rule "no library prints, exits or aborts"

# ---- headers ---------------------------------------------------------------------------------

# Twice in a row, so that a missing include guard shows as well.
flags="-std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only -I. \
       -D_GNU_SOURCE -DCL_TARGET_OPENCL_VERSION=120"
for compiler in gcc clang; do
    if ! command -v $compiler > /dev/null; then
        echo "$compiler is not here: its headers go unchecked"
        continue
    fi
    for header in $(grep '\.h$' "$work/files"); do
        printf '#include "%s"\n#include "%s"\ntypedef int nothing_else;\n' "$header" "$header" \
            > "$work/alone.c"
        $compiler $flags "$work/alone.c" > "$work/messages" 2>&1 \
            || { echo "$header:"; head -n 5 "$work/messages"; }
    done | rule "every header compiles alone under $compiler"
done

failed=$(grep -c failed "$work/verdicts")
echo "$(grep -c passed "$work/verdicts") passed, $failed failed"
[ "$failed" -eq 0 ]
