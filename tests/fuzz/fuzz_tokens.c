/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_tokens.c - no token file makes a loader read outside it or give an id
 * outside the vocabulary. */
#include "tests/fuzz/fuzz.h"

#include "host/data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 300, B = 2, T = 3 };

/* 20240520 and 20240801, little-endian, with their versions and nine tokens. */
static const unsigned char narrow[1024 + 18] = { 0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 9 };
static const unsigned char wide[1024 + 36] = { 0xa1, 0xd9, 0x34, 0x01, 7, 0, 0, 0, 9 };

const fuzz_seed fuzz_seeds[] = {
    { narrow, sizeof narrow },
    { wide, sizeof wide },
    { "\1\0\2\0\3\0\4\0\5\0\6\0\7\0\x2b\1", 16 },
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void read_batches(const token_split *split, loader_order order)
{
    loader l;
    int32_t x[B * T], y[B * T];
    uint64_t filled;
    if (loader_open(&l, split, "input", order, B, T, 3))
        return;
    for (uint64_t step = 0; step < 4; step++)
        if (!loader_read(&l, step, 0, B, x, y))
            for (int i = 0; i < B * T; i++)
                if (x[i] < 0 || x[i] >= VOCAB || y[i] < 0 || y[i] >= VOCAB)
                    abort();
    if (!loader_eval(&l, 0, B, x, y, &filled) && filled > B)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    token_split split;
    snprintf(path, sizeof path, "/tmp/fuzz-tokens-%ld", (long)getpid());
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
    if (!token_split_open(&split, (const char *const[]){ path }, 1, VOCAB)) {
        read_batches(&split, LOADER_SHUFFLED);
        read_batches(&split, LOADER_SEQUENTIAL);
    }
    token_split_close(&split);
    unlink(path);
    return 0;
}
