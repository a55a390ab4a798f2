#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/launch.sh - geartrain launch with real processes: they meet, and when one fails, is
# killed or stopped, the others end with the same sentence and the right exit code.
. "$(dirname "$0")/job_checks.sh"

launch()    # OPTIONS... -- COMMAND...: output in stdout and stderr
{
    timeout 240 "$geartrain" launch "$@" > stdout 2> stderr < /dev/null
}

# ---- all goes well -----------------------------------------------------------------------------

for n in 1 2 5; do
    launch --ranks "$n" -- "$rank"
    check "$n ranks meet" [ $? -eq 0 ]
    check "only rank 0 of $n writes to standard output" \
        [ "$(cat stdout)" = "rank 0 of $n by geartrain launch at $(sed 's/.* at //; s/,.*//' stdout), local 0 of $n" ]
    check "the others of $n are prefixed" [ "$(grep -c '^\[[1-9]\] rank [1-9] of' stderr)" -eq $((n - 1)) ]
done
launch --ranks 2 -- devices
check "a verb is this program" [ $? -eq 0 ]
launch --ranks 2 --net port-range=26000-26050,heartbeat=100ms -- sh -c 'echo $GEARTRAIN_ROOT $GEARTRAIN_NET_HEARTBEAT'
check "settings reach the ranks" grep -Eq '^127.0.0.1:260[0-5][0-9] 100ms$' stdout
launch --ranks 2 -- sh -c 'tr "\0" "\n" < /proc/$$/cmdline'
check "no secret in arguments" [ -z "$(grep -E '[0-9a-f]{64}' stdout stderr)" ]
RANK=1 WORLD_SIZE=3 launch --ranks 2 -- "$rank"
check "an outer launcher's variables do not matter" [ $? -eq 0 ]

# ---- misuse ------------------------------------------------------------------------------------

launch --ranks 2
said "no command" 2 'usage: geartrain launch' $?
launch -- devices
said "no number of ranks" 2 'usage: geartrain launch' $?
launch --ranks 5000 -- devices
said "too many ranks" 2 '1 to 4096' $?
launch --ranks 2 -- ./no-such-program
said "no such program" 1 "cannot run './no-such-program': No such file" $?
launch --ranks 2 --net heartbeet=1s -- devices
said "a wrong setting" 2 'did you mean heartbeat' $?

# ---- failures ------------------------------------------------------------------------------------

launch --ranks 3 --grace 2s -- "$rank" --rounds 100 --pause 20 --fail 1 7
ended "a rank that fails" 1 'rank 1 failed with exit code 7' $?
check "the others say whom they lost" same_sentence stderr 'lost rank 1 ('
launch --ranks 3 --grace 2s -- "$rank" --rounds 100 --pause 20 --fail 2 2
ended "a rank that is misused" 2 'rank 2 failed with exit code 2' $?
launch --ranks 3 -- "$rank" --nonsense
ended "ranks that are all misused" 2 'failed with exit code 2' $?

# A rank that ignores what happened, and SIGTERM, is ended all the same.
launch --ranks 2 --grace 300ms -- sh -c 'if [ "$GEARTRAIN_RANK" = 1 ]; then exit 4; fi
    trap "" TERM; echo $$ > stubborn; while :; do sleep 0.1; done'
ended "a stubborn rank" 1 'rank 1 failed with exit code 4' $?
check "and it is gone" gone "$(cat stubborn)"

# ---- a killed rank -------------------------------------------------------------------------------

for victim in 2 0; do
    rm -f pid.*
    launch --ranks 4 -- "$rank" --rounds 1000000 --pause 20 --say pid &
    job=$!
    await 80 [ -s pid.0 -a -s pid.1 -a -s pid.2 -a -s pid.3 ]
    kill -9 "$(cat pid.$victim)"
    wait $job
    ended "rank $victim is killed" 3 "rank $victim was killed by signal 9" $?
    check "everyone names rank $victim" same_sentence stderr "lost rank $victim (.*, pid $(cat pid.$victim)): it was killed"
    for r in 0 1 2 3; do
        check "rank $r is gone" gone "$(cat pid.$r)"
    done
done

# ---- a stopped rank ------------------------------------------------------------------------------

GEARTRAIN_NET_HEARTBEAT=100ms GEARTRAIN_NET_DEAD_AFTER=2s GEARTRAIN_NET_STALL_REPORT=1500ms
GEARTRAIN_NET_STALL_LIMIT=4s
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_DEAD_AFTER GEARTRAIN_NET_STALL_REPORT GEARTRAIN_NET_STALL_LIMIT
for victim in 1 0; do
    rm -f pid.*
    launch --ranks 3 --grace 1s -- "$rank" --rounds 1000000 --pause 20 --say pid &
    job=$!
    await 80 [ -s pid.0 -a -s pid.1 -a -s pid.2 ]
    kill -STOP "$(cat pid.$victim)"
    wait $job
    ended "rank $victim is stopped" 3 'rank [012] failed with exit code 3' $?
    check "every rank says so" same_sentence stderr "lost rank $victim (.*given no sign of life for 4 s"
    check "rank $victim is told apart from a dead host" grep -q 'though its host answers' stderr
    check "everyone names stopped rank $victim" same_sentence stderr "rank $victim (.*, pid $(cat pid.$victim))"
    check "the stopped rank $victim is gone" gone "$(cat pid.$victim)"
done
launch --ranks 3 -- "$rank" --rounds 2 --stuck 1 --activity
ended "an operation that never ends" 3 'rank [012] failed with exit code 3' $?
check "everyone names the late rank" same_sentence stderr 'no progress for 4 s: .*rank 1 (.*41 operations started, others 42'
check "it was reported once before" [ "$(grep -c 'warning: no progress' stderr)" -eq 1 ]
unset GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_DEAD_AFTER GEARTRAIN_NET_STALL_REPORT GEARTRAIN_NET_STALL_LIMIT

# ---- the launcher itself ---------------------------------------------------------------------------

rm -f pid.*
launch --ranks 2 -- "$rank" --rounds 1000000 --pause 20 --say pid &
await 80 [ -s pid.0 -a -s pid.1 ]
launcher=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$(cat pid.0)/status")
kill -TERM "$launcher"
wait $!
ended "a launcher that is told to end" 143 'stopped by signal 15' $?
check "its ranks are gone" gone "$(cat pid.0)"
rm -f pid.*
launch --ranks 2 -- "$rank" --rounds 1000000 --pause 20 --say pid &
await 80 [ -s pid.0 -a -s pid.1 ]
launcher=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$(cat pid.0)/status")
kill -9 "$launcher"
wait $! 2> /dev/null
check "ranks end with a killed launcher" await 40 gone "$(cat pid.0)"
check "all of them" await 40 gone "$(cat pid.1)"

# ---- again -----------------------------------------------------------------------------------------

launch --ranks 2 --max-restarts 2 -- sh -c 'echo "start $GEARTRAIN_RESTART $GEARTRAIN_RANK" >> starts
    [ "$GEARTRAIN_RESTART" = 2 ] || [ "$GEARTRAIN_RANK" = 0 ] || kill -9 $$'
check "a job that lost a rank starts again" [ $? -eq 0 ]
check "three times in all" [ "$(sort starts | tr '\n' ,)" = 'start 0 0,start 0 1,start 1 0,start 1 1,start 2 0,start 2 1,' ]
rm -f starts
launch --ranks 2 --max-restarts 2 -- sh -c 'echo x >> starts; exit 1'
ended "a job that failed by itself does not" 1 'failed with exit code 1' $?
check "only one start" [ "$(wc -l < starts)" -eq 2 ]

# ---- hosts that are this one -------------------------------------------------------------------------

on_hosts()  # NAME RANKS LINES...: without any ssh
{
    name=$1 want=$2
    shift 2
    printf '%s\n' "$@" > hosts
    launch --hosts hosts --ssh "$work/no-such-ssh" -- "$rank"
    check "$name" [ $? -eq 0 ]
    check "$name: $want ranks" grep -q "^rank 0 of $want by geartrain launch" stdout
}
on_hosts "localhost needs no ssh" 1 localhost
on_hosts "two slots behind a colon" 2 127.0.0.1:2
on_hosts "slots on several lines" 4 localhost:1 '127.0.0.1 slots=3'
on_hosts "this host's name" 2 "$(hostname):2"
on_hosts "with a domain" 1 "$(hostname -s).example.org"
printf 'localhost:0\n' > hosts
launch --hosts hosts -- "$rank"
ended "no slots" 2 '1 to 4096 slots' $?
printf 'localhost:2 slots=3\n' > hosts
launch --hosts hosts -- "$rank"
ended "slots said twice" 2 'twice' $?

# ---- over ssh ----------------------------------------------------------------------------------------

sshd=$(command -v sshd || echo /usr/sbin/sshd)
if [ ! -x "$sshd" ] || ! command -v ssh ssh-keygen > /dev/null; then
    echo "skipped: ssh, for openssh-server or openssh-client is missing"
    close_checks
    exit
fi
ssh-keygen -q -t ed25519 -N '' -f host_key && ssh-keygen -q -t ed25519 -N '' -f user_key
cp user_key.pub authorized && chmod 600 authorized
port=
for p in 22022 22122 22222 22322; do
    cat > sshd_config <<END
Port $p
ListenAddress 127.0.0.1
ListenAddress 127.0.0.2
HostKey $work/host_key
AuthorizedKeysFile $work/authorized
PidFile $work/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
END
    mkdir -p /run/sshd 2> /dev/null
    rm -f sshd.pid
    "$sshd" -f "$work/sshd_config" -E sshd.log && await 20 [ -s sshd.pid ] && port=$p && break
done
cat > ssh_config <<END
Host 127.0.0.*
  Port $port
  IdentityFile $work/user_key
  IdentitiesOnly yes
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  LogLevel ERROR
END
if [ -z "$port" ] || ! ssh -F ssh_config -o BatchMode=yes 127.0.0.1 true 2> stderr; then
    echo "skipped: ssh, for a private sshd does not run here: $(tail -n 1 sshd.log stderr | tr '\n' ' ')"
    [ ! -s sshd.pid ] || kill "$(cat sshd.pid)"
    close_checks
    exit
fi
trap 'kill "$(cat "$work/sshd.pid")" 2> /dev/null; rm -rf "$work"' EXIT

over_ssh()
{
    launch --ssh "ssh -F $work/ssh_config" --hosts hosts "$@"
}
printf '# a file\nroot@127.0.0.1 slots=2\nroot@127.0.0.2\n' > hosts
over_ssh -- "$rank"
check "ranks meet over ssh" [ $? -eq 0 ]
check "as many as there are slots" grep -q '^rank 0 of 3 by geartrain launch' stdout
mkdir "a folder's" && cd "a folder's" && cp ../hosts .
GEARTRAIN_NET_HCA="it's \$HOME" over_ssh --ranks 2 -- sh -c 'pwd; echo "$GEARTRAIN_NET_HCA" "$1"' x "a  'b' \$c"
check "folder, settings and arguments arrive as they are" \
    [ "$(cat stdout)" = "$(printf '%s\n%s' "$work/a folder's" "it's \$HOME a  'b' \$c")" ]
cd ..
over_ssh -- sh -c 'cat /proc/$$/cmdline /proc/$PPID/cmdline | tr "\0" "\n"'
check "no secret in arguments over ssh" [ -z "$(grep -E '[0-9a-f]{64}' stdout stderr)" ]
over_ssh -- "$rank" --rounds 100 --pause 20 --fail 1 7
ended "a rank that fails over ssh" 1 'rank 1 on root@127.0.0.1 failed with exit code 7' $?
rm -f pid.*
over_ssh -- "$rank" --rounds 1000000 --pause 20 --say "$work/pid" &
job=$!
await 80 [ -s pid.0 -a -s pid.1 -a -s pid.2 ]
kill -9 "$(cat pid.2)"
wait $job
ended "a rank is killed over ssh" 3 'rank 2 on root@127.0.0.2 was killed by signal 9' $?
rm -f pid.*
"$geartrain" launch --ssh "ssh -F $work/ssh_config" --hosts hosts \
    -- "$rank" --rounds 1000000 --pause 20 --say "$work/pid" > stdout 2> stderr < /dev/null &
launcher=$!
await 80 [ -s pid.0 -a -s pid.1 -a -s pid.2 ]
kill -9 $launcher
wait $launcher 2> /dev/null
check "remote ranks end with a killed launcher" await 60 gone "$(cat pid.1)"
printf '127.0.0.1 slots=x\n' > hosts
over_ssh -- "$rank"
ended "a wrong hosts file" 2 "hosts file 'hosts', line 1" $?
printf 'localhost\nnodeB\n' > hosts
over_ssh -- "$rank"
ended "localhost beside others" 2 'names localhost beside other hosts' $?
printf 'root@127.0.0.1\n' > hosts
over_ssh --ranks 2 -- "$rank"
ended "too few slots" 2 'too few for 2 ranks' $?
launch --ssh "ssh -F $work/ssh_config -i /dev/null -o IdentityAgent=none -o User=nobody-here" --hosts hosts -- "$rank"
ended "ssh that does not let us in" 3 'ssh lost rank 0 on root@127.0.0.1, or never reached it' $?
close_checks
