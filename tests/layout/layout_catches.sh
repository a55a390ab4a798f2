#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/layout_catches.sh - layout.sh must fail: each breach below is planted in a copy
# of the tree, and has to be named. A rule that nothing can break protects nothing.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-catches-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

mkdir "$work/tree"
cp -R CMakeLists.txt README.md LICENSE cl host net models tests "$work/tree" 2> /dev/null
tree=$work/tree

# plant FILE TEXT: appends a line, makes the file where there is none.
plant()
{
    mkdir -p "$tree/$(dirname "$1")"
    printf '%s\n' "$2" >> "$tree/$1"
}

plant host/attic/attic.c        'int attic;'
plant host/base/planted_up.c    '#include "host/graph/graph.h"'
plant host/cli/planted_inside.c '#include "host/device/device_private.h"'
plant host/base/planted_lost.c  '#include "graph.h"'
plant host/base/CMakeLists.txt  'target_link_libraries(base PUBLIC graph)'
plant cl/planted_use.c          '#include "host/tensor/dtype.h"'
plant host/optim/planted_cl.c   '#include <CL/cl.h>'
plant host/optim/planted_ib.c   '#include <infiniband/verbs.h>'
plant host/optim/clock.c        'int clock_again;'
plant notes.txt                 'left behind'
plant host/optim/planted_later.c "/* TO""DO: all of it */"
plant host/optim/planted_exit.c 'void f(void) { exit(1); }'
plant host/optim/planted_print.c 'void g(void) { fprintf(stderr, "x"); }'
plant host/optim/planted_bare.c 'const char *bare = "cannot go on: out of memory";'
plant host/base/planted.h       'size_t needs_stddef(void);'
plant models/planted.h          'struct twice { int x; };'

sh tests/layout/layout.sh "$tree" > "$work/said" && echo "layout.sh found nothing" >> "$work/said"

# named TEXT: layout.sh said it.
named()
{
    if grep -qF -- "$1" "$work/said"; then
        passed=$((passed + 1))
    else
        echo "FAILED not found: $1"
        failed=$((failed + 1))
    fi
}

named 'host/attic is a room without a row'
named 'host/base/planted_up.c includes "host/graph/graph.h"'
named 'host/cli/planted_inside.c includes "host/device/device_private.h", which is private'
named 'host/base/planted_lost.c includes "graph.h", which is no path'
named 'host/base/CMakeLists.txt: base links graph'
named 'cl/CMakeLists.txt: cl includes tensor, but does not name it'
named 'host/optim/planted_cl.c:1:'
named 'host/optim/planted_ib.c:1:'
named 'clock.c: host/base/clock.c host/optim/clock.c'
named '    notes.txt'
named 'host/optim/planted_later.c:1:'
named 'host/optim/planted_exit.c: void f'
named 'host/optim/planted_print.c: void g'
named 'host/optim/planted_bare.c:1:'
named 'host/base/planted.h:'
named 'models/planted.h:'
named '    host/optim/planted_exit.c'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
