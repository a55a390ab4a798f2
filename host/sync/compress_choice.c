/* SPDX-License-Identifier: MIT */
/* host/sync/compress_choice.c - see compress_choice.h. */
#include "host/sync/compress_choice.h"

#include "host/compress/compressor.h"
#include "host/sync/lanes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURED = 1 << 20, PIECE = 4 << 20 };   /* values that rates are measured with; bytes of a bucket */
static const char automatic[] = "auto";

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the choice of compressors");
}

/* ---- candidates ------------------------------------------------------------------------------- */

int sync_compress_is_auto(const char *spec)
{
    const size_t n = strlen(automatic);
    return !strncmp(spec, automatic, n) && (!spec[n] || spec[n] == ':');
}

static gt_status add(sync_candidates *out, const char *text, size_t length)
{
    compress_spec c;
    if (out->count == SYNC_CANDIDATES || length >= SYNC_NAMES)
        return gt_fail(GT_MISUSE, "'auto' chooses among %d compressors at most", SYNC_CANDIDATES);
    char *word = out->text[out->count];
    snprintf(word, SYNC_NAMES, "%.*s", (int)length, text);
    gt_status st = compress_parse(&c, word);
    if (!st && (compress_changes(&c) || !out->count))
        out->of[out->count++] = c;
    return st;
}

/* Behind a comma stands another compressor, or a NAME=NUMBER of the one before. */
static size_t length_of(const char *at)
{
    size_t n = strcspn(at, ",");
    while (at[n] == ',') {
        const size_t next = n + 1 + strcspn(at + n + 1, ",");
        const char *equals = memchr(at + n + 1, '=', next - n - 1), *colon = memchr(at + n + 1, ':', next - n - 1);
        if (!equals || (colon && colon < equals))
            break;
        n = next;
    }
    return n;
}

gt_status sync_candidates_parse(sync_candidates *out, const char *spec)
{
    const char *at = strchr(spec, ':') ? strchr(spec, ':') + 1 : "bf16,int8";
    *out = (sync_candidates){ 0 };
    if (!*at)
        return gt_fail(GT_MISUSE, "'%s' names nothing to choose among", spec);
    gt_status st = add(out, "none", strlen("none"));
    while (!st && *at) {
        const size_t n = length_of(at);
        st = add(out, at, n);
        at += n + (at[n] == ',');
    }
    return st;
}

/* ---- arithmetic ------------------------------------------------------------------------------- */

/* Of the fastest algorithm, in buckets one after the other, of which some wait at once; `gradients`: bytes of them in
 * fp32. */
static double exchange(const net_link_matrix *m, net_kind kind, double bytes, double gradients)
{
    const double pieces = fmax(1.0, ceil(gradients / (double)PIECE)), each = bytes / pieces;
    const net_algorithm a = net_choose(kind, m, each);
    const double least = net_cost(kind, a, m, 0.0), turns = ceil(pieces / fmin(pieces, sync_lanes_of(m)));
    return bytes > 0.0 ? pieces * (net_cost(kind, a, m, each) - least) + turns * least : 0.0;
}

sync_expected sync_compress_expect(const net_link_matrix *m, const compress_rate *rate, double taken, double rest,
                                   int shares)
{
    const net_kind sums = shares ? NET_OP_REDUCE_SCATTER : NET_OP_ALL_REDUCE;
    const net_kind kind = rate->gathers ? NET_OP_ALL_GATHER : rate->scatters ? sums : NET_OP_ALL_REDUCE;
    const double bytes = rate->bytes * taken * (rate->gathers ? m->size : 1) / rate->rounds;
    sync_expected e = { .device = compress_rate_seconds(rate, taken, m->size) };
    e.network = rate->rounds * exchange(m, kind, bytes, 4.0 * taken) + exchange(m, sums, 4.0 * rest, 4.0 * rest);
    if (shares)
        e.network += exchange(m, NET_OP_ALL_GATHER, 4.0 * (taken + rest), 4.0 * (taken + rest));
    return e;
}

/* ---- all ranks ---------------------------------------------------------------------------------- */

/* Values of a group on this rank that travel, and of those how many a compressor takes. */
static double values_of(const params *p, int group, const compress_spec *s, double *taken)
{
    double all = 0.0;
    *taken = 0.0;
    for (int i = 0; i < params_count(p); i++) {
        int segment;
        int64_t first;
        params_place(p, i, &segment, &first);
        if (segment < 0 || params_segment_at(p, segment)->group != group)
            continue;
        const graph_param_info *info = params_info(p, i);
        const double n = (double)shape_count(&info->shape);
        all += n;
        *taken += compress_takes(s, info) ? n : 0.0;
    }
    return all;
}

/* What a question is asked about. */
typedef struct asked {
    const sync_choice_options *o;
    compress_rate *rates;               /* [rank * candidates + candidate]                      */
} asked;

static const int *members(void *context, int group, int *ranks)
{
    return sync_holders_members(((asked *)context)->o->holders, group, ranks);
}

static int travels(void *context, int group)
{
    const sync_choice_options *o = ((asked *)context)->o;
    double taken;
    return sync_holders_net(o->holders, group) && values_of(o->params, group, &o->candidates->of[0], &taken) > 0.0;
}

/* Everybody's rates of all candidates, measured at once. */
static gt_status measure_rates(void *context)
{
    const asked *a = context;
    const sync_choice_options *o = a->o;
    const int count = o->candidates->count;
    compress_rate mine[SYNC_CANDIDATES];
    memset(mine, 0, sizeof mine);
    gt_status st = net_job_barrier(net_comm_job(o->comm), "measuring compressors");
    net_comm_busy(o->comm, "measuring compressors");
    for (int i = 0; !st && i < count; i++)
        st = compress_rate_measure(&mine[i], o->device, &o->candidates->of[i], MEASURED);
    net_comm_busy(o->comm, NULL);
    return st ? st : sync_link_rates(o->comm, "compressors", mine, (size_t)count * sizeof *mine, a->rates);
}

/* The group's measured links, and what each candidate would take on them. */
static gt_status judge(void *context, int group, sync_expected *expected, double *values)
{
    const asked *a = context;
    const sync_choice_options *o = a->o;
    const int count = o->candidates->count;
    const net_link_matrix *m;
    int ranks;
    const int *rank = sync_holders_members(o->holders, group, &ranks);
    gt_status st = net_group_links(sync_holders_net(o->holders, group), &m);
    for (int i = 0; !st && i < count; i++) {
        double taken;
        compress_rate slowest = a->rates[rank[0] * count + i];
        *values = values_of(o->params, group, &o->candidates->of[i], &taken);
        for (int k = 1; k < ranks; k++) {
            slowest.encode = fmax(slowest.encode, a->rates[rank[k] * count + i].encode);
            slowest.decode = fmax(slowest.decode, a->rates[rank[k] * count + i].decode);
        }
        expected[i] = sync_compress_expect(m, &slowest, taken, *values - taken, sync_mode_shares_state(o->mode));
    }
    return st;
}

static const char *known(void *context, int group)
{
    const sync_choice_options *o = ((asked *)context)->o;
    compress_spec spec;
    int ranks;
    const int *rank = sync_holders_members(o->holders, group, &ranks);
    const char *form = o->known(o->context, rank, ranks);
    if (!form || !compress_parse(&spec, form))
        return form;
    gt_message_clear();
    return NULL;
}

/* From their texts, which were candidates' or have been parsed before. */
static gt_status take_specs(sync_choice *c, uint64_t after)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < c->links; i++) {
        st = compress_parse(&c->spec[i], c->link[i].form);
        c->spec[i].after = after;
    }
    return st;
}

gt_status sync_choice_make(sync_choice **out, const sync_choice_options *o)
{
    const size_t groups = (size_t)sync_holders_groups(o->holders), count = (size_t)o->candidates->count;
    asked a = { o, calloc((size_t)net_comm_size(o->comm) * count, sizeof(compress_rate)) };
    const sync_link_question q = {
        .what = "compressors",
        .comm = o->comm,
        .groups = (int)groups,
        .candidates = o->candidates->count,
        .text = o->candidates->text,
        .context = &a,
        .members = members,
        .travels = travels,
        .measure = measure_rates,
        .judge = judge,
        .known = o->known ? known : NULL
    };
    *out = NULL;
    sync_choice *c = calloc(1, sizeof *c);
    if (c) {
        c->candidates = *o->candidates;
        c->link = calloc(groups + 1, sizeof *c->link);
        c->spec = calloc(groups + 1, sizeof *c->spec);
    }
    gt_status st = a.rates && c && c->link && c->spec ? sync_links_settle(c->link, &c->links, &q) : no_memory();
    if (!st)
        st = take_specs(c, o->after);
    free(a.rates);
    if (st) {
        sync_choice_release(c);
        return st;
    }
    *out = c;
    return GT_OK;
}

void sync_choice_release(sync_choice *c)
{
    if (!c)
        return;
    free(c->link);
    free(c->spec);
    free(c);
}

compress_spec sync_choice_of(const sync_choice *c, int group)
{
    for (int i = 0; i < c->links; i++)
        if (c->link[i].group == group)
            return c->spec[i];
    return (compress_spec){ .how = &compress_none };
}
