/* SPDX-License-Identifier: MIT */
/* tests/train/reshard.c - writes a run's newest checkpoint again, as the ranks of a plan would.
 *
 *   reshard RUN STAGES TENSOR TOKENS
 *
 * TOKENS: of a step of the run, by which the scale of its gradients is kept.
 * Ranks are threads; each holds its stage's share of the run's model, loads, and saves the same
 * step, which takes the place of the one it was loaded from. For tests/cli/reshard.sh.   */
#include "tests/comm/ranks.h"

#include "host/optim/optim.h"
#include "host/train/checkpoint.h"
#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct work {
    const char *run;
    model_config config;
    int stages, tensor, tokens;
} work;

typedef struct share {
    dev_device *device;
    graph *graph;
    kernel_set *kernels;
    params *params;
    optim *optim;
    unsigned char *mine;
} share;

static gt_status open_share(share *s, const work *w, int rank)
{
    const int units = model_units(&w->config), stage = rank / w->tensor;
    const int first = units * stage / w->stages;
    const graph_part part = { .first_unit = first,
                              .units = units * (stage + 1) / w->stages - first,
                              .ranks = w->tensor,
                              .rank = rank % w->tensor };
    const optim_config c = optim_defaults();
    RANK_OK(dev_open(&s->device, getenv("GT_TEST_DEVICE")));
    RANK_OK(graph_create(&s->graph, DTYPE_F32, 1, w->config.context));
    RANK_OK(model_build_part(s->graph, &w->config, &part, 1, 0));
    RANK_OK(params_create(&s->params, s->device, s->graph, 1));
    RANK_OK(kernel_set_create(&s->kernels, s->device, DTYPE_F32));
    RANK_OK(optim_create(&s->optim, s->device, s->kernels, NULL, s->params, &c, (double)w->tokens, NULL));
    s->mine = calloc((size_t)params_count(s->params) + 1, 1);
    RANK_CHECK(s->mine != NULL);
    for (int i = 0; i < params_count(s->params); i++) {     /* the embedding lies on two stages */
        const graph_param_info *p = params_info(s->params, i);
        s->mine[i] = (stage == 0 || strcmp(p->name, "wte.weight")) && (p->slice.parts || rank % w->tensor == 0);
    }
    return GT_OK;
}

static void close_share(share *s)
{
    free(s->mine);
    optim_release(s->optim);
    params_release(s->params);
    kernel_set_release(s->kernels);
    graph_release(s->graph);
    dev_close(s->device);
}

static gt_status write_again(net_comm *c, void *context)
{
    const work *w = context;
    share s = { 0 };
    char *path = NULL;
    checkpoint_info info;
    gt_status st = open_share(&s, w, net_comm_rank(c));
    const checkpoint_ranks ranks = { c, s.mine, NULL };
    if (!st)
        st = checkpoint_find_together(c, &path, &info, w->run);
    if (!st)
        st = checkpoint_load(path, s.params, (checkpoint_state[]){ optim_saved(s.optim) }, 1, NULL);
    if (!st)
        st = checkpoint_save(w->run, &info, s.params, (checkpoint_state[]){ optim_saved(s.optim) }, 1, &ranks, NULL);
    free(path);
    close_share(&s);
    return st;
}

int main(int argc, char **argv)
{
    work w = { .run = argc == 5 ? argv[1] : "" };
    gt_status st = GT_OK;
    if (argc != 5 || (w.stages = atoi(argv[2])) < 1 || (w.tensor = atoi(argv[3])) < 1 || (w.tokens = atoi(argv[4])) < 1)
        st = gt_fail(GT_MISUSE, "usage: reshard RUN STAGES TENSOR TOKENS");
    if (!st)
        st = model_config_load(&w.config, w.run);
    if (!st)
        st = ranks_run(w.stages * w.tensor, "", write_again, &w);
    if (st)
        fprintf(stderr, "reshard: %s\n", gt_message());
    return st == GT_OK ? 0 : st == GT_MISUSE ? 2 : 1;
}
