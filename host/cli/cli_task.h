/* SPDX-License-Identifier: MIT */
/* host/cli/cli_task.h - what a model is asked for, the same for every verb that reads data for one.
 *
 *   cli_task_choose    --task, or what the weights' description says, or the family's own
 *   cli_task_settle    what the data say of it: labels, and the signs of their tokenizer
 */
#ifndef GT_CLI_CLI_TASK_H
#define GT_CLI_CLI_TASK_H

#include "host/cli/cli.h"

#include "host/cli/data_options.h"
#include "host/data/batch_mlm.h"

#define CLI_TASKS "lm|mlm|classify"

typedef struct cli_task {
    const char *name;                   /* NULL: as the model has it */
    int pairs, whole_words;
    /* Weights are trained, and a head that they lack begins anew, from `seed`; else it must be there. */
    int trains;
    uint64_t seed;
} cli_task;

/* Sets c's task. by_document: set to 1 where a sequence must be a document. GT_MISUSE for a task that the family
 * does not have, and for options that would be ignored. */
gt_status cli_task_choose(model_config *c, const cli_task *t, int *by_document);

/* GT_MISUSE for options of data that would be ignored under c's task. rows: as --rows says; NULL: it was not given. */
gt_status cli_task_check_data(const model_config *c, const data_options *o, const char *rows);

/* GT_MISUSE if a sequence of so many tokens does not fit into the model. */
gt_status cli_task_check_seq(const model_config *c, uint64_t seq);

/* Checkpoints of a run hold the head that they were trained with, and no other. GT_MISUSE, with what to do, if
 * c, the description to use, has another task than `had`, the run's. */
gt_status cli_task_check_run(const cli_source *s, const model_config *had, const model_config *c);

/* With the data open: GT_MISMATCH if they do not have what the task needs. marks must outlive c; close it
 * (data_marks_close) whatever happened. */
gt_status cli_task_settle(model_config *c, const cli_task *t, data_set *data, const char *name, data_marks *marks);
/* The same for other data to validate on, if any were opened: their labels are known by their names, of which they
 * may have some alone. */
gt_status cli_task_settle_validation(const model_config *c, const data_set *data, data_set *eval_data,
                                     const char *name);

#endif
