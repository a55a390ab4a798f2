/* SPDX-License-Identifier: MIT */
/* host/cli/bench.h - the measurements behind `geartrain bench`, each with its own options. */
#ifndef GT_CLI_BENCH_H
#define GT_CLI_BENCH_H

#include "host/base/status.h"

gt_status bench_device(int argc, char **argv);      /* gemm, kernels, step, generate             */
gt_status bench_attention(int argc, char **argv);   /* each way there is                         */
gt_status bench_link(int argc, char **argv);        /* two ranks                                 */
gt_status bench_collective(int argc, char **argv);  /* allreduce and its like, all ranks         */

#endif
