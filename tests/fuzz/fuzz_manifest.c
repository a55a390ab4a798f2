/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_manifest.c - no manifest makes a checkpoint whole that is not, or has
 * anything read outside its folder. */
#include "tests/fuzz/fuzz.h"

#include "host/train/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEED(text) { text, sizeof(text) - 1 }

/* The files there are empty: 0 bytes with the hash of nothing. */
#define NOTHING "2d06800538d394c2"

const fuzz_seed fuzz_seeds[] = {
    SEED("{\"format\": 1, \"step\": 20, \"seed\": 1, \"tokens\": 2560, \"files\": [{\"name\": "
         "\"params.safetensors\", \"bytes\": 0, \"xxh3\": \"" NOTHING "\"}]}"),
    SEED("{\"format\": 1, \"step\": 20, \"seed\": -1, \"tokens\": 0, \"files\": [{\"name\": "
         "\"params.safetensors\", \"bytes\": 4, \"xxh3\": \"0\"}, {\"name\": \"optimizer.safetensors"
         "\", \"bytes\": 9223372036854775807, \"xxh3\": \"ffffffffffffffff\"}]}"),
    SEED("{\"format\": 1, \"step\": 1, \"seed\": 1, \"tokens\": 1, \"files\": []}"),
    SEED("{\"format\": 2, \"step\": 20, \"seed\": 1, \"tokens\": 2560, \"files\": [{\"name\": "
         "\"params-00001.safetensors\", \"bytes\": 0, \"xxh3\": \"" NOTHING "\"}, {\"name\": "
         "\"params.safetensors\", \"bytes\": 0, \"xxh3\": \"" NOTHING "\"}]}"),
    SEED("{\"format\": 2, \"step\": 1, \"seed\": 1, \"tokens\": 1, \"files\": [{\"name\": "
         "\"params-99999999999.safetensors\", \"bytes\": 0, \"xxh3\": \"0\"}]}"),
    SEED("{\"format\": 1, \"step\": 1, \"seed\": 1, \"tokens\": 1, \"files\": [{\"name\": "
         "\"../../etc/passwd\", \"bytes\": 0, \"xxh3\": \"0\"}, 3, null]}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void put(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folder[64], manifest[96], weights[96], more[96];
    checkpoint_info info = { 0 };
    char *path;
    snprintf(folder, sizeof folder, "/tmp/fuzz-manifest-%ld", (long)getpid());
    snprintf(manifest, sizeof manifest, "%s/manifest.json", folder);
    snprintf(weights, sizeof weights, "%s/params.safetensors", folder);
    snprintf(more, sizeof more, "%s/params-00001.safetensors", folder);
    if (mkdir(folder, 0700) != 0 && access(folder, W_OK) != 0)
        abort();
    put(manifest, data, size);
    put(weights, "", 0);
    put(more, "", 0);
    if (!checkpoint_find(&path, &info, folder)) {
        if (strcmp(path, folder) || (int64_t)info.step < 0 || (int64_t)info.tokens < 0)
            abort();
        free(path);
    } else if (path)
        abort();
    unlink(manifest);
    unlink(weights);
    unlink(more);
    rmdir(folder);
    return 0;
}
