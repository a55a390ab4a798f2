# SPDX-License-Identifier: MIT
# tests/sync/demo.py - the other side of demo.sh: DeMo (arXiv 2411.19870, algorithm 1) written out in PyTorch.
#
#   demo.py begin FOLDER              a random GPT-2 in FOLDER/base
#   demo.py train FOLDER TEXT K       two workers on the text's bytes: FOLDER/losses, a line a step, the mean of both
import math
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers

WORKERS, B, T, STEPS, LR, DECAY, WEIGHT_DECAY, SIDE = 2, 4, 32, 40, 3e-4, 0.9, 0.1, 64
torch.manual_seed(7)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()


def begin(folder):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=2, n_head=4, n_embd=64, n_positions=T, vocab_size=257, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0))
    model.save_pretrained(folder + "/base")


def basis(n):
    u, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None, :]
    c = torch.cos(math.pi * (2 * i + 1) * u / (2 * n)) * math.sqrt(2 / n)
    c[0] = math.sqrt(1 / n)
    return c.float()


def fast(m, k):
    """The k largest cosine coefficients of each block of 64 x 64, as values."""
    q = torch.zeros_like(m)
    for r in range(0, m.shape[0], SIDE):
        for c in range(0, m.shape[1], SIDE):
            block = m[r:r + SIDE, c:c + SIDE]
            a, b = basis(block.shape[0]), basis(block.shape[1])
            y = a @ block @ b.T
            kept = torch.zeros(y.numel())
            largest = y.abs().flatten().topk(min(k, y.numel())).indices
            kept[largest] = y.flatten()[largest]
            q[r:r + SIDE, c:c + SIDE] = a.T @ kept.view_as(y) @ b
    return q


def rows(ids, at, count):
    x = torch.stack([ids[at + i * T:at + i * T + T] for i in range(count)])
    y = torch.stack([ids[at + i * T + 1:at + i * T + T + 1] for i in range(count)])
    return x, y


def train(folder, text, k):
    ids = torch.tensor(list(open(text, "rb").read()), dtype=torch.long)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder + "/base").eval()
    own = list(model.parameters())
    momenta = [[torch.zeros_like(p) for p in own] for _ in range(WORKERS)]
    share = B // WORKERS
    with open(folder + "/losses", "w") as out:
        for step in range(STEPS):
            mean, sums = 0.0, [torch.zeros_like(p) for p in own]
            for w in range(WORKERS):
                x, y = rows(ids, (step * B + w * share) * T, share)
                logits = model(x).logits
                loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
                model.zero_grad()
                loss.backward()
                mean += loss.item() / WORKERS
                for p, m, s in zip(own, momenta[w], sums):
                    if p.dim() < 2:             # travels as it is
                        s += p.grad / WORKERS
                        continue
                    m.mul_(DECAY).add_(p.grad)
                    q = fast(m, int(k))
                    m -= q
                    s += q / WORKERS
            with torch.no_grad():
                for p, s in zip(own, sums):
                    if p.dim() > 1:
                        p.mul_(1 - LR * WEIGHT_DECAY)
                    p -= LR * s.sign()
            out.write("%.8f\n" % mean)


begin(*sys.argv[2:]) if sys.argv[1] == "begin" else train(*sys.argv[2:])
