/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_load.c - from pieces in any files to what this rank holds.
 *
 *   params-00000   h.0 rows 0-15   ──┐
 *   params-00001   h.0 rows 16-31  ──┴─►  h.0, all rows  ──►  this rank's columns  ──►  device
 *
 * By way of the full tensor, one at a time: then every cut there was goes with every cut there
 * is. An element that two pieces hold must be the same in both.                           */
#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/trace.h"
#include "host/train/checkpoint_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shard {
    st_file *file;
    char *path;
    json_t *pieces;                     /* NULL: all whole */
} shard;

/* The files of one kind. */
typedef struct source {
    const char *folder;
    shard *shards;
    int count;
    float *room;                        /* the largest full tensor     */
    unsigned char *filled;              /* a bit for each element of it */
} source;

static void source_close(source *s)
{
    for (int i = 0; i < s->count; i++) {
        st_close(s->shards[i].file);
        json_decref(s->shards[i].pieces);
        free(s->shards[i].path);
    }
    free(s->shards);
    free(s->room);
    free(s->filled);
    *s = (source){ 0 };
}

static gt_status open_shard(shard *s, const char *folder, const char *name)
{
    json_error_t error;
    s->path = gt_path_join(folder, name);
    gt_status st = s->path ? st_open(&s->file, s->path) : checkpoint_no_memory(folder);
    const char *text = st ? NULL : st_metadata(s->file, "pieces");
    if (text && !(s->pieces = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        st = gt_fail(GT_FORMAT, "cannot load '%s': \"pieces\": %s", s->path, error.text);
    return st;
}

static gt_status source_open(source *s, const char *folder, checkpoint_kind kind)
{
    checkpoint_info info;
    checkpoint_file *files;
    checkpoint_kind has;
    int count;
    *s = (source){ .folder = folder };
    gt_status st = checkpoint_manifest_read(folder, &info, &files, &count);
    if (!st && !(s->shards = calloc((size_t)count + 1, sizeof *s->shards)))
        st = checkpoint_no_memory(folder);
    for (int i = 0; !st && i < count; i++)
        if (checkpoint_file_kind(files[i].name, &has) && has == kind)
            st = open_shard(&s->shards[s->count++], folder, files[i].name);
    free(files);
    if (!st && !s->count)
        st = gt_fail(GT_NOT_FOUND, "cannot load '%s': it holds no %s", folder,
                     kind == CHECKPOINT_PARAMS ? "parameters" : "optimizer's state");
    return st;
}

static gt_status source_room(source *s, const params *p)
{
    int64_t most = OPTIM_STATE_FLOATS;
    for (int i = 0; i < params_count(p); i++) {
        const int64_t n = shape_count(&params_info(p, i)->full);
        most = n > most ? n : most;
    }
    s->room = malloc(4 * (size_t)most);
    s->filled = malloc((size_t)most / 8 + 1);
    return s->room && s->filled ? GT_OK : checkpoint_no_memory(s->folder);
}

/* ---- one tensor ----------------------------------------------------------------------------- */

/* Puts n elements at `at`; -1 if one was there with another value, else how many are new. */
static int64_t fill(source *s, int64_t at, const unsigned char *from, int64_t n)
{
    int64_t fresh = 0;
    for (int64_t i = at; i < at + n; i++, from += 4) {
        const unsigned char bit = (unsigned char)(1u << (i % 8));
        if (!(s->filled[i / 8] & bit)) {
            s->filled[i / 8] |= bit;
            memcpy(&s->room[i], from, 4);
            fresh++;
        } else if (memcmp(&s->room[i], from, 4)) {
            return -1;
        }
    }
    return fresh;
}

static int64_t fill_piece(source *s, const checkpoint_piece *p, const void *data)
{
    const unsigned char *from = data;
    int64_t fresh = 0;
    for (int64_t at = p->begin, full; at < p->end; ) {
        int64_t n = tensor_slice_run(&p->full, &p->slice, at, &full);
        n = n < p->end - at ? n : p->end - at;
        const int64_t more = fill(s, full, from, n);
        if (more < 0)
            return -1;
        fresh += more;
        at += n;
        from += 4 * n;
    }
    return fresh;
}

/* The full tensor into s->room. */
static gt_status gather(source *s, const char *name, const shape *full)
{
    const int64_t count = shape_count(full);
    int64_t have = 0;
    int found = 0;
    memset(s->filled, 0, (size_t)count / 8 + 1);
    for (int i = 0; i < s->count; i++) {
        const shard *from = &s->shards[i];
        const st_tensor *t = st_find(from->file, name);
        checkpoint_piece p;
        if (!t)
            continue;
        gt_status st = checkpoint_piece_read(&p, from->pieces, t, full, from->path);
        if (st)
            return st;
        const int64_t fresh = fill_piece(s, &p, t->data);
        if (fresh < 0)
            return gt_fail(GT_FORMAT, "cannot load '%s': tensor '%s' differs from what another file "
                           "holds of it", from->path, name);
        have += fresh;
        found = 1;
    }
    if (!found)
        return gt_fail(GT_MISMATCH, "cannot load '%s': tensor '%s' is missing; is it another "
                       "model's checkpoint?", s->folder, name);
    return have == count ? GT_OK
        : gt_fail(GT_MISMATCH, "cannot load '%s': of tensor '%s', %lld elements of %lld are missing",
                  s->folder, name, (long long)(count - have), (long long)count);
}

/* The same, all of it finite. */
static gt_status gather_finite(source *s, const char *name, const shape *full)
{
    gt_status st = gather(s, name, full);
    for (int64_t i = 0; !st && i < shape_count(full); i++)
        if (!isfinite(s->room[i]))
            st = gt_fail(GT_NUMERIC, "cannot load '%s': tensor '%s' holds a value that is not "
                         "finite", s->folder, name);
    return st;
}

/* ---- all of them ------------------------------------------------------------------------------ */

static gt_status load_params(const char *folder, params *p)
{
    source s;
    gt_status st = source_open(&s, folder, CHECKPOINT_PARAMS);
    if (!st)
        st = source_room(&s, p);
    gt_activity a;
    gt_activity_begin(&a, "loading the weights of a checkpoint", "tensors", (uint64_t)params_count(p));
    for (int i = 0; !st && i < params_count(p); i++) {
        st = gt_activity_at(&a, (uint64_t)i);
        if (!st)
            st = gather_finite(&s, params_info(p, i)->name, &params_info(p, i)->full);
        if (!st)
            st = params_write_full(p, i, s.room);
    }
    gt_activity_end(&a);
    source_close(&s);
    return st;
}

/* The norm and the loss of a step that fp16 skipped are not finite, and that is no fault; what
 * the next step computes with must be. */
static gt_status load_scalars(source *s, optim *o)
{
    static const int used[] = { OPTIM_STEP, OPTIM_GRAD_SCALE, OPTIM_LOSS_SCALE, OPTIM_GOOD_STEPS };
    const shape scalars = shape_of(1, (int64_t)OPTIM_STATE_FLOATS);
    gt_status st = gather(s, "scalars", &scalars);
    for (size_t i = 0; !st && i < sizeof used / sizeof *used; i++)
        if (!isfinite(s->room[used[i]]))
            st = gt_fail(GT_NUMERIC, "cannot load '%s': scalar %d is not finite", s->folder, used[i]);
    return st ? st : optim_state_write(o, s->room);
}

static int holds_any(const source *s, const char *moment)
{
    const size_t n = strlen(moment);
    for (int i = 0; i < s->count; i++)
        for (size_t k = 0; k < st_count(s->shards[i].file); k++) {
            const char *name = st_at(s->shards[i].file, k)->name;
            if (!strncmp(name, moment, n) && name[n] == '.')
                return 1;
        }
    return 0;
}

/* AdamW's first moment would pass for SGD's momentum, which it is not. An optimizer that keeps none
 * needs none of what there is. */
static gt_status check_moments(const source *s, params *p, int moments)
{
    char name[96];
    for (int m = 0; m < moments && params_count(p); m++)
        if (!holds_any(s, checkpoint_moments[m]))
            return gt_fail(GT_MISMATCH, "cannot load '%s': it holds no %s moments, which this optimizer "
                           "keeps; go on with the --optimizer and --momentum it was trained with", s->folder,
                           checkpoint_moments[m]);
    for (int m = moments; moments && m < 2 && params_count(p); m++) {
        snprintf(name, sizeof name, "%s.%s", checkpoint_moments[m], params_info(p, 0)->name);
        for (int i = 0; i < s->count; i++)
            if (st_find(s->shards[i].file, name))
                return gt_fail(GT_MISMATCH, "cannot load '%s': it holds %s moments, which this "
                               "optimizer does not keep; go on with the --optimizer and --momentum it "
                               "was trained with", s->folder, checkpoint_moments[m]);
    }
    return GT_OK;
}

static gt_status load_optimizer(const char *folder, params *p, optim *o)
{
    source s;
    char name[96];
    gt_status st = source_open(&s, folder, CHECKPOINT_OPTIMIZER);
    if (!st)
        st = check_moments(&s, p, optim_moments(o));
    if (!st)
        st = source_room(&s, p);
    gt_activity a;
    gt_activity_begin(&a, "loading the optimizer's state", "tensors",
                      (uint64_t)params_count(p) * (uint64_t)optim_moments(o));
    for (int m = 0; m < optim_moments(o); m++)
        for (int i = 0; !st && i < params_count(p); i++) {
            st = gt_activity_at(&a, a.done + 1);
            if (st)
                break;
            snprintf(name, sizeof name, "%s.%s", checkpoint_moments[m], params_info(p, i)->name);
            st = gather_finite(&s, name, &params_info(p, i)->full);
            if (!st)
                st = optim_moment_write_full(o, i, m, s.room);
        }
    gt_activity_end(&a);
    if (!st)
        st = load_scalars(&s, o);
    source_close(&s);
    return st;
}

gt_status checkpoint_load(const char *path, params *p, optim *o)
{
    const uint64_t traced = gt_trace_begin();
    gt_status st = load_params(path, p);
    if (!st && o)
        st = load_optimizer(path, p, o);
    gt_trace_end(GT_TRACE_HOST, GT_TRACK_HOST, "load a checkpoint", traced);
    return st;
}

static int declares(const graph *g, const char *name)
{
    for (int i = 0; i < graph_param_count(g); i++)
        if (!strcmp(graph_param_at(g, i)->name, name))
            return 1;
    return 0;
}

gt_status checkpoint_check_model(const char *path, const graph *whole)
{
    source s;
    gt_status st = source_open(&s, path, CHECKPOINT_PARAMS);
    for (int i = 0; !st && i < s.count; i++)
        for (size_t k = 0; !st && k < st_count(s.shards[i].file); k++) {
            const char *name = st_at(s.shards[i].file, k)->name;
            if (!declares(whole, name))
                st = gt_fail(GT_MISMATCH, "cannot load '%s': it holds a tensor '%s', the model does "
                             "not; is it another model's checkpoint?", path, name);
        }
    source_close(&s);
    return st;
}
