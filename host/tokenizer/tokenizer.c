/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer.c - the parts of a tokenizer that no kind does differently.
 *
 * A kind is never stored: it is seen from the vocabulary. 256 bytes in order and nothing
 * else is `byte`; characters without a byte-level alphabet are `char`; bytes with merges and at most
 * one pattern are `bpe`; the rest goes through tokenizer_chain.c, named after its model.
 * So a tokenizer.json needs no key of ours, and other programs' files need no conversion. */
#include "host/tokenizer/tokenizer.h"

#include "host/base/file.h"
#include "host/tokenizer/tokenizer_kind.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

#define END_OF_TEXT "<|endoftext|>"

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the tokenizer's state");
}

gt_status token_ids_add(token_ids *ids, const uint32_t *data, size_t count)
{
    if (ids->room - ids->count < count) {
        size_t room = ids->room ? ids->room : 256;
        while (room - ids->count < count)
            room *= 2;
        uint32_t *grown = realloc(ids->data, room * sizeof *grown);
        if (!grown)
            return gt_fail(GT_NO_MEMORY, "no memory for %zu tokens", room);
        ids->data = grown;
        ids->room = room;
    }
    if (count)
        memcpy(ids->data + ids->count, data, count * sizeof *data);
    ids->count += count;
    return GT_OK;
}

void token_ids_release(token_ids *ids)
{
    free(ids->data);
    memset(ids, 0, sizeof *ids);
}

void tokenizer_close(tokenizer *t)
{
    if (!t)
        return;
    if (t->kind && t->kind->release)
        t->kind->release(t->state);
    vocabulary_release(&t->vocab);
    free(t);
}

static int is_bytes(const vocabulary *v)
{
    if (!v->byte_level || v->pattern || v->merge_count || v->count != 256)
        return 0;
    for (uint32_t id = 0; id < 256; id++)
        if (v->pieces[id].special || v->pieces[id].size != 1 || (unsigned char)*vocabulary_bytes(v, id) != id)
            return 0;
    return 1;
}

/* What ends a text in a tokenizer that does not say. */
static int64_t end_of_text(const vocabulary *v)
{
    static const char *const names[] = { END_OF_TEXT, "<|end_of_text|>", "</s>" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t id = vocabulary_find(v, names[i], strlen(names[i]));
        if (id >= 0 && v->pieces[id].special)
            return id;
    }
    return -1;
}

/* Takes the vocabulary over, also when it fails. */
static gt_status finish(tokenizer **out, vocabulary *v)
{
    *out = NULL;
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        vocabulary_release(v);
        return no_memory();
    }
    t->vocab = *v;
    memset(v, 0, sizeof *v);
    t->vocab.chained |= vocabulary_needs_chain(&t->vocab);
    t->kind = t->vocab.chained      ? &tokenizer_chains[t->vocab.model]
              : is_bytes(&t->vocab) ? &tokenizer_byte
              : t->vocab.byte_level ? &tokenizer_bpe
                                    : &tokenizer_char;
    const int64_t usual = end_of_text(&t->vocab);
    t->eot = t->vocab.end ? (int64_t)t->vocab.end - 1 : usual;
    t->hash = vocabulary_hash(&t->vocab);
    if (t->eot != usual) {                      /* texts are joined by another id */
        const uint64_t both[2] = { t->hash, (uint64_t)t->eot };
        t->hash = gt_hash(both, sizeof both);
    }
    gt_status st = t->kind->prepare ? t->kind->prepare(t) : GT_OK;
    if (st) {
        tokenizer_close(t);
        return st;
    }
    *out = t;
    return GT_OK;
}

int tokenizer_needs_text(const char *spec)
{
    return !strcmp(spec, "char") || !strncmp(spec, "bpe:", 4);
}

/* Of byte-level BPE, SentencePiece and WordPiece, as they lie beside weights; `tokenizer` is a folder. */
int tokenizer_is_in(const char *folder)
{
    /* clang-format off */
    static const char *const names[] = {
        "tokenizer", "tokenizer.json", "vocab.json", "encoder.json", "merges.txt", "vocab.bpe",
        "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt",
        "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.bin", "tekken.json" };
    /* clang-format on */
    int found = 0;
    for (size_t i = 0; !found && i < sizeof names / sizeof *names; i++) {
        char *path = gt_path_join(folder, names[i]);
        found = !path || gt_path_exists(path);      /* without memory, opening it fails as well */
        free(path);
    }
    return found;
}

gt_status tokenizer_open(tokenizer **out, const char *spec)
{
    vocabulary v = { 0 };
    gt_status st;
    *out = NULL;
    if (tokenizer_needs_text(spec))
        return gt_fail(GT_MISUSE, "cannot open tokenizer '%s': it has to be trained on a text", spec);
    if (!strcmp(spec, "byte"))
        st = tokenizer_byte_vocabulary(&v);
    else if (!gt_path_exists(spec))
        st = gt_fail(GT_NOT_FOUND,
                     "cannot open tokenizer '%s': neither byte, char, bpe:SIZE nor "
                     "a folder that is there",
                     spec);
    else
        st = vocabulary_read(&v, spec);
    if (!st) {
        st = finish(out, &v);
        if (st)
            st = gt_fail_in(st, "cannot open tokenizer '%s'", spec);
    }
    vocabulary_release(&v);
    return st;
}

gt_status tokenizer_parse(tokenizer **out, const char *json, size_t size, const char *name)
{
    vocabulary v = { 0 };
    *out = NULL;
    gt_status st = vocabulary_parse_json(&v, json, size, name);
    if (!st) {
        st = finish(out, &v);
        if (st)
            st = gt_fail_in(st, "cannot open tokenizer '%s'", name);
    }
    vocabulary_release(&v);
    return st;
}

gt_status tokenizer_train(tokenizer **out, const char *spec, const char *const *files, size_t count,
                          data_progress progress, void *context)
{
    vocabulary v = { 0 };
    gt_status st;
    *out = NULL;
    if (!strcmp(spec, "byte")) {
        st = tokenizer_byte_vocabulary(&v);
    } else if (!strcmp(spec, "char")) {
        st = tokenizer_char_train(&v, files, count, progress, context);
    } else if (!strncmp(spec, "bpe:", 4)) {
        uint64_t size;
        st = gt_parse_u64(&size, spec + 4);
        if (!st && (size < 257 || size > VOCABULARY_MAX))
            st = gt_fail(GT_MISUSE, "the size is not between 257 and %u", VOCABULARY_MAX);
        if (!st)
            st = tokenizer_bpe_train(&v, (uint32_t)size, files, count, progress, context);
    } else {
        st = gt_fail(GT_MISUSE, "the kinds are byte, char and bpe:SIZE");
    }
    if (!st)
        st = finish(out, &v);
    vocabulary_release(&v);
    return st ? gt_fail_in(st, "cannot train tokenizer '%s'", spec) : GT_OK;
}

gt_status tokenizer_save(const tokenizer *t, const char *folder)
{
    return vocabulary_write(&t->vocab, folder, t->eot);
}

gt_status tokenizer_encode_part(tokenizer *t, const void *text, size_t size, int last, size_t *used, token_ids *ids)
{
    return t->kind->encode(t, text, size, last, used, ids);
}

gt_status tokenizer_encode(tokenizer *t, const void *text, size_t size, token_ids *ids)
{
    size_t used;
    gt_status st = tokenizer_encode_part(t, text, size, 1, &used, ids);
    return st ? gt_fail_in(st, "cannot encode byte %zu", used) : GT_OK;
}

gt_status tokenizer_decode(const tokenizer *t, const uint32_t *ids, size_t count, gt_text *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!tokenizer_has(t, ids[i]))
            return gt_fail(GT_MISMATCH, "cannot decode token %u: the %s tokenizer has no such id", ids[i],
                           t->kind->name);
        if (!t->kind->decode)
            gt_text_put(out, vocabulary_bytes(&t->vocab, ids[i]), t->vocab.pieces[ids[i]].size);
    }
    gt_status st = t->kind->decode ? t->kind->decode(t, ids, count, out) : GT_OK;
    return st ? st : out->failed ? gt_fail(GT_NO_MEMORY, "no memory for the text of %zu tokens", count) : GT_OK;
}

static const frame_list *frame_of(const tokenizer *t, int pair)
{
    static frame_part alone[] = { { FRAME_A, 0, 0 }, { FRAME_B, 0, 1 } };
    static const frame_list bare_single = { alone, 1 }, bare_pair = { alone, 2 };
    const frame *f = &t->vocab.frame;
    return pair ? (f->pair.count ? &f->pair : &bare_pair) : f->single.count ? &f->single : &bare_single;
}

size_t tokenizer_frame_size(const tokenizer *t, int pair)
{
    const frame_list *list = frame_of(t, pair);
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++)
        n += list->parts[i].what == FRAME_TOKEN;
    return n;
}

/* Appends one value, `count` times. */
static gt_status repeat(token_ids *out, uint32_t value, size_t count)
{
    gt_status st = GT_OK;
    for (size_t i = 0; out && i < count && !st; i++)
        st = token_ids_add(out, &value, 1);
    return st;
}

gt_status tokenizer_frame(const tokenizer *t, const token_ids *a, const token_ids *b, token_ids *ids, token_ids *types)
{
    const frame_list *list = frame_of(t, b != NULL);
    gt_status st = GT_OK;
    if (*t->vocab.frame.refused)
        return gt_fail(GT_UNSUPPORTED, "cannot put the tokenizer's special tokens around a text: %s",
                       t->vocab.frame.refused);
    for (size_t i = 0; i < list->count && !st; i++) {
        const frame_part *p = &list->parts[i];
        const token_ids one = { (uint32_t[]){ p->id }, 1, 1 };
        const token_ids *text = p->what == FRAME_TOKEN ? &one : p->what == FRAME_A ? a : b;
        if (!text)
            return gt_fail(GT_FORMAT, "the tokenizer's frame of one text names a second one");
        st = token_ids_add(ids, text->data, text->count);
        st = st ? st : repeat(types, p->type, text->count);
    }
    return st;
}

gt_status tokenizer_encode_template(tokenizer *t, const void *a, size_t a_size, const void *b, size_t b_size,
                                    token_ids *ids, token_ids *types)
{
    token_ids first = { 0 }, second = { 0 };
    gt_status st = tokenizer_encode(t, a, a_size, &first);
    if (!st && b)
        st = tokenizer_encode(t, b, b_size, &second);
    if (!st)
        st = tokenizer_frame(t, &first, b ? &second : NULL, ids, types);
    token_ids_release(&first);
    token_ids_release(&second);
    return st;
}

/* A byte-level token is written with other characters than its bytes. */
int64_t tokenizer_id(const tokenizer *t, const char *token)
{
    int64_t id = vocabulary_find(&t->vocab, token, strlen(token));
    if (id >= 0 && (!t->vocab.byte_level || t->vocab.pieces[id].special))
        return id;
    char *bytes = t->vocab.byte_level ? strdup(token) : NULL;
    const int64_t n = bytes ? byte_level_decode((unsigned char *)bytes, strlen(bytes)) : -1;
    id = n > 0 ? vocabulary_find_model(&t->vocab, bytes, (size_t)n) : -1;
    free(bytes);
    return id;
}

int tokenizer_is_special(const tokenizer *t, uint32_t id)
{
    return id < t->vocab.count && (t->vocab.pieces[id].flags & PIECE_CONTROL) != 0;
}

int tokenizer_continues(const tokenizer *t, uint32_t id)
{
    if (!tokenizer_has(t, id) || t->vocab.pieces[id].special)
        return 0;
    const char *text = vocabulary_bytes(&t->vocab, id), *prefix = t->vocab.prefix;
    const uint32_t size = t->vocab.pieces[id].size;
    if (prefix)
        return size > strlen(prefix) && !memcmp(text, prefix, strlen(prefix));
    return !memchr(" \n\t\r", *text, 4) && (size < 3 || memcmp(text, "\xe2\x96\x81", 3) != 0);
}

uint32_t tokenizer_vocab(const tokenizer *t)
{
    return t->vocab.count;
}

int tokenizer_has(const tokenizer *t, uint32_t id)
{
    return id < t->vocab.count && t->vocab.pieces[id].size > 0;
}

int64_t tokenizer_eot(const tokenizer *t)
{
    return t->eot;
}

int tokenizer_spells_alone(const tokenizer *t)
{
    return !t->kind->decode;
}

const char *tokenizer_name(const tokenizer *t)
{
    return t->kind->name;
}

uint64_t tokenizer_hash(const tokenizer *t)
{
    return t->hash;
}
