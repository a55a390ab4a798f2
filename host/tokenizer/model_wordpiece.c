/* SPDX-License-Identifier: MIT */
/* host/tokenizer/model_wordpiece.c - WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019):
 * from the left, always the longest piece; what goes on with a word is written with "##".
 *
 *   unaffable    un ##aff ##able        one part without a piece: the whole word is unknown */
#include "host/tokenizer/trie.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/word_model.h"

#include <stdlib.h>
#include <string.h>

typedef struct wordpiece {
    trie pieces;
    uint32_t begin, inside;                 /* roots: of a word, and behind its first piece */
    uint32_t unknown;                       /* id + 1, 0: none */
    uint32_t longest;                       /* characters of a word; longer ones are unknown */
} wordpiece;

static void close_model(void *state)
{
    wordpiece *w = state;
    if (w)
        trie_release(&w->pieces);
    free(w);
}

static gt_status add_piece(wordpiece *w, const vocabulary *v, uint32_t id)
{
    const char *text = vocabulary_bytes(v, id), *prefix = v->prefix ? v->prefix : "";
    const size_t size = v->pieces[id].size, cut = strlen(prefix);
    uint32_t old;
    gt_status st = trie_add(&w->pieces, w->begin, text, size, id, &old);
    if (!st && size > cut && !memcmp(text, prefix, cut))
        st = trie_add(&w->pieces, w->inside, text + cut, size - cut, id, &old);
    return st;
}

static gt_status open_model(void **state, const vocabulary *v)
{
    wordpiece *w = calloc(1, sizeof *w);
    *state = w;
    if (!w)
        return gt_fail(GT_NO_MEMORY, "no memory for the pieces of words");
    w->unknown = v->unknown;
    w->longest = v->longest;
    gt_status st = trie_root(&w->pieces, &w->begin);
    if (!st)
        st = trie_root(&w->pieces, &w->inside);
    for (uint32_t id = 0; id < v->count && !st; id++)
        if (v->pieces[id].flags & PIECE_MODEL)
            st = add_piece(w, v, id);
    return st;
}

static gt_status encode(void *state, const unsigned char *word, size_t size, token_ids *out)
{
    const wordpiece *w = state;
    const size_t before = out->count;
    gt_status st = GT_OK;
    size_t at = 0;
    if (utf8_count(word, size) <= w->longest)
        while (at < size && !st) {
            uint32_t node = at ? w->inside : w->begin, id = TRIE_NONE;
            size_t end = at;
            for (size_t i = at; i < size && (node = trie_step(&w->pieces, node, word[i])); i++)
                if (w->pieces.values[node] != TRIE_NONE) {
                    id = w->pieces.values[node];
                    end = i + 1;
                }
            if (end == at)
                break;
            st = token_ids_add(out, &id, 1);
            at = end;
        }
    if (st || at == size)
        return st;
    out->count = before;
    const uint32_t unknown = w->unknown - 1;
    return w->unknown ? token_ids_add(out, &unknown, 1) : word_model_unknown(word, size);
}

const word_model word_model_wordpiece = { .open = open_model, .encode = encode, .close = close_model };
