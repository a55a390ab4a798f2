/* SPDX-License-Identifier: MIT */
/* tests/train/tiny_run.c - see tiny_run.h. */
#include "tests/train/tiny_run.h"

#include "host/base/random.h"
#include "models/llama.h"
#include "tests/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

dev_device *tiny_device(void)
{
    dev_device *d = NULL;
    return CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))) ? d : NULL;
}

model_config tiny_config(void)
{
    return (model_config){
        .family = "gpt2",
        .name = "tiny",
        .layers = 2,
        .heads = 2,
        .channels = 32,
        .inner = 120,
        .context = TINY_T,
        .vocab = TINY_VOCAB,
        .eps = 1e-5f,
        .init_deviation = 0.1f
    };
}

model_config tiny_llama(const char *family, int even)
{
    model_config c = tiny_config();
    snprintf(c.family, sizeof c.family, "%s", family);
    c.heads = even ? 4 : 3;
    c.channels = even ? 32 : 22;
    c.inner = even ? 88 : 37;
    c.own[LLAMA_KV_HEADS] = even ? 2 : 1;
    c.own[LLAMA_HEAD] = even ? 8 : 6;
    c.own[LLAMA_THETA] = 10000.0;
    c.own[LLAMA_ROPE_TRUNCATE] = 1.0;
    c.own[LLAMA_GEMMA] = !strcmp(family, "gemma");
    c.own[LLAMA_QKV_BIAS] = !strcmp(family, "qwen2");
    c.own[LLAMA_HEAD_NORM] = !strcmp(family, "qwen3");
    c.own[LLAMA_USES_WINDOW] = !strcmp(family, "mistral");
    c.own[LLAMA_WINDOW] = 5.0;
    c.untied_head = strcmp(family, "gemma") != 0;
    return c;
}

train_options tiny_options(void)
{
    train_options o = {
        .steps = 10, .batch = TINY_B, .seq = TINY_T, .seed = 7, .precision = DTYPE_F32, .optim = optim_defaults()
    };
    o.optim.schedule = LR_CONSTANT;
    o.optim.lr = 1e-3;
    return o;
}

/* Written once a program, into the folder that goes when it ends. */
gt_status tiny_text(token_split *out)
{
    static token_split split;
    token_writer *w = NULL;
    gt_random random;
    char *path = NULL;
    gt_status st = GT_OK;
    if (!split.count) {
        st = token_writer_open(&w, check_folder(), "tiny", TINY_VOCAB, 0);
        gt_random_init(&random, 3, 1);
        for (int i = 0; !st && i < 3000; i++) {
            const uint32_t id = (uint32_t)gt_random_below(&random, TINY_VOCAB);
            st = token_writer_put(w, &id, 1);
        }
        if (st)
            token_writer_abandon(w);
        else
            st = token_writer_commit(w);
        path = gt_path_join(check_folder(), "tiny-000000.bin");
        if (!st)
            st = token_split_open(&split, (const char *const[]){ path }, 1, TINY_VOCAB);
        free(path);
    }
    *out = split;
    return st;
}

static gt_status build(graph *g, const void *c, const graph_part *part, int training, int recompute)
{
    return model_build_part(g, c, part, training, recompute);
}

data_batch_maker tiny_batch;

gt_status tiny_create(train **out, dev_device *d, const model_config *c, const train_options *o)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* ranks may be threads */
    static token_split text;        /* a train keeps its address */
    pthread_mutex_lock(&lock);
    gt_status st = text.count ? GT_OK : tiny_text(&text);
    pthread_mutex_unlock(&lock);
    const train_model m = { .config = c, .units = model_units(c), .build = build, .batch = tiny_batch };
    const train_data data = { &text, o->eval_every ? &text : NULL };
    *out = NULL;
    return st ? st : train_create(out, d, &m, &data, o);
}

train *tiny_train(dev_device *d, const model_config *c, const train_options *o)
{
    train *t = NULL;
    return CHECK_OK(tiny_create(&t, d, c, o)) ? t : NULL;
}

float *tiny_params(train *t, int gradients, size_t *count)
{
    params *p = train_params(t);
    size_t at = 0;
    *count = 0;
    for (int i = 0; i < params_count(p); i++)
        *count += (size_t)shape_count(&params_info(p, i)->shape);
    float *out = calloc(*count + 1, sizeof *out);
    for (int i = 0; out && i < params_count(p); i++) {
        CHECK_OK(gradients ? params_read_grad(p, i, out + at) : params_read(p, i, out + at));
        at += (size_t)shape_count(&params_info(p, i)->shape);
    }
    return out;
}

int tiny_plan(run_plan *out, int units, int batch, const char *schedule, const char *sync, const tiny_replica *r,
              int count, int tensor)
{
    int ranks = 0, rank = 0;
    *out = (run_plan){ 0 };
    for (int i = 0; i < count; i++)
        ranks += r[i].stages * tensor;
    int good = CHECK_OK(run_plan_create(out, ranks, units, batch, tensor, 1, count));
    for (int i = 0; good && i < count; i++) {
        good = CHECK_OK(run_plan_replica(out, i, r[i].stages));
        run_replica *q = &out->replica[i];
        q->micro_batches = r[i].micro_batches;
        q->micro_batch = r[i].micro_batch;
        for (int k = 0; good && k < r[i].stages * tensor; k++)
            q->rank[k] = rank++;
        for (int v = 1; good && v <= r[i].stages; v++)
            q->cut[v] = v * units / r[i].stages;
    }
    snprintf(out->schedule, sizeof out->schedule, "%s", schedule);
    run_plan_sync(out, sync, NULL);
    return good && CHECK_OK(run_plan_check(out));
}

gt_status tiny_open(dev_device **out)
{
    const char *spec = getenv("GT_TEST_DEVICE");
    gt_status st = dev_open(out, spec ? spec : "cpu:0.0");
    if (!st || spec)
        return st;
    gt_message_clear();
    return dev_open(out, NULL);
}
