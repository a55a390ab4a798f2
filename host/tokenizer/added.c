/* SPDX-License-Identifier: MIT */
/* host/tokenizer/added.c - a trie walked from every byte that begins a token. */
#include "host/tokenizer/added.h"

#include "host/tokenizer/unicode.h"
#include "host/tokenizer/utf8.h"

#include <string.h>

void added_release(added *a)
{
    trie_release(&a->texts);
    memset(a, 0, sizeof *a);
}

/* Beyond ASCII nothing is told apart: such a byte may be of white space or not. */
static int may_be_space(unsigned char byte)
{
    return byte == ' ' || (byte >= 9 && byte <= 13) || byte >= 0x80;
}

static int may_be_sign(unsigned char byte)
{
    return byte >= 0x80 || !may_be_space(byte);
}

/* Where a token of this text could lie on both sides of a cut. */
static unsigned across(const unsigned char *text, size_t size)
{
    unsigned cuts = 0;
    for (size_t i = 0; i + 1 < size; i++) {
        if (may_be_sign(text[i]) && may_be_space(text[i + 1]))
            cuts |= CUT_SPACE | CUT_LINE;
        if (may_be_space(text[i]) && may_be_sign(text[i + 1]))
            cuts |= CUT_AFTER;
    }
    return cuts;
}

static gt_status add_text(added *a, const unsigned char *text, size_t size, uint32_t id)
{
    uint32_t root, old;
    gt_status st = a->texts.nodes ? GT_OK : trie_root(&a->texts, &root);
    if (!st)
        st = trie_add(&a->texts, 0, text, size, id, &old);
    a->begins[text[0]] = 1;
    a->across |= across(text, size);
    return st;
}

gt_status added_open(added *a, const vocabulary *v, int normalized, normalizer *n)
{
    gt_status st = GT_OK;
    a->vocab = v;
    for (uint32_t id = 0; id < v->count && !st; id++) {
        const piece *p = &v->pieces[id];
        const unsigned char *text = (const unsigned char *)vocabulary_bytes(v, id);
        size_t size = p->size;
        if (!p->special || normalized != ((p->flags & PIECE_NORMALIZED) != 0))
            continue;
        if (normalized)
            st = normalizer_apply(n, text, size, 1, 1, &text, &size);
        if (!st && size)
            st = add_text(a, text, size, id);
        if (p->flags & PIECE_RSTRIP)        /* it takes along what is behind the cut */
            a->across = CUT_ALL;
    }
    return st;
}

/* The longest token at text[0..size), or TRIE_NONE; *length of it; *open: the text ends on the way to
 * a longer one. */
static uint32_t longest(const added *a, const unsigned char *text, size_t size, size_t *length, int *open)
{
    uint32_t node = 0, id = TRIE_NONE;
    *open = 0;
    for (size_t i = 0; i < size; i++) {
        node = trie_step(&a->texts, node, text[i]);
        if (!node)
            return id;
        if (a->texts.values[node] != TRIE_NONE) {
            id = a->texts.values[node];
            *length = i + 1;
        }
    }
    *open = 1;          /* even if nothing longer begins so: one more byte tells */
    return id;
}

/* The size of the white space that begins at text[0..size). */
static size_t spaces_at(const unsigned char *text, size_t size)
{
    size_t at = 0;
    for (uint32_t code; at < size;) {
        const int n = utf8_next(text + at, size - at, &code);
        if (n <= 0 || !unicode_is_space(code))
            break;
        at += (size_t)n;
    }
    return at;
}

/* Where the last character of text[0..size) begins. */
static size_t last_character(const unsigned char *text, size_t size)
{
    size_t begin = size - 1;
    while (begin && size - begin < 4 && (text[begin] & 0xc0) == 0x80)
        begin--;
    return begin;
}

static int is_word(const unsigned char *text, size_t size)
{
    uint32_t code;
    return size && utf8_next(text, size, &code) > 0 && unicode_is_word(code);
}

int added_next(const added *a, const unsigned char *text, size_t size, size_t at, int last, added_match *out)
{
    const size_t from = at;
    while (a->texts.nodes && at < size) {
        size_t length = 1;
        int open = 0;
        while (at < size && !a->begins[text[at]])
            at++;
        if (at == size)
            break;
        const uint32_t id = longest(a, text + at, size - at, &length, &open);
        const unsigned flags = id == TRIE_NONE ? 0 : a->vocab->pieces[id].flags;
        size_t begin = at, end = at + length;
        if (flags & PIECE_RSTRIP)
            end += spaces_at(text + end, size - end);
        /* A character that is cut may be white space or belong to a word. */
        open |= (flags & (PIECE_RSTRIP | PIECE_SINGLE_WORD)) && size - end < 4;
        if (open && !last) {
            while ((flags & PIECE_LSTRIP || id == TRIE_NONE) && begin > from) {
                const size_t before = last_character(text, begin);
                if (before < from || !spaces_at(text + before, begin - before))
                    break;
                begin = before;
            }
            out->begin = begin;
            return -1;
        }
        at += length;
        if (id == TRIE_NONE)
            continue;
        const size_t before = begin ? last_character(text, begin) : 0;
        if (flags & PIECE_SINGLE_WORD
            && ((begin ? is_word(text + before, begin - before) : a->word_before) || is_word(text + at, size - at)))
            continue;
        for (size_t b = before; flags & PIECE_LSTRIP && begin > from && b >= from;
             b = begin ? last_character(text, begin) : 0) {
            if (!spaces_at(text + b, begin - b))
                break;
            begin = b;
        }
        *out = (added_match){ begin, end, id };
        return 1;
    }
    return 0;
}
