/* SPDX-License-Identifier: MIT */
/* tests/sync/test_async.c - replicas that do not wait for each other, beside a slow reference.
 *
 *   the run         ranks as threads, gradients on devices, servers, an order of updates drawn from a seed
 *   the reference   one device gives the gradient of one sequence at a time; everything else, which is the published
 *                   formulas, is done here in double precision, in the same order
 */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/kernel/reference.h"
#include "host/sync/sync.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 4, STEPS = 6, UNITS = 4, REPLICAS = 2 };
static const int rows[REPLICAS] = { 4, 2 };     /* of a step's TINY_B */

static model_config config;

typedef struct wish {
    const char *mode;                   /* NULL: async */
    const char *set[16];                /* "staleness", "2", ... */
    const tiny_replica *replicas;       /* NULL: two, of 4 and 2 sequences */
    int count, tensor;
    const char *optimizer, *folder, *knobs;
    double clip, momentum;
    uint64_t steps, save_every;
    dtype precision;
} wish;

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST_RANKS];
    size_t count;
    double loss[STEPS];
    int rows;
} job;

static const tiny_replica two[] = { { 1, 4, 1 }, { 1, 2, 1 } };
static const tiny_replica three[] = { { 1, 3, 1 }, { 1, 1, 2 }, { 1, 1, 1 } };
static const tiny_replica pipes[] = { { 2, 4, 1 }, { 2, 2, 1 } };
static const tiny_replica staged[] = { { 2, 4, 1 }, { 1, 1, 2 } };

static void note_row(void *context, const metrics_row *row)
{
    job *j = context;
    j->rows++;
    if (row->step <= STEPS)
        j->loss[row->step - 1] = row->loss;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    const train_hooks hooks = { .context = j, .step = note_row };
    train_options o = j->o;
    dev_device *d = NULL;
    train *t = NULL;
    size_t count = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    if (!st) {
        j->x[rank] = tiny_params(t, 0, &count);
        if (!rank)
            j->count = count;
    }
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < MOST_RANKS; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

static train_options options_of(const wish *w)
{
    train_options o = tiny_options();
    o.gemm = "native";
    o.steps = w->steps ? w->steps : STEPS;
    o.precision = w->precision;
    o.run = w->folder;
    o.resume = w->folder && gt_path_exists(w->folder);
    o.save_every = w->save_every;
    if (w->optimizer)
        optim_config_rule(&o.optim, optim_rule_find(w->optimizer));
    o.optim.clip = w->clip;
    o.optim.momentum = w->momentum;
    o.optim.lr = w->optimizer && !strcmp(w->optimizer, "sgd") ? 0.2 : 1e-3;
    if (o.optim.rule == optim_rule_find("adamw"))
        o.optim.eps = 1e-4;             /* a key's bias has no gradient but rounding */
    return o;
}

static int prepare(job *j, const wish *w)
{
    const sync_mode *m = sync_mode_find(w->mode ? w->mode : "async");
    sync_settings s;
    sync_settings_usual(m, &s);
    for (int i = 0; w->set[i]; i += 2)
        if (!CHECK_OK(sync_settings_set(m, &s, w->set[i], w->set[i + 1])))
            return 0;
    if (!tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", sync_mode_name(m), w->replicas ? w->replicas : two,
                   w->replicas ? w->count : 2, w->tensor ? w->tensor : 1))
        return 0;
    run_plan_sync(&j->plan, sync_mode_name(m), &s);
    config = tiny_config();
    j->o = options_of(w);
    return CHECK_OK(run_plan_check(&j->plan));
}

static int run(job *j, const wish *w)
{
    int ranks = 0;
    const tiny_replica *r = w->replicas ? w->replicas : two;
    for (int i = 0; i < (w->replicas ? w->count : 2); i++)
        ranks += r[i].stages * (w->tensor ? w->tensor : 1);
    return prepare(j, w) && CHECK_OK(ranks_run(ranks, w->knobs ? w->knobs : "algorithm=direct", body, j));
}

static int same(const job *a, const job *b)
{
    return a->count == b->count && !memcmp(a->x[0], b->x[0], a->count * sizeof(float));
}

/* ---- the reference --------------------------------------------------------------------------- */

/* What is published, with numbers of this test. */
typedef struct rule {
    int staleness, push_every, pull_every, adaptive, by_staleness, by_batch;
    uint64_t barrier, seed;
    double lambda;
} rule;

typedef struct reference {
    train *t;                           /* one sequence at a time */
    size_t count;
    double *w, *m, *v, *mean_square;
    double *pulled[REPLICAS], *sum[REPLICAS], *after[REPLICAS];
    uint64_t version, since[REPLICAS];
    const train_options *o;
    const rule *rule;
} reference;

static gt_status put(reference *f, const double *w)
{
    params *p = train_params(f->t);
    gt_status st = GT_OK;
    size_t at = 0;
    for (int i = 0; !st && i < params_count(p); i++) {
        const size_t n = (size_t)shape_count(&params_info(p, i)->shape);
        float *x = malloc((n + 1) * sizeof *x);
        for (size_t k = 0; x && k < n; k++)
            x[k] = (float)w[at + k];
        st = x ? params_write(p, i, x) : GT_NO_MEMORY;
        free(x);
        at += n;
    }
    return st;
}

/* Adds the clipped mean gradient of a replica's sequences of a step, at what it pulled. */
static int add_gradient(reference *f, int r, uint64_t step)
{
    double loss, norm, squares = 0.0;
    double *g = calloc(f->count + 1, sizeof *g);
    size_t count;
    int good = CHECKF(g != NULL, "no memory") && CHECK_OK(put(f, f->pulled[r]));
    for (int i = 0; good && i < rows[r]; i++) {
        const uint64_t sequence = step * TINY_B + (uint64_t)(r ? rows[0] : 0) + (uint64_t)i;
        good = CHECK_OK(train_once(f->t, sequence, 0, &loss, &norm));
        float *one = good ? tiny_params(f->t, 1, &count) : NULL;
        for (size_t k = 0; one && k < f->count; k++)
            g[k] += (double)one[k] / rows[r];
        free(one);
    }
    for (size_t k = 0; good && k < f->count; k++)
        squares += g[k] * g[k];
    const double clip = f->o->optim.clip > 0.0 ? fmin(1.0, f->o->optim.clip / (sqrt(squares) + 1e-6)) : 1.0;
    for (size_t k = 0; good && k < f->count; k++)
        f->sum[r][k] += clip * g[k];
    free(g);
    return good;
}

static void update(reference *f, int r, double held, double lr)
{
    const rule *u = f->rule;
    const optim_config *c = &f->o->optim;
    const params *p = train_params(f->t);
    const uint64_t behind = f->version - f->since[r];
    double *g = f->sum[r];
    size_t at = 0;
    for (size_t k = 0; k < f->count; k++) {
        double lambda = u->lambda;
        g[k] /= held;
        f->mean_square[k] = 0.95 * f->mean_square[k] + 0.05 * g[k] * g[k];
        if (u->adaptive)
            lambda /= sqrt(f->mean_square[k] + 1e-7);
        g[k] += lambda * g[k] * g[k] * (f->w[k] - f->pulled[r][k]);
    }
    if (u->by_staleness && behind > 1)
        lr /= (double)behind;
    if (u->by_batch)
        lr *= held * rows[r] / TINY_B;
    f->version++;
    for (int i = 0; i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const int64_t n = shape_count(&info->shape);
        const double decay = info->decay ? c->weight_decay : 0.0;
        if (c->rule == optim_rule_find("adamw"))
            reference_adamw(n, f->w + at, g + at, f->m + at, f->v + at, (int64_t)f->version, 1.0, lr, c->beta1,
                            c->beta2, c->eps, decay);
        else
            reference_sgd(n, f->w + at, g + at, c->momentum > 0.0 ? f->m + at : NULL, 1.0, lr, c->momentum, decay);
        at += (size_t)n;
    }
    f->since[r]++;
    memset(g, 0, f->count * sizeof *g);
}

static int is_meeting(const rule *u, uint64_t step)
{
    return step == STEPS || (u->barrier && step % u->barrier == 0);
}

static int is_push(const rule *u, uint64_t step)
{
    return is_meeting(u, step) || step % (uint64_t)u->push_every == 0;
}

/* The order as documented: of those who are not too far ahead, and not at the meeting yet, one with the next
 * number of (seed, step of the last meeting). */
static int next_of(const rule *u, gt_random *r, const uint64_t *pushed, uint64_t all)
{
    const uint64_t slowest = pushed[0] < pushed[1] ? pushed[0] : pushed[1];
    int may[REPLICAS], n = 0;
    for (int i = 0; i < REPLICAS; i++)
        if (pushed[i] < all && pushed[i] - slowest < (uint64_t)u->staleness)
            may[n++] = i;
    return may[gt_random_below(r, (uint64_t)n)];
}

/* Steps of replica r up to and with its next push; what it pulls between is its last push's. */
static int go_on(reference *f, int r, uint64_t *step)
{
    const rule *u = f->rule;
    double held = 0.0;
    for (;;) {
        if (!add_gradient(f, r, *step))
            return 0;
        held += 1.0;
        ++*step;
        if (is_push(u, *step))
            break;
        if (*step % (uint64_t)u->pull_every == 0)
            memcpy(f->pulled[r], f->after[r], f->count * sizeof(double));
    }
    update(f, r, held, f->o->optim.lr);
    memcpy(f->after[r], f->w, f->count * sizeof(double));
    if (*step % (uint64_t)u->pull_every == 0 && !is_meeting(u, *step)) {
        memcpy(f->pulled[r], f->w, f->count * sizeof(double));
        f->since[r] = f->version;
    }
    return 1;
}

static int simulate(reference *f)
{
    const rule *u = f->rule;
    uint64_t from = 0, step[REPLICAS] = { 0 };
    while (from < STEPS) {
        uint64_t to = from, pushes = 0, pushed[REPLICAS] = { 0 };
        gt_random random;
        do
            pushes += (uint64_t)is_push(u, ++to);
        while (!is_meeting(u, to));
        gt_random_init(&random, u->seed, from);
        for (uint64_t k = 0; k < REPLICAS * pushes; k++) {
            const int r = next_of(u, &random, pushed, pushes);
            pushed[r]++;
            if (!go_on(f, r, &step[r]))
                return 0;
        }
        for (int r = 0; r < REPLICAS; r++) {
            memcpy(f->pulled[r], f->w, f->count * sizeof(double));
            memcpy(f->after[r], f->w, f->count * sizeof(double));
            f->since[r] = f->version;
        }
        from = to;
    }
    return 1;
}

/* The weights after STEPS; free() them. */
static double *refer(const wish *w, const rule *u, size_t *count)
{
    train_options o = options_of(w);
    reference f = { .rule = u };
    dev_device *d = NULL;
    double *out = NULL;
    o.batch = 1;
    o.run = NULL;
    o.save_every = 0;
    f.o = &o;
    config = tiny_config();
    if (CHECK_OK(tiny_open(&d)) && CHECK_OK(tiny_create(&f.t, d, &config, &o))) {
        float *x = tiny_params(f.t, 0, &f.count);
        double **all[] = { &f.w,         &f.m,      &f.v,      &f.mean_square, &f.pulled[0],
                           &f.pulled[1], &f.sum[0], &f.sum[1], &f.after[0],    &f.after[1] };
        int good = CHECKF(x != NULL, "no weights");
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            *all[i] = calloc(f.count + 1, sizeof(double));
            good = good && CHECKF(*all[i] != NULL, "no memory");
        }
        for (size_t k = 0; good && k < f.count; k++)
            f.w[k] = f.pulled[0][k] = f.pulled[1][k] = f.after[0][k] = f.after[1][k] = (double)x[k];
        if (good && simulate(&f))
            out = f.w;
        for (size_t i = 1; i < sizeof all / sizeof *all; i++)
            free(*all[i]);
        if (!out)
            free(f.w);
        free(x);
        *count = f.count;
    }
    train_release(f.t);
    dev_close(d);
    return out;
}

/* How far the run is from the reference, beside how far it came from where it began (w0). */
static double off_by(const job *j, const double *want, const float *w0)
{
    double sum = 0.0, norm = 0.0;
    for (size_t k = 0; k < j->count; k++) {
        sum += pow((double)j->x[0][k] - want[k], 2);
        norm += pow(want[k] - (double)w0[k], 2);
    }
    return sqrt(sum / norm);
}

static float *first_weights(const wish *w)
{
    train_options o = options_of(w);
    dev_device *d = NULL;
    train *t = NULL;
    float *x = NULL;
    size_t count;
    o.run = NULL;
    config = tiny_config();
    if (CHECK_OK(tiny_open(&d)) && CHECK_OK(tiny_create(&t, d, &config, &o)))
        x = tiny_params(t, 0, &count);
    train_release(t);
    dev_close(d);
    return x;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void every_rule_follows_its_formula(void)
{
    static const struct {
        const char *name;
        wish w;
        rule r;
        double bound;
    } cases[] = {
        { "stale updates",
          { .set = { "staleness", "2", "simulate-delay", "5", "barrier-every", "0" }, .optimizer = "sgd" },
          { 2, 1, 1, 0, 0, 0, 0, 5, 0.0 },
          1e-4 },
        { "delay compensation",
          { .set = { "staleness", "3", "simulate-delay", "6", "barrier-every", "4", "delay-compensation", "30" },
            .optimizer = "sgd",
            .momentum = 0.9 },
          { 3, 1, 1, 0, 0, 0, 4, 6, 30.0 },
          1e-4 },
        { "adaptive compensation, clipped",
          { .set = { "staleness", "3", "simulate-delay", "7", "barrier-every", "0", "delay-compensation",
                     "2,adaptive" },
            .optimizer = "sgd",
            .clip = 0.5 },
          { 3, 1, 1, 1, 0, 0, 0, 7, 2.0 },
          1e-4 },
        { "rates by staleness",
          { .set = { "staleness", "4", "simulate-delay", "8", "barrier-every", "0", "lr-scale", "staleness" },
            .optimizer = "sgd" },
          { 4, 1, 1, 0, 1, 0, 0, 8, 0.0 },
          1e-4 },
        { "rates by batch, every second step",
          { .set = { "staleness", "1", "simulate-delay", "9", "barrier-every", "4", "lr-scale", "batch", "push-every",
                     "2", "pull-every", "2" },
            .optimizer = "sgd",
            .momentum = 0.5 },
          { 1, 2, 2, 0, 0, 1, 4, 9, 0.0 },
          1e-4 },
        { "AdamW",
          { .set = { "staleness", "2", "simulate-delay", "3", "barrier-every", "3", "delay-compensation", "10000" },
            .clip = 1.0 },
          { 2, 1, 1, 0, 0, 0, 3, 3, 10000.0 },
          1e-3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = { 0 };
        size_t count = 0;
        double *want = refer(&cases[i].w, &cases[i].r, &count);
        float *w0 = first_weights(&cases[i].w);
        if (want && w0 && run(&j, &cases[i].w) && CHECKF(count == j.count, "other weights")) {
            const double off = off_by(&j, want, w0);
            CHECKF(off <= cases[i].bound, "%s: off by %.3g of the way", cases[i].name, off);
            rule plain = cases[i].r;    /* what the case is about must show */
            plain.lambda = 0.0;
            plain.by_staleness = plain.by_batch = 0;
            plain.seed += i == 0;
            double *without = refer(&cases[i].w, &plain, &count);
            const double shows = without ? off_by(&j, without, w0) : 0.0;
            CHECKF(shows > 4.0 * cases[i].bound, "%s: %.3g without it", cases[i].name, shows);
            free(without);
        }
        free(want);
        free(w0);
        release(&j);
    }
}

/* Without staleness it is ps, to the bit, and so without a bound on compensation, which has nothing to do. */
static void staleness_0_is_synchronous_to_the_bit(void)
{
    const wish sets[][2] = {
        { { .mode = "ps", .clip = 1.0 },
          { .set = { "staleness", "0", "delay-compensation", "50,adaptive", "simulate-delay", "4" }, .clip = 1.0 } },
        { { .mode = "ps", .set = { "servers", "1" }, .replicas = three, .count = 3 },
          { .set = { "staleness", "0", "servers", "1" }, .replicas = three, .count = 3 } }
    };
    for (size_t i = 0; i < 2; i++) {
        job a = { 0 }, b = { 0 };
        if (run(&a, &sets[i][0]) && run(&b, &sets[i][1])) {
            CHECK(same(&a, &b));
            CHECK(!memcmp(a.loss, b.loss, sizeof a.loss));
        }
        release(&a);
        release(&b);
    }
}

/* The order is drawn, so time is not in it: another transport, and lambda 0 with or without copies of what was
 * pulled, give the same bits; another seed others. */
static void a_seed_repeats_to_the_bit(void)
{
    const wish w = { .set = { "staleness", "3", "simulate-delay", "11", "barrier-every", "0" },
                     .replicas = three,
                     .count = 3,
                     .clip = 1.0 };
    wish tcp = w, other = w, one = w;
    job a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
    tcp.knobs = "transport=tcp";
    other.set[3] = "12";
    one.set[6] = "servers";
    one.set[7] = "2";
    if (run(&a, &w) && run(&b, &tcp) && run(&c, &other) && run(&d, &one)) {
        CHECK(same(&a, &b) && !memcmp(a.loss, b.loss, sizeof a.loss));
        CHECK(!same(&a, &c));
        CHECK(same(&a, &d));            /* whoever serves, updates are the same */
        CHECK(a.rows == STEPS);
        for (int r = 1; r < 3; r++)
            CHECKF(!memcmp(a.x[0], a.x[r], a.count * sizeof(float)), "rank %d has other weights", r);
    }
    release(&a);
    release(&b);
    release(&c);
    release(&d);
}

static void a_stop_in_the_middle_is_no_stop(void)
{
    char *all = gt_path_join(check_folder(), "async-whole"), *folder = gt_path_join(check_folder(), "async-part");
    wish w = { .set = { "staleness", "2", "simulate-delay", "4", "barrier-every", "0", "delay-compensation",
                        "2,adaptive" },
               .save_every = STEPS / 2,
               .folder = all };
    job whole = { 0 }, first = { 0 }, rest = { 0 }, other = { 0 };
    check_allow_warnings();             /* all-reduce has no use for mean squares, and says so */
    int good = run(&whole, &w);
    w.folder = folder;
    w.steps = STEPS / 2;
    good = good && run(&first, &w);
    w.steps = STEPS;
    if (good && run(&rest, &w))
        CHECK(same(&whole, &rest));
    /* Under another mode the state is taken as well. */
    const wish then = { .mode = "allreduce", .folder = folder, .steps = STEPS + 1 };
    if (good && run(&other, &then))
        CHECK(!same(&other, &rest));
    free(all);
    free(folder);
    release(&whole);
    release(&first);
    release(&rest);
    release(&other);
}

/* Ranks of one replica add up what they share before it is pushed; all end with the same weights. */
static void plans_of_every_kind_are_served(void)
{
    static const wish all[] = {
        { .set = { "staleness", "2", "simulate-delay", "3", "barrier-every", "2" }, .clip = 1.0 },
        { .set = { "staleness", "2", "simulate-delay", "3", "barrier-every", "2" },
          .replicas = staged,
          .count = 2,
          .clip = 1.0 },
        { .set = { "staleness", "2", "simulate-delay", "3", "barrier-every", "2" },
          .replicas = pipes,
          .count = 2,
          .clip = 1.0 },
        { .set = { "staleness", "2", "simulate-delay", "3", "barrier-every", "2" },
          .replicas = two,
          .count = 2,
          .tensor = 2,
          .clip = 1.0 },
    };
    job first = { 0 };
    if (!run(&first, &all[0]))
        return;
    for (size_t i = 1; i < sizeof all / sizeof *all; i++) {
        job j = { 0 };
        if (run(&j, &all[i]))
            for (int s = 0; s < STEPS; s++)
                CHECKF(fabs(j.loss[s] - first.loss[s]) <= 2e-5, "plan %zu, step %d: loss %.6f, not %.6f", i, s + 1,
                       j.loss[s], first.loss[s]);
        release(&j);
    }
    job half = { 0 };
    wish w = all[0];
    w.precision = DTYPE_BF16;
    if (run(&half, &w))
        CHECK(fabs(half.loss[STEPS - 1] - first.loss[STEPS - 1]) < 0.05);
    release(&half);
    release(&first);
}

/* As they come: nobody knows in which order, but all are applied, and all ranks end alike. */
static void pushes_as_they_come_all_count(void)
{
    const wish w = { .set = { "staleness", "2", "barrier-every", "3" }, .replicas = three, .count = 3, .clip = 1.0 };
    job j = { 0 }, plain = { 0 };
    const wish together = { .mode = "allreduce", .replicas = three, .count = 3, .clip = 1.0 };
    if (run(&j, &w) && run(&plain, &together)) {
        CHECK(j.rows == STEPS && fabs(j.loss[0] - plain.loss[0]) < 0.02);
        for (int r = 1; r < 3; r++)
            CHECKF(!memcmp(j.x[0], j.x[r], j.count * sizeof(float)), "rank %d has other weights", r);
    }
    release(&j);
    release(&plain);
}

static void what_cannot_be_is_refused(void)
{
    static const struct {
        wish w;
        const char *said;
    } cases[] = {
        { { .optimizer = "muon" }, "which --optimizer muon does not" },
        { { .optimizer = "adafactor" }, "which --optimizer adafactor does not" },
        { { .precision = DTYPE_F16 }, "--precision fp16" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = { 0 };
        ranks_result results[2] = { 0 };
        if (prepare(&j, &cases[i].w)) {
            ranks_run_each(2, "", body, &j, results);
            for (int r = 0; r < 2; r++)
                CHECKF(results[r].status == GT_UNSUPPORTED && strstr(results[r].sentence, cases[i].said),
                       "rank %d: '%s'", r, results[r].sentence);
        }
        release(&j);
    }
    const sync_mode *m = sync_mode_find("async");
    static const char *const bad[][2] = { { "delay-compensation", "-1" },  { "delay-compensation", "x" },
                                          { "delay-compensation", "1,a" }, { "staleness", "1.5" },
                                          { "staleness", "-1" },           { "push-every", "0" },
                                          { "lr-scale", "half" },          { "servers", "9" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sync_settings s;
        sync_settings_usual(m, &s);
        gt_status st = sync_settings_set(m, &s, bad[i][0], bad[i][1]);
        st = st ? st : sync_settings_check(m, &s, 4);
        CHECKF(st == GT_MISUSE && strstr(gt_message(), bad[i][0]), "--%s %s: '%s'", bad[i][0], bad[i][1], gt_message());
        gt_message_clear();
    }
}

const check_case check_cases[] = {
    CASE(what_cannot_be_is_refused),
    CASE(every_rule_follows_its_formula),
    CASE(staleness_0_is_synchronous_to_the_bit),
    CASE(a_seed_repeats_to_the_bit),
    CASE(a_stop_in_the_middle_is_no_stop),
    CASE(plans_of_every_kind_are_served),
    CASE(pushes_as_they_come_all_count),
    { 0 }
};
