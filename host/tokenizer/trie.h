/* SPDX-License-Identifier: MIT */
/* host/tokenizer/trie.h - finds which of many texts a text begins with.
 *
 * Edges are entries of one hash table, (node, byte) -> node, so a step is one look-up and
 * memory is in proportion to the bytes added. Nodes are numbered from 0, the first root;
 * further roots are further nodes.
 *
 * Ownership  zero-initialise, then trie_release() whatever happened.
 * Threads    any number may walk one trie that nobody adds to.                          */
#ifndef GT_TOKENIZER_TRIE_H
#define GT_TOKENIZER_TRIE_H

#include "host/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define TRIE_NONE UINT32_MAX

typedef struct trie {
    uint32_t *keys, *nexts;     /* node << 8 | byte -> node; next 0: free */
    size_t slots, edges;
    uint32_t *values;           /* by node: what ends there, TRIE_NONE: nothing */
    uint32_t nodes, room;
} trie;

/* A new root; *out is its node. */
gt_status trie_root(trie *t, uint32_t *out);
/* What ends at the text's last node becomes `value`; *old is what was there. size > 0. */
gt_status trie_add(trie *t, uint32_t root, const void *text, size_t size, uint32_t value, uint32_t *old);
void trie_release(trie *t);

/* The node behind one byte, or 0: none. */
static inline uint32_t trie_step(const trie *t, uint32_t node, unsigned char byte)
{
    const uint32_t key = node << 8 | byte;
    const size_t mask = t->slots - 1;
    size_t i = (size_t)((uint64_t)key * 0x9e3779b97f4a7c15u >> 40) & mask;
    while (t->nexts[i] && t->keys[i] != key)
        i = (i + 1) & mask;
    return t->nexts[i];
}

#endif
