/* SPDX-License-Identifier: MIT */
/* host/cli/train_settings.c - the option table of `train`, its defaults and checks, and config.json.
 *
 * --resume takes every option that was not given again from the run's config.json, so that
 * `geartrain train --out RUN --resume` goes on exactly as it began.                       */
#include "host/cli/train_settings.h"

#include "host/cli/choices.h"
#include "host/cli/cli_task.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/data/sources.h"
#include "host/sync/sync.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

train_settings train_set;
static train_settings *const o = &train_set;

enum { ROWS = 152, RULE_HELP = 160 };
gt_option train_table[ROWS];
static char rule_help[TRAIN_RULE_SETTINGS][RULE_HELP];
static const char *rule_option[TRAIN_RULE_SETTINGS];

/* Rows in front of those that the optimizer's rules add (make_table), between them and those of ways of staying
 * together, and behind these. */
static const gt_option front[] = {
    { .group = "Model and data" },
    { "model", 'm', GT_STRING, "NAME|FILE|DIR", "gpt2-124m, ..., a JSON file, or a folder", &train_set.model, 0, NULL },
    { "data", 'd', GT_STRING, "FILE|DIR,..", "texts, records, tokens; or a mixture: a:0.7,b:0.3", &train_set.data, 0,
      NULL },
    DATA_OPTION_ROWS(train_set.data_of),
    { "documents", 0, GT_CHOICE, "across|within", "what a token sees: all before it, or of its document",
      &train_set.documents, 1, NULL },
    { "rows", 0, GT_CHOICE, "packed|documents", "a sequence: neighbouring tokens, or one document", &train_set.rows, 1,
      NULL },
    { "token-bits", 0, GT_CHOICE, "auto|16|32", "bits of an id in a .bin file without a header", &train_set.bits, 1,
      NULL },
    { "tokenizer", 0, GT_STRING, "SPEC", "byte, char, bpe:SIZE or a folder; default: the model's", &train_set.tokenizer,
      0, NULL },
    { "task", 0, GT_CHOICE, CLI_TASKS, "what is learned; default: the model's own", &train_set.task, 0, NULL },
    { "whole-words", 0, GT_FLAG, NULL, "mlm: hide words as a whole", &train_set.whole_words, 1, NULL },
    { "pairs", 0, GT_FLAG, NULL, "mlm: learn too whether a second text follows the first", &train_set.pairs, 1, NULL },
    { "out", 'o', GT_STRING, "RUN", "run directory to write", &train_set.out, 0, NULL },
    { "from", 0, GT_STRING, "RUN|DIR", "weights to start from: a run, a checkpoint of one, or a folder",
      &train_set.from, 0, NULL },
    { "resume", 0, GT_FLAG, NULL, "continuation from the newest checkpoint in RUN", &train_set.resume, 0, NULL },
    { .group = "What is trained" },
    { "freeze", 0, GT_STRING, "PATTERN,..", "tensors that stay as they are, as 'wte.*,h.0.*'", &train_set.freeze, 1,
      NULL },
    { "lora", 0, GT_INT, "R", "adapters of rank R, and a new head; 0: the model itself", &train_set.lora, 0, NULL },
    { "lora-alpha", 0, GT_DOUBLE, "X", "adapters count ALPHA / R times; default: 2 R", &train_set.lora_alpha, 1, NULL },
    { "lora-dropout", 0, GT_DOUBLE, "X", "dropout in front of adapters", &train_set.lora_dropout, 1, NULL },
    { "lora-targets", 0, GT_STRING, "PATTERN,..", "matrices that have one; default: the family's usual ones",
      &train_set.lora_targets, 1, NULL },
    { "dora", 0, GT_FLAG, NULL, "magnitudes of the adapted columns trained apart", &train_set.dora, 1, NULL },
    { "rslora", 0, GT_FLAG, NULL, "adapters count ALPHA / sqrt(R) times", &train_set.rslora, 1, NULL },
    { "adapter", 0, GT_STRING, "DIR", "adapter in PEFT's layout to go on with", &train_set.adapter, 1, NULL },
    { "base-precision", 0, GT_CHOICE, "fp32|bf16|int8", "storage of frozen matrices; default: --precision",
      &train_set.base_precision, 1, NULL },
    { .group = "Steps" },
    { "steps", 'n', GT_U64, "N", "optimizer updates", &train_set.steps, 0, NULL },
    { "batch", 'b', GT_U64, "N", "sequences a step", &train_set.batch, 0, NULL },
    { "micro-batch", 0, GT_U64, "N", "sequences at once, 0: all of the batch", &train_set.micro_batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence, 0: the model's context", &train_set.seq, 0, NULL },
    { "order", 0, GT_CHOICE, "shuffled|sequential", "order of the samples", &train_set.order, 1, NULL },
    { "seed", 0, GT_U64, "S", "seed of weights, order and dropout", &train_set.seed, 0, NULL },
    { .group = "Optimizer" },
    { "optimizer", 0, GT_CHOICE, cli_rules, "update rule", &train_set.optimizer, 1, NULL },
    { "lr", 0, GT_DOUBLE, "X", "peak learning rate", &train_set.lr, 0, NULL },
    { "lr-schedule", 0, GT_CHOICE, "constant|cosine|linear|wsd", "shape over the steps", &train_set.schedule, 0, NULL },
    { "warmup", 0, GT_U64, "N", "steps of linear warm-up", &train_set.warmup, 0, NULL },
    { "min-lr", 0, GT_DOUBLE, "X", "learning rate at the end; default: a tenth of --lr", &train_set.min_lr, 1, NULL },
    { "decay-share", 0, GT_DOUBLE, "X", "wsd: last share of the steps that decays", &train_set.decay_share, 1, NULL },
};

static const gt_option back[] = {
    { "weight-decay", 0, GT_DOUBLE, "X", "weight decay, of matrices only", &train_set.weight_decay, 0, NULL },
    { "clip", 0, GT_DOUBLE, "X", "limit of the gradient's norm, 0: no limit", &train_set.clip, 0, NULL },
    { "dropout", 0, GT_DOUBLE, "X", "dropout probability; default: the model's", &train_set.dropout, 0, NULL },
    { .group = "Devices and plan" },
    { "devices", 0, GT_STRING, "ID,...", "ids from `geartrain devices`; one rank each", &train_set.devices, 0, NULL },
    { "ranks", 0, GT_U64, "N", "ranks of this host, unless a launcher started some", &train_set.comm.ranks, 1, NULL },
    { "plan", 0, GT_STRING, "FILE|auto", "plan to follow: a file of `geartrain plan`, or measured", &train_set.plan, 1,
      NULL },
    { "stages", 0, GT_STRING, "N|auto", "pipeline stages of a replica", &train_set.stages, 0, NULL },
    { "replicas", 0, GT_STRING, "N|auto", "copies of the model", &train_set.replicas, 0, NULL },
    { "tensor", 0, GT_STRING, "N|auto", "ranks that split every layer", &train_set.tensor, 0, NULL },
    { "schedule", 0, GT_CHOICE, cli_schedules, "order of a pipeline", &train_set.pipe_schedule, 0, NULL },
    { "sync", 0, GT_CHOICE, cli_syncs, "how ranks agree", &train_set.sync, 1, NULL },
    { "compress", 0, GT_STRING, "SPEC", "gradients between ranks: none, auto or a form listed below",
      &train_set.compress, 1, NULL },
    { "compress-after", 0, GT_U64, "N", "steps before it, in which they travel as they are", &train_set.compress_after,
      1, NULL },
    { "send-threshold", 0, GT_DOUBLE, "X", "tensors wait until changed by X of their norm, 0: none do",
      &train_set.send_threshold, 1, NULL },
    { "sparse-rows", 0, GT_CHOICE, "auto|off", "gradients of tables: as the rows a step touches, if few",
      &train_set.sparse_rows, 1, NULL },
    { "compress-stages", 0, GT_STRING, "FORM", "between stages: none|bf16|fp16|int8|auto[:FORM,..,ERROR]",
      &train_set.compress_stages, 1, NULL },
};

static const gt_option last[] = {
    { "replan", 0, GT_FLAG, NULL, "a new plan when a rank becomes slow", &train_set.replan, 1, NULL },
    { "slow", 0, GT_DOUBLE, "X", "slowing, as a ratio to the others', of a slow rank", &train_set.slow, 1, NULL },
    { "transport", 0, GT_STRING, "LIST", "auto, or some of shm,verbs,tcp", &train_set.comm.transport, 1, NULL },
    { "net", 0, GT_STRING, "NAME=VALUE,..", "network settings", &train_set.comm.net.settings, 1, NULL },
    { "print-config", 0, GT_FLAG, NULL, "all network settings and where they come from", &train_set.comm.net.print, 1,
      NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage of activations and weights", &train_set.precision, 0, NULL },
    { "recompute", 0, GT_FLAG, NULL, "activations computed again instead of kept", &train_set.recompute, 1, NULL },
    { "gemm", 0, GT_CHOICE, cli_engines, "engine", &train_set.gemm, 1, NULL },
    { "tune", 0, GT_CHOICE, "auto|on|off", "products tuned between steps; auto: on GPUs", &train_set.tune, 1, NULL },
    { .group = "Evaluation, checkpoints, output" },
    { "eval-every", 0, GT_U64, "N", "steps between validations, 0: none", &train_set.eval_every, 0, NULL },
    { "eval-batches", 0, GT_U64, "N", "validation on N x --batch sequences, 0: all", &train_set.eval_batches, 1, NULL },
    { "eval-data", 0, GT_STRING, "FILE|DIR", "validation text, or folder with val shards", &train_set.eval_data, 1,
      NULL },
    { "save-every", 0, GT_U64, "N", "steps between checkpoints, 0: at the end", &train_set.save_every, 0, NULL },
    { "keep", 0, GT_INT, "N", "newest checkpoints kept, 0: all", &train_set.keep, 1, NULL },
    { "keep-best", 0, GT_FLAG, NULL, "also that with the lowest validation loss: checkpoints/best",
      &train_set.keep_best, 1, NULL },
    { "patience", 0, GT_U64, "N", "end after N validations without improvement, 0: never", &train_set.patience, 1,
      NULL },
    { "min-improvement", 0, GT_DOUBLE, "X", "by how much the loss must fall to count as one", &train_set.improvement, 1,
      NULL },
    { "sample-every", 0, GT_U64, "N", "steps between texts that the model writes, 0: none", &train_set.sample_every, 1,
      NULL },
    { "sample-prompt", 0, GT_STRING, "TEXT", "how they begin", &train_set.sample_prompt, 1, NULL },
    { "sample-tokens", 0, GT_U64, "N", "how many tokens they have, at most", &train_set.sample_tokens, 1, NULL },
    { "sample-temperature", 0, GT_DOUBLE, "X", "0: always the likeliest token", &train_set.sample_temperature, 1,
      NULL },
    { "explain", 0, GT_FLAG, NULL, "the graph with times and memory, instead of a run", &train_set.explain, 1, NULL },
    { "trace", 0, GT_STRING, "FILE", "timeline of all ranks, for ui.perfetto.dev", &train_set.trace, 1, NULL },
    { "json", 0, GT_FLAG, NULL, "one object a step", &train_set.json, 0, NULL },
    { 0 }
};

static const char examples[] =
    "  geartrain train --model gpt2-mini --data input.txt --tokenizer char --out runs/first \\\n"
    "      --steps 2000 --batch 12 --lr 1e-3 --warmup 100 --eval-every 250\n"
    "  geartrain train --out runs/first --resume\n"
    "  geartrain train --from gpt2/ --data input.txt --out runs/fine --lr 3e-5\n"
    "\nForms of --compress, NAME[:NUMBER][,NAME=NUMBER...]:\n"
    "  auto                       what gains most on each link: none, bf16, int8, or of auto:FORM,...\n";
/* With the forms. */
static char with_forms[4096];

const cli_help train_help = { "train --model NAME --data FILE --out RUN [options]", "Train a model.", with_forms };

/* ---- options of the optimizer's rules --------------------------------------------------------- */

/* The place of a setting's option among train_set.rule[]; -1: there is none. */
static int rule_option_of(const char *name)
{
    for (int i = 0; i < TRAIN_RULE_SETTINGS; i++)
        if (rule_option[i] && !strcmp(rule_option[i], name))
            return i;
    return -1;
}

static const optim_setting *setting_of(const optim_rule *r, const char *name)
{
    for (int i = 0; optim_setting_at(r, i); i++)
        if (!strcmp(optim_setting_name(optim_setting_at(r, i)), name))
            return optim_setting_at(r, i);
    return NULL;
}

/* One option for all rules that have a setting of that name: "adamw [0.9], lion [0.9]: decay of ...". */
static void add_setting(gt_option *row, int at, const char *name)
{
    char *help = rule_help[at];
    const optim_setting *first = NULL;
    size_t n = 0;
    for (int r = 0; optim_rules[r]; r++) {
        const optim_setting *s = setting_of(optim_rules[r], name);
        if (!s || n >= RULE_HELP)
            continue;
        n += (size_t)snprintf(help + n, RULE_HELP - n, "%s%s [%g]", first ? ", " : "", optim_rule_name(optim_rules[r]),
                              optim_setting_usual(s));
        first = first ? first : s;
    }
    if (n < RULE_HELP)
        snprintf(help + n, RULE_HELP - n, ": %s", optim_setting_help(first));
    rule_option[at] = name;
    *row = (gt_option){ name, 0, GT_DOUBLE, "X", help, &train_set.rule[at], 1, NULL };
}

/* train_table: front, an option for each setting of a rule, back, one for each of a mode, last. */
static void make_table(void)
{
    size_t n = sizeof front / sizeof *front;
    int settings = 0;
    memcpy(train_table, front, sizeof front);
    memset(rule_option, 0, sizeof rule_option);
    for (int r = 0; optim_rules[r]; r++) {
        for (int i = 0; optim_setting_at(optim_rules[r], i); i++) {
            const char *name = optim_setting_name(optim_setting_at(optim_rules[r], i));
            if (rule_option_of(name) >= 0)
                continue;
            assert(settings < TRAIN_RULE_SETTINGS && n + sizeof back / sizeof *back < ROWS);
            train_set.rule[settings] = NAN;     /* the rule's own */
            add_setting(&train_table[n++], settings++, name);
        }
    }
    memcpy(&train_table[n], back, sizeof back);
    n += sizeof back / sizeof *back;
    n += (size_t)sync_rows_make(&train_set.sync_text, &train_table[n]);
    assert(n + sizeof last / sizeof *last <= ROWS);
    memcpy(&train_table[n], last, sizeof last);
}

/* Options of rules that were not given take the chosen rule's usual values; those of other rules stay unset. */
static void settle_rule(void)
{
    const optim_rule *r = optim_rule_find(o->optimizer);
    for (int i = 0; r && i < TRAIN_RULE_SETTINGS && rule_option[i]; i++) {
        const optim_setting *s = setting_of(r, rule_option[i]);
        if (!s)
            o->rule[i] = NAN;
        else if (isnan(o->rule[i]))
            o->rule[i] = optim_setting_usual(s);
    }
}

/* "adamw or lion", of those that have the setting. */
static const char *rules_with(char *out, size_t size, const char *name)
{
    size_t n = 0;
    *out = '\0';
    for (int r = 0; optim_rules[r]; r++)
        if (setting_of(optim_rules[r], name) && n < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " or " : "", optim_rule_name(optim_rules[r]));
    return out;
}

static gt_status check_rule(void)
{
    char names[96];
    const optim_rule *r = optim_rule_find(o->optimizer);
    for (int i = 0; i < TRAIN_RULE_SETTINGS && rule_option[i]; i++)
        if (gt_option_given(train_table, rule_option[i]) && !setting_of(r, rule_option[i]))
            return gt_fail(GT_MISUSE, "option --%s would be ignored: it belongs to --optimizer %s; leave it out",
                           rule_option[i], rules_with(names, sizeof names, rule_option[i]));
    return GT_OK;
}

void train_settings_default(void)
{
    const optim_config d = optim_defaults();
    *o = (train_settings){ 0 };
    make_table();
    snprintf(with_forms, sizeof with_forms, "%s", examples);
    compressors_describe(with_forms + strlen(with_forms), sizeof with_forms - strlen(with_forms));
    o->order = "shuffled";
    o->schedule = "cosine";
    o->precision = dtype_name(DTYPE_F32);
    o->optimizer = optim_rule_name(optim_rules[0]);
    o->gemm = o->tune = o->bits = o->data_of.format = "auto";
    o->documents = "across";
    o->rows = "packed";
    o->plan = o->stages = o->replicas = o->tensor = o->pipe_schedule = "auto";
    o->sync = sync_mode_name(sync_mode_at(0));
    o->compress = compressor_name(compressor_at(0));
    o->compress_stages = "none";
    o->sparse_rows = "auto";
    o->slow = 1.3;
    o->steps = 1000;
    o->batch = 8;
    o->seed = 1;
    o->eval_batches = 0;
    o->eval_every = 250;
    o->save_every = 500;
    o->keep = 2;
    o->improvement = 0.0;
    o->sample_prompt = "\n";
    o->sample_tokens = 100;
    o->sample_temperature = 0.8;
    o->lr = d.lr;
    o->min_lr = NAN;                     /* a tenth of lr */
    o->weight_decay = d.weight_decay;
    o->clip = d.clip;
    o->decay_share = d.decay_share;
    o->dropout = NAN;                    /* the model's   */
    o->lora_alpha = NAN;                 /* twice the rank */
}

/* ---- checks --------------------------------------------------------------------------------- */

gt_status train_settings_words(char **words, int count)
{
    if (count)
        return cli_no_words(words, &train_help);
    if (!o->out && o->explain)
        o->out = "";
    if (!o->out)
        return cli_missing(&train_help, "--out RUN");
    return GT_OK;
}

static gt_status check_useless(void)
{
    const cli_useless rules[] = {
        { "eval-data", !o->eval_every, "--eval-every 0 asks for no validation" },
        { "eval-batches", !o->eval_every && o->eval_batches, "--eval-every 0 asks for no validation" },
        { "min-lr", !strcmp(o->schedule, "constant"), "--lr-schedule constant stays at --lr" },
        { "decay-share", strcmp(o->schedule, "wsd") != 0, "it belongs to --lr-schedule wsd" },
        { "keep-best", !o->eval_every && o->keep_best, "--eval-every 0 asks for no validation" },
        { "patience", !o->eval_every && o->patience, "--eval-every 0 asks for no validation" },
        { "min-improvement", !o->patience, "without --patience nothing waits for one" },
        { "sample-prompt", !o->sample_every, "--sample-every 0 asks for no samples" },
        { "sample-tokens", !o->sample_every, "--sample-every 0 asks for no samples" },
        { "sample-temperature", !o->sample_every, "--sample-every 0 asks for no samples" },
        { "lora-alpha", !o->lora, "it belongs to --lora" },
        { "lora-dropout", !o->lora, "it belongs to --lora" },
        { "lora-targets", !o->lora, "it belongs to --lora" },
        { "dora", !o->lora, "it belongs to --lora" },
        { "rslora", !o->lora, "it belongs to --lora" },
        { "lora", o->adapter && !o->resume, "--adapter says all of its adapters" },
        { "base-precision", !o->lora && !o->adapter && !o->freeze, "nothing is frozen without --lora or --freeze" },
        { "trace", o->explain, "--explain trains nothing" },
        { "json", o->explain, "--explain prints a table" },
    };
    gt_status st = cli_check_useless(train_table, rules, sizeof rules / sizeof *rules);
    return st ? st : check_rule();
}

static gt_status parse_compress(compress_spec *c, sync_candidates *all)
{
    *c = (compress_spec){ 0 };
    *all = (sync_candidates){ 0 };
    return sync_compress_is_auto(o->compress) ? sync_candidates_parse(all, o->compress)
                                              : compress_parse(c, o->compress);
}

static gt_status check_compress(void)
{
    compress_spec c;
    sync_candidates all;
    stage_forms between;
    gt_status st = parse_compress(&c, &all);
    const int changes = all.count || compress_changes(&c);
    if (st)
        return gt_fail_in(st, "option --compress");
    if (stage_forms_parse(&between, o->compress_stages))
        return gt_fail_in(GT_MISUSE, "option --compress-stages");
    if (!sync_mode_compresses(sync_mode_find(o->sync)) && changes)
        return gt_fail(GT_MISUSE, "--sync %s sends what it sends as it is; leave out --compress %s", o->sync,
                       o->compress);
    if (!sync_mode_compresses(sync_mode_find(o->sync)) && o->send_threshold != 0.0)
        return gt_fail(GT_MISUSE, "--sync %s sends all that it sends; leave out --send-threshold", o->sync);
    if (all.count && o->send_threshold != 0.0)
        return gt_fail(GT_MISUSE, "--send-threshold sends tensors as they are or not at all; leave out --compress %s",
                       o->compress);
    const int planned = strcmp(o->plan, "auto") && !gt_option_given(train_table, "compress");     /* it says which */
    if (!planned && gt_option_given(train_table, "compress-after") && o->compress_after && !changes)
        return gt_fail(GT_MISUSE, "option --compress-after: --compress %s compresses nothing", o->compress);
    return compress_threshold(&c, o->send_threshold);
}

/* It is written after the last step: too late to learn that there is no such folder. */
static gt_status check_trace(void)
{
    const char *end = o->trace ? strrchr(o->trace, '/') : NULL;
    char *folder = end && end > o->trace ? strndup(o->trace, (size_t)(end - o->trace)) : NULL;
    gt_status st = GT_OK;
    if (folder && !gt_path_is_folder(folder))
        st = gt_fail(GT_MISUSE, "option --trace: there is no folder '%s'", folder);
    else if (o->trace && (!*o->trace || gt_path_is_folder(o->trace)))
        st = gt_fail(GT_MISUSE, "option --trace: '%s' is no file", o->trace);
    free(folder);
    return st;
}

static const char *of_run(const char *option)
{
    return o->resume && !gt_option_given(train_table, option) ? " of the run's config.json" : "";
}

static gt_status check_batch(void)
{
    if (!o->batch)
        return gt_fail(GT_MISUSE, "option --batch: a step has at least 1 sequence");
    if (o->micro_batch && o->batch % o->micro_batch)
        return gt_fail(GT_MISUSE,
                       "batch %llu%s is not a multiple of micro-batch %llu%s; change --batch or "
                       "--micro-batch",
                       (unsigned long long)o->batch, of_run("batch"), (unsigned long long)o->micro_batch,
                       of_run("micro-batch"));
    return GT_OK;
}

/* What is wrong with the numbers is said once, before ranks are started. */
static gt_status check_numbers(void)
{
    train_options t = train_settings_options();
    t.seq = t.seq ? t.seq : 1;              /* the model's context, which is not known yet */
    gt_status st = train_options_check(&t);
    /* One rank has no use for it, and says so. */
    if (!st && (gt_option_given(train_table, "sync") || compress_goes_apart(&t.compress)))
        st = sync_mode_allows(sync_mode_find(o->sync), &o->sync_settings, &t.optim, t.precision, &t.compress);
    return st == GT_UNSUPPORTED ? gt_fail(GT_MISUSE, "%s", gt_message()) : st;
}

gt_status train_settings_check(void)
{
    if (o->resume && (!o->data || (!o->model && !o->from)))
        return gt_fail(GT_MISUSE,
                       "cannot resume '%s': its config.json does not say --%s; give it "
                       "again",
                       o->out, o->data ? "model" : "data");
    if (!o->data || (!o->model && !o->from))
        return cli_missing(&train_help, o->data ? "--model NAME|FILE|DIR" : "--data FILE|DIR");
    if (!o->steps)
        return gt_fail(GT_MISUSE, "option --steps: a run has at least one step");
    if (o->dropout < 0.0 || o->dropout >= 1.0)
        return gt_fail(GT_MISUSE, "option --dropout: %g is not in [0, 1)", o->dropout);
    if (o->min_lr < 0.0)
        return gt_fail(GT_MISUSE, "option --min-lr: %g is below 0", o->min_lr);
    if (!(o->improvement >= 0.0))
        return gt_fail(GT_MISUSE, "option --min-improvement: %g is below 0", o->improvement);
    if (!(o->sample_temperature >= 0.0))
        return gt_fail(GT_MISUSE, "option --sample-temperature: %g is below 0", o->sample_temperature);
    if (!*o->sample_prompt)
        return gt_fail(GT_MISUSE, "option --sample-prompt: a text begins with something");
    settle_rule();
    gt_status st = sync_rows_settle(&o->sync_text, train_table, o->sync, &o->sync_settings, &o->sync_fixed);
    if (st)
        return st;
    model_tuning tuning;
    st = train_settings_tuning(&tuning);
    if (!st)
        st = check_batch();
    if (!st)
        st = check_useless();
    if (!st)
        st = check_compress();
    if (!st)
        st = check_numbers();
    return st ? st : check_trace();
}

static void take_word(const char **option, char *room, size_t size, const char *word)
{
    if (*word) {
        snprintf(room, size, "%s", word);
        *option = room;
    }
}

/* As it was before a plan was followed. */
static struct {
    int there;
    const char *compress, *compress_stages, *sync;
    sync_settings settings;
    sync_rows text;
} unfollowed;

void train_settings_unfollow(void)
{
    if (!unfollowed.there)
        return;
    o->compress = unfollowed.compress;
    o->compress_stages = unfollowed.compress_stages;
    o->sync = unfollowed.sync;
    o->sync_settings = unfollowed.settings;
    o->sync_text = unfollowed.text;
    unfollowed.there = 0;
}

void train_settings_follow(run_plan *p)
{
    if (!unfollowed.there) {
        unfollowed.compress = o->compress;
        unfollowed.compress_stages = o->compress_stages;
        unfollowed.sync = o->sync;
        unfollowed.settings = o->sync_settings;
        unfollowed.text = o->sync_text;
        unfollowed.there = 1;
    }
    static char compress[sizeof p->compress], between[sizeof p->compress_stages], sync[sizeof p->sync];
    take_word(&o->compress, compress, sizeof compress, p->compress);
    take_word(&o->compress_stages, between, sizeof between, p->compress_stages);
    run_plan_forms(p, o->compress, o->compress_stages);
    o->compress_after = p->compress_after;
    if (p->ranks < 2)                   /* which have no use for a mode */
        return;
    take_word(&o->sync, sync, sizeof sync, p->sync);
    o->sync_settings = p->settings;
    sync_rows_take(&o->sync_text, o->sync, &o->sync_settings);
}

/* ---- config.json ------------------------------------------------------------------------------ */

/* Is the value of an option a path, and not the name of a model or kind of tokenizer? */
static int is_path(const char *option, const char *value)
{
    static const char *const names[] = { "adapter", "chat-template", "from", "model", "tokenizer" };
    int may = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        may |= !strcmp(option, names[i]);
    for (int i = 0; !strcmp(option, "model") && model_preset_name(i); i++)
        may &= strcmp(value, model_preset_name(i)) != 0;
    if (!strcmp(option, "tokenizer"))
        may &= strcmp(value, "byte") && !tokenizer_needs_text(value);
    return may && *value;
}

/* Paths from the root on: a run goes on from any folder. */
static void put_option(void *context, const gt_option *row, const char *value)
{
    if (!strcmp(row->name, "resume") || !strcmp(row->name, "explain") || !strcmp(row->name, "json")
        || !strcmp(row->name, "print-config") || !strcmp(row->name, "trace"))
        return;
    const int is_data = *value && (!strcmp(row->name, "data") || !strcmp(row->name, "eval-data"));
    char *absolute = is_data                     ? data_sources_absolute(value)
                     : is_path(row->name, value) ? gt_path_absolute(value)
                                                 : NULL;
    json_object_set_new(context, row->name, json_string(absolute ? absolute : value));
    free(absolute);
}

static json_t *mark_json(const cli_tokenizer_mark *m)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, m->hash);
    return m->known ? json_pack("{s:s, s:I, s:s}", "kind", m->kind, "tokens", (json_int_t)m->tokens, "hash", hash)
                    : NULL;
}

gt_status train_settings_write(const model_config *c, const cli_tokenizer_mark *mark)
{
    char *model = NULL, *path = gt_path_join(o->out, "config.json"), *text = NULL;
    gt_status st = path ? model_config_json(&model, c)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/config.json'", o->out);
    if (!st) {
        json_t *options = json_object();
        gt_options_each(train_table, put_option, options);
        json_t *root = json_pack("{s:s, s:o, s:o*, s:o*, s:o}", "program", "geartrain " GT_VERSION, "model",
                                 json_loads(model, 0, NULL), "tokenizer", mark_json(mark), "tuning",
                                 cli_tuning_json(&c->tuning), "options", options);
        text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
        st = text ? gt_file_write(path, text, strlen(text))
                  : gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for its text", path);
        json_decref(root);
    }
    free(text);
    free(model);
    free(path);
    return st;
}

/* A resumed run has its plan in plan.json; where that does not suit any more (other devices), what was
 * fixed for the old ones must not stand in the way of a new one. */
static int is_of_plan(const char *name)
{
    static const char *const names[] = { "plan", "stages", "replicas", "tensor", "schedule" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return 0;
}

/* Devices and ranks go together: who names one of them now does not want the other of before. Devices
 * of before that do not match the ranks asked for now are dropped when those are known. */
static int is_outdated(const char *name)
{
    return !strcmp(name, "ranks") && gt_option_given(train_table, "devices");
}

/* A run that is there goes on from its own checkpoints. --from may only repeat what it began with, so
 * that one command line begins a run and goes on with it. */
static gt_status check_from(const char *began)
{
    if (!gt_option_given(train_table, "from"))
        return GT_OK;
    char *now = gt_path_absolute(o->from), *then = began ? gt_path_absolute(began) : NULL;
    const int same = now && then && !strcmp(now, then);
    free(now);
    free(then);
    return same ? GT_OK
                : gt_fail(GT_MISUSE,
                          "--resume goes on from the checkpoints of '%s', so --from '%s' would be "
                          "ignored; leave one of them out, or name another folder with --out",
                          o->out, o->from);
}

/* State of one rule means nothing to another. */
static gt_status check_same_rule(const char *began)
{
    if (!began || !gt_option_given(train_table, "optimizer") || !strcmp(began, o->optimizer))
        return GT_OK;
    return gt_fail(GT_MISMATCH,
                   "cannot resume '%s' with --optimizer %s: it was begun with %s, whose state its "
                   "checkpoints hold; leave the option out, or start another run from its weights with --from '%s'",
                   o->out, o->optimizer, began, o->out);
}

/* The position in the data counts what sequences are. */
static gt_status check_same_rows(const char *began)
{
    if (!began || !gt_option_given(train_table, "rows") || !strcmp(began, o->rows))
        return GT_OK;
    return gt_fail(
        GT_MISMATCH,
        "cannot resume '%s' with --rows %s: it was begun with %s, and its place in the data is counted in those; "
        "leave the option out, or start another run from its weights with --from '%s'",
        o->out, o->rows, began, o->out);
}

/* Options of the run's config.json that were not given now; *kept owns their strings. */
gt_status train_settings_take(json_t **kept)
{
    char *path = gt_path_join(o->out, "config.json"), *text = NULL;
    const char *name;
    json_error_t error;
    json_t *value;
    *kept = NULL;
    gt_status st = path ? gt_file_read(&text, NULL, path, 1u << 24)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/config.json'", o->out);
    if (st == GT_NOT_FOUND && o->model && o->data) {
        gt_message_clear();             /* nothing there yet: --resume begins the run */
        st = GT_OK;
        goto out;
    }
    if (st) {
        st = gt_fail_in(st, "cannot resume");
        goto out;
    }
    *kept = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!*kept)
        st = gt_fail(GT_FORMAT, "'%s', line %d: %s", path, error.line, error.text);
    else if (!json_is_object(json_object_get(*kept, "options")))
        st = gt_fail(GT_MISMATCH, "cannot resume '%s': its config.json is not that of a run", o->out);
    json_object_foreach(json_object_get(*kept, "options"), name, value) {
        if (st || gt_option_given(train_table, name) || !json_string_length(value) || is_of_plan(name)
            || is_outdated(name))
            continue;
        st = gt_option_set(train_table, name, json_string_value(value));
        if (st)
            st = gt_fail_in(st, "'%s'", path);
    }
    if (!st)
        st = check_same_rule(json_string_value(json_object_get(json_object_get(*kept, "options"), "optimizer")));
    if (!st)
        st = check_same_rows(json_string_value(json_object_get(json_object_get(*kept, "options"), "rows")));
    if (!st)
        st = check_from(json_string_value(json_object_get(json_object_get(*kept, "options"), "from")));
out:
    free(text);
    free(path);
    return st;
}

static uint64_t kept_number(const json_t *kept, const char *name, uint64_t now)
{
    const char *word = json_string_value(json_object_get(json_object_get(kept, "options"), name));
    uint64_t n = 0;
    return word && !gt_parse_u64(&n, word) ? n : now;
}

uint64_t train_settings_first_save(const json_t *kept)
{
    const uint64_t every = kept_number(kept, "save-every", o->save_every);
    const uint64_t steps = kept_number(kept, "steps", o->steps);
    return every && every < steps ? every : steps;
}

data_request train_settings_data(void)
{
    return (data_request){ .token_bits = strcmp(o->bits, "auto") ? atoi(o->bits) : 0,
                           .keys = data_options_keys(&o->data_of),
                           .chat_template = o->data_of.chat_template };
}

token_reading train_settings_reading(void)
{
    return (token_reading){ .within = !strcmp(o->documents, "within"), .by_document = !strcmp(o->rows, "documents") };
}

gt_status train_settings_tuning(model_tuning *out)
{
    const cli_tuning_options given = { o->freeze, o->lora_targets, o->base_precision, o->lora,
                                       o->dora,   o->rslora,       o->lora_alpha,     o->lora_dropout };
    return cli_tuning_take(out, &given, o->precision);
}

train_options train_settings_options(void)
{
    train_options t = {
        .steps = o->steps,
        .batch = o->batch,
        .micro_batch = o->micro_batch,
        .seq = o->seq,
        .seed = o->seed,
        .recompute = o->recompute,
        .gemm = strcmp(o->gemm, "auto") ? o->gemm : NULL,
        .run = o->out,
        .resume = o->resume,
        .new_data = gt_option_given(train_table, "data"),
        .eval_every = o->eval_every,
        .eval_batches = o->eval_batches,
        .save_every = o->save_every,
        .keep = o->keep,
        .keep_best = o->keep_best || o->patience,
        .patience = o->patience,
        .improvement = o->improvement,
        .sample_every = o->sample_every,
        .whole_tables = !strcmp(o->sparse_rows, "off"),
        .optim = optim_defaults()
    };
    if (parse_compress(&t.compress, &t.candidates))         /* said by train_settings_check() */
        gt_message_clear();
    t.compress.after = o->compress_after;
    if (stage_forms_parse(&t.between, o->compress_stages))
        gt_message_clear();
    if (compress_threshold(&t.compress, o->send_threshold))
        gt_message_clear();
    t.order = strcmp(o->order, "sequential") ? LOADER_SHUFFLED : LOADER_SEQUENTIAL;
    dtype_parse(&t.precision, o->precision);
    optim_config_rule(&t.optim, optim_rule_find(o->optimizer));
    optim_schedule_parse(&t.optim.schedule, o->schedule);
    t.optim.lr = o->lr;
    t.optim.min_lr = isnan(o->min_lr) ? -1.0 : o->min_lr;
    t.optim.warmup = o->warmup;
    for (int i = 0; i < TRAIN_RULE_SETTINGS && rule_option[i]; i++) {
        const optim_setting *s = setting_of(t.optim.rule, rule_option[i]);
        if (s && !isnan(o->rule[i]))
            *optim_setting_place(&t.optim, s) = o->rule[i];
    }
    t.optim.weight_decay = o->weight_decay;
    t.optim.clip = o->clip;
    t.optim.decay_share = o->decay_share;
    return t;
}
