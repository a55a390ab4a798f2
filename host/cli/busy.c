/* SPDX-License-Identifier: MIT */
/* host/cli/busy.c - the thread that shows activities. */
#include "host/cli/busy.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOK_NS 100000000u
#define MS 1000000ull

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running, over, terminal, patient;
    int drawn;                          /* a line of ours is on the screen             */
    uint64_t since, next;               /* of the activity told last; when to tell again, pipes */
} b = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };

static void put(const char *text, size_t size)
{
    if (write(STDERR_FILENO, text, size) < 0)
        return;                         /* nowhere left to say so */
}

static void clear_line(void)
{
    if (b.drawn)
        put("\r\033[K", 4);
    b.drawn = 0;
}

static size_t columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

/* The end of the text is the least important, but for the time. */
static void draw(const char *what, uint64_t took)
{
    char line[512], time[32];
    gt_format_duration(time, sizeof time, (double)took * 1e-9);
    const size_t room = columns() - 3 - strlen(time);
    const int n = snprintf(line, sizeof line, "\r\033[K%.*s  %s", (int)(room < 400 ? room : 400), what, time);
    put(line, (size_t)n);
    b.drawn = 1;
}

/* A line at 2, 12, 32, 72 ... seconds of the same activity, at most every two minutes. */
static void tell(const char *what, uint64_t since, uint64_t took)
{
    char line[512];
    if (since != b.since) {
        b.since = since;
        b.next = (b.patient ? 10000 : 2000) * MS;
    }
    if (took < b.next)
        return;
    const int n = snprintf(line, sizeof line, "busy    %.400s, for %.0f s\n", what, (double)took * 1e-9);
    put(line, (size_t)n);
    const uint64_t more = b.next < 60000 * MS ? b.next + 8000 * MS : 120000 * MS;
    b.next += more;
}

static void look(void)
{
    char what[512];
    uint64_t since;
    if (!gt_activity_describe(what, sizeof what, &since)) {
        clear_line();
        return;
    }
    const uint64_t took = gt_now_ns() - since;
    if (!b.terminal)
        tell(what, since, took);
    else if (took >= (b.patient ? 3000 : 300) * MS)
        draw(gt_stop_asked() ? "stopping" : what, took);
}

static void *watch(void *nothing)
{
    (void)nothing;
    pthread_mutex_lock(&b.lock);
    while (!b.over) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&b.wake, &b.lock, &until);
        if (!b.over)
            look();
    }
    clear_line();
    pthread_mutex_unlock(&b.lock);
    return NULL;
}

void cli_busy_start(void)
{
    if (b.running)
        return;
    b.over = 0;
    b.terminal = isatty(STDERR_FILENO);
    b.running = pthread_create(&b.thread, NULL, watch, NULL) == 0;
    gt_log_before(b.running ? cli_busy_clear : NULL);
    gt_activity_after(b.running ? cli_busy_clear : NULL);
}

void cli_busy_stop(void)
{
    if (!b.running)
        return;
    gt_log_before(NULL);
    gt_activity_after(NULL);
    pthread_mutex_lock(&b.lock);
    b.over = 1;
    pthread_cond_signal(&b.wake);
    pthread_mutex_unlock(&b.lock);
    pthread_join(b.thread, NULL);
    b.running = 0;
}

void cli_busy_clear(void)
{
    pthread_mutex_lock(&b.lock);
    clear_line();
    pthread_mutex_unlock(&b.lock);
}

void cli_busy_patient(void)
{
    pthread_mutex_lock(&b.lock);
    b.patient = 1;
    pthread_mutex_unlock(&b.lock);
}
