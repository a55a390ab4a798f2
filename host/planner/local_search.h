/* SPDX-License-Identifier: MIT */
/* host/planner/local_search.h - the best plan for few devices whose times were measured.
 *
 *   ranks 0 1 2 3   ways to form replicas    {0 1 2 3}  {0 1 2}{3}  {0 1}{2 3} ...
 *                   sequences of each        13 + 3, so that the slowest is fastest
 *                   inside a replica         order of stages, cuts, micro-batch size, schedule
 *
 * cluster_search.h thinks of thousands of devices by their FLOP/s. Here are few, known to the millisecond,
 * and all may be different: up to LOCAL_MOST_RANKS tensor groups the ways to form replicas are
 * all tried. Inside a replica the least bottleneck over all orders and cuts comes from a dynamic
 * program over sets of ranks (how many units can a set hold, if none takes longer than t?); it
 * predicts steps, the best are arranged exactly (every order and cut where those are few, else
 * moved about from the program's answer), and the simulator decides. More ranks go to cluster_search.h, with
 * speeds taken from the measurements.
 *
 * Units: seconds, bytes.                                                                  */
#ifndef GT_PLANNER_LOCAL_SEARCH_H
#define GT_PLANNER_LOCAL_SEARCH_H

#include "host/exchange/stage_wire.h"
#include "host/planner/profile.h"
#include "host/pipeline/run_plan.h"
#include "host/sync/traffic.h"

enum { LOCAL_MOST_RANKS = 8, LOCAL_RUNNERS_UP = 2 };

typedef struct local_rank {
    char device[32];
    int node;
    double memory;              /* bytes that it may use                                    */
    int on_host;                /* 1: its memory is the host's, which the network reaches   */
    double encode, decode;      /* seconds of the job's compressor, a value (and encoding)  */
    double host;                /* seconds of its processor, a parameter that is exchanged  */
    wire_rate between[WIRE_KINDS];      /* [the job's forms] of what it sends to the next stage */
    profile profile;
} local_rank;

typedef struct local_job {
    int ranks, units, batch;
    const local_rank *rank;
    /* Between two ranks, [from * ranks + to]; NULL with one rank. */
    const double *latency, *bandwidth;
    double state_bytes;         /* a parameter: weight, gradient, optimizer's state, copy    */
    double slot_bytes;          /* of it the optimizer's state, which replicas may share out */
    /* What is fixed; 0, NULL, -1: open. Tensor groups are tried only if nothing else fits. */
    int stages, replicas, tensor, micro_batch, recompute;
    const char *schedule;
    const char *sync;           /* never NULL                                               */
    const sync_settings *settings;      /* of that mode; NULL: its usual ones               */
    const compress_spec *compress;      /* NULL: everything travels as it is                */
    const sync_volume *volume;          /* [PROFILE_KINDS] of a unit; NULL: as it is        */
    int forms;                          /* of what stages send, each link having the fastest; 0: as it is */
    double value_bytes;                 /* of a value there as it is; of forms              */
} local_job;

typedef struct local_choice {
    run_plan best, runner_up[LOCAL_RUNNERS_UP];
    char why_not[LOCAL_RUNNERS_UP][96];     /* what makes the runner-up slower              */
    int runners_up;
    uint64_t simulated;                     /* schedules                                    */
} local_choice;

/* All plans pass run_plan_check(). GT_MISMATCH if nothing fits: the sentence says what came nearest;
 * GT_MISUSE if what is fixed cannot be. */
gt_status local_search(local_choice *out, const local_job *job);
/* The GT_MISUSE part of it alone: ranks, batch and what is fixed are enough; units 0: not known. */
gt_status local_search_check(const local_job *job);
void local_choice_release(local_choice *c);

/* Fills in what this job's times say of a plan: costs, devices, each rank's memory and limit, step and
 * idle share. The plan passes its check; whether it fits is memory[] against limit[]. The search
 * judges by the same numbers. */
gt_status local_judge(run_plan *plan, const local_job *job);
/* Bytes of a step that a replica of the plan sends to others, on average. */
double local_sent(const run_plan *plan, const local_job *job);

#endif
