/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_given.c - what replicas have made of steps apart, put together as a step's moments are.
 *
 *   step of all together   grad: this rank's gradients ─ + beta1 m / ranks, + held back ─► encoded ═══► sum
 *   steps apart            grad: its share of m        ─ + held back ─────────────────────► encoded ═══► sum
 *
 * The same encodings, and the same errors held back, so that rounds may grow out of single steps. What comes of the
 * optimizer's update, by which a step is taken or not, is not asked here: that was each replica's own. */
#include "host/sync/buckets_private.h"

#include <limits.h>

uint64_t sync_buckets_given_bytes(const sync_run *run)
{
    buckets *s = run->state;
    const int plain = s->plain;
    uint64_t sum = 0;
    s->plain = 0;
    for (int i = 0; i < s->count; i++)
        sum += s->buckets[i].packs ? 0 : sync_bucket_crossing(&s->buckets[i]);
    s->plain = plain;
    return sum;
}

gt_status sync_buckets_keep_left(sync_run *run)
{
    buckets *s = run->state;
    gt_status st = s->left && !s->settled ? sync_buckets_settle(run, 0) : GT_OK;
    s->left = 0;
    return st;
}

/* 1: what lies in the gradients' memory is moments; 0: gradients. */
static gt_status set_whole(const buckets *s, int whole)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].coding)
            st = compress_coding_whole(s->buckets[i].coding, whole);
    return st;
}

static gt_status write_frame(const buckets *s, int place, double x)
{
    const float value = (float)x;
    return dev_write(s->o.device, s->frame, 4 * (uint64_t)place, &value, sizeof value);
}

/* What a step that is begun for gradients finds out; tables do not travel by rows. */
static gt_status begin(sync_run *run, double kept)
{
    buckets *s = run->state;
    gt_status st = sync_buckets_keep_left(run);
    s->plain = 0;
    if (!st)
        st = set_whole(s, 1);
    if (!st)                            /* with nothing left, that is the frame and no more */
        st = sync_buckets_settle(run, run->step);
    if (!st)
        st = write_frame(s, COMPRESS_WEIGH, 1.0);
    if (!st)
        st = write_frame(s, COMPRESS_RATIO, kept);
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        b->idle = b->sent = b->packs != NULL;
        if (b->coding)
            compress_coding_level(b->coding, 0);
    }
    s->settled = 0;
    return st;
}

static gt_status keep(buckets *s)
{
    gt_status st = write_frame(s, COMPRESS_TAKE, 1.0);
    if (!st)
        st = write_frame(s, COMPRESS_RATIO, 1.0);
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].coding)
            st = compress_coding_commit(s->buckets[i].coding);
    s->settled = 1;
    return st;
}

gt_status sync_buckets_put_together(sync_run *run, double kept)
{
    buckets *s = run->state;
    uint64_t bytes = 0;
    gt_status st = begin(run, kept);
    s->given = 1;
    for (int c = 0; !st && c < s->o.chunks; c++)
        st = sync_buckets_ready(run, c, INT_MAX, 1);
    if (!st)
        st = sync_buckets_finish(run, &bytes);
    s->given = 0;
    if (!st)
        st = keep(s);
    return st ? st : set_whole(s, 0);
}
