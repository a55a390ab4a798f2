/* SPDX-License-Identifier: MIT */
/* host/cli/bench_link.c - `geartrain bench link`: how fast bytes go from one rank to another.
 *
 * perftest's options and columns, over any transport. One rank prints: the sender, which sees
 * a message as done when the transport says that its buffer may be used again; a run ends
 * when the receiver has confirmed all of it, so that nothing is counted that is still under way.
 * Latency is half a round trip, as everywhere.                                           */
#include "host/cli/bench.h"
#include "host/cli/cli.h"
#include "host/cli/cli_comm.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "net/comm/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint64_t size, iterations, warmup, depth, duration, peer;
    const char *test;
    int all, both, gbits, json, plain, no_check;
    cli_comm comm;
} o = { .size = 65536, .iterations = 0, .warmup = 0, .depth = 32, .peer = 1, .test = "all" };

static const gt_option table[] = {
    { .group = "Test" },
    { "test", 0, GT_CHOICE, "bw|lat|all", "bandwidth, latency, or both", &o.test, 0, NULL },
    { "size", 's', GT_BYTES, "BYTES", "size of a message; K, M, G are binary", &o.size, 0, NULL },
    { "all", 'a', GT_FLAG, NULL, "every power of two from 2 bytes to 64 MiB", &o.all, 0, NULL },
    { "iters", 'n', GT_U64, "N", "messages, 0: enough for half a second", &o.iterations, 0, NULL },
    { "duration", 'D', GT_DURATION, "TIME", "time to measure for, instead of --iters", &o.duration, 0, NULL },
    { "warmup", 'w', GT_U64, "N", "messages before, 0: a tenth", &o.warmup, 1, NULL },
    { "tx-depth", 't', GT_U64, "N", "messages in flight", &o.depth, 0, NULL },
    { "bidirectional", 'b', GT_FLAG, NULL, "both ways at once; the sum is printed", &o.both, 0, NULL },
    { "peer", 0, GT_U64, "RANK", "the rank at the other end of rank 0", &o.peer, 0, NULL },
    { "plain", 0, GT_FLAG, NULL, "send from ordinary memory, not from arenas", &o.plain, 0, NULL },
    { "no-check", 0, GT_FLAG, NULL, "do not verify data first", &o.no_check, 1, NULL },
    { .group = "Output" },
    { "report_gbits", 0, GT_FLAG, NULL, "Gb/s instead of MB/s", &o.gbits, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object a line", &o.json, 0, NULL },
    CLI_COMM_OPTIONS(o.comm),
    { 0 }
};

static const cli_help help = {
    "bench link [options]", "Measure bandwidth and latency between two ranks.",
    "  geartrain bench link --ranks 2 -a                  shared memory on this host\n"
    "  geartrain bench link --ranks 2 --transport tcp -s 1MiB\n"
    "  mpirun -n 2 -H a,b geartrain bench link -a --report_gbits\n"
    "MB/s is 1e6 bytes a second; peak is the best of 20 slices of the run; memcpy is what one\n"
    "process of this host copies in blocks of that size.\n"
};

enum { SLICES = 20, CONTROL = 1, DATA = 2, BACK = 3 };

typedef struct ends {
    net_comm *c;
    int rank, peer;
    unsigned char *out, *in;
    unsigned char *plain;       /* `out`, to free; NULL: an arena's */
    size_t room;
} ends;

/* ---- building blocks ----------------------------------------------------------------------- */

static gt_status wait_free(net_request **r)
{
    gt_status st = net_wait(*r);
    *r = NULL;
    return st;
}

static gt_status send_now(const ends *e, uint32_t channel, const void *data, size_t size)
{
    net_request *r;
    gt_status st = net_send_start(e->c, e->peer, channel, data, size, &r);
    return st ? st : net_wait(r);
}

static gt_status receive_now(const ends *e, uint32_t channel, void *data, size_t size)
{
    net_request *r;
    gt_status st = net_recv_start(e->c, e->peer, channel, data, size, &r);
    return st ? st : net_wait(r);
}

/* A window of messages in flight, in one direction. */
typedef struct flow {
    net_request **flight;
    uint64_t started, finished;
} flow;

static gt_status finish_one(flow *f)
{
    gt_status st = wait_free(&f->flight[f->finished % o.depth]);
    f->finished++;
    return st;
}

/* Makes room for one more message. */
static gt_status advance(flow *f)
{
    return f->started - f->finished < o.depth ? GT_OK : finish_one(f);
}

/* `count` messages; this rank sends, receives, or both. times[i]: when the i-th slice was over. */
static gt_status stream(const ends *e, int sends, int receives, size_t size, uint64_t count, uint64_t *times)
{
    flow out = { calloc((size_t)o.depth, sizeof(net_request *)), 0, 0 };
    flow in = { calloc((size_t)o.depth, sizeof(net_request *)), 0, 0 };
    gt_status st = out.flight && in.flight ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the requests in flight");
    flow *lead = sends ? &out : &in;
    int slice = 0;
    while (!st && lead->finished < count) {
        if (receives && in.started < count) {
            st = advance(&in);
            if (!st)
                st = net_recv_start(e->c, e->peer, DATA, e->in, size, &in.flight[in.started++ % o.depth]);
        }
        if (!st && sends && out.started < count) {
            st = advance(&out);
            if (!st)
                st = net_send_start(e->c, e->peer, DATA, e->out, size, &out.flight[out.started++ % o.depth]);
        }
        if (!st && lead->started == count)
            st = finish_one(lead);
        while (slice < SLICES && lead->finished * SLICES >= (uint64_t)(slice + 1) * count)
            times[slice++] = gt_now_ns();
    }
    while (in.flight && in.finished < in.started) {
        const gt_status waited = finish_one(&in);
        st = st ? st : waited;
    }
    while (out.flight && out.finished < out.started) {
        const gt_status waited = finish_one(&out);
        st = st ? st : waited;
    }
    free(out.flight);
    free(in.flight);
    return st;
}

/* ---- bandwidth ----------------------------------------------------------------------------- */

typedef struct speed {
    double average, peak, rate;
    uint64_t count;
} speed;

/* Rank 0 sends and keeps time; the run is over when the other end has all of it. */
static gt_status run_bandwidth(const ends *e, size_t size, uint64_t count, speed *out)
{
    const int first = e->rank == 0;
    uint64_t times[SLICES] = { 0 }, begin;
    unsigned char byte = 0;
    gt_status st = first ? receive_now(e, CONTROL, &byte, 1) : send_now(e, CONTROL, &byte, 1);
    begin = gt_now_ns();
    if (!st)
        st = stream(e, first || o.both, !first || o.both, size, count, times);
    if (!st)
        st = first ? receive_now(e, CONTROL, &byte, 1) : send_now(e, CONTROL, &byte, 1);
    if (st)
        return st;
    const double seconds = (double)(gt_now_ns() - begin) * 1e-9, ways = o.both ? 2.0 : 1.0;
    out->count = count;
    out->rate = ways * (double)count / seconds;
    out->average = out->rate * (double)size;
    out->peak = out->average;
    uint64_t before = begin, done = 0;
    for (int i = 0; i < SLICES; i++) {
        const uint64_t upto = (uint64_t)(i + 1) * count / SLICES;
        const double t = (double)(times[i] - before) * 1e-9;
        const double rate = t > 0 ? ways * (double)(upto - done) * (double)size / t : 0;
        /* The first messages of a run only fill buffers. */
        if (i > 0 && count >= 4 * SLICES * o.depth && rate > out->peak)
            out->peak = rate;
        before = times[i];
        done = upto;
    }
    return GT_OK;
}

/* Rank 0 tells the other end how many. */
static gt_status agree_count(const ends *e, uint64_t *count)
{
    return e->rank == 0 ? send_now(e, BACK, count, sizeof *count) : receive_now(e, BACK, count, sizeof *count);
}

static uint64_t enough(double seconds_each)
{
    const double aim = o.duration ? (double)o.duration * 1e-9 : 0.5;
    const double n = aim / (seconds_each > 1e-9 ? seconds_each : 1e-9);
    return n < 5 ? 5 : n > 5e6 ? 5000000u : (uint64_t)n;
}

static gt_status bandwidth(const ends *e, size_t size, speed *out)
{
    uint64_t count = o.warmup ? o.warmup : o.iterations ? (o.iterations + 9) / 10 : 2 * o.depth;
    gt_status st = agree_count(e, &count);
    if (!st)
        st = run_bandwidth(e, size, count, out);
    count = o.iterations && !o.duration ? o.iterations : enough(st ? 1.0 : 1.0 / out->rate);
    if (!st)
        st = agree_count(e, &count);
    return st ? st : run_bandwidth(e, size, count, out);
}

/* ---- latency ------------------------------------------------------------------------------- */

typedef struct delay {
    double min, typical, average, deviation, p99, p999, max;
    uint64_t count;
} delay;

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* There and back; half of each round trip in seconds, from one look at the clock to the next. The next receive is
 * started while a message is under way, as perftest's are. */
static gt_status ping_pong(const ends *e, size_t size, uint64_t count, double *half)
{
    net_request *in = NULL, *next = NULL;
    gt_status st = net_recv_start(e->c, e->peer, DATA, e->in, size, &in);
    uint64_t begin = gt_now_ns();
    for (uint64_t i = 0; !st && i < count; i++) {
        if (e->rank == 0)
            st = send_now(e, DATA, e->out, size);
        if (!st && e->rank == 0 && i + 1 < count)
            st = net_recv_start(e->c, e->peer, DATA, e->in, size, &next);
        const gt_status waited = net_wait(in);
        st = st ? st : waited;
        in = next;
        next = NULL;
        if (!st && e->rank != 0) {
            st = send_now(e, DATA, e->out, size);
            if (!st && i + 1 < count)
                st = net_recv_start(e->c, e->peer, DATA, e->in, size, &in);
        }
        const uint64_t now = half ? gt_now_ns() : 0;
        if (half)
            half[i] = (double)(now - begin) * 0.5e-9;
        begin = now;
    }
    const gt_status left = net_wait(in);    /* none but after an error */
    return st ? st : left;
}

static void summarise(double *half, uint64_t n, delay *out)
{
    double sum = 0, squares = 0;
    qsort(half, n, sizeof *half, compare);
    for (uint64_t i = 0; i < n; i++)
        sum += half[i];
    const double mean = sum / (double)n;
    for (uint64_t i = 0; i < n; i++)
        squares += (half[i] - mean) * (half[i] - mean);
    *out = (delay){
        half[0], half[n / 2], mean, sqrt(squares / (double)n), half[n * 99 / 100], half[n * 999 / 1000], half[n - 1], n
    };
}

static gt_status latency(const ends *e, size_t size, delay *out)
{
    uint64_t count = o.warmup ? o.warmup : 20;
    const uint64_t begin = gt_now_ns();
    gt_status st = agree_count(e, &count);
    if (!st)
        st = ping_pong(e, size, count, NULL);
    count = o.iterations && !o.duration ? o.iterations : enough((double)(gt_now_ns() - begin) * 1e-9 / (double)count);
    count = count > 1000000 ? 1000000 : count;
    if (!st)
        st = agree_count(e, &count);
    double *half = st ? NULL : malloc(count * sizeof *half);
    if (!st && !half)
        st = gt_fail(GT_NO_MEMORY, "no memory for the times measured");
    if (!st)
        st = ping_pong(e, size, count, half);
    if (!st)
        summarise(half, count, out);
    free(half);
    return st;
}

/* ---- data are right before they are timed -------------------------------------------------- */

static unsigned char expected(size_t i, int rank)
{
    return (unsigned char)(i * 7 + (i >> 10) + (size_t)rank * 101);
}

static gt_status verify(const ends *e, size_t size)
{
    net_request *in = NULL, *out = NULL;
    for (size_t i = 0; i < size; i++)
        e->out[i] = expected(i, e->rank);
    memset(e->in, 0, size);
    gt_status st = net_recv_start(e->c, e->peer, DATA, e->in, size, &in);
    if (!st)
        st = net_send_start(e->c, e->peer, DATA, e->out, size, &out);
    const gt_status sent = net_wait(out), received = net_wait(in);
    st = st ? st : sent ? sent : received;
    for (size_t i = 0; !st && i < size; i++)
        if (e->in[i] != expected(i, e->peer))
            st = gt_fail(GT_NUMERIC, "byte %zu of %zu arrived wrong", i, size);
    return st;
}

/* What copying as much costs in one process: the limit of shared memory is this rate, or half of
 * it where bytes must be copied in and out. */
static double memcpy_rate(const ends *e, size_t size)
{
    uint64_t n = 0;
    const uint64_t begin = gt_now_ns();
    uint64_t now = begin;
    for (; now - begin < 30000000u; now = gt_now_ns(), n++)
        memcpy(e->in, e->out, size);
    return (double)n * (double)size / ((double)(now - begin) * 1e-9);
}

/* ---- printing ------------------------------------------------------------------------------ */

static double unit(double bytes_per_second)
{
    return o.gbits ? bytes_per_second * 8e-9 : bytes_per_second * 1e-6;
}

static void print_speed(size_t size, const speed *s, const char *transport, double copying)
{
    if (o.json)
        printf("{\"bench\": \"link\", \"test\": \"%s\", \"transport\": \"%s\", \"bytes\": %zu, "
               "\"iterations\": %llu, \"peak_bytes_per_s\": %.0f, \"average_bytes_per_s\": %.0f, "
               "\"messages_per_s\": %.0f, \"memcpy_bytes_per_s\": %.0f}\n",
               o.both ? "bibw" : "bw", transport, size, (unsigned long long)s->count, s->peak, s->average, s->rate,
               copying);
    else
        printf(" %-12zu %-12llu %18.2f %20.2f %15.6f %14.2f\n", size, (unsigned long long)s->count, unit(s->peak),
               unit(s->average), s->rate * 1e-6, unit(copying));
    fflush(stdout);
}

static void print_delay(size_t size, const delay *d, const char *transport)
{
    if (o.json)
        printf("{\"bench\": \"link\", \"test\": \"lat\", \"transport\": \"%s\", \"bytes\": %zu, "
               "\"iterations\": %llu, \"min_us\": %.3f, \"typical_us\": %.3f, \"average_us\": %.3f, "
               "\"stdev_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, \"max_us\": %.3f}\n",
               transport, size, (unsigned long long)d->count, d->min * 1e6, d->typical * 1e6, d->average * 1e6,
               d->deviation * 1e6, d->p99 * 1e6, d->p999 * 1e6, d->max * 1e6);
    else
        printf(" %-12zu %-12llu %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", size, (unsigned long long)d->count,
               d->min * 1e6, d->max * 1e6, d->typical * 1e6, d->average * 1e6, d->deviation * 1e6, d->p99 * 1e6,
               d->p999 * 1e6);
    fflush(stdout);
}

static void print_head(int bandwidth_table)
{
    const char *u = o.gbits ? "Gb/s" : "MB/s";
    if (o.json)
        return;
    if (bandwidth_table)
        printf(" #bytes       #iterations      BW peak[%s]    BW average[%s]   MsgRate[Mpps]   memcpy[%s]\n", u, u, u);
    else
        printf(" #bytes       #iterations   t_min[us]      t_max  t_typical      t_avg    t_stdev"
               "        99%%      99.9%%\n");
}

/* ---- all of it ----------------------------------------------------------------------------- */

/* Both ends go through the same sizes. */
static gt_status each_size(const ends *e, int bandwidth_table)
{
    const char *transport = net_comm_transport(e->c, e->peer);
    gt_status st = GT_OK;
    if (e->rank == 0)
        print_head(bandwidth_table);
    for (size_t size = o.all ? 2 : (size_t)o.size; !st; size *= 2) {
        speed s;
        delay d;
        if (!o.no_check)
            st = verify(e, size);
        if (!st)
            st = bandwidth_table ? bandwidth(e, size, &s) : latency(e, size, &d);
        if (!st && e->rank == 0 && bandwidth_table)
            print_speed(size, &s, transport, memcpy_rate(e, size));
        else if (!st && e->rank == 0)
            print_delay(size, &d, transport);
        if (!o.all || size >= e->room)
            break;
    }
    return st;
}

static gt_status make_buffers(ends *e)
{
    void *p = NULL;
    e->room = o.all ? 64u << 20 : (size_t)o.size;
    gt_status st = GT_OK;
    if (o.plain)
        st = (p = malloc(2 * e->room + 2)) ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the buffers to send from");
    else
        st = net_comm_memory(e->c, 2 * e->room + 2, &p);
    if (st)
        return st;
    e->out = p;
    e->plain = o.plain ? p : NULL;
    e->in = e->out + e->room + 1;
    if (e->room % 64 == 0)
        e->in = e->out + e->room;
    memset(e->out, 1, 2 * e->room + 1);
    return GT_OK;
}

static gt_status measure(net_comm *c)
{
    ends e = { .c = c, .rank = net_comm_rank(c) };
    char how[256], name[160];
    if (net_comm_size(c) < 2 || o.peer < 1 || o.peer >= (uint64_t)net_comm_size(c))
        return gt_fail(GT_MISUSE, "bench link needs two ranks: try --ranks 2, or --peer from 1 to %d",
                       net_comm_size(c) - 1);
    if (e.rank != 0 && (uint64_t)e.rank != o.peer)
        return net_job_barrier(net_comm_job(c), "the end of bench link");
    e.peer = e.rank == 0 ? (int)o.peer : 0;
    gt_status st = net_comm_describe(c, e.peer, how, sizeof how);
    if (!st)
        st = make_buffers(&e);
    if (!st && e.rank == 0 && !o.json)
        printf("# to %s by %s; %s, %llu in flight, data verified before each run\n",
               net_job_name(net_comm_job(c), e.peer, name, sizeof name), how, o.plain ? "ordinary memory" : "arenas",
               (unsigned long long)o.depth);
    fflush(stdout);
    if (!st && strcmp(o.test, "lat"))
        st = each_size(&e, 1);
    if (!st && strcmp(o.test, "bw"))
        st = each_size(&e, 0);
    free(e.plain);
    return st ? st : net_job_barrier(net_comm_job(c), "the end of bench link");
}

gt_status bench_link(int argc, char **argv)
{
    char **words;
    int count, done;
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count != 1)
        return count ? gt_fail(GT_MISUSE, "bench takes one name, not '%s' and '%s'", words[0], words[1])
                     : cli_missing(&help, "what to measure");
    if (o.depth < 1 || o.depth > 65536 || o.size < 1 || o.size > (uint64_t)1 << 40)
        return gt_fail(GT_MISUSE, "--tx-depth goes from 1 to 65536, --size from 1 to 1 TiB");
    return cli_comm_run(&o.comm, argv, measure);
}
