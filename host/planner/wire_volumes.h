/* SPDX-License-Identifier: MIT */
/* host/planner/wire_volumes.h - what of a model's units travels between replicas, and in what form.
 *
 * Counted on graphs of single units, as unit_cost.h does: no device, no memory. Of layers one stands for all. */
#ifndef GT_PLANNER_WIRE_VOLUMES_H
#define GT_PLANNER_WIRE_VOLUMES_H

#include "host/planner/profile.h"
#include "host/sync/traffic.h"

gt_status wire_volumes(sync_volume out[PROFILE_KINDS], const profile_model *m, const compress_spec *c);

#endif
