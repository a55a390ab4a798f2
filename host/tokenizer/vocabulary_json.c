/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_json.c - tokenizer.json, and GPT-2's pair of files.
 *
 *   tokenizer.json        { "added_tokens": [ {id, content, ...} ],
 *                           "normalizer", "pre_tokenizer", "decoder",
 *                           "model": { "type": "BPE", "vocab": {text: id},
 *                                      "merges": ["a b"] or [["a","b"]] } }
 *   vocab.json            {text: id}
 *   merges.txt            "#version: 0.2", then a merge a line, "a b", best first
 *
 * Two kinds of tokenizer.json are told apart. Plain ones, byte-level BPE with at most one pattern and no
 * normalizer, are `pattern` and `byte_level` and nothing else. Of the others the parts are kept as they
 * are (`parts`) and read by what does them: normalizer.c, splitter.c, frame.c, decoder.c, each of which
 * refuses by name what it does not know: a wrong tokenizer that opens is worse than one that does not. */
#include "host/tokenizer/vocabulary_private.h"

#include "host/tokenizer/splitter.h"
#include "host/tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Texts that end a document, in the order in which they are looked for. */
static const char *const end_names[] = { "<|endoftext|>", "<|end_of_text|>", "</s>" };
#define END_NAMES (sizeof end_names / sizeof *end_names)

gt_status vocabulary_no_memory(const char *name)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its paths and texts", name);
}

static gt_status load(json_t **out, const char *text, size_t size, const char *name, size_t flags)
{
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | flags, &error);
    if (!*out)
        return gt_fail(GT_FORMAT, "cannot read '%s': byte %d: %s", name, error.position, error.text);
    return GT_OK;
}

gt_status vocabulary_load_json(json_t **out, const char *text, size_t size, const char *name)
{
    return load(out, text, size, name, 0);
}

/* tokenizer_config.json says model_max_length: 1000000000000000019884624838656 where there is none. */
gt_status vocabulary_load_config(json_t **out, const vocabulary_text *f)
{
    return load(out, f->text, f->size, f->name, JSON_DECODE_INT_AS_REAL);
}

gt_status vocabulary_bad_id(const char *name, const char *text, const char *why)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': the id of token '%.60s' %s", name, text, why);
}

/* Reads an id; `text` is the token it belongs to. */
gt_status vocabulary_read_id(uint32_t *out, const json_t *value, const char *text, const char *name)
{
    if (!json_is_integer(value))
        return vocabulary_bad_id(name, text, "is not a whole number");
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= VOCABULARY_MAX)
        return vocabulary_bad_id(name, text, "is out of range");
    *out = (uint32_t)id;
    return GT_OK;
}

/* One entry of "vocab". An added token stands there as it is, not byte-level. */
static gt_status read_piece(vocabulary *v, const char *text, const json_t *value, const char *name)
{
    uint32_t id = 0;
    gt_status st = vocabulary_read_id(&id, value, text, name);
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
        return vocabulary_no_memory(name);
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
        return vocabulary_no_memory(name);
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
uint32_t vocabulary_added_flags(const json_t *entry)
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
        gt_status st = vocabulary_read_id(&id, json_object_get(entry, "id"), text, name);
        if (st)
            return st;
        if ((st = vocabulary_add_token(v, id, text, strlen(text), vocabulary_added_flags(entry))))
            return gt_fail_in(st, "cannot read '%s': added token '%.60s'", name, text);
    }
    return GT_OK;
}

static gt_status unsupported(const char *name, const char *what, const char *which)
{
    return gt_fail(GT_UNSUPPORTED, "cannot read '%s': %s '%.60s' is not known here", name, what, which);
}

/* ByteLevel as GPT-2 has it: nothing is put in front. */
static int is_bare_byte_level(const json_t *part)
{
    return !strcmp(part_type(part), "ByteLevel") && !json_is_true(json_object_get(part, "add_prefix_space"));
}

/* A regular expression each match of which is a word, and so is what lies between matches; NULL if the part
 * is something else. One that looks behind is not for a text that comes in pieces. */
static const char *isolating(const json_t *part)
{
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    const char *regex = json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
    const int plain = !strcmp(part_type(part), "Split") && behavior && !strcmp(behavior, "Isolated") && regex
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
    if (strcmp(part_type(part), "Sequence") || json_array_size(list) < 1 || json_array_size(list) > 2)
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
        if (part_absent(part))
            continue;
        if (!json_is_object(part))
            return gt_fail(GT_FORMAT, "cannot read '%s': %s is not an object", name, keys[i]);
        v->parts[i] = json_incref(part);
    }
    const json_t *cut = v->parts[PART_SPLITTER];
    v->byte_level = cut && splitter_is_byte_level(cut);
    v->chained = v->parts[PART_NORMALIZER] || (cut && !is_plain(cut, &pattern));
    if (cut && !v->chained && pattern && !(v->pattern = strdup(pattern)))
        return vocabulary_no_memory(name);
    return GT_OK;
}

static gt_status read_affix(char **out, const json_t *model, const char *key, const char *name)
{
    const char *text = json_string_value(json_object_get(model, key));
    if (!text || !*text)
        return GT_OK;
    *out = strdup(text);
    return *out ? GT_OK : vocabulary_no_memory(name);
}

/* What kind the model is, and what it says besides its lists. */
static gt_status read_model(vocabulary *v, const json_t *model, const char *name)
{
    static const char *const kinds[] = { "BPE", "WordPiece", "Unigram" };
    const json_t *longest = json_object_get(model, "max_input_chars_per_word");
    size_t kind = 0;
    if (!json_is_object(model))
        return gt_fail(GT_FORMAT, "cannot read '%s': it holds no model", name);
    while (kind < 3 && json_object_get(model, "type") && strcmp(part_type(model), kinds[kind]))
        kind++;
    if (kind == 3)
        return unsupported(name, "tokenizer model", part_type(model));
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
        return vocabulary_no_memory(name);
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
    const char *unknown = v->model == MODEL_WORDPIECE && part_absent(text) ? "[UNK]" : json_string_value(text);
    if (v->model == MODEL_UNIGRAM) {
        const json_int_t id = json_integer_value(number);
        if (!part_absent(number) && (!json_is_integer(number) || id < 0 || id >= v->count || !v->pieces[id].size))
            return gt_fail(GT_FORMAT, "cannot read '%s': unk_id is no id of the vocabulary", name);
        v->unknown = part_absent(number) ? 0 : (uint32_t)id + 1;
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
    gt_status st = root ? GT_OK : vocabulary_no_memory(name);
    if (!st && !(out->source = json_dumps(root, JSON_INDENT(1))))
        st = vocabulary_no_memory(name);
    if (!st)
        st = read_document(out, root, name);
    json_decref(root);
    return st;
}

gt_status vocabulary_parse_json(vocabulary *out, const char *text, size_t size, const char *name)
{
    json_t *root;
    gt_status st = vocabulary_load_json(&root, text, size, name);
    if (st)
        return st;
    st = read_document(out, root, name);
    json_decref(root);
    if (!st && !(out->source = strndup(text, size)))
        st = vocabulary_no_memory(name);
    return st;
}

gt_status vocabulary_parse_pair(vocabulary *out, const char *vocab, size_t vocab_size, const char *vocab_name,
                                const char *merges, size_t merges_size, const char *merges_name)
{
    json_t *root;
    gt_status st = vocabulary_load_json(&root, vocab, vocab_size, vocab_name);
    if (st)
        return st;
    out->byte_level = 1;
    if (!out->parts[PART_SPLITTER])             /* a class beside may have said it */
        out->parts[PART_SPLITTER] = part_byte_level(1, 0);
    if (!out->chained)
        out->pattern = strdup(GPT2_PATTERN);
    st = (out->pattern || out->chained) && out->parts[PART_SPLITTER]
             ? read_vocab(out, root, vocab_name)
             : vocabulary_no_memory(vocab_name);
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
