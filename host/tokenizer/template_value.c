/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_value.c - values of a template: operators, filters, tests and methods, as Python and jinja2 have them.
 *
 * Text is indexed, sliced and measured in characters, not bytes. Bounds: what a rendering makes in all, and how
 * much it does; a template cannot take all memory or run for ever.                      */
#include "host/tokenizer/template_value.h"

#include "host/tokenizer/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_MOST ((size_t)256 << 20) /* of all values that a rendering makes */
enum { RANGE_MOST = 100000, DEPTH_MOST = 100 };

/* ---- the pool ------------------------------------------------------------------------------------- */

value value_undefined(void)
{
    return (value){ .kind = VALUE_UNDEFINED };
}

value value_fail(value_pool *p, gt_status st, const char *format, ...)
{
    char text[512];
    va_list args;
    if (p->st)
        return value_undefined();
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->st = gt_fail(st, "template '%s', line %d: %s", p->name, p->line, text);
    return value_undefined();
}

void value_pool_release(value_pool *p)
{
    for (size_t i = 0; i < p->count; i++)
        json_decref(p->made[i]);
    free(p->made);
    memset(p, 0, sizeof *p);
}

value value_of(value_pool *p, json_t *made)
{
    if (!made)
        return value_fail(p, GT_NO_MEMORY, "no memory for a value, or a text that is no UTF-8");
    if (p->count == p->room) {
        const size_t room = p->room ? 2 * p->room : 64;
        json_t **grown = realloc(p->made, room * sizeof *grown);
        if (!grown) {
            json_decref(made);
            return value_fail(p, GT_NO_MEMORY, "no memory for a value");
        }
        p->made = grown;
        p->room = room;
    }
    p->made[p->count++] = made;
    p->bytes += 64 + (json_is_string(made) ? json_string_length(made) : 16 * json_array_size(made));
    if (p->bytes > BYTES_MOST)
        return value_fail(p, GT_UNSUPPORTED, "it makes more than %zu MiB of text", BYTES_MOST >> 20);
    return (value){ .kind = VALUE_JSON, .json = made };
}

value value_borrowed(json_t *json)
{
    return json ? (value){ .kind = VALUE_JSON, .json = json } : value_undefined();
}

value value_text(value_pool *p, const char *data, size_t size)
{
    return value_of(p, json_stringn(data ? data : "", size));
}

/* A text that is given up. */
static value take_text(value_pool *p, gt_text *t)
{
    value v = t->failed ? value_fail(p, GT_NO_MEMORY, "no memory for a value") : value_text(p, t->data, t->size);
    gt_text_release(t);
    return v;
}

value value_bool(int yes)
{
    return (value){ .kind = VALUE_JSON, .json = yes ? json_true() : json_false() }; /* these are never freed */
}

value value_int(value_pool *p, json_int_t i)
{
    return value_of(p, json_integer(i));
}

/* ---- what values are -------------------------------------------------------------------------------- */

static int is(const value *v, json_type type)
{
    return v->kind == VALUE_JSON && json_typeof(v->json) == type;
}

int value_is_text(const value *v)
{
    return is(v, JSON_STRING);
}

static int is_list(const value *v)
{
    return is(v, JSON_ARRAY);
}

static int is_dict(const value *v)
{
    return is(v, JSON_OBJECT);
}

static int is_bool(const value *v)
{
    return is(v, JSON_TRUE) || is(v, JSON_FALSE);
}

/* Python's booleans are whole numbers. */
static int is_whole(const value *v)
{
    return is(v, JSON_INTEGER) || is_bool(v);
}

static int is_number(const value *v)
{
    return is_whole(v) || is(v, JSON_REAL);
}

static json_int_t whole_of(const value *v)
{
    return is(v, JSON_INTEGER) ? json_integer_value(v->json) : is(v, JSON_TRUE);
}

static double number_of(const value *v)
{
    return is(v, JSON_REAL) ? json_real_value(v->json) : (double)whole_of(v);
}

static const char *text_of(const value *v)
{
    return json_string_value(v->json);
}

static size_t size_of(const value *v)
{
    return json_string_length(v->json);
}

const char *value_kind_name(const value *v)
{
    if (v->kind == VALUE_UNDEFINED)
        return "undefined";
    if (v->kind == VALUE_LOOP)
        return "the loop";
    if (v->kind == VALUE_NAMESPACE)
        return "a namespace";
    switch (json_typeof(v->json)) {
    case JSON_OBJECT: return "a dictionary";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a text";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a truth value";
    default: return "none";
    }
}

static size_t length_of(const value *v)
{
    return is_list(v)         ? json_array_size(v->json)
           : is_dict(v)       ? json_object_size(v->json)
           : value_is_text(v) ? (size_t)utf8_count((const unsigned char *)text_of(v), size_of(v))
                              : 0;
}

int value_true(const value *v)
{
    if (v->kind != VALUE_JSON)
        return v->kind != VALUE_UNDEFINED;
    if (is_number(v))
        return number_of(v) != 0.0;
    return is_list(v) || is_dict(v) || value_is_text(v) ? length_of(v) > 0 : 0;
}

int value_equal(const value *a, const value *b)
{
    if (a->kind != VALUE_JSON || b->kind != VALUE_JSON)
        return a->kind == VALUE_UNDEFINED && b->kind == VALUE_UNDEFINED;
    if (is_whole(a) && is_whole(b))
        return whole_of(a) == whole_of(b);
    if (is_number(a) && is_number(b))
        return number_of(a) == number_of(b);
    if (!is_list(a) || !is_list(b))
        return json_equal(a->json, b->json);
    int same = json_array_size(a->json) == json_array_size(b->json);
    for (size_t i = 0; same && i < json_array_size(a->json); i++) {
        const value x = value_borrowed(json_array_get(a->json, i)), y = value_borrowed(json_array_get(b->json, i));
        same = value_equal(&x, &y);
    }
    return same;
}

/* As Python's repr: the shortest that reads back as the same. */
static void print_real(gt_text *out, double x)
{
    char text[40];
    int digits = 1;
    if (isnan(x) || isinf(x)) {
        gt_text_printf(out, "%s", isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, x);
    while (strtod(text, NULL) != x && ++digits < 18);
    const int power = atoi(strchr(text, 'e') + 1);
    if (power >= -4 && power < 16)
        snprintf(text, sizeof text, "%.*f", digits - 1 - power > 1 ? digits - 1 - power : 1, x);
    else
        snprintf(text, sizeof text, "%.*e", digits - 1, x);
    gt_text_printf(out, "%s", text);
}

void value_print(value_pool *p, const value *v, gt_text *out)
{
    if (v->kind == VALUE_UNDEFINED)
        return;
    if (value_is_text(v))
        gt_text_put(out, text_of(v), size_of(v));
    else if (is(v, JSON_INTEGER))
        gt_text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v->json));
    else if (is(v, JSON_REAL))
        print_real(out, json_real_value(v->json));
    else if (is_bool(v) || is(v, JSON_NULL))
        gt_text_printf(out, "%s", is(v, JSON_TRUE) ? "True" : is(v, JSON_FALSE) ? "False" : "None");
    else
        value_fail(p, GT_UNSUPPORTED, "printing %s is not supported; print it with | tojson", value_kind_name(v));
}

/* ---- characters ---------------------------------------------------------------------------------------- */

static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680
           || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int holds(const value *set, uint32_t c)
{
    const unsigned char *s = (const unsigned char *)text_of(set);
    uint32_t code = 0;
    for (size_t n = size_of(set), used; n; n -= used, s += used) {
        const int got = utf8_next(s, n, &code);
        used = got > 0 ? (size_t)got : 1;
        if (code == c)
            return 1;
    }
    return 0;
}

/* set NULL: white space. */
static value strip(value_pool *p, const value *v, const value *set, int left, int right)
{
    const unsigned char *s = (const unsigned char *)text_of(v);
    size_t from = 0, to = size_of(v);
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
static value change_case(value_pool *p, const value *v, int how)
{
    gt_text out = { 0 };
    int word = 0;
    gt_text_put(&out, text_of(v), size_of(v));
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
    return take_text(p, &out);
}

static const char *find(const char *in, size_t size, const char *what, size_t n)
{
    return n ? memmem(in, size, what, n) : in;
}

static value replace(value_pool *p, const value *v, const value *old, const value *new, json_int_t most)
{
    gt_text out = { 0 };
    const char *s = text_of(v), *end = s + size_of(v);
    if (!size_of(old))
        return value_fail(p, GT_UNSUPPORTED, "replacing an empty text is not supported");
    for (const char *at; most != 0 && (at = find(s, (size_t)(end - s), text_of(old), size_of(old))); most--) {
        gt_text_put(&out, s, (size_t)(at - s));
        gt_text_put(&out, text_of(new), size_of(new));
        s = at + size_of(old);
        if (out.size > BYTES_MOST)
            break;
    }
    gt_text_put(&out, s, (size_t)(end - s));
    return take_text(p, &out);
}

static void put_piece(json_t *list, const char *from, const char *to)
{
    json_array_append_new(list, json_stringn(from, (size_t)(to - from)));
}

/* Without a separator: words between white space. */
static value split(value_pool *p, const value *v, const value *by, json_int_t most)
{
    json_t *list = json_array();
    const char *s = text_of(v), *end = s + size_of(v), *at;
    if (by && !size_of(by)) {
        json_decref(list);
        return value_fail(p, GT_MISMATCH, "split() by an empty text");
    }
    for (; by && most != 0 && (at = find(s, (size_t)(end - s), text_of(by), size_of(by))); most--) {
        put_piece(list, s, at);
        s = at + size_of(by);
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
            rest = p->st ? rest : strip(p, &rest, NULL, 0, 1);
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
static value character(value_pool *p, const value *v, json_int_t at)
{
    const unsigned char *s = (const unsigned char *)text_of(v);
    const json_int_t n = (json_int_t)length_of(v);
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n)
        return value_undefined();
    const size_t from = utf8_offset(s, size_of(v), (uint64_t)at), to = utf8_offset(s, size_of(v), (uint64_t)at + 1);
    return value_text(p, (const char *)s + from, to - from);
}

/* ---- attributes, items, slices ---------------------------------------------------------------------------- */

static value loop_attribute(value_pool *p, const value_loop *l, const char *name)
{
    const json_int_t at = (json_int_t)l->at, left = (json_int_t)(l->count - l->at);
    if (!strcmp(name, "index0"))
        return value_int(p, at);
    if (!strcmp(name, "index"))
        return value_int(p, at + 1);
    if (!strcmp(name, "revindex"))
        return value_int(p, left);
    if (!strcmp(name, "revindex0"))
        return value_int(p, left - 1);
    if (!strcmp(name, "first"))
        return value_bool(at == 0);
    if (!strcmp(name, "last"))
        return value_bool(left == 1);
    if (!strcmp(name, "length"))
        return value_int(p, (json_int_t)l->count);
    if (!strcmp(name, "previtem"))
        return at ? value_borrowed(json_array_get(l->items, l->at - 1)) : value_undefined();
    if (!strcmp(name, "nextitem"))
        return value_borrowed(json_array_get(l->items, l->at + 1));
    return value_fail(p, GT_UNSUPPORTED, "loop.%s is not supported", name);
}

value value_attribute(value_pool *p, const value *v, const char *name)
{
    if (v->kind == VALUE_LOOP)
        return loop_attribute(p, v->loop, name);
    if (v->kind == VALUE_UNDEFINED)
        return value_fail(p, GT_MISMATCH, "there is nothing of which '%s' could be asked", name);
    return v->kind == VALUE_NAMESPACE || is_dict(v)
               ? value_borrowed(json_object_get(v->json, name))
               : value_undefined();
}

value value_item(value_pool *p, const value *v, const value *at)
{
    if (v->kind == VALUE_UNDEFINED)
        return value_fail(p, GT_MISMATCH, "there is nothing of which an item could be asked");
    if (value_is_text(at) && (is_dict(v) || v->kind != VALUE_JSON))
        return value_attribute(p, v, text_of(at));
    if (!is_whole(at) || (!is_list(v) && !value_is_text(v)))
        return value_undefined();
    json_int_t i = whole_of(at);
    if (value_is_text(v))
        return character(p, v, i);
    i += i < 0 ? (json_int_t)json_array_size(v->json) : 0;
    return i < 0 ? value_undefined() : value_borrowed(json_array_get(v->json, (size_t)i));
}

/* A bound of a slice, within [low, high]. */
static json_int_t bound_of(const value *v, json_int_t count, json_int_t otherwise, json_int_t low, json_int_t high)
{
    if (!is_whole(v))
        return otherwise;
    json_int_t i = whole_of(v);
    i += i < 0 ? count : 0;
    return i < low ? low : i > high ? high : i;
}

value value_slice(value_pool *p, const value *v, const value bound[3])
{
    if (!is_list(v) && !value_is_text(v))
        return value_fail(p, GT_MISMATCH, "%s cannot be sliced", value_kind_name(v));
    for (int i = 0; i < 3; i++)
        if (bound[i].kind != VALUE_UNDEFINED && !is_whole(&bound[i]) && !is(&bound[i], JSON_NULL))
            return value_fail(p, GT_MISMATCH, "a slice by %s", value_kind_name(&bound[i]));
    const json_int_t count = (json_int_t)length_of(v), step = is_whole(&bound[2]) ? whole_of(&bound[2]) : 1;
    if (!step)
        return value_fail(p, GT_MISMATCH, "a slice in steps of 0");
    const json_int_t low = step < 0 ? -1 : 0, high = step < 0 ? count - 1 : count;
    const json_int_t from = bound_of(&bound[0], count, step < 0 ? high : low, low, high);
    const json_int_t to = bound_of(&bound[1], count, step < 0 ? low : high, low, high);
    if (value_is_text(v) && step == 1) {
        const unsigned char *s = (const unsigned char *)text_of(v);
        const size_t a = utf8_offset(s, size_of(v), (uint64_t)from);
        const size_t b = to > from ? utf8_offset(s, size_of(v), (uint64_t)to) : a;
        return value_text(p, (const char *)s + a, b - a);
    }
    gt_text text = { 0 };
    json_t *list = json_array();
    for (json_int_t i = from; (step < 0 ? i > to : i < to) && !p->st;) {
        if (is_list(v))
            json_array_append(list, json_array_get(v->json, (size_t)i));
        else {
            const value c = character(p, v, i);
            if (!p->st)
                gt_text_put(&text, text_of(&c), size_of(&c));
        }
        if (step > 0 ? step >= to - i : step <= to - i)
            break;
        i += step;
    }
    if (is_list(v)) {
        gt_text_release(&text);
        return value_of(p, list);
    }
    json_decref(list);
    return take_text(p, &text);
}

json_t *value_items(value_pool *p, const value *v)
{
    const char *key;
    json_t *item;
    if (is_list(v))
        return v->json;
    value list = value_of(p, json_array());
    if (p->st)
        return NULL;
    if (is_dict(v)) {
        json_object_foreach(v->json, key, item)
            json_array_append_new(list.json, json_string(key));
    } else if (value_is_text(v)) {
        for (size_t i = 0, n = length_of(v); i < n && !p->st; i++) {
            const value c = character(p, v, (json_int_t)i);
            json_array_append(list.json, c.json);
        }
    } else if (v->kind != VALUE_UNDEFINED) {
        value_fail(p, GT_MISMATCH, "%s is nothing to go over", value_kind_name(v));
    }
    return p->st ? NULL : list.json;
}

/* ---- operators ---------------------------------------------------------------------------------------------- */

static value join_texts(value_pool *p, const value *a, const value *b)
{
    gt_text out = { 0 };
    value_print(p, a, &out);
    value_print(p, b, &out);
    return take_text(p, &out);
}

static value repeat(value_pool *p, const value *v, json_int_t times)
{
    gt_text out = { 0 };
    if (times > 0 && size_of(v) && (size_t)times > BYTES_MOST / size_of(v))
        return value_fail(p, GT_UNSUPPORTED, "a text repeated %" JSON_INTEGER_FORMAT " times", times);
    for (json_int_t i = 0; i < times && size_of(v); i++)
        gt_text_put(&out, text_of(v), size_of(v));
    return take_text(p, &out);
}

static json_int_t floor_divide(json_int_t a, json_int_t b)
{
    const json_int_t q = a / b;
    return a % b && (a < 0) != (b < 0) ? q - 1 : q;
}

static value whole_result(value_pool *p, int op, json_int_t x, json_int_t y)
{
    json_int_t r = 0;
    int over = 0;
    if ((op == '%' || op == OP_FLOOR) && y == -1)
        return op == '%'        ? value_int(p, 0)
               : x == INT64_MIN ? value_fail(p, GT_UNSUPPORTED, "a number beyond 64 bits")
                                : value_int(p, -x);
    switch (op) {
    case '+': over = __builtin_add_overflow(x, y, &r); break;
    case '-': over = __builtin_sub_overflow(x, y, &r); break;
    case '*': over = __builtin_mul_overflow(x, y, &r); break;
    case OP_FLOOR: r = floor_divide(x, y); break;
    case '%': r = x - y * floor_divide(x, y); break;
    default: /* power, y >= 0 */
        r = 1;
        for (json_int_t i = 0; i < y && !over && (r > 1 || r < -1 || i < 3); i++)
            over = __builtin_mul_overflow(r, x, &r);
        if (!over && (x == -1 || x == 1 || x == 0) && y > 3)
            r = x == -1 ? (y % 2 ? -1 : 1) : x;
    }
    return over ? value_fail(p, GT_UNSUPPORTED, "a number beyond 64 bits") : value_int(p, r);
}

value value_binary(value_pool *p, int op, const value *a, const value *b)
{
    if (op == '~')
        return join_texts(p, a, b);
    if (op == '+' && value_is_text(a) && value_is_text(b))
        return join_texts(p, a, b);
    if (op == '+' && is_list(a) && is_list(b)) {
        json_t *list = json_copy(a->json);
        if (list)
            json_array_extend(list, b->json);
        return value_of(p, list);
    }
    if (op == '*' && value_is_text(a) && is_whole(b))
        return repeat(p, a, whole_of(b));
    if (op == '*' && is_whole(a) && value_is_text(b))
        return repeat(p, b, whole_of(a));
    if (!is_number(a) || !is_number(b))
        return value_fail(p, GT_MISMATCH, "%s and %s cannot be combined so", value_kind_name(a), value_kind_name(b));
    const double x = number_of(a), y = number_of(b);
    if ((op == '/' || op == OP_FLOOR || op == '%') && y == 0.0)
        return value_fail(p, GT_MISMATCH, "a division by zero");
    if (is_whole(a) && is_whole(b) && op != '/' && !(op == OP_POWER && y < 0.0))
        return whole_result(p, op, whole_of(a), whole_of(b));
    const double r = op == '+'        ? x + y
                     : op == '-'      ? x - y
                     : op == '*'      ? x * y
                     : op == '/'      ? x / y
                     : op == OP_FLOOR ? floor(x / y)
                     : op == '%'      ? x - y * floor(x / y)
                                      : pow(x, y);
    return isfinite(r) ? value_of(p, json_real(r)) : value_fail(p, GT_MISMATCH, "a number that is not finite");
}

static int is_in(value_pool *p, const value *a, const value *b)
{
    if (value_is_text(b) && value_is_text(a))
        return find(text_of(b), size_of(b), text_of(a), size_of(a)) != NULL;
    if (is_dict(b))
        return value_is_text(a) && json_object_getn(b->json, text_of(a), size_of(a)) != NULL;
    if (!is_list(b) && b->kind != VALUE_UNDEFINED)
        value_fail(p, GT_MISMATCH, "%s in %s", value_kind_name(a), value_kind_name(b));
    for (size_t i = 0; is_list(b) && i < json_array_size(b->json); i++) {
        const value item = value_borrowed(json_array_get(b->json, i));
        if (value_equal(a, &item))
            return 1;
    }
    return 0;
}

value value_compare(value_pool *p, int op, const value *a, const value *b)
{
    if (op == OP_EQUAL || op == OP_UNEQUAL)
        return value_bool(value_equal(a, b) == (op == OP_EQUAL));
    if (op == OP_IN || op == OP_NOT_IN)
        return value_bool(is_in(p, a, b) == (op == OP_IN));
    double order;
    if (is_number(a) && is_number(b)) {
        order = number_of(a) - number_of(b);
    } else if (value_is_text(a) && value_is_text(b)) {
        const size_t n = size_of(a) < size_of(b) ? size_of(a) : size_of(b);
        const int c = memcmp(text_of(a), text_of(b), n);
        order = c ? c : (double)size_of(a) - (double)size_of(b);
    } else {
        return value_fail(p, GT_MISMATCH, "%s and %s have no order", value_kind_name(a), value_kind_name(b));
    }
    return value_bool(op == '<' ? order < 0 : op == '>' ? order > 0 : op == OP_AT_MOST ? order <= 0 : order >= 0);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

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
static void put_json(value_pool *p, gt_text *out, json_t *x, int indent, int depth)
{
    const char *key, *between = indent >= 0 ? "," : ", ";
    json_t *item;
    size_t i, n = 0;
    value v = value_borrowed(x);
    if (depth > DEPTH_MOST)
        value_fail(p, GT_UNSUPPORTED, "JSON nested more than %d deep", DEPTH_MOST);
    if (p->st)
        return;
    if (json_is_object(x)) {
        gt_text_put(out, "{", 1);
        json_object_foreach(x, key, item) {
            gt_text_printf(out, "%s", n++ ? between : "");
            put_line(out, indent, depth + 1);
            put_json_text(out, key, strlen(key));
            gt_text_put(out, ": ", 2);
            put_json(p, out, item, indent, depth + 1);
        }
        if (n)
            put_line(out, indent, depth);
        gt_text_put(out, "}", 1);
    } else if (json_is_array(x)) {
        gt_text_put(out, "[", 1);
        json_array_foreach(x, i, item) {
            gt_text_printf(out, "%s", i ? between : "");
            put_line(out, indent, depth + 1);
            put_json(p, out, item, indent, depth + 1);
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

/* ---- filters, tests, methods --------------------------------------------------------------------------------------- */

static const value *argument(const value_arguments *a, int place, const char *name)
{
    if (place >= 0 && place < a->count)
        return &a->by_place[place];
    for (int i = 0; i < a->named; i++)
        if (!strcmp(a->names[i], name))
            return &a->by_name[i];
    return NULL;
}

static const value *text_argument(value_pool *p, const value_arguments *a, int place, const char *name)
{
    const value *v = argument(a, place, name);
    if (!v || !value_is_text(v)) {
        value_fail(p, GT_MISMATCH, "a text is wanted as argument '%s'", name);
        return NULL;
    }
    return v;
}

static json_int_t whole_argument(value_pool *p, const value_arguments *a, int place, const char *name,
                                 json_int_t otherwise)
{
    const value *v = argument(a, place, name);
    if (!v || is(v, JSON_NULL))
        return otherwise;
    if (!is_whole(v))
        value_fail(p, GT_MISMATCH, "a whole number is wanted as argument '%s'", name);
    return p->st ? otherwise : whole_of(v);
}

static value to_text(value_pool *p, const value *v)
{
    gt_text out = { 0 };
    value_print(p, v, &out);
    return take_text(p, &out);
}

static value filter_tojson(value_pool *p, const value *v, const value_arguments *a)
{
    gt_text out = { 0 };
    const json_int_t indent = whole_argument(p, a, -1, "indent", a->count > 1 ? whole_of(&a->by_place[1]) : -1);
    for (int i = 0; i < a->named; i++)
        if (strcmp(a->names[i], "indent") && strcmp(a->names[i], "ensure_ascii"))
            return value_fail(p, GT_UNSUPPORTED, "tojson(%s=...) is not supported", a->names[i]);
    const value *ascii = argument(a, 0, "ensure_ascii");
    if (ascii && value_true(ascii))
        return value_fail(p, GT_UNSUPPORTED, "tojson(ensure_ascii=true) is not supported");
    if (v->kind != VALUE_JSON)
        return value_fail(p, GT_MISMATCH, "%s is no JSON", value_kind_name(v));
    put_json(p, &out, v->json, indent > 16 ? 16 : (int)indent, 0);
    return take_text(p, &out);
}

static value filter_join(value_pool *p, const value *v, const value_arguments *a)
{
    gt_text out = { 0 };
    json_t *items = value_items(p, v);
    const value *by = argument(a, 0, "d");
    if (argument(a, 1, "attribute"))
        value_fail(p, GT_UNSUPPORTED, "join(attribute=...) is not supported");
    for (size_t i = 0; i < json_array_size(items) && !p->st; i++) {
        const value item = value_borrowed(json_array_get(items, i));
        if (i && by)
            value_print(p, by, &out);
        value_print(p, &item, &out);
    }
    return take_text(p, &out);
}

static value filter_items(value_pool *p, const value *v)
{
    const char *key;
    json_t *item, *list = json_array();
    if (v->kind != VALUE_UNDEFINED && !is_dict(v)) {
        json_decref(list);
        return value_fail(p, GT_MISMATCH, "%s has no items", value_kind_name(v));
    }
    if (is_dict(v))
        json_object_foreach(v->json, key, item)
            json_array_append_new(list, json_pack("[sO]", key, item));
    return value_of(p, list);
}

static value filter_reverse(value_pool *p, const value *v)
{
    const value step[3] = { value_undefined(), value_undefined(), value_int(p, -1) };
    const value list = value_is_text(v) ? *v : value_borrowed(value_items(p, v));
    return p->st ? value_undefined() : value_slice(p, &list, step);
}

/* Of a path such as "function.name". */
static value attribute_of(value_pool *p, const value *item, const value *path)
{
    value at = *item;
    const char *s = text_of(path);
    while (!p->st && at.kind != VALUE_UNDEFINED) {
        char part[64];
        const size_t n = strcspn(s, ".");
        snprintf(part, sizeof part, "%.*s", (int)(n < 63 ? n : 63), s);
        at = value_attribute(p, &at, part);
        if (!s[n])
            break;
        s += n + 1;
    }
    return at;
}

/* by_attribute: the first argument names it; then the test and its arguments. */
static value filter_select(value_pool *p, const value *v, const value_arguments *a, int by_attribute, int keep)
{
    json_t *items = value_items(p, v);
    const value *path = by_attribute ? text_argument(p, a, 0, "attribute") : NULL;
    const value *test = argument(a, by_attribute, "test");
    value_arguments rest = { 0 };
    value list = value_of(p, json_array());
    for (int i = by_attribute + 1; i < a->count; i++)
        rest.by_place[rest.count++] = a->by_place[i];
    if (test && !value_is_text(test))
        value_fail(p, GT_MISMATCH, "the name of a test is no text");
    for (size_t i = 0; !p->st && i < json_array_size(items); i++) {
        const value item = value_borrowed(json_array_get(items, i));
        const value of_it = path ? attribute_of(p, &item, path) : item;
        const value fits = test ? value_test(p, text_of(test), &of_it, &rest) : of_it;
        if (!p->st && value_true(&fits) == keep)
            json_array_append(list.json, item.json);
    }
    return list;
}

static value filter_map(value_pool *p, const value *v, const value_arguments *a)
{
    json_t *items = value_items(p, v);
    const value *path = argument(a, -1, "attribute");
    value list = value_of(p, json_array());
    value_arguments none = { 0 };
    if (!path)
        text_argument(p, a, 0, "filter");
    else if (!value_is_text(path))
        value_fail(p, GT_MISMATCH, "map(attribute=...) by %s", value_kind_name(path));
    for (size_t i = 0; !p->st && i < json_array_size(items); i++) {
        const value item = value_borrowed(json_array_get(items, i));
        const value made = path ? attribute_of(p, &item, path)
                                : value_filter(p, text_of(&a->by_place[0]), &item, &none);
        if (!p->st && made.kind != VALUE_JSON)
            value_fail(p, GT_UNSUPPORTED, "map() to what is %s is not supported", value_kind_name(&made));
        if (!p->st)
            json_array_append(list.json, made.json);
    }
    return list;
}

static value filter_number(value_pool *p, const value *v, int whole)
{
    char *end;
    if (is_number(v))
        return whole ? value_int(p, is(v, JSON_REAL) ? (json_int_t)json_real_value(v->json) : whole_of(v))
                     : value_of(p, json_real(number_of(v)));
    if (!value_is_text(v))
        return whole ? value_int(p, 0) : value_of(p, json_real(0.0));
    const double x = strtod(text_of(v), &end);
    const int good = end != text_of(v) && !*end && isfinite(x) && fabs(x) < 9e15;
    return whole ? value_int(p, good ? (json_int_t)x : 0) : value_of(p, json_real(good ? x : 0.0));
}

static const char *const filters[] = {
    "trim",    "length",     "count",      "tojson",     "upper", "lower", "default", "d",      "first",
    "last",    "join",       "replace",    "string",     "int",   "float", "list",    "title",  "items",
    "reverse", "capitalize", "selectattr", "rejectattr", "map",   "safe",  "abs",     "select", "reject"
};
static const char *const tests[] = {
    "defined",  "undefined", "none",        "string", "number",  "integer", "float", "boolean", "mapping",
    "sequence", "iterable",  "true",        "false",  "equalto", "eq",      "==",    "ne",      "in",
    "odd",      "even",      "divisibleby", "sameas", "lt",      "gt",      "le",    "ge"
};

static int listed(const char *const *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i], name))
            return 1;
    return 0;
}

int value_has_filter(const char *name)
{
    return listed(filters, sizeof filters / sizeof *filters, name);
}

int value_has_test(const char *name)
{
    return listed(tests, sizeof tests / sizeof *tests, name);
}

/* Those that take anything that has a form as text. */
static value text_filter(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    const value t = to_text(p, v);
    if (p->st)
        return t;
    if (!strcmp(name, "trim")) {
        const value *set = argument(a, 0, "chars");
        return strip(p, &t, set && value_is_text(set) ? set : NULL, 1, 1);
    }
    if (!strcmp(name, "replace")) {
        const value *old = text_argument(p, a, 0, "old"), *new = text_argument(p, a, 1, "new");
        const json_int_t most = whole_argument(p, a, 2, "count", -1);
        return p->st ? t : replace(p, &t, old, new, most);
    }
    return !strcmp(name, "upper")        ? change_case(p, &t, 1)
           : !strcmp(name, "lower")      ? change_case(p, &t, 0)
           : !strcmp(name, "title")      ? change_case(p, &t, 2)
           : !strcmp(name, "capitalize") ? change_case(p, &t, 3)
                                         : t; /* string, safe */
}

value value_filter(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    if (!strcmp(name, "default") || !strcmp(name, "d")) {
        const value *otherwise = argument(a, 0, "default_value"), *falsy = argument(a, 1, "boolean");
        const int missing = v->kind == VALUE_UNDEFINED || (falsy && value_true(falsy) && !value_true(v));
        return !missing ? *v : otherwise ? *otherwise : value_text(p, "", 0);
    }
    if (!strcmp(name, "length") || !strcmp(name, "count")) {
        if (v->kind != VALUE_UNDEFINED && !is_list(v) && !is_dict(v) && !value_is_text(v))
            return value_fail(p, GT_MISMATCH, "%s has no length", value_kind_name(v));
        return value_int(p, (json_int_t)length_of(v));
    }
    if (!strcmp(name, "first") || !strcmp(name, "last")) {
        const value list = value_borrowed(value_items(p, v)), at = value_int(p, *name == 'f' ? 0 : -1);
        return p->st ? list : value_item(p, &list, &at);
    }
    if (!strcmp(name, "abs"))
        return !is_number(v) ? value_fail(p, GT_MISMATCH, "%s is no number", value_kind_name(v))
               : is_whole(v) ? value_int(p, whole_of(v) < 0 ? -whole_of(v) : whole_of(v))
                             : value_of(p, json_real(fabs(number_of(v))));
    if (!strcmp(name, "tojson"))
        return filter_tojson(p, v, a);
    if (!strcmp(name, "join"))
        return filter_join(p, v, a);
    if (!strcmp(name, "items"))
        return filter_items(p, v);
    if (!strcmp(name, "reverse"))
        return filter_reverse(p, v);
    if (!strcmp(name, "list"))
        return value_borrowed(value_items(p, v));
    if (!strncmp(name, "select", 6) || !strncmp(name, "reject", 6))
        return filter_select(p, v, a, name[6] != '\0', *name == 's');
    if (!strcmp(name, "map"))
        return filter_map(p, v, a);
    if (!strcmp(name, "int") || !strcmp(name, "float"))
        return filter_number(p, v, *name == 'i');
    if (value_has_filter(name))
        return text_filter(p, name, v, a);
    return value_fail(p, GT_UNSUPPORTED, "the filter '%s' is not supported", name);
}

value value_test(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    static const struct {
        const char *name;
        int op;
    } comparing[] = { { "equalto", OP_EQUAL }, { "eq", OP_EQUAL },   { "==", OP_EQUAL },
                      { "ne", OP_UNEQUAL },    { "in", OP_IN },      { "lt", '<' },
                      { "gt", '>' },           { "le", OP_AT_MOST }, { "ge", OP_AT_LEAST } };
    const value *other = argument(a, 0, "other");
    for (size_t i = 0; i < sizeof comparing / sizeof *comparing; i++)
        if (!strcmp(name, comparing[i].name))
            return other ? value_compare(p, comparing[i].op, v, other)
                         : value_fail(p, GT_MISMATCH, "the test '%s' wants something to compare with", name);
    if (!strcmp(name, "odd") || !strcmp(name, "even") || !strcmp(name, "divisibleby")) {
        const json_int_t by = *name == 'd' ? whole_argument(p, a, 0, "num", 0) : 2;
        if (!is_whole(v) || !by)
            return value_fail(p, GT_MISMATCH, "the test '%s' is for whole numbers", name);
        return value_bool((by == -1 ? 0 : whole_of(v) % by == 0) == (*name != 'o'));
    }
    const int same = other && (other->json == v->json || (is(v, JSON_INTEGER) && value_equal(v, other)));
    const int yes =
        !strcmp(name, "defined")     ? v->kind != VALUE_UNDEFINED
        : !strcmp(name, "undefined") ? v->kind == VALUE_UNDEFINED
        : !strcmp(name, "none")      ? is(v, JSON_NULL)
        : !strcmp(name, "string")    ? value_is_text(v)
        : !strcmp(name, "number")    ? is_number(v)
        : !strcmp(name, "integer")   ? is(v, JSON_INTEGER)
        : !strcmp(name, "float")     ? is(v, JSON_REAL)
        : !strcmp(name, "boolean")   ? is_bool(v)
        : !strcmp(name, "mapping")   ? is_dict(v)
        : !strcmp(name, "sequence") || !strcmp(name, "iterable")
            ? is_list(v) || is_dict(v) || value_is_text(v) || v->kind == VALUE_UNDEFINED
        : !strcmp(name, "true")   ? is(v, JSON_TRUE)
        : !strcmp(name, "false")  ? is(v, JSON_FALSE)
        : !strcmp(name, "sameas") ? same
                                  : -1;
    return yes < 0 ? value_fail(p, GT_UNSUPPORTED, "the test '%s' is not supported", name) : value_bool(yes);
}

static value text_method(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    const value *first = argument(a, 0, "");
    const int none = !first || is(first, JSON_NULL);
    if (!strcmp(name, "strip") || !strcmp(name, "lstrip") || !strcmp(name, "rstrip")) {
        if (!none && !text_argument(p, a, 0, "chars"))
            return value_undefined();
        return strip(p, v, none ? NULL : first, *name != 'r', *name != 'l');
    }
    if (!strcmp(name, "split")) {
        const value *by = argument(a, 0, "sep");
        const json_int_t most = whole_argument(p, a, 1, "maxsplit", -1);
        if (by && !is(by, JSON_NULL) && !value_is_text(by))
            return value_fail(p, GT_MISMATCH, "split() by %s", value_kind_name(by));
        return split(p, v, by && value_is_text(by) ? by : NULL, most);
    }
    if (!strcmp(name, "startswith") || !strcmp(name, "endswith")) {
        const value *what = text_argument(p, a, 0, "prefix");
        if (!what)
            return value_undefined();
        const size_t n = size_of(what), all = size_of(v);
        return value_bool(n <= all && !memcmp(text_of(v) + (*name == 's' ? 0 : all - n), text_of(what), n));
    }
    if (!strcmp(name, "replace") || !strcmp(name, "upper") || !strcmp(name, "lower") || !strcmp(name, "title")
        || !strcmp(name, "capitalize"))
        return text_filter(p, name, v, a);
    if (!strcmp(name, "join") && first) {
        const value_arguments by = { .count = 1, .by_place = { *v } };
        return filter_join(p, first, &by);
    }
    if (!strcmp(name, "find")) {
        const value *what = text_argument(p, a, 0, "sub");
        const char *at = what ? find(text_of(v), size_of(v), text_of(what), size_of(what)) : NULL;
        return value_int(p, at ? (json_int_t)utf8_count((const unsigned char *)text_of(v), (size_t)(at - text_of(v)))
                               : -1);
    }
    return value_fail(p, GT_UNSUPPORTED, "the method '%s' of a text is not supported", name);
}

value value_method(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    const char *key;
    json_t *item;
    if (value_is_text(v))
        return text_method(p, name, v, a);
    if (!is_dict(v))
        return value_fail(p, v->kind == VALUE_UNDEFINED ? GT_MISMATCH : GT_UNSUPPORTED, "%s has no method '%s' here",
                          value_kind_name(v), name);
    if (!strcmp(name, "items"))
        return filter_items(p, v);
    if (!strcmp(name, "keys"))
        return value_borrowed(value_items(p, v));
    if (!strcmp(name, "values")) {
        json_t *list = json_array();
        json_object_foreach(v->json, key, item)
            json_array_append(list, item);
        return value_of(p, list);
    }
    if (!strcmp(name, "get")) {
        const value *at = text_argument(p, a, 0, "key"), *otherwise = argument(a, 1, "default");
        const value got = at ? value_attribute(p, v, text_of(at)) : value_undefined();
        return got.kind != VALUE_UNDEFINED ? got : otherwise ? *otherwise : value_borrowed(json_null());
    }
    return value_fail(p, GT_UNSUPPORTED, "the method '%s' of a dictionary is not supported", name);
}
