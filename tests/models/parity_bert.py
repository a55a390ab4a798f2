# SPDX-License-Identifier: MIT
# tests/models/parity_bert.py - BERT and RoBERTa beside transformers: see parity_bert.sh.
#
#   parity_bert.py grads MODEL_RUN FOLDER        losses, gradients and last activations of random models
#   parity_bert.py make FOLDER                   a model, a tokenizer, token files
#   parity_bert.py steps FOLDER METRICS BATCHES  the same steps of AdamW
#   parity_bert.py reload FOLDER EXPORTED        an exported model gives the same logits
import json
import os
import subprocess
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

torch.manual_seed(7)
torch.set_num_threads(1)


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


def grads(program, folder):
    b = transformers
    cases = [
        ("mlm", b.BertForMaskedLM, {}, 3, 13), ("mlm", b.BertForMaskedLM, dict(hidden_act="gelu_new"), 2, 29),
        ("mlm", b.BertForMaskedLM, dict(hidden_act="relu", tie_word_embeddings=False), 1, 1),
        ("pairs", b.BertForPreTraining, dict(hidden_act="silu", type_vocab_size=3), 4, 17),
        ("classify", b.BertForSequenceClassification, dict(num_labels=5), 3, 11),
        ("classify", b.BertForSequenceClassification, dict(num_labels=2, layer_norm_eps=1e-5, hidden_act="tanh"), 5, 9),
        ("encode", b.BertModel, {}, 3, 12),
        ("mlm", b.RobertaForMaskedLM, {}, 3, 13), ("classify", b.RobertaForSequenceClassification, {}, 3, 14),
        ("encode", b.RobertaModel, {}, 2, 28),
    ]
    good = 0
    for n, (task, cls, other, B, T) in enumerate(cases):
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
        run = subprocess.run([program, where, task, file, where + ".out"], capture_output=True, text=True)
        held = run.returncode == 0
        if not held:
            print("  ", run.stderr.strip())
        elif task == "encode":
            mine = torch.from_numpy(np.fromfile(where + ".out", dtype=np.float32)).reshape(B, T, -1)
            held = check("activations", mine[mask.bool()], result.last_hidden_state.detach()[mask.bool()])
        else:
            result.loss.backward()
            held = abs(float(run.stdout) * scale - float(result.loss)) <= 1e-4 * abs(float(result.loss))
            if not held:
                print(f"  loss {float(run.stdout) * scale} and {float(result.loss)}")
            mine = load_file(os.path.join(where + ".out", "model.safetensors"))
            wanted = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
            if set(mine) != set(wanted):
                held = False
                print("  tensors differ:", sorted(set(mine) ^ set(wanted)))
            for k in sorted(set(mine) & set(wanted)):
                # The bias of keys moves no score: its gradient is rounding alone.
                if not k.endswith("self.key.bias"):
                    held &= check(k, mine[k], wanted[k])
        good += bool(held)
        print(("ok    " if held else "FAIL  ") + f"{cls.__name__} {other} of {B} x {T}")
    print(f"{good} passed, {len(cases) - good} failed")
    return good == len(cases)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    sys.exit(0 if globals()[sys.argv[1]](*sys.argv[2:]) else 1)
