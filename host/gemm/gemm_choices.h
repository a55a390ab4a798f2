/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_choices.h - the engines chosen so far, by class of product; private to this room.
 *
 * Public names that speak of them are in gemm.h: gemm_choices_save(), gemm_other_known() and their like. */
#ifndef GT_GEMM_GEMM_CHOICES_H
#define GT_GEMM_GEMM_CHOICES_H

#include "host/gemm/engine.h"

typedef struct gemm_choice {
    char class_name[GEMM_CLASS];
    const gemm_engine *engine;
    double seconds;
} gemm_choice;

/* All zero at first; path NULL: there is no cache folder, and they live in memory. */
typedef struct gemm_choices {
    char *path;
    gemm_choice *all;
    int count;
} gemm_choices;

/* Those of a context. */
gemm_choices *gemm_choices_of(const gemm_context *c);
void gemm_choices_release(gemm_choices *s);             /* what it holds */

/* NULL: nothing has been chosen. Valid until the next one is added. */
const gemm_choice *gemm_choices_find(const gemm_choices *s, const char *class_name);
gt_status gemm_choices_add(gemm_choices *s, const char *class_name, const gemm_engine *engine, double seconds);
void gemm_choices_drop(gemm_choices *s, const char *class_name);

/* Those in the cache folder, for this device. What cannot be read is not there. */
void gemm_choices_read(gemm_choices *s, const dev_device *d);
/* Writes them there. What cannot be written costs a measurement next time, and nothing else; what other processes have
 * put there meanwhile, ranks with other layers, stays. */
void gemm_choices_keep(gemm_choices *s);

#endif
