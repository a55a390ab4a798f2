/* host/cli/verb_eval.c - the loss of a model on a text. */
#include "host/cli/busy.h"
#include "host/cli/cli.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *from, *data, *devices, *precision, *split;
    uint64_t batch, seq, batches;
    int json;
} o = { .precision = "fp32", .split = "val", .batch = 8 };

static const gt_option table[] = {
    { .group = "Evaluation" },
    { "from", 0, GT_STRING, "RUN|DIR", "run directory or Hugging Face folder", &o.from, 0, NULL },
    { "data", 'd', GT_STRING, "FILE|DIR", "text, or tokens", &o.data, 0, NULL },
    { "split", 0, GT_CHOICE, "train|val", "which part of it", &o.split, 0, NULL },
    { "batch", 'b', GT_U64, "N", "sequences at once", &o.batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence, 0: the model's context", &o.seq, 0, NULL },
    { "batches", 0, GT_U64, "N", "only the first N batches, 0: all", &o.batches, 0, NULL },
    { .group = "Device" },
    { "devices", 0, GT_STRING, "ID", "see `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, "fp32|bf16|fp16", "storage", &o.precision, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object", &o.json, 0, NULL },
    { 0 } };

static const cli_help help = {
    "eval --from RUN|DIR --data FILE|DIR [options]", "Measure the loss of a model on a text.",
    "  geartrain eval --from runs/shakespeare --data input.txt\n" };

typedef struct parts {
    dev_device *device;
    kernel_set *kernels;
    gemm_context *gemm;
    graph *graph;
    params *params;
    exec_arena *arena;
    run_plan plan;
    evaluate *evaluate;
} parts;

static gt_status build(graph *g, const void *config, const graph_part *part, int training,
                       int recompute)
{
    return model_build_part(g, config, part, training, recompute);
}

static gt_status assemble(parts *p, cli_source *s, const token_split *split, dtype storage)
{
    gt_status st = dev_open(&p->device, o.devices);
    if (!st)
        st = kernel_set_create(&p->kernels, p->device, storage);
    if (!st)
        st = gemm_context_create(&p->gemm, p->device, NULL);
    if (!st)
        st = graph_create(&p->graph, storage, 1, 1);
    if (!st)
        st = model_build_loss(p->graph, &s->config, 0, 0);
    if (!st)
        st = params_create(&p->params, p->device, p->graph, 0);
    if (!st)
        st = cli_source_fill(&s->config, p->params, s);
    if (!st)
        st = params_refresh(p->params, p->kernels);
    if (!st)
        st = exec_arena_create(&p->arena, p->device);
    if (!st)
        st = run_plan_single(&p->plan, model_units(&s->config), (int)o.batch, (int)o.batch, 0);
    const evaluate_options e = {
        .place = { .exec = { .device = p->device, .kernels = p->kernels, .gemm = p->gemm,
                             .params = p->params }, .passing = p->arena },
        .plan = &p->plan, .split = split, .seq = o.seq, .rows = o.batches * o.batch };
    const stage_model m = { &s->config, build, storage, (int)o.seq };
    if (!st)
        st = evaluate_create(&p->evaluate, &m, &e);
    return st ? st : evaluate_ready(p->evaluate);
}

static void release(parts *p)
{
    evaluate_release(p->evaluate);
    run_plan_release(&p->plan);
    exec_arena_release(p->arena);
    params_release(p->params);
    graph_release(p->graph);
    gemm_context_release(p->gemm);
    kernel_set_release(p->kernels);
    dev_close(p->device);
}

static gt_status run(cli_source *s, const token_split *split, dtype storage)
{
    parts p = { 0 };
    double loss = NAN;
    uint64_t tokens = 0;
    gt_status st = assemble(&p, s, split, storage);
    const uint64_t start = gt_now_ns();
    if (!st)
        st = evaluate_run(p.evaluate, &loss, &tokens);
    const double seconds = (double)(gt_now_ns() - start) * 1e-9;
    if (!st && !isfinite(loss))
        st = gt_fail(GT_NUMERIC, "the loss is not finite; are the weights of '%s' whole?", o.from);
    if (!st && o.json)
        printf("{\"loss\": %.9g, \"perplexity\": %.9g, \"tokens\": %llu, \"tokens_per_s\": %.1f}\n",
               loss, exp(loss), (unsigned long long)tokens, (double)tokens / seconds);
    else if (!st)
        printf("loss %.6f  perplexity %.3f  over %llu tokens  %.1f tok/s\n", loss, exp(loss),
               (unsigned long long)tokens, (double)tokens / seconds);
    release(&p);
    return st;
}

/* The tokenizer that belongs to the model reads a text; token files bring their own. */
static gt_status open_data(data_set *data, const cli_source *s)
{
    char *folder = s->is_run ? gt_path_join(s->path, "tokenizer") : NULL;
    const char *spec = !s->tokenizer ? NULL : folder ? folder : s->path;
    cli_progress p = { .what = "tokenizing" };
    gt_status st = data_open(data, o.data, spec, cli_progress_show, &p);
    cli_progress_end(&p);
    free(folder);
    return st;
}

gt_status verb_eval(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    data_set data = { 0 };
    dtype storage;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count || !o.from || !o.data)
        return gt_fail(GT_MISUSE, "usage: geartrain %s", help.usage);
    if (!o.batch)
        return gt_fail(GT_MISUSE, "option --batch: 0 sequences are none");
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = cli_source_open(&s, o.from);
    if (st)
        return st;
    if (!o.seq)
        o.seq = (uint64_t)s.config.context;
    st = open_data(&data, &s);
    if (!st) {
        const int train = !strcmp(o.split, "train");
        const token_split *split = train || !data.val.count ? &data.train : &data.val;
        st = run(&s, split, storage);
    }
    data_close(&data);
    cli_source_close(&s);
    return st;
}
