#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/caches.sh - a home that is not there, or cannot be written: the caches, and PoCL's, go to
# a folder of the user's own in the temporary folder, with one warning, and the doctor says why.
#
# A plain file stands for the folder that cannot be made or written, for that holds for root as well.
# With root's rights one case runs as another user, whose HOME is root's.
. "$(dirname "$0")/cli_checks.sh"
unset GEARTRAIN_CACHE XDG_CACHE_HOME POCL_CACHE_DIR
TMPDIR=$work
export TMPDIR
own=$work/geartrain-$(id -u)
: > file

# falls_back NAME PATTERN FOLDER VARIABLES...: a command works, warns once, and uses FOLDER.
falls_back()
{
    name=$1 pattern=$2 folder=$3
    shift 3
    rm -rf "$own"
    env "$@" timeout 300 "$geartrain" devices > stdout 2> stderr
    status=$?
    if [ $status -ne 0 ]; then
        fail "$name" "exit status $status"
    elif [ "$(grep -c warning stderr)" -ne 1 ]; then
        fail "$name" "$(grep -c warning stderr) warnings, not one"
    elif ! grep -Eq -- "$pattern" stderr; then
        fail "$name" "the warning does not say '$pattern'"
    elif [ -z "$(ls "$folder")" ]; then
        fail "$name" "nothing is in $folder"
    else
        pass "$name"
    fi
}
private() { [ "$(stat -c '%a %u' "$own")" = "700 $(id -u)" ]; }

falls_back "a home that is no folder" "HOME is '$work/file', which is no folder; caches are kept in '$own', .*GEARTRAIN_CACHE" \
    "$own/proof" HOME="$work/file"
check "PoCL's programs go there as well" test -n "$(ls "$own/pocl")"
check "nobody else may look" private
falls_back "no home" "HOME is not set; caches are kept in '$own', .*GEARTRAIN_CACHE" "$own/proof" -u HOME \
    POCL_CACHE_DIR="$work/pocl"
falls_back "a home that is the root" "HOME is '/'; caches are kept in '$own'" "$own/proof" HOME=/ \
    POCL_CACHE_DIR="$work/pocl"
falls_back "a cache folder that cannot be made" "cannot make folder '$work/file'.*; caches are kept in '$own'" \
    "$own/proof" GEARTRAIN_CACHE="$work/file/x" POCL_CACHE_DIR="$work/pocl"
falls_back "PoCL's folder that cannot be made" "PoCL cannot write its cache folder '$work/file/x'; it gets '$work/ours/pocl': name a folder in POCL_CACHE_DIR" \
    "$work/ours/pocl" GEARTRAIN_CACHE="$work/ours" POCL_CACHE_DIR="$work/file/x"

POCL_CACHE_DIR=$work/pocl
export POCL_CACHE_DIR

# A folder in the temporary folder is not taken over as it is.
mkdir -p "$own" && chmod 777 "$own"
env HOME="$work/file" timeout 240 "$geartrain" devices > stdout 2> stderr
check "others' rights are taken away" private
rm -rf "$own"
mkdir elsewhere && ln -s "$work/elsewhere" "$own"
env HOME="$work/file" timeout 240 "$geartrain" doctor > stdout 2> stderr
check "a link is not followed" test -z "$(ls elsewhere)"
check "and the doctor says so" grep -Eq "^BAD .*HOME is .*cannot keep caches in '$own': it is not a folder of this user's" stdout
rm "$own"

# What a killed tokenizing left goes with the next run, unless somebody is still at it.
tokens=$work/kept/tokens
mkdir -p "$tokens/0123456789abcdef.partial-77" "$tokens/fedcba9876543210.partial-78"
: > "$tokens/fedcba9876543210.partial-78/train-000000.bin"
(flock 9 && GEARTRAIN_CACHE=$work/kept train_tiny --steps 1 --out tidied 9>&-) 9> "$tokens/0123456789abcdef.lock" \
    > stdout 2> stderr
check "a run beside a half-made cache entry" [ $? -eq 0 ]
check "an entry that nobody makes any more is removed" [ ! -e "$tokens/fedcba9876543210.partial-78" ]
check "and one in the making is not" [ -d "$tokens/0123456789abcdef.partial-77" ]
rm -r tidied
GEARTRAIN_CACHE=$work/kept train_tiny --steps 1 --out tidied > stdout 2> stderr
check "until its maker is gone" [ -z "$(ls -d "$tokens"/*.partial-* 2> /dev/null)" ]

unset POCL_CACHE_DIR
HOME=$work/file timeout 240 "$geartrain" doctor > stdout 2> stderr
check "the doctor names the cause" grep -Eq "^BAD .*HOME is '$work/file', which is no folder; for now caches are in '$own/programs'" stdout
check "and PoCL's" grep -Eq "^BAD .*PoCL cannot write its cache folder '$work/file/.cache/pocl/kcache', and would show no device" stdout
check "with the fix" grep -q "fix: set HOME to a folder that can be written, or name one in POCL_CACHE_DIR" stdout

# Another user, as `docker run --user` makes one: no home of its own, and this one's closed.
if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
    open=$(mktemp -d /tmp/geartrain-open-XXXXXX) && chmod 755 "$open" && mkdir -m 777 "$open/tmp" \
        && mkdir -m 700 "$open/home" && cp "$geartrain" "$open/geartrain" && chmod 755 "$open/geartrain"
    (cd "$open" && HOME=$open/home TMPDIR=$open/tmp setpriv --reuid=65534 --regid=65534 --clear-groups \
        timeout 300 ./geartrain devices) > stdout 2> stderr
    check "another user's home that is closed" test $? -eq 0
    check "is told of" grep -Eq "cannot make folder '$open/home/.cache': Permission denied; caches are kept in '$open/tmp/geartrain-65534'" stderr
    rm -rf "$open"
else
    echo "not root, or no setpriv: another user's home is not tried"
fi
close_checks
