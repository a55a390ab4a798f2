/* SPDX-License-Identifier: MIT */
/* host/tokenizer/text_stream.c - ids to text, piece by piece. */
#include "host/tokenizer/text_stream.h"

#include "host/tokenizer/utf8.h"

#include <string.h>

enum {
    BEFORE = 8,             /* ids that are decoded with new ones    */
    PATIENCE = 4            /* ids that a character can be cut into  */
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot write text: no memory for what its tokens spell");
}

gt_status text_stream_open(text_stream *s, const tokenizer *t, const uint32_t *prompt, size_t count,
                           const char *const *stop, int stops)
{
    const size_t some = count < BEFORE ? count : BEFORE;
    *s = (text_stream){ .tokenizer = t, .stop = stop, .stops = stops, .read = some };
    return some ? token_ids_add(&s->ids, prompt + (count - some), some) : GT_OK;
}

void text_stream_release(text_stream *s)
{
    token_ids_release(&s->ids);
    gt_text_release(&s->held);
}

/* 1 if the text ends within a character, or with U+FFFD, as which some tokenizers spell its parts. */
static int is_cut(const char *text, size_t size)
{
    const unsigned char *t = (const unsigned char *)text;
    uint32_t code;
    for (size_t back = 1; back <= 4 && back <= size; back++)
        if ((t[size - back] & 0xC0) != 0x80) {
            const int length = utf8_next(t + size - back, back, &code);
            return length == UTF8_CUT || (length == (int)back && code == 0xFFFD);
        }
    return 0;
}

static size_t find(const char *text, size_t size, const char *what)
{
    const size_t n = strlen(what);
    for (size_t i = 0; n && i + n <= size; i++)
        if (!memcmp(text + i, what, n))
            return i;
    return size;
}

/* How many of the last bytes may be the beginning of a stop string. */
static size_t may_begin(const text_stream *s)
{
    size_t most = 0;
    for (int i = 0; i < s->stops; i++)
        for (size_t n = strlen(s->stop[i]); n > most + 1; n--)
            if (n - 1 <= s->held.size && !memcmp(s->held.data + s->held.size - (n - 1), s->stop[i], n - 1)) {
                most = n - 1;
                break;
            }
    return most;
}

/* Moves what of the held text may be shown; all of it at the end. */
static gt_status show(text_stream *s, int last, gt_text *out)
{
    size_t first = s->held.size;
    if (s->held.failed)
        return no_memory();
    for (int i = 0; i < s->stops; i++) {
        const size_t at = find(s->held.data, s->held.size, s->stop[i]);
        if (at < first) {
            first = at;
            s->stopped = 1;
        }
    }
    if (!s->stopped && !last)
        first -= may_begin(s);
    if (first)
        gt_text_put(out, s->held.data, first);
    if (first && s->held.size > first)
        memmove(s->held.data, s->held.data + first, s->held.size - first);
    s->held.size -= first;
    return out->failed ? no_memory() : GT_OK;
}

/* Decodes what is new and adds it to the held text, if it is whole. */
static gt_status take(text_stream *s, int last)
{
    gt_text before = { 0 }, all = { 0 };
    gt_status st = tokenizer_decode(s->tokenizer, s->ids.data + s->from, s->read - s->from, &before);
    if (!st)
        st = tokenizer_decode(s->tokenizer, s->ids.data + s->from, s->ids.count - s->from, &all);
    const int wait = !last && s->ids.count - s->read < PATIENCE && is_cut(all.data, all.size);
    if (!st && !wait) {
        if (all.size > before.size)
            gt_text_put(&s->held, all.data + before.size, all.size - before.size);
        s->from = s->read > BEFORE ? s->read - BEFORE : 0;
        s->read = s->ids.count;
    }
    gt_text_release(&before);
    gt_text_release(&all);
    return st;
}

/* Ids that are no longer decoded go. */
static void forget(text_stream *s)
{
    enum { MANY = 1024 };
    if (s->from < MANY)
        return;
    memmove(s->ids.data, s->ids.data + s->from, (s->ids.count - s->from) * sizeof *s->ids.data);
    s->ids.count -= s->from;
    s->read -= s->from;
    s->from = 0;
}

gt_status text_stream_put(text_stream *s, uint32_t id, gt_text *out)
{
    if (s->stopped)
        return GT_OK;
    gt_status st = token_ids_add(&s->ids, &id, 1);
    if (!st)
        st = take(s, 0);
    if (!st)
        st = show(s, 0, out);
    forget(s);
    return st;
}

gt_status text_stream_end(text_stream *s, gt_text *out)
{
    gt_status st = s->stopped || s->read == s->ids.count ? GT_OK : take(s, 1);
    return st || s->stopped ? st : show(s, 1, out);
}
