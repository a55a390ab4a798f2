/* SPDX-License-Identifier: MIT */
/* tests/pipeline/test_stage_choice.c - in what form each two neighbours of a pipeline send, because of what.
 *
 * Ranks as threads are given links of known bandwidths instead of measured ones: of a replica of three stages one link
 * is slow and one fast, beside a replica of one. All must come to the same, and to seconds that can be worked out. */
#include "host/pipeline/stage_choice.h"
#include "net/collective/cost.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is(const stage_forms *f, int count, const wire_kind *k)
{
    return f->count == count && !memcmp(f->kind, k, (size_t)count * sizeof *k);
}

static void forms_are_named_or_bounded(void)
{
    stage_forms f;
    CHECK(CHECK_OK(stage_forms_parse(&f, "none")) && is(&f, 1, (wire_kind[]){ WIRE_AS_IT_IS }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "int8")) && is(&f, 1, (wire_kind[]){ WIRE_INT8 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto"))
          && is(&f, 4, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_FP16, WIRE_BF16, WIRE_INT8 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto:0.004"))
          && is(&f, 3, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_FP16, WIRE_BF16 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto:0.002")) && is(&f, 2, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_FP16 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto:int8,bf16"))
          && is(&f, 3, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_INT8, WIRE_BF16 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto:int8,bf16,0.005"))
          && is(&f, 2, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_BF16 }));
    CHECK(CHECK_OK(stage_forms_parse(&f, "auto:none,bf16,bf16"))
          && is(&f, 2, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_BF16 }));
    CHECK_FAILS(stage_forms_parse(&f, "fp4"), GT_MISUSE, "'fp4' is not one of none|bf16|fp16|int8|auto");
    CHECK_FAILS(stage_forms_parse(&f, "auto:bf16,fp4"), GT_MISUSE, "'fp4' is not one of");
    CHECK_FAILS(stage_forms_parse(&f, "auto:"), GT_MISUSE, "names nothing to choose among");
    CHECK_FAILS(stage_forms_parse(&f, "auto:none"), GT_MISUSE, "leaves nothing to choose among");
    CHECK_FAILS(stage_forms_parse(&f, "auto:0.0001"), GT_MISUSE, "leaves nothing to choose among");
    CHECK_FAILS(stage_forms_parse(&f, "auto:int8,0.001"), GT_MISUSE, "leaves nothing to choose among");
    CHECK_FAILS(stage_forms_parse(&f, "auto:0"), GT_MISUSE, "'0' is no bound of errors");
    CHECK_FAILS(stage_forms_parse(&f, "auto:nan"), GT_MISUSE, "'nan' is no bound of errors");
    CHECK_FAILS(stage_forms_parse(&f, "auto:bf16,,int8"), GT_MISUSE, "is not one of");
}

static void sixteen_bits_get_no_shorter_in_sixteen(void)
{
    stage_forms f;
    CHECK_OK(stage_forms_parse(&f, "auto"));
    CHECK(CHECK_OK(stage_forms_narrow(&f, "auto", DTYPE_F32)) && f.count == 4);
    CHECK(CHECK_OK(stage_forms_narrow(&f, "auto", DTYPE_BF16)) && is(&f, 2, (wire_kind[]){ WIRE_AS_IT_IS, WIRE_INT8 }));
    CHECK_OK(stage_forms_parse(&f, "auto:0.004"));
    CHECK_FAILS(stage_forms_narrow(&f, "auto:0.004", DTYPE_F16), GT_MISUSE, "leave out --compress-stages auto:0.004");
    CHECK_OK(stage_forms_parse(&f, "bf16"));
    CHECK_FAILS(stage_forms_narrow(&f, "bf16", DTYPE_BF16), GT_MISUSE, "or take int8");
    CHECK_OK(stage_forms_parse(&f, "none"));
    CHECK(CHECK_OK(stage_forms_narrow(&f, "none", DTYPE_BF16)) && f.count == 1);
}

/* Bytes as the table of stage_wire.h says; times are not known, but that there are some. */
static void rates_are_measured(void)
{
    static const double bytes[WIRE_KINDS] = { 4.0, 2.0, 2.0 + 1.0 / 32.0, 1.0 + 1.0 / 32.0 };
    dev_device *d = NULL;
    wire_rate r;
    if (!CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (int k = 0; k < WIRE_KINDS; k++) {
        if (!CHECK_OK(wire_rate_measure(&r, d, (wire_kind)k, DTYPE_F32, 4096)))
            continue;
        CHECKF(fabs(r.bytes - bytes[k]) < 1e-9 && r.bytes == wire_kind_bytes((wire_kind)k, DTYPE_F32), "%g", r.bytes);
        CHECKF(k ? r.encode > 0.0 && r.decode > 0.0 && r.encode < 1e-3 : r.encode == 0.0 && r.decode == 0.0, "%g %g",
               r.encode, r.decode);
    }
    CHECK(CHECK_OK(wire_rate_measure(&r, d, WIRE_INT8, DTYPE_BF16, 4096)) && fabs(r.bytes - bytes[WIRE_INT8]) < 1e-9);
    dev_close(d);
}

enum { RANKS = 4, LINKS = 2, MICROS = 3 };
typedef struct meeting {
    const char *spec;
    double slow, fast;                  /* of ranks 0 and 1, and of all others                 */
    const char *before[LINKS];          /* forms that a plan says; NULL: nothing               */
    char form[RANKS][LINKS][SYNC_NAMES];
    sync_expected expected[LINKS][SYNC_CANDIDATES];
    double values[LINKS];
} meeting;

/* Three stages and one. */
static int make_plan(run_plan *p, const meeting *w)
{
    static const tiny_replica replicas[] = { { 3, MICROS, 1 }, { 1, 1, 1 } };
    if (!tiny_plan(p, 4, MICROS + 1, "1f1b", "allreduce", replicas, 2, 1))
        return 0;
    run_plan_forms(p, "", w->spec);
    for (int i = 0; i < LINKS; i++)
        if (w->before[i] && !CHECK_OK(run_plan_stage_link(p, i, i + 1, w->before[i])))
            return 0;
    return 1;
}

static gt_status meet(net_comm *c, void *context)
{
    meeting *w = context;
    const int me = net_comm_rank(c);
    const model_config config = tiny_config();
    const stage_model model = { &config, model_build_config, DTYPE_F32, TINY_T, WIRE_AS_IT_IS };
    run_plan plan = { 0 };
    stage_forms f;
    dev_device *d = NULL;
    stage *s = NULL;
    stage_choice *choice = NULL;
    net_link_matrix m;
    RANK_CHECK(make_plan(&plan, w));
    RANK_OK(tiny_open(&d));
    RANK_OK(stage_forms_parse(&f, w->spec));
    RANK_OK(stage_build(&s, &plan, me, c, &model, 1));
    RANK_OK(net_links_create(&m, RANKS));
    for (int i = 0; i < RANKS * RANKS; i++)
        m.bandwidth[i] = i / RANKS + i % RANKS == 1 ? w->slow : w->fast;
    RANK_OK(net_group_links_set(net_group_world(c), &m));
    RANK_OK(stage_choice_make(&choice, &f, &plan, s, d, c));
    RANK_CHECK(choice->links == LINKS && plan.stage_links == LINKS);
    for (int i = 0; i < LINKS; i++) {
        const sync_link *l = &choice->link[i];
        RANK_CHECK(l->ranks == 2 && l->rank[0] == i && l->rank[1] == i + 1);
        RANK_CHECK(!strcmp(run_plan_stage_form(&plan, i, i + 1), l->form));
        snprintf(w->form[me][i], SYNC_NAMES, "%s", l->form);
        if (me == 0) {
            memcpy(w->expected[i], l->expected, sizeof l->expected);
            w->values[i] = l->values;
        }
    }
    stage_choice_release(choice);
    net_links_release(&m);
    stage_release(s);
    run_plan_release(&plan);
    dev_close(d);
    return GT_OK;
}

static void comes_to(meeting *w, const char *first, const char *second)
{
    if (!CHECK_OK(ranks_run(RANKS, "transport=shm", meet, w)))
        return;
    for (int r = 0; r < RANKS; r++)
        CHECKF(!strcmp(w->form[r][0], first) && !strcmp(w->form[r][1], second), "rank %d: %s, %s", r, w->form[r][0],
               w->form[r][1]);
}

/* Three micro-batches of TINY_T x TINY_C values, there and back. */
static void a_slow_link_has_fewer_bytes_and_a_fast_one_none(void)
{
    meeting w = { .spec = "auto", .slow = 1e3, .fast = 1e15 };
    comes_to(&w, "int8", "none");
    const double values = 2.0 * MICROS * TINY_T * tiny_config().channels;
    CHECKF(w.values[0] == values && w.values[1] == values, "%g values", w.values[0]);
    CHECKF(fabs(w.expected[0][0].network / (4.0 * values / 1e3) - 1.0) < 1e-9, "%g s", w.expected[0][0].network);
    CHECK(fabs(w.expected[0][2].network / (2.0 * values / 1e3) - 1.0) < 1e-9);
    CHECK(w.expected[0][0].device == 0.0 && w.expected[0][3].device > 0.0);
}

static void bounds_of_errors_hold(void)
{
    comes_to(&(meeting){ .spec = "auto:0.004", .slow = 1e3, .fast = 1e3 }, "fp16", "fp16");
    comes_to(&(meeting){ .spec = "auto:bf16", .slow = 1e3, .fast = 1e15 }, "bf16", "none");
}

static void what_all_know_is_taken(void)
{
    comes_to(&(meeting){ .spec = "auto", .slow = 1e15, .fast = 1e15, .before = { "int8", "fp16" } }, "int8", "fp16");
}

const check_case check_cases[] = {
    CASE(forms_are_named_or_bounded),
    CASE(sixteen_bits_get_no_shorter_in_sixteen),
    CASE(rates_are_measured),
    CASE(a_slow_link_has_fewer_bytes_and_a_fast_one_none),
    CASE(bounds_of_errors_hold),
    CASE(what_all_know_is_taken),
    { 0 }
};
