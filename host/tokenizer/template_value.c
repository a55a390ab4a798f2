/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_value.c - values of a template: what they are, their attributes and operators, as Python and jinja2 have them.
 *
 * Text is indexed, sliced and measured in characters, not bytes. Bounds: what a rendering makes in all, and how
 * much it does; a template cannot take all memory or run for ever.                      */
#include "host/tokenizer/template_value_private.h"

#include "host/tokenizer/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANGE_MOST = 100000 };

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
    if (p->bytes > VALUE_BYTES_MOST)
        return value_fail(p, GT_UNSUPPORTED, "it makes more than %zu MiB of text", VALUE_BYTES_MOST >> 20);
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
value value_taking(value_pool *p, gt_text *t)
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

int value_is(const value *v, json_type type)
{
    return v->kind == VALUE_JSON && json_typeof(v->json) == type;
}

int value_is_text(const value *v)
{
    return value_is(v, JSON_STRING);
}

int value_is_list(const value *v)
{
    return value_is(v, JSON_ARRAY);
}

int value_is_dict(const value *v)
{
    return value_is(v, JSON_OBJECT);
}

int value_is_bool(const value *v)
{
    return value_is(v, JSON_TRUE) || value_is(v, JSON_FALSE);
}

/* Python's booleans are whole numbers. */
int value_is_whole(const value *v)
{
    return value_is(v, JSON_INTEGER) || value_is_bool(v);
}

int value_is_number(const value *v)
{
    return value_is_whole(v) || value_is(v, JSON_REAL);
}

json_int_t value_whole(const value *v)
{
    return value_is(v, JSON_INTEGER) ? json_integer_value(v->json) : value_is(v, JSON_TRUE);
}

double value_number(const value *v)
{
    return value_is(v, JSON_REAL) ? json_real_value(v->json) : (double)value_whole(v);
}

const char *value_chars(const value *v)
{
    return json_string_value(v->json);
}

size_t value_size(const value *v)
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

size_t value_length(const value *v)
{
    return value_is_list(v)   ? json_array_size(v->json)
           : value_is_dict(v) ? json_object_size(v->json)
           : value_is_text(v) ? (size_t)utf8_count((const unsigned char *)value_chars(v), value_size(v))
                              : 0;
}

int value_true(const value *v)
{
    if (v->kind != VALUE_JSON)
        return v->kind != VALUE_UNDEFINED;
    if (value_is_number(v))
        return value_number(v) != 0.0;
    return value_is_list(v) || value_is_dict(v) || value_is_text(v) ? value_length(v) > 0 : 0;
}

int value_equal(const value *a, const value *b)
{
    if (a->kind != VALUE_JSON || b->kind != VALUE_JSON)
        return a->kind == VALUE_UNDEFINED && b->kind == VALUE_UNDEFINED;
    if (value_is_whole(a) && value_is_whole(b))
        return value_whole(a) == value_whole(b);
    if (value_is_number(a) && value_is_number(b))
        return value_number(a) == value_number(b);
    if (!value_is_list(a) || !value_is_list(b))
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
        gt_text_put(out, value_chars(v), value_size(v));
    else if (value_is(v, JSON_INTEGER))
        gt_text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v->json));
    else if (value_is(v, JSON_REAL))
        print_real(out, json_real_value(v->json));
    else if (value_is_bool(v) || value_is(v, JSON_NULL))
        gt_text_printf(out, "%s", value_is(v, JSON_TRUE) ? "True" : value_is(v, JSON_FALSE) ? "False" : "None");
    else
        value_fail(p, GT_UNSUPPORTED, "printing %s is not supported; print it with | tojson", value_kind_name(v));
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
    return v->kind == VALUE_NAMESPACE || value_is_dict(v)
               ? value_borrowed(json_object_get(v->json, name))
               : value_undefined();
}

value value_item(value_pool *p, const value *v, const value *at)
{
    if (v->kind == VALUE_UNDEFINED)
        return value_fail(p, GT_MISMATCH, "there is nothing of which an item could be asked");
    if (value_is_text(at) && (value_is_dict(v) || v->kind != VALUE_JSON))
        return value_attribute(p, v, value_chars(at));
    if (!value_is_whole(at) || (!value_is_list(v) && !value_is_text(v)))
        return value_undefined();
    json_int_t i = value_whole(at);
    if (value_is_text(v))
        return text_character(p, v, i);
    i += i < 0 ? (json_int_t)json_array_size(v->json) : 0;
    return i < 0 ? value_undefined() : value_borrowed(json_array_get(v->json, (size_t)i));
}

/* A bound of a slice, within [low, high]. */
static json_int_t bound_of(const value *v, json_int_t count, json_int_t otherwise, json_int_t low, json_int_t high)
{
    if (!value_is_whole(v))
        return otherwise;
    json_int_t i = value_whole(v);
    i += i < 0 ? count : 0;
    return i < low ? low : i > high ? high : i;
}

value value_slice(value_pool *p, const value *v, const value bound[3])
{
    if (!value_is_list(v) && !value_is_text(v))
        return value_fail(p, GT_MISMATCH, "%s cannot be sliced", value_kind_name(v));
    for (int i = 0; i < 3; i++)
        if (bound[i].kind != VALUE_UNDEFINED && !value_is_whole(&bound[i]) && !value_is(&bound[i], JSON_NULL))
            return value_fail(p, GT_MISMATCH, "a slice by %s", value_kind_name(&bound[i]));
    const json_int_t count = (json_int_t)value_length(v), step = value_is_whole(&bound[2]) ? value_whole(&bound[2]) : 1;
    if (!step)
        return value_fail(p, GT_MISMATCH, "a slice in steps of 0");
    const json_int_t low = step < 0 ? -1 : 0, high = step < 0 ? count - 1 : count;
    const json_int_t from = bound_of(&bound[0], count, step < 0 ? high : low, low, high);
    const json_int_t to = bound_of(&bound[1], count, step < 0 ? low : high, low, high);
    if (value_is_text(v) && step == 1) {
        const unsigned char *s = (const unsigned char *)value_chars(v);
        const size_t a = utf8_offset(s, value_size(v), (uint64_t)from);
        const size_t b = to > from ? utf8_offset(s, value_size(v), (uint64_t)to) : a;
        return value_text(p, (const char *)s + a, b - a);
    }
    gt_text text = { 0 };
    json_t *list = json_array();
    for (json_int_t i = from; (step < 0 ? i > to : i < to) && !p->st;) {
        if (value_is_list(v))
            json_array_append(list, json_array_get(v->json, (size_t)i));
        else {
            const value c = text_character(p, v, i);
            if (!p->st)
                gt_text_put(&text, value_chars(&c), value_size(&c));
        }
        if (step > 0 ? step >= to - i : step <= to - i)
            break;
        i += step;
    }
    if (value_is_list(v)) {
        gt_text_release(&text);
        return value_of(p, list);
    }
    json_decref(list);
    return value_taking(p, &text);
}

json_t *value_items(value_pool *p, const value *v)
{
    const char *key;
    json_t *item;
    if (value_is_list(v))
        return v->json;
    value list = value_of(p, json_array());
    if (p->st)
        return NULL;
    if (value_is_dict(v)) {
        json_object_foreach(v->json, key, item)
            json_array_append_new(list.json, json_string(key));
    } else if (value_is_text(v)) {
        for (size_t i = 0, n = value_length(v); i < n && !p->st; i++) {
            const value c = text_character(p, v, (json_int_t)i);
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
    return value_taking(p, &out);
}

static value repeat(value_pool *p, const value *v, json_int_t times)
{
    gt_text out = { 0 };
    if (times > 0 && value_size(v) && (size_t)times > VALUE_BYTES_MOST / value_size(v))
        return value_fail(p, GT_UNSUPPORTED, "a text repeated %" JSON_INTEGER_FORMAT " times", times);
    for (json_int_t i = 0; i < times && value_size(v); i++)
        gt_text_put(&out, value_chars(v), value_size(v));
    return value_taking(p, &out);
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
    if (op == '+' && value_is_list(a) && value_is_list(b)) {
        json_t *list = json_copy(a->json);
        if (list)
            json_array_extend(list, b->json);
        return value_of(p, list);
    }
    if (op == '*' && value_is_text(a) && value_is_whole(b))
        return repeat(p, a, value_whole(b));
    if (op == '*' && value_is_whole(a) && value_is_text(b))
        return repeat(p, b, value_whole(a));
    if (!value_is_number(a) || !value_is_number(b))
        return value_fail(p, GT_MISMATCH, "%s and %s cannot be combined so", value_kind_name(a), value_kind_name(b));
    const double x = value_number(a), y = value_number(b);
    if ((op == '/' || op == OP_FLOOR || op == '%') && y == 0.0)
        return value_fail(p, GT_MISMATCH, "a division by zero");
    if (value_is_whole(a) && value_is_whole(b) && op != '/' && !(op == OP_POWER && y < 0.0))
        return whole_result(p, op, value_whole(a), value_whole(b));
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
        return text_find(value_chars(b), value_size(b), value_chars(a), value_size(a)) != NULL;
    if (value_is_dict(b))
        return value_is_text(a) && json_object_getn(b->json, value_chars(a), value_size(a)) != NULL;
    if (!value_is_list(b) && b->kind != VALUE_UNDEFINED)
        value_fail(p, GT_MISMATCH, "%s in %s", value_kind_name(a), value_kind_name(b));
    for (size_t i = 0; value_is_list(b) && i < json_array_size(b->json); i++) {
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
    if (value_is_number(a) && value_is_number(b)) {
        order = value_number(a) - value_number(b);
    } else if (value_is_text(a) && value_is_text(b)) {
        const size_t n = value_size(a) < value_size(b) ? value_size(a) : value_size(b);
        const int c = memcmp(value_chars(a), value_chars(b), n);
        order = c ? c : (double)value_size(a) - (double)value_size(b);
    } else {
        return value_fail(p, GT_MISMATCH, "%s and %s have no order", value_kind_name(a), value_kind_name(b));
    }
    return value_bool(op == '<' ? order < 0 : op == '>' ? order > 0 : op == OP_AT_MOST ? order <= 0 : order >= 0);
}
