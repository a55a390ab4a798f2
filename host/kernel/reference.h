/* SPDX-License-Identifier: MIT */
/* host/kernel/reference.h - every operation again, slow and obvious: what kernels are held to.
 *
 * All in double, one loop a formula, nothing shared with the kernels but the text of
 * host/kernel/kernel.h. A test loads what the device was given (already rounded to its
 * storage type) into doubles, asks here, and compares. The backward functions are checked
 * against finite differences of the forward ones (tests/kernel), so they are an oracle too.
 *
 * Arrays   row-major and dense unless an ld is given; outputs may not overlap inputs.
 * Dims     B batch, T tokens, C channels, H heads, D = C/H, V vocabulary, R rows.
 * add      0 overwrites, 1 adds.
 * Out of memory, which only attention can run into, gives NaN results.                   */
#ifndef GT_KERNEL_REFERENCE_H
#define GT_KERNEL_REFERENCE_H

#include "host/tensor/activation.h"

#include <stdint.h>

/* Dropout as kernel.h says it: kept if the element's Philox word >= p * 2^32. */
typedef struct reference_dropout {
    float p;
    uint64_t seed;
    uint32_t step, first, stream;   /* first: sequence of the step */
    int64_t sequence;           /* elements of one; attention takes its own */
    int first_head, heads;      /* of attention: as kernel_dropout's */
} reference_dropout;

/* What element i of the micro-batch is multiplied by: 0 or 1 / (1 - p); 1 if drop is NULL. */
double reference_keep(const reference_dropout *drop, uint64_t i);

void reference_embed(int B, int T, int C, const int32_t *x, const double *token, const double *position, int first,
                     double *y);
void reference_embed_token_grad(int R, int C, const int32_t *x, const double *dy, double *dtoken);
void reference_embed_position_grad(int B, int T, int C, const double *dy, double *dposition, int add);

/* mean and rstd may be NULL. */
void reference_layernorm(int R, int C, double eps, const double *x, const double *gain, const double *bias, double *y,
                         double *mean, double *rstd);
void reference_layernorm_input_grad(int R, int C, const double *dy, const double *x, const double *gain,
                                    const double *mean, const double *rstd, const double *residual, double *dx);
void reference_layernorm_weight_grad(int R, int C, const double *dy, const double *x, const double *mean,
                                     const double *rstd, double *dgain, double *dbias, int add);
/* The root mean square in the deviation's place: y = x rstd (gain + offset). rstd may be NULL. */
void reference_rmsnorm(int R, int C, double eps, double offset, const double *x, const double *gain, double *y,
                       double *rstd);
void reference_rmsnorm_input_grad(int R, int C, double offset, const double *dy, const double *x, const double *gain,
                                  const double *rstd, const double *residual, double *dx);
void reference_rmsnorm_weight_grad(int R, int C, const double *dy, const double *x, const double *rstd, double *dgain,
                                   int add);
void reference_bias_grad(int R, int C, const double *dy, double *dbias, int add);
/* x, y (B,T,H*D); table (..,D): of a position D / 2 cosines, then as many sines; back 1: turned back. */
void reference_rope(int B, int T, int H, int D, const double *x, const double *table, int first, int back, double *y);

double reference_activation(activation act, double x);
double reference_activation_slope(activation act, double x);
void reference_bias(int R, int C, double *y, const double *bias);
void reference_dropout_apply(int64_t n, const reference_dropout *drop, const double *x, double *y);

/* qkv (B,T,3C), out (B,T,C), lse (B,H,T) or NULL; scores are multiplied by `scale`. lengths
 * (B) or NULL: how many keys a sequence has. */
void reference_attention(int B, int T, int C, int H, int causal, double scale, const reference_dropout *drop,
                         const int32_t *lengths, const double *qkv, double *out, double *lse);
void reference_attention_grad(int B, int T, int C, int H, int causal, double scale, const reference_dropout *drop,
                              const int32_t *lengths, const double *qkv, const double *dout, double *dqkv);

/* Which keys a query sees, besides those above. window: as many at most, itself among them; 0: all before
 * it. starts (B,T) or NULL: of each query the first. */
typedef struct reference_mask {
    int causal;
    const int32_t *lengths;
    int window;
    const int32_t *starts;
} reference_mask;
void reference_attention_masked(int B, int T, int C, int H, const reference_mask *mask, double scale,
                                const reference_dropout *drop, const double *qkv, double *out, double *lse);
void reference_attention_masked_grad(int B, int T, int C, int H, const reference_mask *mask, double scale,
                                     const reference_dropout *drop, const double *qkv, const double *dout,
                                     double *dqkv);

/* loss (R); dlogits (R,V) or NULL. weight (R); NULL: 1 each. A target outside [0,V) is ignored. */
void reference_xent(int R, int V, const double *logits, const int32_t *target, const double *weight, double scale,
                    double *loss, double *dlogits);
double reference_sum(int64_t n, const double *x);
double reference_square_sum(int64_t n, const double *x);

/* c (M,N) = alpha op(a) op(b) (+ c). trans_a: a is stored (K,M); trans_b: b is stored (N,K). */
void reference_gemm(int trans_a, int trans_b, int M, int N, int K, double alpha, const double *a, int lda,
                    const double *b, int ldb, double *c, int ldc, int add);

/* Update number `step` (1, 2, ...) in PyTorch's form. */
void reference_adamw(int64_t n, double *p, const double *g, double *m, double *v, int64_t step, double clip, double lr,
                     double beta1, double beta2, double eps, double decay);
void reference_sgd(int64_t n, double *p, const double *g, double *m /* or NULL */, double clip, double lr,
                   double momentum, double decay);
void reference_lion(int64_t n, double *p, const double *g, double *m, double clip, double lr, double beta1,
                    double beta2, double decay);
/* Of a matrix (R,C). */
void reference_muon(int R, int C, double *p, const double *g, double *m, double clip, double lr, double mu,
                    double decay);
/* rows (R), columns (C); or second (C), R 1: of a vector. */
void reference_adafactor(int R, int C, double *p, const double *g, double *rows, double *columns, double *second,
                         int64_t step, double clip, double lr, double rate, double limit, double decay);

#endif
