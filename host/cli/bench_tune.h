/* SPDX-License-Identifier: MIT */
/* host/cli/bench_tune.h - `bench gemm --tune`: a list of products, and the search for the fastest way to each. */
#ifndef GT_CLI_BENCH_TUNE_H
#define GT_CLI_BENCH_TUNE_H

#include "host/graph/graph_products.h"
#include "models/model.h"

/* Those of a training step of B sequences of T tokens. GT_NO_MEMORY, and what a model's graph fails with. */
gt_status bench_products_of(graph_product_list *p, const model_config *c, dtype storage, int B, int T, int recompute);

typedef struct bench_tune_options {
    const char *engine;         /* NULL: the first that can be tuned */
    const char *model;          /* whose products they are; NULL: nobody's */
    double seconds;             /* for all products together */
    int variants;               /* for each */
    int json;
} bench_tune_options;

/* Tunes them, the most costly first, and prints a line each. GT_UNSUPPORTED if none can be tuned. */
gt_status bench_tune(dev_device *d, graph_product_list *p, const bench_tune_options *o);

#endif
