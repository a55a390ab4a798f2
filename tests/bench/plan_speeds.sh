#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/plan_speeds.sh - what plans reach on two sub-devices of this CPU, one of them slowed, next to
# the two alone and to what was predicted.
#
#   plan_speeds.sh [SPEED...]          [1 0.5 0.25]: of the second device; needs a quiet machine
#
# $GEARTRAIN [build/geartrain], $DATA a text, $STEPS [24] measured after 6, $ROUNDS [2] in turns; of each
# the quickest step counts, which the rest of the machine disturbed least. "of sum" is against the
# speeds of both devices alone, added up; "off" is how far the prediction was.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${STEPS:=24}" "${ROUNDS:=2}" "${BATCH:=16}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-plans-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
if [ -z "${DATA:-}" ]; then
    DATA=$work/text.txt
    i=0
    while [ $i -lt 20000 ]; do
        echo "$i wheels turn $((i * 7919 % 10007)) teeth, then $((i * i % 9973)) more of them"
        i=$((i + 1))
    done > "$DATA"
fi
cat > "$work/model.json" <<'END'
{ "model_type": "gpt2", "n_layer": 8, "n_head": 4, "n_embd": 256, "n_positions": 128, "n_ctx": 128 }
END
[ -z "${MODEL:-}" ] || cp "$MODEL" "$work/model.json"
export GEARTRAIN_CACHE="$work/cache"

# run NAME OPTIONS...: appends "NAME ms idle predicted_ms predicted_idle" to the table's raw lines
run()
{
    name=$1
    shift
    rm -rf "$work/run"
    if ! timeout 900 "$GEARTRAIN" train --model "$work/model.json" --data "$DATA" --tokenizer byte \
        --out "$work/run" --seq 128 --batch "$BATCH" --steps $((STEPS + 6)) --eval-every 0 --save-every 0 \
        --dropout 0 "$@" > "$work/out" 2> "$work/err"; then
        echo "$name failed: $(tail -n 1 "$work/err")" >&2
        return
    fi
    sed -n 's/.*"step": *\([0-9]*\),.*"step_ms": *\([0-9.]*\).*"bubble": *\([0-9.]*\).*/\1 \2 \3/p' \
        "$work/run/metrics.jsonl" | awk -v last=$((STEPS + 6)) '$1 > 6 && $1 < last' \
        | sort -k 2 -n \
        | awk -v name="$name" -v plan="$(sed -n 's/^plan .*; predicted \([0-9.]*\) ms a step, \([0-9.]*\) % idle.*/\1 \2/p' "$work/err" | head -n 1)" '
            NR == 1 { ms = $2; idle = $3 } END {
                split(plan, p, " ")
                print name, ms, 100 * idle, p[1] + 0, p[2] + 0 }' >> "$work/raw"
}

# The data plan with as many micro-batches for each, whatever their speeds.
equal_plan()    # SPEC SPEC
{
    timeout 300 "$GEARTRAIN" plan --model "$work/model.json" --devices "$1,$2" --seq 128 --batch "$BATCH" \
        --replicas 2 --stages 1 --micro-batch 1 --out "$work/equal.json" > "$work/out" 2>&1 \
        && sed "s/\"micro_batches\": *[0-9]*/\"micro_batches\": $((BATCH / 2))/" "$work/equal.json" \
            > "$work/equal2.json"
}

table()         # TITLE: the better of each name's rounds, and shares of the sum
{
    echo
    echo "$1"
    sort -k 1,1 -k 2,2n "$work/raw" | awk '!seen[$1]++' | awk '
        { ms[$1] = $2; idle[$1] = $3; want[$1] = $4; wish[$1] = $5; name[NR] = $1 }
        END {
            sum = 1 / ms["1-first-alone"] + 1 / ms["2-second-alone"]
            printf "%-22s %9s %8s %8s %10s %8s %8s\n", "", "ms/step", "of sum", "idle", "predicted",
                   "off", "idle"
            for (i = 1; i <= NR; i++) {
                n = name[i]
                printf "%-22s %9.1f %7.1f%%", n, ms[n], 100 / ms[n] / sum
                if (want[n] > 0)
                    printf " %7.1f%% %10.1f %+7.1f%% %7.1f%%", idle[n], want[n],
                           100 * (want[n] / ms[n] - 1), wish[n]
                printf "\n"
            }
        }'
}

[ $# -gt 0 ] || set -- 1 0.5 0.25
for speed; do
    first=cpu:0.0 second=cpu:0.1
    [ "$speed" = 1 ] || second=cpu:0.1@$speed
    : > "$work/raw"
    equal_plan "$first" "$second"
    round=0
    while [ $round -lt "$ROUNDS" ]; do
        run 1-first-alone --devices "$first" --micro-batch 1
        run 2-second-alone --devices "$second" --micro-batch 1
        run 3-equal-split --devices "$first,$second" --plan "$work/equal2.json"
        run 4-data --devices "$first,$second" --replicas 2 --stages 1
        run 5-pipeline --devices "$first,$second" --replicas 1 --stages 2
        run 6-planned --devices "$first,$second"
        if [ "$speed" = 1 ]; then
            for schedule in gpipe 1f1b zb-h1 list interleaved; do
                run "7-$schedule" --devices "$first,$second" --replicas 1 --stages 2 --micro-batch 2 \
                    --schedule $schedule
            done
        fi
        round=$((round + 1))
    done
    table "second device at $speed of its speed"
done
