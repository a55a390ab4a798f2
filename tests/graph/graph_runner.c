/* SPDX-License-Identifier: MIT */
/* tests/graph/graph_runner.c - see graph_runner.h. */
#include "tests/graph/graph_runner.h"

#include "tests/check.h"

#include <math.h>

double relative(const float *a, const float *b, size_t n)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / (norm > 0.0 ? norm : 1.0));
}

int runner_open(runner *r)
{
    *r = (runner){ .d = tiny_device() };
    return r->d && CHECK_OK(kernel_set_create(&r->k, r->d, DTYPE_F32))
           && CHECK_OK(gemm_context_create(&r->gemm, r->d, "tiled"))
           && CHECK_OK(graph_create(&r->g, DTYPE_F32, TINY_B, TINY_T));
}

int runner_ready(runner *r, const exec_binding *bindings)
{
    const exec_options o = { .device = r->d, .kernels = r->k, .gemm = r->gemm, .bindings = bindings };
    exec_options with = o;
    int good = CHECK_OK(params_create(&r->p, r->d, r->g, 1)) && CHECK_OK(params_init(r->p, 5))
               && CHECK_OK(exec_arena_create(&r->arena, r->d));
    with.params = r->p;
    with.arena = r->arena;
    return good && CHECK_OK(exec_create(&r->e, r->g, &with)) && CHECK_OK(exec_ready(r->e))
           && CHECK_OK(exec_add(r->e, 0));
}

int runner_run(runner *r)
{
    return CHECK_OK(exec_run(r->e, EXEC_FORWARD)) && CHECK_OK(exec_run(r->e, EXEC_BACKWARD))
           && CHECK_OK(dev_wait(r->d));
}

void runner_close(runner *r)
{
    exec_release(r->e);
    exec_arena_release(r->arena);
    params_release(r->p);
    graph_release(r->g);
    gemm_context_release(r->gemm);
    kernel_set_release(r->k);
    dev_close(r->d);
}
