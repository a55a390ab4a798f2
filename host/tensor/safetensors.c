/* SPDX-License-Identifier: MIT */
/* host/tensor/safetensors.c - reads by mapping, and trusts nothing that it has not checked.
 *
 *   0        8                 8+N                              size
 *   | N u64  | JSON, spaces     | a ....... | b .. | c ......... |
 *                                 0        24     40            96   data_offsets
 *
 * That the data is covered exactly is proved by sorting the tensors by their begin: each
 * must begin where the one before ended, and the last must end where the file does. Then
 * no two overlap, nothing is hidden between them, and no pointer leaves the file. (Empty
 * tensors begin and end at the same place; sorting by end as well puts them first.)      */
#include "host/tensor/safetensors.h"

#include "host/base/file.h"
#include "host/base/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data is little-endian");

#define HEADER_MAX 100000000u
#define WHOLE_NAME "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"
#define METADATA "__metadata__"

/* The names of dtypes in the file. What is not here is in the format but not in dtype.h. */
static const struct {
    const char *name;
    dtype type;
} types[] = {
    { "F32", DTYPE_F32 }, { "BF16", DTYPE_BF16 }, { "F16", DTYPE_F16 }, { "I32", DTYPE_I32 }, { "U32", DTYPE_U32 },
    { "F64", DTYPE_F64 }, { "I64", DTYPE_I64 },   { "U16", DTYPE_U16 }, { "U8", DTYPE_U8 },   { "BOOL", DTYPE_BOOL },
};
#define TYPES (sizeof types / sizeof *types)

struct st_file {
    gt_map *maps;                       /* one, or one a shard */
    json_t **headers;                   /* keep the names alive */
    size_t map_count;
    st_tensor *tensors;                 /* sorted by name */
    size_t count;
};

void st_close(st_file *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->map_count; i++) {
        gt_map_close(&f->maps[i]);
        json_decref(f->headers[i]);
    }
    free(f->maps);
    free(f->headers);
    free(f->tensors);
    free(f);
}

static gt_status no_memory(const char *name)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its paths and list of tensors", name);
}

static gt_status bad_tensor(const char *file, const char *tensor, const char *why)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': tensor '%.100s' %s", file, tensor, why);
}

/* Parses the header and says where the data begins. */
static gt_status read_header(json_t **out, size_t *data_at, const unsigned char *bytes, size_t size, const char *file)
{
    uint64_t length;
    json_error_t error;
    *out = NULL;
    if (size < sizeof length)
        return gt_fail(GT_FORMAT, "cannot read '%s': %zu bytes are too few for a safetensors file", file, size);
    memcpy(&length, bytes, sizeof length);
    if (length > HEADER_MAX)
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': a header of %llu bytes, more than the %u "
                       "allowed; is it a safetensors file?",
                       file, (unsigned long long)length, HEADER_MAX);
    if (length > size - sizeof length)
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': the header should end at byte %llu, the file "
                       "ends at %zu",
                       file, (unsigned long long)length + 8, size);
    *out = json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!*out)
        return gt_fail(GT_FORMAT, "cannot read '%s': header byte %d: %s", file, error.position, error.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return gt_fail(GT_FORMAT, "cannot read '%s': the header is not an object", file);
    }
    *data_at = 8 + (size_t)length;
    return GT_OK;
}

static gt_status read_dtype(dtype *out, const json_t *entry, const char *file, const char *tensor)
{
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return bad_tensor(file, tensor, "has no dtype");
    for (size_t i = 0; i < TYPES; i++)
        if (!strcmp(types[i].name, name)) {
            *out = types[i].type;
            return GT_OK;
        }
    return gt_fail(GT_UNSUPPORTED,
                   "cannot read '%s': tensor '%.100s' is of dtype '%.20s', which "
                   "is not known here",
                   file, tensor, name);
}

/* The shape, and its bytes with every product checked. */
static gt_status read_shape(shape *out, uint64_t *bytes, size_t element, const json_t *entry, const char *file,
                            const char *tensor)
{
    const json_t *dims = json_object_get(entry, "shape");
    if (!json_is_array(dims))
        return bad_tensor(file, tensor, "has no shape");
    if (json_array_size(dims) > SHAPE_MAX_RANK)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot read '%s': tensor '%.100s' has %zu dimensions, "
                       "more than %d",
                       file, tensor, json_array_size(dims), SHAPE_MAX_RANK);
    out->rank = (int)json_array_size(dims);
    *bytes = element;
    for (int i = 0; i < out->rank; i++) {
        const json_t *dim = json_array_get(dims, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad_tensor(file, tensor, "has a dimension that is no size");
        out->dim[i] = (int64_t)json_integer_value(dim);
        if (__builtin_mul_overflow(*bytes, (uint64_t)out->dim[i], bytes))
            return bad_tensor(file, tensor, "is larger than any memory");
    }
    return GT_OK;
}

static gt_status read_tensor(st_tensor *out, const char *name, const json_t *entry, const unsigned char *data,
                             size_t size, const char *file)
{
    const json_t *range = json_object_get(entry, "data_offsets");
    const json_t *from = json_array_get(range, 0), *to = json_array_get(range, 1);
    uint64_t bytes = 0;
    out->name = name;
    gt_status st = read_dtype(&out->type, entry, file, name);
    if (!st)
        st = read_shape(&out->dims, &bytes, dtype_size(out->type), entry, file, name);
    if (st)
        return st;
    if (json_array_size(range) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return bad_tensor(file, name, "has no pair of data_offsets");
    json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (begin < 0 || end < begin || (uint64_t)end > size)
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': tensor '%.100s' lies at %lld to %lld, "
                       "outside the %zu bytes of data",
                       file, name, (long long)begin, (long long)end, size);
    if ((uint64_t)(end - begin) != bytes)
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': tensor '%.100s' takes %lld bytes, its shape "
                       "needs %llu",
                       file, name, (long long)(end - begin), (unsigned long long)bytes);
    out->data = data + begin;
    out->bytes = (size_t)bytes;
    return GT_OK;
}

static gt_status check_metadata(const json_t *metadata, const char *file)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return gt_fail(GT_FORMAT, "cannot read '%s': %s is not an object", file, METADATA);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
        if (!json_is_string(value))
            return gt_fail(GT_FORMAT, "cannot read '%s': %s '%.100s' is not a string", file, METADATA, key);
    return GT_OK;
}

static int by_place(const void *a, const void *b)
{
    const st_tensor *x = a, *y = b;
    const unsigned char *p = x->data, *q = y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static gt_status check_cover(st_tensor *tensors, size_t count, const unsigned char *data, size_t size, const char *file)
{
    const unsigned char *at = data;
    qsort(tensors, count, sizeof *tensors, by_place);
    for (size_t i = 0; i < count; i++) {
        const unsigned char *begin = tensors[i].data;
        if (begin != at)
            return gt_fail(GT_FORMAT,
                           "cannot read '%s': tensor '%.100s' begins at %zu, the one "
                           "before it ends at %zu",
                           file, tensors[i].name, (size_t)(begin - data), (size_t)(at - data));
        at = begin + tensors[i].bytes;
    }
    if ((size_t)(at - data) != size)
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': the tensors end at %zu, the data at %zu; is "
                       "the file truncated?",
                       file, (size_t)(at - data), size);
    return GT_OK;
}

/* Reads all tensors of one file; *header owns their names. On failure nothing is given. */
static gt_status read_tensors(st_tensor **out, size_t *count, json_t **header, const unsigned char *bytes, size_t size,
                              const char *file)
{
    size_t data_at = 0, n = 0;
    const char *name;
    json_t *entry;
    st_tensor *tensors = NULL;
    gt_status st = read_header(header, &data_at, bytes, size, file);
    if (st)
        return st;
    tensors = calloc(json_object_size(*header) + 1, sizeof *tensors);
    if (!tensors)
        st = no_memory(file);
    json_object_foreach(*header, name, entry) {
        if (st)
            break;
        if (!strcmp(name, METADATA))
            st = check_metadata(entry, file);
        else
            st = read_tensor(&tensors[n++], name, entry, bytes + data_at, size - data_at, file);
    }
    if (!st)
        st = check_cover(tensors, n, bytes + data_at, size - data_at, file);
    if (st) {
        free(tensors);
        json_decref(*header);
        *header = NULL;
        return st;
    }
    *out = tensors;
    *count = n;
    return GT_OK;
}

gt_status st_check(const void *data, size_t size, const char *name)
{
    st_tensor *tensors = NULL;
    json_t *header;
    size_t count;
    gt_status st = read_tensors(&tensors, &count, &header, data, size, name);
    if (!st) {
        free(tensors);
        json_decref(header);
    }
    return st;
}

/* Opens one more file and appends its tensors. */
static gt_status add_file(st_file *f, const char *path)
{
    gt_map *maps = realloc(f->maps, (f->map_count + 1) * sizeof *maps);
    if (maps)
        f->maps = maps;
    json_t **headers = realloc(f->headers, (f->map_count + 1) * sizeof *headers);
    if (headers)
        f->headers = headers;
    if (!maps || !headers)
        return no_memory(path);
    gt_map *map = &maps[f->map_count];
    headers[f->map_count] = NULL;
    gt_status st = gt_map_open(map, path);
    if (st)
        return st;
    f->map_count++;
    st_tensor *read = NULL;
    size_t n = 0;
    st = read_tensors(&read, &n, &headers[f->map_count - 1], map->data, map->size, path);
    if (st)
        return st;
    st_tensor *grown = realloc(f->tensors, (f->count + n + 1) * sizeof *grown);
    if (grown) {
        f->tensors = grown;
        memcpy(grown + f->count, read, n * sizeof *read);
        f->count += n;
    }
    free(read);
    return grown ? GT_OK : no_memory(path);
}

static gt_status sort_names(st_file *f, const char *path)
{
    if (f->count)
        qsort(f->tensors, f->count, sizeof *f->tensors, by_name);
    for (size_t i = 1; i < f->count; i++)
        if (!strcmp(f->tensors[i - 1].name, f->tensors[i].name))
            return bad_tensor(path, f->tensors[i].name, "is in two of its files");
    return GT_OK;
}

/* A file of the index lies beside it; a name with a slash could be any file there is. */
static gt_status add_shard(st_file *f, const char *index, const char *shard)
{
    const char *slash = strrchr(index, '/');
    if (!*shard || strchr(shard, '/'))
        return gt_fail(GT_FORMAT, "cannot read '%s': '%.100s' is no file beside it", index, shard);
    char *folder = slash ? strndup(index, (size_t)(slash - index) + 1) : strdup(".");
    char *path = folder ? gt_path_join(folder, shard) : NULL;
    gt_status st = path ? add_file(f, path) : no_memory(index);
    free(folder);
    free(path);
    return st;
}

/* Every tensor the index names must be there, and nothing needs to be where it says: the
 * shards themselves know what they hold. */
static gt_status check_index(const st_file *f, json_t *map, const char *path)
{
    const char *name;
    json_t *shard;
    json_object_foreach(map, name, shard)
        if (!st_find(f, name))
            return bad_tensor(path, name, "is in none of the files it names");
    return GT_OK;
}

static gt_status open_index(st_file *f, const char *path)
{
    char *text;
    size_t size;
    json_error_t error;
    const char *name;
    json_t *shard;
    gt_status st = gt_file_read(&text, &size, path, HEADER_MAX);
    if (st)
        return st;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    json_t *map = json_object_get(root, "weight_map"), *opened = json_object();
    free(text);
    if (!opened)
        st = no_memory(path);
    else if (!root)
        st = gt_fail(GT_FORMAT, "cannot read '%s': byte %d: %s", path, error.position, error.text);
    else if (!json_is_object(map))
        st = gt_fail(GT_FORMAT, "cannot read '%s': it holds no weight_map", path);
    json_object_foreach(map, name, shard) {
        if (st)
            break;
        const char *file = json_string_value(shard);
        if (!file)
            st = bad_tensor(path, name, "is in no file");
        else if (!json_object_get(opened, file)) {
            st = add_shard(f, path, file);
            if (!st && json_object_set_new(opened, file, json_true()))
                st = no_memory(path);
        }
    }
    if (!st)
        st = sort_names(f, path);
    if (!st)
        st = check_index(f, map, path);
    json_decref(opened);
    json_decref(root);
    return st;
}

static int is_index(const char *path)
{
    const char *end = ".index.json";
    size_t a = strlen(path), b = strlen(end);
    return a > b && !strcmp(path + a - b, end);
}

/* FOLDER/NAME if it is there, else *out is NULL. */
static gt_status find_file(char **out, const char *folder, const char *name)
{
    *out = gt_path_join(folder, name);
    if (!*out)
        return no_memory(folder);
    if (!gt_path_exists(*out)) {
        free(*out);
        *out = NULL;
    }
    return GT_OK;
}

/* What to open in a folder: the one file of weights before an index of several, as transformers
 * does (modeling_utils.py, _get_resolved_checkpoint_files). Where both are there one of them is a
 * leftover, and which one was read must be said. */
static gt_status find_in_folder(char **out, const char *folder)
{
    char *whole = NULL, *index = NULL;
    gt_status st = find_file(&whole, folder, WHOLE_NAME);
    if (!st)
        st = find_file(&index, folder, INDEX_NAME);
    if (!st && !whole && !index)
        st = gt_fail(GT_NOT_FOUND, "cannot read '%s': the folder holds neither %s nor %s", folder, WHOLE_NAME,
                     INDEX_NAME);
    if (!st && whole && index)
        gt_log(GT_LOG_WARN, "tensor",
               "'%s' holds both %s and %s; the first is read, as transformers "
               "does, and the files that the second names are not: remove the one that is out of date",
               folder, WHOLE_NAME, INDEX_NAME);
    *out = whole ? whole : index;
    if (whole)
        free(index);
    return st;
}

gt_status st_open(st_file **out, const char *path)
{
    char *found = NULL;
    *out = NULL;
    st_file *f = calloc(1, sizeof *f);
    gt_status st = f ? GT_OK : no_memory(path);
    if (!st && gt_path_is_folder(path)) {
        st = find_in_folder(&found, path);
        path = found;
    }
    if (!st && is_index(path)) {
        st = open_index(f, path);
    } else if (!st) {
        st = add_file(f, path);
        if (!st)
            st = sort_names(f, path);
    }
    free(found);
    if (st) {
        st_close(f);
        return st;
    }
    *out = f;
    return GT_OK;
}

size_t st_count(const st_file *f)
{
    return f->count;
}

const st_tensor *st_at(const st_file *f, size_t i)
{
    return &f->tensors[i];
}

const st_tensor *st_find(const st_file *f, const char *name)
{
    st_tensor key = { .name = name };
    return f->count ? bsearch(&key, f->tensors, f->count, sizeof key, by_name) : NULL;
}

const char *st_metadata(const st_file *f, const char *key)
{
    const char *text = NULL;
    for (size_t i = 0; i < f->map_count && !text; i++)
        text = json_string_value(json_object_get(json_object_get(f->headers[i], METADATA), key));
    return text;
}

struct st_writer {
    gt_writer *file;
    char *path;
    json_t *header, *metadata;          /* metadata: borrowed from header, NULL until used */
    uint64_t declared, put;             /* bytes of data */
    int begun;
};

void st_writer_abandon(st_writer *w)
{
    if (!w)
        return;
    gt_writer_abandon(w->file);
    json_decref(w->header);
    free(w->path);
    free(w);
}

static gt_status cannot_write(const st_writer *w)
{
    return gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its header, or a name that is not UTF-8", w->path);
}

gt_status st_writer_open(st_writer **out, const char *path)
{
    *out = NULL;
    st_writer *w = calloc(1, sizeof *w);
    if (w) {
        w->path = strdup(path);
        w->header = json_object();
    }
    gt_status st = w && w->path && w->header
                       ? gt_writer_open(&w->file, path)
                       : gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its path and header", path);
    if (st) {
        st_writer_abandon(w);
        return st;
    }
    *out = w;
    return GT_OK;
}

gt_status st_writer_metadata(st_writer *w, const char *key, const char *text)
{
    if (!w->metadata) {
        w->metadata = json_object();
        if (json_object_set_new(w->header, METADATA, w->metadata)) {
            w->metadata = NULL;
            return cannot_write(w);
        }
    }
    return json_object_set_new(w->metadata, key, json_string(text)) ? cannot_write(w) : GT_OK;
}

gt_status st_writer_add(st_writer *w, const char *name, dtype t, const shape *dims)
{
    const char *type = NULL;
    for (size_t i = 0; i < TYPES; i++)
        if (types[i].type == t)
            type = types[i].name;
    if (w->begun || !type || !strcmp(name, METADATA) || json_object_get(w->header, name))
        return gt_fail(GT_MISUSE, "cannot write '%s': tensor '%s' %s", w->path, name,
                       w->begun ? "is declared after the data began" : "has a name that is taken");
    json_t *sizes = json_array();
    for (int i = 0; sizes && i < dims->rank; i++)
        if (json_array_append_new(sizes, json_integer(dims->dim[i]))) {
            json_decref(sizes);
            sizes = NULL;
        }
    uint64_t end = w->declared + (uint64_t)shape_count(dims) * dtype_size(t);
    json_t *entry = sizes ? json_pack("{s:s s:o s:[I I]}", "dtype", type, "shape", sizes, "data_offsets",
                                      (json_int_t)w->declared, (json_int_t)end)
                          : NULL;
    if (!entry || json_object_set_new(w->header, name, entry))
        return cannot_write(w);
    w->declared = end;
    return GT_OK;
}

gt_status st_writer_begin(st_writer *w)
{
    static const char spaces[] = "        ";
    char *text = json_dumps(w->header, JSON_COMPACT);
    if (!text)
        return cannot_write(w);
    size_t size = strlen(text), pad = (8 - size % 8) % 8;
    uint64_t length = size + pad;
    gt_status st = GT_OK;
    if (length > HEADER_MAX)
        st = gt_fail(GT_UNSUPPORTED,
                     "cannot write '%s': a header of %llu bytes, more than the %u "
                     "allowed; write several files",
                     w->path, (unsigned long long)length, HEADER_MAX);
    if (!st)
        st = gt_writer_put(w->file, &length, sizeof length);
    if (!st)
        st = gt_writer_put(w->file, text, size);
    if (!st)
        st = gt_writer_put(w->file, spaces, pad);
    free(text);
    w->begun = 1;
    return st;
}

gt_status st_writer_put(st_writer *w, const void *data, size_t bytes)
{
    if (!w->begun || bytes > w->declared - w->put)
        return gt_fail(GT_MISUSE, "cannot write '%s': %zu bytes at %llu, where %llu are declared", w->path, bytes,
                       (unsigned long long)w->put, (unsigned long long)w->declared);
    w->put += bytes;
    return gt_writer_put(w->file, data, bytes);
}

gt_status st_writer_commit(st_writer *w)
{
    gt_status st;
    if (!w->begun || w->put != w->declared) {
        st = gt_fail(GT_MISUSE, "cannot write '%s': %llu bytes were put, %llu declared", w->path,
                     (unsigned long long)w->put, (unsigned long long)w->declared);
    } else {
        st = gt_writer_commit(w->file);
        w->file = NULL;
    }
    st_writer_abandon(w);
    return st;
}

uint64_t st_writer_hash(const st_writer *w)
{
    return gt_writer_hash(w->file);
}
