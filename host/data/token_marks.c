/* SPDX-License-Identifier: MIT */
/* host/data/token_marks.c - what lies beside shards: marks, a bit a token, and labels of documents; documents by
 * number; mixtures of splits.
 *
 * Where document number d ends is found without keeping a number for each: of every block of tokens the
 * documents that end before it are known (8 bytes), and the bits of one block are counted.            */
#include "host/data/token_marks.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD 16                         /* magic, u64 number */
#define MAGIC_BYTES 8
enum { BLOCK = 4096 };                  /* tokens; a multiple of 64 */

static const char marks_magic[MAGIC_BYTES] = "GTMARKS\1", labels_magic[MAGIC_BYTES] = "GTLABEL\1";
static const char *const ends_of[TOKEN_MARKS] = { ".ends", ".answers", ".second" };
static const char labels_end[] = ".labels";

/* ---- files -------------------------------------------------------------------------------------- */

/* "train-000000.bin" -> "train-000000.ends"; NULL: no memory. */
static char *beside(const char *shard, const char *end)
{
    const size_t n = strlen(shard), stem = n > 4 && !strcmp(shard + n - 4, ".bin") ? n - 4 : n;
    char *path = malloc(stem + strlen(end) + 1);
    if (path)
        sprintf(path, "%.*s%s", (int)stem, shard, end);
    return path;
}

static gt_status no_memory(const char *path)
{
    return gt_fail(GT_NO_MEMORY, "no memory for what lies beside '%s'", path);
}

/* Opens a file beside a shard if it is there. `number` items of `bits` each; UINT64_MAX: as many as it says. */
static gt_status open_beside(gt_map *out, const char *shard, const char *end, const char *magic, uint64_t number,
                             unsigned bits)
{
    uint64_t said = 0;
    char *path = beside(shard, end);
    gt_status st = path ? GT_OK : no_memory(shard);
    if (!st && gt_path_exists(path)) {
        st = gt_map_open(out, path);
        if (!st && out->size >= HEAD)
            memcpy(&said, out->data + MAGIC_BYTES, sizeof said);
        if (!st
            && (out->size < HEAD || memcmp(out->data, magic, MAGIC_BYTES) || (number != UINT64_MAX && said != number)
                || said > (UINT64_MAX - 7) / bits || out->size - HEAD != (said * bits + 7) / 8))
            st = gt_fail(GT_FORMAT,
                         "cannot read '%s': it is not what belongs to the tokens beside it; copy the whole "
                         "folder again, or tokenize anew",
                         path);
    }
    free(path);
    return st;
}

gt_status token_marks_open(token_file *f)
{
    gt_status st = GT_OK;
    for (int m = 0; !st && m < TOKEN_MARKS; m++)
        st = open_beside(&f->mark[m], f->map.path, ends_of[m], marks_magic, f->count, 1);
    return st ? st : open_beside(&f->labels, f->map.path, labels_end, labels_magic, UINT64_MAX, 32);
}

void token_marks_close(token_file *f)
{
    for (int m = 0; m < TOKEN_MARKS; m++)
        gt_map_close(&f->mark[m]);
    gt_map_close(&f->labels);
}

unsigned token_marks_of(const token_file *f)
{
    unsigned marks = 0;
    for (int m = 0; m < TOKEN_MARKS; m++)
        marks |= f->mark[m].data ? 1u << m : 0;
    return marks;
}

static unsigned bit_at(const gt_map *mark, uint64_t i)
{
    return (unsigned)(mark->data[HEAD + i / 8] >> (i % 8)) & 1u;
}

unsigned token_marks_at(const token_file *f, uint64_t i)
{
    unsigned marks = 0;
    for (int m = 0; m < TOKEN_MARKS; m++)
        if (f->mark[m].data)
            marks |= bit_at(&f->mark[m], i) << m;
    return marks;
}

static uint64_t label_count(const token_file *f)
{
    return f->labels.data ? (f->labels.size - HEAD) / sizeof(int32_t) : 0;
}

uint64_t token_marks_label_hash(const token_split *s)
{
    enum { MOST = 1 << 20 };            /* labels that go in */
    uint64_t mixed[2] = { 0, 0 }, left = MOST;
    for (size_t i = 0; i < s->file_count; i++) {
        const uint64_t count = label_count(&s->files[i]);
        for (uint64_t k = 0; k < count && left; k++, left--) {
            int32_t label;
            memcpy(&label, s->files[i].labels.data + HEAD + k * sizeof label, sizeof label);
            mixed[1] = (uint32_t)label;
            mixed[0] = gt_hash(mixed, sizeof mixed);
        }
    }
    return mixed[0];
}

/* ---- writing -------------------------------------------------------------------------------------- */

static gt_status write_beside(const char *shard, const char *end, const char *magic, uint64_t number,
                              const gt_text *what)
{
    gt_writer *w = NULL;
    char *path = beside(shard, end);
    gt_status st = path && !what->failed ? gt_writer_open(&w, path) : no_memory(shard);
    if (!st)
        st = gt_writer_put(w, magic, MAGIC_BYTES);
    if (!st)
        st = gt_writer_put(w, &number, sizeof number);
    if (!st)
        st = gt_writer_put(w, what->data, what->size);
    free(path);
    if (!st)
        return gt_writer_commit(w);
    gt_writer_abandon(w);
    return st;
}

void token_marks_collect(token_marks_writer *w, const unsigned char *marks, size_t count)
{
    for (size_t i = 0; i < count; i++, w->count++)
        for (int m = 0; m < TOKEN_MARKS; m++) {
            if (!(w->marks & (1u << m)))
                continue;
            if (w->count % 8 == 0)
                gt_text_put(&w->bits[m], "", 1);
            if (marks && !w->bits[m].failed)
                w->bits[m].data[w->count / 8] |= (char)(((marks[i] >> m) & 1u) << (w->count % 8));
        }
}

void token_marks_collect_label(token_marks_writer *w, int32_t label)
{
    gt_text_put(&w->labels, &label, sizeof label);
}

gt_status token_marks_write(token_marks_writer *w, const char *shard)
{
    gt_status st = GT_OK;
    for (int m = 0; !st && m < TOKEN_MARKS; m++)
        if (w->marks & (1u << m))
            st = write_beside(shard, ends_of[m], marks_magic, w->count, &w->bits[m]);
    if (!st && w->labelled)
        st = write_beside(shard, labels_end, labels_magic, w->labels.size / sizeof(int32_t), &w->labels);
    token_marks_release(w);
    return st;
}

void token_marks_release(token_marks_writer *w)
{
    for (int m = 0; m < TOKEN_MARKS; m++)
        gt_text_release(&w->bits[m]);
    gt_text_release(&w->labels);
    w->count = 0;
}

/* ---- reading ---------------------------------------------------------------------------------------- */

int token_split_has_documents(const token_split *s)
{
    int all = s->marks >> TOKEN_ENDS & 1 || s->end;
    for (size_t i = 0; i < s->part_count; i++)
        all = (i == 0 || all) && token_split_has_documents(&s->parts[i].split);
    return all;
}

void token_split_marked(const token_split *s, token_mark m, uint64_t first, size_t count, unsigned char *out)
{
    const int by_id = m == TOKEN_ENDS && !(s->marks & 1u << m);
    assert(!s->parts && first <= s->count && count <= s->count - first);
    for (size_t i = 0; count && i < s->file_count; i++) {
        const token_file *f = &s->files[i];
        if (first >= f->count) {
            first -= f->count;
            continue;
        }
        const uint64_t n = f->count - first < count ? f->count - first : count;
        for (uint64_t k = 0; k < n; k++)
            out[k] = by_id             ? s->end && token_file_id(f, first + k) == s->end - 1
                     : f->mark[m].data ? (unsigned char)bit_at(&f->mark[m], first + k)
                                       : 0;
        out += n;
        count -= (size_t)n;
        first = 0;
    }
}

/* ---- documents by number ------------------------------------------------------------------------------ */

struct token_index {
    uint64_t documents, blocks;
    uint64_t *before;                   /* [blocks + 1] documents that end before block b */
};

void token_index_release(token_index *x)
{
    if (x)
        free(x->before);
    free(x);
}

/* Blocks are of the split's tokens, in order, whatever shard they are in. */
static gt_status make_index(token_split *s)
{
    unsigned char ends[BLOCK];
    uint64_t labels = 0;
    token_index *x = calloc(1, sizeof *x);
    if (x) {
        x->blocks = (s->count + BLOCK - 1) / BLOCK;
        x->before = calloc(x->blocks + 1, sizeof *x->before);
    }
    if (!x || !x->before) {
        token_index_release(x);
        return gt_fail(GT_NO_MEMORY, "no memory for where the documents of %llu tokens end",
                       (unsigned long long)s->count);
    }
    for (uint64_t b = 0; b < x->blocks; b++) {
        const uint64_t at = b * BLOCK;
        const size_t n = s->count - at < BLOCK ? (size_t)(s->count - at) : BLOCK;
        token_split_marked(s, TOKEN_ENDS, at, n, ends);
        x->before[b + 1] = x->before[b];
        for (size_t i = 0; i < n; i++)
            x->before[b + 1] += ends[i];
    }
    x->documents = x->before[x->blocks];
    token_index_release(s->index);
    s->index = x;
    for (size_t i = 0; i < s->file_count; i++)
        labels += label_count(&s->files[i]);
    return !s->labelled || labels == x->documents
               ? GT_OK
               : gt_fail(GT_FORMAT,
                         "cannot use '%s': beside its %llu documents lie %llu labels; copy the whole folder "
                         "again, or tokenize anew",
                         s->files[0].map.path, (unsigned long long)x->documents, (unsigned long long)labels);
}

uint64_t token_split_documents(const token_split *s)
{
    uint64_t all = s->index ? s->index->documents : 0;
    for (size_t i = 0; i < s->part_count; i++)
        all += token_split_documents(&s->parts[i].split);
    return all;
}

/* The place behind the last token of a document. */
static uint64_t end_of(const token_split *s, uint64_t number)
{
    unsigned char ends[BLOCK];
    const token_index *x = s->index;
    uint64_t low = 0, high = x->blocks;         /* before[low] <= number < before[high] */
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (x->before[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    const uint64_t at = low * BLOCK;
    const size_t n = s->count - at < BLOCK ? (size_t)(s->count - at) : BLOCK;
    uint64_t left = number - x->before[low];
    token_split_marked(s, TOKEN_ENDS, at, n, ends);
    for (size_t i = 0; i < n; i++)
        if (ends[i] && !left--)
            return at + i + 1;
    return s->count;
}

void token_split_document(const token_split *s, uint64_t number, uint64_t *first, uint64_t *count)
{
    assert(s->index && number < s->index->documents);
    *first = number ? end_of(s, number - 1) : 0;
    *count = end_of(s, number) - *first;
}

gt_status token_split_label(const token_split *s, uint64_t number, int32_t labels, int32_t *out)
{
    uint64_t at = number;
    *out = 0;
    for (size_t i = 0; i < s->file_count; i++) {
        const token_file *f = &s->files[i];
        const uint64_t here = label_count(f);
        if (at >= here) {
            at -= here;
            continue;
        }
        memcpy(out, f->labels.data + HEAD + at * sizeof *out, sizeof *out);
        if (s->relabel && *out >= 0 && *out < s->relabels)
            *out = s->relabel[*out];
        return *out >= 0 && (!labels || *out < labels)
                   ? GT_OK
                   : gt_fail(GT_FORMAT, "cannot use '%s': label %d of document %llu is none of %d", f->labels.path,
                             *out, (unsigned long long)number, labels);
    }
    return gt_fail(GT_MISMATCH, "document %llu has no label; tokenize with --label-key", (unsigned long long)number);
}

gt_status token_split_set_reading(token_split *s, const token_reading *r, const char *name)
{
    gt_status st = GT_OK;
    s->reading = *r;
    for (size_t i = 0; !st && i < s->part_count; i++)
        st = token_split_set_reading(&s->parts[i].split, r, s->parts[i].name);
    if (st || s->part_count || !s->count || (!r->within && !r->by_document))
        return st;
    if (!token_split_has_documents(s))
        return gt_fail(
            GT_MISMATCH,
            "cannot tell the documents of '%s' apart: nothing says where they end, and its "
            "tokenizer has no end-of-text token; give them as records (JSONL, CSV), one a document, or say %s",
            name, r->by_document ? "--rows packed" : "--documents across");
    return r->by_document ? make_index(s) : GT_OK;
}

/* ---- mixtures -------------------------------------------------------------------------------------------- */

gt_status token_split_mix(token_split *out, token_split *part, double weight, const char *name)
{
    token_part *grown = realloc(out->parts, (out->part_count + 1) * sizeof *grown);
    char *copy = strdup(name);
    if (grown)
        out->parts = grown;
    if (!grown || !copy) {
        free(copy);
        return gt_fail(GT_NO_MEMORY, "no memory for a mixture of data");
    }
    out->count += part->count;
    out->labelled = (out->part_count == 0 || out->labelled) && part->labelled;
    grown[out->part_count++] = (token_part){ .split = *part, .weight = weight, .name = copy };
    memset(part, 0, sizeof *part);
    return GT_OK;
}
