/* SPDX-License-Identifier: MIT */
/* host/cli/writer.h - a text by a model, for whoever shows it: the verb `generate`, and training's samples.
 *
 * A text ends after so many tokens, before a stop string, or at an id that ends texts.        */
#ifndef GT_CLI_WRITER_H
#define GT_CLI_WRITER_H

#include "host/cli/cli.h"
#include "models/generate.h"

typedef struct cli_writer {
    generate *generate;
    tokenizer *tokenizer;
    sampling_rule rule;
    uint64_t tokens, seed;
    const char *const *stop;            /* strings                              */
    int stops;
    token_ids ends;                     /* ids; cli_end_ids()                   */
    int bare;                           /* 1: prompts hold all signs to the model, as chat templates write them */
    /* What can be shown as it comes; NULL: nothing. */
    gt_status (*show)(void *context, const char *text, size_t size);
    void *context;
} cli_writer;

typedef struct cli_written {
    gt_text text;                       /* release it */
    uint64_t prompt_tokens, tokens;     /* of the prompt; that were drawn, the end not among them */
    const char *why;                    /* it ended: "length", "stop" or "end" */
    double prompt_seconds, seconds;     /* for the prompt; for what follows    */
} cli_written;

/* Writes behind a prompt, from an empty cache. In front of it stands what the tokenizer puts in front of texts. The same writer, prompt and number give the same text,
 * whatever was written before; number: 0, 1, ... of several samples. */
gt_status cli_write(const cli_writer *w, const char *prompt, size_t size, uint64_t number, cli_written *out);
void cli_written_release(cli_written *out);

/* Only ids that the tokenizer can spell are drawn. */
gt_status cli_allow_tokens(generate *g, const tokenizer *t, int vocab);
/* The ids that end a text: the tokenizer's, and "eos_token_id" of generation_config.json (or, without one
 * there, of config.json) in a Hugging Face folder or a run; NULL: there is none. GT_FORMAT for what are no ids. */
gt_status cli_end_ids(token_ids *out, const tokenizer *t, const char *folder);
/* Hands on what ends texts, from the folder of a model or a run (or NULL) to another: generation_config.json, from which
 * both cli_end_ids() and transformers read it. One that is there stays; nothing is written where nothing ends texts. */
gt_status cli_end_ids_keep(const tokenizer *t, const char *folder, const char *to);

/* One JSON object on a line: what `extra` says (`"prompt": 1, `, or ""), the text and what is known of it. */
void cli_written_json(gt_text *out, const cli_written *w, const char *extra);
/* Bytes as a JSON string; what is no UTF-8 becomes U+FFFD. */
void cli_json_string(gt_text *out, const char *text, size_t size);

#endif
