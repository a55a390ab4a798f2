/* SPDX-License-Identifier: MIT */
/* tests/models/model_run.c - one pass of a Hugging Face folder's model, for comparisons with other implementations.
 *
 *   model_run FOLDER TASK INPUTS.safetensors OUT
 *
 * TASK is "lm", "mlm", "pairs", "classify" or "encode". INPUTS holds what the graph reads, by name ("tokens",
 * "targets", ...; i32 or f32), and grad_scale f32 (1), which gradients are multiplied by. OUT becomes a folder:
 *
 *   model.safetensors             the gradients, named and laid out as FOLDER's weights; and the loss, a sum, is printed
 *   logits/model.safetensors      of "lm": f32 (B T, V)
 *   hidden/model.safetensors      of "encode", which has neither: the last activations, f32 (B, T, C)  */
#include "host/base/file.h"
#include "host/graph/derived.h"
#include "host/graph/exec.h"
#include "host/tensor/safetensors.h"
#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct run {
    model_config c;
    const char *folder, *out;
    st_file *inputs;
    int B, T;
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
} run;

/* A graph with the folder's weights and the inputs, ready to run. */
typedef struct placed {
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} placed;

/* ---- going in -------------------------------------------------------------------------------------------- */

/* What the graph computes on the host of an input. */
static gt_status feed_derived(const run *r, const placed *at, const graph_derived *d)
{
    const st_tensor *source = st_find(r->inputs, d->source);
    int32_t *out[GRAPH_DERIVED_OUTPUTS] = { NULL }, *scratch = calloc((size_t)d->scratch + 1, sizeof *scratch);
    int32_t *from = source ? malloc(source->bytes + 1) : NULL;
    gt_status st = from && scratch ? GT_OK : gt_fail(GT_MISUSE, "cannot compute '%s' of '%s'", d->name[0], d->source);
    for (int k = 0; !st && k < GRAPH_DERIVED_OUTPUTS; k++)
        if (!(out[k] = calloc((size_t)d->count[k] + 1, sizeof **out)))
            st = gt_fail(GT_NO_MEMORY, "no memory for an input");
    if (!st) {
        memcpy(from, source->data, source->bytes);
        graph_derive(at->g, d, from, out, scratch);
    }
    for (int k = 0; !st && k < GRAPH_DERIVED_OUTPUTS; k++)
        if (d->name[k])
            st = dev_write(r->d, exec_buffer(at->e, d->name[k]), 0, out[k], (size_t)d->count[k] * sizeof **out);
    for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++)
        free(out[k]);
    free(from);
    free(scratch);
    return st;
}

static gt_status feed(const run *r, const placed *at)
{
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < st_count(r->inputs); i++) {
        const st_tensor *t = st_at(r->inputs, i);
        dev_buffer *to = exec_buffer(at->e, t->name);
        if (to)
            st = dev_write(r->d, to, 0, t->data, t->bytes);
    }
    for (int i = 0; !st && i < graph_derived_count(at->g); i++) {
        const graph_derived d = graph_derived_at(at->g, i);
        st = feed_derived(r, at, &d);
    }
    return st;
}

/* at->g has been built. */
static gt_status place(const run *r, placed *at, int training)
{
    gt_status st = params_create(&at->p, r->d, at->g, training);
    if (!st)
        st = model_import(&r->c, at->p, r->folder);
    if (!st)
        st = params_refresh(at->p, r->k);
    if (!st)
        st = exec_arena_create(&at->arena, r->d);
    const exec_options o = { .device = r->d, .kernels = r->k, .gemm = r->gemm, .params = at->p, .arena = at->arena };
    if (!st)
        st = exec_create(&at->e, at->g, &o);
    if (!st)
        st = exec_ready(at->e);
    if (!st)
        st = feed(r, at);
    return st ? st : exec_add(at->e, 0);
}

static void placed_release(placed *at)
{
    exec_release(at->e);
    exec_arena_release(at->arena);
    params_release(at->p);
    graph_release(at->g);
}

/* ---- coming out ------------------------------------------------------------------------------------------ */

/* A value of the graph, fp32, as OUT/NAME/model.safetensors. */
static gt_status write_value(const run *r, const placed *at, const char *name, const shape *s)
{
    dev_buffer *from = exec_buffer(at->e, name);
    st_writer *w = NULL;
    char *folder = gt_path_join(r->out, name), *path = folder ? gt_path_join(folder, "model.safetensors") : NULL;
    const size_t bytes = (size_t)shape_count(s) * sizeof(float);
    float *x = malloc(bytes + 1);
    gt_status st = from && path && x ? gt_folder_make(folder) : gt_fail(GT_MISMATCH, "there are no %s", name);
    if (!st)
        st = dev_read(r->d, from, 0, x, bytes);
    if (!st)
        st = st_writer_open(&w, path);
    if (!st)
        st = st_writer_add(w, name, DTYPE_F32, s);
    if (!st)
        st = st_writer_begin(w);
    if (!st)
        st = st_writer_put(w, x, bytes);
    if (!st)
        st = st_writer_commit(w);
    free(x);
    free(folder);
    free(path);
    return st;
}

/* Gradients go where the weights are, and out as those would. */
static gt_status write_gradients(const run *r, const placed *at)
{
    gt_status st = GT_OK;
    float loss = 0.0f;
    for (int i = 0; !st && i < params_count(at->p); i++) {
        float *x = malloc((size_t)shape_count(&params_info(at->p, i)->shape) * sizeof *x);
        st = x ? params_read_grad(at->p, i, x) : gt_fail(GT_NO_MEMORY, "no memory for a gradient");
        if (!st)
            st = params_write(at->p, i, x);
        free(x);
    }
    if (!st)
        st = dev_read(r->d, exec_buffer(at->e, "loss_sum"), 0, &loss, sizeof loss);
    if (!st)
        printf("%.9g\n", (double)loss);
    return st ? st : model_export(&r->c, at->p, DTYPE_F32, r->out);
}

/* ---- passes ---------------------------------------------------------------------------------------------- */

/* Forward and backward; of "encode" forward alone. */
static gt_status pass(const run *r)
{
    const int encodes = r->c.task == MODEL_ENCODE;
    const shape hidden = shape_of(3, (int64_t)r->B, (int64_t)r->T, (int64_t)r->c.channels);
    placed at = { 0 };
    gt_status st = graph_create(&at.g, DTYPE_F32, r->B, r->T);
    if (!st)
        st = model_build_loss(at.g, &r->c, !encodes, 0);
    if (!st)
        st = place(r, &at, !encodes);
    if (!st)
        st = exec_run(at.e, EXEC_FORWARD);
    if (!st && !encodes)
        st = exec_run(at.e, EXEC_BACKWARD);
    if (!st)
        st = encodes ? write_value(r, &at, "hidden", &hidden) : write_gradients(r, &at);
    placed_release(&at);
    return st;
}

/* As for text that begins with these tokens. */
static gt_status logits(const run *r)
{
    const shape s = shape_of(2, (int64_t)r->B * r->T, (int64_t)r->c.vocab);
    const int32_t first = 0;
    placed at = { 0 };
    gt_status st = graph_create(&at.g, DTYPE_F32, r->B, r->T);
    if (!st)
        st = model_build_generate(at.g, &r->c, r->T);
    if (!st)
        st = place(r, &at, 0);
    if (!st)
        st = dev_write(r->d, exec_buffer(at.e, "first"), 0, &first, sizeof first);
    if (!st)
        st = exec_run(at.e, EXEC_FORWARD);
    if (!st)
        st = write_value(r, &at, "logits", &s);
    placed_release(&at);
    return st;
}

static gt_status go(run *r, const char *task, const char *inputs)
{
    const int pairs = !strcmp(task, "pairs");
    gt_status st = st_open(&r->inputs, inputs);
    const st_tensor *tokens = st ? NULL : st_find(r->inputs, "tokens");
    if (!st && (!tokens || tokens->dims.rank != 2))
        st = gt_fail(GT_MISUSE, "'%s' has no tokens (B,T)", inputs);
    if (!st)
        st = model_config_load(&r->c, r->folder);
    if (!st)
        st = model_config_task(&r->c, pairs ? "mlm" : task);
    if (st)
        return st;
    r->B = (int)tokens->dims.dim[0];
    r->T = (int)tokens->dims.dim[1];
    r->c.pairs = pairs;
    model_config_dropout(&r->c, 0.0f);
    st = gt_folder_make(r->out);
    if (!st)
        st = dev_open(&r->d, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = kernel_set_create(&r->k, r->d, DTYPE_F32);
    if (!st)
        st = gemm_context_create(&r->gemm, r->d, "tiled");
    if (!st)
        st = pass(r);
    return st || r->c.task != MODEL_LM ? st : logits(r);
}

int main(int argc, char **argv)
{
    run r = { 0 };
    if (argc != 5) {
        fprintf(stderr, "usage: model_run FOLDER TASK INPUTS.safetensors OUT\n");
        return 2;
    }
    r.folder = argv[1];
    r.out = argv[4];
    const gt_status st = go(&r, argv[2], argv[3]);
    if (st)
        fprintf(stderr, "model_run: %s\n", gt_message());
    gemm_context_release(r.gemm);
    kernel_set_release(r.k);
    dev_close(r.d);
    st_close(r.inputs);
    return st != GT_OK;
}
