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

const check_case check_cases[] = { CASE(units_of_gpt2_are_as_by_hand), { 0 } };
