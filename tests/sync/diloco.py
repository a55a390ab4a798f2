# SPDX-License-Identifier: MIT
# tests/sync/diloco.py - the other side of diloco.sh: DiLoCo written out in PyTorch.
#
#   diloco.py begin FOLDER              a random GPT-2 in FOLDER/base
#   diloco.py train FOLDER TEXT RULE    replicas on the text's bytes: FOLDER/losses, a line a step, the mean of replicas;
#                                       RULE: average; nesterov, which is torch.optim.SGD(nesterov=True);
#                                       or sparse, SparseLoCo with 1 value in 64 in two bits, rate 0.7
import copy
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers

REPLICAS, B, T, STEPS, H, LR = 2, 4, 32, 40, 8, 3e-3
torch.manual_seed(7)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def begin(folder):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=40, n_positions=T, vocab_size=257, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0))
    model.save_pretrained(folder + "/base")


def inner_optimizer(model):
    own = list(model.parameters())
    return torch.optim.AdamW([
        {"params": [p for p in own if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in own if p.dim() < 2], "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.95), eps=1e-8)


def rows(ids, at, count):
    x = torch.stack([ids[at + i * T:at + i * T + T] for i in range(count)])
    y = torch.stack([ids[at + i * T + 1:at + i * T + T + 1] for i in range(count)])
    return x, y


def sparse(error):
    """What of a tensor is sent: the largest of each 4096 values, as the mean size of the larger or smaller half of them."""
    flat = error.flatten()
    sent = torch.zeros_like(flat)
    for at in range(0, flat.numel(), 4096):
        chunk = flat[at:at + 4096]
        k = -(-chunk.numel() // 64)
        order = chunk.abs().argsort(descending=True, stable=True)[:k]
        upper = k - k // 2
        for part in (order[:upper], order[upper:]):
            if part.numel():
                sent[at + part] = chunk[part].sign() * chunk[part].abs().mean()
    return sent.view_as(error)


def train(folder, text, rule):
    ids = torch.tensor(list(open(text, "rb").read()), dtype=torch.long)
    whole = transformers.GPT2LMHeadModel.from_pretrained(folder + "/base").eval()
    replicas = [copy.deepcopy(whole) for _ in range(REPLICAS)]
    inner = [inner_optimizer(m) for m in replicas]
    outer = torch.optim.SGD(whole.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    share = B // REPLICAS
    errors = [[torch.zeros_like(p) for p in whole.parameters()] for _ in range(REPLICAS)]
    with open(folder + "/losses", "w") as out:
        for step in range(STEPS):
            mean = 0.0
            for r, (model, optimizer) in enumerate(zip(replicas, inner)):
                x, y = rows(ids, (step * B + r * share) * T, share)
                logits = model(x).logits
                loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                mean += loss.item() / REPLICAS
            out.write("%.8f\n" % mean)
            if (step + 1) % H:
                continue
            with torch.no_grad():
                for i, (p, *locals_) in enumerate(zip(whole.parameters(), *(m.parameters() for m in replicas))):
                    if rule == "sparse":
                        way = torch.zeros_like(p)
                        for own, of in zip(errors, locals_):
                            own[i] = 0.95 * own[i] + (p - of)
                            q = sparse(own[i])
                            own[i] -= q
                            way += q / REPLICAS
                        p -= 0.7 * way
                        continue
                    average = sum(locals_) / REPLICAS
                    if rule == "average":
                        p.copy_(average)
                    else:
                        p.grad = p - average
            if rule == "nesterov":
                outer.step()
            with torch.no_grad():
                for model in replicas:
                    for p, to in zip(whole.parameters(), model.parameters()):
                        to.copy_(p)


begin(*sys.argv[2:]) if sys.argv[1] == "begin" else train(*sys.argv[2:])
