/* SPDX-License-Identifier: MIT */
/* tests/sync/test_coding_memory.c - what a plan counts of a device's memory for compression is what a run takes of it.
 *
 *   run without compression ──► bytes in use on each rank's device ─┐
 *   the same run with it    ──► bytes in use ───────────────────────┴─ difference ──► sync_mode_coding_bytes()
 *
 * The plan's figure leaves out that each tensor's part begins where a view may begin, which of tensors as small as
 * these is some hundredths, and words of a few bytes. */
#include "host/compress/compressor.h"
#include "host/sync/traffic.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/sync/replicas.h"

#include <math.h>
#include <stdlib.h>

typedef struct taken {
    replicas *j;
    uint64_t used[REPLICAS_MOST];
    sync_volume volume;                 /* rank 0's                                         */
} taken;

/* Made ready to train, which is when all of it is there. */
static gt_status body(net_comm *c, void *context)
{
    taken *k = context;
    const int rank = net_comm_rank(c);
    train_options o = k->j->o;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &k->j->plan;
    gt_status st = dev_open(&d, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = tiny_create(&t, d, &replicas_model, &o);
    if (!st)
        k->used[rank] = dev_memory_used(d);
    for (int i = 0; !st && !rank && i < params_count(t->params); i++)
        sync_volume_add(&k->volume, &o.compress, params_info(t->params, i));
    train_release(t);
    dev_close(d);
    return st;
}

static int take_ready(taken *k, replicas *j, int ranks, const char *mode, const compress_spec *c)
{
    *j = (replicas){ .o = tiny_options() };
    *k = (taken){ .j = j };
    j->o.gemm = "native";
    j->o.whole_tables = 1;
    j->o.compress = *c;
    if (c->momentum > 0.0) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    replicas_model = tiny_config();
    return replicas_plan(&j->plan, ranks, mode) && CHECK_OK(ranks_run(ranks, "algorithm=direct", body, k));
}

static void what_is_planned_is_taken(void)
{
    static const char *const specs[] = {
        "bf16",
        "fp16",
        "int8,min=16",
        "topk:0.05,min=16",
        "topk:0.05,min=16,ramp=3",
        "topk:0.05,min=16,momentum=0.5",
        "randomk:0.1",
        "powersgd:2,rate=0",
        "onebit",
        "onebit,server=0",
        "zeroone:2,freeze=20,local=4",
        "demo:16"
    };
    for (int ranks = 2; ranks <= (check_tiny() ? 2 : REPLICAS_MOST); ranks++)
        for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
            for (int m = 0; m < 2; m++) {
                replicas j;
                taken with, without;
                compress_spec c;
                const sync_mode *mode = sync_mode_at(m);
                if (!CHECK_OK(compress_parse(&c, specs[i])))
                    return;
                compress_spec none = { .momentum = c.momentum };
                if (!sync_mode_compresses(mode) || (c.how->moments && !sync_mode_holds_all(mode)))
                    continue;
                c.after = (uint64_t)c.how->warms_up;
                if (!take_ready(&without, &j, ranks, sync_mode_name(mode), &none))
                    return;
                replicas_release(&j);
                if (!take_ready(&with, &j, ranks, sync_mode_name(mode), &c))
                    return;
                replicas_release(&j);
                const double want = sync_mode_coding_bytes(mode, &c, &with.volume, ranks);
                /* Sums that are encoded again are dealt out by whole chunks, of which there are few here. */
                const int dealt = c.how->serves && c.server != 0.0 && ranks > 2;
                double sum = 0.0;
                for (int r = 0; r < ranks; r++) {
                    const double more = (double)with.used[r] - (double)without.used[r];
                    sum += more;
                    CHECKF(dealt || fabs(more / want - 1.0) < 0.06,
                           "%d ranks, %s, %s, rank %d: %.0f bytes, planned %.0f", ranks, sync_mode_name(mode), specs[i],
                           r, more, want);
                }
                CHECKF(want > 0.0 && fabs(sum / ranks / want - 1.0) < 0.06,
                       "%d ranks, %s, %s: %.0f bytes, planned %.0f", ranks, sync_mode_name(mode), specs[i], sum / ranks,
                       want);
            }
}

const check_case check_cases[] = { CASE(what_is_planned_is_taken), { 0 } };
