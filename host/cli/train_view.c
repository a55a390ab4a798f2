/* SPDX-License-Identifier: MIT */
/* host/cli/train_view.c - drawing steps, and noticing slow ranks. */
#include "host/cli/train_view.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/train_bar.h"

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

static const char *describe_balance(const train_view *v, char *out, size_t size)
{
    char sent[32];
    const train_balance *b = train_balance_of(v->of);
    out[0] = '\0';
    if (v->comm && b->mean_busy > 0.0)
        snprintf(out, size, "  idle %.1f %%  slowest rank %d  sent %s", 100.0 * b->idle, b->slowest,
                 gt_format_bytes(sent, sizeof sent, b->sent));
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
        .tokens_per_s = v->step_tokens / (v->ms * 1e-3),
        .seconds_left = v->ms * 1e-3 * (double)(v->steps - r->step)
    };
    printf("\r\033[K%s", train_bar_line(line, sizeof line, &b, cli_columns()));
}

static void show_step(void *context, const metrics_row *r)
{
    train_view *v = context;
    char text[1024], val[32] = "", rate[32], balance[96];
    const uint64_t now = gt_now_ns();
    if (!isnan(r->val_loss)) {
        v->val = r->val_loss;
        snprintf(val, sizeof val, "  val %.4f", r->val_loss);
    }
    watch(v, r);
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
        printf("step %llu  loss %.4f%s  lr %.3g  %s  %.1f ms  %s tok/s%s\n", (unsigned long long)r->step, r->loss, val,
               r->lr, grad, r->step_ms, rate, describe_balance(v, balance, sizeof balance));
        fflush(stdout);
        return;
    }
    /* The mean of about the last twenty steps; of all while they are fewer. */
    const double weight = fmax(0.05, 1.0 / (double)(r->step - v->first_step));
    v->ms += weight * (r->step_ms - v->ms);
    if (!isnan(r->val_loss))
        printf("\r\033[Kstep %-8llu loss %.4f  val %.4f  lr %.3g\n", (unsigned long long)r->step, r->loss, r->val_loss,
               r->lr);
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
    if (v->comm)                /* the others wait meanwhile */
        net_comm_busy(v->comm, done ? NULL : what);
    if (!v->bar)
        return;
    if (!done)
        printf("\r\033[K%s ...", what);
    else if (v->last.step)
        draw_bar(v, &v->last);
    fflush(stdout);
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
    return (train_hooks){ v, show_step, show_phase };
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
