/* SPDX-License-Identifier: MIT */
/* host/base/svg.h - what the pictures (SVG) of several rooms share: text that is measured before it is
 * placed, round ticks, and colours.
 *
 * No font is known when a picture is written, so a text's width is that in DejaVu Sans, the widest
 * of the sans-serif fonts that viewers take: in others it leaves more room, never less.
 *
 * Colours differ in lightness as well as in hue, and are those of Okabe and Ito ("Color Universal
 * Design", 2008) or near them, so that they are told apart without red or green and in grey.  */
#ifndef GT_BASE_SVG_H
#define GT_BASE_SVG_H

#include "host/base/text.h"

#define GT_SVG_FONTS "Helvetica, Arial, 'DejaVu Sans', sans-serif"

#define GT_SVG_BLUE "#3b75af"
#define GT_SVG_ORANGE "#f0b040"
#define GT_SVG_RED "#c8501e"
#define GT_SVG_GREEN "#5aa98a"
#define GT_SVG_PURPLE "#7a3f8c"
#define GT_SVG_INK "#222222"
#define GT_SVG_GREY "#5f5f5f"
#define GT_SVG_LINE "#dddddd"

/* Pixels that a line of text takes at most, `size` pixels high. Bytes that are no plain ASCII count
 * as the widest letter. */
double gt_svg_width(const char *text, double size);
/* <text> at (x, y), escaped; more: further attributes, as in "class=\"r\"", or "". */
void gt_svg_text(gt_text *out, double x, double y, const char *more, const char *text);
/* `share` of white in "#rrggbb", 0..1; out holds 8 bytes. */
void gt_svg_lighten(char out[8], const char *colour, double share);
/* How light "#rrggbb" is, 0..1 (Rec. 709, not linear). */
double gt_svg_lightness(const char *colour);

/* A round distance between about `wanted` ticks of a range > 0: 1, 2 or 5 times a power of ten. */
double gt_svg_tick(double range, int wanted);
/* A tick's number with as many decimals as tell it from its neighbours. */
void gt_svg_tick_text(char *out, size_t size, double value, double tick);

#endif
