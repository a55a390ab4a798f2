/* SPDX-License-Identifier: MIT */
/* tests/trace/test_trace_merge.c - ranks whose clocks differ draw one picture. Ranks are threads
 * and share a clock, but for the shift that each is given: so what is measured can be held
 * against what is true, within what the measurement says of itself.                       */
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/file.h"
#include "host/trace/trace_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3, MANY = 300000 };

typedef struct clocks {
    int64_t shift[RANKS];
    int same;
} clocks;

static gt_status finds_shifts(net_comm *c, void *context)
{
    const clocks *k = context;
    const int rank = net_comm_rank(c);
    trace_clock clock[RANKS];
    gt_trace_shift(k->shift[rank]);
    RANK_OK(trace_clocks(c, rank ? NULL : clock));
    for (int i = 0; !rank && i < RANKS; i++) {
        const int64_t off = clock[i].ahead - (k->shift[i] - k->shift[0]);
        if ((uint64_t)(off < 0 ? -off : off) > clock[i].error)
            return gt_fail(GT_MISMATCH, "rank %d: %lld ns off, said to be at most %llu", i, (long long)off,
                           (unsigned long long)clock[i].error);
        if (k->same)
            RANK_CHECK(clock[i].ahead == 0);
    }
    return GT_OK;
}

static void clocks_are_measured(void)
{
    static const clocks cases[] = {
        { { 0, 0, 0 }, 1 },
        { { 0, 5000000000, -3000000000 }, 0 },
        { { 77000000000, 1000000000, 0 }, 0 },
    };
    static const char *const knobs[] = { "transport=shm", "transport=tcp" };
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            clocks one = cases[i];
            CHECK_OK(ranks_run(RANKS, knobs[k], finds_shifts, &one));
        }
}

/* Rank r's spans: `count` of 100 ns each, and one, "turn", that lies behind those of ranks before. */
static gt_status record(net_comm *c, size_t count, gt_trace *out)
{
    const int rank = net_comm_rank(c);
    *out = (gt_trace){ .rank = rank, .count = count + 1, .lost = (uint64_t)rank };
    out->span = calloc(count + 1, sizeof *out->span);
    RANK_CHECK(out->span != NULL);
    snprintf(out->device, sizeof out->device, "cpu:0.%d", rank);
    const uint64_t start = gt_trace_now();
    for (size_t i = 0; i < count; i++) {
        gt_span *s = &out->span[i];
        *s = (gt_span){ .begin = start - 100 * (count - i),
                        .end = start - 100 * (count - i) + 100,
                        .category = GT_TRACE_KERNEL,
                        .track = GT_TRACK_COMPUTE };
        snprintf(s->name, sizeof s->name, "%d.%zu", rank, i);
    }
    for (int turn = 0; turn < RANKS; turn++) {
        if (turn == rank) {
            gt_span *s = &out->span[count];
            s->begin = gt_trace_now();
            s->category = GT_TRACE_WAIT;
            s->track = GT_TRACK_HOST;
            snprintf(s->name, sizeof s->name, "turn");
            s->end = gt_trace_now();
        }
        RANK_OK(net_job_barrier(net_comm_job(c), "a turn"));
    }
    return GT_OK;
}

/* Merged spans are rank 0's own picture of what rank r recorded. */
static gt_status check_merged(const gt_trace *all, const size_t *counts, const trace_clock *clock)
{
    char name[32];
    for (int r = 0; r < RANKS; r++) {
        const gt_trace *t = &all[r];
        RANK_CHECK(t->rank == r && t->lost == (uint64_t)r && t->count == counts[r] + 1);
        snprintf(name, sizeof name, "cpu:0.%d", r);
        RANK_CHECK(!strcmp(t->device, name));
        for (size_t i = 0; i < counts[r]; i++) {
            snprintf(name, sizeof name, "%d.%zu", r, i);
            RANK_CHECK(!strcmp(t->span[i].name, name) && t->span[i].end == t->span[i].begin + 100);
            RANK_CHECK(i == 0 || t->span[i].begin == t->span[i - 1].end);
        }
        const gt_span *turn = &t->span[counts[r]];
        RANK_CHECK(!strcmp(turn->name, "turn") && turn->category == GT_TRACE_WAIT);
        if (r)
            RANK_CHECK(all[r - 1].span[counts[r - 1]].end <= turn->begin + clock[r].error + clock[r - 1].error);
    }
    return GT_OK;
}

typedef struct merging {
    size_t counts[RANKS];
    char path[512];
} merging;

static gt_status merges(net_comm *c, void *context)
{
    const merging *m = context;
    const int rank = net_comm_rank(c);
    trace_clock clock[RANKS];
    gt_trace mine, *all = NULL;
    gt_trace_shift(7000000000 * (RANKS - rank));
    RANK_OK(trace_clocks(c, rank ? NULL : clock));
    RANK_OK(record(c, m->counts[rank], &mine));
    RANK_OK(trace_merge(c, &mine, &all));
    RANK_CHECK(!all == (rank != 0));
    /* Measured once more inside: each is as wrong as it may be, so together twice. */
    for (int i = 0; !rank && i < RANKS; i++)
        clock[i].error += 1000000000;
    gt_status st = rank ? GT_OK : check_merged(all, m->counts, clock);
    if (!st && !rank)
        st = gt_trace_write(m->path, all, RANKS);
    trace_merge_release(all, RANKS);
    gt_trace_release(&mine);
    return st;
}

static void spans_of_all_ranks_come_together(void)
{
    static const char *const knobs[] = { "transport=shm", "transport=tcp" };
    for (int k = 0; k < 2; k++) {
        merging m = { .counts = { 5, 0, MANY } };
        snprintf(m.path, sizeof m.path, "%s/merged-%d.json", check_folder(), k);
        CHECK_OK(ranks_run(RANKS, knobs[k], merges, &m));
    }
}

static gt_status saves(net_comm *c, void *context)
{
    char device[16];
    snprintf(device, sizeof device, "cpu:0.%d", net_comm_rank(c));
    return trace_save(c, device, context);
}

/* What a viewer reads: all spans of all ranks, rows that are named, none before 0. Besides them the recorder may have
 * what the network did for the ranks that were still at it. */
static const char reader[] =
    "import json, sys\n"
    "d = json.load(open(sys.argv[1]))\n"
    "e = d['traceEvents']\n"
    "x = [i for i in e if i['ph'] == 'X']\n"
    "k = [i for i in x if i['cat'] == 'kernel']\n"
    "assert len(k) == int(sys.argv[2]) * int(sys.argv[3]), len(k)\n"
    "assert min(i['ts'] for i in x) == 0 and all(i['dur'] >= 0 for i in x)\n"
    "rows = {(i['pid'], i['tid']) for i in e if i['name'] == 'thread_name'}\n"
    "assert all((i['pid'], i['tid']) in rows for i in x)\n"
    "names = [i['args']['name'] for i in e if i['name'] == 'process_name']\n"
    "assert names == ['rank %d cpu:0.%d' % (r, r) for r in range(int(sys.argv[2]))], names\n";

static void a_saved_trace_is_read_by_others(void)
{
    char *script = gt_path_join(check_folder(), "reader.py"), command[2048];
    char *path = gt_path_join(check_folder(), "saved.json");
    CHECK_OK(gt_file_write(script, reader, sizeof reader - 1));
    if (system("python3 -c 'import json' > /dev/null 2>&1") != 0) {
        check_skip("there is no python3");
        free(script);
        free(path);
        return;
    }
    CHECK_OK(gt_trace_start(100));
    for (unsigned i = 0; i < 20; i++)
        gt_trace_span(GT_TRACE_KERNEL, GT_TRACK_COMPUTE, "\"a\" \\ b", 1000 + 10 * i, 1007 + 10 * i);
    for (int ranks = 1; ranks <= 3; ranks += 2) {
        /* As threads the ranks have one recorder, and each hands in what it holds. */
        CHECK_OK(ranks == 1 ? trace_save(NULL, "cpu:0.0", path) : ranks_run(3, "", saves, path));
        snprintf(command, sizeof command, "python3 '%s' '%s' %d 20", script, path, ranks);
        CHECK(system(command) == 0);
    }
    gt_trace_stop();
    free(script);
    free(path);
}

const check_case check_cases[] = {
    CASE(clocks_are_measured), CASE(spans_of_all_ranks_come_together), CASE(a_saved_trace_is_read_by_others), { 0 }
};
