#!/bin/sh
# SPDX-License-Identifier: MIT
# models/quickstart.sh - from nothing to text written by a model trained here, in minutes.
#
#   sh models/quickstart.sh [TEXT]
#
# On a bare Debian 12: installs what is missing (as root), builds Release into build/, takes
# TEXT or the King James Bible of package bible-kjv, trains a small GPT on it for about three
# minutes on two cores, and prints a sample. What is built and prepared is used again; each
# run gets a folder of its own, runs/quickstart-N.
#
#   $BUILD   folder to build in       [build]
#   $RUNS    folder for the runs      [runs below $BUILD]
#   $STEPS   optimizer steps          [2000]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
given=${1:-}
if [ -n "$given" ]; then
    [ -f "$given" ] || { echo "quickstart: there is no text file '$given'" >&2; exit 2; }
    given=$(cd "$(dirname "$given")" && pwd)/$(basename "$given")
fi
cd "$root"
: "${BUILD:=build}" "${STEPS:=2000}"
: "${RUNS:=$BUILD/runs}"

# ---- packages ------------------------------------------------------------------------------

packages="cmake ninja-build gcc libc6-dev pkg-config ocl-icd-opencl-dev opencl-headers
          pocl-opencl-icd libopenblas-dev libdnnl-dev libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev
          libxxhash-dev libsodium-dev libibverbs-dev"
[ -n "$given" ] || packages="$packages bible-kjv bible-kjv-text"

absent=
if command -v dpkg-query > /dev/null; then
    for package in $packages; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null | grep -qx installed \
            || absent="$absent $package"
    done
fi
if [ -n "$absent" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "quickstart: these packages are missing, and only root can install them:$absent" >&2
        exit 1
    fi
    echo "== installing$absent"
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends $absent; } > "$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "quickstart: cannot install$absent" >&2
        exit 1
    fi
    rm -f "$log"
fi

# ---- the program -----------------------------------------------------------------------------

mkdir -p "$BUILD"
echo "== building geartrain in $BUILD"
if [ ! -f "$BUILD/CMakeCache.txt" ]; then
    cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGT_TESTS=OFF \
        > "$BUILD/quickstart.log" 2>&1 || { tail -n 30 "$BUILD/quickstart.log" >&2; exit 1; }
fi
cmake --build "$BUILD" --target geartrain > "$BUILD/quickstart.log" 2>&1 \
    || { tail -n 30 "$BUILD/quickstart.log" >&2; exit 1; }
geartrain=$BUILD/geartrain

# ---- the text ----------------------------------------------------------------------------------

text=$given
if [ -z "$text" ]; then
    text=$BUILD/bible.txt
    # A verse a line, without its number; written aside, so that half a text is never used.
    if [ ! -s "$text" ]; then
        bible -f -l999 Gen1:1-Rev22:21 < /dev/null | sed 's/^[^ ]* //' > "$text.new"
        mv "$text.new" "$text"
    fi
fi
echo "== text: $text, $(wc -c < "$text") bytes"

# ---- training --------------------------------------------------------------------------------

number=1
mkdir -p "$RUNS"
until mkdir "$RUNS/quickstart-$number" 2> /dev/null; do
    number=$((number + 1))
    [ $number -lt 10000 ] || { echo "quickstart: cannot make a folder in $RUNS" >&2; exit 1; }
done
run=$RUNS/quickstart-$number
echo "== training a small GPT for $STEPS steps; the run is in $run"
"$geartrain" train --model gpt2-mini --data "$text" --tokenizer bpe:1024 --out "$run" \
    --steps "$STEPS" --batch 16 --lr 2e-3 --min-lr 2e-4 --warmup $((STEPS > 1000 ? 100 : STEPS / 10)) --dropout 0 \
    --eval-every 500 --eval-batches 50 --save-every 500

# ---- a sample --------------------------------------------------------------------------------

prompt=
[ -n "$given" ] || prompt="And the LORD said"
echo "== what it writes"
if [ -n "$prompt" ]; then
    "$geartrain" generate --from "$run" --prompt "$prompt" --tokens 200 --temperature 0.7 --quiet
else
    "$geartrain" generate --from "$run" --tokens 200 --temperature 0.7 --quiet
fi
cat <<END

== next
The run is in $run: metrics.jsonl, loss.svg, checkpoints/.
  more text    $geartrain generate --from $run --prompt "In the beginning"
  train on     $geartrain train --out $run --resume --steps $((STEPS * 2))
  your text    sh models/quickstart.sh FILE
  export       $geartrain export $run -o gpt2-folder
  speed        $geartrain bench step --model gpt2-124m
END
