/* SPDX-License-Identifier: MIT */
/* host/pipeline/simulate.h - how long a schedule takes, before anybody runs it.
 *
 * Computation of a rank is serial; a wire carries one message at a time in each direction and
 * runs beside computation; a receive waits. Reductions of gradients begin when a chunk's are
 * complete, one after the other on a rank, beside computation; the update waits for them.   */
#ifndef PIPELINE_SIMULATE_H
#define PIPELINE_SIMULATE_H

#include "host/pipeline/pipe_schedule.h"

typedef struct pipe_event {
    double begin, end;
} pipe_event;

typedef struct pipe_simulation {
    double step;                /* seconds from the first forward to the last update       */
    double idle;                /* share of all ranks' time without computation, 0..1      */
    int ranks;
    double *busy;               /* [rank] seconds of computation                           */
    double *end;                /* [rank] when its update is done                          */
    pipe_event **event;         /* [rank][instruction]; NULL unless asked for. Of a receive how long
                                   it waits, of a reduce how long its sum is under way     */
} pipe_simulation;

/* costs: one a virtual stage. want_events: fill `event`. The schedule must pass
 * pipe_schedule_check(). */
gt_status pipe_simulate(pipe_simulation *out, const pipe_schedule *s, const pipe_cost *costs, int want_events);
void pipe_simulation_release(pipe_simulation *s);

#endif
