/* SPDX-License-Identifier: MIT */
/* tests/tokenizer/test_tokenizer.c - ids against other programs' ids and against slow, obvious
 * encoders and trainers written here. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/base/random.h"
#include "host/tokenizer/tokenizer.h"
#include "host/tokenizer/utf8.h"
#include "host/tokenizer/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Spaces in rows, contractions, other alphabets, emoji, marks, bytes that are not UTF-8,
 * a special token, and texts that only begin like one. */
static const char tricky[] =
    "Hello  world, it's   we'll'S\n\n\t x  <|endoftext|> <|endof<|endoftext|><|end"
    " 123 4567 na\xc3\xafve \xe6\x88\x91\xe6\x83\xb3 \xf0\x9f\x98\x81\xe2\x80\x8d ok\xcc\x81"
    "  \xff\xfe bad \xe2\x82 cut \xed\xa0\x80 \xf0\x9f    <|endoftext|>   \xe1\xa0\x8e \xc2\xa0  end  ";

static int same_ids(const token_ids *a, const token_ids *b)
{
    return a->count == b->count && (!a->count || !memcmp(a->data, b->data, a->count * sizeof *a->data));
}

/* A file in the test's folder; the path is freed by the caller. */
static char *file_of(const char *name, const void *text, size_t size)
{
    char *path = gt_path_join(check_folder(), name);
    CHECK_OK(gt_file_write(path, text, size));
    return path;
}

/* Words of few letters, so that pairs repeat. */
static char *random_text(size_t size, uint64_t seed)
{
    static const char letters[] = "aaaabbbcdee     '\n";
    char *text = malloc(size + 1);
    gt_random r;
    gt_random_init(&r, seed, 1);
    for (size_t i = 0; i < size; i++)
        text[i] = letters[gt_random_below(&r, sizeof letters - 1)];
    text[size] = '\0';
    return text;
}

static tokenizer *trained(const char *spec, const void *text, size_t size)
{
    tokenizer *t;
    char *path = file_of("train.txt", text, size);
    CHECK_OK(tokenizer_train(&t, spec, (const char *const[]){ path }, 1, NULL, NULL));
    free(path);
    return t;
}

/* GPT-2's tokenizer from the shared files, or NULL after saying so. */
static tokenizer *gpt2(void)
{
    static const char *const names[][2] = { { "data/gpt2_encoder.json", "encoder.json" },
                                            { "data/gpt2_vocab.bpe", "vocab.bpe" } };
    char *folder = gt_path_join(check_folder(), "gpt2");
    tokenizer *t = NULL;
    CHECK_OK(gt_folder_make(folder));
    for (int i = 0; i < 2; i++) {
        const char *shared = check_shared(names[i][0]);
        char *link = gt_path_join(folder, names[i][1]), *text;
        size_t size;
        if (!shared) {
            check_skip("no %s", names[i][0]);
            free(link);
            free(folder);
            return NULL;
        }
        CHECK_OK(gt_file_read(&text, &size, shared, 1 << 24));
        CHECK_OK(gt_file_write(link, text, size));
        free(text);
        free(link);
    }
    CHECK_OK(tokenizer_open(&t, folder));
    free(folder);
    return t;
}

static void gpt2_gives_the_published_ids(void)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *text, *want;
    tokenizer *t = gpt2();
    if (!t)
        return;
    CHECK(tokenizer_vocab(t) == 50257 && tokenizer_eot(t) == 50256);
    const char *path = check_shared("reference/token_vectors/ggml-vocab-gpt-2.gguf.inp");
    if (!path) {
        check_skip("no reference/token_vectors");
        tokenizer_close(t);
        return;
    }
    size_t length = 0;
    CHECK_OK(gt_file_read(&text, &length, path, 1 << 20));
    path = check_shared("reference/token_vectors/ggml-vocab-gpt-2.gguf.out");
    CHECK_OK(gt_file_read(&want, NULL, path, 1 << 20));
    int rows = 0;
    char *line = want;
    for (char *row = text, *next; row && row < text + length; row = next, rows++) {
        token_ids ids = { 0 };
        gt_text said = { 0 };
        next = strstr(row, mark);
        size_t size = next ? (size_t)(next - row) : strlen(row);
        next = next ? next + strlen(mark) : NULL;
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        CHECK_OK(tokenizer_encode(t, row, size, &ids));
        for (size_t i = 0; i < ids.count; i++)
            gt_text_printf(&said, " %u", ids.data[i]);
        CHECKF(!strcmp(said.data ? said.data : "", line), "row %d: '%.*s'", rows, (int)size, row);
        line = end ? end + 1 : line + strlen(line);
        token_ids_release(&ids);
        gt_text_release(&said);
    }
    CHECKF(rows == 46, "%d rows", rows);
    free(text);
    free(want);
    tokenizer_close(t);
}

static void gpt2_gives_nanogpts_validation_tokens(void)
{
    gt_map text, want;
    token_ids ids = { 0 };
    tokenizer *t = gpt2();
    const char *path = t ? check_shared("data/tinyshakespeare.txt") : NULL;
    if (!path)
        return;
    CHECK_OK(gt_map_open(&text, path));
    CHECK_OK(gt_map_open(&want, check_shared("reference/tinyshakespeare_gpt2_val.u16")));
    size_t split = (size_t)(0.9 * (double)text.size);
    CHECK_OK(tokenizer_encode(t, text.data + split, text.size - split, &ids));
    CHECKF(ids.count == 36059 && want.size == 2 * 36059, "%zu tokens", ids.count);
    size_t wrong = 0;
    for (size_t i = 0; i < ids.count && 2 * i + 1 < want.size; i++)
        wrong += ids.data[i] != (want.data[2 * i] | (uint32_t)want.data[2 * i + 1] << 8);
    CHECKF(wrong == 0, "%zu ids differ", wrong);
    ids.count = 0;
    CHECK_OK(tokenizer_encode(t, text.data, split, &ids));
    CHECKF(ids.count == 301966, "%zu training tokens", ids.count);
    token_ids_release(&ids);
    gt_map_close(&text);
    gt_map_close(&want);
    tokenizer_close(t);
}

static void utf8_knows_good_from_bad(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        int length;
        uint32_t code;
    } cases[] = {
        { "a", 1, 1, 'a' },
        { "\xc3\xa9z", 3, 2, 0xe9 },
        { "\xef\xbf\xbf", 3, 3, 0xffff },
        { "\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff },
        { "\xc3", 1, UTF8_CUT, 0 },
        { "\xf0\x9f\x98", 3, UTF8_CUT, 0 },
        { "\x80", 1, UTF8_INVALID, 0 },
        { "\xc0\xaf", 2, UTF8_INVALID, 0 },
        { "\xe0\x80", 2, UTF8_INVALID, 0 },
        { "\xed\xa0\x80", 3, UTF8_INVALID, 0 },
        { "\xf4\x90\x80\x80", 4, UTF8_INVALID, 0 },
        { "\xf5", 1, UTF8_INVALID, 0 },
        { "\xe2\x28", 2, UTF8_INVALID, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t code = 0;
        int n = utf8_next((const unsigned char *)cases[i].bytes, cases[i].size, &code);
        CHECKF(n == cases[i].length && (n <= 0 || code == cases[i].code), "case %zu gave %d", i, n);
    }
    for (uint32_t code = 0; code < 0x110000; code += code < 0x1000 ? 1 : 37) {
        char bytes[4];
        uint32_t back = 1;
        int n = utf8_put(bytes, code);
        int surrogate = code >= 0xd800 && code < 0xe000;
        int got = utf8_next((const unsigned char *)bytes, (size_t)n, &back);
        if (surrogate ? got != UTF8_INVALID : got != n || back != code)
            CHECKF(0, "U+%04X", code);
    }
}

static void byte_level_maps_every_byte_to_one_character(void)
{
    CHECK(byte_level_code(' ') == 0x120 && byte_level_code('\n') == 0x10a && byte_level_code('A') == 'A'
          && byte_level_code(0xad) == 0x143 && byte_level_code(0xff) == 0xff);
    for (int b = 0; b < 256; b++)
        CHECK(byte_level_byte(byte_level_code((unsigned char)b)) == b);
    CHECK(byte_level_byte(' ') == -1 && byte_level_byte(0x144) == -1);
}

static void a_saved_tokenizer_opens_the_same(void)
{
    static const char *const specs[] = { "byte", "char", "bpe:300" };
    static const char text[] = "the caf\xc3\xa9 <|endoftext|> there, the other; the 3rd\n";
    for (size_t i = 0; i < 3; i++) {
        tokenizer *a = trained(specs[i], text, sizeof text - 1), *b = NULL;
        char *folder = gt_path_join(check_folder(), specs[i]);
        token_ids x = { 0 }, y = { 0 };
        gt_text back = { 0 };
        CHECK_OK(tokenizer_save(a, folder));
        if (!CHECK_OK(tokenizer_open(&b, folder)))
            return;
        CHECKF(!strcmp(tokenizer_name(a), tokenizer_name(b)) && !strncmp(specs[i], tokenizer_name(b), 3), "%s",
               tokenizer_name(b));
        CHECK(tokenizer_hash(a) == tokenizer_hash(b) && tokenizer_vocab(a) == tokenizer_vocab(b)
              && tokenizer_eot(a) == tokenizer_eot(b));
        CHECK((tokenizer_eot(a) >= 0) == (i == 2));
        CHECK_OK(tokenizer_encode(a, text, sizeof text - 1, &x));
        CHECK_OK(tokenizer_encode(b, text, sizeof text - 1, &y));
        CHECK(same_ids(&x, &y) && x.count > 0);
        CHECK_OK(tokenizer_decode(b, y.data, y.count, &back));
        CHECK(back.size == sizeof text - 1 && !memcmp(back.data, text, back.size));
        uint32_t none = tokenizer_vocab(b);
        CHECK_FAILS(tokenizer_decode(b, &none, 1, &back), GT_MISMATCH, "no such id");
        gt_text_release(&back);
        token_ids_release(&x);
        token_ids_release(&y);
        tokenizer_close(a);
        tokenizer_close(b);
        free(folder);
    }
}

static void a_hash_tells_tokenizers_apart(void)
{
    tokenizer *a = trained("bpe:300", "hello hello", 11), *b = trained("bpe:300", "hallo hallo", 11);
    tokenizer *c = trained("bpe:300", "hello hello", 11), *d = trained("byte", "x", 1);
    CHECK(tokenizer_hash(a) != tokenizer_hash(b) && tokenizer_hash(a) == tokenizer_hash(c)
          && tokenizer_hash(a) != tokenizer_hash(d));
    tokenizer_close(a);
    tokenizer_close(b);
    tokenizer_close(c);
    tokenizer_close(d);
}

static void chars_are_sorted_and_strangers_are_named(void)
{
    tokenizer *t = trained("char", "b\xc3\xa9\na", 5);
    token_ids ids = { 0 };
    CHECK_OK(tokenizer_encode(t, "\nab\xc3\xa9", 5, &ids));
    CHECK(ids.count == 4);
    for (uint32_t i = 0; i < ids.count; i++)
        CHECK(ids.data[i] == i);
    CHECK_FAILS(tokenizer_encode(t, "abz", 3, &ids), GT_MISMATCH, "byte 2: character 'z' (U+007A)");
    CHECK_FAILS(tokenizer_encode(t, "a\xff", 2, &ids), GT_MISMATCH, "byte 1: byte 0xff");
    token_ids_release(&ids);
    tokenizer_close(t);
    char *path = file_of("bad.txt", "ab\xff", 3);
    CHECK_FAILS(tokenizer_train(&t, "char", (const char *const[]){ path }, 1, NULL, NULL), GT_FORMAT,
                "not UTF-8 at byte 2");
    free(path);
}

static void ids_do_not_depend_on_where_the_text_is_cut(void)
{
    char *text = random_text(20000, 3);
    tokenizer *kinds[] = { trained("bpe:400", text, 20000), trained("byte", text, 1) };
    const size_t size = sizeof tricky - 1;
    for (size_t k = 0; k < 2; k++)
        for (size_t chunk = 1; chunk <= size; chunk++) {
            token_ids whole = { 0 }, parts = { 0 };
            size_t at = 0, wide = chunk;
            CHECK_OK(tokenizer_encode(kinds[k], tricky, size, &whole));
            while (at < size) {
                size_t used, n = size - at < wide ? size - at : wide;
                CHECK_OK(tokenizer_encode_part(kinds[k], tricky + at, n, at + n == size, &used, &parts));
                wide = used ? chunk : wide + 1;
                at += used;
            }
            CHECKF(same_ids(&whole, &parts), "%s in chunks of %zu: %zu and %zu ids", tokenizer_name(kinds[k]), chunk,
                   whole.count, parts.count);
            token_ids_release(&whole);
            token_ids_release(&parts);
        }
    tokenizer_close(kinds[0]);
    tokenizer_close(kinds[1]);
    free(text);
}

static void no_byte_is_lost_whatever_the_text(void)
{
    char *text = random_text(20000, 4);
    tokenizer *t = trained("bpe:500", text, 20000);
    gt_random r;
    gt_random_init(&r, 11, 2);
    for (int round = 0; round < 300; round++) {
        unsigned char bytes[200];
        size_t size = gt_random_below(&r, sizeof bytes + 1);
        token_ids ids = { 0 };
        gt_text back = { 0 };
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)gt_random_u32(&r);
        CHECK_OK(tokenizer_encode(t, bytes, size, &ids));
        CHECK_OK(tokenizer_decode(t, ids.data, ids.count, &back));
        CHECK(back.size == size && (!size || !memcmp(back.data, bytes, size)));
        token_ids_release(&ids);
        gt_text_release(&back);
    }
    tokenizer_close(t);
    free(text);
}

/* --- the slow trainer: words of [a-e], single spaces in front, all pairs recounted --- */

enum { MAX_WORDS = 4000, MAX_SYMBOLS = 40 };
typedef struct slow_word {
    uint32_t s[MAX_SYMBOLS];
    int n;
} slow_word;

static int slow_words(slow_word *out, const char *text, const uint32_t id_of[256])
{
    int count = 0;
    for (const char *p = text; *p && count < MAX_WORDS; count++) {
        slow_word *w = &out[count];
        w->n = 0;
        do
            w->s[w->n++] = id_of[(unsigned char)*p++];
        while (*p && *p != ' ' && w->n < MAX_SYMBOLS);
    }
    return count;
}

static void slow_merge(slow_word *w, uint32_t left, uint32_t right, uint32_t joined)
{
    int to = 0;
    for (int i = 0; i < w->n;)
        if (i + 1 < w->n && w->s[i] == left && w->s[i + 1] == right) {
            w->s[to++] = joined;
            i += 2;
        } else {
            w->s[to++] = w->s[i++];
        }
    w->n = to;
}

static void training_merges_what_a_slow_trainer_merges(void)
{
    enum { SIZE = 360 };
    static slow_word words[MAX_WORDS];
    static uint32_t counts[SIZE][SIZE];
    char text[6000];
    gt_random r;
    gt_random_init(&r, 8, 1);
    for (size_t i = 0; i < sizeof text - 1; i++) {     /* letters, spaces never side by side */
        int space = i && text[i - 1] != ' ' && gt_random_below(&r, 5) == 0;
        text[i] = space ? ' ' : (char)('a' + gt_random_below(&r, 3) * gt_random_below(&r, 3));
    }
    text[sizeof text - 1] = '\0';
    if (text[sizeof text - 2] == ' ')
        text[sizeof text - 2] = 'a';
    char spec[16];
    snprintf(spec, sizeof spec, "bpe:%d", SIZE);
    tokenizer *t = trained(spec, text, strlen(text));
    char *folder = gt_path_join(check_folder(), "slow");
    vocabulary v = { 0 };
    CHECK_OK(tokenizer_save(t, folder));
    CHECK_OK(vocabulary_read(&v, folder));

    uint32_t id_of[256];
    for (uint32_t id = 0; id < 256; id++)
        id_of[(unsigned char)*vocabulary_bytes(&v, id)] = id;
    int n = slow_words(words, text, id_of);
    CHECKF(v.merge_count > 50 && v.count <= SIZE, "%zu merges", v.merge_count);
    for (size_t m = 0; m < v.merge_count; m++) {
        uint32_t best = 0, left = 0, right = 0;
        memset(counts, 0, sizeof counts);
        for (int w = 0; w < n; w++)
            for (int i = 0; i + 1 < words[w].n; i++)
                counts[words[w].s[i]][words[w].s[i + 1]]++;
        for (uint32_t a = 0; a < SIZE; a++)
            for (uint32_t b = 0; b < SIZE; b++)
                if (counts[a][b] > best) {
                    best = counts[a][b];
                    left = a;
                    right = b;
                }
        if (!CHECKF(v.merges[m].left == left && v.merges[m].right == right && best >= 2,
                    "merge %zu is (%u, %u), not (%u, %u) seen %u times", m, v.merges[m].left, v.merges[m].right, left,
                    right, best))
            break;
        for (int w = 0; w < n; w++)
            slow_merge(&words[w], left, right, v.merges[m].joined);
    }
    vocabulary_release(&v);
    tokenizer_close(t);
    free(folder);
}

/* The best merge anywhere, leftmost first, until there is none. */
static void slow_encode(const vocabulary *v, const char *word, size_t size, token_ids *out)
{
    uint32_t s[512];
    size_t n = 0;
    for (; n < size; n++)
        s[n] = (uint32_t)vocabulary_find(v, &word[n], 1);
    for (;;) {
        size_t best = v->merge_count, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t m = 0; m < best; m++)
                if (v->merges[m].left == s[i] && v->merges[m].right == s[i + 1]) {
                    best = m;
                    at = i;
                }
        if (best == v->merge_count)
            break;
        s[at] = v->merges[best].joined;
        memmove(s + at + 1, s + at + 2, (n - at - 2) * sizeof *s);
        n--;
    }
    CHECK_OK(token_ids_add(out, s, n));
}

static void encoding_merges_what_a_slow_encoder_merges(void)
{
    char *text = random_text(20000, 5);
    tokenizer *t = trained("bpe:420", text, 20000);
    char *folder = gt_path_join(check_folder(), "fast");
    vocabulary v = { 0 };
    CHECK_OK(tokenizer_save(t, folder));
    CHECK_OK(vocabulary_read(&v, folder));
    gt_random r;
    gt_random_init(&r, 6, 1);
    for (int round = 0; round < 400; round++) {
        char word[200];
        size_t size = 1 + gt_random_below(&r, round % 8 ? 20 : sizeof word);
        token_ids fast = { 0 }, slow = { 0 };
        for (size_t i = 0; i < size; i++)
            word[i] = "aabcde"[gt_random_below(&r, 6)];
        CHECK_OK(tokenizer_encode(t, word, size, &fast));
        slow_encode(&v, word, size, &slow);
        CHECKF(same_ids(&fast, &slow), "'%.*s'", (int)size, word);
        token_ids_release(&fast);
        token_ids_release(&slow);
    }
    vocabulary_release(&v);
    tokenizer_close(t);
    free(folder);
    free(text);
}

static void a_very_long_word_is_encoded(void)
{
    enum { LONG = 1 << 20 };
    char *text = malloc(LONG);
    memset(text, 'a', LONG);
    tokenizer *t = trained("bpe:270", text, LONG);
    token_ids ids = { 0 };
    CHECK_OK(tokenizer_encode(t, text, LONG, &ids));
    CHECKF(ids.count == LONG >> 13, "%zu ids", ids.count);      /* 13 merges, each doubling */
    token_ids_release(&ids);
    tokenizer_close(t);
    free(text);
}

static void special_tokens_are_found_in_the_text(void)
{
    tokenizer *t = trained("bpe:300", "a b c", 5);
    uint32_t end = (uint32_t)tokenizer_eot(t);
    token_ids ids = { 0 };
    CHECK_OK(tokenizer_encode(t, "a<|endoftext|>b<|endoftext", 26, &ids));
    CHECK(ids.count > 3 && ids.data[1] == end);
    for (size_t i = 2; i < ids.count; i++)
        CHECK(ids.data[i] != end);
    token_ids_release(&ids);
    tokenizer_close(t);
}

#define BPE(vocab, merges) \
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}," \
    "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"

static void both_ways_to_write_merges_are_read(void)
{
    static const char *const files[] = {
        BPE("{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4}", "[\"a b\",\"\\u0120 ab\"]"),
        BPE("{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4}", "[[\"a\",\"b\"],[\"\\u0120\",\"ab\"]]")
    };
    tokenizer *t[2];
    for (int i = 0; i < 2; i++) {
        char *path = file_of("tokenizer.json", files[i], strlen(files[i]));
        token_ids ids = { 0 };
        CHECK_OK(tokenizer_open(&t[i], path));
        CHECK_OK(tokenizer_encode(t[i], "ab abb", 6, &ids));
        CHECK(ids.count == 3 && ids.data[0] == 2 && ids.data[1] == 4 && ids.data[2] == 1);
        CHECK_FAILS(tokenizer_encode(t[i], "abc", 3, &ids), GT_MISMATCH, "no token for byte 0x63");
        token_ids_release(&ids);
        free(path);
    }
    CHECK(tokenizer_hash(t[0]) == tokenizer_hash(t[1]));
    tokenizer_close(t[0]);
    tokenizer_close(t[1]);
}

static void a_pattern_of_the_file_cuts_words(void)
{
    static const char text[] =
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}|\\\\s+\"},\"behavior\":\"Isolated\"},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"1\":0,\"11\":1,\"1111\":2,\"x\":3,\"x1\":4},"
        "\"merges\":[\"x 1\",\"1 1\",\"11 11\"]}}";
    char *path = file_of("tokenizer.json", text, strlen(text)), *folder;
    tokenizer *t, *again;
    token_ids ids = { 0 };
    if (!CHECK_OK(tokenizer_open(&t, path)))
        return;
    CHECK_OK(tokenizer_encode(t, "x1111", 5, &ids));        /* x, 111, 1: no x1, no 1111 */
    CHECK(ids.count == 4 && ids.data[0] == 3 && ids.data[1] == 1 && ids.data[2] == 0 && ids.data[3] == 0);
    folder = gt_path_join(check_folder(), "pattern");
    CHECK_OK(tokenizer_save(t, folder));
    CHECK_OK(tokenizer_open(&again, folder));
    CHECK(tokenizer_hash(t) == tokenizer_hash(again));
    token_ids_release(&ids);
    tokenizer_close(t);
    tokenizer_close(again);
    free(folder);
    free(path);
}

static void a_wrong_file_gets_one_sentence(void)
{
    static const struct {
        const char *text;
        gt_status code;
        const char *says;
    } cases[] = {
        { "{", GT_FORMAT, "byte 1" },
        { "[]", GT_FORMAT, "no model" },
        { "{\"model\":{\"type\":\"WordLevel\"}}", GT_UNSUPPORTED, "tokenizer model 'WordLevel'" },
        { "{\"model\":{\"type\":\"WordPiece\"}}", GT_FORMAT, "no vocabulary" },
        { "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", GT_FORMAT, "unknown token '[UNK]' is no token" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}", GT_FORMAT, "no vocabulary of pieces with scores" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\"]]}}", GT_FORMAT, "entry 1 of vocab" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",1]]}}", GT_FORMAT, "the same text" },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", GT_FORMAT, "unk_id is no id" },
        { "{\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", GT_UNSUPPORTED, "'dropout'" },
        { "{\"normalizer\":7,\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", GT_FORMAT,
          "normalizer is not an object" },
        { "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Spiral\"}]},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_UNSUPPORTED, "normalizer 'Spiral'" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!\"},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_FORMAT, "not base64" },
        { "{\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAEAAAAA\"},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_FORMAT, "is cut or no such map" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Sideways\",\"pattern\":{\"String\":\"a\"}},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_UNSUPPORTED, "behavior 'Sideways'" },
        { "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_UNSUPPORTED, "'Digits' behind ByteLevel" },
        { "{\"pre_tokenizer\":{\"type\":\"Digits\"},\"decoder\":{\"type\":\"CTC\"},"
          "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_UNSUPPORTED, "decoder 'CTC'" },
        { BPE("{}", "[]"), GT_FORMAT, "no vocabulary" },
        { BPE("{\"a\":0,\"a\":1}", "[]"), GT_FORMAT, "duplicate" },
        { BPE("{\"a\":0,\"b\":0}", "[]"), GT_FORMAT, "token 'b': token id 0 is given twice" },
        { BPE("{\"a\":-1}", "[]"), GT_FORMAT, "token 'a' is out of range" },
        { BPE("{\"a\":4000000000}", "[]"), GT_FORMAT, "out of range" },
        { BPE("{\"a\":1.5}", "[]"), GT_FORMAT, "not a whole number" },
        { BPE("{\"\":1}", "[]"), GT_FORMAT, "stands for no text" },
        { BPE("{\"a b\":1}", "[]"), GT_FORMAT, "'a b' holds a character that stands for no byte" },
        { BPE("{\"a\":0,\"b\":1}", "[\"a c\"]"), GT_FORMAT, "merge 0 names 'c'" },
        { BPE("{\"a\":0,\"b\":1}", "[\"a b\"]"), GT_FORMAT, "a text that is no token" },
        { BPE("{\"a\":0,\"b\":1}", "[\"ab\"]"), GT_FORMAT, "not two tokens" },
        { BPE("{\"a\":0,\"b\":1}", "[\" b\"]"), GT_FORMAT, "not two tokens" },
        { BPE("{\"a\":0,\"b\":1}", "[\"a \"]"), GT_FORMAT, "not two tokens" },
        { BPE("{\"a\":0,\"b\":1}", "[[\"a\"]]"), GT_FORMAT, "no pair" },
        { BPE("{\"a\":0,\"aa\":1}", "[\"a a\",\"a a\"]"), GT_FORMAT, "merges 0 and 1 join the same" },
        { BPE("{\"a\":0}", "7"), GT_FORMAT, "no list of merges" },
        { "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}",
          GT_UNSUPPORTED, "'UnicodeScripts'" },
        { "{\"added_tokens\":[{\"id\":0,\"content\":\"x\"},{\"id\":0,\"content\":\"y\"}],"
          "\"model\":{\"vocab\":{\"a\":1},\"merges\":[]}}",
          GT_FORMAT, "'y': token id 0 is given twice" },
        { "{\"added_tokens\":[{\"id\":0}],\"model\":{\"vocab\":{\"a\":1},\"merges\":[]}}", GT_FORMAT,
          "has no content" },
        { "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
          "\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\","
          "\"use_regex\":false}]},\"model\":{\"vocab\":{\"a\":1},\"merges\":[]}}",
          GT_FORMAT, "compile" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer *t;
        char *path = file_of("tokenizer.json", cases[i].text, strlen(cases[i].text));
        CHECK_FAILS(tokenizer_open(&t, path), cases[i].code, cases[i].says);
        CHECK(!t && !strchr(gt_message(), '\n') && strstr(gt_message(), "tokenizer.json"));
        free(path);
    }
    enum { DEEP = 200000 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    char *path = file_of("deep.json", deep, DEEP);
    tokenizer *t;
    CHECK_FAILS(tokenizer_open(&t, path), GT_FORMAT, "deep.json");
    free(path);
    free(deep);
}

/* Writes files of a folder, "name", "text", ..., NULL; *folder is removed first. */
static void fill_folder(const char *folder, const char *const *files)
{
    CHECK_OK(gt_folder_remove(folder));
    CHECK_OK(gt_folder_make(folder));
    for (; *files; files += 2) {
        char *path = gt_path_join(folder, files[0]);
        CHECK_OK(gt_file_write(path, files[1], strlen(files[1])));
        free(path);
    }
}

#define VOCAB "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}"
#define MERGES "merges.txt", "#version: 0.2\na b\n"
#define JSON_HEAD "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
#define JSON_MODEL \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<|endoftext|>\":3}," \
    "\"merges\":[\"a b\"]}}"

/* The ids are those of the files. transformers 5.24 gives the same where they leave no hole, and numbers
 * on from the last one, whatever the files say, where they do. */
static void tokens_added_beside_have_their_ids(void)
{
    static const char decoder[] =
        "{\"model_max_length\": 1000000000000000019884624838656,"
        "\"added_tokens_decoder\":{\"3\":{\"content\":\"<|endoftext|>\",\"lstrip\":false},"
        "\"4\":{\"content\":\"[PAD]\",\"special\":true},\"6\":{\"content\":\"<x>\",\"special\":false}},"
        "\"eos_token\":\"<|endoftext|>\",\"tokenizer_class\":\"GPT2Tokenizer\"}";
    static const struct {
        const char *files[11];
        int64_t eot;
        uint32_t vocab, ids[8];
    } cases[] = {
        { { VOCAB, MERGES }, 3, 4, { 2, 3 } },
        { { VOCAB, MERGES, "added_tokens.json", "{\"[PAD]\": 4, \"<x>\": 6}", "special_tokens_map.json",
            "{\"bos_token\":\"<|endoftext|>\",\"pad_token\":{\"content\":\"[PAD]\",\"lstrip\":false}}" },
          3,
          7,
          { 2, 3, 4, 0, 6, 1 } },
        { { VOCAB, MERGES, "tokenizer_config.json", decoder }, 3, 7, { 2, 3, 4, 0, 6, 1 } },
        /* Both say it, and the end of a text is another. */
        { { VOCAB, MERGES, "tokenizer_config.json", decoder, "added_tokens.json", "{\"[PAD]\": 4}",
            "special_tokens_map.json", "{\"additional_special_tokens\":[\"<x>\"]}" },
          3,
          7,
          { 2, 3, 4, 0, 6, 1 } },
        { { VOCAB, MERGES, "added_tokens.json", "{\"[PAD]\": 4, \"<x>\": 6}", "special_tokens_map.json",
            "{\"eos_token\":\"<x>\"}" },
          6,
          7,
          { 2, 3, 4, 0, 6, 1 } },
        { { "tokenizer.json", JSON_HEAD JSON_MODEL, "added_tokens.json", "{\"[PAD]\": 4, \"<x>\": 6}",
            "special_tokens_map.json", "{\"eos_token\":\"<|endoftext|>\"}" },
          3,
          7,
          { 2, 3, 4, 0, 6, 1 } },
        { { "tokenizer.json", JSON_HEAD "\"added_tokens\":[{\"id\":4,\"content\":\"[PAD]\"}]," JSON_MODEL,
            "tokenizer_config.json", decoder },
          3,
          7,
          { 2, 3, 4, 0, 6, 1 } },
    };
    static const char text[] = "ab<|endoftext|>[PAD]a<x>b";
    char *folder = gt_path_join(check_folder(), "beside"), *saved = gt_path_join(check_folder(), "again");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer *t, *again;
        token_ids ids = { 0 };
        size_t want = i ? 6 : 2;
        fill_folder(folder, cases[i].files);
        if (!CHECK_OK(tokenizer_open(&t, folder)))
            continue;
        CHECKF(tokenizer_vocab(t) == cases[i].vocab && tokenizer_eot(t) == cases[i].eot,
               "case %zu: %u ids, the end is %lld", i, tokenizer_vocab(t), (long long)tokenizer_eot(t));
        CHECK(!tokenizer_has(t, 5) && tokenizer_has(t, 3) && !tokenizer_has(t, 7));
        CHECK_OK(tokenizer_encode(t, text, i ? sizeof text - 1 : 15, &ids));
        CHECKF(ids.count == want && !memcmp(ids.data, cases[i].ids, want * sizeof *ids.data), "case %zu", i);
        CHECK_OK(gt_folder_remove(saved));
        CHECK_OK(tokenizer_save(t, saved));
        if (CHECK_OK(tokenizer_open(&again, saved))) {
            CHECK(tokenizer_hash(again) == tokenizer_hash(t) && tokenizer_eot(again) == cases[i].eot);
            tokenizer_close(again);
        }
        token_ids_release(&ids);
        tokenizer_close(t);
    }
    free(folder);
    free(saved);
}

static void files_beside_are_not_believed(void)
{
#define DECODER(entry) "tokenizer_config.json", "{\"added_tokens_decoder\":{" entry "}}"
    static const struct {
        const char *files[7];
        gt_status code;
        const char *says;
    } cases[] = {
        { { VOCAB, MERGES, "added_tokens.json", "{\"[PAD]\": 2}" }, GT_FORMAT, "vocab.json': token 'ab'" },
        { { VOCAB, MERGES, "added_tokens.json", "{\"ab\": 7}" }, GT_FORMAT, "same text" },
        { { VOCAB, MERGES, "added_tokens.json", "{\"x\": \"7\"}" }, GT_FORMAT, "'x' is not a whole number" },
        { { VOCAB, MERGES, "added_tokens.json", "{\"x\": 1048576}" }, GT_FORMAT, "out of range" },
        { { VOCAB, MERGES, "added_tokens.json", "[\"x\"]" }, GT_FORMAT, "not a JSON object" },
        { { VOCAB, MERGES, "added_tokens.json", "{" }, GT_FORMAT, "added_tokens.json': byte" },
        { { VOCAB, MERGES, DECODER("\"9\":{}") }, GT_FORMAT, "added token 9 has no content" },
        { { VOCAB, MERGES, DECODER("\"x\":{\"content\":\"y\"}") }, GT_FORMAT, "'y' is out of range" },
        { { VOCAB, MERGES, DECODER("\"-1\":{\"content\":\"y\"}") }, GT_FORMAT, "'y' is out of range" },
        { { VOCAB, MERGES, DECODER("\"8\":{\"content\":\"y\"},\"9\":{\"content\":\"y\"}") },
          GT_FORMAT,
          "'y' has id 9, but 8 elsewhere" },
        { { VOCAB, MERGES, "special_tokens_map.json", "[]" }, GT_FORMAT, "not a JSON object" },
        { { VOCAB, MERGES, "special_tokens_map.json", "{\"pad_token\":7}" }, GT_FORMAT, "pad_token is no token" },
        { { VOCAB, MERGES, "tokenizer_config.json", "{\"tokenizer_class\":\"LlamaTokenizer\"}" },
          GT_UNSUPPORTED,
          "'LlamaTokenizer' may cut text into other words" },
        { { "tokenizer.json", JSON_HEAD JSON_MODEL, "added_tokens.json", "{\"x\": 2}" },
          GT_FORMAT,
          "added token 'x': token id 2 is given twice" },
    };
    char *folder = gt_path_join(check_folder(), "unbelievable");
    tokenizer *t;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fill_folder(folder, cases[i].files);
        CHECK_FAILS(tokenizer_open(&t, folder), cases[i].code, cases[i].says);
    }
    /* A name without an id is text like other text, and that is said. */
    static const char *const nameless[] = { VOCAB, MERGES, "special_tokens_map.json", "{\"pad_token\":\"[PAD]\"}",
                                            NULL };
    const unsigned before = gt_log_warnings();
    check_allow_warnings();
    fill_folder(folder, nameless);
    if (CHECK_OK(tokenizer_open(&t, folder))) {
        CHECK(tokenizer_vocab(t) == 4 && gt_log_warnings() == before + 1);
        tokenizer_close(t);
    }
    free(folder);
}

static void a_folder_has_a_tokenizer_or_not(void)
{
    static const char *const names[] = { "tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model",
                                         "tokenizer_config.json" };
    char *folder = gt_path_join(check_folder(), "any");
    static const char *const none[] = { "config.json", "{}", "model.safetensors", "x", NULL };
    fill_folder(folder, none);
    CHECK(!tokenizer_is_in(folder));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *const files[] = { names[i], "x", NULL };
        fill_folder(folder, files);
        CHECKF(tokenizer_is_in(folder), "%s", names[i]);
    }
    free(folder);
}

static void a_spec_that_is_no_tokenizer_is_refused(void)
{
    tokenizer *t;
    const char *none = "/no/such";
    char *empty = file_of("empty.txt", "", 0);
    CHECK_FAILS(tokenizer_open(&t, "char"), GT_MISUSE, "trained on a text");
    CHECK_FAILS(tokenizer_open(&t, "bpe:512"), GT_MISUSE, "trained on a text");
    CHECK_FAILS(tokenizer_open(&t, "/no/such"), GT_NOT_FOUND, "/no/such");
    CHECK_FAILS(tokenizer_open(&t, "/"), GT_NOT_FOUND, "neither tokenizer.json");
    CHECK_FAILS(tokenizer_train(&t, "bpe:12", &none, 1, NULL, NULL), GT_MISUSE, "257");
    CHECK_FAILS(tokenizer_train(&t, "bpe:many", &none, 1, NULL, NULL), GT_MISUSE, "many");
    CHECK_FAILS(tokenizer_train(&t, "words", &none, 1, NULL, NULL), GT_MISUSE, "bpe:SIZE");
    CHECK_FAILS(tokenizer_train(&t, "bpe:512", &none, 1, NULL, NULL), GT_NOT_FOUND, "/no/such");
    CHECK_FAILS(tokenizer_train(&t, "bpe:512", (const char *const[]){ empty }, 1, NULL, NULL), GT_FORMAT, "is empty");
    CHECK_FAILS(tokenizer_train(&t, "char", (const char *const[]){ empty }, 1, NULL, NULL), GT_FORMAT, "is empty");
    free(empty);
}

static void texts_are_framed_by_the_files_template(void)
{
#define FRAMED(post) \
    "{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},{\"id\":6,\"content\":\"</s>\",\"special\":true}]," \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"post_processor\":" post "," \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4}," \
    "\"merges\":[\"a b\",\"\\u0120 ab\"]}}"
    static const struct {
        const char *json;
        size_t count, added;
        uint32_t ids[8], types[8];
    } cases[] = {
        { FRAMED("null"), 3, 0, { 2, 4, 1 }, { 0, 0, 1 } },
        { FRAMED("{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",5],\"sep\":[\"</s>\",6]}"),
          6,
          3,
          { 5, 2, 4, 6, 1, 6 },
          { 0, 0, 0, 0, 1, 1 } },
        { FRAMED("{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\",5],\"sep\":[\"</s>\",6]}"),
          7,
          4,
          { 5, 2, 4, 6, 6, 1, 6 },
          { 0 } },
        { FRAMED(
              "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":\"TemplateProcessing\","
              "\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\","
              "\"type_id\":2}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
              "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[5,6],\"tokens\":[]}}}]}"),
          5,
          2,
          { 5, 6, 1, 2, 4 },
          { 2, 2, 1, 0, 0 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer *t;
        token_ids ids = { 0 }, types = { 0 };
        if (!CHECK_OK(tokenizer_parse(&t, cases[i].json, strlen(cases[i].json), "framed")))
            continue;
        CHECK(tokenizer_frame_size(t, 1) == cases[i].added);
        CHECK_OK(tokenizer_encode_template(t, "ab ab", 5, "b", 1, &ids, &types));
        CHECKF(ids.count == cases[i].count && types.count == ids.count
                   && !memcmp(ids.data, cases[i].ids, ids.count * sizeof *ids.data)
                   && !memcmp(types.data, cases[i].types, ids.count * sizeof *ids.data),
               "case %zu", i);
        ids.count = 0;
        CHECK_OK(tokenizer_encode_template(t, "b", 1, NULL, 0, &ids, NULL));
        CHECK(ids.count == 1 + tokenizer_frame_size(t, 0));
        CHECK(tokenizer_id(t, "<s>") == 5
              && tokenizer_id(t, "\xc4\xa0"
                                 "ab")
                     == 4
              && tokenizer_id(t, " ab") == -1 && tokenizer_id(t, "x") == -1);
        CHECK(tokenizer_is_special(t, 6) && !tokenizer_is_special(t, 2) && !tokenizer_is_special(t, 99));
        CHECK(tokenizer_continues(t, 2) && !tokenizer_continues(t, 4) && !tokenizer_continues(t, 5)
              && !tokenizer_continues(t, 99));
        token_ids_release(&ids);
        token_ids_release(&types);
        tokenizer_close(t);
    }
    static const struct {
        const char *json, *says;
    } broken[] = {
        { FRAMED("{\"type\":\"BertProcessing\",\"cls\":[\"<s>\",7],\"sep\":[\"</s>\",6]}"), "names id 7" },
        { FRAMED("{\"type\":\"BertProcessing\",\"cls\":[\"<s>\"],\"sep\":[\"</s>\",6]}"), "cls or sep" },
        { FRAMED("{\"type\":\"TemplateProcessing\",\"single\":[{}],\"pair\":[]}"), "an entry is neither" },
        { FRAMED("{\"type\":\"TemplateProcessing\",\"single\":[]}"), "single and pair" },
        { FRAMED("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\",\"type_id\":0}}],"
                 "\"pair\":[]}"),
          "has no ids" },
    };
    tokenizer *t;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        CHECK_FAILS(tokenizer_parse(&t, broken[i].json, strlen(broken[i].json), "broken"), GT_FORMAT, broken[i].says);
    static const char odd[] = FRAMED("{\"type\":\"Spiral\"}");
    token_ids ids = { 0 };
    if (CHECK_OK(tokenizer_parse(&t, odd, sizeof odd - 1, "odd"))) {
        CHECK_OK(tokenizer_encode(t, "ab", 2, &ids));
        CHECK_FAILS(tokenizer_encode_template(t, "a", 1, NULL, 0, &ids, NULL), GT_UNSUPPORTED, "'Spiral'");
        tokenizer_close(t);
    }
    token_ids_release(&ids);
}

const check_case check_cases[] = {
    CASE(gpt2_gives_the_published_ids),
    CASE(gpt2_gives_nanogpts_validation_tokens),
    CASE(utf8_knows_good_from_bad),
    CASE(byte_level_maps_every_byte_to_one_character),
    CASE(a_saved_tokenizer_opens_the_same),
    CASE(a_hash_tells_tokenizers_apart),
    CASE(chars_are_sorted_and_strangers_are_named),
    CASE(ids_do_not_depend_on_where_the_text_is_cut),
    CASE(no_byte_is_lost_whatever_the_text),
    CASE(training_merges_what_a_slow_trainer_merges),
    CASE(encoding_merges_what_a_slow_encoder_merges),
    CASE(a_very_long_word_is_encoded),
    CASE(special_tokens_are_found_in_the_text),
    CASE(both_ways_to_write_merges_are_read),
    CASE(a_pattern_of_the_file_cuts_words),
    CASE(texts_are_framed_by_the_files_template),
    CASE(a_wrong_file_gets_one_sentence),
    CASE(tokens_added_beside_have_their_ids),
    CASE(files_beside_are_not_believed),
    CASE(a_folder_has_a_tokenizer_or_not),
    CASE(a_spec_that_is_no_tokenizer_is_refused),
    { 0 }
};
