/* SPDX-License-Identifier: MIT */
/* host/tokenizer/words.c - special tokens, then valid UTF-8, then the pattern.
 *
 *   text      H e l l o   w o r l d ! <|endoftext|> n e x t FF ...
 *   stretch   [----------------------]|-- special --|[-----]|bad|
 *   words     [Hello][ world][!]                     [next]
 *
 * A stretch ends at a special token, at a bad byte or at the end of the text. The last kind
 * is *open* while more text may follow: there the matcher runs with PCRE2_PARTIAL_HARD and
 * a match that so much as looked at the end is held back. The last bytes are also held back
 * when they may begin a special token or a character.                                 */
#include "host/tokenizer/words.h"

#include "host/tokenizer/pattern.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

struct words {
    const vocabulary *vocab;
    uint32_t *specials;             /* ids, longest first */
    size_t special_count, special_max;
    unsigned char begins[256];      /* 1: some special begins with this byte */
    pattern *pattern;               /* NULL: no pattern */
};

void words_close(words *w)
{
    if (!w)
        return;
    free(w->specials);
    pattern_close(w->pattern);
    free(w);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot prepare the tokenizer: no memory for its regular expression");
}

static gt_status compile(words *w, const char *regex)
{
    gt_status st = pattern_open(&w->pattern, regex);
    if (!st && pattern_looks_behind(w->pattern))
        st = gt_fail(GT_UNSUPPORTED, "cannot use the tokenizer's pattern '%.100s': it looks behind", regex);
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

/* Visits the words of one stretch. *used: how far it came. */
static gt_status cut(words *w, const unsigned char *text, size_t size, int open, size_t *used, words_visit visit,
                     void *context)
{
    gt_status st = GT_OK;
    size_t at = 0;
    if (!w->pattern && !open && size) {
        st = visit(context, text, size, -1);
        at = st ? 0 : size;
    }
    while (w->pattern && at < size && !st) {
        size_t begin, end;
        int found = pattern_next(w->pattern, text, size, at, open, &begin, &end);
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
