/* SPDX-License-Identifier: MIT */
/* models/generate_stage.h - a run of layers on one device, which new tokens pass through on their way to logits.
 *
 *   stage 0                                    stage 1
 *   tokens ─► embedding, layers 0-2 ─ x ─►  inbox ─► layers 3-5, head ─► logits
 *              keys, values of 0-2                    keys, values of 3-5
 *
 * Two graphs over the same parameters and caches: one takes a chunk of a prompt at once, the other a single
 * token. A piece of text is queued and not waited for, so several pieces are under way in several stages: a stage
 * waits for what comes in, and what goes out is being read into the next one's inbox meanwhile. An inbox
 * has two slots, and its memory is used again when the device has taken what was in it.       */
#ifndef GT_MODELS_GENERATE_STAGE_H
#define GT_MODELS_GENERATE_STAGE_H

#include "host/device/device.h"
#include "host/graph/params.h"
#include "models/model.h"

enum { GENERATE_CHUNK = 32 };           /* tokens of a prompt at once */

typedef struct generate_stage generate_stage;

/* Trains nothing of a model, so that each tensor is held once, as it is computed with. */
void generate_stage_freeze(model_config *c);
/* The units of `part`, with caches for `positions`. p: as in generate_create_over(); NULL: its own,
 * frozen. */
gt_status generate_stage_create(generate_stage **out, dev_device *d, const model_config *c, const graph_part *part,
                                dtype storage, const char *gemm, int positions, params *p);
void generate_stage_release(generate_stage *s);        /* takes NULL; waits for what is under way */
params *generate_stage_params(generate_stage *s);
/* Makes the 16-bit copies of the parameters. */
gt_status generate_stage_refresh(generate_stage *s);
/* Caches for other positions; what they held is lost. */
gt_status generate_stage_resize(generate_stage *s, int positions);

/* Consecutive tokens of a text. */
typedef struct generate_piece {
    const uint32_t *ids;
    int count, first;           /* first: the position of the first of them              */
    int chunk;                  /* 1: by the graph for chunks, padded; 0: a single token */
    int last;                   /* nothing is fed before somebody has waited for its logits */
} generate_piece;

/* Queues a piece. A stage without the embedding takes what the stage before has put into its inbox; what goes out is
 * put into that of `next` (NULL: it ends with the head). Stages later in the pipeline are called first, each with
 * the piece before that of the stage in front of it. */
gt_status generate_stage_feed(generate_stage *s, const generate_piece *piece, generate_stage *next);
/* Waits for the logits of the last token of the piece that was fed last. */
gt_status generate_stage_logits(generate_stage *s, const generate_piece *piece, float *logits);

#endif
