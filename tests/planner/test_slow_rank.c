/* SPDX-License-Identifier: MIT */
/* tests/planner/test_slow_rank.c - which times of steps are a slow rank, and which are not. */
#include "host/planner/slow_rank.h"
#include "tests/check.h"

#include <math.h>

enum { RANKS = 3, USUAL = SLOW_RANK_WARM_UP + SLOW_RANK_LEARN };

/* Times of rank 1 and of the step from some step on; all else stays as it was. */
typedef struct change {
    double busy, others, step;
    int steps;
} change;

/* Ranks compute 100, 80 and 60 units and a step takes 120, give or take `noise` of a rank's own; then the
 * change. Returns after how many steps a rank was named, 0: never. */
static int steps_until_named(double unit, double noise, const change *c, slow_rank_finding *found)
{
    slow_rank_watch *w = NULL;
    int named = 0, times = 0;
    if (!CHECK_OK(slow_rank_create(&w, RANKS, 2.0)))
        return 0;
    for (int s = 0; s < USUAL + c->steps; s++) {
        const double wave = noise * (s % 2 ? 1.0 : -1.0);
        double busy[RANKS] = { 100.0 * unit, 80.0 * unit * (1.0 + wave), 60.0 * unit }, step = 120.0 * unit;
        if (s < SLOW_RANK_WARM_UP)              /* compiling: tells nothing of what is usual */
            step = busy[0] = busy[1] = 1e4 * unit;
        if (s >= USUAL) {
            busy[1] = c->busy * unit;
            busy[0] *= c->others;
            busy[2] *= c->others;
            step = c->step * unit;
        }
        if (slow_rank_step(w, busy, step, found) && !times++)
            named = s + 1 - USUAL;
    }
    CHECKF(times <= 1, "named %d times", times);
    slow_rank_release(w);
    return named;
}

static void a_slow_rank_is_named_once(void)
{
    const change slow = { 400.0, 1.0, 440.0, 30 };
    slow_rank_finding f = { 0 };
    static const double units[] = { 1e-5, 1e-3, 1.0 };
    for (int i = 0; i < 3; i++) {
        CHECK(steps_until_named(units[i], 0.02, &slow, &f) == SLOW_RANK_PATIENCE);
        CHECKF(f.rank == 1 && fabs(f.factor - 5.0) < 0.01 && fabs(f.longer - 320.0 * units[i]) < units[i],
               "rank %d, factor %g, %g s longer", f.rank, f.factor, f.longer);
    }
}

static void what_does_not_matter_is_not_named(void)
{
    static const struct {
        const char *what;
        double noise;
        change c;
    } cases[] = {
        { "the step is no longer", 0.02, { 400.0, 1.0, 121.0, 30 } },
        { "all have become slow alike", 0.02, { 400.0, 5.0, 600.0, 30 } },
        { "a little slower", 0.02, { 150.0, 1.0, 190.0, 30 } },
        { "it varies so much always", 0.9, { 400.0, 1.0, 440.0, 0 } },
        { "for a few steps", 0.02, { 400.0, 1.0, 440.0, SLOW_RANK_PATIENCE - 1 } },
        { "a small part of a long step", 0.02, { 400.0, 1.0, 4000.0, 30 } },
    };
    slow_rank_finding f;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECKF(!steps_until_named(1e-3, cases[i].noise, &cases[i].c, &f), "%s", cases[i].what);
    const change noisy = { 280.0, 1.0, 440.0, 30 };     /* 200 longer, with 72 either way before */
    CHECK(!steps_until_named(1e-3, 0.9, &noisy, &f));
}

/* A rank computes a quarter of a millisecond in steps of five; then another program takes a core for a
 * while: 6.3 times as long, and still a third of the step. Where steps were that long before, now and then,
 * nothing has happened. */
static void noise_of_a_millisecond_is_no_slow_rank(void)
{
    slow_rank_watch *w = NULL;
    slow_rank_finding f;
    if (!CHECK_OK(slow_rank_create(&w, 2, 2.0)))
        return;
    for (int s = 0; s < 60; s++) {
        const int disturbed = s >= USUAL ? s % 20 < 12 : s % 4 == 3;
        const double busy[2] = { 0.25e-3, disturbed ? 1.58e-3 : 0.25e-3 };
        CHECK(!slow_rank_step(w, busy, disturbed ? 6.4e-3 : 5e-3, &f));
    }
    slow_rank_release(w);
}

const check_case check_cases[] = { CASE(a_slow_rank_is_named_once),
                                   CASE(what_does_not_matter_is_not_named),
                                   CASE(noise_of_a_millisecond_is_no_slow_rank),
                                   { 0 } };
