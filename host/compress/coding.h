/* SPDX-License-Identifier: MIT */
/* host/compress/coding.h - a bucket's gradients in the form in which a compressor makes them travel.
 *
 *   device   grad ─ encode ─► code [ mine ]          ─ exchanged ─► code [ sum ]          ─ decode ─► grad
 *                             code [ 0 | mine | 2 ]  ─ exchanged ─► code [ 0 | 1 | 2 ]      if it gathers
 *
 *   with how->serves, of three ranks or more: each owns a part of the values, and sums of parts are encoded again
 *
 *            rank 1   code [ for 0 | for 1 | for 2 ]  ─ exchanged ─► code [ of 0 | of 1 | of 2 ]  ─ decode ─► its part
 *            its part + kept there ─ encode ─► code [ | part 1 | ]  ─ gathered ─► code [ part 0 | part 1 | part 2 ]
 *
 *   step     commit    next of the step before becomes what is kept, if that step was taken
 *            encode    grad + kept, encoded; what that leaves out is next
 *
 * So a step that is given up or skipped (an overflow) leaves what is kept as it was.
 * Lists of launches, made once; and the memory of encodings, which on devices that compute in host memory
 * is the network's own.                                                                     */
#ifndef GT_COMPRESS_CODING_H
#define GT_COMPRESS_CODING_H

#include "host/compress/compressor.h"
#include "net/collective/collective.h"

typedef struct compress_coding compress_coding;

typedef struct compress_coding_options {
    compress_spec spec;
    dev_device *device;
    kernel_set *kernels;                /* of spec.how->type                                */
    net_comm *comm;                     /* NULL: nothing of it travels                      */
    const compress_range *range;            /* of the bucket, one after the other; views are taken over */
    int ranges;
    dev_buffer *grad;                   /* all of them, as one; taken over                  */
    int64_t count;
    int rank, ranks;                    /* of the group                                     */
    uint32_t stream;                    /* of random words; the same on all ranks           */
    dev_buffer *random, *frame;         /* kernel_compress_begin(); frame NULL: every step is taken */
    dev_buffer *moment;                 /* how->moments: the optimizer's, of all ranges; taken over */
    double beta1;
} compress_coding_options;

/* Takes over the views, also if it fails. */
gt_status compress_coding_create(compress_coding **out, const compress_coding_options *o);
void compress_coding_release(compress_coding *c);      /* takes NULL */

/* Exchanges of a step. */
int compress_coding_rounds(const compress_coding *c);

typedef enum compress_way {
    COMPRESS_SUMMED,                    /* over ranks                                       */
    COMPRESS_GATHERED,                  /* each rank's goes to all                          */
    COMPRESS_EXCHANGED                  /* a block of each rank's goes to each              */
} compress_way;

/* One encoding that the network moves. */
typedef struct compress_payload {
    compress_way way;
    dev_buffer *code;                   /* from its begin                                   */
    void *host;                         /* the same, where it is host memory; else NULL     */
    uint64_t bytes, elements;           /* of all ranks' together if they are gathered      */
    uint64_t own_at, own_bytes;         /* this rank's within it                            */
    net_type type;
} compress_payload;
compress_payload compress_coding_payload(const compress_coding *c, int round);
/* From now on encodings have this size. */
void compress_coding_level(compress_coding *c, int level);

/* Of those with how->moments and one level. whole 1: from now on what is in `grad` is the rank's share of the new first
 * moments, and none of the optimizer's is added to it; 0, as at first: it is gradients. */
gt_status compress_coding_whole(compress_coding *c, int whole);

/* Queued before the first encoding of a step, and before what is kept is looked at. */
gt_status compress_coding_commit(compress_coding *c);
/* Queue what stands before and after the exchange of a round. */
gt_status compress_coding_encode(compress_coding *c, int round);
gt_status compress_coding_decode(compress_coding *c, int round);

/* Queues, behind encode(): it was sent as it was, so nothing is kept of it. */
gt_status compress_coding_sent(compress_coding *c);

/* What is kept: fp32, count values each; NULL: nothing is. */
dev_buffer *compress_coding_error(const compress_coding *c);
dev_buffer *compress_coding_velocity(const compress_coding *c);
/* What this rank holds back of the sums of its part, in pieces; NULL: it owns none. */
dev_buffer *compress_coding_served(const compress_coding *c);
/* Piece i: values [*first, *first + *count) of the bucket lie from *at on, a value; 0: there is none. */
int compress_coding_piece(const compress_coding *c, int i, int64_t *first, int64_t *count, int64_t *at);
/* What the compressor keeps of range i: fp32, how->state() values; NULL: nothing. */
dev_buffer *compress_coding_state(const compress_coding *c, int range);

#endif
