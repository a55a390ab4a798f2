/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_beside.c - what the files beside a vocabulary add to it.
 *
 *   added_tokens.json        {text: id}, tokens added after training
 *   special_tokens_map.json, tokenizer_config.json
 *                            {"eos_token": text or {"content": text}, ...,
 *                             "additional_special_tokens": [ ... ]}
 *   tokenizer_config.json    { "added_tokens_decoder": {"id": {content, ...}},
 *                              "add_prefix_space", "tokenizer_class", ... }
 *
 * A class (tokenizer_class) says how vocab.json is used, where there is no tokenizer.json to say it. */
#include "host/tokenizer/vocabulary_private.h"

#include "host/base/log.h"
#include "host/base/options.h"

#include <stdlib.h>
#include <string.h>

/* An added token: special, with its own id, which nothing else may have. */
static gt_status add_special(vocabulary *v, uint32_t id, const char *text, uint32_t flags, const char *name)
{
    const size_t size = strlen(text);
    const int64_t there = vocabulary_find(v, text, size);
    if (there >= 0 && there != (int64_t)id && !(v->pieces[there].flags & PIECE_MODEL))
        return gt_fail(GT_FORMAT, "cannot read '%s': added token '%.60s' has id %u, but %lld elsewhere", name, text, id,
                       (long long)there);
    if (there != (int64_t)id) {
        gt_status st = vocabulary_add_token(v, id, text, size, flags);
        return st ? gt_fail_in(st, "cannot read '%s': added token '%.60s'", name, text) : GT_OK;
    }
    if (!v->pieces[id].special)                 /* tokenizer.json says it first */
        v->pieces[id].flags |= flags;
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
            st = vocabulary_read_id(&id, value, text, name);
        if (!st)
            st = add_special(v, id, text, 0, name);
    }
    return st;
}

/* "added_tokens_decoder" of tokenizer_config.json */
static gt_status add_decoder(vocabulary *v, json_t *list, const char *name)
{
    const char *key;
    json_t *entry;
    gt_status st = part_absent(list) || json_is_object(list)
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
            return vocabulary_bad_id(name, text, "is out of range");
        st = add_special(v, (uint32_t)id, text, vocabulary_added_flags(entry), name);
    }
    return st;
}

#define QWEN2_PATTERN \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Qwen2's vocab.json: composed text, cut by its own pattern. */
static gt_status take_qwen2(vocabulary *v, const char *name)
{
    v->parts[PART_NORMALIZER] = json_pack("{s:s}", "type", "NFC");
    v->parts[PART_SPLITTER] = json_pack("{s:s s:[{s:s s:{s:s} s:s s:b} o]}", "type", "Sequence", "pretokenizers",
                                        "type", "Split", "pattern", "Regex", QWEN2_PATTERN, "behavior", "Isolated",
                                        "invert", 0, part_byte_level(0, 0));
    v->chained = 1;
    return v->parts[PART_NORMALIZER] && v->parts[PART_SPLITTER] ? GT_OK : vocabulary_no_memory(name);
}

/* add_prefix_space of tokenizer_config.json goes before that of tokenizer.json, as in transformers. */
static gt_status put_prefix(vocabulary *v, const json_t *prefix, const char *name)
{
    const json_t *there = json_object_get(v->parts[PART_SPLITTER], "add_prefix_space");
    if (!json_is_boolean(prefix) || !json_is_boolean(there) || json_is_true(there) == json_is_true(prefix))
        return GT_OK;
    json_t *part = json_deep_copy(v->parts[PART_SPLITTER]);
    if (!part || json_object_set_new(part, "add_prefix_space", json_boolean(json_is_true(prefix)))) {
        json_decref(part);
        return vocabulary_no_memory(name);
    }
    json_decref(v->parts[PART_SPLITTER]);
    v->parts[PART_SPLITTER] = part;
    v->chained = 1;
    return GT_OK;
}

/* What in tokenizer_config.json changes ids. A class says how vocab.json is used; tokenizer.json says so
 * itself, and says more of what is in it. */
static gt_status take_tokenizer_config(vocabulary *v, const json_t *root, const char *name)
{
    /* All byte-level BPE over GPT-2's words. */
    static const char *const classes[] = { "GPT2Tokenizer", "CodeGenTokenizer", "RobertaTokenizer", "BartTokenizer",
                                           "LongformerTokenizer" };
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    const json_t *prefix = json_object_get(root, "add_prefix_space");
    if (!json_is_object(root))
        return gt_fail(GT_FORMAT, "cannot read '%s': it is not a JSON object", name);
    if (v->byte_level || v->count)                  /* tokenizer.json was read before */
        return put_prefix(v, prefix, name);
    if (class && !strncmp(class, "Qwen2Tokenizer", 14))
        return take_qwen2(v, name);
    if (json_is_true(prefix)) {
        v->parts[PART_SPLITTER] = part_byte_level(1, 1);
        v->chained = 1;
    }
    for (size_t i = 0; class && i < sizeof classes / sizeof *classes; i++)
        if (!strncmp(class, classes[i], strlen(classes[i])))
            return GT_OK;
    return !class ? GT_OK
                  : gt_fail(GT_UNSUPPORTED,
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
        st = vocabulary_load_config(&root, config);
        if (!st)
            st = take_tokenizer_config(v, root, config->name);
        if (!st)
            st = add_decoder(v, json_object_get(root, "added_tokens_decoder"), config->name);
        json_decref(root);
    }
    if (!st && added->text) {
        st = vocabulary_load_json(&root, added->text, added->size, added->name);
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
    if (part_absent(value))
        return GT_OK;
    if (!text)
        return gt_fail(GT_FORMAT, "cannot read '%s': %s is no token", name, key);
    const int64_t id = vocabulary_find(v, text, strlen(text));
    if (id < 0 && *text)
        gt_log(GT_LOG_WARN, "data",
               "special token '%.60s', %s of '%s', has no id in the vocabulary; where a "
               "text holds it, it is read as other text",
               text, key, name);
    if (id >= 0) {
        if (!v->pieces[id].special)
            v->pieces[id].flags |= vocabulary_added_flags(value);
        v->pieces[id].special = 1;
        v->pieces[id].flags |= PIECE_CONTROL;
    }
    if (id >= 0 && !strcmp(key, "eos_token"))
        v->end = (uint32_t)id + 1;
    return GT_OK;
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
        if (!st && !part_absent(list) && !json_is_array(list) && !json_is_object(list))
            st = gt_fail(GT_FORMAT, "cannot read '%s': %s is not a list", name, lists[i]);
        json_array_foreach(list, k, entry)
            st = st ? st : name_one(v, lists[i], entry, name);
        json_object_foreach(list, key, entry)
            st = st ? st : name_one(v, lists[i], entry, name);
    }
    return st;
}

/* RoBERTa and its kin frame texts as <s> A </s></s> B </s>, which their class says and no file. */
static gt_status frame_by_class(vocabulary *v, const json_t *config, const char *name)
{
    static const char *const classes[] = { "RobertaTokenizer", "BartTokenizer", "LongformerTokenizer" };
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    const int64_t cls = vocabulary_find(v, "<s>", 3), sep = vocabulary_find(v, "</s>", 4);
    int framed = 0;
    for (size_t i = 0; class && i < sizeof classes / sizeof *classes; i++)
        framed |= !strncmp(class, classes[i], strlen(classes[i]));
    if (!framed || v->source || v->parts[PART_FRAME] || cls < 0 || sep < 0)
        return GT_OK;
    v->parts[PART_FRAME] = json_pack("{s:s s:[s I] s:[s I] s:b s:b}", "type", "RobertaProcessing", "sep", "</s>",
                                     (json_int_t)sep, "cls", "<s>", (json_int_t)cls, "trim_offsets", 1,
                                     "add_prefix_space", 0);
    return v->parts[PART_FRAME] ? frame_read(&v->frame, v->parts[PART_FRAME], name) : vocabulary_no_memory(name);
}

/* Keeps what the files say, tokenizer_config.json first, to be written back. */
static gt_status keep_config(vocabulary *v, const json_t *root, const char *name)
{
    json_t *kept = v->config ? json_loads(v->config, JSON_DECODE_INT_AS_REAL, NULL) : json_object();
    char *text = NULL;
    if (kept && !json_object_update_missing(kept, (json_t *)(uintptr_t)root))
        text = json_dumps(kept, JSON_INDENT(1));
    json_decref(kept);
    if (!text)
        return vocabulary_no_memory(name);
    free(v->config);
    v->config = text;
    return GT_OK;
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
        st = vocabulary_load_config(&root, f);
        if (!st && !json_is_object(root))
            st = gt_fail(GT_FORMAT, "cannot read '%s': it is not a JSON object", f->name);
        if (!st)
            st = name_all(v, root, f->name);
        if (!st)
            st = frame_by_class(v, root, f->name);
        if (!st)
            st = keep_config(v, root, f->name);
        json_decref(root);
    }
    return st;
}
