/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_value_private.h - what the files that compute with a template's values share.
 *
 *   template_value.c    what values are, attributes, operators
 *   template_text.c     texts
 *   template_filter.c   filters, tests, methods
 */
#ifndef GT_TOKENIZER_TEMPLATE_VALUE_PRIVATE_H
#define GT_TOKENIZER_TEMPLATE_VALUE_PRIVATE_H

#include "host/tokenizer/template_value.h"

#define VALUE_BYTES_MOST ((size_t)256 << 20) /* of all values that a rendering makes */
enum { VALUE_DEPTH_MOST = 100 };

/* ---- what a value is -------------------------------------------------------------------------------- */

int value_is(const value *v, json_type type);
int value_is_list(const value *v);
int value_is_dict(const value *v);
int value_is_bool(const value *v);
int value_is_whole(const value *v);     /* so is a truth value, as in Python */
int value_is_number(const value *v);
/* Of what they are asked for after the question above. */
json_int_t value_whole(const value *v);
double value_number(const value *v);
const char *value_chars(const value *v);
size_t value_size(const value *v);      /* bytes */
size_t value_length(const value *v);    /* characters, entries */

/* A text as a value; takes it over. */
value value_taking(value_pool *p, gt_text *t);

/* ---- texts ------------------------------------------------------------------------------------------ */

/* set NULL: white space. */
value text_strip(value_pool *p, const value *v, const value *set, int left, int right);
/* upper: 1; lower: 0; 2: upper at the beginning of words, as title has it; 3: of the text. */
value text_case(value_pool *p, const value *v, int how);
const char *text_find(const char *in, size_t size, const char *what, size_t n);        /* NULL: not in it */
/* most: how many at most, -1: all. */
value text_replace(value_pool *p, const value *v, const value *old, const value *new, json_int_t most);
/* by NULL: words between white space. */
value text_split(value_pool *p, const value *v, const value *by, json_int_t most);
/* The character with an index, from the end if it is below 0; undefined if there is none. */
value text_character(value_pool *p, const value *v, json_int_t at);
/* As json.dumps(x, ensure_ascii=False, indent=...); indent -1: on one line. depth: 0. */
void text_json(value_pool *p, gt_text *out, json_t *x, int indent, int depth);

#endif
