/* SPDX-License-Identifier: MIT */
/* models/hf_private.h - Hugging Face folders: what their files' names mean for a model, shared by import, export and
 * what is kept beside adapters.
 *
 *   hf.c           names and pieces: which of ours is which of theirs
 *   hf_import.c    their files into params, and that nothing in them is left over
 *   hf_export.c    params into their files
 *   hf_saved.c     whole tensors that are kept beside adapters
 *
 * A row is a line of a family's table of tensors (family.h) in one layer; seen as one matrix with a row an output,
 * names on either side are pieces of it, from top to bottom.                             */
#ifndef MODELS_HF_PRIVATE_H
#define MODELS_HF_PRIVATE_H

#include "models/family.h"

#include "host/tensor/safetensors.h"

#include <stdint.h>

enum { HF_NAME = 96, HF_WRAPPER = 64 };

/* A model and the rows of its family. */
typedef struct hf_map {
    model_config base;
    const model_config *asked;      /* as the caller gives it, with its tuning */
    const model_config *c;
    const model_family *family;
    const graph *whole;             /* the model, all of it */
    char wrapper[HF_WRAPPER];       /* what every name of the file begins with besides */
} hf_map;

typedef struct hf_row {
    const model_tensor *t;
    int layer;
} hf_row;

/* A row as one matrix: outputs of all of it, and where those of the pieces begin on both sides; cols each. */
typedef struct hf_matrix {
    int64_t outputs, cols, begin_ours[MODEL_PIECES + 1], begin_theirs[MODEL_PIECES + 1];
    int ours, theirs, rank;
} hf_matrix;

/* Builds the whole model and fills m with it; the caller releases *whole, also after a failure. */
gt_status hf_build_whole(hf_map *m, graph **whole, const model_config *c);

/* What others' tools put in front of every name of the file, into m->wrapper. */
void hf_find_wrapper(hf_map *m, const st_file *f);

/* ---- names --------------------------------------------------------------------------------- */

/* The pattern with the layer in place of its %d. Returns out. */
const char *hf_form(char out[HF_NAME], const char *pattern, int layer);
int hf_matches(const char *pattern, const char *name, int *layer);      /* *layer: 0 where it has none */
int hf_layer_at(const char *name);              /* a number at the beginning; -1: none */
int hf_pieces_of(const char *const names[MODEL_PIECES]);
int hf_find_whole(const hf_map *m, const char *name);                   /* -1: no tensor of the model */
const char *hf_of_today(const hf_map *m, char out[2 * HF_NAME], const char *name);  /* a name of an old file */

/* The row of one of our tensors, and which piece it is. */
gt_status hf_find_row(const hf_map *m, const char *ours, hf_row *out, int *piece);

/* Piece `piece` of a row on their side, without and with the family's prefix. */
void hf_name_piece(char *out, size_t size, const hf_map *m, const hf_row *r, int piece, int prefixed);

int hf_is_tied(const hf_map *m, const model_tensor *t); /* ... in this model, since it is no parameter of its own */
int hf_is_saved(const hf_map *m, const char *ours); /* does it come, or go, with an adapter? */

/* In the file, by the name of today or an old one, with or without the prefix; NULL: not there. */
const st_tensor *hf_find_named(const hf_map *m, const st_file *f, const char *name);

/* Piece i of theirs, or what is tied to it and stands for it. */
const st_tensor *hf_find_tensor(const hf_map *m, const st_file *f, const hf_row *r, int i);

/* ---- pieces and numbers ---------------------------------------------------------------------- */

gt_status hf_measure(const hf_map *m, const hf_row *r, hf_matrix *out);
int hf_is_transposed(const hf_row *r, const hf_matrix *x);
shape hf_shape_theirs(const hf_row *r, const hf_matrix *x, int i, const shape *ours); /* of piece i in a file */

/* One of our tensors, piece `piece` of its row; held: its number in p, -1: it is only looked for. */
gt_status hf_import_one(const hf_map *m, const st_file *f, const hf_row *r, int piece, const graph_param_info *info,
                        params *p, int held, const char *folder);

/* Names a row's tensors (p NULL) or writes their numbers. */
gt_status hf_export_row(const hf_map *m, st_writer *w, params *p, const hf_row *r, const shape *ours, dtype type);

/* Piece i of theirs out of all of the row's numbers, an output a row. */
gt_status hf_write_piece(st_writer *w, const float *all, const hf_row *r, const hf_matrix *x, int i, dtype type);

#endif
