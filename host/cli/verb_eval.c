/* SPDX-License-Identifier: MIT */
/* host/cli/verb_eval.c - the loss of a model on a text.
 *
 * What is measured, unless --split says:
 *
 *   data that the run was trained on     their validation part: the rest it has seen
 *   another text, or one token file      all of it
 *   another folder with val shards       those; without: all of it
 *
 * Data are the run's if their training split is what its checkpoint says it was trained on. The
 * line that is printed says what was measured.                                            */
#include "host/cli/choices.h"
#include "host/cli/busy.h"
#include "host/cli/cli.h"
#include "host/cli/cli_model.h"
#include "host/cli/cli_task.h"
#include "host/cli/data_options.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/data/labelled.h"
#include "host/train/evaluate.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *from, *checkpoint, *adapter, *data, *tokenizer, *devices, *precision, *split, *bits;
    const char *documents, *rows, *task;
    int pairs, whole_words;
    data_options of;
    uint64_t batch, seq, batches;
    int json;
} o = { .bits = "auto", .batch = 8, .of = DATA_OPTIONS };

static const gt_option table[] = {
    { .group = "Evaluation" },
    { "from", 0, GT_STRING, "RUN|DIR", "run, checkpoint of one, or Hugging Face folder", &o.from, 0, NULL },
    { "checkpoint", 0, GT_STRING, "best|STEP", "which of the run's; default: the newest", &o.checkpoint, 0, NULL },
    { "adapter", 0, GT_STRING, "DIR", "adapter in PEFT's layout for that model", &o.adapter, 0, NULL },
    { "data", 'd', GT_STRING, "FILE|DIR,..", "texts, records, or tokens", &o.data, 0, NULL },
    DATA_OPTION_ROWS(o.of),
    { "documents", 0, GT_CHOICE, "across|within", "what a token sees: all, or its document; default: the run's",
      &o.documents, 1, NULL },
    { "rows", 0, GT_CHOICE, "packed|documents", "a sequence: tokens in a row, or a document; default: the run's",
      &o.rows, 1, NULL },
    { "tokenizer", 0, GT_STRING, "byte|DIR", "tokenizer of a text, if the weights have none beside them", &o.tokenizer,
      0, NULL },
    { "task", 0, GT_CHOICE, CLI_TASKS, "what is asked for; default: the model's own", &o.task, 0, NULL },
    { "whole-words", 0, GT_FLAG, NULL, "mlm: hide words as a whole", &o.whole_words, 1, NULL },
    { "pairs", 0, GT_FLAG, NULL, "mlm: ask too whether a second text follows the first", &o.pairs, 1, NULL },
    { "split", 0, GT_CHOICE, "train|val|all",
      "which part; default: val of what the run was trained on, "
      "else all",
      &o.split, 0, NULL },
    { "token-bits", 0, GT_CHOICE, "auto|16|32", "bits of an id in a .bin file without a header", &o.bits, 1, NULL },
    { "batch", 'b', GT_U64, "N", "sequences at once", &o.batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence, 0: the model's context", &o.seq, 0, NULL },
    { "batches", 0, GT_U64, "N", "only the first N batches, 0: all", &o.batches, 0, NULL },
    { .group = "Device" },
    { "devices", 0, GT_STRING, "ID", "id from `geartrain devices`", &o.devices, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object", &o.json, 0, NULL },
    { 0 }
};

static const cli_help help = { "eval --from RUN|DIR --data FILE|DIR [options]",
                               "Measure the loss of a model on a text.",
                               "  geartrain eval --from runs/shakespeare --data input.txt\n" };

typedef struct parts {
    cli_model model;
    run_plan plan;
    evaluate *evaluate;
    unsigned char *token_bytes;
    uint32_t token_ids;
} parts;

/* The part of the data that is measured, and how to call it. */
typedef struct choice {
    data_set data;
    const token_split *split;
    const char *name;                   /* "train", "val" or "all" */
    const char *part;
    int trained_on;                     /* the run was trained on these data */
} choice;

static gt_status assemble(parts *p, cli_source *s, const choice *c, dtype storage)
{
    gt_status st = cli_model_open(&p->model, s, o.devices, storage, 1, 1);
    const cli_model *m = &p->model;
    if (!st)
        st = run_plan_single(&p->plan, model_units(&s->config), (int)o.batch, (int)o.batch, 0);
    if (!st && s->config.task == MODEL_LM)
        st = cli_token_bytes(&p->token_bytes, &p->token_ids, c->data.tokenizer);
    const evaluate_options e = {
        .place = { .exec = { .device = m->device, .kernels = m->kernels, .gemm = m->gemm, .params = m->params },
                   .passing = m->arena },
        .plan = &p->plan,
        .split = c->split,
        .batch = model_batch,
        .name = o.data,
        .seq = o.seq,
        .rows = o.batches * o.batch,
        .bytes = p->token_bytes,
        .ids = p->token_ids
    };
    const stage_model of = { &s->config, model_build_config, storage, (int)o.seq, WIRE_AS_IT_IS };
    if (!st)
        st = evaluate_create(&p->evaluate, &of, &e);
    return st ? st : evaluate_ready(p->evaluate);
}

static void release(parts *p)
{
    evaluate_release(p->evaluate);
    run_plan_release(&p->plan);
    cli_model_close(&p->model);
    free(p->token_bytes);
}

/* What follows from the loss, which of classes is other than of tokens, as text or as members of an object. */
static void show_more(const evaluate_result *r, double seconds)
{
    if (!r->whole_texts)
        printf("  perplexity %.3f", evaluate_perplexity(r));
    if (!isnan(r->hits))
        printf("  accuracy %.4f", evaluate_accuracy(r));
    if (r->whole_texts)
        printf("  over %.0f texts  %.1f texts/s", r->targets, r->targets / seconds);
    else
        printf("  over %.0f %stokens  %.1f tok/s", r->targets, isnan(r->hits) ? "" : "hidden ",
               (double)r->tokens / seconds);
    if (r->bytes > 0.0)
        printf("  %.4f bits per byte", evaluate_bits_per_byte(r));
}

static void put_more(const evaluate_result *r)
{
    if (!r->whole_texts)
        printf("\"perplexity\": %.9g, ", evaluate_perplexity(r));
    if (!isnan(r->hits))
        printf("\"accuracy\": %.9g, ", evaluate_accuracy(r));
    if (r->bytes > 0.0)
        printf("\"bits_per_byte\": %.9g, ", evaluate_bits_per_byte(r));
}

/* How sequences were cut, where it is not as always. */
static const char *reading_of(const token_split *s)
{
    return s->reading.by_document ? ", a document each" : s->reading.within ? ", documents apart" : "";
}

static void show(const parts *p, const choice *c, const evaluate_result *r, double seconds)
{
    uint64_t all;
    const uint64_t rows = evaluate_rows(p->evaluate, &all);
    if (o.json) {
        printf("{\"loss\": %.9g, ", r->loss);
        put_more(r);
        printf("\"tokens\": %llu, \"targets\": %.0f, \"split\": \"%s\", "
               "\"trained_on\": %s, \"sequences\": %llu, \"of\": %llu, \"seq\": %llu, "
               "\"tokens_per_s\": %.1f}\n",
               (unsigned long long)r->tokens, r->targets, c->name, c->trained_on ? "true" : "false",
               (unsigned long long)rows, (unsigned long long)all, (unsigned long long)o.seq,
               (double)r->tokens / seconds);
        return;
    }
    printf("loss %.6f", r->loss);
    show_more(r, seconds);
    printf("\nmeasured %llu of %llu sequences of %llu tokens%s: %s of '%s'%s\n", (unsigned long long)rows,
           (unsigned long long)all, (unsigned long long)o.seq, reading_of(c->split), c->part, o.data,
           !c->trained_on            ? ""
           : !strcmp(c->name, "val") ? ", of which the run was trained on the rest"
                                     : ", which the run was trained on");
}

static gt_status run(cli_source *s, const choice *c, dtype storage)
{
    parts p = { 0 };
    evaluate_result found = { .loss = NAN };
    gt_status st = assemble(&p, s, c, storage);
    const uint64_t start = gt_now_ns();
    if (!st)
        st = evaluate_run(p.evaluate, &found);
    const double seconds = (double)(gt_now_ns() - start) * 1e-9;
    if (!st && !isfinite(found.loss))
        st = gt_fail(GT_NUMERIC, "the loss is not finite; are the weights of '%s' whole?", o.from);
    if (!st)
        show(&p, c, &found, seconds);
    release(&p);
    return st;
}

/* An earlier version's checkpoint says nothing of its data: then their path has to do. */
static int same_path(const cli_source *s)
{
    char a[PATH_MAX], b[PATH_MAX], *file = gt_path_join(s->path, "config.json"), *text = NULL;
    json_t *root = NULL;
    if (!file || gt_file_read(&text, NULL, file, 1u << 24))
        gt_message_clear();
    else
        root = json_loads(text, 0, NULL);
    const char *data = json_string_value(json_object_get(json_object_get(root, "options"), "data"));
    const int same = data && realpath(data, a) && realpath(o.data, b) && !strcmp(a, b);
    json_decref(root);
    free(text);
    free(file);
    return same;
}

static int was_trained_on(const cli_source *s, const data_set *d)
{
    const checkpoint_data *of = &s->info.data;
    if (!s->is_run)
        return 0;
    if (!of->seq)
        return same_path(s);
    return of->tokens == d->train.count && of->hash == token_split_hash(&d->train);
}

/* Whatever is read must have been read with the model's tokenizer, as far as that is known; bare
 * token files need none. */
static gt_status check_tokenizer(const data_set *data, const cli_source *s)
{
    char what[512];
    snprintf(what, sizeof what, o.tokenizer ? "--tokenizer %s" : "that of '%s'", o.tokenizer ? o.tokenizer : o.data);
    if (data->tokenizer && s->tokenizer_status)
        return cli_source_tokenizer(s, "");
    if (data->tokenizer && (int)tokenizer_vocab(data->tokenizer) > s->config.vocab)
        return gt_fail(GT_MISMATCH, "%s has %u tokens, the model of '%s' %d", what, tokenizer_vocab(data->tokenizer),
                       o.from, s->config.vocab);
    const gt_status st = cli_same_tokenizer(o.from, s->tokenizer, s->tokenizer_path, data->tokenizer, what);
    return st ? st : cli_tokenizer_mark_check(&s->mark, o.from, data->tokenizer, what);
}

/* The tokenizer that belongs to the model reads a text; token files bring their own. */
static gt_status open_data(data_set *data, const cli_source *s, int whole)
{
    cli_progress p = { .what = "tokenizing" };
    if (o.tokenizer && tokenizer_needs_text(o.tokenizer))
        return gt_fail(GT_MISUSE,
                       "option --tokenizer: '%s' would be made of what is measured; name the folder "
                       "of the one that the model was trained with",
                       o.tokenizer);
    gt_status st = data_kind_of(o.data) == DATA_TEXT && (!o.tokenizer || s->tokenizer_status)
                       ? cli_source_tokenizer(s, "name the one that it was trained with: --tokenizer DIR, or "
                                                 "byte")
                       : GT_OK;
    const data_request r = {
        .spec = o.tokenizer    ? o.tokenizer
                : s->tokenizer ? s->tokenizer_path
                               : NULL,
        .token_bits = strcmp(o.bits, "auto") ? atoi(o.bits) : 0,
        .keys = data_options_keys(&o.of),
        .chat_template = o.of.chat_template,
        .whole = whole,
        .progress = cli_progress_show,
        .context = &p
    };
    if (!st)
        st = data_open_as(data, o.data, &r);
    if (!st && s->config.task == MODEL_CLASSIFY)
        st = data_check_labelled(data, o.data);
    cli_progress_end(&p);
    const token_reading reading = { !strcmp(o.documents, "within"), !strcmp(o.rows, "documents") };
    if (!st)
        st = token_split_set_reading(&data->train, &reading, o.data);
    if (!st)
        st = token_split_set_reading(&data->val, &reading, o.data);
    return st ? st : check_tokenizer(data, s);
}

static gt_status take_all(choice *c, const cli_source *s, data_kind kind)
{
    data_close(&c->data);
    c->name = "all";
    c->part = kind == DATA_FOLDER ? "all shards" : "all";
    c->split = &c->data.train;
    return open_data(&c->data, s, 1);
}

/* Opens the data and settles which part is measured. */
static gt_status choose(choice *c, const cli_source *s)
{
    const data_kind kind = data_kind_of(o.data);
    const int open = !o.split;
    /* Whether data are the run's shows when they are cut as for training. */
    if (!s->is_run && (open ? kind == DATA_TEXT : !strcmp(o.split, "all")))
        return take_all(c, s, kind);
    gt_status st = open_data(&c->data, s, 0);
    if (st)
        return st;
    c->trained_on = was_trained_on(s, &c->data);
    if (open ? !c->data.val.count || (kind == DATA_TEXT && !c->trained_on) : !strcmp(o.split, "all"))
        return take_all(c, s, kind);
    c->name = open ? "val" : o.split;
    c->split = strcmp(c->name, "val") ? &c->data.train : &c->data.val;
    c->part = kind == DATA_FOLDER        ? c->split == &c->data.val ? "the validation shards" : "the training shards"
              : kind == DATA_TOKEN_FILE  ? "all"
              : c->split == &c->data.val ? "the validation part, the last tenth,"
                                         : "the training part";
    if (!c->split->count)
        return gt_fail(GT_MISMATCH, "'%s' has no %s part; leave out --split, or say --split all", o.data,
                       c->split == &c->data.val ? "validation" : "training");
    return GT_OK;
}

/* What its sequences were a run knows best: unless an option says otherwise now, they are the same. *kept owns the
 * options' strings. */
static gt_status take_reading(const cli_source *s, json_t **kept)
{
    static const char *const names[] = { "documents", "rows", "whole-words" };
    gt_status st = cli_source_options(kept, s);
    for (size_t i = 0; !st && i < sizeof names / sizeof *names; i++) {
        const char *value = json_string_value(json_object_get(*kept, names[i]));
        const int fits = strcmp(names[i], "whole-words") || s->config.task == MODEL_MLM;
        if (value && *value && fits && !gt_option_given(table, names[i]))
            st = gt_option_set(table, names[i], value);
    }
    o.documents = o.documents ? o.documents : "across";
    o.rows = o.rows ? o.rows : "packed";
    return st;
}

gt_status verb_eval(int argc, char **argv)
{
    char **words;
    int count, done;
    cli_source s;
    choice c = { 0 };
    dtype storage;
    o.precision = dtype_name(DTYPE_F32);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return cli_no_words(words, &help);
    if (!o.from || !o.data)
        return cli_missing(&help, o.from ? "--data FILE|DIR" : "--from RUN|DIR");
    if (!o.batch)
        return gt_fail(GT_MISUSE, "option --batch must be at least 1, not 0");
    dtype_parse(&storage, o.precision);
    cli_busy_start();
    st = cli_source_open_at(&s, o.from, o.checkpoint);
    if (!st && o.adapter)
        st = cli_source_adapt(&s, o.adapter);
    json_t *kept = NULL;
    if (!st)
        st = take_reading(&s, &kept);
    if (st) {
        json_decref(kept);
        cli_source_close(&s);
        return st;
    }
    if (!o.seq)
        o.seq = (uint64_t)s.config.context;
    const cli_task task = { .name = o.task, .pairs = o.pairs, .whole_words = o.whole_words };
    data_marks marks = { 0 };
    int by_document = 0;
    const model_config had = s.config;
    st = cli_task_choose(&s.config, &task, &by_document);
    if (!st)
        st = cli_task_check_run(&s, &had, &s.config);
    if (!st)
        st = cli_task_check_seq(&s.config, o.seq);
    s.config.new_labels = 0;
    if (!st)
        st = cli_task_check_data(&s.config, &o.of, gt_option_given(table, "rows") ? o.rows : NULL);
    if (by_document)
        o.rows = "documents";
    if (!st)
        st = choose(&c, &s);
    if (!st)
        st = cli_task_settle(&s.config, &task, &c.data, o.data, &marks);
    if (!st)
        st = cli_settle_reading(&s.config, c.split);
    if (!st)
        st = run(&s, &c, storage);
    data_close(&c.data);
    cli_source_close(&s);
    data_marks_close(&marks);
    json_decref(kept);
    return st;
}
