# SPDX-License-Identifier: MIT
"""Chats as tokens and what of them is learned, as transformers' apply_chat_template() has it: chats.py PROGRAM FOLDER"""
import json
import os
import subprocess
import sys

import numpy
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = """{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
UNMARKED = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
SAYINGS = ["Hello there", "Good day, and how are you?", "2 + 2 = 4\n", "\u00dcber den Wolken \U0001f600", "a  b   c",
           "it spells <|im_end|> and <|im_start|>user", "<|endoftext|>", "x"]


def chats():
    for i in range(40):
        turns = [{"role": "system", "content": SAYINGS[i % 8]}] if i % 3 == 0 else []
        for k in range(i % 4 + 1):
            turns += [{"role": "user", "content": SAYINGS[(i + k) % 8]}, {"role": "assistant", "content": SAYINGS[(i * 3 + k) % 7]}]
        yield turns


def spaced(folder, template):
    """Like Llama 2's: characters and spaces as U+2581, a space in front, bytes for what has no piece."""
    special = [AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")]
    pieces = {a.content: i for i, a in enumerate(special)}
    for piece in [f"<0x{b:02X}>" for b in range(256)] + [chr(c) for c in range(33, 127)] + ["\u2581"]:
        pieces.setdefault(piece, len(pieces))
    merges = []
    for word in ("\u2581H e l l o", "\u2581th er e", "t h", "e r", "\u2581 H", "\u2581 t", "u s er", "as s is t an t", "a s", "i s", "a n"):
        parts = word.split(" ")
        while len(parts) > 1:
            if "".join(parts[:2]) not in pieces and all(p in pieces for p in parts[:2]):
                pieces["".join(parts[:2])] = len(pieces)
                merges.append((parts[0], parts[1]))
            parts = ["".join(parts[:2])] + parts[2:]
    t = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(special)
    made = PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = template
    made.save_pretrained(folder)
    return made


def tokenizer(folder, template):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    special = [AddedToken(s, special=True, normalized=False) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    t.train_from_iterator(SAYINGS * 20, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made = PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = template
    made.save_pretrained(folder)
    return made


def bits(path, count):
    raw = numpy.fromfile(path, dtype=numpy.uint8)
    assert bytes(raw[:8]) == b"GTMARKS\1" and int(raw[8:16].view(numpy.uint64)[0]) == count, path
    return numpy.unpackbits(raw[16:], bitorder="little")[:count]


def check(program, folder, name, template, make):
    """Whether ids, answers and ends are the same."""
    where = os.path.join(folder, name)
    marked = make(os.path.join(folder, "reference"), TEMPLATE)
    reference = make(where, template)
    lines = os.path.join(folder, "chat.jsonl")
    with open(lines, "w") as out:
        for c in chats():
            out.write(json.dumps({"messages": c}) + "\n")
    out = os.path.join(folder, name + "-tokens")
    subprocess.run([program, "tokenize", lines, "--tokenizer", where, "--val-fraction", "0", "-o", out], check=True,
                   stdout=subprocess.DEVNULL)
    ids, mask, ends = [], [], []
    for c in chats():
        one = marked.apply_chat_template(c, return_dict=True, return_assistant_tokens_mask=True)
        same = reference.apply_chat_template(c, return_dict=True)["input_ids"]
        assert list(same) == list(one["input_ids"])
        ids += one["input_ids"]
        mask += one["assistant_masks"]
        ends += [0] * (len(one["input_ids"]) - 1) + [1]
    got = numpy.fromfile(os.path.join(out, "train-000000.bin"), dtype=numpy.uint16)[512:]
    answers = bits(os.path.join(out, "train-000000.answers"), len(got))
    return {"ids": list(got) == ids, "answers": list(answers) == mask,
            "ends": list(bits(os.path.join(out, "train-000000.ends"), len(got))) == ends}


def main():
    program, folder = sys.argv[1:]
    passed = failed = 0
    for name, template, make in (("marked", TEMPLATE, tokenizer), ("unmarked", UNMARKED, tokenizer),
                                 ("spaced", TEMPLATE, spaced), ("spaced-unmarked", UNMARKED, spaced)):
        for what, same in check(program, folder, name, template, make).items():
            print("ok" if same else "FAILED", f"{name}: {what} are those of transformers")
            passed += same
            failed += not same
    print(f"{passed} passed, {failed} failed")
    return failed


sys.exit(1 if main() else 0)
