/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_marks.c - nothing that lies beside a shard, marks or labels, makes a loader read outside of it. The first
 * byte says which file it is. */
#include "tests/fuzz/fuzz.h"

#include "host/base/file.h"
#include "host/data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT = 20, T = 6, B = 2 };

static const char *const ends[] = { ".ends", ".answers", ".second", ".labels" };

const fuzz_seed fuzz_seeds[] = {
    { "\0GTMARKS\1\x14\0\0\0\0\0\0\0\x10\x42\x08", 20 },
    { "\1GTMARKS\1\x14\0\0\0\0\0\0\0\xff\x0f\x0f", 20 },
    { "\2GTMARKS\1\x14\0\0\0\0\0\0\0\0\0\0", 20 },
    { "\3GTLABEL\1\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 25 },
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
}

static void read_rows(token_split *s, token_reading reading)
{
    loader l;
    int32_t x[B * T], y[B * T], starts[B * T], types[B * T], lengths[B], labels[B];
    float w[B * T];
    double sum;
    const loader_fields all = { x, y, w, starts, types, lengths, labels };
    if (token_split_set_reading(s, &reading, "it") || loader_open(&l, s, "it", LOADER_SHUFFLED, B, T, 1))
        return;
    for (uint64_t at = 0; at < 8; at += B) {
        if (loader_fill(&l, at, 0, B, &all) || loader_weigh(&l, at, 0, B, &sum))
            continue;
        for (int i = 0; i < B * T; i++) {
            if (starts[i] < 0 || starts[i] > i % T || w[i] < 0.0f || w[i] > 1.0f || types[i] < 0 || types[i] > 1)
                abort();
            sum -= (double)w[i];
        }
        if (sum != 0.0 || lengths[0] < 1 || lengths[0] > T)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char shard[64], beside[80];
    int32_t head[256] = { 20240520, 1, COUNT };
    uint16_t ids[COUNT];
    token_split s;
    if (!size)
        return 0;
    snprintf(shard, sizeof shard, "/tmp/fuzz-marks-%ld.bin", (long)getpid());
    snprintf(beside, sizeof beside, "/tmp/fuzz-marks-%ld%s", (long)getpid(), ends[*data % 4]);
    for (int i = 0; i < COUNT; i++)
        ids[i] = (uint16_t)i;
    unsigned char bytes[sizeof head + sizeof ids];
    memcpy(bytes, head, sizeof head);
    memcpy(bytes + sizeof head, ids, sizeof ids);
    write_file(shard, bytes, sizeof bytes);
    write_file(beside, data + 1, size - 1);
    const token_reading ways[] = { { 0, 0 }, { 1, 0 }, { 0, 1 } };
    for (int i = 0; i < 3; i++) {
        if (!token_split_open(&s, (const char *const[]){ shard }, 1, COUNT)) {
            s.end = 5; /* id 4 ends a document where no marks tell */
            token_split_hash(&s);
            read_rows(&s, ways[i]);
        }
        token_split_close(&s);
    }
    unlink(shard);
    unlink(beside);
    return 0;
}
