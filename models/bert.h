/* SPDX-License-Identifier: MIT */
/* models/bert.h - BERT and RoBERTa: see bert.c. */
#ifndef GT_MODELS_BERT_H
#define GT_MODELS_BERT_H

#include "models/family.h"

/* Of model_config.own. */
enum {
    BERT_ACTIVATION,            /* an activation                                              */
    BERT_TYPES,                 /* token types                                                */
    BERT_POSITIONS,             /* rows of the table of positions                             */
    BERT_PADDING,               /* RoBERTa: the id of padding; positions begin behind it      */
    BERT_DROP_CLASSIFIER,       /* in front of the classifier                                 */
    BERT_ONLY                   /* words of which one only is computed                        */
};

extern const model_family bert_family, roberta_family;
extern const model_reference_rule bert_reference;

#endif
