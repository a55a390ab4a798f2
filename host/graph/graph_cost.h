/* SPDX-License-Identifier: MIT */
/* host/graph/graph_cost.h - what a graph takes, read from its nodes: no device, no memory, no kernel.
 *
 *   graph_create(&g, storage, B, T);  model_build_part(g, ..., &one_unit, 1, recompute);
 *   graph_cost_of(g, 1, &cost);       a unit's FLOPs, bytes and exchanges
 *
 * For planners: everything here is of one micro-batch of B sequences and of what this rank holds.
 * Costs are exact sums over the graph that would run, not estimates; scratch of GEMM engines and
 * padding of buffers are what a device adds to them.                                      */
#ifndef GT_GRAPH_GRAPH_COST_H
#define GT_GRAPH_GRAPH_COST_H

#include "host/graph/graph.h"

typedef struct graph_cost {
    double flops[3];           /* by graph_phase; 2 per multiply-add. A head makes its gradients in
                                   forward, so all of its are there                             */
    int64_t parameters;         /* elements held that are trained                               */
    uint64_t frozen;            /* bytes of the others                                          */
    int64_t decayed;            /* of them, those of matrices: they have copies in storage type */
    double kept;               /* the most bytes at once of activations that outlive the program
                                   that made them: with `input`, what each further micro-batch in flight takes  */
    double passing;            /* the most bytes of other activations that live at once        */
    double input, output;      /* bytes that come from the stage before, go to the next; else 0 */
    int exchanges[3];       /* between the ranks of a tensor group, by graph_phase          */
    double exchanged[3];       /* bytes of the whole (not split) arrays in those               */
} graph_cost;

/* `split`: weight gradients run apart from input gradients, as zero-bubble schedules have it.
 * GT_NO_MEMORY. */
gt_status graph_cost_of(const graph *g, int split, graph_cost *out);

#endif
