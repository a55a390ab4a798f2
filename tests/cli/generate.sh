#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/generate.sh - what `generate` writes: stop strings, several prompts, samples, objects, ends of
# texts, and that each text is what it is alone.
. "$(dirname "$0")/cli_checks.sh"

train_tiny --steps 60 --lr 3e-3 --eval-every 0 --out run > stdout 2> stderr || { echo "cannot train"; cat stderr; exit 1; }
write() { timeout 300 "$geartrain" generate --from run -q "$@" 2> stderr < /dev/null; }

# ---- the end of a text ------------------------------------------------------------------------------

write --prompt 'the ' -n 60 --temperature 0 > whole
middle=$(cut -c 20-23 whole | head -n 1)
write --prompt 'the ' -n 60 --temperature 0 --stop "$middle" > cut
check "a stop string ends the text before it" [ "$(cat cut)" = "$(awk -v s="$middle" 'NR == 1 {
    rest = substr($0, 5); printf "%s%s", substr($0, 1, 4), substr(rest, 1, index(rest, s) - 1); exit }' whole)" ]
write --prompt 'the ' -n 60 --temperature 0 --stop never --stop "$middle" > cut2
check "the first of several that comes does" cmp -s cut cut2
write --prompt 'the ' -n 60 --temperature 0 --stop never > same
check "one that does not come changes nothing" cmp -s whole same
write --prompt 'the ' -n 60 --temperature 0 --json --stop "$middle" > object
check "an object says why" grep -Eq '^\{"prompt": "the ", "number": 1, "sample": 1, "text": ".*", "tokens": [0-9]+, "ended": "stop", "prompt_tokens": 4, ' object
write --prompt 'the ' -n 60 --temperature 0 --json > object
check "or that there are no more tokens" grep -q '"tokens": 60, "ended": "length"' object
check "an object is JSON, with the text" python3 -c "
import json
o, t = json.load(open('object')), open('whole').read()
assert t == o['prompt'] + o['text'] + '\n', (t, o)"

# ---- several ----------------------------------------------------------------------------------------

printf 'the \na gear\r\nof the train\n' > prompts.txt
printf '"the "\n{"prompt": "a gear", "id": 7}\n{"prompt": "of the train"}\n' > prompts.jsonl
for sampling in '--temperature 0' '--temperature 1 --top-p 0.9 --seed 5' '--top-k 3 --min-p 0.1 --repetition-penalty 1.2'; do
    for prompt in 'the ' 'a gear' 'of the train'; do
        write --prompt "$prompt" -n 30 $sampling
    done > alone
    write --prompts prompts.txt -n 30 $sampling > together
    check "each of several texts is what it is alone: $sampling" [ "$(grep -v '^==> \|^$' together)" = "$(grep -v '^$' alone)" ]
done
check "each has a line above it" [ "$(grep '^==>' together | tr '\n' ' ')" = '==> prompt 1 <== ==> prompt 2 <== ==> prompt 3 <== ' ]
write --prompts prompts.txt -n 30 --json | sed 's/"prompt_seconds.*//' > lines
write --prompts prompts.jsonl -n 30 --json | sed 's/"prompt_seconds.*//' > objects
check "a file of objects gives the same as one of lines" cmp -s lines objects
write --prompt 'the ' -n 30 --samples 3 > samples
check "samples differ" [ "$(grep -v '^==> \|^$' samples | sort -u | wc -l)" -ge 3 ]
write --prompt 'the ' -n 30 > first
check "the first is the one of --samples 1" [ "$(sed -n 2p samples)" = "$(sed -n 1p first)" ]
write --prompt 'the ' -n 30 --samples 3 > again
check "they are the same again" cmp -s samples again

# ---- a folder's ends of texts -----------------------------------------------------------------------

"$geartrain" export run -o hf > stdout 2> stderr
id=$(python3 -c "
import json
print(json.load(open('hf/tokenizer.json'))['model']['vocab']['e'])")
timeout 240 "$geartrain" generate --from hf -q --prompt 'th' -n 20 --temperature 0 > without
printf '{"eos_token_id": [100000, %s]}' "$id" > hf/generation_config.json
timeout 240 "$geartrain" generate --from hf -q --prompt 'th' -n 20 --temperature 0 --json > with
check "an id of generation_config.json ends a text" grep -q '"ended": "end"' with
check "which would have gone on" grep -q '^the' without
timeout 240 "$geartrain" train --from hf --data "$text" --seq 16 --batch 2 --steps 1 --lr 0 --eval-every 0 --out ended > stdout 2> stderr
timeout 240 "$geartrain" export ended -o ended-hf > stdout 2> stderr
for place in ended ended-hf; do
    timeout 240 "$geartrain" generate --from $place -q --prompt 'th' -n 20 --temperature 0 --json > stdout
    check "it ends texts of $place, which was made of that folder" grep -q '"ended": "end"' stdout
done
printf '{"eos_token_id": "e"}' > hf/generation_config.json
refuses "ends that are no ids" 1 '"eos_token_id" is not an id, nor a list of ids' generate --from hf --prompt th
printf '{"eos_token_id": ' > hf/generation_config.json
refuses "a cut generation_config.json" 1 "'hf/generation_config.json', line 1" generate --from hf --prompt th

# ---- a full context ---------------------------------------------------------------------------------

check "a text goes on where the context is full" [ "$(write --prompt 'the ' -n 200 --temperature 0 | tr -d '\n' | wc -c)" -gt 150 ]
long=$(head -c 300 "$text" | tr '\n' ' ')
check "a prompt may be longer than the context" [ "$(write --prompt "$long" -n 5 --temperature 0 | head -c 300)" = "$(printf %s "$long" | head -c 300)" ]

# ---- chat -------------------------------------------------------------------------------------------

refuses "a chat without a template" 1 'option --chat: .* has no chat template.*; name one with --chat-template FILE' generate --from run --chat --prompt a
printf '{%% for m in messages %%}{{ m.role }} : {{ m.content }}\n{%% endfor %%}{%% if add_generation_prompt %%}the {%% endif %%}' > chat.jinja
tr -d ':' < chat.jinja > plain.jinja
chat() { timeout 300 "$geartrain" generate --from run -q --chat --chat-template plain.jinja -n 12 --temperature 0 "$@" 2> stderr; }
chat --prompt 'a gear' --json > one < /dev/null
check "an answer follows what the template writes" [ "$(python3 -c "
import json
print(json.load(open('one'))['text'])")" = "$(write --prompt 'user  a gear
the ' -n 12 --temperature 0 | tail -n +2 | cut -c 5- | head -n 20)" ]
printf 'a gear\nof the train\n' | chat --json > two
check "from a pipe, a line a message" [ "$(grep -c '"ended": "length"' two)" -eq 2 ]
check "the first as if it were alone" [ "$(sed -n 1p two | grep -o '"text": "[^"]*"')" = "$(grep -o '"text": "[^"]*"' one)" ]
first=$(python3 -c "
import json
print(json.loads(open('two').readline())['text'])")
printf '%s\n' "{\"messages\": [{\"role\": \"user\", \"content\": \"a gear\"}, {\"role\": \"assistant\", \"content\": \"$first\"}, {\"role\": \"user\", \"content\": \"of the train\"}]}" > talk.jsonl
chat --prompts talk.jsonl --json > three < /dev/null
check "the second after all that was said" [ "$(sed -n 2p two | grep -o '"text": "[^"]*"')" = "$(grep -o '"text": "[^"]*"' three)" ]
chat --system 'its teeth' --prompt 'a gear' > four < /dev/null
printf '%s\n' '{"messages": [{"role": "system", "content": "its teeth"}, {"role": "user", "content": "a gear"}]}' > system.jsonl
chat --prompts system.jsonl > five < /dev/null
check "behind a message of the system's" cmp -s four five
# An answer ends with the sign that the template puts behind answers, which ends no text otherwise.
awk 'BEGIN { for (i = 0; i < 900; i++) printf "a gear turns<|done|>" }' > signs.txt
"$geartrain" tokenize signs.txt --tokenizer bpe:270 -o signs > stdout 2> stderr
python3 - << 'END'
import json
t = json.load(open("signs/tokenizer/tokenizer.json"))
new = max(list(t["model"]["vocab"].values()) + [a["id"] for a in t["added_tokens"]]) + 1
t["added_tokens"].append(dict(t["added_tokens"][0], id=new, content="<|done|>"))
json.dump(t, open("signs/tokenizer/tokenizer.json", "w"))
END
train_tiny --data signs.txt --tokenizer signs/tokenizer --steps 60 --lr 1e-2 --eval-every 0 --out signed > stdout 2> stderr
printf "{%% for m in messages %%}{{ m.content }}{%% if m.role == 'assistant' %%}<|done|>{%% endif %%}{%% endfor %%}" > signs.jinja
timeout 240 "$geartrain" generate --from signed -q --prompt 'a gear' -n 12 --temperature 0 --json > on 2> stderr < /dev/null
check "a text goes on behind a sign" grep -q '"text": ".*<|done|>.*<|done|>.*"ended": "length"' on
timeout 240 "$geartrain" generate --from signed -q --chat --chat-template signs.jinja --prompt 'a gear' -n 12 --temperature 0 --json > ends 2> stderr < /dev/null
check "an answer does not" [ "$(grep -c '"text": "[^<]*", .*"ended": "end"' ends)" -eq 1 ]
refuses "a system without a chat" 2 'option --system would be ignored' generate --from run --system x

# ---- misuse -----------------------------------------------------------------------------------------

refuses "a top-p above 1" 2 'option --top-p: 1.5 is not a share' generate --from run --top-p 1.5
refuses "a min-p below 0" 2 'option --min-p: -0.5 is not a share' generate --from run --min-p -0.5
refuses "no repetition penalty" 2 'option --repetition-penalty: 0 is not above 0' generate --from run --repetition-penalty 0
refuses "an empty stop string" 2 'option --stop: an empty text is everywhere' generate --from run --stop ''
refuses "no samples" 2 'option --samples: a prompt has at least 1' generate --from run --samples 0
refuses "samples that would be the same" 2 'option --samples: with --temperature 0' generate --from run --samples 2 --temperature 0
refuses "a rule without effect" 2 'option --top-p would be ignored: --temperature 0' generate --from run --top-p 0.5 --temperature 0
refuses "--prompt and --prompts" 2 'options --prompt and --prompts' generate --from run --prompt a --prompts prompts.txt
refuses "no file of prompts" 1 "nowhere.txt" generate --from run --prompts nowhere.txt
: > empty.txt
refuses "an empty one" 1 "'empty.txt' is empty" generate --from run --prompts empty.txt
printf 'a\n\nb\n' > gap.txt
refuses "an empty line" 1 "'gap.txt', line 2 is empty" generate --from run --prompts gap.txt
printf '"a"\n{"prompt": \n' > broken.jsonl
refuses "a line that is no JSON" 1 "'broken.jsonl', line 2: " generate --from run --prompts broken.jsonl
printf '"a"\n{"text": "b"}\n' > other.jsonl
refuses "an object without a prompt" 1 "'other.jsonl', line 2 has no \"prompt\"" generate --from run --prompts other.jsonl
printf '\377\n' > bytes.txt
refuses "a line that is no UTF-8" 1 "'bytes.txt', line 1: it is no UTF-8" generate --from run --prompts bytes.txt

# A checkpoint of llama2.c with its tokenizer, and the 200 tokens that llama2.c writes with them.
reference=${GT_SHARED:-$OLDPWD/../shared}/reference
if [ -e "$reference/stories260K.bin" ]; then
    story=$(program generate --from "$reference/stories260K.bin" --tokenizer "$reference/tok512.bin" --prompt Once \
        --tokens 199 --temperature 0 --quiet 2> stderr)
    check "a checkpoint of llama2.c tells its story" \
        test "$story" = "$(cat "$reference/stories260K_expected_greedy.txt")"
    refuses "a checkpoint without its tokenizer" 1 "has no tokenizer; .* or name it with --tokenizer" \
        generate --from "$reference/stories260K.bin" --prompt Once
else
    echo "skipped: no $reference/stories260K.bin"
fi
close_checks
