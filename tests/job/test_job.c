/* SPDX-License-Identifier: MIT */
/* tests/job/test_job.c - ranks find each other, exchange, connect, and leave; and what they
 * say when others lie, die, stall, or never come. Ranks are threads (gang.h). */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "tests/check.h"
#include "tests/job/gang.h"
#include "tests/job/stranger.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* CUnit's checks may be used by one thread only: ranks count what is wrong instead. */
static _Atomic int wrong;
#define WANT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, gt_message()); \
            wrong++; \
        } \
    } while (0)

static void exchange_sizes(net_job *job, int rank, void *context)
{
    (void)context;
    unsigned char mine[300];
    net_blobs all;
    memset(mine, rank + 1, sizeof mine);
    for (int round = 0; round < 20; round++) {
        const size_t size = (size_t)((rank * 37 + round) % 300);
        WANT(net_job_exchange(job, "sizes", mine, size, &all) == GT_OK);
        WANT(all.count == net_job_size(job));
        for (int i = 0; i < all.count; i++) {
            WANT(all.size[i] == (size_t)((i * 37 + round) % 300));
            WANT(all.size[i] == 0 || all.data[i][all.size[i] - 1] == i + 1);
        }
        net_blobs_release(&all);
    }
    WANT(net_job_barrier(job, "end") == GT_OK);
}

static void joins_of_all_sizes_exchange(void)
{
    for (int size = 1; size <= 9; size++) {
        gang g;
        gang_init(&g, size);
        g.run = exchange_sizes;
        wrong = 0;
        gang_go(&g);
        for (int i = 0; i < size; i++)
            CHECKF(g.status[i] == GT_OK, "rank %d of %d: %s", i, size, g.message[i]);
        CHECK(wrong == 0);
        gang_release(&g);
    }
}

typedef struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd[GANG][GANG];
} meeting;
typedef struct door {
    meeting *m;
    int rank;
} door;

static void take(void *context, int peer, int fd)
{
    door *d = context;
    pthread_mutex_lock(&d->m->lock);
    d->m->fd[d->rank][peer] = fd;
    pthread_cond_broadcast(&d->m->changed);
    pthread_mutex_unlock(&d->m->lock);
}

/* Lower ranks connect to higher ones, and say who they are. */
static void connect_all(net_job *job, int rank, void *context)
{
    meeting *m = context;
    door d = { m, rank };
    const int size = net_job_size(job);
    for (int to = rank + 1; to < size; to++) {
        int fd;
        WANT(net_job_connect(job, to, &fd) == GT_OK);
        WANT(write(fd, &rank, sizeof rank) == sizeof rank);
        close(fd);
    }
    net_job_on_stream(job, take, &d);
    for (int from = 0; from < rank; from++) {
        int said = -1;
        pthread_mutex_lock(&m->lock);
        while (m->fd[rank][from] < 0)
            pthread_cond_wait(&m->changed, &m->lock);
        pthread_mutex_unlock(&m->lock);
        WANT(read(m->fd[rank][from], &said, sizeof said) == sizeof said);
        WANT(said == from);
        close(m->fd[rank][from]);
    }
    net_job_on_stream(job, NULL, NULL);
    WANT(net_job_barrier(job, "met") == GT_OK);
}

static void any_two_ranks_have_streams(void)
{
    meeting m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    gang g;
    memset(m.fd, -1, sizeof m.fd);
    gang_init(&g, 5);
    g.run = connect_all;
    g.context = &m;
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    gang_release(&g);
}

/* ---- ranks that do not fit ------------------------------------------------------------------ */

static void a_rank_with_another_secret_stays_outside(void)
{
    gang g;
    gang_init(&g, 3);
    gang_set(&g, "start-timeout", "2s");
    memset(g.who[2].secret, 8, sizeof g.who[2].secret);
    gang_go(&g);
    CHECK(g.status[0] == GT_TIMEOUT && g.status[1] == GT_TIMEOUT && g.status[2] == GT_TIMEOUT);
    CHECKF(strstr(g.message[0], "waited 2 s for rank 2; it never connected to 127.0.0.1:") != NULL
               && strstr(g.message[0], "turned away, the last from 127.0.0.1: ") != NULL,
           "%s", g.message[0]);
    CHECKF(!strcmp(g.message[0], g.message[1]), "%s", g.message[1]);
    CHECKF(strstr(g.message[2], "rank 2 waited 2 s for rank 0 at 127.0.0.1:") != NULL
               && strstr(g.message[2], "it does not know this job's secret") != NULL,
           "%s", g.message[2]);
    gang_release(&g);
}

static void ranks_that_never_come_are_named(void)
{
    gang g;
    gang_init(&g, 5);
    gang_set(&g, "start-timeout", "1500ms");
    g.absent[2] = g.absent[3] = 1;
    gang_go(&g);
    for (int i = 0; i < 5; i++)
        CHECKF(g.absent[i]
                   || (g.status[i] == GT_TIMEOUT
                       && strstr(g.message[i], "waited 1.5 s for ranks 2 and 3; they never "
                                               "connected to 127.0.0.1:")),
               "%s", g.message[i]);
    gang_release(&g);

    gang_init(&g, 2);
    gang_set(&g, "start-timeout", "1500ms");
    g.absent[0] = 1;
    close(g.who[0].listen_fd);
    g.who[0].listen_fd = -1;
    gang_go(&g);
    CHECKF(g.status[1] == GT_TIMEOUT && strstr(g.message[1], "Connection refused"), "%s", g.message[1]);
    gang_release(&g);
}

static void different_settings_are_named_on_both_sides(void)
{
    gang g;
    gang_init(&g, 3);
    CHECK_OK(net_config_set(g.config[2], "eager", "4KiB"));
    gang_go(&g);
    for (int i = 0; i < 3; i++)
        CHECKF(g.status[i] == GT_MISMATCH && strstr(g.message[i], "eager=4KiB") && strstr(g.message[i], "eager=8KiB"),
               "%s", g.message[i]);
    gang_release(&g);
}

static void different_numbers_of_ranks_are_named(void)
{
    gang g;
    gang_init(&g, 2);
    g.who[1].size = 3;
    gang_go(&g);
    for (int i = 0; i < 2; i++)
        CHECKF(g.status[i] == GT_MISMATCH && strstr(g.message[i], "one of 3") && strstr(g.message[i], "one of 2"), "%s",
               g.message[i]);
    gang_release(&g);
}

/* ---- strangers ------------------------------------------------------------------------------- */

/* Runs beside a gang, against rank 0's port. */
typedef struct visit {
    gang *g;
    int done;
    net_notice verdict;
    int entered;
} visit;

static void beside(gang *g, void *(*stranger)(void *), visit *v)
{
    pthread_t t;
    v->g = g;
    if (pthread_create(&t, NULL, stranger, v) != 0)
        abort();
    gang_go(g);
    pthread_join(t, NULL);
}

static net_hello hello_of(const gang *g, int rank)
{
    net_hello h;
    net_hello_init(&h, NET_ROLE_CONTROL, rank, g->size, 0, net_config_hash(g->config[0]));
    net_secret_random(h.nonce, sizeof h.nonce);
    return h;
}

static void *come_with_another_version(void *argument)
{
    visit *v = argument;
    net_hello h = hello_of(v->g, 1);
    net_wire wire;
    snprintf(h.version, sizeof h.version, "0.0.9");
    v->entered = stranger_enter(stranger_dial(gang_port(v->g)), &v->g->who[1], &h, &wire, &v->verdict);
    net_wire_close(&wire);
    return NULL;
}

static void another_version_is_named_on_both_sides(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 2);
    g.absent[1] = 1;
    beside(&g, come_with_another_version, &v);
    CHECKF(g.status[0] == GT_MISMATCH && strstr(g.message[0], "rank 1 runs geartrain 0.0.9")
               && strstr(g.message[0], "rank 0"),
           "%s", g.message[0]);
    CHECK(v.entered && v.verdict.code == GT_MISMATCH && !strcmp(v.verdict.sentence, g.message[0]));
    gang_release(&g);
}

static _Atomic int at_work;                         /* the job is complete                      */

static void *come_as_rank_1_too(void *argument)
{
    visit *v = argument;
    net_hello h = hello_of(v->g, 1);
    net_wire wire = { .fd = -1 };
    for (int i = 0; i < 2000 && !at_work; i++)
        usleep(5000);
    v->entered = stranger_enter(stranger_dial(gang_port(v->g)), &v->g->who[1], &h, &wire, &v->verdict);
    net_wire_close(&wire);
    return NULL;
}

static void work_a_while(net_job *job, int rank, void *context)
{
    (void)context;
    (void)rank;
    at_work = 1;
    for (int i = 0; i < 40; i++) {
        WANT(net_job_barrier(job, "work") == GT_OK);
        usleep(10000);
    }
}

static void a_second_process_of_a_rank_is_sent_away(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 3);
    g.run = work_a_while;
    wrong = at_work = 0;
    beside(&g, come_as_rank_1_too, &v);
    CHECK(g.status[0] == GT_OK && g.status[1] == GT_OK && g.status[2] == GT_OK && wrong == 0);
    CHECKF(v.entered && v.verdict.code == GT_MISMATCH && strstr(v.verdict.sentence, "already"), "%s",
           v.verdict.sentence);
    gang_release(&g);
}

/* Garbage, half a hello, silence, a port scan, a replay: 90 connections, more than HANDSHAKES. */
static void *disturb(void *argument)
{
    visit *v = argument;
    enum { MANY = 90 };
    int fd[MANY];
    unsigned char bytes[NET_HELLO];
    const net_hello h = hello_of(v->g, 1);
    net_hello_format(bytes, &h);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            fd[i] = stranger_dial(gang_port(v->g));
            if (fd[i] < 0)
                continue;
            if (i % 5 == 0)
                stranger_send(fd[i], "GET / HTTP/1.1\r\nHost: rank0\r\n\r\n", 31);
            else if (i % 5 == 1)
                stranger_send(fd[i], bytes, sizeof bytes / 2);
            else if (i % 5 == 2)
                stranger_send(fd[i], bytes, sizeof bytes);
            else if (i % 5 == 3) {
                close(fd[i]);
                fd[i] = -1;
            }
        }
        usleep(50000);
        for (int i = 0; i < MANY; i++)
            if (fd[i] >= 0)
                close(fd[i]);
    }
    return NULL;
}

static void strangers_disturb_neither_start_nor_work(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 4);
    gang_set(&g, "hello-timeout", "400ms");
    g.run = work_a_while;
    wrong = 0;
    beside(&g, disturb, &v);
    for (int i = 0; i < 4; i++)
        CHECKF(g.status[i] == GT_OK, "%s", g.message[i]);
    CHECK(wrong == 0);
    gang_release(&g);
}

/* A byte now and then holds no place for longer than a hello may take. */
static void *stall_handshake(void *argument)
{
    visit *v = argument;
    const int fd = stranger_dial(gang_port(v->g));
    unsigned char bytes[NET_HELLO];
    const net_hello h = hello_of(v->g, 1);
    net_hello_format(bytes, &h);
    for (int i = 0; i < NET_HELLO; i++) {
        if (!stranger_send(fd, bytes + i, 1))
            break;
        usleep(20000);
        v->done = i;
    }
    v->entered = stranger_is_dropped(fd);
    close(fd);
    return NULL;
}

static void a_slow_hello_is_cut_off(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 2);
    gang_set(&g, "hello-timeout", "200ms");
    g.run = work_a_while;
    wrong = 0;
    beside(&g, stall_handshake, &v);
    CHECK(v.entered && v.done < 60 && wrong == 0);
    gang_release(&g);
}

/* Says `ours`, and reads the answer. */
static int ask(const gang *g, const unsigned char ours[NET_HELLO], unsigned char theirs[NET_HELLO])
{
    unsigned char answer[NET_HELLO + NET_MAC];
    size_t got = 0;
    const int fd = stranger_dial(gang_port(g));
    if (fd < 0 || !stranger_send(fd, ours, NET_HELLO))
        return -1;
    while (got < sizeof answer) {
        const ssize_t n = read(fd, answer + got, sizeof answer - got);
        if (n <= 0)
            return -1;
        got += (size_t)n;
    }
    memcpy(theirs, answer, NET_HELLO);
    return fd;
}

/* A proof that fits one connection, for a stream, is told again in the next: no verdict comes,
 * not a byte. */
static void *replay(void *argument)
{
    visit *v = argument;
    unsigned char ours[NET_HELLO], theirs[NET_HELLO], fresh[NET_HELLO], proof[NET_MAC], key[NET_SECRET];
    char byte;
    net_hello h = hello_of(v->g, 1);
    h.role = NET_ROLE_STREAM;
    net_secret_key(key, &v->g->who[1]);
    net_hello_format(ours, &h);
    close(ask(v->g, ours, theirs));
    net_hello_proof(proof, key, 0, ours, theirs);
    const int fd = ask(v->g, ours, fresh);
    stranger_send(fd, proof, sizeof proof);
    v->entered = read(fd, &byte, 1) == 0 && memcmp(theirs, fresh, sizeof fresh) != 0;
    close(fd);
    return NULL;
}

static void a_replayed_hello_proves_nothing(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 2);
    g.run = work_a_while;
    wrong = 0;
    beside(&g, replay, &v);
    CHECK(v.entered && wrong == 0);
    gang_release(&g);
}

/* ---- ends ------------------------------------------------------------------------------------ */

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
    wrong = woken = 0;
    gang_go(&g);
    CHECK(wrong == 0 && woken == 4);
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
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
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
    wrong = 0;
    gang_go(&g);
    int differ = wrong;
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
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    check_sentences(&g, "the disk is full");
    gang_release(&g);
}

/* Joins as rank 2, and dies. */
static void *join_and_die(void *argument)
{
    visit *v = argument;
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

/* Joins as rank 2, from another host. */
static void *join_from_afar(void *argument)
{
    visit *v = argument;
    net_wire wire = { .fd = -1 };
    gang *g = v->g;
    v->entered = stranger_join(&g->who[2], g->config[2], gang_port(g), 1, &wire) && stranger_is_dropped(wire.fd);
    net_wire_close(&wire);
    return NULL;
}

static void loopback_addresses_are_refused_across_hosts(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 3);
    g.absent[2] = 1;
    beside(&g, join_from_afar, &v);
    for (int i = 0; i < 2; i++)
        CHECKF(g.status[i] == GT_MISMATCH
                   && strstr(g.message[i], "listens at 127.0.0.1, which only its "
                                           "own machine can reach"),
               "%s", g.message[i]);
    CHECK(v.entered);
    gang_release(&g);
}

static void just_wait(net_job *job, int rank, void *context)
{
    (void)context;
    await_end(job, rank);
}

static void a_killed_rank_ends_the_job_by_name(void)
{
    gang g;
    visit v = { 0 };
    gang_init(&g, 4);
    g.run = just_wait;
    g.absent[2] = 1;
    wrong = 0;
    beside(&g, join_and_die, &v);
    CHECK(v.entered && wrong == 0);
    check_sentences(&g, "lost rank 2 (elsewhere, pid 4711): it was killed or crashed");
    gang_release(&g);
}

/* Joins as rank 2, and sends a control message whose counter (done 0) or MAC does not fit. */
static void *join_and_forge(void *argument)
{
    visit *v = argument;
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
        visit v = { .done = how };
        gang_init(&g, 4);
        g.run = just_wait;
        g.absent[2] = 1;
        wrong = 0;
        beside(&g, join_and_forge, &v);
        CHECK(v.entered && wrong == 0);
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
    wrong = 0;
    g.absent[1] = 0;
    gang_go(&g);
    CHECK(wrong == 0);
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
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
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
    wrong = 0;
    began = gt_now_ns();
    gang_go(&g);
    CHECK(wrong == 0);
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
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    check_sentences(&g, "\"offers\" is stuck: rank 1 (");
    gang_release(&g);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void ignore(int sig)
{
    (void)sig;
}

/* Every blocking call is interrupted, a thousand times a second. ThreadSanitizer's own runtime
 * locks itself up when a signal finds it inside free(). */
static void interrupted_calls_go_on(void)
{
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
    check_skip("ThreadSanitizer does not survive a thousand signals a second");
    return;
#endif
#endif
    struct sigaction a = { .sa_handler = ignore }, old;
    const struct itimerval on = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
    sigaction(SIGALRM, &a, &old);
    setitimer(ITIMER_REAL, &on, NULL);
    for (int i = 0; i < 5; i++) {
        joins_of_all_sizes_exchange();
        any_two_ranks_have_streams();
    }
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
}

static void without_a_secret_only_this_machine_is_let_in(void)
{
    net_config *c;
    net_job *job;
    net_identity who = {
        .rank = 1,
        .size = 2,
        .local_rank = -1,
        .local_size = -1,
        .ports = 1,
        .port = 9,
        .host = "192.0.2.77",
        .job = "x",
        .source = "test",
        .listen_fd = -1
    };
    CHECK_OK(net_config_read(&c));
    CHECK_FAILS(net_job_join(&job, c, &who), GT_MISUSE, "without a secret");
    CHECK(job == NULL);
    net_config_release(c);
}

static void without_a_secret_ranks_of_this_machine_meet(void)
{
    gang g;
    gang_init(&g, 3);
    for (int i = 0; i < 3; i++)
        g.who[i].has_secret = 0;
    g.run = exchange_sizes;
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0 && g.status[0] == GT_OK && g.status[2] == GT_OK);
    gang_release(&g);
}

static void big_exchange(net_job *job, int rank, void *context)
{
    (void)context;
    unsigned char *mine = calloc(1, NET_BLOB);
    net_blobs all;
    WANT(mine != NULL);
    mine[NET_BLOB - 1] = (unsigned char)(rank + 1);
    WANT(net_job_exchange(job, "big", mine, NET_BLOB + 1, &all) == GT_MISUSE);
    WANT(net_job_exchange(job, "big", mine, NET_BLOB, &all) == GT_OK);
    for (int i = 0; i < all.count; i++)
        WANT(all.size[i] == NET_BLOB && all.data[i][NET_BLOB - 1] == i + 1);
    net_blobs_release(&all);
    free(mine);
}

static void the_largest_blobs_pass(void)
{
    gang g;
    gang_init(&g, 4);
    g.run = big_exchange;
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    gang_release(&g);
}

static void members_know_each_other(net_job *job, int rank, void *context)
{
    (void)context;
    const int size = net_job_size(job);
    char name[128];
    WANT(net_job_rank(job) == rank);
    for (int i = 0; i < size; i++) {
        const net_member *m = net_job_member(job, i);
        WANT(m->rank == i && m->local_rank == i && m->local_size == size && m->host_id != 0);
        WANT(m->pid == (uint32_t)getpid() && m->port != 0 && !strcmp(m->address, "127.0.0.1"));
        snprintf(name, sizeof name, "rank %d (%s, pid %ld)", i, m->host, (long)getpid());
        char got[96];
        WANT(!strcmp(net_job_name(job, i, got, sizeof got), name));
    }
    int fd;
    WANT(net_job_connect(job, rank, &fd) == GT_MISUSE && fd == -1);
    WANT(net_job_connect(job, size, &fd) == GT_MISUSE);
}

static void the_member_list_is_complete(void)
{
    gang g;
    gang_init(&g, 3);
    g.run = members_know_each_other;
    wrong = 0;
    gang_go(&g);
    CHECK(wrong == 0);
    gang_release(&g);
}

const check_case check_cases[] = {
    CASE(joins_of_all_sizes_exchange),
    CASE(any_two_ranks_have_streams),
    CASE(the_member_list_is_complete),
    CASE(the_largest_blobs_pass),
    CASE(a_rank_with_another_secret_stays_outside),
    CASE(ranks_that_never_come_are_named),
    CASE(different_settings_are_named_on_both_sides),
    CASE(different_numbers_of_ranks_are_named),
    CASE(another_version_is_named_on_both_sides),
    CASE(a_second_process_of_a_rank_is_sent_away),
    CASE(strangers_disturb_neither_start_nor_work),
    CASE(a_slow_hello_is_cut_off),
    CASE(a_replayed_hello_proves_nothing),
    CASE(an_abort_is_the_same_sentence_everywhere),
    CASE(only_the_first_abort_counts),
    CASE(a_machine_that_stands_still_ends_by_one_sentence),
    CASE(who_knows_better_is_heard),
    CASE(loopback_addresses_are_refused_across_hosts),
    CASE(a_killed_rank_ends_the_job_by_name),
    CASE(forged_control_messages_end_the_job),
    CASE(whoever_left_is_named_to_those_who_wait),
    CASE(ranks_at_different_places_are_named),
    CASE(a_stall_is_reported_then_ends_the_job),
    CASE(a_rank_that_misses_an_exchange_is_named),
    CASE(without_a_secret_only_this_machine_is_let_in),
    CASE(without_a_secret_ranks_of_this_machine_meet),
    CASE(interrupted_calls_go_on),
    { 0 }
};
