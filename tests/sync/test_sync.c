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
#include "host/compress/coding.h"
#include "host/train/train_private.h"
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
static int64_t half(const compress_range *r, int round)
{
    return round ? r->count - r->count / 2 : r->count / 2;
}

static gt_status encode_half(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)k;
    return dev_list_copy(l, to, 0, r->grad, round ? 4 * (uint64_t)half(r, 0) : 0, 4 * (uint64_t)half(r, round));
}

static gt_status decode_half(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                             int count, dev_buffer *to)
{
    (void)k;
    RANK_CHECK(count == 1);
    return dev_list_copy(l, to, round ? 4 * (uint64_t)half(r, 0) : 0, from[0], 0, 4 * (uint64_t)half(r, round));
}

static const compressor halves = {
    .name = "halves",
    .type = DTYPE_F32,
    .rounds = 2,
    .all = 1,
    .elements = half,
    .encode = encode_half,
    .decode = decode_half
};

/* Whole tensors to everybody, who adds them up in the order of ranks. */
static int64_t all_of(const compress_range *r, int round)
{
    (void)round;
    return r->count;
}

static gt_status encode_tensor(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *to)
{
    (void)k;
    (void)round;
    RANK_CHECK(r->info && shape_count(&r->info->shape) == r->count);
    return dev_list_copy(l, to, 0, r->grad, 0, 4 * (uint64_t)r->count);
}

static gt_status decode_tensors(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                                int count, dev_buffer *to)
{
    gt_status st = dev_list_copy(l, to, 0, from[0], 0, 4 * (uint64_t)r->count);
    (void)round;
    for (int i = 1; !st && i < count; i++)
        st = kernel_combine(l, k, r->count, 1.0f, from[i], 1.0f, to);
    return st;
}

static const compressor gathered = {
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
    uint64_t crossed[MOST_RANKS];       /* bytes that the transport took of each rank       */
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
    uint64_t received;
    net_comm_traffic(c, &j->crossed[rank], &received);
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
    /* Where servers have their parts by their links, these are fixed: measuring them sends what no step tells of, and
     * gives other parts each time. */
    const sync_mode *m = sync_mode_find(mode);
    sync_settings s;
    sync_settings_usual(m, &s);
    char list[64] = "";
    for (int r = 0; r < ranks; r++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%d:%d", r ? "," : "", r, r + 1);
    if (sync_setting_find(m, "servers", NULL) && !CHECK_OK(sync_settings_set(m, &s, "servers", list)))
        return 0;
    run_plan_sync(p, mode, &s);
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

/* Positions of the model that no sequence reaches, of which no step makes a gradient. */
static int spare_positions;

/* 1: it ran, and all ranks ended with the same bits. */
static int run(job *j, int ranks, const char *mode, const compress_spec *c, uint64_t steps, const char *folder)
{
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.whole_tables = 1; /* rows of tables are added up in another order */
    j->o.steps = steps;
    j->o.compress = c ? *c : (compress_spec){ 0 };
    j->o.run = folder;
    j->o.save_every = folder ? STEPS / 2 : 0;
    j->o.resume = folder && gt_path_exists(folder);
    j->o.optim.eps = 1e-4; /* a key's bias has no gradient but rounding */
    if (c && c->momentum > 0.0) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    config = tiny_config();
    config.context += spare_positions;
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
        const char *spec; /* NULL: how */
        const compressor *how;
        double bound, bytes;
    } cases[] = { { "none", NULL, 0.0, 1.0 },
                  { "bf16", NULL, 2e-4, 0.5 },
                  { "fp16", NULL, 2e-4, 0.5 },
                  { "int8", NULL, 1e-3, 0.345 },
                  { "topk:1", NULL, 0.0, 1.46 },
                  { "randomk:1", NULL, 0.0, 1.0 },
                  { "powersgd:256,rate=0", NULL, 1e-4, 1.31 },
                  { "demo:4096", NULL, 1e-4, 3.34 }, /* blocks are sent as if whole: here none is */
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
                compress_spec c = { .how = cases[i].how };
                if (cases[i].spec && !CHECK_OK(compress_parse(&c, cases[i].spec)))
                    return;
                if (!run(&j, ranks, mode, &c, STEPS, NULL))
                    return;
                const double off = distance(&j, &plain), bytes = j.sent / plain.sent;
                CHECKF(off <= cases[i].bound + 1e-6, "%d ranks, %s, %s: parameters are off by %.2g", ranks, mode,
                       c.how->name, off);
                CHECKF(ranks > 2 || m || fabs(bytes / cases[i].bytes - 1.0) < 0.05,
                       "%d ranks, %s, %s: %.3g of the bytes", ranks, mode, c.how->name, bytes);
                release(&j);
            }
            release(&plain);
        }
}

/* What a step tells of its bytes is what more of them cross in a run of more steps, but for what ranks tell each
 * other of the loss. */
static void told_is_what_crosses(void)
{
    static const char *const specs[] = {
        "none", "bf16", "int8", "topk:0.5", "randomk:0.5", "onebit", "onebit,server=0", "powersgd:4,rate=0", "demo:40"
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (int m = 0; sync_mode_at(m); m++) {
            if (!sync_mode_compresses(sync_mode_at(m)))
                continue;
            const int ranks = getenv("GT_TEST_TINY") ? 2 : MOST_RANKS;
            double crossed = 0.0;
            job few = { 0 }, more = { 0 };
            compress_spec c;
            if (!CHECK_OK(compress_parse(&c, specs[i])))
                return;
            if (c.how->moments && !sync_mode_holds_all(sync_mode_at(m)))
                continue;
            c.after = (uint64_t)c.how->warms_up;
            if (!run(&few, ranks, sync_mode_name(sync_mode_at(m)), &c, 2, NULL)
                || !run(&more, ranks, sync_mode_name(sync_mode_at(m)), &c, 6, NULL))
                return;
            for (int r = 0; r < ranks; r++)
                crossed += ((double)more.crossed[r] - (double)few.crossed[r]) / 4.0;
            /* Heads of messages count more where these are short and many. */
            const double heads = c.how->serves ? 0.03 : 0.02;
            CHECKF(fabs(more.sent / crossed - 1.0) < heads, "%s, %s: %.0f bytes told, %.0f crossed", specs[i],
                   sync_mode_name(sync_mode_at(m)), more.sent, crossed);
            release(&few);
            release(&more);
        }
}

/* What is held back is state: a run that goes on has the bits of one that never stopped; without it, it has not. The
 * warm-up, the ramp and random words go by the run's steps, wherever it was stopped. Some rows of a table have no
 * gradient in any step, and what encodings say of them must not become one. */
static void errors_outlive_a_stop(void)
{
    static const struct {
        const char *spec;
        uint64_t after;
    } cases[] = {
        { "bf16", 0 },
        { "fp16", 2 },
        { "int8,min=16", 0 },
        { "topk:0.05,min=16,ramp=3", 1 },
        { "randomk:0.1", 7 },
        { "topk:0.05,momentum=0.5", 2 },
        { "topk:0.02,sample=0.1,clip=0.5", 0 },
        { "powersgd:2,rate=0", 1 },
        { "onebit", 3 },
        { "onebit", 7 },
        { "zeroone:2", 0 },
        { "zeroone:1,freeze=3", 1 },
        { "demo:16,decay=0.9", 2 }
    };
    spare_positions = 5;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *mode = sync_mode_name(sync_mode_at(strstr(cases[i].spec, "one") ? 0 : (int)i % 2));
        char name[64], *file = NULL;
        snprintf(name, sizeof name, "%s-%zu", cases[i].spec, i);
        char *folder = gt_path_join(check_folder(), name);
        job whole = { 0 }, part = { 0 }, rest = { 0 };
        compress_spec c;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        const int ranks = c.how->serves && !getenv("GT_TEST_TINY") ? MOST_RANKS : 2;
        if (run(&whole, ranks, mode, &c, STEPS, NULL) && run(&part, ranks, mode, &c, STEPS / 2, folder)) {
            file = gt_path_join(folder, "checkpoints/step-000005/residuals-00001.safetensors");
            CHECKF(gt_path_exists(file), "%s: there is no '%s'", mode, file);
            if (run(&rest, ranks, mode, &c, STEPS, folder))
                CHECKF(!memcmp(rest.x[0], whole.x[0], whole.count * sizeof(float)), "%s, %s: going on gives other bits",
                       mode, cases[i].spec);
        }
        free(file);
        free(folder);
        release(&whole);
        release(&part);
        release(&rest);
    }
    spare_positions = 0;
}

/* What is never compressed is what no compressor was asked for, to the bit; and what is, is not. */
static void a_warm_up_without_end_is_adamw(void)
{
    static const struct {
        const char *spec;
        uint64_t after;
        int same;
    } cases[] = { { "onebit", STEPS, 1 }, { "zeroone:1000", 0, 1 }, { "onebit", STEPS - 1, 0 }, { "zeroone:4", 0, 0 } };
    const int ranks = getenv("GT_TEST_TINY") ? 2 : MOST_RANKS;
    job plain = { 0 };
    if (!run(&plain, ranks, "allreduce", NULL, STEPS, NULL))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = { 0 };
        compress_spec c;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        if (!run(&j, ranks, "allreduce", &c, STEPS, NULL))
            return;
        CHECKF(cases[i].same == !memcmp(j.x[0], plain.x[0], plain.count * sizeof(float)),
               "%s: parameters are off by %.3g", cases[i].spec, distance(&j, &plain));
        CHECKF(distance(&j, &plain) < 0.05, "%s: parameters are off by %.3g", cases[i].spec, distance(&j, &plain));
        release(&j);
    }
    release(&plain);
}

/* ---- one encoding, without a network ---------------------------------------------------------- */

enum { N = 9000, TIMES = 64 }; /* two chunks of top-k and a part of one */

typedef struct rig {
    dev_device *d;
    kernel_set *k;
    dev_buffer *all, *random;
    compress_coding *coding;
    const compressor *how;
    int64_t n;
    uint32_t step;
} rig;

/* One rank's gradient of n values, or of a matrix. */
static gt_status rig_open(rig *g, net_comm *c, const char *spec, int64_t n, const graph_param_info *info)
{
    static const uint32_t zeros[4] = { 0 };
    dev_buffer *grad = NULL;
    compress_coding_options o = { .comm = c, .count = n, .ranges = 1, .ranks = 1, .stream = 5 };
    compress_range range = { .count = n, .info = info };
    *g = (rig){ .n = n };
    RANK_OK(compress_parse(&o.spec, spec));
    g->how = o.spec.how;
    RANK_OK(dev_open(&g->d, getenv("GT_TEST_DEVICE")));
    RANK_OK(kernel_set_create(&g->k, g->d, o.spec.how->type));
    RANK_OK(dev_buffer_create(&g->all, g->d, 4 * (uint64_t)n, "a gradient"));
    RANK_OK(dev_buffer_create(&g->random, g->d, sizeof zeros, "random words"));
    RANK_OK(dev_write(g->d, g->random, 0, zeros, sizeof zeros));
    RANK_OK(dev_buffer_view(&grad, g->all, 0, 4 * (uint64_t)n));
    RANK_OK(dev_buffer_view(&range.grad, g->all, 0, 4 * (uint64_t)n));
    o.device = g->d;
    o.kernels = g->k;
    o.range = &range;
    o.grad = grad;
    o.random = g->random;
    RANK_OK(compress_coding_create(&g->coding, &o));
    return GT_OK;
}

/* x: a gradient; afterwards what was sent. */
static gt_status rig_step(rig *g, float *x)
{
    RANK_OK(dev_write(g->d, g->random, 8, &g->step, 4));
    g->step++;
    RANK_OK(dev_write(g->d, g->all, 0, x, 4 * (uint64_t)g->n));
    for (int r = 0; r < g->how->rounds; r++) {
        if (!r)
            RANK_OK(compress_coding_commit(g->coding));
        RANK_OK(compress_coding_encode(g->coding, r));
        RANK_OK(compress_coding_decode(g->coding, r));
    }
    RANK_OK(dev_read(g->d, g->all, 0, x, 4 * (uint64_t)g->n));
    return GT_OK;
}

static gt_status rig_kept(rig *g, float *to)
{
    RANK_OK(compress_coding_commit(g->coding));
    RANK_OK(dev_read(g->d, compress_coding_error(g->coding), 0, to, 4 * (uint64_t)g->n));
    return GT_OK;
}

static void rig_close(rig *g)
{
    compress_coding_release(g->coding);
    dev_buffer_release(g->random);
    dev_buffer_release(g->all);
    kernel_set_release(g->k);
    dev_close(g->d);
}

static void draw(uint64_t stream, float *x, size_t n)
{
    gt_random random;
    gt_random_init(&random, 5, stream);
    gt_random_normal(&random, x, n, 0.0f, 1.0f);
}

/* A gradient that is the same each time: what was sent in all must stay within what one encoding may leave out
 * of what there was, for what one leaves out the next ones bring. */
static gt_status feed(net_comm *c, void *context)
{
    static const struct {
        const char *spec;
        double left; /* of the largest value, at most */
    } cases[] = {
        { "bf16", 0x1p-7 }, { "fp16", 0x1p-9 }, { "int8", 0.02 }, { "topk:0.1", 16.0 }, { "randomk:0.1", TIMES }
    };
    double *worst = context;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        rig g;
        float x[N], got[N];
        static double sent[N];
        double most = 0.0, missing = 0.0;
        draw(1, x, N);
        memset(sent, 0, sizeof sent);
        RANK_OK(rig_open(&g, c, cases[k].spec, N, NULL));
        for (int t = 0; t < TIMES; t++) {
            memcpy(got, x, sizeof got);
            RANK_OK(rig_step(&g, got));
            for (int i = 0; i < N; i++)
                sent[i] += (double)got[i];
        }
        for (int i = 0; i < N; i++) {
            most = fmax(most, fabs((double)x[i]));
            missing = fmax(missing, fabs(sent[i] - TIMES * (double)x[i]));
        }
        worst[k] = missing / most / cases[k].left;
        rig_close(&g);
    }
    return GT_OK;
}

static void rounding_is_late_and_not_lost(void)
{
    double worst[5] = { 0.0 };
    if (CHECK_OK(ranks_run(1, "", feed, worst)))
        for (int k = 0; k < 5; k++)
            CHECKF(worst[k] > 0.0 && worst[k] <= 1.0, "form %d: after %d times %.3g of what may be missing is", k,
                   TIMES, worst[k]);
}

/* Of forms that send values as they are: what is sent and what is kept are the gradient and what was kept before,
 * bit by bit. And what cannot be sent, since it is too large for fp16, is kept. */
static gt_status split(net_comm *c, void *context)
{
    static const char *const specs[] = { "topk:0.01", "topk:1", "topk:0.01,sample=0.05", "randomk:0.1", "randomk:1" };
    int *wrong = context;
    for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
        rig g;
        float x[N], sent[N], kept[N], before[N];
        RANK_OK(rig_open(&g, c, specs[k], N, NULL));
        RANK_OK(rig_kept(&g, before));
        for (uint64_t t = 0; t < 5; t++) {
            draw(t, x, N);
            memcpy(sent, x, sizeof sent);
            RANK_OK(rig_step(&g, sent));
            RANK_OK(rig_kept(&g, kept));
            for (int i = 0; i < N; i++)
                *wrong += sent[i] + kept[i] != x[i] + before[i];
            memcpy(before, kept, sizeof before);
        }
        rig_close(&g);
    }
    rig g;
    float x[3] = { 1e6f, -7e4f, 1.0f }, kept[3];
    RANK_OK(rig_open(&g, c, "fp16", 3, NULL));
    RANK_OK(rig_step(&g, x));
    RANK_OK(rig_kept(&g, kept));
    *wrong += x[0] != 65504.0f || x[1] != -65504.0f || x[2] != 1.0f;
    *wrong += kept[0] != 1e6f - 65504.0f || kept[1] != -7e4f + 65504.0f || kept[2] != 0.0f;
    rig_close(&g);
    return GT_OK;
}

static void sent_and_kept_are_the_gradient(void)
{
    int wrong = 0;
    if (CHECK_OK(ranks_run(1, "", split, &wrong)))
        CHECKF(!wrong, "%d values are not", wrong);
}

/* ---- several ranks' encodings, put together by hand -------------------------------------------- */

/* Shares of the batch, as unequal as replicas may be. */
static const double shares[MOST_RANKS] = { 0.6, 0.3, 0.1 };

typedef struct ring {
    dev_device *d;
    kernel_set *k;
    dev_list *begin, *update;
    dev_buffer *all[MOST_RANKS], *random, *frame, *state, *partial, *p, *m, *v;
    kernel_slot pending, step, weigh, weighs, held, lr, form;
    compress_coding *coding[MOST_RANKS];
    compress_spec spec;
    uint64_t at; /* steps done */
    int left;
} ring;

enum { LOSS_SCALE = 8 };
static const double LR = 1e-2, BETA1 = 0.9, BETA2 = 0.95, EPS = 1e-4, DECAY = 0.1;

static gt_status ring_optimizer(ring *g)
{
    float state[OPTIM_STATE_FLOATS] = { 0 }, x[N];
    state[OPTIM_LOSS_SCALE] = LOSS_SCALE;
    RANK_OK(dev_buffer_create(&g->state, g->d, sizeof state, "scalars"));
    RANK_OK(dev_write(g->d, g->state, 0, state, sizeof state));
    RANK_OK(dev_buffer_create(&g->partial, g->d, 4, "a norm"));
    RANK_OK(dev_buffer_create(&g->p, g->d, sizeof x, "parameters"));
    RANK_OK(dev_buffer_create(&g->m, g->d, sizeof x, "first moments"));
    RANK_OK(dev_buffer_create(&g->v, g->d, sizeof x, "second moments"));
    draw(99, x, N);
    RANK_OK(dev_write(g->d, g->p, 0, x, sizeof x));
    memset(x, 0, sizeof x);
    RANK_OK(dev_write(g->d, g->m, 0, x, sizeof x));
    RANK_OK(dev_write(g->d, g->v, 0, x, sizeof x));
    RANK_OK(dev_list_create(&g->update, g->d));
    RANK_OK(
        kernel_optim_prepare(g->update, g->k, 1, g->partial, g->state, 0.0f, BETA1, BETA2, 0, 1, &g->weighs, &g->held));
    return kernel_adamw(g->update, g->k, N, g->p, g->all[0], g->m, g->v, NULL, g->state, 1.0f, BETA1, BETA2, (float)EPS,
                        (float)DECAY, &g->lr, &g->form);
}

static gt_status ring_open(ring *g, net_comm *c, const char *spec, uint64_t after)
{
    static const uint32_t zeros[4] = { 0 };
    static const float frame[COMPRESS_FRAME] = { 0 };
    *g = (ring){ 0 };
    RANK_OK(compress_parse(&g->spec, spec));
    g->spec.after = after;
    RANK_OK(dev_open(&g->d, getenv("GT_TEST_DEVICE")));
    RANK_OK(kernel_set_create(&g->k, g->d, g->spec.how->type));
    RANK_OK(dev_buffer_create(&g->random, g->d, sizeof zeros, "random words"));
    RANK_OK(dev_write(g->d, g->random, 0, zeros, sizeof zeros));
    RANK_OK(dev_buffer_create(&g->frame, g->d, sizeof frame, "scales"));
    RANK_OK(dev_write(g->d, g->frame, 0, frame, sizeof frame));
    for (int r = 0; r < MOST_RANKS; r++)
        RANK_OK(dev_buffer_create(&g->all[r], g->d, 4 * N, "a gradient"));
    RANK_OK(ring_optimizer(g));
    RANK_OK(dev_list_create(&g->begin, g->d));
    RANK_OK(kernel_compress_begin(g->begin, g->k, g->state, g->random, g->frame, &g->pending, &g->step, &g->weigh));
    for (int r = 0; r < MOST_RANKS; r++) {
        compress_range range = { .count = N };
        compress_coding_options o = {
            .spec = g->spec,
            .device = g->d,
            .kernels = g->k,
            .comm = c,
            .range = &range,
            .ranges = 1,
            .count = N,
            .rank = r,
            .stream = 5,
            .random = g->random,
            .ranks = MOST_RANKS,
            .frame = g->frame,
            .beta1 = BETA1
        };
        RANK_OK(dev_buffer_view(&o.grad, g->all[r], 0, 4 * N));
        RANK_OK(dev_buffer_view(&range.grad, g->all[r], 0, 4 * N));
        if (g->spec.how->moments)
            RANK_OK(dev_buffer_view(&o.moment, g->m, 0, 4 * N));
        RANK_OK(compress_coding_create(&g->coding[r], &o));
    }
    return GT_OK;
}

static void ring_close(ring *g)
{
    for (int r = 0; r < MOST_RANKS; r++) {
        compress_coding_release(g->coding[r]);
        dev_buffer_release(g->all[r]);
    }
    dev_list_release(g->begin);
    dev_list_release(g->update);
    dev_buffer_release(g->random);
    dev_buffer_release(g->frame);
    dev_buffer_release(g->state);
    dev_buffer_release(g->partial);
    dev_buffer_release(g->p);
    dev_buffer_release(g->m);
    dev_buffer_release(g->v);
    kernel_set_release(g->k);
    dev_close(g->d);
}

/* Each rank's encoding to all others, or its block for each. */
static gt_status ring_exchange(ring *g, int round)
{
    char *code[MOST_RANKS];
    for (int r = 0; r < MOST_RANKS; r++) {
        const compress_payload mine = compress_coding_payload(g->coding[r], round);
        code[r] = malloc(mine.bytes);
        RANK_CHECK(code[r]);
        RANK_OK(dev_read(g->d, mine.code, 0, code[r], mine.bytes));
    }
    for (int r = 0; r < MOST_RANKS; r++)
        for (int to = 0; to < MOST_RANKS; to++) {
            const compress_payload p = compress_coding_payload(g->coding[to], round);
            const uint64_t block = p.bytes / MOST_RANKS;
            const uint64_t from = block * (uint64_t)(p.way == COMPRESS_EXCHANGED ? to : r);
            RANK_CHECK(p.way != COMPRESS_SUMMED);
            RANK_OK(dev_write(g->d, p.code, block * (uint64_t)r, code[r] + from, block));
        }
    for (int r = 0; r < MOST_RANKS; r++)
        free(code[r]);
    return GT_OK;
}

/* A step of all ranks as buckets.c has it, of these gradients of the mean; plain: they are added up as they are.
 * sum: what it gave. */
static gt_status ring_step(ring *g, float (*x)[N], double weigh, int plain, float *sum)
{
    const float unit = (float)(LOSS_SCALE / weigh);
    float other[N];
    RANK_OK(dev_list_set(g->begin, g->pending.launch, g->pending.arg, dev_arg_i32(g->left)));
    RANK_OK(dev_list_set(g->begin, g->step.launch, g->step.arg, dev_arg_u32((uint32_t)g->at)));
    RANK_OK(dev_list_set(g->begin, g->weigh.launch, g->weigh.arg, dev_arg_f32((float)weigh)));
    if (!plain || g->left)
        RANK_OK(dev_run(g->begin, 0, -1));
    for (int r = 0; r < MOST_RANKS; r++) {
        for (int i = 0; i < N; i++)
            other[i] = x[r][i] * unit;
        RANK_OK(dev_write(g->d, g->all[r], 0, other, sizeof other));
        if (!plain || g->left)
            RANK_OK(compress_coding_commit(g->coding[r]));
        for (int i = 0; i < N; i++)
            sum[i] = (r ? sum[i] : 0.0f) + other[i];
    }
    for (int round = 0; !plain && round < compress_coding_rounds(g->coding[0]); round++) {
        for (int r = 0; r < MOST_RANKS; r++)
            RANK_OK(compress_coding_encode(g->coding[r], round));
        RANK_OK(ring_exchange(g, round));
        for (int r = 0; r < MOST_RANKS; r++)
            RANK_OK(compress_coding_decode(g->coding[r], round));
    }
    for (int r = 0; !plain && r < MOST_RANKS; r++) {
        RANK_OK(dev_read(g->d, g->all[r], 0, r ? other : sum, sizeof other));
        RANK_CHECK(!r || !memcmp(sum, other, sizeof other));
    }
    RANK_OK(dev_write(g->d, g->all[0], 0, sum, sizeof other));
    g->left = !plain;
    g->at++;
    return GT_OK;
}

/* And its update. */
static gt_status ring_update(ring *g, double weigh, int plain)
{
    const float one = 1.0f;
    RANK_OK(dev_write(g->d, g->partial, 0, &one, sizeof one));
    RANK_OK(dev_list_set(g->update, g->weighs.launch, g->weighs.arg, dev_arg_f32((float)weigh)));
    RANK_OK(dev_list_set(g->update, g->held.launch, g->held.arg, dev_arg_i32(!plain)));
    RANK_OK(dev_list_set(g->update, g->form.launch, g->form.arg, dev_arg_i32(plain ? ADAMW_GRADIENTS : ADAMW_MOMENTS)));
    RANK_OK(dev_list_set(g->update, g->lr.launch, g->lr.arg, dev_arg_f32((float)LR)));
    return dev_run(g->update, 0, -1);
}

/* Of a step, each rank's part of the mean over the batch. */
static void draw_shares(uint64_t step, float (*x)[N])
{
    for (int r = 0; r < MOST_RANKS; r++) {
        draw(1000 * (uint64_t)r + step, x[r], N);
        for (int i = 0; i < N; i++)
            x[r][i] *= (float)shares[r];
    }
}

/* Deep Gradient Compression as its authors write it, in double: on each rank u = m u + g, v = v + u, the largest |v|
 * of each chunk are sent, and both are cleared there; ranks add up what they sent. */
static gt_status deep(net_comm *c, void *context)
{
    enum { CHUNK = COMPRESS_CHUNK, STEPS_OF = 6 };
    static double u[MOST_RANKS][N], v[MOST_RANKS][N], want[N];
    static float x[MOST_RANKS][N];
    double *worst = context;
    ring g;
    float sum[N];
    memset(u, 0, sizeof u);
    memset(v, 0, sizeof v);
    RANK_OK(ring_open(&g, c, "topk:0.02,momentum=0.75", 0));
    for (uint64_t t = 0; t < STEPS_OF; t++) {
        draw_shares(t, x);
        RANK_OK(ring_step(&g, x, 1.0, 0, sum));
        RANK_OK(ring_update(&g, 1.0, 1));
        memset(want, 0, sizeof want);
        for (int r = 0; r < MOST_RANKS; r++) {
            for (int i = 0; i < N; i++) {
                u[r][i] = 0.75 * u[r][i] + (double)x[r][i];
                v[r][i] += u[r][i];
            }
            for (int from = 0; from < N; from += CHUNK) {
                const int len = N - from < CHUNK ? N - from : CHUNK;
                for (int n = 0; n < (int)lrint(0.02 * CHUNK) && n < len; n++) {
                    int best = from;
                    for (int i = from; i < from + len; i++)
                        best = fabs(v[r][i]) > fabs(v[r][best]) ? i : best;
                    want[best] += v[r][best];
                    u[r][best] = v[r][best] = 0.0;
                }
            }
        }
        for (int i = 0; i < N; i++)
            *worst = fmax(*worst, fabs((double)sum[i] / LOSS_SCALE - want[i]));
    }
    ring_close(&g);
    return GT_OK;
}

static void top_k_is_deep_gradient_compression(void)
{
    double worst = 0.0;
    if (CHECK_OK(ranks_run(1, "", deep, &worst)))
        CHECKF(worst > 0.0 && worst < 1e-5, "a value is off by %.3g", worst);
}

/* In double: AdamW where gradients travel as they are; else on each rank x = beta1 m / ranks + (1 - beta1) g + e,
 * signs of x with the mean magnitude of a chunk are said, e is what they leave out, m is their sum, of which the same is
 * said again with an error of its own, unless server is 0, and v stays
 * (1-bit Adam, algorithm 1; 0/1 Adam, algorithm 1 with a synchronization in every step, its variances in steps 0, 1, ...
 * of the exponential policy). Targets weigh more in some steps than in others. */
typedef struct adam_case {
    const char *spec;
    uint64_t after;
    const char *plain; /* step by step: 'p' is plain */
    double worst;
} adam_case;

static gt_status adam(net_comm *c, void *context)
{
    adam_case *a = context;
    static double p[N], m[N], v[N], e[MOST_RANKS][N], sum[N], back[N];
    static float x[MOST_RANKS][N];
    float got[N], start[N];
    ring g;
    int updates = 0;
    draw(99, start, N);
    for (int i = 0; i < N; i++) {
        p[i] = (double)start[i];
        m[i] = v[i] = back[i] = 0.0;
        for (int r = 0; r < MOST_RANKS; r++)
            e[r][i] = 0.0;
    }
    RANK_OK(ring_open(&g, c, a->spec, a->after));
    for (uint64_t t = 0; a->plain[t]; t++) {
        const int plain = a->plain[t] == 'p';
        const double weigh = t % 3 ? 1.0 : 0.75;
        RANK_CHECK(compress_waits(&g.spec, t) == plain);
        draw_shares(t, x);
        RANK_OK(ring_step(&g, x, weigh, plain, got));
        RANK_OK(ring_update(&g, weigh, plain));
        memset(sum, 0, sizeof sum);
        updates += plain;
        for (int r = 0; r < MOST_RANKS; r++)
            for (int from = 0; from < N; from += COMPRESS_CHUNK) {
                const int end = N - from < COMPRESS_CHUNK ? N : from + COMPRESS_CHUNK;
                double size = 0.0;
                for (int i = from; i < end; i++) {
                    e[r][i] += plain ? 0.0 : BETA1 * m[i] / MOST_RANKS + (1.0 - BETA1) * (double)x[r][i];
                    size += fabs(e[r][i]) / (end - from);
                    sum[i] += plain ? (double)x[r][i] : 0.0;
                }
                for (int i = from; !plain && i < end; i++) {
                    const double said = copysign(size, e[r][i]);
                    sum[i] += said;
                    e[r][i] -= said;
                }
            }
        for (int from = 0; !plain && g.spec.server != 0.0 && from < N; from += COMPRESS_CHUNK) {
            const int end = N - from < COMPRESS_CHUNK ? N : from + COMPRESS_CHUNK;
            double size = 0.0;
            for (int i = from; i < end; i++) {
                back[i] += sum[i];
                size += fabs(back[i]) / (end - from);
            }
            for (int i = from; i < end; i++) {
                sum[i] = copysign(size, back[i]);
                back[i] -= sum[i];
            }
        }
        for (int i = 0; i < N; i++) {
            m[i] = plain ? BETA1 * m[i] + (1.0 - BETA1) * sum[i] : sum[i];
            v[i] = plain ? BETA2 * v[i] + (1.0 - BETA2) * sum[i] * sum[i] : v[i];
            const double first = m[i] / (1.0 - pow(BETA1, (double)t + 1.0));
            const double second = v[i] / (1.0 - pow(BETA2, updates));
            p[i] -= LR * (first / (sqrt(second) + EPS) + DECAY * p[i]);
        }
        RANK_OK(dev_read(g.d, g.p, 0, got, sizeof got));
        for (int i = 0; i < N; i++)
            a->worst = fmax(a->worst, fabs((double)got[i] - p[i]));
    }
    ring_close(&g);
    return GT_OK;
}

static void signs_are_one_bit_and_zero_one_adam(void)
{
    adam_case cases[] = { { "onebit", 4, "pppp----------", 0.0 },
                          { "onebit,server=0", 4, "pppp----------", 0.0 },
                          { "zeroone:2,server=0", 0, "ppp-p-p---p---p-", 0.0 },
                          { "zeroone:2", 0, "ppp-p-p---p---p-", 0.0 },
                          { "zeroone:1,freeze=4", 1, "ppp-p--------", 0.0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (CHECK_OK(ranks_run(1, "", adam, &cases[i])))
            CHECKF(cases[i].worst > 0.0 && cases[i].worst < 2e-5, "%s: a parameter is off by %.3g", cases[i].spec,
                   cases[i].worst);
}

enum { ROWS = 40, COLUMNS = 70, RANK = 3 };

/* Gram-Schmidt over the rows of x. */
static void orthonormal(double *x, int n)
{
    for (int j = 0; j < RANK; j++) {
        double square = 0.0;
        for (int k = 0; k < j; k++) {
            double dot = 0.0;
            for (int i = 0; i < n; i++)
                dot += x[j * n + i] * x[k * n + i];
            for (int i = 0; i < n; i++)
                x[j * n + i] -= dot * x[k * n + i];
        }
        for (int i = 0; i < n; i++)
            square += x[j * n + i] * x[j * n + i];
        for (int i = 0; i < n; i++)
            x[j * n + i] /= sqrt(square);
    }
}

/* PowerSGD's algorithm 1 and 2 in double, from the factor that the first step left. */
static gt_status powers(net_comm *c, void *context)
{
    const graph_param_info info = { .shape = { .rank = 2, .dim = { ROWS, COLUMNS } } };
    double *worst = context;
    double q[RANK * COLUMNS], p[RANK * ROWS], m[ROWS * COLUMNS], e[ROWS * COLUMNS];
    float x[ROWS * COLUMNS], sent[ROWS * COLUMNS], state[RANK * COLUMNS];
    rig g;
    RANK_OK(rig_open(&g, c, "powersgd:3", ROWS * COLUMNS, &info));
    draw(0, x, ROWS * COLUMNS);
    RANK_OK(rig_step(&g, x));
    RANK_OK(rig_kept(&g, x));
    RANK_OK(dev_read(g.d, compress_coding_state(g.coding, 0), 0, state, sizeof state));
    for (int i = 0; i < ROWS * COLUMNS; i++)
        e[i] = (double)x[i];
    for (int i = 0; i < RANK * COLUMNS; i++)
        q[i] = (double)state[i];
    for (uint64_t t = 1; t < 6; t++) {
        draw(t, x, ROWS * COLUMNS);
        memcpy(sent, x, sizeof sent);
        RANK_OK(rig_step(&g, sent));
        for (int i = 0; i < ROWS * COLUMNS; i++)
            m[i] = (double)x[i] + e[i];
        orthonormal(q, COLUMNS);
        for (int j = 0; j < RANK; j++)
            for (int i = 0; i < ROWS; i++) {
                p[j * ROWS + i] = 0.0;
                for (int k = 0; k < COLUMNS; k++)
                    p[j * ROWS + i] += m[i * COLUMNS + k] * q[j * COLUMNS + k];
            }
        orthonormal(p, ROWS);
        for (int j = 0; j < RANK; j++)
            for (int k = 0; k < COLUMNS; k++) {
                q[j * COLUMNS + k] = 0.0;
                for (int i = 0; i < ROWS; i++)
                    q[j * COLUMNS + k] += m[i * COLUMNS + k] * p[j * ROWS + i];
            }
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            double want = 0.0;
            for (int j = 0; j < RANK; j++)
                want += p[j * ROWS + i / COLUMNS] * q[j * COLUMNS + i % COLUMNS];
            e[i] = m[i] - want;
            *worst = fmax(*worst, fabs((double)sent[i] - want));
        }
    }
    rig_close(&g);
    return GT_OK;
}

static void low_rank_is_power_sgd(void)
{
    double worst = 0.0;
    if (CHECK_OK(ranks_run(1, "", powers, &worst)))
        CHECKF(worst > 0.0 && worst < 1e-4, "a value is off by %.3g", worst);
}

/* ---- DeMo -------------------------------------------------------------------------------------- */

enum { SIDE = DCT_SIDE, HIGH = 100, WIDE = 70 }; /* blocks that are whole, and parts of one */

typedef struct coefficient {
    double size;
    int u, v;
} coefficient;

static int larger_one(const void *a, const void *b)
{
    const double x = ((const coefficient *)a)->size, y = ((const coefficient *)b)->size;
    return (x < y) - (x > y);
}

static double cosine(int u, int i, int n)
{
    return sqrt((u ? 2.0 : 1.0) / n) * cos(acos(-1.0) * (2 * i + 1) * u / (2.0 * n));
}

/* Adds to q what the k largest cosine coefficients of a block of m are. */
static void add_fast(const double *m, int row, int column, int k, double *q)
{
    static coefficient all[SIDE * SIDE];
    static double y[SIDE][SIDE], middle[SIDE][SIDE];
    const int h = HIGH - row < SIDE ? HIGH - row : SIDE, w = WIDE - column < SIDE ? WIDE - column : SIDE;
    for (int i = 0; i < h; i++)
        for (int v = 0; v < w; v++) {
            middle[i][v] = 0.0;
            for (int j = 0; j < w; j++)
                middle[i][v] += m[(row + i) * WIDE + column + j] * cosine(v, j, w);
        }
    for (int u = 0; u < h; u++)
        for (int v = 0; v < w; v++) {
            y[u][v] = 0.0;
            for (int i = 0; i < h; i++)
                y[u][v] += cosine(u, i, h) * middle[i][v];
            all[u * w + v] = (coefficient){ fabs(y[u][v]), u, v };
        }
    qsort(all, (size_t)(h * w), sizeof *all, larger_one);
    for (int n = 0; n < k && n < h * w; n++) {
        const int u = all[n].u, v = all[n].v;
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++)
                q[(row + i) * WIDE + column + j] += cosine(u, i, h) * y[u][v] * cosine(v, j, w);
    }
}

/* Algorithm 1 in double: m = decay m + g, q the fast components of m, m = m - q. */
static gt_status demo(net_comm *c, void *context)
{
    static const struct {
        const char *spec;
        int k;
        double decay;
    } cases[] = { { "demo:20,decay=0.9", 20, 0.9 }, { "demo:1", 1, 0.999 }, { "demo:4096,decay=0.5", 4096, 0.5 } };
    const graph_param_info info = { .shape = { .rank = 2, .dim = { HIGH, WIDE } } };
    static double m[HIGH * WIDE], q[HIGH * WIDE];
    static float x[HIGH * WIDE], sent[HIGH * WIDE], kept[HIGH * WIDE];
    double *worst = context;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        rig g;
        memset(m, 0, sizeof m);
        RANK_OK(rig_open(&g, c, cases[n].spec, HIGH * WIDE, &info));
        for (uint64_t t = 0; t < 5; t++) {
            draw(t, x, HIGH * WIDE);
            memcpy(sent, x, sizeof sent);
            RANK_OK(rig_step(&g, sent));
            RANK_OK(rig_kept(&g, kept));
            memset(q, 0, sizeof q);
            for (int i = 0; i < HIGH * WIDE; i++)
                m[i] = cases[n].decay * m[i] + (double)x[i];
            for (int row = 0; row < HIGH; row += SIDE)
                for (int column = 0; column < WIDE; column += SIDE)
                    add_fast(m, row, column, cases[n].k, q);
            for (int i = 0; i < HIGH * WIDE; i++) {
                m[i] -= q[i];
                worst[n] = fmax(worst[n], fabs((double)sent[i] - q[i]));
                worst[n] = fmax(worst[n], fabs((double)kept[i] - cases[n].decay * m[i]));
            }
        }
        rig_close(&g);
    }
    return GT_OK;
}

static void fast_components_are_demo(void)
{
    double worst[3] = { 0.0 };
    if (CHECK_OK(ranks_run(1, "", demo, worst)))
        for (int n = 0; n < 3; n++) /* the last sends all, so each gradient is sent as it is */
            CHECKF(worst[n] > 0.0 && worst[n] < 2e-5, "case %d: a value is off by %.3g", n, worst[n]);
}

/* ---- clipping of each replica's gradient --------------------------------------------------------- */

static int alone; /* whose gradient the next compressor says */

static gt_status decode_one(dev_list *l, kernel_set *k, const compress_range *r, int round, dev_buffer *const *from,
                            int count, dev_buffer *to)
{
    (void)k;
    (void)round;
    return dev_list_copy(l, to, 0, from[alone < count ? alone : 0], 0, 4 * (uint64_t)r->count);
}

static const compressor one_of_them = {
    .name = "one",
    .type = DTYPE_F32,
    .rounds = 1,
    .tensors = 1,
    .all = 1,
    .gathers = 1,
    .elements = all_of,
    .encode = encode_tensor,
    .decode = decode_one
};

/* One step of plain gradient descent at this rate. */
static int descend(job *j, const compress_spec *c, double lr)
{
    *j = (job){ .o = tiny_options() };
    j->o.gemm = "native";
    j->o.steps = 1;
    j->o.compress = *c;
    optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
    j->o.optim.momentum = j->o.optim.weight_decay = j->o.optim.clip = 0.0;
    j->o.optim.warmup = 0;
    j->o.optim.schedule = LR_CONSTANT;
    j->o.optim.lr = lr;
    config = tiny_config();
    return make_plan(&j->plan, MOST_RANKS, "allreduce") && CHECK_OK(ranks_run(MOST_RANKS, "algorithm=direct", body, j));
}

/* DGC's local clipping in double: each of N replicas' gradients is cut to clip / sqrt(N) before they are added up.
 * Each by itself is what one step moves if the others are not listened to. */
static void replicas_clip_their_own_gradients(void)
{
    static const double clips[] = { 0.4, 1.2, 1e9 };
    compress_spec c = { .how = &one_of_them };
    job start, own[MOST_RANKS], j;
    double norm[MOST_RANKS] = { 0.0 };
    if (getenv("GT_TEST_TINY") || !descend(&start, &c, 1e-30))
        return;
    for (alone = 0; alone < MOST_RANKS; alone++) {
        if (!descend(&own[alone], &c, 1.0))
            return;
        for (size_t i = 0; i < start.count; i++)
            norm[alone] += pow((double)own[alone].x[0][i] - (double)start.x[0][i], 2);
        norm[alone] = sqrt(norm[alone]);
    }
    int cut = 0;
    for (size_t k = 0; k < sizeof clips / sizeof *clips; k++) {
        char spec[64];
        double off = 0.0, size = 0.0;
        snprintf(spec, sizeof spec, "topk:1,min=1,clip=%g", clips[k]);
        if (!CHECK_OK(compress_parse(&c, spec)) || !descend(&j, &c, 1.0))
            return;
        for (size_t i = 0; i < start.count; i++) {
            double want = 0.0;
            for (int r = 0; r < MOST_RANKS; r++)
                want += ((double)own[r].x[0][i] - (double)start.x[0][i])
                        * fmin(1.0, clips[k] / sqrt(MOST_RANKS) / norm[r]);
            off = fmax(off, fabs((double)j.x[0][i] - (double)start.x[0][i] - want));
            size = fmax(size, fabs(want));
        }
        for (int r = 0; r < MOST_RANKS; r++)
            cut += norm[r] > clips[k] / sqrt(MOST_RANKS);
        CHECKF(size > 0.0 && off < 2e-5 * (size + 1.0), "%s: of %.3g, %.3g is off", spec, size, off);
        release(&j);
    }
    CHECKF(cut > 0 && cut < 6, "of norms %.3g, %.3g, %.3g %d are cut", norm[0], norm[1], norm[2], cut);
    release(&start);
    for (int r = 0; r < MOST_RANKS; r++)
        release(&own[r]);
}

/* ---- another plan ------------------------------------------------------------------------------ */

typedef struct owed {
    job *j;
    float *kept[MOST_RANKS]; /* residuals, or velocities behind them, one after the other */
    size_t count[MOST_RANKS];
} owed;

static gt_status all_kept(train *t, float **out, size_t *count)
{
    checkpoint_state states[CHECKPOINT_STATES];
    const int n = train_states(t, states);
    float *x;
    *out = NULL;
    *count = 0;
    for (int s = 0; s < n; s++)
        for (int i = 0; !strcmp(states[s].owner, "residuals") && i < states[s].count(states[s].context); i++) {
            checkpoint_entry e;
            states[s].entry(states[s].context, i, &e);
            x = realloc(*out, (*count + (size_t)e.end) * sizeof *x);
            RANK_CHECK(x);
            *out = x;
            RANK_OK(states[s].read(states[s].context, i, x + *count));
            *count += (size_t)e.end;
        }
    return GT_OK;
}

/* Trains, or goes on from a checkpoint and does not. */
static gt_status owing(net_comm *c, void *context)
{
    owed *w = context;
    const int rank = net_comm_rank(c);
    train_options o = w->j->o;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &w->j->plan;
    gt_status st = dev_open(&d, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st && !o.resume)
        st = train_run(t, NULL);
    if (!st)
        st = all_kept(t, &w->kept[rank], &w->count[rank]);
    train_release(t);
    dev_close(d);
    return st;
}

static int run_owing(owed *w, job *j, int ranks, const compress_spec *c, const char *folder, int resume)
{
    *w = (owed){ .j = j };
    j->o = tiny_options();
    j->o.steps = STEPS / 2;
    j->o.compress = *c;
    j->o.run = folder;
    j->o.resume = resume;
    if (!c->how->moments) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    config = tiny_config();
    return make_plan(&j->plan, ranks, "allreduce") && CHECK_OK(ranks_run(ranks, "algorithm=direct", owing, w));
}

/* Of all ranks; residuals of sums are owed as those of ranks are. */
static double owed_in_all(const owed *w, int ranks, size_t i, size_t each)
{
    double sum = 0.0;
    for (int r = 0; r < ranks; r++)
        for (size_t k = i; k < w->count[0]; k += each)
            sum += (double)w->kept[r][k];
    return sum;
}

/* Some ranks trained, others go on: each has its own residuals, and what they owe in all is what the first did. */
static void another_plan_owes_the_same(void)
{
    static const struct {
        const char *spec;
        int before, then;
    } cases[] = { { "bf16", 2, 3 },
                  { "int8,min=16", 2, 3 },
                  { "topk:0.02,momentum=0.5", 2, 3 },
                  { "powersgd:1,rate=0", 2, 3 },
                  { "onebit", 2, 3 },
                  { "onebit", 3, 2 },
                  { "zeroone:1", 3, 2 },
                  { "demo:8,decay=0.75", 2, 3 } };
    for (size_t k = 0; !getenv("GT_TEST_TINY") && k < sizeof cases / sizeof *cases; k++) {
        const int before = cases[k].before, then = cases[k].then;
        char name[64];
        snprintf(name, sizeof name, "plan%zu", k);
        char *folder = gt_path_join(check_folder(), name);
        job j = { 0 };
        owed was, is;
        compress_spec c;
        double off = 0.0, size = 0.0;
        if (!CHECK_OK(compress_parse(&c, cases[k].spec)))
            return;
        c.after = (uint64_t)c.how->warms_up;
        if (!run_owing(&was, &j, before, &c, folder, 0))
            return;
        release(&j);
        if (!run_owing(&is, &j, then, &c, folder, 1))
            return;
        CHECK(was.count[0] > 0 && was.count[0] == was.count[1] && was.count[0] == is.count[then - 1]);
        const size_t each = c.how->serves ? was.count[0] / 2 : was.count[0];
        int served = 0;
        for (size_t i = 0; i < each; i++) {
            const double x = owed_in_all(&was, before, i, each), y = owed_in_all(&is, then, i, each);
            off = fmax(off, fabs(x - y));
            size = fmax(size, fabs(x));
            for (int r = 0; r < before && each < was.count[0]; r++)
                served |= was.kept[r][each + i] != 0.0f;
        }
        CHECKF(size > 0.0 && off <= 1e-6 * size, "%s: of at most %.3g, %.3g is not there any more", cases[k].spec, size,
               off);
        CHECK(served == (c.how->serves && before > 2));
        for (int r = 0; r < MOST_RANKS; r++) {
            free(was.kept[r]);
            free(is.kept[r]);
        }
        release(&j);
        free(folder);
    }
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
    for (int i = 0; compressor_at(i); i++) {
        const compressor *c = compressor_at(i);
        CHECK(compressor_find(compressor_name(c)) == c && *compressor_help(c) && c->rounds > 0);
        CHECK(compressor_changes(c) == (i > 0) && !c->encode == !c->decode);
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "|" : "", compressor_name(c));
    }
    compressor_names(names);
    CHECK(!strcmp(names, all));
    CHECK(!sync_mode_find("alone") && !sync_mode_find("") && !compressor_find("fp4"));
    CHECK(!strcmp(sync_mode_name(sync_mode_alone()), "alone"));
}

const check_case check_cases[] = {
    CASE(tables_agree_with_themselves),
    CASE(rounding_is_late_and_not_lost),
    CASE(sent_and_kept_are_the_gradient),
    CASE(top_k_is_deep_gradient_compression),
    CASE(fast_components_are_demo),
    CASE(low_rank_is_power_sgd),
    CASE(another_plan_owes_the_same),
    CASE(every_form_in_every_mode),
    CASE(told_is_what_crosses),
    CASE(errors_outlive_a_stop),
    CASE(signs_are_one_bit_and_zero_one_adam),
    CASE(a_warm_up_without_end_is_adamw),
    CASE(replicas_clip_their_own_gradients),
    { 0 }
};
