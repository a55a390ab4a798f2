/* SPDX-License-Identifier: MIT */
/* tests/comm/ranks.c - several ranks as threads of one process. */
#include "tests/comm/ranks.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct one {
    pthread_t thread;
    net_identity who;
    const char *knobs;
    gt_status (*body)(net_comm *c, void *context);
    void *context;
    ranks_result result;
} one;

static gt_status set_knobs(net_config *config, const char *knobs, int rank)
{
    gt_status st = GT_OK;
    while (!st && knobs && *knobs) {
        char knob[128];
        const size_t n = strcspn(knobs, " ");
        snprintf(knob, sizeof knob, "%.*s", (int)n, knobs);
        char *equals = strchr(knob, '=');
        if (!equals)
            return gt_fail(GT_MISUSE, "'%s' is no NAME=VALUE", knob);
        *equals = '\0';
        char *colon = strchr(knob, ':');
        if (!colon || atoi(knob) == rank)
            st = net_config_set(config, colon ? colon + 1 : knob, equals + 1);
        knobs += n;
        knobs += *knobs == ' ';
    }
    return st;
}

/* On a machine with much to do, a rank that compiles is late by more than what is a stall elsewhere, and a
 * warning fails a case. */
static const char busy_machine[] = "stall-limit=900s stall-report=300s";

static gt_status live(one *r)
{
    net_config *config = NULL;
    net_comm *c = NULL;
    gt_status st = net_config_read(&config);
    if (!st)
        st = set_knobs(config, busy_machine, r->who.rank);
    if (!st)
        st = set_knobs(config, r->knobs, r->who.rank);
    if (!st)                    /* the same cases over another transport: "transport=verbs" */
        st = set_knobs(config, getenv("GT_TEST_NET"), r->who.rank);
    if (!st)
        st = net_comm_open(&c, config, &r->who);
    if (!st)
        st = r->body(c, r->context);
    if (st)
        snprintf(r->result.sentence, sizeof r->result.sentence, "%s", gt_message());
    if (st && c && !net_comm_check(c))      /* as a program would end: tell the others */
        net_comm_abort(c, net_comm_rank(c), "%s", r->result.sentence);
    net_comm_close(c);
    net_config_release(config);
    return st;
}

static void *begin(void *context)
{
    one *r = context;
    r->result.status = live(r);
    return NULL;
}

/* A listening socket for rank 0, so that no port can be taken in between. */
static int listener(uint16_t *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, size) || listen(fd, 64)
        || getsockname(fd, (struct sockaddr *)&a, &size)) {
        perror("a listening socket");
        abort();
    }
    *port = ntohs(a.sin_port);
    return fd;
}

void ranks_run_each(int size, const char *knobs, gt_status (*body)(net_comm *c, void *context), void *context,
                    ranks_result *results)
{
    one *all = calloc((size_t)size, sizeof *all);
    net_identity who = { .size = size, .local_size = size, .ports = 1, .has_secret = 1, .listen_fd = -1 };
    if (!all || getrandom(who.secret, sizeof who.secret, 0) != (ssize_t)sizeof who.secret)
        abort();
    snprintf(who.source, sizeof who.source, "test");
    snprintf(who.job, sizeof who.job, "test-%d", (int)getpid());
    snprintf(who.host, sizeof who.host, "127.0.0.1");
    const int fd = listener(&who.port);
    for (int i = 0; i < size; i++) {
        all[i] = (one){ .who = who, .knobs = knobs, .body = body, .context = context };
        all[i].who.rank = all[i].who.local_rank = i;
        all[i].who.listen_fd = i ? -1 : fd;
        if (pthread_create(&all[i].thread, NULL, begin, &all[i]))
            abort();
    }
    for (int i = 0; i < size; i++) {
        pthread_join(all[i].thread, NULL);
        results[i] = all[i].result;
    }
    free(all);
}

gt_status ranks_run(int size, const char *knobs, gt_status (*body)(net_comm *c, void *context), void *context)
{
    ranks_result *results = calloc((size_t)size, sizeof *results);
    gt_status st = GT_OK;
    if (!results)
        abort();
    ranks_run_each(size, knobs, body, context, results);
    for (int i = 0; !st && i < size; i++)
        if (results[i].status)
            st = gt_fail(results[i].status, "rank %d of %d: %s", i, size, results[i].sentence);
    free(results);
    return st;
}
