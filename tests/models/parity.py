#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/models/parity.py - random tiny models that transformers wrote, computed here and there.

    parity.py PROGRAM MODEL_RUN FOLDER [NAME...]      works in FOLDER, which is empty; rows with these names only

Of every row of `models`: loss, logits and all gradients of one batch (by MODEL_RUN, tests/models/model_run.c,
against transformers in float64), 20 steps of AdamW (by PROGRAM train, against torch), on one device or over the row's plan,
and the export of the last, loaded by transformers. Odd sizes throughout. Exit 0 or 1; the last line is
`N passed, N failed`."""
import json
import os
import struct
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from safetensors.torch import load_file, save_file

program, model_run, folder = sys.argv[1:4]
only = sys.argv[4:]
os.chdir(folder)
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
verdicts = []
V, B, T, STEPS = 61, 2, 19, 20
LR, DECAY, EPS = 1e-3, 0.1, 1e-4        # a key's bias has no gradient but rounding: no whole steps of that

ODD = dict(vocab_size=V, hidden_size=24, intermediate_size=37, num_hidden_layers=3, num_attention_heads=3,
           num_key_value_heads=1, head_dim=6, max_position_embeddings=40, rms_norm_eps=1e-5)
EVEN = dict(ODD, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
GPT2 = dict(vocab_size=V, n_embd=24, n_layer=3, n_head=3, n_positions=40, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0)
TWO = ["--devices", "cpu:0.0,cpu:0.1"]
STAGES = TWO + ["--replicas", "1", "--stages", "2"]
UNEQUAL = ["--devices", "cpu:0.0,cpu:0.1@0.4", "--replicas", "2", "--stages", "1", "--micro-batch", "1"]
TENSOR = TWO + ["--tensor", "2"]


def rope(kind, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **more))


# name, class, its arguments, and what train is told beside the rest
models = [
    ("llama", "Llama", dict(ODD), STAGES),
    ("llama tied, biases", "Llama", dict(EVEN, tie_word_embeddings=True, attention_bias=True, mlp_bias=True), UNEQUAL),
    ("llama, all heads", "Llama", dict(EVEN, num_key_value_heads=4, head_dim=None), []),
    ("llama, linear", "Llama", dict(ODD, **rope("linear", factor=2.5)), None),
    ("llama, dynamic", "Llama", dict(ODD, **rope("dynamic", factor=2.0)), None),
    ("llama, yarn", "Llama", dict(EVEN, **rope("yarn", factor=4.0, original_max_position_embeddings=10)), None),
    ("llama, yarn, said in full", "Llama",
     dict(EVEN, **rope("yarn", factor=4.0, original_max_position_embeddings=10, beta_fast=20.0, beta_slow=2.0,
                       mscale=0.7, mscale_all_dim=0.4, truncate=False)), []),
    ("llama, llama3", "Llama",
     dict(EVEN, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=16)), []),
    ("mistral", "Mistral", dict(EVEN, sliding_window=5), TENSOR),
    ("mistral, all seen", "Mistral", dict(ODD, sliding_window=None), None),
    ("qwen2", "Qwen2", {k: v for k, v in EVEN.items() if k != "head_dim"}, []),
    ("qwen2, window", "Qwen2", dict({k: v for k, v in EVEN.items() if k != "head_dim"}, use_sliding_window=True,
                                    sliding_window=4, max_window_layers=1, tie_word_embeddings=True), STAGES),
    ("qwen3", "Qwen3", dict(ODD), UNEQUAL),
    ("qwen3, window, tied", "Qwen3", dict(EVEN, use_sliding_window=True, sliding_window=4, max_window_layers=2,
                                          tie_word_embeddings=True), None),
    # nn.Embedding learns nothing of a pad_token_id that is read, which is 0 in Gemma's class.
    ("gemma", "Gemma", dict(ODD, pad_token_id=None), STAGES),
    ("gpt2", "GPT2", dict(GPT2), []),
    ("gpt2, inner", "GPT2", dict(GPT2, n_inner=50, activation_function="gelu"), None),
    ("gpt2, unscaled", "GPT2", dict(GPT2, scale_attn_weights=False), None),
    ("gpt2, by layer", "GPT2", dict(GPT2, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False), STAGES),
]


def check(name, held, detail=""):
    verdicts.append(bool(held))
    print(f"{'ok' if held else 'FAILED'} {name}{'' if held else ': ' + str(detail)}", flush=True)


def relative(got, want):
    """The distance of two tensors, by the length of the second."""
    got, want = got.double(), want.double()
    return float((got - want).norm() / max(float(want.norm()), 1e-12))


def run(*words):
    """What the program printed; None if it failed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode:
        print(f"    {' '.join(words)}: {done.stderr.strip()}")
    return None if done.returncode else done.stdout


def causal(kind, arguments):
    config = getattr(transformers, kind + "Config")(**arguments)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + ("LMHeadModel" if kind == "GPT2" else "ForCausalLM"))(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.15 if p.dim() > 1 else 0.1))
    return model.eval()


def loss_of(model, x, y):
    logits = model(input_ids=x).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()), logits


def compare_batch(name, model):
    """Loss, logits and gradients of one batch, in float64 there."""
    x, y = torch.randint(V, (B, T)), torch.randint(V, (B, T))
    model.save_pretrained("hf", max_shard_size="30KB")
    save_file({"tokens": x.int(), "targets": y.int(), "grad_scale": torch.tensor([1.0 / y.numel()])}, "batch.safetensors")
    printed = run(model_run, "hf", "lm", "batch.safetensors", "out")
    if printed is None:
        return check(f"{name}: computed", False)
    exact = model.double()
    exact.zero_grad()
    loss, logits = loss_of(exact, x, y)
    loss.backward()
    got = float(printed) / y.numel()
    check(f"{name}: loss", abs(got / float(loss) - 1.0) < 1e-5, f"{got}, not {float(loss)}")
    off = relative(load_file("out/logits/model.safetensors")["logits"], logits.detach().flatten(0, 1))
    check(f"{name}: logits", off < 1e-4, off)
    ours, most, worst = load_file("out/model.safetensors"), max(float(p.grad.norm()) for p in exact.parameters()), (0, "")
    for key, p in exact.named_parameters():
        small = float(p.grad.norm()) < 1e-9 * most          # a key's bias: rounding alone
        off = 9.9 if key not in ours else 0.0 if small else relative(ours[key], p.grad)
        worst = max(worst, (off, key))
    check(f"{name}: {len(ours)} gradients", worst[0] < 1e-4 and len(ours) == len(dict(exact.named_parameters())), worst)
    model.float()


def train_there(model, ids):
    """AdamW as the program has it: matrices decay, vectors do not."""
    groups = [dict(params=[p for p in model.parameters() if p.dim() > 1], weight_decay=DECAY),
              dict(params=[p for p in model.parameters() if p.dim() < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=EPS)
    losses = []
    for step in range(STEPS):
        x = ids[step * 3 * T:(step + 1) * 3 * T].view(3, T)
        y = ids[step * 3 * T + 1:(step + 1) * 3 * T + 1].view(3, T)
        optimizer.zero_grad()
        loss, _ = loss_of(model, x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    return losses


def compare_training(name, kind, model, plan):
    ids = torch.randint(V, (STEPS * 3 * T + 1,))
    with open("ids.bin", "wb") as f:
        f.write(struct.pack(f"<{len(ids)}H", *ids.tolist()))
    subprocess.run(["rm", "-rf", "run", "back"], check=True)
    model.save_pretrained("hf")
    if run(program, "train", "--from", "hf", "--data", "ids.bin", "--out", "run", "--steps", str(STEPS), "--batch",
               "3", "--seq", str(T), "--order", "sequential", "--lr", str(LR), "--lr-schedule", "constant", "--warmup",
               "0", "--beta1", "0.9", "--beta2", "0.95", "--eps", str(EPS), "--weight-decay", str(DECAY), "--clip", "1",
               "--dropout", "0", *plan) is None:
        return check(f"{name}: trained", False)
    with open("run/metrics.jsonl") as f:
        here = [json.loads(line)["loss"] for line in f]
    there = train_there(model, ids)
    off = max(abs(a / b - 1.0) for a, b in zip(here, there))
    check(f"{name}: {STEPS} steps", len(here) == STEPS and off < 1e-3, off)
    if run(program, "export", "run", "-o", "back") is None:
        return check(f"{name}: exported", False)
    back = transformers.AutoModelForCausalLM.from_pretrained("back", attn_implementation="eager")
    x = torch.randint(V, (B, T))
    with torch.no_grad():
        off = relative(back(input_ids=x).logits, model(input_ids=x).logits)
    check(f"{name}: the export's logits", type(back) is type(model) and off < 1e-3, off)


for name, kind, arguments, plan in models:
    if only and name not in only:
        continue
    torch.manual_seed(len(name))
    model = causal(kind, arguments)
    subprocess.run(["rm", "-rf", "hf", "out"], check=True)
    compare_batch(name, model)
    if plan is not None:
        compare_training(name, kind, model, plan)
print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
sys.exit(0 if all(verdicts) else 1)
