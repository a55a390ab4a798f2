/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_control.c - the body of every control message, from any bytes: the first says
 * which kind and for how many ranks, the rest is the body. */
#include "tests/fuzz/fuzz.h"

#include "net/job/control.h"

#include <stdlib.h>
#include <string.h>

#define SEED(text) { text, sizeof(text) - 1 }

/* kind * 4 + ranks - 1, then a body */
static const char member[1 + NET_MEMBER_BYTES] = "\013\0\0\0\1\0\0\0\1\0\0\0\2\0\0\20\0";
static const char member_list[1 + 2 * NET_MEMBER_BYTES] = "\015\0\0\0\1\377\377\377\377\0\0\0\2";
static const char beat[1 + NET_BEAT_BYTES] = "\031\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\4";

const fuzz_seed fuzz_seeds[] = {
    SEED("\005\0\0\0\0\377\377\377\377\0"),
    SEED("\041\0\0\0\015\0\0\0\1lost rank 1\0"),
    { member, sizeof member },
    { member_list, sizeof member_list },
    { beat, sizeof beat },
    SEED("\021\0\0\0\0\0\0\0\1offers\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0bytes"),
    SEED("\025\0\0\0\0\0\0\0\1offers\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2ab\0\0\0\0"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static void promise(int kept)
{
    if (!kept)
        abort();
}

static void try_head(const uint8_t *body, size_t size, int ranks)
{
    net_head h;
    if (size >= NET_HEAD && !net_head_parse(&h, body, ranks))
        promise(h.type >= NET_VERDICT && h.type < NET_TYPES && h.length <= net_body_limit(h.type, ranks));
}

static void try_member(const uint8_t *body, size_t size, int ranks)
{
    net_member m, back;
    unsigned char again[NET_MEMBER_BYTES];
    if (size < NET_MEMBER_BYTES || net_member_parse(&m, body, ranks))
        return;
    promise(m.rank >= 0 && m.rank < ranks && m.local_rank < ranks && m.local_size <= ranks);
    net_member_format(again, &m);
    promise(!net_member_parse(&back, again, ranks) && back.rank == m.rank && !strcmp(back.host, m.host));
}

static void try_all(const uint8_t *body, size_t size, int ranks)
{
    const unsigned char *at[4];
    size_t length[4];
    if (net_all_parse(at, length, body, size, ranks))
        return;
    for (int i = 0; i < ranks; i++)
        promise(at[i] >= body && length[i] <= size && at[i] + length[i] <= body + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    net_notice n;
    net_beat b;
    uint64_t sequence;
    char what[NET_WHAT];
    if (size < 1)
        return 0;
    const int ranks = data[0] % 4 + 1, kind = data[0] / 4;
    const uint8_t *body = data + 1;
    size--;
    try_head(body, size, ranks);
    switch (kind) {
    case NET_MEMBER:
    case NET_MEMBER_LIST: try_member(body, size, ranks); break;
    case NET_CONTRIBUTION:
        if (!net_contribution_parse(&sequence, what, body, size))
            promise(memchr(what, 0, sizeof what) != NULL);
        break;
    case NET_ALL: try_all(body, size, ranks); break;
    case NET_BEAT:
        if (!net_beat_parse(&b, body, size, ranks))
            promise(b.activity.waits_for >= -1 && b.activity.waits_for < ranks
                    && memchr(b.activity.text, 0, sizeof b.activity.text));
        break;
    default:
        if (!net_notice_parse(&n, body, size, ranks))
            promise(n.culprit >= -1 && n.culprit < ranks && n.code < GT_STATUS_COUNT
                    && memchr(n.sentence, 0, sizeof n.sentence));
    }
    return 0;
}
