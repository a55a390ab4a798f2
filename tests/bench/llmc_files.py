#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/llmc_files.py - what llm.c's train_gpt2 wants to find before it starts.

    llmc_files.py FOLDER

Writes random weights of GPT-2's 124M shape and random tokens, in the layouts that llm.c
documents. A step costs the same whatever they hold.
"""
import array
import os
import random
import sys

V, VP, C, LAYERS, HEADS, CONTEXT = 50257, 50304, 768, 12, 12, 1024


def header(file, *numbers):
    array.array("i", list(numbers) + [0] * (256 - len(numbers))).tofile(file)


def weights(path):
    draw = random.Random(1)
    block = array.array("f", (draw.gauss(0.0, 0.02) for _ in range(1 << 18)))
    with open(path, "wb") as file:
        header(file, 20240326, 3, CONTEXT, V, LAYERS, HEADS, C, VP)

        def normal(count):
            for done in range(0, count, len(block)):
                block[:count - done].tofile(file)

        def constant(value, count):
            array.array("f", [value] * count).tofile(file)

        normal(VP * C)                                  # token embedding, padded
        normal(CONTEXT * C)                             # positions
        for rows, columns in ((None, C), (3 * C, C), (C, C), (None, C), (4 * C, C), (C, 4 * C)):
            if rows is None:                            # a norm: gain, bias
                constant(1.0, LAYERS * columns)
                constant(0.0, LAYERS * columns)
            else:                                       # a product: weight, bias
                normal(LAYERS * rows * columns)
                constant(0.0, LAYERS * rows)
        constant(1.0, C)
        constant(0.0, C)


def tokens(path, count):
    draw = random.Random(2)
    with open(path, "wb") as file:
        header(file, 20240520, 1, count)
        array.array("H", (draw.randrange(V) for _ in range(count))).tofile(file)


def main(folder):
    data = os.path.join(folder, "dev/data/tinyshakespeare")
    os.makedirs(data, exist_ok=True)
    weights(os.path.join(folder, "gpt2_124M.bin"))
    for split in ("train", "val"):
        tokens(os.path.join(data, "tiny_shakespeare_%s.bin" % split), 1 << 17)


main(sys.argv[1])
