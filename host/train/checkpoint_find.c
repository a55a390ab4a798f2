/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_find.c - the newest whole checkpoint of a run; and which ones go.
 *
 *   step-000300   damaged: a file is cut short        passed over, with a warning
 *   step-000200   every file has its size and hash    this one
 *   step-000100
 *
 * Where several ranks load, rank 0 alone reads and hashes all files: a checkpoint is read once
 * and not once a rank before it is loaded, and no two ranks can come to different answers.
 * The others make sure that they see the very same manifest.                             */
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/workers.h"
#include "host/train/checkpoint_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One that is not there at all; what is frozen can be had again from elsewhere. */
static gt_status check_there(const char *folder, const checkpoint_file *file)
{
    char owner[CHECKPOINT_OWNER], *path = gt_path_join(folder, file->name);
    const int there = path && gt_path_exists(path);
    gt_status st = path ? GT_OK : checkpoint_no_memory(folder);
    if (!st && !there)
        st =
            gt_fail(GT_FORMAT, "'%s' is missing%s", path,
                    checkpoint_file_owner(file->name, owner) && !strcmp(owner, CHECKPOINT_BASE)
                        ? ": the frozen weights, which the run's other checkpoints hold as the same file; copy it from "
                          "one of them"
                        : "; copy checkpoints as whole folders");
    free(path);
    return st;
}

/* What lies there of the files of a manifest, looked at by several threads. */
typedef struct looks {
    const char *folder;
    const checkpoint_file *files;
    struct look {
        checkpoint_file file;
        gt_status st;
        gt_saved_message why;
    } *look;
} looks;

static void look_at(void *context, size_t i)
{
    const looks *l = context;
    struct look *x = &l->look[i];
    x->file = l->files[i];
    x->st = check_there(l->folder, &x->file);
    if (!x->st)
        x->st = checkpoint_file_measure(l->folder, &x->file);
    gt_message_save(&x->why);
    gt_message_clear();
}

/* Every file of the manifest is there with its size and hash. */
static gt_status verify(const char *folder, checkpoint_info *info)
{
    checkpoint_file *files;
    char owner[CHECKPOINT_OWNER];
    int count, weights = 0;             /* files of them: a manifest without is no manifest */
    looks l = { .folder = folder };
    gt_status st = checkpoint_manifest_read(folder, info, &files, &count);
    l.files = files;
    if (!st && !(l.look = calloc((size_t)count + 1, sizeof *l.look)))
        st = checkpoint_no_memory(folder);
    if (!st)
        gt_workers_run((size_t)count, look_at, &l);
    for (int i = 0; !st && i < count; i++) {
        const checkpoint_file file = l.look[i].file;
        weights += checkpoint_file_owner(file.name, owner) && !strcmp(owner, CHECKPOINT_PARAMS);
        st = l.look[i].st;
        if (st)
            gt_message_restore(&l.look[i].why);
        if (!st && (file.bytes != files[i].bytes || file.hash != files[i].hash))
            st = gt_fail(GT_FORMAT,
                         "'%s/%s' is damaged: %llu bytes, hash %016llx; the manifest "
                         "says %llu and %016llx",
                         folder, file.name, (unsigned long long)file.bytes, (unsigned long long)file.hash,
                         (unsigned long long)files[i].bytes, (unsigned long long)files[i].hash);
    }
    if (!st && !weights)
        st = gt_fail(GT_FORMAT, "manifest of '%s' lists no file of parameters", folder);
    free(l.look);
    free(files);
    return st;
}

typedef struct entry {
    uint64_t step;
    char name[48];
    char *why;
} entry;   /* why: it is not whole */

static void free_entries(entry *entries, int count)
{
    for (int i = 0; i < count; i++)
        free(entries[i].why);
    free(entries);
}

static int newest_first(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return x->step < y->step ? 1 : x->step > y->step ? -1 : 0;
}

/* The step-* folders of a run, newest first; unfinished ones are removed if `tidy`. */
static gt_status list_entries(const char *folder, entry **out, int *count, int tidy)
{
    *out = NULL;
    *count = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return GT_OK;
    gt_status st = GT_OK;
    for (struct dirent *e; !st && (e = readdir(dir));) {
        unsigned long long step;
        int end = 0;
        if (tidy && !strncmp(e->d_name, ".partial-step-", 14)) {
            char *path = gt_path_join(folder, e->d_name);
            st = path ? gt_folder_remove(path) : checkpoint_no_memory(folder);
            free(path);
        }
        if (sscanf(e->d_name, "step-%llu%n", &step, &end) != 1 || e->d_name[end]
            || strlen(e->d_name) >= sizeof(*out)->name)
            continue;
        entry *more = realloc(*out, (size_t)(*count + 1) * sizeof *more);
        if (!more) {
            st = checkpoint_no_memory(folder);
            break;
        }
        *out = more;
        more[*count].step = step;
        more[*count].why = NULL;
        snprintf(more[(*count)++].name, sizeof more->name, "%.47s", e->d_name);
    }
    closedir(dir);
    if (*count)
        qsort(*out, (size_t)*count, sizeof **out, newest_first);
    return st;
}

/* The newest of `folder` that is whole. Where there are some and none is whole, their weights may still
 * be recovered: that is not the same as a run which has none yet. */
static gt_status find_newest(char **path, checkpoint_info *info, const char *folder)
{
    entry *entries;
    int count, passed = 0;
    gt_status st = list_entries(folder, &entries, &count, 0);
    for (int i = 0; !st && !*path && i < count; i++) {
        char *candidate = gt_path_join(folder, entries[i].name);
        if (!candidate) {
            st = checkpoint_no_memory(folder);
        } else if (verify(candidate, info)) {
            passed = i + 1;
            entries[i].why = strdup(gt_message());
            gt_message_clear();
            free(candidate);
        } else {
            *path = candidate;
        }
    }
    for (int i = 0; !st && *path && i < passed; i++)
        gt_log(GT_LOG_WARN, "train", "passing over checkpoint '%s/%s': %s", folder, entries[i].name,
               entries[i].why ? entries[i].why : "it is not whole");
    if (!st && !*path && count)
        st = gt_fail(GT_FORMAT,
                     "there is no whole checkpoint in '%s', which holds %d that cannot be used; "
                     "the newest: %s; repair one of them or bring it back",
                     folder, count, entries[0].why ? entries[0].why : entries[0].name);
    free_entries(entries, count);
    return st;
}

gt_status checkpoint_find(char **path, checkpoint_info *info, const char *run)
{
    *path = NULL;
    char *own = gt_path_join(run, "manifest.json"), *folder = gt_path_join(run, "checkpoints");
    gt_status st = own && folder ? GT_OK : checkpoint_no_memory(run);
    if (!st && gt_path_exists(own)) {
        st = verify(run, info);
        if (!st && !(*path = strdup(run)))
            st = checkpoint_no_memory(run);
    } else if (!st) {
        st = find_newest(path, info, folder);
        if (!st && !*path)
            st = gt_fail(GT_NOT_FOUND, "cannot find a whole checkpoint in '%s'", run);
    }
    free(own);
    free(folder);
    return st;
}

/* ---- together ----------------------------------------------------------------------------------- */

typedef struct answer {
    checkpoint_info info;
    uint64_t manifest;                  /* its hash                                  */
    char inside[96];                    /* "checkpoints/step-000200", or "": the run */
} answer;

static gt_status hash_manifest(uint64_t *hash, const char *folder)
{
    checkpoint_file file = { .name = "manifest.json" };
    gt_status st = checkpoint_file_measure(folder, &file);
    *hash = file.hash;
    return st;
}

static gt_status look(char **path, checkpoint_info *info, const char *run, answer *out)
{
    *out = (answer){ 0 };
    gt_status st = checkpoint_find(path, info, run);
    if (!st)
        st = hash_manifest(&out->manifest, *path);
    if (!st) {
        const char *inside = *path + strlen(run);
        out->info = *info;
        snprintf(out->inside, sizeof out->inside, "%s", inside + (*inside == '/'));
    }
    return st;
}

/* Rank 0's answer as another rank sees it. */
static gt_status follow(char **path, const char *run, const answer *a)
{
    uint64_t hash;
    *path = *a->inside ? gt_path_join(run, a->inside) : strdup(run);
    if (!*path)
        return checkpoint_no_memory(run);
    if (hash_manifest(&hash, *path))
        return gt_fail(GT_IO,
                       "cannot see checkpoint '%s', which rank 0 found; put the run on "
                       "a file system that all ranks share",
                       *path);
    if (hash != a->manifest)
        return gt_fail(GT_MISMATCH,
                       "'%s' is not the checkpoint of that name which rank 0 found; put "
                       "the run on a file system that all ranks share",
                       *path);
    return GT_OK;
}

gt_status checkpoint_find_together(net_comm *c, char **path, checkpoint_info *info, const char *run)
{
    *path = NULL;
    if (!c || net_comm_size(c) == 1)
        return checkpoint_find(path, info, run);
    const int rank = net_comm_rank(c);
    net_blobs all;
    answer a = { 0 };
    net_comm_busy(c, "verifying a checkpoint");
    gt_status st = rank ? GT_OK : look(path, info, run, &a);
    net_comm_busy(c, NULL);
    st = checkpoint_agree(c, "which checkpoint", st, &a, sizeof a, &all);
    if (!st && all.size[0] == sizeof a)
        memcpy(&a, all.data[0], sizeof a);
    net_blobs_release(&all);
    if (!st) {
        if (rank)
            st = follow(path, run, &a);
        st = checkpoint_agree(c, "that checkpoint", st, NULL, 0, &all);
        net_blobs_release(&all);
    }
    if (!st)
        *info = a.info;
    else {
        free(*path);
        *path = NULL;
    }
    return st;
}

/* Killed half-way, a removal must not leave what is called a checkpoint: so first it is not. */
static gt_status remove_entry(const char *folder, const char *name)
{
    char hidden[80];
    snprintf(hidden, sizeof hidden, ".partial-%s-old", name);
    char *path = gt_path_join(folder, name), *aside = gt_path_join(folder, hidden);
    gt_status st = path && aside ? gt_folder_remove(aside) : checkpoint_no_memory(folder);
    if (!st && rename(path, aside) != 0)
        st = gt_fail(GT_IO, "cannot remove checkpoint '%s': %s", path, strerror(errno));
    if (!st)
        st = gt_folder_remove(aside);
    free(path);
    free(aside);
    return st;
}

static char *step_path(const char *run, uint64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/step-%06llu", (unsigned long long)step);
    return gt_path_join(run, name);
}

int checkpoint_is_there(const char *run, uint64_t step)
{
    char *path = step_path(run, step);
    const int there = path && gt_path_is_folder(path);
    free(path);
    return there;
}

/* A new link takes the old one's place in one go, so that there is always one. */
gt_status checkpoint_mark_best(const char *run, uint64_t step)
{
    char name[64];
    char *folder = gt_path_join(run, "checkpoints"), *link = folder ? gt_path_join(folder, "best") : NULL;
    char *aside = folder ? gt_path_join(folder, ".partial-best") : NULL;
    gt_status st = link && aside ? GT_OK : checkpoint_no_memory(run);
    snprintf(name, sizeof name, "step-%06llu", (unsigned long long)step);
    if (!st && !step && unlink(link) != 0 && errno != ENOENT && errno != ENOTDIR)
        st = gt_fail(GT_IO, "cannot remove '%s': %s", link, strerror(errno));
    if (!st && step) {
        unlink(aside);
        if (symlink(name, aside) != 0 || rename(aside, link) != 0)
            st = gt_fail(GT_IO, "cannot let '%s' name '%s': %s", link, name, strerror(errno));
        if (!st)
            st = gt_folder_sync(folder);
    }
    free(folder);
    free(link);
    free(aside);
    return st;
}

gt_status checkpoint_prune(const char *run, int keep, uint64_t newest, uint64_t best)
{
    char *folder = gt_path_join(run, "checkpoints");
    entry *entries = NULL;
    int count = 0;
    gt_status st = folder ? list_entries(folder, &entries, &count, 1) : checkpoint_no_memory(run);
    for (int i = 0, kept = 0; !st && keep > 0 && i < count; i++) {
        if (entries[i].step > newest || kept++ < keep || (best && entries[i].step == best))
            continue;
        st = remove_entry(folder, entries[i].name);
    }
    free_entries(entries, count);
    free(folder);
    return st;
}
