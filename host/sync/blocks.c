/* SPDX-License-Identifier: MIT */
/* host/sync/blocks.c - cutting segments into blocks, and blocks into parts. */
#include "host/sync/blocks.h"

#include <stdlib.h>

enum { BLOCK = SYNC_BLOCK_BYTES / 4 };  /* elements */

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the list of what ranks own");
}

/* What is known of tensors while they are cut. */
typedef struct cutting {
    sync_blocks *out;
    const sync_holders *h;
    const params *p;
    int *run;                           /* [tensor] blocks of whole tensors are numbered; -1: cut anywhere */
    int *owner;                         /* [tensor] of such: a rank of its group            */
} cutting;

/* ---- tensors that are needed whole --------------------------------------------------------------- */

/* The k-th rank of a group that owns anything, and how many do. */
static int owner_at(const double *share, int ranks, int k, int *all)
{
    int found = 0;
    *all = 0;
    for (int r = 0; r < ranks; r++)
        if (!share || share[r] > 0.0) {
            if (*all == k)
                found = r;
            ++*all;
        }
    return found;
}

/* What a tensor counts where its group is dealt out. Of tensor ranks one may hold more than the others do, as a bias
 * that one of them adds for all; what each has a slice of must go to ranks of the same place, so that alone counts. */
static int64_t weight_of(const cutting *c, int i, int sliced)
{
    const graph_param_info *info = params_info(c->p, i);
    return sliced && !info->slice.parts ? 0 : shape_count(&info->full);
}

/* Tensors list[from, to) are a block: each belongs to the owner in whose equal part its middle lies. */
static void own_whole(cutting *c, const int *list, int from, int to, int number, int sliced)
{
    const int group = params_group(c->p, list[from]);
    const double *share = sync_holders_shares(c->h, group);
    const int ranks = net_group_size(sync_holders_net(c->h, group));
    int64_t all = 0, before = 0;
    int owners;
    owner_at(share, ranks, 0, &owners);
    for (int i = from; i < to; i++)
        all += weight_of(c, list[i], sliced);
    for (int i = to; i-- > from;) { /* the list goes backwards, parts forwards */
        const int64_t size = weight_of(c, list[i], sliced);
        const double middle = (double)before + 0.5 * (double)size;
        const int k = all ? (int)(middle * owners / (double)all) : 0;
        c->run[list[i]] = number;
        c->owner[list[i]] = owner_at(share, ranks, k < owners ? k : owners - 1, &owners);
        before += size;
    }
}

/* Sizes are those of whole tensors, for tensor ranks hold slices, and have segments of their own: so a block may end
 * within one. A block is full when its largest tensor is no more than one owner's part. */
static void cut_whole(cutting *c, int group, int *list, int *number)
{
    const int ranks = net_group_size(sync_holders_net(c->h, group));
    int count = 0, from = 0, sliced = 0, owners;
    int64_t sum = 0, largest = BLOCK;
    owner_at(sync_holders_shares(c->h, group), ranks, 0, &owners);
    for (int decay = 0; decay < 2; decay++) /* the other way round than they are placed */
        for (int i = params_count(c->p); i-- > 0;) {
            const graph_param_info *info = params_info(c->p, i);
            if (!info->frozen && params_group(c->p, i) == group && info->decay == decay && params_is_whole(c->p, i))
                list[count++] = i;
        }
    for (int i = 0; i < count; i++)
        sliced |= params_info(c->p, list[i])->slice.parts > 0;
    for (int i = 0; i < count; i++) {
        const int64_t size = weight_of(c, list[i], sliced);
        largest = size > largest ? size : largest;
        sum += size;
        if (i + 1 < count && sum < owners * largest)
            continue;
        own_whole(c, list, from, i + 1, (*number)++, sliced);
        from = i + 1;
        sum = 0;
        largest = BLOCK;
    }
}

static gt_status find_whole(cutting *c)
{
    const int all = params_count(c->p);
    int *list = malloc(((size_t)all + 1) * sizeof *list), number = 0, before = -1;
    for (int i = 0; i < all; i++)
        c->run[i] = -1;
    for (int s = 0; list && s < params_segments(c->p); s++) {
        const int group = params_segment_at(c->p, s)->group;
        if (group != before && sync_holders_net(c->h, group))
            cut_whole(c, group, list, &number);
        before = group;
    }
    free(list);
    return list ? GT_OK : no_memory();
}

/* ---- blocks -------------------------------------------------------------------------------------- */

static gt_status add_block(sync_blocks *b, int segment, int ranks, int64_t first, int64_t end, sync_block **out)
{
    if (b->count == b->room) {
        const int room = b->room ? 2 * b->room : 32;
        sync_block *more = realloc(b->block, (size_t)room * sizeof *more);
        if (!more)
            return no_memory();
        b->block = more;
        b->room = room;
    }
    sync_block *k = *out = &b->block[b->count];
    *k = (sync_block){ segment, ranks, malloc(((size_t)ranks + 1) * sizeof *k->at) };
    if (!k->at)
        return no_memory();
    b->count++;
    for (int r = 0; r <= ranks; r++)
        k->at[r] = r ? end : first;
    return GT_OK;
}

/* Where part k begins with these shares. */
static int64_t begin_of(const double *share, int ranks, int64_t pieces, int k)
{
    double before = 0.0;
    int last = 0;
    for (int i = 0; i < ranks; i++)
        last = share[i] > 0.0 ? i : last;
    for (int i = 0; i < k; i++)
        before += share[i];
    return k > last ? pieces : (int64_t)(before * (double)pieces + 0.5);
}

static void part_anywhere(const cutting *c, sync_block *b)
{
    const double *share = sync_holders_shares(c->h, params_segment_at(c->p, b->segment)->group);
    const int64_t step = params_step(c->p), first = b->at[0], end = b->at[b->ranks], count = end - first;
    const int64_t pieces = (count + step - 1) / step;
    for (int r = 1; r < b->ranks; r++) {
        uint64_t begin, size;
        net_part((uint64_t)pieces, b->ranks, r, &begin, &size);
        const int64_t at = (share ? begin_of(share, b->ranks, pieces, r) : (int64_t)begin) * step;
        b->at[r] = first + (at < count ? at : count);
    }
}

/* tensors[0, n), the last first. */
static void part_whole(const cutting *c, sync_block *b, const int *tensors, int n)
{
    for (int r = 1; r < b->ranks; r++)
        for (int i = 0; i < n; i++) {
            int segment;
            int64_t first;
            params_place(c->p, tensors[i], &segment, &first);
            if (c->owner[tensors[i]] >= r)
                b->at[r] = first;
        }
}

/* It shares a block with no other: its rows may travel alone. */
static int is_apart(const cutting *c, int i)
{
    const graph_param_info *info = params_info(c->p, i);
    return c->run[i] < 0 && info->table && info->shape.rank == 2;
}

/* Of two neighbours. */
static int goes_with(const cutting *c, int i, int k)
{
    return c->run[i] == c->run[k] && !is_apart(c, i) && !is_apart(c, k);
}

static gt_status cut_segment(cutting *c, int segment, int *tensors)
{
    const params_segment *s = params_segment_at(c->p, segment);
    const net_group *net = sync_holders_net(c->h, s->group);
    const int ranks = net ? net_group_size(net) : 1;
    int64_t end = s->count, begin = end;
    sync_block *b;
    int n = 0;
    gt_status st = GT_OK;
    if (!net)
        return add_block(c->out, segment, 1, 0, s->count, &b);
    for (int i = params_count(c->p); !st && i-- > -1;) {
        int at = segment;
        int64_t first = -1;
        if (i >= 0)
            params_place(c->p, i, &at, &first);
        if (at != segment)
            continue;
        if (n && (i < 0 || !goes_with(c, i, tensors[n - 1]) || (c->run[i] < 0 && end - begin >= BLOCK))) {
            st = add_block(c->out, segment, ranks, begin, end, &b);
            if (!st && c->run[tensors[0]] < 0)
                part_anywhere(c, b);
            else if (!st)
                part_whole(c, b, tensors, n);
            end = begin;
            n = 0;
        }
        if (i >= 0)
            tensors[n++] = i;
        begin = first;
    }
    return st;
}

gt_status sync_blocks_make(sync_blocks *out, const sync_holders *h, const params *p)
{
    const size_t all = (size_t)params_count(p) + 1;
    int *room = malloc(3 * all * sizeof *room);
    *out = (sync_blocks){ 0 };
    if (!room)
        return no_memory();
    cutting c = { out, h, p, room, room + all };
    gt_status st = find_whole(&c);
    for (int s = 0; !st && s < params_segments(p); s++)
        st = cut_segment(&c, s, room + 2 * all);
    free(room);
    if (st)
        sync_blocks_release(out);
    return st;
}

void sync_blocks_release(sync_blocks *b)
{
    for (int i = 0; i < b->count; i++)
        free(b->block[i].at);
    free(b->block);
    *b = (sync_blocks){ 0 };
}

const sync_block *sync_blocks_find(const sync_blocks *b, int segment, int64_t element)
{
    for (int i = 0; i < b->count; i++) {
        const sync_block *k = &b->block[i];
        if (k->segment == segment && k->at[0] <= element && element < k->at[k->ranks])
            return k;
    }
    return NULL;
}

/* ---- parts --------------------------------------------------------------------------------------- */

gt_status sync_part_add(optim_part **list, int *count, optim_part part)
{
    optim_part *last = *count ? &(*list)[*count - 1] : NULL;
    if (part.count <= 0)
        return GT_OK;
    if (last && last->segment == part.segment && last->first + last->count == part.first) {
        last->count += part.count;
        return GT_OK;
    }
    optim_part *more = realloc(*list, ((size_t)*count + 1) * sizeof *more);
    if (!more)
        return no_memory();
    *list = more;
    more[(*count)++] = part;
    return GT_OK;
}

gt_status sync_blocks_parts(const sync_holders *h, const params *p, optim_part **list, int *count)
{
    sync_blocks all;
    gt_status st = sync_blocks_make(&all, h, p);
    for (int i = 0, next; !st && i < all.count; i = next) { /* of a segment from its beginning */
        for (next = i; next < all.count && all.block[next].segment == all.block[i].segment; next++)
            continue;
        for (int k = next; !st && k-- > i;) {
            const sync_block *b = &all.block[k];
            const net_group *net = sync_holders_net(h, params_segment_at(p, b->segment)->group);
            const int me = net ? net_group_rank(net) : 0;
            st = sync_part_add(list, count, (optim_part){ b->segment, b->at[me], b->at[me + 1] - b->at[me], 1 });
        }
    }
    sync_blocks_release(&all);
    return st;
}
