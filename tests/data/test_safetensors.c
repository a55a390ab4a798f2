/* SPDX-License-Identifier: MIT */
/* tests/data/test_safetensors.c - files that must open, and files that must not. */
#include "tests/check.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/tensor/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file of this header and `data` zero bytes, at the path given. */
static void write_raw(const char *path, const char *header, size_t data)
{
    uint64_t length = strlen(header);
    static const unsigned char zeros[64];
    gt_writer *w;
    CHECK_OK(gt_writer_open(&w, path));
    CHECK_OK(gt_writer_put(w, &length, sizeof length));
    CHECK_OK(gt_writer_put(w, header, length));
    CHECK_OK(gt_writer_put(w, zeros, data));
    CHECK_OK(gt_writer_commit(w));
}

static char *path_of(const char *name)
{
    return gt_path_join(check_folder(), name);
}

/* Tensors a (2x3 fp32: 0..5), empty (0x4 i64), scalar (bf16). */
static void write_sample(const char *path)
{
    static const float a[6] = { 0, 1, 2, 3, 4, 5 };
    uint16_t one = dtype_bf16_from_f32(1.0f);
    shape two = shape_of(2, (int64_t)2, (int64_t)3), none = shape_of(2, (int64_t)0, (int64_t)4);
    shape scalar = shape_of(0);
    st_writer *w;
    CHECK_OK(st_writer_open(&w, path));
    CHECK_OK(st_writer_metadata(w, "format", "pt"));
    CHECK_OK(st_writer_metadata(w, "note", "caf\xc3\xa9 \"quoted\""));
    CHECK_OK(st_writer_add(w, "a", DTYPE_F32, &two));
    CHECK_OK(st_writer_add(w, "empty", DTYPE_I64, &none));
    CHECK_OK(st_writer_add(w, "scalar", DTYPE_BF16, &scalar));
    CHECK_FAILS(st_writer_add(w, "a", DTYPE_F32, &two), GT_MISUSE, "tensor 'a'");
    CHECK_OK(st_writer_begin(w));
    CHECK_OK(st_writer_put(w, a, 5));
    CHECK_OK(st_writer_put(w, (const char *)a + 5, sizeof a - 5));
    CHECK_OK(st_writer_put(w, &one, sizeof one));
    CHECK_FAILS(st_writer_put(w, &one, 1), GT_MISUSE, "26 are declared");
    CHECK_OK(st_writer_commit(w));
}

static void what_is_written_is_read(void)
{
    char *path = path_of("sample.safetensors");
    st_file *f;
    char text[64];
    write_sample(path);
    if (!CHECK_OK(st_open(&f, path)))
        return;
    CHECK(st_count(f) == 3);
    const st_tensor *a = st_find(f, "a"), *e = st_find(f, "empty"), *s = st_find(f, "scalar");
    CHECK(a && e && s && !st_find(f, "b") && !st_find(f, "__metadata__"));
    CHECK(st_at(f, 0) == a && st_at(f, 2) == s);
    CHECK(!strcmp(shape_format(&a->dims, text, sizeof text), "(2, 3)") && a->bytes == 24);
    CHECK(((const float *)a->data)[5] == 5.0f);
    CHECK((uintptr_t)a->data % 8 == 0);
    CHECK(e->bytes == 0 && e->type == DTYPE_I64 && shape_count(&e->dims) == 0);
    CHECK(s->dims.rank == 0 && dtype_load(s->type, s->data, 0) == 1.0f);
    CHECK(!strcmp(st_metadata(f, "note"), "caf\xc3\xa9 \"quoted\"") && !st_metadata(f, "other"));
    st_close(f);
    free(path);
}

static void an_unfinished_file_is_never_there(void)
{
    char *path = path_of("unfinished");
    shape s = shape_of(1, (int64_t)4);
    st_writer *w;
    CHECK_OK(st_writer_open(&w, path));
    CHECK_OK(st_writer_add(w, "x", DTYPE_F32, &s));
    CHECK_OK(st_writer_begin(w));
    CHECK_FAILS(st_writer_commit(w), GT_MISUSE, "0 bytes were put, 16 declared");
    CHECK(!gt_path_exists(path));
    free(path);
}

#define ONE(name, dtype, dims, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" dims ",\"data_offsets\":[" from "," to "]}"

static void a_wrong_file_is_refused_by_name(void)
{
    static const struct {
        const char *header;
        size_t data;
        gt_status code;
        const char *says;
    } cases[] = {
        { "{" ONE("x", "F32", "[2]", "0", "8") "}", 8, GT_OK, NULL },
        { "{}   ", 0, GT_OK, NULL },
        { "{" ONE("x", "F32", "[2]", "0", "8") "}", 7, GT_FORMAT, "outside the 7 bytes" },
        { "{" ONE("x", "F32", "[2]", "0", "8") "}", 9, GT_FORMAT, "truncated" },
        { "{" ONE("x", "F32", "[2]", "4", "12") "}", 12, GT_FORMAT, "begins at 4" },
        { "{" ONE("x", "F32", "[2]", "8", "0") "}", 8, GT_FORMAT, "tensor 'x' lies at 8 to 0" },
        { "{" ONE("x", "F32", "[2]", "-8", "0") "}", 8, GT_FORMAT, "lies at -8" },
        { "{" ONE("x", "F32", "[3]", "0", "8") "}", 8, GT_FORMAT, "its shape needs 12" },
        { "{" ONE("x", "F32", "[-2]", "0", "8") "}", 8, GT_FORMAT, "no size" },
        { "{" ONE("x", "F32", "[2.0]", "0", "8") "}", 8, GT_FORMAT, "no size" },
        { "{" ONE("x", "F32", "[4294967296,4294967296]", "0", "8") "}", 8, GT_FORMAT, "any memory" },
        { "{" ONE("x", "F32", "[1,1,1,1,1,2]", "0", "8") "}", 8, GT_UNSUPPORTED, "6 dimensions" },
        { "{" ONE("x", "F9", "[2]", "0", "8") "}", 8, GT_UNSUPPORTED, "dtype 'F9'" },
        { "{" ONE("x", "F32", "2", "0", "8") "}", 8, GT_FORMAT, "no shape" },
        { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, GT_FORMAT, "no pair" },
        { "{\"x\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, GT_FORMAT, "no dtype" },
        { "{\"x\":3}", 0, GT_FORMAT, "no dtype" },
        { "{" ONE("x", "U8", "[4]", "0", "4") "," ONE("y", "U8", "[4]", "2", "6") "}", 6, GT_FORMAT,
          "tensor 'y' begins at 2" },
        { "{" ONE("x", "U8", "[4]", "0", "4") "," ONE("y", "U8", "[4]", "6", "10") "}", 10, GT_FORMAT,
          "tensor 'y' begins at 6" },
        { "{" ONE("x", "U8", "[4]", "0", "4") "," ONE("x", "U8", "[4]", "4", "8") "}", 8, GT_FORMAT, "duplicate" },
        { "{\"__metadata__\":{\"k\":1}}", 0, GT_FORMAT, "'k' is not a string" },
        { "{\"__metadata__\":[]}", 0, GT_FORMAT, "not an object" },
        { "[]", 0, GT_FORMAT, "not an object" },
        { "{\"x\"", 0, GT_FORMAT, "header byte" },
    };
    char *path = path_of("wrong.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_file *f;
        write_raw(path, cases[i].header, cases[i].data);
        CHECK_FAILS(st_open(&f, path), cases[i].code, cases[i].says);
        CHECK(cases[i].code == GT_OK || (!f && strstr(gt_message(), "wrong.safetensors")));
        st_close(f);
    }
    free(path);
}

static void deep_nesting_is_refused(void)
{
    enum { DEEP = 100000 };
    char *header = malloc(DEEP + 1), *path = path_of("deep.safetensors");
    st_file *f;
    memset(header, '[', DEEP);
    header[DEEP] = '\0';
    write_raw(path, header, 0);
    CHECK_FAILS(st_open(&f, path), GT_FORMAT, "deep.safetensors");
    free(header);
    free(path);
}

static void a_header_longer_than_its_file_is_refused(void)
{
    char *path = path_of("long.safetensors");
    st_file *f;
    uint64_t length = 100000001;
    CHECK_OK(gt_file_write(path, &length, sizeof length));
    CHECK_FAILS(st_open(&f, path), GT_FORMAT, "more than the 100000000 allowed");
    length = 100;
    CHECK_OK(gt_file_write(path, &length, sizeof length));
    CHECK_FAILS(st_open(&f, path), GT_FORMAT, "should end at byte 108");
    CHECK_OK(gt_file_write(path, "short", 5));
    CHECK_FAILS(st_open(&f, path), GT_FORMAT, "too few");
    CHECK_FAILS(st_open(&f, "/no/such"), GT_NOT_FOUND, "/no/such");
    free(path);
}

static void an_index_opens_all_its_files(void)
{
    char *one = path_of("one.safetensors"), *two = path_of("two.safetensors");
    char *index = path_of("model.safetensors.index.json");
    st_file *f;
    write_raw(one, "{" ONE("x", "U8", "[4]", "0", "4") "}", 4);
    write_raw(two, "{" ONE("y", "U8", "[2]", "0", "2") "}", 2);
    static const struct {
        const char *text;
        gt_status code;
        const char *says;
    } cases[] = {
        { "{\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"two.safetensors\"}}", GT_OK, NULL },
        { "{\"weight_map\":{\"x\":\"one.safetensors\",\"z\":\"two.safetensors\"}}", GT_FORMAT, "'z'" },
        { "{\"weight_map\":{\"x\":\"../one.safetensors\"}}", GT_FORMAT, "no file beside it" },
        { "{\"weight_map\":{\"x\":\"gone.safetensors\"}}", GT_NOT_FOUND, "gone.safetensors" },
        { "{\"weight_map\":{\"x\":7}}", GT_FORMAT, "tensor 'x' is in no file" },
        { "{}", GT_FORMAT, "no weight_map" },
        { "{", GT_FORMAT, "byte" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_OK(gt_file_write(index, cases[i].text, strlen(cases[i].text)));
        CHECK_FAILS(st_open(&f, index), cases[i].code, cases[i].says);
        if (f)
            CHECK(st_count(f) == 2 && st_find(f, "x")->bytes == 4 && st_find(f, "y")->bytes == 2);
        st_close(f);
    }
    CHECK_OK(gt_file_write(index, cases[0].text, strlen(cases[0].text)));
    CHECK_OK(st_open(&f, check_folder()));
    st_close(f);
    write_raw(two, "{" ONE("y", "U8", "[2]", "0", "2") "," ONE("x", "U8", "[1]", "2", "3") "}", 3);
    CHECK_FAILS(st_open(&f, index), GT_FORMAT, "in two of its files");
    free(one);
    free(two);
    free(index);
}

/* As transformers chooses, and never without a word. */
static void one_file_goes_before_an_old_index(void)
{
    static const char index_text[] = "{\"weight_map\":{\"x\":\"old.safetensors\"}}";
    char *folder = path_of("both");
    CHECK_OK(gt_folder_make(folder));
    char *whole = gt_path_join(folder, "model.safetensors"), *old = gt_path_join(folder, "old.safetensors");
    char *index = gt_path_join(folder, "model.safetensors.index.json");
    st_file *f;
    write_raw(old, "{" ONE("x", "U8", "[4]", "0", "4") "}", 4);
    write_raw(whole, "{" ONE("x", "U8", "[2]", "0", "2") "}", 2);
    const unsigned before = gt_log_warnings();
    CHECK_OK(st_open(&f, folder));
    st_close(f);
    CHECK(gt_log_warnings() == before);
    CHECK_OK(gt_file_write(index, index_text, sizeof index_text - 1));
    check_allow_warnings();
    CHECK_OK(st_open(&f, folder));
    CHECK(st_find(f, "x")->bytes == 2);
    CHECK(gt_log_warnings() == before + 1);
    st_close(f);
    free(folder);
    free(whole);
    free(old);
    free(index);
}

static void files_of_other_programs_open(void)
{
    const char *path = check_shared("reference/gpt2_tiny_llmc_ref.safetensors");
    st_file *f;
    if (!path) {
        check_skip("no reference/gpt2_tiny_llmc_ref.safetensors");
        return;
    }
    CHECK_OK(st_open(&f, path));
    const st_tensor *loss = st_find(f, "loss_f64");
    CHECKF(loss && loss->type == DTYPE_F64 && dtype_load(loss->type, loss->data, 0) > 4.1737f
               && dtype_load(loss->type, loss->data, 0) < 4.1738f,
           "of %zu tensors", st_count(f));
    st_close(f);
    CHECK_OK(st_open(&f, check_shared("reference/tiny_gpt2_hf")));
    CHECK(st_count(f) > 10 && st_metadata(f, "format"));
    st_close(f);
}

const check_case check_cases[] = {
    CASE(what_is_written_is_read),
    CASE(an_unfinished_file_is_never_there),
    CASE(a_wrong_file_is_refused_by_name),
    CASE(deep_nesting_is_refused),
    CASE(a_header_longer_than_its_file_is_refused),
    CASE(an_index_opens_all_its_files),
    CASE(one_file_goes_before_an_old_index),
    CASE(files_of_other_programs_open),
    { 0 }
};
