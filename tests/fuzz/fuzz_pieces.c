/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_pieces.c - whatever a file says its tensor is a piece of, loading it writes
 * nowhere but into the tensor, and takes no element twice with two values. */
#include "tests/fuzz/fuzz.h"

#include "host/base/file.h"
#include "host/tensor/safetensors.h"
#include "host/train/checkpoint_private.h"

#include <stdlib.h>
#include <string.h>

#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("{\"v\": {\"full\": [6, 4], \"slice\": {\"dim\": 0, \"parts\": 3, \"full\": 2, \"begin\": 1, "
         "\"count\": 1}, \"range\": [0, 12]}}"),
    SEED("{\"v\": {\"full\": [6, 4], \"slice\": {\"dim\": 1, \"parts\": 1, \"full\": 4, \"begin\": 1, "
         "\"count\": 2}, \"range\": [0, 12]}}"),
    SEED("{\"v\": {\"full\": [6, 4], \"slice\": null, \"range\": [3, 15]}}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

/* Walks the piece as loading does; every element must lie inside, each once. */
static void walk(const checkpoint_piece *p, int64_t stored)
{
    unsigned char seen[24] = { 0 };
    int64_t left = stored;
    for (int64_t at = p->begin, full; at < p->end;) {
        int64_t n = tensor_slice_run(&p->full, &p->slice, at, &full);
        n = n < p->end - at ? n : p->end - at;
        if (n < 1 || full < 0 || full + n > 24)
            abort();
        for (int64_t i = 0; i < n; i++)
            if (seen[full + i]++)
                abort();
        at += n;
        left -= n;
    }
    if (left)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const shape stored[] = { { 2, { 6, 4 } }, { 2, { 3, 4 } }, { 2, { 6, 2 } }, { 1, { 12 } } };
    const shape full = stored[0];
    json_error_t error;
    json_t *notes = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, &error);
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        const st_tensor t = { .name = "v", .type = DTYPE_F32, .dims = stored[i] };
        checkpoint_piece p;
        if (!checkpoint_piece_read(&p, notes, &t, &full, "a file"))
            walk(&p, shape_count(&stored[i]));
    }
    json_decref(notes);
    return 0;
}
