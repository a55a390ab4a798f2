/* SPDX-License-Identifier: MIT */
/* host/cli/train_samples.h - texts that a model writes while it is trained, so that a person sees what it has
 * learned. They change nothing of the training: weights are read, random numbers are the samples' own.
 *
 * Alone, the weights are those that are trained. Of several ranks rank 0 has them all for itself, filled from
 * what the ranks wrote (train_hooks.sample).                                                */
#ifndef GT_CLI_TRAIN_SAMPLES_H
#define GT_CLI_TRAIN_SAMPLES_H

#include "host/cli/cli.h"
#include "host/train/train.h"

typedef struct train_samples train_samples;

/* On all ranks, before anything begins: GT_MISUSE if the model writes no texts, or there is no
 * tokenizer, or none that can read the prompt. */
gt_status train_samples_check(const model_config *c, tokenizer *t);
/* On rank 0; shared: the weights are all in train_params(). What is given must outlive it. */
gt_status train_samples_open(train_samples **out, train *t, dev_device *d, const model_config *c, tokenizer *k,
                             int shared);
void train_samples_close(train_samples *s);        /* takes NULL */
/* The text after a step; the run's record keeps it, too. *out is freed with free(). */
gt_status train_samples_write(train_samples *s, uint64_t step, const char *folder, char **out);

#endif
