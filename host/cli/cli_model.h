/* SPDX-License-Identifier: MIT */
/* host/cli/cli_model.h - the model of a source on one device, for verbs that run it forward. */
#ifndef GT_CLI_CLI_MODEL_H
#define GT_CLI_CLI_MODEL_H

#include "host/cli/cli.h"
#include "host/graph/exec.h"

typedef struct cli_model {
    dev_device *device;
    kernel_set *kernels;
    gemm_context *gemm;
    graph *graph;                       /* of what the source's task computes, for B sequences of T tokens */
    params *params;                     /* with the source's weights                                       */
    exec_arena *arena;
} cli_model;

/* device: an id, or NULL. On failure *out holds what was made so far: close it whatever happened. */
gt_status cli_model_open(cli_model *out, cli_source *s, const char *device, dtype storage, int B, int T);
/* For the graph, or others that share parameters and memory with it. */
exec_options cli_model_exec(const cli_model *m);
void cli_model_close(cli_model *m);

#endif
