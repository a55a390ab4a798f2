/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template_lex.c - a chat template as tokens, with the white space that its tags take away.
 *
 *   {%- ... -%}   take all white space before and behind; {%+ none
 *   {% ... %}     white space between the beginning of the line and the tag (lstrip_blocks), and one newline behind it
 *                 (trim_blocks), as for {# #}; {{ }} takes neither
 * Sources: jinja2's own lexer, and the settings that transformers gives it.                        */
#include "host/tokenizer/template_private.h"

#include "host/tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    const char *name, *s;   /* newlines are \n */
    size_t size, at;
    int line;
    token_list *out;
} lexer;

void token_list_release(token_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->tokens[i].text);
    free(l->tokens);
    memset(l, 0, sizeof *l);
}

static gt_status wrong(const lexer *x, const char *what)
{
    return gt_fail(GT_FORMAT, "template '%s', line %d: %s", x->name, x->line, what);
}

static gt_status put(lexer *x, token_type type, const char *text, size_t size)
{
    token_list *l = x->out;
    if (l->count == l->room) {
        const size_t room = l->room ? 2 * l->room : 64;
        token *grown = realloc(l->tokens, room * sizeof *grown);
        if (!grown)
            return gt_fail(GT_NO_MEMORY, "cannot read template '%s': no memory for its words", x->name);
        l->tokens = grown;
        l->room = room;
    }
    char *copy = malloc(size + 1);
    if (!copy)
        return gt_fail(GT_NO_MEMORY, "cannot read template '%s': no memory for its words", x->name);
    if (size)
        memcpy(copy, text, size);
    copy[size] = '\0';
    l->tokens[l->count++] = (token){ type, x->line, copy, size };
    return GT_OK;
}

static int is_blank(char c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
}

static void advance(lexer *x, size_t to)
{
    for (; x->at < to; x->at++)
        x->line += x->s[x->at] == '\n';
}

static int follows(const lexer *x, size_t at, const char *what)
{
    const size_t n = strlen(what);
    return x->size - at >= n && !memcmp(x->s + at, what, n);
}

/* Behind the end of a tag that began with `-` or not; newline: the tag takes one. */
static void take_white(lexer *x, int minus, int newline)
{
    size_t to = x->at;
    while (minus && to < x->size && is_blank(x->s[to]))
        to++;
    if (!minus && newline && to < x->size && x->s[to] == '\n')
        to++;
    advance(x, to);
}

/* The text up to the tag at `end`, as far as the tag leaves it. */
static gt_status put_data(lexer *x, size_t end, char sign, int is_print)
{
    size_t begin = x->at, to = end, line = end;
    while (sign == '-' && to > begin && is_blank(x->s[to - 1]))
        to--;
    if (sign != '-' && sign != '+' && !is_print) {
        while (line > begin && is_blank(x->s[line - 1]) && x->s[line - 1] != '\n')
            line--;
        if (line > begin ? x->s[line - 1] == '\n' : begin == 0 || x->s[begin - 1] == '\n')
            to = line;
    }
    gt_status st = to > begin ? put(x, TOKEN_DATA, x->s + begin, to - begin) : GT_OK;
    advance(x, end);
    return st;
}

/* ---- within tags --------------------------------------------------------------------------------------- */

static int hex_of(const char *s, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        const char c = s[i];
        const int d = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0)
            return 0;
        *out = *out * 16 + (uint32_t)d;
    }
    return 1;
}

/* Python's escapes; from s[*at], behind the backslash. */
static gt_status escape(const lexer *x, const char *s, size_t end, size_t *at, gt_text *out)
{
    static const char plain[] = "n\nt\tr\rb\bf\fa\av\v\\\\''\"\"";
    const char c = s[*at];
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const char *found = c ? strchr(plain, c) : NULL;
    uint32_t code = 0;
    char bytes[4];
    ++*at;
    if (c == '\n')
        return GT_OK;
    if (digits) {
        if (end - *at < (size_t)digits || !hex_of(s + *at, digits, &code) || code > 0x10ffff
            || (code >= 0xd800 && code < 0xe000))
            return wrong(x, "a text holds an escape that is no character");
        *at += (size_t)digits;
        gt_text_put(out, bytes, (size_t)utf8_put(bytes, code));
    } else if (c >= '0' && c <= '7') {
        --*at;
        for (int i = 0; i < 3 && *at < end && s[*at] >= '0' && s[*at] <= '7'; i++)
            code = code * 8 + (uint32_t)(s[(*at)++] - '0');
        gt_text_put(out, bytes, (size_t)utf8_put(bytes, code));
    } else if (found && (found - plain) % 2 == 0) {
        gt_text_put(out, found + 1, 1);
    } else {
        gt_text_put(out, "\\", 1);
        gt_text_put(out, &c, 1);
    }
    return GT_OK;
}

static gt_status lex_string(lexer *x)
{
    const char quote = x->s[x->at];
    size_t end = x->at + 1;
    gt_text out = { 0 };
    gt_status st = GT_OK;
    while (end < x->size && x->s[end] != quote)
        end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->size)
        return wrong(x, "a text has no end");
    for (size_t i = x->at + 1; !st && i < end;) {
        if (x->s[i] == '\\') {
            i++;
            st = escape(x, x->s, end, &i, &out);
        } else {
            gt_text_put(&out, x->s + i++, 1);
        }
    }
    if (!st && out.failed)
        st = gt_fail(GT_NO_MEMORY, "cannot read template '%s': no memory for its words", x->name);
    if (!st)
        st = put(x, TOKEN_STRING, out.data ? out.data : "", out.size);
    gt_text_release(&out);
    advance(x, end + 1);
    return st;
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static gt_status lex_number(lexer *x)
{
    size_t to = x->at;
    token_type type = TOKEN_INTEGER;
    while (to < x->size && is_digit(x->s[to]))
        to++;
    if (to + 1 < x->size && x->s[to] == '.' && is_digit(x->s[to + 1])) {
        type = TOKEN_REAL;
        for (to++; to < x->size && is_digit(x->s[to]);)
            to++;
    }
    size_t power = to;
    if (power < x->size && (x->s[power] == 'e' || x->s[power] == 'E')) {
        power += power + 1 < x->size && (x->s[power + 1] == '-' || x->s[power + 1] == '+') ? 2 : 1;
        if (power < x->size && is_digit(x->s[power])) {
            type = TOKEN_REAL;
            for (to = power; to < x->size && is_digit(x->s[to]);)
                to++;
        }
    }
    if (to < x->size && is_name(x->s[to]))
        return wrong(x, "a number runs into a name");
    gt_status st = put(x, type, x->s + x->at, to - x->at);
    advance(x, to);
    return st;
}

static gt_status lex_one(lexer *x, int *depth)
{
    static const char *const operators[] = { "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                             "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";" };
    const char c = x->s[x->at];
    if (c == '"' || c == '\'')
        return lex_string(x);
    if (is_digit(c))
        return lex_number(x);
    if (is_name(c)) {
        size_t to = x->at;
        while (to < x->size && is_name(x->s[to]))
            to++;
        gt_status st = put(x, TOKEN_NAME, x->s + x->at, to - x->at);
        advance(x, to);
        return st;
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (follows(x, x->at, operators[i])) {
            gt_status st = put(x, TOKEN_OPERATOR, operators[i], strlen(operators[i]));
            *depth += strchr("[({", c) ? 1 : strchr("])}", c) ? -1 : 0;
            advance(x, x->at + strlen(operators[i]));
            return st;
        }
    return wrong(x, "a tag holds a character that is not part of the language");
}

/* From behind the beginning of a tag to behind its end. */
static gt_status lex_tag(lexer *x, int is_print)
{
    const char *const end = is_print ? "}}" : "%}";
    int depth = 0;
    gt_status st = put(x, is_print ? TOKEN_PRINT : TOKEN_BLOCK, "", 0);
    while (!st) {
        while (x->at < x->size && is_blank(x->s[x->at]))
            advance(x, x->at + 1);
        if (x->at >= x->size)
            return wrong(x, "a tag has no end");
        const char sign = x->s[x->at];
        const size_t signs = (sign == '-' || (sign == '+' && !is_print)) && follows(x, x->at + 1, end) ? 1 : 0;
        if (depth <= 0 && follows(x, x->at + signs, end)) {
            st = put(x, is_print ? TOKEN_PRINT_END : TOKEN_BLOCK_END, "", 0);
            advance(x, x->at + signs + 2);
            take_white(x, signs && sign == '-', !is_print && !signs);
            return st;
        }
        st = lex_one(x, &depth);
    }
    return st;
}

static gt_status skip_comment(lexer *x)
{
    const char *end = memmem(x->s + x->at, x->size - x->at, "#}", 2);
    if (!end)
        return wrong(x, "a comment has no end");
    const size_t at = (size_t)(end - x->s);
    const char sign = at > x->at ? end[-1] : 0;
    advance(x, at + 2);
    take_white(x, sign == '-', sign != '+');
    return GT_OK;
}

/* Behind "{%", a sign and white space: the tag's word if it is one that has to be told before it is read. */
static int begins_raw(const lexer *x, size_t at, const char *word, size_t *end, char *sign)
{
    while (at < x->size && is_blank(x->s[at]))
        at++;
    if (!follows(x, at, word))
        return 0;
    for (at += strlen(word); at < x->size && is_blank(x->s[at]);)
        at++;
    *sign = at < x->size && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
    at += *sign ? 1 : 0;
    *end = at + 2;
    return at + 1 < x->size && follows(x, at, "%}");
}

/* {% raw %} text {% endraw %}: x->at is behind the first tag. */
static gt_status lex_raw(lexer *x)
{
    for (size_t at = x->at; at + 1 < x->size; at++) {
        char before, behind;
        size_t end;
        if (!follows(x, at, "{%"))
            continue;
        before = at + 2 < x->size && (x->s[at + 2] == '-' || x->s[at + 2] == '+') ? x->s[at + 2] : 0;
        if (!begins_raw(x, at + 2 + (before ? 1 : 0), "endraw", &end, &behind))
            continue;
        gt_status st = put_data(x, at, before, 0);
        advance(x, end);
        take_white(x, behind == '-', behind != '+');
        return st;
    }
    return wrong(x, "raw text has no {% endraw %}");
}

static gt_status lex_all(lexer *x)
{
    gt_status st = GT_OK;
    while (!st && x->at < x->size) {
        size_t at = x->at, end;
        while (at + 1 < x->size && !(x->s[at] == '{' && strchr("{%#", x->s[at + 1]) && x->s[at + 1]))
            at++;
        if (at + 1 >= x->size)
            return put_data(x, x->size, '+', 0);
        const char kind = x->s[at + 1], next = at + 2 < x->size ? x->s[at + 2] : 0;
        const char sign = next == '-' || next == '+' ? next : 0;
        char behind;
        st = put_data(x, at, sign, kind == '{');
        advance(x, at + (sign && kind != '#' ? 3 : 2));
        if (st)
            return st;
        if (kind == '#') {
            st = skip_comment(x);
        } else if (kind == '%' && begins_raw(x, x->at, "raw", &end, &behind)) {
            advance(x, end);
            take_white(x, behind == '-', 0);
            st = lex_raw(x);
        } else {
            st = lex_tag(x, kind == '{');
        }
    }
    return st;
}

/* \r\n and \r become \n, and the last newline goes, as jinja2 has it. */
static size_t normalize(char *to, const char *from, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (from[i] == '\r' && i + 1 < size && from[i + 1] == '\n')
            continue;
        to[n++] = from[i] == '\r' ? '\n' : from[i];
    }
    return n && to[n - 1] == '\n' ? n - 1 : n;
}

gt_status template_lex(token_list *out, const char *source, size_t size, const char *name)
{
    memset(out, 0, sizeof *out);
    if (size > TEMPLATE_BYTES)
        return gt_fail(GT_FORMAT, "template '%s' has %zu bytes, at most %d are read", name, size, TEMPLATE_BYTES);
    char *s = malloc(size + 1);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot read template '%s': no memory for its words", name);
    lexer x = { .name = name, .s = s, .line = 1, .out = out };
    x.size = normalize(s, source, size);
    s[x.size] = '\0';
    gt_status st = lex_all(&x);
    if (!st)
        st = put(&x, TOKEN_LAST, "", 0);
    free(s);
    if (st)
        token_list_release(out);
    return st;
}
