/* SPDX-License-Identifier: MIT */
/* host/cli/verb_bench.c - which measurement? Its name may stand anywhere among the options. */
#include "host/cli/bench.h"
#include "host/cli/cli.h"

#include <string.h>

static const struct {
    const char *name;
    gt_status (*run)(int argc, char **argv);
} kinds[] = { { "gemm", bench_device },           { "kernels", bench_device },
              { "step", bench_device },           { "generate", bench_device },
              { "attention", bench_attention },   { "link", bench_link },
              { "allreduce", bench_collective },  { "reduce-scatter", bench_collective },
              { "all-gather", bench_collective }, { "broadcast", bench_collective } };
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *bench_kind(int i)
{
    return i < KINDS ? kinds[i].name : NULL;
}

gt_status verb_bench(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        for (int n = 0; n < KINDS; n++)
            if (!strcmp(argv[i], kinds[n].name) && kinds[n].run != bench_device)
                return kinds[n].run(argc, argv);
    return bench_device(argc, argv);
}
