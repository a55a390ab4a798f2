/* SPDX-License-Identifier: MIT */
/* host/optim/optim_adamw.c - Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled weight
 * decay regularization", ICLR 2019), in the form PyTorch computes it: cl/optim.cl has the formula. */
#include "host/optim/rule.h"

#include <math.h>
#include <stddef.h>

static const optim_slot slots[] = {
    { "first", "first moments", OPTIM_AS_PARAM },
    { "second", "second moments", OPTIM_AS_PARAM },
};

static const optim_setting settings[] = {
    OPTIM_SETTING("beta1", "decay of the first moment", 0.9, 0.0, 1.0, beta1),
    OPTIM_SETTING("beta2", "decay of the second moment", 0.95, 0.0, 1.0, beta2),
    OPTIM_SETTING("eps", "added to the root of the second moment", 1e-8, 1e-300, INFINITY, eps),
};

gt_status optim_adamw_append(optim_update *u, const optim_unit *unit, dev_buffer *first, dev_buffer *second,
                             double lr_scale)
{
    const optim_config *c = u->config;
    kernel_slot lr, form;
    gt_status st = kernel_adamw(u->list, u->kernels, unit->count, unit->master, unit->grad, first, second, unit->copy,
                                u->state, (float)c->lr, c->beta1, c->beta2, (float)c->eps, unit->decay, &lr, &form);
    if (!st)
        st = optim_takes_lr(u, lr, lr_scale);
    return st ? st : optim_takes_form(u, unit, form);
}

static gt_status append(optim_update *u, const optim_unit *unit)
{
    return optim_adamw_append(u, unit, unit->slot[0], unit->slot[1], 1.0);
}

const optim_rule optim_adamw = {
    .name = "adamw",
    .help = "Adam with decoupled weight decay",
    .slots = slots,
    .slot_count = 2,
    .settings = settings,
    .setting_count = 3,
    .moments = 1,
    .append = append,
    .host = optim_adamw_host
};
