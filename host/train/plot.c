/* SPDX-License-Identifier: MIT */
/* host/train/plot.c - a loss curve in SVG.
 *
 * Long runs are thinned to about two points a pixel, keeping the extremes of each stretch,
 * so a million steps draw the same picture as all points would.                         */
#include "host/train/plot.h"

#include "host/base/file.h"
#include "host/base/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 820, HEIGHT = 440, MARGIN = 16, BOTTOM = 52, POINTS = 1500, FEW = 40, MOST_DOTS = 200 };

gt_status plot_add(plot_series *s, double x, double y)
{
    if (!isfinite(y))
        return GT_OK;
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 256;
        double *xs = realloc(s->x, room * sizeof *xs);
        if (xs)
            s->x = xs;
        double *ys = xs ? realloc(s->y, room * sizeof *ys) : NULL;
        if (!ys)
            return gt_fail(GT_NO_MEMORY, "cannot plot the loss: no memory for %zu points", room);
        s->y = ys;
        s->room = room;
    }
    s->x[s->count] = x;
    s->y[s->count++] = y;
    return GT_OK;
}

void plot_release(plot_series *s)
{
    free(s->x);
    free(s->y);
    memset(s, 0, sizeof *s);
}

/* ---- the frame ------------------------------------------------------------------------------ */

typedef struct frame {
    double x0, x1, y0, y1;              /* what the axes show                                   */
    double left, right, top, bottom;    /* pixels of their ends                                 */
    double x_tick, y_tick;
} frame;

static double at_x(const frame *f, double x)
{
    return f->left + (x - f->x0) / (f->x1 - f->x0) * (f->right - f->left);
}

static double at_y(const frame *f, double y)
{
    return f->bottom - (y - f->y0) / (f->y1 - f->y0) * (f->bottom - f->top);
}

static void widen(frame *f, const plot_series *s)
{
    for (size_t i = 0; i < s->count; i++) {
        f->x0 = fmin(f->x0, s->x[i]);
        f->x1 = fmax(f->x1, s->x[i]);
        f->y0 = fmin(f->y0, s->y[i]);
        f->y1 = fmax(f->y1, s->y[i]);
    }
}

/* The k-th tick, and whether there is one. */
static int tick_at(double from, double to, double tick, int k, double *at)
{
    *at = (ceil(from / tick - 1e-9) + k) * tick;
    return *at <= to + 1e-9 * tick;
}

static frame frame_of(const plot_series *train, const plot_series *val)
{
    frame f = { INFINITY, -INFINITY, INFINITY, -INFINITY, .top = 76.0, .bottom = HEIGHT - BOTTOM };
    char text[64];
    double widest = 0.0, y;
    widen(&f, train);
    widen(&f, val);
    if (!(f.x1 > f.x0)) {
        f.x0 -= 1.0;
        f.x1 += 1.0;
    }
    const double largest = fmax(fabs(f.y0), fabs(f.y1));
    const double margin = fmax(0.05 * (f.y1 - f.y0), 1e-3 * fmax(largest, 1.0));
    f.y0 -= margin;
    f.y1 += margin;
    f.y_tick = gt_svg_tick(f.y1 - f.y0, 7);
    f.x_tick = fmax(gt_svg_tick(f.x1 - f.x0, 8), 1.0);
    for (int k = 0; tick_at(f.y0, f.y1, f.y_tick, k, &y); k++) {
        gt_svg_tick_text(text, sizeof text, y, f.y_tick);
        widest = fmax(widest, gt_svg_width(text, 11.0));
    }
    f.left = MARGIN + 18.0 + widest + 8.0;
    f.right = WIDTH - MARGIN;
    if (val->count) {
        snprintf(text, sizeof text, "%.4f", val->y[val->count - 1]);
        f.right -= 8.0 + gt_svg_width(text, 12.0);
    }
    return f;
}

static void draw_axes(gt_text *out, const frame *f)
{
    char text[64];
    double at;
    for (int k = 0; tick_at(f->y0, f->y1, f->y_tick, k, &at); k++) {
        gt_text_printf(out, "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", f->left,
                       at_y(f, at), f->right, at_y(f, at));
        gt_svg_tick_text(text, sizeof text, at, f->y_tick);
        gt_svg_text(out, f->left - 7.0, at_y(f, at) + 4.0, "class=\"r\" font-size=\"11\"", text);
    }
    for (int k = 0; tick_at(f->x0, f->x1, f->x_tick, k, &at); k++) {
        gt_text_printf(out, "<line class=\"t\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", at_x(f, at),
                       f->bottom, at_x(f, at), f->bottom + 4.0);
        gt_svg_tick_text(text, sizeof text, at, f->x_tick);
        gt_svg_text(out, at_x(f, at), f->bottom + 17.0, "class=\"a\"", text);
    }
    gt_text_printf(out, "<path class=\"t\" fill=\"none\" d=\"M%.1f,%.1f V%.1f H%.1f\"/>\n", f->left, f->top, f->bottom,
                   f->right);
    gt_svg_text(out, 0.5 * (f->left + f->right), f->bottom + 36.0, "class=\"a\"", "step");
    char turned[64];
    snprintf(turned, sizeof turned, "class=\"a\" transform=\"rotate(-90 %.1f %.1f)\"", MARGIN + 10.0,
             0.5 * (f->top + f->bottom));
    gt_svg_text(out, MARGIN + 10.0, 0.5 * (f->top + f->bottom), turned, "loss (nats per token)");
}

/* ---- curves --------------------------------------------------------------------------------- */

static size_t stretch_of(const plot_series *s)
{
    return s->count < 2 * POINTS ? 1 : s->count / POINTS;
}

/* The points, or the lowest and highest of each stretch of them. */
static void draw_each(gt_text *out, const frame *f, const plot_series *s, const char *class)
{
    double low = INFINITY, high = -INFINITY;
    gt_text_printf(out, "<polyline class=\"%s\" points=\"", class);
    for (size_t i = 0; i < s->count; i++) {
        low = fmin(low, s->y[i]);
        high = fmax(high, s->y[i]);
        if ((i + 1) % stretch_of(s) && i + 1 < s->count)
            continue;
        gt_text_printf(out, "%.1f,%.1f ", at_x(f, s->x[i]), at_y(f, low));
        if (high > low)
            gt_text_printf(out, "%.1f,%.1f ", at_x(f, s->x[i]), at_y(f, high));
        low = INFINITY;
        high = -INFINITY;
    }
    gt_text_printf(out, "\"/>\n");
}

static void draw_dots(gt_text *out, const frame *f, const plot_series *s, size_t from, const char *class)
{
    for (size_t i = from; i < s->count; i++)
        gt_text_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", class, at_x(f, s->x[i]),
                       at_y(f, s->y[i]));
}

/* Steps before, and after, that the mean takes at most; 0: too few to mean anything. */
static size_t half_window(const plot_series *s)
{
    return s->count < FEW ? 0 : s->count / 50 + 1;
}

static size_t least_of(size_t a, size_t b, size_t c)
{
    const size_t least = a < b ? a : b;
    return least < c ? least : c;
}

static void draw_mean(gt_text *out, const frame *f, const plot_series *s)
{
    const size_t most = half_window(s), n = s->count;
    size_t from = 0, to = 0;            /* summed are [from, to) */
    double sum = 0.0;
    gt_text_printf(out, "<polyline class=\"mean\" points=\"");
    for (size_t i = 0; i < n; i++) {
        const size_t half = least_of(i / 5, n - 1 - i, most);
        while (to <= i + half)
            sum += s->y[to++];
        while (from < i - half)
            sum -= s->y[from++];
        if (half && (i < n / 2 || half * 4 >= most) && i % stretch_of(s) == 0)
            gt_text_printf(out, "%.1f,%.1f ", at_x(f, s->x[i]), at_y(f, sum / (double)(to - from)));
    }
    gt_text_printf(out, "\"/>\n");
}

/* The last value, beside its point; where the curve goes on behind it, above. */
static void draw_value(gt_text *out, const frame *f, const plot_series *val)
{
    char text[32];
    const double x = at_x(f, val->x[val->count - 1]), y = at_y(f, val->y[val->count - 1]);
    const int at_end = x > f->right - 40.0;
    snprintf(text, sizeof text, "%.4f", val->y[val->count - 1]);
    gt_svg_text(out, at_end ? x + 7.0 : x, at_end ? y + 4.0 : y - 9.0,
                at_end ? "class=\"v\"" : "class=\"v\" text-anchor=\"middle\"", text);
}

/* ---- the legend ------------------------------------------------------------------------------ */

static double legend_line(gt_text *out, double x, const char *class, const char *text)
{
    gt_text_printf(out, "<polyline class=\"%s\" points=\"%.1f,60 %.1f,60\"/>\n", class, x, x + 18.0);
    gt_svg_text(out, x + 23.0, 64.0, "font-size=\"11\"", text);
    return x + 23.0 + gt_svg_width(text, 11.0) + 16.0;
}

static void draw_legend(gt_text *out, const plot_series *train, const plot_series *val)
{
    const size_t half = half_window(train), window = 2 * half + 1;
    double x = MARGIN, last = 0.0;
    char text[128];
    if (train->count > 1)
        snprintf(text, sizeof text,
                 stretch_of(train) > 1 ? "training loss, lowest and highest of %zu steps" : "training loss, each step",
                 stretch_of(train));
    else if (train->count)
        snprintf(text, sizeof text, "training loss %.4f", train->y[0]);
    if (train->count && train->count < FEW)
        gt_text_printf(out, "<circle class=\"tdot\" cx=\"%.1f\" cy=\"60\" r=\"3\"/>\n", x + 9.0);
    if (train->count)
        x = legend_line(out, x, train->count > 1 ? "each" : "none", text);
    if (half) {
        for (size_t i = train->count - window; i < train->count; i++)
            last += train->y[i] / (double)window;
        snprintf(text, sizeof text, "centred mean of %zu steps (of the last %zu: %.4g)", window, window, last);
        x = legend_line(out, x, "mean", text);
    }
    if (val->count) {
        gt_text_printf(out, "<circle class=\"dot\" cx=\"%.1f\" cy=\"60\" r=\"3\"/>\n", x + 9.0);
        legend_line(out, x, "val", "validation loss");
    }
}

/* ---- the whole --------------------------------------------------------------------------------- */

static void draw(gt_text *out, const char *title, const plot_series *train, const plot_series *val)
{
    const frame f = frame_of(train, val);
    gt_text_printf(out,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                   "font-family=\"" GT_SVG_FONTS "\" font-size=\"12\">\n<style>text{fill:" GT_SVG_INK "}"
                   ".r{text-anchor:end}.a{text-anchor:middle;font-size:11px}.g{stroke:" GT_SVG_LINE "}"
                   ".t{stroke:" GT_SVG_GREY "}.none{fill:none}.each{fill:none;stroke:#a9c6e3}.tdot{fill:" GT_SVG_BLUE
                   "}"
                   ".mean{fill:none;stroke:" GT_SVG_BLUE ";stroke-width:2}.val{fill:none;stroke:" GT_SVG_RED
                   ";stroke-width:1.5}.dot,.v{fill:" GT_SVG_RED "}</style>\n<rect width=\"%d\" height=\"%d\" "
                   "fill=\"#fff\"/>\n",
                   WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
    gt_svg_text(out, MARGIN, 28.0, "font-size=\"15\" font-weight=\"bold\"", title ? title : "Loss");
    draw_legend(out, train, val);
    draw_axes(out, &f);
    if (train->count > 1)
        draw_each(out, &f, train, "each");
    if (train->count && train->count < FEW)
        draw_dots(out, &f, train, 0, "tdot");
    if (half_window(train))
        draw_mean(out, &f, train);
    if (val->count) {
        draw_each(out, &f, val, "val");
        draw_dots(out, &f, val, val->count > MOST_DOTS ? val->count - 1 : 0, "dot");
        draw_value(out, &f, val);
    }
    gt_text_printf(out, "</svg>\n");
}

gt_status plot_loss(const char *path, const char *title, const plot_series *train, const plot_series *val)
{
    gt_text svg = { 0 };
    if (!train->count && !val->count)
        return GT_OK;
    draw(&svg, title, train, val);
    gt_status st = svg.failed ? gt_fail(GT_NO_MEMORY, "cannot draw '%s': no memory for the picture", path)
                              : gt_file_write(path, svg.data, svg.size);
    gt_text_release(&svg);
    return st;
}
