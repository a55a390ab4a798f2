/* SPDX-License-Identifier: MIT */
/* net/comm/comm.c - a communicator: transports, one lock, and who moves the bytes.
 *
 *      user thread ── net_wait ──┐                      (polls, then sleeps in epoll)
 *      user thread ── net_wait ──┼─► the poller's place ──► progress of all transports
 *      background  ──────────────┘   only while nobody else waits
 *
 * Whoever waits does the work itself: a message then costs no change of threads. One thread at
 * a time polls; other waiters sleep until it has news. The background thread takes the place
 * when requests are open and nobody waits for them, so that transfers go on while the caller
 * computes; it looks once a millisecond, which keeps a caller that waits often undisturbed. */
#include "net/comm/comm_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/text.h"
#include "host/base/trace.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { WAKE = 1 };                  /* of the communicator's own descriptor; transports have 0 */

/* ---- the lock -------------------------------------------------------------------------- */

void comm_lock(net_comm *c)
{
    atomic_fetch_add_explicit(&c->wanted, 1, memory_order_relaxed);
    pthread_mutex_lock(&c->lock);
    atomic_fetch_sub_explicit(&c->wanted, 1, memory_order_relaxed);
}

void comm_unlock(net_comm *c)
{
    pthread_mutex_unlock(&c->lock);
}

static void sleep_on(net_comm *c, pthread_cond_t *condition, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec += (long)(ns % 1000000000u);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(condition, &c->lock, &until);
}

static void wake(void *context)
{
    const net_comm *c = context;
    const uint64_t one = 1;
    if (write(c->wake, &one, sizeof one) < 0) {
        /* The counter is full: it is awake already. */
    }
}

void comm_wake_poller(net_comm *c)
{
    if (c->poller_sleeps)
        wake(c);
}

void comm_wake(net_comm *c)
{
    if (c->waiters) {
        wake(c);
        pthread_cond_broadcast(&c->changed);
    }
}

/* ---- events of transports -------------------------------------------------------------- */

static void on_message(void *up, const void *head, size_t head_size, const void *body, size_t body_size)
{
    pair *p = up;
    message m;
    if (head_size != sizeof m) {
        net_comm_abort(p->comm, p->peer, "rank %d sent a message with a head of %zu bytes", p->peer, head_size);
        return;
    }
    memcpy(&m, head, sizeof m);
    if (m.type == MESSAGE_PROBE || m.type == MESSAGE_PROBE_READY)
        pair_probe_message(p, &m, body, body_size);
    else
        match_message(p, &m, body, body_size);
}

static void on_placed(void *up, uint32_t window)
{
    pair *p = up;
    if (p->probe)
        p->probe->placed = 1;
    else
        match_placed(p, window);
}

static void on_lent(void *up, uint32_t window, net_loan loan)
{
    match_lent(up, window, loan);
}

static void on_done(void *up, void *cookie)
{
    pair *p = up;
    if (p->probe && cookie == p->probe)
        p->probe->sent = 1;
    else
        match_finish(cookie);
}

static void on_failed(void *up, gt_status why)
{
    pair *p = up;
    (void)why;
    p->broken_since = gt_now_ns();
    free(p->broken_why);
    p->broken_why = strdup(gt_message());
    gt_log(GT_LOG_DEBUG, "comm", "%s", gt_message());
}

const net_events comm_events = { on_message, on_placed, on_lent, on_done, on_failed };

/* ---- progress -------------------------------------------------------------------------- */

/* A link that broke: the job's own news of the peer, which say more, have half a second. */
static void check_broken(net_comm *c)
{
    for (int i = 0; i < c->size; i++) {
        pair *p = c->pairs[i];
        if (!p || !p->broken_since || p->fin_received || net_job_check(c->job)
            || gt_now_ns() - p->broken_since < 500000000u)
            continue;
        net_job_abort(c->job, p->peer, p->broken_why ? p->broken_why : "a link broke");
        return;
    }
}

int comm_progress(net_comm *c)
{
    int did = 0;
    for (int i = 0; i < c->transports; i++)
        if (c->transport[i])
            c->ops[i]->progress(c->transport[i], &did);
    if (c->waiting)
        did += queue_release(c);
    if (did) {
        c->rounds++;
        if (c->waiters > 1)
            pthread_cond_broadcast(&c->changed);
    }
    return did;
}

void comm_shut(net_comm *c)
{
    if (c->shut)
        return;
    c->shut = 1;
    dump_after_abort(c);
    for (int i = 0; i < c->size; i++) {
        pair *p = c->pairs[i];
        if (p && p->link && p->state == PAIR_UP) {
            p->ops->disconnect(p->link);
            p->link = NULL;
            p->state = PAIR_BROKEN;
        }
    }
    pthread_cond_broadcast(&c->changed);
}

static int arm(net_comm *c)
{
    int busy = 0;
    for (int i = 0; i < c->transports; i++)
        if (c->transport[i])
            busy |= c->ops[i]->arm(c->transport[i]);
    return busy;
}

static void disarm(net_comm *c)
{
    for (int i = 0; i < c->transports; i++)
        if (c->transport[i])
            c->ops[i]->disarm(c->transport[i]);
}

/* Sleeps until a transport or wake() has news, the lock given back meanwhile. */
static void sleep_until_news(net_comm *c)
{
    struct epoll_event events[8];
    uint64_t count;
    if (!arm(c)) {
        c->poller_sleeps = 1;
        comm_unlock(c);
        const int n = epoll_wait(c->epoll, events, 8, 100);
        comm_lock(c);
        c->poller_sleeps = 0;
        for (int i = 0; i < n; i++)
            if (events[i].data.u32 == WAKE && read(c->wake, &count, sizeof count) < 0) {
                /* Nothing to take back. */
            }
    }
    disarm(c);
    check_broken(c);
}

int comm_yield(net_comm *c)
{
    enum { LONG = 100000, WAITS = 64 };
    const int may_sleep = c->config->spin == UINT64_MAX;    /* else it was said how long to poll */
    const uint64_t before = may_sleep ? gt_now_ns() : 0;
    sched_yield();
    const int away = may_sleep && gt_now_ns() - before > LONG;
    if (away)
        atomic_store_explicit(&c->sleep_next, WAITS, memory_order_relaxed);
    return away;
}

uint64_t comm_patience(net_comm *c)
{
    const int left = atomic_load_explicit(&c->sleep_next, memory_order_relaxed);
    if (left > 0)
        atomic_store_explicit(&c->sleep_next, left - 1, memory_order_relaxed);
    return left > 0 ? 0 : c->spin;
}

/* Lets others have the lock between two polls, and after a few polls the processor as well: the
 * rank that is waited for may be queueing for it. 1: do so no more. */
static int relax(net_comm *c, uint64_t spins)
{
    enum { ALONE = 50 };
    int enough = 0;
    const int yields = c->crowded || spins > ALONE;
    if (!yields && !atomic_load_explicit(&c->wanted, memory_order_relaxed))
        return 0;                   /* nobody would take it */
    comm_unlock(c);
    if (yields)
        enough = comm_yield(c);
    else
        sched_yield();
    comm_lock(c);
    return enough;
}

/* It has been quiet for `spin` ns, at least since this was first asked: *since is 0 then. What comes within a
 * few polls costs no look at the clock. */
static int is_long(uint64_t *since, uint64_t spin)
{
    const uint64_t now = gt_now_ns();
    if (!*since)
        *since = now;
    return now - *since >= spin;
}

gt_status comm_wait(net_comm *c, const atomic_int *flag, int peer, const char *what, size_t size)
{
    gt_status st = GT_OK;
    uint64_t spin = comm_patience(c);
    uint64_t quiet = 0, spins = 0;
    int told = 0;
    c->waiters++;
    while (!atomic_load_explicit(flag, memory_order_acquire)) {
        st = net_job_check(c->job);
        if (st) {
            comm_shut(c);
            break;
        }
        if (c->polling) {
            if (c->waiters == 1)
                wake(c);            /* the background thread has the place: it gives it up */
            sleep_on(c, &c->changed, 100000000u);
            continue;
        }
        c->polling = 1;
        if (comm_progress(c)) {
            quiet = spins = 0;
        } else if (spin && (++spins % 16 || !is_long(&quiet, spin))) {
            if (relax(c, spins))
                spin = 0;
        } else {
            if (!told && what)
                recorder_waits(&c->recorder, peer, what, size);
            told = 1;
            sleep_until_news(c);
        }
        c->polling = 0;
        if (c->waiters > 1)
            pthread_cond_broadcast(&c->changed);
    }
    c->waiters--;
    if (told && what)
        recorder_waits(&c->recorder, -1, NULL, 0);
    return st;
}

static void *background(void *context)
{
    net_comm *c = context;
    uint64_t seen = 0, rounds = 0;  /* so many rounds were seen, then                          */
    comm_lock(c);
    while (!c->closing) {
        const int over = net_job_check(c->job) != GT_OK;
        if (over)
            comm_shut(c);
        if (!c->outstanding || c->waiters || c->polling || over) {
            const uint64_t now = gt_now_ns();
            if (rounds != c->rounds)
                seen = now;
            rounds = c->rounds;
            const int recent = c->outstanding || now - seen < 50000000u;
            sleep_on(c, &c->idle, recent && !over ? 1000000u : 100000000u);
            continue;
        }
        c->polling = 1;
        if (!comm_progress(c))
            sleep_until_news(c);
        c->polling = 0;
        if (c->waiters)
            pthread_cond_broadcast(&c->changed);
    }
    comm_unlock(c);
    return NULL;
}

/* ---- opening and closing --------------------------------------------------------------- */

/* Is `name` in a comma list, or is the list "auto"? *place tells where. */
static int listed(const char *list, const char *name, int *place)
{
    const size_t n = strlen(name);
    *place = 0;
    if (!strcmp(list, "auto"))
        return 1;
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',', ++*place)
        if (strcspn(at, ",") == n && !strncmp(at, name, n))
            return 1;
    return 0;
}

/* The transports that are wanted, best first. */
static gt_status choose_transports(net_comm *c)
{
    static const net_transport_ops *const all[] = { &net_shm,
#ifdef GT_VERBS
                                                    &net_verbs,
#endif
                                                    &net_tcp };
    int place, places[TRANSPORTS];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const int automatic = !strcmp(c->config->transport, "auto");
        if (!listed(c->config->transport, all[i]->name, &place))
            continue;
        int at = c->transports++;
        for (; !automatic && at > 0 && places[at - 1] > place; at--) {
            c->ops[at] = c->ops[at - 1];
            places[at] = places[at - 1];
        }
        c->ops[at] = all[i];
        places[at] = place;
    }
    if (!c->transports)
        return gt_fail(GT_MISUSE, "knob 'transport': '%s' names none of shm, verbs, tcp", c->config->transport);
    return GT_OK;
}

static gt_status open_transports(net_comm *c)
{
    gt_status st = choose_transports(c);
    int working = 0;
    for (int i = 0; !st && i < c->transports; i++) {
        if (*c->config->fault)
            st = net_faulty_wrap(c->ops[i], c->config, &c->ops[i]);
        if (st)
            break;
        const gt_status opened = c->ops[i]->open(&c->transport[i], c->job, c->memory, &comm_events, c->epoll);
        working += !opened;
        if (opened == GT_UNSUPPORTED) {
            c->refused[i] = strdup(gt_message());
            gt_log(GT_LOG_DEBUG, "comm", "without %s: %s", c->ops[i]->name, gt_message());
        } else {
            st = opened;
        }
    }
    if (!st && !working && c->size > 1)
        return gt_fail(GT_UNSUPPORTED, "cannot use transport '%s' here: %s", c->config->transport,
                       c->refused[0] ? c->refused[0] : "unknown");
    return st;
}

/* Ranks that are more than the processors poll as well, but let each other have them in between: a change
 * of processes takes less than to sleep and to be woken. */
static void choose_spin(net_comm *c)
{
    cpu_set_t set;
    const int cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    c->crowded = net_job_member(c->job, c->rank)->local_size > cpus;
    c->spin = c->config->spin != UINT64_MAX ? c->config->spin : c->crowded ? CROWDED_SPIN : 100000u;
}

static gt_status open_basics(net_comm *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &attr);
    pthread_cond_init(&c->idle, &attr);
    pthread_cond_init(&c->arrived, &attr);
    pthread_condattr_destroy(&attr);
    recorder_open(&c->recorder);
    gt_status st = table_open(&c->tags);
    if (!st)
        st = net_memory_set_create(&c->memory);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = WAKE };
    if (!st && (c->epoll < 0 || c->wake < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->wake, &e) < 0))
        st = gt_fail(GT_IO, "cannot watch descriptors: %s", strerror(errno));
    return st;
}

static gt_status start_threads(net_comm *c)
{
    c->background_runs = !pthread_create(&c->background, NULL, background, c);
    c->acceptor_runs = !pthread_create(&c->acceptor, NULL, pair_acceptor, c);
    if (!c->background_runs || !c->acceptor_runs)
        return gt_fail(GT_NO_MEMORY, "cannot start a thread: %s", strerror(errno));
    net_job_on_stream(c->job, pair_arrival, c);
    net_job_on_abort(c->job, wake, c);
    net_job_on_activity(c->job, recorder_activity, c);
    return GT_OK;
}

gt_status net_comm_open(net_comm **out, const net_config *config, const net_identity *who)
{
    *out = NULL;
    net_comm *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "no memory for the communicator");
    c->config = config;
    c->epoll = c->wake = -1;
    gt_status st = open_basics(c);
    if (!st)
        st = net_job_join(&c->job, config, who);
    if (!st) {
        c->rank = net_job_rank(c->job);
        c->size = net_job_size(c->job);
        choose_spin(c);
        c->pairs = calloc((size_t)c->size, sizeof *c->pairs);
        if (!c->pairs)
            st = gt_fail(GT_NO_MEMORY, "no memory for the pairs of ranks");
    }
    if (!st)
        st = open_transports(c);
    if (!st)
        st = group_world(c);
    if (!st)
        st = start_threads(c);
    if (st && c->job) {
        gt_saved_message why;
        gt_message_save(&why);
        net_job_abort(c->job, c->rank, why.text);
        gt_message_restore(&why);
    }
    if (st)
        net_comm_close(c);
    else
        *out = c;
    return st;
}

/* Everything said has been heard: each end tells how many messages it sent. */
static int all_said(net_comm *c)
{
    int said = 1;
    for (int i = 0; i < c->size; i++) {
        pair *p = c->pairs[i];
        if (!p || i == c->rank || p->state != PAIR_UP)
            continue;
        if (!p->fin_sent) {
            message m = { .type = MESSAGE_FIN, .size = p->messages_sent + 1 };
            p->fin_sent = !match_post(p, &m, NULL, 0);
            if (p->ops->flush)
                p->ops->flush(p->link);
        }
        said &= p->fin_received && p->messages_received >= p->fin;
    }
    return said;
}

static void send_fins(net_comm *c)
{
    const uint64_t limit = gt_now_ns() + c->config->stall_limit;
    c->waiters++;
    while (!net_job_check(c->job) && (c->outstanding || !all_said(c)) && gt_now_ns() < limit) {
        if (c->polling) {
            wake(c);
            sleep_on(c, &c->changed, 10000000u);
            continue;
        }
        c->polling = 1;
        if (!comm_progress(c))
            sleep_until_news(c);
        c->polling = 0;
    }
    c->waiters--;
}

static void close_basics(net_comm *c)
{
    match_release(c);
    net_memory_set_release(c->memory);
    recorder_close(&c->recorder);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->idle);
    pthread_cond_destroy(&c->arrived);
    pthread_mutex_destroy(&c->lock);
    if (c->epoll >= 0)
        close(c->epoll);
    if (c->wake >= 0)
        close(c->wake);
    free(c->pairs);
    free(c);
}

void net_comm_close(net_comm *c)
{
    if (!c)
        return;
    comm_lock(c);
    if (c->background_runs && c->acceptor_runs)
        send_fins(c);
    c->closing = 1;
    pthread_cond_broadcast(&c->idle);
    pthread_cond_broadcast(&c->arrived);
    comm_unlock(c);
    wake(c);
    if (c->background_runs)
        pthread_join(c->background, NULL);
    if (c->acceptor_runs)
        pthread_join(c->acceptor, NULL);
    net_job_leave(c->job);
    group_release_all(c);
    for (int i = 0; c->pairs && i < c->size; i++)
        pair_release(c->pairs[i]);
    for (int i = 0; i < c->transports; i++) {
        if (c->transport[i])
            c->ops[i]->close(c->transport[i]);
        free(c->refused[i]);
    }
    close_basics(c);
}

/* ---- small questions ------------------------------------------------------------------- */

int net_comm_rank(const net_comm *c)
{
    return c->rank;
}
int net_comm_size(const net_comm *c)
{
    return c->size;
}
net_job *net_comm_job(net_comm *c)
{
    return c->job;
}
gt_status net_comm_check(net_comm *c)
{
    return net_job_check(c->job);
}

gt_status net_comm_abort(net_comm *c, int culprit, const char *format, ...)
{
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return net_job_abort(c->job, culprit, sentence);
}

gt_status net_comm_memory(net_comm *c, size_t size, void **out)
{
    net_memory *m = NULL;
    *out = NULL;
    gt_status st = net_memory_make(c->memory, size, &m);
    if (!st)
        *out = m->data;
    return st;
}

void net_comm_memory_free(net_comm *c, void *data)
{
    if (!data)
        return;
    comm_lock(c);                   /* transports drop what they keep of it */
    net_memory_free(c->memory, net_memory_find(c->memory, data, 1));
    comm_unlock(c);
}

void net_comm_signal(net_comm *c)
{
    comm_lock(c);
    if (c->outstanding && !c->waiters && !c->polling)
        pthread_cond_signal(&c->idle);
    comm_unlock(c);
}

void net_comm_traffic(net_comm *c, uint64_t *sent, uint64_t *received)
{
    *sent = *received = 0;
    comm_lock(c);
    for (int i = 0; i < c->size; i++)
        if (c->pairs[i]) {
            *sent += c->pairs[i]->bytes_sent;
            *received += c->pairs[i]->bytes_received;
        }
    comm_unlock(c);
}

void net_comm_counters(net_comm *c,
                       void (*visit)(void *context, const char *transport, const char *name, uint64_t value),
                       void *context)
{
    const char *name;
    uint64_t value;
    comm_lock(c);
    for (int i = 0; i < c->transports; i++)
        for (int n = 0; c->transport[i] && c->ops[i]->counter && c->ops[i]->counter(c->transport[i], n, &name, &value);
             n++)
            visit(context, c->ops[i]->name, name, value);
    visit(context, "queue", "sends that waited", c->waited);
    visit(context, "queue", "sends overtaken", c->overtaken);
    comm_unlock(c);
}

/* ---- point to point -------------------------------------------------------------------- */

static gt_status check_peer(const net_comm *c, int peer)
{
    return peer >= 0 && peer < c->size ? GT_OK
                                       : gt_fail(GT_MISUSE, "there is no rank %d among %d ranks", peer, c->size);
}

gt_status net_send_start(net_comm *c, int peer, uint32_t channel, const void *data, size_t size, net_request **out)
{
    *out = NULL;
    gt_status st = check_peer(c, peer);
    return st ? st : net_group_send_start(c->world, peer, channel, data, size, 0, out);
}

gt_status net_recv_start(net_comm *c, int peer, uint32_t channel, void *data, size_t size, net_request **out)
{
    *out = NULL;
    gt_status st = check_peer(c, peer);
    return st ? st
              : net_group_recv_start(c->world, peer, channel, (net_sink){ .data = data, .size = size, .grain = 1 },
                                     out);
}

int net_test(net_request *r)
{
    return !r || atomic_load_explicit(&r->done, memory_order_acquire) || net_job_check(r->comm->job);
}

static void release(net_request *r)
{
    if (r->op_link) {
        *r->op_link = r->op_next;
        if (r->op_next)
            r->op_next->op_link = r->op_link;
    }
    r->next = r->comm->spare;
    r->comm->spare = r;
}

static void trace_wait(const net_request *r, uint64_t begin)
{
    char name[64], bytes[32];
    snprintf(name, sizeof name, "wait: %s %s rank %d", gt_format_bytes(bytes, sizeof bytes, r->size),
             r->node.kind == NODE_SEND ? "to" : "from", r->pair->peer);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, name, begin);
}

gt_status net_wait(net_request *r)
{
    net_loan loan;
    net_comm *c = r ? r->comm : NULL;
    const int peer = r ? r->pair->peer : 0;
    const gt_status st = net_borrow_wait(r, &loan);
    if (loan.data)                  /* whoever borrowed has given up */
        net_borrow_end(c, peer, &loan);
    return st;
}

gt_status net_borrow_start(net_comm *c, int peer, uint32_t channel, void *data, size_t size, net_request **out)
{
    *out = NULL;
    gt_status st = check_peer(c, peer);
    const net_sink sink = { .data = data, .size = size, .grain = 1, .lend = NET_LEND_PAGES };
    return st ? st : net_group_recv_start(c->world, peer, channel, sink, out);
}

/* Lock held. A job that is over has nobody to tell; its sends are given up by who waits for them. */
static void give_back(net_comm *c, int peer, net_loan loan)
{
    pair *p = c->pairs[peer];
    if (peer == c->rank && !net_job_check(c->job)) {
        match_finish((net_request *)(uintptr_t)loan.cookie);
        comm_wake(c);
    } else if (p && p->link && p->state == PAIR_UP && p->ops->give_back) {
        p->ops->give_back(p->link, loan);
    } else {
        net_mapping_drop(loan.mapping);
    }
}

void net_borrow_end(net_comm *c, int peer, net_loan *loan)
{
    if (!loan->data)
        return;
    comm_lock(c);
    give_back(c, peer, *loan);
    comm_unlock(c);
    *loan = (net_loan){ 0 };
}

gt_status net_borrow_wait(net_request *r, net_loan *loan)
{
    *loan = (net_loan){ 0 };
    if (!r)
        return GT_OK;
    net_comm *c = r->comm;
    comm_lock(c);
    gt_status st = GT_OK;
    if (!atomic_load_explicit(&r->done, memory_order_acquire)) {
        const uint64_t begin = r->node.key.step == UINT32_MAX ? gt_trace_begin() : 0;
        st = comm_wait(c, &r->done, r->pair->peer, r->node.kind == NODE_SEND ? "to send" : "to receive", r->size);
        if (begin)
            trace_wait(r, begin);
    }
    if (st)
        match_forget(r);
    if (st && r->loan.data)
        give_back(c, r->pair->peer, r->loan);
    else
        *loan = r->loan;
    release(r);
    comm_unlock(c);
    return st;
}

gt_status net_wait_any(net_comm *c, net_request *const *r, int n, uint64_t timeout, int *which)
{
    const uint64_t limit = timeout > UINT64_MAX / 2 ? UINT64_MAX : gt_now_ns() + timeout;
    gt_status st = GT_OK;
    *which = -1;
    comm_lock(c);
    c->waiters++;
    for (;;) {
        for (int i = 0; *which < 0 && i < n; i++)
            if (r[i] && atomic_load_explicit(&r[i]->done, memory_order_acquire))
                *which = i;
        if (*which >= 0 || gt_now_ns() >= limit)
            break;
        st = net_job_check(c->job);
        if (st) {
            comm_shut(c);
            break;
        }
        if (c->polling) {
            sleep_on(c, &c->changed, 1000000u);
            continue;
        }
        c->polling = 1;
        if (!comm_progress(c))
            sleep_until_news(c);
        c->polling = 0;
        if (c->waiters > 1)
            pthread_cond_broadcast(&c->changed);
    }
    c->waiters--;
    comm_unlock(c);
    return st;
}
