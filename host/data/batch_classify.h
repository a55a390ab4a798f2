/* SPDX-License-Identifier: MIT */
/* host/data/batch_classify.h - batches of models that tell the class of a text.
 *
 * A sequence is a document with a label, framed and cut as host/data/labelled.h says; each weighs 1.
 *
 * Fields  tokens, token_types i32 (T); lengths, labels i32 (1), -1 in rows that pad an evaluation.              */
#ifndef GT_DATA_BATCH_CLASSIFY_H
#define GT_DATA_BATCH_CLASSIFY_H

#include "host/data/batch_mlm.h"

/* classes: that the model tells apart; GT_MISMATCH where a label is none of them. marks: what padding is; NULL: 0. */
void data_batch_classify(data_batch *out, const loader *l, const char *split, const data_marks *marks, int classes);

#endif
