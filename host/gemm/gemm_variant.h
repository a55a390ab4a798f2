/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_variant.h - the ways in which an engine's kernel can be built; private to this room.
 *
 *   rows:6,vectors:4,columns:256,k:256,kept:192,unroll:4,packed:1     a variant, as files and tables have it
 *
 * A kernel that can be tuned has knobs, each with the values it may take; a variant is one value of each. What
 * is legal on a device the engine says, and which variant it takes where nothing has been tuned. All variants
 * of a kernel give the same bits, so that tuning changes nothing but the time: gemm_tune() holds them to it. */
#ifndef GT_GEMM_VARIANT_H
#define GT_GEMM_VARIANT_H

#include "host/gemm/gemm.h"

enum { GEMM_KNOBS = 7, GEMM_VALUES = 8, GEMM_VARIANT_OPTIONS = 104 };

typedef struct gemm_knob {
    const char *name;
    const char *option;         /* the kernel's: "TM"; NULL: the host's alone                            */
    int plain;                  /* what the kernel file has where the option is not given                */
    int values[GEMM_VALUES];    /* rising; a 0 behind the last                                           */
    unsigned coarse;            /* bits of those that the first part of a search combines with all others' */
} gemm_knob;

typedef struct gemm_variant {
    int value[GEMM_KNOBS];
} gemm_variant;

typedef struct gemm_tunable {
    const char *engine;         /* its name */
    int version;                /* raised when the kernel changes: old tunings are forgotten */
    int count;
    const gemm_knob *knobs;
    /* What ships: for this device and product. */
    void (*usual)(gemm_context *c, const gemm_desc *g, gemm_variant *out);
    /* 1 if the device has what it takes: local memory, work-items, registers by a simple bound. */
    int (*legal)(gemm_context *c, const gemm_variant *v);
    uint64_t (*scratch)(gemm_context *c, const gemm_desc *g, const gemm_variant *v);
    gt_status (*append)(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, const gemm_variant *v,
                        gemm_slot *add_at);
} gemm_tunable;

/* Its words into out; returns out. */
char *gemm_variant_text(char out[GEMM_VARIANT_CHARS], const gemm_tunable *t, const gemm_variant *v);
/* 1 if `text` is one: every knob in its place, with a value that it has. */
int gemm_variant_parse(gemm_variant *out, const gemm_tunable *t, const char *text);
int gemm_variant_same(const gemm_tunable *t, const gemm_variant *a, const gemm_variant *b);
/* Where a knob's value is in its list; -1: it has no such value. */
int gemm_knob_index(const gemm_knob *k, int value);
/* The -D options of what differs from the kernel file, without a space around them. Returns out. */
char *gemm_variant_options(char out[GEMM_VARIANT_OPTIONS], const gemm_tunable *t, const gemm_variant *v);

/* ---- what has been tuned (gemm_tuning.c) --------------------------------------------------------- */

typedef struct gemm_tuning gemm_tuning;
void gemm_tuning_release(gemm_tuning *t);       /* takes NULL */

/* What this product is multiplied by here: what has been tuned for its class, or what ships. */
void gemm_tuned(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, gemm_variant *out);
/* The variants that are known for products of this kind, its types and transposes, of other sizes: 0, 1, ... */
int gemm_tuned_alike(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, int i, gemm_variant *out);
/* 1 if a variant is known for its class, the usual one perhaps. */
int gemm_is_tuned(gemm_context *c, const gemm_tunable *t, const gemm_desc *g);
/* Remembers a variant for the class of g, now and in the cache folder. */
gt_status gemm_tuning_keep(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, const gemm_variant *v,
                           double seconds);

#endif
