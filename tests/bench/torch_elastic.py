#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/torch_elastic.py - PyTorch's side of elastic_kill.sh: a worker that torchrun starts again.

The GPT-2 of torch_step.py under DistributedDataParallel over gloo. Rank 0 appends a line with the
step's number to --rows after each step and keeps a snapshot (parameters, AdamW, step) every
--save-every steps; all workers begin from the newest one.

The workers meet in the store of torchrun's agent, which it keeps from one start of them to the next; the
addresses that gloo left there belong to workers that are gone, so each start has a name of its own in it.
"""
import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch_step import GPT2, PRESETS, step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=sorted(PRESETS), default="10m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--snapshot", required=True)
    o = parser.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False)
    start = "start " + os.environ["TORCHELASTIC_RESTART_COUNT"]
    dist.init_process_group("gloo", store=dist.PrefixStore(start, store), rank=rank, world_size=world)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    shape = PRESETS[o.model]
    model = GPT2(*shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    done = 0
    if os.path.exists(o.snapshot):
        state = torch.load(o.snapshot)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    model = nn.parallel.DistributedDataParallel(model)
    while True:
        tokens = torch.randint(shape[4], (o.batch // world, o.seq + 1))
        step(model, optimizer, tokens)
        done += 1
        if rank == 0:
            with open(o.rows, "a") as rows:
                rows.write(f"{done}\n")
            if done % o.save_every == 0:
                torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(),
                            "done": done}, o.snapshot + ".new")
                os.replace(o.snapshot + ".new", o.snapshot)


main()
