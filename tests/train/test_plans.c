/* SPDX-License-Identifier: MIT */
/* tests/train/test_plans.c - any plan trains as one device does.
 *
 *   one device, 20 steps ──► losses, parameters
 *   every schedule x stages x micro-batches x replicas of unequal shape ──► the same losses to 1e-6, the same
 *   parameters to 1e-5; with dropout, too, whose elements are counted from the first sequence of a step
 *
 * Ranks are threads, each with its own OpenCL context and its own communicator.          */
#include "host/sync/sync.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include "models/llama.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DROP 0.2f

enum { STEPS = 20, LAYERS = 4, UNITS = LAYERS + 2, BATCH = 24 };

static model_config config;
/* Which: 0 is GPT-2. */
static const char *const families[] = { "gpt2", "qwen3", "qwen2", "gemma" };
static int family;

/* The reference: what one device makes of the same steps. */
typedef struct outcome {
    double loss[STEPS];
    float *x;                           /* all parameters, in the order of the whole graph */
    size_t count;
    graph *whole;
} outcome;

/* One unit of a CPU where it can be had, so that a BLAS does not spin against the other ranks. */
static gt_status open_device(dev_device **out)
{
    const char *spec = getenv("GT_TEST_DEVICE");
    gt_status st = dev_open(out, spec ? spec : "cpu:0.0");
    if (!st || spec)
        return st;
    gt_message_clear();
    return dev_open(out, NULL);
}

static train_options options_of(float dropout)
{
    train_options o = tiny_options();
    config = family ? tiny_llama(families[family], 1) : tiny_config();
    config.layers = LAYERS;
    config.heads = 4;
    config.own[LLAMA_USES_WINDOW] = family > 0;
    config.own[LLAMA_WINDOW_FROM] = family ? 2.0 : 0.0;
    config.dropout_embed = config.dropout_attention = config.dropout_residual = dropout;
    o.steps = STEPS;
    o.batch = BATCH;
    o.micro_batch = 2;
    o.gemm = "native";
    /* A key's bias has no gradient but rounding; Adam must not make whole steps of that. */
    o.optim.eps = 1e-4;
    return o;
}

static void note_loss(void *context, const metrics_row *row)
{
    outcome *out = context;
    out->loss[row->step - 1] = row->loss;
}

static int make_reference(outcome *out, const train_options *o)
{
    dev_device *d = NULL;
    train *t = CHECK_OK(open_device(&d)) ? tiny_train(d, &config, o) : NULL;
    const train_hooks hooks = { .context = out, .step = note_loss };
    const int good = t && CHECK_OK(train_run(t, &hooks));
    if (good)
        out->x = tiny_params(t, 0, &out->count);
    train_release(t);
    dev_close(d);
    return good && CHECK_OK(graph_create(&out->whole, DTYPE_F32, 1, TINY_T))
           && CHECK_OK(model_build_part(out->whole, &config, NULL, 0, 0));
}

/* ---- one plan -------------------------------------------------------------------------------- */

typedef struct job {
    const run_plan *plan;
    const train_options *options;
    const outcome *want;
    double loss[2][STEPS];              /* of two runs */
    int turn;
    double worst;                       /* relative distance of any tensor, on any rank */
    uint64_t sent;
} job;

/* Where a parameter lies in the reference. */
static const float *reference_of(const outcome *want, const char *name, shape *full)
{
    size_t at = 0;
    for (int i = 0; i < graph_param_count(want->whole); i++) {
        const graph_param_info *p = graph_param_at(want->whole, i);
        if (!strcmp(p->name, name)) {
            *full = p->shape;
            return want->x + at;
        }
        at += (size_t)shape_count(&p->shape);
    }
    return NULL;
}

static gt_status compare_params(train *t, const job *j, double *worst)
{
    params *p = train_params(t);
    for (int i = 0; i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const size_t n = (size_t)shape_count(&info->shape);
        shape full;
        const float *want = reference_of(j->want, info->name, &full);
        RANK_CHECK(want && shape_equal(&full, &info->full));
        float *got = malloc(n * sizeof *got), *part = malloc(n * sizeof *part);
        tensor_slice_take(part, want, &full, &info->slice);
        gt_status st = params_read(p, i, got);
        double distance = 0.0, norm = 0.0;
        for (size_t k = 0; !st && k < n; k++) {
            distance += pow((double)got[k] - (double)part[k], 2);
            norm += pow((double)part[k], 2);
        }
        free(got);
        free(part);
        RANK_OK(st);
        *worst = fmax(*worst, sqrt(distance / fmax(norm, 1e-30)));
    }
    return GT_OK;
}

static void note_row(void *context, const metrics_row *row)
{
    job *j = context;
    j->loss[j->turn][row->step - 1] = row->loss;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    train_options o = *j->options;
    dev_device *d = NULL;
    train *t = NULL;
    double worst = 0.0;
    const train_hooks hooks = { .context = j, .step = note_row };
    o.comm = c;
    o.plan = j->plan;
    gt_status st = open_device(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, net_comm_rank(c) ? NULL : &hooks);
    if (!st)
        st = compare_params(t, j, &worst);
    sync_totals all = { .loss = worst };
    sync_totals each[16];
    if (!st)
        st = sync_totals_sum(net_group_world(c), &all, each);
    for (int r = 0; !st && !net_comm_rank(c) && r < net_comm_size(c); r++)
        j->worst = fmax(j->worst, each[r].loss);
    if (!st && !net_comm_rank(c))
        j->sent = train_balance_of(t)->sent;
    train_release(t);
    dev_close(d);
    return st;
}

static void check_plan(const char *what, const run_plan *plan, const train_options *o, const outcome *want,
                       const char *knobs, int turns)
{
    job j = { .plan = plan, .options = o, .want = want };
    if (!CHECK_OK(run_plan_check(plan)))
        return;
    for (j.turn = 0; j.turn < turns; j.turn++)
        if (!CHECK_OK(ranks_run(plan->ranks, knobs, body, &j))) {
            printf("    in plan %s\n", what);
            return;
        }
    double worst = 0.0;
    for (int s = 0; s < STEPS; s++)
        worst = fmax(worst, fabs(j.loss[0][s] - want->loss[s]) / want->loss[s]);
    CHECKF(worst <= 1e-6, "%s: a loss differs by %.2g of itself", what, worst);
    CHECKF(j.worst <= 1e-5, "%s: a parameter differs by %.2g of itself", what, j.worst);
    CHECKF(plan->ranks == 1 || j.sent > 0, "%s: nothing was sent", what);
    if (turns > 1)
        CHECKF(!memcmp(j.loss[0], j.loss[1], sizeof j.loss[0]), "%s: two runs differ", what);
}

/* A replica whose stages share units as evenly as can be, or unevenly. */
static int fill_replica(run_plan *p, int r, int stages, int micro_batches, int micro_batch, int *rank)
{
    if (!CHECK_OK(run_plan_replica(p, r, stages)))
        return 0;
    run_replica *q = &p->replica[r];
    const int parts = stages * p->chunks;
    q->micro_batches = micro_batches;
    q->micro_batch = micro_batch;
    for (int i = 0; i < stages * p->tensor; i++)
        q->rank[i] = (*rank)++;
    for (int v = 0; v <= parts; v++)
        q->cut[v] = v == parts ? p->units : v * p->units / parts;
    for (int v = 0; v < parts; v++)      /* for the list schedule */
        q->cost[v] = (pipe_cost){
            .forward = 1 + 0.3 * v, .backward_input = 1.2, .backward_weight = 0.8, .send = 0.1, .activation = 1
        };
    return 1;
}

/* One device, the whole batch at once: the same for all plans, made once with dropout and once without. */
static int reference(outcome *out, const train_options *o, float dropout)
{
    static outcome known[sizeof families / sizeof *families][2];
    outcome *made = &known[family][dropout > 0.0f];
    train_options whole = *o;
    whole.micro_batch = BATCH;
    if (!made->x && !make_reference(made, &whole))
        return 0;
    *out = *made;
    return 1;
}

static void one_replica(const char *schedule, int stages, int chunks, int micro_batches, float dropout,
                        const char *knobs, int turns)
{
    train_options o = options_of(dropout);
    outcome want = { 0 };
    run_plan p = { 0 };
    char what[96];
    int rank = 0;
    snprintf(what, sizeof what, "%s, %d stages x %d, %d micro-batches", schedule, stages, chunks, micro_batches);
    o.micro_batch = (uint64_t)(BATCH / micro_batches);
    if (reference(&want, &o, dropout) && CHECK_OK(run_plan_create(&p, stages, UNITS, BATCH, 1, chunks, 1))
        && fill_replica(&p, 0, stages, micro_batches, BATCH / micro_batches, &rank)) {
        snprintf(p.schedule, sizeof p.schedule, "%s", schedule);
        check_plan(what, &p, &o, &want, knobs, turns);
    }
    run_plan_release(&p);
}

/* Replicas of so many stages each, which take unlike shares in micro-batches of unlike size. */
typedef struct shape_of_replica {
    int stages, micro_batches, micro_batch;
} shape_of_replica;

static const char *plan_sync = "allreduce";
static float replicas_drop = 0.0f;

static void replicas(const char *schedule, const shape_of_replica *r, int count, int tensor, const double *share,
                     const char *knobs, int turns)
{
    train_options o = options_of(replicas_drop);
    outcome want = { 0 };
    run_plan p = { 0 };
    char what[96];
    int rank = 0, ranks = 0, good;
    for (int i = 0; i < count; i++)
        ranks += r[i].stages * tensor;
    snprintf(what, sizeof what, "%s, %d replicas, the first of %d stages, tensor %d", schedule, count, r[0].stages,
             tensor);
    good = reference(&want, &o, replicas_drop) && CHECK_OK(run_plan_create(&p, ranks, UNITS, BATCH, tensor, 1, count));
    for (int i = 0; good && i < count; i++)
        good = fill_replica(&p, i, r[i].stages, r[i].micro_batches, r[i].micro_batch, &rank);
    for (int k = 0; good && share && k < tensor; k++)
        p.share[k] = share[k];
    if (good) {
        snprintf(p.schedule, sizeof p.schedule, "%s", schedule);
        run_plan_sync(&p, plan_sync, NULL);
        check_plan(what, &p, &o, &want, knobs, turns);
    }
    run_plan_release(&p);
}

/* Llama's relatives: grouped heads, turned and normalised, windows in the upper layers, biases, tied and own heads. */
static void llama_trains_alike_under_every_plan(void)
{
    static const double unequal[] = { 0.75, 0.25 };
    family = 1;
    one_replica("1f1b", 2, 1, 4, 0.0f, "", 1);
    one_replica("interleaved", 2, 2, 4, DROP, "", 1);
    replicas("1f1b", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 8, 1 } }, 2, 1, NULL, "", 1);
    replicas("zb-h1", (shape_of_replica[]){ { 2, 6, 4 } }, 1, 2, unequal, "algorithm=ring", 2);
    family = 2;
    replicas("gpipe", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 4, 2 } }, 2, 2, unequal, "", 1);
    family = 3;
    plan_sync = "sharded";
    replicas("zb-h1", (shape_of_replica[]){ { 1, 2, 6 }, { 3, 4, 2 }, { 2, 1, 4 } }, 3, 1, NULL, "", 1);
    replicas_drop = DROP;
    replicas("1f1b", (shape_of_replica[]){ { 1, 6, 4 } }, 1, 2, NULL, "", 1);
    replicas_drop = 0.0f;
    plan_sync = "allreduce";
    family = 0;
}

static void optimizer_state_shared_out(void)
{
    static const double unequal[] = { 0.25, 0.75 };
    plan_sync = "sharded";
    replicas("1f1b", (shape_of_replica[]){ { 1, 4, 3 }, { 1, 6, 2 } }, 2, 1, NULL, "algorithm=ring", 2);
    replicas("zb-h1", (shape_of_replica[]){ { 1, 2, 6 }, { 3, 4, 2 }, { 2, 1, 4 } }, 3, 1, NULL, "", 1);
    replicas("1f1b", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 4, 2 } }, 2, 2, unequal, "", 1);
    plan_sync = "allreduce";
}

static void replicas_of_unequal_shape(void)
{
    replicas("1f1b", (shape_of_replica[]){ { 1, 4, 3 }, { 1, 6, 2 } }, 2, 1, NULL, "", 1);
    replicas("1f1b", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 8, 1 } }, 2, 1, NULL, "", 1);
    replicas("zb-h1", (shape_of_replica[]){ { 1, 2, 6 }, { 3, 4, 2 }, { 2, 1, 4 } }, 3, 1, NULL, "", 1);
    replicas("list", (shape_of_replica[]){ { 2, 3, 4 }, { 1, 3, 2 }, { 1, 6, 1 } }, 3, 1, NULL, "algorithm=ring", 2);
}

static void tensor_ranks(void)
{
    static const double unequal[] = { 0.75, 0.25 };
    replicas("1f1b", (shape_of_replica[]){ { 1, 6, 4 } }, 1, 2, NULL, "", 1);
    replicas("zb-h1", (shape_of_replica[]){ { 2, 6, 4 } }, 1, 2, unequal, "algorithm=ring", 2);
    replicas("gpipe", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 4, 2 } }, 2, 2, unequal, "", 1);
}

static void stages_of_every_schedule(void)
{
    static const char *const names[] = { "gpipe", "1f1b", "zb-h1", "list" };
    static const int micro_batches[] = { 1, 2, 3, 8 };
    for (int n = 0; n < 4; n++)
        for (int stages = 2; stages <= 4; stages++)
            one_replica(names[n], stages, 1, micro_batches[(n + stages) % 4], 0.0f, "", 1);
    one_replica("1f1b", 1, 1, 4, 0.0f, "", 1);
}

static void interleaved(void)
{
    one_replica("interleaved", 2, 2, 4, 0.0f, "", 1);
    one_replica("interleaved", 3, 2, 6, 0.0f, "", 1);
    one_replica("interleaved", 2, 3, 8, 0.0f, "", 1);
}

/* Elements are counted from the step's first sequence, so any plan drops what one device drops. */
static void dropout_is_the_same_in_every_plan(void)
{
    static const double unequal[] = { 0.25, 0.75 };
    one_replica("1f1b", 1, 1, 1, DROP, "", 1);
    one_replica("1f1b", 1, 1, 6, DROP, "", 1);
    one_replica("1f1b", 3, 1, 4, DROP, "", 1);
    one_replica("zb-h1", 2, 1, 8, DROP, "", 1);
    one_replica("interleaved", 2, 2, 4, DROP, "", 1);
    replicas_drop = DROP;
    replicas("1f1b", (shape_of_replica[]){ { 1, 4, 3 }, { 1, 6, 2 } }, 2, 1, NULL, "", 1);
    replicas("list", (shape_of_replica[]){ { 2, 3, 4 }, { 1, 3, 2 }, { 1, 6, 1 } }, 3, 1, NULL, "", 1);
    replicas("1f1b", (shape_of_replica[]){ { 1, 6, 4 } }, 1, 2, unequal, "", 1);
    replicas("zb-h1", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 4, 2 } }, 2, 2, unequal, "", 1);
    plan_sync = "sharded";
    replicas("1f1b", (shape_of_replica[]){ { 2, 4, 4 }, { 1, 8, 1 } }, 2, 1, NULL, "", 1);
    plan_sync = "allreduce";
    replicas_drop = 0.0f;
}

static void every_transport_repeats_bit_for_bit(void)
{
    one_replica("zb-h1", 3, 1, 8, 0.0f, "transport=shm", 2);
    one_replica("1f1b", 3, 1, 4, 0.0f, "transport=tcp", 2);
}

/* One combination of the sweep; 0: there is no such plan. */
static int sweep_case(int schedule, int stages, int micro_batches, int tensor, int count)
{
    static const char *const names[] = { "gpipe", "1f1b", "zb-h1", "list", "interleaved" };
    const int per = BATCH / count, chunks = schedule == 4 ? 2 : 1;
    train_options o = options_of(0.0f);
    outcome want = { 0 };
    run_plan p = { 0 };
    char what[128];
    int rank = 0, ranks = 0;
    for (int r = 0; r < count; r++)
        ranks += (stages > r + 1 ? stages - r : 1) * tensor;
    if (per % micro_batches || ranks > 12 || stages * chunks > UNITS
        || (chunks > 1 && (stages < 2 || count > 1 || micro_batches % stages)))
        return 0;
    snprintf(what, sizeof what, "%s, %d stages x %d, %d micro-batches, tensor %d, %d replicas", names[schedule], stages,
             chunks, micro_batches, tensor, count);
    int good = reference(&want, &o, 0.0f) && CHECK_OK(run_plan_create(&p, ranks, UNITS, BATCH, tensor, chunks, count));
    for (int r = 0; good && r < count; r++) {       /* each one stage shorter, and finer */
        const int m = r % 2 && per % (2 * micro_batches) == 0 ? 2 * micro_batches : micro_batches;
        good = fill_replica(&p, r, stages > r + 1 ? stages - r : 1, m, per / m, &rank);
    }
    if (good) {
        snprintf(p.schedule, sizeof p.schedule, "%s", names[schedule]);
        check_plan(what, &p, &o, &want, "", 1);
    }
    run_plan_release(&p);
    return good;
}

/* Every schedule x stages x micro-batches x tensor x replicas: a sample, spread evenly, or with
 * GT_TEST_PLANS=all every one (half an hour). */
static void a_sweep_of_all_plans(void)
{
    static const int micro_batches[] = { 1, 2, 3, 4, 6, 8 };
    const char *wish = getenv("GT_TEST_PLANS");
    const int every = wish && !strcmp(wish, "all") ? 1 : 23;
    int seen = 0, run = 0;
    for (int schedule = 0; schedule < 5; schedule++)
        for (int stages = 1; stages <= 4; stages++)
            for (int m = 0; m < 6; m++)
                for (int tensor = 1; tensor <= 2; tensor++)
                    for (int count = 1; count <= 3; count++)
                        if (seen++ % every == 0)
                            run += sweep_case(schedule, stages, micro_batches[m], tensor, count);
    printf("    %d plans\n", run);
    CHECK(run >= 10);
}

/* The first stage finds a token that the model lacks while the second waits for it: all end, and say
 * why, though receives are posted. */
static void a_failure_of_one_stage_ends_all(void)
{
    train_options o = options_of(0.0f);
    outcome none = { 0 };
    run_plan p = { 0 };
    int rank = 0;
    if (reference(&none, &o, 0.0f) && CHECK_OK(run_plan_create(&p, 2, UNITS, BATCH, 1, 1, 1))
        && fill_replica(&p, 0, 2, 4, BATCH / 4, &rank)) {
        job j = { .plan = &p, .options = &o, .want = &none };
        o.micro_batch = BATCH / 4;
        config.vocab = 4;
        CHECK_FAILS(ranks_run(2, "", body, &j), GT_MISMATCH, "training data holds token");
    }
    run_plan_release(&p);
}

const check_case check_cases[] = {
    CASE(llama_trains_alike_under_every_plan),
    CASE(stages_of_every_schedule),
    CASE(interleaved),
    CASE(dropout_is_the_same_in_every_plan),
    CASE(replicas_of_unequal_shape),
    CASE(tensor_ranks),
    CASE(optimizer_state_shared_out),
    CASE(a_sweep_of_all_plans),
    CASE(a_failure_of_one_stage_ends_all),
    CASE(every_transport_repeats_bit_for_bit),
    { 0 }
};
