/* SPDX-License-Identifier: MIT */
/* host/base/options.h - command-line options as one table.
 *
 * Name, help, unit, parser and default come from the same row; defaults are printed from
 * the live values, so a help text cannot be stale. Parsing is getopt_long's.
 *
 *   static struct { uint64_t steps; double lr; const char *data; int json; } o = {
 *       .steps = 1000, .lr = 3e-4 };
 *   static const gt_option table[] = {
 *       { .group = "Training" },
 *       { "steps", 'n', GT_U64,    "N", "optimizer updates", &o.steps },
 *       { "lr",     0,  GT_DOUBLE, "X", "peak learning rate", &o.lr },
 *       { .group = "Output" },
 *       { "json",   0,  GT_FLAG,   NULL, "one object a line", &o.json },
 *       { 0 } };                                                                       */
#ifndef GT_BASE_OPTIONS_H
#define GT_BASE_OPTIONS_H

#include "host/base/status.h"

#include <stddef.h>
#include <stdio.h>

typedef enum gt_option_type {
    GT_FLAG,        /* int *: set to 1; the name with "no-" in front sets 0           */
    GT_INT,         /* int *                                                          */
    GT_U64,         /* uint64_t *                                                     */
    GT_DOUBLE,      /* double *; NaN before parsing: there is no default              */
    GT_STRING,      /* const char **: points into argv                                */
    GT_LIST,        /* gt_option_list *: may be given again and again; points into argv */
    GT_BYTES,       /* uint64_t *: "64KiB"                                            */
    GT_DURATION,    /* uint64_t *: nanoseconds, "30s"                                 */
    GT_CHOICE       /* const char **: one of the words in `value`, "fp32|bf16|fp16"   */
} gt_option_type;

enum { GT_LIST_MOST = 32 };
typedef struct gt_option_list {
    const char *item[GT_LIST_MOST];
    int count;
} gt_option_list;

typedef struct gt_option {
    const char *name;           /* without "--"; NULL with a group starts a section   */
    int letter;                 /* 0 or a one-letter alias                            */
    gt_option_type type;
    const char *value;          /* what stands for the value in help: "N", "FILE"     */
    const char *help;
    void *target;               /* holds the default before parsing                   */
    int rare;                   /* 1: shown by --help only, not by -h                 */
    const char *group;
} gt_option;

typedef enum gt_option_help { GT_HELP_NONE, GT_HELP_SHORT, GT_HELP_LONG } gt_option_help;

/* Parses argv[1..argc). Words that are not options are moved behind them; *first is the
 * index of the first such word (as getopt does). -h and --help set *help and stop.
 * GT_MISUSE with a sentence that names the option, and the nearest name for a typo; also for an
 * option that is given twice with different values, unless it is a list: one of them would be dropped. */
gt_status gt_options_parse(const gt_option *table, int argc, char **argv, int *first, gt_option_help *help);

/* Prints the sections of the table, defaults in brackets from the live values. */
void gt_options_print(const gt_option *table, FILE *out, gt_option_help which);

/* Calls visit(name, value as text) for every option, for config.json. */
void gt_options_each(const gt_option *table, void (*visit)(void *context, const gt_option *o, const char *value),
                     void *context);

/* What the option is set to, as text: its default before parsing. "" if there is none. Returns out. */
const char *gt_option_text(const gt_option *o, char *out, size_t size);

/* Sets an option from text as gt_options_each gave it; strings must stay alive. */
gt_status gt_option_set(const gt_option *table, const char *name, const char *value);

/* How many letters must change to make one word of the other, for "did you mean". */
size_t gt_edit_distance(const char *a, const char *b);

/* 1 if the last gt_options_parse() in this process met the option `name`. */
int gt_option_given(const gt_option *table, const char *name);

#endif
