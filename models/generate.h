/* SPDX-License-Identifier: MIT */
/* models/generate.h - text from a model, one token at a time, with key and value caches.
 *
 *   generate *g;
 *   generate_create(&g, device, &config, DTYPE_F32, NULL);
 *   ... fill generate_params(g), then params_refresh ...
 *   generate_feed(g, ids, count);                 the prompt
 *   generate_next(g, &sampling, &random, &id);    the next token; it is fed as well
 *
 * When the context is full, the last half of it is fed again and generation goes on.    */
#ifndef GT_MODELS_GENERATE_H
#define GT_MODELS_GENERATE_H

#include "host/base/random.h"
#include "models/model.h"

typedef struct generate generate;

typedef struct generate_sampling {
    double temperature;         /* 0: the likeliest token always      */
    int top_k;                  /* of the k likeliest only; 0: of all */
} generate_sampling;

gt_status generate_create(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm);
void generate_release(generate *g);            /* takes NULL */
params *generate_params(generate *g);
/* Call once the parameters are filled: makes their 16-bit copies. */
gt_status generate_refresh(generate *g);

/* Which ids may be drawn: may[id] is 1 or 0, for config.vocab of them, and is copied. A model may have
 * more rows than its tokenizer has tokens (padding, holes), and whatever those say is no text. Without
 * this call all may. GT_MISUSE if none may. */
gt_status generate_allow(generate *g, const unsigned char *may);

gt_status generate_feed(generate *g, const uint32_t *ids, size_t count);
/* GT_MISUSE before anything was fed; GT_NUMERIC if the logits are not finite. */
gt_status generate_next(generate *g, const generate_sampling *s, gt_random *r, uint32_t *id);
/* The logits behind the last token fed: config.vocab floats, valid until the next call. */
const float *generate_logits(const generate *g);

#endif
