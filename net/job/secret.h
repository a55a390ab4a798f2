/* SPDX-License-Identifier: MIT */
/* net/job/secret.h - the job's secret, and what is proven with it.
 *
 *   secret ── job's name ──► key ──┬─► proofs of a hello          (hello.h)
 *                                  └─► session keys, one a direction, for control messages
 *
 * HMAC-SHA256 throughout (RFC 2104), by libsodium. Keys never travel.                    */
#ifndef NET_JOB_SECRET_H
#define NET_JOB_SECRET_H

#include "net/job/identity.h"

#include <stddef.h>

enum { NET_MAC = 32 };

/* One part of what is authenticated; parts are simply one behind the other, so give them
 * fixed sizes. */
typedef struct net_span {
    const void *data;
    size_t size;
} net_span;

/* mac = HMAC-SHA256(key, label, zero byte, parts...). */
void net_secret_mac(unsigned char mac[NET_MAC], const unsigned char key[NET_SECRET], const char *label,
                    const net_span *parts, int count);
/* 1 if equal, in a time that does not depend on where they differ. */
int net_secret_equal(const unsigned char a[NET_MAC], const unsigned char b[NET_MAC]);

/* The key of `who`'s job. Without a secret it is one that anybody can compute. */
void net_secret_key(unsigned char key[NET_SECRET], const net_identity *who);

void net_secret_random(void *out, size_t size);

/* 64 hexadecimal digits <-> secret. Parsing allows white space around them. */
gt_status net_secret_parse(unsigned char secret[NET_SECRET], const char *text, const char *origin);
void net_secret_format(char out[2 * NET_SECRET + 1], const unsigned char secret[NET_SECRET]);

/* The user's secret file: `path`, or the default one when "". Made with a fresh secret if it
 * is not there; GT_IO if others may read it. */
gt_status net_secret_file(unsigned char secret[NET_SECRET], const char *path);
/* Its path alone, "" if there is no home folder. */
void net_secret_path(char *out, size_t size, const char *path);

#endif
