/* SPDX-License-Identifier: MIT */
/* host/sync/alone.c - one rank: all gradients are here, and the device itself finds their norm. */
#include "host/sync/mode.h"

static optim_part part(const sync_settings *settings, const sync_holders *h, const params *p, int segment)
{
    (void)settings;
    (void)h;
    return (optim_part){ 0, params_segment_at(p, segment)->count, 1 };
}

static gt_status update(sync_run *s, double lr)
{
    return optim_step(s->o.optim, lr);
}

const sync_mode sync_alone = { .name = "alone", .help = "one rank", .holds_all = 1, .part = part, .update = update };
