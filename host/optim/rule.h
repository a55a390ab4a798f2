/* SPDX-License-Identifier: MIT */
/* host/optim/rule.h - an update rule: one struct a rule, one file each, one table of them all.
 *
 *   name, help, settings  -> options, their help and checks, config.json
 *   slots                 -> memory estimates, checkpoints, resuming, sharding
 *   append()              -> the launches of an update
 *
 * A new rule is one file and one row of optim_rules[] (rules.c); nothing else names rules.
 *
 *   a segment   |  h.0 matrix  |  h.0 matrix  |  wte  |  wpe  |  h.1 matrix  |
 *   AdamW       |============================ one unit ======================|
 *   Muon        |---- unit ----|---- unit ----|==== unit =====|---- unit ----|
 *
 * What is updated at once is a unit. A rule that works element by element gets whole ranges of a
 * segment, gaps between tensors included (zeros must stay zeros), so that an update is few launches,
 * and state can be shared out anywhere. For tensors of which it says so (whole()), it gets each on its own:
 * norms, products and sums over rows need that. Where the ranks of a tensor group have slices of such a
 * tensor, each gets its slice, and what must be known of the whole is added up over the ranks:
 *
 *   pass 0 of every slice | sums over ranks | pass 1 of every slice | sums over ranks | ...    append_slice() */
#ifndef GT_OPTIM_RULE_H
#define GT_OPTIM_RULE_H

#include "host/gemm/gemm.h"
#include "host/optim/optim.h"

enum { OPTIM_SLOTS = 4, OPTIM_SCRATCH = 8, OPTIM_PASSES = 3 };

typedef enum optim_extent {
    OPTIM_AS_PARAM,                     /* a value an element                     */
    OPTIM_PER_ROW,                      /* whole matrices (R,C) only: R values    */
    OPTIM_PER_COLUMN                    /*                            C values    */
} optim_extent;

/* A kind of state, fp32. It begins as zeros. */
typedef struct optim_slot {
    const char *name;                   /* in checkpoints: "first" is first.NAME         */
    const char *what;                   /* in sentences: "first moments"                 */
    optim_extent extent;
} optim_slot;

/* A number that the user may set. Rules may share one by name: it is one option then. */
struct optim_setting {
    const char *name, *help;            /* "beta1", "decay of the first moment"          */
    double usual, least, below;         /* default; least <= x < below                   */
    size_t at;                          /* of the double within optim_config             */
};
#define OPTIM_SETTING(name, help, usual, least, below, field) \
    { name, help, usual, least, below, offsetof(optim_config, field) }

typedef struct optim_unit {
    int64_t count;                      /* elements                                      */
    int rows, columns;                  /* of one tensor; rows 1: a vector. 0: a range   */
    int all_rows, all_columns;          /* of all of it: more than rows or columns, if cut */
    int cut;                            /* 1: this rank has a slice of the tensor        */
    int param;                          /* of one tensor; else -1                        */
    int segment;
    int64_t first;                      /* element of the segment                        */
    float decay;                        /* weight decay, 0 where there is none           */
    dev_buffer *master, *grad, *copy;   /* copy NULL: none                               */
    dev_buffer *slot[OPTIM_SLOTS];      /* NULL: not kept                                */
    dev_buffer *sums[OPTIM_PASSES];     /* cut: added up over the ranks behind a pass; NULL: nothing is */
    dev_buffer *own;                    /* cut: kept between passes                      */
} optim_unit;

/* What launches are appended to and with. */
typedef struct optim_update {
    dev_list *list;
    kernel_set *kernels;
    gemm_context *gemm;                 /* NULL: the rule multiplies nothing             */
    const optim_config *config;
    dev_buffer *state;                  /* scalars, OPTIM_* of kernel.h                  */
    dev_buffer *scratch[OPTIM_SCRATCH]; /* as large as the largest unit asked for; shared by all */
    optim *of;
} optim_update;
/* Here `count` fp32 are added up over the ranks that have slices of the same tensors. */
gt_status optim_adds(optim_update *u, dev_buffer *x, int64_t count);
/* Where a unit that is cut lies in its tensor. */
kernel_slice optim_slice_of(const optim_update *u, const optim_unit *unit);
/* The launch just appended takes the learning rate there, times `scale`. */
gt_status optim_takes_lr(optim_update *u, kernel_slot at, double scale);
/* The launch just appended takes there what the unit's gradients are (adamw_form). */
gt_status optim_takes_form(optim_update *u, const optim_unit *unit, kernel_slot at);

struct optim_rule {
    const char *name, *help;
    const optim_slot *slots;
    int slot_count;
    const optim_setting *settings;
    int setting_count;
    int products;                       /* 1: needs a gemm_context                       */
    int moments;                        /* 1: optim_form_set() works: slot 0 is the first moments */
    /* 1: this tensor is a unit of its own. NULL: none is. */
    int (*whole)(const graph_param_info *info);
    /* Bit i: slot i is kept of such tensors. info NULL: a range of any. NULL: all slots. */
    unsigned (*keeps)(const optim_config *c, const graph_param_info *info);
    /* Raises bytes[i] to what the unit needs of scratch i. NULL: nothing. */
    gt_status (*scratch)(optim_update *u, const optim_unit *unit, uint64_t bytes[OPTIM_SCRATCH]);
    gt_status (*append)(optim_update *u, const optim_unit *unit);
    /* The same on host memory; NULL: there is none. */
    void (*host)(const optim_config *c, const optim_host *u);
    /* Of units that are cut, if there is whole(): fp32 that are added up over the ranks behind a pass (NULL:
     * none), and that it keeps for itself until the last (NULL: none); each the same number on all ranks. */
    int passes;
    int64_t (*sums)(const optim_unit *unit, int pass);
    int64_t (*own)(const optim_unit *unit);
    gt_status (*append_slice)(optim_update *u, const optim_unit *unit, int pass);
};

extern const optim_rule optim_adamw, optim_sgd, optim_lion, optim_muon, optim_adafactor;

/* AdamW on a range, as other rules use it for what they do not work on themselves: slots first and
 * second, and the rate times lr_scale. */
gt_status optim_adamw_append(optim_update *u, const optim_unit *unit, dev_buffer *first, dev_buffer *second,
                             double lr_scale);

/* optim_host.c */
void optim_adamw_host(const optim_config *c, const optim_host *u);
void optim_sgd_host(const optim_config *c, const optim_host *u);
void optim_lion_host(const optim_config *c, const optim_host *u);

#endif
