/* SPDX-License-Identifier: MIT */
/* tests/models/model_batches.c - the batches that training takes, for comparisons.
 *
 *   model_batches TASK TOKENIZER DATA SEQ BATCH SEED STEPS OUT
 *
 * TASK is "mlm", "words" (whole words), "pairs" or "classify" (records with a "label"). Writes OUT-0.safetensors and
 * on, a step each: the fields by name. */
#include "host/data/batch_classify.h"
#include "host/data/labelled.h"
#include "host/tensor/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    data_set data;
    data_marks marks;
    loader loader;
    data_batch batch;
} source;

static gt_status open_source(source *s, char **argv)
{
    const int classify = !strcmp(argv[1], "classify");
    const token_reading reading = { .by_document = classify };
    data_request r = { .spec = argv[2] };
    r.keys.label = classify ? "label" : NULL;
    gt_status st = data_open_as(&s->data, argv[3], &r);
    if (!st)
        st = token_split_set_reading(&s->data.train, &reading, argv[3]);
    if (!st)
        st = data_marks_open(&s->marks, s->data.tokenizer);
    s->marks.whole_words = !strcmp(argv[1], "words");
    if (!st)
        st = loader_open(&s->loader, &s->data.train, "training", LOADER_SHUFFLED, strtoull(argv[5], NULL, 10),
                         strtoull(argv[4], NULL, 10), strtoull(argv[6], NULL, 10));
    if (!st && classify)
        data_batch_classify(&s->batch, &s->loader, "training", &s->marks, s->data.label_count);
    else if (!st)
        data_batch_mlm(&s->batch, &s->loader, "training", &s->marks, !strcmp(argv[1], "pairs"));
    return st;
}

static gt_status write_step(const source *s, uint64_t step, const char *out)
{
    char path[512];
    void *field[DATA_FIELDS] = { 0 };
    st_writer *w = NULL;
    const int64_t B = (int64_t)s->loader.batch;
    gt_status st = GT_OK;
    snprintf(path, sizeof path, "%s-%llu.safetensors", out, (unsigned long long)step);
    for (int f = 0; !st && f < s->batch.fields; f++) {
        field[f] = malloc(data_field_bytes(&s->batch.field[f], (uint64_t)B));
        st = field[f] ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for a field");
    }
    if (!st)
        st = s->batch.fill(&s->batch, loader_step(&s->loader, step, 0), 0, (uint64_t)B, field);
    if (!st)
        st = st_writer_open(&w, path);
    for (int f = 0; !st && f < s->batch.fields; f++) {
        const shape dims = shape_of(2, B, (int64_t)s->batch.field[f].count);
        st = st_writer_add(w, s->batch.field[f].name, s->batch.field[f].type, &dims);
    }
    if (!st)
        st = st_writer_begin(w);
    for (int f = 0; !st && f < s->batch.fields; f++)
        st = st_writer_put(w, field[f], data_field_bytes(&s->batch.field[f], (uint64_t)B));
    if (!st)
        st = st_writer_commit(w);
    else
        st_writer_abandon(w);
    for (int f = 0; f < DATA_FIELDS; f++)
        free(field[f]);
    return st;
}

int main(int argc, char **argv)
{
    source s = { 0 };
    if (argc != 9) {
        fprintf(stderr, "usage: model_batches TASK TOKENIZER DATA SEQ BATCH SEED STEPS OUT\n");
        return 2;
    }
    gt_status st = open_source(&s, argv);
    for (uint64_t step = 0; !st && step < strtoull(argv[7], NULL, 10); step++)
        st = write_step(&s, step, argv[8]);
    if (st)
        fprintf(stderr, "model_batches: %s\n", gt_message());
    data_marks_close(&s.marks);
    data_close(&s.data);
    return st != GT_OK;
}
