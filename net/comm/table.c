/* SPDX-License-Identifier: MIT */
/* net/comm/table.c - a hash table of things that wait under a tag; it grows, and never shrinks. */
#include "net/comm/comm_private.h"

#include <stdlib.h>

static size_t bucket_of(const table *t, const tag *k, node_kind kind)
{
    uint64_t h = k->context ^ (k->sequence * 0x9e3779b97f4a7c15u);
    h ^= ((uint64_t)k->step << 32) ^ ((uint64_t)(uint32_t)k->peer << 8) ^ (uint64_t)kind;
    h *= 0xff51afd7ed558ccdu;
    return (size_t)(h >> 32) & (t->buckets - 1);
}

static int same(const tag *a, const tag *b)
{
    return a->context == b->context && a->sequence == b->sequence && a->step == b->step && a->peer == b->peer;
}

/* When there is no memory to grow, chains get longer, and nothing else happens. */
static void grow(table *t)
{
    table bigger = { .buckets = t->buckets ? 4 * t->buckets : 256, .count = t->count };
    bigger.bucket = calloc(bigger.buckets, sizeof *bigger.bucket);
    if (!bigger.bucket)
        return;
    for (size_t i = 0; i < t->buckets; i++)
        for (node *n = t->bucket[i], *next; n; n = next) {
            next = n->next;
            node **home = &bigger.bucket[bucket_of(&bigger, &n->key, n->kind)];
            n->next = *home;
            *home = n;
        }
    free(t->bucket);
    *t = bigger;
}

gt_status table_open(table *t)
{
    *t = (table){ 0 };
    grow(t);
    return t->buckets ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for the table of tags");
}

void table_insert(table *t, node *n)
{
    if (t->count >= t->buckets)
        grow(t);
    node **home = &t->bucket[bucket_of(t, &n->key, n->kind)];
    n->next = *home;
    *home = n;
    t->count++;
}

node *table_find(const table *t, const tag *key, node_kind kind)
{
    for (node *n = t->bucket[bucket_of(t, key, kind)]; n; n = n->next)
        if (n->kind == kind && same(&n->key, key))
            return n;
    return NULL;
}

void table_remove(table *t, node *n)
{
    for (node **p = &t->bucket[bucket_of(t, &n->key, n->kind)]; *p; p = &(*p)->next)
        if (*p == n) {
            *p = n->next;
            t->count--;
            return;
        }
}

void table_release(table *t, void (*drop)(node *n))
{
    for (size_t i = 0; i < t->buckets; i++)
        for (node *n = t->bucket[i], *next; n; n = next) {
            next = n->next;
            drop(n);
        }
    free(t->bucket);
    *t = (table){ 0 };
}
