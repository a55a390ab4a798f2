/* SPDX-License-Identifier: MIT */
/* host/cli/data_options.c - see data_options.h. */
#include "host/cli/data_options.h"

#include <string.h>

reader_keys data_options_keys(const data_options *o)
{
    static const char *const formats[] = { "auto", "text", "jsonl", "csv", "tsv" };     /* [data_format] */
    reader_keys k = { .text = o->text_key, .pair = o->pair_key, .label = o->label_key };
    for (int f = 0; f < (int)(sizeof formats / sizeof *formats); f++)
        if (!strcmp(o->format, formats[f]))
            k.format = (data_format)f;
    return k;
}
