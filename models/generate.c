/* SPDX-License-Identifier: MIT */
/* models/generate.c - a text: what was fed, in which pieces it goes through the stages, and the next token.
 *
 *   prompt of 70   [ 32 ][ 32 ][ 6 ]            each stage is a step behind the one in front of it, so
 *   stage 0         p0    p1    p2              that pieces of a prompt are in all of them at once; a
 *   stage 1               p0    p1    p2        token that is drawn goes through them alone          */
#include "models/generate.h"

#include "models/generate_stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Positions that caches begin with; they double as the text grows, up to the model's context, which may be a
 * hundred times as long as any text. */
#define ROOM 1024
#define FEW 3                           /* tokens that one by one are faster than a chunk */

struct generate {
    model_config config;
    generate_stage **stage;
    int stages;
    uint32_t *history;                  /* what the caches hold, at most context ids */
    int room, position;                 /* positions the caches have; the next one */
    float *logits;
    unsigned char *seen;                /* [id] it was fed */
    sampling *sampling;
};

int generate_room(const model_config *c)
{
    return c->context < ROOM ? c->context : ROOM;
}

static gt_status create(generate **out, const generate_place *places, int count, const model_config *c, dtype storage,
                        const char *gemm, params *p)
{
    *out = NULL;
    generate *g = calloc(1, sizeof *g);
    if (!g)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the state");
    g->config = *c;
    g->room = generate_room(c);
    g->stage = calloc((size_t)count, sizeof *g->stage);
    g->history = malloc((size_t)c->context * sizeof *g->history);
    g->logits = malloc((size_t)c->vocab * sizeof *g->logits);
    g->seen = calloc((size_t)c->vocab, 1);
    gt_status st = g->stage && g->history && g->logits && g->seen
                       ? sampling_create(&g->sampling, c->vocab)
                       : gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the logits of %d tokens", c->vocab);
    for (int i = 0, unit = 0; !st && i < count; i++) {
        const graph_part part = { .first_unit = unit, .units = places[i].units };
        st = generate_stage_create(&g->stage[i], places[i].device, c, &part, storage, gemm, g->room, p);
        g->stages = i + 1;
        unit += places[i].units;
    }
    if (st) {
        generate_release(g);
        return st;
    }
    *out = g;
    return GT_OK;
}

gt_status generate_create_over(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm,
                               params *p)
{
    return create(out, &(generate_place){ d, model_units(c) }, 1, c, storage, gemm, p);
}

gt_status generate_create(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm)
{
    return generate_create_over(out, d, c, storage, gemm, NULL);
}

gt_status generate_create_staged(generate **out, const generate_place *places, int count, const model_config *c,
                                 dtype storage, const char *gemm)
{
    int units = 0;
    *out = NULL;
    for (int i = 0; i < count; i++)
        units += places[i].units;
    if (units != model_units(c))
        return gt_fail(GT_MISUSE, "cannot generate with '%s': stages of %d units together, and it has %d", c->name,
                       units, model_units(c));
    return create(out, places, count, c, storage, gemm, NULL);
}

void generate_release(generate *g)
{
    if (!g)
        return;
    for (int i = 0; g->stage && i < g->stages; i++)
        generate_stage_release(g->stage[i]);
    free(g->stage);
    free(g->history);
    free(g->logits);
    free(g->seen);
    sampling_release(g->sampling);
    free(g);
}

gt_status generate_allow(generate *g, const unsigned char *may)
{
    return sampling_allow(g->sampling, may);
}

int generate_stage_count(const generate *g)
{
    return g->stages;
}

params *generate_params_of(generate *g, int stage)
{
    return generate_stage_params(g->stage[stage]);
}

params *generate_params(generate *g)
{
    return generate_stage_params(g->stage[0]);
}

gt_status generate_refresh(generate *g)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < g->stages; i++)
        st = generate_stage_refresh(g->stage[i]);
    return st;
}

const float *generate_logits(const generate *g)
{
    return g->logits;
}

void generate_restart(generate *g)
{
    g->position = 0;
    memset(g->seen, 0, (size_t)g->config.vocab);
}

/* ---- feeding ----------------------------------------------------------------------------------------- */

/* The piece that begins with token `at` of `count`, all of which the caches have room for. */
static generate_piece piece_at(const generate *g, const uint32_t *ids, size_t count, size_t at)
{
    const size_t left = count - at;
    const int first = g->position + (int)at;
    const int chunk = g->room > GENERATE_CHUNK && left > FEW && first + GENERATE_CHUNK <= g->room;
    const size_t most = chunk ? GENERATE_CHUNK : 1, some = left < most ? left : most;
    return (generate_piece){ ids + at, (int)some, first, chunk, some == left };
}

/* Feeds tokens that the caches have room for: pieces in all stages at once, the last stage's first. */
static gt_status feed_all(generate *g, const uint32_t *ids, size_t count)
{
    generate_piece *under_way = calloc((size_t)g->stages, sizeof *under_way);   /* [stage]; count 0: none */
    gt_status st = under_way ? GT_OK : gt_fail(GT_NO_MEMORY, "cannot generate: no memory for %d pieces", g->stages);
    const int end = g->stages - 1;
    size_t at = 0;
    while (!st && !under_way[end].last) {
        memmove(under_way + 1, under_way, (size_t)end * sizeof *under_way);
        under_way[0] = at < count ? piece_at(g, ids, count, at) : (generate_piece){ 0 };
        at += (size_t)under_way[0].count;
        for (int i = end; !st && i >= 0; i--)
            if (under_way[i].count)
                st = generate_stage_feed(g->stage[i], &under_way[i], i < end ? g->stage[i + 1] : NULL);
    }
    if (!st)
        st = generate_stage_logits(g->stage[end], &under_way[end], g->logits);
    free(under_way);
    if (st)
        return st;
    memcpy(g->history + g->position, ids, count * sizeof *ids);
    g->position += (int)count;
    return GT_OK;
}

/* Feeds the last `keep` tokens again, from the first position on. */
static gt_status feed_again(generate *g, int keep)
{
    uint32_t *tail = malloc(((size_t)keep + 1) * sizeof *tail);
    if (!tail)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for %d tokens", keep);
    memcpy(tail, g->history + g->position - keep, (size_t)keep * sizeof *tail);
    g->position = 0;
    gt_status st = feed_all(g, tail, (size_t)keep);
    free(tail);
    return st;
}

/* Caches for `count` more tokens, or for as many as there can be; what they hold is computed again. */
static gt_status grow(generate *g, size_t count)
{
    const int64_t twice = 2 * (int64_t)g->room, all = g->position + (int64_t)count, most = g->config.context;
    const int64_t want = all > twice ? all : twice;
    gt_status st = GT_OK;
    g->room = (int)(want < most ? want : most);
    for (int i = 0; !st && i < g->stages; i++)
        st = generate_stage_resize(g->stage[i], g->room);
    return st || !g->position ? st : feed_again(g, g->position);
}

gt_status generate_feed(generate *g, const uint32_t *ids, size_t count)
{
    gt_status st = GT_OK;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= (uint32_t)g->config.vocab)
            return gt_fail(GT_MISMATCH, "token %u is not among the model's %d", ids[i], g->config.vocab);
    for (size_t i = 0; i < count; i++)
        g->seen[ids[i]] = 1;
    while (!st && count) {
        if (g->position == g->config.context)           /* full: on with its last half */
            st = feed_again(g, g->config.context / 2);
        if (!st && (size_t)g->position + count > (size_t)g->room && g->room < g->config.context)
            st = grow(g, count);
        const size_t left = (size_t)(g->room - g->position), some = count < left ? count : left;
        if (!st)
            st = feed_all(g, ids, some);
        ids += some;
        count -= some;
    }
    return st;
}

int generate_seen(const generate *g)
{
    return g->position;
}

gt_status generate_next(generate *g, const sampling_rule *s, gt_random *r, uint32_t *id)
{
    if (!g->position)
        return gt_fail(GT_MISUSE, "cannot generate from nothing: the prompt is empty");
    for (int i = 0; i < g->config.vocab; i++)
        if (!isfinite(g->logits[i]))
            return gt_fail(GT_NUMERIC, "the model's output is not finite; are its weights whole?");
    const double unit = s->temperature > 0.0 ? (double)gt_random_unit(r) : 0.0;
    *id = sampling_pick(g->sampling, s, g->logits, g->seen, unit);
    return generate_feed(g, id, 1);
}
