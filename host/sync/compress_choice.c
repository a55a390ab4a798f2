/* SPDX-License-Identifier: MIT */
/* host/sync/compress_choice.c - see compress_choice.h. */
#include "host/sync/compress_choice.h"

#include "host/base/text.h"
#include "host/compress/compressor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURED = 1 << 20, PIECE = 4 << 20 };   /* values that rates are measured with; bytes of a bucket */
static const double margin = 0.05;
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

/* Of the fastest algorithm, in buckets one after the other; `gradients`: bytes of them in fp32. */
static double exchange(const net_link_matrix *m, net_kind kind, double bytes, double gradients)
{
    const double pieces = fmax(1.0, ceil(gradients / (double)PIECE));
    return bytes > 0.0 ? pieces * net_cost(kind, net_choose(kind, m, bytes / pieces), m, bytes / pieces) : 0.0;
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

static double seconds(const sync_expected *e)
{
    return e->network + e->device;
}

int sync_compress_choose(const sync_expected *e, int count)
{
    double least = seconds(&e[0]);
    int best = 0;
    for (int i = 1; i < count; i++)
        least = fmin(least, seconds(&e[i]));
    while (seconds(&e[best]) * (1.0 - margin) > least)
        best++;
    return best;
}

/* ---- all ranks ---------------------------------------------------------------------------------- */

/* Of one link, said by its first rank. */
typedef struct verdict {
    int group, choice;
    double values;
    sync_expected expected[SYNC_CANDIDATES];
} verdict;

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

static int is_link(const sync_choice_options *o, int group)
{
    double taken;
    return sync_holders_net(o->holders, group) && values_of(o->params, group, &o->candidates->of[0], &taken) > 0.0;
}

/* Everybody's rates of all candidates, measured at once: rates[rank * count + candidate]. */
static gt_status measure_rates(const sync_choice_options *o, compress_rate *rates)
{
    const int count = o->candidates->count;
    const size_t size = (size_t)count * sizeof(compress_rate);
    compress_rate mine[SYNC_CANDIDATES];
    net_blobs all;
    memset(mine, 0, sizeof mine);
    gt_status st = net_job_barrier(net_comm_job(o->comm), "measuring compressors");
    net_comm_busy(o->comm, "measuring compressors");
    for (int i = 0; !st && i < count; i++)
        st = compress_rate_measure(&mine[i], o->device, &o->candidates->of[i], MEASURED);
    net_comm_busy(o->comm, NULL);
    if (!st)
        st = net_job_exchange(net_comm_job(o->comm), "rates of compressors", mine, size, &all);
    if (st)
        return st;
    for (int r = 0; !st && r < net_comm_size(o->comm); r++)
        if (all.size[r] == size)
            memcpy(&rates[r * count], all.data[r], size);
        else
            st = gt_fail(GT_PEER, "rank %d measured other compressors; do all ranks have the same --compress?", r);
    net_blobs_release(&all);
    return st;
}

/* The group's measured links, and what each candidate would take on them. */
static gt_status judge(const sync_choice_options *o, int group, const compress_rate *rates, verdict *v)
{
    const int count = o->candidates->count;
    const net_link_matrix *m;
    int ranks;
    const int *rank = sync_holders_members(o->holders, group, &ranks);
    gt_status st = net_group_links(sync_holders_net(o->holders, group), &m);
    *v = (verdict){ .group = group };
    for (int i = 0; !st && i < count; i++) {
        double taken;
        compress_rate slowest = rates[rank[0] * count + i];
        v->values = values_of(o->params, group, &o->candidates->of[i], &taken);
        for (int k = 1; k < ranks; k++) {
            slowest.encode = fmax(slowest.encode, rates[rank[k] * count + i].encode);
            slowest.decode = fmax(slowest.decode, rates[rank[k] * count + i].decode);
        }
        v->expected[i] = sync_compress_expect(m, &slowest, taken, v->values - taken, sync_mode_shares_state(o->mode));
    }
    v->choice = sync_compress_choose(v->expected, count);
    return st;
}

static sync_link *add_link(sync_choice *c, const sync_choice_options *o, int group)
{
    sync_link *l = &c->link[c->links++];
    *l = (sync_link){ .group = group, .choice = -1 };
    l->rank = sync_holders_members(o->holders, group, &l->ranks);
    return l;
}

/* What the first ranks of all groups say, in the order of groups. */
static gt_status hear(sync_choice *c, const sync_choice_options *o, const net_blobs *all)
{
    for (int g = 0; g < sync_holders_groups(o->holders); g++)
        for (int r = 0; r < net_comm_size(o->comm); r++)
            for (size_t i = 0; i + 1 <= all->size[r] / sizeof(verdict); i++) {
                verdict v;
                memcpy(&v, (const char *)all->data[r] + i * sizeof v, sizeof v);
                if (v.group != g)
                    continue;
                if (v.choice < 0 || v.choice >= c->candidates.count)
                    return gt_fail(GT_PEER, "rank %d chose a compressor that is not there", r);
                sync_link *l = add_link(c, o, g);
                l->choice = v.choice;
                l->values = v.values;
                l->spec = c->candidates.of[v.choice];
                l->spec.after = o->after;
                memcpy(l->expected, v.expected, sizeof l->expected);
                snprintf(l->form, sizeof l->form, "%s", c->candidates.text[v.choice]);
            }
    return GT_OK;
}

static gt_status choose(sync_choice *c, const sync_choice_options *o)
{
    const int groups = sync_holders_groups(o->holders);
    compress_rate *rates = calloc((size_t)(net_comm_size(o->comm) * c->candidates.count), sizeof *rates);
    verdict *mine = calloc((size_t)groups + 1, sizeof *mine), v;
    net_blobs all;
    size_t count = 0;
    gt_status st = rates && mine ? measure_rates(o, rates) : no_memory();
    for (int g = 0; !st && g < groups; g++)         /* in the same order on all ranks */
        if (is_link(o, g)) {
            st = judge(o, g, rates, &v);
            if (!st && sync_holders_first(o->holders, g))
                mine[count++] = v;
        }
    if (!st)
        st = net_job_exchange(net_comm_job(o->comm), "the choice of compressors", mine, count * sizeof *mine, &all);
    if (!st) {
        st = hear(c, o, &all);
        net_blobs_release(&all);
    }
    free(rates);
    free(mine);
    return st;
}

/* What a run before had of a group; 0: not known. */
static int recall(const sync_choice_options *o, int group, compress_spec *spec, const char **form)
{
    int ranks;
    const int *rank = sync_holders_members(o->holders, group, &ranks);
    *form = o->known ? o->known(o->context, rank, ranks) : NULL;
    if (!*form)
        return 0;
    if (!compress_parse(spec, *form))
        return 1;
    gt_message_clear();
    return 0;
}

/* 1 in *found, on all ranks, if every link is known. */
static gt_status recall_all(sync_choice *c, const sync_choice_options *o, int *found)
{
    unsigned char all_known = o->known != NULL;
    const char *form;
    compress_spec spec;
    net_blobs all;
    for (int g = 0; all_known && g < sync_holders_groups(o->holders); g++)
        all_known = !is_link(o, g) || recall(o, g, &spec, &form);
    gt_status st = net_job_exchange(net_comm_job(o->comm), "compressors of before", &all_known, 1, &all);
    *found = !st;
    for (int r = 0; !st && r < net_comm_size(o->comm); r++)
        *found &= all.size[r] == 1 && all.data[r][0];
    if (!st)
        net_blobs_release(&all);
    for (int g = 0; *found && g < sync_holders_groups(o->holders); g++)
        if (recall(o, g, &spec, &form)) {
            sync_link *l = add_link(c, o, g);
            l->spec = spec;
            l->spec.after = o->after;
            snprintf(l->form, sizeof l->form, "%s", form);
        }
    return st;
}

gt_status sync_choice_make(sync_choice **out, const sync_choice_options *o)
{
    int found = 0;
    *out = NULL;
    sync_choice *c = calloc(1, sizeof *c);
    if (c) {
        c->candidates = *o->candidates;
        c->link = calloc((size_t)sync_holders_groups(o->holders) + 1, sizeof *c->link);
    }
    gt_status st = c && c->link ? recall_all(c, o, &found) : no_memory();
    if (!st && !found)
        st = choose(c, o);
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
    free(c);
}

compress_spec sync_choice_of(const sync_choice *c, int group)
{
    for (int i = 0; i < c->links; i++)
        if (c->link[i].group == group)
            return c->link[i].spec;
    return (compress_spec){ .how = &compress_none };
}

void sync_link_text(const sync_choice *c, int link, char *out, size_t size)
{
    const sync_link *l = &c->link[link];
    gt_text t = { 0 };
    gt_text_printf(&t, "ranks");
    for (int r = 0; r < l->ranks; r++)
        gt_text_printf(&t, " %d", l->rank[r]);
    gt_text_printf(&t, ": %s", l->form);
    if (l->choice < 0) {
        gt_text_printf(&t, ", as the run began");
    } else {
        const sync_expected *e = &l->expected[l->choice];
        gt_text_printf(&t, ", %.3g ms a step", 1e3 * seconds(e));
        if (l->choice)
            gt_text_printf(&t, " instead of %.3g (network %.3g, device %.3g)", 1e3 * seconds(&l->expected[0]),
                           1e3 * e->network, 1e3 * e->device);
        for (int i = 1, others = 0; i < c->candidates.count; i++)
            if (i != l->choice)
                gt_text_printf(&t, "%s%s %.3g", others++ ? ", " : "; ", c->candidates.text[i],
                               1e3 * seconds(&l->expected[i]));
    }
    snprintf(out, size, "%s", t.data ? t.data : "");
    gt_text_release(&t);
}
