/* SPDX-License-Identifier: MIT */
/* host/tokenizer/sentencepiece.c - tokenizer.model and llama2.c's tokenizer.bin, as tokenizer.json.
 *
 * tokenizer.model is a protocol buffer, ModelProto of sentencepiece_model.proto. Of it are read
 *
 *   1  pieces          { 1 piece: string, 2 score: float, 3 type: enum }
 *   2  trainer_spec    { 3 model_type: 1 unigram, 2 bpe; 24 treat_whitespace_as_suffix; 41 bos_id, 42 eos_id }
 *   3  normalizer_spec { 2 precompiled_charsmap: bytes, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
 *                        5 escape_whitespaces }
 *   5  denormalizer_spec, which must be empty
 *
 * A merge of BPE is a piece cut in two pieces; the piece's score is its place. Pieces of the user's
 * (type 4) are added tokens; with them a space is put in front as Metaspace does it, "first", because
 * a normalizer would put one behind each of them as well.                               */
#include "host/base/text.h"
#include "host/tokenizer/vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };
enum { KIND_UNIGRAM = 1, KIND_BPE = 2 };

typedef struct sp_piece {
    char *text;
    size_t size;
    float score;
    int type;
} sp_piece;

typedef struct sp_model {
    const char *name;
    sp_piece *pieces;
    size_t count, room;
    uint64_t kind, dummy_prefix, remove_extra, escape, suffix, bos, eos;
    const unsigned char *charsmap;
    size_t charsmap_size;
    int has_bytes, has_user, denormalizes;
    int64_t unknown;
    int adds_bos, adds_eos;                 /* around a text, as the class says */
} sp_model;

static gt_status no_memory(const sp_model *m)
{
    return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for its pieces", m->name);
}

static void release(sp_model *m)
{
    for (size_t i = 0; i < m->count; i++)
        free(m->pieces[i].text);
    free(m->pieces);
}

static gt_status add_piece(sp_model *m, const void *text, size_t size, float score, int type)
{
    if (m->count == VOCABULARY_MAX)
        return gt_fail(GT_FORMAT, "cannot read '%s': it has more than %u pieces", m->name, VOCABULARY_MAX);
    if (m->count == m->room) {
        const size_t room = m->room ? 2 * m->room : 1024;
        sp_piece *pieces = realloc(m->pieces, room * sizeof *pieces);
        if (!pieces)
            return no_memory(m);
        m->pieces = pieces;
        m->room = room;
    }
    char *copy = malloc(size + 1);
    if (!copy)
        return no_memory(m);
    if (size)
        memcpy(copy, text, size);
    copy[size] = '\0';
    m->pieces[m->count++] = (sp_piece){ copy, size, score, type };
    m->has_bytes |= type == TYPE_BYTE;
    m->has_user |= type == TYPE_USER;
    if (type == TYPE_UNKNOWN)
        m->unknown = (int64_t)m->count - 1;
    return GT_OK;
}

/* ---- the wire form ------------------------------------------------------------------------------- */

typedef struct field {
    uint32_t number;
    int wire;                               /* 0 varint, 1 and 5 fixed, 2 bytes */
    uint64_t value;
    const unsigned char *bytes;
    size_t size;
} field;

static int read_varint(const unsigned char **p, const unsigned char *end, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; *p < end && shift < 64; shift += 7) {
        const unsigned char byte = *(*p)++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return 1;
    }
    return 0;
}

/* 1: *out is the next field; 0: the bytes are broken. */
static int read_field(const unsigned char **p, const unsigned char *end, field *out)
{
    uint64_t key, size;
    if (!read_varint(p, end, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return 0;
    *out = (field){ .number = (uint32_t)(key >> 3), .wire = (int)(key & 7) };
    if (out->wire == 0)
        return read_varint(p, end, &out->value);
    if (out->wire == 2 ? !read_varint(p, end, &size) : out->wire != 1 && out->wire != 5)
        return 0;
    if (out->wire != 2)
        size = out->wire == 1 ? 8 : 4;
    if (size > (uint64_t)(end - *p))
        return 0;
    out->bytes = *p;
    out->size = (size_t)size;
    *p += size;
    return 1;
}

static float float_of(const unsigned char *b)
{
    const uint32_t bits = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static gt_status broken(const sp_model *m, const char *what)
{
    return gt_fail(GT_FORMAT, "cannot read '%s': %s", m->name, what);
}

#define NOT_A_MODEL "it is not a SentencePiece model, or cut"

static gt_status read_piece(sp_model *m, const unsigned char *p, size_t size)
{
    const unsigned char *end = p + size;
    field f, text = { 0 };
    float score = 0.0f;
    uint64_t type = TYPE_NORMAL;
    while (p < end) {
        if (!read_field(&p, end, &f))
            return broken(m, NOT_A_MODEL);
        if (f.number == 1 && f.wire == 2)
            text = f;
        else if (f.number == 2 && f.wire == 5)
            score = float_of(f.bytes);
        else if (f.number == 3 && f.wire == 0)
            type = f.value;
    }
    if (!text.size || memchr(text.bytes, '\0', text.size))
        return gt_fail(GT_FORMAT, "cannot read '%s': piece %zu has no text", m->name, m->count);
    if (type == TYPE_UNUSED || type < TYPE_NORMAL || type > TYPE_BYTE)
        return gt_fail(GT_UNSUPPORTED, "cannot read '%s': piece %zu is of type %llu, which is not known here", m->name,
                       m->count, (unsigned long long)type);
    if (!isfinite(score))
        return gt_fail(GT_FORMAT, "cannot read '%s': the score of piece %zu is no number", m->name, m->count);
    return add_piece(m, text.bytes, text.size, score, (int)type);
}

typedef struct wanted {
    uint32_t number;                        /* of the field */
    uint64_t *value;                        /* NULL: no more */
} wanted;

/* The numbers of a message that are wanted, and the map of characters of the normalizer's. */
static gt_status read_numbers(sp_model *m, const field *message, const wanted *all)
{
    const unsigned char *p = message->bytes, *end = p + message->size;
    field f;
    while (p < end) {
        if (!read_field(&p, end, &f))
            return broken(m, NOT_A_MODEL);
        for (const wanted *w = all; w->value; w++)
            if (w->number == f.number && f.wire == 0)
                *w->value = f.value;
        if (all->value == &m->dummy_prefix && f.number == 2 && f.wire == 2) {
            m->charsmap = f.bytes;
            m->charsmap_size = f.size;
        }
    }
    return GT_OK;
}

static gt_status read_model(sp_model *m, const unsigned char *p, size_t size)
{
    const unsigned char *end = p + size;
    const wanted trainer[] = { { 3, &m->kind }, { 24, &m->suffix }, { 41, &m->bos }, { 42, &m->eos }, { 0, NULL } };
    const wanted normalizer[] = { { 3, &m->dummy_prefix }, { 4, &m->remove_extra }, { 5, &m->escape }, { 0, NULL } };
    gt_status st = GT_OK;
    field f;
    while (p < end && !st) {
        if (!read_field(&p, end, &f))
            return broken(m, NOT_A_MODEL);
        if (f.wire == 2 && f.number == 1)
            st = read_piece(m, f.bytes, f.size);
        else if (f.wire == 2 && f.number == 2)
            st = read_numbers(m, &f, trainer);
        else if (f.wire == 2 && f.number == 3)
            st = read_numbers(m, &f, normalizer);
        else if (f.wire == 2 && f.number == 5)
            m->denormalizes = f.size > 0 && memchr(f.bytes, 0x12, f.size) != NULL;
    }
    if (!st && !m->count)
        st = broken(m, NOT_A_MODEL);
    return st;
}

static gt_status unsupported(const sp_model *m, const char *what)
{
    return gt_fail(GT_UNSUPPORTED, "cannot read '%s': %s is not known here", m->name, what);
}

static gt_status check_model(const sp_model *m)
{
    if (m->kind != KIND_UNIGRAM && m->kind != KIND_BPE)
        return unsupported(m, "a model of words or characters");
    if (m->suffix)
        return unsupported(m, "treat_whitespace_as_suffix");
    if (!m->escape)
        return unsupported(m, "escape_whitespaces = false");
    if (m->unknown < 0)
        return broken(m, "it has no unknown piece");
    for (size_t i = 0; i < m->count && m->dummy_prefix; i++)
        if (m->pieces[i].type == TYPE_USER && strstr(m->pieces[i].text, SPACE))
            return unsupported(m, "a piece of the user's with a space in it, where a space comes in front of texts,");
    return GT_OK;
}

/* ---- tokenizer.json of it ------------------------------------------------------------------------- */

static char *base64(const unsigned char *bytes, size_t size)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = malloc(4 * ((size + 2) / 3) + 1), *to = out;
    for (size_t i = 0; out && i < size; i += 3) {
        const size_t left = size - i;
        const uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0)
                               | (left > 2 ? bytes[i + 2] : 0u);
        *to++ = letters[group >> 18];
        *to++ = letters[group >> 12 & 63];
        *to++ = left > 1 ? letters[group >> 6 & 63] : '=';
        *to++ = left > 2 ? letters[group & 63] : '=';
    }
    if (out)
        *to = '\0';
    return out;
}

static json_t *replace(const char *key, const char *find, const char *put)
{
    return json_pack("{s:s s:{s:s} s:s}", "type", "Replace", "pattern", key, find, "content", put);
}

/* Map of characters, extra spaces, a space in front, spaces made visible. */
static json_t *normalizer_of(const sp_model *m)
{
    json_t *list = json_array();
    if (m->charsmap_size) {
        char *map = base64(m->charsmap, m->charsmap_size);
        json_array_append_new(list,
                              json_pack("{s:s s:s}", "type", "Precompiled", "precompiled_charsmap", map ? map : ""));
        free(map);
    }
    if (m->remove_extra) {
        json_array_append_new(list, replace("Regex", "\\A +| +\\z", ""));
        json_array_append_new(list, replace("Regex", " {2,}", " "));
    }
    if (m->dummy_prefix && !m->has_user)
        json_array_append_new(list, json_pack("{s:s s:s}", "type", "Prepend", "prepend", SPACE));
    if (!m->dummy_prefix || !m->has_user)
        json_array_append_new(list, replace("String", " ", SPACE));
    return json_array_size(list) ? json_pack("{s:s s:o}", "type", "Sequence", "normalizers", list)
                                 : (json_decref(list), json_null());
}

static json_t *pre_tokenizer_of(const sp_model *m)
{
    return m->dummy_prefix && m->has_user
               ? json_pack("{s:s s:s s:s s:b}", "type", "Metaspace", "replacement", SPACE, "prepend_scheme", "first",
                           "split", 0)
               : json_null();
}

static json_t *decoder_of(const sp_model *m)
{
    json_t *list = json_pack("[o {s:s} {s:s}]", replace("String", SPACE, " "), "type", "ByteFallback", "type", "Fuse");
    if (m->dummy_prefix)
        json_array_append_new(list,
                              json_pack("{s:s s:s s:i s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s s:o}", "type", "Sequence", "decoders", list);
}

/* Unknown, control and user pieces. In a text a user's piece stands with spaces, not with their sign. */
static json_t *added_of(const sp_model *m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < m->count; i++) {
        const sp_piece *p = &m->pieces[i];
        if (p->type != TYPE_UNKNOWN && p->type != TYPE_CONTROL && p->type != TYPE_USER)
            continue;
        const int user = p->type == TYPE_USER;
        json_array_append_new(list, json_pack("{s:I s:s% s:b s:b s:b s:b s:b}", "id", (json_int_t)i, "content", p->text,
                                              p->size, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized",
                                              user && !m->dummy_prefix, "special", !user));
    }
    return list;
}

typedef struct sp_merge {
    size_t left, whole;                     /* bytes of the left half; index of the piece */
    const sp_model *model;
} sp_merge;

/* Best score first; of one piece the longest left half first. */
static int by_score(const void *a, const void *b)
{
    const sp_merge *x = a, *y = b;
    const float sx = x->model->pieces[x->whole].score, sy = y->model->pieces[y->whole].score;
    if (sx != sy)
        return sx > sy ? -1 : 1;
    if (x->whole != y->whole)
        return x->whole < y->whole ? -1 : 1;
    return x->left > y->left ? -1 : 1;
}

static int is_joined(const sp_piece *p)
{
    return p->type == TYPE_NORMAL;
}

/* Do text[0..size) and what follows stand in the vocabulary as pieces that can be joined? */
static int is_half(const vocabulary *index, const sp_model *m, const char *text, size_t size)
{
    const int64_t id = vocabulary_find(index, text, size);
    return id >= 0 && is_joined(&m->pieces[id]);
}

static gt_status collect_merges(const sp_model *m, const vocabulary *index, sp_merge **out, size_t *count)
{
    size_t room = 0;
    *out = NULL;
    *count = 0;
    for (size_t i = 0; i < m->count; i++) {
        const sp_piece *p = &m->pieces[i];
        for (size_t cut = 1; is_joined(p) && cut < p->size; cut++) {
            if ((p->text[cut] & 0xc0) == 0x80 || !is_half(index, m, p->text, cut)
                || !is_half(index, m, p->text + cut, p->size - cut))
                continue;
            if (*count == room) {
                room = room ? 2 * room : 4096;
                sp_merge *merges = realloc(*out, room * sizeof *merges);
                if (!merges)
                    return no_memory(m);
                *out = merges;
            }
            (*out)[(*count)++] = (sp_merge){ cut, i, m };
        }
    }
    return GT_OK;
}

static gt_status merges_of(json_t *list, const sp_model *m)
{
    vocabulary index = { 0 };
    sp_merge *merges = NULL;
    size_t count = 0;
    gt_status st = GT_OK;
    for (size_t i = 0; i < m->count && !st; i++)
        if ((st = vocabulary_add(&index, (uint32_t)i, m->pieces[i].text, m->pieces[i].size)))
            st = gt_fail_in(st, "cannot read '%s'", m->name);
    if (!st)
        st = collect_merges(m, &index, &merges, &count);
    if (count)
        qsort(merges, count, sizeof *merges, by_score);
    for (size_t i = 0; i < count && !st; i++) {
        const sp_piece *p = &m->pieces[merges[i].whole];
        if (json_array_append_new(list, json_pack("[s% s]", p->text, merges[i].left, p->text + merges[i].left)))
            st = no_memory(m);
    }
    free(merges);
    vocabulary_release(&index);
    return st;
}

/* {text: id} of BPE, [[text, score]] of Unigram. */
static gt_status vocab_of(json_t *list, const sp_model *m)
{
    const int unigram = json_is_array(list);
    for (size_t i = 0; i < m->count; i++) {
        const sp_piece *p = &m->pieces[i];
        json_t *text = json_stringn(p->text, p->size);
        if (!text)
            return gt_fail(GT_FORMAT, "cannot read '%s': piece %zu is not UTF-8", m->name, i);
        json_decref(text);
        if (!unigram && json_object_get(list, p->text))
            return gt_fail(GT_FORMAT, "cannot read '%s': piece %zu, '%.60s', is there twice", m->name, i, p->text);
        if (unigram ? json_array_append_new(list, json_pack("[s f]", p->text, (double)p->score))
                    : json_object_set_new(list, p->text, json_integer((json_int_t)i)))
            return no_memory(m);
    }
    return GT_OK;
}

static gt_status model_of(json_t **out, const sp_model *m)
{
    json_t *vocab = m->kind == KIND_BPE ? json_object() : json_array(), *merges = json_array();
    *out = NULL;
    gt_status st = vocab && merges ? vocab_of(vocab, m) : no_memory(m);
    if (!st && m->kind == KIND_BPE)
        st = merges_of(merges, m);
    if (!st && m->kind == KIND_BPE)
        *out = json_pack("{s:s s:n s:s s:n s:n s:b s:b s:b s:O s:O}", "type", "BPE", "dropout", "unk_token",
                         m->pieces[m->unknown].text, "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1,
                         "byte_fallback", m->has_bytes, "ignore_merges", 0, "vocab", vocab, "merges", merges);
    else if (!st)
        *out = json_pack("{s:s s:I s:b s:O}", "type", "Unigram", "unk_id", (json_int_t)m->unknown, "byte_fallback",
                         m->has_bytes, "vocab", vocab);
    json_decref(vocab);
    json_decref(merges);
    return !st && !*out ? no_memory(m) : st;
}

/* The control piece with this id, or NULL. */
static const sp_piece *control(const sp_model *m, uint64_t id)
{
    return id < m->count && m->pieces[id].type == TYPE_CONTROL ? &m->pieces[id] : NULL;
}

static void put_sign(json_t *list, const sp_piece *p, int type)
{
    if (p)
        json_array_append_new(list, json_pack("{s:{s:s s:i}}", "SpecialToken", "id", p->text, "type_id", type));
}

static void put_meaning(json_t *tokens, const sp_piece *p, uint64_t id)
{
    if (p)
        json_object_set_new(tokens, p->text,
                            json_pack("{s:s s:[I] s:[s]}", "id", p->text, "ids", (json_int_t)id, "tokens", p->text));
}

/* <s> A </s>, or what of it the class wants and the model has. */
static json_t *frame_of(const sp_model *m)
{
    const sp_piece *bos = m->adds_bos ? control(m, m->bos) : NULL, *eos = m->adds_eos ? control(m, m->eos) : NULL;
    json_t *single = json_array(), *pair = json_array(), *tokens = json_object();
    put_meaning(tokens, bos, m->bos);
    put_meaning(tokens, eos, m->eos);
    for (int i = 0; i < 3; i++) {               /* the text alone, then A and B of a pair */
        json_t *list = i ? pair : single;
        put_sign(list, bos, i == 2);
        json_array_append_new(list,
                              json_pack("{s:{s:s s:i}}", "Sequence", "id", i == 2 ? "B" : "A", "type_id", i == 2));
        put_sign(list, eos, i == 2);
    }
    json_t *around = bos || eos ? json_pack("{s:s s:O s:O s:O}", "type", "TemplateProcessing", "single", single, "pair",
                                            pair, "special_tokens", tokens)
                                : json_null();
    json_decref(single);
    json_decref(pair);
    json_decref(tokens);
    return around;
}

static gt_status take(vocabulary *out, const sp_model *m)
{
    json_t *model;
    gt_status st = check_model(m);
    if (!st)
        st = model_of(&model, m);
    if (st)
        return st;
    json_t *root = json_pack("{s:s s:n s:n s:o s:o s:o s:o s:o s:o}", "version", "1.0", "truncation", "padding",
                             "added_tokens", added_of(m), "normalizer", normalizer_of(m), "pre_tokenizer",
                             pre_tokenizer_of(m), "post_processor", frame_of(m), "decoder", decoder_of(m), "model",
                             model);
    st = vocabulary_parse_document(out, root, m->name);
    if (!st && control(m, m->eos))
        out->end = (uint32_t)m->eos + 1;
    return st;
}

static int ends_with(const char *text, const char *end)
{
    const size_t size = strlen(text), n = strlen(end);
    return size >= n && !strcmp(text + size - n, end);
}

static int is_true(const json_t *config, const char *key, int otherwise)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

/* What transformers does with a model of SentencePiece depends on the class; of these it takes the ids as they
 * are. spiece.model belongs to classes that do and to others, sentencepiece.bpe.model to others alone. */
static gt_status take_class(sp_model *m, const vocabulary_text *config)
{
    static const char *const known[] = { "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "T5Tokenizer",
                                         "PreTrainedTokenizer" };
    json_t *root = config && config->text ? json_loadb(config->text, config->size, JSON_DECODE_INT_AS_REAL, NULL)
                                          : NULL;
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    int fits = !class && !ends_with(m->name, "/spiece.model");
    for (size_t i = 0; class && i < sizeof known / sizeof *known; i++)
        fits |= !strncmp(class, known[i], strlen(known[i]));
    fits = fits && !ends_with(m->name, "/sentencepiece.bpe.model");
    const int t5 = class && !strncmp(class, "T5", 2);
    m->adds_bos = is_true(root, "add_bos_token", !t5 && m->kind == KIND_BPE);
    m->adds_eos = is_true(root, "add_eos_token", t5);
    gt_status st = fits
                       ? GT_OK
                       : gt_fail(GT_UNSUPPORTED,
                                 "cannot read '%s': tokenizer_class '%.60s' may number its pieces in another way; give "
                                 "a folder with its tokenizer.json",
                                 m->name, class ? class : "(not said)");
    json_decref(root);
    return st;
}

gt_status vocabulary_parse_sentencepiece(vocabulary *out, const char *text, size_t size, const char *name,
                                         const vocabulary_text *config)
{
    sp_model m = { .name = name,
                   .kind = KIND_UNIGRAM,
                   .dummy_prefix = 1,
                   .remove_extra = 1,
                   .escape = 1,
                   .bos = 1,
                   .eos = 2,
                   .unknown = -1 };
    gt_status st = read_model(&m, (const unsigned char *)text, size);
    if (!st)
        st = take_class(&m, config);
    if (!st && m.denormalizes)
        st = unsupported(&m, "a denormalizer");
    if (!st)
        st = take(out, &m);
    release(&m);
    return st;
}

/* ---- llama2.c ------------------------------------------------------------------------------------- */

static uint32_t u32_of(const unsigned char *b)
{
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* A piece as llama2.c writes it, with spaces and line ends around its signs, as SentencePiece has it. */
static gt_status add_llama2c(sp_model *m, const char *text, size_t size, float score)
{
    static const char *const signs[] = { "<unk>", "<s>", "</s>" };
    gt_text visible = { 0 };
    const size_t id = m->count;
    if (id < 3)
        return add_piece(m, signs[id], strlen(signs[id]), score, id ? TYPE_CONTROL : TYPE_UNKNOWN);
    for (size_t i = 0; i < size; i++)
        if (text[i] == ' ')
            gt_text_put(&visible, SPACE, 3);
        else
            gt_text_put(&visible, text + i, 1);
    gt_status st = visible.failed ? no_memory(m) : GT_OK;
    const int byte = id < 259 && visible.size == 6 && !memcmp(visible.data, "<0x", 3);
    if (!st)
        st = add_piece(m, visible.data, visible.size, score, byte ? TYPE_BYTE : TYPE_NORMAL);
    gt_text_release(&visible);
    return st;
}

gt_status vocabulary_parse_llama2c(vocabulary *out, const char *text, size_t size, const char *name,
                                   const vocabulary_text *config)
{
    sp_model m = {
        .name = name, .kind = KIND_BPE, .dummy_prefix = 1, .escape = 1, .bos = 1, .eos = 2, .unknown = -1, .adds_bos = 1
    };
    const unsigned char *bytes = (const unsigned char *)text;
    const uint32_t longest = size >= 4 ? u32_of(bytes) : 0;
    gt_status st = longest && longest < 65536 ? GT_OK : broken(&m, "it is not a tokenizer of llama2.c");
    (void)config;
    for (size_t at = 4; at < size && !st;) {
        const uint32_t length = size - at >= 8 ? u32_of(bytes + at + 4) : UINT32_MAX;
        const float score = size - at >= 4 ? float_of(bytes + at) : 0.0f;
        if (!length || length > longest || length > size - at - 8 || memchr(text + at + 8, '\0', length)
            || !isfinite(score))
            st = gt_fail(GT_FORMAT, "cannot read '%s': piece %zu is cut or longer than the longest, %u bytes", name,
                         m.count, longest);
        else
            st = add_llama2c(&m, text + at + 8, length, score);
        at += 8 + (size_t)length;
    }
    if (!st && m.count < 4)
        st = broken(&m, "it is not a tokenizer of llama2.c");
    if (!st)
        st = take(out, &m);
    release(&m);
    return st;
}
