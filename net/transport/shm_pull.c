/* SPDX-License-Identifier: MIT */
/* net/transport/shm_pull.c - large puts, fetched by the receiver from where they are.
 *
 *   sender   PULL_MAP: arena 3, offset ──►  receiver   maps arena 3 once, reads it as its own; a sink
 *                                                      that takes loans is given the place itself
 *            PULL_CMA: an address      ──►             process_vm_readv, by way of a tile to add
 *            data free again  ◄── GOT ───
 *
 * Pulls of a link are made one after another, a budget at a time. An arena stays mapped until its
 * owner says FREED, for training sends from the same few arenas again and again.         */
#include "net/transport/shm_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const shm_mapping *arena_of(shm_link *l, uint32_t id, uint32_t fd)
{
    for (size_t i = 0; i < l->mapping_count; i++)
        if (l->mappings[i].arena == id)
            return &l->mappings[i];
    shm_mapping *grown = realloc(l->mappings, (l->mapping_count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    l->mappings = grown;
    const shm_mapping m = { .arena = id, .memory = net_mapping_make(l->pid, fd) };
    if (!m.memory)
        return NULL;
    l->mappings[l->mapping_count++] = m;
    return &l->mappings[l->mapping_count - 1];
}

void shm_pull_forget(shm_link *l, uint32_t id)
{
    for (size_t i = 0; i < l->mapping_count; i++)
        if (l->mappings[i].arena == id) {
            net_mapping_drop(l->mappings[i].memory);
            l->mappings[i] = l->mappings[--l->mapping_count];
            return;
        }
}

int shm_pull_holds(const shm_link *l, uint32_t window)
{
    for (const shm_pull *p = l->pulls; p; p = p->next)
        if (p->window == window)
            return 1;
    return 0;
}

/* The memory of a pull from an arena; NULL, and the link ended, if that is not there. */
static unsigned char *place_of(shm_link *l, const shm_record *r, net_mapping **memory)
{
    char why[96];
    const shm_mapping *m = arena_of(l, r->arena, r->fd);
    if (!m) {
        snprintf(why, sizeof why, "its memory cannot be mapped: %s%s", strerror(errno),
                 errno == EMFILE ? "; raise `ulimit -n`" : "");
        shm_fail(l, why);
        return NULL;
    }
    size_t size;
    unsigned char *data = net_mapping_data(m->memory, &size);
    *memory = m->memory;
    if (r->address <= size && r->size <= size - r->address)
        return data + r->address;
    shm_fail(l, "it sent data from outside its memory");
    return NULL;
}

void shm_give_back(net_link *link, net_loan loan)
{
    shm_link *l = (shm_link *)link;
    const shm_record got = { .kind = RECORD_GOT, .cookie = loan.cookie };
    if (!l->broken && shm_ring_write(l, &got, NULL, 0, NULL, 0))
        shm_fail(l, "no memory for the word that a loan is over");
    net_mapping_drop(loan.mapping);
}

void shm_pull_begin(shm_link *l, const shm_record *r, int *did)
{
    net_window *w = net_windows_find(&l->windows, r->window);
    if (!w || w->got || r->size != w->sink.size || shm_pull_holds(l, r->window)) {
        shm_fail(l, "it sent data that nobody asked for");
        return;
    }
    net_mapping *memory = NULL;
    unsigned char *place = r->kind == RECORD_PULL_MAP ? place_of(l, r, &memory) : NULL;
    if (r->kind == RECORD_PULL_MAP && !place)
        return;
    if (place && w->sink.lend && (w->sink.lend == NET_LEND_ANY || r->address % (uint64_t)sysconf(_SC_PAGESIZE) == 0)) {
        const net_loan loan = { place, net_mapping_hold(memory), r->cookie };
        shm_of(l)->lent += r->size;
        net_windows_lend(&l->windows, w, loan, &l->link, did);
        return;
    }
    shm_pull *p = malloc(sizeof *p);
    if (!p) {
        shm_fail(l, "no memory for a copy from another rank's memory");
        return;
    }
    *p = (shm_pull){ .window = r->window, .kind = r->kind, .at = r->address, .left = r->size, .cookie = r->cookie };
    p->mapped = place;
    *l->last_pull = p;
    l->last_pull = &p->next;
}

/* The next n bytes of a pull that reads the other process. */
static int read_process(shm_link *l, shm_pull *p, net_window *w, size_t n)
{
    shm_transport *t = shm_of(l);
    unsigned char *to = w->sink.reduce ? t->tile : (unsigned char *)w->sink.data + w->got;
    for (size_t have = 0; have < n;) {
        const struct iovec mine = { to + have, n - have };
        const struct iovec theirs = { (void *)(uintptr_t)(p->at + have), n - have };
        const ssize_t got = process_vm_readv((pid_t)l->pid, &mine, 1, &theirs, 1, 0);
        if (got <= 0) {
            shm_fail(l, got ? strerror(errno) : "its memory is gone");
            return 0;
        }
        have += (size_t)got;
    }
    t->vm_read += n;
    if (w->sink.reduce)
        net_window_take(w, t->tile, n);
    else
        w->got += n;
    return 1;
}

void shm_pull_progress(shm_link *l, int *did)
{
    shm_transport *t = shm_of(l);
    for (size_t budget = SHM_BUDGET; l->pulls && !l->broken && budget;) {
        shm_pull *p = l->pulls;
        net_window *w = net_windows_find(&l->windows, p->window);
        const size_t most = p->kind == RECORD_PULL_CMA && w->sink.reduce ? SHM_TILE : SHM_BUDGET;
        size_t n = p->left < most ? (size_t)p->left : most;
        if (p->kind == RECORD_PULL_MAP) {
            net_window_take(w, p->mapped, n);
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
        const shm_record got = { .kind = RECORD_GOT, .cookie = p->cookie };
        if (shm_ring_write(l, &got, NULL, 0, NULL, 0))
            shm_fail(l, "no memory for the word that a copy is done");
        l->pulls = p->next;
        if (!l->pulls)
            l->last_pull = &l->pulls;
        free(p);
        net_windows_close(&l->windows, w, &l->link, did);
    }
}

void shm_pull_clear(shm_link *l)
{
    for (shm_pull *p = l->pulls, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    for (size_t i = 0; i < l->mapping_count; i++)
        net_mapping_drop(l->mappings[i].memory);
    free(l->mappings);
}
