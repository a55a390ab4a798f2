/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_txt.c - BERT's vocab.txt: one token a line, the line's number is its id.
 *
 * The file says nothing of case. Where tokenizer_config.json does not either, the tokens do: a
 * vocabulary made of lower-cased text has no upper-case letter outside its [CLS] and the like,
 * and with it every word that has one would be unknown if it were not lower-cased.        */
#include "host/tokenizer/vocabulary.h"

#include <string.h>

static const char *const signs[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };
enum { SIGN_UNKNOWN = 1, SIGN_CLS, SIGN_SEP, SIGNS = 5 };

static gt_status no_memory(const char *name)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its tokens", name);
}

static gt_status read_line(json_t *vocab, const char *line, size_t size, size_t number, int *upper, const char *name)
{
    json_t *text = json_stringn(line, size);
    if (!text || memchr(line, '\0', size)) {
        json_decref(text);
        return gt_fail(GT_FORMAT, "cannot read '%s': line %zu is not UTF-8 text", name, number + 1);
    }
    const char *token = json_string_value(text);
    gt_status st = GT_OK;
    if (json_object_get(vocab, token))
        st = gt_fail(GT_FORMAT, "cannot read '%s': line %zu, '%.60s', is there twice", name, number + 1, token);
    else if (!size)
        st = gt_fail(GT_FORMAT, "cannot read '%s': line %zu is empty", name, number + 1);
    else if (number >= VOCABULARY_MAX)
        st = gt_fail(GT_FORMAT, "cannot read '%s': it has more than %u lines", name, VOCABULARY_MAX);
    else if (json_object_set_new(vocab, token, json_integer((json_int_t)number)))
        st = no_memory(name);
    if (*token != '[')
        for (const char *p = token; *p; p++)
            *upper |= *p >= 'A' && *p <= 'Z';
    json_decref(text);
    return st;
}

static gt_status read_lines(json_t *vocab, const char *text, size_t size, int *upper, const char *name)
{
    gt_status st = GT_OK;
    size_t number = 0;
    for (size_t at = 0; at < size && !st; number++) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        const size_t next = at + length + 1;
        if (length && text[at + length - 1] == '\r')
            length--;
        st = read_line(vocab, text + at, length, number, upper, name);
        at = next;
    }
    if (!st && !json_object_get(vocab, signs[SIGN_UNKNOWN]))
        st = gt_fail(GT_FORMAT, "cannot read '%s': it has no line [UNK], so it is no vocabulary of WordPiece", name);
    return st;
}

static json_t *added_of(const json_t *vocab)
{
    json_t *list = json_array();
    for (size_t i = 0; i < SIGNS; i++) {
        json_t *id = json_object_get(vocab, signs[i]);
        if (id)
            json_array_append_new(list,
                                  json_pack("{s:O s:s s:b s:b s:b s:b s:b}", "id", id, "content", signs[i],
                                            "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    }
    return list;
}

static json_t *sequence(const char *id, int type)
{
    return json_pack("{s:{s:s s:i}}", "Sequence", "id", id, "type_id", type);
}

static json_t *sign(int which, int type)
{
    return json_pack("{s:{s:s s:i}}", "SpecialToken", "id", signs[which], "type_id", type);
}

static json_t *meaning(int which, json_t *id)
{
    return json_pack("{s:s s:[O] s:[s]}", "id", signs[which], "ids", id, "tokens", signs[which]);
}

/* [CLS] A [SEP] B [SEP], if it has them. */
static json_t *frame_of(const json_t *vocab)
{
    json_t *cls = json_object_get(vocab, signs[SIGN_CLS]), *sep = json_object_get(vocab, signs[SIGN_SEP]);
    if (!cls || !sep)
        return json_null();
    return json_pack("{s:s s:[o o o] s:[o o o o o] s:{s:o s:o}}", "type", "TemplateProcessing", "single",
                     sign(SIGN_CLS, 0), sequence("A", 0), sign(SIGN_SEP, 0), "pair", sign(SIGN_CLS, 0),
                     sequence("A", 0), sign(SIGN_SEP, 0), sequence("B", 1), sign(SIGN_SEP, 1), "special_tokens",
                     signs[SIGN_CLS], meaning(SIGN_CLS, cls), signs[SIGN_SEP], meaning(SIGN_SEP, sep));
}

static json_t *option(const json_t *config, const char *key, int otherwise)
{
    json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_incref(value) : otherwise < 0 ? json_null() : json_boolean(otherwise);
}

gt_status vocabulary_parse_txt(vocabulary *out, const char *text, size_t size, const char *name,
                               const vocabulary_text *config)
{
    json_t *vocab = json_object();
    json_t *says = config && config->text ? json_loadb(config->text, config->size, JSON_DECODE_INT_AS_REAL, NULL)
                                          : NULL;
    int upper = 0;
    gt_status st = vocab ? read_lines(vocab, text, size, &upper, name) : no_memory(name);
    if (!st) {
        json_t *root =
            json_pack("{s:s s:n s:n s:o s:{s:s s:b s:o s:o s:o} s:{s:s} s:o s:{s:s s:s s:b} s:{s:s s:s s:s s:i s:O}}",
                      "version", "1.0", "truncation", "padding", "added_tokens", added_of(vocab), "normalizer", "type",
                      "BertNormalizer", "clean_text", 1, "handle_chinese_chars",
                      option(says, "tokenize_chinese_chars", 1), "strip_accents", option(says, "strip_accents", -1),
                      "lowercase", option(says, "do_lower_case", !upper), "pre_tokenizer", "type", "BertPreTokenizer",
                      "post_processor", frame_of(vocab), "decoder", "type", "WordPiece", "prefix", "##", "cleanup", 1,
                      "model", "type", "WordPiece", "unk_token", signs[SIGN_UNKNOWN], "continuing_subword_prefix", "##",
                      "max_input_chars_per_word", 100, "vocab", vocab);
        st = vocabulary_parse_document(out, root, name);
    }
    json_decref(vocab);
    json_decref(says);
    return st;
}
