/* SPDX-License-Identifier: MIT */
/* models/gpt2.h - GPT-2 and GPT-3: see gpt2.c. */
#ifndef GT_MODELS_GPT2_H
#define GT_MODELS_GPT2_H

#include "models/family.h"

/* Of model_config.own: scores are not divided by sqrt(channels / heads); scores of the i-th layer are
 * divided by i as well; the activation, 0 for GPT-2's own. */
enum { GPT2_UNSCALED, GPT2_BY_LAYER, GPT2_ACTIVATION };

activation gpt2_activation(const model_config *c);

extern const model_family gpt2_family;
extern const model_reference_rule gpt2_reference;

#endif
