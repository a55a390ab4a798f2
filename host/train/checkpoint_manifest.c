/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_manifest.c - manifest.json, and the names of the files it lists.
 *
 *   {"format": 2, "step": 200, "seed": 1, "tokens": 1638400,
 *    "data": {"samples": 6400, "seq": 256, "order": "shuffled", "tokens": 1003854,
 *             "hash": "5b0e5d6f2f4f8a11"},
 *    "files": [
 *       {"name": "params-00000.safetensors", "bytes": 49771216, "xxh3": "9d6b2c0a11f0e4aa"}, ...]}
 *
 * "data" may be missing: earlier versions did not write it. Once there was a validation there is "best":
 * {"step": 150, "loss": 1.9, "reference": 1.9, "waited": 2}, checkpoint_best of checkpoint.h.
 *
 * Format 1 differs in that a tensor is always whole and in the one file of its kind, which
 * format 2 allows as well; format 3 has base files beside: so all are read alike.        */
#include "host/base/file.h"
#include "host/train/checkpoint_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_MAX = 1 << 26 };        /* bytes: hundreds of thousands of files */

static const char *const order_names[] = { "shuffled", "sequential" };  /* [loader_order] */

gt_status checkpoint_no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "checkpoint '%s': no memory for its paths and lists", path);
}

void checkpoint_file_name(checkpoint_file *out, const char *owner, int rank)
{
    *out = (checkpoint_file){ 0 };
    if (rank < 0)
        snprintf(out->name, sizeof out->name, "%.15s.safetensors", owner);
    else
        snprintf(out->name, sizeof out->name, "%.15s-%05d.safetensors", owner, rank);
}

int checkpoint_file_owner(const char *name, char owner[CHECKPOINT_OWNER])
{
    const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz_");
    const char *rest = name + n;
    if (!n || n >= CHECKPOINT_OWNER)
        return 0;
    if (*rest == '-') {
        const size_t digits = strspn(rest + 1, "0123456789");
        if (digits < 5 || digits > 9)
            return 0;
        rest += 1 + digits;
    }
    memcpy(owner, name, n);
    owner[n] = '\0';
    return !strcmp(rest, ".safetensors");
}

gt_status checkpoint_file_measure(const char *folder, checkpoint_file *file)
{
    char *path = gt_path_join(folder, file->name);
    gt_map map;
    gt_status st = path ? gt_map_open(&map, path) : checkpoint_no_memory(folder);
    if (!st) {
        file->bytes = map.size;
        file->hash = gt_hash(map.data, map.size);
        gt_map_close(&map);
    }
    free(path);
    return st;
}

/* NULL if nothing is known of the data. */
static json_t *pack_data(const checkpoint_data *d)
{
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)d->hash);
    return !d->seq
               ? NULL
               : json_pack("{s:I, s:I, s:s, s:I, s:s}", "samples", (json_int_t)d->samples, "seq", (json_int_t)d->seq,
                           "order", order_names[d->order], "tokens", (json_int_t)d->tokens, "hash", hash);
}

static gt_status read_data(const char *path, json_t *row, checkpoint_data *out)
{
    json_int_t samples, seq, tokens;
    const char *order, *hash;
    *out = (checkpoint_data){ 0 };
    if (!row)
        return GT_OK;
    if (json_unpack(row, "{s:I, s:I, s:s, s:I, s:s}", "samples", &samples, "seq", &seq, "order", &order, "tokens",
                    &tokens, "hash", &hash)
        || samples < 0 || seq < 1 || tokens < 0 || (strcmp(order, order_names[0]) && strcmp(order, order_names[1])))
        return gt_fail(GT_FORMAT, "'%s': \"data\" is no position in data", path);
    *out = (checkpoint_data){ (uint64_t)samples, (uint64_t)seq,
                              strcmp(order, order_names[0]) ? LOADER_SEQUENTIAL : LOADER_SHUFFLED, (uint64_t)tokens,
                              strtoull(hash, NULL, 16) };
    return GT_OK;
}

/* NULL if nothing was measured. */
static json_t *pack_best(const checkpoint_best *b)
{
    return !b->step ? NULL
                    : json_pack("{s:I, s:f, s:f, s:I}", "step", (json_int_t)b->step, "loss", b->loss, "reference",
                                b->reference, "waited", (json_int_t)b->waited);
}

static gt_status read_best(const char *path, json_t *row, checkpoint_best *out)
{
    json_int_t step, waited;
    double loss, reference;
    *out = (checkpoint_best){ 0 };
    if (!row)
        return GT_OK;
    if (json_unpack(row, "{s:I, s:F, s:F, s:I}", "step", &step, "loss", &loss, "reference", &reference, "waited",
                    &waited)
        || step < 1 || waited < 0)
        return gt_fail(GT_FORMAT, "'%s': \"best\" is no validation", path);
    *out = (checkpoint_best){ (uint64_t)step, loss, reference, (uint64_t)waited };
    return GT_OK;
}

gt_status checkpoint_manifest_write(const char *folder, const checkpoint_info *info, const checkpoint_file *files,
                                    int count)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL, hash[20];
    json_t *list = json_array();
    gt_status st = GT_OK;
    int failed = 0, format = 2;         /* what older versions read is called what they know */
    for (int i = 0; list && i < count; i++) {
        char owner[CHECKPOINT_OWNER];
        if (checkpoint_file_owner(files[i].name, owner) && !strcmp(owner, CHECKPOINT_BASE))
            format = CHECKPOINT_FORMAT;
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)files[i].hash);
        failed |= json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", files[i].name, "bytes",
                                                        (json_int_t)files[i].bytes, "xxh3", hash));
    }
    json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:o*, s:o*, s:o}", "format", format, "step", (json_int_t)info->step,
                             "seed", (json_int_t)info->seed, "tokens", (json_int_t)info->tokens, "data",
                             pack_data(&info->data), "best", pack_best(&info->best), "files", list);
    if (root && !failed)
        text = json_dumps(root, JSON_INDENT(2));
    if (!path || !text)
        st = checkpoint_no_memory(folder);
    else
        st = gt_file_write(path, text, strlen(text));
    json_decref(root);
    free(text);
    free(path);
    return st;
}

static gt_status read_files(const char *folder, const json_t *list, checkpoint_file **files, int *count)
{
    size_t i;
    json_t *row;
    *files = calloc(json_array_size(list) + 1, sizeof **files);
    if (!*files)
        return checkpoint_no_memory(folder);
    json_array_foreach(list, i, row) {
        const char *name, *hash;
        json_int_t bytes;
        char owner[CHECKPOINT_OWNER];
        checkpoint_file *f = &(*files)[(*count)++];
        if (json_unpack(row, "{s:s, s:I, s:s}", "name", &name, "bytes", &bytes, "xxh3", &hash)
            || strlen(name) >= sizeof f->name || !checkpoint_file_owner(name, owner))
            return gt_fail(GT_FORMAT, "manifest of '%s' lists no proper files", folder);
        snprintf(f->name, sizeof f->name, "%s", name);
        f->bytes = (uint64_t)bytes;
        f->hash = strtoull(hash, NULL, 16);
    }
    return GT_OK;
}

gt_status checkpoint_manifest_read(const char *folder, checkpoint_info *info, checkpoint_file **files, int *count)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL;
    json_error_t error;
    json_t *root = NULL, *list;
    checkpoint_data data;
    checkpoint_best best;
    json_int_t format, step, seed, tokens;
    *files = NULL;
    *count = 0;
    gt_status st = path ? gt_file_read(&text, NULL, path, MANIFEST_MAX) : checkpoint_no_memory(folder);
    if (!st && !(root = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, error.line, error.text);
    if (!st
        && json_unpack_ex(root, &error, 0, "{s:I, s:I, s:I, s:I, s:o}", "format", &format, "step", &step, "seed", &seed,
                          "tokens", &tokens, "files", &list))
        st = gt_fail(GT_FORMAT, "'%s': %s", path, error.text);
    if (!st && (format < 1 || format > CHECKPOINT_FORMAT || step < 0 || tokens < 0 || !json_is_array(list)))
        st = gt_fail(GT_FORMAT, "'%s' is not a manifest of format 1 to %d", path, CHECKPOINT_FORMAT);
    if (!st)
        st = read_data(path, json_object_get(root, "data"), &data);
    if (!st)
        st = read_best(path, json_object_get(root, "best"), &best);
    if (!st)
        st = read_files(folder, list, files, count);
    if (!st)
        *info = (checkpoint_info){ (uint64_t)step, (uint64_t)seed, (uint64_t)tokens, data, best };
    if (st) {
        free(*files);
        *files = NULL;
        *count = 0;
    }
    json_decref(root);
    free(text);
    free(path);
    return st;
}
