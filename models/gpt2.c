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
 * Residual additions are epilogues of the projections, so the stream is never read twice.
 *
 * Over the ranks of a tensor group:
 *   x (own rows) -ln- gather -[ qkv of own heads, attention | own inner columns ]- c_proj - scatter
 *   + x;   each has own rows of the vocabulary for embedding and loss                     */
#include "models/gpt2.h"

#include <math.h>
#include <stdio.h>

typedef struct layer_caches {
    int keys, values;
} layer_caches;

/* A model or a part of it, being built. */
typedef struct builder {
    graph *g;
    const model_config *c;
    graph_part part;            /* ranks 1: not split                              */
    int train;
} builder;

/* ---- what a rank of a tensor group holds ----------------------------------------------------- */

/* Of `count` columns or rows; pieces of 16 keep matrices aligned where there are enough to share. */
static tensor_slice own(const builder *b, int dim, int parts, int64_t count, int64_t quantum)
{
    tensor_slice s = { .dim = dim, .parts = parts, .full = count };
    if (b->part.ranks < 2)
        return (tensor_slice){ 0 };
    if (!quantum)
        quantum = count >= 64 * b->part.ranks ? 16 : 1;
    graph_part_of(&b->part, count, quantum, b->part.rank, &s.begin, &s.count);
    return s;
}

static tensor_slice whole(void)
{
    return (tensor_slice){ 0 };
}

/* There must be a head, a column and a row of the vocabulary for each rank. */
static gt_status check_split(const builder *b)
{
    const model_config *c = b->c;
    const int ranks = b->part.ranks;
    const struct {
        int count;
        const char *what;
    } things[] = { { c->heads, "heads" }, { c->inner, "inner columns" }, { c->vocab, "tokens" } };
    gt_status st = graph_part_check(&b->part);
    for (int i = 0; !st && i < 3; i++)
        if (things[i].count < ranks)
            st = gt_fail(GT_MISUSE,
                         "cannot split '%s' over %d ranks: it has %d %s, and every rank "
                         "needs one; use a smaller --tensor",
                         c->name, ranks, things[i].count, things[i].what);
    return st;
}

/* ---- parameters and layers -------------------------------------------------------------------- */

static int weight(const builder *b, const char *prefix, const char *name, int64_t out, int64_t in, tensor_slice held,
                  float deviation)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(2, out, in), &held, GRAPH_INIT_NORMAL, deviation);
}

static int vector(const builder *b, const char *prefix, const char *name, int64_t n, tensor_slice held, graph_init init)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(1, n), &held, init, 0.0f);
}

static int norm(const builder *b, const char *prefix, const char *name, int x)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.weight", name);
    int gain = vector(b, prefix, part, b->c->channels, whole(), GRAPH_INIT_ONE);
    snprintf(part, sizeof part, "%s.bias", name);
    int bias = vector(b, prefix, part, b->c->channels, whole(), GRAPH_INIT_ZERO);
    return graph_layernorm(b->g, label, x, gain, bias, b->c->eps);
}

/* Every rank has some of the `out` columns of all rows. */
static int linear(const builder *b, const char *prefix, const char *name, int x, int64_t out, int64_t in,
                  tensor_slice held, activation act)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.bias", name);
    int w = weight(b, prefix, name, out, in, held, b->c->init_deviation);
    int v = vector(b, prefix, part, out, held, GRAPH_INIT_ZERO);
    return graph_linear(b->g, label, x, w, v, act, -1, 0.0f);
}

/* x has some of the `in` columns, and the sum over ranks goes back to the residual stream. Rank 0
 * alone adds the bias; all drop alike what they add, which is the same as dropping the sum. */
static int project(const builder *b, const char *prefix, const char *name, int x, int64_t out, int64_t in,
                   tensor_slice held, int residual)
{
    const float narrow = b->c->init_deviation / sqrtf(2.0f * (float)b->c->layers);
    const float drop = b->train ? b->c->dropout_residual : 0.0f;
    char label[64], part[32];
    int v = -1;
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.bias", name);
    int w = weight(b, prefix, name, out, in, held, narrow);
    if (b->part.rank == 0)
        v = vector(b, prefix, part, out, whole(), GRAPH_INIT_ZERO);
    if (b->part.ranks < 2)
        return graph_linear(b->g, label, x, w, v, ACT_NONE, residual, drop);
    int y = graph_linear(b->g, label, x, w, v, ACT_NONE, -1, drop);
    y = graph_scatter_rows(b->g, label, y);
    return graph_add(b->g, label, y, residual);
}

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

/* One layer; `cache` is NULL when whole sequences are processed. */
static int block(const builder *b, int layer, int x, const layer_caches *cache, int first)
{
    const model_config *c = b->c;
    const int64_t C = c->channels, D = C / c->heads;
    const tensor_slice qkv = own(b, 0, 3, C, D), columns = own(b, 0, 1, c->inner, 0);
    const float drop = b->train ? c->dropout_attention : 0.0f, scale = attention_scale(c, layer);
    const int heads = qkv.parts ? (int)(qkv.count / D) : c->heads;
    char prefix[32], label[64];

    graph_layer(b->g, layer);
    snprintf(prefix, sizeof prefix, "h.%d.", layer);
    snprintf(label, sizeof label, "%sattn", prefix);
    int a = graph_gather_rows(b->g, label, norm(b, prefix, "ln_1", x));
    a = linear(b, prefix, "attn.c_attn", a, 3 * C, C, qkv, ACT_NONE);
    const int64_t width = heads * D;
    const graph_attention_in in = { .q = { a, 0 }, .k = { a, width }, .v = { a, 2 * width } };
    const graph_heads how = {
        .heads = heads,
        .kv_heads = heads,
        .size = (int)D,
        .first_head = (int)(qkv.begin / D),
        .all_heads = c->heads,
        .causal = 1,
        .scale = scale,
        .drop = cache ? 0.0f : drop
    };
    a = cache ? graph_attention_cached(b->g, label, &in, &how, cache->keys, cache->values, first)
              : graph_attention(b->g, label, &in, &how, -1);
    x = project(b, prefix, "attn.c_proj", a, C, C, own(b, 1, 1, C, D), x);

    snprintf(label, sizeof label, "%smlp", prefix);
    a = graph_gather_rows(b->g, label, norm(b, prefix, "ln_2", x));
    a = linear(b, prefix, "mlp.c_fc", a, c->inner, C, columns, gpt2_activation(c));
    return project(b, prefix, "mlp.c_proj", a, C, c->inner, own(b, 1, 1, c->inner, 0), x);
}

/* The rows of the vocabulary as the head sees them: wte's, unless it has its own. */
static int head_table(const builder *b, int wte)
{
    const model_config *c = b->c;
    return !c->untied_head
               ? wte
               : weight(b, "", "lm_head", c->vocab, c->channels, own(b, 0, 1, c->vocab, 0), c->init_deviation);
}

/* wte, wpe: values; a rank without positions has wpe -1. */
static int embed(const builder *b, int wte, int wpe)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g);
    int tokens = graph_input(b->g, "tokens", DTYPE_I32, shape_of(2, B, T));
    int x = graph_embed(b->g, "embed", tokens, wte, wpe, -1);
    x = graph_dropout(b->g, "embed.drop", x, b->train ? b->c->dropout_embed : 0.0f);
    return graph_scatter_rows(b->g, "embed", x);
}

static void head(const builder *b, int x, int table)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g);
    int targets = graph_input(b->g, "targets", DTYPE_I32, shape_of(2, B, T));
    int weights = b->c->weighted ? graph_input(b->g, "weights", DTYPE_F32, shape_of(2, B, T)) : -1;
    x = graph_gather_rows(b->g, "ln_f", norm(b, "", "ln_f", x));
    graph_head_loss(b->g, "loss", x, table, targets, weights);
}

/* The activations that come from the stage before. */
static int stage_input(const builder *b)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g), C = b->c->channels;
    return graph_stage_input(b->g, "x", b->part.ranks > 1 ? shape_of(2, graph_rows(b->g), C) : shape_of(3, B, T, C));
}

static gt_status check_part(const builder *b, int last)
{
    const model_config *c = b->c;
    if (graph_tokens(b->g) > c->context)
        return gt_fail(GT_MISUSE, "cannot build '%s' for sequences of %d tokens: it has %d positions", c->name,
                       graph_tokens(b->g), c->context);
    if (b->part.first_unit < 0 || b->part.units < 1 || last > c->layers + 1)
        return gt_fail(GT_MISUSE, "cannot build units %d to %d of '%s': it has %d", b->part.first_unit, last, c->name,
                       model_units(c));
    return check_split(b);
}

static gt_status build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    builder b = { .g = g, .c = c, .part = *part, .train = train };
    const int first = part->first_unit, last = first + part->units - 1, end = c->layers + 1;
    int wte = -1, wpe = -1, x, input = -1;
    if (b.part.ranks < 2)
        b.part = (graph_part){ .first_unit = first, .units = part->units, .ranks = 1 };
    gt_status st = check_part(&b, last);
    if (st)
        return st;
    graph_split(g, &b.part);
    if (first == 0 || (last == end && !c->untied_head))
        wte = weight(&b, "", "wte", c->vocab, c->channels, own(&b, 0, 1, c->vocab, 0), c->init_deviation);
    if (first == 0 && b.part.rank == 0)
        wpe = weight(&b, "", "wpe", c->context, c->channels, whole(), c->init_deviation);
    if (first == 0)
        x = embed(&b, wte, wpe);
    else
        x = input = stage_input(&b);
    for (int unit = first; unit <= last; unit++)
        if (unit > 0 && unit < end)
            x = block(&b, unit - 1, x, NULL, -1);
    graph_layer(g, -1);
    if (last == end)
        head(&b, x, head_table(&b, wte));
    return train ? graph_backward(g, last == end ? -1 : x, input, recompute) : graph_failed(g);
}

static gt_status build_generate(graph *g, const model_config *c, int capacity)
{
    const int64_t B = graph_batch(g), T = graph_tokens(g);
    const int64_t H = c->heads, D = c->channels / c->heads;
    int tokens = graph_input(g, "tokens", DTYPE_I32, shape_of(2, B, T));
    int first = graph_input(g, "first", DTYPE_I32, shape_of(1, (int64_t)1));
    const builder b = { .g = g, .c = c, .part = { .ranks = 1 } };
    int wte = weight(&b, "", "wte", c->vocab, c->channels, whole(), c->init_deviation);
    int wpe = weight(&b, "", "wpe", c->context, c->channels, whole(), c->init_deviation);
    int x = graph_embed(g, "embed", tokens, wte, wpe, first);
    for (int layer = 0; layer < c->layers; layer++) {
        char name[48];
        layer_caches cache;
        snprintf(name, sizeof name, "h.%d.keys", layer);
        cache.keys = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        snprintf(name, sizeof name, "h.%d.values", layer);
        cache.values = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        x = block(&b, layer, x, &cache, first);
    }
    graph_layer(g, -1);
    x = norm(&b, "", "ln_f", x);
    graph_logits(g, "logits", x, head_table(&b, wte));
    return graph_failed(g);
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
    .reference = &gpt2_reference
};
