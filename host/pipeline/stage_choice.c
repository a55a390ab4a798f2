/* SPDX-License-Identifier: MIT */
/* host/pipeline/stage_choice.c - see stage_choice.h. */
#include "host/pipeline/stage_choice.h"

#include "host/sync/compress_choice.h"
#include "net/collective/cost.h"
#include "net/job/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the choice of what stages send");
}

/* ---- forms ------------------------------------------------------------------------------------ */

static const wire_kind usual[] = { WIRE_FP16, WIRE_BF16, WIRE_INT8 };  /* in the order of their errors */
enum { USUAL = sizeof usual / sizeof *usual };

static int has(const stage_forms *f, wire_kind k)
{
    for (int i = 0; i < f->count; i++)
        if (f->kind[i] == k)
            return 1;
    return 0;
}

static gt_status no_form(const char *word, size_t length)
{
    char names[64] = "";
    for (int k = 0; k < WIRE_KINDS; k++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", k ? "|" : "",
                 wire_kind_name((wire_kind)k));
    return gt_fail(GT_MISUSE, "'%.*s' is not one of %s|auto", (int)length, word, names);
}

/* Behind 'auto:': names, and a bound of errors. */
static gt_status parse_list(stage_forms *out, double *bound, const char *at)
{
    while (*at) {
        const size_t n = strcspn(at, ",");
        char word[32], *end;
        wire_kind k;
        snprintf(word, sizeof word, "%.*s", (int)n, at);
        const double x = strtod(word, &end);
        if (n && n < sizeof word && wire_kind_find(&k, word)) {
            if (!has(out, k))
                out->kind[out->count++] = k;
        } else if (!n || n >= sizeof word || *end || end == word) {
            return no_form(at, n);
        } else if (!(x > 0.0 && x <= 1.0)) {
            return gt_fail(GT_MISUSE, "'%s' is no bound of errors, a number above 0 and at most 1", word);
        } else {
            *bound = x;
        }
        at += n + (at[n] == ',');
    }
    return GT_OK;
}

gt_status stage_forms_parse(stage_forms *out, const char *spec)
{
    double bound = INFINITY;
    *out = (stage_forms){ .count = 1 };
    if (strlen(spec) >= RUN_PLAN_FORM)
        return gt_fail(GT_MISUSE, "'%.32s...' is too long", spec);
    if (!sync_compress_is_auto(spec))
        return wire_kind_find(&out->kind[0], spec) ? GT_OK : no_form(spec, strlen(spec));
    const char *colon = strchr(spec, ':');
    if (colon && !colon[1])
        return gt_fail(GT_MISUSE, "'%s' names nothing to choose among", spec);
    gt_status st = colon ? parse_list(out, &bound, colon + 1) : GT_OK;
    const int open = out->count == 1 && (!colon || bound < INFINITY);       /* no form is named */
    for (int i = 0; !st && open && i < USUAL; i++)
        out->kind[out->count++] = usual[i];
    int left = 1;
    for (int i = 1; !st && i < out->count; i++)
        if (wire_kind_bound(out->kind[i]) <= bound)
            out->kind[left++] = out->kind[i];
    out->count = left;
    if (!st && left == 1)
        st = gt_fail(GT_MISUSE,
                     "'%s' leaves nothing to choose among: errors are at most %.3g with fp16, %.3g with bf16 "
                     "and %.3g with int8",
                     spec, wire_kind_bound(WIRE_FP16), wire_kind_bound(WIRE_BF16), wire_kind_bound(WIRE_INT8));
    return st;
}

gt_status stage_forms_narrow(stage_forms *f, const char *spec, dtype type)
{
    const int several = f->count > 1;
    int left = several;
    for (int i = several; i < f->count; i++)
        if (wire_kind_shortens(f->kind[i], type) || f->kind[i] == WIRE_AS_IT_IS)
            f->kind[left++] = f->kind[i];
    if (left > several) {
        f->count = left;
        return GT_OK;
    }
    return gt_fail(GT_MISUSE,
                   "with --precision %s stages send 16 bits a value as it is; leave out --compress-stages %s, or take "
                   "int8",
                   dtype_name(type), spec);
}

/* ---- links ------------------------------------------------------------------------------------ */

/* What a question is asked about. */
typedef struct asked {
    const stage_forms *forms;
    const run_plan *plan;
    const stage *stage;
    dev_device *device;
    net_comm *comm;
    const net_link_matrix *links;
    int pairs, (*pair)[2];
    wire_rate *rates;                   /* [rank * WIRE_KINDS + candidate]                     */
} asked;

/* Of what this rank and a neighbour hand each other in a step: one edge. */
typedef struct sum_of {
    const asked *of;
    int me, peer;
    sync_expected *expected;
    double values;
    int64_t most;                       /* values of the longest message                       */
} sum_of;

static void count_edge(void *context, int peer, int outward, int messages, int64_t values)
{
    sum_of *s = context;
    (void)outward;
    (void)messages;
    s->values += peer == s->peer ? (double)values : 0.0;
    s->most = values > s->most ? values : s->most;
}

static const int *members(void *context, int link, int *ranks)
{
    *ranks = 2;
    return ((const asked *)context)->pair[link];
}

static int peer_in(const asked *a, int link)
{
    const int me = net_comm_rank(a->comm), *pair = a->pair[link];
    return pair[0] == me ? pair[1] : pair[1] == me ? pair[0] : -1;
}

static int travels(void *context, int link)
{
    return peer_in(context, link) >= 0;
}

/* Devices that compute at the same time measure at the same time, with messages as long as theirs are. */
static gt_status measure(void *context)
{
    asked *a = context;
    wire_rate mine[WIRE_KINDS];
    sum_of s = { .peer = -1 };
    memset(mine, 0, sizeof mine);
    stage_edges(a->stage, count_edge, &s);
    gt_status st = net_group_links(net_group_world(a->comm), &a->links);
    if (!st)
        st = net_job_barrier(net_comm_job(a->comm), "measuring forms of what stages send");
    net_comm_busy(a->comm, "measuring forms of what stages send");
    for (int i = 0; !st && s.most && i < a->forms->count; i++)
        st = wire_rate_measure(&mine[i], a->device, a->forms->kind[i], stage_storage(a->stage), s.most);
    net_comm_busy(a->comm, NULL);
    return st ? st : sync_link_rates(a->comm, "forms of stages", mine, sizeof mine, a->rates);
}

static void add_edge(void *context, int peer, int outward, int messages, int64_t values)
{
    sum_of *s = context;
    const asked *a = s->of;
    const int from = outward ? s->me : peer, to = outward ? peer : s->me, ranks = net_comm_size(a->comm);
    const double n = (double)values * messages;
    if (peer != s->peer)
        return;
    s->values += n;
    for (int i = 0; i < a->forms->count; i++) {
        const wire_rate *x = &a->rates[from * WIRE_KINDS + i], *y = &a->rates[to * WIRE_KINDS + i];
        s->expected[i].network += messages * a->links->latency[from * ranks + to]
                                  + n * x->bytes / a->links->bandwidth[from * ranks + to];
        s->expected[i].device += n * (x->encode + y->decode);
    }
}

static gt_status judge(void *context, int link, sync_expected *expected, double *values)
{
    const asked *a = context;
    sum_of s = { .of = a, .me = net_comm_rank(a->comm), .peer = peer_in(a, link), .expected = expected };
    stage_edges(a->stage, add_edge, &s);
    *values = s.values;
    return GT_OK;
}

static const char *known(void *context, int link)
{
    const asked *a = context;
    wire_kind k;
    const char *form = run_plan_stage_form(a->plan, a->pair[link][0], a->pair[link][1]);
    return form && wire_kind_find(&k, form) && (k == WIRE_AS_IT_IS || wire_kind_shortens(k, stage_storage(a->stage)))
               ? form
               : NULL;
}

/* All pairs of neighbours of all replicas; of an interleaved schedule the last stage and the first as well. */
static void list_pairs(asked *a)
{
    const run_plan *p = a->plan;
    for (int i = 0; i < p->replicas; i++) {
        const run_replica *r = &p->replica[i];
        const int ring = p->chunks > 1 && r->stages > 2;
        for (int s = 0; r->micro_batches && s + !ring < r->stages; s++)
            for (int k = 0; k < p->tensor; k++) {
                const int x = r->rank[s * p->tensor + k], y = r->rank[(s + 1) % r->stages * p->tensor + k];
                a->pair[a->pairs][0] = x < y ? x : y;
                a->pair[a->pairs++][1] = x < y ? y : x;
            }
    }
}

static gt_status keep(run_plan *plan, const stage_choice *c)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < c->links; i++)
        if (!run_plan_stage_form(plan, c->link[i].rank[0], c->link[i].rank[1]))
            st = run_plan_stage_link(plan, c->link[i].rank[0], c->link[i].rank[1], c->link[i].form);
    return st;
}

gt_status stage_choice_make(stage_choice **out, const stage_forms *f, run_plan *plan, const stage *s, dev_device *d,
                            net_comm *comm)
{
    const size_t ranks = (size_t)net_comm_size(comm);
    asked a = { .forms = f, .plan = plan, .stage = s, .device = d, .comm = comm };
    *out = NULL;
    stage_choice *c = calloc(1, sizeof *c);
    a.rates = calloc(ranks * WIRE_KINDS, sizeof *a.rates);
    if (c) {
        c->pair = calloc(ranks + 1, sizeof *c->pair);
        c->link = calloc(ranks + 1, sizeof *c->link);
        c->candidates = f->count;
        for (int i = 0; i < f->count; i++)
            snprintf(c->text[i], sizeof c->text[i], "%s", wire_kind_name(f->kind[i]));
    }
    gt_status st = c && c->pair && c->link && a.rates ? GT_OK : no_memory();
    if (!st) {
        a.pair = c->pair;
        list_pairs(&a);
        const sync_link_question q = {
            .what = "forms of stages",
            .comm = comm,
            .groups = a.pairs,
            .candidates = c->candidates,
            .text = (const char(*)[SYNC_NAMES])c->text,
            .context = &a,
            .members = members,
            .travels = travels,
            .measure = measure,
            .judge = judge,
            .known = plan->stage_links ? known : NULL
        };
        st = sync_links_settle(c->link, &c->links, &q);
    }
    if (!st)
        st = keep(plan, c);
    free(a.rates);
    if (st) {
        stage_choice_release(c);
        return st;
    }
    *out = c;
    return GT_OK;
}

void stage_choice_release(stage_choice *c)
{
    if (!c)
        return;
    free(c->link);
    free(c->pair);
    free(c);
}
