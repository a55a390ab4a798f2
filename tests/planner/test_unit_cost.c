/* SPDX-License-Identifier: MIT */
/* tests/planner/test_unit_cost.c - what units take as counted on their graphs, against GPT-2's by hand. */
#include "host/planner/unit_cost.h"
#include "models/model.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>

static gt_status build(graph *g, const void *config, const graph_part *part, int train, int recompute)
{
    return model_build_part(g, config, part, train, recompute);
}

static int near(double got, double want, double tolerance)
{
    return fabs(got - want) <= tolerance * want;
}

/* Products, attention over the half that is not masked, the residual stream and what norms, attention and
 * the inner layer keep; norms, GELU and dropout are what is counted beyond that, by some hundredths. */
static void units_of_gpt2_are_as_by_hand(void)
{
    static const struct {
        const char *name;
        dtype type;
        int widest;
    } cases[] = { { "gpt2-124m", DTYPE_F32, 8 }, { "gpt2-1558m", DTYPE_BF16, 16 }, { "gpt2-tiny", DTYPE_F32, 4 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c;
        int widest = 0;
        CHECK_OK(model_config_load(&c, cases[i].name));
        c.vocab = c.vocab ? c.vocab : 65;
        const profile_model m = { build, &c, model_units(&c), c.context, cases[i].type, model_batch, optim_defaults() };
        cluster_unit *u = calloc((size_t)m.units, sizeof *u);
        if (!CHECK_OK(unit_costs(u, &widest, &m))) {
            free(u);
            continue;
        }
        const double T = c.context, C = c.channels, I = c.inner, V = c.vocab, e = (double)dtype_size(m.storage);
        const cluster_unit *first = &u[0], *layer = &u[c.layers], *head = &u[c.layers + 1];
        CHECKF(widest == cases[i].widest, "%s: %d ranks can split it", c.name, widest);
        CHECK(first->parameters == (V + T) * C && first->output == T * C * e && first->kept == T * C * e);
        CHECK(first->flops < 1e-3 * layer->flops);
        CHECK(layer->parameters == 4.0 * C * C + 2.0 * C * I + 9.0 * C + I);
        CHECKF(near(layer->flops, 2.0 * T * (4.0 * C * C + 2.0 * C * I) + 2.0 * T * T * C, 0.025), "%s: a layer of %g",
               c.name, layer->flops);
        CHECKF(near(layer->kept, (8.0 + 2.0 * I / C) * T * C * e, 0.07), "%s: %g widths kept", c.name,
               layer->kept / (T * C * e));
        CHECKF(near(layer->kept_recompute, T * C * e, 0.02), "%s: %g widths kept", c.name,
               layer->kept_recompute / (T * C * e));
        CHECK(layer->output == T * C * e && layer->reductions == 2);
        CHECK(head->parameters == V * C + 2.0 * C && head->output == 0.0);
        CHECKF(near(head->flops, 2.0 * T * V * C, 0.07), "%s: a head of %g", c.name, head->flops);
        free(u);
    }
}

/* Adapters on one matrix of each layer: their numbers alone are trained, the rest is there as it is stored, and
 * backward is about one product of each matrix, not two. */
static void frozen_units_are_as_by_hand(void)
{
    enum { R = 8 };
    static const struct {
        dtype base;
        double bytes;                   /* of a number of a matrix; 8 bits have a scale for 32 */
    } bases[] = { { DTYPE_F32, 4.0 }, { DTYPE_BF16, 2.0 }, { DTYPE_Q8, 1.125 } };
    model_config c;
    CHECK_OK(model_config_load(&c, "gpt2-124m"));
    c.tuning.rank = R;
    c.tuning.alpha = 16.0f;
    for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
        int widest = 0;
        c.tuning.base = bases[i].base;
        const profile_model m = { build, &c, model_units(&c), c.context, DTYPE_F32, model_batch, optim_defaults() };
        cluster_unit *u = calloc((size_t)m.units, sizeof *u);
        if (!CHECK_OK(unit_costs(u, &widest, &m))) {
            free(u);
            continue;
        }
        const double T = c.context, C = c.channels, I = c.inner, V = c.vocab;
        const cluster_unit *first = &u[0], *layer = &u[c.layers], *head = &u[c.layers + 1];
        CHECK(first->parameters == 0.0 && first->frozen == 4.0 * (V + T) * C);
        CHECKF(layer->parameters == R * (C + 3.0 * C), "%g parameters", layer->parameters);
        CHECK(layer->frozen == bases[i].bytes * (4.0 * C * C + 2.0 * C * I) + 4.0 * (9.0 * C + I));
        CHECK(head->parameters == 0.0 && head->frozen == 4.0 * (V * C + 2.0 * C));
        CHECKF(near(layer->flops, 2.0 * T * (4.0 * C * C + 2.0 * C * I) + 2.0 * T * T * C, 0.03), "a layer of %g",
               layer->flops);
        const double input = layer->flops - layer->saved_input, weight = layer->flops - layer->saved_weight;
        /* Attention goes back by two products for one, and makes its scores again. */
        CHECKF(near(input, 2.0 * T * (4.0 * C * C + 2.0 * C * I) + 5.0 * T * T * C, 0.05), "%g back", input);
        CHECKF(near(weight, 2.0 * T * layer->parameters, 0.02), "%g for weights", weight);
        CHECKF(near(head->flops, 2.0 * T * V * C, 0.07) && near(head->flops - head->saved_input, head->flops, 0.07)
                   && head->flops - head->saved_weight < 0.01 * head->flops,
               "a head of %g, %g back, %g for weights", head->flops, head->flops - head->saved_input,
               head->flops - head->saved_weight);
        free(u);
    }
}

const check_case check_cases[] = { CASE(frozen_units_are_as_by_hand), CASE(units_of_gpt2_are_as_by_hand), { 0 } };
