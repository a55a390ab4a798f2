/* SPDX-License-Identifier: MIT */
/* tests/sync/test_sync.c - every way of staying together, with every form in which gradients travel.
 *
 *   rank 0, 1, 2 as threads ──► 10 steps ──► the same parameters on all ranks, to the bit
 *                                       ──► those of uncompressed sums, as near as the form allows
 *
 * Two compressors of this file's own go the ways that those of the table do not: one in two rounds, one
 * that sees tensors and gathers. What a form says is test_encodings.c's, what it holds back test_residuals.c's. */
#include "host/compress/compressor.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/sync/replicas.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Each compressor against sums in fp32: how far parameters may be after REPLICAS_STEPS, and how many of their bytes it
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
    for (int ranks = 2; ranks <= (check_tiny() ? 2 : REPLICAS_MOST); ranks++)
        for (int m = 0; sync_mode_at(m); m++) {
            const char *mode = sync_mode_name(sync_mode_at(m));
            if (!sync_mode_compresses(sync_mode_at(m)))
                continue;
            replicas plain = { 0 };
            if (!replicas_run(&plain, ranks, "allreduce", NULL, REPLICAS_STEPS, NULL))
                return;
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                replicas j = { 0 };
                compress_spec c = { .how = cases[i].how };
                if (cases[i].spec && !CHECK_OK(compress_parse(&c, cases[i].spec)))
                    return;
                if (!replicas_run(&j, ranks, mode, &c, REPLICAS_STEPS, NULL))
                    return;
                const double off = replicas_distance(&j, &plain), bytes = j.sent / plain.sent;
                CHECKF(off <= cases[i].bound + 1e-6, "%d ranks, %s, %s: parameters are off by %.2g", ranks, mode,
                       c.how->name, off);
                CHECKF(ranks > 2 || m || fabs(bytes / cases[i].bytes - 1.0) < 0.05,
                       "%d ranks, %s, %s: %.3g of the bytes", ranks, mode, c.how->name, bytes);
                replicas_release(&j);
            }
            replicas_release(&plain);
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
            const int ranks = check_tiny() ? 2 : REPLICAS_MOST;
            double crossed = 0.0;
            replicas few = { 0 }, more = { 0 };
            compress_spec c;
            if (!CHECK_OK(compress_parse(&c, specs[i])))
                return;
            if (c.how->moments && !sync_mode_holds_all(sync_mode_at(m)))
                continue;
            c.after = (uint64_t)c.how->warms_up;
            if (!replicas_run(&few, ranks, sync_mode_name(sync_mode_at(m)), &c, 2, NULL)
                || !replicas_run(&more, ranks, sync_mode_name(sync_mode_at(m)), &c, 6, NULL))
                return;
            for (int r = 0; r < ranks; r++)
                crossed += ((double)more.crossed[r] - (double)few.crossed[r]) / 4.0;
            /* Heads of messages count more where these are short and many. */
            const double heads = c.how->serves ? 0.03 : 0.02;
            CHECKF(fabs(more.sent / crossed - 1.0) < heads, "%s, %s: %.0f bytes told, %.0f crossed", specs[i],
                   sync_mode_name(sync_mode_at(m)), more.sent, crossed);
            replicas_release(&few);
            replicas_release(&more);
        }
}

/* What is never compressed is what no compressor was asked for, to the bit; and what is, is not. */
static void a_warm_up_without_end_is_adamw(void)
{
    static const struct {
        const char *spec;
        uint64_t after;
        int same;
    } cases[] = { { "onebit", REPLICAS_STEPS, 1 },
                  { "zeroone:1000", 0, 1 },
                  { "onebit", REPLICAS_STEPS - 1, 0 },
                  { "zeroone:4", 0, 0 } };
    const int ranks = check_tiny() ? 2 : REPLICAS_MOST;
    replicas plain = { 0 };
    if (!replicas_run(&plain, ranks, "allreduce", NULL, REPLICAS_STEPS, NULL))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        replicas j = { 0 };
        compress_spec c;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        if (!replicas_run(&j, ranks, "allreduce", &c, REPLICAS_STEPS, NULL))
            return;
        CHECKF(cases[i].same == !memcmp(j.x[0], plain.x[0], plain.count * sizeof(float)),
               "%s: parameters are off by %.3g", cases[i].spec, replicas_distance(&j, &plain));
        CHECKF(replicas_distance(&j, &plain) < 0.05, "%s: parameters are off by %.3g", cases[i].spec,
               replicas_distance(&j, &plain));
        replicas_release(&j);
    }
    replicas_release(&plain);
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
static int descend(replicas *j, const compress_spec *c, double lr)
{
    *j = (replicas){ .o = tiny_options() };
    j->o.gemm = "native";
    j->o.steps = 1;
    j->o.compress = *c;
    optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
    j->o.optim.momentum = j->o.optim.weight_decay = j->o.optim.clip = 0.0;
    j->o.optim.warmup = 0;
    j->o.optim.schedule = LR_CONSTANT;
    j->o.optim.lr = lr;
    replicas_model = tiny_config();
    return replicas_plan(&j->plan, REPLICAS_MOST, "allreduce")
           && CHECK_OK(ranks_run(REPLICAS_MOST, "algorithm=direct", replicas_train, j));
}

/* DGC's local clipping in double: each of N replicas' gradients is cut to clip / sqrt(N) before they are added up.
 * Each by itself is what one step moves if the others are not listened to. */
static void replicas_clip_their_own_gradients(void)
{
    static const double clips[] = { 0.4, 1.2, 1e9 };
    compress_spec c = { .how = &one_of_them };
    replicas start, own[REPLICAS_MOST], j;
    double norm[REPLICAS_MOST] = { 0.0 };
    if (check_tiny() || !descend(&start, &c, 1e-30))
        return;
    for (alone = 0; alone < REPLICAS_MOST; alone++) {
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
            for (int r = 0; r < REPLICAS_MOST; r++)
                want += ((double)own[r].x[0][i] - (double)start.x[0][i])
                        * fmin(1.0, clips[k] / sqrt(REPLICAS_MOST) / norm[r]);
            off = fmax(off, fabs((double)j.x[0][i] - (double)start.x[0][i] - want));
            size = fmax(size, fabs(want));
        }
        for (int r = 0; r < REPLICAS_MOST; r++)
            cut += norm[r] > clips[k] / sqrt(REPLICAS_MOST);
        CHECKF(size > 0.0 && off < 2e-5 * (size + 1.0), "%s: of %.3g, %.3g is off", spec, size, off);
        replicas_release(&j);
    }
    CHECKF(cut > 0 && cut < 6, "of norms %.3g, %.3g, %.3g %d are cut", norm[0], norm[1], norm[2], cut);
    replicas_release(&start);
    for (int r = 0; r < REPLICAS_MOST; r++)
        replicas_release(&own[r]);
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
    CASE(tables_agree_with_themselves),   CASE(every_form_in_every_mode),          CASE(told_is_what_crosses),
    CASE(a_warm_up_without_end_is_adamw), CASE(replicas_clip_their_own_gradients), { 0 }
};
