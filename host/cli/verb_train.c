/* host/cli/verb_train.c - trains a model on one device, or on one a rank, and shows it.
 *
 *   before   what will run: model, device, data, batch, memory
 *   during   a bar on a terminal, a line a step in a pipe, an object a step with --json
 *   after    where everything lies and how to use it
 *
 * --resume takes every option that was not given again from the run's config.json, so that
 * `geartrain train --out RUN --resume` goes on exactly as it began.
 *
 * With several devices each rank runs its part of a plan (cli/train_plan.c); rank 0 alone speaks.
 * When a rank becomes slow and --replan is given, the run stops at a step, is planned again from
 * new measurements, and goes on from the checkpoint it stopped with, in the same processes.  */
#include "host/cli/busy.h"
#include "host/cli/cli.h"
#include "host/cli/rank_device.h"
#include "host/cli/run_starts.h"
#include "host/cli/train_agree.h"
#include "host/cli/train_plan.h"
#include "host/cli/train_view.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "host/gemm/gemm.h"
#include "host/parallel/trace_merge.h"
#include "host/train/train.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *model, *data, *eval_data, *out, *tokenizer, *from, *devices, *order, *schedule;
    const char *precision, *optimizer, *gemm, *bits;
    uint64_t steps, batch, micro_batch, seq, warmup, seed, eval_every, eval_batches, save_every;
    double lr, min_lr, beta1, beta2, eps, weight_decay, clip, dropout, momentum, decay_share;
    int resume, recompute, json, explain, keep;
    const char *stages, *replicas, *tensor, *pipe_schedule, *plan, *sync, *trace;
    int replan;
    double slow;
    cli_comm comm;
} o;

static const gt_option table[] = {
    { .group = "Model and data" },
    { "model", 'm', GT_STRING, "NAME|FILE|DIR", "gpt2-124m, ..., a JSON file, or a folder", &o.model,
      0, NULL },
    { "data", 'd', GT_STRING, "FILE|DIR", "text, or tokens made by `geartrain tokenize`", &o.data, 0,
      NULL },
    { "token-bits", 0, GT_CHOICE, "auto|16|32", "of an id in a .bin file without a header", &o.bits, 1,
      NULL },
    { "tokenizer", 0, GT_STRING, "SPEC", "byte, char, bpe:SIZE, a folder; default: the model's, or byte",
      &o.tokenizer, 0, NULL },
    { "out", 'o', GT_STRING, "RUN", "run directory to write", &o.out, 0, NULL },
    { "from", 0, GT_STRING, "RUN|DIR", "start from these weights", &o.from, 0, NULL },
    { "resume", 0, GT_FLAG, NULL, "go on from the newest checkpoint in RUN", &o.resume, 0, NULL },
    { .group = "Steps" },
    { "steps", 'n', GT_U64, "N", "optimizer updates", &o.steps, 0, NULL },
    { "batch", 'b', GT_U64, "N", "sequences a step", &o.batch, 0, NULL },
    { "micro-batch", 0, GT_U64, "N", "sequences at once, 0: all of the batch", &o.micro_batch, 0,
      NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence, 0: the model's context", &o.seq, 0, NULL },
    { "order", 0, GT_CHOICE, "shuffled|sequential", "of the samples", &o.order, 1, NULL },
    { "seed", 0, GT_U64, "S", "of weights, order and dropout", &o.seed, 0, NULL },
    { .group = "Optimizing" },
    { "optimizer", 0, GT_CHOICE, "adamw|sgd", "update rule", &o.optimizer, 1, NULL },
    { "lr", 0, GT_DOUBLE, "X", "peak learning rate", &o.lr, 0, NULL },
    { "lr-schedule", 0, GT_CHOICE, "constant|cosine|linear|wsd", "its course", &o.schedule, 0, NULL },
    { "warmup", 0, GT_U64, "N", "steps of linear warm-up", &o.warmup, 0, NULL },
    { "min-lr", 0, GT_DOUBLE, "X", "at the end; default: a tenth of --lr", &o.min_lr, 0, NULL },
    { "decay-share", 0, GT_DOUBLE, "X", "wsd: last share of the steps that decays", &o.decay_share,
      1, NULL },
    { "beta1", 0, GT_DOUBLE, "X", "of AdamW", &o.beta1, 1, NULL },
    { "beta2", 0, GT_DOUBLE, "X", "of AdamW", &o.beta2, 1, NULL },
    { "eps", 0, GT_DOUBLE, "X", "of AdamW", &o.eps, 1, NULL },
    { "momentum", 0, GT_DOUBLE, "X", "of SGD", &o.momentum, 1, NULL },
    { "weight-decay", 0, GT_DOUBLE, "X", "on matrices only", &o.weight_decay, 0, NULL },
    { "clip", 0, GT_DOUBLE, "X", "limit of the gradient's norm, 0: none", &o.clip, 0, NULL },
    { "dropout", 0, GT_DOUBLE, "X", "everywhere; default: the model's", &o.dropout, 0, NULL },
    { .group = "Machine" },
    { "devices", 0, GT_STRING, "ID,...", "see `geartrain devices`; several: one rank each",
      &o.devices, 0, NULL },
    { "ranks", 0, GT_U64, "N", "ranks of this host, unless a launcher started some", &o.comm.ranks,
      1, NULL },
    { "plan", 0, GT_STRING, "FILE|auto", "who does what: a file of `geartrain plan`, or measured",
      &o.plan, 1, NULL },
    { "stages", 0, GT_STRING, "N|auto", "pipeline stages of a replica", &o.stages, 0, NULL },
    { "replicas", 0, GT_STRING, "N|auto", "copies of the model", &o.replicas, 0, NULL },
    { "tensor", 0, GT_STRING, "N|auto", "ranks that split every layer", &o.tensor, 0, NULL },
    { "schedule", 0, GT_CHOICE, "auto|gpipe|1f1b|interleaved|zb-h1|list", "of a pipeline",
      &o.pipe_schedule, 0, NULL },
    { "sync", 0, GT_CHOICE, "allreduce|sharded", "of gradients; sharded: optimizer state shared out",
      &o.sync, 1, NULL },
    { "replan", 0, GT_FLAG, NULL, "move work when a rank becomes slow", &o.replan, 1, NULL },
    { "slow", 0, GT_DOUBLE, "X", "from how many times the others' slowing a rank is slow", &o.slow, 1, NULL },
    { "transport", 0, GT_STRING, "LIST", "auto, or some of shm,verbs,tcp", &o.comm.transport, 1,
      NULL },
    { "net", 0, GT_STRING, "NAME=VALUE,..", "network settings", &o.comm.net.settings, 1, NULL },
    { "print-config", 0, GT_FLAG, NULL, "print all network settings and where they come from",
      &o.comm.net.print, 1, NULL },
    { "precision", 0, GT_CHOICE, "fp32|bf16|fp16", "storage of activations and weights",
      &o.precision, 0, NULL },
    { "recompute", 0, GT_FLAG, NULL, "run a layer again instead of keeping it", &o.recompute, 0,
      NULL },
    { "gemm", 0, GT_CHOICE, "auto|native|tiled|clblast", "matrix engine", &o.gemm, 1, NULL },
    { .group = "Looking" },
    { "eval-every", 0, GT_U64, "N", "steps between validations, 0: none", &o.eval_every, 0, NULL },
    { "eval-batches", 0, GT_U64, "N", "validate on N x --batch sequences, 0: on all", &o.eval_batches, 1,
      NULL },
    { "eval-data", 0, GT_STRING, "FILE|DIR", "validate on all of this text, or a folder's val shards",
      &o.eval_data, 1, NULL },
    { "save-every", 0, GT_U64, "N", "steps between checkpoints, 0: at the end", &o.save_every, 0,
      NULL },
    { "keep", 0, GT_INT, "N", "newest checkpoints kept, 0: all", &o.keep, 1, NULL },
    { "explain", 0, GT_FLAG, NULL, "print the graph with times and memory, and stop", &o.explain, 0,
      NULL },
    { "trace", 0, GT_STRING, "FILE", "what all ranks did when, for ui.perfetto.dev", &o.trace, 0,
      NULL },
    { "json", 0, GT_FLAG, NULL, "one object a step", &o.json, 0, NULL },
    { 0 } };

static const cli_help help = {
    "train --model NAME --data FILE --out RUN [options]", "Train a model.",
    "  geartrain train --model gpt2-mini --data input.txt --tokenizer char --out runs/first \\\n"
    "      --steps 2000 --batch 12 --lr 1e-3 --warmup 100 --eval-every 250\n"
    "  geartrain train --out runs/first --resume\n"
    "  geartrain train --from gpt2/ --data input.txt --out runs/fine --lr 3e-5\n" };

static void set_defaults(void)
{
    const optim_config d = optim_defaults();
    memset(&o, 0, sizeof o);
    o.order = "shuffled";
    o.schedule = "cosine";
    o.precision = "fp32";
    o.optimizer = "adamw";
    o.gemm = o.bits = "auto";
    o.plan = o.stages = o.replicas = o.tensor = o.pipe_schedule = "auto";
    o.sync = "allreduce";
    o.slow = 1.3;
    o.steps = 1000;
    o.batch = 8;
    o.seed = 1;
    o.eval_batches = 0;
    o.eval_every = 250;
    o.save_every = 500;
    o.keep = 2;
    o.lr = d.lr;
    o.min_lr = NAN;                     /* a tenth of lr */
    o.beta1 = d.beta1;
    o.beta2 = d.beta2;
    o.eps = d.eps;
    o.weight_decay = d.weight_decay;
    o.clip = d.clip;
    o.momentum = d.momentum;
    o.decay_share = d.decay_share;
    o.dropout = NAN;                    /* the model's   */
}

/* ---- config.json ------------------------------------------------------------------------------ */

/* Is the value of an option a path, and not the name of a model or kind of tokenizer? */
static int is_path(const char *option, const char *value)
{
    static const char *const names[] = { "data", "eval-data", "from", "model", "tokenizer" };
    int may = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        may |= !strcmp(option, names[i]);
    for (int i = 0; !strcmp(option, "model") && model_preset_name(i); i++)
        may &= strcmp(value, model_preset_name(i)) != 0;
    if (!strcmp(option, "tokenizer"))
        may &= strcmp(value, "byte") && !tokenizer_needs_text(value);
    return may && *value;
}

/* Paths from the root on: a run goes on from any folder. */
static void put_option(void *context, const gt_option *row, const char *value)
{
    if (!strcmp(row->name, "resume") || !strcmp(row->name, "explain") || !strcmp(row->name, "json")
        || !strcmp(row->name, "print-config") || !strcmp(row->name, "trace"))
        return;
    char *absolute = is_path(row->name, value) ? gt_path_absolute(value) : NULL;
    json_object_set_new(context, row->name, json_string(absolute ? absolute : value));
    free(absolute);
}

static gt_status write_config(const model_config *c)
{
    char *model = NULL, *path = gt_path_join(o.out, "config.json"), *text = NULL;
    gt_status st = path ? model_config_json(&model, c)
                        : gt_fail(GT_NO_MEMORY, "cannot write '%s': out of memory", o.out);
    if (!st) {
        json_t *options = json_object();
        gt_options_each(table, put_option, options);
        json_t *root = json_pack("{s:s, s:o, s:o}", "program", "geartrain " GT_VERSION, "model",
                                 json_loads(model, 0, NULL), "options", options);
        text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
        st = text ? gt_file_write(path, text, strlen(text))
                  : gt_fail(GT_NO_MEMORY, "cannot write '%s': out of memory", path);
        json_decref(root);
    }
    free(text);
    free(model);
    free(path);
    return st;
}

/* A resumed run has its plan in plan.json; where that does not suit any more (other devices), what was
 * fixed for the old ones must not stand in the way of a new one. */
static int is_of_plan(const char *name)
{
    static const char *const names[] = { "plan", "stages", "replicas", "tensor", "schedule" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return 0;
}

/* Devices and ranks go together: who names one of them now does not want the other of before. Devices
 * of before that do not match the ranks asked for now are dropped when those are known. */
static int is_outdated(const char *name)
{
    return !strcmp(name, "ranks") && gt_option_given(table, "devices");
}

/* A run that is there goes on from its own checkpoints. --from may only repeat what it began with, so
 * that one command line begins a run and goes on with it. */
static gt_status check_from(const char *began)
{
    if (!gt_option_given(table, "from"))
        return GT_OK;
    char *now = gt_path_absolute(o.from), *then = began ? gt_path_absolute(began) : NULL;
    const int same = now && then && !strcmp(now, then);
    free(now);
    free(then);
    return same ? GT_OK
           : gt_fail(GT_MISUSE, "--resume goes on from the checkpoints of '%s', so --from '%s' would be "
                     "ignored; leave one of them out, or name another folder with --out", o.out, o.from);
}

/* Options of the run's config.json that were not given now; *kept owns their strings. */
static gt_status take_options(json_t **kept)
{
    char *path = gt_path_join(o.out, "config.json"), *text = NULL;
    const char *name;
    json_error_t error;
    json_t *value;
    *kept = NULL;
    gt_status st = path ? gt_file_read(&text, NULL, path, 1u << 24)
                        : gt_fail(GT_NO_MEMORY, "cannot resume '%s': out of memory", o.out);
    if (st == GT_NOT_FOUND && o.model && o.data) {
        gt_message_clear();             /* nothing there yet: --resume begins the run */
        st = GT_OK;
        goto out;
    }
    if (st) {
        st = gt_fail_in(st, "cannot resume");
        goto out;
    }
    *kept = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!*kept)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, error.line, error.text);
    else if (!json_is_object(json_object_get(*kept, "options")))
        st = gt_fail(GT_MISMATCH, "cannot resume '%s': its config.json is not that of a run", o.out);
    json_object_foreach(json_object_get(*kept, "options"), name, value) {
        if (st || gt_option_given(table, name) || !json_string_length(value) || is_of_plan(name)
            || is_outdated(name))
            continue;
        st = gt_option_set(table, name, json_string_value(value));
        if (st)
            st = gt_fail_in(st, "'%s'", path);
    }
    if (!st)
        st = check_from(json_string_value(json_object_get(json_object_get(*kept, "options"), "from")));
out:
    free(text);
    free(path);
    return st;
}

static int started_again;               /* by whoever started this job before: same options */

/* ---- what will run --------------------------------------------------------------------------- */

/* At once: whatever takes time comes after it. */
static void show_job(const model_config *c, const data_set *data, dev_device *d)
{
    char a[32];
    const dev_info *i = dev_info_of(d);
    cli_busy_clear();
    const double tokens = (double)(o.batch * o.seq);
    const double epoch = (double)data->train.count;
    fprintf(stderr, "model   %s: %s parameters, %d layers, %d heads, %d channels, context %d\n",
            c->name, gt_format_count(a, sizeof a, (double)model_parameters(c)), c->layers, c->heads,
            c->channels, c->context);
    fprintf(stderr, "device  %s, %s, %d units: %s\n", i->id, o.precision, i->compute_units, i->name);
    fprintf(stderr, "data    %llu training and %llu validation tokens of %d: %s\n",
            (unsigned long long)data->train.count, (unsigned long long)data->val.count, c->vocab,
            o.data);
    fprintf(stderr, "steps   %llu of %llu x %llu tokens, %.2f epochs\n", (unsigned long long)o.steps,
            (unsigned long long)o.batch, (unsigned long long)o.seq,
            (double)o.steps * tokens / epoch);
}

/* How often on how much of what there is a validation; or why there is none. */
static void show_validation(const data_set *data, const train *t)
{
    uint64_t all;
    const uint64_t rows = train_evaluated_rows(t, &all);
    if (rows)
        fprintf(stderr, "eval    every %llu steps on %llu of %llu sequences of %llu tokens: %s%s\n",
                (unsigned long long)o.eval_every, (unsigned long long)rows, (unsigned long long)all,
                (unsigned long long)o.seq, o.eval_data ? "" : "the validation part of ",
                o.eval_data ? o.eval_data : o.data);
    else if (!o.eval_every)
        fprintf(stderr, "eval    none, as --eval-every 0 says\n");
    else
        fprintf(stderr, "eval    none: %s has a validation part of %llu tokens, a sequence takes %llu + 1; "
                "name a text with --eval-data\n", o.data, (unsigned long long)data->val.count,
                (unsigned long long)o.seq);
}

/* What is known when everything is in its place. */
static void show_memory(const data_set *data, dev_device *d, train *t)
{
    char a[32], b[32], e[32];
    const dev_info *i = dev_info_of(d);
    const train_memory m = train_memory_of(t);
    cli_busy_clear();
    show_validation(data, t);
    fprintf(stderr, "memory  %s of %s: ", gt_format_bytes(a, sizeof a, m.total),
            gt_format_bytes(b, sizeof b, i->global_bytes));
    fprintf(stderr, "weights %s, update %s, activations %s\n",
            gt_format_bytes(a, sizeof a, m.parameters + m.copies),
            gt_format_bytes(b, sizeof b, m.gradients + m.moments),
            gt_format_bytes(e, sizeof e, m.activations));
    if (train_steps_done(t))
        fprintf(stderr, "resume  after step %llu and %llu tokens, at sample %llu of the data\n",
                (unsigned long long)train_steps_done(t), (unsigned long long)train_tokens_done(t),
                (unsigned long long)train_samples_done(t));
}

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
    const double per = !strcmp(o.optimizer, "adamw") ? 16.0 : o.momentum > 0.0 ? 12.0 : 8.0;
    const double bytes = (double)model_parameters(c)
                         * (per + (strcmp(o.precision, "fp32") ? 2.0 : 0.0));
    if (bytes <= (double)dev_info_of(d)->global_bytes)
        return GT_OK;
    return gt_fail(GT_NO_MEMORY, "model '%s' with %s parameters needs %s for weights, gradients and "
                   "optimizer, device '%s' has %s; take a smaller model", c->name,
                   gt_format_count(count, sizeof count, (double)model_parameters(c)),
                   gt_format_bytes(need, sizeof need, (uint64_t)bytes), dev_info_of(d)->id,
                   gt_format_bytes(has, sizeof has, dev_info_of(d)->global_bytes));
}

static train_options options_of(void)
{
    train_options t = { .steps = o.steps, .batch = o.batch, .micro_batch = o.micro_batch,
                        .seq = o.seq, .seed = o.seed, .recompute = o.recompute,
                        .gemm = strcmp(o.gemm, "auto") ? o.gemm : NULL, .run = o.out,
                        .resume = o.resume, .new_data = gt_option_given(table, "data"),
                        .eval_every = o.eval_every,
                        .eval_batches = o.eval_batches, .save_every = o.save_every,
                        .keep = o.keep, .optim = optim_defaults() };
    t.order = strcmp(o.order, "sequential") ? LOADER_SHUFFLED : LOADER_SEQUENTIAL;
    dtype_parse(&t.precision, o.precision);
    optim_kind_parse(&t.optim.kind, o.optimizer);
    optim_schedule_parse(&t.optim.schedule, o.schedule);
    t.optim.lr = o.lr;
    t.optim.min_lr = isnan(o.min_lr) ? -1.0 : o.min_lr;
    t.optim.warmup = o.warmup;
    t.optim.beta1 = o.beta1;
    t.optim.beta2 = o.beta2;
    t.optim.eps = o.eps;
    t.optim.momentum = o.momentum;
    t.optim.weight_decay = o.weight_decay;
    t.optim.clip = o.clip;
    t.optim.decay_share = o.decay_share;
    return t;
}

static gt_status explain(train *t, dev_device *d)
{
    gemm_peak peak;
    gt_status st = train_load(t, 0);
    if (!st)
        st = gemm_peak_cached(d, &peak);
    return st ? st : exec_explain(train_exec(t), stdout, peak.flops);
}

static gt_status build(graph *g, const void *config, const graph_part *part, int training,
                       int recompute)
{
    return model_build_part(g, config, part, training, recompute);
}

/* Written once: what checkpoints were made with is not replaced, not even by what says the same. */
static gt_status save_tokenizer(const data_set *data)
{
    tokenizer *there = NULL;
    char *folder = gt_path_join(o.out, "tokenizer");
    gt_status st = folder ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot write '%s'", o.out);
    if (!st)
        st = gt_folder_tidy(folder);
    if (!st && data->tokenizer && gt_path_is_folder(folder) && tokenizer_open(&there, folder))
        gt_message_clear();             /* half of one, from a run that was killed as it began */
    if (!st && data->tokenizer && (!there || tokenizer_hash(there) != tokenizer_hash(data->tokenizer)))
        st = tokenizer_save(data->tokenizer, folder);
    tokenizer_close(there);
    free(folder);
    return st;
}

/* Weights to start from; a resumed run with a checkpoint never asks for them, and may go on
 * when they are gone. */
static gt_status fill_from(const void *config, params *p, void *context)
{
    cli_source *source = context;
    gt_status st = source->path ? GT_OK : cli_source_open(source, o.from);
    return st ? st : cli_source_fill(config, p, source);
}

/* What rank 0 writes and says before the first step. */
static gt_status begin_run(const model_config *c, const data_set *data, dev_device *d, train *t,
                           const gt_text *why, int again)
{
    enum { SHOWN = 16 };
    if (!again)
        show_memory(data, d, t);
    if (train_plan(t)->ranks > 1)
        train_plan_show(train_plan(t), SHOWN, stderr);
    if (why->size)
        fprintf(stderr, "%s", why->data);
    gt_status st = train_plan_write(train_plan(t), o.out);
    if (!st)
        st = save_tokenizer(data);
    return st ? st : write_config(c);
}

static void end_run(const train_view *v)
{
    char text[32];
    train_view_compare(v, stderr);
    if (v->first_step >= o.steps)
        fprintf(stderr, "done    nothing: the run has its %llu steps already; --steps N asks for more than "
                "%llu\n", (unsigned long long)v->first_step, (unsigned long long)o.steps);
    else
        fprintf(stderr, "done    in %s; %s holds checkpoints, metrics.jsonl and loss.svg\n",
                gt_format_duration(text, sizeof text, (double)(gt_now_ns() - v->start_ns) * 1e-9), o.out);
}

static gt_status wish_of(train_plan_wish *w, const model_config *c, int again)
{
    const train_options t = options_of();
    *w = (train_plan_wish){ .file = again ? NULL : o.plan, .run = o.out,
                            .resume = o.resume && !again,
                            .fresh = gt_option_given(table, "plan") && !started_again };
    w->local = (plan_local_options){ .model = c, .storage = t.precision, .batch = (int)o.batch,
                                     .seq = (int)o.seq, .micro_batch = (int)o.micro_batch,
                                     .schedule = o.pipe_schedule, .sync = o.sync,
                                     .recompute = o.recompute ? 1 : gt_option_given(table, "recompute") ? 0 : -1,
                                     .again = again,
                                     .in_passing = again };
    if (w->file && strcmp(w->file, "auto")) {   /* settles these, unless they were given as well */
        w->local.micro_batch = gt_option_given(table, "micro-batch") ? w->local.micro_batch : 0;
        w->local.sync = gt_option_given(table, "sync") ? o.sync : NULL;
        w->local.recompute = gt_option_given(table, "recompute") ? o.recompute : -1;
    }
    gt_status st = plan_local_number(&w->local.stages, "stages", o.stages);
    if (!st)
        st = plan_local_number(&w->local.replicas, "replicas", o.replicas);
    return st ? st : plan_local_number(&w->local.tensor, "tensor", o.tensor);
}

/* What all ranks need, in one piece. */
typedef struct scene {
    const model_config *config;
    data_set *data;
    const token_split *val;
    cli_source *source;
    dev_device *device;
    net_comm *comm;
    double peak_flops;
    int again;                      /* planned anew in mid-run                               */
    uint64_t start_ns;
} scene;

/* Why all ranks stopped together: did rank 0 only want to plan again, or did a signal come to any of
 * them? The same answer on all ranks, and the same exit code. */
static gt_status ask_why(net_comm *c, int wants, int *again)
{
    net_blobs all;
    const unsigned char mine[2] = { (unsigned char)wants, (unsigned char)gt_stop_asked() };
    int number = mine[1];
    *again = wants;
    gt_status st = c ? net_job_exchange(net_comm_job(c), "why training stopped", mine, sizeof mine, &all)
                     : GT_OK;
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
static gt_status finish_run(const scene *x, train *t, gt_status st)
{
    gt_status last = GT_OK;
    char sentence[1024];
    if (st && st != GT_INTERRUPTED)
        return st;
    snprintf(sentence, sizeof sentence, "%s", gt_message());
    if (o.trace)
        last = trace_save(x->comm, dev_info_of(x->device)->id, o.trace);
    if (!last && x->comm)
        last = train_plan_timeline(t, x->comm, o.out);
    if (!last && x->comm)
        last = net_job_barrier(net_comm_job(x->comm), "the end of training");
    return last ? last : st ? gt_fail(st, "%s", sentence) : GT_OK;
}

/* From a plan to the end, or to where work must move: then *again, and a checkpoint to go on from. */
static gt_status follow_plan(const scene *x, const run_plan *plan, const gt_text *why, int *again)
{
    train_options options = options_of();
    const train_model model = { .name = x->config->name, .config = x->config,
                                .units = model_units(x->config), .build = build,
                                .fill = o.from ? fill_from : NULL, .fill_context = x->source,
                                .flops_per_token = model_flops_per_token(x->config, (int)o.seq) };
    const train_data splits = { &x->data->train, x->val };
    const int speaks = !x->comm || net_comm_rank(x->comm) == 0;
    train *t = NULL;
    options.comm = x->comm;
    options.plan = plan;
    options.peak_flops = x->peak_flops;
    options.resume |= x->again;
    if (o.explain)
        options.run = NULL;
    gt_status st = speaks && !o.explain ? run_starts_write(o.out) : GT_OK;
    if (!st)
        st = train_create(&t, x->device, &model, &splits, &options);
    if (!st && o.explain)
        st = explain(t, x->device);
    else if (!st) {
        train_view v = { .of = t, .comm = x->comm, .steps = o.steps,
                         .step_tokens = (double)(o.batch * o.seq), .json = o.json,
                         .bar = speaks && !o.json && cli_is_terminal(), .replan = o.replan,
                         .slow = o.slow, .start_ns = x->start_ns };
        const train_hooks hooks = train_view_hooks(&v);
        st = train_view_begin(&v);
        if (!st && speaks)
            st = begin_run(x->config, x->data, x->device, t, why, x->again);
        running = t;
        if (gt_stop_asked())
            train_stop(t);
        if (!st)
            st = train_run(t, speaks ? &hooks : NULL);
        running = NULL;
        if (st == GT_INTERRUPTED) {
            char sentence[256];
            snprintf(sentence, sizeof sentence, "%s", gt_message());
            const gt_status asked = ask_why(x->comm, v.wants_plan, again);
            st = asked ? asked : *again ? GT_OK : gt_fail(st, "%s", sentence);
        }
        train_view_end(&v);
        if (!*again)
            st = finish_run(x, t, st);
        if (!st && speaks && !*again)
            end_run(&v);
    }
    train_release(t);
    return st;
}

static gt_status run_training(const model_config *c, data_set *data, const token_split *val,
                              cli_source *source, dev_device *d, net_comm *comm)
{
    scene x = { c, data, val, source, d, comm, 0.0, 0, gt_now_ns() };
    gemm_peak peak = { 0 };
    int again = 0;
    gt_status st = gemm_peak_cached(d, &peak);
    if (!st) {
        dtype storage = DTYPE_F32;
        dtype_parse(&storage, o.precision);
        x.peak_flops = gemm_peak_of(dev_info_of(d), storage == DTYPE_F32 ? 0 : dev_matrix_units(d), &peak, storage)
                       * dev_slowdown(d);
    }
    st = o.trace ? gt_trace_start(GT_TRACE_ROOM) : GT_OK;
    do {
        train_plan_wish wish;
        run_plan plan = { 0 };
        gt_text why = { 0 };
        x.again = again;
        again = 0;
        if (!st)
            st = wish_of(&wish, c, x.again);
        if (!st)
            st = train_plan_settle(&plan, &why, comm, d, &wish);
        if (!st)
            st = follow_plan(&x, &plan, &why, &again);
        gt_text_release(&why);
        run_plan_release(&plan);
    } while (!st && again);
    return st;
}

/* What is trained: on resuming what the run's config.json says, so that a preset, file or
 * folder that changed meanwhile changes nothing. */
static gt_status choose_model(model_config *c, cli_source *source, int resumed)
{
    if (resumed && !gt_option_given(table, "model"))
        return model_config_load(c, o.out);
    gt_status st = o.from ? cli_source_open(source, o.from) : GT_OK;
    if (!st && o.model)
        st = model_config_load(c, o.model);
    else if (!st)
        *c = source->config;
    return st;
}

/* The tokenizer that texts are read with if nothing else is said; path NULL: there is none yet. */
typedef struct own_tokenizer {
    const char *model;                  /* the run or folder it belongs to */
    char *path;
    tokenizer *tokenizer;
    int binding;                        /* weights were trained with it: no other will do */
} own_tokenizer;

static void own_tokenizer_close(own_tokenizer *own)
{
    tokenizer_close(own->tokenizer);
    free(own->path);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot open the tokenizer: out of memory");
}

/* What a run that is resumed was begun with. A run that was killed before it had written that has
 * no checkpoint either. */
static gt_status run_tokenizer(own_tokenizer *own)
{
    char *folder = gt_path_join(o.out, "tokenizer");
    char *file = folder ? gt_path_join(folder, "tokenizer.json") : NULL;
    gt_status st = file ? GT_OK : no_memory();
    if (!st && gt_path_exists(file)) {
        *own = (own_tokenizer){ .model = o.out, .path = folder, .binding = 1 };
        st = tokenizer_open(&own->tokenizer, folder);
        folder = NULL;
    }
    free(file);
    free(folder);
    return st;
}

/* That of a folder which describes a new model: its vocabulary was made for it. */
static gt_status folder_tokenizer(own_tokenizer *own, const char *folder)
{
    if (!gt_path_is_folder(folder) || !tokenizer_is_in(folder))
        return GT_OK;
    own->model = folder;
    own->path = strdup(folder);
    return own->path ? tokenizer_open(&own->tokenizer, folder) : no_memory();
}

/* Takes it from the source: nobody else asks there. */
static gt_status weights_tokenizer(own_tokenizer *own, cli_source *source)
{
    if (!source->tokenizer_path)
        return GT_OK;
    *own = (own_tokenizer){ .model = o.from, .path = source->tokenizer_path,
                            .tokenizer = source->tokenizer, .binding = 1 };
    source->tokenizer_path = NULL;
    source->tokenizer = NULL;
    return source->tokenizer_status ? cli_source_tokenizer(source, "") : GT_OK;
}

static gt_status find_own_tokenizer(own_tokenizer *own, cli_source *source, int resumed)
{
    gt_status st = o.resume ? run_tokenizer(own) : GT_OK;
    if (st || own->path || resumed)
        return st;
    if (o.from)
        return weights_tokenizer(own, source);
    return gt_option_given(table, "tokenizer") ? GT_OK : folder_tokenizer(own, o.model);
}

/* A text is read with the model's own tokenizer unless --tokenizer says, and only a new model may
 * go without. Token files may bring the one that they were made with. */
static gt_status choose_tokenizer(own_tokenizer *own, cli_source *source, int resumed,
                                  const char **spec)
{
    const int text = data_kind_of(o.data) == DATA_TEXT;
    const int eval_text = o.eval_data && o.eval_every && data_kind_of(o.eval_data) == DATA_TEXT;
    char *brought = gt_path_join(o.data, "tokenizer");
    const int brings = !text && brought && gt_path_is_folder(brought);
    free(brought);
    gt_status st = find_own_tokenizer(own, source, resumed);
    if (st && !text && !eval_text && !brings && !o.tokenizer) {
        gt_message_clear();             /* bare tokens can do without it */
        st = GT_OK;
    }
    const int given = gt_option_given(table, "tokenizer");
    *spec = given ? o.tokenizer : brings ? NULL : own->tokenizer ? own->path : o.tokenizer;
    if (!st && !*spec && !brings && (eval_text || (text && (o.from || resumed))))
        st = gt_fail(GT_NOT_FOUND, "there is no tokenizer to read '%s' with: %s '%s' came without one; name "
                     "the one that it was made with by --tokenizer", text ? o.data : o.eval_data,
                     resumed ? "run" : text ? "the model of" : "the data of",
                     resumed ? o.out : text ? o.from : o.data);
    return st;
}

static gt_status check_tokenizer(const own_tokenizer *own, const data_set *data)
{
    char what[512];
    const int given = gt_option_given(table, "tokenizer");
    snprintf(what, sizeof what, given ? "--tokenizer %s" : "that of '%s'", given ? o.tokenizer : o.data);
    return own->binding ? cli_same_tokenizer(own->model, own->tokenizer, own->path, data->tokenizer, what)
                        : GT_OK;
}

/* The vocabulary is the tokenizer's unless the description fixes it. */
static gt_status settle_vocabulary(model_config *c, const data_set *data)
{
    const int V = data->tokenizer ? (int)tokenizer_vocab(data->tokenizer) : 0;
    if (!V && !c->vocab)
        return gt_fail(GT_MISMATCH, "'%s' came without a tokenizer, and model '%s' leaves the "
                       "vocabulary to it; name one with --tokenizer", o.data, c->name);
    if (V > c->vocab && c->vocab_given)
        return gt_fail(GT_MISMATCH, "the tokenizer has %d tokens, model '%s' only %d", V, c->name,
                       c->vocab);
    if (V && !c->vocab_given)
        c->vocab = V;
    return GT_OK;
}

static gt_status check_words(char **words, int count)
{
    if (count)
        return cli_no_words(words, &help);
    if (!o.out && o.explain)
        o.out = "";
    if (!o.out)
        return gt_fail(GT_MISUSE, "where shall the run go? name a folder with --out RUN");
    return GT_OK;
}

static gt_status check_useless(void)
{
    const int adamw = !strcmp(o.optimizer, "adamw");
    const cli_useless rules[] = {
        { "eval-data", !o.eval_every, "--eval-every 0 asks for no validation" },
        { "eval-batches", !o.eval_every && o.eval_batches, "--eval-every 0 asks for no validation" },
        { "min-lr", !strcmp(o.schedule, "constant"), "--lr-schedule constant stays at --lr" },
        { "decay-share", strcmp(o.schedule, "wsd") != 0, "it belongs to --lr-schedule wsd" },
        { "momentum", adamw, "it belongs to --optimizer sgd" },
        { "beta1", !adamw, "it belongs to --optimizer adamw" },
        { "beta2", !adamw, "it belongs to --optimizer adamw" },
        { "eps", !adamw, "it belongs to --optimizer adamw" },
        { "trace", o.explain, "--explain trains nothing" },
        { "json", o.explain, "--explain prints a table" },
    };
    return cli_check_useless(table, rules, sizeof rules / sizeof *rules);
}

/* It is written after the last step: too late to learn that there is no such folder. */
static gt_status check_trace(void)
{
    const char *end = o.trace ? strrchr(o.trace, '/') : NULL;
    char *folder = end && end > o.trace ? strndup(o.trace, (size_t)(end - o.trace)) : NULL;
    gt_status st = GT_OK;
    if (folder && !gt_path_is_folder(folder))
        st = gt_fail(GT_MISUSE, "option --trace: there is no folder '%s'", folder);
    else if (o.trace && (!*o.trace || gt_path_is_folder(o.trace)))
        st = gt_fail(GT_MISUSE, "option --trace: '%s' is no file", o.trace);
    free(folder);
    return st;
}

static gt_status check_options(void)
{
    if (o.resume && (!o.data || (!o.model && !o.from)))
        return gt_fail(GT_MISUSE, "cannot resume '%s': its config.json does not say --%s; give it "
                       "again", o.out, o.data ? "model" : "data");
    if (!o.data || (!o.model && !o.from))
        return cli_missing(&help, o.data ? "--model NAME|FILE|DIR" : "--data FILE|DIR");
    if (!o.steps)
        return gt_fail(GT_MISUSE, "option --steps: 0 steps are none");
    if (o.dropout < 0.0 || o.dropout >= 1.0)
        return gt_fail(GT_MISUSE, "option --dropout: %g is not in [0, 1)", o.dropout);
    if (o.min_lr < 0.0)
        return gt_fail(GT_MISUSE, "option --min-lr: %g is below 0", o.min_lr);
    gt_status st = check_useless();
    return st ? st : check_trace();
}

/* A new run must not write over an old one, nor over a model that lies there. *again: the run is this
 * job's own, from a start before. */
static gt_status check_run_folder(int *again)
{
    static const char *const signs[] = { "metrics.jsonl", "checkpoints", "config.json" };
    if (o.resume || o.explain)
        return GT_OK;
    *again = run_starts_again(o.out);
    for (int i = 0; i < 3 && !*again; i++) {
        char *sign = gt_path_join(o.out, signs[i]);
        const int taken = sign && gt_path_exists(sign);
        free(sign);
        if (taken)
            return gt_fail(GT_MISUSE, i < 2 ? "'%s' holds a run already; go on with --resume, or name "
                           "another folder" : "'%s' holds a config.json already; name another "
                           "folder", o.out);
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
        o.resume = 1;
        if (speaks)
            fprintf(stderr, "again   an earlier start of this job began '%s'; going on with it\n", o.out);
    }
    return st;
}

static json_t *kept;                    /* what a resumed run's config.json says */

/* Texts are tokenized once, by rank 0; the others find the tokens. */
static gt_status open_data(data_set *data, data_set *eval_data, const char *spec, net_comm *c)
{
    cli_progress p = { .what = "tokenizing" };
    data_request r = { .spec = spec, .token_bits = strcmp(o.bits, "auto") ? atoi(o.bits) : 0,
                       .progress = cli_progress_show, .context = &p };
    gt_status st = c && net_comm_rank(c) ? net_job_barrier(net_comm_job(c), "tokenizing") : GT_OK;
    if (!st)
        st = data_open_as(data, o.data, &r);
    r.whole = o.eval_data && data_kind_of(o.eval_data) == DATA_TEXT;
    r.token_bits = r.whole ? 0 : r.token_bits;
    r.spec = data->tokenizer_path;
    if (!st && o.eval_data && o.eval_every)
        st = data_open_as(eval_data, o.eval_data, &r);
    cli_progress_end(&p);
    if (!st && c && !net_comm_rank(c))
        st = net_job_barrier(net_comm_job(c), "tokenizing");
    return st;
}

/* What is validated on; *val NULL: nothing. Who asked for it is told that there is nothing to
 * validate on; who did not reads it among what will run (show_validation). */
static gt_status choose_validation(const token_split **val, const data_set *data,
                                   const data_set *eval_data)
{
    const token_split *s = !o.eval_data ? &data->val
                           : eval_data->val.count ? &eval_data->val : &eval_data->train;
    *val = o.eval_every && s->count > o.seq ? s : NULL;
    if (*val || !o.eval_every
        || (!gt_option_given(table, "eval-every") && !gt_option_given(table, "eval-data")))
        return GT_OK;
    return gt_fail(GT_MISMATCH, "cannot validate on %s'%s': it has %llu tokens, a sequence takes %llu + 1; "
                   "%slower --seq, or say --eval-every 0", o.eval_data ? "" : "the validation part of ",
                   o.eval_data ? o.eval_data : o.data, (unsigned long long)s->count,
                   (unsigned long long)o.seq, o.eval_data ? "give more text, " : "name a text with --eval-data, ");
}

/* A resumed run's devices, unless there are now other ranks on this host than it had devices. */
static gt_status keep_devices(uint64_t ranks)
{
    uint64_t count = 0;
    if (!kept || !o.devices || gt_option_given(table, "devices") || !ranks)
        return GT_OK;
    gt_status st = rank_device_count(o.devices, &count);
    if (!st && count > 1 && count != ranks)
        o.devices = NULL;
    return st;
}

/* One rank, or the only one (c NULL). */
static gt_status train_here(net_comm *c)
{
    const char *tokenizer_spec = NULL;
    own_tokenizer own = { 0 };
    model_config config;
    cli_source source = { 0 };
    data_set data = { 0 }, eval_data = { 0 };
    dev_device *d = NULL;
    if (!c)                             /* else rank 0 has begun to when it joined */
        cli_busy_start();
    gt_status st = settle_run_folder(c);
    if (!st)
        st = choose_model(&config, &source, kept != NULL);
    if (!st && !isnan(o.dropout))
        config.dropout_embed = config.dropout_attention = config.dropout_residual = (float)o.dropout;
    if (!st)
        st = choose_tokenizer(&own, &source, kept != NULL, &tokenizer_spec);
    if (!st)
        st = open_data(&data, &eval_data, tokenizer_spec, c);
    if (!st)
        st = check_tokenizer(&own, &data);
    if (!st)
        st = settle_vocabulary(&config, &data);
    if (!st && !o.seq)
        o.seq = (uint64_t)config.context;
    const token_split *val = NULL;
    if (!st)
        st = choose_validation(&val, &data, &eval_data);
    if (!st && !c && o.replan && gt_option_given(table, "replan"))
        st = gt_fail(GT_MISUSE, "option --replan would be ignored: one rank has nobody to move work to; "
                     "name several devices with --devices");
    if (!st && c)
        st = train_agree(c, table, &config, &data.train, val);
    if (!st)
        st = keep_devices(c ? (uint64_t)net_job_member(net_comm_job(c), net_comm_rank(c))->local_size : 1);
    if (!st)
        st = rank_device_open(&d, o.devices, c);
    if (!st)
        st = check_fit(&config, d);
    if (!st && (!c || !net_comm_rank(c)))
        show_job(&config, &data, d);
    if (!st) {
        gt_stop_listen(stop_running);
        cli_comm_listen();
        st = run_training(&config, &data, val, &source, d, c);
    }
    dev_close(d);
    data_close(&data);
    data_close(&eval_data);
    cli_source_close(&source);
    own_tokenizer_close(&own);
    return st;
}

/* Before ranks are started: what they would all say is said once. */
static gt_status check_shares(int ranks)
{
    train_plan_wish w;
    gt_status st = wish_of(&w, NULL, 0);
    if (!st && o.batch && o.batch <= INT32_MAX)
        st = train_plan_check(&w, ranks);
    return st;
}

gt_status verb_train(int argc, char **argv)
{
    char **words;
    int count, done;
    set_defaults();
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    st = check_words(words, count);
    if (!st && o.resume)
        st = take_options(&kept);
    if (!st)
        st = check_options();
    if (!st)
        st = keep_devices(o.comm.ranks);
    if (!st)
        st = rank_device_count(o.devices, &o.comm.ranks);
    o.comm.may_be_alone = 1;
    o.comm.check = check_shares;
    if (!st)
        st = cli_comm_run(&o.comm, argv, train_here);
    json_decref(kept);
    return st;
}
