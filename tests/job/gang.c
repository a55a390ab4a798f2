/* SPDX-License-Identifier: MIT */
/* tests/job/gang.c - ranks as threads; rank 0 inherits a listening socket, as from a launcher,
 * so that the port is known before anybody starts and nobody else can take it. */
#include "tests/job/gang.h"

#include "net/job/address.h"
#include "net/job/secret.h"
#include "tests/check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Atomic int gang_wrong;

static net_address loopback(void)
{
    net_address a = { .size = sizeof(struct sockaddr_in) };
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    memcpy(&a.at, &in, sizeof in);
    return a;
}

void gang_init(gang *g, int size)
{
    net_address at = loopback();
    int fd;
    memset(g, 0, sizeof *g);
    g->size = size;
    if (!CHECK_OK(net_listen(&fd, &at, 0, 1)) || !CHECK_OK(net_address_own(&at, fd)))
        abort();
    for (int i = 0; i < size; i++) {
        net_identity *w = &g->who[i];
        w->rank = i;
        w->size = size;
        w->local_rank = w->local_size = -1;
        snprintf(w->source, sizeof w->source, "test");
        snprintf(w->job, sizeof w->job, "gang");
        snprintf(w->host, sizeof w->host, "127.0.0.1");
        w->port = net_address_port(&at);
        w->ports = 1;
        w->has_secret = 1;
        memset(w->secret, 7, sizeof w->secret);
        w->listen_fd = i ? -1 : fd;
        if (!CHECK_OK(net_config_read(&g->config[i])))
            abort();
    }
    gang_set(g, "start-timeout", "20s");
    gang_set(g, "heartbeat", "50ms");
}

void gang_set(gang *g, const char *name, const char *value)
{
    for (int i = 0; i < g->size; i++)
        CHECK_OK(net_config_set(g->config[i], name, value));
}

typedef struct member {
    gang *g;
    int rank;
    pthread_t thread;
} member;

static void *live(void *argument)
{
    member *m = argument;
    gang *g = m->g;
    const int r = m->rank;
    g->status[r] = net_job_join(&g->job[r], g->config[r], &g->who[r]);
    if (g->status[r]) {
        snprintf(g->message[r], sizeof g->message[r], "%s", gt_message());
        return NULL;
    }
    if (g->run)
        g->run(g->job[r], r, g->context);
    if (!g->keep) {
        gt_message_clear();
        net_job_leave(g->job[r]);
        g->job[r] = NULL;
    }
    return NULL;
}

void gang_go(gang *g)
{
    member m[GANG];
    for (int i = 0; i < g->size; i++) {
        m[i].g = g;
        m[i].rank = i;
        if (!g->absent[i] && pthread_create(&m[i].thread, NULL, live, &m[i]) != 0)
            abort();
    }
    for (int i = 0; i < g->size; i++)
        if (!g->absent[i])
            pthread_join(m[i].thread, NULL);
}

void gang_release(gang *g)
{
    for (int i = 0; i < g->size; i++)
        net_config_release(g->config[i]);
    close(g->who[0].listen_fd);
}

uint16_t gang_port(const gang *g)
{
    return g->who[0].port;
}
