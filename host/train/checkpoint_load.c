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
#include "host/base/log.h"
#include "host/base/trace.h"
#include "host/base/workers.h"
#include "host/tensor/q8.h"
#include "host/train/checkpoint_private.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shard {
    st_file *file;
    char *path;
    json_t *pieces;                     /* NULL: all whole */
    int own;                            /* CHECKPOINT_OWN */
} shard;

/* The files of one owner. */
typedef struct source {
    const char *folder;
    shard *shards;
    int count;
    float *room, *held;                 /* the largest full tensor; what is held of it, or a file has */
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
    free(s->held);
    free(s->filled);
    *s = (source){ 0 };
}

static gt_status open_shard(shard *s, const char *folder, const char *name)
{
    json_error_t error;
    s->path = gt_path_join(folder, name);
    gt_status st = s->path ? st_open(&s->file, s->path) : checkpoint_no_memory(folder);
    const char *text = st ? NULL : st_metadata(s->file, "pieces");
    s->own = !st && st_metadata(s->file, CHECKPOINT_OWN_KEY);
    if (text && !(s->pieces = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        st = gt_fail(GT_FORMAT, "cannot load '%s': \"pieces\": %s", s->path, error.text);
    return st;
}

/* All tensors of the model: those that are trained and those that are frozen, whichever a run has frozen. */
static int is_of(const char *owner, const char *has)
{
    return !strcmp(has, owner) || (!strcmp(owner, CHECKPOINT_PARAMS) && !strcmp(has, CHECKPOINT_BASE));
}

/* GT_NOT_FOUND if there is no file of that owner. */
static gt_status source_open(source *s, const char *folder, const char *owner, const char *what)
{
    checkpoint_info info;
    checkpoint_file *files;
    char has[CHECKPOINT_OWNER];
    int count;
    *s = (source){ .folder = folder };
    gt_status st = checkpoint_manifest_read(folder, &info, &files, &count);
    if (!st && !(s->shards = calloc((size_t)count + 1, sizeof *s->shards)))
        st = checkpoint_no_memory(folder);
    for (int i = 0; !st && i < count; i++)
        if (checkpoint_file_owner(files[i].name, has) && is_of(owner, has))
            st = open_shard(&s->shards[s->count++], folder, files[i].name);
    free(files);
    if (!st && !s->count)
        st = gt_fail(GT_NOT_FOUND, "cannot load '%s': it holds no %s", folder, what);
    return st;
}

/* Room for full tensors of so many elements. */
static gt_status source_room(source *s, int64_t most)
{
    s->room = malloc(4 * (size_t)most + 4);
    s->held = malloc(4 * (size_t)most + 4);
    s->filled = malloc((size_t)most / 8 + 1);
    return s->room && s->held && s->filled ? GT_OK : checkpoint_no_memory(s->folder);
}

/* ---- one tensor ----------------------------------------------------------------------------- */

/* What becomes of an element that another file has as well. */
typedef enum meeting { MUST_AGREE, ADDS, FIRST_STAYS } meeting;

/* Marks [at, at + n), if none of it was before: whole bytes at a time. */
static int mark_fresh(source *s, int64_t at, int64_t n)
{
    const int64_t end = at + n, first = (at + 7) / 8, last = end / 8;
    if (first >= last)                  /* within two bytes: one by one */
        return 0;
    for (int64_t i = at; i < 8 * first; i++)
        if (s->filled[i / 8] >> (i % 8) & 1)
            return 0;
    for (int64_t i = first; i < last; i++)
        if (s->filled[i])
            return 0;
    for (int64_t i = 8 * last; i < end; i++)
        if (s->filled[i / 8] >> (i % 8) & 1)
            return 0;
    for (int64_t i = at; i < 8 * first; i++)
        s->filled[i / 8] |= (unsigned char)(1u << (i % 8));
    memset(s->filled + first, 0xff, (size_t)(last - first));
    for (int64_t i = 8 * last; i < end; i++)
        s->filled[i / 8] |= (unsigned char)(1u << (i % 8));
    return 1;
}

/* Puts n elements at `at`; -1 if one was there with another value and must agree, else how many are new. */
static int64_t fill(source *s, int64_t at, const unsigned char *from, int64_t n, meeting how)
{
    int64_t fresh = 0;
    if (mark_fresh(s, at, n)) {
        memcpy(&s->room[at], from, 4 * (size_t)n);
        return n;
    }
    for (int64_t i = at; i < at + n; i++, from += 4) {
        const unsigned char bit = (unsigned char)(1u << (i % 8));
        if (!(s->filled[i / 8] & bit)) {
            s->filled[i / 8] |= bit;
            memcpy(&s->room[i], from, 4);
            fresh++;
        } else if (how == ADDS) {
            float more;
            memcpy(&more, from, 4);
            s->room[i] += more;
        } else if (how == MUST_AGREE && memcmp(&s->room[i], from, 4)) {
            return -1;
        }
    }
    return fresh;
}

/* Numbers of another type than fp32 become it, exactly, in s->held. */
static const void *widened(source *s, const checkpoint_piece *p, const void *data)
{
    const shape held = tensor_slice_shape(&p->full, &p->slice);
    if (p->type == DTYPE_F32)
        return data;
    if (p->type == DTYPE_Q8)
        q8_load(s->held, data, q8_of(&held, &p->slice));
    for (int64_t i = 0; p->type != DTYPE_Q8 && i < p->end - p->begin; i++) {
        uint16_t bits;                  /* in files not always on whole ones */
        memcpy(&bits, (const char *)data + 2 * i, sizeof bits);
        s->held[i] = dtype_load(p->type, &bits, 0);
    }
    return s->held;
}

static int64_t fill_piece(source *s, const checkpoint_piece *p, const void *data, meeting how)
{
    const unsigned char *from = widened(s, p, data);
    int64_t fresh = 0;
    for (int64_t at = p->begin, full; at < p->end;) {
        int64_t n = tensor_slice_run(&p->full, &p->slice, at, &full);
        n = n < p->end - at ? n : p->end - at;
        const int64_t more = fill(s, full, from, n, how);
        if (more < 0)
            return -1;
        fresh += more;
        at += n;
        from += 4 * n;
    }
    return fresh;
}

/* The full tensor where it lies in a file, if that is the only one to have any of it, whole and in fp32; else NULL. */
static const float *lies_whole(const source *s, const char *name, const shape *full)
{
    const float *only = NULL;
    for (int i = 0; i < s->count; i++) {
        checkpoint_piece p;
        const st_tensor *t = st_find(s->shards[i].file, name);
        if (!t)
            continue;
        if (only || t->type != DTYPE_F32 || (uintptr_t)t->data % sizeof *only
            || checkpoint_piece_read(&p, s->shards[i].pieces, t, full, s->shards[i].path)
            || !checkpoint_piece_is_whole(&p)) {
            gt_message_clear();         /* what is wrong with it says gather() */
            return NULL;
        }
        only = (const float *)(const void *)t->data;
    }
    return only;
}

/* The full tensor into *out: s->room, or a file. */
static gt_status gather(source *s, const char *name, const shape *full, meeting how, const float **out)
{
    const int64_t count = shape_count(full);
    int64_t have = 0;
    int found = 0;
    *out = lies_whole(s, name, full);
    if (*out)
        return GT_OK;
    *out = s->room;
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
        const int64_t fresh = fill_piece(s, &p, t->data, from->own ? FIRST_STAYS : how);
        if (fresh < 0)
            return gt_fail(GT_FORMAT,
                           "cannot load '%s': tensor '%s' differs from what another file "
                           "holds of it",
                           from->path, name);
        have += fresh;
        found = 1;
    }
    if (!found)
        return gt_fail(GT_MISMATCH,
                       "cannot load '%s': tensor '%s' is missing; is it another "
                       "model's checkpoint?",
                       s->folder, name);
    return have == count ? GT_OK
                         : gt_fail(GT_MISMATCH, "cannot load '%s': of tensor '%s', %lld elements of %lld are missing",
                                   s->folder, name, (long long)(count - have), (long long)count);
}

enum { LOOK = 1 << 18 };                /* elements a turn */

typedef struct look {
    const float *x;
    int64_t count;
    atomic_int bad;
} look;

/* By the bits, which compilers turn into vector instructions. */
static void look_at(void *context, size_t turn)
{
    look *l = context;
    const int64_t first = (int64_t)turn * LOOK, end = first + LOOK < l->count ? first + LOOK : l->count;
    uint32_t bad = 0;
    for (int64_t i = first; i < end; i++) {
        uint32_t bits;
        memcpy(&bits, &l->x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (bad)
        atomic_store(&l->bad, 1);
}

/* On all cores, since most of it is to wait for the file's pages. */
static gt_status check_finite(const source *s, const char *name, const float *x, int64_t count)
{
    look l = { .x = x, .count = count };
    gt_workers_run((size_t)((count + LOOK - 1) / LOOK), look_at, &l);
    if (atomic_load(&l.bad))
        return gt_fail(GT_NUMERIC,
                       "cannot load '%s': tensor '%s' holds a value that is not "
                       "finite",
                       s->folder, name);
    return GT_OK;
}

/* ---- all of them ------------------------------------------------------------------------------ */

gt_status checkpoint_load_some(const char *folder, params *p, int (*wants)(const graph_param_info *info))
{
    source s;
    int64_t most = 1;
    gt_status st = source_open(&s, folder, CHECKPOINT_PARAMS, "parameters");
    for (int i = 0; i < params_count(p); i++) {
        const int64_t n = shape_count(&params_info(p, i)->full);
        most = n > most ? n : most;
    }
    if (!st)
        st = source_room(&s, most);
    gt_activity a;
    gt_activity_begin(&a, "loading the weights of a checkpoint", "tensors", (uint64_t)params_count(p));
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        if (wants && !wants(info))
            continue;
        st = gt_activity_at(&a, (uint64_t)i);
        const float *full = NULL;
        if (!st)
            st = gather(&s, info->name, &info->full, MUST_AGREE, &full);
        if (!st)
            st = check_finite(&s, info->name, full, shape_count(&info->full));
        if (!st)
            st = params_write_full(p, i, full);
    }
    gt_activity_end(&a);
    source_close(&s);
    return st;
}

/* ---- the state of an owner --------------------------------------------------------------------- */

/* Whether the tensors that lie there are such as this owner keeps. */
static gt_status check_names(const source *s, const checkpoint_state *state)
{
    size_t most = 0, count = 0;
    if (!state->check)
        return GT_OK;
    for (int i = 0; i < s->count; i++)
        most += st_count(s->shards[i].file);
    const char **names = malloc((most + 1) * sizeof *names);
    if (!names)
        return checkpoint_no_memory(s->folder);
    for (int i = 0; i < s->count; i++)
        for (size_t k = 0; k < st_count(s->shards[i].file); k++)
            names[count++] = st_at(s->shards[i].file, k)->name;
    gt_status st = state->check(state->context, names, (int)count);
    free(names);
    return st ? gt_fail_in(st, "cannot load '%s'", s->folder) : GT_OK;
}

static int same_piece(const checkpoint_piece *a, const checkpoint_piece *b)
{
    return a->type == b->type && shape_equal(&a->full, &b->full) && a->begin == b->begin && a->end == b->end
           && tensor_slice_equal(&a->slice, &b->slice);
}

static int anywhere(const source *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (st_find(s->shards[i].file, name))
            return 1;
    return 0;
}

/* The file that this rank wrote, if it holds all this rank's entries as they are now; else NULL. */
static const shard *own_shard(const source *s, const checkpoint_state *state, int rank, int only)
{
    checkpoint_file mine;
    const shard *found = NULL;
    checkpoint_file_name(&mine, state->owner, only ? -1 : rank);
    for (int i = 0; i < s->count; i++) {
        const char *name = strrchr(s->shards[i].path, '/');
        if (!strcmp(name ? name + 1 : s->shards[i].path, mine.name))
            found = &s->shards[i];
    }
    for (int i = 0; found && i < state->count(state->context); i++) {
        checkpoint_entry e;
        checkpoint_piece there;
        state->entry(state->context, i, &e);
        const checkpoint_piece here = checkpoint_entry_piece(&e);
        const st_tensor *t = st_find(found->file, e.name);
        if (e.param < 0 || e.begin >= e.end || (e.optional && !anywhere(s, e.name)))
            continue;
        if (!t || checkpoint_piece_read(&there, found->pieces, t, &e.full, found->path) || !same_piece(&here, &there)) {
            gt_message_clear();
            return NULL;
        }
    }
    return found;
}

/* Do all ranks go on with what they wrote themselves, and is that all there is? */
static gt_status find_own(const shard **own, const source *s, const checkpoint_state *state,
                          const checkpoint_ranks *ranks)
{
    net_comm *c = ranks ? ranks->comm : NULL;
    const int size = c ? net_comm_size(c) : 1;
    net_blobs all;
    *own = own_shard(s, state, c ? net_comm_rank(c) : 0, size == 1);
    const unsigned char mine = *own != NULL && s->count == size;
    gt_status st = checkpoint_agree(c, "whose state is whose", GT_OK, &mine, 1, &all);
    if (st)
        return st;
    for (int r = 0; r < all.count; r++)
        if (all.size[r] != 1 || !all.data[r][0])
            *own = NULL;
    net_blobs_release(&all);
    return GT_OK;
}

/* This rank's part of an entry into *out, beginning there with the slice's first element: s->held, or where all of
 * it lies. */
static gt_status take_entry(source *s, const checkpoint_state *state, const checkpoint_entry *e,
                            const checkpoint_ranks *ranks, const float **out)
{
    const float *full = NULL;
    const int64_t count = shape_count(&e->full);
    const int sums = state->each_rank && state->each_rank != CHECKPOINT_OWN && e->param >= 0;
    const int none = sums && ranks && ranks->mine && !ranks->mine[e->param];
    gt_status st = gather(s, e->name, &e->full, sums ? ADDS : MUST_AGREE, &full);
    if (!st && !e->any_value)
        st = check_finite(s, e->name, full, count);
    if (st)
        return st;
    *out = none || e->slice.parts ? s->held : full;
    if (none)
        memset(s->held, 0, 4 * (size_t)count);
    else if (e->slice.parts)
        tensor_slice_take(s->held, full, &e->full, &e->slice);
    return GT_OK;
}

static gt_status load_entry(source *s, const checkpoint_state *state, int i, const shard *own,
                            const checkpoint_ranks *ranks)
{
    checkpoint_entry e;
    state->entry(state->context, i, &e);
    gt_status st = GT_OK;
    if (e.optional && !anywhere(s, e.name))
        return GT_OK;
    if (own && (e.param >= 0 || state->each_rank == CHECKPOINT_OWN)) {
        const int64_t count = e.end - e.begin;
        if (count <= 0)
            return GT_OK;
        memcpy(s->held, st_find(own->file, e.name)->data, 4 * (size_t)count);
        if (!e.any_value)
            st = check_finite(s, e.name, s->held, count);
        return st ? st : state->write(state->context, i, s->held);
    }
    const float *mine = NULL;
    st = take_entry(s, state, &e, ranks, &mine);
    if (!st && e.begin < e.end)
        st = state->write(state->context, i, mine + e.begin);
    return st;
}

static gt_status load_entries(source *s, const checkpoint_state *state, const checkpoint_ranks *ranks)
{
    const int count = state->count(state->context);
    const shard *own = NULL;
    int64_t most = 1;
    for (int i = 0; i < count; i++) {
        checkpoint_entry e;
        state->entry(state->context, i, &e);
        most = shape_count(&e.full) > most ? shape_count(&e.full) : most;
    }
    gt_status st = source_room(s, most);
    if (!st && state->each_rank)
        st = find_own(&own, s, state, ranks);
    gt_activity a;
    gt_activity_begin(&a, "loading state from a checkpoint", "tensors", (uint64_t)count);
    for (int i = 0; !st && i < count; i++) {
        st = gt_activity_at(&a, (uint64_t)i);
        if (!st)
            st = load_entry(s, state, i, own, ranks);
    }
    gt_activity_end(&a);
    return st;
}

/* Of what ranks keep each for itself and owe together, a tensor that no rank keeps any more is lost; of those, how many
 * hold anything, and the first one's name. taken: [tensors of all shards] whether a rank did. */
static int dropped(const source *s, const unsigned char *taken, const char **first)
{
    int count = 0;
    size_t at = 0;
    for (int i = 0; i < s->count; i++)
        for (size_t k = 0; k < st_count(s->shards[i].file); k++, at++) {
            const st_tensor *t = st_at(s->shards[i].file, k);
            const unsigned char *byte = t->data;
            size_t used = 0;
            int seen = 0;
            while (!taken[at] && used < t->bytes && !byte[used])
                used++;
            if (taken[at] || used == t->bytes)
                continue;
            for (int j = 0; j < i && !seen; j++)
                seen = st_find(s->shards[j].file, t->name) != NULL;
            *first = count ? *first : t->name;
            count += !seen;
        }
    return count;
}

static gt_status tell_dropped(const source *s, const checkpoint_state *state, const checkpoint_ranks *ranks)
{
    net_comm *c = ranks ? ranks->comm : NULL;
    size_t most = 0, at = 0;
    for (int i = 0; i < s->count; i++)
        most += st_count(s->shards[i].file);
    unsigned char *taken = calloc(most + 1, 1);
    if (!taken)
        return checkpoint_no_memory(s->folder);
    for (int i = 0; i < s->count; i++)
        for (size_t k = 0; k < st_count(s->shards[i].file); k++, at++)
            for (int e = 0; e < state->count(state->context) && !taken[at]; e++) {
                checkpoint_entry entry;
                state->entry(state->context, e, &entry);
                taken[at] = !strcmp(entry.name, st_at(s->shards[i].file, k)->name);
            }
    net_blobs all;
    gt_status st = checkpoint_agree(c, "who keeps what", GT_OK, taken, most, &all);
    const char *first = "";
    if (!st) {
        for (int r = 0; r < all.count; r++)
            for (size_t k = 0; k < most && all.size[r] == most; k++)
                taken[k] |= ((const unsigned char *)all.data[r])[k];
        const int lost = c && net_comm_rank(c) ? 0 : dropped(s, taken, &first);
        if (lost)
            gt_log(GT_LOG_WARN, "train", "'%s' holds %s that no rank keeps in this plan: '%s'%s; left out", s->folder,
                   state->what, first, lost > 1 ? " and others" : "");
        net_blobs_release(&all);
    }
    free(taken);
    return st;
}

static gt_status load_state(const char *folder, const checkpoint_state *state, const checkpoint_ranks *ranks)
{
    source s;
    gt_status st = source_open(&s, folder, state->owner, state->what);
    if (st == GT_NOT_FOUND && state->optional) {
        gt_message_clear();
        source_close(&s);
        return GT_OK;
    }
    if (!st)
        st = check_names(&s, state);
    if (!st)
        st = load_entries(&s, state, ranks);
    if (!st && state->each_rank && state->each_rank != CHECKPOINT_OWN)
        st = tell_dropped(&s, state, ranks);
    source_close(&s);
    return st;
}

/* A run that is told to keep less than before should hear of it. */
static gt_status tell_unclaimed(const char *folder, const checkpoint_state *states, int count)
{
    checkpoint_info info;
    checkpoint_file *files;
    char has[CHECKPOINT_OWNER], last[CHECKPOINT_OWNER] = "";
    int n;
    gt_status st = checkpoint_manifest_read(folder, &info, &files, &n);
    for (int i = 0; !st && i < n; i++) {
        int claimed = !checkpoint_file_owner(files[i].name, has) || is_of(CHECKPOINT_PARAMS, has);
        for (int k = 0; k < count; k++)
            claimed |= !strcmp(has, states[k].owner);
        if (!claimed && strcmp(has, last))
            gt_log(GT_LOG_WARN, "train", "'%s' holds %s, which this run does not keep; they are left out", folder, has);
        if (!claimed)
            memcpy(last, has, sizeof last);
    }
    free(files);
    return st;
}

gt_status checkpoint_load(const char *path, params *p, const checkpoint_state *states, int count,
                          const checkpoint_ranks *ranks)
{
    const uint64_t traced = gt_trace_begin();
    gt_status st = checkpoint_load_some(path, p, NULL);
    for (int i = 0; !st && i < count; i++)
        st = load_state(path, &states[i], ranks);
    if (!st && count && !(ranks && ranks->comm && net_comm_rank(ranks->comm)))
        st = tell_unclaimed(path, states, count);
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
    gt_status st = source_open(&s, path, CHECKPOINT_PARAMS, "parameters");
    for (int i = 0; !st && i < s.count; i++)
        for (size_t k = 0; !st && k < st_count(s.shards[i].file); k++) {
            const char *name = st_at(s.shards[i].file, k)->name;
            if (!declares(whole, name))
                st = gt_fail(GT_MISMATCH,
                             "cannot load '%s': it holds a tensor '%s', the model does "
                             "not; is it another model's checkpoint?",
                             path, name);
        }
    source_close(&s);
    return st;
}
