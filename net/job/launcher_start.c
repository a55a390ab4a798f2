/* SPDX-License-Identifier: MIT */
/* net/job/launcher_start.c - one rank's process: what it is told, over its environment or a script, and its start.
 *
 *   here    fork, variables, exec
 *   there   ssh HOST  ◄── standard input: the secret's line, then names of signals, its end last
 *             └─ sh: reads the secret, starts the rank, passes signals on, ends the rank when the input ends
 *
 * A remote rank hangs on its standard input, so that it ends with the launcher, however that ended; and what
 * is secret is never in a command's words. */
#include "net/job/launcher_private.h"

#include "host/base/text.h"
#include "net/job/address.h"
#include "net/job/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

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
                    { "GEARTRAIN_PORTS", l->listener >= 0 ? 1 : LAUNCH_PORTS } };
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

/* A program that is launched need not be this one: what this one blocks and ignores for itself is as usual
 * again. */
static void signals_for_any(const sigset_t *mask)
{
    sigset_t usual = *mask;
    sigdelset(&usual, SIGXFSZ);
    sigdelset(&usual, SIGUSR2);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigprocmask(SIG_SETMASK, &usual, NULL);
}

/* In the child, up to exec; never returns. What goes wrong is told over `report`, for the
 * parent to say; a copy of the parent has no business running its exit handlers. */
static void become_rank(launch *l, int rank, int output, int input, int report, int words, char **argv, pid_t parent,
                        const sigset_t *mask)
{
    child_streams(is_first(l, rank), output, input, elastic_is(l) || l->o->join);
    signals_for_any(mask);
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
