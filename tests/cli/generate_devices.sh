#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/generate_devices.sh - `generate` over several devices: the text of one device, greedy and drawn, whatever
# the cut, of every family that generates, with adapters, and from a prompt that goes through in pieces.
. "$(dirname "$0")/cli_checks.sh"

write() { timeout 300 "$geartrain" generate "$@" 2> stderr < /dev/null; }
two=cpu:0.0,cpu:0.1

# same NAME OPTIONS...: what --from says is written on one half of the CPU, and on two.
same()
{
    what=$1
    shift
    for sampling in '--temperature 0' '--temperature 1 --top-p 0.9 --seed 5'; do
        write -q -n 40 --devices cpu:0.0 $sampling "$@" > one
        write -q -n 40 --devices $two --cut even $sampling "$@" > several
        check "$what: two devices write what one does, $sampling" cmp -s one several
        check "$what: and it is text" [ "$(wc -c < several)" -gt 40 ]
    done
}

train_tiny --steps 40 --lr 3e-3 --eval-every 0 --out gpt2 > stdout 2> stderr || { echo "cannot train"; cat stderr; exit 1; }
prompt=$(head -c 50 "$text" | tr '\n' ' ')
same gpt2 --from gpt2 --prompt "$prompt"
same 'gpt2 in bf16' --from gpt2 --prompt 'the ' --precision bf16
same 'gpt2 with matrices in 8 bits' --from gpt2 --prompt 'the ' --base-precision int8
write -q --from gpt2 --prompt 'the ' -n 60 --precision bf16 > bf16
write -q --from gpt2 --prompt 'the ' -n 60 --precision bf16 --base-precision bf16 > alike
check "matrices in the precision of all are no other" cmp -s bf16 alike
refuses "matrices wider than that" 2 'option --base-precision: frozen matrices in fp32 would be widened by --precision bf16' \
    generate --from gpt2 --precision bf16 --base-precision fp32
train_tiny --model llama-tiny --steps 40 --lr 3e-3 --eval-every 0 --out llama > stdout 2> stderr
same llama --from llama --prompt 'the '
"$geartrain" train --from llama --data "$text" --seq 32 --batch 4 --lora 3 --steps 20 --lr 1e-2 --eval-every 0 --out tuned > stdout 2> stderr
same 'a run of adapters' --from tuned --prompt 'the '
"$geartrain" export tuned -o adapter > stdout 2> stderr
same 'an adapter of PEFT' --from llama --adapter adapter --prompt 'the '
write -q -n 40 --temperature 0 --from llama --prompt 'the ' > plain
write -q -n 40 --temperature 0 --from llama --adapter adapter --prompt 'the ' --devices $two > adapted
check "which says something else than its model" [ "$(cat plain)" != "$(cat adapted)" ]

# ---- cuts -------------------------------------------------------------------------------------------

write -q --from gpt2 --prompt 'the ' -n 100 --temperature 0 > whole
for cut in "--devices cpu:0.0,cpu:0.1@0.25" "--stages 3" "--stages 2 --cut even" "--devices $two --stages 3"; do
    write -q --from gpt2 --prompt 'the ' -n 100 --temperature 0 $cut > cut
    check "the same, from a full context on as well: $cut" cmp -s whole cut
done
write --from gpt2 --prompt 'the ' -n 2 --devices $two --cut even > stdout
check "who holds what is said" [ "$(grep '^stage' stderr | tr -s ' ' | tr '\n' '|')" = 'stage 0 cpu:0.0 embedding, layers 0-1|stage 1 cpu:0.1 layer 2, head|' ]
write --from gpt2 --prompt 'the ' -n 2 --devices "$two" > stdout
check "and how fast each was measured to be" [ "$(grep -Ec '^stage .* reads [0-9.]+ GB/s$' stderr)" -eq 2 ]
printf 'the \na gear\n' > prompts.txt
write -q --from gpt2 --prompts prompts.txt -n 20 --samples 2 --devices cpu:0.0 > one
write -q --from gpt2 --prompts prompts.txt -n 20 --samples 2 --devices $two > several
check "several prompts, each several times" cmp -s one several

# ---- misuse -----------------------------------------------------------------------------------------

refuses "more stages than layers" 2 "'gpt2-tiny' has 3 layers, which do not make 4 stages" generate --from gpt2 --stages 4
refuses "more devices than layers" 2 'has 3 layers, which do not make 4 stages' generate --from gpt2 --devices cpu:0.0,cpu:0.1,cpu:0.0,cpu:0.1
refuses "fewer stages than devices" 2 'option --stages: 1 leave some of 2 devices without work' generate --from gpt2 --devices $two --stages 1
refuses "a device that is not there" 1 "cpu:77" generate --from gpt2 --devices cpu:0.0,cpu:77
refuses "a cut without several stages" 2 'option --cut would be ignored: there is one stage' generate --from gpt2 --cut even

# ---- a model that others trained --------------------------------------------------------------------

reference=${GT_SHARED:-$OLDPWD/../shared}/reference
if [ -e "$reference/stories260K.bin" ]; then
    for cut in "--devices $two --cut even" "--devices $two" "--stages 5"; do
        story=$(write --from "$reference/stories260K.bin" --tokenizer "$reference/tok512.bin" --prompt Once \
            --tokens 199 --temperature 0 --quiet $cut)
        check "a checkpoint of llama2.c tells its story of 200 tokens: $cut" \
            test "$story" = "$(cat "$reference/stories260K_expected_greedy.txt")"
    done
else
    echo "skipped: no $reference/stories260K.bin"
fi
close_checks
