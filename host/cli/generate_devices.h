/* SPDX-License-Identifier: MIT */
/* host/cli/generate_devices.h - the devices that text is generated on, and which layers each of them holds. */
#ifndef GT_CLI_GENERATE_DEVICES_H
#define GT_CLI_GENERATE_DEVICES_H

#include "host/cli/cli.h"
#include "models/generate.h"

typedef struct generate_devices {
    dev_device **device;
    int count;
} generate_devices;

/* list: as --devices takes it; NULL: the best one. */
gt_status generate_devices_open(generate_devices *out, const char *list);
void generate_devices_close(generate_devices *d);      /* after all generators on them */

/* A generator with its weights, in so many stages (0: one a device), dealt to the devices in their order. even: stages
 * of equal work; else by the devices' measured speed. show: who holds what, where there are several stages; NULL:
 * nothing. GT_MISUSE if a device would have no stage. */
gt_status generate_devices_create(generate **out, const generate_devices *d, cli_source *s, dtype storage,
                                  uint64_t stages, int even, FILE *show);

#endif
