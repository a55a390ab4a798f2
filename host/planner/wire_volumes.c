/* SPDX-License-Identifier: MIT */
/* host/planner/wire_volumes.c - see wire_volumes.h. */
#include "host/planner/wire_volumes.h"

static gt_status add_unit(sync_volume *v, const profile_model *m, int unit, const compress_spec *c)
{
    graph *g = NULL;
    const graph_part part = { .first_unit = unit, .units = 1, .ranks = 1 };
    gt_status st = graph_create(&g, m->storage, 1, m->seq);
    if (!st)
        st = m->build(g, m->config, &part, 1, 0);
    for (int i = 0; !st && i < graph_param_count(g); i++)
        if (!graph_param_at(g, i)->frozen)
            sync_volume_add(v, c, graph_param_at(g, i));
    graph_release(g);
    return st;
}

gt_status wire_volumes(sync_volume out[PROFILE_KINDS], const profile_model *m, const compress_spec *c)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < PROFILE_KINDS; k++) {
        int unit = 0;
        out[k] = (sync_volume){ 0 };
        st = profile_unit(&unit, m, (profile_kind)k);
        if (!st)
            st = add_unit(&out[k], m, unit, c);
    }
    return st;
}
