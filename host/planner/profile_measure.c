/* SPDX-License-Identifier: MIT */
/* host/planner/profile_measure.c - runs units of a model on a device and looks at the clock.
 *
 *   barrier │ embedding: F B W F B W ... │ barrier │ layer: F B W ... │ barrier │ head │ barrier: who took longest?
 *
 * Each program is waited for, so its time holds one trip to the driver and back; that trip is
 * measured with a launch that does nothing and taken off, since a stage queues its programs
 * without waiting. Of many runs the least counts: what else the machine does only ever adds. The other
 * ranks of the job are there in every run, so what they cost stays in. A slowed device sleeps
 * now and then and not after every launch: its time is worked out from that of its kernels. */
#include "host/planner/profile.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/random.h"
#include "host/graph/derived.h"
#include "host/graph/exec.h"
#include "host/graph/graph_cost.h"
#include "host/optim/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double profile_long = 0.3;

static const exec_program programs[] = { EXEC_FORWARD, EXEC_INPUT_GRAD, EXEC_WEIGHT_GRAD };
enum { PROGRAMS = 3, LEAST_RUNS = 5, MOST_RUNS = 100 };

typedef struct bench {
    dev_device *d;
    const profile_model *m;
    kernel_set *kernels;
    gemm_context *gemm, *update_gemm;   /* update_gemm: as several ranks' optimizers have, which must agree */
    int layer;                      /* the unit that stands for all layers */
    double trip;                    /* of a launch that does nothing */
    data_batch batch;               /* its fields; there are no data */
    loader none;
} bench;

/* One unit, placed. */
typedef struct rig {
    graph *g;
    params *p;
    exec_arena *keeps, *passes;
    exec *e;
} rig;

static double since(uint64_t start)
{
    return (double)(gt_now_ns() - start) * 1e-9;
}

static void rig_release(rig *r)
{
    exec_release(r->e);
    exec_arena_release(r->keeps);
    exec_arena_release(r->passes);
    params_release(r->p);
    graph_release(r->g);
    *r = (rig){ 0 };
}

static gt_status build_part(graph **out, const bench *b, profile_kind kind, int B, int recompute, int ranks)
{
    const int unit = kind == PROFILE_HEAD ? b->m->units - 1 : kind == PROFILE_LAYER ? b->layer : 0;
    const graph_part part = { .first_unit = unit, .units = 1, .ranks = ranks };
    gt_status st = graph_create(out, b->m->storage, B, b->m->seq);
    return st ? st : b->m->build(*out, b->m->config, &part, 1, recompute);
}

static gt_status build_unit(graph **out, const bench *b, profile_kind kind, int B, int recompute)
{
    return build_part(out, b, kind, B, recompute, 1);
}

/* Places a unit's graph in memory; *r is released by the caller whatever happens. */
static gt_status rig_place(rig *r, const bench *b, profile_kind kind, int B, int recompute)
{
    *r = (rig){ 0 };
    gt_status st = build_unit(&r->g, b, kind, B, recompute);
    if (!st)
        st = params_create(&r->p, b->d, r->g, 1);
    if (!st)
        st = exec_arena_create(&r->keeps, b->d);
    if (!st)
        st = exec_arena_create(&r->passes, b->d);
    const exec_options o = {
        .device = b->d,
        .kernels = b->kernels,
        .gemm = b->gemm,
        .params = r->p,
        .arena = r->keeps,
        .passing = r->passes,
        .split = 1
    };
    return st ? st : exec_create(&r->e, r->g, &o);
}

/* ---- contents: any numbers of a usual size -------------------------------------------------- */

static gt_status fill_params(rig *r, const bench *b)
{
    gt_random random;
    gt_random_init(&random, 1, 0);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(r->p); i++) {
        const size_t n = (size_t)shape_count(&params_info(r->p, i)->shape);
        float *values = malloc(n * sizeof *values);
        if (!values)
            return gt_fail(GT_NO_MEMORY, "cannot measure: no memory for %zu parameters", n);
        for (size_t k = 0; k < n; k++)
            values[k] = k < 4096 ? 0.04f * (gt_random_unit(&random) - 0.5f) : values[k & 4095];
        st = params_write(r->p, i, values);
        free(values);
    }
    return st ? st : params_refresh(r->p, b->kernels);
}

static gt_status fill_floats(const bench *b, dev_buffer *to, dtype type, size_t n)
{
    gt_random random;
    gt_random_init(&random, 2, 0);
    void *values = malloc(n * dtype_size(type));
    if (!values)
        return gt_fail(GT_NO_MEMORY, "cannot measure: no memory for %zu values", n);
    for (size_t i = 0; i < n; i++)
        dtype_store(type, values, i, gt_random_unit(&random) - 0.5f);
    gt_status st = dev_write(b->d, to, 0, values, n * dtype_size(type));
    free(values);
    return st;
}

/* What the graph wants computed from a field. */
static gt_status fill_derived(const bench *b, rig *r, const char *name, const int32_t *x)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < graph_derived_count(r->g); i++) {
        const graph_derived d = graph_derived_at(r->g, i);
        if (strcmp(d.source, name))
            continue;
        int32_t *room = malloc((size_t)(d.count[0] + d.count[1] + d.scratch) * sizeof *room);
        if (!room)
            st = gt_fail(GT_NO_MEMORY, "cannot measure: no memory to compute '%s'", d.name[0]);
        int32_t *const out[] = { room, room ? room + d.count[0] : NULL };
        if (!st)
            graph_derive(r->g, &d, x, out, room + d.count[0] + d.count[1]);
        for (int k = 0; !st && k < GRAPH_DERIVED_OUTPUTS; k++)
            if (exec_buffer(r->e, d.name[k]))
                st = dev_write(b->d, exec_buffer(r->e, d.name[k]), 0, out[k], (size_t)d.count[k] * sizeof *x);
        free(room);
    }
    return st;
}

/* Whole numbers that the field may hold; ones where it has fractions, such as weights. */
static void draw(const bench *b, const data_field *f, void *to, size_t n)
{
    const int below = f->below ? f->below : b->batch.vocab;
    gt_random random;
    gt_random_init(&random, 3, 0);
    for (size_t i = 0; i < n; i++)
        if (f->type == DTYPE_I32)
            ((int32_t *)to)[i] = below ? f->from + (int32_t)gt_random_below(&random, (uint64_t)(below - f->from)) : 0;
        else
            dtype_store(f->type, to, i, 1.0f);
}

/* A field of the batch, and what is computed from it, as far as the unit reads them. */
static gt_status fill_field(rig *r, const bench *b, const data_field *f)
{
    const size_t bytes = data_field_bytes(f, (uint64_t)graph_batch(r->g));
    dev_buffer *to = exec_buffer(r->e, f->name);
    void *x = malloc(bytes + 1);
    if (!x)
        return gt_fail(GT_NO_MEMORY, "cannot measure: no memory for %zu bytes of '%s'", bytes, f->name);
    draw(b, f, x, bytes / dtype_size(f->type));
    gt_status st = to ? dev_write(b->d, to, 0, x, bytes) : GT_OK;
    if (!st && f->type == DTYPE_I32)
        st = fill_derived(b, r, f->name, x);
    free(x);
    return st;
}

static int is_field(const bench *b, const char *name)
{
    for (int f = 0; f < b->batch.fields; f++)
        if (!strcmp(b->batch.field[f].name, name))
            return 1;
    return 0;
}

static gt_status fill_inputs(rig *r, const bench *b)
{
    const float one = 1.0f;
    gt_status st = GT_OK;
    for (int f = 0; !st && f < b->batch.fields; f++)
        st = fill_field(r, b, &b->batch.field[f]);
    for (int v = 0; !st && v < graph_value_count(r->g); v++) {
        const graph_value *value = graph_value_at(r->g, v);
        const size_t n = (size_t)shape_count(&value->shape);
        dev_buffer *to = value->role == GRAPH_INPUT ? exec_value(r->e, v) : NULL;
        if (!to || is_field(b, value->name))
            continue;
        if (!strcmp(value->name, "grad_scale"))
            st = dev_write(b->d, to, 0, &one, sizeof one);
        else if (dtype_is_storage(value->type))
            st = fill_floats(b, to, value->type, n);
        else if (!strcmp(value->name, "random"))
            st = dev_write(b->d, to, 0, &(uint32_t[4]){ 1, 2, 3, 4 }, 16);
    }
    return st;
}

/* ---- clocks ----------------------------------------------------------------------------------- */

static gt_status measure_trip(bench *b)
{
    dev_buffer *word = NULL;
    dev_list *l = NULL;
    double least = INFINITY;
    gt_status st = dev_buffer_create(&word, b->d, 64, "a measurement");
    if (!st)
        st = dev_list_create(&l, b->d);
    if (!st)
        st = dev_list_fill(l, word, 0, 0, 64);
    for (int i = 0; !st && i < 50; i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run(l, 0, -1);
        if (!st)
            st = dev_wait(b->d);
        least = fmin(least, since(start));
    }
    b->trip = least;
    dev_list_release(l);
    dev_buffer_release(word);
    return st;
}

/* The least that each program took: by the clock, and in kernels. */
typedef struct least {
    double wall[PROGRAMS], busy[PROGRAMS];
} least;

/* Each program once; the slowed device counts its kernels. */
static gt_status run_once(const rig *r, const bench *b, int slowed, least *out)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < PROGRAMS; i++) {
        const double busy = slowed ? dev_busy_seconds(b->d) : 0.0;
        const uint64_t start = gt_now_ns();
        st = exec_run(r->e, programs[i]);
        if (!st)
            st = dev_wait(b->d);
        out->wall[i] = fmin(out->wall[i], since(start));
        out->busy[i] = slowed ? fmin(out->busy[i], dev_busy_seconds(b->d) - busy) : 0.0;
    }
    return st;
}

/* A slowed device sleeps off what it owes once that is enough, so a run had either no sleep in it or one of
 * its own length at least. What is not kernel time is not slowed. */
static double slowed_seconds(double wall, double busy, double speed)
{
    return wall < busy / speed ? busy / speed + fmax(0.0, wall - busy) : wall;
}

static gt_status clock_programs(const rig *r, const bench *b, double seconds[PROGRAMS])
{
    const double speed = dev_slowdown(b->d);
    const int slowed = speed < 1.0;
    least first, best;
    for (int i = 0; i < PROGRAMS; i++)
        first.wall[i] = first.busy[i] = best.wall[i] = best.busy[i] = INFINITY;
    if (slowed)
        dev_busy_count(b->d, 1);
    const uint64_t start = gt_now_ns();
    gt_status st = run_once(r, b, slowed, &first);      /* touches memory */
    const int few = since(start) > profile_long;
    int runs = 0;
    for (const uint64_t begin = gt_now_ns();
         !st && (few ? runs < 1 : runs < LEAST_RUNS || (runs < MOST_RUNS && since(begin) < 0.06)); runs++)
        st = run_once(r, b, slowed, &best);
    if (slowed)
        dev_busy_count(b->d, 0);
    for (int i = 0; i < PROGRAMS; i++) {
        const double all = slowed ? slowed_seconds(best.wall[i], best.busy[i], speed) : best.wall[i];
        seconds[i] = fmax(all - b->trip, 0.2 * all);
    }
    return st;
}

/* ---- one size --------------------------------------------------------------------------------- */

static double output_bytes(const bench *b, const graph *g)
{
    const graph_ends ends = graph_ends_of(g);
    const graph_value *v = ends.y >= 0 ? graph_value_at(g, ends.y) : NULL;
    return v ? (double)shape_count(&v->shape) * (double)dtype_size(b->m->storage) : 0.0;
}

static gt_status measure_bytes_recomputed(const bench *b, profile_kind kind, int B, double input, profile_cost *out)
{
    rig r;
    gt_status st = rig_place(&r, b, kind, B, 1);
    if (!st)
        out->kept_recompute = (double)exec_arena_bytes(r.keeps) + input;
    rig_release(&r);
    return st;
}

/* Places one unit, waits for the others (*met), and measures. */
static gt_status measure_unit(profile *out, bench *b, profile_kind kind, int at, int B, profile_barrier barrier,
                              void *context, int *met)
{
    profile_cost *c = &out->unit[kind][at];
    double seconds[PROGRAMS] = { 0 }, none = 0;
    rig r;
    gt_status st = rig_place(&r, b, kind, B, 0);
    if (!st)
        st = exec_ready(r.e);
    if (!st)
        st = fill_params(&r, b);
    if (!st)
        st = fill_inputs(&r, b);
    if (!st)
        st = exec_add(r.e, 0);
    if (!st)
        st = dev_wait(b->d);
    if (!st && barrier) {
        *met = 1;
        st = barrier(context, &none);
    }
    if (!st)
        st = clock_programs(&r, b, seconds);
    if (!st) {
        if (kind == PROFILE_EMBEDDING)
            out->output = output_bytes(b, r.g) / B;
        const double input = kind == PROFILE_EMBEDDING ? 0.0 : out->output * B;
        *c = (profile_cost){ seconds[0],
                             seconds[1],
                             seconds[2],
                             (double)exec_arena_bytes(r.keeps) + input,
                             (double)exec_arena_bytes(r.keeps) + input,
                             (double)exec_arena_bytes(r.passes) };
        out->parameters[kind] = (double)graph_trained_elements(r.g);
        out->frozen[kind] = (double)graph_frozen_bytes(r.g);
        rig_release(&r);
        if (kind == PROFILE_LAYER)
            st = measure_bytes_recomputed(b, kind, B, input, c);
    }
    rig_release(&r);
    return st;
}

/* All kinds of units; *seconds is what this rank took for one run of them, INFINITY if they do not
 * fit, which the others must learn at the same barrier. */
static gt_status measure_size(profile *out, bench *b, int at, int B, profile_barrier barrier, void *context,
                              double *seconds)
{
    int missing = 0;
    *seconds = 0;
    for (int kind = 0; kind < PROFILE_KINDS; kind++) {
        const profile_cost *c = &out->unit[kind][at];
        double none = 0;
        int met = 0;
        gt_status st = missing ? GT_OK : measure_unit(out, b, (profile_kind)kind, at, B, barrier, context, &met);
        if (st == GT_NO_MEMORY && at > 0) {
            missing = 1;
            gt_message_clear();
            st = GT_OK;
        }
        if (!st && missing && barrier && !met)
            st = barrier(context, &none);
        if (st)
            return st;
        *seconds += c->forward + c->backward_input + c->backward_weight;
    }
    if (missing)
        *seconds = INFINITY;
    return barrier ? barrier(context, seconds) : GT_OK;
}

/* ---- what does not depend on the size --------------------------------------------------------- */

/* The rule's seconds a parameter of a unit: tables may be updated otherwise than matrices are. */
static gt_status measure_update(profile *out, const bench *b, profile_kind kind)
{
    const optim_config config = b->m->optim.rule ? b->m->optim : optim_defaults();
    graph *g = NULL;
    params *p = NULL;
    optim *o = NULL;
    double shortest = INFINITY;
    gt_status st = build_unit(&g, b, kind, out->size[0], 0);
    if (!st)
        st = params_create(&p, b->d, g, 1);
    if (!st)
        st = optim_create(&o, b->d, b->kernels, b->update_gemm, p, &config, 1.0, NULL);
    const double speed = dev_slowdown(b->d);
    dev_busy_count(b->d, speed < 1.0);
    for (int i = 0; !st && i < LEAST_RUNS; i++) {
        const double busy = speed < 1.0 ? dev_busy_seconds(b->d) : 0.0;
        const uint64_t start = gt_now_ns();
        st = optim_step(o, 1e-6);
        if (!st)
            st = dev_wait(b->d);
        const double wall = since(start), kernels = speed < 1.0 ? dev_busy_seconds(b->d) - busy : 0.0;
        if (i)                              /* the first touches memory */
            shortest = fmin(shortest, speed < 1.0 ? slowed_seconds(wall, kernels, speed) : wall);
    }
    dev_busy_count(b->d, 0);
    out->update[kind] = fmax(shortest - b->trip, 0.2 * shortest) / fmax(out->parameters[kind], 1.0);
    optim_release(o);
    params_release(p);
    graph_release(g);
    return st;
}

/* Parameters that both ends of the model hold, rows of the token table, and what the model is fed with. */
static gt_status look_at_ends(profile *out, bench *b)
{
    graph *first = NULL, *last = NULL;
    gt_status st = build_unit(&first, b, PROFILE_EMBEDDING, 1, 0);
    if (!st)
        st = build_unit(&last, b, PROFILE_HEAD, 1, 0);
    for (int i = 0; !st && i < graph_param_count(first); i++)
        for (int k = 0; k < graph_param_count(last); k++) {
            const graph_param_info *p = graph_param_at(first, i);
            if (strcmp(p->name, graph_param_at(last, k)->name))
                continue;
            if (p->frozen)
                out->tied_frozen += (double)graph_param_bytes(p);
            else
                out->tied += (double)shape_count(&p->shape);
        }
    b->none = (loader){ .tokens = (uint64_t)b->m->seq };
    data_batch_make(&b->batch, b->m->batch, b->m->config, &b->none, "measured");
    if (!st)
        b->batch.vocab = graph_vocabulary(first);
    graph_release(first);
    graph_release(last);
    return st;
}

/* Exchanges of a unit that two ranks split; none of one that cannot be, which is no failure here. */
static gt_status count_exchanges(profile *out, const bench *b, profile_kind kind, int recompute)
{
    graph *g = NULL;
    graph_cost cost = { 0 };
    gt_status st = build_part(&g, b, kind, 1, recompute, 2);
    if (!st)
        st = graph_cost_of(g, 1, &cost);
    graph_release(g);
    if (st == GT_MISUSE) {
        gt_message_clear();
        return GT_OK;
    }
    for (int phase = 0; !st && phase < 3; phase++)
        out->exchanges[kind][recompute][phase] = (profile_exchange){ cost.exchanges[phase], cost.exchanged[phase] };
    return st;
}

static gt_status measure(profile *out, bench *b, const int *size, int count, profile_barrier barrier, void *context)
{
    gt_status st = look_at_ends(out, b);
    for (int i = 0; !st && i < 2 * PROFILE_KINDS; i++)
        st = count_exchanges(out, b, (profile_kind)(i / 2), i % 2);
    if (!st)
        st = measure_trip(b);
    out->trip = b->trip;
    gt_activity a;
    gt_activity_begin(&a, "measuring layers,", "sizes of a micro-batch", (uint64_t)count);
    for (int i = 0; !st && i < count; i++) {
        double seconds;
        st = gt_activity_at(&a, (uint64_t)i + 1);
        if (st)
            break;
        st = measure_size(out, b, i, size[i], barrier, context, &seconds);
        if (st || isinf(seconds))
            break;
        out->size[out->sizes++] = size[i];
        if (seconds > profile_long)
            break;
    }
    gt_activity_end(&a);
    double none = 0;
    if (!st && barrier)
        st = barrier(context, &none);
    for (int kind = 0; !st && kind < PROFILE_KINDS; kind++)
        st = measure_update(out, b, (profile_kind)kind);
    return st;
}

gt_status profile_measure(profile *out, dev_device *d, const profile_model *m, const int *size, int count,
                          profile_barrier barrier, void *context)
{
    bench b = { .d = d, .m = m };
    *out = (profile){ 0 };
    gt_status st = profile_unit(&b.layer, m, PROFILE_LAYER);
    if (!st)
        st = kernel_set_create(&b.kernels, d, m->storage);
    if (!st)
        st = gemm_context_create(&b.gemm, d, NULL);
    if (!st)
        st = gemm_context_create(&b.update_gemm, d, barrier ? "tiled" : NULL);
    if (!st)
        st = measure(out, &b, size, count, barrier, context);
    gemm_context_release(b.update_gemm);
    gemm_context_release(b.gemm);
    kernel_set_release(b.kernels);
    return st ? gt_fail_in(st, "cannot measure what '%s' takes", dev_info_of(d)->id) : GT_OK;
}
