/* SPDX-License-Identifier: MIT */
/* host/cli/plan_compare.c - ways of staying together as a table.
 *
 *   way, as its options                       step, bytes, waiting, hours for so many tokens, memory, what it changes */
#include "host/cli/plan_show.h"

#include "host/base/text.h"

#include <stdio.h>
#include <string.h>

static const double tokens = 1e9;       /* whose time is told */

static double hours(const plan_question *q, const compare_row *r)
{
    return tokens / ((double)q->batch * q->seq) * r->step / 3600.0;
}

/* As few letters as tell times from each other. */
static const char *duration(char *out, size_t size, double seconds)
{
    if (seconds >= 10.0)
        snprintf(out, size, "%.1f s", seconds);
    else if (seconds >= 0.01)
        snprintf(out, size, "%.0f ms", 1e3 * seconds);
    else
        snprintf(out, size, "%.2f ms", 1e3 * seconds);
    return out;
}

static void print_row(const plan_question *q, const compare_row *r, double best, int width)
{
    char name[160], changes[48], step[32], sent[32], memory[32], host[32], layout[24];
    compare_name(name, sizeof name, &r->way);
    if (!r->fits) {
        printf("%c %-*s  %s\n", r->way.asked ? '>' : ' ', width, name, r->why);
        return;
    }
    compare_changes(changes, sizeof changes, &r->way, r->replicas);
    snprintf(layout, sizeof layout, r->stages > 1 ? "%d of %d" : "%d", r->replicas, r->stages);
    printf("%c %-*s  %-8s %9s %9s %6.1f %9.3g %6.2f  %9s %9s  %s\n", r->way.asked ? '>' : ' ', width, name, layout,
           duration(step, sizeof step, r->step), gt_format_bytes(sent, sizeof sent, (uint64_t)r->sent),
           100.0 * r->waits, hours(q, r), r->step / best, gt_format_bytes(memory, sizeof memory, (uint64_t)r->memory),
           gt_format_bytes(host, sizeof host, (uint64_t)r->host_memory), changes);
}

void plan_compare_print(const plan_question *q, const compare_table *t, const char *note)
{
    int width = 8;
    char name[160];
    for (int i = 0; i < t->count; i++) {
        compare_name(name, sizeof name, &t->row[i].way);
        width = (int)strlen(name) > width ? (int)strlen(name) : width;
    }
    printf("\nways of staying together, each as it is planned best; > as asked%s\n", note);
    printf("  %-*s  %-8s %9s %9s %6s %9s %6s  %9s %9s  %s\n", width, "", "replicas", "a step", "sent", "idle %",
           "h/1e9 tok", "ratio", "device", "and host", "changes the result");
    for (int i = 0; i < t->count; i++)
        print_row(q, &t->row[i], t->row[0].step, width);
    printf(
        "  sent: bytes of a replica in a step, on average; device, host: memory of the fullest rank. What changes the\n"
        "  result may need more tokens for the same loss; what is left blank has the losses of one device.\n");
}

static json_t *row_json(const plan_question *q, const compare_row *r, double best)
{
    char name[160], changes[48];
    compare_name(name, sizeof name, &r->way);
    if (!r->fits)
        return json_pack("{s:s, s:b, s:b, s:s}", "way", name, "asked", r->way.asked, "fits", 0, "why", r->why);
    compare_changes(changes, sizeof changes, &r->way, r->replicas);
    return json_pack("{s:s, s:b, s:b, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "way", name, "asked",
                     r->way.asked, "fits", 1, "replicas", r->replicas, "stages", r->stages, "step_s", r->step,
                     "sent_bytes", r->sent, "idle", r->waits, "hours_per_1e9_tokens", hours(q, r), "ratio",
                     r->step / best, "memory", r->memory, "host_memory", r->host_memory, "changes", changes);
}

json_t *plan_compare_json(const plan_question *q, const compare_table *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->count; i++)
        json_array_append_new(list, row_json(q, &t->row[i], t->row[0].step));
    return list;
}
