/* SPDX-License-Identifier: MIT */
/* host/data/tokens.h - files of token ids.
 *
 * A shard, little-endian, as llm.c writes it (karpathy/llm.c, dev/data/data_common.py):
 *
 *   256 x int32   [0] magic  [1] version  [2] number of tokens, the rest 0
 *   tokens        magic 20240520 version 1: u16;  magic 20240801 version 7: u32
 *
 * The second form is llm.c's own for Llama 3; it is written when a vocabulary is larger
 * than 65,536. nanoGPT's files have no header: u16 ids, or u32 where that is said. What looks like
 * wider ids than is said, or is known to be something else (host/data/foreign.h), is refused.
 *
 * A split is the shards of one kind, `train-000000.bin train-000001.bin ...`, seen as one
 * row of tokens. Ids are checked against the vocabulary as they are read, not at opening:
 * a terabyte opens at once.
 *
 * Errors     GT_FORMAT names the file and the byte or token.
 * Ownership  zero-initialised structs; close takes NULL and half-built ones.
 * Threads    reading is const and may run anywhere.                                    */
#ifndef GT_DATA_TOKENS_H
#define GT_DATA_TOKENS_H

#include "host/base/file.h"
#include "host/base/status.h"

#include <stdint.h>

typedef struct token_file {
    gt_map map;
    const unsigned char *data;          /* the first token */
    uint64_t count;
    int width;                          /* bytes a token: 2 or 4 */
} token_file;

/* `bits` of an id in a file without a header: 16, 32, or 0: 16, unless they look like 32. A header
 * that says otherwise is GT_MISMATCH. */
gt_status token_file_open(token_file *out, const char *path, int bits);
void token_file_close(token_file *f);

/* Does the file begin with the header of a shard? 0 too if it cannot be read. */
int token_file_has_header(const char *path);

typedef struct token_split {
    token_file *files;
    size_t file_count;
    uint64_t count;                     /* tokens in all files */
    uint32_t vocab;                     /* ids must be below; 0: not known, not checked */
} token_split;

/* Opens the files in the given order; token_split_open() with bits 0. */
gt_status token_split_open(token_split *out, const char *const *paths, size_t count, uint32_t vocab);
gt_status token_split_open_as(token_split *out, const char *const *paths, size_t count, uint32_t vocab, int bits);
/* The files of a folder whose names hold `word` and end in .bin, in order of names; perhaps none. */
gt_status token_split_open_folder(token_split *out, const char *folder, const char *word, uint32_t vocab, int bits);
/* Puts the files of `s` behind those of `out`; *s is empty then. */
gt_status token_split_append(token_split *out, token_split *s);
void token_split_close(token_split *s);

/* Copies tokens [first, first + count) of the split, which must be inside it. GT_FORMAT
 * names the file and the token whose id is not below the vocabulary. */
gt_status token_split_read(const token_split *s, uint64_t first, size_t count, int32_t *out);

/* Tells splits apart: a hash of the number of tokens and of their ids, whatever shards hold them in
 * whatever width. All ids of a split of up to TOKEN_HASH_WHOLE tokens go in; of a longer one 256
 * blocks, the first and the last among them, so that a terabyte opens at once: a longer split in
 * which only ids between those blocks were exchanged looks the same. */
#define TOKEN_HASH_WHOLE ((uint64_t)8 << 20)
uint64_t token_split_hash(const token_split *s);

/* Writes FOLDER/NAME-000000.bin and on, `shard_tokens` tokens each (0: 100 million). Each
 * shard is written aside and renamed when it is full. */
typedef struct token_writer token_writer;
gt_status token_writer_open(token_writer **out, const char *folder, const char *name, uint32_t vocab,
                            uint64_t shard_tokens);
gt_status token_writer_put(token_writer *w, const uint32_t *ids, size_t count);
uint64_t token_writer_count(const token_writer *w);
/* Both free w. commit: the last shard is there too; nothing put, no file. abandon: shards
 * already full stay; takes NULL. */
gt_status token_writer_commit(token_writer *w);
void token_writer_abandon(token_writer *w);

#endif
