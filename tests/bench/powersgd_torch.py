#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/powersgd_torch.py - PyTorch's side of powersgd.sh.

  make FOLDER   a GPT-2 with random weights in FOLDER/hf, and FOLDER/tokens.bin, ids of 16 bits
  train FOLDER WORLD RANK STEPS APPROXIMATION START
                one of WORLD processes that train it with DistributedDataParallel over gloo and the
                PowerSGD hook; RANK 0 writes FOLDER/torch.txt, a loss a line. APPROXIMATION 0: without the hook

Batches are those of --order sequential: step i has tokens [i * B * T, (i + 1) * B * T), and process r the r-th
part of its sequences.
"""
import sys

import numpy
import torch

B, T, VOCAB = 16, 64, 96
LR, BETAS, EPS, DECAY, CLIP = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0


def make(folder):
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=VOCAB, n_positions=T, n_embd=128, n_layer=3, n_head=4, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(f"{folder}/hf")
    # Text of a kind: words of a made-up language, which follow each other by a rule with exceptions.
    rng = numpy.random.default_rng(7)
    words = [rng.integers(1, VOCAB, rng.integers(2, 7)) for _ in range(200)]
    follows = rng.integers(0, 200, (200, 4))
    ids, at = [], 0
    while len(ids) < 600 * B * T:
        ids.extend(words[at])
        ids.append(0)
        at = follows[at][rng.integers(0, 4)] if rng.random() < 0.9 else rng.integers(0, 200)
    numpy.array(ids, dtype=numpy.uint16).tofile(f"{folder}/tokens.bin")


def train(folder, world, rank, steps, approximation, start):
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
    from transformers import GPT2LMHeadModel
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", world_size=world, rank=rank)
    inner = GPT2LMHeadModel.from_pretrained(f"{folder}/hf")
    # One bucket: of several, the hook's sums meet in another order on each rank, and gloo mixes them up.
    model = torch.nn.parallel.DistributedDataParallel(inner, bucket_cap_mb=1000)
    if approximation:
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=approximation,
                                            start_powerSGD_iter=start, min_compression_rate=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
                                  lr=LR, betas=BETAS, eps=EPS)
    tokens = torch.from_numpy(numpy.fromfile(f"{folder}/tokens.bin", dtype=numpy.uint16).astype(numpy.int64))
    part = B // world
    losses = []
    for step in range(steps):
        at = step * B * T + rank * part * T
        x = tokens[at:at + part * T].view(part, T)
        y = tokens[at + 1:at + part * T + 1].view(part, T)
        loss = torch.nn.functional.cross_entropy(model(input_ids=x).logits.view(-1, VOCAB), y.reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item() / world)
    if rank == 0:
        with open(f"{folder}/torch.txt", "w") as f:
            f.writelines(f"{x:.6f}\n" for x in losses)
    dist.destroy_process_group()


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    train(sys.argv[2], *map(int, sys.argv[3:8]))
