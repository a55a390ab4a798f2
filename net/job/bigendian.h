/* SPDX-License-Identifier: MIT */
/* net/job/bigendian.h - numbers on the wire: big-endian, at any address. */
#ifndef NET_JOB_BIGENDIAN_H
#define NET_JOB_BIGENDIAN_H

#include <stdint.h>

static inline void net_put16(unsigned char *p, uint16_t v)
{
    p[0] = (unsigned char)(v >> 8);
    p[1] = (unsigned char)v;
}

static inline void net_put32(unsigned char *p, uint32_t v)
{
    net_put16(p, (uint16_t)(v >> 16));
    net_put16(p + 2, (uint16_t)v);
}

static inline void net_put64(unsigned char *p, uint64_t v)
{
    net_put32(p, (uint32_t)(v >> 32));
    net_put32(p + 4, (uint32_t)v);
}

static inline uint16_t net_get16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t net_get32(const unsigned char *p)
{
    return (uint32_t)net_get16(p) << 16 | net_get16(p + 2);
}

static inline uint64_t net_get64(const unsigned char *p)
{
    return (uint64_t)net_get32(p) << 32 | net_get32(p + 4);
}

#endif
