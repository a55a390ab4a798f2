# SPDX-License-Identifier: MIT
"""translations.py - the emulator's translated instructions, handed from one of its processes to the next.

    process 1   translates ──> FOLDER/gfx942-NAMES.pickle ──> process 2   translates what is new, and appends it

A test program makes a context for every few cases, each with a process of its own. To translate a form of instruction takes
30 to 100 ms, to read it 1. The folder is one run's: what is in it is of the same checkout and processor, and
the file's name has the repairs that were in place.
"""
import os
import pickle


class Translations:
    def __init__(self, emu, folder, chip, repairs):
        self.emu = emu
        self.path = folder and os.path.join(folder, "-".join([chip, *sorted(repairs)]) + ".pickle")
        if self.path and os.path.exists(self.path):
            self.read()
        self.known = len(emu._canonical_runner_cache)

    def read(self):
        from tinygrad.engine.realize import get_runtime
        with open(self.path, "rb") as f:
            while True:
                try:
                    kind, base, mask, size, program = pickle.load(f)
                except EOFError:
                    return
                runtime = get_runtime("CPU", program)
                self.emu._canonical_runner_cache.append((kind, base, mask, size, (program, runtime)))

    def write(self):
        """Appends what is new, in one piece: other processes may do so at the same time."""
        new = self.emu._canonical_runner_cache[self.known:]
        if self.path and new:
            text = b"".join(pickle.dumps((kind, base, mask, size, entry[0])) for kind, base, mask, size, entry in new)
            with open(self.path, "ab", buffering=0) as f:
                f.write(text)
