/* SPDX-License-Identifier: MIT */
/* host/cli/cli.h - what the verbs of the program share.
 *
 * A verb is one file, verb_NAME.c, with one function and one row in main.c's table. It
 * parses its option table, does its work through the rooms below, and returns a status;
 * main prints the sentence and chooses the exit code:
 *   0 done · 1 failed · 2 misuse · 3 lost a peer or the device (restartable) · 128 + N stopped by signal N  */
#ifndef GT_CLI_CLI_H
#define GT_CLI_CLI_H

#include "host/base/activity.h"
#include "host/base/options.h"
#include "host/base/status.h"
#include "host/data/dataset.h"
#include "host/device/device.h"
#include "host/train/checkpoint.h"
#include "models/model.h"

#include <stdint.h>
#include <stdio.h>

typedef struct cli_verb {
    const char *name, *summary;
    gt_status (*run)(int argc, char **argv);
    const char *(*kind)(int i);         /* the i-th word that must follow, NULL after the last; may be NULL */
} cli_verb;

gt_status verb_devices(int argc, char **argv);
gt_status verb_doctor(int argc, char **argv);
gt_status verb_tokenize(int argc, char **argv);
gt_status verb_train(int argc, char **argv);
gt_status verb_embed(int argc, char **argv);
gt_status verb_eval(int argc, char **argv);
gt_status verb_generate(int argc, char **argv);
gt_status verb_bench(int argc, char **argv);
gt_status verb_export(int argc, char **argv);
gt_status verb_launch(int argc, char **argv);
gt_status verb_plan(int argc, char **argv);
gt_status verb_help(int argc, char **argv);

const char *bench_kind(int i);          /* what there is to bench */

int cli_is_verb(const char *word);

/* What a verb's help shows above and below its options. */
typedef struct cli_help {
    const char *usage, *summary, *examples;
} cli_help;

/* Parses options; *words and *count are the arguments that are none. If help was asked for
 * it is printed and *done is 1: return GT_OK then. */
gt_status cli_parse(const gt_option *table, const cli_help *help, int argc, char **argv, char ***words, int *count,
                    int *done);

/* All verbs, in the order help shows them; ends with { 0 }. */
extern const cli_verb cli_verbs[];
/* The list of verbs, as -h prints it. */
void cli_print_help(FILE *out);
/* Calls each(context, table, help) where `verb`, followed by `kind` if that is not NULL, would parse its
 * options: one source for help, the manual page and completion. */
typedef void cli_describe(void *context, const gt_option *table, const cli_help *help);
void cli_describe_verb(const cli_verb *verb, const char *kind, cli_describe *each, void *context);

/* GT_MISUSE: the verb cannot go on without `what` ("--from RUN|DIR"). */
gt_status cli_missing(const cli_help *help, const char *what);
/* GT_MISUSE: the verb takes no words, and there is one. */
gt_status cli_no_words(char **words, const cli_help *help);

/* An option that was given, and why it would do nothing. */
typedef struct cli_useless {
    const char *option;
    int useless;
    const char *because;
} cli_useless;
/* GT_MISUSE for the first of them that was given and is useless: nothing is ignored in silence. */
gt_status cli_check_useless(const gt_option *table, const cli_useless *rules, size_t count);

int cli_is_terminal(void);              /* standard output is a person's screen */
int cli_columns(void);                  /* how wide that screen is; 80 if it does not say */

/* Progress of something that has an end, on standard error if that is a terminal:
 *   tokenizing  [#######-----]  57 %  12.3 MB of 21.6 MB  0:04 left               */
typedef struct cli_progress {
    const char *what;
    uint64_t start_ns, last_ns;
    int shown;
    gt_activity activity;
} cli_progress;
/* A data_progress callback; context is a cli_progress with `what` set. */
int cli_progress_show(void *context, uint64_t done, uint64_t total);
void cli_progress_end(cli_progress *p);

/* ---- sources: RUN|DIR -> description, weights, tokenizer ------------------------------ */
/* What a run's config.json keeps of the tokenizer that its weights were trained with, so that another
 * cannot take its place when RUN/tokenizer is gone or was replaced. known 0: a run on bare tokens, or of
 * a version that did not keep it. */
typedef struct cli_tokenizer_mark {
    int known;
    char kind[16];                      /* tokenizer_name()  */
    uint32_t tokens;                    /* tokenizer_vocab() */
    uint64_t hash;                      /* tokenizer_hash()  */
} cli_tokenizer_mark;

/* Of t; NULL: not known. */
cli_tokenizer_mark cli_tokenizer_mark_of(const tokenizer *t);
/* From the config.json of a run; not known if there is none yet. */
gt_status cli_tokenizer_mark_read(cli_tokenizer_mark *out, const char *run);
/* GT_MISUSE, naming both, if t, which came from `what`, is not the one of `run`'s mark; t may be NULL. */
gt_status cli_tokenizer_mark_check(const cli_tokenizer_mark *m, const char *run, const tokenizer *t, const char *what);

typedef struct cli_source {
    char *path;
    int is_run;                         /* a run directory; else a Hugging Face folder, or
                                           a file of weights */
    char *checkpoint;                   /* of a run: the one that was named, or the newest whole one */
    checkpoint_info info;               /* what it says                                 */
    model_config config;
    tokenizer *tokenizer;               /* NULL: there is none, or none that can be read */
    char *tokenizer_path;               /* where it lies, or would; NULL: there is none */
    gt_status tokenizer_status;         /* why it cannot be used, and the sentence      */
    char *tokenizer_why;
    cli_tokenizer_mark mark;            /* of a run */
    char *adapter;                      /* NULL: none   */
    uint64_t seed;                      /* of new adapters */
} cli_source;

/* path: a run, one of its checkpoints (RUN/checkpoints/step-000200, or best), or a Hugging Face folder. */
gt_status cli_source_open(cli_source *out, const char *path);
/* which: "best" or the number of a step, of a run; NULL: as cli_source_open(). GT_NOT_FOUND, with what there is,
 * if the run has no such checkpoint; GT_MISUSE of anything but a run. */
gt_status cli_source_open_at(cli_source *out, const char *path, const char *which);
void cli_source_close(cli_source *s);
/* What the options of a run were, by their names, as a new object; NULL for what is no run. */
gt_status cli_source_options(struct json_t **out, const cli_source *s);
/* To be called before anything is done that needs its tokenizer: what is wrong with it if it cannot
 * be read, and GT_NOT_FOUND with `fix` behind the sentence if there is none. */
gt_status cli_source_tokenizer(const cli_source *s, const char *fix);
/* Takes the tokenizer that --tokenizer names, if there is none beside the weights or it is the same. */
gt_status cli_source_take_tokenizer(cli_source *s, const char *spec);
/* A model reads texts with the tokenizer it was trained with, `own`, which lies in `path`. GT_MISUSE,
 * naming both, if `other`, which came from `what`, gives other ids; if one is NULL nothing is known. */
gt_status cli_same_tokenizer(const char *model, const tokenizer *own, const char *path, const tokenizer *other,
                             const char *what);
/* GT_MISUSE, naming the first difference, if --model `name`, c, computes anything else than the weights
 * of the source are for. */
gt_status cli_source_check_model(const cli_source *s, const model_config *c, const char *name);
/* How many bytes of text each id spells, for bits per byte: *out[*count], freed with free(); NULL where that
 * depends on its neighbours, or t is NULL. What ends texts is no text. */
gt_status cli_token_bytes(unsigned char **out, uint32_t *count, const tokenizer *t);
/* Options that say what of a model is trained, as they are given: patterns NULL where they are not, alpha NAN for
 * twice the rank. `precision` is that of all matrices. */
typedef struct cli_tuning_options {
    const char *freeze, *targets, *base_precision;
    int rank, dora, rslora;
    double alpha, dropout;
} cli_tuning_options;
gt_status cli_tuning_take(model_tuning *out, const cli_tuning_options *o, const char *precision);
/* How frozen matrices are kept, as --base-precision `given` says. */
gt_status cli_base_precision(model_tuning *t, const char *given, const char *precision);

/* What a run's config.json says under "tuning"; all zero: nothing. */
struct json_t *cli_tuning_json(const model_tuning *t);      /* NULL for all zero */
gt_status cli_tuning_read(model_tuning *out, const char *run);
/* The adapter in a folder of PEFT's layout, for the model of a folder or a run that has none: it says which matrices have
 * adapters, and its numbers come behind the model's. */
gt_status cli_source_adapt(cli_source *s, const char *folder);
/* Fills the parameters; a train_model.fill, context is the cli_source. Adapters that neither the
 * source nor its --adapter has begin as `seed` says. */
gt_status cli_source_fill(const void *config, params *p, void *source);

/* Has the model read what the data ask for: weights of targets, and where documents begin. GT_UNSUPPORTED, by
 * name, if its family cannot. */
gt_status cli_settle_reading(model_config *c, const token_split *s);

#endif
