/* SPDX-License-Identifier: MIT */
/* host/cli/doctor_prove.c - the last of the probes: products of each engine, and a training step.
 *
 * The probes of host/device/prove.c ask for what kernels are known to rely on; the next runtime may
 * fail in another way. So `doctor --prove` lets a device do what it is there for, and computes the
 * same on the host in double (models/model_reference.h):
 *
 *   products   each GEMM engine, with more than 65,536 turns a work-item
 *   forward    the loss
 *   backward   the norm of all gradients, and each tensor's
 *   update     each parameter, from the device's own gradients: AdamW's first step has the size of
 *              the learning rate whatever the gradient's, so rounding would show as a whole step */
#include "host/cli/doctor.h"

#include "host/base/random.h"
#include "host/gemm/gemm.h"
#include "host/kernel/reference.h"
#include "host/train/train.h"
#include "models/model.h"
#include "models/model_reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 3, SEQ = 64, K = 65543 };

static const model_config tiny = {
    .family = "gpt2",
    .name = "a tiny model",
    .layers = 2,
    .heads = 4,
    .channels = 128,
    .inner = 512,
    .context = SEQ,
    .vocab = 211,
    .vocab_given = 1,
    .eps = 1e-5f,
    .init_deviation = 0.1f
};

typedef struct step {
    train *t;
    model_reference *reference;
    int32_t tokens[BATCH * SEQ], targets[BATCH * SEQ];
    uint16_t text[BATCH * SEQ + 1];
    token_file file;
    token_split split;
    optim_config optim;
    double loss, norm;                  /* the device's                           */
    double want_loss, want_norm;        /* the host's                             */
    char found[256];                    /* what is wrong, or ""                   */
} step;

/* The device's side: random weights, one sequence after the other of a random text. */
static gt_status make_training(step *s, dev_device *d)
{
    const train_model model = {
        .config = &tiny, .units = model_units(&tiny), .build = model_build_config, .batch = model_batch
    };
    const train_data data = { &s->split, NULL };
    gt_random random;
    gt_random_init(&random, 1, 1);
    for (int i = 0; i <= BATCH * SEQ; i++)
        s->text[i] = (uint16_t)gt_random_below(&random, (uint64_t)tiny.vocab);
    for (int i = 0; i < BATCH * SEQ; i++) {
        s->tokens[i] = s->text[i];
        s->targets[i] = s->text[i + 1];
    }
    s->file = (token_file){ .data = (const unsigned char *)s->text, .count = BATCH * SEQ + 1, .width = 2 };
    s->split = (token_split){
        .files = &s->file, .file_count = 1, .count = BATCH * SEQ + 1, .vocab = (uint32_t)tiny.vocab
    };
    s->optim = optim_defaults();
    s->optim.schedule = LR_CONSTANT;
    train_options options = {
        .steps = 10, .batch = BATCH, .seq = SEQ, .seed = 1, .precision = DTYPE_F32, .optim = s->optim
    };
    options.order = LOADER_SEQUENTIAL;
    return train_create(&s->t, d, &model, &data, &options);
}

/* The host's side, from the device's weights. */
static gt_status make_reference(step *s)
{
    params *p = train_params(s->t);
    gt_status st = model_reference_create(&s->reference, &tiny);
    for (int i = 0; !st && i < params_count(p); i++) {
        model_reference_tensor *t = model_reference_find(s->reference, params_info(p, i)->name);
        float *value = t ? malloc((size_t)t->count * sizeof *value) : NULL;
        st = !t       ? gt_fail(GT_UNSUPPORTED, "the reference has no '%s'", params_info(p, i)->name)
             : !value ? gt_fail(GT_NO_MEMORY, "cannot check a training step: no memory for %s", t->name)
                      : params_read(p, i, value);
        for (int64_t k = 0; !st && k < t->count; k++)
            t->value[k] = (double)value[k];
        free(value);
    }
    if (!st)
        st = model_reference_run(s->reference, BATCH, SEQ, s->tokens, s->targets, NULL, &s->want_loss);
    for (int i = 0; !st && i < params_count(p); i++) {
        const model_reference_tensor *t = model_reference_find(s->reference, params_info(p, i)->name);
        s->want_norm += reference_square_sum(t->count, t->grad);
    }
    s->want_norm = sqrt(s->want_norm);
    return st;
}

static int differs(double got, double want, double allowed)
{
    return !(fabs(got - want) <= allowed * fabs(want));
}

/* One tensor's gradient, by the length of the difference; what the whole gradient's length hides in
 * rounding may be wrong in it. */
static void compare_gradient(step *s, const model_reference_tensor *t, const float *grad)
{
    double off = 0.0, size = 0.0;
    for (int64_t k = 0; k < t->count; k++) {
        off += ((double)grad[k] - t->grad[k]) * ((double)grad[k] - t->grad[k]);
        size += t->grad[k] * t->grad[k];
    }
    if (!(sqrt(off) <= 1e-3 * sqrt(size) + 1e-5 * s->want_norm))
        snprintf(s->found, sizeof s->found, "the gradient of %s is %.2g off, of a length of %.4g", t->name, sqrt(off),
                 sqrt(size));
}

static void compare_update(step *s, const model_reference_tensor *t, const float *grad, const float *now, int decays)
{
    const optim_config *o = &s->optim;
    const double clip = fmin(1.0, o->clip / (s->norm + 1e-6)), lr = optim_lr(o, 0);
    for (int64_t k = 0; k < t->count && !s->found[0]; k++) {
        double want = t->value[k], first = 0.0, second = 0.0;
        const double g = (double)grad[k];
        reference_adamw(1, &want, &g, &first, &second, 1, clip, lr, o->beta1, o->beta2, o->eps,
                        decays ? o->weight_decay : 0.0);
        if (!(fabs((double)now[k] - want) <= 2e-2 * lr + 1e-6 * fabs(want)))
            snprintf(s->found, sizeof s->found, "the update of %s leaves %.7g at element %lld, not %.7g", t->name,
                     (double)now[k], (long long)k, want);
    }
}

/* Gradients of the first call, which does not update; then the update of the second. */
static gt_status compare_tensors(step *s)
{
    params *p = train_params(s->t);
    const int count = params_count(p);
    double loss;
    float **grads = calloc((size_t)count, sizeof *grads);
    gt_status st = grads ? GT_OK
                         : gt_fail(GT_NO_MEMORY, "cannot check a training step: no memory for %d gradients", count);
    for (int i = 0; !st && i < count; i++) {
        const model_reference_tensor *t = model_reference_find(s->reference, params_info(p, i)->name);
        grads[i] = malloc(2 * (size_t)t->count * sizeof **grads);
        st = grads[i]
                 ? params_read_grad(p, i, grads[i])
                 : gt_fail(GT_NO_MEMORY, "cannot check a training step: no memory for the gradient of %s", t->name);
        if (!st && !s->found[0])
            compare_gradient(s, t, grads[i]);
    }
    if (!st)
        st = train_once(s->t, 0, 1, &loss, &s->norm);
    if (!st && !s->found[0] && differs(s->norm, s->want_norm, 1e-4))
        snprintf(s->found, sizeof s->found, "the norm of the gradients is %.6g, not %.6g", s->norm, s->want_norm);
    for (int i = 0; !st && i < count && !s->found[0]; i++) {
        const model_reference_tensor *t = model_reference_find(s->reference, params_info(p, i)->name);
        st = params_read(p, i, grads[i] + t->count);
        if (!st)
            compare_update(s, t, grads[i], grads[i] + t->count, params_info(p, i)->decay);
    }
    for (int i = 0; grads && i < count; i++)
        free(grads[i]);
    free(grads);
    return st;
}

static gt_status compare_step(step *s)
{
    double none;                        /* the norm comes with an update */
    gt_status st = train_once(s->t, 0, 0, &s->loss, &none);
    if (st)
        return st;
    if (differs(s->loss, s->want_loss, 1e-5))
        snprintf(s->found, sizeof s->found, "the loss is %.6f, not %.6f", s->loss, s->want_loss);
    return s->found[0] ? GT_OK : compare_tensors(s);
}

static void count_engine(void *context, const gemm_result *r)
{
    char *names = context;
    const size_t used = strlen(names);
    snprintf(names + used, 64 - used, "%s%s", used ? ", " : "", r->engine);
}

/* gemm_bench() compares with sums in double, and fails with the engine's name. */
static gt_status try_products(dev_device *d, char names[64])
{
    const gemm_desc g = { .M = 20, .N = 72, .K = K, .trans_b = 1 };
    gemm_context *c = NULL;
    names[0] = '\0';
    gt_status st = gemm_context_create(&c, d, NULL);
    if (!st)
        st = gemm_bench(c, &g, 1, 0.0, count_engine, names);
    gemm_context_release(c);
    return st;
}

void doctor_prove_step(const dev_info *i)
{
    static const char fix[] = "update its driver, or take another device: training on this one would "
                              "be wrong without an error; please report it with these lines";
    char names[64];
    dev_device *d = NULL;
    step s = { .found = "" };
    gt_status st = dev_open(&d, i->path);
    if (!st && try_products(d, names)) {
        doctor_bad(fix, "%s (%s, driver %s) products: %s", i->id, i->name, i->driver, gt_message());
        gt_message_clear();
    } else if (!st)
        doctor_good("%s products: %s, with %d terms a sum", i->id, names, K);
    if (!st)
        st = make_training(&s, d);
    if (!st)
        st = make_reference(&s);
    if (!st)
        st = compare_step(&s);
    if (st)
        doctor_bad(fix, "%s (%s, driver %s) training step: %s", i->id, i->name, i->driver, gt_message());
    else if (s.found[0])
        doctor_bad(fix, "%s (%s, driver %s) training step: %s", i->id, i->name, i->driver, s.found);
    else
        doctor_good("%s training step: loss %.6f, gradient norm %.5f and every tensor as the host "
                    "computes them in double",
                    i->id, s.loss, s.norm);
    gt_message_clear();
    model_reference_release(s.reference);
    train_release(s.t);
    dev_close(d);
}
