/* SPDX-License-Identifier: MIT */
/* tests/attention/attention_oracle.h - a device with the kernels of attention, arrays between guards, and cases that
 * run attention forward and backward against the double-precision reference.
 *
 * GT_TEST_DEVICE picks the device (default: the best). GT_TEST_TINY=1 keeps to sizes that an
 * interpreter such as oclgrind gets through.                                            */
#ifndef TESTS_ATTENTION_ORACLE_H
#define TESTS_ATTENTION_ORACLE_H

#include "tests/check.h"

#include "host/attention/attention.h"
#include "host/kernel/kernel.h"
#include "host/kernel/reference.h"


typedef struct place {
    dev_device *d;
    kernel_set *k;
    gemm_context *g;            /* NULL: the kernel; else the engine whose tiles are meant */
    dtype type;
    double rounding;            /* what sums over probabilities are off by; 0: what fp32 is */
} place;

/* Opens the device with a style ("cpu", "gpu") and the kernels for a storage type; 0 and a skip where the style is
 * not for the device. */
int place_open(place *p, const char *style, dtype type);
void place_close(place *p);

/* An array on the device between guards, and its values in double. */
typedef struct array {
    dtype type;
    size_t count, bytes;
    void *before, *after;       /* with guards */
    double *value;
    dev_buffer *root, *view;
} array;

/* Elements before and after it. */
size_t guard_of(const array *a, const place *p);
/* Random numbers, others of each stream; 0 if there is no memory for them. */
int array_make(array *a, place *p, dtype type, size_t count, uint64_t stream);
void array_release(array *a);
/* Reads it back: the guards as before, the values within `allowed` + relative storage error
 * of `want`. */
int array_is(array *a, place *p, const double *want, double allowed, const char *what);

/* What dropout counts from: seed, step, first sequence. */
extern const uint32_t words[4];

/* [q|k|v] side by side in rows of 3C. */
kernel_attention_in side_by_side(dev_buffer *qkv, int C);

/* One shape, forward and backward, against the reference; 1 if all held. Dropout counts `others` more heads, some
 * in front of these and some behind. mask: lengths (B), keys of each sequence; or a window, and starts (B,T). */
int masked_case(place *p, int B, int T, int D, int H, float drop_p, int others, const reference_mask *mask);
int attention_case(place *p, int B, int T, int D, int H, int causal, float drop_p, int others, const int32_t *lengths);
/* Fewer heads of keys than of queries, and q in rows of its own with other columns around it: as the
 * reference has it with every head of keys written out as often as it is looked at. */
int grouped_case(place *p, int B, int T, int D, int KV, int G, int causal, float drop_p);

/* Documents of `length`, `length` + 1, ... tokens in each sequence. */
void cut_documents(int32_t *starts, int B, int T, int length);

#endif
