/* SPDX-License-Identifier: MIT */
/* host/cli/cli_model.c - puts the model of a source on a device: see cli_model.h. */
#include "host/cli/cli_model.h"

gt_status cli_model_open(cli_model *out, cli_source *s, const char *device, dtype storage, int B, int T)
{
    *out = (cli_model){ 0 };
    gt_status st = dev_open(&out->device, device);
    if (!st)
        st = kernel_set_create(&out->kernels, out->device, storage);
    if (!st)
        st = gemm_context_create(&out->gemm, out->device, NULL);
    if (!st)
        st = graph_create(&out->graph, storage, B, T);
    if (!st)
        st = model_build_loss(out->graph, &s->config, 0, 0);
    if (!st)
        st = params_create(&out->params, out->device, out->graph, 0);
    if (!st)
        st = cli_source_fill(&s->config, out->params, s);
    if (!st)
        st = params_refresh(out->params, out->kernels);
    return st ? st : exec_arena_create(&out->arena, out->device);
}

exec_options cli_model_exec(const cli_model *m)
{
    return (exec_options){
        .device = m->device, .kernels = m->kernels, .gemm = m->gemm, .params = m->params, .arena = m->arena
    };
}

void cli_model_close(cli_model *m)
{
    exec_arena_release(m->arena);
    params_release(m->params);
    graph_release(m->graph);
    gemm_context_release(m->gemm);
    kernel_set_release(m->kernels);
    dev_close(m->device);
}
