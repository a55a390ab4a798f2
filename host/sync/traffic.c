/* SPDX-License-Identifier: MIT */
/* host/sync/traffic.c - formulas of traffic.h: those of sums; what else a mode does it says itself (mode.h). */
#include "host/sync/traffic.h"

#include "host/compress/compressor.h"
#include "host/sync/blocks.h"
#include "host/sync/lanes.h"
#include "host/sync/mode.h"

#include <math.h>

enum { PLAIN = 4 };                     /* bytes of a value as it is */

static const sync_settings *settled(const sync_mode *m, const sync_settings *settings, sync_settings *usual)
{
    if (!settings)
        sync_settings_usual(m, usual);
    return settings ? settings : usual;
}

static double code_of(const compress_range *r, int round)
{
    const compressor *how = r->spec->how;
    return (double)((how->elements ? how->elements(r, round) : r->count) * (int64_t)dtype_size(how->type));
}

/* Over rounds and levels, for which there is one memory. */
static double longest(const compress_spec *c, compress_range range)
{
    double most = 0.0;
    for (range.level = 0; range.level < compress_levels(c); range.level++)
        for (int r = 0; r < c->how->rounds; r++)
            most = fmax(most, code_of(&range, r));
    return most;
}

/* As compress/coding.c has it: what a step leaves is beside what the one before left. */
static double kept_of(const compress_range *r)
{
    const compressor *how = r->spec->how;
    const double pairs = how->keeps_error ? 1.0 + (r->spec->momentum > 0.0) : 0.0;
    return 2.0 * PLAIN * pairs * (double)r->count + 2.0 * PLAIN * (how->state ? (double)how->state(r) : 0.0)
           + PLAIN * (how->scratch ? (double)how->scratch(r) : 0.0);
}

void sync_volume_add(sync_volume *v, const compress_spec *c, const graph_param_info *info)
{
    const int64_t count = shape_count(&info->shape);
    if (!compress_takes(c, info)) {
        v->plain += (double)count;
        return;
    }
    const compress_range range = { .count = count, .info = info, .spec = c, .level = compress_levels(c) - 1 };
    v->values += (double)count;
    for (int r = 0; r < c->how->rounds; r++)
        v->bytes += code_of(&range, r);
    v->code += longest(c, range);
    v->kept += kept_of(&range);
}

void sync_volume_sum(sync_volume *v, const sync_volume *other, double times)
{
    v->plain += times * other->plain;
    v->values += times * other->values;
    v->bytes += times * other->bytes;
    v->code += times * other->code;
    v->kept += times * other->kept;
}

/* 1: ranks exchange the encodings of their parts alone. */
static int scatters(const compressor *how)
{
    return !how->elements && !how->gathers && how->rounds == 1;
}

/* 1: sums are encoded again, each part by its owner (compress/coding.h). */
static int serves(const compress_spec *c, int n)
{
    return c->how->serves && c->server != 0.0 && n > 2;
}

/* Sums of gradients, and new weights where each rank updates a share, at most `most`. One bucket follows the other. */
static sync_load sums(const sync_mode *m, const compress_spec *c, const sync_volume *v, int n, double most)
{
    const int changes = c && compress_changes(c), back = changes && serves(c, n),
              gathers = changes && c->how->gathers && !back;
    const double buckets = fmax(1.0, PLAIN * (v->plain + v->values) / SYNC_BLOCK_BYTES);
    const double least = fmax(0.0, 1.0 - (n - 1) * most), once = fmax(1.0 - least, (n - 1) * most);
    const double ring = 2.0 * (n - 1) / n, whole = m->shares_state ? 2.0 * once : ring;
    const double plain = PLAIN * v->plain, weights = m->shares_state ? PLAIN * v->values : 0.0;
    const int parts = m->shares_state && changes && scatters(c->how);
    const double encoded = v->bytes * (gathers ? n - 1 : parts ? once : ring);
    return (sync_load){
        .busiest = whole * plain + encoded + once * weights,
        .sends = ring * plain
                 + v->bytes
                       * (gathers ? n - 1
                          : parts ? ring / 2.0
                                  : ring)
                 + ring / 2.0 * weights,
        .trips = ceil(buckets)
                 * (gathers                     ? n - 1
                    : least < most * (1 - 1e-9) ? 2.0
                                                : 2.0 * (n - 1))
                 * (changes ? c->how->rounds : 1),
        .buckets = ceil(buckets),
        .decodes = gathers ? n
                   : back  ? 2.0
                           : 1.0
    };
}

double sync_mode_coding_bytes(const sync_mode *m, const compress_spec *c, const sync_volume *v, int holders)
{
    if (holders < 2 || !c || !compress_changes(c) || !m->compresses)
        return 0.0;
    const int back = serves(c, holders);
    const double sums = back ? 3.0 * PLAIN * v->values / holders : 0.0; /* and what is held back of them, twice */
    const double apart = m->holds_all && compress_goes_apart(c) ? 2.0 * PLAIN * (v->plain + v->values) : 0.0;
    return v->kept + v->code * (c->how->gathers && !back ? holders : 1) + sums + apart;
}

double sync_load_trips(const sync_load *l, double latency)
{
    const double buckets = fmax(1.0, l->buckets), lanes = fmin(buckets, sync_lanes_for(latency));
    return latency * l->trips / buckets * ceil(buckets / lanes);
}

sync_load sync_mode_load(const sync_mode *m, const sync_settings *settings, const compress_spec *c,
                         const sync_volume *v, int holders)
{
    sync_settings usual;
    if (holders < 2)
        return (sync_load){ 0 };
    const sync_settings *s = settled(m, settings, &usual);
    if (m->load)
        return m->load(s, v, holders);
    const double most = m->state_share ? m->state_share(s, holders) : 1.0 / holders;
    return sums(m, c, v, holders, most);
}

sync_pace sync_mode_pace(const sync_mode *m, const sync_settings *settings, const compress_spec *c)
{
    sync_settings usual;
    const sync_settings *s = settled(m, settings, &usual);
    const double round = c && m->holds_all && compress_goes_apart(c) ? c->local : 1.0;
    return m->pace ? m->pace(s) : (sync_pace){ round, 1.0, 0.0 };
}

double sync_pace_waits(const sync_pace *p, double wire, double trip, double step)
{
    const double piece = wire / p->pieces + trip;
    return p->pieces * fmax(0.0, piece - p->beside * step) / p->every;
}

double sync_mode_host_bytes(const sync_mode *m, const sync_settings *settings, double slots, int holders, int staged)
{
    sync_settings usual;
    if (holders < 2)
        return 0.0;
    const sync_settings *s = settled(m, settings, &usual);
    if (m->host_bytes)
        return m->host_bytes(s, slots, holders, staged);
    return staged ? PLAIN : 0.0;        /* buckets; encodings take less */
}

gt_status sync_mode_host_seconds(const sync_mode *m, const sync_settings *settings, const optim_config *c, int holders,
                                 double *seconds)
{
    sync_settings usual;
    const sync_settings *s = settled(m, settings, &usual);
    *seconds = 0.0;
    return m->host_seconds && holders > 1 ? m->host_seconds(s, c, holders, seconds) : GT_OK;
}

const char *sync_mode_changes(const sync_mode *m, const sync_settings *settings)
{
    sync_settings usual;
    const sync_settings *s = settled(m, settings, &usual);
    return m->changes ? m->changes(s) : NULL;
}
