/* SPDX-License-Identifier: MIT */
/* host/cli/train_bar.c - what of a step fits into a line. */
#include "host/cli/train_bar.h"

#include "host/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* In the order in which they stand. */
enum { STEP, LOSS, VAL, RATE, GRAD, SPEED, LEFT, PARTS, BAR_LEAST = 6, BAR_MOST = 30 };

static const int leaves[] = { VAL, GRAD, RATE, SPEED, LEFT, LOSS };     /* in this order, for want of room */

static int total(char part[PARTS][48])
{
    int n = 0;
    for (int i = 0; i < PARTS; i++)
        n += part[i][0] ? (int)strlen(part[i]) + (n ? 2 : 0) : 0;
    return n;
}

static void fill(char part[PARTS][48], const train_bar *b)
{
    char text[32];
    memset(part, 0, PARTS * sizeof *part);
    snprintf(part[STEP], sizeof *part, "step %llu/%llu", (unsigned long long)b->step, (unsigned long long)b->steps);
    if (isnan(b->loss))
        snprintf(part[LOSS], sizeof *part, "loss -");
    else
        snprintf(part[LOSS], sizeof *part, "loss %.4f", b->loss);
    if (!isnan(b->val))
        snprintf(part[VAL], sizeof *part, "val %.4f", b->val);
    snprintf(part[RATE], sizeof *part, "lr %.2g", b->lr);
    if (b->skipped)
        snprintf(part[GRAD], sizeof *part, "skipped");
    else
        snprintf(part[GRAD], sizeof *part, fabs(b->grad_norm) < 1e4 ? "grad %.2f" : "grad %.1e", b->grad_norm);
    snprintf(part[SPEED], sizeof *part, "%s tok/s", gt_format_count(text, sizeof text, b->tokens_per_s));
    snprintf(part[LEFT], sizeof *part, "%s left", gt_format_duration(text, sizeof text, b->seconds_left));
}

char *train_bar_line(char *out, size_t size, const train_bar *b, int columns)
{
    char part[PARTS][48], bar[BAR_MOST + 1];
    const int most = columns - 1 < (int)size - 1 ? columns - 1 : (int)size - 1;
    fill(part, b);
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves && total(part) > most; i++)
        part[leaves[i]][0] = '\0';
    int room = most - total(part) - 3;              /* a space and two brackets */
    room = room > BAR_MOST ? BAR_MOST : room < BAR_LEAST ? 0 : room;
    for (int i = 0; i < room; i++)
        bar[i] = (double)i < room * (double)b->step / (double)(b->steps ? b->steps : 1) ? '#' : '-';
    bar[room] = '\0';
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < PARTS && n < size; i++) {
        if (part[i][0])
            n += (size_t)snprintf(out + n, size - n, "%s%s", i == STEP ? "" : i == LOSS && room ? " " : "  ", part[i]);
        if (i == STEP && room && n < size)
            n += (size_t)snprintf(out + n, size - n, " [%s]", bar);
    }
    out[most > 0 ? most : 0] = '\0';                /* a screen narrower than the step's number */
    return out;
}
