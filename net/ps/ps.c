/* SPDX-License-Identifier: MIT */
/* net/ps/ps.c - opening and closing a parameter server.
 *
 * Every rank of the group opens it, whatever it does there; all tell rank 0 of the group what
 * they were given, and it compares. At the end they meet once more: nobody leaves before all
 * servers have applied all pushes, and a server's failure is everybody's.                */
#include "net/ps/ps_private.h"

#include "host/base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- agreement -------------------------------------------------------------------------- */

typedef struct word {
    uint64_t hash;
    int32_t status, rank;
    char text[240];
} word;

static gt_status tell(net_ps *ps, int peer, const word *w)
{
    net_request *r;
    gt_status st = net_group_send_start(ps->group, peer, PS_AGREE, w, sizeof *w, 0, &r);
    return st ? st : net_wait(r);
}

static gt_status hear(net_ps *ps, int peer, word *w)
{
    net_request *r;
    const net_sink sink = { w, sizeof *w, NULL, 1, 0 };
    gt_status st = net_group_recv_start(ps->group, peer, PS_AGREE, sink, &r);
    st = st ? st : net_wait(r);
    w->text[sizeof w->text - 1] = '\0';
    return st;
}

/* Rank 0 looks for the first that failed or has another hash, and tells all. */
static gt_status judge(net_ps *ps, const word *mine)
{
    word verdict = *mine, theirs;
    gt_status st = GT_OK;
    for (int i = 1; !st && i < ps->size; i++) {
        st = hear(ps, i, &theirs);
        if (!st && !verdict.status && theirs.status)
            verdict = theirs;
        if (!st && !verdict.status && theirs.hash != mine->hash) {
            verdict.status = GT_MISMATCH;
            verdict.rank = -1;
            snprintf(verdict.text, sizeof verdict.text,
                     "cannot open a parameter server: ranks 0 "
                     "and %d of the group give other keys, servers, workers, shares or modes",
                     i);
        }
    }
    for (int i = 1; !st && i < ps->size; i++)
        st = tell(ps, i, &verdict);
    if (!st && verdict.status)
        st = gt_fail((gt_status)verdict.status, "%s", verdict.text);
    return st;
}

/* All ranks come here with what they have; all leave with the same verdict. */
static gt_status agree(net_ps *ps, uint64_t hash, gt_status how)
{
    word mine = { .hash = hash, .status = (int32_t)how, .rank = ps->rank }, verdict;
    if (how)
        snprintf(mine.text, sizeof mine.text, "%s", gt_message());
    if (ps->rank == 0)
        return judge(ps, &mine);
    gt_status st = tell(ps, 0, &mine);
    if (!st)
        st = hear(ps, 0, &verdict);
    if (!st && verdict.status > GT_OK && verdict.status < GT_STATUS_COUNT)
        st = gt_fail((gt_status)verdict.status, "%s", verdict.text);
    return st;
}

static uint64_t hash_of(const net_ps *ps)
{
    const net_ps_options *o = &ps->options;
    const uint64_t parts[10] = {
        gt_hash(ps->keys, ps->key_count * sizeof *ps->keys),
        ps->key_count,
        gt_hash(ps->servers, (size_t)o->server_count * sizeof *ps->servers),
        gt_hash(ps->workers, (size_t)o->worker_count * sizeof *ps->workers),
        gt_hash(ps->shares, (size_t)o->server_count * sizeof *ps->shares),
        (uint64_t)(o->synchronous != 0),
        (uint64_t)o->staleness,
        (uint64_t)(o->keep_pulled != 0),
        ps->owner ? gt_hash(ps->owner, ps->key_count * sizeof *ps->owner) : 0,
        (uint64_t)(o->turn != NULL)
    };
    return gt_hash(parts, sizeof parts);
}

/* ---- who does what ---------------------------------------------------------------------- */

/* A copy of the list, or all ranks; each named once. */
static gt_status take_ranks(const net_ps *ps, const char *what, const int *given, int *count, int **out)
{
    const int n = given ? *count : ps->size;
    if (n < 1 || n > ps->size)
        return gt_fail(GT_MISUSE, "a parameter server cannot have %d %ss on %d ranks", n, what, ps->size);
    *out = malloc((size_t)n * sizeof **out);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for a list of %d %ss", n, what);
    for (int i = 0; i < n; i++) {
        (*out)[i] = given ? given[i] : i;
        if ((*out)[i] < 0 || (*out)[i] >= ps->size)
            return gt_fail(GT_MISUSE, "%s %d of a parameter server: there is no rank %d among %d", what, i, (*out)[i],
                           ps->size);
        for (int j = 0; j < i; j++)
            if ((*out)[i] == (*out)[j])
                return gt_fail(GT_MISUSE, "rank %d is named twice as a %s of a parameter server", (*out)[i], what);
    }
    *count = n;
    return GT_OK;
}

static gt_status take_shares(net_ps *ps, const double *given)
{
    const int n = ps->options.server_count;
    double sum = 0.0;
    ps->shares = malloc((size_t)n * sizeof *ps->shares);
    if (!ps->shares)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for the shares of %d servers", n);
    for (int i = 0; i < n; i++) {
        ps->shares[i] = given ? given[i] : 1.0;
        if (!(ps->shares[i] >= 0.0) || isinf(ps->shares[i]))
            return gt_fail(GT_MISUSE, "server %d of a parameter server has a share of %g", i, ps->shares[i]);
        sum += ps->shares[i];
    }
    if (!(sum > 0.0) || isinf(sum))
        return gt_fail(GT_MISUSE, "the shares of a parameter server add up to %g", sum);
    for (int i = 0; i < n; i++)
        ps->shares[i] /= sum;
    return GT_OK;
}

/* Blocks of as many elements as give each server a pipelined piece. */
static gt_status cut_blocks(net_ps *ps, uint64_t piece)
{
    enum { LINE = 16 };
    const uint64_t servers = ps->owner ? 1 : (uint64_t)ps->options.server_count;
    const uint64_t each = (piece / sizeof(float) / LINE + 1) * LINE * servers;
    uint64_t n = 0;
    for (uint32_t k = 0; k < ps->key_count; k++)
        n += ps->keys[k] / each + 1;
    if (n > UINT32_MAX / 2)
        return gt_fail(GT_MISUSE, "a parameter server cannot hold so many elements");
    ps->first = calloc(ps->key_count + (size_t)1, sizeof *ps->first);
    ps->blocks = calloc((size_t)n + 1, sizeof *ps->blocks);
    ps->key_of = calloc((size_t)n + 1, sizeof *ps->key_of);
    if (!ps->first || !ps->blocks || !ps->key_of)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for a list of %llu blocks",
                       (unsigned long long)n);
    for (uint32_t k = 0; k < ps->key_count; k++) {
        ps->first[k] = ps->block_count;
        for (uint64_t at = 0; at < ps->keys[k]; at += each) {
            const uint64_t left = ps->keys[k] - at;
            ps->key_of[ps->block_count] = k;
            ps->blocks[ps->block_count++] = (ps_range){ at, left < each ? left : each };
        }
    }
    ps->first[ps->key_count] = ps->block_count;
    return GT_OK;
}

/* Cuts a block at multiples of LINE elements, in proportion to the shares. */
static void cut_block(const net_ps *ps, const ps_range *block, ps_range *out)
{
    enum { LINE = 16 };
    const int n = ps->options.server_count;
    uint64_t at = 0;
    double before = 0.0;
    for (int j = 0; j < n; j++) {
        before += ps->shares[j];
        uint64_t end = (uint64_t)(before * (double)block->count / LINE + 0.5) * LINE;
        end = j == n - 1 || end > block->count ? block->count : end < at ? at : end;
        out[j] = (ps_range){ block->offset + at, end - at };
        at = end;
    }
}

static gt_status take_owners(net_ps *ps, const int *given)
{
    if (!given)
        return GT_OK;
    ps->owner = malloc(((size_t)ps->key_count + 1) * sizeof *ps->owner);
    if (!ps->owner)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for the owners of %u keys",
                       (unsigned)ps->key_count);
    for (uint32_t k = 0; k < ps->key_count; k++) {
        ps->owner[k] = given[k];
        if (given[k] < 0 || given[k] >= ps->options.server_count)
            return gt_fail(GT_MISUSE, "key %u of a parameter server is server %d's; there are %d", (unsigned)k,
                           given[k], ps->options.server_count);
    }
    return GT_OK;
}

static gt_status cut_keys(net_ps *ps)
{
    const size_t n = (size_t)ps->options.server_count;
    const net_config *config = net_job_config(net_comm_job(net_group_comm(ps->group)));
    gt_status st = cut_blocks(ps, config->pipeline);
    if (st)
        return st;
    ps->ranges = calloc(ps->block_count * n + 1, sizeof *ps->ranges);
    if (!ps->ranges)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for the parts of %u blocks",
                       ps->block_count);
    for (uint32_t b = 0; b < ps->block_count; b++)
        if (ps->owner)
            ps->ranges[b * n + (size_t)ps->owner[ps->key_of[b]]] = ps->blocks[b];
        else
            cut_block(ps, &ps->blocks[b], &ps->ranges[b * n]);
    return GT_OK;
}

static int place_of(const int *list, int count, int rank)
{
    for (int i = 0; i < count; i++)
        if (list[i] == rank)
            return i;
    return -1;
}

static gt_status take_priorities(net_ps *ps, const uint32_t *priority)
{
    if (!priority)
        return GT_OK;
    ps->priority = malloc((ps->key_count + (size_t)1) * sizeof *priority);
    if (!ps->priority)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for a list of %u keys", ps->key_count);
    memcpy(ps->priority, priority, ps->key_count * sizeof *priority);
    return GT_OK;
}

static gt_status take_options(net_ps *ps, const net_ps_options *options, const uint64_t *keys)
{
    ps->options = *options;
    ps->keys = malloc((ps->key_count + (size_t)1) * sizeof *ps->keys);
    if (!ps->keys)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for a list of %u keys", ps->key_count);
    for (uint32_t k = 0; k < ps->key_count; k++) {
        ps->keys[k] = keys[k];
        if (keys[k] > SIZE_MAX / 64)
            return gt_fail(GT_MISUSE, "key %u of a parameter server has %llu elements", (unsigned)k,
                           (unsigned long long)keys[k]);
    }
    gt_status st = take_ranks(ps, "server", options->servers, &ps->options.server_count, &ps->servers);
    if (!st)
        st = take_ranks(ps, "worker", options->workers, &ps->options.worker_count, &ps->workers);
    if (!st)
        st = take_shares(ps, options->shares);
    if (!st)
        st = take_owners(ps, options->owner);
    if (!st)
        st = take_priorities(ps, options->priority);
    if (!st)
        st = cut_keys(ps);
    ps->options.servers = ps->servers;
    ps->options.workers = ps->workers;
    ps->options.shares = ps->shares;
    ps->options.owner = ps->owner;
    ps->options.priority = ps->priority;
    if (!st)
        ps->works = place_of(ps->workers, ps->options.worker_count, ps->rank) >= 0;
    return st;
}

/* ---- open and close --------------------------------------------------------------------- */

static void release(net_ps *ps)
{
    if (!ps)
        return;
    net_group_release(ps->group);
    pthread_mutex_destroy(&ps->lock);
    free(ps->servers);
    free(ps->workers);
    free(ps->shares);
    free(ps->owner);
    free(ps->priority);
    free(ps->keys);
    free(ps->ranges);
    free(ps->first);
    free(ps->blocks);
    free(ps->key_of);
    free(ps->slots);
    free(ps);
}

static gt_status own_group(net_ps *ps, net_group *g)
{
    int *ranks = malloc((size_t)ps->size * sizeof *ranks);
    if (!ranks)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for a list of %d ranks", ps->size);
    for (int i = 0; i < ps->size; i++)
        ranks[i] = net_group_member(g, i);
    gt_status st = net_group_create(&ps->group, net_group_comm(g), ranks, ps->size);
    free(ranks);
    return st;
}

gt_status net_ps_open(net_ps **out, net_group *g, const net_ps_options *options, const uint64_t *keys,
                      uint32_t key_count, const float *const *initial)
{
    *out = NULL;
    net_ps *ps = calloc(1, sizeof *ps);
    if (!ps)
        return gt_fail(GT_NO_MEMORY, "cannot open a parameter server: no memory for its state");
    pthread_mutex_init(&ps->lock, NULL);
    ps->rank = net_group_rank(g);
    ps->size = net_group_size(g);
    ps->key_count = key_count;
    gt_status st = own_group(ps, g);
    if (st) {
        release(ps);
        return st;
    }
    st = take_options(ps, options, keys);
    const int index = st ? -1 : place_of(ps->servers, ps->options.server_count, ps->rank);
    /* The thread starts once all agree; until then nobody has sent it anything. */
    st = agree(ps, st ? 0 : hash_of(ps), st);
    if (!st && index >= 0) {
        st = ps_server_start(&ps->server, ps, index, initial);
        if (st)                         /* the others count on this server by now */
            net_comm_abort(net_group_comm(g), net_comm_rank(net_group_comm(g)), "%s", gt_message());
    }
    if (st) {
        release(ps);
        return st;
    }
    *out = ps;
    return GT_OK;
}

gt_status net_ps_close(net_ps *ps)
{
    gt_status st = GT_OK;
    if (!ps)
        return GT_OK;
    if (ps->works)
        st = ps_client_close(ps);
    if (ps->server) {
        const gt_status served = ps_server_finish(ps->server);
        st = st ? st : served;
    }
    st = agree(ps, 0, st);
    release(ps);
    return st;
}
