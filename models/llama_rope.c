/* SPDX-License-Identifier: MIT */
/* models/llama_rope.c - angles of rotary positions, and the ways to stretch them over longer texts.
 *
 *   angle(position, i) = position * f_i,    f_i = theta^(-2 i / D) of pair i of D / 2
 *   linear     f_i / factor                                 Chen et al., "position interpolation", 2023
 *   dynamic    another theta for texts longer than the model's positions; here none are, so it is f_i
 *   yarn       f_i / factor for slow pairs, f_i for fast ones, between them a ramp; cosines and sines times
 *              an attention factor                          Peng et al., "YaRN", 2023
 *   llama3     the same with another ramp, by wavelengths   transformers' rope utilities
 *
 * In double, so that position 100000 keeps its angle. */
#include "models/llama.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double own(const model_config *c, int i)
{
    return c->own[i];
}

/* The pair that turns `rotations` times over the original positions, as a real number. */
static double pair_of(const model_config *c, double rotations)
{
    return llama_head(c) * log(own(c, LLAMA_ROPE_ORIGINAL) / (rotations * 2.0 * pi)) / (2.0 * log(own(c, LLAMA_THETA)));
}

static double yarn(const model_config *c, int i, double f)
{
    const int D = llama_head(c);
    double low = pair_of(c, own(c, LLAMA_ROPE_FAST)), high = pair_of(c, own(c, LLAMA_ROPE_SLOW));
    if (own(c, LLAMA_ROPE_TRUNCATE) != 0.0) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, D - 1);
    if (low == high)
        high += 0.001;
    const double slow = fmin(fmax((i - low) / (high - low), 0.0), 1.0);
    return f / own(c, LLAMA_ROPE_FACTOR) * slow + f * (1.0 - slow);
}

static double llama3(const model_config *c, double f)
{
    const double original = own(c, LLAMA_ROPE_ORIGINAL), length = 2.0 * pi / f, factor = own(c, LLAMA_ROPE_FACTOR);
    const double low = own(c, LLAMA_ROPE_LOW), high = own(c, LLAMA_ROPE_HIGH);
    if (length < original / high)
        return f;
    if (length > original / low)
        return f / factor;
    const double smooth = (original / length - low) / (high - low);
    return (1.0 - smooth) * f / factor + smooth * f;
}

static double frequency(const model_config *c, int i)
{
    const double f = pow(own(c, LLAMA_THETA), -2.0 * i / llama_head(c));
    switch ((llama_rope)own(c, LLAMA_ROPE)) {
    case LLAMA_ROPE_LINEAR: return f / own(c, LLAMA_ROPE_FACTOR);
    case LLAMA_ROPE_YARN: return yarn(c, i, f);
    case LLAMA_ROPE_3: return llama3(c, f);
    default: return f;
    }
}

static double growth(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* What cosines and sines are multiplied by. */
static double attention_factor(const model_config *c)
{
    const double factor = own(c, LLAMA_ROPE_FACTOR), one = own(c, LLAMA_ROPE_MSCALE);
    const double all = own(c, LLAMA_ROPE_MSCALE_ALL);
    if ((llama_rope)own(c, LLAMA_ROPE) != LLAMA_ROPE_YARN)
        return 1.0;
    if (own(c, LLAMA_ROPE_ATTENTION) > 0.0)
        return own(c, LLAMA_ROPE_ATTENTION);
    return one > 0.0 && all > 0.0 ? growth(factor, one) / growth(factor, all) : growth(factor, 1.0);
}

void llama_rope_table(const model_config *c, int positions, double *table)
{
    const int D = llama_head(c);
    const double times = attention_factor(c);
    for (int i = 0; i < D / 2; i++) {
        const double f = frequency(c, i);
        for (int p = 0; p < positions; p++) {
            table[(ptrdiff_t)p * D + i] = times * cos(p * f);
            table[(ptrdiff_t)p * D + D / 2 + i] = times * sin(p * f);
        }
    }
}

gt_status llama_rope_check(const model_config *c)
{
    const llama_rope type = (llama_rope)own(c, LLAMA_ROPE);
    const char *missing = NULL;
    if (type != LLAMA_ROPE_PLAIN && own(c, LLAMA_ROPE_FACTOR) < 1.0)
        return gt_fail(GT_FORMAT, "model '%s': 'factor' of 'rope_scaling' must be a number from 1 up", c->name);
    if (type == LLAMA_ROPE_3)
        missing = own(c, LLAMA_ROPE_LOW) <= 0.0    ? "low_freq_factor"
                  : own(c, LLAMA_ROPE_HIGH) <= 0.0 ? "high_freq_factor"
                                                   : NULL;
    if (missing)
        return gt_fail(GT_FORMAT, "model '%s': '%s' of 'rope_scaling' must be a number above 0", c->name, missing);
    if (type == LLAMA_ROPE_3 && own(c, LLAMA_ROPE_HIGH) <= own(c, LLAMA_ROPE_LOW))
        return gt_fail(GT_FORMAT, "model '%s': 'high_freq_factor' of 'rope_scaling' must be above 'low_freq_factor'",
                       c->name);
    if (!(own(c, LLAMA_THETA) > 1.0))
        return gt_fail(GT_FORMAT, "model '%s': 'rope_theta' must be above 1", c->name);
    return GT_OK;
}
