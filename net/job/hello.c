/* SPDX-License-Identifier: MIT */
/* net/job/hello.c - hellos as bytes, and the proofs over them. No sockets, no clock, no state:
 * these functions meet the bytes of strangers, and tests/fuzz/fuzz_hello.c feeds them any. */
#include "net/job/hello.h"

#include "net/job/bigendian.h"

#include <string.h>

static const unsigned char magic[8] = "GEARTRN\n";

uint8_t net_hello_order(void)
{
    const uint16_t probe = 1;
    unsigned char first;
    memcpy(&first, &probe, 1);
    return first ? 'l' : 'b';
}

void net_hello_init(net_hello *out, net_role role, int rank, int size, int peer, uint64_t config)
{
    memset(out, 0, sizeof *out);
    out->protocol = NET_PROTOCOL;
    out->role = (uint8_t)role;
    out->order = net_hello_order();
    out->rank = (uint32_t)rank;
    out->size = (uint32_t)size;
    out->peer = (uint32_t)peer;
    out->config = config;
    strncpy(out->version, GT_VERSION, NET_VERSION - 1);
}

void net_hello_format(unsigned char out[NET_HELLO], const net_hello *h)
{
    memcpy(out, magic, sizeof magic);
    net_put16(out + 8, h->protocol);
    out[10] = h->role;
    out[11] = h->order;
    net_put32(out + 12, h->rank);
    net_put32(out + 16, h->size);
    net_put32(out + 20, h->peer);
    net_put64(out + 24, h->config);
    memcpy(out + 32, h->version, NET_VERSION);
    memcpy(out + 64, h->nonce, NET_NONCE);
}

/* Printable, ended by a zero, and nothing but zeros behind it. */
static int is_version(const char text[NET_VERSION])
{
    int i = 0;
    while (i < NET_VERSION && text[i] > ' ' && text[i] < 127)
        i++;
    if (i == 0 || i == NET_VERSION)
        return 0;
    while (i < NET_VERSION)
        if (text[i++])
            return 0;
    return 1;
}

gt_status net_hello_parse(net_hello *out, const unsigned char bytes[NET_HELLO])
{
    net_hello h;
    if (memcmp(bytes, magic, sizeof magic))
        return gt_fail(GT_FORMAT, "it does not speak Geartrain's protocol");
    h.protocol = net_get16(bytes + 8);
    h.role = bytes[10];
    h.order = bytes[11];
    h.rank = net_get32(bytes + 12);
    h.size = net_get32(bytes + 16);
    h.peer = net_get32(bytes + 20);
    h.config = net_get64(bytes + 24);
    memcpy(h.version, bytes + 32, NET_VERSION);
    memcpy(h.nonce, bytes + 64, NET_NONCE);
    if (h.role < NET_ROLE_CONTROL || h.role > NET_ROLE_WORDS)
        return gt_fail(GT_FORMAT, "its hello names role %d, which there is not", h.role);
    if (h.order != 'l' && h.order != 'b')
        return gt_fail(GT_FORMAT, "its hello names byte order %d, which there is not", h.order);
    if (h.size < 1 || h.size > NET_WORLD || h.rank >= h.size || h.peer >= NET_WORLD || h.rank == h.peer)
        return gt_fail(GT_FORMAT, "its hello is of rank %u to rank %u of %u", (unsigned)h.rank, (unsigned)h.peer,
                       (unsigned)h.size);
    if (!is_version(h.version))
        return gt_fail(GT_FORMAT, "its hello holds no version");
    *out = h;
    return GT_OK;
}

void net_hello_proof(unsigned char mac[NET_MAC], const unsigned char key[NET_SECRET], int accepts,
                     const unsigned char connects_bytes[NET_HELLO], const unsigned char accepts_bytes[NET_HELLO])
{
    const net_span both[] = { { connects_bytes, NET_HELLO }, { accepts_bytes, NET_HELLO } };
    net_secret_mac(mac, key, accepts ? "geartrain accepts" : "geartrain connects", both, 2);
}

void net_hello_session(unsigned char key[NET_SECRET], const unsigned char job_key[NET_SECRET], int from_connects,
                       const unsigned char connects_bytes[NET_HELLO], const unsigned char accepts_bytes[NET_HELLO])
{
    const net_span both[] = { { connects_bytes, NET_HELLO }, { accepts_bytes, NET_HELLO } };
    net_secret_mac(key, job_key, from_connects ? "geartrain session, connects" : "geartrain session, accepts", both, 2);
}

static const char *order_name(uint8_t order)
{
    return order == 'l' ? "little" : "big";
}

gt_status net_hello_compare(const net_hello *ours, const char *our_name, const net_hello *theirs,
                            const char *their_name)
{
    if (theirs->protocol != ours->protocol || strcmp(theirs->version, ours->version))
        return gt_fail(GT_MISMATCH,
                       "%s runs geartrain %s (protocol %d) and %s runs %s (protocol %d); "
                       "install the same version everywhere",
                       their_name, theirs->version, theirs->protocol, our_name, ours->version, ours->protocol);
    if (theirs->order != ours->order)
        return gt_fail(GT_MISMATCH,
                       "%s is a %s-endian machine and %s a %s-endian one; one job must "
                       "be of one kind",
                       their_name, order_name(theirs->order), our_name, order_name(ours->order));
    if (theirs->size != ours->size)
        return gt_fail(GT_MISMATCH,
                       "%s was started as one of %u ranks and %s as one of %u; give all "
                       "the same number",
                       their_name, (unsigned)theirs->size, our_name, (unsigned)ours->size);
    return GT_OK;
}
