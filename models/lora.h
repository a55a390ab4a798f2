/* SPDX-License-Identifier: MIT */
/* models/lora.h - adapters: small matrices that are trained beside frozen ones.
 *
 *   y = x W' + s (drop(x) A') B' + bias             A (rank,in), B (out,rank), s = alpha / rank
 *   DoRA: y = m (x W' + s (x A') B') / n + bias,    n = | rows of W + s B A |, a constant to gradients
 *
 * A begins uniform in +-1 / sqrt(in), B with 0, m with the norms of W's rows: at first nothing differs.
 * Hu et al., "LoRA" (2021); Liu et al., "DoRA" (2024); rsLoRA's s = alpha / sqrt(rank): Kalajdzievski
 * (2023). Tensors are PREFIX.lora_A.weight, .lora_B.weight and .lora_magnitude_vector.
 *
 * Over the ranks of a tensor group A is cut where x has some of its columns, B and m where y has; what is
 * whole has the sum over ranks of the gradient, as norms do.
 *
 * Tensors of the model that are trained whole beside adapters, as a head that is new, are named by tuning.saved. Such
 * a matrix has no adapter.
 *
 * Files have the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors.   */
#ifndef GT_MODELS_LORA_H
#define GT_MODELS_LORA_H

#include "models/model.h"

/* What is trained, and how the rest is kept; before anything else is built. */
void lora_train(graph *g, const model_config *c);

/* ---- for block.c ---------------------------------------------------------------------------- */

/* 1 if the matrix of this name ("h.0.attn.c_attn") has an adapter: a pattern is of the whole name or of what
 * stands behind a dot. */
int lora_has(const model_config *c, const char *name);
typedef struct lora_site {
    const char *label;
    int x, w;
    int64_t out, in;
    tensor_slice held;          /* of w */
    int train;
} lora_site;
graph_low_rank lora_low_rank(graph *g, const model_config *c, const lora_site *at);
/* DoRA: z, the product without its bias, with its columns scaled, + bias (-1: none). */
int lora_scaled(graph *g, const model_config *c, const lora_site *at, const graph_low_rank *low, int z, int bias);
/* How many matrices of files this one of ours is, where some of those have adapters; 0: it is one, or none has. */
int lora_joined(const model_config *c, const char *name);
/* y, the product with such a matrix, with what adapters of its pieces add to their columns. */
int lora_add_pieces(graph *g, const model_config *c, const lora_site *at, int y);
float lora_scale(const model_tuning *t);

/* ---- for programs ---------------------------------------------------------------------------- */

/* GT_MISUSE, in one sentence, if a pattern of the tuning matches nothing in the model (with names that are
 * near it), or nothing is left to train. */
gt_status lora_check(const model_config *c);
/* Has tensors of the model kept beside its adapters: names, with commas between them. */
gt_status lora_save(model_config *c, const char *names);
/* Of a tensor: is it an adapter's, or the model's own? */
int lora_is_adapter(const graph_param_info *info);
int lora_is_base(const graph_param_info *info);
/* New adapters: A as the seed says, B 0, DoRA's magnitudes the norms of the rows of what p holds of the
 * base. After the base is loaded, before an adapter is. */
gt_status lora_begin(const model_config *c, params *p, uint64_t seed);

/* ---- PEFT's layout ------------------------------------------------------------------------------ */

/* 1 if a folder holds an adapter: transformers would read its model from elsewhere. */
int lora_is_folder(const char *folder);
/* What the folder's adapter_config.json says, into c's tuning; its `freeze` and `base` stay. A head of classes that
 * lies there makes that c's task. GT_UNSUPPORTED, by name, for what is not computed here: other kinds than LoRA,
 * patterns of ranks, trained biases. */
gt_status lora_read(model_config *c, const char *folder);
/* The numbers of the adapter that lora_read() described; p takes what it holds of them. All must be
 * there, and nothing else. */
gt_status lora_import(const model_config *c, params *p, const char *folder);
/* Writes adapter_config.json and adapter_model.safetensors, as PEFT reads them; base: what the config names as
 * the base model, or NULL. p holds whole tensors. */
gt_status lora_export(const model_config *c, params *p, dtype type, const char *base, const char *folder);
/* all, the numbers of the matrix `name` (out,in) row by row, becomes what the product with its adapter, if it
 * has one, comes to: w + s b a, with DoRA's rows scaled. */
gt_status lora_merge(const model_config *c, params *p, const char *name, float *all);

#endif
