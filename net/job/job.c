/* SPDX-License-Identifier: MIT */
/* net/job/job.c - the calls of a member: exchanges, streams, callbacks, and small answers.
 *
 * An exchange goes through rank 0: everyone sends a share, rank 0 joins them in one body and
 * queues that on all links. Shares carry a number and a name, so ranks that are at different
 * places of the program find out here, by name, instead of mixing up their bytes.        */
#include "net/job/job_private.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "net/job/bigendian.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int net_job_rank(const net_job *job)
{
    return job->rank;
}

int net_job_size(const net_job *job)
{
    return job->size;
}

const net_config *net_job_config(const net_job *job)
{
    return job->config;
}

const net_member *net_job_member(const net_job *job, int rank)
{
    assert(rank >= 0 && rank < job->size);
    return &job->peers[rank].member;
}

char *net_job_name(const net_job *job, int rank, char *out, size_t size)
{
    if (rank >= 0 && rank < job->size)
        snprintf(out, size, "%s", job->peers[rank].name);
    else
        snprintf(out, size, "rank %d", rank);
    return out;
}

char *rank_list(char *out, size_t size, const unsigned char *mark, int ranks)
{
    int total = 0, shown = 0;
    size_t used = 0;
    for (int i = 0; i < ranks; i++)
        total += mark[i] != 0;
    const int most = total > 9 ? 8 : total;
    snprintf(out, size, "no rank");
    for (int i = 0; i < ranks && shown < most && used < size; i++) {
        if (!mark[i])
            continue;
        const char *before = shown == 0 ? total > 1 ? "ranks " : "rank " : shown == total - 1 ? " and " : ", ";
        used += (size_t)snprintf(out + used, size - used, "%s%d", before, i);
        shown++;
    }
    if (total > most && used < size)
        snprintf(out + used, size - used, " and %d more", total - most);
    return out;
}

/* ---- the end ----------------------------------------------------------------------------- */

gt_status net_job_check(const net_job *job)
{
    return end_status(job);
}

void net_job_on_abort(net_job *j, void (*wake)(void *context), void *context)
{
    pthread_mutex_lock(&j->calling);
    j->on_abort = wake;
    j->abort_context = context;
    pthread_mutex_unlock(&j->calling);
    serve_wake(j);
}

void net_job_on_activity(net_job *j, void (*ask)(void *context, net_activity *out), void *context)
{
    pthread_mutex_lock(&j->calling);
    j->on_activity = ask;
    j->activity_context = context;
    pthread_mutex_unlock(&j->calling);
}

/* ---- streams ----------------------------------------------------------------------------- */

void net_job_on_stream(net_job *j, void (*accept)(void *context, int peer, int fd), void *context)
{
    pthread_mutex_lock(&j->calling);
    pthread_mutex_lock(&j->lock);
    j->on_stream = accept;
    j->stream_context = context;
    pthread_mutex_unlock(&j->lock);
    pthread_mutex_unlock(&j->calling);
    serve_wake(j);
}

static int is_over(void *job)
{
    return atomic_load(&((net_job *)job)->over);
}

gt_status net_job_connect(net_job *j, int peer, int *fd)
{
    net_address to[NET_ADDRESSES];
    char name[96], text[96];
    int count = 0, refused = 0;
    net_wire wire = { .fd = -1 };
    *fd = -1;
    gt_status st = net_job_check(j);
    if (st)
        return st;
    if (peer < 0 || peer >= j->size || peer == j->rank)
        return gt_fail(GT_MISUSE, "rank %d cannot connect to rank %d of %d", j->rank, peer, j->size);
    const net_member *m = &j->peers[peer].member;
    const net_stop stop = { is_over, j };
    /* A busy peer may take its time; if it is dead, the job's end stops us. */
    const uint64_t deadline = gt_now_ns() + j->config->start_timeout;
    int s = -1;
    net_job_name(j, peer, name, sizeof name);
    st = net_address_resolve(to, &count, m->address, m->port);
    if (!st)
        st = net_dial(&s, &to[0], deadline, &stop);
    if (!st)
        st = handshake_connect(j, s, NET_ROLE_STREAM, peer, deadline, &stop, &wire, &refused);
    if (is_over(j)) {
        net_wire_close(&wire);
        return net_job_check(j);
    }
    if (st) {
        snprintf(text, sizeof text, "%s", count ? "" : m->address);
        return gt_fail(st == GT_TIMEOUT ? GT_TIMEOUT : GT_PEER,
                       "rank %d cannot connect to %s at %s: %.300s; is a firewall between?", j->rank, name,
                       count ? net_address_text(text, sizeof text, &to[0]) : text, gt_message());
    }
    *fd = wire.fd;
    wire.fd = -1;
    net_wire_close(&wire);
    net_set_blocking(*fd, 1);
    net_keep_alive(*fd, j->config->heartbeat, 0);
    return GT_OK;
}

/* ---- exchange ---------------------------------------------------------------------------- */

void net_blobs_release(net_blobs *b)
{
    for (int i = 0; b->data && i < b->count; i++)
        free(b->data[i]);
    free(b->data);
    free(b->size);
    *b = (net_blobs){ 0 };
}

/* Rank 0: joins all shares, "u64 number, name, then u32 size and bytes of each". */
static net_body *join_parts(net_job *j)
{
    size_t size = NET_CONTRIBUTION_HEAD, used = NET_CONTRIBUTION_HEAD;
    for (int i = 0; i < j->size; i++)
        size += 4 + j->peers[i].contribution->size - NET_CONTRIBUTION_HEAD;
    net_body *all = net_body_create(size);
    if (!all)
        return NULL;
    memcpy(all->data, j->peers[0].contribution->data, NET_CONTRIBUTION_HEAD);
    for (int i = 0; i < j->size; i++) {
        const net_body *contribution = j->peers[i].contribution;
        const size_t n = contribution->size - NET_CONTRIBUTION_HEAD;
        net_put32(all->data + used, (uint32_t)n);
        if (n)
            memcpy(all->data + used + 4, contribution->data + NET_CONTRIBUTION_HEAD, n);
        used += 4 + n;
    }
    return all;
}

static void finish_exchange(net_job *j)
{
    net_body *all = join_parts(j);
    if (!all) {
        end_job(j, GT_PEER, 0, "%s has no memory for the result of exchange '%s'", j->peers[0].name,
                j->peers[0].contribution_what);
        return;
    }
    for (int i = 1; i < j->size; i++)
        serve_send(j, i, NET_ALL, all);
    for (int i = 0; i < j->size; i++) {
        net_body_release(j->peers[i].contribution);
        j->peers[i].contribution = NULL;
    }
    j->contributions = 0;
    net_body_release(j->all);
    j->all = all;
    j->all_sequence = net_get64(all->data);
    pthread_cond_broadcast(&j->changed);
}

/* Rank 0 has got a share: is it of the same exchange as the others, and the last one? */
static void add_contribution(net_job *j, int rank, net_body *contribution, uint64_t sequence, const char *what)
{
    rank_state *p = &j->peers[rank];
    const rank_state *o = &j->peers[j->first_contribution];
    if (atomic_load(&j->over)) {
        net_body_release(contribution);
        return;
    }
    if (p->contribution) {
        net_body_release(contribution);
        end_job(j, GT_PEER, rank, "%s is in two exchanges at once, '%s' and '%s'", p->name, p->contribution_what, what);
        return;
    }
    p->contribution = contribution;
    p->contribution_sequence = sequence;
    p->contribution_since = gt_now_ns();
    snprintf(p->contribution_what, sizeof p->contribution_what, "%s", what);
    if (j->contributions++ == 0)
        j->first_contribution = rank;
    else if (o->contribution_sequence != sequence || strcmp(o->contribution_what, what)) {
        end_job(j, GT_PEER, -1,
                "ranks are at different places: %s is at '%s' (exchange %llu) and %s at "
                "'%s' (exchange %llu)",
                o->name, o->contribution_what, (unsigned long long)o->contribution_sequence, p->name, what,
                (unsigned long long)sequence);
        return;
    }
    if (j->contributions == j->size)
        finish_exchange(j);
    else
        exchange_check_left(j);
}

void exchange_contribution(net_job *j, int rank, const net_head *head, const unsigned char *body)
{
    uint64_t sequence;
    char what[NET_WHAT];
    if (net_contribution_parse(&sequence, what, body, head->length)) {
        end_job(j, GT_PEER, rank, "%s: %s", j->peers[rank].name, gt_message());
        return;
    }
    net_body *contribution = net_body_create(head->length);
    if (!contribution) {
        end_job(j, GT_PEER, 0, "%s has no memory for a share of exchange '%s'", j->peers[0].name, what);
        return;
    }
    memcpy(contribution->data, body, head->length);
    add_contribution(j, rank, contribution, sequence, what);
}

void exchange_all(net_job *j, const net_head *head, const unsigned char *body)
{
    net_body *all = head->length >= NET_CONTRIBUTION_HEAD ? net_body_create(head->length) : NULL;
    if (!all)
        return;
    memcpy(all->data, body, head->length);
    net_body_release(j->all);
    j->all = all;
    j->all_sequence = net_get64(body);
    pthread_cond_broadcast(&j->changed);
}

void exchange_check_left(net_job *j)
{
    int waits = -1;
    for (int i = 0; i < j->size; i++)
        if (j->peers[i].contribution)
            waits = i;
    for (int i = 0; i < j->size && waits >= 0; i++) {
        const rank_state *p = &j->peers[i];
        if (p->left && !p->contribution)
            end_job(j, GT_PEER, i,
                    "%s left the job while %s waits for it in '%s'; it had finished or "
                    "failed%s%s",
                    p->name, j->peers[waits].name, j->peers[waits].contribution_what,
                    p->leave_reason[0] ? " with: " : "", p->leave_reason);
    }
}

static gt_status copy_blobs(const net_job *j, const net_body *all, net_blobs *out)
{
    const unsigned char **at = calloc((size_t)j->size, sizeof *at);
    out->data = calloc((size_t)j->size, sizeof *out->data);
    out->size = calloc((size_t)j->size, sizeof *out->size);
    out->count = j->size;
    gt_status st = at && out->data && out->size
                       ? net_all_parse(at, out->size, all->data, all->size, j->size)
                       : gt_fail(GT_NO_MEMORY, "no memory for the lists of an exchange of %d ranks", j->size);
    for (int i = 0; i < j->size && !st; i++) {
        out->data[i] = malloc(out->size[i] + 1);
        if (!out->data[i])
            st = gt_fail(GT_NO_MEMORY, "no memory for the %zu bytes of rank %d in an exchange", out->size[i], i);
        else {
            memcpy(out->data[i], at[i], out->size[i]);
            out->data[i][out->size[i]] = 0;
        }
    }
    free(at);
    if (st)
        net_blobs_release(out);
    return st;
}

/* Gives rank 0 our share, and waits for the result. With the lock. */
static gt_status run_exchange(net_job *j, net_body *contribution, const char *what, net_body **result)
{
    const uint64_t sequence = ++j->sequence;
    char name[NET_WHAT];
    snprintf(name, sizeof name, "%s", what);
    net_contribution_format(contribution->data, sequence, name);
    if (j->rank == 0) {
        contribution->users++;
        add_contribution(j, 0, contribution, sequence, name);
    } else {
        serve_send(j, 0, NET_CONTRIBUTION, contribution);
    }
    while (!atomic_load(&j->over) && !(j->all && j->all_sequence == sequence))
        pthread_cond_wait(&j->changed, &j->lock);
    if (!j->all || j->all_sequence != sequence)
        return end_status(j);
    *result = j->all;
    j->all = NULL;
    return GT_OK;
}

gt_status net_job_exchange(net_job *j, const char *what, const void *mine, size_t size, net_blobs *out)
{
    net_body *result = NULL;
    *out = (net_blobs){ 0 };
    if (size > NET_BLOB)
        return gt_fail(GT_MISUSE, "cannot exchange %zu bytes in '%s': %d is the limit", size, what, NET_BLOB);
    gt_status st = net_job_check(j);
    net_body *contribution = st ? NULL : net_body_create(NET_CONTRIBUTION_HEAD + size);
    if (!st && !contribution)
        st = gt_fail(GT_NO_MEMORY, "cannot exchange '%s': no memory for %zu bytes", what, size);
    if (!st) {
        if (size)
            memcpy(contribution->data + NET_CONTRIBUTION_HEAD, mine, size);
        gt_activity waiting, why;
        gt_activity_begin(&waiting, "waiting for the other ranks", NULL, 0);
        gt_activity_begin(&why, what, NULL, 0);
        pthread_mutex_lock(&j->lock);
        st = run_exchange(j, contribution, what, &result);
        net_body_release(contribution);  /* counts are the lock's */
        pthread_mutex_unlock(&j->lock);
        gt_activity_end(&why);
        gt_activity_end(&waiting);
    }
    if (!st)
        st = copy_blobs(j, result, out);
    pthread_mutex_lock(&j->lock);
    net_body_release(result);
    pthread_mutex_unlock(&j->lock);
    return st;
}

gt_status net_job_barrier(net_job *j, const char *what)
{
    net_blobs all;
    gt_status st = net_job_exchange(j, what, NULL, 0, &all);
    net_blobs_release(&all);
    return st;
}
