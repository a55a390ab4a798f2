/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_clip.c - a replica's gradient, clipped before anything of it is encoded.
 *
 *   rank      squares of its segments ─► sum over the ranks of its replica ─► factor ─► every segment times it
 *
 * The gradients of N replicas that know nothing of each other add up to about sqrt(N) times the norm of one, so each
 * may have limit / sqrt(N) (Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.2). What ranks of a replica
 * hold in common, each has a part of the gradient of, and its squares are those of the parts. */
#include "host/sync/buckets_private.h"

#include <math.h>
#include <stdlib.h>

struct bucket_clip {
    dev_list *norms, *shrink;
    dev_buffer **partial;               /* [segment] sums of squares of blocks              */
    dev_buffer *squares;                /* of all of them; then their sum over the replica  */
    float *sums;
    int segments;
    int64_t blocks;
    kernel_slot weigh_at;
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the norm of a replica's gradient");
}

/* Replicas of the run: ranks that lead one. */
static gt_status count_replicas(const buckets *s, int *out)
{
    const int ranks = net_comm_size(s->o.comm);
    int *leads = calloc((size_t)ranks, sizeof *leads);
    if (!leads)
        return no_memory();
    leads[net_comm_rank(s->o.comm)] = sync_holders_leads(s->o.holders);
    gt_status st = net_all_gather(net_group_world(s->o.comm), leads, (uint64_t)ranks, NULL, NET_I32, NULL);
    *out = 0;
    for (int r = 0; !st && r < ranks; r++)
        *out += leads[r];
    free(leads);
    return st;
}

static gt_status append_norms(buckets *s, struct bucket_clip *c)
{
    gt_status st = GT_OK;
    dev_list_label(c->norms, "norm of a replica's gradient");
    for (int i = 0; !st && i < c->segments; i++) {
        const params_segment *p = params_segment_at(s->o.params, i);
        const int64_t blocks = kernel_norm_blocks(s->o.kernels, p->count);
        if (!p->count)
            continue;
        st = dev_buffer_create(&c->partial[i], s->o.device, 4 * (uint64_t)blocks, "partial norms");
        if (!st)
            st = kernel_norm_partial(c->norms, s->o.kernels, p->count, p->grad, c->partial[i]);
        c->blocks += blocks;
    }
    if (!st)
        st = dev_buffer_create(&c->squares, s->o.device, 4 * (uint64_t)(c->blocks + 1), "partial norms");
    uint64_t at = 0;
    for (int i = 0; !st && i < c->segments; i++) {
        const uint64_t bytes = c->partial[i] ? dev_buffer_bytes(c->partial[i]) : 0;
        if (bytes)
            st = dev_list_copy(c->norms, c->squares, at, c->partial[i], 0, bytes);
        at += bytes;
    }
    return st;
}

static gt_status append_shrink(buckets *s, struct bucket_clip *c, int replicas)
{
    const float limit = (float)(s->o.compress.clip / sqrt(replicas));
    dev_list_label(c->shrink, "clipping of a replica's gradient");
    gt_status st = kernel_compress_clip(c->shrink, s->o.kernels, limit, c->squares, optim_state(s->o.optim), s->frame,
                                        &c->weigh_at);
    for (int i = 0; !st && i < c->segments; i++) {
        const params_segment *p = params_segment_at(s->o.params, i);
        if (p->count)
            st = kernel_compress_shrink(c->shrink, s->o.kernels, p->count, s->frame, p->grad);
    }
    return st;
}

gt_status sync_buckets_clip_create(buckets *s)
{
    struct bucket_clip *c = calloc(1, sizeof *c);
    int replicas = 1;
    s->clip = c;
    if (!c)
        return no_memory();
    c->segments = params_segments(s->o.params);
    c->partial = calloc((size_t)c->segments + 1, sizeof *c->partial);
    gt_status st = c->partial ? count_replicas(s, &replicas) : no_memory();
    if (!st)
        st = dev_list_create(&c->norms, s->o.device);
    if (!st)
        st = dev_list_create(&c->shrink, s->o.device);
    if (!st)
        st = append_norms(s, c);
    if (!st)
        st = append_shrink(s, c, replicas);
    c->sums = malloc(4 * (size_t)(c->blocks + 1));
    return st || c->sums ? st : no_memory();
}

gt_status sync_buckets_clip(buckets *s)
{
    struct bucket_clip *c = s->clip;
    net_group *replica = sync_holders_replica(s->o.holders);
    sync_totals sum = { 0 };
    gt_status st = dev_run(c->norms, 0, -1);
    if (!st && c->blocks)
        st = dev_read(s->o.device, c->squares, 0, c->sums, 4 * (uint64_t)c->blocks);
    for (int64_t i = 0; !st && i < c->blocks; i++)
        sum.squares += (double)c->sums[i];
    if (!st && replica)
        st = sync_totals_sum(replica, &sum, NULL);
    c->sums[0] = (float)sum.squares;
    if (!st)
        st = dev_write(s->o.device, c->squares, 0, c->sums, 4);
    if (!st)
        st = dev_list_set(c->shrink, c->weigh_at.launch, c->weigh_at.arg, dev_arg_f32((float)optim_weighs(s->o.optim)));
    return st ? st : dev_run(c->shrink, 0, -1);
}

void sync_buckets_clip_release(struct bucket_clip *c)
{
    if (!c)
        return;
    dev_list_release(c->norms);
    dev_list_release(c->shrink);
    for (int i = 0; c->partial && i < c->segments; i++)
        dev_buffer_release(c->partial[i]);
    dev_buffer_release(c->squares);
    free(c->partial);
    free(c->sums);
    free(c);
}
