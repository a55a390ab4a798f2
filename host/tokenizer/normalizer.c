/* SPDX-License-Identifier: MIT */
/* host/tokenizer/normalizer.c - a list of steps, each from one buffer into the other.
 *
 * Most text is ASCII, which most steps leave alone or map byte by byte; so each step first
 * runs over ASCII and only then asks for characters.                                    */
#include "host/tokenizer/normalizer.h"

#include "host/base/text.h"
#include "host/tokenizer/charsmap.h"
#include "host/tokenizer/part.h"
#include "host/tokenizer/pattern.h"
#include "host/tokenizer/unicode.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define STEPS_MAX 64

typedef enum step_kind {
    STEP_FORM,              /* NFC, NFD, NFKC, NFKD */
    STEP_LOWER,
    STEP_ACCENTS,
    STEP_BERT,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_REPLACE_REGEX,
    STEP_STRIP,
    STEP_TRIM,              /* spaces at both ends, see SPACES_AT_ENDS */
    STEP_NMT,
    STEP_CHARSMAP,
} step_kind;

/* The regular expression that stands for STEP_TRIM: it is about the ends of the whole text. */
#define SPACES_AT_ENDS "\\A +| +\\z"

typedef struct step {
    step_kind kind;
    int form;                               /* STEP_FORM: utf8proc's options */
    int left, right;                        /* STEP_STRIP */
    int clean, chinese, accents, lower;     /* STEP_BERT */
    char *find, *put;                       /* STEP_PREPEND: put; STEP_REPLACE: both */
    pattern *regex;
    int spaces_only;                        /* the regex finds nothing but white space */
    charsmap *map;
    unsigned char ascii[128];               /* STEP_BERT: what a byte becomes, 0: nothing */
} step;

struct normalizer {
    step steps[STEPS_MAX];
    size_t count;
    gt_text text[2];
};

void normalizer_close(normalizer *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->count; i++) {
        free(n->steps[i].find);
        free(n->steps[i].put);
        pattern_close(n->steps[i].regex);
        charsmap_close(n->steps[i].map);
    }
    gt_text_release(&n->text[0]);
    gt_text_release(&n->text[1]);
    free(n);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory to normalize a text");
}

/* ---- reading ------------------------------------------------------------------------------------ */

static int copy(char **out, const char *text)
{
    *out = text ? strdup(text) : NULL;
    return *out != NULL;
}

static int only_spaces(const char *regex)
{
    static const char *const known[] = { "\\s+", " {2,}", " +", "\\s{2,}", "\\s\\s+" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(regex, known[i]))
            return 1;
    return 0;
}

static gt_status read_replace(step *s, const json_t *part)
{
    const json_t *what = json_object_get(part, "pattern");
    const char *string = json_string_value(json_object_get(what, "String"));
    const char *regex = json_string_value(json_object_get(what, "Regex"));
    const char *put = json_string_value(json_object_get(part, "content"));
    if ((!string && !regex) || !put || (string && !*string))
        return gt_fail(GT_FORMAT, "normalizer Replace has no pattern or no content");
    if (!copy(&s->find, string ? string : regex) || !copy(&s->put, put))
        return no_memory();
    s->kind = string ? STEP_REPLACE : !strcmp(regex, SPACES_AT_ENDS) && !*put ? STEP_TRIM : STEP_REPLACE_REGEX;
    s->spaces_only = regex && only_spaces(regex);
    return s->kind == STEP_REPLACE_REGEX ? pattern_open(&s->regex, regex) : GT_OK;
}

static void read_bert(step *s, const json_t *part)
{
    const json_t *accents = json_object_get(part, "strip_accents");
    s->clean = part_flag(part, "clean_text", 1);
    s->chinese = part_flag(part, "handle_chinese_chars", 1);
    s->lower = part_flag(part, "lowercase", 1);
    s->accents = json_is_boolean(accents) ? json_is_true(accents) : s->lower;
    for (unsigned c = 0; c < 128; c++) {
        const int dropped = s->clean && (!c || unicode_is_control(c));
        const unsigned char clean = s->clean && unicode_is_space(c) ? ' ' : (unsigned char)c;
        s->ascii[c] = dropped ? 0 : s->lower && clean >= 'A' && clean <= 'Z' ? (unsigned char)(clean + 32) : clean;
    }
}

static gt_status read_step(normalizer *n, const json_t *part)
{
    static const struct {
        const char *name;
        step_kind kind;
        int form;
    } plain[] = { { "NFC", STEP_FORM, UTF8PROC_COMPOSE },
                  { "NFD", STEP_FORM, UTF8PROC_DECOMPOSE },
                  { "NFKC", STEP_FORM, UTF8PROC_COMPOSE | UTF8PROC_COMPAT },
                  { "NFKD", STEP_FORM, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT },
                  { "Lowercase", STEP_LOWER, 0 },
                  { "StripAccents", STEP_ACCENTS, 0 },
                  { "BertNormalizer", STEP_BERT, 0 },
                  { "Prepend", STEP_PREPEND, 0 },
                  { "Replace", STEP_REPLACE, 0 },
                  { "Strip", STEP_STRIP, 0 },
                  { "Nmt", STEP_NMT, 0 },
                  { "Precompiled", STEP_CHARSMAP, 0 } };
    const char *type = json_string_value(json_object_get(part, "type"));
    const size_t known = sizeof plain / sizeof *plain;
    size_t i = 0;
    while (i < known && (!type || strcmp(type, plain[i].name)))
        i++;
    if (i == known)
        return gt_fail(GT_UNSUPPORTED, "normalizer '%.60s' is not known here", type ? type : "of no type");
    if (n->count == STEPS_MAX)
        return gt_fail(GT_UNSUPPORTED, "its normalizer has more than %d steps", STEPS_MAX);
    step *s = &n->steps[n->count++];
    s->kind = plain[i].kind;
    s->form = plain[i].form | UTF8PROC_STABLE;
    const char *text = json_string_value(
        json_object_get(part, s->kind == STEP_PREPEND ? "prepend" : "precompiled_charsmap"));
    switch (s->kind) {
    case STEP_PREPEND:
        return !text ? gt_fail(GT_FORMAT, "normalizer Prepend has no text") : copy(&s->put, text) ? GT_OK : no_memory();
    case STEP_CHARSMAP:
        return text ? charsmap_open_base64(&s->map, text)
                    : gt_fail(GT_FORMAT, "normalizer Precompiled has no precompiled_charsmap");
    case STEP_REPLACE: return read_replace(s, part);
    case STEP_BERT: read_bert(s, part); return GT_OK;
    default:
        s->left = part_flag(part, "strip_left", 1);
        s->right = part_flag(part, "strip_right", 1);
        return GT_OK;
    }
}

/* Sequences inside sequences, as deep as the parser of the file allows. */
static gt_status read_part(normalizer *n, const json_t *part, int depth)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type || strcmp(type, "Sequence"))
        return read_step(n, part);
    const json_t *list = json_object_get(part, "normalizers");
    if (!json_is_array(list))
        return gt_fail(GT_FORMAT, "normalizer Sequence has no list");
    if (depth > 8)
        return gt_fail(GT_UNSUPPORTED, "its normalizer has sequences in one another, more than 8 deep");
    gt_status st = GT_OK;
    for (size_t i = 0; i < json_array_size(list) && !st; i++)
        st = read_part(n, json_array_get(list, i), depth + 1);
    return st;
}

gt_status normalizer_open(normalizer **out, const json_t *part)
{
    normalizer *n = calloc(1, sizeof *n);
    *out = NULL;
    gt_status st = !n ? no_memory() : part && !json_is_null(part) ? read_part(n, part, 0) : GT_OK;
    if (st) {
        normalizer_close(n);
        return st;
    }
    *out = n;
    return GT_OK;
}

/* ---- where a text may be cut --------------------------------------------------------------------- */

static int has_space(const char *text)
{
    uint32_t code;
    for (size_t size = strlen(text); size;) {
        const int n = utf8_next((const unsigned char *)text, size, &code);
        if (n <= 0 || unicode_is_space(code))
            return 1;
        text += n;
        size -= (size_t)n;
    }
    return 0;
}

unsigned normalizer_cuts(const normalizer *n)
{
    unsigned cuts = CUT_ALL;
    for (size_t i = 0; i < n->count; i++) {
        const step *s = &n->steps[i];
        const int replaces_space = s->kind == STEP_REPLACE && !strcmp(s->find, " ");
        if (s->kind == STEP_REPLACE && !replaces_space && (has_space(s->find) || has_space(s->put)))
            cuts = 0;
        if (s->kind == STEP_REPLACE_REGEX && !s->spaces_only)
            cuts = 0;
    }
    return cuts;
}

int normalizer_joins_lines(const normalizer *n)
{
    for (size_t i = 0; i < n->count; i++) {
        const step *s = &n->steps[i];
        gt_text out = { 0 };
        if (s->kind == STEP_CHARSMAP)
            charsmap_apply(s->map, (const unsigned char *)"\n", 1, &out);
        const int joins = (s->kind == STEP_BERT && s->clean) || s->kind == STEP_NMT
                          || (s->kind == STEP_REPLACE_REGEX && s->spaces_only && strchr(s->find, 's'))
                          || (out.size && *out.data != '\n');
        gt_text_release(&out);
        if (joins)
            return 1;
    }
    return 0;
}

int normalizer_keeps_spaces(const normalizer *n)
{
    for (size_t i = 0; i < n->count; i++) {
        const step *s = &n->steps[i];
        if ((s->kind == STEP_REPLACE || s->kind == STEP_REPLACE_REGEX) && (s->spaces_only || !strcmp(s->find, " "))
            && !has_space(s->put))
            return 0;
    }
    return 1;
}

int normalizer_keeps_characters(const normalizer *n)
{
    for (size_t i = 0; i < n->count; i++)
        if (n->steps[i].kind != STEP_PREPEND && (n->steps[i].kind != STEP_REPLACE || strcmp(n->steps[i].find, " ")))
            return 0;
    return 1;
}

/* ---- steps --------------------------------------------------------------------------------------- */

static size_t ascii_run(const unsigned char *text, size_t size, size_t at)
{
    uint64_t word;
    for (; at + 8 <= size; at += 8) {
        memcpy(&word, text + at, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    while (at < size && text[at] < 0x80)
        at++;
    return at;
}

static void put_code(gt_text *out, uint32_t code)
{
    char bytes[4];
    gt_text_put(out, bytes, (size_t)utf8_put(bytes, code));
}

/* No character of the text has a decomposition, a combining class, or a part in a composition. What is
 * below U+0300 stands for itself in NFC, though it has a decomposition, unless a mark follows. */
static int is_composed(const unsigned char *text, size_t size, int compat)
{
    uint32_t code;
    for (size_t at = ascii_run(text, size, 0); at < size; at = ascii_run(text, size, at)) {
        const int n = utf8_next(text + at, size - at, &code);
        at += n > 0 ? (size_t)n : 1;
        if (code < (compat ? 0xa0u : 0x300u) || unicode_is_plain(code))
            continue;
        const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)code);
        if (p->decomp_seqindex != UINT16_MAX || p->combining_class || (code >= 0x300 && p->comb_index != UINT16_MAX)
            || (code >= 0x1100 && code < 0x1200))
            return 0;
    }
    return 1;
}

static int keeps_form(const step *s, const unsigned char *text, size_t size)
{
    if (ascii_run(text, size, 0) == size)
        return 1;
    return (s->form & UTF8PROC_COMPOSE) && is_composed(text, size, (s->form & UTF8PROC_COMPAT) != 0);
}

static gt_status apply_form(const step *s, const unsigned char *text, size_t size, gt_text *out)
{
    utf8proc_uint8_t *mapped = NULL;
    const utf8proc_ssize_t n = utf8proc_map(text, (utf8proc_ssize_t)size, &mapped, (utf8proc_option_t)s->form);
    if (n < 0)
        return gt_fail(n == UTF8PROC_ERROR_NOMEM ? GT_NO_MEMORY : GT_FORMAT, "cannot normalize a text: %s",
                       utf8proc_errmsg(n));
    gt_text_put(out, mapped, (size_t)n);
    free(mapped);
    return GT_OK;
}

static void put_lower(gt_text *out, uint32_t code)
{
    uint32_t lower[2];
    const int n = unicode_lower(lower, code);
    for (int i = 0; i < n; i++)
        put_code(out, lower[i]);
}

static void apply_lower(const unsigned char *text, size_t size, gt_text *out)
{
    for (size_t at = 0; at < size;) {
        const size_t end = ascii_run(text, size, at), from = out->size;
        gt_text_put(out, text + at, end - at);
        for (size_t i = from; !out->failed && i < out->size; i++)
            if (out->data[i] >= 'A' && out->data[i] <= 'Z')
                out->data[i] = (char)(out->data[i] + 32);
        uint32_t code;
        at = end;
        if (at < size) {
            const int n = utf8_next(text + at, size - at, &code);
            put_lower(out, code);
            at += n > 0 ? (size_t)n : 1;
        }
    }
}

/* One character beyond ASCII, as BERT treats it. */
static void put_bert(const step *s, uint32_t code, gt_text *out)
{
    if (s->clean && (code == 0xfffd || unicode_is_control(code)))
        return;
    if (s->clean && unicode_is_space(code)) {
        gt_text_put(out, " ", 1);
        return;
    }
    const int ideograph = s->chinese && unicode_is_ideograph(code);
    utf8proc_int32_t parts[32] = { (utf8proc_int32_t)code };
    utf8proc_ssize_t n = 1;
    int boundary = 0;
    if (s->accents)
        n = utf8proc_decompose_char((utf8proc_int32_t)code, parts, 32, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    if (ideograph)
        gt_text_put(out, " ", 1);
    for (utf8proc_ssize_t i = 0; i < n && i < 32; i++)
        if (s->accents && unicode_is_nonspacing((uint32_t)parts[i]))
            continue;
        else if (s->lower)
            put_lower(out, (uint32_t)parts[i]);
        else
            put_code(out, (uint32_t)parts[i]);
    if (ideograph)
        gt_text_put(out, " ", 1);
}

static void apply_bert(const step *s, const unsigned char *text, size_t size, gt_text *out)
{
    for (size_t at = 0; at < size;) {
        const size_t end = ascii_run(text, size, at);
        size_t to = out->size;
        gt_text_put(out, text + at, end - at);          /* room; then mapped in place */
        if (out->failed)
            return;
        for (; at < end; at++) {
            const unsigned char c = s->ascii[text[at]];
            out->data[to] = (char)c;
            to += c != 0 || !s->clean;
        }
        out->size = to;
        if (at < size) {
            uint32_t code;
            const int n = utf8_next(text + at, size - at, &code);
            put_bert(s, code, out);
            at += n > 0 ? (size_t)n : 1;
        }
    }
}

static void apply_replace(const step *s, const unsigned char *text, size_t size, gt_text *out)
{
    const size_t find = strlen(s->find), put = strlen(s->put);
    size_t from = 0;
    for (const unsigned char *p; (p = memmem(text + from, size - from, s->find, find));) {
        const size_t at = (size_t)(p - text);
        gt_text_put(out, text + from, at - from);
        gt_text_put(out, s->put, put);
        from = at + find;
    }
    gt_text_put(out, text + from, size - from);
}

static gt_status apply_regex(const step *s, const unsigned char *text, size_t size, gt_text *out)
{
    size_t at = 0, begin, end;
    int found;
    while (at < size && (found = pattern_next(s->regex, text, size, at, 0, &begin, &end))) {
        if (found < 0)
            return gt_fail(GT_FORMAT, "a pattern of the tokenizer's normalizer takes too long on this text");
        gt_text_put(out, text + at, begin - at);
        gt_text_put(out, s->put, strlen(s->put));
        at = end;
    }
    gt_text_put(out, text + at, size - at);
    return GT_OK;
}

/* Is the character that begins there white space, or (spaces) a space? *n its size. */
static int strips(const unsigned char *text, size_t size, int spaces, size_t *n)
{
    uint32_t code;
    const int length = utf8_next(text, size, &code);
    *n = length > 0 ? (size_t)length : 1;
    return length > 0 && (spaces ? code == ' ' : unicode_is_space(code));
}

static void apply_strip(const step *s, const unsigned char *text, size_t size, int first, int last, gt_text *out)
{
    const int spaces = s->kind == STEP_TRIM, left = first && (spaces || s->left), right = last && (spaces || s->right);
    size_t at = 0, n;
    while (left && at < size && strips(text + at, size - at, spaces, &n))
        at += n;
    while (right && size > at) {
        size_t begin = size - 1;
        while (begin > at && (text[begin] & 0xc0) == 0x80)
            begin--;
        if (!strips(text + begin, size - begin, spaces, &n))
            break;
        size = begin;
    }
    gt_text_put(out, text + at, size - at);
}

/* NeMo's and SentencePiece's "nmt" rules without the normal form. */
static void apply_nmt(const unsigned char *text, size_t size, gt_text *out)
{
    size_t plain = 0;                           /* [plain, at) stands for itself */
    for (size_t at = 0, end; at < size; at = end) {
        uint32_t code = text[at];
        const int n = code < 0x80 ? 1 : utf8_next(text + at, size - at, &code);
        end = at + (n > 0 ? (size_t)n : 1);
        const int gone = (code >= 1 && code <= 8) || code == 0xb || (code >= 0xe && code <= 0x1f) || code == 0x7f
                         || code == 0x8f || code == 0x9f;
        const int space = code == 9 || code == 0xa || code == 0xc || code == 0xd || code == 0x1680
                          || (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 || code == 0x2581
                          || code == 0xfeff || code == 0xfffd;
        if (!gone && !space)
            continue;
        gt_text_put(out, text + plain, at - plain);
        gt_text_put(out, " ", (size_t)space);
        plain = end;
    }
    gt_text_put(out, text + plain, size - plain);
}

static gt_status apply(const step *s, const unsigned char *text, size_t size, int first, int last, gt_text *out)
{
    uint32_t code;
    switch (s->kind) {
    case STEP_FORM: return apply_form(s, text, size, out);
    case STEP_LOWER: apply_lower(text, size, out); break;
    case STEP_ACCENTS:
        for (size_t at = 0, end; at < size; at = end) {
            const int n = utf8_next(text + at, size - at, &code);
            end = at + (n > 0 ? (size_t)n : 1);
            if (!unicode_is_mark(code))
                gt_text_put(out, text + at, end - at);
        }
        break;
    case STEP_BERT: apply_bert(s, text, size, out); break;
    case STEP_PREPEND:
        gt_text_put(out, s->put, strlen(s->put));
        gt_text_put(out, text, size);
        break;
    case STEP_REPLACE: apply_replace(s, text, size, out); break;
    case STEP_REPLACE_REGEX: return apply_regex(s, text, size, out);
    case STEP_STRIP:
    case STEP_TRIM: apply_strip(s, text, size, first, last, out); break;
    case STEP_NMT: apply_nmt(text, size, out); break;
    case STEP_CHARSMAP: charsmap_apply(s->map, text, size, out); break;
    }
    return GT_OK;
}

/* Would this step copy the text as it is? */
static int changes_nothing(const step *s, const unsigned char *text, size_t size, int first, int last)
{
    switch (s->kind) {
    case STEP_FORM: return keeps_form(s, text, size);
    case STEP_ACCENTS: return ascii_run(text, size, 0) == size;
    case STEP_PREPEND: return !first || !size;
    case STEP_STRIP:
    case STEP_TRIM: return !first && !last;
    case STEP_REPLACE: return !memmem(text, size, s->find, strlen(s->find));
    default: return 0;
    }
}

gt_status normalizer_apply(normalizer *n, const unsigned char *text, size_t size, int first, int last,
                           const unsigned char **out, size_t *out_size)
{
    gt_status st = GT_OK;
    int to = 0;
    for (size_t i = 0; i < n->count && size && !st; i++) {
        const step *s = &n->steps[i];
        if (changes_nothing(s, text, size, first, last))
            continue;
        n->text[to].size = 0;
        st = apply(s, text, size, first, last, &n->text[to]);
        if (!st && n->text[to].failed)
            st = no_memory();
        text = (const unsigned char *)n->text[to].data;
        size = n->text[to].size;
        to = !to;
    }
    *out = text;
    *out_size = size;
    return st;
}
