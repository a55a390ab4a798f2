/* SPDX-License-Identifier: MIT */
/* host/graph/params.h - a model's parameters and gradients on one device.
 *
 *   masters    |== decayed, chunk 0 ==|== decayed, chunk 1 ==|= not decayed =|   fp32
 *   gradients  the same places                                                   fp32
 *   copies     the same places, in storage type; only if that is not fp32
 *
 * Tensors lie side by side in few large buffers ("segments"), so that the norm of all
 * gradients and the optimizer are a launch a segment instead of one a tensor. A segment
 * holds only tensors that decay or only such that do not, and never exceeds the largest
 * allocation of the device. Gaps between tensors are zero and stay zero.
 * Tensors of rank 1 are always used as fp32 masters; others as copies, if there are any.
 * Frozen tensors (graph_train) are in no segment: each is one buffer of the type that is computed
 * with (graph_param_info.type), without a gradient. Nothing updates, adds up or clips them. */
#ifndef GT_GRAPH_PARAMS_H
#define GT_GRAPH_PARAMS_H

#include "host/device/device.h"
#include "host/graph/graph.h"

typedef struct params params;

typedef struct params_segment {
    int64_t count;                      /* elements, gaps included */
    int decay, group;
    dev_buffer *master, *grad, *copy;   /* grad, copy: NULL where there is none */
} params_segment;

/* Places the parameters that `g` declares. Masters and gradients are zero. Without
 * `gradients` there are none (evaluation, generation). */
gt_status params_create(params **out, dev_device *d, const graph *g, int gradients);
/* Those of several graphs (the chunks of a stage), which agree in storage; what several declare
 * is there once. group(context, info) gives a number >= 0, and segments hold tensors of one
 * group only, lowest first, so that what is summed over the same ranks lies together. NULL: one
 * group. */
typedef struct params_grouping {
    int (*group)(void *context, const graph_param_info *info);
    void *context;
    /* Bytes: where tensors may begin, and how large a segment may be; 0: as this device needs. Ranks
     * that sum gradients need the same places, so they take the largest and the smallest of all. */
    uint64_t align, most;
    /* Memory, whole pages and all zero, for a group's masters or gradients where the device computes in host
     * memory, so that others can reach it there; *out NULL: it has its own. NULL: always. Given back on release. */
    gt_status (*memory)(void *context, int group, int masters, uint64_t bytes, void **out);
    void (*memory_free)(void *context, void *memory);
} params_grouping;
gt_status params_create_grouped(params **out, dev_device *d, const graph *const *g, int graphs,
                                const params_grouping *how, int gradients);
void params_release(params *p); /* takes NULL */
/* Bytes that params_create would take of trained parameters, without a device; the plan prints them. Of
 * frozen ones: graph_frozen_bytes(). */
void params_bytes(const graph *g, uint64_t *masters, uint64_t *copies);

int params_count(const params *p);
const graph_param_info *params_info(const params *p, int i);
int params_find(const params *p, const char *name); /* -1 if absent */
dev_buffer *params_master(params *p, int i); /* NULL: frozen */
dev_buffer *params_grad(params *p, int i); /* NULL: frozen, or made without gradients */
dev_buffer *params_used(params *p, int i); /* what kernels read: copy or master */
/* Elements between which tensors may begin: parts of a segment that begin at a multiple can be views. */
int64_t params_step(const params *p);
int params_segments(const params *p);
const params_segment *params_segment_at(const params *p, int i);
/* For rules that work on whole tensors, those of which whole() says 1: where parameters are shared out, each of them
 * stays in one piece. NULL: none must. */
void params_keep_whole(params *p, int (*whole)(const graph_param_info *info));
int params_is_whole(const params *p, int i);
/* The group (params_grouping) of tensor i. */
int params_group(const params *p, int i);
uint64_t params_frozen_bytes(const params *p);
/* Where tensor i lies: its segment and first element there (optimizer state lies alike). A frozen one is in
 * none: segment -1. */
void params_place(const params *p, int i, int *segment, int64_t *first);

/* Fills every tensor as its declaration says: a pure function of (seed, tensor name), so
 * that any plan starts from the same weights. */
gt_status params_init(params *p, uint64_t seed);
/* Those of which wants() says 1; NULL: all. */
gt_status params_init_some(params *p, uint64_t seed, int (*wants)(const graph_param_info *info));
/* Host <-> one tensor, fp32, shape_count elements. Writing also renews the copy when
 * params_refresh is called afterwards. A frozen tensor is rounded to its type; of one of which a slice is
 * held, params_write_full() alone writes. */
gt_status params_write(params *p, int i, const float *from);
gt_status params_read(params *p, int i, float *to);
gt_status params_read_grad(params *p, int i, float *to);
/* A frozen tensor as it is stored, graph_param_bytes() of it, and their XXH3-64, which is reckoned once. */
gt_status params_read_stored(params *p, int i, void *to);
gt_status params_stored_hash(params *p, int i, uint64_t *hash);
/* Where a trained tensor lies that the device keeps in host memory and this rank has all of: to be filled there
 * before anything is queued that uses it. NULL: by params_write_full(). */
float *params_in_place(params *p, int i);
/* From the full tensor, of which this rank may hold a slice. */
gt_status params_write_full(params *p, int i, const float *full);
/* Makes all copies from the masters. */
struct kernel_set;
gt_status params_refresh(params *p, struct kernel_set *k);

#endif
