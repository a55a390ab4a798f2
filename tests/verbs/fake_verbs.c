/* SPDX-License-Identifier: MIT */
/* tests/verbs/fake_verbs.c - see fake_verbs.h. */
#include "tests/verbs/fake_verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

fake_world fake;

enum { QUEUE = 4096, EVENTS = 64, QPS = 256, MRS = 4096 };

typedef struct context {
    struct ibv_context base;
    const fake_device *device;
    struct ibv_async_event event[EVENTS];
    int first, last, unacknowledged;
    struct context *next;
} context;

typedef struct cq {
    struct ibv_cq base;
    struct ibv_wc wc[QUEUE];
    unsigned first, last;
    int armed, unacknowledged;
} cq;

typedef struct channel {
    struct ibv_comp_channel base;
    cq *event[EVENTS];
    int first, last;
} channel;

typedef struct request {
    struct ibv_send_wr wr;
    struct ibv_sge sge;
    unsigned char inlined[512];
} request;

typedef struct qp {
    struct ibv_qp base;
    context *owner;
    uint32_t max_send, max_recv, max_inline;
    request send[QUEUE];
    unsigned first, last, freed;        /* freed: requests whose end has been polled       */
    struct {
        uint64_t id;
        struct ibv_sge sge;
    } recv[QUEUE];
    unsigned recv_first, recv_last;
    uint32_t dest;
    char dest_text[64];
} qp;

static context *contexts;
static qp *qps[QPS];
static unsigned completions;
static int armed;                       /* completion queues that will send an event   */
static struct mr {
    struct ibv_mr base;
    unsigned access;
    int used;
} mrs[MRS];

static void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void violation(const char *format, ...)
{
    va_list args;
    if (fake.violations++)
        return;
    va_start(args, format);
    vsnprintf(fake.violation, sizeof fake.violation, format, args);
    va_end(args);
}

/* ---- the world ------------------------------------------------------------------------------- */

void fake_reset(void)
{
    memset(&fake, 0, sizeof fake);
    memset(mrs, 0, sizeof mrs);
    fake.seed = 1;
}

fake_device *fake_add(const char *name)
{
    fake_device *d = &fake.device[fake.devices++];
    *d = (fake_device){ .ethernet = 1,
                        .active = 1,
                        .mtu = 5,
                        .speed = 32,
                        .width = 2,
                        .max_qp_wr = 4096,
                        .max_inline = 256,
                        .max_cqe = QUEUE };
    snprintf(d->name, sizeof d->name, "%s", name);
    return d;
}

void fake_gid(fake_device *d, const char *address, int index, int type)
{
    unsigned char *raw = d->gid[d->gids].gid.raw;
    memset(raw, 0, 16);
    if (!strchr(address, ':')) {
        raw[10] = raw[11] = 0xff;
        inet_pton(AF_INET, address, raw + 12);
    } else {
        inet_pton(AF_INET6, address, raw);
    }
    d->gid[d->gids].index = index;
    d->gid[d->gids++].type = type;
}

static void text_of(const unsigned char *raw, char *out, size_t size)
{
    static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    const int ipv4 = !memcmp(raw, mapped, 12);
    inet_ntop(ipv4 ? AF_INET : AF_INET6, raw + 12 * ipv4, out, (socklen_t)size);
}

static void poke(int fd)
{
    const uint64_t one = 1;
    if (write(fd, &one, sizeof one) != sizeof one)
        violation("an event did not fit");
}

static void unpoke(int fd)
{
    uint64_t n;
    if (read(fd, &n, sizeof n) < 0 && errno != EAGAIN)
        violation("an event could not be read");
}

void fake_async(const char *device, enum ibv_event_type type, struct ibv_qp *about)
{
    for (context *c = contexts; c; c = c->next)
        if (!strcmp(c->device->name, device)) {
            struct ibv_async_event *e = &c->event[c->last++ % EVENTS];
            memset(e, 0, sizeof *e);
            e->event_type = type;
            if (about)
                e->element.qp = about;
            else
                e->element.port_num = 1;
            poke(c->base.async_fd);
        }
}

/* ---- devices --------------------------------------------------------------------------------- */

static struct ibv_device **get_device_list(int *count)
{
    struct ibv_device **list = calloc((size_t)fake.devices + 1, sizeof *list);
    for (int i = 0; i < fake.devices; i++) {
        list[i] = calloc(1, sizeof **list);
        snprintf(list[i]->name, sizeof list[i]->name, "%s", fake.device[i].name);
        list[i]->transport_type = fake.device[i].iwarp ? IBV_TRANSPORT_IWARP : IBV_TRANSPORT_IB;
    }
    *count = fake.devices;
    fake.alive++;
    return list;
}

static void free_device_list(struct ibv_device **list)
{
    for (int i = 0; list[i]; i++)
        free(list[i]);
    free(list);
    fake.alive--;
}

static const char *get_device_name(struct ibv_device *d)
{
    return d->name;
}

static struct ibv_context *open_device(struct ibv_device *d)
{
    context *c = calloc(1, sizeof *c);
    for (int i = 0; i < fake.devices; i++)
        if (!strcmp(fake.device[i].name, d->name))
            c->device = &fake.device[i];
    if (c->device->refuse_open) {
        free(c);
        errno = EACCES;
        return NULL;
    }
    c->base.async_fd = eventfd(0, EFD_NONBLOCK);
    c->next = contexts;
    contexts = c;
    fake.alive++;
    return &c->base;
}

static int close_device(struct ibv_context *base)
{
    context *c = (context *)base, **at = &contexts;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    if (c->unacknowledged)
        violation("%d asynchronous events were not acknowledged", c->unacknowledged);
    close(base->async_fd);
    free(c);
    fake.alive--;
    return 0;
}

static int query_device(struct ibv_context *c, struct ibv_device_attr *a)
{
    const fake_device *d = ((context *)c)->device;
    memset(a, 0, sizeof *a);
    a->phys_port_cnt = 1;
    a->max_qp_wr = d->max_qp_wr;
    a->max_cqe = d->max_cqe;
    return 0;
}

static int query_port(struct ibv_context *c, uint8_t port, struct ibv_port_attr *a)
{
    const fake_device *d = ((context *)c)->device;
    (void)port;
    memset(a, 0, sizeof *a);
    a->state = d->active ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
    a->link_layer = d->ethernet ? IBV_LINK_LAYER_ETHERNET : IBV_LINK_LAYER_INFINIBAND;
    a->active_mtu = a->max_mtu = (enum ibv_mtu)d->mtu;
    a->active_speed = (uint8_t)d->speed;
    a->active_width = (uint8_t)d->width;
    a->lid = (uint16_t)d->lid;
    a->max_msg_sz = 1u << 30;
    return 0;
}

static ssize_t query_gid_table(struct ibv_context *c, struct ibv_gid_entry *e, size_t room)
{
    const fake_device *d = ((context *)c)->device;
    int n = 0;
    for (; n < d->gids && n < (int)room; n++)
        e[n] = (struct ibv_gid_entry){
            .gid = d->gid[n].gid,
            .gid_index = (uint32_t)d->gid[n].index,
            .port_num = 1,
            .gid_type = d->gid[n].type == FAKE_V2 ? IBV_GID_TYPE_ROCE_V2
                        : d->ethernet             ? IBV_GID_TYPE_ROCE_V1
                                                  : IBV_GID_TYPE_IB
        };
    return n;
}

static struct ibv_pd *alloc_pd(struct ibv_context *c)
{
    struct ibv_pd *pd = calloc(1, sizeof *pd);
    pd->context = c;
    fake.alive++;
    return pd;
}

static int dealloc_pd(struct ibv_pd *pd)
{
    free(pd);
    fake.alive--;
    return 0;
}

static struct ibv_ah *create_ah(struct ibv_pd *pd, struct ibv_ah_attr *a)
{
    const fake_device *d = ((context *)pd->context)->device;
    for (int i = 0; i < d->gids; i++)
        if (!memcmp(&a->grh.dgid, &d->gid[i].gid, 16) && d->gid[i].dead)
            return NULL;
    fake.alive++;
    return calloc(1, sizeof(struct ibv_ah));
}

static int destroy_ah(struct ibv_ah *ah)
{
    free(ah);
    fake.alive--;
    return 0;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *data, size_t size, unsigned access)
{
    if (fake.refuse_mr) {
        errno = ENOMEM;
        return NULL;
    }
    for (uint32_t i = 0; i < MRS; i++)
        if (!mrs[i].used) {
            mrs[i] = (struct mr){
                { .context = pd->context,
                  .pd = pd,
                  .addr = data,
                  .length = size,
                  .lkey = 0x1000 + i,
                  .rkey = 0x9000 + i },
                access,
                1
            };
            fake.alive++;
            return &mrs[i].base;
        }
    errno = ENOMEM;
    return NULL;
}

static int dereg_mr(struct ibv_mr *mr)
{
    ((struct mr *)mr)->used = 0;
    fake.alive--;
    return 0;
}

/* ---- completion queues ----------------------------------------------------------------------- */

static struct ibv_comp_channel *create_comp_channel(struct ibv_context *c)
{
    channel *h = calloc(1, sizeof *h);
    h->base.context = c;
    h->base.fd = eventfd(0, EFD_NONBLOCK);
    fake.alive++;
    return &h->base;
}

static int destroy_comp_channel(struct ibv_comp_channel *h)
{
    close(h->fd);
    free(h);
    fake.alive--;
    return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int entries, void *cookie, struct ibv_comp_channel *h,
                                int vector)
{
    cq *q = calloc(1, sizeof *q);
    (void)vector;
    q->base = (struct ibv_cq){ .context = c, .channel = h, .cq_context = cookie, .cqe = entries };
    fake.alive++;
    return &q->base;
}

static int destroy_cq(struct ibv_cq *base)
{
    channel *h = (channel *)base->channel;
    if (((cq *)base)->unacknowledged)
        violation("a completion queue was destroyed with events not acknowledged: this hangs");
    for (int i = h->first; i < h->last; i++)
        if (h->event[i % EVENTS] == (cq *)base)
            h->event[i % EVENTS] = NULL;
    armed -= ((cq *)base)->armed;
    free(base);
    fake.alive--;
    return 0;
}

static void complete(struct ibv_cq *base, const struct ibv_wc *wc)
{
    cq *q = (cq *)base;
    channel *h = (channel *)base->channel;
    if (q->last - q->first >= (unsigned)base->cqe)
        violation("a completion queue of %d overflowed", base->cqe);
    completions++;
    q->wc[q->last++ % QUEUE] = *wc;
    if (q->armed) {
        armed -= q->armed;
        q->armed = 0;
        h->event[h->last++ % EVENTS] = q;
        poke(base->channel->fd);
    }
}

static int req_notify_cq(struct ibv_cq *q, int solicited)
{
    (void)solicited;
    armed += !((cq *)q)->armed;
    ((cq *)q)->armed = 1;
    fake.notified++;
    return 0;
}

static int get_cq_event(struct ibv_comp_channel *base, struct ibv_cq **q, void **cookie)
{
    channel *h = (channel *)base;
    while (h->first < h->last) {
        cq *found = h->event[h->first++ % EVENTS];
        if (!found)
            continue;
        found->unacknowledged++;
        *q = &found->base;
        *cookie = found->base.cq_context;
        return 0;
    }
    unpoke(base->fd);
    errno = EAGAIN;
    return -1;
}

static void ack_cq_events(struct ibv_cq *q, unsigned n)
{
    ((cq *)q)->unacknowledged -= (int)n;
}

static int get_async_event(struct ibv_context *base, struct ibv_async_event *e)
{
    context *c = (context *)base;
    if (c->first == c->last) {
        unpoke(base->async_fd);
        errno = EAGAIN;
        return -1;
    }
    *e = c->event[c->first++ % EVENTS];
    c->unacknowledged++;
    return 0;
}

static void ack_async_event(struct ibv_async_event *e)
{
    (void)e;
    for (context *c = contexts; c; c = c->next)
        if (c->unacknowledged) {
            c->unacknowledged--;
            return;
        }
}

/* ---- queue pairs ----------------------------------------------------------------------------- */

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *a)
{
    context *c = (context *)pd->context;
    if ((int)a->cap.max_inline_data > c->device->max_inline || (int)a->cap.max_send_wr > c->device->max_qp_wr
        || (int)a->cap.max_recv_wr > c->device->max_qp_wr) {
        errno = EINVAL;
        return NULL;
    }
    for (uint32_t i = 0; i < QPS; i++)
        if (!qps[i]) {
            qp *q = qps[i] = calloc(1, sizeof *q);
            q->base = (struct ibv_qp){ .context = pd->context,
                                       .pd = pd,
                                       .send_cq = a->send_cq,
                                       .recv_cq = a->recv_cq,
                                       .qp_num = 100 + i,
                                       .state = IBV_QPS_RESET };
            q->owner = c;
            q->max_send = a->cap.max_send_wr;
            q->max_recv = a->cap.max_recv_wr;
            q->max_inline = a->cap.max_inline_data;
            fake.alive++;
            return &q->base;
        }
    errno = ENOMEM;
    return NULL;
}

static int destroy_qp(struct ibv_qp *q)
{
    qps[q->qp_num - 100] = NULL;
    free(q);
    fake.alive--;
    return 0;
}

static int modify_qp(struct ibv_qp *base, struct ibv_qp_attr *a, int mask)
{
    qp *q = (qp *)base;
    static const int needed[8] = {
        [IBV_QPS_INIT] = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
        [IBV_QPS_RTR] = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN
                        | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
        [IBV_QPS_RTS] = IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY
                        | IBV_QP_MAX_QP_RD_ATOMIC
    };
    if (mask != needed[a->qp_state])
        violation("a queue pair goes to state %d with attributes %x", a->qp_state, mask);
    if (a->qp_state == IBV_QPS_RTR) {
        if (a->ah_attr.is_global)
            text_of(a->ah_attr.grh.dgid.raw, q->dest_text, sizeof q->dest_text);
        if (fake.refuse_rtr_to && !strcmp(q->dest_text, fake.refuse_rtr_to))
            return ETIMEDOUT;
        q->dest = a->dest_qp_num;
    }
    base->state = a->qp_state;
    return 0;
}

static int post_recv(struct ibv_qp *base, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    qp *q = (qp *)base;
    *bad = wr;
    if (q->recv_last - q->recv_first >= q->max_recv) {
        violation("a receive queue of %u overflows", q->max_recv);
        return ENOMEM;
    }
    q->recv[q->recv_last % QUEUE].id = wr->wr_id;
    q->recv[q->recv_last++ % QUEUE].sge = *wr->sg_list;
    return 0;
}

static int key_fits(const struct ibv_pd *pd, uint32_t key, uint64_t address, uint64_t size, int remote)
{
    const uint32_t i = key - (remote ? 0x9000 : 0x1000);
    const struct mr *m = i < MRS ? &mrs[i] : NULL;
    return m && m->used && m->base.pd == pd && address >= (uintptr_t)m->base.addr
           && address + size <= (uintptr_t)m->base.addr + m->base.length
           && (!remote || (m->access & IBV_ACCESS_REMOTE_WRITE));
}

static void run(void);

/* One request of a chain. */
static int take_request(qp *q, const struct ibv_send_wr *wr)
{
    if (q->last - q->freed >= q->max_send) {
        violation("a send queue of %u overflows", q->max_send);
        return ENOMEM;
    }
    request *r = &q->send[q->last++ % QUEUE];
    r->wr = *wr;
    if (wr->num_sge)
        r->sge = *wr->sg_list;
    else
        r->sge = (struct ibv_sge){ 0 };
    if (r->sge.length > fake.longest)
        fake.longest = r->sge.length;
    if (wr->send_flags & IBV_SEND_INLINE) {
        if (r->sge.length > q->max_inline)
            violation("%u bytes go inline, %u may", r->sge.length, q->max_inline);
        memcpy(r->inlined, (void *)(uintptr_t)r->sge.addr, r->sge.length);
        r->sge.addr = (uintptr_t)r->inlined;
        fake.inlined++;
    }
    return 0;
}

static int post_send(struct ibv_qp *base, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    fake.posts++;
    for (; wr; wr = wr->next) {
        *bad = wr;
        const int refused = take_request((qp *)base, wr);
        if (refused)
            return refused;
    }
    if (armed)
        run();
    return 0;
}

static void break_qp(qp *q, uint64_t id, enum ibv_wc_status status)
{
    struct ibv_wc wc = { .wr_id = id, .status = status, .vendor_err = 0x81, .qp_num = q->base.qp_num };
    q->base.state = IBV_QPS_ERR;
    complete(q->base.send_cq, &wc);
    wc.status = IBV_WC_WR_FLUSH_ERR;
    while (q->first != q->last) {
        wc.wr_id = q->send[q->first++ % QUEUE].wr.wr_id;
        complete(q->base.send_cq, &wc);
    }
    while (q->recv_first != q->recv_last) {
        wc.wr_id = q->recv[q->recv_first++ % QUEUE].id;
        complete(q->base.recv_cq, &wc);
    }
}

/* Carries out the first request of a queue pair. */
static void carry_out(qp *q)
{
    request *r = &q->send[q->first++ % QUEUE];
    const struct ibv_send_wr *wr = &r->wr;
    const uint32_t size = wr->num_sge ? r->sge.length : 0;
    const void *from = (const void *)(uintptr_t)r->sge.addr;
    qp *to = q->dest >= 100 && q->dest < 100 + QPS ? qps[q->dest - 100] : NULL;
    const int wants_receive = wr->opcode != IBV_WR_RDMA_WRITE;
    struct ibv_wc wc = { .status = IBV_WC_SUCCESS,
                         .qp_num = q->base.qp_num,
                         .wr_id = wr->wr_id,
                         .opcode = wr->opcode == IBV_WR_SEND ? IBV_WC_SEND : IBV_WC_RDMA_WRITE };

    if (fake.fail_after && (!fake.fail_only_size || (int)size == fake.fail_only_size) && !--fake.fail_after) {
        break_qp(q, wr->wr_id, fake.fail_status);
        return;
    }
    if (!to || to->base.state == IBV_QPS_ERR || (fake.lost_to && !strcmp(fake.lost_to, q->dest_text))) {
        break_qp(q, wr->wr_id, IBV_WC_RETRY_EXC_ERR);
        return;
    }
    if (to->base.state != IBV_QPS_RTR && to->base.state != IBV_QPS_RTS)
        violation("a request comes before the other end is ready to receive");
    if (size && !(wr->send_flags & IBV_SEND_INLINE) && !key_fits(q->base.pd, r->sge.lkey, r->sge.addr, size, 0)) {
        violation("a local key does not fit");
        break_qp(q, wr->wr_id, IBV_WC_LOC_PROT_ERR);
        return;
    }
    if (wr->opcode != IBV_WR_SEND && size) {
        if (!key_fits(to->base.pd, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr, size, 1)) {
            violation("a remote key does not fit");
            break_qp(q, wr->wr_id, IBV_WC_REM_ACCESS_ERR);
            return;
        }
        memcpy((void *)(uintptr_t)wr->wr.rdma.remote_addr, from, size);
    }
    if (wants_receive) {
        if (to->recv_first == to->recv_last) {
            violation("a receive was not ready");
            break_qp(q, wr->wr_id, IBV_WC_RNR_RETRY_EXC_ERR);
            return;
        }
        const struct ibv_sge sge = to->recv[to->recv_first % QUEUE].sge;
        struct ibv_wc got = { .status = IBV_WC_SUCCESS,
                              .qp_num = to->base.qp_num,
                              .byte_len = size,
                              .wr_id = to->recv[to->recv_first++ % QUEUE].id };
        if (wr->opcode == IBV_WR_SEND) {
            if (size > sge.length || !key_fits(to->base.pd, sge.lkey, sge.addr, size, 0))
                violation("%u bytes are sent into a receive of %u", size, sge.length);
            else
                memcpy((void *)(uintptr_t)sge.addr, from, size);
            got.opcode = IBV_WC_RECV;
            fake.sends++;
        } else {
            got.opcode = IBV_WC_RECV_RDMA_WITH_IMM;
            got.imm_data = wr->imm_data;
            fake.immediates++;
        }
        complete(to->base.recv_cq, &got);
    }
    fake.writes += wr->opcode != IBV_WR_SEND && size > 0;
    if (wr->send_flags & IBV_SEND_SIGNALED) {
        fake.signalled++;
        complete(q->base.send_cq, &wc);
    }
}

/* Carries requests out: all of them, or in a random order until something can be polled. When
 * somebody may be asleep, all as well: a device goes on by itself. */
static void run(void)
{
    const unsigned before = completions;
    for (int again = 1; again && (!fake.reorder || armed || completions - before < 4);) {
        again = 0;
        fake.seed = fake.seed * 1103515245u + 12345u;
        const uint32_t from = fake.reorder ? (fake.seed >> 16) % QPS : 0;
        for (uint32_t i = 0; i < QPS && !(again && fake.reorder); i++) {
            qp *q = qps[(i + from) % QPS];
            if (q && q->base.state == IBV_QPS_RTS && q->first != q->last) {
                carry_out(q);
                again = 1;
            }
        }
    }
}

static int poll_cq(struct ibv_cq *base, int room, struct ibv_wc *wc)
{
    cq *q = (cq *)base;
    int n = 0;
    run();
    while (n < room && q->first != q->last) {
        wc[n] = q->wc[q->first++ % QUEUE];
        qp *owner = qps[wc[n].qp_num - 100];
        /* A send that is told frees itself and all before it. */
        for (unsigned i = owner ? owner->freed : 0; owner && i != owner->first; i++)
            if (owner->send[i % QUEUE].wr.wr_id == wc[n].wr_id && !(wc[n].wr_id >> 63)) {
                owner->freed = i + 1;
                break;
            }
        n++;
    }
    return n;
}

static const char *wc_status_str(enum ibv_wc_status s)
{
    return s == IBV_WC_RETRY_EXC_ERR  ? "transport retry counter exceeded"
           : s == IBV_WC_WR_FLUSH_ERR ? "Work Request Flushed Error"
                                      : "some error";
}

static const char *event_type_str(enum ibv_event_type t)
{
    return t == IBV_EVENT_DEVICE_FATAL ? "device fatal" : t == IBV_EVENT_PORT_ERR ? "port error" : "some event";
}

/* clang-format off */
const net_verbs_api fake_verbs = {
    get_device_list, free_device_list, get_device_name, open_device, close_device, query_device,
    query_port, query_gid_table, alloc_pd, dealloc_pd, reg_mr, dereg_mr, create_comp_channel,
    destroy_comp_channel, create_cq, destroy_cq, poll_cq, req_notify_cq, get_cq_event, ack_cq_events,
    create_qp, modify_qp, destroy_qp, post_send, post_recv, create_ah, destroy_ah, get_async_event,
    ack_async_event, wc_status_str, event_type_str,
};
/* clang-format on */
