/* SPDX-License-Identifier: MIT */
/* net/job/hello.h - how a connection begins: who are you, and do you know the secret?
 *
 *     connects                                   accepts
 *        ── hello C ───────────────────────────────►
 *        ◄─ hello A, proof A = MAC("accepts",  C, A) ──      knows the secret, and this C
 *        ── proof C = MAC("connects", C, A) ───────►         knows the secret, and this A
 *        ◄─ verdict, a control message ────────────          you are in, or why not
 *
 * Both hellos carry 32 random bytes, both ranks, the job's size and the connection's role, so
 * a proof fits only this connection, this way round; the key is the job's own. What differs
 * (version, byte order, configuration) is compared after the proofs: a stranger learns nothing
 * and decides nothing.
 *
 * A hello is NET_HELLO bytes, big-endian:
 *    0  magic "GEARTRN\n"     8  protocol u16   10 role u8   11 byte order 'l' | 'b'
 *   12  rank u32   16 size u32   20 peer u32    24 configuration u64
 *   32  version, 32 bytes, zero-filled          64 nonce, 32 bytes
 * This layout never changes; `protocol` names what follows it. Pure functions, no sockets. */
#ifndef NET_JOB_HELLO_H
#define NET_JOB_HELLO_H

#include "net/job/secret.h"

enum { NET_HELLO = 96, NET_NONCE = 32, NET_VERSION = 32, NET_PROTOCOL = 1, NET_WORLD = 4096 };

typedef enum net_role { NET_ROLE_CONTROL = 1, NET_ROLE_STREAM = 2, NET_ROLE_WORDS = 3 } net_role;

typedef struct net_hello {
    uint16_t protocol;
    uint8_t role;
    uint8_t order;                      /* 'l' or 'b': the speaker's byte order             */
    uint32_t rank, size, peer;          /* the speaker, its job, whom it means to talk to   */
    uint64_t config;                    /* net_config_hash()                                */
    char version[NET_VERSION];
    unsigned char nonce[NET_NONCE];
} net_hello;

/* Fills all but the nonce for this program. */
void net_hello_init(net_hello *out, net_role role, int rank, int size, int peer, uint64_t config);
uint8_t net_hello_order(void);

void net_hello_format(unsigned char out[NET_HELLO], const net_hello *h);
/* GT_FORMAT for anything that no Geartrain says. */
gt_status net_hello_parse(net_hello *out, const unsigned char bytes[NET_HELLO]);

/* The proofs, over the hellos' bytes as they travelled. */
void net_hello_proof(unsigned char mac[NET_MAC], const unsigned char key[NET_SECRET], int accepts,
                     const unsigned char connects_bytes[NET_HELLO], const unsigned char accepts_bytes[NET_HELLO]);
/* Keys of control messages, one a direction; `from_connects` 1: those of the connecting end. */
void net_hello_session(unsigned char key[NET_SECRET], const unsigned char job_key[NET_SECRET], int from_connects,
                       const unsigned char connects_bytes[NET_HELLO], const unsigned char accepts_bytes[NET_HELLO]);

/* What keeps two ranks, proven members of the job, from working together: GT_MISMATCH with a
 * sentence that names both, by these names. */
gt_status net_hello_compare(const net_hello *ours, const char *our_name, const net_hello *theirs,
                            const char *their_name);

#endif
