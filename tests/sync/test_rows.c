/* SPDX-License-Identifier: MIT */
/* tests/sync/test_rows.c - gradients of tables that travel as the rows a step touches, beside whole tables.
 *
 *   whole tables     ═══ 6 steps ══► weights
 *   rows of a step   ═══ 6 steps ══► the same bits where two ranks hold a table, else the same up to rounding
 *   bytes            told = crossed, and fewer than whole tables by the rows that no sequence of the step names  */
#include "host/sync/sync.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 4, STEPS = 6, UNITS = 4, VOCAB = 200, CONTEXT = 64 };

static model_config config;

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST_RANKS];
    size_t count[MOST_RANKS];
    double sent;                        /* of all ranks, in the newest step                 */
    uint64_t crossed[MOST_RANKS];
    int named;                          /* tokens of the newest step, each once             */
    gt_text said[MOST_RANKS];
} job;

/* Tokens that the newest step has. */
static gt_status count_named(const train *t, int *named)
{
    int32_t ids[TINY_B * TINY_T];
    unsigned char seen[VOCAB] = { 0 };
    void *wanted[DATA_FIELDS] = { 0 };
    RANK_CHECK(!strcmp(t->batch.field[0].name, "tokens"));
    wanted[0] = ids;
    RANK_OK(t->batch.fill(&t->batch, t->running_at, 0, TINY_B, wanted));
    *named = 0;
    for (int i = 0; i < TINY_B * TINY_T; i++)
        *named += !seen[ids[i]]++;
    return GT_OK;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    train_options o = j->o;
    dev_device *d = NULL;
    train *t = NULL;
    uint64_t received, before = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    /* How much it takes to measure links depends on what else the machine does meanwhile. */
    net_comm_traffic(c, &before, &received);
    if (!st)
        st = train_run(t, NULL);
    net_comm_traffic(c, &j->crossed[rank], &received);
    j->crossed[rank] -= before;
    if (!st) {
        j->x[rank] = tiny_params(t, 0, &j->count[rank]);
        train_explain_sync(t, &j->said[rank]);
    }
    if (!st && !rank) {
        j->sent = (double)train_balance_of(t)->sent;
        st = count_named(t, &j->named);
    }
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < MOST_RANKS; r++) {
        free(j->x[r]);
        gt_text_release(&j->said[r]);
    }
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

typedef struct wish {
    const char *mode, *servers;         /* servers NULL: not said                           */
    tiny_replica replica[3];
    int count, tensor;
    dtype precision;
    uint64_t steps;                     /* 0: STEPS                                         */
} wish;

static int run(job *j, const wish *w, int whole)
{
    const sync_mode *m = sync_mode_find(w->mode);
    sync_settings s;
    int ranks = 0;
    sync_settings_usual(m, &s);
    if (w->servers && !CHECK_OK(sync_settings_set(m, &s, "servers", w->servers)))
        return 0;
    if (!tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", w->mode, w->replica, w->count, w->tensor))
        return 0;
    run_plan_sync(&j->plan, w->mode, &s);
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.steps = w->steps ? w->steps : STEPS;
    j->o.precision = w->precision;
    j->o.whole_tables = whole;
    j->o.optim.eps = 1e-4;
    for (int i = 0; i < w->count; i++)
        ranks += w->replica[i].stages * w->tensor;
    return CHECK_OK(ranks_run(ranks, "algorithm=direct", body, j));
}

/* The largest difference on any rank, relative to the norm of its weights. */
static double distance(const job *a, const job *b)
{
    double most = 0.0;
    for (int r = 0; r < MOST_RANKS; r++) {
        double sum = 0.0, norm = 0.0;
        for (size_t i = 0; a->x[r] && i < a->count[r]; i++) {
            sum += pow((double)a->x[r][i] - (double)b->x[r][i], 2);
            norm += pow((double)b->x[r][i], 2);
        }
        most = fmax(most, norm > 0.0 ? sqrt(sum / norm) : 0.0);
    }
    return most;
}

static int same_bits(const job *a, const job *b)
{
    int same = 1;
    for (int r = 0; r < MOST_RANKS; r++)
        same &= !a->x[r] || !memcmp(a->x[r], b->x[r], a->count[r] * sizeof(float));
    return same;
}

/* A Llama of a table of its own, of whose 200 rows the text names 29 at most. */
static void rows_add_up_to_the_table(void)
{
    const struct {
        const char *what;
        wish w;
        int exact;
    } cases[] = {
        { "two replicas", { "allreduce", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "two, sharded", { "sharded", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "two, servers 1:3 apart", { "ps", "0:1,1:3", { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "two, one server", { "ps", "1", { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "two in bf16", { "sharded", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_BF16, 0 }, 1 },
        { "stages of two replicas", { "allreduce", NULL, { { 2, 2, 2 }, { 2, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "tensor ranks of two", { "allreduce", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 2, DTYPE_F32, 0 }, 1 },
        { "unequal stages", { "allreduce", NULL, { { 2, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 }, 1 },
        { "three replicas", { "allreduce", NULL, { { 1, 3, 1 }, { 1, 2, 1 }, { 1, 1, 1 } }, 3, 1, DTYPE_F32, 0 }, 0 },
        { "three, sharded", { "sharded", NULL, { { 1, 3, 1 }, { 1, 2, 1 }, { 1, 1, 1 } }, 3, 1, DTYPE_F32, 0 }, 0 },
    };
    config = tiny_llama("llama", 1);
    config.vocab = VOCAB;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job rows = { 0 }, whole = { 0 };
        if (run(&rows, &cases[i].w, 0) && run(&whole, &cases[i].w, 1)) {
            const double off = distance(&rows, &whole);
            CHECKF(!cases[i].exact || same_bits(&rows, &whole), "%s: off by %.2g", cases[i].what, off);
            CHECKF(off <= 1e-6, "%s: off by %.2g", cases[i].what, off);
            CHECKF(rows.sent < whole.sent, "%s: %.0f bytes, and %.0f of whole tables", cases[i].what, rows.sent,
                   whole.sent);
            CHECKF(rows.said[0].size && !whole.said[0].size, "%s: what is said of tables", cases[i].what);
        }
        release(&rows);
        release(&whole);
    }
}

/* Of two replicas each value crosses once in each direction: what rows save is known. */
static void what_is_saved_is_the_rest(void)
{
    const wish w = { "allreduce", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 };
    job rows = { 0 }, whole = { 0 };
    config = tiny_llama("llama", 1);
    config.vocab = VOCAB;
    if (run(&rows, &w, 0) && run(&whole, &w, 1)) {
        const double saved = 2.0 * 4.0 * (VOCAB - rows.named) * config.channels;
        CHECKF(rows.named > 0 && rows.named == whole.named && whole.sent - rows.sent == saved,
               "%d rows: %.0f bytes saved, not %.0f", rows.named, whole.sent - rows.sent, saved);
    }
    release(&rows);
    release(&whole);
}

/* Half of 56 rows is 28, and a step names 28 or 29, so some steps send rows; of 40 all are more than half. */
static void each_step_sends_what_is_less(void)
{
    const wish w = { "sharded", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 40 };
    static const int vocab[] = { 56, 40 };
    config = tiny_llama("llama", 1);
    for (size_t i = 0; i < sizeof vocab / sizeof *vocab; i++) {
        job rows = { 0 }, whole = { 0 };
        config.vocab = vocab[i];
        if (run(&rows, &w, 0) && run(&whole, &w, 1)) {
            CHECKF(same_bits(&rows, &whole), "%d rows: off by %.2g", vocab[i], distance(&rows, &whole));
            const double saved = (double)(whole.crossed[0] + whole.crossed[1])
                                 - (double)(rows.crossed[0] + rows.crossed[1]);
            CHECKF(i ? fabs(saved) < 1000.0 : saved > 1000.0, "%d rows: %.0f bytes saved", vocab[i], saved);
        }
        release(&rows);
        release(&whole);
    }
}

static void told_is_what_crosses(void)
{
    static const char *const modes[] = { "allreduce", "sharded" };
    config = tiny_llama("llama", 1);
    config.vocab = VOCAB;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        wish w = { modes[i], NULL, { { 1, 3, 1 }, { 1, 2, 1 }, { 1, 1, 1 } }, 3, 1, DTYPE_F32, 2 };
        job few = { 0 }, more = { 0 };
        double crossed = 0.0;
        int good = run(&few, &w, 0);
        w.steps = 6;
        if (good && run(&more, &w, 0)) {
            for (int r = 0; r < 3; r++)
                crossed += ((double)more.crossed[r] - (double)few.crossed[r]) / 4.0;
            CHECKF(fabs(more.sent / crossed - 1.0) < 0.05, "%s: %.0f bytes told, %.0f crossed", modes[i], more.sent,
                   crossed);
        }
        release(&few);
        release(&more);
    }
}

/* GPT-2's head is its table of tokens, and its table of positions is longer than the sequences. */
static void a_tied_table_goes_whole(void)
{
    const struct {
        wish w;
        const char *says, *last;        /* rank 0; the last rank, NULL: not looked at */
    } cases[] = {
        { { "allreduce", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 },
          "'wte.weight' go between ranks whole: a head tied to it",
          NULL },
        { { "sharded", NULL, { { 1, 2, 2 }, { 1, 1, 2 } }, 2, 1, DTYPE_F32, 0 },
          "'wte.weight' go between ranks whole: a head tied to it",
          NULL },
        { { "allreduce", NULL, { { 2, 2, 2 }, { 2, 1, 2 } }, 2, 1, DTYPE_F32, 0 },
          "'wte.weight' go between ranks whole: another of the ranks that hold it",
          "" },
    };
    config = tiny_config();
    config.vocab = VOCAB;
    config.context = CONTEXT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job rows = { 0 }, whole = { 0 };
        if (run(&rows, &cases[i].w, 0) && run(&whole, &cases[i].w, 1)) {
            const double saved = 2.0 * 4.0 * (CONTEXT - TINY_T) * config.channels;
            const char *said = rows.said[0].data;
            CHECKF(same_bits(&rows, &whole), "case %zu: off by %.2g", i, distance(&rows, &whole));
            CHECKF(said && strstr(said, cases[i].says)
                       && strstr(said, "'wpe.weight' go between ranks as the 24 of its 64 rows"),
                   "case %zu: %s", i, said ? said : "nothing is said");
            CHECKF(whole.sent - rows.sent == (i == 1 ? saved / 2.0 : saved), "case %zu: %.0f bytes saved, not %.0f", i,
                   whole.sent - rows.sent, saved);
        }
        release(&rows);
        release(&whole);
    }
}

const check_case check_cases[] = { CASE(rows_add_up_to_the_table),     CASE(what_is_saved_is_the_rest),
                                   CASE(each_step_sends_what_is_less), CASE(told_is_what_crosses),
                                   CASE(a_tied_table_goes_whole),      { 0 } };
