/* SPDX-License-Identifier: MIT */
/* host/data/tokenizer_bpe.c - byte-pair encoding of words, fast.
 *
 * A word starts as its bytes; the pair with the best merge becomes one symbol, the
 * leftmost first, until no pair has a merge. Symbols are a linked list over positions and
 * candidates wait in a heap, so a word of n bytes takes n log n steps:
 *
 *   l o w e r      heap: (merge 3, at 1) (merge 7, at 3)
 *   l ow  e r      the pair at 0 is now (l, ow), at 1 (ow, e): two new candidates
 *
 * A candidate is not removed when its symbols change. It is dropped when it comes up and
 * the pair there has another merge by then.
 *
 * Text repeats its words, so the ids of short ones are kept in a table that is emptied
 * when full: simple, bounded, and within a few per cent of keeping the right ones.     */
#include "host/base/file.h"
#include "host/data/tokenizer_kind.h"
#include "host/data/words.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define CACHE_SLOTS ((size_t)1 << 17)       /* half of them used at most  */
#define CACHE_WORD 48u                      /* bytes in the longest word kept */

typedef struct cached {
    uint32_t text, ids;                     /* offsets in cache_text and cache_ids */
    uint32_t size, count;                   /* size 0: free */
} cached;

typedef struct bpe {
    words *words;
    uint32_t byte_id[256];                  /* NONE: no token for this byte */
    uint64_t *pair_key;                     /* left << 32 | right, open addressing */
    uint32_t *pair_merge;                   /* index of the merge, or NONE: free */
    size_t pair_slots;
    cached *cache;
    size_t cache_used;
    gt_text cache_text;
    token_ids cache_ids;
    uint32_t *symbol, *before, *after;      /* one word in work, by position */
    uint64_t *heap;                         /* merge << 32 | position, least first */
    size_t room, heap_size;
    token_ids *out;                         /* of the running encode() */
} bpe;

static void release(void *state)
{
    bpe *b = state;
    if (!b)
        return;
    words_close(b->words);
    free(b->pair_key);
    free(b->pair_merge);
    free(b->cache);
    gt_text_release(&b->cache_text);
    token_ids_release(&b->cache_ids);
    free(b->symbol);
    free(b->before);
    free(b->after);
    free(b->heap);
    free(b);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot encode: no memory for the symbols of a word");
}

static size_t pair_slot(const bpe *b, uint64_t key)
{
    size_t mask = b->pair_slots - 1, i = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (b->pair_merge[i] != NONE && b->pair_key[i] != key)
        i = (i + 1) & mask;
    return i;
}

/* Index of the merge of two symbols, or NONE. */
static uint32_t merge_of(const bpe *b, uint32_t left, uint32_t right)
{
    return b->pair_merge[pair_slot(b, (uint64_t)left << 32 | right)];
}

static gt_status prepare_pairs(bpe *b, const vocabulary *v)
{
    b->pair_slots = 16;
    while (b->pair_slots < 2 * v->merge_count)
        b->pair_slots *= 2;
    b->pair_key = malloc(b->pair_slots * sizeof *b->pair_key);
    b->pair_merge = malloc(b->pair_slots * sizeof *b->pair_merge);
    if (!b->pair_key || !b->pair_merge)
        return no_memory();
    memset(b->pair_merge, 0xff, b->pair_slots * sizeof *b->pair_merge);
    for (size_t i = 0; i < v->merge_count; i++) {
        uint64_t key = (uint64_t)v->merges[i].left << 32 | v->merges[i].right;
        size_t slot = pair_slot(b, key);
        if (b->pair_merge[slot] != NONE)
            return gt_fail(GT_FORMAT, "merges %u and %zu join the same pair", b->pair_merge[slot], i);
        b->pair_key[slot] = key;
        b->pair_merge[slot] = (uint32_t)i;
    }
    return GT_OK;
}

static gt_status prepare(tokenizer *t)
{
    bpe *b = calloc(1, sizeof *b);
    if (!b)
        return no_memory();
    t->state = b;
    for (unsigned i = 0; i < 256; i++) {
        unsigned char byte = (unsigned char)i;
        int64_t id = vocabulary_find(&t->vocab, &byte, 1);
        b->byte_id[i] = id < 0 ? NONE : (uint32_t)id;
    }
    b->cache = calloc(CACHE_SLOTS, sizeof *b->cache);
    if (!b->cache)
        return no_memory();
    gt_status st = prepare_pairs(b, &t->vocab);
    return st ? st : words_open(&b->words, &t->vocab);
}

static void heap_push(bpe *b, uint64_t value)
{
    size_t i = b->heap_size++;
    for (; i && b->heap[(i - 1) / 2] > value; i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = value;
}

static uint64_t heap_pop(bpe *b)
{
    uint64_t top = b->heap[0], value = b->heap[--b->heap_size];
    size_t i = 0, n = b->heap_size;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && b->heap[child + 1] < b->heap[child];
        if (b->heap[child] >= value)
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = value;
    return top;
}

/* Each position starts one candidate and each of at most n - 1 merges adds two, so 3 n hold
 * all that can ever wait. */
static gt_status make_room(bpe *b, size_t n)
{
    if (n <= b->room)
        return GT_OK;
    free(b->symbol);
    free(b->before);
    free(b->after);
    free(b->heap);
    b->room = 0;
    b->symbol = malloc(n * sizeof *b->symbol);
    b->before = malloc(n * sizeof *b->before);
    b->after = malloc(n * sizeof *b->after);
    b->heap = malloc(3 * n * sizeof *b->heap);
    if (!b->symbol || !b->before || !b->after || !b->heap)
        return no_memory();
    b->room = n;
    return GT_OK;
}

/* Queues the pair that begins at position `at`, if it has a merge. */
static void consider(bpe *b, uint32_t at)
{
    uint32_t next = at == NONE ? NONE : b->after[at];
    if (next == NONE)
        return;
    uint32_t rank = merge_of(b, b->symbol[at], b->symbol[next]);
    if (rank != NONE)
        heap_push(b, (uint64_t)rank << 32 | at);
}

static gt_status merge_word(const vocabulary *v, bpe *b, const unsigned char *text, size_t size, token_ids *out)
{
    if (size >= NONE)
        return gt_fail(GT_UNSUPPORTED, "a word of %zu bytes is too long", size);
    gt_status st = make_room(b, size);
    if (st)
        return st;
    uint32_t n = (uint32_t)size;
    for (uint32_t i = 0; i < n; i++) {
        b->symbol[i] = b->byte_id[text[i]];
        b->before[i] = i ? i - 1 : NONE;
        b->after[i] = i + 1 < n ? i + 1 : NONE;
        if (b->symbol[i] == NONE)
            return gt_fail(GT_MISMATCH, "the tokenizer has no token for byte 0x%02x", text[i]);
    }
    b->heap_size = 0;
    for (uint32_t i = 0; i < n; i++)
        consider(b, i);
    while (b->heap_size) {
        uint64_t top = heap_pop(b);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32), next = b->after[at];
        if (b->symbol[at] == NONE || next == NONE || merge_of(b, b->symbol[at], b->symbol[next]) != rank)
            continue;                           /* the pair has changed since */
        b->symbol[at] = v->merges[rank].joined;
        b->symbol[next] = NONE;
        b->after[at] = b->after[next];
        if (b->after[at] != NONE)
            b->before[b->after[at]] = at;
        consider(b, b->before[at]);
        consider(b, at);
    }
    for (uint32_t i = 0; i != NONE && !st; i = b->after[i])
        st = token_ids_add(out, &b->symbol[i], 1);
    return st;
}

static void cache_empty(bpe *b)
{
    memset(b->cache, 0, CACHE_SLOTS * sizeof *b->cache);
    b->cache_used = 0;
    b->cache_text.size = 0;
    b->cache_ids.count = 0;
}

/* The entry of a word, computed if it is new. */
static gt_status look_up(const vocabulary *v, bpe *b, const unsigned char *text, size_t size, const cached **out)
{
    size_t mask = CACHE_SLOTS - 1, i = (size_t)gt_hash(text, size) & mask;
    for (; b->cache[i].size; i = (i + 1) & mask)
        if (b->cache[i].size == size && !memcmp(b->cache_text.data + b->cache[i].text, text, size)) {
            *out = &b->cache[i];
            return GT_OK;
        }
    if (b->cache_used >= CACHE_SLOTS / 2) {
        cache_empty(b);
        i = (size_t)gt_hash(text, size) & mask;
    }
    cached new = { .text = (uint32_t)b->cache_text.size, .ids = (uint32_t)b->cache_ids.count, .size = (uint32_t)size };
    gt_status st = merge_word(v, b, text, size, &b->cache_ids);
    if (st) {
        b->cache_ids.count = new.ids;
        return st;
    }
    gt_text_put(&b->cache_text, text, size);
    if (b->cache_text.failed)
        return no_memory();
    new.count = (uint32_t)b->cache_ids.count - new.ids;
    b->cache[i] = new;
    b->cache_used++;
    *out = &b->cache[i];
    return GT_OK;
}

static gt_status visit(void *context, const unsigned char *text, size_t size, int64_t special)
{
    const tokenizer *t = context;
    bpe *b = t->state;
    int64_t whole = special;
    if (whole < 0 && t->vocab.ignore_merges)
        whole = vocabulary_find(&t->vocab, text, size);
    if (whole >= 0) {
        uint32_t id = (uint32_t)whole;
        return token_ids_add(b->out, &id, 1);
    }
    if (size > CACHE_WORD)
        return merge_word(&t->vocab, b, text, size, b->out);
    const cached *found = NULL;
    gt_status st = look_up(&t->vocab, b, text, size, &found);
    return st ? st : token_ids_add(b->out, b->cache_ids.data + found->ids, found->count);
}

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids)
{
    bpe *b = t->state;
    b->out = ids;
    return words_each(b->words, text, size, last, used, visit, t);
}

const tokenizer_kind tokenizer_bpe = { .name = "bpe", .prepare = prepare, .encode = encode, .release = release };
