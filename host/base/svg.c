/* SPDX-License-Identifier: MIT */
/* host/base/svg.c - measuring text, ticks and shades. */
#include "host/base/svg.h"

#include <math.h>
#include <stdio.h>

/* Advances of DejaVu Sans in thousandths of its size, from the space to the tilde. */
static const unsigned short advances[] = {
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361,  318, 337, 636, 636, 636,
    636, 636, 636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632,
    575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635,  611, 732, 684, 989, 685,
    611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635, 615, 352,  635, 634, 278, 278, 579,
    278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592,  525, 636, 337, 636, 838
};

double gt_svg_width(const char *text, double size)
{
    double sum = 0.0;
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        sum += c >= ' ' && c <= '~' ? advances[c - ' '] : 1000;
    }
    return sum * 1e-3 * size;
}

void gt_svg_text(gt_text *out, double x, double y, const char *more, const char *text)
{
    gt_text_printf(out, "<text x=\"%.1f\" y=\"%.1f\"%s%s>", x, y, *more ? " " : "", more);
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '<' || c == '>' || c == '&')
            gt_text_printf(out, "&#%d;", c);
        else if (c >= ' ' && c != 0x7f)             /* XML has no control characters */
            gt_text_put(out, text, 1);
    }
    gt_text_printf(out, "</text>\n");
}

static void channels(const char *colour, unsigned out[3])
{
    if (sscanf(colour, "#%2x%2x%2x", &out[0], &out[1], &out[2]) != 3)
        out[0] = out[1] = out[2] = 0;
}

void gt_svg_lighten(char out[8], const char *colour, double share)
{
    unsigned c[3];
    channels(colour, c);
    for (int i = 0; i < 3; i++)
        c[i] = (unsigned)lround(c[i] + (255.0 - c[i]) * share) & 255u;
    snprintf(out, 8, "#%02x%02x%02x", c[0], c[1], c[2]);
}

double gt_svg_lightness(const char *colour)
{
    unsigned c[3];
    channels(colour, c);
    return (0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]) / 255.0;
}

double gt_svg_tick(double range, int wanted)
{
    const double rough = range / wanted, power = pow(10.0, floor(log10(rough)));
    const double first = rough / power;
    return power * (first < 1.5 ? 1.0 : first < 3.5 ? 2.0 : first < 7.5 ? 5.0 : 10.0);
}

void gt_svg_tick_text(char *out, size_t size, double value, double tick)
{
    if (fabs(value) < 1e-9 * tick)
        value = 0.0;
    if (fabs(value) >= 1e7 || tick < 1e-6)
        snprintf(out, size, "%.4g", value);
    else
        snprintf(out, size, "%.*f", tick < 1.0 ? (int)ceil(-log10(tick) - 1e-9) : 0, value);
}
