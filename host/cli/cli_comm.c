/* host/cli/cli_comm.c - from options to a communicator, and back. */
#include "host/cli/cli_comm.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/text.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A thread of its own takes SIGUSR1, so that it comes through when all others are stuck. */
typedef struct watch { net_comm *comm; pthread_t thread; sigset_t signals; } watch;

static void dump(net_comm *c)
{
    const char *folder = net_job_config(net_comm_job(c))->dump;
    char name[64];
    gt_text text = { 0 };
    snprintf(name, sizeof name, "flight-rank-%d.json", net_comm_rank(c));
    gt_status st = net_comm_dump(c, "SIGUSR1", &text);
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
    const watch *w = context;
    for (int number; !sigwait(&w->signals, &number) && number == SIGUSR1;)
        dump(w->comm);
    return NULL;
}

static gt_status watch_begin(watch *w, net_comm *c)
{
    w->comm = c;
    const int failed = pthread_create(&w->thread, NULL, dump_on_signal, w);
    return failed ? gt_fail(GT_NO_MEMORY, "cannot start a thread: %s", strerror(failed)) : GT_OK;
}

static void watch_end(watch *w)
{
    pthread_kill(w->thread, SIGUSR2);
    pthread_join(w->thread, NULL);
}

static gt_status live(cli_comm *o, gt_status (*body)(net_comm *c))
{
    net_comm *c = NULL;
    watch w;
    /* Blocked before any thread is made: all of them inherit it. */
    sigemptyset(&w.signals);
    sigaddset(&w.signals, SIGUSR1);
    sigaddset(&w.signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &w.signals, NULL);
    gt_status st = net_comm_open(&c, o->net.config, &o->net.who);
    if (st)
        return st;
    st = watch_begin(&w, c);
    if (!st) {
        st = body(c);
        watch_end(&w);
    }
    if (st && !net_comm_check(c)) {
        char sentence[1024];
        snprintf(sentence, sizeof sentence, "%s", gt_message());
        net_comm_abort(c, net_comm_rank(c), "%s", sentence);
        gt_fail(st, "%s", sentence);
    }
    net_comm_close(c);
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
        st = o->ranks > 4096 ? gt_fail(GT_MISUSE, "option --ranks: at most 4096")
             : start        ? cli_net_start((int)o->ranks, argv)
                            : live(o, body);
    }
    cli_net_close(&o->net);
    return st;
}
