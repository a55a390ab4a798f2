/* SPDX-License-Identifier: MIT */
/* host/tokenizer/trie.c - open addressing, at most half full. Node 0 is a root and so no edge
 * leads to it: 0 marks a free slot. A key keeps 24 bits of its node.                    */
#include "host/tokenizer/trie.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX (1u << 24)

void trie_release(trie *t)
{
    free(t->keys);
    free(t->nexts);
    free(t->values);
    memset(t, 0, sizeof *t);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the tree of a tokenizer's texts");
}

static gt_status grow_edges(trie *t)
{
    trie grown = *t;
    grown.slots = t->slots ? 2 * t->slots : 1024;
    grown.keys = malloc(grown.slots * sizeof *grown.keys);
    grown.nexts = calloc(grown.slots, sizeof *grown.nexts);
    if (!grown.keys || !grown.nexts) {
        free(grown.keys);
        free(grown.nexts);
        return no_memory();
    }
    for (size_t i = 0; i < t->slots; i++) {
        if (!t->nexts[i])
            continue;
        const size_t mask = grown.slots - 1;
        size_t at = (size_t)((uint64_t)t->keys[i] * 0x9e3779b97f4a7c15u >> 40) & mask;
        while (grown.nexts[at])
            at = (at + 1) & mask;
        grown.keys[at] = t->keys[i];
        grown.nexts[at] = t->nexts[i];
    }
    free(t->keys);
    free(t->nexts);
    *t = grown;
    return GT_OK;
}

gt_status trie_root(trie *t, uint32_t *out)
{
    if (t->nodes == t->room) {
        const uint32_t room = t->room ? 2 * t->room : 512;
        uint32_t *values = realloc(t->values, room * sizeof *values);
        if (!values)
            return no_memory();
        t->values = values;
        t->room = room;
    }
    if (t->nodes == NODES_MAX)
        return gt_fail(GT_UNSUPPORTED, "the tokenizer's texts have more than %u beginnings", NODES_MAX);
    gt_status st = 2 * (t->edges + 1) > t->slots ? grow_edges(t) : GT_OK;
    if (st)
        return st;
    t->values[t->nodes] = TRIE_NONE;
    *out = t->nodes++;
    return GT_OK;
}

gt_status trie_add(trie *t, uint32_t root, const void *text, size_t size, uint32_t value, uint32_t *old)
{
    const unsigned char *bytes = text;
    uint32_t node = root;
    assert(root < t->nodes && size);
    for (size_t i = 0; i < size; i++) {
        uint32_t next = trie_step(t, node, bytes[i]);
        if (!next) {
            gt_status st = trie_root(t, &next);
            if (st)
                return st;
            const uint32_t key = node << 8 | bytes[i];
            const size_t mask = t->slots - 1;
            size_t at = (size_t)((uint64_t)key * 0x9e3779b97f4a7c15u >> 40) & mask;
            while (t->nexts[at])
                at = (at + 1) & mask;
            t->keys[at] = key;
            t->nexts[at] = next;
            t->edges++;
        }
        node = next;
    }
    *old = t->values[node];
    t->values[node] = value;
    return GT_OK;
}
