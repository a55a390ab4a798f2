/* SPDX-License-Identifier: MIT */
/* host/train/metrics.c - metrics.jsonl, and the event file and plot that follow it. */
#include "host/train/metrics.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/tokenizer/utf8.h"
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
    uint64_t done;                      /* steps that were done when it was opened */
    FILE *samples;                      /* NULL: none was written yet              */
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
    if (!isnan(r->copied))
        put_number(&t, "bytes_copied", r->copied, "%.0f");
    if (r->rounding_most[0] > 0.0 || r->rounding_most[1] > 0.0)
        for (int i = 0; i < 2; i++) {
            put_number(&t, i ? "gradient_error_rms" : "activation_error_rms", r->rounding[i], "%.4g");
            put_number(&t, i ? "gradient_error_most" : "activation_error_most", r->rounding_most[i], "%.4g");
        }
    if (r->loss_scale != 1.0)
        put_number(&t, "loss_scale", r->loss_scale, "%.9g");
    if (r->skipped)
        gt_text_printf(&t, ", \"skipped\": true");
    if (!isnan(r->val.loss)) {
        put_number(&t, "val_loss", r->val.loss, "%.9g");
        if (!r->val.whole_texts)
            put_number(&t, "val_perplexity", evaluate_perplexity(&r->val), "%.9g");
        if (r->val.bytes > 0.0)
            put_number(&t, "val_bits_per_byte", evaluate_bits_per_byte(&r->val), "%.9g");
        if (!isnan(r->val.hits))
            put_number(&t, "val_accuracy", evaluate_accuracy(&r->val), "%.9g");
        gt_text_printf(&t, ", \"val_tokens\": %llu", (unsigned long long)r->val.tokens);
        for (int i = 0; i < r->val.parts; i++) {
            gt_text_printf(&t, "%s", i ? ", " : ", \"val_loss_by_source\": [");
            if (isfinite(r->val.part_loss[i]))
                gt_text_printf(&t, "%.8g", r->val.part_loss[i]);
            else
                gt_text_printf(&t, "null");
        }
        gt_text_printf(&t, "%s", r->val.parts ? "]" : "");
    }
    gt_text_printf(&t, "}");
    snprintf(out, size, "%s", t.data ? t.data : "{}");
    gt_text_release(&t);
    return out;
}

/* Reads what an earlier run left in a file, keeps lines up to step `done`, writes them back whole. */
static gt_status cut_file(const char *path, uint64_t done, gt_status (*kept)(metrics *m, const json_t *row), metrics *m)
{
    char *text = NULL;
    size_t size = 0;
    gt_writer *w = NULL;
    if (!gt_path_exists(path))
        return GT_OK;
    gt_status st = gt_file_read(&text, &size, path, (size_t)4 << 30);
    if (!st)
        st = gt_writer_open(&w, path);
    for (char *line = text, *end; !st && line && *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end)
            break;                                  /* a line that a kill cut short */
        json_error_t error;
        json_t *row = json_loadb(line, (size_t)(end - line), 0, &error);
        json_t *step = json_object_get(row, "step");
        const int keep = json_is_integer(step) && (uint64_t)json_integer_value(step) <= done;
        if (keep)
            st = gt_writer_put(w, line, (size_t)(end - line) + 1);
        if (keep && !st && kept)
            st = kept(m, row);
        json_decref(row);
    }
    if (w && st)
        gt_writer_abandon(w);
    else if (w)
        st = gt_writer_commit(w);
    free(text);
    return st;
}

/* What is drawn again. */
static gt_status plot_row(metrics *m, const json_t *row)
{
    const json_t *loss = json_object_get(row, "loss"), *val = json_object_get(row, "val_loss");
    const double x = (double)json_integer_value(json_object_get(row, "step"));
    gt_status st = json_is_number(loss) ? plot_add(&m->train, x, json_number_value(loss)) : GT_OK;
    return st || !json_is_number(val) ? st : plot_add(&m->val, x, json_number_value(val));
}

static gt_status cut_samples(const metrics *m)
{
    char *path = gt_path_join(m->run, "samples.jsonl");
    gt_status st = path ? cut_file(path, m->done, NULL, NULL)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/samples.jsonl'", m->run);
    free(path);
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
    m->done = done;
    if (!m->run || !m->path)
        st = gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/metrics.jsonl'", run);
    if (!st)
        st = cut_file(m->path, done, plot_row, m);
    if (!st)
        st = cut_samples(m);
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

static gt_status put_validation(metrics *m, const metrics_row *r)
{
    gt_status st = events_scalar(m->events, r->step, "loss/val", (float)r->val.loss);
    if (!st && !r->val.whole_texts)
        st = events_scalar(m->events, r->step, "val/perplexity", (float)evaluate_perplexity(&r->val));
    if (!st && r->val.bytes > 0.0)
        st = events_scalar(m->events, r->step, "val/bits_per_byte", (float)evaluate_bits_per_byte(&r->val));
    if (!st && !isnan(r->val.hits))
        st = events_scalar(m->events, r->step, "val/accuracy", (float)evaluate_accuracy(&r->val));
    return st ? st : plot_add(&m->val, (double)r->step, r->val.loss);
}

gt_status metrics_put(metrics *m, const metrics_row *r)
{
    char line[1024];
    metrics_json(line, sizeof line, r);
    if (fprintf(m->file, "%s\n", line) < 0 || fflush(m->file) != 0)
        return gt_fail(GT_IO, "cannot write '%s': %s", m->path, strerror(errno));
    gt_status st = isnan(r->loss) ? GT_OK : plot_add(&m->train, (double)r->step, r->loss);
    if (!st && !isnan(r->loss))
        st = events_scalar(m->events, r->step, "loss/train", (float)r->loss);
    if (!st)
        st = events_scalar(m->events, r->step, "lr", (float)r->lr);
    if (!st)
        st = events_scalar(m->events, r->step, "grad_norm", (float)r->grad_norm);
    if (!st)
        st = events_scalar(m->events, r->step, "speed/tokens_per_s", (float)r->tokens_per_s);
    return st || isnan(r->val.loss) ? st : put_validation(m, r);
}

/* The text as JSON has it, bytes that are no UTF-8 as U+FFFD. */
static json_t *json_of(const char *text, size_t size)
{
    gt_text good = { 0 };
    utf8_mend(&good, text, size);
    json_t *j = good.failed ? NULL : json_stringn(good.size ? good.data : "", good.size);
    gt_text_release(&good);
    return j;
}

gt_status metrics_sample(metrics *m, uint64_t step, const char *prompt, const char *text, size_t size)
{
    char *path = gt_path_join(m->run, "samples.jsonl");
    json_t *row = json_pack("{s:I, s:o, s:o}", "step", (json_int_t)step, "prompt", json_of(prompt, strlen(prompt)),
                            "text", json_of(text, size));
    char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
    gt_status st = path && line ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for a sample of %zu bytes", size);
    if (!st && !m->samples)
        m->samples = fopen(path, "abe");
    if (!st && (!m->samples || fprintf(m->samples, "%s\n", line) < 0 || fflush(m->samples) != 0))
        st = gt_fail(GT_IO, "cannot write '%s': %s", path, strerror(errno));
    if (!st)
        st = events_text(m->events, step, "sample", json_string_value(json_object_get(row, "text")));
    free(line);
    free(path);
    json_decref(row);
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
    if (m->samples && fclose(m->samples) != 0 && !st)
        st = gt_fail(GT_IO, "cannot write '%s/samples.jsonl': %s", m->run, strerror(errno));
    if (m->file && fclose(m->file) != 0 && !st)
        st = gt_fail(GT_IO, "cannot write '%s': %s", m->path, strerror(errno));
    plot_release(&m->train);
    plot_release(&m->val);
    free(m->run);
    free(m->path);
    free(m);
    return st;
}
