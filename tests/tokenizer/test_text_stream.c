/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/test_text_stream.c - text that comes id by id is the text of all ids, shown in whole characters,
 * and ends before a stop string wherever that is cut. */
#include "tests/check.h"

#include "host/tokenizer/text_stream.h"
#include "host/tokenizer/utf8.h"

#include <stdio.h>
#include <string.h>

/* A vocabulary whose tokens cut everything: single bytes, and some of several. */
static const char *const pieces[] = { "ab", "c\n", "\nUser", "User:", "\xE2\x82", "\xAC.", "\xF0\x9F\x98", "end\n\n" };
enum { PIECES = sizeof pieces / sizeof *pieces };

static tokenizer *make(void)
{
    gt_text json = { 0 };
    tokenizer *t = NULL;
    gt_text_printf(&json, "{\"model\": {\"type\": \"BPE\", \"vocab\": {");
    for (int i = 0; i < 256 + PIECES; i++) {
        const char byte = (char)i, *text = i < 256 ? &byte : pieces[i - 256];
        const size_t size = i < 256 ? 1 : strlen(text);
        gt_text_printf(&json, "%s\"", i ? ", " : "");
        for (size_t k = 0; k < size; k++) {
            char code[4];
            const uint32_t c = byte_level_code((unsigned char)text[k]);
            if (c == '"' || c == '\\')
                gt_text_put(&json, "\\", 1);
            gt_text_put(&json, code, (size_t)utf8_put(code, c));
        }
        gt_text_printf(&json, "\": %d", i);
    }
    gt_text_printf(&json, "}, \"merges\": []}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": "
                          "false}, \"decoder\": {\"type\": \"ByteLevel\"}}");
    CHECK_OK(tokenizer_parse(&t, json.data, json.size, "made"));
    gt_text_release(&json);
    return t;
}

/* Whole characters, or bytes that will never be one. */
static int is_whole(const gt_text *t)
{
    uint32_t code;
    for (size_t i = 0; i < t->size;) {
        const int n = utf8_next((const unsigned char *)t->data + i, t->size - i, &code);
        if (n == UTF8_CUT)
            return 0;
        i += n > 0 ? (size_t)n : 1;
    }
    return 1;
}

/* What the ids show behind a prompt; *ended: a stop string did it. */
static void shown(const tokenizer *t, const uint32_t *ids, size_t count, const char *const *stop, int stops,
                  gt_text *out, int *ended)
{
    static const uint32_t prompt[] = { 'a', 'b', 'U', 's', 'e', 'r', ':', 'a', 0xE2 };
    text_stream s;
    CHECK_OK(text_stream_open(&s, t, prompt, 8, stop, stops));
    for (size_t i = 0; i < count && !s.stopped; i++) {
        CHECK_OK(text_stream_put(&s, ids[i], out));
        CHECKF(is_whole(out), "a character is cut after id %zu: '%s'", i, out->data ? out->data : "");
    }
    CHECK_OK(text_stream_end(&s, out));
    *ended = s.stopped;
    text_stream_release(&s);
}

static void text_comes_in_whole_characters(void)
{
    static const uint32_t ids[] = { 'x', 256,  260,  261,  'y', 0xF0, 0x9F, 0x98, 0x80,
                                    262, 0x81, 0xC3, 0xA9, 260, 'z',  0x80, 0xFF, 256 };
    static const char want[] = "xab\xE2\x82\xAC.y\xF0\x9F\x98\x80\xF0\x9F\x98\x81\xC3\xA9\xE2\x82z\x80\xFF"
                               "ab";
    tokenizer *t = make();
    gt_text out = { 0 };
    int ended;
    if (!t)
        return;
    shown(t, ids, sizeof ids / sizeof *ids, NULL, 0, &out, &ended);
    CHECKF(!ended && out.size == sizeof want - 1 && !memcmp(out.data, want, out.size), "'%s'", out.data);
    gt_text_release(&out);
    tokenizer_close(t);
}

static void what_is_cut_at_the_end_comes_with_it(void)
{
    static const uint32_t ids[] = { 'x', 260 };
    tokenizer *t = make();
    gt_text out = { 0 };
    text_stream s;
    if (!t)
        return;
    CHECK_OK(text_stream_open(&s, t, NULL, 0, NULL, 0));
    CHECK_OK(text_stream_put(&s, ids[0], &out));
    CHECK_OK(text_stream_put(&s, ids[1], &out));
    CHECK(out.size == 1);
    CHECK_OK(text_stream_end(&s, &out));
    CHECK(out.size == 3 && !memcmp(out.data, "x\xE2\x82", 3));
    text_stream_release(&s);
    gt_text_release(&out);
    tokenizer_close(t);
}

static void a_stop_string_ends_the_text_however_it_is_cut(void)
{
    static const char *const stop[] = { "\nUser:", "\n\n", "\xE2\x82\xAC" };
    static const struct {
        uint32_t ids[12];
        size_t count;
        const char *want;
        int ended;
    } cases[] = {
        { { 'h', 'i', '\n', 'U', 's', 'e', 'r', ':', '!' }, 9, "hi", 1 },
        { { 'h', 'i', 258, ':', '!' }, 5, "hi", 1 },                    /* "\nUser" ":"       */
        { { 'h', '\n', 259, '!' }, 4, "h", 1 },                       /* "\n" "User:"       */
        { { 'h', 257, 258, 'x' }, 4, "hc", 1 },                       /* "c\n" "\nUser"     */
        { { 263, 'x' }, 2, "end", 1 },                                   /* within one id        */
        { { 'h', '\n', 'U', 's', 'e', 'x' }, 6, "h\nUsex", 0 },
        { { 'h', '\n', 'U', 's', '\n', 'x' }, 6, "h\nUs\nx", 0 },
        { { 'h', '\n', 'U', 's' }, 4, "h\nUs", 0 },                     /* held back until the end */
        { { 'h', 260, 261 }, 3, "h", 1 },                               /* within a character   */
        { { '\n', '\n' }, 2, "", 1 },                                   /* nothing at all       */
        { { 'a', 'b', 'c' }, 3, "abc", 0 },
    };
    tokenizer *t = make();
    for (size_t i = 0; t && i < sizeof cases / sizeof *cases; i++) {
        gt_text out = { 0 };
        int ended;
        shown(t, cases[i].ids, cases[i].count, stop, 3, &out, &ended);
        CHECKF(ended == cases[i].ended && out.size == strlen(cases[i].want)
                   && (!out.size || !memcmp(out.data, cases[i].want, out.size)),
               "case %zu: '%s', %d", i, out.data ? out.data : "", ended);
        gt_text_release(&out);
    }
    tokenizer_close(t);
}

/* Thousands of ids: none is shown twice or left out when old ones are forgotten. */
static void long_texts_are_whole(void)
{
    tokenizer *t = make();
    text_stream s;
    gt_text out = { 0 };
    if (!t)
        return;
    CHECK_OK(text_stream_open(&s, t, NULL, 0, NULL, 0));
    for (uint32_t i = 0; i < 5000; i++)
        CHECK_OK(text_stream_put(&s, '0' + i % 10, &out));
    CHECK_OK(text_stream_end(&s, &out));
    CHECK(out.size == 5000);
    for (size_t i = 0; i < out.size; i++)
        CHECKF(out.data[i] == (char)('0' + i % 10), "byte %zu", i);
    text_stream_release(&s);
    gt_text_release(&out);
    tokenizer_close(t);
}

const check_case check_cases[] = {
    CASE(text_comes_in_whole_characters),
    CASE(what_is_cut_at_the_end_comes_with_it),
    CASE(a_stop_string_ends_the_text_however_it_is_cut),
    CASE(long_texts_are_whole),
    { 0 },
};
