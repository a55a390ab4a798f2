/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_base.c - frozen tensors: written once a run, and linked from checkpoint to checkpoint.
 *
 *   step-000100/base.safetensors  ──┐
 *   step-000200/base.safetensors  ──┼──  one file on the disk
 *   step-000300/base.safetensors  ──┘
 *
 * Links, and no file beside the checkpoints: so each of them stays whole by itself, whichever are removed, copied
 * or looked for by an older one's name, and nothing has to count who still needs it.
 *
 * They are stored as they are computed with: fp32, bf16, or 8 bits in blocks, all of which come back as the same
 * bits. The file says in its metadata, under "frozen", what it holds: a hash over names, types, places and
 * contents. A file that says the same, and is what its manifest says it is, is the same file.             */
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"
#include "host/tensor/q8.h"
#include "host/train/checkpoint_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MARK = 17 };                     /* characters: a hash in hexadecimal */

static int is_mine(const params *p, const unsigned char *mine, int i)
{
    return params_info(p, i)->frozen && (!mine || mine[i]);
}

static checkpoint_piece piece_of(const graph_param_info *info)
{
    return (checkpoint_piece){ info->full, info->slice, 0, shape_count(&info->shape), info->type };
}

/* What the file is to hold, as its metadata say it. */
static gt_status mark_of(char mark[MARK], params *p, const unsigned char *mine)
{
    gt_text t = { 0 };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const tensor_slice *s = &info->slice;
        char dims[96];
        uint64_t hash;
        if (!is_mine(p, mine, i))
            continue;
        st = params_stored_hash(p, i, &hash);
        gt_text_printf(&t, "%s %s %s %d %d %lld %lld %lld %016llx\n", info->name, dtype_name(info->type),
                       shape_format(&info->full, dims, sizeof dims), s->dim, s->parts, (long long)s->full,
                       (long long)s->begin, (long long)s->count, (unsigned long long)hash);
    }
    if (!st && t.failed)
        st = gt_fail(GT_NO_MEMORY, "no memory for the list of frozen parameters");
    if (!st)
        snprintf(mark, MARK, "%016llx", (unsigned long long)gt_hash(t.data, t.size));
    gt_text_release(&t);
    return st;
}

static int has_mark(const char *path, const char *mark)
{
    st_file *f = NULL;
    const char *is = st_open(&f, path) ? NULL : st_metadata(f, "frozen");
    const int same = is && !strcmp(is, mark);
    st_close(f);
    return same;
}

/* 1 if a checkpoint has the file, undamaged and of this mark; then *file is what its manifest says. */
static int is_there(const char *folder, checkpoint_file *file, const char *mark)
{
    checkpoint_info info;
    checkpoint_file *files, now;
    int count, found = 0;
    char *path = gt_path_join(folder, file->name);
    if (path && !checkpoint_manifest_read(folder, &info, &files, &count)) {
        for (int i = 0; !found && i < count; i++) {
            now = files[i];
            found = !strcmp(files[i].name, file->name) && has_mark(path, mark) && !checkpoint_file_measure(folder, &now)
                    && now.bytes == files[i].bytes && now.hash == files[i].hash;
            if (found)
                *file = now;
        }
        free(files);
    }
    free(path);
    gt_message_clear();
    return found;
}

/* The newest checkpoint of the run that has it is linked to; 0 if there is none. */
static int link_earlier(checkpoint_file *file, const char *run, const char *aside, const char *mark)
{
    char *all = gt_path_join(run, "checkpoints"), *newest = NULL;
    DIR *dir = all ? opendir(all) : NULL;
    unsigned long long best = 0;
    int linked = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        unsigned long long step;
        int end = 0;
        if (sscanf(e->d_name, "step-%llu%n", &step, &end) != 1 || e->d_name[end] || (newest && step <= best))
            continue;
        free(newest);
        newest = gt_path_join(all, e->d_name);
        best = step;
    }
    if (dir)
        closedir(dir);
    if (newest && is_there(newest, file, mark)) {
        char *from = gt_path_join(newest, file->name), *to = gt_path_join(aside, file->name);
        linked = from && to && link(from, to) == 0;
        if (!linked)
            gt_log(GT_LOG_INFO, "train", "'%s' is written again, for it cannot be linked: %s", file->name,
                   strerror(errno));
        free(from);
        free(to);
    }
    free(newest);
    free(all);
    return linked;
}

static gt_status put(st_writer *w, params *p, int i)
{
    const uint64_t bytes = graph_param_bytes(params_info(p, i));
    void *stored = malloc((size_t)bytes + 1);
    gt_status st = stored ? params_read_stored(p, i, stored)
                          : gt_fail(GT_NO_MEMORY, "cannot save '%s': no memory for it", params_info(p, i)->name);
    if (!st)
        st = st_writer_put(w, stored, (size_t)bytes);
    free(stored);
    return st;
}

static gt_status declare(st_writer *w, params *p, const unsigned char *mine, const char *mark, const char *path)
{
    json_t *notes = json_object();
    gt_status st = notes ? st_writer_metadata(w, "frozen", mark) : checkpoint_no_memory(path);
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const checkpoint_piece piece = piece_of(info);
        const shape dims = checkpoint_piece_shape(&piece);
        if (!is_mine(p, mine, i))
            continue;
        st = checkpoint_piece_note(notes, info->name, &piece);
        if (!st)
            st = st_writer_add(w, info->name, checkpoint_piece_type(&piece), &dims);
    }
    if (!st && json_object_size(notes)) {
        char *text = json_dumps(notes, JSON_COMPACT);
        st = text ? st_writer_metadata(w, "pieces", text) : checkpoint_no_memory(path);
        free(text);
    }
    json_decref(notes);
    return st ? st : st_writer_begin(w);
}

static gt_status write_file(checkpoint_file *file, const char *aside, params *p, const unsigned char *mine,
                            const char *mark)
{
    char *path = gt_path_join(aside, file->name);
    st_writer *w = NULL;
    uint64_t put_hash = 0;
    gt_status st = path ? st_writer_open(&w, path) : checkpoint_no_memory(aside);
    if (!st)
        st = declare(w, p, mine, mark, path);
    for (int i = 0; !st && i < params_count(p); i++)
        if (is_mine(p, mine, i))
            st = put(w, p, i);
    if (!st) {
        put_hash = st_writer_hash(w);
        st = st_writer_commit(w);
    } else {
        st_writer_abandon(w);
    }
    if (!st)
        st = checkpoint_file_measure(aside, file);
    if (!st && file->hash != put_hash)
        st = gt_fail(GT_IO, "cannot write '%s': what is read back is not what was written", path);
    free(path);
    return st;
}

gt_status checkpoint_base_save(checkpoint_file *file, const char *run, const char *aside, params *p,
                               const unsigned char *mine, int rank)
{
    char mark[MARK];
    int some = 0;
    *file = (checkpoint_file){ 0 };
    for (int i = 0; i < params_count(p); i++)
        some |= is_mine(p, mine, i);
    if (!some)
        return GT_OK;
    checkpoint_file_name(file, CHECKPOINT_BASE, rank);
    gt_status st = mark_of(mark, p, mine);
    return st || link_earlier(file, run, aside, mark) ? st : write_file(file, aside, p, mine, mark);
}
