/* SPDX-License-Identifier: MIT */
/* net/job/control.c - control messages as bytes. No sockets, no clock, no state; fed with any
 * bytes by tests/fuzz/fuzz_control.c. Texts travel zero-filled to a fixed size, and a parser
 * takes only those that end inside it.                                                   */
#include "net/job/control.h"

#include "net/job/bigendian.h"

#include <string.h>

uint64_t net_body_limit(net_type type, int size)
{
    switch (type) {
    case NET_VERDICT:
    case NET_ASK:
    case NET_ABORT:
    case NET_LEAVE:
    case NET_LEFT: return 8 + NET_SENTENCE;
    case NET_MEMBER: return NET_MEMBER_BYTES + NET_SHARED;
    case NET_MEMBER_LIST: return (uint64_t)size * NET_MEMBER_BYTES;
    case NET_CONTRIBUTION: return NET_CONTRIBUTION_HEAD + NET_BLOB;
    case NET_ALL: return NET_CONTRIBUTION_HEAD + (uint64_t)size * (4 + NET_BLOB);
    case NET_BEAT: return NET_BEAT_BYTES;
    case NET_WORD: return NET_WORD_BYTES;
    case NET_ALL_LEFT:
    case NET_TYPES: break;
    }
    return 0;
}

void net_head_format(unsigned char out[NET_HEAD], const net_head *h)
{
    memset(out, 0, 4);
    out[0] = (unsigned char)h->type;
    net_put32(out + 4, h->length);
    net_put64(out + 8, h->counter);
}

gt_status net_head_parse(net_head *out, const unsigned char bytes[NET_HEAD], int size)
{
    if (bytes[0] < NET_VERDICT || bytes[0] >= NET_TYPES || bytes[1] || bytes[2] || bytes[3])
        return gt_fail(GT_FORMAT, "a control message of kind %d came, which there is not", bytes[0]);
    out->type = (net_type)bytes[0];
    out->length = net_get32(bytes + 4);
    out->counter = net_get64(bytes + 8);
    if (out->length > net_body_limit(out->type, size))
        return gt_fail(GT_FORMAT, "a control message of kind %d claims %u bytes", bytes[0], (unsigned)out->length);
    return GT_OK;
}

/* ---- texts --------------------------------------------------------------------------------- */

static void put_text(unsigned char *out, size_t size, const char *text)
{
    const size_t n = strnlen(text, size - 1);
    memcpy(out, text, n);
    memset(out + n, 0, size - n);
}

/* 1 if a zero ends it; what no screen should be sent becomes '?'. */
static int get_text(char *out, size_t size, const unsigned char *bytes)
{
    if (!memchr(bytes, 0, size))
        return 0;
    memcpy(out, bytes, size);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    return 1;
}

static int is_rank(uint32_t v, int size)
{
    return v < (uint32_t)size || v == UINT32_MAX;
}

/* ---- bodies -------------------------------------------------------------------------------- */

size_t net_notice_format(unsigned char out[8 + NET_SENTENCE], const net_notice *n)
{
    const size_t length = strnlen(n->sentence, NET_SENTENCE - 1) + 1;
    net_put32(out, (uint32_t)n->code);
    net_put32(out + 4, (uint32_t)n->culprit);
    put_text(out + 8, length, n->sentence);
    return 8 + length;
}

gt_status net_notice_parse(net_notice *out, const unsigned char *body, size_t length, int size)
{
    if (length < 9 || length > 8 + NET_SENTENCE || body[length - 1] || net_get32(body) >= GT_STATUS_COUNT
        || !is_rank(net_get32(body + 4), size))
        return gt_fail(GT_FORMAT, "a notice of %zu bytes makes no sense", length);
    out->code = (gt_status)net_get32(body);
    out->culprit = (int)(int32_t)net_get32(body + 4);
    get_text(out->sentence, length - 8, body + 8);
    return GT_OK;
}

void net_member_format(unsigned char out[NET_MEMBER_BYTES], const net_member *m)
{
    net_put32(out, (uint32_t)m->rank);
    net_put32(out + 4, (uint32_t)m->local_rank);
    net_put32(out + 8, (uint32_t)m->local_size);
    net_put32(out + 12, m->pid);
    net_put32(out + 16, 0);
    net_put64(out + 20, m->host_id);
    net_put16(out + 28, m->port);
    put_text(out + 30, 64, m->host);
    put_text(out + 94, 64, m->address);
    put_text(out + 158, 32, m->version);
}

gt_status net_member_parse(net_member *out, const unsigned char bytes[NET_MEMBER_BYTES], int size)
{
    net_member m;
    const uint32_t rank = net_get32(bytes), local_rank = net_get32(bytes + 4);
    const uint32_t local_size = net_get32(bytes + 8);
    if (rank >= (uint32_t)size || !is_rank(local_rank, size)
        || (local_size > (uint32_t)size && local_size != UINT32_MAX))
        return gt_fail(GT_FORMAT, "a member's ranks make no sense");
    m.rank = (int)rank;
    m.local_rank = (int)(int32_t)local_rank;
    m.local_size = (int)(int32_t)local_size;
    m.pid = net_get32(bytes + 12);
    m.host_id = net_get64(bytes + 20);
    m.port = net_get16(bytes + 28);
    if (!get_text(m.host, 64, bytes + 30) || !get_text(m.address, 64, bytes + 94)
        || !get_text(m.version, 32, bytes + 158))
        return gt_fail(GT_FORMAT, "a member's texts have no end");
    *out = m;
    return GT_OK;
}

void net_beat_format(unsigned char out[NET_BEAT_BYTES], const net_beat *b)
{
    net_put64(out, b->activity.started);
    net_put64(out + 8, b->activity.finished);
    net_put64(out + 16, b->age);
    net_put32(out + 24, (uint32_t)b->activity.waits_for);
    put_text(out + 28, sizeof b->activity.text, b->activity.text);
}

gt_status net_beat_parse(net_beat *out, const unsigned char *body, size_t length, int size)
{
    net_beat b = { .activity.since = 0 };
    if (length != NET_BEAT_BYTES || !is_rank(net_get32(body + 24), size)
        || !get_text(b.activity.text, sizeof b.activity.text, body + 28))
        return gt_fail(GT_FORMAT, "a sign of life of %zu bytes makes no sense", length);
    b.activity.started = net_get64(body);
    b.activity.finished = net_get64(body + 8);
    b.age = net_get64(body + 16);
    b.activity.waits_for = (int32_t)net_get32(body + 24);
    *out = b;
    return GT_OK;
}

void net_contribution_format(unsigned char out[NET_CONTRIBUTION_HEAD], uint64_t sequence, const char *what)
{
    net_put64(out, sequence);
    put_text(out + 8, NET_WHAT, what);
}

gt_status net_contribution_parse(uint64_t *sequence, char what[NET_WHAT], const unsigned char *body, size_t length)
{
    if (length < NET_CONTRIBUTION_HEAD || !get_text(what, NET_WHAT, body + 8))
        return gt_fail(GT_FORMAT, "a share of an exchange of %zu bytes makes no sense", length);
    *sequence = net_get64(body);
    return GT_OK;
}

gt_status net_all_parse(const unsigned char **at, size_t *length, const unsigned char *body, size_t body_length,
                        int size)
{
    size_t used = NET_CONTRIBUTION_HEAD;
    if (body_length < used)
        return gt_fail(GT_FORMAT, "an exchange's result of %zu bytes makes no sense", body_length);
    for (int i = 0; i < size; i++) {
        if (body_length - used < 4 || net_get32(body + used) > NET_BLOB
            || net_get32(body + used) > body_length - used - 4)
            return gt_fail(GT_FORMAT, "an exchange's result ends inside the share of rank %d", i);
        length[i] = net_get32(body + used);
        at[i] = body + used + 4;
        used += 4 + length[i];
    }
    return used == body_length ? GT_OK : gt_fail(GT_FORMAT, "an exchange's result has bytes behind its end");
}
