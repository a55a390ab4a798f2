/* SPDX-License-Identifier: MIT */
/* host/graph/exec_private.h - what the files of an exec share.
 *
 *   exec_layout.c    order, lifetimes, a place in the arena      exec_create()
 *   exec_place.c     buffers and launch lists                    exec_ready()
 *   exec.c           running, adding, exchanges between launches exec_run(), exec_add()
 *   exec_explain.c   the same nodes one at a time                exec_time(), exec_find_bad()
 *
 *   order      F0 F1 .. Fn | B W B B W ...      positions are the times of the layout
 *   activation    [def ........ last use]
 *   scratch                  [node]                                                       */
#ifndef GT_GRAPH_EXEC_PRIVATE_H
#define GT_GRAPH_EXEC_PRIVATE_H

#include "host/graph/exec.h"
#include "host/graph/node.h"
#include "host/graph/packing.h"

#define EXEC_LISTS 3                        /* forward, input grad (or all), weight grad */

struct exec_arena {
    dev_device *device;
    uint64_t bytes[64];
    dev_buffer *chunk[64];
    int chunks;
};

/* An argument that says whether to add; of which list and launch. */
typedef struct exec_slot {
    int list, launch, arg;
} exec_slot;

/* An exchange, to be done before launch `at` of its list; what it reads is there before `begin`. */
typedef struct exec_point {
    int list, begin, at, position;
    exec_exchange x;
} exec_point;

struct exec {
    const graph *g;
    exec_options o;
    int count;                              /* nodes, in the order they run */
    int *order;
    packing_area *areas;                    /* of values, then of nodes' scratch */
    int *first, *last;                      /* of each value, in positions; first -1: no area */
    dev_buffer **buffer, **scratch;         /* of each value; of each position */
    unsigned char *owned;                   /* the value's buffer is released here */
    dev_buffer **views;
    int view_count, view_room;
    int placed_views;                       /* the first so many are no launch's */
    dev_list *list[EXEC_LISTS], *clears;
    int *launch_from, *launch_to;           /* of each position, in its list */
    int *done;                              /* of each graph parameter: see exec_gradient_done */
    unsigned char *passing;                 /* of each area: lives within one program          */
    unsigned char *written;                 /* values that accumulate: somebody wrote it */
    exec_slot *slots;
    int slot_count, slot_room;
    exec_point *points;                     /* in the order they are met */
    int point_count, point_room;
    int add[EXEC_LISTS], building, position;    /* building: index of the list being built */
    int stopped;                            /* together: programs only make exchanges now */
    int finishes;                           /* exec_finish()                                */
    exec_memory memory;
};

/* What launch functions see; the launch_context comes first so that one casts to the other. */
typedef struct exec_context {
    launch_context c;
    exec *e;
} exec_context;

/* exec_layout.c */
/* Orders the nodes and packs what lives between them; lets the arenas grow to it. */
gt_status exec_lay_out(exec *e);
/* Which list a phase goes to, and the list of position `at` of the order. */
int exec_list_of(const exec *e, graph_phase phase);
int exec_list_at(const exec *e, int at);
uint64_t exec_value_bytes(const graph_value *v);

/* The buffer that was given for an end of the graph; NULL: it is none, or has its own. */
dev_buffer *exec_end_of(const exec *e, int value);

/* exec_place.c */
exec_context exec_context_of(exec *e);

/* exec.c */
/* Queues what must be zero before the next pass, if that pass does not add. */
gt_status exec_clear(exec *e);
/* What accumulates in programs of one list: 0 overwrites, 1 adds. */
gt_status exec_set_add(exec *e, int list, int add);
gt_status exec_make_exchange(exec *e, const exec_exchange *x, exec_exchange_step step);

#endif
