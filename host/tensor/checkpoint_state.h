/* SPDX-License-Identifier: MIT */
/* host/tensor/checkpoint_state.h - what a run must keep beside its parameters to go on as it would have.
 *
 *   optimizer   first.NAME second.NAME scalars     optimizer.safetensors, optimizer-00003.safetensors
 *   residuals   residual.NAME                      residuals-00000.safetensors, residuals-00001. ...
 *
 * Whoever keeps such state (its owner) fills one of these structs and hands it to the room that trains;
 * host/train/checkpoint.h writes and loads it and knows neither the owner nor what the numbers
 * mean. The header lies here because owners must not know the rooms above them.
 *
 * State is a list of fp32 tensors, the entries, in an order that stays the same while the owner lives.
 * An entry says of which whole tensor it is a part: as with parameters, a slice, and of that a range of
 * elements. So state is cut anew for another plan just as parameters are: every entry is put together from
 * the pieces of all files, and a rank takes its part. Three forms:
 *
 *   of a parameter    full, slice: those of its graph_param_info; begin, end: what this rank keeps of it
 *   of its rows       full: a vector; slice as the owner says
 *   flat              param -1, full: a vector of any length, alike on all ranks; rank 0 writes it
 *
 * each_rank 0  ranks that hold the same elements hold the same values: one of them, the one told to
 *              (checkpoint_ranks), writes them, and all take them.
 * each_rank 1  each rank has values of its own (what a compressor held back of its gradient), and
 *              their sum is what matters. Each writes its own. Ranks that resume with the pieces they
 *              wrote get those back, bit by bit; under another plan the rank that is told to
 *              write a parameter gets the sum of all, and the others get zeros.
 * CHECKPOINT_OWN  each rank has values of its own that do not add up (the optimizer's state of replicas that
 *              train apart), its flat ones too. Each writes its own. Ranks that resume with the pieces they wrote
 *              get those back, bit by bit; under another plan, and where the owner is no longer of
 *              this form, all get what the lowest rank wrote.
 *
 * Ownership  strings and context are the owner's and outlive the struct.
 * Threads    calls come from the thread that trains, between steps; they may wait for the device.  */
#ifndef GT_TENSOR_CHECKPOINT_STATE_H
#define GT_TENSOR_CHECKPOINT_STATE_H

#include "host/base/status.h"
#include "host/tensor/slice.h"

enum {
    CHECKPOINT_OWNER = 16,              /* bytes of an owner's name, with the 0      */
    CHECKPOINT_STATES = 8,              /* owners of a run, at most                  */
    CHECKPOINT_OWN = 2                  /* of each_rank                              */
};

typedef struct checkpoint_entry {
    char name[128];                     /* in the file: "first.h.0.attn.c_attn.weight"         */
    int param;                          /* the parameter it belongs to (params.h); -1: flat    */
    shape full;
    tensor_slice slice;                 /* of `full`: what this rank holds                     */
    int64_t begin, end;                 /* elements of the slice that are kept here; may be none */
    int leaves;                         /* 1: another rank writes them, though this one writes the parameter */
    int optional;                       /* 1: stays as it was created where no file of the owner's has it */
    int any_value;                      /* 1: NaN and infinity may be in it; else they are refused */
} checkpoint_entry;

typedef struct checkpoint_state {
    const char *owner;                  /* lower-case letters, no "params": names the files    */
    const char *what;                   /* for sentences: "optimizer's state"                  */
    int each_rank;
    int optional;                       /* 1: begins as it was created where a checkpoint has none */
    void *context;
    int (*count)(void *context);
    void (*entry)(void *context, int i, checkpoint_entry *out);
    /* Elements [begin, end) of entry i, to and from the host. */
    gt_status (*read)(void *context, int i, float *to);
    gt_status (*write)(void *context, int i, const float *from);
    /* Before anything is written: are these the tensors of such an owner with the same settings? names:
     * of all that the checkpoint has of it. GT_MISMATCH with a sentence that says what to do. May be
     * NULL: every entry must be there, and more may be. */
    gt_status (*check)(void *context, const char *const *names, int count);
} checkpoint_state;

#endif
