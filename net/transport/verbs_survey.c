/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_survey.c - looks at all devices the way the transport does, and keeps what it
 * sees instead of only what it can use.                                                  */
#include "net/transport/verbs_survey.h"

#include "net/transport/verbs_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE = 256 };

static void take_gids(net_verbs_device *d, net_verbs_survey_port *p, const net_verbs_port_offer *usable)
{
    struct ibv_gid_entry *table = calloc(TABLE, sizeof *table);
    const ssize_t n = table ? d->api->query_gid_table(d->context, table, TABLE) : 0;
    for (ssize_t i = 0; i < n && p->gids < NET_SURVEY_GIDS; i++) {
        if (table[i].port_num != (uint32_t)p->number)
            continue;
        net_verbs_gid g = { .index = (uint8_t)table[i].gid_index };
        memcpy(g.raw, table[i].gid.raw, sizeof g.raw);
        g.type = strcmp(p->layer, "Ethernet") ? NET_VERBS_GID_IB
                 : table[i].gid_type == IBV_GID_TYPE_ROCE_V2
                     ? NET_VERBS_GID_V2
                     : NET_VERBS_GID_V1;
        net_verbs_survey_gid *s = &p->gid[p->gids];
        if (!net_verbs_gid_score(&g, &s->kind))
            continue;
        p->gids++;
        s->index = (int)table[i].gid_index;
        net_verbs_gid_text(&g, s->address, sizeof s->address);
        for (int k = 0; k < usable->gids; k++)
            if (usable->gid[k].index == g.index) {
                s->operational = 1;
                s->chosen = k == 0;
            }
    }
    free(table);
}

static void take_port(net_verbs_device *d, net_verbs_survey_port *p, const net_config *config)
{
    net_verbs_port port = { .number = (uint8_t)p->number };
    char line[32];
    const int failed = d->api->query_port(d->context, port.number, &port.attr);
    if (net_verbs_sysfs(line, sizeof line, "/sys/class/infiniband/%s/device/numa_node", d->name))
        p->numa = atoi(line);
    if (failed) {
        snprintf(p->trouble, sizeof p->trouble, "it does not answer: %s", strerror(failed));
        return;
    }
    p->active = port.attr.state == IBV_PORT_ACTIVE;
    p->mtu = 128 << port.attr.active_mtu;
    p->greatest_mtu = 128 << port.attr.max_mtu;
    p->speed = net_verbs_port_speed(&port.attr);
    snprintf(p->layer, sizeof p->layer, "%s",
             port.attr.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand");
    if (!p->active) {
        snprintf(p->trouble, sizeof p->trouble, "it is not active");
        return;
    }
    port.offer.gids = (uint8_t)net_verbs_port_gids(d, &port, config->gid_index);
    take_gids(d, p, &port.offer);
    if (!port.offer.gids)
        snprintf(p->trouble, sizeof p->trouble, "none of its GIDs is operational");
}

static void take_device(const net_verbs_api *api, struct ibv_device *device, net_verbs_survey *s,
                        const net_config *config)
{
    net_verbs_device d = { .api = api };
    net_verbs_survey_port shape = { .numa = -1, .number = 1 };
    snprintf(shape.device, sizeof shape.device, "%s", api->get_device_name(device));
    snprintf(d.name, sizeof d.name, "%s", shape.device);
    shape.wanted = net_verbs_hca_wants(config->hca, shape.device, 0);
    if (device->transport_type == IBV_TRANSPORT_IWARP)
        snprintf(shape.trouble, sizeof shape.trouble, "it is iWARP, which this program does not drive");
    else if (!(d.context = api->open_device(device)))
        snprintf(shape.trouble, sizeof shape.trouble, "it does not open: %s", strerror(errno));
    else if (api->query_device(d.context, &d.attr) || !(d.pd = api->alloc_pd(d.context)))
        snprintf(shape.trouble, sizeof shape.trouble, "it opens, but does not work: %s", strerror(errno));
    if (shape.trouble[0])
        s->port[s->ports++] = shape;
    for (int i = 1; !shape.trouble[0] && i <= d.attr.phys_port_cnt && s->ports < NET_SURVEY_PORTS; i++) {
        net_verbs_survey_port *p = &s->port[s->ports++];
        *p = shape;
        p->number = i;
        p->software = d.attr.vendor_id == 0xffffff;
        p->wanted = net_verbs_hca_wants(config->hca, shape.device, i);
        take_port(&d, p, config);
    }
    if (d.pd)
        api->dealloc_pd(d.pd);
    if (d.context)
        api->close_device(d.context);
}

gt_status net_verbs_survey_take(net_verbs_survey **out, const net_config *config)
{
    const net_verbs_api *api;
    int count = 0;
    *out = NULL;
    net_verbs_survey *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "no memory for the list of RDMA devices");
    s->memlock = net_verbs_memlock_limit();
    s->need = net_verbs_need(config, 1, 2);
    *out = s;
    if (net_verbs_api_load(&api)) {
        snprintf(s->trouble, sizeof s->trouble, "%s", gt_message());
        return GT_OK;
    }
    struct ibv_device **list = api->get_device_list(&count);
    if (!list || !count)
        snprintf(s->trouble, sizeof s->trouble, "libibverbs shows no device%s%s", list ? "" : ": ",
                 list ? "" : strerror(errno));
    for (int i = 0; list && i < count && s->ports < NET_SURVEY_PORTS; i++)
        take_device(api, list[i], s, config);
    if (list)
        api->free_device_list(list);
    return GT_OK;
}
