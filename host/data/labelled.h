/* SPDX-License-Identifier: MIT */
/* host/data/labelled.h - documents with labels, as a classifier reads them.
 *
 *   data_request r = { .text_key = "text", .pair_key = NULL, .label_key = "label" };
 *   data_open_as(&d, "reviews.csv", &r);             d.labels[0 .. d.label_count): their names
 *   token_split_set_reading(&d.train, &(token_reading){ .by_document = 1 }, "reviews.csv");
 *   loader_open(&l, &d.train, ...);                  samples are documents, shuffled anew each epoch
 *   loader_fill(&l, position, first, count,
 *               &(loader_fields){ .tokens = .., .types = .., .lengths = .., .labels = .. });
 *
 * A document is the ids of its text, or of a pair, in the tokenizer's template ([CLS] a [SEP] b [SEP]); `types` is 1
 * for the second text. One that is longer than T is cut to its first T - 1 tokens and its last. `lengths` are the
 * positions that hold tokens; behind them tokens are 0. Labels are numbered in the order of their names' bytes, or as
 * numbers where all are whole numbers. Rows that pad an evaluation have label LOADER_IGNORE.                    */
#ifndef GT_DATA_LABELLED_H
#define GT_DATA_LABELLED_H

#include "host/data/dataset.h"
#include "host/data/loader.h"

/* GT_MISMATCH, with what to do, if the data have no labels. */
gt_status data_check_labelled(const data_set *d, const char *name);

/* Numbers labels as these names are numbered, of which the data may lack some: what is read of d from now on. The
 * splits of d must not be copied before. GT_MISMATCH for a label that is none of them. */
gt_status data_name_labels(data_set *d, const char *const *names, int count, const char *name);

#endif
