/* SPDX-License-Identifier: MIT */
/* tests/train/test_idle.c - a rank that waits for others does not count as one that computes.
 *
 *   rank 0   steps ... | forward: ... waits for weights, or for rows ... |
 *   rank 1   steps ... |      comes with its batch 0.4 s later           |
 *
 * Of replicas apart rank 0 may be one push ahead, so its next forward has to wait for what rank 1's push makes of the
 * weights. Of a tensor group it has to wait for rank 1's part of the first sum. */
#include "tests/check.h"

#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <time.h>

enum { UNITS = 4, STEPS = 12, LATE = 5, LATE_MS = 400 };

static data_batch usual;
static _Thread_local int is_late;

/* One step's sequences come late. */
static gt_status fill_late(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    if (position == LATE * TINY_B && is_late)
        nanosleep(&(struct timespec){ 0, LATE_MS * 1000000L }, NULL);
    return usual.fill(b, position, first, count, field);
}

static void late(data_batch *out, const void *config, const loader *l, const char *split)
{
    data_batch_make(out, NULL, config, l, split);
    out->fill = fill_late;
}

typedef struct watched {
    const run_plan *plan;
    const train *t;
    int rows;
    double seconds, busy;           /* of all steps; in which rank 0 computed */
} watched;

static void note_step(void *context, const metrics_row *row)
{
    watched *w = context;
    w->rows++;
    w->seconds += row->step_ms * 1e-3;
    w->busy += train_busy_of(w->t, 0);
}

static gt_status train_rank(net_comm *c, void *context)
{
    watched *w = context;
    const int rank = is_late = net_comm_rank(c);
    const model_config config = tiny_config();
    train_options o = tiny_options();
    train *t = NULL;
    dev_device *d = NULL;
    o.comm = c;
    o.plan = w->plan;
    o.steps = STEPS;
    o.order = LOADER_SEQUENTIAL;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st && !rank)
        w->t = t;
    if (!st)
        st = train_run(t, rank ? NULL : &(train_hooks){ .context = w, .step = note_step });
    train_release(t);
    dev_close(d);
    return st;
}

static void check_waiting(const run_plan *plan)
{
    const loader none = { 0 };
    watched w = { .plan = plan };
    data_batch_make(&usual, NULL, &(model_config){ 0 }, &none, "training");
    tiny_batch = late;
    CHECK_OK(ranks_run(2, NULL, train_rank, &w));
    CHECKF(w.rows == STEPS && w.seconds > 1e-3 * LATE_MS, "%d steps took %g s", w.rows, w.seconds);
    CHECKF(w.busy > 0.0 && w.seconds - w.busy > 0.75e-3 * LATE_MS, "rank 0 computed for %g of %g s", w.busy, w.seconds);
}

static void waiting_for_weights_is_no_computing(void)
{
    const tiny_replica two[] = { { 1, 1, 3 }, { 1, 1, 3 } };
    const sync_mode *async = sync_mode_find("async");
    sync_settings settings;
    run_plan plan;
    sync_settings_usual(async, &settings);
    CHECK_OK(sync_settings_set(async, &settings, "staleness", "1"));
    if (tiny_plan(&plan, UNITS, TINY_B, "1f1b", "async", two, 2, 1)) {
        run_plan_sync(&plan, "async", &settings);
        check_waiting(&plan);
    }
    run_plan_release(&plan);
}

static void waiting_for_rows_is_no_computing(void)
{
    const tiny_replica one[] = { { 1, 1, TINY_B } };
    run_plan plan;
    if (tiny_plan(&plan, UNITS, TINY_B, "1f1b", "allreduce", one, 1, 2))
        check_waiting(&plan);
    run_plan_release(&plan);
}

const check_case check_cases[] = {
    CASE(waiting_for_weights_is_no_computing), CASE(waiting_for_rows_is_no_computing), { 0 }
};
