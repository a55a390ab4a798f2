/* SPDX-License-Identifier: MIT */
/* net/job/join.c - how ranks find each other.
 *
 *   rank 0: listens at the rendezvous, gathers MEMBERs, sends the MEMBER_LIST to all
 *   others: connect to rank 0, trying its ports in turn; listen on the address that the
 *           connection came from (the route to rank 0 is the route to trust), unless
 *           `interface` says otherwise; send their MEMBER; wait for the member list
 *
 * An address that only this machine knows is of no use in a member list that spans machines, so
 * a rank beside rank 0 that met it over loopback looks for a better one, unless the whole job
 * is here.                                                                               */
#include "net/job/job_private.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define LATE_RANKS_WAIT (1000 * MS)

static uint64_t boot_id(void)
{
    char *text = NULL;
    size_t size = 0;
    if (gt_file_read(&text, &size, "/proc/sys/kernel/random/boot_id", 4096)) {
        char host[256] = "";
        gethostname(host, sizeof host - 1);
        gt_message_clear();
        return gt_hash(host, strlen(host));
    }
    const uint64_t id = gt_hash(text, size);
    free(text);
    return id;
}

void join_name(net_job *j, int rank)
{
    rank_state *p = &j->peers[rank];
    snprintf(p->name, sizeof p->name, "rank %d (%s, pid %u)", rank, p->member.host, (unsigned)p->member.pid);
}

static gt_status create(net_job **out, const net_config *config, const net_identity *who)
{
    pthread_condattr_t monotonic;
    pthread_mutexattr_t recursive;
    net_job *j = calloc(1, sizeof *j);
    rank_state *peers = calloc((size_t)who->size, sizeof *peers);
    *out = NULL;
    if (!j || !peers) {
        free(j);
        free(peers);
        return gt_fail(GT_NO_MEMORY, "cannot join the job: no memory for a list of %d ranks", who->size);
    }
    j->config = config;
    j->who = who;
    j->rank = who->rank;
    j->size = who->size;
    j->peers = peers;
    j->epoll = j->doorbell = j->listener = -1;
    j->end.culprit = -1;
    for (int i = 0; i < HANDSHAKES; i++)
        j->handshakes[i].fd = -1;
    for (int i = 0; i < j->size; i++) {
        peers[i].wire.fd = -1;
        peers[i].beat.activity.waits_for = -1;
        snprintf(peers[i].name, sizeof peers[i].name, "rank %d", i);
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&j->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&j->calling, &recursive);    /* a callback may change the callbacks    */
    pthread_mutexattr_destroy(&recursive);
    net_secret_key(j->key, who);
    j->host_id = boot_id();
    j->start_deadline = gt_now_ns() + config->start_timeout;
    j->next_beat = gt_now_ns() + config->heartbeat;
    *out = j;
    return GT_OK;
}

static gt_status start_thread(net_job *j)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are for the program's threads  */
    const int error = pthread_create(&j->thread, NULL, serve_thread, j);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return gt_fail(GT_IO, "cannot start the job's thread: %s", strerror(error));
    j->started = 1;
    return GT_OK;
}

static gt_status open_events(net_job *j)
{
    j->epoll = epoll_create1(EPOLL_CLOEXEC);
    j->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->epoll < 0 || j->doorbell < 0)
        return gt_fail(GT_IO, "cannot wait for the job's events: %s", strerror(errno));
    return serve_watch(j, j->doorbell, WATCH_DOORBELL, 0);
}

static gt_status watch_listener(net_job *j)
{
    gt_status st = serve_watch(j, j->listener, WATCH_LISTENER, 0);
    j->listening = !st;
    return st;
}

/* ---- members ----------------------------------------------------------------------------- */

static void own_member(net_job *j)
{
    rank_state *p = &j->peers[j->rank];
    net_member *m = &p->member;
    m->rank = j->rank;
    m->local_rank = j->who->local_rank;
    m->local_size = j->who->local_size;
    m->host_id = j->host_id;
    m->pid = (uint32_t)getpid();
    gethostname(m->host, sizeof m->host - 1);
    snprintf(m->version, sizeof m->version, "%s", GT_VERSION);
    if (j->listener >= 0) {
        net_address_host(m->address, sizeof m->address, &j->address);
        m->port = net_address_port(&j->address);
    }
    p->arrived = 1;
    p->heard = p->beat_at = gt_now_ns();
    join_name(j, j->rank);
}

static int is_loopback_text(const char *host)
{
    return !strcmp(host, "localhost") || !strcmp(host, "::1") || !strncmp(host, "127.", 4);
}

/* 1 if all ranks are known to be on this machine. */
static int all_local(const net_identity *who)
{
    return who->local_size == who->size || is_loopback_text(who->host);
}

static int must_stay_local(const net_job *j)
{
    return !j->who->has_secret && !j->config->insecure;
}

static void set_any(net_address *a, int family)
{
    memset(a, 0, sizeof *a);
    a->at.ss_family = (sa_family_t)family;
    a->size = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&a->at)->sin6_addr = in6addr_any;
}

static void set_loopback(net_address *a)
{
    set_any(a, AF_INET);
    ((struct sockaddr_in *)(void *)&a->at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* Members on one host count each other. */
static void count_local(net_job *j)
{
    for (int i = 0; i < j->size; i++) {
        net_member *m = &j->peers[i].member;
        m->local_rank = m->local_size = 0;
        for (int k = 0; k < j->size; k++)
            if (j->peers[k].member.host_id == m->host_id) {
                m->local_size++;
                m->local_rank += k < i;
            }
    }
}

/* ---- rank 0 ------------------------------------------------------------------------------ */

/* Where rank 0 listens: at its interface if one is named; at loopback if the job stays here;
 * else at every address, for others may know this host by a name that it maps elsewhere. */
static gt_status place_of_root(net_job *j, net_address *at, net_address *shown)
{
    net_address named[NET_ADDRESSES];
    int count = 0;
    if (must_stay_local(j)) {
        set_loopback(at);
        *shown = *at;
        return GT_OK;
    }
    if (j->config->interface[0]) {
        gt_status st = net_interface_choose(at, j->config->interface, NULL);
        *shown = *at;
        return st;
    }
    if (net_address_resolve(named, &count, j->who->host, j->who->port))
        count = 0;                      /* its own name need not be known to itself          */
    if (count && net_address_is_loopback(&named[0]) && all_local(j->who)) {
        *at = *shown = named[0];
        return GT_OK;
    }
    set_any(at, count ? named[0].at.ss_family : AF_INET);
    *shown = *at;
    if (count && !net_address_is_loopback(&named[0]))
        *shown = named[0];
    else if (net_interface_choose(shown, "", NULL))
        *shown = *at;
    return GT_OK;
}

static gt_status open_root(net_job *j)
{
    net_address at, shown;
    const net_identity *who = j->who;
    gt_status st = place_of_root(j, &at, &shown);
    if (st)
        return st;
    if (who->listen_fd >= 0) {
        j->listener = who->listen_fd;
        net_set_blocking(j->listener, 0);
    } else {
        st = net_listen(&j->listener, &at, who->port, who->ports);
        if (st)
            return gt_fail_in(st, "rank 0");
    }
    net_address bound;
    st = net_address_own(&bound, j->listener);
    if (!st) {
        j->address = shown;
        net_address_set_port(&j->address, net_address_port(&bound));
        own_member(j);
        j->arrived = 1;
        st = watch_listener(j);
    }
    return st;
}

/* The first setting that differs between two texts of net_config_shared(). */
static void compare_shared(net_job *j, int rank, const char *theirs, size_t size)
{
    gt_text ours = { 0 };
    char a[160] = "", b[160] = "";
    net_config_shared(j->config, &ours);
    const char *x = ours.data ? ours.data : "", *y = theirs, *end = theirs + size;
    while (*x && y < end) {
        const size_t n = strcspn(x, "\n");
        const char *stop = memchr(y, '\n', (size_t)(end - y));
        const size_t m = stop ? (size_t)(stop - y) : (size_t)(end - y);
        if (n != m || memcmp(x, y, n)) {
            snprintf(a, sizeof a, "%.*s", (int)n, x);
            snprintf(b, sizeof b, "%.*s", (int)m, y);
            break;
        }
        x += n + (x[n] == '\n');
        y += m + (y + m < end);
    }
    if (a[0] || b[0] || *x || y < end)
        end_job(j, GT_MISMATCH, rank,
                "network settings differ: %s has %s and %s has %s; give all "
                "ranks the same",
                j->peers[rank].name, b[0] ? b : "others", j->peers[0].name, a[0] ? a : "others");
    gt_text_release(&ours);
}

/* Ranks of several hosts cannot meet at an address that means "this machine". */
static int check_addresses(net_job *j)
{
    for (int i = 1; i < j->size; i++) {
        if (j->peers[i].member.host_id == j->peers[0].member.host_id)
            continue;
        for (int k = 0; k < j->size; k++)
            if (is_loopback_text(j->peers[k].member.address)) {
                end_job(j, GT_MISMATCH, k,
                        "%s listens at %s, which only its own machine can reach, "
                        "and %s is on another; name an interface in the network setting interface",
                        j->peers[k].name, j->peers[k].member.address, j->peers[i].name);
                return 0;
            }
    }
    return 1;
}

static void send_member_list(net_job *j)
{
    if (!check_addresses(j))
        return;
    net_body *member_list = net_body_create((size_t)j->size * NET_MEMBER_BYTES);
    if (!member_list) {
        end_job(j, GT_NO_MEMORY, 0, "%s has no memory for the member list", j->peers[0].name);
        return;
    }
    count_local(j);
    for (int i = 0; i < j->size; i++)
        net_member_format(member_list->data + (size_t)i * NET_MEMBER_BYTES, &j->peers[i].member);
    for (int i = 1; i < j->size; i++)
        serve_send(j, i, NET_MEMBER_LIST, member_list);
    net_body_release(member_list);
    j->joined = 1;
    pthread_cond_broadcast(&j->changed);
}

void join_member(net_job *j, int rank, const net_head *head, const unsigned char *body)
{
    rank_state *p = &j->peers[rank];
    net_member m;
    if (atomic_load(&j->over))
        return;
    if (p->arrived || head->length < NET_MEMBER_BYTES || net_member_parse(&m, body, j->size) || m.rank != rank) {
        end_job(j, GT_PEER, rank, "%s introduced itself in a way that makes no sense", p->name);
        return;
    }
    p->member = m;
    p->arrived = 1;
    join_name(j, rank);
    compare_shared(j, rank, (const char *)body + NET_MEMBER_BYTES, head->length - NET_MEMBER_BYTES);
    gt_log(GT_LOG_DEBUG, "net", "%s came from %s:%d", p->name, m.address, m.port);
    if (++j->arrived == j->size && !atomic_load(&j->over))
        send_member_list(j);
}

void join_late(net_job *j, uint64_t now)
{
    char list[128], refusals[400] = "", at[96];
    if (now < j->start_deadline || atomic_load(&j->over))
        return;
    unsigned char *mark = calloc((size_t)j->size, 1);
    int absent = 0;
    for (int i = 0; mark && i < j->size; i++) {
        mark[i] = !j->peers[i].arrived;
        absent += mark[i];
    }
    if (j->refusals)
        snprintf(refusals, sizeof refusals, "; %u connection%s turned away, the last from %s", j->refusals,
                 j->refusals == 1 ? " was" : "s were", j->refused);
    end_job(j, GT_TIMEOUT, -1,
            "%s waited %g s for %s; %s never connected to %s%s; %s started, and is "
            "a firewall between?",
            j->peers[0].name, (double)j->config->start_timeout * 1e-9,
            mark ? rank_list(list, sizeof list, mark, j->size) : "others", absent == 1 ? "it" : "they",
            net_address_text(at, sizeof at, &j->address), refusals, absent == 1 ? "was it" : "were they");
    free(mark);
}

/* ---- the others -------------------------------------------------------------------------- */

void join_member_list(net_job *j, const net_head *head, const unsigned char *body)
{
    if (j->joined || head->length != (size_t)j->size * NET_MEMBER_BYTES) {
        end_job(j, GT_PEER, 0, "rank 0 sent a member list that makes no sense");
        return;
    }
    for (int i = 0; i < j->size; i++) {
        net_member m;
        rank_state *p = &j->peers[i];
        if (net_member_parse(&m, body + (size_t)i * NET_MEMBER_BYTES, j->size) || m.rank != i) {
            end_job(j, GT_PEER, 0, "rank 0 sent a member list that makes no sense");
            return;
        }
        if (i == 0)                     /* where we met it is better than where it thinks    */
            memcpy(m.address, p->member.address, sizeof m.address);
        p->member = m;
        p->arrived = 1;
        p->heard = p->beat_at = gt_now_ns();
        join_name(j, i);
    }
    j->joined = 1;
    pthread_cond_broadcast(&j->changed);
}

/* One attempt; *refused as in handshake_connect, *met: somebody listened there. */
static gt_status try_place(net_job *j, const net_address *to, net_wire *wire, int *refused, int *met)
{
    uint64_t deadline = gt_now_ns() + j->config->hello_timeout;
    int fd = -1;
    if (deadline > j->start_deadline)
        deadline = j->start_deadline;
    *refused = 0;
    gt_status st = net_dial(&fd, to, deadline, NULL);
    *met = !st;
    return st ? st : handshake_connect(j, fd, NET_ROLE_CONTROL, 0, deadline, NULL, wire, refused);
}

/* One round over rank 0's addresses and ports. GT_OK: the wire is open. *final: no use trying
 * again. `why` is what was found, or the last failure: a port where nobody listens tells less
 * than one where somebody does not know the secret. */
static gt_status try_root(net_job *j, const net_address *all, int count, net_wire *wire, net_address *used, int *final,
                          char why[300])
{
    gt_status st = GT_IO;
    int told = 0, met;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < (j->who->ports ? j->who->ports : 1); k++) {
            *used = all[i];
            net_address_set_port(used, (uint16_t)(j->who->port + k));
            st = try_place(j, used, wire, final, &met);
            if (!st || *final)
                return st;
            const int cut = gt_now_ns() >= j->start_deadline && why[0];    /* says only that */
            if ((met || !told) && !cut)
                snprintf(why, 300, "%s%.250s", met ? "who listens there is not rank 0: " : "", gt_message());
            told |= met;
            if (gt_now_ns() >= j->start_deadline)
                return st;
        }
    return st;
}

static gt_status check_local(const net_job *j, const net_address *a)
{
    char text[96];
    if (!must_stay_local(j) || net_address_is_loopback(a))
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "rank %d will not join over %s without a secret; start with geartrain "
                   "launch, or name a file that only you can read in the network setting secret-file, "
                   "or set insecure=1 on a network of your own",
                   j->rank, net_address_host(text, sizeof text, a));
}

/* Finds rank 0 and opens the control link. */
static gt_status find_root(net_job *j)
{
    const net_identity *who = j->who;
    net_address all[NET_ADDRESSES], used;
    net_wire wire;
    int count = 0, final = 0;
    uint64_t pause = 10 * MS;
    char last[300] = "";
    for (;;) {
        gt_status st = net_address_resolve(all, &count, who->host, who->port);
        for (int i = 0; i < count && !st; i++)
            st = check_local(j, &all[i]);
        if (st == GT_MISUSE)
            return st;
        if (!st)
            st = try_root(j, all, count, &wire, &used, &final, last);
        else
            snprintf(last, sizeof last, "%s", gt_message());
        if (!st)
            break;
        if (final)
            return st;
        if (gt_now_ns() + pause >= j->start_deadline)
            return gt_fail(GT_TIMEOUT,
                           "rank %d waited %g s for rank 0 at %s:%d: %s; was it started, "
                           "and is a firewall between?",
                           j->rank, (double)j->config->start_timeout * 1e-9, who->host, who->port, last);
        gt_sleep_ns(pause);
        pause = pause < 250 * MS ? 2 * pause : 250 * MS;
    }
    rank_state *root = &j->peers[0];
    root->wire = wire;
    if (!root->wire.first)
        root->wire.last = &root->wire.first;
    root->linked = 1;
    root->heard = root->beat_at = gt_now_ns();
    net_address_host(root->member.address, sizeof root->member.address, &used);
    net_keep_alive(wire.fd, j->config->heartbeat, j->config->dead_after);
    return GT_OK;
}

/* Where this rank listens: see the top of this file. */
static gt_status place_of_other(net_job *j, net_address *at)
{
    gt_status st = GT_OK;
    if (j->config->interface[0])
        st = net_interface_choose(at, j->config->interface, NULL);
    else
        st = net_address_own(at, j->peers[0].wire.fd);
    if (!st && must_stay_local(j))
        set_loopback(at);
    else if (!st && !j->config->interface[0] && net_address_is_loopback(at) && !all_local(j->who)) {
        net_address better;
        if (!net_interface_choose(&better, "^lo,docker,virbr,podman,cni,veth", NULL))
            *at = better;
    }
    return st;
}

static gt_status open_other(net_job *j)
{
    unsigned char body[NET_MEMBER_BYTES + NET_SHARED];
    gt_text shared = { 0 };
    net_address at;
    uint16_t first, last;
    gt_status st = net_ports_parse(&first, &last, j->config->port_range);
    if (!st)
        st = find_root(j);
    if (!st)
        st = place_of_other(j, &at);
    if (!st)
        st = net_listen(&j->listener, &at, first, (uint16_t)(first ? last - first + 1 : 1));
    if (!st)
        st = net_address_own(&j->address, j->listener);
    if (!st)
        st = watch_listener(j);
    if (!st)
        st = serve_watch(j, j->peers[0].wire.fd, WATCH_LINK, 0);
    if (st)
        return st;
    own_member(j);
    net_config_shared(j->config, &shared);
    if (shared.failed || shared.size > NET_SHARED)
        st = gt_fail(GT_NO_MEMORY, "cannot tell rank 0 the network's settings: they are too long");
    else {
        net_member_format(body, &j->peers[j->rank].member);
        memcpy(body + NET_MEMBER_BYTES, shared.data, shared.size);
        serve_send_bytes(j, 0, NET_MEMBER, body, NET_MEMBER_BYTES + shared.size);
        /* From here on rank 0 decides how long to wait; a little more, in case it cannot. */
        j->start_deadline = gt_now_ns() + j->config->start_timeout + j->config->hello_timeout;
    }
    gt_text_release(&shared);
    return st;
}

/* ---- all --------------------------------------------------------------------------------- */

static gt_status await_member_list(net_job *j)
{
    gt_activity a;
    gt_activity_begin(&a, "waiting for all ranks to join:", "are here", (uint64_t)j->size);
    pthread_mutex_lock(&j->lock);
    while (!j->joined && !atomic_load(&j->over) && (j->rank == 0 || gt_now_ns() < j->start_deadline)) {
        if (j->rank == 0)
            gt_activity_set(&a, (uint64_t)j->arrived);
        const uint64_t until = gt_now_ns() + 100 * MS;
        const struct timespec t = { (time_t)(until / 1000000000), (long)(until % 1000000000) };
        pthread_cond_timedwait(&j->changed, &j->lock, &t);
    }
    if (!j->joined)
        end_job(j, GT_TIMEOUT, 0, "rank %d waited for rank 0 to gather all ranks, and it says nothing", j->rank);
    /* A job that was complete and is over already is for net_job_check() to tell. */
    gt_status st = j->joined ? GT_OK : end_status(j);
    pthread_mutex_unlock(&j->lock);
    gt_activity_end(&a);
    return st;
}

/* Ranks that come a little later than the one that made the start fail should hear why. */
static void await_late_ranks(net_job *j)
{
    const uint64_t until = gt_now_ns() + LATE_RANKS_WAIT;
    pthread_mutex_lock(&j->lock);
    while (gt_now_ns() < until && j->told < j->size - 1) {
        const struct timespec t = { (time_t)(until / 1000000000), (long)(until % 1000000000) };
        pthread_cond_timedwait(&j->changed, &j->lock, &t);
    }
    pthread_mutex_unlock(&j->lock);
}

gt_status net_job_join(net_job **out, const net_config *config, const net_identity *who)
{
    net_job *j;
    *out = NULL;
    if (who->size < 1 || who->size > NET_WORLD || who->rank < 0 || who->rank >= who->size)
        return gt_fail(GT_MISUSE, "there is no rank %d in a job of %d ranks (at most %d), as %s says", who->rank,
                       who->size, NET_WORLD, who->source);
    gt_status st = net_config_check(config);
    if (!st)
        st = create(&j, config, who);
    if (st)
        return st;
    st = open_events(j);
    if (!st && j->size == 1) {
        own_member(j);
        count_local(j);
        j->joined = 1;
    } else if (!st)
        st = j->rank == 0 ? open_root(j) : open_other(j);
    if (!st)
        st = start_thread(j);
    if (!st)
        st = await_member_list(j);
    if (st) {
        gt_saved_message why;
        gt_message_save(&why);
        if (j->rank == 0 && j->started && st == GT_MISMATCH)
            await_late_ranks(j);
        net_job_leave(j);
        gt_message_restore(&why);
        return st;
    }
    if (j->size > 1)
        gt_log(GT_LOG_INFO, "net", "%s joined job '%s' of %d ranks (%s)", j->peers[j->rank].name, who->job, j->size,
               who->source);
    *out = j;
    return GT_OK;
}
