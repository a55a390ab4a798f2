/* SPDX-License-Identifier: MIT */
/* host/data/batch_mlm.h - batches of models that find hidden tokens (Devlin et al., "BERT", 2018, section 3.1).
 *
 *   text       the cat sat on the mat
 *   tokens     [CLS] the [MASK] sat on the mat [SEP]        places 2, targets cat
 *
 * A sequence is a window of the loader's T tokens, of which as many at its end as the frame needs give way to
 * [CLS] and [SEP]. Of T tokens round(0.15 T), at least one, are to be found: 80 % of them are hidden by [MASK], 10 %
 * by a token drawn at random, 10 % stay. Signs to the model are never among them. With whole words a word is
 * hidden as a whole or not at all, so that there may be a few less.
 * Pairs: two texts [CLS] a [SEP] b [SEP], of which the second follows the first in one half of all samples and
 * comes from elsewhere in the others; `labels` are 0 and 1.
 * What is hidden is drawn from the seed and the sample's number alone, so it is the same under every plan; in an
 * evaluation from the row's number.
 *
 * Fields  tokens, token_types i32 (T); lengths i32 (1); places, targets i32 (data_mask_places(T)), of which those
 *         that are left over are place 0 and target -1; of pairs labels i32 (1), and label_weights f32 (1): as
 *         much as the sequence's targets together, so that a step's loss is the sum of both means.             */
#ifndef GT_DATA_BATCH_MLM_H
#define GT_DATA_BATCH_MLM_H

#include "host/data/batch.h"
#include "host/tokenizer/tokenizer.h"

enum { DATA_MARK_SPECIAL = 1, DATA_MARK_CONTINUES = 2 };

/* The signs of a tokenizer; never changes once it is made. */
typedef struct data_marks {
    int32_t begin, end, padding, mask;  /* [CLS] [SEP] [PAD] [MASK], or <s> </s> <pad> <mask> */
    int doubled;                        /* 1: two ends stand between the texts of a pair     */
    int whole_words;
    uint32_t vocab;
    unsigned char *kind;                /* [vocab], of the flags above */
} data_marks;

/* GT_MISMATCH if the tokenizer lacks one of them. On failure *out is empty. */
gt_status data_marks_open(data_marks *out, const tokenizer *t);
void data_marks_close(data_marks *m);

/* Tokens to be found in a sequence of T, at most. */
int64_t data_mask_places(uint64_t T);

/* marks must outlive the batch. NULL where what tokens mean does not matter, as in measurements. */
void data_batch_mlm(data_batch *out, const loader *l, const char *split, const data_marks *marks, int pairs);

#endif
