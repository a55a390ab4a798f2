/* host/pipeline/timeline.c - a step as a picture.
 *
 *   rank 0  ▓▓▓▓      ░░▒▒░░▒▒   12 % idle
 *   rank 1    ▓▓▓▓░░▒▒░░▒▒       ...
 *
 * Colours differ in lightness as well as in hue, so that it can be read in grey.           */
#include "host/pipeline/timeline.h"

#include <math.h>
#include <stdio.h>

enum { LEFT = 130, RIGHT = 84, TOP = 46, ROW = 22, WIDTH = 1100, BOTTOM = 40, TICKS = 8 };

typedef struct look { const char *fill, *name; } look;

static const look looks[PIPE_KINDS] = {
    [PIPE_FORWARD] = { "#7db0e0", "forward" },
    [PIPE_BACKWARD_INPUT] = { "#e0a030", "backward, inputs" },
    [PIPE_BACKWARD_WEIGHT] = { "#9fd08a", "backward, weights" },
    [PIPE_UPDATE] = { "#7a4a8a", "update" } };

static double end_of(const pipe_schedule *s, pipe_event *const *events)
{
    double end = 0.0;
    for (int r = 0; r < s->ranks; r++)
        for (int i = 0; i < s->count[r]; i++)
            end = fmax(end, events[r][i].end);
    return end > 0.0 ? end : 1.0;
}

static void box(gt_text *out, double x, double width, int y, const pipe_instruction *i, int number)
{
    gt_text_printf(out, "<rect x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\" fill=\"%s\"/>", x, y, width,
                   ROW - 5, looks[i->kind].fill);
    if (number && width > 14.0)
        gt_text_printf(out, "<text x=\"%.2f\" y=\"%d\" class=\"n\">%d</text>", x + 0.5 * width, y + ROW - 10,
                       i->micro_batch);
    gt_text_printf(out, "\n");
}

/* A row's boxes; returns its seconds of computation. */
static double row(gt_text *out, const pipe_schedule *s, const pipe_event *events, int rank, double scale)
{
    const int y = TOP + rank * ROW;
    const pipe_instruction *open = NULL;
    double busy = 0.0, from = 0.0, to = 0.0;
    for (int i = 0; i < s->count[rank]; i++) {
        const pipe_instruction *k = &s->list[rank][i];
        const pipe_event *e = &events[i];
        if (!looks[k->kind].fill || !(e->end > e->begin))
            continue;
        busy += e->end - e->begin;
        const int narrow = (e->end - e->begin) * scale < 2.0;
        if (open && narrow && open->kind == k->kind && (e->begin - to) * scale < 0.5) {
            to = e->end;                            /* joined */
            continue;
        }
        if (open)
            box(out, LEFT + from * scale, (to - from) * scale - 0.4, y, open, 1);
        open = k;
        from = e->begin;
        to = e->end;
    }
    if (open)
        box(out, LEFT + from * scale, (to - from) * scale - 0.4, y, open, 1);
    return busy;
}

static void escape(gt_text *out, const char *text)
{
    for (; *text; text++)
        if (*text == '<' || *text == '>' || *text == '&')
            gt_text_printf(out, "&#%d;", *text);
        else
            gt_text_put(out, text, 1);
}

static void legend(gt_text *out, int y)
{
    int x = LEFT;
    for (int k = 0; k < PIPE_KINDS; k++)
        if (looks[k].fill) {
            gt_text_printf(out, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>"
                           "<text x=\"%d\" y=\"%d\">%s</text>\n", x, y, looks[k].fill, x + 17, y + 10,
                           looks[k].name);
            x += 150;
        }
}

/* A step of 1, 2 or 5 times a power of ten that makes about TICKS of them. */
static double tick_of(double end)
{
    const double rough = end / TICKS, power = pow(10.0, floor(log10(rough)));
    const double first = rough / power;
    return power * (first < 1.5 ? 1.0 : first < 3.5 ? 2.0 : first < 7.5 ? 5.0 : 10.0);
}

gt_status pipe_timeline_svg(gt_text *out, const char *title, const pipe_schedule *s,
                            pipe_event *const *events, const char *const *row_name)
{
    const double end = end_of(s, events), scale = WIDTH / end;
    const int height = TOP + s->ranks * ROW + BOTTOM;
    gt_text_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                   "font-family=\"sans-serif\" font-size=\"12\">\n<style>.n{fill:#222;font-size:10px;"
                   "text-anchor:middle}.r{text-anchor:end}</style>\n<rect width=\"100%%\" height=\"100%%\" "
                   "fill=\"#fff\"/>\n<text x=\"%d\" y=\"18\" font-size=\"14\">", LEFT + WIDTH + RIGHT, height,
                   LEFT);
    escape(out, title);
    gt_text_printf(out, "</text>\n");
    for (double t = 0.0; t <= end * 1.0001; t += tick_of(end))
        gt_text_printf(out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>"
                       "<text x=\"%.1f\" y=\"%d\" fill=\"#666\" text-anchor=\"middle\">%.4g ms</text>\n",
                       LEFT + t * scale, TOP - 6, LEFT + t * scale, TOP + s->ranks * ROW,
                       LEFT + t * scale, TOP - 10, t * 1e3);
    for (int r = 0; r < s->ranks; r++) {
        char name[32];
        snprintf(name, sizeof name, "rank %d", r);
        gt_text_printf(out, "<text x=\"%d\" y=\"%d\" class=\"r\">", LEFT - 8, TOP + r * ROW + 13);
        escape(out, row_name && row_name[r] ? row_name[r] : name);
        gt_text_printf(out, "</text>\n");
        const double busy = row(out, s, events[r], r, scale);
        gt_text_printf(out, "<text x=\"%d\" y=\"%d\">%.1f %% idle</text>\n", LEFT + WIDTH + 6,
                       TOP + r * ROW + 13, 100.0 * (1.0 - busy / end));
    }
    legend(out, TOP + s->ranks * ROW + 14);
    gt_text_printf(out, "</svg>\n");
    return out->failed ? gt_fail(GT_NO_MEMORY, "out of memory") : GT_OK;
}
