/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_hostlist.c - Slurm's lists, hosts files, interface patterns and port ranges,
 * from any text: what comes out is a name that no shell would mistake for more. */
#include "tests/fuzz/fuzz.h"

#include "net/job/address.h"
#include "net/job/hostlist.h"

#include <stdlib.h>
#include <string.h>

#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("gpu[01-03,7],login"),         SEED("r[1-2]n[1-2],x"), SEED("n[0-99999999],z"), SEED("2(x3),1"),
    SEED("user@nodeA slots=4  # four"), SEED("^lo,docker"),     SEED("30000-30100"),     SEED("a[1-2],b[3]c,d"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void promise_name(const char *name, const char *more)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    for (; *name; name++)
        if (!strchr(plain, *name) && !strchr(more, *name))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t indices[] = { 0, 1, 3, 1000, 99999999, UINT64_MAX };
    char name[32];
    int n;
    uint16_t first, last;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        if (!net_hostlist_get(name, sizeof name, text, indices[i])) {
            if (!*name)
                abort();
            promise_name(name, "");
        }
        if (!net_tasks_get(&n, text, indices[i]) && n < 0)
            abort();
    }
    if (!net_hosts_line(name, sizeof name, &n, text) && n) {
        if (n < 1 || n > 4096 || !*name || *name == '-')
            abort();
        promise_name(name, "@:");
    }
    if (!net_ports_parse(&first, &last, text) && first > last)
        abort();
    net_interface_fits(text, "eth0");
    free(text);
    return 0;
}
