/* SPDX-License-Identifier: MIT */
/* host/pipeline/timeline.h - a picture of one step: a row a rank, time to the right.
 *
 *   rank 0 cpu:0.0     ▓0▓▓1▓▓2▓░░░░▒0▒▓3▓▒1▒....▒2▒▒3▒ U    boxes: what it computes; their numbers
 *   replica 0, stage 0            ▔▔▔▔▔▔▔▔▔▔▔▔                are micro-batches. Shaded: what it waits
 *                                                             for. Below: sums of gradients under way
 */
#ifndef PIPELINE_TIMELINE_H
#define PIPELINE_TIMELINE_H

#include "host/base/text.h"
#include "host/pipeline/pipe_schedule.h"
#include "host/pipeline/simulate.h"

typedef struct pipe_picture {
    const char *title, *note;           /* note: a line below the title, or NULL                */
    const pipe_schedule *schedule;
    /* [rank][instruction] seconds, simulated or measured; begin = end: did not happen. Forward,
     * backward and update are computed one after the other. A receive lasts while the host
     * waits, a reduce while sums are under way beside computation. */
    pipe_event *const *events;
    const char *const *row_name;        /* [rank], or NULL: "rank N"                            */
    const char *const *row_place;       /* [rank] "replica 0, stage 1", or NULL                 */
} pipe_picture;

/* Writes an SVG. The time between two computations is told apart by what the rank waits for then:
 * the overlap with a receive is for an activation or a gradient; what is left before the update is for
 * the sums over ranks, of gradients or of their norm; what remains is idle. The share without computation stands behind each row. Boxes too
 * narrow to be seen are joined with their neighbours of the same kind. The legend names what
 * there is in the picture, and nothing else. */
gt_status pipe_timeline_svg(gt_text *out, const pipe_picture *p);

#endif
