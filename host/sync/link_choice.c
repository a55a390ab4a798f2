/* SPDX-License-Identifier: MIT */
/* host/sync/link_choice.c - see link_choice.h. */
#include "host/sync/link_choice.h"

#include "host/base/text.h"
#include "net/job/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double margin = 0.05;

static double seconds(const sync_expected *e)
{
    return e->network + e->device;
}

int sync_link_choose(const sync_expected *e, int count)
{
    double least = seconds(&e[0]);
    int best = 0;
    for (int i = 1; i < count; i++)
        least = fmin(least, seconds(&e[i]));
    while (seconds(&e[best]) * (1.0 - margin) > least)
        best++;
    return best;
}

/* Of one link, said by its first rank. */
typedef struct verdict {
    int group, choice;
    double values;
    sync_expected expected[SYNC_CANDIDATES];
} verdict;

static sync_link *add_link(sync_link *link, int *links, const sync_link_question *q, int group)
{
    sync_link *l = &link[(*links)++];
    *l = (sync_link){ .group = group, .choice = -1 };
    l->rank = q->members(q->context, group, &l->ranks);
    return l;
}

/* What the first ranks of all links say, in the order of links. */
static gt_status hear(sync_link *link, int *links, const sync_link_question *q, const net_blobs *all)
{
    verdict *of = calloc((size_t)q->groups + 1, sizeof *of);
    gt_status st = of ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the choice of %s", q->what);
    for (int g = 0; !st && g < q->groups; g++)
        of[g].group = -1;
    for (int r = 0; !st && r < net_comm_size(q->comm); r++)
        for (size_t i = 0; !st && i + 1 <= all->size[r] / sizeof(verdict); i++) {
            verdict v;
            memcpy(&v, (const char *)all->data[r] + i * sizeof v, sizeof v);
            if (v.group < 0 || v.group >= q->groups || v.choice < 0 || v.choice >= q->candidates)
                st = gt_fail(GT_PEER, "rank %d chose one of the %s that is not there", r, q->what);
            else
                of[v.group] = v;
        }
    for (int g = 0; !st && g < q->groups; g++)
        if (of[g].group == g) {
            sync_link *l = add_link(link, links, q, g);
            l->choice = of[g].choice;
            l->values = of[g].values;
            memcpy(l->expected, of[g].expected, sizeof l->expected);
            snprintf(l->form, sizeof l->form, "%s", q->text[l->choice]);
        }
    free(of);
    return st;
}

static gt_status choose(sync_link *link, int *links, const sync_link_question *q)
{
    verdict *mine = calloc((size_t)q->groups + 1, sizeof *mine);
    net_blobs all;
    char what[64];
    size_t count = 0;
    gt_status st = mine ? q->measure(q->context) : gt_fail(GT_NO_MEMORY, "no memory for the choice of %s", q->what);
    for (int g = 0; !st && g < q->groups; g++)         /* in the same order on all ranks */
        if (q->travels(q->context, g)) {
            verdict v = { .group = g };
            int ranks;
            st = q->judge(q->context, g, v.expected, &v.values);
            v.choice = sync_link_choose(v.expected, q->candidates);
            if (!st && q->members(q->context, g, &ranks)[0] == net_comm_rank(q->comm))
                mine[count++] = v;
        }
    snprintf(what, sizeof what, "the choice of %s", q->what);
    if (!st)
        st = net_job_exchange(net_comm_job(q->comm), what, mine, count * sizeof *mine, &all);
    if (!st) {
        st = hear(link, links, q, &all);
        net_blobs_release(&all);
    }
    free(mine);
    return st;
}

/* 1 in *found, on all ranks, if every link is known. */
static gt_status recall_all(sync_link *link, int *links, const sync_link_question *q, int *found)
{
    unsigned char all_known = q->known != NULL;
    net_blobs all;
    char what[64];
    for (int g = 0; all_known && g < q->groups; g++)
        all_known = !q->travels(q->context, g) || q->known(q->context, g);
    snprintf(what, sizeof what, "%s of before", q->what);
    gt_status st = net_job_exchange(net_comm_job(q->comm), what, &all_known, 1, &all);
    *found = !st;
    for (int r = 0; !st && r < net_comm_size(q->comm); r++)
        *found &= all.size[r] == 1 && all.data[r][0];
    if (!st)
        net_blobs_release(&all);
    for (int g = 0; *found && g < q->groups; g++) {
        const char *form = q->known(q->context, g);
        if (form) {
            sync_link *l = add_link(link, links, q, g);
            snprintf(l->form, sizeof l->form, "%s", form);
        }
    }
    return st;
}

gt_status sync_links_settle(sync_link *link, int *links, const sync_link_question *q)
{
    int found = 0;
    *links = 0;
    gt_status st = recall_all(link, links, q, &found);
    return st || found ? st : choose(link, links, q);
}

gt_status sync_link_rates(net_comm *c, const char *what, const void *mine, size_t size, void *all)
{
    net_blobs blobs;
    char sentence[64];
    snprintf(sentence, sizeof sentence, "rates of %s", what);
    gt_status st = net_job_exchange(net_comm_job(c), sentence, mine, size, &blobs);
    if (st)
        return st;
    for (int r = 0; !st && r < net_comm_size(c); r++)
        if (blobs.size[r] == size)
            memcpy((char *)all + (size_t)r * size, blobs.data[r], size);
        else
            st = gt_fail(GT_PEER, "rank %d measured other %s; do all ranks have the same options?", r, what);
    net_blobs_release(&blobs);
    return st;
}

void sync_link_text(const sync_link *l, const char (*text)[SYNC_NAMES], int candidates, char *out, size_t size)
{
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
        for (int i = 1, others = 0; i < candidates; i++)
            if (i != l->choice)
                gt_text_printf(&t, "%s%s %.3g", others++ ? ", " : "; ", text[i], 1e3 * seconds(&l->expected[i]));
    }
    snprintf(out, size, "%s", t.data ? t.data : "");
    gt_text_release(&t);
}
