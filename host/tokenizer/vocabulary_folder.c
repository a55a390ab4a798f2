/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_folder.c - which files of a folder are its tokenizer, and in which order they are read.
 *
 *   tokenizer.json                       then what added_tokens.json and the others beside it add
 *   vocab.json + merges.txt              after them: they say how it is used
 *   tokenizer.model, vocab.txt, ...      alone; by the end of the name
 *
 * The first that is there is taken, and never another one instead when it cannot be read. */
#include "host/tokenizer/vocabulary_private.h"

#include "host/base/file.h"

#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((size_t)256 << 20)

/* FOLDER/NAME of the first name that is there; *out NULL if none is. */
static gt_status find_file(char **out, const char *folder, const char *const *names)
{
    for (*out = NULL; *names; names++) {
        *out = gt_path_join(folder, *names);
        if (!*out)
            return vocabulary_no_memory(folder);
        if (gt_path_exists(*out))
            return GT_OK;
        free(*out);
        *out = NULL;
    }
    return GT_OK;
}

/* The files beside, read; what is not there is left NULL. */
typedef struct beside {
    char *text[BESIDE_FILES], *path[BESIDE_FILES];
    size_t size[BESIDE_FILES];
} beside;

static void beside_release(beside *b)
{
    for (int i = 0; i < BESIDE_FILES; i++) {
        free(b->text[i]);
        free(b->path[i]);
    }
}

static gt_status beside_read(beside *b, vocabulary_text files[BESIDE_FILES], const char *folder)
{
    static const char *const names[BESIDE_FILES] = { [BESIDE_ADDED] = "added_tokens.json",
                                                     [BESIDE_MAP] = "special_tokens_map.json",
                                                     [BESIDE_CONFIG] = "tokenizer_config.json" };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < BESIDE_FILES; i++) {
        b->path[i] = gt_path_join(folder, names[i]);
        if (!b->path[i])
            st = vocabulary_no_memory(folder);
        else if (gt_path_exists(b->path[i]))
            st = gt_file_read(&b->text[i], &b->size[i], b->path[i], FILE_LIMIT);
        files[i] = (vocabulary_text){ b->text[i], b->path[i], b->size[i] };
    }
    return st;
}

static gt_status read_json(vocabulary *out, const char *path)
{
    char *text;
    size_t size;
    gt_status st = gt_file_read(&text, &size, path, FILE_LIMIT);
    if (!st)
        st = vocabulary_parse_json(out, text, size, path);
    free(text);
    return st;
}

static gt_status read_pair(vocabulary *out, const char *vocab_path, const char *merges_path)
{
    char *vocab = NULL, *merges = NULL;
    size_t vocab_size, merges_size;
    gt_status st = gt_file_read(&vocab, &vocab_size, vocab_path, FILE_LIMIT);
    if (!st)
        st = gt_file_read(&merges, &merges_size, merges_path, FILE_LIMIT);
    if (!st)
        st = vocabulary_parse_pair(out, vocab, vocab_size, vocab_path, merges, merges_size, merges_path);
    free(vocab);
    free(merges);
    return st;
}

static gt_status read_json_folder(vocabulary *out, const char *json)
{
    vocabulary_text files[BESIDE_FILES];
    beside b = { 0 };
    char *folder = strndup(json, strlen(json) - strlen("/tokenizer.json"));
    gt_status st = folder ? read_json(out, json) : vocabulary_no_memory(json);
    if (!st)
        st = beside_read(&b, files, folder);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    free(folder);
    return st;
}

static gt_status read_pair_folder(vocabulary *out, const char *folder, const char *vocab, const char *merges)
{
    vocabulary_text files[BESIDE_FILES];
    beside b = { 0 };
    gt_status st = beside_read(&b, files, folder);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = read_pair(out, vocab, merges);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    return st;
}

typedef gt_status (*vocabulary_parser)(vocabulary *out, const char *text, size_t size, const char *name,
                                       const vocabulary_text *config);

/* A file that is a vocabulary alone; what tokenizer_config.json says of it goes in, what it and the others
 * beside name comes after. */
static gt_status read_alone(vocabulary *out, const char *path, const char *folder, vocabulary_parser parser)
{
    vocabulary_text files[BESIDE_FILES] = { { 0 } };
    beside b = { 0 };
    char *text = NULL;
    size_t size;
    gt_status st = gt_file_read(&text, &size, path, FILE_LIMIT);
    if (!st && folder)
        st = beside_read(&b, files, folder);
    if (!st)
        st = parser(out, text, size, path, &files[BESIDE_CONFIG]);
    if (!st)
        st = vocabulary_add_beside(out, files);
    if (!st)
        st = vocabulary_name_beside(out, files);
    beside_release(&b);
    free(text);
    return st;
}

/* By the end of its name. */
static vocabulary_parser parser_of(const char *path)
{
    static const struct {
        const char *end;
        vocabulary_parser parser;
    } known[] = { { ".txt", vocabulary_parse_txt },
                  { ".model", vocabulary_parse_sentencepiece },
                  { ".bin", vocabulary_parse_llama2c } };
    const size_t size = strlen(path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t end = strlen(known[i].end);
        if (size > end && !strcmp(path + size - end, known[i].end))
            return known[i].parser;
    }
    return NULL;
}

static gt_status read_file(vocabulary *out, const char *path)
{
    const vocabulary_parser parser = parser_of(path);
    return parser ? read_alone(out, path, NULL, parser) : read_json(out, path);
}

gt_status vocabulary_read(vocabulary *out, const char *path)
{
    static const char *const json_names[] = { "tokenizer.json", "tokenizer/tokenizer.json", NULL };
    static const char *const vocab_names[] = { "vocab.json", "encoder.json", NULL };
    static const char *const merges_names[] = { "merges.txt", "vocab.bpe", NULL };
    static const char *const alone_names[] = { "tokenizer.model", "spiece.model",  "sentencepiece.bpe.model",
                                               "vocab.txt",       "tokenizer.bin", NULL };
    char *json = NULL, *vocab = NULL, *merges = NULL, *alone = NULL;

    if (!gt_path_is_folder(path))
        return read_file(out, path);
    gt_status st = find_file(&json, path, json_names);
    if (!st)
        st = find_file(&vocab, path, vocab_names);
    if (!st)
        st = find_file(&merges, path, merges_names);
    if (!st)
        st = find_file(&alone, path, alone_names);
    if (!st && json)
        st = read_json_folder(out, json);
    else if (!st && vocab && merges)
        st = read_pair_folder(out, path, vocab, merges);
    else if (!st && alone)
        st = read_alone(out, alone, path, parser_of(alone));
    else if (!st)
        st = gt_fail(GT_NOT_FOUND,
                     "cannot read tokenizer '%s': the folder holds neither tokenizer.json nor vocab.json with "
                     "merges.txt, tokenizer.model or vocab.txt",
                     path);
    free(json);
    free(vocab);
    free(merges);
    free(alone);
    return st;
}
