/* SPDX-License-Identifier: MIT */
/* net/transport/memory.c - arenas, and who has registered them.
 *
 *   set ─┬─ arena 1 [0x7f..0000, 64 MiB)  memfd 12   registered: { verbs: keys, shm: - }
 *        └─ arena 2 ...
 *
 * The file descriptor is sealed against shrinking: a peer that maps the arena could otherwise
 * be killed by SIGBUS at our will. Arenas are few and live long, so a sorted array serves. */
#include "net/transport/memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct hook {
    gt_status (*add)(void *context, net_memory *m, void **slot);
    void (*drop)(void *context, net_memory *m, void *slot);
    void *context;
} hook;

struct net_memory_set {
    pthread_mutex_t lock;           /* over the array; hooks run outside of it */
    net_memory **arena;             /* sorted by address */
    size_t count, room;
    uint32_t next_id;
    hook hooks[NET_MEMORY_HOOKS];
};

gt_status net_memory_set_create(net_memory_set **out)
{
    *out = NULL;
    net_memory_set *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "no memory for the set of arenas");
    pthread_mutex_init(&s->lock, NULL);
    s->next_id = 1;
    *out = s;
    return GT_OK;
}

static size_t whole_pages(size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

static void unmap(net_memory *m)
{
    if (m->data)
        munmap(m->data, whole_pages(m->size));
    if (m->fd >= 0)
        close(m->fd);
    free(m);
}

static void drop_all(net_memory_set *s, net_memory *m)
{
    for (int i = 0; i < NET_MEMORY_HOOKS; i++)
        if (s->hooks[i].drop && m->registered[i])
            s->hooks[i].drop(s->hooks[i].context, m, m->registered[i]);
}

void net_memory_set_release(net_memory_set *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++) {
        drop_all(s, s->arena[i]);
        unmap(s->arena[i]);
    }
    free(s->arena);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

gt_status net_memory_hook(net_memory_set *s, int index, gt_status (*add)(void *context, net_memory *m, void **slot),
                          void (*drop)(void *context, net_memory *m, void *slot), void *context)
{
    assert(index >= 0 && index < NET_MEMORY_HOOKS && !s->hooks[index].add);
    s->hooks[index] = (hook){ add, drop, context };
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < s->count; i++)
        st = add(context, s->arena[i], &s->arena[i]->registered[index]);
    if (st)
        net_memory_unhook(s, index);
    return st;
}

void net_memory_unhook(net_memory_set *s, int index)
{
    for (size_t i = 0; i < s->count; i++) {
        net_memory *m = s->arena[i];
        if (s->hooks[index].drop && m->registered[index])
            s->hooks[index].drop(s->hooks[index].context, m, m->registered[index]);
        m->registered[index] = NULL;
    }
    s->hooks[index] = (hook){ NULL, NULL, NULL };
}

static gt_status map(net_memory *m)
{
    const size_t size = whole_pages(m->size);
    m->fd = memfd_create("geartrain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0)
        return gt_fail(GT_NO_MEMORY, "cannot make an arena of %zu bytes: %s", m->size, strerror(errno));
    const int refused = posix_fallocate(m->fd, 0, (off_t)size);
    if (refused)
        return gt_fail(GT_NO_MEMORY, "cannot make an arena of %zu bytes: %s%s", m->size, strerror(refused),
                       refused == EFBIG ? "; memory that ranks share counts as a file: raise its limit with "
                                          "`ulimit -f unlimited`"
                                        : "");
    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, m->fd, 0);
    if (p == MAP_FAILED)
        return gt_fail(GT_NO_MEMORY, "cannot map an arena of %zu bytes: %s", m->size, strerror(errno));
    m->data = p;
    return GT_OK;
}

/* Index of the first arena that begins behind p. */
static size_t behind(const net_memory_set *s, const unsigned char *p)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (s->arena[mid]->data <= p)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static gt_status insert(net_memory_set *s, net_memory *m)
{
    if (s->count == s->room) {
        const size_t room = s->room ? 2 * s->room : 16;
        net_memory **grown = realloc(s->arena, room * sizeof *grown);
        if (!grown)
            return gt_fail(GT_NO_MEMORY, "no memory for the list of arenas");
        s->arena = grown;
        s->room = room;
    }
    const size_t at = behind(s, m->data);
    memmove(s->arena + at + 1, s->arena + at, (s->count - at) * sizeof *s->arena);
    s->arena[at] = m;
    s->count++;
    return GT_OK;
}

gt_status net_memory_make(net_memory_set *s, size_t size, net_memory **out)
{
    *out = NULL;
    net_memory *m = calloc(1, sizeof *m);
    if (!m)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of an arena");
    m->fd = -1;
    m->size = size ? size : 1;
    gt_status st = map(m);
    if (st) {
        unmap(m);
        return st;
    }
    pthread_mutex_lock(&s->lock);
    m->id = s->next_id++;
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; !st && i < NET_MEMORY_HOOKS; i++)
        if (s->hooks[i].add)
            st = s->hooks[i].add(s->hooks[i].context, m, &m->registered[i]);
    pthread_mutex_lock(&s->lock);
    if (!st)
        st = insert(s, m);
    pthread_mutex_unlock(&s->lock);
    if (st) {
        drop_all(s, m);
        unmap(m);
        return st;
    }
    *out = m;
    return GT_OK;
}

void net_memory_free(net_memory_set *s, net_memory *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->count; i++)
        if (s->arena[i] == m) {
            memmove(s->arena + i, s->arena + i + 1, (s->count - i - 1) * sizeof *s->arena);
            s->count--;
            break;
        }
    pthread_mutex_unlock(&s->lock);
    drop_all(s, m);
    unmap(m);
}

net_memory *net_memory_find(net_memory_set *s, const void *p, size_t size)
{
    const unsigned char *at = p;
    net_memory *found = NULL;
    pthread_mutex_lock(&s->lock);
    const size_t next = behind(s, at);
    if (next) {
        net_memory *m = s->arena[next - 1];
        const size_t offset = (size_t)(at - m->data);
        if (offset < m->size && size <= m->size - offset)
            found = m;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}
