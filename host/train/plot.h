/* host/train/plot.h - the loss curve as a picture (SVG). */
#ifndef GT_TRAIN_PLOT_H
#define GT_TRAIN_PLOT_H

#include "host/base/status.h"

#include <stddef.h>

/* Points of a curve; zero-initialise. */
typedef struct plot_series { double *x, *y; size_t count, room; } plot_series;

gt_status plot_add(plot_series *s, double x, double y);     /* drops y that is not finite */
void      plot_release(plot_series *s);
/* Draws training loss (every step faint, its running mean strong) and validation loss. */
gt_status plot_loss(const char *path, const plot_series *train, const plot_series *val);

#endif
