/* host/train/train.c - the step loop.
 *
 *   host     load s+1 | queue s+1 | wait for s, record s | load s+2 | queue s+2 | ...
 *   device   ........ step s ........ | ........ step s+1 ........ |
 *
 * A step's inputs live in a ring of host slots, two steps deep: a slot is written again
 * only after the step that used it has been waited for. What the host learns of a step
 * (loss, norm, whether it was skipped) it reads from the optimizer's scalars one step late,
 * which is why the device itself must refuse to apply a bad gradient (optim.h).         */
#include "host/train/train.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/train/evaluate.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define DEPTH 2                         /* steps in flight */
#define SKIPS_IN_A_ROW 50               /* fp16: more than the loss scale can explain */

/* One micro-batch's inputs on the host. */
typedef struct slot {
    int32_t *x, *y, *order, *starts;
    uint32_t random[4];
} slot;

/* A step that has been queued and not yet waited for. */
typedef struct flight {
    uint64_t step;                      /* its index: 0, 1, ... */
    float state[OPTIM_STATE_FLOATS];
    dev_event *event;                   /* NULL once it has landed */
    uint64_t end_ns;                    /* when it was seen to have landed */
    double lr;
} flight;

struct train {
    dev_device *device;
    train_options o;
    train_model model;
    train_data data;
    kernel_set *kernels;
    gemm_context *gemm;
    graph *graph;
    params *params;
    optim *optim;
    exec_arena *arena;
    exec *exec;
    evaluate *evaluate;                 /* NULL without a validation split */
    loader loader;
    uint64_t micros;                    /* micro-batches a step, of all replicas */
    uint64_t first, share;              /* this replica's */
    int stopping;                       /* agreed by all replicas */
    int vocab;
    slot *slots;                        /* DEPTH * micros */
    int32_t *scratch;                   /* vocab + 1, for sorting tokens */
    flight flights[DEPTH];
    uint64_t done, queued;              /* steps recorded; steps queued */
    uint64_t last_saved;                /* step of the newest checkpoint, UINT64_MAX: none */
    uint64_t last_end_ns;
    uint64_t skips;                     /* in a row */
    double pending_val;                 /* loss to put on the next recorded row, NaN: none */
    metrics *metrics;
    int lock;                           /* the run's folder, held open and locked; -1: none */
    volatile sig_atomic_t stop;
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot train: out of memory");
}

static gt_status check_options(const train_options *o)
{
    if (!o->batch || !o->seq)
        return gt_fail(GT_MISUSE, "batch and sequence length must be at least 1");
    if (o->batch > INT32_MAX || o->seq > INT32_MAX || o->batch * o->seq > (1u << 30))
        return gt_fail(GT_MISUSE, "a step of %llu sequences of %llu tokens is too large",
                       (unsigned long long)o->batch, (unsigned long long)o->seq);
    if (o->micro_batch && o->batch % o->micro_batch)
        return gt_fail(GT_MISUSE, "batch %llu is not a multiple of micro-batch %llu",
                       (unsigned long long)o->batch, (unsigned long long)o->micro_batch);
    return optim_config_check(&o->optim);
}

static gt_status make_slots(train *t)
{
    const size_t count = (size_t)(DEPTH * t->micros);
    const size_t n = (size_t)(t->o.micro_batch * t->o.seq);
    t->slots = calloc(count, sizeof *t->slots);
    t->scratch = malloc(((size_t)t->vocab + 1) * sizeof *t->scratch);
    if (!t->slots || !t->scratch)
        return no_memory();
    for (size_t i = 0; i < count; i++) {
        slot *s = &t->slots[i];
        s->x = malloc(n * sizeof *s->x);
        s->y = malloc(n * sizeof *s->y);
        s->order = malloc(n * sizeof *s->order);
        s->starts = malloc((n + 2) * sizeof *s->starts);
        if (!s->x || !s->y || !s->order || !s->starts)
            return no_memory();
    }
    return GT_OK;
}

static gt_status make_graph(train *t)
{
    gt_status st = graph_create(&t->graph, t->o.precision, (int)t->o.micro_batch, (int)t->o.seq);
    return st ? st : t->model.build(t->graph, t->model.config, 1, t->o.recompute);
}

/* Places the training graph and the evaluation's in one arena: they never run at once. */
static gt_status make_execs(train *t)
{
    const exec_binding bindings[] = { { "grad_scale", optim_grad_scale(t->optim) },
                                      { "loss_sum", optim_loss_sum(t->optim) }, { NULL, NULL } };
    exec_options o = { .device = t->device, .kernels = t->kernels, .gemm = t->gemm,
                       .params = t->params, .arena = t->arena, .bindings = bindings };
    gt_status st = exec_create(&t->exec, t->graph, &o);
    if (!st && t->data.val) {
        evaluate_options e = { .place = o, .split = t->data.val, .batch = t->o.micro_batch,
                               .seq = t->o.seq, .batches = t->o.eval_batches };
        e.place.bindings = NULL;
        st = evaluate_create(&t->evaluate, t->model.build, t->model.config, t->o.precision, &e);
    }
    if (!st)
        st = exec_ready(t->exec);
    return st || !t->evaluate ? st : evaluate_ready(t->evaluate);
}

static char *choices_path(const train *t)
{
    char name[32] = "gemm.txt";
    /* Devices may differ, and so may their engines. Rank 0 tidies the run's folder, not this one. */
    if (t->o.rank)
        snprintf(name, sizeof name, "ranks/gemm-%d.txt", t->o.rank);
    return t->o.run ? gt_path_join(t->o.run, name) : NULL;
}

/* A resumed run multiplies with the engines it began with, or its sums would differ. */
static gt_status load_choices(train *t)
{
    char *path = choices_path(t);
    if (t->o.run && !path)
        return no_memory();
    if (path && t->o.resume)
        gemm_choices_load(t->gemm, path);
    free(path);
    return GT_OK;
}

/* The parameters' first values: a checkpoint's, another model's, or random. */
static gt_status fill_params(train *t)
{
    checkpoint_info info;
    char *path = NULL;
    gt_status st = GT_OK;
    if (t->o.resume && t->o.run) {
        st = checkpoint_find(&path, &info, t->o.run);
        if (st == GT_NOT_FOUND) {       /* killed before its first checkpoint: start anew */
            gt_message_clear();
            st = GT_OK;
        }
        if (!st && path && info.seed != t->o.seed)
            st = gt_fail(GT_MISMATCH, "cannot resume '%s': it was trained with seed %llu, not %llu",
                         path, (unsigned long long)info.seed, (unsigned long long)t->o.seed);
        if (!st && path)
            st = checkpoint_check_model(path, t->graph);
        if (!st && path)
            st = checkpoint_load(path, t->params, t->optim);
        if (!st && path) {
            t->done = t->queued = info.step;
            t->last_saved = info.step;
        }
    }
    if (!st && !path)
        st = t->model.fill ? t->model.fill(t->model.config, t->params, t->model.fill_context)
                           : params_init(t->params, t->o.seed);
    if (!st)
        st = params_refresh(t->params, t->kernels);
    free(path);
    return st;
}

/* Two processes in one run would undo each other's files. The lock goes when the process
 * does; where the file system has no locks, nothing is locked. */
static gt_status lock_run(train *t)
{
    t->lock = open(t->o.run, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock >= 0 && flock(t->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return gt_fail(GT_MISUSE, "another process is training in '%s'; wait for it, or name "
                       "another folder", t->o.run);
    return GT_OK;
}

static gt_status open_run(train *t)
{
    if (!t->o.run)
        return GT_OK;
    char *path = choices_path(t);
    const int writes = t->o.rank == 0;
    char *ranks = path && !writes ? gt_path_join(t->o.run, "ranks") : NULL;
    gt_status st = path ? gt_folder_make(ranks ? ranks : t->o.run) : no_memory();
    free(ranks);
    if (!st && writes)
        st = lock_run(t);
    if (!st && writes)
        st = gt_folder_tidy(t->o.run);
    if (!st)
        st = gemm_choices_save(t->gemm, path);
    if (!st && writes)
        st = checkpoint_prune(t->o.run, 0, 0);
    free(path);
    return st || !writes ? st : metrics_open(&t->metrics, t->o.run, t->done);
}

gt_status train_create(train **out, dev_device *d, const train_model *m, const train_data *data,
                       const train_options *o)
{
    *out = NULL;
    gt_status st = check_options(o);
    if (st)
        return st;
    train *t = calloc(1, sizeof *t);
    if (!t)
        return no_memory();
    t->device = d;
    t->o = *o;
    t->model = *m;
    t->data = *data;
    t->last_saved = UINT64_MAX;
    t->lock = -1;
    t->pending_val = NAN;
    if (!t->o.micro_batch)
        t->o.micro_batch = t->o.batch;
    t->micros = t->share = t->o.batch / t->o.micro_batch;
    t->o.optim.steps = t->o.steps;

    st = loader_open(&t->loader, data->train, "training", o->order, o->batch, o->seq, o->seed);
    if (!st)
        st = make_graph(t);
    if (!st)
        st = kernel_set_create(&t->kernels, d, t->o.precision);
    if (!st)
        st = gemm_context_create(&t->gemm, d, o->gemm);
    if (!st)
        st = load_choices(t);
    if (!st)
        st = params_create(&t->params, d, t->graph, 1);
    if (!st)
        st = optim_create(&t->optim, d, t->kernels, t->params, &t->o.optim,
                          (double)(o->batch * o->seq));
    if (!st)
        st = exec_arena_create(&t->arena, d);
    if (!st)
        st = make_execs(t);
    if (!st) {
        t->vocab = graph_vocabulary(t->graph);
        st = make_slots(t);
    }
    if (!st)
        st = fill_params(t);
    if (!st)
        st = open_run(t);
    if (st) {
        char why[4096];
        snprintf(why, sizeof why, "%s", gt_message());
        train_release(t);
        return gt_fail(st, "%s", why);
    }
    *out = t;
    return GT_OK;
}

void train_release(train *t)
{
    if (!t)
        return;
    if (dev_wait(t->device))
        gt_message_clear();
    for (int i = 0; i < DEPTH; i++)
        dev_event_wait(t->flights[i].event);
    if (metrics_close(t->metrics))
        gt_log(GT_LOG_WARN, "train", "%s", gt_message());
    for (size_t i = 0; t->slots && i < (size_t)(DEPTH * t->micros); i++) {
        free(t->slots[i].x);
        free(t->slots[i].y);
        free(t->slots[i].order);
        free(t->slots[i].starts);
    }
    free(t->slots);
    free(t->scratch);
    exec_release(t->exec);
    evaluate_release(t->evaluate);
    exec_arena_release(t->arena);
    optim_release(t->optim);
    params_release(t->params);
    gemm_context_release(t->gemm);
    kernel_set_release(t->kernels);
    graph_release(t->graph);
    if (t->lock >= 0)
        close(t->lock);
    free(t);
}

/* ---- one step ------------------------------------------------------------------------------- */

static gt_status send(train *t, const char *name, const void *data, size_t bytes)
{
    dev_buffer *b = exec_buffer(t->exec, name);
    return b ? dev_write_start(t->device, b, 0, data, bytes, NULL) : GT_OK;
}

/* Queues the inputs of one micro-batch from its slot. */
static gt_status send_inputs(train *t, slot *s, uint64_t step, uint64_t micro)
{
    const int n = (int)(t->o.micro_batch * t->o.seq);
    const size_t bytes = (size_t)n * sizeof(int32_t);
    gt_status st = loader_read(&t->loader, step, micro * t->o.micro_batch, t->o.micro_batch, s->x,
                               s->y);
    for (int i = 0; !st && i < n; i++)
        if (t->vocab && s->x[i] >= t->vocab)
            st = gt_fail(GT_MISMATCH, "training data holds token %d, the model has %d; was it "
                         "tokenized for another model?", s->x[i], t->vocab);
    if (st)
        return st;
    s->random[0] = (uint32_t)t->o.seed;
    s->random[1] = (uint32_t)(t->o.seed >> 32);
    s->random[2] = (uint32_t)step;
    s->random[3] = (uint32_t)micro;
    st = send(t, "tokens", s->x, bytes);
    if (!st)
        st = send(t, "targets", s->y, bytes);
    if (!st)
        st = send(t, "random", s->random, sizeof s->random);
    if (!st && t->vocab) {
        kernel_embed_sort(s->x, n, t->vocab, s->order, s->starts, t->scratch);
        st = send(t, "embed_order", s->order, bytes);
        if (!st)
            st = send(t, "embed_starts", s->starts, bytes + 2 * sizeof(int32_t));
    }
    return st;
}

/* Queues forward and backward of a whole step. */
static gt_status queue_gradients(train *t, uint64_t step)
{
    gt_status st = GT_OK;
    for (uint64_t micro = 0; !st && micro < t->share; micro++) {
        slot *s = &t->slots[(step % DEPTH) * t->micros + micro];
        st = send_inputs(t, s, step, t->first + micro);
        if (!st)
            st = exec_add(t->exec, micro > 0);
        if (!st)
            st = exec_run(t->exec, EXEC_FORWARD);
        if (!st)
            st = exec_run(t->exec, EXEC_BACKWARD);
    }
    return st;
}

/* Waits for a queued step and notes the time. */
static gt_status land(flight *f)
{
    if (!f->event)
        return GT_OK;
    gt_status st = dev_event_wait(f->event);
    f->event = NULL;
    f->end_ns = gt_now_ns();
    return st;
}

static gt_status queue_step(train *t, uint64_t step)
{
    flight *f = &t->flights[step % DEPTH];
    assert(!f->event);
    f->step = step;
    f->lr = optim_lr(&t->o.optim, step);
    gt_status st = queue_gradients(t, step);
    if (!st && t->o.sum) {
        int stop = t->stop;
        st = land(&t->flights[(step + DEPTH - 1) % DEPTH]);     /* the sum waits for it anyway */
        if (!st)
            st = t->o.sum(t->o.sum_context, t, &stop);
        t->stopping |= stop;
    }
    if (!st)
        st = optim_step(t->optim, f->lr);
    if (!st)
        st = optim_state_read(t->optim, f->state, &f->event);
    if (!st)
        t->queued = step + 1;
    return st;
}

/* Finds what went wrong in a step, with its own inputs. */
static gt_status explain_bad_step(train *t, const flight *f)
{
    char where[160] = "", last[128] = "there is no checkpoint yet";
    gt_status st = dev_wait(t->device);
    for (uint64_t micro = 0; !st && !where[0] && micro < t->share; micro++) {
        st = send_inputs(t, &t->slots[(f->step % DEPTH) * t->micros + micro], f->step,
                         t->first + micro);
        if (!st)
            st = dev_wait(t->device);
        if (!st)
            st = exec_find_bad(t->exec, where, sizeof where);
    }
    if (st)
        return gt_fail_in(st, "step %llu is not finite; looking for the reason",
                          (unsigned long long)f->step + 1);
    if (t->last_saved != UINT64_MAX)
        snprintf(last, sizeof last, "the last good checkpoint is 'step-%06llu'",
                 (unsigned long long)t->last_saved);
    return gt_fail(GT_NUMERIC, "step %llu: the %s is not finite; first bad: %s; %s; try a lower "
                   "--lr, more --warmup, or --clip", (unsigned long long)f->step + 1,
                   isfinite(f->state[OPTIM_LOSS_SUM]) ? "gradient" : "loss",
                   where[0] ? where : "the gradient's norm", last);
}

/* Waits for the oldest queued step and records it. */
static gt_status finish_step(train *t, const train_hooks *hooks)
{
    flight *f = &t->flights[t->done % DEPTH];
    gt_status st = land(f);
    if (st)
        return st;
    const uint64_t now = f->end_ns;
    const double tokens = (double)(t->o.batch * t->o.seq);
    const double seconds = (double)(now - t->last_end_ns) * 1e-9;
    t->last_end_ns = now;
    const int skipped = f->state[OPTIM_SKIP] != 0.0f;
    if (skipped && t->o.precision != DTYPE_F16)
        return explain_bad_step(t, f);
    t->skips = skipped ? t->skips + 1 : 0;
    if (t->skips >= SKIPS_IN_A_ROW)
        return gt_fail_in(explain_bad_step(t, f), "%d steps in a row overflowed fp16, loss scale "
                          "is down to %g", SKIPS_IN_A_ROW, (double)f->state[OPTIM_LOSS_SCALE]);
    t->done++;
    metrics_row row = {
        .step = t->done, .tokens = t->done * t->o.batch * t->o.seq,
        .loss = (double)f->state[OPTIM_LOSS_SUM] / tokens, .lr = f->lr,
        .grad_norm = (double)f->state[OPTIM_GRAD_NORM], .tokens_per_s = tokens / seconds,
        .step_ms = seconds * 1e3, .bubble = 0.0, .skipped = skipped,
        .loss_scale = (double)f->state[OPTIM_LOSS_SCALE], .val_loss = t->pending_val,
        .mfu = t->o.peak_flops > 0.0
                   ? tokens / seconds * t->model.flops_per_token / t->o.peak_flops : NAN };
    t->pending_val = NAN;
    if (t->metrics)
        st = metrics_put(t->metrics, &row);
    if (hooks && hooks->step)
        hooks->step(hooks->context, &row);
    return st;
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
    checkpoint_info info = { t->done, t->o.seed, t->done * t->o.batch * t->o.seq };
    if (!t->o.run || t->o.rank || t->last_saved == t->done)
        return GT_OK;
    announce(hooks, "saving", 0);
    gt_status st = checkpoint_save(t->o.run, &info, t->params, t->optim, NULL, NULL);
    announce(hooks, "saving", 1);
    if (st) {
        char last[64] = "none";
        if (t->last_saved != UINT64_MAX)
            snprintf(last, sizeof last, "step-%06llu", (unsigned long long)t->last_saved);
        return gt_fail(st, "%s; the last whole checkpoint is %s", gt_message(), last);
    }
    t->last_saved = t->done;
    st = checkpoint_prune(t->o.run, t->o.keep, t->done);
    return st || !t->metrics ? st : metrics_draw(t->metrics);
}

static int falls_on(uint64_t every, uint64_t step)
{
    return every && step % every == 0;
}

/* Replicas stop after the same step: when all know of it. */
static int stopping(const train *t)
{
    return t->o.sum ? t->stopping : t->stop;
}

gt_status train_run(train *t, const train_hooks *hooks)
{
    gt_status st = GT_OK;
    t->last_end_ns = gt_now_ns();
    while (!st && t->done < t->o.steps && !stopping(t)) {
        const uint64_t step = t->queued;        /* steps queued so far */
        const int last = step == t->o.steps;
        const int eval = t->evaluate && step > 0 && step > t->done
                         && (falls_on(t->o.eval_every, step) || (last && t->o.eval_every));
        const int saves = step > t->done && falls_on(t->o.save_every, step);
        if (eval || saves || last) {
            if (eval) {                         /* goes onto the row of the newest step */
                st = finish_until(t, step - 1, hooks);
                announce(hooks, "evaluating", 0);
                double loss = NAN;
                if (!st)                        /* so that its time is its own */
                    st = land(&t->flights[(step - 1) % DEPTH]);
                if (!st)
                    st = train_evaluate(t, &loss, NULL);
                t->pending_val = loss;
                announce(hooks, "evaluating", 1);
            }
            if (!st)
                st = finish_until(t, step, hooks);
            if (!st && (saves || last))
                st = save(t, hooks);
            t->last_end_ns = gt_now_ns();       /* neither counts as step time */
            if (last)
                break;
        }
        if (!st)
            st = queue_step(t, t->queued);
        if (!st && t->queued - t->done == DEPTH)
            st = finish_step(t, hooks);
    }
    if (!st && stopping(t)) {
        st = finish_until(t, t->queued, hooks);
        if (!st)
            st = save(t, hooks);
        if (!st && t->done < t->o.steps)
            st = gt_fail(GT_INTERRUPTED, "stopped after step %llu of %llu%s",
                         (unsigned long long)t->done, (unsigned long long)t->o.steps,
                         t->o.run ? "; a checkpoint is written, --resume goes on from it" : "");
    }
    return st;
}

void train_stop(train *t)
{
    t->stop = 1;
}

gt_status train_once(train *t, uint64_t step, int update, double *loss, double *grad_norm)
{
    float state[OPTIM_STATE_FLOATS] = { 0 };
    dev_event *event = NULL;
    gt_status st = queue_gradients(t, step);
    if (!st && update) {
        st = optim_step(t->optim, optim_lr(&t->o.optim, step));
        if (!st)
            st = optim_state_read(t->optim, state, &event);
        if (!st)
            st = dev_event_wait(event);
    } else if (!st) {
        st = dev_read(t->device, optim_loss_sum(t->optim), 0, &state[OPTIM_LOSS_SUM], 4);
    }
    *loss = (double)state[OPTIM_LOSS_SUM] / (double)(t->o.batch * t->o.seq);
    *grad_norm = (double)state[OPTIM_GRAD_NORM];
    return st;
}

gt_status train_set_share(train *t, uint64_t first, uint64_t count)
{
    if (!count || count > t->micros || first > t->micros - count)
        return gt_fail(GT_MISUSE, "micro-batches %llu to %llu are not among a step's %llu",
                       (unsigned long long)first, (unsigned long long)(first + count),
                       (unsigned long long)t->micros);
    t->first = first;
    t->share = count;
    return GT_OK;
}

uint64_t train_micro_batches(const train *t)
{
    return t->micros;
}

gt_status train_time_micro_batch(train *t, double *seconds)
{
    const uint64_t first = t->first, share = t->share;
    gt_status st = GT_OK;
    t->first = 0;
    t->share = 1;
    for (int i = 0; !st && i < 3; i++) {        /* the first compiles and warms up */
        const uint64_t start = gt_now_ns();
        st = queue_gradients(t, 0);
        if (!st)
            st = dev_wait(t->device);
        const double took = (double)(gt_now_ns() - start) * 1e-9;
        if (i == 1 || (i == 2 && took < *seconds))
            *seconds = took;
    }
    t->first = first;
    t->share = share;
    return st;
}

gt_status train_evaluate(train *t, double *loss, uint64_t *tokens)
{
    if (!t->evaluate)
        return gt_fail(GT_MISUSE, "cannot evaluate: there is no validation split");
    return evaluate_run(t->evaluate, loss, tokens);
}

uint64_t train_steps_done(const train *t)
{
    return t->done;
}

params *train_params(train *t)
{
    return t->params;
}

optim *train_optim(train *t)
{
    return t->optim;
}

exec *train_exec(train *t)
{
    return t->exec;
}

train_memory train_memory_of(const train *t)
{
    train_memory m = { 0 };
    for (int i = 0; i < params_segments(t->params); i++) {
        const params_segment *s = params_segment_at(t->params, i);
        m.parameters += dev_buffer_bytes(s->master);
        m.gradients += dev_buffer_bytes(s->grad);
        m.copies += s->copy ? dev_buffer_bytes(s->copy) : 0;
        m.moments += (uint64_t)optim_moments(t->optim) * dev_buffer_bytes(s->master);
    }
    m.activations = exec_arena_bytes(t->arena);
    m.total = dev_memory_used(t->device);
    m.inputs = m.total - m.parameters - m.gradients - m.copies - m.moments - m.activations;
    return m;
}
