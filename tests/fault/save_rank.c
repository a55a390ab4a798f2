/* SPDX-License-Identifier: MIT */
/* tests/fault/save_rank.c - a rank that does nothing but save checkpoints, for checkpoint.sh.
 *
 *   save_rank RUN REPLICAS STAGES TENSOR STEPS [SAY]     one rank of a job under a launcher
 *   save_rank RUN                                        loads RUN, or a step of it, whole
 *
 * The first goes on from what is there, which must be what was saved, under whatever plan;
 * after step s everything is a function of s. Replicas shard their moments. SAY.RANK gets its pid once it saves. The second
 * prints the step, after checking every number. Exit: as geartrain's verbs.              */
#include "tests/train/parts.h"

#include "host/base/log.h"
#include "host/train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gt_status say_pid(const char *file, int rank)
{
    char path[4096], partial[4200];
    snprintf(path, sizeof path, "%s.%d", file, rank);
    snprintf(partial, sizeof partial, "%s.new", path);
    FILE *f = fopen(partial, "w");
    if (!f || fprintf(f, "%ld\n", (long)getpid()) < 0 || fclose(f) || rename(partial, path))
        return gt_fail(GT_IO, "cannot write '%s'", path);
    return GT_OK;
}

/* Loads the newest checkpoint, if there is one, and makes sure of it. */
static gt_status load(net_comm *c, const char *run, parts *p, uint64_t *step)
{
    checkpoint_info info = { 0 };
    char *path = NULL;
    gt_status st = checkpoint_find_together(c, &path, &info, run);
    if (st == GT_NOT_FOUND && c) {
        gt_message_clear();
        return GT_OK;
    }
    if (!st)
        st = checkpoint_load(path, p->params, (checkpoint_state[]){ optim_saved(p->optim) }, 1, NULL);
    if (!st)
        st = parts_check(p, (unsigned)info.step);
    *step = info.step;
    free(path);
    return st;
}

static gt_status save_steps(net_comm *c, const char *run, parts *p, uint64_t step, uint64_t steps)
{
    const checkpoint_ranks ranks = { c, p->mine, p->mine_moments };
    gt_status st = GT_OK;
    while (!st && step < steps) {
        const checkpoint_info info = { .step = step + 1, .seed = 7, .tokens = step };
        step++;
        st = parts_fill(p, (unsigned)step);
        if (!st)
            st = checkpoint_save(run, &info, p->params, (checkpoint_state[]){ optim_saved(p->optim) }, 1, &ranks, NULL);
        if (!st && !net_comm_rank(c))
            st = checkpoint_prune(run, 3, step, 0);
    }
    return st;
}

static gt_status be_rank(net_comm *c, char **argv, const char *say)
{
    const parts_plan plan = { atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atoi(argv[2]) > 1 };
    uint64_t step = 0;
    parts p = { 0 };
    gt_status st = plan.replicas > 0 && plan.stages > 0 && plan.tensor > 0 && parts_ranks(&plan) == net_comm_size(c)
                       ? parts_open(&p, &plan, net_comm_rank(c))
                       : gt_fail(GT_MISUSE, "%d ranks do not fit the plan", net_comm_size(c));
    if (!st)
        st = load(c, argv[1], &p, &step);
    if (!st && !net_comm_rank(c))
        st = checkpoint_prune(argv[1], 0, 0, 0);
    if (!st && say)
        st = say_pid(say, net_comm_rank(c));
    if (!st)
        st = save_steps(c, argv[1], &p, step, (uint64_t)atoll(argv[5]));
    parts_close(&p);
    return st;
}

static gt_status look(const char *run)
{
    const parts_plan alone = { 1, 1, 1, 0 };
    uint64_t step = 0;
    parts p;
    gt_status st = parts_open(&p, &alone, 0);
    if (!st)
        st = load(NULL, run, &p, &step);
    if (!st)
        printf("step %llu\n", (unsigned long long)step);
    parts_close(&p);
    return st;
}

int main(int argc, char **argv)
{
    net_config *config = NULL;
    net_identity who;
    net_comm *c = NULL;
    gt_status st = GT_OK;
    if (argc == 2) {
        st = look(argv[1]);
    } else if (argc == 6 || argc == 7) {
        st = net_config_read(&config);
        if (!st)
            st = net_identity_find(&who, config);
        if (!st) {
            gt_log_rank(who.rank);
            st = net_comm_open(&c, config, &who);
        }
        if (!st)
            st = be_rank(c, argv, argc == 7 ? argv[6] : NULL);
    } else {
        st = gt_fail(GT_MISUSE, "usage: save_rank RUN [REPLICAS STAGES TENSOR STEPS [SAY]]");
    }
    if (st)
        fprintf(stderr, "save_rank: %s\n", gt_message());
    fflush(stdout);
    net_comm_close(c);
    net_config_release(config);
    return st == GT_OK ? 0 : st == GT_MISUSE ? 2 : st == GT_PEER || st == GT_TIMEOUT ? 3 : 1;
}
