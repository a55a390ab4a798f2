/* SPDX-License-Identifier: MIT */
/* host/data/tokens.c - shards: a kilobyte of header, then ids of one width, mapped.
 *
 * The number of tokens is known when a shard is finished, so the header is written empty
 * and patched. A header that disagrees with the size of its file is refused: that is what
 * a half-copied file looks like.                                                        */
#include "host/data/tokens.h"

#include "host/data/foreign.h"
#include "host/data/token_marks.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "token files are little-endian");

#define HEADER_WORDS 256
#define HEADER_BYTES (HEADER_WORDS * sizeof(int32_t))
#define SHARD_TOKENS 100000000u

static const struct {
    int32_t magic, version;
    int width;
} forms[] = {
    { 20240520, 1, 2 },
    { 20240801, 7, 4 },
};
#define FORMS (sizeof forms / sizeof *forms)

void token_file_close(token_file *f)
{
    if (!f)
        return;
    gt_map_close(&f->map);
    token_marks_close(f);
    memset(f, 0, sizeof *f);
}

static gt_status read_header(token_file *f, size_t form)
{
    int32_t head[3];
    const char *path = f->map.path;
    if (f->map.size < HEADER_BYTES)
        return gt_fail(GT_FORMAT,
                       "cannot read token file '%s': it ends at byte %zu, inside its "
                       "header of %zu",
                       path, f->map.size, HEADER_BYTES);
    memcpy(head, f->map.data, sizeof head);
    if (head[1] != forms[form].version)
        return gt_fail(GT_FORMAT, "cannot read token file '%s': version %d, where %d is known", path, (int)head[1],
                       (int)forms[form].version);
    f->width = forms[form].width;
    f->data = f->map.data + HEADER_BYTES;
    uint64_t there = f->map.size - HEADER_BYTES, said = (uint64_t)(head[2] < 0 ? 0 : head[2]);
    if (head[2] < 0 || there != said * (uint64_t)f->width)
        return gt_fail(GT_FORMAT,
                       "cannot read token file '%s': the header says %d tokens of %d "
                       "bytes, %llu bytes follow it",
                       path, (int)head[2], f->width, (unsigned long long)there);
    f->count = said;
    return GT_OK;
}

/* Which form begins with this magic; FORMS if none does. */
static size_t form_of(const gt_map *map)
{
    int32_t magic;
    size_t form = 0;
    if (map->size < sizeof magic)
        return FORMS;
    memcpy(&magic, map->data, sizeof magic);
    while (form < FORMS && forms[form].magic != magic)
        form++;
    return form;
}

/* Are the upper halves of a row of `width`-byte units all small where the lower ones are not? Ids of
 * twice the size look so, since no vocabulary has a million entries; a text of half the size would
 * have a rare id in every second place. */
static int looks_wider(const gt_map *map, size_t width)
{
    enum { LEAST = 8, PAIRS = 65536, SMALL = 15 };
    const size_t pairs = map->size / (2 * width);
    const size_t step = pairs > PAIRS ? pairs / PAIRS : 1;
    int lower = 0;
    if (map->size % (2 * width) || pairs < LEAST)
        return 0;
    for (size_t i = 0; i < pairs; i += step) {
        uint32_t half[2] = { 0, 0 };
        memcpy(&half[0], map->data + 2 * width * i, width);
        memcpy(&half[1], map->data + 2 * width * i + width, width);
        if (half[1] > SMALL)
            return 0;
        lower |= half[0] > SMALL;
    }
    return lower;
}

static gt_status read_bare(token_file *f, int bits)
{
    const char *path = f->map.path;
    const size_t width = bits == 32 ? 4 : 2;
    if (!f->map.size || f->map.size % width)
        return gt_fail(GT_FORMAT,
                       "cannot read token file '%s': no known header, and its %zu bytes "
                       "are no row of %zu-bit ids",
                       path, f->map.size, 8 * width);
    if (bits != 16 && looks_wider(&f->map, 4))
        return gt_fail(GT_FORMAT,
                       "cannot read token file '%s': its ids look like 64-bit ones; write "
                       "them as 16-bit or 32-bit ones, as ids.astype('uint16').tofile() does",
                       path);
    if (!bits && looks_wider(&f->map, 2))
        return gt_fail(GT_FORMAT,
                       "cannot read token file '%s': no known header, and its ids look like "
                       "32-bit ones; say --token-bits 32, or --token-bits 16 if they are not",
                       path);
    f->width = (int)width;
    f->data = f->map.data;
    f->count = f->map.size / width;
    return GT_OK;
}

gt_status token_file_open(token_file *out, const char *path, int bits)
{
    memset(out, 0, sizeof *out);
    gt_status st = gt_map_open(&out->map, path);
    if (st)
        return st;
    size_t form = form_of(&out->map);
    if (form == FORMS) {
        st = data_foreign_check(&out->map, DATA_AS_TOKENS);
        if (!st)
            st = read_bare(out, bits);
    } else {
        st = read_header(out, form);
        if (!st && bits && bits != 8 * out->width)
            st = gt_fail(GT_MISMATCH,
                         "token file '%s' has %d-bit ids by its header, not %d-bit ones; "
                         "leave out --token-bits",
                         path, 8 * out->width, bits);
    }
    if (st)
        token_file_close(out);
    return st;
}

int token_file_has_header(const char *path)
{
    gt_map map;
    if (gt_map_open(&map, path)) {
        gt_message_clear();
        return 0;
    }
    int has = form_of(&map) < FORMS;
    gt_map_close(&map);
    return has;
}

gt_status token_split_open(token_split *out, const char *const *paths, size_t count, uint32_t vocab)
{
    return token_split_open_as(out, paths, count, vocab, 0);
}

/* All shards of a split have the same beside them. */
static gt_status join_marks(token_split *s, const token_file *f, int first)
{
    const unsigned marks = token_marks_of(f);
    const int labelled = f->labels.data != NULL;
    if (first) {
        s->marks = marks;
        s->labelled = labelled;
    }
    return marks == s->marks && labelled == s->labelled
               ? GT_OK
               : gt_fail(GT_FORMAT,
                         "cannot read token file '%s': beside it lie other marks than beside the shards "
                         "before it; copy the whole folder again, or tokenize anew",
                         f->map.path);
}

gt_status token_split_open_as(token_split *out, const char *const *paths, size_t count, uint32_t vocab, int bits)
{
    memset(out, 0, sizeof *out);
    out->vocab = vocab;
    out->files = calloc(count ? count : 1, sizeof *out->files);
    if (!out->files)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of %zu token files", count);
    for (size_t i = 0; i < count; i++) {
        gt_status st = token_file_open(&out->files[i], paths[i], bits);
        if (st) {
            token_split_close(out);
            return st;
        }
        out->file_count++;
        out->count += out->files[i].count;
        st = token_marks_open(&out->files[i]);
        if (!st)
            st = join_marks(out, &out->files[i], i == 0);
        if (st) {
            token_split_close(out);
            return st;
        }
    }
    return GT_OK;
}

void token_split_close(token_split *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->file_count; i++)
        token_file_close(&s->files[i]);
    for (size_t i = 0; i < s->part_count; i++) {
        token_split_close(&s->parts[i].split);
        free(s->parts[i].name);
    }
    free(s->parts);
    token_index_release(s->index);
    free(s->files);
    memset(s, 0, sizeof *s);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int is_shard(const char *name, const char *word)
{
    const size_t n = strlen(name);
    return n >= 4 && !strcmp(name + n - 4, ".bin") && strstr(name, word);
}

/* The paths of a folder's shards, sorted. */
static gt_status find_shards(char ***out, size_t *count, const char *folder, const char *word)
{
    *out = NULL;
    *count = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return gt_fail(GT_IO, "cannot open folder '%s': %s", folder, strerror(errno));
    gt_status st = GT_OK;
    for (struct dirent *e; !st && (e = readdir(dir));) {
        if (!is_shard(e->d_name, word))
            continue;
        char **grown = realloc(*out, (*count + 1) * sizeof *grown);
        if (grown) {
            *out = grown;
            grown[*count] = gt_path_join(folder, e->d_name);
        }
        if (!grown || !grown[*count])
            st = gt_fail(GT_NO_MEMORY, "no memory for a list of the token files of '%s'", folder);
        else
            ++*count;
    }
    closedir(dir);
    if (*count)
        qsort(*out, *count, sizeof **out, by_name);
    return st;
}

gt_status token_split_open_folder(token_split *out, const char *folder, const char *word, uint32_t vocab, int bits)
{
    char **paths;
    size_t count;
    memset(out, 0, sizeof *out);
    gt_status st = find_shards(&paths, &count, folder, word);
    if (!st)
        st = token_split_open_as(out, (const char *const *)paths, count, vocab, bits);
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    free(paths);
    return st;
}

gt_status token_split_append(token_split *out, token_split *s)
{
    token_file *files = realloc(out->files, (out->file_count + s->file_count + 1) * sizeof *files);
    if (!files)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of %zu token files", out->file_count + s->file_count);
    if (s->file_count)
        memcpy(files + out->file_count, s->files, s->file_count * sizeof *files);
    out->files = files;
    out->file_count += s->file_count;
    out->count += s->count;
    free(s->files);
    memset(s, 0, sizeof *s);
    return GT_OK;
}

uint32_t token_file_id(const token_file *f, uint64_t i)
{
    uint16_t narrow;
    uint32_t wide;
    if (f->width == 2) {
        memcpy(&narrow, f->data + 2 * i, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, f->data + 4 * i, sizeof wide);
    return wide;
}

gt_status token_split_read(const token_split *s, uint64_t first, size_t count, int32_t *out)
{
    assert(!s->parts && first <= s->count && count <= s->count - first);
    const uint32_t bound = s->vocab ? s->vocab : (uint32_t)INT32_MAX;
    for (size_t i = 0; count && i < s->file_count; i++) {
        const token_file *f = &s->files[i];
        if (first >= f->count) {
            first -= f->count;
            continue;
        }
        uint64_t n = f->count - first < count ? f->count - first : count;
        for (uint64_t k = 0; k < n; k++) {
            uint32_t id = token_file_id(f, first + k);
            if (id >= bound)
                return gt_fail(GT_FORMAT,
                               "cannot read token file '%s': token %llu is id %u, the "
                               "vocabulary ends at %u",
                               f->map.path, (unsigned long long)(first + k), id, bound - 1);
            out[k] = (int32_t)id;
        }
        out += n;
        count -= (size_t)n;
        first = 0;
    }
    return GT_OK;
}

/* Ids [first, first + count) as they are, unchecked; marks are above all ids. */
static void copy_ids(const token_split *s, uint64_t first, size_t count, uint32_t *out)
{
    for (size_t i = 0; count && i < s->file_count; i++) {
        const token_file *f = &s->files[i];
        for (; count && first < f->count; count--, first++)
            *out++ = token_file_id(f, first) | (s->marks ? token_marks_at(f, first) << 28 : 0);
        first -= f->count;
    }
}

/* Of the parts and their weights. */
static uint64_t mixture_hash(const token_split *s)
{
    uint64_t mixed[3] = { 0, 0, 0 };
    for (size_t i = 0; i < s->part_count; i++) {
        mixed[1] = token_split_hash(&s->parts[i].split);
        memcpy(&mixed[2], &s->parts[i].weight, sizeof mixed[2]);
        mixed[0] = gt_hash(mixed, sizeof mixed);
    }
    return mixed[0];
}

uint64_t token_split_hash(const token_split *s)
{
    if (s->parts)
        return mixture_hash(s);
    enum { BLOCK = 2048, BLOCKS = 256 };
    uint32_t ids[BLOCK];
    uint64_t mixed[2] = { 0, s->count };
    const int whole = s->count <= TOKEN_HASH_WHOLE;
    const uint64_t blocks = whole ? (s->count + BLOCK - 1) / BLOCK : BLOCKS;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t last = whole ? i * BLOCK : s->count - BLOCK;
        const uint64_t at = whole || i == blocks - 1 ? last : last / (BLOCKS - 1) * i;
        const size_t n = s->count - at < BLOCK ? (size_t)(s->count - at) : BLOCK;
        copy_ids(s, at, n, ids);
        mixed[1] = gt_hash(ids, n * sizeof *ids);
        mixed[0] = gt_hash(mixed, sizeof mixed);
    }
    mixed[1] = s->count;
    mixed[0] = gt_hash(mixed, sizeof mixed);
    mixed[1] = s->labelled ? token_marks_label_hash(s) : 0;
    return s->labelled ? gt_hash(mixed, sizeof mixed) : mixed[0];
}

struct token_writer {
    char *folder, *name;
    size_t form;
    uint64_t shard_tokens, total, in_shard;
    unsigned shard;
    gt_writer *file;                    /* NULL: the next token opens a shard */
    token_marks_writer marks;
};

void token_writer_abandon(token_writer *w)
{
    if (!w)
        return;
    gt_writer_abandon(w->file);
    token_marks_release(&w->marks);
    free(w->folder);
    free(w->name);
    free(w);
}

gt_status token_writer_open(token_writer **out, const char *folder, const char *name, uint32_t vocab,
                            uint64_t shard_tokens)
{
    assert(vocab && shard_tokens <= INT32_MAX);
    *out = NULL;
    token_writer *w = calloc(1, sizeof *w);
    if (w) {
        w->folder = strdup(folder);
        w->name = strdup(name);
        w->form = vocab > 65536;
        w->shard_tokens = shard_tokens ? shard_tokens : SHARD_TOKENS;
    }
    if (!w || !w->folder || !w->name) {
        token_writer_abandon(w);
        return gt_fail(GT_NO_MEMORY, "cannot write tokens to '%s': no memory for its name", folder);
    }
    *out = w;
    return GT_OK;
}

static gt_status shard_path(char **path, const token_writer *w)
{
    char name[128];
    snprintf(name, sizeof name, "%s-%06u.bin", w->name, w->shard);
    *path = gt_path_join(w->folder, name);
    return *path ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot write tokens to '%s': no memory for a path", w->folder);
}

static gt_status begin_shard(token_writer *w)
{
    static const int32_t header[HEADER_WORDS];
    char *path = NULL;
    gt_status st = shard_path(&path, w);
    if (!st)
        st = gt_writer_open(&w->file, path);
    free(path);
    return st ? st : gt_writer_put(w->file, header, sizeof header);
}

static gt_status end_shard(token_writer *w)
{
    int32_t head[3] = { forms[w->form].magic, forms[w->form].version, (int32_t)w->in_shard };
    gt_writer *file = w->file;
    char *path = NULL;
    gt_status st = gt_writer_patch(file, 0, head, sizeof head);
    if (!st)
        st = shard_path(&path, w);
    if (!st)
        st = token_marks_write(&w->marks, path);
    free(path);
    w->file = NULL;
    w->in_shard = 0;
    w->shard++;
    if (st) {
        gt_writer_abandon(file);
        return st;
    }
    return gt_writer_commit(file);
}

/* Writes ids of one shard, narrowed if they are. */
static gt_status put_ids(token_writer *w, const uint32_t *ids, size_t count)
{
    enum { BLOCK = 4096 };
    uint16_t narrow[BLOCK];
    if (forms[w->form].width == 4)
        return gt_writer_put(w->file, ids, count * sizeof *ids);
    for (size_t at = 0; at < count;) {
        size_t n = count - at < BLOCK ? count - at : BLOCK;
        for (size_t i = 0; i < n; i++)
            narrow[i] = (uint16_t)ids[at + i];
        gt_status st = gt_writer_put(w->file, narrow, n * sizeof *narrow);
        if (st)
            return st;
        at += n;
    }
    return GT_OK;
}

void token_writer_marks(token_writer *w, unsigned marks, int labelled)
{
    assert(!w->total);
    w->marks.marks = marks;
    w->marks.labelled = labelled;
}

gt_status token_writer_put(token_writer *w, const uint32_t *ids, size_t count)
{
    return token_writer_put_marked(w, ids, NULL, count);
}

/* A shard that is full is ended by the next token: the label of the document that ended in it comes before. */
gt_status token_writer_label(token_writer *w, int32_t label)
{
    assert(w->file && w->marks.labelled);
    token_marks_collect_label(&w->marks, label);
    return GT_OK;
}

gt_status token_writer_put_marked(token_writer *w, const uint32_t *ids, const unsigned char *marks, size_t count)
{
    while (count) {
        gt_status st = w->file && w->in_shard == w->shard_tokens ? end_shard(w) : GT_OK;
        if (!st && !w->file)
            st = begin_shard(w);
        if (st)
            return st;
        uint64_t room = w->shard_tokens - w->in_shard;
        size_t n = count < room ? count : (size_t)room;
        st = put_ids(w, ids, n);
        if (st)
            return st;
        token_marks_collect(&w->marks, marks, n);
        ids += n;
        marks = marks ? marks + n : NULL;
        count -= n;
        w->in_shard += n;
        w->total += n;
    }
    return GT_OK;
}

uint64_t token_writer_count(const token_writer *w)
{
    return w->total;
}

gt_status token_writer_commit(token_writer *w)
{
    gt_status st = w->file ? end_shard(w) : GT_OK;
    token_writer_abandon(w);
    return st;
}
