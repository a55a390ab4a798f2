#!/usr/bin/env python3
"""tests/data/hf_check.py - our files against Hugging Face's own readers.

    hf_check.py TOKENIZER_DIR TEXT IDS.u32 [VOCAB_SIZE]      ids of TEXT, little-endian u32
    hf_check.py FILE.safetensors

Exit 0 they agree, 1 they do not, 77 a package is missing. With VOCAB_SIZE the trainer of
`tokenizers` also learns from TEXT, and its merges must be those of TOKENIZER_DIR."""
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


def check_tokenizer(folder, text_path, ids_path, size=None):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        skip("tokenizers")
    theirs = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    data = open(text_path, "rb").read()
    want = theirs.encode(data.decode("utf-8"), add_special_tokens=False).ids
    raw = open(ids_path, "rb").read()
    got = [int.from_bytes(raw[i:i + 4], "little") for i in range(0, len(raw), 4)]
    print(f"ids: {len(want)} theirs, {len(got)} ours, {'equal' if want == got else 'DIFFERENT'}")
    back = theirs.decode(got, skip_special_tokens=False).encode("utf-8") == data
    print(f"text decoded from our ids: {'equal' if back else 'DIFFERENT'}")
    merged = check_merges(folder, text_path, int(size)) if size else True
    return want == got and back and merged


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
    elif len(sys.argv) in (4, 5):
        good = check_tokenizer(*sys.argv[1:])
    else:
        sys.exit(__doc__)
    sys.exit(0 if good else 1)
