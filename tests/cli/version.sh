#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/version.sh - the program names the commit it was built from, if git knows it.
root=$(cd "$(dirname "$0")/../.." && pwd)
. "$root/tests/cli/cli_checks.sh"

# made SOURCE: what a build of that folder would call itself
made()
{
    rm -f made.h
    cmake -DVERSION=1.2.3 -DSOURCE="$1" -DOUT="$work/made.h" -P "$root/host/cli/commit.cmake" \
        && sed -n 's/^#define GT_VERSION_TEXT "\(.*\)"$/\1/p' made.h
}
is() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }

does "the version, and the commit in brackets" '^geartrain [0-9]+\.[0-9]+\.[0-9]+( \([0-9a-f]{10}\+?\))?$' --version
mkdir plain
check "without git the version alone" is "$(made "$work/plain")" 1.2.3
if ! command -v git > /dev/null; then
    close_checks
fi
mkdir tree
git -C tree init -q
echo one > tree/file
git -C tree add file
git -C tree -c user.name=x -c user.email=x@x commit -qm one
commit=$(git -C tree rev-parse --short=10 HEAD)
check "a commit" is "$(made "$work/tree")" "1.2.3 ($commit)"
echo two > tree/file
check "changed since that commit" is "$(made "$work/tree")" "1.2.3 ($commit+)"
close_checks
