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
#include <string.h>

#define HITS "hit_sum"                  /* where a graph counts targets that it answers right */

struct evaluate {
    evaluate_options o;
    stage *stage;
    loader loader;                  /* of what is being measured: the split, or a part of it */
    loader whole;
    uint64_t limit;                 /* rows of the loader to measure at most; 0: all */
    data_batch data;
    int round;                      /* micro-batches at a time */
    uint64_t batch, from, to;       /* sequences of a micro-batch; this replica's rows */
    uint64_t at;                    /* the next row                                    */
    double bytes;                   /* that targets spell, so far                      */
    void *field[DATA_FIELDS];
};

static uint64_t least(uint64_t rows, uint64_t limit)
{
    return limit && limit < rows ? limit : rows;
}

/* Of part i of a mixture, by its share. */
static uint64_t limit_of(const evaluate *e, int i)
{
    const uint64_t rows = e->o.rows * e->whole.source[i].slots / e->whole.slots;
    return e->o.rows && !rows ? 1 : rows;
}

uint64_t evaluate_rows(const evaluate *e, uint64_t *all)
{
    uint64_t rows = 0;
    *all = 0;
    for (int i = 0; i < e->whole.sources; i++) {
        *all += e->whole.source[i].rows;
        rows += least(e->whole.source[i].rows, limit_of(e, i));
    }
    return rows;
}

/* Rows of the split in proportion to what replicas take of a step. */
static void take_part(evaluate *e)
{
    const run_plan *p = e->o.plan;
    const run_place place = run_plan_place(p, e->o.rank);
    const run_replica *r = &p->replica[place.replica];
    const uint64_t rows = least(loader_eval_rows(&e->loader), e->limit);
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
    gt_status st = loader_open(&e->whole, o->split, o->name ? o->name : "validation", LOADER_SEQUENTIAL, 1, o->seq, 0);
    e->loader = e->whole;
    e->limit = o->rows;
    if (!st)
        st = stage_build(&e->stage, o->plan, o->rank, o->comm, m, 0);
    if (!st)
        st = stage_place(e->stage, &o->place);
    if (!st) {
        take_part(e);
        st = feed_create(&e->data, o->batch, m->config, &e->loader, "validation", e->stage);
        if (!st)
            st = data_batch_check_target_rows(&e->data, o->name ? o->name : "validation");
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

/* Adds the bytes of the targets of the first `real` rows, but for those that weigh nothing. */
static void count_bytes(evaluate *e, void *const wanted[], uint64_t real)
{
    const int32_t *target = NULL;
    const float *weight = NULL;
    uint64_t count = 0;
    for (int f = 0; f < e->data.fields; f++) {
        const data_field *field = &e->data.field[f];
        if (!strcmp(field->name, "targets") && field->type == DTYPE_I32) {
            target = wanted[f];
            count = field->count * real;
        }
        if (e->data.weights && !strcmp(field->name, e->data.weights))
            weight = wanted[f];
    }
    for (uint64_t i = 0; target && i < count; i++)
        if (target[i] >= 0 && (uint32_t)target[i] < e->o.ids && (!weight || weight[i] > 0.0f))
            e->bytes += e->o.bytes[target[i]];
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
    if (!st && e->o.bytes)
        count_bytes(e, wanted, real);
    for (int f = 0; !st && f < e->data.fields; f++)
        if (to[f])
            st = dev_write(e->o.place.exec.device, to[f], 0, e->field[f],
                           data_field_bytes(&e->data.field[f], e->batch));
    (void)chunk;
    return st;
}

/* Adds a sum of the round from the last stage, where this is it. */
static gt_status add_output(evaluate *e, const char *name, double *sum)
{
    float part = 0.0f;
    dev_buffer *b = exec_buffer(stage_exec(e->stage, stage_chunks(e->stage) - 1), name);
    gt_status st = b ? dev_read(e->o.place.exec.device, b, 0, &part, sizeof part) : dev_wait(e->o.place.exec.device);
    *sum += (double)part;
    return st;
}

static gt_status run_round(evaluate *e, double *loss, double *hits)
{
    const stage_calls calls = { .context = e, .inputs = send_inputs };
    const uint64_t left = (e->to - e->at + e->batch - 1) / e->batch;
    const int count = left < (uint64_t)e->round ? (int)left : e->round;
    gt_status st = stage_forward(e->stage, &calls, count);
    if (!st)
        st = add_output(e, "loss_sum", loss);
    if (!st)
        st = add_output(e, HITS, hits);
    e->at += (uint64_t)count * e->batch;
    return st;
}

/* Sums of all ranks. Of a tensor group one counts what all of it read. */
static gt_status add_up(evaluate *e, evaluate_result *sum, int *has_hits)
{
    const run_place place = run_plan_place(e->o.plan, e->o.rank);
    const int first = place.stage == 0 && place.tensor_rank == 0;
    sync_totals all = { .loss = sum->loss, .stopped = stage_stopped(e->stage), .stop = *has_hits, .busy = sum->hits };
    all.squares = first ? sum->targets : 0.0;
    all.sent = first ? (double)sum->tokens : 0.0;
    all.seconds = place.tensor_rank == 0 ? sum->bytes : 0.0;
    gt_status st = sync_totals_sum(net_group_world(e->o.comm), &all, NULL);
    *sum = (evaluate_result){
        .loss = all.loss, .tokens = (uint64_t)all.sent, .targets = all.squares, .bytes = all.seconds, .hits = all.busy
    };
    *has_hits = all.stop > 0.0;
    return !st && all.stopped > 0.0 ? gt_fail(GT_INTERRUPTED, "stopped while evaluating") : st;
}

/* Of what the loader has. */
static gt_status measure(evaluate *e, evaluate_result *out)
{
    evaluate_result sum = { 0 };
    data_total total = { 0 };
    int has_hits = exec_buffer(stage_exec(e->stage, stage_chunks(e->stage) - 1), HITS) != NULL;
    gt_status st = GT_OK;
    *out = (evaluate_result){ .loss = NAN, .hits = NAN };
    if (!loader_eval_rows(&e->loader))
        return gt_fail(GT_MISMATCH,
                       "cannot evaluate: the validation split has fewer than %llu "
                       "tokens",
                       (unsigned long long)e->o.seq + 1);
    gt_activity a;
    gt_activity_begin(&a, "evaluating", "sequences", e->to - e->from);
    e->bytes = 0.0;
    for (e->at = e->from; !st && e->at < e->to;) {
        gt_activity_set(&a, e->at - e->from);
        st = run_round(e, &sum.loss, &sum.hits);
    }
    gt_activity_end(&a);
    sum.bytes = e->bytes;
    if (!st)
        st = data_batch_total_rows(&e->data, e->from, e->to - e->from, &total);
    sum.targets = total.weights;
    sum.tokens = (uint64_t)(total.tokens + 0.5);
    if (!st && e->o.comm)
        st = add_up(e, &sum, &has_hits);
    if (!st && sum.targets <= 0.0)
        st = gt_fail(GT_MISMATCH, "cannot evaluate: of the validation split no target counts");
    if (st)
        return st;
    sum.loss /= sum.targets;
    sum.hits = has_hits ? sum.hits : NAN;
    sum.whole_texts = e->data.whole_texts;
    *out = sum;
    return GT_OK;
}

static gt_status measure_part(evaluate *e, int i, evaluate_result *out)
{
    const token_part *p = &e->o.split->parts[i];
    gt_status st = loader_open(&e->loader, &p->split, p->name, LOADER_SEQUENTIAL, 1, e->o.seq, 0);
    e->limit = limit_of(e, i);
    if (!st)
        take_part(e);
    return st ? st : measure(e, out);
}

gt_status evaluate_run(evaluate *e, evaluate_result *out)
{
    evaluate_result all = { .parts = e->whole.sources, .whole_texts = e->data.whole_texts }, one;
    gt_status st = GT_OK;
    if (!e->o.split->part_count)
        return measure(e, out);
    *out = (evaluate_result){ .loss = NAN, .hits = NAN };
    for (int i = 0; !st && i < all.parts; i++) {
        st = measure_part(e, i, &one);
        all.part_loss[i] = one.loss;
        all.loss += one.loss * (double)e->whole.source[i].slots / (double)e->whole.slots;
        all.tokens += one.tokens;
        all.targets += one.targets;
        all.bytes += one.bytes;
        all.hits += one.hits;
    }
    if (!st)
        *out = all;
    return st;
}

double evaluate_perplexity(const evaluate_result *r)
{
    return exp(r->loss);
}

double evaluate_bits_per_byte(const evaluate_result *r)
{
    return r->bytes > 0.0 ? r->loss * r->targets / (log(2.0) * r->bytes) : NAN;
}

double evaluate_accuracy(const evaluate_result *r)
{
    return r->targets > 0.0 ? r->hits / r->targets : NAN;
}
