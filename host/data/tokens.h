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
 * Beside a shard that `geartrain tokenize` made of records lie marks, a bit a token, and labels:
 *
 *   train-000000.ends      the token is the last one of its document
 *   train-000000.answers   the token is to be learned: what an assistant said
 *   train-000000.second    the token belongs to the second text of a pair
 *       8 bytes "GTMARKS" 1, u64 number of tokens, bits (the first is the lowest of the first byte)
 *   train-000000.labels    8 bytes "GTLABEL" 1, u64 number, an i32 for each document that ends in the shard
 *
 * Without `.ends` a document ends with the tokenizer's end-of-text id.
 *
 * A split may instead be a mixture of others, each with a weight: then it has no tokens of its own,
 * and a loader (host/data/loader.h) reads from its parts.
 *
 * Errors     GT_FORMAT names the file and the byte or token.
 * Ownership  zero-initialised structs; close takes NULL and half-built ones.
 * Threads    reading is const and may run anywhere.                                    */
#ifndef GT_DATA_TOKENS_H
#define GT_DATA_TOKENS_H

#include "host/base/file.h"
#include "host/base/status.h"

#include <stdint.h>

typedef enum token_mark { TOKEN_ENDS, TOKEN_ANSWERS, TOKEN_SECOND, TOKEN_MARKS } token_mark;

typedef struct token_file {
    gt_map map;
    const unsigned char *data;          /* the first token */
    uint64_t count;
    int width;                          /* bytes a token: 2 or 4 */
    gt_map mark[TOKEN_MARKS];           /* data NULL: there is none */
    gt_map labels;
} token_file;

/* `bits` of an id in a file without a header: 16, 32, or 0: 16, unless they look like 32. A header
 * that says otherwise is GT_MISMATCH. */
gt_status token_file_open(token_file *out, const char *path, int bits);
void token_file_close(token_file *f);

/* Does the file begin with the header of a shard? 0 too if it cannot be read. */
int token_file_has_header(const char *path);

/* How sequences are cut from a split. */
typedef struct token_reading {
    int within;                         /* a token sees its own document only, and none predicts the next one */
    int by_document;                    /* a sequence is one document, padded; else neighbouring tokens       */
} token_reading;

typedef struct token_split token_split;
typedef struct token_part token_part;
typedef struct token_index token_index;

struct token_split {
    token_file *files;
    size_t file_count;
    uint64_t count;                     /* tokens in all files, or in all parts */
    uint32_t vocab;                     /* ids must be below; 0: not known, not checked */
    uint32_t end;                       /* id + 1 of what ends a document where there are no marks; 0: none */
    unsigned marks;                     /* bit m: it has token_mark m */
    int labelled;                       /* documents have labels */
    const int32_t *relabel;             /* [relabels]: what is read for each label; NULL: itself */
    int relabels;
    token_reading reading;
    token_index *index;                 /* made by token_split_set_reading() */
    token_part *parts;                  /* of a mixture; else NULL */
    size_t part_count;
};

struct token_part {
    token_split split;
    double weight;                      /* > 0; only their ratios count */
    char *name;                         /* what was asked for, for sentences */
};

/* Opens the files in the given order; token_split_open() with bits 0. */
gt_status token_split_open(token_split *out, const char *const *paths, size_t count, uint32_t vocab);
gt_status token_split_open_as(token_split *out, const char *const *paths, size_t count, uint32_t vocab, int bits);
/* The files of a folder whose names hold `word` and end in .bin, in order of names; perhaps none. */
gt_status token_split_open_folder(token_split *out, const char *folder, const char *word, uint32_t vocab, int bits);
/* Puts the files of `s` behind those of `out`; *s is empty then. */
gt_status token_split_append(token_split *out, token_split *s);
void token_split_close(token_split *s);

/* Makes *out, which is empty, a mixture of nothing yet; adds a part, whose split is empty then. */
gt_status token_split_mix(token_split *out, token_split *part, double weight, const char *name);

/* Sets how sequences are cut, in all parts; builds the index where they are documents. GT_MISMATCH, with
 * `name` and what to do, if the split does not say where documents end. */
gt_status token_split_set_reading(token_split *s, const token_reading *r, const char *name);

/* Does it say where documents end? */
int token_split_has_documents(const token_split *s);

/* Documents by number, after token_split_set_reading() with by_document. */
uint64_t token_split_documents(const token_split *s);
void token_split_document(const token_split *s, uint64_t number, uint64_t *first, uint64_t *count);
/* GT_FORMAT if the label is not in [0, labels). labels 0: any from 0 up. */
gt_status token_split_label(const token_split *s, uint64_t number, int32_t labels, int32_t *out);

/* out[i] is 1 where token first + i has the mark. Without TOKEN_ENDS, ends are where the end-of-text id is;
 * of the others, which are not there, nothing is marked. */
void token_split_marked(const token_split *s, token_mark m, uint64_t first, size_t count, unsigned char *out);

/* Copies tokens [first, first + count) of the split, which must be inside it. GT_FORMAT
 * names the file and the token whose id is not below the vocabulary. */
gt_status token_split_read(const token_split *s, uint64_t first, size_t count, int32_t *out);

/* Tells splits apart: a hash of the number of tokens, their ids, marks and labels, and of a mixture's weights, whatever
 * shards hold them in whatever width. All ids of a split of up to TOKEN_HASH_WHOLE tokens go in; of a longer one 256
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
/* From the first token on, shards are to have these marks (bit m: token_mark m), and labels. */
void token_writer_marks(token_writer *w, unsigned marks, int labelled);
/* marks[i]: bits of token i, of those said above. */
gt_status token_writer_put_marked(token_writer *w, const uint32_t *ids, const unsigned char *marks, size_t count);
/* The label of the document whose last token was just put. */
gt_status token_writer_label(token_writer *w, int32_t label);
uint64_t token_writer_count(const token_writer *w);
/* Both free w. commit: the last shard is there too; nothing put, no file. abandon: shards
 * already full stay; takes NULL. */
gt_status token_writer_commit(token_writer *w);
void token_writer_abandon(token_writer *w);

#endif
