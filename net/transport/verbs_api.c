/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_api.c - libibverbs, loaded when it is first wanted.
 *
 * Most calls are symbols of the library. Those of the fast path (poll, post, arm) are inline
 * functions of its header that jump through the device's own table; they need no symbol.
 * Three symbols are younger than others or wrapped by the header, which is why they are looked
 * at closely below: query_port (the symbol fills only the old part of the struct),
 * query_gid_table (its symbol begins with an underscore) and reg_mr (optional access flags,
 * like relaxed ordering, are only understood by ibv_reg_mr_iova2).                       */
#include "net/transport/verbs_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const net_verbs_api *replaced;
static net_verbs_api library;
static gt_status loaded;
static char why[256];

/* Symbols that have no place in the table as they are. */
static struct {
    int (*query_port)(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr);
    ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *entries, size_t room, uint32_t flags,
                               size_t entry_size);
    struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *data, size_t size, int access);
    struct ibv_mr *(*reg_mr_iova2)(struct ibv_pd *pd, void *data, size_t size, uint64_t iova, unsigned access);
    int (*fork_init)(void);
} raw;

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr)
{
    const struct verbs_context *extended = verbs_get_ctx(context);
    memset(attr, 0, sizeof *attr);
    if (extended && extended->sz >= sizeof *extended - offsetof(struct verbs_context, query_port)
        && extended->query_port)
        return extended->query_port(context, port, attr, sizeof *attr);
    return raw.query_port(context, port, (struct _compat_ibv_port_attr *)(void *)attr);
}

static ssize_t query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t room)
{
    return raw.query_gid_table(context, entries, room, 0, sizeof *entries);
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *data, size_t size, unsigned access)
{
    if (raw.reg_mr_iova2)
        return raw.reg_mr_iova2(pd, data, size, (uintptr_t)data, access);
    return raw.reg_mr(pd, data, size, (int)(access & ~(unsigned)IBV_ACCESS_OPTIONAL_RANGE));
}

static int poll_cq(struct ibv_cq *cq, int room, struct ibv_wc *wc)
{
    return cq->context->ops.poll_cq(cq, room, wc);
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    return cq->context->ops.req_notify_cq(cq, solicited_only);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    return qp->context->ops.post_send(qp, wr, bad);
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    return qp->context->ops.post_recv(qp, wr, bad);
}

static void load(void)
{
    const struct {
        const char *name;
        void *target;
        int optional;
    } symbols[] = {
        { "ibv_get_device_list", &library.get_device_list, 0 },
        { "ibv_free_device_list", &library.free_device_list, 0 },
        { "ibv_get_device_name", &library.get_device_name, 0 },
        { "ibv_open_device", &library.open_device, 0 },
        { "ibv_close_device", &library.close_device, 0 },
        { "ibv_query_device", &library.query_device, 0 },
        { "ibv_query_port", &raw.query_port, 0 },
        { "_ibv_query_gid_table", &raw.query_gid_table, 0 },
        { "ibv_alloc_pd", &library.alloc_pd, 0 },
        { "ibv_dealloc_pd", &library.dealloc_pd, 0 },
        { "ibv_reg_mr", &raw.reg_mr, 0 },
        { "ibv_reg_mr_iova2", &raw.reg_mr_iova2, 1 },
        { "ibv_dereg_mr", &library.dereg_mr, 0 },
        { "ibv_create_comp_channel", &library.create_comp_channel, 0 },
        { "ibv_destroy_comp_channel", &library.destroy_comp_channel, 0 },
        { "ibv_create_cq", &library.create_cq, 0 },
        { "ibv_destroy_cq", &library.destroy_cq, 0 },
        { "ibv_get_cq_event", &library.get_cq_event, 0 },
        { "ibv_ack_cq_events", &library.ack_cq_events, 0 },
        { "ibv_create_qp", &library.create_qp, 0 },
        { "ibv_modify_qp", &library.modify_qp, 0 },
        { "ibv_destroy_qp", &library.destroy_qp, 0 },
        { "ibv_create_ah", &library.create_ah, 0 },
        { "ibv_destroy_ah", &library.destroy_ah, 0 },
        { "ibv_get_async_event", &library.get_async_event, 0 },
        { "ibv_ack_async_event", &library.ack_async_event, 0 },
        { "ibv_wc_status_str", &library.wc_status_str, 0 },
        { "ibv_event_type_str", &library.event_type_str, 0 },
        { "ibv_fork_init", &raw.fork_init, 1 },
    };
    void *handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        loaded = gt_fail(GT_UNSUPPORTED, "cannot use RDMA: libibverbs.so.1 does not load; install "
                                         "the packages libibverbs1 and ibverbs-providers if this machine has RDMA");
        goto out;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol && !symbols[i].optional) {
            loaded = gt_fail(GT_UNSUPPORTED,
                             "cannot use RDMA: libibverbs.so.1 has no '%s'; update "
                             "rdma-core to version 32 or later",
                             symbols[i].name);
            goto out;
        }
        memcpy(symbols[i].target, &symbol, sizeof symbol);
    }
    library.query_port = query_port;
    library.query_gid_table = query_gid_table;
    library.reg_mr = reg_mr;
    library.poll_cq = poll_cq;
    library.req_notify_cq = req_notify_cq;
    library.post_send = post_send;
    library.post_recv = post_recv;
    /* Old kernels share pinned pages with a child until one of both writes; this marks them as
     * not to be inherited. Kernels since 5.12 copy at fork, and the call does nothing. */
    if (raw.fork_init)
        raw.fork_init();
out:
    if (loaded)
        strncpy(why, gt_message(), sizeof why - 1);
}

gt_status net_verbs_api_load(const net_verbs_api **out)
{
    *out = NULL;
    if (replaced) {
        *out = replaced;
        return GT_OK;
    }
    pthread_once(&once, load);
    if (loaded)
        return gt_fail(loaded, "%s", why);
    *out = &library;
    return GT_OK;
}

void net_verbs_api_replace(const net_verbs_api *api)
{
    replaced = api;
}
