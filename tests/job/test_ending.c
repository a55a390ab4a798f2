/* SPDX-License-Identifier: MIT */
/* tests/job/test_ending.c - how a job ends before its time, and that all ranks give the same reason.
 *
 *   rank 0   ... works ... ──┐
 *   rank 1   ... works ... ──┼─ "lost rank 2 (elsewhere, pid 4711): it was killed or crashed"
 *   rank 2   ... dies, aborts, leaves, lies, or stalls
 *
 * Ranks are threads (gang.h), so that what each of them was told can be compared. How they meet is test_meeting.c. */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "tests/check.h"
#include "tests/job/gang.h"
#include "tests/job/stranger.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- aborts, deaths, and ranks that part ----------------------------------------------------- */

static char sentences[GANG][1024];
static _Atomic int woken;

static void wake(void *context)
{
    (void)context;
    woken++;
}

/* Works until the job ends, and keeps the sentence. */
static void await_end(net_job *job, int rank)
{
    gt_status st = GT_OK;
    for (int i = 0; i < 2000 && !st; i++) {
        st = net_job_check(job);
        usleep(5000);
    }
    WANT(st == GT_PEER);
    snprintf(sentences[rank], sizeof sentences[rank], "%s", gt_message());
    net_blobs all;
    WANT(net_job_exchange(job, "after", NULL, 0, &all) == GT_PEER);
}

static void check_sentences(const gang *g, const char *part)
{
    for (int i = 0; i < g->size; i++)
        CHECKF(g->absent[i] || (strstr(sentences[i], part) && !strcmp(sentences[i], sentences[0])),
               "rank %d: '%s', rank 0: '%s'", i, sentences[i], sentences[0]);
}

static void abort_at_2(net_job *job, int rank, void *context)
{
    (void)context;
    net_job_on_abort(job, wake, NULL);
    if (rank == 2)
        WANT(net_job_abort(job, 2, "out of luck") == GT_PEER);
    await_end(job, rank);
    for (int i = 0; i < 400 && woken < net_job_size(job); i++)
        usleep(5000);
}

static void an_abort_is_the_same_sentence_everywhere(void)
{
    gang g;
    gang_init(&g, 4);
    g.run = abort_at_2;
    gang_wrong = woken = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0 && woken == 4);
    check_sentences(&g, "rank 2 (");
    check_sentences(&g, "ended the job: out of luck");
    gang_release(&g);
}

static void all_abort(net_job *job, int rank, void *context)
{
    (void)context;
    char text[64];
    snprintf(text, sizeof text, "reason %d", rank);
    WANT(net_job_abort(job, (rank + 1) % net_job_size(job), text) == GT_PEER);
    await_end(job, rank);
}

static void only_the_first_abort_counts(void)
{
    gang g;
    gang_init(&g, 6);
    g.run = all_abort;
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
    check_sentences(&g, "reason");
    gang_release(&g);
}

static void say_and_abort(net_job *job, int rank, void *context)
{
    WANT(write(*(const int *)context, "a", 1) == 1);
    all_abort(job, rank, NULL);
}

/* In a process of its own: 0 if all of its ranks said the same. */
static int abort_in_a_child(int say)
{
    gang g;
    gang_init(&g, 6);
    g.run = say_and_abort;
    g.context = &say;
    gang_wrong = 0;
    gang_go(&g);
    int differ = gang_wrong;
    for (int i = 1; i < g.size; i++)
        differ += strcmp(sentences[i], sentences[0]) != 0;
    gang_release(&g);
    return differ;
}

/* All ranks wait for rank 0's verdict when nobody gets a processor for longer than they would wait. */
static void a_machine_that_stands_still_ends_by_one_sentence(void)
{
    int say[2], status = -1;
    char six[6];
    CHECK(pipe(say) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (!child)
        _exit(abort_in_a_child(say[1]) != 0);
    for (size_t i = 0; i < sizeof six; i++)
        CHECK(read(say[0], six + i, 1) == 1);
    usleep(50000);                      /* all have asked; the verdict is held for longer    */
    CHECK(kill(child, SIGSTOP) == 0);
    usleep(1500000);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ended with %d", status);
    close(say[0]);
    close(say[1]);
}

/* Rank 1 sees only that a connection broke; rank 2 knows why, a little later. */
static void blame_then_confess(net_job *job, int rank, void *context)
{
    (void)context;
    if (rank == 1)
        WANT(net_job_abort(job, 2, "cannot read from rank 2") == GT_PEER);
    if (rank == 2) {
        usleep(20000);
        WANT(net_job_abort(job, -1, "the disk is full") == GT_PEER);
    }
    await_end(job, rank);
}

static void who_knows_better_is_heard(void)
{
    gang g;
    gang_init(&g, 3);
    g.run = blame_then_confess;
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
    check_sentences(&g, "the disk is full");
    gang_release(&g);
}

/* Joins as rank 2, and dies. */
static void *join_and_die(void *argument)
{
    stranger_visit *v = argument;
    net_wire wire = { .fd = -1 };
    const unsigned char *body;
    size_t length;
    gang *g = v->g;
    v->entered = stranger_join(&g->who[2], g->config[2], gang_port(g), 0, &wire)
                 && stranger_receive(&wire, NET_MEMBER_LIST, &body, &length);
    usleep(150000);                                 /* the others are at work then            */
    net_wire_close(&wire);
    return NULL;
}

static void just_wait(net_job *job, int rank, void *context)
{
    (void)context;
    await_end(job, rank);
}

static void a_killed_rank_ends_the_job_by_name(void)
{
    gang g;
    stranger_visit v = { 0 };
    gang_init(&g, 4);
    g.run = just_wait;
    g.absent[2] = 1;
    gang_wrong = 0;
    stranger_beside(&g, join_and_die, &v);
    CHECK(v.entered && gang_wrong == 0);
    check_sentences(&g, "lost rank 2 (elsewhere, pid 4711): it was killed or crashed");
    gang_release(&g);
}

/* Joins as rank 2, and sends a control message whose counter (done 0) or MAC does not fit. */
static void *join_and_forge(void *argument)
{
    stranger_visit *v = argument;
    net_wire wire = { .fd = -1 };
    const unsigned char *body;
    size_t length;
    gang *g = v->g;
    if (stranger_join(&g->who[2], g->config[2], gang_port(g), 0, &wire)
        && stranger_receive(&wire, NET_MEMBER_LIST, &body, &length)) {
        usleep(150000);
        if (v->done == 0)
            wire.sent = 0;                          /* used already                           */
        else
            wire.send_key[31] ^= 1;
        v->entered = !net_wire_queue_bytes(&wire, NET_ALL_LEFT, NULL, 0) && !net_wire_flush(&wire)
                     && stranger_is_dropped(wire.fd);
    }
    net_wire_close(&wire);
    return NULL;
}

static void forged_control_messages_end_the_job(void)
{
    for (int how = 0; how < 2; how++) {
        gang g;
        stranger_visit v = { .done = how };
        gang_init(&g, 4);
        g.run = just_wait;
        g.absent[2] = 1;
        gang_wrong = 0;
        stranger_beside(&g, join_and_forge, &v);
        CHECK(v.entered && gang_wrong == 0);
        check_sentences(&g, "lost rank 2 (elsewhere, pid 4711): a control message came that its sender "
                            "did not write");
        gang_release(&g);
    }
}

static void leave_early(net_job *job, int rank, void *context)
{
    (void)context;
    if (rank == 1) {
        gt_fail(GT_IO, "my disk is full");
        return;                                     /* the gang's thread leaves               */
    }
    WANT(net_job_barrier(job, "the end") == GT_PEER);
    await_end(job, rank);
}

/* A thread's last words are those of a rank that leaves without an abort. */
static void whoever_left_is_named_to_those_who_wait(void)
{
    gang g;
    gang_init(&g, 3);
    g.run = leave_early;
    gang_wrong = 0;
    g.absent[1] = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
    snprintf(sentences[1], sizeof sentences[1], "%s", sentences[0]);
    check_sentences(&g, "rank 1 (");
    check_sentences(&g, "left the job while");
    check_sentences(&g, "waits for it in 'the end'");
    gang_release(&g);
}

static void go_elsewhere(net_job *job, int rank, void *context)
{
    (void)context;
    WANT(net_job_barrier(job, rank == 2 ? "there" : "here") == GT_PEER);
    await_end(job, rank);
}

static void ranks_at_different_places_are_named(void)
{
    gang g;
    gang_init(&g, 3);
    g.run = go_elsewhere;
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
    check_sentences(&g, "ranks are at different places");
    check_sentences(&g, "'there'");
    check_sentences(&g, "'here'");
    gang_release(&g);
}

/* ---- stalls ------------------------------------------------------------------------------------ */

static uint64_t began;

static void say_stuck(void *context, net_activity *out)
{
    const int rank = *(const int *)context;
    out->started = rank == 1 ? 6 : 7;
    out->finished = 6;
    out->since = rank == 1 ? 0 : began;
    out->waits_for = rank == 1 ? -1 : 1;
    if (rank != 1)
        snprintf(out->text, sizeof out->text, "all-reduce #7, 25.0 MB f32, ring, step 2");
}

static void get_stuck(net_job *job, int rank, void *context)
{
    (void)context;
    net_job_on_activity(job, say_stuck, &rank);
    await_end(job, rank);
    net_job_on_activity(job, NULL, NULL);
}

static void a_stall_is_reported_then_ends_the_job(void)
{
    gang g;
    const unsigned before = gt_log_warnings();
    check_allow_warnings();
    gang_init(&g, 3);
    gang_set(&g, "stall-report", "600ms");
    gang_set(&g, "stall-limit", "2400ms");
    g.run = get_stuck;
    gang_wrong = 0;
    began = gt_now_ns();
    gang_go(&g);
    CHECK(gang_wrong == 0);
    CHECK(gt_log_warnings() == before + 1);
    check_sentences(&g, "no progress for 2.4 s: \"all-reduce #7, 25.0 MB f32, ring, step 2\" is stuck: "
                        "rank 1 (");
    check_sentences(&g, "does nothing in the network (6 operations started, others 7); rank 0 waits for "
                        "rank 1, rank 2 waits for rank 1");
    gang_release(&g);
}

static void miss_an_exchange(net_job *job, int rank, void *context)
{
    (void)context;
    if (rank != 1)
        WANT(net_job_barrier(job, "offers") == GT_PEER);
    await_end(job, rank);
}

static void a_rank_that_misses_an_exchange_is_named(void)
{
    gang g;
    check_allow_warnings();
    gang_init(&g, 3);
    gang_set(&g, "stall-report", "600ms");
    gang_set(&g, "stall-limit", "1800ms");
    g.run = miss_an_exchange;
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
    check_sentences(&g, "\"offers\" is stuck: rank 1 (");
    gang_release(&g);
}

const check_case check_cases[] = {
    CASE(an_abort_is_the_same_sentence_everywhere),
    CASE(only_the_first_abort_counts),
    CASE(a_machine_that_stands_still_ends_by_one_sentence),
    CASE(who_knows_better_is_heard),
    CASE(a_killed_rank_ends_the_job_by_name),
    CASE(forged_control_messages_end_the_job),
    CASE(whoever_left_is_named_to_those_who_wait),
    CASE(ranks_at_different_places_are_named),
    CASE(a_stall_is_reported_then_ends_the_job),
    CASE(a_rank_that_misses_an_exchange_is_named),
    { 0 }
};
