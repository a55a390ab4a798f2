/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_private.h - what the launchers of one kernel set share.
 *
 * A launcher asserts what only a programming mistake can break, lists the arguments in the
 * order of the kernel, and appends one launch through one of the kernel_launch calls.
 * Programs are built at the first launch that needs them: a run that only generates text
 * never compiles an optimizer.                                                          */
#ifndef GT_KERNEL_PRIVATE_H
#define GT_KERNEL_PRIVATE_H

#include "host/kernel/kernel.h"

/* A family of kernels: a .cl file and how it is built, and the cases that test and time it. The rows
 * stand at the end of kernel_NAME.c, behind launchers and cases; this is the list of them. */
#define KERNEL_FAMILIES(F) \
    F(embed) \
    F(norm) \
    F(elementwise) \
    F(xent) \
    F(optim) \
    F(optim_tensor) \
    F(rope) F(attention) F(attention_cache) F(adapter) F(rows) F(compress) F(topk) F(lowrank) F(stages) F(dct)

struct kernel_case;             /* kernel_cases_private.h */
typedef struct kernel_family {
    dev_family program;
    const struct kernel_case *cases;        /* a { 0 } behind the last */
} kernel_family;

#define DECLARE(name) extern const kernel_family kernel_##name##_family;
KERNEL_FAMILIES(DECLARE)
#undef DECLARE

/* In the order of the list; NULL behind the last. */
const kernel_family *kernel_family_at(int i);

struct kernel_set {
    dev_device *device;
    const dev_info *info;       /* of the device */
    dtype storage;
    int cpu;                    /* 1: STYLE_CPU bodies, work-groups of one */
    size_t group;               /* work-items a work-group: WG of cl/common.clh, 1 for cpu */
    size_t items;               /* work-items or groups that keep every unit busy evenly */
    struct kernel_built {
        const kernel_family *family;
        int variant;
        dev_program *program;
    } *built;
    int built_count;            /* programs so far */
};

/* How many arguments an array of dev_arg has. */
#define KERNEL_ARGS(a) (int)(sizeof(a) / sizeof *(a))

/* A variant of a family's program, built if it is not yet. It stays the set's. */
gt_status kernel_program(dev_program **out, kernel_set *k, const kernel_family *family, int variant);

/* What every kernel of attention asks of heads and rows, those that attend to a cache, too. */
gt_status kernel_attention_sizes(const kernel_attention_shape *s);

/* Appends one launch of `name` of the first variant; the grid's group size must be k->group in dimension 0. */
gt_status kernel_launch(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, dev_grid grid,
                        const dev_arg *args, int count);

/* A flat kernel of a variant: args[0] and args[1] are set here to n (ulong) and block (uint). */
gt_status kernel_launch_flat(dev_list *l, kernel_set *k, const kernel_family *family, int variant, const char *name,
                             int64_t n, dev_arg *args, int count);

/* A row kernel: args[0] is set here to `per`, the rows a work-item (CPU) owns or 1 (GPU: a
 * work-group a row); `cost` is elements touched a row. */
gt_status kernel_launch_rows(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, int R, int cost,
                             dev_arg *args, int count);
/* The same of a variant. */
gt_status kernel_launch_rows_of(dev_list *l, kernel_set *k, const kernel_family *family, int variant, const char *name,
                                int R, int cost, dev_arg *args, int count);

/* `groups` work-groups (GPU) or work-items (CPU). */
gt_status kernel_launch_groups(dev_list *l, kernel_set *k, const kernel_family *family, const char *name, size_t groups,
                               const dev_arg *args, int count);

/* Argument `arg` of the launch just appended; slot may be NULL. */
void kernel_slot_last(kernel_slot *slot, const dev_list *l, int arg);

/* Of n, `each` at a time, the last one maybe smaller. */
static inline int64_t kernel_pieces(int64_t n, int64_t each)
{
    return (n + each - 1) / each;
}

/* A count that a kernel indexes with 32 bits; GT_UNSUPPORTED above. */
gt_status kernel_fits(const char *what, int64_t n);

/* The dropout of a kernel as its arguments: limit (uint), factor (float). No dropout is
 * limit 0 and factor 1. */
uint32_t kernel_dropout_limit(const kernel_dropout *drop);
float kernel_dropout_factor(const kernel_dropout *drop);

#endif
