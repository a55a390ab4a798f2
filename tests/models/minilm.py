#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/models/minilm.py - vectors of sentences by all-MiniLM-L6-v2, here and in transformers: see minilm.sh.

    minilm.py PROGRAM MODEL FOLDER         works in FOLDER, which is empty

The model's published way to a vector is the mean of its last activations over the real tokens, of length 1. What
`PROGRAM embed` prints must be within 1e-4 of that in float32, number by number, for sentences of odd lengths, however
they are put into batches; and rank the sentences as the reference does. Exit 0 or 1; the last line is
`N passed, N failed`."""
import json
import os
import subprocess
import sys

import torch
import transformers

program, model_folder, folder = sys.argv[1:4]
os.chdir(folder)
torch.set_num_threads(2)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
verdicts = []

SENTENCES = [
    "Gear",
    "A",
    "Two wheels turn.",
    "Two cogs are rotating.",
    "It rained all night, and the river rose above its banks.",
    "The stream flooded after hours of heavy rain.",
    "What is the capital of Portugal?",
    "Lisbon lies at the mouth of the Tagus.",
    "Who wrote that symphony, and when was it first heard?",
    "don't, won't, can't; she'd said: \"it's 3.14 or 2,718!\"",
    "Äpfel, crème brûlée, naïve façade, ÅNGSTRÖM",
    "東京は日本の首都です。",
    "Привет, мир!",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "antidisestablishmentarianism floccinaucinihilipilification",
    "0123456789 42 1e-4 0x7f 10,000,000",
    "UPPER CASE AND lower case are one here",
    "tabs\tand   many    spaces , and - dashes -- too",
    "https://example.org/path?query=value#part",
    "The quick brown fox jumps over the lazy dog near the bank of a river while the sun goes down behind the hills, "
    "and nobody who walks by that evening takes any notice of it at all.",
    " ".join(f"word{i} of a long text" for i in range(60)),
]


def verdict(name, held, detail=""):
    verdicts.append(bool(held))
    print(f"{'ok' if held else 'FAILED'} {name}{'' if held else ': ' + str(detail)}", flush=True)


tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
model = transformers.AutoModel.from_pretrained(model_folder, dtype=torch.float32).eval()


def reference(most=512):
    out = []
    for text in SENTENCES:          # one by one: nothing is padded
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=most)
        with torch.no_grad():
            mean = model(**given).last_hidden_state[0].mean(0)
        out.append(torch.nn.functional.normalize(mean, dim=0))
    return torch.stack(out)


def ours(*options):
    done = subprocess.run([program, "embed", "--from", model_folder, "--data", "sentences.txt", *options],
                          capture_output=True, text=True, timeout=280)
    if done.returncode:
        print("   ", done.stderr.strip().splitlines()[-1])
        return torch.zeros(len(SENTENCES), model.config.hidden_size)
    if "--json" in options:
        return torch.tensor([json.loads(line)["embedding"] for line in done.stdout.splitlines()])
    return torch.tensor([[float(x) for x in line.split()] for line in done.stdout.splitlines()])


def compare(name, got, want, limit=1e-4):
    if got.shape != want.shape:
        return verdict(name, False, f"{tuple(got.shape)} numbers, not {tuple(want.shape)}")
    off = float((got - want).abs().max())
    verdict(f"{name}: within {limit:g}", off <= limit, off)


with open("sentences.txt", "w", encoding="utf-8") as f:
    f.write("\n".join(SENTENCES) + "\n")
want = reference()
got = ours()
compare(f"{len(SENTENCES)} sentences", got, want)
if got.shape == want.shape:
    verdict("their lengths are 1", float((got.norm(dim=1) - 1.0).abs().max()) < 1e-5)
    alike = [(got @ got.T - 2 * torch.eye(len(got)))[i].argmax().item() for i in (2, 4, 6)]
    verdict("what means the same is nearest", alike == [3, 5, 7], alike)
compare("one by one", ours("--batch", "1", "--json"), want)
compare("cut to 23 tokens", ours("--seq", "23"), reference(23))
compare("in bf16", ours("--precision", "bf16"), want, 0.02)
print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
sys.exit(0 if all(verdicts) else 1)
