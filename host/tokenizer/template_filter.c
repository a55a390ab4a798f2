/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_filter.c - filters, tests and methods of templates, each by its name.
 *
 *   {{ value | filter(arguments) }}     {% if value is test %}     {{ value.method(arguments) }}
 *
 * What jinja2 has and this has not is refused by name when the template is read. */
#include "host/tokenizer/template_value_private.h"

#include "host/tokenizer/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    if (!v || value_is(v, JSON_NULL))
        return otherwise;
    if (!value_is_whole(v))
        value_fail(p, GT_MISMATCH, "a whole number is wanted as argument '%s'", name);
    return p->st ? otherwise : value_whole(v);
}

static value to_text(value_pool *p, const value *v)
{
    gt_text out = { 0 };
    value_print(p, v, &out);
    return value_taking(p, &out);
}

static value filter_tojson(value_pool *p, const value *v, const value_arguments *a)
{
    gt_text out = { 0 };
    const json_int_t indent = whole_argument(p, a, -1, "indent", a->count > 1 ? value_whole(&a->by_place[1]) : -1);
    for (int i = 0; i < a->named; i++)
        if (strcmp(a->names[i], "indent") && strcmp(a->names[i], "ensure_ascii"))
            return value_fail(p, GT_UNSUPPORTED, "tojson(%s=...) is not supported", a->names[i]);
    const value *ascii = argument(a, 0, "ensure_ascii");
    if (ascii && value_true(ascii))
        return value_fail(p, GT_UNSUPPORTED, "tojson(ensure_ascii=true) is not supported");
    if (v->kind != VALUE_JSON)
        return value_fail(p, GT_MISMATCH, "%s is no JSON", value_kind_name(v));
    text_json(p, &out, v->json, indent > 16 ? 16 : (int)indent, 0);
    return value_taking(p, &out);
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
    return value_taking(p, &out);
}

static value filter_items(value_pool *p, const value *v)
{
    const char *key;
    json_t *item, *list = json_array();
    if (v->kind != VALUE_UNDEFINED && !value_is_dict(v)) {
        json_decref(list);
        return value_fail(p, GT_MISMATCH, "%s has no items", value_kind_name(v));
    }
    if (value_is_dict(v))
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
    const char *s = value_chars(path);
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
        const value fits = test ? value_test(p, value_chars(test), &of_it, &rest) : of_it;
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
                                : value_filter(p, value_chars(&a->by_place[0]), &item, &none);
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
    if (value_is_number(v))
        return whole ? value_int(p, value_is(v, JSON_REAL) ? (json_int_t)json_real_value(v->json) : value_whole(v))
                     : value_of(p, json_real(value_number(v)));
    if (!value_is_text(v))
        return whole ? value_int(p, 0) : value_of(p, json_real(0.0));
    const double x = strtod(value_chars(v), &end);
    const int good = end != value_chars(v) && !*end && isfinite(x) && fabs(x) < 9e15;
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
        return text_strip(p, &t, set && value_is_text(set) ? set : NULL, 1, 1);
    }
    if (!strcmp(name, "replace")) {
        const value *old = text_argument(p, a, 0, "old"), *new = text_argument(p, a, 1, "new");
        const json_int_t most = whole_argument(p, a, 2, "count", -1);
        return p->st ? t : text_replace(p, &t, old, new, most);
    }
    return !strcmp(name, "upper")        ? text_case(p, &t, 1)
           : !strcmp(name, "lower")      ? text_case(p, &t, 0)
           : !strcmp(name, "title")      ? text_case(p, &t, 2)
           : !strcmp(name, "capitalize") ? text_case(p, &t, 3)
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
        if (v->kind != VALUE_UNDEFINED && !value_is_list(v) && !value_is_dict(v) && !value_is_text(v))
            return value_fail(p, GT_MISMATCH, "%s has no length", value_kind_name(v));
        return value_int(p, (json_int_t)value_length(v));
    }
    if (!strcmp(name, "first") || !strcmp(name, "last")) {
        const value list = value_borrowed(value_items(p, v)), at = value_int(p, *name == 'f' ? 0 : -1);
        return p->st ? list : value_item(p, &list, &at);
    }
    if (!strcmp(name, "abs"))
        return !value_is_number(v) ? value_fail(p, GT_MISMATCH, "%s is no number", value_kind_name(v))
               : value_is_whole(v) ? value_int(p, value_whole(v) < 0 ? -value_whole(v) : value_whole(v))
                                   : value_of(p, json_real(fabs(value_number(v))));
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
        if (!value_is_whole(v) || !by)
            return value_fail(p, GT_MISMATCH, "the test '%s' is for whole numbers", name);
        return value_bool((by == -1 ? 0 : value_whole(v) % by == 0) == (*name != 'o'));
    }
    const int same = other && (other->json == v->json || (value_is(v, JSON_INTEGER) && value_equal(v, other)));
    const int yes =
        !strcmp(name, "defined")     ? v->kind != VALUE_UNDEFINED
        : !strcmp(name, "undefined") ? v->kind == VALUE_UNDEFINED
        : !strcmp(name, "none")      ? value_is(v, JSON_NULL)
        : !strcmp(name, "string")    ? value_is_text(v)
        : !strcmp(name, "number")    ? value_is_number(v)
        : !strcmp(name, "integer")   ? value_is(v, JSON_INTEGER)
        : !strcmp(name, "float")     ? value_is(v, JSON_REAL)
        : !strcmp(name, "boolean")   ? value_is_bool(v)
        : !strcmp(name, "mapping")   ? value_is_dict(v)
        : !strcmp(name, "sequence") || !strcmp(name, "iterable")
            ? value_is_list(v) || value_is_dict(v) || value_is_text(v) || v->kind == VALUE_UNDEFINED
        : !strcmp(name, "true")   ? value_is(v, JSON_TRUE)
        : !strcmp(name, "false")  ? value_is(v, JSON_FALSE)
        : !strcmp(name, "sameas") ? same
                                  : -1;
    return yes < 0 ? value_fail(p, GT_UNSUPPORTED, "the test '%s' is not supported", name) : value_bool(yes);
}

static value text_method(value_pool *p, const char *name, const value *v, const value_arguments *a)
{
    const value *first = argument(a, 0, "");
    const int none = !first || value_is(first, JSON_NULL);
    if (!strcmp(name, "strip") || !strcmp(name, "lstrip") || !strcmp(name, "rstrip")) {
        if (!none && !text_argument(p, a, 0, "chars"))
            return value_undefined();
        return text_strip(p, v, none ? NULL : first, *name != 'r', *name != 'l');
    }
    if (!strcmp(name, "split")) {
        const value *by = argument(a, 0, "sep");
        const json_int_t most = whole_argument(p, a, 1, "maxsplit", -1);
        if (by && !value_is(by, JSON_NULL) && !value_is_text(by))
            return value_fail(p, GT_MISMATCH, "split() by %s", value_kind_name(by));
        return text_split(p, v, by && value_is_text(by) ? by : NULL, most);
    }
    if (!strcmp(name, "startswith") || !strcmp(name, "endswith")) {
        const value *what = text_argument(p, a, 0, "prefix");
        if (!what)
            return value_undefined();
        const size_t n = value_size(what), all = value_size(v);
        return value_bool(n <= all && !memcmp(value_chars(v) + (*name == 's' ? 0 : all - n), value_chars(what), n));
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
        const char *at = what ? text_find(value_chars(v), value_size(v), value_chars(what), value_size(what)) : NULL;
        return value_int(p, at ? (json_int_t)utf8_count((const unsigned char *)value_chars(v),
                                                        (size_t)(at - value_chars(v)))
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
    if (!value_is_dict(v))
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
        const value got = at ? value_attribute(p, v, value_chars(at)) : value_undefined();
        return got.kind != VALUE_UNDEFINED ? got : otherwise ? *otherwise : value_borrowed(json_null());
    }
    return value_fail(p, GT_UNSUPPORTED, "the method '%s' of a dictionary is not supported", name);
}
