/* SPDX-License-Identifier: MIT */
/* models/llama.c - Llama, Mistral, Qwen2, Qwen3 and Gemma: their graph.
 *
 *   x = embed_tokens[token]
 *   layer:  x = x + o(attn(rope(q(n)), rope(k(n)), v(n))),          n = rmsnorm(x)
 *           x = x + down(act(gate(m)) * up(m)),                      m = rmsnorm(x)
 *   loss = cross-entropy(norm(x) lm_head', target)                   embed_tokens for lm_head if tied
 *
 * Touvron et al., "LLaMA" and "Llama 2" (2023); Jiang et al., "Mistral 7B" (2023); Qwen2 (2024) has biases in
 * q, k and v, Qwen3 (2025) an rmsnorm of every head of q and k; Gemma (2024) multiplies embeddings by
 * sqrt(channels) and norms by 1 + weight. Several heads of q look at one of k and v (kv_heads); a layer may
 * see a window of tokens alone. llama_family.c has their keys and files, llama_rope.c the angles.
 *
 * Over ranks of a tensor group heads of k and v are shared out, and with each those of q that look at it. */
#include "models/llama.h"

#include "models/block.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS, ROPE };          /* of builder.tables */

int llama_head(const model_config *c)
{
    return (int)c->own[LLAMA_HEAD];
}

int llama_kv_heads(const model_config *c)
{
    return (int)c->own[LLAMA_KV_HEADS];
}

activation llama_activation(const model_config *c)
{
    const activation usual = c->own[LLAMA_GEMMA] != 0.0 ? ACT_GELU_TANH : ACT_SILU;
    return c->own[LLAMA_ACTIVATION] != 0.0 ? (activation)c->own[LLAMA_ACTIVATION] : usual;
}

int llama_window(const model_config *c, int layer)
{
    const int used = c->own[LLAMA_USES_WINDOW] != 0.0 && layer >= (int)c->own[LLAMA_WINDOW_FROM];
    return used ? (int)c->own[LLAMA_WINDOW] : 0;
}

/* A norm of rows of n columns. */
static int norm(const builder *b, const char *prefix, const char *name, int64_t n, int x)
{
    const int gemma = b->c->own[LLAMA_GEMMA] != 0.0;
    char label[BLOCK_NAME], part[BLOCK_NAME];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.weight", name);
    int gain = block_vector(b, prefix, part, n, block_whole(), gemma ? GRAPH_INIT_ZERO : GRAPH_INIT_ONE);
    return graph_rmsnorm(b->g, label, x, gain, b->c->eps, gemma ? 1.0f : 0.0f);
}

/* The angles' table, for as many positions as there can be. */
static int rope_table(const builder *b)
{
    const int positions = b->capacity ? b->capacity : graph_tokens(b->g), D = llama_head(b->c);
    const size_t n = (size_t)positions * (size_t)D;
    double *exact = malloc(n * sizeof *exact);
    float *table = malloc(n * sizeof *table);
    int value = -1;
    if (exact && table) {
        llama_rope_table(b->c, positions, exact);
        for (size_t i = 0; i < n; i++)
            table[i] = (float)exact[i];
        value = graph_constant(b->g, "rope", shape_of(2, (int64_t)positions, (int64_t)D), table);
    } else {
        graph_fail_build(b->g, gt_fail(GT_NO_MEMORY, "cannot build '%s': no memory for the angles of %d positions",
                                       b->c->name, positions));
    }
    free(exact);
    free(table);
    return value;
}

static void begin(builder *b)
{
    const model_config *c = b->c;
    if (block_has_embedding(b) || (block_has_head(b) && !c->untied_head))
        b->tables[TOKENS] = block_weight(b, "", "embed_tokens", c->vocab, c->channels, block_own_tokens(b),
                                         c->init_deviation);
    b->tables[ROPE] = rope_table(b);
}

static int embed(builder *b)
{
    int x = graph_embed(b->g, "embed", block_tokens(b), b->tables[TOKENS], -1, -1);
    return b->c->own[LLAMA_GEMMA] != 0.0 ? graph_scale(b->g, "embed.scale", x, sqrtf((float)b->c->channels)) : x;
}

/* One of q and k: turned, and normalised where Qwen3 does. */
static int turned(const builder *b, const block_matrix *m, const char *norm_name, int x)
{
    char label[BLOCK_NAME];
    x = block_linear(b, m, x, ACT_NONE);
    if (b->c->own[LLAMA_HEAD_NORM] != 0.0)
        x = norm(b, m->prefix, norm_name, llama_head(b->c), x);
    snprintf(label, sizeof label, "%s%s.rope", m->prefix, m->name);
    return graph_rope(b->g, label, x, b->tables[ROPE], b->first);
}

static int attend(const builder *b, const char *prefix, int number, int x)
{
    const model_config *c = b->c;
    const int KV = llama_kv_heads(c), G = c->heads / KV;
    const int64_t C = c->channels, D = llama_head(c), H = c->heads;
    const int all_biased = c->own[LLAMA_ATTENTION_BIAS] != 0.0, biased = all_biased || c->own[LLAMA_QKV_BIAS] != 0.0;
    const tensor_slice kv = block_own(b, 0, 1, KV * D, D);
    tensor_slice q = kv, o;
    q.full *= G;
    q.begin *= G;
    q.count *= G;
    o = q;
    o.dim = 1;
    const int kv_heads = kv.parts ? (int)(kv.count / D) : KV;
    const block_matrix q_proj = { prefix, "self_attn.q_proj", H * D, C, q, biased, 0.0f };
    const block_matrix k_proj = { prefix, "self_attn.k_proj", KV * D, C, kv, biased, 0.0f };
    const block_matrix v_proj = { prefix, "self_attn.v_proj", KV * D, C, kv, biased, 0.0f };
    const block_matrix o_proj = { prefix, "self_attn.o_proj", C, H * D, o, all_biased, 0.0f };
    const graph_heads how = {
        .heads = kv_heads * G,
        .kv_heads = kv_heads,
        .size = (int)D,
        .first_head = (int)(q.begin / D),
        .all_heads = c->heads,
        .causal = 1,
        .window = llama_window(c, number),
        .scale = 1.0f / sqrtf((float)D),
        .drop = block_drop(b, c->dropout_attention)
    };
    char label[BLOCK_NAME];
    snprintf(label, sizeof label, "%sself_attn", prefix);
    int a = graph_gather_rows(b->g, label, norm(b, prefix, "input_layernorm", C, x));
    const graph_attention_in in = { .q = { turned(b, &q_proj, "self_attn.q_norm", a), 0 },
                                    .k = { turned(b, &k_proj, "self_attn.k_norm", a), 0 },
                                    .v = { block_linear(b, &v_proj, a, ACT_NONE), 0 } };
    return block_project(b, &o_proj, block_attention(b, prefix, "self_attn", &in, &how), x);
}

static int layer(builder *b, int number, int x)
{
    const model_config *c = b->c;
    const int64_t C = c->channels, I = c->inner;
    const int biased = c->own[LLAMA_MLP_BIAS] != 0.0;
    const tensor_slice columns = block_own(b, 0, 1, I, 0);
    char prefix[32], label[BLOCK_NAME];
    snprintf(prefix, sizeof prefix, "layers.%d.", number);
    snprintf(label, sizeof label, "%smlp", prefix);
    const block_matrix gate = { prefix, "mlp.gate_proj", I, C, columns, biased, 0.0f };
    const block_matrix up = { prefix, "mlp.up_proj", I, C, columns, biased, 0.0f };
    const block_matrix down = { prefix, "mlp.down_proj", C, I, block_own(b, 1, 1, I, 0), biased, 0.0f };
    x = attend(b, prefix, number, x);
    int a = graph_gather_rows(b->g, label, norm(b, prefix, "post_attention_layernorm", C, x));
    int y = block_linear(b, &gate, a, ACT_NONE);
    y = graph_gated(b->g, label, y, block_linear(b, &up, a, ACT_NONE), llama_activation(c));
    return block_project(b, &down, y, x);
}

static void head(builder *b, int x)
{
    const model_config *c = b->c;
    int table = b->tables[TOKENS];
    if (c->untied_head)
        table = block_weight(b, "", "lm_head", c->vocab, c->channels, block_own_tokens(b), c->init_deviation);
    block_head(b, "norm", norm(b, "", "norm", c->channels, x), table);
}

static const block_stack stack = { .begin = begin, .embed = embed, .layer = layer, .head = head };

gt_status llama_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    if (part->ranks > llama_kv_heads(c))
        return gt_fail(GT_MISUSE,
                       "cannot split '%s' over %d ranks: it has %d heads of keys and values, and every rank needs "
                       "one; use a smaller --tensor",
                       c->name, part->ranks, llama_kv_heads(c));
    return block_build_part(g, c, part, train, recompute, &stack);
}

gt_status llama_build_generate(graph *g, const model_config *c, const graph_part *part, int capacity)
{
    return block_build_generate(g, c, part, capacity, &stack);
}

double llama_flops_per_token(const model_config *c, int T)
{
    const double C = c->channels, D = llama_head(c), H = c->heads, KV = llama_kv_heads(c);
    const double layers = c->layers * (C * D * (2.0 * H + 2.0 * KV) + 3.0 * C * c->inner);
    double seen = 0.0;
    for (int i = 0; i < c->layers; i++) {
        const int window = llama_window(c, i);
        seen += window && 2 * window < T ? 2 * window : T;
    }
    return 6.0 * (layers + (double)c->vocab * C) + 6.0 * H * D * seen;
}
