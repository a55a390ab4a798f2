/* SPDX-License-Identifier: MIT */
/* host/train/checkpoint.h - everything a step depends on, on disk, whole or absent.
 *
 *   RUN/checkpoints/step-000200/
 *       params.safetensors       fp32 masters of what is trained, named and shaped as the graph names them
 *       base.safetensors         what is frozen, as it is stored; one file with the run's other checkpoints
 *       OWNER.safetensors        what else the run keeps (host/tensor/checkpoint_state.h):
 *       optimizer.safetensors    SLOT.NAME of each state slot of the rule, scalars (fp32[16], kernel.h)
 *       manifest.json            step, seed, tokens, the position in the data and what those
 *                                were, the best validation; size and XXH3-64 of the other files
 *   RUN/checkpoints/best -> step-000150        where the run keeps its best one: a link to it
 *
 * Several ranks write params-RRRRR, base-RRRRR and OWNER-RRRRR.safetensors, each what it is
 * told to; one that is told nothing writes no file. A file says of every tensor that it does
 * not hold whole which part of it that is, under the key "pieces" of its metadata.
 *
 * Written into `.partial-step-...`, every file fsynced, then renamed: a folder named step-*
 * is complete. Loading checks sizes and hashes; the newest whole checkpoint wins, a damaged
 * one is passed over with a warning. Names, not places, identify tensors, so a checkpoint
 * loads under any plan: pieces from whatever files hold them become the full tensor, of which
 * a rank takes its own slice.
 *
 * The run folder must be on a file system that all ranks share.
 * Errors  where several ranks work together, all get the same status and sentence, which names
 *         the rank that failed.                                                          */
#ifndef GT_TRAIN_CHECKPOINT_H
#define GT_TRAIN_CHECKPOINT_H

#include "host/data/loader.h"
#include "host/graph/params.h"
#include "host/tensor/checkpoint_state.h"
#include "net/comm/comm.h"

#include <stdint.h>

/* Where training stands in which data. */
typedef struct checkpoint_data {
    uint64_t samples;               /* the next sample, as host/data/loader.h numbers them     */
    uint64_t seq;                   /* tokens of a sample; 0: the manifest says nothing of data */
    loader_order order;
    uint64_t tokens, hash;          /* of the training split, token_split_hash()               */
} checkpoint_data;

/* What validations have come to. */
typedef struct checkpoint_best {
    uint64_t step;                  /* of the lowest loss; 0: none was measured                */
    double loss;
    double reference;               /* the last loss that counted as an improvement            */
    uint64_t waited;                /* validations since then                                  */
} checkpoint_best;

typedef struct checkpoint_info {
    uint64_t step;                  /* updates done            */
    uint64_t seed, tokens;          /* tokens trained on       */
    checkpoint_data data;
    checkpoint_best best;
} checkpoint_info;

/* Who writes what. Of every tensor, or every slice of it, exactly one of the ranks that hold it
 * is told to write it. */
typedef struct checkpoint_ranks {
    net_comm *comm;
    const unsigned char *mine;      /* [params_count] 1: this rank writes parameter i */
    /* The same for the state of owners; NULL: as `mine`. Where ranks keep different elements of a
     * tensor's state, each is told to write its own. */
    const unsigned char *mine_state;
} checkpoint_ranks;

/* The parameters and the state of `count` owners (up to CHECKPOINT_STATES). `ranks` NULL: this process
 * writes all; else all ranks call it with the same info and the same owners. *bytes (may be
 * NULL) is what all wrote. */
gt_status checkpoint_save(const char *run, const checkpoint_info *info, params *p, const checkpoint_state *states,
                          int count, const checkpoint_ranks *ranks, uint64_t *bytes);

/* Finds the newest whole checkpoint of a run, or takes a step-* folder itself, or a link to one; *path is
 * freed with free(). GT_NOT_FOUND if there is none, GT_FORMAT if none of those that are there is
 * whole. */
gt_status checkpoint_find(char **path, checkpoint_info *info, const char *run);
/* The same for all ranks of `c` (NULL: alone): rank 0 looks, and the others take its answer. */
gt_status checkpoint_find_together(net_comm *c, char **path, checkpoint_info *info, const char *run);

/* Fills p and the state of the owners from a checkpoint that was found. GT_MISMATCH if a tensor of
 * p is not there, whole, in p's shape; tensors that p lacks are other ranks'. GT_NOT_FOUND if there is
 * nothing of an owner that is not optional. The caller refreshes 16-bit copies. ranks: as
 * checkpoint_save(); all ranks call it together if an owner's state is each rank's own. */
gt_status checkpoint_load(const char *path, params *p, const checkpoint_state *states, int count,
                          const checkpoint_ranks *ranks);
/* The parameters alone, and of them those of which wants() says 1. */
gt_status checkpoint_load_some(const char *path, params *p, int (*wants)(const graph_param_info *info));
/* GT_MISMATCH if it holds parameters that the whole model's graph lacks: it is a larger one's. */
gt_status checkpoint_check_model(const char *path, const graph *whole);

/* Lets RUN/checkpoints/best name the checkpoint of a step, which must be there; step 0: no longer any. */
gt_status checkpoint_mark_best(const char *run, uint64_t step);
/* Is the checkpoint of a step there? */
int checkpoint_is_there(const char *run, uint64_t step);

/* Removes unfinished folders that a killed run left, and of the checkpoints up to step
 * `newest` all but the newest `keep` (0 keeps all) and that of step `best` (0: none). Later ones are damaged, or the run would
 * have gone on from them: they neither count nor go. */
gt_status checkpoint_prune(const char *run, int keep, uint64_t newest, uint64_t best);

#endif
