/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_text.c - what templates do with texts: strip, split, replace, change case; and values as JSON. */
#include "host/tokenizer/template_value_private.h"

#include "host/tokenizer/utf8.h"

#include <string.h>

static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680
           || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int holds(const value *set, uint32_t c)
{
    const unsigned char *s = (const unsigned char *)value_chars(set);
    uint32_t code = 0;
    for (size_t n = value_size(set), used; n; n -= used, s += used) {
        const int got = utf8_next(s, n, &code);
        used = got > 0 ? (size_t)got : 1;
        if (code == c)
            return 1;
    }
    return 0;
}

/* set NULL: white space. */
value text_strip(value_pool *p, const value *v, const value *set, int left, int right)
{
    const unsigned char *s = (const unsigned char *)value_chars(v);
    size_t from = 0, to = value_size(v);
    uint32_t c;
    while (left && from < to) {
        const int n = utf8_next(s + from, to - from, &c);
        if (n <= 0 || !(set ? holds(set, c) : is_space(c)))
            break;
        from += (size_t)n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && (s[at] & 0xc0) == 0x80)
            at--;
        if (utf8_next(s + at, to - at, &c) <= 0 || !(set ? holds(set, c) : is_space(c)))
            break;
        to = at;
    }
    return value_text(p, (const char *)s + from, to - from);
}

/* upper: 1; lower: 0; 2: upper at the beginning of words, as title has it; 3: of the text. */
value text_case(value_pool *p, const value *v, int how)
{
    gt_text out = { 0 };
    int word = 0;
    gt_text_put(&out, value_chars(v), value_size(v));
    for (size_t i = 0; i < out.size && !out.failed; i++) {
        char *c = &out.data[i];
        if ((unsigned char)*c >= 128) {
            gt_text_release(&out);
            return value_fail(p, GT_UNSUPPORTED, "changing the case of letters beyond ASCII is not supported");
        }
        const int letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');
        const int up = how == 1 || (how == 2 && !word) || (how == 3 && i == 0);
        if (letter)
            *c = (char)(up ? *c & ~32 : *c | 32);
        word = letter;
    }
    return value_taking(p, &out);
}

const char *text_find(const char *in, size_t size, const char *what, size_t n)
{
    return n ? memmem(in, size, what, n) : in;
}

value text_replace(value_pool *p, const value *v, const value *old, const value *new, json_int_t most)
{
    gt_text out = { 0 };
    const char *s = value_chars(v), *end = s + value_size(v);
    if (!value_size(old))
        return value_fail(p, GT_UNSUPPORTED, "replacing an empty text is not supported");
    for (const char *at; most != 0 && (at = text_find(s, (size_t)(end - s), value_chars(old), value_size(old)));
         most--) {
        gt_text_put(&out, s, (size_t)(at - s));
        gt_text_put(&out, value_chars(new), value_size(new));
        s = at + value_size(old);
        if (out.size > VALUE_BYTES_MOST)
            break;
    }
    gt_text_put(&out, s, (size_t)(end - s));
    return value_taking(p, &out);
}

static void put_piece(json_t *list, const char *from, const char *to)
{
    json_array_append_new(list, json_stringn(from, (size_t)(to - from)));
}

/* Without a separator: words between white space. */
value text_split(value_pool *p, const value *v, const value *by, json_int_t most)
{
    json_t *list = json_array();
    const char *s = value_chars(v), *end = s + value_size(v), *at;
    if (by && !value_size(by)) {
        json_decref(list);
        return value_fail(p, GT_MISMATCH, "split() by an empty text");
    }
    for (; by && most != 0 && (at = text_find(s, (size_t)(end - s), value_chars(by), value_size(by))); most--) {
        put_piece(list, s, at);
        s = at + value_size(by);
    }
    if (by)
        put_piece(list, s, end);
    while (!by && s < end) {
        uint32_t c = 0;
        int n = 0;
        while (s < end && (n = utf8_next((const unsigned char *)s, (size_t)(end - s), &c)) > 0 && is_space(c))
            s += n;
        const char *begin = s;
        if (s < end && most-- == 0) {
            value rest = value_text(p, s, (size_t)(end - s));
            rest = p->st ? rest : text_strip(p, &rest, NULL, 0, 1);
            json_array_append(list, rest.json);
            break;
        }
        while (s < end && (n = utf8_next((const unsigned char *)s, (size_t)(end - s), &c)) > 0 && !is_space(c))
            s += n;
        if (s > begin)
            put_piece(list, begin, s);
        else if (n <= 0)
            break;
    }
    return value_of(p, list);
}

/* The character with an index, from the end if it is below 0; undefined if there is none. */
value text_character(value_pool *p, const value *v, json_int_t at)
{
    const unsigned char *s = (const unsigned char *)value_chars(v);
    const json_int_t n = (json_int_t)value_length(v);
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        return value_undefined();
    const size_t from = utf8_offset(s, value_size(v), (uint64_t)at),
                 to = utf8_offset(s, value_size(v), (uint64_t)at + 1);
    return value_text(p, (const char *)s + from, to - from);
}

/* ---- JSON --------------------------------------------------------------------------------------- */

static void put_json_text(gt_text *out, const char *s, size_t n)
{
    gt_text_put(out, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        const char *const short_form = c ? strchr("\"\"\\\\\nn\rr\tt\bb\ff", c) : NULL;
        if (short_form && (c == '"' || c == '\\' || c < 32))
            gt_text_printf(out, "\\%c", short_form[1]);
        else if (c < 32)
            gt_text_printf(out, "\\u%04x", c);
        else
            gt_text_put(out, s + i, 1);
    }
    gt_text_put(out, "\"", 1);
}

static void put_line(gt_text *out, int indent, int depth)
{
    if (indent >= 0)
        gt_text_printf(out, "\n%*s", indent * depth, "");
}

/* As json.dumps(x, ensure_ascii=False, indent=...); indent -1: on one line. */
void text_json(value_pool *p, gt_text *out, json_t *x, int indent, int depth)
{
    const char *key, *between = indent >= 0 ? "," : ", ";
    json_t *item;
    size_t i, n = 0;
    value v = value_borrowed(x);
    if (depth > VALUE_DEPTH_MOST)
        value_fail(p, GT_UNSUPPORTED, "JSON nested more than %d deep", VALUE_DEPTH_MOST);
    if (p->st)
        return;
    if (json_is_object(x)) {
        gt_text_put(out, "{", 1);
        json_object_foreach(x, key, item) {
            gt_text_printf(out, "%s", n++ ? between : "");
            put_line(out, indent, depth + 1);
            put_json_text(out, key, strlen(key));
            gt_text_put(out, ": ", 2);
            text_json(p, out, item, indent, depth + 1);
        }
        if (n)
            put_line(out, indent, depth);
        gt_text_put(out, "}", 1);
    } else if (json_is_array(x)) {
        gt_text_put(out, "[", 1);
        json_array_foreach(x, i, item) {
            gt_text_printf(out, "%s", i ? between : "");
            put_line(out, indent, depth + 1);
            text_json(p, out, item, indent, depth + 1);
        }
        if (json_array_size(x))
            put_line(out, indent, depth);
        gt_text_put(out, "]", 1);
    } else if (json_is_string(x)) {
        put_json_text(out, json_string_value(x), json_string_length(x));
    } else if (json_is_boolean(x) || json_is_null(x)) {
        gt_text_printf(out, "%s", json_is_true(x) ? "true" : json_is_false(x) ? "false" : "null");
    } else {
        value_print(p, &v, out);
    }
}
