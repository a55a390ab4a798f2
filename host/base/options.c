/* SPDX-License-Identifier: MIT */
/* host/base/options.c - the option table around getopt_long.
 *
 * Every option gets two rows for getopt: --name and, for flags, --no-name. The row's
 * index travels in `val`, so no option needs a letter. After a typo the nearest name
 * (by edit distance) is offered.                                                        */
#include "host/base/options.h"
#include "host/base/text.h"

#include <assert.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 160
#define LEFT_COLUMN 30
#define MOST_COLUMNS 100
#define FIRST_VALUE 1000        /* val = FIRST_VALUE + 2 * row + (1 for --no-name) */

static const gt_option *given_table;
static unsigned char given[MAX_OPTIONS];
static const char *given_value[MAX_OPTIONS];    /* the word; of a flag "on" or "off" */

static int row_count(const gt_option *table)
{
    int n = 0;
    while (table[n].name || table[n].group)
        n++;
    assert(n < MAX_OPTIONS);
    return n;
}

size_t gt_edit_distance(const char *a, const char *b)
{
    size_t n = strlen(b), row[80];
    if (n >= sizeof row / sizeof row[0])
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static gt_status unknown_option(const gt_option *table, const char *word)
{
    char name[80];
    const char *start = word + strspn(word, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(start, "="), start);
    const char *nearest = NULL;
    size_t best = 4;
    for (int i = 0; table[i].name || table[i].group; i++) {
        size_t d = table[i].name ? gt_edit_distance(name, table[i].name) : SIZE_MAX;
        if (d < best && d < strlen(name)) {
            best = d;
            nearest = table[i].name;
        }
    }
    if (nearest)
        return gt_fail(GT_MISUSE, "unknown option '%s'; did you mean --%s?", word, nearest);
    return gt_fail(GT_MISUSE, "unknown option '%s'; -h lists them", word);
}

static int is_choice(const char *choices, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = choices; *p; p += *p == '|') {
        size_t n = strcspn(p, "|");
        if (n == length && !strncmp(p, word, n))
            return 1;
        p += n;
    }
    return 0;
}

static gt_status add_to_list(gt_option_list *l, const char *value)
{
    if (l->count == GT_LIST_MOST)
        return gt_fail(GT_MISUSE, "'%s' is one too many: %d can be given", value, GT_LIST_MOST);
    l->item[l->count++] = value;
    return GT_OK;
}

static gt_status set_value(const gt_option *o, const char *value)
{
    gt_status st = GT_OK;
    uint64_t number;
    switch (o->type) {
    case GT_FLAG: *(int *)o->target = 1; return GT_OK;
    case GT_INT:
        st = gt_parse_u64(&number, value);
        if (!st && number > INT_MAX)
            st = gt_fail(GT_MISUSE, "'%s' is too large", value);
        if (!st)
            *(int *)o->target = (int)number;
        break;
    case GT_U64: st = gt_parse_u64(o->target, value); break;
    case GT_DOUBLE: st = gt_parse_double(o->target, value); break;
    case GT_BYTES: st = gt_parse_bytes(o->target, value); break;
    case GT_DURATION: st = gt_parse_duration(o->target, value); break;
    case GT_CHOICE:
        if (!is_choice(o->value, value)) {
            st = gt_fail(GT_MISUSE, "'%s' is not one of %s", value, o->value);
            break;
        }
        *(const char **)o->target = value;
        break;
    case GT_STRING: *(const char **)o->target = value; break;
    case GT_LIST: st = add_to_list(o->target, value); break;
    }
    return st ? gt_fail_in(st, "option --%s", o->name) : GT_OK;
}

/* Notes that an option is there; once, or again with the same value. */
static gt_status note_given(const gt_option *table, int row, const char *value)
{
    if (given[row] && table[row].type != GT_LIST && strcmp(given_value[row], value))
        return gt_fail(GT_MISUSE, "option --%s is given twice, as '%s' and as '%s'; give it once", table[row].name,
                       given_value[row], value);
    given[row] = 1;
    given_value[row] = value;
    return GT_OK;
}

gt_status gt_options_parse(const gt_option *table, int argc, char **argv, int *first, gt_option_help *help)
{
    static char negated[MAX_OPTIONS][40];
    struct option rows[2 * MAX_OPTIONS + 2];
    char letters[2 * MAX_OPTIONS + 4] = ":h";
    size_t used = strlen(letters);
    int n = row_count(table), k = 0;

    memset(given, 0, sizeof given);
    given_table = table;
    *help = GT_HELP_NONE;
    for (int i = 0; i < n; i++) {
        const gt_option *o = &table[i];
        if (!o->name)
            continue;
        int takes = o->type != GT_FLAG;
        rows[k++] = (struct option){ o->name, takes, NULL, FIRST_VALUE + 2 * i };
        if (!takes) {
            snprintf(negated[i], sizeof negated[i], "no-%s", o->name);
            rows[k++] = (struct option){ negated[i], 0, NULL, FIRST_VALUE + 2 * i + 1 };
        }
        if (o->letter) {
            letters[used++] = (char)o->letter;
            if (takes)
                letters[used++] = ':';
        }
    }
    letters[used] = '\0';
    rows[k++] = (struct option){ "help", 0, NULL, 1 };
    rows[k] = (struct option){ 0 };

    optind = 0;                                     /* 0 restarts glibc's getopt */
    opterr = 0;
    for (;;) {
        int at = optind ? optind : 1;
        int c = getopt_long(argc, argv, letters, rows, NULL);
        if (c == -1)
            break;
        if (c == 'h' || c == 1) {
            *help = c == 'h' ? GT_HELP_SHORT : GT_HELP_LONG;
            return GT_OK;
        }
        if (c == ':')
            return gt_fail(GT_MISUSE, "option '%s' needs a value", argv[optind - 1]);
        if (c == '?') {
            if (optopt >= FIRST_VALUE)
                return gt_fail(GT_MISUSE, "option '--%s' takes no value", table[(optopt - FIRST_VALUE) / 2].name);
            return unknown_option(table, argv[optind > at ? optind - 1 : at]);
        }
        int row = -1;
        if (c >= FIRST_VALUE)
            row = (c - FIRST_VALUE) / 2;
        else
            for (int i = 0; i < n; i++)
                if (table[i].name && table[i].letter == c)
                    row = i;
        assert(row >= 0);
        const int off = c >= FIRST_VALUE && (c - FIRST_VALUE) % 2;
        gt_status st = note_given(table, row, table[row].type != GT_FLAG ? optarg : off ? "off" : "on");
        if (!st && off)
            *(int *)table[row].target = 0;
        else if (!st)
            st = set_value(&table[row], optarg);
        if (st)
            return st;
    }
    *first = optind;
    return GT_OK;
}

/* The shortest decimal that reads back as the same number. */
static void double_text(double x, char *out, size_t size)
{
    *out = '\0';                        /* not a number: there is no default */
    for (int digits = 6; digits <= 17 && !isnan(x); digits++) {
        snprintf(out, size, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            return;
    }
}

const char *gt_option_text(const gt_option *o, char *out, size_t size)
{
    switch (o->type) {
    case GT_FLAG:
    case GT_INT: snprintf(out, size, "%d", *(const int *)o->target); break;
    case GT_U64: snprintf(out, size, "%llu", *(const unsigned long long *)o->target); break;
    case GT_DOUBLE: double_text(*(const double *)o->target, out, size); break;
    case GT_BYTES: gt_format_size(out, size, *(const uint64_t *)o->target); break;
    case GT_DURATION:
        double_text((double)*(const uint64_t *)o->target / 1e9, out, size); /* exact where it is whole */
        strncat(out, "s", size - strlen(out) - 1);
        break;
    case GT_LIST: {
        const gt_option_list *l = o->target;
        *out = '\0';
        for (int i = 0, n = 0; i < l->count && n >= 0 && (size_t)n < size; i++)
            n += snprintf(out + n, size - (size_t)n, "%s%s", i ? ", " : "", l->item[i]);
        break;
    }
    case GT_STRING:
    case GT_CHOICE: {
        const char *text = *(const char *const *)o->target;
        snprintf(out, size, "%s", text ? text : "");
        break;
    }
    }
    return out;
}

/* A default as help shows it: a line end as "\n". */
static void print_default(FILE *out, const char *value)
{
    fprintf(out, "  [");
    for (; *value; value++)
        if (*value == '\n')
            fprintf(out, "\\n");
        else
            fputc(*value, out);
    fprintf(out, "]");
}

void gt_options_print(const gt_option *table, FILE *out, gt_option_help which)
{
    for (int i = 0, n = row_count(table); i < n; i++) {
        const gt_option *o = &table[i];
        char left[96], value[128];
        if (!o->name) {
            fprintf(out, "%s%s:\n", i ? "\n" : "", o->group);
            continue;
        }
        if (o->rare && which == GT_HELP_SHORT)
            continue;
        int used = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                             : snprintf(left, sizeof left, "    --%s", o->name);
        /* A list of choices too long for the left column goes behind the help, or below it. */
        const int wide = o->type == GT_CHOICE && used + 1 + (int)strlen(o->value) > LEFT_COLUMN;
        if (o->type != GT_FLAG)
            snprintf(left + used, sizeof left - (size_t)used, " %s", wide ? "NAME" : o->value);
        gt_option_text(o, value, sizeof value);
        fprintf(out, "  %-*s %s", LEFT_COLUMN, left, o->help);
        const size_t behind = value[0] ? strlen("  []") + strlen(value) : 0;
        if (wide && LEFT_COLUMN + strlen("   : ") + strlen(o->help) + strlen(o->value) + behind > MOST_COLUMNS)
            fprintf(out, ":\n  %-*s %s", LEFT_COLUMN, "", o->value);
        else if (wide)
            fprintf(out, ": %s", o->value);
        if (o->type == GT_FLAG)
            fprintf(out, "%s", *(const int *)o->target ? "  [on]" : "");
        else if (value[0])
            print_default(out, value);
        fprintf(out, "\n");
    }
}

void gt_options_each(const gt_option *table, void (*visit)(void *context, const gt_option *o, const char *value),
                     void *context)
{
    char value[4096];
    for (int i = 0, n = row_count(table); i < n; i++)
        if (table[i].name)
            visit(context, &table[i], gt_option_text(&table[i], value, sizeof value));
}

int gt_option_given(const gt_option *table, const char *name)
{
    if (table != given_table)
        return 0;
    for (int i = 0, n = row_count(table); i < n; i++)
        if (table[i].name && !strcmp(table[i].name, name))
            return given[i];
    return 0;
}

gt_status gt_option_set(const gt_option *table, const char *name, const char *value)
{
    for (int i = 0, n = row_count(table); i < n; i++) {
        const gt_option *o = &table[i];
        if (!o->name || strcmp(o->name, name))
            continue;
        if (o->type == GT_FLAG) {
            *(int *)o->target = !strcmp(value, "1");
            return GT_OK;
        }
        return set_value(o, value);
    }
    return gt_fail(GT_NOT_FOUND, "there is no option --%s", name);
}
