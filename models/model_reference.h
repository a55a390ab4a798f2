/* SPDX-License-Identifier: MIT */
/* models/model_reference.h - a model's loss and gradients in double, by host/kernel/reference.h alone.
 *
 *   model_reference *r;
 *   model_reference_create(&r, &config);
 *   ... fill model_reference_find(r, name)->value ...
 *   model_reference_run(r, B, T, tokens, targets, weights, &loss);        fills the gradients
 *
 * Nothing in it is shared with the kernels, graphs or devices, so it tells who is right where a
 * device's training step is in doubt. Slow: for models of some hundred channels. No dropout. */
#ifndef GT_MODELS_MODEL_REFERENCE_H
#define GT_MODELS_MODEL_REFERENCE_H

#include "models/model.h"

typedef struct model_reference model_reference;

typedef struct model_reference_tensor {
    char name[72];                  /* as the graph's parameter; the same shape, row-major */
    int64_t count;
    double *value, *grad;
} model_reference_tensor;

gt_status model_reference_create(model_reference **out, const model_config *c);
void model_reference_release(model_reference *r);      /* takes NULL */
/* NULL if the model has no such parameter. */
model_reference_tensor *model_reference_find(model_reference *r, const char *name);
/* The mean loss of B x T targets, weighted by `weights` (NULL: 1 each; their sum must not be 0), and its
 * gradients, which are overwritten. */
gt_status model_reference_run(model_reference *r, int B, int T, const int32_t *tokens, const int32_t *targets,
                              const double *weights, double *loss);

#endif
