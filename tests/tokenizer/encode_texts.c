/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/encode_texts.c - ids of many texts, for the scripts that compare them with other programs'.
 *
 *   encode_texts TOKENIZER FILE [CHUNK [FOLDER]]
 *
 * FILE holds texts, each a u32 LE size and its bytes. For each: a line of ids, a line of their text in
 * hexadecimal digits, or "error: SENTENCE" and an empty line. With CHUNK the text comes in parts of that many
 * bytes, twice as many where nothing could be encoded (0: whole). The tokenizer is saved in FOLDER.                                  */
#include "host/base/file.h"
#include "host/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, size_t chunk, token_ids *ids)
{
    gt_status st = GT_OK;
    if (!chunk)
        return tokenizer_encode(t, text, size, ids);
    for (size_t at = 0, wide = chunk, used; at < size && !st; at += used) {
        const size_t n = size - at < wide ? size - at : wide;
        st = tokenizer_encode_part(t, text + at, n, at + n == size, &used, ids);
        wide = used ? chunk : 2 * wide;
    }
    return st;
}

static void show(tokenizer *t, const unsigned char *text, size_t size, size_t chunk)
{
    token_ids ids = { 0 };
    gt_text back = { 0 };
    if (encode(t, text, size, chunk, &ids) || tokenizer_decode(t, ids.data, ids.count, &back)) {
        printf("error: %s\n\n", gt_message());
    } else {
        for (size_t i = 0; i < ids.count; i++)
            printf("%s%u", i ? " " : "", ids.data[i]);
        printf("\n");
        for (size_t i = 0; i < back.size; i++)
            printf("%02x", (unsigned char)back.data[i]);
        printf("\n");
    }
    token_ids_release(&ids);
    gt_text_release(&back);
}

int main(int argc, char **argv)
{
    tokenizer *t = NULL;
    gt_map file = { 0 };
    if (argc < 3 || tokenizer_open(&t, argv[1]) || gt_map_open(&file, argv[2])) {
        fprintf(stderr, "%s\n", argc < 3 ? "encode_texts TOKENIZER FILE [CHUNK [FOLDER]]" : gt_message());
        tokenizer_close(t);
        return 1;
    }
    const size_t chunk = argc > 3 ? (size_t)strtoul(argv[3], NULL, 10) : 0;
    for (size_t at = 0, size; at + 4 <= file.size; at += 4 + size) {
        const unsigned char *p = file.data + at;
        size = p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
        if (size > file.size - at - 4)
            break;
        show(t, p + 4, size, chunk);
    }
    const gt_status st = argc > 4 ? tokenizer_save(t, argv[4]) : GT_OK;
    if (st)
        fprintf(stderr, "%s\n", gt_message());
    gt_map_close(&file);
    tokenizer_close(t);
    return st != GT_OK;
}
