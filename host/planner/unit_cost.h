/* SPDX-License-Identifier: MIT */
/* host/planner/unit_cost.h - what each unit of a model takes, counted on graphs of single units: no
 * device, no memory, and no formula of any model.
 *
 * FLOPs are a third of those of forward and backward together, since the searches for devices that are
 * not here take a backward pass for two forward ones; where parameters are frozen, what that leaves out
 * of backward is counted as saved. Bytes are of one sequence.                                */
#ifndef GT_PLANNER_UNIT_COST_H
#define GT_PLANNER_UNIT_COST_H

#include "host/planner/cluster_search.h"
#include "host/planner/profile.h"

/* out: [m->units]; *most_tensor: ranks that can split a layer, a power of two up to 16. */
gt_status unit_costs(cluster_unit *out, int *most_tensor, const profile_model *m);

#endif
