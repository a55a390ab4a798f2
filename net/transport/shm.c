/* net/transport/shm.c - bytes between two ranks of one host, through shared memory.
 *
 *        sender's process                         receiver's process
 *        ┌────────────┐   records   ┌──────── inbox: a memfd of the receiver ────────┐
 *        │            │ ──────────► │ head | tail | sleeping | ring of records        │
 *        └────────────┘             └─────────────────────────────────────────────────┘
 *        ┌──────────────── arena ───────────────┐
 *        │ data of a put                        │ ◄── pulled from where they are:
 *        └──────────────────────────────────────┘     map   the arena is mapped here as well
 *                                                     copy  other memory: in pieces through the ring
 *                                                     cma   by process_vm_readv, if asked for: its
 *                                                           pinning of pages costs more than a copy
 *
 * Small messages, and small puts, are copied into the peer's ring and out again. A large put is
 * pulled by the receiver: one copy, and none at all when the sink adds, which reads the
 * peer's arena while it sums. Descriptors of memory travel as numbers and are opened through
 * /proc/PID/fd, which asks the kernel for the same rights as a debugger's: the same user.
 *
 * A ring has one writer and one reader. A reader that is going to sleep says so in the ring,
 * and the next writer wakes it through the pair's stream; the flag and the ring are written and
 * read on both sides with a full fence between, or both could miss each other.             */
#include "net/transport/transport.h"

#include "host/base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    RECORD_PAD = 1,             /* nothing up to the end of the ring                        */
    RECORD_MESSAGE,             /* head and body                                            */
    RECORD_PIECE,               /* bytes of a put                                           */
    RECORD_PULL_MAP,            /* a put lies in an arena: come and get it                  */
    RECORD_PULL_CMA,            /* ... at an address                                        */
    RECORD_GOT,                 /* pulled: the sender may use its data again                */
    RECORD_FREED,               /* an arena is gone                                         */
    ALIGN = 64, BUDGET = 1 << 20, TILE = 128 * 1024, SMALL_PUT = 16 * 1024, HEADER = 4096
};

typedef struct record {         /* 64 bytes, then the payload, then padding to ALIGN        */
    uint32_t kind, window;
    uint64_t payload;           /* bytes that follow in the ring                            */
    uint64_t size, address;     /* of what is to be pulled; offset in the arena, or address */
    uint64_t cookie;
    uint32_t arena, fd, head_size, reserved[3];
} record;
_Static_assert(sizeof(record) == ALIGN, "a record's head fills one line");

/* The first page of an inbox. Positions count bytes since the beginning, never wrap. */
typedef struct ring {
    _Alignas(ALIGN) _Atomic uint64_t head;      /* written by the peer                      */
    _Alignas(ALIGN) _Atomic uint64_t tail;      /* written by the owner                     */
    _Alignas(ALIGN) _Atomic uint32_t reader_sleeps;
    _Alignas(ALIGN) _Atomic uint32_t writer_waits;
    _Alignas(ALIGN) uint64_t size, nonce;
} ring;

typedef struct piece {          /* of what could not be written at once                     */
    struct piece *next;
    record r;
    const unsigned char *data;  /* the put's, or `copy`                                     */
    size_t left;                /* of a put that goes through the ring                      */
    void *cookie;
    unsigned char copy[];
} piece;

typedef struct pull {
    struct pull *next;
    uint32_t window, kind;
    uint64_t at, left, cookie;
    const unsigned char *mapped;
} pull;

typedef struct mapping { uint32_t arena; unsigned char *data; size_t size; } mapping;
typedef struct window { uint32_t number; net_sink sink; size_t got; } window;

typedef struct shm_link {
    net_link link;
    struct shm_link *next;
    int connected, started, bell, reported, broken;
    char why[256];
    uint32_t pid;
    int their_cma;              /* the peer can read this process                           */
    int my_cma;
    /* in */
    int inbox_fd;
    ring *inbox;
    unsigned char *inbox_data;
    uint64_t size, nonce;
    window *open;
    size_t open_count, open_room;
    pull *pulls, **last_pull;
    mapping *mappings;
    size_t mapping_count;
    /* out */
    ring *outbox;
    unsigned char *outbox_data;
    uint64_t outbox_size, head, seen_tail;
    piece *queue, **last_piece;
    void **done;                /* cookies to report                                        */
    size_t done_count, done_room;
} shm_link;

typedef struct shm {
    net_transport transport;
    shm_link *links;
    int epoll, allow_map, allow_cma;
    unsigned char *tile;
    uint64_t copied, mapped, vm_read, bells;
} shm;

enum { HOOK = 0 };

static shm *shm_of(const shm_link *l)
{
    return (shm *)l->link.transport;
}

static void fail(shm_link *l, const char *cause)
{
    char name[160];
    if (l->broken)
        return;
    l->broken = 1;
    snprintf(l->why, sizeof l->why, "cannot go on with %s through shared memory: %s",
             net_job_name(l->link.transport->job, l->link.peer, name, sizeof name), cause);
}

/* ---- writing to the peer's ring -------------------------------------------------------- */

static size_t rounded(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static void ring_bell(shm_link *l)
{
    const char one = 1;
    if (l->bell >= 0 && send(l->bell, &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        shm_of(l)->bells++;
}

/* Room for a record with `payload` bytes in one stretch, or NULL. Writes the padding if the
 * stretch begins at the start of the ring. */
static unsigned char *room(shm_link *l, size_t payload)
{
    const size_t need = ALIGN + rounded(payload);
    const uint64_t offset = l->head & (l->outbox_size - 1), to_end = l->outbox_size - offset;
    const size_t pad = to_end < need ? (size_t)to_end : 0;
    if (l->head + pad + need - l->seen_tail > l->outbox_size) {
        l->seen_tail = atomic_load_explicit(&l->outbox->tail, memory_order_acquire);
        if (l->seen_tail > l->head || l->head - l->seen_tail > l->outbox_size) {
            fail(l, "its ring is damaged");
            return NULL;
        }
        if (l->head + pad + need - l->seen_tail > l->outbox_size)
            return NULL;
    }
    if (pad) {
        const record r = { .kind = RECORD_PAD };
        memcpy(l->outbox_data + offset, &r, sizeof r);
        l->head += pad;
    }
    return l->outbox_data + (l->head & (l->outbox_size - 1));
}

/* Makes what was written visible, and wakes a reader that sleeps. */
static void publish(shm_link *l)
{
    atomic_store_explicit(&l->outbox->head, l->head, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->outbox->reader_sleeps, memory_order_relaxed)
        && atomic_exchange(&l->outbox->reader_sleeps, 0))
        ring_bell(l);
}

/* One record in whole: 1 if there was room. */
static int write_record(shm_link *l, const record *r, const void *a, size_t a_size, const void *b,
                        size_t b_size)
{
    unsigned char *at = room(l, a_size + b_size);
    if (!at)
        return 0;
    memcpy(at, r, sizeof *r);
    if (a_size)
        memcpy(at + ALIGN, a, a_size);
    if (b_size)
        memcpy(at + ALIGN + a_size, b, b_size);
    l->head += ALIGN + rounded(a_size + b_size);
    publish(l);
    return 1;
}

static gt_status enqueue(shm_link *l, const record *r, const void *a, size_t a_size, const void *b,
                         size_t b_size, const void *data, size_t left, void *cookie)
{
    piece *p = malloc(sizeof *p + a_size + b_size);
    if (!p)
        return gt_fail(GT_NO_MEMORY, "out of memory");
    *p = (piece){ .r = *r, .data = left ? data : p->copy, .left = left, .cookie = cookie };
    if (a_size)
        memcpy(p->copy, a, a_size);
    if (b_size)
        memcpy(p->copy + a_size, b, b_size);
    *l->last_piece = p;
    l->last_piece = &p->next;
    return GT_OK;
}

static gt_status write_or_keep(shm_link *l, const record *r, const void *a, size_t a_size,
                               const void *b, size_t b_size)
{
    if (!l->queue && write_record(l, r, a, a_size, b, b_size))
        return GT_OK;
    return enqueue(l, r, a, a_size, b, b_size, NULL, 0, NULL);
}

static void report_done(shm_link *l, void *cookie)
{
    if (l->done_count == l->done_room) {
        const size_t more = l->done_room ? 2 * l->done_room : 16;
        void **grown = realloc(l->done, more * sizeof *grown);
        if (!grown) {
            fail(l, "out of memory");
            return;
        }
        l->done = grown;
        l->done_room = more;
    }
    l->done[l->done_count++] = cookie;
}

/* Pieces of a put into the ring, a quarter of it each, so that the reader copies out while we
 * copy in. 1: all of it is in. */
static int write_pieces(shm_link *l, piece *p, size_t *budget)
{
    const size_t most = (size_t)l->outbox_size / 4 - ALIGN;
    while (p->left && *budget) {
        const size_t n = p->left < most ? p->left : most;
        record r = p->r;
        r.payload = n;
        if (!write_record(l, &r, p->data, n, NULL, 0))
            return 0;
        shm_of(l)->copied += n;
        p->data += n;
        p->left -= n;
        *budget -= n < *budget ? n : *budget;
    }
    return p->left == 0;
}

static void drain_queue(shm_link *l, int *did)
{
    size_t budget = BUDGET;
    while (l->queue && !l->broken) {
        piece *p = l->queue;
        const size_t before = p->left;
        if (p->left ? !write_pieces(l, p, &budget)
                    : !write_record(l, &p->r, p->data, (size_t)p->r.payload, NULL, 0)) {
            *did += p->left != before;
            return;
        }
        (*did)++;
        l->queue = p->next;
        if (!l->queue)
            l->last_piece = &l->queue;
        if (p->cookie)
            report_done(l, p->cookie);
        free(p);
    }
}

/* ---- sending --------------------------------------------------------------------------- */

static gt_status shm_send(net_link *link, const void *head, size_t head_size, const void *body,
                          size_t body_size)
{
    const record r = { .kind = RECORD_MESSAGE, .payload = head_size + body_size,
                       .head_size = (uint32_t)head_size };
    return write_or_keep((shm_link *)link, &r, head, head_size, body, body_size);
}

static gt_status shm_put(net_link *link, const void *data, size_t size, uint32_t number,
                         const unsigned char *descriptor, size_t descriptor_size, void *cookie)
{
    shm_link *l = (shm_link *)link;
    shm *t = shm_of(l);
    (void)descriptor;
    (void)descriptor_size;
    record r = { .window = number, .size = size, .cookie = (uint64_t)(uintptr_t)cookie };
    net_memory *m = size > SMALL_PUT && t->allow_map
                        ? net_memory_find(t->transport.memory, data, size) : NULL;
    if (m && m->fd >= 0) {
        r.kind = RECORD_PULL_MAP;
        r.arena = m->id;
        r.fd = (uint32_t)m->fd;
        r.address = (uint64_t)((const unsigned char *)data - m->data);
        return write_or_keep(l, &r, NULL, 0, NULL, 0);
    }
    if (size > SMALL_PUT && l->their_cma) {
        r.kind = RECORD_PULL_CMA;
        r.address = (uint64_t)(uintptr_t)data;
        return write_or_keep(l, &r, NULL, 0, NULL, 0);
    }
    r.kind = RECORD_PIECE;
    return enqueue(l, &r, NULL, 0, NULL, 0, data, size, cookie);
}

/* ---- windows --------------------------------------------------------------------------- */

static gt_status shm_expose(net_link *link, uint32_t number, net_sink sink,
                            unsigned char *descriptor, size_t *size)
{
    shm_link *l = (shm_link *)link;
    (void)descriptor;
    *size = 0;
    if (l->open_count == l->open_room) {
        const size_t more = l->open_room ? 2 * l->open_room : 16;
        window *grown = realloc(l->open, more * sizeof *grown);
        if (!grown)
            return gt_fail(GT_NO_MEMORY, "out of memory");
        l->open = grown;
        l->open_room = more;
    }
    l->open[l->open_count++] = (window){ number, sink, 0 };
    return GT_OK;
}

static window *find(shm_link *l, uint32_t number)
{
    for (size_t i = 0; i < l->open_count; i++)
        if (l->open[i].number == number)
            return &l->open[i];
    return NULL;
}

static void close_window(shm_link *l, window *w, int *did)
{
    const uint32_t number = w->number;
    *w = l->open[--l->open_count];
    (*did)++;
    l->link.transport->events->placed(l->link.up, number);
}

static void sink_bytes(window *w, const unsigned char *from, size_t n)
{
    unsigned char *to = (unsigned char *)w->sink.data + w->got;
    if (w->sink.reduce)
        w->sink.reduce(to, from, n);
    else
        memcpy(to, from, n);
    w->got += n;
}

/* ---- pulling --------------------------------------------------------------------------- */

static int open_theirs(uint32_t pid, uint32_t fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", (unsigned)pid, (unsigned)fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* Maps a peer's memfd, once it is sure that it cannot shrink under us. */
static unsigned char *map_theirs(uint32_t pid, uint32_t number, size_t *size)
{
    struct stat info;
    void *p = MAP_FAILED;
    const int fd = open_theirs(pid, number);
    if (fd < 0)
        return NULL;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &info) == 0 && info.st_size > 0 && seals >= 0 && (seals & F_SEAL_SHRINK)) {
        *size = (size_t)info.st_size;
        p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static const mapping *arena_of(shm_link *l, uint32_t id, uint32_t fd)
{
    for (size_t i = 0; i < l->mapping_count; i++)
        if (l->mappings[i].arena == id)
            return &l->mappings[i];
    mapping *grown = realloc(l->mappings, (l->mapping_count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    l->mappings = grown;
    mapping m = { .arena = id };
    m.data = map_theirs(l->pid, fd, &m.size);
    if (!m.data)
        return NULL;
    l->mappings[l->mapping_count++] = m;
    return &l->mappings[l->mapping_count - 1];
}

static void forget_arena(shm_link *l, uint32_t id)
{
    for (size_t i = 0; i < l->mapping_count; i++)
        if (l->mappings[i].arena == id) {
            munmap(l->mappings[i].data, l->mappings[i].size);
            l->mappings[i] = l->mappings[--l->mapping_count];
            return;
        }
}

static void begin_pull(shm_link *l, const record *r)
{
    const window *w = find(l, r->window);
    if (!w || w->got || r->size != w->sink.size) {
        fail(l, "it sent data that nobody asked for");
        return;
    }
    pull *p = malloc(sizeof *p);
    if (!p) {
        fail(l, "out of memory");
        return;
    }
    *p = (pull){ .window = r->window, .kind = r->kind, .at = r->address, .left = r->size,
                 .cookie = r->cookie };
    if (r->kind == RECORD_PULL_MAP) {
        const mapping *m = arena_of(l, r->arena, r->fd);
        if (!m || r->address > m->size || r->size > m->size - r->address) {
            fail(l, "its arena cannot be mapped");
            free(p);
            return;
        }
        p->mapped = m->data + r->address;
    }
    *l->last_pull = p;
    l->last_pull = &p->next;
}

/* The next n bytes of a pull that reads the other process. */
static int read_process(shm_link *l, pull *p, window *w, size_t n)
{
    shm *t = shm_of(l);
    unsigned char *to = w->sink.reduce ? t->tile : (unsigned char *)w->sink.data + w->got;
    for (size_t have = 0; have < n;) {
        const struct iovec mine = { to + have, n - have };
        const struct iovec theirs = { (void *)(uintptr_t)(p->at + have), n - have };
        const ssize_t got = process_vm_readv((pid_t)l->pid, &mine, 1, &theirs, 1, 0);
        if (got <= 0) {
            fail(l, got ? strerror(errno) : "its memory is gone");
            return 0;
        }
        have += (size_t)got;
    }
    t->vm_read += n;
    if (w->sink.reduce)
        sink_bytes(w, t->tile, n);
    else
        w->got += n;
    return 1;
}

static void go_on_pulling(shm_link *l, int *did)
{
    shm *t = shm_of(l);
    for (size_t budget = BUDGET; l->pulls && !l->broken && budget;) {
        pull *p = l->pulls;
        window *w = find(l, p->window);
        const size_t most = p->kind == RECORD_PULL_CMA && w->sink.reduce ? TILE : BUDGET;
        size_t n = p->left < most ? (size_t)p->left : most;
        if (p->kind == RECORD_PULL_MAP) {
            sink_bytes(w, p->mapped, n);
            p->mapped += n;
            t->mapped += n;
        } else if (!read_process(l, p, w, n)) {
            return;
        }
        p->at += n;
        p->left -= n;
        budget -= n < budget ? n : budget;
        (*did)++;
        if (p->left)
            continue;
        const record got = { .kind = RECORD_GOT, .cookie = p->cookie };
        if (write_or_keep(l, &got, NULL, 0, NULL, 0))
            fail(l, "out of memory");
        l->pulls = p->next;
        if (!l->pulls)
            l->last_pull = &l->pulls;
        free(p);
        close_window(l, w, did);
    }
}

/* ---- reading the inbox ----------------------------------------------------------------- */

static void take_piece(shm_link *l, const record *r, const unsigned char *payload, int *did)
{
    window *w = find(l, r->window);
    if (!w || !r->payload || r->payload > w->sink.size - w->got
        || (w->sink.reduce && r->payload % w->sink.grain)) {
        fail(l, "it sent data that nobody asked for");
        return;
    }
    sink_bytes(w, payload, (size_t)r->payload);
    if (w->got == w->sink.size)
        close_window(l, w, did);
}

static void take_record(shm_link *l, const record *r, const unsigned char *payload, int *did)
{
    const net_transport *t = l->link.transport;
    switch (r->kind) {
    case RECORD_MESSAGE:
        if (!r->head_size || r->head_size > NET_MESSAGE || r->head_size > r->payload
            || r->payload - r->head_size > t->config->eager) {
            fail(l, "it sent a message that makes no sense");
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
        begin_pull(l, r);
        break;
    case RECORD_GOT:
        report_done(l, (void *)(uintptr_t)r->cookie);
        break;
    case RECORD_FREED:
        forget_arena(l, r->arena);
        break;
    case RECORD_PAD:
        break;
    default:
        fail(l, "it sent a record of an unknown kind");
    }
}

/* Gives room back, and wakes a writer that waits for it. */
static void give_back(shm_link *l, uint64_t tail)
{
    atomic_store_explicit(&l->inbox->tail, tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->inbox->writer_waits, memory_order_relaxed)
        && atomic_exchange(&l->inbox->writer_waits, 0))
        ring_bell(l);
}

static void read_inbox(shm_link *l, int *did)
{
    uint64_t tail = atomic_load_explicit(&l->inbox->tail, memory_order_relaxed);
    const uint64_t head = atomic_load_explicit(&l->inbox->head, memory_order_acquire);
    if (head == tail)
        return;
    if (head < tail || head - tail > l->size) {
        fail(l, "the ring is damaged");
        return;
    }
    for (size_t budget = BUDGET; tail != head && !l->broken && budget;) {
        const uint64_t offset = tail & (l->size - 1), to_end = l->size - offset;
        record r;
        memcpy(&r, l->inbox_data + offset, sizeof r);
        uint64_t step = ALIGN + rounded((size_t)r.payload);
        if (r.kind == RECORD_PAD)
            step = to_end;
        else if (r.payload > to_end || step > to_end || step > head - tail) {
            fail(l, "the ring is damaged");
            return;
        }
        take_record(l, &r, l->inbox_data + offset + ALIGN, did);
        tail += step;
        budget -= step < budget ? (size_t)step : budget;
        if (r.payload > SMALL_PUT)
            give_back(l, tail);
    }
    give_back(l, tail);
}

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
    shm *t = (shm *)transport;
    for (shm_link *l = t->links; l; l = l->next) {
        if (!l->broken)
            read_inbox(l, did);
        if (l->pulls && !l->broken)
            go_on_pulling(l, did);
        if (l->queue && !l->broken)
            drain_queue(l, did);
        if (l->done_count || l->broken)
            report(l, did);
    }
}

/* ---- sleeping -------------------------------------------------------------------------- */

static int shm_arm(net_transport *transport)
{
    const shm *t = (const shm *)transport;
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
        if (l->queue && (!l->started || atomic_load_explicit(&l->outbox->tail, memory_order_acquire)
                                            != l->seen_tail))
            return 1;
    }
    return 0;
}

static void empty_bell(shm_link *l)
{
    char rung[64];
    for (;;) {
        const ssize_t n = recv(l->bell, rung, sizeof rung, MSG_DONTWAIT);
        if (n == 0) {
            epoll_ctl(shm_of(l)->epoll, EPOLL_CTL_DEL, l->bell, NULL);
            fail(l, "it closed the connection; did it fail?");
        }
        if (n != sizeof rung)
            return;
    }
}

static void shm_disarm(net_transport *transport)
{
    shm *t = (shm *)transport;
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
    shm *t = (shm *)transport;
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
    const shm *t = context;
    const record gone = { .kind = RECORD_FREED, .arena = m->id };
    (void)slot;
    for (shm_link *l = t->links; l; l = l->next)
        if (l->started && !l->broken && write_or_keep(l, &gone, NULL, 0, NULL, 0))
            fail(l, "out of memory");
}

static gt_status shm_open_(net_transport **out, net_job *job, net_memory_set *memory,
                           const net_events *events, int poll_fd)
{
    *out = NULL;
    shm *t = calloc(1, sizeof *t);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "out of memory");
    const net_config *config = net_job_config(job);
    t->transport = (net_transport){ &net_shm, job, config, memory, events, poll_fd };
    t->allow_map = strcmp(config->shm_mode, "cma") && strcmp(config->shm_mode, "copy");
    t->allow_cma = !strcmp(config->shm_mode, "cma");
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    t->tile = aligned_alloc(ALIGN, TILE);
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = 0 };
    gt_status st = GT_OK;
    if (!t->tile)
        st = gt_fail(GT_NO_MEMORY, "out of memory");
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

/* ---- making a link --------------------------------------------------------------------- */

typedef struct offer {
    uint64_t host_id, size, nonce;
    uint64_t address, magic;        /* where a known number lies, to try process_vm_readv    */
    uint32_t pid, inbox_fd;
} offer;

static void shm_disconnect(net_link *link)
{
    shm_link *l = (shm_link *)link;
    if (!l)
        return;
    shm *t = shm_of(l);
    for (shm_link **p = &t->links; *p; p = &(*p)->next)
        if (*p == l) {
            *p = l->next;
            break;
        }
    if (l->inbox)
        munmap(l->inbox, HEADER + (size_t)l->size);
    if (l->inbox_fd >= 0)
        close(l->inbox_fd);
    if (l->outbox)
        munmap(l->outbox, HEADER + (size_t)l->outbox_size);
    if (l->bell >= 0)
        close(l->bell);
    for (piece *p = l->queue, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    for (pull *p = l->pulls, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    for (size_t i = 0; i < l->mapping_count; i++)
        munmap(l->mappings[i].data, l->mappings[i].size);
    free(l->mappings);
    free(l->open);
    free(l->done);
    free(l);
}

static gt_status make_inbox(shm_link *l)
{
    const net_config *config = l->link.transport->config;
    l->size = 64 * 1024;
    while (l->size < config->shm_ring || l->size < 8 * (config->eager + NET_MESSAGE + ALIGN))
        l->size *= 2;
    const size_t whole = HEADER + (size_t)l->size;
    l->inbox_fd = memfd_create("geartrain-inbox", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (l->inbox_fd < 0 || posix_fallocate(l->inbox_fd, 0, (off_t)whole))
        return gt_fail(GT_UNSUPPORTED, "no memory for an inbox of %zu bytes", whole);
    fcntl(l->inbox_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    void *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, l->inbox_fd, 0);
    if (p == MAP_FAILED)
        return gt_fail(GT_UNSUPPORTED, "cannot map an inbox: %s", strerror(errno));
    l->inbox = p;
    l->inbox_data = (unsigned char *)p + HEADER;
    if (getrandom(&l->nonce, sizeof l->nonce, 0) != (ssize_t)sizeof l->nonce)
        return gt_fail(GT_IO, "no random numbers: %s", strerror(errno));
    l->inbox->size = l->size;
    l->inbox->nonce = l->nonce;
    return GT_OK;
}

static gt_status shm_offer(net_transport *t, int peer, int leads, void *up, net_link **link,
                           unsigned char *bytes, size_t *size)
{
    (void)leads;
    *link = NULL;
    const net_member *me = net_job_member(t->job, net_job_rank(t->job));
    if (net_job_member(t->job, peer)->host_id != me->host_id)
        return gt_fail(GT_UNSUPPORTED, "not on the same host");
    shm_link *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "out of memory");
    l->link = (net_link){ t, up, peer };
    l->inbox_fd = l->bell = -1;
    l->last_pull = &l->pulls;
    l->last_piece = &l->queue;
    gt_status st = make_inbox(l);
    if (st) {
        shm_disconnect(&l->link);
        return st;
    }
    const offer o = { me->host_id, l->size, l->nonce, (uint64_t)(uintptr_t)&l->nonce, l->nonce,
                      (uint32_t)getpid(), (uint32_t)l->inbox_fd };
    memcpy(bytes, &o, sizeof o);
    *size = sizeof o;
    *link = &l->link;
    return GT_OK;
}

static gt_status map_outbox(shm_link *l, const offer *o)
{
    size_t size = 0;
    ring *r = (ring *)(void *)map_theirs(o->pid, o->inbox_fd, &size);
    if (!r)
        return gt_fail(GT_UNSUPPORTED, "cannot open memory of process %u (%s); another container "
                       "or another user?", (unsigned)o->pid, strerror(errno));
    if (size != HEADER + o->size || o->size & (o->size - 1) || o->size < 64 * 1024
        || r->size != o->size || r->nonce != o->nonce) {
        munmap(r, size);
        return gt_fail(GT_UNSUPPORTED, "process %u is another one in this container",
                       (unsigned)o->pid);
    }
    l->outbox = r;
    l->outbox_data = (unsigned char *)r + HEADER;
    l->outbox_size = o->size;
    l->pid = o->pid;
    return GT_OK;
}

static int can_read_process(const offer *o)
{
    uint64_t seen = 0;
    const struct iovec mine = { &seen, sizeof seen };
    const struct iovec theirs = { (void *)(uintptr_t)o->address, sizeof seen };
    return process_vm_readv((pid_t)o->pid, &mine, 1, &theirs, 1, 0) == (ssize_t)sizeof seen
           && seen == o->magic;
}

/* First round: the peer's inbox. Second: may the peer read our memory? */
static gt_status shm_connect(net_link *link, const unsigned char *theirs, size_t theirs_size,
                             unsigned char *bytes, size_t *size, int *again, int *stream)
{
    shm_link *l = (shm_link *)link;
    shm *t = shm_of(l);
    (void)stream;
    if (l->outbox) {
        l->their_cma = theirs_size == 1 && theirs[0] == 1;
        l->next = t->links;
        t->links = l;
        return GT_OK;
    }
    offer o;
    if (theirs_size != sizeof o)
        return gt_fail(GT_UNSUPPORTED, "its offer makes no sense");
    memcpy(&o, theirs, sizeof o);
    gt_status st = map_outbox(l, &o);
    if (st)
        return st;
    l->my_cma = t->allow_cma && can_read_process(&o);
    bytes[0] = (unsigned char)l->my_cma;
    *size = 1;
    *again = 1;
    return GT_OK;
}

static void shm_start(net_link *link, int *stream)
{
    shm_link *l = (shm_link *)link;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = l };
    l->bell = *stream;
    *stream = -1;
    l->started = 1;
    if (epoll_ctl(shm_of(l)->epoll, EPOLL_CTL_ADD, l->bell, &e) < 0)
        fail(l, strerror(errno));
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
    const shm *t = (const shm *)transport;
    const struct { const char *name; uint64_t value; } all[] = {
        { "bytes copied into rings", t->copied }, { "bytes read from arenas", t->mapped },
        { "bytes read from processes", t->vm_read }, { "peers woken", t->bells } };
    if (index < 0 || (size_t)index >= sizeof all / sizeof *all)
        return 0;
    *name = all[index].name;
    *value = all[index].value;
    return 1;
}

const net_transport_ops net_shm = {
    .name = "shm", .open = shm_open_, .close = shm_close, .offer = shm_offer,
    .connect = shm_connect, .disconnect = shm_disconnect, .send = shm_send, .expose = shm_expose,
    .put = shm_put, .progress = shm_progress, .arm = shm_arm, .disarm = shm_disarm,
    .start = shm_start, .describe = shm_describe, .counter = shm_counter };
