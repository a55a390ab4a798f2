/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_error.c - one sentence for whatever the hardware reports.
 *
 *   cannot write 1048576 bytes from rank 0 (n1, pid 7) to rank 3 (n2, pid 9): transport retry
 *   counter exceeded (vendor error 129), after about 3.8 s of silence, on mlx5_0:1 (GID 3,
 *   10.0.0.1, QP 291) to 10.0.0.2 (GID 5, QP 112); ...
 *
 * Users meet these at night with one line of a log; it has to hold everything that an
 * operator of the fabric will ask for. Only the first error of a queue pair has a cause: all
 * that follow are "flushed", and are not reported.                                         */
#include "net/transport/verbs_private.h"

#include <stdio.h>

static const struct {
    enum ibv_wc_status status;
    const char *hint;
} hints[] = {
    { IBV_WC_RETRY_EXC_ERR, "the peer's process or host is gone, or packets do not get through: "
                            "check its log, `geartrain doctor` on both hosts, the route between the two addresses, and "
                            "that UDP port 4791 (RoCE v2) is open" },
    { IBV_WC_RNR_RETRY_EXC_ERR, "the peer had no receive ready, which its credits should rule out: "
                                "please report this with the versions of both hosts" },
    { IBV_WC_LOC_PROT_ERR, "the device could not read or write our memory: check that the IOMMU and "
                           "PCI access control (ACS) are set up for RDMA, and the kernel's log" },
    { IBV_WC_LOC_ACCESS_ERR, "the device could not write into our memory: check the IOMMU, and the "
                             "kernel's log" },
    { IBV_WC_REM_ACCESS_ERR, "the peer refused the address or key: its window was closed or its "
                             "memory freed while we wrote; check its log first" },
    { IBV_WC_REM_INV_REQ_ERR, "the peer refused the request as malformed: both hosts must run the "
                              "same version of geartrain" },
    { IBV_WC_REM_OP_ERR, "the peer's device failed while serving us: check its kernel's log" },
    { IBV_WC_LOC_LEN_ERR, "more bytes came than a receive holds: both hosts must have the same "
                          "setting of `eager`" },
    { IBV_WC_LOC_QP_OP_ERR, "our device refused the request: check the kernel's log and the device's "
                            "firmware" },
    { IBV_WC_FATAL_ERR, "the device has failed: check the kernel's log and the device's firmware" },
    { IBV_WC_WR_FLUSH_ERR, "the queue pair had failed already: look for an earlier error, here or in "
                           "the peer's log" },
};

const char *net_verbs_hint(enum ibv_wc_status status)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (hints[i].status == status)
            return hints[i].hint;
    return "check the kernel's log on both hosts; `--net transport=tcp` does without RDMA";
}

int net_verbs_retries(const net_verbs_transport *t, const net_verbs_device *device)
{
    if (t->base.config->ib_retry >= 0)
        return t->base.config->ib_retry & 7;
    return device->is_rxe ? 6 : 7;
}

double net_verbs_patience(const net_verbs_transport *t, const net_verbs_device *device)
{
    return 4.096e-6 * (double)(1u << (t->base.config->ib_timeout & 31)) * (net_verbs_retries(t, device) + 1);
}

static const char *operation(const net_verbs_sent *what)
{
    if (!what)
        return "receive";
    return what->opcode == IBV_WR_SEND ? "send" : "write";
}

void net_verbs_explain(const net_verbs_lane *lane, const struct ibv_wc *wc, const net_verbs_sent *what, char *out,
                       size_t size)
{
    const net_verbs_link *link = lane->link;
    const net_verbs_transport *t = link->t;
    const net_verbs_rail *rail = &link->rail[lane->rail];
    const net_verbs_port *port = &t->port[rail->port];
    const net_verbs_device *device = &t->device[port->device];
    const int attempt = rail->attempt, me = !link->leads;
    const net_verbs_gid *ours = &port->offer.gid[rail->choice.tried[attempt].gid[me]];
    const net_verbs_gid *peers = &link->theirs.port[rail->peer_port].gid[rail->choice.tried[attempt].gid[!me]];
    char own[128], peer[128], a[64], b[64], bytes[48] = "", silence[64] = "";

    net_job_name(t->base.job, net_job_rank(t->base.job), own, sizeof own);
    net_job_name(t->base.job, link->base.peer, peer, sizeof peer);
    if (what)
        snprintf(bytes, sizeof bytes, " %u bytes", what->bytes);
    if (wc->status == IBV_WC_RETRY_EXC_ERR)
        snprintf(silence, sizeof silence, ", after about %.2g s without an answer", net_verbs_patience(t, device));
    snprintf(out, size,
             "cannot %s%s %s %s %s %s: %s (vendor error %u)%s, on %s:%d (GID %d, %s, QP %u) "
             "%s %s (GID %d, QP %u); %s",
             operation(what), bytes, what ? "from" : "at", own, what ? "to" : "from", peer,
             t->api->wc_status_str(wc->status), wc->vendor_err, silence, device->name, port->number, ours->index,
             net_verbs_gid_text(ours, a, sizeof a), lane->qp ? lane->qp->qp_num : 0, what ? "to" : "from",
             net_verbs_gid_text(peers, b, sizeof b), peers->index, lane->peer_qpn, net_verbs_hint(wc->status));
}
