/* SPDX-License-Identifier: MIT */
/* host/sync/compressor.h - what a file of this room fills in to make gradients travel in fewer bytes.
 *
 *   gradients (+ what was held back) ─► encode ─► summed, or gathered, over ranks ─► decode ─► sums
 *                    error ◄── less what the encoding says ─┘
 *
 * A new compressor is one file and one row of the table (compressors.c); options and help read that.
 * It appends launches to lists that are made once; the modes of sums run them, move the encodings and
 * keep what it holds back (coding.h). It sees either any range of fp32 values, or one tensor at a time.
 *
 * Error feedback (Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019): with keeps_error,
 * what an encoding left out of a rank's gradient is added to that rank's gradient of the next step. It
 * is part of the run's state, and in its checkpoints.                                      */
#ifndef GT_SYNC_COMPRESSOR_H
#define GT_SYNC_COMPRESSOR_H

#include "host/sync/sync.h"

typedef struct sync_range {
    int64_t first, count;               /* fp32 values of the bucket                        */
    const graph_param_info *info;       /* the tensor they are, whole; NULL: a range of any */
    dev_buffer *grad;                   /* to encode, and where the sum goes                */
} sync_range;

struct sync_compressor {
    const char *name, *help;
    dtype type;                         /* of an encoding's elements, and what the network adds in */
    int tensors;                        /* 1: every range is a tensor                       */
    int gathers;                        /* 1: decode() gets every rank's encoding; 0: their sum */
    int keeps_error;
    int rounds;                         /* exchanges of a step; a round may build on the ones before */
    /* Elements of an encoding. NULL: as many as values, one for each, so that ranks may exchange those
     * of their parts alone; only for a flat, summed one of one round. */
    int64_t (*elements)(const sync_range *r, int round);
    /* k: kernels whose storage is `type`. NULL: gradients travel as they are. */
    gt_status (*encode)(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *to);
    /* from[0..count): encodings whose sum is the result; one of all ranks together, or one of each.
     * to: count values, r->grad or memory of the caller's; written in the last round at the latest. */
    gt_status (*decode)(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *const *from, int count,
                        dev_buffer *to);
};

extern const sync_compressor sync_compress_none, sync_compress_bf16;

#endif
