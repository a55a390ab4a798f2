/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_netconfig.c - no file of network settings crashes, and what is read can be
 * printed and fits together. */
#include "tests/fuzz/fuzz.h"

#include "host/base/file.h"
#include "net/job/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("# a file\n\ngid-index = 1\r\n  eager=4KiB\nhca = mlx5_9 \nspin = auto\nspin=50ms\n"),
    SEED("shm_ring = 2MiB\nSTALL-LIMIT=1h\nshm-mode=cma\nib-mtu=4096\nheartbeat=10s\ndead-after=20s"),
    SEED("transport = tcp,shm\nalgorithm = ring;allreduce:direct\nmax-message = 0\nport-range=1-2\n"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    net_config *c;
    gt_text text = { 0 };
    snprintf(path, sizeof path, "/tmp/fuzz-netconfig-%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || (size && fwrite(data, 1, size, f) != size) || fclose(f))
        abort();
    setenv("GEARTRAIN_NET_CONFIG", path, 1);
    if (!net_config_read(&c)) {
        if (net_config_check(c) || c->eager > (16u << 20) || (c->shm_ring & (c->shm_ring - 1))
            || c->dead_after < 2 * c->heartbeat || !c->hca || !c->transport)
            abort();
        net_config_print(c, &text);
        net_config_hash(c);
        gt_text_release(&text);
        net_config_release(c);
    }
    unlink(path);
    return 0;
}
