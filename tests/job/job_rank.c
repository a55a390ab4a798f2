/* SPDX-License-Identifier: MIT */
/* tests/job/job_rank.c - a rank of a job, for tests with real processes.
 *
 *   job_rank [--rounds N] [--pause MS] [--say FILE] [--fail RANK CODE] [--stuck RANK] [--activity]
 *
 * Joins, exchanges its number N times with a pause between, checks what comes, prints one line
 * and leaves. --say writes its pid to FILE.RANK once the job runs. --fail: that rank ends with
 * that code after the first round; --stuck: that rank sleeps there for ever, --activity: as an
 * operation. Exit: as geartrain's verbs, 3 after a lost peer.                             */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "net/job/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    int rounds, fail, code, stuck, activity;
    long pause;
    const char *say;
} o = { .rounds = 5, .fail = -1, .stuck = -1 };

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--rounds") && i + 1 < argc)
            o.rounds = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--pause") && i + 1 < argc)
            o.pause = atol(argv[++i]);
        else if (!strcmp(argv[i], "--say") && i + 1 < argc)
            o.say = argv[++i];
        else if (!strcmp(argv[i], "--fail") && i + 2 < argc) {
            o.fail = atoi(argv[++i]);
            o.code = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--stuck") && i + 1 < argc)
            o.stuck = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--activity"))
            o.activity = 1;
        else {
            fprintf(stderr, "job_rank: what is '%s'?\n", argv[i]);
            exit(2);
        }
    }
}

static void say_pid(int rank)
{
    char path[4096], partial[4200];
    if (!o.say)
        return;
    snprintf(path, sizeof path, "%s.%d", o.say, rank);
    snprintf(partial, sizeof partial, "%s.new", path);
    FILE *f = fopen(partial, "w");
    if (!f || fprintf(f, "%ld\n", (long)getpid()) < 0 || fclose(f) || rename(partial, path)) {
        perror(path);
        exit(1);
    }
}

static uint64_t stuck_since;

static void tell_activity(void *context, net_activity *out)
{
    const int *rank = context;
    out->since = stuck_since;
    out->started = *rank == o.stuck ? 41 : 42;
    out->waits_for = *rank == o.stuck ? -1 : o.stuck;
    if (*rank == o.stuck)
        out->since = 0;
    else
        snprintf(out->text, sizeof out->text, "all-reduce #42, 25.0 MB f32");
}

/* As a collective that never ends. */
static gt_status hang(net_job *job, int rank)
{
    stuck_since = gt_now_ns();
    if (o.activity)
        net_job_on_activity(job, tell_activity, &rank);
    while (!net_job_check(job))
        gt_sleep_ns(10000000);
    net_job_on_activity(job, NULL, NULL);
    return net_job_check(job);
}

static gt_status one_round(net_job *job, int rank, int round)
{
    const int mine = 1000 * round + rank;
    net_blobs all;
    gt_status st = net_job_exchange(job, "round", &mine, sizeof mine, &all);
    for (int i = 0; i < all.count && !st; i++) {
        int theirs = -1;
        if (all.size[i] == sizeof theirs)
            memcpy(&theirs, all.data[i], sizeof theirs);
        if (theirs != 1000 * round + i)
            st = gt_fail(GT_FORMAT, "rank %d got %d from rank %d in round %d", rank, theirs, i, round);
    }
    net_blobs_release(&all);
    if (!st)
        st = net_job_barrier(job, "pause");
    if (!st && o.pause)
        gt_sleep_ns((uint64_t)o.pause * 1000000);
    return st;
}

int main(int argc, char **argv)
{
    net_config *config = NULL;
    net_identity who;
    net_job *job = NULL;
    parse(argc, argv);
    gt_status st = net_config_read(&config);
    if (!st)
        st = net_identity_find(&who, config);
    if (!st) {
        gt_log_rank(who.rank);
        st = net_job_join(&job, config, &who);
    }
    for (int round = 0; round < o.rounds && !st; round++) {
        st = one_round(job, who.rank, round);
        if (round == 0)
            say_pid(who.rank);
        if (!st && round == 0 && who.rank == o.fail) {
            fprintf(stderr, "rank %d fails as told\n", who.rank);
            _exit(o.code);
        }
        if (!st && round == 0 && o.stuck >= 0 && (o.activity || who.rank == o.stuck))
            st = hang(job, who.rank);
    }
    if (!st) {
        const net_member *m = net_job_member(job, who.rank);
        printf("rank %d of %d by %s at %s, local %d of %d\n", who.rank, who.size, who.source, m->address, m->local_rank,
               m->local_size);
        gt_message_clear();
    } else
        fprintf(stderr, "job_rank: %s\n", gt_message());
    fflush(stdout);
    net_job_leave(job);
    net_config_release(config);
    return st == GT_OK ? 0 : st == GT_MISUSE ? 2 : st == GT_PEER || st == GT_TIMEOUT ? 3 : 1;
}
