/* SPDX-License-Identifier: MIT */
/* host/pipeline/schedule_private.h - writing a schedule, for the files that make some. */
#ifndef PIPELINE_SCHEDULE_PRIVATE_H
#define PIPELINE_SCHEDULE_PRIVATE_H

#include "host/pipeline/pipe_schedule.h"

/* Writes behind the instructions of one rank; there is room for all that a schedule can have. */
typedef struct writer {
    pipe_schedule *s;
    int rank;
} writer;

void schedule_put(const writer *w, pipe_kind kind, int chunk, int micro_batch);
/* With the receive before and the send behind, where there are such. */
void schedule_forward(const writer *w, int chunk, int m);
void schedule_backward_input(const writer *w, int chunk, int m);
/* left[chunk]: backward-weights of this rank still to come; the last is followed by the reduce. */
void schedule_backward_weight(const writer *w, int chunk, int m, int *left);

gt_status schedule_allocate(pipe_schedule *s);
/* GT_MISUSE says why there is no schedule of that name and shape. */
gt_status schedule_check_shape(const char *name, int ranks, int chunks, int micro_batches, const pipe_cost *costs);

/* schedule_list.c */
gt_status schedule_search(pipe_schedule *s, const pipe_cost *costs, const double *memory);

#endif
