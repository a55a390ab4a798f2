#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/adapters_heads.sh - heads that weights lack are trained beside adapters and lie in PEFT's folders: each side
# gives the other's logits. ${GT_PYTHON:-python3} has to have torch, transformers and peft.
script=$(cd "$(dirname "$0")" && pwd)/heads.py
. "$(dirname "$0")/../cli/cli_checks.sh"
python=${GT_PYTHON:-python3}
if ! "$python" -c 'import torch, transformers, peft' 2> /dev/null; then
    echo "skipped: no Python packages torch, transformers and peft in '$python' (\$GT_PYTHON names another)"
    exit 77
fi

other() # ARGUMENTS...: the other side, quietly
{
    "$python" "$script" "$@" 2> "$work/python.log" || { tail -n 3 "$work/python.log"; return 1; }
}

awk 'BEGIN {
    split("the wheel turns a gear of train and its teeth meet another", w, " ")
    split("good bad film", kind, " ")
    print "text,label"
    for (i = 0; i < 60; i++) {
        s = ""
        for (k = 0; k < 3 + i % 5; k++) s = s w[1 + (i * 7 + k * 5) % 12] " "
        print "\"" s kind[1 + i % 3] ".\"," substr("abc", 1 + i % 3, 1)
    }
}' > labelled.csv

other begin "$work" || { fail "PEFT writes adapters" "it fails"; close_checks; }
for case in bert-classify roberta-classify bert-mlm; do
    case $case in
    *mlm) set -- --task mlm --data "$text" ;;
    *) set -- --task classify --data labelled.csv --label-key label ;;
    esac
    program train --from "$case/base" "$@" --lora 2 --seq 16 --batch 6 --steps 12 --lr 1e-2 --eval-every 0 --dropout 0 \
        --out "$case/run" > stdout 2> stderr || fail "$case: trains" "it fails"
    program export "$case/run" -o "$case/mine" > stdout 2> stderr || fail "$case: is exported" "it fails"
    program export "$case/run" --merge -o "$case/merged" > stdout 2> stderr || fail "$case: is merged" "it fails"
    program export "$case/base" --adapter "$case/theirs" --merge -o "$case/theirs_merged" > stdout 2> stderr \
        || fail "$case: PEFT's is merged" "it fails"
done
other compare "$work" > compared || fail "PEFT reads what was written here" "it fails"
while read -r case mine theirs; do
    check "$case: PEFT's logits are those of the merged weights" awk "BEGIN { exit !($mine <= 1e-4) }"
    check "$case: an adapter of PEFT's gives its logits here" awk "BEGIN { exit !($theirs <= 1e-4) }"
done < compared
check "all cases were compared" [ "$(wc -l < compared)" -eq 3 ]
close_checks
