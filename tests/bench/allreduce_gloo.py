# SPDX-License-Identifier: MIT
# tests/bench/allreduce_gloo.py - gloo's all-reduce through torch.distributed, timed as
# `geartrain bench allreduce` times its own: in place, float sums of zeros, verified once with
# small integers, about half a second a size. Prints "BYTES MICROSECONDS" lines.
#
#   allreduce_gloo.py RANK SIZE STORE BYTES...          one process a rank; STORE is a new file
import sys
import time

import torch
import torch.distributed as dist

rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=size)


def run(x, n):
    dist.barrier()
    start = time.perf_counter()
    for _ in range(n):
        dist.all_reduce(x)
    return (time.perf_counter() - start) / n


for size_text in sys.argv[4:]:
    count = int(size_text) // 4
    index = torch.arange(count)
    x = ((index + 3 * rank) % 5 - 2).float()
    dist.all_reduce(x)
    want = sum(((index + 3 * r) % 5 - 2).float() for r in range(size))
    if not torch.equal(x, want):
        sys.exit("allreduce_gloo: a sum is wrong")
    x.zero_()
    once = run(x, 5)
    n = torch.tensor([max(5, min(20000, int(0.5 / once)))])
    dist.broadcast(n, 0)
    seconds = run(x, int(n[0]))
    if rank == 0:
        print(size_text, "%.3f" % (seconds * 1e6), flush=True)
dist.destroy_process_group()
