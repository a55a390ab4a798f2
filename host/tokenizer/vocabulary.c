/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary.c - pieces in one run of bytes, and a hash table back to their ids.
 *
 *   bytes    l o w e r _ t h e ...        pieces[id] = offset and size in it
 *   slots    id + 1, open addressing, at most half full
 *
 * Ids need not be dense: models leave holes, and a hole is a piece of size 0. The bound
 * VOCABULARY_MAX keeps the array small whatever ids a file claims.                     */
#include "host/tokenizer/vocabulary.h"

#include "host/base/file.h"
#include "host/tokenizer/utf8.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void vocabulary_release(vocabulary *v)
{
    if (!v)
        return;
    free(v->pieces);
    free(v->merges);
    free(v->pattern);
    free(v->slots);
    free(v->prefix);
    free(v->suffix);
    free(v->scores);
    free(v->source);
    free(v->config);
    for (int i = 0; i < PARTS; i++)
        json_decref(v->parts[i]);
    gt_text_release(&v->bytes);
    frame_release(&v->frame);
    memset(v, 0, sizeof *v);
}

const char *vocabulary_bytes(const vocabulary *v, uint32_t id)
{
    assert(id < v->count);
    return v->bytes.data + v->pieces[id].offset;
}

/* The slot that holds these bytes as a piece of the model's (model) or an added token, or the free one where
 * they belong. */
static size_t slot_of(const vocabulary *v, const void *bytes, size_t size, int model)
{
    size_t mask = v->slot_count - 1, i = (size_t)gt_hash(bytes, size) & mask;
    for (; v->slots[i]; i = (i + 1) & mask) {
        const piece *p = &v->pieces[v->slots[i] - 1];
        if (((p->flags & PIECE_MODEL) != 0) == model && p->size == size
            && !memcmp(v->bytes.data + p->offset, bytes, size))
            break;
    }
    return i;
}

int64_t vocabulary_find_model(const vocabulary *v, const void *bytes, size_t size)
{
    return v->slot_count && size ? (int64_t)v->slots[slot_of(v, bytes, size, 1)] - 1 : -1;
}

int64_t vocabulary_find(const vocabulary *v, const void *bytes, size_t size)
{
    if (!v->slot_count || !size)
        return -1;
    const int64_t added = (int64_t)v->slots[slot_of(v, bytes, size, 0)] - 1;
    return added >= 0 ? added : vocabulary_find_model(v, bytes, size);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the vocabulary");
}

static gt_status make_room(vocabulary *v, uint32_t id)
{
    if (id >= v->room) {
        uint32_t room = v->room ? v->room : 512;
        while (room <= id)
            room *= 2;
        piece *pieces = realloc(v->pieces, room * sizeof *pieces);
        if (!pieces)
            return no_memory();
        memset(pieces + v->room, 0, (room - v->room) * sizeof *pieces);
        v->pieces = pieces;
        v->room = room;
    }
    if (v->slot_count < 2 * (size_t)v->room) {          /* at least as many ids as entries */
        size_t wanted = 2 * (size_t)v->room;
        uint32_t *slots = calloc(wanted, sizeof *slots);
        if (!slots)
            return no_memory();
        free(v->slots);
        v->slots = slots;
        v->slot_count = wanted;
        for (uint32_t i = 0; i < v->count; i++)
            if (v->pieces[i].size)
                slots[slot_of(v, vocabulary_bytes(v, i), v->pieces[i].size, (v->pieces[i].flags & PIECE_MODEL) != 0)] =
                    i + 1;
    }
    return GT_OK;
}

/* Is a byte-level piece of these bytes written as an added token of them is? */
static int is_written_alike(const vocabulary *v, const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; v->byte_level && i < size; i++)
        if (bytes[i] >= 0x80 || byte_level_code(bytes[i]) != bytes[i])
            return 0;
    return 1;
}

static gt_status add(vocabulary *v, uint32_t id, const void *bytes, size_t size, uint32_t flags)
{
    const int model = (flags & PIECE_MODEL) != 0;
    if (id >= VOCABULARY_MAX)
        return gt_fail(GT_FORMAT, "token id %u is too large: ids go up to %u", id, VOCABULARY_MAX - 1);
    if (!size || size > UINT32_MAX)
        return gt_fail(GT_FORMAT, "token id %u stands for no text", id);
    gt_status st = make_room(v, id);
    if (st)
        return st;
    if (v->pieces[id].size)
        return gt_fail(GT_FORMAT, "token id %u is given twice", id);
    const size_t slot = slot_of(v, bytes, size, model);
    const uint32_t other = v->slots[slot_of(v, bytes, size, !model)];
    if (v->slots[slot] || (other && is_written_alike(v, bytes, size)))
        return gt_fail(GT_FORMAT, "token ids %u and %u stand for the same text",
                       (v->slots[slot] ? v->slots[slot] : other) - 1, id);
    size_t offset = v->bytes.size;
    gt_text_put(&v->bytes, bytes, size);
    if (v->bytes.failed)
        return no_memory();
    v->pieces[id] = (piece){ .offset = offset, .size = (uint32_t)size, .special = !model, .flags = flags };
    v->slots[slot] = id + 1;
    if (id >= v->count)
        v->count = id + 1;
    return GT_OK;
}

gt_status vocabulary_add(vocabulary *v, uint32_t id, const void *bytes, size_t size)
{
    return add(v, id, bytes, size, PIECE_MODEL);
}

gt_status vocabulary_add_token(vocabulary *v, uint32_t id, const void *bytes, size_t size, uint32_t flags)
{
    return add(v, id, bytes, size, flags & ~(uint32_t)PIECE_MODEL);
}

gt_status vocabulary_add_merge(vocabulary *v, uint32_t left, uint32_t right)
{
    assert(left < v->count && right < v->count);
    const size_t cut = v->prefix ? strlen(v->prefix) : 0, whole = v->pieces[right].size;
    const size_t skip = cut && whole > cut && !memcmp(vocabulary_bytes(v, right), v->prefix, cut) ? cut : 0;
    const size_t a = v->pieces[left].size, b = whole - skip;
    char *text = malloc(a + b);
    if (!text)
        return no_memory();
    memcpy(text, vocabulary_bytes(v, left), a);
    memcpy(text + a, vocabulary_bytes(v, right) + skip, b);
    int64_t joined = vocabulary_find_model(v, text, a + b);
    free(text);
    if (joined < 0)
        return gt_fail(GT_FORMAT, "merge %zu joins tokens %u and %u into a text that is no token", v->merge_count, left,
                       right);
    if ((v->merge_count & (v->merge_count - 1)) == 0) {     /* full at each power of two */
        size_t room = v->merge_count ? 2 * v->merge_count : 1;
        merge *merges = realloc(v->merges, room * sizeof *merges);
        if (!merges)
            return no_memory();
        v->merges = merges;
    }
    v->merges[v->merge_count++] = (merge){ left, right, (uint32_t)joined };
    return GT_OK;
}

static uint64_t hash_text(uint64_t h, const char *text)
{
    const uint64_t both[2] = { h, text ? gt_hash(text, strlen(text)) + 1 : 0 };
    return gt_hash(both, sizeof both);
}

/* What says how a text is cut, beyond a pattern. */
static uint64_t hash_chain(const vocabulary *v, uint64_t h)
{
    const uint64_t mix[] = { h,          (uint64_t)v->model,        v->unknown, (uint64_t)v->fuse_unknown,
                             v->longest, (uint64_t)v->byte_fallback };
    h = hash_text(hash_text(gt_hash(mix, sizeof mix), v->prefix), v->suffix);
    if (v->scores) {
        const uint64_t both[2] = { h, gt_hash(v->scores, v->count * sizeof *v->scores) };
        h = gt_hash(both, sizeof both);
    }
    for (uint32_t id = 0; id < v->count; id++)
        if (v->pieces[id].special) {
            const uint64_t one[3] = { h, id, v->pieces[id].flags & (PIECE_LOOKS | PIECE_NORMALIZED) };
            h = gt_hash(one, sizeof one);
        }
    for (int i = 0; i < PART_DECODER; i++) {
        char *text = v->parts[i] ? json_dumps(v->parts[i], JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;
        h = hash_text(h, text);
        free(text);
    }
    return h;
}

uint64_t vocabulary_hash(const vocabulary *v)
{
    uint64_t h = gt_hash(v->pattern ? v->pattern : "", v->pattern ? strlen(v->pattern) : 0);
    uint64_t mix[6] = {
        h, v->count, v->merge_count, (uint64_t)v->byte_level, (uint64_t)v->ignore_merges, v->pattern != NULL
    };
    h = gt_hash(mix, sizeof mix);
    for (uint32_t id = 0; id < v->count; id++) {
        const piece *p = &v->pieces[id];
        uint64_t one[4] = { h, p->size, p->special, p->size ? gt_hash(vocabulary_bytes(v, id), p->size) : 0 };
        h = gt_hash(one, sizeof one);
    }
    uint64_t merges = v->merge_count ? gt_hash(v->merges, v->merge_count * sizeof *v->merges) : 0;
    uint64_t all[2] = { h, merges };
    h = gt_hash(all, sizeof all);
    return v->chained ? hash_chain(v, h) : h;
}
