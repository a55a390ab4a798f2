/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm.c - the table of engines, the choice between them, and the context that they share.
 *
 *   gemm_append ── choose ──┬── asked for by name        the user's, where it can
 *                           ├── known                    gemm_choices.c: this run's, or the cache folder's
 *                           ├── small, or always one     the first of the table that can
 *                           └── measured now             gemm_measure.c: of the class's product (gemm_desc.c)
 *
 * The first product of a class is run on scratch memory by every engine that can, and the fastest is kept. Products
 * that one engine was made for, and that take as long as memory takes, are not measured. */
#include "host/gemm/engine.h"

#include "host/base/activity.h"
#include "host/gemm/gemm_choices.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GT_WITH_PACKED
#define PACKED &gemm_packed
#else
#define PACKED NULL
#endif
#ifdef GT_WITH_BLAS
#define NATIVE &gemm_native
#else
#define NATIVE NULL
#endif
#ifdef GT_WITH_ONEDNN
#define ONEDNN &gemm_onednn
#else
#define ONEDNN NULL
#endif
#ifdef GT_WITH_CLBLAST
#define CLBLAST &gemm_clblast
#else
#define CLBLAST NULL
#endif

/* In order of preference. NULL: this build is without it. */
static const struct {
    const char *name;
    const gemm_engine *engine;
} table[] = {
    { "gemv", &gemm_gemv },     { "packed", PACKED },     { "onednn", ONEDNN },   { "native", NATIVE },
    { "matrix", &gemm_matrix }, { "tiled", &gemm_tiled }, { "clblast", CLBLAST }, { "bf16x3", &gemm_bf16x3 },
};
_Static_assert(sizeof table / sizeof *table == GEMM_ENGINES, "engine.h counts the table's rows");

typedef struct built_program {
    const dev_family *family;
    dtype storage;
    char *options;
    dev_program *program;
} built_program;

struct gemm_context {
    dev_device *device;
    const gemm_engine *forced;      /* NULL: measure                                     */
    gemm_choices kept, *choices;    /* choices: to kept, which a constant context gives out too */
    built_program *programs;
    int program_count;
    void *states[GEMM_ENGINES];     /* of the engines that keep something, NULL at first */
    gemm_tiles *tiles;
    gemm_pool *pool;                /* NULL until somebody cuts something into pieces     */
    gemm_tuning *tuning;            /* NULL until a kernel that can be tuned is asked for */
};

/* ---- the table --------------------------------------------------------------------------- */

const gemm_engine *gemm_engine_named(const char *name)
{
    for (int i = 0; i < GEMM_ENGINES; i++)
        if (!strcmp(table[i].name, name))
            return table[i].engine;
    return NULL;
}

const gemm_engine *gemm_engine_row(int i)
{
    for (int k = 0; k < GEMM_ENGINES; k++)
        if (table[k].engine && !i--)
            return table[k].engine;
    return NULL;
}

const char *gemm_name_of(const gemm_engine *e)
{
    int i = 0;
    while (table[i].engine != e)
        i++;
    return table[i].name;
}

char *gemm_engine_names(char *out, size_t size, const char *between)
{
    size_t at = 0;
    for (int i = 0; i < GEMM_ENGINES; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i ? between : "", table[i].name);
    assert(at < size);
    return out;
}

char *gemm_engines_for(gemm_context *c, dtype storage, char *out, size_t size, const char *between)
{
    size_t at = 0;
    *out = '\0';
    for (int i = 0; gemm_engine_row(i); i++) {
        const gemm_engine *e = gemm_engine_row(i);
        int can = 0;
        for (int rows = 1; rows <= 64; rows *= 64) {
            const gemm_desc g = {
                .M = rows,
                .N = 64,
                .K = 64,
                .trans_b = 1,
                .a_type = storage,
                .b_type = storage,
                .c_type = storage,
                .lda = 64,
                .ldb = 64,
                .ldc = 64,
                .batch = 1,
                .alpha = 1
            };
            can |= e->can(c, &g);
        }
        if (can)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? between : "", gemm_name_of(e));
    }
    assert(at < size);
    return out;
}

/* ---- the choice -------------------------------------------------------------------------- */

/* Below this a product takes no longer than its launch, and measuring shows only noise. */
static int is_small(const gemm_desc *g)
{
    return gemm_flops(g) < 2e7;
}

/* `g` is complete. */
static gt_status choose(gemm_context *c, const gemm_desc *g, const gemm_engine **out)
{
    const gemm_engine *usual = NULL;
    int able = 0;

    if (c->forced && c->forced->can(c, g) && !(c->forced->less_precise && gemm_gemv.can(c, g))) {
        *out = c->forced;
        return GT_OK;
    }
    for (int i = 0; gemm_engine_row(i); i++)
        if (gemm_engine_row(i)->can(c, g)) {
            if (!usual && !gemm_engine_row(i)->measured_only)
                usual = gemm_engine_row(i);
            able++;
        }
    *out = usual;
    if (!usual)
        return gt_fail(GT_UNSUPPORTED, "cannot multiply %s matrices on device '%s': no GEMM engine can",
                       dtype_name(g->a_type), dev_info_of(c->device)->id);
    if (c->forced || able == 1 || usual->always || is_small(g)
        || gemm_a_bytes(g) + gemm_b_bytes(g) + 2 * gemm_c_bytes(g) > dev_info_of(c->device)->global_bytes / 8)
        return GT_OK;

    /* A run that began with an older version may know the exact product. */
    const gemm_desc smaller = gemm_shrink(c, g);
    char class_name[GEMM_CLASS];
    gemm_class(class_name, g);
    const gemm_choice *known = gemm_choices_find(c->choices, class_name);
    if (!known) {
        gemm_class(class_name, &smaller);
        known = gemm_choices_find(c->choices, class_name);
    }
    if (known) {
        *out = known->engine->can(c, g) ? known->engine : usual;
        return GT_OK;
    }
    double seconds = 0;
    char what[64];
    gt_activity a;
    snprintf(what, sizeof what, "measuring a product of %d x %d x %d", smaller.M, smaller.K, smaller.N);
    gt_activity_begin(&a, what, NULL, 0);
    dev_full_speed(c->device, 1);
    gt_status st = gemm_measure(c, &smaller, out, &seconds);
    dev_full_speed(c->device, 0);
    gt_activity_end(&a);
    if (!st)
        st = gemm_choices_add(c->choices, class_name, *out, seconds);
    if (!st)
        gemm_choices_keep(c->choices);
    if (!st && !(*out)->can(c, g))              /* what it could do was the smaller product */
        *out = usual;
    return st;
}

static void drop(gemm_context *c, const gemm_desc *g)
{
    char class_name[GEMM_CLASS];
    gemm_class(class_name, g);
    gemm_choices_drop(c->choices, class_name);
}

gt_status gemm_choose_anew(gemm_context *c, const gemm_desc *plain)
{
    gt_status st = GT_OK;
    for (int kind = 0; !st && kind < 3; kind++) {
        const int before = c->choices->count;
        const gemm_engine *e;
        gemm_desc g = *plain;
        g.bias = kind == 1;
        g.act = kind == 2 ? ACT_GELU_TANH : ACT_NONE;
        const gemm_desc smaller = gemm_shrink(c, &g);
        drop(c, &g);
        drop(c, &smaller);
        if (c->choices->count < before)
            st = choose(c, &g, &e);
    }
    return st;
}

/* ---- the context ---------------------------------------------------------------------- */

gt_status gemm_context_create(gemm_context **out, dev_device *d, const char *engine)
{
    *out = NULL;
    if (!engine || !*engine || !strcmp(engine, "auto"))
        engine = getenv("GEARTRAIN_GEMM");
    if (engine && (!*engine || !strcmp(engine, "auto")))
        engine = NULL;

    gemm_context *c = calloc(1, sizeof *c);
    if (!c)
        return gt_fail(GT_NO_MEMORY, "no memory for the state of the GEMM engines");
    c->device = d;
    c->choices = &c->kept;
    if (engine) {
        char all[96];
        const gemm_desc probe = {
            .M = 1, .N = 1, .K = 1, .trans_b = 1, .lda = 1, .ldb = 1, .ldc = 1, .batch = 1, .alpha = 1
        };
        gemm_desc narrow = probe;
        narrow.a_type = narrow.b_type = narrow.c_type = DTYPE_BF16;
        int known = 0;
        for (int i = 0; i < GEMM_ENGINES; i++)
            known |= !strcmp(table[i].name, engine);
        c->forced = gemm_engine_named(engine);
        gt_status st = GT_OK;
        if (!known)
            st = gt_fail(GT_MISUSE, "cannot use GEMM engine '%s': it is none of %s", engine,
                         gemm_engine_names(all, sizeof all, ", "));
        else if (!c->forced)
            st = gt_fail(GT_UNSUPPORTED,
                         "cannot use GEMM engine '%s': this program was built"
                         " without it",
                         engine);
        else if (c->forced->missing && c->forced->missing())
            st = gt_fail(GT_UNSUPPORTED, "cannot use GEMM engine '%s': %s", engine, c->forced->missing());
        else if (!c->forced->can(c, &probe) && !c->forced->can(c, &narrow))
            st = gt_fail(GT_UNSUPPORTED,
                         "cannot use GEMM engine '%s': device '%s' does not offer"
                         " what it needs",
                         engine, dev_info_of(d)->id);
        if (st) {
            gemm_context_release(c);
            return st;
        }
    } else {
        gemm_choices_read(c->choices, d);
    }
    *out = c;
    return GT_OK;
}

void gemm_context_release(gemm_context *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->program_count; i++) {
        dev_program_release(c->programs[i].program);
        free(c->programs[i].options);
    }
    free(c->programs);
    for (int i = 0; i < GEMM_ENGINES; i++)
        if (table[i].engine && table[i].engine->release)
            table[i].engine->release(c->states[i]);
    gemm_tiles_release(c->tiles);
    gemm_pool_release(c->pool);
    gemm_tuning_release(c->tuning);
    gemm_choices_release(c->choices);
    free(c);
}

void gemm_prepare_process(void)
{
    /* Threads of OpenMP spin for milliseconds behind each product, on cores that the driver's kernels need. */
    setenv("OMP_WAIT_POLICY", "passive", 0);
}

void **gemm_engine_state(gemm_context *c, const gemm_engine *e)
{
    int i = 0;
    while (table[i].engine != e)
        i++;
    return &c->states[i];
}

gemm_tiles **gemm_tiles_list(gemm_context *c)
{
    return &c->tiles;
}

gemm_tuning **gemm_tuning_slot(gemm_context *c)
{
    return &c->tuning;
}

gemm_pool *gemm_pool_of(gemm_context *c)
{
    if (!c->pool)
        c->pool = gemm_pool_create(dev_info_of(c->device)->compute_units);
    return c->pool;
}

gemm_choices *gemm_choices_of(const gemm_context *c)
{
    return c->choices;
}

dev_device *gemm_device(const gemm_context *c)
{
    return c->device;
}

const char *gemm_forced_name(const gemm_context *c)
{
    return c->forced ? gemm_name_of(c->forced) : NULL;
}

int gemm_is_forced(const gemm_context *c, const gemm_engine *e)
{
    return c->forced == e;
}

int gemm_may_use(const gemm_context *c, const gemm_engine *e)
{
    return !c->forced || c->forced == e;
}

const dev_family *gemm_family_at(int i)
{
    static const dev_family *const all[] = { &gemm_tiled_family,    &gemm_matrix_family, &gemm_gemv_family,
                                             &gemm_epilogue_family, &gemm_peak_family,   NULL };
    return all[i];
}

gt_status gemm_program(gemm_context *c, const dev_family *f, dtype storage, const char *options, dev_program **out)
{
    for (int i = 0; i < c->program_count; i++) {
        const built_program *x = &c->programs[i];
        if (x->family == f && x->storage == storage && !strcmp(x->options, options)) {
            *out = x->program;
            return GT_OK;
        }
    }
    built_program *grown = realloc(c->programs, ((size_t)c->program_count + 1) * sizeof *grown);
    char *kept = strdup(options);
    if (grown)
        c->programs = grown;
    if (!grown || !kept) {
        free(kept);
        return gt_fail(GT_NO_MEMORY, "cannot build '%s': no memory for the list of programs", f->file);
    }
    gt_status st = dev_family_build(out, c->device, f, storage, options);
    if (st)
        free(kept);
    else
        grown[c->program_count++] = (built_program){ f, storage, kept, *out };
    return st;
}

/* The part of a product that engines do: what is added to has its epilogue behind it. */
static gemm_desc multiplied(const gemm_desc *g)
{
    gemm_desc plain = *g;
    if (!g->add)
        return plain;
    plain.bias = plain.residual = 0;
    plain.act = plain.act_grad = ACT_NONE;
    plain.drop_p = 0;
    return plain;
}

gt_status gemm_append(gemm_context *c, dev_list *l, const gemm_desc *desc, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_desc g, plain;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st && add_at && gemm_has_epilogue(&g))
        st = gt_fail(GT_MISUSE, "cannot change whether a product with an epilogue is added to a matrix");
    if (st)
        return st;
    plain = multiplied(&g);
    st = choose(c, &plain, &e);
    if (!st)
        st = e->append(c, l, &plain, b, add_at);
    if (!st && g.add && gemm_has_epilogue(&g))
        st = gemm_epilogue_append(c, l, &g, b);
    return st;
}

gt_status gemm_scratch(gemm_context *c, const gemm_desc *desc, uint64_t *bytes)
{
    gemm_desc g;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        g = multiplied(&g);
    if (!st)
        st = choose(c, &g, &e);
    if (!st) {
        const uint64_t n = e->scratch(c, &g);
        *bytes = n < 64 ? 64 : n;
    }
    return st;
}

gt_status gemm_engine_name(gemm_context *c, const gemm_desc *desc, const char **name)
{
    gemm_desc g;
    const gemm_engine *e;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        g = multiplied(&g);
    if (!st)
        st = choose(c, &g, &e);
    if (!st)
        *name = gemm_name_of(e);
    return st;
}
