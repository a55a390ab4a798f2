/* SPDX-License-Identifier: MIT */
/* models/block.h - what the graphs of all families are built of: who holds what, layers of weights, the frame.
 *
 * Over the ranks of a tensor group:
 *   x (own rows) -norm- gather -[ own heads | own inner columns ]- project - scatter
 *   + x;   each has own rows of the vocabulary for embedding and loss
 *
 * A family gives block_build_part() and block_build_generate() its four functions (block_stack), which call
 * the builders below. Whatever multiplies by a matrix of weights goes through block_linear() or
 * block_project(), and those through one function, block_multiply(). Builders return a value, -1 once
 * anything has failed, as graph.h's do. Names of parameters are prefix + name + ".weight" or ".bias". */
#ifndef GT_MODELS_BLOCK_H
#define GT_MODELS_BLOCK_H

#include "models/model.h"

enum { BLOCK_NAME = 72, BLOCK_TABLES = 4 };

/* A model or a part of it, being built. */
typedef struct builder {
    graph *g;
    const model_config *c;
    graph_part part;            /* ranks 1: not split                                            */
    int train;
    int capacity, first;        /* generation: positions of the caches, and the input that says
                                   where the new tokens begin; 0 and -1 elsewhere                 */
    int tables[BLOCK_TABLES];   /* values the family makes in begin() and needs later; -1 at first */
} builder;

/* The functions of a family. x: activations, own rows where the model is split. */
typedef struct block_stack {
    /* Makes parameters that several units share, before any other (NULL: there are none). */
    void (*begin)(builder *b);
    int (*embed)(builder *b);                           /* unit 0: tokens -> x                    */
    int (*embedded)(builder *b, int x);                 /* what is done to own rows of it; may be NULL */
    int (*layer)(builder *b, int layer, int x);         /* units 1 .. L                           */
    void (*head)(builder *b, int x);                    /* the last unit: x -> loss, or logits    */
} block_stack;

/* As model_build_part() and model_build_generate_part(). */
gt_status block_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute,
                           const block_stack *stack);
gt_status block_build_generate(graph *g, const model_config *c, const graph_part *part, int capacity,
                               const block_stack *stack);

/* Is unit 0, or the last one, among those that are built? */
int block_has_embedding(const builder *b);
int block_has_head(const builder *b);
/* A probability to drop with: 0 unless it is trained. */
float block_drop(const builder *b, float p);

/* ---- what a rank of a tensor group holds ------------------------------------------------------ */

/* Of `parts` runs of `count` columns or rows; quantum 0: pieces of 16, which keep matrices aligned, where
 * there are enough to share. */
tensor_slice block_own(const builder *b, int dim, int parts, int64_t count, int64_t quantum);
tensor_slice block_whole(void);
/* Rows of the vocabulary. */
tensor_slice block_own_tokens(const builder *b);

/* ---- parameters ---------------------------------------------------------------------------------- */

int block_weight(const builder *b, const char *prefix, const char *name, int64_t out, int64_t in, tensor_slice held,
                 float deviation);
/* `name` is all of what follows the prefix. */
int block_vector(const builder *b, const char *prefix, const char *name, int64_t n, tensor_slice held, graph_init init);

/* A parameter that rank 0 alone holds and the next node reads there: graph_param_elsewhere(). */
void block_elsewhere(const builder *b, const char *prefix, const char *name, const char *part);

/* ---- layers ---------------------------------------------------------------------------------------- */

int block_layernorm(const builder *b, const char *prefix, const char *name, int x);

/* A matrix of weights (out, in) with its bias, of which `held` is here. */
typedef struct block_matrix {
    const char *prefix, *name;
    int64_t out, in;
    tensor_slice held;
    int bias;                   /* 1: it has one                                                */
    float deviation;            /* of the numbers it begins with; 0: init_deviation, and of projections
                                   1 / sqrt(2 L) of that                                        */
} block_matrix;

/* y = act(x w' + bias): x is whole, and every rank has some of the `out` columns of all rows. */
int block_linear(const builder *b, const block_matrix *m, int x, activation act);
/* x w' + bias, dropped as dropout_residual says, + residual: x has some of the `in` columns, and own rows of the
 * sum over ranks come back. */
int block_project(const builder *b, const block_matrix *m, int x, int residual);
/* Attention over whole sequences (within documents where the run keeps them apart) or, when text is generated, over the caches PREFIX.keys and .values too. */
int block_attention(const builder *b, const char *prefix, const char *name, const graph_attention_in *in,
                    const graph_heads *how);
/* The input "tokens", i32 (B,T). */
int block_tokens(const builder *b);
/* Next-token loss of x, own rows, against rows of the vocabulary; when text is generated, its logits. */
void block_head(const builder *b, const char *name, int x, int table);

#endif
