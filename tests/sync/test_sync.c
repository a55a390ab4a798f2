/* SPDX-License-Identifier: MIT */
/* tests/sync/test_sync.c - every way of staying together, with every form in which gradients travel.
 *
 *   rank 0, 1, 2 as threads ──► 10 steps ──► the same parameters on all ranks, to the bit
 *                                       ──► those of uncompressed sums, as near as the form allows
 *
 * Two compressors of this file's own go the ways that those of the table do not: one in two rounds, one
 * that sees tensors and gathers.                                                            */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/sync/coding.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 3, STEPS = 10, UNITS = 4 };

static model_config config;

/* ---- compressors of this test's own -------------------------------------------------------- */

/* The first half in round 0, the rest in round 1. */
static int64_t half(const sync_range *r, int round)
{
    return round ? r->count - r->count / 2 : r->count / 2;
}

static gt_status encode_half(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *to)
{
    (void)k;
    return dev_list_copy(l, to, 0, r->grad, round ? 4 * (uint64_t)half(r, 0) : 0, 4 * (uint64_t)half(r, round));
}

static gt_status decode_half(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *const *from,
                             int count, dev_buffer *to)
{
    (void)k;
    RANK_CHECK(count == 1);
    return dev_list_copy(l, to, round ? 4 * (uint64_t)half(r, 0) : 0, from[0], 0, 4 * (uint64_t)half(r, round));
}

static const sync_compressor halves = {
    .name = "halves",
    .type = DTYPE_F32,
    .rounds = 2,
    .all = 1,
    .elements = half,
    .encode = encode_half,
    .decode = decode_half
};

/* Whole tensors to everybody, who adds them up in the order of ranks. */
static int64_t all_of(const sync_range *r, int round)
{
    (void)round;
    return r->count;
}

static gt_status encode_tensor(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *to)
{
    (void)k;
    (void)round;
    RANK_CHECK(r->info && shape_count(&r->info->shape) == r->count);
    return dev_list_copy(l, to, 0, r->grad, 0, 4 * (uint64_t)r->count);
}

static gt_status decode_tensors(dev_list *l, kernel_set *k, const sync_range *r, int round, dev_buffer *const *from,
                                int count, dev_buffer *to)
{
    gt_status st = dev_list_copy(l, to, 0, from[0], 0, 4 * (uint64_t)r->count);
    (void)round;
    for (int i = 1; !st && i < count; i++)
        st = kernel_combine(l, k, r->count, 1.0f, from[i], 1.0f, to);
    return st;
}

static const sync_compressor gathered = {
    .name = "gathered",
    .type = DTYPE_F32,
    .rounds = 1,
    .tensors = 1,
    .all = 1,
    .gathers = 1,
    .elements = all_of,
    .encode = encode_tensor,
    .decode = decode_tensors
};

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST_RANKS];
    size_t count;
    double loss[STEPS], sent;
} job;

static void note_row(void *context, const metrics_row *row)
{
    ((job *)context)->loss[row->step - 1] = row->loss;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    const char *spec = getenv("GT_TEST_DEVICE");
    train_options o = j->o;
    const train_hooks hooks = { .context = j, .step = note_row };
    dev_device *d = NULL;
    train *t = NULL;
    size_t count = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = dev_open(&d, spec);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    if (!st)
        j->x[rank] = tiny_params(t, 0, &count);
    if (!st && !rank) {
        j->count = count;
        j->sent = (double)train_balance_of(t)->sent;
    }
    train_release(t);
    dev_close(d);
    return st;
}

/* As many replicas as ranks, with shares as unlike as can be. */
static int make_plan(run_plan *p, int ranks, const char *mode)
{
    if (!CHECK_OK(run_plan_create(p, ranks, UNITS, TINY_B, 1, 1, ranks)))
        return 0;
    run_plan_sync(p, mode, NULL);
    for (int r = 0; r < ranks; r++) {
        if (!CHECK_OK(run_plan_replica(p, r, 1)))
            return 0;
        run_replica *q = &p->replica[r];
        q->rank[0] = r;
        q->cut[1] = UNITS;
        q->micro_batch = 1;
        q->micro_batches = r ? r : TINY_B - ranks * (ranks - 1) / 2;
    }
    return CHECK_OK(run_plan_check(p));
}

static void release(job *j)
{
    for (int r = 0; r < MOST_RANKS; r++) {
        free(j->x[r]);
        j->x[r] = NULL;
    }
    run_plan_release(&j->plan);
}

/* 1: it ran, and all ranks ended with the same bits. */
static int run(job *j, int ranks, const char *mode, const sync_compress *c, uint64_t steps, const char *folder)
{
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.steps = steps;
    j->o.compress = c ? *c : (sync_compress){ 0 };
    j->o.run = folder;
    j->o.save_every = folder ? STEPS / 2 : 0;
    j->o.resume = folder && gt_path_exists(folder);
    j->o.optim.eps = 1e-4;              /* a key's bias has no gradient but rounding */
    if (c && c->momentum > 0.0) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    config = tiny_config();
    if (!make_plan(&j->plan, ranks, mode) || !CHECK_OK(ranks_run(ranks, "algorithm=direct", body, j)))
        return 0;
    for (int r = 1; r < ranks; r++)
        CHECKF(!memcmp(j->x[0], j->x[r], j->count * sizeof(float)), "%s, %s: rank %d has other weights than rank 0",
               mode, c ? c->how->name : "none", r);
    return 1;
}

static double distance(const job *a, const job *b)
{
    double sum = 0.0, norm = 0.0;
    for (size_t i = 0; i < a->count; i++) {
        sum += pow((double)a->x[0][i] - (double)b->x[0][i], 2);
        norm += pow((double)b->x[0][i], 2);
    }
    return sqrt(sum / norm);
}

/* ---- cases ----------------------------------------------------------------------------------- */

/* Each compressor against sums in fp32: how far parameters may be after STEPS, and how many of their bytes it
 * sends, for two ranks. */
static void every_form_in_every_mode(void)
{
    const struct {
        const char *spec;               /* NULL: how */
        const sync_compressor *how;
        double bound, bytes;
    } cases[] = { { "none", NULL, 0.0, 1.0 },
                  { "bf16", NULL, 2e-4, 0.5 },
                  { "fp16", NULL, 2e-4, 0.5 },
                  { "int8", NULL, 1e-3, 0.345 },
                  { "topk:1", NULL, 0.0, 1.46 },
                  { "randomk:1", NULL, 0.0, 1.0 },
                  { "powersgd:256,rate=0", NULL, 1e-4, 1.31 },
                  { NULL, &halves, 1e-6, 1.0 },
                  { NULL, &gathered, 1e-6, 1.0 } };
    for (int ranks = 2; ranks <= (getenv("GT_TEST_TINY") ? 2 : MOST_RANKS); ranks++)
        for (int m = 0; sync_mode_at(m); m++) {
            const char *mode = sync_mode_name(sync_mode_at(m));
            if (!sync_mode_compresses(sync_mode_at(m)))
                continue;
            job plain = { 0 };
            if (!run(&plain, ranks, "allreduce", NULL, STEPS, NULL))
                return;
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                job j = { 0 };
                sync_compress c = { .how = cases[i].how };
                if (cases[i].spec && !CHECK_OK(sync_compress_parse(&c, cases[i].spec)))
                    return;
                if (!run(&j, ranks, mode, &c, STEPS, NULL))
                    return;
                const double off = distance(&j, &plain), bytes = j.sent / plain.sent;
                CHECKF(off <= cases[i].bound + 1e-6, "%d ranks, %s, %s: parameters are off by %.2g", ranks, mode,
                       c.how->name, off);
                CHECKF(fabs(bytes / cases[i].bytes - 1.0) < 0.05, "%d ranks, %s, %s: %.3g of the bytes", ranks, mode,
                       c.how->name, bytes);
                release(&j);
            }
            release(&plain);
        }
}

/* What is held back is state: a run that goes on has the bits of one that never stopped; without it, it has not. The
 * warm-up, the ramp and random words go by the run's steps, wherever it was stopped. */
static void errors_outlive_a_stop(void)
{
    static const struct {
        const char *spec;
        uint64_t after;
    } cases[] = { { "bf16", 0 },
                  { "fp16", 2 },
                  { "int8,min=16", 0 },
                  { "topk:0.05,min=16,ramp=3", 1 },
                  { "randomk:0.1", 7 },
                  { "topk:0.05,momentum=0.5", 2 },
                  { "powersgd:2,rate=0", 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *mode = sync_mode_name(sync_mode_at((int)i % 2));
        char *folder = gt_path_join(check_folder(), cases[i].spec), *file = NULL;
        job whole = { 0 }, part = { 0 }, rest = { 0 };
        sync_compress c;
        if (!CHECK_OK(sync_compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        if (run(&whole, 2, mode, &c, STEPS, NULL) && run(&part, 2, mode, &c, STEPS / 2, folder)) {
            file = gt_path_join(folder, "checkpoints/step-000005/residuals-00001.safetensors");
            CHECKF(gt_path_exists(file), "%s: there is no '%s'", mode, file);
            if (run(&rest, 2, mode, &c, STEPS, folder))
                CHECKF(!memcmp(rest.x[0], whole.x[0], whole.count * sizeof(float)), "%s, %s: going on gives other bits",
                       mode, cases[i].spec);
        }
        free(file);
        free(folder);
        release(&whole);
        release(&part);
        release(&rest);
    }
}

/* ---- one encoding, without a network ---------------------------------------------------------- */

enum { N = 1000, TIMES = 64 };

/* A gradient that is the same each time: what was sent in all must stay within one rounding of what there was, for
 * what one encoding leaves out the next ones bring. */
static gt_status feed(net_comm *c, void *context)
{
    double *worst = context;
    dev_device *d = NULL;
    kernel_set *k = NULL;
    dev_buffer *all = NULL, *grad = NULL;
    sync_coding *coding = NULL;
    float x[N], got[N];
    double sent[N] = { 0 };
    gt_random random;
    gt_random_init(&random, 5, 1);
    gt_random_normal(&random, x, N, 0.0f, 1.0f);
    RANK_OK(dev_open(&d, getenv("GT_TEST_DEVICE")));
    RANK_OK(kernel_set_create(&k, d, DTYPE_BF16));
    RANK_OK(dev_buffer_create(&all, d, sizeof x, "a gradient"));
    RANK_OK(dev_buffer_view(&grad, all, 0, sizeof x));
    sync_range range = { .count = N };
    RANK_OK(dev_buffer_view(&range.grad, all, 0, sizeof x));
    RANK_OK(sync_coding_create(&coding, &(sync_coding_options){
                                            .spec = { .how = &sync_compress_bf16 },
                                            .device = d,
                                            .kernels = k,
                                            .comm = c,
                                            .range = &range,
                                            .ranges = 1,
                                            .grad = grad,
                                            .count = N,
                                            .ranks = 1 }));
    for (int t = 0; t < TIMES; t++) {
        RANK_OK(dev_write(d, all, 0, x, sizeof x));
        RANK_OK(sync_coding_commit(coding));
        RANK_OK(sync_coding_encode(coding, 0));
        RANK_OK(sync_coding_decode(coding, 0));
        RANK_OK(dev_read(d, all, 0, got, sizeof got));
        for (int i = 0; i < N; i++)
            sent[i] += (double)got[i];
    }
    for (int i = 0; i < N; i++)
        *worst = fmax(*worst, fabs(sent[i] - TIMES * (double)x[i]) / fabs((double)x[i]));
    sync_coding_release(coding);
    dev_buffer_release(all);
    kernel_set_release(k);
    dev_close(d);
    return GT_OK;
}

static void rounding_is_late_and_not_lost(void)
{
    double worst = 0.0;
    if (CHECK_OK(ranks_run(1, "", feed, &worst)))
        CHECKF(worst > 0.0 && worst <= 0x1p-7, "after %d times %.3g of a value is missing", TIMES, worst);
}

/* ---- tables ----------------------------------------------------------------------------------- */

static void tables_agree_with_themselves(void)
{
    char names[SYNC_NAMES], all[SYNC_NAMES] = "";
    for (int i = 0; sync_mode_at(i); i++) {
        const sync_mode *m = sync_mode_at(i);
        CHECK(sync_mode_find(sync_mode_name(m)) == m && *sync_mode_help(m));
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "|" : "", sync_mode_name(m));
    }
    sync_mode_names(names);
    CHECK(!strcmp(names, all));
    *all = '\0';
    for (int i = 0; sync_compressor_at(i); i++) {
        const sync_compressor *c = sync_compressor_at(i);
        CHECK(sync_compressor_find(sync_compressor_name(c)) == c && *sync_compressor_help(c) && c->rounds > 0);
        CHECK(sync_compressor_changes(c) == (i > 0) && !c->encode == !c->decode);
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "|" : "", sync_compressor_name(c));
    }
    sync_compressor_names(names);
    CHECK(!strcmp(names, all));
    CHECK(!sync_mode_find("alone") && !sync_mode_find("") && !sync_compressor_find("fp4"));
    CHECK(!strcmp(sync_mode_name(sync_mode_alone()), "alone"));
}

const check_case check_cases[] = {
    CASE(tables_agree_with_themselves),
    CASE(rounding_is_late_and_not_lost),
    CASE(every_form_in_every_mode),
    CASE(errors_outlive_a_stop),
    { 0 }
};
