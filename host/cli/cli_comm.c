/* SPDX-License-Identifier: MIT */
/* host/cli/cli_comm.c - from options to a communicator, and back. */
#include "host/cli/cli_comm.h"
#include "host/cli/busy.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "net/job/elastic.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SIGUSR2 is blocked in every thread (host/cli/main.c). One waits for it, so that it comes through when all
 * others are stuck, and no handler is ever needed, which drivers would put theirs over. */
typedef struct watch {
    net_comm *comm;
    pthread_t thread;
    atomic_int over;
} watch;

static void dump(net_comm *c)
{
    const char *folder = net_job_config(net_comm_job(c))->dump;
    char name[64];
    gt_text text = { 0 };
    snprintf(name, sizeof name, "flight-rank-%d.json", net_comm_rank(c));
    gt_status st = net_comm_dump(c, "SIGUSR2", &text);
    char *path = *folder ? gt_path_join(folder, name) : NULL;
    if (!st && path)
        st = gt_file_write(path, text.data, text.size);
    else if (!st)
        fprintf(stderr, "%s\n", text.data);
    if (st)
        gt_log(GT_LOG_WARN, "net", "%s", gt_message());
    free(path);
    gt_text_release(&text);
}

static void *dump_on_signal(void *context)
{
    watch *w = context;
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    while (!sigwait(&set, &number) && !atomic_load(&w->over))
        dump(w->comm);
    return NULL;
}

static gt_status watch_begin(watch *w, net_comm *c)
{
    w->comm = c;
    atomic_init(&w->over, 0);
    const int failed = pthread_create(&w->thread, NULL, dump_on_signal, w);
    return failed ? gt_fail(GT_NO_MEMORY, "cannot start a thread: %s", strerror(failed)) : GT_OK;
}

static void watch_end(watch *w)
{
    atomic_store(&w->over, 1);
    pthread_kill(w->thread, SIGUSR2);
    pthread_join(w->thread, NULL);
}

static gt_status live(cli_comm *o, gt_status (*body)(net_comm *c))
{
    net_comm *c = NULL;
    watch w;
    if (o->net.who.rank == 0)
        cli_busy_start();
    gt_status st = net_comm_open(&c, o->net.config, &o->net.who);
    if (st)
        return st;
    st = watch_begin(&w, c);
    if (!st) {
        st = body(c);
        watch_end(&w);
    }
    gt_saved_message why;
    gt_message_save(&why);
    if (st == GT_LOST && net_elastic())
        return st;                      /* the process ends, and the others go on as when it is killed */
    if (st && !net_comm_check(c))
        net_comm_abort(c, net_comm_rank(c), "%s", why.text);
    net_comm_close(c);
    gt_message_restore(&why);
    return st;
}

/* One job, or the part that this rank has in it. */
static gt_status live_once(cli_comm *o, gt_status (*body)(net_comm *c))
{
    return o->may_be_alone && o->net.who.size == 1 ? body(NULL) : live(o, body);
}

/* One job after the other, for as long as the launcher puts ranks together again. A body that can go on from
 * where it was says so by o->elastic; what it failed with is what is told if there is no next job. */
static gt_status live_on(cli_comm *o, gt_status (*body)(net_comm *c))
{
    gt_saved_message why;
    const int elastic = net_elastic() && o->elastic;
    gt_status st = GT_OK;
    if (net_elastic() && !elastic)
        return gt_fail(GT_UNSUPPORTED,
                       "geartrain launch --elastic: this verb cannot go on without a rank; leave --elastic "
                       "out");
    if (net_elastic_joins())
        st = net_elastic_await(&o->net.who);
    while (!st) {
        st = live_once(o, body);
        if (elastic && !st && o->elastic() && gt_stop_asked())          /* it left only for others to join */
            return gt_fail(GT_INTERRUPTED,
                           "stopped while ranks were put together anew; the run goes on from its newest "
                           "checkpoint");
        if (!elastic || net_elastic_is_last() || gt_stop_asked() || (st != GT_PEER && !(st == GT_OK && o->elastic())))
            return st;
        gt_message_save(&why);
        const gt_status next = net_elastic_await(&o->net.who);
        if (next && st) {
            gt_message_restore(&why);
            return st;
        }
        st = next;
    }
    return st;
}

gt_status cli_comm_run(cli_comm *o, char **argv, gt_status (*body)(net_comm *c))
{
    int done;
    gt_status st = cli_net_open(&o->net, &done);
    if (!st && !done && o->transport)
        st = net_config_set(o->net.config, "transport", o->transport);
    if (!st && !done) {
        const int start = o->ranks > 1 && cli_net_alone(&o->net);
        if (start && o->check && o->ranks <= 4096)
            st = o->check((int)o->ranks);
        st = st                ? st
             : o->ranks > 4096 ? gt_fail(GT_MISUSE, "option --ranks: at most 4096")
             : start           ? cli_net_start((int)o->ranks, argv)
                               : live_on(o, body);
    }
    cli_net_close(&o->net);
    return st;
}
