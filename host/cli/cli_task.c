/* SPDX-License-Identifier: MIT */
/* host/cli/cli_task.c - what a model is asked for: see cli_task.h. */
#include "host/cli/cli_task.h"

#include "host/data/labelled.h"

#include <stdio.h>
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

gt_status cli_task_check_data(const model_config *c, const data_options *o, const char *rows)
{
    const int classes = c->task == MODEL_CLASSIFY;
    if (classes && rows && strcmp(rows, "documents"))
        return gt_fail(GT_MISUSE, "option --rows: classes are of documents; leave it out");
    if (o->label_key && !classes)
        return gt_fail(GT_MISUSE,
                       "option --label-key would be ignored: labels belong to --task classify, and this is --task %s; "
                       "leave it out",
                       model_task_name(c->task));
    if (o->chat_template && c->task != MODEL_LM)
        return gt_fail(
            GT_MISUSE,
            "option --chat-template would be ignored: chats belong to --task lm, and this is --task %s; leave "
            "it out",
            model_task_name(c->task));
    return GT_OK;
}

gt_status cli_task_check_seq(const model_config *c, uint64_t seq)
{
    return seq <= (uint64_t)c->context
               ? GT_OK
               : gt_fail(GT_MISUSE,
                         "option --seq: model '%s' has %d positions, so a sequence of %llu tokens does not fit; "
                         "lower --seq",
                         c->name, c->context, (unsigned long long)seq);
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

/* The names of the model's classes; 0 if it has but numbers for some. */
static int names_of(const model_config *c, const char *names[MODEL_LABELS])
{
    char none[32];
    for (int i = 0; i < c->labels; i++) {
        snprintf(none, sizeof none, "LABEL_%d", i);
        if (i >= MODEL_LABELS || !*c->label[i] || !strcmp(c->label[i], none))
            return 0;
        names[i] = c->label[i];
    }
    return c->labels > 0;
}

static gt_status settle_labels(model_config *c, data_set *data, const char *name)
{
    const char *names[MODEL_LABELS];
    gt_status st = data_check_labelled(data, name);
    if (st)
        return st;
    if (c->new_labels && data->label_count < 2)
        return gt_fail(GT_MISMATCH, "all records of '%s' have the same label; a classifier learns to tell two apart",
                       name);
    if (!c->new_labels && names_of(c, names))
        return data_name_labels(data, names, c->labels, name);
    return model_config_labels(c, data->labels, data->label_count);
}

gt_status cli_task_settle_validation(const model_config *c, const data_set *data, data_set *eval_data, const char *name)
{
    const char *names[MODEL_LABELS];
    if (c->task != MODEL_CLASSIFY || !(eval_data->train.count || eval_data->val.count))
        return GT_OK;
    gt_status st = data_check_labelled(eval_data, name);
    if (st)
        return st;
    if (data->relabel && names_of(c, names))
        return data_name_labels(eval_data, names, c->labels, name);
    return data_name_labels(eval_data, (const char *const *)data->labels, data->label_count, name);
}

gt_status cli_task_settle(model_config *c, const cli_task *t, data_set *data, const char *name, data_marks *marks)
{
    gt_status st = c->task == MODEL_CLASSIFY ? settle_labels(c, data, name) : GT_OK;
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
