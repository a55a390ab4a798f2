/* SPDX-License-Identifier: MIT */
/* host/graph/touched.h - of which rows a parameter's gradient can be other than zero.
 *
 *   table of tokens      the rows that an input names        (V,C): a batch has some of V tokens
 *   table of positions   the first T from an offset on       (P,C): a sequence may be shorter
 *   a tied head          all
 *
 * Every other row is zero in every step, so ranks that add up such gradients need not send it.     */
#ifndef GT_GRAPH_TOUCHED_H
#define GT_GRAPH_TOUCHED_H

#include "host/graph/graph.h"

typedef struct graph_touched {
    const char *source;         /* the i32 input whose values are rows of the full table; NULL: it is a range */
    int64_t first, count;       /* the range, rows of the full table                                          */
    int64_t held;               /* which row of the full table is row 0 here                                  */
} graph_touched;

/* GRAPH_TOUCHES_ALL: also where no operation of this graph looks rows up. */
typedef enum graph_touches { GRAPH_TOUCHES_ALL, GRAPH_TOUCHES_MORE, GRAPH_TOUCHES_ROWS } graph_touches;

/* Of a parameter of a graph with its gradients (graph_backward). MORE: rows are looked up, and another operation
 * writes to all of them. ROWS: *out says which. */
graph_touches graph_touched_rows(const graph *g, int param, graph_touched *out);

#endif
