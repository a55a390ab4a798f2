/* SPDX-License-Identifier: MIT */
/* host/train/evaluate.c - forward only, a few micro-batches at a time.
 *
 * So many go through the stages at once (a "round") as keep them all busy; the last stage's sum of
 * each round comes back to the host and is added there in double: a split of a billion tokens
 * would outgrow a float.                                                                  */
#include "host/train/evaluate.h"

#include "host/base/activity.h"
#include "host/sync/sync.h"
#include "host/train/feed.h"

#include <math.h>
#include <stdlib.h>

struct evaluate {
    evaluate_options o;
    stage *stage;
    loader loader;
    data_batch data;
    int round;                      /* micro-batches at a time */
    uint64_t batch, from, to;       /* sequences of a micro-batch; this replica's rows */
    uint64_t at, filled;            /* the next row; rows of this round that are real  */
    void *field[DATA_FIELDS];
};

uint64_t evaluate_rows(const evaluate *e, uint64_t *all)
{
    *all = loader_eval_rows(&e->loader);
    return e->o.rows && e->o.rows < *all ? e->o.rows : *all;
}

/* Rows of the split in proportion to what replicas take of a step. */
static void take_part(evaluate *e)
{
    const run_plan *p = e->o.plan;
    const run_place place = run_plan_place(p, e->o.rank);
    const run_replica *r = &p->replica[place.replica];
    uint64_t all;
    const uint64_t rows = evaluate_rows(e, &all);
    const uint64_t first = (uint64_t)place.first_sequence, batch = (uint64_t)p->batch;
    const uint64_t mine = (uint64_t)r->micro_batches * (uint64_t)r->micro_batch;
    e->batch = (uint64_t)r->micro_batch;
    e->from = rows * first / batch;
    e->to = rows * (first + mine) / batch;
    e->round = r->stages > 1 ? 2 * r->stages : 1;
}

gt_status evaluate_create(evaluate **out, const stage_model *m, const evaluate_options *o)
{
    *out = NULL;
    evaluate *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot evaluate: no memory for its settings");
    e->o = *o;
    gt_status st = loader_open(&e->loader, o->split, o->name ? o->name : "validation", LOADER_SEQUENTIAL, 1, o->seq, 0);
    if (!st)
        st = stage_build(&e->stage, o->plan, o->rank, o->comm, m, 0);
    if (!st)
        st = stage_place(e->stage, &o->place);
    if (!st) {
        take_part(e);
        st = feed_create(&e->data, o->batch, m->config, &e->loader, "validation", e->stage);
        for (int f = 0; !st && f < e->data.fields; f++) {
            e->field[f] = malloc(data_field_bytes(&e->data.field[f], e->batch));
            if (!e->field[f])
                st = gt_fail(GT_NO_MEMORY, "cannot evaluate: no memory for %llu sequences of '%s'",
                             (unsigned long long)e->batch, e->data.field[f].name);
        }
    }
    if (st) {
        evaluate_release(e);
        return st;
    }
    *out = e;
    return GT_OK;
}

gt_status evaluate_ready(evaluate *e)
{
    return stage_ready(e->stage);
}

void evaluate_release(evaluate *e)
{
    if (!e)
        return;
    stage_release(e->stage);
    for (int f = 0; f < DATA_FIELDS; f++)
        free(e->field[f]);
    free(e);
}

/* Loads the next micro-batch; rows beyond the part's end do not count. */
static gt_status send_inputs(void *context, exec *x, int chunk, int micro)
{
    evaluate *e = context;
    const uint64_t first = e->at + (uint64_t)micro * e->batch;
    uint64_t real = first < e->to ? e->to - first : 0;
    void *wanted[DATA_FIELDS] = { 0 };
    dev_buffer *to[DATA_FIELDS];
    if (real > e->batch)
        real = e->batch;
    for (int f = 0; f < e->data.fields; f++) {
        to[f] = exec_buffer(x, e->data.field[f].name);
        wanted[f] = to[f] ? e->field[f] : NULL;
    }
    gt_status st = e->data.fill_rows(&e->data, first, e->batch, real, wanted);
    for (int f = 0; !st && f < e->data.fields; f++)
        if (to[f])
            st = dev_write(e->o.place.exec.device, to[f], 0, e->field[f],
                           data_field_bytes(&e->data.field[f], e->batch));
    if (chunk == 0)
        e->filled += real;
    return st;
}

static gt_status run_round(evaluate *e, double *sum)
{
    const stage_calls calls = { .context = e, .inputs = send_inputs };
    const uint64_t left = (e->to - e->at + e->batch - 1) / e->batch;
    const int count = left < (uint64_t)e->round ? (int)left : e->round;
    float part = 0.0f;
    e->filled = 0;
    gt_status st = stage_forward(e->stage, &calls, count);
    dev_buffer *loss = exec_buffer(stage_exec(e->stage, stage_chunks(e->stage) - 1), "loss_sum");
    if (!st)
        st = loss ? dev_read(e->o.place.exec.device, loss, 0, &part, sizeof part) : dev_wait(e->o.place.exec.device);
    *sum += (double)part;
    e->at += (uint64_t)count * e->batch;
    return st;
}

gt_status evaluate_run(evaluate *e, double *loss, uint64_t *tokens)
{
    double sum = 0.0, weights = 0.0;
    uint64_t counted = 0;
    gt_status st = GT_OK;
    *loss = NAN;
    if (!loader_eval_rows(&e->loader))
        return gt_fail(GT_MISMATCH,
                       "cannot evaluate: the validation split has fewer than %llu "
                       "tokens",
                       (unsigned long long)e->o.seq + 1);
    gt_activity a;
    gt_activity_begin(&a, "evaluating", "sequences", e->to - e->from);
    for (e->at = e->from; !st && e->at < e->to;) {
        gt_activity_set(&a, e->at - e->from);
        st = run_round(e, &sum);
        counted += e->filled * e->o.seq;
    }
    gt_activity_end(&a);
    if (!st)
        st = data_batch_total_rows(&e->data, e->from, e->to - e->from, &weights);
    if (!st && e->o.comm) {
        const run_place place = run_plan_place(e->o.plan, e->o.rank);
        const int counts = place.stage == 0 && place.tensor_rank == 0;
        sync_totals all = { .loss = sum, .stopped = stage_stopped(e->stage) };
        all.squares = counts ? weights : 0.0;
        all.sent = counts ? (double)counted : 0.0;
        st = sync_totals_sum(e->o.comm, &all, NULL);
        sum = all.loss;
        weights = all.squares;
        counted = (uint64_t)all.sent;
        if (!st && all.stopped > 0.0)
            st = gt_fail(GT_INTERRUPTED, "stopped while evaluating");
    }
    if (!st && weights <= 0.0)
        st = gt_fail(GT_MISMATCH, "cannot evaluate: of the validation split no target counts");
    if (!st)
        *loss = sum / weights;
    if (tokens)
        *tokens = counted;
    return st;
}
