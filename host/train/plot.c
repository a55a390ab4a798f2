/* host/train/plot.c - a loss curve in SVG: axes with round ticks, a faint line of every
 * step, a strong one of the running mean, dots for validation.
 *
 * Long runs are thinned to about two points a pixel, keeping the extremes of each stretch,
 * so a million steps draw the same picture as all points would.                         */
#include "host/train/plot.h"

#include "host/base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 800.0
#define HEIGHT 420.0
#define LEFT 56.0
#define RIGHT 24.0
#define TOP 28.0
#define BOTTOM 40.0

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
            return gt_fail(GT_NO_MEMORY, "cannot plot the loss: out of memory");
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

typedef struct frame { double x0, x1, y0, y1; } frame;

static double at_x(const frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

/* A round distance between ticks: 1, 2 or 5 times a power of ten. */
static double tick_step(double range, int wanted)
{
    double rough = range / wanted, power = pow(10.0, floor(log10(rough)));
    double r = rough / power;
    return power * (r < 1.5 ? 1.0 : r < 3.5 ? 2.0 : r < 7.5 ? 5.0 : 10.0);
}

/* With as many decimals as tell ticks this far apart from each other. */
static void tick_text(char *out, size_t size, double value, double step)
{
    if (fabs(value) >= 1e6 || step < 1e-6)
        snprintf(out, size, "%.4g", value);
    else
        snprintf(out, size, "%.*f", step < 1.0 ? (int)ceil(-log10(step) - 1e-9) : 0, value);
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

static gt_status draw_axes(gt_writer *w, const frame *f)
{
    gt_status st = GT_OK;
    double step = tick_step(f->y1 - f->y0, 6);
    char label[64];
    for (double y = ceil(f->y0 / step) * step; !st && y <= f->y1 + 1e-9; y += step) {
        tick_text(label, sizeof label, y, step);
        st = gt_writer_printf(w, "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                              "y2=\"%.1f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s"
                              "</text>\n", LEFT, at_y(f, y), WIDTH - RIGHT, at_y(f, y), LEFT - 6.0,
                              at_y(f, y) + 4.0, label);
    }
    step = fmax(tick_step(f->x1 - f->x0, 8), 1.0);
    for (double x = ceil(f->x0 / step) * step; !st && x <= f->x1 + 1e-9; x += step)
        st = gt_writer_printf(w, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n",
                              at_x(f, x), HEIGHT - BOTTOM + 18.0, x);
    if (!st)
        st = gt_writer_printf(w, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">step</text>\n",
                              0.5 * (LEFT + WIDTH - RIGHT), HEIGHT - 6.0);
    return st;
}

/* `window` points before each are averaged; 1 draws the points themselves. */
static gt_status draw_line(gt_writer *w, const frame *f, const plot_series *s, size_t window,
                           const char *class)
{
    gt_status st = gt_writer_printf(w, "<polyline class=\"%s\" points=\"", class);
    const size_t stretch = s->count / 1500 + 1;
    double sum = 0.0, low = INFINITY, high = -INFINITY;
    for (size_t i = 0; !st && i < s->count; i++) {
        sum += s->y[i];
        if (i >= window)
            sum -= s->y[i - window];
        const double y = sum / (double)(i < window ? i + 1 : window);
        low = fmin(low, y);
        high = fmax(high, y);
        if ((i + 1) % stretch && i + 1 < s->count)
            continue;
        st = gt_writer_printf(w, "%.1f,%.1f ", at_x(f, s->x[i]), at_y(f, low));
        if (!st && high > low)
            st = gt_writer_printf(w, "%.1f,%.1f ", at_x(f, s->x[i]), at_y(f, high));
        low = INFINITY;
        high = -INFINITY;
    }
    return st ? st : gt_writer_printf(w, "\"/>\n");
}

static gt_status draw(gt_writer *w, const plot_series *train, const plot_series *val)
{
    frame f = { INFINITY, -INFINITY, INFINITY, -INFINITY };
    widen(&f, train);
    widen(&f, val);
    if (!(f.x1 > f.x0))
        f.x1 = f.x0 + 1.0;
    const double largest = fmax(fabs(f.y0), fabs(f.y1));
    const double margin = fmax(0.05 * (f.y1 - f.y0), 1e-3 * fmax(largest, 1.0));
    f.y0 -= margin;
    f.y1 += margin;
    gt_status st = gt_writer_printf(
        w, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<style>.grid{stroke:#ddd}"
        ".each{fill:none;stroke:#9ec5e8}.mean{fill:none;stroke:#1f6fb4;stroke-width:2}"
        ".val{fill:none;stroke:#d9632a;stroke-width:2}.dot{fill:#d9632a}text{fill:#333}</style>\n"
        "<rect width=\"%.0f\" height=\"%.0f\" fill=\"white\"/>\n", WIDTH, HEIGHT, WIDTH, HEIGHT);
    if (!st)
        st = draw_axes(w, &f);
    if (!st)
        st = draw_line(w, &f, train, 1, "each");
    if (!st)
        st = draw_line(w, &f, train, train->count / 50 + 1, "mean");
    if (!st && val->count)
        st = draw_line(w, &f, val, 1, "val");
    for (size_t i = 0; !st && i < val->count && val->count <= 200; i++)
        st = gt_writer_printf(w, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n",
                              at_x(&f, val->x[i]), at_y(&f, val->y[i]));
    const size_t window = train->count / 50 + 1;
    double mean = 0.0;
    for (size_t i = train->count - (train->count ? window : 0); i < train->count; i++)
        mean += train->y[i] / (double)window;
    if (!st && train->count)
        st = gt_writer_printf(w, "<text x=\"%.1f\" y=\"18\" style=\"fill:#1f6fb4\">training loss "
                              "%.4f (mean of %zu)</text>\n", LEFT, mean, window);
    if (!st && val->count)
        st = gt_writer_printf(w, "<text x=\"%.1f\" y=\"18\" style=\"fill:#d9632a\">validation loss "
                              "%.4f</text>\n", LEFT + 230.0, val->y[val->count - 1]);
    return st ? st : gt_writer_printf(w, "</svg>\n");
}

gt_status plot_loss(const char *path, const plot_series *train, const plot_series *val)
{
    gt_writer *w;
    if (!train->count && !val->count)
        return GT_OK;
    gt_status st = gt_writer_open(&w, path);
    if (st)
        return st;
    st = draw(w, train, val);
    if (st) {
        gt_writer_abandon(w);
        return st;
    }
    return gt_writer_commit(w);
}
