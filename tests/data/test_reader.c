/* SPDX-License-Identifier: MIT */
/* tests/data/test_reader.c - records of JSONL, CSV and TSV, hard ones and broken ones; lists of data. */
#include "tests/check.h"
#include "tests/data/data_files.h"

#include "host/base/file.h"
#include "host/data/reader.h"
#include "host/data/sources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* All records of a file as "text|pair|label@line;". */
static gt_status read_all(gt_text *out, const char *path, const reader_keys *keys)
{
    reader *r = NULL;
    reader_record record = { 0 };
    int more = 1;
    out->size = 0;
    gt_text_put(out, "", 0);
    gt_status st = reader_open(&r, path, keys);
    while (!st && more) {
        st = reader_next(r, &record, &more);
        if (st || !more)
            break;
        gt_text_put(out, record.text.data, record.text.size);
        if (keys->pair)
            gt_text_printf(out, "|%.*s", (int)record.pair.size, record.pair.data);
        if (keys->label)
            gt_text_printf(out, "|%.*s", (int)record.label.size, record.label.data);
        if (record.messages)
            gt_text_printf(out, "%zu messages", json_array_size(record.messages));
        gt_text_printf(out, "@%d;", (int)record.line);
    }
    reader_record_release(&record);
    reader_close(r);
    return st;
}

static void reads(const char *name, const char *bytes, size_t size, const reader_keys *keys, const char *want)
{
    gt_text got = { 0 };
    char *path = file_of(name, bytes, size);
    CHECK_OK(read_all(&got, path, keys));
    CHECKF(got.data && !strcmp(got.data, want), "%s: got '%s', want '%s'", name, got.data ? got.data : "", want);
    uint64_t line = 1, count = 0, wanted = 0;
    for (const char *c = want; *c; c++)
        wanted += *c == ';';
    reader *r;
    CHECK_OK(reader_open(&r, path, keys));
    while (!reader_skip(r, &line) && line)
        count++;
    CHECKF(count == wanted, "%s: %d records skipped, %d read", name, (int)count, (int)wanted);
    reader_close(r);
    gt_text_release(&got);
    free(path);
}
#define READS(name, bytes, keys, want) reads(name, bytes, sizeof(bytes) - 1, keys, want)

static void csv_is_read_as_rfc_4180_has_it(void)
{
    const reader_keys text = { 0 }, three = { .text = "a", .pair = "b", .label = "c" };
    READS("x.csv", "id,text\n1,one\n2,two\n", &text, "one@2;two@3;");
    READS("x.csv", "\xef\xbb\xbftext,id\r\none,1\r\n\r\ntwo,2", &text, "one@2;two@4;");
    READS("x.csv", "text\n\"a, \"\"b\"\"\nc\r\nd\"\nlast\n", &text, "a, \"b\"\nc\r\nd@2;last@5;");
    READS("x.csv", "a,b,c\n1,,3\n\"\",\"x\",\"\"\n", &three, "1||3@2;|x|@3;");
    READS("x.csv", "\"text\",\"id\"\n\"\",2\n", &text, "@2;");
    READS("x.csv", "text,id\na\rb,1\n", &text, "a\rb@2;");
    READS("x.tsv", "id\ttext\n1\ta, b\n2\t\"c\td\"\n", &text, "a, b@2;c\td@3;");
    READS("one.csv", "text\n\nx\n", &text, "@2;x@3;");              /* a column alone may be empty */
    const reader_keys named = { .format = DATA_FORMAT_CSV, .text = "a;b" };
    READS("x.dat", "a;b", &named, "");
}

static void broken_csv_is_refused_with_its_line(void)
{
    static const struct {
        const char *bytes, *says;
    } cases[] = { { "id,text\n1,a\n2\n", "line 3: 1 fields, the header has 2" },
                  { "id,text\n1,\"a\nb\n", "line 2: a field in quotes has no end" },
                  { "id,text\n1,\"a\"b\n", "line 2: text stands behind the quote" },
                  { "id,label\n1,2\n", "its header has no column 'text'; it has: id, label" },
                  { "", "is empty" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gt_text got = { 0 };
        char *path = file_of("broken.csv", cases[i].bytes, strlen(cases[i].bytes));
        CHECK_FAILS(read_all(&got, path, &(reader_keys){ 0 }), GT_FORMAT, cases[i].says);
        CHECK(strstr(gt_message(), "broken.csv") != NULL);
        gt_text_release(&got);
        free(path);
    }
}

static void jsonl_is_read_with_its_escapes_and_keys(void)
{
    const reader_keys text = { 0 }, label = { .text = "a.b", .pair = "p", .label = "y" };
    READS("x.jsonl", "{\"text\": \"one\"}\n\n{\"x\": 1, \"text\": \"t\\u00e9\\n\\ud83d\\ude00\"}", &text,
          "one@1;t\xc3\xa9\n\xf0\x9f\x98\x80@3;");
    const reader_keys nested = { .text = "a.b" };
    READS("x.jsonl", "{\"a\": {\"b\": [{\"role\": \"user\", \"content\": \"x\"}]}}\n", &nested, "1 messages@1;");
    READS("x.jsonl", "{\"n\": 123456789012345678901234567890, \"text\": \"big\"}\n", &text, "big@1;");
    READS("x.jsonl", "\xef\xbb\xbf{\"text\": \"a\"}\r\n{\"text\": \"\"}\r\n", &text, "a@1;@2;");
    READS("x.jsonl", "{\"a\": {\"b\": \"t\"}, \"p\": \"q\", \"y\": 3}\n{\"a.b\": \"u\", \"p\": \"\", \"y\": true}\n",
          &label, "t|q|3@1;u||true@2;");
    READS("x.ndjson", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n", &text, "1 messages@1;");
    READS("x.jsonl",
          "{\"conversations\": [{\"from\": \"human\", \"value\": \"x\"}, {\"from\": \"gpt\", \"value\": \"y\"}]}\n",
          &text, "2 messages@1;");
}

static void broken_jsonl_is_refused_with_its_line(void)
{
    static const struct {
        const char *bytes, *says;
    } cases[] = {
        { "{\"text\": \"a\"}\n{\"text\": 1}\n", "line 2: there is no text at the key 'text'; keys here are: text" },
        { "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "line 2: there is no text at the key 'text'; keys here are: txt" },
        { "{\"body\": \"a\"}\n", "keys here are: body; name the right one with --text-key" },
        { "{\"text\": \"a\n", "line 1:" },
        { "{\"text\": \"\\ud83d\"}\n", "line 1:" },
        { "{\"text\": \"\xff\"}\n", "line 1:" },
        { "[{\"text\": \"a\"}]\n", "line 1: an array, not an object; JSONL has an object a line, as `jq -c '.[]'`" },
        { "[\n{\"text\": \"a\"}]\n", "as `jq -c '.[]'` writes an array" },
        { "{\"text\": \"a\"} {\"text\": \"b\"}\n", "line 1:" },
        { "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n{\"messages\": []}\n",
          "line 2: it has no list of messages" },
        { "{\"conversations\": [{\"from\": \"me\", \"value\": \"x\"}]}\n", "line 1: its message 1 is from 'me'" }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gt_text got = { 0 };
        char *path = file_of("broken.jsonl", cases[i].bytes, strlen(cases[i].bytes));
        const gt_status st = read_all(&got, path, &(reader_keys){ 0 });
        CHECKF(st == GT_FORMAT && strstr(gt_message(), cases[i].says) && strstr(gt_message(), "broken.jsonl"),
               "case %d: %s", (int)i, gt_message());
        gt_message_clear();
        gt_text_release(&got);
        free(path);
    }
}

static void packed_files_are_read_and_cut_ones_refused(void)
{
    gt_text got = { 0 }, bytes = { 0 };
    char *path = path_of("packed.jsonl.gz"), *whole = NULL;
    size_t size = 0;
    for (int i = 0; i < 20000; i++)
        gt_text_printf(&bytes, "{\"text\": \"record %d\"}\n", i * 7919);
    gzFile z = gzopen(path, "wb");
    CHECK(z && gzwrite(z, bytes.data, (unsigned)bytes.size) == (int)bytes.size && gzclose(z) == Z_OK);
    CHECK_OK(read_all(&got, path, &(reader_keys){ 0 }));
    CHECK(got.data && strstr(got.data, "record 158372081@20000;") != NULL);
    CHECK_OK(gt_file_read(&whole, &size, path, 1 << 24));
    free(path);
    path = file_of("packed.jsonl.gz", whole, size * 2 / 3);
    CHECK_FAILS(read_all(&got, path, &(reader_keys){ 0 }), GT_FORMAT,
                ".jsonl.gz': unexpected end of file; it is damaged or not whole");
    free(path);
    path = file_of("x.parquet", "PAR1\x15\4\x15", 7);
    CHECK_FAILS(read_all(&got, path, &(reader_keys){ 0 }), GT_FORMAT, "a Parquet file; write it as JSONL");
    free(path);
    free(whole);
    gt_text_release(&got);
    gt_text_release(&bytes);
}

static void lists_of_data_are_taken_apart(void)
{
    static const char *const names[] = { "l/a.txt",  "l/b,c.txt",     "l/d:1",        "l/x1.csv",
                                         "l/x2.csv", "l/f/one.jsonl", "l/f/val.jsonl" };
    char *folder = fresh("l"), *sub = gt_path_join(folder, "f"), list[4096];
    data_sources s;
    CHECK_OK(gt_folder_make(sub));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        free(file_of(names[i], "text\n", 5));
    const char *l = folder;
    snprintf(list, sizeof list, "%s/a.txt:0.7,%s/b,c.txt:3e-1", l, l);
    if (CHECK_OK(data_sources_read(&s, list))) {
        CHECK(s.count == 2 && s.mixed && s.list[0].weight == 0.7 && s.list[1].weight == 0.3);
        CHECK(strstr(s.list[1].name, "b,c.txt") != NULL && s.list[1].file_count == 1);
        data_sources_release(&s);
    }
    snprintf(list, sizeof list, "%s/d:1,%s/x*.csv", l, l);          /* a name that looks like a weight */
    if (CHECK_OK(data_sources_read(&s, list))) {
        CHECK(s.count == 1 && !s.mixed && s.list[0].file_count == 3 && strstr(s.list[0].files[0], "d:1") != NULL);
        data_sources_release(&s);
    }
    if (CHECK_OK(data_sources_read(&s, sub))) {
        CHECK(s.count == 1 && s.list[0].file_count == 1 && s.list[0].val_count == 1);
        data_sources_release(&s);
    }
    snprintf(list, sizeof list, "%s/a.txt:2,%s/b,c.txt", l, l);
    CHECK_FAILS(data_sources_read(&s, list), GT_MISUSE, "has no weight, and others have one");
    snprintf(list, sizeof list, "%s/a.txt:-1,%s/b,c.txt:1", l, l);
    CHECK_FAILS(data_sources_read(&s, list), GT_MISUSE, "is not above 0");
    snprintf(list, sizeof list, "%s/a.txt,%s/none.txt", l, l);
    CHECK_FAILS(data_sources_read(&s, list), GT_NOT_FOUND, "none.txt': No such file");
    CHECK_FAILS(data_sources_read(&s, "/no/such*"), GT_NOT_FOUND, "/no/such*");
    free(file_of("l/f/test.csv", "x", 1));
    CHECK_FAILS(data_sources_read(&s, sub), GT_MISUSE, "is it to be trained on?");
    free(sub);
    free(folder);
}

const check_case check_cases[] = {
    CASE(csv_is_read_as_rfc_4180_has_it),
    CASE(broken_csv_is_refused_with_its_line),
    CASE(jsonl_is_read_with_its_escapes_and_keys),
    CASE(broken_jsonl_is_refused_with_its_line),
    CASE(packed_files_are_read_and_cut_ones_refused),
    CASE(lists_of_data_are_taken_apart),
    { 0 }
};
