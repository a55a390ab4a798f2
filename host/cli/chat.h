/* SPDX-License-Identifier: MIT */
/* host/cli/chat.h - conversations with a model, by the template that lies beside its tokenizer.
 *
 * What the model is given is the whole conversation each time, as the template writes it, up to where the
 * answer begins; the answer ends at an id that ends texts, or with which the template ends answers. */
#ifndef GT_CLI_CHAT_H
#define GT_CLI_CHAT_H

#include "host/cli/writer.h"

#include <jansson.h>

typedef struct cli_chat cli_chat;

/* file: a template of the user's, or NULL: that of the tokenizer's folder. The writer must outlive it; its ends
 * grow by what ends answers. GT_NOT_FOUND if there is no template. */
gt_status cli_chat_open(cli_chat **out, cli_writer *w, const char *file, const char *folder);
void cli_chat_close(cli_chat *c);                  /* takes NULL */
/* One answer to messages, an array of {"role", "content"}; number as for cli_write(). */
gt_status cli_chat_answer(cli_chat *c, const json_t *messages, uint64_t number, cli_written *out);
/* Adds a message. */
gt_status cli_chat_say(json_t *messages, const char *role, const char *text, size_t size);

#endif
