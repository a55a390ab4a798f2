/* SPDX-License-Identifier: MIT */
/* tests/graph/graph_runner.h - a graph of the tiny size with all that it takes to run it on the test's device.
 *
 *   runner_open(&r) ── build r.g ── runner_ready(&r, bindings) ── write inputs ── runner_run(&r) ── runner_close(&r)
 */
#ifndef GT_TESTS_GRAPH_RUNNER_H
#define GT_TESTS_GRAPH_RUNNER_H

#include "tests/train/tiny_run.h"
#include "host/gemm/gemm.h"
#include "host/graph/exec.h"
#include "host/graph/params.h"
#include "host/kernel/kernel.h"

/* What a graph runs on. */
typedef struct runner {
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} runner;

/* These return 0 after a failed check. Close it whatever happened. */
int runner_open(runner *r);
int runner_ready(runner *r, const exec_binding *bindings);     /* r->g has been built   */
int runner_run(runner *r);                                      /* forward and backward  */
void runner_close(runner *r);

/* |a - b| / |b| */
double relative(const float *a, const float *b, size_t n);

#endif
