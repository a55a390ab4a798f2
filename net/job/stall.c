/* SPDX-License-Identifier: MIT */
/* net/job/stall.c - who is late, told from counts and from who waits for whom.
 *
 * Two clues. Ranks that have started fewer operations than others have not even come to the
 * one that is stuck: they are late, whatever the others wait for. If all have started it,
 * follow "waits for" from the rank that has waited longest: it ends at a rank that waits for
 * nobody, or comes round again, and then they wait for each other.                       */
#include "net/job/stall.h"

#include <stdlib.h>
#include <string.h>

enum { NAMED = 6 };                     /* ranks that a sentence names                       */

static int waits(const stall_rank *r, uint64_t limit)
{
    return !r->left && r->age >= limit;
}

/* It has told what keeps it, and lives: waiting for it is no stall. */
static int says_busy(const stall_rank *r)
{
    return !r->left && !r->silent && !r->age && r->text && r->text[0];
}

/* Lists the ranks with mark[i], and whom each waits for. */
static void list_waiting(const stall_rank *ranks, const unsigned char *mark, int count, gt_text *out)
{
    int shown = 0, total = 0;
    for (int i = 0; i < count; i++)
        total += mark[i];
    for (int i = 0; i < count && shown < NAMED; i++) {
        if (!mark[i])
            continue;
        gt_text_printf(out, "%srank %d waits", shown++ ? ", " : "", i);
        if (ranks[i].waits_for >= 0)
            gt_text_printf(out, " for rank %d", ranks[i].waits_for);
    }
    if (total > shown)
        gt_text_printf(out, " and %d more wait", total - shown);
}

/* What a late rank does instead. */
static void describe_late(const stall_rank *r, gt_text *out)
{
    if (r->silent)
        gt_text_printf(out, "%s gives no sign of life", r->name);
    else if (r->left)
        gt_text_printf(out, "%s has left the job", r->name);
    else if (r->age)
        gt_text_printf(out, "%s is still in \"%s\" after %.1f s", r->name, r->text, (double)r->age * 1e-9);
    else
        gt_text_printf(out, "%s does nothing in the network", r->name);
}

/* Some have started fewer operations: they are late. */
static int find_behind(const stall_rank *ranks, int count, uint64_t most, gt_text *out)
{
    int culprit = -1, shown = 0, total = 0;
    for (int i = 0; i < count; i++)
        if (!ranks[i].left && ranks[i].started < most) {
            total++;
            if (culprit < 0 || ranks[i].started < ranks[culprit].started)
                culprit = i;
        }
    for (int i = 0; i < count && shown < NAMED; i++) {
        if (ranks[i].left || ranks[i].started >= most)
            continue;
        gt_text_printf(out, "%s", shown++ ? "; " : "");
        describe_late(&ranks[i], out);
        gt_text_printf(out, " (%llu operations started, others %llu)", (unsigned long long)ranks[i].started,
                       (unsigned long long)most);
    }
    if (total > shown)
        gt_text_printf(out, "; and %d more are late", total - shown);
    return culprit;
}

/* Follows who waits for whom; returns where it ends, or -1 for a circle. */
static int follow(const stall_rank *ranks, int count, int from)
{
    for (int steps = 0; steps <= count; steps++) {
        const int next = ranks[from].waits_for;
        if (next < 0 || next >= count || next == from || !ranks[from].age)
            return from;
        from = next;
    }
    return -1;
}

static int find_root(const stall_rank *ranks, int count, int oldest, gt_text *out)
{
    const int end = follow(ranks, count, oldest);
    if (end < 0) {
        int at = oldest;
        for (int i = 0; i < count; i++)         /* into the circle */
            at = ranks[at].waits_for;
        gt_text_printf(out, "rank %d", at);
        for (int i = ranks[at].waits_for, n = 0; n < count; i = ranks[i].waits_for, n++) {
            gt_text_printf(out, " waits for rank %d", i);
            if (i == at)
                break;
            gt_text_printf(out, ", which");
        }
        gt_text_printf(out, ": a circle");
        return -1;
    }
    if (end == oldest) {
        gt_text_printf(out, "%s makes no progress in it", ranks[end].name);
        return end;
    }
    describe_late(&ranks[end], out);
    return end;
}

stall stall_find(const stall_rank *ranks, int count, uint64_t limit, gt_text *out)
{
    stall s = { .culprit = -1 };
    uint64_t most = 0;
    int oldest = -1;
    unsigned char *mark = calloc((size_t)count, 1);
    for (int i = 0; mark && i < count; i++) {
        mark[i] = (unsigned char)waits(&ranks[i], limit);
        if (!ranks[i].left && ranks[i].started > most)
            most = ranks[i].started;
        if (mark[i] && (oldest < 0 || ranks[i].age > ranks[oldest].age))
            oldest = i;
    }
    if (oldest < 0) {
        free(mark);
        return s;
    }
    const size_t begin = out->size;
    s.found = 1;
    s.age = ranks[oldest].age;
    /* Not of who waited longest: of two that began together that changes with every heartbeat. */
    s.key = 1 + most;
    gt_text_printf(out, "\"%s\" is stuck: ", ranks[oldest].text);
    s.culprit = find_behind(ranks, count, most, out);
    if (s.culprit < 0)
        s.culprit = find_root(ranks, count, oldest, out);
    if (s.culprit >= 0 && says_busy(&ranks[s.culprit])) {
        if (out->size > begin)
            out->data[out->size = begin] = '\0';
        free(mark);
        return (stall){ .culprit = -1 };
    }
    if (s.culprit >= 0)
        mark[s.culprit] = 0;
    gt_text_printf(out, "; ");
    const size_t before = out->size;
    list_waiting(ranks, mark, count, out);
    if (out->size == before && out->size >= 2)
        out->data[out->size -= 2] = '\0';       /* nobody else: no "; "                      */
    free(mark);
    return s;
}
