/* SPDX-License-Identifier: MIT */
/* tests/data/test_tokenize.c - the way from texts to token files. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/data/dataset.h"
#include "host/data/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All ids of the split FOLDER/WORD*, NULL if it has none. */
static int32_t *read_all(const char *folder, int val, uint64_t *count)
{
    data_set d;
    *count = 0;
    if (!CHECK_OK(data_open(&d, folder, NULL, NULL, NULL)))
        return NULL;
    const token_split *s = val ? &d.val : &d.train;
    int32_t *ids = malloc((s->count + 1) * sizeof *ids);
    CHECK_OK(token_split_read(s, 0, s->count, ids));
    *count = s->count;
    data_close(&d);
    return ids;
}

static void tokens_do_not_depend_on_the_chunk(void)
{
    static const size_t chunks[] = { 0, 1, 2, 3, 7, 13, 64, 1000, 4096 };
    size_t size;
    char *text = sample_text(&size), *path = file_of("sample.txt", text, size);
    tokenizer *t = trained_on("bpe:400", path);
    uint64_t counts[2] = { 0, 0 };
    int32_t *first[2] = { NULL, NULL };
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        const tokenize_options o = { .files = (const char *const[]){ path },
                                     .file_count = 1,
                                     .val_fraction = 0.1,
                                     .chunk = chunks[c],
                                     .shard_tokens = 1 + 500 * c };
        tokenize_result r;
        char *folder = fresh("chunks");
        CHECK_OK(tokenize(t, folder,
                          c ? &o : &(tokenize_options){ .files = o.files, .file_count = 1, .val_fraction = 0.1 }, &r));
        CHECK(r.bytes == size);
        for (int val = 0; val < 2; val++) {
            uint64_t n;
            int32_t *ids = read_all(folder, val, &n);
            CHECK(n == (val ? r.val_tokens : r.train_tokens) && n > 100);
            if (!first[val]) {
                first[val] = ids;
                counts[val] = n;
                continue;
            }
            CHECKF(n == counts[val] && !memcmp(ids, first[val], n * sizeof *ids), "chunk %zu: %llu tokens, not %llu",
                   chunks[c], (unsigned long long)n, (unsigned long long)counts[val]);
            free(ids);
        }
        free(folder);
    }
    free(first[0]);
    free(first[1]);
    tokenizer_close(t);
    free(path);
    free(text);
}

/* int(fraction * characters) by the definition: walk the characters one by one. */
static void the_split_is_at_nanogpts_character(void)
{
    static const char *const texts[] = { "0123456789", "0123456789a", "\303\25112345678\303\251\303\251", "ab",
                                         "\xf0\x9f\x98\x81\xf0\x9f\x98\x81\xf0\x9f\x98\x81" };
    static const size_t train_bytes[] = { 9, 9, 10, 1, 8 };
    tokenizer *t;
    CHECK_OK(tokenizer_open(&t, "byte"));
    for (size_t i = 0; i < 5; i++) {
        char *path = file_of("split.txt", texts[i], strlen(texts[i])), *folder = fresh("split");
        const tokenize_options o = {
            .files = (const char *const[]){ path }, .file_count = 1, .val_fraction = DATA_VAL_FRACTION
        };
        tokenize_result r;
        CHECK_OK(tokenize(t, folder, &o, &r));
        CHECKF(r.train_tokens == train_bytes[i] && r.val_tokens == strlen(texts[i]) - train_bytes[i],
               "text %zu: %llu bytes train", i, (unsigned long long)r.train_tokens);
        free(path);
        free(folder);
    }
    tokenizer_close(t);
}

/* Encodes files with an end-of-text id between them and gives the ids as text. */
static void expect_files(tokenizer *t, const tokenize_options *o, const char *train, const char *val)
{
    char *folder = fresh("files");
    tokenize_result r;
    CHECK_OK(tokenize(t, folder, o, &r));
    for (int v = 0; v < 2; v++) {
        uint64_t n;
        int32_t *ids = read_all(folder, v, &n);
        gt_text text = { 0 };
        CHECK_OK(tokenizer_decode(t, (const uint32_t *)ids, n, &text));
        CHECKF(!strcmp(text.data ? text.data : "", v ? val : train), "%s is '%s'", v ? "val" : "train",
               text.data ? text.data : "");
        gt_text_release(&text);
        free(ids);
    }
    free(folder);
}

static void files_are_parted_by_end_of_text(void)
{
    char *a = file_of("a.txt", "aaaa", 4), *b = file_of("b.txt", "bbbb", 4);
    char *c = file_of("c.txt", "cc", 2);
    tokenizer *t = trained_on("bpe:300", a);
    const char *const files[] = { a, b, c };
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3 }, "aaaa<|endoftext|>bbbb<|endoftext|>cc", "");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.1 },
                 "aaaa<|endoftext|>bbbb<|endoftext|>c", "c");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.4 }, "aaaa<|endoftext|>bb",
                 "bb<|endoftext|>cc");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.6 }, "aaaa",
                 "bbbb<|endoftext|>cc");
    expect_files(t,
                 &(tokenize_options){ .files = files,
                                      .file_count = 1,
                                      .val_files = files + 1,
                                      .val_file_count = 2,
                                      .val_fraction = 0.5 },
                 "aaaa", "bbbb<|endoftext|>cc");
    tokenizer_close(t);
    free(a);
    free(b);
    free(c);
}

static int stop_at_once(void *context, uint64_t done, uint64_t total)
{
    int *calls = context;
    ++*calls;
    return done <= total;
}

static void a_text_that_cannot_be_tokenized_leaves_nothing(void)
{
    char *good = file_of("good.txt", "abcab", 5), *empty = file_of("empty.txt", "", 0);
    char *stranger = file_of("stranger.txt", "abcabz", 6), *folder = fresh("nothing");
    tokenizer *t = trained_on("char", good);
    tokenize_result r;
    int calls = 0;
    const char *const one[] = { empty }, *const two[] = { good, stranger };
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = one, .file_count = 1 }, &r), GT_FORMAT,
                "empty.txt': it is empty");
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 2, .chunk = 2 }, &r), GT_MISMATCH,
                "stranger.txt': byte 5: character 'z'");
    CHECK_FAILS(tokenize(t, folder,
                         &(tokenize_options){
                             .files = two, .file_count = 1, .progress = stop_at_once, .context = &calls },
                         &r),
                GT_INTERRUPTED, "good.txt");
    CHECK(calls == 1 && !gt_path_exists(folder));
    CHECK_OK(gt_folder_make(folder));
    char *inside = gt_path_join(folder, "thesis.txt");
    CHECK_OK(gt_file_write(inside, "years of work", 13));
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 1 }, &r), GT_MISUSE,
                "something else");
    CHECK(gt_path_exists(inside));
    unlink(inside);
    CHECK_OK(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 1 }, &r));
    CHECK_OK(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 1 }, &r));
    tokenizer_close(t);
    free(inside);
    free(good);
    free(empty);
    free(stranger);
    free(folder);
}

const check_case check_cases[] = {
    CASE(tokens_do_not_depend_on_the_chunk),
    CASE(the_split_is_at_nanogpts_character),
    CASE(files_are_parted_by_end_of_text),
    CASE(a_text_that_cannot_be_tokenized_leaves_nothing),
    { 0 }
};
