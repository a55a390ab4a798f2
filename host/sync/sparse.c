/* SPDX-License-Identifier: MIT */
/* host/sync/sparse.c - the largest of a chunk by a heap of the smallest of them; of equals the first stays. */
#include "host/sync/sparse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLACE = 12, ENTRY = PLACE + 2 };

static int64_t sent_of(int64_t count, double keep)
{
    const int64_t k = (int64_t)ceil(keep * (double)count);
    return k < 1 ? 1 : k > count ? count : k;
}

static uint64_t chunk_bytes(int64_t count, double keep)
{
    return 2 * sizeof(float) + ((uint64_t)sent_of(count, keep) * ENTRY + 7) / 8;
}

uint64_t sparse_bytes(int64_t n, double keep)
{
    const int64_t rest = n % SPARSE_CHUNK;
    return (uint64_t)(n / SPARSE_CHUNK) * chunk_bytes(SPARSE_CHUNK, keep) + (rest ? chunk_bytes(rest, keep) : 0);
}

/* ---- choosing ---------------------------------------------------------------------------------- */

/* Whether value a is to go before value b when one must: it is smaller, or as large and comes later. */
static int goes_first(const float *x, int a, int b)
{
    const float p = fabsf(x[a]), q = fabsf(x[b]);
    return p < q || (p == q && a > b);      /* NaN never goes, and never comes: a step with one ends the run */
}

static void sink(const float *x, int *heap, int64_t k, int64_t at)
{
    for (;;) {
        int64_t least = 2 * at + 1;
        if (least >= k)
            return;
        if (least + 1 < k && goes_first(x, heap[least + 1], heap[least]))
            least++;
        if (!goes_first(x, heap[least], heap[at]))
            return;
        const int other = heap[least];
        heap[least] = heap[at];
        heap[at] = other;
        at = least;
    }
}

static int by_place(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The places of the k largest, rising. */
static void choose(const float *x, int64_t count, int64_t k, int *place)
{
    for (int64_t i = 0; i < k; i++)
        place[i] = (int)i;
    for (int64_t i = k / 2; i-- > 0;)
        sink(x, place, k, i);
    for (int64_t i = k; i < count; i++)
        if (goes_first(x, place[0], (int)i)) {
            place[0] = (int)i;
            sink(x, place, k, 0);
        }
    qsort(place, (size_t)k, sizeof *place, by_place);
}

/* The two levels, and from which size on the upper one stands for a value. */
static float levels_of(const float *x, const int *place, int64_t k, float level[2])
{
    float size[SPARSE_CHUNK];
    double sum[2] = { 0.0, 0.0 };
    const int64_t half = k / 2;
    for (int64_t i = 0; i < k; i++)
        size[i] = fabsf(x[place[i]]);
    qsort(size, (size_t)k, sizeof *size, by_size);
    int64_t first = half;                   /* equals are on one side */
    while (first > 0 && size[first - 1] == size[half])
        first--;
    for (int64_t i = 0; i < k; i++)
        sum[i >= first] += (double)size[i];
    level[0] = first ? (float)(sum[0] / (double)first) : 0.0f;
    level[1] = (float)(sum[1] / (double)(k - first));
    return size[first];
}

/* ---- bits --------------------------------------------------------------------------------------- */

static void put(unsigned char *bits, int64_t entry, uint32_t value)
{
    for (int b = 0; b < ENTRY; b++)
        if (value >> b & 1u)
            bits[(entry * ENTRY + b) / 8] |= (unsigned char)(1u << (entry * ENTRY + b) % 8);
}

static uint32_t get(const unsigned char *bits, int64_t entry)
{
    const int64_t at = entry * ENTRY;
    uint32_t value = 0;
    for (int b = 0; b < ENTRY; b++)
        value |= ((uint32_t)bits[(at + b) / 8] >> (at + b) % 8 & 1u) << b;
    return value;
}

static float value_of(uint32_t entry, const float level[2])
{
    const float size = level[entry >> (PLACE + 1)];
    return entry >> PLACE & 1u ? -size : size;
}

static void encode_chunk(unsigned char *code, float *x, int64_t count, double keep)
{
    int place[SPARSE_CHUNK];
    float level[2];
    const int64_t k = sent_of(count, keep);
    choose(x, count, k, place);
    const float upper = levels_of(x, place, k, level);
    memcpy(code, level, sizeof level);
    code += sizeof level;
    memset(code, 0, ((size_t)k * ENTRY + 7) / 8);
    for (int64_t i = 0; i < k; i++) {
        float *v = &x[place[i]];
        const uint32_t sign = *v < 0.0f, high = fabsf(*v) >= upper;
        const uint32_t entry = (uint32_t)place[i] | sign << PLACE | high << (PLACE + 1);
        put(code, i, entry);
        *v -= value_of(entry, level);
    }
}

static void add_chunk(float *to, const unsigned char *code, int64_t count, double keep, double share)
{
    float level[2];
    const int64_t k = sent_of(count, keep);
    memcpy(level, code, sizeof level);
    for (int64_t i = 0; i < k; i++) {
        const uint32_t entry = get(code + sizeof level, i), place = entry & (SPARSE_CHUNK - 1);
        if (place < (uint32_t)count)
            to[place] += (float)(share * (double)value_of(entry, level));
    }
}

void sparse_encode(unsigned char *code, float *error, int64_t n, double keep)
{
    for (int64_t at = 0; at < n; at += SPARSE_CHUNK) {
        const int64_t count = n - at < SPARSE_CHUNK ? n - at : SPARSE_CHUNK;
        encode_chunk(code, error + at, count, keep);
        code += chunk_bytes(count, keep);
    }
}

void sparse_add(float *to, const unsigned char *code, int64_t n, double keep, double share)
{
    for (int64_t at = 0; at < n; at += SPARSE_CHUNK) {
        const int64_t count = n - at < SPARSE_CHUNK ? n - at : SPARSE_CHUNK;
        add_chunk(to + at, code, count, keep, share);
        code += chunk_bytes(count, keep);
    }
}
