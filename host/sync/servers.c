/* SPDX-License-Identifier: MIT */
/* host/sync/servers.c - see servers.h. */
#include "host/sync/servers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANK = 65535 };

static gt_status wrong(const char *word)
{
    return gt_fail(
        GT_MISUSE,
        "option --servers: '%s' is neither 'all' nor a list of ranks as 0,2, each once, with or without shares "
        "above 0 as 0:3,2:1",
        word);
}

/* The next of the list: its rank, its share (NaN: none), and what is behind it; NULL: it is none. */
static const char *next_server(const char *at, long *rank, double *share)
{
    char *end;
    *share = NAN;
    if (*at < '0' || *at > '9')
        return NULL;
    *rank = strtol(at, &end, 10);
    if (*end == ':') {
        at = end + 1;
        *share = strtod(at, &end);
        if (end == at || !(*share > 0.0) || isinf(*share))
            return NULL;
    }
    if (*rank > MOST_RANK || (*end && *end != ',') || (*end == ',' && !end[1]))
        return NULL;
    return *end ? end + 1 : end;
}

/* share[ranks] if it is not NULL; NaN stays where the list says no share. */
static gt_status read_list(const char *word, int ranks, double *share)
{
    long rank, other;
    double x, y;
    int shares = -1;
    for (const char *at = word; *at;) {
        const char *const behind = next_server(at, &rank, &x);
        if (!behind || (shares >= 0 && shares != !isnan(x)))
            return wrong(word);
        shares = !isnan(x);
        for (const char *p = behind; *p;) {
            p = next_server(p, &other, &y);
            if (!p || other == rank)
                return wrong(word);
        }
        if (ranks && rank >= ranks)
            return gt_fail(GT_MISUSE, "option --servers: there is no rank %ld among %d", rank, ranks);
        if (share)
            share[rank] = x;
        at = behind;
    }
    return *word ? GT_OK : wrong(word);
}

static int named(const char *word, int rank)
{
    double share;
    long other;
    for (const char *at = word; at && *at;) {
        at = next_server(at, &other, &share);
        if (at && other == rank)
            return 1;
    }
    return 0;
}

gt_status sync_servers_check(const char *word, const char *train, int ranks)
{
    const int all = !strcmp(word, "all");
    gt_status st = all ? GT_OK : read_list(word, ranks, NULL);
    int left = 0;
    if (st || strcmp(train, "no"))
        return st;
    if (all)
        return gt_fail(GT_MISUSE, "--servers-train no is for ranks that --servers names, and it names none");
    for (int r = 0; r < ranks; r++)
        left += !named(word, r);
    return left || !ranks
               ? GT_OK
               : gt_fail(GT_MISUSE, "all %d ranks are servers, and --servers-train no leaves none to train", ranks);
}

int sync_servers_only(const char *word, const char *train, int rank)
{
    return !strcmp(train, "no") && strcmp(word, "all") && named(word, rank);
}

double sync_servers_share(const char *word, const char *train, int holders)
{
    double sum = 0.0, largest = 0.0, share;
    long rank;
    if (!strcmp(train, "no"))
        return 0.0;
    if (!strcmp(word, "all"))
        return 1.0 / holders;
    for (const char *at = word; at && *at;) {
        at = next_server(at, &rank, &share);
        share = isnan(share) ? 1.0 : share;
        sum += share;
        largest = fmax(largest, share);
    }
    return sum > 0.0 ? fmax(largest / sum, 1.0 / holders) : 1.0;
}

gt_status sync_servers_settle(sync_holders *h, const char *word)
{
    const int ranks = sync_holders_ranks(h);
    double *share = calloc((size_t)ranks, sizeof *share);
    if (!share)
        return gt_fail(GT_NO_MEMORY, "no memory for the shares of %d servers", ranks);
    for (int r = 0; r < ranks; r++)
        share[r] = strcmp(word, "all") ? 0.0 : NAN;
    gt_status st = strcmp(word, "all") ? read_list(word, ranks, share) : GT_OK;
    if (!st)
        st = sync_holders_serve(h, share);
    free(share);
    return st;
}
