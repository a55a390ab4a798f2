/* SPDX-License-Identifier: MIT */
/* host/tensor/safetensors.h - tensors in files, as Hugging Face's safetensors stores them.
 *
 *   u64        N, the bytes of the header, at most 100,000,000
 *   N bytes    JSON, {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
 *              "__metadata__": {"key": "text"}}, padded with spaces
 *   the rest   the data; offsets count from here, little-endian, row-major
 *
 * Source: github.com/huggingface/safetensors, "Format". The data must be covered exactly:
 * no holes, no overlaps, nothing behind the last tensor. All of that is checked at opening,
 * before anything points into the file; then a tensor is a pointer into the mapping.
 *
 * Reading accepts a file, a `model.safetensors.index.json` that names several, or a folder
 * that holds either; `model.safetensors` is read, with a warning, where both are there.
 *
 * Errors     one sentence with the file and the tensor. GT_FORMAT: the file is wrong;
 *            GT_UNSUPPORTED: right, but of a dtype or rank that dtype.h does not know.
 * Ownership  st_close() and st_writer_abandon() take NULL. Names and data live as long as
 *            the file is open.
 * Threads    an open file is read-only and may be read anywhere.                       */
#ifndef GT_TENSOR_SAFETENSORS_H
#define GT_TENSOR_SAFETENSORS_H

#include "host/base/status.h"
#include "host/tensor/dtype.h"

typedef struct st_tensor {
    const char *name;
    dtype type;
    shape dims;
    const void *data;           /* not aligned beyond what the file's header gives */
    size_t bytes;
} st_tensor;

typedef struct st_file st_file;

gt_status st_open(st_file **out, const char *path);
void st_close(st_file *f);

size_t st_count(const st_file *f);
const st_tensor *st_at(const st_file *f, size_t i);             /* i < st_count(), by name */
const st_tensor *st_find(const st_file *f, const char *name);   /* NULL if it is not there */
/* A string of "__metadata__" (of the first file that has it), or NULL. */
const char *st_metadata(const st_file *f, const char *key);

/* Checks a whole file in memory without opening it; `name` is for the sentence. */
gt_status st_check(const void *data, size_t size, const char *name);

/* Writing: declare every tensor, then begin, then put the data of each in the order of
 * declaration, in pieces of any size. The file appears whole at commit.
 *
 *   st_writer_open(&w, path);
 *   st_writer_metadata(w, "format", "pt");
 *   st_writer_add(w, "a", DTYPE_F32, &dims);        for each tensor
 *   st_writer_begin(w);
 *   st_writer_put(w, data, bytes);                  all of them, in order
 *   st_writer_commit(w);                                                               */
typedef struct st_writer st_writer;

gt_status st_writer_open(st_writer **out, const char *path);
gt_status st_writer_metadata(st_writer *w, const char *key, const char *text);
/* GT_MISUSE if the name is taken or is "__metadata__". */
gt_status st_writer_add(st_writer *w, const char *name, dtype t, const shape *dims);
gt_status st_writer_begin(st_writer *w);
/* GT_MISUSE if it is more than was declared. */
gt_status st_writer_put(st_writer *w, const void *data, size_t bytes);
/* Both free w. commit: GT_MISUSE if less was put than declared. */
gt_status st_writer_commit(st_writer *w);
void st_writer_abandon(st_writer *w);

/* XXH3-64 of all bytes written so far, header included: for manifests. */
uint64_t st_writer_hash(const st_writer *w);

#endif
