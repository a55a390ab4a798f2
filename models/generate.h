/* SPDX-License-Identifier: MIT */
/* models/generate.h - text from a model, one token at a time, with key and value caches, on one device or several.
 *
 *   generate *g;
 *   generate_create(&g, device, &config, DTYPE_F32, NULL);
 *   ... fill generate_params(g), then params_refresh ...
 *   generate_feed(g, ids, count);                 the prompt
 *   generate_next(g, &sampling, &random, &id);    the next token; it is fed as well
 *
 * Over several devices the model is cut into stages (generate_stage.h), each with its layers and its part of the
 * caches, all driven by this process. A token goes from stage to stage, so that several devices hold a model that is
 * too large for one, and do not write one text faster; of a prompt, pieces are in all stages at once.
 *
 * When the context is full, the last half of it is fed again and generation goes on: what comes then
 * knows of no more than that half, and a prompt longer than the context of its end. The repetition
 * penalty is of all that was fed since the beginning or generate_restart(). */
#ifndef GT_MODELS_GENERATE_H
#define GT_MODELS_GENERATE_H

#include "host/base/random.h"
#include "models/model.h"
#include "models/sampling.h"

typedef struct generate generate;

/* Of whole models. GT_UNSUPPORTED if the family does not generate text. */
gt_status generate_create(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm);
/* The same over parameters that are someone else's, who fills and refreshes them, in any order of use; they
 * must hold the whole model and outlive the generator. */
gt_status generate_create_over(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm,
                               params *p);
/* The next stage: on `device`, which may have others, with so many units (model_units()): the first stage begins with
 * the embedding, the last ends with the head, and each has a layer. */
typedef struct generate_place {
    dev_device *device;
    int units;
} generate_place;
gt_status generate_create_staged(generate **out, const generate_place *places, int count, const model_config *c,
                                 dtype storage, const char *gemm);
void generate_release(generate *g);            /* takes NULL */
/* Of the only stage, or the first; and of each: all are to be filled. */
params *generate_params(generate *g);
int generate_stage_count(const generate *g);
params *generate_params_of(generate *g, int stage);
/* Positions that caches begin with. */
int generate_room(const model_config *c);
/* Call once the parameters are filled: makes their 16-bit copies. */
gt_status generate_refresh(generate *g);

/* Which ids may be drawn: may[id] is 1 or 0, for config.vocab of them, and is copied. A model may have
 * more rows than its tokenizer has tokens (padding, holes), and whatever those say is no text. Without
 * this call all may. GT_MISUSE if none may. */
gt_status generate_allow(generate *g, const unsigned char *may);

/* Another text: nothing was fed. */
void generate_restart(generate *g);
gt_status generate_feed(generate *g, const uint32_t *ids, size_t count);
/* How many of the last tokens fed are still seen: of a text that is longer than the context, some are not. */
int generate_seen(const generate *g);
/* GT_MISUSE before anything was fed; GT_NUMERIC if the logits are not finite. */
gt_status generate_next(generate *g, const sampling_rule *s, gt_random *r, uint32_t *id);
/* The logits behind the last token fed: config.vocab floats, valid until the next call. */
const float *generate_logits(const generate *g);

#endif
