/* SPDX-License-Identifier: MIT */
/* host/cli/bench_tune.h - `bench gemm --tune`: a list of products, and the search for the fastest way to each. */
#ifndef GT_CLI_BENCH_TUNE_H
#define GT_CLI_BENCH_TUNE_H

#include "host/gemm/gemm.h"
#include "models/model.h"

typedef struct bench_product {
    gemm_desc g;
    int times;                  /* as often as it is multiplied */
} bench_product;

/* Each of them once, whatever stands behind a product in its epilogue. Zero-initialise it. */
typedef struct bench_products {
    bench_product *item;
    int count;
    int failed;                 /* there was no memory for one */
} bench_products;

void bench_products_add(bench_products *p, const gemm_desc *g);
/* Those of a training step of B sequences of T tokens. GT_NO_MEMORY, and what a model's graph fails with. */
gt_status bench_products_of(bench_products *p, const model_config *c, dtype storage, int B, int T, int recompute);
void bench_products_release(bench_products *p);

typedef struct bench_tune_options {
    const char *engine;         /* NULL: the first that can be tuned */
    const char *model;          /* whose products they are; NULL: nobody's */
    double seconds;             /* for all products together */
    int variants;               /* for each */
    int json;
} bench_tune_options;

/* Tunes them, the most costly first, and prints a line each. GT_UNSUPPORTED if none can be tuned. */
gt_status bench_tune(dev_device *d, bench_products *p, const bench_tune_options *o);

#endif
