/* SPDX-License-Identifier: MIT */
/* host/optim/schedule.c - the learning rate of each step.
 *
 *      /-----\              warm-up is linear from lr/warmup to lr
 *     /       \.            cosine, linear: down to min_lr at the last step
 *    /          ''--..      wsd (warm-up, stable, decay; Hu et al., "MiniCPM", 2024): flat,
 *   0  warmup       steps   then linear over the last decay_share of the steps            */
#include "host/optim/optim_private.h"

#include <math.h>
#include <string.h>

optim_config optim_defaults(void)
{
    optim_config c = {
        .lr = 3e-4,
        .min_lr = -1.0,
        .schedule = LR_COSINE,
        .steps = 1,
        .decay_share = 0.2,
        .weight_decay = 0.1,
        .clip = 1.0,
        .loss_scale = 65536.0,
        .scale_growth = 2000,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .momentum = 0.9
    };
    optim_config_rule(&c, optim_rules[0]);
    return c;
}

gt_status optim_config_check(const optim_config *c)
{
    if (!(c->lr >= 0.0) || c->lr > 1e6)
        return gt_fail(GT_MISUSE, "learning rate %g is not in [0, 1e6]", c->lr);
    if (!(c->weight_decay >= 0.0) || !(c->clip >= 0.0))
        return gt_fail(GT_MISUSE, "weight decay %g and clip %g must not be below 0", c->weight_decay, c->clip);
    if (!(c->decay_share >= 0.0 && c->decay_share <= 1.0))
        return gt_fail(GT_MISUSE, "the share of the steps that decays, %g, is not in [0, 1]", c->decay_share);
    if (c->min_lr > c->lr)
        return gt_fail(GT_MISUSE, "the last learning rate %g is above the peak %g", c->min_lr, c->lr);
    return optim_settings_check(c);
}

double optim_lr(const optim_config *c, uint64_t step)
{
    const double low = c->min_lr >= 0.0 ? c->min_lr : 0.1 * c->lr;
    if (step < c->warmup)
        return c->lr * (double)(step + 1) / (double)c->warmup;
    if (c->schedule == LR_CONSTANT || c->steps <= c->warmup)
        return c->lr;
    if (step >= c->steps)
        return low;
    const double course = (double)(c->steps - c->warmup);
    double done = (double)(step - c->warmup) / course;      /* [0, 1) */
    if (c->schedule == LR_COSINE)
        return low + 0.5 * (c->lr - low) * (1.0 + cos(3.14159265358979323846 * done));
    if (c->schedule == LR_WSD) {
        const double flat = 1.0 - c->decay_share;
        if (done < flat || c->decay_share <= 0.0)
            return c->lr;
        done = (done - flat) / c->decay_share;
    }
    return c->lr + (low - c->lr) * done;
}

int optim_schedule_parse(optim_schedule *out, const char *name)
{
    static const char *const names[] = { "constant", "cosine", "linear", "wsd" };
    for (int i = 0; i < 4; i++)
        if (!strcmp(names[i], name)) {
            *out = (optim_schedule)i;
            return 1;
        }
    return 0;
}
