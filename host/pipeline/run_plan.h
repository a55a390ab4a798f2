/* SPDX-License-Identifier: MIT */
/* host/pipeline/run_plan.h - who does what in a run: plan.json, as planned, checked and followed.
 *
 *   replica 0   stage 0: ranks 0 1   units 0-8     6 micro-batches of 4      tensor 2: every stage is
 *               stage 1: ranks 2 3   units 9-13                             split over two ranks
 *   replica 1   stage 0: ranks 4 5   units 0-13    2 micro-batches of 4
 *
 * Replicas may differ in everything but the tensor width. One of no micro-batches is a rank that only serves
 * (sync_mode_serves_only): it holds everything and updates what others train. With several chunks (interleaved
 * schedule) a stage holds the virtual stages stage, stage + stages, stage + 2 stages, ...
 * The plan alone decides in which order numbers are added: the same plan gives the same bits.
 *
 * Units: seconds, bytes; costs are of one micro-batch of the replica.                     */
#ifndef PIPELINE_RUN_PLAN_H
#define PIPELINE_RUN_PLAN_H

#include "host/base/text.h"
#include "host/pipeline/pipe_schedule.h"
#include "host/sync/settings.h"

enum { RUN_PLAN_MOST = 65536 };        /* ranks, and units */
enum { RUN_PLAN_FORM = 192 };          /* letters of a --compress, with the end               */

/* Ranks that add up the same gradients, and the compressor that --compress auto chose for them; or two neighbours in a
 * pipeline, and the form that --compress-stages auto did. */
typedef struct run_link {
    int ranks, *rank;           /* rising                                                      */
    char form[RUN_PLAN_FORM];
} run_link;

typedef struct run_replica {
    int stages, micro_batches, micro_batch;     /* micro_batch: sequences at once; no micro-batches: it only serves */
    int *rank;                  /* [stage * tensor + k]: rank k of the stage's tensor group   */
    int *cut;                   /* [stages * chunks + 1]: virtual stage v has units cut[v] .. */
    pipe_cost *cost;            /* [stages * chunks], as predicted; all zero: not known       */
} run_replica;

typedef struct run_plan {
    int ranks, units, batch;    /* batch: sequences a step                                    */
    int tensor, chunks, recompute;
    double *share;              /* [tensor] of every stage's heads, columns, vocabulary, rows */
    char schedule[24];
    char sync[16];              /* of sync_mode_at()                                           */
    sync_settings settings;     /* of that mode                                                */
    char compress[RUN_PLAN_FORM];       /* of gradients, as --compress says it; "": not said   */
    char compress_stages[RUN_PLAN_FORM];        /* the same of --compress-stages               */
    uint64_t compress_after;    /* steps before `compress`                                     */
    int links, stage_links;     /* of --compress auto, --compress-stages auto; 0: it has not chosen yet */
    run_link *link, *stage_link;
    int replicas;
    run_replica *replica;
    char (*device)[32];         /* [rank] its id, for people and for noticing a change        */
    double *memory, *limit;     /* [rank] bytes needed and there; 0: not known                */
    double *host_memory;        /* [rank] bytes that staying together keeps in host memory    */
    double step, idle;          /* predicted; step 0: not known                               */
} run_plan;

/* One rank, all units, one stage. */
gt_status run_plan_single(run_plan *out, int units, int batch, int micro_batch, int recompute);
/* Room for a plan of this shape: every pointer but replica's members allocated, all zero,
 * shares equal. Then run_plan_replica() for each. */
gt_status run_plan_create(run_plan *out, int ranks, int units, int batch, int tensor, int chunks, int replicas);
gt_status run_plan_replica(run_plan *p, int replica, int stages);
gt_status run_plan_copy(run_plan *out, const run_plan *p);
void run_plan_release(run_plan *p);            /* leaves it empty */

/* Takes another mode, with these settings; NULL: the usual ones. */
void run_plan_sync(run_plan *p, const char *mode, const sync_settings *settings);

/* Takes other forms in which gradients and what stages send travel; "": not said. What was chosen is forgotten unless
 * it was chosen for the same. */
void run_plan_forms(run_plan *p, const char *compress, const char *compress_stages);
/* Adds what was chosen for a link. */
gt_status run_plan_link(run_plan *p, const int *rank, int ranks, const char *form);
/* What was chosen for these ranks; NULL: nothing. */
const char *run_plan_form(const run_plan *p, const int *rank, int ranks);
/* The same of two neighbours in a pipeline, in any order. */
gt_status run_plan_stage_link(run_plan *p, int a, int b, const char *form);
const char *run_plan_stage_form(const run_plan *p, int a, int b);

/* Every rank has exactly one place; cuts rise from 0 to `units`; every virtual stage has a unit;
 * sequences add up to the batch; the schedule exists for that shape. GT_MISMATCH says what is
 * wrong. */
gt_status run_plan_check(const run_plan *p);

/* Where a rank stands; all -1 if it has no place. first_sequence: of the batch, the replica's first. */
typedef struct run_place {
    int replica, stage, tensor_rank, first_sequence;
} run_place;
run_place run_plan_place(const run_plan *p, int rank);
/* Replicas that train: those with micro-batches. */
int run_plan_training(const run_plan *p);
/* The schedule of a replica, checked; release with pipe_schedule_release(). */
gt_status run_plan_schedule(const run_plan *p, int replica, pipe_schedule *out);

/* plan.json. Reading checks. GT_FORMAT, GT_MISMATCH name the file and the entry. */
gt_status run_plan_write(const run_plan *p, const char *path);
gt_status run_plan_read(run_plan *out, const char *path);
/* The same as text, to hand to other ranks. */
gt_status run_plan_text(const run_plan *p, gt_text *out);
gt_status run_plan_parse(run_plan *out, const char *text, const char *name);

#endif
