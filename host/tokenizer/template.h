/* SPDX-License-Identifier: MIT */
/* host/tokenizer/template.h - chats as text: the chat templates that lie beside tokenizers.
 *
 *   chat_template *t;
 *   chat_text out = { 0 };
 *   chat_template_open(&t, "folder");                          its chat_template.jinja or tokenizer_config.json
 *   chat_template_render(t, messages, 1, &out);                [{"role": "user", "content": "Hello"}]
 *   out.text.data                                              "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
 *
 * The language is the part of Jinja that such templates are written in, as transformers sets it up (trim_blocks,
 * lstrip_blocks, loop controls, {% generation %}): for, if, set, break, continue, raw; expressions with strings and lists
 * indexed and sliced, + - * / // % ** ~ in is == < and or not, inline if, loop.*, namespace, range, raise_exception;
 * the filters and tests of template_value.c and methods of Python's strings and dictionaries. The text is what
 * Python's jinja2 gives. Everything else (macros, includes, unknown filters) is refused by name, with the line.
 * strftime_now is not defined: the same data give the same tokens on any day.
 *
 * Errors     GT_FORMAT for what is no template, GT_UNSUPPORTED for what is not computed here, GT_MISMATCH with the
 *            template's own sentence for what it refuses by raise_exception; all with name and line.
 * Ownership  what open and parse give goes to chat_template_release(), which takes NULL.
 * Threads    a template never changes; rendering may run anywhere.                                          */
#ifndef GT_TOKENIZER_TEMPLATE_H
#define GT_TOKENIZER_TEMPLATE_H

#include "host/base/status.h"
#include "host/base/text.h"

#include <jansson.h>
#include <stddef.h>

typedef struct chat_template chat_template;

/* Bytes [begin, end) of a text. */
typedef struct chat_span {
    size_t begin, end;
} chat_span;

/* Zero-initialise; used again, it is emptied first. */
typedef struct chat_text {
    gt_text text;
    chat_span *spans;                   /* what an assistant said, in order */
    size_t span_count, span_room;
} chat_text;

void chat_text_release(chat_text *t);

/* The template of a folder with a tokenizer: chat_template.jinja, or "chat_template" of tokenizer_config.json (of
 * several, "default"), and with it bos_token, eos_token, ... of tokenizer_config.json and special_tokens_map.json.
 * GT_NOT_FOUND if the folder has none. */
gt_status chat_template_open(chat_template **out, const char *folder);
/* The same from a file of the user's; the folder's tokens, if it is not NULL. */
gt_status chat_template_open_file(chat_template **out, const char *file, const char *folder);
/* From memory; tokens: an object of strings (bos_token, ...), or NULL. `name` stands for the file in sentences. */
gt_status chat_template_parse(chat_template **out, const char *source, size_t size, const json_t *tokens,
                              const char *name);
void chat_template_release(chat_template *t);

/* Writes FOLDER/chat_template.jinja, from which chat_template_open() reads it again, and the tokens that it names. */
gt_status chat_template_save(const chat_template *t, const char *folder);
/* The same from one tokenizer's folder to another, whatever the template says; nothing if there is none. */
gt_status chat_template_copy(const char *from, const char *to);
/* The same number, the same texts. */
unsigned long long chat_template_hash(const chat_template *t);

/* Does the template mark answers itself, by {% generation %}? */
int chat_template_marks(const chat_template *t);

/* messages: an array of objects with "role" and "content". out->spans are those of {% generation %}. */
gt_status chat_template_render(const chat_template *t, const json_t *messages, int add_generation_prompt,
                               chat_text *out);

/* A whole conversation, with spans in any case: where the template does not mark answers, an answer begins behind
 * what the template gives for the messages before it with add_generation_prompt, and ends with what the template puts
 * behind its content. */
gt_status chat_template_render_answers(const chat_template *t, const json_t *messages, chat_text *out);

/* A record of a chat file as messages: {"messages": [{"role", "content"}, ...]}, or {"conversations": [{"from",
 * "value"}, ...]} (human, gpt, system), which is what `key` holds. A new reference. GT_FORMAT for anything else; the
 * sentence begins with "it". */
gt_status chat_messages(json_t **out, const json_t *record, const char *key);

#endif
