/* SPDX-License-Identifier: MIT */
/* models/sampling.c - the rules of sampling.h over a heap.
 *
 * Ids leave the heap from the likeliest down, and only as many as the rules ask for: to sort all of a
 * vocabulary would take a quarter of the time of a small model's token.                     */
#include "models/sampling.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampling {
    int vocab;
    int *drawn;                 /* the ids that may be drawn, ascending */
    int drawn_count;
    double *score;              /* [id] after repetition and temperature */
    int *heap, heap_count;
    int *kept;
    double *weight;             /* of kept[i]; at the end its probability */
    int kept_count;
};

gt_status sampling_check(const sampling_rule *r)
{
    if (!(r->temperature >= 0.0) || isinf(r->temperature))
        return gt_fail(GT_MISUSE, "temperature: %g is not a number from 0 up", r->temperature);
    if (r->top_k < 0)
        return gt_fail(GT_MISUSE, "top-k: %d is not a number of tokens, or 0 for all", r->top_k);
    if (!(r->top_p >= 0.0 && r->top_p <= 1.0))
        return gt_fail(GT_MISUSE, "top-p: %g is not a share from 0 to 1", r->top_p);
    if (!(r->min_p >= 0.0 && r->min_p <= 1.0))
        return gt_fail(GT_MISUSE, "min-p: %g is not a share from 0 to 1", r->min_p);
    if (!(r->repetition >= 0.0) || isinf(r->repetition))
        return gt_fail(GT_MISUSE, "repetition-penalty: %g is not a factor above 0, or 1 for none", r->repetition);
    return GT_OK;
}

gt_status sampling_create(sampling **out, int vocab)
{
    const size_t n = (size_t)vocab;
    *out = NULL;
    sampling *s = calloc(1, sizeof *s);
    if (s) {
        s->vocab = vocab;
        s->drawn = malloc(n * sizeof *s->drawn);
        s->score = malloc(n * sizeof *s->score);
        s->heap = malloc(n * sizeof *s->heap);
        s->kept = malloc(n * sizeof *s->kept);
        s->weight = malloc(n * sizeof *s->weight);
    }
    if (!s || !s->drawn || !s->score || !s->heap || !s->kept || !s->weight) {
        sampling_release(s);
        return gt_fail(GT_NO_MEMORY, "cannot choose tokens: no memory for scores of %d", vocab);
    }
    for (int i = 0; i < vocab; i++)
        s->drawn[s->drawn_count++] = i;
    *out = s;
    return GT_OK;
}

void sampling_release(sampling *s)
{
    if (!s)
        return;
    free(s->drawn);
    free(s->score);
    free(s->heap);
    free(s->kept);
    free(s->weight);
    free(s);
}

gt_status sampling_allow(sampling *s, const unsigned char *may)
{
    s->drawn_count = 0;
    for (int i = 0; i < s->vocab; i++)
        if (may[i])
            s->drawn[s->drawn_count++] = i;
    return s->drawn_count ? GT_OK : gt_fail(GT_MISUSE, "cannot generate: no token may be drawn");
}

/* ---- the heap: the likeliest on top ------------------------------------------------------------ */

static int before(const sampling *s, int a, int b)
{
    return s->score[a] != s->score[b] ? s->score[a] > s->score[b] : a < b;
}

static void sift_down(sampling *s, int at)
{
    for (int child; (child = 2 * at + 1) < s->heap_count; at = child) {
        if (child + 1 < s->heap_count && before(s, s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s, s->heap[child], s->heap[at]))
            return;
        const int moved = s->heap[at];
        s->heap[at] = s->heap[child];
        s->heap[child] = moved;
    }
}

static void heap_fill(sampling *s)
{
    memcpy(s->heap, s->drawn, (size_t)s->drawn_count * sizeof *s->heap);
    s->heap_count = s->drawn_count;
    for (int i = s->heap_count / 2 - 1; i >= 0; i--)
        sift_down(s, i);
}

static void keep_top(sampling *s)
{
    s->kept[s->kept_count++] = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    sift_down(s, 0);
}

/* ---- the rules ----------------------------------------------------------------------------------- */

static void keep_top_k(sampling *s, int k)
{
    heap_fill(s);
    while (s->heap_count && (s->kept_count < k || s->score[s->heap[0]] == s->score[s->kept[k - 1]]))
        keep_top(s);
}

/* Weights of what is kept, the likeliest being 1. */
static double weigh(sampling *s)
{
    double most = -INFINITY, sum = 0.0;
    for (int i = 0; i < s->kept_count; i++)
        most = fmax(most, s->score[s->kept[i]]);
    for (int i = 0; i < s->kept_count; i++)
        sum += s->weight[i] = exp(s->score[s->kept[i]] - most);
    return sum;
}

/* From all: they leave the heap only until they are likely enough together. */
static void keep_top_p(sampling *s, double p)
{
    double most = -INFINITY, sum = 0.0, passed = 0.0;
    heap_fill(s);
    most = s->score[s->heap[0]];
    for (int i = 0; i < s->drawn_count; i++)
        sum += exp(s->score[s->drawn[i]] - most);
    while (s->heap_count && (!s->kept_count || passed < p)) {
        passed += exp(s->score[s->heap[0]] - most) / sum;
        keep_top(s);
    }
}

/* Of those that top-k kept, which are in their order. */
static void cut_top_p(sampling *s, double p)
{
    const double sum = weigh(s);
    double passed = 0.0;
    int n = 0;
    while (n < s->kept_count && (!n || passed < p))
        passed += s->weight[n++] / sum;
    s->kept_count = n;
}

static void cut_min_p(sampling *s, double p)
{
    int n = 0;
    weigh(s);
    for (int i = 0; i < s->kept_count; i++)
        if (s->weight[i] >= p)
            s->kept[n++] = s->kept[i];
    s->kept_count = n;
}

static int likeliest(const sampling *s)
{
    int best = s->drawn[0];
    for (int i = 1; i < s->drawn_count; i++)
        if (s->score[s->drawn[i]] > s->score[best])
            best = s->drawn[i];
    return best;
}

static void score(sampling *s, const sampling_rule *r, const float *logits, const unsigned char *seen)
{
    const int penalty = r->repetition > 0.0 && r->repetition != 1.0;
    const double temperature = r->temperature > 0.0 ? r->temperature : 1.0;
    for (int i = 0; i < s->drawn_count; i++) {
        const int id = s->drawn[i];
        double z = (double)logits[id];
        if (penalty && seen[id])
            z = z < 0.0 ? z * r->repetition : z / r->repetition;
        s->score[id] = z / temperature;
    }
}

uint32_t sampling_pick(sampling *s, const sampling_rule *r, const float *logits, const unsigned char *seen, double unit)
{
    const int by_p = r->top_p > 0.0 && r->top_p < 1.0;
    double reached = 0.0;
    score(s, r, logits, seen);
    s->kept_count = 0;
    if (r->temperature <= 0.0) {
        s->kept[s->kept_count++] = likeliest(s);
        s->weight[0] = 1.0;
        return (uint32_t)s->kept[0];
    }
    if (r->top_k > 0 && r->top_k < s->drawn_count) {
        keep_top_k(s, r->top_k);
        if (by_p)
            cut_top_p(s, r->top_p);
    } else if (by_p) {
        keep_top_p(s, r->top_p);
    } else {
        memcpy(s->kept, s->drawn, (size_t)s->drawn_count * sizeof *s->kept);
        s->kept_count = s->drawn_count;
    }
    if (r->min_p > 0.0)
        cut_min_p(s, r->min_p);
    const double sum = weigh(s);
    int chosen = s->kept_count - 1;
    for (int i = s->kept_count - 1; i >= 0; i--)
        s->weight[i] /= sum;
    for (int i = 0; i < s->kept_count; i++) {
        reached += s->weight[i];
        if (unit < reached) {
            chosen = i;
            break;
        }
    }
    return (uint32_t)s->kept[chosen];
}

int sampling_kept(const sampling *s, const int **ids, const double **probabilities)
{
    *ids = s->kept;
    *probabilities = s->weight;
    return s->kept_count;
}
