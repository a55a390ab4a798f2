#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/models/parity_bert.py - random tiny BERTs and RoBERTas beside transformers: see parity_bert.sh.

    parity_bert.py PROGRAM FOLDER OF_BUILD [WORD...]     works in FOLDER, which is empty; rows with these words only

Losses, gradients of every tensor and last activations (by OF_BUILD/model_run), 20 steps of AdamW on one device, over
stages, unequal replicas and tensor ranks (by PROGRAM train, on the batches of OF_BUILD/model_batches), exports loaded
by transformers, and sentence embeddings. Odd sizes throughout. The last line is `N passed, N failed`."""
import json
import os
import subprocess
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

program, folder, build = sys.argv[1:4]
only = sys.argv[4:]
torch.manual_seed(7)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
verdicts = []


def wanted(name):
    return not only or any(word in name for word in only)


def verdict(held, name):
    verdicts.append(bool(held))
    print(("ok    " if held else "FAIL  ") + name, flush=True)


def places_of(T):
    return max(1, int(0.15 * T + 0.5))


def sized(cls, **other):
    roberta = cls.__name__.startswith("Roberta")
    sizes = dict(vocab_size=83, hidden_size=20, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37,
                 max_position_embeddings=29, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                 initializer_range=0.3)
    if roberta:
        sizes.update(type_vocab_size=1, pad_token_id=1, max_position_embeddings=31)
    sizes.update(other)
    config = (transformers.RobertaConfig if roberta else transformers.BertConfig)(**sizes)
    model = cls(config)
    with torch.no_grad():       # biases and norms that are not 0 and 1
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(0.2 * torch.randn_like(p))
    return model


def inputs_of(model, B, T):
    c = model.config
    tokens = torch.randint(3, c.vocab_size, (B, T))     # no padding: transformers gives its row no gradient
    lengths = torch.tensor([T - 2 * b for b in range(B)])
    types = torch.randint(0, c.type_vocab_size, (B, T))
    for b in range(B):
        tokens[b, lengths[b]:] = c.pad_token_id
    return tokens, lengths, types


def check(name, mine, want, limit=1e-4):
    error = float((mine - want).norm() / (want.norm() + 1e-12))
    if not error <= limit:
        print(f"  {name}: differs by {error:.2e}")
    return error <= limit


def grads():
    b = transformers
    cases = [
        ("mlm", b.BertForMaskedLM, {}, 3, 13), ("mlm", b.BertForMaskedLM, dict(hidden_act="gelu_new"), 2, 29),
        ("mlm", b.BertForMaskedLM, dict(hidden_act="relu", tie_word_embeddings=False), 1, 3),
        ("pairs", b.BertForPreTraining, dict(hidden_act="silu", type_vocab_size=3), 4, 17),
        ("classify", b.BertForSequenceClassification, dict(num_labels=5), 3, 11),
        ("classify", b.BertForSequenceClassification, dict(num_labels=2, layer_norm_eps=1e-5, hidden_act="tanh"), 5, 9),
        ("encode", b.BertModel, {}, 3, 12),
        ("mlm", b.RobertaForMaskedLM, {}, 3, 13), ("classify", b.RobertaForSequenceClassification, {}, 3, 14),
        ("encode", b.RobertaModel, {}, 2, 28),
    ]
    for n, (task, cls, other, B, T) in enumerate(cases):
        name = f"{cls.__name__} {other} of {B} x {T}"
        if not wanted(name):
            continue
        where = os.path.join(folder, str(n))
        model = sized(cls, **other).train()
        model.save_pretrained(where)
        tokens, lengths, types = inputs_of(model, B, T)
        mask = (torch.arange(T)[None] < lengths[:, None]).long()
        P, scale = places_of(T), 1.0
        given = dict(tokens=tokens, token_types=types, lengths=lengths)
        out = dict(input_ids=tokens, attention_mask=mask, token_type_ids=types)
        if task in ("mlm", "pairs"):
            places = torch.stack([torch.randperm(max(int(lengths[b]), 1))[:P] if lengths[b] >= P
                                  else torch.zeros(P, dtype=torch.long) for b in range(B)])
            targets = tokens.gather(1, places).clone()
            targets[:, P // 2:] = torch.randint(3, 83, targets[:, P // 2:].shape)
            if P > 1 and task == "mlm":
                targets[0, 0] = -1
            labels = torch.full((B, T), -100)
            for i in range(B):
                for j in range(P):
                    if targets[i, j] >= 0:
                        labels[i, places[i, j]] = targets[i, j]
            given.update(places=places, targets=targets)
            out.update(labels=labels)
            scale = 1.0 / int((targets >= 0).sum())
        if task == "pairs":
            follows = torch.randint(0, 2, (B,))
            given.update(labels=follows, label_weights=torch.full((B,), float(P)))
            out.update(next_sentence_label=follows)
        if task == "classify":
            labels = torch.randint(0, model.config.num_labels, (B,))
            given.update(labels=labels)
            out.update(labels=labels)
            scale = 1.0 / B
        file = os.path.join(folder, f"{n}.in")
        given = {k: (v.int() if v.dtype == torch.long else v).contiguous() for k, v in given.items()}
        save_file(dict(given, grad_scale=torch.tensor([scale])), file)
        result = model(**out)
        run = subprocess.run([os.path.join(build, "model_run"), where, task, file, where + ".out"], capture_output=True, text=True)
        held = run.returncode == 0
        if not held:
            print("  ", run.stderr.strip())
        elif task == "encode":
            mine = load_file(os.path.join(where + ".out", "hidden", "model.safetensors"))["hidden"]
            held = check("activations", mine[mask.bool()], result.last_hidden_state.detach()[mask.bool()])
        else:
            result.loss.backward()
            held = abs(float(run.stdout) * scale - result.loss.item()) <= 1e-4 * abs(result.loss.item())
            if not held:
                print(f"  loss {float(run.stdout) * scale} and {result.loss.item()}")
            mine = load_file(os.path.join(where + ".out", "model.safetensors"))
            theirs = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
            if set(mine) != set(theirs):
                held = False
                print("  tensors differ:", sorted(set(mine) ^ set(theirs)))
            for k in sorted(set(mine) & set(theirs)):
                # The bias of keys moves no score: its gradient is rounding alone.
                if not k.endswith("self.key.bias"):
                    held &= check(k, mine[k], theirs[k])
        verdict(held, name)


# ---- training ------------------------------------------------------------------------------------

STEPS, SEQ, BATCH, LR, DECAY, SEED = 20, 21, 6, 2e-3, 0.05, 5
TWO = ["--devices", "cpu:0.0,cpu:0.1"]
PLANS = {
    "one device": [],
    "two stages": TWO + ["--replicas", "1", "--stages", "2", "--micro-batch", "2"],
    "unequal replicas": ["--devices", "cpu:0.0,cpu:0.1@0.4", "--replicas", "2", "--stages", "1", "--micro-batch", "1"],
    "tensor ranks": TWO + ["--tensor", "2"],
    "sharded state, recomputed": TWO + ["--replicas", "2", "--stages", "1", "--micro-batch", "1", "--sync", "sharded",
                                        "--recompute"],
}
WORDS = "the a cat dog house garden sees likes under over big small ##s ##ed ##er good bad not very film".split()


def make_texts():
    """A tokenizer of few words, a text, and labelled texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {w: i for i, w in enumerate(signs + WORDS + [c for c in ".,!"])}
    t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    transformers.BertTokenizerFast(tokenizer_object=t, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
                                   sep_token="[SEP]", mask_token="[MASK]").save_pretrained("tokenizer")
    r = np.random.RandomState(3)
    whole = [w for w in WORDS if not w.startswith("##")]

    def text(n):
        words = [whole[i] + (["", "", "s", "ed", "er"][j] if whole[i] in ("house", "like", "film", "big") else "")
                 for i, j in zip(r.randint(len(whole), size=n), r.randint(5, size=n))]
        return " ".join(words) + "."
    with open("text.txt", "w") as f:
        f.write("\n".join(text(9) for _ in range(400)))
    with open("labelled.csv", "w") as f:
        f.write("text,label\n")
        for i in range(90):
            f.write(f"{text(r.randint(1, 25))},{'bad good fair'.split()[i % 3]}\n")
    return len(vocab)


def rebuilt(model, given):
    """Arguments of transformers for a batch."""
    tokens, lengths = given["tokens"].long(), given["lengths"].long()
    out = dict(input_ids=tokens, token_type_ids=given["token_types"].long(),
               attention_mask=(torch.arange(tokens.shape[1])[None] < lengths).long())
    if "targets" not in given:
        return dict(out, labels=given["labels"].long()[:, 0])
    labels = torch.full(tokens.shape, -100)
    for b in range(tokens.shape[0]):
        for place, target in zip(given["places"][b].tolist(), given["targets"][b].tolist()):
            if target >= 0:
                labels[b, place] = target
    out["labels"] = labels
    if "labels" in given:
        out["next_sentence_label"] = given["labels"].long()[:, 0]
    return out


def steps():
    vocab = make_texts()
    b = transformers
    cases = [("mlm", b.BertForMaskedLM, {}, "text.txt", []),
             ("words", b.BertForMaskedLM, {}, "text.txt", ["--whole-words"]),
             ("pairs", b.BertForPreTraining, {}, "text.txt", ["--pairs"]),
             ("classify", b.BertForSequenceClassification, dict(num_labels=3), "labelled.csv", ["--label-key", "label"])]
    for task, cls, other, data, options in cases:
        model = sized(cls, vocab_size=vocab, initializer_range=0.1, **other).train()
        model.save_pretrained(task)
        for name in os.listdir("tokenizer"):
            os.link(os.path.join("tokenizer", name), os.path.join(task, name))
        numbers = [str(n) for n in (SEQ, BATCH, SEED, STEPS)]
        subprocess.run([os.path.join(build, "model_batches"), task, task, data, *numbers, task + ".batch"], check=True)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        adamw = torch.optim.AdamW([dict(params=matrices, weight_decay=DECAY), dict(params=vectors, weight_decay=0.0)],
                                  lr=LR, betas=(0.9, 0.95), eps=1e-4)
        losses = []
        for step in range(STEPS):
            result = model(**rebuilt(model, load_file(f"{task}.batch-{step}.safetensors")))
            adamw.zero_grad()
            result.loss.backward()
            adamw.step()
            losses.append(result.loss.item())
        for plan, more in PLANS.items():
            if not wanted(f"20 steps, {task}, {plan}"):
                continue
            out = f"{task}-{plan}".replace(" ", "-").replace(",", "")
            kind = "classify" if task == "classify" else "mlm"
            run = subprocess.run([program, "train", "--from", task, "--task", kind, "--data", data, "--out", out,
                                  "--steps", str(STEPS), "--batch", str(BATCH), "--seq", str(SEQ), "--seed", str(SEED),
                                  "--lr", str(LR), "--lr-schedule", "constant", "--weight-decay", str(DECAY), "--clip", "0",
                                  "--beta2", "0.95", "--eps", "1e-4", "--eval-every", "0", "--save-every", "0"]
                                 + options + more, capture_output=True, text=True)
            held = run.returncode == 0
            if not held:
                print("  ", run.stderr.strip()[-300:])
            else:
                mine = [json.loads(line)["loss"] for line in open(os.path.join(out, "metrics.jsonl"))]
                worst = max(abs(x - y) / y for x, y in zip(mine, losses))
                held = len(mine) == STEPS and worst <= 1e-3
                if not held:
                    print(f"   losses differ by {worst:.2e}: {mine[:3]} and {losses[:3]}")
            verdict(held, f"20 steps, {task}, {plan}")
        if wanted("exported"):
            reload(cls, model, task)


def reload(cls, model, task):
    """What is exported loads as the same class and says the same."""
    out = task + "-exported"
    run = subprocess.run([program, "export", task + "-one-device", "-o", out], capture_output=True, text=True)
    held = run.returncode == 0
    if not held:
        print("  ", run.stderr.strip()[-300:])
    else:
        again, how = cls.from_pretrained(out, output_loading_info=True)
        given = rebuilt(model, load_file(f"{task}.batch-0.safetensors"))
        with torch.no_grad():
            x, y = again.eval()(**given)[1], model.eval()(**given)[1]
        missing = how["missing_keys"]
        held = not missing and check("logits", x, y, 1e-3)
        if missing:
            print("   missing:", missing)
    verdict(held, f"{cls.__name__} exported")


# ---- embeddings ----------------------------------------------------------------------------------

def embed():
    """The same by both of a random model, with padding between texts of unequal length."""
    model = sized(transformers.BertModel, vocab_size=len(WORDS) + 8).eval()
    model.save_pretrained("encoder")
    for name in os.listdir("tokenizer"):
        os.link(os.path.join("tokenizer", name), os.path.join("encoder", name))
    texts = ["the cat sees a dog.", "good!", "the big house under the garden, not very good film"]
    with open("lines.txt", "w") as f:
        f.write("\n".join(texts) + "\n")
    run = subprocess.run([program, "embed", "--from", "encoder", "--data", "lines.txt", "--batch", "2"],
                         capture_output=True, text=True)
    held = run.returncode == 0
    if not held:
        print("  ", run.stderr.strip())
    else:
        mine = torch.tensor([[float(x) for x in line.split()] for line in run.stdout.splitlines()])
        t = transformers.AutoTokenizer.from_pretrained("encoder")
        given = t(texts, padding=True, return_tensors="pt")
        mask = given["attention_mask"][..., None].float()
        with torch.no_grad():
            hidden = model(**given).last_hidden_state
        want = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
        held = mine.shape == want.shape and float((mine - want).abs().max()) <= 1e-4
        if not held:
            print("   vectors differ:", mine.shape, want.shape)
    verdict(held, "sentence embeddings")


program = os.path.abspath(program)
build = os.path.abspath(build)
os.chdir(folder)
folder = "."
grads()
steps()
embed()
print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
sys.exit(0 if all(verdicts) else 1)
