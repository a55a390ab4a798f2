/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_threshold.c - which tensors are sent in a step, and which are held back: one word of all ranks.
 *
 *   backward over ─► gradient + what was held back ─► norms, to the host ─► flags of all ranks added up
 *        0: held back: kept, and the gradient of this step is 0        above: sent as it is, nothing is kept
 *
 * Nothing leaves before the backward pass is over, since nothing is known of its norm.      */
#include "host/sync/buckets_private.h"

#include <math.h>
#include <stdlib.h>

struct held {
    dev_buffer *grad, *master, *grad_sums, *master_sums;
    dev_list *norms;
    int64_t blocks;
    float *sums;
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the norms of gradients");
}

gt_status sync_held_make(buckets *s, bucket *b)
{
    held *h = b->held = calloc(1, sizeof *h);
    if (!h)
        return no_memory();
    h->blocks = kernel_norm_blocks(s->o.kernels, (int64_t)b->count);
    h->sums = malloc((size_t)h->blocks * sizeof *h->sums);
    gt_status st = h->sums ? GT_OK : no_memory();
    if (!st)
        st = dev_buffer_view(&h->grad, b->grad, b->offset, 4 * b->count);
    if (!st)
        st = dev_buffer_view(&h->master, b->master, b->offset, 4 * b->count);
    if (!st)
        st = dev_buffer_create(&h->grad_sums, s->o.device, 4 * (uint64_t)h->blocks, "norms of gradients");
    if (!st)
        st = dev_buffer_create(&h->master_sums, s->o.device, 4 * (uint64_t)h->blocks, "norms of weights");
    if (!st)
        st = dev_list_create(&h->norms, s->o.device);
    if (!st)
        dev_list_label(h->norms, "norms of gradients");
    if (!st)
        st = kernel_norm_partial(h->norms, s->o.kernels, (int64_t)b->count, h->grad, h->grad_sums);
    return st ? st : kernel_norm_partial(h->norms, s->o.kernels, (int64_t)b->count, h->master, h->master_sums);
}

void sync_held_release(held *h)
{
    if (!h)
        return;
    dev_list_release(h->norms);
    dev_buffer_release(h->grad);
    dev_buffer_release(h->master);
    dev_buffer_release(h->grad_sums);
    dev_buffer_release(h->master_sums);
    free(h->sums);
    free(h);
}

static gt_status squares(const buckets *s, const held *h, dev_buffer *sums, double *out)
{
    gt_status st = dev_read(s->o.device, sums, 0, h->sums, 4 * (uint64_t)h->blocks);
    *out = 0.0;
    for (int64_t i = 0; !st && i < h->blocks; i++)
        *out += (double)h->sums[i];
    return st;
}

/* What this rank thinks; scale: of gradients as they come in. A norm that is no number is for all to see. */
static gt_status is_significant(const buckets *s, const bucket *b, double scale, int32_t *out)
{
    const double ranks = net_group_size(b->group);
    double grad, weights;
    gt_status st = squares(s, b->held, b->held->grad_sums, &grad);
    if (!st)
        st = squares(s, b->held, b->held->master_sums, &weights);
    *out = !st && !(ranks * scale * sqrt(grad) <= b->spec.parameter * sqrt(weights));
    return st;
}

/* Buckets of one group into flag[bucket], as all its ranks together say. */
static gt_status agree(buckets *s, net_group *net, double scale, int32_t *flag, int32_t *some)
{
    gt_status st = GT_OK;
    uint64_t count = 0;
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].held && s->buckets[i].group == net)
            st = is_significant(s, &s->buckets[i], scale, &some[count++]);
    if (!st && count)
        st = net_all_reduce(net, some, count, NET_I32, NULL);
    count = 0;
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].held && s->buckets[i].group == net)
            flag[i] = some[count++];
    return st;
}

static gt_status act(sync_run *run, bucket *b, int send)
{
    const buckets *s = run->state;
    if (send)
        return compress_coding_sent(b->coding);
    b->idle = b->sent = 1;
    b->began = b->ended = 0;
    run->held += (uint64_t)sync_holders_first(s->o.holders, b->group_number);
    run->spared += sync_bucket_crossing(b);
    return compress_coding_decode(b->coding, 0);
}

gt_status sync_held_decide(sync_run *run)
{
    buckets *s = run->state;
    float state[OPTIM_STATE_FLOATS];
    net_group *before = NULL;
    int32_t *flag = calloc(2 * (size_t)s->count + 1, sizeof *flag);
    gt_status st = flag ? GT_OK : no_memory();
    run->held = run->spared = 0;
    for (int i = 0; !st && i < s->count; i++) {
        const bucket *b = &s->buckets[i];
        if (!b->held)
            continue;
        st = compress_coding_encode(b->coding, 0);
        if (!st)
            st = dev_run(b->held->norms, 0, -1);
    }
    if (!st)
        st = dev_read(s->o.device, optim_state(s->o.optim), 0, state, sizeof state);
    const double scale = st ? 0.0 : optim_weighs(s->o.optim) / (double)state[OPTIM_LOSS_SCALE];
    for (int i = 0; !st && i < s->count; i++) {
        if (s->buckets[i].group != before)
            st = agree(s, s->buckets[i].group, scale, flag, flag + s->count);
        before = s->buckets[i].group;
    }
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].held)
            st = act(run, &s->buckets[i], flag[i] > 0);
    free(flag);
    return st;
}
