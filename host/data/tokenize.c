/* SPDX-License-Identifier: MIT */
/* host/data/tokenize.c - from text to shards, once over the text to count its characters
 * and once to encode it.
 *
 *   files     [ a.txt            ][ b.txt      ][ c.txt              ]
 *   split     [ train                                   ][ val       ]
 *   encoded   [ a ] eot [ b ] eot [ c up to the split   ][ c from it ]
 *
 * The split is a place in the text, not among the tokens: a word may not reach from one
 * split into the other, and another tokenizer cuts at the same character.               */
#include "host/data/tokenize.h"

#include "host/base/file.h"
#include "host/data/foreign.h"
#include "host/data/tokens.h"
#include "host/data/utf8.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)4 << 20)

typedef struct job {
    tokenizer *tokenizer;
    const tokenize_options *options;
    gt_map *maps;                       /* files, then val_files */
    size_t map_count;
    uint64_t total, done;               /* bytes */
    token_ids ids;
} job;

static gt_status no_memory(const char *folder)
{
    return gt_fail(GT_NO_MEMORY, "cannot write tokens to '%s': no memory for the paths in it", folder);
}

static gt_status open_texts(job *j)
{
    const tokenize_options *o = j->options;
    gt_status st = GT_OK;
    j->maps = calloc(o->file_count + o->val_file_count + 1, sizeof *j->maps);
    if (!j->maps)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of %zu texts", o->file_count + o->val_file_count);
    for (size_t i = 0; i < o->file_count + o->val_file_count && !st; i++) {
        const char *path = i < o->file_count ? o->files[i] : o->val_files[i - o->file_count];
        st = gt_map_open(&j->maps[i], path);
        if (!st && !j->maps[i].size)
            st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", path);
        if (!st)
            st = data_foreign_check(&j->maps[i], DATA_AS_TEXT);
        j->map_count++;
        j->total += j->maps[i].size;
    }
    return st;
}

/* Encodes bytes [from, to) of a file. */
static gt_status encode(job *j, const gt_map *file, size_t from, size_t to, token_writer *out)
{
    const size_t usual = j->options->chunk ? j->options->chunk : CHUNK;
    for (size_t at = from, chunk = usual; at < to;) {
        size_t used, left = to - at, size = left < chunk ? left : chunk;
        j->ids.count = 0;
        gt_status st = tokenizer_encode_part(j->tokenizer, file->data + at, size, size == left, &used, &j->ids);
        if (st)
            return gt_fail_in(st, "cannot tokenize '%s': byte %zu", file->path, at + used);
        st = token_writer_put(out, j->ids.data, j->ids.count);
        if (st)
            return st;
        chunk = used ? usual : 2 * chunk;       /* a word longer than the chunk */
        at += used;
        j->done += used;
        if (j->options->progress && j->options->progress(j->options->context, j->done, j->total))
            return gt_fail(GT_INTERRUPTED, "interrupted while tokenizing '%s'", file->path);
    }
    return GT_OK;
}

static gt_status put_end(job *j, token_writer *out)
{
    int64_t eot = tokenizer_eot(j->tokenizer);
    uint32_t id = (uint32_t)eot;
    return eot < 0 ? GT_OK : token_writer_put(out, &id, 1);
}

/* Finds file and byte where validation begins; the number of files if nowhere. */
static void find_split(const job *j, size_t *file, size_t *byte)
{
    const tokenize_options *o = j->options;
    uint64_t characters = 0;
    *file = o->file_count;
    *byte = 0;
    if (o->val_file_count || o->val_fraction <= 0.0)
        return;
    for (size_t i = 0; i < o->file_count; i++)
        characters += utf8_count(j->maps[i].data, j->maps[i].size);
    uint64_t train = (uint64_t)((1.0 - o->val_fraction) * (double)characters);
    for (*file = 0; *file < o->file_count; ++*file) {
        uint64_t here = utf8_count(j->maps[*file].data, j->maps[*file].size);
        if (train < here) {
            *byte = utf8_offset(j->maps[*file].data, j->maps[*file].size, train);
            return;
        }
        train -= here;
    }
}

static gt_status encode_all(job *j, token_writer *train, token_writer *val)
{
    const size_t files = j->options->file_count;
    size_t split, byte;
    gt_status st = GT_OK;
    find_split(j, &split, &byte);
    for (size_t i = 0; i < j->map_count && !st; i++) {
        const gt_map *file = &j->maps[i];
        size_t border = i < split ? file->size : i == split && i < files ? byte : 0;
        if (i > 0 && border)
            st = put_end(j, train);
        if (!st)
            st = encode(j, file, 0, border, train);
        if (!st && border < file->size && token_writer_count(val))
            st = put_end(j, val);
        if (!st)
            st = encode(j, file, border, file->size, val);
    }
    return st;
}

static gt_status hash_of(uint64_t *hash, const char *folder, const char *name)
{
    token_split s;
    gt_status st = token_split_open_folder(&s, folder, name, 0, 0);
    *hash = st ? 0 : token_split_hash(&s);
    token_split_close(&s);
    return st;
}

static gt_status write_summary(const job *j, const char *folder, const tokenize_result *r)
{
    char text[512];
    uint64_t train, val;
    gt_status st = hash_of(&train, folder, "train");
    if (!st)
        st = hash_of(&val, folder, "val");
    if (st)
        return st;
    int n = snprintf(text, sizeof text,
                     "{\"format\": 1, \"tokenizer\": \"%s\", "
                     "\"tokenizer_hash\": \"%016llx\", \"vocab\": %u, \"train_tokens\": %llu, "
                     "\"val_tokens\": %llu, \"train_hash\": \"%016llx\", \"val_hash\": \"%016llx\", "
                     "\"bytes\": %llu}\n",
                     tokenizer_name(j->tokenizer), (unsigned long long)tokenizer_hash(j->tokenizer),
                     tokenizer_vocab(j->tokenizer), (unsigned long long)r->train_tokens,
                     (unsigned long long)r->val_tokens, (unsigned long long)train, (unsigned long long)val,
                     (unsigned long long)r->bytes);
    assert(n > 0 && (size_t)n < sizeof text);
    char *path = gt_path_join(folder, "tokens.json");
    st = path ? gt_file_write(path, text, (size_t)n) : no_memory(folder);
    free(path);
    return st;
}

static gt_status save_tokenizer(const job *j, const char *folder)
{
    char *path = gt_path_join(folder, "tokenizer");
    gt_status st = path ? tokenizer_save(j->tokenizer, path) : no_memory(folder);
    free(path);
    return st;
}

/* Fills an empty folder. */
static gt_status fill(job *j, const char *folder, tokenize_result *r)
{
    token_writer *train = NULL, *val = NULL;
    const uint32_t vocab = tokenizer_vocab(j->tokenizer);
    gt_status st = token_writer_open(&train, folder, "train", vocab, j->options->shard_tokens);
    if (!st)
        st = token_writer_open(&val, folder, "val", vocab, j->options->shard_tokens);
    if (!st)
        st = encode_all(j, train, val);
    if (st)
        goto out;
    *r = (tokenize_result){ j->total, token_writer_count(train), token_writer_count(val) };
    st = token_writer_commit(train);
    train = NULL;
    if (st)
        goto out;
    st = token_writer_commit(val);
    val = NULL;
    if (!st)
        st = save_tokenizer(j, folder);
    if (!st)
        st = write_summary(j, folder, r);
out:
    token_writer_abandon(train);
    token_writer_abandon(val);
    return st;
}

static int is_empty(const char *folder)
{
    int names = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return 0;
    for (struct dirent *e; (e = readdir(dir));)
        names += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(dir);
    return !names;
}

static gt_status holds_others(const char *folder, const char *what)
{
    return gt_fail(GT_MISUSE,
                   "cannot write tokens to '%s': it holds %s already; name a new folder, or "
                   "remove that one",
                   folder, what);
}

/* May this path be replaced by a token folder? By one of the same tokens only; those of another
 * tokenizer are known before the work is done. */
static gt_status check_target(const char *folder, const tokenizer *t)
{
    if (!gt_path_exists(folder) || is_empty(folder))
        return GT_OK;
    char *summary = gt_path_join(folder, "tokens.json");
    if (!summary)
        return no_memory(folder);
    json_t *root = json_load_file(summary, 0, NULL);
    const char *hash = json_string_value(json_object_get(root, "tokenizer_hash"));
    const int ours = gt_path_exists(summary);
    const int same = hash && strtoull(hash, NULL, 16) == tokenizer_hash(t);
    json_decref(root);
    free(summary);
    return !ours   ? holds_others(folder, "something else")
           : !same ? holds_others(folder, "tokens of another tokenizer")
                   : GT_OK;
}

/* Do both say that they hold the same tokens? */
static gt_status check_same(const char *made, const char *folder)
{
    char *a = gt_path_join(made, "tokens.json"), *b = gt_path_join(folder, "tokens.json");
    gt_status st = a && b ? GT_OK : no_memory(folder);
    if (!st && gt_path_exists(b)) {
        json_t *now = json_load_file(a, 0, NULL), *then = json_load_file(b, 0, NULL);
        if (!now || !json_equal(now, then))
            st = holds_others(folder, "other tokens");
        json_decref(now);
        json_decref(then);
    }
    free(a);
    free(b);
    return st;
}

/* Puts the finished folder in its place. */
static gt_status put_in_place(const char *made, const char *folder)
{
    gt_status st = check_same(made, folder);
    if (!st)
        st = gt_folder_remove(folder);
    if (!st && rename(made, folder) != 0)
        st = gt_fail(GT_IO, "cannot rename '%s' to '%s': %s", made, folder, strerror(errno));
    return st;
}

gt_status tokenize(tokenizer *t, const char *folder, const tokenize_options *o, tokenize_result *result)
{
    job j = { .tokenizer = t, .options = o };
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    char *target = strndup(folder, length), *made = malloc(length + 32);
    gt_status st = target && made && length ? GT_OK : no_memory(folder);
    if (!st)
        st = check_target(target, t);
    if (!st)
        st = open_texts(&j);
    if (!st) {
        snprintf(made, length + 32, "%s.partial-%ld", target, (long)getpid());
        st = gt_folder_remove(made);    /* of a process that was killed and had this number */
        if (!st)
            st = gt_folder_make(made);
        if (!st)
            st = fill(&j, made, result);
        if (!st)
            st = put_in_place(made, target);
        if (st) {                       /* the sentence of the failure is kept */
            gt_saved_message why;
            gt_message_save(&why);
            gt_folder_remove(made);
            gt_message_restore(&why);
        }
    }
    for (size_t i = 0; i < j.map_count; i++)
        gt_map_close(&j.maps[i]);
    free(j.maps);
    token_ids_release(&j.ids);
    free(target);
    free(made);
    return st;
}
