#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""tests/bench/llamacpp_generate.py - the tokens of `geartrain bench generate`, in llama.cpp (PyPI's xllamacpp).

    llamacpp_generate.py make FILE fp32|fp16|bf16       a GGUF file of GPT-2 124M with random weights (PyPI's gguf)
    llamacpp_generate.py FILE PRECISION PROMPT TOKENS THREADS

Batch 1, greedy, with a cache in fp16, as llama.cpp has it unless told otherwise. The second form prints the precision
and the tokens a second of the median token and of the fastest, by when each one comes out.
"""
import statistics
import sys
import time

C, LAYERS, HEADS, CONTEXT, VOCAB = 768, 12, 12, 1024, 50257


def make(path, precision):
    import gguf
    import numpy

    r = numpy.random.default_rng(1)
    kind = {"fp32": gguf.GGMLQuantizationType.F32, "fp16": gguf.GGMLQuantizationType.F16,
            "bf16": gguf.GGMLQuantizationType.BF16}[precision]
    w = gguf.GGUFWriter(path, "gpt2")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(C)
    w.add_feed_forward_length(4 * C)
    w.add_block_count(LAYERS)
    w.add_head_count(HEADS)
    w.add_layer_norm_eps(1e-5)
    w.add_tokenizer_model("gpt2")           # tokens without a text of their own: any will do here
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([f"t{i}" for i in range(VOCAB)])
    w.add_token_types([1] * VOCAB)
    w.add_token_merges(["t 0"])

    def matrix(name, *shape):
        x = r.standard_normal(shape, dtype=numpy.float32) * 0.02
        w.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)

    def vector(name, n, value):
        w.add_tensor(name, numpy.full(n, value, dtype=numpy.float32))

    matrix("token_embd.weight", VOCAB, C)
    w.add_tensor("position_embd.weight", r.standard_normal((CONTEXT, C), dtype=numpy.float32) * 0.02)
    for i in range(LAYERS):
        for name, out, inner in (("attn_qkv", 3 * C, C), ("attn_output", C, C), ("ffn_up", 4 * C, C),
                                 ("ffn_down", C, 4 * C)):
            matrix(f"blk.{i}.{name}.weight", out, inner)
            vector(f"blk.{i}.{name}.bias", out, 0.0)
        for name in ("attn_norm", "ffn_norm"):
            vector(f"blk.{i}.{name}.weight", C, 1.0)
            vector(f"blk.{i}.{name}.bias", C, 0.0)
    vector("output_norm.weight", C, 1.0)
    vector("output_norm.bias", C, 0.0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def run(path, precision, prompt, tokens, threads):
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = path
    p.n_ctx = CONTEXT
    p.n_parallel = 1
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    p.verbosity = -1
    server = xllamacpp.Server(p)
    asked = {"prompt": [(i * i + 7) % VOCAB for i in range(prompt)], "n_predict": tokens, "temperature": 0.0,
             "ignore_eos": True, "cache_prompt": False, "stream": True, "samplers": ["temperature"]}
    for _ in range(2):                                  # the first warms up
        came = []
        server.handle_completions(asked, lambda said: came.append(time.perf_counter()) and False)
    if len(came) < tokens:
        sys.exit(f"llama.cpp ended after {len(came)} of {tokens} tokens")
    seconds = [b - a for a, b in zip(came, came[1:tokens])]         # behind them comes the end
    print(precision, round(1.0 / statistics.median(seconds), 2), round(1.0 / min(seconds), 2))


if len(sys.argv) == 4 and sys.argv[1] == "make":
    make(sys.argv[2], sys.argv[3])
elif len(sys.argv) == 6:
    run(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
else:
    sys.exit(__doc__)
