/* SPDX-License-Identifier: MIT */
/* host/optim/schedule.c - the course of the learning rate.
 *
 *      /-----\              warm-up is linear from lr/warmup to lr
 *     /       \.            cosine, linear: down to min_lr at the last step
 *    /          ''--..      wsd (warm-up, stable, decay; Hu et al., "MiniCPM", 2024): flat,
 *   0  warmup       steps   then linear over the last decay_share of the steps            */
#include "host/optim/optim.h"

#include <math.h>
#include <string.h>

optim_config optim_defaults(void)
{
    return (optim_config){ .kind = OPTIM_ADAMW, .lr = 3e-4, .min_lr = -1.0, .schedule = LR_COSINE,
                           .warmup = 0, .steps = 1, .decay_share = 0.2, .beta1 = 0.9,
                           .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .momentum = 0.9,
                           .clip = 1.0, .loss_scale = 65536.0, .scale_growth = 2000 };
}

gt_status optim_config_check(const optim_config *c)
{
    if (!(c->lr >= 0.0) || c->lr > 1e6)
        return gt_fail(GT_MISUSE, "learning rate %g is not in [0, 1e6]", c->lr);
    if (!(c->beta1 >= 0.0 && c->beta1 < 1.0) || !(c->beta2 >= 0.0 && c->beta2 < 1.0))
        return gt_fail(GT_MISUSE, "betas %g and %g are not both in [0, 1)", c->beta1, c->beta2);
    if (!(c->eps > 0.0) || !(c->weight_decay >= 0.0) || !(c->clip >= 0.0))
        return gt_fail(GT_MISUSE, "eps must be above 0, weight decay and clip not below");
    if (!(c->momentum >= 0.0 && c->momentum < 1.0))
        return gt_fail(GT_MISUSE, "momentum %g is not in [0, 1)", c->momentum);
    if (!(c->decay_share >= 0.0 && c->decay_share <= 1.0))
        return gt_fail(GT_MISUSE, "the share of the steps that decays, %g, is not in [0, 1]",
                       c->decay_share);
    if (c->min_lr > c->lr)
        return gt_fail(GT_MISUSE, "the last learning rate %g is above the peak %g", c->min_lr,
                       c->lr);
    return GT_OK;
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

int optim_kind_parse(optim_kind *out, const char *name)
{
    *out = strcmp(name, "sgd") ? OPTIM_ADAMW : OPTIM_SGD;
    return !strcmp(name, "sgd") || !strcmp(name, "adamw");
}
