/* SPDX-License-Identifier: MIT */
/* host/sync/alone.c - one rank: all gradients are here, and the device itself finds their norm. */
#include "host/sync/blocks.h"
#include "host/sync/mode.h"

static gt_status parts(const sync_settings *settings, const sync_holders *h, const params *p, optim_part **list,
                       int *count)
{
    gt_status st = GT_OK;
    (void)settings;
    (void)h;
    for (int i = 0; !st && i < params_segments(p); i++)
        st = sync_part_add(list, count, (optim_part){ i, 0, params_segment_at(p, i)->count, 1 });
    return st;
}

static gt_status update(sync_run *s, double lr)
{
    return optim_step(s->o.optim, lr);
}

const sync_mode sync_alone = { .name = "alone", .help = "one rank", .holds_all = 1, .parts = parts, .update = update };
