/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_parse.c - the statements and expressions of a chat template, as jinja2's grammar has them.
 *
 *   choice   or [if or [else choice]]            compare  sum {(== != < <= > >= | [not] in) sum}
 *   or       and {or and}                        sum      joined {(+ -) joined}
 *   and      not {and not}                       joined   product {~ product}
 *   not      not not | compare                   product  power {(* / // %) power}
 *   power    unary {** unary}                    unary    [-+] unary | primary {.name [item] (call)} {| filter, is test}  */
#include "host/tokenizer/template_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *name;
    const token *at;
    node *all;
    gt_status st;
    int depth, loops;
} reader;

static node *expression(reader *r);
static node *statements(reader *r, const char *const *ends);
static node *unary(reader *r, int filtered);

void template_nodes_release(node *all)
{
    while (all) {
        node *before = all->made;
        json_decref(all->json);
        free(all->text);
        free(all->second);
        free(all);
        all = before;
    }
}

static node *fail(reader *r, gt_status st, const char *format, ...)
{
    char text[256];
    va_list args;
    if (r->st)
        return NULL;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->st = gt_fail(st, "template '%s', line %d: %s", r->name, r->at->line, text);
    return NULL;
}

static node *make(reader *r, node_type type)
{
    node *n = calloc(1, sizeof *n);
    if (!n)
        return fail(r, GT_NO_MEMORY, "no memory for its statements");
    n->type = type;
    n->line = r->at->line;
    n->made = r->all;
    r->all = n;
    return n;
}

static node *make_of(reader *r, node_type type, node *a)
{
    node *n = a ? make(r, type) : NULL;
    if (n) {
        n->a = a;
        n->line = a->line;
    }
    return n;
}

static char *copy(reader *r, const char *text, size_t size)
{
    char *c = malloc(size + 1);
    if (!c) {
        fail(r, GT_NO_MEMORY, "no memory for its statements");
        return NULL;
    }
    memcpy(c, text, size + 1);
    return c;
}

/* Takes the token's text over into the node. */
static void take_text(reader *r, node *n)
{
    if (!n)
        return;
    n->text = copy(r, r->at->text, r->at->size);
    n->size = r->at->size;
    r->at++;
}

static int is_op(const reader *r, const char *op)
{
    return r->at->type == TOKEN_OPERATOR && !strcmp(r->at->text, op);
}

static int is_word(const reader *r, const char *word)
{
    return r->at->type == TOKEN_NAME && !strcmp(r->at->text, word);
}

static int take_op(reader *r, const char *op)
{
    const int is = !r->st && is_op(r, op);
    r->at += is;
    return is;
}

static int take_word(reader *r, const char *word)
{
    const int is = !r->st && is_word(r, word);
    r->at += is;
    return is;
}

static const char *shown(const reader *r)
{
    return r->at->type == TOKEN_LAST        ? "the end"
           : r->at->type == TOKEN_BLOCK_END ? "%}"
           : r->at->type == TOKEN_PRINT_END ? "}}"
           : *r->at->text                   ? r->at->text
                                            : "\"\"";
}

static void want_op(reader *r, const char *op)
{
    if (!take_op(r, op))
        fail(r, GT_FORMAT, "'%s' is wanted where '%.40s' stands", op, shown(r));
}

static node *want_name(reader *r, node_type type)
{
    if (r->at->type != TOKEN_NAME)
        return fail(r, GT_FORMAT, "a name is wanted where '%.40s' stands", shown(r));
    node *n = make(r, type);
    take_text(r, n);
    return n;
}

/* Guards recursion; 0: too deep. */
static int enter(reader *r)
{
    if (++r->depth > TEMPLATE_DEPTH)
        fail(r, GT_UNSUPPORTED, "it is nested more than %d deep", TEMPLATE_DEPTH);
    return !r->st;
}

/* ---- expressions ------------------------------------------------------------------------------------- */

/* Up to `end`, which is taken: items, or with `named` arguments. */
static node *sequence(reader *r, const char *end, int named)
{
    node *first = NULL, **last = &first;
    while (!r->st && !take_op(r, end)) {
        char *name = NULL;
        if (named && r->at->type == TOKEN_NAME && r->at[1].type == TOKEN_OPERATOR && !strcmp(r->at[1].text, "=")) {
            name = copy(r, r->at->text, r->at->size);
            r->at += 2;
        }
        if (named && is_op(r, "*"))
            fail(r, GT_UNSUPPORTED, "arguments by * are not supported");
        node *n = expression(r);
        if (!n) {
            free(name);
            return NULL;
        }
        n->second = name;
        *last = n;
        last = &n->next;
        if (!take_op(r, ",") && !is_op(r, end))
            return fail(r, GT_FORMAT, "'%s' is wanted where '%.40s' stands", end, shown(r));
    }
    return first;
}

static node *dictionary(reader *r)
{
    node *n = make(r, NODE_DICT), **last = n ? &n->body : NULL;
    while (!r->st && !take_op(r, "}")) {
        node *key = expression(r);
        want_op(r, ":");
        node *item = expression(r);
        if (!key || !item)
            return NULL;
        *last = key;
        key->next = item;
        last = &item->next;
        if (!take_op(r, ",") && !is_op(r, "}"))
            return fail(r, GT_FORMAT, "'}' is wanted where '%.40s' stands", shown(r));
    }
    return n;
}

/* ( a ) is a; ( a, b ) a list. */
static node *in_brackets(reader *r)
{
    node *first;
    if (take_op(r, ")"))
        return make(r, NODE_LIST);
    first = expression(r);
    if (!first || !is_op(r, ",")) {
        want_op(r, ")");
        return first;
    }
    node *n = make(r, NODE_LIST);
    take_op(r, ",");
    if (n) {
        n->body = first;
        first->next = sequence(r, ")", 0);
    }
    return n;
}

static node *constant(reader *r, json_t *json)
{
    node *n = make(r, NODE_CONSTANT);
    if (n)
        n->json = json;
    else
        json_decref(json);
    return n && !json ? fail(r, GT_FORMAT, "a text that is no UTF-8, or a number that is too large") : n;
}

static node *string(reader *r)
{
    gt_text text = { 0 };
    for (; r->at->type == TOKEN_STRING; r->at++)
        gt_text_put(&text, r->at->text, r->at->size);
    node *n = constant(r, text.failed ? NULL : json_stringn(text.data ? text.data : "", text.size));
    gt_text_release(&text);
    return n;
}

static node *number(reader *r)
{
    const token *t = r->at++;
    json_t *json = t->type == TOKEN_REAL   ? json_real(strtod(t->text, NULL))
                   : strlen(t->text) <= 18 ? json_integer(strtoll(t->text, NULL, 10))
                                           : NULL;
    return constant(r, json);
}

static node *primary(reader *r)
{
    static const char *const words[] = { "true", "True", "false", "False", "none", "None" };
    if (r->st)
        return NULL;
    if (r->at->type == TOKEN_STRING)
        return string(r);
    if (r->at->type == TOKEN_INTEGER || r->at->type == TOKEN_REAL)
        return number(r);
    for (int i = 0; i < 6; i++)
        if (take_word(r, words[i]))
            return constant(r, i < 2 ? json_true() : i < 4 ? json_false() : json_null());
    if (r->at->type == TOKEN_NAME)
        return want_name(r, NODE_NAME);
    if (take_op(r, "("))
        return in_brackets(r);
    if (take_op(r, "[")) {
        node *n = make(r, NODE_LIST);
        if (n)
            n->body = sequence(r, "]", 0);
        return n;
    }
    if (take_op(r, "{"))
        return dictionary(r);
    return fail(r, GT_FORMAT, "an expression is wanted where '%.40s' stands", shown(r));
}

/* Behind "[": an item, or a slice, whose bounds are its body. */
static node *item_of(reader *r, node *of)
{
    node *n = make_of(r, NODE_ITEM, of), *bound[3] = { NULL };
    int k = 0;
    if (!n)
        return NULL;
    while (!r->st && k < 3) {
        if (!is_op(r, ":") && !is_op(r, "]"))
            bound[k] = expression(r);
        k++;
        if (!take_op(r, ":"))
            break;
        n->type = NODE_SLICE;
    }
    want_op(r, "]");
    if (r->st)
        return NULL;
    if (n->type == NODE_ITEM) {
        n->b = bound[0];
        return n->b ? n : fail(r, GT_FORMAT, "nothing stands between [ and ]");
    }
    for (int i = 2; i >= 0; i--) {
        bound[i] = bound[i] ? bound[i] : make(r, NODE_NOTHING);
        if (!bound[i])
            return NULL;
        bound[i]->next = n->body;
        n->body = bound[i];
    }
    return n;
}

/* A call of a name, or of a method. */
static node *call_of(reader *r, node *of)
{
    if (of->type != NODE_NAME && of->type != NODE_ATTRIBUTE)
        return fail(r, GT_UNSUPPORTED, "only functions and methods can be called");
    node *n = make_of(r, NODE_CALL, of);
    if (!n)
        return NULL;
    n->a = of->type == NODE_ATTRIBUTE ? of->a : NULL;
    n->text = copy(r, of->text, of->size);
    n->body = sequence(r, ")", 1);
    static const char *const functions[] = { "namespace", "range", "raise_exception", "strftime_now", "dict" };
    int known = n->a != NULL;
    for (size_t i = 0; n->text && i < sizeof functions / sizeof *functions; i++)
        known |= !strcmp(functions[i], n->text);
    return r->st ? NULL : known ? n : fail(r, GT_UNSUPPORTED, "the function '%.40s' is not supported", n->text);
}

static node *postfix(reader *r, node *n)
{
    while (n && !r->st) {
        if (take_op(r, ".")) {
            node *a = make_of(r, r->at->type == TOKEN_INTEGER ? NODE_ITEM : NODE_ATTRIBUTE, n);
            if (!a || (r->at->type != TOKEN_NAME && r->at->type != TOKEN_INTEGER))
                return fail(r, GT_FORMAT, "a name is wanted behind '.'");
            if (a->type == NODE_ITEM)
                a->b = number(r);
            else
                take_text(r, a);
            n = a;
        } else if (take_op(r, "[")) {
            n = item_of(r, n);
        } else if (take_op(r, "(")) {
            n = call_of(r, n);
        } else {
            break;
        }
    }
    return n;
}

static node *filter(reader *r, node *of)
{
    node *n = make_of(r, NODE_FILTER, of);
    if (r->at->type != TOKEN_NAME)
        return fail(r, GT_FORMAT, "the name of a filter is wanted where '%.40s' stands", shown(r));
    if (!value_has_filter(r->at->text))
        return fail(r, GT_UNSUPPORTED, "the filter '%.40s' is not supported", r->at->text);
    take_text(r, n);
    if (n && take_op(r, "("))
        n->body = sequence(r, ")", 1);
    return n;
}

/* "is divisibleby 3", "is sameas(x)": an argument may stand without brackets. */
static node *test(reader *r, node *of)
{
    static const char *const not_arguments[] = { "else", "or", "and", "is", "not", "if", "in" };
    const int negated = take_word(r, "not");
    node *n = make_of(r, NODE_TEST, of);
    if (r->at->type != TOKEN_NAME)
        return fail(r, GT_FORMAT, "the name of a test is wanted where '%.40s' stands", shown(r));
    if (!value_has_test(r->at->text))
        return fail(r, GT_UNSUPPORTED, "the test '%.40s' is not supported", r->at->text);
    take_text(r, n);
    int bare = r->at->type == TOKEN_STRING || r->at->type == TOKEN_INTEGER || r->at->type == TOKEN_REAL || is_op(r, "[")
               || is_op(r, "{") || r->at->type == TOKEN_NAME;
    for (size_t i = 0; i < sizeof not_arguments / sizeof *not_arguments; i++)
        bare &= !is_word(r, not_arguments[i]);
    if (n && take_op(r, "("))
        n->body = sequence(r, ")", 1);
    else if (n && bare)
        n->body = postfix(r, primary(r));
    return negated ? make_of(r, NODE_NOT, n) : n;
}

static node *filtered_by(reader *r, node *n)
{
    while (n && !r->st) {
        if (take_op(r, "|"))
            n = filter(r, n);
        else if (take_word(r, "is"))
            n = test(r, n);
        else if (is_op(r, "("))
            n = fail(r, GT_UNSUPPORTED, "only functions and methods can be called");
        else
            break;
    }
    return n;
}

static node *unary(reader *r, int filtered)
{
    node *n;
    if (!enter(r))
        return NULL;
    if (take_op(r, "-"))
        n = make_of(r, NODE_NEGATE, unary(r, 0));
    else if (take_op(r, "+"))
        n = unary(r, 0);
    else
        n = primary(r);
    n = postfix(r, n);
    r->depth--;
    return filtered ? filtered_by(r, n) : n;
}

static node *combined(reader *r, node_type type, int op, node *a, node *b)
{
    node *n = b ? make_of(r, type, a) : NULL;
    if (n) {
        n->op = op;
        n->b = b;
    }
    return n;
}

static node *power(reader *r)
{
    node *n = unary(r, 1);
    while (n && take_op(r, "**"))
        n = combined(r, NODE_BINARY, OP_POWER, n, unary(r, 1));
    return n;
}

static node *product(reader *r)
{
    static const char *const ops[] = { "*", "/", "//", "%" };
    static const int codes[] = { '*', '/', OP_FLOOR, '%' };
    node *n = power(r);
    for (int found = 1; n && found;) {
        found = 0;
        for (int i = 0; i < 4 && !found && n; i++)
            if ((found = take_op(r, ops[i])))
                n = combined(r, NODE_BINARY, codes[i], n, power(r));
    }
    return n;
}

static node *joined(reader *r)
{
    node *n = product(r);
    while (n && take_op(r, "~"))
        n = combined(r, NODE_BINARY, '~', n, product(r));
    return n;
}

static node *sum(reader *r)
{
    node *n = joined(r);
    while (n && (is_op(r, "+") || is_op(r, "-"))) {
        const int op = (unsigned char)*r->at->text;
        r->at++;
        n = combined(r, NODE_BINARY, op, n, joined(r));
    }
    return n;
}

static int comparison(reader *r)
{
    static const struct {
        const char *text;
        int op;
    } ops[] = { { "==", OP_EQUAL },    { "!=", OP_UNEQUAL }, { "<=", OP_AT_MOST },
                { ">=", OP_AT_LEAST }, { "<", '<' },         { ">", '>' } };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (take_op(r, ops[i].text))
            return ops[i].op;
    if (take_word(r, "in"))
        return OP_IN;
    if (is_word(r, "not") && r->at[1].type == TOKEN_NAME && !strcmp(r->at[1].text, "in")) {
        r->at += 2;
        return OP_NOT_IN;
    }
    return 0;
}

/* a < b < c is a < b and b < c. */
static node *compare(reader *r)
{
    node *n = sum(r), *left = n, *all = NULL;
    for (int op; n && (op = comparison(r));) {
        node *right = sum(r);
        n = combined(r, NODE_COMPARE, op, left, right);
        all = all ? combined(r, NODE_AND, 0, all, n) : n;
        n = all;
        left = right;
    }
    return n;
}

static node *negation(reader *r)
{
    if (!enter(r))
        return NULL;
    node *n = take_word(r, "not") ? make_of(r, NODE_NOT, negation(r)) : compare(r);
    r->depth--;
    return n;
}

static node *conjunction(reader *r)
{
    node *n = negation(r);
    while (n && take_word(r, "and"))
        n = combined(r, NODE_AND, 0, n, negation(r));
    return n;
}

static node *disjunction(reader *r)
{
    node *n = conjunction(r);
    while (n && take_word(r, "or"))
        n = combined(r, NODE_OR, 0, n, conjunction(r));
    return n;
}

static node *expression(reader *r)
{
    if (!enter(r))
        return NULL;
    node *n = disjunction(r);
    while (n && take_word(r, "if")) {
        node *c = make(r, NODE_CHOICE);
        if (!c)
            break;
        c->body = n;
        c->a = disjunction(r);
        c->b = take_word(r, "else") ? expression(r) : NULL;
        n = c->a ? c : NULL;
    }
    r->depth--;
    return r->st ? NULL : n;
}

/* ---- statements ------------------------------------------------------------------------------------------ */

static void end_tag(reader *r)
{
    if (!r->st && r->at->type != TOKEN_BLOCK_END)
        fail(r, GT_FORMAT, "'%%}' is wanted where '%.40s' stands", shown(r));
    else
        r->at += !r->st;
}

/* At "{%": is it one of these words? Takes the tag's beginning and word. */
static int take_end(reader *r, const char *word)
{
    const int is = !r->st && r->at->type == TOKEN_BLOCK && r->at[1].type == TOKEN_NAME && !strcmp(r->at[1].text, word);
    r->at += is ? 2 : 0;
    return is;
}

static void want_end(reader *r, const char *word)
{
    if (!take_end(r, word))
        fail(r, GT_FORMAT, "{%% %s %%} is missing", word);
    end_tag(r);
}

static node *if_statement(reader *r)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    node *n = make(r, NODE_IF);
    if (!n || !enter(r))
        return NULL;
    n->a = expression(r);
    end_tag(r);
    n->body = statements(r, ends);
    if (take_end(r, "elif")) {
        n->other = if_statement(r);
    } else {
        if (take_end(r, "else")) {
            end_tag(r);
            n->other = statements(r, &ends[2]);
        }
        want_end(r, "endif");
    }
    r->depth--;
    return n;
}

static node *for_statement(reader *r)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    node *n = want_name(r, NODE_FOR);
    if (n && take_op(r, ",")) {
        node *second = want_name(r, NODE_NOTHING);
        n->second = second ? copy(r, second->text, second->size) : NULL;
    }
    if (!r->st && !take_word(r, "in"))
        fail(r, GT_FORMAT, "'in' is wanted where '%.40s' stands", shown(r));
    if (r->st)
        return NULL;
    n->a = disjunction(r);
    if (take_word(r, "if"))
        n->b = expression(r);
    if (is_word(r, "recursive"))
        fail(r, GT_UNSUPPORTED, "a recursive loop is not supported");
    end_tag(r);
    r->loops++;
    n->body = statements(r, ends);
    r->loops--;
    if (take_end(r, "else")) {
        end_tag(r);
        n->other = statements(r, &ends[1]);
    }
    want_end(r, "endfor");
    return n;
}

static node *set_statement(reader *r)
{
    static const char *const ends[] = { "endset", NULL };
    node *n = want_name(r, NODE_SET);
    if (n && take_op(r, ".")) {
        node *second = want_name(r, NODE_NOTHING);
        n->second = second ? copy(r, second->text, second->size) : NULL;
    }
    if (is_op(r, ","))
        fail(r, GT_UNSUPPORTED, "setting several names at once is not supported");
    if (is_op(r, "|"))
        fail(r, GT_UNSUPPORTED, "setting a filtered block is not supported");
    if (n && take_op(r, "=")) {
        n->a = expression(r);
        if (is_op(r, ","))
            fail(r, GT_UNSUPPORTED, "a tuple without brackets is not supported");
        end_tag(r);
        return n;
    }
    end_tag(r);
    if (n && !r->st) {
        n->body = statements(r, ends);
        want_end(r, "endset");
    }
    return n;
}

static node *generation_statement(reader *r)
{
    static const char *const ends[] = { "endgeneration", NULL };
    node *n = make(r, NODE_GENERATION);
    end_tag(r);
    if (n)
        n->body = statements(r, ends);
    want_end(r, "endgeneration");
    return n;
}

/* Behind "{%". */
static node *block(reader *r)
{
    if (take_word(r, "if"))
        return if_statement(r);
    if (take_word(r, "for"))
        return for_statement(r);
    if (take_word(r, "set"))
        return set_statement(r);
    if (take_word(r, "generation"))
        return generation_statement(r);
    for (int i = 0; i < 2; i++)
        if (is_word(r, i ? "continue" : "break")) {
            if (!r->loops)
                return fail(r, GT_FORMAT, "{%% %s %%} outside of a loop", r->at->text);
            node *n = make(r, i ? NODE_CONTINUE : NODE_BREAK);
            r->at++;
            end_tag(r);
            return n;
        }
    return r->at->type == TOKEN_NAME && !strncmp(r->at->text, "e", 1) && strncmp(r->at->text, "extends", 7)
               ? fail(r, GT_FORMAT, "{%% %.40s %%} ends nothing here", r->at->text)
               : fail(r, GT_UNSUPPORTED, "{%% %.40s %%} is not supported", shown(r));
}

/* Up to a tag with one of these words, or the end of the template (NULL). */
static node *statements(reader *r, const char *const *ends)
{
    node *first = NULL, **last = &first;
    if (!enter(r))
        return NULL;
    while (!r->st && r->at->type != TOKEN_LAST) {
        node *n = NULL;
        if (r->at->type == TOKEN_DATA) {
            n = make(r, NODE_DATA);
            take_text(r, n);
        } else if (r->at->type == TOKEN_PRINT) {
            r->at++;
            n = make_of(r, NODE_PRINT, expression(r));
            if (!r->st && r->at->type != TOKEN_PRINT_END)
                fail(r, GT_FORMAT, "'}}' is wanted where '%.40s' stands", shown(r));
            r->at += !r->st;
        } else {
            for (int i = 0; ends && ends[i]; i++)
                if (r->at[1].type == TOKEN_NAME && !strcmp(r->at[1].text, ends[i])) {
                    r->depth--;
                    return first;
                }
            r->at++;
            n = block(r);
        }
        if (r->st || !n)
            break;
        *last = n;
        last = &n->next;
    }
    r->depth--;
    return first;
}

gt_status template_read(node **out, node **all, const token_list *tokens, const char *name)
{
    reader r = { .name = name, .at = tokens->tokens };
    *out = statements(&r, NULL);
    *all = r.all;
    return r.st;
}
