/* SPDX-License-Identifier: MIT */
/* tests/sync/test_signs_apart.c - 0/1 Adam with local steps against its algorithm in double.
 *
 *   reference   the model's gradients in double (models/model_reference.h), a replica at a time; AdamW, signs of chunks
 *               with what they leave out, rounds apart and their end, all in this file
 *   the run     ranks as threads, each a replica with a share of the batch unlike the others'
 *
 * and what must come back to the bit: a run that was stopped, whatever the replicas are made of.  */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/compress/compressor.h"
#include "models/model_reference.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4, STEPS = 16, UNITS = 4 };

static const double EPS = 1e-4; /* a key's bias has no gradient but rounding */

static model_config config;

/* ---- when replicas are apart ------------------------------------------------------------------ */

/* Step by step: how long its round is, '|' behind the last of each. */
static void rounds_grow(void)
{
    static const struct {
        const char *spec, *rounds;
        uint64_t after;
    } cases[] = {
        { "zeroone:1,freeze=3", "1|1|1|1|1|1|", 0 },
        { "zeroone:1,freeze=3,local=1,double=2", "1|1|1|1|1|1|", 0 },
        { "zeroone:1,freeze=3,local=2", "1|1|1|22|22|22|", 0 },
        { "zeroone:1,freeze=2,local=3", "1|1|1|333|333|", 1 },
        { "zeroone:1,freeze=2,local=4,double=2", "1|1|1|1|22|4444|4444|", 0 },
        { "zeroone:1,freeze=2,local=6,double=3", "1|1|1|1|1|22|22|4444|666666|666666|", 0 },
        { "onebit", "1|1|1|1|", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        compress_spec c;
        uint64_t step = 0, first = 0, begin = 0;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        for (const char *p = cases[i].rounds; *p; p++) {
            if (*p == '|') {
                begin = step;
                continue;
            }
            const uint64_t length = compress_round(&c, step, &first);
            CHECKF(length == (uint64_t)(*p - '0') && first == begin, "%s: step %d is in a round of %d from %d on",
                   cases[i].spec, (int)step, (int)length, (int)first);
            CHECK(length == 1 || !compress_waits(&c, step));
            step++;
        }
    }
}

/* What cannot be is said before anything runs. */
static void what_cannot_be_is_refused(void)
{
    optim_config o = optim_defaults();
    compress_spec c;
    if (!CHECK_OK(compress_parse(&c, "zeroone:16,freeze=19,local=4")))
        return;
    CHECK_FAILS(compress_check(&c, &o), GT_MISUSE, "needs freeze=N of 20 or more");
    c.freeze = 20.0;
    CHECK_OK(compress_check(&c, &o));
    const sync_mode *all = sync_mode_find("allreduce");
    CHECK_OK(sync_mode_allows(all, NULL, &o, DTYPE_BF16, &c));
    CHECK_FAILS(sync_mode_allows(all, NULL, &o, DTYPE_F16, &c), GT_UNSUPPORTED, "with --precision fp16");
    CHECK_FAILS(sync_mode_allows(sync_mode_find("sharded"), NULL, &o, DTYPE_F32, &c), GT_UNSUPPORTED,
                "use --sync allreduce");
    CHECK_FAILS(sync_mode_allows(sync_mode_find("local"), NULL, &o, DTYPE_F32, &c), GT_UNSUPPORTED,
                "leave out --compress zeroone");
    CHECK(sync_mode_with(all, &c, 1) == all && sync_mode_with(all, &c, 2) != all);
    c.local = 1.0;
    CHECK(sync_mode_with(all, &c, 2) == all);
    CHECK_OK(sync_mode_allows(all, NULL, &o, DTYPE_F16, &c));
    optim_config_rule(&o, optim_rule_find("lion"));
    CHECK_FAILS(compress_check(&c, &o), GT_MISUSE, "and this run has lion");
    CHECK_OK(compress_parse(&c, "zeroone:16,freeze=1"));
    CHECK_FAILS(compress_check(&c, &o), GT_MISUSE, "and this run has lion");
    o = optim_defaults();
    CHECK_FAILS(compress_check(&c, &o), GT_MISUSE, "give freeze=2 or more");
}

/* ---- batches ------------------------------------------------------------------------------------ */

static void tokens_of(uint64_t sample, int32_t *to, int count)
{
    gt_random random;
    gt_random_init(&random, 17, sample);
    for (int i = 0; i < count; i++)
        to[i] = (int32_t)gt_random_below(&random, TINY_VOCAB);
}

/* Targets of some samples weigh nothing, so that now and then a replica has none that counts. */
static void weights_of(uint64_t sample, float *to)
{
    gt_random random;
    gt_random_init(&random, 19, sample);
    const int counts = sample % 4 != 3;
    for (int i = 0; i < TINY_T; i++)
        to[i] = counts ? 2.0f * gt_random_unit(&random) : 0.0f;
}

static double weight_of(uint64_t first, uint64_t count)
{
    float to[TINY_T];
    double all = 0.0;
    for (uint64_t s = first; s < first + count; s++) {
        weights_of(s, to);
        for (int i = 0; i < TINY_T; i++)
            all += (double)to[i];
    }
    return all;
}

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    int32_t ids[TINY_T + 1];
    (void)b;
    for (uint64_t i = 0; i < count; i++) {
        tokens_of(position + first + i, ids, TINY_T + 1);
        if (field[0])
            memcpy((int32_t *)field[0] + i * TINY_T, ids, sizeof(int32_t) * TINY_T);
        if (field[1])
            memcpy((int32_t *)field[1] + i * TINY_T, ids + 1, sizeof(int32_t) * TINY_T);
        if (field[2])
            weights_of(position + first + i, (float *)field[2] + i * TINY_T);
    }
    return GT_OK;
}

static gt_status total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    (void)b;
    out->weights = out->tokens = weight_of(position + first, count);
    return GT_OK;
}

static gt_status total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    return total(b, 0, first, count, out);
}

static void weighed_batches(data_batch *out, const void *c, const loader *l, const char *split)
{
    (void)c;
    *out = (data_batch){
        .field = { { .name = "tokens", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "targets", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "weights", .type = DTYPE_F32, .count = TINY_T } },
        .fields = 3,
        .fill = fill,
        .weights = "weights",
        .total = total,
        .total_rows = total_rows,
        .loader = l,
        .split = split
    };
}

static model_config weighed_config(void)
{
    model_config c = tiny_config();
    c.weighted = 1;
    return c;
}

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST];
    size_t count[MOST];
    double loss[STEPS];
    double sent;                            /* in all, as rows tell                         */
    uint64_t crossed[MOST];                 /* bytes that the transport took of each rank   */
    train *t;                               /* rank 0's, while it runs                      */
} job;

static void note_row(void *context, const metrics_row *row)
{
    job *j = context;
    j->loss[row->step - 1] = row->loss;
    j->sent += (double)train_balance_of(j->t)->sent;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    train_options o = j->o;
    const train_hooks hooks = { .context = j, .step = note_row };
    dev_device *d = NULL;
    train *t = NULL;
    uint64_t received, before = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st && !rank)
        j->t = t;
    /* How much it takes to measure links depends on what else the machine does meanwhile. */
    net_comm_traffic(c, &before, &received);
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    net_comm_traffic(c, &j->crossed[rank], &received);
    j->crossed[rank] -= before;
    if (!st)
        j->x[rank] = tiny_params(t, 0, &j->count[rank]);
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < MOST; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

static int options(train_options *o, const char *spec, uint64_t steps, const char *folder)
{
    *o = tiny_options();
    o->gemm = "native";
    o->steps = steps;
    o->optim.schedule = LR_COSINE;
    o->optim.steps = STEPS;
    o->optim.min_lr = 2e-4;
    o->optim.beta2 = 0.75;
    o->optim.eps = EPS;
    o->optim.clip = 0.0;
    o->run = folder;
    o->save_every = folder ? STEPS / 2 : 0;
    o->resume = folder && gt_path_exists(folder);
    return CHECK_OK(compress_parse(&o->compress, spec)) && CHECK_OK(compress_check(&o->compress, &o->optim));
}

/* 1: it ran. */
static int run(job *j, const tiny_replica *r, int count, int tensor, const train_options *o)
{
    j->o = *o;
    tiny_batch = weighed_batches;
    const int good = tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", "allreduce", r, count, tensor)
                     && CHECK_OK(ranks_run(j->plan.ranks, "algorithm=direct", body, j));
    tiny_batch = NULL;
    return good;
}

/* ---- the reference ------------------------------------------------------------------------------ */

typedef struct replica {
    double *x, *m, *u, *e, *g;
    double own;                             /* what its targets weighed in the round        */
    int updates;                            /* of m                                         */
    int first, size;                        /* of the batch                                 */
} replica;

typedef struct tensor {
    size_t at, count;
    int decays, blind;                      /* blind: the loss does not see it              */
    char name[72];
} tensor;

typedef struct reference {
    model_reference *model;
    replica of[MOST];
    int replicas;
    tensor *tensors;
    int tensor_count;
    size_t count;
    double *v, *back, *sum, *start;
    int served;                             /* sums are said again                          */
    int updates, variances;                 /* of first moments, of second                  */
} reference;

static double *zeros(size_t n)
{
    return calloc(n, sizeof(double));
}

/* Loss and gradient of a replica's targets at a step, where it is; 0: none counts. */
static double learn(reference *f, replica *r, uint64_t step, double *loss)
{
    static int32_t tokens[TINY_B * TINY_T], targets[TINY_B * TINY_T];
    static float w[TINY_B * TINY_T];
    double weights[TINY_B * TINY_T], all = 0.0;
    void *const field[] = { tokens, targets, w };
    *loss = 0.0;
    CHECK_OK(fill(NULL, step * TINY_B, (uint64_t)r->first, (uint64_t)r->size, field));
    for (int i = 0; i < r->size * TINY_T; i++) {
        weights[i] = (double)w[i];
        all += weights[i];
    }
    if (all <= 0.0)
        return 0.0;
    for (int i = 0; i < f->tensor_count; i++)
        memcpy(model_reference_find(f->model, f->tensors[i].name)->value, r->x + f->tensors[i].at,
               f->tensors[i].count * sizeof(double));
    CHECK_OK(model_reference_run(f->model, r->size, TINY_T, tokens, targets, weights, loss));
    for (int i = 0; i < f->tensor_count; i++)
        memcpy(r->g + f->tensors[i].at, model_reference_find(f->model, f->tensors[i].name)->grad,
               f->tensors[i].count * sizeof(double));
    return all;
}

/* x becomes mean |x| of its chunk with its sign; e what that leaves out. */
static void say(const reference *f, double *x, double *e)
{
    for (int i = 0; i < f->tensor_count; i++)
        for (size_t at = 0; at < f->tensors[i].count; at += COMPRESS_CHUNK) {
            const size_t left = f->tensors[i].count - at, n = left < COMPRESS_CHUNK ? left : COMPRESS_CHUNK;
            double *of = x + f->tensors[i].at + at, *lost = e + f->tensors[i].at + at, size = 0.0;
            for (size_t k = 0; k < n; k++)
                size += fabs(of[k]) / (double)n;
            for (size_t k = 0; k < n; k++) {
                const double said = copysign(size, of[k]);
                lost[k] = of[k] - said;
                of[k] = said;
            }
        }
}

/* What replicas give, x[r] = e[r] + give[r], said by each and added up, and maybe said again. */
static void put_together(reference *f, double kept)
{
    memset(f->sum, 0, f->count * sizeof *f->sum);
    for (int k = 0; k < f->replicas; k++) {
        replica *r = &f->of[k];
        for (size_t i = 0; i < f->count; i++)
            r->g[i] += kept * r->e[i];
        say(f, r->g, r->e);
        for (size_t i = 0; i < f->count; i++)
            f->sum[i] += r->g[i];
    }
    if (!f->served)
        return;
    for (size_t i = 0; i < f->count; i++)
        f->sum[i] += kept * f->back[i];
    say(f, f->sum, f->back);
}

static double bias(double beta, int updates)
{
    return 1.0 - pow(beta, updates);
}

static double move_of(const reference *f, const optim_config *o, size_t i, double m)
{
    return f->v[i] > 0.0 ? m / (sqrt(f->v[i] / bias(o->beta2, f->variances)) + o->eps) : 0.0;
}

static double decay_of(const reference *f, const optim_config *o, size_t i)
{
    for (int k = 0; k < f->tensor_count; k++)
        if (i >= f->tensors[k].at && i < f->tensors[k].at + f->tensors[k].count)
            return f->tensors[k].decays ? o->weight_decay : 0.0;
    return 0.0;
}

/* A step of all ranks together. Returns its loss. */
static double step_together(reference *f, const train_options *o, uint64_t step)
{
    const int plain = compress_waits(&o->compress, step);
    const double all = weight_of(step * TINY_B, TINY_B), lr = optim_lr(&o->optim, step), b1 = o->optim.beta1;
    double loss = 0.0;
    memset(f->sum, 0, f->count * sizeof *f->sum);
    for (int k = 0; k < f->replicas; k++) {
        replica *r = &f->of[k];
        double own_loss;
        const double share = learn(f, r, step, &own_loss) / all;
        loss += share * own_loss;
        for (size_t i = 0; i < f->count; i++) {
            r->g[i] = share > 0.0 ? share * r->g[i] : 0.0;
            f->sum[i] += r->g[i];
            r->g[i] = b1 * r->m[i] / f->replicas + (1.0 - b1) * r->g[i];
        }
    }
    if (!plain)
        put_together(f, 1.0);
    f->updates++;
    f->variances += plain;
    for (size_t i = 0; i < f->count; i++) {
        const double m = plain ? b1 * f->of[0].m[i] + (1.0 - b1) * f->sum[i] : f->sum[i];
        f->v[i] = plain ? o->optim.beta2 * f->v[i] + (1.0 - o->optim.beta2) * f->sum[i] * f->sum[i] : f->v[i];
        const double x = f->of[0].x[i] * (1.0 - lr * decay_of(f, &o->optim, i))
                         - lr / bias(b1, f->updates) * move_of(f, &o->optim, i, m);
        for (int k = 0; k < f->replicas; k++) {
            f->of[k].x[i] = x;
            f->of[k].m[i] = m;
        }
    }
    for (int k = 0; k < f->replicas; k++)
        f->of[k].updates = f->updates;
    return loss;
}

/* Of steps [from, to) the sum of lr / bias. */
static double rate_of(const reference *f, const train_options *o, uint64_t from, uint64_t to, int updates)
{
    double sum = 0.0;
    (void)f;
    for (uint64_t t = from; t < to; t++)
        sum += optim_lr(&o->optim, t) / bias(o->optim.beta1, updates - (int)(to - 1 - t));
    return sum;
}

/* Algorithm 1 from the step `first` on; the run ends with step STEPS. Returns the first step behind it. */
static uint64_t round_apart(reference *f, const train_options *o, uint64_t first, uint64_t length, double *loss)
{
    const uint64_t end = first + length < o->steps ? first + length : o->steps;
    const double b1 = o->optim.beta1;
    double all = 0.0, keep = 1.0;
    memcpy(f->start, f->of[0].x, f->count * sizeof *f->start);
    for (int k = 0; k < f->replicas; k++) {
        memset(f->of[k].u, 0, f->count * sizeof(double));
        f->of[k].own = 0.0;
    }
    for (uint64_t t = first; t < end; t++) {
        const double lr = optim_lr(&o->optim, t), weights = weight_of(t * TINY_B, TINY_B);
        loss[t] = 0.0;
        for (int k = 0; k < f->replicas; k++) {
            replica *r = &f->of[k];
            double own_loss;
            const double own = learn(f, r, t, &own_loss);
            loss[t] += own / weights * own_loss;
            r->own += own;
            r->updates += own > 0.0;
            for (size_t i = 0; own > 0.0 && i < f->count; i++) {
                const double rate = lr / bias(b1, r->updates);
                r->m[i] = b1 * r->m[i] + (1.0 - b1) * r->g[i];
                r->u[i] += rate * r->m[i];
                r->x[i] = r->x[i] * (1.0 - lr * decay_of(f, &o->optim, i)) - rate * move_of(f, &o->optim, i, r->m[i]);
            }
        }
        all += weights;
        keep *= 1.0 - lr * o->optim.weight_decay;
        f->updates++;
    }
    uint64_t from;
    compress_round(&o->compress, first - 1, &from);
    const double rate = rate_of(f, o, first, end, f->updates);
    const double before = rate_of(f, o, from, first, f->updates - (int)(end - first));
    for (int k = 0; k < f->replicas; k++)       /* the mean of u, as the error before was of u */
        for (size_t i = 0; i < f->count; i++)
            f->of[k].g[i] = f->of[k].own / all * f->of[k].u[i] / rate;
    put_together(f, before / rate);
    for (size_t i = 0; i < f->count; i++) {
        const double x = f->start[i] * (decay_of(f, &o->optim, i) > 0.0 ? keep : 1.0)
                         - rate * move_of(f, &o->optim, i, f->sum[i]);
        for (int k = 0; k < f->replicas; k++) {
            f->of[k].x[i] = x;
            f->of[k].m[i] = f->sum[i];
            f->of[k].updates = f->updates;
        }
    }
    return end;
}

/* Where all begin, and what parameters are called. */
static int begin(reference *f, const tiny_replica *of, int replicas, const train_options *o)
{
    dev_device *d = NULL;
    size_t n = 0;
    int first = 0;
    train_options one = *o;
    one.compress = (compress_spec){ 0 };
    *f = (reference){ .replicas = replicas, .served = replicas > 2 && o->compress.server != 0.0 };
    tiny_batch = weighed_batches;
    train *t = CHECK_OK(tiny_open(&d)) ? tiny_train(d, &config, &one) : NULL;
    tiny_batch = NULL;
    if (!t || !CHECK_OK(model_reference_create(&f->model, &config)))
        return 0;
    float *x = tiny_params(t, 0, &f->count);
    params *p = train_params(t);
    f->tensor_count = params_count(p);
    f->tensors = calloc((size_t)f->tensor_count, sizeof *f->tensors);
    for (int i = 0; i < f->tensor_count; i++) {
        const graph_param_info *info = params_info(p, i);
        f->tensors[i] = (tensor){ .at = n, .count = (size_t)shape_count(&info->shape), .decays = info->decay };
        snprintf(f->tensors[i].name, sizeof f->tensors[i].name, "%s", info->name);
        f->tensors[i].blind = strstr(info->name, "c_attn.bias") != NULL;
        n += f->tensors[i].count;
    }
    f->v = zeros(n);
    f->back = zeros(n);
    f->sum = zeros(n);
    f->start = zeros(n);
    for (int k = 0; k < replicas; k++) {
        f->of[k] = (replica){
            zeros(n), zeros(n), zeros(n), zeros(n), zeros(n), 0.0, 0, first, of[k].micro_batches * of[k].micro_batch
        };
        first += f->of[k].size;
        for (size_t i = 0; i < n; i++)
            f->of[k].x[i] = (double)x[i];
    }
    free(x);
    train_release(t);
    dev_close(d);
    return 1;
}

static void finish(reference *f)
{
    model_reference_release(f->model);
    for (int k = 0; k < f->replicas; k++) {
        free(f->of[k].x);
        free(f->of[k].m);
        free(f->of[k].u);
        free(f->of[k].e);
        free(f->of[k].g);
    }
    free(f->tensors);
    free(f->v);
    free(f->back);
    free(f->sum);
    free(f->start);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static const tiny_replica three[] = { { 1, 3, 1 }, { 1, 1, 1 }, { 1, 1, 2 } }, two[] = { { 1, 2, 2 }, { 1, 1, 2 } };
/* One of two stages beside one of one; and of two tensor ranks each. */
static const tiny_replica uneven[] = { { 2, 2, 2 }, { 1, 1, 2 } };

static void it_is_zero_one_adam(void)
{
    static const struct {
        const char *spec;
        const tiny_replica *of;
        int replicas;
    } cases[] = { { "zeroone:2,freeze=4", two, 2 },
                  { "zeroone:2,freeze=4,local=3", two, 2 },
                  { "zeroone:4,freeze=4,local=4,double=4", two, 2 },
                  { "zeroone:4,freeze=5,local=4", three, 3 },
                  { "zeroone:1,freeze=5,local=5,double=2,server=0", three, 3 } };
    config = weighed_config();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        job j = { 0 };
        reference f;
        train_options o;
        double loss[STEPS], worst = 0.0, off = 0.0, norm = 0.0;
        int turned = 0; /* signs of next to nothing, which rounding decides */
        uint64_t first;
        if (!options(&o, cases[i].spec, STEPS, NULL) || !run(&j, cases[i].of, cases[i].replicas, 1, &o)
            || !begin(&f, cases[i].of, cases[i].replicas, &o))
            return;
        for (uint64_t t = 0; t < STEPS;) {
            const uint64_t length = compress_round(&o.compress, t, &first);
            CHECK(first == t);
            if (length > 1)
                t = round_apart(&f, &o, t, length, loss);
            else {
                loss[t] = step_together(&f, &o, t);
                t++;
            }
        }
        for (int t = 0; t < STEPS; t++)
            worst = fmax(worst, fabs(j.loss[t] - loss[t]));
        for (int k = 0; k < f.tensor_count; k++)
            for (size_t n = f.tensors[k].at; !f.tensors[k].blind && n < f.tensors[k].at + f.tensors[k].count; n++) {
                const double d = fabs((double)j.x[0][n] - f.of[0].x[n]);
                turned += d > 1e-5;
                off += d > 1e-5 ? 0.0 : d * d;
                norm += pow(f.of[0].x[n], 2);
            }
        CHECKF(worst > 0.0 && worst < 1e-4, "%s: a loss is off by %.3g", cases[i].spec, worst);
        CHECKF(sqrt(off / norm) < 5e-6, "%s: parameters are off by %.3g", cases[i].spec, sqrt(off / norm));
        CHECKF((double)turned < 2e-3 * (double)f.count, "%s: %d of %zu parameters are off", cases[i].spec, turned,
               f.count);
        for (int r = 1; r < cases[i].replicas; r++)
            CHECKF(!memcmp(j.x[0], j.x[r], j.count[0] * sizeof(float)), "%s: rank %d has other weights than rank 0",
                   cases[i].spec, r);
        finish(&f);
        release(&j);
    }
}

static void a_stop_changes_no_bit(void)
{
    static const struct {
        const char *spec;
        const tiny_replica *of;
        int replicas, tensor;
        dtype precision;
    } cases[] = { { "zeroone:2,freeze=4,local=2", two, 2, 1, DTYPE_F32 },
                  { "zeroone:2,freeze=4,local=4", three, 3, 1, DTYPE_F32 },
                  { "zeroone:2,freeze=5,local=3", uneven, 2, 1, DTYPE_F32 },
                  { "zeroone:2,freeze=4,local=4,double=2", uneven, 2, 1, DTYPE_BF16 },
                  { "zeroone:2,freeze=4,local=4", two, 2, 2, DTYPE_F32 } };
    config = weighed_config();
    config.context += 5; /* positions that no step touches */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        job whole = { 0 }, part = { 0 }, rest = { 0 };
        train_options o;
        snprintf(name, sizeof name, "stop-%zu", i);
        char *folder = gt_path_join(check_folder(), name);
        int good = options(&o, cases[i].spec, STEPS, NULL);
        o.precision = cases[i].precision;
        good = good && run(&whole, cases[i].of, cases[i].replicas, cases[i].tensor, &o);
        /* It stops where ranks meet, which is not where it was told to save. */
        good = good && options(&o, cases[i].spec, STEPS, folder);
        o.precision = cases[i].precision;
        o.save_every = 7;
        good = good && run(&part, cases[i].of, cases[i].replicas, cases[i].tensor, &o);
        char *last = gt_path_join(folder, "checkpoints/step-000016");
        CHECK_OK(gt_folder_remove(last));
        o.resume = 1;
        good = good && run(&rest, cases[i].of, cases[i].replicas, cases[i].tensor, &o);
        for (int r = 0; good && r < whole.plan.ranks; r++)
            CHECKF(!memcmp(rest.x[r], whole.x[r], whole.count[r] * sizeof(float))
                       && !memcmp(part.x[r], whole.x[r], whole.count[r] * sizeof(float)),
                   "%s, replicas %zu, rank %d: going on gives other bits", cases[i].spec, i, r);
        CHECK(isfinite(whole.loss[STEPS - 1]) && whole.loss[STEPS - 1] < 4.0);
        free(folder);
        free(last);
        release(&whole);
        release(&part);
        release(&rest);
    }
}

/* A replica cut into stages does what a whole one does: both of its ends hold the same table, of which each gives half.
 * Gradients are cut by their norm, without which the losses go elsewhere. */
static void stages_do_what_a_whole_replica_does(void)
{
    job whole = { 0 }, cut = { 0 }, uncut = { 0 };
    train_options o;
    double worst = 0.0, apart = 0.0;
    config = weighed_config();
    int good = options(&o, "zeroone:1000,freeze=4,local=3,server=0", STEPS, NULL);
    o.optim.clip = 0.5;
    good = good && run(&whole, two, 2, 1, &o) && run(&cut, uneven, 2, 1, &o);
    o.optim.clip = 0.0;
    good = good && run(&uncut, two, 2, 1, &o);
    for (int t = 0; good && t < STEPS; t++) {
        worst = fmax(worst, fabs(cut.loss[t] - whole.loss[t]));
        apart = fmax(apart, fabs(uncut.loss[t] - whole.loss[t]));
    }
    CHECKF(good && worst < 1e-4, "a loss is off by %.3g", worst);
    CHECKF(apart > 1e-3, "without a limit of the norm losses are off by %.3g alone", apart);
    release(&uncut);
    release(&whole);
    release(&cut);
}

/* Steps apart send nothing, and what is told is what crosses, but for the words of who meets. */
static void a_round_sends_once(void)
{
    config = weighed_config();
    double sent[3], crossed[3];
    static const char *const specs[] = { "zeroone:1,freeze=4", "zeroone:1,freeze=4,local=4",
                                         "zeroone:1,freeze=4,local=12" };
    for (int i = 0; i < 3; i++) {
        job few = { 0 }, all = { 0 };
        train_options o;
        if (!options(&o, specs[i], 4, NULL) || !run(&few, three, 3, 1, &o) || !options(&o, specs[i], STEPS, NULL)
            || !run(&all, three, 3, 1, &o))
            return;
        sent[i] = all.sent - few.sent;
        crossed[i] = 0.0;
        for (int r = 0; r < 3; r++)
            crossed[i] += (double)all.crossed[r] - (double)few.crossed[r];
        CHECKF(crossed[i] > sent[i] && crossed[i] - sent[i] < 0.04 * crossed[0], "%s: %.0f bytes told, %.0f crossed",
               specs[i], sent[i], crossed[i]);
        release(&few);
        release(&all);
    }
    CHECKF(sent[0] == 4.0 * sent[1] && sent[0] == 12.0 * sent[2], "%.0f, %.0f and %.0f bytes", sent[0], sent[1],
           sent[2]);
    CHECKF(crossed[1] < 0.27 * crossed[0] && crossed[2] < 0.11 * crossed[0], "%.0f, %.0f and %.0f bytes crossed",
           crossed[0], crossed[1], crossed[2]);
}

const check_case check_cases[] = {
    CASE(rounds_grow),
    CASE(what_cannot_be_is_refused),
    CASE(it_is_zero_one_adam),
    CASE(a_stop_changes_no_bit),
    CASE(a_round_sends_once),
    CASE(stages_do_what_a_whole_replica_does),
    { 0 }
};
