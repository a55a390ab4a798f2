#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/data/hf_check.py - our files against Hugging Face's own readers.

    hf_check.py TOKENS TEXT [SIZE]     TOKENS is what `geartrain tokenize TEXT -o TOKENS` made
    hf_check.py FILE.safetensors

Exit 0 they agree, 1 they do not, 77 a package is missing. With SIZE the trainer of
`tokenizers` also learns from TEXT, and its merges must be those of a `bpe:SIZE`."""
import array
import glob
import json
import os
import sys


def skip(package):
    print(f"skipped: no Python package '{package}'")
    sys.exit(77)


def check_merges(folder, text_path, size):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = open(text_path, encoding="utf-8", newline="").read()
    theirs.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=size - 1, min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    a = json.loads(theirs.to_str())["model"]["merges"]
    b = json.load(open(os.path.join(folder, "tokenizer.json"), encoding="utf-8"))["model"]["merges"]
    a = [m if isinstance(m, str) else " ".join(m) for m in a]
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    print(f"merges: {len(a)} theirs, {len(b)} ours, the first {same} agree")
    return a == b


def read_split(folder, name):
    """All ids of a split; the header says their width (host/data/tokens.h)."""
    ids = []
    for path in sorted(glob.glob(os.path.join(folder, name + "-*.bin"))):
        data = open(path, "rb").read()
        magic = int.from_bytes(data[:4], "little")
        ids.extend(array.array({20240520: "H", 20240801: "I"}[magic], data[1024:]))
    return ids


def check_tokens(folder, text_path, size=None):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        skip("tokenizers")
    own = os.path.join(folder, "tokenizer")
    theirs = Tokenizer.from_file(os.path.join(own, "tokenizer.json"))
    text = open(text_path, encoding="utf-8", newline="").read()
    split = int((1 - 0.1) * len(text))
    good = True
    for name, part in ("train", text[:split]), ("val", text[split:]):
        want = theirs.encode(part, add_special_tokens=False).ids
        got = read_split(folder, name)
        back = theirs.decode(got, skip_special_tokens=False) == part
        print(f"{name}: {len(want)} ids theirs, {len(got)} ours, "
              f"{'equal' if want == got else 'DIFFERENT'}; "
              f"decoded {'equal' if back else 'DIFFERENT'}")
        good = good and want == got and back
    return check_merges(own, text_path, int(size)) and good if size else good


def check_safetensors(path):
    try:
        from safetensors import safe_open
        import numpy  # noqa: F401
    except ImportError as missing:
        skip(missing.name)
    with safe_open(path, framework="np") as f:
        names = list(f.keys())
        metadata = f.metadata()
        sizes = {name: f.get_slice(name).get_shape() for name in names}
    print(f"{len(names)} tensors, metadata {metadata}, {sizes}")
    return bool(names)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        good = check_safetensors(sys.argv[1])
    elif len(sys.argv) in (3, 4):
        good = check_tokens(*sys.argv[1:])
    else:
        sys.exit(__doc__)
    sys.exit(0 if good else 1)
