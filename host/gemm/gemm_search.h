/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_search.h - the search for the fastest variant of a kernel, one trial after the other; private to
 * this room.
 *
 *   gemm_search_begin(&s, c, tunable, &g, &options);           what ships, measured
 *   while (!over) gemm_search_try(s, &over, NULL, NULL);       one variant: built, held to it, timed
 *   gemm_search_decide(s, &best, &result);                     in turns
 *   gemm_search_release(s);
 *
 * Trials may be seconds apart, with other work on the device between them. Each waits for the device. */
#ifndef GT_GEMM_GEMM_SEARCH_H
#define GT_GEMM_GEMM_SEARCH_H

#include "host/gemm/gemm_variant.h"

typedef struct gemm_search gemm_search;

typedef struct gemm_search_options {
    gemm_tune_limits limits;        /* seconds: of trying                                           */
    const gemm_desc *in_place;      /* the product for which lists stand already, in which the best variant is to take
                                       the usual one's place: as many launches, and no more than     */
    uint64_t scratch; /* so many bytes of scratch memory; NULL: anything goes. It must outlive the search */
} gemm_search_options;

/* g is what is measured: complete, plain, and shrunk (gemm_shrink()). GT_NUMERIC if what ships is wrong. */
gt_status gemm_search_begin(gemm_search **out, gemm_context *c, const gemm_tunable *t, const gemm_desc *g,
                            const gemm_search_options *o);
/* One variant. *over: the bounds are reached, or nothing is left, and none was tried. */
gt_status gemm_search_try(gemm_search *s, int *over, gemm_tune_each *each, void *context);
gt_status gemm_search_decide(gemm_search *s, gemm_variant *best, gemm_tune_result *out);
void gemm_search_release(gemm_search *s); /* takes NULL */

/* All of it at once. GT_INTERRUPTED once the user has asked to stop. */
gt_status gemm_search_all(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, const gemm_tune_limits *limits,
                          gemm_tune_each *each, void *context, gemm_variant *best, gemm_tune_result *out);

#endif
