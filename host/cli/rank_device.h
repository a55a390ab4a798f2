/* SPDX-License-Identifier: MIT */
/* host/cli/rank_device.h - which device a rank drives. */
#ifndef GT_CLI_RANK_DEVICE_H
#define GT_CLI_RANK_DEVICE_H

#include "host/cli/cli_comm.h"
#include "host/device/device.h"

/* As many ranks as the list names devices, unless *ranks says more. */
gt_status rank_device_count(const char *devices, uint64_t *ranks);

/* This rank's device: the list's, by its place on this host; without a list a GPU of its own, or an
 * equal part of the CPU. c NULL: the only rank. */
gt_status rank_device_open(dev_device **out, const char *devices, net_comm *c);

#endif
