/* SPDX-License-Identifier: MIT */
/* host/cli/bench_device.c - measurements of one device: gemm, kernels, step, generate.
 *
 * Every result is checked before it is timed, warmed up, repeated, and printed as
 * min / median / p99 beside the ceiling it should be held against.                      */
#include "host/cli/choices.h"
#include "host/cli/bench.h"
#include "host/cli/bench_tune.h"
#include "host/cli/busy.h"
#include "host/cli/cli.h"

#include "host/base/clock.h"
#include "host/base/random.h"
#include "host/base/text.h"
#include "host/gemm/gemm.h"
#include "host/kernel/kernel_cases.h"
#include "host/train/train.h"
#include "models/generate.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct {
    const char *devices, *precision, *engine, *shapes, *pick, *model, *base;
    uint64_t batch, seq, runs, micro_batch, prompt, tokens, budget, variants;
    int json, recompute, explain, tune;
} o = { .engine = "auto",
        .model = "gpt2-124m",
        .batch = 4,
        .seq = 64,
        .runs = 5,
        .prompt = 32,
        .tokens = 64,
        .budget = 120 * UINT64_C(1000000000),
        .variants = 64 };

static const gt_option table[] = {
    { .group = "All" },
    { "devices", 0, GT_STRING, "ID", "id from `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "runs", 'n', GT_U64, "N", "timed runs", &o.runs, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object a line", &o.json, 0, NULL },
    { .group = "gemm" },
    { "shapes", 0, GT_STRING, "MxNxK,...", "products; default: GPT-2's", &o.shapes, 0, NULL },
    { "engine", 0, GT_CHOICE, cli_engines, "engine", &o.engine, 0, NULL },
    { "tune", 0, GT_FLAG, NULL, "look for faster tiles for --shapes or --model, and keep them", &o.tune, 0, NULL },
    { "seconds", 0, GT_DURATION, "T", "--tune: for all products together", &o.budget, 0, NULL },
    { "variants", 0, GT_U64, "N", "--tune: for each product", &o.variants, 0, NULL },
    { .group = "kernels" },
    { "kernel", 0, GT_STRING, "TEXT", "part of the names of kernels to measure", &o.pick, 0, NULL },
    { .group = "step, generate, gemm --tune" },
    { "model", 'm', GT_STRING, "NAME|FILE", "which model, with random weights", &o.model, 0, NULL },
    { .group = "step, gemm --tune" },
    { "batch", 'b', GT_U64, "N", "sequences a step", &o.batch, 0, NULL },
    { "micro-batch", 0, GT_U64, "N", "sequences at once, 0: all", &o.micro_batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence", &o.seq, 0, NULL },
    { "recompute", 0, GT_FLAG, NULL, "activations computed again instead of kept", &o.recompute, 0, NULL },
    { "explain", 0, GT_FLAG, NULL, "step: also every node's time", &o.explain, 0, NULL },
    { .group = "generate" },
    { "prompt", 0, GT_U64, "N", "tokens that are there before", &o.prompt, 0, NULL },
    { "tokens", 0, GT_U64, "N", "tokens that are drawn, one after the other", &o.tokens, 0, NULL },
    { "base-precision", 0, GT_CHOICE, "fp32|bf16|int8", "of matrices; default: --precision", &o.base, 0, NULL },
    { 0 }
};

static const cli_help help = {
    "bench gemm|kernels|step|generate|attention [options]",
    "Measure matrix products, kernels, training steps, generation, attention; between ranks: "
    "bench\nlink, allreduce, reduce-scatter, all-gather, broadcast, each with its own -h.",
    "  geartrain bench step --model gpt2-124m --batch 4 --seq 64\n"
    "  geartrain bench generate --model gpt2-124m --precision bf16\n"
    "  geartrain bench gemm --shapes 1024x1024x1024 --engine tiled\n"
    "  geartrain bench gemm --tune --model gpt2-124m --batch 4 --seq 64\n"
    "  geartrain bench kernels --kernel layernorm\n"
};

/* ---- gemm -------------------------------------------------------------------------------------- */

static const char default_shapes[] = "512x512x512,1024x1024x1024,2048x2048x2048,256x768x768,256x3072x768,256x768x3072,"
                                     "1024x3072x768,256x50257x768";

typedef struct gemm_row {
    const gemm_desc *d;
    const char *trans;
} gemm_row;

static void show_gemm(void *context, const gemm_result *r)
{
    const gemm_row *row = context;
    if (o.json)
        printf("{\"bench\": \"gemm\", \"M\": %d, \"N\": %d, \"K\": %d, \"layout\": \"%s\", "
               "\"engine\": \"%s\", \"min_ms\": %.4f, \"median_ms\": %.4f, \"p99_ms\": %.4f, "
               "\"gflops\": %.2f, \"share_of_peak\": %.4f}\n",
               row->d->M, row->d->N, row->d->K, row->trans, r->engine, r->min_s * 1e3, r->median_s * 1e3,
               r->p99_s * 1e3, r->flops * 1e-9, r->share);
    else
        printf("%6d %6d %6d  %-3s %-8s %9.3f %9.3f %9.3f %9.1f %6.1f%%\n", row->d->M, row->d->N, row->d->K, row->trans,
               r->engine, r->min_s * 1e3, r->median_s * 1e3, r->p99_s * 1e3, r->flops * 1e-9, 100.0 * r->share);
    fflush(stdout);
}

static const struct {
    const char *name;
    int a, b;
} layouts[] = { { "NT", 0, 1 }, { "NN", 0, 0 }, { "TN", 1, 0 } };

/* Takes the next of --shapes, and the comma behind it. */
static gt_status next_shape(const char **p, gemm_desc *out)
{
    int used = 0;
    if (sscanf(*p, "%dx%dx%d%n", &out->M, &out->N, &out->K, &used) != 3 || out->M < 1 || out->N < 1 || out->K < 1
        || ((*p)[used] && (*p)[used] != ','))
        return gt_fail(GT_MISUSE, "option --shapes: '%s' does not begin with MxNxK", *p);
    *p += used + ((*p)[used] == ',');
    return GT_OK;
}

static gt_status load_model(model_config *out)
{
    gt_status st = model_config_load(out, o.model);
    if (!st && !out->vocab)
        out->vocab = 256;
    if (!st && (o.batch * o.seq < 1 || o.batch > 1u << 20 || o.seq > (uint64_t)out->context))
        st = gt_fail(GT_MISUSE, "batch must be at least 1, and seq from 1 to the model's %d", out->context);
    return st;
}

static gt_status tune_gemm(dev_device *d, dtype storage)
{
    graph_product_list products = { 0 };
    model_config c;
    const bench_tune_options options = {
        .engine = strcmp(o.engine, "auto") ? o.engine : NULL,
        .model = o.shapes ? NULL : o.model,
        .seconds = (double)o.budget * 1e-9,
        .variants = (int)o.variants,
        .json = o.json
    };
    gt_status st = GT_OK;
    for (const char *p = o.shapes; !st && p && *p;) {
        gemm_desc desc = { .a_type = storage, .b_type = storage, .c_type = storage };
        st = next_shape(&p, &desc);
        for (int i = 0; !st && i < 3; i++) {
            desc.trans_a = layouts[i].a;
            desc.trans_b = layouts[i].b;
            graph_product_list_add(&products, &desc);
        }
    }
    if (!o.shapes)
        st = load_model(&c);
    if (!st && !o.shapes)
        st = bench_products_of(&products, &c, storage, (int)(o.micro_batch ? o.micro_batch : o.batch), (int)o.seq,
                               o.recompute);
    if (!st)
        st = bench_tune(d, &products, &options);
    graph_product_list_release(&products);
    return st;
}

static gt_status bench_gemm(dev_device *d, dtype storage)
{
    gemm_context *g = NULL;
    gemm_peak peak;
    gt_status st = gemm_peak_measure(d, &peak);
    if (!st)
        st = gemm_context_create(&g, d, strcmp(o.engine, "auto") ? o.engine : NULL);
    if (!st && !o.json)
        printf("# %s, %s, multiply-add peak %.1f GFLOP/s, results checked, %llu timed runs\n"
               "     M      N      K      engine      min ms    median       p99   GFLOP/s   peak\n",
               dev_info_of(d)->name, dtype_name(storage), peak.flops * 1e-9, (unsigned long long)o.runs);
    for (const char *p = o.shapes ? o.shapes : default_shapes; !st && *p;) {
        gemm_desc desc = { .a_type = storage, .b_type = storage, .c_type = storage };
        st = next_shape(&p, &desc);
        for (int i = 0; !st && i < 3; i++) {
            desc.trans_a = layouts[i].a;
            desc.trans_b = layouts[i].b;
            gemm_row row = { &desc, layouts[i].name };
            st = gemm_bench(g, &desc, (int)o.runs, peak.flops, show_gemm, &row);
        }
    }
    gemm_context_release(g);
    return st;
}

/* ---- kernels ------------------------------------------------------------------------------------ */

static void show_kernel(void *context, const kernel_timing *t)
{
    const double copy = *(const double *)context, rate = (double)t->bytes / t->median;
    if (o.json)
        printf("{\"bench\": \"kernels\", \"name\": \"%s\", \"R\": %d, \"C\": %d, \"min_ms\": %.4f, "
               "\"median_ms\": %.4f, \"p99_ms\": %.4f, \"gbytes_per_s\": %.2f, \"gflops\": %.2f, "
               "\"share_of_copy\": %.4f}\n",
               t->name, t->R, t->C, t->min * 1e3, t->median * 1e3, t->p99 * 1e3, rate * 1e-9,
               t->flops / t->median * 1e-9, rate / copy);
    else
        printf("%-28s %6d %6d %9.3f %9.3f %9.3f %8.1f %8.1f%% %9.1f\n", t->name, t->R, t->C, t->min * 1e3,
               t->median * 1e3, t->p99 * 1e3, rate * 1e-9, 100.0 * rate / copy, t->flops / t->median * 1e-9);
    fflush(stdout);
}

static gt_status bench_kernels(dev_device *d, dtype storage)
{
    double copy = 0.0;
    if (!o.json)
        printf("# %s, %s, results checked; GB/s counts operands once, %% is of a plain copy\n"
               "kernel                            R      C    min ms    median       p99     GB/s"
               "     copy   GFLOP/s\n",
               dev_info_of(d)->name, dtype_name(storage));
    return kernel_bench(d, storage, o.pick, &copy, show_kernel, &copy);
}

/* ---- step --------------------------------------------------------------------------------------- */

static uint64_t peak_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024u;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void keep_best(void *context, const gemm_result *r)
{
    double *best = context;
    if (r->flops > *best)
        *best = r->flops;
}

/* The best a single large product reaches: what a step's products are held against. */
static gt_status gemm_ceiling(dev_device *d, dtype storage, double *flops)
{
    gemm_context *g;
    *flops = 0.0;
    gt_status st = gemm_context_create(&g, d, NULL);
    if (st)
        return st;
    const int n = dev_info_of(d)->kind == DEV_GPU ? 4096 : 1024;
    for (int trans = 0; !st && trans < 2; trans++) {
        const gemm_desc desc = {
            .M = n, .N = n, .K = n, .trans_b = trans, .a_type = storage, .b_type = storage, .c_type = storage
        };
        st = gemm_bench(g, &desc, 5, 0.0, keep_best, flops);
    }
    gemm_context_release(g);
    return st;
}

typedef struct step_result {
    double min, median, p99, busy_share, peak, first_s;
    uint64_t planned, before, measured;
    train_memory memory;
} step_result;

static gt_status time_steps(train *t, dev_device *d, step_result *r)
{
    double *seconds = malloc((size_t)(o.runs + 1) * sizeof *seconds), loss, norm;
    gt_status st = seconds ? GT_OK
                           : gt_fail(GT_NO_MEMORY, "no memory for the times of %llu steps", (unsigned long long)o.runs);
    for (int i = 0; !st && i < 2; i++)
        st = train_once(t, (uint64_t)i, 1, &loss, &norm);
    if (!st && !isfinite(loss))
        st = gt_fail(GT_NUMERIC, "cannot bench: the loss of random weights is not finite");
    for (uint64_t i = 0; !st && i < o.runs; i++) {
        const uint64_t start = gt_now_ns();
        st = train_once(t, 2 + i, 1, &loss, &norm);
        seconds[i] = (double)(gt_now_ns() - start) * 1e-9;
    }
    if (!st) {
        qsort(seconds, (size_t)o.runs, sizeof *seconds, by_value);
        r->min = seconds[0];
        r->median = seconds[o.runs / 2];
        r->p99 = seconds[(o.runs - 1) * 99 / 100];
        r->measured = peak_bytes();
        /* A further run, with an event on every launch: how much of the time is kernels. */
        dev_busy_count(d, 1);
        const double busy = dev_busy_seconds(d);
        const uint64_t start = gt_now_ns();
        for (int i = 0; !st && i < 3; i++)
            st = train_once(t, 100 + (uint64_t)i, 1, &loss, &norm);
        r->busy_share = (dev_busy_seconds(d) - busy) / ((double)(gt_now_ns() - start) * 1e-9);
        dev_busy_count(d, 0);
    }
    free(seconds);
    return st;
}

static void show_step(const model_config *c, const step_result *r)
{
    char a[32], b[32], e[32], f[32];
    const double tokens = (double)(o.batch * o.seq);
    const double flops = model_flops_per_token(c, (int)o.seq) * tokens;
    const double n = (double)model_parameters(c);
    if (o.json) {
        printf("{\"bench\": \"step\", \"model\": \"%s\", \"parameters\": %.0f, \"batch\": %llu, "
               "\"seq\": %llu, \"precision\": \"%s\", \"min_ms\": %.3f, \"median_ms\": %.3f, "
               "\"p99_ms\": %.3f, \"tokens_per_s\": %.2f, \"model_gflop\": %.3f, \"gflops\": %.2f, "
               "\"gemm_peak_gflops\": %.2f, \"share_of_gemm_peak\": %.4f, \"outside_kernels\": "
               "%.4f, \"planned_bytes\": %llu, \"measured_bytes\": %llu}\n",
               c->name, n, (unsigned long long)o.batch, (unsigned long long)o.seq, o.precision, r->min * 1e3,
               r->median * 1e3, r->p99 * 1e3, tokens / r->median, flops * 1e-9, flops / r->median * 1e-9,
               r->peak * 1e-9, flops / r->median / r->peak, 1.0 - r->busy_share, (unsigned long long)r->planned,
               (unsigned long long)r->measured);
        return;
    }
    printf("model     %s, %s parameters, batch %llu x %llu tokens, %s\n", c->name, gt_format_count(a, sizeof a, n),
           (unsigned long long)o.batch, (unsigned long long)o.seq, o.precision);
    printf("step      min %.1f ms, median %.1f ms, p99 %.1f ms over %llu steps\n", r->min * 1e3, r->median * 1e3,
           r->p99 * 1e3, (unsigned long long)o.runs);
    printf("speed     %.1f tokens/s, %.1f model GFLOP/s of %.1f GFLOP a step\n", tokens / r->median,
           flops / r->median * 1e-9, flops * 1e-9);
    printf("peak      %.1f GFLOP/s is the best GEMM here: the step reaches %.1f %% of it\n", r->peak * 1e-9,
           100.0 * flops / r->median / r->peak);
    printf("outside   %.1f %% of the step is not in kernels; %.2f s from start to the first step's "
           "end\n",
           100.0 * (1.0 - r->busy_share), r->first_s);
    printf("memory    plan %s: parameters %s, gradients and moments %s, activations and scratch %s",
           gt_format_bytes(a, sizeof a, r->planned),
           gt_format_bytes(b, sizeof b, r->memory.parameters + r->memory.copies),
           gt_format_bytes(e, sizeof e, r->memory.gradients + r->memory.state),
           gt_format_bytes(f, sizeof f, r->memory.activations));
    printf(", inputs and state %s, process and driver %s\n", gt_format_bytes(a, sizeof a, r->memory.inputs),
           gt_format_bytes(b, sizeof b, r->before));
    if (r->measured)
        printf("          measured %s at its peak, %+.1f %% of the plan\n", gt_format_bytes(a, sizeof a, r->measured),
               100.0 * ((double)r->measured / (double)r->planned - 1.0));
}

static gt_status bench_step(dev_device *d, dtype storage, uint64_t start)
{
    model_config c;
    step_result r = { 0 };
    train *t = NULL;
    gt_status st = load_model(&c);
    if (st)
        return st;
    /* Random tokens: a step costs the same whatever they say. */
    const uint64_t count = 64 * o.batch * o.seq + 1;
    uint16_t *tokens = malloc(count * sizeof *tokens);
    if (!tokens)
        return gt_fail(GT_NO_MEMORY, "no memory for %llu tokens", (unsigned long long)count);
    gt_random random;
    gt_random_init(&random, 1, 2);
    for (uint64_t i = 0; i < count; i++)
        tokens[i] = (uint16_t)gt_random_below(&random, (uint64_t)(c.vocab < 65536 ? c.vocab : 65536));
    token_file file = { .data = (const unsigned char *)tokens, .count = count, .width = 2 };
    const token_split split = { .files = &file, .file_count = 1, .count = count, .vocab = (uint32_t)c.vocab };
    const train_model model = {
        .config = &c, .units = model_units(&c), .build = model_build_config, .batch = model_batch
    };
    const train_data data = { &split, NULL };
    train_options options = {
        .steps = 1000,
        .batch = o.batch,
        .micro_batch = o.micro_batch,
        .seq = o.seq,
        .seed = 1,
        .precision = storage,
        .recompute = o.recompute,
        .optim = optim_defaults(),
        .gemm = strcmp(o.engine, "auto") ? o.engine : NULL
    };
    options.order = LOADER_SEQUENTIAL;
    st = train_create(&t, d, &model, &data, &options);
    double loss, norm;
    if (!st)
        st = train_once(t, 0, 1, &loss, &norm);
    r.first_s = (double)(gt_now_ns() - start) * 1e-9;
    if (!st) {
        r.memory = train_memory_of(t);
        /* What is resident and not in buffers: the program, the driver and its compiler. */
        const uint64_t resident = resident_bytes();
        const int unified = dev_info_of(d)->unified;
        r.before = !unified ? 0 : resident > r.memory.total ? resident - r.memory.total : 0;
        r.planned = r.memory.total + r.before;
        st = time_steps(t, d, &r);
        if (!unified)
            r.measured = 0;             /* device memory has no peak counter in OpenCL */
    }
    if (!st && o.explain)
        st = exec_explain(train_exec(t), stdout, 0.0);
    train_release(t);
    if (!st)
        st = gemm_ceiling(d, storage, &r.peak);
    if (!st)
        show_step(&c, &r);
    free(tokens);
    return st;
}

/* ---- generate ------------------------------------------------------------------------------------ */

/* Of a token: what it took, and a plain copy that moves as many bytes as there are weights. */
typedef struct generate_result {
    double prompt_s, min, median, p99;
    double copy_min, copy_median;
    double bytes;                       /* of the weights */
} generate_result;

enum { TOKENS_A_COPY = 4 };             /* copies are run in turns with tokens */

static gt_status time_tokens(generate *g, const model_config *c, gemm_copy *copy, generate_result *r)
{
    const sampling_rule greedy = { 0 };
    double *seconds = malloc((size_t)o.tokens * sizeof *seconds), *copies = malloc((size_t)o.tokens * sizeof *copies);
    size_t n = 0;
    uint32_t *prompt = malloc((size_t)o.prompt * sizeof *prompt), id;
    gt_random random;
    gt_status st = seconds && copies && prompt
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "no memory for %llu tokens", (unsigned long long)o.tokens);
    gt_random_init(&random, 1, 2);
    for (uint64_t i = 0; !st && i < o.prompt; i++)
        prompt[i] = (uint32_t)gt_random_below(&random, (uint64_t)c->vocab);
    for (int round = 0; !st && round < 2; round++) {        /* the first compiles and warms up */
        generate_restart(g);
        const uint64_t start = gt_now_ns();
        st = generate_feed(g, prompt, o.prompt);
        r->prompt_s = (double)(gt_now_ns() - start) * 1e-9;
        for (int i = 0; !round && !st && i < 3; i++)
            st = generate_next(g, &greedy, &random, &id);
    }
    for (uint64_t i = 0; !st && i < o.tokens; i++) {
        const uint64_t start = gt_now_ns();
        st = generate_next(g, &greedy, &random, &id);
        seconds[i] = (double)(gt_now_ns() - start) * 1e-9;
        if (!st && i % TOKENS_A_COPY == 0) {
            double rate = 0.0;
            st = gemm_copy_run(copy, 1, &rate);
            copies[n++] = r->bytes / rate;
        }
    }
    if (!st) {
        qsort(seconds, (size_t)o.tokens, sizeof *seconds, by_value);
        qsort(copies, n, sizeof *copies, by_value);
        r->copy_min = copies[0];
        r->copy_median = copies[n / 2];
        r->min = seconds[0];
        r->median = seconds[o.tokens / 2];
        r->p99 = seconds[(o.tokens - 1) * 99 / 100];
    }
    free(seconds);
    free(copies);
    free(prompt);
    return st;
}

static void show_generate(const model_config *c, const generate_result *r)
{
    char a[32], b[32];
    const double rate = r->bytes / r->copy_median;
    if (o.json) {
        printf(
            "{\"bench\": \"generate\", \"model\": \"%s\", \"precision\": \"%s\", \"batch\": 1, \"prompt\": %llu, "
            "\"tokens\": %llu, \"prompt_tokens_per_s\": %.2f, \"min_ms\": %.4f, \"median_ms\": %.4f, \"p99_ms\": %.4f, "
            "\"tokens_per_s\": %.3f, \"weight_bytes\": %.0f, \"gbytes_per_s\": %.3f, \"copy_gbytes_per_s\": %.3f, "
            "\"share_of_copy\": %.4f, \"best_share_of_copy\": %.4f}\n",
            c->name, o.base ? o.base : o.precision, (unsigned long long)o.prompt, (unsigned long long)o.tokens,
            (double)o.prompt / r->prompt_s, r->min * 1e3, r->median * 1e3, r->p99 * 1e3, 1.0 / r->median, r->bytes,
            r->bytes / r->median * 1e-9, rate * 1e-9, r->copy_median / r->median, r->copy_min / r->min);
        return;
    }
    printf("model     %s, %s parameters, %s: %s of weights, all read for each token\n", c->name,
           gt_format_count(a, sizeof a, (double)model_parameters(c)), o.base ? o.base : o.precision,
           gt_format_bytes(b, sizeof b, (uint64_t)r->bytes));
    printf("prompt    %llu tokens in %.1f ms, %.1f tokens/s\n", (unsigned long long)o.prompt, r->prompt_s * 1e3,
           (double)o.prompt / r->prompt_s);
    printf("token     min %.2f ms, median %.2f ms, p99 %.2f ms over %llu tokens: %.1f tokens/s\n", r->min * 1e3,
           r->median * 1e3, r->p99 * 1e3, (unsigned long long)o.tokens, 1.0 / r->median);
    printf("weights   %.1f GB/s; a plain copy, in turns with tokens, moves %.1f GB/s, read and written: as many\n"
           "          bytes in min %.2f ms, median %.2f ms; the median token takes %.2f times that, the fastest %.2f\n",
           r->bytes / r->median * 1e-9, rate * 1e-9, r->copy_min * 1e3, r->copy_median * 1e3,
           r->median / r->copy_median, r->min / r->copy_min);
}

static gt_status bench_generate(dev_device *d, dtype storage)
{
    model_config c;
    generate_result r = { 0 };
    generate *g = NULL;
    gemm_copy *copy = NULL;
    gt_status st = model_config_load(&c, o.model);
    if (st)
        return st;
    if (!c.vocab)
        c.vocab = 256;
    if (!o.prompt || !o.tokens || o.prompt > (uint64_t)c.context || o.tokens > (uint64_t)c.context - o.prompt)
        return gt_fail(GT_MISUSE,
                       "options --prompt and --tokens: %llu and %llu do not make 1 to %d together, the model's context",
                       (unsigned long long)o.prompt, (unsigned long long)o.tokens, c.context);
    if (o.base)
        st = cli_base_precision(&c.tuning, o.base, o.precision);
    if (!st)
        st = generate_create(&g, d, &c, storage, strcmp(o.engine, "auto") ? o.engine : NULL);
    if (!st)
        st = params_init(generate_params(g), 1);
    if (!st)
        st = generate_refresh(g);
    for (int i = 0; !st && i < params_count(generate_params(g)); i++)
        r.bytes += (double)graph_param_bytes(params_info(generate_params(g), i));
    if (!st)
        st = gemm_copy_create(&copy, d, (uint64_t)r.bytes);
    if (!st)
        st = time_tokens(g, &c, copy, &r);
    gemm_copy_release(copy);
    generate_release(g);
    if (!st)
        show_generate(&c, &r);
    return st;
}

static gt_status check_tune(const char *kind)
{
    const int gemm = !strcmp(kind, "gemm"), named = o.tune && o.shapes;
    const cli_useless rules[] = {
        { "tune", !gemm, "it belongs to bench gemm" },
        { "seconds", !o.tune, "it bounds --tune" },
        { "variants", !o.tune, "it bounds --tune" },
        { "runs", o.tune, "--tune decides for itself how often it runs what" },
        { "model", named, "--shapes names the products" },
        { "batch", named, "--shapes names the products" },
        { "seq", named, "--shapes names the products" },
    };
    return cli_check_useless(table, rules, sizeof rules / sizeof *rules);
}

gt_status bench_device(int argc, char **argv)
{
    const uint64_t start = gt_now_ns();
    char **words;
    int count, done;
    dtype storage;
    dev_device *d;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count != 1)
        return count ? gt_fail(GT_MISUSE, "bench takes one name, not '%s' and '%s'", words[0], words[1])
                     : cli_missing(&help, "what to measure");
    if (o.runs < 1 || o.runs > 100000)
        return gt_fail(GT_MISUSE, "option --runs: %llu is not in 1..100000", (unsigned long long)o.runs);
    if (o.variants < 1 || o.variants > 100000)
        return gt_fail(GT_MISUSE, "option --variants: %llu is not in 1..100000", (unsigned long long)o.variants);
    st = check_tune(words[0]);
    if (st)
        return st;
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = dev_open(&d, o.devices);
    if (st)
        return st;
    if (!strcmp(words[0], "gemm"))
        st = o.tune ? tune_gemm(d, storage) : bench_gemm(d, storage);
    else if (!strcmp(words[0], "kernels"))
        st = bench_kernels(d, storage);
    else if (!strcmp(words[0], "step"))
        st = bench_step(d, storage, start);
    else if (!strcmp(words[0], "generate"))
        st = bench_generate(d, storage);
    else
        st = gt_fail(GT_MISUSE,
                     "there is no bench '%s'; there are gemm, kernels, step, generate, attention, link, "
                     "allreduce, reduce-scatter, all-gather and broadcast",
                     words[0]);
    dev_close(d);
    return st;
}
