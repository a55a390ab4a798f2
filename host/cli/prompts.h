/* SPDX-License-Identifier: MIT */
/* host/cli/prompts.h - a file of prompts: one a line, or with the ending .jsonl a JSON value a line, a text or
 * an object with "prompt" or, of a chat, "messages".                                                                  */
#ifndef GT_CLI_PROMPTS_H
#define GT_CLI_PROMPTS_H

#include "host/base/status.h"

#include <jansson.h>

/* An array of texts, or, of a file of objects, of these; release it with json_decref(). GT_FORMAT, with the line, for
 * what is neither, empty, or no UTF-8. */
gt_status prompts_read(json_t **out, const char *file);
/* The text of an item; NULL if it has none. */
const char *prompts_text(const json_t *item, size_t *size);

#endif
