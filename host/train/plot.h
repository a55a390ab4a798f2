/* SPDX-License-Identifier: MIT */
/* host/train/plot.h - the loss curve as a picture (SVG).
 *
 *   title
 *   ─ each step  ━ its mean  ● validation            nats per token over steps, both linear
 *   10 |╲
 *    8 | ╲╲__●___
 *    6 |         ╲●__ 5.1234                          the last validation's value
 *      +------------
 *       0   500  1000
 *
 * The strong line is a centred mean: as many steps before a step as after it, 1/25 of all at most, and
 * at most 1/5 of the steps done so far, over which a falling loss is nearly straight: so it neither
 * lags behind the curve nor runs above it. Where it has too few steps it is not drawn. */
#ifndef GT_TRAIN_PLOT_H
#define GT_TRAIN_PLOT_H

#include "host/base/status.h"

#include <stddef.h>

/* Points of a curve; zero-initialise. */
typedef struct plot_series {
    double *x, *y;
    size_t count, room;
} plot_series;

gt_status plot_add(plot_series *s, double x, double y);     /* drops y that is not finite */
void plot_release(plot_series *s);
/* Draws training and validation loss; nothing at all where both are empty. title: NULL or text. */
gt_status plot_loss(const char *path, const char *title, const plot_series *train, const plot_series *val);

#endif
