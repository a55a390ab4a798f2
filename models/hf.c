/* SPDX-License-Identifier: MIT */
/* models/hf.c - Hugging Face folders: which of our tensors is which of theirs, by the family's rows.
 *
 * A row says which of our tensors are which of theirs (family.h). Seen as one matrix with a row an
 * output, its names on either side are pieces of it, from top to bottom:
 *
 *   ours   [     qkv.weight     ]        theirs  [ q.weight | k.weight | v.weight ]
 *
 * A rank that holds a part of the model still looks for all of its tensors: what is wrong with
 * a file is then the same for all ranks, whatever they hold.                             */
#include "models/hf_private.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The whole model; m->whole is released by the caller. */
gt_status hf_build_whole(hf_map *m, graph **whole, const model_config *c)
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

/* ---- names --------------------------------------------------------------------------------- */

const char *hf_form(char out[HF_NAME], const char *pattern, int layer)
{
    const char *number = strstr(pattern, "%d");
    if (number)
        snprintf(out, HF_NAME, "%.*s%d%s", (int)(number - pattern), pattern, layer, number + 2);
    else
        snprintf(out, HF_NAME, "%s", pattern);
    return out;
}

/* A number of a layer at the beginning of a name; -1: none. */
int hf_layer_at(const char *name)
{
    const long layer = isdigit((unsigned char)*name) ? strtol(name, NULL, 10) : -1;
    return layer > INT_MAX ? INT_MAX : (int)layer;
}

/* *layer: 0 where the pattern has none. */
int hf_matches(const char *pattern, const char *name, int *layer)
{
    const char *number = strstr(pattern, "%d");
    const size_t head = number ? (size_t)(number - pattern) : strcspn(pattern, "*");
    *layer = 0;
    if (strncmp(pattern, name, head))
        return 0;
    if (number) {
        *layer = hf_layer_at(name + head);
        name += head + strspn(name + head, "0123456789");
        return *layer >= 0 && !strcmp(number + 2, name);
    }
    return pattern[head] == '*' || !name[head];
}

int hf_pieces_of(const char *const names[MODEL_PIECES])
{
    int n = 0;
    while (n < MODEL_PIECES && names[n])
        n++;
    return n;
}

int hf_find_whole(const hf_map *m, const char *name)
{
    for (int i = 0; i < graph_param_count(m->whole); i++)
        if (!strcmp(graph_param_at(m->whole, i)->name, name))
            return i;
    return -1;
}

/* The row of one of our tensors, and which piece it is. */
gt_status hf_find_row(const hf_map *m, const char *ours, hf_row *out, int *piece)
{
    for (out->t = m->family->tensors; out->t->ours[0] || out->t->theirs[0]; out->t++)
        for (*piece = 0; *piece < hf_pieces_of(out->t->ours); ++*piece)
            if (hf_matches(out->t->ours[*piece], ours, &out->layer))
                return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' has no name in files of the family '%s'", ours,
                   m->c->name, m->family->name);
}

/* `name` with the ending `from` as one with `to`; NULL if it ends otherwise. */
static const char *renamed(char out[2 * HF_NAME], const char *name, const char *from, const char *to)
{
    const size_t all = strlen(name), end = strlen(from), front = all - end;
    if (all < end || front + strlen(to) >= 2 * HF_NAME || strcmp(name + front, from))
        return NULL;
    memcpy(out, name, front);
    strcpy(out + front, to);
    return out;
}

/* A name of an old file as it is today. */
const char *hf_of_today(const hf_map *m, char out[2 * HF_NAME], const char *name)
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
void hf_find_wrapper(hf_map *m, const st_file *f)
{
    static const char *const wrappers[] = { "module.", "_orig_mod.", "base_model.model." };
    int more = 1;
    while (more) {
        more = 0;
        for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++) {
            const size_t n = strlen(m->wrapper);
            if (n + strlen(wrappers[i]) < HF_WRAPPER && all_begin(f, m->wrapper, wrappers[i])) {
                snprintf(m->wrapper + n, HF_WRAPPER - n, "%s", wrappers[i]);
                more = 1;
            }
        }
    }
}

/* Theirs, with and without the prefix. */
static const st_tensor *find_prefixed(const hf_map *m, const st_file *f, const char *name)
{
    char text[3 * HF_NAME];
    snprintf(text, sizeof text, "%s%s", m->wrapper, name);
    const st_tensor *t = st_find(f, text);
    if (!t) {
        snprintf(text, sizeof text, "%s%s%s", m->wrapper, m->family->prefix, name);
        t = st_find(f, text);
    }
    return t;
}

/* The same by the name of today or by that of old files. */
const st_tensor *hf_find_named(const hf_map *m, const st_file *f, const char *name)
{
    char old[2 * HF_NAME];
    const st_tensor *t = find_prefixed(m, f, name);
    for (const model_renamed *r = m->family->renamed; !t && r && r->then; r++)
        if (renamed(old, name, r->now, r->then))
            t = find_prefixed(m, f, old);
    return t;
}

/* Is this one of ours tied in this model, since it is no parameter of its own? */
int hf_is_tied(const hf_map *m, const model_tensor *t)
{
    return t->tied && hf_find_whole(m, t->ours[0]) < 0;
}

/* Does it come with an adapter, or is it to be written with one? */
int hf_is_saved(const hf_map *m, const char *ours)
{
    return m->asked->tuning.rank && graph_pattern_matches(m->asked->tuning.saved, ours);
}

/* Piece i of theirs, or what is tied to it and stands for it. */
const st_tensor *hf_find_tensor(const hf_map *m, const st_file *f, const hf_row *r, int i)
{
    char name[HF_NAME], ours[HF_NAME];
    const st_tensor *t = hf_find_named(m, f, hf_form(name, r->t->theirs[i], r->layer));
    hf_form(ours, r->t->ours[0], r->layer);
    for (const model_tensor *other = m->family->tensors; !t && (other->ours[0] || other->theirs[0]); other++)
        if (hf_is_tied(m, other) && !strcmp(other->tied, ours))
            t = hf_find_named(m, f, other->theirs[0]);
    return t;
}

/* Piece `piece` of a row on their side, without and with what stands in front. */
void hf_name_piece(char *out, size_t size, const hf_map *m, const hf_row *r, int piece, int prefixed)
{
    char name[HF_NAME];
    snprintf(out, size, "%s%s", prefixed && !(r->t->flags & MODEL_BARE) ? m->family->prefix : "",
             hf_form(name, r->t->theirs[piece], r->layer));
}

int model_tensor_pieces(const model_config *c, const char *ours)
{
    hf_map m = { .c = c };
    hf_row r;
    int piece;
    if (!model_family_of(&m.family, c) && !hf_find_row(&m, ours, &r, &piece))
        return hf_pieces_of(r.t->theirs);
    gt_message_clear();
    return 1;
}

gt_status model_tensor_piece(char *out, size_t size, const model_config *c, const char *ours, int piece)
{
    hf_map m = { .c = c };
    hf_row r;
    int own;
    gt_status st = model_family_of(&m.family, c);
    if (!st)
        st = hf_find_row(&m, ours, &r, &own);
    if (!st && r.t->outputs)
        st = gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' is several of unlike sizes in files", ours, c->name);
    if (!st)
        hf_name_piece(out, size, &m, &r, piece, 0);
    return st;
}

gt_status model_tensor_name(char *out, size_t size, const model_config *c, const char *ours, int *transposed)
{
    hf_map m = { .c = c };
    hf_row r;
    int piece, layer, found = 0;
    gt_status st = model_family_of(&m.family, c);
    if (!st)
        st = hf_find_row(&m, ours, &r, &piece);
    if (st == GT_UNSUPPORTED && m.family) {     /* a piece of ours, by their name */
        for (r.t = m.family->tensors; !found && (r.t->ours[0] || r.t->theirs[0]); r.t += !found)
            for (piece = 0; !found && r.t->ours[0] && piece < hf_pieces_of(r.t->theirs); piece += !found)
                found = hf_matches(r.t->theirs[piece], ours, &layer);
        if (found) {
            gt_message_clear();
            r.layer = layer;
            st = GT_OK;
        }
    } else if (!st && hf_pieces_of(r.t->theirs) > 1) {
        st = gt_fail(GT_UNSUPPORTED, "tensor '%s' of model '%s' is several in files", ours, c->name);
    }
    if (st)
        return st;
    *transposed = (r.t->flags & MODEL_TRANSPOSED) != 0;
    hf_name_piece(out, size, &m, &r, piece, 1);
    return GT_OK;
}

/* ---- pieces --------------------------------------------------------------------------------- */

gt_status hf_measure(const hf_map *m, const hf_row *r, hf_matrix *out)
{
    char name[HF_NAME];
    *out = (hf_matrix){ .ours = hf_pieces_of(r->t->ours), .theirs = hf_pieces_of(r->t->theirs) };
    for (int i = 0; i < out->ours; i++) {
        const int at = hf_find_whole(m, hf_form(name, r->t->ours[i], r->layer));
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
                   hf_form(name, r->t->ours[0], r->layer), m->c->name, out->theirs);
}

int hf_is_transposed(const hf_row *r, const hf_matrix *x)
{
    return (r->t->flags & MODEL_TRANSPOSED) && x->rank == 2;
}

/* What piece i of theirs looks like in a file. */
shape hf_shape_theirs(const hf_row *r, const hf_matrix *x, int i, const shape *ours)
{
    const int64_t n = x->begin_theirs[i + 1] - x->begin_theirs[i];
    shape s = *ours;
    s.dim[0] = n;
    if (hf_is_transposed(r, x)) {
        s.dim[0] = x->cols;
        s.dim[1] = n;
    }
    return s;
}
