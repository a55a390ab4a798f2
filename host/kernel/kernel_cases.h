/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_cases.h - one table of kernel cases, for the tests and for the bench.
 *
 * A case makes operands of a given size, fills them with random numbers, appends the
 * launches under test, and says for every output element what host/kernel/reference.h
 * expects and how much rounding is allowed: so many units of 2^-24 of the magnitudes that
 * were added up, plus half a unit of the storage type. Operands lie between guard words,
 * which must survive, as must the inputs and whatever an operation promises not to touch.  */
#ifndef GT_KERNEL_CASES_H
#define GT_KERNEL_CASES_H

#include "host/kernel/kernel.h"

int kernel_case_count(void);
const char *kernel_case_name(int index);

/* Runs case `index` with R rows of C columns once and compares. GT_MISMATCH with the case,
 * the element and both values if the kernel is wrong; GT_OK as well for a size that the case
 * has no use for. */
gt_status kernel_case_check(kernel_set *k, int index, int R, int C, uint64_t seed);

/* How fast one case is at a size well beyond the caches. */
typedef struct kernel_timing {
    const char *name;
    int R, C;
    int64_t bytes;              /* operands read plus operands written, once each   */
    double flops;               /* floating-point operations, 0 if it only moves    */
    int runs;
    double min, median, p99;    /* seconds of device time, over the runs            */
} kernel_timing;
typedef void (*kernel_report)(void *context, const kernel_timing *timing);

/* Checks, warms up and times every case whose name contains `pick` (NULL: all) and reports
 * each as it is done. *copy_rate is set first: bytes a second of a plain copy kernel (read
 * plus written), the ceiling of everything that only moves memory. */
gt_status kernel_bench(dev_device *d, dtype storage, const char *pick, double *copy_rate, kernel_report report,
                       void *context);

#endif
