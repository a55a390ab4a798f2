/* SPDX-License-Identifier: MIT */
/* host/cli/doctor_verbs.c - what keeps RDMA from being used, and the fix.
 *
 *   adapters on the PCI bus  ->  kernel modules  ->  /dev/infiniband  ->  the library  ->  devices
 *       ->  ports (cable, MTU, GIDs)  ->  memory that may be locked
 *
 * Most machines have no RDMA, and that is no fault: nothing is BAD before the kernel has a
 * device.                                                                                 */
#include "host/cli/doctor_verbs.h"

#ifdef GT_VERBS

#include "host/base/text.h"
#include "net/transport/verbs_survey.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Calls visit for every entry of a folder but dot files; returns how many. */
static int each_entry(const char *folder, void (*visit)(void *context, const char *name), void *context)
{
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (*e->d_name != '.') {
            count++;
            if (visit)
                visit(context, e->d_name);
        }
    if (dir)
        closedir(dir);
    return count;
}

static int read_line(char *out, size_t size, const char *path)
{
    FILE *file = fopen(path, "re");
    const int read = file && fgets(out, (int)size, file);
    if (file)
        fclose(file);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    return read;
}

/* Counts adapters of vendors that sell RDMA, by vendor and class (02: network, 0c06: InfiniBand). */
static void count_adapter(void *context, const char *name)
{
    static const struct {
        const char *vendor, *name;
    } vendors[] = { { "0x15b3", "NVIDIA Mellanox" },
                    { "0x14e4", "Broadcom" },
                    { "0x1425", "Chelsio" },
                    { "0x19e5", "Huawei" },
                    { "0x1dd8", "AMD Pensando" } };
    char path[300], vendor[32], class[32], *found = context;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vendor", name);
    if (!read_line(vendor, sizeof vendor, path))
        return;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/class", name);
    if (!read_line(class, sizeof class, path) || (strncmp(class, "0x02", 4) && strncmp(class, "0x0c06", 6)))
        return;
    for (size_t i = 0; i < sizeof vendors / sizeof *vendors; i++)
        if (!strcmp(vendor, vendors[i].vendor))
            snprintf(found, 128, "%s adapter at %.40s", vendors[i].name, name);
}

static int is_container(void)
{
    char line[8];
    return access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0
           || read_line(line, sizeof line, "/run/systemd/container");
}

typedef struct rights {
    int nodes, refused;
    char name[128], error[96];
} rights;

static void check_node(void *context, const char *name)
{
    rights *r = context;
    char path[300];
    if (strncmp(name, "uverbs", 6))
        return;
    snprintf(path, sizeof path, "/dev/infiniband/%s", name);
    r->nodes++;
    if (access(path, R_OK | W_OK)) {
        r->refused++;
        snprintf(r->name, sizeof r->name, "%.120s", path);
        snprintf(r->error, sizeof r->error, "%s", strerror(errno));
    }
}

/* 1: devices can be looked for. What the kernel has is seen in sysfs, even from a container. */
static int check_kernel(cli_say_good *good, cli_say_bad *bad)
{
    char adapter[128] = "";
    rights r = { 0 };
    const int devices = each_entry("/sys/class/infiniband", NULL, NULL);
    each_entry("/sys/bus/pci/devices", count_adapter, adapter);
    if (!devices) {
        if (*adapter)
            good("no RDMA device here: ranks on several hosts use tcp; if the %s can do RDMA, its driver "
                 "(mlx5_ib, bnxt_re, irdma, ...) wants to be loaded: modprobe says why it cannot",
                 adapter);
        else
            good("no RDMA device here: ranks on several hosts use tcp");
        return 0;
    }
    if (access("/sys/class/infiniband_verbs", F_OK)) {
        bad("modprobe ib_uverbs",
            "the kernel has %d RDMA device%s, but its module ib_uverbs, which "
            "programs need, is not loaded",
            devices, devices == 1 ? "" : "s");
        return 1;
    }
    each_entry("/dev/infiniband", check_node, &r);
    if (!r.nodes && is_container())
        bad("start the container with --device=/dev/infiniband and --ulimit memlock=-1 (Kubernetes: "
            "an RDMA device plugin)",
            "the kernel has %d RDMA device%s, but this container was not "
            "given /dev/infiniband",
            devices, devices == 1 ? "" : "s");
    else if (!r.nodes)
        bad("install rdma-core, whose udev rules make them, and `udevadm trigger`",
            "the kernel has %d RDMA device%s, but there are no /dev/infiniband/uverbs*", devices,
            devices == 1 ? "" : "s");
    else if (r.refused)
        bad("rdma-core's udev rules give them mode 0666: install it, or add yourself to the group that "
            "owns them",
            "%s may not be opened: %s", r.name, r.error);
    else
        good("the kernel has %d RDMA device%s, and their files may be opened", devices, devices == 1 ? "" : "s");
    return 1;
}

/* ---- ports ---------------------------------------------------------------------------------- */

static void say_gids(const net_verbs_survey_port *p, cli_say_good *good)
{
    for (int i = 0; i < p->gids; i++) {
        const net_verbs_survey_gid *g = &p->gid[i];
        good("    GID %d %s (%s)%s", g->index, g->address, g->kind,
             g->chosen        ? ": tried first, unless the peer's fit another better"
             : g->operational ? ""
                              : ": not operational, left out");
    }
}

static void check_port(const net_verbs_survey_port *p, cli_say_good *good, cli_say_bad *bad)
{
    char numa[48] = "";
    if (!p->wanted) {
        good("%s:%d is left out by the network setting hca", p->device, p->number);
        return;
    }
    if (p->trouble[0]) {
        const char *fix = "check the kernel's log (dmesg)";
        if (strstr(p->trouble, "not active"))
            fix = strcmp(p->layer, "Ethernet")
                      ? "check the cable, and that a subnet manager (opensm) runs on the fabric"
                      : "check the cable, and set its interface up: `ip link set DEV up`";
        else if (strstr(p->trouble, "GID"))
            fix = "give its interface an address (`rdma link` names it), and leave gid-index unset";
        else if (strstr(p->trouble, "does not open"))
            fix = "check the rights of /dev/infiniband/uverbs*; in a container, that they are passed in";
        else if (strstr(p->trouble, "iWARP"))
            fix = "nothing: ranks use tcp over it";
        bad(fix, "%s:%d is not used: %s", p->device, p->number, p->trouble);
        return;
    }
    if (p->numa >= 0)
        snprintf(numa, sizeof numa, ", NUMA node %d", p->numa);
    good("%s:%d is active: %s%s, %.3g Gb/s, MTU %d of at most %d%s", p->device, p->number, p->layer,
         p->software ? " (in software)" : "", p->speed / 1000.0, p->mtu, p->greatest_mtu, numa);
    if (!strcmp(p->layer, "Ethernet") && p->mtu < p->greatest_mtu && p->mtu < 4096)
        good("    a greater MTU carries more: `ip link set DEV mtu 4200` (and the switch's ports) gives "
             "4096, `mtu 9000` as well");
    say_gids(p, good);
}

static void check_memlock(const net_verbs_survey *s, cli_say_good *good, cli_say_bad *bad)
{
    char a[32], b[32];
    if (s->memlock == UINT64_MAX)
        good("memory may be locked without limit, as RDMA needs it");
    else if (s->memlock < s->need)
        bad("`memlock unlimited` for your user in /etc/security/limits.conf and log in again; "
            "`docker run --ulimit memlock=-1`; LimitMEMLOCK=infinity in a systemd unit",
            "only %s of memory may be locked, RDMA needs %s and the size of what is sent: ranks will "
            "use tcp",
            gt_format_bytes(a, sizeof a, s->memlock), gt_format_bytes(b, sizeof b, s->need));
    else
        good("%s of memory may be locked; RDMA needs %s and the size of what is sent, so `ulimit -l "
             "unlimited` is better",
             gt_format_bytes(a, sizeof a, s->memlock), gt_format_bytes(b, sizeof b, s->need));
}

void doctor_verbs(cli_say_good *good, cli_say_bad *bad)
{
    net_config *config;
    net_verbs_survey *s = NULL;
    if (net_config_read(&config))           /* doctor_net() has said it */
        return;
    if (!config->verbs)
        good("RDMA is switched off by the network setting verbs");
    else if (check_kernel(good, bad) && !net_verbs_survey_take(&s, config)) {
        if (s->trouble[0])
            bad("install libibverbs1 and ibverbs-providers; inside a container, the same version as on "
                "the host is best",
                "%s", s->trouble);
        for (int i = 0; i < s->ports; i++)
            check_port(&s->port[i], good, bad);
        if (s->ports)
            check_memlock(s, good, bad);
    }
    free(s);
    net_config_release(config);
}

#else

void doctor_verbs(cli_say_good *good, cli_say_bad *bad)
{
    (void)bad;
    good("this build has no RDMA (it was configured with GT_VERBS=OFF)");
}

#endif
