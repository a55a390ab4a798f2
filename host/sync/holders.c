/* SPDX-License-Identifier: MIT */
/* host/sync/holders.c - every rank says what it holds; all sort it the same way. */
#include "host/sync/holders.h"

#include "host/base/file.h"
#include "net/collective/cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct claim {
    uint64_t what;
    int rank;
} claim;        /* of a parameter, by hash */
typedef struct members {
    int *rank, count, named;
} members;    /* named: sorts equal sets  */

struct sync_holders {
    int groups, mine;               /* of all ranks; this rank's number                     */
    members *group;
    net_group **net;                /* of those this rank is in and not alone               */
    net_group **within;             /* of those, the ranks of this one's replica            */
    net_group *replica;             /* NULL: this rank is all of it                         */
    int *replica_of;                /* [rank]                                               */
    double **share;                 /* [group][its ranks] adding up to 1; NULL: equal       */
    claim *claims;                  /* sorted by what, then rank                            */
    size_t claim_count;
    int *group_of;                  /* of each claim                                        */
    uint64_t align, most;
    net_comm *comm;
    int shares_masters;             /* others reach this rank's masters, too                */
    int *ranks;                     /* what members point into                              */
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot find who holds which parameter: no memory for the claims of all ranks");
}

/* Name, whole shape and slice: what must agree for two to be the same. */
static uint64_t identity_of(const graph_param_info *p)
{
    char text[320];
    int n = snprintf(text, sizeof text, "%s", p->name);
    for (int i = 0; i < p->full.rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %lld", (long long)p->full.dim[i]);
    if (p->slice.parts)
        n += snprintf(text + n, sizeof text - (size_t)n, " / %d %d %lld %lld %lld", p->slice.dim, p->slice.parts,
                      (long long)p->slice.full, (long long)p->slice.begin, (long long)p->slice.count);
    return gt_hash(text, (size_t)n);
}

enum { SAID = 3 };      /* words before the parameters */

/* What a rank says: two numbers of its device, its replica, then its parameters. */
static gt_status say(uint64_t **out, size_t *count, const dev_device *d, const graph *const *graphs, int n, int replica)
{
    size_t all = SAID;
    for (int i = 0; i < n; i++)
        all += (size_t)graph_param_count(graphs[i]);
    uint64_t *words = malloc(all * sizeof *words);
    if (!words)
        return no_memory();
    words[0] = dev_info_of(d)->align;
    words[1] = dev_info_of(d)->max_alloc_bytes;
    words[2] = (uint64_t)replica;
    all = SAID;
    for (int i = 0; i < n; i++)
        for (int p = 0; p < graph_param_count(graphs[i]); p++)
            words[all++] = identity_of(graph_param_at(graphs[i], p));
    *out = words;
    *count = all;
    return GT_OK;
}

static int by_what(const void *a, const void *b)
{
    const claim *x = a, *y = b;
    return x->what != y->what ? (x->what < y->what ? -1 : 1) : x->rank - y->rank;
}

static gt_status collect(sync_holders *h, const net_blobs *all, int ranks)
{
    size_t count = 0;
    for (int r = 0; r < ranks; r++) {
        if (all->size[r] % 8 || all->size[r] < 8 * SAID)
            return gt_fail(GT_PEER, "rank %d does not say which parameters it holds", r);
        count += all->size[r] / 8 - SAID;
    }
    h->claims = malloc((count + 1) * sizeof *h->claims);
    h->replica_of = calloc((size_t)ranks + 1, sizeof *h->replica_of);
    if (!h->claims || !h->replica_of)
        return no_memory();
    for (int r = 0; r < ranks; r++) {
        const size_t words = all->size[r] / 8;
        for (size_t i = 0; i < words; i++) {
            uint64_t word;
            memcpy(&word, (const char *)all->data[r] + 8 * i, 8);
            if (i == 0)
                h->align = word > h->align ? word : h->align;
            else if (i == 1)
                h->most = !h->most || word < h->most ? word : h->most;
            else if (i == 2)
                h->replica_of[r] = (int)word;
            else
                h->claims[h->claim_count++] = (claim){ word, r };
        }
    }
    qsort(h->claims, h->claim_count, sizeof *h->claims, by_what);
    size_t kept = 0;                        /* chunks of a rank may name one twice */
    for (size_t i = 0; i < h->claim_count; i++)
        if (!kept || by_what(&h->claims[kept - 1], &h->claims[i]))
            h->claims[kept++] = h->claims[i];
    h->claim_count = kept;
    return GT_OK;
}

static int by_ranks(const void *a, const void *b)
{
    const members *x = a, *y = b;
    const int least = x->count < y->count ? x->count : y->count;
    for (int i = 0; i < least; i++)
        if (x->rank[i] != y->rank[i])
            return x->rank[i] - y->rank[i];
    return x->count - y->count;
}

/* The sets of ranks, each once, in an order that all ranks find. */
static gt_status make_groups(sync_holders *h)
{
    h->ranks = malloc((h->claim_count + 1) * sizeof *h->ranks);
    h->group = calloc(h->claim_count + 1, sizeof *h->group);
    h->group_of = calloc(h->claim_count + 1, sizeof *h->group_of);
    if (!h->ranks || !h->group || !h->group_of)
        return no_memory();
    for (size_t i = 0; i < h->claim_count; i++) {
        h->ranks[i] = h->claims[i].rank;
        if (!i || h->claims[i].what != h->claims[i - 1].what)
            h->group[h->groups++] = (members){ &h->ranks[i], 0, (int)i };
        h->group[h->groups - 1].count++;
    }
    const int sets = h->groups;
    qsort(h->group, (size_t)sets, sizeof *h->group, by_ranks);
    h->groups = 0;
    for (int s = 0; s < sets; s++) {
        const members m = h->group[s];
        if (!h->groups || by_ranks(&h->group[h->groups - 1], &m))
            h->group[h->groups++] = m;
        for (int i = 0; i < m.count; i++)
            h->group_of[m.named + i] = h->groups - 1;
    }
    return GT_OK;
}

/* Those of `from` that are of this rank's replica, as a group; NULL if that is this rank alone. */
static gt_status connect_within(sync_holders *h, net_comm *c, const int *from, int count, net_group **out)
{
    int *rank = malloc(((size_t)count + 1) * sizeof *rank), n = 0;
    if (!rank)
        return no_memory();
    for (int i = 0; i < count; i++)
        if (h->replica_of[from[i]] == h->replica_of[h->mine])
            rank[n++] = from[i];
    gt_status st = n > 1 ? net_group_create(out, c, rank, n) : GT_OK;
    free(rank);
    return st;
}

static gt_status connect_replica(sync_holders *h, net_comm *c)
{
    const int ranks = net_comm_size(c);
    int *all = calloc((size_t)ranks, sizeof *all);
    if (!all)
        return no_memory();
    for (int r = 0; r < ranks; r++)
        all[r] = r;
    gt_status st = connect_within(h, c, all, ranks, &h->replica);
    free(all);
    return st;
}

static gt_status connect(sync_holders *h, net_comm *c)
{
    h->net = calloc((size_t)h->groups + 1, sizeof(net_group *));
    h->within = calloc((size_t)h->groups + 1, sizeof(net_group *));
    if (!h->net || !h->within)
        return no_memory();
    gt_status st = connect_replica(h, c);
    for (int g = 0; !st && g < h->groups; g++) {
        int mine = 0;
        for (int i = 0; i < h->group[g].count; i++)
            mine |= h->group[g].rank[i] == h->mine;
        if (mine && h->group[g].count > 1)
            st = net_group_create(&h->net[g], c, h->group[g].rank, h->group[g].count);
        if (!st && mine)
            st = connect_within(h, c, h->group[g].rank, h->group[g].count, &h->within[g]);
    }
    return st;
}

gt_status sync_holders_find(sync_holders **out, net_comm *c, const dev_device *d, const graph *const *graphs, int count,
                            int replica)
{
    *out = NULL;
    sync_holders *h = calloc(1, sizeof *h);
    uint64_t *words = NULL;
    size_t size = 0;
    net_blobs all = { 0 };
    if (!h)
        return no_memory();
    h->mine = net_comm_rank(c);
    h->comm = c;
    gt_status st = say(&words, &size, d, graphs, count, replica);
    if (!st)
        st = net_job_exchange(net_comm_job(c), "parameters held", words, 8 * size, &all);
    if (!st) {
        st = collect(h, &all, net_comm_size(c));
        net_blobs_release(&all);
    }
    free(words);
    if (!st)
        st = make_groups(h);
    if (!st)
        st = connect(h, c);
    if (st) {
        sync_holders_release(h);
        return st;
    }
    *out = h;
    return GT_OK;
}

void sync_holders_release(sync_holders *h)
{
    if (!h)
        return;
    for (int g = 0; h->net && g < h->groups; g++)
        if (h->net[g])
            net_group_release(h->net[g]);
    for (int g = 0; h->within && g < h->groups; g++)
        if (h->within[g])
            net_group_release(h->within[g]);
    if (h->replica)
        net_group_release(h->replica);
    for (int g = 0; h->share && g < h->groups; g++)
        free(h->share[g]);
    free(h->share);
    free(h->net);
    free(h->within);
    free(h->replica_of);
    free(h->group);
    free(h->group_of);
    free(h->ranks);
    free(h->claims);
    free(h);
}

static int group_of(void *context, const graph_param_info *info)
{
    const sync_holders *h = context;
    const claim key = { identity_of(info), h->mine };
    const claim *at = bsearch(&key, h->claims, h->claim_count, sizeof *h->claims, by_what);
    return at ? h->group_of[at - h->claims] : 0;
}

/* What other ranks hold as well lies where the network reads and writes it without a copy. */
static gt_status shared_memory(void *context, int group, int masters, uint64_t bytes, void **out)
{
    const sync_holders *h = context;
    *out = NULL;
    return h->net[group] && (!masters || h->shares_masters) ? net_comm_memory(h->comm, bytes, out) : GT_OK;
}

static void shared_memory_free(void *context, void *memory)
{
    const sync_holders *h = context;
    net_comm_memory_free(h->comm, memory);
}

params_grouping sync_holders_grouping(sync_holders *h, int shares_masters)
{
    h->shares_masters = shares_masters;
    return (params_grouping){ .group = group_of,
                              .context = h,
                              .align = h->align,
                              .most = h->most,
                              .memory = shared_memory,
                              .memory_free = shared_memory_free };
}

net_group *sync_holders_net(const sync_holders *h, int group)
{
    return h->net[group];
}

int sync_holders_first(const sync_holders *h, int group)
{
    return h->group[group].rank[0] == h->mine;
}

net_group *sync_holders_net_within(const sync_holders *h, int group)
{
    return h->within[group];
}

int sync_holders_first_at(const sync_holders *h, int group, int k)
{
    const int *rank = h->group[group].rank;
    int i = 0;
    while (h->replica_of[rank[i]] != h->replica_of[rank[k]])
        i++;
    return i == k;
}

int sync_holders_first_within(const sync_holders *h, int group)
{
    int k = 0;
    while (h->group[group].rank[k] != h->mine)
        k++;
    return sync_holders_first_at(h, group, k);
}

int sync_holders_groups(const sync_holders *h)
{
    return h->groups;
}

const int *sync_holders_members(const sync_holders *h, int group, int *count)
{
    *count = h->group[group].count;
    return h->group[group].rank;
}

net_group *sync_holders_replica(const sync_holders *h)
{
    return h->replica;
}

int sync_holders_in_first_replica(const sync_holders *h)
{
    return h->replica_of[h->mine] == 0;
}

int sync_holders_leads(const sync_holders *h)
{
    return !h->replica || net_group_rank(h->replica) == 0;
}

/* ---- shares ------------------------------------------------------------------------------------ */

int sync_holders_ranks(const sync_holders *h)
{
    return net_comm_size(h->comm);
}

/* Whether some rank of every group owns anything: all ranks know all groups. */
static gt_status check_owners(const sync_holders *h, const double *share)
{
    for (int g = 0; g < h->groups; g++) {
        const members *m = &h->group[g];
        int owners = 0;
        for (int i = 0; i < m->count; i++)
            owners += share[m->rank[i]] != 0.0;
        if (!owners && m->count > 1)
            return gt_fail(GT_UNSUPPORTED,
                           "none of the ranks in --servers holds the parameters of a stage that ranks %d and %d share; "
                           "name a rank of every stage, or say --servers all",
                           m->rank[0], m->rank[1]);
    }
    return GT_OK;
}

/* Of one group; those that are NaN as links are. Equal ones stay unsaid. */
static gt_status share_group(sync_holders *h, int g, const double *share)
{
    const members *m = &h->group[g];
    const net_link_matrix *links;
    double *out = calloc((size_t)m->count, sizeof *out), sum = 0.0, least = INFINITY, most = 0.0;
    int measured = 0;
    if (!out)
        return no_memory();
    for (int i = 0; i < m->count; i++)
        measured |= isnan(share[m->rank[i]]);
    gt_status st = measured ? net_group_links(h->net[g], &links) : GT_OK;
    if (!st && measured)
        st = net_links_shares(links, out);
    for (int i = 0; i < m->count; i++) {
        const double said = share[m->rank[i]];
        out[i] = !isnan(said) ? said : out[i] > 0.0 ? out[i] : 1e-9;
        sum += out[i];
        least = fmin(least, out[i]);
        most = fmax(most, out[i]);
    }
    for (int i = 0; i < m->count; i++)
        out[i] /= sum;
    free(h->share[g]);
    h->share[g] = st || least == most ? NULL : out;
    if (!h->share[g])
        free(out);
    return st;
}

gt_status sync_holders_serve(sync_holders *h, const double *share)
{
    gt_status st = check_owners(h, share);
    if (!st && !h->share)
        h->share = calloc((size_t)h->groups + 1, sizeof *h->share);
    if (!st && !h->share)
        st = no_memory();
    for (int g = 0; !st && g < h->groups; g++)
        if (h->net[g])
            st = share_group(h, g, share);
    return st;
}

const double *sync_holders_shares(const sync_holders *h, int group)
{
    return h->share ? h->share[group] : NULL;
}
