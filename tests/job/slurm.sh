#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/slurm.sh - srun starts ranks: a whole Slurm of our own, one controller and three
# nodes, all on this machine, with a munge of its own, below $TMPDIR.
# Runs alone: Slurm's daemons give each other so many seconds.
. "$(dirname "$0")/job_checks.sh"

skip()
{
    echo "skipped: $*"
    exit 77
}
for program in slurmctld slurmd munged srun scontrol; do
    command -v $program > /dev/null || [ -x /usr/sbin/$program ] \
        || skip "$program is missing (slurmctld, slurmd, slurm-client, munge)"
done
[ "$(id -u)" -eq 0 ] || skip "Slurm's daemons want root"
PATH=$PATH:/usr/sbin
export PATH

# ---- a cluster ------------------------------------------------------------------------------

started=
stop_all()
{
    for pid in $started $(cat ./*.pid 2> /dev/null); do
        kill "$pid" 2> /dev/null
    done
    for pid in $started; do             # one that hangs on a step of its own is not waited for
        await 5 gone "$pid" || kill -9 "$pid" 2> /dev/null
        wait "$pid" 2> /dev/null
    done
    for process in /proc/[0-9]*; do     # steps outlive their slurmd; ours have our files open
        if [ "$(cat "$process/comm" 2> /dev/null)" = slurmstepd ] \
            && find "$process/fd" "$process/cwd" -lname "$work/*" 2> /dev/null | grep -q .; then
            kill -9 "${process#/proc/}" 2> /dev/null
        fi
    done
    rm -rf "$work"
}
trap stop_all EXIT

mkdir -p munge state spool && chmod 755 "$work" munge && chmod 700 state
head -c 1024 /dev/urandom > munge/key && chmod 400 munge/key
munged --foreground --force --socket="$work/munge/socket" --key-file="$work/munge/key" \
       --pid-file="$work/munge/pid" --log-file="$work/munge/log" --seed-file="$work/munge/seed" \
       > munged.log 2>&1 &
started="$started $!"
await 10 [ -S munge/socket ] || skip "munged does not start: $(tail -n 1 munged.log)"

base=$((20000 + $$ % 4000))
host=$(hostname -s)
address=$(ip -4 -o addr show scope global 2> /dev/null | sed -n 's/.*inet \([0-9.]*\).*/\1/p' | head -n 1)
: "${address:=127.0.0.1}"
cat > slurm.conf <<END
ClusterName=gears
SlurmctldHost=$host($address)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MessageTimeout=30
KillOnBadExit=1
NodeName=gear[1-3] NodeHostname=$host NodeAddr=$address Port=$((base + 1))-$((base + 3)) CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
END
printf 'CgroupPlugin=autodetect\nCgroupAutomount=no\n' > cgroup.conf
SLURM_CONF=$work/slurm.conf
export SLURM_CONF
mkdir spool/gear1 spool/gear2 spool/gear3
slurmctld -D -f "$SLURM_CONF" > ctld.out 2>&1 &
started="$started $!"
for n in 1 2 3; do
    slurmd -D -N gear$n -f "$SLURM_CONF" > slurmd$n.out 2>&1 &
    started="$started $!"
done
three_idle()
{
    [ "$(sinfo -h -N -o %T 2> /dev/null | grep -c idle)" -eq 3 ]
}
if ! await 40 three_idle; then
    tail -n 3 slurmctld.log slurmd-gear1.log ctld.out slurmd1.out 2> /dev/null
    skip "Slurm does not come up here"
fi

# ---- ranks ------------------------------------------------------------------------------------

by_srun()   # OPTIONS... COMMAND...
{
    timeout 360 srun --quiet --chdir="$work" "$@" > stdout 2> stderr < /dev/null
}

by_srun -N3 -n3 "$rank"
check "one rank a node" [ $? -eq 0 ]
check "all of them came" [ "$(grep -c '^rank [0-2] of 3 by Slurm at ' stdout)" -eq 3 ]
check "and made the secret" [ "$(stat -c %a secret)" = 600 ]
by_srun -N3 -n6 --ntasks-per-node=2 "$rank"
check "two ranks a node" [ $? -eq 0 ]
check "all six came" [ "$(grep -c '^rank [0-5] of 6 by Slurm at ' stdout)" -eq 6 ]
by_srun -N1 -n1 "$rank"
check "one rank alone" [ $? -eq 0 ]

# Two stages by srun.
by_srun -N1 -n2 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 \
    --micro-batch 2 --steps 6 --stages 2 --replicas 1 --out "$work/piped"
check "two stages train under srun" [ $? -eq 0 ]
check "and say every step once" [ "$(grep -c '^step [1-6] .*idle' stdout)" -eq 6 ]
check "and leave a checkpoint of two parts" [ "$(ls piped/checkpoints/step-000006/params-*.safetensors | wc -l)" -eq 2 ]

# Two ranks of a launcher that srun started, as srun torchrun does.
by_srun -N1 -n1 "$geartrain" launch --ranks 2 -- "$rank"
check "geartrain launch inside srun" [ $? -eq 0 ]
check "is followed" grep -q '^rank 0 of 2 by geartrain launch' stdout
by_srun -N1 -n1 sh -c 'for r in 0 1; do
    RANK=$r WORLD_SIZE=2 LOCAL_RANK=$r LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$1 TORCHELASTIC_RUN_ID=none "$2" &
    done; wait' sh $((base + 4100)) "$rank"
check "torchrun inside srun" [ "$(grep -c '^rank [01] of 2 by torchrun' stdout)" -eq 2 ]

# A second job at the same time has another port, or the next.
by_srun -N2 -n2 "$rank" --rounds 60 --pause 50 &
first=$!
timeout 360 srun --quiet --chdir="$work" -N2 -n2 "$rank" --rounds 20 --pause 50 > stdout2 2> stderr2 < /dev/null
check "two jobs at once" [ $? -eq 0 ]
wait $first
check "do not disturb each other" [ $? -eq 0 ]

# A batch script's own process is no rank; what it starts by srun is.
cat > batch.sh <<END
#!/bin/sh
"$rank" > "$work/batch.alone" 2>&1
srun --quiet -n3 "$rank" > "$work/batch.ranks" 2>&1
echo \$? > "$work/batch.code"
END
sbatch --quiet -N3 -n3 --chdir="$work" -o "$work/batch.log" batch.sh > stdout 2> stderr
await 60 [ -s batch.code ]
check "a batch script is alone" grep -q '^rank 0 of 1 by alone' batch.alone
check "its steps are ranks" [ "$(cat batch.code)" = 0 -a "$(grep -c 'of 3 by Slurm' batch.ranks)" -eq 3 ]

# ---- failures -----------------------------------------------------------------------------------

rm -f pid.*
timeout 360 srun --quiet --kill-on-bad-exit=0 --chdir="$work" -N3 -n3 "$rank" --rounds 1000000 --pause 20 \
    --say "$work/pid" > stdout 2> stderr < /dev/null &
job=$!
await 40 [ -s pid.0 -a -s pid.1 -a -s pid.2 ]
kill -9 "$(cat pid.1)"
wait $job
check "srun fails when a rank is killed" [ $? -ne 0 ]
check "the others name it" same_sentence stderr "lost rank 1 (.*, pid $(cat pid.1)): it was killed"
chmod 644 secret
by_srun -N2 -n2 "$rank"
check "a secret that others can read is refused" [ $? -ne 0 ]
check "and how to mend that is said" grep -q 'chmod 600' stderr

# ---- PMIx, where Slurm has it --------------------------------------------------------------------

chmod 600 secret
if srun --mpi=list 2>&1 | grep -q pmix; then
    # On one node: several slurmd on one machine get into each other's way there.
    by_srun --mpi=pmix -N1 -n2 "$rank"
    status=$?
    if grep -q 'launch failed' stderr; then
        echo "without srun --mpi=pmix: Slurm itself cannot start tasks that way here"
    else
        check "srun --mpi=pmix" [ $status -eq 0 ]
        check "its ranks came" [ "$(grep -c '^rank [0-1] of 2 by \(PMIx\|Slurm\)' stdout)" -eq 2 ]
    fi
else
    echo "without srun --mpi=pmix: this Slurm has no PMIx plugin"
fi
close_checks
