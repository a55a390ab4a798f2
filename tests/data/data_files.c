/* SPDX-License-Identifier: MIT */
/* tests/data/data_files.c - see data_files.h. */
#include "tests/data/data_files.h"

#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *path_of(const char *name)
{
    return gt_path_join(check_folder(), name);
}

char *fresh(const char *name)
{
    char *path = path_of(name);
    CHECK_OK(gt_folder_remove(path));
    return path;
}

char *file_of(const char *name, const void *text, size_t size)
{
    char *path = path_of(name);
    CHECK_OK(gt_file_write(path, text, size));
    return path;
}

void open_counting(token_split *out, const char *name, uint32_t vocab, size_t count, uint64_t shard)
{
    char *folder = fresh(name), *paths[64];
    uint32_t *ids = malloc(count * sizeof *ids);
    token_writer *w;
    size_t files = 0;
    CHECK_OK(gt_folder_make(folder));
    for (size_t i = 0; i < count; i++)
        ids[i] = (uint32_t)i;
    CHECK_OK(token_writer_open(&w, folder, "train", vocab, shard));
    for (size_t at = 0, n; at < count; at += n) {       /* pieces that straddle the shards */
        n = count - at < 37 ? count - at : 37;
        CHECK_OK(token_writer_put(w, ids + at, n));
    }
    CHECK(token_writer_count(w) == count);
    CHECK_OK(token_writer_commit(w));
    for (uint64_t first = 0; first < count; first += shard) {
        char shard_name[32];
        snprintf(shard_name, sizeof shard_name, "train-%06zu.bin", files);
        paths[files++] = gt_path_join(folder, shard_name);
    }
    CHECK_OK(token_split_open(out, (const char *const *)paths, files, vocab));
    CHECK(out->count == count && out->file_count == files);
    while (files)
        free(paths[--files]);
    free(ids);
    free(folder);
}

char *sample_text(size_t *size)
{
    gt_text t = { 0 };
    for (int i = 0; i < 800; i++) {
        gt_text_printf(&t, "Zeile %d:  it's  na\xc3\xafve,   sa\xc3\x9f er.%s", i, i % 7 ? "\n" : "\n\n\n ");
        if (i == 300)
            gt_text_printf(&t, "<|endoftext|>");
        for (int k = 0; i == 310 && k < 5000; k++)
            gt_text_printf(&t, "lang");
    }
    gt_text_printf(&t, " \xe6\x88\x91 end <|end");
    *size = t.size;
    return t.data;
}

tokenizer *trained_on(const char *spec, const char *path)
{
    tokenizer *t;
    CHECK_OK(tokenizer_train(&t, spec, &path, 1, NULL, NULL));
    return t;
}
