/* SPDX-License-Identifier: MIT */
/* host/cli/train_subject.h - what a run is of: its model, the tokenizer of its texts, and its data, as the
 * settings (train_settings.h) name them.
 *
 *   model ─► tokenizer ─► data ─► vocabulary ─► validation
 */
#ifndef GT_CLI_TRAIN_SUBJECT_H
#define GT_CLI_TRAIN_SUBJECT_H

#include "host/cli/cli.h"
#include "net/comm/comm.h"

/* The tokenizer that texts are read with if nothing else is said; path NULL: there is none yet. */
typedef struct train_tokenizer {
    const char *model;                  /* the run or folder it belongs to */
    char *path;
    tokenizer *tokenizer;
    int binding;                        /* weights were trained with it: no other will do */
    const char *usual;                  /* of the family: nothing else was said; else NULL */
    const char *marked;                 /* the run that `mark` was read from              */
    cli_tokenizer_mark mark;            /* what config.json keeps; see train_check_tokenizer() */
} train_tokenizer;

gt_status train_choose_model(model_config *c, cli_source *source, int resumed);
/* With the task known: what of its head is trained beside adapters, and whether patterns of tensors match any. */
gt_status train_choose_heads(model_config *c, const cli_source *source, int resumed);
/* *spec is what data_open() is to be asked for; it belongs to `own`, to the settings, or to the model's
 * family, of which own->usual says so. */
gt_status train_choose_tokenizer(train_tokenizer *own, const model_config *c, cli_source *source, int resumed,
                                 const char **spec);
void train_tokenizer_close(train_tokenizer *own);
/* All ranks of c (NULL: alone). */
gt_status train_open_data(data_set *data, data_set *eval_data, const char *spec, net_comm *c);
/* GT_MISUSE if the data came with another tokenizer than the weights. Settles own->mark: the tokenizer of
 * the weights, or that of the data for weights that are new or came without one; not known where the run
 * has checkpoints and nothing says what they were made with. */
gt_status train_check_tokenizer(train_tokenizer *own, const data_set *data);
gt_status train_settle_vocabulary(model_config *c, const data_set *data);
/* Whether targets weigh, as chats and documents ask for. GT_UNSUPPORTED if the model cannot. */
gt_status train_settle_targets(model_config *c, const data_set *data, const data_set *eval_data);
/* *val NULL: nothing is validated on. */
gt_status train_choose_validation(const token_split **val, const data_set *data, const data_set *eval_data);

#endif
