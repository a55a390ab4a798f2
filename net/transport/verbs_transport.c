/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_transport.c - RDMA over libibverbs, as one of the transports.
 *
 * See verbs_private.h for the parts. Here: the table of the seam, opening, and counters. */
#include "net/transport/verbs_private.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond links and arenas: what transfers from elsewhere are staged in. */
static const uint64_t staging_need = 32u << 20;

enum { AHEAD = 2 << 20 };              /* bytes that keep 400 Gb/s busy for 40 us */

/* ---- counters ------------------------------------------------------------------------------- */

static const char *const names[NET_VERBS_COUNTS] = {
    [NET_VERBS_WIRE_BYTES] = "wire bytes",
    [NET_VERBS_POSTS] = "posts",
    [NET_VERBS_MESSAGES] = "messages",
    [NET_VERBS_MESSAGE_SENDS] = "sends of messages",
    [NET_VERBS_CREDIT_MESSAGES] = "credit messages",
    [NET_VERBS_WRITES] = "writes",
    [NET_VERBS_INLINED] = "inlined requests",
    [NET_VERBS_SIGNALLED] = "signalled completions",
    [NET_VERBS_CREDIT_STALLS] = "credit stalls",
    [NET_VERBS_QUEUE_STALLS] = "send queue stalls",
    [NET_VERBS_STAGED_BYTES] = "staged bytes",
    [NET_VERBS_REGISTRATIONS] = "registrations",
};

static uint64_t read_number(const char *path)
{
    char line[64];
    return net_verbs_sysfs(line, sizeof line, "%s", path) ? strtoull(line, NULL, 10) : 0;
}

/* The device's own: retransmissions, sequence errors, congestion marks... whatever it has. */
static void find_hardware_counters(net_verbs_transport *t, const net_verbs_port *p)
{
    char folder[160];
    const char *device = t->device[p->device].name;
    snprintf(folder, sizeof folder, "/sys/class/infiniband/%s/ports/%d/hw_counters", device, p->number);
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        net_verbs_hardware *grown;
        if (*e->d_name == '.' || !strcmp(e->d_name, "lifespan"))
            continue;
        grown = realloc(t->hardware, (size_t)(t->hardware_count + 1) * sizeof *grown);
        if (!grown)
            break;
        t->hardware = grown;
        net_verbs_hardware *h = &t->hardware[t->hardware_count++];
        snprintf(h->name, sizeof h->name, "%s:%d %.80s", device, p->number, e->d_name);
        snprintf(h->path, sizeof h->path, "%s/%.120s", folder, e->d_name);
        h->before = read_number(h->path);
    }
    if (dir)
        closedir(dir);
}

static int counter(net_transport *base, int index, const char **name, uint64_t *value)
{
    const net_verbs_transport *t = (const net_verbs_transport *)base;
    if (index < NET_VERBS_COUNTS) {
        *name = names[index];
        *value = t->count[index];
        return 1;
    }
    index -= NET_VERBS_COUNTS;
    if (index >= t->hardware_count)
        return 0;
    *name = t->hardware[index].name;
    *value = read_number(t->hardware[index].path) - t->hardware[index].before;
    return 1;
}

/* ---- opening and closing -------------------------------------------------------------------- */

static void close_all(net_transport *base)
{
    net_verbs_transport *t = (net_verbs_transport *)base;
    if (!t)
        return;
    while (t->links)
        net_verbs_link_free(t->links);
    if (t->hooked)
        net_memory_unhook(t->base.memory, NET_VERBS_HOOK);
    net_verbs_pool_release(t);
    net_verbs_devices_close(t);
    free(t->hardware);
    free(t);
}

uint64_t net_verbs_need(const net_config *config, int devices, int ranks)
{
    return (uint64_t)devices * (staging_need + net_verbs_link_bytes(config) * (uint64_t)(ranks - 1));
}

static gt_status open_all(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd)
{
    const net_config *config = net_job_config(job);
    *out = NULL;
    if (!config->verbs)
        return gt_fail(GT_UNSUPPORTED, "cannot use RDMA: the setting `verbs` is 0");
    net_verbs_transport *t = calloc(1, sizeof *t);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for the verbs transport");
    t->base = (net_transport){
        &net_verbs, job, config, memory, events, poll_fd, (size_t)config->eager, .ahead = AHEAD
    };
    gt_status st = net_verbs_api_load(&t->api);
    if (!st)
        st = net_verbs_devices_open(t);
    if (!st)
        st = net_verbs_memlock_check(net_verbs_need(config, t->devices, net_job_size(job)));
    if (!st) {
        st = net_memory_hook(memory, NET_VERBS_HOOK, net_verbs_arena_add, net_verbs_arena_drop, t);
        t->hooked = !st;
    }
    for (int i = 0; !st && i < t->ports; i++)
        find_hardware_counters(t, &t->port[i]);
    if (st) {
        gt_saved_message why;
        gt_message_save(&why);          /* closing may say something too */
        close_all(&t->base);
        gt_message_restore(&why);
        return st == GT_MISUSE ? GT_MISUSE : GT_UNSUPPORTED;
    }
    *out = &t->base;
    return GT_OK;
}

const net_transport_ops net_verbs = {
    .name = "verbs",
    .open = open_all,
    .close = close_all,
    .offer = net_verbs_offer,
    .connect = net_verbs_connect,
    .disconnect = net_verbs_disconnect,
    .send = net_verbs_send,
    .expose = net_verbs_expose,
    .put = net_verbs_put_start,
    .progress = net_verbs_progress,
    .arm = net_verbs_arm,
    .disarm = net_verbs_disarm,
    .flush = net_verbs_message_flush,
    .describe = net_verbs_describe,
    .counter = counter,
};
