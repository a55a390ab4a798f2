#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/peers.sh - the same training step here, in PyTorch, and in llm.c, side by side.
#
#   sh tests/bench/peers.sh [--model M] [--batch B] [--seq T] [--rounds N] [--runs N] [--precision P]
#                            gpt2-124m   4           64        3            5          fp32,bf16
#
# GPT-2 124M, or llama-160m (grouped heads, SwiGLU), on this machine's CPU, all cores: forward, backward, clipping,
# AdamW; in each of the precisions (PyTorch's bf16 is autocast). The programs take turns, round by round, so that whatever else the machine does
# meets them alike; what counts is the median over the rounds. Memory is the most that a process had. PyTorch runs eagerly and, from version 2 on and
# where there is a C++ compiler, compiled; with the number of threads that suits it best, found first.
#
#   $GEARTRAIN   the program                       [built here, Release, in $BUILD or build]
#   $BEFORE      another build of it, to be held against it; without it that row is left out
#   $PRIORITY    a command in front of every step, where the machine is shared: "chrt -r 1"    []
#   $PYTHON      a Python that has torch           [/usr/bin/python3, of package python3-torch]
#   $LLMC        llm.c's train_gpt2, as you built it; without it that row is left out
#
# llm.c's batch and sequence stand in its train_gpt2.c ("int B", "int T"), and are to be B and T;
# its step has neither clipping nor weight decay.
#
# A measurement, not a test: it ends with 0 unless geartrain itself failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
model=gpt2-124m batch=4 seq=64 rounds=3 runs=5 precisions="fp32 bf16"
while [ $# -gt 0 ]; do
    case $1 in
    --model) model=$2 ;;
    --batch) batch=$2 ;;
    --seq) seq=$2 ;;
    --rounds) rounds=$2 ;;
    --runs) runs=$2 ;;
    --precision) precisions=$(echo "$2" | tr , ' ') ;;
    *) sed -n '2,27s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-peers-XXXXXX") || exit 1
running=
trap '[ -z "$running" ] || kill $running 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

case $model in
gpt2-124m) ours=$model ;;
llama-160m)
    ours=$work/llama-160m.json
    cat > "$ours" <<'END'
{ "model_type": "llama", "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
  "hidden_size": 768, "intermediate_size": 3072, "vocab_size": 32000, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false }
END
    ;;
*)
    echo "peers: there is gpt2-124m and llama-160m to compare, not '$model'" >&2
    exit 2
    ;;
esac

cores=$(nproc)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)

# ---- the three of them: each prints the seconds of its median step --------------------------

if [ -z "${GEARTRAIN:-}" ]; then
    build=${BUILD:-$root/build}
    [ -f "$build/CMakeCache.txt" ] \
        || cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DGT_TESTS=OFF > "$work/log" 2>&1 \
        || { cat "$work/log"; exit 1; }
    cmake --build "$build" --target geartrain -j "$cores" > "$work/log" 2>&1 \
        || { tail -n 30 "$work/log"; exit 1; }
    GEARTRAIN=$build/geartrain
fi

geartrain_step()    # precision [program]
{
    $PRIORITY "${2:-$GEARTRAIN}" bench step --model "$ours" --batch "$batch" --seq "$seq" --runs "$runs" \
        --precision "$1" --json > "$work/out" || return 1
    sed -n 's/.*"measured_bytes": \([0-9.]*\).*/\1/p' "$work/out" > "$work/bytes"
    sed -n 's/.*"median_ms": \([0-9.]*\).*/\1/p' "$work/out" | awk '{ print $1 / 1000 }'
}

before_step()
{
    geartrain_step "$1" "$BEFORE"
}

torch_step()        # precision threads runs options...
{
    torch_precision=$1 torch_threads=$2 torch_runs=$3
    shift 3
    $PRIORITY "$PYTHON" "$root/tests/bench/torch_step.py" --model "$model" --batch "$batch" --seq "$seq" --runs "$torch_runs" \
        --threads "$torch_threads" --precision "$torch_precision" "$@" > "$work/out" 2> "$work/log" \
        || { tail -n 3 "$work/log" >&2; return 1; }
    sed -n 's/.*"peak_bytes": \([0-9.]*\).*/\1/p' "$work/out" > "$work/bytes"
    sed -n 's/.*"median_s": \([0-9.e-]*\).*/\1/p' "$work/out"
}

eager_step()
{
    torch_step "$1" "$best_threads" "$runs"
}

compiled_step()
{
    torch_step "$1" "$best_threads" "$runs" --compile
}

# It always makes forty steps; it is stopped after those that count.
llmc_step()         # precision
{
    [ "$1" = fp32 ] || return 0
    : > "$work/llmc/steps"
    (cd "$work/llmc" && OMP_NUM_THREADS=$cores exec stdbuf -oL "$LLMC" > steps 2>&1) &
    running=$!
    while kill -0 $running 2> /dev/null \
            && [ "$(grep -c '^step .*(took ' "$work/llmc/steps")" -lt $((runs + 1)) ]; do
        sleep 0.2
    done
    { kill $running; wait $running; } 2> /dev/null
    # It says how many batches its file of tokens holds.
    batches=$(sed -n 's/^train dataset num_batches: \([0-9]*\).*/\1/p' "$work/llmc/steps")
    if [ "${batches:-$llmc_batches}" -ne "$llmc_batches" ]; then
        echo "llm.c takes another batch or sequence than $batch x $seq: build it with these" >&2
        return
    fi
    sed -n 's/^step .*(took \([0-9.]*\) ms.*/\1/p' "$work/llmc/steps" | head -n $((runs + 1)) \
        | tail -n +2 | awk '{ print $1 / 1000 }' | median
}

median()
{
    sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

# ---- who is here -----------------------------------------------------------------------------

peers=
: "${PRIORITY:=}" "${BEFORE:=}"
[ -z "$BEFORE" ] || peers=before
: "${PYTHON:=/usr/bin/python3}"
if ! "$PYTHON" -c 'import torch' 2> /dev/null && [ "$PYTHON" = /usr/bin/python3 ] \
        && [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
    echo "installing python3-torch"
    { apt-get update && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends python3-torch libopenblas0; } > "$work/log" 2>&1
fi
if "$PYTHON" -c 'import torch' 2> /dev/null; then
    best=
    for threads in "$cores" $(((cores + 1) / 2)); do
        seconds=$(torch_step fp32 "$threads" 2) || continue
        if [ -z "$best" ] || awk "BEGIN { exit !($seconds < $best) }"; then
            best=$seconds best_threads=$threads
        fi
    done
    [ -z "$best" ] || peers="$peers eager"
    version=$("$PYTHON" -c 'import torch; print(torch.__version__)')
    if [ -n "$best" ] && command -v g++ > /dev/null && "$PYTHON" -c 'import torch; torch.compile' 2> /dev/null; then
        peers="$peers compiled"
    else
        echo "without compiled PyTorch: it wants version 2 and g++"
    fi
fi
[ -n "${best:-}" ] || echo "without PyTorch: '$PYTHON' has no working torch (package python3-torch)"

case ${LLMC:-} in
'')  echo "without llm.c: \$LLMC names no program" ;;
/*)  ;;
*/*) LLMC=$PWD/$LLMC ;;
*)   LLMC=$(command -v "$LLMC" || echo "$PWD/$LLMC") ;;
esac
if [ -n "${LLMC:-}" ] && [ "$model" != gpt2-124m ]; then
    echo "without llm.c: it has no $model"
elif [ -n "${LLMC:-}" ] && { [ ! -f "$LLMC" ] || [ ! -x "$LLMC" ]; }; then
    echo "without llm.c: \$LLMC is '$LLMC', which is no program; it wants llm.c's train_gpt2, built"
elif [ -n "${LLMC:-}" ]; then
    mkdir "$work/llmc"
    if ! python3 "$root/tests/bench/llmc_files.py" "$work/llmc"; then
        echo "without llm.c: its files could not be made"
    else
        peers="$peers llmc" llmc_batches=$(((1 << 17) / (batch * seq)))    # of llmc_files.py's tokens
    fi
fi

# ---- in turns --------------------------------------------------------------------------------


for round in $(seq 1 "$rounds"); do
    for precision in $precisions; do
        line="round $round  $precision "
        for program in geartrain $peers; do
            : > "$work/bytes"
            seconds=$("${program}_step" "$precision")
            if [ -n "$seconds" ]; then
                echo "$seconds" >> "$work/$program.$precision"
                cat "$work/bytes" >> "$work/$program.$precision.bytes"
                line="$line  $program $seconds s"
            elif [ "$program" != llmc ] || [ "$precision" = fp32 ]; then
                echo "$program failed"
                [ "$program" != geartrain ] || exit 1
            fi
        done
        echo "$line"
    done
done

row()           # label program precision
{
    [ -s "$work/$2.$3" ] || return
    awk -v label="$1" -v p="$3" -v s="$(median < "$work/$2.$3")" -v own="$(median < "$work/geartrain.$3")" \
        -v bytes="$(median < "$work/$2.$3.bytes")" -v own_bytes="$(median < "$work/geartrain.$3.bytes")" \
        -v tokens=$((batch * seq)) 'BEGIN {
            printf "%-34s %-5s %8.3f %10.1f %8.2f", label, p, s, tokens / s, s / own
            if (bytes) printf " %9.2f %8.2f", bytes / 1e9, bytes / own_bytes
            print "" }'
}

commit=$(git -C "$root" rev-parse --short HEAD 2> /dev/null || echo unknown)
printf '\n# %s, batch %s x %s tokens, %s cores of %s, commit %s\n' \
    "$model" "$batch" "$seq" "$cores" "$processor" "$commit"
printf '# medians of %s rounds of %s steps each, in turns; ratio: time, or memory, against geartrain'"'"'s\n' \
    "$rounds" "$runs"
printf '%-34s %-5s %8s %10s %8s %9s %8s\n' program in s/step tokens/s ratio GB ratio
for precision in $precisions; do
    row geartrain geartrain "$precision"
    row "geartrain before" before "$precision"
    row "PyTorch ${version:-}, ${best_threads:-} threads" eager "$precision"
    row "PyTorch compiled" compiled "$precision"
    row "llm.c, $cores threads" llmc "$precision"
done
if [ -s "$work/geartrain.fp32" ] && [ -s "$work/geartrain.bf16" ]; then
    awk -v w="$(median < "$work/geartrain.fp32")" -v n="$(median < "$work/geartrain.bf16")" \
        'BEGIN { printf "geartrain in bf16: %.2f times as fast as in fp32\n", w / n }'
fi
