/* SPDX-License-Identifier: MIT */
/* net/job/launcher.c - the ranks of a job from their start to their end: one loop over output, ends and signals.
 *
 *   set up ── start each ── │ lines of output, signals, ends │ ── exit code ── (start the job again)
 *
 * Local ranks are children; for a remote one ssh is. What ended first, by itself, is what a user should read: ranks
 * that only lost another, or that the launcher ended, say nothing about why the job failed. */
#include "net/job/launcher_private.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "net/job/hello.h"
#include "net/job/secret.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE (5 * UINT64_C(1000000000))
#define SETTLE (1 * UINT64_C(1000000000))

static gt_status set_up(launch *l)
{
    unsigned char secret[NET_SECRET];
    uint32_t lot;
    net_secret_random(secret, sizeof secret);
    gt_status st = GT_OK;
    if (l->o->listen || l->o->join)     /* what the user has on all hosts */
        st = net_secret_file(secret, l->o->config ? l->o->config->secret_file : "");
    net_secret_format(l->secret, secret);
    memset(secret, 0, sizeof secret);
    net_secret_random(&lot, sizeof lot);
    snprintf(l->job, sizeof l->job, "launch-%ld-%08x", (long)getpid(), (unsigned)lot);
    if (!st)
        st = launch_place(l);
    return st ? st : elastic_open_door(l);
}

/* ---- output -------------------------------------------------------------------------------- */

static void write_whole(const char *data, size_t size)
{
    while (size) {
        const ssize_t n = write(STDERR_FILENO, data, size);
        if (n < 0 && errno != EINTR)
            return;                     /* nobody reads it                                   */
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
}

static void print_line(int rank, const char *line, size_t size)
{
    char out[LINE + 32];
    const int n = snprintf(out, sizeof out, "[%d] %.*s\n", rank, (int)size, line);
    write_whole(out, (size_t)n < sizeof out ? (size_t)n : sizeof out - 1);
}

/* Prints whole lines; what has no end yet stays, unless it fills the room. */
static void print_lines(child *c, int rank, int last)
{
    size_t done = 0;
    for (;;) {
        const char *end = memchr(c->line + done, '\n', c->used - done);
        if (!end)
            break;
        print_line(rank, c->line + done, (size_t)(end - c->line) - done);
        done = (size_t)(end - c->line) + 1;
    }
    if (done < c->used && (last || (done == 0 && c->used == sizeof c->line))) {
        print_line(rank, c->line + done, c->used - done);
        done = c->used;
    }
    memmove(c->line, c->line + done, c->used - done);
    c->used -= done;
}

static void read_output(child *c, int rank)
{
    while (c->output >= 0) {
        const ssize_t n = read(c->output, c->line + c->used, sizeof c->line - c->used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            close(c->output);
            c->output = -1;
            print_lines(c, rank, 1);
            return;
        }
        c->used += (size_t)n;
        print_lines(c, rank, 0);
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

/* A rank that cannot be told any more loses its liveness pipe, which ends it. */
static void signal_there(child *c, int sig)
{
    char line[16];
    const int n = snprintf(line, sizeof line, "%s\n", sigabbrev_np(sig));
    if (c->liveness_pipe < 0 || write(c->liveness_pipe, line, (size_t)n) == n)
        return;
    close(c->liveness_pipe);
    c->liveness_pipe = -1;
}

void launch_signal(child *c, int sig)
{
    if (!c->pid)
        return;
    if (c->host[0])
        signal_there(c, sig);
    if (!c->host[0] || sig == SIGKILL)
        kill(c->pid, sig);              /* not reaped yet, so it is nobody else's number     */
}

static void signal_all(launch *l, int sig)
{
    for (int i = 0; i < l->ranks; i++)
        launch_signal(&l->children[i], sig);
}

static uint64_t grace(const launch *l)
{
    return l->o->grace ? l->o->grace : GRACE;
}

/* The signal that a rank died of, 0 if none; ssh's remote shell says it in its exit code. */
static int signal_of(const child *c, int status)
{
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    const int code = WEXITSTATUS(status);
    return c->host[0] && code > 128 && code < 128 + NSIG ? code - 128 : 0;
}

/* The signal that made a rank stop, 0 if none did: it says so by its exit code (base/stop.h), or had
 * not begun to listen. */
static int stop_of(const launch *l, const child *c, int status)
{
    const int sig = signal_of(c, status), code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    if (code > 128 && gt_stop_is(code - 128))
        return code - 128;
    return l->stops ? sig : 0;
}

/* The first failure, for people. */
static void describe_outcome(launch *l, int rank, int sig, int code)
{
    const child *c = &l->children[rank];
    const char *on = c->host[0] ? " on " : "";
    if (sig)
        snprintf(l->outcome, sizeof l->outcome, "rank %d%s%s was killed by signal %d (%s)", rank, on, c->host, sig,
                 strsignal(sig));
    else if (code == SSH_FAILED && c->host[0])
        snprintf(l->outcome, sizeof l->outcome, "ssh lost rank %d on %s, or never reached it", rank, c->host);
    else
        snprintf(l->outcome, sizeof l->outcome, "rank %d%s%s failed with exit code %d", rank, on, c->host, code);
}

int launch_is_stopped(const child *c)
{
    char path[40], text[128] = "", state = 0;
    if (!c->pid || c->host[0])
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)c->pid);
    FILE *f = fopen(path, "re");
    const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    const char *behind = n ? strrchr(text, ')') : NULL;     /* the name may hold anything */
    if (behind)
        sscanf(behind + 1, " %c", &state);
    if (f)
        fclose(f);
    return state == 'T';
}

/* The job is over, and ranks that are stopped cannot see it. The others come first: the end of a
 * stopped rank would be another reason to them than its silence. */
static void end_stopped(launch *l)
{
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (launch_is_stopped(c))
            launch_signal(c, SIGKILL);
    }
}

/* A rank ended. What we ended ourselves tells nothing about why the job failed. */
static void note_end(launch *l, int rank, int status)
{
    const child *c = &l->children[rank];
    const int sig = signal_of(c, status), code = sig ? LOST : WEXITSTATUS(status);
    const int lost = code == LOST || (code == SSH_FAILED && c->host[0]);
    const int stop = stop_of(l, c, status);
    if (code == 0 || ((sig || stop) && l->term_at == UINT64_MAX))
        return;
    if (stop) {                         /* somebody wanted it, and a shell should know       */
        l->own_code = 128 + stop;
        snprintf(l->outcome, sizeof l->outcome, "stopped by signal %d (%s)", stop, strsignal(stop));
        if (!l->stops && !l->term_at)   /* it was told alone; the others know, or never will */
            l->term_at = gt_now_ns() + grace(l);
        return;
    }
    if (l->first_failed < 0) {
        l->term_at = gt_now_ns() + grace(l);
        l->wake_at = gt_now_ns() + SETTLE;
    }
    /* Who was killed was so before others lost it, though both may be seen at once. */
    if (l->first_failed < 0 || (sig && !l->killed_first && !l->own_code)) {
        l->first_failed = rank;
        l->killed_first = sig != 0;
        describe_outcome(l, rank, sig, code);
    }
    l->any_lost |= lost;
    if (!lost && !l->own_code) {
        l->own_code = code;
        if (!l->killed_first)
            describe_outcome(l, rank, sig, code);
    }
}

static void reap(launch *l)
{
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        int status;
        if (!c->pid || waitpid(c->pid, &status, WNOHANG) != c->pid)
            continue;
        c->pid = 0;
        l->alive--;
        read_output(c, i);
        if (c->liveness_pipe >= 0)
            close(c->liveness_pipe);
        c->liveness_pipe = -1;
        elastic_hang_up(&c->words);
        if (!elastic_ended(l, i, signal_of(c, status), WIFEXITED(status) ? WEXITSTATUS(status) : 0))
            note_end(l, i, status);
    }
}

/* A terminal tells the whole group itself. */
static void pass_on(launch *l, int sig, int from_terminal)
{
    for (int i = 0; i < l->ranks; i++)
        if (!from_terminal || l->children[i].host[0])
            launch_signal(&l->children[i], sig);
}

static void take_signals(launch *l)
{
    struct signalfd_siginfo s;
    while (read(l->signals, &s, sizeof s) == (ssize_t)sizeof s) {
        const int sig = (int)s.ssi_signo;
        const uint64_t now = gt_now_ns();
        if (sig == SIGCHLD)
            continue;
        if (gt_stop_is(sig)) {
            l->stops += !l->stops || now - l->stopped_at >= GT_STOP_SAME;
            l->stopped_at = now;
            l->stop_signal = sig;
        }
        pass_on(l, l->stops >= 3 ? SIGKILL : sig, l->stops < 3 && s.ssi_code == SI_KERNEL);
    }
}

static void end_stragglers(launch *l, uint64_t now)
{
    if (l->wake_at && now >= l->wake_at) {
        l->wake_at = 0;
        end_stopped(l);
    }
    if (l->term_at && l->term_at != UINT64_MAX && now >= l->term_at) {
        l->term_at = UINT64_MAX;
        l->kill_at = now + grace(l);
        signal_all(l, SIGTERM);
    }
    if (l->kill_at && now >= l->kill_at) {
        l->kill_at = 0;
        signal_all(l, SIGKILL);
    }
}

static int next_wait(const launch *l, uint64_t now)
{
    uint64_t at = elastic_awaits(l) ? now + 50 * UINT64_C(1000000) : UINT64_MAX;
    if (l->term_at && l->term_at < at)
        at = l->term_at;
    if (l->kill_at && l->kill_at < at)
        at = l->kill_at;
    if (l->wake_at && l->wake_at < at)
        at = l->wake_at;
    if (at == UINT64_MAX)
        return 1000;
    const uint64_t ms = at > now ? (at - now) / 1000000 + 1 : 0;
    return ms < 1000 ? (int)ms : 1000;
}

static void look_after(launch *l, const sigset_t *mask)
{
    const int most = 2 * l->ranks + 1 + NET_DOOR_FDS;
    struct pollfd *p = calloc((size_t)most, sizeof *p);
    while (l->alive && p) {
        p[0] = (struct pollfd){ l->signals, POLLIN, 0 };
        for (int i = 0; i < l->ranks; i++) {
            p[i + 1] = (struct pollfd){ l->children[i].output, POLLIN, 0 };
            p[l->ranks + i + 1] = (struct pollfd){ l->children[i].words.fd, POLLIN, 0 };
        }
        int fds[NET_DOOR_FDS], count = 2 * l->ranks + 1;
        for (int i = 0, doors = elastic_fds(l, fds); i < doors; i++)
            p[count++] = (struct pollfd){ fds[i], POLLIN, 0 };
        const int n = poll(p, (nfds_t)count, next_wait(l, gt_now_ns()));
        for (int i = 0; i < l->ranks && n > 0; i++)
            if (p[i + 1].revents)
                read_output(&l->children[i], i);
        take_signals(l);
        reap(l);
        elastic_tick(l, mask);
        end_stragglers(l, gt_now_ns());
    }
    free(p);
}

static void clean_up(launch *l)
{
    for (int i = 0; i < l->ranks; i++) {
        child *c = &l->children[i];
        if (c->pid) {                   /* only when starting failed half-way                */
            kill(c->pid, SIGKILL);
            waitpid(c->pid, NULL, 0);
        }
        if (c->output >= 0)
            close(c->output);
        if (c->liveness_pipe >= 0)
            close(c->liveness_pipe);
        elastic_hang_up(&c->words);
    }
    net_door_close(l->door);
    l->door = NULL;
    memset(l->secret, 0, sizeof l->secret);
}

static int exit_code_of(const launch *l)
{
    if (l->killed_first)
        return LOST;
    return l->own_code ? l->own_code : l->any_lost ? LOST : 0;
}

/* One start of the whole job. */
static gt_status run_once(launch *l, const sigset_t *mask, int *exit_code)
{
    l->first_failed = -1;
    l->killed_first = l->own_code = l->any_lost = l->alive = 0;
    l->term_at = l->kill_at = l->wake_at = 0;
    l->listener = -1;
    l->formation = l->lost = l->paused = l->over = l->replaced = l->failed_joins = l->lonely = 0;
    l->come_until = l->wait_until = 0;
    l->dropped[0] = '\0';
    l->before = l->size;
    for (int i = 0; i < l->ranks; i++) {
        l->children[i].pid = 0;
        l->children[i].output = l->children[i].liveness_pipe = -1;
        l->children[i].words = (elastic_line){ .fd = -1 };
        l->children[i].guest = l->children[i].heard = 0;
        l->children[i].stopped_at = 0;
        l->children[i].ready = 0;
        l->children[i].rank = i;
        l->children[i].member = !l->o->join && i < l->size;
        l->children[i].used = 0;
    }
    gt_status st = set_up(l);
    for (int i = 0; i < l->size && !st; i++)
        st = launch_start(l, i, mask);
    if (l->listener >= 0)
        close(l->listener);             /* rank 0's alone: when it dies, so does the port    */
    l->listener = -1;
    if (!st)
        look_after(l, mask);
    clean_up(l);
    if (!st) {
        *exit_code = exit_code_of(l);
        if (*exit_code)
            gt_fail(GT_PEER, "%s", l->outcome);
    }
    return st;
}

static gt_status run_all(launch *l, int *exit_code)
{
    sigset_t ours, before;
    gt_status st = GT_OK;
    gt_stop_set(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGUSR2);          /* ranks write their flight records                  */
    sigprocmask(SIG_BLOCK, &ours, &before);
    l->signals = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    if (l->signals < 0)
        st = gt_fail(GT_IO, "cannot look after ranks: %s", strerror(errno));
    unsigned char lot[8];
    net_secret_random(lot, sizeof lot);
    for (size_t i = 0; i < sizeof lot; i++)
        snprintf(l->name + 2 * i, sizeof l->name - 2 * i, "%02x", lot[i]);
    for (l->restart = 0; !st; l->restart++) {
        st = run_once(l, &before, exit_code);
        if (st || *exit_code != LOST || l->restart >= l->o->max_restarts || l->stops)
            break;
        gt_log(GT_LOG_WARN, "net", "%s; starting the job again (%d of %d)", l->outcome, l->restart + 1,
               l->o->max_restarts);
    }
    if (l->signals >= 0)
        close(l->signals);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return st;
}

static gt_status too_few_slots(const net_launch_options *o, int slots, int ranks)
{
    return gt_fail(GT_MISUSE, "hosts file '%s' has %d slots, too few for %d ranks; add slots=N behind a host", o->hosts,
                   slots, ranks);
}

gt_status net_launch(const net_launch_options *o, char **argv, int *exit_code)
{
    launch l = { .o = o, .argv = argv, .ranks = o->ranks, .listener = -1, .first_failed = -1 };
    char *hosts = NULL;
    int slots = 0;
    gt_status st = GT_OK;
    *exit_code = 1;
    if (o->hosts) {
        st = gt_file_read(&hosts, NULL, o->hosts, 1 << 20);
        if (!st)
            st = launch_read_hosts(&l, hosts, &slots);
        if (!st && !l.ranks)
            l.ranks = o->elastic_least && slots > o->elastic_most ? o->elastic_most : slots;
        if (!st && l.ranks > slots)
            st = too_few_slots(o, slots, l.ranks);
    }
    if (!st)
        st = elastic_check(o, &l.ranks);
    l.size = l.ranks;
    if (!st && elastic_is(&l))
        l.ranks = o->elastic_most;
    if (!st && o->hosts && l.ranks > slots)
        st = too_few_slots(o, slots, l.ranks);
    if (!st && (l.ranks < 1 || l.ranks > NET_WORLD))
        st = gt_fail(GT_MISUSE, "cannot start %d ranks: 1 to %d are possible", l.ranks, NET_WORLD);
    if (!st) {
        l.children = calloc((size_t)l.ranks, sizeof *l.children);
        if (!l.children)
            st = gt_fail(GT_NO_MEMORY, "no memory for a list of %d ranks", l.ranks);
    }
    if (!st && hosts)
        st = launch_read_hosts(&l, hosts, &slots);
    if (!st)
        st = run_all(&l, exit_code);
    free(l.children);
    free(hosts);
    return st;
}

gt_status net_launch_self(int ranks, char **argv, int *exit_code)
{
    char self[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    *exit_code = 1;
    if (n < 0)
        return gt_fail(GT_IO, "cannot find this program: %s", strerror(errno));
    self[n] = '\0';
    const net_launch_options o = { .ranks = ranks, .program = self };
    return net_launch(&o, argv, exit_code);
}

gt_status net_launch_status(int exit_code)
{
    char outcome[512];
    if (exit_code == 0)
        return GT_OK;
    snprintf(outcome, sizeof outcome, "%s", gt_message());
    if (exit_code > 128 && gt_stop_is(exit_code - 128)) {
        gt_stop_note(exit_code - 128);
        return gt_fail(GT_INTERRUPTED, "%s", outcome);
    }
    return gt_fail(exit_code == LOST ? GT_PEER : exit_code == 2 ? GT_MISUSE : GT_IO, "%s", outcome);
}
