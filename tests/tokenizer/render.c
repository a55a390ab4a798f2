/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/render.c - renders chats for templates.sh: one JSON object on standard input, {"template", "tokens",
 * "messages", "prompt"}, a line; on standard output a JSON string a line, or null where the template refuses. */
#include "host/tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        json_t *job = json_loads(line, 0, NULL);
        const json_t *source = json_object_get(job, "template");
        chat_template *t = NULL;
        chat_text out = { 0 };
        gt_status st = chat_template_parse(&t, json_string_value(source), json_string_length(source),
                                           json_object_get(job, "tokens"), "it");
        if (!st)
            st = chat_template_render(t, json_object_get(job, "messages"), json_is_true(json_object_get(job, "prompt")),
                                      &out);
        if (st)
            fprintf(stderr, "%s\n", gt_message());
        json_t *text = st ? json_null() : json_stringn(out.text.data, out.text.size);
        json_dumpf(text, stdout, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        printf("\n");
        json_decref(text);
        chat_text_release(&out);
        chat_template_release(t);
        json_decref(job);
    }
    free(line);
    return 0;
}
