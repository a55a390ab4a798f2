/* SPDX-License-Identifier: MIT */
/* tests/models/test_family.c - a second family, which no file of the program knows of: its description,
 * graph and weights work by what it says in one struct. It has what GPT-2 has not: tensors that files
 * join and split, one that may be missing, names and keys of its own. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/tensor/safetensors.h"
#include "models/gpt2.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the family -------------------------------------------------------------------------------
 *
 *   x = table[token]                            no positions
 *   layer:  x = x + low(gelu(up(attention(qkv(norm(x))))))
 *   loss = cross-entropy(x table', target)                                                      */

enum { TOY_SCALE };

static int named(graph *g, int layer, const char *name, shape s, graph_init init, float deviation)
{
    char text[64];
    snprintf(text, sizeof text, "blocks.%d.%s", layer, name);
    return graph_param(g, text, s, init, deviation);
}

static int toy_layer(graph *g, const model_config *c, int layer, int x)
{
    const int64_t C = c->channels;
    graph_layer(g, layer);
    int a = graph_layernorm(g, "norm", x, named(g, layer, "gain", shape_of(1, C), GRAPH_INIT_ONE, 0.0f),
                            named(g, layer, "shift", shape_of(1, C), GRAPH_INIT_ZERO, 0.0f), c->eps);
    a = graph_linear(g, "qkv", a, named(g, layer, "qkv", shape_of(2, 3 * C, C), GRAPH_INIT_NORMAL, 0.1f), -1, ACT_NONE,
                     -1, 0.0f);
    const graph_attention_in in = { .q = { a, 0 }, .k = { a, C }, .v = { a, 2 * C } };
    const graph_heads how = { .heads = c->heads,
                              .kv_heads = c->heads,
                              .size = (int)C / c->heads,
                              .causal = 1,
                              .scale = (float)c->own[TOY_SCALE] };
    a = graph_attention(g, "attn", &in, &how, -1);
    const int up = named(g, layer, "up", shape_of(2, C, C), GRAPH_INIT_NORMAL, 0.1f);
    const int low = named(g, layer, "low", shape_of(2, C, C), GRAPH_INIT_NORMAL, 0.1f);
    const int bias = named(g, layer, "bias", shape_of(1, C), GRAPH_INIT_ZERO, 0.0f);
    a = graph_linear(g, "up", a, up, bias, ACT_GELU_TANH, -1, 0.0f);
    return graph_linear(g, "low", a, low, -1, ACT_NONE, x, 0.0f);
}

static gt_status toy_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    const int64_t B = graph_batch(g), T = graph_tokens(g), C = c->channels;
    const int first = part->first_unit, last = first + part->units - 1, end = c->layers + 1;
    int x, input = -1, table = -1;
    if (first == 0 || last == end)
        table = graph_param(g, "table", shape_of(2, (int64_t)c->vocab, C), GRAPH_INIT_NORMAL, 0.1f);
    if (first == 0)
        x = graph_embed(g, "embed", graph_input(g, "tokens", DTYPE_I32, shape_of(2, B, T)), table, -1, -1);
    else
        x = input = graph_stage_input(g, "x", shape_of(3, B, T, C));
    for (int unit = first; unit <= last; unit++)
        if (unit > 0 && unit < end)
            x = toy_layer(g, c, unit - 1, x);
    graph_layer(g, -1);
    if (last == end)
        graph_head_loss(g, "loss", x, table, graph_input(g, "targets", DTYPE_I32, shape_of(2, B, T)), -1);
    return train ? graph_backward(g, last == end ? -1 : x, input, recompute) : graph_failed(g);
}

static void toy_batch(data_batch *out, const model_config *c, const loader *l, const char *split)
{
    (void)c;
    data_batch_next_token(out, l, split);
    out->field[0].below = 7;                    /* so that it can be told from others */
}

static double toy_flops(const model_config *c, int T)
{
    const double C = c->channels;
    return 6.0 * (5.0 * C * C * c->layers + C * c->vocab) + 6.0 * c->layers * C * T;
}

static void toy_complete(model_config *c)
{
    c->inner = c->channels;
}

static const char *const toy_types[] = { "toy", "toy_old", NULL };
static const model_field toy_fields[] = {
    { "depth", MODEL_SIZE, MODEL_AT(layers), MODEL_COMPUTES, MODEL_REQUIRED, NULL },
    { "width", MODEL_SIZE, MODEL_AT(channels), MODEL_COMPUTES, MODEL_REQUIRED, NULL },
    { "heads", MODEL_SIZE, MODEL_AT(heads), MODEL_COMPUTES, 1.0, NULL },
    { "window", MODEL_SIZE, MODEL_AT(context), MODEL_COMPUTES, 16.0, NULL },
    { "words", MODEL_SIZE, MODEL_AT(vocab), MODEL_COMPUTES, 0.0, NULL },
    { "norm_eps", MODEL_SHARE, MODEL_AT(eps), MODEL_COMPUTES, 1e-5, NULL },
    { "score_scale", MODEL_SHARE, MODEL_AT_OWN(TOY_SCALE), MODEL_COMPUTES, 0.25, NULL },
    { 0 }
};
static const model_preset toy_presets[] = { { "toy-one", "{ \"depth\": 1, \"width\": 8 }" }, { 0 } };
static const model_tensor toy_tensors[] = {
    { .ours = { "table" }, .theirs = { "embed.weight" } },
    { .ours = { "blocks.%d.gain" }, .theirs = { "layers.%d.norm.weight" } },
    { .ours = { "blocks.%d.shift" }, .theirs = { "layers.%d.norm.bias" }, .flags = MODEL_OPTIONAL },
    { .ours = { "blocks.%d.qkv" }, .theirs = { "layers.%d.q.weight", "layers.%d.k.weight", "layers.%d.v.weight" } },
    { .ours = { "blocks.%d.up", "blocks.%d.low" }, .theirs = { "layers.%d.both.weight" }, .flags = MODEL_TRANSPOSED },
    { .ours = { "blocks.%d.bias" }, .theirs = { "layers.%d.up.bias" } },
    { .ours = { "head" }, .theirs = { "head.weight" }, .flags = MODEL_BARE, .tied = "table" },
    { .theirs = { "layers.%d.rope" }, .flags = MODEL_MASK },
    { .flags = 0 }
};

static const model_family toy = {
    .name = "toy",
    .types = toy_types,
    .architecture = "ToyForCausalLM",
    .tokenizer = "char",
    .fields = toy_fields,
    .presets = toy_presets,
    .complete = toy_complete,
    .build_part = toy_part,
    .batch = toy_batch,
    .flops_per_token = toy_flops,
    .prefix = "toy.",
    .tensors = toy_tensors
};

/* This program's list, in place of models/families.c's. */
const model_family *const model_families[] = { &gpt2_family, &toy, NULL };

/* ---- its description ---------------------------------------------------------------------------- */

static gt_status load_text(model_config *c, const char *json)
{
    char *path = gt_path_join(check_folder(), "model.json");
    CHECK_OK(gt_file_write(path, json, strlen(json)));
    gt_status st = model_config_load(c, path);
    free(path);
    return st;
}

static void its_description_is_read_and_written(void)
{
    model_config c, other;
    char *json = NULL, text[96];
    CHECK_OK(load_text(&c, "{\"model_type\":\"toy_old\",\"depth\":2,\"width\":8,\"heads\":2,\"words\":11,"
                           "\"score_scale\":0.5,\"eos_token_id\":3}"));
    CHECK(!strcmp(c.family, "toy") && c.layers == 2 && c.channels == 8 && c.heads == 2 && c.context == 16
          && c.inner == 8 && c.vocab == 11 && c.own[TOY_SCALE] == 0.5);
    CHECK_OK(model_config_json(&json, &c));
    CHECK(strstr(json, "\"ToyForCausalLM\"") && strstr(json, "\"model_type\": \"toy\"")
          && strstr(json, "\"score_scale\": 0.5") && !strstr(json, "n_layer"));
    CHECK_OK(load_text(&other, json));
    CHECK(!model_config_difference(text, sizeof text, &c, &other, MODEL_COMPUTES));
    other.own[TOY_SCALE] = 0.125;
    CHECK(model_config_difference(text, sizeof text, &c, &other, MODEL_COMPUTES)
          && !strcmp(text, "score_scale 0.5, not 0.125"));
    CHECK_OK(model_config_load(&other, "toy-one"));
    CHECK(other.layers == 1 && other.own[TOY_SCALE] == 0.25 && !other.vocab_given);
    CHECK(!strcmp(model_tokenizer(&other), "char"));
    CHECK_OK(model_config_load(&other, "gpt2-tiny"));
    CHECK(model_config_difference(text, sizeof text, &c, &other, MODEL_COMPUTES)
          && !strcmp(text, "model_type toy, not gpt2"));
    /* Keys are the family's: those of the other one are not known in it. */
    CHECK_FAILS(load_text(&c, "{\"model_type\":\"toy\",\"depth\":1,\"width\":8,\"n_inner\":7}"), GT_UNSUPPORTED,
                "key 'n_inner' is not known");
    CHECK_FAILS(load_text(&c, "{\"model_type\":\"llama\"}"), GT_UNSUPPORTED, "is not gpt2 or toy");
    CHECK_FAILS(model_config_load(&c, "no-such-model"), GT_MISUSE, "gpt2-tiny toy-one");
    free(json);
}

/* ---- its graph and weights ---------------------------------------------------------------------- */

typedef struct place {
    dev_device *device;
    graph *graph;
    params *params;
} place;

static int place_open(place *p, const model_config *c)
{
    memset(p, 0, sizeof *p);
    return CHECK_OK(dev_open(&p->device, getenv("GT_TEST_DEVICE")))
           && CHECK_OK(graph_create(&p->graph, DTYPE_F32, 1, 4)) && CHECK_OK(model_build_loss(p->graph, c, 1, 0))
           && CHECK_OK(params_create(&p->params, p->device, p->graph, 0));
}

static void place_close(place *p)
{
    params_release(p->params);
    graph_release(p->graph);
    dev_close(p->device);
}

static model_config small(void)
{
    model_config c;
    CHECK_OK(model_config_load(&c, "toy-one"));
    c.layers = 2;
    c.heads = 2;
    c.vocab = 11;
    return c;
}

static void its_graph_is_built(void)
{
    const model_config c = small();
    graph *g = NULL;
    model_reference *r = NULL;
    CHECK(model_units(&c) == 4);
    CHECK(model_parameters(&c) == 11 * 8 + 2 * (2 * 8 + 5 * 8 * 8 + 8));
    CHECK_OK(graph_create(&g, DTYPE_F32, 1, 4));
    CHECK_OK(model_build_part(g, &c, &(graph_part){ .first_unit = 2, .units = 1 }, 1, 1));
    CHECK(graph_param_count(g) == 6 && graph_param_at(g, 0)->name[7] == '1');
    const loader l = { .tokens = 4 };
    data_batch b;
    model_batch(&b, &c, &l, "it");
    CHECK(b.fields >= 2 && b.field[0].below == 7 && b.field[1].count == 4 && b.loader == &l && !strcmp(b.split, "it"));
    CHECK_FAILS(model_build_generate(g, &c, 16), GT_UNSUPPORTED, "'toy' does not generate text");
    CHECK_FAILS(model_reference_create(&r, &c), GT_UNSUPPORTED, "'toy' has no reference");
    graph_release(g);
}

static const float *of(const st_file *f, const char *name)
{
    const st_tensor *t = st_find(f, name);
    CHECKF(t != NULL, "tensor '%s' is missing", name);
    return t ? (const float *)t->data : NULL;
}

/* FROM's file without the tensor `drop`, as folder TO; `copy` of it under the name `as`. */
static void change(const char *to, const char *from, const char *drop, const char *copy, const char *as)
{
    char *path = gt_path_join(to, "model.safetensors");
    st_file *f = NULL;
    st_writer *w = NULL;
    CHECK_OK(gt_folder_make(to));
    if (CHECK_OK(st_open(&f, from)) && CHECK_OK(st_writer_open(&w, path))) {
        for (size_t i = 0; i < st_count(f); i++)
            if (!drop || strcmp(st_at(f, i)->name, drop))
                CHECK_OK(st_writer_add(w, st_at(f, i)->name, st_at(f, i)->type, &st_at(f, i)->dims));
        const st_tensor *t = copy ? st_find(f, copy) : NULL;
        if (t)
            CHECK_OK(st_writer_add(w, as, t->type, &t->dims));
        CHECK_OK(st_writer_begin(w));
        for (size_t i = 0; i < st_count(f); i++)
            if (!drop || strcmp(st_at(f, i)->name, drop))
                CHECK_OK(st_writer_put(w, st_at(f, i)->data, st_at(f, i)->bytes));
        if (t)
            CHECK_OK(st_writer_put(w, t->data, t->bytes));
        CHECK_OK(st_writer_commit(w));
    }
    st_close(f);
    free(path);
}

static void its_weights_come_back(void)
{
    const model_config c = small();
    char *folder = gt_path_join(check_folder(), "toy"), *other = gt_path_join(check_folder(), "changed");
    enum { C = 8 };
    float qkv[3 * C * C], up[C * C], low[C * C], back[3 * C * C], shift[C];
    model_config read;
    place a = { 0 }, b = { 0 };
    st_file *f = NULL;
    if (!place_open(&a, &c) || !CHECK_OK(params_init(a.params, 5))
        || !CHECK_OK(model_export(&c, a.params, DTYPE_F32, folder)) || !CHECK_OK(st_open(&f, folder)))
        goto out;
    CHECK_OK(params_read(a.params, params_find(a.params, "blocks.1.qkv"), qkv));
    CHECK_OK(params_read(a.params, params_find(a.params, "blocks.1.up"), up));
    CHECK_OK(params_read(a.params, params_find(a.params, "blocks.1.low"), low));
    const char *const pieces[] = { "toy.layers.1.q.weight", "toy.layers.1.k.weight", "toy.layers.1.v.weight" };
    for (int i = 0; i < 3; i++) {
        const float *x = of(f, pieces[i]);
        CHECKF(x && !memcmp(x, qkv + i * C * C, sizeof up), "%s", pieces[i]);
    }
    const float *both = of(f, "toy.layers.1.both.weight");         /* (in, up's outputs and low's) */
    for (int in = 0; both && in < C; in++)
        for (int o = 0; o < C; o++)
            CHECK(both[in * 2 * C + o] == up[o * C + in] && both[in * 2 * C + C + o] == low[o * C + in]);
    CHECK(!st_find(f, "head.weight") && st_count(f) == 1 + 2 * 7);

    if (!CHECK_OK(model_config_load(&read, folder)) || !place_open(&b, &read))
        goto out;
    CHECK_OK(model_import(&read, b.params, folder));
    for (int i = 0; i < params_count(a.params); i++) {
        const size_t n = (size_t)shape_count(&params_info(a.params, i)->shape);
        CHECK_OK(params_read(a.params, i, qkv));
        CHECK_OK(params_read(b.params, i, back));
        CHECKF(!memcmp(qkv, back, 4 * n), "tensor '%s'", params_info(a.params, i)->name);
    }
    static const struct {
        const char *drop, *copy, *as;
        gt_status code;
        const char *says;
    } cases[] = {
        { "toy.layers.0.norm.bias", NULL, NULL, GT_OK, NULL },
        { NULL, "toy.embed.weight", "head.weight", GT_OK, NULL },
        { NULL, "toy.embed.weight", "toy.layers.7.rope", GT_OK, NULL },
        { "toy.layers.0.k.weight", NULL, NULL, GT_MISMATCH, "'layers.0.k.weight' is missing" },
        { "toy.layers.0.up.bias", NULL, NULL, GT_MISMATCH, "'layers.0.up.bias' is missing" },
        { NULL, "toy.layers.0.q.weight", "toy.layers.2.q.weight", GT_MISMATCH, "of a layer the model, with 2" },
        { NULL, "toy.layers.0.q.weight", "toy.layers.01.q.weight", GT_UNSUPPORTED, "is no part of the model" },
        { NULL, "toy.layers.0.q.weight", "toy.score.weight", GT_UNSUPPORTED, "is no part of the model" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        change(other, folder, cases[i].drop, cases[i].copy, cases[i].as);
        CHECK_FAILS(model_import(&read, b.params, other), cases[i].code, cases[i].says);
    }
    /* What may be missing is zero then, whatever was there. */
    for (int i = 0; i < C; i++)
        shift[i] = 1.0f;
    CHECK_OK(params_write(b.params, params_find(b.params, "blocks.0.shift"), shift));
    change(other, folder, "toy.layers.0.norm.bias", NULL, NULL);
    CHECK_OK(model_import(&read, b.params, other));
    CHECK_OK(params_read(b.params, params_find(b.params, "blocks.0.shift"), shift));
    for (int i = 0; i < C; i++)
        CHECK(shift[i] == 0.0f);
out:
    st_close(f);
    place_close(&b);
    place_close(&a);
    free(folder);
    free(other);
}

/* What the convention counts is what the graphs count, but for attention: the convention takes half of
 * the scores, since the other half is masked, and one pass less of them. */
static void flops_of_graphs_are_those_of_the_convention(void)
{
    static const char *const names[] = { "gpt2-124m", "gpt3-1.3b", "toy-one" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        graph *g = NULL;
        model_config c;
        enum { T = 8 };
        CHECK_OK(model_config_load(&c, names[i]));
        c.vocab = c.vocab ? c.vocab : 65;
        CHECK_OK(graph_create(&g, DTYPE_F32, 1, T));
        CHECK_OK(model_build_loss(g, &c, 1, 0));
        const double counted = graph_flops(g, GRAPH_FORWARD) + graph_flops(g, GRAPH_INPUT_GRAD)
                               + graph_flops(g, GRAPH_WEIGHT_GRAD);
        const double convention = T * model_flops_per_token(&c, T);
        const double scores = 6.0 * c.layers * (double)c.channels * T * T;
        CHECKF(fabs(counted - convention) <= scores + 1e-3 * convention, "%s: %.6g counted, %.6g by convention",
               names[i], counted, convention);
        graph_release(g);
    }
}

const check_case check_cases[] = {
    CASE(its_description_is_read_and_written),
    CASE(its_graph_is_built),
    CASE(its_weights_come_back),
    CASE(flops_of_graphs_are_those_of_the_convention),
    { 0 }
};
