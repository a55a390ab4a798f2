/* SPDX-License-Identifier: MIT */
/* host/sync/local_parts.c - fragments of the parameters, and an outer step of one.
 *
 *   segment 0   | wte | h.0 | h.1 | h.2 | h.3 |      fragments of 2: h.0 h.2, and h.1 h.3 wte
 *   part        runs of tensors of one fragment in one segment, packed one behind the other
 *
 * All of it lies in host memory: an outer step is rare, and what it keeps need not take the device's. Which
 * fragment a tensor is of follows from its name, the first number between dots, so ranks with other
 * layers need not ask.                                                                      */
#include "host/sync/local_rounds.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_RANKS = 64 };              /* of a group, without asking for memory */

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the parameters from which replicas set out");
}

/* ---- making them ------------------------------------------------------------------------------ */

static int fragment_of(const local *l, const char *name)
{
    for (const char *p = name; *p;) {
        char *end;
        const size_t n = strcspn(p, ".");
        const unsigned long layer = strtoul(p, &end, 10);
        if (*p >= '0' && *p <= '9' && end == p + n)
            return (int)(layer % (unsigned long)l->fragments);
        p += n + (p[n] == '.');
    }
    return l->fragments - 1;
}

static local_part *part_of(local *l, int segment, int fragment)
{
    for (int i = 0; i < l->part_count; i++)
        if (l->parts[i].segment == segment && l->parts[i].fragment == fragment)
            return &l->parts[i];
    return NULL;
}

/* Where the tensor behind parameter i begins in its segment, or the segment ends. */
static int64_t end_of(const params *p, int i)
{
    int segment, at;
    int64_t first, next;
    params_place(p, i, &segment, &first);
    int64_t end = params_segment_at(p, segment)->count;
    for (int k = 0; k < params_count(p); k++) {
        params_place(p, k, &at, &next);
        if (at == segment && next > first && next < end)
            end = next;
    }
    return end;
}

/* Puts a tensor, and the gap behind it, at the end of its part. */
static gt_status add_tensor(local *l, int i)
{
    int segment;
    int64_t first;
    params_place(l->o.params, i, &segment, &first);
    if (segment < 0)
        return GT_OK;
    const int fragment = fragment_of(l, params_info(l->o.params, i)->name);
    const int group = params_segment_at(l->o.params, segment)->group;
    local_part *part = part_of(l, segment, fragment);
    if (!part) {
        part = &l->parts[l->part_count++];
        *part = (local_part){ .segment = segment,
                              .fragment = fragment,
                              .group_number = group,
                              .group = sync_holders_net(l->o.holders, group),
                              .gives = sync_holders_first_within(l->o.holders, group) };
    }
    const int64_t count = end_of(l->o.params, i) - first;
    l->place[i] = (local_place){ part, part->count };
    local_tensor *tensors = realloc(part->tensors, ((size_t)part->tensor_count + 1) * sizeof *tensors);
    if (!tensors)
        return no_memory();
    part->tensors = tensors;
    tensors[part->tensor_count++] = (local_tensor){ part->count, shape_count(&params_info(l->o.params, i)->shape) };
    part->count += count;
    local_run *last = part->run_count ? &part->runs[part->run_count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
        return GT_OK;
    }
    local_run *more = realloc(part->runs, ((size_t)part->run_count + 1) * sizeof *more);
    if (!more)
        return no_memory();
    part->runs = more;
    part->runs[part->run_count++] = (local_run){ first, count };
    return GT_OK;
}

/* Parts of a fragment lie one behind the other in the network's memory, and fragments over each other: one
 * is over before the next begins. */
static gt_status place_wires(local *l)
{
    int64_t most = 0, room = 0;
    for (int f = 0; f < l->fragments; f++) {
        int64_t at = 0;
        for (int i = 0; i < l->part_count; i++)
            at += l->parts[i].fragment == f ? l->parts[i].count : 0;
        most = at > most ? at : most;
    }
    gt_status st = most ? net_comm_memory(l->o.comm, 4 * (uint64_t)most, &l->wire) : GT_OK;
    for (int f = 0; !st && f < l->fragments; f++) {
        int64_t at = 0;
        for (int i = 0; i < l->part_count; i++) {
            local_part *p = &l->parts[i];
            if (p->fragment != f)
                continue;
            p->wire = (float *)l->wire + at;
            at += p->count;
            room = p->count > room ? p->count : room;
        }
    }
    l->room = st || l->mix <= 0.0 ? NULL : malloc(4 * (size_t)room + 4);
    return st || l->room || l->mix <= 0.0 ? st : no_memory();
}

static int members(const local_part *p)
{
    return p->group ? net_group_size(p->group) : 1;
}

/* Does rank k of the part's group give? */
static int member_gives(const local *l, const local_part *p, int k)
{
    return p->group ? sync_holders_first_at(l->o.holders, p->group_number, k) : p->gives;
}

static int givers(const local *l, const local_part *p)
{
    int n = 0;
    for (int k = 0; k < members(p); k++)
        n += member_gives(l, p, k);
    return n;
}

/* Encodings, like sums, lie over those of other fragments. */
static gt_status place_codes(local *l)
{
    uint64_t most = 0;
    for (int f = 0; f < l->fragments; f++) {
        uint64_t at = 0;
        for (int i = 0; i < l->part_count; i++) {
            local_part *p = &l->parts[i];
            if (p->fragment != f)
                continue;
            p->code_bytes = sizeof(double);
            for (int k = 0; k < p->tensor_count; k++)
                p->code_bytes += sparse_bytes(p->tensors[k].count, l->keep);
            p->code_bytes = (p->code_bytes + 7) / 8 * 8;
            at += p->code_bytes * (uint64_t)givers(l, p);
        }
        most = at > most ? at : most;
    }
    gt_status st = most ? net_comm_memory(l->o.comm, most, &l->codes) : GT_OK;
    for (int f = 0; !st && f < l->fragments; f++) {
        unsigned char *at = l->codes;
        for (int i = 0; !st && i < l->part_count; i++) {
            local_part *p = &l->parts[i];
            if (p->fragment != f)
                continue;
            p->code = at;
            at += p->code_bytes * (uint64_t)givers(l, p);
            p->error = p->gives ? calloc((size_t)p->count + 1, sizeof *p->error) : NULL;
            st = p->gives && !p->error ? no_memory() : GT_OK;
        }
    }
    return st;
}

static gt_status make_memory(local *l)
{
    int starts = l->rule->starts, missing = 0;
    for (int i = 0; i < l->part_count; i++) {
        local_part *p = &l->parts[i];
        p->start = starts ? calloc((size_t)p->count + 1, 4) : NULL;
        p->momentum = l->rule->moves ? calloc((size_t)p->count + 1, 4) : NULL;
        missing |= (starts && !p->start) || (l->rule->moves && !p->momentum);
    }
    gt_status st = missing ? no_memory() : place_wires(l);
    return st || !l->rule->sparse ? st : place_codes(l);
}

/* All ranks of a group must pack alike. */
static gt_status compare(const local *l)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_segments(l->o.params); i++) {
        const int group = params_segment_at(l->o.params, i)->group;
        net_group *net = sync_holders_net(l->o.holders, group);
        if (net && (!i || params_segment_at(l->o.params, i - 1)->group != group))
            st = sync_places_compare(l->o.params, net, group);
    }
    return st;
}

gt_status local_parts_create(local *l)
{
    const size_t most = (size_t)params_segments(l->o.params) * (size_t)l->fragments, f = (size_t)l->fragments;
    l->parts = calloc(most + 1, sizeof *l->parts);
    l->place = calloc((size_t)params_count(l->o.params) + 1, sizeof *l->place);
    l->began = calloc(f, sizeof *l->began);
    l->fresh = calloc(f, 1);
    l->own = calloc(f, sizeof *l->own);
    l->all = calloc(f, sizeof *l->all);
    gt_status st = l->parts && l->place && l->began && l->fresh && l->own && l->all ? GT_OK : no_memory();
    for (int i = 0; !st && i < params_count(l->o.params); i++)
        st = add_tensor(l, i);
    if (!st)
        st = compare(l);
    return st ? st : make_memory(l);
}

void local_parts_release(local *l)
{
    for (int i = 0; l->parts && i < l->part_count; i++) {
        local_part *p = &l->parts[i];
        if (p->sum && net_collective_wait(p->sum))
            gt_message_clear();
        free(p->runs);
        free(p->tensors);
        free(p->error);
        free(p->start);
        free(p->momentum);
    }
    if (l->wire)
        net_comm_memory_free(l->o.comm, l->wire);
    if (l->codes)
        net_comm_memory_free(l->o.comm, l->codes);
    free(l->parts);
    free(l->place);
    free(l->room);
    free(l->began);
    free(l->fresh);
    free(l->own);
    free(l->all);
}

/* ---- an outer step ----------------------------------------------------------------------------- */

/* The masters of a part, packed; waits. */
static gt_status move(const local *l, const local_part *p, float *packed, int write)
{
    dev_buffer *master = params_segment_at(l->o.params, p->segment)->master;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < p->run_count; i++) {
        const uint64_t at = 4 * (uint64_t)p->runs[i].first, bytes = 4 * (uint64_t)p->runs[i].count;
        st = write ? dev_write(l->o.device, master, at, packed, bytes)
                   : dev_read(l->o.device, master, at, packed, bytes);
        packed += p->runs[i].count;
    }
    return st;
}

gt_status local_parts_start(local *l)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < l->part_count; i++)
        st = move(l, &l->parts[i], l->parts[i].start, 0);
    return st;
}

uint64_t local_fragment_bytes(const local *l, int fragment)
{
    uint64_t bytes = 0;
    for (int i = 0; i < l->part_count; i++)
        if (l->parts[i].fragment == fragment && l->parts[i].group)
            bytes += !l->rule->sparse    ? 4 * (uint64_t)l->parts[i].count
                     : l->parts[i].gives ? l->parts[i].code_bytes
                                         : 0;
    return bytes;
}

/* Of all targets since the fragment's last sum began; where none counted nothing has moved, and one replica
 * speaks for all. */
static double share_of(const local *l, int fragment)
{
    return l->all[fragment] > 0.0 ? l->own[fragment] / l->all[fragment]
                                  : (double)sync_holders_in_first_replica(l->o.holders);
}

static gt_status begin_sum(local *l, local_part *p, double share)
{
    gt_status st = GT_OK;
    if (p->gives) {
        st = move(l, p, p->wire, 0);
        if (!st)
            l->rule->give(p->wire, p->start, p->count, share);
    } else {
        memset(p->wire, 0, 4 * (size_t)p->count);
    }
    return st || !p->group ? st : net_all_reduce_start(p->group, p->wire, (uint64_t)p->count, NET_F32, NULL, &p->sum);
}

/* What was left over and the way since, into this rank's place among the encodings. */
static gt_status encode(local *l, local_part *p, double share, unsigned char *code)
{
    gt_status st = move(l, p, p->wire, 0);
    for (int64_t i = 0; i < p->count; i++)
        p->error[i] = (float)(l->decay * (double)p->error[i] + ((double)p->start[i] - (double)p->wire[i]));
    memset(code, 0, (size_t)p->code_bytes);
    memcpy(code, &share, sizeof share);
    code += sizeof share;
    for (int k = 0; k < p->tensor_count; k++) {
        sparse_encode(code, p->error + p->tensors[k].at, p->tensors[k].count, l->keep);
        code += sparse_bytes(p->tensors[k].count, l->keep);
    }
    return st;
}

static gt_status begin_gather(local *l, local_part *p, double share)
{
    uint64_t counts[PARTS_RANKS], all = 0, *count = members(p) > PARTS_RANKS ? calloc((size_t)members(p), 8) : counts;
    gt_status st = count ? GT_OK : no_memory();
    for (int k = 0; !st && k < members(p); k++) {
        count[k] = member_gives(l, p, k) ? p->code_bytes / 4 : 0;
        if (p->gives && k == (p->group ? net_group_rank(p->group) : 0))
            st = encode(l, p, share, p->code + 4 * all);
        all += count[k];
    }
    if (!st && p->group)
        st = net_all_gather_start(p->group, p->code, all, count, NET_I32, NULL, &p->sum);
    if (count != counts)
        free(count);
    return st;
}

/* In the order of ranks: the same bits everywhere. */
static void decode(const local *l, local_part *p)
{
    const unsigned char *code = p->code;
    memset(p->wire, 0, 4 * (size_t)p->count);
    for (int k = givers(l, p); k-- > 0; code += p->code_bytes) {
        const unsigned char *at = code + sizeof(double);
        double share;
        memcpy(&share, code, sizeof share);
        for (int i = 0; i < p->tensor_count; i++) {
            sparse_add(p->wire + p->tensors[i].at, at, p->tensors[i].count, l->keep, share);
            at += sparse_bytes(p->tensors[i].count, l->keep);
        }
    }
}

gt_status local_fragment_begin(local *l, int fragment, uint64_t step)
{
    const double share = share_of(l, fragment);
    gt_status st = GT_OK;
    l->own[fragment] = l->all[fragment] = 0.0;
    l->began[fragment] = step;
    for (int i = 0; !st && i < l->part_count; i++) {
        local_part *p = &l->parts[i];
        if (p->fragment == fragment)
            st = l->rule->sparse ? begin_gather(l, p, share) : begin_sum(l, p, share);
    }
    return st;
}

/* Where all go on from is in the part's wire. */
static gt_status settle(local *l, local_part *p, double keep)
{
    if (keep <= 0.0)
        return move(l, p, p->wire, 1);
    gt_status st = move(l, p, l->room, 0);
    outer_mix(l->room, p->wire, p->count, keep);
    return st ? st : move(l, p, l->room, 1);
}

gt_status local_fragment_finish(local *l, int fragment, double keep)
{
    gt_status st = GT_OK;
    l->began[fragment] = 0;
    for (int i = 0; i < l->part_count; i++) {       /* all of them, whatever comes of one */
        local_part *p = &l->parts[i];
        net_collective *sum = p->sum;
        if (p->fragment != fragment)
            continue;
        p->sum = NULL;
        const gt_status summed = sum ? net_collective_wait(sum) : GT_OK;
        st = st ? st : summed;
        if (st)
            continue;
        if (l->rule->sparse)
            decode(l, p);
        l->rule->take(p->wire, p->start, p->momentum, p->count, l->lr, l->momentum);
        st = settle(l, p, keep);
    }
    return st;
}
