/* SPDX-License-Identifier: MIT */
/* models/llama2c.c - checkpoints of llama2.c (github.com/karpathy/llama2.c), version 0.
 *
 *   i32      dim, hidden_dim, layers, heads, kv_heads, vocab (negative: a head of its own), seq_len
 *   fp32     token_embedding (V,C) · of all layers each: rms_att (C), wq (C,C), wk, wv (KV D,C), wo (C,C),
 *            rms_ffn (C), w1 (I,C), w2 (C,I), w3 (I,C) · rms_final (C) · angles (2,T,D/2) · wcls (V,C)
 *
 * Nothing in it says what it is; a file is one if it is as long as its first numbers say. Version 0 pairs
 * neighbouring columns of a head where the graph pairs columns D / 2 apart: rows of wq and wk are taken in the
 * other order, after which both compute the same. The angles are those of theta 10000 and not read. */
#include "models/llama.h"
#include "models/lora.h"

#include "host/base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 7, NEWER = 0x616b3432 };        /* "ak42" begins versions from 1 on */

typedef struct header {
    int32_t dim, hidden, layers, heads, kv_heads, vocab, positions;
} header;

static int32_t number_at(const unsigned char *p)
{
    return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

/* Are these sizes of a model? They fit 28 bits each, so that products of three fit 64 after a cap. */
static int is_sane(const header *h)
{
    const int32_t all[] = { h->dim, h->hidden, h->layers, h->heads, h->kv_heads, abs(h->vocab), h->positions };
    for (int i = 0; i < 7; i++)
        if (all[i] < 1 || all[i] > (i == 2 ? 1024 : 1 << 20))
            return 0;
    return h->dim % h->heads == 0 && h->heads % h->kv_heads == 0 && h->dim / h->heads % 2 == 0;
}

/* What is in a file, in its order. */
enum { EMBED, NORM_1, Q, K, V, O, NORM_2, GATE, DOWN, UP, FINAL, ANGLES, HEAD, PARTS };
typedef struct part {
    const char *name;               /* of the graph's parameter; NULL: not read */
    int layers;                     /* 1: once a layer                          */
    int64_t rows, cols;
} part;

static void parts_of(const header *h, part out[PARTS])
{
    const int64_t C = h->dim, I = h->hidden, D = C / h->heads, kv = D * h->kv_heads, n = abs(h->vocab);
    const part all[PARTS] = {
        [EMBED] = { "embed_tokens.weight", 0, n, C },
        [NORM_1] = { "input_layernorm.weight", 1, 1, C },
        [Q] = { "self_attn.q_proj.weight", 1, C, C },
        [K] = { "self_attn.k_proj.weight", 1, kv, C },
        [V] = { "self_attn.v_proj.weight", 1, kv, C },
        [O] = { "self_attn.o_proj.weight", 1, C, C },
        [NORM_2] = { "post_attention_layernorm.weight", 1, 1, C },
        [GATE] = { "mlp.gate_proj.weight", 1, I, C },
        [DOWN] = { "mlp.down_proj.weight", 1, C, I },
        [UP] = { "mlp.up_proj.weight", 1, I, C },
        [FINAL] = { "norm.weight", 0, 1, C },
        [ANGLES] = { NULL, 0, h->positions, D },
        [HEAD] = { h->vocab < 0 ? "lm_head.weight" : NULL, 0, h->vocab < 0 ? n : 0, C }
    };
    memcpy(out, all, sizeof all);
}

static int64_t numbers_of(const part *p, const header *h)
{
    return p->rows * p->cols * (p->layers ? h->layers : 1);
}

static int64_t bytes_of(const header *h)
{
    part all[PARTS];
    int64_t n = HEADER;
    parts_of(h, all);
    for (int i = 0; i < PARTS; i++)
        n += numbers_of(&all[i], h);
    return 4 * n;
}

/* The header of a map; 0 if it is none. */
static int read_header(const gt_map *m, header *h)
{
    if (m->size < 4 * HEADER)
        return 0;
    const unsigned char *p = m->data;
    *h = (header){ number_at(p),      number_at(p + 4),  number_at(p + 8), number_at(p + 12),
                   number_at(p + 16), number_at(p + 20), number_at(p + 24) };
    return is_sane(h);
}

/* A model's first numbers, in a file that its end belongs to: 1; else 0. Files that only begin so are named by
 * who tries to read them as something else. */
gt_status llama2c_describe(model_config *c, const char *path, int *is)
{
    gt_map m;
    header h;
    gt_status st = gt_map_open(&m, path);
    *is = 0;
    if (st)
        return st;
    const int one = read_header(&m, &h), newer = m.size >= 8 && number_at(m.data) == NEWER;
    if (newer)
        st = gt_fail(GT_UNSUPPORTED,
                     "'%s' is a checkpoint of llama2.c of version %" PRId32 "; write it as version 0 (export.py "
                     "--version 0) or as a Hugging Face folder (--version -1)",
                     path, number_at(m.data + 4));
    else if (one && bytes_of(&h) != (int64_t)m.size && m.data[3] == 0)      /* no text has a zero in its first word */
        st = gt_fail(GT_FORMAT,
                     "'%s' is no checkpoint of llama2.c: by its first numbers (dim %" PRId32 ", %" PRId32
                     " layers, %" PRId32 " tokens) it has %lld bytes, and it has %zu",
                     path, h.dim, h.layers, abs(h.vocab), (long long)bytes_of(&h), m.size);
    *is = !st && one && bytes_of(&h) == (int64_t)m.size;
    gt_map_close(&m);
    if (!*is)
        return st;
    snprintf(c->family, sizeof c->family, "llama");
    c->layers = h.layers;
    c->heads = h.heads;
    c->channels = h.dim;
    c->inner = h.hidden;
    c->context = h.positions;
    c->vocab = abs(h.vocab);
    c->vocab_given = 1;
    c->untied_head = h.vocab < 0;
    c->eps = 1e-5f;
    c->init_deviation = 0.02f;
    c->own[LLAMA_KV_HEADS] = h.kv_heads;
    c->own[LLAMA_HEAD] = h.dim / h.heads;
    c->own[LLAMA_THETA] = 10000.0;
    c->own[LLAMA_ROPE_FAST] = 32.0;
    c->own[LLAMA_ROPE_SLOW] = 1.0;
    c->own[LLAMA_ROPE_TRUNCATE] = 1.0;
    return GT_OK;
}

/* Where a parameter begins in the file, in numbers; NULL: it is not there. */
static const part *find_part(const header *h, part all[PARTS], const char *name, int64_t *at)
{
    int layer = -1, used = 0;
    const char *rest = name;
    if (sscanf(name, "layers.%d.%n", &layer, &used) == 1 && used)
        rest = name + used;
    *at = HEADER;
    for (int i = 0; i < PARTS; i++) {
        const part *p = &all[i];
        if (p->name && p->layers == (layer >= 0) && !strcmp(p->name, rest) && layer < h->layers) {
            *at += layer > 0 ? layer * p->rows * p->cols : 0;
            return p;
        }
        *at += numbers_of(p, h);
    }
    return NULL;
}

static int all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return 0;
    return 1;
}

static gt_status import_one(const gt_map *m, const header *h, part all[PARTS], params *p, int i)
{
    const graph_param_info *info = params_info(p, i);
    const int D = h->dim / h->heads;
    int64_t at;
    const part *x = find_part(h, all, info->name, &at);
    if (!x || shape_count(&info->full) != x->rows * x->cols)
        return gt_fail(GT_MISMATCH, "cannot import '%s': it has no '%s' as the model needs it", m->path, info->name);
    float *to = malloc((size_t)(x->rows * x->cols) * sizeof *to);
    if (!to)
        return gt_fail(GT_NO_MEMORY, "cannot import '%s': no memory for its numbers", info->name);
    const int turned = x == &all[Q] || x == &all[K];
    for (int64_t r = 0; r < x->rows; r++) {
        const int64_t d = r % D, pair = d % (D / 2) * 2 + d / (D / 2);      /* the column of a pair as it is there */
        const int64_t from = turned ? r - d + pair : r;
        memcpy(to + r * x->cols, m->data + 4 * (at + from * x->cols), (size_t)x->cols * sizeof *to);
    }
    gt_status st = all_finite(to, x->rows * x->cols)
                       ? params_write_full(p, i, to)
                       : gt_fail(GT_NUMERIC, "'%s' of '%s' holds a value that is not finite", info->name, m->path);
    free(to);
    return st;
}

gt_status llama2c_import(const model_config *c, params *p, const char *path)
{
    gt_map m;
    header h;
    part all[PARTS];
    gt_status st = gt_map_open(&m, path);
    if (st)
        return st;
    if (!read_header(&m, &h) || bytes_of(&h) != (int64_t)m.size || h.layers != c->layers)
        st = gt_fail(GT_MISMATCH, "cannot import '%s': it is no checkpoint of llama2.c of the model '%s'", path,
                     c->name);
    if (!st)
        parts_of(&h, all);
    for (int i = 0; !st && i < params_count(p); i++)
        if (!lora_is_adapter(params_info(p, i)))
            st = import_one(&m, &h, all, p, i);
    gt_map_close(&m);
    return st;
}
