/* SPDX-License-Identifier: MIT */
/* models/llama.h - Llama and its relatives: see llama.c. */
#ifndef GT_MODELS_LLAMA_H
#define GT_MODELS_LLAMA_H

#include "models/family.h"

/* Of model_config.own. */
enum {
    LLAMA_KV_HEADS,             /* heads of keys and values                                      */
    LLAMA_HEAD,                 /* columns of a head                                             */
    LLAMA_ACTIVATION,           /* of the gate; 0: silu, in Gemma gelu_tanh                      */
    LLAMA_ATTENTION_BIAS,       /* 1: q, k, v and o have biases                                  */
    LLAMA_QKV_BIAS,             /* 1: q, k and v do (Qwen2)                                      */
    LLAMA_MLP_BIAS,
    LLAMA_HEAD_NORM,            /* 1: heads of q and k are normalised (Qwen3)                    */
    LLAMA_GEMMA,                /* 1: embeddings times sqrt(channels), norms by 1 + weight       */
    LLAMA_WINDOW,               /* how many tokens attention sees; 0: all                        */
    LLAMA_USES_WINDOW,          /* 0: the window is not used                                     */
    LLAMA_WINDOW_FROM,          /* the first layer that has it                                   */
    LLAMA_THETA,                /* rotary positions: the base, and how it is scaled (llama_rope.c) */
    LLAMA_ROPE,                 /* of llama_rope                                                 */
    LLAMA_ROPE_FACTOR,
    LLAMA_ROPE_LOW,
    LLAMA_ROPE_HIGH,
    LLAMA_ROPE_ORIGINAL,
    LLAMA_ROPE_ATTENTION,
    LLAMA_ROPE_FAST,
    LLAMA_ROPE_SLOW,
    LLAMA_ROPE_MSCALE,
    LLAMA_ROPE_MSCALE_ALL,
    LLAMA_ROPE_TRUNCATE,
    LLAMA_OWN
};
typedef enum llama_rope {
    LLAMA_ROPE_PLAIN,
    LLAMA_ROPE_LINEAR,
    LLAMA_ROPE_DYNAMIC,
    LLAMA_ROPE_YARN,
    LLAMA_ROPE_3
} llama_rope;

int llama_head(const model_config *c);
int llama_kv_heads(const model_config *c);
activation llama_activation(const model_config *c);
/* How many tokens a token of this layer sees, itself among them; 0: all before it. */
int llama_window(const model_config *c, int layer);
/* Of each position, half a head's cosines, then its sines: (positions, head), as graph_rope() takes them. */
void llama_rope_table(const model_config *c, int positions, double *table);
/* Whether the numbers of a description fit together. */
gt_status llama_rope_check(const model_config *c);

/* Checkpoints of llama2.c, as model_family has them. */
gt_status llama2c_describe(model_config *c, const char *path, int *is);
gt_status llama2c_import(const model_config *c, params *p, const char *path);

gt_status llama_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute);
gt_status llama_build_generate(graph *g, const model_config *c, const graph_part *part, int capacity);
double llama_flops_per_token(const model_config *c, int T);

extern const model_family llama_family, mistral_family, qwen2_family, qwen3_family, gemma_family;
extern const model_reference_rule llama_reference;

#endif
