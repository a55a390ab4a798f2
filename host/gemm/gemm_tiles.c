/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tiles.c - who multiplies tiles, for a context: engines have the products. */
#include "host/gemm/engine.h"

#include <stdlib.h>
#include <string.h>

struct gemm_tiles {
    gemm_tiles *next;
    gemm_context *context;
    const gemm_engine *engine;
    gemm_pool *pool;
    dtype type;
};

gt_status gemm_tiles_of(gemm_tiles **out, gemm_context *c, const char *engine, dtype type)
{
    gemm_tiles **all = gemm_tiles_list(c);
    const gemm_engine *e = gemm_engine_named(engine);
    *out = NULL;
    if (!e || !e->tiles || !e->tiles->can(c, type))
        return GT_OK;
    for (gemm_tiles *t = *all; t; t = t->next)
        if (t->engine == e && t->type == type) {
            *out = t;
            return GT_OK;
        }
    gemm_pool *pool = gemm_pool_of(c);
    gemm_tiles *t = pool ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for the tiles of engine %s", engine);
    *t = (gemm_tiles){ *all, c, e, pool, type };
    *out = *all = t;
    return GT_OK;
}

void gemm_tiles_release(gemm_tiles *t)
{
    while (t) {
        gemm_tiles *next = t->next;
        free(t);
        t = next;
    }
}

int gemm_tiles_threads(const gemm_tiles *t)
{
    return gemm_pool_threads(t->pool);
}

const char *gemm_tiles_engine(const gemm_tiles *t)
{
    return gemm_name_of(t->engine);
}

dtype gemm_tiles_type(const gemm_tiles *t)
{
    return t->type;
}

void gemm_tiles_run(gemm_tiles *t, int pieces, void (*piece)(void *context, int i, int thread), void *context)
{
    t->engine->tiles->begin(t->context);
    gemm_pool_run(t->pool, pieces, piece, context);
}

void gemm_tiles_multiply(gemm_tiles *t, int thread, const gemm_tile *g, const void *a, const void *b, float *c)
{
    t->engine->tiles->multiply(t->context, thread, t->type, g, a, b, c);
}
