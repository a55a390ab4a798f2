/* SPDX-License-Identifier: MIT */
/* host/tokenizer/bpe_train.c - learns byte-pair merges from text.
 *
 * The text is cut into words once, and only distinct words with their counts are kept.
 * Then, until the vocabulary is full: the most frequent pair of neighbouring symbols
 * becomes a new symbol. Counting all pairs anew for each merge would cost (merges x text);
 * here a merge touches only the words that hold the pair:
 *
 *   pair (l, o)  count 912  words 3, 17, 40, ...        one such row for every pair
 *   word 3       l o w e r  x 12     ->  lo w e r       (l,o) (o,w) lose 12, (lo,w) gains 12
 *
 * The word lists may name words that lost the pair since; looking once more is cheaper than
 * keeping them exact. The heap holds a pair's count at the time it was pushed: a count that
 * fell is noticed when the pair comes up, a count that rose is pushed again.
 *
 * Ties go to the pair with the smaller ids, as in Hugging Face's trainer, so the merges are
 * a function of the text alone. A pair seen once teaches nothing and is never merged.   */
#include "host/base/file.h"
#include "host/tokenizer/tokenizer_kind.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/words.h"

#include <stdlib.h>
#include <string.h>

#define END_OF_TEXT "<|endoftext|>"
#define CHUNK ((size_t)4 << 20)
#define FEWEST 2                            /* occurrences worth a merge */

typedef struct word {
    size_t offset;                          /* in bytes while counting, in symbols after */
    uint32_t length;
    int64_t count;
} word;

typedef struct pair {
    uint32_t left, right;
    int64_t count;
    uint32_t *words;
    uint32_t word_count;
    uint32_t seen;                          /* the last merge that raised the count, + 1 */
    int merged;
} pair;

typedef struct candidate {
    int64_t count;
    uint32_t left, right, pair;
} candidate;

typedef struct trainer {
    vocabulary *vocab;
    gt_text bytes;                          /* of the distinct words */
    word *words;
    uint32_t word_count;
    uint32_t *word_slot;                    /* index + 1, open addressing */
    size_t word_slots;
    uint32_t *symbols;
    pair *pairs;
    uint32_t pair_count;
    uint32_t *pair_slot;
    size_t pair_slots;
    candidate *heap;
    size_t heap_size;
    uint32_t *raised;                       /* pairs whose count the running merge raised */
    uint32_t raised_count;
} trainer;

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory to train a tokenizer");
}

static void release(trainer *t)
{
    for (uint32_t i = 0; i < t->pair_count; i++)
        free(t->pairs[i].words);
    gt_text_release(&t->bytes);
    free(t->words);
    free(t->word_slot);
    free(t->symbols);
    free(t->pairs);
    free(t->pair_slot);
    free(t->heap);
    free(t->raised);
}

/* `array` with room for one more than `count`: the next power of two. NULL if there is no
 * memory; the array is then as it was. */
static void *grow(void *array, size_t count, size_t size)
{
    return count & (count - 1) ? array : realloc(array, (count ? 2 * count : 1) * size);
}

static size_t word_slot_of(const trainer *t, const void *text, size_t size)
{
    size_t mask = t->word_slots - 1, i = (size_t)gt_hash(text, size) & mask;
    for (; t->word_slot[i]; i = (i + 1) & mask) {
        const word *w = &t->words[t->word_slot[i] - 1];
        if (w->length == size && !memcmp(t->bytes.data + w->offset, text, size))
            break;
    }
    return i;
}

static gt_status grow_word_slots(trainer *t)
{
    if (2 * (size_t)t->word_count < t->word_slots)
        return GT_OK;
    size_t slots = t->word_slots ? 2 * t->word_slots : 1u << 12;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table)
        return no_memory();
    free(t->word_slot);
    t->word_slot = table;
    t->word_slots = slots;
    for (uint32_t i = 0; i < t->word_count; i++)
        table[word_slot_of(t, t->bytes.data + t->words[i].offset, t->words[i].length)] = i + 1;
    return GT_OK;
}

static gt_status count_word(void *context, const unsigned char *text, size_t size, int64_t special)
{
    trainer *t = context;
    if (special >= 0)
        return GT_OK;
    if (size >= UINT32_MAX || t->word_count == UINT32_MAX - 1)
        return gt_fail(GT_UNSUPPORTED, "a word of %zu bytes is too long", size);
    size_t slot = word_slot_of(t, text, size);
    if (t->word_slot[slot]) {
        t->words[t->word_slot[slot] - 1].count++;
        return GT_OK;
    }
    word *grown = grow(t->words, t->word_count, sizeof *t->words);
    if (!grown)
        return no_memory();
    t->words = grown;
    t->words[t->word_count] = (word){ t->bytes.size, (uint32_t)size, 1 };
    gt_text_put(&t->bytes, text, size);
    if (t->bytes.failed)
        return no_memory();
    t->word_slot[slot] = ++t->word_count;
    return grow_word_slots(t);
}

static gt_status count_file(trainer *t, words *cutter, const gt_map *file, uint64_t before, uint64_t total,
                            data_progress progress, void *context)
{
    gt_status st = GT_OK;
    for (size_t at = 0, chunk = CHUNK; at < file->size && !st;) {
        size_t used, left = file->size - at, size = left < chunk ? left : chunk;
        st = words_each(cutter, file->data + at, size, size == left, &used, count_word, t);
        chunk = used ? CHUNK : 2 * chunk;           /* a word longer than the chunk */
        at += used;
        if (!st && progress && progress(context, before + at, total))
            st = gt_fail(GT_INTERRUPTED, "interrupted");
    }
    return st;
}

/* Cuts the texts with GPT-2's pattern and counts the words. */
static gt_status count_words(trainer *t, const char *const *files, size_t count, data_progress progress, void *context)
{
    vocabulary cut = { .byte_level = 1, .pattern = strdup(GPT2_PATTERN) };
    gt_map *maps = calloc(count ? count : 1, sizeof *maps);
    words *cutter = NULL;
    uint64_t total = 0, done = 0;
    gt_status st = cut.pattern && maps ? grow_word_slots(t) : no_memory();
    if (!st)
        st = vocabulary_add(&cut, 0, END_OF_TEXT, strlen(END_OF_TEXT));
    if (!st) {
        cut.pieces[0].special = 1;
        st = words_open(&cutter, &cut);
    }
    for (size_t i = 0; i < count && !st; i++) {
        st = gt_map_open(&maps[i], files[i]);
        total += maps[i].size;
    }
    if (!st && !total)
        st = gt_fail(GT_FORMAT, "'%s' is empty", count ? files[0] : "");
    for (size_t i = 0; i < count && !st; i++) {
        st = count_file(t, cutter, &maps[i], done, total, progress, context);
        done += maps[i].size;
    }
    for (size_t i = 0; maps && i < count; i++)
        gt_map_close(&maps[i]);
    free(maps);
    words_close(cutter);
    vocabulary_release(&cut);
    return st;
}

/* Ids 0 to 255 in GPT-2's order: that of the characters that stand for the bytes. */
static gt_status add_bytes(vocabulary *v, uint32_t id_of_byte[256])
{
    gt_status st = GT_OK;
    uint32_t id = 0;
    for (uint32_t code = 0; id < 256 && !st; code++) {
        int value = byte_level_byte(code);
        if (value < 0)
            continue;
        unsigned char byte = (unsigned char)value;
        id_of_byte[byte] = id;
        st = vocabulary_add(v, id++, &byte, 1);
    }
    return st;
}

static size_t pair_slot_of(const trainer *t, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    size_t mask = t->pair_slots - 1, i = (size_t)(key * 0x9e3779b97f4a7c15u >> 32) & mask;
    for (; t->pair_slot[i]; i = (i + 1) & mask) {
        const pair *p = &t->pairs[t->pair_slot[i] - 1];
        if (p->left == left && p->right == right)
            break;
    }
    return i;
}

static gt_status grow_pair_slots(trainer *t)
{
    if (2 * (size_t)t->pair_count < t->pair_slots)
        return GT_OK;
    size_t slots = t->pair_slots ? 2 * t->pair_slots : 1u << 12;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table)
        return no_memory();
    free(t->pair_slot);
    t->pair_slot = table;
    t->pair_slots = slots;
    for (uint32_t i = 0; i < t->pair_count; i++)
        table[pair_slot_of(t, t->pairs[i].left, t->pairs[i].right)] = i + 1;
    return GT_OK;
}

/* Changes the count of a pair by what happened in word `w`; `round` numbers the merges. */
static gt_status change(trainer *t, uint32_t left, uint32_t right, int64_t by, uint32_t w, uint32_t round)
{
    size_t slot = pair_slot_of(t, left, right);
    if (!t->pair_slot[slot]) {
        pair *grown = grow(t->pairs, t->pair_count, sizeof *t->pairs);
        if (!grown)
            return no_memory();
        t->pairs = grown;
        t->pairs[t->pair_count] = (pair){ .left = left, .right = right };
        t->pair_slot[slot] = ++t->pair_count;
        gt_status st = grow_pair_slots(t);
        if (st)
            return st;
        slot = pair_slot_of(t, left, right);
    }
    uint32_t index = t->pair_slot[slot] - 1;
    pair *p = &t->pairs[index];
    p->count += by;
    if (by < 0)
        return GT_OK;
    if (p->seen != round + 1) {
        uint32_t *grown = grow(t->raised, t->raised_count, sizeof *t->raised);
        if (!grown)
            return no_memory();
        p->seen = round + 1;
        t->raised = grown;
        t->raised[t->raised_count++] = index;
    }
    if (p->word_count && p->words[p->word_count - 1] == w)
        return GT_OK;
    uint32_t *longer = grow(p->words, p->word_count, sizeof *p->words);
    if (!longer)
        return no_memory();
    p->words = longer;
    p->words[p->word_count++] = w;
    return GT_OK;
}

static int better(const candidate *a, const candidate *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static gt_status heap_push(trainer *t, candidate c)
{
    candidate *grown = grow(t->heap, t->heap_size, sizeof *t->heap);
    if (!grown)
        return no_memory();
    t->heap = grown;
    size_t i = t->heap_size++;
    for (; i && better(&c, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
    return GT_OK;
}

static candidate heap_pop(trainer *t)
{
    candidate top = t->heap[0], last = t->heap[--t->heap_size];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->heap_size; i = child) {
        child += child + 1 < t->heap_size && better(&t->heap[child + 1], &t->heap[child]);
        if (!better(&t->heap[child], &last))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* Queues every pair that the last round raised. */
static gt_status push_raised(trainer *t)
{
    gt_status st = GT_OK;
    for (uint32_t i = 0; i < t->raised_count && !st; i++) {
        const pair *p = &t->pairs[t->raised[i]];
        if (p->count >= FEWEST && !p->merged)
            st = heap_push(t, (candidate){ p->count, p->left, p->right, t->raised[i] });
    }
    t->raised_count = 0;
    return st;
}

static gt_status first_pairs(trainer *t, const uint32_t id_of_byte[256])
{
    t->symbols = malloc((t->bytes.size ? t->bytes.size : 1) * sizeof *t->symbols);
    if (!t->symbols)
        return no_memory();
    for (size_t i = 0; i < t->bytes.size; i++)
        t->symbols[i] = id_of_byte[(unsigned char)t->bytes.data[i]];
    gt_status st = grow_pair_slots(t);
    for (uint32_t w = 0; w < t->word_count && !st; w++) {
        const uint32_t *s = t->symbols + t->words[w].offset;
        for (uint32_t i = 0; i + 1 < t->words[w].length && !st; i++)
            st = change(t, s[i], s[i + 1], t->words[w].count, w, 0);
    }
    return st ? st : push_raised(t);
}

/* Replaces the pair (left, right) by `joined` in one word. */
static gt_status merge_in_word(trainer *t, uint32_t w, uint32_t left, uint32_t right, uint32_t joined, uint32_t round)
{
    uint32_t *s = t->symbols + t->words[w].offset, n = t->words[w].length, to = 0;
    int64_t count = t->words[w].count;
    gt_status st = GT_OK;
    for (uint32_t from = 0; from < n && !st;) {
        if (from + 1 == n || s[from] != left || s[from + 1] != right) {
            s[to++] = s[from++];
            continue;
        }
        if (to) {
            st = change(t, s[to - 1], left, -count, w, round);
            if (!st)
                st = change(t, s[to - 1], joined, count, w, round);
        }
        if (!st && from + 2 < n) {
            st = change(t, right, s[from + 2], -count, w, round);
            if (!st)
                st = change(t, joined, s[from + 2], count, w, round);
        }
        s[to++] = joined;
        from += 2;
    }
    t->words[w].length = to;
    return st;
}

/* Adds the merge of a pair to the vocabulary. Two pairs can spell the same text, "a"+"bc"
 * and "ab"+"c"; the second then makes the token that is already there. */
static gt_status add_merge(vocabulary *v, const pair *p, uint32_t *joined)
{
    size_t a = v->pieces[p->left].size, b = v->pieces[p->right].size;
    char *text = malloc(a + b);
    if (!text)
        return no_memory();
    memcpy(text, vocabulary_bytes(v, p->left), a);
    memcpy(text + a, vocabulary_bytes(v, p->right), b);
    int64_t id = vocabulary_find(v, text, a + b);
    gt_status st = GT_OK;
    if (id < 0) {
        id = v->count;
        st = vocabulary_add(v, v->count, text, a + b);
    }
    free(text);
    *joined = (uint32_t)id;
    return st ? st : vocabulary_add_merge(v, p->left, p->right);
}

static gt_status merge_pairs(trainer *t, uint32_t size, data_progress progress, void *context)
{
    gt_status st = GT_OK;
    for (uint32_t round = 1; t->vocab->count < size && t->heap_size && !st;) {
        candidate top = heap_pop(t);
        pair *p = &t->pairs[top.pair];
        if (p->merged || p->count < FEWEST)
            continue;
        if (p->count != top.count) {
            top.count = p->count;
            st = heap_push(t, top);
            continue;
        }
        uint32_t joined = 0, *holders = p->words, count = p->word_count;
        st = add_merge(t->vocab, p, &joined);
        p->words = NULL;                        /* change() may move the pairs */
        p->word_count = 0;
        p->merged = 1;
        for (uint32_t i = 0; i < count && !st; i++)
            st = merge_in_word(t, holders[i], top.left, top.right, joined, round);
        free(holders);
        if (!st)
            st = push_raised(t);
        if (!st && round++ % 256 == 0 && progress && progress(context, 1, 1))
            st = gt_fail(GT_INTERRUPTED, "interrupted");
    }
    return st;
}

gt_status tokenizer_bpe_train(vocabulary *out, uint32_t size, const char *const *files, size_t count,
                              data_progress progress, void *context)
{
    trainer t = { .vocab = out };
    uint32_t id_of_byte[256];
    gt_status st = add_bytes(out, id_of_byte);
    out->byte_level = 1;
    out->pattern = strdup(GPT2_PATTERN);
    if (!st && !out->pattern)
        st = no_memory();
    if (!st)
        st = count_words(&t, files, count, progress, context);
    if (!st)
        st = first_pairs(&t, id_of_byte);
    if (!st)
        st = merge_pairs(&t, size - 1, progress, context);
    release(&t);
    uint32_t end = out->count;
    if (!st)
        st = vocabulary_add(out, end, END_OF_TEXT, strlen(END_OF_TEXT));
    if (!st) {
        out->pieces[end].special = 1;
        out->pieces[end].flags = PIECE_CONTROL;
    }
    return st;
}
