/* SPDX-License-Identifier: MIT */
/* host/tokenizer/splitter.c - levels, each of which finds matches in a piece and does with them what
 * its behavior says; the pieces go to the next level, the last level's are the words.
 *
 *   text             Hello, world 42
 *   matches of ", "       --               (of a Split with String ", ")
 *   Isolated         [Hello][, ][world 42]
 *   Removed          [Hello][world 42]
 *   MergedWithNext   [Hello][, world 42]     a match joins what follows, unless that is a match
 *
 * A space in front or another sign for spaces changes the piece, in a buffer of the level.     */
#include "host/tokenizer/splitter.h"

#include "host/base/text.h"
#include "host/tokenizer/normalizer.h"
#include "host/tokenizer/part.h"
#include "host/tokenizer/pattern.h"
#include "host/tokenizer/unicode.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define LEVELS_MAX 16

typedef enum find_kind { FIND_NOTHING, FIND_REGEX, FIND_STRING, FIND_CLASS, FIND_WORDS, FIND_BERT } find_kind;
typedef enum behavior { ISOLATED, REMOVED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT } behavior;
typedef enum prefix_kind { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } prefix_kind;

typedef struct level {
    find_kind find;
    behavior behavior;
    int invert;                         /* matches are what lies between */
    int known;                          /* a regex that cuts at spaces and behind lines */
    pattern *regex;
    char *string;                       /* FIND_STRING */
    int (*class)(uint32_t code);        /* FIND_CLASS: each such character is a match */
    unsigned char ascii[128];           /* the class, by byte */
    prefix_kind prefix;
    char *space;                        /* what a space becomes and what comes in front; NULL: " " */
    gt_text text;                       /* the piece when it was changed */
} level;

struct splitter {
    level levels[LEVELS_MAX];
    size_t count;
    splitter_visit visit;
    void *context;
};

void splitter_close(splitter *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++) {
        pattern_close(s->levels[i].regex);
        free(s->levels[i].string);
        free(s->levels[i].space);
        gt_text_release(&s->levels[i].text);
    }
    free(s);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory to cut a text into words");
}

/* ---- reading ------------------------------------------------------------------------------------ */

static gt_status read_behavior(level *l, const json_t *part, const char *otherwise)
{
    static const char *const names[] = { "Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext" };
    const char *name = part_text(part, "behavior", otherwise);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) {
            l->behavior = (behavior)i;
            return GT_OK;
        }
    return gt_fail(GT_UNSUPPORTED, "pre_tokenizer behavior '%.60s' is not known here", name);
}

/* Patterns that are known to cut in front of a space and behind a line end, see normalizer.h. What is not
 * here is right as well, but a text is then held whole when it has to be normalized. */
static int is_known(const char *regex)
{
    /* clang-format off */
    static const char *const known[] = {
        GPT2_PATTERN,
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
        "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
        "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(regex, known[i]))
            return 1;
    return 0;
}

static gt_status read_regex(level *l, const char *regex)
{
    l->find = FIND_REGEX;
    l->known = is_known(regex);
    return pattern_open(&l->regex, regex);
}

static gt_status read_split(level *l, const json_t *part)
{
    const json_t *what = json_object_get(part, "pattern");
    const char *regex = part_text(what, "Regex", NULL), *string = part_text(what, "String", NULL);
    gt_status st = read_behavior(l, part, "");
    l->invert = part_flag(part, "invert", 0);
    if (st)
        return st;
    if (regex)
        return read_regex(l, regex);
    if (!string || !*string)
        return gt_fail(GT_FORMAT, "pre_tokenizer Split has no pattern");
    l->find = FIND_STRING;
    return (l->string = strdup(string)) ? GT_OK : no_memory();
}

static gt_status read_metaspace(level *l, const json_t *part)
{
    const char *space = part_text(part, "replacement", "\xe2\x96\x81");
    const char *scheme = part_text(part, "prepend_scheme", part_flag(part, "add_prefix_space", 1) ? "always" : "never");
    if (!*space)
        return gt_fail(GT_FORMAT, "pre_tokenizer Metaspace has no replacement");
    if (strcmp(scheme, "always") && strcmp(scheme, "first") && strcmp(scheme, "never"))
        return gt_fail(GT_UNSUPPORTED, "pre_tokenizer prepend_scheme '%.60s' is not known here", scheme);
    l->prefix = *scheme == 'a' ? PREFIX_ALWAYS : *scheme == 'f' ? PREFIX_FIRST : PREFIX_NEVER;
    l->behavior = WITH_NEXT;
    l->find = part_flag(part, "split", 1) ? FIND_STRING : FIND_NOTHING;
    l->space = strdup(space);
    l->string = strdup(space);
    return l->space && l->string ? GT_OK : no_memory();
}

static void set_class(level *l, int (*class)(uint32_t), behavior what)
{
    l->find = FIND_CLASS;
    l->class = class;
    l->behavior = what;
    for (unsigned c = 0; c < 128; c++)
        l->ascii[c] = (unsigned char)class(c);
}

static gt_status read_byte_level(level *l, const json_t *part)
{
    l->prefix = part_flag(part, "add_prefix_space", 0) ? PREFIX_ALWAYS : PREFIX_NEVER;
    l->behavior = ISOLATED;
    return part_flag(part, "use_regex", 1) ? read_regex(l, GPT2_PATTERN) : GT_OK;
}

static gt_status read_level(splitter *s, const json_t *part)
{
    const char *type = part_type(part);
    if (s->count == LEVELS_MAX)
        return gt_fail(GT_UNSUPPORTED, "its pre_tokenizer has more than %d parts", LEVELS_MAX);
    level *l = &s->levels[s->count++];
    if (!strcmp(type, "ByteLevel"))
        return read_byte_level(l, part);
    if (!strcmp(type, "Split"))
        return read_split(l, part);
    if (!strcmp(type, "Metaspace"))
        return read_metaspace(l, part);
    if (!strcmp(type, "WhitespaceSplit")) {
        set_class(l, unicode_is_space, REMOVED);
        return GT_OK;
    }
    if (!strcmp(type, "BertPreTokenizer") || !strcmp(type, "Whitespace")) {
        set_class(l, *type == 'B' ? unicode_is_punctuation : unicode_is_word, ISOLATED);
        l->find = *type == 'B' ? FIND_BERT : FIND_WORDS;
        return GT_OK;
    }
    if (!strcmp(type, "Punctuation")) {
        set_class(l, unicode_is_punctuation, ISOLATED);
        return read_behavior(l, part, "Isolated");
    }
    if (!strcmp(type, "Digits")) {
        set_class(l, unicode_is_numeric, part_flag(part, "individual_digits", 0) ? ISOLATED : CONTIGUOUS);
        return GT_OK;
    }
    if (!strcmp(type, "CharDelimiterSplit") && *part_text(part, "delimiter", "")) {
        l->find = FIND_STRING;
        l->behavior = REMOVED;
        return (l->string = strdup(part_text(part, "delimiter", ""))) ? GT_OK : no_memory();
    }
    return gt_fail(GT_UNSUPPORTED, "pre_tokenizer '%.60s' is not known here", type);
}

static gt_status read_part(splitter *s, const json_t *part, int *bytes, int depth)
{
    const char *type = part_type(part);
    if (strcmp(type, "Sequence")) {
        if (*bytes)
            return gt_fail(GT_UNSUPPORTED, "pre_tokenizer '%.60s' behind ByteLevel is not known here", type);
        *bytes = !strcmp(type, "ByteLevel");
        return read_level(s, part);
    }
    const json_t *list = json_object_get(part, "pretokenizers");
    if (!json_is_array(list))
        return gt_fail(GT_FORMAT, "pre_tokenizer Sequence has no list");
    if (depth > 8)
        return gt_fail(GT_UNSUPPORTED, "its pre_tokenizer has sequences in one another, more than 8 deep");
    gt_status st = GT_OK;
    for (size_t i = 0; i < json_array_size(list) && !st; i++)
        st = read_part(s, json_array_get(list, i), bytes, depth + 1);
    return st;
}

gt_status splitter_open(splitter **out, const json_t *part)
{
    int bytes = 0;
    splitter *s = calloc(1, sizeof *s);
    *out = NULL;
    gt_status st = !s ? no_memory() : part && !json_is_null(part) ? read_part(s, part, &bytes, 0) : GT_OK;
    if (st) {
        splitter_close(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

int splitter_is_byte_level(const json_t *part)
{
    const json_t *list = json_object_get(part, "pretokenizers");
    int found = !strcmp(part_text(part, "type", ""), "ByteLevel");
    for (size_t i = 0; i < json_array_size(list) && !found; i++)
        found = splitter_is_byte_level(json_array_get(list, i));
    return found;
}

/* ---- where a text may be cut --------------------------------------------------------------------- */

/* Where a level cuts; `marked`: a level before made spaces a sign. */
static unsigned level_cuts(const level *l, int joins, int marked)
{
    const int spaces = l->find == FIND_BERT || l->find == FIND_WORDS || l->class == unicode_is_space;
    const int words = l->find == FIND_REGEX && l->known && !l->invert
                      && (l->behavior == ISOLATED || l->behavior == REMOVED);
    if (spaces)
        return !marked ? CUT_ALL : joins ? 0 : CUT_LINE | CUT_AFTER;
    if (words)
        return (marked ? 0u : CUT_SPACE) | (!joins ? CUT_AFTER : marked ? 0u : CUT_LINE);
    if (l->space && l->find == FIND_STRING && !marked)
        return CUT_SPACE | (joins ? CUT_LINE : 0u);
    return 0;
}

unsigned splitter_cuts(const splitter *s, int joins, unsigned *may)
{
    unsigned cuts = 0;
    int marked = 0;
    *may = CUT_ALL;
    for (size_t i = 0; i < s->count; i++) {
        const level *l = &s->levels[i];
        if (i && l->prefix != PREFIX_NEVER)     /* a piece may begin only where one began anyway */
            *may &= CUT_SPACE | cuts;
        const unsigned here = level_cuts(l, joins, marked);
        if (!here && l->find == FIND_REGEX)
            *may = 0;
        if (!l->space && l->find == FIND_STRING && (strchr(l->string, ' ') || strchr(l->string, '\n')))
            *may &= strcmp(l->string, " ") ? 0u : ~(unsigned)CUT_AFTER;
        cuts |= here;
        marked |= l->space != NULL;
    }
    return cuts;
}

int splitter_marks_first(const splitter *s)
{
    int marks = 0;
    for (size_t i = 0; i < s->count; i++)
        marks |= s->levels[i].prefix == PREFIX_FIRST;
    return marks;
}

int splitter_marks_spaces(const splitter *s, const char *sign)
{
    int marks = 0;
    for (size_t i = 0; i < s->count; i++)
        marks |= s->levels[i].space && !strcmp(s->levels[i].space, sign);
    return marks;
}

/* ---- cutting ------------------------------------------------------------------------------------- */

static gt_status run(splitter *s, size_t i, const unsigned char *text, size_t size, int fresh, int origin);

/* What was found, on its way to the next level. */
typedef struct cutting {
    splitter *s;
    size_t level;
    const unsigned char *text;
    int fresh, origin;                  /* of the piece that is cut */
    size_t begin, end;                  /* waiting, begin == end: nothing is */
    int waits_match, before;            /* is that a match; was the one before */
} cutting;

static gt_status pass(cutting *c, size_t begin, size_t end)
{
    if (begin == end)
        return GT_OK;
    return run(c->s, c->level + 1, c->text + begin, end - begin, 1, c->origin && begin == 0);
}

static gt_status flush(cutting *c)
{
    const gt_status st = pass(c, c->begin, c->end);
    c->begin = c->end = 0;
    return st;
}

static gt_status put(cutting *c, size_t begin, size_t end, int match)
{
    const level *l = &c->s->levels[c->level];
    gt_status st = GT_OK;
    int join = 0;
    if (begin == end)
        return GT_OK;
    match ^= l->invert;
    switch (l->behavior) {
    case ISOLATED: return pass(c, begin, end);
    case REMOVED: return match ? GT_OK : pass(c, begin, end);
    case CONTIGUOUS: join = match == c->before; break;
    case WITH_PREVIOUS: join = match && !c->before; break;
    case WITH_NEXT: join = !match && c->waits_match; break;
    }
    if (join && c->end > c->begin) {
        c->end = end;
    } else {
        st = flush(c);
        c->begin = begin;
        c->end = end;
    }
    c->before = match;
    c->waits_match = match;
    return st;
}

static gt_status find_regex(cutting *c, level *l, size_t size)
{
    gt_status st = GT_OK;
    size_t at = 0, begin, end;
    while (at < size && !st) {
        const int found = pattern_next(l->regex, c->text, size, at, 0, &begin, &end);
        if (found < 0)
            return gt_fail(GT_FORMAT, "the tokenizer's pattern takes too long on this text");
        if (!found)
            begin = end = size;
        st = put(c, at, begin, 0);
        if (!st)
            st = put(c, begin, end, 1);
        at = end;
    }
    return st;
}

static gt_status find_string(cutting *c, const level *l, size_t size)
{
    const size_t length = strlen(l->string);
    gt_status st = GT_OK;
    size_t at = 0;
    while (at < size && !st) {
        const unsigned char *p = memmem(c->text + at, size - at, l->string, length);
        const size_t begin = p ? (size_t)(p - c->text) : size, end = p ? begin + length : size;
        st = put(c, at, begin, 0);
        if (!st)
            st = put(c, begin, end, 1);
        at = end;
    }
    return st;
}

/* Is the character that begins there of the level's class? *n is its size. */
static int is_of(const level *l, const unsigned char *text, size_t size, size_t *n)
{
    uint32_t code;
    *n = 1;
    if (text[0] < 0x80)
        return l->ascii[text[0]];
    const int length = utf8_next(text, size, &code);
    if (length <= 0)
        return 0;
    *n = (size_t)length;
    return l->class(code);
}

static gt_status find_class(cutting *c, const level *l, size_t size)
{
    gt_status st = GT_OK;
    size_t from = 0;
    for (size_t at = 0, n; at < size && !st; at += n)
        if (is_of(l, c->text + at, size - at, &n)) {
            st = put(c, from, at, 0);
            if (!st)
                st = put(c, at, at + n, 1);
            from = at + n;
        }
    return st ? st : put(c, from, size, 0);
}

static int is_space_at(const unsigned char *text, size_t size, size_t *n)
{
    uint32_t code = 0;
    if (text[0] < 0x80) {
        *n = 1;
        return text[0] == ' ' || (text[0] >= 9 && text[0] <= 13);
    }
    const int length = utf8_next(text, size, &code);
    *n = length > 0 ? (size_t)length : 1;
    return length > 0 && unicode_is_space(code);
}

/* White space is dropped; a sign of punctuation is a word. */
static gt_status find_bert(cutting *c, const level *l, size_t size)
{
    gt_status st = GT_OK;
    size_t from = 0;
    for (size_t at = 0, n; at < size && !st; at += n) {
        const int space = is_space_at(c->text + at, size - at, &n);
        if (!space && !is_of(l, c->text + at, size - at, &n))
            continue;
        st = pass(c, from, at);
        if (!st && !space)
            st = pass(c, at, at + n);
        from = at + n;
    }
    return st ? st : pass(c, from, size);
}

/* \w+|[^\w\s]+ : runs of one kind, without white space. */
static gt_status find_words(cutting *c, const level *l, size_t size)
{
    gt_status st = GT_OK;
    size_t from = 0;
    int kind = 0;
    for (size_t at = 0, n; at < size && !st; at += n) {
        const int here = is_space_at(c->text + at, size - at, &n) ? 0 : is_of(l, c->text + at, size - at, &n) ? 1 : 2;
        if (here != kind) {
            if (kind)
                st = pass(c, from, at);
            from = at;
            kind = here;
        }
    }
    return st || !kind ? st : pass(c, from, size);
}

/* Spaces replaced, one put in front; *text and *size become the changed piece. */
static gt_status change(level *l, const unsigned char **text, size_t *size, int fresh, int origin)
{
    const char *space = l->space ? l->space : " ";
    const size_t length = strlen(space);
    const int wanted = fresh && (l->prefix == PREFIX_ALWAYS || (l->prefix == PREFIX_FIRST && origin));
    const int has = **text == ' ' || (*size >= length && !memcmp(*text, space, length));
    const int prefix = wanted && !has;
    if (!prefix && (!l->space || !memchr(*text, ' ', *size)))
        return GT_OK;
    l->text.size = 0;
    if (prefix)
        gt_text_put(&l->text, space, length);
    size_t from = 0;
    for (const unsigned char *p; l->space && (p = memchr(*text + from, ' ', *size - from));) {
        const size_t at = (size_t)(p - *text);
        gt_text_put(&l->text, *text + from, at - from);
        gt_text_put(&l->text, space, length);
        from = at + 1;
    }
    gt_text_put(&l->text, *text + from, *size - from);
    if (l->text.failed)
        return no_memory();
    *text = (const unsigned char *)l->text.data;
    *size = l->text.size;
    return GT_OK;
}

static gt_status run(splitter *s, size_t i, const unsigned char *text, size_t size, int fresh, int origin)
{
    if (i == s->count)
        return s->visit(s->context, text, size);
    level *l = &s->levels[i];
    gt_status st = GT_OK;
    if (l->prefix != PREFIX_NEVER || l->space)
        st = change(l, &text, &size, fresh, origin);
    if (st)
        return st;
    cutting c = { .s = s, .level = i, .text = text, .fresh = fresh, .origin = origin };
    switch (l->find) {
    case FIND_NOTHING: return pass(&c, 0, size);
    case FIND_REGEX: st = find_regex(&c, l, size); break;
    case FIND_STRING: st = find_string(&c, l, size); break;
    case FIND_CLASS: st = find_class(&c, l, size); break;
    case FIND_BERT: return find_bert(&c, l, size);
    case FIND_WORDS: return find_words(&c, l, size);
    }
    return st ? st : flush(&c);
}

gt_status splitter_each(splitter *s, const unsigned char *text, size_t size, int fresh, int origin,
                        splitter_visit visit, void *context)
{
    s->visit = visit;
    s->context = context;
    return size ? run(s, 0, text, size, fresh, origin) : GT_OK;
}
