/* SPDX-License-Identifier: MIT */
/* host/tokenizer/utf8.c - decoding by the table of well-formed sequences (Unicode 15, 3-7).
 *
 * The second byte alone decides what is overlong, a surrogate or too large:
 *
 *   first    second     rest
 *   C2..DF   80..BF
 *   E0       A0..BF     80..BF          lower would be overlong
 *   E1..EF   80..BF     80..BF          but ED 80..9F: above are surrogates
 *   F0       90..BF     80..BF 80..BF   lower would be overlong
 *   F1..F3   80..BF     80..BF 80..BF
 *   F4       80..8F     80..BF 80..BF   higher is past U+10FFFF                        */
#include "host/tokenizer/utf8.h"

int utf8_next(const unsigned char *text, size_t size, uint32_t *code)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    int length;
    uint32_t value;

    if (first < 0x80) {
        *code = first;
        return 1;
    }
    if (first < 0xc2 || first > 0xf4)
        return UTF8_INVALID;
    if (first < 0xe0) {
        length = 2;
        value = first & 0x1fu;
    } else if (first < 0xf0) {
        length = 3;
        value = first & 0x0fu;
        low = first == 0xe0 ? 0xa0 : 0x80;
        high = first == 0xed ? 0x9f : 0xbf;
    } else {
        length = 4;
        value = first & 0x07u;
        low = first == 0xf0 ? 0x90 : 0x80;
        high = first == 0xf4 ? 0x8f : 0xbf;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= size)
            return UTF8_CUT;
        if (text[i] < low || text[i] > high)
            return UTF8_INVALID;
        value = value << 6 | (text[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    *code = value;
    return length;
}

int utf8_put(char out[4], uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

static int continues(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

uint64_t utf8_count(const unsigned char *text, size_t size)
{
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += !continues(text[i]);
    return n;
}

size_t utf8_offset(const unsigned char *text, size_t size, uint64_t index)
{
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++)
        if (!continues(text[i]) && n++ == index)
            return i;
    return size;
}

static int stands_for_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae);
}

uint32_t byte_level_code(unsigned char byte)
{
    if (stands_for_itself(byte))
        return byte;
    uint32_t moved = 0;                     /* how many before this one were moved */
    for (uint32_t b = 0; b < byte; b++)
        moved += !stands_for_itself(b);
    return 0x100 + moved;
}

int byte_level_byte(uint32_t code)
{
    if (code < 0x100)
        return stands_for_itself(code) ? (int)code : -1;
    uint32_t moved = 0x100;
    for (int b = 0; b < 0x100; b++)
        if (!stands_for_itself((uint32_t)b) && moved++ == code)
            return b;
    return -1;
}

int64_t byte_level_decode(unsigned char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        int length = utf8_next(text + i, size - i, &code);
        int byte = length > 0 ? byte_level_byte(code) : -1;
        if (byte < 0)
            return -1;
        text[n++] = (unsigned char)byte;
        i += (size_t)length;
    }
    return (int64_t)n;
}

void utf8_mend(gt_text *out, const char *text, size_t size)
{
    uint32_t code;
    for (size_t i = 0; i < size;) {
        const int n = utf8_next((const unsigned char *)text + i, size - i, &code);
        if (n > 0)
            gt_text_put(out, text + i, (size_t)n);
        else
            gt_text_put(out, "\xEF\xBF\xBD", 3);
        i += n > 0 ? (size_t)n : 1;
    }
}
