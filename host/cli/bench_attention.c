/* SPDX-License-Identifier: MIT */
/* host/cli/bench_attention.c - attention by the kernel and by the tiles of each engine, beside that engine's
 * matrix products: results compared, warmed up, repeated. */
#include "host/cli/bench.h"
#include "host/cli/busy.h"
#include "host/cli/choices.h"
#include "host/cli/cli.h"

#include "host/attention/attention.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct {
    const char *devices, *precision, *engine;
    uint64_t batch, seq, heads, kv_heads, head_size, runs;
    int all, json;
} o = { .engine = "auto", .batch = 1, .seq = 1024, .heads = 12, .head_size = 64, .runs = 5 };

static const gt_option table[] = {
    { .group = "Attention" },
    { "batch", 'b', GT_U64, "N", "sequences", &o.batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence", &o.seq, 0, NULL },
    { "heads", 0, GT_U64, "N", "heads of queries", &o.heads, 0, NULL },
    { "kv-heads", 0, GT_U64, "N", "heads of keys and values, 0: as many", &o.kv_heads, 0, NULL },
    { "head-size", 0, GT_U64, "N", "columns of a head", &o.head_size, 0, NULL },
    { "all-keys", 0, GT_FLAG, NULL, "queries see later keys as well", &o.all, 0, NULL },
    { "engine", 0, GT_CHOICE, cli_engines, "engine", &o.engine, 0, NULL },
    { .group = "All" },
    { "devices", 0, GT_STRING, "ID", "id from `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "runs", 'n', GT_U64, "N", "timed runs", &o.runs, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object a line", &o.json, 0, NULL },
    { 0 }
};

static const cli_help help = {
    "bench attention [options]",
    "Measure attention, forward and gradient, by each way that the device has; engine tiled: the kernel.",
    "  geartrain bench attention --batch 1 --seq 4096 --precision bf16\n"
};

typedef struct bench {
    gemm_context *gemm;
    dtype storage;
} bench;

static void keep_rate(void *context, const gemm_result *r)
{
    *(double *)context = r->flops;
}

/* What a large product by the same engine reaches; 0 where there is none of its own: the kernel's tiles. */
static double rate_of(const bench *b, const char *engine)
{
    const gemm_desc g = {
        .M = 1024, .N = 1024, .K = 1024, .trans_b = 1, .a_type = b->storage, .b_type = b->storage, .c_type = b->storage
    };
    gemm_context *c = NULL;
    double rate = 0.0;
    gt_status st = gemm_context_create(&c, gemm_device(b->gemm), strcmp(engine, "kernel") ? engine : "tiled");
    if (!st)
        st = gemm_bench(c, &g, 5, 0.0, keep_rate, &rate);
    if (st)
        gt_message_clear();
    gemm_context_release(c);
    return rate;
}

static void show(void *context, const attention_result *r)
{
    const char *what = r->gradient ? "gradient" : "forward";
    const double rate = rate_of(context, r->engine);
    if (o.json)
        printf("{\"bench\": \"attention\", \"what\": \"%s\", \"engine\": \"%s\", \"batch\": %llu, \"seq\": %llu, "
               "\"heads\": %llu, \"kv_heads\": %llu, \"head_size\": %llu, \"precision\": \"%s\", \"min_ms\": %.4f, "
               "\"median_ms\": %.4f, \"p99_ms\": %.4f, \"gflops\": %.2f, \"gemm_gflops\": %.2f}\n",
               what, r->engine, (unsigned long long)o.batch, (unsigned long long)o.seq, (unsigned long long)o.heads,
               (unsigned long long)o.kv_heads, (unsigned long long)o.head_size, o.precision, r->min_s * 1e3,
               r->median_s * 1e3, r->p99_s * 1e3, r->flops * 1e-9, rate * 1e-9);
    else
        printf("%-9s %-8s %9.3f %9.3f %9.3f %9.1f %9.1f\n", what, r->engine, r->min_s * 1e3, r->median_s * 1e3,
               r->p99_s * 1e3, r->flops * 1e-9, rate * 1e-9);
    fflush(stdout);
}

static gt_status check_sizes(void)
{
    if (!o.kv_heads)
        o.kv_heads = o.heads;
    if (o.batch < 1 || o.seq < 1 || o.heads < 1 || o.head_size < 1 || o.batch > 65536 || o.seq > 1u << 20
        || o.heads > 4096 || o.head_size > 4096)
        return gt_fail(GT_MISUSE, "cannot bench attention: batch must be in 1..65536, seq in 1..1048576, heads and "
                                  "head size in 1..4096");
    if (o.kv_heads > o.heads || o.heads % o.kv_heads)
        return gt_fail(GT_MISUSE, "option --kv-heads: %llu heads of queries cannot share %llu of keys evenly",
                       (unsigned long long)o.heads, (unsigned long long)o.kv_heads);
    if (o.runs < 1 || o.runs > 100000)
        return gt_fail(GT_MISUSE, "option --runs: %llu is not in 1..100000", (unsigned long long)o.runs);
    return GT_OK;
}

static gt_status measure(dev_device *d)
{
    const kernel_attention_shape s = {
        .B = (int)o.batch,
        .T = (int)o.seq,
        .H = (int)o.heads,
        .KV = (int)o.kv_heads,
        .D = (int)o.head_size,
        .causal = !o.all,
        .scale = 1.0f / sqrtf((float)o.head_size)
    };
    kernel_set *k = NULL;
    bench b = { NULL, DTYPE_F32 };
    dtype_parse(&b.storage, o.precision);
    gt_status st = kernel_set_create(&k, d, b.storage);
    if (!st)
        st = gemm_context_create(&b.gemm, d, strcmp(o.engine, "auto") ? o.engine : NULL);
    if (!st && !o.json)
        printf("# %s, %s, %d x %d tokens, %d heads of %d before %d, results compared, %llu timed runs\n"
               "what      way         min ms    median       p99   GFLOP/s  its GEMM\n",
               dev_info_of(d)->name, dtype_name(b.storage), s.B, s.T, s.H, s.D, s.KV, (unsigned long long)o.runs);
    if (!st)
        st = attention_bench(b.gemm, k, &s, (int)o.runs, show, &b);
    gemm_context_release(b.gemm);
    kernel_set_release(k);
    return st;
}

gt_status bench_attention(int argc, char **argv)
{
    char **words;
    int count, done;
    dev_device *d;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count != 1)
        return gt_fail(GT_MISUSE, "bench takes one name, not '%s' and '%s'", words[0], words[1]);
    st = check_sizes();
    if (st)
        return st;
    cli_busy_start();
    st = dev_open(&d, o.devices);
    if (st)
        return st;
    st = measure(d);
    dev_close(d);
    return st;
}
