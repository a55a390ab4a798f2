/* SPDX-License-Identifier: MIT */
/* net/transport/shared.c - see shared.h */
#include "net/transport/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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
    }
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}
