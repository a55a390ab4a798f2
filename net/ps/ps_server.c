/* SPDX-License-Identifier: MIT */
/* net/ps/ps_server.c - a server's thread: takes pushes, applies them, answers pulls.
 *
 *   part of a block: version 7   value ▓▓▓▓▓▓▓▓
 *      pushes   w0 ░░░░   w2 ░░░░   w0 ░░░░          pushes, in the order they were announced
 *      pulls    w1 wants 8                           wait for their version
 *
 * synchronous: when the first push of every worker is in, they are added in the order of the
 * workers, whatever order they came in, and applied as one. stale: the first push of a worker
 * is applied when it is in and the worker is not too far ahead of the slowest.
 *
 * A value is never changed while it is being sent: an update waits for the sends under way, and
 * pulls that come meanwhile wait for the update, so neither can starve the other.
 *
 * Values are one arena, and each worker has one of the same shape for its pushes; a worker's second
 * push of a block that waits behind its first is kept in ordinary memory. The thread only
 * ever waits in net_wait_any().                                                          */
#include "net/ps/ps_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct incoming {
    struct incoming *next;
    int worker, arrived;
    int extra;                          /* in memory of its own, not in the worker's box */
    uint32_t slot;
    uint64_t tag;
    float *data;
} incoming;

typedef struct pull {
    struct pull *next;
    int worker;
    uint32_t slot;
    uint64_t version;
} pull;

typedef struct part {
    ps_range range;
    float *value;
    uint64_t version;
    int readers;                        /* sends of the value under way                  */
    uint64_t at;                        /* place in the arenas, in elements              */
    incoming *pushes;
    unsigned char *buffered;            /* [workers] 1: its buffer holds a push             */
    pull *pulls;
    uint64_t *pushed;                   /* [workers] applied pushes                      */
    float **pulled;                     /* [workers] with keep_pulled                    */
    uint64_t *since;                    /* [workers] version of its newest pull, and its own pushes from there on */
    float **after;                      /* [workers] in turn: the value right after its newest push */
    uint64_t *after_version;
} part;

/* Something under way, and what to do when it is done. */
typedef enum event_kind { REQUEST_CAME, PUSH_CAME, ANSWER_SENT, VALUE_SENT } event_kind;
typedef struct event {
    event_kind kind;
    int worker;
    part *part;
    incoming *incoming;
    ps_answer *answer;
} event;

typedef struct ps_server {
    net_ps *ps;
    int workers, open;                  /* workers that have not closed                  */
    uint64_t total;                     /* elements of all parts                         */
    float *values, **box;               /* arenas: [total], and [workers][total]         */
    part *parts;                        /* [block_count]                                 */
    ps_request *inbox;                  /* [workers]                                     */
    unsigned char *closed;              /* [workers]                                     */
    event *events;
    net_request **requests;             /* beside events                                 */
    int count, room;
    pthread_t thread;
    gt_status result;
    char sentence[512];
} ps_server;

/* ---- things under way ------------------------------------------------------------------- */

static gt_status make_room(ps_server *s)
{
    if (s->count < s->room)
        return GT_OK;
    const int room = s->room ? 2 * s->room : 64;
    event *events = realloc(s->events, (size_t)room * sizeof *events);
    if (events)
        s->events = events;
    net_request **requests = realloc(s->requests, (size_t)room * sizeof *requests);
    if (requests)
        s->requests = requests;
    if (!events || !requests)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for %d requests under way", (int)room);
    s->room = room;
    return GT_OK;
}

static void watch(ps_server *s, net_request *r, event e)
{
    assert(s->count < s->room);
    s->events[s->count] = e;
    s->requests[s->count++] = r;
}

static int rank_of(const ps_server *s, int worker)
{
    return s->ps->workers[worker];
}

static gt_status receive(ps_server *s, int worker, uint32_t channel, void *data, size_t size, event e)
{
    net_request *r;
    gt_status st = make_room(s);
    if (!st)
        st = net_group_recv_start(s->ps->group, rank_of(s, worker), channel, (net_sink){ data, size, NULL, 1, 0 }, &r);
    if (!st)
        watch(s, r, e);
    return st;
}

static gt_status send(ps_server *s, int worker, uint32_t channel, const void *data, size_t size, uint32_t priority,
                      event e)
{
    net_request *r;
    gt_status st = make_room(s);
    if (!st)
        st = net_group_send_start(s->ps->group, rank_of(s, worker), channel, data, size, priority, &r);
    if (!st)
        watch(s, r, e);
    return st;
}

static gt_status expect_request(ps_server *s, int worker)
{
    return receive(s, worker, PS_REQUESTS, &s->inbox[worker], sizeof s->inbox[worker],
                   (event){ .kind = REQUEST_CAME, .worker = worker });
}

static gt_status answer(ps_server *s, const part *p, int worker, uint32_t slot, uint32_t status)
{
    ps_answer *a = malloc(sizeof *a);
    if (!a)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for an answer");
    *a = (ps_answer){ .status = status, .version = p->version };
    gt_status st = send(s, worker, ps_down(slot), a, sizeof *a, 0, (event){ .kind = ANSWER_SENT, .answer = a });
    if (st)
        free(a);
    return st;
}

/* ---- updates ---------------------------------------------------------------------------- */

static void add(float *restrict to, const float *restrict from, uint64_t n)
{
    enum { BLOCK = 16 };
    uint64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < BLOCK; k++)
            to[i + (uint64_t)k] += from[i + (uint64_t)k];
    for (; i < n; i++)
        to[i] += from[i];
}

static void apply(ps_server *s, part *p, const float *gradient, int worker, uint64_t tag)
{
    const net_ps_options *o = &s->ps->options;
    const net_ps_update u = {
        .key = s->ps->key_of[p - s->parts],
        .offset = p->range.offset,
        .count = p->range.count,
        .value = p->value,
        .gradient = gradient,
        .pulled = worker >= 0 && p->pulled ? p->pulled[worker] : NULL,
        .worker = worker,
        .version = p->version,
        .behind = worker >= 0 ? p->version - p->since[worker] : 0,
        .tag = tag
    };
    if (o->apply)
        o->apply(o->context, &u);
    else
        add(p->value, gradient, p->range.count);
    p->version++;
}

/* The first push of a worker. */
static incoming **first_of(part *p, int worker)
{
    for (incoming **m = &p->pushes; *m; m = &(*m)->next)
        if ((*m)->worker == worker)
            return m;
    return NULL;
}

static void take_off(part *p, incoming **at)
{
    incoming *m = *at;
    *at = m->next;
    if (m->extra)
        free(m->data);
    else
        p->buffered[m->worker] = 0;
    free(m);
}

/* One from every worker, summed in their order. */
static int ready_synchronous(ps_server *s, part *p)
{
    for (int w = 0; w < s->workers; w++) {
        incoming **m = first_of(p, w);
        if (!m || !(*m)->arrived)
            return 0;
    }
    return 1;
}

static void update_synchronous(ps_server *s, part *p)
{
    incoming *const first = *first_of(p, 0);
    float *sum = first->data;
    for (int w = 1; w < s->workers; w++)
        add(sum, (*first_of(p, w))->data, p->range.count);
    apply(s, p, sum, -1, first->tag);
    for (int w = 0; w < s->workers; w++)
        take_off(p, first_of(p, w));
}

static int ready_in_turn(ps_server *s, part *p)
{
    const int worker = s->ps->options.turn(s->ps->options.context, p->version);
    incoming **m = first_of(p, worker);
    return m && (*m)->arrived ? worker : -1;
}

/* A worker whose next push may be applied, or -1; in the order of announcement. */
static int ready_stale(ps_server *s, part *p)
{
    if (s->ps->options.turn)
        return ready_in_turn(s, p);
    uint64_t slowest = UINT64_MAX;
    for (int w = 0; w < s->workers; w++)
        if (!s->closed[w] && p->pushed[w] < slowest)
            slowest = p->pushed[w];
    for (incoming *m = p->pushes; m; m = m->next) {
        const int bounded = s->ps->options.staleness >= 0 && slowest != UINT64_MAX && p->pushed[m->worker] > slowest
                            && p->pushed[m->worker] - slowest > (uint64_t)s->ps->options.staleness;
        if (m->arrived && !bounded && *first_of(p, m->worker) == m)
            return m->worker;
    }
    return -1;
}

static gt_status update_stale(ps_server *s, part *p, int worker)
{
    incoming **m = first_of(p, worker);
    const uint32_t slot = (*m)->slot;
    apply(s, p, (*m)->data, worker, (*m)->tag);
    p->pushed[worker]++;
    p->since[worker]++;                 /* its own does not make it stale */
    if (p->after) {
        memcpy(p->after[worker], p->value, p->range.count * sizeof *p->value);
        p->after_version[worker] = p->version;
    }
    take_off(p, m);
    return answer(s, p, worker, slot, PS_DONE);
}

/* own: as it was right after the worker's newest push. */
static gt_status send_value(ps_server *s, part *p, int worker, uint32_t slot, uint32_t status, int own)
{
    const float *value = own ? p->after[worker] : p->value;
    gt_status st = answer(s, p, worker, slot, status);
    p->since[worker] = own ? p->after_version[worker] : p->version;
    if (!st && p->pulled)
        memcpy(p->pulled[worker], value, p->range.count * sizeof *value);
    if (!st)
        st = send(s, worker, ps_down(slot), value, p->range.count * sizeof *p->value,
                  ps_priority(s->ps, (uint32_t)(p - s->parts), 0), (event){ .kind = VALUE_SENT, .part = p });
    if (!st)
        p->readers++;
    return st;
}

static gt_status answer_pulls(ps_server *s, part *p)
{
    gt_status st = GT_OK;
    for (pull **at = &p->pulls; !st && *at;) {
        pull *q = *at;
        const int own = p->after && p->after_version[q->worker] >= q->version;
        if ((p->version < q->version && !own) || (!s->ps->options.synchronous && first_of(p, q->worker))) {
            at = &q->next;
            continue;
        }
        const int late = s->ps->options.synchronous && p->version > q->version;
        st = send_value(s, p, q->worker, q->slot, late ? PS_TOO_LATE : PS_DONE, own);
        *at = q->next;
        free(q);
    }
    return st;
}

/* Does what can be done with a part now. Pulls of the version that is there go first in the
 * synchronous mode, for the next update takes it away; there only a worker's own later push
 * could make one, and that comes after the pull. */
static gt_status settle(ps_server *s, part *p)
{
    const int synchronous = s->ps->options.synchronous;
    gt_status st = synchronous ? answer_pulls(s, p) : GT_OK;
    while (!st) {
        const int worker = synchronous ? (ready_synchronous(s, p) ? 0 : -1) : ready_stale(s, p);
        if (worker < 0)
            return answer_pulls(s, p);
        if (p->readers)
            return GT_OK;               /* again when they are done */
        if (synchronous) {
            update_synchronous(s, p);
            st = answer_pulls(s, p);
        } else {
            st = update_stale(s, p, worker);
        }
    }
    return st;
}

/* ---- requests --------------------------------------------------------------------------- */

/* Where a push goes until it is applied. */
static gt_status place_incoming(ps_server *s, part *p, incoming *m)
{
    void *box;
    if (p->buffered[m->worker]) {
        m->data = malloc(p->range.count * sizeof *m->data);
        m->extra = 1;
        return m->data ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for a push of %llu elements",
                                 (unsigned long long)p->range.count);
    }
    if (!s->box[m->worker]) {
        gt_status st = net_comm_memory(net_group_comm(s->ps->group), s->total * sizeof *m->data, &box);
        if (st)
            return st;
        s->box[m->worker] = box;
    }
    m->data = s->box[m->worker] + p->at;
    p->buffered[m->worker] = 1;
    return GT_OK;
}

static gt_status take_push(ps_server *s, int worker, part *p, uint32_t slot, uint64_t tag)
{
    incoming *m = calloc(1, sizeof *m), **last = &p->pushes;
    if (!m)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory to note a push");
    m->worker = worker;
    m->slot = slot;
    m->tag = tag;
    gt_status st = place_incoming(s, p, m);
    if (st) {
        free(m);
        return st;
    }
    while (*last)
        last = &(*last)->next;
    *last = m;
    return receive(s, worker, ps_up(slot), m->data, p->range.count * sizeof *m->data,
                   (event){ .kind = PUSH_CAME, .worker = worker, .part = p, .incoming = m });
}

static gt_status take_pull(ps_server *s, int worker, part *p, const ps_request *r)
{
    pull *q = malloc(sizeof *q), **last = &p->pulls;
    if (!q)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory to note a pull");
    *q = (pull){ NULL, worker, r->slot, r->version };
    while (*last)
        last = &(*last)->next;
    *last = q;
    return settle(s, p);
}

static gt_status take_close(ps_server *s, int worker)
{
    gt_status st = GT_OK;
    s->closed[worker] = 1;
    s->open--;
    for (uint32_t k = 0; !st && k < s->ps->block_count; k++)   /* nobody waits for it any more */
        if (s->parts[k].range.count)
            st = settle(s, &s->parts[k]);
    return st;
}

static gt_status take_request(ps_server *s, int worker)
{
    const ps_request r = s->inbox[worker];
    if (r.kind == PS_CLOSE)
        return take_close(s, worker);
    if (r.block >= s->ps->block_count || r.slot >= PS_MOST_SLOTS || !s->parts[r.block].range.count
        || (r.kind != PS_PUSH && r.kind != PS_PULL))
        return net_comm_abort(net_group_comm(s->ps->group), net_group_member(s->ps->group, rank_of(s, worker)),
                              "rank %d asked a parameter server for something that makes no sense",
                              net_group_member(s->ps->group, rank_of(s, worker)));
    part *p = &s->parts[r.block];
    gt_status st = r.kind == PS_PUSH ? take_push(s, worker, p, r.slot, r.version) : take_pull(s, worker, p, &r);
    return st ? st : expect_request(s, worker);
}

static gt_status handle(ps_server *s, event e)
{
    gt_status st = GT_OK;
    switch (e.kind) {
    case REQUEST_CAME: return take_request(s, e.worker);
    case PUSH_CAME:
        e.incoming->arrived = 1;
        if (s->ps->options.synchronous)         /* its buffer is free; the sum may take long */
            st = answer(s, e.part, e.worker, e.incoming->slot, PS_DONE);
        return st ? st : settle(s, e.part);
    case ANSWER_SENT: free(e.answer); return GT_OK;
    case VALUE_SENT: e.part->readers--; return settle(s, e.part);
    }
    return GT_OK;
}

/* ---- the thread ------------------------------------------------------------------------- */

static gt_status loop(ps_server *s)
{
    net_comm *c = net_group_comm(s->ps->group);
    gt_status st = GT_OK;
    for (int w = 0; !st && w < s->workers; w++)
        st = expect_request(s, w);
    while (!st && s->count) {
        int which;
        st = net_wait_any(c, s->requests, s->count, 1000000000u, &which);
        if (st || which < 0)
            continue;
        const event e = s->events[which];
        net_request *r = s->requests[which];
        s->count--;
        s->events[which] = s->events[s->count];
        s->requests[which] = s->requests[s->count];
        st = net_wait(r);
        if (st && e.kind == ANSWER_SENT)
            free(e.answer);
        if (!st)
            st = handle(s, e);
    }
    return st;
}

/* All have closed and nothing is under way: what is left will never be complete. */
static gt_status check_left(const ps_server *s)
{
    for (uint32_t k = 0; k < s->ps->block_count; k++)
        if (s->parts[k].pushes) {
            const int w = s->parts[k].pushes->worker;
            return gt_fail(GT_MISUSE,
                           "the parameter server closed before every worker had pushed "
                           "key %u as often as rank %d of the group",
                           (unsigned)s->ps->key_of[k], rank_of(s, w));
        } else if (s->parts[k].pulls) {
            return gt_fail(GT_MISUSE,
                           "the parameter server closed before version %llu of key %u, "
                           "which rank %d of the group wants",
                           (unsigned long long)s->parts[k].pulls->version, (unsigned)s->ps->key_of[k],
                           rank_of(s, s->parts[k].pulls->worker));
        }
    return GT_OK;
}

static void *serve(void *context)
{
    ps_server *s = context;
    net_comm *c = net_group_comm(s->ps->group);
    s->result = loop(s);
    if (s->result) {
        strncpy(s->sentence, gt_message(), sizeof s->sentence - 1);
        if (!net_comm_check(c))         /* workers wait for answers that will not come */
            net_comm_abort(c, net_comm_rank(c), "%s", s->sentence);
        for (int i = 0; i < s->count; i++) {
            net_wait(s->requests[i]);
            if (s->events[i].kind == ANSWER_SENT)
                free(s->events[i].answer);
        }
    } else {
        s->result = check_left(s);
        strncpy(s->sentence, gt_message(), sizeof s->sentence - 1);
    }
    return NULL;
}

/* ---- start and finish ------------------------------------------------------------------- */

static void release(ps_server *s)
{
    net_comm *c = net_group_comm(s->ps->group);
    for (uint32_t k = 0; s->parts && k < s->ps->block_count; k++) {
        part *p = &s->parts[k];
        while (p->pushes && p->buffered)
            take_off(p, &p->pushes);
        for (pull *q = p->pulls, *next; q; q = next) {
            next = q->next;
            free(q);
        }
        for (int w = 0; p->pulled && w < s->workers; w++)
            free(p->pulled[w]);
        for (int w = 0; p->after && w < s->workers; w++)
            free(p->after[w]);
        free(p->after);
        free(p->after_version);
        free(p->since);
        free(p->pulled);
        free(p->pushed);
        free(p->buffered);
    }
    for (int w = 0; s->box && w < s->workers; w++)
        net_comm_memory_free(c, s->box[w]);
    net_comm_memory_free(c, s->values);
    free(s->box);
    free(s->parts);
    free(s->inbox);
    free(s->closed);
    free(s->events);
    free(s->requests);
    free(s);
}

/* What every worker has of a part at first. */
static gt_status copy_value(ps_server *s, const part *p, float ***out)
{
    const size_t bytes = p->range.count * sizeof *p->value;
    float **copy = *out = calloc((size_t)s->workers, sizeof *copy);
    for (int w = 0; copy && w < s->workers; w++) {
        copy[w] = malloc(bytes);
        if (!copy[w])
            return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for worker %d's copy of %zu bytes", w,
                           bytes);
        memcpy(copy[w], p->value, bytes);
    }
    return copy ? GT_OK
                : gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for the copies of %d workers", s->workers);
}

static gt_status make_part(ps_server *s, part *p, const float *initial)
{
    const size_t bytes = p->range.count * sizeof *p->value;
    p->value = s->values + p->at;
    p->pushed = calloc((size_t)s->workers, sizeof *p->pushed);
    p->buffered = calloc((size_t)s->workers, 1);
    p->since = calloc((size_t)s->workers, sizeof *p->since);
    p->after_version = calloc((size_t)s->workers, sizeof *p->after_version);
    if (!p->pushed || !p->buffered || !p->since || !p->after_version)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for the counts of %d workers", s->workers);
    if (initial && bytes)
        memcpy(p->value, initial + p->range.offset, bytes);
    else
        memset(p->value, 0, bytes);
    if (s->ps->options.synchronous || !bytes)
        return GT_OK;
    gt_status st = s->ps->options.keep_pulled ? copy_value(s, p, &p->pulled) : GT_OK;
    return st || !s->ps->options.turn ? st : copy_value(s, p, &p->after);
}

/* Places of all parts, at cache lines, and the arena of their values. */
static gt_status make_parts(ps_server *s, int index, const float *const *initial)
{
    const net_ps *ps = s->ps;
    void *values = NULL;
    for (uint32_t k = 0; k < ps->block_count; k++) {
        s->parts[k].range = *ps_range_of(ps, k, index);
        s->parts[k].at = s->total;
        s->total += (s->parts[k].range.count + 15) / 16 * 16;
    }
    gt_status st = net_comm_memory(net_group_comm(ps->group), (s->total + 16) * sizeof(float), &values);
    s->values = values;
    for (uint32_t k = 0; !st && k < ps->block_count; k++)
        st = make_part(s, &s->parts[k], initial ? initial[ps->key_of[k]] : NULL);
    return st;
}

gt_status ps_server_start(ps_server **out, net_ps *ps, int index, const float *const *initial)
{
    *out = NULL;
    ps_server *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for the server's state");
    s->ps = ps;
    s->workers = s->open = ps->options.worker_count;
    s->parts = calloc(ps->block_count + (size_t)1, sizeof *s->parts);
    s->inbox = calloc((size_t)s->workers, sizeof *s->inbox);
    s->closed = calloc((size_t)s->workers, 1);
    s->box = calloc((size_t)s->workers, sizeof *s->box);
    gt_status st = s->parts && s->inbox && s->closed && s->box
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot serve parameters: no memory for %u parts and %d workers",
                                 ps->block_count, s->workers);
    if (!st)
        st = make_parts(s, index, initial);
    if (!st) {
        const int err = pthread_create(&s->thread, NULL, serve, s);
        if (err)
            st = gt_fail(GT_NO_MEMORY, "cannot start a server's thread: %s", strerror(err));
    }
    if (st) {
        release(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

gt_status ps_server_finish(ps_server *s)
{
    pthread_join(s->thread, NULL);
    gt_status st = s->result;
    if (st)
        gt_fail(st, "%s", s->sentence);
    release(s);
    return st;
}
