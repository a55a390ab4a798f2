/* SPDX-License-Identifier: MIT */
/* host/cli/cli_comm.h - verbs whose ranks talk to each other.
 *
 *   static struct { ...; cli_comm comm; } o;
 *   static const gt_option table[] = { ..., CLI_COMM_OPTIONS(o.comm), { 0 } };
 *   ... return cli_comm_run(&o.comm, argv, body);
 *
 * cli_comm_run() starts --ranks copies of the program unless a launcher has, joins the job,
 * calls `body`, and leaves. A body that fails ends the job on all ranks with its sentence.
 * SIGUSR2 writes the flight recorder to the folder of the knob `dump`, or to standard error. */
#ifndef GT_CLI_CLI_COMM_H
#define GT_CLI_CLI_COMM_H

#include "host/cli/cli_net.h"
#include "net/comm/comm.h"

typedef struct cli_comm {
    cli_net net;
    uint64_t ranks;
    const char *transport;
    int may_be_alone;           /* 1: a job of one rank needs no communicator: body(NULL) */
    gt_status (*check)(int ranks);      /* before it starts ranks: what all of them would refuse is
                                           said once; NULL: nothing */
    /* The body can be called again, with another communicator, after it failed with GT_PEER, or ended with 1 from
     * here: ranks left for others to join (net/job/elastic.h). NULL: it cannot. */
    int (*elastic)(void);
} cli_comm;

#define CLI_COMM_OPTIONS(n) \
    { .group = "Ranks" }, \
        { "ranks", 0, GT_U64, "N", "start N ranks on this host, unless a launcher has", &(n).ranks, 0, NULL }, \
        { "transport", 0, GT_STRING, "LIST", "auto, or some of shm,verbs,tcp", &(n).transport, 0, NULL }, \
        CLI_NET_OPTIONS((n).net)

/* The body with a communicator, in each of the ranks. SIGUSR2, which the caller's threads block, asks for
 * the flight record; one that came before there is a record is answered then. */
gt_status cli_comm_run(cli_comm *o, char **argv, gt_status (*body)(net_comm *c));

#endif
