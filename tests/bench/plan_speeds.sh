#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/plan_speeds.sh - what plans reach on two halves of this CPU, the second one slowed, next to
# the two by themselves and to what was predicted.
#
#   plan_speeds.sh [SPEED...]          [1 0.5 0.25]: of the second device; needs a quiet machine
#
# $GEARTRAIN [build/geartrain], $DATA a text, $STEPS [10] measured after 4, $ROUNDS [5] in turns, $BATCH [16].
# "of sum": the speed, of both devices' by themselves, added up. They run by themselves at the same time, each on
# its half of the processors and with micro-batches as it likes them: one after the other they would have the memory
# and the clock of both. Of a run the median of its steps counts, of a name the median of its rounds, each
# against the sum of the same round, with the least and the most; "off" is how far the prediction was.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${STEPS:=10}" "${ROUNDS:=5}" "${BATCH:=16}"
warm=4
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

# run NAME OPTIONS...: appends "ROUND|NAME|ms|idle|predicted ms|predicted idle" to the raw lines; $prefix: before it
prefix=
run()
{
    name=$1
    shift
    rm -rf "$work/run.$name"
    if ! $prefix timeout 900 "$GEARTRAIN" train --model "$work/model.json" --data "$DATA" --tokenizer byte \
        --out "$work/run.$name" --seq 128 --batch "$BATCH" --steps $((STEPS + warm)) --eval-every 0 --save-every 0 \
        --dropout 0 "$@" > "$work/out.$name" 2> "$work/err.$name"; then
        echo "$name failed: $(tail -n 1 "$work/err.$name")" >&2
        return
    fi
    planned=$(sed -n 's/^plan .*; predicted \([0-9.]*\) ms a step, \([0-9.]*\) % idle.*/\1|\2/p' "$work/err.$name" \
        | head -n 1)
    [ "$name" != "equal shares" ] || planned=          # the plan's, from before its shares were changed
    sed -n 's/.*"step": *\([0-9]*\),.*"step_ms": *\([0-9.]*\).*/\1 \2 &/p' "$work/run.$name/metrics.jsonl" \
        | awk -v warm=$warm '$1 > warm { idle = 0; if (match($0, /"bubble": *[0-9.]+/))
              { idle = substr($0, RSTART, RLENGTH); sub(/.*: */, "", idle) }; print $2, idle }' | sort -n \
        | awk -v head="$round|$name|" -v planned="${planned:-0|0}" '{ ms[NR] = $1; idle += $2 }
              END { if (NR) print head ms[int((NR + 1) / 2)] "|" 100 * idle / NR "|" planned }' >> "$work/raw"
}

# The data plan with as many micro-batches for each, whatever their speeds.
equal_plan()    # SPEC SPEC
{
    timeout 300 "$GEARTRAIN" plan --model "$work/model.json" --devices "$1,$2" --seq 128 --batch "$BATCH" \
        --replicas 2 --stages 1 --micro-batch $((BATCH / 4)) --out "$work/equal.json" > "$work/out" 2>&1 \
        && sed "s/\"micro_batches\": *[0-9]*/\"micro_batches\": 2/" "$work/equal.json" \
            > "$work/equal2.json"
}

table()         # TITLE: of each name the medians of its rounds
{
    echo
    echo "$1"
    awk -F '|' '
        function median(list, n, i, k, t) {
            for (i = 2; i <= n; i++)
                for (k = i; k > 1 && list[k - 1] > list[k]; k--) { t = list[k]; list[k] = list[k - 1]; list[k - 1] = t }
            return list[int((n + 1) / 2)]
        }
        !($2 in seen) { seen[$2] = 1; name[++names] = $2 }
        { ms[$1, $2] = $3; idle[$1, $2] = $4; want[$2] = $5; wish[$2] = $6; rounds = $1 > rounds ? $1 : rounds }
        END {
            printf "%-24s %8s %7s %14s %7s %10s %7s %7s\n", "", "ms/step", "of sum", "least-most", "idle", "predicted",
                   "off", "idle"
            for (i = 1; i <= names; i++) {
                n = 0
                for (r = 1; r <= rounds; r++)
                    if ((r, name[i]) in ms && (r, "first alone") in ms && (r, "second alone") in ms) {
                        a[++n] = ms[r, name[i]]
                        b[n] = 100 / a[n] / (1 / ms[r, "first alone"] + 1 / ms[r, "second alone"])
                        c[n] = idle[r, name[i]]
                    }
                if (!n)
                    continue
                m = median(a, n)
                of = median(b, n)
                printf "%-24s %8.1f %6.1f%% %6.1f-%6.1f%%", name[i], m, of, b[1], b[n]
                if (name[i] !~ / alone$/)
                    printf " %6.1f%%", median(c, n)
                if (want[name[i]] > 0)
                    printf " %10.1f %+6.1f%% %6.1f%%", want[name[i]], 100 * (want[name[i]] / m - 1), wish[name[i]]
                printf "\n"
            }
        }' "$work/raw"
}

half=$(($(nproc) / 2))
alone()         # WHICH OF-THE-HALVES DEVICE
{
    if command -v taskset > /dev/null; then prefix="taskset -c $(($2 * half))-$((($2 + 1) * half - 1))"; fi
    run "$1 alone" --devices "$3"
}

[ $# -gt 0 ] || set -- 1 0.5 0.25
for speed; do
    first=cpu:0.0 second=cpu:0.1
    [ "$speed" = 1 ] || second=cpu:0.1@$speed
    : > "$work/raw"
    equal_plan "$first" "$second"
    round=1
    while [ $round -le "$ROUNDS" ]; do
        alone first 0 "$first" &
        alone second 1 "$second" &
        wait
        run "equal shares" --devices "$first,$second" --plan "$work/equal2.json"
        run "data" --devices "$first,$second" --replicas 2 --stages 1
        run "pipeline" --devices "$first,$second" --replicas 1 --stages 2
        run "planned" --devices "$first,$second"
        if [ "$speed" = 1 ]; then
            for schedule in gpipe 1f1b zb-h1 list interleaved; do
                run "pipeline, $schedule" --devices "$first,$second" --replicas 1 --stages 2 --schedule $schedule
            done
        fi
        round=$((round + 1))
    done
    table "second device at $speed of its speed"
done
