/* SPDX-License-Identifier: MIT */
/* tests/pipeline/test_timeline.c - the picture of a step: nothing is cut off, the legend names what is
 * drawn and nothing else, and the time of each kind is the schedule's.                    */
#include "tests/check.h"
#include "tests/svg_check.h"

#include "host/pipeline/timeline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

/* A schedule with unequal stages, simulated, and its picture. */
typedef struct drawn {
    pipe_schedule s;
    pipe_simulation sim;
    gt_text svg;
} drawn;

static void draw(drawn *d, const char *schedule, int ranks, int chunks, int micros, double reduce, double update,
                 const char *name)
{
    pipe_cost costs[MOST];
    const char *names[MOST], *places[MOST];
    *d = (drawn){ 0 };
    for (int v = 0; v < ranks * chunks; v++)
        costs[v] = (pipe_cost){
            .forward = 1e-3 * (1 + v % 3),
            .backward_input = 1.2e-3 * (1 + v % 2),
            .backward_weight = 0.8e-3,
            .send = 2e-4,
            .activation = 1.0,
            .reduce = reduce,
            .update = update
        };
    for (int r = 0; r < ranks; r++) {
        names[r] = name;
        places[r] = "replica 0, stage 0";
    }
    CHECK_OK(pipe_schedule_make(&d->s, schedule, ranks, chunks, micros, costs, NULL));
    CHECK_OK(pipe_simulate(&d->sim, &d->s, costs, 1));
    CHECK_OK(pipe_timeline_svg(&d->svg, &(pipe_picture){ "Step 7 as measured", "a <note> & more", &d->s, d->sim.event,
                                                         name ? names : NULL, name ? places : NULL }));
}

static void release(drawn *d)
{
    gt_text_release(&d->svg);
    pipe_simulation_release(&d->sim);
    pipe_schedule_release(&d->s);
}

/* Is there a rectangle of that class before (legend) or behind (rows) the group of rows? */
static int has(const char *svg, const char *class, int in_rows)
{
    char tag[40];
    snprintf(tag, sizeof tag, "<rect class=\"%s\"", class);
    const char *rows = strstr(svg, "<g transform"), *at = strstr(svg, tag);
    return rows && (in_rows ? strstr(rows, tag) != NULL : at && at < rows);
}

static const char *const classes[] = { "f0", "f1", "f2", "f3", "b0", "b1", "b2", "b3", "w0",
                                       "w1", "w2", "w3", "u",  "s",  "wa", "wg", "ws", "i" };
enum { CLASSES = sizeof classes / sizeof *classes };

static void the_legend_names_what_is_drawn(void)
{
    static const struct {
        const char *schedule;
        int ranks, chunks, micros;
        double reduce, update;
    } cases[] = { { "gpipe", 1, 1, 1, 0.0, 0.0 },       { "1f1b", 2, 1, 8, 0.0, 1e-3 },
                  { "1f1b", 4, 1, 8, 5e-3, 1e-3 },      { "interleaved", 2, 2, 8, 3e-3, 1e-3 },
                  { "interleaved", 4, 3, 8, 0.0, 0.0 }, { "interleaved", 2, 7, 4, 0.0, 1e-3 },
                  { "zb-h1", 16, 1, 32, 0.0, 0.0 },     { "zb-h1", 60, 1, 60, 0.0, 1e-4 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        drawn d;
        int wrong = 0;
        draw(&d, cases[i].schedule, cases[i].ranks, cases[i].chunks, cases[i].micros, cases[i].reduce, cases[i].update,
             NULL);
        CHECKF(d.svg.data && svg_well_formed(d.svg.data), "picture %zu is not well formed", i);
        for (int k = 0; d.svg.data && k < CLASSES; k++)
            wrong += has(d.svg.data, classes[k], 0) != has(d.svg.data, classes[k], 1);
        CHECKF(!wrong, "picture %zu: %d kinds are in the legend or the rows alone", i, wrong);
        CHECK(has(d.svg.data, "u", 1) == (cases[i].update > 0.0));
        CHECK(has(d.svg.data, "s", 1) == (cases[i].reduce > 0.0));
        CHECK(has(d.svg.data, "f1", 1) == (cases[i].chunks > 1));
        CHECK(has(d.svg.data, "wa", 1) == (cases[i].ranks > 1) && has(d.svg.data, "wg", 1) == (cases[i].ranks > 1));
        CHECK(has(d.svg.data, "ws", 1) == (cases[i].reduce > 0.0));
        CHECK(strstr(d.svg.data, "fill=\"#fff\"") != NULL);         /* a background of its own */
        CHECK(strstr(d.svg.data, "time since the step began (ms)") != NULL);
        release(&d);
    }
}

static void no_text_is_cut_off(void)
{
    static const char *const names[] = { NULL, "rank 0 cpu:0.0/2",
                                         "rank 1023 platform:3@0.25 with a name that somebody made up <&>" };
    static const struct {
        const char *schedule;
        int ranks, chunks, micros;
    } cases[] = { { "gpipe", 1, 1, 1 },
                  { "1f1b", 2, 1, 8 },
                  { "interleaved", 4, 4, 8 },
                  { "zb-h1", 13, 1, 16 },
                  { "1f1b", 60, 1, 4 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            char which[256] = "";
            drawn d;
            draw(&d, cases[i].schedule, cases[i].ranks, cases[i].chunks, cases[i].micros, 1e-3, 1e-3, names[k]);
            const int outside = svg_texts_outside(d.svg.data, which, sizeof which);
            CHECKF(outside == 0, "picture %zu, names %zu: %d texts, first '%s'", i, k, outside, which);
            if (names[k] && k == 1)
                CHECK(strstr(d.svg.data, ">rank 0 cpu:0.0/2") != NULL);
            release(&d);
        }
}

/* Pixels of a class in a row of the picture. */
static double drawn_width(const char *svg, const char *class, int y)
{
    char tag[40];
    double sum = 0.0;
    snprintf(tag, sizeof tag, "<rect class=\"%s\"", class);
    for (const char *p = strstr(svg, "<g transform"); p && (p = strstr(p, tag)); p++)
        sum += svg_number(p, "y", -1.0) == (double)y ? svg_number(p, "width", 0.0) : 0.0;
    return sum;
}

/* Two stages, one micro-batch: what the second waits for can be reckoned by hand. Milliseconds:
 *   rank 0  F 0-1  waits for the gradient 1-7  B 7-8  W 8-9   waits for sums 9-12  U 12-13
 *   rank 1  waits 0-2  F 2-4  B 4-6  W 6-7   sums 7-10 (waits 7-10)  U 10-11   idle 11-13     */
static void waiting_is_told_apart(void)
{
    const pipe_cost costs[] = {
        { .forward = 1e-3,
          .backward_input = 1e-3,
          .backward_weight = 1e-3,
          .send = 1e-3,
          .reduce = 3e-3,
          .update = 1e-3 },
        { .forward = 2e-3, .backward_input = 2e-3, .backward_weight = 1e-3, .reduce = 3e-3, .update = 1e-3 }
    };
    static const struct {
        int row;
        const char *class;
        double ms;
    } want[] = { { 0, "f0", 1 }, { 0, "wg", 6 }, { 0, "b0", 1 }, { 0, "w0", 1 }, { 0, "ws", 3 }, { 0, "u", 1 },
                 { 0, "wa", 0 }, { 0, "i", 0 },  { 1, "wa", 2 }, { 1, "f0", 2 }, { 1, "b0", 2 }, { 1, "w0", 1 },
                 { 1, "ws", 3 }, { 1, "u", 1 },  { 1, "i", 2 },  { 1, "wg", 0 } };
    pipe_schedule s;
    pipe_simulation sim;
    gt_text svg = { 0 };
    CHECK_OK(pipe_schedule_make(&s, "1f1b", 2, 1, 1, costs, NULL));
    CHECK_OK(pipe_simulate(&sim, &s, costs, 1));
    CHECKF(fabs(sim.step - 13e-3) < 1e-9, "%g s", sim.step);
    CHECK_OK(pipe_timeline_svg(&svg, &(pipe_picture){ "x", NULL, &s, sim.event, NULL, NULL }));
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const double got = drawn_width(svg.data, want[i].class, 38 * want[i].row) * 13.0 / 1000.0;
        CHECKF(fabs(got - want[i].ms) < 0.02, "row %d, %s: %.2f ms, not %.0f", want[i].row, want[i].class, got,
               want[i].ms);
    }
    CHECK(fabs(drawn_width(svg.data, "s", 25) * 13.0 / 1000.0 - 3.0) < 0.02);
    CHECK(strstr(svg.data, ">69.2 %<") != NULL && strstr(svg.data, ">53.8 %<") != NULL);   /* 9, 7 of 13 idle */
    gt_text_release(&svg);
    pipe_simulation_release(&sim);
    pipe_schedule_release(&s);
}

const check_case check_cases[] = {
    CASE(the_legend_names_what_is_drawn), CASE(no_text_is_cut_off), CASE(waiting_is_told_apart), { 0 }
};
