/* SPDX-License-Identifier: MIT */
/* tests/sync/test_encodings.c - what each form of gradients sends and keeps, against the papers in double.
 *
 *   one rank     gradient ──► encode ──► decode ──► what is sent; with what is kept it is the gradient
 *   several      encodings handed round by this file ──► first moments, parameters and what is kept, step by step
 *                                                   ──► DGC, 1-bit Adam, 0/1 Adam, PowerSGD, DeMo as published
 *
 * Without a network and without training: whoever is off by one step or one factor is named by value.   */
#include "host/base/random.h"
#include "host/compress/coding.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 3 };

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

const check_case check_cases[] = {
    CASE(rounding_is_late_and_not_lost),
    CASE(sent_and_kept_are_the_gradient),
    CASE(top_k_is_deep_gradient_compression),
    CASE(fast_components_are_demo),
    CASE(low_rank_is_power_sgd),
    CASE(signs_are_one_bit_and_zero_one_adam),
    { 0 }
};
