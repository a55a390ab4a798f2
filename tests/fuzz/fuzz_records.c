/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_records.c - no JSONL or CSV makes a reader read outside of it, and skipping finds as many records as
 * reading does. The first byte says which. */
#include "tests/fuzz/fuzz.h"

#include "host/data/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SEED(text) { text, sizeof text - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("c\xef\xbb\xbfid,text,label\r\n1,\"a \"\"b\"\"\r\nc\",x\n\n2,d,y"),
    SEED("ttext\tlabel\na\tx\n\"b\tc\"\ty\n"),
    SEED("j{\"text\": \"a\\u00e9\\ud83d\\ude00\", \"label\": 1}\n\n{\"text\": \"b\", \"label\": \"x\"}"),
    SEED(
        "j{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"messages\": [{\"role\": \"user\", \"content\": \"y\"}]}\n"),
    SEED("j{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}, {\"from\": \"gpt\", \"value\": \"y\"}]}\n"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static uint64_t count(const char *path, const reader_keys *keys, int skips, gt_status *st)
{
    reader *r = NULL;
    reader_record record = { 0 };
    uint64_t n = 0, line = 1;
    int more = 1;
    *st = reader_open(&r, path, keys);
    while (!*st) {
        *st = skips ? reader_skip(r, &line) : reader_next(r, &record, &more);
        if (*st || !line || !more)
            break;
        n++;
    }
    reader_record_release(&record);
    reader_close(r);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    gt_status read, skipped;
    const reader_keys keys = { .format = size && *data == 'c'   ? DATA_FORMAT_CSV
                                         : size && *data == 't' ? DATA_FORMAT_TSV
                                                                : DATA_FORMAT_JSONL };
    snprintf(path, sizeof path, "/tmp/fuzz-records-%ld", (long)getpid());
    FILE *file = fopen(path, "wb");
    if (!file || (size > 1 && fwrite(data + 1, 1, size - 1, file) != size - 1) || fclose(file))
        abort();
    const uint64_t a = count(path, &keys, 0, &read), b = count(path, &keys, 1, &skipped);
    if (!read && (skipped || a != b))
        abort();
    unlink(path);
    return 0;
}
