/* SPDX-License-Identifier: MIT */
/* models/model_private.h - what the files of this room share. */
#ifndef GT_MODELS_PRIVATE_H
#define GT_MODELS_PRIVATE_H

#include "models/model.h"

gt_status gpt2_build_part(graph *g, const model_config *c, const graph_part *part, int train,
                          int recompute);
gt_status gpt2_build_generate(graph *g, const model_config *c, int capacity);

#endif
