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
 * that has one window, at any place where it fits.
 *
 *   mixture 0.7, 0.3:  slots  0 1 2 3 4 5 6 | 7 8 9
 *   samples 0 .. 9     are slots in an order of block 0:  a b a a a b a b a a
 *   samples 10 .. 19                         of block 1:  b a a b a a a a b a                */
#include "host/data/loader.h"

#include "host/base/random.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sets the offsets, and the parts of a mixture, apart from other uses of the seed. */
#define OFFSET_STREAM ((uint64_t)0x6c6f61646572 << 16)
#define MIXTURE_STREAM ((uint64_t)0x6d6978 << 32)
#define SLOTS_MOST 10000u

/* Windows of a shuffled epoch. */
static uint64_t windows_of(const token_split *split, uint64_t tokens)
{
    if (split->reading.by_document)
        return token_split_documents(split);
    return split->count >= 2 * tokens ? (split->count - tokens) / tokens : 1;
}

static uint64_t rows_of(const token_split *split, uint64_t tokens)
{
    return split->reading.by_document ? token_split_documents(split) : split->count ? (split->count - 1) / tokens : 0;
}

/* ---- mixtures -------------------------------------------------------------------------------------- */

/* The smallest number of slots that has the weights exactly; or SLOTS_MOST, rounded, at least one each. */
static void share_slots(loader *l, const token_split *mix)
{
    double all = 0.0, wrong = 1.0, part[LOADER_SOURCES];
    for (int s = 0; s < l->sources; s++)
        all += mix->parts[s].weight;
    l->slots = (uint32_t)l->sources - 1;
    while (wrong > 1e-6 && l->slots++ < SLOTS_MOST) {
        wrong = 0.0;
        for (int s = 0; s < l->sources; s++) {
            part[s] = mix->parts[s].weight / all * (double)l->slots;
            wrong = fmax(wrong, fabs(part[s] - fmax(round(part[s]), 1.0)) / part[s]);
        }
    }
    uint32_t first = 0;
    for (int s = 0; s < l->sources; s++) {
        l->source[s].first_slot = first;
        l->source[s].slots = (uint32_t)fmax(round(part[s]), 1.0);
        first += l->source[s].slots;
    }
    l->slots = first;
}

/* Which source sample n is of; *number is which of its samples. */
static int source_of(const loader *l, uint64_t seed, uint64_t n, uint64_t *number)
{
    *number = n;
    if (l->sources == 1)
        return 0;
    const uint64_t block = n / l->slots;
    const uint64_t slot = gt_random_permute(seed, MIXTURE_STREAM + block, l->slots, n % l->slots);
    int s = 0;
    while (slot >= l->source[s].first_slot + l->source[s].slots)
        s++;
    *number = block * l->source[s].slots + slot - l->source[s].first_slot;
    return s;
}

/* Evaluation's rows: blocks that all parts can fill, and of the next one what comes before the first lack. */
static uint64_t mixture_rows(const loader *l)
{
    uint64_t blocks = UINT64_MAX, number, n;
    for (int s = 0; s < l->sources; s++)
        if (l->source[s].rows / l->source[s].slots < blocks)
            blocks = l->source[s].rows / l->source[s].slots;
    for (n = blocks * l->slots; n < (blocks + 1) * l->slots; n++) {
        const int s = source_of(l, 0, n, &number);
        if (number >= l->source[s].rows)
            break;
    }
    return n;
}

void loader_taken(const loader *l, uint64_t samples, int source, uint64_t *of_it, double *epochs)
{
    const loader_source *s = &l->source[source];
    uint64_t number;
    *of_it = samples;
    if (l->sources > 1) {
        *of_it = samples / l->slots * s->slots;
        for (uint64_t n = samples / l->slots * l->slots; n < samples; n++)
            *of_it += source_of(l, l->seed, n, &number) == source;
    }
    *epochs = (double)*of_it / (double)(l->order == LOADER_SEQUENTIAL ? s->rows : s->windows);
}

/* ---- opening ----------------------------------------------------------------------------------------- */

static gt_status too_short(const token_split *split, const char *name, uint64_t rows, uint64_t tokens)
{
    if (split->reading.by_document && !token_split_documents(split))
        return gt_fail(
            GT_MISMATCH,
            "cannot read batches from '%s': no document ends in it, as in a plain text; give records (JSONL, "
            "CSV), one a document, or say --rows packed",
            name);
    if (split->reading.by_document)
        return gt_fail(GT_MISMATCH, "cannot read batches from '%s': it has %llu documents, and %llu are needed%s", name,
                       (unsigned long long)token_split_documents(split), (unsigned long long)rows,
                       rows > 1 ? "; lower --batch" : "");
    return gt_fail(GT_MISMATCH,
                   "cannot read batches from '%s': %llu tokens, but %llu x %llu "
                   "+ 1 are needed; lower --seq%s or give more text",
                   name, (unsigned long long)split->count, (unsigned long long)rows, (unsigned long long)tokens,
                   rows > 1 ? " or --batch" : "");
}

static gt_status open_mixture(loader *l, const token_split *mix)
{
    if (mix->part_count > LOADER_SOURCES)
        return gt_fail(GT_MISUSE, "cannot mix %zu data: at most %d", mix->part_count, LOADER_SOURCES);
    l->sources = (int)mix->part_count;
    share_slots(l, mix);
    for (int s = 0; s < l->sources; s++) {
        const token_split *split = &mix->parts[s].split;
        if (!rows_of(split, l->tokens))
            return too_short(split, mix->parts[s].name, 1, l->tokens);
        l->source[s].split = split;
        l->source[s].windows = windows_of(split, l->tokens);
        l->source[s].rows = rows_of(split, l->tokens);
        l->windows += l->source[s].windows;
    }
    l->rows = mixture_rows(l);
    return GT_OK;
}

gt_status loader_open(loader *out, const token_split *split, const char *name, loader_order order, uint64_t batch,
                      uint64_t tokens, uint64_t seed)
{
    assert(batch && tokens);
    memset(out, 0, sizeof *out);
    loader l = { .split = split, .order = order, .batch = batch, .tokens = tokens, .seed = seed };
    if (split->parts) {
        gt_status st = open_mixture(&l, split);
        if (!st)
            *out = l;
        return st;
    }
    const uint64_t least = order == LOADER_SEQUENTIAL ? batch : 1;
    l.rows = rows_of(split, tokens);
    if (l.rows < least)
        return too_short(split, name, least, tokens);
    l.windows = order == LOADER_SEQUENTIAL ? l.rows / batch : windows_of(split, tokens);
    l.sources = 1;
    l.slots = 1;
    l.source[0] = (loader_source){ split, l.windows, l.rows, 0, 1 };
    *out = l;
    return GT_OK;
}

/* A pass of a mixture has no end at which batches could be cut. */
static int in_batches(const loader *l)
{
    return l->order == LOADER_SEQUENTIAL && l->sources == 1;
}

uint64_t loader_begin(const loader *l, uint64_t position)
{
    if (!in_batches(l) || position % l->rows + l->batch <= l->rows)
        return position;
    return (position / l->rows + 1) * l->rows;
}

uint64_t loader_step(const loader *l, uint64_t step, uint64_t batch)
{
    if (!batch)
        batch = l->batch;
    if (!in_batches(l) || batch > l->rows)
        return step * batch;
    const uint64_t batches = l->rows / batch;
    return step / batches * l->rows + step % batches * batch;
}

uint64_t loader_convert(const loader *l, uint64_t samples, uint64_t tokens)
{
    const int in_order = l->order == LOADER_SEQUENTIAL;
    if (tokens == l->tokens || l->split->reading.by_document)
        return samples;
    if (l->sources > 1)
        return samples / l->tokens * tokens + samples % l->tokens * tokens / l->tokens;
    const uint64_t rows = in_order ? (l->split->count - 1) / tokens : windows_of(l->split, tokens);
    const uint64_t mine = in_order ? l->rows : l->windows;
    if (!rows)
        return samples;
    const uint64_t within = samples % rows * tokens / l->tokens;
    return samples / rows * mine + (within < mine ? within : mine);
}

/* ---- one sequence ------------------------------------------------------------------------------------- */

/* Where it lies: T + 1 tokens, or a document of `count`. */
typedef struct place {
    const token_split *split;
    uint64_t first, count, document;
} place;

/* Where the windows of an epoch begin. */
static uint64_t offset_of(const loader *l, const loader_source *s, uint64_t epoch)
{
    uint64_t slack = s->split->count - 1 - s->windows * l->tokens;
    uint64_t most = slack < l->tokens - 1 ? slack : l->tokens - 1;
    gt_random r;
    gt_random_init(&r, l->seed, OFFSET_STREAM + epoch);
    return gt_random_below(&r, most + 1);
}

static place place_at(const loader *l, const loader_source *s, uint64_t first, uint64_t document)
{
    place p = { s->split, first, l->tokens + 1, document };
    if (s->split->reading.by_document)
        token_split_document(s->split, document, &p.first, &p.count);
    return p;
}

static place place_of(const loader *l, uint64_t n)
{
    uint64_t number;
    const int at = source_of(l, l->seed, n, &number);
    const loader_source *s = &l->source[at];
    if (l->order == LOADER_SEQUENTIAL)
        return place_at(l, s, number % s->rows * l->tokens, number % s->rows);
    const uint64_t epoch = number / s->windows;
    const uint64_t window = gt_random_permute(l->seed + (uint64_t)at, epoch, s->windows, number % s->windows);
    return s->split->reading.by_document ? place_at(l, s, 0, window)
                                         : place_at(l, s, offset_of(l, s, epoch) + window * l->tokens, 0);
}

static place place_of_row(const loader *l, uint64_t n)
{
    uint64_t number;
    const loader_source *s = &l->source[source_of(l, 0, n, &number)];
    return place_at(l, s, number * l->tokens, number);
}

/* Of the place's tokens, how many are inputs, and how many of these have a token behind them. */
static size_t inputs_of(const loader *l, const place *p)
{
    return (size_t)(p->count < l->tokens ? p->count : l->tokens);
}

static size_t targets_of(const loader *l, const place *p)
{
    return (size_t)(p->count - 1 < l->tokens ? p->count - 1 : l->tokens);
}

/* counts[i]: does the target at i count? ends: room for T + 1. */
static void find_counting(const loader *l, const place *p, unsigned char *counts, unsigned char *ends)
{
    const token_split *s = p->split;
    const size_t n = targets_of(l, p);
    memset(counts, 0, (size_t)l->tokens);
    if (s->marks & 1u << TOKEN_ANSWERS)
        token_split_marked(s, TOKEN_ANSWERS, p->first + 1, n, counts);
    else
        memset(counts, 1, n);
    if (!s->reading.within || s->reading.by_document)
        return;
    token_split_marked(s, TOKEN_ENDS, p->first, n, ends);
    for (size_t i = 0; i < n; i++)
        counts[i] = (unsigned char)(counts[i] & !ends[i]);
}

static void find_starts(const loader *l, const place *p, int32_t *starts, unsigned char *ends)
{
    const size_t n = inputs_of(l, p);
    int32_t first = 0;
    memset(starts, 0, (size_t)l->tokens * sizeof *starts);
    if (!p->split->reading.within || p->split->reading.by_document)
        return;
    token_split_marked(p->split, TOKEN_ENDS, p->first, n, ends);
    for (size_t i = 0; i < n; i++) {
        starts[i] = first;
        if (ends[i])
            first = (int32_t)i + 1;
    }
}

static gt_status read_tokens(const loader *l, const place *p, int32_t *x)
{
    const token_split *s = p->split;
    const size_t n = inputs_of(l, p);
    gt_status st = token_split_read(s, p->first, n, x);
    memset(x + n, 0, ((size_t)l->tokens - n) * sizeof *x);
    if (!st && s->labelled && p->count > l->tokens)
        st = token_split_read(s, p->first + p->count - 1, 1, x + l->tokens - 1);
    return st;
}

static gt_status read_targets(const loader *l, const place *p, int32_t *y, const unsigned char *counts)
{
    const size_t n = targets_of(l, p);
    gt_status st = token_split_read(p->split, p->first + 1, n, y);
    for (size_t i = 0; counts && i < (size_t)l->tokens; i++)
        if (!counts[i])
            y[i] = LOADER_IGNORE;
    return st;
}

static void read_types(const loader *l, const place *p, int32_t *types, unsigned char *bits)
{
    const size_t n = inputs_of(l, p);
    memset(types, 0, (size_t)l->tokens * sizeof *types);
    token_split_marked(p->split, TOKEN_SECOND, p->first, n, bits);
    if (p->split->labelled && p->count > l->tokens)
        token_split_marked(p->split, TOKEN_SECOND, p->first + p->count - 1, 1, bits + n - 1);
    for (size_t i = 0; i < n; i++)
        types[i] = bits[i];
}

/* bits: room for 2 T. */
static gt_status fill_one(const loader *l, const place *p, uint64_t i, const loader_fields *f, unsigned char *bits)
{
    const size_t T = (size_t)l->tokens, at = (size_t)i * T;
    const int weighs = loader_weighs(l);
    gt_status st = GT_OK;
    if ((f->weights || f->targets) && weighs)
        find_counting(l, p, bits, bits + T);
    if (f->tokens)
        st = read_tokens(l, p, f->tokens + at);
    if (!st && f->targets)
        st = read_targets(l, p, f->targets + at, weighs ? bits : NULL);
    for (size_t k = 0; f->weights && k < T; k++)
        f->weights[at + k] = weighs ? (float)bits[k] : 1.0f;
    if (f->starts)
        find_starts(l, p, f->starts + at, bits + T);
    if (f->types)
        read_types(l, p, f->types + at, bits + T);
    if (f->lengths)
        f->lengths[i] = (int32_t)inputs_of(l, p);
    if (f->labels)
        f->labels[i] = LOADER_IGNORE;
    if (!st && f->labels && p->split->labelled && p->split->reading.by_document)
        st = token_split_label(p->split, p->document, 0, &f->labels[i]);
    return st;
}

/* A row of which nothing counts. */
static void fill_none(const loader *l, uint64_t i, const loader_fields *f)
{
    const size_t T = (size_t)l->tokens, at = (size_t)i * T;
    for (size_t k = 0; k < T; k++) {
        if (f->tokens)
            f->tokens[at + k] = 0;
        if (f->targets)
            f->targets[at + k] = LOADER_IGNORE;
        if (f->weights)
            f->weights[at + k] = 0.0f;
        if (f->starts)
            f->starts[at + k] = 0;
        if (f->types)
            f->types[at + k] = 0;
    }
    if (f->lengths)
        f->lengths[i] = 1;
    if (f->labels)
        f->labels[i] = LOADER_IGNORE;
}

/* ---- many sequences ------------------------------------------------------------------------------------- */

static gt_status room_for(const loader *l, unsigned char **bits)
{
    *bits = malloc(2 * (size_t)l->tokens);
    return *bits ? GT_OK
                 : gt_fail(GT_NO_MEMORY, "no memory for a sequence of %llu tokens", (unsigned long long)l->tokens);
}

gt_status loader_fill(const loader *l, uint64_t position, uint64_t first, uint64_t count, const loader_fields *f)
{
    assert(first + count <= l->batch);
    unsigned char *bits;
    const uint64_t begin = loader_begin(l, position) + first;
    gt_status st = room_for(l, &bits);
    for (uint64_t i = 0; !st && i < count; i++) {
        const place p = place_of(l, begin + i);
        st = fill_one(l, &p, i, f, bits);
    }
    free(bits);
    return st;
}

gt_status loader_fill_rows(const loader *l, uint64_t first, uint64_t count, uint64_t real, const loader_fields *f)
{
    unsigned char *bits;
    const uint64_t left = first < l->rows ? l->rows - first : 0, filled = real < left ? real : left;
    gt_status st = room_for(l, &bits);
    for (uint64_t i = 0; !st && i < count; i++) {
        if (i >= filled) {
            fill_none(l, i, f);
            continue;
        }
        const place p = place_of_row(l, first + i);
        st = fill_one(l, &p, i, f, bits);
    }
    free(bits);
    return st;
}

int token_split_weighs(const token_split *s)
{
    int weighs = s->reading.within || s->reading.by_document || (s->marks & 1u << TOKEN_ANSWERS);
    for (size_t i = 0; i < s->part_count; i++)
        weighs |= token_split_weighs(&s->parts[i].split);
    return weighs;
}

int loader_weighs(const loader *l)
{
    return l->split && token_split_weighs(l->split);
}

static gt_status weigh(const loader *l, uint64_t begin, uint64_t count, int rows, double *sum)
{
    unsigned char *bits;
    uint64_t all = 0;
    gt_status st = room_for(l, &bits);
    for (uint64_t i = 0; !st && i < count; i++) {
        const place p = rows ? place_of_row(l, begin + i) : place_of(l, begin + i);
        find_counting(l, &p, bits, bits + l->tokens);
        for (uint64_t k = 0; k < l->tokens; k++)
            all += bits[k];
    }
    free(bits);
    *sum = (double)all;
    return st;
}

gt_status loader_weigh(const loader *l, uint64_t position, uint64_t first, uint64_t count, double *sum)
{
    return weigh(l, loader_begin(l, position) + first, count, 0, sum);
}

gt_status loader_weigh_rows(const loader *l, uint64_t first, uint64_t count, double *sum)
{
    const uint64_t left = first < l->rows ? l->rows - first : 0;
    return weigh(l, first, count < left ? count : left, 1, sum);
}

gt_status loader_read(const loader *l, uint64_t position, uint64_t first, uint64_t count, int32_t *x, int32_t *y)
{
    const loader_fields f = { .tokens = x, .targets = y };
    return loader_fill(l, position, first, count, &f);
}

uint64_t loader_epoch_steps(const loader *l)
{
    if (in_batches(l))
        return l->windows;
    return (l->windows + l->batch - 1) / l->batch;
}

uint64_t loader_eval_rows(const loader *l)
{
    return l->rows;
}

gt_status loader_eval(const loader *l, uint64_t first, uint64_t count, int32_t *x, int32_t *y, uint64_t *filled)
{
    const loader_fields f = { .tokens = x, .targets = y };
    *filled = first >= l->rows ? 0 : l->rows - first < count ? l->rows - first : count;
    return loader_fill_rows(l, first, count, *filled, &f);
}
