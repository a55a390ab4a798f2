/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage_choice.h - in what form each two neighbours of a pipeline send: --compress-stages.
 *
 *   int8                 between all
 *   auto                 of none, fp16, bf16 and int8 the one for each link, from what was measured
 *   auto:0.005           of those whose errors are at most 0.005 of the largest of 128 values (stage_wire.h)
 *   auto:bf16,int8       of none and these; a number may stand among them
 *
 *   link       two ranks that hand each other activations and gradients; rank k of a tensor group has its own
 *   expected   seconds of a step: each message over the measured link, and encoded and decoded by the two devices
 *   chosen     as host/sync/link_choice.h says; both ends hear the same
 *
 * What was chosen is in the plan (run_plan_between), which stages follow.                    */
#ifndef PIPELINE_STAGE_CHOICE_H
#define PIPELINE_STAGE_CHOICE_H

#include "host/pipeline/stage.h"
#include "host/sync/link_choice.h"

typedef struct stage_forms {
    int count;                          /* 1: that form between all; more: to choose among, the first as it is */
    wire_kind kind[WIRE_KINDS];
} stage_forms;
/* "none|bf16|fp16|int8|auto[:FORM,..]". GT_MISUSE with a sentence that names what is wrong. */
gt_status stage_forms_parse(stage_forms *out, const char *spec);
/* Leaves out what takes values of this type no fewer bytes. GT_MISUSE if nothing is left. */
gt_status stage_forms_narrow(stage_forms *f, const char *spec, dtype type);

typedef struct stage_choice {
    char text[WIRE_KINDS][SYNC_NAMES];  /* of the candidates                                   */
    int candidates, links;
    sync_link *link;                    /* alike on all ranks                                  */
    int (*pair)[2];                     /* their ranks                                         */
} stage_choice;

/* All ranks, between stage_build() and stage_place(). Takes what the plan knows if it knows all, else measures; and adds
 * to the plan what was chosen. */
gt_status stage_choice_make(stage_choice **out, const stage_forms *f, run_plan *plan, const stage *s, dev_device *d,
                            net_comm *comm);
void stage_choice_release(stage_choice *c); /* takes NULL */

#endif
