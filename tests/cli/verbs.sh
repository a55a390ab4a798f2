#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/verbs.sh - every verb does what its help says: a text becomes tokens, tokens a
# run, a run a loss, a text and a Hugging Face folder, and that folder a run again.
. "$(dirname "$0")/cli_checks.sh"

# ---- help ----------------------------------------------------------------------------------

does "help" '^Usage: geartrain VERB' -h
does "help by another name" '^Usage: geartrain VERB' --help
does "version" '^geartrain [0-9]+\.[0-9]+' --version
for verb in devices doctor tokenize train eval generate bench export plan launch; do
    does "$verb -h" "^Usage: geartrain $verb" $verb -h
    check "$verb -h fits a screen" [ "$(wc -l < "$work/stdout")" -le 45 ]
    does "$verb --help" "^Usage: geartrain $verb" $verb --help
    check "$verb --help is no wider than 100 columns" \
        [ "$(awk 'length > 100' "$work/stdout" | wc -l)" -eq 0 ]
    check "$verb --help gives no number in more digits than it has" \
        [ "$(grep -cE '[0-9]\.[0-9]*(0{6}|9{6})[0-9]*' "$work/stdout")" -eq 0 ]
done

# ---- looking at the machine --------------------------------------------------------------------

does "devices" '^(cpu|gpu|acc)[^ ]*:0 ' devices
does "devices says which engines multiply" 'matrix engines: fp32 .*tiled.*; bf16 .*tiled.*; fp16 ' devices
does "devices --json" '"max_alloc_bytes": [0-9]+' devices --json
"$geartrain" doctor > stdout 2> stderr
check "doctor says ok of something" grep -q '^ok ' stdout

# ---- tokens --------------------------------------------------------------------------------------

does "tokenize" 'training and [0-9]+ validation tokens of 256' tokenize "$text" -o bytes
does "tokenize char" 'validation tokens of [0-9]+' tokenize "$text" --tokenizer char -o chars
does "tokenize bpe" 'tokens of 300' tokenize "$text" --tokenizer bpe:300 -o pieces
does "tokenize with a tokenizer made before" 'tokens of 300' \
    tokenize "$text" --tokenizer pieces --val "$text" -o again
check "which gives the same ids" cmp -s again/val-000000.bin again/train-000000.bin
does "tokenize in shards" 'tokens of 256' tokenize "$text" --shard-tokens 1000 -o shards
check "of that size" [ "$(find shards -name 'train-*.bin' | wc -l)" -ge 6 ]

# ---- training --------------------------------------------------------------------------------------

does "train on a text" '^step 10 .*loss [0-9.]+  val [0-9.]+' train --model gpt2-tiny --data "$text" \
    --tokenizer char --seq 32 --batch 4 --steps 10 --eval-every 10 --save-every 4 --out run
for part in config.json metrics.jsonl loss.svg tokenizer/tokenizer.json \
            checkpoints/step-000010/manifest.json; do
    check "the run holds $part" [ -s run/$part ]
done
check "and an event file" [ -n "$(find run -name 'events.out.tfevents.*' -size +0)" ]
check "and the newest two checkpoints" [ "$(ls run/checkpoints | tr '\n' ' ')" = "step-000008 step-000010 " ]
check "a line of metrics a step" [ "$(wc -l < run/metrics.jsonl)" -eq 10 ]
does "train --json" '^\{"step": 3, "loss": ' train --model gpt2-tiny --data chars --seq 32 --batch 4 \
    --steps 3 --out run-json --json
does "train on token files" '^step 3 ' train --model gpt2-tiny --data shards --seq 32 --batch 4 \
    --steps 3 --out run-shards
does "train --resume takes its options from the run" '^step 5 ' train --out run-shards --resume --steps 5
"$geartrain" train --out run-shards --resume --steps 5 > stdout 2> stderr
check "train --resume of a run that is done" [ $? -eq 0 ]
check "does nothing" [ ! -s stdout ]
does "train --from weights of a run" '^step 2 ' train --from run --data "$text" --seq 32 --batch 4 \
    --steps 2 --out run-from
check "reads the text with the tokenizer of those weights" \
    cmp -s run/tokenizer/tokenizer.json run-from/tokenizer/tokenizer.json
mv run run-moved
does "train --resume when those weights are gone" '^step 4 ' train --out run-from --resume --steps 4
mv run-moved run
does "train --explain" 'layernorm' train --model gpt2-tiny --data "$text" --seq 32 --batch 2 --explain
for option in '--precision bf16' '--precision fp16' --recompute '--optimizer sgd --lr 0.1' \
              '--lr-schedule wsd --decay-share 0.5' '--order sequential' '--micro-batch 1'; do
    does "train $option" '^step 4 ' train --model gpt2-tiny --data chars --seq 32 --batch 4 --steps 4 \
        --out "run$(echo "$option" | tr -d ' ')" $option
done

# ---- using it ---------------------------------------------------------------------------------------

does "eval" '^loss [0-9.]+  perplexity [0-9.]+  over [0-9]+ tokens' eval --from run --data "$text"
does "eval --json" '^\{"loss": [0-9.]+, ' eval --from run --data chars --split train --batches 2 --json
does "generate" '^the ' generate --from run --prompt 'the ' -n 20
does "generate, the likeliest" . generate --from run --prompt 'the ' -n 20 --temperature 0
cp stdout first
does "generate again" . generate --from run --prompt 'the ' -n 20 --temperature 0
check "writes the same" cmp -s first stdout
does "generate beyond the context" . generate --from run --prompt 'the ' -n 150 --seed 3
check "writes as much as was asked" [ "$(wc -m < stdout)" -eq 155 ]

does "export" '^exported: ' export run -o exported
check "makes the three files" [ -s exported/config.json -a -s exported/model.safetensors -a -s exported/tokenizer.json ]
"$geartrain" eval --from run --data "$text" > a && "$geartrain" eval --from exported --data "$text" --split val > b
check "whose loss is the run's" [ "$(cut -d' ' -f1-8 a)" = "$(cut -d' ' -f1-8 b)" ]
does "export --type bf16" '^half: ' export run -o half --type bf16
check "takes half the room" [ "$(wc -c < half/model.safetensors)" -lt "$(($(wc -c < exported/model.safetensors) * 6 / 10))" ]
does "train a Hugging Face folder further" '^step 2 ' train --from exported --data "$text" --seq 32 \
    --batch 4 --steps 2 --out fine
does "bench gemm" '64 +64 +64  NN' bench gemm --shapes 64x64x64 --runs 2
does "bench attention" 'forward +kernel +' bench attention --seq 160 --heads 4 --kv-heads 2 --head-size 32 --runs 1
refuses "heads that cannot share keys" 2 '4 heads of queries cannot share 3' bench attention --heads 4 --kv-heads 3
does "bench step" . bench step --model gpt2-tiny --batch 2 --seq 32 --runs 2 --json

close_checks
