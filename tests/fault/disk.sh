#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/fault/disk.sh - disks that are full or may not be written: one sentence, and what was
# there before is still whole.
. "$(dirname "$0")/../cli/cli_checks.sh"

train_tiny --steps 4 --save-every 2 --out run > stdout 2> stderr || { cat stderr; exit 1; }

# A file may not grow beyond this many blocks of 512 bytes. The signal that comes with it
# would end the program; ignored, the write fails as on a full disk.
limited()   # BLOCKS COMMAND...
{
    (trap '' XFSZ; ulimit -f "$1"; shift; exec "$@") > stdout 2> stderr < /dev/null
}

# ---- files that cannot grow ----------------------------------------------------------------

cp -r run small
limited 2000 "$geartrain" train --out small --resume --steps 8
said "no room for a checkpoint" 1 'cannot write .*; the last whole checkpoint is step-000004' $?
check "nothing half-written is left" [ -z "$(find small -name '*partial*')" ]
"$geartrain" train --out small --resume --steps 8 > stdout 2> stderr
check "with room again, the run goes on" [ $? -eq 0 -a -f small/checkpoints/step-000008/manifest.json ]

mkdir kept
limited 100 "$geartrain" export run -o kept
said "no room for an export" 1 "cannot write '.*model.safetensors'" $?
check "and none of it is there" [ ! -e kept/model.safetensors ]
limited 1 "$geartrain" tokenize "$text" -o tokens
said "no room for tokens" 1 'cannot write' $?
check "and no folder of them" [ ! -e tokens/tokens.json ]

# ---- a disk of its own: full, then read-only ---------------------------------------------------

if [ "$(id -u)" -eq 0 ] && mkdir disk && mount -t tmpfs -o size=6m tmpfs disk 2> /dev/null; then
    trap 'umount "$work/disk"; rm -rf "$work"' EXIT
    train_tiny --out disk/run --steps 2 --save-every 2 > stdout 2> stderr
    check "a run on a small disk" [ $? -eq 0 ]
    head -c 5500000 /dev/zero > disk/ballast 2> /dev/null
    head -c 5500000 /dev/zero >> disk/ballast 2> /dev/null
    "$geartrain" train --out disk/run --resume --steps 6 > stdout 2> stderr
    said "a full disk" 1 'cannot write|No space left' $?
    check "nothing half-written is left there" [ -z "$(find disk -name '*partial*')" ]
    "$geartrain" eval --from disk/run --data "$text" > stdout 2> stderr
    check "the checkpoint there is whole" [ $? -eq 0 ]
    "$geartrain" export run -o disk/export > stdout 2> stderr
    said "a full disk for an export" 1 'cannot (write|make)' $?
    rm disk/ballast
    "$geartrain" train --out disk/run --resume --steps 6 > stdout 2> stderr
    check "with room again, that run goes on" [ $? -eq 0 ]
    if mount -o remount,ro disk; then
        "$geartrain" train --out disk/run --resume --steps 8 > stdout 2> stderr
        said "a run that may only be read" 1 'Read-only file system' $?
        train_tiny --out disk/new --steps 2 > stdout 2> stderr
        said "a disk that may only be read" 1 "cannot make folder '.*': Read-only file system" $?
        "$geartrain" eval --from disk/run --data "$text" > stdout 2> stderr
        check "which is enough for eval" [ $? -eq 0 ]
    fi
else
    echo "cannot mount a small disk here: that part is left out"
fi
if [ "$(id -u)" -ne 0 ]; then
    mkdir locked && chmod a-w locked
    train_tiny --out locked/run --steps 2 > stdout 2> stderr
    said "a folder that may only be read" 1 "cannot make folder '.*': Permission denied" $?
fi

# ---- caches that cannot be kept -----------------------------------------------------------------

GEARTRAIN_CACHE=/proc/nowhere "$geartrain" eval --from run --data "$text" > stdout 2> stderr
said "a cache nowhere is told, and done without" 0 "/proc/nowhere.*caches are kept in" $?

close_checks
