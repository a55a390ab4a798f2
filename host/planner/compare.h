/* SPDX-License-Identifier: MIT */
/* host/planner/compare.h - ways of staying together side by side: what each would take on the same devices and links.
 *
 *   ways   every mode with some settings, every compressor        each is planned for itself: how many replicas
 *   rows   step, bytes, waiting, memory                           are best depends on what they send
 *
 * Rows are sorted by the time to equal tokens; what makes losses others than those of one device is marked, since a
 * step that is as long need not bring as far.                                               */
#ifndef GT_PLANNER_COMPARE_H
#define GT_PLANNER_COMPARE_H

#include "host/pipeline/run_plan.h"
#include "host/sync/traffic.h"

enum { COMPARE_MOST = 40 };

typedef struct compare_way {
    const sync_mode *mode;
    sync_settings settings;
    char compress[SYNC_WORD];           /* as --compress takes it; "none"                      */
    compress_spec form;                 /* the same, read                                      */
    int asked;                          /* 1: what the options say                             */
    int settles;                        /* 1: it is a row for plans of two replicas at least   */
} compare_way;

typedef struct compare_row {
    compare_way way;
    int fits;
    char why[200];                      /* why not                                             */
    int replicas, stages;               /* stages: the most of a replica                       */
    double step;                        /* seconds, on average                                 */
    double sent;                        /* bytes of a step that a replica sends to others, on average */
    double waits;                       /* share of all ranks' time without computation        */
    double memory, host_memory;         /* bytes of the fullest device; of its host            */
} compare_row;

typedef struct compare_table {
    int count;
    compare_row row[COMPARE_MOST];
} compare_table;

/* All that are compared, `asked` (NULL: none) among them; how many. Those that do not go with this optimizer and storage,
 * or a model of so many layers, are left out. */
int compare_ways(compare_way out[COMPARE_MOST], const compare_way *asked, const optim_config *c, dtype storage,
                 int layers);
/* "--sync local --local-steps 100 --compress int8": the options that ask for it. */
void compare_name(char *out, size_t size, const compare_way *w);
/* "local, lossy"; "" if losses are those of one device. */
void compare_changes(char *out, size_t size, const compare_way *w, int replicas);
/* Takes step, idle share and memory from a plan that was judged. */
void compare_take(compare_row *row, const run_plan *p);
/* Fastest first; what does not fit last. */
void compare_sort(compare_table *t);

#endif
