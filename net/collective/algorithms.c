/* SPDX-License-Identifier: MIT */
/* net/collective/algorithms.c - the table of algorithms, and how people name them. */
#include "net/collective/algorithm.h"

#include <string.h>
#include <strings.h>

enum {
    AR = 1 << NET_OP_ALL_REDUCE,
    RS = 1 << NET_OP_REDUCE_SCATTER,
    AG = 1 << NET_OP_ALL_GATHER,
    BC = 1 << NET_OP_BROADCAST
};

static const struct {
    const char *name;
    net_algorithm_run run;
    unsigned kinds;
    const char *reason;
} rows[NET_ALGORITHMS] = {
    [NET_AUTO] = { "auto", NULL, 0, "the cheapest by the measured links" },
    [NET_RING] = { "ring", net_run_ring, AR | RS | AG | BC,
                   "each link carries the least bytes: large vectors, equal links" },
    [NET_HALVING_DOUBLING] = { "halving-doubling", net_run_halving_doubling, AR | RS | AG,
                               "a ring's bytes in log p steps: middle sizes" },
    [NET_RECURSIVE_DOUBLING] = { "recursive-doubling", net_run_recursive_doubling, AR,
                                 "log p messages: small vectors" },
    [NET_DIRECT] = { "direct", net_run_direct, AR | RS | AG,
                     "two steps, shares by bandwidth: few ranks, unequal links" },
    [NET_HIERARCHICAL] = { "hierarchical", net_run_hierarchical, AR | BC,
                           "hosts' own links are faster than those between them" },
    [NET_TREE] = { "tree", net_run_tree, AR | BC, "log p messages from a root" },
    [NET_EXCHANGE] = { "exchange", net_run_exchange, AR | RS | AG | BC,
                       "ranks read from shared memory what all have posted" },
};

const char *net_algorithm_name(net_algorithm a)
{
    return (unsigned)a < NET_ALGORITHMS ? rows[a].name : "unknown";
}

net_algorithm_run net_algorithm_runner(net_algorithm a)
{
    return rows[a].run;
}

int net_algorithm_has(net_algorithm a, net_kind kind)
{
    return rows[a].kinds >> kind & 1u;
}

const char *net_algorithm_reason(net_algorithm a)
{
    return rows[a].reason;
}

const char *net_kind_name(net_kind kind)
{
    switch (kind) {
    case NET_OP_ALL_REDUCE: return "all-reduce";
    case NET_OP_REDUCE_SCATTER: return "reduce-scatter";
    case NET_OP_ALL_GATHER: return "all-gather";
    case NET_OP_BROADCAST: return "broadcast";
    case NET_OP_BARRIER: return "barrier";
    case NET_OP_PS: return "parameter server";
    case NET_OP_LINKS: return "link measurement";
    case NET_OP_ALL_TO_ALL: return "all-to-all";
    case NET_OP_BOARD: return "sharing of memory";
    }
    return "unknown";
}

/* ---- names: [KIND:]NAME[,NAME...][;...], as NCCL_ALGO has them -------------------------- */

/* Equal without case, '-' and '_': "AllReduce" is all-reduce. */
static int same(const char *text, size_t size, const char *name)
{
    size_t i = 0;
    for (;;) {
        while (i < size && (text[i] == '-' || text[i] == '_' || text[i] == ' '))
            i++;
        while (*name == '-')
            name++;
        if (i == size || !*name)
            return i == size && !*name;
        if (strncasecmp(text + i, name, 1))
            return 0;
        i++;
        name++;
    }
}

static int kind_named(const char *text, size_t size)
{
    for (int k = NET_OP_ALL_REDUCE; k <= NET_OP_BROADCAST; k++)
        if (same(text, size, net_kind_name((net_kind)k)))
            return k;
    /* NCCL's reduce is not ours, and what is said of it does no harm. */
    return same(text, size, "reduce") ? 0 : -1;
}

/* Algorithms that NCCL has and this room has not: read as no wish. */
static int foreign(const char *text, size_t size)
{
    static const char *const names[] = { "collnet", "collnetdirect", "collnetchain", "nvls", "nvlstree", "pat" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same(text, size, names[i]))
            return 1;
    return 0;
}

static gt_status algorithm_named(net_algorithm *out, const char *text, size_t size)
{
    for (int a = 0; a < NET_ALGORITHMS; a++)
        if (same(text, size, rows[a].name)) {
            *out = (net_algorithm)a;
            return GT_OK;
        }
    *out = NET_AUTO;
    if (foreign(text, size))
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "there is no collective algorithm '%.*s'; there are auto, ring, "
                   "halving-doubling, recursive-doubling, direct, hierarchical, tree and exchange",
                   (int)size, text);
}

/* "^a,b": all but these. Bits of those that are ours; unknown names are an error. */
static gt_status barred_in(unsigned *out, const char *text, size_t size)
{
    const char *end = text + size;
    net_algorithm a;
    for (const char *p = text + 1; p <= end;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const size_t length = (size_t)((comma ? comma : end) - p);
        gt_status st = algorithm_named(&a, p, length);
        if (st)
            return st;
        *out |= a == NET_AUTO ? 0u : 1u << a;
        p += length + 1;
    }
    return GT_OK;
}

unsigned net_algorithm_barred(const char *name, net_kind kind)
{
    unsigned all = 0, own = 0;
    int strict = 0;
    for (const char *p = name; *p;) {
        const size_t size = strcspn(p, ";"), head = strcspn(p, ":;");
        const int named = head < size ? kind_named(p, head) : 0;
        const char *list = head < size ? p + head + 1 : p;
        if (head == size && *list == '^')
            barred_in(&all, list, size);
        else if (head < size && named == (int)kind) {
            strict = 1;
            if (*list == '^')
                barred_in(&own, list, size - head - 1);
        }
        p += size + (p[size] == ';');
    }
    return strict ? own : all;
}

/* One list of names, the first that exists for the kind. strict: it was written for this kind. */
static gt_status first_fitting(net_algorithm *out, const char *text, size_t size, net_kind kind, int strict)
{
    const char *end = text + size;
    net_algorithm a = NET_AUTO;
    unsigned barred = 0;
    *out = NET_AUTO;
    if (*text == '^')
        return barred_in(&barred, text, size);
    for (const char *p = text; p <= end;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const size_t length = (size_t)((comma ? comma : end) - p);
        gt_status st = algorithm_named(&a, p, length);
        if (st)
            return st;
        if (a == NET_AUTO || net_algorithm_has(a, kind)) {
            *out = a;
            return GT_OK;
        }
        p += length + 1;
    }
    if (strict)
        return gt_fail(GT_MISUSE, "%s has no algorithm '%.*s'", net_kind_name(kind), (int)size, text);
    return GT_OK;
}

gt_status net_algorithm_parse(net_algorithm *out, const char *name, net_kind kind)
{
    int strict = 0;
    *out = NET_AUTO;
    /* A plain name, as nearly always: this runs with every operation. */
    for (int a = 0; a < NET_ALGORITHMS; a++)
        if (!strcmp(name, rows[a].name)) {
            *out = net_algorithm_has((net_algorithm)a, kind) ? (net_algorithm)a : NET_AUTO;
            return GT_OK;
        }
    for (const char *p = name; *p;) {
        const size_t size = strcspn(p, ";"), head = strcspn(p, ":;");
        net_algorithm a = NET_AUTO;
        gt_status st = GT_OK;
        if (head < size) {
            const int named = kind_named(p, head);
            if (named < 0)
                return gt_fail(GT_MISUSE,
                               "there is no collective '%.*s'; there are all-reduce, "
                               "reduce-scatter, all-gather and broadcast",
                               (int)head, p);
            if (named == (int)kind) {
                st = first_fitting(out, p + head + 1, size - head - 1, kind, 1);
                strict = 1;
            }
        } else {
            st = first_fitting(&a, p, size, kind, 0);
            if (!strict)
                *out = a;
        }
        if (st)
            return st;
        p += size + (p[size] == ';');
    }
    return GT_OK;
}
