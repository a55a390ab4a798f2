/* SPDX-License-Identifier: MIT */
/* models/model.c - graphs of models, by the functions of their families. */
#include "models/family.h"

#include "models/lora.h"

gt_status model_build_loss(graph *g, const model_config *c, int train, int recompute)
{
    return model_build_part(g, c, NULL, train, recompute);
}

int model_units(const model_config *c)
{
    return c->layers + 2;
}

gt_status model_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute)
{
    const model_family *family;
    const graph_part all = { .units = model_units(c) };
    gt_status st = model_family_of(&family, c);
    lora_train(g, c);
    return st ? st : family->build_part(g, c, part ? part : &all, train, recompute);
}

gt_status model_build_config(graph *g, const void *config, const graph_part *part, int train, int recompute)
{
    return model_build_part(g, config, part, train, recompute);
}

void model_batch(data_batch *out, const void *config, const loader *l, const char *split)
{
    const model_family *family;
    if (model_family_of(&family, config)) {     /* nor is there a graph that would read it */
        gt_message_clear();
        *out = (data_batch){ .loader = l, .split = split };
        return;
    }
    family->batch(out, config, l, split);
}

gt_status model_build_generate(graph *g, const model_config *c, int capacity)
{
    const graph_part all = { .units = model_units(c) };
    return model_build_generate_part(g, c, &all, capacity);
}

gt_status model_build_generate_part(graph *g, const model_config *c, const graph_part *part, int capacity)
{
    const model_family *family;
    gt_status st = model_family_of(&family, c);
    if (!st && !family->build_generate)
        st = gt_fail(GT_UNSUPPORTED, "model '%s': the family '%s' does not generate text", c->name, family->name);
    lora_train(g, c);                   /* says how parameters are stored, too: a run's may be shared */
    return st ? st : family->build_generate(g, c, part, capacity);
}

static int64_t count_parameters(const graph *g)
{
    int64_t all = 0;
    for (int i = 0; i < graph_param_count(g); i++) {
        const int64_t n = shape_count(&graph_param_at(g, i)->full);
        if (n > INT64_MAX - all)
            return INT64_MAX;
        all += n;
    }
    return all;
}

int64_t model_parameters(const model_config *c)
{
    graph *g = NULL;
    model_config open = *c;
    open.vocab = c->vocab ? c->vocab : 1;
    gt_status st = graph_create(&g, DTYPE_F32, 1, 1);
    if (!st)
        st = model_build_loss(g, &open, 0, 0);
    const int64_t count = st ? INT64_MAX : count_parameters(g);
    graph_release(g);
    if (st)
        gt_message_clear();
    return count;
}

gt_status model_sizes(const model_config *c, dtype storage, int64_t *trained, uint64_t *frozen)
{
    graph *g = NULL;
    model_config open = *c;
    open.vocab = c->vocab ? c->vocab : 1;
    gt_status st = graph_create(&g, storage, 1, 1);
    if (!st)
        st = model_build_loss(g, &open, 0, 0);
    *trained = st ? 0 : graph_trained_elements(g);
    *frozen = st ? 0 : graph_frozen_bytes(g);
    graph_release(g);
    return st;
}

double model_flops_per_token(const model_config *c, int T)
{
    const model_family *family;
    if (!model_family_of(&family, c))
        return family->flops_per_token(c, T);
    gt_message_clear();
    return 0.0;
}

const char *model_tokenizer(const model_config *c)
{
    const model_family *family;
    if (!model_family_of(&family, c))
        return family->tokenizer;
    gt_message_clear();
    return NULL;
}
