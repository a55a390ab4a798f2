/* SPDX-License-Identifier: MIT */
/* net/transport/shm_private.h - what the files of shared memory share.
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
 * peer's arena while it sums, or when it takes a loan: the arena stays mapped as long as somebody reads it. Descriptors
 * of memory travel as numbers and are opened through /proc/PID/fd, which asks the kernel for the same rights as a
 * debugger's: the same user.
 *
 *   shm.c        the transport: what records mean, progress, sleep, opening
 *   shm_ring.c   records into the peer's ring and out of one's own
 *   shm_pull.c   large puts, fetched from where they are
 *   shm_link.c   an offer, the peer's inbox, the end of a link                              */
#ifndef NET_TRANSPORT_SHM_PRIVATE_H
#define NET_TRANSPORT_SHM_PRIVATE_H

#include "net/transport/transport.h"
#include "net/transport/windows.h"

#include <stdatomic.h>

enum {
    RECORD_PAD = 1,             /* nothing up to the end of the ring                        */
    RECORD_MESSAGE,             /* head and body                                            */
    RECORD_PIECE,               /* bytes of a put                                           */
    RECORD_PULL_MAP,            /* a put lies in an arena: come and get it                  */
    RECORD_PULL_CMA,            /* ... at an address                                        */
    RECORD_GOT,                 /* pulled: the sender may use its data again                */
    RECORD_FREED                /* an arena is gone                                         */
};

enum {
    SHM_ALIGN = 64,             /* records begin at multiples                               */
    SHM_HEADER = 4096,          /* bytes before the ring itself                             */
    SHM_SMALL_PUT = 16 * 1024,  /* up to this a put is copied through the ring              */
    SHM_TILE = 128 * 1024,      /* of another process's memory, read to be added            */
    SHM_BUDGET = 1 << 20        /* bytes a link and call of progress                        */
};

typedef struct shm_record {     /* 64 bytes, then the payload, then padding          */
    uint32_t kind, window;
    uint64_t payload;           /* bytes that follow in the ring                            */
    uint64_t size, address;     /* of what is to be pulled; offset in the arena, or address */
    uint64_t cookie;
    uint32_t arena, fd, head_size, reserved[3];
} shm_record;
_Static_assert(sizeof(shm_record) == SHM_ALIGN, "a record's head fills one line");

/* The first page of an inbox. Positions count bytes since the beginning, never wrap. */
typedef struct shm_ring {
    _Alignas(SHM_ALIGN) _Atomic uint64_t head;      /* written by the peer                      */
    _Alignas(SHM_ALIGN) _Atomic uint64_t tail;      /* written by the owner                     */
    _Alignas(SHM_ALIGN) _Atomic uint32_t reader_sleeps;
    _Alignas(SHM_ALIGN) _Atomic uint32_t writer_waits;
    _Alignas(SHM_ALIGN) uint64_t size, nonce;
} shm_ring;

typedef struct shm_piece {      /* of what could not be written at once                     */
    struct shm_piece *next;
    shm_record r;
    const unsigned char *data;  /* the put's, or `copy`                                     */
    size_t left;                /* of a put that goes through the ring                      */
    void *cookie;
    unsigned char copy[];
} shm_piece;

typedef struct shm_pull {       /* of a put that lies in the peer's memory                 */
    struct shm_pull *next;
    uint32_t window, kind;
    uint64_t at, left, cookie;
    const unsigned char *mapped;
} shm_pull;

typedef struct shm_mapping {
    uint32_t arena;
    net_mapping *memory;
} shm_mapping;

typedef struct shm_link {
    net_link link;
    struct shm_link *next;
    int started, doorbell, reported, broken;
    char why[256];
    uint32_t pid;
    int their_cma;              /* the peer can read this process                           */
    int my_cma;
    /* in */
    int inbox_fd;
    shm_ring *inbox;
    unsigned char *inbox_data;
    uint64_t size, nonce;
    net_windows windows;
    shm_pull *pulls, **last_pull;
    shm_mapping *mappings;
    size_t mapping_count;
    /* out */
    shm_ring *outbox;
    unsigned char *outbox_data;
    uint64_t outbox_size, head, seen_tail;
    shm_piece *queue, **last_piece;
    void **done;                /* cookies to report                                        */
    size_t done_count, done_room;
} shm_link;

typedef struct shm_transport {
    net_transport transport;
    shm_link *links;
    int epoll, allow_map, allow_cma;
    unsigned char *tile;
    uint64_t copied, mapped, lent, vm_read, doorbells;
} shm_transport;

static inline shm_transport *shm_of(const shm_link *l)
{
    return (shm_transport *)l->link.transport;
}

/* shm.c */
/* The link is broken from here on; the first cause is what progress() reports. */
void shm_fail(shm_link *l, const char *cause);
/* The data of this put may be used again; progress() tells. */
void shm_report_done(shm_link *l, void *cookie);
/* A record from the inbox, whose bytes are gone after the call. */
void shm_take_record(shm_link *l, const shm_record *r, const unsigned char *payload, int *did);

/* shm_ring.c */
/* A record with a and b behind it goes out, now or by shm_ring_drain(); they are copied. */
gt_status shm_ring_write(shm_link *l, const shm_record *r, const void *a, size_t a_size, const void *b, size_t b_size);
/* `data` goes out in pieces, each with the head *r, and `cookie` is reported behind the last. */
gt_status shm_ring_put(shm_link *l, const shm_record *r, const void *data, size_t size, void *cookie);
void shm_ring_drain(shm_link *l, int *did);
void shm_ring_read(shm_link *l, int *did);
void shm_ring_clear(shm_link *l);           /* what is still to go out */

/* shm_pull.c */
void shm_pull_begin(shm_link *l, const shm_record *r, int *did);
void shm_give_back(net_link *link, net_loan loan);
/* 1: a pull fills this window, so nothing else may. */
int shm_pull_holds(const shm_link *l, uint32_t window);
void shm_pull_progress(shm_link *l, int *did);
void shm_pull_forget(shm_link *l, uint32_t arena);
void shm_pull_clear(shm_link *l);           /* pulls under way and mapped arenas */

/* shm_link.c: see net_transport_ops */
gt_status shm_offer(net_transport *t, int peer, int leads, void *up, net_link **link, unsigned char *bytes,
                    size_t *size);
gt_status shm_connect(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *bytes,
                      size_t *size, int *again, int *stream);
void shm_start(net_link *link, int *stream);
void shm_disconnect(net_link *link);

#endif
