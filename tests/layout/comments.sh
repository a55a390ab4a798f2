#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/comments.sh - every file, folder and function that a comment names exists.
#
#   a file       a name that ends in .c .h .cl .clh .sh or .py, with as much of its path as is given;
#                room/file and folders of the tree without an ending
#   a function   a name with () behind it: something of that name is called, defined or declared in the
#                code, or by a system header
#
# Read are comments of C, OpenCL C and shell, and all of README.md and CONTRIBUTING.md. Names in capitals
# (algorithm_NAME.c) stand for others.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-comments-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

# Files and functions of other programs that are spoken of: llm.c's, transformers', GPT-2's and tinygrad's.
foreign='llm.c llama2.c data_common.py train_gpt2.c train_gpt2.py train_llama3.py encoder.py bytes_to_unicode
         modeling_utils.py configuration_utils.py configuration_gpt2.py activations.py emu.py'

find . \( -name '.?*' -o -path './build*' -o -name __pycache__ \) -prune -o -type f -print \
    | sed 's,^\./,,' | sort > "$work/files"
grep -E '\.([ch]|cl|clh|sh)$|^(README|CONTRIBUTING)\.md$' "$work/files" > "$work/read"

# comments FILE...: "FILE:LINE:text" of each line of a comment; code: the same files without comments and
# strings.
cat > "$work/split.pl" <<'END'
use strict;
my ($want, @files) = @ARGV;
for my $file (@files) {
    open my $in, '<', $file or die "$file: $!\n";
    my $text = do { local $/; <$in> };
    close $in;
    my ($comments, $code) = ('', '');
    my $blank = sub { my $s = shift; $s =~ s/[^\n]/ /g; $s };
    if ($file =~ /\.md$/) {
        $comments = $text;
    } elsif ($file =~ /\.sh$/) {
        for my $line (split /^/, $text) {
            if ($line =~ /^(\s*|.*\s)#(?!!)\s(.*)$/s) { $comments .= "$2"; $code .= "$1\n" }
            else { $comments .= "\n"; $code .= $line }
        }
    } else {
        while ($text =~ m{\G(?:(/\*.*?\*/|//[^\n]*)|("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|([^/"']+|.))}gs) {
            if (defined $1)    { $comments .= $1;             $code .= $blank->($1) }
            elsif (defined $2) { $comments .= $blank->($2);   $code .= '""' }
            else               { $comments .= $blank->($3);   $code .= $3 }
        }
    }
    if ($want eq 'code') { print $code; next }
    my $n = 0;
    for my $line (split /\n/, $comments) {
        $n++;
        print "$file:$n:$line\n" if $line =~ /\S/;
    }
}
END

# names FILE...: "FILE:LINE file|folder|function NAME" of what their comments name.
names()
{
    perl "$work/split.pl" comments "$@" | perl -ne '
        my ($at, $text) = /^([^:]*:\d+):(.*)$/s or next;
        while ($text =~ m{(?<![\w./<*\$-])((?:[\w-]+/)*[\w-]+\.(?:c|h|cl|clh|sh|py))(?![\w/]|\.\w|\()}g) {
            my $name = $1;
            print "$at file $name\n" unless $name =~ m{[A-Z]{2}};
        }
        while ($text =~ m{(?<![\w./<*\$-])((?:host|net|cl|models|tests|findings)(?:/[a-z_]\w*)+)(?![\w/*]|\.\w|\.\*)}g) {
            print "$at folder $1\n";
        }
        while ($text =~ /(?<![\w.])([A-Za-z_]\w*)\(\)/g) {
            print "$at function $1\n";
        }'
}

# This file's text plants names, so its code counts for nothing.
perl "$work/split.pl" code $(grep -E '\.([ch]|cl|clh|sh)$' "$work/files" | grep -v '/comments\.sh$') > "$work/code"
{
    grep -oE '[A-Za-z_][A-Za-z0-9_]* *\(' "$work/code" | tr -d ' ('
    grep -oE '\(\*[A-Za-z_][A-Za-z0-9_]*\)' "$work/code" | tr -d '(*)'      # pointers to functions
    sed -n 's/^ *# *define *\([A-Za-z_][A-Za-z0-9_]*\).*/\1/p' "$work/code"
    sed -n 's/^ *\(function\|macro\)(\([a-z_0-9]*\).*/\2/p' $(grep 'CMakeLists\.txt$' "$work/files")
} | sort -u > "$work/functions"
sed -n 's/^ *# *include *<\([^>]*\)>.*/\1/p' $(grep -E '\.[ch]$' "$work/files") | sort -u > "$work/headers"
# Every file with each tail of its path, and with no ending; every folder with each tail.
perl -ne 'chomp; my @p = split "/"; my $path = $_;
          print join("/", @p[$_ .. $#p]), "\n" for 0 .. $#p;
          $path =~ s/\.\w+$//; print "$path\n";
          for (my $d = $path; $d =~ s{/[^/]*$}{}; ) { print "$d\n" }' "$work/files" \
    | cat - "$work/headers" | sort -u > "$work/places"

# in_a_system_header NAME
in_a_system_header()
{
    case $1 in
    cl[A-Z]*|ibv_*|rdma_*|PMIx_*|CLBlast*|cblas_*|openblas_*|dnnl_*|omp_*) return 0 ;;
    esac
    sed 's/.*/#if __has_include(<&>)\n#include <&>\n#endif/' "$work/headers" > "$work/probe.c"
    echo "void *probe(void); void *probe(void) { return (void *)$1; }" >> "$work/probe.c"
    cc -w -fsyntax-only -D_GNU_SOURCE -DCL_TARGET_OPENCL_VERSION=120 "$work/probe.c" 2> /dev/null
}

# wrong FILE...: what their comments name and is not there. A script may name what it writes itself.
wrong()
{
    names "$@" | sort -u > "$work/names"
    awk -v functions="$work/functions" -v places="$work/places" -v foreign="$foreign" '
        BEGIN {
            while ((getline name < functions) > 0) known["function " name] = 1
            while ((getline name < places) > 0) known["file " name] = known["folder " name] = 1
            n = split(foreign, list)
            for (i = 1; i <= n; i++) elsewhere[list[i]] = 1
        }
        { base = $3; sub(/.*\//, "", base) }
        !(($2 " " $3) in known) && !(base in elsewhere)' \
        "$work/names" > "$work/unknown"
    while read -r at kind name; do
        if [ "$kind" = function ]; then
            in_a_system_header "$name" || echo "$at names $name(), which is nowhere"
            continue
        fi
        case $at in
        *.sh:*) perl "$work/split.pl" code "${at%:*}" | grep -qF -- "> $name" && continue ;;
        esac
        echo "$at names $name, which is not there"
    done < "$work/unknown"
}

passed=0 failed=0
verdict()       # WHAT STATUS
{
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
    fi
}

wrong $(cat "$work/read") > "$work/wrong"
sed 's/^/    /' "$work/wrong"
[ ! -s "$work/wrong" ]
verdict "every file and function that a comment names exists" $?
[ "$(wc -l < "$work/names")" -gt 1000 ]
verdict "names are found at all" $?

# A comment with names that are wrong must be found, and only those.
cat > "$work/planted.c" <<'END'
/* See host/base/nowhere.h, gone.cl and host/attic; planted_nothing() does it, as gt_fail() and
 * host/base/status.h say, and memcpy(). "strings.c" */
int planted;    // tests/cli/absent.sh
const char *text = "/* not_a_comment.c */";
END
wrong "$work/planted.c" | sed 's/^[^ ]* names //; s/, which.*//' > "$work/planted"
for name in host/base/nowhere.h gone.cl host/attic 'planted_nothing()' tests/cli/absent.sh strings.c; do
    grep -qxF -- "$name" "$work/planted"
    verdict "$name, planted, is found" $?
done
[ "$(wc -l < "$work/planted")" -eq 6 ]
verdict "nothing else in the planted comment is found: $(tr '\n' ' ' < "$work/planted")" $?

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
