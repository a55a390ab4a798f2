/* SPDX-License-Identifier: MIT */
/* host/tokenizer/charsmap.c - walks the double array with every index checked.
 *
 * A unit of the array (Darts-clone): bit 8 says that a value hangs below, bit 9 scales the
 * offset, bits 10.. are the offset, bits 0..7 and 31 the label; of a value unit, bits 0..30
 * are the value.                                                                        */
#include "host/tokenizer/charsmap.h"

#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define GRAPHEME_MAX 6u         /* bytes; longer ones are taken apart */

struct charsmap {
    uint32_t *units;
    size_t unit_count;
    char *forms;                /* ends with a zero byte */
    size_t form_size;
    const char *ascii[128];     /* of a character alone; NULL: itself */
};

void charsmap_close(charsmap *m)
{
    if (!m)
        return;
    free(m->units);
    free(m->forms);
    free(m);
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 512u) >> 6);
}

/* The normal form of the shortest beginning of text that the map knows, or NULL. */
static const char *form_of(const charsmap *m, const unsigned char *text, size_t size)
{
    size_t at = 0;
    if (!m->unit_count)
        return NULL;
    at ^= offset_of(m->units[0]);
    for (size_t i = 0; i < size && text[i]; i++) {
        at ^= text[i];
        if (at >= m->unit_count)
            return NULL;
        const uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 0xffu)) != text[i])
            return NULL;
        at ^= offset_of(unit);
        if (unit >> 8 & 1u) {
            const size_t value = at < m->unit_count ? m->units[at] & ~(1u << 31) : m->form_size;
            return value < m->form_size ? m->forms + value : NULL;
        }
    }
    return NULL;
}

gt_status charsmap_open(charsmap **out, const unsigned char *bytes, size_t size)
{
    *out = NULL;
    const size_t trie = size >= 4 ? bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24
                                  : 0;
    if (size < 4 || trie % 4 || trie > size - 4)
        return gt_fail(GT_FORMAT, "its map of characters is cut or no such map");
    charsmap *m = calloc(1, sizeof *m);
    if (m) {
        m->unit_count = trie / 4;
        m->form_size = size - 4 - trie;
        m->units = malloc(trie + 4);
        m->forms = malloc(m->form_size + 1);
    }
    if (!m || !m->units || !m->forms) {
        charsmap_close(m);
        return gt_fail(GT_NO_MEMORY, "no memory for the tokenizer's map of characters");
    }
    for (size_t i = 0; i < m->unit_count; i++) {
        const unsigned char *b = bytes + 4 + 4 * i;
        m->units[i] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    if (m->form_size)
        memcpy(m->forms, bytes + 4 + trie, m->form_size);
    m->forms[m->form_size] = '\0';
    for (unsigned c = 1; c < 128; c++)
        m->ascii[c] = form_of(m, &(unsigned char){ (unsigned char)c }, 1);
    *out = m;
    return GT_OK;
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

gt_status charsmap_open_base64(charsmap **out, const char *text)
{
    size_t length = strlen(text), n = 0;
    unsigned char *bytes = malloc(length + 4);
    uint32_t group = 0;
    gt_status st = bytes ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the tokenizer's map of characters");
    *out = NULL;
    while (length && text[length - 1] == '=')
        length--;
    for (size_t i = 0; i < length && !st; i++) {
        const int v = base64_value(text[i]);
        if (v < 0)
            st = gt_fail(GT_FORMAT, "its map of characters is not base64");
        group = group << 6 | (uint32_t)v;
        if (i % 4)
            bytes[n++] = (unsigned char)(group >> (6 - 2 * (i % 4)));
    }
    if (!st)
        st = charsmap_open(out, bytes, n);
    free(bytes);
    return st;
}

static void put_character(const charsmap *m, const unsigned char *text, size_t size, gt_text *out)
{
    const char *form = form_of(m, text, size);
    if (form)
        gt_text_put(out, form, strlen(form));
    else
        gt_text_put(out, text, size);
}

/* The end of the grapheme that begins at `at`. */
static size_t grapheme_end(const unsigned char *text, size_t size, size_t at)
{
    utf8proc_int32_t state = 0;
    uint32_t before, code;
    int n = utf8_next(text + at, size - at, &before);
    for (at += n > 0 ? (size_t)n : 1; at < size; at += (size_t)n) {
        n = utf8_next(text + at, size - at, &code);
        if (n <= 0 || utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)code, &state))
            break;
        before = code;
    }
    return at;
}

void charsmap_apply(const charsmap *m, const unsigned char *text, size_t size, gt_text *out)
{
    size_t plain = 0, at = 0;                   /* [plain, at) stands for itself */
    while (at < size) {
        if (text[at] < 0x80 && !(at + 1 < size && (text[at + 1] >= 0x80 || text[at + 1] == '\n'))
            && !m->ascii[text[at]]) {           /* a grapheme alone, without another form */
            at++;
            continue;
        }
        gt_text_put(out, text + plain, at - plain);
        const size_t end = grapheme_end(text, size, at);
        const char *form = end - at < GRAPHEME_MAX ? form_of(m, text + at, end - at) : NULL;
        if (form)
            gt_text_put(out, form, strlen(form));
        for (uint32_t code; !form && at < end;) {
            const int n = utf8_next(text + at, end - at, &code);
            put_character(m, text + at, n > 0 ? (size_t)n : 1, out);
            at += n > 0 ? (size_t)n : 1;
        }
        plain = at = end;
    }
    gt_text_put(out, text + plain, at - plain);
}
