# SPDX-License-Identifier: MIT
"""code_object.py - what clang and lld made for a GPU: an ELF file, read into memory that can be run from.

A kernel NAME has a descriptor, the 64 bytes at symbol NAME.kd: where its code begins, how much memory a
group and a work-item take, which registers are filled before it starts. Its arguments are in the
notes, as MessagePack. (LLVM's "User Guide for AMDGPU Backend" describes both, code object version 5.)
"""
import ctypes
import mmap
import struct

NOTE_METADATA = 32


def unpack(data, at=0):
    """MessagePack, as far as the notes use it -> (value, where the next one begins)"""
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag >= 0xe0:
        return tag - 256, at
    if tag == 0xc0:
        return None, at
    if tag in (0xc2, 0xc3):
        return tag == 0xc3, at
    numbers = {0xcc: ">B", 0xcd: ">H", 0xce: ">I", 0xcf: ">Q", 0xd0: ">b", 0xd1: ">h", 0xd2: ">i", 0xd3: ">q"}
    if tag in numbers:
        return struct.unpack_from(numbers[tag], data, at)[0], at + struct.calcsize(numbers[tag])
    lengths = {0xd9: ">B", 0xda: ">H", 0xdb: ">I", 0xdc: ">H", 0xdd: ">I", 0xde: ">H", 0xdf: ">I"}
    if tag in lengths:
        count = struct.unpack_from(lengths[tag], data, at)[0]
        at += struct.calcsize(lengths[tag])
    else:
        count = tag & (31 if 0xa0 <= tag < 0xc0 else 15)
    if 0xa0 <= tag < 0xc0 or 0xd9 <= tag <= 0xdb:
        return data[at:at + count].decode(), at + count
    if 0x90 <= tag < 0xa0 or tag in (0xdc, 0xdd):
        items = []
        for _ in range(count):
            item, at = unpack(data, at)
            items.append(item)
        return items, at
    if 0x80 <= tag < 0x90 or tag in (0xde, 0xdf):
        table = {}
        for _ in range(count):
            key, at = unpack(data, at)
            table[key], at = unpack(data, at)
        return table, at
    raise ValueError(f"MessagePack tag {tag:#x} is not read here")


class CodeObject:
    """metadata: of each kernel by name, as in the notes; descriptor(): the 64 bytes, by field."""

    def __init__(self, data):
        if data[:5] != b"\x7fELF\x02":
            raise ValueError("no 64-bit ELF file")
        segments_at, sections_at = struct.unpack_from("<QQ", data, 32)
        segment_size, segments, section_size, sections = struct.unpack_from("<HHHH", data, 54)
        headers = [struct.unpack_from("<IIQQQQQQ", data, segments_at + i * segment_size) for i in range(segments)]
        self.size = max(h[3] + h[6] for h in headers if h[0] == 1)
        self.memory = mmap.mmap(-1, (self.size + 64 + 4095) // 4096 * 4096)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.metadata, self.descriptors, self.code = {}, {}, (0, 0)
        for kind, _, offset, address, _, in_file, _, _ in headers:
            if kind == 1:
                self.memory[address:address + in_file] = data[offset:offset + in_file]
            elif kind == 4:
                self.read_note(data, offset)
        table = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * section_size) for i in range(sections)]
        for _, kind, flags, address, offset, size, link, _, _, _ in table:
            if kind in (4, 9) and size:
                raise ValueError("code with relocations is not run here")
            if kind == 1 and flags & 4:
                self.code = (self.base + address, size)
            if kind == 11:
                self.read_symbols(data, offset, size, table[link][4])

    def read_note(self, data, at):
        name, size, kind = struct.unpack_from("<III", data, at)
        if kind == NOTE_METADATA:
            at += 12 + (name + 3) // 4 * 4
            for kernel in unpack(data[at:at + size])[0]["amdhsa.kernels"]:
                self.metadata[kernel[".name"]] = kernel

    def read_symbols(self, data, at, size, names):
        for i in range(0, size, 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at + i)
            text = data[names + name:data.index(b"\0", names + name)].decode()
            if text.endswith(".kd"):
                self.descriptors[text[:-3]] = value

    def descriptor(self, kernel):
        at = self.descriptors[kernel]
        group, private, arguments = struct.unpack_from("<III", self.memory, at)
        entry, = struct.unpack_from("<q", self.memory, at + 16)
        _, resources, properties = struct.unpack_from("<IIH", self.memory, at + 48)
        return dict(group=group, private=private, arguments=arguments, address=self.base + at,
                    entry=self.base + at + entry, resources=resources, properties=properties)
