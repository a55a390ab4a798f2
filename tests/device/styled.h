/* SPDX-License-Identifier: MIT */
/* tests/device/styled.h - the test's device, told which of a kernel's bodies to build: a CPU runs those for GPUs too.
 *
 *   GT_TEST_DEVICE picks the device; style "cpu" or "gpu"
 */
#ifndef GT_TESTS_DEVICE_STYLED_H
#define GT_TESTS_DEVICE_STYLED_H

#include "host/device/device.h"

/* NULL after a failed check, or a skip: a GPU has no use for the bodies of CPUs. dev_close() it. */
dev_device *styled_device(const char *style);

#endif
