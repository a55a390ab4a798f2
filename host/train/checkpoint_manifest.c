/* host/train/checkpoint_manifest.c - manifest.json, and the names of the files it lists.
 *
 *   {"format": 2, "step": 200, "seed": 1, "tokens": 1638400, "files": [
 *       {"name": "params-00000.safetensors", "bytes": 49771216, "xxh3": "9d6b2c0a11f0e4aa"}, ...]}
 *
 * Format 1 differs in that a tensor is always whole and in the one file of its kind, which
 * format 2 allows as well: so both are read alike.                                       */
#include "host/base/file.h"
#include "host/train/checkpoint_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_MAX = 1 << 26 };        /* bytes: hundreds of thousands of files */

static const char *const kind_names[] = { "params", "optimizer" };

gt_status checkpoint_no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot handle checkpoint '%s': out of memory", path);
}

void checkpoint_file_name(checkpoint_file *out, checkpoint_kind kind, int rank)
{
    *out = (checkpoint_file){ 0 };
    if (rank < 0)
        snprintf(out->name, sizeof out->name, "%s.safetensors", kind_names[kind]);
    else
        snprintf(out->name, sizeof out->name, "%s-%05d.safetensors", kind_names[kind], rank);
}

int checkpoint_file_kind(const char *name, checkpoint_kind *kind)
{
    for (int i = 0; i < 2; i++) {
        const size_t n = strlen(kind_names[i]);
        if (strncmp(name, kind_names[i], n))
            continue;
        const char *rest = name + n;
        if (*rest == '-') {
            const size_t digits = strspn(rest + 1, "0123456789");
            if (digits < 5 || digits > 9)
                return 0;
            rest += 1 + digits;
        }
        *kind = (checkpoint_kind)i;
        return !strcmp(rest, ".safetensors");
    }
    return 0;
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

gt_status checkpoint_manifest_write(const char *folder, const checkpoint_info *info,
                                    const checkpoint_file *files, int count)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL, hash[20];
    json_t *list = json_array();
    gt_status st = GT_OK;
    int failed = 0;
    for (int i = 0; list && i < count; i++) {
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)files[i].hash);
        failed |= json_array_append_new(list, json_pack("{s:s, s:I, s:s}", "name", files[i].name,
                                                        "bytes", (json_int_t)files[i].bytes, "xxh3",
                                                        hash));
    }
    json_t *root = json_pack("{s:i, s:I, s:I, s:I, s:o}", "format", CHECKPOINT_FORMAT, "step",
                             (json_int_t)info->step, "seed", (json_int_t)info->seed, "tokens",
                             (json_int_t)info->tokens, "files", list);
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

static gt_status read_files(const char *folder, const json_t *list, checkpoint_file **files,
                            int *count)
{
    size_t i;
    json_t *row;
    *files = calloc(json_array_size(list) + 1, sizeof **files);
    if (!*files)
        return checkpoint_no_memory(folder);
    json_array_foreach(list, i, row) {
        const char *name, *hash;
        json_int_t bytes;
        checkpoint_kind kind;
        checkpoint_file *f = &(*files)[(*count)++];
        if (json_unpack(row, "{s:s, s:I, s:s}", "name", &name, "bytes", &bytes, "xxh3", &hash)
            || strlen(name) >= sizeof f->name || !checkpoint_file_kind(name, &kind))
            return gt_fail(GT_FORMAT, "manifest of '%s' lists no proper files", folder);
        snprintf(f->name, sizeof f->name, "%s", name);
        f->bytes = (uint64_t)bytes;
        f->hash = strtoull(hash, NULL, 16);
    }
    return GT_OK;
}

gt_status checkpoint_manifest_read(const char *folder, checkpoint_info *info,
                                   checkpoint_file **files, int *count)
{
    char *path = gt_path_join(folder, "manifest.json"), *text = NULL;
    json_error_t error;
    json_t *root = NULL, *list;
    json_int_t format, step, seed, tokens;
    *files = NULL;
    *count = 0;
    gt_status st = path ? gt_file_read(&text, NULL, path, MANIFEST_MAX)
                        : checkpoint_no_memory(folder);
    if (!st && !(root = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, error.line, error.text);
    if (!st && json_unpack_ex(root, &error, 0, "{s:I, s:I, s:I, s:I, s:o}", "format", &format,
                              "step", &step, "seed", &seed, "tokens", &tokens, "files", &list))
        st = gt_fail(GT_FORMAT, "'%s': %s", path, error.text);
    if (!st && (format < 1 || format > CHECKPOINT_FORMAT || step < 0 || tokens < 0
                || !json_is_array(list)))
        st = gt_fail(GT_FORMAT, "'%s' is not a manifest of format 1 to %d", path, CHECKPOINT_FORMAT);
    if (!st)
        st = read_files(folder, list, files, count);
    if (!st)
        *info = (checkpoint_info){ (uint64_t)step, (uint64_t)seed, (uint64_t)tokens };
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
