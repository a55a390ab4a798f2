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
#include "host/data/tokenize_private.h"
#include "host/data/tokens.h"
#include "host/tokenizer/utf8.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK ((size_t)4 << 20)

static gt_status no_memory(const char *folder)
{
    return gt_fail(GT_NO_MEMORY, "cannot write tokens to '%s': no memory for paths and texts", folder);
}

/* ---- texts -------------------------------------------------------------------------------------------- */

/* What a file is; a text that is not packed is mapped. */
static gt_status open_input(tokenize_input *in, const char *path, const reader_keys *keys)
{
    gt_map map;
    gt_status st = gt_map_open(&map, path);
    if (st)
        return st;
    in->path = path;
    in->size = map.size;
    in->format = keys->format ? keys->format : data_format_of(path);
    in->packed = data_is_packed(&map);
    if (!map.size)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': it is empty", path);
    else if (!in->packed)
        st = data_foreign_check(&map, DATA_AS_TEXT);
    if (!st && !in->packed && in->format == DATA_FORMAT_TEXT)
        in->map = map;
    else
        gt_map_close(&map);
    return st;
}

static gt_status open_texts(tokenize_job *j)
{
    const tokenize_options *o = j->options;
    gt_status st = GT_OK;
    j->inputs = calloc(o->file_count + o->val_file_count + 1, sizeof *j->inputs);
    if (!j->inputs)
        return gt_fail(GT_NO_MEMORY, "no memory for the list of texts");
    for (size_t i = 0; i < o->file_count + o->val_file_count && !st; i++) {
        tokenize_input *in = &j->inputs[j->input_count++];
        st = open_input(in, i < o->file_count ? o->files[i] : o->val_files[i - o->file_count], &o->keys);
        j->total += in->size;
        j->records |= in->format != DATA_FORMAT_TEXT;
    }
    return st;
}

gt_status tokenize_told(tokenize_job *j, uint64_t done, const char *path)
{
    const tokenize_options *o = j->options;
    return o->progress && o->progress(o->context, done < j->total ? done : j->total, j->total)
               ? gt_fail(GT_INTERRUPTED, "interrupted while tokenizing '%s'", path)
               : GT_OK;
}

gt_status tokenize_mark(tokenize_job *j, size_t count, unsigned char mark)
{
    enum { RUN = 1024 };
    unsigned char run[RUN];
    memset(run, mark, sizeof run);
    j->marks.size = 0;
    for (size_t left = count; left; left -= left < RUN ? left : RUN)
        gt_text_put(&j->marks, run, left < RUN ? left : RUN);
    return j->marks.failed ? gt_fail(GT_NO_MEMORY, "no memory for marks of %zu tokens", count) : GT_OK;
}

/* Of texts beside records all is to be learned. */
static gt_status put_ids(tokenize_job *j, token_writer *out)
{
    if (!j->records)
        return token_writer_put(out, j->ids.data, j->ids.count);
    gt_status st = tokenize_mark(j, j->ids.count, 1u << TOKEN_ANSWERS);
    return st ? st : token_writer_put_marked(out, j->ids.data, (const unsigned char *)j->marks.data, j->ids.count);
}

static gt_status encode_chunk(tokenize_job *j, const tokenize_input *in, uint64_t at, const void *data, size_t size,
                              int last, size_t *used, token_writer *out)
{
    j->ids.count = 0;
    gt_status st = tokenizer_encode_part(j->tokenizer, data, size, last, used, &j->ids);
    return st ? gt_fail_in(st, "cannot tokenize '%s': byte %llu", in->path, (unsigned long long)(at + *used))
              : put_ids(j, out);
}

/* Of a mapped text. */
static gt_status encode_map(tokenize_job *j, const tokenize_input *in, size_t from, size_t to, token_writer *out)
{
    const size_t usual = j->options->chunk ? j->options->chunk : CHUNK;
    for (size_t at = from, chunk = usual; at < to;) {
        size_t used, left = to - at, size = left < chunk ? left : chunk;
        gt_status st = encode_chunk(j, in, at, in->map.data + at, size, size == left, &used, out);
        if (st)
            return st;
        chunk = used ? usual : 2 * chunk;       /* a word longer than the chunk */
        at += used;
        j->done += used;
        st = tokenize_told(j, j->done, in->path);
        if (st)
            return st;
    }
    return GT_OK;
}

/* Reads and drops. */
static gt_status pass_over(reader *r, void *buffer, size_t room, uint64_t bytes)
{
    gt_status st = GT_OK;
    for (size_t got = 1; !st && bytes && got; bytes -= got)
        st = reader_bytes(r, buffer, bytes < room ? (size_t)bytes : room, &got);
    return st;
}

/* Of a packed text: what was not used is moved to the front, and more is read behind it. */
static gt_status encode_stream(tokenize_job *j, const tokenize_input *in, uint64_t from, uint64_t to, token_writer *out)
{
    const reader_keys keys = { .format = DATA_FORMAT_TEXT };
    const uint64_t before = j->done;
    size_t room = j->options->chunk ? j->options->chunk : CHUNK, held = 0, got = 1;
    char *buffer = malloc(room);
    reader *r = NULL;
    uint64_t at = from;
    gt_status st = buffer ? reader_open(&r, in->path, &keys) : no_memory(in->path);
    if (!st)
        st = pass_over(r, buffer, room, from);
    while (!st && at + held <= to && (got || held)) {
        const uint64_t left = to - at - held;
        size_t used;
        st = reader_bytes(r, buffer + held, left < room - held ? (size_t)left : room - held, &got);
        held += got;
        if (st || !held)
            break;
        const int last = held < room || at + held == to;
        st = encode_chunk(j, in, at, buffer, held, last, &used, out);
        if (st)
            break;
        at += used;
        held -= used;
        memmove(buffer, buffer + used, held);
        if (last)
            break;
        if (!used) {                            /* a word longer than the chunk */
            char *grown = realloc(buffer, 2 * room);
            st = grown ? GT_OK : no_memory(in->path);
            buffer = grown ? grown : buffer;
            room *= 2;
        }
        if (!st)
            st = tokenize_told(j, before + reader_done(r), in->path);
    }
    reader_close(r);
    free(buffer);
    return st;
}

gt_status tokenize_text(tokenize_job *j, const tokenize_input *in, uint64_t from, uint64_t to, token_writer *out)
{
    if (!in->packed)
        return encode_map(j, in, (size_t)from, to < in->map.size ? (size_t)to : in->map.size, out);
    gt_status st = from < to ? encode_stream(j, in, from, to, out) : GT_OK;
    if (to == UINT64_MAX)
        j->done += in->size;
    return st;
}

/* Characters of a text; and the offset of one of them, where that is asked for (characters: if there are fewer). */
static gt_status count_characters(const tokenize_input *in, uint64_t index, uint64_t *characters, uint64_t *offset)
{
    const reader_keys keys = { .format = DATA_FORMAT_TEXT };
    reader *r = NULL;
    uint64_t bytes = 0;
    size_t got = 1;
    *characters = *offset = 0;
    if (!in->packed) {
        *characters = utf8_count(in->map.data, in->map.size);
        *offset = utf8_offset(in->map.data, in->map.size, index);
        return GT_OK;
    }
    unsigned char *buffer = malloc(CHUNK);
    gt_status st = buffer ? reader_open(&r, in->path, &keys) : no_memory(in->path);
    while (!st && got) {
        st = reader_bytes(r, buffer, CHUNK, &got);
        const uint64_t here = st ? 0 : utf8_count(buffer, got);
        if (index >= *characters && index < *characters + here)
            *offset = bytes + utf8_offset(buffer, got, index - *characters);
        *characters += here;
        bytes += got;
    }
    if (index >= *characters)
        *offset = bytes;
    reader_close(r);
    free(buffer);
    return st;
}

static gt_status put_end(tokenize_job *j, token_writer *out)
{
    int64_t eot = tokenizer_eot(j->tokenizer);
    uint32_t id = (uint32_t)eot;
    return eot < 0 ? GT_OK : token_writer_put(out, &id, 1);
}

/* Finds file and byte where validation begins; the number of files if nowhere. */
static gt_status find_split(const tokenize_job *j, size_t *file, uint64_t *byte)
{
    const tokenize_options *o = j->options;
    uint64_t characters = 0, here;
    gt_status st = GT_OK;
    *file = o->file_count;
    *byte = 0;
    if (o->val_file_count || o->val_fraction <= 0.0)
        return GT_OK;
    for (size_t i = 0; !st && i < o->file_count; i++) {
        st = count_characters(&j->inputs[i], UINT64_MAX, &here, byte);
        characters += here;
    }
    uint64_t train = (uint64_t)((1.0 - o->val_fraction) * (double)characters);
    for (*file = 0; !st && *file < o->file_count; ++*file) {
        st = count_characters(&j->inputs[*file], train, &here, byte);
        if (st || train < here)
            return st;
        train -= here;
    }
    *byte = 0;
    return st;
}

static gt_status encode_all(tokenize_job *j, token_writer *train, token_writer *val)
{
    const size_t files = j->options->file_count;
    size_t split;
    uint64_t byte;
    gt_status st = find_split(j, &split, &byte);
    for (size_t i = 0; i < j->input_count && !st; i++) {
        const tokenize_input *in = &j->inputs[i];
        const uint64_t border = i < split ? UINT64_MAX : i == split && i < files ? byte : 0;
        if (i > 0 && border)
            st = put_end(j, train);
        if (!st)
            st = tokenize_text(j, in, 0, border, train);
        if (!st && border < UINT64_MAX && token_writer_count(val))
            st = put_end(j, val);
        if (!st && border < UINT64_MAX)
            st = tokenize_text(j, in, border, UINT64_MAX, val);
    }
    return st;
}

/* ---- folders ------------------------------------------------------------------------------------------- */

static gt_status hash_of(uint64_t *hash, const char *folder, const char *name)
{
    token_split s;
    gt_status st = token_split_open_folder(&s, folder, name, 0, 0);
    *hash = st ? 0 : token_split_hash(&s);
    token_split_close(&s);
    return st;
}

/* [name, ...] by number. */
static json_t *label_names(const json_t *labels)
{
    const char *name;
    json_t *number, *list = labels ? json_array() : NULL;
    for (size_t i = 0; i < json_object_size(labels); i++)
        json_array_append_new(list, json_null());
    json_object_foreach((json_t *)(uintptr_t)labels, name, number)
        json_array_set_new(list, (size_t)json_integer_value(number), json_string(name));
    return list;
}

/* What records have beside what texts have: ", "train_documents": N, ..."; to be freed. */
static char *records_summary(const tokenize_job *j, const tokenize_result *r)
{
    json_t *labels = label_names(j->labels);
    char *names = labels ? json_dumps(labels, 0) : NULL, *out = NULL;
    if (j->records
        && asprintf(&out, ", \"train_documents\": %llu, \"val_documents\": %llu%s%s",
                    (unsigned long long)r->train_documents, (unsigned long long)r->val_documents,
                    names ? ", \"labels\": " : "", names ? names : "")
               < 0)
        out = NULL;
    if (!j->records)
        out = strdup("");
    json_decref(labels);
    free(names);
    return out;
}

static gt_status write_summary(const tokenize_job *j, const char *folder, const tokenize_result *r)
{
    char *text = NULL, *more = records_summary(j, r);
    uint64_t train = 0, val = 0;
    gt_status st = more ? hash_of(&train, folder, "train") : no_memory(folder);
    if (!st)
        st = hash_of(&val, folder, "val");
    int n = -1;
    if (!st)
        n = asprintf(&text,
                     "{\"format\": 1, \"tokenizer\": \"%s\", "
                     "\"tokenizer_hash\": \"%016llx\", \"vocab\": %u, \"train_tokens\": %llu, "
                     "\"val_tokens\": %llu, \"train_hash\": \"%016llx\", \"val_hash\": \"%016llx\", "
                     "\"bytes\": %llu%s}\n",
                     tokenizer_name(j->tokenizer), (unsigned long long)tokenizer_hash(j->tokenizer),
                     tokenizer_vocab(j->tokenizer), (unsigned long long)r->train_tokens,
                     (unsigned long long)r->val_tokens, (unsigned long long)train, (unsigned long long)val,
                     (unsigned long long)r->bytes, more);
    char *path = n < 0 ? NULL : gt_path_join(folder, "tokens.json");
    if (!st)
        st = path ? gt_file_write(path, text, (size_t)n) : no_memory(folder);
    free(path);
    free(more);
    if (n >= 0)
        free(text);
    return st;
}

static gt_status save_tokenizer(const tokenize_job *j, const char *folder)
{
    char *path = gt_path_join(folder, "tokenizer");
    gt_status st = path ? tokenizer_save(j->tokenizer, path) : no_memory(folder);
    if (!st && j->options->chat)
        st = chat_template_save(j->options->chat, path);
    free(path);
    return st;
}

/* Fills an empty folder. */
static gt_status fill(tokenize_job *j, const char *folder, tokenize_result *r)
{
    token_writer *train = NULL, *val = NULL;
    const uint32_t vocab = tokenizer_vocab(j->tokenizer);
    gt_status st = token_writer_open(&train, folder, "train", vocab, j->options->shard_tokens);
    if (!st)
        st = token_writer_open(&val, folder, "val", vocab, j->options->shard_tokens);
    if (!st && j->records)
        st = tokenize_count_records(j);
    if (!st && j->records) {
        token_writer_marks(train, tokenize_marks(j), j->labels != NULL);
        token_writer_marks(val, tokenize_marks(j), j->labels != NULL);
        st = tokenize_records(j, train, val);
    } else if (!st) {
        st = encode_all(j, train, val);
    }
    if (!st && !token_writer_count(train) && j->input_count)
        st = gt_fail(GT_FORMAT, "cannot tokenize '%s': there is no text to train on in it", j->inputs[0].path);
    if (st)
        goto out;
    *r = j->result;
    r->bytes = j->total;
    r->train_tokens = token_writer_count(train);
    r->val_tokens = token_writer_count(val);
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

static void release(tokenize_job *j)
{
    for (size_t i = 0; i < j->input_count; i++)
        gt_map_close(&j->inputs[i].map);
    free(j->inputs);
    token_ids_release(&j->ids);
    token_ids_release(&j->types);
    gt_text_release(&j->marks);
    gt_text_release(&j->scratch);
    chat_text_release(&j->chat);
    json_decref(j->labels);
}

gt_status tokenize(tokenizer *t, const char *folder, const tokenize_options *o, tokenize_result *result)
{
    tokenize_job j = { .tokenizer = t, .options = o };
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
    release(&j);
    free(target);
    free(made);
    return st;
}

/* ---- texts of records, for a tokenizer -------------------------------------------------------------------- */

/* Each with a newline behind it. */
static gt_status put_texts(tokenize_job *j, const tokenize_input *in, gt_writer *w)
{
    const tokenize_options *o = j->options;
    reader *r = NULL;
    reader_record record = { 0 };
    int more = 1;
    gt_status st = reader_open(&r, in->path, &o->keys);
    for (size_t got = 1; !st && in->format == DATA_FORMAT_TEXT && got;) {
        char bytes[65536];
        st = reader_bytes(r, bytes, sizeof bytes, &got);
        if (!st)
            st = gt_writer_put(w, bytes, got);
    }
    while (!st && in->format != DATA_FORMAT_TEXT) {
        st = reader_next(r, &record, &more);
        if (st || !more)
            break;
        const gt_text *text = &record.text;
        if (record.messages) {
            st = o->chat ? chat_template_render(o->chat, record.messages, 0, &j->chat)
                         : gt_fail(GT_MISUSE,
                                   "it is a chat, and a tokenizer that is to be trained has no template; name one with "
                                   "--chat-template FILE");
            if (st)
                st = gt_fail_in(st, "cannot read '%s': line %llu", in->path, (unsigned long long)record.line);
            text = &j->chat.text;
        }
        if (!st)
            st = gt_writer_put(w, text->data, text->size);
        if (!st)
            st = gt_writer_put(w, record.pair.data, record.pair.size);
        if (!st)
            st = gt_writer_put(w, "\n", 1);
    }
    reader_record_release(&record);
    reader_close(r);
    return st;
}

gt_status tokenize_train(tokenizer **out, const char *spec, const tokenize_options *o, const char *scratch)
{
    tokenize_job j = { .options = o };
    gt_writer *w = NULL;
    int packed = 0;
    *out = NULL;
    gt_status st = open_texts(&j);
    for (size_t i = 0; i < j.input_count; i++)
        packed |= j.inputs[i].packed;
    if (!st && !j.records && !packed) {
        release(&j);
        return tokenizer_train(out, spec, o->files, o->file_count, o->progress, o->context);
    }
    if (!st)
        st = gt_writer_open(&w, scratch);
    for (size_t i = 0; !st && i < o->file_count; i++)
        st = put_texts(&j, &j.inputs[i], w);
    if (st)
        gt_writer_abandon(w);
    else
        st = gt_writer_commit(w);
    if (!st)
        st = tokenizer_train(out, spec, &scratch, 1, o->progress, o->context);
    unlink(scratch);
    release(&j);
    return st;
}
