/* SPDX-License-Identifier: MIT */
/* host/cli/train_show.h - what `train` tells a person of its job: before it begins, and at its end; on standard error. */
#ifndef GT_CLI_TRAIN_SHOW_H
#define GT_CLI_TRAIN_SHOW_H

#include "host/cli/train_subject.h"
#include "host/cli/train_view.h"
#include "host/train/train.h"
#include "models/model.h"

/* At once: whatever takes time comes after it. `usual`: the tokenizer of the model's family, if nothing said which. */
void train_show_job(const model_config *c, const data_set *data, const char *usual, dev_device *d);
/* What is known when everything is in its place. begun: the run was begun before, whether it has a checkpoint or not. */
void train_show_memory(const data_set *data, dev_device *d, train *t, int begun);
/* What stages send, and what rounding it came to in all steps of this process. */
void train_show_between(void);
void train_show_rounding(const train_view *v, const train *of);
/* How ranks stay together; what was chosen for each link, and how much is compressed. */
void train_show_sync(const train *t, FILE *out);
void train_show_compression(const train *of);
/* What a run, or its first `samples` sequences, takes of each source of a mixture: tokens and passes over it. */
void train_show_sources(const loader *l, const token_split *from, uint64_t samples);

#endif
