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

static gt_status count(graph_cost *out, const profile_model *m, int unit, int ranks, int recompute)
{
    graph *g = NULL;
    const graph_part part = { .first_unit = unit, .units = 1, .ranks = ranks };
    gt_status st = graph_create(&g, m->storage, 1, m->seq);
    if (!st)
        st = m->build(g, m->config, &part, 1, recompute);
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
            st = count(&any, m, kinds[k], 2 * *out, 0);
        if (st)
            break;
    }
    if (st != GT_MISUSE)
        return st;
    gt_message_clear();
    return GT_OK;
}

gt_status unit_costs(cluster_unit *out, int *most_tensor, const profile_model *m)
{
    gt_status st = find_widest(most_tensor, m);
    for (int u = 0; !st && u < m->units; u++) {
        graph_cost whole, again, part = { 0 };
        st = count(&whole, m, u, 1, 0);
        if (!st)
            st = count(&again, m, u, 1, 1);
        if (!st && *most_tensor > 1)
            st = count(&part, m, u, 2, 0);
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
    }
    return st;
}
