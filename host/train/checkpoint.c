/* host/train/checkpoint.c - saving aside and renaming; finding, checking and loading. */
#include "host/train/checkpoint.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tensor/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FORMAT 1

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot handle checkpoint '%s': out of memory", path);
}

/* ---- saving --------------------------------------------------------------------------------- */

typedef struct written { char name[32]; uint64_t bytes, hash; } written;

static uint64_t largest_tensor(const params *p)
{
    uint64_t most = OPTIM_STATE_FLOATS;
    for (int i = 0; i < params_count(p); i++) {
        uint64_t n = (uint64_t)shape_count(&params_info(p, i)->shape);
        if (n > most)
            most = n;
    }
    return most;
}

/* Opens FOLDER/name and puts one tensor after the other, each fetched by `read`. */
static gt_status save_params(const char *folder, params *p, float *room, written *out)
{
    char *path = gt_path_join(folder, out->name);
    st_writer *w = NULL;
    gt_status st = path ? st_writer_open(&w, path) : no_memory(folder);
    for (int i = 0; !st && i < params_count(p); i++)
        st = st_writer_add(w, params_info(p, i)->name, DTYPE_F32, &params_info(p, i)->shape);
    if (!st)
        st = st_writer_begin(w);
    for (int i = 0; !st && i < params_count(p); i++) {
        st = params_read(p, i, room);
        if (!st)
            st = st_writer_put(w, room, 4 * (size_t)shape_count(&params_info(p, i)->shape));
    }
    if (!st)
        out->hash = st_writer_hash(w);
    if (st)
        st_writer_abandon(w);
    else
        st = st_writer_commit(w);
    free(path);
    return st;
}

static const char *const moment_names[] = { "first", "second" };

static gt_status save_optimizer(const char *folder, params *p, optim *o, float *room, written *out)
{
    char *path = gt_path_join(folder, out->name), name[96];
    st_writer *w = NULL;
    const shape scalars = shape_of(1, (int64_t)OPTIM_STATE_FLOATS);
    gt_status st = path ? st_writer_open(&w, path) : no_memory(folder);
    for (int m = 0; m < optim_moments(o); m++)
        for (int i = 0; !st && i < params_count(p); i++) {
            snprintf(name, sizeof name, "%s.%s", moment_names[m], params_info(p, i)->name);
            st = st_writer_add(w, name, DTYPE_F32, &params_info(p, i)->shape);
        }
    if (!st)
        st = st_writer_add(w, "scalars", DTYPE_F32, &scalars);
    if (!st)
        st = st_writer_begin(w);
    for (int m = 0; m < optim_moments(o); m++)
        for (int i = 0; !st && i < params_count(p); i++) {
            st = optim_moment_read(o, i, m, room);
            if (!st)
                st = st_writer_put(w, room, 4 * (size_t)shape_count(&params_info(p, i)->shape));
        }
    dev_event *event = NULL;
    if (!st)
        st = optim_state_read(o, room, &event);
    if (!st)
        st = dev_event_wait(event);
    if (!st)
        st = st_writer_put(w, room, 4 * OPTIM_STATE_FLOATS);
    if (!st)
        out->hash = st_writer_hash(w);
    if (st)
        st_writer_abandon(w);
    else
        st = st_writer_commit(w);
    free(path);
    return st;
}

static gt_status measure(const char *folder, written *file)
{
    char *path = gt_path_join(folder, file->name);
    gt_map map;
    gt_status st = path ? gt_map_open(&map, path) : no_memory(folder);
    if (!st) {
        file->bytes = map.size;
        file->hash = gt_hash(map.data, map.size);
        gt_map_close(&map);
    }
    free(path);
    return st;
}

static gt_status save_manifest(const char *folder, const checkpoint_info *info,
                               const written *files, int count)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL, hash[20];
    json_t *list = json_array();
    gt_status st = GT_OK;
    for (int i = 0; list && i < count; i++) {
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)files[i].hash);
        json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", files[i].name, "bytes",
                                              (json_int_t)files[i].bytes, "xxh3", hash));
    }
    json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:o}", "format", FORMAT, "step",
                             (json_int_t)info->step, "seed", (json_int_t)info->seed, "tokens",
                             (json_int_t)info->tokens, "files", list);
    if (root)
        text = json_dumps(root, JSON_INDENT(2));
    if (!path || !text)
        st = no_memory(folder);
    else
        st = gt_file_write(path, text, strlen(text));
    json_decref(root);
    free(text);
    free(path);
    return st;
}

gt_status checkpoint_save(const char *run, const checkpoint_info *info, params *p, optim *o,
                          uint64_t *bytes)
{
    char name[48], partial[96];
    written files[2] = { { .name = "params.safetensors" }, { .name = "optimizer.safetensors" } };
    const int count = o ? 2 : 1;
    gt_status st = GT_OK;

    snprintf(name, sizeof name, "step-%06llu", (unsigned long long)info->step);
    snprintf(partial, sizeof partial, ".partial-%s-%ld", name, (long)getpid());
    char *all = gt_path_join(run, "checkpoints");
    char *aside = all ? gt_path_join(all, partial) : NULL;
    char *final = all ? gt_path_join(all, name) : NULL;
    float *room = malloc(4 * (size_t)largest_tensor(p));
    if (!aside || !final || !room)
        st = no_memory(run);
    if (!st)
        st = gt_folder_remove(aside);
    if (!st)
        st = gt_folder_make(aside);
    if (!st)
        st = save_params(aside, p, room, &files[0]);
    if (!st && o)
        st = save_optimizer(aside, p, o, room, &files[1]);
    for (int i = 0; !st && i < count; i++)
        st = measure(aside, &files[i]);
    if (!st)
        st = save_manifest(aside, info, files, count);
    if (!st)
        st = gt_folder_sync(aside);
    if (!st && gt_path_exists(final)) {             /* the same step, saved before: swap */
        if (renameat2(AT_FDCWD, aside, AT_FDCWD, final, RENAME_EXCHANGE) != 0)
            st = gt_fail(GT_IO, "cannot replace checkpoint '%s': %s", final, strerror(errno));
        else
            st = gt_folder_remove(aside);
    } else if (!st && rename(aside, final) != 0)
        st = gt_fail(GT_IO, "cannot finish checkpoint '%s': %s", final, strerror(errno));
    if (!st)
        st = gt_folder_sync(all);
    if (st && aside) {
        char why[1024];
        snprintf(why, sizeof why, "%s", gt_message());
        gt_folder_remove(aside);
        gt_fail(st, "%s", why);
    }
    if (bytes)
        *bytes = files[0].bytes + files[1].bytes;
    free(room);
    free(aside);
    free(final);
    free(all);
    return st;
}

/* ---- finding ------------------------------------------------------------------------------- */

static gt_status read_manifest(const char *folder, json_t **root, checkpoint_info *info)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL;
    json_error_t error;
    *root = NULL;
    gt_status st = path ? gt_file_read(&text, NULL, path, 1u << 20) : no_memory(folder);
    if (!st && !(*root = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, error.line, error.text);
    json_int_t format, step, seed, tokens;
    json_t *files;
    if (!st && json_unpack_ex(*root, &error, 0, "{s:I, s:I, s:I, s:I, s:o}", "format", &format,
                              "step", &step, "seed", &seed, "tokens", &tokens, "files", &files))
        st = gt_fail(GT_FORMAT, "'%s': %s", path, error.text);
    if (!st && (format != FORMAT || step < 0 || tokens < 0 || !json_is_array(files)))
        st = gt_fail(GT_FORMAT, "'%s' is not a manifest of format %d", path, FORMAT);
    if (!st)
        *info = (checkpoint_info){ (uint64_t)step, (uint64_t)seed, (uint64_t)tokens };
    if (st) {
        json_decref(*root);
        *root = NULL;
    }
    free(text);
    free(path);
    return st;
}

/* Every file of the manifest is there with its size and hash. */
static gt_status verify(const char *folder, checkpoint_info *info)
{
    json_t *root, *row;
    size_t i;
    int weights = 0;                    /* files of them: a manifest without is no manifest */
    gt_status st = read_manifest(folder, &root, info);
    if (st)
        return st;
    json_array_foreach(json_object_get(root, "files"), i, row) {
        const char *name, *hash;
        json_int_t bytes;
        written file = { 0 };
        if (json_unpack(row, "{s:s, s:I, s:s}", "name", &name, "bytes", &bytes, "xxh3", &hash)
            || strlen(name) >= sizeof file.name || strchr(name, '/')) {
            st = gt_fail(GT_FORMAT, "manifest of '%s' lists no proper files", folder);
            break;
        }
        snprintf(file.name, sizeof file.name, "%s", name);
        weights += !strcmp(name, "params.safetensors");
        st = measure(folder, &file);
        if (!st && (file.bytes != (uint64_t)bytes || file.hash != strtoull(hash, NULL, 16)))
            st = gt_fail(GT_FORMAT, "'%s/%s' is damaged: %llu bytes, hash %016llx; the manifest "
                         "says %lld and %s", folder, name, (unsigned long long)file.bytes,
                         (unsigned long long)file.hash, (long long)bytes, hash);
        if (st)
            break;
    }
    if (!st && weights != 1)
        st = gt_fail(GT_FORMAT, "manifest of '%s' does not list params.safetensors", folder);
    json_decref(root);
    return st;
}

typedef struct entry { uint64_t step; char name[48]; } entry;

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
    for (struct dirent *e; !st && (e = readdir(dir)); ) {
        unsigned long long step;
        int end = 0;
        if (tidy && !strncmp(e->d_name, ".partial-step-", 14)) {
            char *path = gt_path_join(folder, e->d_name);
            st = path ? gt_folder_remove(path) : no_memory(folder);
            free(path);
        }
        if (sscanf(e->d_name, "step-%llu%n", &step, &end) != 1 || e->d_name[end]
            || strlen(e->d_name) >= sizeof (*out)->name)
            continue;
        entry *more = realloc(*out, (size_t)(*count + 1) * sizeof *more);
        if (!more) {
            st = no_memory(folder);
            break;
        }
        *out = more;
        more[*count].step = step;
        snprintf(more[(*count)++].name, sizeof more->name, "%.47s", e->d_name);
    }
    closedir(dir);
    if (*count)
        qsort(*out, (size_t)*count, sizeof **out, newest_first);
    return st;
}

gt_status checkpoint_find(char **path, checkpoint_info *info, const char *run)
{
    *path = NULL;
    char *own = gt_path_join(run, "manifest.json"), *folder = gt_path_join(run, "checkpoints");
    entry *entries = NULL;
    int count = 0;
    gt_status st = own && folder ? GT_OK : no_memory(run);
    if (!st && gt_path_exists(own)) {
        st = verify(run, info);
        if (!st && !(*path = strdup(run)))
            st = no_memory(run);
        goto out;
    }
    if (!st)
        st = list_entries(folder, &entries, &count, 0);
    for (int i = 0; !st && !*path && i < count; i++) {
        char *candidate = gt_path_join(folder, entries[i].name);
        if (!candidate)
            st = no_memory(run);
        else if (verify(candidate, info)) {
            gt_log(GT_LOG_WARN, "train", "passing over checkpoint '%s': %s", candidate,
                   gt_message());
            gt_message_clear();
            free(candidate);
        } else {
            *path = candidate;
        }
    }
    if (!st && !*path)
        st = gt_fail(GT_NOT_FOUND, "cannot find a whole checkpoint in '%s'", run);
out:
    free(entries);
    free(own);
    free(folder);
    return st;
}

gt_status checkpoint_prune(const char *run, int keep, uint64_t newest)
{
    char *folder = gt_path_join(run, "checkpoints");
    entry *entries = NULL;
    int count = 0;
    gt_status st = folder ? list_entries(folder, &entries, &count, 1) : no_memory(run);
    for (int i = 0, kept = 0; !st && keep > 0 && i < count; i++) {
        if (entries[i].step > newest || kept++ < keep)
            continue;
        char *path = gt_path_join(folder, entries[i].name);
        st = path ? gt_folder_remove(path) : no_memory(run);
        free(path);
    }
    free(entries);
    free(folder);
    return st;
}

/* ---- loading ------------------------------------------------------------------------------- */

/* A tensor of the file, as fp32 of the expected shape. */
static gt_status fetch_any(st_file *f, const char *path, const char *name, const shape *want,
                           float *room)
{
    const st_tensor *t = st_find(f, name);
    char a[64], b[64];
    if (!t)
        return gt_fail(GT_MISMATCH, "cannot load '%s': tensor '%s' is missing; is it another "
                       "model's checkpoint?", path, name);
    if (t->type != DTYPE_F32 || !shape_equal(&t->dims, want))
        return gt_fail(GT_MISMATCH, "cannot load '%s': tensor '%s' is %s %s, the model has fp32 %s",
                       path, name, dtype_name(t->type), shape_format(&t->dims, a, sizeof a),
                       shape_format(want, b, sizeof b));
    memcpy(room, t->data, t->bytes);
    return GT_OK;
}

/* The same, all of it finite. */
static gt_status fetch(st_file *f, const char *path, const char *name, const shape *want,
                       float *room)
{
    gt_status st = fetch_any(f, path, name, want, room);
    for (int64_t i = 0; !st && i < shape_count(want); i++)
        if (!isfinite(room[i]))
            st = gt_fail(GT_NUMERIC, "cannot load '%s': tensor '%s' holds a value that is not "
                         "finite", path, name);
    return st;
}

/* The norm and the loss of a step that fp16 skipped are not finite, and that is no fault; what
 * the next step computes with must be. */
static gt_status fetch_scalars(st_file *f, const char *path, float *room)
{
    static const int used[] = { OPTIM_STEP, OPTIM_GRAD_SCALE, OPTIM_LOSS_SCALE, OPTIM_GOOD_STEPS };
    const shape scalars = shape_of(1, (int64_t)OPTIM_STATE_FLOATS);
    gt_status st = fetch_any(f, path, "scalars", &scalars, room);
    for (size_t i = 0; !st && i < sizeof used / sizeof *used; i++)
        if (!isfinite(room[used[i]]))
            st = gt_fail(GT_NUMERIC, "cannot load '%s': scalar %d is not finite", path, used[i]);
    return st;
}

static gt_status load_params(const char *folder, params *p, float *room)
{
    char *path = gt_path_join(folder, "params.safetensors");
    st_file *f = NULL;
    gt_status st = path ? st_open(&f, path) : no_memory(folder);
    if (!st && st_count(f) != (size_t)params_count(p))
        st = gt_fail(GT_MISMATCH, "cannot load '%s': %zu tensors, the model has %d", path,
                     st_count(f), params_count(p));
    for (int i = 0; !st && i < params_count(p); i++) {
        st = fetch(f, path, params_info(p, i)->name, &params_info(p, i)->shape, room);
        if (!st)
            st = params_write(p, i, room);
    }
    st_close(f);
    free(path);
    return st;
}

static gt_status load_optimizer(const char *folder, params *p, optim *o, float *room)
{
    char *path = gt_path_join(folder, "optimizer.safetensors"), name[96];
    st_file *f = NULL;
    gt_status st = path ? st_open(&f, path) : no_memory(folder);
    for (int m = 0; m < optim_moments(o); m++)
        for (int i = 0; !st && i < params_count(p); i++) {
            snprintf(name, sizeof name, "%s.%s", moment_names[m], params_info(p, i)->name);
            st = fetch(f, path, name, &params_info(p, i)->shape, room);
            if (!st)
                st = optim_moment_write(o, i, m, room);
        }
    if (!st)
        st = fetch_scalars(f, path, room);
    if (!st)
        st = optim_state_write(o, room);
    st_close(f);
    free(path);
    return st;
}

gt_status checkpoint_load(const char *path, params *p, optim *o)
{
    float *room = malloc(4 * (size_t)largest_tensor(p));
    if (!room)
        return no_memory(path);
    gt_status st = load_params(path, p, room);
    if (!st && o)
        st = load_optimizer(path, p, o, room);
    free(room);
    return st;
}
