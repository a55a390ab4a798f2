/* SPDX-License-Identifier: MIT */
/* host/cli/verb_train.c - trains a model on one device, or on one a rank, and shows it.
 *
 *   before   what will run: model, device, data, batch, memory
 *   during   a bar on a terminal, a line a step in a pipe, an object a step with --json
 *   after    where everything lies and how to use it
 *
 * What was asked for is in train_settings.h, what it comes to in train_subject.h. With several devices
 * each rank runs its part of a plan (cli/train_plan.c); rank 0 alone speaks.
 * When a rank becomes slow and --replan is given, the run stops at a step, is planned again from
 * new measurements, and goes on from the checkpoint it stopped with, in the same processes.  */
#include "host/cli/busy.h"
#include "host/cli/cli.h"
#include "host/cli/writer.h"
#include "host/cli/plan_show.h"
#include "host/cli/rank_device.h"
#include "host/cli/run_starts.h"
#include "host/cli/cli_task.h"
#include "host/cli/train_agree.h"
#include "host/cli/train_plan.h"
#include "host/cli/train_samples.h"
#include "host/cli/train_settings.h"
#include "host/cli/train_show.h"
#include "host/cli/train_subject.h"
#include "host/cli/train_view.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "host/gemm/gemm.h"
#include "host/planner/advice.h"
#include "host/planner/plan_choice.h"
#include "host/trace/trace_merge.h"
#include "host/train/train.h"
#include "models/lora.h"
#include "net/job/elastic.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static train_settings *const o = &train_set;

static train_image *image;              /* of an elastic job: what this process had when it left the job before */
static int paused;                      /* it left because others want to join              */
static uint64_t shown;                  /* the last step that this process told of          */
static int started_again;               /* by whoever started this job before: same options */
static json_t *kept;                    /* what a resumed run's config.json says */
static const char *tokenizer_from;      /* what texts are read with: a folder, whose chat template the run keeps */

/* ---- running -------------------------------------------------------------------------------------- */

static train *running;                  /* a stop may be asked for before there is one */

static void stop_running(void)
{
    if (running)
        train_stop(running);
}

/* Says what a model takes before anything is built, if it can never fit. */
static gt_status check_fit(const model_config *c, dev_device *d)
{
    char need[32], has[32], count[32];
    const train_options t = train_settings_options();
    double state, most;
    int64_t trained;
    uint64_t frozen;
    optim_state_bytes(&t.optim, &state, &most);
    gt_status st = model_sizes(c, t.precision, &trained, &frozen);
    const double bytes = (double)trained * (8.0 + state + (t.precision == DTYPE_F32 ? 0.0 : 2.0)) + (double)frozen;
    if (st || bytes <= (double)dev_info_of(d)->global_bytes)
        return st;
    return gt_fail(GT_NO_MEMORY,
                   "model '%s' with %s parameters needs %s for weights, gradients and "
                   "optimizer, device '%s' has %s; take a smaller model%s",
                   c->name, gt_format_count(count, sizeof count, (double)model_parameters(c)),
                   gt_format_bytes(need, sizeof need, (uint64_t)bytes), dev_info_of(d)->id,
                   gt_format_bytes(has, sizeof has, dev_info_of(d)->global_bytes),
                   frozen ? ", or --base-precision int8" : "");
}

static gt_status explain(train *t, dev_device *d, int speaks)
{
    gemm_peak peak;
    gt_status st = train_load(t, 0);
    if (!st && speaks)
        train_show_sync(t, stdout);
    if (!st)
        st = gemm_peak_cached(d, &peak);
    return st ? st : exec_explain(train_exec(t), stdout, peak.flops);
}

/* Written once: what checkpoints were made with is not replaced, not even by what says the same. Nothing
 * is written where it is not known what they were made with. */
static gt_status save_tokenizer(const data_set *data, const cli_tokenizer_mark *mark)
{
    tokenizer *there = NULL;
    char *folder = gt_path_join(o->out, "tokenizer");
    gt_status st = folder ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot write '%s'", o->out);
    if (!st)
        st = gt_folder_tidy(folder);
    if (!st && data->tokenizer && gt_path_is_folder(folder) && tokenizer_open(&there, folder))
        gt_message_clear();             /* half of one, from a run that was killed as it began */
    if (!st && mark->known && data->tokenizer && (!there || tokenizer_hash(there) != tokenizer_hash(data->tokenizer)))
        st = tokenizer_save(data->tokenizer, folder);
    if (!st && data->chat && data->tokenizer && mark->known)
        st = chat_template_save(data->chat, folder);
    else if (!st && data->tokenizer && mark->known && !there && tokenizer_from)
        st = chat_template_copy(tokenizer_from, folder);
    tokenizer_close(there);
    free(folder);
    return st;
}

/* Weights to start from; a resumed run with a checkpoint never asks for them, and may go on
 * when they are gone. */
static gt_status fill_from(const void *config, params *p, void *context)
{
    cli_source *source = context;
    if (!o->from) {                     /* new ones, and adapters that begin by them */
        const gt_status begun = params_init(p, o->seed);
        return begun ? begun : lora_begin(config, p, o->seed);
    }
    gt_status st = source->path ? GT_OK : cli_source_open(source, o->from);
    source->seed = o->seed;
    if (!st && o->adapter && !source->adapter)      /* a run that is begun again before its first checkpoint */
        st = cli_source_adapt(source, o->adapter);
    return st ? st : cli_source_fill(config, p, source);
}

/* What rank 0 writes and says before the first step. */
static gt_status begin_run(const model_config *c, const data_set *data, const cli_tokenizer_mark *mark, dev_device *d,
                           train *t, const gt_text *why, int again, const cli_source *source)
{
    enum { SHOWN = 16 };
    if (!again)
        train_show_memory(data, d, t, kept || started_again);
    if (train_plan(t)->ranks > 1) {
        train_plan_show(train_plan(t), SHOWN, stderr);
        train_show_between();
    }
    if (why->size)
        fprintf(stderr, "%s", why->data);
    train_show_compression(t);
    train_show_sync(t, stderr);
    gt_text advice = { 0 };
    gt_status st = plan_advice(&advice, train_plan(t));
    if (!st && advice.size)
        fprintf(stderr, "%s", advice.data);
    gt_text_release(&advice);
    if (!st)
        st = train_plan_write(train_plan(t), o->out);
    if (!st)
        st = save_tokenizer(data, mark);
    if (!st && data->tokenizer && source->path && c->task == MODEL_LM)
        st = cli_end_ids_keep(data->tokenizer, source->path, o->out);
    return st ? st : train_settings_write(c, mark);
}

/* Which validation was best, and whether training ended for want of a better one. */
static void tell_best(const train *t)
{
    const checkpoint_best *b = train_best(t);
    if (train_is_over_early(t))
        fprintf(
            stderr,
            "early   the run ended after step %llu: %llu validations in a row were no improvement; --patience 0 goes on\n",
            (unsigned long long)train_steps_done(t), (unsigned long long)b->waited);
    if (b->step && (o->keep_best || o->patience))
        fprintf(stderr, "best    validation loss %.4f after step %llu: %s/checkpoints/best\n", b->loss,
                (unsigned long long)b->step, o->out);
}

static void tell_tuned(const train *t)
{
    const train_tuned r = train_tuned_of(t);
    if (!r.trials)
        return;
    fprintf(stderr, "tuned   %d product%s between steps, in %.1f s", r.products, r.products == 1 ? "" : "s", r.seconds);
    if (r.faster)
        fprintf(stderr, ": %.3g ms a micro-batch instead of %.3g", r.tuned_s * 1e3, r.usual_s * 1e3);
    fprintf(stderr, "%s\n", r.over ? "" : "; the next run goes on with the others");
}

static void end_run(const train_view *v, train *t)
{
    char text[32];
    train_view_compare(v, stderr);
    tell_tuned(t);
    train_show_rounding(v, t);
    train_show_sources(train_loader(t), train_loader(t)->split, train_samples_done(t));
    tell_best(t);
    if (train_is_over_early(t) && v->first_step == train_steps_done(t))
        fprintf(stderr, "done    nothing: the run was over before\n");
    else if (v->first_step >= o->steps)
        fprintf(stderr,
                "done    nothing: the run has %llu steps, and --steps %llu asks for no more; give a "
                "larger --steps to go on\n",
                (unsigned long long)v->first_step, (unsigned long long)o->steps);
    else
        fprintf(stderr, "done    in %s; %s holds checkpoints, metrics.jsonl and loss.svg\n",
                gt_format_duration(text, sizeof text, (double)(gt_now_ns() - v->start_ns) * 1e-9), o->out);
}

static gt_status wish_of(plan_wish *w, const model_config *c, int again)
{
    const train_options t = train_settings_options();
    *w = (plan_wish){ .file = again || net_elastic_formation() ? NULL : o->plan,
                      .run = o->out,
                      .resume = o->resume && !again,
                      .compress = o->compress,
                      .compress_stages = o->compress_stages,
                      .recut = net_elastic_formation() > 0,
                      .fresh = gt_option_given(train_table, "plan") && !started_again };
    const int elastic = net_elastic();
    w->local = (plan_local_options){
        .model = plan_model_of(c),
        .storage = t.precision,
        .batch = (int)o->batch,
        .seq = (int)o->seq,
        .micro_batch = (int)o->micro_batch,
        .schedule = o->pipe_schedule,
        .sync = o->sync   ? o->sync
                : elastic ? "allreduce"
                          : NULL,
        .settings = &o->sync_settings,
        .fixed = ~0u,
        .compress = o->compress,
        .compress_after = o->compress_after,
        .compress_stages = o->compress_stages,
        .recompute = o->recompute                                ? 1
                     : gt_option_given(train_table, "recompute") ? 0
                                                                 : -1,
        .optim = t.optim,
        .again = again,
        .in_passing = again
    };
    int64_t trained;
    uint64_t frozen;
    if (c && !model_sizes(c, t.precision, &trained, &frozen)) {
        w->local.model.parameters = (double)trained;
        w->local.model.frozen = (double)frozen;
    }
    gt_message_clear();                         /* what cannot be built says so when it is */
    if (w->file && strcmp(w->file, "auto")) {   /* settles these, unless they were given as well */
        w->local.micro_batch = gt_option_given(train_table, "micro-batch") ? w->local.micro_batch : 0;
        w->local.sync = gt_option_given(train_table, "sync") ? o->sync : NULL;
        w->local.fixed = o->sync_fixed;
        w->local.compress_after = gt_option_given(train_table, "compress-after") ? o->compress_after : UINT64_MAX;
        w->compress = gt_option_given(train_table, "compress") ? o->compress : NULL;
        w->compress_stages = gt_option_given(train_table, "compress-stages") ? o->compress_stages : NULL;
        w->local.recompute = gt_option_given(train_table, "recompute") ? o->recompute : -1;
    }
    gt_status st = plan_local_number(&w->local.stages, "stages", o->stages);
    if (!st)
        st = plan_local_number(&w->local.replicas, "replicas", o->replicas);
    if (!st)
        st = plan_local_number(&w->local.tensor, "tensor", o->tensor);
    if (elastic) {                      /* ranks that have everything, and as many as there are */
        const int open = net_elastic_formation() && (w->local.stages > 1 || w->local.tensor > 1);
        w->local.stages = open ? 0 : w->local.stages ? w->local.stages : 1;
        w->local.tensor = open ? 0 : w->local.tensor ? w->local.tensor : 1;
        w->local.replicas = net_elastic_formation() ? 0 : w->local.replicas;
    }
    return st;
}

/* What all ranks need, in one piece. */
typedef struct run_context {
    const model_config *config;
    data_set *data;
    const cli_tokenizer_mark *mark; /* of the tokenizer the run's weights are trained with   */
    const token_split *val;
    cli_source *source;
    dev_device *device;
    net_comm *comm;
    unsigned char *token_bytes;     /* cli_token_bytes() */
    uint32_t token_ids;
    double peak_flops;
    int again;                      /* planned anew in mid-run                               */
    uint64_t start_ns;
} run_context;

/* Why all ranks stopped together: did rank 0 only want to plan again, or did a signal come to any of
 * them? The same answer on all ranks, and the same exit code. */
static gt_status ask_why(net_comm *c, int wants, int *again)
{
    net_blobs all;
    const unsigned char mine[2] = { (unsigned char)wants, (unsigned char)gt_stop_asked() };
    int number = mine[1];
    *again = wants;
    gt_status st = c ? net_job_exchange(net_comm_job(c), "why training stopped", mine, sizeof mine, &all) : GT_OK;
    if (!st && c) {
        *again = all.size[0] == sizeof mine && all.data[0][0];
        for (int r = net_comm_size(c) - 1; r >= 0; r--)
            if (all.size[r] == sizeof mine && all.data[r][1])
                number = all.data[r][1];
        net_blobs_release(&all);
    }
    if (number) {
        *again = 0;
        gt_stop_note(number);
    }
    return st;
}

/* After the last step: pictures of it, and all ranks leave together. */
static gt_status finish_run(const run_context *x, train *t, gt_status st)
{
    gt_status last = GT_OK;
    gt_saved_message why;
    if (st && st != GT_INTERRUPTED)
        return st;
    gt_message_save(&why);
    if (o->trace)
        last = trace_save(x->comm, dev_info_of(x->device)->id, o->trace);
    if (!last && x->comm)
        last = train_plan_timeline(t, x->comm, o->out);
    if (!last && x->comm)
        last = net_job_barrier(net_comm_job(x->comm), "the end of training");
    if (last)
        return last;
    gt_message_restore(&why);
    return st;
}

/* Keeps what this process has, before it leaves a job that lost a rank or that others want to join. */
static void keep_image(train *t, gt_status st)
{
    gt_saved_message why;
    train_image *now = NULL;
    if (!net_elastic() || (st != GT_PEER && !train_is_paused(t)))
        return;
    gt_message_save(&why);
    if (train_image_take(&now, t))
        gt_log(GT_LOG_WARN, "train", "%s; the newest checkpoint is what there is", gt_message());
    else
        gt_log(GT_LOG_INFO, "train", "keeps the parameters and the optimizer's state after step %llu in memory",
               (unsigned long long)train_image_step(now));
    if (now) {                          /* else one of before may still be the newest that anybody has */
        train_image_release(image);
        image = now;
    }
    gt_message_restore(&why);
}

static int was_paused(void)
{
    return paused;
}

/* A CPU's libraries are not ours to tune, and compiling takes from what it computes with. */
static int tunes(const dev_device *d)
{
    return !strcmp(o->tune, "on") || (!strcmp(o->tune, "auto") && dev_info_of(d)->kind == DEV_GPU);
}

/* From a plan to the end, or to where work must move: then *again, and a checkpoint to go on from. */
static gt_status follow_plan(const run_context *x, const run_plan *plan, const gt_text *why, int *again)
{
    train_options options = train_settings_options();
    const train_model model = {
        .name = x->config->name,
        .config = x->config,
        .units = model_units(x->config),
        .build = model_build_config,
        .batch = model_batch,
        .fill = o->from || x->config->tuning.rank ? fill_from : NULL,
        .fill_context = x->source,
        .flops_per_token = model_flops_per_token(x->config, (int)o->seq)
    };
    const train_data splits = { &x->data->train, x->val };
    const int speaks = !x->comm || net_comm_rank(x->comm) == 0;
    train *t = NULL;
    options.comm = x->comm;
    options.plan = plan;
    options.data_name = o->data;
    options.val_name = o->eval_data ? o->eval_data : o->data;
    options.val_bytes = x->token_bytes;
    options.val_ids = x->token_ids;
    options.peak_flops = x->peak_flops;
    options.tune = tunes(x->device) ? 0.05 : 0.0;
    options.resume |= x->again;
    options.elastic = net_elastic();
    options.image = image;
    options.pause = net_elastic() ? net_elastic_asks : NULL;
    options.first_save = train_settings_first_save(kept);
    if (o->explain)
        options.run = NULL;
    const int notes = speaks && !o->explain;
    gt_status st = notes && !options.resume ? run_starts_write(o->out) : GT_OK;
    if (!st)
        st = train_create(&t, x->device, &model, &splits, &options);
    if (t && image) {
        train_image_release(image);
        image = NULL;
    }
    if (!st && notes && options.resume)     /* a run that cannot be resumed is not touched */
        st = run_starts_write(o->out);
    if (!st && o->explain)
        st = explain(t, x->device, speaks);
    else if (!st) {
        train_view v = { .of = t,
                         .comm = x->comm,
                         .steps = o->steps,
                         .json = o->json,
                         .bar = speaks && !o->json && cli_is_terminal(),
                         .replan = o->replan,
                         .slow = o->slow,
                         .start_ns = x->start_ns };
        const train_hooks hooks = train_view_hooks(&v);
        st = train_view_begin(&v);
        v.prompt = o->sample_prompt;
        if (!st && speaks && o->sample_every)
            st = train_samples_open(&v.samples, t, x->device, x->config, x->data->tokenizer, !x->comm);
        if (!st && speaks)
            st = begin_run(x->config, x->data, x->mark, x->device, t, why, x->again, x->source);
        running = t;
        if (gt_stop_asked())
            train_stop(t);
        if (net_elastic_is_last())
            train_keep(t);
        v.shown = &shown;
        if (!st && speaks && net_elastic_formation())
            fprintf(stderr, "again   after step %llu with %d ranks: %s\n", (unsigned long long)train_steps_queued(t),
                    x->comm ? net_comm_size(x->comm) : 1,
                    train_is_from_memory(t) ? "from memory"
                    : train_steps_done(t)   ? "from the newest checkpoint"
                                            : "from the start");
        if (!st)
            st = train_run(t, speaks ? &hooks : NULL);
        running = NULL;
        keep_image(t, st);
        paused = st == GT_INTERRUPTED && train_is_paused(t);
        if (paused) {
            gt_message_clear();
            train_view_end(&v);
            train_samples_close(v.samples);
            train_release(t);
            return GT_OK;
        }
        if (st == GT_INTERRUPTED) {
            gt_saved_message kept_message;
            gt_message_save(&kept_message);
            const gt_status asked = ask_why(x->comm, v.wants_plan, again);
            if (!asked && !*again)
                gt_message_restore(&kept_message);
            st = asked ? asked : *again ? GT_OK : st;
        }
        train_view_end(&v);
        if (st == GT_INTERRUPTED && net_elastic_is_last())
            st = gt_fail(GT_PEER, "too few ranks are left: %s", gt_message());
        if (!*again)
            st = finish_run(x, t, st);
        if (!st && speaks && !*again)
            end_run(&v, t);
        train_samples_close(v.samples);
    }
    st = train_end_together(t, st);
    train_release(t);
    return st;
}

static gt_status run_training(const model_config *c, data_set *data, const cli_tokenizer_mark *mark,
                              const token_split *val, cli_source *source, dev_device *d, net_comm *comm)
{
    static uint64_t began;              /* of all that this process takes part in */
    began = began ? began : gt_now_ns();
    run_context x = { .config = c,
                      .data = data,
                      .mark = mark,
                      .val = val,
                      .source = source,
                      .device = d,
                      .comm = comm,
                      .start_ns = began };
    gemm_peak peak = { 0 };
    int again = 0;
    gt_status st = gemm_peak_cached(d, &peak);
    if (!st) {
        dtype storage = DTYPE_F32;
        dtype_parse(&storage, o->precision);
        x.peak_flops = gemm_peak_of(dev_info_of(d), storage == DTYPE_F32 ? 0 : dev_matrix_units(d), &peak, storage)
                       * dev_slowdown(d);
    }
    if (!st && val && c->task == MODEL_LM)
        st = cli_token_bytes(&x.token_bytes, &x.token_ids, data->tokenizer);
    if (!st && o->trace)
        st = gt_trace_start(GT_TRACE_ROOM);
    do {
        plan_wish wish;
        run_plan plan = { 0 };
        gt_text why = { 0 };
        const int again_plan = again;
        x.again = again || net_elastic_formation();
        again = 0;
        if (!st)
            st = wish_of(&wish, c, again_plan);
        if (!st)
            st = plan_choice_settle(&plan, &why, comm, d, &wish);
        if (!st)
            train_settings_follow(&plan);
        if (!st)
            st = follow_plan(&x, &plan, &why, &again);
        gt_text_release(&why);
        run_plan_release(&plan);
    } while (!st && again);
    free(x.token_bytes);
    return st;
}

/* A new run must not write over an old one, nor over a model that lies there. *again: the run is this
 * job's own, from a start before. */
static gt_status check_run_folder(int *again)
{
    static const char *const signs[] = { "metrics.jsonl", "checkpoints", "config.json" };
    if (o->resume || o->explain)
        return GT_OK;
    *again = run_starts_again(o->out);
    for (int i = 0; i < 3 && !*again; i++) {
        char *sign = gt_path_join(o->out, signs[i]);
        const int taken = sign && gt_path_exists(sign);
        free(sign);
        if (taken)
            return gt_fail(GT_MISUSE,
                           i < 2 ? "'%s' holds a run already; go on with --resume, or name "
                                   "another folder"
                                 : "'%s' holds a config.json already; name another "
                                   "folder",
                           o->out);
    }
    return GT_OK;
}

/* Rank 0 looks; a job that starts again goes on from the newest checkpoint, or starts over, on all
 * ranks. */
static gt_status settle_run_folder(net_comm *c)
{
    net_blobs all;
    int again = 0;
    const int speaks = !c || !net_comm_rank(c);
    gt_status st = speaks ? check_run_folder(&again) : GT_OK;
    const unsigned char mine = (unsigned char)again;
    if (!st && c) {
        st = net_job_exchange(net_comm_job(c), "the run's folder", &mine, 1, &all);
        if (!st) {
            again = all.size[0] == 1 && all.data[0][0];
            net_blobs_release(&all);
        }
    }
    if (!st && again) {
        started_again = 1;
        o->resume = 1;
        if (speaks)
            fprintf(stderr, "again   an earlier start of this job began '%s'; going on with it\n", o->out);
    }
    return st;
}

/* A resumed run's devices, unless there are now other ranks on this host than it had devices. */
static gt_status keep_devices(uint64_t ranks)
{
    uint64_t count = 0;
    if (!kept || !o->devices || gt_option_given(train_table, "devices") || !ranks)
        return GT_OK;
    gt_status st = rank_device_count(o->devices, &count);
    if (!st && count > 1 && count != ranks)
        o->devices = NULL;
    return st;
}

/* One command line is often used with one device and with several, so this is no misuse. */
static void tell_idle_options(void)
{
    static const char *const names[] = {
        "transport",      "net",         "sync",     "compress", "compress-after", "compress-stages",
        "send-threshold", "sparse-rows", "schedule", "slow"
    };
    gt_text list = { 0 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (gt_option_given(train_table, names[i]))
            gt_text_printf(&list, "%s--%s", list.size ? ", " : "", names[i]);
    for (int i = 0; i < o->sync_text.count; i++)
        if (gt_option_given(train_table, o->sync_text.name[i]))
            gt_text_printf(&list, "%s--%s", list.size ? ", " : "", o->sync_text.name[i]);
    if (list.size)
        gt_log(GT_LOG_WARN, "train", "there is one rank, so %s %s nothing", list.data,
               strchr(list.data, ',') ? "do" : "does");
    gt_text_release(&list);
}

/* Checkpoints hold the head that a run was begun with. */
static gt_status check_same_task(const model_config *run)
{
    const int task = gt_option_given(train_table, "task") && strcmp(o->task, model_task_name(run->task));
    if (!task && !(o->pairs && gt_option_given(train_table, "pairs") && !run->pairs))
        return GT_OK;
    return gt_fail(
        GT_MISUSE,
        "cannot resume '%s' with --%s%s: it was begun with --task %s, whose head its checkpoints hold; leave "
        "the option out, or begin another run from its export (geartrain export %s -o DIR, then --from DIR)",
        o->out, task ? "task " : "pairs", task ? o->task : "", model_task_name(run->task), o->out);
}

/* A run that goes on has its labels; what begins, may need a new head. */
static gt_status choose_task(model_config *c, cli_task *task, int resumed)
{
    int by_document = 0;
    *task = (cli_task){
        .name = o->task, .pairs = o->pairs, .whole_words = o->whole_words, .trains = 1, .seed = o->seed
    };
    gt_status st = resumed ? check_same_task(c) : GT_OK;
    if (!st)
        st = cli_task_choose(c, task, &by_document);
    if (resumed)
        c->new_labels = 0;
    if (!st)
        st = cli_task_check_data(c, &o->data_of, gt_option_given(train_table, "rows") ? o->rows : NULL);
    o->labelled = by_document;
    if (!st && by_document)
        o->rows = "documents";
    return st;
}

/* One rank, or the only one (c NULL). */
static gt_status train_here(net_comm *c)
{
    const char *tokenizer_spec = NULL;
    train_tokenizer own = { 0 };
    model_config config;
    cli_source source = { 0 };
    data_set data = { 0 }, eval_data = { 0 };
    dev_device *d = NULL;
    cli_task task;
    data_marks marks = { 0 };
    paused = 0;
    if (net_elastic_formation()) {      /* the run is this job's own */
        o->resume = 1;
        train_settings_unfollow();
    }
    if (!c)                             /* else rank 0 has begun to when it joined */
        cli_busy_start();
    if (!c)
        tell_idle_options();
    gt_status st = settle_run_folder(c);
    if (!st)
        st = train_choose_model(&config, &source, kept != NULL);
    if (!st)
        st = choose_task(&config, &task, kept != NULL);
    if (!st && source.path)
        st = cli_task_check_run(&source, &source.config, &config);
    if (!st)
        st = train_choose_heads(&config, &source, kept != NULL);
    if (!st && !isnan(o->dropout))
        model_config_dropout(&config, (float)o->dropout);
    if (!st)
        st = train_choose_tokenizer(&own, &config, &source, kept != NULL, &tokenizer_spec);
    if (!st)
        st = train_open_data(&data, &eval_data, tokenizer_spec, c);
    tokenizer_from = tokenizer_spec ? tokenizer_spec : data.tokenizer_path;
    if (!st)
        st = train_check_tokenizer(&own, &data);
    if (!st)
        st = train_settle_vocabulary(&config, &data);
    if (!st)
        st = cli_task_settle(&config, &task, &data, o->data, &marks);
    if (!st)
        st = cli_task_settle_validation(&config, &data, &eval_data, o->eval_data);
    if (!st)
        st = train_settle_targets(&config, &data, &eval_data);
    if (!st && !o->seq)
        o->seq = (uint64_t)config.context;
    if (!st)
        st = cli_task_check_seq(&config, o->seq);
    if (!st && o->sample_every)
        st = train_samples_check(&config, data.tokenizer);
    const token_split *val = NULL;
    if (!st)
        st = train_choose_validation(&val, &data, &eval_data);
    if (!st && !val && (o->patience || o->keep_best))
        st = gt_fail(GT_MISUSE,
                     "option --%s: '%s' has no validation part that is long enough; name a text with --eval-data",
                     o->patience ? "patience" : "keep-best", o->data);
    if (!st && !c && o->replan && gt_option_given(train_table, "replan"))
        st = gt_fail(GT_MISUSE, "option --replan would be ignored: one rank has nobody to move work to; "
                                "name several devices with --devices");
    if (!st && c)
        st = train_agree(c, train_table, &config, &data.train, val);
    if (!st)
        st = keep_devices(c ? (uint64_t)net_job_member(net_comm_job(c), net_comm_rank(c))->local_size : 1);
    if (!st)
        st = rank_device_open(&d, o->devices, c);
    if (!st)
        st = check_fit(&config, d);
    if (!st && (!c || !net_comm_rank(c)) && !net_elastic_formation())
        train_show_job(&config, &data, own.usual, d);
    if (!st) {
        gt_stop_listen(stop_running);
        st = run_training(&config, &data, &own.mark, val, &source, d, c);
    }
    dev_close(d);
    data_close(&data);
    data_close(&eval_data);
    cli_source_close(&source);
    train_tokenizer_close(&own);
    data_marks_close(&marks);
    return st;
}

/* Before ranks are started: what they would all say is said once. */
static gt_status check_shares(int ranks)
{
    plan_wish w;
    model_config config;
    gt_status st = wish_of(&w, NULL, 0);
    if (!st && o->model) {              /* else what it is comes from weights, later */
        if (!model_config_load(&config, o->model))
            w.local.model.units = model_units(&config);
        gt_message_clear();
    }
    if (!st && o->batch && o->batch <= INT32_MAX)
        st = plan_choice_check(&w, ranks);
    if (!st && w.local.sync && ranks > 1)
        st = sync_settings_check(sync_mode_find(o->sync), &o->sync_settings, ranks);
    if (!st && w.local.sync && ranks > 1 && w.local.replicas)
        st = sync_settings_check_replicas(sync_mode_find(o->sync), &o->sync_settings, w.local.replicas);
    return st;
}

gt_status verb_train(int argc, char **argv)
{
    char **words;
    int count, done;
    train_settings_default();
    gt_status st = cli_parse(train_table, &train_help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    st = train_settings_words(words, count);
    if (!st && o->resume)
        st = train_settings_take(&kept);
    if (!st)
        st = train_settings_check();
    if (!st)
        st = keep_devices(o->comm.ranks);
    if (!st)
        st = rank_device_count(o->devices, &o->comm.ranks);
    o->comm.may_be_alone = 1;
    o->comm.check = check_shares;
    o->comm.elastic = was_paused;
    if (!st)
        st = cli_comm_run(&o->comm, argv, train_here);
    json_decref(kept);
    train_image_release(image);
    return st;
}
