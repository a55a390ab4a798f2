/* SPDX-License-Identifier: MIT */
/* net/job/launcher_elastic.c - a job whose ranks change while it runs, from the launcher's side.
 *
 *   a member is killed ──► the others lose it, leave the job, say READY ──► all are there: GO, one fewer
 *                          └─ a process is started in its place ──► READY ──► PAUSE to all members,
 *                                                                   who end their step and say READY ──► GO
 *
 * Members keep their order; new ones come behind them. So the lowest member that is left becomes rank 0.
 * A member that fails by itself (neither by a signal nor for the loss of others or of its device) ends the job: it
 * would fail again. What ranks and launcher say to each other is in elastic.h.
 *
 * Ranks on other hosts, started over ssh or guests that joined by themselves, come by the door (door.h). A guest has
 * no process here: when its line breaks it is gone, and whether others lost it shows by what they say. */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "net/job/hello.h"
#include "net/job/secret.h"
#include "net/job/launcher_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FAILED_JOINS = 3, LONELY = 3 };
#define GRACE (5 * UINT64_C(1000000000))
#define WAIT (60 * UINT64_C(1000000000))

int elastic_is(const launch *l)
{
    return l->o->elastic_least > 0;
}

static int is_there(const child *c)
{
    return c->pid || c->guest;
}

gt_status elastic_check(const net_launch_options *o, int *ranks)
{
    if (!o->elastic_least)
        return GT_OK;
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
    if (!elastic_is(l) || l->children[place].host[0])
        return GT_OK;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return gt_fail(GT_IO, "cannot start rank %d: %s", place, strerror(errno));
    l->children[place].words = (elastic_line){ .fd = pair[0] };
    *theirs = pair[1];
    return GT_OK;
}

/* The address from which others on a host are reached, without a packet. */
static gt_status route_to(net_address *own, const char *host)
{
    net_address to[NET_ADDRESSES];
    int count, fd = -1;
    const char *at = strrchr(host, '@');
    gt_status st = net_address_resolve(to, &count, at ? at + 1 : host, 9);
    if (!st && (fd = socket(to[0].at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
        st = gt_fail(GT_IO, "%s", strerror(errno));
    if (!st && connect(fd, (const struct sockaddr *)&to[0].at, to[0].size) != 0)
        st = gt_fail(GT_IO, "%s", strerror(errno));
    if (!st)
        st = net_address_own(own, fd);
    if (fd >= 0)
        close(fd);
    return st ? gt_fail_in(st, "cannot find the way to host '%s'; give --listen ADDRESS", host) : GT_OK;
}

gt_status elastic_open_door(launch *l)
{
    char host[256] = "";
    uint16_t first = 0, last = 0, port = 0;
    net_address at[NET_ADDRESSES];
    unsigned char secret[NET_SECRET];
    const char *there = NULL;
    int count;
    for (int i = 0; i < l->ranks && !there; i++)
        there = l->children[i].host[0] ? l->children[i].host : NULL;
    if (!elastic_is(l) || (!there && !l->o->listen))
        return GT_OK;
    gt_status st = l->o->config ? net_ports_parse(&first, &last, l->o->config->port_range) : GT_OK;
    if (!st && l->o->listen)
        st = net_door_parse(host, &port, l->o->listen);
    if (!st && l->o->listen)
        st = net_address_resolve(at, &count, host, port);
    else if (!st)
        st = route_to(at, there);
    if (!st)
        st = net_secret_parse(secret, l->secret, "the job");
    if (!st)
        st = port ? net_door_open(&l->door, at, port, 1, secret)
                  : net_door_open(&l->door, at, first, (uint16_t)(first ? last - first + 1 : 1), secret);
    memset(secret, 0, sizeof secret);
    if (!st)
        st = net_door_address(&l->door_at, l->door);
    if (st)
        return st;
    net_address_text(l->door_text, sizeof l->door_text, &l->door_at);
    if (l->o->listen)
        gt_log(GT_LOG_WARN, "net", "ranks of other hosts join with: geartrain launch --join %s -- VERB ...",
               l->door_text);
    return GT_OK;
}

int elastic_fds(const launch *l, int *fds)
{
    return l->door ? net_door_fds(l->door, fds) : 0;
}

static void put_number(void (*put)(void *, const char *, const char *), void *to, const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    put(to, name, text);
}

/* Of the places on its host, which is this. */
static int place_on_host(const launch *l, int place, int *places)
{
    int before = 0;
    *places = 0;
    for (int i = 0; i < l->ranks; i++) {
        const int same = !strcmp(l->children[i].host, l->children[place].host);
        before += same && i < place;
        *places += same;
    }
    return before;
}

void elastic_tell(const launch *l, int place, int theirs, void (*put)(void *, const char *, const char *), void *to)
{
    static const char *const names[] = { "FD", "JOIN", "AT", "GUEST", "NUMBER", "PLACE", "PLACES" };
    char name[64];
    int places;
    if (elastic_is(l) || l->o->join || theirs >= 0 || getenv("GEARTRAIN_ELASTIC_FD") || getenv("GEARTRAIN_ELASTIC_AT"))
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {     /* of a launcher around this one */
            snprintf(name, sizeof name, "GEARTRAIN_ELASTIC_%s", names[i]);
            put(to, name, "");
        }
    if (!elastic_is(l) && !l->o->join)
        return;
    put_number(put, to, "GEARTRAIN_ELASTIC_PLACE", place_on_host(l, place, &places));
    put_number(put, to, "GEARTRAIN_ELASTIC_PLACES", places);
    if (!l->children[place].member)
        put(to, "GEARTRAIN_ELASTIC_JOIN", "1");
    if (theirs >= 0) {
        fcntl(theirs, F_SETFD, 0);
        put_number(put, to, "GEARTRAIN_ELASTIC_FD", theirs);
        return;
    }
    put(to, "GEARTRAIN_ELASTIC_AT", l->o->join ? l->o->join : l->door_text);
    put_number(put, to, "GEARTRAIN_ELASTIC_NUMBER", place);
    if (l->o->join)
        put(to, "GEARTRAIN_ELASTIC_GUEST", "1");
}

static uint64_t patience(const launch *l)
{
    return l->o->elastic_wait ? l->o->elastic_wait : WAIT;
}

/* ---- ends ------------------------------------------------------------------------------------- */

static void note_dropped(launch *l, const child *c, const char *how)
{
    char host[256] = "", pid[32] = "";
    if (c->guest || c->host[0])
        snprintf(host, sizeof host, "%s", c->guest ? c->from : c->host);
    else
        gethostname(host, sizeof host - 1);
    if (!c->host[0] && !c->guest)
        snprintf(pid, sizeof pid, ", pid %ld", (long)c->number);
    const size_t used = strlen(l->dropped);
    snprintf(l->dropped + used, sizeof l->dropped - used, "%srank %d (%s%s): %s", used ? ", " : "", c->rank, host, pid,
             how);
}

int elastic_ended(launch *l, int place, int sig, int code)
{
    child *c = &l->children[place];
    char how[96];
    c->ready = 0;
    if (l->o->join) {                   /* each joined by itself */
        l->any_lost |= sig || code == LOST;
        if (!sig && code && code != LOST && !l->own_code)
            l->own_code = code;
        if (sig || code)
            snprintf(l->outcome, sizeof l->outcome, "process %d, which had joined, ended with %s %d", place,
                     sig ? "signal" : "exit code", sig ? sig : code);
        return 1;
    }
    if (!elastic_is(l))
        return 0;
    if (!c->member) {
        l->failed_joins += (sig || code) && !l->over;
        return 1;
    }
    const int cut = code == SSH_FAILED && c->host[0];
    if (l->over || l->stops || l->term_at || (!sig && code != LOST && !cut))
        return 0;
    if (cut)
        snprintf(how, sizeof how, "its host does not answer");
    else if (sig)
        snprintf(how, sizeof how, "killed by signal %d (%s)", sig, strsignal(sig));
    else
        snprintf(how, sizeof how, "it lost its device, or all others");
    note_dropped(l, c, how);
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
        if (is_there(c) && (c->ready || c->guest))
            elastic_send(&c->words, &end, -1);
        if (c->pid && !c->member)
            launch_signal(c, SIGTERM);
        c->ready = 0;
    }
}

/* ---- a job after the other ----------------------------------------------------------------------- */

/* Ranks that are stopped where they wait for others, or elsewhere, have no exit code of their own to say so. */
static void note_stop(launch *l)
{
    if (!l->stops || l->own_code)
        return;
    l->own_code = 128 + l->stop_signal;
    snprintf(l->outcome, sizeof l->outcome, "stopped by signal %d (%s)", l->stop_signal, strsignal(l->stop_signal));
}

/* A rank on another host whose line broke: it is gone, or will not be heard of again. */
static void lose_line(launch *l, child *c)
{
    if (c->guest && c->member)          /* others may not have lost it yet, or it is done */
        note_dropped(l, c, "its line to the launcher broke");
    else if (c->guest)
        l->failed_joins++;
    elastic_hang_up(&c->words);
    if (c->guest) {
        note_stop(l);
        l->alive--;
        c->guest = c->member = c->ready = 0;
    }
}

/* Ranks that will not leave the job by themselves: those that a signal stopped, and those on hosts that are not
 * heard of any more when others have lost somebody. */
static void end_silent(launch *l, uint64_t now)
{
    const uint64_t grace = l->o->grace ? l->o->grace : GRACE;
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (!launch_is_stopped(c))
            c->stopped_at = 0;
        else if (!c->stopped_at)
            c->stopped_at = now;
        if (c->stopped_at && now - c->stopped_at >= grace) {
            gt_log(GT_LOG_WARN, "net", "rank %d has been stopped (SIGSTOP) for %g s, and is ended", c->rank,
                   (double)grace * 1e-9);
            launch_signal(c, SIGKILL);
        } else if (c->pid && c->host[0] && c->heard && c->words.fd < 0 && l->lost) {
            launch_signal(c, SIGKILL);
        }
    }
}

static void hear(launch *l, child *c)
{
    elastic_word w;
    int fd, got = 0;
    while (c->words.fd >= 0 && (got = elastic_receive(&c->words, &w, &fd)) == 1) {
        if (fd >= 0)
            close(fd);
        c->ready |= w.kind == ELASTIC_READY;
        c->port = w.kind == ELASTIC_READY ? w.port : c->port;
    }
    if (got < 0)
        lose_line(l, c);
}

/* A place for a rank that nobody here started; NULL: there is none. */
static child *seat(launch *l)
{
    for (int i = 0; i < l->ranks; i++)
        if (!is_there(&l->children[i]) && l->children[i].output < 0)
            return &l->children[i];
    return NULL;
}

static void let_in(launch *l)
{
    const elastic_word full = { .kind = ELASTIC_FULL };
    int place;
    for (net_wire *wire; l->door && (wire = calloc(1, sizeof *wire));) {
        if (!net_door_enter(l->door, wire, &place)) {
            free(wire);
            return;
        }
        elastic_line line = { wire->fd, wire };
        char from[64] = "";
        net_address at;
        if (!net_address_peer(&at, wire->fd))
            net_address_host(from, sizeof from, &at);
        child *c = place == NET_DOOR_GUEST ? seat(l) : place < l->ranks ? &l->children[place] : NULL;
        if (l->o->config)
            net_keep_alive(line.fd, l->o->config->heartbeat, l->o->config->dead_after);
        if (!c || (place == NET_DOOR_GUEST ? !l->o->listen || l->over : !c->pid || !c->host[0])) {
            elastic_send(&line, &full, -1);
            elastic_hang_up(&line);
            continue;
        }
        elastic_hang_up(&c->words);
        c->words = line;
        c->heard = 1;
        if (place == NET_DOOR_GUEST) {
            c->guest = 1;
            snprintf(c->from, sizeof c->from, "%s", from);
            c->member = c->ready = 0;
            l->alive++;
        }
    }
}

/* The next member in the order of the job before, behind `after`; then those that are new. -1: none. */
static int next_in_order(const launch *l, int after, int members)
{
    int found = -1;
    for (int i = 0; i < l->ranks; i++) {
        const child *c = &l->children[i];
        const int key = members ? c->rank : i;
        if (!is_there(c) || !c->ready || c->member != members || key <= after)
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
    int local = 1;
    gt_status st = GT_OK;
    net_address at;
    for (int members = 1; members >= 0; members--, after = -1)
        for (int i; (i = next_in_order(l, after, members)) >= 0 && n < size;) {
            order[n++] = i;
            after = members ? l->children[i].rank : i;
        }
    for (int i = 0; i < n; i++)
        local &= !l->children[order[i]].words.wire;
    const child *zero = &l->children[order[0]];
    l->formation++;
    elastic_word w = { .kind = ELASTIC_GO, .size = n, .formation = l->formation, .last = last, .local = local };
    if (zero->words.wire) {              /* it listens already */
        st = net_address_peer(&at, zero->words.fd);
        w.port = zero->port;
    } else {
        st = launch_listen(l, !local);
        if (!st)
            st = net_address_own(&at, l->listener);
        w.port = st ? 0 : net_address_port(&at);
    }
    if (!st)
        net_address_host(w.host, sizeof w.host, &at);
    snprintf(w.job, sizeof w.job, "%.40s-%d", l->job, l->formation);
    for (int r = 0; !st && r < n; r++) {
        child *c = &l->children[order[r]];
        w.rank = r;
        if (!elastic_send(&c->words, &w, r ? -1 : l->listener))
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
        there += is_there(&l->children[i]);
        starting |= is_there(&l->children[i]) && !l->children[i].member;
    }
    if (starting || there >= l->ranks || l->replaced >= l->o->replacements || l->failed_joins >= FAILED_JOINS)
        return;
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (is_there(c) || c->output >= 0)
            continue;
        l->replaced++;
        c->member = c->ready = c->heard = 0;
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
        if (is_there(&l->children[i]) && !l->children[i].member)
            return 1;
    return l->replaced < l->o->replacements && l->failed_joins < FAILED_JOINS;
}

static void ask_for_pause(launch *l)
{
    const elastic_word pause = { .kind = ELASTIC_PAUSE };
    l->paused = 1;
    for (int i = 0; i < l->ranks; i++)
        if (is_there(&l->children[i]) && l->children[i].member)
            elastic_send(&l->children[i].words, &pause, -1);
}

static void end_late(launch *l)
{
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (is_there(c) && c->member && !c->ready) {
            gt_log(GT_LOG_WARN, "net", "rank %d does not leave the job that lost a rank, and is ended", c->rank);
            launch_signal(c, SIGKILL);
            if (c->guest)
                lose_line(l, c);
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
    let_in(l);
    end_silent(l, now);
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        hear(l, c);
        members += is_there(c) && c->member;
        ready += is_there(c) && c->member && c->ready;
        new_ones += is_there(c) && !c->member && c->ready;
    }
    if (!members && l->lost && !l->over) {
        snprintf(l->outcome, sizeof l->outcome, "dropped %.400s; no rank is left", l->dropped);
        l->any_lost = 1;
    }
    if (!members || l->stops || l->term_at || l->over) {
        if (ready)
            note_stop(l);
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
