/* models/config.c - presets, and descriptions read from and written to config.json. */
#include "models/model_private.h"

#include "host/base/file.h"
#include "host/base/text.h"

#include <jansson.h>
#include <math.h>
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

static gt_status read_config(model_config *c, json_t *root, const char *path)
{
    gt_status st = GT_OK;
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const char *act = json_string_value(json_object_get(root, "activation_function"));
    if (type && strcmp(type, "gpt2"))
        return gt_fail(GT_UNSUPPORTED, "model file '%s': model_type '%s' is not gpt2", path, type);
    if (act && strcmp(act, "gelu_new") && strcmp(act, "gelu_pytorch_tanh"))
        return gt_fail(GT_UNSUPPORTED, "model file '%s': activation '%s' is not gelu_new", path,
                       act);
    if (json_is_true(json_object_get(root, "scale_attn_by_inverse_layer_idx")))
        return gt_fail(GT_UNSUPPORTED, "model file '%s': scale_attn_by_inverse_layer_idx is not "
                       "supported", path);
    if (json_is_false(json_object_get(root, "tie_word_embeddings")))
        return gt_fail(GT_UNSUPPORTED, "model file '%s': an untied head is not supported", path);
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
static json_t *short_real(float x)
{
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return json_real(strtod(text, NULL));
}

gt_status model_config_json(char **out, const model_config *c)
{
    *out = NULL;
    json_t *name = json_string(c->name);    /* NULL for a file's name that is no UTF-8 */
    json_t *root = json_pack(
        "{s:[s], s:s, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:b}",
        "architectures", "GPT2LMHeadModel", "model_type", "gpt2", "name",
        name ? name : json_string("model"), "n_layer", c->layers, "n_head", c->heads, "n_embd",
        c->channels, "n_inner", c->inner, "n_positions", c->context, "vocab_size", c->vocab,
        "activation_function", "gelu_new", "layer_norm_epsilon",
        short_real(c->eps), "embd_pdrop", short_real(c->dropout_embed), "attn_pdrop",
        short_real(c->dropout_attention), "resid_pdrop", short_real(c->dropout_residual),
        "initializer_range", short_real(c->init_deviation), "tie_word_embeddings", 1);
    if (root)
        *out = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return *out ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot describe model '%s': out of memory", c->name);
}

int64_t model_parameters(const model_config *c)
{
    const int64_t C = c->channels, I = c->inner;
    const int64_t layer = 4 * C + 3 * C * C + 3 * C + C * C + C + 2 * C * I + I + C;
    return ((int64_t)c->vocab + c->context) * C + c->layers * layer + 2 * C;
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
