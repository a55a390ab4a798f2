/* SPDX-License-Identifier: MIT */
/* host/sync/blocks.h - what the ranks of a group own of its parameters, where updates and their state are shared out.
 *
 *   segment   |        block 2       |        block 1       |        block 0       |
 *   owners    | 0 000 | 1 111 | 2 222| 0 000 | 1 111 | 2 222| 0 000 | 1 111 | 2 222|
 *                                    ◄── gradients are complete: the last block first
 *
 * Every rank owns a part of every block: what travels of one is sums towards all owners, or new weights from all of
 * them, so all links carry both ways the whole time (a reduce-scatter, an all-gather). Were segments shared out as
 * wholes, gradients of one moment would all be one rank's, and its link the only one in use, one way.
 *
 * A block is neighbouring tensors of 4 MiB or one larger one, so that of a tensor each rank owns one range: state
 * is kept, and lies in checkpoints, as such. Of tensors that the optimizer needs whole (params_keep_whole) a block
 * has so many that each owner gets some, about as much of them; the same tensors on all tensor ranks, which
 * hold slices of them. Tables, whose rows may travel alone, are blocks of their own. What travels does not change how
 * blocks are cut, so that it does not change the order in which the norm of the gradient is added up. */
#ifndef GT_SYNC_BLOCKS_H
#define GT_SYNC_BLOCKS_H

#include "host/optim/optim.h"
#include "host/sync/holders.h"

enum { SYNC_BLOCK_BYTES = 4 << 20 };

typedef struct sync_block {
    int segment, ranks;
    /* Elements of the segment: rank k of its group owns [at[k], at[k + 1]), maybe none; the block is
     * [at[0], at[ranks]). */
    int64_t *at;
} sync_block;

/* Of a rank's segments one after the other, each from its end. */
typedef struct sync_blocks {
    int count, room;
    sync_block *block;
} sync_blocks;

/* What a rank holds alone is one block a segment. The same on all ranks of a group. */
gt_status sync_blocks_make(sync_blocks *out, const sync_holders *h, const params *p);
void sync_blocks_release(sync_blocks *b);
/* That in which an element of a segment lies. */
const sync_block *sync_blocks_find(const sync_blocks *b, int segment, int64_t element);

/* For sync_mode.parts: puts a part behind the others of a list, or makes the last longer. */
gt_status sync_part_add(optim_part **list, int *count, optim_part part);
/* This rank's parts of all blocks. */
gt_status sync_blocks_parts(const sync_holders *h, const params *p, optim_part **list, int *count);

#endif
