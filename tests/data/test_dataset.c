/* SPDX-License-Identifier: MIT */
/* tests/data/test_dataset.c - whatever --data names, opened. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/log.h"
#include "host/data/dataset.h"
#include "host/data/file_hash.h"
#include "host/data/tokenize.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
                CHECK_OK(gt_file_write(victim, bytes,
                                       how == CUT       ? n / 2
                                       : how == EMPTIED ? 0
                                       : how == GROWN   ? n + 1
                                                        : n));
            const int harmless = how == GROWN && f >= 2;
            if (CHECK_OK(data_open(&d, path, "bpe:300", count_calls, &calls))) {
                CHECK(token_split_hash(&d.train) == train && token_split_hash(&d.val) == val);
                CHECKF(harmless || (calls > 0 && gt_log_warnings() == before + 1),
                       "%s, damage %d: %d calls, %u warnings", files[f], how, calls, gt_log_warnings() - before);
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
    CHECK_OK(
        tokenize(t, folder,
                 &(tokenize_options){
                     .files = (const char *const[]){ path }, .file_count = 1, .val_fraction = 0.2, .shard_tokens = 5 },
                 &r));
    CHECK_OK(data_open(&d, folder, "char", NULL, NULL));
    CHECK(d.train.count == r.train_tokens && d.train.file_count == 4 && d.train.vocab == tokenizer_vocab(t));
    data_close(&d);
    CHECK_FAILS(data_open(&d, folder, "byte", NULL, NULL), GT_MISMATCH, "another tokenizer");
    CHECK_FAILS(data_open(&d, folder, "bpe:300", NULL, NULL), GT_MISUSE, "tokens, not text");
    char *shard = gt_path_join(folder, "train-000001.bin");
    unlink(shard);
    CHECK_FAILS(data_open(&d, folder, NULL, NULL, NULL), GT_FORMAT, "not what tokens.json says");
    char *empty = fresh("empty");
    CHECK_OK(gt_folder_make(empty));
    CHECK_FAILS(data_open(&d, empty, NULL, NULL, NULL), GT_NOT_FOUND, "no token files");
    tokenizer_close(t);
    free(empty);
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

/* The only file of a folder. */
static char *only_file(const char *folder)
{
    char *path = NULL;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] != '.') {
            CHECK(!path);
            free(path);
            path = gt_path_join(folder, e->d_name);
        }
    if (dir)
        closedir(dir);
    return path;
}

/* A kept hash stands for the file for as long as nothing was written to it, whatever its times are set to; one that
 * is damaged is none. */
static void a_large_file_is_read_again_when_it_was_written_to(void)
{
    enum { BYTES = (16 << 20) + 12345 };
    char *bytes = malloc(BYTES), *cache = fresh("cache"), *hashes = gt_path_join(cache, "hashes"), *text = NULL,
         other[64];
    uint64_t size, first, again;
    struct stat was;
    setenv("GEARTRAIN_CACHE", cache, 1);
    for (uint32_t i = 0; bytes && i < BYTES; i++)
        bytes[i] = (char)(i * 2654435761u >> 24);
    char *path = file_of("large.txt", bytes, BYTES);
    CHECK_OK(data_file_hash(path, &size, &first));
    CHECK(size == BYTES && first == gt_hash(bytes, BYTES));
    char *kept = only_file(hashes);
    CHECK(!kept);                       /* it may be written to within the same tick of the clock */
    gt_sleep_ns(3100000000u);
    CHECK_OK(data_file_hash(path, &size, &again));
    kept = only_file(hashes);
    CHECK(kept && again == first);
    if (!kept || !CHECK_OK(gt_file_read(&text, NULL, kept, 1024)))
        return;
    /* It is what is kept that answers: another number there, with its sum, is believed. */
    char *sum = strrchr(text, '\n') - 16, *number = sum - 17;
    memcpy(number, "0123456789abcdef", 16);
    snprintf(other, sizeof other, "%016llx\n", (unsigned long long)gt_hash(text, (size_t)(sum - text)));
    memcpy(sum, other, 17);
    CHECK_OK(gt_file_write(kept, text, strlen(text)));
    CHECK_OK(data_file_hash(path, &size, &again));
    CHECKF(again == 0x0123456789abcdefu, "%llx", (unsigned long long)again);
    number[3] = '7';
    CHECK_OK(gt_file_write(kept, text, strlen(text)));
    CHECK_OK(data_file_hash(path, &size, &again));
    CHECK(again == first);
    /* A byte more or less in the same place, and the time of before. */
    CHECK(!stat(path, &was));
    const int fd = open(path, O_WRONLY);
    const struct timespec times[2] = { was.st_atim, was.st_mtim };
    CHECK(fd >= 0 && pwrite(fd, "!", 1, 1000000) == 1 && !futimens(fd, times) && !close(fd));
    bytes[1000000] = '!';
    CHECK_OK(data_file_hash(path, &size, &again));
    CHECK(again == gt_hash(bytes, BYTES) && again != first);
    unsetenv("GEARTRAIN_CACHE");
    unlink(path);
    free(text);
    free(kept);
    free(hashes);
    free(cache);
    free(path);
    free(bytes);
}

const check_case check_cases[] = {
    CASE(a_text_is_tokenized_once),
    CASE(a_damaged_cache_is_made_again),
    CASE(a_large_file_is_read_again_when_it_was_written_to),
    CASE(everything_can_be_had_in_one_split),
    CASE(processes_that_open_one_text_together_agree),
    CASE(a_folder_of_tokens_is_checked),
    CASE(files_of_nanogpt_and_llmc_open),
    { 0 }
};
