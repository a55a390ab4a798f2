/* SPDX-License-Identifier: MIT */
/* tests/models/parity.c - what a model of a folder makes of a given batch, for parity.py to compare.
 *
 *   parity FOLDER BATCH OUT
 *
 * BATCH: a safetensors file with the inputs of the model's graph by name ("tokens", "targets", ...; i32 or fp32).
 * OUT, a folder: model.safetensors has the gradients of the mean loss, named and laid out as the model's
 * weights are; loss/model.safetensors "loss", fp32 (1); and, of a family that generates, logits/model.safetensors
 * "logits", fp32 (B T, V). Exit 0 or 1. */
#include "host/base/file.h"
#include "host/graph/derived.h"
#include "host/tensor/safetensors.h"
#include "models/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct program {
    model_config c;
    st_file *batch;
    const char *out;
    int B, T;
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
} program;

/* A graph, made to run. */
typedef struct placed {
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} placed;

static void placed_release(placed *r)
{
    exec_release(r->e);
    exec_arena_release(r->arena);
    params_release(r->p);
    graph_release(r->g);
}

static gt_status write_one(const program *m, const char *name, const shape *s, const float *numbers)
{
    st_writer *w = NULL;
    char *folder = gt_path_join(m->out, name), *path = folder ? gt_path_join(folder, "model.safetensors") : NULL;
    gt_status st = path ? gt_folder_make(folder) : gt_fail(GT_NO_MEMORY, "no memory for a path");
    if (!st)
        st = st_writer_open(&w, path);
    if (!st)
        st = st_writer_add(w, name, DTYPE_F32, s);
    if (!st)
        st = st_writer_begin(w);
    if (!st)
        st = st_writer_put(w, numbers, (size_t)shape_count(s) * sizeof *numbers);
    if (!st)
        st = st_writer_commit(w);
    free(folder);
    free(path);
    return st;
}

/* Every input that the batch has, and those computed from them. */
static gt_status feed(const program *m, placed *r)
{
    gt_status st = GT_OK;
    for (size_t i = 0; !st && i < st_count(m->batch); i++) {
        const st_tensor *t = st_at(m->batch, i);
        dev_buffer *to = exec_buffer(r->e, t->name);
        if (to)
            st = dev_write(m->d, to, 0, t->data, t->bytes);
    }
    for (int i = 0; !st && i < graph_derived_count(r->g); i++) {
        const graph_derived d = graph_derived_at(r->g, i);
        const st_tensor *source = st_find(m->batch, d.source);
        int32_t *from = source ? malloc(source->bytes) : NULL, *out[GRAPH_DERIVED_OUTPUTS] = { NULL };
        int32_t *scratch = calloc((size_t)d.scratch + 1, sizeof *scratch);
        if (!from)
            return gt_fail(GT_MISUSE, "the batch has no '%s'", d.source);
        memcpy(from, source->data, source->bytes);
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++)
            out[k] = calloc((size_t)d.count[k] + 1, sizeof **out);
        graph_derive(r->g, &d, from, out, scratch);
        for (int k = 0; !st && k < GRAPH_DERIVED_OUTPUTS; k++)
            if (d.name[k])
                st = dev_write(m->d, exec_buffer(r->e, d.name[k]), 0, out[k], (size_t)d.count[k] * sizeof **out);
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++)
            free(out[k]);
        free(from);
        free(scratch);
    }
    return st;
}

/* r->g has been built; its weights are those of the folder. */
static gt_status place(const program *m, placed *r, const char *folder, int training, const exec_binding *bindings)
{
    exec_options o = { .device = m->d, .kernels = m->k, .gemm = m->gemm, .bindings = bindings };
    gt_status st = params_create(&r->p, m->d, r->g, training);
    if (!st)
        st = model_import(&m->c, r->p, folder);
    if (!st)
        st = params_refresh(r->p, m->k);
    if (!st)
        st = exec_arena_create(&r->arena, m->d);
    o.params = r->p;
    o.arena = r->arena;
    if (!st)
        st = exec_create(&r->e, r->g, &o);
    if (!st)
        st = exec_ready(r->e);
    return st ? st : feed(m, r);
}

/* Gradients go where the weights are, and out as they would. */
static gt_status write_gradients(const program *m, placed *r)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(r->p); i++) {
        float *x = malloc((size_t)shape_count(&params_info(r->p, i)->shape) * sizeof *x);
        st = x ? params_read_grad(r->p, i, x) : gt_fail(GT_NO_MEMORY, "no memory for a gradient");
        if (!st)
            st = params_write(r->p, i, x);
        free(x);
    }
    return st ? st : model_export(&m->c, r->p, DTYPE_F32, m->out);
}

static gt_status gradients(const program *m, const char *folder)
{
    placed r = { 0 };
    dev_buffer *scale = NULL, *sum = NULL;
    float share = 1.0f, loss = 0.0f;
    const st_tensor *targets = st_find(m->batch, "targets");
    int64_t counted = 0;
    for (int64_t i = 0; targets && i < shape_count(&targets->dims); i++) {
        int32_t id;
        memcpy(&id, (const char *)targets->data + 4 * i, 4);
        counted += id >= 0;
    }
    if (counted)
        share = 1.0f / (float)counted;
    gt_status st = graph_create(&r.g, DTYPE_F32, m->B, m->T);
    if (!st)
        st = model_build_loss(r.g, &m->c, 1, 0);
    if (!st)
        st = dev_buffer_create(&scale, m->d, 4, "grad_scale");
    if (!st)
        st = dev_write(m->d, scale, 0, &share, 4);
    if (!st)
        st = dev_buffer_create(&sum, m->d, 4, "loss_sum");
    if (!st)
        st = dev_write(m->d, sum, 0, &loss, 4);
    const exec_binding bindings[] = { { "grad_scale", scale }, { "loss_sum", sum }, { NULL, NULL } };
    if (!st)
        st = place(m, &r, folder, 1, bindings);
    if (!st)
        st = exec_add(r.e, 0);
    if (!st)
        st = exec_run(r.e, EXEC_FORWARD);
    if (!st)
        st = exec_run(r.e, EXEC_BACKWARD);
    if (!st)
        st = dev_read(m->d, sum, 0, &loss, 4);
    if (!st)
        st = write_gradients(m, &r);
    loss *= share;
    const shape one = shape_of(1, (int64_t)1);
    if (!st)
        st = write_one(m, "loss", &one, &loss);
    placed_release(&r);
    dev_buffer_release(scale);
    dev_buffer_release(sum);
    return st;
}

static gt_status logits(const program *m, const char *folder)
{
    placed r = { 0 };
    const shape s = shape_of(2, (int64_t)m->B * m->T, (int64_t)m->c.vocab);
    const size_t bytes = (size_t)shape_count(&s) * sizeof(float);
    float *x = malloc(bytes);
    const int32_t zero = 0;
    gt_status st = x ? graph_create(&r.g, DTYPE_F32, m->B, m->T) : gt_fail(GT_NO_MEMORY, "no memory for logits");
    if (!st)
        st = model_build_generate(r.g, &m->c, m->T);
    if (!st)
        st = place(m, &r, folder, 0, NULL);
    if (!st)
        st = dev_write(m->d, exec_buffer(r.e, "first"), 0, &zero, 4);
    if (!st)
        st = exec_run(r.e, EXEC_FORWARD);
    if (!st)
        st = dev_read(m->d, exec_buffer(r.e, "logits"), 0, x, bytes);
    if (!st)
        st = write_one(m, "logits", &s, x);
    placed_release(&r);
    free(x);
    return st;
}

static gt_status run(program *m, const char *folder)
{
    const model_family *family;
    const st_tensor *tokens = st_find(m->batch, "tokens");
    if (!tokens || tokens->dims.rank != 2)
        return gt_fail(GT_MISUSE, "the batch has no tokens of (B,T)");
    m->B = (int)tokens->dims.dim[0];
    m->T = (int)tokens->dims.dim[1];
    gt_status st = dev_open(&m->d, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = kernel_set_create(&m->k, m->d, DTYPE_F32);
    if (!st)
        st = gemm_context_create(&m->gemm, m->d, "tiled");
    if (!st)
        st = model_family_of(&family, &m->c);
    if (!st)
        st = gradients(m, folder);
    if (!st && family->build_generate)
        st = logits(m, folder);
    gemm_context_release(m->gemm);
    kernel_set_release(m->k);
    dev_close(m->d);
    return st;
}

int main(int argc, char **argv)
{
    program m = { 0 };
    if (argc != 4) {
        fprintf(stderr, "usage: parity FOLDER BATCH OUT\n");
        return 2;
    }
    m.out = argv[3];
    gt_status st = model_config_load(&m.c, argv[1]);
    if (!st)
        st = st_open(&m.batch, argv[2]);
    if (!st)
        st = gt_folder_make(m.out);
    if (!st)
        st = run(&m, argv[1]);
    st_close(m.batch);
    if (st)
        fprintf(stderr, "parity: %s\n", gt_message());
    return st ? 1 : 0;
}
