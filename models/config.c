/* SPDX-License-Identifier: MIT */
/* models/config.c - presets, and descriptions read from and written to config.json. */
#include "models/model_private.h"

#include "host/base/file.h"
#include "host/base/text.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct preset { const char *name; int layers, heads, channels, context, vocab; } preset;

/* GPT-2: table 2 of the paper. GPT-3: table 2.1, with head counts that divide the width
 * (the paper's 1.3B lists 24 heads of 128 for 2048 channels, its 13B a width of 5140). */
static const preset presets[] = {
    { "gpt2-124m", 12, 12, 768, 1024, 50257 },
    { "gpt2-355m", 24, 16, 1024, 1024, 50257 },
    { "gpt2-774m", 36, 20, 1280, 1024, 50257 },
    { "gpt2-1558m", 48, 25, 1600, 1024, 50257 },
    { "gpt3-125m", 12, 12, 768, 2048, 50257 },
    { "gpt3-350m", 24, 16, 1024, 2048, 50257 },
    { "gpt3-760m", 24, 16, 1536, 2048, 50257 },
    { "gpt3-1.3b", 24, 16, 2048, 2048, 50257 },
    { "gpt3-2.7b", 32, 32, 2560, 2048, 50257 },
    { "gpt3-6.7b", 32, 32, 4096, 2048, 50257 },
    { "gpt3-13b", 40, 40, 5120, 2048, 50257 },
    { "gpt3-175b", 96, 96, 12288, 2048, 50257 },
    { "gpt2-mini", 4, 4, 128, 64, 0 },          /* vocabulary: the tokenizer's */
    { "gpt2-tiny", 3, 4, 64, 64, 0 },
};

const char *model_preset_name(int i)
{
    return i < (int)(sizeof presets / sizeof *presets) ? presets[i].name : NULL;
}

static void set_defaults(model_config *c, const char *name)
{
    memset(c, 0, sizeof *c);
    snprintf(c->family, sizeof c->family, "gpt2");
    snprintf(c->name, sizeof c->name, "%.63s", name);
    c->eps = 1e-5f;
    c->init_deviation = 0.02f;
}

/* A whole number at `key`, or `fallback` if it is absent or null. */
static gt_status read_int(int *out, json_t *root, const char *key, int fallback, const char *path)
{
    json_t *v = json_object_get(root, key);
    *out = fallback;
    if (!v || json_is_null(v)) {
        if (fallback >= 0)
            return GT_OK;
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is missing", path, key);
    }
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > (1 << 28))
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a whole number from 1 to 2^28",
                       path, key);
    *out = (int)json_integer_value(v);
    return GT_OK;
}

static gt_status read_float(float *out, json_t *root, const char *key, float fallback,
                            const char *path)
{
    json_t *v = json_object_get(root, key);
    *out = fallback;
    if (!v || json_is_null(v))
        return GT_OK;
    if (!json_is_number(v) || !(json_number_value(v) >= 0.0) || json_number_value(v) >= 1.0)
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a number in [0, 1)", path, key);
    *out = (float)json_number_value(v);
    return GT_OK;
}

static gt_status read_flag(int *out, json_t *root, const char *key, int fallback, const char *path)
{
    json_t *v = json_object_get(root, key);
    *out = fallback;
    if (!fallback && json_is_null(v))
        return GT_OK;
    if (v && !json_is_boolean(v))
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is neither true nor false", path, key);
    if (v)
        *out = json_is_true(v);
    return GT_OK;
}

/* ---- what every other key must say -------------------------------------------------------------
 *
 * A description is transformers' GPT2Config, versions 2 to 5 (configuration_utils.py,
 * configuration_gpt2.py). Each key is one of:
 *   read       read_config() takes it
 *   anything   it does not touch the loss: what the weights were saved by and as, how text is
 *              generated, heads of other tasks
 *   off        only false, null, 0 or an empty list or object is what is computed here
 *   an alias   must say what the key that it stands for says
 * A key that is not in this table may change the model, so anything but null is refused.         */
typedef enum key_kind { KEY_READ, KEY_ANYTHING, KEY_OFF, KEY_LAYERS, KEY_HEADS, KEY_CHANNELS,
                        KEY_CONTEXT } key_kind;

static const struct { const char *name; key_kind kind; } keys[] = {
    { "n_layer", KEY_READ }, { "n_head", KEY_READ }, { "n_embd", KEY_READ }, { "n_inner", KEY_READ },
    { "n_positions", KEY_READ }, { "vocab_size", KEY_READ }, { "embd_pdrop", KEY_READ },
    { "attn_pdrop", KEY_READ }, { "resid_pdrop", KEY_READ }, { "layer_norm_epsilon", KEY_READ },
    { "initializer_range", KEY_READ }, { "model_type", KEY_READ }, { "activation_function", KEY_READ },
    { "name", KEY_READ }, { "scale_attn_weights", KEY_READ },
    { "scale_attn_by_inverse_layer_idx", KEY_READ }, { "tie_word_embeddings", KEY_READ },

    { "num_hidden_layers", KEY_LAYERS }, { "num_attention_heads", KEY_HEADS },
    { "hidden_size", KEY_CHANNELS }, { "max_position_embeddings", KEY_CONTEXT },
    { "n_ctx", KEY_CONTEXT },

    { "add_cross_attention", KEY_OFF },
    { "cross_attention_hidden_size", KEY_OFF }, { "is_encoder_decoder", KEY_OFF },
    { "tie_encoder_decoder", KEY_OFF }, { "pruned_heads", KEY_OFF }, { "per_layer_config", KEY_OFF },
    { "quantization_config", KEY_OFF }, { "auto_map", KEY_OFF },

    /* The order of the same sums; here they are always fp32. */
    { "reorder_and_upcast_attn", KEY_ANYTHING }, { "chunk_size_feed_forward", KEY_ANYTHING },
    { "architectures", KEY_ANYTHING }, { "transformers_version", KEY_ANYTHING },
    { "torch_dtype", KEY_ANYTHING }, { "dtype", KEY_ANYTHING }, { "use_bfloat16", KEY_ANYTHING },
    { "torchscript", KEY_ANYTHING }, { "gradient_checkpointing", KEY_ANYTHING },
    { "_name_or_path", KEY_ANYTHING }, { "name_or_path", KEY_ANYTHING },
    { "_commit_hash", KEY_ANYTHING }, { "_attn_implementation", KEY_ANYTHING },
    { "_attn_implementation_autoset", KEY_ANYTHING }, { "attn_implementation", KEY_ANYTHING },
    { "transformers.js_config", KEY_ANYTHING }, { "custom_pipelines", KEY_ANYTHING },
    { "use_cache", KEY_ANYTHING }, { "is_decoder", KEY_ANYTHING }, { "return_dict", KEY_ANYTHING },
    { "output_attentions", KEY_ANYTHING }, { "output_hidden_states", KEY_ANYTHING },
    { "output_past", KEY_ANYTHING }, { "tf_legacy_loss", KEY_ANYTHING },
    { "tie_last_hidden_states", KEY_ANYTHING },
    { "predict_special_tokens", KEY_ANYTHING }, { "tokenizer_class", KEY_ANYTHING },
    { "bos_token_id", KEY_ANYTHING }, { "eos_token_id", KEY_ANYTHING },
    { "pad_token_id", KEY_ANYTHING }, { "sep_token_id", KEY_ANYTHING },
    { "cls_token_id", KEY_ANYTHING }, { "mask_token_id", KEY_ANYTHING },
    { "unk_token_id", KEY_ANYTHING }, { "decoder_start_token_id", KEY_ANYTHING },
    { "task_specific_params", KEY_ANYTHING }, { "finetuning_task", KEY_ANYTHING },
    { "problem_type", KEY_ANYTHING }, { "num_labels", KEY_ANYTHING }, { "_num_labels", KEY_ANYTHING },
    { "id2label", KEY_ANYTHING }, { "label2id", KEY_ANYTHING }, { "summary_type", KEY_ANYTHING },
    { "summary_use_proj", KEY_ANYTHING }, { "summary_activation", KEY_ANYTHING },
    { "summary_proj_to_labels", KEY_ANYTHING }, { "summary_first_dropout", KEY_ANYTHING },

    { "max_length", KEY_ANYTHING }, { "min_length", KEY_ANYTHING }, { "max_new_tokens", KEY_ANYTHING },
    { "do_sample", KEY_ANYTHING }, { "early_stopping", KEY_ANYTHING }, { "num_beams", KEY_ANYTHING },
    { "num_beam_groups", KEY_ANYTHING }, { "diversity_penalty", KEY_ANYTHING },
    { "temperature", KEY_ANYTHING }, { "top_k", KEY_ANYTHING }, { "top_p", KEY_ANYTHING },
    { "typical_p", KEY_ANYTHING }, { "repetition_penalty", KEY_ANYTHING },
    { "length_penalty", KEY_ANYTHING }, { "no_repeat_ngram_size", KEY_ANYTHING },
    { "encoder_no_repeat_ngram_size", KEY_ANYTHING }, { "bad_words_ids", KEY_ANYTHING },
    { "num_return_sequences", KEY_ANYTHING }, { "output_scores", KEY_ANYTHING },
    { "return_dict_in_generate", KEY_ANYTHING }, { "forced_bos_token_id", KEY_ANYTHING },
    { "forced_eos_token_id", KEY_ANYTHING }, { "remove_invalid_values", KEY_ANYTHING },
    { "exponential_decay_length_penalty", KEY_ANYTHING }, { "suppress_tokens", KEY_ANYTHING },
    { "begin_suppress_tokens", KEY_ANYTHING }, { "prefix", KEY_ANYTHING },
};

static int is_off(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0.0)
           || (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
}

static gt_status check_key(const char *key, const json_t *v, const model_config *c, const char *path)
{
    size_t row = 0;
    char text[64];
    while (row < sizeof keys / sizeof *keys && strcmp(keys[row].name, key))
        row++;
    const int known = row < sizeof keys / sizeof *keys;
    const int sizes[] = { c->layers, c->heads, c->channels, c->context };
    const key_kind kind = known ? keys[row].kind : KEY_OFF;
    int fits = kind == KEY_READ || kind == KEY_ANYTHING;
    if (!known)
        fits = json_is_null(v);
    else if (kind == KEY_OFF)
        fits = is_off(v);
    else if (kind >= KEY_LAYERS)
        fits = json_is_null(v) || (json_is_integer(v)
                                   && json_integer_value(v) == sizes[kind - KEY_LAYERS]);
    if (fits)
        return GT_OK;
    const size_t n = json_dumpb(v, text, sizeof text - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    text[n < sizeof text ? n : 0] = '\0';
    const char *shown = *text ? text : "what it says";
    if (!known)
        return gt_fail(GT_UNSUPPORTED, "model file '%s': key '%.60s' is not known here and may change the "
                       "model; remove it if it does not", path, key);
    if (kind >= KEY_LAYERS)
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is %s, which contradicts %d by its other name",
                       path, key, shown, sizes[kind - KEY_LAYERS]);
    return gt_fail(GT_UNSUPPORTED, "model file '%s': '%s' is %s, which is not supported", path, key, shown);
}

/* Text at `key`, one of `known` (ends with NULL); absent is its first. */
static gt_status check_text(json_t *root, const char *key, const char *const *known, const char *what,
                            const char *path)
{
    const json_t *v = json_object_get(root, key);
    const char *text = json_string_value(v);
    if (!v)
        return GT_OK;
    for (const char *const *name = known; text && *name; name++)
        if (!strcmp(text, *name))
            return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "model file '%s': %s '%.60s' is not %s", path, what,
                   text ? text : json_is_null(v) ? "null" : "that is no text", *known);
}

static gt_status read_config(model_config *c, json_t *root, const char *path)
{
    static const char *const types[] = { "gpt2", NULL };
    static const char *const activations[] = { "gelu_new", "gelu_pytorch_tanh", NULL };
    const char *key;
    json_t *value;
    gt_status st = check_text(root, "model_type", types, "model_type", path);
    if (!st)
        st = check_text(root, "activation_function", activations, "activation", path);
    if (!st)
        st = read_int(&c->layers, root, "n_layer", -1, path);
    if (!st)
        st = read_int(&c->heads, root, "n_head", -1, path);
    if (!st)
        st = read_int(&c->channels, root, "n_embd", -1, path);
    if (!st)
        st = read_int(&c->context, root, "n_positions", 1024, path);
    if (!st)
        st = read_int(&c->vocab, root, "vocab_size", 0, path);
    if (!st)
        st = read_int(&c->inner, root, "n_inner", 4 * c->channels, path);
    if (!st)
        st = read_float(&c->dropout_embed, root, "embd_pdrop", 0.0f, path);
    if (!st)
        st = read_float(&c->dropout_attention, root, "attn_pdrop", 0.0f, path);
    if (!st)
        st = read_float(&c->dropout_residual, root, "resid_pdrop", 0.0f, path);
    if (!st)
        st = read_float(&c->eps, root, "layer_norm_epsilon", 1e-5f, path);
    if (!st)
        st = read_float(&c->init_deviation, root, "initializer_range", 0.02f, path);
    int scaled = 1, tied = 1;
    if (!st)
        st = read_flag(&tied, root, "tie_word_embeddings", 1, path);
    c->untied_head = !tied;
    if (!st)
        st = read_flag(&scaled, root, "scale_attn_weights", 1, path);
    c->attention_unscaled = !scaled;
    if (!st)
        st = read_flag(&c->attention_by_layer, root, "scale_attn_by_inverse_layer_idx", 0, path);
    json_object_foreach(root, key, value)
        if (!st)
            st = check_key(key, value, c, path);
    c->vocab_given = c->vocab > 0;
    return st;
}

static gt_status load_file(model_config *out, const char *path)
{
    char *text;
    size_t size;
    json_error_t error;
    gt_status st = gt_file_read(&text, &size, path, 1u << 20);
    if (st)
        return st;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        st = gt_fail(GT_FORMAT, "model file '%s', line %d: %s", path, error.line, error.text);
    else if (!json_is_object(root))
        st = gt_fail(GT_FORMAT, "model file '%s' is not a JSON object", path);
    else {
        json_t *inner = json_object_get(root, "model");     /* a run directory's config.json */
        json_t *body = json_is_object(inner) ? inner : root;
        const char *name = json_string_value(json_object_get(body, "name"));
        if (name)
            snprintf(out->name, sizeof out->name, "%.63s", name);
        st = read_config(out, body, path);
    }
    json_decref(root);
    free(text);
    return st;
}

gt_status model_config_load(model_config *out, const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (!strcmp(presets[i].name, name)) {
            const preset *p = &presets[i];
            set_defaults(out, name);
            out->layers = p->layers;
            out->heads = p->heads;
            out->channels = p->channels;
            out->inner = 4 * p->channels;
            out->context = p->context;
            out->vocab = p->vocab;
            return GT_OK;
        }
    if (!gt_path_exists(name)) {
        gt_text known = { 0 };
        for (int i = 0; model_preset_name(i); i++)
            gt_text_printf(&known, "%s%s", i ? " " : "", model_preset_name(i));
        gt_status st = gt_fail(GT_MISUSE, "model '%s' is neither a file nor one of: %s", name,
                               known.data ? known.data : "");
        gt_text_release(&known);
        return st;
    }
    const char *slash = strrchr(name, '/');
    set_defaults(out, slash && slash[1] ? slash + 1 : name);
    gt_status st;
    if (gt_path_is_folder(name)) {
        char *path = gt_path_join(name, "config.json");
        if (!path)
            return gt_fail(GT_NO_MEMORY, "cannot read model '%s': out of memory", name);
        st = model_folder_check(name);
        if (!st)
            st = load_file(out, path);
        free(path);
    } else {
        st = load_file(out, name);
    }
    return st ? st : model_config_check(out);
}

gt_status model_config_check(const model_config *c)
{
    if (c->layers < 1 || c->heads < 1 || c->channels < 1 || c->context < 1 || c->inner < 1)
        return gt_fail(GT_MISUSE, "model '%s' has a size of zero", c->name);
    if (c->channels % c->heads)
        return gt_fail(GT_MISUSE, "model '%s': %d channels do not divide into %d heads", c->name,
                       c->channels, c->heads);
    if (c->channels / c->heads > 256)
        return gt_fail(GT_UNSUPPORTED, "model '%s': heads of %d channels, more than the 256 "
                       "supported", c->name, c->channels / c->heads);
    if (c->layers > 1024)
        return gt_fail(GT_MISUSE, "model '%s': %d layers, more than 1024", c->name, c->layers);
    return GT_OK;
}

/* A float as the nearest decimal that reads back the same: 1e-5, not 9.99999975e-6. */
static const char *short_text(char text[32], float x)
{
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, 32, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return text;
}

static json_t *short_real(float x)
{
    char text[32];
    return json_real(strtod(short_text(text, x), NULL));
}

/* ---- what two descriptions differ in ------------------------------------------------------------ */

/* A flag that is the opposite of its key is FIELD_NOT. */
typedef enum field_type { FIELD_TEXT, FIELD_INT, FIELD_FLAG, FIELD_NOT, FIELD_FLOAT } field_type;

#define FIELD(key, type, member, kind) { key, type, offsetof(model_config, member), kind }

/* All of a model_config but its name, the sizes first: they show best that it is another model. */
static const struct { const char *key; field_type type; size_t at; int kind; } fields[] = {
    FIELD("model_type", FIELD_TEXT, family, MODEL_COMPUTES),
    FIELD("n_layer", FIELD_INT, layers, MODEL_COMPUTES),
    FIELD("n_head", FIELD_INT, heads, MODEL_COMPUTES),
    FIELD("n_embd", FIELD_INT, channels, MODEL_COMPUTES),
    FIELD("n_inner", FIELD_INT, inner, MODEL_COMPUTES),
    FIELD("n_positions", FIELD_INT, context, MODEL_COMPUTES),
    FIELD("vocab_size", FIELD_INT, vocab, MODEL_COMPUTES),
    FIELD("tie_word_embeddings", FIELD_NOT, untied_head, MODEL_COMPUTES),
    FIELD("scale_attn_weights", FIELD_NOT, attention_unscaled, MODEL_COMPUTES),
    FIELD("scale_attn_by_inverse_layer_idx", FIELD_FLAG, attention_by_layer, MODEL_COMPUTES),
    FIELD("layer_norm_epsilon", FIELD_FLOAT, eps, MODEL_COMPUTES),
    FIELD("initializer_range", FIELD_FLOAT, init_deviation, MODEL_BEGINS),
    FIELD("embd_pdrop", FIELD_FLOAT, dropout_embed, MODEL_DROPS),
    FIELD("attn_pdrop", FIELD_FLOAT, dropout_attention, MODEL_DROPS),
    FIELD("resid_pdrop", FIELD_FLOAT, dropout_residual, MODEL_DROPS),
};
enum { FIELDS = sizeof fields / sizeof *fields };

/* In `text`, or a constant. */
static const char *field_text(char text[32], const model_config *c, int i)
{
    const void *at = (const char *)c + fields[i].at;
    switch (fields[i].type) {
    case FIELD_TEXT:
        snprintf(text, 32, "%.31s", (const char *)at);
        break;
    case FIELD_INT:
        snprintf(text, 32, "%d", *(const int *)at);
        break;
    case FIELD_FLAG:
        return *(const int *)at ? "true" : "false";
    case FIELD_NOT:
        return *(const int *)at ? "false" : "true";
    case FIELD_FLOAT:
        return short_text(text, *(const float *)at);
    }
    return text;
}

void model_config_each(const model_config *c, int kinds, void (*put)(void *context, const char *key,
                                                                     const char *value), void *context)
{
    char text[32];
    for (int i = 0; i < FIELDS; i++)
        if (fields[i].kind & kinds)
            put(context, fields[i].key, field_text(text, c, i));
}

int model_config_difference(char *out, size_t size, const model_config *a, const model_config *b, int kinds)
{
    char room[2][32];
    for (int i = 0; i < FIELDS; i++) {
        const char *x = field_text(room[0], a, i), *y = field_text(room[1], b, i);
        const int open = fields[i].at == offsetof(model_config, vocab) && (!a->vocab_given || !b->vocab_given);
        if (!(fields[i].kind & kinds) || open || !strcmp(x, y))
            continue;
        snprintf(out, size, "%s %s, not %s", fields[i].key, x, y);
        return 1;
    }
    return 0;
}

gt_status model_config_json(char **out, const model_config *c)
{
    *out = NULL;
    json_t *name = json_string(c->name);    /* NULL for a file's name that is no UTF-8 */
    json_t *root = json_pack(
        "{s:[s], s:s, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b}",
        "architectures", "GPT2LMHeadModel", "model_type", "gpt2", "name",
        name ? name : json_string("model"), "n_layer", c->layers, "n_head", c->heads, "n_embd",
        c->channels, "n_inner", c->inner, "n_positions", c->context, "vocab_size", c->vocab,
        "activation_function", "gelu_new", "layer_norm_epsilon",
        short_real(c->eps), "embd_pdrop", short_real(c->dropout_embed), "attn_pdrop",
        short_real(c->dropout_attention), "resid_pdrop", short_real(c->dropout_residual),
        "initializer_range", short_real(c->init_deviation), "scale_attn_weights",
        !c->attention_unscaled, "scale_attn_by_inverse_layer_idx", c->attention_by_layer,
        "tie_word_embeddings", !c->untied_head);
    if (root)
        *out = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return *out ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot describe model '%s': out of memory", c->name);
}

int64_t model_parameters(const model_config *c)
{
    const int64_t C = c->channels, I = c->inner;
    const int64_t layer = 4 * C + 3 * C * C + 3 * C + C * C + C + 2 * C * I + I + C;
    const int64_t tables = (c->untied_head ? 2 : 1) * (int64_t)c->vocab + c->context;
    return tables * C + c->layers * layer + 2 * C;
}

double model_flops_per_token(const model_config *c, int T)
{
    const double C = c->channels;
    const double matrices = (double)c->layers * (4.0 * C * C + 2.0 * C * c->inner)
                            + (double)c->vocab * C;
    return 6.0 * matrices + 6.0 * c->layers * C * T;
}

gt_status model_build_loss(graph *g, const model_config *c, int train, int recompute)
{
    return model_build_part(g, c, NULL, train, recompute);
}

int model_units(const model_config *c)
{
    return c->layers + 2;
}

gt_status model_build_part(graph *g, const model_config *c, const graph_part *part, int train,
                           int recompute)
{
    const graph_part all = { .units = model_units(c) };
    return gpt2_build_part(g, c, part ? part : &all, train, recompute);
}

gt_status model_build_generate(graph *g, const model_config *c, int capacity)
{
    return gpt2_build_generate(g, c, capacity);
}
