/* SPDX-License-Identifier: MIT */
/* tests/verbs/verbs_pair.c - a verbs link of two ends, driven as the communicator drives it.
 *
 *   verbs_pair [SETTING=VALUE...]                       both ends in this process
 *   verbs_pair listen PORT | connect HOST PORT [...]    one end each, in any two places
 *       hold=1: after the transfers, goes on with transfers until the link fails, and expects that
 *       expect=TEXT: opening must fail, and the sentence must contain TEXT
 *
 * Sends messages and puts of many sizes both ways at once, from and into arenas, other memory and
 * sums, checks every byte, sleeps whenever it may, and says how fast it was. Exit status 0: all
 * was right.                                                                              */
#include "tests/verbs/verbs_ends.h"

#include "host/base/clock.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int link_fd = -1;

static int fail(const char *what)
{
    printf("FAILED %s: %s\n", what, gt_message());
    return 1;
}

/* A connected socket: of whoever comes, or to HOST, for which we try a while. */
static int meet(const char *host, const char *port)
{
    const struct addrinfo hints = {
        .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = host ? 0 : AI_PASSIVE
    };
    struct addrinfo *a;
    const int yes = 1;
    if (getaddrinfo(host, port, &hints, &a))
        return -1;
    int fd = -1, listener = -1;
    if (!host) {
        listener = socket(a->ai_family, a->ai_socktype, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (listener >= 0 && !bind(listener, a->ai_addr, a->ai_addrlen) && !listen(listener, 1))
            fd = accept(listener, NULL, NULL);
        close(listener);
    }
    for (int i = 0; host && fd < 0 && i < 600; i++) {
        fd = socket(a->ai_family, a->ai_socktype, 0);
        if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen))
            break;
        close(fd);
        fd = -1;
        gt_sleep_ns(100000000);
    }
    freeaddrinfo(a);
    return fd;
}

static gt_status open_windows(end *a, end *b, size_t size, end_kind kind, int times)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < times; i++) {
        st = end_window(a, size, kind);
        if (!st && b)
            st = end_window(b, size, kind);
    }
    return st;
}

/* Both processes must be idle before buffers are forgotten or the link is left. */
static gt_status together(end *a, end *b)
{
    char byte = 1;
    if (b)
        return GT_OK;
    if (write(link_fd, &byte, 1) != 1)
        return gt_fail(GT_PEER, "the other end is gone");
    /* The peer's puts into us are in; ours into it are acknowledged; its credits may be not. */
    for (;;) {
        int did = 0;
        const ssize_t n = recv(link_fd, &byte, 1, MSG_DONTWAIT);
        if (n == 1)
            return GT_OK;
        if (n == 0)
            return gt_fail(GT_PEER, "the other end is gone");
        a->ops->progress(a->t, &did);
        if (a->failed)
            return gt_fail(a->failed, "%s", a->why);
    }
}

static gt_status step(end *a, end *b)
{
    gt_status st = ends_run(a, b, 20);
    if (!st)
        st = together(a, b);
    if (!st) {
        end_forget(a);
        if (b)
            end_forget(b);
    }
    return st;
}

static int traffic(end *a, end *b)
{
    static const size_t sizes[] = { 1,    8,    127,   128,   129,           1023,         4096,
                                    8191, 8193, 32768, 65539, (1 << 20) + 1, (3 << 20) + 5 };
    static const size_t bodies[] = { 0, 1, 63, 64, 65, 4095, 8192 };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < sizeof bodies / sizeof *bodies; i++)
        for (int k = 0; !st && k < 100; k++) {
            a->expected_messages++;
            st = end_say(a, bodies[i]);
            if (!st && b) {
                b->expected_messages++;
                st = end_say(b, bodies[i]);
            }
        }
    if (!st)
        st = step(a, b);
    if (st)
        return fail("messages");
    for (int kind = 0; kind < END_KINDS; kind++) {
        for (size_t i = 0; !st && i < sizeof sizes / sizeof *sizes; i++)
            st = open_windows(a, b, sizes[i], (end_kind)kind, sizes[i] < 10000 ? 10 : 1);
        if (!st)
            st = step(a, b);
        if (st)
            return fail("windows");
    }
    /* More windows at once than a data lane has receives. */
    st = open_windows(a, b, 64, END_ARENA, 200);
    if (!st)
        st = step(a, b);
    return st ? fail("many windows") : 0;
}

/* One window at a time, both ways. All of a size fit into the arena. */
static int speed(end *a, end *b)
{
    static const size_t sizes[] = { 8, 65536, 1 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int times = sizes[i] < 1000 ? 200 : sizes[i] < 100000 ? 64 : 8;
        gt_status st = GT_OK;
        uint64_t start = gt_now_ns();
        for (int k = 0; !st && k < times; k++) {
            st = open_windows(a, b, sizes[i], END_ARENA, 1);
            if (!st)
                st = ends_run(a, b, 20);
        }
        if (!st)
            st = step(a, b);
        if (st)
            return fail("speed");
        const double us = (double)(gt_now_ns() - start) / 1e3 / times;
        printf("  %8zu B  window, put and both ways %10.1f us  %8.1f MB/s\n", sizes[i], us,
               2.0 * (double)sizes[i] / us);
    }
    return 0;
}

/* One way, several in flight and nothing looked at: what perftest's ib_write_bw does. */
static int stream(end *a, end *b)
{
    static const size_t sizes[] = { 65536, 1 << 20 };
    enum { DEPTH = 32, VOLUME = 24 << 20 };
    for (size_t i = 0; b && i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t times = VOLUME / sizes[i], first = a->opened, start = gt_now_ns();
        gt_status st = GT_OK;
        int did;
        while (!st && a->placed < first + times) {
            while (!st && a->opened < first + times && a->opened - a->placed < DEPTH)
                st = end_window(a, sizes[i], END_SPEED);
            a->ops->progress(a->t, &did);
            b->ops->progress(b->t, &did);
            if (a->failed || b->failed)
                st = gt_fail(GT_PEER, "%s", a->failed ? a->why : b->why);
        }
        if (st)
            return fail("stream");
        printf("  %8zu B  one way, %d in flight %10.1f MB/s\n", sizes[i], DEPTH,
               (double)(times * sizes[i]) / ((double)(gt_now_ns() - start) / 1e3));
        st = step(a, b);
        if (st)
            return fail("stream");
    }
    return 0;
}

/* Both ends hold, and this end may break the link: rank 1 goes on when it has heard that rank 0, which says so
 * last and waits for nothing any more, is done with all that needs a socket. */
static gt_status both_hold(const end *a)
{
    char byte = 1;
    const ssize_t said = a->rank ? write(link_fd, &byte, 1) : recv(link_fd, &byte, 1, 0);
    const ssize_t heard = a->rank ? recv(link_fd, &byte, 1, 0) : write(link_fd, &byte, 1);
    return said == 1 && heard == 1 ? GT_OK : gt_fail(GT_PEER, "the other end is gone before it holds");
}

/* Until the link breaks, which somebody else sees to. Who only waits for a peer that is gone
 * notices nothing: one who has waited for long says something. */
static int hold(end *a)
{
    if (both_hold(a))
        return fail("holding");
    printf("holding\n");
    fflush(stdout);
    for (int round = 0;; round++) {
        gt_status st = open_windows(a, NULL, 65536, END_ARENA, 1);
        const uint64_t since = gt_now_ns();
        if (!st)
            st = ends_run(a, NULL, 1);
        for (int i = 0; st == GT_TIMEOUT && i < 20; i++) {
            st = end_say(a, 8);
            if (!st)
                st = ends_run(a, NULL, 1);
        }
        if (st) {
            printf("broken after %.2f s, in round %d: %s\n", (double)(gt_now_ns() - since) / 1e9, round, gt_message());
            return st == GT_PEER ? 0 : 1;
        }
        end_forget(a);
    }
}

static void print_counters(const end *e)
{
    const char *name;
    uint64_t value;
    for (int i = 0; e->ops->counter(e->t, i, &name, &value); i++)
        if (value)
            printf("  %s %llu%s", name, (unsigned long long)value, strchr(name, ':') ? "\n" : i % 4 == 3 ? "\n" : ",");
    printf("\n");
}

int main(int argc, char **argv)
{
    net_config config = end_config();
    const char *expect = NULL;
    int first = 1, holds = 0, rank = 0, quick = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 2 && !strcmp(argv[1], "listen")) {
        link_fd = meet(NULL, argv[2]);
        first = 3;
    } else if (argc > 3 && !strcmp(argv[1], "connect")) {
        link_fd = meet(argv[2], argv[3]);
        first = 4;
        rank = 1;
    }
    if (first > 1 && link_fd < 0) {
        printf("FAILED to meet the other end\n");
        return 1;
    }
    for (int i = first; i < argc; i++) {
        if (!strncmp(argv[i], "expect=", 7))
            expect = argv[i] + 7;
        else if (!strcmp(argv[i], "hold=1"))
            holds = 1;
        else if (!strcmp(argv[i], "quick=1"))
            quick = 1;
        else if (!end_config_set(&config, argv[i])) {
            printf("no setting is called %s\n", argv[i]);
            return 2;
        }
    }
    static end a, b;
    gt_status st = end_open(&a, rank, &config);
    if (expect) {
        printf("%s\n", gt_message());
        const int right = st == GT_UNSUPPORTED && strstr(gt_message(), expect);
        end_close(&a);
        return !right;
    }
    end *const other = link_fd < 0 ? &b : NULL;
    if (!st && other)
        st = end_open(&b, 1, &config);
    if (st)
        return fail("opening");
    st = other ? ends_link(&a, &b) : end_link_over(&a, link_fd);
    if (st)
        return fail("linking");
    char text[400];
    a.ops->describe(a.link, text, sizeof text);
    printf("%s\n", text);
    int bad = traffic(&a, other);
    if (!bad && !quick)
        bad = speed(&a, other) || stream(&a, other);
    if (!bad && holds)
        bad = hold(&a);
    if (a.wrong + b.wrong) {
        printf("FAILED: %llu bytes or windows were wrong\n", (unsigned long long)(a.wrong + b.wrong));
        bad = 1;
    }
    if (a.late_wakes + b.late_wakes) {
        printf("FAILED: slept through %llu events\n", (unsigned long long)(a.late_wakes + b.late_wakes));
        bad = 1;
    }
    print_counters(&a);
    end_close(&a);
    if (other)
        end_close(&b);
    return bad;
}
