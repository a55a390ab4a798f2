/* SPDX-License-Identifier: MIT */
/* host/data/dataset.c - tells the kinds of data apart and keeps tokenized texts.
 *
 *   CACHE/tokens/K.lock      held while K is being made
 *   CACHE/tokens/K/          a token folder; K = hash of (text, tokenizer or spec, split)
 *
 * The key of a trained tokenizer is its spec: it is a function of the text, which is in the
 * key as well. The folder appears by a rename, so one that is there is whole unless something
 * damaged it later: then it is made again. The lock spares the other ranks of a node the work. */
#include "host/data/dataset.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/data/foreign.h"
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
    free(d->tokenizer_path);
    token_split_close(&d->train);
    token_split_close(&d->val);
    memset(d, 0, sizeof *d);
}

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot open data '%s': no memory for the paths in it", path);
}

static int ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && !strcmp(text + a - b, end);
}

static gt_status open_known(data_set *d, const char *spec)
{
    d->tokenizer_path = strdup(spec);
    return d->tokenizer_path ? tokenizer_open(&d->tokenizer, spec) : no_memory(spec);
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
        return open_known(d, spec);
    char *own = gt_path_join(folder, "tokenizer");
    if (!own)
        return no_memory(folder);
    gt_status st = gt_path_is_folder(own) ? open_known(d, own) : GT_OK;
    free(own);
    if (!st && spec && (!d->tokenizer || !names_kind(spec, d->tokenizer)))
        st = gt_fail(GT_MISUSE, "cannot train tokenizer '%s' on '%s': it holds tokens, not text", spec, folder);
    return st;
}

/* Folders of earlier versions have none. */
static int has_hash(const json_t *summary, const char *key, const token_split *s)
{
    const char *hash = json_string_value(json_object_get(summary, key));
    return !hash || strtoull(hash, NULL, 16) == token_split_hash(s);
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
        st = gt_fail(GT_MISMATCH,
                     "cannot use data '%s': its tokens were made by another "
                     "tokenizer (%s) than this %s one (%016llx)",
                     folder, hash, tokenizer_name(d->tokenizer), (unsigned long long)tokenizer_hash(d->tokenizer));
    else if (json_integer_value(json_object_get(root, "train_tokens")) != (json_int_t)d->train.count
             || json_integer_value(json_object_get(root, "val_tokens")) != (json_int_t)d->val.count)
        st = gt_fail(GT_FORMAT,
                     "cannot use data '%s': its shards hold %llu + %llu tokens, not "
                     "what tokens.json says; copy the whole folder again",
                     folder, (unsigned long long)d->train.count, (unsigned long long)d->val.count);
    else if (!has_hash(root, "train_hash", &d->train) || !has_hash(root, "val_hash", &d->val))
        st = gt_fail(GT_FORMAT,
                     "cannot use data '%s': its shards hold other ids than tokens.json "
                     "says; copy the whole folder again",
                     folder);
out:
    json_decref(root);
    free(text);
    free(path);
    return st;
}

static gt_status open_folder(data_set *d, const char *folder, const data_request *r)
{
    gt_status st = open_tokenizer(d, folder, r->spec);
    uint32_t vocab = st || !d->tokenizer ? 0 : tokenizer_vocab(d->tokenizer);
    if (!st)
        st = token_split_open_folder(&d->train, folder, "train", vocab, r->token_bits);
    if (!st)
        st = token_split_open_folder(&d->val, folder, "val", vocab, r->token_bits);
    if (!st && !d->train.file_count && !d->val.file_count)
        st = gt_fail(GT_NOT_FOUND,
                     "cannot open data '%s': the folder holds no token files "
                     "(*train*.bin, *val*.bin)",
                     folder);
    if (!st)
        st = check_summary(d, folder);
    return st || !r->whole ? st : token_split_append(&d->train, &d->val);
}

static gt_status open_token_file(data_set *d, const char *path, const data_request *r)
{
    const char *spec = r->spec;
    if (spec && tokenizer_needs_text(spec))
        return gt_fail(GT_MISUSE, "cannot train tokenizer '%s' on '%s': it holds tokens, not text", spec, path);
    gt_status st = spec ? open_known(d, spec) : GT_OK;
    return st ? st
              : token_split_open_as(&d->train, &path, 1, d->tokenizer ? tokenizer_vocab(d->tokenizer) : 0,
                                    r->token_bits);
}

/* The name of the cache entry of a text. */
static gt_status cache_key(char key[32], const char *path, const char *spec, const tokenizer *t, int whole)
{
    gt_map map;
    gt_status st = gt_map_open(&map, path);
    if (st)
        return st;
    if (!map.size)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", path);
    else
        st = data_foreign_check(&map, DATA_AS_TEXT);
    const uint64_t parts[4] = { map.size, map.size ? gt_hash(map.data, map.size) : 0,
                                t ? tokenizer_hash(t) : gt_hash(spec, strlen(spec)), CACHE_FORMAT };
    snprintf(key, 32, "%016llx%s", (unsigned long long)gt_hash(parts, sizeof parts), whole ? "-whole" : "");
    gt_map_close(&map);
    return st;
}

/* Removes what was left half-made by a process that was killed: nobody holds the lock of its key. What
 * cannot be removed costs room only. */
static void tidy_cache(const char *cache)
{
    DIR *dir = opendir(cache);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const char *mark = strstr(e->d_name, ".partial-");
        char name[64];
        if (!mark || mark - e->d_name > 32)
            continue;
        snprintf(name, sizeof name, "%.*s.lock", (int)(mark - e->d_name), e->d_name);
        char *path = gt_path_join(cache, name), *left = gt_path_join(cache, e->d_name);
        const int fd = path && left ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
        if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && gt_folder_remove(left))
            gt_message_clear();
        if (fd >= 0)
            close(fd);
        free(path);
        free(left);
    }
    if (dir)
        closedir(dir);
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

static gt_status tokenize_into(const char *folder, const char *path, const char *spec, tokenizer *t,
                               const data_request *r)
{
    tokenizer *trained = NULL;
    gt_status st = gt_folder_remove(folder);
    if (!st && !t)
        st = tokenizer_train(&trained, spec, &path, 1, r->progress, r->context);
    if (!st) {
        const tokenize_options o = { .files = &path,
                                     .file_count = 1,
                                     .progress = r->progress,
                                     .val_fraction = r->whole ? 0.0 : DATA_VAL_FRACTION,
                                     .context = r->context };
        tokenize_result ignored;
        st = tokenize(t ? t : trained, folder, &o, &ignored);
    }
    tokenizer_close(trained);
    return st;
}

/* An entry of the cache folder has what a folder of the user's may lack. */
static gt_status open_entry(data_set *d, const char *folder)
{
    const data_request as_it_is = { 0 };
    char *summary = gt_path_join(folder, "tokens.json");
    gt_status st = !summary                  ? no_memory(folder)
                   : gt_path_exists(summary) ? GT_OK
                                             : gt_fail(GT_NOT_FOUND, "there is no '%s'", summary);
    free(summary);
    if (!st)
        st = open_folder(d, folder, &as_it_is);
    if (!st && !d->tokenizer)
        st = gt_fail(GT_NOT_FOUND, "there is no '%s/tokenizer'", folder);
    if (st)
        data_close(d);
    return st;
}

/* Opens what was kept of a text; 0 if nothing was, or it is damaged: then that is said. */
static int open_kept(data_set *d, const char *folder)
{
    if (!gt_path_exists(folder))
        return 0;
    if (!open_entry(d, folder))
        return 1;
    gt_log(GT_LOG_WARN, "data", "tokenizing anew, what was kept is damaged: %s", gt_message());
    gt_message_clear();
    return 0;
}

static gt_status open_text(data_set *d, const char *path, const data_request *r)
{
    tokenizer *given = NULL;
    const char *spec = r->spec ? r->spec : "byte";
    char *cache = NULL, *folder = NULL, *lock_path = NULL, key[32], lock_name[48];
    int held = -1;
    gt_status st = tokenizer_needs_text(spec) ? GT_OK : tokenizer_open(&given, spec);
    if (!st)
        st = cache_key(key, path, spec, given, r->whole);
    if (!st)
        st = gt_cache_folder(&cache, "tokens");
    if (st)
        goto out;
    tidy_cache(cache);
    snprintf(lock_name, sizeof lock_name, "%s.lock", key);
    folder = gt_path_join(cache, key);
    lock_path = gt_path_join(cache, lock_name);
    if (!folder || !lock_path) {
        st = no_memory(path);
        goto out;
    }
    /* Who waits for the lock finds what its holder made. One that is damaged is looked at under the
     * lock only, so that it is told of once. */
    if (!gt_path_exists(folder) || open_entry(d, folder)) {
        gt_message_clear();
        st = lock(&held, lock_path);
        if (!st && !open_kept(d, folder)) {
            st = tokenize_into(folder, path, spec, given, r);
            if (!st)
                st = open_entry(d, folder);
        }
    }
out:
    if (held >= 0)
        close(held);
    tokenizer_close(given);
    free(cache);
    free(folder);
    free(lock_path);
    return st;
}

data_kind data_kind_of(const char *path)
{
    if (gt_path_is_folder(path))
        return DATA_FOLDER;
    return token_file_has_header(path) || ends_with(path, ".bin") ? DATA_TOKEN_FILE : DATA_TEXT;
}

gt_status data_open_as(data_set *out, const char *path, const data_request *r)
{
    const data_kind kind = data_kind_of(path);
    gt_status st;
    memset(out, 0, sizeof *out);
    if (r->token_bits && kind == DATA_TEXT)
        return gt_fail(GT_MISUSE,
                       "--token-bits is for files of token ids, and '%s' is read as text; "
                       "leave it out, or name the file *.bin",
                       path);
    if (kind == DATA_FOLDER)
        st = open_folder(out, path, r);
    else if (kind == DATA_TOKEN_FILE)
        st = open_token_file(out, path, r);
    else
        st = open_text(out, path, r);
    if (st)
        data_close(out);
    return st;
}

gt_status data_open(data_set *out, const char *path, const char *spec, data_progress progress, void *context)
{
    const data_request r = { .spec = spec, .progress = progress, .context = context };
    return data_open_as(out, path, &r);
}
