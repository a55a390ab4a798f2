/* host/train/checkpoint.h - everything a step depends on, on disk, whole or absent.
 *
 *   RUN/checkpoints/step-000200/
 *       params.safetensors       fp32 masters, named and shaped as the graph names them
 *       optimizer.safetensors    first.NAME, second.NAME, scalars (fp32[16], kernel.h)
 *       manifest.json            step, seed, samples; size and XXH3-64 of the two files
 *
 * Written into `.partial-step-...`, every file fsynced, then renamed: a folder named step-*
 * is complete. Loading checks sizes and hashes; the newest whole checkpoint wins, a damaged
 * one is passed over with a warning. Names, not places, identify tensors, so a checkpoint
 * loads under any plan.                                                                 */
#ifndef GT_TRAIN_CHECKPOINT_H
#define GT_TRAIN_CHECKPOINT_H

#include "host/graph/params.h"
#include "host/optim/optim.h"

#include <stdint.h>

typedef struct checkpoint_info {
    uint64_t step;                  /* updates done            */
    uint64_t seed, tokens;          /* tokens trained on       */
} checkpoint_info;

/* `o` may be NULL: parameters only. *bytes (may be NULL) is what was written. */
gt_status checkpoint_save(const char *run, const checkpoint_info *info, params *p, optim *o,
                          uint64_t *bytes);
/* Finds the newest whole checkpoint of a run, or takes a step-* folder itself; *path is
 * freed with free(). GT_NOT_FOUND if there is none. */
gt_status checkpoint_find(char **path, checkpoint_info *info, const char *run);
/* Fills p, and o if it is not NULL. GT_MISMATCH if tensors differ from the model's. The
 * caller refreshes 16-bit copies. */
gt_status checkpoint_load(const char *path, params *p, optim *o);
/* Removes unfinished folders that a killed run left, and of the checkpoints up to step
 * `newest` all but the newest `keep` (0 keeps all). Later ones are damaged, or the run would
 * have gone on from them: they neither count nor go. */
gt_status checkpoint_prune(const char *run, int keep, uint64_t newest);

#endif
