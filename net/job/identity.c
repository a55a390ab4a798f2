/* SPDX-License-Identifier: MIT */
/* net/job/identity.c - which rank this process is, from whatever started it.
 *
 *   GEARTRAIN_RANK SIZE LOCAL_RANK LOCAL_SIZE JOB ROOT PORTS SECRET LISTEN_FD   geartrain launch
 *   OMPI_COMM_WORLD_RANK or PMIX_RANK ...                                   PMIx
 *   SLURM_STEP_ID SLURM_PROCID SLURM_STEP_NUM_TASKS SLURM_STEP_NODELIST     Slurm
 *   RANK WORLD_SIZE MASTER_ADDR MASTER_PORT                                 torchrun and its like
 *
 * A launcher started by another leaves the other's variables in place: the innermost is followed.
 *
 * Slurm's and torchrun's ranks never spoke to each other, so port and secret must follow from
 * what all of them know: the port from the job's number, the secret from the user's file.
 * PORTS ports are tried in turn, for another job may have hashed to the same.            */
#include "net/job/identity.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "net/job/address.h"
#include "net/job/hello.h"
#include "net/job/hostlist.h"
#include "net/job/pmix_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 16, FIRST_PORT = 25000, LAST_PORT = 29999 };     /* below ephemeral ports     */

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* A variable that holds a number of at least `least`. */
static gt_status get_int(int *out, const char *name, int least, int most)
{
    uint64_t v = 0;
    const char *text = variable(name);
    if (!text)
        return gt_fail(GT_MISUSE, "the environment has no %s", name);
    if (gt_parse_u64(&v, text) || v > (uint64_t)most || (int)v < least)
        return gt_fail(GT_MISUSE, "%s is '%s'; it should be a number from %d to %d", name, text, least, most);
    *out = (int)v;
    return GT_OK;
}

static int int_or(const char *name, int standard)
{
    int v = standard;
    return variable(name) && !get_int(&v, name, 0, NET_WORLD) ? v : standard;
}

/* "host:port", "[fd00::1]:port". */
static gt_status set_root(net_identity *w, const char *text, const char *origin)
{
    uint64_t port = 0;
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (!colon || n == 0 || n >= sizeof w->host || gt_parse_u64(&port, colon + 1) || port < 1 || port > 65535)
        return gt_fail(GT_MISUSE, "%s is '%s'; it should be HOST:PORT", origin, text);
    snprintf(w->host, sizeof w->host, "%.*s", (int)n, text);
    w->port = (uint16_t)port;
    w->ports = 1;
    return GT_OK;
}

static gt_status secret_from_environment(net_identity *w)
{
    const char *text = variable("GEARTRAIN_SECRET");
    if (!text)
        return GT_OK;
    w->has_secret = 1;
    return net_secret_parse(w->secret, text, "the variable GEARTRAIN_SECRET");
}

/* From the user's file, mixed with the job's name. A job that stays on this machine, or that
 * the user calls insecure, may do without. */
static gt_status secret_from_file(net_identity *w, const net_config *config)
{
    unsigned char file[NET_SECRET];
    gt_status st = secret_from_environment(w);
    if (st || w->has_secret || w->size == 1)
        return st;
    st = net_secret_file(file, config->secret_file);
    if (st && config->insecure) {
        gt_log(GT_LOG_WARN, "net", "going on without a secret: %s", gt_message());
        return GT_OK;
    }
    if (st)
        return st;
    const net_span job = { w->job, strlen(w->job) };
    net_secret_mac(w->secret, file, "geartrain job's secret", &job, 1);
    w->has_secret = 1;
    return GT_OK;
}

/* ---- geartrain launch -------------------------------------------------------------------- */

static gt_status take_listener(net_identity *w)
{
    int fd = -1, listens = 0;
    socklen_t size = sizeof listens;
    if (!variable("GEARTRAIN_LISTEN_FD") || w->rank != 0)
        return GT_OK;
    gt_status st = get_int(&fd, "GEARTRAIN_LISTEN_FD", 3, 1 << 20);
    if (!st && (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens))
        st = gt_fail(GT_MISUSE, "GEARTRAIN_LISTEN_FD is %d, which does not listen", fd);
    if (st)
        return st;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    w->listen_fd = fd;
    return GT_OK;
}

static gt_status find_launch(net_identity *w, const net_config *config)
{
    (void)config;
    gt_status st = get_int(&w->rank, "GEARTRAIN_RANK", 0, NET_WORLD - 1);
    if (!st)
        st = get_int(&w->size, "GEARTRAIN_SIZE", 1, NET_WORLD);
    w->local_rank = int_or("GEARTRAIN_LOCAL_RANK", -1);
    w->local_size = int_or("GEARTRAIN_LOCAL_SIZE", -1);
    snprintf(w->source, sizeof w->source, "geartrain launch");
    snprintf(w->job, sizeof w->job, "%s", variable("GEARTRAIN_JOB") ? getenv("GEARTRAIN_JOB") : "launch");
    if (!st)
        st = set_root(w, variable("GEARTRAIN_ROOT") ? getenv("GEARTRAIN_ROOT") : "", "GEARTRAIN_ROOT");
    w->ports = (uint16_t)(int_or("GEARTRAIN_PORTS", 1));
    if (!st)
        st = secret_from_environment(w);
    return st ? st : take_listener(w);
}

/* ---- Slurm ------------------------------------------------------------------------------- */

/* The port of a job: the same on all its ranks, seldom that of another. */
static gt_status derive_port(net_identity *w, const net_config *config)
{
    uint16_t first, last;
    gt_status st = net_ports_parse(&first, &last, config->port_range);
    if (st)
        return st;
    if (!first) {
        first = FIRST_PORT;
        last = LAST_PORT;
    }
    const unsigned there = (unsigned)(last - first) + 1, ports = there < PORTS ? there : PORTS;
    w->ports = (uint16_t)ports;
    w->port = (uint16_t)(first + gt_hash(w->job, strlen(w->job)) % (there - ports + 1));
    return GT_OK;
}

static int resolves(const char *host)
{
    struct addrinfo *a = NULL;
    const int found = getaddrinfo(host, NULL, NULL, &a) == 0;
    if (found)
        freeaddrinfo(a);
    return found;
}

/* A node's name need not be a host's: Slurm knows its address. The name came through the
 * grammar of host lists, so it holds nothing that a shell would take for more. */
static void ask_slurm(char *host, size_t size)
{
    char command[400], line[4096];
    snprintf(command, sizeof command, "scontrol -o show node '%.255s' 2>/dev/null", host);
    FILE *f = popen(command, "re");
    if (!f)
        return;
    const char *at = fgets(line, sizeof line, f) ? strstr(line, " NodeAddr=") : NULL;
    if (at) {
        at += strlen(" NodeAddr=");
        snprintf(host, size, "%.*s", (int)strcspn(at, " \n"), at);
    }
    pclose(f);
}

/* Interactive and batch steps have numbers near 2^32; their processes are no ranks. */
static int in_slurm_step(void)
{
    uint64_t step = 0;
    return variable("SLURM_STEP_ID") && variable("SLURM_PROCID") && variable("SLURM_STEP_NUM_TASKS")
           && !gt_parse_u64(&step, getenv("SLURM_STEP_ID")) && step < UINT64_C(0xfffffff0);
}

static gt_status find_slurm(net_identity *w, const net_config *config)
{
    const char *nodes = variable("SLURM_STEP_NODELIST"), *tasks = variable("SLURM_STEP_TASKS_PER_NODE");
    int node = int_or("SLURM_NODEID", 0);
    if (!nodes)
        nodes = variable("SLURM_NODELIST");
    snprintf(w->source, sizeof w->source, "Slurm");
    gt_status st = get_int(&w->rank, "SLURM_PROCID", 0, NET_WORLD - 1);
    if (!st)
        st = get_int(&w->size, "SLURM_STEP_NUM_TASKS", 1, NET_WORLD);
    if (st)
        return st;
    w->local_rank = int_or("SLURM_LOCALID", -1);
    if (!tasks || net_tasks_get(&w->local_size, tasks, (uint64_t)node))
        w->local_size = -1;
    snprintf(w->job, sizeof w->job, "slurm-%.20s.%.20s-%.8s", variable("SLURM_JOB_ID") ? getenv("SLURM_JOB_ID") : "0",
             getenv("SLURM_STEP_ID"), variable("SLURM_RESTART_COUNT") ? getenv("SLURM_RESTART_COUNT") : "0");
    if (w->size == 1)
        return GT_OK;
    st = nodes ? net_hostlist_get(w->host, sizeof w->host, nodes, 0)
               : gt_fail(GT_MISUSE, "the environment has no SLURM_STEP_NODELIST");
    if (st)
        return gt_fail_in(st, "Slurm's environment");
    if (!resolves(w->host))
        ask_slurm(w->host, sizeof w->host);
    st = derive_port(w, config);
    return st ? st : secret_from_file(w, config);
}

/* ---- Open MPI, PMIx ---------------------------------------------------------------------- */

static gt_status find_pmix(net_identity *w, const net_config *config)
{
    const int ompi = variable("OMPI_COMM_WORLD_RANK") != NULL;
    gt_status st = pmix_find(w, config);
    snprintf(w->source, sizeof w->source, "%s", ompi ? "Open MPI" : "PMIx");
    if (st != GT_UNSUPPORTED || !ompi)
        return st;
    /* Without PMIx the variables tell the ranks, and the user must tell the place. */
    st = get_int(&w->rank, "OMPI_COMM_WORLD_RANK", 0, NET_WORLD - 1);
    if (!st)
        st = get_int(&w->size, "OMPI_COMM_WORLD_SIZE", 1, NET_WORLD);
    if (!st && w->size > 1 && !config->rendezvous[0])
        return gt_fail(GT_UNSUPPORTED,
                       "cannot find rank 0 under Open MPI: %s; install libpmix2, or give "
                       "all ranks rank 0's HOST:PORT in the network setting rendezvous",
                       gt_message());
    w->local_rank = int_or("OMPI_COMM_WORLD_LOCAL_RANK", -1);
    w->local_size = int_or("OMPI_COMM_WORLD_LOCAL_SIZE", -1);
    snprintf(w->job, sizeof w->job, "ompi-%.56s", variable("PMIX_NAMESPACE") ? getenv("PMIX_NAMESPACE") : "0");
    return st ? st : secret_from_file(w, config);
}

/* ---- torchrun ---------------------------------------------------------------------------- */

static gt_status find_torchrun(net_identity *w, const net_config *config)
{
    int port = 0;
    const char *run = variable("TORCHELASTIC_RUN_ID"), *host = variable("MASTER_ADDR");
    const char *restart = variable("TORCHELASTIC_RESTART_COUNT");
    snprintf(w->source, sizeof w->source, "torchrun");
    gt_status st = get_int(&w->rank, "RANK", 0, NET_WORLD - 1);
    if (!st)
        st = get_int(&w->size, "WORLD_SIZE", 1, NET_WORLD);
    if (st)
        return st;
    w->local_rank = int_or("LOCAL_RANK", -1);
    w->local_size = int_or("LOCAL_WORLD_SIZE", -1);
    snprintf(w->job, sizeof w->job, "torchrun-%.30s-%.8s", run ? run : "0", restart ? restart : "0");
    if (w->size == 1)
        return GT_OK;
    if (!host && config->rendezvous[0])
        return secret_from_file(w, config);
    st = get_int(&port, "MASTER_PORT", 1, 65535);
    if (!st && !host)
        st = gt_fail(GT_MISUSE, "the environment has no MASTER_ADDR");
    if (st)
        return st;
    snprintf(w->host, sizeof w->host, "%s", host);
    /* torchrun's own store listens on MASTER_PORT; a stand-in that only sets the variables
     * leaves it free. Either way the ports behind it will do. */
    w->port = (uint16_t)(run && port < 65535 ? port + 1 : port);
    w->ports = (uint16_t)(65535 - w->port < PORTS - 1 ? 65535 - w->port + 1 : PORTS);
    return secret_from_file(w, config);
}

/* ---- all --------------------------------------------------------------------------------- */

/* The rendezvous setting overrides where, not who; a socket that listens elsewhere is closed.
 * NCCL_COMM_ID overrides no launcher that knows the place. */
static gt_status apply_rendezvous(net_identity *w, const net_config *config)
{
    if (!config->rendezvous[0] || w->size == 1 || (w->port && net_config_is_foreign(config, "rendezvous")))
        return GT_OK;
    if (w->listen_fd >= 0)
        close(w->listen_fd);
    w->listen_fd = -1;
    return set_root(w, config->rendezvous, "the network setting rendezvous");
}

/* What a launcher's variables say of this process, read without joining anything. */
typedef struct candidate {
    const char *name;
    int there;
    int rank, size;                     /* -1: cannot be read, or needs more than variables  */
    gt_status (*find)(net_identity *w, const net_config *config);
} candidate;

/* Innermost first. torchrun stands inside srun and mpirun, which start one of it on each host; mpirun
 * stands inside Slurm, whose srun starts its daemons; and whatever of these has left variables
 * beside those of `geartrain launch` stands inside that, which removes what it finds. */
enum { TORCHRUN, PMIX, SLURM, LAUNCH, BY_HAND, CANDIDATES };

static void find_candidates(candidate s[CANDIDATES])
{
    const int ompi = variable("OMPI_COMM_WORLD_RANK") != NULL;
    const int by_hand = variable("RANK") && variable("WORLD_SIZE");
    const int elastic = by_hand && variable("TORCHELASTIC_RUN_ID");
    s[TORCHRUN] = (candidate){ "torchrun", elastic, int_or("RANK", -1), int_or("WORLD_SIZE", -1), find_torchrun };
    s[PMIX] = (candidate){ ompi ? "Open MPI" : "PMIx", ompi || (variable("PMIX_RANK") && variable("PMIX_NAMESPACE")),
                           int_or(ompi ? "OMPI_COMM_WORLD_RANK" : "PMIX_RANK", -1), int_or("OMPI_COMM_WORLD_SIZE", -1),
                           find_pmix };
    s[SLURM] = (candidate){ "Slurm", in_slurm_step(), int_or("SLURM_PROCID", -1), int_or("SLURM_STEP_NUM_TASKS", -1),
                            find_slurm };
    s[LAUNCH] = (candidate){ "geartrain launch", variable("GEARTRAIN_RANK") != NULL, int_or("GEARTRAIN_RANK", -1),
                             int_or("GEARTRAIN_SIZE", -1), find_launch };
    s[BY_HAND] = (candidate){ "RANK and WORLD_SIZE", by_hand && !elastic, s[TORCHRUN].rank, s[TORCHRUN].size,
                              find_torchrun };
}

/* Variables of torchrun's without torchrun: set by a script for the ranks that it starts, or left over
 * in a shell. Inside a launcher they count if they say the same, or divide what is one rank there. */
static gt_status weigh_by_hand(const candidate *s, int *chosen)
{
    const candidate *hand = &s[BY_HAND], *outer = &s[*chosen];
    const int width = int_or("LOCAL_WORLD_SIZE", 1);
    if (outer->size < 0 || (hand->rank == outer->rank && hand->size == outer->size))
        return GT_OK;
    if (outer->size == 1
        || (outer->size > 1 && width > 1 && hand->size == outer->size * width && hand->rank / width == outer->rank)) {
        *chosen = BY_HAND;
        return GT_OK;
    }
    return gt_fail(GT_MISUSE,
                   "%s says that this is rank %d of %d, but the variables RANK and WORLD_SIZE say "
                   "rank %d of %d; unset these two if they are left over",
                   outer->name, outer->rank, outer->size, hand->rank, hand->size);
}

/* The launcher to follow, or CANDIDATES: none. */
static gt_status choose_candidate(const candidate *s, int *chosen)
{
    *chosen = 0;
    while (*chosen < CANDIDATES && !s[*chosen].there)
        ++*chosen;
    return *chosen < BY_HAND && s[BY_HAND].there ? weigh_by_hand(s, chosen) : GT_OK;
}

/* Once in a job, and only what differs. */
static void log_candidates(const candidate *s, int chosen, const net_identity *w)
{
    for (int i = 0; i < CANDIDATES; i++)
        if (i != chosen && s[i].there && s[i].size >= 0 && (s[i].rank != w->rank || s[i].size != w->size))
            gt_log(w->rank ? GT_LOG_INFO : GT_LOG_WARN, "net",
                   "this is rank %d of %d, as %s says; around it, "
                   "%s says rank %d of %d",
                   w->rank, w->size, s[chosen].name, s[i].name, s[i].rank, s[i].size);
}

gt_status net_identity_find(net_identity *out, const net_config *config)
{
    net_identity w = {
        .rank = 0,
        .size = 1,
        .local_rank = -1,
        .local_size = -1,
        .listen_fd = -1,
        .ports = 1,
        .source = "alone",
        .job = "alone",
        .host = "127.0.0.1"
    };
    candidate candidates[CANDIDATES];
    int chosen;
    find_candidates(candidates);
    gt_status st = choose_candidate(candidates, &chosen);
    if (!st && chosen < CANDIDATES)
        st = candidates[chosen].find(&w, config);
    /* srun's PMIx server without our library: Slurm's own variables do as well. */
    if (st == GT_UNSUPPORTED && chosen == PMIX && in_slurm_step())
        st = find_slurm(&w, config);
    if (!st)
        st = apply_rendezvous(&w, config);
    if (!st && w.rank >= w.size)
        st = gt_fail(GT_MISUSE, "%s says that this is rank %d of %d", w.source, w.rank, w.size);
    if (st)
        return st;
    *out = w;
    gt_log(GT_LOG_INFO, "net", "rank %d of %d, says %s; rank 0 is at %s:%d", w.rank, w.size, w.source, w.host, w.port);
    if (chosen < CANDIDATES)
        log_candidates(candidates, chosen, &w);
    return GT_OK;
}

void net_identity_forget(void (*forget)(void *context, const char *name), void *context)
{
    /* clang-format off */
    static const char *const names[] = { "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
        "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_PROCID" };
    /* clang-format on */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        forget(context, names[i]);
}
