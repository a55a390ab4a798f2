/* SPDX-License-Identifier: MIT */
/* tests/sync/test_local_rules.c - local training against its published rules, in double.
 *
 *   alone       outer rules and the code of the few largest, on numbers drawn at random
 *   reference   one trainer a replica, each alone and fed with that replica's sequences; this file puts their
 *               parameters together, tensor by tensor
 *   the run     ranks as threads under --sync local (local_run.h), whose parameters must be those of the reference
 */
#include "host/base/random.h"
#include "host/sync/outer.h"
#include "host/sync/sparse.h"
#include "tests/check.h"
#include "tests/sync/local_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the rules alone ------------------------------------------------------------------------ */

enum { N = 257, ROUNDS = 5, REPLICAS = 3 };

static double global[N], velocity[N];
static float x[REPLICAS][N], x0[N], m[N], sum[N];

static void rules_are_as_published(void)
{
    const char *names[] = { "average", "sgd", "nesterov" };
    const double share[REPLICAS] = { 0.5, 0.125, 0.375 }, lr = 0.7, mu = 0.9;
    for (int k = 0; k < 3; k++) {
        const outer_rule *rule = outer_rule_find(names[k]);
        gt_random random;
        double worst = 0.0;
        gt_random_init(&random, 7, 1);
        gt_random_normal(&random, x0, N, 0.0f, 1.0f);
        memset(m, 0, sizeof m);
        memset(velocity, 0, sizeof velocity);
        for (int i = 0; i < N; i++)
            global[i] = (double)x0[i];
        if (!CHECKF(rule != NULL, "there is no rule '%s'", names[k]))
            return;
        for (int round = 0; round < ROUNDS; round++) {
            memset(sum, 0, sizeof sum);
            for (int r = 0; r < REPLICAS; r++) {
                gt_random_normal(&random, x[r], N, 0.0f, 0.1f);
                for (int i = 0; i < N; i++)
                    x[r][i] += x0[i];
            }
            for (int i = 0; i < N; i++) {
                double mean = 0.0;
                for (int r = 0; r < REPLICAS; r++)
                    mean += share[r] * (double)x[r][i];
                const double way = global[i] - mean;
                velocity[i] = mu * velocity[i] + way;
                global[i] = k == 0 ? mean : global[i] - lr * (k == 1 ? velocity[i] : way + mu * velocity[i]);
            }
            for (int r = 0; r < REPLICAS; r++) {
                rule->give(x[r], rule->starts ? x0 : NULL, N, share[r]);
                for (int i = 0; i < N; i++)
                    sum[i] += x[r][i];
            }
            rule->take(sum, x0, rule->moves ? m : NULL, N, lr, mu);
            for (int i = 0; i < N; i++)
                worst = fmax(worst, fabs((double)sum[i] - global[i]) / (1.0 + fabs(global[i])));
            CHECK(!memcmp(sum, x0, sizeof sum));
        }
        CHECKF(worst < 1e-5, "%s is off by %.3g", names[k], worst);
    }
    CHECK(!outer_rule_find("adam"));
}

static void a_mixture_keeps_its_share(void)
{
    float own[2] = { 1.0f, -4.0f };
    const float all[2] = { 3.0f, 4.0f };
    outer_mix(own, all, 2, 0.25);
    CHECK(own[0] == 2.5f && own[1] == 2.0f);
    outer_mix(own, all, 2, 0.0);
    CHECK(own[0] == 3.0f && own[1] == 4.0f);
}

/* ---- the few largest -------------------------------------------------------------------------- */

static const double *sized;

static int larger_first(const void *a, const void *b)
{
    const int i = *(const int *)a, k = *(const int *)b;
    const double p = fabs(sized[i]), q = fabs(sized[k]);
    return p > q ? -1 : p < q ? 1 : i - k;
}

/* What is sent of n values, slowly: all of a chunk sorted by size. */
static void send_slowly(const double *e, int64_t n, double keep, double *sent)
{
    for (int64_t at = 0; at < n; at += SPARSE_CHUNK) {
        const int64_t c = n - at < SPARSE_CHUNK ? n - at : SPARSE_CHUNK;
        const int64_t k = (int64_t)ceil(keep * (double)c), lower = k / 2;
        int *order = malloc((size_t)c * sizeof *order);
        double level[2] = { 0.0, 0.0 };
        for (int64_t i = 0; i < c; i++) {
            order[i] = (int)i;
            sent[at + i] = 0.0;
        }
        sized = e + at;
        qsort(order, (size_t)c, sizeof *order, larger_first);
        for (int64_t i = 0; i < k; i++)
            level[i < k - lower] += fabs(e[at + order[i]]);
        level[0] /= lower ? (double)lower : 1.0;
        level[1] /= (double)(k - lower);
        for (int64_t i = 0; i < k; i++)
            sent[at + order[i]] = copysign(level[i < k - lower], e[at + order[i]]);
        free(order);
    }
}

static void the_largest_are_sent_in_two_bits(void)
{
    const int64_t sizes[] = { 1, 2, 63, 4096, 4097, 10000 };
    const double keeps[] = { 1.0 / 64, 0.1, 1.0 };
    enum { LARGEST = 10000 };
    static float e[LARGEST], left[LARGEST], got[LARGEST];
    static double exact[LARGEST], want[LARGEST];
    static unsigned char code[4 * LARGEST];
    gt_random random;
    gt_random_init(&random, 3, 1);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
            const int64_t n = sizes[s];
            double off = 0.0, lost = 0.0;
            gt_random_normal(&random, e, LARGEST, 0.0f, 1.0f);
            memcpy(left, e, sizeof left);
            memset(got, 0, sizeof got);
            for (int64_t i = 0; i < n; i++)
                exact[i] = (double)e[i];
            sparse_encode(code, left, n, keeps[k]);
            sparse_add(got, code, n, keeps[k], 1.0);
            send_slowly(exact, n, keeps[k], want);
            for (int64_t i = 0; i < n; i++) {
                off = fmax(off, fabs((double)got[i] - want[i]));
                lost = fmax(lost, fabs((double)left[i] + (double)got[i] - exact[i]));
            }
            CHECKF(off < 1e-6, "%d values, %g of them: off by %.3g", (int)n, keeps[k], off);
            CHECKF(lost < 1e-6, "%d values, %g of them: %.3g is neither sent nor left", (int)n, keeps[k], lost);
        }
    CHECK(sparse_bytes(SPARSE_CHUNK, 1.0 / 64) == 120 && 90 * sparse_bytes(1 << 20, 1.0 / 64) < 4 << 20);
    memset(e, 0, sizeof e);                 /* nothing has moved */
    sparse_encode(code, e, 100, 0.1);
    memset(got, 0, sizeof got);
    sparse_add(got, code, 100, 0.1, 1.0);
    CHECK(!memcmp(got, e, sizeof got));
}

/* ---- the reference ------------------------------------------------------------------------------ */

/* What the batches of the reference's trainers are of: the step's first sample, and of its sequences. */
static struct {
    uint64_t at, from, count;
} rows;

/* Do targets weigh otherwise than 1, and those of some samples nothing? */
static int weighs;

static void weights_of(uint64_t sample, float *to)
{
    gt_random random;
    gt_random_init(&random, 13, sample);
    const int counts = sample % 5 != 0;
    for (int i = 0; i < TINY_T; i++)
        to[i] = counts && gt_random_below(&random, 3) ? 2.0f * gt_random_unit(&random) : 0.0f;
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

/* So that a reference's trainer is fed with what its replica is, positions are those in `rows` if there are any. */
static uint64_t place_of(uint64_t position, uint64_t first)
{
    return (rows.count ? rows.at + rows.from : position) + first;
}

static gt_status fill_part(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    loader whole = *b->loader;
    whole.batch = TINY_B;
    const uint64_t at = place_of(position, first);
    const loader_fields f = { .tokens = field[0], .targets = field[1] };
    for (uint64_t i = 0; weighs && field[2] && i < count; i++)
        weights_of(at + i, (float *)field[2] + i * TINY_T);
    return loader_fill(&whole, at, 0, count, &f);
}

static gt_status total_part(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    (void)b;
    out->weights = weight_of(place_of(position, first), count);
    out->tokens = out->weights;
    return GT_OK;
}

static gt_status total_none(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    (void)b;
    out->weights = out->tokens = weight_of(first, count);
    return GT_OK;
}

static void part_of_batches(data_batch *out, const void *c, const loader *l, const char *split)
{
    (void)c;
    *out = (data_batch){
        .field = { { .name = "tokens", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "targets", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "weights", .type = DTYPE_F32, .count = TINY_T } },
        .fields = weighs ? 3 : 2,
        .fill = fill_part,
        .weights = weighs ? "weights" : NULL,
        .total = weighs ? total_part : NULL,
        .total_rows = weighs ? total_none : NULL,
        .loader = l,
        .split = split
    };
}

typedef struct reference {
    int replicas, steps, every, fragments, overlap;
    const char *rule;
    double lr, momentum, mix, keep, decay;
    int steps_of[LOCAL_MOST];                     /* of a round; 0: all of them */
} reference;

static int fragment_of(const reference *f, const char *name)
{
    const char *dot = strstr(name, "h.");
    return dot == name ? atoi(name + 2) % f->fragments : f->fragments - 1;
}

/* Elements of fragment k, or all for k < 0: marks[i]. */
static void mark(const reference *f, params *p, int *fragment)
{
    size_t at = 0;
    for (int i = 0; i < params_count(p); i++)
        for (int64_t k = 0; k < shape_count(&params_info(p, i)->shape); k++)
            fragment[at++] = fragment_of(f, params_info(p, i)->name);
}

static int put_params(train *t, const double *from)
{
    params *p = train_params(t);
    int good = 1;
    for (int i = 0; i < params_count(p); i++) {
        const int64_t n = shape_count(&params_info(p, i)->shape);
        float *room = malloc((size_t)n * sizeof *room);
        for (int64_t k = 0; k < n; k++)
            room[k] = (float)from[k];
        from += n;
        good &= CHECK_OK(params_write(p, i, room));
        free(room);
    }
    return good;
}

/* What replicas send of a fragment's tensors, weighted, becomes the way. */
static void send_all(const reference *f, params *p, int fragment, double *const x_of[LOCAL_MOST], const double *start,
                     double *const error[LOCAL_MOST], const double *share, double *way)
{
    int64_t at = 0;
    for (int i = 0; i < params_count(p); i++) {
        const int64_t n = shape_count(&params_info(p, i)->shape);
        if (fragment_of(f, params_info(p, i)->name) != fragment) {
            at += n;
            continue;
        }
        double *sent = calloc((size_t)n, sizeof *sent);
        memset(way + at, 0, (size_t)n * sizeof *way);
        for (int r = 0; r < f->replicas; r++) {
            for (int64_t k = at; k < at + n; k++)
                error[r][k] = f->decay * error[r][k] + (start[k] - x_of[r][k]);
            send_slowly(error[r] + at, n, f->keep, sent);
            for (int64_t k = 0; k < n; k++) {
                error[r][at + k] -= sent[k];
                way[at + k] += share[r] * sent[k];
            }
        }
        free(sent);
        at += n;
    }
}

/* What all replicas' parameters come to, in x[replica]. */
static int refer(const reference *f, const tiny_replica *of, const train_options *o, double *x_of[LOCAL_MOST],
                 size_t *count)
{
    dev_device *d = NULL;
    train *t[LOCAL_MOST] = { 0 };
    double *start = NULL, *v = NULL, *way = NULL, *error[LOCAL_MOST] = { 0 };
    int *fragment = NULL, good = CHECK_OK(tiny_open(&d));
    uint64_t size[LOCAL_MOST];
    double trained[LOCAL_MOST][LOCAL_MOST] = { { 0.0 } };       /* [fragment][replica] since its last outer step */
    int began[LOCAL_MOST] = { 0 };
    rows.at = 0;
    for (int r = 0; good && r < f->replicas; r++) {
        train_options mine = *o;
        size[r] = (uint64_t)(of[r].micro_batches * of[r].micro_batch);
        mine.batch = size[r];
        mine.micro_batch = (uint64_t)of[r].micro_batch;
        mine.run = NULL;
        mine.resume = 0;
        tiny_batch = part_of_batches;
        good = (t[r] = tiny_train(d, &local_model, &mine)) != NULL;
        tiny_batch = NULL;
        float *now = good ? tiny_params(t[r], 0, count) : NULL;
        x_of[r] = calloc(*count, sizeof *x_of[r]);
        for (size_t i = 0; now && i < *count; i++)
            x_of[r][i] = (double)now[i];
        free(now);
    }
    if (good) {
        start = malloc(*count * sizeof *start);
        memcpy(start, x_of[0], *count * sizeof *start);
        v = calloc(*count, sizeof *v);
        way = calloc(*count, sizeof *way);
        for (int r = 0; r < f->replicas; r++)
            error[r] = calloc(*count, sizeof *error[r]);
        fragment = calloc(*count, sizeof *fragment);
        mark(f, train_params(t[0]), fragment);
    }
    for (int step = 1; good && step <= f->steps; step++) {
        uint64_t from = 0;
        for (int r = 0; good && r < f->replicas; r++) {
            double loss, norm;
            size_t n;
            if (!local_takes_part(f->every, f->steps_of[r], step))
                continue;
            rows.from = from;
            rows.count = size[r];
            from += size[r];
            for (int k = 0; k < f->fragments; k++)
                trained[k][r] += weighs ? weight_of(rows.at + rows.from, rows.count) : (double)size[r];
            good = CHECK_OK(train_once(t[r], (uint64_t)step - 1, 1, &loss, &norm));
            float *now = tiny_params(t[r], 0, &n);
            for (size_t i = 0; i < n; i++)
                x_of[r][i] = (double)now[i];
            free(now);
        }
        rows.at += from;
        int moved = 0;
        for (int k = 0; k < f->fragments; k++) {
            double share[LOCAL_MOST], all = 0.0;
            for (int r = 0; r < f->replicas; r++)
                all += trained[k][r];
            for (int r = 0; r < f->replicas; r++)
                share[r] = trained[k][r] / all;
            const int due = (k + 1) * f->every / f->fragments % f->every, last = step == f->steps;
            if (!began[k] && (last || (step + f->overlap) % f->every == due)) {
                if (f->keep > 0.0)
                    send_all(f, train_params(t[0]), k, x_of, start, error, share, way);
                for (size_t i = 0; i < *count && f->keep <= 0.0; i++) {
                    double mean = 0.0;
                    for (int r = 0; r < f->replicas; r++)
                        mean += share[r] * x_of[r][i];
                    if (fragment[i] == k)
                        way[i] = start[i] - mean;
                }
                began[k] = step;
                memset(trained[k], 0, sizeof trained[k]);
            }
            if (!began[k] || (!last && step < began[k] + f->overlap))
                continue;
            began[k] = 0;
            const double keep = f->overlap && !last ? f->mix : 0.0;
            for (size_t i = 0; i < *count; i++) {
                if (fragment[i] != k)
                    continue;
                v[i] = f->momentum * v[i] + way[i];
                if (!strcmp(f->rule, "average"))
                    start[i] -= way[i];
                else if (f->keep > 0.0)
                    start[i] -= f->lr * way[i];
                else
                    start[i] -= f->lr * (strcmp(f->rule, "sgd") ? way[i] + f->momentum * v[i] : v[i]);
                for (int r = 0; r < f->replicas; r++)
                    x_of[r][i] = keep * x_of[r][i] + (1.0 - keep) * start[i];
            }
            moved = 1;
        }
        for (int r = 0; good && moved && r < f->replicas; r++)
            good = put_params(t[r], x_of[r]);
    }
    for (int r = 0; r < f->replicas; r++)
        train_release(t[r]);
    for (int r = 0; r < LOCAL_MOST; r++)
        free(error[r]);
    free(start);
    free(v);
    free(way);
    free(fragment);
    dev_close(d);
    return good;
}

/* ---- runs against it -------------------------------------------------------------------------- */

typedef struct rule_case {
    const char *settings;
    reference f;
} rule_case;

static void follow(const rule_case *cases, size_t count_of)
{
    for (size_t i = 0; i < count_of; i++) {
        const reference *f = &cases[i].f;
        const tiny_replica *of = f->replicas == 2 ? local_two : local_unequal;
        const train_options o = local_options(LOCAL_STEPS, "adamw", NULL);
        local_run j = { 0 };
        double *want[LOCAL_MOST] = { 0 };
        size_t count = 0;
        rows.count = 0;
        tiny_batch = weighs ? part_of_batches : NULL;
        const int ran = local_run_go(&j, of, f->replicas, 1, "local", cases[i].settings, &o);
        tiny_batch = NULL;
        if (ran && refer(f, of, &o, want, &count)) {
            double off = 0.0, norm = 0.0;
            for (size_t k = 0; k < count; k++) {
                off += pow((double)j.x[0][k] - want[0][k], 2);
                norm += pow(want[0][k], 2);
            }
            CHECKF(sqrt(off / norm) < 2e-6, "%s: parameters are off by %.3g", cases[i].settings, sqrt(off / norm));
            for (int r = 1; r < f->replicas; r++)
                CHECKF(!memcmp(j.x[r], j.x[0], count * sizeof(float)), "%s: replica %d ends elsewhere",
                       cases[i].settings, r);
            CHECK(j.rows == LOCAL_STEPS);
        }
        for (int r = 0; r < LOCAL_MOST; r++)
            free(want[r]);
        local_run_release(&j);
    }
}

static void every_rule_follows_its_reference(void)
{
    const rule_case cases[] = {
        { "local-steps=4 outer=average", { 2, LOCAL_STEPS, 4, 1, 0, "average", 0, 0, 0, 0, 0, { 0 } } },
        { "local-steps=5 outer=average", { 3, LOCAL_STEPS, 5, 1, 0, "average", 0, 0, 0, 0, 0, { 0 } } },
        { "local-steps=4 outer=sgd outer-lr=0.9 outer-momentum=0.5",
          { 3, LOCAL_STEPS, 4, 1, 0, "sgd", 0.9, 0.5, 0, 0, 0, { 0 } } },
        { "local-steps=4 outer=nesterov", { 3, LOCAL_STEPS, 4, 1, 0, "nesterov", 0.7, 0.9, 0, 0, 0, { 0 } } },
        { "local-steps=4 outer=nesterov fragments=2",
          { 3, LOCAL_STEPS, 4, 2, 0, "nesterov", 0.7, 0.9, 0, 0, 0, { 0 } } },
        { "local-steps=6 outer=nesterov fragments=2 overlap=2 mix=0.25",
          { 3, LOCAL_STEPS, 6, 2, 2, "nesterov", 0.7, 0.9, 0.25, 0, 0, { 0 } } },
        { "local-steps=4 outer=sparse outer-lr=0.8 sparse-keep=0.0625 error-decay=0.9",
          { 3, LOCAL_STEPS, 4, 1, 0, "sparse", 0.8, 0, 0, 0.0625, 0.9, { 0 } } },
        { "local-steps=4 local-uneven=1:4:3", { 3, LOCAL_STEPS, 4, 1, 0, "average", 0, 0, 0, 0, 0, { 1, 4, 3 } } },
        { "local-steps=5 local-uneven=5:2:1 outer=sgd outer-lr=0.9 outer-momentum=0.5",
          { 3, LOCAL_STEPS, 5, 1, 0, "sgd", 0.9, 0.5, 0, 0, 0, { 5, 2, 1 } } },
        { "local-steps=4 local-uneven=2:4:1 outer=nesterov",
          { 3, LOCAL_STEPS, 4, 1, 0, "nesterov", 0.7, 0.9, 0, 0, 0, { 2, 4, 1 } } },
        { "local-steps=6 local-uneven=6:2:5 outer=nesterov fragments=2 overlap=2 mix=0.25",
          { 3, LOCAL_STEPS, 6, 2, 2, "nesterov", 0.7, 0.9, 0.25, 0, 0, { 6, 2, 5 } } },
        { "local-steps=6 local-uneven=6:3:5 outer=sparse outer-lr=0.8 fragments=2 sparse-keep=0.0625 error-decay=0.9",
          { 3, LOCAL_STEPS, 6, 2, 0, "sparse", 0.8, 0, 0, 0.0625, 0.9, { 6, 3, 5 } } },
    };
    local_model = tiny_config();
    follow(cases, sizeof cases / sizeof *cases);
}

/* What a replica's steps weigh is what their targets do, of which some samples have none: also where replicas make
 * unequal numbers of steps. */
static void replicas_weigh_what_their_targets_do(void)
{
    const rule_case cases[] = {
        { "local-steps=4 outer=average", { 3, LOCAL_STEPS, 4, 1, 0, "average", 0, 0, 0, 0, 0, { 0 } } },
        { "local-steps=4 outer=nesterov local-uneven=2:4:1",
          { 3, LOCAL_STEPS, 4, 1, 0, "nesterov", 0.7, 0.9, 0, 0, 0, { 2, 4, 1 } } },
        { "local-steps=6 outer=sparse outer-lr=0.8 sparse-keep=0.0625 error-decay=0.9",
          { 3, LOCAL_STEPS, 6, 1, 0, "sparse", 0.8, 0, 0, 0.0625, 0.9, { 0 } } },
    };
    local_model = tiny_config();
    local_model.weighted = 1;
    weighs = 1;
    follow(cases, sizeof cases / sizeof *cases);
    weighs = 0;
}

const check_case check_cases[] = {
    CASE(rules_are_as_published),
    CASE(a_mixture_keeps_its_share),
    CASE(the_largest_are_sent_in_two_bits),
    CASE(every_rule_follows_its_reference),
    CASE(replicas_weigh_what_their_targets_do),
    { 0 }
};
