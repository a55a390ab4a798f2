/* SPDX-License-Identifier: MIT */
/* host/cli/data_options.h - options that say what of records is read, the same for every verb that reads data. */
#ifndef GT_CLI_DATA_OPTIONS_H
#define GT_CLI_DATA_OPTIONS_H

#include "host/base/options.h"
#include "host/data/reader.h"

typedef struct data_options {
    const char *format, *text_key, *pair_key, *label_key, *chat_template;
} data_options;

#define DATA_OPTIONS { .format = "auto" }

/* Rows of an option table; o: an lvalue, data_options. */
#define DATA_OPTION_ROWS(o) \
    { \
        "data-format", 0, GT_CHOICE, "auto|text|jsonl|csv|tsv", "of files; auto: by their names", &(o).format, 1, NULL \
    }, \
        { "text-key", 0, GT_STRING, "KEY", "of the text, or list of messages, in records [text]", &(o).text_key, 1, NULL }, \
        { "text-pair-key", 0, GT_STRING, "KEY", "of a second text, framed with the first", &(o).pair_key, 1, NULL }, \
        { "label-key", 0, GT_STRING, "KEY", "of the label, for classification", &(o).label_key, 1, NULL }, \
    { \
        "chat-template", 0, GT_STRING, "FILE", "of chats; default: the tokenizer's", &(o).chat_template, 1, NULL \
    }

reader_keys data_options_keys(const data_options *o);

#endif
