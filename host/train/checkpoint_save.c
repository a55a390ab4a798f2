/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_save.c - writing aside, all ranks at once, and renaming.
 *
 *   rank 0    make .partial-step-N | write, fsync |         | manifest, rename |
 *   rank 1                         | write, fsync |         |                  |
 *   rank 2                         | write, fsync |         |                  |
 *                       its name --^      sizes --^ hashes          result   --^  all have gone on
 *
 * A rank that dies leaves a .partial folder, whenever that is: the name step-N appears last and
 * at once. A rank that fails says so at the next line, and all of them fail with its sentence.
 * Hashes are of what is read back, and must be those of what was put.                     */
#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/trace.h"
#include "host/train/checkpoint_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOKS = 20 };                    /* for the folder, on file systems that show it late */
#define LOOK_NS 100000000u
enum { CHECKPOINT_FILES = 2 + CHECKPOINT_STATES };      /* of a rank: parameters, frozen ones, states */

typedef struct saving {
    const checkpoint_info *info;
    params *params;
    const checkpoint_state *states;
    int state_count;
    net_comm *comm;                     /* NULL: alone */
    const unsigned char *mine, *mine_state;     /* NULL: all */
    int rank, only;                     /* only: there is no other rank */
    const char *run;
    char partial[64];                   /* the folder aside, as rank 0 names it */
    char *all, *aside, *final;
    float *room;                        /* the largest tensor */
    checkpoint_file files[CHECKPOINT_FILES];            /* written by this rank */
    int count;
    gt_activity activity;
} saving;

static int is_mine(const unsigned char *mine, int i)
{
    return !mine || mine[i];
}

static checkpoint_piece param_piece(const saving *s, int i)
{
    const graph_param_info *info = params_info(s->params, i);
    return (checkpoint_piece){ info->full, info->slice, 0, shape_count(&info->shape), DTYPE_F32 };
}

/* Is it this rank that writes an entry? */
static int writes_entry(const saving *s, const checkpoint_state *state, const checkpoint_entry *e)
{
    if (e->begin >= e->end)
        return 0;
    if (state->each_rank == CHECKPOINT_OWN)
        return 1;
    if (e->leaves)
        return 0;
    if (e->param < 0)
        return !s->rank;
    return state->each_rank || is_mine(s->mine_state, e->param);
}

static size_t piece_bytes(const checkpoint_piece *p)
{
    return 4 * (size_t)(p->end - p->begin);
}

/* ---- a file ---------------------------------------------------------------------------------- */

/* A file in the making: tensors are declared, then put in the same order. */
typedef struct output {
    checkpoint_file file;
    char *path;
    st_writer *writer;
    json_t *pieces;
    int own;                            /* CHECKPOINT_OWN */
} output;

static gt_status output_open(output *o, const saving *s, const char *owner)
{
    *o = (output){ 0 };
    checkpoint_file_name(&o->file, owner, s->only ? -1 : s->rank);
    o->path = gt_path_join(s->aside, o->file.name);
    o->pieces = json_object();
    return o->path && o->pieces ? st_writer_open(&o->writer, o->path) : checkpoint_no_memory(s->aside);
}

static gt_status output_add(output *o, const char *name, const checkpoint_piece *p)
{
    const shape dims = checkpoint_piece_shape(p);
    gt_status st = checkpoint_piece_note(o->pieces, name, p);
    return st ? st : st_writer_add(o->writer, name, DTYPE_F32, &dims);
}

static gt_status output_begin(output *o)
{
    gt_status st = GT_OK;
    if (json_object_size(o->pieces)) {
        char *text = json_dumps(o->pieces, JSON_COMPACT);
        st = text ? st_writer_metadata(o->writer, "pieces", text) : checkpoint_no_memory(o->path);
        free(text);
    }
    if (!st && o->own)
        st = st_writer_metadata(o->writer, CHECKPOINT_OWN_KEY, "1");
    return st ? st : st_writer_begin(o->writer);
}

/* Ends it, whatever happened, and reads back what lies there. */
static gt_status output_close(output *o, saving *s, gt_status st)
{
    uint64_t put = 0;
    if (!st) {
        put = st_writer_hash(o->writer);
        st = st_writer_commit(o->writer);
    } else {
        st_writer_abandon(o->writer);
    }
    if (!st)
        st = checkpoint_file_measure(s->aside, &o->file);
    if (!st && o->file.hash != put)
        st = gt_fail(GT_IO, "cannot write '%s': what is read back is not what was written", o->path);
    if (!st)
        s->files[s->count++] = o->file;
    json_decref(o->pieces);
    free(o->path);
    return st;
}

/* Is it this rank that writes a trained tensor? */
static int writes_param(const saving *s, int i)
{
    return is_mine(s->mine, i) && !params_info(s->params, i)->frozen;
}

static gt_status save_params(saving *s)
{
    output o;
    int some = 0;
    for (int i = 0; i < params_count(s->params); i++)
        some |= writes_param(s, i);
    if (!some && !s->only)
        return GT_OK;
    gt_status st = output_open(&o, s, CHECKPOINT_PARAMS);
    for (int i = 0; !st && i < params_count(s->params); i++) {
        const checkpoint_piece p = param_piece(s, i);
        if (writes_param(s, i))
            st = output_add(&o, params_info(s->params, i)->name, &p);
    }
    if (!st)
        st = output_begin(&o);
    for (int i = 0; !st && i < params_count(s->params); i++) {
        const checkpoint_piece p = param_piece(s, i);
        if (!writes_param(s, i))
            continue;
        gt_activity_set(&s->activity, s->activity.done + 1);
        st = params_read(s->params, i, s->room);
        if (!st)
            st = st_writer_put(o.writer, s->room, piece_bytes(&p));
    }
    return output_close(&o, s, st);
}

static gt_status save_base(saving *s)
{
    checkpoint_file *file = &s->files[s->count];
    gt_status st = checkpoint_base_save(file, s->run, s->aside, s->params, s->mine, s->only ? -1 : s->rank);
    s->count += !st && *file->name;
    return st;
}

static gt_status put_entry(saving *s, output *o, const checkpoint_state *state, int i)
{
    checkpoint_entry e;
    state->entry(state->context, i, &e);
    if (!writes_entry(s, state, &e))
        return GT_OK;
    const checkpoint_piece p = checkpoint_entry_piece(&e);
    gt_activity_set(&s->activity, s->activity.done + 1);
    gt_status st = state->read(state->context, i, s->room);
    return st ? st : st_writer_put(o->writer, s->room, piece_bytes(&p));
}

/* What this rank writes of an owner's state; no file if that is nothing. */
static gt_status save_state(saving *s, const checkpoint_state *state)
{
    output o;
    checkpoint_entry e;
    const int count = state->count(state->context);
    int some = 0;
    for (int i = 0; !some && i < count; i++) {
        state->entry(state->context, i, &e);
        some = writes_entry(s, state, &e);
    }
    if (!some)
        return GT_OK;
    gt_status st = output_open(&o, s, state->owner);
    o.own = state->each_rank == CHECKPOINT_OWN;
    for (int i = 0; !st && i < count; i++) {
        state->entry(state->context, i, &e);
        const checkpoint_piece p = checkpoint_entry_piece(&e);
        if (writes_entry(s, state, &e))
            st = output_add(&o, e.name, &p);
    }
    if (!st)
        st = output_begin(&o);
    for (int i = 0; !st && i < count; i++)
        st = put_entry(s, &o, state, i);
    return output_close(&o, s, st);
}

/* ---- all ranks ---------------------------------------------------------------------------------- */

/* Where it goes aside and in the end. */
static gt_status name_folders(saving *s)
{
    char name[48];
    snprintf(name, sizeof name, "step-%06llu", (unsigned long long)s->info->step);
    s->all = gt_path_join(s->run, "checkpoints");
    s->aside = s->all ? gt_path_join(s->all, s->partial) : NULL;
    s->final = s->all ? gt_path_join(s->all, name) : NULL;
    return s->aside && s->final ? GT_OK : checkpoint_no_memory(s->run);
}

static gt_status make_room(saving *s)
{
    int64_t most = 1;
    checkpoint_entry e;
    for (int i = 0; i < params_count(s->params); i++) {
        const int64_t n = params_info(s->params, i)->frozen ? 0 : shape_count(&params_info(s->params, i)->shape);
        most = n > most ? n : most;
    }
    for (int k = 0; k < s->state_count; k++)
        for (int i = 0; i < s->states[k].count(s->states[k].context); i++) {
            s->states[k].entry(s->states[k].context, i, &e);
            most = e.end - e.begin > most ? e.end - e.begin : most;
        }
    s->room = malloc(4 * (size_t)most);
    return s->room ? GT_OK : checkpoint_no_memory(s->all);
}

typedef struct beginning {
    uint64_t step;
    char partial[64];
} beginning;

/* Rank 0 makes the folder aside; the others learn its name. */
static gt_status begin(saving *s)
{
    net_blobs all;
    beginning mine = { .step = s->info->step }, first = { 0 };
    gt_status st = GT_OK;
    if (!s->rank) {
        snprintf(s->partial, sizeof s->partial, ".partial-step-%06llu-%ld", (unsigned long long)s->info->step,
                 (long)getpid());
        memcpy(mine.partial, s->partial, sizeof mine.partial);
        st = name_folders(s);
        if (!st)
            st = gt_folder_remove(s->aside);
        if (!st)
            st = gt_folder_make(s->aside);
    }
    st = checkpoint_agree(s->comm, "a checkpoint begins", st, &mine, sizeof mine, &all);
    for (int i = 0; !st && i < all.count; i++) {
        beginning other = { 0 };
        if (all.size[i] == sizeof other)
            memcpy(&other, all.data[i], sizeof other);
        if (i == 0)
            first = other;
        else if (other.step != first.step)
            st = gt_fail(GT_MISMATCH,
                         "cannot save a checkpoint: rank %d is after step %llu, rank 0 "
                         "after step %llu",
                         i, (unsigned long long)other.step, (unsigned long long)first.step);
    }
    net_blobs_release(&all);
    if (!st)
        snprintf(s->partial, sizeof s->partial, "%.63s", first.partial);
    return st;
}

static gt_status look_for_folder(const saving *s)
{
    for (int i = 0; i < LOOKS; i++) {
        if (gt_path_is_folder(s->aside))
            return GT_OK;
        gt_sleep_ns(LOOK_NS);
        if (gt_folder_sync(s->all))             /* opening it has NFS look again */
            gt_message_clear();
    }
    return gt_fail(GT_IO,
                   "cannot see folder '%s', which rank 0 made; put the run on a file system "
                   "that all ranks share",
                   s->aside);
}

/* Every rank's files; *all is what each wrote. */
static gt_status write_files(saving *s, net_blobs *all)
{
    gt_status st = GT_OK;
    if (s->comm)
        net_comm_busy(s->comm, "saving");
    if (s->rank)
        st = name_folders(s);
    if (!st && s->rank)
        st = look_for_folder(s);
    if (!st)
        st = make_room(s);
    if (!st)
        st = save_params(s);
    if (!st)
        st = save_base(s);
    for (int i = 0; !st && i < s->state_count; i++)
        st = save_state(s, &s->states[i]);
    if (s->comm)
        net_comm_busy(s->comm, NULL);
    return checkpoint_agree(s->comm, "a checkpoint's files", st, s->files, (size_t)s->count * sizeof *s->files, all);
}

static gt_status write_manifest(const saving *s, const net_blobs *all)
{
    int count = 0;
    checkpoint_file *files = calloc((size_t)all->count * CHECKPOINT_FILES, sizeof *files);
    if (!files)
        return checkpoint_no_memory(s->run);
    for (int i = 0; i < all->count; i++) {
        const size_t n = all->size[i] / sizeof *files;
        memcpy(files + count, all->data[i], n * sizeof *files);
        count += (int)n;
    }
    gt_status st = checkpoint_manifest_write(s->aside, s->info, files, count);
    free(files);
    return st;
}

static uint64_t bytes_of(const net_blobs *all)
{
    uint64_t sum = 0;
    for (int i = 0; i < all->count; i++)
        for (size_t at = 0; at + sizeof(checkpoint_file) <= all->size[i];) {
            checkpoint_file file;
            memcpy(&file, all->data[i] + at, sizeof file);
            sum += file.bytes;
            at += sizeof file;
        }
    return sum;
}

/* The same step may have been saved before: then they change places. */
static gt_status move_into_place(const saving *s)
{
    if (gt_path_exists(s->final)) {
        if (renameat2(AT_FDCWD, s->aside, AT_FDCWD, s->final, RENAME_EXCHANGE) != 0)
            return gt_fail(GT_IO, "cannot replace checkpoint '%s': %s", s->final, strerror(errno));
        gt_status st = gt_folder_remove(s->aside);
        if (st)
            return st;
    } else if (rename(s->aside, s->final) != 0) {
        return gt_fail(GT_IO, "cannot finish checkpoint '%s': %s", s->final, strerror(errno));
    }
    return gt_folder_sync(s->all);
}

static gt_status finish(saving *s, const net_blobs *written)
{
    net_blobs all;
    gt_status st = GT_OK;
    if (!s->rank) {
        st = write_manifest(s, written);
        if (!st)
            st = gt_folder_sync(s->aside);
        if (!st)
            st = move_into_place(s);
    }
    st = checkpoint_agree(s->comm, "a checkpoint is finished", st, NULL, 0, &all);
    net_blobs_release(&all);
    return st;
}

/* After a failure that all know of. When a rank is lost others may still be writing: then the
 * folder stays for checkpoint_prune(). Returns st, with its sentence. */
static gt_status clear_away(const saving *s, gt_status st)
{
    char why[4096];
    snprintf(why, sizeof why, "%s", gt_message());
    if (!s->rank && s->aside && !(s->comm && net_comm_check(s->comm)))
        gt_folder_remove(s->aside);
    return gt_fail(st, "%s", why);
}

gt_status checkpoint_save(const char *run, const checkpoint_info *info, params *p, const checkpoint_state *states,
                          int count, const checkpoint_ranks *ranks, uint64_t *bytes)
{
    saving s = { .run = run, .info = info, .params = p, .states = states, .state_count = count, .only = 1 };
    uint64_t tensors = (uint64_t)params_count(p);
    net_blobs written = { 0 };
    const uint64_t traced = gt_trace_begin();
    if (ranks) {
        s.comm = ranks->comm;
        s.mine = ranks->mine;
        s.mine_state = ranks->mine_state ? ranks->mine_state : ranks->mine;
        s.rank = s.comm ? net_comm_rank(s.comm) : 0;
        s.only = !s.comm || net_comm_size(s.comm) == 1;
    }
    assert(0 <= count && count <= CHECKPOINT_STATES);
    for (int i = 0; i < count; i++)
        tensors += (uint64_t)states[i].count(states[i].context);
    gt_activity_begin(&s.activity, "saving", "tensors", tensors);
    gt_status st = begin(&s);
    if (!st)
        st = write_files(&s, &written);
    if (!st)
        st = finish(&s, &written);
    if (st)
        st = clear_away(&s, st);
    gt_activity_end(&s.activity);
    gt_trace_end(GT_TRACE_HOST, GT_TRACK_HOST, "save a checkpoint", traced);
    if (bytes)
        *bytes = st ? 0 : bytes_of(&written);
    net_blobs_release(&written);
    free(s.room);
    free(s.aside);
    free(s.final);
    free(s.all);
    return st;
}
