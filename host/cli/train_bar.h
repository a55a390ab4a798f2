/* SPDX-License-Identifier: MIT */
/* host/cli/train_bar.h - the line of a running training on a terminal.
 *
 *   step 120/500 [####----------] loss 3.1234  val 3.2000  lr 0.00098  grad 2.57  12.3k tok/s  1:02 left
 *
 * It never reaches the screen's last column: a line that wraps could not be drawn over by the next. Where
 * the screen is too narrow, what matters least is left out; the bar takes the room that remains. */
#ifndef GT_CLI_TRAIN_BAR_H
#define GT_CLI_TRAIN_BAR_H

#include <stddef.h>
#include <stdint.h>

typedef struct train_bar {
    uint64_t step, steps;
    double loss, val, lr, grad_norm;    /* val NaN: none yet                                    */
    double tokens_per_s, seconds_left;
    const char *skipped;                /* why the step moved nothing; NULL: it did             */
} train_bar;

/* Into out, at most columns - 1 wide; returns out. */
char *train_bar_line(char *out, size_t size, const train_bar *b, int columns);

#endif
