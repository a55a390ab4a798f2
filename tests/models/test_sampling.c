/* SPDX-License-Identifier: MIT */
/* tests/models/test_sampling.c - what sampling keeps, against the rules written out slowly: every rule masks
 * scores with -infinity, after a full sort, as transformers' logits processors do, and in their order. */
#include "tests/check.h"

#include "host/base/random.h"
#include "models/sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { V = 211 };

static double value[V];                 /* that order[] is sorted by */

static int rising(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return value[x] != value[y] ? value[x] < value[y] ? -1 : 1 : y - x;
}

static void softmax(double *p, const double *z)
{
    double most = -INFINITY, sum = 0.0;
    for (int i = 0; i < V; i++)
        most = fmax(most, z[i]);
    for (int i = 0; i < V; i++)
        sum += p[i] = exp(z[i] - most);
    for (int i = 0; i < V; i++)
        p[i] /= sum;
}

static void sort(int order[V], const double *z)
{
    memcpy(value, z, sizeof value);
    for (int i = 0; i < V; i++)
        order[i] = i;
    qsort(order, V, sizeof *order, rising);
}

static void slow_probabilities(double p[V], const sampling_rule *r, const float *logits, const unsigned char *seen,
                               const unsigned char *may)
{
    double z[V];
    int order[V];
    for (int i = 0; i < V; i++) {
        z[i] = may[i] ? (double)logits[i] : -INFINITY;
        if (seen[i] && r->repetition > 0.0)
            z[i] = z[i] < 0.0 ? z[i] * r->repetition : z[i] / r->repetition;
        z[i] /= r->temperature;
    }
    if (r->top_k > 0) {
        sort(order, z);
        const double least = z[order[V - (r->top_k < V ? r->top_k : V)]];
        for (int i = 0; i < V; i++)
            z[i] = z[i] < least ? -INFINITY : z[i];
    }
    if (r->top_p > 0.0 && r->top_p < 1.0) {
        double sum = 0.0;
        softmax(p, z);
        sort(order, z);
        for (int i = 0; i < V - 1; i++) {
            sum += p[order[i]];
            if (sum <= 1.0 - r->top_p)
                z[order[i]] = -INFINITY;
        }
    }
    if (r->min_p > 0.0) {
        double most = 0.0;
        softmax(p, z);
        for (int i = 0; i < V; i++)
            most = fmax(most, p[i]);
        for (int i = 0; i < V; i++)
            if (p[i] < r->min_p * most)
                z[i] = -INFINITY;
    }
    softmax(p, z);
}

static void make(float *logits, unsigned char *seen, unsigned char *may, uint64_t round)
{
    gt_random random;
    gt_random_init(&random, 11, round);
    gt_random_normal(&random, logits, V, 0.0f, round % 3 ? 2.0f : 0.2f);
    for (int i = 0; i < V; i++) {
        seen[i] = (unsigned char)(gt_random_below(&random, 4) == 0);
        may[i] = (unsigned char)(gt_random_below(&random, 8) != 0);
        if (i % 9 == 4)                         /* equals, also at a rule's limit */
            logits[i] = logits[i - 4];
    }
}

static const sampling_rule rules[] = {
    { 1.0, 0, 0.0, 0.0, 0.0 },      { 0.7, 1, 0.0, 0.0, 0.0 },    { 0.7, 5, 0.0, 0.0, 1.0 },
    { 1.5, 500, 0.0, 0.0, 1.3 },    { 1.0, 0, 0.9, 0.0, 0.0 },    { 1.0, 0, 0.01, 0.0, 0.0 },
    { 2.0, 0, 0.5, 0.0, 1.2 },      { 1.0, 40, 0.8, 0.0, 0.0 },   { 1.0, 0, 0.0, 0.1, 0.0 },
    { 1.0, 0, 0.0, 1.0, 0.0 },      { 0.9, 0, 0.95, 0.05, 0.0 },  { 0.8, 50, 0.9, 0.2, 1.1 },
    { 1.0, 0, 0.999999, 0.0, 0.8 }, { 0.05, 17, 0.3, 0.01, 5.0 },
};
enum { RULES = sizeof rules / sizeof *rules };

static void what_is_kept_is_what_the_rules_say(void)
{
    sampling *s;
    float logits[V];
    unsigned char seen[V], may[V];
    double want[V], got[V];
    if (!CHECK_OK(sampling_create(&s, V)))
        return;
    for (uint64_t round = 0; round < 30; round++)
        for (int r = 0; r < RULES; r++) {
            const int *ids;
            const double *p;
            make(logits, seen, may, round);
            CHECK_OK(sampling_allow(s, may));
            sampling_pick(s, &rules[r], logits, seen, 0.5);
            const int count = sampling_kept(s, &ids, &p);
            slow_probabilities(want, &rules[r], logits, seen, may);
            memset(got, 0, sizeof got);
            for (int i = 0; i < count; i++)
                got[ids[i]] += p[i];
            for (int i = 0; i < V; i++)
                CHECKF(fabs(got[i] - want[i]) < 1e-12 && (got[i] > 0.0) == (want[i] > 0.0),
                       "round %d, rule %d: id %d has %g, not %g", (int)round, r, i, got[i], want[i]);
        }
    sampling_release(s);
}

/* unit is where in the row of probabilities; each id gets the part of [0, 1) that is its own. */
static void ids_are_drawn_as_often_as_they_are_likely(void)
{
    enum { DRAWS = 20000 };
    sampling *s;
    float logits[V];
    unsigned char seen[V], may[V];
    double want[V];
    if (!CHECK_OK(sampling_create(&s, V)))
        return;
    make(logits, seen, may, 1);
    CHECK_OK(sampling_allow(s, may));
    for (int r = 0; r < RULES; r++) {
        int drawn[V] = { 0 };
        slow_probabilities(want, &rules[r], logits, seen, may);
        for (int i = 0; i < DRAWS; i += 10)
            drawn[sampling_pick(s, &rules[r], logits, seen, (i + 5.0) / DRAWS)] += 10;
        for (int i = 0; i < V; i++)
            CHECKF(fabs(drawn[i] - DRAWS * want[i]) <= 21.0, "rule %d: id %d %d times, not %g", r, i, drawn[i],
                   DRAWS * want[i]);
    }
    sampling_release(s);
}

static void no_temperature_is_the_likeliest_after_the_penalty(void)
{
    const sampling_rule greedy = { .repetition = 2.0 };
    const float logits[4] = { -1.0f, 3.0f, 2.0f, 2.0f };
    const unsigned char seen[4] = { 0, 1, 0, 0 }, may[4] = { 1, 1, 1, 1 }, not_two[4] = { 1, 1, 0, 1 };
    const unsigned char all[4] = { 1, 1, 1, 1 };
    sampling *s;
    if (!CHECK_OK(sampling_create(&s, 4)))
        return;
    CHECK(sampling_pick(s, &greedy, logits, seen, 0.0) == 2);
    CHECK(sampling_pick(s, &(sampling_rule){ 0 }, logits, seen, 0.0) == 1);
    CHECK(sampling_pick(s, &greedy, logits, all, 0.0) == 1);
    CHECK_OK(sampling_allow(s, not_two));
    CHECK(sampling_pick(s, &greedy, logits, seen, 0.0) == 3);
    CHECK_OK(sampling_allow(s, may));
    CHECK_FAILS(sampling_allow(s, (unsigned char[4]){ 0 }), GT_MISUSE, "no token may be drawn");
    sampling_release(s);
}

static void rules_that_cannot_be_are_refused(void)
{
    static const struct {
        sampling_rule rule;
        const char *why;
    } cases[] = {
        { { .temperature = -0.1 }, "temperature" },
        { { .temperature = NAN }, "temperature" },
        { { .top_k = -1 }, "top-k" },
        { { .top_p = 1.01 }, "top-p" },
        { { .top_p = -0.01 }, "top-p" },
        { { .min_p = 1.5 }, "min-p" },
        { { .min_p = NAN }, "min-p" },
        { { .repetition = -2.0 }, "repetition" },
        { { .repetition = INFINITY }, "repetition" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_FAILS(sampling_check(&cases[i].rule), GT_MISUSE, cases[i].why);
    CHECK_OK(sampling_check(&(sampling_rule){ 0 }));
    CHECK_OK(sampling_check(&(sampling_rule){ 1.0, 50, 1.0, 1.0, 1.5 }));
}

const check_case check_cases[] = {
    CASE(what_is_kept_is_what_the_rules_say),
    CASE(ids_are_drawn_as_often_as_they_are_likely),
    CASE(no_temperature_is_the_likeliest_after_the_penalty),
    CASE(rules_that_cannot_be_are_refused),
    { 0 },
};
