/* SPDX-License-Identifier: MIT */
/* tests/data/test_batches.c - batches of hidden tokens and of labelled texts. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/data/batch_classify.h"
#include "host/data/labelled.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 1000, PAD = 990, CLS, SEP, MASK, B = 6, T = 40, P = 6 };

/* Signs in a vocabulary of numbers: the last ten are signs, and of the others every id that divides by three goes on
 * with the word before it. */
static data_marks signs(int whole_words)
{
    data_marks m = {
        .begin = CLS, .end = SEP, .padding = PAD, .mask = MASK, .whole_words = whole_words, .vocab = VOCAB
    };
    m.kind = calloc(VOCAB, 1);
    for (int i = 0; m.kind && i < VOCAB; i++)
        m.kind[i] = (unsigned char)(i >= PAD ? DATA_MARK_SPECIAL : i % 3 == 0 ? DATA_MARK_CONTINUES : 0);
    return m;
}

typedef struct filled {
    int32_t tokens[B * T], types[B * T], lengths[B], places[B * P], targets[B * P], labels[B];
    float weights[B];
} filled;

/* Samples first .. first + count of the step at a position, into rows from `first` on. */
static void fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, filled *f)
{
    void *const to[DATA_FIELDS] = { f->tokens + first * T, f->types + first * T,   f->lengths + first,
                                    f->places + first * P, f->targets + first * P, f->labels + first,
                                    f->weights + first };
    CHECK_OK(b->fill(b, position, first, count, to));
}

static int found_in(const filled *f, int row)
{
    int found = 0;
    for (int i = 0; i < P; i++)
        found += f->targets[row * P + i] >= 0;
    return found;
}

/* What was hidden is put back. */
static void restore(filled *f)
{
    for (int row = 0; row < B; row++)
        for (int i = 0; i < P; i++)
            if (f->targets[row * P + i] >= 0)
                f->tokens[row * T + f->places[row * P + i]] = f->targets[row * P + i];
}

static void hidden_tokens_can_be_put_back(void)
{
    token_split split;
    loader l;
    data_batch b;
    data_marks m = signs(0);
    int hidden = 0, kept = 0, drawn = 0;
    open_counting(&split, "hidden", VOCAB, 980, 400);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, B, T, 9));
    data_batch_mlm(&b, &l, "training", &m, 0);
    CHECK(b.fields == 5 && data_mask_places(T) == P && data_mask_places(1) == 1 && data_mask_places(128) == 19);
    for (uint64_t step = 0; step < 200; step++) {
        filled f;
        data_total total;
        int found = 0;
        fill(&b, step * B, 0, B, &f);
        CHECK_OK(data_batch_total(&b, step * B, 0, B, &total));
        for (int row = 0; row < B; row++) {
            found += found_in(&f, row);
            CHECK(found_in(&f, row) == P && f.lengths[row] == T);
            for (int i = 0; i < P; i++) {
                const int32_t at = f.places[row * P + i], now = f.tokens[row * T + at], then = f.targets[row * P + i];
                CHECK(at > 0 && at < T - 1 && then < PAD);      /* never a sign */
                CHECK(i == 0 || at > f.places[row * P + i - 1]);
                hidden += now == MASK;
                kept += now == then;
                drawn += now != MASK && now != then;
                CHECK(now == MASK || now < PAD);
            }
        }
        CHECK(total.weights == (double)found && total.tokens == B * T);
        restore(&f);
        for (int row = 0; row < B; row++) {                     /* a window of neighbours in its frame */
            CHECK(f.tokens[row * T] == CLS && f.tokens[row * T + T - 1] == SEP);
            for (int t = 1; t < T - 1; t++)
                CHECK(t == 1 || f.tokens[row * T + t] == f.tokens[row * T + t - 1] + 1);
        }
    }
    const double all = hidden + kept + drawn;
    CHECK(all == 200.0 * B * P);
    CHECKF(hidden / all > 0.78 && hidden / all < 0.82, "%.3f are hidden", hidden / all);
    CHECKF(kept / all > 0.085 && kept / all < 0.115 && drawn / all > 0.085, "%.3f stay", kept / all);
    token_split_close(&split);
    data_marks_close(&m);
}

/* However a step is shared out, and whatever is asked for beside. */
static void samples_are_the_same_under_every_plan(void)
{
    for (int pairs = 0; pairs < 2; pairs++) {
        token_split split;
        loader l;
        data_batch b;
        data_marks m = signs(pairs);
        static filled whole, parts;
        int32_t tokens[B * T];
        memset(&whole, 0, sizeof whole);
        memset(&parts, 0, sizeof parts);
        open_counting(&split, pairs ? "same1" : "same0", VOCAB, 700, 400);
        CHECK_OK(loader_open(&l, &split, "it", pairs ? LOADER_SEQUENTIAL : LOADER_SHUFFLED, B, T, 9));
        data_batch_mlm(&b, &l, "training", &m, pairs);
        const uint64_t at = loader_step(&l, 1, 0);
        fill(&b, at, 0, B, &whole);
        fill(&b, at, 0, 1, &parts);
        fill(&b, at, 3, 3, &parts);
        fill(&b, at, 1, 2, &parts);
        CHECK(!memcmp(&whole, &parts, sizeof whole));
        CHECK_OK(b.fill(&b, at, 0, B, (void *[DATA_FIELDS]){ tokens }));
        CHECK(!memcmp(tokens, whole.tokens, sizeof tokens));
        l.seed = 10;
        fill(&b, at, 0, B, &parts);
        CHECK(memcmp(whole.places, parts.places, sizeof whole.places) != 0);
        token_split_close(&split);
        data_marks_close(&m);
    }
}

static void whole_words_are_hidden_together(void)
{
    token_split split;
    loader l;
    data_batch b;
    data_marks m = signs(1);
    int less = 0;
    open_counting(&split, "words", VOCAB, 980, 400);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, B, T, 9));
    data_batch_mlm(&b, &l, "training", &m, 0);
    for (uint64_t step = 0; step < 50; step++) {
        filled f;
        unsigned char chosen[B * T] = { 0 };
        fill(&b, step * B, 0, B, &f);
        restore(&f);
        for (int row = 0; row < B; row++) {
            less += found_in(&f, row) < P;
            for (int i = 0; i < P; i++)
                if (f.targets[row * P + i] >= 0)
                    chosen[row * T + f.places[row * P + i]] = 1;
            for (int t = 2; t < T - 1; t++)                     /* 2 3 | 5 6 | 8 9 and 4, 7 alone */
                if (f.tokens[row * T + t] % 3 == 0)
                    CHECK(chosen[row * T + t] == chosen[row * T + t - 1]);
        }
    }
    CHECK(less < 50 * B);
    token_split_close(&split);
    data_marks_close(&m);
}

static void pairs_follow_or_do_not(void)
{
    token_split split;
    loader l;
    data_batch b;
    data_marks m = signs(0);
    int follows = 0, all = 0;
    open_counting(&split, "pairs", VOCAB, 980, 400);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, B, T, 9));
    data_batch_mlm(&b, &l, "training", &m, 1);
    CHECK(b.fields == 7 && !strcmp(b.field[6].name, "label_weights"));
    for (uint64_t step = 0; step < 60; step++) {
        filled f;
        fill(&b, step * B, 0, B, &f);
        for (int row = 0; row < B; row++) {
            CHECK((int)f.weights[row] == found_in(&f, row));
        }
        restore(&f);
        for (int row = 0; row < B; row++) {
            const int32_t *x = f.tokens + row * T, *kind = f.types + row * T;
            int second = 1;
            while (second < T && kind[second] == 0)
                second++;
            CHECK(second > 2 && second < T - 1 && x[second - 1] == SEP && x[T - 1] == SEP && kind[T - 1] == 1);
            if (second > 2 && second < T - 1)
                CHECK((x[second] == x[second - 2] + 1) == (f.labels[row] == 0));
            follows += f.labels[row] == 0;
            all++;
        }
    }
    CHECKF(follows > all * 2 / 5 && follows < all * 3 / 5, "%d of %d follow", follows, all);
    token_split_close(&split);
    data_marks_close(&m);
}

/* Rows that are not real do not count, and evaluation hides the same each time. */
static void evaluation_hides_by_row(void)
{
    token_split split;
    loader l;
    data_batch b;
    data_marks m = signs(0);
    static filled f, again;
    data_total total;
    open_counting(&split, "rows", VOCAB, 300, 400);
    CHECK_OK(loader_open(&l, &split, "it", LOADER_SEQUENTIAL, 1, T, 0));
    data_batch_mlm(&b, &l, "validation", &m, 1);
    void *const to[DATA_FIELDS] = { f.tokens, f.types, f.lengths, f.places, f.targets, f.labels, f.weights };
    void *const more[DATA_FIELDS] = { again.tokens,  again.types,  again.lengths, again.places,
                                      again.targets, again.labels, again.weights };
    CHECK_OK(b.fill_rows(&b, 2, B, 4, to));
    CHECK_OK(b.fill_rows(&b, 4, 2, 2, more));
    CHECK(!memcmp(f.tokens + 2 * T, again.tokens, 2 * T * sizeof *f.tokens));
    CHECK(!memcmp(f.targets + 2 * P, again.targets, 2 * P * sizeof *f.targets));
    for (int row = 4; row < B; row++)
        CHECK(found_in(&f, row) == 0 && f.labels[row] == LOADER_IGNORE && f.lengths[row] == 1
              && f.weights[row] == 0.0f);
    CHECK_OK(data_batch_total_rows(&b, 2, 4, &total));
    CHECK(total.weights == 4.0 * P && total.tokens == 4.0 * T);
    b.vocab = 100;
    CHECK_FAILS(b.fill_rows(&b, 2, 1, 1, to), GT_MISMATCH, "the model has 100");
    token_split_close(&split);
    data_marks_close(&m);
}

static void a_tokenizer_without_signs_is_refused(void)
{
    tokenizer *t;
    data_marks m;
    CHECK_OK(tokenizer_open(&t, "byte"));
    CHECK_FAILS(data_marks_open(&m, t), GT_MISMATCH, "has no token [CLS] or <s>");
    tokenizer_close(t);
}

static const char words[] =
    "{\"version\":\"1.0\",\"added_tokens\":["
    "{\"id\":0,\"content\":\"[PAD]\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
    "{\"id\":1,\"content\":\"[UNK]\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
    "{\"id\":2,\"content\":\"[CLS]\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
    "{\"id\":3,\"content\":\"[SEP]\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
    "{\"id\":4,\"content\":\"[MASK]\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],"
    "\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,\"lowercase\":true},"
    "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},"
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"[SEP]\",\"type_id\":0}}],"
    "\"pair\":[{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
    "{\"SpecialToken\":{\"id\":\"[SEP]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}},"
    "{\"SpecialToken\":{\"id\":\"[SEP]\",\"type_id\":1}}],\"special_tokens\":{"
    "\"[CLS]\":{\"id\":\"[CLS]\",\"ids\":[2],\"tokens\":[\"[CLS]\"]},\"[SEP]\":{\"id\":\"[SEP]\",\"ids\":[3],\"tokens\":[\"[SEP]\"]}}},"
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},"
    "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":100,"
    "\"vocab\":{\"[PAD]\":0,\"[UNK]\":1,\"[CLS]\":2,\"[SEP]\":3,\"[MASK]\":4,\"good\":5,\"bad\":6,\"film\":7,\"##s\":8}}}";

static void labelled_texts_are_framed_and_padded(void)
{
    enum { N = 3, LONG = 6 };
    static const char csv[] = "text,label\n\"good films\",yes\n\"bad\",no\n\"good good good good good good\",yes\n";
    char *path = file_of("labelled.csv", csv, sizeof csv - 1), *json = file_of("words.json", words, sizeof words - 1);
    data_set d;
    data_marks m;
    loader l;
    data_batch b;
    int32_t tokens[N * LONG], types[N * LONG], lengths[N], labels[N];
    data_total total;
    data_request r = { .spec = json, .whole = 1 };
    r.keys.label = "label";
    if (!CHECK_OK(data_open_as(&d, path, &r)))
        return;
    CHECK(d.label_count == 2 && !strcmp(d.labels[0], "no") && !strcmp(d.labels[1], "yes"));
    CHECK_OK(token_split_set_reading(&d.train, &(token_reading){ .by_document = 1 }, path));
    CHECK_OK(data_marks_open(&m, d.tokenizer));
    CHECK(m.begin == 2 && m.end == 3 && m.padding == 0 && m.mask == 4 && m.kind[8] == DATA_MARK_CONTINUES
          && m.kind[5] == 0 && m.kind[1] == DATA_MARK_SPECIAL);
    CHECK_OK(loader_open(&l, &d.train, "it", LOADER_SEQUENTIAL, N, LONG, 1));
    data_batch_classify(&b, &l, "training", &m, d.label_count);
    void *const to[DATA_FIELDS] = { tokens, types, lengths, labels };
    CHECK_OK(b.fill(&b, 0, 0, N, to));
    static const int32_t want[N * LONG] = { 2, 5, 7, 8, 3, 0, 2, 6, 3, 0, 0, 0, 2, 5, 5, 5, 5, 3 };
    CHECK(!memcmp(tokens, want, sizeof want));
    CHECK(lengths[0] == 5 && lengths[1] == 3 && lengths[2] == LONG);
    CHECK(labels[0] == 1 && labels[1] == 0 && labels[2] == 1);
    CHECK_OK(data_batch_total(&b, 0, 0, N, &total));
    CHECK(total.weights == N && total.tokens == 5 + 3 + LONG);
    CHECK_OK(b.fill_rows(&b, 2, N, 1, to));
    CHECK(labels[0] == 1 && labels[1] == LOADER_IGNORE && lengths[1] >= 1);
    CHECK_OK(data_batch_total_rows(&b, 2, N, &total));
    CHECK(total.weights == 1.0 && total.tokens == LONG);
    data_batch_classify(&b, &l, "training", &m, 1);
    CHECK_FAILS(b.fill(&b, 0, 0, N, to), GT_MISMATCH, "label number 1, the model tells 1 classes apart");
    data_marks_close(&m);
    data_close(&d);
    free(path);
    free(json);
}

const check_case check_cases[] = {
    CASE(hidden_tokens_can_be_put_back),
    CASE(samples_are_the_same_under_every_plan),
    CASE(whole_words_are_hidden_together),
    CASE(pairs_follow_or_do_not),
    CASE(evaluation_hides_by_row),
    CASE(a_tokenizer_without_signs_is_refused),
    CASE(labelled_texts_are_framed_and_padded),
    { 0 }
};
