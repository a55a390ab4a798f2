/* SPDX-License-Identifier: MIT */
/* models/hf.c - Hugging Face folders: GPT-2's tensors in and out.
 *
 *   ours   h.0.attn.c_attn.weight (3C, C)   a row per output
 *   theirs h.0.attn.c_attn.weight (C, 3C)   "Conv1D": a row per input, so transposed
 *
 * Embeddings and vectors are alike. A head that is tied must be what wte.weight is, or stands for
 * it where a file holds the head alone, as transformers ties both ways. Masks
 * that old files carry (attn.bias, attn.masked_bias) are not weights. Any other tensor would be
 * a part of the model that is not computed here, so none is left aside in silence.
 * A rank that holds a part of the model still looks for all of its tensors: what is wrong with
 * a file is then the same for all ranks, whatever they hold.                             */
#include "models/model_private.h"

#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tensor/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int is_transposed(const graph_param_info *p)
{
    return p->full.rank == 2 && !strncmp(p->name, "h.", 2);
}

#define PREFIX "transformer."
#define EMBEDDING "wte.weight"
#define HEAD "lm_head.weight"

static const st_tensor *find_tensor(const st_file *f, const model_config *c, const char *name)
{
    char text[96];
    const st_tensor *t = st_find(f, name);
    if (!t) {
        snprintf(text, sizeof text, PREFIX "%s", name);
        t = st_find(f, text);
    }
    return t || c->untied_head || strcmp(name, EMBEDDING) ? t : st_find(f, HEAD);
}

static gt_status check_shape(const graph_param_info *p, const st_tensor *t, const char *folder)
{
    shape want = p->full;
    if (is_transposed(p)) {
        want.dim[0] = p->full.dim[1];
        want.dim[1] = p->full.dim[0];
    }
    if (shape_equal(&want, &t->dims))
        return GT_OK;
    char a[64], b[64];
    return gt_fail(GT_MISMATCH, "tensor '%s' of '%s' is %s, the model needs %s", t->name, folder,
                   shape_format(&t->dims, a, sizeof a), shape_format(&want, b, sizeof b));
}

static gt_status import_one(params *p, int i, const st_tensor *t, const char *folder)
{
    const graph_param_info *info = params_info(p, i);
    const size_t n = (size_t)shape_count(&info->full);
    const int float_type = t->type == DTYPE_F32 || t->type == DTYPE_BF16 || t->type == DTYPE_F16
                           || t->type == DTYPE_F64;
    if (!float_type)
        return gt_fail(GT_UNSUPPORTED, "tensor '%s' of '%s' is of type %s, not floating point",
                       t->name, folder, dtype_name(t->type));
    /* The data may lie unaligned in the file. */
    unsigned char *raw = malloc(t->bytes + 1);
    float *x = malloc((n + 1) * sizeof *x);
    gt_status st = GT_OK;
    if (!raw || !x) {
        st = gt_fail(GT_NO_MEMORY, "cannot import '%s': out of memory", t->name);
        goto out;
    }
    memcpy(raw, t->data, t->bytes);
    const size_t rows = info->full.rank == 2 ? (size_t)info->full.dim[0] : 1, cols = n / rows;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const float value = dtype_load(t->type, raw,
                                           is_transposed(info) ? c * rows + r : r * cols + c);
            if (!isfinite(value)) {
                st = gt_fail(GT_NUMERIC, "tensor '%s' of '%s' holds a value that is not finite",
                             t->name, folder);
                goto out;
            }
            x[r * cols + c] = value;
        }
    st = params_write_full(p, i, x);
out:
    free(raw);
    free(x);
    return st;
}

/* Every tensor of the whole model must be in the file; p takes what it holds of them. */
static gt_status import_tensors(const graph *whole, const model_config *c, params *p, const st_file *f,
                                const char *folder)
{
    gt_status st = GT_OK;
    int taken = 0;
    gt_activity a;
    gt_activity_begin(&a, "importing weights", "tensors", (uint64_t)graph_param_count(whole));
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        st = gt_activity_at(&a, (uint64_t)i);
        if (st)
            break;
        const graph_param_info *info = graph_param_at(whole, i);
        const st_tensor *t = find_tensor(f, c, info->name);
        const int held = params_find(p, info->name);
        if (!t)
            st = gt_fail(GT_MISMATCH, "cannot import '%s': tensor '%s' is missing", folder,
                         info->name);
        if (!st)
            st = check_shape(info, t, folder);
        if (!st && held >= 0)
            st = check_shape(params_info(p, held), t, folder);
        if (!st && held >= 0)
            st = import_one(p, held, t, folder);
        taken += held >= 0;
    }
    gt_activity_end(&a);
    if (!st && taken != params_count(p))
        st = gt_fail(GT_MISMATCH, "cannot import '%s': the model's description has other tensors "
                     "than the graph", folder);
    return st;
}

/* h.N.attn.bias and h.N.attn.masked_bias: where attention may look, and with what it hides the rest. */
static int is_mask(const char *name)
{
    static const char *const ends[] = { ".attn.bias", ".attn.masked_bias" };
    if (strncmp(name, "h.", 2))
        return 0;
    const char *end = name + 2 + strspn(name + 2, "0123456789");
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(end, ends[i]))
            return 1;
    return 0;
}

/* Beginnings of what heads of other tasks are named: transformers' classifiers and GPT2DoubleHeadsModel,
 * and trl's value head. They read what the model puts out and change nothing of it. */
static int is_other_task(const char *name)
{
    static const char *const heads[] = { "score.", "classifier.", "multiple_choice_head.", "v_head." };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (!strncmp(name, heads[i], strlen(heads[i])))
            return 1;
    return 0;
}

static int is_parameter(const graph *whole, const char *name)
{
    for (int i = 0; i < graph_param_count(whole); i++)
        if (!strcmp(graph_param_at(whole, i)->name, name))
            return 1;
    return 0;
}

/* Every tensor of the file must have its place. */
static gt_status check_tensors(const model_config *c, const graph *whole, const st_file *f,
                               const char *folder)
{
    for (size_t i = 0; i < st_count(f); i++) {
        const char *name = st_at(f, i)->name;
        const int prefixed = !strncmp(name, PREFIX, sizeof PREFIX - 1);
        const char *rest = prefixed ? name + sizeof PREFIX - 1 : name;
        char *end;
        if (prefixed && st_find(f, rest))
            return gt_fail(GT_MISMATCH, "cannot import '%s': it holds both '%s' and '%s'", folder, name,
                           rest);
        if (!strcmp(name, HEAD) || is_parameter(whole, rest) || is_mask(rest))
            continue;
        if (!strncmp(rest, "h.", 2) && strtol(rest + 2, &end, 10) >= c->layers)
            return gt_fail(GT_MISMATCH, "tensor '%s' of '%s' is of a layer the model, with %d, does "
                           "not have", name, folder, c->layers);
        if (!is_other_task(rest))
            return gt_fail(GT_UNSUPPORTED, "tensor '%s' of '%s' is no part of the model as it is computed "
                           "here; leaving it out would change what the model says", name, folder);
        gt_log(GT_LOG_WARN, "models", "tensor '%s' of '%s' belongs to another task and is left out", name,
               folder);
    }
    return GT_OK;
}

static int same_numbers(const st_tensor *a, const st_tensor *b)
{
    const int64_t n = shape_count(&a->dims);
    if (!shape_equal(&a->dims, &b->dims))
        return 0;
    if (a->type == b->type)
        return !memcmp(a->data, b->data, a->bytes);
    for (int64_t i = 0; i < n; i++)
        if (dtype_load(a->type, a->data, (size_t)i) != dtype_load(b->type, b->data, (size_t)i))
            return 0;
    return 1;
}

/* transformers, from version 5 on, does not tie a head whose numbers are others, whatever the
 * description says; before, it dropped them. */
static gt_status check_head(const model_config *c, const st_file *f, const char *folder)
{
    const st_tensor *head = st_find(f, HEAD), *embedding = find_tensor(f, c, EMBEDDING);
    if (c->untied_head || !head || head == embedding || same_numbers(head, embedding))
        return GT_OK;
    return gt_fail(GT_MISMATCH, "cannot import '%s': '%s' holds other numbers than '%s', though "
                   "the model's description says that they are tied; if the head is one of its own, let "
                   "it say \"tie_word_embeddings\": false", folder, HEAD, embedding->name);
}

gt_status model_import(const model_config *c, params *p, const char *folder)
{
    st_file *f;
    graph *whole = NULL;
    gt_status st = model_folder_check(folder);
    if (st)
        return st;
    st = st_open(&f, folder);
    if (st)
        return st;
    st = graph_create(&whole, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(whole, c, 0, 0);
    if (!st)
        st = check_tensors(c, whole, f, folder);
    if (!st)
        st = check_head(c, f, folder);
    if (!st)
        st = import_tensors(whole, c, p, f, folder);
    graph_release(whole);
    st_close(f);
    return st;
}

/* ---- adapters ---------------------------------------------------------------------------------- */

/* What peft writes into a folder (adapter_config.json): how it trained, and what model it changes. */
static gt_status name_adapter(const char *folder, const char *path)
{
    char *text;
    gt_status st = gt_file_read(&text, NULL, path, 1u << 20);
    if (st)
        return st;
    json_t *root = json_loads(text, 0, NULL);
    const char *kind = json_string_value(json_object_get(root, "peft_type"));
    const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
    st = gt_fail(GT_UNSUPPORTED, "'%s' holds %s adapter, not a model of its own: it changes the weights of "
                 "'%.200s'; merge it into them (peft's merge_and_unload(), then save_pretrained()) and "
                 "name that folder", folder, !kind ? "an" : strcmp(kind, "LORA") ? "a peft" : "a LoRA",
                 base && *base ? base : "another model");
    json_decref(root);
    free(text);
    return st;
}

gt_status model_folder_check(const char *folder)
{
    char *path = gt_path_join(folder, "adapter_config.json");
    if (!path)
        return gt_fail(GT_NO_MEMORY, "cannot read model '%s': out of memory", folder);
    gt_status st = gt_path_exists(path) ? name_adapter(folder, path) : GT_OK;
    free(path);
    return st;
}

static gt_status export_one(st_writer *w, params *p, int i, dtype type)
{
    const graph_param_info *info = params_info(p, i);
    const size_t n = (size_t)shape_count(&info->shape);
    const size_t rows = info->shape.rank == 2 ? (size_t)info->shape.dim[0] : 1, cols = n / rows;
    float *x = malloc(n * sizeof *x);
    unsigned char *out = malloc(n * dtype_size(type));
    gt_status st = GT_OK;
    if (!x || !out)
        st = gt_fail(GT_NO_MEMORY, "cannot export '%s': out of memory", info->name);
    if (!st)
        st = params_read(p, i, x);
    for (size_t r = 0; !st && r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            dtype_store(type, out, is_transposed(info) ? c * rows + r : r * cols + c,
                        x[r * cols + c]);
    if (!st)
        st = st_writer_put(w, out, n * dtype_size(type));
    free(x);
    free(out);
    return st;
}

static gt_status write_config(const model_config *c, const char *folder)
{
    char *text = NULL, *path = gt_path_join(folder, "config.json");
    gt_status st = path ? model_config_json(&text, c)
                        : gt_fail(GT_NO_MEMORY, "cannot export to '%s': out of memory", folder);
    if (!st)
        st = gt_file_write(path, text, strlen(text));
    free(text);
    free(path);
    return st;
}

gt_status model_export(const model_config *c, params *p, dtype type, const char *folder)
{
    st_writer *w = NULL;
    for (int i = 0; i < params_count(p); i++)
        if (params_info(p, i)->slice.parts)
            return gt_fail(GT_MISUSE, "cannot export to '%s': only a slice of tensor '%s' is here; "
                           "export a checkpoint instead", folder, params_info(p, i)->name);
    gt_status st = gt_folder_make(folder);
    if (st)
        return st;
    char *path = gt_path_join(folder, "model.safetensors");
    if (!path)
        return gt_fail(GT_NO_MEMORY, "cannot export to '%s': out of memory", folder);
    st = st_writer_open(&w, path);
    if (!st)
        st = st_writer_metadata(w, "format", "pt");
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        char name[96];
        shape s = info->shape;
        snprintf(name, sizeof name, "%s%s", strcmp(info->name, HEAD) ? PREFIX : "", info->name);
        if (is_transposed(info)) {
            s.dim[0] = info->shape.dim[1];
            s.dim[1] = info->shape.dim[0];
        }
        st = st_writer_add(w, name, type, &s);
    }
    if (!st)
        st = st_writer_begin(w);
    for (int i = 0; !st && i < params_count(p); i++)
        st = export_one(w, p, i, type);
    if (st)
        st_writer_abandon(w);
    else
        st = st_writer_commit(w);
    free(path);
    return st ? st : write_config(c, folder);
}
