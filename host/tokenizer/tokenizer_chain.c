/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer_chain.c - everything that a tokenizer.json can ask for, one after the other:
 *
 *   text         H e l l o   w o r l d <s> ...
 *   stretches    [---------------------]    between added tokens, and of valid UTF-8
 *   blocks       [--------|------------]    cut where nothing looks across
 *   normalized   h e l l o     w o r l d    then added tokens that are normalized
 *   words        [hello][ world]            by the pre_tokenizer
 *   ids          by the model, from the cache of words where they were seen before
 *
 * Blocks bound the memory, and let a text come in parts: a block ends between two letters or signs around
 * one space or line end, if the normalizer, the pre_tokenizer and the model all do there whatever they do
 * anyway (they say so, see CUT_... in host/tokenizer/normalizer.h). Where they do not, a stretch is held until
 * its end is there: the ids are right in any case, only more text waits.
 *
 * A model whose words are whole sentences (Llama's, whose pieces begin with a sign for a space) gets them
 * cut at those signs, where no piece holds what would stand on both sides.               */
#include "host/tokenizer/added.h"
#include "host/tokenizer/decoder.h"
#include "host/tokenizer/normalizer.h"
#include "host/tokenizer/splitter.h"
#include "host/tokenizer/tokenizer_kind.h"
#include "host/tokenizer/unicode.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/word_model.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK ((size_t)32 << 10)
#define SPACE "\xe2\x96\x81"                /* U+2581, which stands for a space in pieces */
#define CODES 0x110000u

typedef struct chain {
    const vocabulary *vocab;
    added raw, normal;                      /* tokens found before and after normalizing */
    normalizer *normalizer;
    splitter *splitter;
    decoder *decoder;
    const word_model *model;
    void *state;                            /* of the model */
    word_cache cache;
    unsigned cuts;                          /* CUT_...: where blocks may end */
    int cuts_words;                         /* words may be cut before SPACE */
    unsigned char *glued;                   /* bit c: some piece holds character c before SPACE; NULL: none does */
    int going;                              /* in the middle of a text */
    int first;                              /* nothing of this stretch was normalized yet */
    int fresh, origin;                      /* nothing was cut since an added token; and none was found yet */
    token_ids *out;                         /* of the running encode() */
} chain;

static void release(void *state)
{
    chain *c = state;
    if (!c)
        return;
    added_release(&c->raw);
    added_release(&c->normal);
    normalizer_close(c->normalizer);
    splitter_close(c->splitter);
    decoder_close(c->decoder);
    if (c->model)
        c->model->close(c->state);
    word_cache_release(&c->cache);
    free(c->glued);
    free(c);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the tokenizer's state");
}

/* ---- where a text may be cut --------------------------------------------------------------------- */

static int is_glued(const chain *c, uint32_t code)
{
    return c->glued && c->glued[code >> 3] >> (code & 7) & 1;
}

/* Notes the characters that stand before SPACE in a piece. */
static gt_status find_glued(chain *c)
{
    const vocabulary *v = c->vocab;
    for (uint32_t id = 0; id < v->count; id++) {
        const unsigned char *text = (const unsigned char *)vocabulary_bytes(v, id), *p = text;
        const size_t size = v->pieces[id].flags & PIECE_MODEL ? v->pieces[id].size : 0;
        while ((p = memmem(p, size - (size_t)(p - text), SPACE, 3))) {
            size_t begin = (size_t)(p - text);
            uint32_t code = 0;
            while (begin && (text[--begin] & 0xc0) == 0x80)
                ;
            if (p > text && utf8_next(text + begin, size - begin, &code) > 0 && code != 0x2581) {
                if (!c->glued && !(c->glued = calloc(CODES / 8, 1)))
                    return no_memory();
                c->glued[code >> 3] |= (unsigned char)(1 << (code & 7));
            }
            p += 3;
        }
    }
    return GT_OK;
}

/* Does a piece go on behind a line end? */
static int joins_behind_lines(const vocabulary *v)
{
    for (uint32_t id = 0; id < v->count; id++) {
        const char *text = vocabulary_bytes(v, id);
        for (uint32_t i = 0; v->pieces[id].flags & PIECE_MODEL && i + 1 < v->pieces[id].size; i++)
            if (text[i] == '\n' && text[i + 1] != '\n')
                return 1;
    }
    return 0;
}

/* Does a space between letters become SPACE, and nothing else? */
static gt_status marks_spaces(chain *c, int *out)
{
    const unsigned char *text = NULL;
    size_t size = 0;
    gt_status st = normalizer_apply(c->normalizer, (const unsigned char *)"a a", 3, 0, 0, &text, &size);
    *out = (size == 5 && !memcmp(text + 1, SPACE, 3)) || splitter_marks_spaces(c->splitter, SPACE);
    return st;
}

/* Where the model alone lets a text be cut, when no word ends there. */
static gt_status model_cuts(chain *c, unsigned *cuts)
{
    const vocabulary *v = c->vocab;
    const int bytes = v->byte_fallback, lines = normalizer_joins_lines(c->normalizer);
    int marked = 0;
    *cuts = 0;
    if (v->byte_level || v->model == MODEL_WORDPIECE || v->prefix || v->suffix || v->ignore_merges
        || vocabulary_find_model(v, SPACE, 3) < 0)
        return GT_OK;
    gt_status st = find_glued(c);
    if (!st)
        st = marks_spaces(c, &marked);
    if (st)
        return st;
    c->cuts_words = 1;
    if (marked && (!c->glued || normalizer_keeps_characters(c->normalizer)))
        *cuts |= CUT_SPACE | (lines ? CUT_LINE : 0u);
    if (!lines && (bytes || vocabulary_find_model(v, "\n", 1) >= 0) && !joins_behind_lines(v))
        *cuts |= CUT_AFTER;
    return GT_OK;
}

static gt_status find_cuts(chain *c)
{
    unsigned may, by_model;
    unsigned cuts = splitter_cuts(c->splitter, normalizer_joins_lines(c->normalizer), &may);
    if (!normalizer_keeps_spaces(c->normalizer))
        cuts = 0;                           /* no space is left to cut at */
    gt_status st = model_cuts(c, &by_model);
    c->cuts = (cuts | by_model) & may & normalizer_cuts(c->normalizer);
    c->cuts &= ~c->normal.across;
    return st;
}

/* A letter or sign that nothing treats in a special way ends at text[0..size) / begins there. */
static int ends_plain(const chain *c, const unsigned char *text, size_t size)
{
    size_t begin = size - 1;
    uint32_t code = text[begin];
    if (code >= 0x80) {
        while (begin && size - begin < 4 && (text[begin] & 0xc0) == 0x80)
            begin--;
        if (utf8_next(text + begin, size - begin, &code) != (int)(size - begin) || !unicode_is_plain(code))
            return 0;
    }
    return code > ' ' && code != 0x7f && !is_glued(c, code);
}

static int begins_plain(const unsigned char *text, size_t size, int letter)
{
    uint32_t code;
    if (text[0] < 0x80)
        return letter ? (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z')
                      : text[0] > ' ' && text[0] != 0x7f;
    return utf8_next(text, size, &code) > 0 && unicode_is_plain(code);
}

/* May a block end at `at`? */
static int may_cut(const chain *c, const unsigned char *text, size_t size, size_t at)
{
    const unsigned char here = text[at];
    if ((here == ' ' && c->cuts & CUT_SPACE) || (here == '\n' && c->cuts & CUT_LINE))
        return at + 1 < size && ends_plain(c, text, at) && begins_plain(text + at + 1, size - at - 1, 0);
    return text[at - 1] == '\n' && c->cuts & CUT_AFTER && at > 1 && ends_plain(c, text, at - 1)
           && begins_plain(text + at, size - at, 1);
}

/* The size of the next block of a stretch; 0: it cannot be told before more of it is there. */
static size_t block_size(const chain *c, const unsigned char *text, size_t size, int closed)
{
    const size_t most = size < BLOCK ? size : BLOCK;
    if (closed && size <= BLOCK)
        return size;
    for (size_t at = most; at > 0; at--)
        if (at < size && may_cut(c, text, size, at))
            return at;
    for (size_t at = most + 1; at < size; at++)
        if (may_cut(c, text, size, at))
            return at;
    return closed ? size : 0;
}

/* ---- encoding ------------------------------------------------------------------------------------ */

/* One word of the pre_tokenizer. */
static gt_status visit(void *context, const unsigned char *word, size_t size)
{
    chain *c = context;
    gt_status st = GT_OK;
    size_t from = 0, at = 1;
    while (c->cuts_words && at < size && !st) {
        const unsigned char *p = memchr(word + at, SPACE[0] & 0xff, size - at);
        if (!p)
            break;
        at = (size_t)(p - word);
        uint32_t code = 0x2581;
        size_t begin = at;
        while (begin > from && (word[--begin] & 0xc0) == 0x80)
            ;
        if (size - at >= 3 && !memcmp(p, SPACE, 3)
            && (utf8_next(word + begin, size - begin, &code) <= 0 || (code != 0x2581 && !is_glued(c, code)))) {
            st = word_cache_ids(&c->cache, word + from, at - from, c->model->encode, c->state, c->out);
            from = at;
        }
        at++;
    }
    return st ? st : word_cache_ids(&c->cache, word + from, size - from, c->model->encode, c->state, c->out);
}

/* A space in front of the first word alone stands only where no character before that was taken away. */
static gt_status check_origin(chain *c, const unsigned char *text, size_t size)
{
    const unsigned char *normal;
    size_t length = 0;
    uint32_t code;
    const int n = utf8_next(text, size, &code);
    gt_status st = normalizer_apply(c->normalizer, text, n > 0 ? (size_t)n : 1, 1, 0, &normal, &length);
    c->origin = length > 0;
    return st;
}

/* A block: normalized, parted at added tokens, cut into words. */
static gt_status encode_block(chain *c, const unsigned char *text, size_t size, int last)
{
    const unsigned char *normal = NULL;
    size_t length = 0;
    added_match m;
    gt_status st = c->first && c->origin && splitter_marks_first(c->splitter) ? check_origin(c, text, size) : GT_OK;
    if (!st)
        st = normalizer_apply(c->normalizer, text, size, c->first, last, &normal, &length);
    c->first = c->first && !length;
    c->normal.word_before = 0;
    for (size_t at = 0; at < length && !st;) {
        const int found = added_next(&c->normal, normal, length, at, 1, &m) == 1;
        const size_t end = found ? m.begin : length;
        if (end > at) {
            st = splitter_each(c->splitter, normal + at, end - at, c->fresh, c->origin && c->fresh, visit, c);
            c->fresh = 0;
        }
        at = end;
        if (!st && found) {
            st = token_ids_add(c->out, &m.id, 1);
            at = m.end;
            c->fresh = 1;
            c->origin = 0;
        }
    }
    return st;
}

/* A byte that is no UTF-8: the token of the byte, if there is one. */
static gt_status encode_byte(chain *c, const unsigned char *text)
{
    uint32_t ids[256];
    c->first = c->fresh = 0;
    if (c->vocab->byte_level)
        return c->model->encode(c->state, text, 1, c->out);
    if (c->vocab->byte_fallback && word_model_bytes(ids, c->vocab))
        return token_ids_add(c->out, &ids[*text], 1);
    return word_model_unknown(text, 1);
}

/* How much of text[0..size) is valid UTF-8; *why is what ends it: 0 the text, or what utf8_next() says. */
static size_t valid_size(const unsigned char *text, size_t size, int *why)
{
    size_t at = 0;
    *why = 0;
    while (at < size) {
        uint64_t word;
        while (at + 8 <= size && (memcpy(&word, text + at, 8), !(word & 0x8080808080808080u)))
            at += 8;
        uint32_t code;
        const int n = at < size ? utf8_next(text + at, size - at, &code) : 1;
        if (n <= 0) {
            *why = n == UTF8_CUT ? UTF8_CUT : UTF8_INVALID;
            return at;
        }
        at += at < size ? (size_t)n : 0;
    }
    return at;
}

/* What lies between two added tokens. `closed`: all of it is there. *used: how far it came. */
static gt_status encode_stretch(chain *c, const unsigned char *text, size_t size, int closed, size_t *used)
{
    gt_status st = GT_OK;
    *used = 0;
    while (*used < size && !st) {
        int why;
        const size_t valid = valid_size(text + *used, size - *used, &why), end = *used + valid;
        const int bad = end < size && (why == UTF8_INVALID || closed), whole = bad || closed;
        while (*used < end && !st) {
            const size_t n = block_size(c, text + *used, end - *used, whole);
            if (!n)
                return GT_OK;
            st = encode_block(c, text + *used, n, closed && *used + n == size);
            *used += st ? 0 : n;
        }
        if (st || !bad)
            break;
        st = encode_byte(c, text + *used);
        *used += !st;
    }
    return st;
}

static int word_ends(const unsigned char *text, size_t size)
{
    uint32_t code;
    size_t begin = size;
    while (begin && size - begin < 4 && (text[--begin] & 0xc0) == 0x80)
        ;
    return size && utf8_next(text + begin, size - begin, &code) > 0 && unicode_is_word(code);
}

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids)
{
    chain *c = t->state;
    gt_status st = GT_OK;
    *used = 0;
    c->out = ids;
    if (!c->going) {
        c->first = c->fresh = c->origin = 1;
        c->raw.word_before = 0;
    }
    while (*used < size && !st) {
        added_match m = { .begin = size };
        size_t done;
        const int found = added_next(&c->raw, text, size, *used, last, &m);
        const size_t end = found ? m.begin : size;
        st = encode_stretch(c, text + *used, end - *used, found == 1 || (!found && last), &done);
        *used += done;
        if (st || found != 1)
            break;
        st = token_ids_add(ids, &m.id, 1);
        *used = st ? *used : m.end;
        c->first = c->fresh = 1;
        c->origin = 0;
    }
    if (*used)
        c->raw.word_before = word_ends(text, *used);
    c->going = !st && !last && (c->going || *used);
    return st;
}

static gt_status decode(const tokenizer *t, const uint32_t *ids, size_t count, gt_text *out)
{
    const chain *c = t->state;
    const vocabulary *v = &t->vocab;
    decoder_token *tokens = calloc(count + 1, sizeof *tokens);
    if (!tokens)
        return no_memory();
    for (size_t i = 0; i < count; i++)
        tokens[i] = (decoder_token){ vocabulary_bytes(v, ids[i]), v->pieces[ids[i]].size };
    gt_status st = GT_OK;
    if (!v->byte_level)
        st = decoder_apply(c->decoder, tokens, count, out);
    for (size_t i = 0; i < count && v->byte_level; i++)
        gt_text_put(out, tokens[i].text, tokens[i].size);
    free(tokens);
    return st;
}

static gt_status prepare(tokenizer *t)
{
    static const word_model *const models[] = { &word_model_bpe, &word_model_wordpiece, &word_model_unigram };
    const vocabulary *v = &t->vocab;
    chain *c = calloc(1, sizeof *c);
    t->state = c;
    if (!c)
        return no_memory();
    c->vocab = v;
    c->model = models[v->model];
    gt_status st = normalizer_open(&c->normalizer, v->parts[PART_NORMALIZER]);
    st = st ? st : splitter_open(&c->splitter, v->parts[PART_SPLITTER]);
    st = st ? st : decoder_open(&c->decoder, v->parts[PART_DECODER]);
    st = st ? st : added_open(&c->raw, v, 0, c->normalizer);
    st = st ? st : added_open(&c->normal, v, 1, c->normalizer);
    st = st ? st : c->model->open(&c->state, v);
    st = st ? st : word_cache_open(&c->cache);
    return st ? st : find_cuts(c);
}

const tokenizer_kind tokenizer_chains[] = {
    [MODEL_BPE] = { .name = "bpe", .prepare = prepare, .encode = encode, .decode = decode, .release = release },
    [MODEL_WORDPIECE] = { .name = "wordpiece",
                          .prepare = prepare,
                          .encode = encode,
                          .decode = decode,
                          .release = release },
    [MODEL_UNIGRAM] = { .name = "unigram", .prepare = prepare, .encode = encode, .decode = decode, .release = release },
};
