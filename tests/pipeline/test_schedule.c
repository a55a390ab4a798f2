/* SPDX-License-Identifier: MIT */
/* tests/pipeline/test_schedule.c - every schedule at every size passes the proof, takes the time
 * that its paper says, and keeps the memory it promises; and the proof catches what is wrong. */
#include "host/base/random.h"
#include "host/pipeline/simulate.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Equal stages: seconds of forward, backward-input and backward-weight. */
static pipe_cost *equal_costs(int stages, double f, double b, double w)
{
    pipe_cost *c = calloc((size_t)stages, sizeof *c);
    for (int i = 0; i < stages; i++)
        c[i] = (pipe_cost){ .forward = f, .backward_input = b, .backward_weight = w, .activation = 1 };
    return c;
}

static double simulated(const char *name, int ranks, int chunks, int micro_batches, const pipe_cost *costs,
                        double *idle)
{
    pipe_schedule s;
    pipe_simulation sim = { 0 };
    double seconds = -1;
    if (CHECK_OK(pipe_schedule_make(&s, name, ranks, chunks, micro_batches, costs, NULL))) {
        CHECK_OK(pipe_schedule_check(&s, NULL));
        if (CHECK_OK(pipe_simulate(&sim, &s, costs, 0)))
            seconds = sim.step;
        if (idle)
            *idle = sim.idle;
    }
    pipe_simulation_release(&sim);
    pipe_schedule_release(&s);
    return seconds;
}

static void every_schedule_passes_the_proof(void)
{
    for (int n = 0; pipe_schedule_at(n); n++)
        for (int ranks = 1; ranks <= 9; ranks++)
            for (int m = 1; m <= 20; m++) {
                const char *name = pipe_schedule_at(n)->name;
                const int chunks = strcmp(name, "interleaved") ? 1 : 2 + m % 3;
                const int all = chunks > 1 ? m * ranks : m;
                pipe_cost *c = equal_costs(ranks * chunks, 1, 1.2, 0.8);
                pipe_schedule s;
                int kept[9];
                if (CHECK_OK(pipe_schedule_make(&s, name, ranks, chunks, all, c, NULL)))
                    CHECKF(!pipe_schedule_check(&s, kept), "%s, %d ranks, %d micro-batches: %s", name, ranks, all,
                           gt_message());
                pipe_schedule_release(&s);
                free(c);
            }
}

static int near(double a, double b)
{
    return fabs(a - b) < 1e-9 * (1 + fabs(b));
}

/* Idle time of a rank: GPipe, 1F1B and interleaved (p-1)(f+b), where a chunk of the last takes its
 * share; zb-h1 (p-1)(f+b-w); for enough micro-batches. */
static void times_are_those_of_the_papers(void)
{
    for (int p = 1; p <= 8; p++)
        for (int m = 2 * p; m <= 32; m += p) {
            pipe_cost *c = equal_costs(4 * p, 1, 1, 1);
            const double work = 3.0 * m;
            CHECKF(near(simulated("gpipe", p, 1, m, c, NULL), work + 2.0 * (p - 1)), "p %d m %d", p, m);
            CHECKF(near(simulated("1f1b", p, 1, m, c, NULL), work + 2.0 * (p - 1)), "p %d m %d", p, m);
            CHECKF(near(simulated("zb-h1", p, 1, m, c, NULL), work + 1.0 * (p - 1)), "p %d m %d: %g", p, m,
                   simulated("zb-h1", p, 1, m, c, NULL) - work);
            if (p > 1)
                for (int v = 2; v <= 4; v += 2)
                    CHECKF(near(simulated("interleaved", p, v, m, c, NULL), work * v + 2.0 * (p - 1)),
                           "p %d m %d v %d: %g", p, m, v, simulated("interleaved", p, v, m, c, NULL) - work * v);
            free(c);
        }
}

static void memory_is_what_was_promised(void)
{
    for (int p = 1; p <= 8; p++)
        for (int m = 1; m <= 24; m += 3) {
            pipe_schedule s;
            int kept[8];
            pipe_cost *c = equal_costs(p, 1, 1, 1);
            CHECK_OK(pipe_schedule_make(&s, "gpipe", p, 1, m, c, NULL));
            CHECK_OK(pipe_schedule_check(&s, kept));
            for (int r = 0; r < p; r++)
                CHECKF(kept[r] == m, "gpipe keeps %d of %d", kept[r], m);
            pipe_schedule_release(&s);
            CHECK_OK(pipe_schedule_make(&s, "1f1b", p, 1, m, c, NULL));
            CHECK_OK(pipe_schedule_check(&s, kept));
            for (int r = 0; r < p; r++)
                CHECKF(kept[r] == (p - r < m ? p - r : m), "1f1b, %d ranks, rank %d keeps %d", p, r, kept[r]);
            pipe_schedule_release(&s);
            CHECK_OK(pipe_schedule_make(&s, "zb-h1", p, 1, m, c, NULL));
            CHECK_OK(pipe_schedule_check(&s, kept));
            for (int r = 0; r < p; r++)
                CHECKF(kept[r] <= (p < m ? p : m), "zb-h1, %d ranks, rank %d keeps %d", p, r, kept[r]);
            pipe_schedule_release(&s);
            free(c);
        }
}

/* Random unequal stages, wires and limits: the list schedule keeps within its limits, is never slower
 * than 1F1B or ZB-H1 when it may keep as much, and never faster than its slowest rank. */
static void list_schedules_fit_unequal_stages(void)
{
    gt_random r;
    gt_random_init(&r, 7, 1);
    double gain = 0;
    for (int round = 0; round < 300; round++) {
        const int p = 1 + (int)gt_random_below(&r, 8), m = 1 + (int)gt_random_below(&r, 24);
        pipe_cost *c = equal_costs(p, 1, 1, 1);
        double memory[8], slowest = 0;
        for (int i = 0; i < p; i++) {
            c[i] = (pipe_cost){ .forward = 0.2 + (double)gt_random_unit(&r),
                                .backward_input = 0.2 + (double)gt_random_unit(&r),
                                .backward_weight = 0.2 + (double)gt_random_unit(&r),
                                .send = 0.2 * (double)gt_random_unit(&r),
                                .activation = 1 + (double)gt_random_unit(&r) };
            const int keep = 1 + (int)gt_random_below(&r, 2u * (unsigned)p);
            memory[i] = c[i].activation * (keep + 0.01);
            const double work = c[i].forward + c[i].backward_input + c[i].backward_weight;
            slowest = work > slowest ? work : slowest;
        }
        pipe_schedule s;
        pipe_simulation sim;
        int kept[8];
        if (CHECK_OK(pipe_schedule_make(&s, "list", p, 1, m, c, memory))) {
            CHECK_OK(pipe_schedule_check(&s, kept));
            for (int i = 0; i < p; i++)
                CHECKF(kept[i] * c[i].activation <= memory[i], "rank %d keeps %d", i, kept[i]);
            CHECK_OK(pipe_simulate(&sim, &s, c, 0));
            CHECKF(sim.step >= slowest * m - 1e-9, "faster than its slowest rank");
            pipe_simulation_release(&sim);
        }
        pipe_schedule_release(&s);
        const double list = simulated("list", p, 1, m, c, NULL);
        const double usual = simulated("1f1b", p, 1, m, c, NULL);
        CHECKF(list <= usual + 1e-9 && list <= simulated("zb-h1", p, 1, m, c, NULL) + 1e-9, "list %g, 1f1b %g", list,
               usual);
        gain += usual / list;
        free(c);
    }
    CHECKF(gain / 300 > 1.02, "list schedules gain %.3f on the mean", gain / 300);
}

static void large_ones_are_made_as_well(void)
{
    pipe_cost *c = equal_costs(64 * 4, 1, 1, 1);
    double idle = 1.0;
    for (int n = 0; pipe_schedule_at(n); n++) {
        const int chunks = strcmp(pipe_schedule_at(n)->name, "interleaved") ? 1 : 4;
        CHECK(simulated(pipe_schedule_at(n)->name, 64, chunks, 512, c, &idle) > 0);
        CHECKF(idle < 0.12, "%s idles %.3f", pipe_schedule_at(n)->name, idle);
    }
    free(c);
}

/* ---- what the proof must catch ----------------------------------------------------------------- */

static int find(const pipe_schedule *s, int rank, pipe_kind kind, int nth)
{
    for (int i = 0; i < s->count[rank]; i++)
        if (s->list[rank][i].kind == kind && !nth--)
            return i;
    return -1;
}

static void swap(pipe_schedule *s, int rank, int a, int b)
{
    const pipe_instruction t = s->list[rank][a];
    s->list[rank][a] = s->list[rank][b];
    s->list[rank][b] = t;
}

static void drop(pipe_schedule *s, int rank, int at)
{
    memmove(&s->list[rank][at], &s->list[rank][at + 1], (size_t)(s->count[rank] - at - 1) * sizeof **s->list);
    s->count[rank]--;
}

enum { BACKWARD_FIRST, LOST_SEND, LOST_RECEIVE, TWICE, ORDER, EARLY_REDUCE, NO_UPDATE, DEADLOCK, WRONG_CHUNK, BREAKS };

static void break_it(pipe_schedule *s, int how)
{
    switch (how) {
    case BACKWARD_FIRST: swap(s, 1, find(s, 1, PIPE_FORWARD, 0), find(s, 1, PIPE_BACKWARD_INPUT, 0)); break;
    case LOST_SEND: drop(s, 0, find(s, 0, PIPE_SEND_ACTIVATION, 2)); break;
    case LOST_RECEIVE: drop(s, 1, find(s, 1, PIPE_RECEIVE_GRADIENT, 1)); break;
    case TWICE: s->list[2][find(s, 2, PIPE_FORWARD, 1)].micro_batch = 0; break;
    case ORDER: swap(s, 0, find(s, 0, PIPE_SEND_ACTIVATION, 0), find(s, 0, PIPE_SEND_ACTIVATION, 1)); break;
    case EARLY_REDUCE: swap(s, 0, find(s, 0, PIPE_REDUCE, 0), find(s, 0, PIPE_BACKWARD_WEIGHT, 1)); break;
    case NO_UPDATE: s->count[1]--; break;
    case DEADLOCK: swap(s, 1, find(s, 1, PIPE_RECEIVE_GRADIENT, 0), find(s, 1, PIPE_RECEIVE_ACTIVATION, 0)); break;
    default: s->list[0][3].chunk = 9; break;
    }
}

static void the_proof_catches_what_is_wrong(void)
{
    for (int how = 0; how < BREAKS; how++) {
        pipe_schedule s;
        CHECK_OK(pipe_schedule_make(&s, "1f1b", 3, 1, 6, NULL, NULL));
        break_it(&s, how);
        CHECKF(pipe_schedule_check(&s, NULL) == GT_MISMATCH, "break %d was not caught", how);
        pipe_schedule_release(&s);
    }
}

static void impossible_shapes_are_refused(void)
{
    pipe_schedule s;
    pipe_cost c[2] = { { .forward = 1, .activation = 10 }, { .forward = 1, .activation = 10 } };
    CHECK_FAILS(pipe_schedule_make(&s, "2f2b", 2, 1, 4, NULL, NULL), GT_MISUSE, "2f2b");
    CHECK_FAILS(pipe_schedule_make(&s, "1f1b", 0, 1, 4, NULL, NULL), GT_MISUSE, "cannot be");
    CHECK_FAILS(pipe_schedule_make(&s, "1f1b", 2, 2, 4, NULL, NULL), GT_MISUSE, "one chunk");
    CHECK_FAILS(pipe_schedule_make(&s, "interleaved", 2, 1, 4, NULL, NULL), GT_MISUSE, "two chunks");
    CHECK_FAILS(pipe_schedule_make(&s, "interleaved", 4, 2, 6, NULL, NULL), GT_MISUSE, "multiples");
    CHECK_FAILS(pipe_schedule_make(&s, "list", 2, 1, 4, NULL, NULL), GT_MISUSE, "measured");
    CHECK_FAILS(pipe_schedule_make(&s, "list", 2, 1, 4, c, (double[]){ 20, 5 }), GT_MISUSE, "rank 1 cannot keep");
}

/* The wire runs beside computation, one message at a time; the update waits for the reduction. */
static void wires_and_reductions_run_beside_computation(void)
{
    pipe_cost *c = equal_costs(2, 1, 1, 1);
    c[0].send = 0.5;
    CHECK(near(simulated("gpipe", 2, 1, 1, c, NULL), 1 + 0.5 + 1 + 1 + 0.5 + 1 + 1));
    c[0].send = 3;                          /* four messages each way, one after the other */
    CHECK(near(simulated("gpipe", 2, 1, 4, c, NULL), 1 + 4 * 3 + 1 + 1 + 4 * 3 + 1 + 1));
    c[0].send = 0;
    c[1].reduce = 10;
    c[1].update = 2;
    CHECK(near(simulated("gpipe", 2, 1, 1, c, NULL), 1 + 1 + 1 + 1 + 10 + 2));
    free(c);
}

const check_case check_cases[] = {
    CASE(every_schedule_passes_the_proof),
    CASE(times_are_those_of_the_papers),
    CASE(memory_is_what_was_promised),
    CASE(list_schedules_fit_unequal_stages),
    CASE(large_ones_are_made_as_well),
    CASE(the_proof_catches_what_is_wrong),
    CASE(impossible_shapes_are_refused),
    CASE(wires_and_reductions_run_beside_computation),
    { 0 }
};
