#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/launchers.sh - a launcher that another one started is followed: the variables that
# Slurm's srun, Open MPI's mpirun and torchrun would leave, set by hand.
. "$(dirname "$0")/job_checks.sh"
slurm="SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=localhost"
port=$((21000 + $$ % 4000))

# both NAME PATTERN WORDS... : two processes with these variables, RANK 0 and 1 of 2, meet
both()
{
    name=$1 pattern=$2
    shift 2
    port=$((port + 20))
    for r in 0 1; do
        env MASTER_ADDR=127.0.0.1 MASTER_PORT=$port WORLD_SIZE=2 RANK=$r LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 "$@" \
            timeout 120 "$rank" > out.$r 2> err.$r < /dev/null &
        eval "pid$r=$!"
    done
    wait "$pid0" && wait "$pid1"
    check "$name" [ $? -eq 0 ]
    cat err.0 err.1 > stderr
    check "$name: followed" grep -q "$pattern" out.0
}
both "srun -n1 torchrun" '^rank 0 of 2 by torchrun' $slurm SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 \
    TORCHELASTIC_RUN_ID=none
check "what Slurm says is told by rank 0" \
    grep -q 'this is rank 0 of 2, as torchrun says; around it, Slurm says rank 0 of 1' err.0
check "and by no other" [ ! -s err.1 ]
both "mpirun -n1 torchrun" '^rank 0 of 2 by torchrun' OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 \
    TORCHELASTIC_RUN_ID=none
both "a script inside srun -n1" '^rank 0 of 2 by torchrun' $slurm SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1
env $slurm SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 RANK=9 WORLD_SIZE=10 TORCHELASTIC_RUN_ID=none \
    "$geartrain" launch --ranks 2 -- "$rank" > stdout 2> stderr < /dev/null
check "geartrain launch inside srun and torchrun" grep -q '^rank 0 of 2 by geartrain launch' stdout
check "has nothing to add" [ "$(grep -c 'around it' stderr)" -eq 0 ]
env $slurm SLURM_PROCID=2 SLURM_STEP_NUM_TASKS=4 RANK=0 WORLD_SIZE=1 "$geartrain" bench link > stdout 2> stderr
said "variables that contradict Slurm's" 2 'Slurm says that this is rank 2 of 4, but the variables RANK and WORLD_SIZE say rank 0 of 1; unset' $?
close_checks
