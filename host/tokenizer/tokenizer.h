/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer.h - bytes of text to ids and back.
 *
 * Kinds: `byte` (256 ids, id = byte), `char` (the sorted distinct characters of a text), `bpe`
 * (byte-pair encoding, Sennrich et al. 2016; Radford et al. 2019), `wordpiece` (Devlin et al. 2019)
 * and `unigram` (Kudo 2018). The first three are trained here; all are read from the files that
 * models come with, and all are saved as tokenizer.json, which Hugging Face `tokenizers` opens and
 * agrees with. What was read is saved as it was.
 *
 *   tokenizer *t;
 *   token_ids ids = { 0 };
 *   tokenizer_open(&t, "gpt2-folder");
 *   tokenizer_encode(t, "Hello world", 11, &ids);        15496 995
 *
 * Special tokens such as <|endoftext|> are recognised in the text, as Hugging Face does.
 *
 * Errors     a sentence; whatever is growing keeps what it had, perhaps more.
 * Ownership  what open/train give goes to tokenizer_close(), which takes NULL.
 * Threads    encoding keeps a cache, so one tokenizer, one encoding thread at a time;
 *            everything that takes a const tokenizer may run anywhere.                 */
#ifndef GT_TOKENIZER_TOKENIZER_H
#define GT_TOKENIZER_TOKENIZER_H

#include "host/base/status.h"
#include "host/base/text.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tokenizer tokenizer;

/* A growing array of ids; zero-initialise, token_ids_release() at the end. */
typedef struct token_ids {
    uint32_t *data;
    size_t count, room;
} token_ids;

gt_status token_ids_add(token_ids *ids, const uint32_t *data, size_t count);
void token_ids_release(token_ids *ids);

/* Called now and then during long work with bytes done and in all; returning non-zero
 * ends it with GT_INTERRUPTED. May be NULL wherever it is taken. */
typedef int (*data_progress)(void *context, uint64_t done, uint64_t total);

/* `spec` is "byte", a folder (tokenizer.json; or GPT-2's vocab.json/encoder.json with merges.txt/
 * vocab.bpe; or tokenizer.model, vocab.txt or tokenizer.bin; a `tokenizer` folder inside is found as
 * well), or one of these files by itself: *.model of SentencePiece, *.txt of BERT, *.bin of llama2.c,
 * any other a tokenizer.json. GT_MISUSE for a spec that needs a text to be trained on; GT_UNSUPPORTED
 * names what in a file would need another way of cutting text than is known here. */
gt_status tokenizer_open(tokenizer **out, const char *spec);

/* 1 if the folder of a model holds anything of a tokenizer, whether it can be opened or not: its
 * texts are then read with that one and no other. */
int tokenizer_is_in(const char *folder);

/* The same from a tokenizer.json in memory; `name` stands for the file in sentences. */
gt_status tokenizer_parse(tokenizer **out, const char *json, size_t size, const char *name);

/* 1 if `spec` is "char" or "bpe:SIZE", so that tokenizer_train() is what makes it. */
int tokenizer_needs_text(const char *spec);

/* Makes a tokenizer from texts: "byte" (reads nothing), "char", or "bpe:SIZE" with SIZE ids
 * in all: 256 bytes, merges, and <|endoftext|> as the last. Fewer merges if the texts run
 * out of pairs that occur twice. The result depends on the texts alone. */
gt_status tokenizer_train(tokenizer **out, const char *spec, const char *const *files, size_t count,
                          data_progress progress, void *context);

/* Writes tokenizer.json and tokenizer_config.json into a folder, made on the way. */
gt_status tokenizer_save(const tokenizer *t, const char *folder);

void tokenizer_close(tokenizer *t);

/* Appends the ids of text[0..size). GT_MISMATCH if something in it has no id. */
gt_status tokenizer_encode(tokenizer *t, const void *text, size_t size, token_ids *ids);

/* As above for a text that comes in pieces: encodes as far as no following byte can change
 * the ids and sets *used to that; the rest must come again with more behind it, or with
 * last = 1. The ids are those of the whole text however it is cut. On failure *used is the
 * offset of what has no id, or of the block of text that it is in, and the text is over, as it is
 * after last = 1. */
gt_status tokenizer_encode_part(tokenizer *t, const void *text, size_t size, int last, size_t *used, token_ids *ids);

/* Appends the bytes of the ids. GT_MISMATCH names an id that is not in the vocabulary. */
gt_status tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t count, gt_text *out);

/* Frames one text, or a pair where b is not NULL, as the tokenizer's post-processor does ([CLS] A
 * [SEP] B [SEP], <s> A, ...; nothing at all if it has none), and appends the ids and, where types is
 * not NULL, the token type of each. GT_UNSUPPORTED if the tokenizer's way is not known here. */
gt_status tokenizer_frame(const tokenizer *t, const token_ids *a, const token_ids *b, token_ids *ids, token_ids *types);
/* How many ids that adds to one text, or to a pair. */
size_t tokenizer_frame_size(const tokenizer *t, int pair);
/* Encodes and frames; b NULL: one text. */
gt_status tokenizer_encode_template(tokenizer *t, const void *a, size_t a_size, const void *b, size_t b_size,
                                    token_ids *ids, token_ids *types);

/* The id of a token as tokenizer.json writes it ("[CLS]", "<s>", "##ing"), or -1. */
int64_t tokenizer_id(const tokenizer *t, const char *token);
/* 1 if the id is a sign to the model ([CLS], <s>), not text. */
int tokenizer_is_special(const tokenizer *t, uint32_t id);
/* 1 if the id goes on with the word of the id before it: "##ing" of WordPiece; elsewhere what does
 * not begin with white space. Signs to the model and unknown ids do not. */
int tokenizer_continues(const tokenizer *t, uint32_t id);

uint32_t tokenizer_vocab(const tokenizer *t);        /* every id is below it           */
int tokenizer_has(const tokenizer *t, uint32_t id);     /* 0: beyond it, or a hole */
int64_t tokenizer_eot(const tokenizer *t);          /* id that ends a text, or -1     */
/* 1 if ids spell what each of them spells alone, one behind the other. */
int tokenizer_spells_alone(const tokenizer *t);
const char *tokenizer_name(const tokenizer *t);         /* "byte", "char", "bpe"          */
uint64_t tokenizer_hash(const tokenizer *t);         /* same number, same ids          */

#endif
