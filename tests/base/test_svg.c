/* SPDX-License-Identifier: MIT */
/* tests/base/test_svg.c - text is measured, escaped and numbered as pictures need it. */
#include "tests/check.h"

#include "host/base/svg.h"

#include <math.h>
#include <string.h>

static void widths_add_up(void)
{
    CHECK(fabs(gt_svg_width("", 12.0)) < 1e-9);
    CHECK(fabs(gt_svg_width("000", 10.0) - 19.08) < 1e-9);          /* 0.636 of its size each */
    CHECK(gt_svg_width("iii", 12.0) < gt_svg_width("mmm", 12.0));
    CHECK(fabs(gt_svg_width("rank 0", 24.0) - 2.0 * gt_svg_width("rank 0", 12.0)) < 1e-9);
    CHECK(fabs(gt_svg_width("\xc3\xa4", 10.0) - 20.0) < 1e-9);      /* unknown: the widest */
}

static void text_is_escaped(void)
{
    gt_text t = { 0 };
    gt_svg_text(&t, 1.0, 2.0, "", "a<b> & \x01\"c\"");
    CHECK(t.data && !strcmp(t.data, "<text x=\"1.0\" y=\"2.0\">a&#60;b&#62; &#38; \"c\"</text>\n"));
    gt_text_release(&t);
}

static void ticks_are_round_and_told_apart(void)
{
    static const struct {
        double range;
        int wanted;
        double tick;
        const char *second;
    } cases[] = { { 10.0, 5, 2.0, "2" },        { 0.7, 6, 0.1, "0.1" }, { 3.3e-4, 8, 5e-5, "0.00005" },
                  { 95000, 8, 10000, "10000" }, { 1.0, 1, 1.0, "1" },   { 6.0, 6, 1.0, "1" },
                  { 4e9, 8, 5e8, "5e+08" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        const double tick = gt_svg_tick(cases[i].range, cases[i].wanted);
        gt_svg_tick_text(text, sizeof text, tick, tick);
        CHECKF(fabs(tick / cases[i].tick - 1.0) < 1e-9 && !strcmp(text, cases[i].second), "%g: %g, '%s'",
               cases[i].range, tick, text);
        gt_svg_tick_text(text, sizeof text, -1e-14 * tick, tick);
        CHECKF(text[0] == '0', "zero is '%s'", text);
    }
}

static void shades_lie_between_a_colour_and_white(void)
{
    char out[8];
    gt_svg_lighten(out, "#204060", 0.0);
    CHECK(!strcmp(out, "#204060"));
    gt_svg_lighten(out, "#204060", 1.0);
    CHECK(!strcmp(out, "#ffffff"));
    gt_svg_lighten(out, "#000000", 0.2);
    CHECK(!strcmp(out, "#333333"));
    CHECK(fabs(gt_svg_lightness("#ffffff") - 1.0) < 1e-9 && fabs(gt_svg_lightness("#000000")) < 1e-9);
    /* Told apart in grey: a tenth of white to black between any two that stand beside each other. */
    static const char *const colours[] = { GT_SVG_PURPLE, GT_SVG_BLUE, GT_SVG_GREEN, GT_SVG_ORANGE };
    for (int i = 1; i < 4; i++)
        CHECKF(gt_svg_lightness(colours[i]) - gt_svg_lightness(colours[i - 1]) > 0.1, "%s, %s", colours[i - 1],
               colours[i]);
}

const check_case check_cases[] = {
    CASE(widths_add_up),
    CASE(text_is_escaped),
    CASE(ticks_are_round_and_told_apart),
    CASE(shades_lie_between_a_colour_and_white),
    { 0 }
};
