/* host/cli/replicas.h - `train` on several devices: who has which, who takes how much.
 *
 * Every rank holds the whole model. At the start all of them time a micro-batch at once, and each
 * step's micro-batches are shared out in proportion; plan.json keeps the shares, so that a
 * resumed run adds up in the same order and gives the same bits.                          */
#ifndef GT_CLI_REPLICAS_H
#define GT_CLI_REPLICAS_H

#include "host/cli/cli_comm.h"
#include "host/device/device.h"
#include "host/train/train.h"

#include <stdio.h>

typedef struct replicas replicas;

/* As many ranks as the list names devices, unless *ranks says more. */
gt_status replicas_count(const char *devices, uint64_t *ranks);

/* This rank's device: the list's, by its place on this host; without a list a GPU of its own, or an
 * equal part of the CPU. c NULL: the only rank. */
gt_status replicas_device(dev_device **out, const char *devices, net_comm *c);

/* The largest divisor of a batch that leaves every rank two micro-batches, or one. */
uint64_t replicas_micro_batch(uint64_t batch, int ranks);

/* Makes ready to sum gradients and settles the shares, from RUN/plan.json when it is resumed with
 * as many ranks. All ranks. */
gt_status replicas_join(replicas **out, net_comm *c, dev_device *d, train *t, const char *run,
                        int resume);
/* For train_options.sum. */
gt_status replicas_sum(replicas *r, train *t, int *stop);
/* A line of who takes what; nothing for NULL. */
void replicas_show(const replicas *r, FILE *out);
/* All ranks end together, if st is a good end; returns st, or what kept them. Takes NULL. */
gt_status replicas_leave(replicas *r, gt_status st);

#endif
