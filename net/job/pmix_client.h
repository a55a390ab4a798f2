/* SPDX-License-Identifier: MIT */
/* net/job/pmix_client.h - rank, and rank 0's rendezvous, from a PMIx server: mpirun, prterun,
 * srun --mpi=pmix. The library is loaded when needed; without it this says GT_UNSUPPORTED. */
#ifndef NET_JOB_PMIX_CLIENT_H
#define NET_JOB_PMIX_CLIENT_H

#include "net/job/identity.h"

/* Fills rank, size, locals, job, host, port and secret; rank 0's listening socket is in
 * listen_fd. Every rank of the job must call it. */
gt_status pmix_find(net_identity *out, const net_config *config);

#endif
