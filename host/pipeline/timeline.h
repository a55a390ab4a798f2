/* host/pipeline/timeline.h - a picture of one step: a row a rank, time to the right. */
#ifndef PIPELINE_TIMELINE_H
#define PIPELINE_TIMELINE_H

#include "host/base/text.h"
#include "host/pipeline/pipe_schedule.h"
#include "host/pipeline/simulate.h"

/* Writes an SVG. events[rank][instruction] are seconds, simulated or measured; row_name(rank) may be
 * NULL (then "rank N"). Forward, backward-input, backward-weight and update are boxes; what is
 * left white is idle, and its share is written behind each row. Boxes too narrow to be seen
 * are joined with their neighbours of the same kind. */
gt_status pipe_timeline_svg(gt_text *out, const char *title, const pipe_schedule *s,
                            pipe_event *const *events, const char *const *row_name);

#endif
