/* SPDX-License-Identifier: MIT */
/* tests/data/test_tokens.c - token files: what is in them, and what is refused. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/data/dataset.h"
#include "host/data/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void shards_hold_what_was_put(void)
{
    static const struct {
        uint32_t vocab;
        int width;
    } kinds[] = { { 1000, 2 }, { 65536, 2 }, { 65537, 4 }, { 128256, 4 } };
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
    static const struct {
        int32_t head[3];
        size_t size;
        const char *says;
    } cases[] = {
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
        CHECK(want ? strstr(gt_message(), "case.bin") != NULL : f.count * (uint64_t)f.width <= cases[i].size);
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
    static const struct {
        uint64_t below;
        size_t count, width;
        int bits;
        const char *says;
    } cases[] = {
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
    static const struct {
        const char *begins;
        size_t size;
        const char *says;
    } cases[] = {
        WITH("\xc6\xd7\x34\x01\3\0\0\0", "a model of llm.c"),             /* 20240326 */
        WITH("\xc7\xd7\x34\x01\2\0\0\0", "a debugging state of llm.c"),
        WITH("\xc8\xd7\x34\x01\2\0\0\0", "a tokenizer of llm.c"),
        WITH("\x8a\xd8\x34\x01\1\0\0\0", "an evaluation set of llm.c"),
        WITH("\x8f\xd8\x34\x01\1\0\0\0", "a training state of llm.c"),
        WITH("\xa3\xd9\x34\x01\3\0\0\0", "a Llama 3 model of llm.c"),
        WITH("\x93NUMPY\1\0", "a NumPy .npy file; write its ids alone"),
        WITH("\x1f\x8b\x08\0\x11\x22\x33\x44\0\3", "a gzip file; unpack it first"),
        WITH("\x28\xb5\x2f\xfd\x24", "a zstd file"),
        WITH("\xfd"
             "7zXZ\0",
             "an xz file"),
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
            const int packed = k && strstr(cases[i].says, "gzip") != NULL; /* texts are unpacked; this one is damaged */
            CHECK_FAILS(data_open(&d, path, NULL, NULL, NULL), GT_FORMAT,
                        packed ? "is damaged or not whole" : cases[i].says);
            CHECK(packed || strstr(gt_message(), k ? "as text" : "as tokens") != NULL);
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

    enum { N = 9 << 20 }; /* longer than what is hashed whole */
    uint16_t *ids = calloc(N, sizeof *ids);
    static const struct {
        size_t at;
        int differs;
    } changes[] = { { 0, 1 }, { N - 1, 1 }, { N - 2048, 1 }, { 2047, 1 } };
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

const check_case check_cases[] = {
    CASE(shards_hold_what_was_put),
    CASE(a_wrong_token_file_is_refused),
    CASE(bare_ids_are_read_in_the_width_they_have),
    CASE(other_formats_are_named),
    CASE(an_id_outside_the_vocabulary_is_named),
    CASE(a_split_is_known_by_its_tokens),
    { 0 }
};
