#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/plans.sh - train on several devices as a user does: whatever the plan, it is the curve of
# one device; the same plan gives the same bits; any plan goes on from any checkpoint.
#
#   one device ──► its losses ◄── within 1e-5 ── replicas · stages · tensor · sharded · unequal
#                                                 over shm, tcp; by --ranks, --plan, launch, mpirun
#
# Losses of different plans differ in rounding alone: sums of gradients are added in another order.
# The micro-batch is the same everywhere, for the bits of dropout are counted within one.
# Plans are measured anew for each shape, so nothing here depends on which one is chosen.
. "$(dirname "$0")/cli_checks.sh"

common="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 8 --micro-batch 2 --steps 12
        --eval-every 6 --save-every 6 --dropout 0.1 --lr 1e-3 --warmup 4"

train()     # RUN OPTIONS...
{
    run=$1
    shift
    (limit=300 as=exec; program train $common --out "$run" "$@") > stdout 2> stderr < /dev/null
}

losses()    # RUN: a line a step: its loss, and that of validation if there is one
{
    sed -n 's/.*"loss": \([0-9.]*\),.*/\1 &/p' "$1/metrics.jsonl" \
        | sed 's/ .*"val_loss": \([0-9.]*\).*/ \1/; s/ {.*//'
}

# near A B: as many steps, and losses within 1e-5 of each other.
near()
{
    losses "$1" > a && losses "$2" > b && [ "$(wc -l < a)" -eq 12 ] && paste -d ' ' a b | awk '
        NF % 2 { bad = 1 }
        { for (i = 1; i <= NF / 2; i++) {
              d = $i - $(i + NF / 2)
              if (!($i > 0) || d > 1e-5 * $i || d < -1e-5 * $i) bad = 1
          } }
        END { exit bad || NR != 12 }'
}

# curve NAME RUN OPTIONS...: trains, and compares with one device.
curve()
{
    title=$1 folder=$2
    shift 2
    train "$folder" "$@"
    status=$?
    if [ $status -ne 0 ]; then fail "$title" "exit status $status"; return; fi
    check "$title: the curve of one device" near one "$folder"
}

same_bits()     # RUN RUN: of the last step
{
    [ "$(ls "$1/checkpoints/step-000012")" = "$(ls "$2/checkpoints/step-000012")" ] || return
    for file in "$1"/checkpoints/step-000012/*.safetensors; do
        cmp "$file" "$2/checkpoints/step-000012/${file##*/}" || return
    done
    losses "$1" > a && losses "$2" > b && cmp a b
}

half()          # RUN COPY: as if it had ended after step 6
{
    cp -r "$1" "$2" && rm -rf "$2/checkpoints/step-000012"
}

goes_on()       # RUN OPTIONS...
{
    folder=$1
    shift
    timeout 300 "$geartrain" train --out "$folder" --resume "$@" > stdout 2> stderr < /dev/null \
        && grep -q '^resume  after step 6 ' stderr
}

holds()         # RUN PYTHON: a condition on plan.json, p; true where there is no python3
{
    ! command -v python3 > /dev/null || python3 -c "
import json, sys
p = json.load(open('$1/plan.json'))
sys.exit(not ($2))" 2> stderr
}

train one --devices cpu:0
check "one device trains" [ $? -eq 0 ]
check "and shares nothing" sh -c '! grep -q "idle\|slowest" stdout'

# ---- every way to divide a step ------------------------------------------------------------------

two="--devices cpu:0/2"
curve "replicas" replicas $two --replicas 2 --stages 1
check "each takes a share of the step" holds replicas \
    'len(p["replicas"]) == 2 and sum(r["micro_batches"] * r["micro_batch"] for r in p["replicas"]) == 8'
for schedule in gpipe 1f1b interleaved zb-h1 list; do
    curve "two stages, $schedule" $schedule $two --stages 2 --replicas 1 --schedule $schedule
    check "$schedule is in plan.json" holds $schedule \
        "p['schedule'] == '$schedule' and len(p['replicas'][0]['stages']) == 2 and p['replicas'][0]['cut'][-1] == p['units']"
done
curve "three stages" three-stages --devices cpu:0.0/2,cpu:0.1/2,cpu:0 --stages 3 --replicas 1
curve "tensor 2" tensor $two --tensor 2
check "is one stage of two ranks" holds tensor 'p["tensor"] == 2 and p["replicas"][0]["stages"][0] in ([0, 1], [1, 0])'
curve "sharded optimizer" sharded $two --replicas 2 --stages 1 --sync sharded
check "each replica writes its part of the moments" \
    [ "$(ls sharded/checkpoints/step-000012/optimizer-*.safetensors | wc -l)" -eq 2 ]
four=cpu:0.0/2,cpu:0.1/2,cpu:0.0/2,cpu:0.1/2
curve "two replicas of two stages" four --devices $four --replicas 2 --stages 2
curve "two stages of tensor 2" stages-tensor --devices $four --tensor 2 --stages 2 --replicas 1
curve "two ranks, planned from measurements" auto $two
curve "three ranks that find devices by themselves" three --ranks 3
for transport in shm tcp; do
    curve "replicas over $transport" replicas-$transport $two --replicas 2 --stages 1 --transport $transport
    curve "stages over $transport" stages-$transport $two --stages 2 --replicas 1 --transport $transport
done

unequal=cpu:0.0/2,cpu:0.1/2@0.25
curve "unequal replicas" unequal --devices $unequal --replicas 2 --stages 1
check "the slow one takes fewer micro-batches" holds unequal \
    '[r["micro_batches"] for r in sorted(p["replicas"], key=lambda r: r["stages"])] == [3, 1]'
curve "unequal stages" unequal-stages --devices $unequal --stages 2 --replicas 1
check "the slow one has fewer units" holds unequal-stages \
    'sorted(zip(p["replicas"][0]["stages"], [b - a for a, b in zip(p["replicas"][0]["cut"], p["replicas"][0]["cut"][1:])]))[1][1] < 2.5'

# ---- the same plan, the same bits -----------------------------------------------------------------

for of in replicas zb-h1 tensor sharded unequal; do
    devices=$two
    [ $of != unequal ] || devices="--devices $unequal"
    sync=allreduce
    [ $of != sharded ] || sync=sharded
    train again-$of $devices --sync $sync --plan $of/plan.json
    check "$of: a run under its plan.json" [ $? -eq 0 ]
    check "$of: says whose plan it is" grep -q "as '$of/plan.json' says" stderr
    check "$of: has the same bits" same_bits $of again-$of
    half $of halves-$of
    check "$of: it goes on with its plan" goes_on halves-$of
    check "$of: to the same bits" same_bits $of halves-$of
done

# ---- another plan, the same curve ------------------------------------------------------------------

for of in replicas 1f1b tensor sharded; do
    half $of alone-$of
    check "$of: one device goes on" goes_on alone-$of --devices cpu:0 --ranks 1 --sync allreduce
    check "$of: on the same curve" near one alone-$of
done
half one parted
check "two stages go on from one device" goes_on parted $two --stages 2 --replicas 1
check "on the same curve" near one parted
half 1f1b turned
check "a tensor group goes on from two stages" goes_on turned $two --tensor 2 --stages 1 --replicas 1
check "on the same curve still" near one turned
check "plan.json is the new one" holds turned 'p["tensor"] == 2'

does "plan --out" '^plan +2 ranks' plan --model gpt2-tiny --seq 32 --batch 8 --micro-batch 2 --devices cpu:0.0,cpu:0.1 \
    --stages 2 --schedule 1f1b --out planned.json
curve "train --plan of that" planned --devices cpu:0.0,cpu:0.1 --plan planned.json

# all_refuse NAME CODE RANKS SENTENCE OPTIONS...: every rank says the same
all_refuse()
{
    title=$1 code=$2 ranks=$3 sentence=$4
    shift 4
    train wrong "$@"
    status=$?
    if [ $status -ne "$code" ]; then fail "$title" "exit status $status, not $code"; return; fi
    check "$title: all ranks say so" [ "$(grep -Ec "$sentence" stderr)" -eq "$ranks" ]
    check "$title: and leave nothing" [ ! -e wrong ]
}
all_refuse "a plan for other ranks" 1 3 'the plan is for 2 ranks, there are 3' --ranks 3 --plan planned.json
all_refuse "more stages than ranks" 2 1 '99 stages' $two --stages 99
all_refuse "fewer micro-batches than replicas" 2 1 'batch of 2 in micro-batches of 2 cannot be shared by 2 replicas' $two \
    --replicas 2 --stages 1 --batch 2
all_refuse "one sequence for two replicas" 2 1 'a batch of 1 cannot be shared by 2 replicas; take fewer replicas or a larger' \
    $two --stages 1 --batch 1 --micro-batch 0
for other in "stages 1:stages 1" "replicas 2:replicas 2" "schedule gpipe:schedule gpipe" "micro-batch 1:micro-batch 1" \
             "sync sharded:sync sharded" "tensor 2:tensor 2" "recompute:recompute"; do
    all_refuse "--plan and --${other%%:*}" 2 1 ": --${other#*:} contradicts the plan 'planned.json', which has .*; leave one" \
        $two --plan planned.json --${other%%:*}
done
all_refuse "--plan and another batch" 2 1 "'planned.json' is for batches of 8, not 4; say --batch 8" $two --plan planned.json --batch 4

# ---- what a run says and leaves ---------------------------------------------------------------------

GT_LOG=device:debug
export GT_LOG
train shown $two --stages 2 --replicas 1 --schedule 1f1b
unset GT_LOG
if [ "$(nproc)" -ge 2 ]; then
    check "each rank keeps to its part of the processors" [ "$(grep -o 'its part of the processors, number [01] of 2$' \
        stderr | sort -u | wc -l)" -eq 2 ]
fi
check "a line a rank says what it holds" [ "$(grep -c '^        rank [01]   cpu:0.[01]/2 .*stage [01]' stderr)" -eq 2 ]
check "predicted and measured are compared" grep -Eq '^plan    predicted [0-9.]+ ms a step.*, measured [0-9.]+ ms' stderr
check "step lines tell the balance" \
    [ "$(grep -Ec '^step [0-9]+  loss .*  idle [0-9.]+ %  slowest rank [01]  sent [0-9.]+ [kM]?B$' stdout)" -eq 12 ]
check "metrics tell the bubble" [ "$(grep -c '"bubble": 0\.[0-9]' shown/metrics.jsonl)" -eq 12 ]
if command -v xmllint > /dev/null; then
    for run in shown four stages-tensor; do
        check "the timeline of $run is XML" xmllint --noout $run/timeline.svg
    done
fi
check "with a row a stage" [ "$(grep -c '>rank [01] cpu:0' shown/timeline.svg)" -eq 2 ]
check "four stages have four" [ "$(grep -c '>rank [0-3] cpu:0' four/timeline.svg)" -eq 4 ]

# ---- started apart: launch, mpirun -------------------------------------------------------------------

# One program, but rank 1 is told $OTHER, and not what it was told of that option.
cat > told <<END
#!/bin/sh
if [ "\${GEARTRAIN_RANK:-\$OMPI_COMM_WORLD_RANK}" = 1 ]; then
    left=\$#
    while [ \$left -gt 0 ]; do
        word=\$1
        shift
        left=\$((left - 1))
        if [ "\$word" = "\${OTHER%% *}" ]; then
            shift
            left=\$((left - 1))
        else
            set -- "\$@" "\$word"
        fi
    done
    set -- "\$@" \$OTHER
fi
exec "$geartrain" "\$@"
END
chmod +x told
OTHER=
export OTHER
timeout 300 "$geartrain" launch --ranks 2 -- train $common --stages 2 --replicas 1 --out launched > stdout 2> stderr
check "launch: a pipeline" [ $? -eq 0 ]
check "launch: the curve of one device" near one launched
if command -v mpirun > /dev/null; then
    root=
    [ "$(id -u)" -ne 0 ] || root=--allow-run-as-root
    timeout 300 mpirun $root --oversubscribe -n 2 "$geartrain" train $common --stages 2 --replicas 1 --out mpi \
        > stdout 2> stderr < /dev/null
    check "mpirun: a pipeline" [ $? -eq 0 ]
    check "mpirun: the curve of one device" near one mpi
fi

# differs NAME PATTERN OPTIONS-OF-RANK-1
differs()
{
    OTHER=$3
    rm -rf differs
    timeout 300 "$geartrain" launch --ranks 2 -- ./told train $common --out differs > stdout 2> stderr < /dev/null
    status=$?
    sed -n 's/^\(\[1\] \)\{0,1\}geartrain train: //p' stderr | sort > sentences
    if [ $status -ne 1 ]; then fail "$1" "exit status $status, not 1"; return; fi
    check "$1 is named by both ranks alike" \
        [ "$(wc -l < sentences) $(uniq sentences | grep -Ec -- "$2")" = "2 1" ]
    check "$1: nothing is left" [ ! -e differs ]
}
sed 's/wheel/wheat/' "$text" > other.txt
head -c 5000 "$text" > shorter.txt
printf '{"model_type": "gpt2", "n_layer": 3, "n_head": 2, "n_embd": 64, "n_positions": 64}' > heads.json
differs "another text" 'the checksum of the training tokens is [0-9a-f]+ on rank 0, but .* on rank 1' "--data other.txt"
differs "a shorter text" 'the number of training tokens is [0-9]+ on rank 0, but .* on rank 1' "--data shorter.txt"
differs "another model" "the model's n_head is 4 on rank 0, but 2 on rank 1" "--model heads.json"
differs "another dropout" '--dropout is 0.1 on rank 0, but 0.2 on rank 1' "--dropout 0.2"
differs "another number of steps" '--steps is 12 on rank 0, but 13 on rank 1' "--steps 13"
differs "an option that rank 0 has not" '--trace is not given on rank 0, but x.json on rank 1' "--trace x.json"
close_checks
