/* SPDX-License-Identifier: MIT */
/* models/hf_import.c - Hugging Face folders: weights in.
 *
 *   file ── is all that is in it known? ── is what is tied alike? ── each tensor ──> params, what this rank holds
 *
 * A tensor that is tied must be what the other one is, or stands for it where a file holds it alone,
 * as transformers ties both ways. Masks that old files carry are not weights. Any other tensor would be
 * a part of the model that is not computed here, so none is left aside in silence.       */
#include "models/hf_private.h"

#include "models/lora.h"

#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/workers.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers of one tensor ---------------------------------------------------------------------- */

static gt_status check_theirs(const hf_row *r, const hf_matrix *x, int i, const shape *ours, const st_tensor *t,
                              const char *folder)
{
    const shape want = hf_shape_theirs(r, x, i, ours);
    char a[64], b[64];
    if (!shape_equal(&want, &t->dims))
        return gt_fail(GT_MISMATCH, "tensor '%s' of '%s' is %s, the model needs %s", t->name, folder,
                       shape_format(&t->dims, a, sizeof a), shape_format(&want, b, sizeof b));
    if (dtype_is_storage(t->type) || t->type == DTYPE_F64)
        return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "tensor '%s' of '%s' is of type %s, not floating point", t->name, folder,
                   dtype_name(t->type));
}

/* A turn: so many outputs, and of a transposed matrix so many of each at a time, that what is read and what is
 * written are whole cache lines. */
enum { OUTPUTS = 64, COLUMNS = 16 };

/* Outputs [from, to) of the matrix, n of which are in a file, to `values`, where `from` is the first. */
typedef struct taking {
    dtype type;
    const void *raw;                    /* begins with output `begin` */
    int transposed;
    int64_t n, begin, from, to, cols;
    float *values;
    atomic_int bad;
} taking;

static float number_at(const taking *x, int64_t at)
{
    return x->type == DTYPE_F32 ? ((const float *)x->raw)[at] : dtype_load(x->type, x->raw, (size_t)at);
}

static void take_transposed(const taking *x, float *values, int64_t first, int64_t end)
{
    for (int64_t k = 0; k < x->cols; k += COLUMNS) {
        const int64_t last = k + COLUMNS < x->cols ? k + COLUMNS : x->cols;
        for (int64_t o = first; o < end; o++)
            for (int64_t j = k; j < last; j++)
                values[(o - first) * x->cols + j] = number_at(x, j * x->n + o - x->begin);
    }
}

static void take_outputs(void *context, size_t turn)
{
    taking *x = context;
    const int64_t first = x->from + (int64_t)turn * OUTPUTS, end = first + OUTPUTS < x->to ? first + OUTPUTS : x->to;
    const int64_t count = (end - first) * x->cols, at = (first - x->begin) * x->cols;
    float *values = x->values + (first - x->from) * x->cols;
    int bad = 0;
    if (x->transposed)
        take_transposed(x, values, first, end);
    else if (x->type == DTYPE_F32)
        memcpy(values, (const float *)x->raw + at, (size_t)count * sizeof *values);
    else
        for (int64_t k = 0; k < count; k++)
            values[k] = number_at(x, at + k);
    for (int64_t k = 0; k < count; k++)
        bad |= !isfinite(values[k]);
    if (bad)
        atomic_store(&x->bad, 1);
}

/* Outputs [from, to) of the matrix, out of piece i, to `values`, which begins with output `first`. */
static gt_status take(const hf_row *r, const hf_matrix *x, int i, const st_tensor *t, int64_t from, int64_t to,
                      int64_t first, float *values, const char *folder)
{
    const int64_t begin = x->begin_theirs[i];
    unsigned char *copy = NULL;
    taking all = { .type = t->type,
                   .raw = t->data,
                   .transposed = hf_is_transposed(r, x),
                   .n = x->begin_theirs[i + 1] - begin,
                   .begin = begin,
                   .from = from,
                   .to = to,
                   .cols = x->cols,
                   .values = values + (from - first) * x->cols };
    if ((uintptr_t)t->data % dtype_size(t->type)) {     /* it lies unaligned in the file */
        copy = malloc(t->bytes + 1);
        if (!copy)
            return gt_fail(GT_NO_MEMORY, "cannot import '%s': no memory for its numbers", t->name);
        memcpy(copy, t->data, t->bytes);
        all.raw = copy;
    }
    gt_workers_run((size_t)((to - from + OUTPUTS - 1) / OUTPUTS), take_outputs, &all);
    free(copy);
    return atomic_load(&all.bad)
               ? gt_fail(GT_NUMERIC, "tensor '%s' of '%s' holds a value that is not finite", t->name, folder)
               : GT_OK;
}

/* One of our tensors, piece `piece` of its row; held: its number in p, -1: it is only looked for. */
gt_status hf_import_one(const hf_map *m, const st_file *f, const hf_row *r, int piece, const graph_param_info *info,
                        params *p, int held, const char *folder)
{
    hf_matrix x;
    char name[HF_NAME];
    int missing = 0;
    gt_status st = hf_measure(m, r, &x);
    if (st)
        return st;
    const int64_t first = x.begin_ours[piece], last = x.begin_ours[piece + 1];
    const size_t count = (size_t)((last - first) * x.cols);
    if (held >= 0 && !shape_equal(&params_info(p, held)->full, &info->full))
        return gt_fail(GT_MISMATCH, "tensor '%s' is not of the model's shape here", info->name);
    float *place = held < 0 ? NULL : params_in_place(p, held);
    float *values = held < 0 || place ? place : calloc(count + 1, sizeof *values);
    if (held >= 0 && !values)
        return gt_fail(GT_NO_MEMORY, "cannot import '%s': no memory for its numbers", info->name);
    for (int i = 0; !st && i < x.theirs; i++) {
        const int64_t from = x.begin_theirs[i] > first ? x.begin_theirs[i] : first;
        const int64_t to = x.begin_theirs[i + 1] < last ? x.begin_theirs[i + 1] : last;
        const st_tensor *t = from < to ? hf_find_tensor(m, f, r, i) : NULL;
        if (from >= to)
            continue;
        missing += !t;
        if (!t && r->t->flags & MODEL_HEAD && (m->c->new_heads || hf_is_saved(m, info->name)))
            continue;
        if (!t && !(r->t->flags & MODEL_OPTIONAL))
            st = gt_fail(GT_MISMATCH, "cannot import '%s': tensor '%s' is missing", folder,
                         hf_form(name, r->t->theirs[i], r->layer));
        if (!st && t)
            st = check_theirs(r, &x, i, &info->full, t, folder);
        if (!st && t && values)
            st = take(r, &x, i, t, from, to, first, values, folder);
    }
    if (!st && missing && missing < x.theirs)
        st = gt_fail(GT_MISMATCH, "cannot import '%s': of what makes up '%s' %d of %d tensors are missing", folder,
                     info->name, missing, x.theirs);
    const int anew = missing && r->t->flags & MODEL_HEAD;
    if (!st && anew && m->c->new_heads)
        gt_log(GT_LOG_WARN, "models", "'%s' has no tensor '%s': it begins anew", folder, info->name);
    else if (!st && !anew && place && missing)
        memset(place, 0, count * sizeof *place);
    else if (!st && !anew && values && !place)
        st = params_write_full(p, held, values);
    if (!place)
        free(values);
    return st;
}

/* Every tensor of the whole model must be in the file; p takes what it holds of them. */
static gt_status import_tensors(const hf_map *m, params *p, const st_file *f, const char *folder)
{
    gt_status st = GT_OK;
    int taken = 0;
    gt_activity a;
    gt_activity_begin(&a, "importing weights", "tensors", (uint64_t)graph_param_count(m->whole));
    for (int i = 0; !st && i < graph_param_count(m->whole); i++) {
        hf_row r;
        int piece;
        const graph_param_info *info = graph_param_at(m->whole, i);
        const int held = params_find(p, info->name);
        st = gt_activity_at(&a, (uint64_t)i);
        if (!st)
            st = hf_find_row(m, info->name, &r, &piece);
        if (!st)
            st = hf_import_one(m, f, &r, piece, info, p, held, folder);
        taken += held >= 0;
    }
    gt_activity_end(&a);
    for (int i = 0; i < params_count(p); i++)
        taken += lora_is_adapter(params_info(p, i));
    if (!st && taken != params_count(p))
        st = gt_fail(GT_MISMATCH,
                     "cannot import '%s': the model's description has other tensors "
                     "than the graph",
                     folder);
    return st;
}

/* ---- what else is in a file ------------------------------------------------------------------- */

/* The row whose name on their side this is; NULL if there is none. */
static const model_tensor *find_theirs(const hf_map *m, const char *name, int *layer)
{
    char formed[HF_NAME];
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++)
        for (int i = 0; i < hf_pieces_of(t->theirs); i++)
            if (hf_matches(t->theirs[i], name, layer)
                && (!t->ours[0] || !strcmp(hf_form(formed, t->theirs[i], *layer), name)))
                return t;
    return NULL;
}

/* Named as what layers hold, of a layer that the model does not have? */
static int is_beyond(const hf_map *m, const char *name)
{
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++)
        for (int i = 0; i < hf_pieces_of(t->theirs); i++) {
            const char *number = strstr(t->theirs[i], "%d");
            const size_t head = number ? (size_t)(number - t->theirs[i]) : 0;
            if (number && !strncmp(t->theirs[i], name, head) && hf_layer_at(name + head) >= m->c->layers)
                return 1;
        }
    return 0;
}

static gt_status check_one(const hf_map *m, const char *name, const char *rest, const char *folder)
{
    int layer;
    char ours[HF_NAME];
    const model_tensor *t = find_theirs(m, rest, &layer);
    if (t && t->flags & MODEL_MASK)
        return GT_OK;
    if (t && t->ours[0] && (hf_is_tied(m, t) || hf_find_whole(m, hf_form(ours, t->ours[0], layer)) >= 0))
        return GT_OK;
    if (is_beyond(m, rest))
        return gt_fail(GT_MISMATCH, "tensor '%s' of '%s' is of a layer the model, with %d, does not have", name, folder,
                       m->c->layers);
    if (!t || !(t->flags & (MODEL_OTHER_TASK | MODEL_HEAD)))
        return gt_fail(GT_UNSUPPORTED,
                       "tensor '%s' of '%s' is no part of the model as it is computed "
                       "here; leaving it out would change what the model says",
                       name, folder);
    gt_log(GT_LOG_WARN, "models", "tensor '%s' of '%s' belongs to another task and is left out", name, folder);
    return GT_OK;
}

static const st_tensor *find_bare(const hf_map *m, const st_file *f, const char *name)
{
    char text[2 * HF_NAME];
    snprintf(text, sizeof text, "%s%s", m->wrapper, name);
    return st_find(f, text);
}

/* Every tensor of the file must have its place. */
static gt_status check_tensors(const hf_map *m, const st_file *f, const char *folder)
{
    const size_t prefix = strlen(m->family->prefix);
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < st_count(f); i++) {
        const char *name = st_at(f, i)->name + strlen(m->wrapper);
        const int prefixed = prefix && !strncmp(name, m->family->prefix, prefix);
        char today[2 * HF_NAME];
        const char *rest = hf_of_today(m, today, prefixed ? name + prefix : name);
        st = prefixed && find_bare(m, f, rest)
                 ? gt_fail(GT_MISMATCH, "cannot import '%s': it holds both '%s' and '%s'", folder, name, rest)
                 : check_one(m, name, rest, folder);
    }
    return st;
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

/* transformers, from version 5 on, does not tie a tensor whose numbers are others, whatever the
 * description says; before, it dropped them. */
static gt_status check_tied(const hf_map *m, const st_file *f, const char *folder)
{
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++) {
        hf_row r;
        int piece;
        const st_tensor *own = hf_is_tied(m, t) ? hf_find_named(m, f, t->theirs[0]) : NULL;
        if (!own)
            continue;
        gt_status st = hf_find_row(m, t->tied, &r, &piece);
        if (st)
            return st;
        const st_tensor *other = hf_find_tensor(m, f, &r, 0);
        if (!other || own == other || same_numbers(own, other))
            continue;
        return gt_fail(GT_MISMATCH,
                       "cannot import '%s': '%s' holds other numbers than '%s', though "
                       "the model's description says that they are tied; if the head is one of its own, let "
                       "it say \"tie_word_embeddings\": false",
                       folder, own->name, other->name);
    }
    return GT_OK;
}

/* ---- all of it --------------------------------------------------------------------------------- */

gt_status model_import(const model_config *c, params *p, const char *folder)
{
    st_file *f;
    graph *whole;
    hf_map m;
    gt_status st = model_family_of(&m.family, c);
    if (!st)
        st = model_folder_check(folder);
    if (st)
        return st;
    if (m.family->import_file && gt_path_exists(folder) && !gt_path_is_folder(folder))
        return m.family->import_file(c, p, folder);
    st = st_open(&f, folder);
    if (st)
        return st;
    st = hf_build_whole(&m, &whole, c);
    if (!st && c->new_heads)
        st = params_init(p, c->head_seed);
    if (!st)
        hf_find_wrapper(&m, f);
    if (!st)
        st = check_tensors(&m, f, folder);
    if (!st)
        st = check_tied(&m, f, folder);
    if (!st)
        st = import_tensors(&m, p, f, folder);
    graph_release(whole);
    st_close(f);
    return st;
}
