/* SPDX-License-Identifier: MIT */
/* models/lora.c - adapters in graphs: see lora.h. */
#include "models/lora.h"

#include "models/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_NAME = 128 };
static const char adapters[] = "*.lora_A.weight,*.lora_B.weight,*.lora_magnitude_vector";

void lora_train(graph *g, const model_config *c)
{
    const model_tuning *t = &c->tuning;
    graph_train(g, t->rank ? adapters : NULL, t->freeze[0] ? t->freeze : NULL);
    graph_train_too(g, t->rank && t->saved[0] ? t->saved : NULL);
    if (t->base != DTYPE_F32)
        graph_base(g, t->base);
}

/* The family's usual targets, or those asked for. */
static const char *targets_of(const model_config *c)
{
    const model_family *family;
    if (c->tuning.targets[0])
        return c->tuning.targets;
    if (model_family_of(&family, c)) {
        gt_message_clear();
        return NULL;
    }
    return family->adapted;
}

/* Is a matrix of ours one that is trained whole? */
static int is_whole(const model_config *c, const char *name)
{
    char weight[PIECE_NAME];
    snprintf(weight, sizeof weight, "%.*s.weight", PIECE_NAME - 16, name);
    return graph_pattern_matches(c->tuning.saved, weight);
}

int lora_has(const model_config *c, const char *name)
{
    const char *targets = c->tuning.rank ? targets_of(c) : NULL;
    if (!targets || is_whole(c, name))
        return 0;
    for (const char *part = name; part; part = strchr(part, '.') ? strchr(part, '.') + 1 : NULL)
        if (graph_pattern_matches(targets, part))
            return 1;
    return 0;
}

float lora_scale(const model_tuning *t)
{
    return t->rslora ? t->alpha / sqrtf((float)t->rank) : t->alpha / (float)t->rank;
}

static int matrix(graph *g, const lora_site *at, const char *part, shape s, int dim, graph_init init, float deviation)
{
    const tensor_slice whole = { 0 };
    char name[96];
    snprintf(name, sizeof name, "%s.%s", at->label, part);
    return graph_param_sliced(g, name, s, at->held.parts && at->held.dim == dim ? &at->held : &whole, init, deviation);
}

/* A matrix of which a rank of a tensor group has some of the inputs. */
static int has_some_inputs(const lora_site *at)
{
    return at->held.parts && at->held.dim == 1;
}

static void cannot_split(graph *g, const lora_site *at, const char *why)
{
    graph_fail_build(g,
                     gt_fail(GT_MISUSE,
                             "cannot split the inputs of '%s' over ranks: %s; use --tensor 1, or other --lora-targets",
                             at->label, why));
}

graph_low_rank lora_low_rank(graph *g, const model_config *c, const lora_site *at)
{
    const model_tuning *t = &c->tuning;
    const float drop = at->train ? t->dropout : 0.0f;
    char part[96];
    snprintf(part, sizeof part, "%s.lora_A", at->label);
    const int a = matrix(g, at, "lora_A.weight", shape_of(2, (int64_t)t->rank, at->in), 1, GRAPH_INIT_UNIFORM,
                         1.0f / sqrtf((float)at->in));
    const int b = matrix(g, at, "lora_B.weight", shape_of(2, at->out, (int64_t)t->rank), 0, GRAPH_INIT_ZERO, 0.0f);
    if (has_some_inputs(at) && drop > 0.0f)
        cannot_split(g, at, "--lora-dropout counts all of them");
    const int x = graph_dropout(g, part, at->x, drop);
    return (graph_low_rank){ graph_linear(g, part, x, a, -1, ACT_NONE, -1, 0.0f), b, lora_scale(t) };
}

int lora_scaled(graph *g, const model_config *c, const lora_site *at, const graph_low_rank *low, int z, int bias)
{
    char name[96];
    (void)c;
    snprintf(name, sizeof name, "%s.lora_A.weight", at->label);
    if (has_some_inputs(at))
        cannot_split(g, at, "DoRA needs the norms of whole rows");
    const int m = matrix(g, at, "lora_magnitude_vector", shape_of(1, at->out), 0, GRAPH_INIT_ONE, 0.0f);
    const int n = graph_row_norms(g, at->label, at->w, graph_value_find(g, name), low->b, low->scale);
    return graph_scale_columns(g, at->label, z, m, n, bias);
}

/* ---- matrices that are several in files ------------------------------------------------------- */

/* The name of piece i of our matrix `name`, as files have it: "...self.query" of "...self.qkv". 0: there is none. */
static int piece_at(char out[PIECE_NAME], const model_config *c, const char *name, int i)
{
    char ours[PIECE_NAME];
    snprintf(ours, sizeof ours, "%.*s.weight", PIECE_NAME - 16, name);
    const int pieces = model_tensor_pieces(c, ours);
    if (pieces < 2 || i >= pieces)
        return 0;
    if (model_tensor_piece(out, PIECE_NAME, c, ours, i)) {
        gt_message_clear();
        return 0;
    }
    char *end = strstr(out, ".weight");
    if (end)
        *end = 0;
    return pieces;
}

int lora_joined(const model_config *c, const char *name)
{
    char piece[PIECE_NAME];
    for (int i = 0; c->tuning.rank && !is_whole(c, name) && piece_at(piece, c, name, i); i++)
        if (lora_has(c, piece))
            return piece_at(piece, c, name, 0);
    return 0;
}

int lora_add_pieces(graph *g, const model_config *c, const lora_site *at, int y)
{
    char piece[PIECE_NAME];
    const int pieces = piece_at(piece, c, at->label, 0);
    const int64_t width = (at->held.parts ? at->held.count : at->out / pieces);
    if (c->tuning.dora || (at->held.parts && at->held.parts != pieces)) {
        graph_fail_build(g, gt_fail(GT_UNSUPPORTED,
                                    "cannot adapt '%s': it is several matrices in files, and those have adapters here "
                                    "without DoRA alone; leave --dora out, or name other --lora-targets",
                                    at->label));
        return -1;
    }
    for (int i = 0; piece_at(piece, c, at->label, i); i++) {
        lora_site one = *at;
        if (!lora_has(c, piece))
            continue;
        one.label = piece;
        one.out = at->out / pieces;
        one.held.parts = at->held.parts > 0;
        const graph_low_rank low = lora_low_rank(g, c, &one);
        const int u = graph_linear(g, piece, low.h, low.b, -1, ACT_NONE, -1, 0.0f);
        y = graph_add_columns(g, piece, y, u, i * width, low.scale);
    }
    return y;
}

/* ---- checking -------------------------------------------------------------------------------- */

static size_t alike(const char *a, const char *b)
{
    size_t best = 0;
    for (const char *from = b; *from; from++) {
        size_t n = 0;
        while (a[n] && a[n] == from[n])
            n++;
        best = n > best ? n : best;
    }
    return best;
}

/* Appends up to three of the names that have most in common with a pattern, without the numbers of
 * layers, so that those of one layer stand for all. */
static void near_names(char *out, size_t size, const graph *g, const char *pattern)
{
    const char *shown[3] = { NULL };
    size_t at = 0;
    out[0] = 0;
    for (int k = 0; k < 3; k++) {
        const char *best = NULL;
        size_t most = 0;
        for (int i = 0; i < graph_param_count(g); i++) {
            const char *name = graph_param_at(g, i)->name;
            const size_t n = alike(pattern[0] == '*' ? pattern + 1 : pattern, name) + 1;
            if ((!best || n > most) && name != shown[0] && name != shown[1]) {
                best = name;
                most = n;
            }
        }
        if (best)
            at += (size_t)snprintf(out + at, size - at, "%s'%s'", k ? ", " : "", best);
        shown[k] = best;
        if (at >= size)
            return;
    }
}

/* The i-th of some patterns. */
static int pattern_at(char one[MODEL_PATTERNS], const char *patterns, int i)
{
    for (; *patterns; i--) {
        const size_t n = strcspn(patterns, ",");
        if (!i) {
            snprintf(one, MODEL_PATTERNS, "%.*s", (int)n, patterns);
            return 1;
        }
        patterns += n + (patterns[n] == ',');
    }
    return 0;
}

static int freezes(const graph *g, const char *pattern)
{
    for (int i = 0; i < graph_param_count(g); i++)
        if (graph_pattern_matches(pattern, graph_param_at(g, i)->name))
            return 1;
    return 0;
}

/* Does a target pattern name a matrix that has an adapter? */
static int adapts(const graph *g, const model_config *c, const char *pattern)
{
    model_config one = *c;
    snprintf(one.tuning.targets, sizeof one.tuning.targets, "%s", pattern);
    for (int i = 0; i < graph_param_count(g); i++) {
        char name[96];
        const char *of = graph_param_at(g, i)->name, *end = strstr(of, ".lora_A.weight");
        snprintf(name, sizeof name, "%.*s", end ? (int)(end - of) : 0, of);
        if (end && lora_has(&one, name))
            return 1;
    }
    return 0;
}

static gt_status check_patterns(const graph *g, const model_config *c)
{
    const model_tuning *t = &c->tuning;
    char one[MODEL_PATTERNS], names[256];
    for (int i = 0; pattern_at(one, t->freeze, i); i++)
        if (!freezes(g, one)) {
            near_names(names, sizeof names, g, one);
            return gt_fail(GT_MISUSE, "--freeze '%s' matches no tensor of '%s'; near it are %s", one, c->name, names);
        }
    for (int i = 0; t->rank && pattern_at(one, t->targets, i); i++)
        if (!adapts(g, c, one)) {
            near_names(names, sizeof names, g, one);
            return gt_fail(GT_MISUSE, "--lora-targets '%s' matches no matrix of a linear layer of '%s'; near it are %s",
                           one, c->name, names);
        }
    for (int i = 0; i < graph_param_count(g); i++) {
        const char *of = graph_param_at(g, i)->name, *end = strstr(of, ".lora_A.weight");
        char theirs[160];
        int transposed;
        if (!end)
            continue;
        snprintf(one, sizeof one, "%.*s.weight", (int)(end - of), of);
        const gt_status st = model_tensor_name(theirs, sizeof theirs, c, one, &transposed);
        if (st)
            return gt_fail_in(st, "no adapter can be made for it; name others with --lora-targets");
    }
    if (!graph_trained_elements(g))
        return gt_fail(GT_MISUSE, "nothing of '%s' is left to train: every tensor is frozen", c->name);
    return GT_OK;
}

gt_status lora_check(const model_config *c)
{
    const model_tuning *t = &c->tuning;
    graph *g = NULL;
    if (!t->rank && !t->freeze[0])
        return GT_OK;
    if (t->rank && !targets_of(c))
        return gt_fail(GT_MISUSE, "which matrices of '%s' to adapt is not known; say --lora-targets", c->name);
    if (t->dora && t->dropout > 0.0f)
        return gt_fail(GT_UNSUPPORTED, "DoRA is computed here without dropout; use --lora-dropout 0");
    model_config whole = *c;
    whole.vocab = whole.vocab ? whole.vocab : 1;
    gt_status st = graph_create(&g, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(g, &whole, 0, 0);
    if (!st)
        st = check_patterns(g, c);
    graph_release(g);
    return st;
}

gt_status lora_save(model_config *c, const char *names)
{
    char *saved = c->tuning.saved;
    const size_t n = strlen(saved), more = strlen(names);
    if (n + more + 2 > MODEL_SAVED)
        return gt_fail(GT_UNSUPPORTED, "'%s': what would be trained beside adapters has too many names", c->name);
    if (more)
        snprintf(saved + n, MODEL_SAVED - n, "%s%s", n ? "," : "", names);
    return GT_OK;
}

/* ---- beginning ---------------------------------------------------------------------------------- */

int lora_is_adapter(const graph_param_info *info)
{
    return graph_pattern_matches(adapters, info->name);
}

int lora_is_base(const graph_param_info *info)
{
    return !lora_is_adapter(info);
}

/* The norms of W's rows where parameter i is the magnitude vector of W. */
static gt_status begin_magnitude(params *p, int i)
{
    const graph_param_info *info = params_info(p, i);
    char name[96];
    snprintf(name, sizeof name, "%.*s.weight", (int)(strlen(info->name) - strlen(".lora_magnitude_vector")),
             info->name);
    const int w = params_find(p, name);
    if (w < 0)
        return gt_fail(GT_MISMATCH, "cannot begin '%s': there is no '%s'", info->name, name);
    const int64_t rows = shape_count(&info->shape), all = shape_count(&params_info(p, w)->shape);
    float *x = malloc((size_t)(all + rows) * sizeof *x);
    if (!x)
        return gt_fail(GT_NO_MEMORY, "cannot begin '%s': no memory for '%s'", info->name, name);
    float *norm = x + all;
    gt_status st = params_read(p, w, x);
    for (int64_t r = 0; !st && r < rows; r++) {
        double sum = 0.0;
        for (int64_t k = 0; k < all / rows; k++)
            sum += (double)x[r * (all / rows) + k] * (double)x[r * (all / rows) + k];
        norm[r] = (float)sqrt(sum);
    }
    if (!st)
        st = params_write(p, i, norm);
    free(x);
    return st;
}

gt_status lora_begin(const model_config *c, params *p, uint64_t seed)
{
    gt_status st = c->tuning.rank ? params_init_some(p, seed, lora_is_adapter) : GT_OK;
    for (int i = 0; !st && c->tuning.dora && i < params_count(p); i++) {
        const char *name = params_info(p, i)->name, *at = strstr(name, ".lora_magnitude_vector");
        if (at && !at[strlen(".lora_magnitude_vector")])
            st = begin_magnitude(p, i);
    }
    return st;
}

/* ---- merging ------------------------------------------------------------------------------------ */

/* A tensor of the adapter of a matrix, whole; *out is freed by the caller. */
static gt_status read_part(params *p, const char *label, const char *part, float **out)
{
    char full[PIECE_NAME + 32];
    snprintf(full, sizeof full, "%s.%s", label, part);
    const int i = params_find(p, full);
    *out = NULL;
    if (i < 0)
        return gt_fail(GT_MISMATCH, "cannot merge '%s': tensor '%s' is not here", label, full);
    *out = malloc((size_t)shape_count(&params_info(p, i)->shape) * sizeof **out);
    return *out ? params_read(p, i, *out) : gt_fail(GT_NO_MEMORY, "cannot merge '%s': no memory for '%s'", label, full);
}

/* A row of w becomes w + s b a, scaled to the length m (NULL: not). */
static void merge_row(float *w, int64_t in, const float *a, const float *b, int rank, double s, const float *m)
{
    double sum = 0.0;
    for (int64_t k = 0; k < in; k++) {
        double x = (double)w[k];
        for (int r = 0; r < rank; r++)
            x += s * (double)b[r] * (double)a[r * in + k];
        w[k] = (float)x;
        sum += x * x;
    }
    for (int64_t k = 0; m && k < in; k++)
        w[k] = (float)((double)w[k] * (double)*m / sqrt(sum));
}

/* The rows of one matrix, of `rows` of `in` numbers, that has the adapter `label`. */
static gt_status merge_one(const model_config *c, params *p, const char *label, float *all, int64_t rows, int64_t in)
{
    const model_tuning *t = &c->tuning;
    float *a = NULL, *b = NULL, *m = NULL;
    gt_status st = read_part(p, label, "lora_A.weight", &a);
    if (!st)
        st = read_part(p, label, "lora_B.weight", &b);
    if (!st && t->dora)
        st = read_part(p, label, "lora_magnitude_vector", &m);
    for (int64_t o = 0; !st && o < rows; o++)
        merge_row(all + o * in, in, a, b + o * t->rank, t->rank, (double)lora_scale(t), m ? m + o : NULL);
    free(a);
    free(b);
    free(m);
    return st;
}

gt_status lora_merge(const model_config *c, params *p, const char *name, float *all)
{
    const char *end = strstr(name, ".weight");
    const int i = params_find(p, name);
    char label[PIECE_NAME], piece[PIECE_NAME];
    gt_status st = GT_OK;
    snprintf(label, sizeof label, "%.*s", end ? (int)(end - name) : 0, name);
    if (!end || i < 0 || params_info(p, i)->table || params_info(p, i)->shape.rank != 2)
        return GT_OK;
    const shape s = params_info(p, i)->shape;
    const int pieces = lora_joined(c, label);
    for (int k = 0; !st && k < pieces; k++)
        if (piece_at(piece, c, label, k) && lora_has(c, piece))
            st = merge_one(c, p, piece, all + k * (s.dim[0] / pieces) * s.dim[1], s.dim[0] / pieces, s.dim[1]);
    return st || pieces || !lora_has(c, label) ? st : merge_one(c, p, label, all, s.dim[0], s.dim[1]);
}
