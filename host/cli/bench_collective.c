/* SPDX-License-Identifier: MIT */
/* host/cli/bench_collective.c - `geartrain bench allreduce`, reduce-scatter, all-gather, broadcast.
 *
 * nccl-tests' options and columns. algbw is size over time; busbw is what each rank's wire
 * carries, so that numbers of any p can be held against the hardware: algbw times 2(p-1)/p for
 * an all-reduce, (p-1)/p for a reduce-scatter or all-gather, 1 for a broadcast (nccl-tests'
 * PERFORMANCE.md). Sizes are of the whole vector. Operations are in place.
 *
 * "limit" is the share of the best possible time that was reached. That time is the largest of
 *   - net_cost_bound() of the link matrix, the best of three that the ranks measure first,
 *   - the bytes a rank must receive, at the rate all ranks at once copy memory (memcpy).
 *
 * Results are verified before anything is timed, with small integers, whose sums are exact in
 * every type; then zeros are summed, so that values stay what they are.                  */
#include "host/cli/bench.h"
#include "host/cli/cli.h"
#include "host/cli/cli_comm.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "net/collective/cost.h"
#include "net/collective/reduce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint64_t min_bytes, max_bytes, factor, iterations, warmup, root;
    const char *type, *algorithm;
    int check, json, plain;
    cli_comm comm;
} o = {
    .min_bytes = 1024, .max_bytes = 64 << 20, .factor = 4, .warmup = 5, .type = "f32", .algorithm = "auto", .check = 1
};

static const gt_option table[] = {
    { .group = "Sizes" },
    { "min-bytes", 'b', GT_BYTES, "BYTES", "the first size, of the whole vector; K, M, G are binary", &o.min_bytes, 0,
      NULL },
    { "max-bytes", 'e', GT_BYTES, "BYTES", "no size is larger", &o.max_bytes, 0, NULL },
    { "step-factor", 'f', GT_U64, "N", "each size is N times the one before", &o.factor, 0, NULL },
    { "datatype", 'd', GT_CHOICE, "f32|bf16|f16|i32", "type of the elements", &o.type, 0, NULL },
    { "root", 'r', GT_U64, "RANK", "whose data are broadcast", &o.root, 0, NULL },
    { .group = "Runs" },
    { "iters", 'n', GT_U64, "N", "timed operations a size, 0: enough for half a second", &o.iterations, 0, NULL },
    { "warmup", 'w', GT_U64, "N", "operations before", &o.warmup, 0, NULL },
    { "check", 'c', GT_INT, "0|1", "verify results first", &o.check, 0, NULL },
    { "algorithm", 0, GT_STRING, "NAME", "auto, ring, direct, ...; an unknown one lists them", &o.algorithm, 0, NULL },
    { "plain", 0, GT_FLAG, NULL, "ordinary memory, not arenas", &o.plain, 0, NULL },
    { .group = "Output" },
    { "json", 0, GT_FLAG, NULL, "one object a line", &o.json, 0, NULL },
    CLI_COMM_OPTIONS(o.comm),
    { 0 }
};

static const cli_help help = {
    "bench allreduce|reduce-scatter|all-gather|broadcast [options]", "Measure operations of all ranks.",
    "  geartrain bench allreduce --ranks 2 -b 1KiB -e 256MiB\n"
    "  geartrain bench allreduce --ranks 4 --transport tcp --algorithm ring\n"
    "  mpirun -n 16 geartrain bench reduce-scatter -d bf16\n"
};

static const struct {
    const char *name;
    net_kind kind;
} verbs[] = { { "allreduce", NET_OP_ALL_REDUCE },
              { "reduce-scatter", NET_OP_REDUCE_SCATTER },
              { "all-gather", NET_OP_ALL_GATHER },
              { "broadcast", NET_OP_BROADCAST } };
enum { VERBS = sizeof verbs / sizeof *verbs };
static int verb;                                /* which of them this run is */

typedef struct run {
    net_comm *c;
    net_group *g;
    int rank, size;
    net_type type;
    size_t grain;
    unsigned char *x, *copy;                    /* copy: COPY bytes */
    const net_link_matrix *links;
} run;

enum { COPY = 32 << 20, BLOCK = 4096 };

typedef struct row {
    uint64_t bytes, count, iterations, wrong;
    net_algorithm algorithm;
    double mean, min, p99;                      /* seconds */
    double limit;
} row;

/* ---- one operation ---------------------------------------------------------------------- */

static gt_status operate(const run *r, uint64_t count)
{
    const net_collective_options options = { .algorithm = o.algorithm, .priority = 1 };   /* as in training */
    switch (verbs[verb].kind) {
    case NET_OP_ALL_REDUCE: return net_all_reduce(r->g, r->x, count, r->type, &options);
    case NET_OP_REDUCE_SCATTER: return net_reduce_scatter(r->g, r->x, count, NULL, r->type, &options);
    case NET_OP_ALL_GATHER: return net_all_gather(r->g, r->x, count, NULL, r->type, &options);
    default: return net_broadcast(r->g, r->x, count, r->type, (int)o.root, &options);
    }
}

/* ---- verifying -------------------------------------------------------------------------- */

static float value(int rank, uint64_t i)
{
    return (float)((int)((i + (i >> 9) + 3 * (uint64_t)rank) % 5) - 2);
}

static void store(const run *r, uint64_t at, const float *values, size_t n)
{
    unsigned char *to = r->x + at * r->grain;
    if (r->type != NET_I32) {
        net_narrow(to, values, n, r->type);
        return;
    }
    for (size_t k = 0; k < n; k++)
        ((int32_t *)(void *)to)[k] = (int32_t)values[k];
}

static void load(const run *r, uint64_t at, float *values, size_t n)
{
    const unsigned char *from = r->x + at * r->grain;
    if (r->type != NET_I32) {
        net_widen(values, from, n, r->type);
        return;
    }
    for (size_t k = 0; k < n; k++)
        values[k] = (float)((const int32_t *)(const void *)from)[k];
}

static void fill(const run *r, uint64_t count)
{
    float values[BLOCK];
    for (uint64_t at = 0; at < count; at += BLOCK) {
        const size_t n = count - at < BLOCK ? (size_t)(count - at) : BLOCK;
        for (size_t k = 0; k < n; k++)
            values[k] = value(r->rank, at + k);
        store(r, at, values, n);
    }
}

static float wanted(const run *r, uint64_t i, int owner)
{
    float sum = 0.0f;
    if (verbs[verb].kind == NET_OP_BROADCAST)
        return value((int)o.root, i);
    if (verbs[verb].kind == NET_OP_ALL_GATHER)
        return value(owner, i);
    for (int k = 0; k < r->size; k++)
        sum += value(k, i);
    return sum;
}

/* Wrong elements of [from, from + count), which belong to `owner`. */
static uint64_t wrong_in(const run *r, uint64_t from, uint64_t count, int owner)
{
    float got[BLOCK];
    uint64_t wrong = 0;
    for (uint64_t at = from; at < from + count; at += BLOCK) {
        const size_t n = from + count - at < BLOCK ? (size_t)(from + count - at) : BLOCK;
        load(r, at, got, n);
        for (size_t k = 0; k < n; k++)
            wrong += got[k] != wanted(r, at + k, owner);
    }
    return wrong;
}

/* Of all ranks together. */
static gt_status verify(const run *r, uint64_t count, uint64_t *wrong)
{
    uint64_t from, n;
    int32_t mine = 0;
    fill(r, count);
    gt_status st = operate(r, count);
    for (int i = 0; !st && i < r->size; i++) {
        net_part(count, r->size, i, &from, &n);
        if (verbs[verb].kind != NET_OP_REDUCE_SCATTER || i == r->rank) {
            const uint64_t some = wrong_in(r, from, n, i);
            mine += some > 1000000 ? 1000000 : (int32_t)some;
        }
    }
    if (!st)
        st = net_all_reduce(r->g, &mine, 1, NET_I32, NULL);
    *wrong = (uint64_t)mine;
    return st;
}

/* ---- timing ----------------------------------------------------------------------------- */

static double since(uint64_t start)
{
    return fmax((double)(gt_now_ns() - start) * 1e-9, 1e-9);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How often rank 0 thinks it must run for half a second; all do what it says. */
static gt_status agree(const run *r, uint64_t count, uint64_t *iterations)
{
    int32_t n = 0;
    gt_status st = GT_OK;
    const uint64_t start = gt_now_ns();
    const uint64_t warmup = o.warmup ? o.warmup : 1;
    for (uint64_t i = 0; !st && i < warmup; i++)
        st = operate(r, count);
    const double enough = 0.5 / (since(start) / (double)warmup);
    n = enough < 5.0 ? 5 : enough > 20000.0 ? 20000 : (int32_t)enough;
    if (o.iterations)
        n = o.iterations > 1000000 ? 1000000 : (int32_t)o.iterations;
    if (!st)
        st = net_broadcast(r->g, &n, 1, NET_I32, 0, NULL);
    *iterations = (uint64_t)n;
    return st;
}

static gt_status measure(const run *r, row *w)
{
    memset(r->x, 0, w->bytes);
    gt_status st = agree(r, w->count, &w->iterations);
    double *t = st ? NULL : malloc(w->iterations * sizeof *t);
    if (!st && !t)
        st = gt_fail(GT_NO_MEMORY, "no memory for the times measured");
    if (!st)
        st = net_barrier(r->g);
    const uint64_t begin = gt_now_ns();
    uint64_t now = begin;
    for (uint64_t i = 0; !st && i < w->iterations; i++) {
        const uint64_t start = now;
        st = operate(r, w->count);
        now = gt_now_ns();
        t[i] = (double)(now - start) * 1e-9;
    }
    if (!st) {
        w->mean = fmax((double)(now - begin) * 1e-9, 1e-9) / (double)w->iterations;
        qsort(t, (size_t)w->iterations, sizeof *t, by_value);
        w->min = t[0];
        w->p99 = t[(w->iterations - 1) * 99 / 100];
    }
    free(t);
    return st;
}

/* Bytes a second that memcpy moves here while all other ranks do the same. */
static gt_status copy_rate(const run *r, uint64_t bytes, double *rate)
{
    const size_t n = bytes < COPY ? (size_t)bytes : COPY;
    double best = INFINITY;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < 3; i++) {
        const size_t times = n < 1 << 20 ? (1 << 20) / (n + 1) + 1 : 1;
        st = net_barrier(r->g);
        const uint64_t start = gt_now_ns();
        for (size_t k = 0; k < times; k++) {
            memcpy(r->copy, r->x, n);
            __asm__ volatile("" : : "r"(r->copy) : "memory");
        }
        best = fmin(best, since(start) / (double)times);
    }
    *rate = (double)n / best;
    return st;
}

/* What a rank's wire carries of each byte. */
static double bus_factor(int p)
{
    switch (verbs[verb].kind) {
    case NET_OP_ALL_REDUCE: return 2.0 * (p - 1) / p;
    case NET_OP_BROADCAST: return 1.0;
    default: return (double)(p - 1) / p;
    }
}

static gt_status one_size(const run *r, row *w)
{
    const net_collective_options options = { .algorithm = o.algorithm, .priority = 1 };   /* as in training */
    double rate;
    gt_status st = net_group_choice(r->g, verbs[verb].kind, w->count, r->type, &options, &w->algorithm);
    if (!st && o.check)
        st = verify(r, w->count, &w->wrong);
    if (!st)
        st = measure(r, w);
    if (!st)
        st = copy_rate(r, w->bytes, &rate);
    if (!st)
        w->limit = fmax(net_cost_bound(verbs[verb].kind, r->links, (double)w->bytes),
                        bus_factor(r->size) * (double)w->bytes / rate)
                   / w->mean;
    return st;
}

/* ---- printing --------------------------------------------------------------------------- */

/* The pair over which this many bytes take longest. */
static void slowest(const net_link_matrix *m, double bytes, int *a, int *b)
{
    double most = -1.0;
    for (int i = 0; i < m->size; i++)
        for (int j = i + 1; j < m->size; j++) {
            const int at = i * m->size + j;
            const double t = m->latency[at] + bytes / m->bandwidth[at];
            if (t > most) {
                most = t;
                *a = i;
                *b = j;
            }
        }
}

static void print_row(const run *r, const row *w)
{
    const double algbw = (double)w->bytes / w->mean, busbw = algbw * bus_factor(r->size);
    int a = 0, b = 0;
    slowest(r->links, (double)w->bytes, &a, &b);
    const int at = a * r->size + b;
    const double late = r->links->latency[at], band = r->links->bandwidth[at];
    if (o.json)
        printf("{\"bench\": \"%s\", \"ranks\": %d, \"transport\": \"%s\", \"bytes\": %llu, "
               "\"count\": %llu, \"type\": \"%s\", \"algorithm\": \"%s\", \"iterations\": %llu, "
               "\"time_us\": %.3f, \"min_us\": %.3f, \"p99_us\": %.3f, \"algbw_gbytes_per_s\": "
               "%.4f, \"busbw_gbytes_per_s\": %.4f, \"wrong\": %lld, \"share_of_limit\": %.4f, "
               "\"slowest_pair\": [%d, %d], \"slowest_pair_us\": %.3f, "
               "\"slowest_pair_gbytes_per_s\": %.4f}\n",
               verbs[verb].name, r->size, net_comm_transport(r->c, r->rank ? 0 : 1), (unsigned long long)w->bytes,
               (unsigned long long)w->count, net_type_name(r->type), net_algorithm_name(w->algorithm),
               (unsigned long long)w->iterations, w->mean * 1e6, w->min * 1e6, w->p99 * 1e6, algbw * 1e-9, busbw * 1e-9,
               o.check ? (long long)w->wrong : -1LL, w->limit, a, b, late * 1e6, band * 1e-9);
    else {
        char wrong[24] = "n/a";
        if (o.check)
            snprintf(wrong, sizeof wrong, "%llu", (unsigned long long)w->wrong);
        printf("%12llu %12llu %5s %-18s %11.2f %8.3f %8.3f %7s %7.1f%%   %d-%d %.1f us, %.2f GB/s\n",
               (unsigned long long)w->bytes, (unsigned long long)w->count, net_type_name(r->type),
               net_algorithm_name(w->algorithm), w->mean * 1e6, algbw * 1e-9, busbw * 1e-9, wrong, 100.0 * w->limit, a,
               b, late * 1e6, band * 1e-9);
    }
    fflush(stdout);
}

static gt_status print_head(const run *r)
{
    char how[160] = "";
    if (o.json)
        return GT_OK;
    gt_status st = net_comm_describe(r->c, 1, how, sizeof how);
    printf("# %s on %d ranks, %s to rank 1; in place, %s, results %s\n"
           "# limit: the best time by the measured links, or by memcpy of what a rank receives\n"
           "%12s %12s %5s %-18s %11s %8s %8s %7s %8s   %s\n%12s %12s %5s %-18s %11s %8s %8s\n",
           verbs[verb].name, r->size, how, o.plain ? "ordinary memory" : "arenas",
           o.check ? "verified before they are timed" : "not verified", "size", "count", "type", "algorithm", "time",
           "algbw", "busbw", "#wrong", "limit", "slowest pair", "(B)", "(elements)", "", "", "(us)", "(GB/s)",
           "(GB/s)");
    fflush(stdout);
    return st;
}

/* What the links can do: the best of some measurements, for the limit to be one. */
static gt_status best_links(const run *r, net_link_matrix *best)
{
    gt_status st = net_links_measure(r->g, best);
    for (int again = 0; !st && again < 2; again++) {
        net_link_matrix m;
        st = net_links_measure(r->g, &m);
        for (int i = 0; !st && i < r->size * r->size; i++) {
            best->latency[i] = fmin(best->latency[i], m.latency[i]);
            best->bandwidth[i] = fmax(best->bandwidth[i], m.bandwidth[i]);
        }
        for (int i = 0; !st && i < r->size; i++)
            best->uplink[i] = fmax(best->uplink[i], m.uplink[i]);
        net_links_release(&m);
    }
    if (st)
        net_links_release(best);
    return st;
}

/* ---- all of it -------------------------------------------------------------------------- */

static gt_status each_size(run *r)
{
    uint64_t wrong = 0;
    net_link_matrix links = { 0 };
    gt_status st = net_comm_connect_all(r->c);
    if (!st)
        st = best_links(r, &links);
    r->links = &links;
    if (!st && r->rank == 0)
        st = print_head(r);
    for (uint64_t bytes = o.min_bytes; !st && bytes <= o.max_bytes; bytes *= o.factor) {
        row w = { .bytes = bytes / r->grain * r->grain, .count = bytes / r->grain };
        st = one_size(r, &w);
        wrong += w.wrong;
        if (!st && r->rank == 0)
            print_row(r, &w);
        if (bytes > UINT64_MAX / o.factor || o.factor == 1)
            break;
    }
    if (!st && wrong)
        st = gt_fail(GT_NUMERIC, "%llu elements are wrong", (unsigned long long)wrong);
    r->links = NULL;
    net_links_release(&links);
    return st;
}

static gt_status body(net_comm *c)
{
    run r = { .c = c, .g = net_group_world(c), .rank = net_comm_rank(c), .size = net_comm_size(c) };
    const int plain = o.plain;
    void *x = NULL;
    if (r.size < 2)
        return gt_fail(GT_MISUSE, "bench %s needs two ranks at least: try --ranks 2", verbs[verb].name);
    if (o.root >= (uint64_t)r.size)
        return gt_fail(GT_MISUSE, "option --root: there is no rank %llu among %d", (unsigned long long)o.root, r.size);
    gt_status st = net_type_parse(&r.type, o.type);
    r.grain = net_type_size(r.type);
    r.copy = malloc(COPY);
    if (!st && plain)
        x = malloc((size_t)o.max_bytes + 64);
    else if (!st)
        st = net_comm_memory(c, (size_t)o.max_bytes + 64, &x);
    if (!st && (!x || !r.copy))
        st = gt_fail(GT_NO_MEMORY, "no memory for the elements to sum");
    r.x = x;
    if (!st) {
        memset(r.copy, 1, COPY);
        st = each_size(&r);
    }
    free(r.copy);
    if (plain)
        free(x);
    return st;
}

gt_status bench_collective(int argc, char **argv)
{
    char **words;
    int count, done;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count != 1)
        return count ? gt_fail(GT_MISUSE, "bench takes one name, not '%s' and '%s'", words[0], words[1])
                     : cli_missing(&help, "what to measure");
    for (verb = 0; verb < VERBS && strcmp(words[0], verbs[verb].name); verb++)
        ;
    if (verb == VERBS)
        return gt_fail(GT_MISUSE, "usage: geartrain %s", help.usage);
    if (o.factor < 1 || o.min_bytes > o.max_bytes || o.max_bytes > SIZE_MAX / 4)
        return gt_fail(GT_MISUSE, "options --min-bytes, --max-bytes, --step-factor: sizes must go "
                                  "up, by 1 or more");
    if (o.min_bytes < 4)
        o.min_bytes = 4;
    net_algorithm a;
    st = net_algorithm_parse(&a, o.algorithm, verbs[verb].kind);
    return st ? st : cli_comm_run(&o.comm, argv, body);
}
