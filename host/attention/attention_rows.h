/* SPDX-License-Identifier: MIT */
/* host/attention/attention_rows.h - what attention does to rows of scores between products, on one thread.
 *
 * Lengths n may be 0. `type` is that of the products' factors, DTYPE_F32 or DTYPE_BF16: in fp32 results take the
 * place of what they are made of (`p` is s, `ds` is dp), in bf16 they go to p and ds.
 * e^x is within 3 units in the last place, from -87 on upwards; below it is 0.              */
#ifndef GT_ATTENTION_ATTENTION_ROWS_H
#define GT_ATTENTION_ATTENTION_ROWS_H

#include "host/tensor/dtype.h"

/* Before the first of the others, from any thread: finds out what the processor has. */
void attention_rows_prepare(void);

/* The largest of scale * s[i], and of `least`. */
float attention_most(const float *s, int n, float scale, float least);
/* p[i] = e^(scale s[i] - most). Returns their sum. */
float attention_exp(float *s, int n, float scale, float most, void *p, dtype type);
/* p[i] = e^(scale s[i] - lse[i]); ds[i] = scale p[i] (dp[i] - delta[i]), p before it is rounded. */
void attention_slopes(float *s, float *dp, int n, const float *lse, const float *delta, float scale, void *p, void *ds,
                      dtype type);

void attention_multiply(float *x, int n, float factor);
/* to = x in fp32; to = factor * x in `type`; the sum of a[i] b[i]. Any storage type. */
void attention_widen(float *to, const void *x, int n, dtype type);
void attention_narrow(void *to, const float *x, int n, float factor, dtype type);
float attention_dot(const void *a, const void *b, int n, dtype type);

#endif
