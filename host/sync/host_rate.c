/* SPDX-License-Identifier: MIT */
/* host/sync/host_rate.c - what ways of staying together take of a rank's processor, measured for plans.
 *
 * The functions that a run calls, on about a million values that are in no cache; the fastest of some runs. Copies
 * between device and host come on top, which on processors are none worth mentioning.       */
#include "host/base/clock.h"
#include "host/sync/async_private.h"
#include "host/sync/local_rounds.h"
#include "host/sync/servers.h"

#include <math.h>
#include <stdlib.h>

enum { VALUES = 1 << 20, RUNS = 3, ARRAYS = 6 };

typedef struct room {
    float *x[ARRAYS];
    unsigned char *code;
} room;

static void release(room *r)
{
    for (int i = 0; i < ARRAYS; i++)
        free(r->x[i]);
    free(r->code);
}

/* Values of both signs and of sizes that differ, since what is largest is looked for. */
static gt_status make(room *r, uint64_t code)
{
    int missing = 0;
    *r = (room){ .code = malloc(code + 1) };
    missing |= !r->code;
    for (int i = 0; i < ARRAYS; i++) {
        r->x[i] = malloc(VALUES * sizeof(float));
        missing |= !r->x[i];
        for (uint32_t k = 0, word = 12345; r->x[i] && k < VALUES; k++) {
            word = word * 1664525u + 1013904223u;
            r->x[i][k] = ((float)(word >> 9) / 8388608.0f - 0.5f) * (float)(1 + (word >> 3 & 15));
        }
    }
    if (missing)
        release(r);
    return missing ? gt_fail(GT_NO_MEMORY, "cannot measure this host: no memory for %d values", ARRAYS * VALUES)
                   : GT_OK;
}

gt_status sync_local_host_seconds(const sync_settings *s, const optim_config *c, int holders, double *seconds)
{
    const outer_rule *rule = outer_rule_find(s->word[LOCAL_OUTER]);
    const double keep = s->number[LOCAL_KEEP], lr = s->number[LOCAL_LR], share = 1.0 / holders;
    room r;
    (void)c;
    gt_status st = make(&r, rule->sparse ? sparse_bytes(VALUES, keep) : 0);
    *seconds = INFINITY;
    for (int i = 0; !st && i < RUNS; i++) {
        const uint64_t start = gt_now_ns();
        if (rule->sparse) {
            sparse_encode(r.code, r.x[1], VALUES, keep);
            for (int k = 0; k < holders; k++)
                sparse_add(r.x[0], r.code, VALUES, keep, share);
        } else {
            rule->give(r.x[0], rule->starts ? r.x[1] : NULL, VALUES, share);
        }
        rule->take(r.x[0], rule->starts ? r.x[1] : NULL, rule->moves ? r.x[2] : NULL, VALUES, lr,
                   s->number[LOCAL_MOMENTUM]);
        *seconds = fmin(*seconds, (double)(gt_now_ns() - start) * 1e-9 / VALUES);
    }
    if (!st)
        release(&r);
    return st;
}

gt_status sync_async_host_seconds(const sync_settings *s, const optim_config *c, int holders, double *seconds)
{
    room r;
    gt_status st = optim_rule_on_host(c->rule) ? make(&r, 0) : GT_OK;
    *seconds = optim_rule_on_host(c->rule) ? INFINITY : 0.0;
    const unsigned keeps = optim_host_keeps(c);
    for (int i = 0; !st && optim_rule_on_host(c->rule) && i < RUNS; i++) {
        optim_host u = { .count = VALUES, .value = r.x[0], .gradient = r.x[1], .lr = 1e-6, .step = 1 };
        for (int k = 0; k < 4; k++)
            u.slot[k] = keeps >> k & 1 ? r.x[2 + k] : NULL;
        for (int k = 0; k < VALUES; k++)            /* squares, as a rule may keep them */
            for (int a = 2; a < ARRAYS; a++)
                r.x[a][k] = fabsf(r.x[a][k]);
        const uint64_t start = gt_now_ns();
        optim_host_update(c, &u);
        *seconds = fmin(*seconds, (double)(gt_now_ns() - start) * 1e-9 / VALUES);
    }
    *seconds *= holders * sync_servers_share(s->word[ASYNC_SERVERS], s->word[ASYNC_SERVERS_TRAIN], holders)
                / s->number[ASYNC_PUSH_EVERY];
    if (!st && optim_rule_on_host(c->rule))
        release(&r);
    return st;
}
