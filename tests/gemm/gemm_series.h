/* SPDX-License-Identifier: MIT */
/* tests/gemm/gemm_series.h - a device with an engine, and the series of products that every engine is put through.
 *
 * GT_TEST_DEVICE picks the device (default: the best). GT_TEST_TINY=1 keeps to sizes that an
 * interpreter such as oclgrind gets through.                                            */
#ifndef TESTS_GEMM_SERIES_H
#define TESTS_GEMM_SERIES_H

#include "tests/gemm/gemm_oracle.h"

/* Sizes on both sides of what kernels are cut by; the first four are what a tiny run has. */
enum { SIZES = 10 };
extern const int sizes[SIZES];

/* What products are of: fp32, bf16, fp16. */
extern const dtype types[3];

typedef struct place {
    dev_device *d;
    gemm_context *c;
} place;


/* Opens the device with a style ("cpu", "gpu") and an engine; 0 and a skip if this device or
 * build has none. */
int place_open(place *p, const char *style, const char *engine);
void place_close(place *p);

/* Each size once in each role, against sizes that step through the list; every `trans_step`th of the four transposes. */
void all_sizes(place *p, dtype in, dtype out, int trans_step);
/* Beyond the blocks of k, of rows and of columns. */
void large_sizes(place *p, dtype type);
/* Room between rows and between matrices; one B for a whole batch. */
void padding_and_batches(place *p, dtype type);
/* Every part of an epilogue, alone and with the others. */
void epilogues(place *p, dtype type);

#endif
