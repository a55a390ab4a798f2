/* SPDX-License-Identifier: MIT */
/* host/compress/rate.h - what a compressor takes of a device, measured, and what it makes of so many values.
 *
 *   compress_spec c;   compress_parse(&c, "int8");
 *   compress_rate r;       compress_rate_measure(&r, device, &c, 1 << 20);
 *   seconds of a step on this device, for n values of a group of p ranks:   compress_rate_seconds(&r, n, p)
 *   what one rank gives to the network then:                                r.bytes * n
 *
 * Measured is what a step runs (coding.h): what was left out is kept, fed in, encoded and decoded. Devices that
 * compute at the same time on the same memory should measure at the same time; meeting for that is the caller's.
 *
 * Units: seconds and bytes a value of fp32 gradients.                                            */
#ifndef GT_COMPRESS_RATE_H
#define GT_COMPRESS_RATE_H

#include "host/device/device.h"
#include "host/compress/compress.h"

/* Flat, to be handed to other ranks as it is. All zeros but bytes (4) of what travels as it is. */
typedef struct compress_rate {
    double encode;                      /* seconds a value, with what is kept of it            */
    double decode;                      /* seconds a value and encoding; one, if they are summed */
    double bytes;                       /* that one rank gives, of all rounds                   */
    int gathers;                        /* 1: each rank decodes the encodings of all            */
    int scatters;                       /* 1: ranks that own parts exchange the sums of these alone */
    int rounds;                         /* exchanges                                            */
} compress_rate;

/* The fastest of some runs over `values` fp32 values, a multiple of 4096; some tens of ms for a million. Of a
 * compressor that ramps up, its last form. GT_MISUSE if there are too few values for it. */
gt_status compress_rate_measure(compress_rate *out, dev_device *d, const compress_spec *s, int64_t values);
/* Of a rank's device in a step, for n values that `ranks` ranks add up. */
double compress_rate_seconds(const compress_rate *r, double n, int ranks);

#endif
