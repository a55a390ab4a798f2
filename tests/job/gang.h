/* SPDX-License-Identifier: MIT */
/* tests/job/gang.h - ranks as threads of one process, with identities made by hand.
 *
 *   static void meet(net_job *job, int rank, void *context) { ... }
 *   gang_run(4, NULL, meet, NULL);                all joined; each runs meet, then leaves   */
#ifndef TESTS_JOB_GANG_H
#define TESTS_JOB_GANG_H

#include "net/job/job.h"

#include <stdio.h>

/* CUnit's checks may be used by one thread only: ranks count what is wrong instead. */
extern _Atomic int gang_wrong;
#define WANT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, gt_message()); \
            gang_wrong++; \
        } \
    } while (0)

enum { GANG = 16 };

typedef struct gang {
    int size;
    net_config *config[GANG];
    net_identity who[GANG];
    net_job *job[GANG];
    gt_status status[GANG];             /* of join                                           */
    char message[GANG][1024];           /* when that failed                                  */
    int absent[GANG];                   /* 1: this rank is never started                     */
    void (*run)(net_job *job, int rank, void *context);
    void *context;
    int keep;                           /* 1: do not leave; the test does                    */
} gang;

/* Identities of `size` ranks that meet at a fresh port of this machine; quick settings. */
void gang_init(gang *g, int size);
/* Sets a knob of all ranks. */
void gang_set(gang *g, const char *name, const char *value);
/* Joins all ranks, runs g->run on each and leaves. */
void gang_go(gang *g);
void gang_release(gang *g);
uint16_t gang_port(const gang *g);

#endif
