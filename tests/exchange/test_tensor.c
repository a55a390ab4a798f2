/* SPDX-License-Identifier: MIT */
/* tests/exchange/test_tensor.c - a model split over ranks has the loss and the gradients of the whole
 * one, however it is split.
 *
 * Ranks are threads with a device each. Each runs its part of every stage, one stage after the
 * other; stages hand their rows over through host memory. Every rank's gradients are put where
 * they belong in the full tensors, and those of all ranks added up, as optimizers will.    */
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/exchange/tensor_exchange.h"
#include "models/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 3, SHORT = 7, LONG = 64, MICROS = 2, MOST_RANKS = 4, MOST_STAGES = 2 };

typedef struct trial {
    model_config config;
    dtype storage;
    int ranks;                          /* of the tensor group; 1: whole                */
    const double *share;
    int stages;                         /* 2: cut behind the first layer                */
    int recompute, split, evaluate;     /* evaluate: forward alone, without dropout     */
    int long_ones;                      /* sequences of LONG instead of SHORT           */
    int look;                           /* for bad numbers, when all is done            */
} trial;

/* Full gradients, in the order of the whole model's parameters; what a rank does not hold is 0. */
typedef struct result {
    graph *whole;                       /* names and shapes                             */
    float **grad;
    double loss;
    tensor_exchange_spent spent;
} result;

static int tokens_of(const trial *t)
{
    return t->long_ones ? LONG : SHORT;
}

static model_config small(void)
{
    return (model_config){
        .family = "gpt2",
        .name = "small",
        .layers = 2,
        .heads = 4,
        .channels = 32,
        .inner = 130,
        .context = LONG + 2,
        .vocab = 61,
        .eps = 1e-5f,
        .init_deviation = 0.2f
    };
}

static model_config dropping(void)
{
    model_config c = small();
    c.dropout_embed = 0.1f;
    c.dropout_attention = 0.2f;
    c.dropout_residual = 0.15f;
    return c;
}

static void result_release(result *r)
{
    for (int i = 0; r->grad && i < graph_param_count(r->whole); i++)
        free(r->grad[i]);
    free(r->grad);
    graph_release(r->whole);
    memset(r, 0, sizeof *r);
}

static gt_status result_create(result *r, const trial *t)
{
    memset(r, 0, sizeof *r);
    gt_status st = graph_create(&r->whole, t->storage, B, tokens_of(t));
    if (!st)
        st = model_build_loss(r->whole, &t->config, 1, 0);
    if (!st)
        r->grad = calloc((size_t)graph_param_count(r->whole), sizeof *r->grad);
    for (int i = 0; !st && r->grad && i < graph_param_count(r->whole); i++) {
        r->grad[i] = calloc((size_t)shape_count(&graph_param_at(r->whole, i)->shape), sizeof(float));
        if (!r->grad[i])
            st = gt_fail(GT_NO_MEMORY, "cannot hold gradients");
    }
    return st;
}

/* ---- one stage on one rank ----------------------------------------------------------------- */

typedef struct stage {
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} stage;

static void stage_release(stage *s)
{
    exec_release(s->e);
    exec_arena_release(s->arena);
    params_release(s->p);
    graph_release(s->g);
}

/* Every tensor random, gains around 1: no zero hides a mistake. */
static gt_status fill(params *p)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const size_t n = (size_t)shape_count(&info->full);
        float *x = malloc(n * sizeof *x);
        gt_random r;
        RANK_CHECK(x);
        gt_random_init(&r, 5, gt_hash(info->name, strlen(info->name)));
        gt_random_normal(&r, x, n, info->init == GRAPH_INIT_ONE ? 1.0f : 0.0f, 0.2f);
        st = params_write_full(p, i, x);
        free(x);
    }
    return st;
}

/* Writes an input that the stage may not have. */
static gt_status give(dev_device *d, stage *s, const char *name, const void *data, size_t bytes)
{
    dev_buffer *b = exec_buffer(s->e, name);
    return b ? dev_write(d, b, 0, data, bytes) : GT_OK;
}

/* Micro-batch m: every third target is ignored, some tokens repeat. */
static gt_status give_batch(const trial *t, dev_device *d, stage *s, int m)
{
    enum { MOST = B * LONG };
    int32_t x[MOST], y[MOST], order[MOST] = { 0 }, starts[MOST + 2] = { 0 };
    const int R = B * tokens_of(t);
    const size_t bytes = (size_t)R * sizeof *x;
    int32_t *scratch = malloc(((size_t)t->config.vocab + 1) * sizeof *scratch);
    const uint32_t random[4] = { 11, 12, 13, (uint32_t)m };
    const float scale = 1.0f / (float)R;
    gt_random r;
    RANK_CHECK(scratch);
    gt_random_init(&r, 9, (uint64_t)m);
    for (int i = 0; i < R; i++) {
        x[i] = (int32_t)gt_random_below(&r, (uint64_t)t->config.vocab);
        y[i] = i % 3 == 2 ? -1 : (int32_t)gt_random_below(&r, (uint64_t)t->config.vocab);
    }
    x[4] = x[9] = x[1];
    kernel_embed_sort(x, R, t->config.vocab, order, starts, scratch);
    free(scratch);
    RANK_OK(give(d, s, "tokens", x, bytes));
    RANK_OK(give(d, s, "targets", y, bytes));
    RANK_OK(give(d, s, "embed_order", order, bytes));
    RANK_OK(give(d, s, "embed_starts", starts, bytes + 2 * sizeof *starts));
    RANK_OK(give(d, s, "random", random, sizeof random));
    return give(d, s, "grad_scale", &scale, sizeof scale);
}

/* One rank: its device and its stages. */
typedef struct machine {
    const trial *t;
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
    tensor_exchange *exchange;
    stage stage[MOST_STAGES];
} machine;

static void machine_release(machine *m)
{
    for (int i = 0; i < MOST_STAGES; i++)
        stage_release(&m->stage[i]);
    tensor_exchange_release(m->exchange);
    gemm_context_release(m->gemm);
    kernel_set_release(m->k);
    dev_close(m->d);
}

static gt_status open_stage(machine *m, int i, int rank)
{
    const trial *t = m->t;
    stage *s = &m->stage[i];
    const int units = model_units(&t->config), cut = t->stages > 1 ? 2 : units;
    const graph_part part = {
        .first_unit = i ? cut : 0, .units = i ? units - cut : cut, .ranks = t->ranks, .rank = rank, .share = t->share
    };
    RANK_OK(graph_create(&s->g, t->storage, B, tokens_of(t)));
    RANK_OK(model_build_part(s->g, &t->config, &part, !t->evaluate, t->recompute));
    RANK_OK(params_create(&s->p, m->d, s->g, !t->evaluate));
    RANK_OK(fill(s->p));
    RANK_OK(params_refresh(s->p, m->k));
    RANK_OK(exec_arena_create(&s->arena, m->d));
    const exec_options o = {
        .device = m->d,
        .kernels = m->k,
        .gemm = m->gemm,
        .params = s->p,
        .arena = s->arena,
        .split = t->split,
        .exchange = m->exchange ? tensor_exchange_make : NULL,
        .exchange_context = m->exchange
    };
    RANK_OK(exec_create(&s->e, s->g, &o));
    return exec_ready(s->e);
}

static gt_status machine_open(machine *m, const trial *t, net_group *group, int rank)
{
    m->t = t;
    RANK_OK(dev_open(&m->d, getenv("GT_TEST_DEVICE")));
    RANK_OK(kernel_set_create(&m->k, m->d, t->storage));
    RANK_OK(gemm_context_create(&m->gemm, m->d, "tiled"));
    if (group)
        RANK_OK(tensor_exchange_create(&m->exchange, group, m->d, NULL));
    for (int i = 0; i < t->stages; i++)
        RANK_OK(open_stage(m, i, rank));
    return GT_OK;
}

/* What travels between stages, through host memory. */
static gt_status carry(machine *m, exec *from, int value, exec *to, int input, const graph *g)
{
    const graph_value *v = graph_value_at(g, value);
    const size_t bytes = (size_t)shape_count(&v->shape) * dtype_size(v->type);
    void *data = malloc(bytes);
    RANK_CHECK(data);
    gt_status st = dev_read(m->d, exec_value(from, value), 0, data, bytes);
    if (!st)
        st = dev_write(m->d, exec_value(to, input), 0, data, bytes);
    free(data);
    return st;
}

static gt_status run_batches(machine *m)
{
    stage *s = m->stage;
    const int last = m->t->stages - 1;
    const graph_ends a = graph_ends_of(s[0].g), z = graph_ends_of(s[last].g);
    for (int micro = 0; micro < MICROS; micro++) {
        for (int i = 0; i <= last; i++) {
            RANK_OK(give_batch(m->t, m->d, &s[i], micro));
            RANK_OK(exec_add(s[i].e, micro > 0));
        }
        RANK_OK(exec_run(s[0].e, EXEC_FORWARD));
        if (last) {
            RANK_OK(carry(m, s[0].e, a.y, s[1].e, z.x, s[0].g));
            RANK_OK(exec_run(s[1].e, EXEC_FORWARD));
        }
        if (m->t->evaluate)
            continue;
        for (int i = last; i >= 0; i--) {
            RANK_OK(exec_run(s[i].e, m->t->split ? EXEC_INPUT_GRAD : EXEC_BACKWARD));
            if (i)                          /* dx stays until another program runs */
                RANK_OK(carry(m, s[1].e, z.dx, s[0].e, a.dy, s[1].g));
            if (m->t->split)
                RANK_OK(exec_run(s[i].e, EXEC_WEIGHT_GRAD));
        }
    }
    return GT_OK;
}

/* Adds what this stage holds to the full tensors. */
static gt_status collect(stage *s, result *r)
{
    for (int i = 0; i < params_count(s->p); i++) {
        const graph_param_info *info = params_info(s->p, i);
        const size_t n = (size_t)shape_count(&info->full);
        int at = 0;
        while (strcmp(graph_param_at(r->whole, at)->name, info->name))
            RANK_CHECK(++at < graph_param_count(r->whole));
        RANK_CHECK(shape_equal(&graph_param_at(r->whole, at)->shape, &info->full));
        float *held = calloc((size_t)shape_count(&info->shape), sizeof *held);
        float *full = calloc(n, sizeof *full);
        gt_status st = held && full ? params_read_grad(s->p, i, held) : GT_NO_MEMORY;
        if (!st && info->slice.parts)
            tensor_slice_put(full, held, &info->full, &info->slice);
        for (size_t j = 0; !st && j < n; j++)
            r->grad[at][j] += info->slice.parts ? full[j] : held[j];
        free(held);
        free(full);
        RANK_OK(st);
    }
    return GT_OK;
}

/* Node by node, exchanges too: nothing is wrong, and then a token is. */
static gt_status look(machine *m)
{
    const int32_t foreign = m->t->config.vocab;
    stage *s = &m->stage[0];
    char name[96];
    RANK_OK(exec_find_bad(s->e, name, sizeof name));
    RANK_CHECK(!name[0]);
    RANK_OK(dev_write(m->d, exec_buffer(s->e, "tokens"), 0, &foreign, sizeof foreign));
    RANK_OK(exec_find_bad(s->e, name, sizeof name));
    RANK_CHECK(strstr(name, "'embed'"));
    return GT_OK;
}

static gt_status run_rank(const trial *t, net_group *group, int rank, result *r)
{
    machine m = { 0 };
    float loss = 0.0f;
    gt_status st = result_create(r, t);
    if (!st)
        st = machine_open(&m, t, group, rank);
    if (!st)
        st = run_batches(&m);
    dev_buffer *sum = st ? NULL : exec_buffer(m.stage[t->stages - 1].e, "loss_sum");
    if (sum)
        st = dev_read(m.d, sum, 0, &loss, sizeof loss);
    r->loss = (double)loss;
    for (int i = 0; !st && !t->evaluate && i < t->stages; i++)
        st = collect(&m.stage[i], r);
    if (!st && t->look)
        st = look(&m);
    if (!st && m.exchange)
        st = tensor_exchange_spent_of(m.exchange, &r->spent);
    machine_release(&m);
    return st;
}

/* ---- all ranks -------------------------------------------------------------------------------- */

typedef struct gang {
    const trial *t;
    result results[MOST_RANKS];
} gang;

static gt_status body(net_comm *c, void *context)
{
    static const int ranks[MOST_RANKS] = { 0, 1, 2, 3 };
    gang *all = context;
    const int rank = net_comm_rank(c);
    net_group *group;
    RANK_OK(net_group_create(&group, c, ranks, net_comm_size(c)));
    gt_status st = run_rank(all->t, group, rank, &all->results[rank]);
    if (!st)
        st = net_barrier(group);
    net_group_release(group);
    return st;
}

/* The sum over ranks, in their order. */
static int run(const trial *t, result *out)
{
    gang all = { .t = t };
    int good;
    if (t->ranks < 2)
        return CHECK_OK(run_rank(t, NULL, 0, out));
    good = CHECK_OK(ranks_run(t->ranks, "", body, &all)) && CHECK_OK(result_create(out, t));
    for (int k = 0; good && k < t->ranks; k++) {
        const result *r = &all.results[k];
        out->loss += r->loss;
        CHECK(k == 0 || r->loss == 0.0);
        CHECK(r->spent.exchanges > 0 && r->spent.bytes > 0 && r->spent.ns > 0);
        for (int i = 0; i < graph_param_count(out->whole); i++)
            for (int64_t j = 0; j < shape_count(&graph_param_at(out->whole, i)->shape); j++)
                out->grad[i][j] += r->grad[i][j];
    }
    for (int k = 0; k < t->ranks; k++)
        result_release(&all.results[k]);
    return good;
}

static double relative(const float *a, const float *b, size_t n)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0.0 ? sqrt(difference / norm) : difference > 0.0 ? INFINITY : 0.0;
}

/* Loss and every gradient of `a` are those of `b`, to `slack`. */
static void compare(const trial *t, const result *a, const result *b, double slack)
{
    CHECKF(b->loss > 1.0 && fabs(a->loss - b->loss) <= slack * b->loss, "%d ranks, %d stages: loss %.9g, want %.9g",
           t->ranks, t->stages, a->loss, b->loss);
    for (int i = 0; !t->evaluate && i < graph_param_count(b->whole); i++) {
        const graph_param_info *info = graph_param_at(b->whole, i);
        const double d = relative(a->grad[i], b->grad[i], (size_t)shape_count(&info->shape));
        CHECKF(d <= slack,
               "%d ranks, %d stages, recompute %d, split %d: the gradient of '%s' is %.3g "
               "away",
               t->ranks, t->stages, t->recompute, t->split, info->name, d);
    }
}

/* As the whole model on one rank. */
static void same_as_whole(const trial *t, double slack)
{
    trial one = *t;
    result a = { 0 }, b = { 0 };
    one.ranks = one.stages = 1;
    one.recompute = one.split = 0;
    if (run(&one, &b) && run(t, &a))
        compare(t, &a, &b, slack);
    result_release(&a);
    result_release(&b);
}

static const double three_to_one[] = { 0.75, 0.25 }, three_ways[] = { 0.5, 0.3, 0.2 };

static void any_number_of_ranks_gives_the_same_gradients(void)
{
    for (int ranks = 2; ranks <= MOST_RANKS; ranks++)
        same_as_whole(&(trial){ .config = small(), .ranks = ranks, .stages = 1 }, 1e-5);
}

static void unequal_shares_give_the_same_gradients(void)
{
    same_as_whole(&(trial){ .config = small(), .ranks = 2, .share = three_to_one, .stages = 1 }, 1e-5);
    same_as_whole(&(trial){ .config = small(), .ranks = 3, .share = three_ways, .stages = 1 }, 1e-5);
}

static void dropout_draws_the_bits_of_the_whole(void)
{
    same_as_whole(&(trial){ .config = dropping(), .ranks = 2, .stages = 1 }, 1e-5);
    same_as_whole(&(trial){ .config = dropping(), .ranks = 3, .share = three_ways, .stages = 1 }, 1e-5);
}

static void recomputing_and_split_programs_change_nothing(void)
{
    for (int how = 1; how < 4; how++)
        same_as_whole(&(trial){ .config = dropping(),
                                .ranks = 2,
                                .share = three_to_one,
                                .stages = 1,
                                .recompute = how & 1,
                                .split = how >> 1 },
                      1e-5);
}

static void stages_of_split_layers_chain(void)
{
    static const double half[] = { 0.5, 0.5 };
    same_as_whole(&(trial){ .config = dropping(), .ranks = 1, .stages = 2 }, 1e-5);
    same_as_whole(&(trial){ .config = dropping(), .ranks = 2, .share = half, .stages = 2 }, 1e-5);
    same_as_whole(&(trial){ .config = dropping(),
                            .ranks = 2,
                            .share = three_to_one,
                            .stages = 2,
                            .recompute = 1,
                            .split = 1 },
                  1e-5);
}

static void sixteen_bits_give_nearly_the_same(void)
{
    same_as_whole(&(trial){ .config = dropping(),
                            .storage = DTYPE_BF16,
                            .ranks = 2,
                            .stages = 1,
                            .share = three_to_one },
                  0.03);
    same_as_whole(&(trial){ .config = small(), .storage = DTYPE_F16, .ranks = 2, .stages = 2 }, 0.01);
}

static void evaluation_has_the_same_loss(void)
{
    same_as_whole(&(trial){ .config = dropping(), .ranks = 3, .share = three_ways, .stages = 2, .evaluate = 1 }, 1e-5);
}

/* A vocabulary whose logits do not fit at once on rank 0 of two, which makes them again for the
 * gradient, but do on rank 1, which keeps them. */
static void logits_in_blocks_give_the_same_gradients(void)
{
    model_config c = small();
    c.layers = 1;
    c.vocab = 300000;
    c.channels = 8;
    same_as_whole(&(trial){ .config = c, .ranks = 2, .share = three_to_one, .stages = 1, .long_ones = 1 }, 1e-5);
}

static void the_same_ranks_give_the_same_bits(void)
{
    const trial t = { .config = dropping(), .ranks = 3, .share = three_ways, .stages = 1 };
    result a = { 0 }, b = { 0 };
    if (run(&t, &a) && run(&t, &b)) {
        CHECK(a.loss == b.loss);
        for (int i = 0; i < graph_param_count(a.whole); i++)
            CHECK(
                !memcmp(a.grad[i], b.grad[i], (size_t)shape_count(&graph_param_at(a.whole, i)->shape) * sizeof(float)));
    }
    result_release(&a);
    result_release(&b);
}

static void a_bad_number_is_found_by_all_ranks(void)
{
    same_as_whole(&(trial){ .config = dropping(), .ranks = 2, .share = three_to_one, .stages = 1, .look = 1 }, 1e-5);
}

/* Everybody's part, one behind the other, is all there is; as near to the shares as pieces allow. */
static void parts_cover_everything_once(void)
{
    static const double tilted[] = { 0.9, 0.05, 0.05 };
    for (int ranks = 1; ranks <= 3; ranks++)
        for (int64_t count = 1; count < 200; count += 7)
            for (int64_t quantum = 1; quantum <= 16; quantum += 5) {
                const int64_t pieces = (count + quantum - 1) / quantum;
                const graph_part p = { .ranks = ranks, .share = ranks == 3 ? tilted : NULL };
                int64_t end = 0;
                for (int k = 0; k < ranks; k++) {
                    int64_t begin, size;
                    graph_part_of(&p, count, quantum, k, &begin, &size);
                    const double ideal = (double)count * (p.share ? p.share[k] : 1.0 / ranks);
                    CHECK(begin == end && (size > 0 ? begin % quantum == 0 : pieces < ranks));
                    CHECKF(fabs((double)size - ideal) <= 2.0 * (double)quantum, "rank %d of %d has %lld of %lld", k,
                           ranks, (long long)size, (long long)count);
                    end = begin + size;
                }
                CHECK(end == count);
            }
}

/* ---- what cannot be split ---------------------------------------------------------------------- */

static void cannot_build(model_config c, int ranks, const double *share, const char *part)
{
    graph *g = NULL;
    const graph_part p = { .units = model_units(&c), .ranks = ranks, .rank = ranks - 1, .share = share };
    if (CHECK_OK(graph_create(&g, DTYPE_F32, 1, 2)))
        CHECK_FAILS(model_build_part(g, &c, &p, 1, 0), GT_MISUSE, part);
    graph_release(g);
}

static void what_cannot_be_split_is_refused(void)
{
    static const double nothing[] = { 1.0, 0.0 }, half[] = { 0.25, 0.25 }, none[] = { NAN, 0.5 };
    model_config c = small();
    cannot_build(c, 3, NULL, "make the micro-batch larger");
    cannot_build(c, 2, nothing, "the share of rank 1 is 0");
    cannot_build(c, 2, half, "add up to 0.5");
    cannot_build(c, 2, none, "must be above 0");
    c.heads = 1;
    cannot_build(c, 2, NULL, "it has 1 heads, and every rank needs one");
    c.heads = 4;
    c.vocab = 1;
    cannot_build(c, 2, NULL, "it has 1 tokens");
}

static void without_the_others_nothing_runs(void)
{
    const trial t = { .config = small(), .ranks = 2, .stages = 1 };
    machine m = { 0 };
    double all = 0.0, gemms = 0.0;
    if (CHECK_OK(machine_open(&m, &t, NULL, 1))) {
        CHECK_FAILS(exec_run(m.stage[0].e, EXEC_FORWARD), GT_MISUSE, "exchanges rows with 1 other");
        CHECK_OK(exec_time(m.stage[0].e, &all, &gemms));        /* but can be measured alone */
        CHECK(all > 0.0 && gemms > 0.0);
    }
    machine_release(&m);
}

const check_case check_cases[] = {
    CASE(any_number_of_ranks_gives_the_same_gradients),
    CASE(unequal_shares_give_the_same_gradients),
    CASE(dropout_draws_the_bits_of_the_whole),
    CASE(recomputing_and_split_programs_change_nothing),
    CASE(stages_of_split_layers_chain),
    CASE(sixteen_bits_give_nearly_the_same),
    CASE(evaluation_has_the_same_loss),
    CASE(logits_in_blocks_give_the_same_gradients),
    CASE(the_same_ranks_give_the_same_bits),
    CASE(a_bad_number_is_found_by_all_ranks),
    CASE(parts_cover_everything_once),
    CASE(what_cannot_be_split_is_refused),
    CASE(without_the_others_nothing_runs),
    { 0 }
};
