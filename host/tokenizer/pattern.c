/* SPDX-License-Identifier: MIT */
/* host/tokenizer/pattern.c - Oniguruma's spelling to PCRE2's, then PCRE2's compiled matcher.
 *
 * \s is written \p{White_Space}: with PCRE2_UCP, \s also matches U+180E, which has not been
 * white space since Unicode 6.3. \w has marks and connectors in Oniguruma, and of the
 * numbers that are no digits those of Latin-1.   */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "host/tokenizer/pattern.h"

#include "host/base/text.h"

#include <ctype.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define JIT_STACK_MAX ((size_t)4 << 20)
#define MATCH_LIMIT 10000000u       /* a hostile pattern stops after about a second */
#define PATTERN_MAX 65536u

struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    int jit, behind;
};

void pattern_close(pattern *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    pcre2_jit_stack_free(p->stack);
    free(p);
}

int pattern_looks_behind(const pattern *p)
{
    return p->behind;
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot prepare the tokenizer: no memory for its regular expression");
}

typedef struct rewriting {
    const char *in;
    gt_text out;
    size_t atom;                    /* where in `out` the last atom begins */
    size_t groups[256];             /* where the open groups begin         */
    size_t depth;
} rewriting;

/* \p{Name}: a name of three letters and more is a script, unless it is a property. */
static void put_property(rewriting *r)
{
    static const char *const properties[] = { "White_Space", "Alphabetic", "Any", "Uppercase",  "Lowercase",
                                              "Cased",       "Emoji",      "L&",  "Ideographic" };
    const char *name = r->in + 1, *end = strchr(name, '}');
    const int negated = name < end && *name == '^';
    name += negated;
    const size_t length = (size_t)(end - name);
    int script = length > 2;
    for (size_t i = 0; script && i < sizeof properties / sizeof *properties; i++)
        script = strlen(properties[i]) != length || memcmp(properties[i], name, length) != 0;
    gt_text_printf(&r->out, "{%s%s%.*s}", negated ? "^" : "", script ? "sc:" : "", (int)length, name);
    r->in = end + 1;
}

/* What stands behind a backslash, in a class or outside. */
static void put_escape(rewriting *r, int in_class)
{
    static const struct {
        char name;
        const char *is;
    } classes[] = { { 's', "\\p{White_Space}" }, { 'S', "\\P{White_Space}" }, { 'h', "0-9a-fA-F" } };
    static const char word[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";
    const char c = *++r->in;
    r->in++;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (c == classes[i].name) {
            gt_text_printf(&r->out, c == 'h' && !in_class ? "[%s]" : "%s", classes[i].is);
            return;
        }
    if (c == 'u' && strspn(r->in, "0123456789abcdefABCDEF") >= 4) {
        gt_text_printf(&r->out, "\\x{%.4s}", r->in);
        r->in += 4;
        return;
    }
    if (c == 'w')
        gt_text_printf(&r->out, in_class ? "%s" : "[%s]", word);
    else if (c == 'W' && !in_class)
        gt_text_printf(&r->out, "[^%s]", word);
    else
        gt_text_printf(&r->out, "\\%c", c);
    if ((c == 'p' || c == 'P') && *r->in == '{' && strchr(r->in, '}'))
        put_property(r);
}

static gt_status put_class(rewriting *r)
{
    gt_text_put(&r->out, r->in++, 1);
    if (*r->in == '^')
        gt_text_put(&r->out, r->in++, 1);
    if (*r->in == ']')
        gt_text_put(&r->out, r->in++, 1);
    while (*r->in && *r->in != ']') {
        if (!strncmp(r->in, "&&", 2) || (*r->in == '[' && r->in[1] != ':')
            || (*r->in == '\\' && (r->in[1] == 'W' || r->in[1] == 'H')))
            return gt_fail(GT_UNSUPPORTED, "a class in its regular expression is made of other classes");
        if (*r->in == '\\' && r->in[1]) {
            put_escape(r, 1);
        } else if (*r->in == '[' && strstr(r->in, ":]")) {
            const char *end = strstr(r->in, ":]") + 2;
            gt_text_put(&r->out, r->in, (size_t)(end - r->in));
            r->in = end;
        } else {
            gt_text_put(&r->out, r->in++, 1);
        }
    }
    if (*r->in)
        gt_text_put(&r->out, r->in++, 1);
    return GT_OK;
}

/* {n,m}+ */
static gt_status put_interval(rewriting *r)
{
    const char *end = r->in + 1;
    while (isdigit((unsigned char)*end) || *end == ',')
        end++;
    if (*end != '}' || end == r->in + 1) {          /* a brace like any character */
        r->atom = r->out.size;
        gt_text_put(&r->out, r->in++, 1);
        return GT_OK;
    }
    gt_text tail = { 0 };
    const int again = end[1] == '+';
    gt_text_put(&tail, r->out.data + r->atom, r->out.size - r->atom);
    r->out.size = r->atom;
    gt_text_printf(&r->out, "%s%.*s%s%.*s%s", again ? "(?:" : "", (int)tail.size, tail.data ? tail.data : "",
                   r->in[1] == ',' ? "{0" : "{", (int)(end - r->in), r->in + 1, again ? ")+" : "");
    r->out.failed |= tail.failed;
    gt_text_release(&tail);
    r->in = end + 1 + again;
    return GT_OK;
}

static gt_status rewrite(rewriting *r)
{
    gt_status st = GT_OK;
    while (*r->in && !st && !r->out.failed) {
        const char c = *r->in;
        if (c == '{' && r->out.size) {
            st = put_interval(r);
            continue;
        }
        if (c == ')' && r->depth) {
            r->atom = r->groups[--r->depth];
            gt_text_put(&r->out, r->in++, 1);
            continue;
        }
        if (!strchr("*+?|)", c))
            r->atom = r->out.size;
        if (c == '(') {
            if (r->depth == sizeof r->groups / sizeof *r->groups)
                return gt_fail(GT_UNSUPPORTED, "its regular expression has more than %zu groups in one another",
                               r->depth);
            r->groups[r->depth++] = r->out.size;
            gt_text_put(&r->out, r->in++, 1);
            if (*r->in == '?')                      /* no quantifier */
                gt_text_put(&r->out, r->in++, 1);
        } else if (c == '[') {
            st = put_class(r);
        } else if (c == '\\' && r->in[1]) {
            put_escape(r, 0);
        } else {
            gt_text_put(&r->out, r->in++, 1);
        }
    }
    return st;
}

static gt_status compile(pattern *p, const char *regex, const gt_text *text)
{
    int error;
    PCRE2_SIZE where;
    PCRE2_UCHAR reason[128];
    uint32_t behind = 0;
    p->code = pcre2_compile((PCRE2_SPTR)text->data, text->size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error,
                            &where, NULL);
    if (!p->code) {
        pcre2_get_error_message(error, reason, sizeof reason);
        return gt_fail(GT_FORMAT, "cannot compile the tokenizer's pattern '%.100s': %s", regex, (const char *)reason);
    }
    pcre2_pattern_info(p->code, PCRE2_INFO_MAXLOOKBEHIND, &behind);
    p->behind = behind > 0;
    p->match = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->match || !p->context)
        return no_memory();
    pcre2_set_match_limit(p->context, MATCH_LIMIT);
    /* No JIT on this machine or in this build of PCRE2: the interpreter gives the same words. */
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
    if (p->jit) {
        p->stack = pcre2_jit_stack_create((size_t)32 << 10, JIT_STACK_MAX, NULL);
        pcre2_jit_stack_assign(p->context, NULL, p->stack);
    }
    return GT_OK;
}

gt_status pattern_open(pattern **out, const char *regex)
{
    rewriting r = { .in = regex };
    *out = NULL;
    if (strlen(regex) > PATTERN_MAX)
        return gt_fail(GT_FORMAT, "the tokenizer's pattern is longer than %u bytes", PATTERN_MAX);
    pattern *p = calloc(1, sizeof *p);
    gt_status st = p ? rewrite(&r) : no_memory();
    if (!st && r.out.failed)
        st = no_memory();
    if (!st)
        st = compile(p, regex, &r.out);
    gt_text_release(&r.out);
    if (st) {
        pattern_close(p);
        return st;
    }
    *out = p;
    return GT_OK;
}

int pattern_next(pattern *p, const unsigned char *text, size_t size, size_t at, int open, size_t *begin, size_t *end)
{
    const uint32_t options = PCRE2_NOTEMPTY | (open ? PCRE2_PARTIAL_HARD : 0u);
    int n = p->jit ? pcre2_jit_match(p->code, text, size, at, options, p->match, p->context)
                   : pcre2_match(p->code, text, size, at, options | PCRE2_NO_UTF_CHECK, p->match, p->context);
    if (n == PCRE2_ERROR_PARTIAL)
        return -1;
    if (n == PCRE2_ERROR_NOMATCH)
        return open ? -1 : 0;
    PCRE2_SIZE *range = pcre2_get_ovector_pointer(p->match);
    *begin = range[0];
    *end = range[1];
    return n < 0 || *begin < at || *end <= *begin || *end > size ? -2 : 1;
}
