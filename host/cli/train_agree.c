/* SPDX-License-Identifier: MIT */
/* host/cli/train_agree.c - what a rank was told, as lines "name <tab> value", compared with rank 0's.
 *
 * Options that ranks may differ in are listed, not those they must share: one that is forgotten
 * here is compared, and the mistake shows. Tokens come before the model, whose vocabulary may
 * follow from them. */
#include "host/cli/train_agree.h"

#include "host/base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Where files lie, what drives a rank, and how it speaks; what rank 0 alone does. --model and --data are compared by what
 * came of them; the plan is rank 0's. */
static int may_differ(const char *name)
{
    static const char *const names[] = {
        "model",   "data",  "eval-data",     "tokenizer",     "from",          "out",
        "devices", "ranks", "plan",          "transport",     "net",           "print-config",
        "gemm",    "json",  "chat-template", "sample-prompt", "sample-tokens", "sample-temperature",
        "tune"
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return 0;
}

static void put_option(void *lines, const gt_option *row, const char *value)
{
    if (!may_differ(row->name))
        gt_text_printf(lines, "--%s\t%s\n", row->name, *value ? value : "not given");
}

static void put_tokens(gt_text *lines, const char *what, const token_split *s)
{
    gt_text_printf(lines, "the number of %s tokens\t%" PRIu64 "\n", what, s ? s->count : 0);
    gt_text_printf(lines, "the checksum of the %s tokens\t%016" PRIx64 "\n", what, s ? token_split_hash(s) : 0);
}

static void put_model(void *lines, const char *key, const char *value)
{
    gt_text_printf(lines, "the model's %s\t%s\n", key, value);
}

/* Both have the same names in the same order: joining the job compares versions. */
static gt_status compare(net_comm *c, int rank, const char *first, const char *other)
{
    char who[256];
    while (*first && *other) {
        const size_t a = strcspn(first, "\n"), b = strcspn(other, "\n");
        if (a != b || memcmp(first, other, a)) {
            const size_t name = strcspn(first, "\t"), its = strcspn(other, "\t");
            if (name >= a || its >= b)
                break;
            return gt_fail(GT_MISMATCH,
                           "the ranks would not train the same: %.*s is %.*s on rank 0, but "
                           "%.*s on %s; start all ranks with the same options, data and model",
                           (int)name, first, (int)(a - name - 1), first + name + 1, (int)(b - its - 1), other + its + 1,
                           net_job_name(net_comm_job(c), rank, who, sizeof who));
        }
        first += a + (first[a] == '\n');
        other += b + (other[b] == '\n');
    }
    return *first == *other ? GT_OK : gt_fail(GT_MISMATCH, "rank %d was told other things than rank 0", rank);
}

gt_status train_agree(net_comm *c, const gt_option *table, const model_config *model, const token_split *train,
                      const token_split *val)
{
    gt_text mine = { 0 };
    net_blobs all;
    gt_options_each(table, put_option, &mine);
    put_tokens(&mine, "training", train);
    put_tokens(&mine, "validation", val);
    model_config_each(model, MODEL_COMPUTES | MODEL_BEGINS | MODEL_DROPS, put_model, &mine);
    gt_text_put(&mine, "", 1); /* with the end of the text */
    gt_status st = mine.failed ? gt_fail(GT_NO_MEMORY, "cannot compare the ranks: no memory for their settings as text")
                               : net_job_exchange(net_comm_job(c), "what is trained", mine.data, mine.size, &all);
    gt_text_release(&mine);
    if (st)
        return st;
    for (int rank = 0; !st && rank < all.count; rank++) {
        if (!all.size[rank] || all.data[rank][all.size[rank] - 1])
            st = gt_fail(GT_PEER, "rank %d does not say what it trains", rank);
        else
            st = compare(c, rank, (const char *)all.data[0], (const char *)all.data[rank]);
    }
    net_blobs_release(&all);
    return st;
}
