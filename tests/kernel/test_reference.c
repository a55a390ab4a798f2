/* SPDX-License-Identifier: MIT */
/* tests/kernel/test_reference.c - the oracle's gradients against finite differences.
 *
 * For f(x) = sum of w * output(x) with random w, the backward function fed with w gives
 * df/dx; (f(x + h) - f(x - h)) / 2h must agree. In double with h = 1e-5 the difference
 * quotient is good to about 1e-9 of the function's size.                                 */
#include "tests/check.h"

#include "host/base/random.h"
#include "host/kernel/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, T = 5, H = 2, C = 6, V = 11, R = B * T, MOST = B * T * 3 * C };

typedef struct setting {
    double x[MOST], w[MOST], extra[MOST], gain[C], bias[C], mean[R], rstd[R];
    int32_t ids[R];
    const reference_dropout *drop;
    int causal;
} setting;

typedef double (*function)(const setting *s, const double *x);

static double weighted(const setting *s, const double *y, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += s->w[i] * y[i];
    return sum;
}

static setting *random_setting(void)
{
    setting *s = calloc(1, sizeof *s);
    gt_random r;
    gt_random_init(&r, 17, 4);
    double *const arrays[] = { s->x, s->w, s->extra, s->gain, s->bias };
    static const int sizes[] = { MOST, MOST, MOST, C, C };
    for (int a = 0; a < 5; a++)
        for (int i = 0; i < sizes[a]; i++) {
            float x[2];
            gt_random_normal(&r, x, 1, 0.0f, 1.0f);
            arrays[a][i] = (double)x[0];
        }
    for (int i = 0; i < R; i++)
        s->ids[i] = (int32_t)gt_random_below(&r, V);
    return s;
}

static void agrees(const setting *s, function f, int n, const double *slope, const char *what)
{
    const double h = 1e-5;
    double x[MOST];
    memcpy(x, s->x, sizeof x);
    for (int i = 0; i < n; i++) {
        x[i] = s->x[i] + h;
        const double above = f(s, x);
        x[i] = s->x[i] - h;
        const double below = f(s, x);
        x[i] = s->x[i];
        const double want = (above - below) / (2.0 * h);
        if (!CHECKF(fabs(slope[i] - want) < 1e-7 * (1.0 + fabs(want)), "%s [%d]: %.12g, want %.12g", what, i, slope[i],
                    want))
            return;
    }
}

static activation tried;

static double activation_of(const setting *s, const double *x)
{
    double y[MOST];
    for (int i = 0; i < MOST; i++)
        y[i] = reference_activation(tried, 3.0 * x[i]);
    return weighted(s, y, MOST);
}

static void slopes_of_activations_are_their_slopes(void)
{
    /* At 1, and at -2: by the formulas of activation.h, to 16 digits. */
    static const double at_1[ACT_COUNT] = { 1.0, 0.8411919906082768, 0.8413447460685429, 0.7310585786300049,
                                            1.0, 0.7615941559557649 };
    static const double at_2[ACT_COUNT] = { -2.0, -0.0454023059122250, -0.0455002638963584, -0.2384058440442351,
                                            0.0,  -0.9640275800758169 };
    setting *s = random_setting();
    double slope[MOST];
    for (tried = ACT_NONE; tried < ACT_COUNT; tried++) {
        for (int i = 0; i < MOST; i++)
            slope[i] = 3.0 * s->w[i] * reference_activation_slope(tried, 3.0 * s->x[i]);
        agrees(s, activation_of, MOST, slope, activation_name(tried));
        CHECKF(fabs(reference_activation(tried, 1.0) - at_1[tried]) < 1e-15
                   && fabs(reference_activation(tried, -2.0) - at_2[tried]) < 1e-15,
               "%s is %.17g at 1, %.17g at -2", activation_name(tried), reference_activation(tried, 1.0),
               reference_activation(tried, -2.0));
    }
    free(s);
}

static double norm_of_x(const setting *s, const double *x)
{
    double y[R * C];
    reference_layernorm(R, C, 1e-5, x, s->gain, s->bias, y, NULL, NULL);
    return weighted(s, y, R * C);
}

static double norm_of_gain(const setting *s, const double *gain)
{
    double y[R * C];
    reference_layernorm(R, C, 1e-5, s->extra, gain, s->bias, y, NULL, NULL);
    return weighted(s, y, R * C);
}

static double norm_of_bias(const setting *s, const double *bias)
{
    double y[R * C];
    reference_layernorm(R, C, 1e-5, s->extra, s->gain, bias, y, NULL, NULL);
    return weighted(s, y, R * C);
}

static void layernorm_gradients_are_slopes(void)
{
    setting *s = random_setting();
    double y[R * C], dx[R * C], dgain[C], dbias[C];
    reference_layernorm(R, C, 1e-5, s->x, s->gain, s->bias, y, s->mean, s->rstd);
    reference_layernorm_input_grad(R, C, s->w, s->x, s->gain, s->mean, s->rstd, NULL, dx);
    agrees(s, norm_of_x, R * C, dx, "layernorm dx");
    reference_layernorm(R, C, 1e-5, s->extra, s->gain, s->bias, y, s->mean, s->rstd);
    reference_layernorm_weight_grad(R, C, s->w, s->extra, s->mean, s->rstd, dgain, dbias, 0);
    agrees(s, norm_of_gain, C, dgain, "layernorm dgain");
    agrees(s, norm_of_bias, C, dbias, "layernorm dbias");
    free(s);
}

static double embed_of_token(const setting *s, const double *token)
{
    double y[R * C];
    reference_embed(B, T, C, s->ids, token, s->extra, 0, y);
    return weighted(s, y, R * C);
}

static double embed_of_position(const setting *s, const double *position)
{
    double y[R * C];
    reference_embed(B, T, C, s->ids, s->extra, position, 0, y);
    return weighted(s, y, R * C);
}

static double bias_of(const setting *s, const double *bias)
{
    double y[R * C];
    memcpy(y, s->extra, sizeof y);
    reference_bias(R, C, y, bias);
    return weighted(s, y, R * C);
}

static void embedding_and_bias_gradients_are_slopes(void)
{
    setting *s = random_setting();
    double dtoken[V * C] = { 0 }, dposition[T * C], dbias[C];
    reference_embed_token_grad(R, C, s->ids, s->w, dtoken);
    agrees(s, embed_of_token, V * C, dtoken, "dtoken");
    reference_embed_position_grad(B, T, C, s->w, dposition, 0);
    agrees(s, embed_of_position, T * C, dposition, "dposition");
    reference_bias_grad(R, C, s->w, dbias, 0);
    agrees(s, bias_of, C, dbias, "dbias");
    free(s);
}

static double dropout_of(const setting *s, const double *x)
{
    double y[R * C];
    reference_dropout_apply(R * C, s->drop, x, y);
    return weighted(s, y, R * C);
}

static void dropout_is_its_own_gradient(void)
{
    const reference_dropout drop = { .p = 0.3f, .seed = 99, .step = 4, .first = 2, .sequence = R * C, .stream = 5 };
    setting *s = random_setting();
    double slope[R * C];
    int dropped = 0;
    s->drop = &drop;
    reference_dropout_apply(R * C, &drop, s->w, slope);
    agrees(s, dropout_of, R * C, slope, "dropout");
    for (uint64_t i = 0; i < 100000; i++)
        dropped += reference_keep(&drop, i) == 0.0;
    CHECKF(abs(dropped - 30000) < 600, "%d of 100000 dropped", dropped);   /* 4 deviations */
    free(s);
}

static double attention_of(const setting *s, const double *qkv)
{
    double y[R * C];
    reference_attention(B, T, C, H, s->causal, 0.4, s->drop, NULL, qkv, y, NULL);
    return weighted(s, y, R * C);
}

static void attention_gradients_are_slopes(void)
{
    const reference_dropout drop = { .p = 0.3f, .seed = 99, .step = 4, .first = 2, .sequence = R * C, .stream = 5 };
    setting *s = random_setting();
    double dqkv[MOST];
    for (s->causal = 0; s->causal < 2; s->causal++)
        for (int with = 0; with < 2; with++) {
            s->drop = with ? &drop : NULL;
            reference_attention_grad(B, T, C, H, s->causal, 0.4, s->drop, NULL, s->x, s->w, dqkv);
            agrees(s, attention_of, MOST, dqkv, s->causal ? "causal attention" : "attention");
        }
    free(s);
}

static double loss_of(const setting *s, const double *logits)
{
    double loss[R], sum = 0.0;
    reference_xent(R, V, logits, s->ids, NULL, 1.0, loss, NULL);
    for (int r = 0; r < R; r++)
        sum += 0.5 * loss[r];
    return sum;
}

static void cross_entropy_gradient_is_its_slope(void)
{
    setting *s = random_setting();
    double loss[R], slope[R * V];
    s->ids[3] = -1;
    reference_xent(R, V, s->x, s->ids, NULL, 0.5, loss, slope);
    agrees(s, loss_of, R * V, slope, "cross-entropy");
    CHECK(loss[3] == 0.0 && slope[3 * V] == 0.0);
    free(s);
}

static void products_know_their_transposes(void)
{
    static const double a[] = { 1, 2, 3, 4, 5, 6 }, b[] = { 7, 8, 9, 10, 11, 12 };  /* 2x3, 3x2 */
    static const double at[] = { 1, 4, 2, 5, 3, 6 }, bt[] = { 7, 9, 11, 8, 10, 12 };
    static const double want[] = { 58, 64, 139, 154 };
    for (int t = 0; t < 4; t++) {
        double c[4] = { 1, 1, 1, 1 };
        reference_gemm(t & 1, t >> 1, 2, 2, 3, 2.0, t & 1 ? at : a, t & 1 ? 2 : 3, t >> 1 ? bt : b, t >> 1 ? 3 : 2, c,
                       2, 1);
        for (int i = 0; i < 4; i++)
            CHECK(c[i] == 2.0 * want[i] + 1.0);
    }
}

/* Two steps of torch.optim.AdamW([0.5], lr=0.1, weight_decay=0.1) with gradients 0.2, -0.4,
 * worked out by hand: the first moves by lr exactly, whatever the gradient's size. */
static void adamw_takes_the_published_steps(void)
{
    double p = 0.5, m = 0.0, v = 0.0, g = 0.2;
    reference_adamw(1, &p, &g, &m, &v, 1, 1.0, 0.1, 0.9, 0.999, 0.0, 0.1);
    CHECKF(fabs(p - (0.5 * 0.99 - 0.1)) < 1e-12, "p %.15g", p);
    g = -0.4;
    reference_adamw(1, &p, &g, &m, &v, 2, 1.0, 0.1, 0.9, 0.999, 0.0, 0.1);
    const double mean = (0.9 * 0.02 - 0.04) / 0.19, square = (0.999 * 4e-5 + 1.6e-4) / 0.001999;
    CHECKF(fabs(p - (0.395 * 0.99 - 0.1 * mean / sqrt(square))) < 1e-12, "p %.15g", p);
}

const check_case check_cases[] = {
    CASE(slopes_of_activations_are_their_slopes),
    CASE(layernorm_gradients_are_slopes),
    CASE(embedding_and_bias_gradients_are_slopes),
    CASE(dropout_is_its_own_gradient),
    CASE(attention_gradients_are_slopes),
    CASE(cross_entropy_gradient_is_its_slope),
    CASE(products_know_their_transposes),
    CASE(adamw_takes_the_published_steps),
    { 0 }
};
