/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz.h - what a fuzz target gives: a function that takes any bytes, and seeds,
 * inputs that already reach far into the parser.
 *
 * With GT_FUZZ=ON libFuzzer calls the function; replay.c's `-w DIR` writes the seeds as a
 * corpus for it. Without, replay.c calls it. A target returns 0; a broken promise aborts. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_seed {
    const void *data;
    size_t size;
} fuzz_seed;

extern const fuzz_seed fuzz_seeds[];
extern const size_t fuzz_seed_count;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
