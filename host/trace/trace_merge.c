/* SPDX-License-Identifier: MIT */
/* host/trace/trace_merge.c - aligning clocks, and bringing spans to rank 0.
 *
 * Rank after rank, on both counts: pings of several ranks at once would wait for each other and
 * measure that, and rank 0 need not hold more on the way than it keeps.                   */
#include "host/trace/trace_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNEL = 0x7ace, ROUNDS = 64 };

static gt_status send_all(net_comm *c, int peer, const void *data, size_t size)
{
    net_request *r = NULL;
    gt_status st = net_send_start(c, peer, CHANNEL, data, size, &r);
    return st ? st : net_wait(r);
}

static gt_status receive_all(net_comm *c, int peer, void *data, size_t size)
{
    net_request *r = NULL;
    gt_status st = net_recv_start(c, peer, CHANNEL, data, size, &r);
    return st ? st : net_wait(r);
}

/* ---- clocks ---------------------------------------------------------------------------------- */

static gt_status answer_pings(net_comm *c)
{
    uint64_t now;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < ROUNDS; i++) {
        st = receive_all(c, 0, &now, sizeof now);
        now = gt_trace_now();
        if (!st)
            st = send_all(c, 0, &now, sizeof now);
    }
    return st;
}

static gt_status ping(net_comm *c, int rank, trace_clock *clock)
{
    uint64_t quickest = UINT64_MAX;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < ROUNDS; i++) {
        uint64_t there = 0;
        const uint64_t before = gt_trace_now();
        st = send_all(c, rank, &before, sizeof before);
        if (!st)
            st = receive_all(c, rank, &there, sizeof there);
        const uint64_t took = gt_trace_now() - before;
        if (!st && took < quickest) {
            quickest = took;
            clock->ahead = (int64_t)(there - (before + took / 2));
            clock->error = took / 2 + 1;
        }
    }
    return st;
}

/* 1 if they may be the same clock, and run on one kernel. */
static int is_same(net_comm *c, int rank, const trace_clock *clock)
{
    const uint64_t apart = (uint64_t)(clock->ahead < 0 ? -clock->ahead : clock->ahead);
    const net_job *job = net_comm_job(c);
    return apart <= clock->error && net_job_member(job, rank)->host_id == net_job_member(job, 0)->host_id;
}

gt_status trace_clocks(net_comm *c, trace_clock *clock)
{
    gt_status st = GT_OK;
    if (net_comm_rank(c))
        return answer_pings(c);
    clock[0] = (trace_clock){ 0 };
    for (int rank = 1; !st && rank < net_comm_size(c); rank++) {
        st = ping(c, rank, &clock[rank]);
        if (!st && is_same(c, rank, &clock[rank]))
            clock[rank].ahead = 0;
    }
    return st;
}

/* ---- spans ----------------------------------------------------------------------------------- */

typedef struct summary {
    uint64_t count, lost;
    char device[sizeof((gt_trace *)0)->device];
} summary;

/* Room for everybody's spans, from what they say of them. */
static gt_status make_room(gt_trace **out, const net_blobs *said)
{
    gt_trace *all = calloc((size_t)said->count, sizeof *all);
    gt_status st = all ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot merge traces: no memory for a list of %d", said->count);
    for (int i = 0; !st && i < said->count; i++) {
        summary s = { 0 };
        if (said->size[i] == sizeof s)
            memcpy(&s, said->data[i], sizeof s);
        all[i] = (gt_trace){ .rank = i, .count = s.count, .lost = s.lost };
        snprintf(all[i].device, sizeof all[i].device, "%.47s", s.device);
        all[i].span = malloc((s.count + 1) * sizeof *all[i].span);
        if (!all[i].span)
            st = gt_fail(GT_NO_MEMORY, "cannot merge traces: no memory for %llu spans of rank %d",
                         (unsigned long long)s.count, i);
    }
    if (st) {
        trace_merge_release(all, said->count);
        return st;
    }
    *out = all;
    return GT_OK;
}

/* Rank 0: its own, then everyone's, moved to its clock. */
static gt_status collect(net_comm *c, const gt_trace *mine, const trace_clock *clock, gt_trace *all)
{
    gt_status st = GT_OK;
    if (mine->count)
        memcpy(all[0].span, mine->span, mine->count * sizeof *mine->span);
    for (int rank = 1; !st && rank < net_comm_size(c); rank++) {
        gt_trace *t = &all[rank];
        if (t->count)
            st = receive_all(c, rank, t->span, t->count * sizeof *t->span);
        for (size_t i = 0; !st && i < t->count; i++) {
            t->span[i].begin -= (uint64_t)clock[rank].ahead;
            t->span[i].end -= (uint64_t)clock[rank].ahead;
        }
    }
    return st;
}

gt_status trace_merge(net_comm *c, const gt_trace *mine, gt_trace **all)
{
    const int rank = net_comm_rank(c), size = net_comm_size(c);
    net_blobs said = { 0 };
    summary s = { .count = mine->count, .lost = mine->lost };
    trace_clock *clock = rank ? NULL : calloc((size_t)size, sizeof *clock);
    snprintf(s.device, sizeof s.device, "%s", mine->device);
    *all = NULL;
    gt_status st = rank || clock
                       ? trace_clocks(c, clock)
                       : gt_fail(GT_NO_MEMORY, "cannot merge traces: no memory for the clocks of %d ranks", size);
    if (!st)
        st = net_job_exchange(net_comm_job(c), "traces", &s, sizeof s, &said);
    if (!st && !rank)
        st = make_room(all, &said);
    if (!st && !rank)
        st = collect(c, mine, clock, *all);
    else if (!st && mine->count)
        st = send_all(c, 0, mine->span, mine->count * sizeof *mine->span);
    if (st) {
        trace_merge_release(*all, size);
        *all = NULL;
    }
    net_blobs_release(&said);
    free(clock);
    return st;
}

void trace_merge_release(gt_trace *all, int ranks)
{
    for (int i = 0; all && i < ranks; i++)
        gt_trace_release(&all[i]);
    free(all);
}

gt_status trace_save(net_comm *c, const char *device, const char *path)
{
    gt_trace mine, *all = NULL;
    gt_status st = gt_trace_take(&mine);
    snprintf(mine.device, sizeof mine.device, "%s", device);
    if (!st && c)
        st = trace_merge(c, &mine, &all);
    if (!st && (!c || all))
        st = gt_trace_write(path, all ? all : &mine, all ? net_comm_size(c) : 1);
    trace_merge_release(all, c ? net_comm_size(c) : 0);
    gt_trace_release(&mine);
    return st;
}
