/* SPDX-License-Identifier: MIT */
/* host/train/image.h - what a rank has in memory, kept while ranks are put together anew.
 *
 *   train_run()      GT_PEER: a rank was lost; or ranks that want to join were waited for
 *   train_image_take(&image, t); train_release(t);
 *   ...              the ranks that are left, and new ones, form another job
 *   train_create()   with options.elastic and options.image: all go on from the images of all ranks
 *
 * An image holds what the rank has of parameters and of all state that a checkpoint would hold, after the newest
 * update that was queued, the position in the data, and the numbers of the last two steps, whose rows of the record
 * may not have been written by the rank that is gone. Ranks go on from the newest step of which their images have
 * everything together, under any plan: so what a lost rank had must lie with another one too, as a stage does of
 * which there are two replicas, and as the optimizer's state of --sync sharded does not. Else the newest checkpoint
 * is what is left, and rank 0 says what is missing. A step that nobody updated by is done again whole: its samples
 * follow from the position.
 *
 * Steps that replicas take apart have no state in common but where ranks meet. There each keeps an image, and that
 * is what it gives: what they did since is done again, so no sample counts twice, and none is left out.
 *
 * State that adds up (what a compressor holds back) stays with the rank it belongs to; a lost rank's is lost. In
 * replicas' own state (of --sync local) a new rank begins with a copy of the lowest rank's. Frozen tensors are in
 * no image; they are what they were at the start.
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
