/* SPDX-License-Identifier: MIT */
/* tests/models/test_models.c - presets, descriptions, and Hugging Face's folders. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tensor/safetensors.h"
#include "models/generate.h"
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
        { "{}", GT_FORMAT, "'n_layer' is missing" },
        { "{\"n_layer\":1,\"n_layer\":2}", GT_FORMAT, "duplicate" },
        { "{\"n_layer\":-1,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'n_layer'" },
        { "{\"n_layer\":1.5,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'n_layer'" },
        { "{\"n_layer\":9223372036854775807,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'n_layer'" },
        { "{\"n_layer\":99999999999999999999,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "line 1" },
        { "{\"n_layer\":1,\"n_head\":1,\"n_embd\":268435457}", GT_FORMAT, "'n_embd'" },
        { "{\"n_layer\":1025,\"n_head\":1,\"n_embd\":8}", GT_MISUSE, "more than 1024" },
        { "{\"n_layer\":1,\"n_head\":3,\"n_embd\":8}", GT_MISUSE, "do not divide" },
        { "{\"n_layer\":1,\"n_head\":1,\"n_embd\":512}", GT_UNSUPPORTED, "256" },
        { "{\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"vocab_size\":\"x\"}", GT_FORMAT, "'vocab_size'" },
        { "{\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"attn_pdrop\":1.0}", GT_FORMAT, "'attn_pdrop'" },
        { "{\"n_layer\":1,\"n_head\":1,\"n_embd\":8,\"attn_pdrop\":-0.1}", GT_FORMAT, "'attn_pdrop'" },
        { "{\"model_type\":\"opt\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}", GT_UNSUPPORTED, "opt" },
        { "{\"model_type\":\"llama\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}", GT_FORMAT, "'hidden_size' is missing" },
        { "{\"activation_function\":\"tanh\",\"n_layer\":1,\"n_head\":1,\"n_embd\":8}", GT_UNSUPPORTED,
          "'tanh' is not gelu_new, gelu_pytorch_tanh, gelu, relu, silu or swish" },
#define SIZES "\"n_layer\":1,\"n_head\":2,\"n_embd\":8"
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
        { "{\"model_type\":null," SIZES "}", GT_UNSUPPORTED, "'null' is not gpt2" },
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

/* Names of activations are read as what they compute, and written by the first name for it. */
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
        "\"layer_norm_epsilon\":1e-05,\"model_type\":\"gpt2\",\"n_ctx\":1024,\"n_positions\":1024,"
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

typedef struct place {
    dev_device *device;
    graph *graph;
    params *params;
} place;

static int place_open(place *p, const model_config *c)
{
    memset(p, 0, sizeof *p);
    return CHECK_OK(dev_open(&p->device, getenv("GT_TEST_DEVICE")))
           && CHECK_OK(graph_create(&p->graph, DTYPE_F32, 1, 1)) && CHECK_OK(model_build_loss(p->graph, c, 0, 0))
           && CHECK_OK(params_create(&p->params, p->device, p->graph, 0));
}

static void place_close(place *p)
{
    params_release(p->params);
    graph_release(p->graph);
    dev_close(p->device);
}

static void export_comes_back(int untied)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f,
        .untied_head = untied
    };
    char *folder = gt_path_join(check_folder(), "exported");
    model_config back;
    place a, b;
    if (place_open(&a, &c) && CHECK_OK(params_init(a.params, 5))
        && CHECK_OK(model_export(&c, a.params, DTYPE_F32, folder)) && CHECK_OK(model_config_load(&back, folder))
        && place_open(&b, &back)) {
        CHECK_OK(model_import(&back, b.params, folder));
        for (int i = 0; i < params_count(a.params); i++) {
            const size_t n = (size_t)shape_count(&params_info(a.params, i)->shape);
            float *x = malloc(4 * n), *y = malloc(4 * n);
            CHECK_OK(params_read(a.params, i, x));
            CHECK_OK(params_read(b.params, i, y));
            CHECKF(!memcmp(x, y, 4 * n), "tensor '%s'", params_info(a.params, i)->name);
            free(x);
            free(y);
        }
        model_config other = back;
        other.layers = 1;
        CHECK_FAILS(model_import(&other, b.params, folder), GT_MISMATCH, "of a layer the model");
        place_close(&b);
    }
    place_close(&a);
    free(folder);
}

static void exports_come_back(void)
{
    export_comes_back(0);
}

/* As transformers names it, outside of what it calls the transformer. */
static void a_head_of_its_own_comes_back(void)
{
    st_file *f = NULL;
    export_comes_back(1);
    char *folder = gt_path_join(check_folder(), "exported");
    if (CHECK_OK(st_open(&f, folder)))
        CHECK(st_find(f, "lm_head.weight") && st_find(f, "transformer.wte.weight")
              && !st_find(f, "transformer.lm_head.weight"));
    st_close(f);
    free(folder);
}

/* Units 2 and 3 of 4, and of those a slice of one matrix made by hand: a file holds it transposed. */
static void parts_take_what_is_theirs(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
    const graph_part part = { .first_unit = 2, .units = 2 };
    const tensor_slice cut = { .dim = 0, .parts = 3, .full = 24, .begin = 5, .count = 7 };
    const char *name = "h.0.attn.c_attn.weight";
    char *folder = gt_path_join(check_folder(), "whole");
    place whole = { 0 }, some = { 0 }, slice = { 0 };
    static float full[72 * 24], held[21 * 24];
    float x[24 * 40], y[24 * 40];
    if (place_open(&whole, &c) && CHECK_OK(params_init(whole.params, 8))
        && CHECK_OK(model_export(&c, whole.params, DTYPE_F32, folder))
        && CHECK_OK(dev_open(&some.device, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(graph_create(&some.graph, DTYPE_F32, 1, 1))
        && CHECK_OK(model_build_part(some.graph, &c, &part, 0, 0))
        && CHECK_OK(params_create(&some.params, some.device, some.graph, 0))) {
        CHECK_OK(model_import(&c, some.params, folder));
        CHECK(params_find(some.params, "h.0.ln_1.weight") < 0);
        CHECK(params_find(some.params, "wte.weight") >= 0);
        for (int i = 0; i < params_count(some.params); i++) {
            const graph_param_info *info = params_info(some.params, i);
            const size_t n = (size_t)shape_count(&info->shape) < 24 * 40 ? (size_t)shape_count(&info->shape) : 24 * 40;
            const int same = params_find(whole.params, info->name);
            CHECK_OK(dev_read(whole.device, params_master(whole.params, same), 0, x, 4 * n));
            CHECK_OK(dev_read(some.device, params_master(some.params, i), 0, y, 4 * n));
            CHECKF(!memcmp(x, y, 4 * n), "tensor '%s'", info->name);
        }
    }
    if (CHECK_OK(dev_open(&slice.device, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(graph_create(&slice.graph, DTYPE_F32, 1, 1))
        && graph_param_sliced(slice.graph, name, shape_of(2, (int64_t)72, (int64_t)24), &cut, GRAPH_INIT_ZERO, 0.0f)
               >= 0
        && CHECK_OK(params_create(&slice.params, slice.device, slice.graph, 0))) {
        CHECK_OK(model_import(&c, slice.params, folder));
        CHECK_OK(params_read(slice.params, 0, held));
        CHECK_OK(params_read(whole.params, params_find(whole.params, name), full));
        for (int row = 0; row < 21; row++)
            CHECKF(!memcmp(held + 24 * row, full + 24 * (row / 7 * 24 + 5 + row % 7), 24 * 4), "row %d", row);
        CHECK_FAILS(model_export(&c, slice.params, DTYPE_F32, folder), GT_MISUSE, "only a slice");
        /* Held or not, what the file lacks is missed. */
        model_config more = c;
        more.layers = 3;
        CHECK_FAILS(model_import(&more, slice.params, folder), GT_MISMATCH, "'h.2.ln_1.weight' is");
    }
    place_close(&slice);
    place_close(&some);
    place_close(&whole);
    free(folder);
}

/* Copies FROM/model.safetensors to the folder TO without tensor `drop`, and with one more, `add`: the
 * numbers of wte.weight, stored as `type`, the last of them greater by `more`. NULL: none. */
static void change_folder(const char *to, const char *from, const char *drop, const char *add, dtype type, float more)
{
    char *whole = gt_path_join(to, "model.safetensors");
    st_file *f = NULL;
    st_writer *w = NULL;
    CHECK_OK(gt_folder_make(to));
    CHECK_OK(st_open(&f, from));
    CHECK_OK(st_writer_open(&w, whole));
    const st_tensor *wte = st_find(f, "transformer.wte.weight");
    const size_t n = wte->bytes / sizeof(float);
    for (size_t i = 0; i < st_count(f); i++)
        if (!drop || strcmp(st_at(f, i)->name, drop))
            CHECK_OK(st_writer_add(w, st_at(f, i)->name, st_at(f, i)->type, &st_at(f, i)->dims));
    if (add)
        CHECK_OK(st_writer_add(w, add, type, &wte->dims));
    CHECK_OK(st_writer_begin(w));
    for (size_t i = 0; i < st_count(f); i++)
        if (!drop || strcmp(st_at(f, i)->name, drop))
            CHECK_OK(st_writer_put(w, st_at(f, i)->data, st_at(f, i)->bytes));
    if (add) {
        void *x = malloc(n * dtype_size(type));
        for (size_t i = 0; i < n; i++)
            dtype_store(type, x, i, dtype_load(DTYPE_F32, wte->data, i) + (i + 1 == n ? more : 0.0f));
        CHECK_OK(st_writer_put(w, x, n * dtype_size(type)));
        free(x);
    }
    CHECK_OK(st_writer_commit(w));
    st_close(f);
    free(whole);
}

/* Every name behind what wrappers of the model put there. */
static void wrap_folder(const char *to, const char *from, const char *wrapper)
{
    char *whole = gt_path_join(to, "model.safetensors"), name[128];
    st_file *f = NULL;
    st_writer *w = NULL;
    CHECK_OK(gt_folder_make(to));
    CHECK_OK(st_open(&f, from));
    CHECK_OK(st_writer_open(&w, whole));
    for (size_t i = 0; i < st_count(f); i++) {
        snprintf(name, sizeof name, "%s%s", wrapper, st_at(f, i)->name);
        CHECK_OK(st_writer_add(w, name, st_at(f, i)->type, &st_at(f, i)->dims));
    }
    CHECK_OK(st_writer_begin(w));
    for (size_t i = 0; i < st_count(f); i++)
        CHECK_OK(st_writer_put(w, st_at(f, i)->data, st_at(f, i)->bytes));
    CHECK_OK(st_writer_commit(w));
    st_close(f);
    free(whole);
}

/* A head that is the embedding is no news, alone it is the embedding; any other is refused, and so is
 * whatever else would have to be computed. */
static void no_tensor_is_left_aside_in_silence(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 9,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
    static const struct {
        const char *drop, *add;
        dtype type;
        float more;
        gt_status code;
        const char *says;
    } cases[] = {
        { NULL, "lm_head.weight", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "lm_head.weight", DTYPE_F64, 0.0f, GT_OK, NULL },
        { "transformer.wte.weight", "lm_head.weight", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "transformer.h.1.attn.masked_bias", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "h.0.attn.bias", DTYPE_F32, 0.0f, GT_OK, NULL },
        { NULL, "lm_head.weight", DTYPE_F32, 1e-3f, GT_MISMATCH, "'lm_head.weight' holds other numbers" },
        { NULL, "lm_head.weight", DTYPE_F64, 1e-3f, GT_MISMATCH, "let it say \"tie_word_embeddings\": false" },
        { "transformer.wte.weight", NULL, DTYPE_F32, 0.0f, GT_MISMATCH, "'wte.weight' is missing" },
        { NULL, "wte.weight", DTYPE_F32, 0.0f, GT_MISMATCH, "both 'transformer.wte.weight' and 'wte.weight'" },
        { NULL, "lm_head.bias", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "'lm_head.bias' of" },
        { NULL, "transformer.h.0.attn.c_attn.lora_A.weight", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "no part of" },
        { NULL, "transformer.h.1.crossattention.c_attn.weight", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "crossatt" },
        { NULL, "transformer.h.2.ln_1.weight", DTYPE_F32, 0.0f, GT_MISMATCH, "of a layer the model, with 2" },
        { NULL, "h", DTYPE_F32, 0.0f, GT_UNSUPPORTED, "tensor 'h'" },
    };
    char *folder = gt_path_join(check_folder(), "tied"), *other = gt_path_join(check_folder(), "changed");
    place a, b;
    if (place_open(&a, &c) && CHECK_OK(params_init(a.params, 5))
        && CHECK_OK(model_export(&c, a.params, DTYPE_F32, folder)) && place_open(&b, &c)) {
        float x[31 * 24], y[31 * 24];
        CHECK_OK(params_read(a.params, params_find(a.params, "wte.weight"), x));
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            change_folder(other, folder, cases[i].drop, cases[i].add, cases[i].type, cases[i].more);
            CHECK_OK(params_init(b.params, 6));
            CHECK_FAILS(model_import(&c, b.params, other), cases[i].code, cases[i].says);
            CHECK_OK(params_read(b.params, params_find(b.params, "wte.weight"), y));
            CHECKF(cases[i].code || !memcmp(x, y, sizeof x), "case %zu", i);
        }
        static const char *const wrappers[] = { "module.", "_orig_mod.module.", "base_model.model." };
        for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
            wrap_folder(other, folder, wrappers[i]);
            CHECK_OK(params_init(b.params, 6));
            CHECK_OK(model_import(&c, b.params, other));
            CHECK_OK(params_read(b.params, params_find(b.params, "wte.weight"), y));
            CHECKF(!memcmp(x, y, sizeof x), "behind '%s'", wrappers[i]);
        }
        wrap_folder(other, folder, "their.");
        CHECK_FAILS(model_import(&c, b.params, other), GT_UNSUPPORTED, "tensor 'their.");
        /* Where the description says that it is another, it is another. */
        model_config untied = c;
        place own;
        untied.untied_head = 1;
        change_folder(other, folder, NULL, "lm_head.weight", DTYPE_F32, 1e-3f);
        if (place_open(&own, &untied)) {
            CHECK_OK(model_import(&untied, own.params, other));
            CHECK_OK(params_read(own.params, params_find(own.params, "lm_head.weight"), y));
            CHECK(!memcmp(x, y, sizeof x - sizeof *x) && y[31 * 24 - 1] == x[31 * 24 - 1] + 1e-3f);
            CHECK_OK(params_read(own.params, params_find(own.params, "wte.weight"), y));
            CHECK(!memcmp(x, y, sizeof x));
            CHECK_FAILS(model_import(&untied, own.params, folder), GT_MISMATCH, "'lm_head.weight' is missing");
            change_folder(other, folder, "transformer.wte.weight", "lm_head.weight", DTYPE_F32, 0.0f);
            CHECK_FAILS(model_import(&untied, own.params, other), GT_MISMATCH, "'wte.weight' is missing");
        }
        place_close(&own);
        change_folder(other, folder, NULL, "score.weight", DTYPE_F32, 0.0f);
        const unsigned before = gt_log_warnings();
        check_allow_warnings();
        CHECK_OK(model_import(&c, b.params, other));
        CHECK(gt_log_warnings() == before + 1);
        place_close(&b);
    }
    place_close(&a);
    free(folder);
    free(other);
}

/* Generation scales attention as training does: the chunk of a prompt and single tokens after it. */
static void generation_scales_attention_as_described(void)
{
    const model_config usual = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 40,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.3f
    };
    model_config c = usual;
    uint32_t prompt[35];
    float logits[2][31], x[72 * 24];
    dev_device *d = NULL;
    c.own[GPT2_UNSCALED] = c.own[GPT2_BY_LAYER] = 1.0;
    for (uint32_t i = 0; i < 35; i++)
        prompt[i] = i * i % 31;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (int way = 0; way < 3; way++) {         /* usual, made up for, not made up for */
        generate *g = NULL;
        if (!CHECK_OK(generate_create(&g, d, way ? &c : &usual, DTYPE_F32, NULL)))
            break;
        params *p = generate_params(g);
        CHECK_OK(params_init(p, 3));
        for (int layer = 0; way == 1 && layer < 2; layer++) {
            const int i = params_find(p, layer ? "h.1.attn.c_attn.weight" : "h.0.attn.c_attn.weight");
            CHECK_OK(params_read(p, i, x));     /* biases begin as 0 */
            for (int k = 0; k < 24 * 24; k++)
                x[k] *= (float)(layer + 1) / sqrtf(12.0f);
            CHECK_OK(params_write(p, i, x));
        }
        CHECK_OK(generate_refresh(g));
        CHECK_OK(generate_feed(g, prompt, 35));
        memcpy(logits[way > 0], generate_logits(g), sizeof logits[0]);
        float most = 0.0f;
        for (int i = 0; i < 31; i++)
            most = fmaxf(most, fabsf(logits[0][i] - logits[1][i]));
        CHECKF(!way || (way == 1 ? most < 1e-4f : most > 1e-2f), "way %d: %g", way, (double)most);
        generate_release(g);
    }
    dev_close(d);
}

/* Logits of a head of twice the embedding are twice those of the embedding. */
static void generation_uses_a_head_of_its_own(void)
{
    const model_config usual = {
        .family = "gpt2",
        .name = "small",
        .layers = 1,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 40,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.3f
    };
    const uint32_t prompt[] = { 1, 2, 4 };
    model_config untied = usual;
    float tied[31], x[72 * 24];
    dev_device *d = NULL;
    generate *g[2] = { NULL, NULL };
    untied.untied_head = 1;
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) && CHECK_OK(generate_create(&g[0], d, &usual, DTYPE_F32, NULL))
        && CHECK_OK(generate_create(&g[1], d, &untied, DTYPE_F32, NULL))) {
        params *a = generate_params(g[0]), *b = generate_params(g[1]);
        CHECK_OK(params_init(a, 3));
        CHECK_OK(params_init(b, 3));
        for (int i = 0; i < params_count(a); i++) {
            CHECK_OK(params_read(a, i, x));
            CHECK_OK(params_write(b, params_find(b, params_info(a, i)->name), x));
        }
        CHECK_OK(params_read(a, params_find(a, "wte.weight"), x));
        for (int k = 0; k < 31 * 24; k++)
            x[k] *= 2.0f;
        CHECK_OK(params_write(b, params_find(b, "lm_head.weight"), x));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(generate_refresh(g[i]));
            CHECK_OK(generate_feed(g[i], prompt, 3));
        }
        memcpy(tied, generate_logits(g[0]), sizeof tied);
        for (int i = 0; i < 31; i++)
            CHECKF(fabsf(generate_logits(g[1])[i] - 2.0f * tied[i]) < 1e-5f, "token %d", i);
    }
    generate_release(g[0]);
    generate_release(g[1]);
    dev_close(d);
}

/* What may not be drawn is drawn on no path, however likely the model finds it. Of 31 ids the multiples
 * of 3 may. */
static void only_what_may_be_drawn_is(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 1,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 40,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.3f
    };
    static const sampling_rule samplings[] = {
        { .temperature = 0.0 },
        { .temperature = 1.0, .top_k = 1 },
        { .temperature = 50.0, .top_k = 4 },
        { .temperature = 50.0 },
        { .temperature = 50.0, .top_k = 30 },
        { .temperature = 0.5, .top_k = 200 },
        { .temperature = 50.0, .top_p = 0.99, .min_p = 0.01, .repetition = 1.1 },
    };
    const uint32_t prompt[] = { 1, 2, 4 };
    unsigned char may[31] = { 0 };
    dev_device *d = NULL;
    generate *g = NULL;
    gt_random random;
    gt_random_init(&random, 7, 7);
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) || !CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL)))
        goto out;
    CHECK_OK(params_init(generate_params(g), 3));
    CHECK_OK(generate_refresh(g));
    CHECK_FAILS(generate_allow(g, may), GT_MISUSE, "no token may be drawn");
    for (int i = 0; i < 31; i += 3)
        may[i] = 1;
    CHECK_OK(generate_allow(g, may));
    CHECK_OK(generate_feed(g, prompt, 3));
    for (size_t s = 0; s < sizeof samplings / sizeof *samplings; s++) {
        int seen[31] = { 0 }, kinds = 0;
        for (int draw = 0; draw < 60; draw++) {
            float z[31];
            uint32_t id = 0;
            int above = 0;
            memcpy(z, generate_logits(g), sizeof z);
            if (!CHECK_OK(generate_next(g, &samplings[s], &random, &id)))
                goto out;
            for (int i = 0; i < 31; i += 3)
                above += z[i] > z[id];
            CHECKF(id < 31 && id % 3 == 0, "sampling %zu drew %u", s, id);
            CHECKF(samplings[s].temperature > 0.0 || !above, "%d are likelier than %u", above, id);
            CHECKF(!samplings[s].top_k || above < samplings[s].top_k, "%d are likelier", above);
            kinds += !seen[id]++;
        }
        CHECKF(samplings[s].temperature < 50.0 || kinds > 3, "sampling %zu drew only %d", s, kinds);
    }
    memset(may, 1, sizeof may);
    CHECK_OK(generate_allow(g, may));
    for (int draw = 0, other = 0; draw < 60; draw++) {
        uint32_t id = 0;
        CHECK_OK(generate_next(g, &samplings[3], &random, &id));
        other += id % 3 != 0;
        CHECK(draw < 59 || other > 20);
    }
out:
    generate_release(g);
    dev_close(d);
}

/* A prompt gives the same logits however it is cut: whole chunks, a padded one, token by token, with the
 * caches full of another text. */
static void prompts_may_be_fed_in_any_parts(void)
{
    const model_config c = {
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 2,
        .channels = 24,
        .inner = 40,
        .context = 80,
        .vocab = 31,
        .eps = 1e-5f,
        .init_deviation = 0.3f
    };
    enum { PROMPT = 70 };
    static const size_t parts[] = { PROMPT, 1, 2, 5, 33, 47, 64, 69 };
    uint32_t prompt[PROMPT];
    float first[31];
    dev_device *d = NULL;
    generate *g = NULL;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (uint32_t)(i * i % 31);
    if (CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) && CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL))) {
        CHECK_OK(params_init(generate_params(g), 3));
        CHECK_OK(generate_refresh(g));
        for (size_t way = 0; way < sizeof parts / sizeof *parts; way++) {
            generate_restart(g);
            for (size_t at = 0; at < PROMPT; at += parts[way])
                CHECK_OK(generate_feed(g, prompt + at, PROMPT - at < parts[way] ? PROMPT - at : parts[way]));
            if (!way)
                memcpy(first, generate_logits(g), sizeof first);
            for (int i = 0; i < 31; i++)
                CHECKF(fabsf(generate_logits(g)[i] - first[i]) < 1e-4f, "in parts of %zu: token %d is %g, not %g",
                       parts[way], i, (double)generate_logits(g)[i], (double)first[i]);
        }
    }
    generate_release(g);
    dev_close(d);
}

/* Ids to text by llama2.c's tokenizer file: i32 longest, then of each id fp32 score, i32 length, bytes. */
static size_t text_of(char *out, size_t room, const unsigned char *file, size_t size, const uint32_t *ids, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++) {
        size_t at = 4;
        uint32_t length = 0;
        for (uint32_t id = 0; id <= ids[i] && at + 8 <= size; id++) {
            at += id ? length : 0;
            memcpy(&length, file + at + 4, 4);
            at += 8;
        }
        /* the space that begins the first word after <s> is not of the text; <0x0A> is a byte */
        const size_t skip = i == 0 && file[at] == ' ';
        unsigned byte;
        if (length == 6 && sscanf((const char *)file + at, "<0x%2X>", &byte) == 1)
            out[n++] = (char)byte;
        else
            for (size_t k = skip; k < length && n + 1 < room; k++)
                out[n++] = (char)file[at + k];
    }
    out[n] = '\0';
    return n;
}

/* A story of 200 tokens that another program wrote with the same weights. */
static void a_llama2c_file_tells_its_story(void)
{
    const char *base = check_shared("reference/stories260K.bin");
    char *path = base ? strdup(base) : NULL, *tokens = NULL, *want = NULL, text[2048];
    size_t size = 0, wanted = 0;
    model_config c;
    dev_device *d = NULL;
    generate *g = NULL;
    uint32_t ids[200] = { 1 };
    if (!path) {
        check_skip("no ../shared/reference/stories260K.bin");
        return;
    }
    CHECK_OK(gt_file_read(&tokens, &size, check_shared("reference/tok512.bin"), 1 << 20));
    CHECK_OK(gt_file_read(&want, &wanted, check_shared("reference/stories260K_expected_greedy.txt"), 1 << 20));
    const sampling_rule likeliest = { .temperature = 0.0 };
    gt_random r;
    gt_random_init(&r, 1, 1);
    if (CHECK_OK(model_config_load(&c, path)) && CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE")))
        && CHECK_OK(generate_create(&g, d, &c, DTYPE_F32, NULL)) && CHECK_OK(model_import(&c, generate_params(g), path))
        && CHECK_OK(generate_refresh(g)) && CHECK_OK(generate_feed(g, ids, 1))) {
        int n = 0;
        while (n < 200 && CHECK_OK(generate_next(g, &likeliest, &r, &ids[n])))
            n++;
        text_of(text, sizeof text, (const unsigned char *)tokens, size, ids, n);
        while (wanted && want[wanted - 1] == '\n')
            want[--wanted] = '\0';
        CHECKF(wanted > 300 && !strcmp(text, want), "it says: %s", text);
    }
    generate_release(g);
    dev_close(d);
    free(path);
    free(tokens);
    free(want);
}

/* A context longer than caches begin with: they grow on the way, or at once for a long prompt; and where it is
 * full text goes on from its last half. */
static void caches_grow_with_the_text(void)
{
    enum { N = 1060, MOST = 1100 };
    model_config c;
    dev_device *d = NULL;
    generate *g[2] = { NULL, NULL };
    static uint32_t ids[N];
    gt_random r;
    for (uint32_t i = 0; i < N; i++)
        ids[i] = i * i % 65;
    gt_random_init(&r, 5, 5);
    CHECK_OK(model_config_load(&c, "llama-tiny"));
    c.vocab = 65;
    c.layers = 1;
    c.context = MOST;
    c.init_deviation = 0.2f;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (int i = 0; i < 2; i++)
        if (!CHECK_OK(generate_create(&g[i], d, &c, DTYPE_F32, NULL))
            || !CHECK_OK(params_init(generate_params(g[i]), 3)) || !CHECK_OK(generate_refresh(g[i])))
            return;
    CHECK_OK(generate_feed(g[0], ids, N));
    CHECK_OK(generate_feed(g[1], ids, 1020));
    for (int i = 1020; i < N; i++)
        CHECK_OK(generate_feed(g[1], ids + i, 1));
    double off = 0.0, most = 0.0;
    for (int i = 0; i < c.vocab; i++) {
        off = fmax(off, fabs((double)generate_logits(g[0])[i] - (double)generate_logits(g[1])[i]));
        most = fmax(most, fabs((double)generate_logits(g[0])[i]));
    }
    CHECKF(most > 0.01 && off < 1e-5 * most, "off by %g of %g", off, most);
    for (int i = 0; i < MOST - N + 5; i++)
        CHECK_OK(generate_feed(g[1], ids + i, 1));
    generate_release(g[0]);
    generate_release(g[1]);
    dev_close(d);
}

/* Files of sizes that their first numbers do not give, of newer versions, and a small right one. */
static void llama2c_files_are_known_by_their_size(void)
{
    enum { C = 4, I = 6, L = 1, V = 5, T = 3, N = V * C + L * (2 * C + 4 * C * C + 3 * C * I) + C + T * C / 2 };
    static int32_t file[7 + N + V * C] = { C, I, L, 2, 2, V, T };
    char *path = gt_path_join(check_folder(), "small.bin");
    model_config c;
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N)));
    CHECK_OK(model_config_load(&c, path));
    CHECK(!strcmp(c.family, "llama") && c.layers == L && c.vocab == V && c.inner == I && !c.untied_head);
    file[5] = -V;
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N + V * C)));
    CHECK_OK(model_config_load(&c, path));
    CHECK(c.vocab == V && c.untied_head);
    CHECK_OK(gt_file_write(path, file, 4 * (7 + N)));
    CHECK_FAILS(model_config_load(&c, path), GT_FORMAT, "it has");
    file[0] = 0x616b3432;
    file[1] = 1;
    CHECK_OK(gt_file_write(path, file, sizeof file));
    CHECK_FAILS(model_config_load(&c, path), GT_UNSUPPORTED, "of version 1");
    free(path);
}

static void an_adapter_is_called_what_it_is(void)
{
    static const char lora[] = "{\"peft_type\": \"LORA\", \"base_model_name_or_path\": \"gpt2\"}";
    static const char prefix[] = "{\"peft_type\": \"PREFIX_TUNING\", \"base_model_name_or_path\": \"x/y\"}";
    char *folder = gt_path_join(check_folder(), "adapter");
    CHECK_OK(gt_folder_make(folder));
    char *path = gt_path_join(folder, "adapter_config.json");
    model_config c;
    CHECK_OK(model_folder_check(folder));
    CHECK_OK(gt_file_write(path, lora, sizeof lora - 1));
    CHECK_FAILS(model_config_load(&c, folder), GT_UNSUPPORTED, "a LoRA adapter, not a model of its own");
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "the weights of 'gpt2'; name that model here");
    CHECK_OK(gt_file_write(path, prefix, sizeof prefix - 1));
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "a peft adapter");
    CHECK_OK(gt_file_write(path, "[", 1));
    CHECK_FAILS(model_folder_check(folder), GT_UNSUPPORTED, "an adapter");
    free(path);
    free(folder);
}

static void a_folder_of_theirs_is_read(void)
{
    model_config c;
    place p;
    const char *shared = check_shared("reference/tiny_gpt2_hf");
    if (!shared) {
        check_skip("no reference/tiny_gpt2_hf");
        return;
    }
    char *folder = strdup(shared);
    if (CHECK_OK(model_config_load(&c, folder))) {
        CHECK(c.channels == 2);
        if (place_open(&p, &c) && CHECK_OK(model_import(&c, p.params, folder))) {
            float gain[2];
            CHECK_OK(params_read(p.params, params_find(p.params, "ln_f.weight"), gain));
            CHECK(isfinite(gain[0]) && isfinite(gain[1]));
        }
        place_close(&p);
    }
    free(folder);
}

const check_case check_cases[] = {
    CASE(presets_have_the_published_sizes),
    CASE(parameters_are_counted_right),
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
    CASE(exports_come_back),
    CASE(a_head_of_its_own_comes_back),
    CASE(parts_take_what_is_theirs),
    CASE(no_tensor_is_left_aside_in_silence),
    CASE(generation_scales_attention_as_described),
    CASE(generation_uses_a_head_of_its_own),
    CASE(only_what_may_be_drawn_is),
    CASE(prompts_may_be_fed_in_any_parts),
    CASE(caches_grow_with_the_text),
    CASE(a_llama2c_file_tells_its_story),
    CASE(llama2c_files_are_known_by_their_size),
    CASE(an_adapter_is_called_what_it_is),
    CASE(a_folder_of_theirs_is_read),
    { 0 }
};
