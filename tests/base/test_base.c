/* SPDX-License-Identifier: MIT */
/* tests/base/test_base.c - messages, random numbers, files, units, options and stops. */
#include "tests/check.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/options.h"
#include "host/base/random.h"
#include "host/base/stop.h"
#include "host/base/text.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

static void a_context_goes_in_front_of_the_sentence(void)
{
    gt_fail(GT_IO, "cannot open '%s'", "x");
    CHECK(gt_fail_in(GT_IO, "data of step %d", 7) == GT_IO);
    CHECK(!strcmp(gt_message(), "data of step 7: cannot open 'x'"));
    gt_fail(GT_FORMAT, "again: %s", gt_message());      /* the message as its own argument */
    CHECK(!strcmp(gt_message(), "again: data of step 7: cannot open 'x'"));
}

/* Known answers of Random123's philox4x32-10 (kat_vectors). */
static void philox_gives_the_published_numbers(void)
{
    uint32_t out[4];
    gt_philox(out, 0, 0, 0);
    CHECK(out[0] == 0x6627e8d5 && out[1] == 0xe169c58d && out[2] == 0xbc57ac4c && out[3] == 0x9b00dbd8);
    gt_philox(out, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    CHECK(out[0] == 0x408f276d && out[1] == 0x41c83b0e && out[2] == 0xa20bc7c6 && out[3] == 0x6d5451fd);
    gt_philox(out, 0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu);
    CHECK(out[0] == 0xd16cfe09 && out[1] == 0x94fdcceb && out[2] == 0x5001e420 && out[3] == 0x24126ea1);
}

static void normal_numbers_have_the_asked_mean_and_deviation(void)
{
    enum { N = 100001 };
    float *x = malloc(N * sizeof *x);
    gt_random r;
    gt_random_init(&r, 42, 7);
    gt_random_normal(&r, x, N, 3.0f, 0.5f);
    double sum = 0, square = 0;
    for (int i = 0; i < N; i++) {
        sum += (double)x[i];
        square += ((double)x[i] - 3.0) * ((double)x[i] - 3.0);
    }
    CHECKF(fabs(sum / N - 3.0) < 0.01, "mean %f", sum / N);
    CHECKF(fabs(sqrt(square / N) - 0.5) < 0.01, "deviation %f", sqrt(square / N));
    free(x);
}

static void a_permutation_visits_everything_once(void)
{
    static const uint64_t sizes[] = { 1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097 };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t n = sizes[s], moved = 0;
        unsigned char *seen = calloc(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = gt_random_permute(9, 1, n, i);
            if (!CHECKF(j < n && !seen[j], "n %lu i %lu", (unsigned long)n, (unsigned long)i))
                break;
            seen[j] = 1;
            moved += i != j;
        }
        CHECK(n < 16 || moved > n / 2);
        free(seen);
    }
}

static int count_names(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

static void a_file_is_whole_or_as_it_was(void)
{
    char *folder = gt_path_join(check_folder(), "a/b/c"), *text;
    CHECK_OK(gt_folder_make(folder));
    CHECK_OK(gt_folder_make(folder));
    char *path = gt_path_join(folder, "file");
    CHECK_OK(gt_file_write(path, "old", 3));

    gt_writer *w;
    CHECK_OK(gt_writer_open(&w, path));
    CHECK_OK(gt_writer_put(w, "new content", 11));
    gt_writer_abandon(w);
    CHECK_OK(gt_file_read(&text, NULL, path, 100));
    CHECK(!strcmp(text, "old"));
    free(text);
    CHECK(count_names(folder) == 1);

    CHECK_OK(gt_writer_open(&w, path));
    CHECK_OK(gt_writer_put(w, "????new", 7));
    CHECK_OK(gt_writer_patch(w, 0, "very", 4));
    CHECK_OK(gt_writer_printf(w, " %d", 12));
    CHECK(gt_writer_size(w) == 10);
    CHECK_OK(gt_writer_commit(w));
    CHECK_OK(gt_file_read(&text, NULL, path, 100));
    CHECK(!strcmp(text, "verynew 12"));
    free(text);
    CHECK_FAILS(gt_file_read(&text, NULL, path, 3), GT_FORMAT, "more than the 3 allowed");
    CHECK_FAILS(gt_file_read(&text, NULL, "/no/such", 3), GT_NOT_FOUND, "No such file");
    CHECK_FAILS(gt_file_read(&text, NULL, folder, 3), GT_IO, "not a regular file");
    CHECK_OK(gt_folder_remove(folder));
    CHECK(!gt_path_exists(folder));
    CHECK_OK(gt_folder_remove(folder));
    free(path);
    free(folder);
}

/* A file size limit stands in for a full disk: write() fails half-way in the same way. */
/* Half of a pointer's first line, or a large file that begins with it, is a file like others. */
static void a_pointer_of_git_lfs_is_told_as_such(void)
{
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    char *path = gt_path_join(check_folder(), "pointer.bin"), *text;
    char large[2048] = { 0 };
    gt_map map;
    CHECK_OK(gt_file_write(path, pointer, sizeof pointer - 1));
    CHECK_FAILS(gt_map_open(&map, path), GT_FORMAT, "pointer.bin': it is a git-lfs pointer");
    CHECK(!map.data && !map.path);
    CHECK_FAILS(gt_file_read(&text, NULL, path, 4096), GT_FORMAT, "run `git lfs pull`");
    CHECK_OK(gt_file_write(path, pointer, 30));
    CHECK_OK(gt_map_open(&map, path));
    gt_map_close(&map);
    memcpy(large, pointer, sizeof pointer - 1);
    CHECK_OK(gt_file_write(path, large, sizeof large));
    CHECK_OK(gt_map_open(&map, path));
    gt_map_close(&map);
    free(path);
}

static void a_full_disk_leaves_the_old_file(void)
{
    char *path = gt_path_join(check_folder(), "full"), *text;
    static char megabyte[1 << 20];
    CHECK_OK(gt_file_write(path, "old", 3));
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    gt_status st = gt_file_write(path, megabyte, sizeof megabyte);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(st == GT_IO);
    CHECKF(strstr(gt_message(), "full"), "said: %s", gt_message());
    CHECK_OK(gt_file_read(&text, NULL, path, 100));
    CHECK(!strcmp(text, "old"));
    free(text);
    free(path);
}

static void numbers_with_units_are_read_and_written(void)
{
    uint64_t n;
    char text[32];
    CHECK_OK(gt_parse_bytes(&n, "64KiB"));
    CHECK(n == 65536);
    CHECK_OK(gt_parse_bytes(&n, "1.5GB"));
    CHECK(n == 1500000000u);
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = { { "1K", 1024 },    { "1k", 1024 },     { "1M", 1048576 },
                  { "1m", 1048576 }, { "1G", 1u << 30 }, { "2T", UINT64_C(2) << 40 },
                  { "1kB", 1000 },   { "1MB", 1000000 }, { "1Mi", 1048576 },
                  { "0.5M", 524288 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_OK(gt_parse_bytes(&n, sizes[i].text));
        CHECK(n == sizes[i].bytes);
    }
    static const struct {
        uint64_t bytes;
        const char *text;
    } exact[] = { { 0, "0" },
                  { 1000, "1000" },
                  { 1024, "1KiB" },
                  { 1536, "1536" },
                  { 67108864, "64MiB" },
                  { UINT64_C(3) << 40, "3TiB" },
                  { UINT64_C(1) << 50, "1024TiB" } };
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        CHECK(!strcmp(gt_format_size(text, sizeof text, exact[i].bytes), exact[i].text));
        CHECK_OK(gt_parse_bytes(&n, text));
        CHECK(n == exact[i].bytes);
    }
    CHECK_FAILS(gt_parse_bytes(&n, "12 parsecs"), GT_MISUSE, "12 parsecs");
    CHECK_FAILS(gt_parse_bytes(&n, "-1"), GT_MISUSE, "-1");
    CHECK_OK(gt_parse_duration(&n, "150ms"));
    CHECK(n == 150000000u);
    CHECK_FAILS(gt_parse_u64(&n, "-3"), GT_MISUSE, "-3");
    CHECK_FAILS(gt_parse_u64(&n, ""), GT_MISUSE, "whole number");
    CHECK(!strcmp(gt_format_bytes(text, sizeof text, 35000000), "35.0 MB"));
    CHECK(!strcmp(gt_format_bytes(text, sizeof text, 12), "12 B"));
    CHECK(!strcmp(gt_format_count(text, sizeof text, 124439808), "124M"));
    CHECK(!strcmp(gt_format_count(text, sizeof text, 1557611200), "1.56B"));
    CHECK(!strcmp(gt_format_duration(text, sizeof text, 3723), "1:02:03"));
}

/* A child that listens and goes on; what it died of, or 0 if it ended by itself. */
static int killed_by(void (*signals)(pid_t child))
{
    int ready[2], status = 0;
    char byte = 0;
    if (pipe(ready) != 0)
        return -1;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGHUP, SIG_IGN);
        gt_stop_start();
        gt_stop_listen(NULL);
        if (write(ready[1], &byte, 1) != 1)
            _exit(9);
        for (int i = 0; i < 20000 && !gt_stop_asked(); i++)
            usleep(1000);
        for (int i = 0; i < (gt_stop_asked() == SIGINT ? 20000 : 200); i++)
            usleep(1000);               /* what must not be lost                             */
        _exit(gt_stop_asked());
    }
    if (read(ready[0], &byte, 1) == 1)
        signals(child);
    waitpid(child, &status, 0);
    close(ready[0]);
    close(ready[1]);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static void both_kinds(pid_t child)
{
    kill(child, SIGHUP);                /* ignored                                           */
    kill(child, SIGUSR1);
    usleep(20000);
    kill(child, SIGUSR1);               /* its group was told as well                        */
    kill(child, SIGTERM);
}

static void with_patience_lost(pid_t child)
{
    for (int i = 0; i < 4; i++) {
        kill(child, SIGINT);
        usleep(600000);
    }
}

static void a_stop_is_heard_once_and_kills_when_repeated(void)
{
    CHECK(killed_by(both_kinds) == -SIGUSR1);
    CHECK(killed_by(with_patience_lost) == SIGINT);
}

static void options_come_from_their_table(void)
{
    struct {
        uint64_t steps;
        double lr;
        const char *out, *mode;
        int json;
        gt_option_list stop;
    } o = { .steps = 5, .lr = 0.5, .mode = "fp32", .json = 0 };
    const gt_option table[] = {
        { .group = "Group" },
        { "steps", 'n', GT_U64, "N", "updates", &o.steps, 0, NULL },
        { "lr", 0, GT_DOUBLE, "X", "rate", &o.lr, 0, NULL },
        { "out", 'o', GT_STRING, "DIR", "folder", &o.out, 0, NULL },
        { "precision", 0, GT_CHOICE, "fp32|bf16", "storage", &o.mode, 0, NULL },
        { "json", 0, GT_FLAG, NULL, "objects", &o.json, 1, NULL },
        { "stop", 0, GT_LIST, "TEXT", "ends", &o.stop, 0, NULL },
        { 0 }
    };
    int first;
    gt_option_help help;
    char *good[] = { "verb", "a", "--steps", "12", "-o", "x", "--json", "b", NULL };
    CHECK_OK(gt_options_parse(table, 8, good, &first, &help));
    CHECK(o.steps == 12 && o.json && !strcmp(o.out, "x") && first == 6 && !help);
    CHECK(gt_option_given(table, "steps") && !gt_option_given(table, "lr"));
    char *off[] = { "verb", "--no-json", NULL };
    CHECK_OK(gt_options_parse(table, 2, off, &first, &help));
    CHECK(!o.json);
    char text[32], *several[] = { "verb", "--stop", "x", "--stop=", "--stop", "x", NULL };
    CHECK_OK(gt_options_parse(table, 6, several, &first, &help));
    CHECK(o.stop.count == 3 && !strcmp(o.stop.item[0], "x") && !*o.stop.item[1] && !strcmp(o.stop.item[2], "x"));
    CHECK(!strcmp(gt_option_text(&table[6], text, sizeof text), "x, , x"));
    char *typo[] = { "verb", "--stps", "3", NULL };
    CHECK_FAILS(gt_options_parse(table, 3, typo, &first, &help), GT_MISUSE, "did you mean --steps?");
    char *missing[] = { "verb", "--steps", NULL };
    CHECK_FAILS(gt_options_parse(table, 2, missing, &first, &help), GT_MISUSE, "needs a value");
    char *bad[] = { "verb", "--lr=fast", NULL };
    CHECK_FAILS(gt_options_parse(table, 2, bad, &first, &help), GT_MISUSE, "option --lr: 'fast'");
    char *choice[] = { "verb", "--precision", "fp64", NULL };
    CHECK_FAILS(gt_options_parse(table, 3, choice, &first, &help), GT_MISUSE, "fp32|bf16");
    char *flag[] = { "verb", "--json=3", NULL };
    CHECK_FAILS(gt_options_parse(table, 2, flag, &first, &help), GT_MISUSE, "takes no value");
    char *ask[] = { "verb", "-h", NULL };
    CHECK_OK(gt_options_parse(table, 2, ask, &first, &help));
    CHECK(help == GT_HELP_SHORT);
}

static void a_saved_sentence_outlives_another_failure(void)
{
    gt_saved_message saved;
    gt_fail(GT_IO, "the cause");
    gt_message_save(&saved);
    gt_fail(GT_PEER, "what came after");
    gt_message_restore(&saved);
    CHECK(!strcmp(gt_message(), "the cause"));
    gt_message_clear();
}

const check_case check_cases[] = {
    CASE(a_saved_sentence_outlives_another_failure),
    CASE(a_context_goes_in_front_of_the_sentence),
    CASE(philox_gives_the_published_numbers),
    CASE(normal_numbers_have_the_asked_mean_and_deviation),
    CASE(a_permutation_visits_everything_once),
    CASE(a_file_is_whole_or_as_it_was),
    CASE(a_pointer_of_git_lfs_is_told_as_such),
    CASE(a_full_disk_leaves_the_old_file),
    CASE(numbers_with_units_are_read_and_written),
    CASE(a_stop_is_heard_once_and_kills_when_repeated),
    CASE(options_come_from_their_table),
    { 0 }
};
