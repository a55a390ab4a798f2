/* SPDX-License-Identifier: MIT */
/* models/hf_saved.c - Hugging Face folders: whole tensors that are kept beside an adapter, such as a new head.
 *
 *   adapter's file   base_model.model.  score.weight        PEFT's modules_to_save; lora_file.c has the rest
 *                    └ front            └ a name of the model's files
 *
 * PEFT keeps all of a module that is named, with what is tied to another tensor of the model; here that must be
 * what the model holds already.                                                         */
#include "models/hf_private.h"

#include "models/lora.h"

#include "host/base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static gt_status append_name(char out[MODEL_SAVED], const model_config *c, const char *name)
{
    const size_t n = strlen(out), more = strlen(name);
    if (graph_pattern_matches(out, name))
        return GT_OK;
    if (n + more + 2 > MODEL_SAVED)
        return gt_fail(GT_UNSUPPORTED,
                       "model '%s': names of tensors that are kept beside adapters are longer than %d "
                       "characters in all",
                       c->name, MODEL_SAVED - 1);
    snprintf(out + n, MODEL_SAVED - n, "%s%s", n ? "," : "", name);
    return GT_OK;
}

/* Is any piece of a row in the file? */
static int is_there(const hf_map *m, const st_file *f, const hf_row *r)
{
    for (int i = 0; i < hf_pieces_of(r->t->theirs); i++)
        if (hf_find_tensor(m, f, r, i))
            return 1;
    return 0;
}

gt_status model_new_heads(char out[MODEL_SAVED], const model_config *c, const char *folder)
{
    st_file *f = NULL;
    graph *whole = NULL;
    hf_map m;
    model_config any = *c;
    any.vocab = any.vocab ? any.vocab : 1;          /* the tokenizer may not be known yet */
    gt_status st = hf_build_whole(&m, &whole, &any);
    if (!st && folder && m.family->import_file && !gt_path_is_folder(folder))
        goto out;                       /* holds the next token's head */
    if (!st && folder)
        st = st_open(&f, folder);
    if (f)
        hf_find_wrapper(&m, f);
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        hf_row r;
        int piece;
        const char *name = graph_param_at(whole, i)->name;
        st = hf_find_row(&m, name, &r, &piece);
        if (!st && r.t->flags & MODEL_HEAD && !(f && is_there(&m, f, &r)))
            st = append_name(out, c, name);
    }
out:
    graph_release(whole);
    st_close(f);
    return st;
}

/* Does the name of a tensor lie in a module whose name ends so? That is how PEFT looks for modules. */
static int lies_within(const char *name, const char *module)
{
    const size_t n = strlen(module);
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        const size_t path = (size_t)(dot - name);
        if (n && path >= n && !strncmp(dot - n, module, n))
            return 1;
    }
    return 0;
}

/* Of a row in one layer: how many of its pieces lie in the module. */
static int pieces_within(const hf_map *m, const hf_row *r, const char *module)
{
    char name[3 * HF_NAME];
    int count = 0;
    for (int i = 0; i < hf_pieces_of(r->t->theirs); i++) {
        hf_name_piece(name, sizeof name, m, r, i, 1);
        count += lies_within(name, module);
    }
    return count;
}

gt_status model_tensors_within(char out[MODEL_SAVED], const model_config *c, const char *module)
{
    hf_map m = { .c = c };
    gt_status st = model_family_of(&m.family, c);
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && (t->ours[0] || t->theirs[0]); t++) {
        const int layers = t->ours[0] && strstr(t->ours[0], "%d") ? c->layers : t->ours[0] != NULL;
        for (int layer = 0; !st && layer < layers; layer++) {
            const hf_row r = { t, layer };
            char ours[HF_NAME];
            const int within = pieces_within(&m, &r, module);
            if (within && within < hf_pieces_of(t->theirs))
                st = gt_fail(GT_UNSUPPORTED, "module '%s' is a part of what is one matrix here, '%s'", module,
                             hf_form(ours, t->ours[0], layer));
            for (int k = 0; !st && within && k < hf_pieces_of(t->ours); k++)
                st = append_name(out, c, hf_form(ours, t->ours[k], layer));
        }
    }
    return st;
}

/* The number as a tensor of that type holds it. */
static float as_held(dtype type, float x)
{
    unsigned char bytes[8];
    if (type == DTYPE_Q8)
        return x;
    dtype_store(type, bytes, 0, x);
    return dtype_load(type, bytes, 0);
}

/* Are n numbers those that a tensor holds? Eight bits a number keep them to a hundredth of the largest. */
static int holds(const graph_param_info *info, const float *held, const float *numbers, int64_t n)
{
    const dtype type = info->frozen ? info->type : DTYPE_F32;
    float most = 0.0f, apart = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(numbers[i]));
        apart = fmaxf(apart, fabsf(held[i] - as_held(type, numbers[i])));
    }
    return apart <= (type == DTYPE_Q8 ? 0.01f * most : 0.0f);
}

/* What the file has for a tensor that is tied to another one must be what p holds of that. */
static gt_status check_same(params *p, const model_tensor *t, const st_tensor *theirs, const char *folder)
{
    const int at = params_find(p, t->tied);
    if (at < 0)
        return GT_OK;                   /* whoever holds it looks */
    const graph_param_info *info = params_info(p, at);
    const int64_t all = shape_count(&info->full), held = shape_count(&info->shape);
    float *values = malloc((size_t)(all + 2 * held) * sizeof *values), *mine = values + all, *now = mine + held;
    unsigned char *raw = malloc(theirs->bytes + 1);
    gt_status st = values && raw
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot use the adapter in '%s': no memory for '%s'", folder, t->tied);
    int same = !st && shape_equal(&info->full, &theirs->dims) && dtype_is_storage(theirs->type);
    if (same)
        memcpy(raw, theirs->data, theirs->bytes);
    for (int64_t i = 0; same && i < all; i++)
        values[i] = dtype_load(theirs->type, raw, (size_t)i);
    if (same)
        st = params_read(p, at, now);
    if (same && !st) {
        tensor_slice_take(mine, values, &info->full, &info->slice);
        same = holds(info, now, mine, held);
    }
    if (!st && !same)
        st =
            gt_fail(GT_UNSUPPORTED,
                    "cannot use the adapter in '%s': '%s' holds other numbers than '%s', with which it is tied in this "
                    "model",
                    folder, theirs->name, t->tied);
    free(raw);
    free(values);
    return st;
}

gt_status model_import_saved(const model_config *c, params *p, const struct st_file *f, const char *front,
                             const char *folder, size_t *used)
{
    graph *whole;
    hf_map m;
    gt_status st = hf_build_whole(&m, &whole, c);
    m.base.new_heads = 0;
    snprintf(m.wrapper, sizeof m.wrapper, "%s", front);
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        hf_row r;
        int piece;
        const graph_param_info *info = graph_param_at(whole, i);
        if (!hf_is_saved(&m, info->name))
            continue;
        st = hf_find_row(&m, info->name, &r, &piece);
        for (int k = 0; !st && k < hf_pieces_of(r.t->theirs); k++) {
            char name[HF_NAME], full[3 * HF_NAME];
            const st_tensor *t = hf_find_named(&m, f, hf_form(name, r.t->theirs[k], r.layer));
            *used += t && piece == 0;
            if (!t) {
                hf_name_piece(full, sizeof full, &m, &r, k, 1);
                st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s%s' is missing", folder, front,
                             full);
            }
        }
        if (!st)
            st = hf_import_one(&m, f, &r, piece, info, p, params_find(p, info->name), folder);
    }
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && !st && (t->ours[0] || t->theirs[0]); t++) {
        const st_tensor *own = hf_is_tied(&m, t) ? hf_find_named(&m, f, t->theirs[0]) : NULL;
        *used += own != NULL;
        if (!own && hf_is_tied(&m, t) && hf_is_saved(&m, t->ours[0]))
            st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s%s' is missing", folder, front,
                         t->theirs[0]);
        if (own)
            st = check_same(p, t, own, folder);
    }
    graph_release(whole);
    return st;
}

/* What is tied to another tensor, which the model's files need not have: PEFT's have all of a module. */
static gt_status put_tied(const hf_map *m, st_writer *w, params *p, const model_tensor *t, dtype type, int numbers)
{
    char name[3 * HF_NAME];
    const hf_row r = { t, 0 };
    const int at = params_find(p, t->tied);
    if (at < 0)
        return gt_fail(GT_MISMATCH, "cannot export: tensor '%s' is not here", t->tied);
    const shape *s = &params_info(p, at)->full;
    const hf_matrix x = {
        .outputs = s->dim[0], .cols = shape_count(s) / s->dim[0], .theirs = 1, .begin_theirs = { 0, s->dim[0] }
    };
    hf_name_piece(name, sizeof name, m, &r, 0, 1);
    char full[4 * HF_NAME];
    snprintf(full, sizeof full, "%s%s", m->wrapper, name);
    if (!numbers)
        return st_writer_add(w, full, type, s);
    float *all = malloc((size_t)shape_count(s) * sizeof *all);
    gt_status st = all ? params_read(p, at, all)
                       : gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers", full);
    if (!st)
        st = hf_write_piece(w, all, &r, &x, 0, type);
    free(all);
    return st;
}

gt_status model_put_saved(struct st_writer *w, const model_config *c, params *p, const char *front,
                          const char *const *modules, dtype type, int numbers)
{
    graph *whole;
    hf_map m;
    gt_status st = hf_build_whole(&m, &whole, c);
    snprintf(m.wrapper, sizeof m.wrapper, "%s", front);
    for (int i = 0; !st && i < params_count(p); i++) {
        hf_row r;
        int piece;
        const graph_param_info *info = params_info(p, i);
        if (lora_is_adapter(info) || !hf_is_saved(&m, info->name))
            continue;
        st = hf_find_row(&m, info->name, &r, &piece);
        if (!st && piece == 0)
            st = hf_export_row(&m, w, numbers ? p : NULL, &r, &info->full, type);
    }
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && !st && (t->ours[0] || t->theirs[0]); t++) {
        const hf_row r = { t, 0 };
        int within = 0;
        for (size_t k = 0; modules[k]; k++)
            within |= pieces_within(&m, &r, modules[k]) > 0;
        if (within && hf_is_tied(&m, t))
            st = put_tied(&m, w, p, t, type, numbers);
    }
    graph_release(whole);
    return st;
}
