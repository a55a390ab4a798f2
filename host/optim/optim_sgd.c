/* SPDX-License-Identifier: MIT */
/* host/optim/optim_sgd.c - gradient descent, with momentum as PyTorch has it, or without. */
#include "host/optim/rule.h"

#include <stddef.h>

static const optim_slot slots[] = { { "first", "first moments", OPTIM_AS_PARAM } };

static const optim_setting settings[] = {
    OPTIM_SETTING("momentum", "decay of the momentum, 0: none is kept", 0.9, 0.0, 1.0, momentum),
};

static unsigned keeps(const optim_config *c, const graph_param_info *info)
{
    (void)info;
    return c->momentum > 0.0 ? 1u : 0u;
}

static gt_status append(optim_update *u, const optim_unit *unit)
{
    const optim_config *c = u->config;
    kernel_slot lr;
    gt_status st = kernel_sgd(u->list, u->kernels, unit->count, unit->master, unit->grad, unit->slot[0], unit->copy,
                              u->state, (float)c->lr, (float)c->momentum, unit->decay, &lr);
    return st ? st : optim_takes_lr(u, lr, 1.0);
}

const optim_rule optim_sgd = {
    .name = "sgd",
    .help = "gradient descent with momentum",
    .slots = slots,
    .slot_count = 1,
    .settings = settings,
    .setting_count = 1,
    .keeps = keeps,
    .append = append,
    .host = optim_sgd_host
};
