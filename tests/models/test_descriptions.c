/* SPDX-License-Identifier: MIT */
/* tests/models/test_descriptions.c - what a model is said to be: presets, config.json in all its dialects, what is
 * refused of them, and what is counted of a description alone. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/graph/graph_products.h"
#include "models/gpt2.h"
#include "models/llama.h"
#include "models/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void presets_have_the_published_sizes(void)
{
    static const struct {
        const char *name;
        int64_t count;
    } known[] = {
        { "gpt2-124m", 124439808 },    { "gpt2-355m", 354823168 },    { "gpt2-774m", 774030080 },
        { "gpt2-1558m", 1557611200 },  { "gpt3-175b", 174604259328 }, { "llama-7b", 6738415616 },
        { "llama2-13b", 13015864320 }, { "llama2-70b", 68976648192 }, { "llama3-8b", 8030261248 },
        { "llama3.2-1b", 1235814400 }, { "llama3.2-3b", 3212749824 }, { "tinyllama-1.1b", 1100048384 },
        { "smollm2-135m", 134515008 }, { "smollm2-360m", 361821120 }, { "smollm2-1.7b", 1711376384 },
        { "mistral-7b", 7241732096 },  { "qwen2.5-0.5b", 494032768 }, { "qwen2.5-1.5b", 1543714304 },
        { "qwen2.5-3b", 3085938688 },  { "qwen2.5-7b", 7615616512 },  { "qwen3-0.6b", 596049920 },
        { "qwen3-1.7b", 1720574976 },  { "qwen3-4b", 4022468096 },    { "qwen3-8b", 8190735360 },
        { "gemma-2b", 2506172416 },    { "gemma-7b", 8537680896 },
    };
    model_config c;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        CHECK_OK(model_config_load(&c, known[i].name));
        CHECKF(model_parameters(&c) == known[i].count, "%s has %lld", known[i].name, (long long)model_parameters(&c));
    }
}

/* By hand: two tables and positions, and of a layer two norms and four products with biases. */
static int64_t by_hand(const model_config *c)
{
    const int64_t C = c->channels, I = c->inner;
    const int64_t layer = 4 * C + 3 * C * C + 3 * C + C * C + C + 2 * C * I + I + C;
    const int64_t tables = (c->untied_head ? 2 : 1) * (int64_t)c->vocab + c->context;
    return tables * C + c->layers * layer + 2 * C;
}

/* How many products of a graph have these sizes and transposes. */
typedef struct product_count {
    int M, N, K, trans_a, trans_b, found, all;
} product_count;

static void count_product(void *context, const gemm_desc *d)
{
    product_count *p = context;
    p->all++;
    p->found += d->M == p->M && d->N == p->N && d->K == p->K && d->trans_a == p->trans_a && d->trans_b == p->trans_b;
}

/* Of a layer four, each with a gradient of its input and one of its weights; of the head one, and its two. An
 * adapter's are added to those of its matrix, whose own weights have no gradient. */
static void products_of_a_step_are_those_that_are_multiplied(void)
{
    enum { B = 2, T = 32, R = B * T };
    model_config c;
    CHECK_OK(model_config_load(&c, "gpt2-tiny"));
    c.vocab = 300;
    const int C = c.channels, I = c.inner, L = c.layers, V = c.vocab;
    const struct {
        int M, N, K, trans_a, trans_b, want;
    } expected[] = { { R, 3 * C, C, 0, 1, L }, { R, C, 3 * C, 0, 0, L }, { 3 * C, C, R, 1, 0, L }, { R, I, C, 0, 1, L },
                     { R, C, I, 0, 0, L },     { I, C, R, 1, 0, L },     { R, C, I, 0, 1, L },     { R, I, C, 0, 0, L },
                     { C, I, R, 1, 0, L },     { R, C, C, 0, 1, L },     { R, C, C, 0, 0, L },     { C, C, R, 1, 0, L },
                     { R, V, C, 0, 1, 1 },     { R, C, V, 0, 0, 1 },     { V, C, R, 1, 0, 1 } };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        product_count p = {
            expected[i].M, expected[i].N, expected[i].K, expected[i].trans_a, expected[i].trans_b, 0, 0
        };
        graph *g = NULL;
        CHECK_OK(graph_create(&g, DTYPE_F32, B, T));
        CHECK_OK(model_build_loss(g, &c, 1, 0));
        graph_products(g, count_product, &p);
        CHECKF(p.found == expected[i].want && p.all == 12 * L + 3, "%d x %d x %d: %d of %d", p.M, p.N, p.K, p.found,
               p.all);
        graph_release(g);
    }
    c.tuning.rank = 4;
    c.tuning.alpha = 8.0f;
    product_count p = { R, 3 * C, 4, 0, 1, 0, 0 };
    graph *g = NULL;
    CHECK_OK(graph_create(&g, DTYPE_F32, B, T));
    CHECK_OK(model_build_loss(g, &c, 1, 0));
    graph_products(g, count_product, &p);
    CHECKF(p.found == L, "%d of adapters", p.found);
    graph_release(g);
}

/* Building a graph allocates nothing on a device, so even the largest can be counted. */
static void parameters_are_counted_right(void)
{
    for (int i = 0; model_preset_name(i); i++) {
        model_config c;
        CHECK_OK(model_config_load(&c, model_preset_name(i)));
        CHECK_OK(model_config_check(&c));
        if (strcmp(c.family, "gpt2"))
            continue;
        if (!c.vocab)
            c.vocab = 65;
        c.untied_head = i % 2;
        CHECKF(model_parameters(&c) == by_hand(&c), "%s: counted %lld, by hand %lld", c.name,
               (long long)model_parameters(&c), (long long)by_hand(&c));
    }
}

static void descriptions_come_back(void)
{
    char *text = NULL, *path = gt_path_join(check_folder(), "round.json");
    const model_config c = {
        .family = "gpt2",
        .name = "round",
        .layers = 5,
        .heads = 3,
        .channels = 96,
        .inner = 100,
        .context = 77,
        .vocab = 1234,
        .vocab_given = 1,
        .own = { [GPT2_UNSCALED] = 1.0, [GPT2_BY_LAYER] = 1.0 },
        .untied_head = 1,
        .dropout_embed = 0.1f,
        .dropout_attention = 0.2f,
        .dropout_residual = 0.30000001f,
        .eps = 1e-5f,
        .init_deviation = 0.0123456f
    };
    model_config back;
    CHECK_OK(model_config_json(&text, &c));
    CHECK(strstr(text, "1e-5") || strstr(text, "1.0e-5") || strstr(text, "1e-05"));
    CHECK_OK(gt_file_write(path, text, strlen(text)));
    CHECK_OK(model_config_load(&back, path));
    CHECK(!strcmp(back.name, c.name) && back.layers == c.layers && back.heads == c.heads && back.channels == c.channels
          && back.inner == c.inner && back.context == c.context && back.vocab == c.vocab && back.vocab_given);
    CHECK(back.own[GPT2_UNSCALED] != 0.0 && back.own[GPT2_BY_LAYER] != 0.0 && back.untied_head);
    CHECK(back.dropout_embed == c.dropout_embed && back.dropout_attention == c.dropout_attention
          && back.dropout_residual == c.dropout_residual && back.eps == c.eps
          && back.init_deviation == c.init_deviation);
    free(text);
    free(path);
}

static void hostile_descriptions_are_refused(void)
{
    static const struct {
        const char *json;
        gt_status code;
        const char *part;
    } bad[] = {
        { "", GT_FORMAT, "line 1" },
        { "{", GT_FORMAT, "line 1" },
        { "[]", GT_FORMAT, "not a JSON object" },
        { "{}", GT_FORMAT, "has no model_type, and its keys do not tell" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_layer\":2}", GT_FORMAT, "duplicate" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":-1,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'n_layer'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1.5,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'n_layer'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":9223372036854775807,\"n_head\":1,\"n_embd\":8}", GT_FORMAT,
          "'n_layer'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":99999999999999999999,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "line 1" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":268435457}", GT_FORMAT, "'n_embd'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1025,\"n_head\":1,\"n_embd\":8}", GT_MISUSE, "more than 1024" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":3,\"n_embd\":8}", GT_MISUSE, "do not divide" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":512}", GT_UNSUPPORTED, "256" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"vocab_size\":\"x\"}", GT_FORMAT,
          "'vocab_size'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"attn_pdrop\":1.0}", GT_FORMAT,
          "'attn_pdrop'" },
        { "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"attn_pdrop\":-0.1}", GT_FORMAT,
          "'attn_pdrop'" },
        { "{\"model_type\":\"opt\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}", GT_UNSUPPORTED, "opt" },
        { "{\"model_type\":\"llama\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'hidden_size' is missing" },
        { "{\"model_type\":\"gpt2\",\"activation_function\":\"tanh\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}",
          GT_UNSUPPORTED, "'tanh' is not gelu_new, gelu_pytorch_tanh, gelu, relu, silu or swish" },
#define SIZES "\"model_type\":\"gpt2\",\"n_layer\":1,\"n_head\":2,\"n_embd\":8"
        /* What would change the model, and what contradicts a size. */
        { "{\"scale_attn_weights\":null," SIZES "}", GT_FORMAT, "'scale_attn_weights' is neither" },
        { "{\"scale_attn_weights\":0.5," SIZES "}", GT_FORMAT, "'scale_attn_weights' is neither" },
        { "{\"tie_word_embeddings\":null," SIZES "}", GT_FORMAT, "'tie_word_embeddings' is neither" },
        { "{\"scale_attn_by_inverse_layer_idx\":1," SIZES "}", GT_FORMAT,
          "'scale_attn_by_inverse_layer_idx' is neither" },
        { "{\"add_cross_attention\":true," SIZES "}", GT_UNSUPPORTED, "'add_cross_attention' is true" },
        { "{\"is_encoder_decoder\":true," SIZES "}", GT_UNSUPPORTED, "'is_encoder_decoder'" },
        { "{\"pruned_heads\":{\"0\":[1]}," SIZES "}", GT_UNSUPPORTED, "'pruned_heads' is {\"0\":[1]}" },
        { "{\"quantization_config\":{\"bits\":4}," SIZES "}", GT_UNSUPPORTED, "'quantization_config'" },
        { "{\"auto_map\":{\"AutoModel\":\"m.M\"}," SIZES "}", GT_UNSUPPORTED, "'auto_map'" },
        { "{\"multi_query\":true," SIZES "}", GT_UNSUPPORTED, "key 'multi_query' is not known here" },
        { "{\"rope_theta\":10000," SIZES "}", GT_UNSUPPORTED, "key 'rope_theta'" },
        { "{\"n_ctx\":512," SIZES "}", GT_FORMAT, "'n_ctx' is 512, which contradicts 1024" },
        { "{\"hidden_size\":16," SIZES "}", GT_FORMAT, "'hidden_size' is 16, which contradicts 8" },
        { "{\"num_hidden_layers\":\"1\"," SIZES "}", GT_FORMAT, "'num_hidden_layers' is \"1\"" },
        { "{\"activation_function\":7," SIZES "}", GT_UNSUPPORTED, "that is no text' is not gelu_new" },
        { "{\"activation_function\":null," SIZES "}", GT_UNSUPPORTED, "'null' is not gelu_new" },
        { "{\"model_type\":null,\"n_layer\":1,\"n_head\":2,\"n_embd\":8}", GT_UNSUPPORTED, "'null' is not gpt2" },
    };
    char *path = gt_path_join(check_folder(), "hostile.json");
    model_config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_OK(gt_file_write(path, bad[i].json, strlen(bad[i].json)));
        CHECK_FAILS(model_config_load(&c, path), bad[i].code, bad[i].part);
    }
    CHECK_FAILS(model_config_load(&c, "no-such-model"), GT_MISUSE, "gpt2-124m");
    /* Deeper than any reader should go. */
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    CHECK_OK(gt_file_write(path, deep, 100000));
    CHECK_FAILS(model_config_load(&c, path), GT_FORMAT, "line 1");
    free(deep);
    free(path);
}

#define LLAMA_SIZES \
    "\"model_type\":\"llama\",\"hidden_size\":24,\"intermediate_size\":37,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":3"

/* What transformers 4 and 5 say of one model is one description, and comes back from what is written of it. */
static void positions_are_described_in_two_ways(void)
{
    static const char *const same[] = {
        "\"rope_theta\":5000.0,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"truncate\":false}",
        "\"rope_theta\":5000.0,\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"yarn\",\"factor\":4,"
        "\"truncate\":false}",
        "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":5000.0,\"factor\":4.0,\"truncate\":false}",
        "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":5000,\"factor\":4.0,\"truncate\":false,"
        "\"partial_rotary_factor\":1.0},\"rope_theta\":5000.0,\"dtype\":\"bfloat16\",\"head_dim\":null",
    };
    char *path = gt_path_join(check_folder(), "rope.json"), text[1024], what[128], *back = NULL;
    model_config first, c;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        snprintf(text, sizeof text, "{" LLAMA_SIZES ",\"vocab_size\":9,%s}", same[i]);
        CHECK_OK(gt_file_write(path, text, strlen(text)));
        if (!CHECK_OK(model_config_load(&c, path)))
            continue;
        if (i == 0)
            first = c;
        CHECKF(!model_config_difference(what, sizeof what, &first, &c, MODEL_COMPUTES), "%zu: %s", i, what);
        CHECK(c.own[LLAMA_THETA] == 5000.0 && c.own[LLAMA_ROPE] == LLAMA_ROPE_YARN && c.own[LLAMA_ROPE_FACTOR] == 4.0
              && c.own[LLAMA_ROPE_TRUNCATE] == 0.0 && c.own[LLAMA_ROPE_ORIGINAL] == c.context
              && c.own[LLAMA_KV_HEADS] == 3.0 && c.own[LLAMA_HEAD] == 8.0 && c.untied_head);
        CHECK_OK(model_config_json(&back, &c));
        CHECK_OK(gt_file_write(path, back, strlen(back)));
        CHECK_OK(model_config_load(&c, path));
        CHECKF(!model_config_difference(what, sizeof what, &first, &c, MODEL_COMPUTES), "%zu, back: %s", i, what);
        free(back);
    }
    free(path);
}

/* Which layers have a window: by the first of them, or layer by layer. */
static void windows_are_described_in_two_ways(void)
{
#define QWEN \
    "\"hidden_size\":24,\"intermediate_size\":37,\"num_hidden_layers\":3,\"num_attention_heads\":3," \
    "\"num_key_value_heads\":1,\"head_dim\":8,\"sliding_window\":7"
#define FULL "\"full_attention\""
#define SLIDES "\"sliding_attention\""
    static const struct {
        const char *json;
        int window[3];
    } known[] = {
        { "\"model_type\":\"qwen3\"," QWEN, { 0, 0, 0 } },
        { "\"model_type\":\"qwen3\",\"use_sliding_window\":true," QWEN, { 0, 0, 0 } },    /* from layer 28 on */
        { "\"model_type\":\"qwen3\",\"use_sliding_window\":true,\"max_window_layers\":0," QWEN, { 7, 7, 7 } },
        { "\"model_type\":\"qwen3\",\"use_sliding_window\":true,\"layer_types\":[" FULL "," SLIDES "," SLIDES "]," QWEN,
          { 0, 7, 7 } },
        { "\"model_type\":\"mistral\"," QWEN, { 7, 7, 7 } },
    };
    char *path = gt_path_join(check_folder(), "window.json"), text[1024];
    model_config c;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        snprintf(text, sizeof text, "{%s}", known[i].json);
        CHECK_OK(gt_file_write(path, text, strlen(text)));
        if (CHECK_OK(model_config_load(&c, path)))
            for (int l = 0; l < 3; l++)
                CHECKF(llama_window(&c, l) == known[i].window[l], "%zu, layer %d: %d", i, l, llama_window(&c, l));
    }
    free(path);
}

/* Of Llama's relatives: whatever would change what they compute is refused by its key's name. */
static void what_is_not_computed_is_refused_by_name(void)
{
    static const struct {
        const char *json;
        gt_status code;
        const char *part;
    } bad[] = {
#define ROPE(text) "{" LLAMA_SIZES ",\"rope_scaling\":{" text "}}"
        { ROPE("\"rope_type\":\"longrope\",\"factor\":2.0"), GT_UNSUPPORTED,
          "rope_scaling.rope_type 'longrope' is not default, linear, dynamic, yarn or llama3" },
        { ROPE("\"type\":\"mrope\",\"mrope_section\":[1,2]"), GT_UNSUPPORTED, "'mrope'" },
        { ROPE("\"rope_type\":\"linear\",\"factor\":2.0,\"short_factor\":[1.0]"), GT_UNSUPPORTED,
          "'rope_scaling.short_factor'" },
        { ROPE("\"rope_type\":\"linear\""), GT_FORMAT, "'factor'" },
        { ROPE("\"rope_type\":\"linear\",\"factor\":\"two\""), GT_FORMAT, "'rope_scaling.factor'" },
        { ROPE("\"rope_type\":\"llama3\",\"factor\":2.0"), GT_FORMAT, "'low_freq_factor'" },
        { ROPE("\"rope_type\":\"llama3\",\"factor\":2.0,\"low_freq_factor\":4,\"high_freq_factor\":1"), GT_FORMAT,
          "must be above 'low_freq_factor'" },
        { ROPE("\"rope_type\":\"linear\",\"type\":\"yarn\",\"factor\":2.0"), GT_FORMAT, "not the same" },
        { ROPE("\"full_attention\":{\"rope_type\":\"default\"}"), GT_UNSUPPORTED, "'rope_scaling.full_attention'" },
        { "{" LLAMA_SIZES ",\"rope_scaling\":\"linear\"}", GT_UNSUPPORTED, "'rope_scaling'" },
        { "{" LLAMA_SIZES ",\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":2e4}}", GT_FORMAT, "given twice" },
        { "{" LLAMA_SIZES ",\"rope_theta\":0.5}", GT_FORMAT, "'rope_theta'" },
        { "{" LLAMA_SIZES ",\"partial_rotary_factor\":0.5}", GT_UNSUPPORTED, "'partial_rotary_factor'" },
        { "{" LLAMA_SIZES ",\"rope_interleaved\":true}", GT_UNSUPPORTED, "'rope_interleaved'" },
        { "{" LLAMA_SIZES ",\"num_key_value_heads\":2}", GT_MISUSE, "3 heads cannot look at 2" },
        { "{" LLAMA_SIZES ",\"head_dim\":7}", GT_MISUSE, "no pairs" },
        { "{" LLAMA_SIZES ",\"head_dim\":512}", GT_UNSUPPORTED, "256" },
        { "{" LLAMA_SIZES ",\"sliding_window\":5}", GT_UNSUPPORTED, "'sliding_window'" },
        { "{" LLAMA_SIZES ",\"hidden_act\":\"tanh\"}", GT_UNSUPPORTED, "hidden_act 'tanh'" },
        { "{" LLAMA_SIZES ",\"attention_bias\":1}", GT_FORMAT, "'attention_bias'" },
        { "{" LLAMA_SIZES ",\"num_experts\":8}", GT_UNSUPPORTED, "'num_experts'" },
        { "{\"model_type\":\"qwen3\",\"layer_types\":[" FULL "," SLIDES "]," QWEN "}", GT_FORMAT, "'layer_types'" },
        { "{\"model_type\":\"qwen3\",\"layer_types\":[" SLIDES "," FULL "," SLIDES "]," QWEN "}", GT_UNSUPPORTED,
          "goes back from sliding_attention to full_attention at layer 1" },
        { "{\"model_type\":\"qwen3\",\"layer_types\":[" FULL ",\"linear_attention\"," SLIDES "]," QWEN "}",
          GT_UNSUPPORTED, "'linear_attention'" },
        { "{\"model_type\":\"gemma\",\"use_bidirectional_attention\":true," QWEN "}", GT_UNSUPPORTED, "bidirectional" },
#undef ROPE
    };
    char *path = gt_path_join(check_folder(), "refused.json");
    model_config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_OK(gt_file_write(path, bad[i].json, strlen(bad[i].json)));
        CHECK_FAILS(model_config_load(&c, path), bad[i].code, bad[i].part);
    }
    free(path);
}

/* Names of activations are read as what they compute, and written by the first name for it. */
static void activations_are_read_and_written(void)
{
    static const struct {
        const char *in, *out;
        activation act;
    } names[] = { { "gelu_new", "gelu_new", ACT_GELU_TANH },
                  { "gelu_pytorch_tanh", "gelu_new", ACT_GELU_TANH },
                  { "gelu", "gelu", ACT_GELU_ERF },
                  { "relu", "relu", ACT_RELU },
                  { "swish", "silu", ACT_SILU } };
    char *path = gt_path_join(check_folder(), "activation.json"), text[256], *written = NULL;
    model_config c;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(text, sizeof text, "{" SIZES ",\"activation_function\":\"%s\"}", names[i].in);
        CHECK_OK(gt_file_write(path, text, strlen(text)));
        CHECK_OK(model_config_load(&c, path));
        CHECKF(gpt2_activation(&c) == names[i].act, "%s is read as %s", names[i].in,
               activation_name(gpt2_activation(&c)));
        CHECK_OK(model_config_json(&written, &c));
        snprintf(text, sizeof text, "\"activation_function\": \"%s\"", names[i].out);
        CHECKF(written && strstr(written, text), "%s is not written as %s", names[i].in, names[i].out);
        free(written);
    }
    free(path);
}

/* What transformers 2 to 5 write beside the sizes, and what only other tasks read. */
static void harmless_keys_are_known(void)
{
    static const char *const good[] = {
        /* openai-community/gpt2 */
        "\"activation_function\":\"gelu_new\",\"architectures\":[\"GPT2LMHeadModel\"],\"attn_pdrop\":0.1,"
        "\"bos_token_id\":50256,\"embd_pdrop\":0.1,\"eos_token_id\":50256,\"initializer_range\":0.02,"
        "\"layer_norm_epsilon\":1e-05,\"n_ctx\":1024,\"n_positions\":1024,"
        "\"resid_pdrop\":0.1,\"summary_activation\":null,\"summary_first_dropout\":0.1,"
        "\"summary_proj_to_labels\":true,\"summary_type\":\"cls_index\",\"summary_use_proj\":true,"
        "\"task_specific_params\":{\"text-generation\":{\"do_sample\":true,\"max_length\":50}},"
        "\"vocab_size\":50257",
        /* transformers 4: all defaults of PretrainedConfig */
        "\"_name_or_path\":\"gpt2\",\"_num_labels\":1,\"add_cross_attention\":false,\"bad_words_ids\":null,"
        "\"chunk_size_feed_forward\":0,\"cross_attention_hidden_size\":null,\"is_decoder\":false,"
        "\"is_encoder_decoder\":false,\"id2label\":{\"0\":\"LABEL_0\"},\"label2id\":{\"LABEL_0\":0},"
        "\"max_length\":20,\"n_inner\":null,\"pruned_heads\":{},\"reorder_and_upcast_attn\":false,"
        "\"return_dict\":true,\"scale_attn_by_inverse_layer_idx\":false,\"scale_attn_weights\":true,"
        "\"tf_legacy_loss\":null,\"tie_encoder_decoder\":false,\"tie_word_embeddings\":true,"
        "\"torch_dtype\":\"float16\",\"torchscript\":false,\"transformers_version\":\"4.36.2\","
        "\"use_bfloat16\":false,\"use_cache\":true",
        /* transformers 5, its other names for sizes, and a key that says nothing */
        "\"dtype\":\"bfloat16\",\"pad_token_id\":null,\"quantization_config\":null,\"hidden_size\":8,"
        "\"num_attention_heads\":2,\"num_hidden_layers\":1,\"max_position_embeddings\":1024,"
        "\"of_tomorrow\":null,\"activation_function\":\"gelu_pytorch_tanh\"",
    };
    char *path = gt_path_join(check_folder(), "harmless.json"), text[2048];
    model_config c;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(text, sizeof text, "{" SIZES ",%s}", good[i]);
        CHECK_OK(gt_file_write(path, text, strlen(text)));
        CHECK_OK(model_config_load(&c, path));
        CHECK(c.own[GPT2_UNSCALED] == 0.0 && c.own[GPT2_BY_LAYER] == 0.0 && !c.untied_head);
        CHECK(c.layers == 1 && c.heads == 2 && c.channels == 8 && c.inner == 32 && c.context == 1024);
    }
    free(path);
}

/* Heads of keys are shared out whole, and none twice. */
static void a_rank_without_a_head_of_keys_is_refused(void)
{
    model_config c;
    graph *g = NULL;
    const graph_part part = { .units = 3 + 2, .ranks = 3 };
    CHECK_OK(model_config_load(&c, "llama-tiny"));
    c.vocab = 65;
    CHECK_OK(graph_create(&g, DTYPE_F32, 2, 8));
    CHECK_FAILS(model_build_part(g, &c, &part, 0, 0), GT_MISUSE, "it has 2 heads of keys and values, and every rank");
    graph_release(g);
}

static void a_sequence_must_fit_the_context(void)
{
    graph *g = NULL;
    model_config c;
    CHECK_OK(model_config_load(&c, "gpt2-tiny"));
    c.vocab = 65;
    CHECK_OK(graph_create(&g, DTYPE_F32, 1, c.context + 1));
    CHECK_FAILS(model_build_loss(g, &c, 1, 0), GT_MISUSE, "it has 64 positions");
    graph_release(g);
}

/* 6 FLOPs a weight in matrix products, and attention's. */
static void flops_follow_the_convention(void)
{
    model_config c;
    CHECK_OK(model_config_load(&c, "gpt2-124m"));
    const double weights = 12.0 * 12.0 * 768.0 * 768.0 + 50257.0 * 768.0;
    CHECK(fabs(model_flops_per_token(&c, 1024) - 6.0 * weights - 6.0 * 12.0 * 768.0 * 1024.0) < 1.0);
}

static void count_key(void *context, const char *key, const char *value)
{
    (void)key;
    (void)value;
    ++*(int *)context;
}

static void a_difference_is_named(void)
{
    model_config a, b[16];
    /* clang-format off */
    static const char *const want[16] = {
        "model_type other, not gpt2", "n_layer 7, not 3", "n_head 2, not 4", "n_embd 32, not 64", "n_inner 7, not 256",
        "n_positions 8, not 64", "vocab_size 66, not 65", "tie_word_embeddings false, not true",
        "scale_attn_weights false, not true", "scale_attn_by_inverse_layer_idx true, not false",
        "layer_norm_epsilon 1e-06, not 1e-05", "initializer_range 0.3, not 0.02", "embd_pdrop 0.1, not 0",
        "attn_pdrop 0.1, not 0", "resid_pdrop 0.1, not 0",
        "activation_function relu, not gelu_new" };
    /* clang-format on */
    char text[128];
    int keys = 0;
    const int all = MODEL_COMPUTES | MODEL_BEGINS | MODEL_DROPS;
    CHECK_OK(model_config_load(&a, "gpt2-tiny"));
    a.vocab = 65;
    a.vocab_given = 1;
    for (int i = 0; i < 16; i++) {
        b[i] = a;
        snprintf(b[i].name, sizeof b[i].name, "another name");
    }
    CHECK(!model_config_difference(text, sizeof text, &b[0], &a, all));
    snprintf(b[0].family, sizeof b[0].family, "other");
    b[1].layers = 7;
    b[2].heads = 2;
    b[3].channels = 32;
    b[4].inner = 7;
    b[5].context = 8;
    b[6].vocab = 66;
    b[7].untied_head = 1;
    b[8].own[GPT2_UNSCALED] = b[9].own[GPT2_BY_LAYER] = 1.0;
    b[10].eps = 1e-6f;
    b[11].init_deviation = 0.3f;
    b[12].dropout_embed = b[13].dropout_attention = b[14].dropout_residual = 0.1f;
    b[15].own[GPT2_ACTIVATION] = ACT_RELU;
    for (int i = 0; i < 16; i++) {
        const int kind = i < 11 || i == 15 ? MODEL_COMPUTES : i == 11 ? MODEL_BEGINS : MODEL_DROPS;
        CHECKF(model_config_difference(text, sizeof text, &b[i], &a, all) && !strcmp(text, want[i]), "%s: '%s'",
               want[i], text);
        CHECKF(model_config_difference(text, sizeof text, &b[i], &a, kind), "%s", want[i]);
        CHECKF(!model_config_difference(text, sizeof text, &b[i], &a, all & ~kind), "%s", want[i]);
    }
    b[6].vocab_given = 0;
    CHECK(!model_config_difference(text, sizeof text, &b[6], &a, all));
    model_config_each(&a, all, count_key, &keys);
    CHECK(keys == 16);
}

const check_case check_cases[] = {
    CASE(presets_have_the_published_sizes),
    CASE(parameters_are_counted_right),
    CASE(products_of_a_step_are_those_that_are_multiplied),
    CASE(descriptions_come_back),
    CASE(hostile_descriptions_are_refused),
    CASE(harmless_keys_are_known),
    CASE(positions_are_described_in_two_ways),
    CASE(windows_are_described_in_two_ways),
    CASE(what_is_not_computed_is_refused_by_name),
    CASE(activations_are_read_and_written),
    CASE(a_sequence_must_fit_the_context),
    CASE(a_rank_without_a_head_of_keys_is_refused),
    CASE(flops_follow_the_convention),
    CASE(a_difference_is_named),
    { 0 }
};
