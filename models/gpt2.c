/* models/gpt2.c - GPT-2 and GPT-3 as graphs.
 *
 *   x = wte[token] + wpe[position]
 *   layer:  x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))          pre-norm residual stream
 *   loss = cross-entropy(ln_f(x) wte', target)                      tied head
 *
 * Radford et al., "Language models are unsupervised multitask learners" (2019); Brown et
 * al., "Language models are few-shot learners" (2020). GPT-3's sparse layers are dense
 * here: the paper does not publish their pattern's parameters.
 * Residual additions are epilogues of the projections, so the stream is never read twice. */
#include "models/model_private.h"

#include <math.h>
#include <stdio.h>

typedef struct layer_caches { int keys, values; } layer_caches;

static int weight(graph *g, const char *prefix, const char *name, int64_t out, int64_t in,
                  float deviation)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    return graph_param(g, text, shape_of(2, out, in), GRAPH_INIT_NORMAL, deviation);
}

static int vector(graph *g, const char *prefix, const char *name, int64_t n, graph_init init)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return graph_param(g, text, shape_of(1, n), init, 0.0f);
}

static int norm(graph *g, const model_config *c, const char *prefix, const char *name, int x)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.weight", name);
    int gain = vector(g, prefix, part, c->channels, GRAPH_INIT_ONE);
    snprintf(part, sizeof part, "%s.bias", name);
    int bias = vector(g, prefix, part, c->channels, GRAPH_INIT_ZERO);
    return graph_layernorm(g, label, x, gain, bias, c->eps);
}

static int linear(graph *g, const char *prefix, const char *name, int x, int64_t out, int64_t in,
                  float deviation, graph_act act, int residual, float drop)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.bias", name);
    int w = weight(g, prefix, name, out, in, deviation);
    int b = vector(g, prefix, part, out, GRAPH_INIT_ZERO);
    return graph_linear(g, label, x, w, b, act, residual, drop);
}

/* One layer; `cache` is NULL when whole sequences are processed. */
static int block(graph *g, const model_config *c, int layer, int x, int train,
                 const layer_caches *cache, int first)
{
    const int64_t C = c->channels;
    const float narrow = c->init_deviation / sqrtf(2.0f * (float)c->layers);
    const float drop = train ? c->dropout_residual : 0.0f;
    char prefix[32], label[64];

    graph_layer(g, layer);
    snprintf(prefix, sizeof prefix, "h.%d.", layer);
    snprintf(label, sizeof label, "%sattn", prefix);
    int a = norm(g, c, prefix, "ln_1", x);
    a = linear(g, prefix, "attn.c_attn", a, 3 * C, C, c->init_deviation, GRAPH_ACT_NONE, -1, 0.0f);
    a = cache ? graph_attention_cached(g, label, a, c->heads, cache->keys, cache->values, first)
              : graph_attention(g, label, a, c->heads, 1, train ? c->dropout_attention : 0.0f);
    x = linear(g, prefix, "attn.c_proj", a, C, C, narrow, GRAPH_ACT_NONE, x, drop);

    a = norm(g, c, prefix, "ln_2", x);
    a = linear(g, prefix, "mlp.c_fc", a, c->inner, C, c->init_deviation, GRAPH_ACT_GELU, -1, 0.0f);
    return linear(g, prefix, "mlp.c_proj", a, C, c->inner, narrow, GRAPH_ACT_NONE, x, drop);
}

gt_status gpt2_build_part(graph *g, const model_config *c, const graph_part *part, int train,
                          int recompute)
{
    const int64_t B = graph_batch(g), T = graph_tokens(g);
    const int last = part->first_unit + part->units - 1, head = c->layers + 1;
    int wte = -1, x, first = -1;
    if (T > c->context)
        return gt_fail(GT_MISUSE, "cannot build '%s' for sequences of %lld tokens: it has %d "
                       "positions", c->name, (long long)T, c->context);
    if (part->first_unit < 0 || part->units < 1 || last > head)
        return gt_fail(GT_MISUSE, "cannot build units %d to %d of '%s': it has %d", part->first_unit,
                       last, c->name, model_units(c));
    if (part->first_unit == 0 || last == head)
        wte = weight(g, "", "wte", c->vocab, c->channels, c->init_deviation);
    if (part->first_unit == 0) {
        int tokens = graph_input(g, "tokens", DTYPE_I32, shape_of(2, B, T));
        int wpe = weight(g, "", "wpe", c->context, c->channels, c->init_deviation);
        x = graph_embed(g, "embed", tokens, wte, wpe, -1);
        x = graph_dropout(g, "embed.drop", x, train ? c->dropout_embed : 0.0f);
    } else {
        x = first = graph_input(g, "x", graph_storage(g), shape_of(3, B, T, (int64_t)c->channels));
    }
    for (int unit = part->first_unit; unit <= last; unit++)
        if (unit > 0 && unit < head)
            x = block(g, c, unit - 1, x, train, NULL, -1);
    graph_layer(g, -1);
    if (last == head) {
        int targets = graph_input(g, "targets", DTYPE_I32, shape_of(2, B, T));
        x = norm(g, c, "", "ln_f", x);
        graph_head_loss(g, "loss", x, wte, targets);
    }
    return train ? graph_backward(g, last == head ? -1 : x, first, recompute) : graph_failed(g);
}

gt_status gpt2_build_generate(graph *g, const model_config *c, int capacity)
{
    const int64_t B = graph_batch(g), T = graph_tokens(g);
    const int64_t H = c->heads, D = c->channels / c->heads;
    int tokens = graph_input(g, "tokens", DTYPE_I32, shape_of(2, B, T));
    int first = graph_input(g, "first", DTYPE_I32, shape_of(1, (int64_t)1));
    int wte = weight(g, "", "wte", c->vocab, c->channels, c->init_deviation);
    int wpe = weight(g, "", "wpe", c->context, c->channels, c->init_deviation);
    int x = graph_embed(g, "embed", tokens, wte, wpe, first);
    for (int layer = 0; layer < c->layers; layer++) {
        char name[48];
        layer_caches cache;
        snprintf(name, sizeof name, "h.%d.keys", layer);
        cache.keys = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        snprintf(name, sizeof name, "h.%d.values", layer);
        cache.values = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        x = block(g, c, layer, x, 0, &cache, first);
    }
    graph_layer(g, -1);
    x = norm(g, c, "", "ln_f", x);
    graph_logits(g, "logits", x, wte);
    return graph_failed(g);
}
