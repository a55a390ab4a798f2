/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_memory.c - memory that the devices may read and write.
 *
 *   arena           registered when it is made            no cost at a transfer
 *   other, > 1 MiB  registered for this one transfer      tens of microseconds
 *   other, or what has to be added up                     through staging, one copy
 *
 * Registration pins pages, which costs about 16 us and then 60 us a MiB, so it pays for large
 * transfers only. Staging is a pool of blocks in powers of two that stay registered.
 *
 * Pinned pages count against RLIMIT_MEMLOCK, which is 8 MiB on most systems and the most
 * frequent reason that RDMA "does not work"; it is therefore looked at before anything is
 * promised, and named with its fix.                                                       */
#include "net/transport/verbs_private.h"

#include "host/base/text.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static const uint64_t pool_limit = 256u << 20;
enum { DIRECT = 1 << 20, SMALLEST = 16 };
static const unsigned window_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

/* ---- the limit ------------------------------------------------------------------------------ */

/* A process with CAP_IPC_LOCK is not limited; only the first user namespace's counts. */
static int is_exempt(void)
{
    unsigned long long capabilities = 0;
    unsigned inside = 1, outside = 1, count = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
            break;
    if (file)
        fclose(file);
    file = fopen("/proc/self/uid_map", "re");
    const int read = file ? fscanf(file, "%u %u %u", &inside, &outside, &count) : 0;
    if (file)
        fclose(file);
    return (capabilities >> 14 & 1) && read == 3 && !inside && !outside && count == UINT32_MAX;
}

uint64_t net_verbs_memlock_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY || is_exempt())
        return UINT64_MAX;
    return limit.rlim_cur;
}

static gt_status refuse(gt_status code, uint64_t need)
{
    char a[32], b[32];
    return gt_fail(code,
                   "cannot lock %s of memory for RDMA: the limit is %s; raise it: `memlock "
                   "unlimited` in /etc/security/limits.conf, `docker run --ulimit memlock=-1`, "
                   "LimitMEMLOCK=infinity in a systemd unit",
                   gt_format_bytes(a, sizeof a, need), gt_format_bytes(b, sizeof b, net_verbs_memlock_limit()));
}

gt_status net_verbs_memlock_check(uint64_t need)
{
    return need <= net_verbs_memlock_limit() ? GT_OK : refuse(GT_UNSUPPORTED, need);
}

/* ---- regions -------------------------------------------------------------------------------- */

void net_verbs_region_drop(net_verbs_transport *t, net_verbs_region *r)
{
    for (int i = 0; i < NET_VERBS_DEVICES; i++)
        if (r->mr[i]) {
            t->api->dereg_mr(r->mr[i]);
            r->mr[i] = NULL;
        }
}

gt_status net_verbs_region_make(net_verbs_transport *t, void *data, size_t size, unsigned access, net_verbs_region *out)
{
    char text[32];
    *out = (net_verbs_region){ .data = data, .size = size };
    for (int i = 0; i < t->devices; i++) {
        out->mr[i] = t->api->reg_mr(t->device[i].pd, data, size, access);
        if (!out->mr[i]) {
            const int error = errno;
            net_verbs_region_drop(t, out);
            if (error == ENOMEM && net_verbs_memlock_limit() != UINT64_MAX)
                return refuse(GT_NO_MEMORY, size);
            return gt_fail(GT_NO_MEMORY, "cannot register %s with device %s: %s",
                           gt_format_bytes(text, sizeof text, size), t->device[i].name, strerror(error));
        }
    }
    t->count[NET_VERBS_REGISTRATIONS]++;
    return GT_OK;
}

static unsigned payload_access(const net_verbs_transport *t)
{
    /* Relaxed ordering lets the device's writes overtake each other on the bus. A completion
     * still comes after all of them, and nobody polls payload. */
    return window_access | (t->base.config->relaxed_ordering ? IBV_ACCESS_RELAXED_ORDERING : 0u);
}

gt_status net_verbs_arena_add(void *context, net_memory *m, void **slot)
{
    net_verbs_transport *t = context;
    net_verbs_region *r = calloc(1, sizeof *r);
    *slot = NULL;
    if (!r)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of a registered arena");
    gt_status st = net_verbs_region_make(t, m->data, m->size, payload_access(t), r);
    if (st)
        free(r);
    else
        *slot = r;
    return st;
}

void net_verbs_arena_drop(void *context, net_memory *m, void *slot)
{
    (void)m;
    net_verbs_region_drop(context, slot);
    free(slot);
}

/* ---- staging -------------------------------------------------------------------------------- */

static void release_block(net_verbs_transport *t, net_verbs_block *b)
{
    net_verbs_region_drop(t, &b->region);
    munmap(b->region.data, b->region.size);
    free(b);
}

static gt_status take_block(net_verbs_transport *t, size_t size, net_verbs_block **out)
{
    int order = SMALLEST;
    *out = NULL;
    while (((size_t)1 << order) < size && order < 47)
        order++;
    net_verbs_block *b = t->pool[order];
    if (b) {
        t->pool[order] = b->next;
        t->pooled -= b->region.size;
        *out = b;
        return GT_OK;
    }
    const size_t whole = (size_t)1 << order;
    b = calloc(1, sizeof *b);
    void *data = b ? mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (data == MAP_FAILED) {
        free(b);
        return gt_fail(GT_NO_MEMORY, "cannot stage %zu bytes: %s", size, strerror(errno));
    }
    gt_status st = net_verbs_region_make(t, data, whole, payload_access(t), &b->region);
    if (st) {
        munmap(data, whole);
        free(b);
        return st;
    }
    b->order = order;
    *out = b;
    return GT_OK;
}

void net_verbs_pool_release(net_verbs_transport *t)
{
    for (size_t i = 0; i < sizeof t->pool / sizeof *t->pool; i++)
        while (t->pool[i]) {
            net_verbs_block *b = t->pool[i];
            t->pool[i] = b->next;
            release_block(t, b);
        }
    t->pooled = 0;
}

/* ---- leases --------------------------------------------------------------------------------- */

static gt_status register_once(net_verbs_transport *t, const void *data, size_t size, int remote, net_verbs_lease *out)
{
    net_verbs_region *r = calloc(1, sizeof *r);
    if (!r)
        return gt_fail(GT_NO_MEMORY, "no memory for the record of a registered range");
    /* A source is only read, so it may even lie in a file mapped read-only. */
    gt_status st = net_verbs_region_make(t, (void *)(uintptr_t)data, size, remote ? payload_access(t) : 0, r);
    if (st) {
        free(r);
        return st;
    }
    *out = (net_verbs_lease){ .data = (void *)(uintptr_t)data, .region = r, .own = r };
    return GT_OK;
}

gt_status net_verbs_lease_take(net_verbs_transport *t, const void *data, size_t size, int remote, int staged,
                               net_verbs_lease *out)
{
    *out = (net_verbs_lease){ .data = NULL };
    const net_memory *m = staged ? NULL : net_memory_find(t->base.memory, data, size);
    if (m && m->registered[NET_VERBS_HOOK]) {
        *out = (net_verbs_lease){ .data = (void *)(uintptr_t)data, .region = m->registered[NET_VERBS_HOOK] };
        return GT_OK;
    }
    /* Memory that cannot be pinned (a device's, say) can still be copied. */
    if (!staged && size > DIRECT && !register_once(t, data, size, remote, out))
        return GT_OK;
    gt_status st = take_block(t, size, &out->block);
    if (st)
        return st;
    out->region = &out->block->region;
    out->data = out->region->data;
    if (!remote)
        memcpy(out->data, data, size);
    t->count[NET_VERBS_STAGED_BYTES] += size;
    return GT_OK;
}

void net_verbs_lease_return(net_verbs_transport *t, net_verbs_lease *lease)
{
    net_verbs_block *b = lease->block;
    if (lease->own) {
        net_verbs_region_drop(t, lease->own);
        free(lease->own);
    }
    if (b && t->pooled + b->region.size > pool_limit) {
        release_block(t, b);
    } else if (b) {
        b->next = t->pool[b->order];
        t->pool[b->order] = b;
        t->pooled += b->region.size;
    }
    *lease = (net_verbs_lease){ .data = NULL };
}
