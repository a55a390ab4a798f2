/* SPDX-License-Identifier: MIT */
/* host/train/train_apart.c - the record of steps that replicas take apart from each other.
 *
 *   replica 0   step 31 | step 32 | ... | step 60 ─┐
 *   replica 1   step 31 |  step 32  | ... | step 60┴─ meeting: rows 31 ... 60, whether to stop
 *
 * Between meetings a rank keeps what it knows of each step. Where ranks meet, everybody gets what everybody
 * kept, and the rows come out as if they had been written step by step: the loss is the mean over the
 * targets of all replicas, each under the weights that its replica had then; the norm is the mean of the
 * replicas' norms, weighted alike. Each row has the mean time of a step since ranks met before, and its mean work: one
 * rank's own time says nothing of others that it did not wait for, which is what --replan goes by. */
#include "host/base/stop.h"
#include "host/train/train_private.h"
#include "net/collective/collective.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of one step, and the same length everywhere. */
typedef struct told {
    double loss, norm;                  /* of the leading rank of a replica: weighted by its targets; else 0 */
    double skipped;                     /* > 0: its update moved nothing, though targets counted         */
    double busy, waits, sent, copied, stop;     /* of this rank, as in sync_totals                       */
    double most[2], error[2], size[2];  /* as in sync_totals                                             */
} told;

struct held {
    metrics_row row;                    /* as this rank knows it                                         */
    double weights, tokens;             /* of all replicas' targets                                      */
    uint64_t rows;                      /* sequences of its batch                                        */
    told mine;
};

gt_status train_hold(train *t, const flight *f, const metrics_row *row)
{
    if (t->held_count == t->held_room) {
        const int room = t->held_room ? 2 * t->held_room : 64;
        struct held *more = realloc(t->held, (size_t)room * sizeof *more);
        if (!more)
            return gt_fail(GT_NO_MEMORY, "no memory for the record of %d steps between meetings", room);
        t->held = more;
        t->held_room = room;
    }
    const int leads = sync_holders_leads(t->holders);
    struct held *h = &t->held[t->held_count++];
    *h = (struct held){
        .row = *row,
        .weights = f->all.weights,
        .tokens = f->all.tokens,
        .rows = f->rows,
        .mine = { .skipped = row->skipped && f->weights > 0.0,
                  .busy = f->mine.busy,
                  .waits = f->mine.waits,
                  .sent = f->mine.sent,
                  .copied = f->mine.copied,
                  .stop = train_wants_stop(t) }
    };
    for (int i = 0; i < 2; i++) {
        h->mine.most[i] = f->mine.most[i];
        h->mine.error[i] = f->mine.error[i];
        h->mine.size[i] = f->mine.size[i];
    }
    if (leads && f->weights > 0.0) {
        h->mine.loss = (double)f->state[OPTIM_LOSS_SUM];
        h->mine.norm = row->grad_norm * f->weights;
    }
    return GT_OK;
}

/* Makes the row of all ranks from what each told of the step: all[rank * count + i]. */
static void add_up(train *t, struct held *h, const told *all, int count, int i)
{
    double loss = 0.0, norm = 0.0, sent = 0.0, copied = 0.0, busy = 0.0;
    int skipped = 0;
    sync_totals rounded = { 0 };
    t->balance = (train_balance){ 0 };
    for (int r = 0; r < t->ranks; r++) {        /* in the order of ranks: the same bits everywhere */
        const told *a = &all[r * count + i];
        loss += a->loss;
        norm += a->norm;
        busy += a->busy;
        sent += a->sent;
        copied += a->copied;
        skipped |= a->skipped > 0.0;
        for (int k = 0; k < 2; k++) {
            rounded.most[k] = fmax(rounded.most[k], a->most[k]);
            rounded.error[k] += a->error[k];
            rounded.size[k] += a->size[k];
        }
        train_note_stop(t, a->stop);
        t->busy[r] = a->busy - a->waits;
        if (t->busy[r] > t->balance.slowest_busy) {
            t->balance.slowest_busy = t->busy[r];
            t->balance.slowest = r;
        }
    }
    const double seconds = h->row.step_ms * 1e-3;
    t->balance.sent = (uint64_t)sent;
    t->balance.copied = (uint64_t)copied;
    h->row.copied = copied;
    t->balance.mean_busy = busy / t->ranks;
    t->balance.idle = seconds > 0.0 ? fmax(0.0, 1.0 - t->balance.mean_busy / seconds) : 0.0;
    h->row.bubble = t->balance.idle;
    train_note_rounding(&t->balance, &rounded);
    train_row_rounding(&h->row, &t->balance);
    h->row.loss = loss / h->weights;
    h->row.grad_norm = h->weights > 0.0 ? norm / h->weights : 0.0;
    h->row.skipped = h->weights <= 0.0 ? "no target counts" : skipped ? "fp16 overflow" : NULL;
}

/* Gives each step the mean of the round. */
static void even_out(train *t, told *all, int count)
{
    double seconds = 0.0;
    for (int i = 0; i < count; i++)
        seconds += t->held[i].row.step_ms * 1e-3 / count;
    for (int i = 0; i < count; i++)
        train_rate(t, &t->held[i].row, t->held[i].tokens, (double)(t->held[i].rows * t->o.seq), seconds);
    for (int r = 0; r < t->ranks; r++) {
        double busy = 0.0, waits = 0.0;
        for (int i = 0; i < count; i++) {
            busy += all[r * count + i].busy / count;
            waits += all[r * count + i].waits / count;
        }
        for (int i = 0; i < count; i++) {
            all[r * count + i].busy = busy;
            all[r * count + i].waits = waits;
        }
    }
}

gt_status train_tell_held(train *t, const train_hooks *hooks)
{
    const int count = t->held_count;
    told *all = malloc(((size_t)t->ranks * (size_t)count + 1) * sizeof *all);
    if (!all)
        return gt_fail(GT_NO_MEMORY, "no memory for what %d ranks did in %d steps", t->ranks, count);
    for (int i = 0; i < count; i++)
        all[t->rank * count + i] = t->held[i].mine;
    gt_status st = net_all_gather(net_group_world(t->o.comm), all,
                                  (uint64_t)t->ranks * (uint64_t)count * sizeof *all / 4, NULL, NET_I32, NULL);
    if (!st)
        even_out(t, all, count);
    for (int i = 0; !st && i < count; i++) {
        add_up(t, &t->held[i], all, count, i);
        st = train_put_row(t, hooks, &t->held[i].row);
    }
    free(all);
    t->held_count = 0;
    return st;
}
