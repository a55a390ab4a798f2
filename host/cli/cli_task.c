/* SPDX-License-Identifier: MIT */
/* host/cli/cli_task.c - what a model is asked for: see cli_task.h. */
#include "host/cli/cli_task.h"

#include "host/data/labelled.h"

#include <string.h>

gt_status cli_task_choose(model_config *c, const cli_task *t, int *by_document)
{
    const int had_classes = c->task == MODEL_CLASSIFY;
    gt_status st = t->name ? model_config_task(c, t->name) : GT_OK;
    if (st)
        return st;
    if ((t->pairs || t->whole_words) && c->task != MODEL_MLM)
        return gt_fail(GT_MISUSE, "option --%s would be ignored: it belongs to --task mlm; leave it out",
                       t->pairs ? "pairs" : "whole-words");
    c->pairs |= t->pairs;
    c->new_heads = t->trains;
    c->new_labels = !had_classes;
    c->head_seed = t->seed;
    *by_document = c->task == MODEL_CLASSIFY;
    return GT_OK;
}

gt_status cli_task_check_run(const cli_source *s, const model_config *had, const model_config *c)
{
    if (!s->is_run || (had->task == c->task && had->pairs == c->pairs))
        return GT_OK;
    return gt_fail(
        GT_MISUSE,
        "checkpoints of run '%s' are of --task %s%s and hold its head; export the run (geartrain export RUN -o "
        "DIR) and name that folder for %s",
        s->path, model_task_name(had->task), had->pairs ? " --pairs" : "",
        c->task == MODEL_ENCODE ? "vectors" : "another task");
}

gt_status cli_task_settle(model_config *c, const cli_task *t, const data_set *data, const char *name, data_marks *marks)
{
    gt_status st = GT_OK;
    if (c->task == MODEL_CLASSIFY) {
        st = data_check_labelled(data, name);
        if (!st)
            st = model_config_labels(c, data->labels, data->label_count);
    }
    if (c->task != MODEL_MLM)
        return st;
    if (!data->tokenizer)
        return gt_fail(GT_MISMATCH,
                       "'%s' came without a tokenizer, and to hide tokens its signs must be known; name it with "
                       "--tokenizer",
                       name);
    st = data_marks_open(marks, data->tokenizer);
    marks->whole_words = t->whole_words;
    c->marks = marks;
    return st;
}
