/* SPDX-License-Identifier: MIT */
/* host/graph/graph.h - the static graph of one stage of a model.
 *
 *   model  --builds-->  forward nodes   --graph_backward-->  + gradient nodes
 *                                       --graph_plan------>  a place for every value
 *                                       --graph_exec------>  flat launch lists
 *
 * A value is written by exactly one node (parameter gradients and the loss sum excepted:
 * they accumulate). Every node belongs to one of three programs, so that a pipeline
 * schedule can reorder them: forward, input gradient, weight gradient.
 *
 *   graph *g;
 *   graph_create(&g, DTYPE_F32, B, T);
 *   int w = graph_param(g, "fc.weight", shape_of(2, N, K), GRAPH_INIT_NORMAL, 0.02f);
 *   int y = graph_linear(g, "fc", x, w, b, ACT_GELU_TANH, -1, 0.0f);
 *   if (graph_failed(g)) ...
 *
 * Builders return a value's index, or -1 once anything has failed; a builder given -1
 * where it needs a value does nothing, so a model checks once at the end.
 * Layouts: activations are (B,T,C) or (R,C) row-major; linear weights are (out, in).     */
#ifndef GT_GRAPH_GRAPH_H
#define GT_GRAPH_GRAPH_H

#include "host/base/status.h"
#include "host/tensor/activation.h"
#include "host/tensor/slice.h"

#include <stdio.h>

typedef struct graph graph;

/* UNIFORM: in [-deviation, deviation). */
typedef enum graph_init { GRAPH_INIT_ZERO, GRAPH_INIT_ONE, GRAPH_INIT_NORMAL, GRAPH_INIT_UNIFORM } graph_init;

/* An empty graph for micro-batches of B sequences of T tokens, activations and matrix
 * weights stored as `storage`. */
gt_status graph_create(graph **out, dtype storage, int B, int T);
void graph_release(graph *g);                  /* takes NULL */
/* GT_OK, or the first failure of a builder with its sentence recorded again. */
gt_status graph_failed(graph *g);
/* For who builds: st has gone wrong, as the sentence recorded last says. */
void graph_fail_build(graph *g, gt_status st);
int graph_batch(const graph *g);
int graph_tokens(const graph *g);
dtype graph_storage(const graph *g);

/* Nodes built from now on belong to this layer (-1: none); names the unit of recomputation
 * and of pipeline cuts. Dropouts are numbered within a layer, so that a stage draws the bits that
 * the whole model would. */
void graph_layer(graph *g, int layer);

/* ---- parts of a model ------------------------------------------------------------------ */
/* What one rank of a plan builds. Units: 0 is the embedding, 1 .. L the layers, L + 1 the head.
 * A stage that does not begin with unit 0 has a stage input, the activations; one that does not
 * end with the head takes "dy". With several ranks in the tensor group every layer is split:
 * heads, columns of the inner layer and rows of the vocabulary by share; between those the
 * B x T rows of the activations are (sequence parallel norms, Korthikanti et al. 2022). */
typedef struct graph_part {
    int first_unit, units;
    int ranks, rank;            /* of the tensor group; ranks 0 or 1: not split            */
    const double *share;        /* [ranks], adds up to 1; NULL: equal                      */
} graph_part;

/* GT_MISUSE if the shares are no shares: one for each rank, all above 0, adding up to 1. */
gt_status graph_part_check(const graph_part *p);
/* Of `count` things in pieces of `quantum` (the last one may be short), rank k's; every rank has
 * at least one piece if there are as many. */
void graph_part_of(const graph_part *p, int64_t count, int64_t quantum, int k, int64_t *begin, int64_t *size);

/* Before any builder: from now on activations between gather and scatter are whole, others the rows
 * of this rank. Copies what it needs of p. */
void graph_split(graph *g, const graph_part *p);
/* Rows of the activations that this rank holds between blocks: B x T if nothing is split. */
int64_t graph_rows(const graph *g);

/* ---- values that come from outside ---------------------------------------------------- */
/* An int32 or fp32 or storage-type array that the caller fills or binds; found by name. */
int graph_input(graph *g, const char *name, dtype type, shape s);
/* The activations that come from the stage before, storage type: their gradient goes back there. */
int graph_stage_input(graph *g, const char *name, shape s);
/* A trainable tensor. Tensors of rank 2 and more decay and are stored as graph_storage();
 * vectors do not decay and stay fp32. */
int graph_param(graph *g, const char *name, shape s, graph_init init, float deviation);
/* The same of which only a slice is held; `full` is the shape of all of it. */
int graph_param_sliced(graph *g, const char *name, shape full, const tensor_slice *slice, graph_init init,
                       float deviation);
/* Which of the parameters declared from now on are trained: those that a pattern of `only` matches (NULL:
 * all) and none of `but` (NULL: none of it matches). Patterns are a shell's (*, ?, [a-z]) and are of whole
 * names, separated by commas. The others are frozen: no gradient, no state, no fp32 master beside what is
 * computed with; backward stops where nothing before needs a gradient. Both strings must outlive the graph. */
void graph_train(graph *g, const char *only, const char *but);
/* Others that are trained beside `only`. */
void graph_train_too(graph *g, const char *patterns);
/* A parameter that the next node reads on another rank of the tensor group, and that is not held here: ranks
 * then agree on how far down gradients are exchanged, whatever is frozen. */
void graph_param_elsewhere(graph *g, const char *name);
/* What frozen matrices of linear layers are stored as from now on: graph_storage(), or a type that takes
 * less (DTYPE_BF16, DTYPE_F16, DTYPE_Q8), of which the products read what they need. Tables and vectors
 * stay as they are. */
void graph_base(graph *g, dtype type);
/* 1 if `name` is matched by one of the patterns, separated by commas. */
int graph_pattern_matches(const char *patterns, const char *name);
/* Memory that outlives a run, such as a key cache; storage type, zero at first. */
int graph_state(graph *g, const char *name, shape s);
/* fp32 numbers that never change, copied: a table. One a name; of another that is there already the first
 * numbers stay. */
int graph_constant(graph *g, const char *name, shape s, const float *numbers);

/* ---- operations --------------------------------------------------------------------------- */
/* `drop` is a probability; 0 adds nothing to the graph. */
int graph_embed(graph *g, const char *name, int tokens, int token_table, int position_table, int first);
/* The same with an offset and token types: token t of a sequence has row `offset` + t of the positions, and
 * the row of `types` that the i32 (B,T) `kinds` says. Values, -1 where there is none; tokens and table
 * must be there. */
typedef struct graph_embedding {
    int tokens, table, positions, first, kinds, types;
    int offset;
} graph_embedding;
int graph_embed_sum(graph *g, const char *name, const graph_embedding *in);
int graph_dropout(graph *g, const char *name, int x, float drop);
int graph_layernorm(graph *g, const char *name, int x, int gain, int bias, float eps);
/* y = x / rms(x) (gain + offset) of rows as long as gain is, of which a row of x may hold several, as heads. */
int graph_rmsnorm(graph *g, const char *name, int x, int gain, float eps, float offset);
/* Rotary positions of heads side by side in rows (B,T) of x: table (positions, columns of a head) fp32, of
 * each position half the columns' cosines, then their sines. first, i32 (1): the position of the first token;
 * -1: 0. */
int graph_rope(graph *g, const char *name, int x, int table, int first);
/* act(gate) * up. */
int graph_gated(graph *g, const char *name, int gate, int up, activation act);
/* y = dropout(act(x w' + bias)) + residual; bias and residual may be -1. */
int graph_linear(graph *g, const char *name, int x, int w, int bias, activation act, int residual, float drop);
/* A low-rank part that is added to a product: scale * h b'. h (..,rank) is made of x by the caller (x a', after
 * a dropout, if any), b (out,rank) is a parameter. */
typedef struct graph_low_rank {
    int h, b;
    float scale;
} graph_low_rank;
/* graph_linear() of x w' + scale * h b' + bias. */
int graph_linear_low_rank(graph *g, const char *name, int x, int w, const graph_low_rank *low, int bias, activation act,
                          int residual, float drop);
/* fp32 (out): the norms of the rows of w + scale * b a. A constant to gradients. */
int graph_row_norms(graph *g, const char *name, int w, int a, int b, float scale);
/* z * m / n + bias, a factor a column: m a parameter, n as graph_row_norms() gives it; bias -1: none. */
int graph_scale_columns(graph *g, const char *name, int z, int m, int n, int bias);
/* z, with scale * u added to its columns from `first` on. */
int graph_add_columns(graph *g, const char *name, int z, int u, int64_t first, float scale);
/* act(x), on its own; x itself for ACT_NONE. */
int graph_activation(graph *g, const char *name, int x, activation act);
/* Columns of a value's rows, from `first` on: q, k and v may be parts of one product. */
typedef struct graph_columns {
    int value;
    int64_t first;
} graph_columns;
typedef struct graph_attention_in {
    graph_columns q, k, v;
} graph_attention_in;
typedef struct graph_heads {
    int heads, kv_heads;        /* of q; of k and v: as many, or a divisor of them. These are what is
                                   here, of a layer that is split over ranks                 */
    int size;                   /* columns of a head                                         */
    int first_head, all_heads;  /* dropout counts these heads as first_head .. of all_heads of the
                                   layer; all_heads 0: all are here                          */
    int causal;                 /* 1: a token sees those before it and itself; 0: all T      */
    int window;                 /* causal: it sees as many tokens at most, itself among them; 0: all */
    float scale;                /* what scores are multiplied by; 0: 1 / sqrt(size)          */
    float drop;
} graph_heads;
/* Rows (B,T) of q, k and v -> (B,T,heads * size). What is given of a value must be all of its columns.
 * lengths: i32 (B), how many tokens of each sequence others may see, the rest being padding; -1: all. */
int graph_attention(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int lengths);
/* The same within documents: starts, i32 (B,T), is the first position of the sequence that a token may see, not
 * beyond its own and never below that of the token before it; -1: 0 for all. */
int graph_attention_within(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how,
                           int starts);
/* Generation: keys, values (B,kv_heads,capacity,size) are states that new tokens are appended to at the
 * position in `first`, i32 (1). */
int graph_attention_cached(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int keys,
                           int values, int first);
int graph_scale(graph *g, const char *name, int x, float factor);
int graph_add(graph *g, const char *name, int a, int b);
/* All ranks' rows (B,T,C) of their own (graph_rows(),C); and own rows of the sum over ranks of
 * (B,T,C). x itself if nothing is split. */
int graph_gather_rows(graph *g, const char *name, int x);
int graph_scatter_rows(graph *g, const char *name, int x);
/* Softmax cross-entropy of x w' + bias (-1: none) against targets (negative ones are ignored), each times its
 * weight (fp32, one a target; 0: ignored; weights -1: all are 1): the sum over rows is added to the input
 * "loss_sum" (fp32[1]); also gives the losses, fp32 (R). A graph may have several.
 * Logits exist for a block of rows at a time only. In a tensor group x, targets and weights are whole on every
 * rank. If w (and bias) is a slice of rows, all ranks have the losses, and rank 0 alone adds them to "loss_sum", the
 * others add 0. If it is whole, rank 0 alone computes; losses and gradients are 0 on the others. */
typedef struct graph_head {
    int x, w, bias, targets, weights;
    int hits;                   /* 1: rows whose logits are largest at their target are counted, into "hit_sum" */
} graph_head;
int graph_head_loss_of(graph *g, const char *name, const graph_head *h);
/* The same without a bias. */
int graph_head_loss(graph *g, const char *name, int x, int w, int targets, int weights);
/* fp32 logits (R,V) of x w' + bias (-1: none), for generation and for counting. */
int graph_logits(graph *g, const char *name, int x, int w);
int graph_logits_biased(graph *g, const char *name, int x, int w, int bias);
/* Rows `places`, i32 (B,P), of each sequence of x (B,T,C) -> (B,P,C); a place outside [0,T) gives 0. places -1:
 * the first row of each, (B,1,C). */
int graph_take_rows(graph *g, const char *name, int x, int places);
/* x as fp32, to be read when the graph has run. */
int graph_result(graph *g, const char *name, int x);
/* Adds how many rows of logits (R,V) are largest at their target, i32 (R), to the input "hit_sum" (fp32[1]). In a
 * tensor group logits are whole on every rank, and rank 0 alone counts. */
int graph_hits(graph *g, const char *name, int logits, int targets);

/* ---- gradients ------------------------------------------------------------------------------ */
/* Emits the gradient nodes of everything built so far, starting from the head loss, or, on
 * a stage without one, from the input "dy" for value `y`. The gradient of input activation
 * `x` (or -1) is computed too. With `recompute`, a layer's forward runs again before its
 * backward instead of being kept. */
gt_status graph_backward(graph *g, int y, int x, int recompute);

/* What travels between stages: values, -1 where there is none. x and dy come in, y and dx go out. */
typedef struct graph_ends {
    int x, dx, y, dy;
} graph_ends;
graph_ends graph_ends_of(const graph *g);       /* of a forward graph: its stage input, its last value */

/* An operation whose work is to hand rows between the ranks of a tensor group. */
typedef enum graph_exchange { GRAPH_GATHER, GRAPH_SCATTER_SUM } graph_exchange;

/* ---- looking at it ------------------------------------------------------------------------ */
typedef enum graph_phase { GRAPH_FORWARD, GRAPH_INPUT_GRAD, GRAPH_WEIGHT_GRAD } graph_phase;

typedef enum graph_role { GRAPH_INPUT, GRAPH_PARAM, GRAPH_PARAM_GRAD, GRAPH_ACTIVATION, GRAPH_STATE } graph_role;

typedef struct graph_value {
    char name[72];
    graph_role role;
    dtype type;
    shape shape;
    int param;                  /* PARAM, PARAM_GRAD: index among the parameters */
    int stage_input;            /* 1: see graph_stage_input()                    */
    float *numbers;             /* of graph_constant(), the graph's; else NULL   */
} graph_value;

typedef struct graph_param_info {
    char name[72];
    shape shape;                /* of what is held  */
    shape full;                 /* of all of it     */
    tensor_slice slice;
    graph_init init;
    float deviation;
    int decay;
    int frozen;                 /* 1: see graph_train()                                      */
    dtype type;                 /* what is computed with; trained ones have fp32 masters     */
    int table;                  /* 1: a row a token or position (embedding, head), not a map between channels */
    int value;                  /* the PARAM value  */
    int grad;                   /* the PARAM_GRAD value, -1 before graph_backward, and of frozen ones */
} graph_param_info;

int graph_value_count(const graph *g);
const graph_value *graph_value_at(const graph *g, int value);
int graph_value_find(const graph *g, const char *name);         /* -1 if absent */
int graph_param_count(const graph *g);
const graph_param_info *graph_param_at(const graph *g, int param);
int64_t graph_param_elements(const graph *g);
/* Bytes of one as it is computed with. */
uint64_t graph_param_bytes(const graph_param_info *p);
int64_t graph_trained_elements(const graph *g);
/* Bytes of the frozen parameters, as they are stored. */
uint64_t graph_frozen_bytes(const graph *g);
/* Rows of the token table that the graph embeds from, those of other ranks too; 0 if this stage
 * embeds nothing. */
int graph_vocabulary(const graph *g);
/* What belongs to a phase, over the whole graph: 2 per multiply-add. */
double graph_flops(const graph *g, graph_phase phase);

#endif
