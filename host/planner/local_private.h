/* SPDX-License-Identifier: MIT */
/* host/planner/local_private.h - what the files of the local search share.
 *
 *   local_cost.c     what a range of units costs on a group; a whole plan judged
 *   local_arrange.c  one replica: its order, cuts and micro-batch size
 *   local_replicas.c replicas, and the sequences of each
 *   local_settings.c what to look at: micro-batch sizes, tensor groups
 *   local_search.c   the choice, tensor widths, recomputation
 *   local_many.c     more ranks than those can take
 *
 * A group is a tensor group: one rank, or several that split every layer.                  */
#ifndef GT_PLANNER_LOCAL_PRIVATE_H
#define GT_PLANNER_LOCAL_PRIVATE_H

#include "host/planner/local_search.h"

/* Plans whose times differ by less are as fast as each other. */
#define LOCAL_SAME_TIME 1.0025

enum { GROUPS = LOCAL_MOST_RANKS, GROUP_SETS = 1 << GROUPS, CHUNKS = 2, PARTS = GROUPS * CHUNKS, MOST_SIZES = 64 };

/* Times of all groups under one tensor width. */
typedef struct group_table {
    const local_job *job;
    int tensor, recompute, groups;
    double *share;              /* [tensor]                                                */
    int *rank;                  /* [group * tensor + k]                                    */
    int sizes, size[MOST_SIZES];    /* micro-batches that are thought of, rising           */
    profile_cost *unit;         /* [(group * sizes + i) * PROFILE_KINDS + kind]            */
    double *memory;             /* [group] the least of its ranks'                         */
    double latency, bandwidth;  /* of the worst link: sums over replicas take all          */
    const sync_mode *mode;
} group_table;

/* 1: replicas get equal parts of the batch, however fast they are. */
int local_shares_equally(const local_job *job);

/* rank: copied. */
gt_status group_table_make(group_table *out, const local_job *job, int tensor, int recompute, int groups,
                           const int *rank, const double *share, const int *size, int sizes);
void group_table_release(group_table *t);

const profile_cost *group_unit(const group_table *t, int group, int i, profile_kind kind);

/* Of units [from, to) on a group, micro-batches of size i, `replicas` replicas. split: the model's ends
 * are on two groups, so what is tied is summed between them. Without the send. */
typedef struct part_price {
    pipe_cost cost;
    double parameters, frozen, passing;         /* trained ones; bytes of the others */
    sync_volume volume;                         /* of the trained ones */
} part_price;
part_price group_price(const group_table *t, int group, int i, int from, int to, int replicas, int split);
/* Seconds of the wire for one micro-batch of size i from one group to another. */
double group_send(const group_table *t, int from, int to, int i);
/* Seconds to sum the gradients of so many parameters over all replicas. */
double group_ring(const group_table *t, double parameters, int replicas);
/* Bytes of the fullest rank of a group, with `kept` micro-batches in flight; in host memory that is its device's as
 * well, with what it keeps there. */
double group_bytes(const group_table *t, int group, const part_price *all, int kept, int replicas);

/* How far a group comes from unit `from` in `limit` seconds, with micro-batches of size i, as stage `place` of
 * `stages` with at most `flight` in flight; each later stage needs a unit, and the last takes all that
 * is left. -1: it cannot take its part, in time or in memory. */
int group_reach(const group_table *t, int group, int i, int from, int place, int stages, int flight, double limit);

/* ---- one replica ------------------------------------------------------------------------- */

typedef struct arrangement {
    int stages, chunks, micro_batches, size_at;     /* size_at: of table->size               */
    int group[GROUPS], cut[PARTS + 1];
    pipe_cost cost[PARTS];
    double seconds, busy;       /* simulated; INFINITY: nothing fits                         */
} arrangement;

typedef struct misfit {
    char text[200];
    double over;
} misfit;  /* over: need / have, least so far */

typedef struct arranger arranger;
gt_status arranger_create(arranger **out, const group_table *t, misfit *why);
void arranger_release(arranger *a);
/* Predicted seconds of the groups in `set` with k micro-batches of size i, cut as well as can be, as
 * one of `replicas`; INFINITY: it does not fit. */
double arranger_predict(arranger *a, int set, int i, int k, int replicas);
/* The best arrangement of the set for `sequences` (remembered). Valid until the arranger goes.
 * schedule: a name of pipe_schedule_at(), not copied. */
gt_status arranger_best(arranger *a, const arrangement **out, int set, int sequences, int replicas,
                        const char *schedule);
uint64_t arranger_simulated(const arranger *a);

/* ---- replicas ------------------------------------------------------------------------------ */

/* Replicas as sets of groups, and the sequences of each. */
typedef struct assignment {
    int replicas, set[GROUPS], sequences[GROUPS];
    double predicted;
} assignment;
enum { MOST_ASSIGNMENTS = GROUPS * 64 };
/* All that are worth a look, fastest first. out: MOST_ASSIGNMENTS. */
gt_status assignments_find(assignment *out, int *count, const group_table *t, arranger *a);

/* ---- settings ------------------------------------------------------------------------------ */

/* Micro-batches to think of, rising; returns how many. */
int local_sizes(const local_job *job, int groups, int size[MOST_SIZES]);
/* Ranks in the order of groups, and the shares of their places: neighbours by speed within a node become
 * groups, the faster ones first. 0: a node's ranks cannot be distributed into groups of this width. */
int local_groups(const local_job *job, int tensor, int *rank, double *share);
/* What makes a plan slower than the best. */
void local_say_why_not(char *out, size_t size, const run_plan *loser, const run_plan *best);

/* ---- many ranks -------------------------------------------------------------------------- */
gt_status local_search_many(local_choice *out, const local_job *job, int tensor, int recompute, misfit *why,
                            int *found);

#endif
