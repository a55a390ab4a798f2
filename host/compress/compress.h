/* SPDX-License-Identifier: MIT */
/* host/compress/compress.h - forms in which gradients travel between ranks in fewer bytes, chosen by name.
 *
 *   "topk:0.01,momentum=0.9"  ──►  a compressor and its numbers  ──►  launches that encode and decode (coding.h)
 *
 * A compressor (compressor.h) is one file and one row of a table; options, help, plans and their checks read the
 * table. When anything is compressed, between whom and over what network is the concern of host/sync. */
#ifndef GT_COMPRESS_COMPRESS_H
#define GT_COMPRESS_COMPRESS_H

#include "host/base/status.h"
#include "host/optim/optim.h"

#include <stdint.h>

typedef struct compressor compressor;

/* Those that can be chosen: none first; NULL behind the last. */
const compressor *compressor_at(int i);
const compressor *compressor_find(const char *name);
const char *compressor_name(const compressor *c);
const char *compressor_help(const compressor *c);
int compressor_changes(const compressor *c); /* 0: fp32 as it is */

enum { COMPRESS_NAMES = 256 };
/* "none|bf16|topk": for options and sentences. `out` has room for COMPRESS_NAMES, as all that follow. */
void compressor_names(char *out);
/* "none|bf16|topk:F": with the first letter of what stands behind their names. */
void compressor_forms(char *out);

/* Lines of help: all of them, with their numbers. */
void compressors_describe(char *out, size_t size);

/* A compressor and its numbers. All zeros: none. */
typedef struct compress_spec {
    const compressor *how;
    double parameter; /* behind ':'                                       */
    double least; /* tensors of fewer values travel as they are       */
    double momentum, ramp, rate, freeze, clip, sample, server;
    double local, doubles; /* steps of a round at most, and from one length to twice that */
    double decay; /* of what is held back, from step to step; 0: none     */
    uint64_t after; /* steps before it; everything travels as it is     */
} compress_spec;
/* "topk:0.01,momentum=0.9"; `after` is 0. GT_MISUSE with a sentence that names what is wrong. */
gt_status compress_parse(compress_spec *out, const char *spec);
/* Tensors are sent as they are when they have changed by so much, relative to the weights, since they were sent last; 0:
 * always. GT_MISUSE if c compresses, or x is no such number. */
gt_status compress_threshold(compress_spec *c, double x);
/* The same as text, less what is usual, for people. `out` has room for COMPRESS_NAMES. */
void compress_text(const compress_spec *s, char *out);
int compress_changes(const compress_spec *s); /* 0: fp32 as it is */
/* 1: replicas make some steps by themselves, and put together afterwards what those were (0/1 Adam's local steps). */
int compress_goes_apart(const compress_spec *s);
/* The round of steps in which step 0, 1, ... of a run lies: how many they are, the first of which is *first. A round of
 * one is a step of all ranks together. */
uint64_t compress_round(const compress_spec *s, uint64_t step, uint64_t *first);
/* GT_MISUSE, with a sentence that names the options, if it does not go with this optimizer. */
gt_status compress_check(const compress_spec *s, const optim_config *c);
/* The same if it is one of several that links may have. */
gt_status compress_check_candidate(const compress_spec *s, const optim_config *c);

#endif
