/* SPDX-License-Identifier: MIT */
/* net/transport/faulty.c - a transport that misbehaves on purpose, around any other.
 *
 *      wire ──► inner transport ──► event ──► [drop? cut? wait? swap?] ──► communicator
 *
 *   --net fault=delay=2ms,reorder=1            slow, and in any order: all must still work
 *   --net fault=drop=0.001                     lost: must end in a stall report, not in a hang
 *   --net fault=truncate=0.01                  cut short: must be noticed
 *   --net fault=fail=500                       the link breaks after 500 events
 *   seed=N                                     seed of its random numbers
 *
 * It works on events, where they come out of the inner transport, and not on bytes: so it is
 * the same for shared memory, tcp and verbs, and what the inner transport promises stays
 * true below it. A dropped `placed` or `done` is a lost completion.                       */
#include "net/transport/transport.h"

#include "host/base/clock.h"
#include "host/base/random.h"
#include "host/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plan {
    double drop, truncate;
    uint64_t delay, fail, seed;
    int reorder;
} plan;

typedef struct faulty_link {
    net_link link;
    net_link *inner;
    uint64_t events;
    int failed;
} faulty_link;

typedef enum kind { MESSAGE, PLACED, LENT, DONE } kind;

typedef struct held {
    struct held *next;
    faulty_link *to;
    kind kind;
    uint64_t due;
    uint32_t window;
    void *cookie;
    net_loan loan;
    size_t head_size, body_size;
    unsigned char bytes[];
} held;

typedef struct faulty {
    net_transport transport;
    net_transport *inner;
    plan plan;
    gt_random random;
    held *first, **last;
    size_t count;
    uint64_t dropped, cut;
} faulty;

/* ---- the plan -------------------------------------------------------------------------- */

static gt_status parse_part(plan *p, const char *name, const char *value)
{
    uint64_t n = 0;
    if (!strcmp(name, "drop"))
        return gt_parse_double(&p->drop, value);
    if (!strcmp(name, "truncate"))
        return gt_parse_double(&p->truncate, value);
    if (!strcmp(name, "delay"))
        return gt_parse_duration(&p->delay, value);
    if (!strcmp(name, "fail"))
        return gt_parse_u64(&p->fail, value);
    if (!strcmp(name, "seed"))
        return gt_parse_u64(&p->seed, value);
    if (!strcmp(name, "reorder")) {
        gt_status st = gt_parse_u64(&n, value);
        p->reorder = n != 0;
        return st;
    }
    return gt_fail(GT_MISUSE,
                   "knob 'fault': '%s' is none of drop, truncate, delay, reorder, fail, "
                   "seed",
                   name);
}

static gt_status parse(plan *p, const char *text)
{
    *p = (plan){ .seed = 1 };
    gt_status st = GT_OK;
    while (!st && *text) {
        char part[64];
        const size_t n = strcspn(text, ",");
        snprintf(part, sizeof part, "%.*s", (int)n, text);
        char *equals = strchr(part, '=');
        if (!equals)
            return gt_fail(GT_MISUSE, "knob 'fault': '%s' has no value", part);
        *equals = '\0';
        st = parse_part(p, part, equals + 1);
        text += n;
        text += *text == ',';
    }
    return st;
}

/* ---- events of the inner transport ----------------------------------------------------- */

static faulty *faulty_of(const faulty_link *l)
{
    return (faulty *)l->link.transport;
}

/* NULL: it got lost. */
static held *hold(faulty_link *l, kind k, uint32_t window, void *cookie, const void *head, size_t head_size,
                  const void *body, size_t body_size)
{
    faulty *f = faulty_of(l);
    l->events++;
    if (f->plan.drop > 0 && gt_random_unit(&f->random) < f->plan.drop) {
        f->dropped++;
        return NULL;
    }
    if (k == MESSAGE && body_size > 1 && f->plan.truncate > 0 && gt_random_unit(&f->random) < f->plan.truncate) {
        f->cut++;
        body_size /= 2;
    }
    held *h = malloc(sizeof *h + head_size + body_size);
    if (!h)
        return NULL;
    *h = (held){
        .to = l, .kind = k, .window = window, .cookie = cookie, .head_size = head_size, .body_size = body_size
    };
    h->due = f->plan.delay ? gt_now_ns() + gt_random_below(&f->random, 2 * f->plan.delay) : 0;
    if (head_size)
        memcpy(h->bytes, head, head_size);
    if (body_size)
        memcpy(h->bytes + head_size, body, body_size);
    *f->last = h;
    f->last = &h->next;
    f->count++;
    return h;
}

static void on_message(void *up, const void *head, size_t head_size, const void *body, size_t body_size)
{
    hold(up, MESSAGE, 0, NULL, head, head_size, body, body_size);
}

static void on_placed(void *up, uint32_t window)
{
    hold(up, PLACED, window, NULL, NULL, 0, NULL, 0);
}

static void on_lent(void *up, uint32_t window, net_loan loan)
{
    held *h = hold(up, LENT, window, NULL, NULL, 0, NULL, 0);
    if (h)
        h->loan = loan;
    else
        net_mapping_drop(loan.mapping);
}

static void on_done(void *up, void *cookie)
{
    hold(up, DONE, 0, cookie, NULL, 0, NULL, 0);
}

static void on_failed(void *up, gt_status why)
{
    faulty_link *l = up;
    if (!l->failed)
        faulty_of(l)->transport.events->failed(l->link.up, why);
    l->failed = 1;
}

static const net_events faulty_events = { on_message, on_placed, on_lent, on_done, on_failed };

/* ---- giving them on -------------------------------------------------------------------- */

/* The next event that is due: the first, or any one. NULL: none. */
static held *pick(faulty *f)
{
    const uint64_t now = f->plan.delay ? gt_now_ns() : 0;
    uint64_t skip = f->plan.reorder && f->count ? gt_random_below(&f->random, f->count) : 0;
    held **found = NULL;
    for (held **at = &f->first; *at; at = &(*at)->next) {
        if ((*at)->due > now)
            continue;
        found = at;
        if (!skip--)
            break;
    }
    if (!found)
        return NULL;
    held *h = *found;
    *found = h->next;
    if (f->last == &h->next)
        f->last = found;
    f->count--;
    return h;
}

static void deliver(held *h)
{
    faulty_link *l = h->to;
    const net_events *events = l->link.transport->events;
    switch (h->kind) {
    case MESSAGE: events->message(l->link.up, h->bytes, h->head_size, h->bytes + h->head_size, h->body_size); break;
    case PLACED: events->placed(l->link.up, h->window); break;
    case LENT:
        events->lent(l->link.up, h->window, h->loan);
        h->loan = (net_loan){ 0 };
        break;
    case DONE: events->done(l->link.up, h->cookie); break;
    }
}

static void drop(held *h)
{
    net_mapping_drop(h->loan.mapping);
    free(h);
}

static void faulty_progress(net_transport *transport, int *did)
{
    faulty *f = (faulty *)transport;
    f->inner->ops->progress(f->inner, did);
    for (held *h; (h = pick(f)) != NULL; drop(h)) {
        faulty_link *l = h->to;
        (*did)++;
        if (f->plan.fail && l->events >= f->plan.fail && !l->failed) {
            l->failed = 1;
            f->transport.events->failed(l->link.up, gt_fail(GT_PEER,
                                                            "the link to rank %d broke, as the knob "
                                                            "'fault' wants it",
                                                            l->link.peer));
        }
        if (!l->failed)
            deliver(h);
    }
}

/* ---- the rest is the inner transport's ------------------------------------------------- */

static void faulty_close(net_transport *transport)
{
    faulty *f = (faulty *)transport;
    if (f->inner)
        f->inner->ops->close(f->inner);
    for (held *h = f->first, *next; h; h = next) {
        next = h->next;
        drop(h);
    }
    free(f);
}

static gt_status open_around(const net_transport_ops *inner, const net_transport_ops *outer, net_transport **out,
                             net_job *job, net_memory_set *memory, const net_events *events, int poll_fd)
{
    *out = NULL;
    faulty *f = calloc(1, sizeof *f);
    if (!f)
        return gt_fail(GT_NO_MEMORY, "no memory for the transport that injects faults");
    f->transport = (net_transport){ outer, job, net_job_config(job), memory, events, poll_fd, 0, 1 };
    f->last = &f->first;
    gt_status st = parse(&f->plan, f->transport.config->fault);
    gt_random_init(&f->random, f->plan.seed, (uint64_t)net_job_rank(job));
    if (!st)
        st = inner->open(&f->inner, job, memory, &faulty_events, poll_fd);
    if (st) {
        faulty_close(&f->transport);
        return st;
    }
    f->transport.eager = f->inner->eager;
    f->transport.ahead = f->inner->ahead;
    *out = &f->transport;
    return GT_OK;
}

static gt_status faulty_offer(net_transport *transport, int peer, int leads, void *up, net_link **link,
                              unsigned char *offer, size_t *size)
{
    faulty *f = (faulty *)transport;
    *link = NULL;
    faulty_link *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "no memory for a link that injects faults");
    l->link = (net_link){ transport, up, peer };
    gt_status st = f->inner->ops->offer(f->inner, peer, leads, l, &l->inner, offer, size);
    if (st) {
        free(l);
        return st;
    }
    *link = &l->link;
    return GT_OK;
}

static net_link *inner_of(net_link *link)
{
    return ((faulty_link *)link)->inner;
}

static const net_transport_ops *ops_of(net_link *link)
{
    return ((faulty *)link->transport)->inner->ops;
}

static gt_status faulty_connect(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                                size_t *size, int *again, int *stream)
{
    return ops_of(link)->connect(inner_of(link), theirs, theirs_size, offer, size, again, stream);
}

static void faulty_disconnect(net_link *link)
{
    if (!link)
        return;
    faulty *f = (faulty *)link->transport;
    ops_of(link)->disconnect(inner_of(link));
    for (held **at = &f->first; *at;) {
        held *h = *at;
        if (&h->to->link != link) {
            at = &h->next;
            continue;
        }
        *at = h->next;
        f->count--;
        drop(h);
    }
    for (f->last = &f->first; *f->last; f->last = &(*f->last)->next) {
        /* To the end. */
    }
    free(link);
}

static gt_status faulty_send(net_link *link, const void *head, size_t head_size, const void *body, size_t body_size)
{
    return ops_of(link)->send(inner_of(link), head, head_size, body, body_size);
}

static gt_status faulty_expose(net_link *link, uint32_t window, net_sink sink, unsigned char *descriptor, size_t *size)
{
    return ops_of(link)->expose(inner_of(link), window, sink, descriptor, size);
}

static gt_status faulty_put(net_link *link, const void *data, size_t size, uint32_t window,
                            const unsigned char *descriptor, size_t descriptor_size, void *cookie)
{
    return ops_of(link)->put(inner_of(link), data, size, window, descriptor, descriptor_size, cookie);
}

static void faulty_give_back(net_link *link, net_loan loan)
{
    if (ops_of(link)->give_back)
        ops_of(link)->give_back(inner_of(link), loan);
}

static int faulty_arm(net_transport *transport)
{
    const faulty *f = (const faulty *)transport;
    return f->inner->ops->arm(f->inner) || f->first;
}

static void faulty_disarm(net_transport *transport)
{
    const faulty *f = (const faulty *)transport;
    f->inner->ops->disarm(f->inner);
}

static void faulty_start(net_link *link, int *stream)
{
    if (ops_of(link)->start)
        ops_of(link)->start(inner_of(link), stream);
}

static void faulty_flush(net_link *link)
{
    if (ops_of(link)->flush)
        ops_of(link)->flush(inner_of(link));
}

static size_t faulty_backlog(const net_link *link)
{
    const faulty *f = (const faulty *)link->transport;
    return f->inner->ops->backlog(((const faulty_link *)link)->inner);
}

static void faulty_describe(net_link *link, char *out, size_t size)
{
    ops_of(link)->describe(inner_of(link), out, size);
    const size_t used = strlen(out);
    if (used < size)
        snprintf(out + used, size - used, ", faulty: %s", link->transport->config->fault);
}

static int faulty_counter(net_transport *transport, int index, const char **name, uint64_t *value)
{
    const faulty *f = (const faulty *)transport;
    if (index > 1)
        return f->inner->ops->counter && f->inner->ops->counter(f->inner, index - 2, name, value);
    *name = index ? "messages cut" : "events dropped";
    *value = index ? f->cut : f->dropped;
    return 1;
}

static gt_status open_shm(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd);
static gt_status open_tcp(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd);
#ifdef GT_VERBS
static gt_status open_verbs(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                            int poll_fd);
#endif

#define AROUND(NAME, OPEN, BACKLOG) \
    { .name = NAME, \
      .open = OPEN, \
      .close = faulty_close, \
      .offer = faulty_offer, \
      .connect = faulty_connect, \
      .disconnect = faulty_disconnect, \
      .send = faulty_send, \
      .expose = faulty_expose, \
      .put = faulty_put, \
      .give_back = faulty_give_back, \
      .progress = faulty_progress, \
      .arm = faulty_arm, \
      .disarm = faulty_disarm, \
      .start = faulty_start, \
      .flush = faulty_flush, \
      .backlog = BACKLOG, \
      .describe = faulty_describe, \
      .counter = faulty_counter }
static const struct {
    const net_transport_ops *inner;
    net_transport_ops outer;
} wrapped[] = {
    { &net_shm, AROUND("shm", open_shm, NULL) },
    { &net_tcp, AROUND("tcp", open_tcp, faulty_backlog) },
#ifdef GT_VERBS
    { &net_verbs, AROUND("verbs", open_verbs, NULL) },
#endif
};
enum { WRAPPED = sizeof wrapped / sizeof *wrapped };

static gt_status open_shm(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd)
{
    return open_around(&net_shm, &wrapped[0].outer, out, job, memory, events, poll_fd);
}

static gt_status open_tcp(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd)
{
    return open_around(&net_tcp, &wrapped[1].outer, out, job, memory, events, poll_fd);
}

#ifdef GT_VERBS
static gt_status open_verbs(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                            int poll_fd)
{
    return open_around(&net_verbs, &wrapped[2].outer, out, job, memory, events, poll_fd);
}
#endif

gt_status net_faulty_wrap(const net_transport_ops *inner, const net_config *config, const net_transport_ops **out)
{
    plan p;
    gt_status st = parse(&p, config->fault);
    for (int i = 0; !st && i < WRAPPED; i++)
        if (wrapped[i].inner == inner) {
            *out = &wrapped[i].outer;
            return GT_OK;
        }
    return st ? st : gt_fail(GT_UNSUPPORTED, "transport %s cannot be made to fail", inner->name);
}
