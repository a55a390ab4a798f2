#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/model_folders.sh - folders of models as they come: what would change the model is refused
# by name, files that are not what they are called are told as such, and the rest is read.
. "$(dirname "$0")/cli_checks.sh"

trained="--seq 32 --batch 4 --steps 2 --eval-every 0"
printf '{"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 400, "initializer_range": 0.3}' > padded.json
"$geartrain" train --model padded.json --data "$text" --tokenizer char $trained --out run \
    > stdout 2> stderr || { cat stderr; exit 1; }
"$geartrain" export run -o whole > stdout 2> stderr || { cat stderr; exit 1; }
"$geartrain" eval --from whole --data "$text" --seq 32 > want 2> stderr
same_loss() { [ "$(cut -d' ' -f1-8 stdout)" = "$(cut -d' ' -f1-8 want)" ]; }
differs() { ! same_loss; }
fresh() { rm -rf folder && cp -r whole folder; }

# ---- more rows than tokens ---------------------------------------------------------------------------

for options in '--temperature 0' '--temperature 9 --top-k 0 --seed 2' '--temperature 9 --top-k 390 --seed 2' '--top-k 1 --seed 2'; do
    does "padded rows are never drawn: $options" '^the' \
        generate --from run --prompt the -n 150 -q $options
    check "as much was written as asked" [ "$(wc -m < stdout)" -eq 154 ]
done
does "padded rows of a folder" '^the' generate --from whole --prompt the -n 150 --temperature 9 --top-k 0
fresh
last=$(sed -n 's/^ *"[a-z]": \([0-9]*\),*$/\1/p' whole/tokenizer.json | sort -n | tail -n 1)
sed "s/\\(^ *\"[a-z]\": \\)$last\\b/\\1390/" whole/tokenizer.json > folder/tokenizer.json
check "a hole was made" [ "$(grep -c ': 390' folder/tokenizer.json)" -eq 1 ]
does "holes are never drawn" '^the' generate --from folder --prompt the -n 150 --temperature 9 --top-k 0

# ---- descriptions --------------------------------------------------------------------------------------

described() # NAME PATTERN KEY-AND-VALUE
{
    fresh
    sed "s/^{/{ $3,/" whole/config.json > folder/config.json
    refuses "$1: eval" 1 "$2" eval --from folder --data "$text"
    refuses "$1: generate" 1 "$2" generate --from folder --prompt the
    refuses "$1: train" 1 "$2" train --model folder --data "$text" $trained --out new
}
described "cross attention" "'add_cross_attention'" '"add_cross_attention": true'
described "weights in 4 bits" "'quantization_config' is" '"quantization_config": {"bits": 4}'
described "a key nobody knows" "key 'rope_theta' is not known here and may change" '"rope_theta": 10000'
fresh
sed 's/^{/{ "transformers_version": "4.36.2", "torch_dtype": "float32", "n_ctx": 64, "summary_type": "mean",/' \
    whole/config.json > folder/config.json
does "keys that change nothing" '^loss ' eval --from folder --data "$text" --seq 32
check "change nothing" same_loss
sed 's/"scale_attn_weights": true/"scale_attn_weights": false/' whole/config.json > folder/config.json
does "attention that is not scaled" '^loss ' eval --from folder --data "$text" --seq 32
check "is another model" differs
"$geartrain" train --from folder --data "$text" $trained --out unscaled > stdout 2> stderr
check "and stays so in a run" grep -q '"scale_attn_weights": false' unscaled/config.json

# ---- a head of its own -------------------------------------------------------------------------------

# The same curve however the model is cut, and the same model after it has been a folder.
sed 's/"n_layer": 1,/"n_layer": 2, "tie_word_embeddings": false,/' padded.json > own.json
trained_own()
{
    out=$1
    shift
    "$geartrain" train --model own.json --data "$text" --tokenizer char --seq 32 --batch 4 --steps 3 \
        --eval-every 0 --out "$out" "$@" > stdout 2> stderr || sed 's/^/    /' stderr
    sed -n 's/.*"step": 3,.*"loss": \([0-9.]*\).*/\1/p' "$out/metrics.jsonl"
}
close_to() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && b > 0 && a / b < 1.00002 && b / a < 1.00002) }'; }
alone=$(trained_own own)
check "in two stages" close_to "$alone" "$(trained_own own-stages --devices cpu:0.0,cpu:0.1 --stages 2)"
check "on two ranks that split layers" close_to "$alone" \
    "$(trained_own own-tensor --devices cpu:0.0,cpu:0.1 --tensor 2)"
check "on two replicas" close_to "$alone" \
    "$(trained_own own-data --devices cpu:0.0,cpu:0.1 --replicas 2)"
"$geartrain" export own-stages -o own-folder > stdout 2> stderr
check "its folder says so" grep -q '"tie_word_embeddings": false' own-folder/config.json
check "and has it" grep -q '"lm_head.weight"' own-folder/model.safetensors
"$geartrain" eval --from own-stages --data "$text" --seq 32 --split all > want-own 2> stderr
does "eval of the folder" '^loss ' eval --from own-folder --data "$text" --seq 32 --split all
check "gives the run's loss" [ "$(cut -d' ' -f1-8 stdout)" = "$(cut -d' ' -f1-8 want-own)" ]
sed 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' own-folder/config.json > tied.json
mv tied.json own-folder/config.json
refuses "a head of its own that is said to be tied" 1 \
    "'lm_head.weight' holds other numbers than 'transformer.wte.weight'.*\"tie_word_embeddings\": false" \
    eval --from own-folder --data "$text"

# ---- weights and a description that is not theirs ----------------------------------------------------

# Each is of the same shapes, or says less than the weights do, but computes something else.
cp -r run begun
cp begun/config.json begun.json
other()     # DIFFERENCE KEY-AND-VALUE [DESCRIPTION]
{
    sed "s/^{/{ $2,/" "${3:-padded.json}" > other.json
    refuses "--resume as a model with $1" 2 "cannot resume 'begun' as model 'other.json': that has $1 as the run" \
        train --out begun --resume --model other.json --steps 4
    refuses "--from a folder with $1" 2 "model 'other.json' has $1 as the weights of 'whole'.*leave --model out" \
        train --model other.json --from whole --data "$text" $trained --out new
    refuses "--from a run with $1" 2 "model 'other.json' has $1 as the weights of 'run'" \
        train --model other.json --from run --data "$text" $trained --out new
}
other "layer_norm_epsilon 0.1, not 1e-05" '"layer_norm_epsilon": 0.1'
other "scale_attn_weights false, not true" '"scale_attn_weights": false'
other "scale_attn_by_inverse_layer_idx true, not false" '"scale_attn_by_inverse_layer_idx": true'
other "tie_word_embeddings false, not true" '"tie_word_embeddings": false'
sed 's/"n_head": 2, //; s/"n_positions": 64, //; s/"vocab_size": 400, //' padded.json > open.json
other "n_head 4, not 2" '"n_head": 4, "n_positions": 64, "vocab_size": 400' open.json
other "n_positions 32, not 64" '"n_head": 2, "n_positions": 32, "vocab_size": 400' open.json
other "vocab_size 300, not 400" '"n_head": 2, "n_positions": 64, "vocab_size": 300' open.json
check "the run's description is as it was" cmp -s begun/config.json begun.json
sed 's/0.3/0.2/' padded.json > other.json
refuses "--resume as a model drawn otherwise" 2 "has initializer_range 0.2, not 0.3 as the run" \
    train --out begun --resume --model other.json --steps 4
does "which weights that are there do not ask" '^step 2 ' \
    train --model other.json --from whole --data "$text" $trained --out drawn
sed 's/^{/{ "name": "same", "n_head": 2, "n_positions": 64, "resid_pdrop": 0.1,/' open.json > other.json
does "--resume as the same, its vocabulary left open" '^step 4 ' \
    train --out begun --resume --model other.json --steps 4
check "has the run's vocabulary" grep -q '"vocab_size": 400' begun/config.json
check "and the dropout that was asked for" grep -q '"resid_pdrop": 0.1' begun/config.json
does "--from as the same, its vocabulary left open" '^step 2 ' \
    train --model other.json --from whole --data "$text" $trained --out same
check "has the vocabulary of the weights" grep -q '"vocab_size": 400' same/config.json
"$geartrain" export own -o own-head > stdout 2> stderr
sed 's/"n_layer": 1,/"n_layer": 2,/' padded.json > other.json
refuses "--from a folder with a head of its own" 2 \
    "has tie_word_embeddings true, not false as the weights of 'own-head'" \
    train --model other.json --from own-head --data "$text" $trained --out new

# ---- weights ---------------------------------------------------------------------------------------------

fresh
# The header keeps its length: JSON has room for spaces before the colon.
LC_ALL=C sed 's/"transformer.wte.weight":/"lm_head.weight"        :/' whole/model.safetensors \
    > folder/model.safetensors
check "the head alone is there" grep -q lm_head.weight folder/model.safetensors
does "a tied head alone is the embedding" '^loss ' eval --from folder --data "$text" --seq 32
check "with the same loss" same_loss
LC_ALL=C sed 's/"transformer.ln_f.weight":/"transformer.ln_f.weighs":/' whole/model.safetensors \
    > folder/model.safetensors
refuses "a tensor that nobody knows" 1 "'transformer.ln_f.weighs' .* is no part of the model" \
    eval --from folder --data "$text"
fresh
printf '{"weight_map": {"transformer.wte.weight": "old.safetensors"}}' > folder/model.safetensors.index.json
"$geartrain" export run -o other --type bf16 > stdout 2> stderr
cp other/model.safetensors folder/old.safetensors
does "an old index beside a whole file" '^loss ' eval --from folder --data "$text" --seq 32
check "is not what is read" same_loss
check "and that is said" grep -q 'holds both model.safetensors and model.safetensors.index.json; the first' stderr

# ---- files that are not what they are called -------------------------------------------------------------

pointer='version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 548105171'
for file in model.safetensors config.json tokenizer.json; do
    fresh
    printf '%s\n' "$pointer" > folder/$file
    refuses "a pointer for $file" 1 "'folder/$file': it is a git-lfs pointer.*git lfs pull" \
        eval --from folder --data "$text"
done
fresh
mv folder/model.safetensors folder/part.safetensors
printf '%s\n' "$pointer" > folder/model.safetensors.index.json
refuses "a pointer for an index" 1 "'folder/model.safetensors.index.json': it is a git-lfs pointer" \
    eval --from folder --data "$text"
printf '{"weight_map": {"transformer.wte.weight": "part.safetensors"}}' > folder/model.safetensors.index.json
printf '%s\n' "$pointer" > folder/part.safetensors
refuses "a pointer for a shard" 1 "'folder/part.safetensors': it is a git-lfs pointer" \
    eval --from folder --data "$text"
printf '%s\n' "$pointer" > pointer.txt
printf '%s\n' "$pointer" > pointer_train.bin
refuses "a pointer for a text" 1 "'pointer.txt': it is a git-lfs pointer" \
    train --model gpt2-tiny --data pointer.txt $trained --out new
refuses "a pointer for tokens" 1 "'pointer_train.bin': it is a git-lfs pointer" \
    eval --from whole --data pointer_train.bin

mkdir lora
printf '{"peft_type": "LORA", "base_model_name_or_path": "openai-community/gpt2", "r": 8}' \
    > lora/adapter_config.json
cp whole/model.safetensors lora/adapter_model.safetensors
for verb in "eval --from lora --data $text" "generate --from lora" "export lora -o new" \
            "train --from lora --data $text $trained --out new" \
            "train --model lora --data $text $trained --out new"; do
    refuses "a LoRA folder: ${verb%% --data*}" 1 \
        "'lora' holds a LoRA adapter, not a model of its own.*'openai-community/gpt2'; name that model here" $verb
done
cp whole/* lora
refuses "a LoRA folder with a model beside it" 1 "'lora' holds a LoRA adapter" eval --from lora --data "$text"
check "what was refused left nothing" [ ! -e new ]

close_checks
