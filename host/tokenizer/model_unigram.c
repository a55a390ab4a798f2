/* SPDX-License-Identifier: MIT */
/* host/tokenizer/model_unigram.c - Unigram (Kudo 2018): of all ways to cut a word into pieces, the
 * one whose scores sum to the most.
 *
 * Viterbi over byte positions: best[e] is the best sum of pieces that end at e. A character that
 * is no piece by itself may also be unknown, 10 below the least score. Of equal sums the first
 * found stays, which is the one whose last piece begins earlier, as in Hugging Face's.       */
#include "host/tokenizer/trie.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/word_model.h"

#include <stdlib.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0
#define UNKNOWN (TRIE_NONE - 1)             /* instead of an id */

typedef struct node {
    double score;
    size_t begin;
    uint32_t id;                            /* TRIE_NONE: no piece ends here */
} node;

typedef struct unigram {
    const vocabulary *vocab;
    trie pieces;
    double unknown_score;
    uint32_t unknown;                       /* id + 1, 0: none */
    int has_bytes;
    uint32_t byte_id[256];
    node *nodes;                            /* of the word in work */
    size_t room;
} unigram;

static void close_model(void *state)
{
    unigram *u = state;
    if (u) {
        trie_release(&u->pieces);
        free(u->nodes);
    }
    free(u);
}

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot encode: no memory for the pieces of a word");
}

static gt_status open_model(void **state, const vocabulary *v)
{
    unigram *u = calloc(1, sizeof *u);
    uint32_t root, old;
    double least = 0.0;
    int any = 0;
    *state = u;
    if (!u)
        return no_memory();
    u->vocab = v;
    u->unknown = v->unknown;
    gt_status st = trie_root(&u->pieces, &root);
    for (uint32_t id = 0; id < v->count && !st; id++) {
        if (!(v->pieces[id].flags & PIECE_MODEL))
            continue;
        st = trie_add(&u->pieces, root, vocabulary_bytes(v, id), v->pieces[id].size, id, &old);
        least = !any || v->scores[id] < least ? v->scores[id] : least;
        any = 1;
    }
    u->unknown_score = least - UNKNOWN_PENALTY;
    u->has_bytes = v->byte_fallback && word_model_bytes(u->byte_id, v);
    return st;
}

static gt_status make_room(unigram *u, size_t n)
{
    if (n <= u->room)
        return GT_OK;
    free(u->nodes);
    u->nodes = malloc(n * sizeof *u->nodes);
    u->room = u->nodes ? n : 0;
    return u->nodes ? GT_OK : no_memory();
}

static void reach(node *n, double score, size_t begin, uint32_t id)
{
    if (n->id == TRIE_NONE || score > n->score)
        *n = (node){ score, begin, id };
}

static void find_best(unigram *u, const unsigned char *word, size_t size)
{
    for (size_t i = 0; i <= size; i++)
        u->nodes[i] = (node){ 0.0, 0, TRIE_NONE };
    for (size_t at = 0, next; at < size; at = next) {
        uint32_t code, step = 0;
        const int n = utf8_next(word + at, size - at, &code);
        const double here = u->nodes[at].score;
        int single = 0;
        next = at + (n > 0 ? (size_t)n : 1);
        for (size_t i = at; i < size && (step = trie_step(&u->pieces, step, word[i])); i++) {
            const uint32_t id = u->pieces.values[step];
            if (id == TRIE_NONE)
                continue;
            reach(&u->nodes[i + 1], here + u->vocab->scores[id], at, id);
            single |= i + 1 == next;
        }
        if (!single)
            reach(&u->nodes[next], here + u->unknown_score, at, UNKNOWN);
    }
}

/* An unknown stretch: its bytes, or one unknown token for all of it. */
static gt_status put_unknown(const unigram *u, const unsigned char *text, size_t size, token_ids *out)
{
    gt_status st = GT_OK;
    const uint32_t unknown = u->unknown - 1;
    if (!u->has_bytes)
        return u->unknown ? token_ids_add(out, &unknown, 1) : word_model_unknown(text, size);
    for (size_t i = 0; i < size && !st; i++)
        st = token_ids_add(out, &u->byte_id[text[i]], 1);
    return st;
}

static gt_status encode(void *state, const unsigned char *word, size_t size, token_ids *out)
{
    unigram *u = state;
    gt_status st = make_room(u, size + 1);
    if (st)
        return st;
    find_best(u, word, size);
    /* Turns the chain of begins into one of ends, so that it reads from the left. */
    for (size_t end = size, next = size; end > 0; next = end, end = u->nodes[end].begin)
        u->nodes[end].score = (double)next;             /* the end after this one */
    size_t end = size, at = 0;
    for (size_t e = size; e > 0; e = u->nodes[e].begin)
        end = e;
    while (at < size && !st) {
        const uint32_t id = u->nodes[end].id;
        size_t next = (size_t)u->nodes[end].score;
        if (id != UNKNOWN) {
            st = token_ids_add(out, &id, 1);
        } else {
            while (end < size && u->nodes[next].id == UNKNOWN) {
                end = next;
                next = (size_t)u->nodes[end].score;
            }
            st = put_unknown(u, word + at, end - at, out);
        }
        at = end;
        end = next;
    }
    return st;
}

const word_model word_model_unigram = { .open = open_model, .encode = encode, .close = close_model };
