# SPDX-License-Identifier: MIT
"""emulator.py - the other end of driver.c: compiles for an AMD GPU, and runs what comes of it by hand.

    emulator.py CHIP LIBRARY           serves one context: requests on file 3, the GPU's memory is file 4
    emulator.py --check CHIP LIBRARY   asks the emulator for its known faults: the names of those that are there,
                                       one a line; fails if a repair does not help, or if matrix.c and the
                                       emulator's own matrix instructions disagree where both are right

    $TINYGRAD              a checkout of tinygrad, whose test/mockgpu/amd/emu.py translates instructions
    $GT_EMULATED_BITCODE   ROCm's device libraries, those of newer chips among them (amd_compiler.sh)
    $GT_EMULATED_REPAIRS   names of faults to be repaired
    $GT_EMULATED_CHANGE    OLD=>NEW: is changed in every text that holds it; a planted mistake
    $GT_EMULATED_KEPT      a folder in which processes keep what they have translated for the next ones
    $GT_EMULATED_COUNTS    a file to which each kernel's counts of instructions are added at the end

Requests are lines, with bytes behind some; an answer is "ok ..." or "failed N" and N bytes of why.

    build OPTIONS TEXT (lengths; both follow)    ok NUMBER SIZE, and the code object
    load SIZE (follows)                          ok NUMBER
    kernel NUMBER NAME                           ok MOST-ITEMS X Y Z COUNT KIND...
    launch NUMBER NAME groups(3) group(3) ARG... ok
"""
import collections
import ctypes
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import repairs
from code_object import CodeObject
from translations import Translations

SGPRS, VGPRS, MOST_WAVES = 260, 256, 32
UNKNOWN, TRANSLATED, NOTHING, MATRIX = range(4)
COUNTS = ("all", "vector", "memory", "local", "matrix", "scalar")
LDS_REACH = (1 << 32) + (1 << 20)       # an inactive lane may be asked for anything that 32 bits address


class Site(ctypes.Structure):           # waves.h: site
    _fields_ = [("function", ctypes.c_uint64), ("how", ctypes.c_uint8), ("barrier", ctypes.c_uint8),
                ("count", ctypes.c_uint8), ("bytes", ctypes.c_uint8), ("args", ctypes.c_uint8),
                ("arg", ctypes.c_uint8 * 6), ("form", ctypes.c_uint8), ("negate_c", ctypes.c_uint8),
                ("d", ctypes.c_uint16), ("a", ctypes.c_uint16), ("b", ctypes.c_uint16), ("c", ctypes.c_uint16)]


class Launch(ctypes.Structure):         # waves.h: launch
    _fields_ = [("sites", ctypes.c_void_p), ("code", ctypes.c_uint64), ("code_bytes", ctypes.c_uint64),
                ("groups", ctypes.c_uint32 * 3), ("waves", ctypes.c_uint32), ("lanes", ctypes.c_uint32),
                ("group_register", ctypes.c_uint32 * 3), ("group_shift", ctypes.c_uint32 * 3),
                ("local_bytes", ctypes.c_uint32), ("private_bytes", ctypes.c_uint32),
                ("start_scalars", ctypes.c_void_p), ("start_vectors", ctypes.c_void_p),
                ("scalars", ctypes.c_void_p), ("vectors", ctypes.c_void_p), ("sums", ctypes.c_void_p),
                ("local", ctypes.c_void_p), ("private", ctypes.c_void_p), ("missing", ctypes.c_uint64),
                ("at", ctypes.c_uint64 * 3), ("begun", ctypes.c_uint32), ("stopped", ctypes.c_uint32 * MOST_WAVES),
                ("counts", ctypes.c_uint64 * len(COUNTS))]


# Where nothing is to be done: caches that are not emulated. (first word, mask, bytes)
CACHES = {"gfx1100": [(0xe0ac0000, 0xfffc0000, 8), (0xe0b00000, 0xfffc0000, 8)],
          "gfx1201": [(0xee0ac000, 0xffffc000, 12), (0xee0b0000, 0xffffc000, 12), (0xee13c000, 0xffffc000, 12)],
          "gfx942": [(0xe0a40000, 0xfffc0000, 8), (0xe0a00000, 0xfffc0000, 8)],
          "gfx90a": [(0xe0f80000, 0xfffc0000, 8), (0xe0fc0000, 0xfffc0000, 8), (0xe0a40000, 0xfffc0000, 8)]}

# Registers as an array: the emulator knows none of it, and says so of a part. Arrays in memory it knows.
BY_NUMBER = ("V_MOVREL", "S_MOVREL", "S_SET_GPR_IDX")

# Operation of a matrix instruction -> its form in waves.h.
WMMA = {"gfx1100": {0x40: 0, 0x41: 1}, "gfx1201": {0x40: 2, 0x41: 3}}
MFMA = {"gfx90a": {0x4d: 4, 0x67: 5, 0x45: 6, 0x4c: 7, 0x66: 8, 0x44: 9},
        "gfx942": {0x4d: 4, 0x61: 5, 0x45: 6, 0x4c: 7, 0x60: 8, 0x44: 9}}


def read_matrix(chip, low, high):
    """-> the fields of a Site, or None if these two words are no matrix instruction"""
    operation = low >> 16 & 0x7f
    a, b, c, d = high & 0x1ff, high >> 9 & 0x1ff, high >> 18 & 0x1ff, low & 0xff
    if chip in WMMA and low >> 24 == 0xcc and operation in WMMA[chip]:
        return dict(form=WMMA[chip][operation], a=a, b=b, c=c, d=256 + d, negate_c=high >> 31 & 1)
    if chip in MFMA and low >> 23 == 0x1a7 and operation in MFMA[chip]:
        sums = 256 if low >> 15 & 1 else 0
        return dict(form=MFMA[chip][operation], a=a + 256 * (high >> 27 & 1), b=b + 256 * (high >> 28 & 1),
                    c=c + (sums if c >= 256 else 0), d=256 + d + sums, negate_c=0)
    return None


class Machine:
    """A chip: its code objects, and room for the waves of one group."""

    def __init__(self, chip, library):
        self.chip, self.arch = chip, repairs.ARCH[chip]
        self.emu = repairs.load_emulator()
        asked = os.environ.get("GT_EMULATED_REPAIRS", "").split()
        self.faults = [row[0] for row in repairs.REPAIRS if row[0] in asked and chip in row[1]]
        repairs.apply(self.emu, self.faults)
        self.waves_of = ctypes.CDLL(library)
        self.lanes = self.emu._wave_size(self.arch)
        self.files, self.rooms, self.private = {}, [], (0, 0)
        for name, size in (("scalars", MOST_WAVES * SGPRS * 4), ("vectors", MOST_WAVES * VGPRS * 64 * 4),
                           ("sums", MOST_WAVES * VGPRS * 64 * 4), ("local", LDS_REACH)):
            self.files[name] = self.room(size)
        self.programs, self.kept = [], []
        self.counts = collections.defaultdict(lambda: [0] * (1 + len(COUNTS)))
        self.spent = collections.Counter()      # seconds, by what for

    def room(self, size):
        reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | reserve)
        self.rooms.append(memory)
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def private_room(self, size):
        if size > self.private[1]:
            self.private = (self.room(size), size)
        return self.private[0]

    # ---- programs ----

    def compile(self, options, text):
        change = os.environ.get("GT_EMULATED_CHANGE")
        if change:
            text = text.replace(*change.split("=>", 1))
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + "/kernels.cl", "w") as f:
                f.write(text)
            # As ROCm's driver does, but with access only where it is aligned: the emulator knows no other.
            command = ["clang-19", "-x", "cl", "-Xclang", "-finclude-default-header", "-target", "amdgcn-amd-amdhsa",
                       "-mcpu=" + self.chip, "--rocm-device-lib-path=" + os.environ["GT_EMULATED_BITCODE"], "-O3",
                       "-Xclang", "-target-feature", "-Xclang", "-unaligned-access-mode", "-mcode-object-version=5",
                       *options.split(), folder + "/kernels.cl", "-o", folder + "/kernels"]
            if "-DMMA_SOFTWARE" in options.split():     # whose arrays are numbered by variables
                command += ["-mllvm", "-disable-promote-alloca-to-vector"]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                raise ValueError(done.stderr)
            with open(folder + "/kernels", "rb") as f:
                return f.read()

    def load(self, binary):
        program = CodeObject(binary)
        code, size = program.code
        program.sites = (Site * (size // 4 + 1))()
        self.programs.append(program)
        return len(self.programs) - 1

    def kernel(self, number, name):
        about = self.programs[number].metadata[name]
        group = about.get(".reqd_workgroup_size", [0, 0, 0])
        kinds = []
        for a in about[".args"]:
            kind = a[".value_kind"]
            if kind == "by_value":
                kinds.append(f"v{a['.size']}")
            elif kind == "global_buffer":
                kinds.append("b")
            elif kind == "dynamic_shared_pointer":
                kinds.append("l")
        return f"{about['.max_flat_workgroup_size']} {group[0]} {group[1]} {group[2]} {len(kinds)} {' '.join(kinds)}"

    # ---- translating ----

    def translate(self, program, pc):
        """Fills the site at pc."""
        emu, site = self.emu, program.sites[(pc - program.code[0]) // 4]
        words = (ctypes.c_uint32 * 3).from_address(pc)
        site.count = COUNTS.index("vector")
        for word, mask, size in CACHES[self.chip]:
            if words[0] & mask == word:
                site.bytes, site.how, site.count = size, NOTHING, COUNTS.index("memory")
                return
        matrix = read_matrix(self.chip, words[0], words[1])
        if matrix:
            for field, value in matrix.items():
                setattr(site, field, value)
            site.bytes, site.how, site.count = 8, MATRIX, COUNTS.index("matrix")
            return
        (program_of_one, runtime), inst = emu._decode_at(pc, self.arch)
        kind = type(inst).__name__
        if kind.startswith("DS"):
            site.count = COUNTS.index("local")
        elif kind.startswith(("FLAT", "GLOBAL", "SCRATCH", "VFLAT", "VGLOBAL", "VSCRATCH", "SMEM", "MUBUF")):
            site.count = COUNTS.index("memory")
        elif kind.startswith("SOP"):
            site.count = COUNTS.index("scalar")
        name = emu._op_name(inst)
        if name.startswith(BY_NUMBER):
            raise ValueError(f"{name} takes a register by its number, which the emulator does not")
        site.barrier = name in ("S_BARRIER", "S_BARRIER_WAIT")
        given = program_of_one.arg.globals
        site.args = len(given)
        for i, file in enumerate(given):
            site.arg[i] = file
        self.kept.append(runtime)
        site.function = ctypes.cast(runtime.fxn, ctypes.c_void_p).value
        site.how = TRANSLATED

    # ---- running ----

    def arguments(self, about, groups, group, given, local):
        """-> the arguments' bytes, and how much local memory the group takes with them"""
        size = 0
        given = iter(given)
        out = bytearray(max([a[".offset"] + a[".size"] for a in about[".args"]] + [64]))
        for a in about[".args"]:
            kind, at, size = a[".value_kind"], a[".offset"], a[".size"]
            if kind == "by_value":
                data = bytes.fromhex(next(given)[1:])
            elif kind == "global_buffer":
                word = next(given)
                data = struct.pack("<Q", 0 if word == "n" else self.memory + int(word[1:]))
            elif kind == "dynamic_shared_pointer":
                align = a.get(".pointee_align", 16)
                local = (local + align - 1) // align * align
                data = struct.pack("<I", local)
                local += int(next(given)[1:])
            elif kind.startswith("hidden_block_count"):
                data = struct.pack("<I", groups["xyz".index(kind[-1])])
            elif kind.startswith("hidden_group_size"):
                data = struct.pack("<H", group["xyz".index(kind[-1])])
            elif kind == "hidden_grid_dims":
                data = struct.pack("<H", 3)
            else:
                data = bytes(size)          # offsets, remainders: none; queues, printf: not there
            out[at:at + size] = data
        return out, local

    def user_registers(self, d, packet, arguments, private, size):
        """The scalar registers filled before a wave begins, in the order that the descriptor's bits fix."""
        two = lambda value: [value & 0xffffffff, value >> 32]
        words = []
        for bit, values in ((1, repairs.private_buffer(private, size)), (2, two(packet)), (4, [0, 0]),
                            (8, two(arguments)), (16, [0, 0]), (32, two(private)), (64, [d["private"]])):
            if d["properties"] & bit:
                words += values
        return words + [0] * ((d["resources"] >> 1 & 31) - len(words))

    def launch(self, number, name, numbers, given):
        emu, program = self.emu, self.programs[number]
        about, d = program.metadata[name], program.descriptor(name)
        groups, group = numbers[:3], numbers[3:]
        items = group[0] * group[1] * group[2]
        data, local = self.arguments(about, groups, group, given, d["group"])
        if local > 65536:
            raise ValueError(f"{local} bytes of local memory, and there are 65536")
        block = ctypes.create_string_buffer(len(data) + 128)
        base = (ctypes.addressof(block) + 63) // 64 * 64
        ctypes.memmove(base, bytes(data), len(data))
        packet = ctypes.create_string_buffer(struct.pack(
            "<HHHHHHIIIIIQQQQ", 2, 3, *group, 0, *(a * b for a, b in zip(groups, group)), d["private"], local,
            d["address"], base, 0, 0))
        waves = (items + self.lanes - 1) // self.lanes
        a_wave = (d["private"] + 3) // 4 * 4 * self.lanes
        private = self.private_room(a_wave * waves)
        user = self.user_registers(d, ctypes.addressof(packet), base, private, a_wave * waves)
        wave_at = self.private_register(d)
        scalars = (ctypes.c_uint32 * (SGPRS * waves))()
        vectors = (ctypes.c_uint32 * (self.lanes * waves))()
        for w in range(waves):
            st = emu._init_wave(d["entry"], w * self.lanes, items, *group, base, d["resources"], d["private"], self.arch,
                                0, 0, 0, user or None, self.lanes)
            for register, value in emu.F32_INLINE.items():      # of which one has been overwritten
                st._write_sgpr(register, value)
            if wave_at is not None:
                st._write_sgpr(wave_at, w * a_wave)
            ctypes.memmove(ctypes.addressof(scalars) + w * SGPRS * 4, st.sgpr_buf._buf.va_addr, SGPRS * 4)
            ctypes.memmove(ctypes.addressof(vectors) + w * self.lanes * 4, st.vgpr_buf._buf.va_addr, self.lanes * 4)
        run = Launch(sites=ctypes.addressof(program.sites), code=program.code[0], code_bytes=program.code[1],
                     waves=waves, lanes=self.lanes, local_bytes=local, private_bytes=d["private"],
                     start_scalars=ctypes.addressof(scalars), start_vectors=ctypes.addressof(vectors),
                     private=private, **self.files)
        run.groups[:] = groups
        self.place_groups(run, d)
        while True:
            begun = time.monotonic()
            st = self.waves_of.waves_run(ctypes.byref(run))
            self.spent["running"] += time.monotonic() - begun
            if st == 0:
                break
            if st == 2:
                raise ValueError(f"a wave left its code, for {run.missing:#x}")
            begun = time.monotonic()
            self.translate(program, run.missing)
            self.spent["translating"] += time.monotonic() - begun
        tally = self.counts[name, tuple(groups), items]
        tally[0] += 1
        for i in range(len(COUNTS)):
            tally[1 + i] += run.counts[i]

    def private_register(self, d):
        """Where a wave finds how far into private memory its own begins: behind its group's numbers. Newer chips have
        that done before a wave begins -> None"""
        if self.chip != "gfx90a" or not d["resources"] & 1:
            return None
        return (d["resources"] >> 1 & 31) + bin(d["resources"] >> 7 & 15).count("1")

    def place_groups(self, run, d):
        """Where a wave finds which group it is of."""
        from tinygrad.renderer.amd.dsl import ttmp
        if self.arch == "rdna4":
            run.group_register[:] = [ttmp[9].offset, ttmp[7].offset, ttmp[7].offset]
            run.group_shift[:] = [0, 0, 16]
            return
        register = d["resources"] >> 1 & 31
        for axis in range(3):
            run.group_register[axis] = SGPRS
            if d["resources"] >> 7 + axis & 1:
                run.group_register[axis] = register
                register += 1

    def write_counts(self):
        path = os.environ.get("GT_EMULATED_COUNTS")
        if not path:
            return
        with open(path, "a") as f:
            f.write(f"# {self.chip} {len(self.programs)} programs, seconds:")
            f.write("".join(f" {what} {seconds:.1f}" for what, seconds in self.spent.items()) + "\n")
            for (name, groups, items), tally in sorted(self.counts.items()):
                shown = " ".join(f"{kind} {n}" for kind, n in zip(COUNTS, tally[1:]))
                f.write(f"{self.chip} {name} groups {'x'.join(map(str, groups))} items {items} launches {tally[0]} {shown}\n")


def serve(chip, library):
    machine = Machine(chip, library)
    kept = Translations(machine.emu, os.environ.get("GT_EMULATED_KEPT"), chip, machine.faults)
    requests, answers = os.fdopen(os.dup(3), "rb"), os.fdopen(3, "wb")
    memory = mmap.mmap(4, 0, flags=mmap.MAP_SHARED)
    machine.memory = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    answers.write(b"ready\n")
    answers.flush()
    for line in iter(requests.readline, b""):
        word = line.decode().split()
        try:
            begun = time.monotonic()
            if word[0] == "build":
                options = requests.read(int(word[1])).decode()
                binary = machine.compile(options, requests.read(int(word[2])).decode())
                answers.write(f"ok {machine.load(binary)} {len(binary)}\n".encode() + binary)
            elif word[0] == "load":
                answers.write(f"ok {machine.load(requests.read(int(word[1])))}\n".encode())
            elif word[0] == "kernel":
                answers.write(f"ok {machine.kernel(int(word[1]), word[2])}\n".encode())
            else:
                machine.launch(int(word[1]), word[2], [int(x) for x in word[3:9]], word[9:])
                answers.write(b"ok\n")
        except Exception as e:
            why = f"{type(e).__name__}: {e}".encode()
            answers.write(b"failed %d\n" % len(why) + why)
        machine.spent[word[0]] += time.monotonic() - begun
        answers.flush()
    kept.write()
    machine.write_counts()


# ---- faults, and matrix instructions twice ------------------------------------------------------------------

# A product in registers: D, A, B, C and how many words a lane holds of each.
PRODUCTS = {"gfx1100": ["v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[24:31]"],
            "gfx1201": ["v_wmma_f32_16x16x16_bf16 v[0:7], v[8:11], v[16:19], v[24:31]"],
            "gfx942": ["v_mfma_f32_16x16x16_f16 v[0:3], v[8:9], v[16:17], v[24:27]",
                       "v_mfma_f32_16x16x16_bf16 v[0:3], v[8:9], v[16:17], v[24:27]",
                       "v_mfma_f32_16x16x4_f32 v[0:3], v8, v16, v[24:27]"],
            "gfx90a": ["v_mfma_f32_16x16x16f16 v[0:3], v[8:9], v[16:17], v[24:27]",
                       "v_mfma_f32_16x16x4f32 v[0:3], v8, v16, v[24:27]"]}


def small_numbers(line):
    """A word of small numbers of the instruction's type, so that sums are exact in any order."""
    small = [0, 1, 2, 3, 4, -1, -2, -3]
    if "_bf16" in line:
        halves = [repairs.bits(float(random.choice(small))) >> 16 for _ in range(2)]
    elif line.split()[0].endswith("f16"):
        halves = [struct.unpack("<H", struct.pack("<e", random.choice(small)))[0] for _ in range(2)]
    else:
        return repairs.bits(float(random.choice(small)))
    return halves[0] | halves[1] << 16


def compare_products(machine):
    """matrix.c and the emulator on the same registers -> whether all agree"""
    emu, chip, good = machine.emu, machine.chip, True
    for line, words in zip(PRODUCTS[chip], repairs.assemble(chip, PRODUCTS[chip])):
        wave = repairs.Wave(emu, chip, {})
        for register in range(8, 32):
            for lane in range(wave.lanes):
                value = repairs.bits(float(random.randrange(9))) if register >= 24 else small_numbers(line)
                from_half = 16 if chip == "gfx1100" and register < 24 and lane >= 16 else 0
                wave.state._write_vgpr(register, lane, wave.state._read_vgpr(register, lane - 16) if from_half else value)
        size = VGPRS * wave.lanes
        ours = (ctypes.c_uint32 * size).from_buffer_copy(wave.state._vgpr_mv)
        site = Site(**read_matrix(chip, words[0], words[1]))
        machine.waves_of.matrix_run(ctypes.byref(site), ctypes.c_void_p(wave.state.sgpr_buf._buf.va_addr), ours,
                                   (ctypes.c_uint32 * size)())
        wave.run(words)
        if bytes(ours) != bytes(wave.state._vgpr_mv):
            print(f"'{line}' gives one result in matrix.c and another in the emulator", file=sys.stderr)
            good = False
    return good


def check(chip, library):
    machine = Machine(chip, library)
    found = repairs.wrong(machine.emu, chip)
    for row in repairs.REPAIRS:
        if chip in row[1] and row[0] not in found:
            print(f"{chip}: '{row[0]}' is right in this checkout and needs no repair", file=sys.stderr)
    repairs.apply(machine.emu, found)
    still = repairs.wrong(machine.emu, chip)
    for name in still:
        print(f"{chip}: '{name}' is wrong after its repair as well", file=sys.stderr)
    good = compare_products(machine)
    print("\n".join(found))
    return not still and good


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(0 if check(*sys.argv[2:]) else 1)
    serve(*sys.argv[1:])
