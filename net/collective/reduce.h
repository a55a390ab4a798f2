/* SPDX-License-Identifier: MIT */
/* net/collective/reduce.h - sums over typed host memory.
 *
 * 16-bit types are widened to fp32, added and rounded to nearest even. Written so that
 * compilers vectorise them; no alignment is needed beyond the element's.                */
#ifndef NET_COLLECTIVE_REDUCE_H
#define NET_COLLECTIVE_REDUCE_H

#include "net/collective/collective.h"

/* dst[i] += src[i]; the form a net_sink takes. NULL for an unknown type. */
net_reduce net_reduce_of(net_type type);

/* acc[i] (fp32) += src[i] (type), and dst[i] (type) = acc[i], for sums of many 16-bit parts
 * that are to be rounded once. i32 is not for these (GT asserts). */
void net_widen_add(float *acc, const void *src, size_t count, net_type type);
void net_widen(float *acc, const void *src, size_t count, net_type type);
void net_narrow(void *dst, const float *acc, size_t count, net_type type);

#endif
