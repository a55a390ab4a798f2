/* SPDX-License-Identifier: MIT */
/* host/cli/train_subject.c - what a run is of: its model, the tokenizer of its texts, and its data. */
#include "host/cli/train_subject.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/data/labelled.h"
#include "host/cli/train_settings.h"
#include "host/train/checkpoint.h"
#include "models/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const train_settings *const o = &train_set;

/* A vocabulary that the description leaves open is that of the weights. */
static void take_vocabulary(model_config *c, const model_config *weights)
{
    if (!c->vocab_given) {
        c->vocab = weights->vocab;
        c->vocab_given = weights->vocab_given;
    }
}

/* The run's config.json says what its checkpoints are of; --model may repeat it. */
static gt_status repeat_model(model_config *c)
{
    char what[128];
    model_config run;
    gt_status st = model_config_load(&run, o->out);
    if (!st)
        st = model_config_load(c, o->model);
    if (!st && model_config_difference(what, sizeof what, c, &run, MODEL_COMPUTES | MODEL_BEGINS))
        st = gt_fail(GT_MISUSE,
                     "cannot resume '%s' as model '%s': that has %s as the run's config.json says; "
                     "leave --model out to go on as it began, or name another folder with --out",
                     o->out, o->model, what);
    if (!st)
        take_vocabulary(c, &run);
    return st;
}

/* What of it is trained: a resumed run goes on with what it began with. */
static gt_status choose_tuning(model_config *c, cli_source *source, int resumed)
{
    static const char *const options[] = { "freeze",       "lora", "lora-alpha", "lora-dropout",
                                           "lora-targets", "dora", "rslora",     "base-precision" };
    model_tuning run;
    gt_status st = train_settings_tuning(&c->tuning);
    if (!st && o->adapter && !resumed) {
        const model_config had = source->config;
        source->config = *c;
        source->config.tuning.rank = had.tuning.rank;
        st = cli_source_adapt(source, o->adapter);
        *c = source->config;
        source->config = had;
    }
    if (!st && resumed)
        st = cli_tuning_read(&run, o->out);
    if (!st && resumed)
        memcpy(c->tuning.saved, run.saved, sizeof run.saved);       /* no option says it */
    for (size_t i = 0; !st && resumed && i < sizeof options / sizeof *options; i++)
        if (gt_option_given(train_table, options[i]) && memcmp(&run, &c->tuning, sizeof run))
            st = gt_fail(GT_MISUSE,
                         "cannot resume '%s' with another --%s: its checkpoints are of what it began with; "
                         "leave the option out, or name another folder with --out",
                         o->out, options[i]);
    if (!st && resumed)
        c->tuning = run;
    return st;
}

/* What the weights lack of the task's head is trained beside adapters; what they have is frozen as the rest is. */
gt_status train_choose_heads(model_config *c, const cli_source *source, int resumed)
{
    char lacks[MODEL_SAVED] = "";
    int anew = 0;
    gt_status st = GT_OK;
    if (c->tuning.rank && !resumed && source->is_run)
        memcpy(c->tuning.saved, source->config.tuning.saved, sizeof c->tuning.saved);
    else if (c->tuning.rank && !resumed)
        st = model_new_heads(lacks, c, source->path);
    for (char *name = lacks, *end; !st && *name; name = end) {
        end = name + strcspn(name, ",");
        end += *end ? (*end = '\0', 1) : 0;
        if (graph_pattern_matches(c->tuning.saved, name))
            continue;                   /* the adapter has it */
        anew = 1;
        st = lora_save(c, name);
    }
    c->new_heads &= anew || !o->adapter;
    return st ? st : lora_check(c);
}

/* What is trained: on resuming what the run's config.json says, so that a preset, file or
 * folder that changed meanwhile changes nothing. */
static gt_status choose_model(model_config *c, cli_source *source, int resumed)
{
    if (resumed)
        return gt_option_given(train_table, "model") ? repeat_model(c) : model_config_load(c, o->out);
    gt_status st = o->from ? cli_source_open(source, o->from) : GT_OK;
    if (!st && !o->model) {
        *c = source->config;
        return GT_OK;
    }
    if (!st)
        st = model_config_load(c, o->model);
    if (!st && o->from) {
        st = cli_source_check_model(source, c, o->model);
        take_vocabulary(c, &source->config);
    }
    return st;
}

gt_status train_choose_model(model_config *c, cli_source *source, int resumed)
{
    if (o->adapter && !o->from && !resumed)
        return gt_fail(GT_MISUSE, "option --adapter: an adapter changes a model; name it with --from");
    gt_status st = choose_model(c, source, resumed);
    source->seed = o->seed;
    return st ? st : choose_tuning(c, source, resumed);
}

void train_tokenizer_close(train_tokenizer *own)
{
    tokenizer_close(own->tokenizer);
    free(own->path);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot open the tokenizer: no memory for its path");
}

/* What a run that is resumed was begun with. A run that was killed before it had written that has
 * no checkpoint either. */
static gt_status run_tokenizer(train_tokenizer *own)
{
    char *folder = gt_path_join(o->out, "tokenizer");
    char *file = folder ? gt_path_join(folder, "tokenizer.json") : NULL;
    gt_status st = file ? GT_OK : no_memory();
    own->marked = o->out;
    if (!st)
        st = cli_tokenizer_mark_read(&own->mark, o->out);
    if (!st && gt_path_exists(file)) {
        char what[512];
        own->model = o->out;
        own->path = folder;
        own->binding = 1;
        st = tokenizer_open(&own->tokenizer, folder);
        snprintf(what, sizeof what, "that in '%s'", folder);
        folder = NULL;
        if (!st)
            st = cli_tokenizer_mark_check(&own->mark, o->out, own->tokenizer, what);
    }
    free(file);
    free(folder);
    return st;
}

/* That of a folder which describes a new model: its vocabulary was made for it. */
static gt_status folder_tokenizer(train_tokenizer *own, const char *folder)
{
    if (!gt_path_is_folder(folder) || !tokenizer_is_in(folder))
        return GT_OK;
    own->model = folder;
    own->path = strdup(folder);
    return own->path ? tokenizer_open(&own->tokenizer, folder) : no_memory();
}

/* Takes it from the source: nobody else asks there. */
static gt_status weights_tokenizer(train_tokenizer *own, cli_source *source)
{
    if (!own->mark.known) {
        own->marked = o->from;
        own->mark = source->mark;
    }
    if (!source->tokenizer_path)
        return GT_OK;
    own->model = o->from;
    own->path = source->tokenizer_path;
    own->tokenizer = source->tokenizer;
    own->binding = 1;
    source->tokenizer_path = NULL;
    source->tokenizer = NULL;
    return source->tokenizer_status ? cli_source_tokenizer(source, "") : GT_OK;
}

static gt_status find_own_tokenizer(train_tokenizer *own, cli_source *source, int resumed)
{
    gt_status st = o->resume ? run_tokenizer(own) : GT_OK;
    if (st || own->path || resumed)
        return st;
    if (o->from)
        return weights_tokenizer(own, source);
    return gt_option_given(train_table, "tokenizer") ? GT_OK : folder_tokenizer(own, o->model);
}

/* A text is read with the model's own tokenizer unless --tokenizer says, and only a new model may
 * go without, by what is usual in its family. Token files may bring the one that they were made with, and none can be made of them, as
 * the run's own option may say that was given for a text. */
gt_status train_choose_tokenizer(train_tokenizer *own, const model_config *c, cli_source *source, int resumed,
                                 const char **spec)
{
    const int text = data_kind_of(o->data) == DATA_TEXT;
    const int eval_text = o->eval_data && o->eval_every && data_kind_of(o->eval_data) == DATA_TEXT;
    char *brought = data_brings_tokenizer(o->data);
    const int brings = !text && brought;
    free(brought);
    gt_status st = find_own_tokenizer(own, source, resumed);
    if (st && !text && !eval_text && !brings && !o->tokenizer) {
        gt_message_clear();             /* bare tokens can do without it */
        st = GT_OK;
    }
    const int given = gt_option_given(train_table, "tokenizer");
    const int made = !given && !text && o->tokenizer && tokenizer_needs_text(o->tokenizer);
    *spec = given ? o->tokenizer : brings ? NULL : own->tokenizer ? own->path : made ? NULL : o->tokenizer;
    const int none = !*spec && !brings && (eval_text || (text && (o->from || resumed)));
    if (!st && none && own->mark.known)
        return gt_fail(GT_NOT_FOUND,
                       "there is no tokenizer to read '%s' with: '%s' was trained with one (%s, %u "
                       "tokens, %016llx) that is not in '%s/tokenizer' any more; put it back there from a copy "
                       "or an export of the run, or name it with --tokenizer",
                       text ? o->data : o->eval_data, own->marked, own->mark.kind, own->mark.tokens,
                       (unsigned long long)own->mark.hash, own->marked);
    if (!st && none)
        st = gt_fail(GT_NOT_FOUND,
                     "there is no tokenizer to read '%s' with: %s '%s' came without one; name "
                     "the one that it was made with by --tokenizer",
                     text ? o->data : o->eval_data,
                     resumed ? "run"
                     : text  ? "the model of"
                             : "the data of",
                     resumed ? o->out
                     : text  ? o->from
                             : o->data);
    if (!st && !*spec && text)
        *spec = own->usual = model_tokenizer(c);
    return st;
}

static int has_checkpoint(void)
{
    char *path = NULL;
    checkpoint_info info;
    const gt_status st = checkpoint_find(&path, &info, o->out);
    free(path);
    if (st)
        gt_message_clear();
    return st != GT_NOT_FOUND;
}

static void settle_mark(train_tokenizer *own, const data_set *data)
{
    if (own->mark.known)
        return;
    if (own->binding)
        own->mark = cli_tokenizer_mark_of(own->tokenizer);
    else if (!o->resume || !has_checkpoint())
        own->mark = cli_tokenizer_mark_of(data->tokenizer);
    else if (data->tokenizer)
        gt_log(GT_LOG_WARN, "train",
               "nothing in '%s' says which tokenizer it was trained with; that of '%s' is "
               "used, and not kept there",
               o->out, o->data);
}

gt_status train_check_tokenizer(train_tokenizer *own, const data_set *data)
{
    char what[512];
    const int given = gt_option_given(train_table, "tokenizer");
    snprintf(what, sizeof what, given ? "--tokenizer %s" : "that of '%s'", given ? o->tokenizer : o->data);
    gt_status st = own->binding ? cli_same_tokenizer(own->model, own->tokenizer, own->path, data->tokenizer, what)
                                : GT_OK;
    if (!st)
        st = cli_tokenizer_mark_check(&own->mark, own->marked, data->tokenizer, what);
    if (!st)
        settle_mark(own, data);
    return st;
}

/* The vocabulary is the tokenizer's unless the description fixes it. */
gt_status train_settle_vocabulary(model_config *c, const data_set *data)
{
    const int V = data->tokenizer ? (int)tokenizer_vocab(data->tokenizer) : 0;
    if (!V && !c->vocab)
        return gt_fail(GT_MISMATCH,
                       "'%s' came without a tokenizer, and model '%s' leaves the "
                       "vocabulary to it; name one with --tokenizer",
                       o->data, c->name);
    if (V > c->vocab && c->vocab_given)
        return gt_fail(GT_MISMATCH, "the tokenizer has %d tokens, model '%s' only %d", V, c->name, c->vocab);
    if (V && !c->vocab_given)
        c->vocab = V;
    return GT_OK;
}

gt_status train_settle_targets(model_config *c, const data_set *data, const data_set *eval_data)
{
    const token_split *const splits[] = { &data->train, &data->val, &eval_data->train, &eval_data->val };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < 4; i++)
        st = cli_settle_reading(c, splits[i]);
    return st;
}

/* Texts are tokenized once, by rank 0; the others find the tokens. */
gt_status train_open_data(data_set *data, data_set *eval_data, const char *spec, net_comm *c)
{
    cli_progress p = { .what = "tokenizing" };
    const token_reading reading = train_settings_reading();
    data_request r = train_settings_data();
    r.spec = spec;
    r.progress = cli_progress_show;
    r.context = &p;
    gt_status st = c && net_comm_rank(c) ? net_job_barrier(net_comm_job(c), "tokenizing") : GT_OK;
    if (!st)
        st = data_open_as(data, o->data, &r);
    if (!st && o->labelled)
        st = data_check_labelled(data, o->data);
    r.whole = o->eval_data && data_kind_of(o->eval_data) == DATA_TEXT;
    r.lenient = 1;
    r.spec = data->tokenizer_path;
    if (!st && o->eval_data && o->eval_every)
        st = data_open_as(eval_data, o->eval_data, &r);
    if (!st && o->eval_data && o->eval_every && o->labelled)
        st = data_check_labelled(eval_data, o->eval_data);
    cli_progress_end(&p);
    if (!st && c && !net_comm_rank(c))
        st = net_job_barrier(net_comm_job(c), "tokenizing");
    token_split *const splits[] = { &data->train, &data->val, &eval_data->train, &eval_data->val };
    for (int i = 0; !st && i < 4; i++)
        st = token_split_set_reading(splits[i], &reading, i < 2 ? o->data : o->eval_data);
    return st;
}

/* Sequences; of a mixture those of the part that has the fewest. */
static uint64_t rows_of(const token_split *s)
{
    uint64_t least = s->part_count            ? UINT64_MAX
                     : s->reading.by_document ? token_split_documents(s)
                     : s->count               ? (s->count - 1) / o->seq
                                              : 0;
    for (size_t i = 0; i < s->part_count; i++) {
        const uint64_t rows = rows_of(&s->parts[i].split);
        least = rows < least ? rows : least;
    }
    return least;
}

/* What is validated on; *val NULL: nothing. Who asked for it is told that there is nothing to
 * validate on; who did not reads it among what will run (show_validation). */
gt_status train_choose_validation(const token_split **val, const data_set *data, const data_set *eval_data)
{
    const token_split *s = !o->eval_data ? &data->val : eval_data->val.count ? &eval_data->val : &eval_data->train;
    const uint64_t rows = rows_of(s);
    *val = o->eval_every && rows ? s : NULL;
    if (*val || !o->eval_every
        || (!gt_option_given(train_table, "eval-every") && !gt_option_given(train_table, "eval-data")))
        return GT_OK;
    return gt_fail(GT_MISMATCH,
                   "cannot validate on %s'%s': it has %llu tokens, a sequence takes %llu + 1; "
                   "%slower --seq, or say --eval-every 0",
                   o->eval_data ? "" : "the validation part of ", o->eval_data ? o->eval_data : o->data,
                   (unsigned long long)s->count, (unsigned long long)o->seq,
                   o->eval_data ? "give more text, " : "name a text with --eval-data, ");
}
