/* SPDX-License-Identifier: MIT */
/* host/base/stop.c - one flag, set by four signals. */
#include "host/base/stop.h"

#include "host/base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

static const int signals[GT_STOP_SIGNALS] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1 };
static volatile sig_atomic_t asked;
static int without_hangup = -1;                  /* SIGHUP stays ignored; -1: who knows      */
static void (*hook)(void);
static _Atomic uint64_t first[GT_STOP_SIGNALS]; /* when each came; 0: not yet               */

static void on_signal(int number)
{
    const int before = errno;
    const uint64_t now = gt_now_ns();           /* clock_gettime may be called here         */
    int i = 0;
    while (i < GT_STOP_SIGNALS - 1 && signals[i] != number)
        i++;
    if (first[i] && now - first[i] >= GT_STOP_SAME) {
        signal(number, SIG_DFL);                /* blocked until this returns, then it ends */
        raise(number);
    } else if (!first[i]) {
        first[i] = now;
        if (!asked)
            asked = number;
        if (hook)
            hook();
    }
    errno = before;
}

void gt_stop_start(void)
{
    struct sigaction now;
    if (without_hangup < 0)
        without_hangup = sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

void gt_stop_set(sigset_t *out)
{
    gt_stop_start();
    sigemptyset(out);
    for (int i = 0; i < GT_STOP_SIGNALS; i++)
        if (signals[i] != SIGHUP || !without_hangup)
            sigaddset(out, signals[i]);
}

int gt_stop_is(int number)
{
    for (int i = 0; i < GT_STOP_SIGNALS; i++)
        if (signals[i] == number)
            return 1;
    return 0;
}

void gt_stop_listen(void (*also)(void))
{
    const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigset_t set;
    hook = also;
    gt_stop_set(&set);
    for (int i = 0; i < GT_STOP_SIGNALS; i++)
        if (sigismember(&set, signals[i]))
            sigaction(signals[i], &action, NULL);
        else
            signal(signals[i], SIG_IGN);
}

int gt_stop_asked(void)
{
    return asked;
}

void gt_stop_withdraw(void)
{
    asked = 0;
    for (int i = 0; i < GT_STOP_SIGNALS; i++)
        first[i] = 0;
}

void gt_stop_note(int number)
{
    if (!asked)
        asked = number;
}
