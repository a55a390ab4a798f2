/* SPDX-License-Identifier: MIT */
/* tests/models/model_run.c - one forward and backward pass of a Hugging Face folder's model, for comparisons.
 *
 *   model_run FOLDER TASK INPUTS.safetensors OUT
 *
 * INPUTS holds what the graph reads, by name, i32 or f32, and grad_scale f32 (1). TASK is "mlm", "pairs", "classify"
 * or "encode". Prints the loss, which is a sum; OUT becomes a folder of the same layout as FOLDER, with gradients
 * for weights or, of "encode", a file of the last activations, f32. */
#include "host/graph/derived.h"
#include "host/graph/exec.h"
#include "host/tensor/safetensors.h"
#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run {
    model_config c;
    st_file *inputs;
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} run;

static gt_status set_up(run *r, const char *folder, const char *task)
{
    const int encodes = !strcmp(task, "encode");
    const st_tensor *tokens = st_find(r->inputs, "tokens");
    gt_status st = tokens ? GT_OK : gt_fail(GT_MISUSE, "there are no tokens");
    if (!st)
        st = model_config_load(&r->c, folder);
    if (!st)
        st = model_config_task(&r->c, strcmp(task, "pairs") ? task : "mlm");
    if (st)
        return st;
    r->c.pairs = !strcmp(task, "pairs");
    model_config_dropout(&r->c, 0.0f);
    st = dev_open(&r->d, NULL);
    if (!st)
        st = kernel_set_create(&r->k, r->d, DTYPE_F32);
    if (!st)
        st = gemm_context_create(&r->gemm, r->d, "tiled");
    if (!st)
        st = graph_create(&r->g, DTYPE_F32, (int)tokens->dims.dim[0], (int)tokens->dims.dim[1]);
    if (!st)
        st = model_build_loss(r->g, &r->c, !encodes, 0);
    if (!st)
        st = params_create(&r->p, r->d, r->g, !encodes);
    if (!st)
        st = model_import(&r->c, r->p, folder);
    if (!st)
        st = exec_arena_create(&r->arena, r->d);
    const exec_options o = { .device = r->d, .kernels = r->k, .gemm = r->gemm, .params = r->p, .arena = r->arena };
    if (!st)
        st = exec_create(&r->e, r->g, &o);
    return st ? st : exec_ready(r->e);
}

static gt_status feed(run *r)
{
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < st_count(r->inputs); i++) {
        const st_tensor *t = st_at(r->inputs, i);
        if (exec_buffer(r->e, t->name))
            st = dev_write(r->d, exec_buffer(r->e, t->name), 0, t->data, t->bytes);
    }
    for (int i = 0; !st && i < graph_derived_count(r->g); i++) {
        const graph_derived d = graph_derived_at(r->g, i);
        const st_tensor *from = st_find(r->inputs, d.source);
        int32_t *room = malloc((size_t)(d.count[0] + d.count[1] + d.scratch) * sizeof *room);
        if (!room || !from)
            return gt_fail(GT_NO_MEMORY, "cannot compute '%s'", d.name[0]);
        int32_t *out[] = { room, room + d.count[0] };
        graph_derive(r->g, &d, (const int32_t *)(const void *)from->data, out, out[1] + d.count[1]);
        for (int k = 0; !st && k < 2; k++)
            st = dev_write(r->d, exec_buffer(r->e, d.name[k]), 0, out[k], (size_t)d.count[k] * sizeof *room);
        free(room);
    }
    return st;
}

static gt_status write_hidden(run *r, const char *path)
{
    dev_buffer *hidden = exec_buffer(r->e, "hidden");
    const size_t bytes = hidden ? (size_t)dev_buffer_bytes(hidden) : 0;
    float *x = malloc(bytes + 1);
    gt_status st = x && hidden ? dev_read(r->d, hidden, 0, x, bytes) : gt_fail(GT_MISMATCH, "there are no activations");
    FILE *f = st ? NULL : fopen(path, "wb");
    if (!st && (!f || fwrite(x, 1, bytes, f) != bytes))
        st = gt_fail(GT_IO, "cannot write '%s'", path);
    if (f)
        fclose(f);
    free(x);
    return st;
}

static gt_status write_gradients(run *r, const char *folder)
{
    gt_status st = GT_OK;
    float loss;
    for (int i = 0; !st && i < params_count(r->p); i++) {
        float *x = malloc((size_t)shape_count(&params_info(r->p, i)->shape) * sizeof *x);
        st = x ? params_read_grad(r->p, i, x) : gt_fail(GT_NO_MEMORY, "no memory for a gradient");
        if (!st)
            st = params_write(r->p, i, x);
        free(x);
    }
    if (!st)
        st = dev_read(r->d, exec_buffer(r->e, "loss_sum"), 0, &loss, sizeof loss);
    if (!st)
        printf("%.9g\n", (double)loss);
    return st ? st : model_export(&r->c, r->p, DTYPE_F32, folder);
}

static gt_status go(run *r, char **argv)
{
    const int encodes = !strcmp(argv[2], "encode");
    gt_status st = st_open(&r->inputs, argv[3]);
    if (!st)
        st = set_up(r, argv[1], argv[2]);
    if (!st)
        st = feed(r);
    if (!st)
        st = params_refresh(r->p, r->k);
    if (!st)
        st = exec_add(r->e, 0);
    if (!st)
        st = exec_run(r->e, EXEC_FORWARD);
    if (!st && !encodes)
        st = exec_run(r->e, EXEC_BACKWARD);
    if (!st)
        st = dev_wait(r->d);
    return st ? st : encodes ? write_hidden(r, argv[4]) : write_gradients(r, argv[4]);
}

int main(int argc, char **argv)
{
    run r = { 0 };
    if (argc != 5) {
        fprintf(stderr, "usage: model_run FOLDER TASK INPUTS.safetensors OUT\n");
        return 2;
    }
    const gt_status st = go(&r, argv);
    if (st)
        fprintf(stderr, "model_run: %s\n", gt_message());
    exec_release(r.e);
    exec_arena_release(r.arena);
    params_release(r.p);
    graph_release(r.g);
    gemm_context_release(r.gemm);
    kernel_set_release(r.k);
    dev_close(r.d);
    st_close(r.inputs);
    return st != GT_OK;
}
