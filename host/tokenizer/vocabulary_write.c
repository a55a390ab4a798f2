/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_write.c - a vocabulary as a folder with tokenizer.json and tokenizer_config.json.
 *
 * What was read is written back as it was read, so nothing that is not used here is lost; only a vocabulary
 * that was trained, or came as a pair of files, becomes a new document. */
#include "host/tokenizer/vocabulary_private.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

/* A piece as a JSON string: byte-level unless it is special or a character. */
static void put_visible(gt_text *out, const vocabulary *v, uint32_t id)
{
    const char *bytes = vocabulary_bytes(v, id);
    if (!v->byte_level || v->pieces[id].special) {
        gt_text_put(out, bytes, v->pieces[id].size);
        return;
    }
    for (uint32_t i = 0; i < v->pieces[id].size; i++) {
        char code[4];
        int n = utf8_put(code, byte_level_code((unsigned char)bytes[i]));
        gt_text_put(out, code, (size_t)n);
    }
}

static json_t *added_entry(const vocabulary *v, uint32_t id)
{
    const uint32_t flags = v->pieces[id].flags;
    return json_pack("{s:i s:s% s:b s:b s:b s:b s:b}", "id", (int)id, "content", vocabulary_bytes(v, id),
                     (size_t)v->pieces[id].size, "single_word", (flags & PIECE_SINGLE_WORD) != 0, "lstrip",
                     (flags & PIECE_LSTRIP) != 0, "rstrip", (flags & PIECE_RSTRIP) != 0, "normalized",
                     (flags & PIECE_NORMALIZED) != 0, "special", (flags & PIECE_CONTROL) != 0);
}

/* Appends the added tokens that the list does not have. Returns how many, or -1. */
static int put_added(json_t *list, const vocabulary *v)
{
    unsigned char *there = calloc(v->count + 1, 1);
    int added = there && list ? 0 : -1;
    for (size_t i = 0; added >= 0 && i < json_array_size(list); i++) {
        const json_int_t id = json_integer_value(json_object_get(json_array_get(list, i), "id"));
        if (id >= 0 && id < v->count)
            there[id] = 1;
    }
    for (uint32_t id = 0; added >= 0 && id < v->count; id++)
        if (v->pieces[id].special && !there[id])
            added = json_array_append_new(list, added_entry(v, id)) ? -1 : added + 1;
    free(there);
    return added;
}

static json_t *added_tokens(const vocabulary *v)
{
    json_t *list = json_array();
    if (put_added(list, v) < 0) {
        json_decref(list);
        list = NULL;
    }
    return list;
}

static json_t *part_of(const vocabulary *v, int part)
{
    return v->parts[part] ? json_incref(v->parts[part]) : json_null();
}

static json_t *pre_tokenizer(const vocabulary *v)
{
    if (v->chained)
        return part_of(v, PART_SPLITTER);
    if (!v->byte_level)
        return json_null();
    if (!v->pattern || !strcmp(v->pattern, GPT2_PATTERN))
        return part_byte_level(v->pattern != NULL, 0);
    return json_pack("{s:s s:[{s:s s:{s:s} s:s s:b} o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                     "pattern", "Regex", v->pattern, "behavior", "Isolated", "invert", 0, part_byte_level(0, 0));
}

/* {text: id} and ["a b"]. A gt_text that failed leaves a hole that `failed` reports. */
static void model_lists(const vocabulary *v, json_t *vocab, json_t *merges, int *failed)
{
    gt_text text = { 0 };
    for (uint32_t id = 0; id < v->count; id++) {
        if (!v->pieces[id].size)
            continue;
        text.size = 0;
        put_visible(&text, v, id);
        *failed |= text.failed || json_object_set_new(vocab, text.data, json_integer(id));
    }
    for (size_t i = 0; i < v->merge_count; i++) {
        text.size = 0;
        put_visible(&text, v, v->merges[i].left);
        gt_text_put(&text, " ", 1);
        put_visible(&text, v, v->merges[i].right);
        *failed |= text.failed || json_array_append_new(merges, json_string(text.data));
    }
    gt_text_release(&text);
}

static json_t *document(const vocabulary *v)
{
    json_t *vocab = json_object(), *merges = json_array();
    int failed = !vocab || !merges;
    if (!failed)
        model_lists(v, vocab, merges, &failed);
    json_t *decoder = v->byte_level ? part_byte_level(1, 0) : json_pack("{s:s}", "type", "Fuse");
    json_t *root = json_pack("{s:s s:n s:n s:o s:o s:o s:o s:o s:{s:s s:n s:n s:n s:n s:b s:b s:b"
                             " s:o s:o}}",
                             "version", "1.0", "truncation", "padding", "added_tokens", added_tokens(v), "normalizer",
                             part_of(v, PART_NORMALIZER), "pre_tokenizer", pre_tokenizer(v), "post_processor",
                             part_of(v, PART_FRAME), "decoder", decoder, "model", "type", "BPE", "dropout", "unk_token",
                             "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                             "ignore_merges", v->ignore_merges, "vocab", vocab, "merges", merges);
    if (failed && root) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

/* Frees root. NULL stands for a document that could not be built. */
static gt_status write_json(json_t *root, const char *folder, const char *name)
{
    char *path = gt_path_join(folder, name);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    gt_status st;
    if (!path || !text)
        st = gt_fail(GT_NO_MEMORY, "cannot write tokenizer '%s': no memory for the text of %s", folder, name);
    else
        st = gt_file_write(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(root);
    return st;
}

/* tokenizer_config.json as it was read, with the end of a text if that said none. */
static json_t *config_of(const vocabulary *v, int64_t eot)
{
    json_t *config = v->config ? json_loads(v->config, JSON_DECODE_INT_AS_REAL, NULL)
                               : json_pack("{s:s s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                                           "clean_up_tokenization_spaces", 0);
    if (config && !v->config && !v->chained)    /* else it would go before what tokenizer.json says */
        json_object_set_new(config, "add_prefix_space", json_false());
    if (config && eot >= 0 && part_absent(json_object_get(config, "eos_token")))
        json_object_set_new(config, "eos_token", json_stringn(vocabulary_bytes(v, (uint32_t)eot), v->pieces[eot].size));
    return config;
}

/* tokenizer.json as it was read, to the byte unless files beside it added tokens. */
static gt_status write_source(const vocabulary *v, const char *folder)
{
    json_t *root = json_loads(v->source, 0, NULL), *list = json_object_get(root, "added_tokens");
    if (root && !json_is_array(list)) {
        json_object_set_new(root, "added_tokens", json_array());
        list = json_object_get(root, "added_tokens");
    }
    const int added = root ? put_added(list, v) : -1;
    if (added) {
        if (added < 0) {
            json_decref(root);
            root = NULL;
        }
        return write_json(root, folder, "tokenizer.json");
    }
    json_decref(root);
    char *path = gt_path_join(folder, "tokenizer.json");
    gt_status st = path ? gt_file_write(path, v->source, strlen(v->source)) : vocabulary_no_memory(folder);
    free(path);
    return st;
}

gt_status vocabulary_write(const vocabulary *v, const char *folder, int64_t eot)
{
    gt_status st = gt_folder_make(folder);
    if (!st)
        st = write_json(config_of(v, eot), folder, "tokenizer_config.json");
    if (st)
        return st;
    return v->source ? write_source(v, folder) : write_json(document(v), folder, "tokenizer.json");
}
