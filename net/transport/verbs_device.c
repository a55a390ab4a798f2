/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_device.c - devices, their ports and GIDs, and what they report unasked.
 *
 * Every active port of every device that config->hca wants is opened once for the whole
 * communicator. A device that cannot be opened, a port that is down, a GID that is not
 * operational is left out with a line at level debug: hosts with one dead port of four are
 * common, and the link matrix shows what is used. Whether a GID works is asked of the device
 * itself, by making an address handle to it: the table also holds entries of interfaces that
 * are down or belong to another network namespace.                                        */
#include "net/transport/verbs_private.h"

#include "host/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { TABLE = 1024, WIDEST_MTU = 5 };

int net_verbs_sysfs(char *out, size_t size, const char *format, ...)
{
    char path[PATH_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    FILE *file = fopen(path, "re");
    char *line = file ? fgets(out, (int)size, file) : NULL;
    if (file)
        fclose(file);
    if (!line)
        return 0;
    out[strcspn(out, "\n")] = '\0';
    return 1;
}

uint32_t net_verbs_port_speed(const struct ibv_port_attr *attr)
{
    /* Mbit/s of one lane by the bit that is set; 10 Gb/s twice: QDR and FDR10. */
    static const uint32_t lane[8] = { 2500, 5000, 10000, 10000, 14000, 25000, 50000, 100000 };
    static const uint32_t lanes[5] = { 1, 4, 8, 12, 2 };
    uint32_t speed = lane[0], width = lanes[0];
    for (int i = 0; i < 8; i++)
        if (attr->active_speed >> i & 1)
            speed = lane[i];
    for (int i = 0; i < 5; i++)
        if (attr->active_width >> i & 1)
            width = lanes[i];
    return speed * width;
}

static uint8_t mtu_of(uint8_t active, int wanted)
{
    uint8_t mtu = active < 1 ? 1 : active > WIDEST_MTU ? WIDEST_MTU : active;
    while (wanted > 0 && mtu > 1 && (128 << mtu) > wanted)
        mtu--;
    return mtu;
}

/* ---- GIDs ----------------------------------------------------------------------------------- */

/* Bits of the subnet that an interface of ours gives to this address; 0: none has it. */
static uint8_t prefix_of(const net_verbs_gid *g)
{
    struct ifaddrs *list, *i;
    int bits = 0;
    if (getifaddrs(&list))
        return 0;
    for (i = list; i && !bits; i = i->ifa_next) {
        const int ipv4 = i->ifa_addr && i->ifa_addr->sa_family == AF_INET;
        if (!i->ifa_addr || !i->ifa_netmask || ipv4 != net_verbs_gid_is_ipv4(g)
            || (!ipv4 && i->ifa_addr->sa_family != AF_INET6))
            continue;
        const void *address = ipv4 ? (void *)&((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr
                                   : &((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr;
        const unsigned char *mask = ipv4 ? (void *)&((struct sockaddr_in *)(void *)i->ifa_netmask)->sin_addr
                                         : (void *)&((struct sockaddr_in6 *)(void *)i->ifa_netmask)->sin6_addr;
        const int size = ipv4 ? 4 : 16;
        if (memcmp(address, g->raw + 16 - size, (size_t)size))
            continue;
        bits = 128 - 8 * size;
        for (int b = 0; b < 8 * size && mask[b / 8] >> (7 - b % 8) & 1; b++)
            bits++;
    }
    freeifaddrs(list);
    return (uint8_t)bits;
}

static int is_operational(net_verbs_device *d, uint8_t port, const net_verbs_gid *g)
{
    struct ibv_ah_attr attr = { .is_global = 1, .port_num = port };
    memcpy(attr.grh.dgid.raw, g->raw, sizeof g->raw);
    attr.grh.sgid_index = g->index;
    attr.grh.hop_limit = 255;
    struct ibv_ah *ah = d->api->create_ah(d->pd, &attr);
    if (!ah)
        return 0;
    d->api->destroy_ah(ah);
    return 1;
}

/* Is the entry's interface one of this network namespace? */
static int is_ours(const struct ibv_gid_entry *e)
{
    char name[IF_NAMESIZE];
    return !e->ndev_ifindex || if_indextoname(e->ndev_ifindex, name);
}

int net_verbs_port_gids(net_verbs_device *d, net_verbs_port *port, int only)
{
    const int ethernet = port->attr.link_layer == IBV_LINK_LAYER_ETHERNET;
    struct ibv_gid_entry *table = calloc(TABLE, sizeof *table);
    net_verbs_gid *found = calloc(TABLE, sizeof *found);
    const ssize_t entries = table && found ? d->api->query_gid_table(d->context, table, TABLE) : 0;
    int count = 0, kept = 0;
    char text[64];
    for (ssize_t i = 0; i < entries; i++) {
        const struct ibv_gid_entry *e = &table[i];
        if (e->port_num != port->number || e->gid_index > 255 || (only >= 0 && e->gid_index != (uint32_t)only)
            || (ethernet && !is_ours(e)))
            continue;
        net_verbs_gid *g = &found[count++];
        memcpy(g->raw, e->gid.raw, sizeof g->raw);
        g->index = (uint8_t)e->gid_index;
        g->type = !ethernet                             ? NET_VERBS_GID_IB
                  : e->gid_type == IBV_GID_TYPE_ROCE_V2 ? NET_VERBS_GID_V2
                                                        : NET_VERBS_GID_V1;
    }
    count = found ? net_verbs_gids_sort(found, count) : 0;
    for (int i = 0; i < count && kept < NET_VERBS_GIDS; i++) {
        if (ethernet && !is_operational(d, port->number, &found[i])) {
            gt_log(GT_LOG_DEBUG, "verbs", "%s:%d: GID %d (%s) is not operational", d->name, port->number,
                   found[i].index, net_verbs_gid_text(&found[i], text, sizeof text));
            continue;
        }
        port->offer.gid[kept] = found[i];
        if (ethernet)
            port->offer.gid[kept].prefix = prefix_of(&found[i]);
        kept++;
    }
    free(table);
    free(found);
    return kept;
}

/* ---- ports and devices ---------------------------------------------------------------------- */

/* 1 if the port may be used; else `why` says what is wrong with it. */
static int open_port(net_verbs_transport *t, int device, uint8_t number, char *why, size_t size)
{
    net_verbs_device *d = &t->device[device];
    net_verbs_port *p = &t->port[t->ports];
    memset(p, 0, sizeof *p);
    p->device = device;
    p->number = number;
    const int failed = d->api->query_port(d->context, number, &p->attr);
    const struct ibv_port_attr *a = &p->attr;
    if (failed) {
        snprintf(why, size, "%s:%d does not answer (%s)", d->name, number, strerror(failed));
        return 0;
    }
    if (a->state != IBV_PORT_ACTIVE) {
        snprintf(why, size,
                 "%s:%d is not active: check its cable, `ip link`, and on InfiniBand the "
                 "subnet manager",
                 d->name, number);
        return 0;
    }
    if (a->link_layer != IBV_LINK_LAYER_ETHERNET && a->link_layer != IBV_LINK_LAYER_INFINIBAND
        && a->link_layer != IBV_LINK_LAYER_UNSPECIFIED) {
        snprintf(why, size, "%s:%d has a link layer that is neither InfiniBand nor Ethernet", d->name, number);
        return 0;
    }
    net_verbs_port_offer *o = &p->offer;
    o->layer = a->link_layer == IBV_LINK_LAYER_ETHERNET ? NET_VERBS_ETHERNET : NET_VERBS_IB;
    o->mtu = mtu_of((uint8_t)a->active_mtu, t->base.config->ib_mtu);
    o->grh = (a->flags & IBV_QPF_GRH_REQUIRED) != 0;
    o->lid = a->lid;
    o->speed = net_verbs_port_speed(a);
    o->gids = (uint8_t)net_verbs_port_gids(d, p, t->base.config->gid_index);
    if (!o->gids) {
        if (t->base.config->gid_index >= 0)
            snprintf(why, size, "%s:%d has no usable GID %d; leave gid-index to be chosen", d->name, number,
                     t->base.config->gid_index);
        else
            snprintf(why, size, "%s:%d has no usable GID: give its interface an address", d->name, number);
        return 0;
    }
    return 1;
}

static void close_device(net_verbs_device *d)
{
    if (d->channel)
        d->api->destroy_comp_channel(d->channel);
    if (d->pd)
        d->api->dealloc_pd(d->pd);
    if (d->context)
        d->api->close_device(d->context);
    memset(d, 0, sizeof *d);
}

static int watch(const net_verbs_transport *t, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = 0 };
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return 0;
    return t->base.poll_fd < 0 || !epoll_ctl(t->base.poll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void open_device(net_verbs_transport *t, struct ibv_device *device, char *why, size_t size)
{
    net_verbs_device *d = &t->device[t->devices];
    const char *spec = t->base.config->hca;
    const int first = t->ports;
    d->api = t->api;
    snprintf(d->name, sizeof d->name, "%s", t->api->get_device_name(device));
    if (device->transport_type == IBV_TRANSPORT_IWARP) {
        snprintf(why, size, "%s is an iWARP device, which this program does not drive", d->name);
        return;
    }
    d->context = t->api->open_device(device);
    if (!d->context) {
        snprintf(why, size,
                 "%s does not open (%s): check the rights of /dev/infiniband/uverbs*, and in "
                 "a container that it is passed in",
                 d->name, strerror(errno));
        return;
    }
    if (t->api->query_device(d->context, &d->attr) || !(d->pd = t->api->alloc_pd(d->context))
        || !(d->channel = t->api->create_comp_channel(d->context)) || !watch(t, d->channel->fd)
        || !watch(t, d->context->async_fd)) {
        snprintf(why, size, "%s opens, but does not work (%s): check the kernel's log", d->name, strerror(errno));
        close_device(d);
        return;
    }
    /* Soft-RoCE gives itself the vendor number of nobody. */
    d->is_rxe = d->attr.vendor_id == 0xffffff;
    for (int i = 1; i <= d->attr.phys_port_cnt && t->ports < NET_VERBS_PORTS; i++)
        if (net_verbs_hca_wants(spec, d->name, i)) {
            if (open_port(t, t->devices, (uint8_t)i, why, size))
                t->ports++;
            else
                gt_log(GT_LOG_DEBUG, "verbs", "%s", why);
        }
    if (t->ports == first)
        close_device(d);
    else
        t->devices++;
}

/* The same order on all hosts of a kind: by place on the PCI bus, not by name. */
static int by_place(const void *a, const void *b)
{
    char path[PATH_MAX], place[2][PATH_MAX];
    const struct ibv_device *const d[2] = { *(struct ibv_device *const *)a, *(struct ibv_device *const *)b };
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/class/infiniband/%s/device", d[i]->name);
        if (!realpath(path, place[i]))
            strcpy(place[i], "~");                      /* virtual ones last */
    }
    const int order = strcmp(place[0], place[1]);
    return order ? order : strcmp(d[0]->name, d[1]->name);
}

gt_status net_verbs_devices_open(net_verbs_transport *t)
{
    const char *spec = t->base.config->hca;
    char why[512] = "", others[256] = "";
    int count = 0, wanted = 0;
    gt_status st = net_verbs_hca_check(spec);
    if (st)
        return st;
    struct ibv_device **list = t->api->get_device_list(&count);
    if (!list || !count) {
        if (list)
            t->api->free_device_list(list);
        return gt_fail(GT_UNSUPPORTED, "cannot use RDMA: this machine shows no RDMA device; "
                                       "`geartrain doctor` says what is missing");
    }
    qsort(list, (size_t)count, sizeof *list, by_place);
    for (int i = 0; i < count; i++) {
        const char *name = t->api->get_device_name(list[i]);
        if (net_verbs_hca_wants(spec, name, 0)) {
            wanted++;
            if (t->devices < NET_VERBS_DEVICES && t->ports < NET_VERBS_PORTS)
                open_device(t, list[i], why, sizeof why);
        } else {
            const size_t n = strlen(others);
            snprintf(others + n, sizeof others - n, "%s%s", n ? ", " : "", name);
        }
    }
    t->api->free_device_list(list);
    if (!wanted)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot use RDMA: no device is called as hca '%s' asks; there "
                       "are: %s",
                       spec, others);
    if (!t->ports)
        return gt_fail(GT_UNSUPPORTED, "cannot use RDMA: %s", *why ? why : "no port is usable");
    return GT_OK;
}

void net_verbs_devices_close(net_verbs_transport *t)
{
    for (int i = 0; i < t->devices; i++)
        close_device(&t->device[i]);
    t->devices = t->ports = 0;
}

/* ---- asynchronous events -------------------------------------------------------------------- */

static const char *sentence(const net_verbs_transport *t, const net_verbs_device *d, const struct ibv_async_event *e,
                            char *out, size_t size)
{
    snprintf(out, size, "device %s reports '%s'", d->name, t->api->event_type_str(e->event_type));
    return out;
}

static int uses(const net_verbs_link *link, const net_verbs_device *d, const struct ibv_async_event *e)
{
    const net_verbs_transport *t = link->t;
    for (int r = 0; r < link->rails; r++)
        if (link->rail[r].open && &t->device[t->port[link->rail[r].port].device] == d) {
            if (e->event_type == IBV_EVENT_DEVICE_FATAL
                || (e->event_type == IBV_EVENT_CQ_ERR && e->element.cq == link->rail[r].cq))
                return 1;
        }
    for (int i = 0; e->event_type != IBV_EVENT_DEVICE_FATAL && e->event_type != IBV_EVENT_CQ_ERR && i < link->lanes;
         i++)
        if (link->lane[i].qp && link->lane[i].qp == e->element.qp)
            return 1;
    return 0;
}

static void take_event(net_verbs_transport *t, net_verbs_device *d, const struct ibv_async_event *e)
{
    char text[256], peer[128], whole[512];
    sentence(t, d, e, text, sizeof text);
    switch (e->event_type) {
    case IBV_EVENT_DEVICE_FATAL: d->lost = 1;    /* fall through */
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        for (net_verbs_link *link = t->links; link; link = link->next)
            if (uses(link, d, e)) {
                net_job_name(t->base.job, link->base.peer, peer, sizeof peer);
                snprintf(whole, sizeof whole,
                         "cannot go on over verbs with %s: %s; check the kernel's "
                         "log, and the peer's",
                         peer, text);
                net_verbs_link_fail(link, GT_PEER, whole);
            }
        break;
    case IBV_EVENT_PORT_ERR:
    case IBV_EVENT_LID_CHANGE:
    case IBV_EVENT_PKEY_CHANGE:
    case IBV_EVENT_GID_CHANGE:
    case IBV_EVENT_SM_CHANGE:
        gt_log(GT_LOG_WARN, "verbs", "%s (port %d); transfers may stall or fail", text, e->element.port_num);
        break;
    default: gt_log(GT_LOG_DEBUG, "verbs", "%s", text);
    }
}

void net_verbs_async(net_verbs_transport *t)
{
    struct ibv_async_event event;
    for (int i = 0; i < t->devices; i++)
        while (!t->api->get_async_event(t->device[i].context, &event)) {
            take_event(t, &t->device[i], &event);
            t->api->ack_async_event(&event);    /* last: it releases what the event names */
        }
}
