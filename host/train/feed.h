/* SPDX-License-Identifier: MIT */
/* host/train/feed.h - whether a batch has what a stage's graphs read. */
#ifndef GT_TRAIN_FEED_H
#define GT_TRAIN_FEED_H

#include "host/data/batch.h"
#include "host/pipeline/stage.h"

/* The batch that `make` makes (NULL: tokens, and the next ones) for a stage, which must be built. GT_MISMATCH
 * if a graph reads what the batch does not have, or its head leaves the weights of targets unread. */
gt_status feed_create(data_batch *out, data_batch_maker make, const void *config, const loader *l, const char *split,
                      const stage *s);

#endif
