/* SPDX-License-Identifier: MIT */
/* net/job/launcher_elastic.c - a job whose ranks change while it runs, from the launcher's side.
 *
 *   a member is killed ──► the others lose it, leave the job, say READY ──► all are there: GO, one fewer
 *                          └─ a process is started in its place ──► READY ──► PAUSE to all members,
 *                                                                   who end their step and say READY ──► GO
 *
 * Members keep their order; new ones come behind them. So the lowest member that is left becomes rank 0.
 * A member that fails by itself (neither by a signal nor for the loss of others) ends the job: it would
 * fail again. What ranks and launcher say to each other is in elastic.h. */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "net/job/address.h"
#include "net/job/elastic_words.h"
#include "net/job/hello.h"
#include "net/job/launcher_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FAILED_JOINS = 3, LONELY = 3 };
#define WAIT (60 * UINT64_C(1000000000))

int elastic_is(const launch *l)
{
    return l->o->elastic_least > 0;
}

gt_status elastic_check(const net_launch_options *o, int *ranks)
{
    if (!o->elastic_least)
        return GT_OK;
    if (o->hosts)
        return gt_fail(GT_UNSUPPORTED, "--elastic keeps ranks of this host together, and --hosts names others; leave "
                                       "one of them out");
    if (!*ranks)
        *ranks = o->elastic_most;
    if (o->elastic_least > o->elastic_most || *ranks < o->elastic_least || *ranks > o->elastic_most)
        return gt_fail(GT_MISUSE, "--elastic %d:%d with %d ranks: it should be MIN <= ranks <= MAX", o->elastic_least,
                       o->elastic_most, *ranks);
    return GT_OK;
}

/* ---- starting --------------------------------------------------------------------------------- */

gt_status elastic_open(launch *l, int place, int *theirs)
{
    int pair[2];
    *theirs = -1;
    if (!elastic_is(l))
        return GT_OK;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return gt_fail(GT_IO, "cannot start rank %d: %s", place, strerror(errno));
    l->children[place].words = pair[0];
    *theirs = pair[1];
    return GT_OK;
}

static void set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

void elastic_tell(const launch *l, int place, int theirs)
{
    unsetenv("GEARTRAIN_ELASTIC_FD");   /* of a launcher around this one */
    unsetenv("GEARTRAIN_ELASTIC_JOIN");
    if (theirs < 0)
        return;
    fcntl(theirs, F_SETFD, 0);
    set_number("GEARTRAIN_ELASTIC_FD", theirs);
    set_number("GEARTRAIN_ELASTIC_PLACE", place);
    set_number("GEARTRAIN_ELASTIC_PLACES", l->ranks);
    if (!l->children[place].member)
        set_number("GEARTRAIN_ELASTIC_JOIN", 1);
}

static uint64_t patience(const launch *l)
{
    return l->o->elastic_wait ? l->o->elastic_wait : WAIT;
}

/* ---- ends ------------------------------------------------------------------------------------- */

int elastic_ended(launch *l, int place, int sig, int code)
{
    child *c = &l->children[place];
    char host[128] = "", how[96];
    c->ready = 0;
    if (!elastic_is(l))
        return 0;
    if (!c->member) {
        l->failed_joins += (sig || code) && !l->over;
        return 1;
    }
    if (l->over || l->stops || l->term_at || (!sig && code != LOST))
        return 0;
    gethostname(host, sizeof host - 1);
    if (sig)
        snprintf(how, sizeof how, "killed by signal %d (%s)", sig, strsignal(sig));
    else
        snprintf(how, sizeof how, "it lost all others");
    const size_t used = strlen(l->dropped);
    snprintf(l->dropped + used, sizeof l->dropped - used, "%srank %d (%s, pid %ld): %s", used ? ", " : "", c->rank,
             host, (long)c->number, how);
    c->member = 0;
    l->lost = 1;
    l->lonely = 0;
    l->come_until = gt_now_ns() + patience(l);
    return 1;
}

/* Nothing that waits will be in a job again. */
static void end_all(launch *l)
{
    const elastic_word end = { .kind = ELASTIC_END };
    l->over = 1;
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (c->pid && c->ready)
            elastic_send(c->words, &end, -1);
        if (c->pid && !c->member)
            launch_signal(c, SIGTERM);
        c->ready = 0;
    }
}

/* ---- a job after the other ----------------------------------------------------------------------- */

static void hear(child *c)
{
    elastic_word w;
    int fd, got = 0;
    while (c->words >= 0 && (got = elastic_receive(c->words, &w, &fd)) == 1) {
        if (fd >= 0)
            close(fd);
        c->ready |= w.kind == ELASTIC_READY;
    }
    if (got < 0) {
        close(c->words);
        c->words = -1;
    }
}

/* The next member in the order of the job before, behind `after`; then those that are new. -1: none. */
static int next_in_order(const launch *l, int after, int members)
{
    int found = -1;
    for (int i = 0; i < l->ranks; i++) {
        const child *c = &l->children[i];
        const int key = members ? c->rank : i;
        if (!c->pid || !c->ready || c->member != members || key <= after)
            continue;
        if (found < 0 || key < (members ? l->children[found].rank : found))
            found = i;
    }
    return found;
}

/* Puts all that are ready together. */
static gt_status go(launch *l, int size, int last)
{
    int order[NET_WORLD], n = 0, after = -1;
    gt_status st = launch_listen(l);
    net_address at;
    if (!st)
        st = net_address_own(&at, l->listener);
    for (int members = 1; members >= 0; members--, after = -1)
        for (int i; (i = next_in_order(l, after, members)) >= 0 && n < size;) {
            order[n++] = i;
            after = members ? l->children[i].rank : i;
        }
    l->formation++;
    elastic_word w = { .kind = ELASTIC_GO, .size = n, .formation = l->formation, .last = last };
    w.port = st ? 0 : (uint16_t)net_address_port(&at);
    snprintf(w.job, sizeof w.job, "%.40s-%d", l->job, l->formation);
    for (int r = 0; !st && r < n; r++) {
        child *c = &l->children[order[r]];
        w.rank = r;
        if (!elastic_send(c->words, &w, r ? -1 : l->listener))
            gt_log(GT_LOG_WARN, "net", "cannot tell rank %d of the job that goes on", r);
        c->rank = r;
        c->member = 1;
        c->ready = 0;
    }
    if (l->listener >= 0)
        close(l->listener);
    l->listener = -1;
    return st;
}

static void say_what_is_new(launch *l, int members, int size)
{
    if (l->dropped[0])
        gt_log(GT_LOG_WARN, "net", "dropped %s; going on with %d of %d", l->dropped, size, l->before);
    else if (size == members)
        gt_log(GT_LOG_WARN, "net", "ranks lost each other and are all there; going on with %d", size);
    if (size > members)
        gt_log(GT_LOG_WARN, "net", "%d new rank%s; going on with %d", size - members,
               size - members == 1 ? " joins" : "s join", size);
    l->dropped[0] = '\0';
    l->before = size;
}

static void put_together(launch *l, int members, int size, int last)
{
    l->lonely += l->lost && !l->dropped[0];
    if (last) {
        snprintf(l->outcome, sizeof l->outcome, "dropped %.300s; %d of at least %d ranks are left, and nobody came",
                 l->dropped, size, l->o->elastic_least);
        l->first_failed = 0;
        l->any_lost = 1;
        l->over = 1;
    } else {
        say_what_is_new(l, members, size);
    }
    l->lost = l->paused = 0;
    l->come_until = l->wait_until = 0;
    if (l->lonely > LONELY) {
        gt_log(GT_LOG_WARN, "net", "ranks lose each other again and again, though none of them ends");
        end_all(l);
    } else if (go(l, size, last)) {
        gt_log(GT_LOG_WARN, "net", "cannot put ranks together again: %s", gt_message());
        end_all(l);
    }
}

/* A place where nobody is gets a process, once the others go on, or if they cannot without. */
static void fill_place(launch *l, const sigset_t *mask)
{
    int there = 0, starting = 0;
    for (int i = 0; i < l->ranks; i++) {
        there += l->children[i].pid != 0;
        starting |= l->children[i].pid && !l->children[i].member;
    }
    if (starting || there >= l->ranks || l->replaced >= l->o->replacements || l->failed_joins >= FAILED_JOINS)
        return;
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (c->pid || c->output >= 0)
            continue;
        l->replaced++;
        c->member = c->ready = 0;
        c->used = 0;
        if (launch_start(l, i, mask)) {
            gt_log(GT_LOG_WARN, "net", "no rank takes the place of one that was dropped: %s", gt_message());
            l->failed_joins++;
        }
        return;
    }
}

static int can_be_filled(const launch *l)
{
    for (int i = 0; i < l->ranks; i++)
        if (l->children[i].pid && !l->children[i].member)
            return 1;
    return l->replaced < l->o->replacements && l->failed_joins < FAILED_JOINS;
}

static void ask_for_pause(launch *l)
{
    const elastic_word pause = { .kind = ELASTIC_PAUSE };
    l->paused = 1;
    for (int i = 0; i < l->ranks; i++)
        if (l->children[i].pid && l->children[i].member)
            elastic_send(l->children[i].words, &pause, -1);
}

static void end_late(launch *l)
{
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (c->pid && c->member && !c->ready) {
            gt_log(GT_LOG_WARN, "net", "rank %d does not leave the job that lost a rank, and is ended", c->rank);
            launch_signal(c, SIGKILL);
        }
    }
    l->come_until = 0;
}

void elastic_tick(launch *l, const sigset_t *mask)
{
    int members = 0, ready = 0, new_ones = 0;
    const uint64_t now = gt_now_ns();
    if (!elastic_is(l))
        return;
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        hear(c);
        members += c->pid && c->member;
        ready += c->pid && c->member && c->ready;
        new_ones += c->pid && !c->member && c->ready;
    }
    if (!members && l->lost && !l->over) {
        snprintf(l->outcome, sizeof l->outcome, "dropped %.400s; no rank is left", l->dropped);
        l->any_lost = 1;
    }
    if (!members || l->stops || l->term_at || l->over) {
        if (l->alive && (!l->over || ready || new_ones))
            end_all(l);
        return;
    }
    if (ready && !l->paused && !l->lost) {
        l->lost = 1;
        l->come_until = now + patience(l);
    }
    if (ready == members && members + new_ones >= l->o->elastic_least) {
        put_together(l, members, members + new_ones, 0);
    } else if (ready == members) {
        if (!l->wait_until) {
            l->wait_until = now + patience(l);
            gt_log(GT_LOG_WARN, "net", "dropped %s; %d of at least %d ranks are left: waiting %g s for others",
                   l->dropped, members, l->o->elastic_least, (double)patience(l) * 1e-9);
        }
        if (now >= l->wait_until || !can_be_filled(l))
            put_together(l, members, members, 1);
        else
            fill_place(l, mask);
    } else if (l->come_until && now >= l->come_until) {
        end_late(l);
    } else if (!l->lost) {
        fill_place(l, mask);
        if (new_ones && !l->paused)
            ask_for_pause(l);
    }
}

int elastic_awaits(const launch *l)
{
    return elastic_is(l) && (l->lost || l->paused || l->wait_until || l->over);
}
