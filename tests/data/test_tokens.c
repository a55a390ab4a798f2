/* SPDX-License-Identifier: MIT */
/* tests/data/test_tokens.c - token files, the way from text to them, and batches out of them. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/base/log.h"
#include "host/data/dataset.h"
#include "host/data/batch.h"
#include "host/data/loader.h"
#include "host/data/tokenize.h"
#include "host/tensor/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *path_of(const char *name)
{
    return gt_path_join(check_folder(), name);
}

/* A folder that is not there yet. */
static char *fresh(const char *name)
{
    char *path = path_of(name);
    CHECK_OK(gt_folder_remove(path));
    return path;
}

static char *file_of(const char *name, const void *text, size_t size)
{
    char *path = path_of(name);
    CHECK_OK(gt_file_write(path, text, size));
    return path;
}

/* A split of `count` tokens 0, 1, 2, ... in shards of `shard`, on disk below `name`. */
static void open_counting(token_split *out, const char *name, uint32_t vocab, size_t count,
                          uint64_t shard)
{
    char *folder = fresh(name), *paths[64];
    uint32_t *ids = malloc(count * sizeof *ids);
    token_writer *w;
    size_t files = 0;
    CHECK_OK(gt_folder_make(folder));
    for (size_t i = 0; i < count; i++)
        ids[i] = (uint32_t)i;
    CHECK_OK(token_writer_open(&w, folder, "train", vocab, shard));
    for (size_t at = 0, n; at < count; at += n) {       /* pieces that straddle the shards */
        n = count - at < 37 ? count - at : 37;
        CHECK_OK(token_writer_put(w, ids + at, n));
    }
    CHECK(token_writer_count(w) == count);
    CHECK_OK(token_writer_commit(w));
    for (uint64_t first = 0; first < count; first += shard) {
        char shard_name[32];
        snprintf(shard_name, sizeof shard_name, "train-%06zu.bin", files);
        paths[files++] = gt_path_join(folder, shard_name);
    }
    CHECK_OK(token_split_open(out, (const char *const *)paths, files, vocab));
    CHECK(out->count == count && out->file_count == files);
    while (files)
        free(paths[--files]);
    free(ids);
    free(folder);
}

static void shards_hold_what_was_put(void)
{
    static const struct { uint32_t vocab; int width; } kinds[] = {
        { 1000, 2 }, { 65536, 2 }, { 65537, 4 }, { 128256, 4 } };
    static const uint64_t shards[] = { 1, 99, 100, 101, 1000, 5000 };
    for (size_t k = 0; k < 4; k++)
        for (size_t s = 2; s < 6; s++) {
            token_split split;
            int32_t ids[1000];
            open_counting(&split, "shards", kinds[k].vocab, 1000, shards[s]);
            CHECK(split.files[0].width == kinds[k].width);
            CHECK_OK(token_split_read(&split, 0, 1000, ids));
            for (int i = 0; i < 1000; i++)
                if (ids[i] != i)
                    CHECKF(0, "token %d is %d", i, ids[i]);
            CHECK_OK(token_split_read(&split, 95, 11, ids));        /* over a border */
            CHECK(ids[0] == 95 && ids[10] == 105);
            token_split_close(&split);
        }
}

static void a_wrong_token_file_is_refused(void)
{
    static const struct { int32_t head[3]; size_t size; const char *says; } cases[] = {
        { { 20240520, 1, 10 }, 1024 + 20, NULL },
        { { 20240801, 7, 10 }, 1024 + 40, NULL },
        { { 20240520, 1, 0 }, 1024, NULL },
        { { 20240520, 1, 10 }, 1024 + 19, "header says 10 tokens of 2 bytes, 19 bytes follow" },
        { { 20240520, 1, 10 }, 1024 + 22, "22 bytes follow" },
        { { 20240520, 1, -10 }, 1024, "-10 tokens" },
        { { 20240520, 2, 10 }, 1024 + 20, "version 2, where 1 is known" },
        { { 20240801, 1, 10 }, 1024 + 40, "version 1, where 7 is known" },
        { { 20240520, 1, 0 }, 1023, "ends at byte 1023" },
        { { 1, 2, 3 }, 15, "15 bytes are no row" },
        { { 1, 2, 3 }, 0, "0 bytes are no row" },
        { { 1, 2, 3 }, 12, NULL },                              /* nanoGPT's: six ids */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[2048] = { 0 };
        token_file f;
        memcpy(bytes, cases[i].head, sizeof cases[i].head);
        char *path = file_of("case.bin", bytes, cases[i].size);
        gt_status want = cases[i].says ? GT_FORMAT : GT_OK;
        CHECK_FAILS(token_file_open(&f, path, 0), want, cases[i].says);
        CHECK(want ? strstr(gt_message(), "case.bin") != NULL : f.count * (uint64_t)f.width
              <= cases[i].size);
        token_file_close(&f);
        free(path);
    }
}

/* Ids of 0 .. below, in a row of `width` bytes each. */
static char *bare_ids(const char *name, size_t count, uint64_t below, size_t width)
{
    unsigned char *bytes = calloc(count, width);
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = (i * 2654435761u >> 7) % below;
        memcpy(bytes + i * width, &id, width);
    }
    char *path = file_of(name, bytes, count * width);
    free(bytes);
    return path;
}

/* Nothing is guessed: ids that look wider than is said are refused, and said widths are taken. */
static void bare_ids_are_read_in_the_width_they_have(void)
{
    static const struct { uint64_t below; size_t count, width; int bits; const char *says; } cases[] = {
        { 50257, 1000, 2, 0, NULL },
        { 50257, 1000, 2, 16, NULL },
        { 65, 1000, 2, 0, NULL },                           /* characters */
        { 4, 1000, 2, 0, NULL },
        { 50257, 4, 2, 0, NULL },                           /* too few to tell */
        { 50257, 1000, 4, 0, "look like 32-bit ones; say --token-bits 32" },
        { 128256, 1000, 4, 0, "look like 32-bit ones" },
        { 256, 1000, 4, 0, "look like 32-bit ones" },
        { 128256, 1000, 4, 32, NULL },
        { 50257, 1000, 8, 0, "look like 64-bit ones" },
        { 50257, 1000, 8, 32, "look like 64-bit ones" },
        { 50257, 1001, 2, 32, "are no row of 32-bit ids" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = bare_ids("width.bin", cases[i].count, cases[i].below, cases[i].width);
        token_file f;
        if (cases[i].says) {
            CHECK_FAILS(token_file_open(&f, path, cases[i].bits), GT_FORMAT, cases[i].says);
        } else {
            CHECK_OK(token_file_open(&f, path, cases[i].bits));
            CHECKF(f.count == cases[i].count && (size_t)f.width == cases[i].width, "case %d", (int)i);
        }
        token_file_close(&f);
        free(path);
    }
    /* 32-bit ids taken for 16-bit ones, because that was said: the user's word counts. */
    char *path = bare_ids("width.bin", 100, 256, 4);
    token_file f;
    CHECK_OK(token_file_open(&f, path, 16));
    CHECK(f.count == 200);
    token_file_close(&f);
    free(path);
    unsigned char shard[1024 + 4] = { 0 };
    memcpy(shard, (const int32_t[]){ 20240520, 1, 2 }, 12);
    path = file_of("width.bin", shard, sizeof shard);
    CHECK_FAILS(token_file_open(&f, path, 32), GT_MISMATCH, "has 16-bit ids by its header");
    CHECK_OK(token_file_open(&f, path, 16));
    token_file_close(&f);
    free(path);
}

/* Whatever the extension, as tokens and as text. */
static void other_formats_are_named(void)
{
#define WITH(bytes, says) { bytes, sizeof bytes - 1, says }
    static const struct { const char *begins; size_t size; const char *says; } cases[] = {
        WITH("\xc6\xd7\x34\x01\3\0\0\0", "a model of llm.c"),             /* 20240326 */
        WITH("\xc7\xd7\x34\x01\2\0\0\0", "a debugging state of llm.c"),
        WITH("\xc8\xd7\x34\x01\2\0\0\0", "a tokenizer of llm.c"),
        WITH("\x8a\xd8\x34\x01\1\0\0\0", "an evaluation set of llm.c"),
        WITH("\x8f\xd8\x34\x01\1\0\0\0", "a training state of llm.c"),
        WITH("\xa3\xd9\x34\x01\3\0\0\0", "a Llama 3 model of llm.c"),
        WITH("\x93NUMPY\1\0", "a NumPy .npy file; write its ids alone"),
        WITH("\x1f\x8b\x08\0\x11\x22\x33\x44\0\3", "a gzip file; unpack it first"),
        WITH("\x28\xb5\x2f\xfd\x24", "a zstd file"),
        WITH("\xfd" "7zXZ\0", "an xz file"),
        WITH("BZh91AY&SY", "a bzip2 file"),
        WITH("PK\3\4\x14", "a zip file"),
        WITH("PAR1\x15", "a Parquet file"),
        WITH("\x89HDF\r\n\x1a\n", "an HDF5 file"),
        WITH("GGUF\3", "a GGUF model"),
        WITH("\x40\0\0\0\0\0\0\0{\"wte\": ", "a safetensors file"),
        WITH("version https://git-lfs.github.com/spec/v1\noid sha256:", "a git-lfs pointer"),
    };
#undef WITH
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char *const names[] = { "foreign.bin", "foreign.txt" };
        unsigned char bytes[2000];
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (unsigned char)(97 + k * 7 % 26);
        memcpy(bytes, cases[i].begins, cases[i].size);
        for (int k = 0; k < 2; k++) {
            char *path = file_of(names[k], bytes, sizeof bytes);
            data_set d;
            CHECK_FAILS(data_open(&d, path, NULL, NULL, NULL), GT_FORMAT, cases[i].says);
            CHECK(strstr(gt_message(), k ? "as text" : "as tokens") != NULL);
            free(path);
        }
    }
    data_set d;
    char *path = file_of("foreign.txt", "\xff\xfeh\0i\0", 6);
    CHECK_FAILS(data_open(&d, path, NULL, NULL, NULL), GT_FORMAT, "UTF-16 text; convert it");
    free(path);
    path = bare_ids("ids.u16", 1000, 2000, 2);
    CHECK_FAILS(data_open(&d, path, NULL, NULL, NULL), GT_FORMAT, "has to be named *.bin");
    const data_request wide = { .token_bits = 32 };
    CHECK_FAILS(data_open_as(&d, path, &wide), GT_MISUSE, "--token-bits is for files of token ids");
    free(path);
}

static void an_id_outside_the_vocabulary_is_named(void)
{
    static const uint16_t ids[5] = { 0, 1, 9, 10, 2 };
    char *path = file_of("ids.bin", ids, sizeof ids);
    token_split split;
    int32_t out[5];
    CHECK_OK(token_split_open(&split, (const char *const[]){ path }, 1, 10));
    CHECK_OK(token_split_read(&split, 0, 3, out));
    CHECK_FAILS(token_split_read(&split, 1, 4, out), GT_FORMAT, "ids.bin': token 3 is id 10, the vocabulary ends at 9");
    token_split_close(&split);
    CHECK_OK(token_split_open(&split, (const char *const[]){ path }, 1, 0));
    CHECK_OK(token_split_read(&split, 0, 5, out));
    CHECK(out[3] == 10);
    token_split_close(&split);
    free(path);
}

/* --- text to tokens --- */

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

static tokenizer *trained_on(const char *spec, const char *path)
{
    tokenizer *t;
    CHECK_OK(tokenizer_train(&t, spec, &path, 1, NULL, NULL));
    return t;
}

/* Prose with runs of spaces, an umlaut, an end-of-text in the middle and a long word. */
static char *sample_text(size_t *size)
{
    gt_text t = { 0 };
    for (int i = 0; i < 800; i++) {
        gt_text_printf(&t, "Zeile %d:  it's  na\xc3\xafve,   sa\xc3\x9f er.%s", i,
                       i % 7 ? "\n" : "\n\n\n ");
        if (i == 300)
            gt_text_printf(&t, "<|endoftext|>");
        for (int k = 0; i == 310 && k < 5000; k++)
            gt_text_printf(&t, "lang");
    }
    gt_text_printf(&t, " \xe6\x88\x91 end <|end");
    *size = t.size;
    return t.data;
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
        const tokenize_options o = { .files = (const char *const[]){ path }, .file_count = 1,
                                     .val_fraction = 0.1, .chunk = chunks[c],
                                     .shard_tokens = 1 + 500 * c };
        tokenize_result r;
        char *folder = fresh("chunks");
        CHECK_OK(tokenize(t, folder, c ? &o : &(tokenize_options){ .files = o.files,
                          .file_count = 1, .val_fraction = 0.1 }, &r));
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
            CHECKF(n == counts[val] && !memcmp(ids, first[val], n * sizeof *ids),
                   "chunk %zu: %llu tokens, not %llu", chunks[c], (unsigned long long)n,
                   (unsigned long long)counts[val]);
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
    static const char *const texts[] = { "0123456789", "0123456789a", "\303\25112345678\303\251\303\251",
                                         "ab", "\xf0\x9f\x98\x81\xf0\x9f\x98\x81\xf0\x9f\x98\x81" };
    static const size_t train_bytes[] = { 9, 9, 10, 1, 8 };
    tokenizer *t;
    CHECK_OK(tokenizer_open(&t, "byte"));
    for (size_t i = 0; i < 5; i++) {
        char *path = file_of("split.txt", texts[i], strlen(texts[i])), *folder = fresh("split");
        const tokenize_options o = { .files = (const char *const[]){ path }, .file_count = 1,
                                     .val_fraction = DATA_VAL_FRACTION };
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
static void expect_files(tokenizer *t, const tokenize_options *o, const char *train,
                         const char *val)
{
    char *folder = fresh("files");
    tokenize_result r;
    CHECK_OK(tokenize(t, folder, o, &r));
    for (int v = 0; v < 2; v++) {
        uint64_t n;
        int32_t *ids = read_all(folder, v, &n);
        gt_text text = { 0 };
        CHECK_OK(tokenizer_decode(t, (const uint32_t *)ids, n, &text));
        CHECKF(!strcmp(text.data ? text.data : "", v ? val : train), "%s is '%s'",
               v ? "val" : "train", text.data ? text.data : "");
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
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3 },
                 "aaaa<|endoftext|>bbbb<|endoftext|>cc", "");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.1 },
                 "aaaa<|endoftext|>bbbb<|endoftext|>c", "c");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.4 },
                 "aaaa<|endoftext|>bb", "bb<|endoftext|>cc");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 3, .val_fraction = 0.6 },
                 "aaaa", "bbbb<|endoftext|>cc");
    expect_files(t, &(tokenize_options){ .files = files, .file_count = 1, .val_files = files + 1,
                 .val_file_count = 2, .val_fraction = 0.5 }, "aaaa", "bbbb<|endoftext|>cc");
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
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = one, .file_count = 1 }, &r),
                GT_FORMAT, "empty.txt': it is empty");
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 2,
                .chunk = 2 }, &r), GT_MISMATCH, "stranger.txt': byte 5: character 'z'");
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 1,
                .progress = stop_at_once, .context = &calls }, &r), GT_INTERRUPTED, "good.txt");
    CHECK(calls == 1 && !gt_path_exists(folder));
    CHECK_OK(gt_folder_make(folder));
    char *inside = gt_path_join(folder, "thesis.txt");
    CHECK_OK(gt_file_write(inside, "years of work", 13));
    CHECK_FAILS(tokenize(t, folder, &(tokenize_options){ .files = two, .file_count = 1 }, &r),
                GT_MISUSE, "something else");
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

/* --- batches --- */

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
    CHECK(b.fields == 2 && !strcmp(b.field[0].name, "tokens") && !strcmp(b.field[1].name, "targets"));
    CHECK(data_field_bytes(&b.field[0], B) == sizeof x);
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[]){ x, y }));
    CHECK(x[0] == 3 * T && y[B * T - 1] == 6 * T);
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[]){ alone, NULL }));
    CHECK(!memcmp(alone, x, sizeof x));
    CHECK_OK(b.fill(&b, 3, 0, B, (void *[]){ NULL, alone }));
    CHECK(!memcmp(alone, y, sizeof y));
    CHECK_OK(b.fill_rows(&b, 1, B, 2, (void *[]){ NULL, y }));
    CHECK(y[0] == T + 1 && y[2 * T - 1] == 3 * T && y[2 * T] == LOADER_IGNORE && y[B * T - 1] == LOADER_IGNORE);
    b.vocab = 20;
    CHECK_FAILS(b.fill(&b, 3, 0, B, (void *[]){ x, NULL }), GT_MISMATCH,
                "training data holds token 20, the model has 20");
    token_split_close(&split);
}

static void an_epoch_visits_every_window_once(void)
{
    static const struct { size_t count; uint64_t batch, tokens; } cases[] = {
        { 101, 4, 5 }, { 100, 1, 7 }, { 64, 8, 1 }, { 65, 3, 16 }, { 1000, 10, 3 }, { 9, 2, 8 },
        { 16, 2, 8 }, { 17, 2, 8 } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const uint64_t T = cases[c].tokens, B = cases[c].batch;
        token_split split;
        loader l;
        int32_t x[16], y[16];
        uint64_t moved = 0, offsets = 0, before = UINT64_MAX;
        open_counting(&split, "epoch", 2000, cases[c].count, 1000);
        CHECK_OK(loader_open(&l, &split, "it", LOADER_SHUFFLED, B, T, 5));
        CHECK(l.windows >= 1 && l.windows * T < cases[c].count
              && (l.windows + 2) * T >= cases[c].count - 1);
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
    for (uint64_t s = 50; s-- > 0; ) {                  /* backwards, and sample by sample */
        CHECK_OK(loader_read(&a, s * B, 0, B, x, y));
        for (uint64_t i = B; i-- > 0; )
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

/* Shards and widths change nothing, any id and the number of tokens do. */
static void a_split_is_known_by_its_tokens(void)
{
    token_split a, b;
    open_counting(&a, "hash", 1000, 5000, 700);
    open_counting(&b, "hash", 128256, 5000, 5000);
    CHECK(a.files[0].width != b.files[0].width);
    const uint64_t hash = token_split_hash(&a);
    CHECK(token_split_hash(&b) == hash);
    token_split_close(&b);
    open_counting(&b, "hash", 1000, 4999, 700);
    CHECK(token_split_hash(&b) != hash);
    token_split_close(&b);
    token_split_close(&a);

    enum { N = 9 << 20 };                               /* longer than what is hashed whole */
    uint16_t *ids = calloc(N, sizeof *ids);
    static const struct { size_t at; int differs; } changes[] = {
        { 0, 1 }, { N - 1, 1 }, { N - 2048, 1 }, { 2047, 1 } };
    for (size_t i = 0; i < 300; i++)
        ids[i] = (uint16_t)(i * 77);
    char *path = file_of("long.bin", ids, N * sizeof *ids);
    CHECK_OK(token_split_open(&a, (const char *const[]){ path }, 1, 0));
    const uint64_t whole = token_split_hash(&a);
    token_split_close(&a);
    for (size_t k = 0; k < sizeof changes / sizeof *changes; k++) {
        ids[changes[k].at] ^= 1;
        free(path);
        path = file_of("long.bin", ids, N * sizeof *ids);
        CHECK_OK(token_split_open(&a, (const char *const[]){ path }, 1, 0));
        CHECK((token_split_hash(&a) != whole) == changes[k].differs);
        token_split_close(&a);
        ids[changes[k].at] ^= 1;
    }
    unlink(path);
    free(path);
    free(ids);
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

/* --- whatever --data names --- */

static int count_calls(void *context, uint64_t done, uint64_t total)
{
    CHECK(done <= total);
    ++*(int *)context;
    return 0;
}

static void a_text_is_tokenized_once(void)
{
    static const char *const specs[] = { NULL, "byte", "char", "bpe:300" };
    size_t size;
    char *text = sample_text(&size), *path = file_of("once.txt", text, size), *cache = fresh("cache");
    setenv("GEARTRAIN_CACHE", cache, 1);
    for (size_t i = 0; i < 4; i++) {
        data_set a, b;
        int first = 0, second = 0;
        CHECK_OK(data_open(&a, path, specs[i], count_calls, &first));
        CHECK_OK(data_open(&b, path, specs[i], count_calls, &second));
        CHECKF(first >= (i != 1) && second == 0, "%d and %d calls", first, second);
        CHECK(a.train.count == b.train.count && a.val.count == b.val.count && a.val.count > 0);
        CHECK(tokenizer_hash(a.tokenizer) == tokenizer_hash(b.tokenizer));
        CHECK(!strncmp(tokenizer_name(a.tokenizer), specs[i] ? specs[i] : "byte", 3));
        data_close(&a);
        data_close(&b);
    }
    text[0] = 'X';
    free(path);
    path = file_of("once.txt", text, size);
    data_set d;
    int calls = 0;
    CHECK_OK(data_open(&d, path, "char", count_calls, &calls));     /* the text has changed */
    CHECK(calls > 0);
    data_close(&d);
    CHECK_FAILS(data_open(&d, "/no/such", NULL, NULL, NULL), GT_NOT_FOUND, "/no/such");
    free(path);
    path = file_of("once.txt", "", 0);
    CHECK_FAILS(data_open(&d, path, NULL, NULL, NULL), GT_FORMAT, "is empty");
    unsetenv("GEARTRAIN_CACHE");
    free(cache);
    free(path);
    free(text);
}

static void a_damaged_cache_is_made_again(void)
{
    enum { CUT, GROWN, CHANGED, HEADER, GONE, EMPTIED, KINDS };
    static const char *const files[] = { "train-000000.bin", "val-000000.bin", "tokens.json",
                                         "tokenizer/tokenizer.json" };
    size_t size;
    char *text = sample_text(&size), *path = file_of("kept.txt", text, size), *cache = fresh("damaged");
    check_allow_warnings();
    setenv("GEARTRAIN_CACHE", cache, 1);
    data_set d;
    CHECK_OK(data_open(&d, path, "bpe:300", NULL, NULL));
    const uint64_t train = token_split_hash(&d.train), val = token_split_hash(&d.val);
    char *shard = strdup(d.train.files[0].map.path);
    *strrchr(shard, '/') = '\0';                    /* the entry's folder */
    data_close(&d);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++)
        for (int how = 0; how < KINDS; how++) {
            char *victim = gt_path_join(shard, files[f]), *bytes = NULL;
            size_t n;
            int calls = 0;
            const unsigned before = gt_log_warnings();
            if (!CHECK_OK(gt_file_read(&bytes, &n, victim, 1u << 24)))
                return;
            unlink(victim);
            if (how == HEADER)
                bytes[0] ^= 1;
            if (how == CHANGED)                     /* in a tokenizer: a token's name */
                bytes[f == 2 ? 60 : n * 3 / 4] ^= 1;
            if (how != GONE)
                CHECK_OK(gt_file_write(victim, bytes, how == CUT ? n / 2 : how == EMPTIED ? 0
                                                      : how == GROWN ? n + 1 : n));
            const int harmless = how == GROWN && f >= 2;
            if (CHECK_OK(data_open(&d, path, "bpe:300", count_calls, &calls))) {
                CHECK(token_split_hash(&d.train) == train && token_split_hash(&d.val) == val);
                CHECKF(harmless || (calls > 0 && gt_log_warnings() == before + 1),
                       "%s, damage %d: %d calls, %u warnings", files[f], how, calls,
                       gt_log_warnings() - before);
                data_close(&d);
            }
            free(bytes);
            free(victim);
        }
    CHECK_OK(gt_folder_remove(shard));              /* as a whole: no damage, nothing there */
    const unsigned before = gt_log_warnings();
    CHECK_OK(data_open(&d, path, "bpe:300", NULL, NULL));
    CHECK(gt_log_warnings() == before);
    data_close(&d);
    unsetenv("GEARTRAIN_CACHE");
    free(shard);
    free(cache);
    free(path);
    free(text);
}

/* A text that is wanted whole is not cut before its last tenth; of a folder both parts are joined. */
static void everything_can_be_had_in_one_split(void)
{
    size_t size;
    char *text = sample_text(&size), *path = file_of("whole.txt", text, size), *cache = fresh("cache");
    const data_request whole = { .spec = "byte", .whole = 1 };
    data_set d;
    setenv("GEARTRAIN_CACHE", cache, 1);
    CHECK_OK(data_open_as(&d, path, &whole));
    CHECK(d.train.count == size && d.val.count == 0);
    data_close(&d);
    CHECK_OK(data_open(&d, path, "byte", NULL, NULL));
    const uint64_t train = d.train.count, val = d.val.count;
    CHECK(train + val == size && val >= size / 11);
    char *folder = strdup(d.train.files[0].map.path);
    *strrchr(folder, '/') = '\0';
    data_close(&d);
    CHECK_OK(data_open_as(&d, folder, &whole));
    int32_t *ids = calloc(size, sizeof *ids);
    CHECK(d.train.count == size && d.val.count == 0);
    CHECK_OK(token_split_read(&d.train, 0, size, ids));
    for (size_t i = 0; i < size; i++)
        if (ids[i] != (unsigned char)text[i])
            CHECKF(0, "byte %zu", i);
    data_close(&d);
    unsetenv("GEARTRAIN_CACHE");
    free(ids);
    free(folder);
    free(cache);
    free(path);
    free(text);
}

static void processes_that_open_one_text_together_agree(void)
{
    size_t size;
    char *text = sample_text(&size), *path = file_of("many.txt", text, size), *cache = fresh("cache");
    setenv("GEARTRAIN_CACHE", cache, 1);
    pid_t child[4];
    for (int i = 0; i < 4; i++)
        if ((child[i] = fork()) == 0) {
            data_set d;
            int bad = data_open(&d, path, "bpe:320", NULL, NULL) || d.train.count == 0;
            data_close(&d);
            _exit(bad);
        }
    for (int i = 0; i < 4; i++) {
        int status = -1;
        waitpid(child[i], &status, 0);
        CHECKF(status == 0, "child %d ended with %d", i, status);
    }
    unsetenv("GEARTRAIN_CACHE");
    free(cache);
    free(path);
    free(text);
}

static void a_folder_of_tokens_is_checked(void)
{
    char *path = file_of("a.txt", "hello there, hello here", 23), *folder = fresh("folder");
    tokenizer *t = trained_on("char", path);
    tokenize_result r;
    data_set d;
    CHECK_OK(tokenize(t, folder, &(tokenize_options){ .files = (const char *const[]){ path },
             .file_count = 1, .val_fraction = 0.2, .shard_tokens = 5 }, &r));
    CHECK_OK(data_open(&d, folder, "char", NULL, NULL));
    CHECK(d.train.count == r.train_tokens && d.train.file_count == 4 && d.train.vocab
          == tokenizer_vocab(t));
    data_close(&d);
    CHECK_FAILS(data_open(&d, folder, "byte", NULL, NULL), GT_MISMATCH, "another tokenizer");
    CHECK_FAILS(data_open(&d, folder, "bpe:300", NULL, NULL), GT_MISUSE, "tokens, not text");
    char *shard = gt_path_join(folder, "train-000001.bin");
    unlink(shard);
    CHECK_FAILS(data_open(&d, folder, NULL, NULL, NULL), GT_FORMAT, "not what tokens.json says");
    CHECK_FAILS(data_open(&d, check_folder(), NULL, NULL, NULL), GT_NOT_FOUND, "no token files");
    tokenizer_close(t);
    free(shard);
    free(path);
    free(folder);
}

static void files_of_nanogpt_and_llmc_open(void)
{
    static const uint16_t ids[6] = { 1, 2, 3, 4, 5, 6 };
    unsigned char shard[1024 + 12] = { 0 };
    const int32_t head[3] = { 20240520, 1, 6 };
    memcpy(shard, head, sizeof head);
    memcpy(shard + 1024, ids, sizeof ids);
    char *folder = fresh("others"), *train = NULL, *val = NULL;
    data_set d;
    int32_t out[6];
    CHECK_OK(gt_folder_make(folder));
    train = gt_path_join(folder, "train.bin");
    val = gt_path_join(folder, "tiny_val.bin");
    CHECK_OK(gt_file_write(train, ids, sizeof ids));
    CHECK_OK(gt_file_write(val, shard, sizeof shard));
    CHECK_OK(data_open(&d, folder, NULL, NULL, NULL));
    CHECK(!d.tokenizer && d.train.count == 6 && d.val.count == 6);
    CHECK_OK(token_split_read(&d.val, 0, 6, out));
    CHECK(out[5] == 6);
    data_close(&d);
    CHECK_OK(data_open(&d, train, "byte", NULL, NULL));
    CHECK(d.train.count == 6 && d.train.vocab == 256 && d.val.count == 0);
    data_close(&d);
    free(train);
    free(val);
    free(folder);
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
    CASE(shards_hold_what_was_put),
    CASE(a_wrong_token_file_is_refused),
    CASE(bare_ids_are_read_in_the_width_they_have),
    CASE(other_formats_are_named),
    CASE(an_id_outside_the_vocabulary_is_named),
    CASE(tokens_do_not_depend_on_the_chunk),
    CASE(the_split_is_at_nanogpts_character),
    CASE(files_are_parted_by_end_of_text),
    CASE(a_text_that_cannot_be_tokenized_leaves_nothing),
    CASE(a_batch_fills_the_fields_that_are_wanted),
    CASE(sequential_batches_are_the_tokens_in_order),
    CASE(an_epoch_visits_every_window_once),
    CASE(a_sample_is_a_function_of_seed_step_and_index),
    CASE(a_changed_batch_repeats_and_skips_nothing),
    CASE(another_sequence_length_goes_on_at_the_same_tokens),
    CASE(steps_of_one_batch_size_have_their_places),
    CASE(a_split_is_known_by_its_tokens),
    CASE(a_split_that_is_too_short_is_refused),
    CASE(evaluation_covers_the_split_once),
    CASE(a_text_is_tokenized_once),
    CASE(a_damaged_cache_is_made_again),
    CASE(everything_can_be_had_in_one_split),
    CASE(processes_that_open_one_text_together_agree),
    CASE(a_folder_of_tokens_is_checked),
    CASE(files_of_nanogpt_and_llmc_open),
    CASE(batches_are_those_of_the_reference),
    { 0 }
};
