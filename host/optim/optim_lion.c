/* SPDX-License-Identifier: MIT */
/* host/optim/optim_lion.c - Lion (Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023):
 * the sign of an interpolated momentum, so every element moves by the learning rate. The authors take
 * a learning rate 3 to 10 times below AdamW's and a weight decay as much above. cl/optim.cl has the
 * formula. */
#include "host/optim/rule.h"

#include <stddef.h>

static const optim_slot slots[] = { { "momentum", "momentum", OPTIM_AS_PARAM } };

static const optim_setting settings[] = {
    OPTIM_SETTING("beta1", "share of the momentum in the update", 0.9, 0.0, 1.0, beta1),
    OPTIM_SETTING("beta2", "decay of the momentum", 0.99, 0.0, 1.0, beta2),
};

static gt_status append(optim_update *u, const optim_unit *unit)
{
    const optim_config *c = u->config;
    kernel_slot lr;
    gt_status st = kernel_lion(u->list, u->kernels, unit->count, unit->master, unit->grad, unit->slot[0], unit->copy,
                               u->state, (float)c->lr, c->beta1, c->beta2, unit->decay, &lr);
    return st ? st : optim_takes_lr(u, lr, 1.0);
}

const optim_rule optim_lion = {
    .name = "lion",
    .help = "sign of the momentum",
    .slots = slots,
    .slot_count = 1,
    .settings = settings,
    .setting_count = 2,
    .append = append,
    .host = optim_lion_host
};
