/* SPDX-License-Identifier: MIT */
/* tests/base/test_activity.c - what long work says of itself, stopping it, loops on all cores, and keeping to some. */
#include "tests/check.h"

#include "host/base/activity.h"
#include "host/base/processors.h"
#include "host/base/random.h"
#include "host/base/stop.h"
#include "host/base/workers.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int ends;

static void note_end(void)
{
    ends++;
}

static int described_as(const char *want)
{
    char text[256];
    uint64_t since = 0;
    const int busy = gt_activity_describe(text, sizeof text, &since);
    return *want ? busy && since > 0 && !strcmp(text, want) : !busy && !*text;
}

static void the_innermost_is_the_detail(void)
{
    gt_activity outer, inner;
    char few[12];
    uint64_t since;
    ends = 0;
    gt_activity_after(note_end);
    CHECK(described_as(""));
    gt_activity_begin(&outer, "laying out memory of", "nodes", 340);
    CHECK_OK(gt_activity_at(&outer, 12));
    CHECK(described_as("laying out memory of 12/340 nodes"));
    gt_activity_begin(&inner, "compiling gemm.cl", NULL, 0);
    CHECK(described_as("laying out memory of 12/340 nodes: compiling gemm.cl"));
    gt_activity_set(&inner, 3);
    CHECK(described_as("laying out memory of 12/340 nodes: compiling gemm.cl 3"));
    CHECK(gt_activity_describe(few, sizeof few, &since) && !strcmp(few, "laying out "));
    gt_activity_end(&inner);
    CHECK(described_as("laying out memory of 12/340 nodes") && ends == 0);
    gt_activity_end(&outer);
    CHECK(described_as("") && ends == 1);
    gt_activity_after(NULL);
}

static void *work_elsewhere(void *context)
{
    gt_activity a;
    gt_activity_begin(&a, "elsewhere", NULL, 5);
    *(int *)context = described_as("here") && gt_activity_at(&a, 1) == GT_OK;
    gt_activity_end(&a);
    return NULL;
}

static void another_thread_shows_nothing(void)
{
    gt_activity a;
    pthread_t t;
    int good = 0;
    gt_activity_begin(&a, "here", NULL, 0);
    CHECK(pthread_create(&t, NULL, work_elsewhere, &good) == 0);
    pthread_join(t, NULL);
    CHECK(good && described_as("here"));
    gt_activity_end(&a);
}

static void a_wish_to_stop_reaches_whoever_counts(void)
{
    gt_activity a;
    gt_activity_begin(&a, "counting", NULL, 9);
    CHECK_OK(gt_activity_at(&a, 1));
    gt_stop_note(SIGTERM);
    CHECK(gt_stop_asked() == SIGTERM);
    CHECK_FAILS(gt_activity_at(&a, 2), GT_INTERRUPTED, "stopped");
    CHECK(a.done == 2);
    CHECK_FAILS(gt_stop_check(), GT_INTERRUPTED, "stopped");
    gt_stop_withdraw();
    CHECK_OK(gt_activity_at(&a, 3));
    gt_activity_end(&a);
}

static void add_turn(void *context, size_t i)
{
    atomic_fetch_add((atomic_int *)context + i, 1);
}

static void every_turn_is_made_once(void)
{
    enum { TURNS = 1000 };
    static atomic_int made[TURNS];
    size_t wrong = 0;
    gt_workers_run(TURNS, add_turn, made);
    gt_workers_run(0, add_turn, made);
    for (size_t i = 0; i < TURNS; i++)
        wrong += atomic_load(&made[i]) != 1;
    CHECKF(wrong == 0, "%zu turns", wrong);
}

/* What a thread may run on when it is let look. */
typedef struct early_thread {
    pthread_mutex_t lock;
    cpu_set_t may;
} early_thread;

static void *look_when_let(void *context)
{
    early_thread *t = context;
    pthread_mutex_lock(&t->lock);
    CPU_ZERO(&t->may);
    sched_getaffinity(0, sizeof t->may, &t->may);
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* In a process of its own: 0 if all threads, begun before and after, have the last processor of `all` alone. */
static int keep_to_the_last(int all)
{
    cpu_set_t before, now;
    early_thread t = { .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t early, late;
    int last = -1;
    sched_getaffinity(0, sizeof before, &before);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        last = CPU_ISSET((size_t)cpu, &before) ? cpu : last;
    pthread_mutex_lock(&t.lock);
    if (pthread_create(&early, NULL, look_when_let, &t))
        return 1;
    if (gt_processors_keep(0, 1, all + 1) || gt_processors_keep(all - 1, 2, all) || gt_processors_keep(0, 0, all))
        return 2;
    sched_getaffinity(0, sizeof now, &now);
    if (!CPU_EQUAL(&now, &before))
        return 3;
    if (!gt_processors_keep(all - 1, 1, all))
        return 4;
    CPU_ZERO(&before);
    CPU_SET((size_t)last, &before);
    sched_getaffinity(0, sizeof now, &now);
    if (!CPU_EQUAL(&now, &before))
        return 5;
    pthread_mutex_unlock(&t.lock);
    pthread_join(early, NULL);
    if (!CPU_EQUAL(&t.may, &before))
        return 6;
    if (pthread_create(&late, NULL, look_when_let, &t))
        return 1;
    pthread_join(late, NULL);
    return CPU_EQUAL(&t.may, &before) ? 0 : 7;
}

static void a_process_keeps_to_its_processors(void)
{
    cpu_set_t may;
    int status = -1;
    CHECK(sched_getaffinity(0, sizeof may, &may) == 0);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(keep_to_the_last(CPU_COUNT(&may)));
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* The bits are those of the textbook's formula with the C library's functions, and those of a part
 * are those of the whole. */
static void normal_numbers_have_the_formulas_bits(void)
{
    enum { COUNT = 1 << 20, FROM = 123456, SOME = 777 };
    float *x = malloc(COUNT * sizeof *x), part[SOME];
    const float deviation = 0.02f;
    gt_random r;
    size_t wrong = 0;
    gt_random_init(&r, 5, 77);
    gt_random_normal(&r, x, COUNT, 0.5f, deviation);
    gt_random_init(&r, 5, 77);
    for (size_t i = 0; i < COUNT; i += 2) {
        const double u = ((double)gt_random_u32(&r) + 1.0) * 0x1p-32;
        const double angle = (double)gt_random_u32(&r) * 0x1p-32 * 6.283185307179586;
        const double radius = sqrt(-2.0 * log(u)) * (double)deviation;
        wrong += x[i] != 0.5f + (float)(radius * cos(angle));
        wrong += x[i + 1] != 0.5f + (float)(radius * sin(angle));
    }
    CHECKF(wrong == 0, "%zu numbers differ", wrong);
    gt_random_seek(&r, FROM);
    gt_random_normal(&r, part, SOME, 0.5f, deviation);
    CHECK(!memcmp(part, x + FROM, sizeof part));
    for (size_t drawn = 0; drawn < 9; drawn++)      /* numbers go on where others were drawn, in and between blocks */
        for (size_t n = 1; n < SOME; n += 193) {
            gt_random a, b;
            gt_random_init(&a, 5, 77);
            for (size_t i = 0; i < 2 * drawn + 1; i++)
                gt_random_u32(&a);
            b = a;
            gt_random_normal(&a, part, n, 0.0f, 1.0f);
            wrong = 0;
            for (size_t i = 0; i < n; i += 2) {
                const double u = ((double)gt_random_u32(&b) + 1.0) * 0x1p-32;
                const double angle = (double)gt_random_u32(&b) * 0x1p-32 * 6.283185307179586;
                wrong += part[i] != (float)(sqrt(-2.0 * log(u)) * cos(angle));
                wrong += i + 1 < n && part[i + 1] != (float)(sqrt(-2.0 * log(u)) * sin(angle));
            }
            CHECKF(wrong == 0 && gt_random_u32(&a) == gt_random_u32(&b), "%zu of %zu numbers differ", wrong, n);
        }
    for (uint64_t n = 0; n < 9; n++) {
        gt_random a, b;
        gt_random_init(&a, 1, 2);
        gt_random_init(&b, 1, 2);
        gt_random_seek(&b, n);
        for (uint64_t i = 0; i < n; i++)
            gt_random_u32(&a);
        CHECK(gt_random_u32(&a) == gt_random_u32(&b));
    }
    free(x);
}

const check_case check_cases[] = {
    CASE(the_innermost_is_the_detail),
    CASE(another_thread_shows_nothing),
    CASE(a_wish_to_stop_reaches_whoever_counts),
    CASE(every_turn_is_made_once),
    CASE(a_process_keeps_to_its_processors),
    CASE(normal_numbers_have_the_formulas_bits),
    { 0 }
};
