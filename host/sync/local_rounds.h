/* SPDX-License-Identifier: MIT */
/* host/sync/local_rounds.h - what the files of local training share.
 *
 *   local.c         the mode: which steps are apart, when a fragment is due
 *   local_parts.c   fragments of the parameters, and an outer step of one
 *   local_uneven.c  how many steps of a round each replica makes
 *   local_state.c   what checkpoints hold of it
 *   outer.h         what an outer step computes                                              */
#ifndef GT_SYNC_LOCAL_ROUNDS_H
#define GT_SYNC_LOCAL_ROUNDS_H

#include "host/sync/buckets.h"
#include "host/sync/outer.h"
#include "host/sync/sparse.h"

/* The mode's settings, in the order of its table. */
enum {
    LOCAL_STEPS,
    LOCAL_AFTER,
    LOCAL_OUTER,
    LOCAL_LR,
    LOCAL_MOMENTUM,
    LOCAL_FRAGMENTS,
    LOCAL_OVERLAP,
    LOCAL_MIX,
    LOCAL_KEEP,
    LOCAL_DECAY,
    LOCAL_UNEVEN,
    LOCAL_SETTINGS
};

/* Elements of a segment that lie side by side. */
typedef struct local_run {
    int64_t first, count;
} local_run;

/* A tensor of a part: from which packed element on, and how many. */
typedef struct local_tensor {
    int64_t at, count;
} local_tensor;

/* What a segment has of a fragment. */
typedef struct local_part {
    int segment, fragment, group_number;
    net_group *group;                   /* its holders; NULL: this rank alone               */
    int gives;                          /* of its replica, this rank adds to the sum        */
    local_run *runs;
    int run_count;
    int64_t count;                      /* elements of all runs, one behind the other:      */
    float *wire;                        /* what is summed, in l->wire                       */
    float *start, *momentum;            /* NULL: the rule keeps none                        */
    local_tensor *tensors;
    int tensor_count;
    unsigned char *code;                /* sparse: the encodings of all who give, one behind the other, in l->codes */
    uint64_t code_bytes;                /* of one: a share (double), then each tensor's     */
    float *error;                       /* NULL: not sparse, or others give                 */
    net_collective *sum;                /* under way; NULL: none                            */
} local_part;

/* Where a parameter lies: NULL: it is frozen. */
typedef struct local_place {
    local_part *part;
    int64_t at;
} local_place;

/* How many steps of a round each replica makes. */
typedef struct local_uneven {
    int *steps;                         /* [replica]; NULL: all of them                     */
    int measures;                       /* 1: each round anew, from what was measured       */
    double seconds, made;               /* of the round under way: of this rank's steps, and how many these are */
} local_uneven;

typedef struct local {
    sync_options o;
    uint64_t every, after, overlap;     /* steps                                            */
    int fragments;
    double lr, momentum, mix, keep, decay;
    const outer_rule *rule;
    sync_run within, whole;             /* gradients: of the replica; before `after`, of all */
    local_part *parts;
    int part_count;
    local_place *place;                 /* [parameter]                                      */
    void *wire, *codes;                 /* of the network; room for the largest fragment    */
    float *room;                        /* the largest part, where what arrives is mixed    */
    uint64_t *began;                    /* [fragment] the step after which its sum began; 0: none is under way */
    unsigned char *fresh;               /* [fragment] its sum begins after this step        */
    double *own, *all;                  /* [fragment] what targets weighed since it began before */
    local_uneven uneven;
    int loaded;                         /* starts came from a checkpoint                    */
} local;

/* As sync_mode.host_seconds (host_rate.c). */
gt_status sync_local_host_seconds(const sync_settings *s, const optim_config *c, int holders, double *seconds);

/* 1: replicas are never all at the same place, so each keeps its own parameters in checkpoints. */
int local_streams(const local *l);

/* After o and the settings: fragments and their memory. */
gt_status local_parts_create(local *l);
void local_parts_release(local *l);
/* Where replicas are becomes where they began. */
gt_status local_parts_start(local *l);
/* Bytes that this rank adds to the sum of a fragment. */
uint64_t local_fragment_bytes(const local *l, int fragment);
/* The outer step of a fragment: its sum begins; and, when it has come, all go on from there, of which each
 * replica keeps the share `keep` of its own. The caller renews 16-bit copies. */
gt_status local_fragment_begin(local *l, int fragment, uint64_t step);
gt_status local_fragment_finish(local *l, int fragment, double keep);

/* What --local-uneven says: GT_MISUSE if it cannot be; replicas 0: not known yet. */
gt_status local_uneven_check(const char *text, uint64_t every, int replicas);
/* 1: it says that all replicas make all steps. */
int local_uneven_is_off(const char *text);
gt_status local_uneven_create(local *l, const char *text);
void local_uneven_release(local *l);
/* Does a replica take part in step i of a round, 1 ... H? In each that brings it past another of its own. */
int local_uneven_has(const local *l, int replica, uint64_t i);
/* After a step of this rank's replica. */
void local_uneven_note(local *l, double seconds);
/* At the end of a round, all ranks: steps of the next one. */
gt_status local_uneven_agree(local *l, uint64_t step);

/* As sync_mode.saved. */
int local_saved(sync_run *s, checkpoint_state *states);

#endif
