/* SPDX-License-Identifier: MIT */
/* host/train/metrics.c - metrics.jsonl, and the event file and plot that follow it. */
#include "host/train/metrics.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/train/events.h"
#include "host/train/plot.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct metrics {
    char *run, *path;
    FILE *file;
    events *events;
    plot_series train, val;
    char title[128];                    /* of the plot */
};

/* A number as JSON has it: NaN and infinities do not exist there. */
static void put_number(gt_text *t, const char *key, double value, const char *format)
{
    gt_text_printf(t, ", \"%s\": ", key);
    if (isfinite(value))
        gt_text_printf(t, format, value);
    else
        gt_text_printf(t, "null");
}

char *metrics_json(char *out, size_t size, const metrics_row *r)
{
    gt_text t = { 0 };
    gt_text_printf(&t, "{\"step\": %llu", (unsigned long long)r->step);
    put_number(&t, "loss", r->loss, "%.9g");
    put_number(&t, "lr", r->lr, "%.9g");
    put_number(&t, "grad_norm", r->grad_norm, "%.9g");
    gt_text_printf(&t, ", \"tokens\": %llu", (unsigned long long)r->tokens);
    put_number(&t, "tokens_per_s", r->tokens_per_s, "%.1f");
    put_number(&t, "step_ms", r->step_ms, "%.3f");
    put_number(&t, "mfu", r->mfu, "%.4f");
    put_number(&t, "gemm_share", r->gemm_share, "%.4f");
    put_number(&t, "bubble", r->bubble, "%.4f");
    if (r->loss_scale != 1.0)
        put_number(&t, "loss_scale", r->loss_scale, "%.9g");
    if (r->skipped)
        gt_text_printf(&t, ", \"skipped\": true");
    if (!isnan(r->val_loss)) {
        put_number(&t, "val_loss", r->val_loss, "%.9g");
        gt_text_printf(&t, ", \"val_tokens\": %llu", (unsigned long long)r->val_tokens);
    }
    gt_text_printf(&t, "}");
    snprintf(out, size, "%s", t.data ? t.data : "{}");
    gt_text_release(&t);
    return out;
}

/* Reads what an earlier run left, keeps lines up to step `done`, writes them back whole. */
static gt_status cut_record(metrics *m, uint64_t done)
{
    char *text = NULL;
    size_t size = 0;
    gt_writer *w = NULL;
    if (!gt_path_exists(m->path))
        return GT_OK;
    gt_status st = gt_file_read(&text, &size, m->path, (size_t)4 << 30);
    if (!st)
        st = gt_writer_open(&w, m->path);
    for (char *line = text, *end; !st && line && *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end)
            break;                                  /* a line that a kill cut short */
        json_error_t error;
        json_t *row = json_loadb(line, (size_t)(end - line), 0, &error);
        json_t *step = json_object_get(row, "step"), *loss = json_object_get(row, "loss");
        json_t *val = json_object_get(row, "val_loss");
        const int keep = json_is_integer(step) && (uint64_t)json_integer_value(step) <= done;
        if (keep) {
            const double x = (double)json_integer_value(step);
            st = gt_writer_put(w, line, (size_t)(end - line) + 1);
            if (!st && json_is_number(loss))
                st = plot_add(&m->train, x, json_number_value(loss));
            if (!st && json_is_number(val))
                st = plot_add(&m->val, x, json_number_value(val));
        }
        json_decref(row);
    }
    if (w && st)
        gt_writer_abandon(w);
    else if (w)
        st = gt_writer_commit(w);
    free(text);
    return st;
}

gt_status metrics_last(uint64_t *last, const char *run)
{
    char *text = NULL, *path = gt_path_join(run, "metrics.jsonl");
    gt_status st = path ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/metrics.jsonl'", run);
    *last = 0;
    if (!st && gt_path_exists(path))
        st = gt_file_read(&text, NULL, path, (size_t)4 << 30);
    for (char *line = text, *end; !st && line && (end = strchr(line, '\n')); line = end + 1) {
        json_error_t error;
        json_t *row = json_loadb(line, (size_t)(end - line), 0, &error);
        const json_int_t step = json_integer_value(json_object_get(row, "step"));
        if (step > 0 && (uint64_t)step > *last)
            *last = (uint64_t)step;
        json_decref(row);
    }
    free(text);
    free(path);
    return st;
}

gt_status metrics_open(metrics **out, const char *run, uint64_t done)
{
    *out = NULL;
    metrics *m = calloc(1, sizeof *m);
    if (!m)
        return gt_fail(GT_NO_MEMORY, "cannot record metrics: no memory for the recorder");
    gt_status st = GT_OK;
    m->run = strdup(run);
    m->path = gt_path_join(run, "metrics.jsonl");
    if (!m->run || !m->path)
        st = gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/metrics.jsonl'", run);
    if (!st)
        st = cut_record(m, done);
    if (!st) {
        m->file = fopen(m->path, "abe");
        if (!m->file)
            st = gt_fail(GT_IO, "cannot write '%s': %s", m->path, strerror(errno));
    }
    if (!st)
        st = events_open(&m->events, run, done + 1);
    if (st) {
        char why[1024];
        snprintf(why, sizeof why, "%s", gt_message());
        metrics_close(m);
        return gt_fail(st, "%s", why);
    }
    metrics_title(m, NULL);
    *out = m;
    return GT_OK;
}

void metrics_title(metrics *m, const char *model)
{
    size_t end = strlen(m->run), from;
    while (end > 1 && m->run[end - 1] == '/')
        end--;
    for (from = end; from > 0 && m->run[from - 1] != '/'; from--)
        ;
    snprintf(m->title, sizeof m->title, "Loss of %.*s%s%s", (int)(end - from > 60 ? 60 : end - from), m->run + from,
             model ? ": " : "", model ? model : "");
}

gt_status metrics_put(metrics *m, const metrics_row *r)
{
    char line[1024];
    metrics_json(line, sizeof line, r);
    if (fprintf(m->file, "%s\n", line) < 0 || fflush(m->file) != 0)
        return gt_fail(GT_IO, "cannot write '%s': %s", m->path, strerror(errno));
    gt_status st = plot_add(&m->train, (double)r->step, r->loss);
    if (!st)
        st = events_scalar(m->events, r->step, "loss/train", (float)r->loss);
    if (!st)
        st = events_scalar(m->events, r->step, "lr", (float)r->lr);
    if (!st)
        st = events_scalar(m->events, r->step, "grad_norm", (float)r->grad_norm);
    if (!st)
        st = events_scalar(m->events, r->step, "speed/tokens_per_s", (float)r->tokens_per_s);
    if (!st && !isnan(r->val_loss)) {
        st = events_scalar(m->events, r->step, "loss/val", (float)r->val_loss);
        if (!st)
            st = plot_add(&m->val, (double)r->step, r->val_loss);
    }
    return st;
}

gt_status metrics_draw(metrics *m)
{
    gt_status st = events_flush(m->events);
    char *path = gt_path_join(m->run, "loss.svg");
    if (!st && path)
        st = plot_loss(path, m->title, &m->train, &m->val);
    free(path);
    return st;
}

gt_status metrics_close(metrics *m)
{
    gt_status st = GT_OK;
    if (!m)
        return st;
    if (m->events && m->train.count)
        st = metrics_draw(m);
    gt_status closed = events_close(m->events);
    if (!st)
        st = closed;
    if (m->file && fclose(m->file) != 0 && !st)
        st = gt_fail(GT_IO, "cannot write '%s': %s", m->path, strerror(errno));
    plot_release(&m->train);
    plot_release(&m->val);
    free(m->run);
    free(m->path);
    free(m);
    return st;
}
