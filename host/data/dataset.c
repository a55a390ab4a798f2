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
#include "host/data/file_hash.h"
#include "host/data/labelled.h"
#include "host/data/sources.h"
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
    chat_template_release(d->chat);
    for (int i = 0; i < d->label_count; i++)
        free(d->labels[i]);
    free(d->labels);
    free(d->relabel);
    token_split_close(&d->train);
    token_split_close(&d->val);
    memset(d, 0, sizeof *d);
}

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "cannot open data '%s': no memory for the paths in it", path);
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

static gt_status take_labels(data_set *d, const json_t *summary, const char *folder)
{
    const json_t *names = json_object_get(summary, "labels");
    const size_t count = json_array_size(names);
    if (!count || d->labels)
        return GT_OK;
    d->labels = calloc(count, sizeof *d->labels);
    for (size_t i = 0; d->labels && i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        d->labels[i] = name ? strdup(name) : NULL;
        d->label_count += d->labels[i] != NULL;
        if (!d->labels[i])
            break;
    }
    return d->label_count == (int)count
               ? GT_OK
               : gt_fail(GT_FORMAT,
                         "cannot use data '%s': the labels in its tokens.json are no "
                         "list of names",
                         folder);
}

/* What tokens.json says must be what is there; a folder without one says nothing. */
static gt_status check_summary(data_set *d, const char *folder)
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
    if (!st)
        st = take_labels(d, root, folder);
    d->train_documents = (uint64_t)json_integer_value(json_object_get(root, "train_documents"));
    d->val_documents = (uint64_t)json_integer_value(json_object_get(root, "val_documents"));
out:
    json_decref(root);
    free(text);
    free(path);
    return st;
}

/* The template that was written with the tokens, for the run. */
static gt_status take_chat(data_set *d, const char *folder)
{
    char *path = gt_path_join(folder, "tokenizer/chat_template.jinja"), *own = gt_path_join(folder, "tokenizer");
    gt_status st = path && own ? GT_OK : no_memory(folder);
    if (!st && gt_path_exists(path))
        st = chat_template_open(&d->chat, own);
    free(path);
    free(own);
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
    if (!st)
        st = take_chat(d, folder);
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

/* Adds to a hash what a file holds. */
static gt_status mix_file(uint64_t mixed[2], const char *path)
{
    uint64_t size, hash;
    gt_status st = data_file_hash(path, &size, &hash);
    if (st)
        return st;
    if (!size)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", path);
    mixed[1] = hash ^ size;
    mixed[0] = gt_hash(mixed, 2 * sizeof *mixed);
    return st;
}

static void mix_text(uint64_t mixed[2], const char *text)
{
    mixed[1] = text ? gt_hash(text, strlen(text)) : 1;
    mixed[0] = gt_hash(mixed, 2 * sizeof *mixed);
}

/* Several files, or records: their bytes, which of them validate, and what is read of them. */
static gt_status hash_sources(uint64_t *hash, const data_source *src, const data_request *r, const chat_template *chat)
{
    uint64_t mixed[2] = { r->keys.format, 0 };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < src->file_count + src->val_count; i++) {
        const char *path = i < src->file_count ? src->files[i] : src->val_files[i - src->file_count];
        st = mix_file(mixed, path);
        mixed[1] = (uint64_t)data_format_of(path) * 2 + (i < src->file_count);
        mixed[0] = gt_hash(mixed, sizeof mixed);
    }
    mix_text(mixed, r->keys.text);
    mix_text(mixed, r->keys.pair);
    mix_text(mixed, r->keys.label);
    mixed[1] = chat ? chat_template_hash(chat) : 0;
    *hash = gt_hash(mixed, sizeof mixed);
    return st;
}

static data_format format_of(const data_request *r, const char *path)
{
    return r->keys.format ? r->keys.format : data_format_of(path);
}

static int has_records(const data_source *src, const data_request *r)
{
    for (size_t i = 0; i < src->file_count + src->val_count; i++)
        if (format_of(r, i < src->file_count ? src->files[i] : src->val_files[i - src->file_count]) != DATA_FORMAT_TEXT)
            return 1;
    return 0;
}

/* The name of the cache entry of texts. */
static gt_status cache_key(char key[32], const data_source *src, const char *spec, const tokenizer *t,
                           const chat_template *chat, const data_request *r)
{
    uint64_t parts[4] = { 0, 0, t ? tokenizer_hash(t) : gt_hash(spec, strlen(spec)), CACHE_FORMAT };
    gt_status st;
    if (src->file_count > 1 || src->val_count || has_records(src, r)) {
        st = hash_sources(&parts[1], src, r, chat);
        parts[0] = 1;
    } else {
        st = data_file_hash(src->files[0], &parts[0], &parts[1]);
        if (st)
            return st;
        if (!parts[0])
            st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", src->files[0]);
    }
    snprintf(key, 32, "%016llx%s", (unsigned long long)gt_hash(parts, sizeof parts), r->whole ? "-whole" : "");
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

/* What texts are tokenized with. */
typedef struct reading_with {
    const char *spec;
    tokenizer *given;                   /* NULL: is to be trained */
    chat_template *chat;                /* NULL: none; why tells */
    char *why;
} reading_with;

static void reading_release(reading_with *w)
{
    tokenizer_close(w->given);
    chat_template_release(w->chat);
    free(w->why);
}

/* A template that cannot be read is no matter until there is a chat. */
static gt_status find_chat(reading_with *w, const data_source *src, const data_request *r)
{
    const char *folder = gt_path_is_folder(w->spec) ? w->spec : NULL;
    char *within = folder ? gt_path_join(folder, "tokenizer") : NULL;
    gt_status st = GT_OK;
    if (!has_records(src, r) || r->keys.label)
        ;
    else if (r->chat_template)
        st = chat_template_open_file(&w->chat, r->chat_template, folder);
    else if (folder && chat_template_open(&w->chat, within && gt_path_is_folder(within) ? within : folder)) {
        w->why = strdup(gt_message());
        gt_message_clear();
    }
    free(within);
    return st;
}

static gt_status tokenize_into(const char *folder, const data_source *src, const reading_with *w, const data_request *r)
{
    tokenizer *trained = NULL;
    char scratch[4096];
    const tokenize_options o = {
        .files = (const char *const *)src->files,
        .file_count = src->file_count,
        .val_files = (const char *const *)src->val_files,
        .val_file_count = src->val_count,
        .keys = r->keys,
        .chat = w->chat,
        .chat_why = w->why,
        .progress = r->progress,
        .val_fraction = r->whole ? 0.0 : DATA_VAL_FRACTION,
        .context = r->context
    };
    tokenize_result ignored;
    gt_status st = gt_folder_remove(folder);
    snprintf(scratch, sizeof scratch, "%s.partial-%ld-text", folder, (long)getpid());
    if (!st && !w->given)
        st = tokenize_train(&trained, w->spec, &o, scratch);
    if (!st)
        st = tokenize(w->given ? w->given : trained, folder, &o, &ignored);
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

/* Options that would do nothing. */
static gt_status check_keys(const data_source *src, const data_request *r)
{
    const struct {
        const char *option, *value;
    } given[] = { { "text-key", r->keys.text },
                  { "text-pair-key", r->keys.pair },
                  { "label-key", r->keys.label },
                  { "chat-template", r->chat_template } };
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i].value && (!src->files || !has_records(src, r)))
            return gt_fail(GT_MISUSE, "option --%s is for records (JSONL, CSV, TSV), and '%s' holds %s; leave it out%s",
                           given[i].option, src->name, src->files ? "text" : "tokens",
                           src->files ? ", or say --data-format" : "");
    if (r->keys.format && !src->files)
        return gt_fail(GT_MISUSE, "option --data-format is for texts and records, and '%s' holds tokens; leave it out",
                       src->name);
    return GT_OK;
}

static gt_status open_texts(data_set *d, const data_source *src, const data_request *r)
{
    reading_with w = { .spec = r->spec ? r->spec : "byte" };
    char *cache = NULL, *folder = NULL, *lock_path = NULL, key[32], lock_name[48];
    int held = -1;
    gt_status st = tokenizer_needs_text(w.spec) ? GT_OK : tokenizer_open(&w.given, w.spec);
    if (!st)
        st = find_chat(&w, src, r);
    if (!st)
        st = cache_key(key, src, w.spec, w.given, w.chat, r);
    if (!st)
        st = gt_cache_folder(&cache, "tokens");
    if (st)
        goto out;
    tidy_cache(cache);
    snprintf(lock_name, sizeof lock_name, "%s.lock", key);
    folder = gt_path_join(cache, key);
    lock_path = gt_path_join(cache, lock_name);
    if (!folder || !lock_path) {
        st = no_memory(src->name);
        goto out;
    }
    /* Who waits for the lock finds what its holder made. One that is damaged is looked at under the
     * lock only, so that it is told of once. */
    if (!gt_path_exists(folder) || open_entry(d, folder)) {
        gt_message_clear();
        st = lock(&held, lock_path);
        if (!st && !open_kept(d, folder)) {
            st = tokenize_into(folder, src, &w, r);
            if (!st)
                st = open_entry(d, folder);
        }
    }
out:
    if (held >= 0)
        close(held);
    reading_release(&w);
    free(cache);
    free(folder);
    free(lock_path);
    return st;
}

data_kind data_kind_of(const char *path)
{
    data_sources s;
    data_kind kind = DATA_TEXT;
    if (data_sources_read(&s, path)) {
        gt_message_clear();
        return gt_path_is_folder(path) ? DATA_FOLDER : DATA_TEXT;
    }
    int texts = 0;
    for (size_t i = 0; i < s.count; i++)
        texts |= s.list[i].files != NULL;
    if (!texts)
        kind = gt_path_is_folder(s.list[0].name) ? DATA_FOLDER : DATA_TOKEN_FILE;
    data_sources_release(&s);
    return kind;
}

char *data_brings_tokenizer(const char *path)
{
    data_sources s;
    char *found = NULL;
    if (data_sources_read(&s, path)) {
        gt_message_clear();
        return NULL;
    }
    for (size_t i = 0; i < s.count && !found; i++) {
        found = s.list[i].files ? NULL : gt_path_join(s.list[i].name, "tokenizer");
        if (found && !gt_path_is_folder(found)) {
            free(found);
            found = NULL;
        }
    }
    data_sources_release(&s);
    return found;
}

/* What ends a document, where no marks tell. */
static void note_end(data_set *d)
{
    const int64_t eot = d->tokenizer ? tokenizer_eot(d->tokenizer) : -1;
    d->train.end = d->val.end = eot < 0 ? 0 : (uint32_t)eot + 1;
}

static gt_status open_source(data_set *d, const data_source *src, const data_request *asked)
{
    data_request own = *asked, *r = &own;
    if (r->lenient && (!src->files || !has_records(src, r))) {
        r->keys = (reader_keys){ .format = src->files ? r->keys.format : DATA_FORMAT_AUTO };
        r->chat_template = NULL;
    }
    if (r->lenient && src->files)
        r->token_bits = 0;
    gt_status st = check_keys(src, r);
    if (!st && r->token_bits && src->files)
        return gt_fail(GT_MISUSE,
                       "--token-bits is for files of token ids, and '%s' is read as text; "
                       "leave it out, or name the file *.bin",
                       src->name);
    if (!st)
        st = src->files                     ? open_texts(d, src, r)
             : gt_path_is_folder(src->name) ? open_folder(d, src->name, r)
                                            : open_token_file(d, src->name, r);
    if (!st)
        note_end(d);
    return st;
}

static int same_labels(const data_set *a, const data_set *b)
{
    int same = a->label_count == b->label_count;
    for (int i = 0; same && i < a->label_count; i++)
        same = !strcmp(a->labels[i], b->labels[i]);
    return same;
}

/* Its splits become parts; the rest is that of the first. */
static gt_status mix_in(data_set *d, data_set *part, const data_source *src)
{
    gt_status st = GT_OK;
    if (part->tokenizer && d->tokenizer && tokenizer_hash(part->tokenizer) != tokenizer_hash(d->tokenizer))
        st = gt_fail(GT_MISMATCH, "cannot mix '%s': its tokens were made by another tokenizer than those before it",
                     src->name);
    else if (d->train.part_count && !same_labels(d, part))
        st = gt_fail(GT_MISMATCH, "cannot mix '%s': it has other labels than those before it", src->name);
    if (!st && part->train.count)
        st = token_split_mix(&d->train, &part->train, src->weight, src->name);
    else if (!st)
        st = gt_fail(GT_MISMATCH, "cannot mix '%s': it has nothing to train on", src->name);
    if (!st && part->val.count)
        st = token_split_mix(&d->val, &part->val, src->weight, src->name);
    if (st || d->tokenizer_path)
        return st;
    d->tokenizer = part->tokenizer;
    d->tokenizer_path = part->tokenizer_path;
    d->labels = part->labels;
    d->label_count = part->label_count;
    part->tokenizer = NULL;
    part->tokenizer_path = NULL;
    part->labels = NULL;
    part->label_count = 0;
    return GT_OK;
}

/* Texts are read with the tokenizer that is asked for or, if none is, with the one that tokens among them bring. */
static gt_status open_mixture(data_set *d, const data_sources *s, const char *path, const data_request *r)
{
    data_request each = *r;
    char *brought = r->spec ? NULL : data_brings_tokenizer(path);
    gt_status st = GT_OK;
    if (r->spec && tokenizer_needs_text(r->spec))
        st = gt_fail(GT_MISUSE,
                     "cannot train tokenizer '%s' on a mixture; make one of a text with `geartrain tokenize`, and name "
                     "its folder with --tokenizer",
                     r->spec);
    each.spec = r->spec ? r->spec : brought;
    each.lenient = 1;
    for (size_t i = 0; !st && i < s->count; i++) {
        data_set part = { 0 };
        st = open_source(&part, &s->list[i], &each);
        if (!st)
            st = mix_in(d, &part, &s->list[i]);
        if (!st && part.chat && !d->chat) {
            d->chat = part.chat;
            part.chat = NULL;
        }
        data_close(&part);
    }
    free(brought);
    return st;
}

gt_status data_open_as(data_set *out, const char *path, const data_request *r)
{
    data_sources s;
    memset(out, 0, sizeof *out);
    gt_status st = data_sources_read(&s, path);
    if (st)
        return st;
    st = s.mixed ? open_mixture(out, &s, path, r) : open_source(out, &s.list[0], r);
    data_sources_release(&s);
    if (st)
        data_close(out);
    return st;
}

gt_status data_check_labelled(const data_set *d, const char *name)
{
    return d->label_count
               ? GT_OK
               : gt_fail(GT_MISMATCH,
                         "'%s' has no labels, which --task classify needs; give CSV, TSV or JSONL and name where they "
                         "are: --label-key KEY",
                         name);
}

gt_status data_open(data_set *out, const char *path, const char *spec, data_progress progress, void *context)
{
    const data_request r = { .spec = spec, .progress = progress, .context = context };
    return data_open_as(out, path, &r);
}

static void relabel(token_split *s, const int32_t *to, int count)
{
    s->relabel = to;
    s->relabels = count;
    for (size_t i = 0; i < s->part_count; i++)
        relabel(&s->parts[i].split, to, count);
}

gt_status data_name_labels(data_set *d, const char *const *names, int count, const char *name)
{
    int32_t *to = calloc((size_t)d->label_count + 1, sizeof *to);
    if (!to)
        return gt_fail(GT_NO_MEMORY, "no memory for the %d labels of '%s'", d->label_count, name);
    for (int i = 0; i < d->label_count; i++) {
        while (to[i] < count && strcmp(names[to[i]], d->labels[i]))
            to[i]++;
        if (to[i] == count) {
            gt_status st = gt_fail(GT_MISMATCH,
                                   "'%s' has label '%s', which is none of the %d that are learned, as '%s'; give data "
                                   "with those",
                                   name, d->labels[i], count, count ? names[0] : "");
            free(to);
            return st;
        }
    }
    free(d->relabel);
    d->relabel = to;
    relabel(&d->train, to, d->label_count);
    relabel(&d->val, to, d->label_count);
    return GT_OK;
}
