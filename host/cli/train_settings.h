/* SPDX-License-Identifier: MIT */
/* host/cli/train_settings.h - what `geartrain train` was told: options, and what a resumed run's config.json
 * says of those that were not given again.
 *
 *   defaults ─► command line ─► config.json of the run ─► checks ─► train_options
 */
#ifndef GT_CLI_TRAIN_SETTINGS_H
#define GT_CLI_TRAIN_SETTINGS_H

#include "host/cli/cli.h"
#include "host/cli/cli_comm.h"
#include "host/cli/data_options.h"
#include "host/cli/sync_rows.h"
#include "host/train/train.h"

#include <jansson.h>

enum { TRAIN_RULE_SETTINGS = 24 };              /* options that rules add, at most */

typedef struct train_settings {
    const char *model, *data, *eval_data, *out, *tokenizer, *from, *devices, *order, *schedule;
    const char *precision, *optimizer, *gemm, *tune, *bits, *sample_prompt;
    const char *documents, *rows, *task;
    int pairs, whole_words;
    int labelled;                       /* documents must have labels: not an option; of the task */
    data_options data_of;
    uint64_t steps, batch, micro_batch, seq, warmup, seed, eval_every, eval_batches, save_every;
    uint64_t patience, sample_every, sample_tokens, compress_after;
    double lr, min_lr, weight_decay, clip, dropout, decay_share, improvement, sample_temperature, send_threshold;
    double rule[TRAIN_RULE_SETTINGS];   /* of the optimizer's rules, in the order of their options; NaN: unset */
    int resume, recompute, json, explain, keep, keep_best;
    const char *stages, *replicas, *tensor, *pipe_schedule, *plan, *sync, *compress, *compress_stages, *sparse_rows,
        *trace;
    sync_rows sync_text;                /* options of modes                                 */
    sync_settings sync_settings;        /* what they come to                                */
    unsigned sync_fixed;                /* bit i: setting i was given                       */
    int replan;
    double slow;
    cli_comm comm;
    const char *freeze, *lora_targets, *adapter, *base_precision;
    int lora, dora, rslora;
    double lora_alpha, lora_dropout;
} train_settings;

extern train_settings train_set;                /* of this process */
extern gt_option train_table[];                  /* made by train_settings_default() */
extern const cli_help train_help;

void train_settings_default(void);
/* What lies behind the options, and --out. */
gt_status train_settings_words(char **words, int count);
/* On resuming: options of the run's config.json that were not given now. *kept owns their strings; NULL:
 * there is no run yet. */
gt_status train_settings_take(json_t **kept);
/* The step after which a run with these settings (NULL: those of now) writes its first checkpoint. */
uint64_t train_settings_first_save(const json_t *kept);
/* GT_MISUSE if something is missing, contradicts or would be ignored. */
gt_status train_settings_check(void);
/* Writes the run's config.json, with the mark if it is known. */
/* What is trained, as options say; an --adapter says its part itself. */
gt_status train_settings_tuning(model_tuning *out);
gt_status train_settings_write(const model_config *c, const cli_tokenizer_mark *mark);
/* What a plan that is followed says of modes and compression becomes this run's, so that config.json has it and the run goes
 * on with it; what it leaves open is written into it. */
void train_settings_follow(run_plan *p);
/* Takes that back, for ranks that are put together anew choose from what was given, as those that join do. */
void train_settings_unfollow(void);
/* What of the data is read, and how sequences are cut from it. */
data_request train_settings_data(void);
token_reading train_settings_reading(void);
/* The same for the room that trains; plan, comm and peak are the caller's. */
train_options train_settings_options(void);

#endif
