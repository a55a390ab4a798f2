/* SPDX-License-Identifier: MIT */
/* tests/sync/local_run.h - a training run of a few steps under --sync local, in one process.
 *
 *   rank 0 ──┐
 *   rank 1 ──┼─ threads, the tiny model ──► its parameters on each rank; of each step its loss, tokens, time, bytes
 *   rank 2 ──┘
 *
 * The mode is an argument, so that sums of gradients all the way are run alike.                */
#ifndef TESTS_LOCAL_RUN_H
#define TESTS_LOCAL_RUN_H

#include "tests/train/tiny_run.h"

enum { LOCAL_MOST = 4, LOCAL_STEPS = 12 };

typedef struct local_run {
    run_plan plan;
    train_options o;
    float *x[LOCAL_MOST];
    size_t count[LOCAL_MOST];
    double loss[LOCAL_STEPS];
    uint64_t sent[LOCAL_STEPS], tokens[LOCAL_STEPS];
    double seconds[LOCAL_STEPS];
    int rows;
    train *t;                               /* rank 0's, while it runs */
} local_run;

/* What is trained; a case sets it before anything else. */
extern model_config local_model;
/* Three replicas of 3, 1 and 2 sequences, and two of 4 and 2. */
extern const tiny_replica local_unequal[3], local_two[2];

/* With a folder it saves half-way, and goes on if the folder is there. */
train_options local_options(uint64_t steps, const char *rule, const char *folder);
/* Settings as "local-steps=3 outer=nesterov", the others as usual. 0 after a failed check. */
int local_settings(sync_settings *s, const char *mode, const char *text);
/* `count` replicas over so many tensor ranks a stage. 1: it ran. */
int local_run_go(local_run *j, const tiny_replica *r, int count, int tensor, const char *mode, const char *settings,
                 const train_options *o);
void local_run_release(local_run *j);
/* Does a replica that makes so many steps of a round (0: `every`, all of them) take part in this step, the first being
 * 1? Those of a round that are the next multiple of every / steps. */
int local_takes_part(int every, int steps, int step);

#endif
