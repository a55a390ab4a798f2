/* SPDX-License-Identifier: MIT */
/* net/transport/shared.c - see shared.h */
#include "net/transport/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void *net_shared_make(const char *name, size_t size, int *fd)
{
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return NULL;
    const int err = posix_fallocate(*fd, 0, (off_t)size);
    void *p = MAP_FAILED;
    if (!err) {
        fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *fd, 0);
    }
    if (p != MAP_FAILED)
        return p;
    const int why = err ? err : errno;
    close(*fd);
    *fd = -1;
    errno = why;
    return NULL;
}

static int open_theirs(uint32_t pid, uint32_t fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/fd/%u", (unsigned)pid, (unsigned)fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

unsigned char *net_shared_map(uint32_t pid, uint32_t number, size_t *size)
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
    } else
        errno = EPERM;
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

struct net_mapping {
    unsigned char *data;
    size_t size;
    atomic_int users;
};

net_mapping *net_mapping_make(uint32_t pid, uint32_t number)
{
    net_mapping *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->data = net_shared_map(pid, number, &m->size);
    atomic_init(&m->users, 1);
    if (m->data)
        return m;
    free(m);
    return NULL;
}

unsigned char *net_mapping_data(const net_mapping *m, size_t *size)
{
    *size = m->size;
    return m->data;
}

net_mapping *net_mapping_hold(net_mapping *m)
{
    atomic_fetch_add_explicit(&m->users, 1, memory_order_relaxed);
    return m;
}

void net_mapping_drop(net_mapping *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->users, 1, memory_order_acq_rel) > 1)
        return;
    munmap(m->data, m->size);
    free(m);
}
