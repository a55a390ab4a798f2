#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/sparse_sums.sh - gradients of which a part need not travel: rows that no token names, tensors that have changed
# little; what is said of it, and what has no meaning.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
cat > llama.json <<'END'
{ "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 2048, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
  "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false }
END
llama="--model llama.json --data $text --tokenizer byte --seq 32 --batch 4 --steps 4 --eval-every 0 --save-every 2"
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --steps 4 --eval-every 0 --save-every 2"
two="--devices cpu:0/2 --replicas 2 --stages 1"

# sent FILE: megabytes of the last step, as the run told them.
sent()
{
    sed -n 's/.*sent \([0-9.]*\) \([kMG]\)B.*/\1 \2/p' "$1" | tail -n 1 \
        | awk '{ print $1 * ($2 == "G" ? 1000 : $2 == "k" ? 0.001 : 1) }'
}
weights()       # RUN
{
    echo "$1/checkpoints/step-000004/params-00000.safetensors"
}

# Runs whose weights are held against each other have one plan: another may share the batch otherwise.
does "a table of its own" 'sent' train $llama $two --out rows
cp stdout rows.txt
check "goes as rows, which is said" grep -q "'embed_tokens.weight' go between ranks as the rows that a step touches" stderr
does "or whole" 'sent' train $llama $two --plan rows/plan.json --out whole --sparse-rows off
cp stdout whole.txt
check "with the same weights" cmp "$(weights rows)" "$(weights whole)"
check "in more bytes" awk -v a="$(sent rows.txt)" -v b="$(sent whole.txt)" 'BEGIN { exit !(a > 0 && a < 0.8 * b) }'
does "sharded" 'sent' train $llama $two --out parts --sync sharded
does "and whole" 'sent' train $llama $two --plan parts/plan.json --out parts-whole --sparse-rows off
check "with the same weights" cmp "$(weights parts)" "$(weights parts-whole)"
does "a tied table" 'sent' train $tiny $two --out tied
check "goes whole, which is said" grep -q "'wte.weight' go between ranks whole: a head tied to it" stderr
does "--explain says it as well" "go between ranks whole: a head tied to it" train $tiny $two --explain
does "compressed tables" 'sent' train $llama $two --out coded --compress bf16
check "go whole" grep -q "'embed_tokens.weight' go between ranks whole: they are compressed" stderr
does "adapters" 'sent' train $llama $two --out lora --lora 2
check "freeze tables, and there is nothing to say" sh -c '! grep -q "^rows" stderr'

does "tensors wait" 'held back [1-9][0-9]* tensor.*B' train $llama $two --out held --send-threshold 100
check "and each rank keeps its own" test -f held/checkpoints/step-000004/residuals-00001.safetensors
check "which the run remembers" grep -q '"send-threshold": "*100' held/config.json
does "a run goes on with them" 'held back' train --out held --resume --steps 6
does "on one rank nothing waits" 'step 8 ' train --out held --resume --steps 8 --devices cpu:0
does "a threshold of nothing" 'sent' train $llama $two --plan rows/plan.json --out none --send-threshold 0 --sparse-rows off
check "changes nothing" cmp "$(weights none)" "$(weights whole)"
refuses "a compressor beside it" 2 'leave out --compress bf16' train $llama $two --out no --compress bf16 --send-threshold 1
refuses "what is below 0" 2 'no number from 0 up' train $llama $two --out no --send-threshold -1
refuses "a mode that sums no gradients" 2 'leave out --send-threshold' train $llama $two --out no --sync local \
    --local-steps 2 --send-threshold 1

close_checks
