/* SPDX-License-Identifier: MIT */
/* host/cli/train_view.c - drawing steps, and noticing slow ranks. */
#include "host/cli/train_view.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/train_bar.h"
#include "host/cli/train_samples.h"
#include "host/cli/writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say_slow(train_view *v, const metrics_row *r, const slow_rank_finding *f)
{
    gt_log(GT_LOG_WARN, "train",
           "step %llu: rank %d (%s) has become %.1f times as slow as the others, "
           "for %d steps now, and adds %.1f ms to steps of %.1f ms; %s",
           (unsigned long long)r->step, f->rank, train_plan(v->of)->device[f->rank], f->factor, SLOW_RANK_PATIENCE,
           1e3 * f->longer, r->step_ms, v->replan ? "planning again" : "--replan would move work away from it");
    if (v->replan) {
        v->wants_plan = 1;
        train_stop(v->of);
    }
}

/* Remembers what steps take, and says when one rank has become slow. Rank 0, which shows the steps,
 * decides for all (train_stop). */
static void watch(train_view *v, const metrics_row *r)
{
    slow_rank_finding found;
    if (r->step - v->first_step > SLOW_RANK_WARM_UP) {
        v->measured[v->measured_count++ % 64] = r->step_ms;
        v->measured_idle += (r->bubble - v->measured_idle) / v->measured_count;
    }
    for (int i = 0; v->comm && i < net_comm_size(v->comm); i++)
        v->busy[i] = train_busy_of(v->of, i);
    if (v->comm && slow_rank_step(v->slow_ranks, v->busy, 1e-3 * r->step_ms, &found))
        say_slow(v, r, &found);
}

/* Remembers what rounding between stages did. */
static void note_rounding(train_view *v, const metrics_row *r)
{
    if (r->rounding_most[0] <= 0.0 && r->rounding_most[1] <= 0.0)
        return;
    v->rounded++;
    for (int i = 0; i < 2; i++) {
        v->rounding[i] += (r->rounding[i] - v->rounding[i]) / (double)v->rounded;
        v->rounding_most[i] = fmax(v->rounding_most[i], r->rounding_most[i]);
    }
}

static const char *describe_rounding(char *out, size_t size, const metrics_row *r)
{
    out[0] = '\0';
    if (r->rounding_most[0] > 0.0 || r->rounding_most[1] > 0.0)
        snprintf(out, size, "  error %.2g/%.2g %%, at most %.2g/%.2g %%", 100.0 * r->rounding[0],
                 100.0 * r->rounding[1], 100.0 * r->rounding_most[0], 100.0 * r->rounding_most[1]);
    return out;
}

static const char *describe_balance(const train_view *v, char *out, size_t size)
{
    char sent[32];
    const train_balance *b = train_balance_of(v->of);
    int used = 0;
    out[0] = '\0';
    if (v->comm && b->mean_busy > 0.0)
        used = snprintf(out, size, "  idle %.1f %%  slowest rank %d  sent %s", 100.0 * b->idle, b->slowest,
                        gt_format_bytes(sent, sizeof sent, b->sent));
    if (used > 0 && (size_t)used < size && b->spared)
        snprintf(out + used, size - (size_t)used, "  held back %llu tensor%s, %s", (unsigned long long)b->held,
                 b->held == 1 ? "" : "s", gt_format_bytes(sent, sizeof sent, b->spared));
    return out;
}

static void draw_bar(const train_view *v, const metrics_row *r)
{
    char line[256];
    const train_bar b = {
        .step = r->step,
        .steps = v->steps,
        .loss = r->loss,
        .val = v->val,
        .lr = r->lr,
        .grad_norm = r->grad_norm,
        .skipped = r->skipped,
        .tokens_per_s = v->tokens_per_s,
        .seconds_left = v->ms * 1e-3 * (double)(v->steps - r->step)
    };
    printf("\r\033[K%s", train_bar_line(line, sizeof line, &b, cli_columns()));
}

/* "  val 3.2000  ppl 24.53", of classes "  val 0.3000  accuracy 91.20 %", of hidden tokens both, and what else is known. */
static void describe_validation(char *out, size_t size, const evaluate_result *r)
{
    size_t n = (size_t)snprintf(out, size, "  val %.4f", r->loss);
    if (!r->whole_texts && n < size)
        n += (size_t)snprintf(out + n, size - n, "  ppl %.4g", evaluate_perplexity(r));
    if (!isnan(r->hits) && n < size)
        n += (size_t)snprintf(out + n, size - n, "  accuracy %.2f %%", 100.0 * evaluate_accuracy(r));
    if (r->bytes > 0.0 && n < size)
        snprintf(out + n, size - n, "  %.4g bits/byte", evaluate_bits_per_byte(r));
}

/* "4.1234", or a sign that there is none. */
static const char *loss_text(char out[32], double loss)
{
    snprintf(out, 32, isnan(loss) ? "-" : "%.4f", loss);
    return out;
}

/* A line above the bar; on a narrow screen without what follows from the loss. */
static void print_validation(const metrics_row *r, const char *val)
{
    char line[192], loss[32];
    const int n = snprintf(line, sizeof line, "step %-8llu loss %s%s  lr %.3g", (unsigned long long)r->step,
                           loss_text(loss, r->loss), val, r->lr);
    if (n >= cli_columns())
        snprintf(line, sizeof line, "step %-8llu loss %s  val %.4f  lr %.3g", (unsigned long long)r->step, loss,
                 r->val.loss, r->lr);
    printf("\r\033[K%s\n", line);
}

static void show_step(void *context, const metrics_row *r)
{
    train_view *v = context;
    char text[1024], val[128] = "", rate[32], loss[32], balance[160], rounding[96];
    const uint64_t now = gt_now_ns();
    if (!isnan(r->val.loss)) {
        v->val = r->val.loss;
        describe_validation(val, sizeof val, &r->val);
    }
    watch(v, r);
    note_rounding(v, r);
    if (v->shown && r->step <= *v->shown)
        return;
    if (v->shown)
        *v->shown = r->step;
    if (v->json) {
        printf("%s\n", metrics_json(text, sizeof text, r));
        fflush(stdout);
        return;
    }
    gt_format_count(rate, sizeof rate, r->tokens_per_s);
    if (!v->bar) {
        char grad[48];
        if (r->skipped)
            snprintf(grad, sizeof grad, "skipped: %s", r->skipped);
        else
            snprintf(grad, sizeof grad, "grad %.3f", r->grad_norm);
        printf("step %llu  loss %s%s  lr %.3g  %s  %.1f ms  %s tok/s%s%s\n", (unsigned long long)r->step,
               loss_text(loss, r->loss), val, r->lr, grad, r->step_ms, rate,
               describe_balance(v, balance, sizeof balance), describe_rounding(rounding, sizeof rounding, r));
        fflush(stdout);
        return;
    }
    /* The mean of about the last twenty steps; of all while they are fewer. */
    const double weight = fmax(0.05, 1.0 / (double)(r->step - v->first_step));
    v->ms += weight * (r->step_ms - v->ms);
    v->tokens_per_s += weight * (r->tokens_per_s - v->tokens_per_s);
    if (!isnan(r->val.loss))
        print_validation(r, val);
    else if (now - v->last_ns < 100000000u && r->step < v->steps)
        return;
    v->last_ns = now;
    v->last = *r;
    draw_bar(v, r);
    fflush(stdout);
}

static void show_phase(void *context, const char *what, int done)
{
    const train_view *v = context;
    if (v->comm) /* the others wait meanwhile */
        net_comm_busy(v->comm, done ? NULL : what);
    if (!v->bar)
        return;
    if (!done)
        printf("\r\033[K%s ...", what);
    else if (v->last.step)
        draw_bar(v, &v->last);
    fflush(stdout);
}

/* The prompt and what follows, each line behind two spaces. */
static void print_sample(const train_view *v, uint64_t step, const char *text)
{
    const char *const parts[] = { v->prompt, text };
    printf("%ssample after step %llu\n  ", v->bar ? "\r\033[K" : "", (unsigned long long)step);
    for (int i = 0; i < 2; i++)
        for (const char *p = parts[i]; *p; p++)
            if (*p == '\n')
                printf("\n  ");
            else
                putchar(*p);
    printf("\n");
}

static gt_status show_sample(void *context, uint64_t step, const char *folder)
{
    train_view *v = context;
    char *text;
    if (!v->samples)
        return GT_OK;
    gt_status st = train_samples_write(v->samples, step, folder, &text);
    if (st)
        return st;
    if (v->json) {
        gt_text line = { 0 };
        gt_text_printf(&line, "{\"step\": %llu, \"prompt\": ", (unsigned long long)step);
        cli_json_string(&line, v->prompt, strlen(v->prompt));
        gt_text_printf(&line, ", \"sample\": ");
        cli_json_string(&line, text, strlen(text));
        printf("%s}\n", line.data ? line.data : "");
        gt_text_release(&line);
    } else {
        print_sample(v, step, text);
    }
    fflush(stdout);
    free(text);
    return GT_OK;
}

gt_status train_view_begin(train_view *v)
{
    const int ranks = v->comm ? net_comm_size(v->comm) : 1;
    v->first_step = train_steps_done(v->of);
    v->val = NAN;
    v->busy = calloc((size_t)ranks, sizeof *v->busy);
    return v->busy ? slow_rank_create(&v->slow_ranks, ranks, v->slow)
                   : gt_fail(GT_NO_MEMORY, "no memory to watch the times of %d ranks", ranks);
}

void train_view_end(train_view *v)
{
    if (v->bar)
        printf("\n");
    slow_rank_release(v->slow_ranks);
    free(v->busy);
    v->slow_ranks = NULL;
    v->busy = NULL;
}

train_hooks train_view_hooks(train_view *v)
{
    return (train_hooks){ v, show_step, show_phase, show_sample };
}

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void train_view_compare(const train_view *v, FILE *out)
{
    const run_plan *p = train_plan(v->of);
    double sorted[64];
    const int n = v->measured_count < 64 ? v->measured_count : 64;
    if (p->step <= 0.0 || n < 4)
        return;
    memcpy(sorted, v->measured, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, rising);
    const double middle = sorted[n / 2], predicted = p->step * 1e3;
    fprintf(out,
            "plan    predicted %.1f ms a step and %.1f %% idle, measured %.1f ms (%+.1f %%) and %.1f %% "
            "idle\n",
            predicted, 100.0 * p->idle, middle, 100.0 * (middle / predicted - 1.0), 100.0 * v->measured_idle);
}
