/* SPDX-License-Identifier: MIT */
/* cl/topk.cl - gradients of which a few travel: of each chunk the values of largest magnitude.
 *
 *   x        | chunk 0 | chunk 1 | ...           CHUNK values each, the last one maybe fewer
 *   code     k values of chunk 0 | of chunk 1 | ...  | index of each within its chunk, in the order of the values
 *   next     x, zeros where code says something
 *
 * exact     the k of largest magnitude, those of lower index first among equals; NaN is the largest. In the order of
 *           their index.
 *           code: fp32 values [chunks * k] | ushort index within the chunk [chunks * k], NOTHING where there are
 *           fewer than k, or fewer that are not 0
 * sampled   every `stride`-th value, from one that moves with step and chunk, is looked at; as large a share of them
 *           as k is of the chunk gives a threshold; of what reaches it the k largest, or all if those are fewer
 *
 * The k-th largest is found by counting how many reach a threshold, never by sorting: a pass over a chunk is cheap, for
 * it stays in the cache. Encodings with `kept` are of x + kept, as in cl/compress.cl, where frame is described too.
 *
 * x: fp32, n values. CPU: a work-item owns `per` chunks; GPU: a work-group owns a chunk.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"

/* No device may join a product and a sum where another rounds twice. */
#pragma OPENCL FP_CONTRACT OFF

#include "block.clh"
#include "compress.clh"

#define NOTHING 0xffff

static uint magnitude(float x)
{
    return as_uint(x) & 0x7fffffffu;
}

/* A chunk as it is encoded: x, or what next gets where something was kept. */
static __global const float *fed_chunk(__global const float *x, __global const float *kept, __global float *next,
                                       int len, float ratio)
{
    if (!kept)
        return x;
#ifdef STYLE_CPU
    for (int i = 0; i < len; i += VW)
        store_some_f32(next, i, load_some_f32(kept, i, len - i) * ratio + load_some_f32(x, i, len - i), len - i);
#else
    for (int i = get_local_id(0); i < len; i += WG)
        next[i] = kept[i] * ratio + x[i];
    barrier(CLK_GLOBAL_MEM_FENCE);
#endif
    return next;
}

/* What is encoded, and where to. */
typedef struct chunk {
    int len, want;              /* values, and how many of them code has room for */
    __global const float *x;    /* [len]                                          */
    __global float *value;      /* [k]                                            */
    __global ushort *index;     /* [k]                                            */
    __global float *next;       /* [len]; null: nobody asks what is left out      */
} chunk;

/* Chunk c of n values, fed. Inlined: a call would keep registers in memory on AMD. By pointer, not by value: where a
 * function that returns a structure is inlined, there is an instruction that Oclgrind 21.10 does not know. */
static __attribute__((always_inline)) void chunk_of(chunk *h, uint c, ulong n, uint chunks, int k,
                                                    __global const float *frame, __global const float *kept,
                                                    __global const float *all, __global float *code,
                                                    __global float *next)
{
    const size_t at = (size_t)c * CHUNK;
    h->len = (int)min((ulong)CHUNK, n - at);
    h->want = min(k, h->len);
    h->next = next ? next + at : 0;
    h->x = fed_chunk(all + at, kept ? kept + at : 0, h->next, h->len, kept && frame ? frame[RATIO] : 1.0f);
    h->value = code + (size_t)c * k;
    h->index = (__global ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
}

/* As many of `count` looked at as `want` are of `len`, at least one. */
static int sample_rank(int want, int count, int len)
{
    return max(1, (want * count + len / 2) / len);
}

#ifdef STYLE_CPU

/* -1 in the lanes whose magnitude is at least `bits`, else 0. By subtraction: oclgrind misreads a comparison of vectors
 * that is added up. */
static intV at_least(floatV x, uint bits)
{
    return ((intV)(int)(bits - 1u) - (as_intV(x) & 0x7fffffff)) >> 31;
}

/* How many of x[0..len) have a magnitude of at least `bits`. */
static int count_from(__global const float *x, int len, uint bits)
{
    intV many = 0;
    int i = 0, rest = 0;
    for (; i + VW <= len; i += VW)
        many -= at_least(loadV_f32(x, i), bits);
    for (; i < len; i++)
        rest += magnitude(x[i]) >= bits;
    int lane[VW];
    vstoreV(many, 0, lane);
    for (int j = 0; j < VW; j++)
        rest += lane[j];
    return rest;
}

/* The largest magnitude that k of them reach, found by halving over the bits: between the largest of all and
 * what lies so many powers of two below it that k reach that, first one, then two, four, ... */
static uint threshold(__global const float *x, int len, int k)
{
    uint low = 0, high = most_of(x, 0, len) + 1;
    for (uint down = 1u << 23; down < high; down <<= 1) {
        const uint mid = high - down;
        if (count_from(x, len, mid) >= k) {
            low = mid;
            break;
        }
        high = mid;
    }
    while (high - low > 1) {
        const uint mid = low + (high - low) / 2;
        const int many = count_from(x, len, mid);
        if (many >= k)
            low = mid;
        else
            high = mid;
        if (many == k)
            break;
    }
    return low;
}

#define GROUPS (CHUNK / 2)

static uintV sizes(__global const float *x, int i)
{
    return as_uintV(loadV_f32(x, i)) & 0x7fffffffu;
}

static int sum_lanes(intV v)
{
    int lane[VW], sum = 0;
    vstoreV(v, 0, lane);
    for (int j = 0; j < VW; j++)
        sum += lane[j];
    return sum;
}

static uint most_lane(uintV v)
{
    uint lane[VW], most = 0;
    vstoreV(v, 0, lane);
    for (int j = 0; j < VW; j++)
        most = max(most, lane[j]);
    return most;
}

/* How many of size[0..count) are at least `bits`, and none has bit 31; count: a multiple of VW. */
static int many_from(const uint *size, int count, uint bits)
{
    intV many = 0;
    for (int i = 0; i < count; i += VW)
        many -= ((intV)(int)(bits - 1u) - as_intV(vloadV(0, size + i))) >> 31;
    return sum_lanes(many);
}

/* A magnitude that at least k of a whole chunk reach, k <= GROUPS / 4, and few more: so many of the largest of groups
 * reach it, which are fewer to count. At least four groups for each of k, so that few hold two of the largest. */
static uint reached_by_groups(__global const float *x, int k)
{
    uint most[GROUPS];
    uintV all = 0;
    int groups = k > GROUPS / 16 ? GROUPS : GROUPS / 4;
    for (int g = 0; g < groups; g += VW) {
        uintV of = 0;
        if (groups == GROUPS)
            of = max(sizes(x, 2 * g), sizes(x, 2 * g + VW));
        else
            for (int j = 0; j < 8 * VW; j += 2 * VW)
                of = max(of, max(sizes(x, 8 * g + j), sizes(x, 8 * g + j + VW)));
        vstoreV(of, 0, most + g);
        all = max(all, of);
    }
    while (groups >= 8 * k && groups > 4 * VW) {
        groups /= 2;
        for (int g = 0; g < groups; g += VW)
            vstoreV(max(vloadV(0, most + g), vloadV(0, most + groups + g)), 0, most + g);
    }
    uint high = most_lane(all) + 1, low = 0;
    for (uint down = 1u << 21; high - low > 1; down = min(2 * down, 1u << 30)) {
        const uint mid = low || down >= high ? low + (high - low) / 2 : high - down;
        const int many = many_from(most, groups, mid);
        if (many < k)
            high = mid;
        else
            low = mid;
        if (many >= k && many <= k + k / 16 + 2)
            break;
    }
    return low;
}

#define SURPLUS 24

/* The k-th largest of size[0..count); behind them are zeros, to a multiple of 16. */
static uint kth_of(const uint *size, int count, int k)
{
    const int padded = (count + 15) & ~15, surplus = count - k;
    uint least = 0;
    if (many_from(size, padded, 1) < k)
        return 0;
    if (surplus > SURPLUS) {                    /* bit by bit from the top */
        for (uint bit = 1u << 30; bit; bit >>= 1)
            least |= many_from(size, padded, least | bit) >= k ? bit : 0;
        return least;
    }
    do {                                        /* from the smallest up */
        uintV next = 0x7fffffffu;
        for (int i = 0; i < padded; i += VW) {
            const intV v = as_intV(vloadV(0, size + i)), above = ((intV)(int)least - v) >> 31;
            next = min(next, as_uintV((v & above) | (0x7fffffff & ~above)));
        }
        uint lane[VW];
        vstoreV(next, 0, lane);
        least = 0x7fffffffu;
        for (int j = 0; j < VW; j++)
            least = min(least, lane[j]);
    } while (least < 0x7fffffffu && count - many_from(size, padded, least + 1) <= surplus);
    return least;
}

/* Bit i: x[i] has a magnitude of at least `least`; of 32 values. */
static uint reaching(__global const float *x, uint least)
{
    uintV bits = 0;
    _Pragma("unroll")
    for (int j = 0; j < 32; j += VW)
        bits |= as_uintV(at_least(loadV_f32(x, j), least)) & (1u << j);
    bits <<= vloadV(0, lanes);
#if VW == 16
    const uint8 half_ = bits.lo | bits.hi;
    const uint4 a = half_.lo | half_.hi;
#elif VW == 8
    const uint4 a = bits.lo | bits.hi;
#else
    const uint4 a = bits;
#endif
    const uint2 b = a.lo | a.hi;
    return b.x | b.y;
}

static uint reaching_some(__global const float *x, int count, uint least)
{
    uint bits = 0;
    for (int j = 0; j < count; j++)
        bits |= (uint)(magnitude(x[j]) >= least) << j;
    return bits;
}

static void pad(uint *size, int count)
{
    for (int i = count; i < ((count + 15) & ~15); i++)
        size[i] = 0;
}

/* Of the values that reach `reach`, which is not 0, those of c.want that are largest, or all if those are fewer: zeros
 * need not be sent. c.next, null or c.x, loses them. size and where: room for a chunk. */
static void choose(chunk c, uint reach, int k, uint *size, ushort *where)
{
    ushort found[CHUNK / 32];
    uint bits[CHUNK / 32];
    int words = 0, count = 0, at = 0;
    for (int i = 0; i < c.len; i += 32) {
        const uint word = i + 32 <= c.len ? reaching(c.x + i, reach) : reaching_some(c.x + i, c.len - i, reach);
        found[words] = (ushort)i;
        bits[words] = word;
        words += word != 0;                     /* without a branch: nobody could guess it */
    }
    for (int w = 0; w < words; w++)
        for (uint word = bits[w]; word; word &= word - 1) {
            const int i = found[w] + 31 - (int)clz(word & (0u - word));
            size[count] = magnitude(c.x[i]);
            where[count++] = (ushort)i;
        }
    pad(size, count);
    const int padded = (count + 15) & ~15;
    uint least = reach;                         /* as it is where many are equal */
    int equals = c.want - many_from(size, padded, least + 1);
    if (equals <= 0 && count > c.want) {
        least = kth_of(size, count, c.want);
        equals = c.want - many_from(size, padded, least + 1);
    }
    for (int j = 0; j < count && at < c.want; j++) {          /* here neither */
        c.value[at] = c.x[where[j]];
        c.index[at] = where[j];
        at += (size[j] > least) | ((size[j] == least) & (equals > 0));
        equals -= size[j] == least;
    }
    for (int j = 0; c.next && j < at; j++)
        c.next[c.index[j]] -= c.value[j];
    for (; at < k; at++) {
        c.value[at] = 0.0f;
        c.index[at] = NOTHING;
    }
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *frame, __global const float *kept,
                        __global const float *all, __global float *code, __global float *next)
{
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    uint size[CHUNK + 16];
    ushort where[CHUNK];
    for (uint i = first; i < last; i++) {
        chunk c;
        chunk_of(&c, i, n, chunks, k, frame, kept, all, code, next);
        const uint reach = c.len == CHUNK && c.want <= GROUPS / 4 ? reached_by_groups(c.x, c.want)
                                                                  : threshold(c.x, c.len, c.want);
        choose(c, max(1u, reach), k, size, where);
    }
}

KERNEL void topk_encode_sampled(int per, ulong n, uint chunks, int k, int stride, __global const uint *random,
                                __global const float *frame, __global const float *kept, __global const float *all,
                                __global float *code, __global float *next)
{
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    uint size[CHUNK + 16];
    ushort where[CHUNK];
    for (uint i = first; i < last; i++) {
        chunk c;
        chunk_of(&c, i, n, chunks, k, frame, kept, all, code, next);
        int count = 0;
        for (int j = (int)((random[2] + i) % (uint)min(stride, c.len)); j < c.len; j += stride)
            size[count++] = magnitude(c.x[j]);
        pad(size, count);
        choose(c, max(1u, kth_of(size, count, sample_rank(c.want, count, c.len))), k, size, where);
    }
}

KERNEL void topk_decode(int per, ulong n, uint chunks, int k, int add, __global const float *code,
                        __global float *to)
{
    __global const ushort *indices = (__global const ushort *)(code + (size_t)chunks * k);
    const uint first = get_global_id(0) * per, last = min(chunks, first + per);
    for (uint c = first; c < last; c++) {
        __global float *y = to + (size_t)c * CHUNK;
        const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK);
        if (!add)
            for (int i = 0; i < len; i += VW)
                store_some_f32(y, i, (floatV)0.0f, len - i);
        for (int j = 0; j < k; j++) {
            const ushort at = indices[(size_t)c * k + j];
            if (at < len)
                y[at] = add ? y[at] + code[(size_t)c * k + j] : code[(size_t)c * k + j];
        }
    }
}

#else

/* The k-th largest magnitude, eight bits at a time from the top: how many there are of each value of the
 * eight, and in which of them the k-th falls. *equals: how many of that magnitude belong to the k. */
static uint threshold(__global const float *x, int len, int k, int *equals, __local int *bins,
                      __local int *found)
{
    const int me = get_local_id(0);
    uint known = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int b = me; b < 256; b += WG)
            bins[b] = 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = me; i < len; i += WG) {
            const uint m = magnitude(x[i]);
            if ((m & mask) == known)
                atomic_inc(&bins[m >> shift & 255u]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me < 16) {                          /* sums of sixteen bins each */
            int sum = 0;
            for (int b = 0; b < 16; b++)
                sum += bins[16 * me + b];
            found[2 + me] = sum;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (me == 0) {
            int b = 15, left = k;
            for (; b > 0 && found[2 + b] < left; b--)
                left -= found[2 + b];
            b = 16 * b + 15;
            for (; (b & 15) > 0 && bins[b] < left; b--)
                left -= bins[b];
            found[0] = b;
            found[1] = left;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        known |= (uint)found[0] << shift;
        mask |= 255u << shift;
        k = found[1];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    *equals = k;
    return known;
}

/* The sum of v over the work-items before this one. */
static int2 sum_before(int2 v, __local int2 *tmp)
{
    const int me = get_local_id(0);
    tmp[me] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int d = 1; d < WG; d <<= 1) {
        const int2 other = me >= d ? tmp[me - d] : (int2)0;
        barrier(CLK_LOCAL_MEM_FENCE);
        tmp[me] += other;
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return tmp[me] - v;
}

/* The c.want largest, at the beginning of c.value and c.index, in the order of their index. Inlined as above. */
static __attribute__((always_inline)) void largest(chunk c, __local int *bins, __local int *found, __local int2 *tmp)
{
    const int begin = min(c.len, (int)get_local_id(0) * (CHUNK / WG)), end = min(c.len, begin + CHUNK / WG);
    int equals;
    const uint least = threshold(c.x, c.len, c.want, &equals, bins, found);
    int2 own = 0;                               /* above the threshold, and at it */
    for (int i = begin; i < end; i++) {
        const uint m = magnitude(c.x[i]);
        own += (int2)(m > least, m == least);
    }
    const int2 before = sum_before(own, tmp);
    int above = before.x, same = before.y;
    for (int i = begin; i < end; i++) {
        const uint m = magnitude(c.x[i]);
        if (m > least || (m == least && same < equals)) {
            const int at = above + min(same, equals);
            c.value[at] = c.x[i];
            c.index[at] = (ushort)i;
        }
        above += m > least;
        same += m == least;
    }
}

/* When the first `count` of code's k are chosen: the others say nothing, and c.next, if it is there, loses what was
 * chosen. */
static __attribute__((always_inline)) void finish(chunk c, int count, int k)
{
    for (int at = count + get_local_id(0); at < k; at += WG) {
        c.value[at] = 0.0f;
        c.index[at] = NOTHING;
    }
    if (!c.next)
        return;
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int j = get_local_id(0); j < count; j += WG)
        c.next[c.index[j]] -= c.value[j];
}

KERNEL void topk_encode(int per, ulong n, uint chunks, int k, __global const float *frame, __global const float *kept,
                        __global const float *all, __global float *code, __global float *next)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    chunk c;
    chunk_of(&c, get_group_id(0), n, chunks, k, frame, kept, all, code, next);
    largest(c, bins, found, tmp);
    finish(c, c.want, k);
}

#define POOL 1024               /* values of a sample, or that reach its threshold, which local memory holds */

/* How many of pool[0..count) come before entry j: larger ones, and equal ones of lower index. */
static int rank_in(__local const uint *pool, int count, int j)
{
    const uint mine = pool[j];
    int before = 0;
    for (int i = 0; i < count; i++)
        before += pool[i] > mine || (pool[i] == mine && i < j);
    return before;
}

KERNEL void topk_encode_sampled(int per, ulong n, uint chunks, int k, int stride, __global const uint *random,
                                __global const float *frame, __global const float *kept, __global const float *all,
                                __global float *code, __global float *next)
{
    __local int bins[256], found[18];
    __local int2 tmp[WG];
    __local uint pool[POOL];
    __local ushort where[POOL];
    __local uchar chosen[POOL];
    chunk c;
    chunk_of(&c, get_group_id(0), n, chunks, k, frame, kept, all, code, next);
    const int me = get_local_id(0), begin = min(c.len, me * (CHUNK / WG)), end = min(c.len, begin + CHUNK / WG);
    const int start = (int)((random[2] + (uint)get_group_id(0)) % (uint)min(stride, c.len));
    const int looked = (c.len - start + stride - 1) / stride, rank = sample_rank(c.want, looked, c.len) - 1;
    for (int j = me; j < looked; j += WG)
        pool[j] = magnitude(c.x[start + j * stride]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < looked; j += WG)
        if (rank_in(pool, looked, j) == rank)
            found[0] = (int)pool[j];
    barrier(CLK_LOCAL_MEM_FENCE);
    const uint reach = (uint)found[0];
    int2 own = 0;
    for (int i = begin; i < end; i++)
        own.x += magnitude(c.x[i]) >= reach;
    int at = sum_before(own, tmp).x;
    const int count = tmp[WG - 1].x;
    if (count <= c.want) {
        for (int i = begin; i < end; i++)
            if (magnitude(c.x[i]) >= reach) {
                c.value[at] = c.x[i];
                c.index[at++] = (ushort)i;
            }
        finish(c, count, k);
        return;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (count > POOL) {
        largest(c, bins, found, tmp);
        finish(c, c.want, k);
        return;
    }
    for (int i = begin; i < end; i++)
        if (magnitude(c.x[i]) >= reach) {
            pool[at] = magnitude(c.x[i]);
            where[at++] = (ushort)i;
        }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < count; j += WG)
        chosen[j] = rank_in(pool, count, j) < c.want;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j = me; j < count; j += WG) {
        int to = 0;
        for (int i = 0; i < j; i++)
            to += chosen[i];
        if (chosen[j]) {
            c.value[to] = c.x[where[j]];
            c.index[to] = where[j];
        }
    }
    finish(c, c.want, k);
}

KERNEL void topk_decode(int per, ulong n, uint chunks, int k, int add, __global const float *code,
                        __global float *to)
{
    const uint c = get_group_id(0);
    __global const float *value = code + (size_t)c * k;
    __global const ushort *index = (__global const ushort *)(code + (size_t)chunks * k) + (size_t)c * k;
    __global float *y = to + (size_t)c * CHUNK;
    const int len = (int)min((ulong)CHUNK, n - (ulong)c * CHUNK), me = get_local_id(0);
    if (!add)
        for (int i = me; i < len; i += WG)
            y[i] = 0.0f;
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (int j = me; j < k; j += WG) {          /* indices of a chunk are all different */
        const int at = index[j];
        if (at < len)
            y[at] = add ? y[at] + value[j] : value[j];
    }
}

#endif
