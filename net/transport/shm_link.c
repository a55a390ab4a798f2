/* SPDX-License-Identifier: MIT */
/* net/transport/shm_link.c - how a link through shared memory is made, and ends.
 *
 *   offer     host, process, the inbox's descriptor, and a nonce that stands in the inbox as well
 *   round 1   maps the peer's inbox through /proc/PID/fd; is it the one that was offered?
 *   round 2   may the peer read this process's memory?      (only if process_vm_readv is asked for)
 *
 * A number of a process means another one in another container, which is what the nonce is for. */
#include "net/transport/shared.h"
#include "net/transport/shm_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct offer {
    uint64_t host_id, size, nonce;
    uint64_t address, magic;        /* where a known number lies, to try process_vm_readv    */
    uint32_t pid, inbox_fd;
} offer;

void shm_disconnect(net_link *link)
{
    shm_link *l = (shm_link *)link;
    if (!l)
        return;
    shm_transport *t = shm_of(l);
    for (shm_link **p = &t->links; *p; p = &(*p)->next)
        if (*p == l) {
            *p = l->next;
            break;
        }
    if (l->inbox)
        munmap(l->inbox, SHM_HEADER + (size_t)l->size);
    if (l->inbox_fd >= 0)
        close(l->inbox_fd);
    if (l->outbox)
        munmap(l->outbox, SHM_HEADER + (size_t)l->outbox_size);
    if (l->doorbell >= 0)
        close(l->doorbell);
    shm_ring_clear(l);
    shm_pull_clear(l);
    free(l->windows.open);
    free(l->done);
    free(l);
}

static gt_status make_inbox(shm_link *l)
{
    const net_config *config = l->link.transport->config;
    l->size = 64 * 1024;
    while (l->size < config->shm_ring || l->size < 8 * (config->eager + NET_MESSAGE + SHM_ALIGN))
        l->size *= 2;
    const size_t whole = SHM_HEADER + (size_t)l->size;
    void *p = net_shared_make("geartrain-inbox", whole, &l->inbox_fd);
    if (!p)
        return gt_fail(GT_UNSUPPORTED, "no memory for an inbox of %zu bytes: %s", whole, strerror(errno));
    l->inbox = p;
    l->inbox_data = (unsigned char *)p + SHM_HEADER;
    if (getrandom(&l->nonce, sizeof l->nonce, 0) != (ssize_t)sizeof l->nonce)
        return gt_fail(GT_IO, "no random numbers: %s", strerror(errno));
    l->inbox->size = l->size;
    l->inbox->nonce = l->nonce;
    return GT_OK;
}

gt_status shm_offer(net_transport *t, int peer, int leads, void *up, net_link **link, unsigned char *bytes,
                    size_t *size)
{
    (void)leads;
    *link = NULL;
    const net_member *me = net_job_member(t->job, net_job_rank(t->job));
    if (net_job_member(t->job, peer)->host_id != me->host_id)
        return gt_fail(GT_UNSUPPORTED, "not on the same host");
    shm_link *l = calloc(1, sizeof *l);
    if (!l)
        return gt_fail(GT_NO_MEMORY, "no memory for a shared-memory link");
    l->link = (net_link){ t, up, peer };
    l->inbox_fd = l->doorbell = -1;
    l->last_pull = &l->pulls;
    l->last_piece = &l->queue;
    gt_status st = make_inbox(l);
    if (st) {
        shm_disconnect(&l->link);
        return st;
    }
    const offer o = {
        me->host_id,          l->size, l->nonce, (uint64_t)(uintptr_t)&l->nonce, l->nonce, (uint32_t)getpid(),
        (uint32_t)l->inbox_fd
    };
    memcpy(bytes, &o, sizeof o);
    *size = sizeof o;
    *link = &l->link;
    return GT_OK;
}

static gt_status map_outbox(shm_link *l, const offer *o)
{
    size_t size = 0;
    shm_ring *r = (shm_ring *)(void *)net_shared_map(o->pid, o->inbox_fd, &size);
    if (!r)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot open memory of process %u (%s); another container "
                       "or another user?",
                       (unsigned)o->pid, strerror(errno));
    if (size != SHM_HEADER + o->size || o->size & (o->size - 1) || o->size < 64 * 1024 || r->size != o->size
        || r->nonce != o->nonce) {
        munmap(r, size);
        return gt_fail(GT_UNSUPPORTED, "process %u is another one in this container", (unsigned)o->pid);
    }
    l->outbox = r;
    l->outbox_data = (unsigned char *)r + SHM_HEADER;
    l->outbox_size = o->size;
    l->pid = o->pid;
    return GT_OK;
}

static int can_read_process(const offer *o)
{
    uint64_t seen = 0;
    const struct iovec mine = { &seen, sizeof seen };
    const struct iovec theirs = { (void *)(uintptr_t)o->address, sizeof seen };
    return process_vm_readv((pid_t)o->pid, &mine, 1, &theirs, 1, 0) == (ssize_t)sizeof seen && seen == o->magic;
}

/* First round: the peer's inbox. Second: may the peer read our memory? */
gt_status shm_connect(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *bytes,
                      size_t *size, int *again, int *stream)
{
    shm_link *l = (shm_link *)link;
    shm_transport *t = shm_of(l);
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

void shm_start(net_link *link, int *stream)
{
    shm_link *l = (shm_link *)link;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = l };
    l->doorbell = *stream;
    *stream = -1;
    l->started = 1;
    if (epoll_ctl(shm_of(l)->epoll, EPOLL_CTL_ADD, l->doorbell, &e) < 0)
        shm_fail(l, strerror(errno));
}
