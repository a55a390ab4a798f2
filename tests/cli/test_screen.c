/* SPDX-License-Identifier: MIT */
/* tests/cli/test_screen.c - lines on a terminal: broken between words alone, and bars that fit. */
#include "tests/check.h"

#include "host/cli/screen.h"
#include "host/cli/train_bar.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void lines_are_broken_between_words(void)
{
    static const struct {
        int columns;
        const char *line, *want;
    } cases[] = {
        { 80, "short\n", "short\n" },
        { 80, "", "" },
        { 20, "12345678901234567890\n", "12345678901234567890\n" },         /* just fits */
        { 20, "1234567890 1234567890\n", "1234567890\n  1234567890\n" },
        { 20, "geartrain: cannot open 'x': No such file\n", "geartrain: cannot\n  open 'x': No such\n  file\n" },
        { 24, "model   one two three four\n", "model   one two three\n        four\n" },
        { 24, "  -n, --n N    some words more\n", "  -n, --n N    some\n    words more\n" },     /* too far right */
        { 40, "  -n, --n N    some words that go on long\n",
          "  -n, --n N    some words that go on\n"
          "               long\n" },
        { 20, "    deep words that go on\n", "    deep words that\n      go on\n" },
        { 20, "a wordthatislongerthananyscreen b\n", "a wordthatislongerthananyscreen\n  b\n" },
        { 20, "ten bytes \xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\n",
          "ten bytes \xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\n" }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gt_text out = { 0 };
        cli_screen_break(&out, cases[i].line, strlen(cases[i].line), cases[i].columns);
        const char *got = out.data ? out.data : "";
        CHECKF(!strcmp(got, cases[i].want), "line %zu became '%s'", i, got);
        gt_text_release(&out);
    }
}

/* Whatever the width: no word is lost, and no line is too long if its words are not. */
static void nothing_is_lost(void)
{
    static const char line[] = "plan    2 ranks: 1 replica, tensor width 1, schedule interleaved; predicted 41.0 ms a "
                               "step, 7.5 % idle\n";
    for (int columns = 24; columns < 120; columns++) {
        gt_text out = { 0 };
        cli_screen_break(&out, line, sizeof line - 1, columns);
        const char *p = line, *q = out.data;
        do {
            p += strspn(p, " \n");
            q += strspn(q, " \n");
        } while (*p && *p++ == *q++);
        CHECKF(!*p && !*q, "%d columns: '%s'", columns, out.data);
        for (p = out.data; *p; p += strcspn(p, "\n") + 1)
            CHECKF((int)strcspn(p, "\n") <= columns, "%d columns: '%s'", columns, out.data);
        gt_text_release(&out);
    }
}

static void bars_fit_and_drop_what_matters_least(void)
{
    static const char *const parts[] = { "loss ", "left", "tok/s", "lr ", "grad ", "val " };    /* by weight */
    train_bar b = { .step = 1200,
                    .steps = 20000,
                    .loss = 3.1234,
                    .val = 3.2345,
                    .lr = 9.85e-4,
                    .grad_norm = 2.568,
                    .tokens_per_s = 18800,
                    .seconds_left = 3723 };
    char line[256];
    enum { PARTS = sizeof parts / sizeof *parts };
    int least = PARTS;
    for (int columns = 200; columns >= 1; columns--) {
        train_bar_line(line, sizeof line, &b, columns);
        CHECKF((int)strlen(line) < columns, "%d columns: '%s'", columns, line);
        int have = 0;
        while (have < PARTS && strstr(line, parts[have]))
            have++;
        for (int i = have; i < PARTS; i++)
            CHECKF(!strstr(line, parts[i]), "%d columns: %s without %s: '%s'", columns, parts[i], parts[have], line);
        CHECKF(have <= least, "%d columns show more than %d do", columns, columns + 1);
        least = have;
        CHECK(columns < 25 || strstr(line, "step 1200/20000"));
    }
    CHECKF(strstr(train_bar_line(line, sizeof line, &b, 80), "lr 0.00098  grad 2.57") != NULL, "'%s'", line);
    b.val = NAN;
    b.step = 1;
    b.steps = 10;
    CHECKF(!strcmp(train_bar_line(line, sizeof line, &b, 100), "step 1/10 [###---------------------] loss 3.1234  "
                                                               "lr 0.00098  grad 2.57  18.8k tok/s  1:02:03 left"),
           "'%s'", line);
    b.skipped = "fp16 overflow";
    CHECK(strstr(train_bar_line(line, sizeof line, &b, 80), "  skipped  ") != NULL);
}

const check_case check_cases[] = {
    CASE(lines_are_broken_between_words), CASE(nothing_is_lost), CASE(bars_fit_and_drop_what_matters_least), { 0 }
};
