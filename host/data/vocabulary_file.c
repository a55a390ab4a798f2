/* SPDX-License-Identifier: MIT */
/* host/data/vocabulary_file.c - tokenizer.json and GPT-2's pair of files.
 *
 *   tokenizer.json        { "added_tokens": [ {id, content, ...} ],
 *                           "normalizer", "pre_tokenizer", "decoder",
 *                           "model": { "type": "BPE", "vocab": {text: id},
 *                                      "merges": ["a b"] or [["a","b"]] } }
 *   vocab.json            {text: id}
 *   merges.txt            "#version: 0.2", then a merge a line, "a b", best first
 *   added_tokens.json     {text: id}, tokens added after training
 *   special_tokens_map.json, tokenizer_config.json
 *                         {"eos_token": text or {"content": text}, ...,
 *                          "additional_special_tokens": [ ... ]}
 *   tokenizer_config.json { "added_tokens_decoder": {"id": {content, ...}},
 *                           "add_prefix_space", "tokenizer_class", ... }
 *
 * A tokenizer.json can ask for much more than byte-level BPE. Whatever would change an id
 * (a normalizer, a prefix space, another model) is refused by name: a wrong tokenizer that
 * opens is worse than one that does not. The post-processor is left aside: it frames a
 * text with special tokens, and training frames texts by itself.                        */
#include "host/data/vocabulary.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/data/utf8.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)256 << 20)

/* Texts that end a document, in the order in which they are looked for. */
static const char *const end_names[] = { "<|endoftext|>", "<|end_of_text|>", "</s>" };
#define END_NAMES (sizeof end_names / sizeof *end_names)

static gt_status no_memory(const char *name)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its paths and texts", name);
}

static gt_status parse_as(json_t **out, const char *text, size_t size, const char *name, size_t flags)
{
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | flags, &error);
    if (!*out)
        return gt_fail(GT_FORMAT, "cannot read '%s': byte %d: %s", name, error.position, error.text);
    return GT_OK;
}

static gt_status parse(json_t **out, const char *text, size_t size, const char *name)
{
    return parse_as(out, text, size, name, 0);
}

/* tokenizer_config.json says model_max_length: 1000000000000000019884624838656 where there is none. */
static gt_status parse_config(json_t **out, const vocabulary_text *f)
{
    return parse_as(out, f->text, f->size, f->name, JSON_DECODE_INT_AS_REAL);
}

static gt_status bad_id(const char *name, const char *text, const char *why)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': the id of token '%.60s' %s", name, text, why);
}

/* Reads an id; `text` is the token it belongs to. */
static gt_status read_id(uint32_t *out, const json_t *value, const char *text, const char *name)
{
    if (!json_is_integer(value))
        return bad_id(name, text, "is not a whole number");
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= VOCABULARY_MAX)
        return bad_id(name, text, "is out of range");
    *out = (uint32_t)id;
    return GT_OK;
}

/* One entry of "vocab". An added token stands there as it is, not byte-level. */
static gt_status read_piece(vocabulary *v, const char *text, const json_t *value, const char *name)
{
    uint32_t id = 0;
    gt_status st = read_id(&id, value, text, name);
    if (st)
        return st;
    size_t size = strlen(text);
    if (id < v->count && v->pieces[id].special && v->pieces[id].size == size
        && !memcmp(vocabulary_bytes(v, id), text, size))
        return GT_OK;
    char *bytes = strdup(text);
    if (!bytes)
        return no_memory(name);
    int64_t length = v->byte_level ? byte_level_decode((unsigned char *)bytes, size) : (int64_t)size;
    if (length < 0)
        st = gt_fail(GT_FORMAT,
                     "cannot read '%s': token '%.60s' holds a character that stands "
                     "for no byte",
                     name, text);
    else if ((st = vocabulary_add(v, id, bytes, (size_t)length)))
        st = gt_fail_in(st, "cannot read '%s': token '%.60s'", name, text);
    free(bytes);
    return st;
}

static gt_status read_vocab(vocabulary *v, json_t *vocab, const char *name)
{
    if (!json_is_object(vocab) || !json_object_size(vocab))
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no vocabulary", name);
    const char *text;
    json_t *value;
    json_object_foreach(vocab, text, value) {
        gt_status st = read_piece(v, text, value, name);
        if (st)
            return st;
    }
    return GT_OK;
}

/* The id of one half of a merge, as written in a file. */
static gt_status merge_half(uint32_t *out, const vocabulary *v, const char *text, size_t size, const char *name)
{
    char *bytes = strndup(text, size);
    if (!bytes)
        return no_memory(name);
    int64_t length = byte_level_decode((unsigned char *)bytes, size);
    int64_t id = length > 0 ? vocabulary_find(v, bytes, (size_t)length) : -1;
    free(bytes);
    if (id < 0)
        return gt_fail(GT_FORMAT, "cannot read '%s': merge %zu names '%.*s', which is no token", name, v->merge_count,
                       size > 60 ? 60 : (int)size, text);
    *out = (uint32_t)id;
    return GT_OK;
}

static gt_status read_merge(vocabulary *v, const char *left, size_t left_size, const char *right, size_t right_size,
                            const char *name)
{
    uint32_t a = 0, b = 0;
    gt_status st = merge_half(&a, v, left, left_size, name);
    if (!st)
        st = merge_half(&b, v, right, right_size, name);
    if (!st && (st = vocabulary_add_merge(v, a, b)))
        st = gt_fail_in(st, "cannot read '%s'", name);
    return st;
}

/* "a b": halves never hold a space, which byte-level text writes as another character. */
static gt_status read_merge_line(vocabulary *v, const char *line, size_t size, const char *name)
{
    const char *space = memchr(line, ' ', size);
    size_t left = space ? (size_t)(space - line) : 0;
    if (!space || !left || left + 1 == size || memchr(space + 1, ' ', size - left - 1))
        return gt_fail(GT_FORMAT,
                       "cannot read '%s': merge %zu, '%.*s', is not two tokens and "
                       "a space",
                       name, v->merge_count, size > 60 ? 60 : (int)size, line);
    return read_merge(v, line, left, space + 1, size - left - 1, name);
}

static gt_status read_merges(vocabulary *v, json_t *merges, const char *name)
{
    if (!json_is_array(merges))
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no list of merges", name);
    if (json_array_size(merges) && !v->byte_level)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot read '%s': its merges are not over bytes "
                       "(pre_tokenizer ByteLevel), the only kind known here",
                       name);
    size_t i;
    json_t *value;
    json_array_foreach(merges, i, value) {
        gt_status st;
        json_t *left = json_array_get(value, 0), *right = json_array_get(value, 1);
        if (json_is_string(value))
            st = read_merge_line(v, json_string_value(value), json_string_length(value), name);
        else if (json_array_size(value) == 2 && json_is_string(left) && json_is_string(right))
            st = read_merge(v, json_string_value(left), json_string_length(left), json_string_value(right),
                            json_string_length(right), name);
        else
            st = gt_fail(GT_FORMAT, "cannot read '%s': merge %zu is no pair of tokens", name, i);
        if (st)
            return st;
    }
    return GT_OK;
}

/* What an added token may ask for that would cut text in another way. */
static gt_status check_flags(const json_t *entry, const char *text, const char *name)
{
    static const char *const refused[] = { "single_word", "lstrip", "rstrip" };
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
        if (json_is_true(json_object_get(entry, refused[k])))
            return gt_fail(GT_UNSUPPORTED,
                           "cannot read '%s': added token '%.60s' asks for "
                           "%s, which is not known here",
                           name, text, refused[k]);
    return GT_OK;
}

static gt_status read_added(vocabulary *v, json_t *list, const char *name)
{
    size_t i;
    json_t *entry;
    if (list && !json_is_null(list) && !json_is_array(list))
        return gt_fail(GT_FORMAT, "cannot read '%s': added_tokens is not a list", name);
    json_array_foreach(list, i, entry) {
        const char *text = json_string_value(json_object_get(entry, "content"));
        uint32_t id = 0;
        if (!text)
            return gt_fail(GT_FORMAT, "cannot read '%s': added token %zu has no content", name, i);
        gt_status st = read_id(&id, json_object_get(entry, "id"), text, name);
        if (st)
            return st;
        if ((st = check_flags(entry, text, name)))
            return st;
        if ((st = vocabulary_add(v, id, text, strlen(text))))
            return gt_fail_in(st, "cannot read '%s': added token '%.60s'", name, text);
        v->pieces[id].special = 1;
        v->pieces[id].flags = json_is_true(json_object_get(entry, "special")) ? PIECE_CONTROL : 0;
    }
    return GT_OK;
}

static int absent(const json_t *value)
{
    return !value || json_is_null(value);
}

/* The type of a part of the file, for the sentence that refuses it. */
static const char *type_of(const json_t *part)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "of no type";
}

static gt_status unsupported(const char *name, const char *what, const char *which)
{
    return gt_fail(GT_UNSUPPORTED, "cannot read '%s': %s '%.60s' is not known here", name, what, which);
}

static gt_status read_byte_level(vocabulary *v, const json_t *part, const char **pattern, const char *name)
{
    if (json_is_true(json_object_get(part, "add_prefix_space")))
        return unsupported(name, "pre_tokenizer option", "add_prefix_space");
    if (!json_is_false(json_object_get(part, "use_regex")) && !*pattern)
        *pattern = GPT2_PATTERN;
    v->byte_level = 1;
    return GT_OK;
}

/* {"type": "Split", "pattern": {"Regex": "..."}, "behavior": "Isolated"}: each match is a
 * word, and so is what lies between matches. */
static gt_status read_split(const json_t *part, const char **pattern, const char *name)
{
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    const char *regex = json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    if (!behavior || strcmp(behavior, "Isolated") || json_is_true(json_object_get(part, "invert")) || !regex
        || *pattern)
        return unsupported(name, "pre_tokenizer", "Split other than one isolated pattern");
    *pattern = regex;
    return GT_OK;
}

static gt_status read_pre_tokenizer(vocabulary *v, const json_t *part, const char *name)
{
    const char *pattern = NULL;
    gt_status st = GT_OK;
    if (absent(part))
        return GT_OK;
    if (!strcmp(type_of(part), "ByteLevel")) {
        st = read_byte_level(v, part, &pattern, name);
    } else if (!strcmp(type_of(part), "Sequence")) {
        size_t i;
        json_t *entry, *list = json_object_get(part, "pretokenizers");
        json_array_foreach(list, i, entry) {
            if (!strcmp(type_of(entry), "Split") && !v->byte_level)
                st = read_split(entry, &pattern, name);
            else if (!strcmp(type_of(entry), "ByteLevel") && !v->byte_level
                     && (!pattern || json_is_false(json_object_get(entry, "use_regex"))))
                st = read_byte_level(v, entry, &pattern, name);
            else
                st = unsupported(name, "pre_tokenizer sequence with", type_of(entry));
            if (st)
                return st;
        }
    } else {
        st = unsupported(name, "pre_tokenizer", type_of(part));
    }
    if (!st && !v->byte_level)
        st = unsupported(name, "pre_tokenizer without", "ByteLevel");
    if (!st && pattern && !(v->pattern = strdup(pattern)))
        st = no_memory(name);
    return st;
}

/* What in a BPE model would change ids and is not done here. */
static gt_status check_model(const json_t *model, const char *name)
{
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    if (!json_is_object(model))
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no model", name);
    const json_t *type = json_object_get(model, "type");
    if (type && strcmp(type_of(model), "BPE"))
        return unsupported(name, "tokenizer model", type_of(model));
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return unsupported(name, "model option", "byte_fallback");
    if (json_number_value(json_object_get(model, "dropout")) != 0.0)
        return unsupported(name, "model option", "dropout");
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        const char *text = json_string_value(json_object_get(model, affixes[i]));
        if (text && *text)
            return unsupported(name, "model option", affixes[i]);
    }
    return GT_OK;
}

static gt_status read_document(vocabulary *v, const json_t *root, const char *name)
{
    const json_t *normalizer = json_object_get(root, "normalizer");
    json_t *model = json_object_get(root, "model");
    gt_status st = check_model(model, name);
    if (!st && !absent(normalizer))
        st = unsupported(name, "normalizer", type_of(normalizer));
    if (!st)
        st = read_pre_tokenizer(v, json_object_get(root, "pre_tokenizer"), name);
    if (!st)
        st = read_added(v, json_object_get(root, "added_tokens"), name);
    if (!st)
        st = read_vocab(v, json_object_get(model, "vocab"), name);
    if (!st)
        st = read_merges(v, json_object_get(model, "merges"), name);
    if (!st)
        st = frame_read(&v->frame, json_object_get(root, "post_processor"), name);
    if (!st && v->frame.vocab > v->count)
        st = gt_fail(GT_FORMAT, "cannot read '%s': post_processor names id %u, but ids end at %u", name,
                     v->frame.vocab - 1, v->count ? v->count - 1 : 0);
    v->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    return st;
}

gt_status vocabulary_parse_json(vocabulary *out, const char *text, size_t size, const char *name)
{
    json_t *root;
    gt_status st = parse(&root, text, size, name);
    if (st)
        return st;
    st = read_document(out, root, name);
    json_decref(root);
    return st;
}

gt_status vocabulary_parse_pair(vocabulary *out, const char *vocab, size_t vocab_size, const char *vocab_name,
                                const char *merges, size_t merges_size, const char *merges_name)
{
    json_t *root;
    gt_status st = parse(&root, vocab, vocab_size, vocab_name);
    if (st)
        return st;
    out->byte_level = 1;
    out->pattern = strdup(GPT2_PATTERN);
    st = out->pattern ? read_vocab(out, root, vocab_name) : no_memory(vocab_name);
    json_decref(root);

    size_t line = 0;
    for (size_t at = 0; !st && at < merges_size; line++) {
        const char *end = memchr(merges + at, '\n', merges_size - at);
        size_t size = end ? (size_t)(end - merges) - at : merges_size - at, next = at + size + 1;
        if (size && merges[at + size - 1] == '\r')
            size--;
        int comment = line == 0 && size >= 8 && !memcmp(merges + at, "#version", 8);
        if (size && !comment)
            st = read_merge_line(out, merges + at, size, merges_name);
        at = next;
    }
    for (size_t i = 0; !st && i < END_NAMES; i++) {
        int64_t id = vocabulary_find(out, end_names[i], strlen(end_names[i]));
        if (id >= 0) {
            out->pieces[id].special = 1;
            out->pieces[id].flags = PIECE_CONTROL;
        }
    }
    return st;
}

/* ---- the files beside ---------------------------------------------------------------------------- */

/* An added token: special, with its own id, which nothing else may have. */
static gt_status add_special(vocabulary *v, uint32_t id, const char *text, const char *name)
{
    const size_t size = strlen(text);
    const int64_t there = vocabulary_find(v, text, size);
    if (there >= 0 && there != (int64_t)id)
        return gt_fail(GT_FORMAT, "cannot read '%s': added token '%.60s' has id %u, but %lld elsewhere", name, text, id,
                       (long long)there);
    gt_status st = there < 0 ? vocabulary_add(v, id, text, size) : GT_OK;
    if (st)
        return gt_fail_in(st, "cannot read '%s': added token '%.60s'", name, text);
    v->pieces[id].special = 1;
    return GT_OK;
}

/* added_tokens.json */
static gt_status add_tokens(vocabulary *v, json_t *root, const char *name)
{
    const char *text;
    json_t *value;
    gt_status st = json_is_object(root) ? GT_OK : gt_fail(GT_FORMAT, "cannot read '%s': it is not a JSON object", name);
    json_object_foreach(root, text, value) {
        uint32_t id = 0;
        if (!st)
            st = read_id(&id, value, text, name);
        if (!st)
            st = add_special(v, id, text, name);
    }
    return st;
}

/* "added_tokens_decoder" of tokenizer_config.json */
static gt_status add_decoder(vocabulary *v, json_t *list, const char *name)
{
    const char *key;
    json_t *entry;
    gt_status st = absent(list) || json_is_object(list)
                       ? GT_OK
                       : gt_fail(GT_FORMAT, "cannot read '%s': added_tokens_decoder is not an object", name);
    json_object_foreach(list, key, entry) {
        const char *text = json_string_value(json_object_get(entry, "content"));
        uint64_t id = VOCABULARY_MAX;
        if (st)
            break;
        if (!text)
            return gt_fail(GT_FORMAT, "cannot read '%s': added token %.20s has no content", name, key);
        if (gt_parse_u64(&id, key) || id >= VOCABULARY_MAX)
            return bad_id(name, text, "is out of range");
        st = check_flags(entry, text, name);
        if (!st)
            st = add_special(v, (uint32_t)id, text, name);
    }
    return st;
}

/* What in tokenizer_config.json would change ids and is not done here. A class says how vocab.json is
 * used; tokenizer.json says so itself, and says more of what is in it. */
static gt_status check_tokenizer_config(const vocabulary *v, const json_t *root, const char *name)
{
    /* All byte-level BPE over GPT-2's words. */
    static const char *const classes[] = { "GPT2Tokenizer", "CodeGenTokenizer", "RobertaTokenizer", "BartTokenizer",
                                           "LongformerTokenizer" };
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    if (!json_is_object(root))
        return gt_fail(GT_FORMAT, "cannot read '%s': it is not a JSON object", name);
    if (json_is_true(json_object_get(root, "add_prefix_space")))
        return unsupported(name, "option", "add_prefix_space");
    if (!class || v->byte_level || v->count)        /* tokenizer.json was read before */
        return GT_OK;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strncmp(class, classes[i], strlen(classes[i])))
            return GT_OK;
    return gt_fail(GT_UNSUPPORTED,
                   "cannot read '%s': tokenizer_class '%.60s' may cut text into other words "
                   "than GPT-2's; give a folder with its tokenizer.json",
                   name, class);
}

gt_status vocabulary_add_beside(vocabulary *v, const vocabulary_text files[BESIDE_FILES])
{
    const vocabulary_text *config = &files[BESIDE_CONFIG], *added = &files[BESIDE_ADDED];
    json_t *root;
    gt_status st = GT_OK;
    if (config->text) {
        st = parse_config(&root, config);
        if (!st)
            st = check_tokenizer_config(v, root, config->name);
        if (!st)
            st = add_decoder(v, json_object_get(root, "added_tokens_decoder"), config->name);
        json_decref(root);
    }
    if (!st && added->text) {
        st = parse(&root, added->text, added->size, added->name);
        if (!st)
            st = add_tokens(v, root, added->name);
        json_decref(root);
    }
    return st;
}

/* A name is a text, or an added token with its flags. */
static gt_status name_one(vocabulary *v, const char *key, const json_t *value, const char *name)
{
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (absent(value))
        return GT_OK;
    if (!text)
        return gt_fail(GT_FORMAT, "cannot read '%s': %s is no token", name, key);
    gt_status st = check_flags(value, text, name);
    const int64_t id = st ? -1 : vocabulary_find(v, text, strlen(text));
    if (!st && id < 0 && *text)
        gt_log(GT_LOG_WARN, "data",
               "special token '%.60s', %s of '%s', has no id in the vocabulary; where a "
               "text holds it, it is read as other text",
               text, key, name);
    if (id >= 0) {
        v->pieces[id].special = 1;
        v->pieces[id].flags |= PIECE_CONTROL;
    }
    if (id >= 0 && !strcmp(key, "eos_token"))
        v->end = (uint32_t)id + 1;
    return st;
}

static gt_status name_all(vocabulary *v, const json_t *root, const char *name)
{
    static const char *const single[] = { "bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token" };
    static const char *const lists[] = { "additional_special_tokens", "extra_special_tokens" };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < sizeof single / sizeof *single; i++)
        st = name_one(v, single[i], json_object_get(root, single[i]), name);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *list = json_object_get(root, lists[i]), *entry;
        const char *key;
        size_t k;
        if (!st && !absent(list) && !json_is_array(list) && !json_is_object(list))
            st = gt_fail(GT_FORMAT, "cannot read '%s': %s is not a list", name, lists[i]);
        json_array_foreach(list, k, entry)
            st = st ? st : name_one(v, lists[i], entry, name);
        json_object_foreach(list, key, entry)
            st = st ? st : name_one(v, lists[i], entry, name);
    }
    return st;
}

gt_status vocabulary_name_beside(vocabulary *v, const vocabulary_text files[BESIDE_FILES])
{
    static const int named[] = { BESIDE_MAP, BESIDE_CONFIG };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < sizeof named / sizeof *named; i++) {
        const vocabulary_text *f = &files[named[i]];
        json_t *root = NULL;
        if (!f->text)
            continue;
        st = parse_config(&root, f);
        if (!st && !json_is_object(root))
            st = gt_fail(GT_FORMAT, "cannot read '%s': it is not a JSON object", f->name);
        if (!st)
            st = name_all(v, root, f->name);
        json_decref(root);
    }
    return st;
}

/* FOLDER/NAME of the first name that is there; *out NULL if none is. */
static gt_status find_file(char **out, const char *folder, const char *const *names)
{
    for (*out = NULL; *names; names++) {
        *out = gt_path_join(folder, *names);
        if (!*out)
            return no_memory(folder);
        if (gt_path_exists(*out))
            return GT_OK;
        free(*out);
        *out = NULL;
    }
    return GT_OK;
}

/* The files beside, read; what is not there is left NULL. */
typedef struct beside {
    char *text[BESIDE_FILES], *path[BESIDE_FILES];
    size_t size[BESIDE_FILES];
} beside;

static void beside_release(beside *b)
{
    for (int i = 0; i < BESIDE_FILES; i++) {
        free(b->text[i]);
        free(b->path[i]);
    }
}

static gt_status beside_read(beside *b, vocabulary_text files[BESIDE_FILES], const char *folder)
{
    static const char *const names[BESIDE_FILES] = { [BESIDE_ADDED] = "added_tokens.json",
                                                     [BESIDE_MAP] = "special_tokens_map.json",
                                                     [BESIDE_CONFIG] = "tokenizer_config.json" };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < BESIDE_FILES; i++) {
        b->path[i] = gt_path_join(folder, names[i]);
        if (!b->path[i])
            st = no_memory(folder);
        else if (gt_path_exists(b->path[i]))
            st = gt_file_read(&b->text[i], &b->size[i], b->path[i], FILE_LIMIT);
        files[i] = (vocabulary_text){ b->text[i], b->path[i], b->size[i] };
    }
    return st;
}

static gt_status read_json(vocabulary *out, const char *path)
{
    char *text;
    size_t size;
    gt_status st = gt_file_read(&text, &size, path, FILE_LIMIT);
    if (!st)
        st = vocabulary_parse_json(out, text, size, path);
    free(text);
    return st;
}

static gt_status read_pair(vocabulary *out, const char *vocab_path, const char *merges_path)
{
    char *vocab = NULL, *merges = NULL;
    size_t vocab_size, merges_size;
    gt_status st = gt_file_read(&vocab, &vocab_size, vocab_path, FILE_LIMIT);
    if (!st)
        st = gt_file_read(&merges, &merges_size, merges_path, FILE_LIMIT);
    if (!st)
        st = vocabulary_parse_pair(out, vocab, vocab_size, vocab_path, merges, merges_size, merges_path);
    free(vocab);
    free(merges);
    return st;
}

static gt_status read_json_folder(vocabulary *out, const char *json)
{
    vocabulary_text files[BESIDE_FILES];
    beside b = { 0 };
    char *folder = strndup(json, strlen(json) - strlen("/tokenizer.json"));
    gt_status st = folder ? read_json(out, json) : no_memory(json);
    if (!st)
        st = beside_read(&b, files, folder);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    free(folder);
    return st;
}

static gt_status read_pair_folder(vocabulary *out, const char *folder, const char *vocab, const char *merges)
{
    vocabulary_text files[BESIDE_FILES];
    beside b = { 0 };
    gt_status st = beside_read(&b, files, folder);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = read_pair(out, vocab, merges);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    return st;
}

gt_status vocabulary_read(vocabulary *out, const char *path)
{
    static const char *const json_names[] = { "tokenizer.json", "tokenizer/tokenizer.json", NULL };
    static const char *const vocab_names[] = { "vocab.json", "encoder.json", NULL };
    static const char *const merges_names[] = { "merges.txt", "vocab.bpe", NULL };
    char *json = NULL, *vocab = NULL, *merges = NULL;

    if (!gt_path_is_folder(path))
        return read_json(out, path);
    gt_status st = find_file(&json, path, json_names);
    if (!st)
        st = find_file(&vocab, path, vocab_names);
    if (!st)
        st = find_file(&merges, path, merges_names);
    if (!st && json)
        st = read_json_folder(out, json);
    else if (!st && vocab && merges)
        st = read_pair_folder(out, path, vocab, merges);
    else if (!st)
        st = gt_fail(GT_NOT_FOUND,
                     "cannot read tokenizer '%s': the folder holds neither "
                     "tokenizer.json nor vocab.json with merges.txt",
                     path);
    free(json);
    free(vocab);
    free(merges);
    return st;
}

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

static json_t *added_tokens(const vocabulary *v)
{
    json_t *list = json_array();
    for (uint32_t id = 0; id < v->count; id++)
        if (v->pieces[id].special)
            json_array_append_new(list, json_pack("{s:i s:s% s:b s:b s:b s:b s:b}", "id", (int)id, "content",
                                                  vocabulary_bytes(v, id), (size_t)v->pieces[id].size, "single_word", 0,
                                                  "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    return list;
}

static json_t *byte_level(int use_regex)
{
    return json_pack("{s:s s:b s:b s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     use_regex);
}

static json_t *pre_tokenizer(const vocabulary *v)
{
    if (!v->byte_level)
        return json_null();
    if (!v->pattern || !strcmp(v->pattern, GPT2_PATTERN))
        return byte_level(v->pattern != NULL);
    return json_pack("{s:s s:[{s:s s:{s:s} s:s s:b} o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                     "pattern", "Regex", v->pattern, "behavior", "Isolated", "invert", 0, byte_level(0));
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
    json_t *decoder = v->byte_level ? byte_level(1) : json_pack("{s:s}", "type", "Fuse");
    json_t *root = json_pack("{s:s s:n s:n s:o s:n s:o s:n s:o s:{s:s s:n s:n s:n s:n s:b s:b s:b"
                             " s:o s:o}}",
                             "version", "1.0", "truncation", "padding", "added_tokens", added_tokens(v), "normalizer",
                             "pre_tokenizer", pre_tokenizer(v), "post_processor", "decoder", decoder, "model", "type",
                             "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                             "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", v->ignore_merges, "vocab", vocab,
                             "merges", merges);
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

gt_status vocabulary_write(const vocabulary *v, const char *folder, int64_t eot)
{
    json_t *config = json_pack("{s:s s:b s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                               "clean_up_tokenization_spaces", 0, "add_prefix_space", 0);
    if (config && eot >= 0)
        json_object_set_new(config, "eos_token", json_stringn(vocabulary_bytes(v, (uint32_t)eot), v->pieces[eot].size));
    gt_status st = gt_folder_make(folder);
    if (st) {
        json_decref(config);
        return st;
    }
    st = write_json(config, folder, "tokenizer_config.json");
    return st ? st : write_json(document(v), folder, "tokenizer.json");
}
