/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_safetensors.c - no bytes make the reader point outside its file. */
#include "tests/fuzz/fuzz.h"

#include "host/base/file.h"
#include "host/tensor/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEED(length, header, data) { length "\0\0\0\0\0\0\0" header data, 8 + sizeof(header) + sizeof(data) - 2 }

const fuzz_seed fuzz_seeds[] = {
    SEED("\x3d", "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}       ", "01234567"),
    SEED("\x9a",
         "{\"x\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[0,4]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[4,5]},"
         "\"__metadata__\":{\"format\":\"pt\",\"k\":\"\\u00e9\"}}  ",
         "01234"),
    SEED("\x02", "{}", ""),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static volatile unsigned touched;         /* so that the reading is not optimised away */

/* Sums every byte of every tensor, so that a pointer outside the file is touched. */
static unsigned touch(const st_file *f)
{
    unsigned sum = 0;
    for (size_t i = 0; i < st_count(f); i++) {
        const st_tensor *t = st_at(f, i);
        if ((uint64_t)shape_count(&t->dims) * dtype_size(t->type) != t->bytes || st_find(f, t->name) != t)
            abort();
        for (size_t k = 0; k < t->bytes; k++)
            sum += ((const unsigned char *)t->data)[k];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    st_file *f;
    if (st_check(data, size, "input"))
        return 0;
    /* Well-formed: then the file opens as well, and every tensor is inside it. */
    snprintf(path, sizeof path, "/tmp/fuzz-safetensors-%ld", (long)getpid());
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
    if (st_open(&f, path))
        abort();
    touched = touch(f);
    st_close(f);
    unlink(path);
    return 0;
}
