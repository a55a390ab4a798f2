/* SPDX-License-Identifier: MIT */
/* host/train/image_private.h - what an image holds.
 *
 *   image.c        taking one
 *   image_give.c   going on from those of all ranks */
#ifndef GT_TRAIN_IMAGE_PRIVATE_H
#define GT_TRAIN_IMAGE_PRIVATE_H

#include "host/train/checkpoint_private.h"
#include "host/train/train_private.h"

/* Of a step whose update is in the image, and whose row may not have been written. */
typedef struct image_step {
    uint64_t there, step, begin, ns;
    float state[OPTIM_STATE_FLOATS];
    double lr, weights;
    data_total all;
} image_step;

typedef struct image_head {
    uint64_t has, step, samples, tokens, skips;
    uint64_t ranks, pieces, numbers;    /* ranks: of the job that it was taken in              */
    checkpoint_best best;               /* before the validation after the newest step         */
    image_step last[DEPTH];             /* the newest first; none where all rows are written   */
} image_head;

/* What a rank has of a tensor. Travels as it lies in memory: all ranks run the same program. */
typedef struct image_piece {
    char owner[CHECKPOINT_OWNER], name[128];
    int64_t each_rank;                  /* of its owner (checkpoint_state.h)                   */
    checkpoint_piece piece;
    uint64_t at;                        /* where its numbers begin in the image                */
} image_piece;

struct train_image {
    image_head head;
    image_piece *pieces;
    float *numbers;
};

uint64_t image_tokens(const image_step *s);

#endif
