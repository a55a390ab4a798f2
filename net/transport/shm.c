/* SPDX-License-Identifier: MIT */
/* net/transport/shm.c - bytes between two ranks of one host, through shared memory.
 *
 *   send, put ──► shm_ring.c ══► peer's inbox ══► shm_ring.c ──► record ─┬─ message, piece of a put
 *                                                                       ├─ pull ──► shm_pull.c
 *                                                                       └─ got, freed
 *
 * The picture of the memory and who may write what is in shm_private.h. A put is small enough to be
 * copied, or lies in an arena, which the receiver maps, or goes through the ring in pieces.  */
#include "net/transport/shm_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HOOK = 0 };

void shm_fail(shm_link *l, const char *cause)
{
    char name[160];
    if (l->broken)
        return;
    l->broken = 1;
    snprintf(l->why, sizeof l->why, "cannot go on with %s through shared memory: %s",
             net_job_name(l->link.transport->job, l->link.peer, name, sizeof name), cause);
}

void shm_report_done(shm_link *l, void *cookie)
{
    if (l->done_count == l->done_room) {
        const size_t more = l->done_room ? 2 * l->done_room : 16;
        void **grown = realloc(l->done, more * sizeof *grown);
        if (!grown) {
            shm_fail(l, "no memory for the list of finished transfers");
            return;
        }
        l->done = grown;
        l->done_room = more;
    }
    l->done[l->done_count++] = cookie;
}

/* ---- sending --------------------------------------------------------------------------- */

static gt_status shm_send(net_link *link, const void *head, size_t head_size, const void *body, size_t body_size)
{
    const shm_record r = { .kind = RECORD_MESSAGE, .payload = head_size + body_size, .head_size = (uint32_t)head_size };
    return shm_ring_write((shm_link *)link, &r, head, head_size, body, body_size);
}

static gt_status shm_put(net_link *link, const void *data, size_t size, uint32_t number,
                         const unsigned char *descriptor, size_t descriptor_size, void *cookie)
{
    shm_link *l = (shm_link *)link;
    shm_transport *t = shm_of(l);
    (void)descriptor;
    (void)descriptor_size;
    shm_record r = { .window = number, .size = size, .cookie = (uint64_t)(uintptr_t)cookie };
    net_memory *m = size > SHM_SMALL_PUT && t->allow_map ? net_memory_find(t->transport.memory, data, size) : NULL;
    if (m && m->fd >= 0) {
        r.kind = RECORD_PULL_MAP;
        r.arena = m->id;
        r.fd = (uint32_t)m->fd;
        r.address = (uint64_t)((const unsigned char *)data - m->data);
        return shm_ring_write(l, &r, NULL, 0, NULL, 0);
    }
    if (size > SHM_SMALL_PUT && l->their_cma) {
        r.kind = RECORD_PULL_CMA;
        r.address = (uint64_t)(uintptr_t)data;
        return shm_ring_write(l, &r, NULL, 0, NULL, 0);
    }
    r.kind = RECORD_PIECE;
    return shm_ring_put(l, &r, data, size, cookie);
}

static gt_status shm_expose(net_link *link, uint32_t number, net_sink sink, unsigned char *descriptor, size_t *size)
{
    (void)descriptor;
    *size = 0;
    return net_windows_expose(&((shm_link *)link)->windows, number, sink);
}

/* ---- what records mean ------------------------------------------------------------------ */

static void take_piece(shm_link *l, const shm_record *r, const unsigned char *payload, int *did)
{
    net_window *w = net_windows_find(&l->windows, r->window);
    if (!w || !r->payload || r->payload > w->sink.size - w->got || (w->sink.reduce && r->payload % w->sink.grain)
        || shm_pull_holds(l, r->window)) {
        shm_fail(l, "it sent data that nobody asked for");
        return;
    }
    net_window_take(w, payload, (size_t)r->payload);
    if (w->got == w->sink.size)
        net_windows_close(&l->windows, w, &l->link, did);
}

void shm_take_record(shm_link *l, const shm_record *r, const unsigned char *payload, int *did)
{
    const net_transport *t = l->link.transport;
    switch (r->kind) {
    case RECORD_MESSAGE:
        if (!r->head_size || r->head_size > NET_MESSAGE || r->head_size > r->payload
            || r->payload - r->head_size > t->eager) {
            shm_fail(l, "it sent a message that makes no sense");
            return;
        }
        (*did)++;
        t->events->message(l->link.up, payload, r->head_size, payload + r->head_size,
                           (size_t)r->payload - r->head_size);
        break;
    case RECORD_PIECE:
        (*did)++;
        take_piece(l, r, payload, did);
        break;
    case RECORD_PULL_MAP:
    case RECORD_PULL_CMA:
        (*did)++;
        shm_pull_begin(l, r, did);
        break;
    case RECORD_GOT: shm_report_done(l, (void *)(uintptr_t)r->cookie); break;
    case RECORD_FREED: shm_pull_forget(l, r->arena); break;
    case RECORD_PAD: break;
    default: shm_fail(l, "it sent a record of an unknown kind");
    }
}

/* ---- progress --------------------------------------------------------------------------- */

static void report(shm_link *l, int *did)
{
    const net_events *events = l->link.transport->events;
    for (size_t i = 0; i < l->done_count; i++) {
        (*did)++;
        events->done(l->link.up, l->done[i]);
    }
    l->done_count = 0;
    if (l->broken && !l->reported) {
        l->reported = 1;
        (*did)++;
        events->failed(l->link.up, gt_fail(GT_PEER, "%s", l->why));
    }
}

static void shm_progress(net_transport *transport, int *did)
{
    shm_transport *t = (shm_transport *)transport;
    for (shm_link *l = t->links; l; l = l->next) {
        if (!l->broken)
            shm_ring_read(l, did);
        if (l->pulls && !l->broken)
            shm_pull_progress(l, did);
        if (l->queue && !l->broken)
            shm_ring_drain(l, did);
        if (l->done_count || l->broken)
            report(l, did);
    }
}

/* ---- sleeping -------------------------------------------------------------------------- */

static int shm_arm(net_transport *transport)
{
    const shm_transport *t = (const shm_transport *)transport;
    for (const shm_link *l = t->links; l; l = l->next) {
        if (!l->started || l->broken)
            continue;
        atomic_store_explicit(&l->inbox->reader_sleeps, 1, memory_order_relaxed);
        if (l->queue)
            atomic_store_explicit(&l->outbox->writer_waits, 1, memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (shm_link *l = t->links; l; l = l->next) {
        if (l->broken ? !l->reported : l->pulls || l->done_count)
            return 1;
        if (l->broken)
            continue;
        if (atomic_load_explicit(&l->inbox->head, memory_order_acquire)
            != atomic_load_explicit(&l->inbox->tail, memory_order_relaxed))
            return 1;
        if (l->queue && (!l->started || atomic_load_explicit(&l->outbox->tail, memory_order_acquire) != l->seen_tail))
            return 1;
    }
    return 0;
}

static void empty_bell(shm_link *l)
{
    char rung[64];
    for (;;) {
        const ssize_t n = recv(l->doorbell, rung, sizeof rung, MSG_DONTWAIT);
        if (n == 0) {
            epoll_ctl(shm_of(l)->epoll, EPOLL_CTL_DEL, l->doorbell, NULL);
            shm_fail(l, "it closed the connection; did it fail?");
        }
        if (n != sizeof rung)
            return;
    }
}

static void shm_disarm(net_transport *transport)
{
    shm_transport *t = (shm_transport *)transport;
    struct epoll_event events[16];
    for (shm_link *l = t->links; l; l = l->next)
        if (l->started && !l->broken)
            atomic_store_explicit(&l->inbox->reader_sleeps, 0, memory_order_relaxed);
    const int n = epoll_wait(t->epoll, events, 16, 0);
    for (int i = 0; i < n; i++)
        empty_bell(events[i].data.ptr);
}

/* ---- opening and closing --------------------------------------------------------------- */

static void shm_close(net_transport *transport)
{
    shm_transport *t = (shm_transport *)transport;
    net_memory_unhook(t->transport.memory, HOOK);
    if (t->epoll >= 0)
        close(t->epoll);
    free(t->tile);
    free(t);
}

static gt_status add_memory(void *context, net_memory *m, void **slot)
{
    (void)m;
    *slot = context;                /* only so that drop_memory is called */
    return GT_OK;
}

static void drop_memory(void *context, net_memory *m, void *slot)
{
    const shm_transport *t = context;
    const shm_record gone = { .kind = RECORD_FREED, .arena = m->id };
    (void)slot;
    for (shm_link *l = t->links; l; l = l->next)
        if (l->started && !l->broken && shm_ring_write(l, &gone, NULL, 0, NULL, 0))
            shm_fail(l, "no memory for the word that an arena is freed");
}

static gt_status shm_open_(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                           int poll_fd)
{
    *out = NULL;
    shm_transport *t = calloc(1, sizeof *t);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for the shared-memory transport");
    const net_config *config = net_job_config(job);
    t->transport = (net_transport){ &net_shm,           job, config, memory, events, poll_fd, (size_t)config->eager,
                                    .ahead = SHM_BUDGET };
    t->allow_map = strcmp(config->shm_mode, "cma") && strcmp(config->shm_mode, "copy");
    t->allow_cma = !strcmp(config->shm_mode, "cma");
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    t->tile = aligned_alloc(SHM_ALIGN, SHM_TILE);
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = 0 };
    gt_status st = GT_OK;
    if (!t->tile)
        st = gt_fail(GT_NO_MEMORY, "no memory for the buffer that shared-memory sums go through");
    else if (t->epoll < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, t->epoll, &e) < 0)
        st = gt_fail(GT_IO, "cannot watch sockets: %s", strerror(errno));
    if (!st)
        st = net_memory_hook(memory, HOOK, add_memory, drop_memory, t);
    if (st) {
        shm_close(&t->transport);
        return st;
    }
    if (t->allow_cma)               /* where Yama lets only ancestors look into a process */
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    *out = &t->transport;
    return GT_OK;
}

/* ---- for people ------------------------------------------------------------------------ */

static void shm_describe(net_link *link, char *out, size_t size)
{
    const shm_link *l = (const shm_link *)link;
    snprintf(out, size, "shm, arenas %s, other memory %s", shm_of(l)->allow_map ? "mapped" : "copied",
             l->their_cma ? "read by the kernel" : "copied");
}

static int shm_counter(net_transport *transport, int index, const char **name, uint64_t *value)
{
    const shm_transport *t = (const shm_transport *)transport;
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "bytes copied into rings", t->copied },
                { "bytes read from arenas", t->mapped },
                { "bytes lent in arenas", t->lent },
                { "bytes read from processes", t->vm_read },
                { "peers woken", t->doorbells } };
    if (index < 0 || (size_t)index >= sizeof all / sizeof *all)
        return 0;
    *name = all[index].name;
    *value = all[index].value;
    return 1;
}

const net_transport_ops net_shm = {
    .name = "shm",
    .open = shm_open_,
    .close = shm_close,
    .offer = shm_offer,
    .connect = shm_connect,
    .disconnect = shm_disconnect,
    .send = shm_send,
    .expose = shm_expose,
    .put = shm_put,
    .give_back = shm_give_back,
    .progress = shm_progress,
    .arm = shm_arm,
    .disarm = shm_disarm,
    .start = shm_start,
    .describe = shm_describe,
    .counter = shm_counter
};
