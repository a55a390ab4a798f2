/* SPDX-License-Identifier: MIT */
/* host/optim/optim_private.h - what the files of the optimizer share.
 *
 *   optim.c         units, buffers and launch lists; a step
 *   optim_state.c   slots of a parameter, and the checkpoint's view of them
 *   rules.c         the table of rules; optim_NAME.c is one rule
 *   schedule.c      learning rates                                                       */
#ifndef GT_OPTIM_PRIVATE_H
#define GT_OPTIM_PRIVATE_H

#include "host/optim/rule.h"

/* A launch that takes the learning rate. */
typedef struct optim_rate {
    kernel_slot at;
    double scale;
} optim_rate;

/* A launch that takes its segment's form. */
typedef struct optim_form {
    kernel_slot at;
    int segment;
} optim_form;

/* Behind launch `at` - 1 of the update, `count` fp32 are added up over ranks. */
typedef struct optim_stop {
    int at;
    dev_buffer *x;
    int64_t count;
} optim_stop;

struct optim {
    dev_device *device;
    params *params;
    optim_config config;
    int segments;
    optim_part *part;                   /* what is updated here */
    int parts;
    int shared;                         /* one of several ranks */
    optim_unit *unit;
    int units;
    dev_buffer **grad;                  /* of each part: its gradients (views) */
    dev_buffer **partial;               /* of each part: sums of squares of blocks */
    dev_buffer *squares, *state, *grad_scale, *loss_sum;
    kernel_set *kernels;
    dev_list *norms, *update;           /* `norms` is empty unless shared */
    optim_update with;                  /* what rules append with */
    double tokens, weights;             /* optim_create(), optim_weigh() */
    kernel_slot weigh, held;            /* of the launch that takes tokens / weights, and if variances are held */
    unsigned char *form;                /* of each segment: an adamw_form */
    optim_form *forms;                  /* launches that take it */
    int form_count, form_room;
    optim_rate *rate;
    int rates, rate_room;
    optim_ranks ranks;                  /* parts: not kept */
    int *cut;                           /* units that are cut, in an order that all ranks have */
    int cuts;
    dev_buffer *pass[OPTIM_PASSES];     /* sums of all of them */
    optim_stop *stop;
    int stops, stop_room;
    float *sums;                        /* shared: partial sums, read here; then the total */
    float total_loss;
    int64_t blocks;                     /* of the parts counted */
};

unsigned optim_rule_keeps(const optim_config *c, const graph_param_info *info);
gt_status optim_settings_check(const optim_config *c);
/* Values of a slot of a tensor of those dims. */
int64_t optim_slot_count(optim_extent extent, int64_t elements, int64_t rows, int64_t columns);

#endif
