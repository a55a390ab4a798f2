/* SPDX-License-Identifier: MIT */
/* tests/job/test_meeting.c - how the ranks of a job meet, and who is kept out.
 *
 *   ranks       find rank 0, exchange, know and connect to each other
 *   misfits     another secret, other settings, a number too few: named on both sides
 *   strangers   lie, stall, replay, or say nothing at all (stranger.h), beside ranks that go on
 *
 * Ranks are threads (gang.h). How a job ends is test_ending.c.                              */
#include "tests/check.h"
#include "tests/job/gang.h"
#include "tests/job/stranger.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

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
        gang_wrong = 0;
        gang_go(&g);
        for (int i = 0; i < size; i++)
            CHECKF(g.status[i] == GT_OK, "rank %d of %d: %s", i, size, g.message[i]);
        CHECK(gang_wrong == 0);
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
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
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

static net_hello hello_of(const gang *g, int rank)
{
    net_hello h;
    net_hello_init(&h, NET_ROLE_CONTROL, rank, g->size, 0, net_config_hash(g->config[0]));
    net_secret_random(h.nonce, sizeof h.nonce);
    return h;
}

static void *come_with_another_version(void *argument)
{
    stranger_visit *v = argument;
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
    stranger_visit v = { 0 };
    gang_init(&g, 2);
    g.absent[1] = 1;
    stranger_beside(&g, come_with_another_version, &v);
    CHECKF(g.status[0] == GT_MISMATCH && strstr(g.message[0], "rank 1 runs geartrain 0.0.9")
               && strstr(g.message[0], "rank 0"),
           "%s", g.message[0]);
    CHECK(v.entered && v.verdict.code == GT_MISMATCH && !strcmp(v.verdict.sentence, g.message[0]));
    gang_release(&g);
}

static _Atomic int at_work;                         /* the job is complete                      */

static void *come_as_rank_1_too(void *argument)
{
    stranger_visit *v = argument;
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
    stranger_visit v = { 0 };
    gang_init(&g, 3);
    g.run = work_a_while;
    gang_wrong = at_work = 0;
    stranger_beside(&g, come_as_rank_1_too, &v);
    CHECK(g.status[0] == GT_OK && g.status[1] == GT_OK && g.status[2] == GT_OK && gang_wrong == 0);
    CHECKF(v.entered && v.verdict.code == GT_MISMATCH && strstr(v.verdict.sentence, "already"), "%s",
           v.verdict.sentence);
    gang_release(&g);
}

/* Garbage, half a hello, silence, a port scan, a replay: 90 connections, more than HANDSHAKES. */
static void *disturb(void *argument)
{
    stranger_visit *v = argument;
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
    stranger_visit v = { 0 };
    gang_init(&g, 4);
    gang_set(&g, "hello-timeout", "400ms");
    g.run = work_a_while;
    gang_wrong = 0;
    stranger_beside(&g, disturb, &v);
    for (int i = 0; i < 4; i++)
        CHECKF(g.status[i] == GT_OK, "%s", g.message[i]);
    CHECK(gang_wrong == 0);
    gang_release(&g);
}

/* A byte now and then holds no place for longer than a hello may take. */
static void *stall_handshake(void *argument)
{
    stranger_visit *v = argument;
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
    stranger_visit v = { 0 };
    gang_init(&g, 2);
    gang_set(&g, "hello-timeout", "200ms");
    g.run = work_a_while;
    gang_wrong = 0;
    stranger_beside(&g, stall_handshake, &v);
    CHECK(v.entered && v.done < 60 && gang_wrong == 0);
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
    stranger_visit *v = argument;
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
    stranger_visit v = { 0 };
    gang_init(&g, 2);
    g.run = work_a_while;
    gang_wrong = 0;
    stranger_beside(&g, replay, &v);
    CHECK(v.entered && gang_wrong == 0);
    gang_release(&g);
}

/* Joins as rank 2, from another host. */
static void *join_from_afar(void *argument)
{
    stranger_visit *v = argument;
    net_wire wire = { .fd = -1 };
    gang *g = v->g;
    v->entered = stranger_join(&g->who[2], g->config[2], gang_port(g), 1, &wire) && stranger_is_dropped(wire.fd);
    net_wire_close(&wire);
    return NULL;
}

static void loopback_addresses_are_refused_across_hosts(void)
{
    gang g;
    stranger_visit v = { 0 };
    gang_init(&g, 3);
    g.absent[2] = 1;
    stranger_beside(&g, join_from_afar, &v);
    for (int i = 0; i < 2; i++)
        CHECKF(g.status[i] == GT_MISMATCH
                   && strstr(g.message[i], "listens at 127.0.0.1, which only its "
                                           "own machine can reach"),
               "%s", g.message[i]);
    CHECK(v.entered);
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
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0 && g.status[0] == GT_OK && g.status[2] == GT_OK);
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
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
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
    gang_wrong = 0;
    gang_go(&g);
    CHECK(gang_wrong == 0);
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
    CASE(loopback_addresses_are_refused_across_hosts),
    CASE(without_a_secret_only_this_machine_is_let_in),
    CASE(without_a_secret_ranks_of_this_machine_meet),
    CASE(interrupted_calls_go_on),
    { 0 }
};
