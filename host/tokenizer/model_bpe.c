/* SPDX-License-Identifier: MIT */
/* host/tokenizer/model_bpe.c - byte-pair encoding of words, fast.
 *
 * A word starts as its bytes or characters; the pair with the best merge becomes one symbol,
 * the leftmost first, until no pair has a merge. Symbols are a linked list over positions and
 * candidates wait in a heap, so a word of n symbols takes n log n steps:
 *
 *   l o w e r      heap: (merge 3, at 1) (merge 7, at 3)
 *   l ow  e r      the pair at 0 is now (l, ow), at 1 (ow, e): two new candidates
 *
 * A candidate is not removed when its symbols change. It is dropped when it comes up and
 * the pair there has another merge by then.                                             */
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/word_model.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

typedef struct bpe {
    const vocabulary *vocab;
    uint32_t byte_id[256];                  /* NONE: no token for this byte */
    int has_bytes;                          /* characters without a token become bytes */
    uint64_t *pair_key;                     /* left << 32 | right, open addressing */
    uint32_t *pair_merge;                   /* index of the merge, or NONE: free */
    size_t pair_slots;
    uint32_t *symbol, *before, *after;      /* one word in work, by position */
    uint64_t *heap;                         /* merge << 32 | position, least first */
    size_t room, heap_size;
    uint32_t count;                         /* symbols of the word */
    gt_text affixed;                        /* a character with the prefix or suffix */
} bpe;

static void close_model(void *state)
{
    bpe *b = state;
    if (!b)
        return;
    free(b->pair_key);
    free(b->pair_merge);
    free(b->symbol);
    free(b->before);
    free(b->after);
    free(b->heap);
    gt_text_release(&b->affixed);
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

static gt_status open_model(void **state, const vocabulary *v)
{
    bpe *b = calloc(1, sizeof *b);
    *state = b;
    if (!b)
        return no_memory();
    b->vocab = v;
    for (unsigned i = 0; i < 256 && v->byte_level; i++) {
        const unsigned char byte = (unsigned char)i;
        const int64_t id = vocabulary_find_model(v, &byte, 1);
        b->byte_id[i] = id < 0 ? NONE : (uint32_t)id;
    }
    b->has_bytes = !v->byte_level && v->byte_fallback && word_model_bytes(b->byte_id, v);
    return prepare_pairs(b, v);
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

/* The symbols of a word over bytes. */
static gt_status spell_bytes(bpe *b, const unsigned char *word, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        b->symbol[i] = b->byte_id[word[i]];
        if (b->symbol[i] == NONE)
            return gt_fail(GT_MISMATCH, "the tokenizer has no token for byte 0x%02x", word[i]);
    }
    b->count = (uint32_t)size;
    return GT_OK;
}

/* The id of one character with what belongs before it inside a word and behind it at the end. */
static int64_t find_character(bpe *b, const unsigned char *text, size_t size, int first, int last)
{
    const vocabulary *v = b->vocab;
    if ((first || !v->prefix) && (!last || !v->suffix))
        return vocabulary_find_model(v, text, size);
    b->affixed.size = 0;
    gt_text_printf(&b->affixed, "%s%.*s%s", first || !v->prefix ? "" : v->prefix, (int)size, (const char *)text,
                   last && v->suffix ? v->suffix : "");
    return vocabulary_find_model(v, b->affixed.data, b->affixed.size);
}

/* The symbols of a word over characters, as Hugging Face orders them: an unknown token
 * waits for the next known character, so that neighbours can be one. */
static gt_status spell_characters(bpe *b, const unsigned char *word, size_t size)
{
    const vocabulary *v = b->vocab;
    uint32_t n = 0;
    int waiting = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code;
        const int length = utf8_next(word + at, size - at, &code);
        if (length <= 0)
            return word_model_unknown(word + at, size - at);
        const size_t end = at + (size_t)length;
        const int64_t id = find_character(b, word + at, (size_t)length, at == 0, end == size);
        if (id >= 0) {
            if (waiting)
                b->symbol[n++] = v->unknown - 1;
            waiting = 0;
            b->symbol[n++] = (uint32_t)id;
        } else if (b->has_bytes) {
            for (size_t i = at; i < end; i++)
                b->symbol[n++] = b->byte_id[word[i]];
        } else if (!v->unknown) {
            return word_model_unknown(word + at, size - at);
        } else {
            if (waiting && !v->fuse_unknown)
                b->symbol[n++] = v->unknown - 1;
            waiting = 1;
        }
        at = end;
    }
    if (waiting)
        b->symbol[n++] = v->unknown - 1;
    b->count = n;
    return b->affixed.failed ? no_memory() : GT_OK;
}

static void merge_all(bpe *b)
{
    const vocabulary *v = b->vocab;
    const uint32_t n = b->count;
    for (uint32_t i = 0; i < n; i++) {
        b->before[i] = i ? i - 1 : NONE;
        b->after[i] = i + 1 < n ? i + 1 : NONE;
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
}

static gt_status encode(void *state, const unsigned char *word, size_t size, token_ids *out)
{
    bpe *b = state;
    const vocabulary *v = b->vocab;
    const int64_t whole = v->ignore_merges ? vocabulary_find_model(v, word, size) : -1;
    if (whole >= 0)
        return token_ids_add(out, &(uint32_t){ (uint32_t)whole }, 1);
    if (size >= NONE)
        return gt_fail(GT_UNSUPPORTED, "a word of %zu bytes is too long", size);
    gt_status st = make_room(b, size);
    if (!st)
        st = v->byte_level ? spell_bytes(b, word, size) : spell_characters(b, word, size);
    if (st)
        return st;
    merge_all(b);
    for (uint32_t i = b->count ? 0 : NONE; i != NONE && !st; i = b->after[i])
        st = token_ids_add(out, &b->symbol[i], 1);
    return st;
}

const word_model word_model_bpe = { .open = open_model, .encode = encode, .close = close_model };
