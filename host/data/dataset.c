/* host/data/dataset.c - tells the kinds of data apart and keeps tokenized texts.
 *
 *   CACHE/tokens/K.lock      held while K is being made
 *   CACHE/tokens/K/          a token folder; K = hash of (text, tokenizer or spec, split)
 *
 * The key of a trained tokenizer is its spec: it is a function of the text, which is in the
 * key as well. The folder appears by a rename, so one that is there is whole; the lock
 * only spares the other ranks of a node the work.                                       */
#include "host/data/dataset.h"

#include "host/base/file.h"
#include "host/data/tokenize.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define CACHE_FORMAT 1u         /* goes up when the same key would give other tokens */

void data_close(data_set *d)
{
    if (!d)
        return;
    tokenizer_close(d->tokenizer);
    token_split_close(&d->train);
    token_split_close(&d->val);
    memset(d, 0, sizeof *d);
}

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot open data '%s': out of memory", path);
}

static int ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_paths(char **paths, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    free(paths);
}

/* The token files of a folder whose names hold `word`, sorted. */
static gt_status find_shards(char ***out, size_t *count, const char *folder, const char *word)
{
    *out = NULL;
    *count = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return gt_fail(GT_IO, "cannot open folder '%s': %s", folder, strerror(errno));
    gt_status st = GT_OK;
    for (struct dirent *e; !st && (e = readdir(dir)); ) {
        if (!ends_with(e->d_name, ".bin") || !strstr(e->d_name, word))
            continue;
        char **grown = realloc(*out, (*count + 1) * sizeof *grown);
        if (grown) {
            *out = grown;
            grown[*count] = gt_path_join(folder, e->d_name);
        }
        if (!grown || !grown[*count])
            st = no_memory(folder);
        else
            ++*count;
    }
    closedir(dir);
    if (*count)
        qsort(*out, *count, sizeof **out, by_name);
    return st;
}

static gt_status open_split(token_split *out, const char *folder, const char *word,
                            uint32_t vocab)
{
    char **paths;
    size_t count;
    gt_status st = find_shards(&paths, &count, folder, word);
    if (!st)
        st = token_split_open(out, (const char *const *)paths, count, vocab);
    free_paths(paths, count);
    return st;
}

/* "bpe:512" names the kind that "bpe" is. */
static int names_kind(const char *spec, const tokenizer *t)
{
    const char *kind = tokenizer_name(t);
    return !strncmp(spec, kind, strlen(kind));
}

/* Opens spec, else the folder's own tokenizer, else none. A spec that would train one is
 * fine if it is the kind that is there: the same command line then works for text and for
 * the tokens made of it. */
static gt_status open_tokenizer(data_set *d, const char *folder, const char *spec)
{
    if (spec && !tokenizer_needs_text(spec))
        return tokenizer_open(&d->tokenizer, spec);
    char *own = gt_path_join(folder, "tokenizer");
    if (!own)
        return no_memory(folder);
    gt_status st = gt_path_is_folder(own) ? tokenizer_open(&d->tokenizer, own) : GT_OK;
    free(own);
    if (!st && spec && (!d->tokenizer || !names_kind(spec, d->tokenizer)))
        st = gt_fail(GT_MISUSE, "cannot train tokenizer '%s' on '%s': it holds tokens, not text",
                     spec, folder);
    return st;
}

/* What tokens.json says must be what is there; a folder without one says nothing. */
static gt_status check_summary(const data_set *d, const char *folder)
{
    char *path = gt_path_join(folder, "tokens.json"), *text = NULL;
    size_t size;
    json_t *root = NULL;
    gt_status st = path ? GT_OK : no_memory(folder);
    if (st || !gt_path_exists(path))
        goto out;
    st = gt_file_read(&text, &size, path, 1 << 20);
    if (st)
        goto out;
    root = json_loadb(text, size, 0, NULL);
    const char *hash = json_string_value(json_object_get(root, "tokenizer_hash"));
    if (!hash) {
        st = gt_fail(GT_FORMAT, "cannot read '%s': it names no tokenizer_hash", path);
        goto out;
    }
    if (d->tokenizer && strtoull(hash, NULL, 16) != tokenizer_hash(d->tokenizer))
        st = gt_fail(GT_MISMATCH, "cannot use data '%s': its tokens were made by another "
                     "tokenizer (%s) than this %s one (%016llx)", folder, hash,
                     tokenizer_name(d->tokenizer),
                     (unsigned long long)tokenizer_hash(d->tokenizer));
    else if (json_integer_value(json_object_get(root, "train_tokens"))
             != (json_int_t)d->train.count
             || json_integer_value(json_object_get(root, "val_tokens")) != (json_int_t)d->val.count)
        st = gt_fail(GT_FORMAT, "cannot use data '%s': its shards hold %llu + %llu tokens, not "
                     "what tokens.json says; copy the whole folder again", folder,
                     (unsigned long long)d->train.count, (unsigned long long)d->val.count);
out:
    json_decref(root);
    free(text);
    free(path);
    return st;
}

static gt_status open_folder(data_set *d, const char *folder, const char *spec)
{
    gt_status st = open_tokenizer(d, folder, spec);
    uint32_t vocab = st || !d->tokenizer ? 0 : tokenizer_vocab(d->tokenizer);
    if (!st)
        st = open_split(&d->train, folder, "train", vocab);
    if (!st)
        st = open_split(&d->val, folder, "val", vocab);
    if (!st && !d->train.file_count && !d->val.file_count)
        st = gt_fail(GT_NOT_FOUND, "cannot open data '%s': the folder holds no token files "
                     "(*train*.bin, *val*.bin)", folder);
    return st ? st : check_summary(d, folder);
}

static gt_status open_token_file(data_set *d, const char *path, const char *spec)
{
    if (spec && tokenizer_needs_text(spec))
        return gt_fail(GT_MISUSE, "cannot train tokenizer '%s' on '%s': it holds tokens, not text",
                       spec, path);
    gt_status st = spec ? tokenizer_open(&d->tokenizer, spec) : GT_OK;
    return st ? st : token_split_open(&d->train, &path, 1,
                                      d->tokenizer ? tokenizer_vocab(d->tokenizer) : 0);
}

/* The name of the cache entry of a text. */
static gt_status cache_key(char key[32], const char *path, const char *spec, const tokenizer *t)
{
    gt_map map;
    gt_status st = gt_map_open(&map, path);
    if (st)
        return st;
    if (!map.size)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", path);
    uint64_t parts[4] = { map.size, map.size ? gt_hash(map.data, map.size) : 0,
                          t ? tokenizer_hash(t) : gt_hash(spec, strlen(spec)), CACHE_FORMAT };
    snprintf(key, 32, "%016llx", (unsigned long long)gt_hash(parts, sizeof parts));
    gt_map_close(&map);
    return st;
}

/* Waits for the lock file; *fd is closed to let go. */
static gt_status lock(int *fd, const char *path)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return gt_fail(GT_IO, "cannot create '%s': %s", path, strerror(errno));
    while (flock(*fd, LOCK_EX) != 0)
        if (errno != EINTR)
            return gt_fail(GT_IO, "cannot lock '%s': %s", path, strerror(errno));
    return GT_OK;
}

static gt_status tokenize_into(const char *folder, const char *path, const char *spec,
                               tokenizer *t, data_progress progress, void *context)
{
    tokenizer *trained = NULL;
    gt_status st = t ? GT_OK : tokenizer_train(&trained, spec, &path, 1, progress, context);
    if (!st) {
        const tokenize_options o = { .files = &path, .file_count = 1, .progress = progress,
                                     .val_fraction = DATA_VAL_FRACTION, .context = context };
        tokenize_result ignored;
        st = tokenize(t ? t : trained, folder, &o, &ignored);
    }
    tokenizer_close(trained);
    return st;
}

static gt_status open_text(data_set *d, const char *path, const char *spec,
                           data_progress progress, void *context)
{
    tokenizer *given = NULL;
    char *cache = NULL, *folder = NULL, *summary = NULL, *lock_path = NULL;
    char key[32], lock_name[48];
    int held = -1;
    gt_status st = tokenizer_needs_text(spec) ? GT_OK : tokenizer_open(&given, spec);
    if (!st)
        st = cache_key(key, path, spec, given);
    if (!st)
        st = gt_cache_folder(&cache, "tokens");
    if (st)
        goto out;
    snprintf(lock_name, sizeof lock_name, "%s.lock", key);
    folder = gt_path_join(cache, key);
    lock_path = gt_path_join(cache, lock_name);
    summary = folder ? gt_path_join(folder, "tokens.json") : NULL;
    if (!summary || !lock_path) {
        st = no_memory(path);
        goto out;
    }
    if (!gt_path_exists(summary)) {
        st = lock(&held, lock_path);
        if (!st && !gt_path_exists(summary))
            st = tokenize_into(folder, path, spec, given, progress, context);
    }
    if (!st)
        st = open_folder(d, folder, NULL);
out:
    if (held >= 0)
        close(held);
    tokenizer_close(given);
    free(cache);
    free(folder);
    free(summary);
    free(lock_path);
    return st;
}

gt_status data_open(data_set *out, const char *path, const char *spec, data_progress progress,
                    void *context)
{
    gt_status st;
    memset(out, 0, sizeof *out);
    if (gt_path_is_folder(path))
        st = open_folder(out, path, spec);
    else if (token_file_has_header(path) || ends_with(path, ".bin"))
        st = open_token_file(out, path, spec);
    else
        st = open_text(out, path, spec ? spec : "byte", progress, context);
    if (st)
        data_close(out);
    return st;
}
