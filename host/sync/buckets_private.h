/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_private.h - what the files of buckets share.
 *
 *   buckets_cut.c     which tensors travel together, and in what memory
 *   buckets.c         a step
 *   buckets_clip.c    a replica's gradient, clipped before anything is encoded
 *   buckets_factors.c what compressors keep of whole tensors, in checkpoints
 *   buckets_error.c   what compression holds back, in checkpoints                            */
#ifndef GT_SYNC_BUCKETS_PRIVATE_H
#define GT_SYNC_BUCKETS_PRIVATE_H

#include "host/base/trace.h"
#include "host/sync/buckets.h"
#include "host/sync/coding.h"

typedef struct bucket {
    struct buckets *of;
    net_group *group;
    int group_number;
    sync_compress spec;                 /* of its group                                     */
    dev_buffer *grad, *master;          /* of the segment                                   */
    uint64_t offset, count;             /* bytes into the segment; elements                 */
    uint64_t *counts;                   /* sharded: elements of each rank's part            */
    uint64_t own_offset, own_count;     /* of this rank's: elements into the bucket         */
    sync_coding *coding;                /* NULL: gradients travel as they are, always       */
    int *tensor, tensors;               /* parameters of the ranges of coding               */
    void *memory;                       /* what the network reads and writes, where the device's own
                                         * memory is out of its reach                       */
    int sent;                           /* in this step                                     */
    dev_event *reading, *writing;       /* of data                                          */
    uint64_t ticket;                    /* of who begins the sum; 0: finish() does           */
    net_collective *sum;
    uint64_t began, ended;              /* of the newest sum                                */
    char name[GT_SPAN_DETAIL];          /* the parameters in it, for the trace              */
} bucket;

typedef struct buckets {
    sync_options o;
    sync_bucket_form form;
    int share;                          /* form SYNC_SUM_PART                               */
    /* Compressors of all groups of all ranks: steps before any of them, rounds at most, and whether one encodes, keeps
     * errors or momentum or a state of its own. */
    uint64_t after;
    int rounds, encodes, keeps_error, keeps_momentum, keeps_state;
    kernel_set *own_kernels[DTYPE_STORAGES]; /* of compressors' types, made for them     */
    int plain; /* in this step all gradients travel as they are    */
    int begun; /* a step's first bucket has left                   */
    int left; /* the newest step encoded, and so left something   */
    uint64_t seen; /* of run->updates, when that was asked for last    */
    int settled; /* nothing has happened since what is kept was settled */
    dev_buffer *random, *frame; /* kernel_compress_begin(); NULL: nothing is compressed */
    dev_list *begin;
    struct bucket_clip *clip; /* NULL: nothing is clipped here                    */
    kernel_slot pending_at, step_at, weigh_at;
    bucket *buckets;
    int count, room;
    int *done; /* [bucket * chunks + chunk]: see options.done      */
    unsigned char *ended; /* [chunk]: its last backward-weight is queued      */
    int *queued; /* [chunk]: launches of it that are                 */
    uint64_t step_bytes;
} buckets;

/* What the network moves of a bucket in a round of exchange. */
typedef struct travel {
    dev_buffer *buffer;
    uint64_t at; /* where it begins in buffer                        */
    char *host; /* the same memory on the host, or a copy's         */
    int in_place;
    uint64_t bytes, elements; /* exchanged                                        */
    uint64_t own_at, own_bytes; /* of them this rank's, when it sends               */
    net_type type;
} travel;
travel sync_bucket_travel(const bucket *b, int round);
/* How a group's gradients travel, when compression has begun. */
sync_compress sync_buckets_spec(const buckets *s, int group);
/* How its gradients travel in this step. */
const sync_compressor *sync_bucket_how(const bucket *b);
/* When the backward pass is over, before anything is encoded; all ranks of a replica. */
gt_status sync_buckets_clip(buckets *s);
gt_status sync_buckets_clip_create(buckets *s);
void sync_buckets_clip_release(struct bucket_clip *c); /* takes NULL */
/* For sync_buckets_saved(). */
checkpoint_state sync_buckets_factors(sync_run *run);
/* Queues that what the newest step left is kept, if that was taken; the step is for random words. */
gt_status sync_buckets_settle(sync_run *run, uint64_t step);
/* Ranks exchange their parts alone: an encoding of one element a value may be cut like values. */
int sync_bucket_scatters(const bucket *b);

/* Who sums the gradients of a group of holders; NULL: this rank has all. */
net_group *sync_buckets_net(const buckets *s, int group);

#endif
