/* SPDX-License-Identifier: MIT */
/* host/tokenizer/pattern.h - regular expressions as tokenizer.json writes them, matched by PCRE2.
 *
 * Hugging Face `tokenizers` 0.23 compiles them with Oniguruma. What the two read differently is
 * rewritten before compiling: \s \S \w \W \h as Unicode properties, \uXXXX, a script's name as the
 * script itself (PCRE2 means its extensions), and X{n,m}+ as (?:X{n,m})+, for only ?+ *+ ++ are
 * possessive there.
 *
 * Threads: one pattern, one thread at a time.                                           */
#ifndef GT_TOKENIZER_PATTERN_H
#define GT_TOKENIZER_PATTERN_H

#include "host/base/status.h"

#include <stddef.h>

typedef struct pattern pattern;

/* GT_FORMAT if it does not compile; GT_UNSUPPORTED for what cannot be rewritten. */
gt_status pattern_open(pattern **out, const char *regex);
void pattern_close(pattern *p);     /* takes NULL */

int pattern_looks_behind(const pattern *p);

/* The next match that is not empty in text[at..size), which is UTF-8: its begin and end. Returns 1,
 * 0 if there is none, -1 if `open` and more text may change the answer, -2 if the matcher gave up. */
int pattern_next(pattern *p, const unsigned char *text, size_t size, size_t at, int open, size_t *begin, size_t *end);

#endif
