/* SPDX-License-Identifier: MIT */
/* host/base/workers.c - threads that take the next turn until there is none. */
#include "host/base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MOST = 64 };

typedef struct loop {
    atomic_size_t next;
    size_t turns;
    void (*turn)(void *context, size_t i);
    void *context;
} loop;

static void *work(void *argument)
{
    loop *l = argument;
    for (size_t i; (i = atomic_fetch_add(&l->next, 1)) < l->turns;)
        l->turn(l->context, i);
    return NULL;
}

static size_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

void gt_workers_run(size_t turns, void (*turn)(void *context, size_t i), void *context)
{
    loop l = { .turns = turns, .turn = turn, .context = context };
    pthread_t thread[MOST];
    size_t wanted = cores(), started = 0;
    wanted = wanted > turns ? turns : wanted;
    wanted = wanted > MOST ? MOST : wanted;
    while (started + 1 < wanted && pthread_create(&thread[started], NULL, work, &l) == 0)
        started++;
    work(&l);
    for (size_t i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
}
