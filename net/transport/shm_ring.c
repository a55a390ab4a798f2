/* SPDX-License-Identifier: MIT */
/* net/transport/shm_ring.c - records into the peer's ring, and out of one's own.
 *
 *     tail                          head
 *   ───┬──────────┬────────────────┬─────────┬─────┬───
 *      │ 64 B head│ payload, padded │ ...     │ PAD │          what does not fit behind PAD
 *   ───┴──────────┴────────────────┴─────────┴─────┴───       begins at the ring's start
 *
 * A ring has one writer and one reader. A reader that is going to sleep says so in the ring, and the
 * next writer wakes it through the pair's stream; the flag and the ring are written and read on both
 * sides with a full fence between, or both could miss each other. A writer that waits for room says
 * so in the same way. What finds no room is kept in a queue that progress() drains.      */
#include "net/transport/shm_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- writing to the peer's ring -------------------------------------------------------- */

static size_t rounded(size_t n)
{
    return (n + SHM_ALIGN - 1) / SHM_ALIGN * SHM_ALIGN;
}

static void ring_bell(shm_link *l)
{
    const char one = 1;
    if (l->doorbell >= 0 && send(l->doorbell, &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
        shm_of(l)->doorbells++;
}

/* Room for a record with `payload` bytes in one stretch, or NULL. Writes the padding if the
 * stretch begins at the start of the ring. */
static unsigned char *room(shm_link *l, size_t payload)
{
    const size_t need = SHM_ALIGN + rounded(payload);
    const uint64_t offset = l->head & (l->outbox_size - 1), to_end = l->outbox_size - offset;
    const size_t pad = to_end < need ? (size_t)to_end : 0;
    if (l->head + pad + need - l->seen_tail > l->outbox_size) {
        l->seen_tail = atomic_load_explicit(&l->outbox->tail, memory_order_acquire);
        if (l->seen_tail > l->head || l->head - l->seen_tail > l->outbox_size) {
            shm_fail(l, "its ring is damaged");
            return NULL;
        }
        if (l->head + pad + need - l->seen_tail > l->outbox_size)
            return NULL;
    }
    if (pad) {
        const shm_record r = { .kind = RECORD_PAD };
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
static int write_record(shm_link *l, const shm_record *r, const void *a, size_t a_size, const void *b, size_t b_size)
{
    unsigned char *at = room(l, a_size + b_size);
    if (!at)
        return 0;
    memcpy(at, r, sizeof *r);
    if (a_size)
        memcpy(at + SHM_ALIGN, a, a_size);
    if (b_size)
        memcpy(at + SHM_ALIGN + a_size, b, b_size);
    l->head += SHM_ALIGN + rounded(a_size + b_size);
    publish(l);
    return 1;
}

static gt_status keep(shm_link *l, const shm_record *r, const void *a, size_t a_size, const void *b, size_t b_size,
                      const void *data, size_t left, void *cookie)
{
    shm_piece *p = malloc(sizeof *p + a_size + b_size);
    if (!p)
        return gt_fail(GT_NO_MEMORY, "no memory for a message that waits for room in the shared ring");
    *p = (shm_piece){ .r = *r, .data = left ? data : p->copy, .left = left, .cookie = cookie };
    if (a_size)
        memcpy(p->copy, a, a_size);
    if (b_size)
        memcpy(p->copy + a_size, b, b_size);
    *l->last_piece = p;
    l->last_piece = &p->next;
    return GT_OK;
}

gt_status shm_ring_write(shm_link *l, const shm_record *r, const void *a, size_t a_size, const void *b, size_t b_size)
{
    if (!l->queue && write_record(l, r, a, a_size, b, b_size))
        return GT_OK;
    return keep(l, r, a, a_size, b, b_size, NULL, 0, NULL);
}

gt_status shm_ring_put(shm_link *l, const shm_record *r, const void *data, size_t size, void *cookie)
{
    return keep(l, r, NULL, 0, NULL, 0, data, size, cookie);
}

/* Pieces of a put into the ring, a quarter of it each, so that the reader copies out while we
 * copy in. 1: all of it is in. */
static int write_pieces(shm_link *l, shm_piece *p, size_t *budget)
{
    const size_t most = (size_t)l->outbox_size / 4 - SHM_ALIGN;
    while (p->left && *budget) {
        const size_t n = p->left < most ? p->left : most;
        shm_record r = p->r;
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

void shm_ring_drain(shm_link *l, int *did)
{
    size_t budget = SHM_BUDGET;
    while (l->queue && !l->broken) {
        shm_piece *p = l->queue;
        const size_t before = p->left;
        if (p->left ? !write_pieces(l, p, &budget) : !write_record(l, &p->r, p->data, (size_t)p->r.payload, NULL, 0)) {
            *did += p->left != before;
            return;
        }
        (*did)++;
        l->queue = p->next;
        if (!l->queue)
            l->last_piece = &l->queue;
        if (p->cookie)
            shm_report_done(l, p->cookie);
        free(p);
    }
}

void shm_ring_clear(shm_link *l)
{
    for (shm_piece *p = l->queue, *next; p; p = next) {
        next = p->next;
        free(p);
    }
}

/* ---- reading the inbox ----------------------------------------------------------------- */

/* Gives room back, and wakes a writer that waits for it. */
static void give_back(shm_link *l, uint64_t tail)
{
    atomic_store_explicit(&l->inbox->tail, tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->inbox->writer_waits, memory_order_relaxed)
        && atomic_exchange(&l->inbox->writer_waits, 0))
        ring_bell(l);
}

void shm_ring_read(shm_link *l, int *did)
{
    uint64_t tail = atomic_load_explicit(&l->inbox->tail, memory_order_relaxed);
    const uint64_t head = atomic_load_explicit(&l->inbox->head, memory_order_acquire);
    if (head == tail)
        return;
    if (head < tail || head - tail > l->size) {
        shm_fail(l, "the ring is damaged");
        return;
    }
    for (size_t budget = SHM_BUDGET; tail != head && !l->broken && budget;) {
        const uint64_t offset = tail & (l->size - 1), to_end = l->size - offset;
        shm_record r;
        memcpy(&r, l->inbox_data + offset, sizeof r);
        uint64_t step = SHM_ALIGN + rounded((size_t)r.payload);
        if (r.kind == RECORD_PAD)
            step = to_end;
        else if (r.payload > to_end || step > to_end || step > head - tail) {
            shm_fail(l, "the ring is damaged");
            return;
        }
        shm_take_record(l, &r, l->inbox_data + offset + SHM_ALIGN, did);
        tail += step;
        budget -= step < budget ? (size_t)step : budget;
        if (r.payload > SHM_SMALL_PUT)
            give_back(l, tail);
    }
    give_back(l, tail);
}
