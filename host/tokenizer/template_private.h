/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_private.h - what the files of chat templates share.
 *
 *   source ── template_lex.c ──► tokens ── template_parse.c ──► nodes ── template.c ──► text
 */
#ifndef GT_TOKENIZER_TEMPLATE_PRIVATE_H
#define GT_TOKENIZER_TEMPLATE_PRIVATE_H

#include "host/tokenizer/template.h"
#include "host/tokenizer/template_value.h"

enum { TEMPLATE_BYTES = 1 << 20, TEMPLATE_DEPTH = 200 };

/* ---- tokens -------------------------------------------------------------------------------------- */

typedef enum token_type {
    TOKEN_DATA,             /* text outside of tags */
    TOKEN_BLOCK,            /* {% */
    TOKEN_BLOCK_END,
    TOKEN_PRINT,            /* {{ */
    TOKEN_PRINT_END,
    TOKEN_NAME,
    TOKEN_STRING,           /* its value */
    TOKEN_INTEGER,
    TOKEN_REAL,
    TOKEN_OPERATOR,
    TOKEN_LAST
} token_type;

typedef struct token {
    token_type type;
    int line;
    char *text;             /* owned; with its size, as a text may hold zeros */
    size_t size;
} token;

typedef struct token_list {
    token *tokens;          /* the last is TOKEN_LAST */
    size_t count, room;
} token_list;

gt_status template_lex(token_list *out, const char *source, size_t size, const char *name);
void token_list_release(token_list *l);

/* ---- nodes ----------------------------------------------------------------------------------------- */

typedef enum node_type {
    /* statements */
    NODE_DATA,              /* text */
    NODE_PRINT,             /* a */
    NODE_IF,                /* a: condition; body; other */
    NODE_FOR,               /* text: name, second: of a pair; a: over; b: only if; body; other: if there was none */
    NODE_SET,               /* text: name, second: attribute of a namespace; a: value, or body */
    NODE_GENERATION,        /* body */
    NODE_BREAK,
    NODE_CONTINUE,
    /* expressions */
    NODE_CONSTANT,          /* json */
    NODE_NAME,              /* text */
    NODE_ATTRIBUTE,         /* a.text */
    NODE_ITEM,              /* a[b] */
    NODE_SLICE,             /* a[body, next, next: bounds, NULL type NODE_NOTHING] */
    NODE_CALL,              /* text: function, or method of a; body: arguments */
    NODE_FILTER,            /* a | text(body) */
    NODE_TEST,              /* a is text(body) */
    NODE_LIST,              /* body */
    NODE_DICT,              /* body: keys and values in turns */
    NODE_NOT,
    NODE_NEGATE,
    NODE_AND,
    NODE_OR,
    NODE_BINARY,            /* a op b */
    NODE_COMPARE,           /* a op b */
    NODE_CHOICE,            /* body if a else b; b may be NULL */
    NODE_NOTHING
} node_type;

typedef struct node node;
struct node {
    node_type type;
    int line, op;
    char *text, *second;    /* text: with its size */
    size_t size;
    json_t *json;
    node *a, *b, *body, *other;
    node *next;             /* in a list; an argument that has a name has it in `second` */
    node *made;             /* the one that was made before: all are released together */
};

/* Takes the tokens; *all is the chain of what was made, also on failure. */
gt_status template_read(node **out, node **all, const token_list *tokens, const char *name);
void template_nodes_release(node *all);

#endif
