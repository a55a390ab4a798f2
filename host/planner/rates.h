/* SPDX-License-Identifier: MIT */
/* host/planner/rates.h - what ways of staying together take of a rank's device and processor, measured once and kept. */
#ifndef GT_PLANNER_RATES_H
#define GT_PLANNER_RATES_H

#include "host/device/device.h"
#include "host/planner/compare.h"

/* Flat. Seconds a parameter: encoded, each encoding of it decoded, and of the host for an exchange. */
typedef struct plan_rate {
    double encode, decode, host;
} plan_rate;

/* The cache folder "rates", a file a device, way, update rule, number of ranks and `beside` (who computes at the same
 * time: any text). A file that is not whole counts as none: *found 0. */
gt_status rate_load(plan_rate *out, int *found, dev_device *d, const compare_way *w, const optim_config *c, int ranks,
                    const char *beside);
gt_status rate_keep(const plan_rate *r, dev_device *d, const compare_way *w, const optim_config *c, int ranks,
                    const char *beside);
/* Now; some tens of ms. */
gt_status rate_measure(plan_rate *out, dev_device *d, const compare_way *w, const optim_config *c, int ranks);

#endif
