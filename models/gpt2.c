/* SPDX-License-Identifier: MIT */
/* models/gpt2.c - GPT-2 and GPT-3: their keys, presets, graphs and weights.
 *
 *   x = wte[token] + wpe[position]
 *   layer:  x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))          pre-norm residual stream
 *   loss = cross-entropy(ln_f(x) wte', target)                      tied head, or lm_head for wte
 *
 * Radford et al., "Language models are unsupervised multitask learners" (2019); Brown et
 * al., "Language models are few-shot learners" (2020). GPT-3's sparse layers are dense
 * here: the paper does not publish their pattern's parameters.
 * Residual additions are epilogues of the projections, so the stream is never read twice. */
#include "models/gpt2.h"

#include "models/block.h"

#include <math.h>
#include <stdio.h>

enum { WTE, WPE };            /* of builder.tables */

/* What scores are multiplied by: 1 / sqrt(D), unless the description says otherwise. */
static float attention_scale(const model_config *c, int layer)
{
    const float usual = c->own[GPT2_UNSCALED] != 0.0 ? 1.0f : 1.0f / sqrtf((float)(c->channels / c->heads));
    return c->own[GPT2_BY_LAYER] != 0.0 ? usual / (float)(layer + 1) : usual;
}

activation gpt2_activation(const model_config *c)
{
    return c->own[GPT2_ACTIVATION] != 0.0 ? (activation)c->own[GPT2_ACTIVATION] : ACT_GELU_TANH;
}

/* The head sees wte's rows, unless it has its own; a rank without positions has no wpe. */
static void begin(builder *b)
{
    const model_config *c = b->c;
    const int64_t C = c->channels;
    const float deviation = c->init_deviation;
    if (block_has_embedding(b) || (block_has_head(b) && !c->untied_head))
        b->tables[WTE] = block_weight(b, "", "wte", c->vocab, C, block_own_tokens(b), deviation);
    if (block_has_embedding(b) && b->part.rank == 0)
        b->tables[WPE] = block_weight(b, "", "wpe", c->context, C, block_whole(), deviation);
    else if (block_has_embedding(b))
        block_elsewhere(b, "", "wpe", ".weight");
}

static int embed(builder *b)
{
    int x = graph_embed(b->g, "embed", block_tokens(b), b->tables[WTE], b->tables[WPE], b->first);
    return graph_dropout(b->g, "embed.drop", x, block_drop(b, b->c->dropout_embed));
}

static int layer(builder *b, int number, int x)
{
    const model_config *c = b->c;
    const int64_t C = c->channels, D = C / c->heads, I = c->inner;
    const tensor_slice qkv = block_own(b, 0, 3, C, D);
    const int heads = qkv.parts ? (int)(qkv.count / D) : c->heads;
    const int64_t width = heads * D;
    char prefix[32], label[64];

    snprintf(prefix, sizeof prefix, "h.%d.", number);
    snprintf(label, sizeof label, "%sattn", prefix);
    const block_matrix c_attn = { prefix, "attn.c_attn", 3 * C, C, qkv, 1, 0.0f };
    const block_matrix c_proj = { prefix, "attn.c_proj", C, C, block_own(b, 1, 1, C, D), 1, 0.0f };
    const graph_heads how = {
        .heads = heads,
        .kv_heads = heads,
        .size = (int)D,
        .first_head = (int)(qkv.begin / D),
        .all_heads = c->heads,
        .causal = 1,
        .scale = attention_scale(c, number),
        .drop = block_drop(b, c->dropout_attention)
    };
    int a = graph_gather_rows(b->g, label, block_layernorm(b, prefix, "ln_1", x));
    a = block_linear(b, &c_attn, a, ACT_NONE);
    const graph_attention_in in = { .q = { a, 0 }, .k = { a, width }, .v = { a, 2 * width } };
    x = block_project(b, &c_proj, block_attention(b, prefix, "attn", &in, &how), x);

    snprintf(label, sizeof label, "%smlp", prefix);
    const block_matrix fc = { prefix, "mlp.c_fc", I, C, block_own(b, 0, 1, I, 0), 1, 0.0f };
    const block_matrix out = { prefix, "mlp.c_proj", C, I, block_own(b, 1, 1, I, 0), 1, 0.0f };
    a = graph_gather_rows(b->g, label, block_layernorm(b, prefix, "ln_2", x));
    return block_project(b, &out, block_linear(b, &fc, a, gpt2_activation(c)), x);
}

static void head(builder *b, int x)
{
    const model_config *c = b->c;
    int table = b->tables[WTE];
    if (c->untied_head)
        table = block_weight(b, "", "lm_head", c->vocab, c->channels, block_own_tokens(b), c->init_deviation);
    block_head(b, "ln_f", block_layernorm(b, "", "ln_f", x), table);
}

static const block_stack stack = { .begin = begin, .embed = embed, .layer = layer, .head = head };

static gt_status build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    return block_build_part(g, c, part, train, recompute, &stack);
}

static gt_status build_generate(graph *g, const model_config *c, const graph_part *part, int capacity)
{
    return block_build_generate(g, c, part, capacity, &stack);
}

static void batch(data_batch *out, const model_config *c, const loader *l, const char *split)
{
    (void)c;
    data_batch_next_token(out, l, split);
}

static double flops_per_token(const model_config *c, int T)
{
    const double C = c->channels;
    const double matrices = (double)c->layers * (4.0 * C * C + 2.0 * C * c->inner) + (double)c->vocab * C;
    return 6.0 * matrices + 6.0 * c->layers * C * T;
}

/* ---- descriptions --------------------------------------------------------------------------- */

static const char *const types[] = { "gpt2", NULL };
/* transformers' names (activations.py, ACT2FN). */
static const model_word activations[] = {
    { "gelu_new", 0 },
    { "gelu_pytorch_tanh", 0 },
    { "gelu", ACT_GELU_ERF },
    { "relu", ACT_RELU },
    { "silu", ACT_SILU },
    { "swish", ACT_SILU },
    { 0 }
};

/* transformers' GPT2Config (configuration_gpt2.py). */
static const model_field fields[] = {
    { "n_layer", MODEL_SIZE, MODEL_AT(layers), MODEL_COMPUTES, MODEL_REQUIRED, NULL },
    { "n_head", MODEL_SIZE, MODEL_AT(heads), MODEL_COMPUTES, MODEL_REQUIRED, NULL },
    { "n_embd", MODEL_SIZE, MODEL_AT(channels), MODEL_COMPUTES, MODEL_REQUIRED, NULL },
    { "n_inner", MODEL_SIZE, MODEL_AT(inner), MODEL_COMPUTES, 0.0, NULL },
    { "n_positions", MODEL_SIZE, MODEL_AT(context), MODEL_COMPUTES, 1024.0, NULL },
    { "vocab_size", MODEL_SIZE, MODEL_AT(vocab), MODEL_COMPUTES, 0.0, NULL },
    { "activation_function", MODEL_WORD, MODEL_AT_OWN(GPT2_ACTIVATION), MODEL_COMPUTES, 0.0, activations },
    { "layer_norm_epsilon", MODEL_SHARE, MODEL_AT(eps), MODEL_COMPUTES, 1e-5, NULL },
    { "embd_pdrop", MODEL_SHARE, MODEL_AT(dropout_embed), MODEL_DROPS, 0.0, NULL },
    { "attn_pdrop", MODEL_SHARE, MODEL_AT(dropout_attention), MODEL_DROPS, 0.0, NULL },
    { "resid_pdrop", MODEL_SHARE, MODEL_AT(dropout_residual), MODEL_DROPS, 0.0, NULL },
    { "initializer_range", MODEL_SHARE, MODEL_AT(init_deviation), MODEL_BEGINS, 0.02, NULL },
    { "scale_attn_weights", MODEL_NOT, MODEL_AT_OWN(GPT2_UNSCALED), MODEL_COMPUTES, 1.0, NULL },
    { "scale_attn_by_inverse_layer_idx", MODEL_FLAG, MODEL_AT_OWN(GPT2_BY_LAYER), MODEL_COMPUTES, 0.0, NULL },
    { "tie_word_embeddings", MODEL_NOT, MODEL_AT(untied_head), MODEL_COMPUTES, 1.0, NULL },

    { "num_hidden_layers", MODEL_ALIAS, MODEL_AT(layers), 0, 0.0, NULL },
    { "num_attention_heads", MODEL_ALIAS, MODEL_AT(heads), 0, 0.0, NULL },
    { "hidden_size", MODEL_ALIAS, MODEL_AT(channels), 0, 0.0, NULL },
    { "max_position_embeddings", MODEL_ALIAS, MODEL_AT(context), 0, 0.0, NULL },
    { "n_ctx", MODEL_ALIAS, MODEL_AT(context), 0, 0.0, NULL },

    /* The order of the same sums; here they are always fp32. */
    { "reorder_and_upcast_attn", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "predict_special_tokens", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "output_past", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "summary_type", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "summary_use_proj", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "summary_activation", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "summary_proj_to_labels", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { "summary_first_dropout", MODEL_IGNORED, 0, 0, 0.0, NULL },
    { 0 }
};

#define SIZES(L, H, C, T) "\"n_layer\": " #L ", \"n_head\": " #H ", \"n_embd\": " #C ", \"n_positions\": " #T
#define GPT(L, H, C, T) "{ " SIZES(L, H, C, T) ", \"vocab_size\": 50257 }"

/* GPT-2: table 2 of the paper. GPT-3: table 2.1, with head counts that divide the width
 * (the paper's 1.3B lists 24 heads of 128 for 2048 channels, its 13B a width of 5140). */
static const model_preset presets[] = {
    { "gpt2-124m", GPT(12, 12, 768, 1024) },
    { "gpt2-355m", GPT(24, 16, 1024, 1024) },
    { "gpt2-774m", GPT(36, 20, 1280, 1024) },
    { "gpt2-1558m", GPT(48, 25, 1600, 1024) },
    { "gpt3-125m", GPT(12, 12, 768, 2048) },
    { "gpt3-350m", GPT(24, 16, 1024, 2048) },
    { "gpt3-760m", GPT(24, 16, 1536, 2048) },
    { "gpt3-1.3b", GPT(24, 16, 2048, 2048) },
    { "gpt3-2.7b", GPT(32, 32, 2560, 2048) },
    { "gpt3-6.7b", GPT(32, 32, 4096, 2048) },
    { "gpt3-13b", GPT(40, 40, 5120, 2048) },
    { "gpt3-175b", GPT(96, 96, 12288, 2048) },
    { "gpt2-mini", "{ " SIZES(4, 4, 128, 64) " }" },
    { "gpt2-tiny", "{ " SIZES(3, 4, 64, 64) " }" },
    { 0 }
};

static void complete(model_config *c)
{
    if (!c->inner)
        c->inner = 4 * c->channels;
}

static gt_status check(const model_config *c)
{
    if (c->channels % c->heads)
        return gt_fail(GT_MISUSE, "model '%s': %d channels do not divide into %d heads", c->name, c->channels,
                       c->heads);
    if (c->channels / c->heads > 256)
        return gt_fail(GT_UNSUPPORTED,
                       "model '%s': heads of %d channels, more than the 256 "
                       "supported",
                       c->name, c->channels / c->heads);
    return GT_OK;
}

/* ---- weights -----------------------------------------------------------------------------------
 *
 *   ours   h.0.attn.c_attn.weight (3C, C)   a row per output
 *   theirs h.0.attn.c_attn.weight (C, 3C)   "Conv1D": a row per input, so transposed              */

#define SAME(name, flags) { .ours = { name }, .theirs = { name }, flags, NULL, NULL }
#define LAYER(name, flags) SAME("h.%d." name, flags)

static const model_tensor tensors[] = {
    SAME("wte.weight", 0),
    SAME("wpe.weight", 0),
    LAYER("ln_1.weight", 0),
    LAYER("ln_1.bias", 0),
    LAYER("attn.c_attn.weight", MODEL_TRANSPOSED),
    LAYER("attn.c_attn.bias", 0),
    LAYER("attn.c_proj.weight", MODEL_TRANSPOSED),
    LAYER("attn.c_proj.bias", 0),
    LAYER("ln_2.weight", 0),
    LAYER("ln_2.bias", 0),
    LAYER("mlp.c_fc.weight", MODEL_TRANSPOSED),
    LAYER("mlp.c_fc.bias", 0),
    LAYER("mlp.c_proj.weight", MODEL_TRANSPOSED),
    LAYER("mlp.c_proj.bias", 0),
    SAME("ln_f.weight", 0),
    SAME("ln_f.bias", 0),
    { .ours = { "lm_head.weight" }, .theirs = { "lm_head.weight" }, .flags = MODEL_BARE, .tied = "wte.weight" },

    /* Where attention may look, and with what it hides the rest, in old files. */
    { .theirs = { "h.%d.attn.bias" }, .flags = MODEL_MASK },
    { .theirs = { "h.%d.attn.masked_bias" }, .flags = MODEL_MASK },
    /* transformers' classifiers and GPT2DoubleHeadsModel, and trl's value head. */
    { .theirs = { "score.*" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "classifier.*" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "multiple_choice_head.*" }, .flags = MODEL_OTHER_TASK },
    { .theirs = { "v_head.*" }, .flags = MODEL_OTHER_TASK },
    { .flags = 0 }
};

const model_family gpt2_family = {
    .name = "gpt2",
    .types = types,
    .architecture = "GPT2LMHeadModel",
    .tokenizer = "byte",
    .fields = fields,
    .presets = presets,
    .complete = complete,
    .check = check,
    .build_part = build_part,
    .build_generate = build_generate,
    .batch = batch,
    .flops_per_token = flops_per_token,
    .prefix = "transformer.",
    .tensors = tensors,
    .adapted = "c_attn",
    .reference = &gpt2_reference
};
