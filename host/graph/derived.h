/* SPDX-License-Identifier: MIT */
/* host/graph/derived.h - inputs that the host computes from another input.
 *
 * An operation may need more of an input than the input says: the embedding's gradient adds up rows in
 * order of their token, so it wants tokens sorted. Its row in the table of operations has a function that
 * computes those inputs; whoever fills inputs goes over this list and knows none by name.          */
#ifndef GT_GRAPH_DERIVED_H
#define GT_GRAPH_DERIVED_H

#include "host/graph/graph.h"

enum { GRAPH_DERIVED_OUTPUTS = 2 };

typedef struct graph_derived {
    const char *source;                         /* the input it is computed from, i32 */
    const char *name[GRAPH_DERIVED_OUTPUTS];    /* the inputs that are computed, i32  */
    int64_t count[GRAPH_DERIVED_OUTPUTS];       /* elements of each                   */
    int64_t scratch;                            /* int32s that computing needs        */
    int node;
} graph_derived;

int graph_derived_count(const graph *g);
graph_derived graph_derived_at(const graph *g, int i);
/* source, out[k] and scratch: host memory of the counts above. */
void graph_derive(const graph *g, const graph_derived *d, const int32_t *source, int32_t *const out[],
                  int32_t *scratch);

#endif
