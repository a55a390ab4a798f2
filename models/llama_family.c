/* SPDX-License-Identifier: MIT */
/* models/llama_family.c - Llama, Mistral, Qwen2, Qwen3 and Gemma: their keys, presets and weights.
 *
 * Each is a family of its own, because what a key means where it is absent is another thing in each
 * (transformers' LlamaConfig and its neighbours). Their graph is one: llama.c. */
#include "models/llama.h"

#include <stdio.h>

/* ---- keys ------------------------------------------------------------------------------------------ */

/* transformers' names (activations.py, ACT2FN). */
static const model_word activations[] = {
    { "silu", 0 },
    { "swish", 0 },
    { "gelu_pytorch_tanh", ACT_GELU_TANH },
    { "gelu_new", ACT_GELU_TANH },
    { "gelu", ACT_GELU_ERF },
    { "relu", ACT_RELU },
    { 0 }
};
/* Gemma's class takes "gelu" for the other one, which its weights were trained with. */
static const model_word gemma_activations[] = { { "gelu_pytorch_tanh", 0 }, { "gelu_new", 0 },    { "gelu", 0 },
                                                { "silu", ACT_SILU },       { "relu", ACT_RELU }, { 0 } };
static const model_word ropes[] = { { "default", LLAMA_ROPE_PLAIN },   { "linear", LLAMA_ROPE_LINEAR },
                                    { "dynamic", LLAMA_ROPE_DYNAMIC }, { "yarn", LLAMA_ROPE_YARN },
                                    { "llama3", LLAMA_ROPE_3 },        { 0 } };
static const model_word kinds_of_layers[] = { { "full_attention", 0 }, { "sliding_attention", 1 }, { 0 } };

#define OWN(type, key, at, fallback) { key, type, MODEL_AT_OWN(at), MODEL_COMPUTES, fallback, NULL }
#define IGNORED(key) { key, MODEL_IGNORED, 0, 0, 0.0, NULL }

/* What all have; kv and head: where absent, 0 for the same number of heads, and for channels / heads. */
#define SIZES(kv, head, positions) \
    { "hidden_size", MODEL_SIZE, MODEL_AT(channels), MODEL_COMPUTES, MODEL_REQUIRED, NULL }, \
        { "intermediate_size", MODEL_SIZE, MODEL_AT(inner), MODEL_COMPUTES, MODEL_REQUIRED, NULL }, \
        { "num_hidden_layers", MODEL_SIZE, MODEL_AT(layers), MODEL_COMPUTES, MODEL_REQUIRED, NULL }, \
        { "num_attention_heads", MODEL_SIZE, MODEL_AT(heads), MODEL_COMPUTES, MODEL_REQUIRED, NULL }, \
        OWN(MODEL_LIMIT, "num_key_value_heads", LLAMA_KV_HEADS, kv), OWN(MODEL_LIMIT, "head_dim", LLAMA_HEAD, head), \
        { "max_position_embeddings", MODEL_SIZE, MODEL_AT(context), MODEL_COMPUTES, positions, NULL }, \
        { "vocab_size", MODEL_SIZE, MODEL_AT(vocab), MODEL_COMPUTES, 0.0, NULL }, \
        { "rms_norm_eps", MODEL_SHARE, MODEL_AT(eps), MODEL_COMPUTES, 1e-6, NULL }, \
        { "attention_dropout", MODEL_SHARE, MODEL_AT(dropout_attention), MODEL_DROPS, 0.0, NULL }, \
    { \
        "initializer_range", MODEL_SHARE, MODEL_AT(init_deviation), MODEL_BEGINS, 0.02, NULL \
    }
#define POSITIONS \
    OWN(MODEL_NUMBER, "rope_theta", LLAMA_THETA, 10000.0), \
        { "rope_scaling.rope_type", MODEL_WORD, MODEL_AT_OWN(LLAMA_ROPE), MODEL_COMPUTES, 0.0, ropes }, \
        OWN(MODEL_NUMBER, "rope_scaling.factor", LLAMA_ROPE_FACTOR, 0.0), \
        OWN(MODEL_NUMBER, "rope_scaling.low_freq_factor", LLAMA_ROPE_LOW, 0.0), \
        OWN(MODEL_NUMBER, "rope_scaling.high_freq_factor", LLAMA_ROPE_HIGH, 0.0), \
        OWN(MODEL_COUNT, "rope_scaling.original_max_position_embeddings", LLAMA_ROPE_ORIGINAL, 0.0), \
        OWN(MODEL_NUMBER, "rope_scaling.attention_factor", LLAMA_ROPE_ATTENTION, 0.0), \
        OWN(MODEL_NUMBER, "rope_scaling.beta_fast", LLAMA_ROPE_FAST, 32.0), \
        OWN(MODEL_NUMBER, "rope_scaling.beta_slow", LLAMA_ROPE_SLOW, 1.0), \
        OWN(MODEL_NUMBER, "rope_scaling.mscale", LLAMA_ROPE_MSCALE, 0.0), \
        OWN(MODEL_NUMBER, "rope_scaling.mscale_all_dim", LLAMA_ROPE_MSCALE_ALL, 0.0), \
        OWN(MODEL_FLAG, "rope_scaling.truncate", LLAMA_ROPE_TRUNCATE, 1.0), \
        { "partial_rotary_factor", MODEL_ONE, 0, 0, 0.0, NULL }, \
    { \
        "rope_interleaved", MODEL_OFF, 0, 0, 0.0, NULL \
    }
#define ACTIVATION(words) { "hidden_act", MODEL_WORD, MODEL_AT_OWN(LLAMA_ACTIVATION), MODEL_COMPUTES, 0.0, words }
/* The head has a table of its own, or, `tied`, the embedding's. */
#define HEAD(tied) { "tie_word_embeddings", MODEL_NOT, MODEL_AT(untied_head), MODEL_COMPUTES, tied, NULL }
#define WINDOW_FROM_LAYER \
    OWN(MODEL_FLAG, "use_sliding_window", LLAMA_USES_WINDOW, 0.0), \
        OWN(MODEL_LIMIT, "sliding_window", LLAMA_WINDOW, 4096.0), \
        OWN(MODEL_COUNT, "max_window_layers", LLAMA_WINDOW_FROM, 28.0), \
    { \
        "layer_types", MODEL_LAYERS, MODEL_AT_OWN(LLAMA_WINDOW_FROM), MODEL_COMPUTES, 0.0, kinds_of_layers \
    }

/* pretraining_tp splits products into sums of the same; is_llama_config says nothing more. */
static const model_field llama_fields[] = {
    SIZES(0.0, 0.0, 2048.0),
    POSITIONS,
    ACTIVATION(activations),
    HEAD(0.0),
    OWN(MODEL_FLAG, "attention_bias", LLAMA_ATTENTION_BIAS, 0.0),
    OWN(MODEL_FLAG, "mlp_bias", LLAMA_MLP_BIAS, 0.0),
    IGNORED("pretraining_tp"),
    IGNORED("is_llama_config"),
    { 0 }
};
static const model_field mistral_fields[] = {
    SIZES(8.0, 0.0, 131072.0),
    POSITIONS,
    ACTIVATION(activations),
    HEAD(0.0),
    OWN(MODEL_LIMIT, "sliding_window", LLAMA_WINDOW, 4096.0),
    { 0 }
};
static const model_field qwen2_fields[] = { SIZES(32.0, 0.0, 32768.0), POSITIONS, ACTIVATION(activations), HEAD(0.0),
                                            WINDOW_FROM_LAYER,         { 0 } };
static const model_field qwen3_fields[] = {
    SIZES(32.0, 128.0, 32768.0),
    POSITIONS,
    ACTIVATION(activations),
    HEAD(0.0),
    OWN(MODEL_FLAG, "attention_bias", LLAMA_ATTENTION_BIAS, 0.0),
    WINDOW_FROM_LAYER,
    { 0 }
};
static const model_field gemma_fields[] = {
    SIZES(16.0, 256.0, 8192.0),
    POSITIONS,
    ACTIVATION(gemma_activations),
    HEAD(1.0),
    OWN(MODEL_FLAG, "attention_bias", LLAMA_ATTENTION_BIAS, 0.0),
    { "hidden_activation", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "use_bidirectional_attention", MODEL_OFF, 0, 0, 0.0, NULL },
    { 0 }
};

static void complete(model_config *c)
{
    if (c->own[LLAMA_KV_HEADS] == 0.0)
        c->own[LLAMA_KV_HEADS] = c->heads;
    if (c->own[LLAMA_HEAD] == 0.0 && c->channels % c->heads == 0)
        c->own[LLAMA_HEAD] = c->channels / c->heads;
    const int stretched = (int)c->own[LLAMA_ROPE] == LLAMA_ROPE_YARN || (int)c->own[LLAMA_ROPE] == LLAMA_ROPE_3;
    if (stretched && c->own[LLAMA_ROPE_ORIGINAL] == 0.0)
        c->own[LLAMA_ROPE_ORIGINAL] = c->context;
}

static void complete_mistral(model_config *c)
{
    complete(c);
    c->own[LLAMA_USES_WINDOW] = 1.0;
}

static void complete_qwen2(model_config *c)
{
    complete(c);
    c->own[LLAMA_QKV_BIAS] = 1.0;
}

static void complete_qwen3(model_config *c)
{
    complete(c);
    c->own[LLAMA_HEAD_NORM] = 1.0;
}

static void complete_gemma(model_config *c)
{
    complete(c);
    c->own[LLAMA_GEMMA] = 1.0;
}

static gt_status check(const model_config *c)
{
    const int D = llama_head(c), KV = llama_kv_heads(c);
    if (D < 1)
        return gt_fail(GT_MISUSE, "model '%s': %d channels do not divide into %d heads", c->name, c->channels,
                       c->heads);
    if (KV < 1 || c->heads % KV)
        return gt_fail(GT_MISUSE, "model '%s': %d heads cannot look at %d heads of keys: the first must be a multiple",
                       c->name, c->heads, KV);
    if (D % 2)
        return gt_fail(GT_MISUSE, "model '%s': heads of %d columns have no pairs for rotary positions", c->name, D);
    if (D > 256)
        return gt_fail(GT_UNSUPPORTED, "model '%s': heads of %d columns, more than the 256 supported", c->name, D);
    return llama_rope_check(c);
}

static void batch(data_batch *out, const model_config *c, const loader *l, const char *split)
{
    (void)c;
    data_batch_next_token(out, l, split);
}

/* ---- presets ---------------------------------------------------------------------------------------- */

#define SHAPE(C, I, L, H, KV, T) \
    "{ \"hidden_size\": " #C ", \"intermediate_size\": " #I ", \"num_hidden_layers\": " #L \
    ", \"num_attention_heads\": " #H ", \"num_key_value_heads\": " #KV ", \"max_position_embeddings\": " #T
#define WITH(key, value) ", \"" key "\": " #value
#define VOCAB(n) WITH("vocab_size", n)
#define EPS5 WITH("rms_norm_eps", 1e-5)
#define TIED WITH("tie_word_embeddings", true)
#define LLAMA31(factor) \
    VOCAB(128256) \
    EPS5 WITH("rope_theta", 500000.0) ", \"rope_scaling\": { \"rope_type\": \"llama3\"" WITH("factor", factor) \
        WITH("low_freq_factor", 1.0) WITH("high_freq_factor", 4.0) WITH("original_max_position_embeddings", 8192) " }"

/* The numbers of the published config.json files. */
static const model_preset llama_presets[] = {
    { "llama-tiny", SHAPE(64, 176, 3, 4, 2, 64) EPS5 " }" },
    { "llama-mini", SHAPE(128, 344, 4, 4, 2, 64) EPS5 " }" },
    { "llama-7b", SHAPE(4096, 11008, 32, 32, 32, 2048) VOCAB(32000) " }" },
    { "llama-13b", SHAPE(5120, 13824, 40, 40, 40, 2048) VOCAB(32000) " }" },
    { "llama2-7b", SHAPE(4096, 11008, 32, 32, 32, 4096) VOCAB(32000) EPS5 " }" },
    { "llama2-13b", SHAPE(5120, 13824, 40, 40, 40, 4096) VOCAB(32000) EPS5 " }" },
    { "llama2-70b", SHAPE(8192, 28672, 80, 64, 8, 4096) VOCAB(32000) EPS5 " }" },
    { "llama3-8b", SHAPE(4096, 14336, 32, 32, 8, 8192) VOCAB(128256) EPS5 WITH("rope_theta", 500000.0) " }" },
    { "llama3-70b", SHAPE(8192, 28672, 80, 64, 8, 8192) VOCAB(128256) EPS5 WITH("rope_theta", 500000.0) " }" },
    { "llama3.1-8b", SHAPE(4096, 14336, 32, 32, 8, 131072) LLAMA31(8.0) " }" },
    { "llama3.2-1b", SHAPE(2048, 8192, 16, 32, 8, 131072) TIED LLAMA31(32.0) " }" },
    { "llama3.2-3b", SHAPE(3072, 8192, 28, 24, 8, 131072) TIED LLAMA31(32.0) " }" },
    { "tinyllama-1.1b", SHAPE(2048, 5632, 22, 32, 4, 2048) VOCAB(32000) EPS5 " }" },
    { "smollm2-135m", SHAPE(576, 1536, 30, 9, 3, 8192) VOCAB(49152) EPS5 TIED WITH("rope_theta", 100000.0) " }" },
    { "smollm2-360m", SHAPE(960, 2560, 32, 15, 5, 8192) VOCAB(49152) EPS5 TIED WITH("rope_theta", 100000.0) " }" },
    { "smollm2-1.7b", SHAPE(2048, 8192, 24, 32, 32, 8192) VOCAB(49152) EPS5 TIED WITH("rope_theta", 130000.0) " }" },
    { 0 }
};
static const model_preset mistral_presets[] = {
    { "mistral-7b", SHAPE(4096, 14336, 32, 32, 8, 32768) VOCAB(32000) EPS5 WITH("sliding_window", 4096) " }" },
    { "mistral-7b-v0.3", SHAPE(4096, 14336, 32, 32, 8, 32768) VOCAB(32768) EPS5 WITH("rope_theta", 1000000.0)
                             WITH("sliding_window", null) " }" },
    { 0 }
};
#define QWEN WITH("rope_theta", 1000000.0)
static const model_preset qwen2_presets[] = {
    { "qwen2.5-0.5b", SHAPE(896, 4864, 24, 14, 2, 32768) VOCAB(151936) QWEN TIED " }" },
    { "qwen2.5-1.5b", SHAPE(1536, 8960, 28, 12, 2, 131072) VOCAB(151936) QWEN TIED " }" },
    { "qwen2.5-3b", SHAPE(2048, 11008, 36, 16, 2, 32768) VOCAB(151936) QWEN TIED " }" },
    { "qwen2.5-7b", SHAPE(3584, 18944, 28, 28, 4, 131072) VOCAB(152064) QWEN " }" },
    { 0 }
};
static const model_preset qwen3_presets[] = {
    { "qwen3-0.6b", SHAPE(1024, 3072, 28, 16, 8, 40960) VOCAB(151936) QWEN TIED " }" },
    { "qwen3-1.7b", SHAPE(2048, 6144, 28, 16, 8, 40960) VOCAB(151936) QWEN TIED " }" },
    { "qwen3-4b", SHAPE(2560, 9728, 36, 32, 8, 40960) VOCAB(151936) QWEN TIED " }" },
    { "qwen3-8b", SHAPE(4096, 12288, 36, 32, 8, 40960) VOCAB(151936) QWEN " }" },
    { 0 }
};
static const model_preset gemma_presets[] = { { "gemma-2b", SHAPE(2048, 16384, 18, 8, 1, 8192) VOCAB(256000) " }" },
                                              { "gemma-7b", SHAPE(3072, 24576, 28, 16, 16, 8192) VOCAB(256000) " }" },
                                              { 0 } };

/* ---- weights ------------------------------------------------------------------------------------------ */

#define SAME(name) \
    { \
        .ours = { name }, .theirs = { name } \
    }
#define LAYER(name) SAME("layers.%d." name)
#define BIASED(name) LAYER(name ".weight"), LAYER(name ".bias")

static const model_tensor tensors[] = {
    SAME("embed_tokens.weight"),
    LAYER("input_layernorm.weight"),
    BIASED("self_attn.q_proj"),
    BIASED("self_attn.k_proj"),
    BIASED("self_attn.v_proj"),
    BIASED("self_attn.o_proj"),
    LAYER("self_attn.q_norm.weight"),
    LAYER("self_attn.k_norm.weight"),
    LAYER("post_attention_layernorm.weight"),
    BIASED("mlp.gate_proj"),
    BIASED("mlp.up_proj"),
    BIASED("mlp.down_proj"),
    SAME("norm.weight"),
    { .ours = { "lm_head.weight" },
      .theirs = { "lm_head.weight" },
      .flags = MODEL_BARE,
      .tied = "embed_tokens.weight" },

    /* Frequencies of rotary positions, in old files. */
    { .theirs = { "layers.%d.self_attn.rotary_emb.inv_freq" }, .flags = MODEL_MASK },
    { .theirs = { "rotary_emb.inv_freq" }, .flags = MODEL_MASK },
    /* transformers' classifiers, and trl's value head. */
    { .theirs = { "score.*" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "qa_outputs.*" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "v_head.*" }, .flags = MODEL_OTHER_TASK },
    { .flags = 0 }
};

/* more: what one has that the others have not. */
#define FAMILY(known, class, completes, ...) \
    static const char *const known##_types[] = { #known, NULL }; \
    const model_family known##_family = { \
        .name = #known, \
        .types = known##_types, \
        .architecture = class, \
        .tokenizer = "byte", \
        .fields = known##_fields, \
        .presets = known##_presets, \
        .complete = completes, \
        .check = check, \
        .build_part = llama_build_part, \
        .build_generate = llama_build_generate, \
        .batch = batch, \
        .flops_per_token = llama_flops_per_token, \
        .prefix = "model.", \
        .tensors = tensors, \
        .adapted = "q_proj,v_proj", \
        .reference = &llama_reference, \
        __VA_ARGS__ \
    }

FAMILY(llama, "LlamaForCausalLM", complete, .describe_file = llama2c_describe, .import_file = llama2c_import);
FAMILY(mistral, "MistralForCausalLM", complete_mistral, .describe_file = NULL);
FAMILY(qwen2, "Qwen2ForCausalLM", complete_qwen2, .describe_file = NULL);
FAMILY(qwen3, "Qwen3ForCausalLM", complete_qwen3, .describe_file = NULL);
FAMILY(gemma, "GemmaForCausalLM", complete_gemma, .describe_file = NULL);
