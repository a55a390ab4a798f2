/* SPDX-License-Identifier: MIT */
/* models/hf_export.c - Hugging Face folders: weights and description out.
 *
 *   params ── adapters merged in ── row: one matrix ── its pieces on their side ──> model.safetensors, config.json
 *
 * All names go first, then all numbers in the same order: that is how the file is laid out, and so one tensor
 * at a time is in memory.                                                               */
#include "models/hf_private.h"

#include "models/lora.h"

#include "host/base/file.h"

#include <stdlib.h>
#include <string.h>

/* All of a row's numbers, an output a row. */
static gt_status read_row(const hf_map *m, float **out, params *p, const hf_row *r, const hf_matrix *x)
{
    char name[HF_NAME];
    gt_status st = GT_OK;
    float *all = malloc((size_t)(x->outputs * x->cols) * sizeof *all);
    if (!all)
        st = gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers",
                     hf_form(name, r->t->ours[0], r->layer));
    for (int i = 0; !st && i < x->ours; i++) {
        const int at = params_find(p, hf_form(name, r->t->ours[i], r->layer));
        st = at < 0 ? gt_fail(GT_MISMATCH, "cannot export: tensor '%s' is not here", name)
                    : params_read(p, at, all + x->begin_ours[i] * x->cols);
        if (!st)
            st = lora_merge(m->asked, p, name, all + x->begin_ours[i] * x->cols);
    }
    *out = all;
    return st;
}

gt_status hf_write_piece(st_writer *w, const float *all, const hf_row *r, const hf_matrix *x, int i, dtype type)
{
    const int64_t begin = x->begin_theirs[i], n = x->begin_theirs[i + 1] - begin;
    const size_t bytes = (size_t)(n * x->cols) * dtype_size(type);
    unsigned char *out = malloc(bytes);
    if (!out)
        return gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers", r->t->theirs[i]);
    for (int64_t o = 0; o < n; o++)
        for (int64_t k = 0; k < x->cols; k++)
            dtype_store(type, out, (size_t)(hf_is_transposed(r, x) ? k * n + o : o * x->cols + k),
                        all[(begin + o) * x->cols + k]);
    gt_status st = st_writer_put(w, out, bytes);
    free(out);
    return st;
}

/* Names a row's tensors (p NULL) or writes their numbers. */
gt_status hf_export_row(const hf_map *m, st_writer *w, params *p, const hf_row *r, const shape *ours, dtype type)
{
    hf_matrix x;
    float *all = NULL;
    char name[HF_NAME], text[3 * HF_NAME];
    gt_status st = hf_measure(m, r, &x);
    if (!st && p)
        st = read_row(m, &all, p, r, &x);
    for (int i = 0; !st && i < x.theirs; i++) {
        const shape s = hf_shape_theirs(r, &x, i, ours);
        snprintf(text, sizeof text, "%s%s%s", m->wrapper, r->t->flags & MODEL_BARE ? "" : m->family->prefix,
                 hf_form(name, r->t->theirs[i], r->layer));
        st = p ? hf_write_piece(w, all, r, &x, i, type) : st_writer_add(w, text, type, &s);
    }
    free(all);
    return st;
}

/* The rows in the order of our tensors; a row of several is met at the first. */
static gt_status export_rows(const hf_map *m, st_writer *w, params *p, int numbers, dtype type)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        hf_row r;
        int piece;
        if (lora_is_adapter(params_info(p, i)))
            continue;                           /* it is in what read_row() gives */
        st = hf_find_row(m, params_info(p, i)->name, &r, &piece);
        if (!st && piece == 0)
            st = hf_export_row(m, w, numbers ? p : NULL, &r, &params_info(p, i)->full, type);
    }
    return st;
}

static gt_status write_config(const model_config *c, const char *folder)
{
    char *text = NULL, *path = gt_path_join(folder, "config.json");
    gt_status st = path ? model_config_json(&text, c)
                        : gt_fail(GT_NO_MEMORY, "cannot export to '%s': no memory for its path", folder);
    if (!st)
        st = gt_file_write(path, text, strlen(text));
    free(text);
    free(path);
    return st;
}

static gt_status write_weights(const hf_map *m, params *p, dtype type, const char *path)
{
    st_writer *w = NULL;
    gt_status st = st_writer_open(&w, path);
    if (!st)
        st = st_writer_metadata(w, "format", "pt");
    if (!st)
        st = export_rows(m, w, p, 0, type);
    if (!st)
        st = st_writer_begin(w);
    if (!st)
        st = export_rows(m, w, p, 1, type);
    if (st)
        st_writer_abandon(w);
    else
        st = st_writer_commit(w);
    return st;
}

gt_status model_export(const model_config *c, params *p, dtype type, const char *folder)
{
    graph *whole;
    hf_map m;
    for (int i = 0; i < params_count(p); i++)
        if (params_info(p, i)->slice.parts)
            return gt_fail(GT_MISUSE,
                           "cannot export to '%s': only a slice of tensor '%s' is here; "
                           "export a checkpoint instead",
                           folder, params_info(p, i)->name);
    gt_status st = gt_folder_make(folder);
    if (st)
        return st;
    char *path = gt_path_join(folder, "model.safetensors");
    if (!path)
        return gt_fail(GT_NO_MEMORY, "cannot export to '%s': no memory for its path", folder);
    st = hf_build_whole(&m, &whole, c);
    if (!st)
        st = write_weights(&m, p, type, path);
    graph_release(whole);
    free(path);
    return st ? st : write_config(c, folder);
}
