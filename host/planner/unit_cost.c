/* SPDX-License-Identifier: MIT */
/* host/planner/unit_cost.c - builds each unit alone and counts: see unit_cost.h.
 *
 *   kept             activations that outlive forward, and what comes in (the embedding: goes out)
 *   kept_recompute   the same where forward runs again in backward
 *                    (gradients that wait for a weight pass of its own are those of one micro-batch
 *                    in the schedules that the search tries, and not counted)
 *   reductions       a gather and a scatter of rows between two ranks that split the unit are the two
 *                    halves of one all-reduce                                              */
#include "host/planner/unit_cost.h"

#include "host/graph/graph_cost.h"

enum { WIDEST = 16 };

static gt_status count(graph_cost *out, const profile_model *m, int unit, int ranks, int train, int recompute)
{
    graph *g = NULL;
    const graph_part part = { .first_unit = unit, .units = 1, .ranks = ranks };
    gt_status st = graph_create(&g, m->storage, 1, m->seq);
    if (!st)
        st = m->build(g, m->config, &part, train, recompute);
    if (!st)
        st = graph_cost_of(g, 0, out);
    graph_release(g);
    return st;
}

/* How many ranks can split every unit; what cannot be is not a failure here. */
static gt_status find_widest(int *out, const profile_model *m)
{
    const int kinds[] = { 0, 1, m->units - 1 };     /* embedding, layer, head */
    gt_status st = GT_OK;
    for (*out = 1; !st && 2 * *out <= WIDEST; *out *= 2) {
        graph_cost any;
        for (int k = 0; !st && k < 3; k++)
            st = count(&any, m, kinds[k], 2 * *out, 1, 0);
        if (st)
            break;
    }
    if (st != GT_MISUSE)
        return st;
    gt_message_clear();
    return GT_OK;
}

/* What a unit with frozen parameters does less than three times its forward. A head makes its gradients in
 * forward: what that takes beyond a forward for its own sake counts as backward. */
static gt_status count_frozen(cluster_unit *out, const graph_cost *c, const profile_model *m, int unit)
{
    graph_cost only;
    gt_status st = count(&only, m, unit, 1, 0, 0);
    if (st)
        return st;
    out->flops = only.flops[GRAPH_FORWARD];
    out->saved_input = out->flops - (c->flops[GRAPH_FORWARD] - out->flops + c->flops[GRAPH_INPUT_GRAD]);
    out->saved_weight = out->flops - c->flops[GRAPH_WEIGHT_GRAD];
    out->frozen = (double)c->frozen;
    return GT_OK;
}

gt_status unit_costs(cluster_unit *out, int *most_tensor, const profile_model *m)
{
    gt_status st = find_widest(most_tensor, m);
    for (int u = 0; !st && u < m->units; u++) {
        graph_cost whole, again, part = { 0 };
        st = count(&whole, m, u, 1, 1, 0);
        if (!st)
            st = count(&again, m, u, 1, 1, 1);
        if (!st && *most_tensor > 1)
            st = count(&part, m, u, 2, 1, 0);
        if (st)
            break;
        const double ends = u ? whole.input : whole.output;
        out[u] = (cluster_unit){
            .flops = (whole.flops[GRAPH_FORWARD] + whole.flops[GRAPH_INPUT_GRAD] + whole.flops[GRAPH_WEIGHT_GRAD])
                     / 3.0,
            .parameters = (double)whole.parameters,
            .kept = whole.kept + ends,
            .kept_recompute = again.kept + ends,
            .output = whole.output,
            .reductions = part.exchanges[GRAPH_FORWARD] / 2
        };
        if (whole.frozen)
            st = count_frozen(&out[u], &whole, m, u);
    }
    return st;
}
