/* SPDX-License-Identifier: MIT */
/* net/job/identity.h - which rank this process is, and who said so.
 *
 * Known are `geartrain launch` (GEARTRAIN_RANK ...), Open MPI and other PMIx launchers, Slurm, and
 * torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK). Where one was
 * started by another (srun torchrun, mpirun in salloc, geartrain launch in sbatch) the inner one
 * counts, and what the others say is logged if it differs. Variables like torchrun's that come from
 * no torchrun and contradict a launcher are refused. Nothing of it: a job of one rank.
 *
 * Where the ranks meet: rank 0 listens at `host`, on the first free port of [port, port +
 * ports); the others try those in turn until one proves to know the job's secret, so a
 * stranger on one of them does no harm.
 *
 * The secret: `geartrain launch` makes one for each job and hands it over the environment
 * (over ssh: on standard input), never in arguments. PMIx carries rank 0's. For Slurm and
 * torchrun it is derived from the user's file (default ~/.config/geartrain/secret, mode 0600,
 * made on first use) and the job's name.                                                */
#ifndef NET_JOB_IDENTITY_H
#define NET_JOB_IDENTITY_H

#include "net/job/config.h"

enum { NET_SECRET = 32 };

typedef struct net_identity {
    int rank, size;
    int local_rank, local_size;     /* among the ranks of this host, -1 if not told      */
    char source[32];                /* "geartrain launch", "Slurm", "Open MPI", "torchrun", "alone" */
    char job[64];                   /* equal on all ranks of a job, different between jobs */
    char host[256];                 /* where rank 0 is                                   */
    uint16_t port;
    uint16_t ports;
    int has_secret;
    unsigned char secret[NET_SECRET];
    int listen_fd;                  /* rank 0's socket where one was inherited or opened to
                                       tell its port, else -1; open until the process ends  */
} net_identity;

gt_status net_identity_find(net_identity *out, const net_config *config);

/* Names the variables of other launchers that one which starts ranks must remove, so that what
 * stands beside its own comes from a launcher inside it. */
void net_identity_forget(void (*forget)(void *context, const char *name), void *context);

#endif
