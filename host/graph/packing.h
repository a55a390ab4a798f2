/* SPDX-License-Identifier: MIT */
/* host/graph/packing.h - packs areas with lifetimes into as little memory as it can. */
#ifndef GT_GRAPH_PACKING_H
#define GT_GRAPH_PACKING_H

#include "host/base/status.h"

#include <stdint.h>

/* One area: `bytes` from time `from` to time `to`, both included. */
typedef struct packing_area {
    uint64_t bytes;
    int from, to;
    int chunk;              /* result: which allocation */
    uint64_t offset;        /* result: where in it      */
} packing_area;

typedef struct packing {
    int chunks;
    uint64_t chunk_bytes[64];
} packing;

/* Gives every area a place, so that no two areas that live at the same time overlap.
 * Offsets are multiples of `align`; no chunk exceeds `most`. Greedy by size: the largest
 * area first, each at the lowest offset that is free for its whole life (Pisarchyk and Lee,
 * "Efficient memory management for deep neural net inference", 2020).
 * GT_NO_MEMORY if an area alone exceeds `most`, or 64 chunks do not suffice. */
gt_status packing_make(packing_area *areas, int count, uint64_t align, uint64_t most, packing *out);

#endif
