/* SPDX-License-Identifier: MIT */
/* host/cli/train_agree.h - ranks that were started apart must mean the same training.
 *
 *   rank 0   --steps 100   --lr 0.001   6624 training tokens  ...  n_layer 3
 *   rank 1   --steps 100   --lr 0.002   6624 training tokens  ...  n_layer 3
 *                                └─ the first that differs is named, on every rank
 *
 * mpirun and srun start each rank with a command line, files and a host of its own, where any of
 * them may be another by mistake; the losses of such a run would look like those of a good one. */
#ifndef GT_CLI_TRAIN_AGREE_H
#define GT_CLI_TRAIN_AGREE_H

#include "host/base/options.h"
#include "host/data/tokens.h"
#include "models/model.h"
#include "net/comm/comm.h"

/* All ranks, once everything is known that comes from the command line and from files (--seq, the
 * vocabulary). GT_MISMATCH with the same sentence on every rank, which names the first rank and
 * setting that differ from rank 0's. Paths and devices may differ, what is in the files must not:
 * of tokens the numbers and a checksum are compared (of large files: of pieces spread over them). */
gt_status train_agree(net_comm *c, const gt_option *table, const model_config *model, const token_split *train,
                      const token_split *val);

#endif
