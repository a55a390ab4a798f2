/* SPDX-License-Identifier: MIT */
/* host/data/dataset.h - whatever --data names, opened: splits and the tokenizer.
 *
 *   data_set d;
 *   st = data_open(&d, "input.txt", "char", NULL, NULL);
 *   loader_open(&l, &d.train, ...);   loader_open(&e, &d.val, ...);
 *
 * PATH is a file, a folder, a pattern, a list of these, or a mixture of them (host/data/sources.h):
 *   a folder of token files   ours (host/data/tokenize.h), llm.c's or nanoGPT's: every
 *                             *.bin whose name holds "train" or "val", in order of names
 *   one token file            by its header, or by the name's end ".bin"; all of it trains
 *   texts and records         tokenized into the cache folder on first use, keyed by what they hold, the tokenizer
 *                             and the split, and found there from then on; the last 10 % of the characters of a text
 *                             validate (nanoGPT's split), or of records the last 10 % (with labels: of each).
 *                             A trained tokenizer, char or bpe:SIZE, sees all of the text.
 *   a mixture                 each source with its own splits, and one tokenizer
 *
 * Processes that open the same text at the same time wait for the first, which does it. What was
 * kept and is damaged is made again, with a warning.                                      */
#ifndef GT_DATA_DATASET_H
#define GT_DATA_DATASET_H

#include "host/data/reader.h"
#include "host/tokenizer/template.h"
#include "host/tokenizer/tokenizer.h"
#include "host/data/tokens.h"

#define DATA_VAL_FRACTION 0.1

typedef struct data_set {
    tokenizer *tokenizer;       /* NULL: token files that came without one */
    char *tokenizer_path;       /* what tokenizer_open() made it of; other data are read with it */
    token_split train, val;     /* val.count is 0 if there is no such split */
    chat_template *chat;        /* that chats were rendered with; NULL: none */
    char **labels;              /* their names, by number; NULL: documents have none */
    int label_count;
    int32_t *relabel;           /* of data_name_labels(); else NULL */
    uint64_t train_documents, val_documents;    /* of records; 0: not known */
} data_set;

typedef enum data_kind { DATA_FOLDER, DATA_TOKEN_FILE, DATA_TEXT } data_kind;
/* DATA_TEXT: some of it has to be tokenized. What is not there is text. */
data_kind data_kind_of(const char *path);
/* The folder of the tokenizer that token files bring, of the first that does; NULL: none. free() it. */
char *data_brings_tokenizer(const char *path);

typedef struct data_request {
    /* A tokenizer (tokenizer_open, tokenizer_train) or NULL: the folder's own, none for bare token
     * files, "byte" for text. */
    const char *spec;
    int token_bits;                     /* of bare token files, 0: see token_file_open()        */
    reader_keys keys;                   /* of records */
    int lenient;                        /* keys may find no records: they were given for other data */
    const char *chat_template;          /* a file, or NULL: the one that lies beside the tokenizer */
    int whole;                          /* everything in `train`: a text is not cut in two      */
    data_progress progress;
    void *context;
} data_request;

/* GT_MISMATCH if a folder's tokens were made by another tokenizer than `spec`. On failure *out is
 * empty. */
gt_status data_open_as(data_set *out, const char *path, const data_request *r);
/* The same with both splits and token_bits 0. */
gt_status data_open(data_set *out, const char *path, const char *spec, data_progress progress, void *context);
void data_close(data_set *d);

#endif
