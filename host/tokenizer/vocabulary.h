/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary.h - what every tokenizer knows, and its form on disk.
 *
 * A vocabulary gives each id its bytes. Byte-pair encoding adds an ordered list of merges and a
 * pattern that cuts text into words, Unigram a score for each piece; special tokens are found in the
 * text before anything else. One file form serves all kinds: Hugging Face's `tokenizer.json`
 * (github.com/huggingface/tokenizers), so whatever is written here opens there as well:
 *
 *   byte   BPE over 256 bytes, no merges, byte-level, no pattern
 *   char   BPE over characters, no merges, not byte-level
 *   bpe    BPE with merges, byte-level, GPT-2's pattern or the file's own
 *
 * and, `chained`, every other BPE, WordPiece and Unigram, whose normalizer, pre_tokenizer and decoder
 * are kept as the file has them.
 *
 * Read as well: SentencePiece's tokenizer.model, BERT's vocab.txt, llama2.c's tokenizer.bin, GPT-2's pair `vocab.json`/`encoder.json` + `merges.txt`/`vocab.bpe`, and for both
 * forms what transformers keeps beside them: `added_tokens.json`, `special_tokens_map.json`,
 * `tokenizer_config.json`.
 *
 * Errors     GT_FORMAT names the file and the entry; GT_UNSUPPORTED names the feature.
 * Ownership  zero-initialise, then vocabulary_release() whatever happened.
 * Threads    any number may read one vocabulary.                                       */
#ifndef GT_TOKENIZER_VOCABULARY_H
#define GT_TOKENIZER_VOCABULARY_H

#include "host/base/status.h"
#include "host/base/text.h"
#include "host/tokenizer/frame.h"

#include <stdint.h>

/* A bound on ids, so that a hostile file cannot ask for memory it did not bring. */
#define VOCABULARY_MAX (1u << 20)

/* GPT-2's words, as its own encoder.py writes them. */
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef struct piece {
    size_t offset;          /* in vocabulary.bytes                         */
    uint32_t size;          /* 0: no token has this id                     */
    uint32_t special;       /* 1: found in text before anything else       */
    uint32_t flags;         /* PIECE_...                                   */
} piece;

/* What an added token says of itself. */
enum {
    PIECE_CONTROL = 1,      /* "special": a sign to the model, no text     */
    PIECE_SINGLE_WORD = 2,  /* found only where no letter is beside it     */
    PIECE_LSTRIP = 4,       /* takes the white space before it along       */
    PIECE_RSTRIP = 8,       /* and that behind it                          */
    PIECE_NORMALIZED = 16,  /* found in the normalized text                */
    PIECE_MODEL = 32,       /* not of added tokens: in the model's own list */
    PIECE_LOOKS = PIECE_SINGLE_WORD | PIECE_LSTRIP | PIECE_RSTRIP
};

typedef enum vocabulary_model { MODEL_BPE, MODEL_WORDPIECE, MODEL_UNIGRAM } vocabulary_model;

/* The parts of tokenizer.json that say how a text is cut and put together again. */
enum { PART_NORMALIZER, PART_SPLITTER, PART_FRAME, PART_DECODER, PARTS };

typedef struct merge {
    uint32_t left, right, joined;
} merge;

typedef struct vocabulary {
    piece *pieces;
    uint32_t count, room;   /* every id is below count                     */
    gt_text bytes;          /* of all pieces                               */
    merge *merges;          /* best first                                  */
    size_t merge_count;
    char *pattern;          /* NULL: text is one word                      */
    int byte_level;         /* 0: a piece is a character, not bytes        */
    int ignore_merges;      /* 1: a word that is a piece is never split    */
    vocabulary_model model;
    int chained;            /* 1: more than `pattern` says how text is cut: see parts */
    json_t *parts[PARTS];   /* as in the file, NULL: not there             */
    char *prefix;           /* of a piece inside a word ("##"); NULL: none */
    char *suffix;           /* of a piece that ends a word; NULL: none     */
    uint32_t unknown;       /* id + 1 of the unknown token, 0: none        */
    int fuse_unknown;       /* neighbouring unknown characters are one     */
    int byte_fallback;      /* what is unknown becomes <0xXX> tokens       */
    uint32_t longest;       /* WordPiece: characters of a word             */
    double *scores;         /* Unigram: by id                              */
    char *source, *config;  /* tokenizer.json and tokenizer_config.json as read, or NULL */
    uint32_t end;           /* id + 1 of what ends a text, 0: not said     */
    frame frame;            /* the special tokens around a text            */
    uint32_t *slots;        /* hash table, bytes -> id + 1                 */
    size_t slot_count;
} vocabulary;

/* Gives `id` its bytes, as a piece of the model's. GT_FORMAT if the id or the bytes are taken, or the id is
 * VOCABULARY_MAX or more, or size is 0; the sentence does not name the file. */
gt_status vocabulary_add(vocabulary *v, uint32_t id, const void *bytes, size_t size);
/* The same for an added token, with its PIECE_... Its text may be that of a byte-level piece, if it is
 * written in another way: "  " is added to some models that have "\u0120\u0120". */
gt_status vocabulary_add_token(vocabulary *v, uint32_t id, const void *bytes, size_t size, uint32_t flags);

/* The id of these bytes, that of an added token first, or -1. */
int64_t vocabulary_find(const vocabulary *v, const void *bytes, size_t size);
/* The same among the model's own, so never an added token. */
int64_t vocabulary_find_model(const vocabulary *v, const void *bytes, size_t size);

/* The bytes of a piece; valid until the next add. */
const char *vocabulary_bytes(const vocabulary *v, uint32_t id);

/* Appends a merge, best first; the piece it makes must be there. */
gt_status vocabulary_add_merge(vocabulary *v, uint32_t left, uint32_t right);

/* The same pieces, merges, specials and pattern give the same number. */
uint64_t vocabulary_hash(const vocabulary *v);

/* Reads a folder, or a tokenizer.json itself. */
gt_status vocabulary_read(vocabulary *out, const char *path);
/* Parse from memory; `name` stands for the file in sentences. */
gt_status vocabulary_parse_json(vocabulary *out, const char *text, size_t size, const char *name);
gt_status vocabulary_parse_pair(vocabulary *out, const char *vocab, size_t vocab_size, const char *vocab_name,
                                const char *merges, size_t merges_size, const char *merges_name);

/* A tokenizer.json that was made here of another form, and is kept as such; takes root over (NULL: there
 * was no memory for it). */
gt_status vocabulary_parse_document(vocabulary *out, json_t *root, const char *name);
/* 1 if more is needed than `pattern` and merges of bytes: host/tokenizer/tokenizer_chain.c. */
int vocabulary_needs_chain(const vocabulary *v);

/* The files beside a tokenizer; text NULL: it is not there. */
enum { BESIDE_ADDED, BESIDE_MAP, BESIDE_CONFIG, BESIDE_FILES };
typedef struct vocabulary_text {
    const char *text, *name;
    size_t size;
} vocabulary_text;

/* Other forms, each turned into the tokenizer.json that transformers would make of it. `config` is
 * tokenizer_config.json beside, its text NULL: there is none.
 * vocab.txt of BERT: lower case as the config says; without one if no token has an upper-case letter. */
gt_status vocabulary_parse_txt(vocabulary *out, const char *text, size_t size, const char *name,
                               const vocabulary_text *config);
/* tokenizer.model of SentencePiece (github.com/google/sentencepiece), BPE and Unigram. */
gt_status vocabulary_parse_sentencepiece(vocabulary *out, const char *text, size_t size, const char *name,
                                         const vocabulary_text *config);
/* tokenizer.bin of llama2.c: u32 longest piece, then for each id f32 score, i32 size, bytes. */
gt_status vocabulary_parse_llama2c(vocabulary *out, const char *text, size_t size, const char *name,
                                   const vocabulary_text *config);

/* Adds their tokens that have ids; what is there already becomes special. Before the vocab.json that
 * belongs to them is parsed, as added tokens stand there unchanged. GT_FORMAT if a token would have
 * two ids or an id two tokens, GT_UNSUPPORTED for what would cut text in another way. */
gt_status vocabulary_add_beside(vocabulary *v, const vocabulary_text files[BESIDE_FILES]);
/* Makes special what they name (bos_token, pad_token, ...), and eos_token the end of a text. Last of
 * all. A name that has no id is text like other text; that is logged as a warning. */
gt_status vocabulary_name_beside(vocabulary *v, const vocabulary_text files[BESIDE_FILES]);

/* Writes FOLDER/tokenizer.json and FOLDER/tokenizer_config.json; makes the folder. `eot` is
 * the id of the end of a text, or -1. */
gt_status vocabulary_write(const vocabulary *v, const char *folder, int64_t eot);

void vocabulary_release(vocabulary *v);

#endif
