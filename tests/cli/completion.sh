#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/cli/completion.sh - the manual page and the completion scripts, which the program writes from its
# tables of options: the page is rendered without a warning and has every option that --help has; the
# functions are called as the shells call them.
. "$(dirname "$0")/cli_checks.sh"

# ---- the manual page --------------------------------------------------------------------------------

does "the manual page" '^\.TH GEARTRAIN 1' help --man
cp stdout geartrain.1
if command -v groff > /dev/null; then
    groff -man -ww -Tutf8 geartrain.1 > page 2> warnings
    check "is rendered without a warning" [ ! -s warnings ]
else
    echo "groff is not here: the manual page is not rendered"
fi
sed 's/\\-/-/g; s/\\fI\|\\fR//g' geartrain.1 > plain
for verb in devices doctor tokenize train eval generate bench 'bench link' 'bench allreduce' export plan launch help; do
    "$geartrain" $verb --help < /dev/null | sed -n 's/^ *\(-., \)\{0,1\}\(--[a-z0-9-]*\)\( .*\|$\)/\2/p' > options
    missing=$(while read -r option; do
        grep -Eq -- "^\.B (-., )?$option( |\$)" plain || echo "$option"
    done < options)
    check "$verb: all $(wc -l < options) options are in the page" [ -s options -a -z "$missing" ]
done

# ---- bash -----------------------------------------------------------------------------------------

does "bash's script" '^complete -F _geartrain geartrain' help --completion bash
. ./stdout
touch input.txt

# offers NAME WANT WORDS...: what is offered for the last of the words, sorted
offers()
{
    what=$1 want=$2
    shift 2
    COMP_WORDS=(geartrain "$@") COMP_CWORD=$#
    _geartrain
    got=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd ' ')
    [ "$got" = "$want" ] && pass "bash: $what" || fail "bash: $what" "'$got' is offered, not '$want'"
}
offers "verbs" "tokenize train" t
offers "options" "--resume" train --res
offers "an option whose name begins another's" "--lora --lora-alpha --lora-dropout --lora-targets" train --lora
offers "words for a choice" "fp32" train --precision fp3
offers "the same behind an equals sign" "bf16" train --precision = b
offers "a file" "input.txt" train --data inp
offers "a file where a word stands" "input.txt" tokenize inp
offers "nothing for a number" "" train --steps ""
offers "a word beside a file's name" "auto" train --plan au
offers "what there is to bench" "gemm" bench gem
offers "the options of that" "--algorithm" bench allreduce --algo
offers "none of another's" "" bench allreduce --recomp
offers "launch's options" "--hosts" launch --ho
offers "a verb behind --" "train" launch --ranks 2 -- tr
offers "that verb's options" "--optimizer" launch --ranks 2 -- train --opti

# ---- zsh ------------------------------------------------------------------------------------------

does "zsh's script" '^#compdef geartrain' help --completion zsh
if command -v zsh > /dev/null; then
    check "zsh reads it" zsh -n stdout
    cp stdout _geartrain
    cat > ask.zsh <<'END'
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "stty columns 500 rows 1000; PROMPT= RPROMPT=; fpath=($PWD \$fpath); autoload -U compinit; compinit -u -d $PWD/zcompdump; zstyle ':completion:*' list-colors ''; setopt no_beep; print -n re; print ady"
zpty -r -m z log '*ready*'
zpty -w -n z "geartrain $1"$'\t\t'
zpty -r -m z log "*$2*" && print found
END
    for try in 'tok|tokenize' 'train --precision bf|precision bf16' 'launch --ranks 2 -- exp|export'; do
        timeout 80 zsh -f ask.zsh "${try%%|*}" "${try##*|}" > stdout 2> stderr < /dev/null
        check "zsh completes '${try%%|*}'" grep -q found stdout
    done
else
    echo "zsh is not here: its script is not read"
fi
close_checks
