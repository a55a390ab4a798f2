/* SPDX-License-Identifier: MIT */
/* tests/sync/test_compress_choice.c - what compressors take of a device, and which one a link has because of it.
 *
 * Links of known numbers give choices that can be worked out by hand; ranks as threads, whose group is given such
 * links instead of measured ones, must all take the same. */
#include "host/sync/compress_choice.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 1 << 16 };

/* Bytes a value are known; times are not, but that there are some. */
static void every_compressor_is_measured(void)
{
    static const struct {
        const char *spec;
        double bytes, error;
        int gathers, scatters, rounds;
    } cases[] = { { "none", 4.0, 0.0, 0, 1, 1 },
                  { "bf16", 2.0, 0.0, 0, 1, 1 },
                  { "fp16", 2.0, 0.0, 0, 1, 1 },
                  { "int8", 1.0 + 4.0 / 128.0, 0.0, 1, 0, 1 },
                  { "topk:0.01", 0.01 * 6.0, 0.001, 1, 0, 1 },
                  { "randomk:0.1", 0.1 * 4.0, 0.001, 0, 0, 1 },
                  /* Two factors of a tensor of 64 rows and 1024 columns. */
                  { "powersgd:4", 4.0 * (64.0 + 1024.0) * 4.0 / (double)VALUES, 0.001, 0, 0, 2 } };
    dev_device *d = NULL;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        compress_spec c;
        compress_rate r;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)) || !CHECK_OK(compress_rate_measure(&r, d, &c, VALUES)))
            continue;
        CHECKF(fabs(r.bytes - cases[i].bytes) <= cases[i].error, "%s: %g bytes a value", cases[i].spec, r.bytes);
        CHECKF(r.gathers == cases[i].gathers && r.scatters == cases[i].scatters && r.rounds == cases[i].rounds,
               "%s: %d %d %d", cases[i].spec, r.gathers, r.scatters, r.rounds);
        CHECKF(i ? r.encode > 0.0 && r.decode > 0.0 && r.encode < 1e-4 : r.encode == 0.0 && r.decode == 0.0,
               "%s: %g and %g s a value", cases[i].spec, r.encode, r.decode);
        CHECK(fabs(compress_rate_seconds(&r, 10.0, 3) - 10.0 * (r.encode + r.decode * (r.gathers ? 3 : 1))) < 1e-12);
    }
    compress_spec few;
    compress_rate r;
    if (CHECK_OK(compress_parse(&few, "int8,min=100000")))
        CHECK_FAILS(compress_rate_measure(&r, d, &few, VALUES), GT_MISUSE, "leaves them as they are");
    if (CHECK_OK(compress_parse(&few, "bf16")))
        CHECK_FAILS(compress_rate_measure(&r, d, &few, 1000), GT_MISUSE, "multiples of 4096");
    dev_close(d);
}

/* ---- arithmetic ------------------------------------------------------------------------------- */

/* Links of so many bytes a second, and nothing else that takes time. */
static gt_status links_of(net_link_matrix *m, int ranks, double bandwidth)
{
    RANK_OK(net_links_create(m, ranks));
    for (int i = 0; i < ranks * ranks; i++)
        m->bandwidth[i] = bandwidth;
    for (int i = 0; i < ranks; i++) {
        m->uplink[i] = bandwidth;
        m->host[i] = (uint64_t)i;
    }
    return GT_OK;
}

static int near(double x, double want)
{
    return fabs(x - want) <= 1e-3 * want;
}

/* A million values between two ranks at 12.5 MB/s (100 Mbit/s): each sends a half and gets the sum of the other half,
 * 4 bytes a value in all; int8 sends its own encoding once. */
static void seconds_are_bytes_over_bandwidth(void)
{
    const compress_rate none = { .bytes = 4.0, .scatters = 1, .rounds = 1 };
    const compress_rate bf16 = { .encode = 1e-9, .decode = 2e-9, .bytes = 2.0, .scatters = 1, .rounds = 1 };
    const compress_rate int8 = { .encode = 4e-9, .decode = 1e-9, .bytes = 1.03125, .gathers = 1, .rounds = 1 };
    const compress_rate factors = { .encode = 5e-9, .decode = 5e-9, .bytes = 0.1, .rounds = 2 };
    const double n = 1e6, slow = 12.5e6;
    net_link_matrix m;
    if (!CHECK_OK(links_of(&m, 2, slow)))
        return;
    const sync_expected e[] = { sync_compress_expect(&m, &none, n, 0.0, 0), sync_compress_expect(&m, &bf16, n, 0.0, 0),
                                sync_compress_expect(&m, &int8, n, 0.0, 0) };
    CHECKF(near(e[0].network, 4.0 * n / slow) && e[0].device == 0.0, "%g", e[0].network);
    CHECKF(near(e[1].network, 2.0 * n / slow) && near(e[1].device, 3e-3), "%g %g", e[1].network, e[1].device);
    CHECKF(near(e[2].network, 1.03125 * n / slow) && near(e[2].device, 6e-3), "%g %g", e[2].network, e[2].device);
    CHECK(sync_link_choose(e, 3) == 2);
    /* What is left as it is goes as it is. */
    const sync_expected part = sync_compress_expect(&m, &int8, 0.75 * n, 0.25 * n, 0);
    CHECKF(near(part.network, (0.75 * 1.03125 + 0.25 * 4.0) * n / slow) && near(part.device, 4.5e-3), "%g",
           part.network);
    /* Where ranks update parts: half of the sums come to each, and the other half's new weights. */
    const sync_expected shared = sync_compress_expect(&m, &bf16, n, 0.0, 1);
    CHECKF(near(shared.network, (1.0 + 2.0) * n / slow), "%g", shared.network);
    const sync_expected gathered = sync_compress_expect(&m, &int8, n, 0.0, 1);
    CHECKF(near(gathered.network, (1.03125 + 2.0) * n / slow), "%g", gathered.network);
    /* Two rounds of half the bytes each. */
    CHECK(near(sync_compress_expect(&m, &factors, n, 0.0, 0).network, 0.1 * n / slow));
    net_links_release(&m);
    /* At 10 GB/s the devices take longer than the network. */
    if (!CHECK_OK(links_of(&m, 2, 1e10)))
        return;
    const sync_expected fast[] = { sync_compress_expect(&m, &none, n, 0.0, 0),
                                   sync_compress_expect(&m, &bf16, n, 0.0, 0),
                                   sync_compress_expect(&m, &int8, n, 0.0, 0) };
    CHECK(near(fast[0].network, 4e-4) && sync_link_choose(fast, 3) == 0);
    net_links_release(&m);
    /* 16 ranks: every rank gets 15 encodings, which is more than bf16's sums. */
    if (!CHECK_OK(links_of(&m, 16, slow)))
        return;
    const sync_expected many[] = { sync_compress_expect(&m, &none, n, 0.0, 0),
                                   sync_compress_expect(&m, &bf16, n, 0.0, 0),
                                   sync_compress_expect(&m, &int8, n, 0.0, 0) };
    CHECK(near(many[2].network, 15.0 * 1.03125 * n / slow) && near(many[2].device, 20e-3));
    CHECK(sync_link_choose(many, 3) == 1);
    net_links_release(&m);
}

static void little_is_not_worth_rounding(void)
{
    static const sync_expected close[] = { { 1.0, 0.0 }, { 0.5, 0.46 } }, less[] = { { 1.0, 0.0 }, { 0.5, 0.44 } };
    static const sync_expected three[] = { { 1.0, 0.0 }, { 0.6, 0.2 }, { 0.5, 0.27 } };
    static const sync_expected last[] = { { 1.0, 0.0 }, { 0.6, 0.2 }, { 0.5, 0.25 } };
    CHECK(sync_link_choose(close, 2) == 0 && sync_link_choose(less, 2) == 1);
    CHECK(sync_link_choose(three, 3) == 1 && sync_link_choose(last, 3) == 2);
    CHECK(sync_link_choose(close, 1) == 0);
}

static void candidates_are_named(void)
{
    sync_candidates c;
    CHECK(sync_compress_is_auto("auto") && sync_compress_is_auto("auto:bf16") && !sync_compress_is_auto("automatic"));
    CHECK(!sync_compress_is_auto("none"));
    CHECK(CHECK_OK(sync_candidates_parse(&c, "auto")) && c.count == 3 && !strcmp(c.text[0], "none"));
    CHECK(!strcmp(c.text[1], "bf16") && !strcmp(c.text[2], "int8"));
    CHECK(CHECK_OK(sync_candidates_parse(&c, "auto:int8,topk:0.01,momentum=0.5,ramp=3,powersgd:4")) && c.count == 4);
    CHECK(!strcmp(c.text[2], "topk:0.01,momentum=0.5,ramp=3") && c.of[2].momentum == 0.5 && c.of[2].ramp == 3.0);
    CHECK(!strcmp(c.text[3], "powersgd:4") && c.of[3].parameter == 4.0);
    CHECK(CHECK_OK(sync_candidates_parse(&c, "auto:none,bf16")) && c.count == 2);
    CHECK_FAILS(sync_candidates_parse(&c, "auto:"), GT_MISUSE, "names nothing to choose among");
    CHECK_FAILS(sync_candidates_parse(&c, "auto:bf16,zip"), GT_MISUSE, "'zip' is not one of");
    CHECK_FAILS(sync_candidates_parse(&c, "auto:topk"), GT_MISUSE, "needs its FRACTION");
    CHECK_FAILS(sync_candidates_parse(&c, "auto:bf16,fp16,int8,bf16,fp16,int8,bf16,fp16"), GT_MISUSE,
                "8 compressors at most");
}

/* ---- all ranks ---------------------------------------------------------------------------------- */

enum { RANKS = 2 };
typedef struct meeting {
    double bandwidth;                   /* of the group's links                             */
    const char *spec, *known;           /* known: what a run before had; NULL: nothing      */
    int all_know;                       /* 0: rank 0 alone does                             */
    char form[RANKS][SYNC_NAMES], text[RANKS][256];
} meeting;

static const char *tell_known(void *context, const int *rank, int ranks)
{
    const meeting *w = context;
    return ranks == RANKS && rank[0] == 0 && rank[1] == 1 ? w->known : NULL;
}

static gt_status meet(net_comm *c, void *context)
{
    meeting *w = context;
    const int me = net_comm_rank(c);
    const model_config config = tiny_config();
    dev_device *d = NULL;
    graph *g = NULL;
    sync_holders *h = NULL;
    params *p = NULL;
    sync_choice *choice = NULL;
    sync_candidates candidates;
    net_link_matrix m;
    RANK_OK(sync_candidates_parse(&candidates, w->spec));
    RANK_OK(tiny_open(&d));
    RANK_OK(graph_create(&g, DTYPE_F32, 1, TINY_T));
    RANK_OK(model_build_loss(g, &config, 1, 0));
    const graph *graphs[] = { g };
    RANK_OK(sync_holders_find(&h, c, d, graphs, 1, me));
    const params_grouping how = sync_holders_grouping(h, 0);
    RANK_OK(params_create_grouped(&p, d, graphs, 1, &how, 1));
    RANK_CHECK(sync_holders_groups(h) == 1);
    RANK_OK(links_of(&m, RANKS, w->bandwidth));
    RANK_OK(net_group_links_set(sync_holders_net(h, 0), &m));
    const sync_choice_options o = {
        .candidates = &candidates,
        .mode = sync_mode_at(0),
        .holders = h,
        .params = p,
        .device = d,
        .comm = c,
        .after = 5,
        .known = w->known && (w->all_know || !me) ? tell_known : NULL,
        .context = w
    };
    RANK_OK(sync_choice_make(&choice, &o));
    RANK_CHECK(choice->links == 1 && choice->link[0].ranks == RANKS && choice->link[0].group == 0);
    RANK_CHECK(sync_choice_of(choice, 0).after == 5);
    RANK_CHECK(!compress_changes(&(compress_spec){ .how = sync_choice_of(choice, 7).how }));
    snprintf(w->form[me], sizeof w->form[me], "%s", choice->link[0].form);
    sync_link_text(&choice->link[0], (const char(*)[SYNC_NAMES])candidates.text, candidates.count, w->text[me],
                   sizeof w->text[me]);
    sync_choice_release(choice);
    net_links_release(&m);
    params_release(p);
    sync_holders_release(h);
    graph_release(g);
    dev_close(d);
    return GT_OK;
}

static void comes_to(meeting *w, const char *form, const char *text)
{
    if (!CHECK_OK(ranks_run(RANKS, "transport=shm", meet, w)))
        return;
    CHECKF(!strcmp(w->form[0], form) && !strcmp(w->form[1], form), "%s and %s", w->form[0], w->form[1]);
    CHECKF(strstr(w->text[0], text) != NULL && !strcmp(w->text[0], w->text[1]), "%s", w->text[0]);
}

static void all_ranks_take_the_same(void)
{
    comes_to(&(meeting){ .bandwidth = 1e3, .spec = "auto:bf16,topk:0.01" }, "topk:0.01", "ranks 0 1: topk:0.01, ");
    comes_to(&(meeting){ .bandwidth = 1e3, .spec = "auto" }, "int8", " ms a step instead of ");
    comes_to(&(meeting){ .bandwidth = 1e15, .spec = "auto" }, "none", "; bf16 ");
}

static void what_all_know_is_taken(void)
{
    comes_to(&(meeting){ .bandwidth = 1e15, .spec = "auto", .known = "bf16", .all_know = 1 }, "bf16",
             "ranks 0 1: bf16, as the run began");
    comes_to(&(meeting){ .bandwidth = 1e15, .spec = "auto", .known = "bf16" }, "none", " ms a step");
    comes_to(&(meeting){ .bandwidth = 1e15, .spec = "auto", .known = "zip", .all_know = 1 }, "none", " ms a step");
}

const check_case check_cases[] = {
    CASE(every_compressor_is_measured),
    CASE(seconds_are_bytes_over_bandwidth),
    CASE(little_is_not_worth_rounding),
    CASE(candidates_are_named),
    CASE(all_ranks_take_the_same),
    CASE(what_all_know_is_taken),
    { 0 }
};
