/* SPDX-License-Identifier: MIT */
/* net/job/pmix_client.c - the rendezvous by PMIx.
 *
 *   rank 0   opens its listening socket, makes a secret, puts "host port secret"
 *   all      fence (with data), get rank 0's
 *
 * PMIx is a way to hand over one line. It is left again at once: the job's own links know
 * more of its ranks than PMIx does. Its library is dlopen()ed, for most machines have none. */
#include "net/job/pmix_client.h"

#include "net/job/address.h"
#include "net/job/secret.h"

#ifdef GT_PMIX

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pmix.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char key[] = "geartrain.root";

typedef struct pmix_api {
    pmix_status_t (*init)(pmix_proc_t *, pmix_info_t *, size_t);
    pmix_status_t (*finalize)(const pmix_info_t *, size_t);
    pmix_status_t (*put)(pmix_scope_t, const char *, pmix_value_t *);
    pmix_status_t (*commit)(void);
    pmix_status_t (*fence)(const pmix_proc_t *, size_t, const pmix_info_t *, size_t);
    pmix_status_t (*get)(const pmix_proc_t *, const char *, const pmix_info_t *, size_t, pmix_value_t **);
    const char *(*error)(pmix_status_t);
} pmix_api;

/* A function of the library; ISO C has no cast from object to function pointers. */
static int find(void *library, const char *name, void *out)
{
    void *symbol = dlsym(library, name);
    memcpy(out, &symbol, sizeof symbol);
    return symbol != NULL;
}

static gt_status load(pmix_api *api)
{
    static const char *const names[] = { "libpmix.so.2", "/usr/lib/x86_64-linux-gnu/libpmix.so.2",
                                         "/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so.2",
                                         "/usr/lib/aarch64-linux-gnu/pmix2/lib/libpmix.so.2" };
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_GLOBAL);
    if (!library || !find(library, "PMIx_Init", &api->init) || !find(library, "PMIx_Finalize", &api->finalize)
        || !find(library, "PMIx_Put", &api->put) || !find(library, "PMIx_Commit", &api->commit)
        || !find(library, "PMIx_Fence", &api->fence) || !find(library, "PMIx_Get", &api->get)
        || !find(library, "PMIx_Error_string", &api->error))
        return gt_fail(GT_UNSUPPORTED, "libpmix.so.2 cannot be loaded");
    return GT_OK;
}

static gt_status failed(const pmix_api *api, const char *what, pmix_status_t error)
{
    return gt_fail(GT_IO, "PMIx cannot %s: %s", what, api->error(error));
}

/* A number of this job or process; `standard` if the server does not tell. */
static int get_number(const pmix_api *api, const pmix_proc_t *of, const char *name, int standard)
{
    pmix_value_t *v = NULL;
    int number = standard;
    if (api->get(of, name, NULL, 0, &v) != PMIX_SUCCESS || !v)
        return number;
    if (v->type == PMIX_UINT32)
        number = (int)v->data.uint32;
    else if (v->type == PMIX_UINT16)
        number = (int)v->data.uint16;
    else if (v->type == PMIX_PROC_RANK)
        number = (int)v->data.rank;
    free(v);
    return number;
}

/* Rank 0 listens, and says where and with which secret. */
static gt_status open_root(net_identity *w, const net_config *config, char line[512])
{
    char host[96], secret[2 * NET_SECRET + 1];
    net_address at, shown;
    uint16_t first, last;
    struct sockaddr_in any = { .sin_family = AF_INET };
    gt_status st = net_ports_parse(&first, &last, config->port_range);
    const int local = w->local_size == w->size;
    if (!st && (config->interface[0] || !local))
        st = net_interface_choose(&shown, config->interface[0] ? config->interface : "^lo,docker,virbr,podman,cni,veth",
                                  NULL);
    if (st)
        return st;
    at = (net_address){ .size = sizeof any };
    if (local && !config->interface[0])
        any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memcpy(&at.at, &any, sizeof any);
    if (config->interface[0])
        at = shown;
    else if (local)
        shown = at;
    st = net_listen(&w->listen_fd, &at, first, (uint16_t)(first ? last - first + 1 : 1));
    if (!st)
        st = net_address_own(&at, w->listen_fd);
    if (st)
        return st;
    net_secret_random(w->secret, sizeof w->secret);
    net_secret_format(secret, w->secret);
    snprintf(line, 512, "%s %d %s", net_address_host(host, sizeof host, &shown), net_address_port(&at), secret);
    return GT_OK;
}

static gt_status share(const pmix_api *api, const pmix_proc_t *me, net_identity *w, char line[512])
{
    pmix_proc_t all, root;
    pmix_value_t value, *got = NULL;
    pmix_info_t collect;
    bool yes = true;
    pmix_status_t error = PMIX_SUCCESS;
    memset(&value, 0, sizeof value);
    memset(&collect, 0, sizeof collect);
    memset(&all, 0, sizeof all);
    memcpy(all.nspace, me->nspace, sizeof all.nspace);
    root = all;
    all.rank = PMIX_RANK_WILDCARD;
    root.rank = 0;
    if (w->rank == 0) {
        value.type = PMIX_STRING;
        value.data.string = line;
        error = api->put(PMIX_GLOBAL, key, &value);
        if (error == PMIX_SUCCESS)
            error = api->commit();
        if (error != PMIX_SUCCESS)
            return failed(api, "tell where rank 0 is", error);
    }
    snprintf(collect.key, sizeof collect.key, "%s", PMIX_COLLECT_DATA);
    collect.value.type = PMIX_BOOL;
    collect.value.data.flag = yes;
    error = api->fence(&all, 1, &collect, 1);
    if (error != PMIX_SUCCESS)
        return failed(api, "wait for all ranks", error);
    error = api->get(&root, key, NULL, 0, &got);
    if (error != PMIX_SUCCESS || !got || got->type != PMIX_STRING)
        return failed(api, "say where rank 0 is", error);
    snprintf(line, 512, "%s", got->data.string);
    free(got->data.string);
    free(got);
    return GT_OK;
}

static gt_status read_line(net_identity *w, const char *line)
{
    char secret[2 * NET_SECRET + 2];
    unsigned port;
    if (line[0] == '!')
        return gt_fail(GT_PEER, "rank 0 failed: %s", line + 1);
    if (sscanf(line, "%255s %5u %65s", w->host, &port, secret) != 3 || port > 65535)
        return gt_fail(GT_FORMAT, "PMIx says nothing sensible about where rank 0 is");
    w->port = (uint16_t)port;
    w->ports = 1;
    w->has_secret = 1;
    return net_secret_parse(w->secret, secret, "PMIx");
}

gt_status pmix_find(net_identity *w, const net_config *config)
{
    pmix_api api = { 0 };
    pmix_proc_t me, job;
    char line[512] = "";
    gt_status st = load(&api);
    if (st)
        return st;
    const pmix_status_t error = api.init(&me, NULL, 0);
    if (error != PMIX_SUCCESS)
        return gt_fail(GT_UNSUPPORTED, "the PMIx server does not answer: %s", api.error(error));
    memset(&job, 0, sizeof job);
    memcpy(job.nspace, me.nspace, sizeof job.nspace);
    job.rank = PMIX_RANK_WILDCARD;
    w->rank = (int)me.rank;
    w->size = get_number(&api, &job, PMIX_JOB_SIZE, 1);
    w->local_rank = get_number(&api, &me, PMIX_LOCAL_RANK, -1);
    w->local_size = get_number(&api, &job, PMIX_LOCAL_SIZE, -1);
    snprintf(w->job, sizeof w->job, "pmix-%.58s", me.nspace);
    if (w->rank == 0)
        st = open_root(w, config, line);
    /* A rank 0 that failed says why: the others must not wait in the fence, and mpirun may end them all before it has
     * passed on what the first of them to fail said. */
    if (st)
        snprintf(line, sizeof line, "!%.500s", gt_message());
    gt_status shared = share(&api, &me, w, line);
    if (!st)
        st = shared;
    api.finalize(NULL, 0);
    if (!st)
        st = read_line(w, line);
    if (st && w->listen_fd >= 0) {
        close(w->listen_fd);
        w->listen_fd = -1;
    }
    return st;
}

#else

gt_status pmix_find(net_identity *out, const net_config *config)
{
    (void)out;
    (void)config;
    return gt_fail(GT_UNSUPPORTED, "this geartrain was built without PMIx");
}

#endif
