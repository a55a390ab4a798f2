/* SPDX-License-Identifier: MIT */
/* host/train/image.h - what a rank has in memory, kept while ranks are put together anew.
 *
 *   train_run()      GT_PEER: a rank was lost; or ranks that want to join were waited for
 *   train_image_take(&image, t); train_release(t);
 *   ...              the ranks that are left, and new ones, form another job
 *   train_create()   with options.elastic and options.image: all go on from the newest image of any rank
 *
 * An image holds the parameters and the optimizer's state after the newest update that was queued, the
 * position in the data, and the numbers of the last two steps, whose rows of the record may not have been
 * written by the rank that is gone. Where an update was queued on some ranks and not on others, all go
 * forward: every rank gets the image of the highest step, bit by bit. A step that nobody updated by
 * is done again whole: its samples follow from the position.
 *
 * Only a rank that has everything can take one: a whole model (one stage, no layers split), all trained,
 * under a mode that keeps all state on every rank, without a compressor that holds back a part of each
 * rank's gradient. GT_UNSUPPORTED names what is missing; then the newest checkpoint is what is left.
 * Ownership  the image is the caller's, on the host, and takes as much as parameters and optimizer do. */
#ifndef GT_TRAIN_IMAGE_H
#define GT_TRAIN_IMAGE_H

#include "host/base/status.h"

#include <stdint.h>

struct train;
typedef struct train_image train_image;

/* After train_run(), by the thread that called it. The device finishes what is queued first. */
gt_status train_image_take(train_image **out, struct train *t);
uint64_t train_image_step(const train_image *i);        /* updates done */
void train_image_release(train_image *i);              /* takes NULL   */

#endif
