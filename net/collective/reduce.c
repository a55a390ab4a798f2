/* SPDX-License-Identifier: MIT */
/* net/collective/reduce.c - sums over typed host memory.
 *
 * Every loop is: blocks of BLOCK elements with a constant trip count, then what is left. GCC at
 * -O2 vectorises only loops of the first kind, and trusts `restrict` on parameters alone. Each
 * kernel is compiled for several instruction sets and the right one is picked when the
 * program is loaded, where the platform has that (ifunc); the arithmetic has no fused or
 * reordered step, so all give the same bits.
 * Elements are converted as host/base/half.h does. */
#include "net/collective/reduce.h"
#include "net/collective/reduce_f16c.h"

#include "host/base/half.h"
#include "host/base/multiversion.h"

#include <assert.h>
#include <string.h>

enum { BLOCK = 32 };

/* ---- arrays ----------------------------------------------------------------------------- */

GT_MULTIVERSION static void sum_f32(float *restrict d, const float *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] += s[i + k];
    for (; i < n; i++)
        d[i] += s[i];
}

/* Unsigned: a sum that wraps around is defined, and the same bits as the signed one. */
GT_MULTIVERSION static void sum_i32(uint32_t *restrict d, const uint32_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] += s[i + k];
    for (; i < n; i++)
        d[i] += s[i];
}

GT_MULTIVERSION static void sum_bf16(uint16_t *restrict d, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = gt_to_bf16(gt_from_bf16(d[i + k]) + gt_from_bf16(s[i + k]));
    for (; i < n; i++)
        d[i] = gt_to_bf16(gt_from_bf16(d[i]) + gt_from_bf16(s[i]));
}

GT_MULTIVERSION static void sum_f16(uint16_t *restrict d, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = gt_to_f16(gt_from_f16(d[i + k]) + gt_from_f16(s[i + k]));
    for (; i < n; i++)
        d[i] = gt_to_f16(gt_from_f16(d[i]) + gt_from_f16(s[i]));
}

GT_MULTIVERSION static void widen_bf16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] = gt_from_bf16(s[i + k]);
    for (; i < n; i++)
        acc[i] = gt_from_bf16(s[i]);
}

GT_MULTIVERSION static void widen_f16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] = gt_from_f16(s[i + k]);
    for (; i < n; i++)
        acc[i] = gt_from_f16(s[i]);
}

GT_MULTIVERSION static void widen_add_bf16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] += gt_from_bf16(s[i + k]);
    for (; i < n; i++)
        acc[i] += gt_from_bf16(s[i]);
}

GT_MULTIVERSION static void widen_add_f16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] += gt_from_f16(s[i + k]);
    for (; i < n; i++)
        acc[i] += gt_from_f16(s[i]);
}

GT_MULTIVERSION static void narrow_bf16(uint16_t *restrict d, const float *restrict acc, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = gt_to_bf16(acc[i + k]);
    for (; i < n; i++)
        d[i] = gt_to_bf16(acc[i]);
}

GT_MULTIVERSION static void narrow_f16(uint16_t *restrict d, const float *restrict acc, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = gt_to_f16(acc[i + k]);
    for (; i < n; i++)
        d[i] = gt_to_f16(acc[i]);
}

/* ---- by type ---------------------------------------------------------------------------- */

static void add_f32(void *dst, const void *src, size_t bytes)
{
    sum_f32(dst, src, bytes / sizeof(float));
}

static void add_bf16(void *dst, const void *src, size_t bytes)
{
    sum_bf16(dst, src, bytes / sizeof(uint16_t));
}

static void add_f16(void *dst, const void *src, size_t bytes)
{
    const size_t n = bytes / sizeof(uint16_t);
    const size_t done = net_f16c_available() ? net_f16c_sum(dst, src, n) : 0;
    sum_f16((uint16_t *)dst + done, (const uint16_t *)src + done, n - done);
}

static void add_i32(void *dst, const void *src, size_t bytes)
{
    sum_i32(dst, src, bytes / sizeof(uint32_t));
}

net_reduce net_reduce_of(net_type type)
{
    switch (type) {
    case NET_F32: return add_f32;
    case NET_BF16: return add_bf16;
    case NET_F16: return add_f16;
    case NET_I32: return add_i32;
    }
    return NULL;
}

void net_widen(float *acc, const void *src, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        memcpy(acc, src, count * sizeof *acc);
    else if (type == NET_BF16)
        widen_bf16(acc, src, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_widen(acc, src, count) : 0;
        widen_f16(acc + done, (const uint16_t *)src + done, count - done);
    }
}

void net_widen_add(float *acc, const void *src, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        sum_f32(acc, src, count);
    else if (type == NET_BF16)
        widen_add_bf16(acc, src, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_widen_add(acc, src, count) : 0;
        widen_add_f16(acc + done, (const uint16_t *)src + done, count - done);
    }
}

void net_narrow(void *dst, const float *acc, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        memcpy(dst, acc, count * sizeof *acc);
    else if (type == NET_BF16)
        narrow_bf16(dst, acc, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_narrow(dst, acc, count) : 0;
        narrow_f16((uint16_t *)dst + done, acc + done, count - done);
    }
}
