/* SPDX-License-Identifier: MIT */
/* net/collective/collective.c - from a call to an algorithm.
 *
 *   call ──► checked ──► algorithm: wish, configuration, or cheapest ──► parts ──► run
 *
 * The choice is kept for each half power of two of the size, and reckoned for the upper end of
 * it, so equal sizes always take the same way and a small call costs no arithmetic.       */
#include "net/collective/collective.h"

#include "host/base/log.h"
#include "host/base/text.h"
#include "net/collective/reduce.h"
#include "net/collective/state.h"
#include "net/comm/board.h"

#include <math.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <string.h>

/* ---- choosing --------------------------------------------------------------------------- */

/* Half powers of two: bucket b holds sizes up to 2^(b/2). */
static int bucket_of(uint64_t bytes)
{
    if (bytes <= 1)
        return 0;
    const int e = 63 - __builtin_clzll(bytes);
    const double over = (double)bytes / (double)(UINT64_C(1) << e);    /* [1, 2) */
    const int b = over <= 1.0 ? 2 * e : over * over <= 2.0 * (1.0 + 1e-9) ? 2 * e + 1 : 2 * e + 2;
    return b < NET_BUCKETS ? b : NET_BUCKETS - 1;
}

static void say(const net_state *s, const net_call *c, net_algorithm a, double bytes)
{
    gt_text text = { 0 };
    char size[32];
    if (net_group_rank(s->group) != 0 || !gt_log_on(GT_LOG_DEBUG, "collective"))
        return;
    for (int i = NET_RING; i < NET_ALGORITHMS; i++) {
        const double t = net_cost(c->kind, (net_algorithm)i, &s->links, bytes);
        if (isfinite(t))
            gt_text_printf(&text, "%s%s %.0f us", text.size ? ", " : "", net_algorithm_name((net_algorithm)i), t * 1e6);
    }
    gt_log(GT_LOG_DEBUG, "collective", "%s up to %s on %d ranks: %s, %s (predicted: %s)", net_kind_name(c->kind),
           gt_format_bytes(size, sizeof size, (uint64_t)bytes), net_group_size(s->group), net_algorithm_name(a),
           net_algorithm_reason(a), text.data ? text.data : "");
    gt_text_release(&text);
}

static gt_status choose(net_state *s, const net_call *c, net_algorithm *out)
{
    const uint64_t bytes = c->count * net_type_size(c->type);
    unsigned char *kept = &s->choice[c->kind][bucket_of(bytes)];
    gt_status st = GT_OK;
    *out = c->wish;
    if (c->wish != NET_AUTO)
        return GT_OK;
    if (!*kept) {
        st = net_state_links(s);
        if (st)
            return st;
        const double upper = exp2(0.5 * bucket_of(bytes));
        const char *setting = net_job_config(net_comm_job(net_group_comm(s->group)))->algorithm;
        const unsigned barred = net_algorithm_barred(setting, c->kind);
        const net_algorithm a = barred ? net_choose_but(c->kind, &s->links, upper, barred)
                                       : net_choose(c->kind, &s->links, upper);
        if (a == NET_AUTO)
            return gt_fail(GT_MISUSE, "the network setting algorithm = '%s' leaves none for %s", setting,
                           net_kind_name(c->kind));
        *kept = (unsigned char)a;
        say(s, c, (net_algorithm)*kept, upper);
    }
    *out = (net_algorithm)*kept;
    return GT_OK;
}

/* ---- parts ------------------------------------------------------------------------------ */

/* An all-reduce is free to cut where it likes: at cache lines. */
static void cut_equally(uint64_t *begin, int p, uint64_t count, size_t grain)
{
    const uint64_t line = 64 / grain, lines = (count + line - 1) / line;
    for (int i = 0; i < p; i++) {
        uint64_t some;
        net_part(lines, p, i, &begin[i], &some);
        begin[i] = begin[i] * line < count ? begin[i] * line : count;
    }
    begin[p] = count;
}

/* Equal parts for the virtual participants; the odd one of a pair has none. */
static void cut_folded(uint64_t *begin, int p, uint64_t count, size_t grain)
{
    const net_fold f = net_fold_of(0, p);
    for (int v = f.size; v >= 0; v--) {
        const uint64_t line = 64 / grain, lines = (count + line - 1) / line;
        uint64_t from = lines, some;
        if (v < f.size)
            net_part(lines, f.size, v, &from, &some);
        from = from * line < count ? from * line : count;
        begin[v < f.extra ? 2 * v : v + f.extra] = from;
    }
    for (int v = 0; v < f.extra; v++)
        begin[2 * v + 1] = begin[2 * v + 2];
}

static gt_status cut_by_weights(uint64_t *begin, int p, uint64_t count, size_t grain, const double *weights)
{
    double sum = 0.0, before = 0.0;
    for (int i = 0; i < p; i++) {
        if (!(weights[i] >= 0.0) || isinf(weights[i]))
            return gt_fail(GT_MISUSE, "cannot cut a vector by weights: rank %d's is %g", i, weights[i]);
        sum += weights[i];
    }
    if (!(sum > 0.0) || isinf(sum))
        return gt_fail(GT_MISUSE, "cannot cut a vector by weights: they add up to %g", sum);
    for (int i = 0; i < p; i++) {
        const uint64_t line = 64 / grain;
        const uint64_t at = (uint64_t)(before / sum * ((double)count / (double)line) + 0.5) * line;
        begin[i] = at < count ? at : count;
        before += weights[i];
    }
    begin[0] = 0;
    begin[p] = count;
    return GT_OK;
}

static gt_status cut_by_links(net_state *s, const net_call *c, size_t grain)
{
    const int p = net_group_size(s->group);
    gt_status st = net_state_links(s);
    double *share = st ? NULL : malloc((size_t)p * sizeof *share);
    if (!st && !share)
        st = gt_fail(GT_NO_MEMORY, "cannot begin a collective: no memory for the shares of %d ranks", p);
    if (!st)
        st = net_links_shares(&s->links, share);
    if (!st)
        st = cut_by_weights(s->begin, p, c->count, grain, share);
    free(share);
    return st;
}

static gt_status cut(net_state *s, const net_call *c, net_algorithm a, size_t grain)
{
    const int p = net_group_size(s->group);
    if (c->kind == NET_OP_REDUCE_SCATTER || c->kind == NET_OP_ALL_GATHER) {
        uint64_t size;
        for (int i = 0; i < p && !c->counts; i++)
            net_part(c->count, p, i, &s->begin[i], &size);
        s->begin[0] = 0;
        for (int i = 0; i < p && c->counts; i++)
            s->begin[i + 1] = s->begin[i] + c->counts[i];
        s->begin[p] = c->count;
        return GT_OK;
    }
    if (a == NET_DIRECT && c->weights)
        return cut_by_weights(s->begin, p, c->count, grain, c->weights);
    if (a == NET_DIRECT && p > 2)
        return cut_by_links(s, c, grain);
    if (a == NET_HALVING_DOUBLING)
        cut_folded(s->begin, p, c->count, grain);
    else
        cut_equally(s->begin, p, c->count, grain);
    return GT_OK;
}

/* ---- running ---------------------------------------------------------------------------- */

static gt_status find_layers(net_state *s)
{
    if (s->layered)
        return GT_OK;
    gt_status st = net_state_links(s);
    if (!st)
        st = net_layers_make(&s->layers, &s->links, net_group_rank(s->group));
    s->layered = !st;
    return st;
}

/* Bytes of a pipelined piece. On slow links less than what is configured: several pieces of each
 * pair queue in front of the wire, and what a queue of 100 ms does to TCP's acknowledgements
 * costs more than smaller messages do. */
static size_t piece_size(const net_state *s, const net_config *config, double bytes)
{
    static const double longest = 4e-3;         /* seconds of the slowest link */
    static const double most_pieces = 1 << 24;  /* messages of an operation count in 32 bits */
    double piece = (double)config->pipeline, slowest = INFINITY;
    for (int i = 0; s->measured && i < s->links.size; i++)
        slowest = fmin(slowest, s->links.uplink[i]);
    if (s->measured && slowest * longest < piece)
        piece = fmin(piece, fmax(slowest * longest, 32768.0));
    piece = fmax(piece, bytes / most_pieces);
    return piece > 64.0 ? (size_t)piece : 64;
}

/* There is more than one way to do it. */
static int is_chosen(net_kind kind)
{
    return kind != NET_OP_BARRIER && kind != NET_OP_ALL_TO_ALL;
}

gt_status net_call_run(net_state *s, const net_call *c)
{
    const int p = net_group_size(s->group);
    const size_t grain = net_type_size(c->type);
    net_algorithm a = NET_AUTO;
    net_op *op;
    gt_status st = net_comm_check(net_group_comm(s->group));
    if (st || p == 1)
        return st;
    if (is_chosen(c->kind)) {
        st = choose(s, c, &a);
        if (!st && (a != NET_EXCHANGE || c->kind != NET_OP_ALL_REDUCE))
            st = cut(s, c, a, grain);
        if (!st && a == NET_HIERARCHICAL)
            st = find_layers(s);
        if (!st && a == NET_EXCHANGE)
            st = net_state_board(s);
        if (st)
            return st;
    }
    const net_agreement what = { (uint32_t)c->kind, (uint32_t)c->type, c->root,
                                 (uint32_t)a,       c->count,          net_type_name(c->type) };
    const int sums = c->kind == NET_OP_ALL_REDUCE || c->kind == NET_OP_REDUCE_SCATTER;
    const int on_board = (a == NET_EXCHANGE || c->kind == NET_OP_BARRIER) && net_group_has_board(s->group)
                         && (!sums || c->count * grain <= s->board_most);
    st = (on_board ? net_op_begin_on_board : net_op_begin)(s->group, net_kind_name(c->kind), &what, &op);
    if (st)
        return st;
    net_op_priority(op, c->priority);
    const net_config *config = net_job_config(net_comm_job(net_group_comm(s->group)));
    net_task t = {
        .group = s->group,
        .op = op,
        .kind = c->kind,
        .rank = net_group_rank(s->group),
        .size = p,
        .root = c->root < 0 ? 0 : c->root,
        .x = c->x,
        .begin = s->begin,
        .count = c->count,
        .type = c->type,
        .grain = grain,
        .reduce = net_reduce_of(c->type),
        .piece = on_board ? 0 : piece_size(s, config, (double)c->count * (double)grain),
        .layers = &s->layers,
        .on_board = on_board,
        .filling = c->filling
    };
    if (a != NET_RING && a != NET_DIRECT) { /* which alone go from piece to piece of x */
        st = net_task_filled(&t, 0, c->count);
        t.filling = NULL;
    }
    if (st)
        return net_op_end(op, st);
    if (c->kind == NET_OP_BARRIER)
        st = net_run_barrier(&t);
    else if (c->kind == NET_OP_ALL_TO_ALL && c->count)
        st = net_run_all_to_all(&t);
    else if (c->count)
        st = net_algorithm_runner(a)(&t);
    return net_op_end(op, st);
}

/* ---- calls ------------------------------------------------------------------------------ */

static gt_status check_counts(const net_call *c, int p)
{
    uint64_t sum = 0;
    for (int i = 0; i < p; i++) {
        if (c->counts[i] > c->count - sum)
            return gt_fail(GT_MISUSE,
                           "cannot begin %s: the parts of ranks 0 to %d are more than "
                           "the %llu elements",
                           net_kind_name(c->kind), i, (unsigned long long)c->count);
        sum += c->counts[i];
    }
    if (sum != c->count)
        return gt_fail(GT_MISUSE,
                       "cannot begin %s: the parts are %llu elements and the whole "
                       "vector %llu",
                       net_kind_name(c->kind), (unsigned long long)sum, (unsigned long long)c->count);
    return GT_OK;
}

/* NCCL_ALGO names what there is not: the choice is free, and that is said once. */
static gt_status pass_over(const char *algorithm, int rank)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told))
        gt_log(rank ? GT_LOG_INFO : GT_LOG_WARN, "net", "NCCL_ALGO = '%s' is passed over: %s", algorithm, gt_message());
    gt_message_clear();
    return GT_OK;
}

/* Checks what one rank can, and finds out which algorithm is wished for. */
static gt_status check(net_group *g, net_call *c, const net_collective_options *options)
{
    const int p = net_group_size(g);
    const size_t grain = net_type_size(c->type);
    const net_config *config = net_job_config(net_comm_job(net_group_comm(g)));
    gt_status st = GT_OK;
    if (c->kind == NET_OP_BARRIER)
        return GT_OK;
    if (!grain)
        return gt_fail(GT_MISUSE, "cannot begin %s: there is no element type %d", net_kind_name(c->kind), (int)c->type);
    if (c->count > (SIZE_MAX >> 4) / grain)
        return gt_fail(GT_MISUSE, "cannot begin %s: %llu elements are more than there is memory",
                       net_kind_name(c->kind), (unsigned long long)c->count);
    if (c->count && !c->x)
        return gt_fail(GT_MISUSE, "cannot begin %s: no data", net_kind_name(c->kind));
    if (c->kind == NET_OP_BROADCAST && (c->root < 0 || c->root >= p))
        return gt_fail(GT_MISUSE, "cannot begin broadcast: root %d is not one of %d ranks", c->root, p);
    if (c->kind == NET_OP_ALL_TO_ALL)
        return c->count % (uint64_t)p
                   ? gt_fail(GT_MISUSE, "cannot begin all-to-all: %llu elements are no blocks for %d ranks",
                             (unsigned long long)c->count, p)
                   : GT_OK;
    if (c->counts)
        st = check_counts(c, p);
    if (!st && options) {
        c->weights = options->weights;
        c->priority = options->priority;
        c->filling = options->filling;
        if (options->algorithm) {
            st = net_algorithm_parse(&c->wish, options->algorithm, c->kind);
            if (!st && c->wish == NET_AUTO && strcmp(options->algorithm, "auto")
                && (!strpbrk(options->algorithm, ":;,") || strchr(options->algorithm, '^')))
                st = gt_fail(GT_MISUSE, "%s has no algorithm '%s'", net_kind_name(c->kind), options->algorithm);
        }
    }
    if (!st && c->wish == NET_AUTO && config->algorithm) {
        st = net_algorithm_parse(&c->wish, config->algorithm, c->kind);
        if (st && net_config_is_foreign(config, "algorithm")) {
            c->wish = NET_AUTO;
            st = pass_over(config->algorithm, net_group_rank(g));
        }
    }
    return st;
}

static gt_status run(net_group *g, net_call c, const net_collective_options *options)
{
    net_state *s;
    gt_status st = check(g, &c, options);
    if (!st)
        st = net_state_of(g, &s);
    if (st)
        return st;
    net_state_enter(s);
    st = net_call_run(s, &c);
    net_state_leave(s);
    return st;
}

gt_status net_group_choice(net_group *g, net_kind kind, uint64_t count, net_type type,
                           const net_collective_options *options, net_algorithm *out)
{
    char nothing;
    net_state *s;
    net_call c = { .kind = kind, .x = &nothing, .count = count, .type = type };
    *out = NET_AUTO;
    gt_status st = check(g, &c, options);
    if (!st)
        st = net_state_of(g, &s);
    if (st || net_group_size(g) == 1)
        return st;
    net_state_enter(s);
    st = choose(s, &c, out);
    net_state_leave(s);
    return st;
}

static gt_status start(net_group *g, net_call c, const net_collective_options *options, net_collective **out)
{
    *out = NULL;
    gt_status st = check(g, &c, options);
    return st ? st : net_call_start(g, &c, out);
}

static net_call call_of(net_kind kind, void *x, uint64_t count, const uint64_t *counts, net_type type, int root)
{
    return (net_call){ .kind = kind, .x = x, .count = count, .counts = counts, .type = type, .root = root };
}

gt_status net_all_reduce(net_group *g, void *x, uint64_t count, net_type type, const net_collective_options *options)
{
    return run(g, call_of(NET_OP_ALL_REDUCE, x, count, NULL, type, -1), options);
}

gt_status net_reduce_scatter(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                             const net_collective_options *options)
{
    return run(g, call_of(NET_OP_REDUCE_SCATTER, x, count, counts, type, -1), options);
}

gt_status net_all_gather(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                         const net_collective_options *options)
{
    return run(g, call_of(NET_OP_ALL_GATHER, x, count, counts, type, -1), options);
}

gt_status net_broadcast(net_group *g, void *x, uint64_t count, net_type type, int root,
                        const net_collective_options *options)
{
    return run(g, call_of(NET_OP_BROADCAST, x, count, NULL, type, root), options);
}

gt_status net_all_to_all(net_group *g, void *x, uint64_t count, net_type type)
{
    return run(g, call_of(NET_OP_ALL_TO_ALL, x, count, NULL, type, -1), NULL);
}

gt_status net_barrier(net_group *g)
{
    return run(g, call_of(NET_OP_BARRIER, NULL, 0, NULL, NET_F32, -1), NULL);
}

gt_status net_all_reduce_start(net_group *g, void *x, uint64_t count, net_type type,
                               const net_collective_options *options, net_collective **out)
{
    return start(g, call_of(NET_OP_ALL_REDUCE, x, count, NULL, type, -1), options, out);
}

gt_status net_reduce_scatter_start(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                                   const net_collective_options *options, net_collective **out)
{
    return start(g, call_of(NET_OP_REDUCE_SCATTER, x, count, counts, type, -1), options, out);
}

gt_status net_all_gather_start(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                               const net_collective_options *options, net_collective **out)
{
    return start(g, call_of(NET_OP_ALL_GATHER, x, count, counts, type, -1), options, out);
}

gt_status net_all_to_all_start(net_group *g, void *x, uint64_t count, net_type type, net_collective **out)
{
    return start(g, call_of(NET_OP_ALL_TO_ALL, x, count, NULL, type, -1), NULL, out);
}
