/* SPDX-License-Identifier: MIT */
/* net/job/starts.c - a job and its start, from variables. */
#include "net/job/starts.h"

#include "host/base/text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *text_of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* A missing count is that of a first start; anything that is no number is no first start either, and
 * nothing that could be compared. */
static int count_of(const char *name, int *out)
{
    uint64_t n = 0;
    const char *text = text_of(name);
    if (text && (gt_parse_u64(&n, text) || n > INT_MAX)) {
        gt_message_clear();
        return 0;
    }
    *out = (int)n;
    return 1;
}

/* torchrun's run id is the same for all jobs that do not name one. Its agent, the parent of its
 * ranks, outlives their restarts: its number and its start in ticks since boot, field 22. */
static unsigned long long start_of(pid_t pid)
{
    char path[40], text[512] = "";
    unsigned long long ticks = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    const char *p = n ? strrchr(text, ')') : NULL;          /* the name may hold anything */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        sscanf(p, "%llu", &ticks);
    return ticks;
}

int net_starts(net_start out[NET_STARTS])
{
    int n = 0;
    char host[64] = "";
    if (text_of("GEARTRAIN_LAUNCH") && count_of("GEARTRAIN_RESTART", &out[n].start)) {
        out[n].who = "launch";
        snprintf(out[n++].job, sizeof out->job, "%.150s", text_of("GEARTRAIN_LAUNCH"));
    }
    if (text_of("SLURM_JOB_ID") && count_of("SLURM_RESTART_COUNT", &out[n].start)) {
        out[n].who = "slurm";
        snprintf(out[n++].job, sizeof out->job, "%.60s-%.60s",
                 text_of("SLURM_CLUSTER_NAME") ? getenv("SLURM_CLUSTER_NAME") : "", getenv("SLURM_JOB_ID"));
    }
    if (text_of("TORCHELASTIC_RUN_ID") && count_of("TORCHELASTIC_RESTART_COUNT", &out[n].start)) {
        gethostname(host, sizeof host - 1);
        out[n].who = "torchrun";
        snprintf(out[n++].job, sizeof out->job, "%.40s-%.63s-%d-%llu", text_of("TORCHELASTIC_RUN_ID"), host,
                 (int)getppid(), start_of(getppid()));
    }
    return n;
}
