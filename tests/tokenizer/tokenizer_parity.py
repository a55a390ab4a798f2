#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/tokenizer/tokenizer_parity.py - ids of every kind of tokenizer against Hugging Face's and SentencePiece's.

    tokenizer_parity.py ENCODE_TEXTS FOLDER SHARED

Trains tiny tokenizers of every kind with the trainers of those packages, writes them into FOLDER, and compares
the ids, and what the ids decode to, on hard strings and random Unicode, whole and in parts. SHARED is the folder
of shared data, or one that is not there. Prints "ok WHAT" or "FAILED WHAT" lines; exit 0 all agree, 1 they do
not, 77 a package is missing."""
import json
import os
import random
import struct
import subprocess
import sys

try:
    import tokenizers
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                            processors, trainers)
except ImportError as missing:
    print(f"skipped: no Python package '{missing.name}'")
    sys.exit(77)

program, folder, shared = sys.argv[1:4]
os.makedirs(folder, exist_ok=True)
failed = 0

HARD = ["", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\n \n", " a", "a ", " a ", "  a  b  ", "a\nb", "a \n b", "a\n\n\nb",
        "Hello World", "hello, world!", "Hello,  World ! (this)  is 'it'", "I'm we'll they'd DON'T it's'",
        "1", "12", "123", "1234567", "3.14159 10,000", "\u0967\u0968\u0969", "\u00bd \u00b2", "caf\u00e9 na\u00efve \u00c9COLE",
        "cafe\u0301 E\u0301cole", "\u00e5ngstr\u00f6m \u212b", "\ufb01n \ufb03 \uff21\uff22 \u3392 \u2460", "\u0130stanbul I\u0131",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd",
        "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea", "a\u00a0b\u3000c\u2009d\u200be\u2028f",
        "\u180e \u0085 x\u0085y", "x\ufeffy\ufffdz", "\u0001\u007f\u009f ctrl", "foo_bar-baz/qux.py", "===== ---- ... !!!",
        "\u2581already\u2581marked \u2581 x", "<s>hello</s> <unk>", "a<|endoftext|> b <|endoftext|>", "[CLS] x [SEP][MASK] y",
        "a   <mask>   b <mask>c", "x <mid> y<mid>z mid<mid>", "AddedWord addedword xAddedWordx AddedWord", "\u017f 's '\u017f 'S",
        "if x:\n    return x\n\n\ndef f():\n\treturn 1\n", "``quoted'' text", "e\u0301\u0323 o\u0308\u0304", "\u0e44\u0e17\u0e22 \u0e20\u0e32\u0e29\u0e32",
        "a" * 120, ("b" * 101) + " c", "x" * 40 + "\n" + "y" * 60, "1st 2nd 3rd A1B2", "\u093f\u0928\u094d\u0926\u0940 \u0939\u093f\u0928\u094d\u0926\u0940"]

WORDS = ("the of and to in is was he for it with as his on be at by had not are but from or have an they which one you were "
         "all her she there would their we him been has when who will no more if out so up said what its about than into them "
         "can only other time new some could these two may first then do any like my now over such our man me even most made "
         "after also did many off before must well back through years where much your way down should because long each just "
         "state people those too mr how little good world make very year still see work life own men day get here old between "
         "Hello World cafe naive tokenization unbelievable internationalization running runner 1234 2024 10 7 3.14").split()
TEXTS = None


def make_texts():
    r = random.Random(7)
    texts = list(HARD)
    pools = [range(32, 127), range(0xa0, 0x250), range(0x300, 0x340), range(0x391, 0x3ff), range(0x400, 0x460),
             range(0x5d0, 0x5eb), range(0x620, 0x650), range(0x905, 0x95f), range(0x2000, 0x2070), range(0x3000, 0x3100),
             range(0x4e00, 0x4f00), range(0xac00, 0xad00), range(0x1f600, 0x1f640), [32, 32, 10, 9, 13, 0x2581]]
    for _ in range(150):
        parts = []
        for _ in range(r.randint(1, 25)):
            if r.random() < .5:
                parts.append(r.choice(WORDS))
                parts.append(r.choice([" ", " ", " ", "  ", "\n", ", ", "", ". "]))
            else:
                parts.append("".join(chr(r.choice(r.choice(pools))) for _ in range(r.randint(1, 5))))
        text = "".join(parts)
        # Characters that were assigned after the Unicode versions of these libraries are another matter.
        texts.append("".join(c for c in text if __import__("unicodedata").category(c) != "Cn"))
    path = os.path.join(shared, "reference/token_vectors/ggml-vocab-gpt-2.gguf.inp")
    if os.path.exists(path):
        texts += open(path, encoding="utf-8", newline="").read().split("\n__ggml_vocab_test__\n")
    return texts


def corpus():
    r = random.Random(3)
    for _ in range(400):
        yield " ".join(r.choice(WORDS) for _ in range(20)) + r.choice([".", "!", "?", ", etc."])
    for text in HARD:
        yield text


def ours(path, texts, chunk):
    data = os.path.join(folder, "texts.bin")
    with open(data, "wb") as f:
        for t in texts:
            b = t if isinstance(t, bytes) else t.encode()
            f.write(struct.pack("<I", len(b)) + b)
    done = subprocess.run([program, path, data, str(chunk), os.path.join(folder, "saved")], capture_output=True)
    if done.returncode:
        return "error: " + done.stderr.decode()
    lines = done.stdout.decode().split("\n")[:-1]
    return [(lines[i] if lines[i].startswith("error") else [int(x) for x in lines[i].split()], bytes.fromhex(lines[i + 1]))
            for i in range(0, len(lines), 2)]


def report(what, wrong, texts, shown):
    global failed
    if wrong:
        failed += 1
        print(f"FAILED {what}: {len(wrong)} of {len(texts)} texts differ")
        for i, want, got in wrong[:shown]:
            print(f"   {texts[i]!r}\n     want {want}\n     got  {got}")
    else:
        print(f"ok {what}: {len(texts)} texts")


def compare(what, path, encode, decode=None, chunks=(0, 7, 64), texts=None, shown=3):
    texts = texts or TEXTS
    want = []
    for t in texts:
        try:
            want.append(encode(t))
        except Exception as e:      # a text that the other side cannot encode
            want.append(e)
    for chunk in chunks:
        got = ours(path, texts, chunk)
        if isinstance(got, str):
            report(f"{what}, parts of {chunk}", [(0, None, got)], texts, 1)
            return
        wrong = [(i, w, g[0]) for i, (w, g) in enumerate(zip(want, got)) if w != g[0]
                 and not (isinstance(w, Exception) and isinstance(g[0], str))]
        report(f"{what}, parts of {chunk}" if chunk else what, wrong, texts, shown)
        if wrong:
            return
        if decode and not chunk:
            wrong = [(i, decode(w), g[1].decode("utf-8", "replace")) for i, (w, g) in enumerate(zip(want, got))
                     if not isinstance(w, Exception) and decode(w) != g[1].decode("utf-8", "replace")]
            report(f"{what}, decoded", wrong, texts, shown)
    saved = Tokenizer.from_file(os.path.join(folder, "saved", "tokenizer.json"))
    wrong = [(i, g[0], saved.encode(texts[i], add_special_tokens=False).ids) for i, g in enumerate(got)
             if not isinstance(g[0], str) and g[0] != saved.encode(texts[i], add_special_tokens=False).ids]
    report(f"{what}, saved and read by tokenizers", wrong, texts, shown)


def hf(what, t, decoded=True, **more):
    path = os.path.join(folder, what.replace(" ", "_") + ".json")
    t.save(path)
    t = Tokenizer.from_file(path)
    compare(what, path, lambda s: t.encode(s, add_special_tokens=False).ids,
            decoded and (lambda ids: t.decode(ids, skip_special_tokens=False)), **more)


def bpe(size=600, alphabet=(), special=("<unk>", "<s>", "</s>"), **model):
    t = Tokenizer(models.BPE(unk_token=model.pop("unk_token", None), **model))
    keys = {k: model[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in model}
    return t, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=list(alphabet),
                                  show_progress=False, **keys)


def byte_level(pre, normalizer=None, added=()):
    t, trainer = bpe(alphabet=pre_tokenizers.ByteLevel.alphabet(), special=["<|endoftext|>"])
    t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainer)
    if added:
        t.add_tokens(list(added))
    return t


B = pre_tokenizers.ByteLevel
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
EXTRA = [AddedToken("<mask>", lstrip=True, special=True, normalized=False), AddedToken("AddedWord", single_word=True),
         AddedToken("<mid>", rstrip=True, normalized=False)]


def split(regex, behavior="isolated", **more):
    return pre_tokenizers.Split(Regex(regex), behavior, **more)


def byte_level_kinds():
    hf("gpt2", byte_level(B(add_prefix_space=False)))
    hf("gpt2 prefix", byte_level(B(add_prefix_space=True)))
    hf("gpt2 added", byte_level(B(add_prefix_space=False), added=EXTRA))
    hf("roberta added", byte_level(B(add_prefix_space=True), added=EXTRA))
    hf("neox", byte_level(B(add_prefix_space=False), normalizers.NFC()))
    runs = [AddedToken(" " * n, normalized=True, special=False) for n in range(24, 1, -1)]
    hf("pythia", byte_level(B(add_prefix_space=False), normalizers.NFC(), added=runs))
    hf("phi", byte_level(B(add_prefix_space=False), added=runs))
    seq = pre_tokenizers.Sequence
    hf("llama3", byte_level(seq([split(LLAMA3), B(add_prefix_space=False, use_regex=False)])))
    hf("qwen2", byte_level(seq([split(QWEN2), B(add_prefix_space=False, use_regex=False)]), normalizers.NFC()))
    hf("gpt4o", byte_level(seq([split(GPT4O), B(add_prefix_space=False, use_regex=False)])))
    hf("cl100k", byte_level(seq([split(CL100K), B(add_prefix_space=False, use_regex=False)])))
    hf("gpt4o nfkc", byte_level(seq([split(GPT4O, "removed", invert=True), B(add_prefix_space=False, use_regex=False)]),
                                normalizers.NFKC()))
    hf("smollm", byte_level(seq([pre_tokenizers.Digits(individual_digits=True), B(add_prefix_space=False)])))
    hf("deepseek", byte_level(seq([split(r"[\r\n]"), split(r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6]+"), split(r"\s?[!-/:-~]+"),
                                   split(r"\s+$"), split(r"[\u4e00-\u9fa5]+"), pre_tokenizers.Digits(True), B(False)])))
    hf("behind", byte_level(seq([split(r"(?<=[a-z])(?=[A-Z])|\s+"), B(add_prefix_space=False, use_regex=False)])))
    for behavior in ("removed", "merged_with_previous", "merged_with_next", "contiguous"):
        hf("split " + behavior, byte_level(seq([split(r"[aeiou ]", behavior), B(add_prefix_space=False, use_regex=False)])))
        hf("split string " + behavior, byte_level(seq([pre_tokenizers.Split(" ", behavior),
                                                       B(add_prefix_space=False, use_regex=False)])))
    hf("punctuation", byte_level(seq([pre_tokenizers.Punctuation("contiguous"), B(add_prefix_space=True)])))


def character_kinds():
    space = "\u2581"
    letters = sorted(set("".join(corpus())))
    fallback = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    prepend = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    out = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])

    def llama(normalizer, pre, special, **model):
        t, trainer = bpe(900, special=special, **model)
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.train_from_iterator((c for c in corpus()), trainer)
        t.pre_tokenizer = pre
        if normalizer:
            t.normalizer = normalizer
        t.decoder = out
        if pre is None:
            d = json.loads(t.to_str())
            d["pre_tokenizer"] = None
            t = Tokenizer.from_str(json.dumps(d))
        return t
    t, trainer = bpe(900, special=fallback, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator((c for c in corpus() if c.isascii()), trainer)
    d = json.loads(t.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    d["decoder"] = json.loads(out.__getstate__()) if hasattr(out, "__getstate__") else None
    for what, normalizer, pre in (("llama2", prepend, None), ("llama2 first", None, pre_tokenizers.Metaspace(space, "first", False)),
                                  ("metaspace always", None, pre_tokenizers.Metaspace(space, "always", True)),
                                  ("metaspace never", None, pre_tokenizers.Metaspace(space, "never", True)),
                                  ("gemma", normalizers.Replace(" ", space), pre_tokenizers.Split(" ", "merged_with_previous"))):
        d["pre_tokenizer"] = None
        t = Tokenizer.from_str(json.dumps(d))
        if normalizer:
            t.normalizer = normalizer
        if pre:
            t.pre_tokenizer = pre
        t.decoder = out
        hf(what, t)
        if what == "llama2 first":
            t.add_tokens(EXTRA)
            hf("llama2 first added", t)
    for fuse in (False, True):
        t, trainer = bpe(700, special=["<unk>"], unk_token="<unk>", fuse_unk=fuse)
        t.pre_tokenizer = pre_tokenizers.Whitespace()
        t.train_from_iterator((c for c in corpus() if c.isascii()), trainer)
        hf(f"bpe unknown {'fused' if fuse else 'alone'}", t)
    t, trainer = bpe(700, special=["<unk>"], unk_token="<unk>", end_of_word_suffix="</w>")
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.BPEDecoder("</w>")
    t.train_from_iterator(corpus(), trainer)
    hf("clip", t)
    t, trainer = bpe(700, special=["<unk>"], unk_token="<unk>", continuing_subword_prefix="##")
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.train_from_iterator(corpus(), trainer)
    hf("bpe prefix", t)


def wordpiece_kinds():
    for what, normalizer in (("uncased", normalizers.BertNormalizer()), ("cased", normalizers.BertNormalizer(lowercase=False)),
                             ("accents", normalizers.BertNormalizer(lowercase=True, strip_accents=False)),
                             ("bare", normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                                            normalizers.Strip()]))):
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer = normalizer
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.decoder = decoders.WordPiece()
        t.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=500, show_progress=False, special_tokens=[
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
        hf("wordpiece " + what, t)
        t.add_tokens(EXTRA)
        hf("wordpiece added " + what, t, decoded=False)     # they lower-case an added token that is decoded


def unigram_kinds():
    for what, normalizer, pre in (
            ("metaspace", None, pre_tokenizers.Metaspace()),
            ("split metaspace", normalizers.NFKC(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
            ("albert", normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                                             normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Nmt(),
                                             normalizers.Replace(Regex(" {2,}"), " ")]), pre_tokenizers.Metaspace()),
            ("whole", None, pre_tokenizers.Metaspace("\u2581", "first", False))):
        t = Tokenizer(models.Unigram())
        if normalizer:
            t.normalizer = normalizer
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.decoder = decoders.Metaspace()
        t.train_from_iterator((c for c in corpus() if c.isascii()), trainers.UnigramTrainer(
            vocab_size=400, show_progress=False, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>"))
        t.pre_tokenizer = pre
        hf("unigram " + what, t)


def long_kinds(texts):
    """Tokenizers of a size that is used, trained on the first text; ids of both."""
    space = "\u2581"
    seq = pre_tokenizers.Sequence

    def trained(t, trainer):
        t.train_from_iterator(texts[0].split("\n")[:1500], trainer)
        return t

    def byte_level_of(pre, normalizer=None):
        t, trainer = bpe(4000, alphabet=B.alphabet(), special=["<|endoftext|>"])
        t.pre_tokenizer = pre
        if normalizer:
            t.normalizer = normalizer
        return trained(t, trainer)
    kinds = {"llama3": byte_level_of(seq([split(LLAMA3), B(add_prefix_space=False, use_regex=False)])),
             "qwen2": byte_level_of(seq([split(QWEN2), B(add_prefix_space=False, use_regex=False)]), normalizers.NFC()),
             "roberta": byte_level_of(B(add_prefix_space=True))}
    t, trainer = bpe(4000, special=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)], unk_token="<unk>",
                     fuse_unk=True, byte_fallback=True)
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    d = json.loads(trained(t, trainer).to_str())
    d["added_tokens"], d["pre_tokenizer"] = d["added_tokens"][:3], None
    kinds["llama2"] = Tokenizer.from_str(json.dumps(d))
    kinds["llama2"].normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    for what, normalizer in (("unigram", None), ("albert", normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(),
                                                                                  normalizers.Lowercase(), normalizers.Nmt()]))):
        t = Tokenizer(models.Unigram())
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        if normalizer:
            t.normalizer = normalizer
        kinds[what] = trained(t, trainers.UnigramTrainer(vocab_size=3000, show_progress=False, unk_token="<unk>",
                                                         special_tokens=["<s>", "</s>", "<unk>"]))
    for what, t in kinds.items():
        hf(what + " on long texts", t, decoded=False, chunks=(0, 70000), texts=texts, shown=0)


def shared_kinds():
    data = os.path.join(shared, "data")
    if not os.path.exists(data):
        print("skipped: no shared data")
        return
    long_texts = [open(os.path.join(data, n), encoding="utf-8", newline="").read()[:LONG]
                  for n in ("wikitext2_valid.txt", "tinyshakespeare.txt")]
    for case in ("uncased", "cased"):
        path = os.path.join(data, f"bert_{case}_vocab.txt")
        vocab = {line.rstrip("\n"): i for i, line in enumerate(open(path, encoding="utf-8"))}
        t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
        t.normalizer = normalizers.BertNormalizer(lowercase=case == "uncased")
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.decoder = decoders.WordPiece()
        t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        encode = lambda s: t.encode(s, add_special_tokens=False).ids
        compare(f"bert {case} vocab.txt", path, encode, lambda ids: t.decode(ids, skip_special_tokens=False))
        compare(f"bert {case} on long texts", path, encode, chunks=(0, 70000), texts=long_texts, shown=0)
    long_kinds(long_texts)


def llama2c_encode(pieces, text):
    """As its bpe_encode(): characters or their bytes behind a space, then always the best pair."""
    index = {}
    for i, (piece, _) in enumerate(pieces):
        index.setdefault(piece, i)
    ids = [index[b" "]] if text else []
    for c in text:
        b = c.encode()
        ids += [index[b]] if b in index else [x + 3 for x in b]
    while True:
        best = None
        for i in range(len(ids) - 1):
            j = index.get(pieces[ids[i]][0] + pieces[ids[i + 1]][0])
            if j is not None and (best is None or pieces[j][1] > best[0]):
                best = (pieces[j][1], i, j)
        if best is None:
            return ids
        ids[best[1]:best[1] + 2] = [best[2]]


def llama2c_kinds():
    path = os.path.join(shared, "reference/tok512.bin")
    if not os.path.exists(path):
        print("skipped: no tok512.bin")
        return
    data, at, pieces = open(path, "rb").read(), 4, []
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        pieces.append((data[at + 8:at + 8 + size], score))
        at += 8 + size
    texts = [t for t in TEXTS if not any(s in t for s in ("<s>", "</s>", "<unk>", "\u2581", "\x00"))]
    compare("tok512.bin", path, lambda s: llama2c_encode(pieces, s), texts=texts)


def sentencepiece_kinds():
    try:
        import sentencepiece as spm
    except ImportError:
        print("skipped: no Python package 'sentencepiece'")
        return
    # Signs and marked spaces are text to SentencePiece and tokens to Hugging Face, whose reader of its map of
    # characters also treats graphemes of several characters in its own way. Runs of a letter are ties in float sums.
    import unicodedata
    plain = [t for t in TEXTS if not any(s in t for s in ("<s>", "</s>", "<unk>", "<0x", "\u2581", "bbbbbbbb"))
             and unicodedata.normalize("NFC", t) == t and not any(unicodedata.category(c)[0] == "M" for c in t)]
    text = os.path.join(folder, "corpus.txt")
    with open(text, "w", encoding="utf-8") as f:
        for line in corpus():
            f.write(line.replace("\n", " ").replace("\r", " ") + "\n")
    for what, options in (
            ("bpe", dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False)),
            ("bpe nmt", dict(model_type="bpe")),
            ("bpe no prefix", dict(model_type="bpe", byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
                                   normalization_rule_name="identity", user_defined_symbols=["<mid>", "[x]"])),
            ("unigram", dict(model_type="unigram")),
            ("unigram bytes", dict(model_type="unigram", byte_fallback=True, normalization_rule_name="nfkc")),
            ("unigram identity", dict(model_type="unigram", normalization_rule_name="identity", remove_extra_whitespaces=False))):
        prefix = os.path.join(folder, "sp_" + what.replace(" ", "_"))
        spm.SentencePieceTrainer.train(input=text, model_prefix=prefix, vocab_size=700 if "byte_fallback" in options else 440,
                                       hard_vocab_limit=False, minloglevel=2, character_coverage=0.98, **options)
        sp = spm.SentencePieceProcessor(model_file=prefix + ".model")
        compare(f"sentencepiece {what}", prefix + ".model", sp.encode, options.get("byte_fallback") and sp.decode, texts=plain)


LONG = int(os.environ.get("GT_LONG", 200000))        # characters of each of the long texts
TEXTS = make_texts()
only = sys.argv[4:]
for kinds in (byte_level_kinds, character_kinds, wordpiece_kinds, unigram_kinds, shared_kinds, llama2c_kinds,
              sentencepiece_kinds):
    if not only or kinds.__name__ in only:
        kinds()
print(f"tokenizers {tokenizers.__version__}, {failed} failed")
sys.exit(1 if failed else 0)
