/* SPDX-License-Identifier: MIT */
/* host/cli/verb_plan.c - what would run where, how fast, and why.
 *
 *   plan --model M                    devices that are here, measured: one rank each (plan_local.h)
 *   plan --model M --cluster FILE     devices that need not be here, described (plan_cluster.c)
 *   plan ... --compare                ways of staying together, side by side (plan_compare.c)
 *
 * --out writes the plan that `train --plan FILE` follows to the letter; a cluster file's devices are
 * its ranks, in their order.                                                              */
#include "host/cli/busy.h"
#include "host/cli/choices.h"
#include "host/cli/cli.h"
#include "host/cli/plan_show.h"
#include "host/cli/rank_device.h"
#include "host/cli/sync_rows.h"
#include "host/pipeline/stage_choice.h"
#include "host/sync/compress_choice.h"

#include "host/base/text.h"
#include "host/sync/sync.h"
#include "models/lora.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct {
    const char *model, *cluster, *precision, *timeline, *devices, *out, *schedule, *sync, *optimizer;
    const char *stages, *replicas, *tensor, *micro_batch, *compress, *compress_stages;
    uint64_t batch, seq, compress_after;
    int json, recompute, again, compare;
    sync_rows sync_text;                /* options of ways to stay together                 */
    sync_settings sync_settings;        /* what they come to                                */
    unsigned sync_fixed;
    cli_tuning_options tuning;
    cli_comm comm;
} o = { .tuning.alpha = NAN,
        .batch = 512,
        .schedule = "auto",
        .stages = "auto",
        .replicas = "auto",
        .tensor = "auto",
        .micro_batch = "auto",
        .compress_stages = "none" };

enum { ROWS = 80 };
static gt_option table[ROWS];           /* front, the options of ways to stay together, last */

static const gt_option front[] = {
    { .group = "What to plan" },
    { "model", 'm', GT_STRING, "NAME|FILE", "what to train", &o.model, 0, NULL },
    { "cluster", 'c', GT_STRING, "FILE", "devices and links, which need not be here", &o.cluster, 0, NULL },
    { "batch", 'b', GT_U64, "N", "sequences a step", &o.batch, 0, NULL },
    { "seq", 't', GT_U64, "T", "tokens a sequence, 0: the model's context", &o.seq, 0, NULL },
    { "precision", 0, GT_CHOICE, cli_precisions, "storage", &o.precision, 0, NULL },
    { "optimizer", 0, GT_CHOICE, cli_rules, "update rule to plan for", &o.optimizer, 0, NULL },
    { .group = "What is trained" },
    { "freeze", 0, GT_STRING, "PATTERN,..", "tensors that stay as they are, as 'wte.*,h.0.*'", &o.tuning.freeze, 0,
      NULL },
    { "lora", 0, GT_INT, "R", "adapters of rank R, and nothing else; 0: the model itself", &o.tuning.rank, 0, NULL },
    { "lora-targets", 0, GT_STRING, "PATTERN,..", "matrices that have one; default: the family's usual ones",
      &o.tuning.targets, 1, NULL },
    { "dora", 0, GT_FLAG, NULL, "magnitudes of the adapted columns trained apart", &o.tuning.dora, 1, NULL },
    { "base-precision", 0, GT_CHOICE, "fp32|bf16|int8", "storage of frozen matrices; default: --precision",
      &o.tuning.base_precision, 0, NULL },
    { .group = "Devices that are here" },
    { "devices", 0, GT_STRING, "ID,...", "ids from `geartrain devices`; one rank each", &o.devices, 0, NULL },
    { "stages", 0, GT_STRING, "N|auto", "pipeline stages of every replica", &o.stages, 0, NULL },
    { "replicas", 0, GT_STRING, "N|auto", "copies of the model", &o.replicas, 0, NULL },
    { "tensor", 0, GT_STRING, "N|auto", "ranks that split every layer; auto: if memory is short", &o.tensor, 0, NULL },
    { "schedule", 0, GT_CHOICE, cli_schedules, "order of a pipeline", &o.schedule, 0, NULL },
    { "micro-batch", 0, GT_STRING, "N|auto", "sequences at once", &o.micro_batch, 0, NULL },
    { "recompute", 0, GT_FLAG, NULL, "activations computed again; else if memory is short", &o.recompute, 0, NULL },
    { "again", 0, GT_FLAG, NULL, "measure what was measured before", &o.again, 0, NULL },
    { .group = "Staying together" },
    { "compare", 0, GT_FLAG, NULL, "all ways side by side: time to equal tokens, bytes, memory", &o.compare, 0, NULL },
    { "sync", 0, GT_CHOICE, cli_syncs, "how ranks agree", &o.sync, 0, NULL },
    { "compress", 0, GT_STRING, "SPEC", "between ranks: none, auto or a form of train --help", &o.compress, 0, NULL },
    { "compress-after", 0, GT_U64, "N", "steps before it, in which they travel as they are", &o.compress_after, 1,
      NULL },
    { "compress-stages", 0, GT_STRING, "FORM", "between stages: none|bf16|fp16|int8|auto[:FORM,..,ERROR]",
      &o.compress_stages, 1, NULL },
};

static const gt_option last[] = {
    { .group = "Output" },
    { "out", 'o', GT_STRING, "FILE", "write the plan for `train --plan FILE`", &o.out, 0, NULL },
    { "timeline", 0, GT_STRING, "FILE", "an SVG picture of replica 0's step", &o.timeline, 0, NULL },
    { "json", 0, GT_FLAG, NULL, "one object", &o.json, 0, NULL },
    CLI_COMM_OPTIONS(o.comm),
    { 0 }
};

static const cli_help help = {
    "plan --model NAME [--devices LIST | --cluster FILE] [options]",
    "Say which device would hold which layers, how fast a step would be, and why.",
    "  geartrain plan --model gpt2-mini --devices cpu:0.0,cpu:0.1@0.25 --batch 16\n"
    "  geartrain plan --model gpt3-175b --cluster cluster.json --batch 1536 --precision bf16\n"
    "  geartrain plan --model gpt2-mini --devices cpu:0/2 --batch 16 --compare\n"
    "A cluster file:\n"
    "  { \"latency\": \"20us\", \"nodes\": [ { \"count\": 16, \"uplink\": \"25GB\", \"local\": \"200GB\",\n"
    "    \"devices\": [ { \"name\": \"A\", \"count\": 8, \"tflops\": 120, \"memory\": \"40GB\" } ] } ] }\n"
};

static model_config model;

static void make_table(void)
{
    size_t n = sizeof front / sizeof *front;
    memcpy(table, front, sizeof front);
    n += (size_t)sync_rows_make(&o.sync_text, &table[n]);
    assert(n + sizeof last / sizeof *last <= ROWS);
    memcpy(&table[n], last, sizeof last);
}

static plan_question question(void)
{
    plan_question q = {
        .model = &model,
        .batch = (int)o.batch,
        .seq = (int)(o.seq ? o.seq : (uint64_t)model.context),
        .json = o.json,
        .compare = o.compare,
        .sync = o.sync,
        .settings = &o.sync_settings,
        .compress = o.compress,
        .compress_stages = o.compress_stages,
        .compress_after = o.compress_after,
        .timeline = o.timeline,
        .out = o.out
    };
    dtype_parse(&q.storage, o.precision);
    q.optim = optim_defaults();
    optim_config_rule(&q.optim, optim_rule_find(o.optimizer));
    return q;
}

static gt_status local_options(plan_local_options *out)
{
    const plan_question q = question();
    *out = (plan_local_options){
        .model = plan_model_of(&model),
        .storage = q.storage,
        .batch = q.batch,
        .seq = q.seq,
        .schedule = o.schedule,
        .recompute = o.recompute ? 1 : -1,
        .sync = o.sync,
        .settings = &o.sync_settings,
        .compress = o.compress,
        .compress_after = o.compress_after,
        .compress_stages = o.compress_stages,
        .compare = o.compare,
        .optim = q.optim,
        .again = o.again
    };
    gt_status st = plan_local_number(&out->stages, "stages", o.stages);
    if (!st)
        st = plan_local_number(&out->replicas, "replicas", o.replicas);
    if (!st)
        st = plan_local_number(&out->tensor, "tensor", o.tensor);
    if (!st)
        st = plan_local_number(&out->micro_batch, "micro-batch", o.micro_batch);
    return st;
}

/* Every rank; rank 0 speaks. */
static gt_status plan_here(net_comm *c)
{
    dev_device *d = NULL;
    plan_local_options options;
    plan_local_result r = { 0 };
    if (!c)
        cli_busy_start();
    const plan_question q = question();
    gt_status st = !c && o.compare
                       ? gt_fail(GT_MISUSE, "option --compare: one rank has nobody to stay together with; name several "
                                            "devices with --devices, or describe some with --cluster")
                       : local_options(&options);
    if (!st)
        st = rank_device_open(&d, o.devices, c);
    if (!st)
        st = plan_local(&r, c, d, &options);
    if (!st && (!c || net_comm_rank(c) == 0)) {
        st = plan_show(&q, &r);
        if (!st && o.out)
            st = run_plan_write(&r.plan, o.out);
    }
    plan_local_release(&r);
    dev_close(d);
    return st;
}

/* What of the model is trained: the graphs that costs are counted or measured on follow. */
static gt_status take_tuning(void)
{
    const cli_tuning_options *t = &o.tuning;
    const cli_useless rules[] = {
        { "lora-targets", !t->rank, "it belongs to --lora" },
        { "dora", !t->rank, "it belongs to --lora" },
        { "base-precision", !t->rank && !t->freeze, "nothing is frozen without --lora or --freeze" },
    };
    gt_status st = cli_check_useless(table, rules, sizeof rules / sizeof *rules);
    if (!st)
        st = cli_tuning_take(&model.tuning, t, o.precision);
    return st ? st : lora_check(&model);
}

/* How ranks stay together, and what travels: as train takes it. */
static gt_status take_sync(void)
{
    compress_spec c = { 0 };
    sync_candidates all = { 0 };
    stage_forms between;
    const plan_question q = question();
    gt_status st = sync_rows_settle(&o.sync_text, table, o.sync, &o.sync_settings, &o.sync_fixed);
    if (st)
        return st;
    st = sync_compress_is_auto(o.compress) ? sync_candidates_parse(&all, o.compress) : compress_parse(&c, o.compress);
    if (st)
        return gt_fail_in(st, "option --compress");
    st = stage_forms_parse(&between, o.compress_stages);
    if (!st && (between.count > 1 || between.kind[0] != WIRE_AS_IT_IS))
        st = stage_forms_narrow(&between, o.compress_stages, q.storage);
    if (st)
        return gt_fail_in(st, "option --compress-stages");
    const int changes = all.count || compress_changes(&c);
    if (gt_option_given(table, "compress-after") && o.compress_after && !changes)
        st = gt_fail(GT_MISUSE, "option --compress-after: --compress %s compresses nothing", o.compress);
    if (!st && changes && !sync_mode_compresses(sync_mode_find(o.sync)))
        st = gt_fail(GT_MISUSE, "--sync %s sends what it sends as it is; leave out --compress %s", o.sync, o.compress);
    if (!st)
        st = sync_mode_allows(sync_mode_find(o.sync), &o.sync_settings, &q.optim, q.storage, &c);
    return st == GT_UNSUPPORTED ? gt_fail(GT_MISUSE, "%s", gt_message()) : st;
}

static gt_status check_options(void)
{
    plan_local_options options;
    if (o.batch < 1 || o.batch > 65535)
        return gt_fail(GT_MISUSE, "option --batch: %llu is not from 1 to 65535", (unsigned long long)o.batch);
    static const char *const here[] = { "devices",   "stages", "replicas", "tensor",    "schedule", "micro-batch",
                                        "recompute", "again",  "ranks",    "transport", "net" };
    for (size_t i = 0; o.cluster && i < sizeof here / sizeof *here; i++)
        if (gt_option_given(table, here[i]))
            return gt_fail(GT_MISUSE, "option --%s is for devices that are here; leave out --cluster", here[i]);
    gt_status st = model_config_load(&model, o.model);
    if (!st && !model.vocab)
        model.vocab = 256;
    if (!st && o.seq > (uint64_t)model.context)
        st = gt_fail(GT_MISUSE, "option --seq: the model's context is %d tokens", model.context);
    if (!st)
        st = take_tuning();
    if (!st)
        st = take_sync();
    return st ? st : local_options(&options);
}

static gt_status check_shares(int ranks)
{
    plan_local_options options;
    gt_status st = local_options(&options);
    return st ? st : plan_local_check(&options, ranks);
}

gt_status verb_plan(int argc, char **argv)
{
    char **words;
    int count, done;
    make_table();
    o.compress = compressor_name(compressor_at(0));
    o.sync = sync_mode_name(sync_mode_at(0));
    o.precision = dtype_name(DTYPE_F32);
    o.optimizer = optim_rule_name(optim_rules[0]);
    gt_status st = cli_parse(table, &help, argc, argv, &words, &count, &done);
    if (st || done)
        return st;
    if (count)
        return cli_no_words(words, &help);
    if (!o.model)
        return cli_missing(&help, "--model NAME|FILE");
    st = check_options();
    if (!st && o.cluster) {
        const plan_question q = question();
        return plan_cluster(&q, o.cluster);
    }
    if (!st)
        st = rank_device_count(o.devices, &o.comm.ranks);
    o.comm.may_be_alone = 1;
    o.comm.check = check_shares;
    return st ? st : cli_comm_run(&o.comm, argv, plan_here);
}
