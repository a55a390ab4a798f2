/* SPDX-License-Identifier: MIT */
/* tests/data/test_loader.c - batches out of token files. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/data/batch.h"
#include "host/data/dataset.h"
#include "host/data/loader.h"
#include "host/tensor/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void sequential_batches_are_the_tokens_in_order(void)
{
    enum { B = 3, T = 4 };
    token_split split;
    loader l;
    int32_t x[B * T], y[B * T];
    open_counting(&split, "sequential", 1000, 50, 17);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SEQUENTIAL, B, T, 1));
    CHECK(loader_epoch_steps(&l) == 4);                 /* 49 / 12 */
    for (uint64_t s = 0; s < 10; s++) {
        int32_t base = (int32_t)(s % 4) * B * T;
        CHECK_OK(loader_read(&l, loader_step(&l, s, 0), 0, B, x, y));
        for (int i = 0; i < B * T; i++)
            CHECK(x[i] == base + i && y[i] == base + i + 1);
    }
    CHECK_OK(loader_read(&l, 3, 2, 1, x, y));           /* one sample, as a rank asks */
    CHECK(x[0] == 20 && y[T - 1] == 24);
    token_split_close(&split);
}

/* Fields are filled each for itself, and rows that are not real have no target that counts. */
static void a_batch_fills_the_fields_that_are_wanted(void)
{
    enum { B = 3, T = 4 };
    token_split split;
    loader l;
    data_batch b;
    int32_t x[B * T], y[B * T], alone[B * T];
    open_counting(&split, "fields", 1000, 50, 17);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SEQUENTIAL, B, T, 1));
    data_batch_next_token(&b, &l, "training");
    CHECK(b.fields == 5 && !strcmp(b.field[0].name, "tokens") && !strcmp(b.field[1].name, "targets"));
    CHECK(!b.weights && !strcmp(b.field[2].name, "weights") && !strcmp(b.field[3].name, "starts"));
    CHECK(data_field_bytes(&b.field[0], B) == sizeof x);
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[DATA_FIELDS]){ x, y }));
    CHECK(x[0] == 3 * T && y[B * T - 1] == 6 * T);
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[DATA_FIELDS]){ alone, NULL }));
    CHECK(!memcmp(alone, x, sizeof x));
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[DATA_FIELDS]){ NULL, alone }));
    CHECK(!memcmp(alone, y, sizeof y));
    CHECK_OK(b.fill_rows(&b, 1, B, 2, (void *[DATA_FIELDS]){ NULL, y }));
    CHECK(y[0] == T + 1 && y[2 * T - 1] == 3 * T && y[2 * T] == LOADER_IGNORE && y[B * T - 1] == LOADER_IGNORE);
    b.vocab = 20;
    CHECK_FAILS(b.fill(&b, 3, 0, B, (void *[DATA_FIELDS]){ x, NULL }), GT_MISMATCH,
                "training data holds token 20, the model has 20");
    token_split_close(&split);
}

static void an_epoch_visits_every_window_once(void)
{
    static const struct {
        size_t count;
        uint64_t batch, tokens;
    } cases[] = { { 101, 4, 5 },   { 100, 1, 7 }, { 64, 8, 1 }, { 65, 3, 16 },
                  { 1000, 10, 3 }, { 9, 2, 8 },   { 16, 2, 8 }, { 17, 2, 8 } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const uint64_t T = cases[c].tokens, B = cases[c].batch;
        token_split split;
        loader l;
        int32_t x[16], y[16];
        uint64_t moved = 0, offsets = 0, before = UINT64_MAX;
        open_counting(&split, "epoch", 2000, cases[c].count, 1000);
        CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, B, T, 5));
        CHECK(l.windows >= 1 && l.windows * T < cases[c].count && (l.windows + 2) * T >= cases[c].count - 1);
        for (uint64_t epoch = 0; epoch < 8; epoch++) {
            unsigned char seen[2000] = { 0 };
            uint64_t first = UINT64_MAX;
            for (uint64_t k = 0; k < l.windows; k++) {
                uint64_t number = epoch * l.windows + k;
                CHECK_OK(loader_read(&l, number - number % B, number % B, 1, x, y));
                for (uint64_t i = 0; i < T; i++) {
                    if (y[i] != x[0] + (int32_t)i + 1 || x[i] != x[0] + (int32_t)i || seen[x[i]]++)
                        CHECKF(0, "case %zu epoch %d window %d", c, (int)epoch, (int)k);
                    first = (uint64_t)x[0] < first ? (uint64_t)x[0] : first;
                }
                moved += (uint64_t)x[0] / T != k;
            }
            CHECK(first < T || l.windows == 1);
            offsets += first != before;
            before = first;
        }
        CHECKF(l.windows < 8 || moved > l.windows, "case %zu is in order", c);
        CHECKF(T < 3 || cases[c].count < T + 5 || offsets > 2, "case %zu: %d offsets", c, (int)offsets);
        token_split_close(&split);
    }
}

static void a_sample_is_a_function_of_seed_step_and_index(void)
{
    enum { B = 6, T = 8 };
    token_split split;
    loader a, b, other;
    int32_t x[B * T], y[B * T], u[B * T], v[B * T];
    int same = 0;
    open_counting(&split, "pure", 1000, 700, 300);
    CHECK_OK(loader_open(&a, &split, "it", LOADER_SHUFFLED, B, T, 7));
    CHECK_OK(loader_open(&b, &split, "it", LOADER_SHUFFLED, B, T, 7));
    CHECK_OK(loader_open(&other, &split, "it", LOADER_SHUFFLED, B, T, 8));
    for (uint64_t s = 50; s-- > 0;) {                  /* backwards, and sample by sample */
        CHECK_OK(loader_read(&a, s * B, 0, B, x, y));
        for (uint64_t i = B; i-- > 0;)
            CHECK_OK(loader_read(&b, s * B, i, 1, u + i * T, v + i * T));
        CHECK(!memcmp(x, u, sizeof x) && !memcmp(y, v, sizeof y));
        CHECK_OK(loader_read(&other, s * B, 0, B, u, v));
        same += !memcmp(x, u, sizeof x);
    }
    CHECK(same == 0);
    token_split_close(&split);
}

/* Batches of changing size, each where the one before ended: in every pass each sample at most
 * once, and left out are only those of a batch that did not fit. */
static void a_changed_batch_repeats_and_skips_nothing(void)
{
    enum { T = 4, ROWS = 23 };
    static const uint64_t sizes[] = { 8, 8, 4, 4, 1, 5, 3, 7, 2 };
    const size_t n = sizeof sizes / sizeof *sizes;
    for (int order = LOADER_SHUFFLED; order <= LOADER_SEQUENTIAL; order++) {
        token_split split;
        unsigned seen[ROWS] = { 0 };
        uint64_t position = 0, passes = 0;
        open_counting(&split, "changed", 1000, ROWS * T + (order == LOADER_SEQUENTIAL ? 1 : T), 50);
        for (size_t k = 0; k < 60; k++) {
            loader l;
            int32_t x[8 * T], y[8 * T];
            const uint64_t B = sizes[k % n];
            CHECK_OK(loader_open(&l, &split, "it", (loader_order)order, B, T, 9));
            const uint64_t begin = loader_begin(&l, position);
            CHECK(begin - position < B && (order == LOADER_SEQUENTIAL || begin == position));
            if (begin / ROWS != passes) {
                passes = begin / ROWS;
                CHECK(begin % ROWS == 0 || order == LOADER_SHUFFLED);
            }
            CHECK_OK(loader_read(&l, position, 0, B, x, y));
            for (uint64_t i = 0; i < B; i++) {
                const uint64_t number = begin + i;
                const int want = order == LOADER_SEQUENTIAL
                                     ? x[i * T] == (int32_t)(number % ROWS * T)
                                     : seen[x[i * T] / T] == (unsigned)(number / ROWS);  /* passes */
                CHECKF(want, "batch %d, sample %d", (int)k, (int)i);
                seen[x[i * T] / T]++;
            }
            position = begin + B;
        }
        CHECK(passes > 8);
        token_split_close(&split);
    }
}

static void another_sequence_length_goes_on_at_the_same_tokens(void)
{
    token_split split;
    loader from, to;
    open_counting(&split, "lengths", 2000, 1001, 300);
    CHECK_OK(loader_open(&from, &split, "it", LOADER_SEQUENTIAL, 2, 8, 1));     /* 125 rows */
    CHECK_OK(loader_open(&to, &split, "it", LOADER_SEQUENTIAL, 2, 20, 1));      /*  50 rows */
    CHECK(loader_convert(&to, 50, 8) == 20);            /* 400 tokens in */
    CHECK(loader_convert(&to, 125 + 50, 8) == 50 + 20); /* of the second pass */
    CHECK(loader_convert(&to, 125 + 51, 8) == 50 + 20); /* rather twice than not at all */
    CHECK(loader_convert(&from, 20, 20) == 50);
    CHECK(loader_convert(&from, 77, 8) == 77);
    CHECK_OK(loader_open(&to, &split, "it", LOADER_SHUFFLED, 2, 20, 1));
    CHECK(to.windows == 49);
    CHECK(loader_convert(&to, 2 * 124 + 62, 8) == 2 * 49 + 24);     /* half of the third pass */
    token_split_close(&split);
}

static void steps_of_one_batch_size_have_their_places(void)
{
    token_split split;
    loader l;
    open_counting(&split, "steps", 2000, 10 * 4 + 1, 300);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SEQUENTIAL, 3, 4, 1));
    uint64_t position = 0;
    for (uint64_t s = 0; s < 20; s++) {
        CHECK(loader_begin(&l, position) == loader_step(&l, s, 3));
        position = loader_begin(&l, position) + 3;
    }
    CHECK(loader_step(&l, 3, 4) == 10 + 4);             /* two batches of 4 a pass */
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, 3, 4, 1));
    CHECK(loader_step(&l, 7, 0) == 21 && loader_step(&l, 7, 4) == 28);
    token_split_close(&split);
}

static void a_split_that_is_too_short_is_refused(void)
{
    token_split split;
    loader l;
    open_counting(&split, "short", 100, 16, 100);
    CHECK_FAILS(loader_open(&l, &split, "short", LOADER_SHUFFLED, 2, 16, 1), GT_MISMATCH,
                "'short': 16 tokens, but 1 x 16 + 1 are needed");
    CHECK_OK(loader_open(&l, &split, "short", LOADER_SHUFFLED, 2, 15, 1));
    CHECK_FAILS(loader_open(&l, &split, "short", LOADER_SEQUENTIAL, 4, 4, 1), GT_MISMATCH, "4 x 4 + 1");
    CHECK_OK(loader_open(&l, &split, "short", LOADER_SEQUENTIAL, 3, 5, 1));
    token_split_close(&split);
    token_split none = { 0 };
    CHECK_FAILS(loader_open(&l, &none, "none", LOADER_SHUFFLED, 1, 1, 1), GT_MISMATCH, "0 tokens");
}

static void evaluation_covers_the_split_once(void)
{
    enum { T = 8, ROWS = 5 };
    token_split split;
    loader l;
    int32_t x[ROWS * T], y[ROWS * T];
    uint64_t filled, rows = 0;
    open_counting(&split, "eval", 1000, 99, 40);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, 4, T, 7));
    CHECK(loader_eval_rows(&l) == 12);
    for (uint64_t first = 0; first < 20; first += ROWS) {
        CHECK_OK(loader_eval(&l, first, ROWS, x, y, &filled));
        for (uint64_t i = 0; i < ROWS * T; i++)
            CHECK(i < filled * T ? x[i] == (int32_t)(first * T + i) && y[i] == x[i] + 1
                                 : x[i] == 0 && y[i] == LOADER_IGNORE);
        rows += filled;
    }
    CHECK(rows == 12);
    token_split_close(&split);
}

static void batches_are_those_of_the_reference(void)
{
    const char *path = check_shared("reference/gpt2_tiny_llmc_ref.safetensors");
    enum { B = 4, T = 64 };
    st_file *ref;
    if (!path) {
        check_skip("no reference/gpt2_tiny_llmc_ref.safetensors");
        return;
    }
    CHECK_OK(st_open(&ref, path));
    path = check_shared("data/tinyshakespeare.txt");
    if (!path) {
        check_skip("no data/tinyshakespeare.txt");
        st_close(ref);
        return;
    }
    char *cache = fresh("cache");
    setenv("GEARTRAIN_CACHE", cache, 1);
    data_set d;
    loader l;
    int32_t x[B * T], y[B * T];
    CHECK_OK(data_open(&d, path, "char", NULL, NULL));
    CHECK(tokenizer_vocab(d.tokenizer) == 65 && d.train.count == 1003854 && d.val.count == 111540);
    CHECK_OK(loader_open(&l, &d.train, "train", LOADER_SEQUENTIAL, B, T, 1));
    CHECK_OK(loader_read(&l, 0, 0, B, x, y));
    const st_tensor *rx = st_find(ref, "x"), *ry = st_find(ref, "y");
    int wrong = 0;
    for (int i = 0; rx && ry && i < B * T; i++) {
        int64_t a = 0, b = 0;
        memcpy(&a, (const char *)rx->data + (size_t)i * dtype_size(rx->type), dtype_size(rx->type));
        memcpy(&b, (const char *)ry->data + (size_t)i * dtype_size(ry->type), dtype_size(ry->type));
        wrong += a != x[i] || b != y[i];
    }
    CHECKF(rx && ry && rx->bytes >= B * T * dtype_size(rx->type) && !wrong, "%d differ", wrong);
    data_close(&d);
    st_close(ref);
    unsetenv("GEARTRAIN_CACHE");
    free(cache);
}

const check_case check_cases[] = {
    CASE(a_batch_fills_the_fields_that_are_wanted),
    CASE(sequential_batches_are_the_tokens_in_order),
    CASE(an_epoch_visits_every_window_once),
    CASE(a_sample_is_a_function_of_seed_step_and_index),
    CASE(a_changed_batch_repeats_and_skips_nothing),
    CASE(another_sequence_length_goes_on_at_the_same_tokens),
    CASE(steps_of_one_batch_size_have_their_places),
    CASE(a_split_that_is_too_short_is_refused),
    CASE(evaluation_covers_the_split_once),
    CASE(batches_are_those_of_the_reference),
    { 0 }
};
