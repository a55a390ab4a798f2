/* SPDX-License-Identifier: MIT */
/* host/tokenizer/decoder.c - steps over a list of texts, each into a new list.
 *
 * A list is its bytes in one run and where each text ends:
 *
 *   bytes   H e l l o w o r l d         ends   5 10                                     */
#include "host/tokenizer/decoder.h"

#include "host/tokenizer/part.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 32

typedef enum step_kind {
    STEP_FUSE,
    STEP_BYTES,
    STEP_REPLACE,
    STEP_STRIP,
    STEP_METASPACE,
    STEP_WORDPIECE,
    STEP_SUFFIX,
} step_kind;

typedef struct step {
    step_kind kind;
    char *find, *put;               /* REPLACE both; STRIP, METASPACE, WORDPIECE, SUFFIX: find */
    json_int_t start, stop;         /* STRIP: how many at most */
    int first;                      /* METASPACE: no space at the beginning */
    int cleanup;                    /* WORDPIECE */
} step;

struct decoder {
    step steps[STEPS_MAX];
    size_t count;
    int joins;                      /* no decoder: a space between tokens */
};

typedef struct texts {
    gt_text bytes;
    size_t *ends;
    size_t count;
} texts;

void decoder_close(decoder *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->count; i++) {
        free(d->steps[i].find);
        free(d->steps[i].put);
    }
    free(d);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the text of tokens");
}

/* What WordPiece's cleanup does to each token; in this order. */
static const char *const cleanups[][2] = {
    { " .", "." },   { " ?", "?" },           { " !", "!" },   { " ,", "," },     { " ' ", "'" },   { " n't", "n't" },
    { " 'm", "'m" }, { " do not", " don't" }, { " 's", "'s" }, { " 've", "'ve" }, { " 're", "'re" }
};

static gt_status read_step(decoder *d, const json_t *part)
{
    static const struct {
        const char *name;
        step_kind kind;
    } known[] = { { "Fuse", STEP_FUSE },           { "ByteLevel", STEP_FUSE },   { "ByteFallback", STEP_BYTES },
                  { "Replace", STEP_REPLACE },     { "Strip", STEP_STRIP },      { "Metaspace", STEP_METASPACE },
                  { "WordPiece", STEP_WORDPIECE }, { "BPEDecoder", STEP_SUFFIX } };
    const size_t kinds = sizeof known / sizeof *known;
    const char *type = part_type(part);
    size_t i = 0;
    while (i < kinds && strcmp(type, known[i].name))
        i++;
    if (i == kinds)
        return gt_fail(GT_UNSUPPORTED, "decoder '%.60s' is not known here", type);
    if (d->count == STEPS_MAX)
        return gt_fail(GT_UNSUPPORTED, "its decoder has more than %d steps", STEPS_MAX);
    step *s = &d->steps[d->count++];
    *s = (step){ .kind = known[i].kind };
    const char *find = s->kind == STEP_REPLACE     ? part_text(json_object_get(part, "pattern"), "String", NULL)
                       : s->kind == STEP_STRIP     ? part_text(part, "content", NULL)
                       : s->kind == STEP_METASPACE ? part_text(part, "replacement", "\xe2\x96\x81")
                       : s->kind == STEP_WORDPIECE ? part_text(part, "prefix", "##")
                       : s->kind == STEP_SUFFIX    ? part_text(part, "suffix", "</w>")
                                                   : "";
    if (!find || (s->kind == STEP_REPLACE && !*find))
        return gt_fail(GT_UNSUPPORTED, "decoder '%.60s' without a text to look for is not known here", type);
    const json_t *prefix = json_object_get(part, "add_prefix_space");
    s->first = strcmp(part_text(part, "prepend_scheme", json_is_false(prefix) ? "never" : "always"), "never") != 0;
    s->cleanup = !json_is_false(json_object_get(part, "cleanup"));
    s->start = json_integer_value(json_object_get(part, "start"));
    s->stop = json_integer_value(json_object_get(part, "stop"));
    s->find = strdup(find);
    s->put = strdup(part_text(part, "content", ""));
    return s->find && s->put ? GT_OK : no_memory();
}

static gt_status read_part(decoder *d, const json_t *part, int depth)
{
    const json_t *list = json_object_get(part, "decoders");
    if (strcmp(part_text(part, "type", ""), "Sequence"))
        return read_step(d, part);
    if (!json_is_array(list))
        return gt_fail(GT_FORMAT, "decoder Sequence has no list");
    if (depth > 8)
        return gt_fail(GT_UNSUPPORTED, "its decoder has sequences in one another, more than 8 deep");
    gt_status st = GT_OK;
    for (size_t i = 0; i < json_array_size(list) && !st; i++)
        st = read_part(d, json_array_get(list, i), depth + 1);
    return st;
}

gt_status decoder_open(decoder **out, const json_t *part)
{
    decoder *d = calloc(1, sizeof *d);
    *out = NULL;
    if (d)
        d->joins = !part || json_is_null(part);
    gt_status st = !d ? no_memory() : d->joins ? GT_OK : read_part(d, part, 0);
    if (st) {
        decoder_close(d);
        return st;
    }
    *out = d;
    return GT_OK;
}

/* ---- steps --------------------------------------------------------------------------------------- */

static void add_bytes(texts *t, const char *text, size_t size)
{
    gt_text_put(&t->bytes, text, size);
}

static void close_text(texts *t)
{
    t->ends[t->count++] = t->bytes.size;
}

static void replaced(texts *t, const char *text, size_t size, const char *find, const char *put)
{
    const size_t length = strlen(find);
    size_t from = 0;
    for (const char *p; length && size > from && (p = memmem(text + from, size - from, find, length));
         from = (size_t)(p - text) + length) {
        add_bytes(t, text + from, (size_t)(p - text) - from);
        add_bytes(t, put, strlen(put));
    }
    add_bytes(t, text + from, size - from);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static void put_byte(texts *t, const char *text, size_t size)
{
    const int is = size == 6 && !memcmp(text, "<0x", 3) && text[5] == '>' && hex(text[3]) >= 0 && hex(text[4]) >= 0;
    const char byte = is ? (char)(hex(text[3]) * 16 + hex(text[4])) : 0;
    add_bytes(t, is ? &byte : text, is ? 1 : size);
}

static void put_stripped(texts *t, const step *s, const char *text, size_t size)
{
    const size_t length = strlen(s->find);
    for (json_int_t n = 0; length && n < s->start && size >= length && !memcmp(text, s->find, length); n++) {
        text += length;
        size -= length;
    }
    for (json_int_t n = 0; length && n < s->stop && size >= length && !memcmp(text + size - length, s->find, length);
         n++)
        size -= length;
    add_bytes(t, text, size);
}

/* Every sign for a space becomes one, but none at the very beginning. */
static void put_spaces(texts *t, const step *s, const char *text, size_t size, int first)
{
    const size_t length = strlen(s->find);
    while (first && s->first && size >= length && !memcmp(text, s->find, length)) {
        text += length;
        size -= length;
        break;
    }
    replaced(t, text, size, s->find, " ");
}

/* A space in front, or what goes on with the word; then what English needs no space before. */
static void put_wordpiece(texts *t, const step *s, const char *text, size_t size, int first)
{
    const size_t length = strlen(s->find);
    texts word = { 0 };
    if (!first && length && size >= length && !memcmp(text, s->find, length))
        add_bytes(&word, text + length, size - length);
    else {
        if (!first)
            add_bytes(&word, " ", 1);
        add_bytes(&word, text, size);
    }
    for (size_t i = 0; s->cleanup && i < sizeof cleanups / sizeof *cleanups; i++) {
        texts clean = { 0 };
        replaced(&clean, word.bytes.data, word.bytes.size, cleanups[i][0], cleanups[i][1]);
        clean.bytes.failed |= word.bytes.failed;
        gt_text_release(&word.bytes);
        word = clean;
    }
    add_bytes(t, word.bytes.data, word.bytes.size);
    t->bytes.failed |= word.bytes.failed;
    gt_text_release(&word.bytes);
}

static void run(const step *s, const texts *in, texts *out)
{
    size_t begin = 0;
    for (size_t i = 0; i < in->count; begin = in->ends[i++]) {
        const char *text = in->bytes.data ? in->bytes.data + begin : "";
        const size_t size = in->ends[i] - begin;
        switch (s->kind) {
        case STEP_FUSE:
            add_bytes(out, text, size);
            if (i + 1 < in->count)
                continue;
            break;
        case STEP_BYTES: put_byte(out, text, size); break;
        case STEP_REPLACE: replaced(out, text, size, s->find, s->put); break;
        case STEP_STRIP: put_stripped(out, s, text, size); break;
        case STEP_METASPACE: put_spaces(out, s, text, size, i == 0); break;
        case STEP_WORDPIECE: put_wordpiece(out, s, text, size, i == 0); break;
        case STEP_SUFFIX: replaced(out, text, size, s->find, i + 1 < in->count ? " " : ""); break;
        }
        close_text(out);
    }
}

gt_status decoder_apply(const decoder *d, const decoder_token *tokens, size_t count, gt_text *out)
{
    texts lists[2] = { { .ends = malloc((count + 1) * sizeof(size_t)) },
                       { .ends = malloc((count + 1) * sizeof(size_t)) } };
    texts *from = &lists[0], *to = &lists[1];
    gt_status st = from->ends && to->ends ? GT_OK : no_memory();
    for (size_t i = 0; i < count && !st; i++) {
        if (d->joins && i)
            add_bytes(from, " ", 1);
        add_bytes(from, tokens[i].text, tokens[i].size);
        close_text(from);
    }
    for (size_t i = 0; i < d->count && !st; i++) {
        to->count = to->bytes.size = 0;
        run(&d->steps[i], from, to);
        to->bytes.failed |= from->bytes.failed;
        texts *swap = from;
        from = to;
        to = swap;
    }
    if (!st && from->bytes.failed)
        st = no_memory();
    if (!st)
        gt_text_put(out, from->bytes.data, from->bytes.size);
    for (int i = 0; i < 2; i++) {
        gt_text_release(&lists[i].bytes);
        free(lists[i].ends);
    }
    return st;
}
