/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_hello.c - no bytes of a stranger make a hello that breaks its promises, and
 * one that is taken is written again as it was. */
#include "tests/fuzz/fuzz.h"

#include "net/job/hello.h"

#include <stdlib.h>
#include <string.h>

static const unsigned char good[NET_HELLO] = "GEARTRN\n\0\1\1l\0\0\0\3\0\0\0\10\0\0\0\0"
                                             "\1\2\3\4\5\6\7\10"
                                             "0.1.0";
static const unsigned char last[NET_HELLO] = "GEARTRN\n\0\1\2b\0\0\17\377\0\0\20\0\0\0\17\376"
                                             "\1\2\3\4\5\6\7\10"
                                             "0123456789012345678901234567890";

const fuzz_seed fuzz_seeds[] = { { good, sizeof good }, { last, sizeof last } };
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char again[NET_HELLO];
    net_hello h;
    if (size < NET_HELLO || net_hello_parse(&h, data))
        return 0;
    if (h.size < 1 || h.size > NET_WORLD || h.rank >= h.size || h.peer >= NET_WORLD || h.rank == h.peer
        || h.role < NET_ROLE_CONTROL || h.role > NET_ROLE_WORDS || !memchr(h.version, 0, sizeof h.version))
        abort();
    net_hello_format(again, &h);
    if (memcmp(again, data, NET_HELLO))
        abort();
    return 0;
}
