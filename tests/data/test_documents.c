/* SPDX-License-Identifier: MIT */
/* tests/data/test_documents.c - documents, their marks and labels, chats, and mixtures, as loaders read them. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/data/labelled.h"
#include "host/data/loader.h"
#include "host/data/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 8, B = 4 };

static char *cache;

static void with_cache(void)
{
    cache = fresh("cache");
    setenv("GEARTRAIN_CACHE", cache, 1);
}

static void without_cache(void)
{
    unsetenv("GEARTRAIN_CACHE");
    free(cache);
}

/* JSONL of `count` documents: number i is i % 5 + 2 letters 'a' + i % 26. */
static char *letters(const char *name, int count)
{
    gt_text t = { 0 };
    for (int i = 0; i < count; i++) {
        gt_text_printf(&t, "{\"text\": \"");
        for (int k = 0; k < i % 5 + 2; k++)
            gt_text_printf(&t, "%c", 'a' + i % 26);
        gt_text_printf(&t, "\"}\n");
    }
    char *path = file_of(name, t.data, t.size);
    gt_text_release(&t);
    return path;
}

static int open_as(data_set *d, const char *path, const data_request *r, token_reading reading)
{
    return CHECK_OK(data_open_as(d, path, r)) && CHECK_OK(token_split_set_reading(&d->train, &reading, path))
           && CHECK_OK(token_split_set_reading(&d->val, &reading, path));
}

/* Within documents, a token starts at its own document, and the last one of it predicts nothing. */
static void packed_documents_are_told_apart(void)
{
    int32_t x[B * T], y[B * T], s[B * T];
    float w[B * T];
    data_set d;
    loader l;
    double sum = 0.0, all = 0.0;
    with_cache();
    char *path = letters("packed.jsonl", 100);
    if (open_as(&d, path, &(data_request){ .spec = "byte" }, (token_reading){ .within = 1 })) {
        CHECK(d.train.count == 90 / 5 * 20 && d.val.count == 2 * 20);       /* documents, not characters, are cut */
        CHECK(d.train.marks & 1u << TOKEN_ENDS);
        CHECK_OK(loader_open(&l, &d.train, "it", LOADER_SEQUENTIAL, B, T, 1));
        CHECK(loader_weighs(&l));
        CHECK_OK(loader_fill(&l, 0, 0, B, &(loader_fields){ .tokens = x, .targets = y, .weights = w, .starts = s }));
        CHECK_OK(loader_weigh(&l, 0, 0, B, &sum));
        for (int i = 0; i < B * T; i++) {
            const int within = i % T, same = within > 0 && x[i] == x[i - 1];
            CHECKF(s[i] == (within == 0 ? 0 : same ? s[i - 1] : within), "token %d starts at %d", i, s[i]);
            CHECKF((w[i] > 0.0f) == (y[i] == x[i]) && (y[i] == LOADER_IGNORE) == (w[i] == 0.0f), "token %d weighs %g",
                   i, (double)w[i]);
            all += (double)w[i];
        }
        CHECK(sum == all && all < B * T && all > 0.0);
        data_close(&d);
    }
    free(path);
    /* Without marks the end-of-text id tells; without one nobody can. */
    size_t size;
    char *text = sample_text(&size);
    path = file_of("plain.txt", text, size);
    CHECK_OK(data_open(&d, path, "bpe:300", NULL, NULL));
    CHECK_OK(token_split_set_reading(&d.train, &(token_reading){ .within = 1 }, "it"));
    data_close(&d);
    CHECK_OK(data_open(&d, path, "byte", NULL, NULL));
    CHECK_FAILS(token_split_set_reading(&d.train, &(token_reading){ .within = 1 }, "it"), GT_MISMATCH,
                "no end-of-text token");
    data_close(&d);
    free(text);
    free(path);
    without_cache();
}

/* Each document is a row once an epoch, padded with what does not count. */
static void rows_may_be_documents(void)
{
    enum { N = 90 };
    int32_t x[T], y[T], length;
    float w[T];
    data_set d;
    loader l;
    with_cache();
    char *path = letters("rows.jsonl", 100);
    for (int order = 0; order < 2; order++) {
        if (!open_as(&d, path, &(data_request){ .spec = "byte" }, (token_reading){ .by_document = 1 }))
            continue;
        int seen[26 * 8] = { 0 };
        CHECK(token_split_documents(&d.train) == N);
        CHECK_OK(loader_open(&l, &d.train, "it", order ? LOADER_SEQUENTIAL : LOADER_SHUFFLED, 1, 5, 3));
        for (uint64_t n = 0; n < N; n++) {
            CHECK_OK(loader_fill(&l, n, 0, 1,
                                 &(loader_fields){ .tokens = x, .targets = y, .weights = w, .lengths = &length }));
            const int full = order ? (int)n % 5 + 2 : length;       /* 6 letters are cut to 5 */
            CHECK(!order || (x[0] == 'a' + (int)n % 26 && length == (full < 5 ? full : 5)));
            for (int i = 0; i < 5; i++) {
                CHECK(i < length ? x[i] == x[0] : x[i] == 0);
                CHECK(!order
                      || (w[i] == (i + 1 < full ? 1.0f : 0.0f) && y[i] == (i + 1 < full ? x[0] : LOADER_IGNORE)));
            }
            seen[(x[0] - 'a') * 8 + length]++;
        }
        int total = 0;
        for (int i = 0; i < 26 * 8; i++)
            total += seen[i];
        for (int i = 0; i < N && !order; i++)
            seen[i % 26 * 8 + (i % 5 + 2 < 5 ? i % 5 + 2 : 5)]--;
        for (int i = 0; i < 26 * 8 && !order; i++)
            CHECKF(seen[i] == 0, "%c of %d: %d too many", 'a' + i / 8, i % 8, seen[i]);
        CHECK(total == N && l.rows == N);
        data_close(&d);
    }
    free(path);
    without_cache();
}

static void labels_are_numbered_and_split_evenly(void)
{
    gt_text t = { 0 };
    int32_t x[B * T], types[B * T], length[B], label[B];
    data_set d;
    loader l;
    const data_request r = { .spec = "byte", .keys = { .pair = "b", .label = "y" } };
    with_cache();
    gt_text_printf(&t, "y,text,b\n");
    for (int i = 0; i < 100; i++)
        gt_text_printf(&t, "%s,%c%c,%cxyz\n",
                       i < 40   ? "10"
                       : i < 70 ? "9"
                                : "-1",
                       'a' + i % 7, 'a' + i % 7, 'p' + i % 3);
    char *path = file_of("labels.csv", t.data, t.size);
    if (open_as(&d, path, &r, (token_reading){ .by_document = 1 })) {
        int counts[3] = { 0 };
        CHECK(d.label_count == 3 && !strcmp(d.labels[0], "-1") && !strcmp(d.labels[1], "9")
              && !strcmp(d.labels[2], "10"));
        CHECK_OK(data_check_labelled(&d, path));
        CHECK(token_split_documents(&d.train) == 90 && token_split_documents(&d.val) == 10);
        CHECK_OK(loader_open(&l, &d.val, "it", LOADER_SEQUENTIAL, 1, T, 1));
        for (uint64_t n = 0; n < 10; n++) {
            CHECK_OK(loader_fill_rows(&l, n, 1, 1, &(loader_fields){ .labels = label }));
            counts[label[0]]++;
        }
        CHECK(counts[2] == 4 && counts[1] == 3 && counts[0] == 3);      /* a tenth of each */
        CHECK_OK(loader_open(&l, &d.train, "it", LOADER_SEQUENTIAL, B, 4, 1));
        CHECK_OK(loader_fill(&l, 0, 0, B,
                             &(loader_fields){ .tokens = x, .types = types, .lengths = length, .labels = label }));
        /* "aa" "pxyz" in 4 places: the end is kept */
        CHECK(label[0] == 2 && length[0] == 4 && x[0] == 'a' && x[1] == 'a' && x[2] == 'p' && x[3] == 'z');
        CHECK(types[0] == 0 && types[1] == 0);
        CHECK_OK(loader_fill_rows(&l, 88, B, 2, &(loader_fields){ .labels = label, .lengths = length }));
        CHECK(label[0] == 0 && label[2] == LOADER_IGNORE && length[3] == 1);
        data_close(&d);
    }
    free(path);
    path = file_of("same.csv", "text,y\na,1\nb,1\n", 15);
    if (CHECK_OK(data_open_as(&d, path, &(data_request){ .keys = { .label = "y" } }))) {
        static const char *const names[] = { "0", "2", "1" };
        int32_t read = 0;
        CHECK(d.label_count == 1);
        CHECK_OK(token_split_label(&d.train, 0, 0, &read));
        CHECK(read == 0);
        CHECK_FAILS(data_name_labels(&d, names, 2, "it"), GT_MISMATCH, "'it' has label '1', which is none of the 2");
        CHECK_OK(data_name_labels(&d, names, 3, "it"));
        CHECK_OK(token_split_label(&d.train, 0, 0, &read));
        CHECK(read == 2);
        data_close(&d);
    }
    free(path);
    path = letters("unlabelled.jsonl", 5);
    CHECK_OK(data_open(&d, path, "byte", NULL, NULL));
    CHECK_FAILS(data_check_labelled(&d, "it"), GT_MISMATCH, "--label-key");
    data_close(&d);
    CHECK_FAILS(data_open_as(&d, path, &(data_request){ .token_bits = 16 }), GT_MISUSE, "--token-bits");
    free(path);
    gt_text_release(&t);
    without_cache();
}

static const char chatml[] = "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</>' }}\n{% endfor %}"
                             "{% if add_generation_prompt %}<assistant>{% endif %}";

/* Of a chat only what the assistant said counts, with the end of its turn; streamed from a token folder as well. */
static void only_answers_of_chats_count(void)
{
    static const char lines[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi <assistant>\"}, {\"role\": \"assistant\", \"content\": \"Yes\"}, "
        "{\"role\": \"user\", \"content\": \"and\"}, {\"role\": \"assistant\", \"content\": \"No\"}]}\n"
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"A\"}]}\n";
    static const char *const answers = "Yes</>No</>";
    data_set d;
    with_cache();
    char *path = file_of("chat.jsonl", lines, sizeof lines - 1),
         *template = file_of("t.jinja", chatml, sizeof chatml - 1);
    const char *text = "<user>hi <assistant></>\n<assistant>Yes</>\n<user>and</>\n<assistant>No</>\n";
    const size_t n = strlen(text);
    CHECK_FAILS(data_open(&d, path, "byte", NULL, NULL), GT_MISUSE,
                "line 1: it is a chat, and the tokenizer has no chat template");
    const data_request r = { .spec = "byte", .keys = { .text = "messages" }, .chat_template = template, .whole = 1 };
    CHECK_FAILS(data_open_as(&d, path, &r), GT_FORMAT, "line 2: there is no text at the key 'messages'");
    free(path);
    path = file_of("chat.jsonl", lines, (size_t)(strchr(lines, '\n') - lines) + 1);
    if (open_as(&d, path, &r, (token_reading){ 0 })) {
        unsigned char marks[256], ends[256];
        int32_t ids[256];
        gt_text counted = { 0 };
        CHECK(d.train.count == n && d.chat != NULL);
        CHECK_OK(token_split_read(&d.train, 0, n, ids));
        token_split_marked(&d.train, TOKEN_ANSWERS, 0, n, marks);
        token_split_marked(&d.train, TOKEN_ENDS, 0, n, ends);
        for (size_t i = 0; i < n; i++) {
            CHECK(ids[i] == text[i] && ends[i] == (i == n - 1));
            if (marks[i])
                gt_text_put(&counted, &text[i], 1);
        }
        CHECKF(counted.data && counted.size == strlen(answers) && !memcmp(counted.data, answers, counted.size), "%.*s",
               (int)counted.size, counted.data);
        float w[256], sum = 0.0f;
        double said = 0.0;
        loader l;
        CHECK_OK(loader_open(&l, &d.train, "it", LOADER_SEQUENTIAL, 1, n - 1, 1));
        CHECK_OK(loader_fill(&l, 0, 0, 1, &(loader_fields){ .weights = w }));
        CHECK_OK(loader_weigh(&l, 0, 0, 1, &said));
        for (size_t i = 0; i < n - 1; i++) {
            CHECK(w[i] == (float)marks[i + 1]);
            sum += w[i];
        }
        CHECK((double)sum == said && said == (double)strlen(answers));
        gt_text_release(&counted);
        data_close(&d);
    }
    free(path);
    free(template);
    without_cache();
}

/* ---- mixtures ---------------------------------------------------------------------------------------- */

/* A split of tokens base, base + 1, ... */
static void counting_part(token_split *mix, const char *name, size_t count, double weight)
{
    token_split part;
    open_counting(&part, name, 1000, count, 1000);
    CHECK_OK(token_split_mix(mix, &part, weight, name));
}

static void mixtures_have_exact_shares_and_own_epochs(void)
{
    enum { N = 700 };
    token_split mix = { 0 };
    loader l;
    int32_t x[1];
    counting_part(&mix, "big", 901, 0.7);           /* tokens 0 ... 900 */
    counting_part(&mix, "small", 41, 0.3);
    CHECK_OK(loader_open(&l, &mix, "it", LOADER_SHUFFLED, 10, 1, 5));
    CHECK(l.slots == 10 && l.source[0].slots == 7 && l.source[1].slots == 3);
    /* Places of the two parts are told apart by reading with T 1 from parts of other sizes: count by loader_taken. */
    for (uint64_t n = 0; n <= N; n += 10) {
        uint64_t a, b;
        double epochs;
        loader_taken(&l, n, 0, &a, &epochs);
        CHECK(a == n / 10 * 7);
        loader_taken(&l, n, 1, &b, &epochs);
        CHECK(a + b == n && epochs == (double)b / 40.0);
    }
    int seen[1000] = { 0 };
    for (uint64_t n = 0; n < 1000; n++) { /* 300 of the small part: seven and a half epochs of 40 */
        CHECK_OK(loader_fill(&l, n, 0, 1, &(loader_fields){ .tokens = x }));
        seen[x[0]]++;
    }
    for (int i = 41; i < 900; i++)
        CHECKF(seen[i] <= 1, "token %d of the big part came %d times in less than an epoch", i, seen[i]);
    int small = 0;
    for (int i = 0; i <= 40; i++)
        small += seen[i];
    CHECKF(small >= 300 && small <= 300 + 41, "%d", small);
    /* The same whatever the batch, and wherever it goes on. */
    loader other;
    int32_t y[7];
    CHECK_OK(loader_open(&other, &mix, "it", LOADER_SHUFFLED, 7, 1, 5));
    for (uint64_t n = 0; n + 7 < 100; n += 7) {
        CHECK_OK(loader_fill(&other, n, 0, 7, &(loader_fields){ .tokens = y }));
        for (uint64_t i = 0; i < 7; i++) {
            CHECK_OK(loader_fill(&l, n + i, 0, 1, &(loader_fields){ .tokens = x }));
            CHECK(x[0] == y[i]);
        }
    }
    token_split_close(&mix);
}

static void weights_need_not_be_round(void)
{
    static const struct {
        double a, b;
        uint32_t slots, first;
    } cases[] = {
        { 1, 2, 3, 1 }, { 50, 50, 2, 1 }, { 0.333, 0.667, 1000, 333 }, { 1, 3.14159265, 0, 0 }, { 1e-9, 1, 0, 1 }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        token_split mix = { 0 };
        loader l;
        counting_part(&mix, "a", 100, cases[i].a);
        counting_part(&mix, "b", 100, cases[i].b);
        CHECK_OK(loader_open(&l, &mix, "it", LOADER_SHUFFLED, 1, 4, 1));
        CHECKF(!cases[i].slots || l.slots == cases[i].slots, "%u", l.slots);
        CHECKF(!cases[i].first || l.source[0].slots == cases[i].first, "%u", l.source[0].slots);
        CHECK(l.source[0].slots + l.source[1].slots == l.slots && l.source[1].first_slot == l.source[0].slots);
        token_split_close(&mix);
    }
}

/* As many of each as their ratio allows, and none twice. */
static void evaluation_keeps_the_ratio(void)
{
    token_split mix = { 0 };
    loader l;
    int32_t x[1];
    int seen[1000] = { 0 };
    counting_part(&mix, "long", 501, 0.5);
    counting_part(&mix, "short", 31, 0.5);
    CHECK_OK(loader_open(&l, &mix, "it", LOADER_SEQUENTIAL, 1, 1, 9));
    CHECKF(loader_eval_rows(&l) >= 60 && loader_eval_rows(&l) <= 61, "%d rows", (int)loader_eval_rows(&l));
    for (uint64_t n = 0; n < 60; n++) {
        CHECK_OK(loader_fill_rows(&l, n, 1, 1, &(loader_fields){ .tokens = x }));
        seen[x[0]]++;
    }
    for (int i = 0; i < 30; i++)
        CHECKF(seen[i] == 2, "%d: %d", i, seen[i]); /* once of each part */
    token_split_close(&mix);
}

static void mixtures_are_opened_by_name(void)
{
    data_set d;
    char list[4096];
    with_cache();
    char *a = letters("one.jsonl", 100), *b = letters("two.jsonl", 50);
    snprintf(list, sizeof list, "%s:3,%s:1", a, b);
    CHECK(data_kind_of(list) == DATA_TEXT);
    if (CHECK_OK(data_open(&d, list, "byte", NULL, NULL))) {
        CHECK(d.train.part_count == 2 && d.val.part_count == 2 && d.train.parts[0].weight == 3.0
              && d.tokenizer != NULL);
        const uint64_t hash = token_split_hash(&d.train);
        data_close(&d);
        snprintf(list, sizeof list, "%s:2,%s:1", a, b);
        CHECK_OK(data_open(&d, list, "byte", NULL, NULL));
        CHECK(token_split_hash(&d.train) != hash);
        data_close(&d);
    }
    CHECK_FAILS(data_open(&d, list, "char", NULL, NULL), GT_MISUSE, "cannot train tokenizer 'char' on a mixture");
    snprintf(list, sizeof list, "%s,%s", a, b);
    CHECK_OK(data_open(&d, list, "char", NULL, NULL)); /* one source of two files */
    CHECK(d.train.part_count == 0 && d.train.count + d.val.count == 400 + 200);
    data_close(&d);
    free(a);
    free(b);
    without_cache();
}

const check_case check_cases[] = {
    CASE(packed_documents_are_told_apart),
    CASE(rows_may_be_documents),
    CASE(labels_are_numbered_and_split_evenly),
    CASE(only_answers_of_chats_count),
    CASE(mixtures_have_exact_shares_and_own_epochs),
    CASE(weights_need_not_be_round),
    CASE(evaluation_keeps_the_ratio),
    CASE(mixtures_are_opened_by_name),
    { 0 }
};
