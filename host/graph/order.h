/* SPDX-License-Identifier: MIT */
/* host/graph/order.h - when the nodes of a graph run and how long its values live; needs no device.
 *
 *   lists      0 forward | 1 input gradients (or all gradients) | 2 weight gradients
 *   order      F0 F1 .. Fn | B W B B W ...      positions are times to lay memory out by */
#ifndef GT_GRAPH_ORDER_H
#define GT_GRAPH_ORDER_H

#include "host/graph/graph.h"

enum { GRAPH_LISTS = 3 };

/* The list that nodes of a phase run in. `split`: weight gradients run apart from input gradients. */
int graph_list_of(graph_phase phase, int split);
/* Node numbers in the order they run; returns how many. order: room for all nodes. */
int graph_order(const graph *g, int split, int *order);
/* Of each value: the positions that write it first and read it last; -1 for what no node makes
 * (first) or nobody reads (last). What a graph hands out lives until its list, or all, has run. */
void graph_lifetimes(const graph *g, int split, const int *order, int *first, int *last);

#endif
