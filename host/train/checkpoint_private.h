/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint_private.h - what saving, finding and loading of checkpoints share. */
#ifndef GT_TRAIN_CHECKPOINT_PRIVATE_H
#define GT_TRAIN_CHECKPOINT_PRIVATE_H

#include "host/tensor/safetensors.h"
#include "host/train/checkpoint.h"

#include <jansson.h>

/* 1: one params.safetensors, one optimizer.safetensors. 2: any number of each, with pieces. 3: frozen tensors
 * are in base.safetensors, as they are stored; written only where there are any. */
enum { CHECKPOINT_FORMAT = 3 };

gt_status checkpoint_no_memory(const char *path);

/* ---- files ----------------------------------------------------------------------------------- */
#define CHECKPOINT_PARAMS "params"      /* whose the parameters' files are */
#define CHECKPOINT_BASE "base"          /* the frozen ones'                */
typedef struct checkpoint_file {
    char name[40];
    uint64_t bytes, hash;
} checkpoint_file;

/* rank -1: the only one. */
void checkpoint_file_name(checkpoint_file *out, const char *owner, int rank);
/* 1 if the name is one that checkpoint_file_name() gives. */
int checkpoint_file_owner(const char *name, char owner[CHECKPOINT_OWNER]);
/* Size and hash of the file as it lies there. */
gt_status checkpoint_file_measure(const char *folder, checkpoint_file *file);

/* *files is freed with free(); nothing but their names is checked. */
gt_status checkpoint_manifest_read(const char *folder, checkpoint_info *info, checkpoint_file **files, int *count);
gt_status checkpoint_manifest_write(const char *folder, const checkpoint_info *info, const checkpoint_file *files,
                                    int count);

/* Metadata of a file whose tensors are its rank's own: other ranks' may differ, and do not add up. */
#define CHECKPOINT_OWN_KEY "own"

/* ---- pieces ---------------------------------------------------------------------------------- */
/* What a file holds of a tensor: of a slice, in the slice's order, elements [begin, end). */
typedef struct checkpoint_piece {
    shape full;                     /* of the whole tensor */
    tensor_slice slice;
    int64_t begin, end;
    dtype type;                     /* of its numbers; DTYPE_Q8: the bytes of host/tensor/q8.h, all of a slice's */
} checkpoint_piece;

checkpoint_piece checkpoint_entry_piece(const checkpoint_entry *e);
int checkpoint_piece_is_whole(const checkpoint_piece *p);
/* As it lies in the file: the slice's shape, or a vector if it is not all of the slice, or of bytes. */
shape checkpoint_piece_shape(const checkpoint_piece *p);
/* The type that the file says. */
dtype checkpoint_piece_type(const checkpoint_piece *p);
/* Notes it in the object that goes into the file as metadata "pieces"; whole ones need no note. */
gt_status checkpoint_piece_note(json_t *notes, const char *name, const checkpoint_piece *p);
/* Of a tensor in a file: GT_MISMATCH or GT_FORMAT if it is no piece of a `full` one. notes may be
 * NULL. `path` is for the sentence. */
gt_status checkpoint_piece_read(checkpoint_piece *out, const json_t *notes, const st_tensor *t, const shape *full,
                                const char *path);

/* ---- frozen tensors (checkpoint_base.c) -------------------------------------------------------- */
/* Of which mine[] says 1 (NULL: all). Nothing is done, and *file has no name, if there are none. They never
 * change, so a file that an earlier checkpoint of the run has of just them is linked into `aside`, and
 * another one written only where there is none, or the file system links no files. */
gt_status checkpoint_base_save(checkpoint_file *file, const char *run, const char *aside, params *p,
                               const unsigned char *mine, int rank);

/* ---- ranks ------------------------------------------------------------------------------------ */
/* All ranks come here, each with how it fared: GT_OK, or a status and its sentence. If all fared
 * well *all (release it) has everyone's data, else all ranks get the first failed rank's status
 * and sentence. Without a comm, or with one rank, this process is all. */
gt_status checkpoint_agree(net_comm *c, const char *what, gt_status fared, const void *data, size_t size,
                           net_blobs *all);

#endif
