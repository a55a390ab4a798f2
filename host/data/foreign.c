/* SPDX-License-Identifier: MIT */
/* host/data/foreign.c - the table of beginnings. */
#include "host/data/foreign.h"

#include <string.h>

#define UNPACK "unpack it first"
#define TO_JSONL "write it as JSONL, as pandas' read_parquet(FILE).to_json(OUT, orient='records', lines=True) does"
#define NO_TOKENS "give it text, or shards of token ids"

static const struct {
    size_t at, size;
    const char *begins, *what, *instead;
    int text_only;                      /* a row of ids may well begin so */
} rows[] = {
    { 0, 6, "\x93NUMPY", "a NumPy .npy file", "write its ids alone, as ids.astype('uint16').tofile('train.bin') does",
      0 },
    { 0, 4, "\x28\xb5\x2f\xfd", "a zstd file", UNPACK, 0 },
    { 0, 6,
      "\xfd"
      "7zXZ\0",
      "an xz file", UNPACK, 0 },
    { 0, 4, "\x04\x22\x4d\x18", "an lz4 file", UNPACK, 0 },
    { 4, 6, "1AY&SY", "a bzip2 file", UNPACK, 0 },
    { 0, 6, "7z\xbc\xaf\x27\x1c", "a 7z file", UNPACK, 0 },
    { 0, 4, "PK\3\4", "a zip file (.npz and PyTorch's .pt are such)", UNPACK, 0 },
    { 257, 5, "ustar", "a tar archive", UNPACK, 0 },
    { 0, 4, "PAR1", "a Parquet file", TO_JSONL, 0 },
    { 0, 6, "ARROW1", "an Arrow file", TO_JSONL, 0 },
    { 0, 8, "\x89HDF\r\n\x1a\n", "an HDF5 file", "write its ids or its text alone", 0 },
    { 0, 16, "SQLite format 3\0", "an SQLite database", "write its text alone", 0 },
    { 0, 5, "%PDF-", "a PDF file", "convert it to text, as pdftotext does", 0 },
    { 0, 4, "GGUF", "a GGUF model", NO_TOKENS, 0 },
    { 0, 9, "MMIDIDX\0\0", "the index of a Megatron data set", "give the .bin beside it", 0 },
    { 0, 34, "version https://git-lfs.github.com", "a git-lfs pointer, not the file itself",
      "fetch it with `git lfs pull`", 0 },
    { 0, 2, "\xff\xfe", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`", 1 },
    { 0, 2, "\xfe\xff", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`", 1 },
};

/* llm.c's files begin with such a number, little-endian. */
static const struct {
    int32_t magic;
    const char *what;
} others_of_llmc[] = {
    { 20240326, "a model of llm.c" },          { 20240327, "a debugging state of llm.c" },
    { 20240328, "a tokenizer of llm.c" },      { 20240522, "an evaluation set of llm.c (multiple choice)" },
    { 20240527, "a training state of llm.c" }, { 20240803, "a Llama 3 model of llm.c" },
};

static const char *other_of_llmc(const gt_map *f)
{
    int32_t magic;
    if (f->size < sizeof magic)
        return NULL;
    memcpy(&magic, f->data, sizeof magic);
    for (size_t i = 0; i < sizeof others_of_llmc / sizeof *others_of_llmc; i++)
        if (magic == others_of_llmc[i].magic)
            return others_of_llmc[i].what;
    return NULL;
}

/* Its two magic bytes are an id that a text may hold: so the method, flags and system as well
 * (RFC 1952). */
int data_is_packed(const gt_map *f)
{
    const unsigned char *p = f->data;
    return f->size > 18 && p[0] == 0x1f && p[1] == 0x8b && p[2] == 8 && p[3] < 32
           && (p[8] == 0 || p[8] == 2 || p[8] == 4) && (p[9] <= 13 || p[9] == 255);
}

/* A length, then that many bytes of JSON. */
static int is_safetensors(const gt_map *f)
{
    uint64_t n;
    if (f->size < 10)
        return 0;
    memcpy(&n, f->data, sizeof n);
    return n >= 2 && n <= f->size - 8 && f->data[8] == '{' && (f->data[9] == '"' || f->data[9] == '}');
}

/* Zero bytes are in no text to speak of, and in any row of ids. */
static int has_zeros(const gt_map *f)
{
    const size_t n = f->size < 65536 ? f->size : 65536;
    size_t zeros = 0;
    for (size_t i = 0; i < n; i++)
        zeros += !f->data[i];
    return 100 * zeros > n;
}

static gt_status refuse(const gt_map *f, data_reading how, const char *what, const char *instead)
{
    return gt_fail(GT_FORMAT, "cannot read '%s' as %s: it is %s; %s", f->path, how == DATA_AS_TEXT ? "text" : "tokens",
                   what, instead);
}

gt_status data_foreign_check(const gt_map *file, data_reading how)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if ((how == DATA_AS_TEXT || !rows[i].text_only) && file->size >= rows[i].at + rows[i].size
            && !memcmp(file->data + rows[i].at, rows[i].begins, rows[i].size))
            return refuse(file, how, rows[i].what, rows[i].instead);
    const char *of_llmc = other_of_llmc(file);
    if (of_llmc)
        return refuse(file, how, of_llmc, "--data takes llm.c's token shards");
    if (data_is_packed(file))
        return refuse(file, how, "a gzip file", UNPACK);
    if (how == DATA_AS_TEXT && !is_safetensors(file) && has_zeros(file))
        return refuse(file, how, "no text, it holds zero bytes", "a file of token ids has to be named *.bin");
    return is_safetensors(file) ? refuse(file, how, "a safetensors file", NO_TOKENS) : GT_OK;
}

gt_status data_foreign_check_text(const char *path)
{
    gt_map map;
    gt_status st = gt_map_open(&map, path);
    if (st)
        return st;
    st = data_foreign_check(&map, DATA_AS_TEXT);
    gt_map_close(&map);
    return st;
}
