/* SPDX-License-Identifier: MIT */
/* tests/verbs/verbs_ends.c - see verbs_ends.h. */
#include "tests/verbs/verbs_ends.h"

#include "host/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPEN = 1, TEXT = 2 };
typedef struct head {
    uint32_t type, window, kind, descriptor;
    uint64_t size;
} head;

/* ---- a job of two ---------------------------------------------------------------------------- */

struct net_job {
    int rank;
    const net_config *config;
    net_member member[2];
};

int net_job_rank(const net_job *job)
{
    return job->rank;
}
int net_job_size(const net_job *job)
{
    (void)job;
    return 2;
}
const net_config *net_job_config(const net_job *job)
{
    return job->config;
}
const net_member *net_job_member(const net_job *job, int rank)
{
    return &job->member[rank];
}
char *net_job_name(const net_job *job, int rank, char *out, size_t size)
{
    snprintf(out, size, "rank %d (%s, pid %u)", rank, job->member[rank].host, job->member[rank].pid);
    return out;
}

/* ---- settings -------------------------------------------------------------------------------- */

net_config end_config(void)
{
    return (net_config){
        .eager = 8192,
        .chunk = 1 << 20,
        .verbs = 1,
        .hca = "",
        .gid_index = -1,
        .ib_timeout = 14,
        .ib_retry = -1,
        .inline_bytes = 128,
        .queue_pairs = 1,
        .immediate = 1,
        .relaxed_ordering = 1,
        .adaptive_routing = 8192,
        .transport = "verbs",
        .fault = ""
    };
}

int end_config_set(net_config *c, const char *word)
{
    const struct {
        const char *name;
        int *number;
        uint64_t *bytes;
        const char **text;
    } rows[] = {
        { "ib_mtu", &c->ib_mtu, NULL, NULL },
        { "inline", &c->inline_bytes, NULL, NULL },
        { "immediate", &c->immediate, NULL, NULL },
        { "queue_pairs", &c->queue_pairs, NULL, NULL },
        { "timeout", &c->ib_timeout, NULL, NULL },
        { "retry", &c->ib_retry, NULL, NULL },
        { "gid_index", &c->gid_index, NULL, NULL },
        { "max_message", NULL, &c->max_message, NULL },
        { "chunk", NULL, &c->chunk, NULL },
        { "eager", NULL, &c->eager, NULL },
        { "adaptive", NULL, &c->adaptive_routing, NULL },
        { "hca", NULL, NULL, &c->hca },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const size_t n = strlen(rows[i].name);
        if (strncmp(word, rows[i].name, n) || word[n] != '=')
            continue;
        if (rows[i].number)
            *rows[i].number = atoi(word + n + 1);
        else if (rows[i].bytes)
            *rows[i].bytes = strtoull(word + n + 1, NULL, 10);
        else
            *rows[i].text = word + n + 1;
        return 1;
    }
    return 0;
}

/* ---- patterns -------------------------------------------------------------------------------- */

static unsigned char byte_of(int rank, uint32_t window, size_t i)
{
    return (unsigned char)(rank * 131 + (int)window * 17 + (int)(i * 7) + (int)(i >> 8));
}

static void fill(unsigned char *data, size_t size, int rank, uint32_t window, end_kind kind)
{
    if (kind == END_REDUCE)
        for (size_t i = 0; i < size / sizeof(float); i++)
            ((float *)(void *)data)[i] = (float)((i + window) % 1000);
    else if (kind != END_SPEED)
        for (size_t i = 0; i < size; i++)
            data[i] = byte_of(rank, window, i);
}

static void add(void *to, const void *from, size_t size)
{
    float *x = to;
    const float *y = from;
    for (size_t i = 0; i < size / sizeof(float); i++)
        x[i] += y[i];
}

static int is_right(const end *e, const end_window_state *w, uint32_t window)
{
    const float *x = (const void *)w->sink;
    if (w->kind == END_SPEED)
        return 1;
    if (w->kind == END_REDUCE) {
        for (size_t i = 0; i < w->size / sizeof(float); i++)
            if (x[i] != (float)(i % 7) + (float)((i + window) % 1000))
                return 0;
        return 1;
    }
    for (size_t i = 0; i < w->size; i++)
        if (w->sink[i] != byte_of(!e->rank, window, i))
            return 0;
    return w->sink[w->size] == 0xa5;    /* the guard byte behind it */
}

static unsigned char *take_memory(end *e, size_t size, end_kind kind)
{
    const size_t whole = (size + 1 + 63) / 64 * 64;
    unsigned char *p;
    if (kind == END_SPEED)
        return e->arena->data;
    if (kind != END_ARENA || e->used + whole > e->arena->size)
        return malloc(size + 1);
    p = e->arena->data + e->used;
    e->used += whole;
    return p;
}

static void give_memory(const end *e, unsigned char *p)
{
    if (p && (p < e->arena->data || p >= e->arena->data + e->arena->size))
        free(p);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void on_message(void *up, const void *data, size_t head_size, const void *body, size_t size)
{
    end *e = up;
    head h;
    e->messages++;
    if (head_size != sizeof h) {
        e->wrong++;
        return;
    }
    memcpy(&h, data, sizeof h);
    if (h.type == TEXT) {
        for (size_t i = 0; i < size; i++)
            e->wrong += ((const unsigned char *)body)[i] != byte_of(!e->rank, h.window, i);
        e->wrong += size != h.size;
        return;
    }
    end_window_state *w = &e->window[h.window % END_WINDOWS];
    w->source = take_memory(e, h.size, (end_kind)h.kind);
    fill(w->source, h.size, e->rank, h.window, (end_kind)h.kind);
    e->asked++;
    if (e->ops->put(e->link, w->source, h.size, h.window, body, size, w)) {
        e->failed = GT_PEER;
        snprintf(e->why, sizeof e->why, "%s", gt_message());
    }
}

static void on_placed(void *up, uint32_t window)
{
    end *e = up;
    end_window_state *w = &e->window[window % END_WINDOWS];
    e->placed++;
    if (!w->open || !is_right(e, w, window)) {
        fprintf(stderr, "rank %d: window %u of %zu bytes, kind %d, is wrong\n", e->rank, window, w->size, w->kind);
        e->wrong++;
    }
    w->open = 0;
    give_memory(e, w->sink);
    w->sink = NULL;
}

static void on_done(void *up, void *cookie)
{
    end *e = up;
    end_window_state *w = cookie;
    e->done++;
    memset(w->source, 0xee, 1);         /* the data are ours again */
    give_memory(e, w->source);
    w->source = NULL;
}

static void on_failed(void *up, gt_status why)
{
    end *e = up;
    e->failed = why;
    snprintf(e->why, sizeof e->why, "%s", gt_message());
}

static const net_events events = { .message = on_message, .placed = on_placed, .done = on_done, .failed = on_failed };

/* ---- opening and linking --------------------------------------------------------------------- */

gt_status end_open(end *e, int rank, const net_config *config)
{
    memset(e, 0, sizeof *e);
    e->rank = rank;
    e->config = *config;
    e->ops = &net_verbs;
    e->job = calloc(1, sizeof *e->job);
    *e->job = (net_job){ .rank = rank, .config = &e->config };
    for (int i = 0; i < 2; i++) {
        snprintf(e->job->member[i].host, sizeof e->job->member[i].host, "host%d", i);
        e->job->member[i].pid = (uint32_t)getpid();
    }
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    gt_status st = net_memory_set_create(&e->memory);
    if (!st)
        st = e->ops->open(&e->t, e->job, e->memory, &events, e->epoll);
    if (!st)                    /* after opening, so that the hook has to see it */
        st = net_memory_make(e->memory, END_ARENA_BYTES, &e->arena);
    return st;
}

void end_close(end *e)
{
    if (e->link)
        e->ops->disconnect(e->link);
    e->link = NULL;
    if (e->arena)
        end_forget(e);
    if (e->t)
        e->ops->close(e->t);
    net_memory_set_release(e->memory);
    if (e->epoll > 0)
        close(e->epoll);
    free(e->job);
    memset(e, 0, sizeof *e);
}

gt_status ends_link(end *a, end *b)
{
    end *ends[2] = { a, b };
    unsigned char offer[2][NET_OFFER], next[2][NET_OFFER];
    size_t size[2], next_size[2];
    int again[2] = { 1, 1 };
    for (int i = 0; i < 2; i++) {
        gt_status st = ends[i]->ops->offer(ends[i]->t, !i, !i, ends[i], &ends[i]->link, offer[i], &size[i]);
        if (st)
            return st;
    }
    for (int round = 0; again[0] || again[1]; round++) {
        if (round > 40)
            return gt_fail(GT_TIMEOUT, "the rounds do not end");
        for (int i = 0; i < 2; i++) {
            int stream = -1;
            gt_status st = ends[i]->ops->connect(ends[i]->link, offer[!i], size[!i], next[i], &next_size[i], &again[i],
                                                 &stream);
            if (st)
                return st;
        }
        memcpy(offer, next, sizeof offer);
        memcpy(size, next_size, sizeof size);
    }
    return GT_OK;
}

static int transfer(int fd, void *data, size_t size, int out)
{
    for (size_t at = 0; at < size;) {
        const ssize_t n = out ? send(fd, (char *)data + at, size - at, MSG_NOSIGNAL)
                              : recv(fd, (char *)data + at, size - at, 0);
        if (n <= 0)
            return 0;
        at += (size_t)n;
    }
    return 1;
}

gt_status end_link_over(end *e, int socket)
{
    struct {
        uint32_t size;
        int32_t again;
        unsigned char offer[NET_OFFER];
    } mine = { .again = 1 }, theirs;
    size_t size;
    int again = 1, stream = socket;
    gt_status st = e->ops->offer(e->t, !e->rank, !e->rank, e, &e->link, mine.offer, &size);
    while (!st) {
        mine.size = (uint32_t)size;
        mine.again = again;
        if (!transfer(socket, &mine, sizeof mine, 1) || !transfer(socket, &theirs, sizeof theirs, 0))
            return gt_fail(GT_PEER, "the other end closed while linking");
        if (!again && !theirs.again)
            return GT_OK;
        st = e->ops->connect(e->link, theirs.offer, theirs.size, mine.offer, &size, &again, &stream);
    }
    return st;
}

/* ---- traffic --------------------------------------------------------------------------------- */

gt_status end_window(end *e, size_t size, end_kind kind)
{
    unsigned char descriptor[NET_DESCRIPTOR];
    size_t n;
    const uint32_t number = e->next_window++;
    end_window_state *w = &e->window[number % END_WINDOWS];
    if (kind == END_REDUCE)
        size = (size + 3) / 4 * 4;
    w->sink = take_memory(e, size, kind);
    w->open = 1;
    w->kind = kind;
    w->size = size;
    if (kind != END_SPEED) {
        memset(w->sink, 0x5a, size);
        w->sink[size] = 0xa5;
    }
    for (size_t i = 0; kind == END_REDUCE && i < size / sizeof(float); i++)
        ((float *)(void *)w->sink)[i] = (float)(i % 7);
    const net_sink sink = { w->sink, size, kind == END_REDUCE ? add : NULL, kind == END_REDUCE ? 4 : 1, 0 };
    gt_status st = e->ops->expose(e->link, number, sink, descriptor, &n);
    const head h = { OPEN, number, (uint32_t)kind, (uint32_t)n, size };
    e->opened++;
    if (!st)
        st = e->ops->send(e->link, &h, sizeof h, descriptor, n);
    if (!st)
        e->ops->flush(e->link);
    return st;
}

gt_status end_say(end *e, size_t body)
{
    unsigned char *text = malloc(body + 1);
    const head h = { TEXT, (uint32_t)body, 0, 0, body };
    for (size_t i = 0; i < body; i++)
        text[i] = byte_of(e->rank, (uint32_t)body, i);
    gt_status st = e->ops->send(e->link, &h, sizeof h, text, body);
    free(text);
    return st;
}

static int is_idle(const end *e)
{
    return !e || (e->placed == e->opened && e->done == e->asked && e->messages >= e->expected_messages);
}

static int may_sleep(end *a, end *b)
{
    return !a->ops->arm(a->t) && (!b || !b->ops->arm(b->t));
}

gt_status ends_run(end *a, end *b, int seconds)
{
    end *ends[2] = { a, b };
    uint64_t last = gt_now_ns();
    for (int i = 0; i < 2 && ends[i]; i++)
        ends[i]->ops->flush(ends[i]->link);
    while (!is_idle(a) || !is_idle(b)) {
        int did = 0;
        for (int i = 0; i < 2 && ends[i]; i++)
            ends[i]->ops->progress(ends[i]->t, &did);
        for (int i = 0; i < 2 && ends[i]; i++)
            if (ends[i]->failed)
                return gt_fail(ends[i]->failed, "%s", ends[i]->why);
        if (did) {
            last = gt_now_ns();
            continue;
        }
        if (gt_now_ns() - last > (uint64_t)seconds * 1000000000u)
            return gt_fail(GT_TIMEOUT,
                           "nothing happened for %d s: placed %llu of %llu, done %llu of "
                           "%llu, heard %llu",
                           seconds, (unsigned long long)a->placed, (unsigned long long)a->opened,
                           (unsigned long long)a->done, (unsigned long long)a->asked, (unsigned long long)a->messages);
        if (!may_sleep(a, b))
            continue;
        struct epoll_event e[2];
        int fd = a->epoll, woken;
        if (b) {                /* one set that watches both ends' sets */
            struct epoll_event watch = { .events = EPOLLIN };
            fd = epoll_create1(EPOLL_CLOEXEC);
            epoll_ctl(fd, EPOLL_CTL_ADD, a->epoll, &watch);
            epoll_ctl(fd, EPOLL_CTL_ADD, b->epoll, &watch);
        }
        woken = epoll_wait(fd, e, 2, 1000);
        if (b)
            close(fd);
        for (int i = 0; i < 2 && ends[i]; i++)
            ends[i]->ops->disarm(ends[i]->t);
        if (!woken) {           /* was there something that should have woken us? */
            for (int i = 0; i < 2 && ends[i]; i++)
                ends[i]->ops->progress(ends[i]->t, &did);
            a->late_wakes += did > 0;
        }
    }
    return GT_OK;
}

void end_forget(end *e)
{
    /* Another process may be ahead of us, and its next windows be filled from here already. */
    if (e->ops && e->link && !e->failed && (e->asked != e->done || e->placed != e->opened))
        return;
    for (int i = 0; i < END_WINDOWS; i++) {
        give_memory(e, e->window[i].sink);
        give_memory(e, e->window[i].source);
        e->window[i].sink = e->window[i].source = NULL;
        e->window[i].open = 0;
    }
    e->used = 0;
}
