/* SPDX-License-Identifier: MIT */
/* tests/fuzz/replay.c - runs a fuzz target without libFuzzer.
 *
 *   fuzz_NAME [-n ROUNDS] [-s SEED] [-w DIR] [FILE...]        [20000 rounds, seed 1]
 *
 * Every FILE, or without files every built-in seed, runs as it is and cut short at each of
 * its first 512 bytes. Then ROUNDS mutations of them run: bits flipped, numbers changed,
 * pieces dropped, repeated, and copied from another input. All of it follows from the seed,
 * so a crash comes again with the same command. The running input is always in the file
 * named at the start, which a crash leaves there, to be given as FILE. -w writes the seeds
 * into a folder, a corpus for libFuzzer, and runs nothing.                              */
#include "tests/fuzz/fuzz.h"

#include "host/base/file.h"
#include "host/base/random.h"
#include "host/base/text.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGEST ((size_t)1 << 16)           /* bytes in a mutated input */

/* The running input, in a file shared with whoever looks after a crash. */
static struct {
    int fd;
    unsigned char *shared;
    char path[256];
} kept;

static int keep_open(const char *name)
{
    const char *folder = getenv("TMPDIR");
    snprintf(kept.path, sizeof kept.path, "%s/%s-%ld.input", folder && *folder ? folder : "/tmp", name, (long)getpid());
    kept.fd = open(kept.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (kept.fd < 0)
        return 0;
    kept.shared = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_SHARED, kept.fd, 0);
    return kept.shared != MAP_FAILED;
}

/* Runs the target on a copy of just this size, so that a read past its end is seen. */
static void run(const unsigned char *data, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1);
    if (!copy || ftruncate(kept.fd, (off_t)size) != 0)
        abort();
    if (size) {
        memcpy(copy, data, size);
        memcpy(kept.shared, data, size < LARGEST ? size : LARGEST);
    }
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

/* Writes a number that parsers trip over, at one of the widths they read. */
static void put_number(gt_random *r, unsigned char *at, size_t size)
{
    /* clang-format off */
    static const uint64_t awkward[] = { 0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536,
        100000000, 100000001, INT32_MAX, UINT32_MAX, (uint64_t)INT64_MAX, UINT64_MAX };
    /* clang-format on */
    static const size_t widths[] = { 1, 2, 4, 8 };
    uint64_t value = awkward[gt_random_below(r, sizeof awkward / sizeof *awkward)];
    size_t width = widths[gt_random_below(r, 4)];
    memcpy(at, &value, width < size ? width : size);
}

/* Changes one input in place; `other` lends pieces. Returns the new size. */
static size_t mutate(gt_random *r, unsigned char *data, size_t size, const fuzz_seed *other)
{
    static const char marks[] = "{}[]\",:0123456789-.eE\\ \n";
    size_t at = gt_random_below(r, size + 1), left = size - at;
    size_t n = left ? 1 + gt_random_below(r, left < 32 ? left : 32) : 0;
    switch (left ? gt_random_below(r, 7) : 5) {
    case 0: data[at] ^= (unsigned char)(1u << gt_random_below(r, 8)); return size;
    case 1: data[at] = (unsigned char)marks[gt_random_below(r, sizeof marks - 1)]; return size;
    case 2: put_number(r, data + at, left); return size;
    case 3: /* drop a piece */ memmove(data + at, data + at + n, left - n); return size - n;
    case 4:                                             /* repeat a piece */
        if (size + n > LARGEST)
            return size;
        memmove(data + at + n, data + at, left);
        return size + n;
    case 5: {                                           /* copy from another input */
        size_t from = gt_random_below(r, other->size + 1);
        n = other->size - from < 64 ? other->size - from : 64;
        if (size + n > LARGEST)
            return size;
        memmove(data + at + n, data + at, left);
        memcpy(data + at, (const unsigned char *)other->data + from, n);
        return size + n;
    }
    default: /* cut short */ return at;
    }
}

static void run_all(const fuzz_seed *inputs, size_t count, uint64_t rounds, uint64_t seed)
{
    gt_random r;
    unsigned char *data = malloc(LARGEST);
    if (!data)
        abort();
    for (size_t i = 0; i < count; i++) {
        run(inputs[i].data, inputs[i].size);
        for (size_t size = 0; size < inputs[i].size && size < 512; size++)
            run(inputs[i].data, size);
    }
    gt_random_init(&r, seed, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        const fuzz_seed *from = &inputs[gt_random_below(&r, count)];
        size_t size = from->size < LARGEST ? from->size : LARGEST;
        memcpy(data, from->data, size);
        for (uint64_t n = 1 + gt_random_below(&r, 6); n; n--)
            size = mutate(&r, data, size, &inputs[gt_random_below(&r, count)]);
        run(data, size);
    }
    free(data);
}

static int write_seeds(const char *folder)
{
    int failed = gt_folder_make(folder) != GT_OK;
    for (size_t i = 0; i < fuzz_seed_count && !failed; i++) {
        char name[32];
        snprintf(name, sizeof name, "seed-%zu", i);
        char *path = gt_path_join(folder, name);
        failed = !path || gt_file_write(path, fuzz_seeds[i].data, fuzz_seeds[i].size) != GT_OK;
        free(path);
    }
    if (failed)
        fprintf(stderr, "%s\n", gt_message());
    return failed;
}

int main(int argc, char **argv)
{
    uint64_t rounds = 20000, seed = 1;
    const char *name = basename(argv[0]), *folder = NULL;
    for (int option; (option = getopt(argc, argv, "n:s:w:")) != -1;) {
        gt_status st = GT_OK;
        if (option == 'n')
            st = gt_parse_u64(&rounds, optarg);
        else if (option == 's')
            st = gt_parse_u64(&seed, optarg);
        else if (option == 'w')
            folder = optarg;
        if (st || option == '?') {
            fprintf(stderr, "usage: %s [-n ROUNDS] [-s SEED] [-w DIR] [FILE...]\n", name);
            return 2;
        }
    }
    if (folder)
        return write_seeds(folder);
    if (!keep_open(name)) {
        perror(kept.path);
        return 1;
    }
    printf("%s: seed %llu, %llu rounds, the running input is in %s\n", name, (unsigned long long)seed,
           (unsigned long long)rounds, kept.path);
    fflush(stdout);

    size_t given = (size_t)(argc - optind), failed = 0;
    gt_map *maps = calloc(given + 1, sizeof *maps);
    fuzz_seed *inputs = calloc(given + 1, sizeof *inputs);
    for (size_t i = 0; maps && inputs && i < given; i++) {
        failed += gt_map_open(&maps[i], argv[optind + (int)i]) != GT_OK;
        inputs[i] = (fuzz_seed){ maps[i].data ? maps[i].data : (const void *)"", maps[i].size };
    }
    if (!maps || !inputs || failed)
        fprintf(stderr, "%s: %s\n", name, gt_message());
    else
        run_all(given ? inputs : fuzz_seeds, given ? given : fuzz_seed_count, rounds, seed);
    for (size_t i = 0; maps && i < given; i++)
        gt_map_close(&maps[i]);
    int bad = !maps || !inputs || failed;
    free(maps);
    free(inputs);
    unlink(kept.path);
    return bad;
}
