/* SPDX-License-Identifier: MIT */
/* models/generate_cut.c - see generate_cut.h. By dynamic programming: the best cut of units [0, to) over the first
 * stages is the best over one stage less of units [0, from) and one stage of [from, to). */
#include "models/generate_cut.h"

#include "host/base/clock.h"
#include "host/base/text.h"
#include "models/generate.h"
#include "models/generate_stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM = 3, TIMED = 8, POSITIONS = 16 };

/* Sums over units [0, i): bytes that a token reads, and that are held. */
typedef struct sums {
    double *read, *held;
} sums;

/* ---- what units take ---------------------------------------------------------------------------------- */

static gt_status build_units(graph **out, const model_config *c, dtype storage, int first, int units)
{
    const graph_part part = { .first_unit = first, .units = units };
    model_config frozen = *c;
    generate_stage_freeze(&frozen);
    gt_status st = graph_create(out, storage, 1, 1);
    return st ? st : model_build_generate_part(*out, &frozen, &part, generate_room(c));
}

/* Of one unit. A token reads all weights but those of the embedding, of which it reads rows. */
static gt_status unit_bytes(const model_config *c, dtype storage, int unit, double *read, double *held)
{
    graph *g = NULL;
    gt_status st = build_units(&g, c, storage, unit, 1);
    *read = *held = 0.0;
    for (int i = 0; !st && i < graph_param_count(g); i++)
        *held += (double)graph_param_bytes(graph_param_at(g, i));
    *read = unit ? *held : 0.0;
    for (int i = 0; !st && i < graph_value_count(g); i++) {
        const graph_value *v = graph_value_at(g, i);
        if (v->role == GRAPH_STATE)
            *held += (double)(shape_count(&v->shape) * (int64_t)dtype_size(v->type));
    }
    graph_release(g);
    return st;
}

/* A table that both ends share is counted twice for a stage that has both: it alone holds the whole model, and
 * then there is nothing to cut. */
static gt_status sums_make(sums *s, const model_config *c, dtype storage)
{
    const int units = model_units(c);
    double read, held;
    gt_status st = GT_OK;
    s->read = calloc(2 * ((size_t)units + 1), sizeof *s->read);
    if (!s->read)
        return gt_fail(GT_NO_MEMORY, "cannot cut '%s': no memory for %d units", c->name, units);
    s->held = s->read + units + 1;
    for (int u = 0; !st && u < units; u++) {
        st = unit_bytes(c, storage, u, &read, &held);
        s->read[u + 1] = s->read[u] + read;
        s->held[u + 1] = s->held[u] + held;
    }
    return st;
}

/* ---- the cut ------------------------------------------------------------------------------------------ */

/* Stages ahead of `stage` on its device share its memory: each may take an equal part. */
static double memory_of(int stages, int stage, const int *device, const uint64_t *memory)
{
    int sharing = 0;
    for (int s = 0; s < stages; s++)
        sharing += device[s] == device[stage];
    return (double)memory[device[stage]] / sharing;
}

static gt_status fail_fit(const model_config *c, const sums *s, int stages, const int *device, const uint64_t *memory)
{
    char need[32], have[32];
    double all = 0.0;
    for (int i = 0; i < stages; i++)
        all += memory_of(stages, i, device, memory);
    return gt_fail(
        GT_NO_MEMORY,
        "cannot generate with '%s' on these devices: its weights and caches take %s, the largest of %d stages "
        "must fit one device, and together they have %s; name more devices, or a --precision of 16 bits",
        c->name, gt_format_bytes(need, sizeof need, (uint64_t)s->held[model_units(c)]), stages,
        gt_format_bytes(have, sizeof have, (uint64_t)all));
}

/* best[k][to]: seconds of the slowest of stages [0, k] over units [0, to), INFINITY if none fits. Layers are cut
 * between alone: units 0 and 1 stay together, and so do the last layer and the head. */
static void search(double *best, int *from, const sums *s, int units, int stages, const double *speed,
                   const int *device, const uint64_t *memory)
{
    const int row = units + 1;
    for (int k = 0; k < stages; k++) {
        const double most = memory_of(stages, k, device, memory);
        for (int to = 2; to <= units; to++) {
            double *b = &best[k * row + to];
            *b = INFINITY;
            if (k == stages - 1 ? to != units : to >= units - 1)
                continue;
            for (int at = k ? to - 1 : 0; at >= (k ? 2 : 0); at--) {
                const double before = k ? best[(k - 1) * row + at] : 0.0;
                const double own = (s->read[to] - s->read[at]) / speed[k];
                if (s->held[to] - s->held[at] > most || (k && at > units - 2))
                    continue;
                if (fmax(before, own) < *b || (fmax(before, own) <= *b && isfinite(*b))) {
                    *b = fmax(before, own);
                    from[k * row + to] = at;
                }
            }
        }
    }
}

gt_status generate_cut(int *cut, const model_config *c, dtype storage, int stages, const double *speed,
                       const int *device, const uint64_t *memory)
{
    const int units = model_units(c);
    sums s = { 0 };
    if (stages > c->layers)
        return gt_fail(GT_MISUSE, "cannot cut '%s' into %d stages: it has %d layers, and each stage needs one", c->name,
                       stages, c->layers);
    const size_t cells = (size_t)stages * ((size_t)units + 1);
    double *best = calloc(cells, sizeof *best);
    int *from = calloc(cells, sizeof *from);
    gt_status st = best && from ? sums_make(&s, c, storage)
                                : gt_fail(GT_NO_MEMORY, "cannot cut '%s': no memory for %d stages", c->name, stages);
    if (!st)
        search(best, from, &s, units, stages, speed, device, memory);
    if (!st && !isfinite(best[cells - 1]))
        st = fail_fit(c, &s, stages, device, memory);
    cut[stages] = units;
    for (int k = stages - 1; !st && k >= 0; k--)
        cut[k] = from[(size_t)k * ((size_t)units + 1) + (size_t)cut[k + 1]];
    free(best);
    free(from);
    free(s.read);
    return st;
}

/* ---- measuring ---------------------------------------------------------------------------------------- */

gt_status generate_speed(double *out, dev_device *d, const model_config *c, dtype storage)
{
    const graph_part layer = { .first_unit = 1, .units = 1 };
    generate_stage *s = NULL;
    double read, held, fastest = INFINITY;
    gt_status st = unit_bytes(c, storage, 1, &read, &held);
    if (!st)
        st = generate_stage_create(&s, d, c, &layer, storage, NULL, POSITIONS, NULL);
    if (!st)
        st = generate_stage_refresh(s);
    for (int i = 0; !st && i < WARM + TIMED; i++) {
        const generate_piece token = { .count = 1, .first = i, .last = 1 };
        const uint64_t begin = gt_now_ns();
        st = generate_stage_feed(s, &token, NULL);
        if (!st)
            st = dev_wait(d);
        const double took = (double)(gt_now_ns() - begin) * 1e-9;
        if (i >= WARM && took < fastest)
            fastest = took;
    }
    generate_stage_release(s);
    *out = read / fastest;
    return st;
}
