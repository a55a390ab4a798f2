#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/cli/interchange.py - our files and our arithmetic against Hugging Face's.

    interchange.py PROGRAM TEXT FOLDER       works in FOLDER, which is empty

A random GPT-2 that transformers wrote must have the same loss and write the same tokens
here; a run that we export must have the same loss and logits there; and what a run records
must be read by TensorBoard. Exit 0, 1, or 77 if a package is missing. The last line is
`N passed, N failed`."""
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
try:
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as missing:
    print(f"skipped: no Python package '{missing.name}'")
    sys.exit(77)

program, text, folder = sys.argv[1:4]
os.chdir(folder)
torch.manual_seed(1)
torch.set_num_threads(1)
verdicts = []


def check(name, held, detail=""):
    verdicts.append(bool(held))
    print(f"{'ok' if held else 'FAILED'} {name}{'' if held else ': ' + str(detail)}", flush=True)


def run(*words):
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=300)
    if done.returncode:
        print(f"    {' '.join(words)}: {done.stderr.strip()}")
    return done


def tokens_of(data):
    """The bytes of the text's last tenth: what `eval --split val` reads of a text with byte tokens."""
    return data[int(0.9 * len(data)):]


def loss_of(model, ids, T):
    """Mean loss over the first whole sequences of T tokens, as `eval` goes through them."""
    count = (len(ids) - 1) // T
    x = torch.tensor(ids[:count * T]).view(count, T)
    y = torch.tensor(ids[1:count * T + 1]).view(count, T)
    with torch.no_grad():
        logits = model(x).logits.double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()).item()


def our_loss(source, data, *more):
    done = run("eval", "--from", source, "--data", data, "--split", "val", "--json", *more)
    return json.loads(done.stdout)["loss"] if done.returncode == 0 else math.nan


def near(a, b, tolerance):
    return abs(a - b) <= tolerance * max(1.0, abs(b))


# ---- a byte tokenizer and tokens to share --------------------------------------------------

assert run("tokenize", text, "--tokenizer", "byte", "-o", "bytes").returncode == 0
data = open(text, "rb").read()
T = 64
ids = list(tokens_of(data))

# ---- theirs, read by us ----------------------------------------------------------------------

config = GPT2Config(n_layer=3, n_head=4, n_embd=64, n_positions=T, vocab_size=256,
                    initializer_range=0.2, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).eval()
with torch.no_grad():       # vectors that are not 0 and 1, so that a mix-up shows
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.add_(0.1 * torch.randn_like(p))
model.save_pretrained("theirs")
shutil.copytree("bytes/tokenizer", "theirs", dirs_exist_ok=True)
want = loss_of(model, ids, T)
got = our_loss("theirs", text)
check("the loss of a folder of theirs", near(got, want, 1e-5), f"{got} and {want}")

for prompt in "the wheel", "a":
    y, n = list(prompt.encode()), T - len(prompt)
    for _ in range(n):      # model.generate() itself needs a newer torch than Debian's
        with torch.no_grad():
            y.append(int(model(torch.tensor([y])).logits[0, -1].argmax()))
    if 0 in y[len(prompt):]:        # eos_token_id: the text ends before it
        y = y[:y.index(0, len(prompt))]
    done = subprocess.run([program, "generate", "--from", "theirs", "--prompt", prompt, "--tokens",
                           str(n), "--temperature", "0", "-q"], capture_output=True, timeout=300)
    check(f"greedy text after '{prompt}'", done.stdout.rstrip(b"\n") == bytes(y).rstrip(b"\n"),
          f"{done.stdout!r} and {bytes(y)!r} {done.stderr!r}")

model.save_pretrained("sharded", max_shard_size="100KB")
shutil.copytree("bytes/tokenizer", "sharded", dirs_exist_ok=True)
check("transformers made shards", os.path.exists("sharded/model.safetensors.index.json"))
got = our_loss("sharded", text)
check("the loss of a folder in shards", near(got, want, 1e-5), f"{got} and {want}")

for name, kind in ("bf16", torch.bfloat16), ("fp16", torch.float16):
    half = GPT2LMHeadModel(config)
    half.load_state_dict(model.state_dict())
    half.to(kind).save_pretrained(name)
    shutil.copytree("bytes/tokenizer", name, dirs_exist_ok=True)
    rounded = half.float().eval()
    got, exact = our_loss(name, text), loss_of(rounded, ids, T)
    check(f"the loss of {name} weights", near(got, exact, 1e-5), f"{got} and {exact}")

tensors = load_file("theirs/model.safetensors")
bare = {k.removeprefix("transformer."): v for k, v in tensors.items()}
os.makedirs("bare")
save_file(bare, "bare/model.safetensors")
shutil.copy("theirs/config.json", "bare")
shutil.copytree("bytes/tokenizer", "bare", dirs_exist_ok=True)
got = our_loss("bare", text)
check("names without 'transformer.'", near(got, want, 1e-5), f"{got} and {want}")

# ---- theirs, of other kinds ------------------------------------------------------------------------


def other_kind(name, **keys):
    """A model of theirs whose description says something else has their loss here."""
    other = GPT2LMHeadModel(GPT2Config(**{**config.to_dict(), **keys}))
    missing = other.load_state_dict(model.state_dict(), strict=False).missing_keys
    other.eval()
    if not keys.get("tie_word_embeddings", True):
        with torch.no_grad():
            other.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(other.lm_head.weight))
    other.save_pretrained(name)
    shutil.copytree("bytes/tokenizer", name, dirs_exist_ok=True)
    got, want = our_loss(name, text), loss_of(other, ids, T)
    check(f"the loss of {name}", near(got, want, 1e-5) and not missing, f"{got} and {want}")
    return want


usual = loss_of(model, ids, T)
for name, keys in (("attention that is not scaled", {"scale_attn_weights": False}),
                   ("attention scaled by layer", {"scale_attn_by_inverse_layer_idx": True}),
                   ("a head of its own", {"tie_word_embeddings": False})):
    check(f"{name} makes a difference", not near(other_kind(name, **keys), usual, 1e-4))

# ---- theirs, broken ----------------------------------------------------------------------------


def broken(name, words, change):
    """A copy of their folder that `change` damaged is refused in one sentence."""
    os.makedirs(name)
    for file in glob.glob("theirs/*"):
        shutil.copy(file, name)
    altered = change({k: v.clone() for k, v in tensors.items()}, name)
    if altered is not None:
        save_file(altered, f"{name}/model.safetensors", {"format": "pt"})
    done = subprocess.run([program, "eval", "--from", name, "--data", text], capture_output=True,
                          text=True, timeout=300)
    lines = done.stderr.strip().splitlines()
    check(f"refused: {name}", done.returncode == 1 and len(lines) == 1
          and all(w in lines[0] for w in words), f"{done.returncode} {done.stderr}")


def without(t, _):
    del t["transformer.h.1.mlp.c_fc.weight"]
    return t


def extra_layer(t, _):
    t["transformer.h.3.ln_1.weight"] = torch.ones(64)
    return t


def wrong_shape(t, _):
    t["transformer.h.1.mlp.c_fc.weight"] = torch.zeros(64, 255)
    return t


def transposed(t, _):
    key = "transformer.h.1.attn.c_attn.weight"
    t[key] = t[key].t().contiguous()
    return t


def not_finite(t, _):
    t["transformer.h.0.ln_1.bias"][3] = math.nan
    return t


def integers(t, _):
    t["transformer.ln_f.weight"] = torch.ones(64, dtype=torch.int32)
    return t


def cut(_, name):
    path = f"{name}/model.safetensors"
    os.truncate(path, os.path.getsize(path) // 2)


def cut_header(_, name):
    os.truncate(f"{name}/model.safetensors", 100)


def zeroed(_, name):
    with open(f"{name}/model.safetensors", "r+b") as f:
        f.write(b"\xff" * 8)


def no_weights(_, name):
    os.remove(f"{name}/model.safetensors")


def bad_config(_, name):
    with open(f"{name}/config.json", "w") as f:
        f.write('{"model_type": "gpt2", ')


broken("a missing tensor", ["h.1.mlp.c_fc.weight", "missing"], without)
broken("a layer too many", ["h.3.ln_1.weight", "layer"], extra_layer)
broken("a wrong shape", ["h.1.mlp.c_fc.weight", "64", "255"], wrong_shape)
broken("a transposed matrix", ["h.1.attn.c_attn.weight"], transposed)
broken("a weight that is not finite", ["ln_1.bias", "not finite"], not_finite)
broken("a weight of integers", ["ln_f.weight", "floating"], integers)
broken("weights cut in half", ["model.safetensors"], cut)
broken("a header cut short", ["model.safetensors"], cut_header)
broken("a header of ones", ["model.safetensors"], zeroed)
broken("no weights", ["model.safetensors"], no_weights)
broken("a broken description", ["config.json", "line 1"], bad_config)

# ---- ours, read by them ------------------------------------------------------------------------

done = run("train", "--model", "gpt2-tiny", "--data", text, "--tokenizer", "bpe:300", "--out", "run",
           "--steps", "30", "--batch", "4", "--seq", "32", "--eval-every", "10", "--lr", "1e-3")
check("a run", done.returncode == 0)
check("its export", run("export", "run", "-o", "ours").returncode == 0)
ours, loading = GPT2LMHeadModel.from_pretrained("ours", output_loading_info=True)
ours.eval()
check("transformers misses nothing and finds nothing unknown",
      not loading["missing_keys"] and not loading["unexpected_keys"]
      and not loading["mismatched_keys"], loading)
tokenizer = Tokenizer.from_file("ours/tokenizer.json")
characters = data.decode()
part = characters[int(0.9 * len(characters)):]
ids = tokenizer.encode(part, add_special_tokens=False).ids
check("tokenizers reads the tokenizer back and forth",
      tokenizer.decode(ids, skip_special_tokens=False) == part)
got, want = our_loss("run", text), loss_of(ours, ids, T)
check("the loss of an exported run", near(got, want, 1e-5), f"{got} and {want}")
again = our_loss("ours", text)
check("the same folder, read back by us", again == got, f"{again} and {got}")
done = run("train", "--from", "a head of its own", "--data", text, "--out", "run-own", "--steps", "3",
           "--batch", "4", "--seq", "32", "--eval-every", "0", "--lr", "1e-3")
check("a run from a head of its own", done.returncode == 0)
check("its export", run("export", "run-own", "-o", "ours-own").returncode == 0)
own, loading = GPT2LMHeadModel.from_pretrained("ours-own", output_loading_info=True)
check("transformers reads its head", not loading["missing_keys"] and not loading["unexpected_keys"]
      and not torch.equal(own.lm_head.weight, own.transformer.wte.weight), loading)
got, want = our_loss("ours-own", text), loss_of(own.eval(), list(tokens_of(data)), T)
check("the loss of its export", near(got, want, 1e-5), f"{got} and {want}")
weights = load_file("ours/model.safetensors")
check("safetensors reads every tensor", len(weights) == 3 * 12 + 4 and
      all(torch.isfinite(w).all() for w in weights.values()), len(weights))
for kind in "bf16", "fp16":
    run("export", "run", "-o", f"ours-{kind}", "--type", kind)
    half = GPT2LMHeadModel.from_pretrained(f"ours-{kind}", torch_dtype=torch.float32).eval()
    got, exact = our_loss(f"ours-{kind}", text), loss_of(half, ids, T)
    check(f"the loss of an export in {kind}", near(got, exact, 1e-5), f"{got} and {exact}")

# ---- what a run records ---------------------------------------------------------------------------

rows = [json.loads(line) for line in open("run/metrics.jsonl")]
check("metrics.jsonl is an object a line", [r["step"] for r in rows] == list(range(1, 31)))
check("with a validation loss where there was one",
      [r["step"] for r in rows if "val_loss" in r] == [10, 20, 30])
events = EventAccumulator("run", size_guidance={"scalars": 0})
events.Reload()
tags = events.Tags()["scalars"]
check("TensorBoard finds the tags", {"loss/train", "loss/val", "lr", "grad_norm",
                                     "speed/tokens_per_s"} <= set(tags), tags)
for tag, key in ("loss/train", "loss"), ("loss/val", "val_loss"), ("lr", "lr"), ("grad_norm",
                                                                                 "grad_norm"):
    scalars = [(e.step, e.value) for e in events.Scalars(tag)]
    expected = [(r["step"], r[key]) for r in rows if key in r]
    check(f"TensorBoard's {tag} is that of metrics.jsonl", len(scalars) == len(expected) and all(
        a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6) for a, b in zip(scalars, expected)),
        scalars[:3])

print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
sys.exit(0 if all(verdicts) else 1)
