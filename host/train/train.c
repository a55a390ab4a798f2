/* SPDX-License-Identifier: MIT */
/* host/train/train.c - makes all that a step needs, and takes it apart again.
 *
 *   plan ──► stage graphs ──► holders ──► parameters ──► optimizer ──► memory, launch lists
 *                             (several ranks: who sums what)          ──► gradients' buckets
 */
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/sync/traffic.h"
#include "host/train/checkpoint_private.h"
#include "host/train/feed.h"
#include "host/train/tensor_sum.h"
#include "host/train/train_private.h"
#include "net/job/elastic.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot train: no memory for the lists of parameters and steps");
}

static int changes_between(const stage_forms *f)
{
    return f->count > 1 || (f->count && f->kind[0] != WIRE_AS_IT_IS);
}

gt_status train_options_check(const train_options *o)
{
    if (!o->batch || !o->seq)
        return gt_fail(GT_MISUSE, "batch and sequence length must be at least 1");
    if (o->batch > INT32_MAX || o->seq > INT32_MAX || o->batch * o->seq > (1u << 30))
        return gt_fail(GT_MISUSE, "a step of %llu sequences of %llu tokens is too large", (unsigned long long)o->batch,
                       (unsigned long long)o->seq);
    if (o->micro_batch && o->batch % o->micro_batch)
        return gt_fail(GT_MISUSE, "batch %llu is not a multiple of micro-batch %llu", (unsigned long long)o->batch,
                       (unsigned long long)o->micro_batch);
    if (o->steps && o->optim.warmup > o->steps)
        return gt_fail(GT_MISUSE,
                       "a warm-up of %llu steps is longer than the run of %llu; lower --warmup or "
                       "raise --steps",
                       (unsigned long long)o->optim.warmup, (unsigned long long)o->steps);
    stage_forms between = o->between;
    gt_status st = changes_between(&between)
                       ? stage_forms_narrow(&between, between.count > 1 ? "auto" : wire_kind_name(between.kind[0]),
                                            o->precision)
                       : GT_OK;
    if (!st)
        st = compress_check(&o->compress, &o->optim);
    for (int i = 0; !st && i < o->candidates.count; i++)
        st = compress_check_candidate(&o->candidates.of[i], &o->optim);
    return st ? st : optim_config_check(&o->optim);
}

/* All inputs of this stage's chunks that are computed from fields. 1: no memory. */
static int list_derived(train *t)
{
    int64_t scratch = 0;
    int n = 0;
    for (int c = 0; c < stage_chunks(t->stage); c++)
        n += graph_derived_count(stage_graph(t->stage, c));
    t->derived = calloc((size_t)n + 1, sizeof *t->derived);
    for (int c = 0; t->derived && c < stage_chunks(t->stage); c++)
        for (int i = 0; i < graph_derived_count(stage_graph(t->stage, c)); i++) {
            chunk_derived *at = &t->derived[t->derived_count++];
            *at = (chunk_derived){ c, graph_derived_at(stage_graph(t->stage, c), i) };
            scratch = at->d.scratch > scratch ? at->d.scratch : scratch;
        }
    t->scratch = malloc(((size_t)scratch + 1) * sizeof *t->scratch);
    return !t->derived || !t->scratch;
}

/* 1: no memory. */
static int make_slot(const train *t, slot *s)
{
    int missing = 0;
    for (int f = 0; f < t->batch.fields; f++) {
        s->field[f] = malloc(data_field_bytes(&t->batch.field[f], t->micro_batch));
        missing |= !s->field[f];
    }
    s->derived = calloc((size_t)t->derived_count + 1, sizeof *s->derived);
    for (int i = 0; s->derived && i < t->derived_count; i++)
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++) {
            s->derived[i][k] = malloc((size_t)t->derived[i].d.count[k] * sizeof *s->derived[i][k]);
            missing |= !s->derived[i][k];
        }
    return missing || !s->derived;
}

static void release_slot(const train *t, slot *s)
{
    for (int f = 0; f < DATA_FIELDS; f++)
        free(s->field[f]);
    for (int i = 0; s->derived && i < t->derived_count; i++)
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++)
            free(s->derived[i][k]);
    free(s->derived);
}

static gt_status make_slots(train *t)
{
    const size_t count = (size_t)(DEPTH * t->micros);
    t->slots = calloc(count + 1, sizeof *t->slots);
    if (!t->slots || list_derived(t))
        return gt_fail(GT_NO_MEMORY, "cannot train: no memory for the inputs of a step");
    for (size_t i = 0; i < count; i++)
        if (make_slot(t, &t->slots[i]))
            return gt_fail(GT_NO_MEMORY, "cannot train: no memory for the inputs of %llu micro-batches",
                           (unsigned long long)count);
    return GT_OK;
}

/* The plan, and where this rank stands in it. */
static gt_status settle_plan(train *t)
{
    const int units = t->model.units ? t->model.units : 1;
    gt_status st = t->o.plan ? run_plan_copy(&t->plan, t->o.plan)
                             : run_plan_single(&t->plan, units, (int)t->o.batch, (int)t->o.micro_batch, t->o.recompute);
    if (!st)
        st = run_plan_check(&t->plan);
    if (!st && (t->plan.ranks != t->ranks || t->plan.units != units || (uint64_t)t->plan.batch != t->o.batch))
        st = gt_fail(GT_MISMATCH,
                     "the plan is for %d ranks, %d units and batches of %d; there are %d, "
                     "%d and %llu",
                     t->plan.ranks, t->plan.units, t->plan.batch, t->ranks, units, (unsigned long long)t->o.batch);
    int most = 1;
    for (int i = 0; !st && i < t->plan.replicas; i++)
        most = t->plan.replica[i].stages > most ? t->plan.replica[i].stages : most;
    if (!st && t->ranks > 1 && most == 1 && changes_between(&t->o.between))
        st = gt_fail(GT_MISUSE,
                     "no replica of the plan has stages that could send to each other; leave out "
                     "--compress-stages %s, or ask for --stages 2",
                     t->o.between.count > 1 ? "auto" : wire_kind_name(t->o.between.kind[0]));
    if (st)
        return st;
    t->place = run_plan_place(&t->plan, t->rank);
    t->mode = t->o.comm ? sync_mode_with(sync_mode_find(t->plan.sync), &t->o.compress, t->plan.replicas)
                        : sync_mode_alone();
    t->micros = (uint64_t)t->plan.replica[t->place.replica].micro_batches;
    t->micro_batch = (uint64_t)t->plan.replica[t->place.replica].micro_batch;
    return GT_OK;
}

static gt_status join_tensor_group(train *t)
{
    const int width = t->plan.tensor;
    const run_replica *r = &t->plan.replica[t->place.replica];
    if (width < 2)
        return GT_OK;
    gt_status st = net_group_create(&t->tensor_group, t->o.comm, &r->rank[t->place.stage * width], width);
    if (!st)
        st = tensor_exchange_create(&t->exchange, t->tensor_group, t->device, t->completion);
    return st ? st : tensor_sum_create(&t->sum, t->tensor_group, t->device);
}

static stage_model train_stage_model(const train *t)
{
    const wire_kind all = t->o.between.count == 1 ? t->o.between.kind[0] : WIRE_AS_IT_IS;
    return (stage_model){ t->model.config, t->model.build, t->o.precision, (int)t->o.seq, all };
}

/* Graphs, and from them who holds what. */
static gt_status make_stage(train *t)
{
    const stage_model m = train_stage_model(t);
    const graph *graphs[PIPE_MOST_CHUNKS];
    params_grouping how = { 0 };
    gt_status st = stage_build(&t->stage, &t->plan, t->rank, t->o.comm, &m, 1);
    const int chunks = st ? 0 : stage_chunks(t->stage);
    for (int c = 0; c < chunks; c++)
        graphs[c] = stage_graph(t->stage, c);
    if (!st && t->o.comm) {
        st = sync_holders_find(&t->holders, t->o.comm, t->device, graphs, chunks, t->place.replica);
        if (!st)
            st = sync_mode_prepare(t->mode, &t->plan.settings, t->holders);
        if (!st)
            how = sync_holders_grouping(t->holders, sync_mode_shares_state(t->mode));
    }
    if (!st)
        st = params_create_grouped(&t->params, t->device, graphs, chunks, t->holders ? &how : NULL, 1);
    if (!st)
        params_keep_whole(t->params, optim_rule_whole(t->o.optim.rule));
    return st;
}

/* What this rank updates, counts of the norm, and writes of a checkpoint: what it holds as the first
 * of its holders; of moments, its own part where they are shared out. */
static gt_status make_optimizer(train *t)
{
    const int count = params_count(t->params);
    const double tokens = (double)(t->o.batch * t->o.seq);
    if (!t->holders)
        return optim_create(&t->optim, t->device, t->kernels, t->gemm, t->params, &t->o.optim, tokens, NULL);
    /* Replicas that update the same matrix must come to the same bits, so they must not measure, each for
     * itself, which engine multiplies fastest. */
    gt_status st = optim_rule_multiplies(t->o.optim.rule) ? gemm_context_create(&t->update_gemm, t->device, "tiled")
                                                          : GT_OK;
    if (st)
        return st;
    optim_part *parts = NULL;
    int part_count = 0;
    t->mine = calloc((size_t)count + 1, 1);
    t->mine_state = calloc((size_t)count + 1, 1);
    st = t->mine && t->mine_state ? GT_OK : no_memory();
    if (!st)
        st = sync_mode_parts(t->mode, &t->plan.settings, t->holders, t->params, &parts, &part_count);
    for (int i = 0; !st && i < count; i++) {
        t->mine[i] = (unsigned char)sync_holders_first(t->holders, params_group(t->params, i));
        t->mine_state[i] = sync_mode_shares_state(t->mode) || t->mine[i];
    }
    if (!st)
        st = optim_create(&t->optim, t->device, t->kernels, t->update_gemm, t->params, &t->o.optim, tokens,
                          &(optim_ranks){ parts, part_count, t->sum ? tensor_sum_make : NULL, t->sum });
    free(parts);
    return st;
}

/* A rank that only serves adds zeros to the sums of others. */
static gt_status make_clear(train *t)
{
    gt_status st = dev_list_create(&t->clear, t->device);
    for (int i = 0; !st && i < params_segments(t->params); i++) {
        dev_buffer *grad = params_segment_at(t->params, i)->grad;
        if (grad)
            st = dev_list_fill(t->clear, grad, 0, 0, dev_buffer_bytes(grad));
    }
    return st;
}

static int gradient_done(void *context, int chunk, int i)
{
    return exec_gradient_done(stage_exec(((train *)context)->stage, chunk), i);
}

static const char *form_before(void *context, const int *rank, int ranks)
{
    return run_plan_form(&((train *)context)->plan, rank, ranks);
}

/* A compressor for each link, of which the plan keeps a record. */
static gt_status choose_compressors(train *t)
{
    const sync_choice_options o = {
        .candidates = &t->o.candidates,
        .mode = t->mode,
        .holders = t->holders,
        .params = t->params,
        .device = t->device,
        .comm = t->o.comm,
        .after = t->o.compress.after,
        .known = t->plan.links ? form_before : NULL,
        .context = t
    };
    if (!t->o.comm || !t->o.candidates.count)
        return GT_OK;
    if (!sync_mode_compresses(t->mode))
        return gt_fail(GT_UNSUPPORTED, "--sync %s sends what it sends as it is; leave out --compress auto",
                       sync_mode_name(t->mode));
    gt_status st = sync_choice_make(&t->choice, &o);
    for (int i = 0; !st && i < t->choice->links; i++) {
        const sync_link *l = &t->choice->link[i];
        if (!run_plan_form(&t->plan, l->rank, l->ranks))
            st = run_plan_link(&t->plan, l->rank, l->ranks, l->form);
    }
    return st;
}

/* A form for each link between stages, of which the plan keeps a record. */
static gt_status choose_between(train *t)
{
    stage_forms f = t->o.between;
    if (!t->o.comm || f.count < 2)
        return GT_OK;
    gt_status st = stage_forms_narrow(&f, "auto", t->o.precision);
    return st ? st : stage_choice_make(&t->stage_choice, &f, &t->plan, t->stage, t->device, t->o.comm);
}

/* A gradient that several chunks add to may be touched by one of them in all rows. */
static graph_touches gradient_touched(void *context, int i, graph_touched *out)
{
    const train *t = context;
    const char *name = params_info(t->params, i)->name;
    graph_touches found = GRAPH_TOUCHES_ALL;
    int chunks = 0;
    for (int c = 0; c < stage_chunks(t->stage); c++) {
        const graph *g = stage_graph(t->stage, c);
        for (int p = 0; p < graph_param_count(g); p++) {
            graph_touched here;
            if (strcmp(graph_param_at(g, p)->name, name))
                continue;
            const graph_touches touches = graph_touched_rows(g, p, &here);
            if (touches != GRAPH_TOUCHES_ALL) {
                found = touches;
                *out = here;
            }
            chunks++;
        }
    }
    return found != GRAPH_TOUCHES_ALL && chunks > 1 ? GRAPH_TOUCHES_MORE : found;
}

static int parameter_read(void *context, int chunk, int i)
{
    return exec_parameter_read(stage_exec(((train *)context)->stage, chunk), i);
}

static gt_status make_sync(train *t)
{
    const sync_options o = {
        .mode = t->mode,
        .settings = t->o.comm ? &t->plan.settings : NULL,
        .compress = t->o.compress,
        .choice = t->choice,
        .holders = t->holders,
        .comm = t->o.comm,
        .device = t->device,
        .kernels = t->kernels,
        .params = t->params,
        .optim = t->optim,
        .completion = t->completion,
        .chunks = stage_chunks(t->stage),
        .replica = t->place.replica,
        .replicas = t->plan.replicas,
        .steps = t->o.steps,
        .due = train_due,
        .done = gradient_done,
        .read = parameter_read,
        .tell = train_tell,
        .touched = gradient_touched,
        .whole_tables = t->o.whole_tables,
        .mark = train_mark_rows,
        .context = t
    };
    gt_status st = sync_create(&t->sync, &o);
    for (int c = 0; !st && c < o.chunks; c++) {
        int stops[SYNC_STOPS], wants[SYNC_WANTS];
        const int count = sync_stops(t->sync, c, stops), reads = sync_wants(t->sync, c, wants);
        st = stage_stops(t->stage, c, stops, count);
        if (!st)
            st = stage_wants(t->stage, c, wants, reads);
    }
    return st;
}

/* Places the training stage and the evaluation's: they never run at once. */
static gt_status place_stages(train *t)
{
    const exec_binding bindings[] = {
        { "grad_scale", optim_grad_scale(t->optim) }, { "loss_sum", optim_loss_sum(t->optim) }, { NULL, NULL }
    };
    stage_place_options o = {
        .exec = { .device = t->device,
                  .kernels = t->kernels,
                  .gemm = t->gemm,
                  .params = t->params,
                  .bindings = bindings,
                  .exchange = t->exchange ? tensor_exchange_make : NULL,
                  .exchange_context = t->exchange },
        .passing = t->arena,
        .completion = t->completion
    };
    gt_status st = stage_place(t->stage, &o);
    if (!st && t->data.val) {
        evaluate_options e = {
            .place = o,
            .plan = &t->plan,
            .rank = t->rank,
            .comm = t->o.comm,
            .split = t->data.val,
            .batch = t->model.batch,
            .name = t->o.val_name,
            .seq = t->o.seq,
            .rows = t->o.eval_batches * t->o.batch,
            .bytes = t->o.val_bytes,
            .ids = t->o.val_ids
        };
        const stage_model m = train_stage_model(t);
        e.place.exec.bindings = NULL;
        st = evaluate_create(&t->evaluate, &m, &e);
    }
    if (!st)
        st = stage_ready(t->stage);
    return st || !t->evaluate ? st : evaluate_ready(t->evaluate);
}

static char *choices_path(const train *t)
{
    char name[32] = "gemm.txt";
    /* Devices may differ, and so may their engines. Rank 0 tidies the run's folder, not this one. */
    if (t->rank)
        snprintf(name, sizeof name, "ranks/gemm-%d.txt", t->rank);
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

/* A larger model's checkpoint has all that this one wants; that is no reason to take it. */
static gt_status check_model(train *t, const char *path)
{
    graph *whole = NULL;
    gt_status st = graph_create(&whole, t->o.precision, 1, (int)t->o.seq);
    if (!st)
        st = t->model.build(whole, t->model.config, NULL, 0, 0);
    if (!st)
        st = checkpoint_check_model(path, whole);
    graph_release(whole);
    return st;
}

/* The position in the data, from what the checkpoint says. Rank 0 tells what a change of options
 * makes of it. */
static gt_status find_position(train *t, const char *path, const checkpoint_info *info)
{
    const checkpoint_data *was = &info->data;
    const uint64_t before = info->step ? info->tokens / t->o.seq : 0;
    const int tells = t->rank == 0;
    t->tokens = info->tokens;
    if (!was->seq) {                    /* an earlier version's: one batch size from the start */
        t->samples = info->step ? loader_step(&t->loader, info->step, before / info->step) : 0;
        return GT_OK;
    }
    if (was->tokens != t->data.train->count || was->hash != t->data_hash) {
        if (!t->o.new_data)
            return gt_fail(GT_MISMATCH,
                           "cannot resume '%s': it was trained on %llu tokens with checksum "
                           "%016llx, and the data hold %llu with %016llx; bring the old data back, or "
                           "name these with --data to begin at their start",
                           path, (unsigned long long)was->tokens, (unsigned long long)was->hash,
                           (unsigned long long)t->data.train->count, (unsigned long long)t->data_hash);
        if (tells)
            gt_log(GT_LOG_WARN, "train",
                   "the data are not those of the checkpoint; training begins at "
                   "their start");
    } else if (was->order != t->o.order) {
        if (tells)
            gt_log(GT_LOG_WARN, "train",
                   "the order of the samples is another than the checkpoint's; "
                   "training begins at the start of the data");
    } else {
        t->samples = loader_convert(&t->loader, was->samples, was->seq);
        if (was->seq != t->o.seq && tells)
            gt_log(GT_LOG_WARN, "train",
                   "sequences have %llu tokens, and had %llu: training goes on at "
                   "the same part of this pass over the data%s",
                   (unsigned long long)t->o.seq, (unsigned long long)was->seq,
                   t->o.order == LOADER_SEQUENTIAL ? "" : ", in which some text may come twice or not at all");
    }
    return GT_OK;
}

/* A run without a checkpoint begins again, if it was killed before it wrote one. The row of a step is
 * written before the checkpoint after that step, and this before the next row: a record that goes
 * further than the first checkpoint says that there was one. Rank 0 reads it, before it is cut. */
static gt_status check_lost(train *t)
{
    uint64_t first = t->o.first_save, last = 0;
    net_blobs all;
    gt_status st = t->rank ? GT_OK : metrics_last(&last, t->o.run);
    while (first && first < t->o.steps && !sync_meets(t->sync, first))
        first++;
    if (!st && first && last > first)
        st = gt_fail(GT_NOT_FOUND,
                     "cannot resume '%s': there is no checkpoint in '%s/checkpoints', but "
                     "metrics.jsonl has %llu steps, and one was written after step %llu; bring it back, start "
                     "from other weights with --from, or name another folder with --out",
                     t->o.run, t->o.run, (unsigned long long)last, (unsigned long long)first);
    st = checkpoint_agree(t->o.comm, "whether a checkpoint was lost", st, NULL, 0, &all);
    if (!st)
        net_blobs_release(&all);
    return st;
}

/* The parameters' first values: a checkpoint's, another model's, or random. */
static gt_status fill_params(train *t)
{
    checkpoint_info info;
    checkpoint_state states[CHECKPOINT_STATES];
    const checkpoint_ranks ranks = { t->o.comm, t->mine, t->mine_state };
    char *path = NULL;
    int given = 0;
    gt_status st = t->o.elastic ? train_image_give(t, t->o.image, &given) : GT_OK;
    if (!st && !given && t->o.resume && t->o.run) {
        st = checkpoint_find_together(t->o.comm, &path, &info, t->o.run);
        if (st == GT_NOT_FOUND) {
            gt_message_clear();
            st = check_lost(t);
        } else if (st == GT_FORMAT) {
            st = gt_fail(st, "%s, start from other weights with --from, or name another folder with --out",
                         gt_message());
        }
        if (!st && path && info.seed != t->o.seed)
            st = gt_fail(GT_MISMATCH, "cannot resume '%s': it was trained with seed %llu, not %llu", path,
                         (unsigned long long)info.seed, (unsigned long long)t->o.seed);
        if (!st && path)
            st = find_position(t, path, &info);
        if (!st && path)
            st = check_model(t, path);
        if (!st && path)
            st = checkpoint_load(path, t->params, states, train_states(t, states), &ranks);
        if (!st && path) {
            t->done = t->queued = t->updated = info.step;
            t->last_saved = info.step;
            t->best = info.best;
        }
    }
    if (!st && !path && !given)
        st = t->model.fill ? t->model.fill(t->model.config, t->params, t->model.fill_context)
                           : params_init(t->params, t->o.seed);
    t->from_memory = given;
    sync_step(t->sync, t->queued, 0.0, 0.0);
    if (!st)
        st = sync_begin(t->sync);
    t->begun = !st;
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
        return gt_fail(GT_MISUSE,
                       "another process is training in '%s'; wait for it, or name "
                       "another folder",
                       t->o.run);
    return GT_OK;
}

static gt_status open_run(train *t)
{
    if (!t->o.run)
        return GT_OK;
    char *path = choices_path(t);
    const int writes = t->rank == 0;
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
        st = checkpoint_prune(t->o.run, 0, 0, 0);
    if (!st && writes)                  /* a later one may have been better, and is done again */
        st = checkpoint_mark_best(t->o.run,
                                  t->best.step && checkpoint_is_there(t->o.run, t->best.step) ? t->best.step : 0);
    if (!st && writes)
        st = train_remove_weights(t);
    free(path);
    if (!st && writes)
        st = metrics_open(&t->metrics, t->o.run, t->done);
    if (t->metrics)
        metrics_title(t->metrics, t->model.name);
    return st;
}

/* What all ranks' devices reach together; what one of them does not know, all do not. */
static gt_status add_rates(train *t)
{
    double mine[2] = { t->o.peak_flops, gemm_best_rate(t->gemm, t->o.precision) };
    if (mine[0] > 0.0 && mine[0] < mine[1])     /* measured at a busy moment: no peak lies below a product */
        mine[0] = mine[1];
    net_blobs all;
    t->peak = mine[0];
    t->gemm_rate = mine[1];
    if (!t->o.comm)
        return GT_OK;
    gt_status st = net_job_exchange(net_comm_job(t->o.comm), "what devices reach", mine, sizeof mine, &all);
    if (st)
        return st;
    int known[2] = { 1, 1 };
    double sum[2] = { 0.0, 0.0 };
    for (int r = 0; r < all.count; r++)
        for (int i = 0; i < 2 && all.size[r] == sizeof mine; i++) {
            double rate;
            memcpy(&rate, all.data[r] + (size_t)i * sizeof rate, sizeof rate);
            known[i] &= rate > 0.0;
            sum[i] += rate;
        }
    t->peak = known[0] ? sum[0] : 0.0;
    t->gemm_rate = known[1] ? sum[1] : 0.0;
    net_blobs_release(&all);
    return GT_OK;
}

gt_status train_end_together(train *t, gt_status st)
{
    gt_saved_message why;
    if (!st || st == GT_INTERRUPTED || !t || !t->o.comm || (st == GT_LOST && net_elastic()))
        return st;                      /* an elastic job goes on without a rank whose device is gone */
    gt_message_save(&why);
    if (!net_comm_check(t->o.comm))
        net_comm_abort(t->o.comm, t->rank, "%s", why.text);
    gt_message_restore(&why);
    return st;
}

/* Before anything is built. */
static gt_status check_targets(const train *t)
{
    data_batch b;
    data_batch_make(&b, t->model.batch, t->model.config, &t->loader, "training");
    return data_batch_check_targets(&b, t->o.data_name ? t->o.data_name : "training");
}

gt_status train_create(train **out, dev_device *d, const train_model *m, const train_data *data, const train_options *o)
{
    *out = NULL;
    gt_status st = train_options_check(o);
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
    t->pending.loss = NAN;
    if (!t->o.micro_batch)
        t->o.micro_batch = t->o.batch;
    t->o.optim.steps = t->o.steps;
    t->rank = o->comm ? net_comm_rank(o->comm) : 0;
    t->ranks = o->comm ? net_comm_size(o->comm) : 1;
    t->busy = o->comm ? calloc((size_t)t->ranks, sizeof *t->busy) : NULL;

    st = o->comm && !t->busy ? no_memory() : settle_plan(t);
    if (!st)
        st = loader_open(&t->loader, data->train, "training", o->order, o->batch, o->seq, o->seed);
    if (!st)
        st = check_targets(t);
    if (!st && o->run)
        t->data_hash = token_split_hash(data->train);
    if (!st)
        st = kernel_set_create(&t->kernels, d, t->o.precision);
    if (!st)
        st = gemm_context_create(&t->gemm, d, o->gemm);
    if (!st)
        st = load_choices(t);
    if (!st)
        st = dev_completion_create(&t->completion);
    if (!st)
        st = join_tensor_group(t);
    if (!st)
        st = make_stage(t);
    if (!st)
        st = make_optimizer(t);
    if (!st)
        st = exec_arena_create(&t->arena, d);
    if (!st)
        st = choose_between(t);
    if (!st)
        st = place_stages(t);
    if (!st)
        st = choose_compressors(t);
    if (!st)
        st = make_sync(t);
    if (!st && !t->micros)
        st = make_clear(t);
    if (!st)
        st = feed_create(&t->batch, m->batch, m->config, &t->loader, "training", t->stage);
    if (!st)
        st = make_slots(t);
    if (!st)
        st = add_rates(t);
    if (!st)
        st = fill_params(t);
    if (!st)
        st = open_run(t);
    if (!st)
        st = train_tune_create(t);
    if (st) {
        char why[4096];
        if (t->begun)
            train_end_together(t, st);
        snprintf(why, sizeof why, "%s", gt_message());
        train_release(t);
        return gt_fail(st, "%s", why);
    }
    *out = t;
    return GT_OK;
}

static void release(train *t)
{
    if (dev_wait(t->device))
        gt_message_clear();
    if (metrics_close(t->metrics))
        gt_log(GT_LOG_WARN, "train", "%s", gt_message());
    for (size_t i = 0; t->slots && i < (size_t)(DEPTH * t->micros); i++)
        release_slot(t, &t->slots[i]);
    train_tune_release(t);
    free(t->slots);
    free(t->derived);
    free(t->scratch);
    sync_release(t->sync);
    dev_list_release(t->clear);
    stage_release(t->stage);
    evaluate_release(t->evaluate);
    dev_completion_release(t->completion);
    exec_arena_release(t->arena);
    optim_release(t->optim);
    params_release(t->params);
    sync_choice_release(t->choice);
    stage_choice_release(t->stage_choice);
    sync_holders_release(t->holders);
    tensor_exchange_release(t->exchange);
    tensor_sum_release(t->sum);
    if (t->tensor_group)
        net_group_release(t->tensor_group);
    train_image_release(t->kept);
    free(t->mine);
    free(t->mine_state);
    free(t->held);
    free(t->busy);
    gemm_context_release(t->update_gemm);
    gemm_context_release(t->gemm);
    kernel_set_release(t->kernels);
    run_plan_release(&t->plan);
    if (t->lock >= 0)
        close(t->lock);
    free(t);
}

/* Transfers that were under way end with the same lost peer, and what they say is dropped; why
 * training ended must outlive that. */
void train_release(train *t)
{
    char before[1024];
    if (!t)
        return;
    snprintf(before, sizeof before, "%s", gt_message());
    release(t);
    gt_message_clear();
    if (*before)
        gt_fail(GT_PEER, "%s", before);     /* the code is the caller's; this keeps the sentence */
}

int train_states(train *t, checkpoint_state states[CHECKPOINT_STATES])
{
    states[0] = optim_saved(t->optim);
    states[0].each_rank = sync_mode_trains_apart(t->mode) ? CHECKPOINT_OWN : 0;
    return 1 + sync_saved(t->sync, states + 1);
}

gt_status train_record_sample(train *t, const char *prompt, const char *text, size_t size)
{
    return t->metrics ? metrics_sample(t->metrics, t->done, prompt, text, size) : GT_OK;
}

const checkpoint_best *train_best(const train *t)
{
    return &t->best;
}

void train_explain_sync(const train *t, gt_text *out)
{
    sync_explain(t->sync, out);
}

int train_is_over_early(const train *t)
{
    return t->o.patience && t->best.waited >= t->o.patience;
}

uint64_t train_steps_done(const train *t)
{
    return t->done;
}

uint64_t train_steps_queued(const train *t)
{
    return t->queued;
}

uint64_t train_tokens_done(const train *t)
{
    return t->tokens;
}

uint64_t train_samples_done(const train *t)
{
    return t->samples;
}

const loader *train_loader(const train *t)
{
    return &t->loader;
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
    return stage_exec(t->stage, 0);
}

stage *train_stage(train *t)
{
    return t->stage;
}

double train_busy_of(const train *t, int rank)
{
    return t->busy ? t->busy[rank] : 0.0;
}

const run_plan *train_plan(const train *t)
{
    return &t->plan;
}

void train_compressed(const train *t, double *encoded, double *summed)
{
    sync_compressed(t->sync, encoded, summed);
}

int train_is_from_memory(const train *t)
{
    return t->from_memory;
}

const sync_choice *train_choice(const train *t)
{
    return t->choice;
}

const stage_choice *train_stage_choice(const train *t)
{
    return t->stage_choice;
}

const train_balance *train_balance_of(const train *t)
{
    return &t->balance;
}

train_memory train_memory_of(const train *t)
{
    train_memory m = { 0 };
    for (int i = 0; i < params_segments(t->params); i++) {
        const params_segment *s = params_segment_at(t->params, i);
        m.parameters += dev_buffer_bytes(s->master);
        m.gradients += dev_buffer_bytes(s->grad);
        m.copies += s->copy ? dev_buffer_bytes(s->copy) : 0;
    }
    m.parameters += params_frozen_bytes(t->params);
    m.state = optim_slot_bytes(t->optim);
    if (t->o.comm) {
        double least, most;
        const int staged = m.gradients && !dev_buffer_host(params_segment_at(t->params, 0)->grad);
        optim_state_bytes(&t->o.optim, &least, &most);
        m.host = (uint64_t)((double)m.gradients / 4
                            * sync_mode_host_bytes(t->mode, &t->plan.settings, most, t->plan.replicas, staged));
    }
    m.activations = exec_arena_bytes(t->arena) + stage_bytes(t->stage);
    m.total = dev_memory_used(t->device);
    m.inputs = m.total - m.parameters - m.gradients - m.copies - m.state - m.activations;
    return m;
}
