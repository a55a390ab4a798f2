/* SPDX-License-Identifier: MIT */
/* tests/train/tiny_run.h - a model and a text so small that a step takes milliseconds. */
#ifndef TESTS_TINY_RUN_H
#define TESTS_TINY_RUN_H

#include "host/train/train.h"
#include "models/model.h"

enum { TINY_VOCAB = 29, TINY_T = 24, TINY_B = 6 };

/* $GT_TEST_DEVICE, or the default one; NULL after a failed check. */
dev_device *tiny_device(void);
/* 2 layers of 32 channels; every size but the heads' is odd to a power of two. */
model_config tiny_config(void);
/* Batch TINY_B, all of it at once, constant rate, fp32, no run directory. */
train_options tiny_options(void);
/* A Llama, or one of its relatives by family, with odd sizes: 3 heads of 6 columns that look at one, or, even, 4
 * that look at 2. */
model_config tiny_llama(const char *family, int even);
/* What the models below are fed with; at first NULL: tokens, and the next ones. */
extern data_batch_maker tiny_batch;
/* A text of 3000 random tokens, the same ones always. */
gt_status tiny_text(token_split *out);
/* Training on it. c must outlive what comes back. NULL
 * after a failed check. */
train *tiny_train(dev_device *d, const model_config *c, const train_options *o);
/* The same without checking. */
gt_status tiny_create(train **out, dev_device *d, const model_config *c, const train_options *o);

/* A plan of `count` replicas over so many tensor ranks a stage, cut as evenly as can be; 0 after a failed
 * check. run_plan_release() it in any case. */
typedef struct tiny_replica {
    int stages, micro_batches, micro_batch;
} tiny_replica;
int tiny_plan(run_plan *out, int units, int batch, const char *schedule, const char *sync, const tiny_replica *r,
              int count, int tensor);
/* One unit of a CPU where it can be had, so that a BLAS does not spin against the other ranks. */
gt_status tiny_open(dev_device **out);

/* All parameters (or gradients) one behind the other; *count is how many. free() it. */
float *tiny_params(train *t, int gradients, size_t *count);

#endif
