/* SPDX-License-Identifier: MIT */
/* host/data/loader.c - from (seed, sample) to the place of a window.
 *
 *   split     |......................................................|
 *   epoch 0     |  w0  |  w1  |  w2  |  w3  |  w4  |  w5  |              offset 2
 *   epoch 1        |  w0  |  w1  |  w2  |  w3  |  w4  |  w5  |           offset 5
 *   order       a permutation of w0..w5 evaluated one point at a time
 *
 * The number of windows W must not depend on the offset, or a sample's epoch could not be
 * computed by division; so W is what fits behind the largest offset. A split too short for
 * that has one window, at any place where it fits.                                      */
#include "host/data/loader.h"

#include "host/base/random.h"

#include <assert.h>
#include <string.h>

/* Sets the offsets apart from other uses of the seed. */
#define OFFSET_STREAM ((uint64_t)0x6c6f61646572 << 16)

/* Windows of a shuffled epoch. */
static uint64_t windows_of(const token_split *split, uint64_t tokens)
{
    return split->count >= 2 * tokens ? (split->count - tokens) / tokens : 1;
}

gt_status loader_open(loader *out, const token_split *split, const char *name, loader_order order, uint64_t batch,
                      uint64_t tokens, uint64_t seed)
{
    assert(batch && tokens);
    memset(out, 0, sizeof *out);
    const uint64_t rows = order == LOADER_SEQUENTIAL ? batch : 1;
    if (split->count == 0 || (split->count - 1) / tokens < rows)
        return gt_fail(GT_MISMATCH,
                       "cannot read batches from '%s': %llu tokens, but %llu x %llu "
                       "+ 1 are needed; lower --seq%s or give more text",
                       name, (unsigned long long)split->count, (unsigned long long)rows, (unsigned long long)tokens,
                       rows > 1 ? " or --batch" : "");
    *out = (loader){ split, order, batch, tokens, seed, 1, (split->count - 1) / tokens };
    if (order == LOADER_SEQUENTIAL)
        out->windows = out->rows / batch;
    else
        out->windows = windows_of(split, tokens);
    return GT_OK;
}

uint64_t loader_begin(const loader *l, uint64_t position)
{
    if (l->order != LOADER_SEQUENTIAL || position % l->rows + l->batch <= l->rows)
        return position;
    return (position / l->rows + 1) * l->rows;
}

uint64_t loader_step(const loader *l, uint64_t step, uint64_t batch)
{
    if (!batch)
        batch = l->batch;
    if (l->order != LOADER_SEQUENTIAL || batch > l->rows)
        return step * batch;
    const uint64_t batches = l->rows / batch;
    return step / batches * l->rows + step % batches * batch;
}

uint64_t loader_convert(const loader *l, uint64_t samples, uint64_t tokens)
{
    const int in_order = l->order == LOADER_SEQUENTIAL;
    const uint64_t rows = in_order ? (l->split->count - 1) / tokens : windows_of(l->split, tokens);
    const uint64_t mine = in_order ? l->rows : l->windows;
    if (tokens == l->tokens || !rows)
        return samples;
    const uint64_t within = samples % rows * tokens / l->tokens;
    return samples / rows * mine + (within < mine ? within : mine);
}

/* Where the windows of an epoch begin. */
static uint64_t offset_of(const loader *l, uint64_t epoch)
{
    uint64_t slack = l->split->count - 1 - l->windows * l->tokens;
    uint64_t most = slack < l->tokens - 1 ? slack : l->tokens - 1;
    gt_random r;
    gt_random_init(&r, l->seed, OFFSET_STREAM + epoch);
    return gt_random_below(&r, most + 1);
}

/* The first token of a sample. */
static uint64_t place_of(const loader *l, uint64_t number)
{
    if (l->order == LOADER_SEQUENTIAL)
        return number % l->rows * l->tokens;
    const uint64_t epoch = number / l->windows;
    uint64_t window = gt_random_permute(l->seed, epoch, l->windows, number % l->windows);
    return offset_of(l, epoch) + window * l->tokens;
}

/* Reads T + 1 tokens as a row of x and a row of y, of which one may be NULL. */
static gt_status read_row(const loader *l, uint64_t place, int32_t *x, int32_t *y)
{
    const size_t n = (size_t)l->tokens;
    gt_status st = x ? token_split_read(l->split, place, n, x) : GT_OK;
    if (st || !y)
        return st;
    if (!x)
        return token_split_read(l->split, place + 1, n, y);
    memcpy(y, x + 1, (n - 1) * sizeof *y);
    return token_split_read(l->split, place + n, 1, y + n - 1);
}

gt_status loader_read(const loader *l, uint64_t position, uint64_t first, uint64_t count, int32_t *x, int32_t *y)
{
    assert(first + count <= l->batch);
    const uint64_t begin = loader_begin(l, position) + first;
    for (uint64_t i = 0; i < count; i++) {
        gt_status st = read_row(l, place_of(l, begin + i), x ? x + i * l->tokens : NULL, y ? y + i * l->tokens : NULL);
        if (st)
            return st;
    }
    return GT_OK;
}

uint64_t loader_epoch_steps(const loader *l)
{
    if (l->order == LOADER_SEQUENTIAL)
        return l->windows;
    return (l->windows + l->batch - 1) / l->batch;
}

uint64_t loader_eval_rows(const loader *l)
{
    return l->rows;
}

gt_status loader_eval(const loader *l, uint64_t first, uint64_t count, int32_t *x, int32_t *y, uint64_t *filled)
{
    const uint64_t rows = loader_eval_rows(l);
    *filled = first >= rows ? 0 : rows - first < count ? rows - first : count;
    for (uint64_t i = 0; i < *filled; i++) {
        gt_status st = read_row(l, (first + i) * l->tokens, x ? x + i * l->tokens : NULL, y ? y + i * l->tokens : NULL);
        if (st)
            return st;
    }
    for (uint64_t i = *filled * l->tokens; i < count * l->tokens; i++) {
        if (x)
            x[i] = 0;
        if (y)
            y[i] = LOADER_IGNORE;
    }
    return GT_OK;
}
