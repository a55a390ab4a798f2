/* SPDX-License-Identifier: MIT */
/* models/config.c - descriptions read from, compared by and written to config.json, by the family's
 * rows of keys. Nothing here names a family: family.h says what a row means.
 *
 * A description is transformers' PretrainedConfig, versions 2 to 5 (configuration_utils.py), and what
 * the family's class adds. A key that has no row may change the model, so anything but null is refused. */
#include "models/family.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys of any family that do not touch the loss: what the weights were saved by and as, how text is
 * generated, heads of other tasks. */
/* clang-format off */
static const char *const ignored[] = {
    "model_type", "name", "architectures",
    "chunk_size_feed_forward", "transformers_version", "torch_dtype", "dtype", "use_bfloat16",
    "torchscript", "gradient_checkpointing", "_name_or_path", "name_or_path", "_commit_hash",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation",
    "transformers.js_config", "custom_pipelines", "use_cache", "is_decoder", "return_dict",
    "output_attentions", "output_hidden_states", "tf_legacy_loss", "tie_last_hidden_states",
    "tokenizer_class", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id",
    "mask_token_id", "unk_token_id", "decoder_start_token_id", "task_specific_params",
    "finetuning_task", "problem_type", "num_labels", "_num_labels", "id2label", "label2id",
    "max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams",
    "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "prefix",
};
/* clang-format on */
/* Keys of any family of which only false, null, 0 or an empty list or object is computed here. */
static const char *const off[] = {
    "add_cross_attention", "cross_attention_hidden_size", "is_encoder_decoder", "tie_encoder_decoder", "pruned_heads",
    "per_layer_config",    "quantization_config",         "auto_map",
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- families ------------------------------------------------------------------------------ */

static const model_family *find_family(const char *name)
{
    for (const model_family *const *f = model_families; *f; f++)
        if (!strcmp((*f)->name, name))
            return *f;
    return NULL;
}

gt_status model_family_of(const model_family **out, const model_config *c)
{
    *out = find_family(c->family);
    return *out ? GT_OK
                : gt_fail(GT_UNSUPPORTED,
                          "model '%s' is of the family '%s', which this program does "
                          "not have",
                          c->name, c->family);
}

/* The i-th preset of all families. */
static const model_preset *preset_at(int i, const model_family **family)
{
    for (const model_family *const *f = model_families; *f; f++)
        for (const model_preset *p = (*f)->presets; p && p->name; p++)
            if (!i--) {
                *family = *f;
                return p;
            }
    return NULL;
}

const char *model_preset_name(int i)
{
    const model_family *family;
    const model_preset *p = preset_at(i, &family);
    return p ? p->name : NULL;
}

/* ---- members ------------------------------------------------------------------------------- */

static int is_own(const model_field *f)
{
    return f->at >= offsetof(model_config, own);
}

static double get(const model_config *c, const model_field *f)
{
    const void *at = (const char *)c + f->at;
    return is_own(f)                ? *(const double *)at
           : f->type == MODEL_SHARE ? (double)*(const float *)at
                                    : (double)*(const int *)at;
}

static void set(model_config *c, const model_field *f, double x)
{
    void *at = (char *)c + f->at;
    if (is_own(f))
        *(double *)at = x;
    else if (f->type == MODEL_SHARE)
        *(float *)at = (float)x;
    else
        *(int *)at = (int)x;
}

static int has_member(const model_field *f)
{
    return f->type <= MODEL_WORD;
}

/* What stands at a key, or, behind its dot, in the object at what is before it; NULL: nothing. */
static json_t *find(const json_t *root, const char *key)
{
    const char *dot = strchr(key, '.');
    char outer[64];
    if (!dot)
        return json_object_get(root, key);
    snprintf(outer, sizeof outer, "%.*s", (int)(dot - key), key);
    return json_object_get(json_object_get(root, outer), dot + 1);
}

/* ---- two generations of keys ---------------------------------------------------------------- */

/* Moves a key of an object one level up, where it may stand already if it says the same. */
static gt_status lift(json_t *root, json_t *inner, const char *key, const char *path)
{
    json_t *v = json_object_get(inner, key), *there = json_object_get(root, key);
    if (!v)
        return GT_OK;
    if (there && !json_is_null(there)
        && !(json_is_number(v) && json_is_number(there) && json_number_value(v) == json_number_value(there)))
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is given twice, and not the same; leave one of them", path,
                       key);
    if (json_object_set(root, key, v))
        return gt_fail(GT_NO_MEMORY, "cannot read model '%s': no memory for its keys", path);
    json_object_del(inner, key);
    return GT_OK;
}

/* transformers 5 has rope_parameters with rope_theta in them; 4 had rope_scaling beside it, and before that
 * called its rope_type type. From here on it is rope_scaling, with rope_type in it. */
static gt_status settle_rope(json_t *root, const char *path)
{
    json_t *now = json_object_get(root, "rope_parameters"), *before = json_object_get(root, "rope_scaling");
    gt_status st = GT_OK;
    if (now && !json_is_null(now)) {
        if (before && !json_is_null(before) && !json_equal(now, before))
            return gt_fail(GT_FORMAT,
                           "model file '%s': 'rope_parameters' and 'rope_scaling' are both given, and not the "
                           "same; leave one of them",
                           path);
        if (json_object_set(root, "rope_scaling", now))
            return gt_fail(GT_NO_MEMORY, "cannot read model '%s': no memory for its keys", path);
    }
    json_object_del(root, "rope_parameters");
    json_t *rope = json_object_get(root, "rope_scaling"), *type = json_object_get(rope, "type");
    if (!json_is_object(rope))
        return GT_OK;
    st = lift(root, rope, "rope_theta", path);
    if (!st)
        st = lift(root, rope, "partial_rotary_factor", path);
    if (st || !type)
        return st;
    json_t *newer = json_object_get(rope, "rope_type");
    if (newer && !json_equal(newer, type))
        return gt_fail(GT_FORMAT, "model file '%s': 'type' and 'rope_type' of 'rope_scaling' are not the same", path);
    if (json_object_set(rope, "rope_type", type))
        return gt_fail(GT_NO_MEMORY, "cannot read model '%s': no memory for its keys", path);
    json_object_del(rope, "type");
    return GT_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* The number of the word at a key. */
static gt_status read_word(double *out, const model_field *f, json_t *root, const char *path)
{
    const json_t *v = find(root, f->key);
    const char *text = json_is_null(v) ? "null" : json_string_value(v);
    *out = f->words[0].value;
    if (!v)
        return GT_OK;
    for (const model_word *w = f->words; text && w->word; w++)
        if (!strcmp(text, w->word)) {
            *out = w->value;
            return GT_OK;
        }
    gt_text all = { 0 };
    for (const model_word *w = f->words; w->word; w++)
        gt_text_printf(&all, "%s%s", w == f->words ? "" : w[1].word ? ", " : " or ", w->word);
    gt_status st = gt_fail(GT_UNSUPPORTED, "model file '%s': %s '%.60s' is not %s", path, f->key,
                           text ? text : "that is no text", all.data ? all.data : "known");
    gt_text_release(&all);
    return st;
}

/* The first word for a member's number. */
static const char *word_of(const model_config *c, const model_field *f)
{
    for (const model_word *w = f->words; w->word; w++)
        if (w->value == (int)get(c, f))
            return w->word;
    return f->words[0].word;
}

static int is_whole(const json_t *v, json_int_t least)
{
    return json_is_integer(v) && json_integer_value(v) >= least && json_integer_value(v) <= (1 << 28);
}

/* How many layers have the first word, all of them before those with the second. */
static gt_status read_layers(model_config *c, const model_field *f, json_t *root, const char *path)
{
    json_t *v = find(root, f->key);
    size_t first = 0, n = json_array_size(v);
    if (!v || json_is_null(v))
        return GT_OK;
    if (!json_is_array(v) || n != (size_t)c->layers)
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a list with a word for each of %d layers", path, f->key,
                       c->layers);
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        const int second = text && !strcmp(text, f->words[1].word);
        if (!text || (!second && strcmp(text, f->words[0].word)))
            return gt_fail(GT_UNSUPPORTED, "model file '%s': %s '%.60s' is not %s or %s", path, f->key,
                           text ? text : "that is no text", f->words[0].word, f->words[1].word);
        if (!second && first < i)
            return gt_fail(GT_UNSUPPORTED,
                           "model file '%s': '%s' goes back from %s to %s at layer %zu, which is not supported", path,
                           f->key, f->words[1].word, f->words[0].word, i);
        first += !second;
    }
    set(c, f, (double)first);
    return GT_OK;
}

/* What stands at a key, as a number; absent or null: the fallback. */
static gt_status read_field(model_config *c, const model_field *f, json_t *root, const char *path)
{
    const json_t *v = find(root, f->key);
    double x = f->fallback;
    const int flag = f->type == MODEL_FLAG || f->type == MODEL_NOT;
    if (f->type == MODEL_WORD) {
        gt_status st = read_word(&x, f, root, path);
        set(c, f, x);
        return st;
    }
    if (f->type == MODEL_LAYERS)
        return read_layers(c, f, root, path);
    if (f->type == MODEL_LIMIT && json_is_null(v)) {
        x = 0.0;
    } else if (!v || (json_is_null(v) && (!flag || x == 0.0))) {
        if (x == MODEL_REQUIRED)
            return gt_fail(GT_FORMAT, "model file '%s': '%s' is missing", path, f->key);
    } else if (flag) {
        if (!json_is_boolean(v))
            return gt_fail(GT_FORMAT, "model file '%s': '%s' is neither true nor false", path, f->key);
        x = json_is_true(v) ? 1.0 : 0.0;
    } else if (f->type == MODEL_NUMBER) {
        x = json_number_value(v);
        if (!json_is_number(v) || !(x >= 0.0) || x > 1e30)
            return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a number from 0 up", path, f->key);
    } else if (f->type != MODEL_SHARE) {
        const int least = f->type == MODEL_COUNT ? 0 : 1;
        if (!is_whole(v, least))
            return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a whole number from %d to 2^28", path, f->key,
                           least);
        x = (double)json_integer_value(v);
    } else {
        x = json_number_value(v);
        if (!json_is_number(v) || !(x >= 0.0) || x >= 1.0)
            return gt_fail(GT_FORMAT, "model file '%s': '%s' is not a number in [0, 1)", path, f->key);
    }
    set(c, f, f->type == MODEL_NOT ? 1.0 - x : x);
    return GT_OK;
}

static int is_off(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0.0)
           || (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
}

/* The row of a key; rows that all families have in *common. */
static const model_field *find_row(const model_family *family, const char *key, model_field *common)
{
    for (const model_field *f = family->fields; f->key; f++)
        if (!strcmp(f->key, key))
            return f;
    *common = (model_field){ .key = key, .type = MODEL_IGNORED };
    for (size_t i = 0; i < COUNT(ignored); i++)
        if (!strcmp(ignored[i], key))
            return common;
    common->type = MODEL_OFF;
    for (size_t i = 0; i < COUNT(off); i++)
        if (!strcmp(off[i], key))
            return common;
    return NULL;
}

/* Are there rows for what is in the object at this key? */
static int leads_on(const model_family *family, const char *key)
{
    const size_t n = strlen(key);
    for (const model_field *f = family->fields; f->key; f++)
        if (!strncmp(f->key, key, n) && f->key[n] == '.')
            return 1;
    return 0;
}

static gt_status check_key(const model_family *family, const char *key, json_t *v, const model_config *c,
                           const char *path)
{
    if (leads_on(family, key) && json_is_object(v)) {
        const char *inner;
        json_t *each;
        char whole[128];
        gt_status st = GT_OK;
        json_object_foreach(v, inner, each) {
            snprintf(whole, sizeof whole, "%s.%.60s", key, inner);
            if (!st)
                st = check_key(family, whole, each, c, path);
        }
        return st;
    }
    char text[64];
    model_field common;
    const model_field *f = find_row(family, key, &common);
    int fits = 1;
    if (!f)
        fits = json_is_null(v);
    else if (f->type == MODEL_OFF)
        fits = is_off(v);
    else if (f->type == MODEL_ONE)
        fits = json_is_null(v) || (json_is_number(v) && json_number_value(v) == 1.0);
    else if (f->type == MODEL_ALIAS)
        fits = json_is_null(v) || (json_is_integer(v) && (double)json_integer_value(v) == get(c, f));
    if (fits)
        return GT_OK;
    const size_t n = json_dumpb(v, text, sizeof text - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    text[n < sizeof text ? n : 0] = '\0';
    const char *shown = *text ? text : "what it says";
    if (!f)
        return gt_fail(GT_UNSUPPORTED,
                       "model file '%s': key '%.60s' is not known here and may change the "
                       "model; remove it if it does not",
                       path, key);
    if (f->type == MODEL_ALIAS)
        return gt_fail(GT_FORMAT, "model file '%s': '%s' is %s, which contradicts %.0f by its other name", path, key,
                       shown, get(c, f));
    return gt_fail(GT_UNSUPPORTED, "model file '%s': '%s' is %s, which is not supported", path, key, shown);
}

static int has_key(const model_family *family, const char *key)
{
    for (const model_field *f = family->fields; f->key; f++)
        if (!strcmp(f->key, key))
            return 1;
    return 0;
}

/* Some keys of a file that belong to this family and to no other, up to three; 0: there are none. */
static int own_keys(gt_text *out, const model_family *family, json_t *root)
{
    const char *key;
    json_t *value;
    int count = 0;
    json_object_foreach(root, key, value) {
        int others = 0;
        for (const model_family *const *f = model_families; *f; f++)
            others |= *f != family && has_key(*f, key);
        if (!has_key(family, key) || others || json_is_null(value))
            continue;
        if (count < 3)
            gt_text_printf(out, "%s'%.40s'", count ? ", " : "", key);
        count++;
    }
    return count;
}

/* Of a file without a model_type: the one family that has keys of it for itself. */
static gt_status guess_family(const model_family **out, json_t *root, const char *path)
{
    gt_text keys = { 0 }, all = { 0 };
    int candidates = 0;
    for (const model_family *const *f = model_families; *f; f++) {
        gt_text of = { 0 };
        gt_text_printf(&all, "%s%s", all.size ? ", " : "", (*f)->name);
        if (own_keys(&of, *f, root) && !candidates++) {
            *out = *f;
            gt_text_printf(&keys, "%s", of.data ? of.data : "");
        }
        gt_text_release(&of);
    }
    gt_status st = GT_OK;
    if (candidates == 1)
        gt_log(GT_LOG_WARN, "models", "model file '%s' has no model_type; it is read as '%s', the only family with %s",
               path, (*out)->name, keys.data ? keys.data : "such keys");
    else
        st = gt_fail(GT_FORMAT,
                     "model file '%s' has no model_type, and its keys do not tell which family it is of; add "
                     "\"model_type\": one of %s",
                     path, all.data ? all.data : "those known");
    gt_text_release(&keys);
    gt_text_release(&all);
    return st;
}

/* The family that reads a file: the first that knows its model_type. */
static gt_status choose_family(const model_family **out, json_t *root, const char *path)
{
    const json_t *v = json_object_get(root, "model_type");
    const char *type = json_string_value(v);
    *out = model_families[0];
    if (!v)
        return guess_family(out, root, path);
    for (const model_family *const *f = model_families; type && *f; f++)
        for (const char *const *known = (*f)->types; *known; known++)
            if (!strcmp(*known, type)) {
                *out = *f;
                return GT_OK;
            }
    gt_text all = { 0 };
    for (const model_family *const *f = model_families; *f; f++)
        gt_text_printf(&all, "%s%s", f == model_families ? "" : " or ", (*f)->name);
    gt_status st = gt_fail(GT_UNSUPPORTED, "model file '%s': model_type '%.60s' is not %s", path,
                           type              ? type
                           : json_is_null(v) ? "null"
                                             : "that is no text",
                           all.data ? all.data : "known");
    gt_text_release(&all);
    return st;
}

/* ---- tasks and labels ------------------------------------------------------------------------ */

static const char *const task_names[] = { "lm", "mlm", "classify", "encode" };

const char *model_task_name(int task)
{
    return task_names[task];
}

/* The class of transformers that a model is saved as. */
static const char *architecture_of(const model_family *family, const model_config *c)
{
    for (const model_head *h = family->heads; h && h->architecture; h++)
        if (h->task == c->task && h->pairs == c->pairs)
            return h->architecture;
    return family->architecture;
}

/* A class with a head says what for; others leave it to the family. */
static void read_task(model_config *c, const model_family *family, const json_t *root)
{
    const char *class = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    if (!family->heads)
        return;
    c->task = family->heads[0].task;
    for (const model_head *h = family->heads; class && h->architecture; h++)
        if (h->task != MODEL_ENCODE && !strcmp(h->architecture, class)) {
            c->task = h->task;
            c->pairs = h->pairs;
        }
}

gt_status model_config_task(model_config *c, const char *task)
{
    const model_family *family;
    gt_status st = model_family_of(&family, c);
    if (st || (!family->heads && !strcmp(task, task_names[MODEL_LM])))
        return st;
    for (const model_head *h = family->heads; h && h->architecture; h++)
        if (!strcmp(task_names[h->task], task)) {
            c->pairs = c->task == h->task && c->pairs;
            c->task = h->task;
            return GT_OK;
        }
    gt_text known = { 0 };
    for (const model_head *h = family->heads; h && h->architecture; h++)
        if (h->task != MODEL_ENCODE && !h->pairs)
            gt_text_printf(&known, "%s%s", known.size ? " or " : "", task_names[h->task]);
    st = gt_fail(GT_MISUSE, "option --task: models of the family '%s' do %s, not %s", family->name,
                 known.size ? known.data : task_names[MODEL_LM], task);
    gt_text_release(&known);
    return st;
}

static void name_label(model_config *c, int i, const char *name)
{
    if (i < MODEL_LABELS && name && strlen(name) < MODEL_LABEL_NAME)
        snprintf(c->label[i], MODEL_LABEL_NAME, "%s", name);
}

/* transformers' PretrainedConfig: two, unless id2label or num_labels say otherwise. */
static gt_status read_labels(model_config *c, const json_t *root, const char *path)
{
    json_t *names = json_object_get(root, "id2label");
    const json_t *count = json_object_get(root, "num_labels");
    const size_t n = json_is_object(names) ? json_object_size(names) : 0;
    c->labels = n ? (int)n : json_is_integer(count) ? (int)json_integer_value(count) : 2;
    if (c->labels < 1 || (json_is_integer(count) && json_integer_value(count) != c->labels))
        return gt_fail(GT_FORMAT, "model file '%s': 'num_labels' and 'id2label' do not say how many labels there are",
                       path);
    for (int i = 0; n && i < c->labels; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        const char *name = json_string_value(json_object_get(names, key));
        if (!name)
            return gt_fail(GT_FORMAT, "model file '%s': 'id2label' has no name for %d", path, i);
        name_label(c, i, name);
    }
    return GT_OK;
}

static int put_labels(json_t *root, const model_config *c)
{
    json_t *names = json_object(), *numbers = json_object();
    int failed = !names || !numbers;
    for (int i = 0; !failed && i < c->labels; i++) {
        char key[16], name[MODEL_LABEL_NAME];
        snprintf(key, sizeof key, "%d", i);
        snprintf(name, sizeof name, "LABEL_%d", i);
        if (i < MODEL_LABELS && *c->label[i])
            snprintf(name, sizeof name, "%s", c->label[i]);
        failed = json_object_set_new(names, key, json_string(name))
                 || json_object_set_new(numbers, name, json_integer(i));
    }
    return failed | json_object_set_new(root, "id2label", names) | json_object_set_new(root, "label2id", numbers);
}

/* Do they have the same names, where both have any? */
static int same_labels(const model_config *c, char *const *names)
{
    char none[32];
    for (int i = 0; names && i < c->labels && i < MODEL_LABELS; i++) {
        snprintf(none, sizeof none, "LABEL_%d", i);
        if (*c->label[i] && strcmp(c->label[i], none) && strcmp(c->label[i], names[i]))
            return 0;
    }
    return 1;
}

gt_status model_config_labels(model_config *c, char *const *names, int count)
{
    if (!c->new_labels && (c->labels != count || !same_labels(c, names)))
        return gt_fail(
            GT_MISMATCH,
            "model '%s' tells %d labels apart, and the data have %d of which some have other names; give data "
            "with the labels that it was trained on",
            c->name, c->labels, count);
    memset(c->label, 0, sizeof c->label);
    c->labels = count;
    for (int i = 0; i < count && names; i++)
        name_label(c, i, names[i]);
    return GT_OK;
}

void model_config_dropout(model_config *c, float p)
{
    const model_family *family = find_family(c->family);
    c->dropout_embed = c->dropout_attention = c->dropout_residual = p;
    for (const model_field *f = family ? family->fields : NULL; f && f->key; f++)
        if (has_member(f) && f->kinds & MODEL_DROPS)
            set(c, f, (double)p);
}

static gt_status read_config(model_config *c, const model_family *family, json_t *root, const char *path)
{
    const char *key;
    json_t *value;
    gt_status st = GT_OK;
    snprintf(c->family, sizeof c->family, "%s", family->name);
    if (leads_on(family, "rope_scaling"))
        st = settle_rope(root, path);
    for (const model_field *f = family->fields; !st && f->key; f++)
        if (has_member(f) || f->type == MODEL_LAYERS)
            st = read_field(c, f, root, path);
    if (!st && family->complete)
        family->complete(c);
    read_task(c, family, root);
    if (!st && family->heads)
        st = read_labels(c, root, path);
    json_object_foreach(root, key, value)
        if (!st)
            st = check_key(family, key, value, c, path);
    c->vocab_given = c->vocab > 0;
    return st;
}

static gt_status load_text(model_config *out, const char *text, size_t size, const char *path)
{
    json_error_t error;
    const model_family *family;
    gt_status st = GT_OK;
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
        st = choose_family(&family, body, path);
        if (!st)
            st = read_config(out, family, body, path);
    }
    json_decref(root);
    return st;
}

static gt_status load_file(model_config *out, const char *path)
{
    char *text;
    size_t size;
    gt_status st = gt_file_read(&text, &size, path, 1u << 20);
    if (st)
        return st;
    st = load_text(out, text, size, path);
    free(text);
    return st;
}

static void begin(model_config *c, const char *name)
{
    memset(c, 0, sizeof *c);
    snprintf(c->name, sizeof c->name, "%.63s", name);
}

static gt_status load_preset(model_config *out, const model_family *family, const model_preset *p)
{
    json_t *root = json_loads(p->json, 0, NULL);
    begin(out, p->name);
    gt_status st = root ? read_config(out, family, root, p->name)
                        : gt_fail(GT_NO_MEMORY, "cannot describe model '%s': no memory for its keys", p->name);
    out->vocab_given = 0;
    json_decref(root);
    return st;
}

static gt_status fail_unknown(const char *name)
{
    gt_text known = { 0 };
    for (int i = 0; model_preset_name(i); i++)
        gt_text_printf(&known, "%s%s", i ? " " : "", model_preset_name(i));
    gt_status st = gt_fail(GT_MISUSE, "model '%s' is neither a file nor one of: %s", name,
                           known.data ? known.data : "");
    gt_text_release(&known);
    return st;
}

/* A file of weights that some family has a format for, or a description. */
static gt_status load_any_file(model_config *out, const char *path)
{
    gt_status st = GT_OK;
    int is = 0;
    for (const model_family *const *f = model_families; !st && !is && *f; f++)
        if ((*f)->describe_file)
            st = (*f)->describe_file(out, path, &is);
    return st || is ? st : load_file(out, path);
}

gt_status model_config_load(model_config *out, const char *name)
{
    const model_family *family;
    const model_preset *p;
    for (int i = 0; (p = preset_at(i, &family)); i++)
        if (!strcmp(p->name, name))
            return load_preset(out, family, p);
    if (!gt_path_exists(name))
        return fail_unknown(name);
    const char *slash = strrchr(name, '/');
    begin(out, slash && slash[1] ? slash + 1 : name);
    gt_status st;
    if (gt_path_is_folder(name)) {
        char *path = gt_path_join(name, "config.json");
        if (!path)
            return gt_fail(GT_NO_MEMORY, "cannot read model '%s': no memory for its path", name);
        st = model_folder_check(name);
        if (!st)
            st = load_file(out, path);
        free(path);
    } else {
        st = load_any_file(out, name);
    }
    return st ? st : model_config_check(out);
}

gt_status model_config_check(const model_config *c)
{
    const model_family *family;
    if (c->layers < 1 || c->heads < 1 || c->channels < 1 || c->context < 1 || c->inner < 1)
        return gt_fail(GT_MISUSE, "model '%s' has a size of zero", c->name);
    if (c->layers > 1024)
        return gt_fail(GT_MISUSE, "model '%s': %d layers, more than 1024", c->name, c->layers);
    gt_status st = model_family_of(&family, c);
    return !st && family->check ? family->check(c) : st;
}

/* ---- writing and comparing ----------------------------------------------------------------- */

/* The nearest decimal that reads back the same, of a float or a double: 1e-5, not 9.99999975e-6. */
static const char *short_text(char text[32], double x, int single)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, x);
        if (single ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x)
            break;
    }
    return text;
}

static json_t *short_real(double x, int single)
{
    char text[32];
    return json_real(strtod(short_text(text, x, single), NULL));
}

/* In `text`, or a constant. */
static const char *field_text(char text[32], const model_config *c, const model_field *f)
{
    const double x = get(c, f);
    if (f->type == MODEL_FLAG || f->type == MODEL_NOT)
        return (x != 0.0) == (f->type == MODEL_FLAG) ? "true" : "false";
    if (f->type == MODEL_SHARE || f->type == MODEL_NUMBER)
        return short_text(text, x, f->type == MODEL_SHARE);
    if (f->type == MODEL_WORD)
        return word_of(c, f);
    snprintf(text, 32, "%.0f", x);
    return text;
}

void model_config_each(const model_config *c, int kinds, void (*put)(void *context, const char *key, const char *value),
                       void *context)
{
    const model_family *family = find_family(c->family);
    char text[32];
    if (kinds & MODEL_COMPUTES)
        put(context, "model_type", c->family);
    for (const model_field *f = family ? family->fields : NULL; f && f->key; f++)
        if (has_member(f) && f->kinds & kinds)
            put(context, f->key, field_text(text, c, f));
}

int model_config_difference(char *out, size_t size, const model_config *a, const model_config *b, int kinds)
{
    const model_family *family = find_family(a->family);
    char room[2][32];
    if (strcmp(a->family, b->family)) {
        snprintf(out, size, "model_type %s, not %s", a->family, b->family);
        return (kinds & MODEL_COMPUTES) != 0;
    }
    for (const model_field *f = family ? family->fields : NULL; f && f->key; f++) {
        const int open = f->at == MODEL_AT(vocab) && (!a->vocab_given || !b->vocab_given);
        if (!has_member(f) || !(f->kinds & kinds) || open)
            continue;
        const char *x = field_text(room[0], a, f), *y = field_text(room[1], b, f);
        if (!strcmp(x, y))
            continue;
        snprintf(out, size, "%s %s, not %s", f->key, x, y);
        return 1;
    }
    return 0;
}

static json_t *field_json(const model_config *c, const model_field *f)
{
    switch (f->type) {
    case MODEL_SIZE:
    case MODEL_COUNT: return json_integer((json_int_t)get(c, f));
    case MODEL_LIMIT: return get(c, f) > 0.0 ? json_integer((json_int_t)get(c, f)) : json_null();
    case MODEL_NUMBER: return short_real(get(c, f), 0);
    case MODEL_SHARE: return short_real(get(c, f), 1);
    case MODEL_FLAG: return json_boolean(get(c, f) != 0.0);
    case MODEL_NOT: return json_boolean(get(c, f) == 0.0);
    case MODEL_WORD: return json_string(word_of(c, f));
    default: return NULL;
    }
}

/* Puts a value at a key, with the object that a dot in it leads into. */
static int put_field(json_t *root, const model_config *c, const model_field *f)
{
    const char *dot = strchr(f->key, '.');
    char outer[64];
    if (!dot)
        return json_object_set_new(root, f->key, field_json(c, f));
    if (get(c, f) == (f->type == MODEL_WORD ? (double)f->words[0].value : f->fallback))
        return 0;
    snprintf(outer, sizeof outer, "%.*s", (int)(dot - f->key), f->key);
    json_t *inner = json_object_get(root, outer);
    if (!inner && json_object_set_new(root, outer, inner = json_object()))
        return -1;
    return json_object_set_new(inner, dot + 1, field_json(c, f));
}

gt_status model_config_json(char **out, const model_config *c)
{
    const model_family *family;
    *out = NULL;
    gt_status st = model_family_of(&family, c);
    if (st)
        return st;
    json_t *name = json_string(c->name);    /* NULL for a file's name that is no UTF-8 */
    json_t *root = json_pack("{s:[s], s:s, s:o}", "architectures", architecture_of(family, c), "model_type",
                             family->types[0], "name", name ? name : json_string("model"));
    int failed = !root;
    for (const model_field *f = family->fields; !failed && f->key; f++)
        if (has_member(f))
            failed = put_field(root, c, f);
    if (!failed && c->task == MODEL_CLASSIFY)
        failed = put_labels(root, c);
    if (!failed)
        *out = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return *out ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot describe model '%s': no memory for its keys", c->name);
}
