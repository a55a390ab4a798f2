/* SPDX-License-Identifier: MIT */
/* host/data/words.c - special tokens, then valid UTF-8, then the pattern.
 *
 *   text      H e l l o   w o r l d ! <|endoftext|> n e x t FF ...
 *   stretch   [----------------------]|-- special --|[-----]|bad|
 *   words     [Hello][ world][!]                     [next]
 *
 * A stretch ends at a special token, at a bad byte or at the end of the text. The last kind
 * is *open* while more text may follow: there the matcher runs with PCRE2_PARTIAL_HARD and
 * a match that so much as looked at the end is held back. The last bytes are also held back
 * when they may begin a special token or a character.
 *
 * \s is written \p{White_Space} before compiling: with PCRE2_UCP, \s also matches U+180E,
 * which has not been white space since Unicode 6.3, and the ids would differ.           */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "host/data/words.h"

#include "host/data/utf8.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define JIT_STACK_MAX ((size_t)4 << 20)
#define MATCH_LIMIT 10000000u       /* a hostile pattern stops after about a second */

struct words {
    const vocabulary *vocab;
    uint32_t *specials;             /* ids, longest first */
    size_t special_count, special_max;
    unsigned char begins[256];      /* 1: some special begins with this byte */
    pcre2_code *code;               /* NULL: no pattern */
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    int jit;
};

void words_close(words *w)
{
    if (!w)
        return;
    free(w->specials);
    pcre2_code_free(w->code);
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    free(w);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot prepare the tokenizer: no memory for its regular expression");
}

/* The pattern with \s and \S spelled as the Unicode property. */
static void translate(gt_text *out, const char *pattern)
{
    for (const char *p = pattern; *p; p++) {
        if (p[0] != '\\' || !p[1]) {
            gt_text_put(out, p, 1);
            continue;
        }
        p++;
        if (*p == 's' || *p == 'S')
            gt_text_printf(out, "\\%c{White_Space}", *p == 's' ? 'p' : 'P');
        else
            gt_text_printf(out, "\\%c", *p);
    }
}

static gt_status compile(words *w, const char *pattern)
{
    gt_text text = { 0 };
    int error;
    PCRE2_SIZE where;
    PCRE2_UCHAR reason[128];
    uint32_t behind = 0;
    gt_status st = GT_OK;

    translate(&text, pattern);
    if (text.failed) {
        st = no_memory();
        goto out;
    }
    w->code = pcre2_compile((PCRE2_SPTR)text.data, text.size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
                            &where, NULL);
    if (!w->code) {
        pcre2_get_error_message(error, reason, sizeof reason);
        st = gt_fail(GT_FORMAT, "cannot compile the tokenizer's pattern '%.100s': %s", pattern, (const char *)reason);
        goto out;
    }
    pcre2_pattern_info(w->code, PCRE2_INFO_MAXLOOKBEHIND, &behind);
    if (behind) {
        st = gt_fail(GT_UNSUPPORTED,
                     "cannot use the tokenizer's pattern '%.100s': it looks "
                     "behind",
                     pattern);
        goto out;
    }
    w->match = pcre2_match_data_create(1, NULL);
    w->context = pcre2_match_context_create(NULL);
    if (!w->match || !w->context) {
        st = no_memory();
        goto out;
    }
    pcre2_set_match_limit(w->context, MATCH_LIMIT);
    /* No JIT on this machine or in this build of PCRE2: the interpreter gives the same words. */
    w->jit = pcre2_jit_compile(w->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
    if (w->jit) {
        w->stack = pcre2_jit_stack_create((size_t)32 << 10, JIT_STACK_MAX, NULL);
        pcre2_jit_stack_assign(w->context, NULL, w->stack);
    }
out:
    gt_text_release(&text);
    return st;
}

/* Sorting needs the sizes; specials are few, so an insertion keeps it simple. */
static gt_status collect_specials(words *w)
{
    const vocabulary *v = w->vocab;
    for (uint32_t id = 0; id < v->count; id++)
        w->special_count += v->pieces[id].special;
    if (!w->special_count)
        return GT_OK;
    w->specials = malloc(w->special_count * sizeof *w->specials);
    if (!w->specials)
        return no_memory();
    size_t n = 0;
    for (uint32_t id = 0; id < v->count; id++) {
        if (!v->pieces[id].special)
            continue;
        size_t at = n++;
        for (; at && v->pieces[w->specials[at - 1]].size < v->pieces[id].size; at--)
            w->specials[at] = w->specials[at - 1];
        w->specials[at] = id;
        w->begins[(unsigned char)*vocabulary_bytes(v, id)] = 1;
    }
    w->special_max = v->pieces[w->specials[0]].size;
    return GT_OK;
}

gt_status words_open(words **out, const vocabulary *v)
{
    *out = NULL;
    words *w = calloc(1, sizeof *w);
    if (!w)
        return no_memory();
    w->vocab = v;
    gt_status st = collect_specials(w);
    if (!st && v->pattern)
        st = compile(w, v->pattern);
    if (st) {
        words_close(w);
        return st;
    }
    *out = w;
    return GT_OK;
}

/* The longest special token at text[0..size), or -1. *may is set if text ends inside one
 * that would be as long or longer. */
static int64_t special_at(const words *w, const unsigned char *text, size_t size, int *may)
{
    for (size_t i = 0; i < w->special_count; i++) {
        const piece *p = &w->vocab->pieces[w->specials[i]];
        const char *bytes = w->vocab->bytes.data + p->offset;
        if (p->size <= size ? !memcmp(bytes, text, p->size) : !memcmp(bytes, text, size)) {
            if (p->size <= size)
                return w->specials[i];
            *may = 1;
        }
    }
    return -1;
}

typedef enum stop { STOP_END, STOP_SPECIAL, STOP_BAD, STOP_HOLD } stop;

/* Finds where the stretch that begins at text[0] ends. STOP_HOLD: what follows cannot be
 * told from these bytes alone. */
static stop stretch(const words *w, const unsigned char *text, size_t size, int last, size_t *length, int64_t *special)
{
    size_t at = 0;
    while (at < size) {
        uint32_t code;
        int may = 0;
        *length = at;
        if (w->begins[text[at]]) {
            *special = special_at(w, text + at, size - at, &may);
            if (may && !last)
                return STOP_HOLD;
            if (*special >= 0)
                return STOP_SPECIAL;
        }
        int n = utf8_next(text + at, size - at, &code);
        if (n == UTF8_CUT && !last)
            return STOP_HOLD;
        if (n <= 0)
            return STOP_BAD;
        at += (size_t)n;
    }
    *length = size;
    return STOP_END;
}

/* The next match in text[at..size): its begin and end. Returns 1, 0 if there is none, -1 if
 * more text may change the answer, -2 if the matcher gave up. */
static int next_match(words *w, const unsigned char *text, size_t size, size_t at, int open, size_t *begin, size_t *end)
{
    uint32_t options = PCRE2_NOTEMPTY | (open ? PCRE2_PARTIAL_HARD : 0u);
    int n = w->jit ? pcre2_jit_match(w->code, text, size, at, options, w->match, w->context)
                   : pcre2_match(w->code, text, size, at, options | PCRE2_NO_UTF_CHECK, w->match, w->context);
    if (n == PCRE2_ERROR_PARTIAL)
        return -1;
    if (n == PCRE2_ERROR_NOMATCH)
        return open ? -1 : 0;
    PCRE2_SIZE *range = pcre2_get_ovector_pointer(w->match);
    *begin = range[0];
    *end = range[1];
    return n < 0 || *begin < at || *end <= *begin || *end > size ? -2 : 1;
}

/* Visits the words of one stretch. *used: how far it came. */
static gt_status cut(words *w, const unsigned char *text, size_t size, int open, size_t *used, words_visit visit,
                     void *context)
{
    gt_status st = GT_OK;
    size_t at = 0;
    if (!w->code && !open && size) {
        st = visit(context, text, size, -1);
        at = st ? 0 : size;
    }
    while (w->code && at < size && !st) {
        size_t begin, end;
        int found = next_match(w, text, size, at, open, &begin, &end);
        if (found == -1)
            break;
        if (found == -2) {
            st = gt_fail(GT_FORMAT, "the tokenizer's pattern takes too long on this text");
            break;
        }
        if (!found)
            begin = end = size;
        if (begin > at)
            st = visit(context, text + at, begin - at, -1);
        if (!st) {
            at = begin;
            if (end > begin)
                st = visit(context, text + begin, end - begin, -1);
        }
        if (!st)
            at = end;
    }
    *used = at;
    return st;
}

gt_status words_each(words *w, const unsigned char *text, size_t size, int last, size_t *used, words_visit visit,
                     void *context)
{
    gt_status st = GT_OK;
    *used = 0;
    while (*used < size && !st) {
        size_t length = 0, done;
        int64_t special = -1;
        stop why = stretch(w, text + *used, size - *used, last, &length, &special);
        int open = why == STOP_HOLD || (why == STOP_END && !last);
        st = cut(w, text + *used, length, open, &done, visit, context);
        *used += done;
        if (st || open)
            break;
        size_t next = why == STOP_SPECIAL ? w->vocab->pieces[special].size : why == STOP_BAD;
        if (next)
            st = visit(context, text + *used, next, special);
        if (!st)
            *used += next;
    }
    return st;
}
