/* SPDX-License-Identifier: MIT */
/* host/graph/plan.h - packs areas with lifetimes into as little memory as it can. */
#ifndef GT_GRAPH_PLAN_H
#define GT_GRAPH_PLAN_H

#include "host/base/status.h"

#include <stdint.h>

/* One area: `bytes` from time `from` to time `to`, both included. */
typedef struct plan_area {
    uint64_t bytes;
    int from, to;
    int chunk;              /* result: which allocation */
    uint64_t offset;        /* result: where in it      */
} plan_area;

typedef struct plan_result {
    int chunks;
    uint64_t chunk_bytes[64];
} plan_result;

/* Gives every area a place, so that no two areas that live at the same time overlap.
 * Offsets are multiples of `align`; no chunk exceeds `most`. Greedy by size: the largest
 * area first, each at the lowest offset that is free for its whole life (Pisarchyk and Lee,
 * "Efficient memory management for deep neural net inference", 2020).
 * GT_NO_MEMORY if an area alone exceeds `most`, or 64 chunks do not suffice. */
gt_status plan_pack(plan_area *areas, int count, uint64_t align, uint64_t most, plan_result *out);

#endif
