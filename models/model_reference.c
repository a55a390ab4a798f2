/* SPDX-License-Identifier: MIT */
/* models/model_reference.c - the tensors of a family's reference, and its pass over them. */
#include "models/model_reference.h"
#include "models/family.h"

#include <stdlib.h>
#include <string.h>

struct model_reference {
    model_config c;
    const model_reference_rule *rule;
    model_reference_tensor *tensors;
    int count;
};

static gt_status fill(model_reference *r)
{
    r->count = r->rule->count(&r->c);
    r->tensors = calloc((size_t)r->count, sizeof *r->tensors);
    int whole = r->tensors != NULL;
    for (int i = 0; whole && i < r->count; i++) {
        model_reference_tensor *t = &r->tensors[i];
        r->rule->describe(&r->c, i, t->name, &t->count);
        t->value = calloc((size_t)t->count, sizeof *t->value);
        t->grad = calloc((size_t)t->count, sizeof *t->grad);
        whole = t->value && t->grad;
    }
    return whole ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the reference of '%s'", r->c.name);
}

gt_status model_reference_create(model_reference **out, const model_config *c)
{
    const model_family *family;
    *out = NULL;
    gt_status st = model_family_of(&family, c);
    if (st)
        return st;
    if (!family->reference)
        return gt_fail(GT_UNSUPPORTED, "model '%s': the family '%s' has no reference", c->name, family->name);
    model_reference *r = calloc(1, sizeof *r);
    if (!r)
        return gt_fail(GT_NO_MEMORY, "no memory for the reference of '%s'", c->name);
    r->c = *c;
    r->rule = family->reference;
    st = fill(r);
    if (st)
        model_reference_release(r);
    else
        *out = r;
    return st;
}

void model_reference_release(model_reference *r)
{
    if (!r)
        return;
    for (int i = 0; r->tensors && i < r->count; i++) {
        free(r->tensors[i].value);
        free(r->tensors[i].grad);
    }
    free(r->tensors);
    free(r);
}

model_reference_tensor *model_reference_find(model_reference *r, const char *name)
{
    for (int i = 0; i < r->count; i++)
        if (!strcmp(r->tensors[i].name, name))
            return &r->tensors[i];
    return NULL;
}

gt_status model_reference_run(model_reference *r, int B, int T, const int32_t *tokens, const int32_t *targets,
                              const double *weights, double *loss)
{
    return r->rule->run(&r->c, r->tensors, B, T, tokens, targets, weights, loss);
}
