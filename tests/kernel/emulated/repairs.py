# SPDX-License-Identifier: MIT
"""repairs.py - what tinygrad's emulator of AMD's GPUs gets wrong, put right while it runs.

Each row of REPAIRS names a fault, asks for it by one instruction whose result the instruction set's
manual fixes, and repairs it by replacing functions of the loaded modules; nothing of the emulator is
kept here or changed on the disk. emulator.py --check asks before and after: a repair that is no longer
needed is said and left out, one that does not help fails.

Left alone, since nothing here reads it: 32x32 and other matrix instructions of the emulator, which matrix.c does.
"""
import ctypes
import os
import re
import struct
import subprocess
import sys
import tempfile

ARCH = {"gfx90a": "cdna", "gfx942": "cdna", "gfx1100": "rdna3", "gfx1201": "rdna4"}


def load_emulator():
    """The emulator's module, from the checkout that $TINYGRAD names."""
    os.environ.setdefault("DEV", "CPU")
    os.environ.setdefault("CC", "clang-19")
    os.environ.setdefault("CCC_OVERRIDE_OPTIONS", "# +-w")      # what clang thinks of the processor it runs on
    sys.path.insert(0, os.environ["TINYGRAD"])
    from test.mockgpu.amd import emu
    return emu


def assemble(chip, lines):
    """Instructions as text -> the words of each"""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/a.s", "w") as f:
            for i, line in enumerate(lines):
                f.write(f'.section .text.{i:04},"ax"\n{line}\n')
        subprocess.run(["clang-19", "-target", "amdgcn-amd-amdhsa", "-mcpu=" + chip, "-c", folder + "/a.s", "-o",
                        folder + "/a.o"], check=True)
        with open(folder + "/a.o", "rb") as f:
            data = f.read()
    at, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, at + i * size) for i in range(count)]
    code = [s for s in sections if s[1] == 1 and s[2] & 4 and s[5]]
    return [struct.unpack_from(f"<{s[5] // 4}I", data, s[4]) for s in code]


def private_buffer(address, size):
    """The four words that describe private memory to buffer instructions: a lane's word follows that of the lane before
    it (bit 31 of the second; of the last 19: words of 4 bytes, 21: 64 of them together, 23: numbered by lane)."""
    return [address & 0xffffffff, address >> 32 | 1 << 31, size, 1 << 19 | 3 << 21 | 1 << 23]


class Wave:
    """One wave of the emulator, for a few instructions: vector registers by number (from 256 on those for sums), a
    value for every lane; s[0:3] describe 16 bytes of private memory a lane."""

    def __init__(self, emu, chip, vectors):
        self.emu, self.chip = emu, chip
        self.lanes = emu._wave_size(ARCH[chip])
        self.state = emu.WaveState(self.lanes, self.lanes)
        self.private = (ctypes.c_uint32 * (4 * self.lanes))()
        for register, value in enumerate(private_buffer(ctypes.addressof(self.private), ctypes.sizeof(self.private))):
            self.state._write_sgpr(register, value)
        for register, value in vectors.items():
            for lane in range(self.lanes):
                if register < 256:
                    self.state._write_vgpr(register, lane, value)
                else:
                    at = 4 * ((register - 256) * self.lanes + lane)
                    ctypes.c_uint32.from_address(self.state.accvgpr_buf._buf.va_addr + at).value = value

    def run(self, words):
        """-> register 0 of the first lane"""
        code, local = (ctypes.c_uint32 * (len(words) + 8))(*words), (ctypes.c_uint32 * 1024)()
        st = self.state
        st.pc = ctypes.addressof(code)
        files = [st.sgpr_buf._buf.va_addr, st.vgpr_buf._buf.va_addr, 0, ctypes.addressof(local), 0,
                 st.accvgpr_buf._buf.va_addr]
        while st.pc < ctypes.addressof(code) + 4 * len(words):
            (program, runtime), _ = self.emu._decode_at(st.pc, ARCH[self.chip])
            runtime.fxn(*[ctypes.c_uint64(files[g]) for g in program.arg.globals])
        return st._read_vgpr(0, 0)


def bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


# ---- mantissa and exponent of zero; powers of two beyond the largest float: what divisions are made of ----

def tell(emu, instruction, text):
    """What an instruction does, in the manual's pseudo-code, which the emulator translates."""
    others = emu.get_pcode
    emu.get_pcode = lambda op: text if op.name.removesuffix("_E32").removesuffix("_E64") == instruction else others(op)


def repair_mantissa(emu):
    from test.mockgpu.amd import pcode
    mantissa = pcode._frexp_mant

    def mantissa_or_zero(v):
        v = v.bitcast(emu.dtypes.float32) if v.dtype == emu.dtypes.uint32 else v
        return v.eq(emu.UOp.const(0.0, v.dtype)).where(v, mantissa(v))

    pcode._FUNCS.update(mantissa=mantissa_or_zero, frexp_mant=mantissa_or_zero)


def repair_exponent(emu):
    tell(emu, "V_FREXP_EXP_I32_F32", """if ((S0.f32 == 0.0F) || (exponent(S0.f32) == 255)) then
D0.i32 = 0
else
D0.i32 = exponent(S0.f32) - 126
endif""")


def repair_powers(emu):
    from test.mockgpu.amd import pcode
    whole, dtypes, const = pcode._ldexp, emu.dtypes, emu.UOp.const

    def in_steps(v, e):
        if v.dtype not in (dtypes.float32, dtypes.uint32):
            return whole(v, e)
        v = v.bitcast(dtypes.float32) if v.dtype == dtypes.uint32 else v
        e = e.bitcast(dtypes.int32) if e.dtype == dtypes.uint32 else e.cast(dtypes.int32)
        e = e.maximum(const(-378, dtypes.int32)).minimum(const(378, dtypes.int32))
        first = e // const(3, dtypes.int32)
        second = (e - first) // const(2, dtypes.int32)
        for step in (first, second, e - first - second):        # each within what a float's exponent holds
            power = ((step + const(127, dtypes.int32)).cast(dtypes.uint32) << const(23, dtypes.uint32))
            v = v * power.bitcast(dtypes.float32)
        return v

    pcode._FUNCS.update(ldexp=in_steps)
    tell(emu, "V_LDEXP_F32", "D0.f32 = ldexp(S0.f32, S1.i32)")


# ---- CDNA has no halves of registers as operands: v130 is v130, not the upper half of v2 ---------------

class Half(int):
    """16, but to the emulator's question whether an operand may be half a register."""

    def __eq__(self, other):
        return other is self

    __hash__ = int.__hash__


def repair_halves(emu):
    half = Half(16)
    read, modify = emu._Ctx.rsrc_dyn, emu._apply_src_mods

    def widths(kind):
        plain = kind.canonical_op_bits
        get = plain.func if hasattr(plain, "func") else plain.fget
        return property(lambda inst: {k: half if v == 16 else v for k, v in get(inst).items()})

    for name in ("VOP1", "VOP2", "VOPC"):
        kind = getattr(emu.irc, name)
        kind.canonical_op_bits = widths(kind)
    emu._Ctx.rsrc_dyn = lambda self, off, lane, bits=32, *more, **named: \
        read(self, off, lane, 16 if bits is half else bits, *more, **named)
    emu._apply_src_mods = lambda val, bit, absolute, negative, bits=32: \
        modify(val, bit, absolute, negative, 16 if bits is half else bits)


# ---- CDNA's local memory is written from the registers for sums as well ----------------------------------

def repair_sums_to_local(emu):
    plain = emu._INST_HANDLERS[emu.irc.DS]

    class FromSums(emu._Ctx):
        __slots__ = ()

        def rvgpr_dyn(self, reg, lane, valid=None):
            if reg is self.inst_field(emu.irc.DS.addr):
                return super().rvgpr_dyn(reg, lane, valid)
            return self.raccvgpr_dyn(reg, lane, valid)

    def handler(inst, ctx):
        if emu._iattr(inst, "acc"):
            ctx.__class__ = FromSums
        return plain(inst, ctx)

    emu._INST_HANDLERS[emu.irc.DS] = handler


# ---- local memory's loads of 16 bits into a half of a register leave the other half as it is ----------------

def repair_loads_of_halves(emu):
    class Halves(emu._Ctx):
        __slots__ = ()
        low = True

        def wvgpr_dyn(self, reg, lane, val, *more, **named):
            old, half = self.rvgpr_dyn(reg, lane), val.cast(emu.dtypes.uint32) & emu._c(0xffff)
            both = (old & emu._c(0xffff0000)) | half if self.low else (old & emu._c(0xffff)) | (half << emu._c(16))
            return super().wvgpr_dyn(reg, lane, both, *more, **named)

    class UpperHalves(Halves):
        __slots__ = ()
        low = False

    def halved(plain):
        def handler(inst, ctx):
            name = emu._op_name(inst)
            if "_D16" in name and name.startswith(("DS_LOAD", "DS_READ")):
                ctx.__class__ = UpperHalves if name.endswith("_HI") else Halves
            return plain(inst, ctx)
        return handler

    for arch in (emu.ir3, emu.ir4, emu.irc):
        emu._INST_HANDLERS[arch.DS] = halved(emu._INST_HANDLERS[arch.DS])


# ---- gfx90a's private memory: buffer instructions of 1 to 16 bytes, a lane's words beside the next one's -------------

def repair_private(emu):
    kind, c, wide = emu.irc.MUBUF, emu._c, emu.dtypes.uint64

    def handler(inst, ctx):
        name = emu._op_name(inst)
        form = re.fullmatch(r"BUFFER_(LOAD|STORE)_(?:([US]?)(BYTE|SHORT)|DWORD(?:X([234]))?)(_D16)?(_HI)?", name)
        if not form or emu._iattr(inst, "lds"):
            raise ValueError(f"{name} is not repaired")
        store, signed, part, times, half, upper = form[1] == "STORE", form[2] == "S", form[3], form[4], form[5], form[6]
        size = {"BYTE": 8, "SHORT": 16, None: 32}[part]
        field = lambda name: ctx.inst_field(getattr(kind, name))
        acc = emu._iattr(inst, "acc")
        read, write = (ctx.raccvgpr_dyn, ctx.waccvgpr_dyn) if acc else (ctx.rvgpr_dyn, ctx.wvgpr_dyn)
        buffer, s, data = field("srsrc") * c(4), field("soffset"), field("vdata")
        address, more = field("vaddr"), field("offset")
        by_register, exec_mask, lane = field("offen").ne(c(0)), ctx.rexec(), ctx.range()
        active = emu._lane_active(exec_mask, lane)
        begin = emu._u64(ctx.rsgpr_dyn(buffer), ctx.rsgpr_dyn(buffer + c(1)) & c(0xffff))
        begin = begin + (s < c(128)).where(ctx.rsgpr_dyn(s), s - c(128)).cast(wide)
        effects = []
        for i in range(int(times or 1)):
            at = more + by_register.where(ctx.rvgpr_dyn(address, lane), c(0)) + c(4 * i)
            place = begin + ((at >> c(2)) * c(4 * 64) + (at & c(3))).cast(wide)
            place = place + lane.cast(wide) * emu.UOp.const(4, wide)
            old = read(data + c(i), lane)
            if store:
                value = old >> c(16) if upper else old
                effects += emu._mem_store(ctx.vmem, place, value, active, 64, size)
                continue
            word = (place >> emu.UOp.const(2, wide)).cast(emu.dtypes.int64)
            value = ctx.vmem.index(word.valid(active)).load() >> ((at & c(3)) * c(8))
            if size < 32:
                value = value & c((1 << size) - 1)
                if signed:
                    value = (value ^ c(1 << size - 1)) - c(1 << size - 1)
            if half:
                value = (old & c(0xffff)) | (value << c(16)) if upper else (old & c(0xffff0000)) | (value & c(0xffff))
            effects.append(write(data + c(i), lane, value, exec_mask))
        return emu.UOp.sink(emu.UOp.group(*effects).end(lane), *ctx.inc_pc())

    emu._INST_HANDLERS[kind] = handler


# ---- the table ------------------------------------------------------------------------------------------

CDNA, ALL = ("gfx90a", "gfx942"), tuple(ARCH)

# name, chips, instructions, vector registers before, v0 after, repair
REPAIRS = [
    ("mantissa-of-zero", ALL, "v_frexp_mant_f32_e32 v0, v1", {1: 0}, 0, repair_mantissa),
    ("exponent-of-zero", ALL, "v_frexp_exp_i32_f32_e32 v0, v1", {1: 0}, 0, repair_exponent),
    ("large-powers", ALL, "v_ldexp_f32 v0, v1, v2", {1: bits(2.0 ** -100), 2: 200}, bits(2.0 ** 100), repair_powers),
    ("halves-of-registers", CDNA, "v_cvt_f32_f16_e32 v0, v130", {130: 0x3c00, 2: 0}, bits(1.0), repair_halves),
    ("sums-to-local-memory", CDNA, "ds_write_b32 v1, a2\nds_read_b32 v0, v1", {1: 64, 2: 5, 258: 7}, 7, repair_sums_to_local),
    ("loads-of-halves", ALL, "ds_write_b32 v1, v2\nds_read_u16_d16_hi v0, v1", {0: 0x1111aaaa, 1: 64, 2: 0xcafe1234}, 0x1234aaaa,
     repair_loads_of_halves),
    ("private-by-buffers", ("gfx90a",), "v_mbcnt_lo_u32_b32 v1, -1, 0\nv_mbcnt_hi_u32_b32 v1, -1, v1\n"
     "v_add_u32_e32 v1, 5, v1\nbuffer_store_short v1, v2, s[0:3], 0 offen offset:2\n"
     "buffer_load_dword v0, off, s[0:3], 0 offset:4", {2: 4}, 5 << 16, repair_private),
]


def forget(emu):
    """Instructions translated before a repair."""
    emu._get_runner.cache_clear()
    emu._canonical_runner_cache.clear()


def apply(emu, names):
    for name, _, _, _, _, repair in REPAIRS:
        if name in names:
            repair(emu)
    forget(emu)


def wrong(emu, chip):
    """The names of the faults that are there."""
    rows = [r for r in REPAIRS if chip in r[1]]
    words = assemble(chip, [r[2] for r in rows])
    found = []
    for row, code in zip(rows, words):
        try:
            got = Wave(emu, chip, row[3]).run(code)
        except Exception as e:          # an instruction that the emulator does not know is wrong as well
            got = f"{type(e).__name__}: {e}"
        if got != row[4]:
            found.append(row[0])
    return found
