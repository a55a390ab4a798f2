/* SPDX-License-Identifier: MIT */
/* tests/models/test_bert.c - BERT and RoBERTa: descriptions, every gradient against the reference in double, files. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/data/batch_mlm.h"
#include "host/graph/derived.h"
#include "host/graph/exec.h"
#include "models/bert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES \
    "\"hidden_size\":20,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":37,\"vocab_size\":43"

static gt_status load(model_config *c, const char *json)
{
    char *path = gt_path_join(check_folder(), "bert.json");
    CHECK_OK(gt_file_write(path, json, strlen(json)));
    const gt_status st = model_config_load(c, path);
    free(path);
    return st;
}

/* ---- descriptions ------------------------------------------------------------------------------ */

static void descriptions_are_read_and_written(void)
{
    model_config c, again;
    char *json = NULL;
    CHECK_OK(load(&c,
                  "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"]," SIZES
                  ",\"hidden_act\":\"relu\",\"classifier_dropout\":null,\"hidden_dropout_prob\":0.2,"
                  "\"position_embedding_type\":\"absolute\",\"id2label\":{\"0\":\"no\",\"1\":\"yes\",\"2\":\"maybe\"},"
                  "\"label2id\":{\"no\":0},\"pooler_type\":\"first_token_transform\",\"is_decoder\":false}"));
    CHECK(c.task == MODEL_CLASSIFY && c.labels == 3 && !strcmp(c.label[2], "maybe") && c.context == 512);
    CHECK(c.own[BERT_TYPES] == 2.0 && c.own[BERT_ACTIVATION] == (double)ACT_RELU && (double)c.eps < 2e-12);
    CHECK(fabs(c.own[BERT_DROP_CLASSIFIER] - 0.2) < 1e-6 && c.dropout_embed == c.dropout_residual);
    CHECK_OK(model_config_json(&json, &c));
    CHECK(json && strstr(json, "BertForSequenceClassification") && strstr(json, "\"maybe\": 2"));
    CHECK_OK(load(&again, json ? json : "{}"));
    CHECK(again.task == MODEL_CLASSIFY && again.labels == 3 && !memcmp(again.own, c.own, sizeof c.own));
    free(json);

    CHECK_OK(load(&c, "{\"model_type\":\"roberta\"," SIZES ",\"max_position_embeddings\":514,\"pad_token_id\":1}"));
    CHECK(c.context == 512 && c.own[BERT_PADDING] == 1.0 && c.task == MODEL_MLM);
    CHECK_OK(load(&c, "{\"model_type\":\"bert\",\"architectures\":[\"BertForPreTraining\"]," SIZES "}"));
    CHECK(c.task == MODEL_MLM && c.pairs == 1);
    CHECK_OK(model_config_load(&c, "bert-large-cased"));
    CHECK(c.layers == 24 && c.channels == 1024 && c.inner == 4096 && c.vocab == 28996 && c.heads == 16);
    CHECK_OK(model_config_load(&c, "bert-base"));
    /* As published: 109,482,240 of BertModel without its pooling's 590,592, and the head's 622,650. */
    CHECK(model_parameters(&c) == 109482240 - 590592 + 622650);
    /* RobertaForMaskedLM of roberta-base and roberta-large, with the tokenizer's 50,265 tokens. */
    CHECK_OK(model_config_load(&c, "roberta-base"));
    CHECK(c.vocab == 50265 && model_parameters(&c) == 124697433 && c.context == 512 && c.own[BERT_PADDING] == 1.0);
    CHECK_OK(model_config_load(&c, "roberta-large"));
    CHECK(c.vocab == 50265 && model_parameters(&c) == 355412057);
}

static void what_changes_the_model_is_refused(void)
{
    static const struct {
        const char *json, *part;
    } bad[] = {
        { "{\"model_type\":\"bert\"," SIZES ",\"position_embedding_type\":\"relative_key\"}", "'relative_key'" },
        { "{\"model_type\":\"bert\"," SIZES ",\"is_decoder\":true}", "'is_decoder' is true" },
        { "{\"model_type\":\"bert\"," SIZES ",\"add_cross_attention\":true}", "'add_cross_attention'" },
        { "{\"model_type\":\"bert\"," SIZES ",\"problem_type\":\"regression\"}", "problem_type 'regression'" },
        { "{\"model_type\":\"bert\"," SIZES ",\"hidden_act\":\"mish\"}", "hidden_act 'mish'" },
        { "{\"model_type\":\"bert\"," SIZES ",\"embedding_size\":128}", "key 'embedding_size' is not known" },
        { "{\"model_type\":\"bert\"," SIZES ",\"id2label\":{\"0\":\"a\",\"2\":\"b\"}}", "has no name for 1" },
        { "{\"model_type\":\"bert\"," SIZES ",\"num_attention_heads\":3}", "duplicate" }
    };
    model_config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const gt_status st = load(&c, bad[i].json);
        CHECKF(st && strstr(gt_message(), bad[i].part), "%s: %s", bad[i].part, gt_message());
        gt_message_clear();
    }
    CHECK_OK(model_config_load(&c, "gpt2-tiny"));
    CHECK_FAILS(model_config_task(&c, "mlm"), GT_MISUSE, "models of the family 'gpt2' do lm, not mlm");
    CHECK_OK(model_config_task(&c, "lm"));
    CHECK_OK(model_config_load(&c, "bert-tiny"));
    CHECK_FAILS(model_config_task(&c, "lm"), GT_MISUSE, "do mlm or classify, not lm");
}

/* ---- gradients ---------------------------------------------------------------------------------- */

enum { B = 2, T = 20, P = 3 };

typedef struct rig {
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} rig;

static int rig_open(rig *r, const model_config *c, int recompute)
{
    *r = (rig){ 0 };
    if (!CHECK_OK(dev_open(&r->d, NULL)) || !CHECK_OK(kernel_set_create(&r->k, r->d, DTYPE_F32))
        || !CHECK_OK(gemm_context_create(&r->gemm, r->d, "tiled")) || !CHECK_OK(graph_create(&r->g, DTYPE_F32, B, T))
        || !CHECK_OK(model_build_loss(r->g, c, 1, recompute)) || !CHECK_OK(params_create(&r->p, r->d, r->g, 1))
        || !CHECK_OK(params_init(r->p, 3)) || !CHECK_OK(exec_arena_create(&r->arena, r->d)))
        return 0;
    const exec_options o = { .device = r->d, .kernels = r->k, .gemm = r->gemm, .params = r->p, .arena = r->arena };
    return CHECK_OK(exec_create(&r->e, r->g, &o)) && CHECK_OK(exec_ready(r->e));
}

static void rig_close(rig *r)
{
    exec_release(r->e);
    exec_arena_release(r->arena);
    params_release(r->p);
    graph_release(r->g);
    gemm_context_release(r->gemm);
    kernel_set_release(r->k);
    dev_close(r->d);
}

static void give(rig *r, const char *name, const void *from, size_t bytes)
{
    if (exec_buffer(r->e, name))
        CHECK_OK(dev_write(r->d, exec_buffer(r->e, name), 0, from, bytes));
}

/* Numbers that are not 0 and 1 in vectors either, the same on both sides. */
static void fill_both(rig *r, model_reference *ref)
{
    for (int i = 0; i < params_count(r->p); i++) {
        const int64_t n = shape_count(&params_info(r->p, i)->shape);
        float *x = malloc((size_t)n * sizeof *x);
        gt_random random;
        gt_random_init(&random, 5, (uint64_t)i);
        gt_random_normal(&random, x, (size_t)n, strstr(params_info(r->p, i)->name, "LayerNorm.weight") ? 1.0f : 0.0f,
                         0.3f);
        CHECK_OK(params_write(r->p, i, x));
        model_reference_tensor *t = model_reference_find(ref, params_info(r->p, i)->name);
        CHECKF(t && t->count == n, "%s", params_info(r->p, i)->name);
        for (int64_t k = 0; t && k < n; k++)
            t->value[k] = (double)x[k];
        free(x);
    }
    CHECK_OK(params_refresh(r->p, r->k));
}

static void compare_gradients(rig *r, model_reference *ref)
{
    for (int i = 0; i < params_count(r->p); i++) {
        const int64_t n = shape_count(&params_info(r->p, i)->shape);
        const model_reference_tensor *t = model_reference_find(ref, params_info(r->p, i)->name);
        float *x = calloc((size_t)n, sizeof *x);
        double error = 0.0, size = 0.0;
        CHECK_OK(params_read_grad(r->p, i, x));
        for (int64_t k = 0; t && k < n; k++) {
            error += ((double)x[k] - t->grad[k]) * ((double)x[k] - t->grad[k]);
            size += t->grad[k] * t->grad[k];
        }
        CHECKF(size > 0.0 && sqrt(error / size) < 1e-4, "%s: %g of %g", params_info(r->p, i)->name, sqrt(error),
               sqrt(size));
        free(x);
    }
}

static void matches_the_reference(const char *json, int recompute)
{
    model_config c;
    model_reference *ref = NULL;
    rig r = { 0 };
    int32_t tokens[B * T], all[B * T], order[B * T], starts[B * T + 2], counts[64];
    static const int32_t places[B * P] = { 4, 0, 19, 7, 0, 0 }, kinds[B * T] = { 0 }, lengths[B] = { T, T };
    int32_t targets[B * P] = { 5, 8, 11, 2, -1, -1 };
    const float scale = 0.25f;          /* 1 / targets */
    float sum = 0.0f;
    double loss = 0.0;
    for (int i = 0; i < B * T; i++) {
        tokens[i] = (i * i + 3) % 43;
        all[i] = -1;
    }
    for (int i = 0; i < B * P; i++)
        if (targets[i] >= 0)
            all[i / P * T + places[i]] = targets[i];
    CHECK(data_mask_places(T) == P);
    CHECK_OK(load(&c, json));
    model_config_dropout(&c, 0.0f);
    if (rig_open(&r, &c, recompute) && CHECK_OK(model_reference_create(&ref, &c))) {
        fill_both(&r, ref);
        give(&r, "tokens", tokens, sizeof tokens);
        give(&r, "token_types", kinds, sizeof kinds);
        give(&r, "lengths", lengths, sizeof lengths);
        give(&r, "places", places, sizeof places);
        give(&r, "targets", targets, sizeof targets);
        give(&r, "grad_scale", &scale, sizeof scale);
        kernel_embed_sort(tokens, B * T, 43, order, starts, counts);
        give(&r, "embed_order", order, sizeof order);
        give(&r, "embed_starts", starts, sizeof starts);
        CHECK_OK(exec_add(r.e, 0));
        CHECK_OK(exec_run(r.e, EXEC_FORWARD));
        CHECK_OK(exec_run(r.e, EXEC_BACKWARD));
        CHECK_OK(dev_wait(r.d));
        CHECK_OK(dev_read(r.d, exec_buffer(r.e, "loss_sum"), 0, &sum, sizeof sum));
        CHECK_OK(model_reference_run(ref, B, T, tokens, all, NULL, &loss));
        CHECKF(fabs((double)(sum * scale) - loss) < 1e-5 * loss, "loss %g, and %g", (double)(sum * scale), loss);
        compare_gradients(&r, ref);
    }
    model_reference_release(ref);
    rig_close(&r);
}

static void bert_is_its_reference(void)
{
    matches_the_reference("{\"model_type\":\"bert\",\"max_position_embeddings\":24," SIZES "}", 0);
    matches_the_reference("{\"model_type\":\"bert\",\"max_position_embeddings\":20,\"hidden_act\":\"tanh\"," SIZES "}",
                          1);
}

static void roberta_is_its_reference(void)
{
    matches_the_reference("{\"model_type\":\"roberta\",\"max_position_embeddings\":26,\"type_vocab_size\":1," SIZES "}",
                          0);
}

/* ---- files ---------------------------------------------------------------------------------------- */

/* Whole numbers instead of what was drawn, so that tensors can be told apart; 0: checks that they are so. */
static void stamp(params *p, int writes, const char *only)
{
    for (int i = 0; i < params_count(p); i++) {
        const int64_t n = shape_count(&params_info(p, i)->shape);
        float *x = calloc((size_t)n, sizeof *x);
        if (only && !strstr(params_info(p, i)->name, only)) {
            free(x);
            continue;
        }
        for (int64_t k = 0; writes && k < n; k++)
            x[k] = (float)(strlen(params_info(p, i)->name) * 1000 + (size_t)k);
        CHECK_OK(writes ? params_write(p, i, x) : params_read(p, i, x));
        for (int64_t k = 0; k < n; k++)
            if (x[k] != (float)(strlen(params_info(p, i)->name) * 1000 + (size_t)k)) {
                CHECKF(0, "%s, element %lld is %g", params_info(p, i)->name, (long long)k, (double)x[k]);
                break;
            }
        free(x);
    }
}

static params *params_of(const model_config *c, dev_device *d, graph **g)
{
    params *p = NULL;
    CHECK_OK(graph_create(g, DTYPE_F32, 1, 4));
    CHECK_OK(model_build_loss(*g, c, 0, 0));
    CHECK_OK(params_create(&p, d, *g, 0));
    return p;
}

static void heads_may_be_new_or_left_out(void)
{
    static const char *const types[] = { "bert", "roberta" };
    dev_device *d = NULL;
    check_allow_warnings();
    if (!CHECK_OK(dev_open(&d, NULL)))
        return;
    for (int i = 0; i < 2; i++) {
        model_config c, other;
        graph *g = NULL, *h = NULL;
        char json[512], *folder = gt_path_join(check_folder(), types[i]);
        snprintf(json, sizeof json, "{\"model_type\":\"%s\"," SIZES "}", types[i]);
        CHECK_OK(load(&c, json));
        params *p = params_of(&c, d, &g);
        stamp(p, 1, NULL);
        CHECK_OK(model_export(&c, p, DTYPE_F32, folder));
        other = c;
        CHECK_OK(model_config_task(&other, "classify"));
        params *q = params_of(&other, d, &h);
        CHECK_FAILS(model_import(&other, q, folder), GT_MISMATCH, "is missing");
        other.new_heads = 1;
        other.head_seed = 4;
        CHECK_OK(model_import(&other, q, folder));
        stamp(q, 0, "encoder");
        stamp(q, 0, "embeddings");
        float bias[2] = { 1.0f, 1.0f };
        CHECK_OK(params_read(q, params_find(q, "classifier.bias"), bias));
        CHECK(bias[0] == 0.0f && bias[1] == 0.0f);
        CHECK_OK(model_import(&c, p, folder));
        stamp(p, 0, NULL);
        params_release(p);
        params_release(q);
        graph_release(g);
        graph_release(h);
        free(folder);
    }
    dev_close(d);
}

const check_case check_cases[] = {
    CASE(descriptions_are_read_and_written), CASE(what_changes_the_model_is_refused), CASE(bert_is_its_reference),
    CASE(roberta_is_its_reference),          CASE(heads_may_be_new_or_left_out),      { 0 }
};
