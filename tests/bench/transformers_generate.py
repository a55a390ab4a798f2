#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/transformers_generate.py - the tokens of `geartrain bench generate`, in transformers.

    transformers_generate.py fp32|bf16 PROMPT TOKENS THREADS

GPT-2 124M with random weights, batch 1, greedy, with a cache, a call of the model a token and nothing else.
Prints the precision and the tokens a second of the median token and of the fastest.
"""
import statistics
import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

precision, prompt, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(int(sys.argv[4]))
torch.manual_seed(1)
model = GPT2LMHeadModel(GPT2Config()).eval().to(torch.float32 if precision == "fp32" else torch.bfloat16)
seconds = []
with torch.inference_mode():
    for _ in range(2):                                  # the first warms up
        seconds.clear()
        out = model(torch.randint(0, 50257, (1, prompt)), use_cache=True)
        for _ in range(tokens):
            start = time.perf_counter()
            next_id = out.logits[:, -1:].argmax(-1)
            out = model(next_id, past_key_values=out.past_key_values, use_cache=True)
            seconds.append(time.perf_counter() - start)
print(precision, round(1.0 / statistics.median(seconds), 2), round(1.0 / min(seconds), 2))
