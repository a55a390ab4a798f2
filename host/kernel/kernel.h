/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel.h - one typed function per kernel: appends its launches to a list.
 *
 * Each knows which body suits the device (cl/common.clh), the grid, and the order of the
 * arguments; nobody else does. Formulas and layouts stand in the head of the .cl files.
 *
 * Storage  tensors marked S are stored as the set's storage type (fp32, bf16, fp16);
 *          everything else is fp32 or int32 as said. Sums are fp32 always.
 * add      where a function takes `add`: 0 overwrites the result, 1 adds to it (gradient
 *          accumulation over micro-batches). It is a launch argument, so that one list
 *          serves both: the function gives back where it stands in *add_at (may be NULL).
 * Dims     B batch, T tokens, C channels, H heads, D = C/H, V vocabulary, R rows.
 * Errors   GT_NO_MEMORY, GT_DEVICE; sizes that do not fit an int32 are GT_UNSUPPORTED.
 * Results are bit-identical from run to run: no float atomics anywhere.                 */
#ifndef GT_KERNEL_H
#define GT_KERNEL_H

#include "host/device/device.h"
#include "host/tensor/activation.h"

/* The programs of one device for one storage type. */
typedef struct kernel_set kernel_set;
gt_status kernel_set_create(kernel_set **out, dev_device *d, dtype storage);
void kernel_set_release(kernel_set *k);
dtype kernel_set_storage(const kernel_set *k);
dev_device *kernel_set_device(const kernel_set *k);

/* Where a launch keeps an argument that changes from run to run (see dev_list_set). */
typedef struct kernel_slot {
    int launch, arg;
} kernel_slot;

/* Random bits for dropout: uint32[4] on the device = seed low, seed high, step, and the
 * first sequence of the micro-batch within the step.
 * `stream` tells one dropout of a model from the next. The mask is never stored: forward
 * and backward compute it again from (seed, step, stream, element). Elements are counted from the
 * step's first sequence, random[3] * sequence being the micro-batch's first, so that however a
 * step is cut into micro-batches, and shared out over ranks, the same elements are dropped.
 * Element i of stream s uses word (i % 4) of Philox(key = seed, counter = (low half of i / 4, s,
 * step, high half of i / 4)); it is kept if the word >= p * 2^32, and then divided by (1 - p). */
typedef struct kernel_dropout {
    float p;
    uint32_t stream;
    dev_buffer *random;
    int64_t sequence;           /* elements of one sequence; attention knows by itself        */
    int64_t before;             /* of kernel_dropout_apply: elements in front of those that are here, where
                                   the rows of a micro-batch are shared out                   */
    int first_head, heads;      /* of attention that has but some heads of a layer: the first, and
                                   of how many; heads 0: all are here                       */
} kernel_dropout;

/* ---- cl/embed.cl -------------------------------------------------------------------- */
/* The rows of the token table that are held: [begin, begin + count) of V. */
typedef struct kernel_rows {
    int begin, count, V;
} kernel_rows;
/* What is added up to a row. token S (held.count,C), x i32 (B,T); a token whose row is not held adds
 * nothing. position S (T..,C) or NULL: of token t row offset + t, and with `first` (i32[1] on the device,
 * or NULL for 0) so many more (generation). type S (types,C) or NULL: row kind[b,t], i32 (B,T). */
typedef struct kernel_embedding {
    dev_buffer *x, *token, *position, *first, *kind, *type;
    int offset, types;
} kernel_embedding;
/* y[b,t,:] = token[x[b,t],:] + position[..,:] + type[kind[b,t],:]; y S (B,T,C). */
gt_status kernel_embed(dev_list *l, kernel_set *k, int B, int T, int C, kernel_rows held, const kernel_embedding *in,
                       dev_buffer *y);
/* dtoken[v,:] += sum of dy rows where x = held.begin + v, in order of their index; fp32
 * (held.count,C). The host gives the rows sorted: order i32[R] = row numbers grouped by token,
 * starts i32[R+2] = {groups, first of group 0, first of group 1, ..., R}; kernel_embed_sort makes
 * both, of all V tokens. */
gt_status kernel_embed_token_grad(dev_list *l, kernel_set *k, int R, int C, kernel_rows held, dev_buffer *x,
                                  dev_buffer *order, dev_buffer *starts, dev_buffer *dy, dev_buffer *dtoken);
void kernel_embed_sort(const int32_t *x, int R, int V, int32_t *order, int32_t *starts, int32_t *scratch /* V + 1 */);
/* dposition[offset + t,:] (+)= sum over b of dy[b,t,:]; fp32. */
gt_status kernel_embed_position_grad(dev_list *l, kernel_set *k, int B, int T, int C, int offset, dev_buffer *dy,
                                     dev_buffer *dposition, int add, kernel_slot *add_at);
/* dtypes[i,:] (+)= sum of dy rows r with kind[r] = i; fp32 (types,C), kind i32 (R). */
gt_status kernel_embed_type_grad(dev_list *l, kernel_set *k, int R, int C, int types, dev_buffer *kind, dev_buffer *dy,
                                 dev_buffer *dtypes, int add, kernel_slot *add_at);

/* ---- cl/norm.cl --------------------------------------------------------------------- */
/* y = (x - mean) * rstd * gain + bias per row; x, y S (R,C); gain, bias fp32 (C);
 * mean, rstd fp32 (R), kept for backward (both NULL: not kept). */
gt_status kernel_layernorm(dev_list *l, kernel_set *k, int R, int C, float eps, dev_buffer *x, dev_buffer *gain,
                           dev_buffer *bias, dev_buffer *y, dev_buffer *mean, dev_buffer *rstd);
/* dx = gradient through the norm, + residual if not NULL (S (R,C): the gradient that reached
 * x by another way). dx may be residual. */
gt_status kernel_layernorm_input_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                      dev_buffer *gain, dev_buffer *mean, dev_buffer *rstd, dev_buffer *residual,
                                      dev_buffer *dx);
/* dgain (+)= sum dy*xhat, dbias (+)= sum dy; fp32 (C). scratch: kernel_column_scratch(R, C, 2)
 * bytes. */
gt_status kernel_layernorm_weight_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                       dev_buffer *mean, dev_buffer *rstd, dev_buffer *dgain, dev_buffer *dbias,
                                       dev_buffer *scratch, int add, kernel_slot *add_at);
/* y = x * rstd * (gain + offset) with rstd = 1 / sqrt(mean of x^2 + eps) (Zhang and Sennrich, "Root Mean
 * Square Layer Normalization", 2019); arguments as above. */
gt_status kernel_rmsnorm(dev_list *l, kernel_set *k, int R, int C, float eps, float offset, dev_buffer *x,
                         dev_buffer *gain, dev_buffer *y, dev_buffer *rstd);
gt_status kernel_rmsnorm_input_grad(dev_list *l, kernel_set *k, int R, int C, float offset, dev_buffer *dy,
                                    dev_buffer *x, dev_buffer *gain, dev_buffer *rstd, dev_buffer *residual,
                                    dev_buffer *dx);
/* scratch: kernel_column_scratch(R, C, 1). */
gt_status kernel_rmsnorm_weight_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                     dev_buffer *rstd, dev_buffer *dgain, dev_buffer *scratch, int add,
                                     kernel_slot *add_at);
/* dbias (+)= column sums of dy (R,C) S; fp32 (C). scratch: kernel_column_scratch(R, C, 1). */
gt_status kernel_bias_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *dbias,
                           dev_buffer *scratch, int add, kernel_slot *add_at);
uint64_t kernel_column_scratch(const kernel_set *k, int R, int C, int sums);

/* ---- cl/elementwise.cl -------------------------------------------------------------- */
/* y = act(x); dx = dy * act'(x). n elements S. */
gt_status kernel_activation(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *x, dev_buffer *y);
gt_status kernel_activation_grad(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *dy, dev_buffer *x,
                                 dev_buffer *dx);
/* y = act(gate) * up; dgate = dy * up * act'(gate), dup = dy * act(gate). n elements S. */
gt_status kernel_gated(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *gate, dev_buffer *up,
                       dev_buffer *y);
gt_status kernel_gated_grad(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *dy, dev_buffer *gate,
                            dev_buffer *up, dev_buffer *dgate, dev_buffer *dup);
/* y = a x. */
gt_status kernel_times(dev_list *l, kernel_set *k, int64_t n, float a, dev_buffer *x, dev_buffer *y);
gt_status kernel_add(dev_list *l, kernel_set *k, int64_t n, dev_buffer *a, dev_buffer *b, dev_buffer *y);
/* y = dropout(x); the gradient is the same function of dy. */
gt_status kernel_dropout_apply(dev_list *l, kernel_set *k, int64_t n, const kernel_dropout *drop, dev_buffer *x,
                               dev_buffer *y);
/* y = a x + b y, fp32. */
gt_status kernel_combine(dev_list *l, kernel_set *k, int64_t n, float a, dev_buffer *x, float b, dev_buffer *y);
/* Between fp32 and the set's storage type. */
gt_status kernel_store(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from_f32, dev_buffer *to);
gt_status kernel_load(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from, dev_buffer *to_f32);

/* ---- cl/rope.cl --------------------------------------------------------------------- */
/* Turns pairs of columns, i and i + D / 2 of each of H heads, by their position's angles (Su et al.,
 * "RoFormer", 2021). x, y S (B,T,H*D), D even; table fp32 (positions,D): a position's D / 2 cosines, then its
 * sines. `first` (i32[1] on the device, or NULL for 0) is added to t. back 1: by the angles' opposites, which
 * is the gradient. */
gt_status kernel_rope(dev_list *l, kernel_set *k, int B, int T, int H, int D, int back, dev_buffer *x,
                      dev_buffer *table, dev_buffer *first, dev_buffer *y);
/* ---- cl/adapter.cl ------------------------------------------------------------------ */
/* n = the norms of the rows of w + scale * b a: a (K,C), b (R,K) S; n fp32 (R). w (R,C) as it is kept: S,
 * DTYPE_BF16, or DTYPE_Q8 (host/tensor/q8.h) whose column 0 lies `first` columns within its block. */
gt_status kernel_row_norms(dev_list *l, kernel_set *k, int R, int C, int K, float scale, dtype kept, int first,
                           dev_buffer *w, dev_buffer *a, dev_buffer *b, dev_buffer *n);
/* y = z * m / n + bias: z, y (R,C) S; m, n, bias fp32 (C), bias may be NULL. y may be z. */
gt_status kernel_scale_columns(dev_list *l, kernel_set *k, int R, int C, dev_buffer *z, dev_buffer *m, dev_buffer *n,
                               dev_buffer *bias, dev_buffer *y);
/* y (R,N) = z, with scale * u (R,C) added to the columns from `first` on; and u = scale * those columns of z. S. */
gt_status kernel_add_columns(dev_list *l, kernel_set *k, int R, int C, int N, int first, float scale, dev_buffer *z,
                             dev_buffer *u, dev_buffer *y);
gt_status kernel_take_columns(dev_list *l, kernel_set *k, int R, int C, int N, int first, float scale, dev_buffer *z,
                              dev_buffer *u);
/* p = dy * z / n: dy, z, p (R,C) S; n fp32 (C). */
gt_status kernel_magnitude_product(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *z,
                                   dev_buffer *n, dev_buffer *p);

/* ---- cl/attention.cl ---------------------------------------------------------------- */
/* Heads of D side by side in rows `stride` elements apart, B x T of them, from element `first` of a
 * buffer on: q, k and v may be columns of one matrix. For GPUs first and stride must be multiples of
 * 4 where D is. */
typedef struct kernel_heads {
    dev_buffer *buffer;
    int64_t first;
    int stride;
} kernel_heads;
/* H heads of q; each H / KV neighbours look at one of the KV heads of k and v (Ainslie et al., "GQA",
 * 2023). lengths, i32 (B) on the device or NULL for T each: of a sequence keys from there on, the padding,
 * are hidden from all its queries, and get gradients of 0. If causal and without lengths: window, how many
 * keys a query sees at most, itself among them (0: all); starts, i32 (B,T) on the device or NULL: the first one
 * that it sees, not beyond itself and never below the one of the query before it. */
typedef struct kernel_attention_shape {
    int B, T, H, KV, D, causal;
    float scale;
    dev_buffer *lengths;
    int window;
    dev_buffer *starts;
} kernel_attention_shape;
typedef struct kernel_attention_in {
    kernel_heads q, k, v;
} kernel_attention_in;

/* GT_UNSUPPORTED for sizes that kernels cannot take, or views of q, k and v, or of their gradients. */
gt_status kernel_attention_check(const kernel_set *k, const kernel_attention_shape *s, const kernel_attention_in *in);
/* softmax(scale q k') v per head, causal or of all T. out S (B,T,H*D); lse fp32 (B,H,T) = log-sum-exp
 * of each row, kept for backward. drop (or NULL) drops probabilities; its element index is
 * (((first+b)*H+h)*T + row)*T + column, first = random[3]. */
gt_status kernel_attention(dev_list *l, kernel_set *k, const kernel_attention_shape *s, const kernel_dropout *drop,
                           const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse);
/* d: where the gradients of q, k and v go, all of them written; it may lie as `in` does or otherwise.
 * scratch: kernel_attention_scratch() bytes. */
gt_status kernel_attention_grad(dev_list *l, kernel_set *k, const kernel_attention_shape *s, const kernel_dropout *drop,
                                const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *dout,
                                const kernel_attention_in *d, dev_buffer *scratch);
uint64_t kernel_attention_scratch(const kernel_set *k, const kernel_attention_shape *s);
/* The first launch of the gradient by itself: delta fp32 (B,H,T) = sum of dout * out over each row of a head. */
gt_status kernel_attention_delta(dev_list *l, kernel_set *k, const kernel_attention_shape *s, dev_buffer *out,
                                 dev_buffer *dout, dev_buffer *delta);
/* Two products of T x T x D a head, or five of the gradient; half of each if causal, and of a window what is in it. */
double kernel_attention_flops(const kernel_attention_shape *s, int gradient);
/* ---- cl/attention_cache.cl ---------------------------------------------------------- */
/* Generation: T new tokens a sequence at positions first .. first + T - 1, where first is i32[1] on
 * the device. Appends their k and v to the caches S (B,KV,capacity,D) and attends to all up to each, or as many
 * of them as the window has; without lengths and starts. */
gt_status kernel_attention_cached(dev_list *l, kernel_set *k, const kernel_attention_shape *s, int capacity,
                                  dev_buffer *first, const kernel_attention_in *in, dev_buffer *keys,
                                  dev_buffer *values, dev_buffer *out);

/* ---- cl/xent.cl --------------------------------------------------------------------- */
/* Softmax cross-entropy of R rows. logits fp32 (R,V); target i32 (R), negative = ignored
 * (loss 0, gradient 0). weight fp32 (R) of the rows, 0 = ignored; NULL: 1 each. loss fp32 (R). dlogits
 * S (R,V) or NULL (loss only); for fp32 storage it may be logits itself.
 * dlogits = (softmax - onehot) * weight * scale[0]; scale fp32[1] on the device. */
gt_status kernel_xent(dev_list *l, kernel_set *k, int R, int V, dev_buffer *logits, dev_buffer *target,
                      dev_buffer *weight, dev_buffer *scale, dev_buffer *loss, dev_buffer *dlogits);
/* The same in three steps, where several ranks have columns held.begin .. of the V logits each
 * (Shoeybi et al., "Megatron-LM", 2019). statistics fp32 (R,3): of a row's own columns the largest
 * logit m, the sum of e^(logit - m), and the target's logit (0 if another rank has it). */
gt_status kernel_xent_statistics(dev_list *l, kernel_set *k, int R, kernel_rows held, dev_buffer *logits,
                                 dev_buffer *target, dev_buffer *statistics);
/* All ranks' statistics fp32 (ranks,R,3) -> loss fp32 (R), and top fp32 (R,2): the row's largest
 * logit and sum of e^(logit - it). Ranks are added in their order. */
gt_status kernel_xent_combine(dev_list *l, kernel_set *k, int R, int ranks, int V, dev_buffer *statistics,
                              dev_buffer *target, dev_buffer *weight, dev_buffer *loss, dev_buffer *top);
/* All ranks' statistics -> hit fp32 (R): 1 where the target's logit is the row's largest, else 0. */
gt_status kernel_xent_hits(dev_list *l, kernel_set *k, int R, int ranks, int V, dev_buffer *statistics,
                           dev_buffer *target, dev_buffer *hit);
/* dlogits of the own columns; as above it may be logits itself. */
gt_status kernel_xent_gradient(dev_list *l, kernel_set *k, int R, kernel_rows held, dev_buffer *logits,
                               dev_buffer *target, dev_buffer *weight, dev_buffer *scale, dev_buffer *top,
                               dev_buffer *dlogits);
/* sum[0] (+)= sum of n fp32, always in the same order. */
gt_status kernel_sum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *sum, int add,
                     kernel_slot *add_at);

/* ---- cl/rows.cl --------------------------------------------------------------------- */
/* P rows of each of B sequences of T rows of C. at i32 (B,P) says which, one outside [0,T) gives 0; NULL, with
 * P 1: row 0 of each. */
typedef struct kernel_taken {
    int B, T, P, C;
    dev_buffer *at;
} kernel_taken;
/* x S (B,T,C) -> y S (B,P,C); and dy S (B,P,C) -> dx S (B,T,C), all of it written. */
gt_status kernel_take_rows(dev_list *l, kernel_set *k, const kernel_taken *s, dev_buffer *x, dev_buffer *y);
gt_status kernel_take_rows_grad(dev_list *l, kernel_set *k, const kernel_taken *s, dev_buffer *dy, dev_buffer *dx);
/* Rows of C of an fp32 table, the first so many that list, i32 [most], names -> packed, side by side; back 1: from
 * there to the table. How many is the argument `rows`, 0 at first. */
gt_status kernel_pack_rows(dev_list *l, kernel_set *k, int most, int C, int back, dev_buffer *list, dev_buffer *table,
                           dev_buffer *packed, kernel_slot *rows);
/* hit[r] = 1 if logits fp32 (R,V) are largest at target[r], i32, the first of equals; else 0. fp32 (R). */
gt_status kernel_row_hits(dev_list *l, kernel_set *k, int R, int V, dev_buffer *logits, dev_buffer *target,
                          dev_buffer *hit);

/* ---- cl/compress.cl ------------------------------------------------------------------ */
/* What a step's encodings ask: fp32[COMPRESS_FRAME] whether the newest step was taken, and loss scales; and
 * random u32[4], of which [2] is the step. Both begin as zeros but for a seed. state: the optimizer's scalars.
 * pending (i32): the step before ended with an update; step (u32); weigh (f32): optim_weighs(). */
enum { COMPRESS_TAKE, COMPRESS_RATIO, COMPRESS_HELD, COMPRESS_TRIED, COMPRESS_WEIGH, COMPRESS_SHRINK, COMPRESS_FRAME };
gt_status kernel_compress_begin(dev_list *l, kernel_set *k, dev_buffer *state, dev_buffer *random, dev_buffer *frame,
                                kernel_slot *pending_at, kernel_slot *step_at, kernel_slot *weigh_at);
/* Sets SHRINK so that gradients whose squares add up to squares[0] have at most the norm `limit`, as those of the
 * mean; weigh (f32) as above. And grad *= SHRINK. */
gt_status kernel_compress_clip(dev_list *l, kernel_set *k, float limit, dev_buffer *squares, dev_buffer *state,
                               dev_buffer *frame, kernel_slot *weigh_at);
gt_status kernel_compress_shrink(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *grad);
/* kept = next if the step was taken. frame NULL, here and below: yes, and no scales. n fp32 each. */
gt_status kernel_compress_commit(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *next,
                                 dev_buffer *kept);
/* grad += kept. */
gt_status kernel_compress_feed(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *kept,
                               dev_buffer *grad);
/* moved = momentum velocity + grad; grad = moved + kept. */
gt_status kernel_compress_velocity(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, float momentum,
                                   dev_buffer *kept, dev_buffer *velocity, dev_buffer *moved, dev_buffer *grad);
/* grad = (kept + beta1 moment / ranks) / weigh + (1 - beta1) grad: a share of Adam's new first moment, at the loss
 * scale. beta1 / ranks and 1 - beta1 are the launch arguments at *share_at and *rest_at (may be NULL). */
gt_status kernel_compress_moment(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, double beta1, int ranks,
                                 dev_buffer *kept, dev_buffer *moment, dev_buffer *grad, kernel_slot *share_at,
                                 kernel_slot *rest_at);
/* said = grad - said, with a frame times weigh; moved (NULL: none) = 0 where said was not. */
gt_status kernel_compress_left(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *grad,
                               dev_buffer *said, dev_buffer *moved);
/* to S = from fp32, cut to [-most, most]; inf and NaN stay. */
gt_status kernel_compress_cut(dev_list *l, kernel_set *k, int64_t n, float most, dev_buffer *from, dev_buffer *to);
/* The same of from + kept; next = what `to` leaves out of that. */
gt_status kernel_compress_store(dev_list *l, kernel_set *k, int64_t n, float most, dev_buffer *frame, dev_buffer *kept,
                                dev_buffer *from, dev_buffer *to, dev_buffer *next);
/* What is held back of x fp32 (n), in one pass with encoding it: x + kept is encoded, next is that less what the code
 * says; both fp32 (n). NULL for it: neither is there. */
typedef struct kernel_holding {
    dev_buffer *frame, *kept, *next;
} kernel_holding;
/* Encodings of x fp32 (n), in words of 4 bytes; decoding overwrites `to` fp32 (n), or adds to it. */
enum { COMPRESS_BLOCK = 128, COMPRESS_CHUNK = 4096 };
int64_t kernel_int8_words(int64_t n);
gt_status kernel_int8_encode(dev_list *l, kernel_set *k, int64_t n, uint32_t stream, dev_buffer *random,
                             const kernel_holding *h, dev_buffer *x, dev_buffer *code);
/* other: a second encoding, whose values are added; NULL: none. */
gt_status kernel_int8_decode(dev_list *l, kernel_set *k, int64_t n, int add, dev_buffer *code, dev_buffer *other,
                             dev_buffer *to);
/* Signs, and of each COMPRESS_CHUNK the mean magnitude. */
int64_t kernel_sign_words(int64_t n);
gt_status kernel_sign_encode(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *code);
gt_status kernel_sign_decode(dev_list *l, kernel_set *k, int64_t n, int add, dev_buffer *code, dev_buffer *to);
/* One of every `group` values. */
int64_t kernel_randomk_words(int64_t n, uint32_t group);
gt_status kernel_randomk_encode(dev_list *l, kernel_set *k, int64_t n, uint32_t group, uint32_t stream,
                                dev_buffer *random, dev_buffer *x, dev_buffer *code);
gt_status kernel_randomk_decode(dev_list *l, kernel_set *k, int64_t n, uint32_t group, uint32_t stream,
                                dev_buffer *random, dev_buffer *code, dev_buffer *to);

/* ---- cl/topk.cl ---------------------------------------------------------------------- */
/* Encodings as those above; keep: values of each COMPRESS_CHUNK. */
int64_t kernel_topk_words(int64_t n, int keep);
gt_status kernel_topk_encode(dev_list *l, kernel_set *k, int64_t n, int keep, const kernel_holding *h, dev_buffer *x,
                             dev_buffer *code);
/* The same by a threshold that every `stride`-th value gives, from 10 on; random: of kernel_compress_begin(). */
gt_status kernel_topk_encode_sampled(dev_list *l, kernel_set *k, int64_t n, int keep, int stride, dev_buffer *random,
                                     const kernel_holding *h, dev_buffer *x, dev_buffer *code);
gt_status kernel_topk_decode(dev_list *l, kernel_set *k, int64_t n, int keep, int add, dev_buffer *code,
                             dev_buffer *to);

/* ---- cl/stages.cl -------------------------------------------------------------------- */
/* x fp32 (n) in storage type, blocks of COMPRESS_BLOCK over a power of two each; code: kernel_scaled_bytes(). Storage
 * fp16 neither overflows nor loses small gradients so. */
uint64_t kernel_scaled_bytes(const kernel_set *k, int64_t n);
gt_status kernel_scaled_store(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *code);
gt_status kernel_scaled_load(dev_list *l, kernel_set *k, int64_t n, dev_buffer *code, dev_buffer *to);
/* kernel_int8_encode() of a stream (u32) that changes from run to run. */
gt_status kernel_int8_encode_numbered(dev_list *l, kernel_set *k, int64_t n, dev_buffer *random, dev_buffer *x,
                                      dev_buffer *code, kernel_slot *number_at);
/* How far y is from x, fp32 (n), added to sums, fp32 (3, kernel_error_slots()). own 1: against |x|; 0: against the
 * largest |x| of COMPRESS_BLOCK. Values below 2^-118 count as exact there. */
int kernel_error_slots(int64_t n);
gt_status kernel_error(dev_list *l, kernel_set *k, int64_t n, int own, dev_buffer *x, dev_buffer *y, dev_buffer *sums);
typedef struct kernel_rounding {
    double most;                /* the largest error, as a share of what it is held against  */
    double error, size;         /* sums of squares: of the errors, of the values             */
} kernel_rounding;
/* All slots together. */
kernel_rounding kernel_error_of(const float *sums, int slots);

/* ---- cl/lowrank.cl ------------------------------------------------------------------- */
/* p (R,N) = a q^T, a (N,M), q (R,M); y (N,M) = p^T q; all fp32. */
gt_status kernel_lowrank_left(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *a, dev_buffer *q,
                              dev_buffer *p);
gt_status kernel_lowrank_product(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *p, dev_buffer *q,
                                 dev_buffer *y);
/* q (R,M) = p a. work: kernel_lowrank_work() fp32, of which p (R,N) is the beginning. */
int64_t kernel_lowrank_work(int N, int M, int R);
gt_status kernel_lowrank_right(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *a, dev_buffer *work,
                               dev_buffer *q);
/* Rows of x (R,N), R <= N, become orthonormal. A row that depends on those before it, or with `heal` one that
 * is not finite, becomes another one; without, what is not finite spreads over its row. x may be longer. */
gt_status kernel_lowrank_orthogonal(dev_list *l, kernel_set *k, int N, int R, int heal, dev_buffer *x);

/* ---- cl/dct.cl ----------------------------------------------------------------------- */
/* y: cosine transforms of the blocks of x (N,M), DCT_SIDE rows and columns each, at the edges less; and back. y has
 * kernel_dct_count() values, block by block, zeros where one has fewer than DCT_SIDE squared. fp32. */
enum { DCT_SIDE = 64 };
int64_t kernel_dct_count(int N, int M);
gt_status kernel_dct_forward(dev_list *l, kernel_set *k, int N, int M, dev_buffer *x, dev_buffer *y);
gt_status kernel_dct_inverse(dev_list *l, kernel_set *k, int N, int M, dev_buffer *y, dev_buffer *x);

/* ---- cl/optim.cl -------------------------------------------------------------------- */
/* The optimizer's scalars on the device, so that no step waits for the host. All fp32. */
enum {
    OPTIM_STEP,             /* updates done so far                                     */
    OPTIM_GRAD_SCALE,       /* what loss gradients are multiplied by (loss scale / tokens) */
    OPTIM_LOSS_SCALE,
    OPTIM_GOOD_STEPS,       /* since the loss scale last changed                       */
    OPTIM_GRAD_NORM,        /* of the last step, unscaled, before clipping             */
    OPTIM_CLIP,             /* what gradients are multiplied by: clip / loss scale     */
    OPTIM_SKIP,             /* 1: the last gradients were not finite, or none; nothing moved */
    OPTIM_SKIPPED,          /* how often that happened                                 */
    OPTIM_BIAS1,
    OPTIM_BIAS2,   /* 1 - beta^step; of the second moments' updates        */
    OPTIM_HALTED,           /* 1: fp32/bf16 met a non-finite step; no update moves any more */
    OPTIM_LOSS_SUM,         /* of the step, in units of weights * nats; kernel_sum adds */
    OPTIM_VARIANCES,        /* updates of second moments so far, which may be fewer        */
    OPTIM_STATE_FLOATS = 16
};
/* partial[i] = sum of squares of the i-th block of g; kernel_norm_blocks(n) floats. */
gt_status kernel_norm_partial(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g, dev_buffer *partial);
int64_t kernel_norm_blocks(const kernel_set *k, int64_t n);
/* Reduces `count` partial sums and the loss sum, and sets state: norm, clip factor (clip 0 =
 * no clipping), skip, step, bias corrections; with `dynamic`, halves the loss scale on
 * overflow (and GRAD_SCALE with it) and doubles it after `growth` good steps, else halts on a
 * non-finite step. The clip factor is PyTorch's: min(1, clip / (norm + 1e-6)). The betas are
 * double because 1 - 0.999f is off by 1e-5 of itself. The launch argument at *weigh_at (NULL: stays 1)
 * multiplies norm and gradients before they are clipped; 0: there is nothing to learn from, SKIP is set
 * and all else but the norm stays as it is. The one at *held_at (0 so far): 1 if second moments stay as they are in
 * this step. */
gt_status kernel_optim_prepare(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial, dev_buffer *state,
                               float clip, double beta1, double beta2, int dynamic, int growth, kernel_slot *weigh_at,
                               kernel_slot *held_at);
/* AdamW (Loshchilov and Hutter 2019, as PyTorch writes it): p -= lr * (m/bias1 / (sqrt(v/bias2)
 * + eps) + decay * p), m and v as usual, g * CLIP as gradient. fp32 n elements each; `copy`
 * S (n) or NULL receives the new p in storage type. Does nothing when SKIP or HALTED. lr is
 * a launch argument (*lr_at), and so is what g is (*form_at, an adamw_form; NULL: always gradients). */
typedef enum adamw_form {
    ADAMW_GRADIENTS,
    ADAMW_MOMENTS,          /* g * CLIP is the new m itself, and v stays as it is          */
    ADAMW_HELD              /* gradients, and v stays as it is; p too, here and above, where v is 0 */
} adamw_form;
gt_status kernel_adamw(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                       dev_buffer *v, dev_buffer *copy, dev_buffer *state, float lr, double beta1, double beta2,
                       float eps, float decay, kernel_slot *lr_at, kernel_slot *form_at);
/* Steps apart (host/optim/optim_apart.c), n fp32 each: u += (lr / bias1) m, unless SKIP or HALTED; g = factor u; and, with
 * g the new first moments of all, m = g and p = keep start - rate g / (sqrt(v/bias2) + eps), unless HALTED.
 * What has an `at` is a launch argument. Where v is 0, p does not move. */
gt_status kernel_adamw_gather(dev_list *l, kernel_set *k, int64_t n, dev_buffer *m, dev_buffer *u, dev_buffer *state,
                              kernel_slot *lr_at);
gt_status kernel_adamw_give(dev_list *l, kernel_set *k, int64_t n, dev_buffer *u, dev_buffer *g,
                            kernel_slot *factor_at);
gt_status kernel_adamw_take(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *start, dev_buffer *g,
                            dev_buffer *m, dev_buffer *v, dev_buffer *copy, dev_buffer *state, float eps,
                            kernel_slot *rate_at, kernel_slot *keep_at);
/* SGD with momentum as PyTorch: m = momentum*m + g + decay*p; p -= lr*m. m NULL: plain. */
gt_status kernel_sgd(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                     dev_buffer *copy, dev_buffer *state, float lr, float momentum, float decay, kernel_slot *lr_at);
/* Lion: p -= lr*(sign(beta1 m + (1 - beta1) g) + decay p); m = beta2 m + (1 - beta2) g. */
gt_status kernel_lion(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                      dev_buffer *copy, dev_buffer *state, float lr, double beta1, double beta2, float decay,
                      kernel_slot *lr_at);

/* ---- cl/optim_tensor.cl --------------------------------------------------------------- */
/* m += (1 - mu)(g - m), u = g + mu (m - g), g times CLIP; n fp32 each. */
gt_status kernel_muon_momentum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g, dev_buffer *m, dev_buffer *u,
                               dev_buffer *state, double mu);
/* out[0] = 1 / (sqrt(sum of the partial sums) + eps); fp32. */
gt_status kernel_inverse_norm(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial, dev_buffer *out,
                              float eps);
/* y = factor x by[0]; n fp32; by fp32[1] on the device, or NULL for 1. */
gt_status kernel_scale(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y, dev_buffer *by,
                       float factor);
/* p -= lr*(decay p + factor o); n fp32, copy S (n) or NULL. */
gt_status kernel_muon_step(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *o, dev_buffer *copy,
                           dev_buffer *state, float lr, float factor, float decay, kernel_slot *lr_at);
/* Adafactor of a matrix (R,C) with state rows fp32 (R), columns fp32 (C); or, where second fp32 (C) is
 * not NULL, of a vector: R is 1, rows and columns are NULL. rate: the state's share of the new square is
 * step^-rate. limit: of the RMS of the update. found fp32[2] and partial fp32 (R) are scratch. */
gt_status kernel_adafactor(dev_list *l, kernel_set *k, int R, int C, dev_buffer *p, dev_buffer *g, dev_buffer *rows,
                           dev_buffer *columns, dev_buffer *second, dev_buffer *found, dev_buffer *partial,
                           dev_buffer *copy, dev_buffer *state, float lr, float rate, float limit, float decay,
                           kernel_slot *lr_at);

/* Where a slice lies in a matrix: an axis is `full` entries once or several times, of each of which
 * [begin, begin + count) are held. columns: of the whole matrix. */
typedef struct kernel_axis {
    int full, begin, count;
} kernel_axis;
typedef struct kernel_slice {
    kernel_axis row, column;
    int columns;
} kernel_slice;
/* y, n elements of a whole matrix, = x where the slice lies, 0 elsewhere; and y, the n elements of the slice,
 * out of the whole x. */
gt_status kernel_slice_place(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y,
                             const kernel_slice *s);
gt_status kernel_slice_take(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y, const kernel_slice *s);

/* Adafactor of a slice (R,C), whose rows or columns are cut, of (all_rows,all_columns); or of a vector's, as
 * above. In three parts: after the first `sums` (C + 1 fp32; R if columns are cut) is to be added over
 * the ranks, after the second `squares` (fp32[1]). rows (R) and columns (C) are those of the slice. found,
 * sums and squares stay between the parts; the buffers are otherwise those of kernel_adafactor(). */
typedef struct kernel_adafactor_slice {
    int R, C, all_rows, all_columns;
    dev_buffer *p, *g, *rows, *columns, *second, *found, *partial, *sums, *squares, *copy, *state;
    float rate, limit, decay;
} kernel_adafactor_slice;
gt_status kernel_adafactor_slice_sums(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a);
gt_status kernel_adafactor_slice_squares(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a);
gt_status kernel_adafactor_slice_step(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a, float lr,
                                      kernel_slot *lr_at);

#endif
