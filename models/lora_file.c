/* SPDX-License-Identifier: MIT */
/* models/lora_file.c - adapters in the layout of Hugging Face's PEFT.
 *
 *   adapter_config.json         r, lora_alpha, target_modules, ...
 *   adapter_model.safetensors   base_model.model.transformer.h.0.attn.c_attn.lora_A.weight   (r, in)
 *                                                                            lora_B.weight   (out, r)
 *                                                                            lora_magnitude_vector  (out)
 *
 *                               base_model.model.classifier.weight              of modules_to_save, whole
 *
 * Names are those of files of the family with "base_model.model." in front. Matrices lie as ours do, also where
 * the model's own are transposed (fan_in_fan_out).                                      */
#include "models/lora.h"

#include "host/base/file.h"
#include "host/tensor/safetensors.h"
#include "models/family.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 160 };
static const char config_file[] = "adapter_config.json", weights_file[] = "adapter_model.safetensors";
static const char front[] = "base_model.model.", labels_key[] = "labels", classes[] = "classifier.weight";

static gt_status no_memory(const char *folder)
{
    return gt_fail(GT_NO_MEMORY, "cannot use the adapter in '%s': no memory for it", folder);
}

int lora_is_folder(const char *folder)
{
    char *path = gt_path_join(folder, config_file);
    const int is = path && gt_path_exists(path);
    free(path);
    return is;
}

/* What kind of adapter it is, and what model it changes. */
gt_status model_folder_check(const char *folder)
{
    char *path = gt_path_join(folder, config_file), *text = NULL;
    gt_status st = path ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot read model '%s': no memory for its path", folder);
    if (!st && gt_path_exists(path))
        st = gt_file_read(&text, NULL, path, 1u << 20);
    free(path);
    if (st || !text)
        return st;
    json_t *root = json_loads(text, 0, NULL);
    const char *kind = json_string_value(json_object_get(root, "peft_type"));
    const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
    const int lora = kind && !strcmp(kind, "LORA");
    st = gt_fail(GT_UNSUPPORTED,
                 "'%s' holds %s adapter, not a model of its own: it changes the weights of '%.200s'; %s", folder,
                 !kind  ? "an"
                 : lora ? "a LoRA"
                        : "a peft",
                 base && *base ? base : "another model",
                 lora ? "name that model here, and this folder with --adapter"
                      : "merge it into them (peft's merge_and_unload(), then save_pretrained()) and name that folder");
    json_decref(root);
    free(text);
    return st;
}

/* ---- adapter_config.json ------------------------------------------------------------------------ */

/* Keys of PEFT's LoraConfig that do not change what is computed, or are read below. */
static const char *const known[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
};

static int is_empty(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0.0)
           || (json_is_string(v) && !json_string_length(v)) || (json_is_array(v) && !json_array_size(v))
           || (json_is_object(v) && !json_object_size(v));
}

static int is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i], key))
            return 1;
    return 0;
}

/* What would make the adapter something else than lora.h says. */
static gt_status check_config(const json_t *root, const char *path)
{
    const char *kind = json_string_value(json_object_get(root, "peft_type"));
    const char *bias = json_string_value(json_object_get(root, "bias"));
    const char *init = json_string_value(json_object_get(root, "init_lora_weights"));
    static const char *const empty[] = { "rank_pattern", "alpha_pattern" };
    const char *key;
    json_t *value;
    if (!kind || strcmp(kind, "LORA"))
        return gt_fail(GT_UNSUPPORTED, "'%s': peft_type is %.32s; only LORA is computed here", path,
                       kind ? kind : "missing");
    if (bias && strcmp(bias, "none"))
        return gt_fail(GT_UNSUPPORTED,
                       "'%s': bias is \"%.32s\": it changes biases of the model, too; only \"none\" is "
                       "computed here",
                       path, bias);
    if (init && strcmp(init, "gaussian") && strcmp(init, "eva") && strcmp(init, "orthogonal"))
        return gt_fail(GT_UNSUPPORTED,
                       "'%s': init_lora_weights \"%.32s\" changes the model's weights, too; convert "
                       "the adapter to plain LoRA with PEFT",
                       path, init);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
        if (!is_empty(json_object_get(root, empty[i])))
            return gt_fail(GT_UNSUPPORTED, "'%s': %s is not empty, and is not computed here", path, empty[i]);
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
        if (!is_known(key) && !is_empty(value))
            return gt_fail(GT_UNSUPPORTED, "'%s': \"%.48s\" may change what the adapter does, and is not known here",
                           path, key);
    return GT_OK;
}

static int add_pattern(char out[MODEL_PATTERNS], const char *one)
{
    const size_t n = strlen(out), more = strlen(one);
    if (!more || strpbrk(one, ",*?[]\\") || n + more + 2 > MODEL_PATTERNS)
        return 0;
    snprintf(out + n, MODEL_PATTERNS - n, "%s%s", n ? "," : "", one);
    return 1;
}

/* Names as PEFT's list has them: of a whole module, or of what stands behind a dot of one. */
static gt_status read_targets(model_tuning *t, const json_t *targets, const char *path)
{
    size_t i;
    json_t *one;
    t->targets[0] = 0;
    if (json_is_string(targets) && !strcmp(json_string_value(targets), "all-linear")) {
        snprintf(t->targets, sizeof t->targets, "*");
        return GT_OK;
    }
    if (json_is_string(targets))
        return gt_fail(GT_UNSUPPORTED,
                       "'%s': target_modules is a regular expression; only a list of names is read here", path);
    json_array_foreach((json_t *)(uintptr_t)targets, i, one)
        if (!json_is_string(one) || !add_pattern(t->targets, json_string_value(one)))
            return gt_fail(GT_UNSUPPORTED, "'%s': target_modules is not a list of names of %d characters in all", path,
                           MODEL_PATTERNS - 1);
    return json_array_size(targets) ? GT_OK : gt_fail(GT_FORMAT, "'%s': target_modules names nothing", path);
}

/* Modules that are trained whole. PEFT lists "score" beside "classifier", of which a model has one. */
static gt_status read_saved(model_config *c, const json_t *modules, const char *path)
{
    size_t i;
    json_t *one;
    gt_status st = GT_OK;
    c->tuning.saved[0] = 0;
    if (!is_empty(modules) && !json_is_array(modules))
        return gt_fail(GT_FORMAT, "'%s': modules_to_save is not a list of names", path);
    json_array_foreach((json_t *)(uintptr_t)modules, i, one) {
        if (!json_is_string(one) || !json_string_length(one) || strpbrk(json_string_value(one), ",*?[]\\"))
            return gt_fail(GT_FORMAT, "'%s': modules_to_save is not a list of names", path);
        if (!st)
            st = model_tensors_within(c->tuning.saved, c, json_string_value(one));
        if (st)
            return gt_fail_in(st, "'%s'", path);
    }
    if (!st && json_array_size(modules) && !c->tuning.saved[0])
        st = gt_fail(GT_UNSUPPORTED,
                     "'%s': modules_to_save names '%.48s', which is no part of models of the family '%s' here", path,
                     json_string_value(json_array_get(modules, 0)), c->family);
    return st;
}

/* Names of classes, which PEFT leaves to whoever loads the model: beside the numbers, where it passes them over. */
static void read_labels(model_config *c, const st_file *f)
{
    const char *text = st_metadata(f, labels_key);
    json_t *names = text ? json_loads(text, 0, NULL) : NULL;
    for (int i = 0; i < c->labels && i < MODEL_LABELS && json_array_size(names) == (size_t)c->labels; i++) {
        const char *name = json_string_value(json_array_get(names, (size_t)i));
        if (name && strlen(name) < MODEL_LABEL_NAME)
            snprintf(c->label[i], MODEL_LABEL_NAME, "%s", name);
    }
    json_decref(names);
}

/* The task of an adapter that brings a head of classes, and how many those are. */
static gt_status read_head(model_config *c, const char *folder)
{
    char name[NAME], full[NAME + sizeof front];
    int transposed;
    st_file *f = NULL;
    if (!graph_pattern_matches(c->tuning.saved, classes))
        return GT_OK;
    char *path = gt_path_join(folder, weights_file);
    gt_status st = path ? st_open(&f, path) : no_memory(folder);
    if (!st)
        st = model_config_task(c, model_task_name(MODEL_CLASSIFY));
    if (!st)
        st = model_tensor_name(name, sizeof name, c, classes, &transposed);
    if (!st) {
        snprintf(full, sizeof full, "%s%s", front, name);
        const st_tensor *t = st_find(f, full);
        if (!t || t->dims.rank != 2 || t->dims.dim[0] < 1 || t->dims.dim[0] > INT32_MAX) {
            st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s' is missing, or no matrix", folder,
                         full);
        } else {
            memset(c->label, 0, sizeof c->label);
            c->labels = (int)t->dims.dim[0];
            read_labels(c, f);
        }
    }
    st_close(f);
    free(path);
    return st;
}

gt_status lora_read(model_config *c, const char *folder)
{
    model_tuning *t = &c->tuning;
    json_error_t error;
    char *path = gt_path_join(folder, config_file), *text = NULL;
    gt_status st = !path ? no_memory(folder)
                   : !gt_path_exists(path)
                       ? gt_fail(GT_NOT_FOUND, "'%s' holds no adapter: there is no %s in it", folder, config_file)
                       : gt_file_read(&text, NULL, path, 1u << 20);
    json_t *root = st ? NULL : json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!st && !json_is_object(root))
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, root ? 1 : error.line, root ? "no object" : error.text);
    if (!st)
        st = check_config(root, path);
    const json_t *rank = json_object_get(root, "r"), *alpha = json_object_get(root, "lora_alpha");
    const json_t *drop = json_object_get(root, "lora_dropout");
    const double p = json_number_value(drop);
    if (!st && (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > 4096))
        st = gt_fail(GT_FORMAT, "'%s': r is no whole number from 1 to 4096", path);
    if (!st && !(json_number_value(alpha) > 0.0 && json_number_value(alpha) <= 1e6))
        st = gt_fail(GT_FORMAT, "'%s': lora_alpha is no number above 0", path);
    if (!st && !(p >= 0.0 && p < 1.0))
        st = gt_fail(GT_FORMAT, "'%s': lora_dropout is not in [0, 1)", path);
    if (!st)
        st = read_targets(t, json_object_get(root, "target_modules"), path);
    if (!st) {
        t->rank = (int)json_integer_value(rank);
        t->alpha = (float)json_number_value(alpha);
        t->dropout = (float)p;
        t->dora = json_is_true(json_object_get(root, "use_dora"));
        t->rslora = json_is_true(json_object_get(root, "use_rslora"));
        st = read_saved(c, json_object_get(root, "modules_to_save"), path);
    }
    if (!st)
        st = read_head(c, folder);
    json_decref(root);
    free(text);
    free(path);
    return st;
}

/* ---- names --------------------------------------------------------------------------------------- */

/* The file's name of the matrix that one of our adapters' tensors belongs to, as PEFT has it; *transposed: files hold
 * the matrix (in, out). */
static gt_status name_theirs(char out[NAME], const model_config *c, const char *ours, int *transposed)
{
    const model_family *family;
    const char *part = strstr(ours, ".lora_");
    char matrix[NAME], base[NAME];
    gt_status st = model_family_of(&family, c);
    if (st)
        return st;
    snprintf(matrix, sizeof matrix, "%.*s.weight", (int)(part - ours), ours);
    st = model_tensor_name(base, sizeof base, c, matrix, transposed);
    if (!st)
        snprintf(out, NAME, "%s%.*s%s", front, (int)(strlen(base) - strlen(".weight")), base, part);
    return st;
}

/* ---- in -------------------------------------------------------------------------------------------- */

static gt_status import_one(const graph_param_info *info, params *p, const st_tensor *t, const char *folder)
{
    const int64_t n = shape_count(&info->full);
    const int held = params_find(p, info->name);
    char a[64], b[64];
    if (!shape_equal(&t->dims, &info->full))
        return gt_fail(GT_MISMATCH, "tensor '%s' of '%s' is %s, the model needs %s", t->name, folder,
                       shape_format(&t->dims, a, sizeof a), shape_format(&info->full, b, sizeof b));
    if (!dtype_is_storage(t->type) && t->type != DTYPE_F64)
        return gt_fail(GT_UNSUPPORTED, "tensor '%s' of '%s' is of type %s, not floating point", t->name, folder,
                       dtype_name(t->type));
    unsigned char *raw = malloc(t->bytes + 1);
    float *x = malloc((size_t)n * sizeof *x);
    gt_status st = raw && x ? GT_OK : no_memory(folder);
    if (!st)
        memcpy(raw, t->data, t->bytes);             /* it may lie unaligned in the file */
    for (int64_t i = 0; !st && i < n; i++) {
        x[i] = dtype_load(t->type, raw, (size_t)i);
        if (!isfinite(x[i]))
            st = gt_fail(GT_NUMERIC, "tensor '%s' of '%s' holds a value that is not finite", t->name, folder);
    }
    if (!st && held >= 0)
        st = params_write_full(p, held, x);
    free(raw);
    free(x);
    return st;
}

static gt_status import_all(const model_config *c, const graph *whole, params *p, const st_file *f, const char *folder)
{
    gt_status st = GT_OK;
    size_t found = 0;
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        const graph_param_info *info = graph_param_at(whole, i);
        char name[NAME];
        int transposed;
        if (!lora_is_adapter(info))
            continue;
        st = name_theirs(name, c, info->name, &transposed);
        const st_tensor *t = st ? NULL : st_find(f, name);
        if (!st && !t)
            st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s' is missing", folder, name);
        if (!st)
            st = import_one(info, p, t, folder);
        found++;
    }
    if (!st && c->tuning.saved[0])
        st = model_import_saved(c, p, f, front, folder, &found);
    if (!st && found != st_count(f))
        st = gt_fail(GT_UNSUPPORTED,
                     "cannot use the adapter in '%s': it holds %zu tensors, of which the model has places for %zu",
                     folder, st_count(f), found);
    return st;
}

gt_status lora_import(const model_config *c, params *p, const char *folder)
{
    st_file *f = NULL;
    graph *whole = NULL;
    char *path = gt_path_join(folder, weights_file);
    gt_status st = path ? st_open(&f, path) : no_memory(folder);
    free(path);
    if (st)
        return st;
    st = graph_create(&whole, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(whole, c, 0, 0);
    if (!st)
        st = import_all(c, whole, p, f, folder);
    graph_release(whole);
    st_close(f);
    return st;
}

/* ---- out ------------------------------------------------------------------------------------------- */

/* Is every matrix whose name ends with `suffix` one that has an adapter? */
static int all_adapted(const params *p, const model_config *c, const char *suffix)
{
    const size_t n = strlen(suffix);
    for (int i = 0; i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        char label[NAME];
        const char *end = strstr(info->name, ".weight");
        if (!end || lora_is_adapter(info) || info->full.rank != 2)
            continue;
        const int pieces = model_tensor_pieces(c, info->name);
        for (int k = 0; k < pieces; k++) {
            if (pieces == 1 || model_tensor_piece(label, sizeof label, c, info->name, k))
                snprintf(label, sizeof label, "%s", info->name);
            label[strlen(label) - strlen(".weight")] = 0;
            const size_t m = strlen(label);
            const int has = m >= n && !strcmp(label + m - n, suffix) && (m == n || label[m - n - 1] == '.');
            if (has && (info->table || !lora_has(c, label)))
                return 0;
        }
    }
    return 1;
}

/* The shortest names that mean all adapted matrices and no other, in files' words. */
static json_t *target_modules(const params *p, const model_config *c, int *transposed)
{
    json_t *list = json_array();
    for (int i = 0; list && i < params_count(p); i++) {
        char ours[NAME], theirs[NAME];
        const graph_param_info *info = params_info(p, i);
        const char *end = strstr(info->name, ".lora_A.weight");
        if (!end || name_theirs(theirs, c, info->name, transposed))
            continue;
        snprintf(ours, sizeof ours, "%.*s", (int)(end - info->name), info->name);
        theirs[strlen(theirs) - strlen(".lora_A.weight")] = 0;
        const char *own = ours + strlen(ours), *name = theirs + strlen(theirs);
        do {
            while (own > ours && own[-1] != '.')
                own--;
            while (name > theirs && name[-1] != '.')
                name--;
            if (own == ours || all_adapted(p, c, own))
                break;
            own--;
            name--;
        } while (name > theirs);
        int there = 0;
        for (size_t k = 0; k < json_array_size(list); k++)
            there |= !strcmp(json_string_value(json_array_get(list, k)), name);
        if (!there)
            json_array_append_new(list, json_string(name));
    }
    return list;
}

/* Do all names of the model's tensors in files that begin so belong to tensors that are saved? */
static int all_saved(const params *p, const model_config *c, const char *begin, size_t n)
{
    for (int i = 0; i < params_count(p); i++) {
        const char *ours = params_info(p, i)->name;
        char name[NAME];
        if (lora_is_adapter(params_info(p, i)) || graph_pattern_matches(c->tuning.saved, ours))
            continue;
        for (int k = 0; k < model_tensor_pieces(c, ours); k++)
            if (!model_tensor_piece(name, sizeof name, c, ours, k) && !strncmp(name, begin, n) && name[n] == '.')
                return 0;
    }
    return 1;
}

/* The shortest names of modules that hold what is saved and, where there are such, nothing else. */
static json_t *modules_to_save(const params *p, const model_config *c)
{
    json_t *list = json_array();
    for (int i = 0; list && i < params_count(p); i++) {
        const char *ours = params_info(p, i)->name;
        char name[NAME];
        if (lora_is_adapter(params_info(p, i)) || !graph_pattern_matches(c->tuning.saved, ours))
            continue;
        for (int k = 0; k < model_tensor_pieces(c, ours); k++) {
            if (model_tensor_piece(name, sizeof name, c, ours, k))
                continue;
            size_t n = strcspn(name, ".");
            while (!all_saved(p, c, name, n) && strchr(name + n + 1, '.'))
                n += 1 + strcspn(name + n + 1, ".");
            name[n] = 0;
            int there = 0;
            for (size_t j = 0; j < json_array_size(list); j++)
                there |= !strcmp(json_string_value(json_array_get(list, j)), name);
            if (!there)
                json_array_append_new(list, json_string(name));
        }
    }
    gt_message_clear();
    return list;
}

/* PEFT's word for what the model is for; NULL: it has none. */
static const char *task_of(const model_config *c)
{
    const model_family *family;
    if (model_family_of(&family, c)) {
        gt_message_clear();
        return NULL;
    }
    if (c->task == MODEL_CLASSIFY && graph_pattern_matches(c->tuning.saved, classes))
        return "SEQ_CLS";
    return strstr(family->architecture, "LMHeadModel") || strstr(family->architecture, "ForCausalLM")
               ? "CAUSAL_LM"
               : NULL;
}

static gt_status write_config(const model_config *c, params *p, json_t *saved, const char *base, const char *folder)
{
    const model_tuning *t = &c->tuning;
    int transposed = 0;
    char *path = gt_path_join(folder, config_file);
    json_t *targets = target_modules(p, c, &transposed);
    json_t *root =
        targets
            ? json_pack("{s:s, s:s?, s:i, s:o, s:f, s:o, s:s, s:b, s:b, s:b, s:b, s:s?, s:b, s:O}", "peft_type", "LORA",
                        "task_type", task_of(c), "r", t->rank, "lora_alpha",
                        t->alpha == floorf(t->alpha) ? json_integer((json_int_t)t->alpha) : json_real((double)t->alpha),
                        "lora_dropout", (double)t->dropout, "target_modules", targets, "bias", "none", "fan_in_fan_out",
                        transposed, "use_dora", t->dora, "use_rslora", t->rslora, "inference_mode", 1,
                        "base_model_name_or_path", base, "init_lora_weights", 1, "modules_to_save", saved)
            : NULL;
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    gt_status st = path && text ? gt_file_write(path, text, strlen(text)) : no_memory(folder);
    json_decref(root);
    free(text);
    free(path);
    return st;
}

static gt_status put_one(st_writer *w, params *p, int i, dtype type)
{
    const int64_t n = shape_count(&params_info(p, i)->full);
    float *x = malloc((size_t)n * sizeof *x);
    unsigned char *out = malloc((size_t)n * dtype_size(type));
    gt_status st = x && out
                       ? params_read(p, i, x)
                       : gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its numbers", params_info(p, i)->name);
    for (int64_t k = 0; !st && k < n; k++)
        dtype_store(type, out, (size_t)k, x[k]);
    if (!st)
        st = st_writer_put(w, out, (size_t)n * dtype_size(type));
    free(x);
    free(out);
    return st;
}

/* Declares the tensors, or writes their numbers. */
static gt_status put_all(st_writer *w, const model_config *c, params *p, const char *const *modules, dtype type,
                         int numbers)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        char name[NAME];
        int transposed;
        if (!lora_is_adapter(info))
            continue;
        st = name_theirs(name, c, info->name, &transposed);
        if (!st)
            st = numbers ? put_one(w, p, i, type) : st_writer_add(w, name, type, &info->full);
    }
    return st || !c->tuning.saved[0] ? st : model_put_saved(w, c, p, front, modules, type, numbers);
}

static gt_status put_labels(st_writer *w, const model_config *c)
{
    json_t *names = json_array();
    for (int i = 0; names && i < c->labels && i < MODEL_LABELS; i++)
        json_array_append_new(names, json_string(c->label[i]));
    char *text = names ? json_dumps(names, JSON_COMPACT) : NULL;
    gt_status st = text ? st_writer_metadata(w, labels_key, text)
                        : gt_fail(GT_NO_MEMORY, "cannot write the names of %d labels: no memory", c->labels);
    free(text);
    json_decref(names);
    return st;
}

/* Whose names are those of a list, which must stay. */
static const char **names_of(const json_t *list)
{
    const size_t n = json_array_size(list);
    const char **names = calloc(n + 1, sizeof *names);
    for (size_t i = 0; names && i < n; i++)
        names[i] = json_string_value(json_array_get(list, i));
    return names;
}

gt_status lora_export(const model_config *c, params *p, dtype type, const char *base, const char *folder)
{
    st_writer *w = NULL;
    gt_status st = gt_folder_make(folder);
    char *path = gt_path_join(folder, weights_file);
    json_t *saved = c->tuning.saved[0] ? modules_to_save(p, c) : json_null();
    const char **modules = names_of(saved);
    if (!st)
        st = path && saved && modules ? st_writer_open(&w, path) : no_memory(folder);
    if (!st)
        st = st_writer_metadata(w, "format", "pt");
    if (!st && c->task == MODEL_CLASSIFY && c->tuning.saved[0])
        st = put_labels(w, c);
    if (!st)
        st = put_all(w, c, p, modules, type, 0);
    if (!st)
        st = st_writer_begin(w);
    if (!st)
        st = put_all(w, c, p, modules, type, 1);
    if (w && st)
        st_writer_abandon(w);
    else if (w)
        st = st_writer_commit(w);
    if (!st)
        st = write_config(c, p, saved, base, folder);
    json_decref(saved);
    free(modules);
    free(path);
    return st;
}
