/* SPDX-License-Identifier: MIT */
/* host/train/tensor_sum.h - sums over the ranks of a tensor group, of what lies on their devices. */
#ifndef GT_TRAIN_TENSOR_SUM_H
#define GT_TRAIN_TENSOR_SUM_H

#include "host/device/device.h"
#include "net/collective/collective.h"

typedef struct tensor_sum tensor_sum;

/* Both must outlive it. */
gt_status tensor_sum_create(tensor_sum **out, net_group *g, dev_device *d);
void tensor_sum_release(tensor_sum *s);        /* takes NULL; waits for the device */

/* `count` fp32 of x become their sums, the same bits on all ranks; waits for them. An optim_ranks.sum, whose
 * context is the tensor_sum. */
gt_status tensor_sum_make(void *context, dev_buffer *x, int64_t count);

#endif
