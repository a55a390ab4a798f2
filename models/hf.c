/* SPDX-License-Identifier: MIT */
/* models/hf.c - Hugging Face folders: weights in and out, by the family's rows of tensors.
 *
 * A row says which of our tensors are which of theirs (family.h). Seen as one matrix with a row an
 * output, its names on either side are pieces of it, from top to bottom:
 *
 *   ours   [     qkv.weight     ]        theirs  [ q.weight | k.weight | v.weight ]
 *
 * A tensor that is tied must be what the other one is, or stands for it where a file holds it alone,
 * as transformers ties both ways. Masks that old files carry are not weights. Any other tensor would be
 * a part of the model that is not computed here, so none is left aside in silence.
 * A rank that holds a part of the model still looks for all of its tensors: what is wrong with
 * a file is then the same for all ranks, whatever they hold.                             */
#include "models/family.h"

#include "models/lora.h"

#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/workers.h"
#include "host/tensor/safetensors.h"

#include <ctype.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WRAPPER = 64 };

/* A model and the rows of its family. */
typedef struct map {
    model_config base;
    const model_config *asked;      /* as the caller gives it, with its tuning */
    const model_config *c;
    const model_family *family;
    const graph *whole;             /* the model, all of it */
    char wrapper[WRAPPER];          /* what every name of the file begins with besides */
} map;

/* A row, in one layer. */
typedef struct row {
    const model_tensor *t;
    int layer;
} row;

/* ---- names --------------------------------------------------------------------------------- */

enum { NAME = 96 };

static const char *form(char out[NAME], const char *pattern, int layer)
{
    const char *number = strstr(pattern, "%d");
    if (number)
        snprintf(out, NAME, "%.*s%d%s", (int)(number - pattern), pattern, layer, number + 2);
    else
        snprintf(out, NAME, "%s", pattern);
    return out;
}

/* A number of a layer at the beginning of a name; -1: none. */
static int layer_at(const char *name)
{
    const long layer = isdigit((unsigned char)*name) ? strtol(name, NULL, 10) : -1;
    return layer > INT_MAX ? INT_MAX : (int)layer;
}

/* *layer: 0 where the pattern has none. */
static int matches(const char *pattern, const char *name, int *layer)
{
    const char *number = strstr(pattern, "%d");
    const size_t head = number ? (size_t)(number - pattern) : strcspn(pattern, "*");
    *layer = 0;
    if (strncmp(pattern, name, head))
        return 0;
    if (number) {
        *layer = layer_at(name + head);
        name += head + strspn(name + head, "0123456789");
        return *layer >= 0 && !strcmp(number + 2, name);
    }
    return pattern[head] == '*' || !name[head];
}

static int pieces_of(const char *const names[MODEL_PIECES])
{
    int n = 0;
    while (n < MODEL_PIECES && names[n])
        n++;
    return n;
}

static int find_whole(const map *m, const char *name)
{
    for (int i = 0; i < graph_param_count(m->whole); i++)
        if (!strcmp(graph_param_at(m->whole, i)->name, name))
            return i;
    return -1;
}

/* The row of one of our tensors, and which piece it is. */
static gt_status find_row(const map *m, const char *ours, row *out, int *piece)
{
    for (out->t = m->family->tensors; out->t->ours[0] || out->t->theirs[0]; out->t++)
        for (*piece = 0; *piece < pieces_of(out->t->ours); ++*piece)
            if (matches(out->t->ours[*piece], ours, &out->layer))
                return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' has no name in files of the family '%s'", ours,
                   m->c->name, m->family->name);
}

/* `name` with the ending `from` as one with `to`; NULL if it ends otherwise. */
static const char *renamed(char out[2 * NAME], const char *name, const char *from, const char *to)
{
    const size_t all = strlen(name), end = strlen(from);
    if (all < end || strcmp(name + all - end, from))
        return NULL;
    snprintf(out, 2 * NAME, "%.*s%s", (int)(all - end), name, to);
    return out;
}

/* A name of an old file as it is today. */
static const char *of_today(const map *m, char out[2 * NAME], const char *name)
{
    for (const model_renamed *r = m->family->renamed; r && r->then; r++)
        if (renamed(out, name, r->then, r->now))
            return out;
    return name;
}

static int all_begin(const st_file *f, const char *with, const char *then)
{
    const size_t n = strlen(with), more = strlen(then);
    for (size_t i = 0; i < st_count(f); i++)
        if (strncmp(st_at(f, i)->name, with, n) || strncmp(st_at(f, i)->name + n, then, more))
            return 0;
    return st_count(f) > 0;
}

/* What others' tools put in front of every name when they save a model that is wrapped: DistributedDataParallel,
 * torch.compile, peft. */
static void find_wrapper(map *m, const st_file *f)
{
    static const char *const wrappers[] = { "module.", "_orig_mod.", "base_model.model." };
    int more = 1;
    while (more) {
        more = 0;
        for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
            const size_t n = strlen(m->wrapper);
            if (n + strlen(wrappers[i]) < WRAPPER && all_begin(f, m->wrapper, wrappers[i])) {
                snprintf(m->wrapper + n, WRAPPER - n, "%s", wrappers[i]);
                more = 1;
            }
        }
    }
}

/* Theirs, with and without the prefix. */
static const st_tensor *find_prefixed(const map *m, const st_file *f, const char *name)
{
    char text[3 * NAME];
    snprintf(text, sizeof text, "%s%s", m->wrapper, name);
    const st_tensor *t = st_find(f, text);
    if (!t) {
        snprintf(text, sizeof text, "%s%s%s", m->wrapper, m->family->prefix, name);
        t = st_find(f, text);
    }
    return t;
}

/* The same by the name of today or by that of old files. */
static const st_tensor *find_named(const map *m, const st_file *f, const char *name)
{
    char old[2 * NAME];
    const st_tensor *t = find_prefixed(m, f, name);
    for (const model_renamed *r = m->family->renamed; !t && r && r->then; r++)
        if (renamed(old, name, r->now, r->then))
            t = find_prefixed(m, f, old);
    return t;
}

/* Is this one of ours tied in this model, since it is no parameter of its own? */
static int is_tied(const map *m, const model_tensor *t)
{
    return t->tied && find_whole(m, t->ours[0]) < 0;
}

/* Piece i of theirs, or what is tied to it and stands for it. */
static const st_tensor *find_tensor(const map *m, const st_file *f, const row *r, int i)
{
    char name[NAME], ours[NAME];
    const st_tensor *t = find_named(m, f, form(name, r->t->theirs[i], r->layer));
    form(ours, r->t->ours[0], r->layer);
    for (const model_tensor *other = m->family->tensors; !t && (other->ours[0] || other->theirs[0]); other++)
        if (is_tied(m, other) && !strcmp(other->tied, ours))
            t = find_named(m, f, other->theirs[0]);
    return t;
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* A row as one matrix: outputs of all of it, and of the pieces on both sides; cols each. */
typedef struct matrix {
    int64_t outputs, cols, begin_ours[MODEL_PIECES + 1], begin_theirs[MODEL_PIECES + 1];
    int ours, theirs, rank;
} matrix;

static gt_status measure(const map *m, const row *r, matrix *out)
{
    char name[NAME];
    *out = (matrix){ .ours = pieces_of(r->t->ours), .theirs = pieces_of(r->t->theirs) };
    for (int i = 0; i < out->ours; i++) {
        const int at = find_whole(m, form(name, r->t->ours[i], r->layer));
        if (at < 0)
            return gt_fail(GT_UNSUPPORTED, "model '%s' has no tensor '%s', which is one of several in files",
                           m->c->name, name);
        const shape *s = &graph_param_at(m->whole, at)->full;
        out->rank = s->rank;
        out->cols = shape_count(s) / s->dim[0];
        out->outputs += s->dim[0];
        out->begin_ours[i + 1] = out->outputs;
    }
    for (int i = 0; i < out->theirs; i++)
        out->begin_theirs[i + 1] = out->begin_theirs[i]
                                   + (r->t->outputs ? r->t->outputs(m->c, i) : out->outputs / out->theirs);
    if (out->begin_theirs[out->theirs] == out->outputs)
        return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' does not divide into the %d of files",
                   form(name, r->t->ours[0], r->layer), m->c->name, out->theirs);
}

static int is_transposed(const row *r, const matrix *x)
{
    return (r->t->flags & MODEL_TRANSPOSED) && x->rank == 2;
}

/* What piece i of theirs looks like in a file. */
static shape shape_theirs(const row *r, const matrix *x, int i, const shape *ours)
{
    const int64_t n = x->begin_theirs[i + 1] - x->begin_theirs[i];
    shape s = *ours;
    s.dim[0] = n;
    if (is_transposed(r, x)) {
        s.dim[0] = x->cols;
        s.dim[1] = n;
    }
    return s;
}

/* ---- import --------------------------------------------------------------------------------- */

static gt_status check_theirs(const row *r, const matrix *x, int i, const shape *ours, const st_tensor *t,
                              const char *folder)
{
    const shape want = shape_theirs(r, x, i, ours);
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
static gt_status take(const row *r, const matrix *x, int i, const st_tensor *t, int64_t from, int64_t to, int64_t first,
                      float *values, const char *folder)
{
    const int64_t begin = x->begin_theirs[i];
    unsigned char *copy = NULL;
    taking all = { .type = t->type,
                   .raw = t->data,
                   .transposed = is_transposed(r, x),
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

/* Does it come with an adapter, or is it to be written with one? */
static int is_saved(const map *m, const char *ours)
{
    return m->asked->tuning.rank && graph_pattern_matches(m->asked->tuning.saved, ours);
}

/* One of our tensors, piece `piece` of its row; held: its number in p, -1: it is only looked for. */
static gt_status import_one(const map *m, const st_file *f, const row *r, int piece, const graph_param_info *info,
                            params *p, int held, const char *folder)
{
    matrix x;
    char name[NAME];
    int missing = 0;
    gt_status st = measure(m, r, &x);
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
        const st_tensor *t = from < to ? find_tensor(m, f, r, i) : NULL;
        if (from >= to)
            continue;
        missing += !t;
        if (!t && r->t->flags & MODEL_HEAD && (m->c->new_heads || is_saved(m, info->name)))
            continue;
        if (!t && !(r->t->flags & MODEL_OPTIONAL))
            st = gt_fail(GT_MISMATCH, "cannot import '%s': tensor '%s' is missing", folder,
                         form(name, r->t->theirs[i], r->layer));
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
static gt_status import_tensors(const map *m, params *p, const st_file *f, const char *folder)
{
    gt_status st = GT_OK;
    int taken = 0;
    gt_activity a;
    gt_activity_begin(&a, "importing weights", "tensors", (uint64_t)graph_param_count(m->whole));
    for (int i = 0; !st && i < graph_param_count(m->whole); i++) {
        row r;
        int piece;
        const graph_param_info *info = graph_param_at(m->whole, i);
        const int held = params_find(p, info->name);
        st = gt_activity_at(&a, (uint64_t)i);
        if (!st)
            st = find_row(m, info->name, &r, &piece);
        if (!st)
            st = import_one(m, f, &r, piece, info, p, held, folder);
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
static const model_tensor *find_theirs(const map *m, const char *name, int *layer)
{
    char formed[NAME];
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++)
        for (int i = 0; i < pieces_of(t->theirs); i++)
            if (matches(t->theirs[i], name, layer)
                && (!t->ours[0] || !strcmp(form(formed, t->theirs[i], *layer), name)))
                return t;
    return NULL;
}

/* Named as what layers hold, of a layer that the model does not have? */
static int is_beyond(const map *m, const char *name)
{
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++)
        for (int i = 0; i < pieces_of(t->theirs); i++) {
            const char *number = strstr(t->theirs[i], "%d");
            const size_t head = number ? (size_t)(number - t->theirs[i]) : 0;
            if (number && !strncmp(t->theirs[i], name, head) && layer_at(name + head) >= m->c->layers)
                return 1;
        }
    return 0;
}

static gt_status check_one(const map *m, const char *name, const char *rest, const char *folder)
{
    int layer;
    char ours[NAME];
    const model_tensor *t = find_theirs(m, rest, &layer);
    if (t && t->flags & MODEL_MASK)
        return GT_OK;
    if (t && t->ours[0] && (is_tied(m, t) || find_whole(m, form(ours, t->ours[0], layer)) >= 0))
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

static const st_tensor *find_bare(const map *m, const st_file *f, const char *name)
{
    char text[2 * NAME];
    snprintf(text, sizeof text, "%s%s", m->wrapper, name);
    return st_find(f, text);
}

/* Every tensor of the file must have its place. */
static gt_status check_tensors(const map *m, const st_file *f, const char *folder)
{
    const size_t prefix = strlen(m->family->prefix);
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < st_count(f); i++) {
        const char *name = st_at(f, i)->name + strlen(m->wrapper);
        const int prefixed = prefix && !strncmp(name, m->family->prefix, prefix);
        char today[2 * NAME];
        const char *rest = of_today(m, today, prefixed ? name + prefix : name);
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
static gt_status check_tied(const map *m, const st_file *f, const char *folder)
{
    for (const model_tensor *t = m->family->tensors; t->ours[0] || t->theirs[0]; t++) {
        row r;
        int piece;
        const st_tensor *own = is_tied(m, t) ? find_named(m, f, t->theirs[0]) : NULL;
        if (!own)
            continue;
        gt_status st = find_row(m, t->tied, &r, &piece);
        if (st)
            return st;
        const st_tensor *other = find_tensor(m, f, &r, 0);
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

/* The whole model; m->whole is released by the caller. */
static gt_status build_whole(map *m, graph **whole, const model_config *c)
{
    m->asked = c;
    m->base = *c;
    m->base.tuning = (model_tuning){ 0 };   /* files hold the model; adapters lie beside it (lora.h) */
    m->c = c = &m->base;
    m->wrapper[0] = '\0';
    *whole = NULL;
    gt_status st = model_family_of(&m->family, c);
    if (!st)
        st = graph_create(whole, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(*whole, c, 0, 0);
    m->whole = *whole;
    return st;
}

gt_status model_import(const model_config *c, params *p, const char *folder)
{
    st_file *f;
    graph *whole;
    map m;
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
    st = build_whole(&m, &whole, c);
    if (!st && c->new_heads)
        st = params_init(p, c->head_seed);
    if (!st)
        find_wrapper(&m, f);
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

/* Piece `piece` of a row on their side, without and with what stands in front. */
static void name_piece(char *out, size_t size, const map *m, const row *r, int piece, int prefixed)
{
    char name[NAME];
    snprintf(out, size, "%s%s", prefixed && !(r->t->flags & MODEL_BARE) ? m->family->prefix : "",
             form(name, r->t->theirs[piece], r->layer));
}

int model_tensor_pieces(const model_config *c, const char *ours)
{
    map m = { .c = c };
    row r;
    int piece;
    if (!model_family_of(&m.family, c) && !find_row(&m, ours, &r, &piece))
        return pieces_of(r.t->theirs);
    gt_message_clear();
    return 1;
}

gt_status model_tensor_piece(char *out, size_t size, const model_config *c, const char *ours, int piece)
{
    map m = { .c = c };
    row r;
    int own;
    gt_status st = model_family_of(&m.family, c);
    if (!st)
        st = find_row(&m, ours, &r, &own);
    if (!st && r.t->outputs)
        st = gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' is several of unlike sizes in files", ours, c->name);
    if (!st)
        name_piece(out, size, &m, &r, piece, 0);
    return st;
}

gt_status model_tensor_name(char *out, size_t size, const model_config *c, const char *ours, int *transposed)
{
    map m = { .c = c };
    row r;
    int piece, layer, found = 0;
    gt_status st = model_family_of(&m.family, c);
    if (!st)
        st = find_row(&m, ours, &r, &piece);
    if (st == GT_UNSUPPORTED && m.family) {     /* a piece of ours, by their name */
        for (r.t = m.family->tensors; !found && (r.t->ours[0] || r.t->theirs[0]); r.t += !found)
            for (piece = 0; !found && r.t->ours[0] && piece < pieces_of(r.t->theirs); piece += !found)
                found = matches(r.t->theirs[piece], ours, &layer);
        if (found) {
            gt_message_clear();
            r.layer = layer;
            st = GT_OK;
        }
    } else if (!st && pieces_of(r.t->theirs) > 1) {
        st = gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' is several in files", ours, c->name);
    }
    if (st)
        return st;
    *transposed = (r.t->flags & MODEL_TRANSPOSED) != 0;
    name_piece(out, size, &m, &r, piece, 1);
    return GT_OK;
}

/* ---- export ---------------------------------------------------------------------------------- */

/* All of a row's numbers, an output a row. */
static gt_status read_row(const map *m, float **out, params *p, const row *r, const matrix *x)
{
    char name[NAME];
    gt_status st = GT_OK;
    float *all = malloc((size_t)(x->outputs * x->cols) * sizeof *all);
    if (!all)
        st = gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers",
                     form(name, r->t->ours[0], r->layer));
    for (int i = 0; !st && i < x->ours; i++) {
        const int at = params_find(p, form(name, r->t->ours[i], r->layer));
        st = at < 0 ? gt_fail(GT_MISMATCH, "cannot export: tensor '%s' is not here", name)
                    : params_read(p, at, all + x->begin_ours[i] * x->cols);
        if (!st)
            st = lora_merge(m->asked, p, name, all + x->begin_ours[i] * x->cols);
    }
    *out = all;
    return st;
}

static gt_status write_piece(st_writer *w, const float *all, const row *r, const matrix *x, int i, dtype type)
{
    const int64_t begin = x->begin_theirs[i], n = x->begin_theirs[i + 1] - begin;
    const size_t bytes = (size_t)(n * x->cols) * dtype_size(type);
    unsigned char *out = malloc(bytes);
    if (!out)
        return gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers", r->t->theirs[i]);
    for (int64_t o = 0; o < n; o++)
        for (int64_t k = 0; k < x->cols; k++)
            dtype_store(type, out, (size_t)(is_transposed(r, x) ? k * n + o : o * x->cols + k),
                        all[(begin + o) * x->cols + k]);
    gt_status st = st_writer_put(w, out, bytes);
    free(out);
    return st;
}

/* Names a row's tensors (p NULL) or writes their numbers. */
static gt_status export_row(const map *m, st_writer *w, params *p, const row *r, const shape *ours, dtype type)
{
    matrix x;
    float *all = NULL;
    char name[NAME], text[3 * NAME];
    gt_status st = measure(m, r, &x);
    if (!st && p)
        st = read_row(m, &all, p, r, &x);
    for (int i = 0; !st && i < x.theirs; i++) {
        const shape s = shape_theirs(r, &x, i, ours);
        snprintf(text, sizeof text, "%s%s%s", m->wrapper, r->t->flags & MODEL_BARE ? "" : m->family->prefix,
                 form(name, r->t->theirs[i], r->layer));
        st = p ? write_piece(w, all, r, &x, i, type) : st_writer_add(w, text, type, &s);
    }
    free(all);
    return st;
}

/* The rows in the order of our tensors; a row of several is met at the first. */
static gt_status export_rows(const map *m, st_writer *w, params *p, int numbers, dtype type)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        row r;
        int piece;
        if (lora_is_adapter(params_info(p, i)))
            continue;                           /* it is in what read_row() gives */
        st = find_row(m, params_info(p, i)->name, &r, &piece);
        if (!st && piece == 0)
            st = export_row(m, w, numbers ? p : NULL, &r, &params_info(p, i)->full, type);
    }
    return st;
}

/* ---- tensors beside adapters ------------------------------------------------------------------ */

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
static int is_there(const map *m, const st_file *f, const row *r)
{
    for (int i = 0; i < pieces_of(r->t->theirs); i++)
        if (find_tensor(m, f, r, i))
            return 1;
    return 0;
}

gt_status model_new_heads(char out[MODEL_SAVED], const model_config *c, const char *folder)
{
    st_file *f = NULL;
    graph *whole = NULL;
    map m;
    model_config any = *c;
    any.vocab = any.vocab ? any.vocab : 1;          /* the tokenizer may not be known yet */
    gt_status st = build_whole(&m, &whole, &any);
    if (!st && folder && m.family->import_file && !gt_path_is_folder(folder))
        goto out;                       /* holds the next token's head */
    if (!st && folder)
        st = st_open(&f, folder);
    if (f)
        find_wrapper(&m, f);
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        row r;
        int piece;
        const char *name = graph_param_at(whole, i)->name;
        st = find_row(&m, name, &r, &piece);
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
static int pieces_within(const map *m, const row *r, const char *module)
{
    char name[3 * NAME];
    int count = 0;
    for (int i = 0; i < pieces_of(r->t->theirs); i++) {
        name_piece(name, sizeof name, m, r, i, 1);
        count += lies_within(name, module);
    }
    return count;
}

gt_status model_tensors_within(char out[MODEL_SAVED], const model_config *c, const char *module)
{
    map m = { .c = c };
    gt_status st = model_family_of(&m.family, c);
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && (t->ours[0] || t->theirs[0]); t++) {
        const int layers = t->ours[0] && strstr(t->ours[0], "%d") ? c->layers : t->ours[0] != NULL;
        for (int layer = 0; !st && layer < layers; layer++) {
            const row r = { t, layer };
            char ours[NAME];
            const int within = pieces_within(&m, &r, module);
            if (within && within < pieces_of(t->theirs))
                st = gt_fail(GT_UNSUPPORTED, "module '%s' is a part of what is one matrix here, '%s'", module,
                             form(ours, t->ours[0], layer));
            for (int k = 0; !st && within && k < pieces_of(t->ours); k++)
                st = append_name(out, c, form(ours, t->ours[k], layer));
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
    map m;
    gt_status st = build_whole(&m, &whole, c);
    m.base.new_heads = 0;
    snprintf(m.wrapper, sizeof m.wrapper, "%s", front);
    for (int i = 0; !st && i < graph_param_count(whole); i++) {
        row r;
        int piece;
        const graph_param_info *info = graph_param_at(whole, i);
        if (!is_saved(&m, info->name))
            continue;
        st = find_row(&m, info->name, &r, &piece);
        for (int k = 0; !st && k < pieces_of(r.t->theirs); k++) {
            char name[NAME], full[3 * NAME];
            const st_tensor *t = find_named(&m, f, form(name, r.t->theirs[k], r.layer));
            *used += t && piece == 0;
            if (!t) {
                name_piece(full, sizeof full, &m, &r, k, 1);
                st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s%s' is missing", folder, front,
                             full);
            }
        }
        if (!st)
            st = import_one(&m, f, &r, piece, info, p, params_find(p, info->name), folder);
    }
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && !st && (t->ours[0] || t->theirs[0]); t++) {
        const st_tensor *own = is_tied(&m, t) ? find_named(&m, f, t->theirs[0]) : NULL;
        *used += own != NULL;
        if (!own && is_tied(&m, t) && is_saved(&m, t->ours[0]))
            st = gt_fail(GT_MISMATCH, "cannot use the adapter in '%s': tensor '%s%s' is missing", folder, front,
                         t->theirs[0]);
        if (own)
            st = check_same(p, t, own, folder);
    }
    graph_release(whole);
    return st;
}

/* What is tied to another tensor, which the model's files need not have: PEFT's have all of a module. */
static gt_status put_tied(const map *m, st_writer *w, params *p, const model_tensor *t, dtype type, int numbers)
{
    char name[3 * NAME];
    const row r = { t, 0 };
    const int at = params_find(p, t->tied);
    if (at < 0)
        return gt_fail(GT_MISMATCH, "cannot export: tensor '%s' is not here", t->tied);
    const shape *s = &params_info(p, at)->full;
    const matrix x = {
        .outputs = s->dim[0], .cols = shape_count(s) / s->dim[0], .theirs = 1, .begin_theirs = { 0, s->dim[0] }
    };
    name_piece(name, sizeof name, m, &r, 0, 1);
    char full[4 * NAME];
    snprintf(full, sizeof full, "%s%s", m->wrapper, name);
    if (!numbers)
        return st_writer_add(w, full, type, s);
    float *all = malloc((size_t)shape_count(s) * sizeof *all);
    gt_status st = all ? params_read(p, at, all)
                       : gt_fail(GT_NO_MEMORY, "cannot export '%s': no memory for its numbers", full);
    if (!st)
        st = write_piece(w, all, &r, &x, 0, type);
    free(all);
    return st;
}

gt_status model_put_saved(struct st_writer *w, const model_config *c, params *p, const char *front,
                          const char *const *modules, dtype type, int numbers)
{
    graph *whole;
    map m;
    gt_status st = build_whole(&m, &whole, c);
    snprintf(m.wrapper, sizeof m.wrapper, "%s", front);
    for (int i = 0; !st && i < params_count(p); i++) {
        row r;
        int piece;
        const graph_param_info *info = params_info(p, i);
        if (lora_is_adapter(info) || !is_saved(&m, info->name))
            continue;
        st = find_row(&m, info->name, &r, &piece);
        if (!st && piece == 0)
            st = export_row(&m, w, numbers ? p : NULL, &r, &info->full, type);
    }
    for (const model_tensor *t = st ? NULL : m.family->tensors; t && !st && (t->ours[0] || t->theirs[0]); t++) {
        const row r = { t, 0 };
        int within = 0;
        for (size_t k = 0; modules[k]; k++)
            within |= pieces_within(&m, &r, modules[k]) > 0;
        if (within && is_tied(&m, t))
            st = put_tied(&m, w, p, t, type, numbers);
    }
    graph_release(whole);
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

static gt_status write_weights(const map *m, params *p, dtype type, const char *path)
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
    map m;
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
    st = build_whole(&m, &whole, c);
    if (!st)
        st = write_weights(&m, p, type, path);
    graph_release(whole);
    free(path);
    return st ? st : write_config(c, folder);
}
