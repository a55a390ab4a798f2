/* SPDX-License-Identifier: MIT */
/* host/cli/verb_bench.c - which measurement? Its name may stand anywhere among the options. */
#include "host/cli/bench.h"
#include "host/cli/cli.h"

#include <string.h>

static const struct { const char *name; gt_status (*run)(int argc, char **argv); } between_ranks[] = {
    { "link", bench_link }, { "allreduce", bench_collective },
    { "reduce-scatter", bench_collective }, { "all-gather", bench_collective },
    { "broadcast", bench_collective } };

gt_status verb_bench(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        for (size_t n = 0; n < sizeof between_ranks / sizeof *between_ranks; n++)
            if (!strcmp(argv[i], between_ranks[n].name))
                return between_ranks[n].run(argc, argv);
    return bench_device(argc, argv);
}
