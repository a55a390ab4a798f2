/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_file.c - tokenizer.json and GPT-2's pair of files.
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
 * Two kinds of tokenizer.json are told apart. Plain ones, byte-level BPE with at most one pattern and no
 * normalizer, are `pattern` and `byte_level` and nothing else. Of the others the parts are kept as they
 * are (`parts`) and read by what does them: normalizer.c, splitter.c, frame.c, decoder.c, each of which
 * refuses by name what it does not know: a wrong tokenizer that opens is worse than one that does not.
 *
 * What was read is written back as it was read, so nothing that is not used here is lost.              */
#include "host/tokenizer/vocabulary.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tokenizer/splitter.h"
#include "host/tokenizer/utf8.h"

#include <jansson.h>
#include <stdio.h>
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

static json_t *byte_level(int use_regex, int prefix)
{
    return json_pack("{s:s s:b s:b s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", 1,
                     "use_regex", use_regex);
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
        && !memcmp(vocabulary_bytes(v, id), text, size)) {
        v->pieces[id].flags |= PIECE_MODEL;
        return GT_OK;
    }
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
    int64_t length = v->byte_level ? byte_level_decode((unsigned char *)bytes, size) : (int64_t)size;
    int64_t id = length > 0 ? vocabulary_find_model(v, bytes, (size_t)length) : -1;
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

/* What an added token says of itself; a text says nothing. */
static uint32_t flags_of(const json_t *entry)
{
    static const struct {
        const char *key;
        uint32_t flag;
    } known[] = { { "special", PIECE_CONTROL },
                  { "single_word", PIECE_SINGLE_WORD },
                  { "lstrip", PIECE_LSTRIP },
                  { "rstrip", PIECE_RSTRIP },
                  { "normalized", PIECE_NORMALIZED } };
    uint32_t flags = 0;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (json_is_true(json_object_get(entry, known[k].key)))
            flags |= known[k].flag;
    return flags;
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
        if ((st = vocabulary_add_token(v, id, text, strlen(text), flags_of(entry))))
            return gt_fail_in(st, "cannot read '%s': added token '%.60s'", name, text);
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

/* ByteLevel as GPT-2 has it: nothing is put in front. */
static int is_bare_byte_level(const json_t *part)
{
    return !strcmp(type_of(part), "ByteLevel") && !json_is_true(json_object_get(part, "add_prefix_space"));
}

/* A regular expression each match of which is a word, and so is what lies between matches; NULL if the part
 * is something else. One that looks behind is not for a text that comes in pieces. */
static const char *isolating(const json_t *part)
{
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    const char *regex = json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    const int plain = !strcmp(type_of(part), "Split") && behavior && !strcmp(behavior, "Isolated") && regex
                      && !json_is_true(json_object_get(part, "invert")) && !strstr(regex, "(?<")
                      && !strstr(regex, "\\b") && !strstr(regex, "\\B");
    return plain ? regex : NULL;
}

/* Is the pre_tokenizer ByteLevel, or one isolating Split and ByteLevel without a pattern of its own? *pattern
 * becomes what cuts, or NULL. */
static int is_plain(const json_t *part, const char **pattern)
{
    const json_t *list = json_object_get(part, "pretokenizers");
    *pattern = NULL;
    if (is_bare_byte_level(part)) {
        *pattern = json_is_false(json_object_get(part, "use_regex")) ? NULL : GPT2_PATTERN;
        return 1;
    }
    if (strcmp(type_of(part), "Sequence") || json_array_size(list) < 1 || json_array_size(list) > 2)
        return 0;
    if (json_array_size(list) == 1)
        return is_bare_byte_level(json_array_get(list, 0)) && is_plain(json_array_get(list, 0), pattern);
    const json_t *bytes = json_array_get(list, 1);
    *pattern = isolating(json_array_get(list, 0));
    return *pattern && is_bare_byte_level(bytes) && json_is_false(json_object_get(bytes, "use_regex"));
}

/* Keeps the parts, and decides whether they are more than a pattern. */
static gt_status read_parts(vocabulary *v, const json_t *root, const char *name)
{
    static const char *const keys[PARTS] = { "normalizer", "pre_tokenizer", "post_processor", "decoder" };
    const char *pattern;
    for (int i = 0; i < PARTS; i++) {
        json_t *part = json_object_get(root, keys[i]);
        if (absent(part))
            continue;
        if (!json_is_object(part))
            return gt_fail(GT_FORMAT, "cannot read '%s': %s is not an object", name, keys[i]);
        v->parts[i] = json_incref(part);
    }
    const json_t *cut = v->parts[PART_SPLITTER];
    v->byte_level = cut && splitter_is_byte_level(cut);
    v->chained = v->parts[PART_NORMALIZER] || (cut && !is_plain(cut, &pattern));
    if (cut && !v->chained && pattern && !(v->pattern = strdup(pattern)))
        return no_memory(name);
    return GT_OK;
}

static gt_status read_affix(char **out, const json_t *model, const char *key, const char *name)
{
    const char *text = json_string_value(json_object_get(model, key));
    if (!text || !*text)
        return GT_OK;
    *out = strdup(text);
    return *out ? GT_OK : no_memory(name);
}

/* What kind the model is, and what it says besides its lists. */
static gt_status read_model(vocabulary *v, const json_t *model, const char *name)
{
    static const char *const kinds[] = { "BPE", "WordPiece", "Unigram" };
    const json_t *longest = json_object_get(model, "max_input_chars_per_word");
    size_t kind = 0;
    if (!json_is_object(model))
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no model", name);
    while (kind < 3 && json_object_get(model, "type") && strcmp(type_of(model), kinds[kind]))
        kind++;
    if (kind == 3)
        return unsupported(name, "tokenizer model", type_of(model));
    if (json_number_value(json_object_get(model, "dropout")) != 0.0)
        return unsupported(name, "model option", "dropout");
    v->model = (vocabulary_model)kind;
    v->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    v->byte_fallback = json_is_true(json_object_get(model, "byte_fallback"));
    v->fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    if (v->model == MODEL_WORDPIECE) {
        const json_int_t characters = json_is_integer(longest) ? json_integer_value(longest) : 100;
        v->longest = characters < 0 || characters > UINT32_MAX ? UINT32_MAX : (uint32_t)characters;
    }
    gt_status st = read_affix(&v->prefix, model, "continuing_subword_prefix", name);
    if (!st)
        st = read_affix(&v->suffix, model, "end_of_word_suffix", name);
    v->chained |= v->model != MODEL_BPE || v->byte_fallback || v->prefix || v->suffix;
    return st;
}

/* The score as Hugging Face's reader has it: all digits as one whole number, divided by a power of ten, which
 * may be off in the last place. Words whose best two ways are equally good turn on that. */
static double score_of(const json_t *value)
{
    const double exact = json_number_value(value);
    char text[40];
    int digits = 1;
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, exact);
    while (strtod(text, NULL) != exact && digits++ < 17);
    const char *e = strchr(text, 'e');
    const long scale = e ? strtol(e + 1, NULL, 10) - (digits - 1) : 0;
    uint64_t whole = 0;
    for (const char *p = text; e && p < e; p++)
        if (*p >= '0' && *p <= '9')
            whole = whole * 10 + (uint64_t)(*p - '0');
    if (!e || scale > 0 || scale < -22)             /* a power of ten beyond 22 is no longer exact */
        return exact;
    double power = 1.0;
    for (long i = 0; i < -scale; i++)
        power *= 10.0;
    return exact < 0.0 ? -((double)whole / power) : (double)whole / power;
}

/* "vocab" of Unigram: [[text, score], ...], the id is the place. */
static gt_status read_scores(vocabulary *v, const json_t *list, const char *name)
{
    const size_t count = json_array_size(list);
    if (!count || count > VOCABULARY_MAX)
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no vocabulary of pieces with scores", name);
    double *scores = calloc(VOCABULARY_MAX < count + v->count ? VOCABULARY_MAX : count + v->count, sizeof *scores);
    if (!scores)
        return no_memory(name);
    v->scores = scores;
    gt_status st = GT_OK;
    for (size_t i = 0; i < count && !st; i++) {
        const json_t *entry = json_array_get(list, i), *score = json_array_get(entry, 1);
        const char *text = json_string_value(json_array_get(entry, 0));
        if (!text || !json_is_number(score))
            return gt_fail(GT_FORMAT, "cannot read '%s': entry %zu of vocab is not a piece with a score", name, i);
        scores[i] = score_of(score);
        json_t *id = json_integer((json_int_t)i);
        st = read_piece(v, text, id, name);
        json_decref(id);
    }
    return st;
}

/* BPE and WordPiece name their unknown token, Unigram gives its id. */
static gt_status read_unknown(vocabulary *v, const json_t *model, const char *name)
{
    const json_t *text = json_object_get(model, "unk_token"), *number = json_object_get(model, "unk_id");
    const char *unknown = v->model == MODEL_WORDPIECE && absent(text) ? "[UNK]" : json_string_value(text);
    if (v->model == MODEL_UNIGRAM) {
        const json_int_t id = json_integer_value(number);
        if (!absent(number) && (!json_is_integer(number) || id < 0 || id >= v->count || !v->pieces[id].size))
            return gt_fail(GT_FORMAT, "cannot read '%s': unk_id is no id of the vocabulary", name);
        v->unknown = absent(number) ? 0 : (uint32_t)id + 1;
        return GT_OK;
    }
    if (v->byte_level)              /* every byte is a piece, so nothing is unknown */
        return GT_OK;
    const int64_t id = unknown ? vocabulary_find(v, unknown, strlen(unknown)) : -1;
    if (unknown && id < 0)
        return gt_fail(GT_FORMAT, "cannot read '%s': the unknown token '%.60s' is no token", name, unknown);
    v->unknown = unknown ? (uint32_t)id + 1 : 0;
    v->chained |= v->unknown != 0;
    return GT_OK;
}

/* Plain files whose added tokens are not all found in the same way, or whose pieces are more than characters
 * without merges of bytes. */
int vocabulary_needs_chain(const vocabulary *v)
{
    uint32_t seen = 0, tokens = 0, normalized = 0;
    for (uint32_t id = 0; id < v->count; id++) {
        const piece *p = &v->pieces[id];
        uint32_t code;
        if (p->special) {
            seen |= p->flags & PIECE_LOOKS;
            tokens++;
            normalized += (p->flags & PIECE_NORMALIZED) != 0;
        } else if (p->size && !v->byte_level
                   && utf8_next((const unsigned char *)vocabulary_bytes(v, id), p->size, &code) != (int)p->size) {
            return 1;
        }
    }
    return seen || (normalized && normalized < tokens) || (!v->byte_level && (tokens || v->merge_count));
}

static gt_status read_document(vocabulary *v, const json_t *root, const char *name)
{
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    gt_status st = json_is_object(model) ? read_parts(v, root, name)
                                         : gt_fail(GT_FORMAT, "cannot read '%s': it holds no model", name);
    if (!st)
        st = read_model(v, model, name);
    if (!st)
        st = read_added(v, json_object_get(root, "added_tokens"), name);
    if (!st)
        st = v->model == MODEL_UNIGRAM ? read_scores(v, vocab, name) : read_vocab(v, vocab, name);
    if (!st)
        st = read_unknown(v, model, name);
    if (!st && v->model == MODEL_BPE)
        st = read_merges(v, json_object_get(model, "merges"), name);
    if (!st)
        st = frame_read(&v->frame, v->parts[PART_FRAME], name);
    if (!st && v->frame.vocab > v->count)
        st = gt_fail(GT_FORMAT, "cannot read '%s': post_processor names id %u, but ids end at %u", name,
                     v->frame.vocab - 1, v->count ? v->count - 1 : 0);
    return st;
}

gt_status vocabulary_parse_document(vocabulary *out, json_t *root, const char *name)
{
    gt_status st = root ? GT_OK : no_memory(name);
    if (!st && !(out->source = json_dumps(root, JSON_INDENT(1))))
        st = no_memory(name);
    if (!st)
        st = read_document(out, root, name);
    json_decref(root);
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
    if (!st && !(out->source = strndup(text, size)))
        st = no_memory(name);
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
    if (!out->parts[PART_SPLITTER])             /* a class beside may have said it */
        out->parts[PART_SPLITTER] = byte_level(1, 0);
    if (!out->chained)
        out->pattern = strdup(GPT2_PATTERN);
    st = (out->pattern || out->chained) && out->parts[PART_SPLITTER]
             ? read_vocab(out, root, vocab_name)
             : no_memory(vocab_name);
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
            out->pieces[id].flags |= PIECE_CONTROL;
        }
    }
    return st;
}

/* ---- the files beside ---------------------------------------------------------------------------- */

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
            st = read_id(&id, value, text, name);
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
        st = add_special(v, (uint32_t)id, text, flags_of(entry), name);
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
                                        "invert", 0, byte_level(0, 0));
    v->chained = 1;
    return v->parts[PART_NORMALIZER] && v->parts[PART_SPLITTER] ? GT_OK : no_memory(name);
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
        return no_memory(name);
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
        v->parts[PART_SPLITTER] = byte_level(1, 1);
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
        st = parse_config(&root, config);
        if (!st)
            st = take_tokenizer_config(v, root, config->name);
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
    const int64_t id = vocabulary_find(v, text, strlen(text));
    if (id < 0 && *text)
        gt_log(GT_LOG_WARN, "data",
               "special token '%.60s', %s of '%s', has no id in the vocabulary; where a "
               "text holds it, it is read as other text",
               text, key, name);
    if (id >= 0) {
        if (!v->pieces[id].special)
            v->pieces[id].flags |= flags_of(value);
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
        if (!st && !absent(list) && !json_is_array(list) && !json_is_object(list))
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
    return v->parts[PART_FRAME] ? frame_read(&v->frame, v->parts[PART_FRAME], name) : no_memory(name);
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
        return no_memory(name);
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
        st = parse_config(&root, f);
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

typedef gt_status (*vocabulary_parser)(vocabulary *out, const char *text, size_t size, const char *name,
                                       const vocabulary_text *config);

/* A file that is a vocabulary alone; what tokenizer_config.json says of it goes in, what it and the others
 * beside name comes after. */
static gt_status read_alone(vocabulary *out, const char *path, const char *folder, vocabulary_parser parser)
{
    vocabulary_text files[BESIDE_FILES] = { { 0 } };
    beside b = { 0 };
    char *text = NULL;
    size_t size;
    gt_status st = gt_file_read(&text, &size, path, FILE_LIMIT);
    if (!st && folder)
        st = beside_read(&b, files, folder);
    if (!st)
        st = parser(out, text, size, path, &files[BESIDE_CONFIG]);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    free(text);
    return st;
}

/* By the end of its name. */
static vocabulary_parser parser_of(const char *path)
{
    static const struct {
        const char *end;
        vocabulary_parser parser;
    } known[] = { { ".txt", vocabulary_parse_txt },
                  { ".model", vocabulary_parse_sentencepiece },
                  { ".bin", vocabulary_parse_llama2c } };
    const size_t size = strlen(path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t end = strlen(known[i].end);
        if (size > end && !strcmp(path + size - end, known[i].end))
            return known[i].parser;
    }
    return NULL;
}

static gt_status read_file(vocabulary *out, const char *path)
{
    const vocabulary_parser parser = parser_of(path);
    return parser ? read_alone(out, path, NULL, parser) : read_json(out, path);
}

gt_status vocabulary_read(vocabulary *out, const char *path)
{
    static const char *const json_names[] = { "tokenizer.json", "tokenizer/tokenizer.json", NULL };
    static const char *const vocab_names[] = { "vocab.json", "encoder.json", NULL };
    static const char *const merges_names[] = { "merges.txt", "vocab.bpe", NULL };
    static const char *const alone_names[] = { "tokenizer.model", "spiece.model",  "sentencepiece.bpe.model",
                                               "vocab.txt",       "tokenizer.bin", NULL };
    char *json = NULL, *vocab = NULL, *merges = NULL, *alone = NULL;

    if (!gt_path_is_folder(path))
        return read_file(out, path);
    gt_status st = find_file(&json, path, json_names);
    if (!st)
        st = find_file(&vocab, path, vocab_names);
    if (!st)
        st = find_file(&merges, path, merges_names);
    if (!st)
        st = find_file(&alone, path, alone_names);
    if (!st && json)
        st = read_json_folder(out, json);
    else if (!st && vocab && merges)
        st = read_pair_folder(out, path, vocab, merges);
    else if (!st && alone)
        st = read_alone(out, alone, path, parser_of(alone));
    else if (!st)
        st = gt_fail(GT_NOT_FOUND,
                     "cannot read tokenizer '%s': the folder holds neither tokenizer.json nor vocab.json with "
                     "merges.txt, tokenizer.model or vocab.txt",
                     path);
    free(json);
    free(vocab);
    free(merges);
    free(alone);
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
        return byte_level(v->pattern != NULL, 0);
    return json_pack("{s:s s:[{s:s s:{s:s} s:s s:b} o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                     "pattern", "Regex", v->pattern, "behavior", "Isolated", "invert", 0, byte_level(0, 0));
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
    json_t *decoder = v->byte_level ? byte_level(1, 0) : json_pack("{s:s}", "type", "Fuse");
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
    if (config && eot >= 0 && absent(json_object_get(config, "eos_token")))
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
    gt_status st = path ? gt_file_write(path, v->source, strlen(v->source)) : no_memory(folder);
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
