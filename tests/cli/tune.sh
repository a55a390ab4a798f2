#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/tune.sh - `bench gemm --tune`: a table of what it found, a file that keeps it, and training that
# uses the file, bit for bit as before.
. "$(dirname "$0")/cli_checks.sh"
GEARTRAIN_GEMM=tiled
export GEARTRAIN_GEMM

losses()    # RUN: what its steps came to, to the last digit
{
    sed 's/.*"loss": \([^,]*\),.*"grad_norm": \([^,]*\),.*/\1 \2/' "$1/metrics.jsonl"
}
train_tiny --steps 3 --out before > stdout 2> stderr
check "a run without tuning" [ $? -eq 0 ]
check "makes no file for it" [ -z "$(ls cache/tuning/*.txt 2> /dev/null)" ]

# ---- shapes ----------------------------------------------------------------------------------------

does "a shape in its three layouts" '^ +96 +80 +64  TN +1 tiled +[0-9.]+ +[0-9.]+ +[0-9.]+ +2 (rows:|default)' \
    bench gemm --tune --shapes 96x80x64 --variants 2 --seconds 1h
check "a line each" [ "$(grep -c '^ *96 ' stdout)" -eq 3 ]
file=$(ls cache/tuning/*.txt)
check "which says where they are kept" grep -q "^kept in '$work/$file'; training" stdout
check "a line each there" [ "$(grep -cE '^(nn|nt|tn) fp32 fp32 fp32 96 80 64 1 tiled [0-9]+ [a-z]+:[0-9]+,[^ ]* [0-9.e-]+$' "$file")" -eq 3 ]
check "behind its head" [ "$(head -n 1 "$file")" = "geartrain tuning 1" ]
does "--json" '^\{"bench": "gemm tune", "M": 96, "N": 80, "K": 64, "layout": "NT", .*"ratio": [0-9.]+, "tried": 1, "skipped": \[' \
    bench gemm --tune --shapes 96x80x64 --variants 1 --json
check "is nothing but objects" [ "$(grep -vc '^{.*}$' stdout)" -eq 0 ]
does "the benchmark goes on as ever" '^ +96 +80 +64  NT +tiled' bench gemm --shapes 96x80x64 --runs 1

# ---- a model ---------------------------------------------------------------------------------------

does "a model's products" "^gpt2-tiny's products take [0-9.]+ ms in one step's forward and backward, and [0-9.]+ ms without" \
    bench gemm --tune --model gpt2-tiny --batch 4 --seq 32 --variants 1
check "the weights' gradients among them" grep -qE '^ +[0-9]+ +[0-9]+ +128  TN' stdout
# Every product in one way that is surely not the default.
sed -i -E 's/ [a-z]+:[0-9]+,[^ ]* / rows:4,vectors:1,columns:64,k:128,kept:96,unroll:2,packed:2 /' "$file"
train_tiny --steps 3 --out after > stdout 2> stderr
check "a run with tuning" [ $? -eq 0 ]
losses before > a && losses after > b
check "has the losses of one without" [ -s a -a "$(cat a)" = "$(cat b)" ]
echo nonsense >> "$file"
GT_LOG=gemm:info program train --out after --resume --steps 4 > stdout 2> stderr
check "a line of no use is said" grep -q "1 tuned products in '$work/$file' are of no use here" stderr
check "and training goes on" grep -q '^step 4 ' stdout

# ---- beside a run ----------------------------------------------------------------------------------

rm "$file"
train_tiny --steps 9 --out alone > stdout 2> stderr
check "a CPU is not tuned unasked" [ "$(grep -c '^tuned ' stderr)" -eq 0 ]
train_tiny --steps 9 --out beside --tune on > stdout 2> stderr
check "a run that tunes ends well" [ $? -eq 0 ]
check "and says what it tried" grep -Eq '^tuned   [0-9]+ products? between steps, in [0-9.]+ s' stderr
losses alone > a && losses beside > b
check "with the losses of one that does not" [ -s a -a "$(cat a)" = "$(cat b)" ]
refuses "--tune of another kind" 2 "option --tune: 'maybe'" train --model gpt2-tiny --data "$text" --tune maybe

# ---- what is refused -------------------------------------------------------------------------------

refuses "--tune of something else" 2 'option --tune would be ignored: it belongs to bench gemm' bench step --tune
refuses "--seconds without it" 2 'option --seconds would be ignored: it bounds --tune' bench gemm --seconds 3
refuses "--variants without it" 2 'option --variants would be ignored' bench gemm --variants 3
refuses "no variants" 2 'option --variants: 0 is not in 1..100000' bench gemm --tune --variants 0
refuses "shapes and a model" 2 'option --model would be ignored: --shapes names the products' \
    bench gemm --tune --shapes 64x64x64 --model gpt2-tiny
refuses "a shape that is none" 2 "option --shapes: '64x64' does not begin with MxNxK" bench gemm --tune --shapes 64x64
refuses "an engine that is built in one way" 1 'nothing to tune: no engine of device' \
    bench gemm --tune --shapes 64x64x64 --engine gemv
close_checks
