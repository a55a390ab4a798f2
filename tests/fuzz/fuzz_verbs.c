/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_verbs.c - no bytes of a peer make the readers of a verbs link crash, or give back
 * more than there can be; what is taken says the same when it is written again, and both ends
 * choose the same rails from it.
 *
 * The first byte says which reader: offers of four kinds, a window, the head of a message. */
#include "tests/fuzz/fuzz.h"

#include "net/transport/transport.h"
#include "net/transport/verbs_choice.h"
#include "net/transport/verbs_offer.h"

#include <stdlib.h>
#include <string.h>

/* A port with one GID, and seven that are not set. */
#define UNSET "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define PORT \
    "\2\5\0\1\0\0\0\1\x86\xa0" \
    "\0\0\0\0\0\0\0\0\0\0\xff\xff\12\0\0\1\3\2\x78" UNSET UNSET UNSET UNSET UNSET UNSET UNSET
#define SEED(text) { text, sizeof(text) - 1 }

const fuzz_seed fuzz_seeds[] = {
    SEED("\0GTVB\1\1\0\0\1\1\1\0\0\x20\0" PORT),
    SEED("\0GTVB\1\1\0\0\2\1\4\0\0\x20\0" PORT PORT),
    SEED("\1GTVB\1\2\0\0\1\2\0\x40\0\x80"
         "\0\0\0\x11\0\x12\x34\x56"
         "\0\0\0\x12\0\x12\x34\x57"
         "\1\0\0\1\2\0\0\x7f\0\0\1\0\0"),
    SEED("\2GTVB\1\3\0\0\2\1\1\0\0"),
    SEED("\3GTVB\1\4\0\0\2\1\0\0\0"),
    SEED("\4\1\2\0\7\0\x10\0\0"
         "\0\0\x7f\0\0\0\x10\0"
         "\0\0\0\0\0\1\0\0"
         "\0\0\1\1\0\0\0\2"),
    SEED("\5\1\4\0\7\0\0\0\2abcdef"),
    SEED("\5\3\0\0\0\0\x10\1\1"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void must(int held)
{
    if (!held)
        abort();
}

static void ports(const uint8_t *data, size_t size)
{
    unsigned char again[NET_OFFER];
    net_verbs_ports p, q;
    net_verbs_rail_choice a[NET_VERBS_RAILS], b[NET_VERBS_RAILS];
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    if (net_verbs_ports_read(&p, data, size))
        return;
    must(net_verbs_ports_write(&p, again) == size && !net_verbs_ports_read(&q, again, size)
         && !memcmp(&p, &q, sizeof p));
    const int n = net_verbs_rails_choose(&p, &q, a), m = net_verbs_rails_choose(&p, &q, b);
    must(n == m && n <= NET_VERBS_RAILS && !memcmp(a, b, sizeof a));
    for (int i = 0; i < n; i++) {
        must(a[i].port[0] < p.ports && a[i].port[1] < p.ports && a[i].tries >= 1 && a[i].tries <= NET_VERBS_TRIES);
        for (int k = 0; k < a[i].tries; k++)
            must(a[i].tried[k].gid[0] < p.port[a[i].port[0]].gids && a[i].tried[k].gid[1] < p.port[a[i].port[1]].gids);
    }
}

static void queues(const uint8_t *data, size_t size)
{
    unsigned char again[NET_OFFER];
    net_verbs_queues q;
    if (!net_verbs_queues_read(&q, data, size))
        must(net_verbs_queues_write(&q, again) == size && q.lanes <= NET_VERBS_LANES && q.rails <= NET_VERBS_RAILS);
}

static void window(const uint8_t *data, size_t size)
{
    unsigned char again[NET_DESCRIPTOR];
    net_verbs_window w;
    if (!net_verbs_window_read(&w, data, size))
        must(net_verbs_window_write(&w, again) == size && w.address + w.size >= w.address
             && w.rails <= NET_VERBS_RAILS);
}

static void message(const uint8_t *data, size_t size)
{
    net_verbs_head h;
    if (!net_verbs_head_read(&h, data, size, NET_MESSAGE, 8192))
        must(h.kind == NET_VERBS_IS_NOTICE
             || (h.head <= NET_MESSAGE && NET_VERBS_HEAD + (size_t)h.head + h.body <= size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    net_verbs_verdict v;
    if (!size)
        return 0;
    data++;
    size--;
    switch (data[-1] % 6) {
    case 0: ports(data, size); break;
    case 1: queues(data, size); break;
    case 2: net_verbs_verdict_read(&v, NET_VERBS_SAYS_READY, data, size); break;
    case 3: net_verbs_verdict_read(&v, NET_VERBS_SAYS_PROVEN, data, size); break;
    case 4: window(data, size); break;
    default: message(data, size);
    }
    return 0;
}
