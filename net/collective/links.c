/* SPDX-License-Identifier: MIT */
/* net/collective/links.c - what the links between ranks do, measured by all ranks together.
 *
 *   round 0:  0-1  2-3  4-5       each round is a set of disjoint pairs (a tournament's
 *   round 1:  0-2  1-4  3-5       schedule, the circle method), so p - 1 rounds meet all
 *   ...
 *
 * A pair first plays ping-pong with 8 bytes: latency is half a round trip, the least of some.
 * Then both send at once, as collectives do, ever more until it takes long enough: also beside the latency, or links
 * far away would seem slow. Last,
 * every rank in turn exchanges with all its peers at once, each in proportion to its pair's
 * bandwidth: that is its uplink, less than the sum where pairs share a wire.
 *
 * In the end everybody gets everybody's rows, so all hold the same matrix to the last bit;
 * latency and bandwidth of a pair are taken from its lower rank.                          */
#include "net/collective/state.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "net/collective/reduce.h"
#include "net/comm/board.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PINGS = 30, WARM = 5, MOST_BYTES = 4 << 20, FIRST_BYTES = 128 << 10 };
static const double long_enough = 6e-3; /* seconds; and so many latencies, of which a message may take several */
static const double latencies = 32.0;

typedef struct meter {
    net_task t;
    net_link_matrix *m;
    unsigned char *out, *in; /* MOST_BYTES of scratch each */
} meter;

static double seconds(uint64_t since)
{
    return (double)(gt_now_ns() - since) * 1e-9;
}

/* Sends to one and receives from another at once. */
static gt_status pass(meter *w, int to, uint64_t out, int from, uint64_t in)
{
    net_request *r = NULL, *s = NULL;
    const uint32_t step = w->t.step++;
    gt_status st = net_op_recv(w->t.op, from, step, (net_sink){ w->in, in, NULL, 1, 0 }, &r);
    if (!st)
        st = net_op_send(w->t.op, to, step, w->out, out, &s);
    if (!st)
        st = net_wait(r);
    return st ? st : net_wait(s);
}

static gt_status swap(meter *w, int peer, uint64_t out, uint64_t in)
{
    return pass(w, peer, out, peer, in);
}

/* Both ends run it; only the lower rank's time counts, for only it waits for an answer alone. */
static gt_status ping(meter *w, int peer, double *latency)
{
    gt_status st = GT_OK;
    *latency = INFINITY;
    for (int i = -WARM; !st && i < PINGS; i++) {
        net_request *r = NULL, *s = NULL;
        const uint32_t step = w->t.step++;
        const uint64_t start = gt_now_ns();
        const net_sink sink = { w->in, 8, NULL, 1, 0 };
        st = net_op_recv(w->t.op, peer, step, sink, &r);
        if (!st && w->t.rank < peer)
            st = net_op_send(w->t.op, peer, step, w->out, 8, &s);
        if (!st)
            st = net_wait(r);
        if (!st && w->t.rank > peer)
            st = net_op_send(w->t.op, peer, step, w->out, 8, &s);
        if (!st)
            st = net_wait(s);
        if (i >= 0)
            *latency = fmin(*latency, 0.5 * fmax(seconds(start), 1e-9));
    }
    return st;
}

/* t = alpha + n / B, solved for B. The best of three: the others had something else to do. */
static gt_status time_swaps(meter *w, int peer, uint64_t bytes, double latency, double *t, double *bandwidth)
{
    gt_status st = GT_OK;
    *t = INFINITY;
    for (int i = 0; !st && i < 3; i++) {
        const uint64_t start = gt_now_ns();
        st = swap(w, peer, bytes, bytes);
        *t = fmin(*t, fmax(seconds(start), 1e-9));
    }
    *bandwidth = fmax(*bandwidth, (double)bytes / fmax(*t - latency, 0.5 * *t));
    return st;
}

/* The lower rank says how many bytes come next, 0: enough. */
static gt_status pump(meter *w, int peer, double latency, double *bandwidth)
{
    const int leads = w->t.rank < peer;
    uint64_t bytes = FIRST_BYTES, next;
    double first = 0.0;
    gt_status st = swap(w, peer, bytes, bytes); /* buffers and windows warm up */
    *bandwidth = 0.0;
    while (!st) {
        double t;
        st = time_swaps(w, peer, bytes, latency, &t, bandwidth);
        const double enough = fmax(long_enough, latencies * latency);
        first = bytes == FIRST_BYTES ? t : first;
        if (!st && bytes > FIRST_BYTES && t > first) /* whatever each message takes once, drops out */
            *bandwidth = fmax(*bandwidth, fmin(2.0 * *bandwidth, (double)(bytes - FIRST_BYTES) / (t - first)));
        next = t >= enough || bytes >= MOST_BYTES ? 0 : t < 0.25 * enough ? 4 * bytes : 2 * bytes;
        next = next > MOST_BYTES ? MOST_BYTES : next;
        memcpy(w->out, &next, sizeof next);
        if (!st)
            st = swap(w, peer, leads ? sizeof next : 0, leads ? 0 : sizeof next);
        if (!leads)
            memcpy(&next, w->in, sizeof next);
        if (st || !next || next > MOST_BYTES)
            break;
        bytes = next;
    }
    return st;
}

/* Who meets whom in round r of n (even) players: player n - 1 stays, the others go round. */
static int opponent(int rank, int round, int n)
{
    if (rank == n - 1)
        return round;
    if (rank == round)
        return n - 1;
    return (2 * round - rank + 2 * (n - 1)) % (n - 1);
}

static gt_status meet_all(meter *w)
{
    const int p = w->t.size, n = p + p % 2;
    gt_status st = GT_OK;
    for (int round = 0; !st && round < n - 1; round++) {
        const int peer = opponent(w->t.rank, round, n);
        double latency = 0.0, bandwidth = 0.0;
        net_op_phase(w->t.op, "pairs", round);
        w->t.step = (uint32_t)round * 1024u; /* pairs take different numbers of them */
        if (peer >= p)
            continue;
        st = ping(w, peer, &latency);
        if (!st)
            st = pump(w, peer, latency, &bandwidth);
        w->m->latency[w->t.rank * p + peer] = latency;
        w->m->bandwidth[w->t.rank * p + peer] = bandwidth;
    }
    w->t.step = (uint32_t)n * 1024u;
    return st;
}

/* Rank `turn` and all others swap at once; bytes[] in proportion to bandwidth. */
static gt_status radiate(meter *w, int turn, const uint64_t *bytes)
{
    const int p = w->t.size;
    net_request *r[64] = { NULL }, *s[64] = { NULL };
    const uint32_t step = w->t.step++;
    gt_status st = GT_OK;
    if (w->t.rank != turn)
        return swap(w, turn, bytes[w->t.rank], bytes[w->t.rank]);
    w->t.step++; /* as swap() did */
    uint64_t at = 0;
    const int most = p < 64 ? p : 64; /* more peers tell nothing new */
    for (int k = 1; !st && k < most; k++) {
        const int peer = (turn + k) % p;
        const net_sink sink = { w->in + at, bytes[peer], NULL, 1, 0 };
        st = net_op_recv(w->t.op, peer, step + 1, sink, &r[k]);
        if (!st)
            st = net_op_send(w->t.op, peer, step + 1, w->out + at, bytes[peer], &s[k]);
        at += bytes[peer];
    }
    for (int k = 1; k < most && !st; k++) {
        st = net_wait(r[k]);
        if (!st)
            st = net_wait(s[k]);
    }
    return st;
}

static gt_status find_uplinks(meter *w, uint64_t *bytes)
{
    const int p = w->t.size;
    gt_status st = GT_OK;
    for (int turn = 0; !st && turn < p; turn++) {
        double sum = 0.0, took = INFINITY, all = 0.0;
        for (int j = 0; j < p; j++)
            sum += j == turn ? 0.0 : w->m->bandwidth[turn * p + j];
        /* Bytes for about `long_enough` if the fastest pair were the whole of the uplink. */
        double fastest = 0.0, late = 0.0;
        for (int j = 0; j < p; j++) {
            fastest = j == turn ? fastest : fmax(fastest, w->m->bandwidth[turn * p + j]);
            late = j == turn ? late : fmax(late, w->m->latency[turn * p + j]);
        }
        const double enough = fmax(long_enough, latencies * late);
        const double total = fmin((double)MOST_BYTES, fmax(fastest * enough, 65536.0));
        for (int j = 0; j < p; j++) {
            const int near = (j - turn + p) % p < 64 && j != turn;
            bytes[j] = near ? 1 + (uint64_t)(total * w->m->bandwidth[turn * p + j] / sum * 0.99) : 0;
        }
        for (int i = 0; !st && i < 3; i++) { /* the first warms up; the best counts */
            const uint64_t start = gt_now_ns();
            net_op_phase(w->t.op, "uplinks", turn);
            st = radiate(w, turn, bytes);
            took = fmin(took, fmax(seconds(start), 1e-9));
        }
        for (int j = 0; j < p; j++)
            all += (double)bytes[j];
        if (turn == w->t.rank)
            w->m->uplink[turn] = all / took;
    }
    return st;
}

/* Everybody's row to everybody: an all-gather of rows of doubles, as pairs of i32. */
static gt_status gather(meter *w, double *data, uint64_t row, uint64_t *begin)
{
    net_task t = w->t;
    for (int i = 0; i <= t.size; i++)
        begin[i] = 2 * row * (uint64_t)i;
    t.kind = NET_OP_ALL_GATHER;
    t.x = (unsigned char *)data;
    t.begin = begin;
    t.count = begin[t.size];
    gt_status st = net_run_ring(&t);
    w->t.step = t.step;
    return st;
}

/* Of each pair the lower rank's numbers, and symmetric: one rule for all. */
static void make_symmetric(net_link_matrix *m)
{
    const int p = m->size;
    for (int i = 0; i < p; i++)
        for (int j = 0; j < i; j++) {
            m->latency[i * p + j] = m->latency[j * p + i];
            m->bandwidth[i * p + j] = m->bandwidth[j * p + i];
        }
}

/* 1.0 if this rank reaches all others through shared memory. */
static double all_in_memory(const meter *w)
{
    net_comm *c = net_group_comm(w->t.group);
    for (int i = 0; i < w->t.size; i++)
        if (i != w->t.rank && strcmp(net_comm_transport(c, net_group_member(w->t.group, i)), "shm"))
            return 0.0;
    return 1.0;
}

/* What a rank sends while all of them send, each to the next. */
static gt_status rush(meter *w, double *rate)
{
    const int p = w->t.size, next = (w->t.rank + 1) % p, last = (w->t.rank + p - 1) % p;
    const uint64_t bytes = MOST_BYTES / 2;
    gt_status st = GT_OK;
    *rate = 0.0;
    for (int i = 0; !st && i < 3; i++) {
        const uint64_t start = gt_now_ns();
        st = pass(w, next, bytes, last, bytes);
        *rate = fmax(*rate, (double)bytes / fmax(seconds(start), 1e-9));
    }
    return st;
}

/* Ranks that share a memory have equal links, whatever a busy machine made of the measurement; and
 * if all do, the memory and the processors are what they share when all are busy. */
static gt_status level(meter *w, uint64_t *begin)
{
    const int p = w->t.size;
    int together = 0;
    double most = 0.0, *value = malloc((size_t)p * sizeof *value);
    if (p == 2) /* all its peers are one, and that is measured better */
        w->m->uplink[0] = w->m->uplink[1] = w->m->bandwidth[1];
    if (!value)
        return gt_fail(GT_NO_MEMORY, "cannot measure links: no memory for the rates of %d ranks", p);
    value[w->t.rank] = all_in_memory(w);
    gt_status st = gather(w, value, 1, begin);
    for (int i = 0; !st && i < p; i++) {
        together += value[i] > 0.0;
        most = value[i] > 0.0 ? fmax(most, w->m->uplink[i]) : most;
    }
    for (int i = 0; !st && i < p; i++)
        w->m->uplink[i] = value[i] > 0.0 ? most : w->m->uplink[i];
    if (!st && p > 2 && together == p) {
        st = rush(w, &value[w->t.rank]);
        if (!st)
            st = gather(w, value, 1, begin);
        for (int i = 0; !st && i < p; i++)
            most = fmin(most, value[i]);
        for (int i = 0; !st && i < p; i++)
            w->m->uplink[i] = most;
    }
    free(value);
    return st;
}

/* Seconds a byte to add fp32, in the cache as algorithms do it. */
static double time_adding(unsigned char *a, const unsigned char *b)
{
    const net_reduce add = net_reduce_of(NET_F32);
    double best = INFINITY;
    for (int i = 0; i < 5; i++) {
        const uint64_t start = gt_now_ns();
        add(a, b, FIRST_BYTES);
        best = fmin(best, seconds(start));
    }
    return fmax(best, 1e-9) / FIRST_BYTES;
}

static gt_status measure(meter *w)
{
    const int p = w->t.size;
    uint64_t *bytes = malloc(((size_t)p + 1) * sizeof *bytes);
    if (!bytes)
        return gt_fail(GT_NO_MEMORY, "cannot measure links: no memory for the sizes of %d ranks", p);
    w->m->add = time_adding(w->in, w->out);
    gt_status st = meet_all(w);
    if (!st)
        st = gather(w, w->m->latency, (uint64_t)p, bytes);
    if (!st)
        st = gather(w, w->m->bandwidth, (uint64_t)p, bytes);
    if (!st) {
        make_symmetric(w->m);
        st = find_uplinks(w, bytes);
    }
    if (!st)
        st = gather(w, w->m->uplink, 1, bytes);
    if (!st)
        st = level(w, bytes);
    if (!st) {
        /* One number for all: rank 0's, sent along as everybody's "row". */
        double *add = malloc((size_t)p * sizeof *add);
        st = add ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot measure links: no memory for the result of %d ranks", p);
        if (!st) {
            add[w->t.rank] = w->m->add;
            st = gather(w, add, 1, bytes);
            w->m->add = add[0];
        }
        free(add);
    }
    free(bytes);
    return st;
}

static void say(const net_link_matrix *m)
{
    double least = INFINITY, most = 0.0, late = 0.0;
    const int p = m->size;
    for (int i = 0; i < p; i++)
        for (int j = 0; j < i; j++) {
            least = fmin(least, m->bandwidth[i * p + j]);
            most = fmax(most, m->bandwidth[i * p + j]);
            late = fmax(late, m->latency[i * p + j]);
        }
    gt_log(GT_LOG_DEBUG, "collective",
           "links of %d ranks: %.2f to %.2f GB/s a pair, latency up "
           "to %.1f us, adding %.1f GB/s",
           p, least * 1e-9, most * 1e-9, late * 1e6, 1e-9 / m->add);
}

/* The caller has entered. */
static gt_status measure_group(net_group *g, net_link_matrix *out)
{
    const int p = net_group_size(g);
    net_job *job = net_comm_job(net_group_comm(g));
    net_op *op;
    void *scratch = NULL;
    gt_status st = net_links_create(out, p);
    if (st)
        return st;
    for (int i = 0; i < p; i++)
        out->host[i] = net_job_member(job, net_group_member(g, i))->host_id;
    if (p == 1)
        return GT_OK;
    const net_agreement what = { NET_OP_LINKS, 0, -1, 0, 0, NULL };
    st = net_op_begin(g, net_kind_name(NET_OP_LINKS), &what, &op);
    if (st)
        return st;
    st = net_group_scratch(g, 2 * (size_t)MOST_BYTES, &scratch);
    if (!st) {
        meter w = { .m = out, .out = scratch, .in = (unsigned char *)scratch + MOST_BYTES };
        w.t = (net_task){ .group = g, .op = op, .rank = net_group_rank(g), .size = p, .grain = 4, .piece = 1 << 20 };
        memset(w.out, 0, MOST_BYTES);
        st = measure(&w);
    }
    st = net_op_end(op, st);
    if (!st && net_group_rank(g) == 0)
        say(out);
    return st;
}

gt_status net_state_board(net_state *s)
{
    const net_agreement what = { NET_OP_BOARD, 0, -1, 0, 0, NULL };
    net_op *op;
    if (s->boarded || net_group_size(s->group) == 1)
        return GT_OK;
    gt_status st = net_op_begin(s->group, net_kind_name(NET_OP_BOARD), &what, &op);
    if (st)
        return st;
    st = net_board_make(op);
    if (!st && net_group_has_board(s->group))
        st = net_board_tune(s->group, op, &s->board_most);
    st = net_op_end(op, st);
    s->boarded = !st;
    return st;
}

gt_status net_state_links(net_state *s)
{
    if (s->measured)
        return GT_OK;
    gt_status st = measure_group(s->group, &s->links);
    if (!st)
        st = net_state_board(s);
    if (st)
        net_links_release(&s->links);
    else
        s->links.board = net_group_has_board(s->group);
    s->measured = !st;
    return st;
}

/* ---- the header's ----------------------------------------------------------------------- */

gt_status net_links_create(net_link_matrix *out, int size)
{
    const size_t n = (size_t)size;
    *out = (net_link_matrix){ .size = size };
    out->latency = calloc(n * n, sizeof *out->latency);
    out->bandwidth = calloc(n * n, sizeof *out->bandwidth);
    out->uplink = calloc(n, sizeof *out->uplink);
    out->host = calloc(n, sizeof *out->host);
    if (out->latency && out->bandwidth && out->uplink && out->host)
        return GT_OK;
    net_links_release(out);
    return gt_fail(GT_NO_MEMORY, "no memory for a matrix of %d links", size);
}

void net_links_release(net_link_matrix *m)
{
    free(m->latency);
    free(m->bandwidth);
    free(m->uplink);
    free(m->host);
    *m = (net_link_matrix){ 0 };
}

gt_status net_links_measure(net_group *g, net_link_matrix *out)
{
    net_state *s;
    gt_status st = net_state_of(g, &s);
    *out = (net_link_matrix){ 0 };
    if (st)
        return st;
    net_state_enter(s);
    st = measure_group(g, out);
    net_state_leave(s);
    if (st)
        net_links_release(out);
    return st;
}

gt_status net_group_links(net_group *g, const net_link_matrix **out)
{
    net_state *s;
    gt_status st = net_state_of(g, &s);
    *out = NULL;
    if (st)
        return st;
    net_state_enter(s);
    st = net_state_links(s);
    net_state_leave(s);
    if (!st)
        *out = &s->links;
    return st;
}

gt_status net_group_links_set(net_group *g, const net_link_matrix *m)
{
    net_state *s;
    const size_t n = (size_t)m->size;
    if (m->size != net_group_size(g))
        return gt_fail(GT_MISUSE, "cannot give %d ranks a matrix of %d", net_group_size(g), m->size);
    gt_status st = net_state_of(g, &s);
    if (st)
        return st;
    net_link_matrix copy;
    st = net_links_create(&copy, m->size);
    if (st)
        return st;
    memcpy(copy.latency, m->latency, n * n * sizeof *m->latency);
    memcpy(copy.bandwidth, m->bandwidth, n * n * sizeof *m->bandwidth);
    memcpy(copy.uplink, m->uplink, n * sizeof *m->uplink);
    memcpy(copy.host, m->host, n * sizeof *m->host);
    copy.add = m->add;
    copy.board = m->board;
    net_state_enter(s);
    net_links_release(&s->links);
    net_layers_release(&s->layers);
    s->links = copy;
    s->measured = 1;
    s->layered = 0;
    memset(s->choice, 0, sizeof s->choice);
    net_state_leave(s);
    return GT_OK;
}
