/* SPDX-License-Identifier: MIT */
/* host/train/train_run.c - a step, and the loop over steps.
 *
 *   alone     host     queue s+1 | wait for s, record s | queue s+2 | ...       of short steps
 *             device   ........ step s ........ | ........ step s+1 ........ |
 *   together  stage: forward, backward | sums of gradients | norm and loss of all | update
 *             (the schedule's PIPE_REDUCE and PIPE_UPDATE call gradients_ready() and update_now())
 *
 * A step's inputs live in a ring of host slots, two steps deep: a slot is written again
 * only after the step that used it has been waited for. What the host learns of a step
 * (loss, norm, whether it was skipped) it reads from the optimizer's scalars one step late,
 * which is why the device itself must refuse to apply a bad gradient (optim.h).         */
#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/trace.h"
#include "host/train/train_private.h"
#include "net/job/elastic.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD_SECONDS 0.25              /* of shorter steps the next one is queued before they are over */
#define SKIPS_IN_A_ROW 50               /* fp16: more than the loss scale can explain */

static gt_status send(train *t, exec *e, const char *name, const void *data, size_t bytes)
{
    dev_buffer *b = exec_buffer(e, name);
    return b ? dev_write_start(t->device, b, 0, data, bytes, NULL) : GT_OK;
}

/* Fills the fields that the chunk reads, or computes others from, and queues them. */
static gt_status send_fields(train *t, exec *e, slot *s, int chunk, uint64_t first)
{
    void *wanted[DATA_FIELDS] = { 0 };
    for (int f = 0; f < t->batch.fields; f++) {
        int reads = exec_buffer(e, t->batch.field[f].name) != NULL;
        for (int i = 0; i < t->derived_count; i++)
            reads |= t->derived[i].chunk == chunk && !strcmp(t->derived[i].d.source, t->batch.field[f].name);
        wanted[f] = reads ? s->field[f] : NULL;
    }
    gt_status st = t->batch.fill(&t->batch, t->running_at, first, t->micro_batch, wanted);
    for (int f = 0; !st && f < t->batch.fields; f++)
        if (wanted[f])
            st = send(t, e, t->batch.field[f].name, wanted[f], data_field_bytes(&t->batch.field[f], t->micro_batch));
    return st;
}

static gt_status send_derived(train *t, exec *e, slot *s, int chunk)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < t->derived_count; i++) {
        const graph_derived *d = &t->derived[i].d;
        if (t->derived[i].chunk != chunk)
            continue;
        for (int f = 0; f < t->batch.fields; f++)
            if (!strcmp(t->batch.field[f].name, d->source))
                graph_derive(stage_graph(t->stage, chunk), d, s->field[f], s->derived[i], t->scratch);
        for (int k = 0; !st && k < GRAPH_DERIVED_OUTPUTS; k++)
            st = send(t, e, d->name[k], s->derived[i][k], (size_t)d->count[k] * sizeof(int32_t));
    }
    return st;
}

/* Queues the inputs of one micro-batch of the replica from its slot. */
static gt_status send_inputs(void *context, exec *e, int chunk, int micro)
{
    train *t = context;
    slot *s = &t->slots[(t->running % DEPTH) * t->micros + (uint64_t)micro];
    const uint64_t first = t->running_first + (uint64_t)micro * t->micro_batch;
    gt_status st = send_fields(t, e, s, chunk, first);
    if (st)
        return st;
    s->random[0] = (uint32_t)t->o.seed;
    s->random[1] = (uint32_t)(t->o.seed >> 32);
    s->random[2] = (uint32_t)t->running;
    s->random[3] = (uint32_t)first;             /* dropout counts from the step's first sequence */
    st = send(t, e, "random", s->random, sizeof s->random);
    return st ? st : send_derived(t, e, s, chunk);
}

static void set_running(train *t, const flight *f)
{
    t->running = f->step;
    t->running_at = f->begin;
    t->running_first = f->first;
    t->running_rows = f->rows;
}

/* Of all sequences of the step that is queued, whichever rank computes them. */
gt_status train_mark_rows(void *context, const char *source, unsigned char *mark, int64_t rows)
{
    const train *t = context;
    int f = 0;
    while (f < t->batch.fields && strcmp(t->batch.field[f].name, source))
        f++;
    assert(f < t->batch.fields);
    void *wanted[DATA_FIELDS] = { 0 };
    const uint64_t all = t->running_rows, some = t->micro_batch ? t->micro_batch : 1;
    int32_t *ids = malloc(data_field_bytes(&t->batch.field[f], some));
    gt_status st = ids ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the %s of a step", source);
    wanted[f] = ids;
    for (uint64_t first = 0; !st && first < all; first += some) {
        const uint64_t count = all - first < some ? all - first : some;
        st = t->batch.fill(&t->batch, t->running_at, first, count, wanted);
        for (uint64_t i = 0; !st && i < count * t->batch.field[f].count; i++)
            if (ids[i] >= 0 && ids[i] < rows)
                mark[ids[i]] = 1;
    }
    free(ids);
    return st;
}

static gt_status parameters_wanted(void *context, int chunk, int until)
{
    return sync_wanted(((train *)context)->sync, chunk, until);
}

static gt_status gradients_ready(void *context, int chunk, int done, int last)
{
    return sync_ready(((train *)context)->sync, chunk, done, last);
}

/* A step from the end of the one before it, if it was queued by then, and within it the update. */
static void trace_step(train *t, const flight *f, uint64_t now)
{
    const uint64_t programs = stage_traced_until(t->stage, now);
    gt_span s = { .begin = f->start_ns > t->landed_ns ? f->start_ns : t->landed_ns,
                  .end = now,
                  .step = (int32_t)(f->step + 1),
                  .category = GT_TRACE_STEP,
                  .track = GT_TRACK_STEPS };
    t->landed_ns = now;
    snprintf(s.name, sizeof s.name, "step %llu", (unsigned long long)f->step + 1);
    gt_trace_put(&s);
    s.begin = f->update_ns > programs ? f->update_ns : programs;
    snprintf(s.name, sizeof s.name, "update");
    gt_trace_put(&s);
    gt_trace_counter("device memory", dev_memory_used(t->device));
}

/* On the completion thread, as soon as the device is done with a step. */
static gt_status note_landed(void *context, uint64_t now)
{
    flight *f = context;
    f->end_ns = now;
    if (gt_trace_on())
        trace_step(f->of, f, now);
    return GT_OK;
}

/* Waits for a queued step. When its update was is told to the stage, unless that is in the next step. */
static gt_status land(train *t, flight *f)
{
    const uint64_t ticket = f->ticket;
    f->ticket = 0;
    gt_status st = dev_completion_wait(t->completion, ticket);
    if (!st && ticket && f->update_ns && f->step + 1 == t->queued)
        stage_note(t->stage, PIPE_UPDATE, 0, f->update_ns, f->end_ns);
    return st;
}

void train_note_rounding(train_balance *b, const sync_totals *sum)
{
    for (int i = 0; i < 2; i++) {
        b->rounding[i] = sum->size[i] > 0.0 ? sqrt(sum->error[i] / sum->size[i]) : 0.0;
        b->rounding_most[i] = sum->most[i];
    }
}

/* Who computed how long. */
static train_balance balance_of(const train *t, double seconds)
{
    const sync_totals *each = sync_totals_each(t->sync);
    train_balance b = { 0 };
    for (int r = 0; each && r < t->ranks; r++) {
        t->busy[r] = each[r].busy - each[r].waits;
        if (t->busy[r] > b.slowest_busy) {
            b.slowest_busy = t->busy[r];
            b.slowest = r;
        }
    }
    if (!each)
        return b;
    b.sent = (uint64_t)sync_totals_of(t->sync)->sent;
    b.copied = (uint64_t)sync_totals_of(t->sync)->copied;
    b.held = (uint64_t)sync_totals_of(t->sync)->held;
    b.spared = (uint64_t)sync_totals_of(t->sync)->spared;
    b.mean_busy = sync_totals_of(t->sync)->busy / t->ranks;
    b.idle = seconds > 0.0 ? fmax(0.0, 1.0 - b.mean_busy / seconds) : 0.0;
    train_note_rounding(&b, sync_totals_of(t->sync));
    return b;
}

static void note_sums(train *t)
{
    uint64_t began, ended;
    for (int c = 0; c < stage_chunks(t->stage); c++)
        if (sync_when(t->sync, c, &began, &ended))
            stage_note(t->stage, PIPE_REDUCE, c, began, ended);
}

/* Wishes for a pause, of all ranks together, come to less than one for the end. */
double train_wants_stop(const train *t)
{
    if (t->stop || gt_stop_asked())
        return 1.0;
    return t->o.pause && t->o.pause() ? ldexp(1.0, -20) : 0.0;
}

/* What this rank adds to the totals of a step: its programs are over, and its gradients are summed. */
gt_status train_tell(void *context, uint64_t sent, sync_totals *mine)
{
    train *t = context;
    flight *f = t->updating;
    note_sums(t);
    gt_status st = stage_settle(t->stage);
    const stage_report report = stage_last(t->stage);
    if (t->exchange) {
        tensor_exchange_spent all;
        const gt_status counted = tensor_exchange_spent_of(t->exchange, &all);
        st = st ? st : counted;
        mine->waits = (double)(all.idle - t->exchanged.idle) * 1e-9;
        sent += all.bytes - t->exchanged.bytes;
        mine->copied += (double)(all.copied - t->exchanged.copied);
        t->exchanged = all;
    }
    f->seconds = (double)(gt_now_ns() - f->start_ns) * 1e-9;
    mine->stop = train_wants_stop(t);
    mine->stopped = stage_stopped(t->stage);
    mine->busy = report.busy;
    mine->seconds = f->seconds;
    mine->sent = (double)(report.sent + sent);
    mine->copied += (double)report.copied;
    for (int i = 0; i < 2; i++) {
        mine->most[i] = report.rounding[i].most;
        mine->error[i] = report.rounding[i].error;
        mine->size[i] = report.rounding[i].size;
    }
    f->mine = *mine;
    return st;
}

void train_note_stop(train *t, double stop)
{
    t->stopping |= stop > 0.0;
    t->stopping_for_good |= stop >= 1.0;
}

static gt_status update_now(void *context)
{
    train *t = context;
    flight *f = t->updating;
    if (f->apart && sync_meets(t->sync, f->step + 1))
        net_comm_busy(t->o.comm, NULL);
    const uint64_t before = sync_updates(t->sync);
    gt_status st = sync_update(t->sync, f->lr);
    t->half = st && !f->apart && sync_updates(t->sync) != before;
    if (f->apart) {
        t->updated = st ? t->updated : f->step + 1;
        f->update_ns = sync_update_began(t->sync);
        return st;
    }
    train_note_stop(t, sync_totals_of(t->sync)->stop);
    if (!st)
        t->updated = f->step + 1;
    if (st == GT_INTERRUPTED)
        return gt_fail(st, "stopped within step %llu", (unsigned long long)f->step + 1);
    f->update_ns = sync_update_began(t->sync);
    f->balance = balance_of(t, f->seconds);
    return st;
}

/* Queues a whole step, its update too unless `update` is 0. */
static gt_status run_stage(train *t, flight *f, int update)
{
    const stage_calls calls = {
        .context = t,
        .inputs = send_inputs,
        .gradients = gradients_ready,
        .wanted = parameters_wanted,
        .update = update ? update_now : NULL,
        .step = (int32_t)(f->step + 1),
        .finishes = update && f->apart
    };
    gt_activity a;
    set_running(t, f);
    t->updating = update ? f : NULL;
    gt_activity_begin(&a, "step", NULL, t->o.steps);
    gt_activity_set(&a, f->step + 1);
    gt_status st = stage_run(t->stage, &calls);
    gt_activity_end(&a);
    return st;
}

/* Whose sequences a step has: those of the replicas that take part, in their order. */
static void share_out(const train *t, flight *f)
{
    f->rows = f->first = f->own = 0;
    f->takes_part = 0;                  /* also of one that only serves */
    for (int r = 0; r < t->plan.replicas; r++) {
        const run_replica *at = &t->plan.replica[r];
        if (!sync_takes_part(t->sync, f->step + 1, r))
            continue;
        const uint64_t count = (uint64_t)at->micro_batches * (uint64_t)at->micro_batch;
        f->takes_part |= r == t->place.replica;
        f->first += r < t->place.replica ? count : 0;
        f->own += r == t->place.replica ? count : 0;
        f->rows += count;
    }
}

/* What the targets of a step weigh, which every rank works out for itself. */
static gt_status weigh(train *t, flight *f)
{
    data_total own = { 0 };
    share_out(t, f);
    gt_status st = data_batch_total(&t->batch, f->begin, 0, f->rows, &f->all);
    f->apart = sync_is_apart(t->sync, f->step + 1);
    if (!st && f->apart && f->own)
        st = data_batch_total(&t->batch, f->begin, f->first, f->own, &own);
    f->weights = f->apart ? own.weights : f->all.weights;
    optim_weigh(t->optim, f->weights);
    sync_step(t->sync, f->step + 1, f->weights, f->all.weights);
    return st;
}

/* A step that is other replicas'. */
static gt_status pass_step(train *t, flight *f)
{
    uint64_t sent;
    gt_status st = sync_pass(t->sync, &sent);
    f->mine = (sync_totals){ .stop = train_wants_stop(t), .sent = (double)sent };
    f->update_ns = 0;
    f->end_ns = gt_now_ns();
    t->updated = st ? t->updated : f->step + 1;
    return st;
}

static gt_status compute_step(train *t, flight *f)
{
    dev_event *event;
    gt_status st = run_stage(t, f, 1);
    if (!st)
        st = optim_state_read(t->optim, f->state, &event);
    return st ? st : dev_completion_put(t->completion, event, note_landed, f, &f->ticket);
}

/* Of a replica whose ranks share its samples one says which they are. */
static void tell_samples(const train *t, const flight *f)
{
    const uint64_t first = f->begin + f->first;
    if (f->own && (!t->holders || sync_holders_leads(t->holders)))
        gt_log(GT_LOG_DEBUG, "train", "formation %d rank %d of %d: step %llu trains on samples %llu to %llu",
               net_elastic_formation(), t->rank, t->ranks, (unsigned long long)f->step + 1, (unsigned long long)first,
               (unsigned long long)(first + f->own - 1));
}

static gt_status queue_step(train *t, uint64_t step)
{
    flight *f = &t->flights[step % FLIGHTS];
    const uint64_t start = gt_now_ns();
    assert(!f->ticket);
    f->step = step;
    f->of = t;
    f->start_ns = start;
    f->begin = loader_begin(&t->loader, t->samples);
    f->lr = optim_lr(&t->o.optim, step);
    t->best_before = t->best;
    f->balance = (train_balance){ 0 };
    gt_status st = weigh(t, f);
    tell_samples(t, f);
    if (f->apart)                       /* those who come to a meeting first wait for this rank */
        net_comm_busy(t->o.comm, "training apart");
    if (!st && t->clear)                /* what other ranks' sums left there */
        st = dev_run(t->clear, 0, -1);
    if (!st)
        st = f->takes_part ? compute_step(t, f) : pass_step(t, f);
    if (!st && !t->micros)              /* no forward of its own will want the new weights */
        st = sync_settle(t->sync);
    if (!st) {
        t->queued = step + 1;
        t->samples = f->begin + f->rows;
    }
    return st;
}

/* Finds what went wrong in a step, with its own inputs, if this rank has all of a replica. */
static gt_status explain_bad_step(train *t, const flight *f)
{
    char where[160] = "", last[128] = "there is no checkpoint yet";
    const int whole = t->plan.tensor == 1 && t->plan.replica[t->place.replica].stages == 1;
    gt_status st = sync_settle(t->sync);
    if (!st)
        st = dev_wait(t->device);
    set_running(t, f);
    for (uint64_t micro = 0; whole && !st && !where[0] && micro < t->micros; micro++) {
        st = send_inputs(t, stage_exec(t->stage, 0), 0, (int)micro);
        if (!st)
            st = dev_wait(t->device);
        if (!st)
            st = exec_find_bad(stage_exec(t->stage, 0), where, sizeof where);
    }
    if (st)
        return gt_fail_in(st, "step %llu is not finite; looking for the reason", (unsigned long long)f->step + 1);
    if (t->last_saved != UINT64_MAX)
        snprintf(last, sizeof last, "the last good checkpoint is 'step-%06llu'", (unsigned long long)t->last_saved);
    return gt_fail(GT_NUMERIC,
                   "step %llu: the %s is not finite; first bad: %s; %s; try a lower "
                   "--lr, more --warmup, or --clip",
                   (unsigned long long)f->step + 1, isfinite(f->state[OPTIM_LOSS_SUM]) ? "gradient" : "loss",
                   where[0] ? where : "the gradient's norm", last);
}

static double share_of(double all, double part)
{
    return all > 0.0 ? part / all : NAN;
}

void train_row_rounding(metrics_row *row, const train_balance *b)
{
    for (int i = 0; i < 2; i++) {
        row->rounding[i] = b->rounding[i];
        row->rounding_most[i] = b->rounding_most[i];
    }
}

void train_rate(const train *t, metrics_row *row, double tokens, double computed, double seconds)
{
    const double rate = computed / seconds * t->model.flops_per_token;
    row->step_ms = seconds * 1e3;
    row->tokens_per_s = tokens / seconds;
    row->mfu = share_of(t->peak, rate);
    row->gemm_share = share_of(t->gemm_rate, rate);
}

gt_status train_put_row(train *t, const train_hooks *hooks, const metrics_row *row)
{
    gt_status st = t->metrics ? metrics_put(t->metrics, row) : GT_OK;
    if (hooks && hooks->step)
        hooks->step(hooks->context, row);
    return st;
}

/* Waits for the oldest queued step and records it. */
static gt_status finish_step(train *t, const train_hooks *hooks)
{
    flight *f = &t->flights[t->done % FLIGHTS];
    gt_status st = land(t, f);
    if (st)
        return st;
    const uint64_t now = f->end_ns > t->last_end_ns ? f->end_ns : t->last_end_ns;
    const double seconds = (double)(now - t->last_end_ns) * 1e-9;
    t->last_end_ns = now;
    if (f->takes_part)
        t->last_seconds = seconds;
    else
        memcpy(f->state, t->flights[(t->done + FLIGHTS - 1) % FLIGHTS].state, sizeof f->state);
    const int empty = f->weights <= 0.0, skipped = f->state[OPTIM_SKIP] != 0.0f && !empty;
    if (skipped && t->o.precision != DTYPE_F16)
        return explain_bad_step(t, f);
    if (f->takes_part)
        t->skips = skipped ? t->skips + 1 : 0;
    if (t->skips >= SKIPS_IN_A_ROW)
        return gt_fail_in(explain_bad_step(t, f),
                          "%d steps in a row overflowed fp16, loss scale "
                          "is down to %g",
                          SKIPS_IN_A_ROW, (double)f->state[OPTIM_LOSS_SCALE]);
    t->done++;
    t->tokens += (uint64_t)(f->all.tokens + 0.5);
    metrics_row row = {
        .step = t->done,
        .tokens = t->tokens,
        .loss = (double)f->state[OPTIM_LOSS_SUM] / f->weights,
        .lr = f->lr,
        .grad_norm = (double)f->state[OPTIM_GRAD_NORM],
        .bubble = f->balance.idle,
        .copied = t->ranks > 1 ? (double)f->balance.copied : NAN,
        .skipped = skipped ? "fp16 overflow"
                   : empty ? "no target counts"
                           : NULL,
        .loss_scale = (double)f->state[OPTIM_LOSS_SCALE],
        .val = t->pending
    };
    train_rate(t, &row, f->all.tokens, (double)(f->rows * t->o.seq), seconds);
    t->pending.loss = NAN;
    if (!f->apart) {
        t->balance = f->balance;
        train_row_rounding(&row, &t->balance);
        return train_put_row(t, hooks, &row);
    }
    st = train_hold(t, f, &row);
    return st || !sync_meets(t->sync, t->done) ? st : train_tell_held(t, hooks);
}

/* Waits for all queued steps but the newest one, whose row a validation loss belongs to. */
static gt_status finish_until(train *t, uint64_t done, const train_hooks *hooks)
{
    gt_status st = GT_OK;
    while (!st && t->done < done)
        st = finish_step(t, hooks);
    return st;
}

static void announce(const train_hooks *hooks, const char *what, int done)
{
    if (hooks && hooks->phase)
        hooks->phase(hooks->context, what, done);
}

static gt_status save(train *t, const train_hooks *hooks)
{
    assert(t->done == t->queued);               /* t->samples is that of what is queued */
    const checkpoint_info info = {
        t->done, t->o.seed, t->tokens, { t->samples, t->o.seq, t->o.order, t->data.train->count, t->data_hash }, t->best
    };
    const checkpoint_ranks ranks = { .comm = t->o.comm, .mine = t->mine, .mine_state = t->mine_state };
    checkpoint_state states[CHECKPOINT_STATES];
    if (!t->o.run || t->last_saved == t->done)
        return GT_OK;
    announce(hooks, "saving", 0);
    gt_status st = sync_settle(t->sync);
    if (!st)
        st = sync_keep(t->sync);
    if (!st)
        st = checkpoint_save(t->o.run, &info, t->params, states, train_states(t, states), t->o.comm ? &ranks : NULL,
                             NULL);
    announce(hooks, "saving", 1);
    if (st) {
        char last[64] = "none";
        if (t->last_saved != UINT64_MAX)
            snprintf(last, sizeof last, "step-%06llu", (unsigned long long)t->last_saved);
        return gt_fail(st, "%s; the last whole checkpoint is %s", gt_message(), last);
    }
    t->last_saved = t->done;
    if (t->rank)
        return GT_OK;
    if (t->o.keep_best && t->best.step == t->done)
        st = checkpoint_mark_best(t->o.run, t->done);
    if (!st)
        st = checkpoint_prune(t->o.run, t->o.keep, t->done, t->o.keep_best ? t->best.step : 0);
    return st || !t->metrics ? st : metrics_draw(t->metrics);
}

/* Takes note of a validation; 1 if no loss was lower before. All ranks do, with the same numbers. */
static int note_validation(train *t, double loss)
{
    checkpoint_best *b = &t->best;
    if (isnan(loss))
        return 0;
    const int first = !b->step, lower = first || loss < b->loss;
    if (first || loss < b->reference - t->o.improvement) {
        b->reference = loss;
        b->waited = 0;
    } else {
        b->waited++;
    }
    if (lower) {
        b->loss = loss;
        b->step = t->queued;
    }
    return lower;
}

/* ---- samples ------------------------------------------------------------------------------------- */

/* Where ranks put their weights together for the one that writes texts. */
static char *weights_folder(const train *t)
{
    return gt_path_join(t->o.run, ".partial-weights");
}

gt_status train_remove_weights(const train *t)
{
    char *folder = weights_folder(t);
    gt_status st = folder ? gt_folder_remove(folder)
                          : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s'", t->o.run);
    free(folder);
    return st;
}

/* The weights as a checkpoint of all ranks: the newest, if it is of this step, or one without any state. */
static gt_status put_together(train *t, char **folder)
{
    char name[64];
    const checkpoint_info info = { .step = t->done, .seed = t->o.seed };
    const checkpoint_ranks ranks = { .comm = t->o.comm, .mine = t->mine, .mine_state = t->mine_state };
    const int saved = t->last_saved == t->done;
    char *run = saved ? strdup(t->o.run) : weights_folder(t);
    gt_status st = run ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s'", t->o.run);
    if (!st && !saved)
        st = checkpoint_save(run, &info, t->params, NULL, 0, &ranks, NULL);
    snprintf(name, sizeof name, "checkpoints/step-%06llu", (unsigned long long)t->done);
    *folder = st ? NULL : gt_path_join(run, name);
    if (!st && !*folder)
        st = gt_fail(GT_NO_MEMORY, "no memory for the path of '%s'", t->o.run);
    free(run);
    return st;
}

static gt_status sample(train *t, const train_hooks *hooks)
{
    char *folder = NULL;
    gt_status st = GT_OK;
    announce(hooks, "sampling", 0);
    if (t->o.comm)
        st = put_together(t, &folder);
    if (!st && hooks && hooks->sample)
        st = hooks->sample(hooks->context, t->done, folder);
    if (!st && folder && !t->rank)
        st = train_remove_weights(t);
    announce(hooks, "sampling", 1);
    free(folder);
    return st;
}

int train_falls_on(const train *t, uint64_t every, uint64_t step)
{
    uint64_t before = step - 1;         /* where ranks met last */
    if (!every || !step || !sync_meets(t->sync, step))
        return 0;
    while (before && !sync_meets(t->sync, before))
        before--;
    return step / every > before / every;
}

int train_due(void *context, uint64_t step)
{
    const train *t = context;
    const uint64_t every[] = { t->o.save_every, t->o.sample_every, t->evaluate ? t->o.eval_every : 0 };
    for (size_t i = 0; i < sizeof every / sizeof *every; i++)
        if (every[i] && step % every[i] == 0)
            return 1;
    return 0;
}

/* Ranks stop after the same step: when all know of it. */
static int stopping(train *t)
{
    if (!sync_is_together(t->sync))
        train_note_stop(t, train_wants_stop(t));
    return t->stopping;
}

/* Whether the host may be a step ahead: it need not where queueing takes no time beside the step, and
 * what is known of a long step should not have to wait for the next one. */
static int is_short(const train *t)
{
    return t->last_seconds > 0.0 && t->last_seconds < AHEAD_SECONDS;
}

/* run_steps() does that while it is still queued. */
int train_looks_at(const train *t, uint64_t step)
{
    return step == t->o.steps || train_falls_on(t, t->o.save_every, step) || train_falls_on(t, t->o.sample_every, step)
           || (t->evaluate && train_falls_on(t, t->o.eval_every, step));
}

/* How many steps may be under way when the next one is queued. All ranks come to a meeting in the same order:
 * before the next step. */
static uint64_t ahead(const train *t)
{
    const uint64_t step = t->queued;
    if (train_looks_at(t, step))
        return DEPTH - 1;
    return is_short(t) && !(sync_is_apart(t->sync, step) && sync_meets(t->sync, step)) ? DEPTH - 1 : 0;
}

/* A wish to stop that came in mid-step or in mid-evaluation: that is given up, and what is done is
 * kept. All ranks come here together. */
static gt_status give_up(train *t)
{
    t->stop = t->stopping = t->stopping_for_good = 1;
    gt_message_clear();
    return dev_wait(t->device);
}

/* Its time is no step's. */
static gt_status tune(train *t, const train_hooks *hooks)
{
    gt_status st = finish_until(t, t->queued, hooks);
    if (!st)
        st = train_tune_try(t);
    t->last_end_ns = gt_now_ns();
    return st;
}

static gt_status run_steps(train *t, const train_hooks *hooks)
{
    gt_status st = GT_OK;
    if (t->queued == t->done)
        t->last_end_ns = gt_now_ns();
    else if (t->queued > t->done + 1)           /* of an image: its place is the next step's */
        st = finish_until(t, t->queued - 1, hooks);
    while (!st && t->done < t->o.steps && !stopping(t) && !train_is_over_early(t)) {
        const uint64_t step = t->queued;        /* steps queued so far */
        const int last = step == t->o.steps;
        const int eval = t->evaluate && step > 0 && step > t->done
                         && (train_falls_on(t, t->o.eval_every, step) || (last && t->o.eval_every));
        const int saves = step > t->done && train_falls_on(t, t->o.save_every, step);
        const int samples = step > t->done && train_falls_on(t, t->o.sample_every, step);
        int best = 0;
        if (eval || saves || samples || last) {
            st = sync_settle(t->sync);
            if (!st && eval) {                         /* goes onto the row of the newest step */
                st = finish_until(t, step - 1, hooks);
                announce(hooks, "evaluating", 0);
                if (!st)                        /* so that its time is its own */
                    st = land(t, &t->flights[(step - 1) % FLIGHTS]);
                if (!st)
                    st = train_evaluate(t, &t->pending);
                if (st == GT_INTERRUPTED)
                    st = give_up(t);
                best = note_validation(t, t->pending.loss) && t->o.keep_best;
                announce(hooks, "evaluating", 1);
            }
            if (!st)
                st = finish_until(t, step, hooks);
            const int over = eval && train_is_over_early(t);
            if (!st && (saves || last || best || over))
                st = save(t, hooks);
            if (!st && samples && !stopping(t))
                st = sample(t, hooks);
            t->last_end_ns = gt_now_ns();       /* neither counts as step time */
            if (last || over)
                break;
        }
        if (!st && stopping(t))
            break;
        if (!st)
            st = train_image_keep(t);
        if (!st)
            st = queue_step(t, t->queued);
        if (st == GT_INTERRUPTED) {
            st = give_up(t);
            break;
        }
        if (!st)
            st = finish_until(t, t->queued - ahead(t), hooks);
        if (!st && train_tune_is_due(t))
            st = tune(t, hooks);
    }
    if (!st && stopping(t)) {
        if (!t->stopping_for_good)
            return gt_fail(GT_INTERRUPTED, "paused after step %llu", (unsigned long long)t->queued);
        st = finish_until(t, t->queued, hooks);
        if (!st)
            st = sync_settle(t->sync);
        if (!st && t->done)
            st = save(t, hooks);
        if (!st && !t->done)
            st = gt_fail(GT_INTERRUPTED, "stopped before the first of %llu steps was done",
                         (unsigned long long)t->o.steps);
        else if (!st && t->done < t->o.steps)
            st = gt_fail(GT_INTERRUPTED, "stopped after step %llu of %llu%s", (unsigned long long)t->done,
                         (unsigned long long)t->o.steps,
                         t->o.run ? "; a checkpoint is written, --resume goes on from it" : "");
    }
    return st;
}

gt_status train_run(train *t, const train_hooks *hooks)
{
    return train_end_together(t, run_steps(t, hooks));
}

void train_stop(train *t)
{
    t->stop = 1;
}

void train_keep(train *t)
{
    t->stop = t->stopping = t->stopping_for_good = 1;
}

int train_is_paused(const train *t)
{
    return t->stopping && !t->stopping_for_good;
}

gt_status train_load(train *t, uint64_t step)
{
    t->running = step;
    t->running_at = loader_step(&t->loader, step, 0);
    t->running_first = (uint64_t)t->place.first_sequence;
    t->running_rows = t->o.batch;
    return send_inputs(t, stage_exec(t->stage, 0), 0, 0);
}

gt_status train_once(train *t, uint64_t step, int update, double *loss, double *grad_norm)
{
    float state[OPTIM_STATE_FLOATS] = { 0 };
    flight f = { .step = step,
                 .begin = loader_step(&t->loader, step, 0),
                 .lr = optim_lr(&t->o.optim, step),
                 .start_ns = gt_now_ns() };
    const int updates = update || sync_is_together(t->sync);
    dev_event *event = NULL;
    gt_status st = weigh(t, &f);
    if (!st)
        st = run_stage(t, &f, updates);
    if (!st && updates)
        st = sync_settle(t->sync);
    if (!st && updates) {
        st = optim_state_read(t->optim, state, &event);
        if (!st)
            st = dev_event_wait(event);
    } else if (!st) {
        st = dev_read(t->device, optim_loss_sum(t->optim), 0, &state[OPTIM_LOSS_SUM], 4);
    }
    *loss = (double)state[OPTIM_LOSS_SUM] / f.weights;
    *grad_norm = (double)state[OPTIM_GRAD_NORM];
    return st;
}

uint64_t train_evaluated_rows(const train *t, uint64_t *all)
{
    *all = 0;
    return t->evaluate ? evaluate_rows(t->evaluate, all) : 0;
}

gt_status train_evaluate(train *t, evaluate_result *out)
{
    if (!t->evaluate)
        return gt_fail(GT_MISUSE, "cannot evaluate: there is no validation split");
    return evaluate_run(t->evaluate, out);
}
