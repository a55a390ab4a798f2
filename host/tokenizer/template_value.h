/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_value.h - values of a template that is being rendered, and what can be done with them.
 *
 * For template.c alone. Values are JSON, undefined, a namespace or the state of a loop. All JSON that rendering makes
 * stays until the end, in a pool whose size is bounded, so nobody counts references.      */
#ifndef GT_TOKENIZER_TEMPLATE_VALUE_H
#define GT_TOKENIZER_TEMPLATE_VALUE_H

#include "host/base/status.h"
#include "host/base/text.h"

#include <jansson.h>

typedef enum value_kind { VALUE_UNDEFINED, VALUE_JSON, VALUE_NAMESPACE, VALUE_LOOP } value_kind;

typedef struct value_loop {
    json_t *items;
    size_t at, count;
} value_loop;

typedef struct value {
    value_kind kind;
    json_t *json;                       /* JSON, NAMESPACE (an object) */
    const value_loop *loop;
} value;

/* What a rendering has at hand. Once st is not 0 nothing more is computed. */
typedef struct value_pool {
    gt_status st;
    const char *name;                   /* of the template */
    int line;                           /* that is being computed */
    json_t **made;
    size_t count, room, bytes;
    unsigned long long steps;
} value_pool;

enum { VALUE_ARGUMENTS = 8 };
typedef struct value_arguments {
    int count;                          /* by place */
    value by_place[VALUE_ARGUMENTS];
    int named;
    const char *names[VALUE_ARGUMENTS];
    value by_name[VALUE_ARGUMENTS];
} value_arguments;

/* Fails with name and line in front; gives undefined. */
value value_fail(value_pool *p, gt_status st, const char *format, ...) __attribute__((format(printf, 3, 4)));
void value_pool_release(value_pool *p);

value value_undefined(void);
value value_of(value_pool *p, json_t *made);            /* takes the reference over */
value value_borrowed(json_t *json);                     /* of what lives as long as the pool */
value value_text(value_pool *p, const char *data, size_t size);
value value_bool(int yes);
value value_int(value_pool *p, json_int_t i);

const char *value_kind_name(const value *v);
int value_is_text(const value *v);
int value_true(const value *v);
int value_equal(const value *a, const value *b);
/* As {{ }} prints it. */
void value_print(value_pool *p, const value *v, gt_text *out);

value value_attribute(value_pool *p, const value *v, const char *name);
value value_item(value_pool *p, const value *v, const value *at);
value value_slice(value_pool *p, const value *v, const value bound[3]);      /* undefined: left out */
/* An array of what a loop goes over. */
json_t *value_items(value_pool *p, const value *v);
value value_binary(value_pool *p, int op, const value *a, const value *b);
value value_compare(value_pool *p, int op, const value *a, const value *b);

/* op of value_binary and value_compare: one character, or of these. */
enum { OP_FLOOR = 256, OP_POWER, OP_EQUAL, OP_UNEQUAL, OP_AT_MOST, OP_AT_LEAST, OP_IN, OP_NOT_IN };

value value_filter(value_pool *p, const char *name, const value *v, const value_arguments *a);
value value_test(value_pool *p, const char *name, const value *v, const value_arguments *a);
value value_method(value_pool *p, const char *name, const value *v, const value_arguments *a);
/* Are they known? For templates that are read. */
int value_has_filter(const char *name);
int value_has_test(const char *name);

#endif
