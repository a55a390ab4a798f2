/* SPDX-License-Identifier: MIT */
/* net/job/launcher.c - one process a rank, one loop over their output, ends and signals.
 *
 * Local ranks are children. Rank 0 inherits a socket that listens already, so the port is
 * known before anybody starts and cannot be taken in between. Over ssh that cannot be: there
 * the port is drawn by lot, and PORTS behind it are tried.
 *
 * A remote rank hangs on its standard input: the script that starts it reads the secret's
 * line, passes on each signal whose name comes as a line, and stops the rank when the input ends.
 * So a rank ends with the launcher, however that ended.                                  */
#include "net/job/launcher_private.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "net/job/address.h"
#include "net/job/hello.h"
#include "net/job/hostlist.h"
#include "net/job/identity.h"
#include "net/job/secret.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PORTS = 16, FIRST_PORT = 25000, LAST_PORT = 29999 };
#define GRACE (5 * UINT64_C(1000000000))
#define SETTLE (1 * UINT64_C(1000000000))

/* ---- what a rank is told ------------------------------------------------------------------- */

/* Calls put(name, value) for each variable but the secret. */
static void tell(const launch *l, int rank, void (*put)(void *, const char *, const char *), void *to)
{
    const child *c = &l->children[rank];
    char number[32];
    const struct {
        const char *name;
        int value;
    } numbers[] = { { "GEARTRAIN_RANK", rank },
                    { "GEARTRAIN_SIZE", c->member ? l->size : l->ranks },
                    { "GEARTRAIN_LOCAL_RANK", c->local_rank },
                    { "GEARTRAIN_LOCAL_SIZE", c->local_size },
                    { "GEARTRAIN_RESTART", l->restart },
                    { "GEARTRAIN_PORTS", l->listener >= 0 ? 1 : PORTS } };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(number, sizeof number, "%d", numbers[i].value);
        put(to, numbers[i].name, number);
    }
    put(to, "GEARTRAIN_JOB", l->job);
    put(to, "GEARTRAIN_LAUNCH", l->name);
    put(to, "GEARTRAIN_ROOT", l->root);
}

static void put_environment(void *to, const char *name, const char *value)
{
    (void)to;
    setenv(name, value, 1);
}

/* 'it'\''s': one word for any POSIX shell. */
static void put_quoted(gt_text *t, const char *word)
{
    gt_text_printf(t, "'");
    for (const char *p = word; *p; p++)
        if (*p == '\'')
            gt_text_printf(t, "'\\''");
        else
            gt_text_put(t, p, 1);
    gt_text_printf(t, "'");
}

static void forget_here(void *context, const char *name)
{
    (void)context;
    unsetenv(name);
}

static void forget_there(void *script, const char *name)
{
    gt_text_printf(script, "unset %s; ", name);
}

static void put_export(void *to, const char *name, const char *value)
{
    gt_text_printf(to, "export %s=", name);
    put_quoted(to, value);
    gt_text_printf(to, "; ");
}

/* Settings that a remote rank should find as here. */
static void put_settings(gt_text *t)
{
    static const char *const prefixes[] = { "GEARTRAIN_", "GT_", "NCCL_", "UCX_", "OCL_", "POCL_", "OMP_" };
    for (char **e = environ; *e; e++)
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            char name[128];
            const char *equals = strchr(*e, '=');
            if (strncmp(*e, prefixes[i], strlen(prefixes[i])) || !equals || equals - *e >= (long)sizeof name
                || !strncmp(*e, "GEARTRAIN_SECRET=", 17) || !strncmp(*e, "GEARTRAIN_LISTEN_FD=", 20))
                continue;
            snprintf(name, sizeof name, "%.*s", (int)(equals - *e), *e);
            if (strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name))
                put_export(t, name, equals + 1);
        }
}

/* The script of a remote rank. */
static void write_script(const launch *l, int rank, gt_text *t)
{
    char folder[PATH_MAX];
    gt_text script = { 0 };
    if (getcwd(folder, sizeof folder)) {
        gt_text_printf(&script, "cd ");
        put_quoted(&script, folder);
        gt_text_printf(&script, " || exit 1; ");
    }
    gt_text_printf(&script, "IFS= read -r GEARTRAIN_SECRET || exit 1; export GEARTRAIN_SECRET; ");
    net_identity_forget(forget_there, &script);
    put_settings(&script);
    tell(l, rank, put_export, &script);
    elastic_tell(l, rank, -1, put_export, &script);
    gt_text_printf(&script, "exec 3<&0; ");
    if (l->o->program)
        put_quoted(&script, l->o->program);
    for (char **a = l->argv; *a; a++) {
        gt_text_printf(&script, " ");
        put_quoted(&script, *a);
    }
    gt_text_printf(&script, " < /dev/null 3<&- & rank=$!; "
                            "{ while IFS= read -r s <&3; do kill -s \"$s\" $rank; done; "
                            "kill -TERM $rank; sleep 5; kill -KILL $rank; } > /dev/null 2>&1 & "
                            "guard=$!; exec 3<&-; wait $rank; code=$?; kill $guard 2> /dev/null; exit $code");
    gt_text_printf(t, "exec /bin/sh -c ");
    if (script.data)
        put_quoted(t, script.data);
    t->failed |= script.failed;
    gt_text_release(&script);
}

/* ---- starting ------------------------------------------------------------------------------ */

/* 1: rank 0 of the start: the launcher's streams are its own. */
static int is_first(const launch *l, int place)
{
    return place == 0 && (l->children[0].member || l->o->join);
}

/* Of an elastic job any rank may become rank 0, whose output alone is not empty. */
static void child_streams(int first, int output, int input, int elastic)
{
    if (input >= 0)
        dup2(input, STDIN_FILENO);
    else if (!first) {
        const int null = open("/dev/null", O_RDONLY);
        if (null >= 0)
            dup2(null, STDIN_FILENO);
    }
    if (output >= 0) {
        if (!elastic)
            dup2(output, STDOUT_FILENO);
        dup2(output, STDERR_FILENO);
    }
}

/* In the child, up to exec; never returns. What goes wrong is told over `report`, for the
 * parent to say; a copy of the parent has no business running its exit handlers. */
static void become_rank(launch *l, int rank, int output, int input, int report, int words, char **argv, pid_t parent,
                        const sigset_t *mask)
{
    child_streams(is_first(l, rank), output, input, elastic_is(l) || l->o->join);
    sigprocmask(SIG_SETMASK, mask, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        kill(getpid(), SIGKILL);
    if (!l->children[rank].host[0]) {
        net_identity_forget(forget_here, NULL);
        tell(l, rank, put_environment, NULL);
        setenv("GEARTRAIN_SECRET", l->secret, 1);
        unsetenv("GEARTRAIN_LISTEN_FD");
        elastic_tell(l, rank, words, put_environment, NULL);
        if (is_first(l, rank) && l->listener >= 0) {
            char number[16];
            fcntl(l->listener, F_SETFD, 0);
            snprintf(number, sizeof number, "%d", l->listener);
            setenv("GEARTRAIN_LISTEN_FD", number, 1);
        }
    }
    execvp(argv[0], argv);
    const int error = errno;
    if (write(report, &error, sizeof error) != (ssize_t)sizeof error)
        kill(getpid(), SIGABRT);
    kill(getpid(), SIGKILL);
}

/* The pipe ends at exec without a word, or brings the reason why there was none. */
static gt_status await_exec(int report, const char *program)
{
    int error = 0;
    ssize_t n;
    do
        n = read(report, &error, sizeof error);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof error)
        return gt_fail(GT_NOT_FOUND, "cannot run '%s': %s", program, strerror(error));
    return GT_OK;
}

/* The words to run for a rank; free the array and, for ssh, its texts (`words` and `script`). */
static char **local_words(const launch *l)
{
    size_t n = 0;
    while (l->argv[n])
        n++;
    char **words = calloc(n + 2, sizeof *words);
    if (!words)
        return NULL;
    size_t k = 0;
    if (l->o->program)
        words[k++] = (char *)(uintptr_t)l->o->program;
    memcpy(words + k, l->argv, n * sizeof *words);
    return words;
}

/* ssh, its options, the host, the script. `store` holds ssh's words. */
static char **remote_words(const launch *l, const child *c, char *store, char *script)
{
    static const char *const options[] = { "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5", "-T" };
    char **words = calloc(64, sizeof *words), *save = NULL;
    int n = 0;
    if (!words)
        return NULL;
    snprintf(store, 1024, "%s", l->o->ssh ? l->o->ssh : "ssh");
    for (char *w = strtok_r(store, " \t", &save); w && n < 48; w = strtok_r(NULL, " \t", &save))
        words[n++] = w;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        words[n++] = (char *)(uintptr_t)options[i];
    words[n++] = (char *)(uintptr_t)c->host;
    words[n++] = script;
    return words;
}

gt_status launch_start(launch *l, int rank, const sigset_t *mask)
{
    child *c = &l->children[rank];
    int output[2] = { -1, -1 }, input[2] = { -1, -1 }, report[2] = { -1, -1 }, words_end = -1;
    const int piped = !is_first(l, rank);
    char store[1024];
    gt_text script = { 0 };
    gt_status st = GT_OK;
    const pid_t parent = getpid();
    if (c->host[0])
        write_script(l, rank, &script);
    char **words = c->host[0] ? remote_words(l, c, store, script.data) : local_words(l);
    if (!words || script.failed)
        st = gt_fail(GT_NO_MEMORY, "cannot start rank %d: no memory for its command", rank);
    if (!st
        && (pipe2(report, O_CLOEXEC) != 0 || (piped && pipe2(output, O_CLOEXEC) != 0)
            || (c->host[0] && pipe2(input, O_CLOEXEC) != 0)))
        st = gt_fail(GT_IO, "cannot start rank %d: %s", rank, strerror(errno));
    if (!st)
        st = elastic_open(l, rank, &words_end);
    if (!st) {
        c->pid = fork();
        if (c->pid == 0)
            become_rank(l, rank, output[1], input[0], report[1], words_end, words, parent, mask);
        if (c->pid < 0) {
            c->pid = 0;
            st = gt_fail(GT_IO, "cannot start rank %d: %s", rank, strerror(errno));
        } else {
            c->number = c->pid;
            l->alive++;
        }
    }
    const int ours[] = { output[1], input[0], report[1], words_end };
    for (int i = 0; i < 4; i++)
        if (ours[i] >= 0)
            close(ours[i]);
    if (!st)
        st = await_exec(report[0], words[0]);
    if (report[0] >= 0)
        close(report[0]);
    c->output = output[0];
    c->liveness_pipe = input[1];
    if (c->output >= 0)
        net_set_blocking(c->output, 0);
    if (!st && c->liveness_pipe >= 0 && dprintf(c->liveness_pipe, "%s\n", l->secret) < 0)
        st = gt_fail(GT_IO, "cannot hand the secret to rank %d: %s", rank, strerror(errno));
    free(words);
    gt_text_release(&script);
    return st;
}

/* ---- where ------------------------------------------------------------------------------------ */

gt_status launch_listen(launch *l, int for_others)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    net_address at = { .size = sizeof in };
    uint16_t first = 0, last = 0;
    gt_status st = l->o->config ? net_ports_parse(&first, &last, l->o->config->port_range) : GT_OK;
    memcpy(&at.at, &in, sizeof in);
    if (for_others)
        at = l->door_at;
    if (!st)
        st = net_listen(&l->listener, &at, first, (uint16_t)(first ? last - first + 1 : 1));
    if (!st)
        st = net_address_own(&at, l->listener);
    if (!st)
        net_address_text(l->root, sizeof l->root, &at);
    return st;
}

static gt_status place_here(launch *l)
{
    gt_status st = launch_listen(l, 0);
    for (int i = 0; i < l->ranks; i++) {
        l->children[i].local_rank = i;
        l->children[i].local_size = l->size;
    }
    return st;
}

/* "user@node" -> "node". */
static const char *bare(const char *host)
{
    const char *at = strrchr(host, '@');
    return at ? at + 1 : host;
}

static int is_loopback(const char *host)
{
    return !strcmp(bare(host), "localhost") || !strncmp(bare(host), "127.", 4) || !strcmp(bare(host), "::1");
}

typedef struct wanted {
    const char *host;
    int found;
} wanted;

static void look_at_address(void *context, const char *interface, const net_address *a)
{
    wanted *w = context;
    char text[64];
    (void)interface;
    w->found |= !strcmp(net_address_host(text, sizeof text, a), w->host);
}

/* Names and addresses of this host, which need no ssh; somebody@here does. A name with a domain is
 * this host's if the other has none. */
static int is_here(const char *host)
{
    char own[HOST] = "";
    wanted w = { host, 0 };
    if (strchr(host, '@'))
        return 0;
    if (is_loopback(host))
        return 1;
    net_interface_each(look_at_address, &w);
    if (w.found || gethostname(own, sizeof own - 1) != 0)
        return w.found;
    const size_t label = strcspn(own, ".");
    const int one_is_short = !own[label] || !host[strcspn(host, ".")];
    return !strcasecmp(host, own) || (one_is_short && strcspn(host, ".") == label && !strncasecmp(host, own, label));
}

/* Gives the slots of the file to ranks, line by line; *slots counts them all. */
static gt_status read_hosts(launch *l, const char *text, int *slots)
{
    char line[512], host[HOST];
    int number = 0, mixed = 0, here = 0, n;
    *slots = 0;
    for (const char *p = text; *p;) {
        const size_t length = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(length < 511 ? length : 511), p);
        p += length + (p[length] == '\n');
        number++;
        gt_status st = net_hosts_line(host, sizeof host, &n, line);
        if (st)
            return gt_fail_in(GT_MISUSE, "hosts file '%s', line %d", l->o->hosts, number);
        const int there = n && !is_here(host);
        for (int i = 0; i < n && l->children && *slots + i < l->ranks; i++) {
            child *c = &l->children[*slots + i];
            snprintf(c->host, sizeof c->host, "%s", there ? host : "");
            c->local_rank = c->local_size = -1;
            l->there |= there;
        }
        if (n && !*slots)
            snprintf(l->first, sizeof l->first, "%s", host);
        *slots += n;
        here |= n && is_loopback(host);
        mixed |= n && !is_loopback(host);
    }
    if (*slots == 0)
        return gt_fail(GT_MISUSE, "hosts file '%s' names no host", l->o->hosts);
    if (here && mixed)
        return gt_fail(GT_MISUSE,
                       "hosts file '%s' names localhost beside other hosts; give it the name "
                       "that the others know it by",
                       l->o->hosts);
    return GT_OK;
}

static gt_status place_there(launch *l)
{
    uint16_t first = 0, last = 0;
    uint32_t lot;
    gt_status st = l->o->config ? net_ports_parse(&first, &last, l->o->config->port_range) : GT_OK;
    if (st)
        return st;
    if (!first) {
        first = FIRST_PORT;
        last = LAST_PORT;
    }
    net_secret_random(&lot, sizeof lot);
    const unsigned there = (unsigned)(last - first) + 1;
    const unsigned port = first + (there > PORTS ? lot % (there - PORTS + 1) : 0);
    const char *host = bare(l->first);
    snprintf(l->root, sizeof l->root, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    return GT_OK;
}

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
        st = l->there ? place_there(l) : place_here(l);
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
            st = read_hosts(&l, hosts, &slots);
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
        st = read_hosts(&l, hosts, &slots);
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
