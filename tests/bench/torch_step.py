#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/torch_step.py - the training step of `geartrain bench step`, in PyTorch.

The same GPT-2: learned positions, layers normed before, GELU in its tanh form, the head
tied to the token embedding, no dropout; or the same Llama: rotary positions, RMSNorm, heads that
share keys, SwiGLU, a head of its own. The same step: forward, cross-entropy, backward,
gradient clipped to norm 1, AdamW with decay on matrices only. fp32, or bf16 by autocast with
parameters in fp32; random tokens. --compile runs the forward and backward pass through
torch.compile.

Prints one JSON object: the median and least seconds of a step, and the most memory that the process had.
Warm-up steps do not count.
With --world N and --rank R it is one of N processes that train together through
DistributedDataParallel over gloo, each with its part of the batch; --store names a new file, or is
env:// for MASTER_ADDR and MASTER_PORT. --hook bf16 sends gradients in 16 bits, powersgd as
factors of --rank-approx columns.

With --since, seconds of the clock when this program was started, the object has the seconds from then to the first
step (start.sh).

With --data it is trained on a text's bytes for --seconds, its last tenth kept for validation, and the
object has the steps, tokens a second and the validation loss (slow_link.sh).
"""
import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)

    def attend(self, x, future):
        B, T, C = x.shape
        q, k, v = (p.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                   for p in self.qkv(x).split(C, dim=2))
        if hasattr(F, "scaled_dot_product_attention"):      # since PyTorch 2
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(C // self.heads))
            y = scores.masked_fill(future, float("-inf")).softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def forward(self, x, future):
        x = x + self.attend(self.ln_1(x), future)
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, layers, heads, channels, context, vocab):
        super().__init__()
        self.wte = nn.Embedding(vocab, channels)
        self.wpe = nn.Embedding(context, channels)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(channels)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, tokens, targets):
        T = tokens.shape[1]
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        x = self.wte(tokens) + self.wpe(torch.arange(T))
        for block in self.blocks:
            x = block(x, future)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


def turn(x, cos, sin):
    """Rotary positions: of each head, column i and column i + half are one pair."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class LlamaBlock(nn.Module):
    def __init__(self, channels, heads, kv_heads, inner):
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, channels // heads
        self.norm_1, self.norm_2 = nn.RMSNorm(channels, eps=1e-5), nn.RMSNorm(channels, eps=1e-5)
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, kv_heads * self.width, bias=False)
        self.v = nn.Linear(channels, kv_heads * self.width, bias=False)
        self.proj = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Linear(channels, inner, bias=False)
        self.up = nn.Linear(channels, inner, bias=False)
        self.down = nn.Linear(inner, channels, bias=False)

    def attend(self, x, cos, sin):
        B, T, C = x.shape
        q = turn(self.q(x).view(B, T, self.heads, self.width).transpose(1, 2), cos, sin)
        k = turn(self.k(x).view(B, T, self.kv_heads, self.width).transpose(1, 2), cos, sin)
        v = self.v(x).view(B, T, self.kv_heads, self.width).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=True, enable_gqa=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

    def forward(self, x, cos, sin):
        x = x + self.attend(self.norm_1(x), cos, sin)
        h = self.norm_2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, layers, heads, channels, context, vocab, kv_heads, inner):
        super().__init__()
        self.embed = nn.Embedding(vocab, channels)
        self.blocks = nn.ModuleList(LlamaBlock(channels, heads, kv_heads, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(channels, eps=1e-5)
        self.head = nn.Linear(channels, vocab, bias=False)
        half = channels // heads // 2
        angles = torch.arange(context)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos().repeat(1, 2))
        self.register_buffer("sin", angles.sin().repeat(1, 2))
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        T = tokens.shape[1]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:T], self.sin[:T])
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


PRESETS = {     # layers, heads, channels, context, vocabulary; of a Llama also heads of keys, inner width
    "llama-160m": (12, 12, 768, 1024, 32000, 4, 3072),
    "gpt2-124m": (12, 12, 768, 1024, 50257),
    "gpt2-355m": (24, 16, 1024, 1024, 50257),
    "10m": (6, 6, 384, 128, 256),           # data_parallel.sh
    "1m": (5, 4, 128, 128, 256),            # start.sh
}


def finish(model, optimizer, loss):
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def step(model, optimizer, batch):
    return finish(model, optimizer, model(batch[:, :-1], batch[:, 1:]))


def train_for(o, model, optimizer):
    text = torch.frombuffer(bytearray(open(o.data, "rb").read()), dtype=torch.uint8).long()
    cut = len(text) * 9 // 10
    windows = torch.Generator().manual_seed(2 + o.rank)

    def draw(part, count):
        at = torch.randint(len(part) - o.seq, (count,), generator=windows).tolist()
        return torch.stack([part[i:i + o.seq + 1] for i in at])

    step(model, optimizer, draw(text[:cut], o.batch // o.world))         # what the first one sets up
    steps, start, more, curve = 0, time.perf_counter(), torch.ones(1), []
    while more.item() > 0:
        loss = step(model, optimizer, draw(text[:cut], o.batch // o.world))
        curve.append((time.perf_counter() - start, loss))
        steps += 1
        more.fill_(float(time.perf_counter() - start < o.seconds))
        if o.world > 1:
            dist.broadcast(more, 0)                     # rank 0's clock ends it for all
    seconds = time.perf_counter() - start
    with torch.no_grad():
        windows.manual_seed(1)
        batch = draw(text[cut:], 16)
        loss = (model.module if o.world > 1 else model)(batch[:, :-1], batch[:, 1:]).item()
    if o.rank == 0:
        print(json.dumps({"torch": torch.__version__, "steps": steps, "seconds": seconds,
                          "tokens_per_s": steps * o.batch * o.seq / seconds, "val_loss": loss}))
        if o.curve:
            with open(o.curve, "w") as out:
                out.writelines(f"{t:.3f}\t{loss:.4f}\n" for t, loss in curve)
    if o.world > 1:
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=sorted(PRESETS), default="gpt2-124m")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--store")
    parser.add_argument("--hook", choices=["none", "bf16", "powersgd"], default="none")
    parser.add_argument("--rank-approx", type=int, default=4, help="of powersgd")
    parser.add_argument("--since", type=float, default=0)
    parser.add_argument("--data")
    parser.add_argument("--curve", help="a file for seconds and rank 0's loss after each step, with --data")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lr", type=float, default=3e-4)
    o = parser.parse_args()
    if o.world > 1:
        where = o.store if "://" in o.store else "file://" + o.store
        dist.init_process_group("gloo", init_method=where, rank=o.rank, world_size=o.world)
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    shape = PRESETS[o.model]
    model = Llama(*shape) if len(shape) > 5 else GPT2(*shape)
    if o.world > 1:
        # One bucket for factors: sums of several, begun as their turn comes, may meet in another order elsewhere.
        model = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=1000 if o.hook == "powersgd" else 25)
        if o.hook == "bf16":
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
            model.register_comm_hook(None, bf16_compress_hook)
        if o.hook == "powersgd":
            from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as psgd
            state = psgd.PowerSGDState(None, matrix_approximation_rank=o.rank_approx, start_powerSGD_iter=2)
            model.register_comm_hook(state, psgd.powerSGD_hook)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1},
                                   {"params": others, "weight_decay": 0.0}],
                                  lr=o.lr, betas=(0.9, 0.95), eps=1e-8)
    if o.data:
        return train_for(o, model, optimizer)
    run = torch.compile(model) if o.compile else model
    tokens = torch.randint(shape[4], (o.warmup + o.runs, o.batch // o.world, o.seq + 1))
    seconds = []
    begun = time.time() - o.since if o.since else None
    for batch in tokens:
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=o.precision == "bf16"):
            loss = run(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss = finish(model, optimizer, loss)
        seconds.append(time.perf_counter() - start)
    if not math.isfinite(loss):
        raise SystemExit("the loss is not finite: the step is wrong, its time means nothing")
    timed = seconds[o.warmup:]
    if o.rank == 0:
        print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(),
                          "precision": o.precision, "compiled": o.compile,
                          "start_s": begun, "median_s": statistics.median(timed), "min_s": min(timed),
                          "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
    if o.world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
