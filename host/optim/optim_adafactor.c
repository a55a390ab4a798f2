/* SPDX-License-Identifier: MIT */
/* host/optim/optim_adafactor.c - Adafactor (Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear
 * memory cost", ICML 2018): of a matrix's second moment only the means of rows and columns are kept.
 *
 * Algorithm 4 with beta2 = 1 - step^-rate (section 7.2) and updates clipped by their RMS (section 6), without
 * momentum. The step is --lr as it is: neither relative to the parameters' RMS nor falling by itself
 * (section 8), so that one schedule serves all rules. Vectors, whose moment takes little memory, keep
 * it whole. RMS and means are those of whole tensors. cl/optim_tensor.cl has the formula.  */
#include "host/optim/rule.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

enum { ROWS, COLUMNS, SECOND };
enum { FOUND, PARTIAL };                /* scratch */

static const optim_slot slots[] = {
    { "rows", "second moments of rows", OPTIM_PER_ROW },
    { "columns", "second moments of columns", OPTIM_PER_COLUMN },
    { "second", "second moments", OPTIM_AS_PARAM },
};

static const optim_setting settings[] = {
    OPTIM_SETTING("decay-rate", "second moments move by step^-X", 0.8, 0.0, 1.0, decay_rate),
    OPTIM_SETTING("update-clip", "limit of an update's RMS", 1.0, 1e-30, INFINITY, update_clip),
};

static int whole(const graph_param_info *info)
{
    (void)info;
    return 1;
}

static unsigned keeps(const optim_config *c, const graph_param_info *info)
{
    (void)c;
    return !info ? 0u : info->full.rank > 1 ? 1u << ROWS | 1u << COLUMNS : 1u << SECOND;
}

static gt_status scratch(optim_update *u, const optim_unit *unit, uint64_t bytes[OPTIM_SCRATCH])
{
    (void)u;
    const uint64_t rows = 4 * (uint64_t)(unit->rows ? unit->rows : 1);
    bytes[FOUND] = 2 * 4;
    bytes[PARTIAL] = bytes[PARTIAL] > rows ? bytes[PARTIAL] : rows;
    return GT_OK;
}

/* ---- slices: sums over what is cut are added up over the ranks ---- */

static int64_t sums(const optim_unit *unit, int pass)
{
    if (pass == 0 && unit->all_rows > 1)
        return unit->rows < unit->all_rows ? unit->columns + 1 : unit->rows;
    return pass == 1;
}

static int64_t own(const optim_unit *unit)
{
    (void)unit;
    return 2;                           /* as scratch[FOUND] */
}

static gt_status append_slice(optim_update *u, const optim_unit *unit, int pass)
{
    const optim_config *c = u->config;
    const kernel_adafactor_slice a = {
        .R = unit->rows,
        .C = unit->columns,
        .all_rows = unit->all_rows,
        .all_columns = unit->all_columns,
        .p = unit->master,
        .g = unit->grad,
        .rows = unit->slot[ROWS],
        .columns = unit->slot[COLUMNS],
        .second = unit->slot[SECOND],
        .found = unit->own,
        .partial = u->scratch[PARTIAL],
        .sums = unit->sums[0],
        .squares = unit->sums[1],
        .copy = unit->copy,
        .state = u->state,
        .rate = (float)c->decay_rate,
        .limit = (float)c->update_clip,
        .decay = unit->decay
    };
    kernel_slot lr;
    if (pass == 0)
        return kernel_adafactor_slice_sums(u->list, u->kernels, &a);
    if (pass == 1)
        return kernel_adafactor_slice_squares(u->list, u->kernels, &a);
    gt_status st = kernel_adafactor_slice_step(u->list, u->kernels, &a, (float)c->lr, &lr);
    return st ? st : optim_takes_lr(u, lr, 1.0);
}

static gt_status append(optim_update *u, const optim_unit *unit)
{
    const optim_config *c = u->config;
    kernel_slot lr;
    assert(unit->param >= 0);
    gt_status st = kernel_adafactor(u->list, u->kernels, unit->rows, unit->columns, unit->master, unit->grad,
                                    unit->slot[ROWS], unit->slot[COLUMNS], unit->slot[SECOND], u->scratch[FOUND],
                                    u->scratch[PARTIAL], unit->copy, u->state, (float)c->lr, (float)c->decay_rate,
                                    (float)c->update_clip, unit->decay, &lr);
    return st ? st : optim_takes_lr(u, lr, 1.0);
}

const optim_rule optim_adafactor = {
    .name = "adafactor",
    .help = "second moments by rows and columns",
    .slots = slots,
    .slot_count = 3,
    .settings = settings,
    .setting_count = 2,
    .whole = whole,
    .keeps = keeps,
    .scratch = scratch,
    .append = append,
    .passes = 3,
    .sums = sums,
    .own = own,
    .append_slice = append_slice
};
