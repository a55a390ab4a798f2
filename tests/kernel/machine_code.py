# SPDX-License-Identifier: MIT
"""machine_code.py - what a vendor's compiler made of kernels: registers, occupancy, and what the inner loop is of.

    machine_code.py VENDOR CHIP WHAT FILE...        a line a kernel with a loop that multiplies, by tabs: see FIELDS

    amd     the assembly of clang -S
    nvidia  what ptxas -v said, then what nvdisasm -c made of its machine code
    xmx     a folder with the assembly (*.asm) and *.zeinfo of ocloc

The inner loop is found in the graph of basic blocks, and of its ways round one of those that multiply most, of these
of those that load most by 16 bytes from global memory and store most to local memory, and of these the shortest: what
a whole block takes that nothing is masked of, while it fetches the next one, and all lanes agree.

       ┌──> header ──> fetch ──> [ masks ] ──> multiply ──┐        [ ] not counted, if it can be passed by
       └──────────────────────────────────────────────────┘

Of several loops that with most multiplications an instruction counts. An instruction is what is issued as one: of a
pair of RDNA 3's two parts.

Waves at once come of the vendors' limits:
  AMD     LLVM's own reckoning ("Occupancy"), of registers and local memory, a SIMD
  NVIDIA  64 Ki registers an SM, given to warps by 256; shared memory and warps an SM by CUDA's Programming Guide,
          Compute Capabilities; 1 KiB of shared memory a block is the system's
  Intel   threads a vector engine: 8 with 128 registers, 4 with 256; vector engines of an Xe core, its local memory, and
          the sizes in which a group gets of that by Intel's GPU Occupancy Calculator (oneAPI-samples), which has no
          Battlemage: that one's by Intel's driver (compute-runtime: shared/source/xe2_hpg_core/hw_info_bmg.cpp, and
          of release 20.1 what a group's local memory is rounded up to and an Xe core's at most)
"""
import glob
import math
import re
import sys

FIELDS = ("chip", "program", "kernel", "registers", "local bytes", "spilled", "waves", "most", "loop", "matrix", "fma",
          "local loads", "local stores", "global loads", "products")

# chip -> most warps an SM, KiB of shared memory
SM = {"sm_80": (64, 164), "sm_90": (64, 228), "sm_120": (48, 100)}
# chip -> vector engines an Xe core, KiB of its local memory, and those that a group can have of it
XE = {"dg2": (16, 128, (0, 1, 2, 4, 8, 16, 32, 64)), "pvc": (8, 128, (0, 1, 2, 4, 8, 16, 32, 48, 64, 96, 128)),
      "bmg": (8, 160, (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128))}
# of loads, those of 16 bytes a lane
WIDE = re.compile(r"b128|dwordx4|\.128|d32x4\b|d32x64t")
# kernels that are made of multiplications; a file may have others beside them
PRODUCTS = ("gemm_matrix", "attention_matrix", "Xgemm")
# waves a SIMD
SIMD = {"gfx90a": 8, "gfx942": 8, "gfx1100": 16, "gfx1201": 16}


class Instruction:
    """products: multiplications with an addition, of a wave; kind: of load and store; to: labels it may go on at;
    falls: whether the next one may follow"""

    def __init__(self, text):
        self.text, self.kind, self.matrix, self.products, self.to, self.falls = text, "", 0, 0, [], True


def listing(body, label, code, instruction):
    """-> labels and instructions of a text, whose lines match one pattern or the other; its group is what counts"""
    items = []
    for line in body.split("\n"):
        named, coded = re.match(label, line), re.match(code, line)
        if named:
            items.append(named[1])
        elif coded:
            items.append(instruction(coded[1].strip()))
    return items


def kind_of(name, local_load, local_store, global_load):
    """The kind of an instruction of that name, by what the names of each begin with"""
    for kind, pattern in ("local load", local_load), ("local store", local_store), ("global load", global_load):
        if re.match(pattern, name):
            return kind
    return ""


# ---- AMD --------------------------------------------------------------------------------------------------

def read_amd(text, lanes):
    """-> kernels: name -> (list of labels and instructions, figures)"""
    kernels = {}
    for name, body, figures in re.findall(r"^(\w+): +; @\1\n(.*?)^\.Lfunc_end(.*?)(?=; -- Begin function|\Z)", text,
                                          re.S | re.M):
        spilled = re.search(rf"^ +\.name: +{name}\n.*?\.vgpr_spill_count: +(\d+)", text, re.S | re.M)
        if not spilled:                     # a function that was compiled into a kernel
            continue
        items = listing(body, r"(\.L\w+): *(?:;|$)", r"\s*([a-z]\w[^;]*)", lambda line: amd_instruction(line, lanes))
        number = lambda key: int(re.search(rf"^; {key}: (\d+)", figures, re.M)[1])
        agprs = number("NumAgprs") if "NumAgprs" in figures else 0
        kernels[name] = items, dict(
            registers=f"{number('NumVgprs')} v {number('NumSgprs')} s" + (f" {agprs} a" if agprs else ""),
            local=number("LDSByteSize"), spilled=int(spilled[1]), waves=number("Occupancy"))
    return kernels


def amd_instruction(line, lanes):
    i = Instruction(line)
    name = line.split()[0]
    matrix = re.match(r"v_(?:wmma|mfma)_\w*?_(\d+)x(\d+)x(\d+)", name)
    if matrix:
        i.matrix, i.products = 1, int(matrix[1]) * int(matrix[2]) * int(matrix[3])
    for part in re.findall(r"\bv_(?:dual_)?(pk_)?(?:fma|fmac|fmaak|fmamk|mad|mac)(?:ak|mk)?_f(?:32|16)", line):
        i.products += lanes * (2 if part else 1)
    i.kind = kind_of(name, r"ds_(load|read)", r"ds_(store|write)", r"(global|flat|buffer)_load")
    if name == "s_branch" or name.startswith("s_cbranch"):
        i.to, i.falls = [line.split()[1]], name != "s_branch"
    elif name == "s_endpgm":
        i.falls = False
    return i


# ---- NVIDIA -----------------------------------------------------------------------------------------------

def read_nvidia(said, text, chip):
    kernels = {}
    warps, shared = SM[chip]
    for name, body in re.findall(r"^\.text\.(\w+):\n(.*?)(?=^\s*\.section|\Z)", text, re.S | re.M):
        about = re.search(rf"Compiling entry function '{name}'.*?(\d+) bytes spill stores.*?Used (\d+) registers(.*?)\n",
                          said, re.S)
        group = re.search(rf"\.entry {name}\([^{{]*?\.(?:reqntid|maxntid) ([\d, ]+)", said, re.S)
        items = listing(body, r"(\.L_x_\w+):", r"\s+/\*[0-9a-f]+\*/\s+(.*?);", nvidia_instruction)
        local = int((re.search(r"(\d+) bytes smem", about[3]) or [0, 0])[1])
        block = (math.prod(int(n) for n in group[1].split(",")) + 31) // 32 if group else 4
        by_registers = 65536 // ((int(about[2]) + 7) // 8 * 8 * 32)
        blocks = min(by_registers // block, shared * 1024 // (local + 1024), warps // block)
        kernels[name] = items, dict(registers=about[2], local=local, spilled=int(about[1]), waves=blocks * block)
    return kernels


def nvidia_instruction(line):
    i = Instruction(line)
    guard = re.match(r"(@\S+)\s+", line)
    name = line[guard.end() if guard else 0:].split()[0]
    matrix = re.match(r"HMMA\.(\d+)", name)
    if matrix:
        i.matrix, i.products = 1, {"16816": 2048, "1688": 1024, "884": 256}[matrix[1]]
    elif name.startswith("FFMA"):
        i.products = 64 if name.startswith("FFMA2") else 32
    elif name.startswith("HFMA2") and "RZ, RZ" not in line:
        i.products = 64
    i.kind = kind_of(name, r"LDS", r"STS", r"LDG|LD\.")
    if name.startswith("BRA"):
        i.to = re.findall(r"\((\.L_x_\w+)\)", line)
        i.falls = bool(guard) or bool(re.search(r"BRA\S* !?U?P\d", line))
    elif name.startswith(("EXIT", "RET")):
        i.falls = bool(guard)
    return i


# ---- Intel ------------------------------------------------------------------------------------------------

def read_xmx(folder, chip):
    kernels = {}
    about = "".join(open(f).read() for f in glob.glob(folder + "/*.zeinfo"))
    for path in sorted(glob.glob(folder + "/*.asm")):
        with open(path) as f:
            text = f.read()
        name = re.match(r"//\.kernel (\w+)", text)[1]
        entry = re.search(rf"- name: +{name}\n(.*?)(?=\n  - name|\Z)", about, re.S)[1]
        number = lambda key, least: int((re.search(rf"\b{key}: +\[? ?(\d+)", entry) or [0, least])[1])
        items = listing(text, r"(\w+): *(?://|$)", r"(\s*(?:\([^)]*\))?\s*[a-z].*?)(?://|$)", xmx_instruction)
        registers, local, lanes = number("grf_count", 128), number("slm_size", 0), number("simd_size", 16)
        sizes = re.search(r"required_work_group_size: +\[ (\d+), (\d+), (\d+)", entry)
        group = int(sizes[1]) * int(sizes[2]) * int(sizes[3]) if sizes else lanes
        threads = (group + lanes - 1) // lanes
        engines, core, sizes = XE[chip]
        room = (4 if registers > 128 else 8) * engines
        given = min(size for size in sizes if size * 1024 >= local)
        groups = min(room // threads, core // given if given else room)
        spilled = number("spill_size", 0)
        kernels[name] = items, dict(registers=str(registers), local=local, spilled=spilled,
                                    waves=round(groups * threads / engines, 1))
    return kernels


def xmx_instruction(line):
    i = Instruction(line)
    found = re.match(r"(?:\((W)?[^)]*\)\s*)?([\w.]+)(?: +\((\d+)\|)?(.*)", line)
    name, lanes = found[2], int(found[3] or 1)
    guarded = bool(re.match(r"\((W&)?~?f", line))
    matrix = re.match(r"dpas\.8x(\d)", name)
    if matrix:
        i.matrix, i.products = 1, 16 * int(matrix[1]) * lanes
    elif name.startswith("mad") and re.search(r":h?f\b", found[4]):
        i.products = lanes
    i.kind = kind_of(name, r"load\.slm", r"store\.slm", r"load(_block2d)?\.ugm")
    if name == "jmpi":
        i.to, i.falls = [found[4].split()[0]], guarded
    elif name.startswith(("goto", "while")):
        # The first place is where those wait that did not go, for all that did to be there.
        i.to, i.falls = re.findall(r"\b(?:_\w+|L\d+)\b", found[4])[-1:], guarded
    return i


# ---- the inner loop ---------------------------------------------------------------------------------------

def blocks_of(items):
    """-> blocks: lists of instructions, and where each goes on"""
    blocks, names, current = [[]], {}, 0
    for x in items:
        if isinstance(x, str):
            if blocks[-1]:
                blocks.append([])
            names[x] = len(blocks) - 1
        else:
            blocks[-1].append(x)
            if x.to or not x.falls:
                blocks.append([])
    nexts = []
    for n, block in enumerate(blocks):
        last = block[-1] if block else None
        after = [names[t] for t in last.to if t in names] if last else []
        if (not last or last.falls) and n + 1 < len(blocks):
            after.append(n + 1)
        nexts.append(sorted(set(after)))
    return blocks, nexts


def components(nodes, nexts):
    """Strongly connected ones with a cycle, by Tarjan's algorithm."""
    sys.setrecursionlimit(100000)
    number, low, stack, on, found = {}, {}, [], set(), []

    def visit(v):
        number[v] = low[v] = len(number)
        stack.append(v)
        on.add(v)
        for w in nexts[v]:
            if w not in nodes:
                continue
            if w not in number:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in on:
                low[v] = min(low[v], number[w])
        if low[v] == number[v]:
            part = set()
            while True:
                w = stack.pop()
                on.discard(w)
                part.add(w)
                if w == v:
                    break
            if len(part) > 1 or v in nexts[v]:
                found.append(part)

    for v in sorted(nodes):
        if v not in number:
            visit(v)
    return found


def innermost(nodes, nexts, weight):
    """-> (header, nodes) of each loop that multiplies and has none in it that does"""
    loops = []
    for part in components(nodes, nexts):
        if not sum(weight[n] for n in part):
            continue
        entries = [n for n in sorted(part) if any(n in nexts[m] for m in nodes - part)] or [min(part)]
        inside = {n: [m for m in nexts[n] if m != entries[0]] for n in nexts}
        inner = innermost(part, inside, weight)
        loops += inner or [(entries[0], part)]
    return loops


def way_round(header, part, blocks, nexts, weight):
    """The shortest way that multiplies and fetches most -> its blocks"""
    best, seen = {}, set()
    moving = lambda i: i.kind == "local store" or i.kind == "global load" and bool(WIDE.search(i.text))
    moves = [sum(map(moving, b)) for b in blocks]

    def visit(n):
        if n in best:
            return best[n]
        seen.add(n)
        choices = []
        for m in nexts[n]:
            if m == header:
                choices.append((0, 0, 0, []))
            elif m in part and (m in best or m not in seen):
                way = visit(m)
                if way:
                    choices.append(way)
        found = None
        if choices:
            products, moved, length, path = max(choices, key=lambda c: c[:3])
            found = products + weight[n], moved + moves[n], length - len(blocks[n]), [n] + path
        best[n] = found
        return found

    way = visit(header)
    return way[3] if way else sorted(part)


def inner_loop(items):
    """-> its instructions, or None"""
    blocks, nexts = blocks_of(items)
    has_matrix = any(i.matrix for b in blocks for i in b)
    weight = [sum(i.products for i in b if i.matrix or not has_matrix) for b in blocks]
    ways = []
    for header, part in innermost(set(range(len(blocks))), dict(enumerate(nexts)), weight):
        way = [i for n in way_round(header, part, blocks, nexts, weight) for i in blocks[n]]
        ways.append((sum(i.products for i in way) / len(way), way))
    return max(ways, key=lambda w: w[0])[1] if ways else None


def main(vendor, chip, program, *files):
    if vendor == "xmx":
        kernels, most = read_xmx(files[0], chip), 8
    else:
        texts = []
        for path in files:
            with open(path) as f:
                texts.append(f.read())
        if vendor == "amd":
            kernels, most = read_amd(texts[0], 64 if chip.startswith("gfx9") else 32), SIMD[chip]
        else:
            kernels, most = read_nvidia(texts[0], texts[1], chip), SM[chip][0]
    for name, (items, about) in kernels.items():
        loop = inner_loop(items)
        if not loop and name.startswith(PRODUCTS):
            print(f"FAILED {chip} {name} {program}: no loop of it multiplies")
        if not loop:
            continue
        count = lambda kind: sum(i.kind == kind for i in loop)
        matrix = sum(i.matrix for i in loop)
        print(chip, program, name, *(about[key] for key in ("registers", "local", "spilled", "waves")), most, len(loop),
              matrix, sum(i.products > 0 for i in loop) - matrix, count("local load"), count("local store"),
              count("global load"), round(sum(i.products for i in loop) / len(loop), 1), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
