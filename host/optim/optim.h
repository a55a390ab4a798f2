/* SPDX-License-Identifier: MIT */
/* host/optim/optim.h - from gradients to new parameters, and the learning rate of each step.
 *
 * A step on the device, with no word from the host in between:
 *   norm of all gradients -> clip factor, skip?, step count -> the rule's update -> 16-bit copies
 *
 * Rules (adamw, sgd, lion, muon, adafactor) are rows of a table: rule.h says how one is made.
 *
 * fp16 runs multiply the loss by a dynamic scale (Micikevicius et al., "Mixed precision
 * training", 2018): halved, and the step skipped, when a gradient is not finite; doubled
 * after `scale_growth` good steps. In fp32 and bf16 a gradient that is not finite halts
 * all further updates, so that the parameters stay those of the last good step.         */
#ifndef GT_OPTIM_OPTIM_H
#define GT_OPTIM_OPTIM_H

#include "host/gemm/gemm.h"
#include "host/graph/params.h"
#include "host/kernel/kernel.h"
#include "host/tensor/checkpoint_state.h"

typedef struct optim_rule optim_rule;
typedef struct optim_setting optim_setting;
typedef enum optim_schedule { LR_CONSTANT, LR_COSINE, LR_LINEAR, LR_WSD } optim_schedule;

typedef struct optim_config {
    const optim_rule *rule;
    double lr, min_lr;              /* peak, and where the schedule ends           */
    optim_schedule schedule;
    uint64_t warmup, steps;         /* steps of linear warm-up; of the whole run    */
    double decay_share;             /* WSD: the last share of the steps that decays */
    double weight_decay, clip;      /* clip 0: none                                 */
    double beta1, beta2, eps, momentum, adamw_lr, decay_rate, update_clip;     /* settings of rules */
    double loss_scale;              /* first dynamic scale, fp16 only               */
    int scale_growth;
} optim_config;

/* Defaults: AdamW, lr 3e-4 cosine to a tenth, betas .9 .95, eps 1e-8, decay .1, clip 1. */
optim_config optim_defaults(void);
/* Takes another rule, with the usual values of its settings. */
void optim_config_rule(optim_config *c, const optim_rule *r);
gt_status optim_config_check(const optim_config *c);
/* The rate of step 0, 1, ...: warm-up (lr * (step+1) / warmup, nanoGPT's form), then the
 * schedule. */
double optim_lr(const optim_config *c, uint64_t step);
/* 1 if known: "constant", "cosine", "linear", "wsd". */
int optim_schedule_parse(optim_schedule *out, const char *name);

/* All rules, the usual one first; NULL behind the last. */
extern const optim_rule *const optim_rules[];
const optim_rule *optim_rule_find(const char *name);            /* NULL: there is none */
const char *optim_rule_name(const optim_rule *r);
/* "adamw|sgd|...": for options and sentences. */
void optim_rule_names(char *out, size_t size);
const char *optim_rule_help(const optim_rule *r);
/* 1: it updates some tensors as wholes, so a rank must have all of such a tensor, or add up over ranks. */
int optim_rule_sees_tensors(const optim_rule *r);
/* 1: it multiplies matrices, so optim_create() needs a gemm_context. */
int optim_rule_multiplies(const optim_rule *r);
/* Of such tensors 1; for params_keep_whole(). NULL: the rule works on any range. */
int (*optim_rule_whole(const optim_rule *r))(const graph_param_info *info);
/* Its settings; NULL behind the last. Settings of several rules may share a name. */
const optim_setting *optim_setting_at(const optim_rule *r, int i);
const char *optim_setting_name(const optim_setting *s);
const char *optim_setting_help(const optim_setting *s);
double optim_setting_usual(const optim_setting *s);
double *optim_setting_place(optim_config *c, const optim_setting *s);

/* Bytes of state that the rule keeps of a parameter, of the tensors of which it keeps least and most. */
void optim_state_bytes(const optim_config *c, double *least, double *most);

/* Some of what one of several ranks updates, and keeps state of: elements [first, first + count) of a segment, where
 * first is a multiple of params_step(). counted: it adds its squares to the norm, which each
 * parameter of the model does on one rank alone. */
typedef struct optim_part {
    int segment;
    int64_t first, count;
    int counted;
} optim_part;

/* How one of several ranks updates. sum: adds up fp32 over the ranks that have slices of the same tensors
 * as this one (a tensor group), the same bits on all; it may wait. NULL: there are none, so no tensor that
 * the rule needs whole may be cut. Each of them calls it as often, and with as much. */
typedef struct optim_ranks {
    const optim_part *parts;            /* of each segment any number, rising, of a tensor one at most; NULL: all */
    int part_count;
    gt_status (*sum)(void *context, dev_buffer *x, int64_t count);
    void *context;
} optim_ranks;

typedef struct optim optim;
/* `tokens`: the targets of a step, over which its loss is averaged unless optim_weigh() says otherwise. p, k and g must outlive it. g: for rules that
 * multiply matrices; may be NULL for others. ranks NULL: this one is alone and has all. GT_UNSUPPORTED if the
 * rule needs whole a tensor of which this rank updates a part, or holds a slice that nothing adds up. */
gt_status optim_create(optim **out, dev_device *d, kernel_set *k, gemm_context *g, params *p, const optim_config *c,
                       double tokens, const optim_ranks *ranks);
void optim_release(optim *o); /* takes NULL */

/* What the loss graph binds: fp32[1] each. */
dev_buffer *optim_grad_scale(optim *o);
dev_buffer *optim_loss_sum(optim *o);
/* OPTIM_STATE_FLOATS floats (kernel.h), for kernels that read how the newest step went. */
dev_buffer *optim_state(optim *o);

/* What the targets weigh of the steps that are updated from now on, all ranks together; 0: nothing
 * counts, and the update moves nothing (OPTIM_SKIP). Gradients come in as if each weighed 1, so this may be
 * told any time before the update. At first it is `tokens`. */
void optim_weigh(optim *o, double weights);
/* What makes a gradient as it comes in, less the loss scale, that of the weighted mean; 0: nothing counts. */
double optim_weighs(const optim *o);

/* 1: whoever sums gradients may put together the rule's new first moments, and hand over those. */
int optim_rule_takes_moments(const optim_rule *r);
double optim_beta1(const optim *o); /* the decay of first moments                       */
/* All first moments of a segment, as the last update left them; NULL: not all are here. */
dev_buffer *optim_moments(const optim *o, int segment);
/* What the gradients of a segment are in updates from now on, ADAMW_GRADIENTS at first. First moments are scaled as
 * gradients are, and clipped by their own norm. Second moments are held everywhere or nowhere. */
void optim_form_set(optim *o, int segment, adamw_form form);

/* Queues one update at rate lr; returns at once. */
gt_status optim_step(optim *o, double lr);

/* One of several ranks takes two calls for an update, with an exchange between them: what this rank
 * counts of the gradient's norm, squared, and its part of the loss (waits for the device); and the
 * update with the sums over all ranks, which are the same on all. */
gt_status optim_partial(optim *o, double *squares, double *loss);
gt_status optim_step_with(optim *o, double lr, double squares, double loss);
/* All but the update: norm, factor and whether it is to be left out become the scalars, which optim_state_read()
 * reads. For who updates elsewhere. */
gt_status optim_judge_with(optim *o, double squares, double loss);

/* AdamW in steps that one of several replicas makes by itself, with second moments held (ADAMW_HELD), and what becomes of
 * them when replicas are put together (optim_apart.c). All queue. o outlives it. */
typedef struct optim_apart optim_apart;
gt_status optim_apart_create(optim_apart **out, optim *o);
void optim_apart_release(optim_apart *a); /* takes NULL */
/* Where the parameters are becomes where they set out, and nothing has been gathered. */
gt_status optim_apart_begin(optim_apart *a);
/* Behind an update at rate lr: its first moments, times lr over their bias correction, are gathered. */
gt_status optim_apart_gather(optim_apart *a, double lr);
/* Gradients become factor[segment] times what was gathered. */
gt_status optim_apart_give(optim_apart *a, const double *factor);
/* Gradients are taken for the first moments of all replicas, and parameters go from where they set out by `rate`; keep:
 * what decay has left of those that decay. */
gt_status optim_apart_take(optim_apart *a, double rate, double keep);

/* The rule's update of elements in host memory, by the calling thread: what the kernels compute, up to rounding. */
typedef struct optim_host {
    int64_t count;
    float *value;
    const float *gradient; /* of the mean, clipped                                */
    float *slot[4]; /* state in the order of the rule's slots; NULL: not kept */
    double lr;
    uint64_t step; /* of this update: 1, 2, ...                           */
    float decay; /* weight decay, 0: none                               */
} optim_host;
/* 1: the rule has one. It sees no tensors, and keeps a value an element in each slot that it keeps. */
int optim_rule_on_host(const optim_rule *r);
/* Bit i: slot i is kept. */
unsigned optim_host_keeps(const optim_config *c);
void optim_host_update(const optim_config *c, const optim_host *u);
const optim_config *optim_config_of(const optim *o);

/* Starts reading what the last queued step left: OPTIM_STATE_FLOATS floats (kernel.h). */
gt_status optim_state_read(optim *o, float *to, dev_event **event);

gt_status optim_state_write(optim *o, const float *from);

/* What a rule keeps of the parameters, one tensor a state slot and parameter: slot `which` of
 * parameter i, fp32. GT_NOT_FOUND if it keeps none such. */
int optim_slots(const optim *o);
uint64_t optim_slot_bytes(const optim *o); /* of all state slots on this device */
gt_status optim_slot_read(optim *o, int i, int which, float *to);
gt_status optim_slot_write(optim *o, int i, int which, const float *from);
/* Which elements of parameter i this rank updates: [*begin, *end). */
void optim_range(const optim *o, int i, int64_t *begin, int64_t *end);
/* Which elements of it this rank keeps, and reads and writes above: [*begin, *end). */
void optim_slot_range(const optim *o, int i, int which, int64_t *begin, int64_t *end);

/* All of that and the scalars, for checkpoints. */
checkpoint_state optim_saved(optim *o);

#endif
