/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_private.h - what the files of buckets share.
 *
 *   buckets_cut.c     which tensors travel together, and in what memory
 *   buckets.c         a step
 *   buckets_filling.c a large bucket, summed while it is still read
 *   buckets_lanes.c   sums of several at once, where ranks are far apart
 *   buckets_clip.c    a replica's gradient, clipped before anything is encoded
 *   buckets_rows.c    rows of tables in place of all of them
 *   buckets_threshold.c  tensors that are held back until they have changed enough
 *   buckets_gather.c  new weights of the other ranks, layer by layer beside the next forward
 *   buckets_factors.c what compressors keep of whole tensors, in checkpoints
 *   buckets_given.c   what replicas have made of steps apart, in place of a step's gradients
 *   buckets_error.c   what compression holds back, in checkpoints                            */
#ifndef GT_SYNC_BUCKETS_PRIVATE_H
#define GT_SYNC_BUCKETS_PRIVATE_H

#include "host/base/trace.h"
#include "host/sync/blocks.h"
#include "host/sync/buckets.h"
#include "host/sync/lanes.h"
#include "host/compress/coding.h"

/* A parameter of which a step touches some rows alone. */
typedef struct table {
    int param, segment;
    graph_touches touches;
    graph_touched touched;
    int agreed;                         /* so on all ranks of its group                     */
    int64_t rows, columns, full;        /* held here; rows of the full table                */
    int64_t begin;                      /* its first element in the segment                 */
    int64_t most;                       /* rows that travel packed, at most                 */
    int32_t *at;                        /* [count] of this step, if they are so few         */
    int64_t count;
    int by_rows;                        /* in this step                                     */
    unsigned char *mark;                /* [full]                                           */
    dev_buffer *grad, *list, *packed;
    void *memory;                       /* of the network, that packed lies in; NULL: its own */
    dev_list *pack, *back;
    kernel_slot pack_rows, back_rows;
} table;

typedef struct held held;               /* norms of a tensor that may be held back */

/* Of a bucket that is read in pieces: piece k of part i is read as number k * parts + i. */
enum { FILLING_READS = 64 };
typedef struct filling {
    net_filling wait;
    uint64_t begin[FILLING_READS + 1];  /* [parts + 1] elements, as the network cuts        */
    uint64_t line;                      /* elements of a line of the cache                  */
    int parts, pieces;                  /* of a bucket, of a part                           */
    int reads, waited;                  /* 0: it is read in one; so many are known to be over */
    dev_event *event[FILLING_READS];
} filling;

typedef struct bucket {
    struct buckets *of;
    net_group *group;
    int group_number;
    compress_spec spec;                 /* of its group                                     */
    dev_buffer *grad, *master;          /* of the segment                                   */
    uint64_t offset, count;             /* bytes into the segment; elements                 */
    uint64_t *counts;                   /* sharded: elements of each rank's part            */
    uint64_t own_offset, own_count;     /* of this rank's: elements into the bucket         */
    compress_coding *coding;                /* NULL: gradients travel as they are, always       */
    int *tensor, tensors;               /* parameters of the ranges of coding               */
    void *memory;                       /* what the network reads and writes, where the device's own
                                         * memory is out of its reach                       */
    int sent;                           /* in this step                                     */
    int table;                          /* of tables: what it is a range or the rows of; -1: none */
    table *packs;                       /* its rows; grad, count and parts are of what is packed */
    held *held;                         /* NULL: it goes in every step                      */
    int idle;                           /* in this step the table travels the other way, or the tensor is held back */
    dev_event *reading, *writing;       /* of data, or of the first piece                   */
    filling filling;
    uint64_t ticket;                    /* of who begins the sum; 0: finish() does           */
    net_collective *sum;
    uint64_t began, ended;              /* of the newest sum                                */
    int gathers;                        /* new weights are on their way                     */
    uint64_t gather_ticket;
    uint32_t gather_priority;           /* 1: of what the next forward reads first              */
    net_collective *gather;
    dev_list *renew;                    /* its 16-bit copy; NULL: there is none             */
    dev_buffer *renew_from, *renew_to;
    char name[GT_SPAN_DETAIL];          /* the parameters in it, for the trace              */
} bucket;

/* The groups whose sums run side by side between the same ranks. */
enum { SYNC_LANES = 8 };
typedef struct lanes {
    net_group *net[SYNC_LANES];         /* the first is not the buckets' to release         */
    int count, turn;
} lanes;

typedef struct buckets {
    sync_options o;
    sync_bucket_form form;
    int share;                          /* form SYNC_SUM_PART                               */
    sync_blocks blocks;                 /* of that; a bucket lies in one                    */
    /* Compressors of all groups of all ranks: steps before any of them, rounds at most, and whether one encodes, keeps
     * errors or momentum or a state of its own, or errors of sums. */
    uint64_t after;
    int rounds, encodes, keeps_error, keeps_momentum, keeps_state, keeps_served;
    kernel_set *own_kernels[DTYPE_STORAGES]; /* of compressors' types, made for them     */
    int plain; /* in this step all gradients travel as they are    */
    int begun; /* a step's first bucket has left                   */
    int given; /* see sync_buckets_put_together()                  */
    int left; /* the newest step encoded, and so left something   */
    uint64_t seen; /* of run->updates, when that was asked for last    */
    int settled; /* nothing has happened since what is kept was settled */
    dev_buffer *random, *frame; /* kernel_compress_begin(); NULL: nothing is compressed */
    dev_list *begin, *clear;
    struct bucket_clip *clip; /* NULL: nothing is clipped here                    */
    kernel_slot pending_at, step_at, weigh_at;
    lanes *lanes; /* [lanes_count]: of each group that has ranks to sum with */
    int lanes_count;
    bucket *buckets;
    int count, room;
    table *tables; /* also those that travel whole, to tell why        */
    int table_count;
    int *done; /* [bucket * chunks + chunk]: see options.done      */
    unsigned char *ended; /* [chunk]: its last backward-weight is queued      */
    int *queued; /* [chunk]: launches of it that are                 */
    int *read; /* share: [bucket * chunks + chunk]: see options.read */
    int *order; /* share: [gather_count] buckets as they are gathered */
    int gather_count;
    uint64_t step_bytes;
} buckets;

/* Of sums: they let new weights go first, and whatever stages send each other. */
enum { SYNC_SUM_PRIORITY = INT32_MAX };

/* What the network moves of a bucket in a round of exchange. */
typedef struct travel {
    compress_way way;
    dev_buffer *buffer;
    uint64_t at; /* where it begins in buffer                        */
    char *host; /* the same memory on the host, or a copy's         */
    int in_place;
    uint64_t bytes, elements; /* exchanged                                        */
    uint64_t own_at, own_bytes; /* of them this rank's, when it sends               */
    net_type type;
} travel;
travel sync_bucket_travel(const bucket *b, int round);
int sync_bucket_rounds(const bucket *b); /* exchanges of this step */

/* Starts reading what travels from the device, in pieces where the network may begin with the first; *first: when that
 * may be. */
gt_status sync_filling_start(bucket *b, const travel *t, dev_event **first);
/* For the sum that is begun then; NULL: all of it is there. */
const net_filling *sync_filling_of(const bucket *b);
/* When that is over, in whatever way. */
gt_status sync_filling_end(bucket *b);

/* How a group's gradients travel, when compression has begun. */
compress_spec sync_buckets_spec(const buckets *s, int group);
/* How its gradients travel in this step. */
const compressor *sync_bucket_how(const bucket *b);
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

/* In which order weights are gathered, when buckets are cut. All ranks. */
gt_status sync_gather_make(buckets *s);
void sync_gather_release(buckets *s);

/* 1: tensors are sent as they are or held back. */
int sync_buckets_hold(const buckets *s);
/* Then: norms of a bucket's tensor. */
gt_status sync_held_make(buckets *s, bucket *b);
void sync_held_release(held *h); /* takes NULL */
/* When the backward pass is over and before anything of the step has left: who is idle. All ranks. */
gt_status sync_held_decide(sync_run *run);
/* Bytes of gradients that leave this rank for a bucket in a step. */
uint64_t sync_bucket_crossing(const bucket *b);

/* Tables that are touched by rows, and whether all ranks of their groups say so. All ranks. */
gt_status sync_tables_find(buckets *s);
int sync_table_of(const buckets *s, int param); /* of those that may travel by rows; -1: none */
/* Makes *b, which has its group, the bucket of the rows. */
gt_status sync_table_make(buckets *s, int index, bucket *b);
void sync_tables_release(buckets *s);
/* In front of a step's first bucket: which rows, and whether they or all of the table go. */
gt_status sync_tables_step(buckets *s);
/* A list that makes zeros of rows outside the range that every step touches: what encodings say of those lies there
 * afterwards, and nothing else writes to them. */
gt_status sync_tables_clear_make(buckets *s);
/* Queues packing, or the way back. */
gt_status sync_table_pack(const bucket *b, int back);

/* The lanes of all groups. All ranks; the next bucket's of a group, which all its ranks cut alike. */
gt_status sync_lanes_make(buckets *s);
net_group *sync_lanes_next(buckets *s, int group);
void sync_lanes_release(buckets *s);

/* Who sums the gradients of a group of holders; NULL: this rank has all. */
net_group *sync_buckets_net(const buckets *s, int group);

#endif
