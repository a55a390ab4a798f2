/* SPDX-License-Identifier: MIT */
/* host/cli/chat.c - messages to a prompt, and a prompt to an answer. */
#include "host/cli/chat.h"

#include "host/tokenizer/template.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

struct cli_chat {
    cli_writer *writer;
    chat_template *format;
};

gt_status cli_chat_say(json_t *messages, const char *role, const char *text, size_t size)
{
    gt_text good = { 0 };
    utf8_mend(&good, text, size);
    json_t *m = good.failed ? NULL
                            : json_pack("{s:s, s:s%}", "role", role, "content", good.data ? good.data : "", good.size);
    gt_text_release(&good);
    return m && !json_array_append_new(messages, m)
               ? GT_OK
               : gt_fail(GT_NO_MEMORY, "no memory for a message of %zu bytes", size);
}

/* The sign that the template puts behind an answer, if it is one: nothing follows it in training. */
static gt_status find_end(cli_chat *c)
{
    static const char answer[] = "Geartrain";
    json_t *messages = json_array();
    chat_text text = { 0 };
    token_ids ids = { 0 };
    gt_status st = messages ? cli_chat_say(messages, "user", "x", 1) : gt_fail(GT_NO_MEMORY, "no memory for a message");
    if (!st)
        st = cli_chat_say(messages, "assistant", answer, sizeof answer - 1);
    if (!st)
        st = chat_template_render(c->format, messages, 0, &text);
    const char *end = !st && text.text.data ? strstr(text.text.data, answer) : NULL;
    end = end ? end + sizeof answer - 1 : NULL;
    if (end && *end)
        st = tokenizer_encode(c->writer->tokenizer, end, strlen(end), &ids);
    if (!st && ids.count && tokenizer_is_special(c->writer->tokenizer, ids.data[0]))
        st = token_ids_add(&c->writer->ends, ids.data, 1);
    json_decref(messages);
    chat_text_release(&text);
    token_ids_release(&ids);
    return st;
}

gt_status cli_chat_open(cli_chat **out, cli_writer *w, const char *file, const char *folder)
{
    *out = NULL;
    cli_chat *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "cannot chat: no memory for the template");
    c->writer = w;
    w->bare = 1;
    gt_status st = file ? chat_template_open_file(&c->format, file, folder) : chat_template_open(&c->format, folder);
    if (st == GT_NOT_FOUND && !file)
        st = gt_fail_in(st, "option --chat");
    if (!st)
        st = find_end(c);
    if (st)
        cli_chat_close(c);
    else
        *out = c;
    return st;
}

void cli_chat_close(cli_chat *c)
{
    if (!c)
        return;
    chat_template_release(c->format);
    free(c);
}

gt_status cli_chat_answer(cli_chat *c, const json_t *messages, uint64_t number, cli_written *out)
{
    chat_text text = { 0 };
    *out = (cli_written){ 0 };
    gt_status st = chat_template_render(c->format, messages, 1, &text);
    if (!st)
        st = cli_write(c->writer, text.text.data ? text.text.data : "", text.text.size, number, out);
    chat_text_release(&text);
    return st;
}
