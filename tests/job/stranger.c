/* SPDX-License-Identifier: MIT */
/* tests/job/stranger.c - a member's part of the protocol, written a second time and as simply as
 * can be, so that net/job meets another hand than its own. */
#include "tests/job/stranger.h"

#include "host/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int stranger_dial(uint16_t port)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
    };
    const struct timeval limit = { 10, 0 };
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)(const void *)&to, sizeof to) != 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

int stranger_send(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static int receive(int fd, void *data, size_t size)
{
    return recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

int stranger_is_dropped(int fd)
{
    char waste[256];
    ssize_t n;
    do
        n = recv(fd, waste, sizeof waste, 0);
    while (n > 0);
    return n == 0 || errno == ECONNRESET;
}

int stranger_receive(net_wire *wire, net_type type, const unsigned char **body, size_t *length)
{
    for (;;) {
        net_head head;
        int got = 0;
        struct pollfd p = { wire->fd, POLLIN, 0 };
        if (net_wire_receive(wire, &head, body, &got))
            return 0;
        if (got && head.type == type) {
            *length = head.length;
            return 1;
        }
        if (!got && poll(&p, 1, 10000) != 1)
            return 0;
    }
}

int stranger_enter(int fd, const net_identity *who, const net_hello *hello, net_wire *wire, net_notice *verdict)
{
    unsigned char ours[NET_HELLO], theirs[NET_HELLO], proof[NET_MAC], want[NET_MAC];
    unsigned char key[NET_SECRET], to[NET_SECRET], from[NET_SECRET];
    const unsigned char *body;
    size_t length;
    net_secret_key(key, who);
    net_hello_format(ours, hello);
    if (!stranger_send(fd, ours, sizeof ours) || !receive(fd, theirs, sizeof theirs)
        || !receive(fd, proof, sizeof proof))
        return 0;
    net_hello_proof(want, key, 1, ours, theirs);
    if (!net_secret_equal(want, proof))
        return 0;
    net_hello_proof(proof, key, 0, ours, theirs);
    if (!stranger_send(fd, proof, sizeof proof))
        return 0;
    net_hello_session(to, key, 1, ours, theirs);
    net_hello_session(from, key, 0, ours, theirs);
    net_wire_init(wire, fd, (int)hello->size, to, from);
    return stranger_receive(wire, NET_VERDICT, &body, &length) && !net_notice_parse(verdict, body, length, NET_WORLD);
}

static uint64_t this_host(void)
{
    char *text;
    size_t size;
    if (gt_file_read(&text, &size, "/proc/sys/kernel/random/boot_id", 4096))
        return 0;
    const uint64_t id = gt_hash(text, size);
    free(text);
    return id;
}

int stranger_join(const net_identity *who, const net_config *config, uint16_t port, uint64_t host_id, net_wire *wire)
{
    unsigned char body[NET_MEMBER_BYTES + NET_SHARED];
    const net_member m = {
        .rank = who->rank,
        .local_rank = -1,
        .local_size = -1,
        .host = "elsewhere",
        .host_id = host_id ? host_id : this_host(),
        .address = "192.0.2.200",
        .port = 9,
        .pid = 4711,
        .version = "0.1.0"
    };
    gt_text shared = { 0 };
    net_notice verdict;
    net_hello h;
    const int fd = stranger_dial(port);
    net_hello_init(&h, NET_ROLE_CONTROL, who->rank, who->size, 0, net_config_hash(config));
    net_secret_random(h.nonce, sizeof h.nonce);
    if (fd < 0 || !stranger_enter(fd, who, &h, wire, &verdict) || verdict.code)
        return 0;
    net_member_format(body, &m);
    net_config_shared(config, &shared);
    memcpy(body + NET_MEMBER_BYTES, shared.data, shared.size);
    const int sent = !net_wire_queue_bytes(wire, NET_MEMBER, body, NET_MEMBER_BYTES + shared.size)
                     && !net_wire_flush(wire);
    gt_text_release(&shared);
    return sent;
}

void stranger_beside(gang *g, void *(*stranger)(void *), stranger_visit *v)
{
    pthread_t t;
    v->g = g;
    if (pthread_create(&t, NULL, stranger, v) != 0)
        abort();
    gang_go(g);
    pthread_join(t, NULL);
}
