/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_search.h - who holds which layers, and how many micro-batches each replica takes.
 *
 *   cluster          devices ──► tensor groups ──► replicas ──► stages ──► layers
 *   node 0  [A A A A]    [AA] [AA]      replica 0: [AA] 0-40, [bb] 41-47       12 micro-batches
 *   node 1  [b b b b]    [bb] [bb]      replica 1: [AA] 0-40, [bb] 41-47       12
 *
 * Everything may be unequal: devices, memories, links, the stages of a replica, replicas. The
 * search goes over tensor widths, numbers of replicas, ways to distribute groups over them,
 * micro-batch sizes and recomputation; for each it cuts layers by speed under memory limits,
 * hands out micro-batches, and reckons the step; the best are simulated with every schedule.
 *
 * Cutting: for a given bottleneck, filling stages greedily from the front is optimal, so the best
 * cut of a replica is a bisection over the bottleneck (cf. PipeDream, SOSP 2019, whose dynamic
 * program finds the same for equal devices).
 *
 * Units: seconds, bytes, FLOPs; costs of a unit are for one sequence.                    */
#ifndef GT_PLANNER_CLUSTER_SEARCH_H
#define GT_PLANNER_CLUSTER_SEARCH_H

#include "host/base/text.h"
#include "host/pipeline/run_plan.h"
#include "host/sync/traffic.h"

typedef struct cluster_device {
    char name[32];
    int node;
    double flops;               /* a second, of matrix products as training runs them       */
    double memory;              /* bytes that may be used                                   */
} cluster_device;

typedef struct cluster_devices {
    int devices, nodes;
    cluster_device *device;        /* those of a node stand together                            */
    double *local_bandwidth;    /* [node] between two devices of it, bytes a second          */
    double *uplink;             /* [node] of all its devices together, bytes a second        */
    double local_latency, latency;
} cluster_devices;

/* Reads a cluster file:
 *   { "latency": "20us", "local_latency": "5us",
 *     "nodes": [ { "count": 256, "uplink": "50GB", "local": "300GB",
 *                  "devices": [ { "name": "A100", "count": 8, "tflops": 150, "memory": "76GB" } ] } ] }
 * GT_FORMAT names the entry that is wrong. */
gt_status cluster_read(cluster_devices *out, const char *path);
void cluster_release(cluster_devices *c);

/* A piece of the model that is never cut. */
typedef struct cluster_unit {
    double flops;               /* forward; backward takes as many for inputs, and for weights */
    double saved_input, saved_weight;   /* of those what frozen weights leave out            */
    double parameters;          /* that are trained                                          */
    double frozen;              /* bytes of the others                                       */
    double kept, kept_recompute;    /* activation bytes from forward to backward-weight      */
    double output;              /* bytes to the next unit                                    */
    int reductions;             /* all-reduces of `output` in forward when split over tensor ranks */
} cluster_unit;

typedef struct cluster_job {
    int units;
    const cluster_unit *unit;
    int batch;                  /* sequences a step                                          */
    double state_bytes;         /* a parameter: weight, gradient, optimizer's state, copies  */
    double gradient_bytes;      /* a parameter, on the wire                                  */
    int most_tensor;            /* ranks that can split a layer; 0: any number               */
    /* How replicas stay together. All NULL and 0: as usual, every gradient as it is. */
    const sync_mode *mode;
    const sync_settings *settings;
    const compress_spec *compress;
    const sync_volume *volume;  /* [units] what travels of each; NULL: all of it as it is    */
    double slot_bytes;          /* of state_bytes the optimizer's, which replicas may share out */
    double host;                /* seconds of a host, a parameter that is exchanged          */
    int least_replicas;         /* 0: any number                                             */
    double sent;                /* bytes that stages send, in parts of what they hold; 0: all */
} cluster_job;

typedef struct cluster_stage {
    int first_device, devices;  /* a tensor group                                            */
    int first_unit, units;
    double memory, limit;       /* bytes of its fullest device                               */
    pipe_cost cost;             /* of one micro-batch                                        */
} cluster_stage;

typedef struct cluster_replica {
    int stages, micro_batches;
    cluster_stage *stage;
    double seconds;
} cluster_replica;

typedef struct cluster_layout {
    int tensor, replicas, micro_batch, recompute, unused;   /* unused devices                */
    cluster_replica *replica;
    char schedule[24], distribution[24];
    double step, idle;          /* simulated; idle: of all devices in use                    */
    double reduce;              /* seconds of a step in which ranks wait to stay together: sums of gradients,
                                   of which part is hidden                                   */
} cluster_layout;

enum { CLUSTER_RUNNERS_UP = 2 };
typedef struct cluster_choice {
    cluster_layout best, runner_up[CLUSTER_RUNNERS_UP];
    int runners_up;
    uint64_t tried, fitting;
    char misfit[200];           /* why nothing fits, if so                                   */
} cluster_choice;

/* GT_MISMATCH if nothing fits: the sentence says what came nearest. */
gt_status cluster_search(cluster_choice *out, const cluster_devices *c, const cluster_job *job);
/* What Megatron's uniform splits reach at best: the same tensor width, stages and micro-batches
 * everywhere, layers in equal numbers. *seconds INFINITY: none fits. */
gt_status cluster_uniform(const cluster_devices *c, const cluster_job *job, double *seconds, int *tensor, int *stages);
void cluster_choice_release(cluster_choice *c);

/* The same plan as one that a run can follow (`train --plan`): the devices that it uses are the ranks, in
 * the order of the cluster file. GT_MISMATCH if the run's schedule would keep more than there is memory
 * for. */
gt_status cluster_layout_plan(run_plan *out, const cluster_devices *c, const cluster_job *job, const cluster_layout *p);

/* Bytes of a step that a replica sends to others, on average. */
double cluster_layout_sent(const cluster_job *job, const cluster_layout *p);
/* Bytes that staying together keeps in host memory for the device that holds the most parameters. */
double cluster_layout_host(const cluster_job *job, const cluster_layout *p);

/* A picture of one replica's step as it was simulated; see timeline.h. */
gt_status cluster_layout_picture(gt_text *out, const cluster_devices *c, const cluster_layout *p, int replica);

#endif
