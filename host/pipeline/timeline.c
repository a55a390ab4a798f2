/* SPDX-License-Identifier: MIT */
/* host/pipeline/timeline.c - a step as a picture.
 *
 *   title                          rows are drawn first, into a text of their own: only then is it
 *   note                           known what the legend has to name
 *   legend
 *   label   row            idle
 *   label   row            idle
 *           axis                                                                            */
#include "host/pipeline/timeline.h"

#include "host/base/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 1000, MARGIN = 16, TICKS = 9, SHADES = 4, MOST_RANKS_TALL = 12, MOST_RANKS_LABELLED = 48 };

/* What may be seen. Of the first three each shade is a row of `seen`. */
typedef enum what {
    FORWARD,
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    UPDATE,
    SUMS,
    WAIT_ACTIVATION,
    WAIT_GRADIENT,
    WAIT_SUMS,
    IDLE,
    WHATS
} what;

static const struct look {
    const char *class, *colour, *name;
} looks[WHATS] = {
    [FORWARD] = { "f", GT_SVG_BLUE, "forward" },
    [BACKWARD_INPUT] = { "b", GT_SVG_ORANGE, "backward, inputs" },
    [BACKWARD_WEIGHT] = { "w", GT_SVG_GREEN, "backward, weights" },
    [UPDATE] = { "u", GT_SVG_PURPLE, "update" },
    [SUMS] = { "s", GT_SVG_RED, "all-reduce under way" },
    [WAIT_ACTIVATION] = { "wa", NULL, "waits for activation" },
    [WAIT_GRADIENT] = { "wg", NULL, "waits for gradient" },
    [WAIT_SUMS] = { "ws", NULL, "waits for all-reduce" },
    [IDLE] = { "i", NULL, "idle" }
};

typedef struct drawing {
    const pipe_picture *p;
    const pipe_schedule *s;
    gt_text body;
    double end, left, scale;            /* pixels of the axis' begin, and a second              */
    int row, band, strip, shades;       /* heights; shades of a colour, one or more chunks each */
    unsigned char seen[WHATS][SHADES];
} drawing;

static double end_of(const pipe_picture *p)
{
    const pipe_schedule *s = p->schedule;
    double end = 0.0;
    for (int r = 0; r < s->ranks; r++)
        for (int i = 0; i < s->count[r]; i++)
            end = fmax(end, p->events[r][i].end);
    return end > 0.0 ? end : 1.0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static int shade_of(const drawing *d, int chunk)
{
    return d->s->chunks > 1 ? chunk * d->shades / d->s->chunks : 0;
}

static void fill_of(char out[8], const drawing *d, what w, int shade)
{
    gt_svg_lighten(out, looks[w].colour, d->shades > 1 ? 0.62 * shade / (d->shades - 1) : 0.0);
}

static void rectangle(drawing *d, what w, int shade, double from, double to, int y, int height)
{
    char class[16];
    snprintf(class, sizeof class, w < UPDATE ? "%s%d" : "%s", looks[w].class, shade);
    d->seen[w][shade] = 1;
    const double width = (to - from) * d->scale, apart = w <= UPDATE && width > 2.5 ? 0.6 : 0.0;
    gt_text_printf(&d->body, "<rect class=\"%s\" x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\"/>\n", class,
                   d->left + from * d->scale, y, fmax(width - apart, 0.6), height);
}

static what what_of(const pipe_instruction *i)
{
    return i->kind == PIPE_FORWARD           ? FORWARD
           : i->kind == PIPE_BACKWARD_INPUT  ? BACKWARD_INPUT
           : i->kind == PIPE_BACKWARD_WEIGHT ? BACKWARD_WEIGHT
           : i->kind == PIPE_UPDATE          ? UPDATE
                                             : WHATS;
}

/* joined: it stands for several micro-batches, and has no number. */
static void box(drawing *d, const pipe_instruction *i, int joined, double from, double to, int y)
{
    char number[16], fill[8], more[64];
    const what w = what_of(i);
    const int shade = shade_of(d, i->chunk);
    const double size = d->band > 15 ? 11.0 : 9.0;
    rectangle(d, w, w == UPDATE ? 0 : shade, from, to, y, d->band);
    snprintf(number, sizeof number, "%d", i->micro_batch);
    if (joined || w == UPDATE || d->band < 10 || (to - from) * d->scale < gt_svg_width(number, size) + 3.0)
        return;
    fill_of(fill, d, w, shade);
    snprintf(more, sizeof more, "class=\"%s\" font-size=\"%.0f\"", gt_svg_lightness(fill) < 0.5 ? "nl" : "nd", size);
    gt_svg_text(&d->body, d->left + 0.5 * (from + to) * d->scale, y + 0.5 * d->band + 0.36 * size, more, number);
}

/* The part of [from, to) that an event covers, less what is covered already. */
static void wait_in(drawing *d, what w, const pipe_event *e, double *from, double to, int y)
{
    const double begin = fmax(*from, e->begin), end = fmin(to, e->end);
    if ((end - begin) * d->scale < 0.3)
        return;
    if ((begin - *from) * d->scale >= 0.3)
        rectangle(d, IDLE, 0, *from, begin, y, d->band);
    rectangle(d, w, 0, begin, end, y, d->band);
    *from = end;
}

/* [from, to) without computation, before instruction `next` (or the end); `after` is the one that was
 * computed last. */
static void gap(drawing *d, int rank, int after, int next, double from, double to, int y)
{
    const pipe_instruction *list = d->s->list[rank];
    const pipe_event *e = d->p->events[rank];
    for (int i = after + 1; i < next; i++)
        if (list[i].kind == PIPE_RECEIVE_ACTIVATION || list[i].kind == PIPE_RECEIVE_GRADIENT)
            wait_in(d, list[i].kind == PIPE_RECEIVE_ACTIVATION ? WAIT_ACTIVATION : WAIT_GRADIENT, &e[i], &from, to, y);
    if (next < d->s->count[rank] && list[next].kind == PIPE_UPDATE)
        wait_in(d, WAIT_SUMS, &(pipe_event){ from, to }, &from, to, y);
    if ((to - from) * d->scale >= 0.3)
        rectangle(d, IDLE, 0, from, to, y, d->band);
}

/* A rank's boxes, and what lies between them; returns its seconds of computation. */
static double row(drawing *d, int rank, int y)
{
    const pipe_schedule *s = d->s;
    const pipe_event *e = d->p->events[rank];
    double busy = 0.0, from = 0.0, to = 0.0;        /* of the box that is open */
    int open = -1, last = -1;                       /* its first instruction, and its last */
    for (int i = 0; i < s->count[rank]; i++) {
        const pipe_instruction *k = &s->list[rank][i];
        if (k->kind == PIPE_REDUCE && e[i].end > e[i].begin)
            rectangle(d, SUMS, 0, e[i].begin, e[i].end, y + d->band + 1, d->strip);
        if (what_of(k) == WHATS || !(e[i].end > e[i].begin))
            continue;
        busy += e[i].end - e[i].begin;
        const int narrow = (e[i].end - e[i].begin) * d->scale < 2.0;
        if (open >= 0 && narrow && s->list[rank][open].kind == k->kind && (e[i].begin - to) * d->scale < 0.5) {
            to = e[i].end;                          /* joined */
            last = i;
            continue;
        }
        if (open >= 0)
            box(d, &s->list[rank][open], open != last, from, to, y);
        gap(d, rank, last, i, to, e[i].begin, y);
        open = last = i;
        from = e[i].begin;
        to = e[i].end;
    }
    if (open >= 0)
        box(d, &s->list[rank][open], open != last, from, to, y);
    gap(d, rank, last, s->count[rank], to, d->end, y);
    return busy;
}

static const char *name_of(const pipe_picture *p, int rank, char *out, size_t size)
{
    snprintf(out, size, "rank %d", rank);
    return p->row_name && p->row_name[rank] ? p->row_name[rank] : out;
}

static const char *place_of(const pipe_picture *p, int rank)
{
    return p->row_place && p->row_place[rank] ? p->row_place[rank] : "";
}

/* Name and place, above each other where there is room, else beside each other. */
static void label(drawing *d, int rank, int y)
{
    char name[32], both[256];
    const char *place = place_of(d->p, rank);
    const int tall = d->s->ranks <= MOST_RANKS_TALL && *place;
    const double size = d->row < 16 ? 9.0 : 12.0, x = d->left - 10.0;
    char more[64];
    snprintf(more, sizeof more, "class=\"r\" font-size=\"%.0f\"", size);
    snprintf(both, sizeof both, tall || !*place ? "%s" : "%s, %s", name_of(d->p, rank, name, sizeof name), place);
    gt_svg_text(&d->body, x, y + (tall ? 11.0 : 0.5 * d->band + 0.36 * size), more, both);
    if (tall)
        gt_svg_text(&d->body, x, y + 24.0, "class=\"r q\" font-size=\"10\"", place);
}

static double widest_label(const pipe_picture *p)
{
    double most = 0.0;
    for (int r = 0; r < p->schedule->ranks; r++) {
        char name[32];
        const double a = gt_svg_width(name_of(p, r, name, sizeof name), 12.0);
        const double b = gt_svg_width(place_of(p, r), p->schedule->ranks <= MOST_RANKS_TALL ? 10.0 : 12.0);
        most = fmax(most, p->schedule->ranks <= MOST_RANKS_TALL ? fmax(a, b)
                          : b > 0.0                             ? a + b + gt_svg_width(", ", 12.0)
                                                                : a);
    }
    return most;
}

/* ---- around them ------------------------------------------------------------------------------- */

static void axis(gt_text *out, const drawing *d, double top, double bottom)
{
    const int in_seconds = d->end >= 10.0, in_us = d->end < 1e-3;
    const double unit = in_seconds ? 1.0 : in_us ? 1e6 : 1e3, tick = gt_svg_tick(d->end * unit, TICKS);
    char number[32];
    for (int i = 0; i * tick <= d->end * unit * 1.0001; i++) {
        const double x = d->left + i * tick / unit * d->scale;
        gt_text_printf(out, "<line class=\"g\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, top - 4.0, x,
                       bottom + 4.0);
        gt_svg_tick_text(number, sizeof number, i * tick, tick);
        gt_svg_text(out, x, bottom + 18.0, "class=\"a\"", number);
    }
    snprintf(number, sizeof number, "time since the step began (%s)", in_seconds ? "s" : in_us ? "us" : "ms");
    gt_svg_text(out, d->left + 0.5 * WIDTH, bottom + 36.0, "class=\"a\"", number);
}

/* "forward" or, of several chunks, "forward, chunks 0 and 1": the swatches' order. */
static void legend_name(const drawing *d, what w, char *out, size_t size)
{
    const char *name = w == BACKWARD_WEIGHT && !d->seen[BACKWARD_INPUT][0] ? "backward" : looks[w].name;
    size_t n = (size_t)snprintf(out, size, "%s", name);
    if (w >= UPDATE || d->s->chunks < 2)
        return;
    n += (size_t)snprintf(out + n, size - n, ", chunk ");
    for (int k = 0; k < d->shades; k++) {
        const int from = (k * d->s->chunks + d->shades - 1) / d->shades;
        const int to = ((k + 1) * d->s->chunks + d->shades - 1) / d->shades - 1;
        if (d->seen[w][k])
            n += (size_t)snprintf(out + n, size - n, to > from ? "%s%d-%d" : "%s%d", k ? ", " : "", from, to);
    }
}

/* Writes the legend from line y on; returns the lines it takes. */
static int legend(gt_text *out, const drawing *d, double y, double right)
{
    double x = MARGIN;
    int lines = 1;
    for (int w = 0; w < WHATS; w++) {
        char name[96];
        int swatches = 0;
        for (int k = 0; k < SHADES; k++)
            swatches += d->seen[w][k];
        if (!swatches)
            continue;
        legend_name(d, (what)w, name, sizeof name);
        const double wide = 14.0 * swatches + 5.0 + gt_svg_width(name, 11.0) + 16.0;
        if (x + wide > right && x > MARGIN) {
            x = MARGIN;
            lines++;
        }
        const double top = y + 18.0 * (lines - 1);
        double at = x;
        for (int k = 0; k < SHADES; k++)
            if (d->seen[w][k]) {
                char number[16] = "";
                if (w < UPDATE)
                    snprintf(number, sizeof number, "%d", k);
                const double high = w == SUMS ? 5.0 : 11.0;
                gt_text_printf(out, "<rect class=\"%s%s\" x=\"%.1f\" y=\"%.1f\" width=\"13\" height=\"%.0f\"/>\n",
                               looks[w].class, number, at, top + 0.5 * (11.0 - high), high);
                at += 14.0;
            }
        gt_svg_text(out, at + 4.0, top + 9.5, "font-size=\"11\"", name);
        x += wide;
    }
    return lines;
}

/* Waiting is hatched in the colour of what is waited for, each kind in a direction of its own. */
static void styles(gt_text *out, const drawing *d)
{
    char fill[8];
    static const struct {
        const char *id, *colour, *path;
    } hatches[] = { { "wa", GT_SVG_BLUE, "M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2" },
                    { "wg", "#c98a10", "M-1,5 l2,2 M0,0 l6,6 M5,-1 l2,2" },
                    { "ws", GT_SVG_RED, "M0,3 h6 M3,0 v6" } };
    gt_text_printf(out, "<defs>\n");
    for (int i = 0; i < 3; i++)
        gt_text_printf(out,
                       "<pattern id=\"%s\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect "
                       "width=\"6\" height=\"6\" fill=\"#fff\"/><path d=\"%s\" stroke=\"%s\" stroke-width=\"1.1\"/>"
                       "</pattern>\n",
                       hatches[i].id, hatches[i].path, hatches[i].colour);
    gt_text_printf(out, "</defs>\n<style>\ntext{fill:" GT_SVG_INK "}.r{text-anchor:end}.q{fill:" GT_SVG_GREY "}"
                        ".a{text-anchor:middle;font-size:11px}.g{stroke:" GT_SVG_LINE "}.nd,.nl{text-anchor:middle}"
                        ".nl{fill:#fff}\n.i{fill:#eeeeee}.wa{fill:url(#wa)}.wg{fill:url(#wg)}.ws{fill:url(#ws)}");
    for (int w = 0; w <= SUMS; w++)
        for (int k = 0; k < (w < UPDATE ? d->shades : 1); k++) {
            char number[16] = "";
            if (w < UPDATE)
                snprintf(number, sizeof number, "%d", k);
            fill_of(fill, d, (what)w, k);
            gt_text_printf(out, ".%s%s{fill:%s}", looks[w].class, number, fill);
        }
    gt_text_printf(out, "\n</style>\n");
}

static void head(gt_text *out, double width, double height)
{
    gt_text_printf(out,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
                   "%.0f\" font-family=\"" GT_SVG_FONTS "\" font-size=\"12\">\n",
                   width, height, width, height);
}

gt_status pipe_timeline_svg(gt_text *out, const pipe_picture *p)
{
    const int ranks = p->schedule->ranks, chunks = p->schedule->chunks;
    drawing d = { .p = p, .s = p->schedule, .end = end_of(p), .shades = chunks > SHADES ? SHADES : chunks };
    gt_text above = { 0 };
    char idle[32];
    d.row = ranks <= MOST_RANKS_TALL ? 38 : ranks <= MOST_RANKS_LABELLED ? 24 : 12;
    d.strip = d.row > 12 ? 4 : 2;
    d.band = d.row > 30 ? 24 : d.row > 12 ? 15 : 8;
    d.left = MARGIN + widest_label(p) + 10.0;
    d.scale = WIDTH / d.end;
    const double wide = fmax(1.1 * gt_svg_width(p->title, 15.0), p->note ? gt_svg_width(p->note, 12.0) : 0.0);
    const double right = MARGIN + fmax(d.left + WIDTH + 8.0 + gt_svg_width("100.0 %", 12.0), MARGIN + wide);
    const double first = 26.0 + (p->note ? 20.0 : 0.0);     /* base line of the title, or the note */

    /* The rows move down by what is above them: they are drawn at 0 and put into a group. */
    gt_svg_text(&d.body, d.left + WIDTH + 8.0, -8.0, "font-size=\"11\"", "idle");
    for (int r = 0; r < ranks; r++) {
        const int y = r * d.row;
        label(&d, r, y);
        snprintf(idle, sizeof idle, "%.1f %%", 100.0 * (1.0 - row(&d, r, y) / d.end));
        gt_svg_text(&d.body, d.left + WIDTH + 8.0, y + 0.5 * d.band + 4.0, d.row < 16 ? "font-size=\"9\"" : "", idle);
    }
    const int lines = legend(&above, &d, first + 12.0, right - MARGIN);
    const double top = first + 12.0 + 18.0 * lines + 22.0;
    head(out, right, top + ranks * d.row + 44.0);
    styles(out, &d);
    gt_text_printf(out, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n");
    gt_svg_text(out, MARGIN, 26.0, "font-size=\"15\" font-weight=\"bold\"", p->title);
    if (p->note)
        gt_svg_text(out, MARGIN, first, "class=\"q\"", p->note);
    gt_text_put(out, above.data, above.size);
    gt_text_printf(out, "<g transform=\"translate(0 %.0f)\">\n", top);
    axis(out, &d, 0.0, ranks * d.row - (d.row - d.band - d.strip));
    if (d.body.size)
        gt_text_put(out, d.body.data, d.body.size);
    gt_text_printf(out, "</g>\n</svg>\n");
    const int failed = out->failed || d.body.failed || above.failed;
    gt_text_release(&d.body);
    gt_text_release(&above);
    return failed ? gt_fail(GT_NO_MEMORY, "cannot draw a timeline: no memory for the picture") : GT_OK;
}
